"""Whether a posterior of luminosity functions means what it says: ranks of the truth, and tests.

If the truth and the S samples of its posterior are drawn from one distribution, the truth's rank
among them is any of S + 1 with equal chance, whatever number is ranked (simulation-based
calibration; Talts et al. 2018, arXiv:1804.06788). Here a rank is a number between 0 and 1: ties,
which counts have, and the place within a rank are drawn at random, so that it is uniform to the
last digit for an exact posterior. Ranked are

- every bin and sums over bins (N of a luminosity range, rho_L): the randomised probability integral
  transform (Czado, Gneiting and Held 2009). Bins alone do not see their correlation, sums do;
- the log probability that the posterior gives to the function ("density");
- how far out the function's outermost bin lies among the samples ("curve"), which is the level of
  the simultaneous band that the truth just fits into;
- the distance from a point that has nothing to do with the truth ("distance"; TARP, Lemos et al.
  2023, arXiv:2302.03026).

The last three are levels: the posterior's region of 95 % holds the truth where they are below 0.95.
The tests take the maps for independent. Maps of one sky are not, as they share halos.

Axes: s sample, b map, k luminosity bin, m sum over bins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]

BANDS = (0.68, 0.95)
"""Levels of the intervals, bands and regions whose coverage is quoted."""
BAND = BANDS[-1]
"""Level of the simultaneous band that is quoted."""
QUANTILES = (0.025, 0.16, 0.5, 0.84, 0.975)
"""Ends of the 95 % and 68 % intervals that are quoted, and the median."""
QUANTILE_NAMES = ("low_95", "low_68", "median", "high_68", "high_95")
"""Names of `QUANTILES` in files."""
INTERVAL_ENDS = tuple(q for q in QUANTILES if q != 0.5)
"""The ends of the 95 % and 68 % intervals from low to high, without the median."""
PERCENTILES = tuple(100.0 * q for q in QUANTILES)
"""The numbers of `QUANTILES`, in percent."""
LEVELS = ("density", "curve", "distance")
"""Names of the ranks that are levels of a region of the whole posterior."""
BINS = "bins"
"""Name of all bins together, in tables and among the p-values."""
RESAMPLES = 4000
"""Uniform samples behind a simultaneous band of the ranks' distribution."""
POINTS = np.linspace(0.0, 1.0, 101)[1:-1]
"""Where the distribution of the ranks is compared with the uniform one."""


@dataclass(frozen=True)
class Ranks:
    """What became of the truth of N maps among the samples of their posteriors."""

    bins: Float
    """Rank of each bin's count [N, num_bins]."""
    sums: dict[str, Float]
    """Rank of each sum over bins, by its name [N]."""
    levels: dict[str, Float]
    """Level of the smallest region that holds the truth, by the names in `LEVELS` [N]; 'density' is
    missing where log probabilities were not given."""
    pulls: dict[str, Float]
    """(truth - posterior mean) / posterior deviation of log10 of each sum [N], where the truth is
    counted as one of the samples: mean 0 and mean square 1 for an exact posterior, a positive mean
    for one that is too low. A sum of less than its smallest weight counts as that: no halo as one;
    0 where truth and samples are all the same.
    """
    width_68: dict[str, Float]
    """Distance of the 16th and 84th percentile of log10 of each sum [dex] [N]."""
    width_95: dict[str, Float]
    """Distance of the 2.5th and 97.5th percentile of log10 of each sum [dex] [N]."""
    median: dict[str, Float]
    """Posterior median of log10 of each sum [N], a function of the map alone."""
    log_q: Float | None
    """Log probability of the true counts [nat] [N]."""
    surprise: Float | None
    """How much less that is than the mean log probability of the posterior's own samples [nat] [N]:
    of mean 0 for an exact posterior, more for one that is too sure, less for one that is too wide.
    """

    def __len__(self) -> int:
        return len(self.bins)

    def among(self, chosen: Bool) -> Ranks:
        """The ranks of some of the maps; chosen: [N]."""

        def part(value: Float | dict[str, Float] | None) -> Float | dict[str, Float] | None:
            if isinstance(value, dict):
                return {name: row[chosen] for name, row in value.items()}
            return None if value is None else value[chosen]

        found = {field.name: part(getattr(self, field.name)) for field in fields(self)}
        return Ranks(**found)  # type: ignore[arg-type]

    def inside(self, level: float) -> dict[str, Float]:
        """Share of each map's truths within the posterior's `level`, by name [N]: 0 or 1 for a sum
        and for a region, the mean over bins for `BINS`."""
        return {
            BINS: _within(self.bins, level).mean(axis=1),
            **{name: _within(rank, level) for name, rank in self.sums.items()},
            **{name: (at <= level).astype(np.float64) for name, at in self.levels.items()},
        }


def _within(rank: Float, level: float) -> Float:
    """Whether a rank lies in the central interval of `level`."""
    return (np.abs(2.0 * rank - 1.0) <= level).astype(np.float64)


class RankedTruth:
    """Ranks of the truth, batch by batch: of each map only a few numbers are kept.

    sums: weights [num_bins] of each sum over bins, by name, such as 1 in a luminosity range and 0
    elsewhere. scale: how much `tell_apart` of each bin varies between maps [num_bins], the unit of
    distances. seed: of the random numbers that break ties; a rank depends on the order of the maps,
    not on the batches.
    """

    def __init__(self, sums: Mapping[str, Float], scale: Float, seed: int = 0) -> None:
        self._names, self._scale = list(sums), scale
        self._weights = np.stack([np.asarray(row, np.float64) for row in sums.values()], axis=1)
        positive = np.where(self._weights > 0, self._weights, np.inf)
        self._one = positive.min(axis=0)  # what the least of one halo adds
        self._rng = np.random.default_rng(seed)
        self._parts: list[tuple[Float, ...]] = []
        self._log_q: list[tuple[Float, Float]] = []

    def add(
        self,
        samples: Float,
        truth: Float,
        references: Float,
        log_q: tuple[Float, Float] | None = None,
    ) -> None:
        """Rank the truth of B maps.

        samples: halos per bin [S, B, num_bins]; truth: [B, num_bins]; references: of each map a
        function that is independent of its truth, such as that of another sky's map [B, num_bins].
        log_q: log probability of the truth [B] and of some samples [S', B], S' at most S [nat], in
        all batches or in none.
        """
        if samples.shape[1:] != truth.shape or references.shape != truth.shape:
            raise ValueError(
                f"shape mismatch: samples {samples.shape}, truth {truth.shape}, references "
                f"{references.shape}"
            )
        num_bins, num_sums = truth.shape[1], len(self._names)
        luck = self._rng.random((len(truth), num_bins + num_sums + len(LEVELS)))
        of_bins, of_sums, of_levels = np.split(luck, [num_bins, num_bins + num_sums], axis=1)
        pool = np.concatenate([truth[None], samples])
        sums = pool @ self._weights
        log10 = np.log10(np.maximum(sums, self._one))
        low95, low68, median, high68, high95 = np.quantile(log10[1:], QUANTILES, axis=0)
        deviation = log10.std(axis=0)
        known = deviation > 1e-9  # else all are one number, up to rounding
        pull = (log10[0] - log10.mean(axis=0)) / np.where(known, deviation, 1.0)
        levels = [np.zeros(len(truth))]
        if log_q is not None:
            levels[0] = 1.0 - _rank(np.concatenate([log_q[0][None], log_q[1]]), of_levels[:, 0])
            self._log_q.append((log_q[0], log_q[1].mean(axis=0) - log_q[0]))
        levels.append(1.0 - _rank(depth(pool), of_levels[:, 1]))
        away = ((tell_apart(pool) - tell_apart(references)) / self._scale) ** 2
        levels.append(_rank(away.sum(axis=-1), of_levels[:, 2]))
        self._parts.append(
            (
                _rank(pool, of_bins),
                _rank(sums, of_sums),
                np.stack(levels, axis=1),
                np.where(known, pull, 0.0),
                high68 - low68,
                high95 - low95,
                median,
            )
        )

    def ranks(self) -> Ranks:
        """The ranks of all maps that were added."""
        columns = [np.concatenate(rows) for rows in zip(*self._parts, strict=True)]
        names = LEVELS if self._log_q else LEVELS[1:]
        levels = columns[2].T[-len(names) :]
        log_q, surprise = (
            (np.concatenate(rows) for rows in zip(*self._log_q, strict=True))
            if self._log_q
            else (None, None)
        )

        def by_name(rows: Float) -> dict[str, Float]:
            return dict(zip(self._names, rows.T, strict=True))

        return Ranks(
            bins=columns[0],
            sums=by_name(columns[1]),
            levels=dict(zip(names, levels, strict=True)),
            pulls=by_name(columns[3]),
            width_68=by_name(columns[4]),
            width_95=by_name(columns[5]),
            median=by_name(columns[6]),
            log_q=log_q,
            surprise=surprise,
        )


def _rank(pool: NDArray[Any], luck: Float) -> Float:
    """The rank of the first row of `pool` [1 + S, ...] among all, between 0 and 1; luck: uniform
    random numbers, of the shape of a row.

    Values are compared in float32, so that the rounding of a sum does not break ties.
    """
    values = pool.astype(np.float32)
    below = (values[1:] < values[0]).sum(axis=0)
    ties = (values[1:] == values[0]).sum(axis=0)
    return np.asarray((below + luck * (ties + 1)) / len(values))


def depth(functions: Float) -> NDArray[np.int64]:
    """How far inside each function lies among all, in its outermost bin [S, B].

    functions: [S, B, num_bins]. It is the smaller one of the numbers of functions at or below and
    at or above it, in the bin where that is least: 1 for one that is the lowest or the highest
    somewhere. The functions of a depth of d and more lie within the simultaneous band whose ends
    are the d-th lowest and highest values of each bin; ties count as inside.
    """
    values = np.ascontiguousarray(np.moveaxis(functions, 0, -1))
    order = np.argsort(values, axis=-1)
    ordered = np.take_along_axis(values, order, axis=-1)
    place = np.broadcast_to(np.arange(values.shape[-1]), values.shape)
    step = ordered[..., 1:] != ordered[..., :-1]
    first = np.zeros(values.shape, np.int64)
    first[..., 1:] = np.where(step, place[..., 1:], 0)
    first = np.maximum.accumulate(first, axis=-1)
    last = np.full(values.shape, values.shape[-1] - 1)
    last[..., :-1] = np.where(step, place[..., :-1], values.shape[-1] - 1)
    last = np.minimum.accumulate(last[..., ::-1], axis=-1)[..., ::-1]
    found = np.empty(values.shape, np.int64)
    np.put_along_axis(found, order, np.minimum(last + 1, values.shape[-1] - first), axis=-1)
    return np.asarray(found.min(axis=-2).T)


def tell_apart(counts: Float) -> Float:
    """Counts on a scale on which distances are taken: about log10 of large ones, but it tells an
    empty bin from one halo; asinh(n / 2) / ln 10."""
    return np.asarray(np.arcsinh(0.5 * counts) / np.log(10.0))


@dataclass(frozen=True)
class Uniformity:
    """Tests of whether N independent ranks are uniform; p-values are two-sided."""

    shift: float
    """p-value of the mean of the ranks' normal scores, which is normal(0, 1 / N)."""
    width: float
    """p-value of the sum of the scores' squares, chi^2 of N degrees of freedom: whether intervals
    are too narrow or too wide."""
    shape: float
    """p-value of the largest deviation (Kolmogorov and Smirnov)."""
    deviation: float
    """Largest deviation of the distribution of the ranks from the uniform one."""
    mean: float
    """Mean of the normal scores: the bias in standard deviations; 0 if uniform. For levels,
    positive means that regions are too small."""
    rms: float
    """Root mean square of the normal scores; 1 if uniform, more if intervals are too narrow."""

    @property
    def p(self) -> float:
        """The three p-values as one."""
        return combine([self.shift, self.width, self.shape])


def uniformity(rank: Float) -> Uniformity:
    """Tests of ranks [N] between 0 and 1."""
    num = len(rank)
    score = special.ndtri(np.clip(rank, 1e-16, 1.0 - 1e-16))
    mean, square = float(score.mean()), float((score**2).mean())
    ordered, steps = np.sort(rank), np.arange(num + 1) / num
    deviation = float(max((steps[1:] - ordered).max(), (ordered - steps[:-1]).max()))
    root = np.sqrt(num)
    tails = min(special.chdtr(num, num * square), special.chdtrc(num, num * square))
    return Uniformity(
        shift=float(special.erfc(abs(mean) * root / np.sqrt(2.0))),
        width=float(min(1.0, 2.0 * tails)),
        shape=deviation_p(deviation, num),
        deviation=deviation,
        mean=mean,
        rms=float(np.sqrt(square)),
    )


def usual_deviation(num: int) -> float:
    """The largest deviation that the distribution of `num` independent uniform ranks stays below
    with the chance `BAND`."""
    return float(special.kolmogi(1.0 - BAND) / _stephens(num))


def deviation_p(deviation: float, num: int) -> float:
    """p-value of the largest deviation of the distribution of `num` independent ranks from the
    uniform one (Kolmogorov and Smirnov)."""
    return float(special.kolmogorov(deviation * _stephens(num)))


def _stephens(num: int) -> float:
    """Factor of a deviation in the limit of many, for a finite number: Stephens 1970."""
    return float(np.sqrt(num) + 0.12 + 0.11 / np.sqrt(num))


def combine(p_values: list[float]) -> float:
    """p-values of tests that may depend on one another as one: the Cauchy combination of Liu and
    Xie 2020, arXiv:1808.09011, whose false-alarm rate is right for small p."""
    return float(np.arctan2(1.0, cauchy(np.asarray(p_values, np.float64))) / np.pi)


def cauchy(p_values: Float) -> Float:
    """The statistic of the Cauchy combination, the mean of cot(pi p) over the last axis: large
    where one of the p-values [..., n] is small."""
    p = np.clip(p_values, 1e-300, 1.0 - 1e-9)
    with np.errstate(divide="ignore"):
        terms = np.where(p < 1e-12, 1.0 / (np.pi * p), 1.0 / np.tan(np.pi * p))
    return np.asarray(terms.mean(axis=-1))


def tests_of(ranks: Ranks) -> dict[str, Uniformity]:
    """The tests of every sum and level, by name."""
    return {name: uniformity(rank) for name, rank in named(ranks)}


def named(ranks: Ranks) -> Iterator[tuple[str, Float]]:
    """Ranks of one number per map: of sums, then levels, by name."""
    yield from ranks.sums.items()
    yield from ranks.levels.items()


def p_values(ranks: Ranks) -> dict[str, float]:
    """One p-value for each sum and level, and for all bins together (`BINS`), by name."""
    bins = [uniformity(row).p for row in ranks.bins.T]
    return {BINS: combine(bins)} | {name: test.p for name, test in tests_of(ranks).items()}


def p_value(ranks: Ranks) -> float:
    """One p-value for everything; of an exact posterior it is below 0.05 in about 5 % of all test
    sets, if their maps are independent."""
    return combine(list(p_values(ranks).values()))


@lru_cache(maxsize=32)
def _pointwise(num: int) -> float:
    """The chance, point by point, that `BAND` of the distributions of `num` uniform ranks keep at
    all of `POINTS`."""
    rng = np.random.default_rng(0)
    cells = np.diff(np.concatenate([[0.0], POINTS, [1.0]]))
    below = rng.multinomial(num, cells, RESAMPLES).cumsum(axis=1)[:, :-1].astype(np.float64)
    tail = np.minimum(special.bdtr(below, num, POINTS), special.bdtrc(below - 1.0, num, POINTS))
    return float(np.quantile(2.0 * tail.min(axis=1), 1.0 - BAND))


def rank_band(num: int) -> tuple[Float, Float]:
    """The band that the empirical distribution of `num` independent uniform ranks keeps to at all
    of `POINTS` with the chance `BAND`: its ends minus the uniform distribution, at `POINTS`.

    The pointwise chance is found from simulated ranks; Sailynoja, Buerkner and Vehtari 2022,
    arXiv:2103.10522.
    """
    tail = 0.5 * _pointwise(num)
    counts = np.arange(num + 1.0)
    low, high = np.empty(len(POINTS)), np.empty(len(POINTS))
    for k, point in enumerate(POINTS):
        reached = special.bdtr(counts, num, point)
        low[k] = np.searchsorted(reached, tail, side="left")
        high[k] = np.searchsorted(reached, 1.0 - tail, side="right")
    return low / num - POINTS, high / num - POINTS


def rank_curve(rank: Float) -> Float:
    """The empirical distribution of ranks minus the uniform one, at `POINTS`."""
    return np.searchsorted(np.sort(rank), POINTS, side="right") / len(rank) - POINTS


def scalars(ranks: Ranks) -> dict[str, float]:
    """A few numbers to watch during training: shares of truths within the posterior's 68 and 95 %
    of each sum, level and of the bins, biases in standard deviations, log probability and surprise
    in nat, log10 of p."""
    found = {
        f"coverage_{100 * level:g}/{name}": float(share.mean())
        for level in BANDS
        for name, share in ranks.inside(level).items()
    }
    found |= {f"bias_sigma/{name}": float(pull.mean()) for name, pull in ranks.pulls.items()}
    for name, values in (("log_probability", ranks.log_q), ("surprise", ranks.surprise)):
        if values is not None:
            found[name] = float(values.mean())
    return found | {"log10_p": float(np.log10(p_value(ranks)))}
