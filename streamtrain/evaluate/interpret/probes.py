"""What the network knows: maps changed in ways whose effect on the prediction is known, a figure.

With `streamtrain evaluate CONFIG --probes` the newest checkpoint of a run predicts test maps and
changed copies of them. Predictions are log10 of the count, as everywhere in an evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from streamtrain.bins import ranges_with_bins
from streamtrain.config import Config
from streamtrain.evaluate import testset
from streamtrain.evaluate.alarm.alarm import shares_below
from streamtrain.evaluate.folder import output_folder
from streamtrain.evaluate.robustness.other_skies import default_folder, new_folder, on_other_skies
from streamtrain.evaluate.run import Run
from streamtrain.figures import LABEL_SIZE, SERIES, legend_above, style, write_png
from streamtrain.generator.generator import Generator
from streamtrain.generator.observe import observe
from streamtrain.labels import NO_FUNCTION
from streamtrain.luminosity.modifiers import BrightnessConfig
from streamtrain.machine.files import write_json
from streamtrain.machine.workers import ALONE, Resources
from streamtrain.networks.network import point_of
from streamtrain.tables import columns, plus_minus, range_title
from streamtrain.train.probe import Dependence, pair_sums, skill

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]

NUM_SAMPLES = 64
"""Test maps that are changed, at most."""
NUM_REALISATIONS = 4
"""Noise realisations per map."""
FACTORS = (0.5, 2.0)
"""On the brightness of every halo."""
BATCH_SIZE = 8
SHUFFLE_SEED = 20190525
"""Seed of the order in which frequencies are shuffled."""


@dataclass(frozen=True)
class Probe:
    """The predictions for changed maps."""

    name: str
    should: str
    """What the prediction ought to do."""
    shift: Float
    """Prediction minus that for the unchanged map [dex], [num_copies * num_samples, num_bins]."""
    error: Float
    """Prediction minus what it ought to be [dex], same shape; the shift where that is unknown."""
    expected: Float | None
    """What the shift ought to be [dex], same shape; None where there is no saying."""
    used: Bool
    """Bins that count, same shape."""
    predictions: Float
    """Mean prediction per bin [num_bins], and `true`, what it ought to be."""
    true: Float | None = None
    alarm: Float | None = None
    """p-value of each changed map's alarm [num_copies * num_samples]; None without one."""


def run_probes(
    config: Config,
    *,
    on: Sequence[str] | None = None,
    out: str | Path | None = None,
    resources: Resources = ALONE,
) -> dict[str, Any]:
    """Probe the newest intact checkpoint of a run on the first maps of its test set: print a table,
    write probes.json and probes.png into the run folder, return what the JSON file holds.

    on, out: lightcones instead of the test skies, and a new folder, as in `evaluate`. Raises
    ValueError, one sentence, if there is no checkpoint, or where the label is no function of
    luminosity.
    """
    if config.label.quantity in NO_FUNCTION:
        label = NO_FUNCTION[config.label.quantity]
        raise ValueError(f"--probes are of luminosity functions, and this run's label is {label}")
    with Run.using(resources, config, recalibrated=False) as run:
        if on is None and out is None:
            return _probe(run, config, run.folder, own=True)
        target = default_folder(run, on) if out is None else Path(out)
        with new_folder(target, run) as folder:
            if on is not None:
                config = on_other_skies(run, on)
            result = _probe(run, config, folder, own=False)
    print(f"wrote {target}: probes.json, probes.png")
    return result


def _probe(run: Run, config: Config, folder: Path, *, own: bool) -> dict[str, Any]:
    """The probes, written into `folder`; config: of the test maps; own: the folder is the run's."""
    trained = run.trained
    maps = _ProbedMaps(run, config)
    if own:
        output_folder(config, None, maps.generator)
    probes, skipped = maps.all()
    edges = maps.generator.bin_edges
    dependence = maps.dependence()
    count = len(maps.indices)
    run.progress.close()
    write_png(probes_figure(probes, edges), folder / "probes.png")
    result = {
        "checkpoint_step": trained.step,
        "samples": count,
        "skill": dependence.skill,
        "blank_dex": dependence.blank_dex,
        "conventions": {
            "shift_dex": "mean over maps and bins of log10 count minus that of the unchanged map",
            "expected_dex": "what the shift ought to be; null where there is no saying",
            "rms_dex": "rms of the prediction minus what it ought to be, or of the shift",
            "bins": "those that hold a halo",
        },
        "probes": [_plain(probe, edges) for probe in probes],
        "skipped": skipped,
        "figures": ["probes.png"],
    }
    write_json(folder / "probes.json", result)
    print(table(result))
    if dependence.problem:
        print(f"warning: {dependence.problem.replace('validation', 'test')}")
    return result


class _ProbedMaps:
    """Test maps, their truth, and the network's predictions for them."""

    def __init__(self, run: Run, config: Config) -> None:
        self.config, self.progress, self.open = config, run.progress, run.testing
        self.generator = run.testing(config)
        self.network = run.network(self.generator)
        self.watch = run.kept_watch()
        self._alarms: list[Float] = []
        self.indices = range(min(NUM_SAMPLES, config.test.samples))

    def _made(
        self, generator: Generator
    ) -> tuple[torch.Tensor, Float, Bool, torch.Tensor, list[dict[str, Any]]]:
        """Cubes, true log10 counts, occupied bins, one halo, what was drawn."""
        label, parts = generator.label, []
        records: list[dict[str, Any]] = []
        for indices, batch in testset.batches(generator, len(self.indices), size=BATCH_SIZE):
            unit_label = batch.unit_label.expand(len(batch), -1).cpu()
            true = label.log10_counts(batch.label.cpu(), unit_label)
            occupied = label.occupied(batch.label.cpu(), batch.counts.cpu())
            parts.append((batch.cube, true, occupied, unit_label))
            records += batch.draws
            self.progress.count("making", indices[-1] + 1, len(self.indices), "test maps")
        cubes, trues, filled, one = (torch.cat(values) for values in zip(*parts, strict=True))
        return cubes, trues.numpy(), filled.numpy(), one, records

    def _batches(self) -> list[Sequence[int]]:
        return [self.indices[k : k + BATCH_SIZE] for k in range(0, len(self.indices), BATCH_SIZE)]

    def predict(self, cubes: torch.Tensor) -> Float:
        """log10 counts that the network predicts [num_samples, num_bins]."""
        found = []
        for k in range(0, len(cubes), BATCH_SIZE):
            unit_label = self.unit_label[k : k + BATCH_SIZE]
            _, point = point_of(self.network, cubes[k : k + BATCH_SIZE], unit_label)
            found.append(self.generator.label.log10_counts(point, unit_label).cpu())
            if self.watch is not None:
                self._alarms.append(self.watch.p_values(cubes[k : k + BATCH_SIZE]))
        return torch.cat(found).numpy()

    def alarm(self) -> Float | None:
        """p-values of the maps that were predicted since the last call."""
        found = np.concatenate(self._alarms) if self._alarms else None
        self._alarms = []
        return found

    def dependence(self) -> Dependence:
        """How far the predictions depend on the maps, and what maps without a halo change."""
        sums = pair_sums(torch.from_numpy(self.predictions), torch.from_numpy(self.true)).numpy()
        blank = self.blank_predictions.mean(0) - self.predictions.mean(0)
        return Dependence(skill(sums), float(np.sqrt(np.mean(blank**2))))

    def all(self) -> tuple[list[Probe], dict[str, str]]:
        """All probes, and why others are left out."""
        self.cubes, self.true, self.occupied, self.unit_label, self.records = self._made(
            self.generator
        )
        self.predictions = self.predict(self.cubes)
        skipped: dict[str, str] = {}
        probes = [self._unchanged(), self._blank(), self._shuffled(), self._turned()]
        log_map = any(
            isinstance(s, BrightnessConfig) and s.log_map for s in self.config.emit.values()
        )
        random = self.config.observation.random
        if log_map:
            reason = "emit.brightness.log_map scales the logarithm of the map, not the halos"
            skipped |= {"brightness": reason, "noise": reason}
        else:
            probes += [self._brightness(factor) for factor in FACTORS]
            if random:
                probes.append(self._noise(random))
            else:
                skipped["noise"] = "the maps have no noise and no foregrounds"
        return probes, skipped

    def _unchanged(self) -> Probe:
        error = self.predictions - self.true
        return Probe(
            "unchanged", "be the truth", np.zeros_like(error), error, np.zeros_like(error),
            self.occupied, self.predictions.mean(0), self.true.mean(0), alarm=self.alarm(),
        )  # fmt: skip

    def _blank(self) -> Probe:
        cubes = [self.generator.blank(batch) for batch in self._batches()]
        self.blank_predictions = predictions = self.predict(torch.cat(cubes))
        return Probe(
            "no halo", "become one halo per bin or less",
            predictions - self.predictions, predictions, -self.predictions,
            self.occupied, predictions.mean(0), np.zeros(predictions.shape[1]), alarm=self.alarm(),
        )  # fmt: skip

    def _shuffled(self) -> Probe:
        num = self.cubes.shape[1]
        order = np.random.default_rng(SHUFFLE_SEED).permutation(num)
        predictions = self.predict(self.cubes[:, torch.from_numpy(order).to(self.cubes.device)])
        shift = predictions - self.predictions
        return Probe(
            "frequencies shuffled", "change, if frequencies are looked at in their order", shift,
            shift, None, self.occupied, predictions.mean(0), alarm=self.alarm(),
        )  # fmt: skip

    def _turned(self) -> Probe:
        """All turns and mirror images; the error is the distance from the mean of the copies."""
        copies = [self.predictions, *(self.predict(cubes) for cubes in turned(self.cubes))]
        return self._of_copies("turned and mirrored", f"not change ({len(copies)} copies)", copies)

    def _of_copies(self, name: str, should: str, copies: Sequence[Float]) -> Probe:
        """What copies of the maps scatter by about their mean, which they should not."""
        middle = np.mean(copies, axis=0)
        error = np.concatenate([copy - middle for copy in copies])
        error *= np.sqrt(len(copies) / (len(copies) - 1.0))
        shift = np.concatenate([copy - self.predictions for copy in copies])
        used = np.concatenate([self.occupied] * len(copies))
        return Probe(
            name, should, shift, error, np.zeros_like(shift), used, middle.mean(0),
            alarm=self.alarm(),
        )  # fmt: skip

    def _brightness(self, factor: float) -> Probe:
        """Every halo's L times a factor: the line in map and label, not the noise."""
        names = ["brightness", *(f"brightness_{k}" for k in range(2, 99))]
        name = next(n for n in names if n not in self.config.emit)
        emit = {**self.config.emit, name: BrightnessConfig(factor=factor)}
        generator = self.open(replace(self.config, emit=emit))
        cubes, true, occupied, _, records = self._made(generator)
        generator.close()
        same = np.array(
            [a["parameters"] == b["parameters"] for a, b in zip(records, self.records, strict=True)]
        )
        predictions = self.predict(cubes)
        return Probe(
            f"brightness x {factor:g}", "follow its halos to other luminosities",
            predictions - self.predictions, predictions - true, true - self.true,
            occupied & self.occupied & same[:, None], predictions.mean(0), true.mean(0),
            alarm=self.alarm(),
        )  # fmt: skip

    def _noise(self, random: list[str]) -> Probe:
        """Noise and foregrounds of the same levels on the same halos, other random numbers."""
        painter = self.open(replace(self.config, observe={}))
        seed, device = self.generator.seed, self.generator.device
        signal_parts: list[list[torch.Tensor]] = [[] for _ in range(NUM_REALISATIONS)]
        for batch in self._batches():
            signal = painter.generate(batch).cube
            for k, parts in enumerate(signal_parts):
                other = (seed + 0x9E3779B97F4A7C15 * (k + 1)) % 2**64
                parts.append(
                    observe(
                        signal, self.config, seed, list(batch), "test", device, noise_seed=other
                    )
                )
            self.progress.count("other noise", batch[-1] + 1, len(self.indices), "maps")
        painter.close()
        copies = [self.predict(torch.cat(parts)) for parts in signal_parts]
        should = f"change by less than its error ({', '.join(random)})"
        return self._of_copies("other noise", should, copies)


def turned(cubes: torch.Tensor) -> list[torch.Tensor]:
    """Cubes [B, n_freq, n_dec, n_ra] turned by 90, 180 and 270 degrees, and their mirror images;
    where the field is not square, only what keeps its shape."""
    quarter = cubes.shape[2] == cubes.shape[3]
    steps = (1, 2, 3) if quarter else (2,)
    mirrored = cubes.flip(3)
    found = [torch.rot90(cubes, k, (2, 3)) for k in steps]
    found += [torch.rot90(mirrored, k, (2, 3)) for k in (0, *steps)]
    return [copy.contiguous() for copy in found]


def _plain(probe: Probe, edges: Float) -> dict[str, Any]:
    """A probe's numbers per luminosity range."""
    whole = np.ones(len(edges) - 1, bool)
    ends = (float(edges[0]), float(edges[-1]))
    ranges = [*ranges_with_bins(edges), (ends, whole)]
    rows = [_row(probe, bounds, inside) for bounds, inside in ranges]
    return {
        "probe": probe.name,
        "should": probe.should,
        "ranges": rows[:-1],
        "whole": rows[-1],
        "mean_answer_log10": probe.predictions.tolist(),
        "alarm": None if probe.alarm is None else shares_below(probe.alarm),
    }


def _row(probe: Probe, bounds: tuple[float, float], inside: Bool) -> dict[str, Any]:
    used = probe.used & inside
    if not used.any():
        return {"log10_L": bounds, "shift_dex": None, "expected_dex": None, "rms_dex": None}
    expected = None if probe.expected is None else float(probe.expected[used].mean())
    return {
        "log10_L": bounds,
        "shift_dex": float(probe.shift[used].mean()),
        "expected_dex": expected,
        "rms_dex": float(np.sqrt(np.mean(probe.error[used] ** 2))),
    }


def table(result: dict[str, Any]) -> str:
    """The result as text of fixed width."""
    rows: list[list[str] | str] = []
    for probe in result["probes"]:
        ranges = [*probe["ranges"], probe["whole"]]
        kinds = [("shift_dex", "mean shift"), ("expected_dex", "it should be"), ("rms_dex", "rms")]
        rows.append(f"{probe['probe']}: should {probe['should']}")
        for key, title in kinds[2:] if probe["probe"] == "unchanged" else kinds:
            if any(part[key] is not None for part in ranges):
                cells = (plus_minus(part[key], None, ".3f") for part in ranges)
                rows.append([f"    {title}", *cells])
        if probe["alarm"] is not None:
            low = (f"p < {level} in {100 * part:.0f} %" for level, part in probe["alarm"].items())
            rows.append(f"    alarm: {', '.join(low)} of the maps")
    return "\n".join(
        [
            f"{result['samples']} test maps, checkpoint of step {result['checkpoint_step']}; log10 "
            "count in dex, bins that hold a halo",
            *columns(["probe", *(range_title(part["log10_L"]) for part in ranges)], rows),
            *(f"{name}: left out, {reason}" for name, reason in result["skipped"].items()),
        ]
    )


def probes_figure(probes: Sequence[Probe], bin_edges: Float) -> Figure:
    """Mean predictions for maps without a halo and with shuffled frequencies; for fainter and
    brighter halos, with the truth; and how far predictions for copies of one field scatter, beside
    the error."""
    figure = Figure(figsize=(13.2, 5.2), dpi=150, layout="constrained")
    panels = figure.subplots(1, 3, sharex=True)
    at = 10.0 ** (0.5 * (bin_edges[1:] + bin_edges[:-1]))
    unchanged = probes[0]
    changed = [p for p in probes if p.name in ("no halo", "frequencies shuffled")]
    bright = [p for p in probes if p.name.startswith("brightness")]
    copies = [p for p in probes if p.name in ("turned and mirrored", "other noise")]
    for axes, shown in ((panels[0], changed), (panels[1], bright)):
        for colour, probe in zip(SERIES, [unchanged, *shown], strict=False):
            dashes = "--" if probe.name == "frequencies shuffled" else "-"
            axes.plot(at, 10.0**probe.predictions, dashes, color=colour, lw=1.8, label=probe.name)
            if probe.true is not None and probe.name != "no halo":
                axes.plot(at, 10.0**probe.true, "o", color=colour, ms=2.6, mfc="none")
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.7)
    for axes in panels[:2]:
        axes.set_ylabel("halos per bin, geometric mean of the maps", fontsize=LABEL_SIZE)
    titles = [
        "maps without halos, and shuffled", "halos fainter and brighter", "copies of one field"
    ]  # fmt: skip
    panels[2].plot(at, _rms(unchanged), color=SERIES[0], lw=1.8, label="error, unchanged")
    for colour, probe in zip(SERIES[1:], copies, strict=False):
        axes = panels[2]
        axes.plot(at, _rms(probe), color=colour, lw=1.8, label=f"spread, {probe.name}")
    panels[2].set_ylim(bottom=0.0)
    panels[2].set_ylabel("rms of log10 of the count [dex]", fontsize=LABEL_SIZE)
    for axes, title in zip(panels, titles, strict=True):
        style(axes, bin_edges)
        axes.set_xlabel(r"$L$ [$L_\odot$]", fontsize=LABEL_SIZE)
        legend_above(axes, 2, title)
    figure.suptitle(
        "what the network makes of changed maps: predictions (lines) and truth (circles)",
        fontsize=LABEL_SIZE,
    )
    return figure


def _rms(probe: Probe) -> Float:
    """Per bin, over the maps in which it counts; NaN where there is none [num_bins]."""
    number = probe.used.sum(axis=0)
    squares = np.where(probe.used, probe.error**2, 0.0).sum(axis=0)
    return np.where(number > 0, np.sqrt(squares / np.maximum(number, 1)), np.nan)
