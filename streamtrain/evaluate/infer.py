"""The luminosity function of a user's map, as a trained network reads it off, and its figure."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from streamtrain._version import __version__
from streamtrain.config import Config
from streamtrain.evaluate.infer_parameters import ParameterPosterior, parameters_of
from streamtrain.evaluate.infer_reference import LEVELS, ErrorReference, Measurement
from streamtrain.evaluate.predictions import point_of
from streamtrain.evaluate.run import Run
from streamtrain.figures import LABEL_SIZE, NETWORK, TICK_SIZE, TRUTH, positions, style, write_png
from streamtrain.labels import NO_FUNCTION, QUANTITIES, Label
from streamtrain.luminosity.scores import in_label
from streamtrain.machine.files import sha256, write_json, write_text
from streamtrain.machine.progress import Progress
from streamtrain.maps.prepare import Prepared, prepare
from streamtrain.maps.read import read_map
from streamtrain.maps.skymap import SkyMap
from streamtrain.networks.network import Network
from streamtrain.tables import columns

Float = NDArray[np.float64]

NUM_SAMPLES = 128
"""Training maps that a map is compared with."""
COLUMNS = {"counts": "dN", "cumulative": "N_above", "phi": "phi", "phi_L": "phi_L"}
"""Name of the prediction in the table."""
ASTROPY_UNITS = {"counts": None, "cumulative": None, "phi": "Mpc-3 solLum-1", "phi_L": "Mpc-3"}
INTERVALS = ("low_95", "low_68", "high_68", "high_95")
ROWS = 10
"""Luminosities in the table on the screen."""


@dataclass(frozen=True)
class Function:
    """An inferred function of luminosity, in the label's quantity, not its logarithm."""

    quantity: str
    bin_edges: Float
    """log10(L/Lsun) [num_bins + 1]."""
    value: Float
    """[num_bins]; a bin of less than one halo counts as one."""
    interval: Float | None
    """Ends of the 95 % and 68 % intervals, in the order of `INTERVALS`, [4, num_bins]."""
    unit_label: Float
    """What one halo is worth [num_bins]."""
    uncertainty: str
    """Where the intervals come from."""


@dataclass(frozen=True)
class Options:
    """How a map is read and written."""

    units: str | None = None
    nu_rest_GHz: float | None = None
    index: int | None = None
    hdu: str | None = None
    no_value: float | None = None
    regrid: bool = False
    centre_deg: tuple[float, float] | None = None
    rayleigh_jeans: bool = False
    samples: int = NUM_SAMPLES
    """Training maps to compare with; 0: none."""
    measure: bool = False
    """Measure the errors and look at the training maps, though the run has them."""
    out: Path | None = None
    """Folder; default: `infer` in the run folder."""


Prediction: TypeAlias = Function | dict[str, float] | ParameterPosterior
"""What is read off a map: a function of luminosity, probabilities of classes, or parameters."""


def infer(
    run: Config | str | Path,
    path: str | Path,
    options: Options | None = None,
    *,
    device: str = "cpu",
    threads: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Read a map, check it, let the newest intact checkpoint of a run predict, print that and write
    NAME.ecsv, NAME.json and NAME.png; returns what the JSON file holds.

    run: a configuration, or the folder of a run. The uncertainty is the network's own where its
    head predicts one, else that of its errors on the test set, as the run has them, with their
    age, or measured now where it has none. Raises ValueError, one sentence,
    for a map that is not like those that the network was trained on in line, units, band, field or
    voxels, see `maps.prepare`, and where the run folder holds the prediction for another map of
    this name, or for one that was read with other options.
    """
    with Run.open(run, device=device, threads=threads, progress=progress) as opened:
        return _infer(opened, path, options or Options())


def _infer(run: Run, path: str | Path, options: Options) -> dict[str, Any]:
    config, trained = run.config, run.trained
    sky = read_map(
        path,
        units=options.units,
        nu_rest_GHz=options.nu_rest_GHz,
        index=options.index,
        hdu=options.hdu,
        no_value=options.no_value,
    )
    prepared = prepare(
        sky,
        config,
        regrid=options.regrid,
        centre_deg=options.centre_deg,
        rayleigh_jeans=options.rayleigh_jeans,
        device=run.device,
    )
    stem = _stem(Path(path)) + ("" if options.index is None else f"_{options.index}")
    target = run.folder / "infer" if options.out is None else options.out
    about = _about(sky, path) | {"options": _said(options)}
    if options.out is None:
        _refuse_other(target / f"{stem}.json", about)
    own = config.network.head in ("gaussian", "poisson", "negative_binomial")
    reference = Measurement(run, samples=options.samples, again=options.measure).get(
        residuals=not own and config.label.quantity not in NO_FUNCTION
    )
    run.progress.close()
    parameters = in_label(config.label, config.line)
    label = Label(config.label, [reference.volume_Mpc3], trained.classes, parameters=parameters)
    network = trained.network(label, run.device)
    warnings = [*reference.problems]
    if reference.seen is not None and (problem := reference.seen.problem(prepared.cube)):
        warnings.append(problem)
    prediction: Prediction
    if label.is_parameters:
        unit_label = label.unit_label(np.zeros(1, np.int64))
        output, _ = point_of(network, prepared.cube[None], unit_label)
        prediction = parameters_of(network, config.line, output)
        warnings += prediction.warnings()
    else:
        prediction = predict_map(network, label, prepared.cube, reference)
    errors = reference.errors
    if errors is not None and errors.outdated(trained.step):
        warnings.append(
            f"the errors are those of {errors.age(trained.step)}; --measure renews them"
        )
    result = {
        "map": about,
        "run": str(run.folder),
        "checkpoint_step": trained.step,
        "streamtrain": __version__,
        "applied": prepared.applied,
        "left_out": prepared.left_out,
        "notes": prepared.notes,
        "warnings": warnings,
        "errors": None
        if errors is None
        else {
            "source": errors.source,
            "checkpoint_step": errors.step,
            "steps_ago": trained.step - errors.step,
            "generator_version": errors.generator_version,
            "test_samples": errors.test_samples,
        },
        **_plain(prediction),
    }
    files = _write(target / stem, result, prediction)
    age = "" if errors is None else errors.age(trained.step)
    print(_screen(sky, prepared, result, prediction, age))
    print(f"wrote {', '.join(str(file) for file in files)}")
    return result


def predict_map(
    network: Network, label: Label, cube: torch.Tensor, reference: ErrorReference
) -> Function | dict[str, float]:
    """What a network predicts for a cube [n_freq, n_dec, n_ra]; of classes, their probabilities.

    Raises ValueError if it is not finite.
    """
    unit_label = label.unit_label(np.zeros(1, np.int64)).to(cube.device)
    output, point = point_of(network, cube[None], unit_label)
    with torch.inference_mode():
        spread = network.head.spread(output, unit_label, LEVELS)
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
    return Function(
        label.config.quantity,
        label.bins.edges,
        one * 10.0**log10,
        None if interval is None else one * 10.0**interval,
        one,
        uncertainty,
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
    names = [name for name in usual if name not in ("samples", "measure", "out")]
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


def _plain(prediction: Prediction) -> dict[str, Any]:
    if isinstance(prediction, ParameterPosterior):
        return prediction.plain()
    if isinstance(prediction, dict):
        return {"label": "class", "classes": prediction}
    result: dict[str, Any] = {
        "label": prediction.quantity,
        "log10_L_edges": prediction.bin_edges.tolist(),
        "value": prediction.value.tolist(),
        "one_halo": prediction.unit_label.tolist(),
        "uncertainty": prediction.uncertainty,
    }
    if prediction.interval is not None:
        result |= dict(zip(INTERVALS, prediction.interval.tolist(), strict=True))
    return result


def _write(stem: Path, result: dict[str, Any], prediction: Prediction) -> list[Path]:
    """The files of a prediction."""
    files = [stem.with_name(f"{stem.name}.{suffix}") for suffix in ("ecsv", "json", "png")]
    if isinstance(prediction, dict):
        files.pop()
    else:
        title = Path(result["map"]["file"]).name
        if isinstance(prediction, ParameterPosterior):
            write_png(prediction.figure(title), files[2])
        else:
            write_png(prediction_figure(prediction, title), files[2])
    write_json(files[1], result)
    text = _ecsv(result, prediction)
    if text is None:
        result["warnings"].append(
            "no ECSV: it needs `pip install astropy`; the JSON file has it all"
        )
        return files[1:]
    write_text(files[0], text)
    return files


def _ecsv(result: dict[str, Any], prediction: Prediction) -> str | None:
    """The prediction as an ECSV table; None without astropy."""
    try:
        from astropy.table import Table
    except ImportError:
        return None
    about = {
        key: result[key]
        for key in ("map", "run", "checkpoint_step", "streamtrain", "applied", "warnings")
    }
    if isinstance(prediction, ParameterPosterior):
        table = Table(prediction.table(), meta=about)
    elif isinstance(prediction, dict):
        table = Table(
            {"class": list(prediction), "probability": list(prediction.values())}, meta=about
        )
    else:
        name = COLUMNS[prediction.quantity]
        unit = ASTROPY_UNITS[prediction.quantity]
        columns: dict[str, Any] = {
            "log10_L_low": prediction.bin_edges[:-1],
            "log10_L_high": prediction.bin_edges[1:],
            name: prediction.value,
        }
        if prediction.interval is not None:
            rows = zip(INTERVALS, prediction.interval, strict=True)
            columns |= {f"{name}_{end}": values for end, values in rows}
        about["uncertainty"] = prediction.uncertainty
        table = Table(columns, meta=about)
        for column in table.columns.values():
            if column.name.startswith("log10_L"):
                column.description = "log10 of the luminosity in solar luminosities"
            else:
                column.unit = unit
    stream = io.StringIO()
    table.write(stream, format="ascii.ecsv")
    return stream.getvalue()


def _screen(
    sky: SkyMap,
    prepared: Prepared,
    result: dict[str, Any],
    prediction: Prediction,
    age: str,
) -> str:
    """What the user sees; age: of the errors."""
    shape = " x ".join(str(n) for n in sky.shape)
    lines = [
        f"map       {sky.source} ({sky.layout}): {shape} voxels (freq, dec, ra), "
        f"{sky.ra.width:.4g} x {sky.dec.width:.4g} deg, {sky.nu_GHz[0]:g}..{sky.nu_GHz[1]:g} GHz"
        + (f", {sky.units}" if sky.units else ""),
        f"network   {result['run']}, step {result['checkpoint_step']}",
        f"applied   {', '.join(prepared.applied) or 'no operator'}",
    ]
    if age:
        lines.append(f"errors    {age}")
    if prepared.left_out:
        lines.append(f"left out  {', '.join(prepared.left_out)}: a map has them in it")
    lines += [f"note      {note}" for note in prepared.notes]
    lines += [f"warning   {warning}" for warning in result["warnings"]]
    if isinstance(prediction, ParameterPosterior):
        return "\n".join([*lines, *prediction.lines()])
    if isinstance(prediction, dict):
        rows = [[name, f"{chance:.3f}"] for name, chance in prediction.items()]
        return "\n".join([*lines, *columns(["class", "probability"], rows)])
    symbol = QUANTITIES[prediction.quantity].symbol
    lines.append(f"68 % and 95 %: {prediction.uncertainty}")
    num, rows = len(prediction.value), []
    for k in np.unique(np.linspace(0, num - 1, min(ROWS, num)).round().astype(int)):
        low, high = prediction.bin_edges[k], prediction.bin_edges[k + 1]
        spans = ["", ""]
        if prediction.interval is not None:
            a, b, c, d = prediction.interval[:, k]
            spans = [f"{b:.4g} .. {c:.4g}", f"{a:.4g} .. {d:.4g}"]
        rows.append([f"{low:.2f}..{high:.2f}", f"{prediction.value[k]:.4g}", *spans])
    lines += columns(["log10 L", symbol, "68 %", "95 %"], rows)
    if num > ROWS:
        lines.append(f"{ROWS} of {num} bins; the files have them all")
    if prediction.interval is not None:
        _, low68, high68, _ = prediction.interval
        outside = int(((prediction.value < low68) | (prediction.value > high68)).sum())
        if outside:
            lines.append(
                f"in {outside} bins the value lies outside its 68 %: the intervals are corrected "
                "for the network's mean error on its test maps, the value is not"
            )
    return "\n".join(lines)


def prediction_figure(prediction: Function, title: str = "", true: Float | None = None) -> Figure:
    """An inferred function with its 68 % and 95 %; true: the truth where it is known, in the same
    quantity [num_bins], not drawn where it is 0."""
    figure = Figure(figsize=(6.4, 4.6), dpi=150, layout="constrained")
    axes = figure.subplots()
    at = positions(prediction.bin_edges, prediction.quantity)
    if prediction.interval is not None:
        low95, low68, high68, high95 = prediction.interval
        axes.fill_between(at, low95, high95, color=NETWORK, alpha=0.2, lw=0, label="95 %")
        axes.fill_between(at, low68, high68, color=NETWORK, alpha=0.4, lw=0, label="68 %")
    axes.plot(at, prediction.value, color=NETWORK, lw=1.8, label="network")
    axes.plot(at, prediction.unit_label, ":", color="grey", lw=1.2, zorder=1, label="one halo")
    if true is not None:
        some = true > 0
        axes.plot(at[some], true[some], "o", color=TRUTH, ms=2.8, zorder=4, label="true")
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.7 * float(prediction.unit_label.min()))
    style(axes, prediction.bin_edges)
    axes.set_xlabel(r"$L$ [$L_\odot$]", fontsize=LABEL_SIZE)
    axes.set_ylabel(QUANTITIES[prediction.quantity].axis, fontsize=LABEL_SIZE)
    axes.set_title(title, fontsize=TICK_SIZE)
    axes.legend(fontsize=TICK_SIZE - 1, frameon=False, loc="lower left")
    return figure
