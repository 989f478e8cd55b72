"""Is a map one of those that a network was trained on? An alarm with a known false-alarm rate.

A network predicts something for any map, also for one that no training could have made. So some
thousand maps of the run's own prior are looked at once: their plain statistics (`MapStatistics`)
and the network's outputs for them. Maps of the training's skies say what goes with what; maps of
other skies say how far from that the maps of the prior lie. The p-value of a map is its rank among
these: of maps of the prior on skies that no training saw, 5 % have p < 0.05.

Up to five distances are ranked, each by itself, and the rank of their combination (Cauchy's, Liu
and Xie 2020, arXiv:1808.09011) is the p-value:

- outputs: of the network's outputs from their mean, in their own covariance (Mahalanobis);
- neighbours: of the leading directions of the outputs from those of other maps, the tenth nearest;
- power spectrum: of P(k_perp, k_par) from what goes with these outputs, and so with the luminosity
  function that the network reads off, in the covariance of what is left;
- other statistics: the same of the others, the voxel intensity distribution first of all;
- instrument: of all statistics, along the one direction in which they move where a measured number
  of the instrument is another, as the width of the beam (Rao's score); the largest of these.

What goes with the outputs is a quadratic regression on leading directions of outputs and of
statistics.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from streamtrain.evaluate.alarm.statistics import POWER, MapStatistics, Place
from streamtrain.evaluate.bootstrap import Bootstrap
from streamtrain.figures import as_name
from streamtrain.machine.files import npz_arrays, reading, writing
from streamtrain.ranks import cauchy
from streamtrain.tables import LABEL, labelled, plus_minus

Float = NDArray[np.float64]

NUM_MAPS = 2000
"""Maps of the prior that are looked at, half of them on the training's skies."""
FEWEST_MAPS = 200
"""With fewer no p-value is smaller than `EXTRAPOLATED`."""
EXTRAPOLATED = 0.01
"""A map of a smaller p-value is called an extrapolation."""
INSTRUMENT = "instrument"
TESTS = ("outputs", "neighbours", "power spectrum", "other statistics", INSTRUMENT)
"""The distances that are ranked; the last one where something of the instrument was measured."""
TURNED = 1.1
"""What measured numbers of the instrument are times, for the direction in which maps move."""

LEVELS = (0.05, 0.01)
"""p-values below which maps are counted."""

USUAL = 0.9
"""What a share of 1 counts as where shares are combined: with 1 itself, a map that is nearer to
what is expected in one distance than all maps of the prior could be as far off as it liked in
others."""
LEADING = 8
"""Directions of outputs and of statistics that the regression is on."""
NEIGHBOURS = 10
"""Which neighbour's distance is ranked."""
RIDGE = 1.0
"""The ridge of the regression, in maps."""
SHRINK = 1e-3
"""Share of the mean variance that is added to each."""
FARTHEST = 30.0
"""A number counts as no farther from the mean than so many standard deviations."""
FARTHEST_LEADING = 5.0
"""Leading directions reach no farther into the regression, whose squares would run away."""
LEAST_READ = 0.2
"""The error of a measured number that is read off a map is a regression on ln of this share of its
scatter, added in quadrature: errors that happen to be nearly nothing would rule it."""
LARGEST_READ = math.log(2.0)
"""A measured number is read off along a straight line, which no larger |ln of a factor| lies on."""
LEAST_UNIT = 1e-3
"""Numbers scatter by this at least: what an operator removes from every map, as a channel's mean,
scatters by rounding alone, and that is another on another device."""
LEAST_LEFT = 0.01
"""What the regression leaves of a number scatters by this share of its scatter, at least."""
CONSTANT = 1e-6
"""A direction with a smaller variance is none."""
ROWS = ("near", "distances")
"""Arrays of a row for each map, nearly all of a reference's size: their numbers are of single
precision, as they are written."""
LINE = 105
"""Characters of a line of a figure's title."""
MOST_OFF = 5
"""Statistics that an alarm names."""
LEAST_OFF = 3.0
"""A statistic that an alarm names lies at least so many standard deviations off."""


@dataclass(frozen=True)
class Off:
    """A statistic that is not what goes with the network's outputs for the map."""

    kind: str
    """What it is of, as "P(k_perp, k_par)", or `INSTRUMENT`."""
    where: str
    """Where in it, in words; of the instrument the setting with its value."""
    sigma: float
    """How far off it is, in standard deviations of maps of the prior."""
    factor: float | None
    """How many times too large it is; None of what has no logarithm, and of what is so far off that
    nothing is known of what is expected there."""

    def __str__(self) -> str:
        far = f"{self.sigma:+.1f}" if abs(self.sigma) < FARTHEST else f"beyond {FARTHEST:g}"
        measured = self.kind == INSTRUMENT
        where = self.where if measured else f"{self.kind} at {self.where}"
        if self.factor is None:
            return f"{where}: {far} sigma"
        times = "as if it were {:.3g} times that" if measured else "{:.3g} times what is expected"
        return f"{where}: {times.format(self.factor)}, {far} sigma"


@dataclass(frozen=True)
class Alarm:
    """How unlikely a map is among maps of the prior that a network was trained on."""

    p: float
    """Share of maps of the prior that lie at least as far off."""
    tests: dict[str, float]
    """The p-value of each of `TESTS` that there is."""
    off: tuple[Off, ...]
    """The statistics that are farthest off, the farthest first; none within `LEAST_OFF`."""
    maps: int
    """Maps that the ranks are among; no p-value is smaller than 1 / (maps + 1)."""
    skies: str
    """The skies that these maps are of, in words."""
    prior: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """`ranks.QUANTILES` of what is quoted of a luminosity function, by name, over maps of the
    prior: what is known without a map. Empty where that is not known."""

    @property
    def extrapolated(self) -> bool:
        """Whether the map is so unlikely that what is read off it is an extrapolation."""
        return self.p < EXTRAPOLATED

    @property
    def warning(self) -> str:
        """A sentence for an extrapolation, with what is most off, else ''."""
        if not self.extrapolated:
            return ""
        return self._sentence + (f"; most off: {'; '.join(map(str, self.off))}" if self.off else "")

    @property
    def _sentence(self) -> str:
        least = " (the smallest there is)" if self.p * (self.maps + 1) < 1.5 else ""
        return (
            "extrapolated: the map is unlike the maps that the training could have made, p = "
            f"{self.p:.2g}{least} among {self.maps} of them"
        )

    def lines(self) -> list[str]:
        """`warning` for the screen, where what is most off is a list."""
        told = labelled("warning", self._sentence + ("; most off:" if self.off else ""))
        return told + [f"{' ' * LABEL}- {off}" for off in self.off]

    @property
    def word(self) -> str:
        """What a map of this p-value is called: of 20 maps of the prior one is unusual."""
        if self.extrapolated:
            return "extrapolated"
        return "unusual" if self.p < LEVELS[0] else "no alarm"

    def __str__(self) -> str:
        tests = ", ".join(f"{name} {p:.2g}" for name, p in self.tests.items())
        word = f"{self.word}, " if self.p < LEVELS[0] else ""
        return f"{word}p = {self.p:.2g} among {self.maps} maps of {self.skies} ({tests})"

    def to_dict(self) -> dict[str, Any]:
        """The alarm as plain data for a JSON file."""
        return {"extrapolated": self.extrapolated, **asdict(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Alarm:
        """The alarm that `to_dict` wrote."""
        given = {name: data[name] for name in ("p", "tests", "maps", "skies")}
        prior = {name: tuple(ends) for name, ends in data.get("prior", {}).items()}
        return cls(off=tuple(Off(**each) for each in data["off"]), prior=prior, **given)


def told_of_map(alarm: Alarm | None, notes: Sequence[str], warnings: Sequence[str]) -> list[str]:
    """What a person is told of a map beside the prediction, in lines for the screen; the alarm's
    own warning is among `warnings`."""
    lines = [] if alarm is None else labelled("alarm", str(alarm))
    for note in notes:
        lines += labelled("note", note)
    for warning in warnings:
        own = alarm is not None and alarm.extrapolated and warning == alarm.warning
        lines += alarm.lines() if alarm is not None and own else labelled("warning", warning)
    return lines


def about_lines(network: str, alarm: Alarm | None) -> list[str]:
    """What a figure says of the network that predicted, '' where that is not known, and of how
    unlikely the map is: a line, or two."""
    told = "alarm off"
    if alarm is not None:
        told = f"{alarm.word}: p = {alarm.p:.2g} among {alarm.maps} maps like those of the training"
    parts = [f"network {as_name(network)}", told] if network else [told]
    line = "; ".join(parts)
    return [line] if len(line) <= LINE else parts


class Reference:
    """What maps of a run's prior look like, and how far from that the maps of unseen skies lie.

    arrays: as `fit` makes them; places: of the statistics, then the measured numbers of the
    instrument; skies: which ones, in words; prior: see `Alarm.prior`.
    """

    def __init__(
        self,
        arrays: Mapping[str, Float],
        places: Sequence[Place],
        skies: str,
        prior: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        self._arrays = dict(arrays)
        self.places, self.skies = list(places), skies
        self.prior = {name: tuple(ends) for name, ends in (prior or {}).items()}
        self._tree = cKDTree(self._arrays["near"])
        self._sorted = np.sort(self._arrays["distances"], axis=0)
        self._combined = np.sort(_combined(self._shares(self._arrays["distances"], 0)))

    def __len__(self) -> int:
        """Maps that the ranks are among."""
        return len(self._sorted)

    @property
    def scales(self) -> Float:
        """The bins of T and scales of the `MapStatistics` that the reference is of."""
        return self._arrays["scales"]

    @property
    def expected(self) -> Float:
        """p-values of the maps that the ranks are among, each among all of them [len(self)]."""
        own = _combined(self._shares(self._arrays["distances"], 0))
        return self._rank(self._combined, own, 0)

    @classmethod
    def fit(
        cls,
        statistics: MapStatistics,
        seen: tuple[Float, Float],
        unseen: tuple[Float, Float],
        places: Sequence[Place],
        skies: str,
        prior: Mapping[str, Sequence[float]] | None = None,
        turned: Mapping[str, tuple[Float, Float]] | None = None,
    ) -> Reference:
        """The reference of some maps.

        seen: statistics [N, num_statistics] and outputs [N, num_outputs] of maps of the training's
        skies; unseen: the same of maps of other skies. places: what the statistics are, those of
        `statistics` first. prior: see `Alarm.prior`. turned: by a measured number of the instrument
        in words, the same of the first maps of `seen` where it is `TURNED` times as large. Raises
        ValueError where all outputs are the same.
        """
        numbers, outputs = seen
        arrays: dict[str, Float] = {"scales": statistics.scales}
        for name, values in (("statistic", numbers), ("output", outputs)):
            mean, unit = values.mean(0), np.maximum(values.std(0), LEAST_UNIT)
            arrays |= {f"{name}_mean": mean, f"{name}_unit": unit}
            scaled = _scaled(values, mean, unit)
            variance, axes = np.linalg.eigh(np.atleast_2d(np.cov(scaled.T)))
            chosen = np.argsort(-variance)[:LEADING]
            chosen = chosen[variance[chosen] > CONSTANT]
            arrays[f"{name}_axes"] = np.asarray(axes[:, chosen] / np.sqrt(variance[chosen]))
            if name == "output":
                if not len(chosen):
                    raise ValueError("the network predicts the same of all of them")
                arrays["output_inverse"] = _inverse(scaled)
        found = cls.__new__(cls)
        found._arrays = arrays
        scaled, _, leading = found._positions(numbers, outputs)
        arrays["weights"] = _regression(_quadratic(leading), scaled)
        left = scaled - _quadratic(leading) @ arrays["weights"]
        power = np.array([place.kind == POWER for place in places])
        arrays |= {"power_inverse": _inverse(left[:, power]), "power": power.astype(np.float64)}
        arrays["other_inverse"] = _inverse(left[:, ~power])
        arrays["left_unit"] = np.maximum(left.std(0), LEAST_LEFT)
        arrays["near"] = _single(leading[:, : arrays["output_axes"].shape[1]])
        found._tree = cKDTree(arrays["near"])
        moves = {}
        for name, there in (turned or {}).items():
            moved = found._left(*there)[0]
            move = (moved - left[: len(moved)]).mean(0) / math.log(TURNED)
            if move.any():  # what changes no map cannot be read off one
                moves[name] = move
        if moves:
            arrays["readings"], arrays["reading_widths"] = _readings(left, leading, moves)
            far = found._distances(*unseen)[1][:, len(places) :]
            arrays["reading_widths"][0] += np.log(far.std(0))
        arrays["distances"] = _single(found._distances(*unseen)[0])
        measured = [Place(INSTRUMENT, name, True) for name in moves]
        return cls(arrays, [*places, *measured], skies, prior)

    def p_values(self, numbers: Float, outputs: Float) -> Float:
        """p-values of maps from their statistics and outputs [B]."""
        distances, *_ = self._distances(numbers, outputs)
        return self._rank(self._combined, _combined(self._shares(distances, 1)), 1)

    def judge(self, numbers: Float, outputs: Float) -> list[Alarm]:
        """The alarms of maps, from their statistics [B, num_statistics] and the network's outputs
        [B, num_outputs]."""
        distances, sigma, size = self._distances(numbers, outputs)
        shares = self._shares(distances, 1)
        p = self._rank(self._combined, _combined(shares), 1)
        tests = TESTS[: shares.shape[1]]
        return [
            Alarm(
                float(p[k]),
                dict(zip(tests, shares[k].tolist(), strict=True)),
                self._off(sigma[k], size[k]),
                len(self),
                self.skies,
                self.prior,
            )
            for k in range(len(p))
        ]

    def save(self, path: Path, about: Mapping[str, Any]) -> None:
        """Write an npz file, whole or not at all; about: what the reference is of."""
        told = {
            "about": dict(about),
            "skies": self.skies,
            "places": [asdict(p) for p in self.places],
            "prior": self.prior,
        }
        arrays: dict[str, Any] = {**self._arrays, "told": np.array(json.dumps(told))}
        arrays |= {name: arrays[name].astype(np.float32) for name in ROWS}
        with writing(path) as part, part.open("wb") as stream:
            np.savez_compressed(stream, **arrays)

    @classmethod
    def load(cls, path: Path) -> tuple[Reference, dict[str, Any]]:
        """The reference of a file, and what it is of. Raises ValueError for a file that is none."""
        with reading(path, ValueError, "is no reference of an alarm"):
            arrays = npz_arrays(path)
        try:
            told = json.loads(str(arrays.pop("told")))
            arrays = {name: values.astype(np.float64) for name, values in arrays.items()}
            places = [Place(**place) for place in told["places"]]
            return cls(arrays, places, told["skies"], told.get("prior")), told["about"]
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ValueError(f"{path} is no reference of an alarm: {error}") from None

    def _positions(self, numbers: Float, outputs: Float) -> tuple[Float, Float, Float]:
        """Scaled statistics and outputs, and leading directions of outputs, then of statistics."""
        a = self._arrays
        scaled = _scaled(numbers, a["statistic_mean"], a["statistic_unit"])
        read = _scaled(outputs, a["output_mean"], a["output_unit"])
        leading = np.concatenate([read @ a["output_axes"], scaled @ a["statistic_axes"]], axis=1)
        return scaled, read, np.clip(leading, -FARTHEST_LEADING, FARTHEST_LEADING)

    def _distances(self, numbers: Float, outputs: Float) -> tuple[Float, Float, Float]:
        """The distances of `TESTS` [B, 4 or 5], and how far from what is expected the number of
        each place is, in its standard deviations and as it is [B, num_places]."""
        a = self._arrays
        left, read, leading = self._left(numbers, outputs)
        near, power = leading[:, : a["near"].shape[1]], a["power"] > 0
        which = min(NEIGHBOURS, len(a["near"]))
        rows = [
            _square(read, a["output_inverse"]),
            np.asarray(self._tree.query(near, k=[which])[0])[:, 0],
            _square(left[:, power], a["power_inverse"]),
            _square(left[:, ~power], a["other_inverse"]),
        ]
        sigma, size = left / a["left_unit"], left * a["statistic_unit"]
        if "readings" in a:
            turned = left @ a["readings"]
            far = turned * np.exp(-_linear(leading) @ a["reading_widths"])
            rows.append(np.abs(far).max(1))
            sigma, size = np.hstack([sigma, far]), np.hstack([size, turned])
        return np.stack(rows, axis=1), sigma, size

    def _left(self, numbers: Float, outputs: Float) -> tuple[Float, Float, Float]:
        """What the regression leaves of scaled statistics, then what `_positions` has beside."""
        scaled, read, leading = self._positions(numbers, outputs)
        return scaled - _quadratic(leading) @ self._arrays["weights"], read, leading

    def _shares(self, distances: Float, more: int) -> Float:
        """The p-value of each distance [B, 4]; more: 1 for new maps, 0 for the reference's own."""
        columns = zip(self._sorted.T, distances.T, strict=True)
        return np.stack([self._rank(known, new, more) for known, new in columns], axis=1)

    @staticmethod
    def _rank(known: Float, new: Float, more: int) -> Float:
        """The share of `known`, in order, at or above each of `new`."""
        above = len(known) - np.searchsorted(known, new, side="left")
        return np.asarray((above + more) / (len(known) + more))

    def _off(self, sigma: Float, size: Float) -> tuple[Off, ...]:
        order = np.argsort(-np.abs(sigma))[:MOST_OFF]
        measured = np.array([place.kind == INSTRUMENT for place in self.places])
        near = (np.abs(sigma) < FARTHEST) & ~(measured & (np.abs(size) > LARGEST_READ))
        known = [place.logarithm and close for place, close in zip(self.places, near, strict=True)]
        return tuple(
            Off(
                self.places[k].kind,
                self.places[k].where,
                float(sigma[k]),
                float(np.exp(size[k])) if known[k] else None,
            )
            for k in order
            if abs(sigma[k]) >= LEAST_OFF
        )


def _single(values: Float) -> Float:
    return values.astype(np.float32).astype(np.float64)


def _scaled(values: Float, mean: Float, unit: Float) -> Float:
    return np.clip((values - mean) / unit, -FARTHEST, FARTHEST)


def _inverse(values: Float) -> Float:
    """Inverse covariance of numbers [N, n]."""
    covariance = np.atleast_2d(np.cov(values.T))
    mean = max(float(np.trace(covariance)) / len(covariance), CONSTANT)
    return np.asarray(np.linalg.inv(covariance + SHRINK * mean * np.eye(len(covariance))))


def _square(values: Float, inverse: Float) -> Float:
    """Mahalanobis distances, squared, of numbers [B, n]; [B]."""
    return np.asarray(((values @ inverse) * values).sum(1))


def _quadratic(x: Float) -> Float:
    """1, the numbers [B, n] and their products."""
    first, second = np.triu_indices(x.shape[1])
    return np.concatenate([np.ones((len(x), 1)), x, x[:, first] * x[:, second]], axis=1)


def _linear(x: Float) -> Float:
    """1 and the numbers [B, n]."""
    return np.concatenate([np.ones((len(x), 1)), x], axis=1)


def _regression(basis: Float, values: Float) -> Float:
    """Weights [n, m] of a basis [N, n] for values [N, m]."""
    normal = basis.T @ basis + RIDGE * np.eye(basis.shape[1])
    return np.asarray(np.linalg.solve(normal, basis.T @ values))


def _readings(left: Float, leading: Float, moves: Mapping[str, Float]) -> tuple[Float, Float]:
    """Weights [num_statistics, n] that read off ln of a factor from what the regression leaves of
    statistics, those of the least variance, where `moves` [num_statistics] are what it changes;
    and those [1 + num_leading, n] that ln of their error has of leading directions, but for a
    constant: bright maps know a beam better than faint ones."""
    moved = np.stack(list(moves.values()), axis=1)
    weights = _inverse(left) @ moved
    weights = weights / np.maximum((weights * moved).sum(0), CONSTANT)
    read = left @ weights
    least = LEAST_READ * read.std(0)
    widths = 0.5 * _regression(_linear(leading), np.log(read * read + least * least))
    return weights, widths


def _combined(shares: Float) -> Float:
    """Cauchy's statistic of p-values [B, 4 or 5], large where one of them is small. That of the
    instrument counts twice: four look at the sky."""
    sky = len(TESTS) - 1
    return cauchy(USUAL * np.hstack([shares, shares[:, sky:]]))


def shares_below(p: Float) -> dict[str, float]:
    """Shares of maps whose p-value is below each of `LEVELS`, by the level in words."""
    return {f"{level:g}": float((p < level).mean()) for level in LEVELS}


def alarm_scores(p: Float, reference: Reference, bootstrap: Bootstrap) -> dict[str, Any]:
    """Shares of maps below `LEVELS`, and how well the p-values tell the maps from those of the
    prior, as plain data for a JSON file; p: of the maps [N]."""
    found: dict[str, Any] = {"among": len(reference), "skies": reference.skies}
    for level in LEVELS:
        low = (p < level).astype(np.float64)
        found |= {
            f"below_{level:g}": float(low.mean()),
            f"below_{level:g}_error": bootstrap.mean(low),
        }
    known = np.sort(reference.expected)
    above = len(known) - 0.5 * (
        np.searchsorted(known, p, side="left") + np.searchsorted(known, p, side="right")
    )
    above = above / len(known)  # the share of maps of the prior that look more usual than each
    return found | {"auroc": float(above.mean()), "auroc_error": bootstrap.mean(above)}


def alarm_lines(scores: Mapping[str, Any] | None) -> list[str]:
    """The scores as text; nothing where the run has no alarm."""
    if scores is None:
        return []
    shares = ", ".join(f"p < {level:g} in {share(scores, level)} of the maps" for level in LEVELS)
    return [f"alarm, among {scores['among']} maps of {scores['skies']}: {shares}"]


def share(scores: Mapping[str, Any], level: float) -> str:
    """The share of maps below a level, in per cent with its error."""
    name = f"below_{level:g}"
    error = scores[f"{name}_error"]
    return plus_minus(100 * scores[name], None if error is None else 100 * error, ".1f") + " %"
