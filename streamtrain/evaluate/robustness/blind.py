"""A blind test: maps that no training sees, and where answer and alarm stand: `evaluate --blind`.

configs/blind/maps.yaml lists the maps; each is the run's own configuration with one thing changed
that a survey could have wrong without knowing it: the maker of the halos, the luminosity function,
the beam, an interloper, the channels' gains, noise that is not white. The network answers as it
would to a user's map. Gains and drifts are made with NumPy, on the finished map.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from scipy import special

from streamtrain.catalogs.synthesis.make import Recipe
from streamtrain.catalogs.synthesis.options import SkyOptions
from streamtrain.config import Config, from_mapping
from streamtrain.cosmology import Cosmology
from streamtrain.evaluate.posterior.posterior import Posterior, check_posterior
from streamtrain.evaluate.robustness.makers import free_seed
from streamtrain.evaluate.robustness.other_skies import cosmology_of, folder_for, training_files
from streamtrain.evaluate.run import Run
from streamtrain.figures import LABEL_SIZE, TICK_SIZE, WRONG, legend_below, write_png
from streamtrain.generator.needed import sky_of
from streamtrain.labels import QUANTITIES
from streamtrain.luminosity.lines import line_name
from streamtrain.luminosity.lost_light import LostLightWarning
from streamtrain.luminosity.registry import find_model
from streamtrain.machine.files import read_text, reading, sha256_of, write_json
from streamtrain.machine.workers import ALONE, Resources
from streamtrain.numerics.backend import full_device, kernels_for
from streamtrain.ranks import BAND
from streamtrain.schema import ConfigError, ModelRangeWarning, convert, nearest, to_dict
from streamtrain.shipped import resource_dir
from streamtrain.tables import columns
from streamtrain.yamltext import parse_yaml

Float = NDArray[np.float64]

FOLDER = "blind"
"""In the output folder: the lightcones."""
ACROSS = 6
"""Panels of the figure in a row."""


@dataclass(frozen=True)
class Blind:
    """A map of the test: what is not as in the training. See configs/blind/maps.yaml."""

    name: str
    what: str
    """What is not as in the training, in words."""
    sky: int = 0
    skies: dict[str, Any] = field(default_factory=dict)
    emit: dict[str, Any] = field(default_factory=dict)
    scale: dict[str, float] = field(default_factory=dict)
    gain: float = 0.0
    drift: dict[str, float] = field(default_factory=dict)


def load_maps(path: Path | None = None) -> list[Blind]:
    """The maps of a file, default: configs/blind/maps.yaml. Raises ConfigError, one sentence."""
    file = path or resource_dir("configs") / "blind" / "maps.yaml"
    known = {one.name: one for one in fields(Blind)}
    found = []
    with reading(file, ConfigError, "it cannot be read"):
        # a list is the value of a key to the reader of settings
        entries = parse_yaml("maps:\n" + read_text(file), "this")["maps"]
        for entry in entries:
            for name in entry:
                if name not in known:
                    raise ConfigError(f"unknown setting '{name}': {nearest(name, known)}")
            if not {"name", "what"} <= set(entry):
                raise ConfigError("every map needs a name and what is changed ('what')")
            drift = {"rms": 0.0, "index": 1.0} | entry.get("drift", {})
            if len(drift) > 2:
                raise ConfigError(f"{entry['name']}: drift has an rms and an index alone")
            numbers = {key: convert(value, float, f"drift.{key}") for key, value in drift.items()}
            found.append(Blind(**{**entry, "drift": numbers}))
    return found


def blind_test(
    config: Config,
    *,
    maps: Path | None = None,
    out: str | Path | None = None,
    recalibrated: bool = True,
    resources: Resources = ALONE,
) -> dict[str, Any]:
    """Put the newest intact checkpoint of a run before the maps of the blind test: print a table,
    write blind.json and blind.png into the run folder, return what the JSON file holds.

    maps: another file of maps; out: a new folder for everything. Lightcones are made for it, of
    seeds that none of the run's skies has, in the folder `blind`. A map that the run's
    configuration cannot have, such as another beam where there is none, is left out, which is said.
    Raises ValueError, one sentence, for a network without a posterior of halos.
    """
    check_posterior(config)
    wanted = load_maps(maps)
    with (
        Run.using(resources, config, recalibrated=recalibrated) as run,
        folder_for(run, out) as folder,
    ):
        result = _written(run, folder, wanted)
    print(f"wrote {out or run.folder}: blind.json, blind.png, {FOLDER}")
    return result


def _written(run: Run, folder: Path, wanted: Sequence[Blind]) -> dict[str, Any]:
    """The result, written into `folder`."""
    step = run.trained.step  # there is a network, before anything is made
    rows, answers, left_out = [], [], {}
    skies = _Skies(run, folder / FOLDER, wanted)
    for number, one in enumerate(wanted):
        run.progress.count("blind test", number, len(wanted), "maps")
        try:
            cube, counts = _map_of(run, one, number, skies)
        except ConfigError as error:
            left_out[one.name] = str(error)
            continue
        posterior = run.infer(cube, prepared=True)
        rows.append(_row(one, posterior, counts))
        answers.append((posterior, counts))
    run.progress.close()
    result = {
        "checkpoint_step": step,
        "recalibration": run.trained.applied.record(),
        "conventions": {
            "held": "whether the true function lies within the simultaneous 95 % band everywhere",
            "inside_95": "share of bins whose true count lies within its own 95 %",
            "sigma": "rank of the truth among the drawn functions as a normal score: positive if "
            "the answer is too low; no farther than the number of functions tells",
            "alarm": "p-value of the map among maps of the prior, and what is most off",
        },
        "summary": _summary(rows),
        "maps": rows,
        "left_out": left_out,
        "figures": ["blind.png"],
    }
    write_json(folder / "blind.json", result)
    write_png(blind_figure(run.named, rows, answers), folder / "blind.png")
    print(table(result))
    return result


class _Skies:
    """The lightcones of the test, made when they are first asked for."""

    def __init__(self, run: Run, folder: Path, wanted: Sequence[Blind]) -> None:
        self._run, self._folder = run, folder
        self._most = max((one.sky for one in wanted), default=0) + 1
        self._first = free_seed(run, 2 * self._most)
        self._made: set[Path] = set()

    def path(self, options: Mapping[str, Any], sky: int, nu_rest_GHz: float | None = None) -> str:
        """The file of a lightcone of some options; nu_rest_GHz: of an interloper in the band."""
        usual, sfr = sky_of(self._run.config)
        first = self._first
        given = dict(options)
        cosmology = Cosmology.from_dict(
            self._cosmology | {k: float(v) for k, v in given.pop("cosmology", {}).items()}
        )
        if nu_rest_GHz is not None:
            low, high = replace(self._run.config.grid, nu_rest_GHz=nu_rest_GHz).z_range
            usual |= {"z_range": (np.floor(1e3 * low) / 1e3, np.ceil(1e3 * high) / 1e3)}
            first += self._most
        try:
            chosen = SkyOptions(**(usual | given), cosmology=cosmology)
        except ValueError as error:
            raise ConfigError(f"its lightcone cannot be made: {error}") from None
        key = json.dumps([options, usual["z_range"]], sort_keys=True)
        stem = f"sky_{sha256_of(key)[:8]}"
        recipe = Recipe(self._folder, stem, chosen, velocities=False, sfr=sfr)
        path = recipe.path(first + sky)
        if path not in self._made:
            run, of = self._run, f"blind test: making the sky {path.name}"
            self._folder.mkdir(parents=True, exist_ok=True)
            recipe.make(first + sky, run.threads, lambda *_: run.progress.update(of))
            self._made.add(path)
        return str(path)

    @cached_property
    def _cosmology(self) -> dict[str, float]:
        """That of the training, or streamtrain's default where its lightcones are gone."""
        config = self._run.config
        training = training_files(config)
        return cosmology_of(config, training) or Cosmology().to_dict()


def _map_of(run: Run, one: Blind, number: int, skies: _Skies) -> tuple[torch.Tensor, Float]:
    """The network's input of a map [n_freq, n_dec, n_ra] and its true halos per bin [num_bins].

    Raises ConfigError where the run's configuration cannot have what the map wants.
    """
    _check_line(one, run.config)
    if one.gain or one.drift["rms"]:
        _check_spoilt(one, run.config)
    data: dict[str, Any] = to_dict(run.config)
    for name, factor in one.scale.items():
        _scale(data, name.split("."), factor, name)
    data["data"] |= {"test": [skies.path(one.skies, one.sky)], "validation": []}
    for name, section in one.emit.items():
        if name.startswith("interloper"):
            nu = float(section["nu_rest_GHz"])
            section = {**section, "test": [skies.path(one.skies, one.sky, nu)]}
        data["emit"][name] = section
    config = from_mapping(data)
    with warnings.catch_warnings():
        # halos and redshifts that a model was not published for are part of the test
        warnings.simplefilter("ignore", ModelRangeWarning)
        warnings.simplefilter("ignore", LostLightWarning)
        generator = run.testing(config)
    with contextlib.closing(generator):
        batch = generator.generate([number])
        batch.check()
    cube, counts = batch.cube[0], batch.counts[0].double().cpu().numpy()
    if one.gain or one.drift["rms"]:
        cube = _spoilt(cube, one, config, number)
    return cube, counts


def _check_line(one: Blind, config: Config) -> None:
    """Raise ConfigError for a luminosity model or an interloper that belongs to another line, and
    for an interloper that cannot fall into the band."""
    for section in one.emit.values():
        if "model" not in section:
            continue
        nu_rest = section.get("nu_rest_GHz", config.grid.nu_rest_GHz)
        if not find_model(section["model"]).published_for(nu_rest):
            raise ConfigError(
                f"the model {section['model']} was not published for {line_name(nu_rest)}"
            )
        if not nu_rest > config.grid.nu_GHz[0]:
            raise ConfigError(
                f"{line_name(nu_rest)} at {nu_rest:g} GHz does not fall into all of the band, "
                f"which begins at {config.grid.nu_GHz[0]:g} GHz"
            )


def _check_spoilt(one: Blind, config: Config) -> None:
    """Raise ConfigError where a network's input does not show the map that gains and drifts are
    of."""
    shown = config.observation.input_map
    if not shown.units:
        raise ConfigError("the map in its units cannot be had from the network's input")
    if one.drift["rms"] and shown.box.shape[0] < 2:
        raise ConfigError("noise along frequency needs two channels or more")


def _scale(data: dict[str, Any], names: list[str], factor: float, whole: str) -> None:
    """Multiply a setting, or both ends of its range, by a factor. Raises ConfigError where there is
    no such number."""
    place: Any = data
    for name in names[:-1]:
        place = place.get(name) if isinstance(place, dict) else None
    value = place.get(names[-1]) if isinstance(place, dict) else None
    if isinstance(value, list | tuple) and all(isinstance(v, int | float) for v in value):
        place[names[-1]] = [factor * v for v in value]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        place[names[-1]] = factor * value
    else:
        raise ConfigError(f"the run has no {whole} that is a number")


def _spoilt(cube: torch.Tensor, one: Blind, config: Config, number: int) -> torch.Tensor:
    """A network's input with wrong gains and noise along frequency in the map that it shows."""
    plan = config.observation
    rng = np.random.default_rng([config.seed, number])
    values = plan.input_map.restore(cube[None])[0].double().cpu().numpy()
    num = len(values)
    values = values * (1.0 + one.gain * rng.normal(size=num))[:, None, None]
    if one.drift["rms"]:
        waves = np.arange(num // 2 + 1, dtype=np.float64)
        waves[0] = np.inf  # no mean along frequency
        shape = (len(waves), *values.shape[1:])
        modes = rng.normal(size=shape) + 1j * rng.normal(size=shape)
        drift = np.fft.irfft(modes * waves[:, None, None] ** (-one.drift["index"] / 2.0), num, 0)
        drift -= drift.mean((1, 2), keepdims=True)
        values = values + one.drift["rms"] * values.std() / drift.std() * drift
    found = torch.from_numpy(values.astype(np.float32))[None].to(cube.device)
    kernels = kernels_for(full_device(found.device), "observe.cu")
    keys = torch.zeros(1, 6, dtype=torch.int32, device=found.device)
    for step in plan.steps[len(plan.steps) - len(plan.input_map.undone) :]:
        found = step.build().apply(kernels, found, keys, {})
    return found[0]


def _row(one: Blind, posterior: Posterior, counts: Float) -> dict[str, Any]:
    """What became of a map."""
    band_low, band_high = posterior.band(BAND)
    low, high = posterior.interval(BAND)
    true = counts * posterior.unit
    inside = (true >= low) & (true <= high)
    integrals = {}
    for functional in posterior.functionals:
        estimate, drawn = posterior.functional(functional), functional.of(posterior.samples)
        truth = float(functional.of(counts[None])[0])
        rank = (np.sum(drawn < truth) + 0.5 * np.sum(drawn == truth) + 0.5) / (len(drawn) + 1)
        integrals[functional.name] = {
            "true": truth,
            **estimate.to_dict(),
            "sigma": float(special.ndtri(rank)),
        }
    alarm = posterior.alarm
    return {
        "name": one.name,
        "what": one.what,
        "held": bool(((true >= band_low) & (true <= band_high)).all()),
        "inside_95": float(inside.mean()),
        "integrals": integrals,
        "alarm": None if alarm is None else alarm.to_dict(),
        "warnings": list(posterior.warnings),
    }


def _summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many answers held, and how many of the others had an alarm."""
    raised = [row["alarm"] is not None and row["alarm"]["extrapolated"] for row in rows]
    held = [row["held"] for row in rows]
    pairs = list(zip(held, raised, strict=True))
    return {
        "held": pairs.count((True, False)),
        "held_with_alarm": pairs.count((True, True)),
        "wrong_with_alarm": pairs.count((False, True)),
        "wrong_without_alarm": pairs.count((False, False)),
    }


def table(result: Mapping[str, Any]) -> str:
    """The result as text, a line for each map."""
    rows = []
    for row in result["maps"]:
        cells = [row["name"], row["what"], "holds" if row["held"] else "WRONG"]
        cells.append(f"{100 * row['inside_95']:.0f} %")
        for name in _shown(row):
            cells.append(f"{row['integrals'][name]['sigma']:+.1f}")
        alarm = row["alarm"]
        cells.append("-" if alarm is None else f"{alarm['p']:.2g}")
        cells.append("ALARM" if alarm is not None and alarm["extrapolated"] else "")
        rows.append(cells)
    names = _shown(result["maps"][0]) if result["maps"] else []
    head = ["map", "what is not as in the training", "95 % band", "bins", *names, "p", ""]
    found = result["summary"]
    return "\n".join(
        [
            f"{len(rows)} maps, checkpoint of step {result['checkpoint_step']}: whether the true "
            "function lies in the 95 % band,",
            "share of bins in their 95 %, the truth in sigma (positive: the answer is too low), "
            "p of the alarm",
            *columns(head, rows, left=(0, 1)),
            "",
            f"the answer holds in {found['held'] + found['held_with_alarm']} of {len(rows)} maps "
            f"({found['held_with_alarm']} of them with an alarm); it is wrong with an alarm in "
            f"{found['wrong_with_alarm']}, and wrong without one in {found['wrong_without_alarm']}",
            *(f"{name} is left out: {why}" for name, why in result["left_out"].items()),
        ]
    )


def _shown(row: Mapping[str, Any]) -> list[str]:
    """Names of the integrals that the table has."""
    names = list(row["integrals"])
    return [name for name in names if name == "rho_L" or name.startswith("N(>10^6")]


def blind_figure(
    network: str, rows: Sequence[Mapping[str, Any]], answers: Sequence[tuple[Posterior, Float]]
) -> Figure:
    """The luminosity function of each map with its band, and the truth. network: its name; rows:
    what became of the maps; answers: their posteriors and true halos per bin [num_bins]."""
    down = -(-max(len(answers), 1) // ACROSS)
    figure = Figure(figsize=(2.6 * ACROSS, 1.0 + 2.4 * down), dpi=110, layout="constrained")
    panels = figure.subplots(down, ACROSS, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, row, (posterior, counts) in zip(panels, rows, answers, strict=False):
        posterior.plot(axes, true=counts)
        for drawn, label in zip(*axes.get_legend_handles_labels(), strict=True):
            drawn.set_label(label.partition(", up to ")[0])  # of this panel alone
        alarm = posterior.alarm
        raised = alarm is not None and alarm.extrapolated
        p = "" if alarm is None else f", p = {alarm.p:.2g}{', ALARM' if raised else ''}"
        weight = "bold" if raised else "normal"
        axes.set_title(f"{row['name']}{p}", fontsize=TICK_SIZE - 2, fontweight=weight)
        axes.set_facecolor("white" if row["held"] else WRONG)
        for text in (axes.get_legend(), axes.xaxis.label, axes.yaxis.label):
            if text is not None:
                text.set_visible(False)
    for axes in panels[len(answers) :]:
        axes.set_visible(False)
    for axes in panels[: len(answers)][-ACROSS:]:  # the lowest of each column
        axes.set_xlabel(r"$L$ [$L_\odot$]", fontsize=TICK_SIZE, visible=True)
        axes.tick_params(labelbottom=True)
    if answers:  # the axis is shared: no truth is cut off by the panel that was drawn last
        most = max(float((counts * posterior.unit).max()) for posterior, counts in answers)
        panels[0].set_ylim(top=max(2.0 * most, panels[0].get_ylim()[1]))
    axis = QUANTITIES[answers[0][0].quantity if answers else "counts"].axis
    figure.supylabel(axis)
    wrong = Patch(color=WRONG, label="the truth leaves the 95 % band")
    legend_below(figure, panels[0], 6, *([wrong] if answers else []))
    title = f"{network}: maps that are not as in its training, p of the alarm"
    figure.suptitle(title, fontsize=LABEL_SIZE)
    return figure
