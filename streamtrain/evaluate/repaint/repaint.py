"""Whether a map is what its posterior paints: new maps painted from it, beside the map.

A posterior predictive check. Luminosity functions are drawn from the posterior, then parameters of
the luminosity model that such functions have (`repaint_parameters`; where the network predicts
parameters, these), and for each a map of other halos with new noise and foregrounds. The map is
compared with them in each of `repaint_statistics.NAMES`.

The p-value of such a comparison is not what it says: the posterior has seen the map, so that most
maps of the prior look more like theirs than chance would have it (Meng 1994). So the whole
procedure is also done with maps of the prior, of other skies, once for a run, and the map is ranked
among these. The discrepancy of a statistic is z^T S^-1 z, with z the scores of its numbers and S
their covariance among the painted maps. All maps of the prior go through the same, so that the rank
of one is uniform whatever its posterior is worth, as far as their skies are alike. How far out
ln(z^T S^-1 z) lies among all maps is combined over the statistics, and the map is ranked by that.
Maps of one sky share halos: of few skies the ranks are coarse, however many maps there are.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.special import ndtr

from streamtrain.arguments import whole_number
from streamtrain.catalogs.headers import Header
from streamtrain.catalogs.skies import expand
from streamtrain.config import Config
from streamtrain.evaluate.calibration.recalibration import Applied
from streamtrain.evaluate.posterior.posterior import check_posterior, check_seed
from streamtrain.evaluate.repaint.figures import Drawn, check_figure
from streamtrain.evaluate.repaint.model_fit import field_scatter
from streamtrain.evaluate.repaint.painter import PILOT, NoiseLevel, Repainter
from streamtrain.evaluate.repaint.statistics import BATCH, TITLES, Statistic
from streamtrain.evaluate.testset import skies_of
from streamtrain.figures import write_png
from streamtrain.generator.generator import GENERATOR_VERSION, Generator
from streamtrain.generator.line import Chosen
from streamtrain.luminosity.modifiers import count_changing
from streamtrain.machine.files import npz_arrays, reading, sha256_of, writing
from streamtrain.machine.progress import SILENT, Progress
from streamtrain.networks.network import Network, point_of
from streamtrain.ranks import QUANTILE_NAMES, QUANTILES, combine
from streamtrain.shipped import is_shipped
from streamtrain.tables import columns, labelled

Float = NDArray[np.float64]

NUM_PAINTED = 256
"""Maps that are painted for a map."""
NUM_CALIBRATION, NUM_EACH = 300, 32
"""Maps of the prior that a map is ranked among, and maps painted for each of them."""
FEWEST_CALIBRATION = 20
SMALL_P = 0.01
"""A map whose p is not larger gets a warning."""
RIDGE = 0.1
"""Added to the variances of scores, which are about 1: the covariance is that of a few skies."""
FIRST_INDEX, OF_CALIBRATION = 2**50, 2**51
"""Index of the first map that is painted for a map, and for the calibration: far from those that a
training reaches."""
SMALLEST = 1e-30
PROCEDURE = 2
"""Goes up when other scores come out."""


@dataclass(frozen=True)
class Calibration:
    """What maps of the prior look like beside maps painted from their posteriors."""

    scores: dict[str, Float]
    """Scores of the C maps in each statistic [C, size]."""
    covariance: dict[str, Float]
    """Covariance of painted maps' scores in each statistic [size, size]."""
    scatter: Float
    """What `field_scatter` found from field to field."""
    skies: int
    """How many skies the maps were cut from."""

    def __len__(self) -> int:
        return len(next(iter(self.scores.values())))

    def first(self, number: int) -> Calibration:
        """A calibration by the first so many maps alone."""
        return replace(self, scores={name: rows[:number] for name, rows in self.scores.items()})

    def p_values(self, statistics: Sequence[Statistic]) -> tuple[float, dict[str, float]]:
        """The share of the maps, this one included, that are as unusual, in all statistics together
        and in each of them: 1 / (C + 1) or more. One that is removed from every map is left out."""
        every, tails = {}, []
        for one in statistics:
            if one.removed.all():
                continue
            z = np.concatenate([self.scores[one.name], one.score[None]])
            inverse = np.linalg.inv(self.covariance[one.name] + RIDGE * np.eye(z.shape[1]))
            far = np.log(np.einsum("ci,ij,cj->c", z, inverse, z, optimize=True) + SMALLEST)
            every[one.name] = float(shares(far)[-1])
            # how far beyond all others a map is counts, too; how usual it is elsewhere does not
            tails.append(0.5 * ndtr((far.mean() - far) / max(float(far.std()), SMALLEST)))
        table = np.stack(tails, axis=1)
        together = np.array([combine(row.tolist()) for row in table])
        return float(shares(-together)[-1]), every


def shares(values: Float) -> Float:
    """For each of some values [num] the share of all that are as large; the same but for rounding
    counts as that."""
    least = values - 1e-9 * np.abs(values)
    return np.asarray(1.0 - np.searchsorted(np.sort(values), least) / len(values))


@dataclass(frozen=True, eq=False, repr=False)
class Check:
    """Whether a map is what its posterior paints; `Run.check` makes it."""

    p: float
    """Share of the maps of the prior, this one included, that are as unusual; all statistics
    together."""
    p_values: dict[str, float]
    """Share of the maps that are as unusual in each statistic, by its name; of those that an
    operator removes from every map, none."""
    statistics: tuple[Statistic, ...]
    """The map and the painted maps."""
    painted: int
    """Maps that were painted from the posterior."""
    seed: int
    """Maps of the same seed are the same."""
    calibration: int
    """Maps of the prior that the map was ranked among."""
    skies: int
    """How many skies these were cut from."""
    counts: NDArray[np.int64]
    """Halos of the painted maps [painted, num_bins]."""
    levels: dict[str, Float]
    """Noise levels of the painted maps [painted], by the operator's name, where they differ."""
    notes: tuple[str, ...]
    """What was assumed, a sentence each."""
    drawn: Drawn
    """What the numbers of each statistic belong to."""
    of_the_map: tuple[str, ...] = ()
    """Warnings of how the map was read, a sentence each."""

    def __repr__(self) -> str:
        return f"Check(p = {self.p:.3g}, {self.painted} maps, {self.calibration} of the prior)"

    def __str__(self) -> str:
        warnings = [*self.of_the_map, *([self.warning] if self.warning else [])]
        told = [line for text in warnings for line in labelled("warning", text)]
        return "\n".join([*told, *self.lines()])

    @property
    def smallest_p(self) -> float:
        """The smallest p that there is: of a map that is the most unusual of all."""
        return 1.0 / (self.calibration + 1)

    @property
    def warning(self) -> str:
        """A sentence where p is small, else ''."""
        if self.p > SMALL_P:
            return ""
        off = sorted(self.p_values, key=lambda name: self.p_values[name])
        small = [name for name in off if self.p_values[name] <= SMALL_P]
        return (
            f"the map is not what this posterior paints (p = {self._text(self.p)}), so the "
            "prediction is an extrapolation; most unusual: "
            f"{', '.join(TITLES[name] for name in (small or off[:1])[:3])}"
        )

    def furthest(self, one: Statistic) -> tuple[int, str]:
        """Which number of a statistic is the most unusual, and how much it is off in words."""
        k = int(np.where(one.removed, -1.0, np.abs(one.score)).argmax())
        value, usual = float(one.value[k]), float(np.median(one.painted[:, k]))
        where = self.drawn.place(one.name, k, len(one.value))
        if one.name in ("means", "network") or not usual > 0.0:
            unit = self.drawn.unit if one.name in ("means", "scatter") else ""
            much = f"{value:.3g}{unit}, painted {usual:.3g}{unit}"
        else:
            much = f"{value / usual:.3g} x the painted"
        return k, f"{where}: {much}" if where else much

    def lines(self) -> list[str]:
        """A table as text, and what was assumed."""
        rows = []
        for one in self.statistics:
            if one.name not in self.p_values:
                rows.append([TITLES[one.name], "-", "-", "an operator removes them from every map"])
                continue
            k, text = self.furthest(one)
            p = self._text(self.p_values[one.name])
            rows.append([TITLES[one.name], p, f"{one.score[k]:+.1f}", text])
        head = (
            f"{self.painted} maps painted from the posterior (seed {self.seed}), the map ranked "
            f"among {self.calibration} maps of the prior: p = {self._text(self.p)}"
        )
        table = columns(["compared in", "p", "sigma", "furthest off"], rows, left=(0, 3))
        return [head, *table, *(line for text in self.notes for line in labelled("note", text))]

    def _text(self, p: float) -> str:
        return f"{p:.2g}" if p > 1.5 * self.smallest_p else f"{self.smallest_p:.2g} or less"

    def to_dict(self) -> dict[str, Any]:
        """All but the painted maps one by one, as plain data."""
        found = {}
        for one in self.statistics:
            k, text = self.furthest(one)
            ends = np.quantile(one.painted, QUANTILES, axis=0).tolist()
            found[one.name] = {
                "meaning": TITLES[one.name],
                "p": self.p_values.get(one.name),
                "furthest": {"number": k, "sigma": float(one.score[k]), "text": text},
                "map": one.value.tolist(),
                "sigma": one.score.tolist(),
                **dict(zip(QUANTILE_NAMES, ends, strict=True)),
            }
        return {
            "p": self.p,
            "smallest_p": self.smallest_p,
            "painted": self.painted,
            "seed": self.seed,
            "calibration": {"maps": self.calibration, "skies": self.skies},
            "notes": list(self.notes),
            "warnings": list(self.of_the_map),
            "axes": self.drawn.to_dict(),
            "statistics": found,
        }

    def plot(self, target: str | Path | None = None, *, title: str = "") -> Figure:
        """Bands of the painted maps and the map's own curves: P(k), voxel intensity distribution,
        channels, and P(k_perp, k_par) as a ratio. target: a PNG file to write. Returns the
        figure."""
        figure = check_figure(self.statistics, self.p_values, self.drawn, self._title(title))
        if target is not None:
            write_png(figure, Path(target))
        return figure

    def _title(self, title: str) -> str:
        said = f"p = {self._text(self.p)} among {self.painted} maps painted from its posterior"
        return f"{title}: {said}" if title else said


@dataclass(frozen=True)
class Painting:
    """What a run's maps are painted and compared with."""

    config: Config
    folder: Path
    """Folder of the run, where the calibration is kept."""
    weights_sha256: str
    """sha256 of the network's weights."""
    applied: Applied
    """How its posterior is shifted and widened, if it is."""
    network: Network
    training: Generator
    """Generator of training samples: the halos of painted maps are of their skies."""
    validation: Callable[[], Generator]
    """Opens the generator of validation samples, where the configuration names some."""
    progress: Progress = SILENT


def check(
    run: Painting,
    cube: torch.Tensor,
    *,
    functions: Float | None = None,
    number: int = NUM_PAINTED,
    seed: int = 0,
    maps: int = NUM_CALIBRATION,
    noise_level: float | None = None,
) -> Check:
    """Whether a map is what its posterior paints.

    cube: the network's input [n_freq, n_dec, n_ra]; the others as in `Run.check`, functions: halos
    per bin [num, num_bins] that a posterior holds, None: they are drawn here. Raises ValueError,
    one sentence, where maps cannot be painted or there is no posterior to paint from.
    """
    number, seed, maps = check_number(number), check_seed(seed), check_ranked(maps)
    noise = NoiseLevel(run.training, noise_level)
    calibration = _calibration(run, noise, maps)
    repainter = Repainter(run.config, run.network, run.training, calibration.scatter)
    if functions is None or run.config.label.quantity == "parameters":
        chosen = repainter.drawn(_output(run.network, cube[None]), number, seed)[0]
    else:
        chosen = _of_functions(repainter, functions, number, seed)
    found = repainter.repaint(
        repainter.statistics.measure(cube[None]),
        chosen,
        noise,
        FIRST_INDEX + seed % 2**20 * 2**24,
        seed,
        lambda done: run.progress.count("painting from the posterior", done, number, "maps"),
    )
    run.progress.close()
    p, p_values = calibration.p_values(found.compared.statistics)
    return Check(
        p,
        p_values,
        found.compared.statistics,
        number,
        seed,
        len(calibration),
        calibration.skies,
        found.counts,
        found.levels,
        (*noise.text(found.levels), *_assumed(run, calibration)),
        Drawn.of(run.config, repainter.statistics, found.compared.edges),
    )


def check_can_be_painted(config: Config) -> None:
    """Raise ValueError, one sentence, for a run whose network has no posterior to paint from."""
    if config.label.quantity == "class":
        raise ValueError(
            "label.quantity = class has no posterior that maps could be painted from: train with "
            "label.quantity=counts or parameters"
        )
    if config.label.quantity != "parameters":
        check_posterior(config)


def check_number(number: int) -> int:
    """How many maps are painted. Raises ValueError, one sentence, for too few."""
    found = whole_number(number, "the number of painted maps")
    if found < PILOT:
        raise ValueError(f"the number of painted maps, {found}, must be {PILOT} or more")
    return found


def check_ranked(maps: int) -> int:
    """How many maps of the prior a map is ranked among. Raises ValueError, one sentence, for too
    few."""
    found = whole_number(maps, "the number of maps of the calibration")
    if found < FEWEST_CALIBRATION:
        raise ValueError(
            f"the number of maps of the calibration, {found}, must be {FEWEST_CALIBRATION} or more"
        )
    return found


def _output(network: Network, cubes: torch.Tensor) -> torch.Tensor:
    """What a network puts out for some maps; ValueError where it is not finite."""
    unit = network.head.label.unit_label(np.zeros(1, np.int64))
    return point_of(network, cubes, unit)[0].clone()


def _of_functions(repainter: Repainter, functions: Float, number: int, seed: int) -> Chosen:
    rng = np.random.default_rng([seed, 1])
    rows = rng.choice(len(functions), number, replace=number > len(functions))
    return repainter.of_counts.draw(functions[rows], rng)


def _assumed(run: Painting, calibration: Calibration) -> list[str]:
    """What the painted maps and the ranks rest on, a sentence each."""
    said = []
    moving = count_changing(run.config.emit)
    if moving and run.config.label.quantity != "parameters":
        said.append(
            f"{', '.join(moving)} is drawn by its prior for every painted map, and parameters are "
            "those of the functions as if it did nothing"
        )
    split = "validation" if run.config.data.validation else "training"
    skies = f"{calibration.skies} {split} {'sky' if calibration.skies == 1 else 'skies'}"
    text = f"the maps of the prior are of {skies}"
    if split == "training":
        text += ", which the network has seen: name others in data.validation for an honest p"
    return [*said, text]


def _calibration(run: Painting, noise: NoiseLevel, maps: int) -> Calibration:
    """The calibration of a run, from its folder or made now."""
    moved = "_recalibrated" if run.applied.recalibration is not None else ""
    stated = "_stated" if noise.mode == "stated" else ""
    path, identity = run.folder / f"check_calibration{moved}{stated}.npz", _identity(run, noise)
    kept = _load(path, identity)
    if kept is not None and len(kept) >= maps:
        return kept.first(maps)
    made = _calibrate(run, noise, maps)
    if not is_shipped(run.folder):
        with contextlib.suppress(OSError):  # a folder that is another's
            _save(path, made, identity)
    return made


def _identity(run: Painting, noise: NoiseLevel) -> dict[str, Any]:
    """What decides the scores of maps of the prior."""
    return {
        "procedure": PROCEDURE,
        "painted": NUM_EACH,
        "noise": noise.mode,
        "samples": sha256_of(run.config.sample_settings()),
        "generator_version": GENERATOR_VERSION,
        "lightcones": [run.training.skies.identity(), *_digests(run.config)],
        "weights": run.weights_sha256,
        "recalibration": run.applied.record(),
    }


def _digests(config: Config) -> list[str]:
    """The digests of the validation lightcones that are there."""
    files = expand(config.data.files("validation"), "data.validation", must_exist=False)
    return [Header.read(path).digest for path in files]


def _calibrate(run: Painting, noise: NoiseLevel, maps: int) -> Calibration:
    """Check maps of the prior, of skies that the network was not trained on where there are."""
    config = run.config
    prior, first = run.training, OF_CALIBRATION + 2**40
    if config.data.validation:
        prior, first = run.validation(), 0
    batches = []
    for start in range(0, maps, BATCH):
        with torch.inference_mode():
            batch = prior.generate(range(first + start, first + min(start + BATCH, maps)))
        batch.check()
        batches.append(batch)
        run.progress.count("check, calibrated once", start + len(batch), maps, "maps of the prior")
    repainter = Repainter(config, run.network, run.training)
    if config.label.quantity != "parameters" and not count_changing(run.config.emit):
        repainter.of_counts.scatter = field_scatter(*_counts(repainter, batches))
    rows: dict[str, list[Float]] = {}
    covariance: dict[str, Float] = {}
    skies: set[str] = set()
    done = 0
    for batch in batches:
        chosen = repainter.drawn(_output(run.network, batch.cube), NUM_EACH, done)
        measured = repainter.statistics.measure(batch.cube)
        skies.update(skies_of(prior, batch))
        for k, draw in enumerate(batch.draws):
            known = noise
            if noise.mode == "stated":
                known = NoiseLevel(run.training, float(draw[noise.drawn[0].name]["sigma_uK"]))
            place = OF_CALIBRATION + done * 2**12
            found = repainter.repaint(measured.one(k), chosen[k], known, place, done)
            for one in found.compared.statistics:
                rows.setdefault(one.name, []).append(one.score)
                total = covariance.setdefault(one.name, np.zeros_like(one.covariance))
                total += one.covariance / maps
            done += 1
            run.progress.count("check, calibrated once, painting", done, maps, "maps")
    run.progress.close()
    scores = {name: np.stack(every) for name, every in rows.items()}
    return Calibration(scores, covariance, repainter.of_counts.scatter, len(skies))


def _counts(repainter: Repainter, batches: Sequence[Any]) -> tuple[Float, Float]:
    """Halos of some samples, and their means by the samples' own parameters [num, num_bins]."""
    counts, expected = [], []
    names = repainter.painting.line.mixture.names
    for batch in batches:
        counts.append(batch.counts.cpu().numpy().astype(np.float64))
        means = np.zeros_like(counts[-1])
        model = np.array([names.index(draw["model"]) for draw in batch.draws])
        for number in np.unique(model):
            mine = np.flatnonzero(model == number)
            drawn = [batch.draws[k]["parameters"] for k in mine]
            given = {name: np.array([one[name] for one in drawn]) for name in drawn[0]}
            means[mine] = repainter.of_counts.expected(given, int(number))
        expected.append(means)
    return np.concatenate(counts), np.concatenate(expected)


def _load(path: Path, identity: dict[str, Any]) -> Calibration | None:
    """The calibration of a file; None where there is none, it cannot be read, or is of another
    network or other maps."""
    try:
        with reading(path, ValueError, "is no calibration"):
            data = npz_arrays(path)
            if json.loads(str(data["identity"])) != json.loads(json.dumps(identity)):
                return None
            names = [name.removeprefix("scores_") for name in data if "scores_" in name]
            scores, covariance = (
                {name: np.asarray(data[f"{kind}_{name}"], np.float64) for name in names}
                for kind in ("scores", "covariance")
            )
            return Calibration(scores, covariance, data["scatter"], int(data["skies"]))
    except (OSError, KeyError, ValueError):
        return None


def _save(path: Path, made: Calibration, identity: dict[str, Any]) -> None:
    arrays: dict[str, Any] = {
        f"{kind}_{name}": rows.astype(np.float32)
        for kind, every in (("scores", made.scores), ("covariance", made.covariance))
        for name, rows in every.items()
    }
    arrays |= {"scatter": made.scatter, "skies": made.skies, "identity": json.dumps(identity)}
    with writing(path) as part, part.open("wb") as stream:
        np.savez_compressed(stream, **arrays)
