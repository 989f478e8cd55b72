"""The luminosity function of a user's map, as a trained network reads it off."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from streamtrain._version import __version__
from streamtrain.config import Config
from streamtrain.evaluate.alarm.watch import NO_ALARM, check_maps
from streamtrain.evaluate.inference.known_errors import ErrorReference, Measurement
from streamtrain.evaluate.inference.output import Function, Prediction, plain, screen, write
from streamtrain.evaluate.inference.parameter_posterior import Accepts, parameters_of
from streamtrain.evaluate.inference.prepare import prepare
from streamtrain.evaluate.inference.trained_for import trained_for, trained_for_lines
from streamtrain.evaluate.posterior.posterior import (
    NUM_FUNCTIONS,
    Posterior,
    check_functions,
    check_posterior,
    check_seed,
    has_posterior,
    posterior_of,
)
from streamtrain.evaluate.repaint.repaint import (
    NUM_CALIBRATION,
    NUM_PAINTED,
    check,
    check_can_be_painted,
    check_number,
    check_ranked,
)
from streamtrain.evaluate.run import Run
from streamtrain.figures import as_name
from streamtrain.labels import NO_FUNCTION, Label
from streamtrain.machine.files import sha256
from streamtrain.machine.progress import said_if_slow
from streamtrain.machine.workers import ALONE, Resources
from streamtrain.maps import READING
from streamtrain.maps.read import read_map
from streamtrain.maps.skymap import SkyMap
from streamtrain.networks.heads import Head
from streamtrain.networks.network import Network, head_class, point_of
from streamtrain.ranks import INTERVAL_ENDS
from streamtrain.shipped import is_shipped, run_name


@dataclass(frozen=True)
class CheckOptions:
    """How a map is compared with maps painted from its posterior, see `Run.check`."""

    number: int = NUM_PAINTED
    maps: int = NUM_CALIBRATION
    noise_level: float | None = None


@dataclass(frozen=True)
class Options:
    """How a map is read and written."""

    units: str | None = None
    nu_rest_GHz: float | None = None
    index: int | None = None
    hdu: str | None = None
    no_value: float | None = None
    sum_feeds: bool = False
    regrid: bool = False
    centre_deg: tuple[float, float] | None = None
    rayleigh_jeans: bool = False
    anyway: bool = False
    """Read a map that was processed otherwise than the training's maps."""
    samples: int | None = None
    """Maps of the prior to compare with; 0: none; None: as many as the run has kept, or 2000."""
    measure: bool = False
    """Measure the errors and look at maps of the prior, though the run has them."""
    out: Path | None = None
    """Folder; default: `infer` in the run folder, NAME_infer for a network that ships."""
    functions: int = NUM_FUNCTIONS
    """Luminosity functions that are drawn from the posterior."""
    seed: int = 0
    """The number that decides which functions are drawn, and which maps are painted."""
    functions_out: Path | None = None
    """An npz file for them; None: they are not written."""
    check: CheckOptions | None = None
    """Paint maps from the posterior and compare the map with them; None: it is not done."""


def infer(
    run: Config | str | Path,
    path: str | Path,
    options: Options | None = None,
    *,
    recalibrated: bool = True,
    resources: Resources = ALONE,
) -> dict[str, Any]:
    """Read a map, check it, let the newest intact checkpoint of a run predict, print that and write
    NAME.ecsv, NAME.json and NAME.png; returns what the JSON file holds.

    run: a configuration, or the folder of a run. The uncertainty is the network's own where its
    head predicts one, and its joint posterior where that is of numbers of halos; else that of its
    errors on the test set, as the run has them, with their age, or measured now where it has none.
    recalibrated: whether a recalibration of the run is applied (see `recalibrate`).
    Raises ValueError, one sentence, for a map that is not like those that the network was trained
    on in line, units, band, field or voxels, see `maps.prepare`, and where the run folder holds the
    prediction for another map of this name, or for one that was read with other options.
    """
    options = options or Options()
    check_functions(options.functions)
    check_seed(options.seed)
    check_maps(options.samples or 0)
    with Run.using(resources, run, recalibrated=recalibrated) as opened:
        if options.functions_out is not None:
            check_posterior(opened.config)
        if options.check is not None:
            check_can_be_painted(opened.config)
            check_number(options.check.number)
            check_ranked(options.check.maps)
        return _infer(opened, path, options)


def _infer(run: Run, path: str | Path, options: Options) -> dict[str, Any]:
    config, trained = run.config, run.trained
    with said_if_slow(f"reading and preparing {path}"):
        sky = read_map(path, **{name: getattr(options, name) for name in READING})
        prepared = prepare(
            sky,
            config,
            regrid=options.regrid,
            centre_deg=options.centre_deg,
            rayleigh_jeans=options.rayleigh_jeans,
            anyway=options.anyway,
            device=run.device,
        )
    stem = _stem(Path(path)) + ("" if options.index is None else f"_{options.index}")
    usual = Path(f"{run.folder.name}_infer") if is_shipped(run.folder) else run.folder / "infer"
    target = usual if options.out is None else options.out
    about = _about(sky, path) | {"options": _said(options)}
    if options.out is None:
        _refuse_other(target / f"{stem}.json", about)
    sampled, quantity = has_posterior(config), config.label.quantity
    reference = Measurement(run, again=options.measure).get(
        residuals=not knows_its_errors(config), cosmology=sampled or quantity in ("phi", "phi_L")
    )
    watch, failed = run.watch(options.samples, again=options.measure)
    if watch is None and not failed:
        prepared = replace(prepared, notes=[*prepared.notes, f"{NO_ALARM} (--samples 0)"])
    run.progress.close()
    training = reference.training
    network = run.network_of(training)
    label = network.head.label
    warnings = [*prepared.warnings, *reference.problems, *failed]
    posterior, alarm = None, None
    if sampled:
        with said_if_slow(f"drawing {options.functions} luminosity functions"):
            posterior = posterior_of(
                network,
                prepared,
                config.grid,
                training,
                watch=watch,
                functions=options.functions,
                seed=options.seed,
                problems=warnings,
                applied=trained.applied,
                network_name=run.named,
            )
        warnings, alarm = [*posterior.warnings], posterior.alarm
    elif watch is not None:
        (alarm,) = watch.judge(prepared.cube[None])
        warnings += [alarm.warning] if alarm.extrapolated else []
    prediction: Prediction
    if label.is_parameters:
        unit_label = label.unit_label(np.zeros(1, np.int64))
        output, _ = point_of(network, prepared.cube[None], unit_label)
        accepts, unknown = _conditions(run)
        prediction = parameters_of(network, config.line, output, accepts)
        warnings += [*prediction.warnings(), *unknown]
    else:
        prediction = predict_map(network, label, prepared.cube, reference, posterior)
    errors = reference.errors
    if errors is not None and errors.outdated(trained.step):
        warnings.append(
            f"the errors are those of {errors.age(trained.step)}; --measure renews them"
        )
    checked = None
    if options.check is not None:
        checked = check(
            run.painting,
            prepared.cube,
            functions=None if posterior is None else posterior.samples,
            seed=options.seed,
            **asdict(options.check),
        )
        warnings += [checked.warning] if checked.warning else []
    result = {
        "map": about,
        "run": run_name(run.folder),
        "training": trained_for(config),
        "checkpoint_step": trained.step,
        "recalibration": trained.applied.record(),
        "streamtrain": __version__,
        "applied": prepared.applied,
        "left_out": prepared.left_out,
        "notes": prepared.notes,
        "warnings": warnings,
        "alarm": None if alarm is None else alarm.to_dict(),
        "errors": None
        if errors is None
        else {
            "source": errors.source,
            "checkpoint_step": errors.step,
            "steps_ago": trained.step - errors.step,
            "generator_version": errors.generator_version,
            "test_samples": errors.test_samples,
        },
        **plain(prediction),
        **({} if checked is None else {"check": checked.to_dict()}),
    }
    kept = []
    if posterior is not None and options.functions_out is not None:
        posterior.save(options.functions_out)  # first: if it cannot be written, nothing is
        kept.append(options.functions_out)
    if checked is not None:
        kept.append(target / f"{stem}_check.png")
        checked.plot(kept[-1], title=as_name(Path(path).name))
    with said_if_slow("drawing the figure"):
        files = [*write(target / stem, result, prediction), *kept]
    age = "" if errors is None else errors.age(trained.step)
    print(screen(sky, prepared, result, prediction, age, trained_for_lines(config)))
    if checked is not None:
        print("\n".join(["", *checked.lines()]))
    print(f"wrote {', '.join(str(file) for file in files)}")
    return result


def _conditions(run: Run) -> tuple[Accepts | None, list[str]]:
    """What the training's draws of parameters meet besides the constraints of their prior, and a
    sentence where that is not known here."""
    if not run.config.line.require.asks:
        return None, []
    try:
        return run.training().line.accepts, []
    except (ValueError, OSError) as error:
        return None, [
            "the prior beside the posterior is without what emit.line.require asks of the "
            f"training: {error}"
        ]


def knows_its_errors(config: Config) -> bool:
    """Whether the network of a configuration predicts the errors of its own label."""
    if config.label.quantity in NO_FUNCTION:
        return True
    return head_class(config.network.head).spread is not Head.spread


def predict_map(
    network: Network,
    label: Label,
    cube: torch.Tensor,
    reference: ErrorReference,
    posterior: Posterior | None = None,
) -> Function | dict[str, float]:
    """What a network predicts for a cube [n_freq, n_dec, n_ra]; of classes, their probabilities.

    posterior: of this cube, where the network has one; where its bins are joint, its medians and
    intervals are the prediction, else the head's own point estimate and quantiles. Raises
    ValueError if the prediction is not finite.
    """
    unit_label = label.unit_label(np.zeros(1, np.int64)).to(cube.device)
    output, point = point_of(network, cube[None], unit_label)
    spread = None
    if posterior is None or not posterior.joint:  # which has quantiles of its own
        with torch.inference_mode():
            spread = network.head.spread(output, unit_label, INTERVAL_ENDS)
    if label.is_class:
        chances = point.double().softmax(dim=1)[0].tolist()
        return dict(zip(label.classes, chances, strict=True))
    log10 = label.log10_counts(point, unit_label).cpu().numpy()[0]
    uncertainty, interval = "none", None
    if spread is not None:
        ends = [label.log10_counts(values, unit_label.cpu()).numpy()[0] for values in spread]
        interval = np.stack(ends)
        uncertainty = "predicted by the network"
    elif reference.errors is not None:
        errors = reference.errors
        # predicted minus true lies between the quantiles, so the truth between these
        interval = np.maximum(log10 - errors.residuals[::-1], 0.0)
        uncertainty = f"errors of the network on the {errors.test_samples} maps of its test set"
    unit = label.unit_of(unit_label)
    one = np.ones(len(log10)) if unit is None else np.asarray(unit[0])
    if posterior is not None and posterior.joint:
        drawn = np.log10(np.maximum(posterior.quantiles([*INTERVAL_ENDS, 0.5]) / one, 1.0))
        interval, log10 = drawn[:-1], drawn[-1]
        uncertainty = (
            f"{len(posterior.samples)} luminosity functions drawn from the network's joint "
            f"posterior, seed {posterior.seed}"
        )
    if posterior is not None and posterior.recalibration:
        uncertainty += f"; {posterior.recalibration}"
    return Function(
        label.config.quantity,
        label.bins.edges,
        one * 10.0**log10,
        None if interval is None else one * 10.0**interval,
        one,
        uncertainty,
        posterior,
    )


def _stem(path: Path) -> str:
    """'map' of 'map.fits.gz'."""
    name = path.name.removesuffix(".gz")
    return name.rpartition(".")[0] or name


def _about(sky: SkyMap, path: str | Path) -> dict[str, Any]:
    return {
        "file": str(path),
        "sha256": sha256(Path(path)),
        "layout": sky.layout,
        "shape": list(sky.shape),
        "field_deg": [sky.ra.width, sky.dec.width],
        "nu_GHz": list(sky.nu_GHz),
        "nu_rest_GHz": sky.nu_rest_GHz,
        "units": sky.units,
    }


def _said(options: Options) -> dict[str, str]:
    """The options that decide how a map is read, if they are not the default."""
    given, usual = asdict(options), asdict(Options())
    others = ("samples", "measure", "out", "functions", "seed", "functions_out", "check")
    names = [name for name in usual if name not in others]
    return {name: str(given[name]) for name in names if given[name] != usual[name]}


def _refuse_other(file: Path, about: Mapping[str, Any]) -> None:
    """ValueError if a file is of another map, or of this one read with other options."""
    try:
        before = json.loads(file.read_text(encoding="utf-8"))["map"]
        other = before["sha256"] != about["sha256"]
        changed = before.get("options", about["options"]) != about["options"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return
    if other or changed:
        what = f"another map, {before.get('file')}" if other else "this map with other options"
        raise ValueError(f"{file} is of {what}, and stays as it is: --out writes elsewhere")
