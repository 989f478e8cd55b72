"""How far predicted luminosity functions lie from the true ones, per luminosity range.

Everything here works on p and t, the predicted and true log10 dN (dN: halos per luminosity bin),
float64 [num_samples, num_bins], as `Label.log10_counts` makes them: dN below one counts as one, so
an empty bin is 0, the convention of the label. delta = 10^(p - t) - 1 is the relative error of dN.

Statistics of delta and of p - t use the bins that hold a halo (`occupied`), because the ratio to
an empty bin has no meaning; the fraction left out is part of the result. The mean squared error
uses every bin, and so does the deviance, which tells an empty bin from one halo. All are also split
by the number of bright halos in a map. Standard errors come from a bootstrap (see `bootstrap`): the
bins of a map are correlated.

The Poisson deviance of a count n and a predicted rate r, D = 2 [n ln(n/r) - n + r] [nat], is twice
the logarithm of how much less likely r makes n than the best rate, n itself, would (McCullagh and
Nelder 1989, section 2.3). An empty bin costs 2 r. Its mean is about 1 where r is the true rate and
counts scatter as Poisson's; a relative error e of a large count adds n e^2. A predicted rate may
lie below one halo, where log10 dN of the label cannot follow: 0.3 counts as 0.3. Below
`SMALLEST_RATE`, and where it is negative, it counts as `SMALLEST_RATE`, since a single halo would
make an infinite deviance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.bins import bright_bins, ranges_with_bins
from streamtrain.evaluate.bootstrap import Bootstrap, Float
from streamtrain.ranks import PERCENTILES

Bool = NDArray[np.bool_]
Pair = tuple[float, float]


@dataclass(frozen=True)
class RangeScore:
    """Errors over the occupied bins of one luminosity range; None where there is none. Each
    number's `_error` is its standard error, None for a single map."""

    log10_L: Pair
    num_bins: int
    num_values: int
    """Bins that hold a halo, over all maps."""
    excluded: float
    """Fraction of the bins that hold no halo and are left out."""
    excluded_error: float | None = None
    median: float | None = None
    """Median of delta, predicted over true minus one."""
    median_error: float | None = None
    interval_68: Pair | None = None
    """16th and 84th percentile of delta."""
    interval_68_error: Pair | None = None
    interval_95: Pair | None = None
    """2.5th and 97.5th percentile of delta."""
    interval_95_error: Pair | None = None
    rms_dex: float | None = None
    """Root mean square of p - t [dex]."""
    rms_dex_error: float | None = None


@dataclass(frozen=True)
class Score:
    """Errors of one predictor."""

    ranges: list[RangeScore]
    whole: RangeScore
    """All bins as one range."""
    mse: float
    """Mean squared error of log10 dN over all bins, empty ones included [dex^2]."""
    mse_error: float | None


def score(
    predicted: Float,
    true: Float,
    occupied: Bool,
    bin_edges: Float,
    bootstrap: Bootstrap | None = None,
) -> Score:
    """Statistics of a predictor on a test set.

    predicted, true: log10 dN, [num_samples, num_bins]; `predicted` may be one row [num_bins], the
    same for every map. occupied: dN >= 1, same shape as `true`. bin_edges: log10(L/Lsun),
    [num_bins + 1]. bootstrap: makes the errors; default: over maps. Luminosity ranges without a
    bin are left out.
    """
    if true.ndim != 2 or not len(true):
        raise ValueError(f"true labels must be [num_samples, num_bins], not {true.shape}")
    if occupied.shape != true.shape or len(bin_edges) != true.shape[1] + 1:
        raise ValueError(
            f"shape mismatch: true {true.shape}, occupied {occupied.shape}, "
            f"bin_edges {bin_edges.shape}"
        )
    if predicted.shape not in (true.shape, true.shape[1:]):
        raise ValueError(f"shape mismatch: predicted {predicted.shape}, true {true.shape}")
    bootstrap = bootstrap or Bootstrap.of_maps(len(true))
    residual = predicted - true
    ranges = [
        _range_score(residual[:, inside], occupied[:, inside], bounds, bootstrap)
        for bounds, inside in ranges_with_bins(bin_edges)
    ]
    bounds = (float(bin_edges[0]), float(bin_edges[-1]))
    per_map = (residual**2).mean(axis=1)
    return Score(
        ranges=ranges,
        whole=_range_score(residual, occupied, bounds, bootstrap),
        mse=float(per_map.mean()),
        mse_error=bootstrap.mean(per_map),
    )


def delta_percentiles(residual: Float, occupied: Bool) -> Float:
    """Percentiles (2.5, 16, 50, 84, 97.5) of delta per luminosity bin, [5, num_bins].

    residual: p - t, [num_samples, num_bins]. NaN for a bin that is occupied in no map.
    """
    result = np.full((len(PERCENTILES), residual.shape[1]), np.nan)
    for k in range(residual.shape[1]):
        values = residual[occupied[:, k], k]
        if len(values):
            result[:, k] = np.percentile(_delta(values), PERCENTILES)
    return result


def bands(residual: Float, occupied: Bool, bin_edges: Float, bootstrap: Bootstrap) -> Any:
    """`delta_percentiles` with its errors as plain data: for the figures of several runs."""
    rows, errors = delta_percentiles(residual, occupied), []
    for k in range(residual.shape[1]):
        maps = np.flatnonzero(occupied[:, k])
        errors.append(bootstrap.percentiles(_delta(residual[maps, k]), maps, PERCENTILES))
    return {
        "log10_L": bin_edges.tolist(),
        "num": occupied.sum(axis=0).tolist(),
        "percentiles": {
            f"{q:g}": [None if np.isnan(v) else float(v) for v in row]
            for q, row in zip(PERCENTILES, rows, strict=True)
        },
        "percentiles_error": {
            f"{q:g}": [None if e is None else e[k] for e in errors]
            for k, q in enumerate(PERCENTILES)
        },
    }


def residual_percentiles(residual: Float) -> dict[str, list[float]]:
    """Percentiles of p - t [dex] of every bin over all maps [num_bins], by their number, such as
    '2.5': what `streamtrain infer` sets a prediction against. residual: [num_samples, num_bins]."""
    rows = np.percentile(residual, PERCENTILES, axis=0)
    return {f"{q:g}": row.tolist() for q, row in zip(PERCENTILES, rows, strict=True)}


def _range_score(residual: Float, occupied: Bool, bounds: Pair, bootstrap: Bootstrap) -> RangeScore:
    num_bins = residual.shape[1]
    holding = occupied.sum(axis=1).astype(np.float64)
    number = int(holding.sum())
    excluded = 1.0 - number / occupied.size
    excluded_error = bootstrap.mean(1.0 - holding / num_bins)
    if not number:
        return RangeScore(bounds, num_bins, 0, excluded, excluded_error)
    values, maps = residual[occupied], np.nonzero(occupied)[0]
    low95, low68, median, high68, high95 = np.percentile(_delta(values), PERCENTILES).tolist()
    errors = bootstrap.percentiles(_delta(values), maps, PERCENTILES)
    squares = (np.where(occupied, residual, 0.0) ** 2).sum(axis=1)
    return RangeScore(
        log10_L=bounds,
        num_bins=num_bins,
        num_values=number,
        excluded=excluded,
        excluded_error=excluded_error,
        median=median,
        median_error=errors[2] if errors else None,
        interval_68=(low68, high68),
        interval_68_error=(errors[1], errors[3]) if errors else None,
        interval_95=(low95, high95),
        interval_95_error=(errors[0], errors[4]) if errors else None,
        rms_dex=float(np.sqrt(np.mean(values**2))),
        rms_dex_error=bootstrap.ratio(squares, holding, root=True),
    )


def _delta(residual: Float) -> Float:
    """10^(p - t) - 1; finite, also squared, for any finite residual [dex]."""
    return 10.0 ** np.minimum(residual, 100.0) - 1.0


NUM_GROUPS = 4


@dataclass(frozen=True)
class GroupScore:
    """Errors over all bins of the maps with a certain number of bright halos."""

    bright: tuple[int, int]
    """Fewest and most halos in the bright bins (`bright_bins`)."""
    maps: int
    mse: float
    """Mean squared error of log10 dN, empty bins included [dex^2]."""
    mse_error: float | None
    rms_dex: float | None
    """Root mean square of p - t over occupied bins [dex]; None where there is none."""
    rms_dex_error: float | None
    deviance: float
    """Mean Poisson deviance per bin [nat]."""
    deviance_error: float | None


def num_bright(counts: Float, bin_edges: Float) -> Float | None:
    """Bright halos of each map [num_samples]; None where no bin is bright. counts: halos per bin
    [num_samples, num_bins]."""
    bright = bright_bins(bin_edges)
    return np.asarray(counts[:, bright].sum(axis=1)) if bright.any() else None


def score_groups(
    predicted: Float,
    rates: Float,
    true: Float,
    dN: Float,
    occupied: Bool,
    bright: Float,
    bootstrap: Bootstrap,
) -> list[GroupScore]:
    """Errors of a predictor for each quarter of the maps, ordered by their number of bright halos;
    maps with equal numbers stay together.

    predicted, rates, true, dN, occupied: as in `score` and `score_counts`; bright: [num_samples].
    """
    ends = np.unique(np.percentile(bright, np.linspace(0, 100, NUM_GROUPS + 1)))
    group = np.digitize(bright, ends[1:-1]) if len(ends) > 2 else np.zeros(len(bright), int)
    squares, costs = (predicted - true) ** 2, deviance(rates, dN).mean(axis=1)
    inside = np.where(occupied, squares, 0.0).sum(axis=1)
    number = occupied.sum(axis=1).astype(np.float64)
    per_map = squares.mean(axis=1)
    scores = []
    for k in np.unique(group):
        chosen = group == k
        some = bootstrap.among(chosen)
        held = number[chosen].sum()
        rms = float(np.sqrt(inside[chosen].sum() / held)) if held else None
        scores.append(
            GroupScore(
                bright=(int(bright[chosen].min()), int(bright[chosen].max())),
                maps=int(chosen.sum()),
                mse=float(per_map[chosen].mean()),
                mse_error=some.mean(per_map[chosen]),
                rms_dex=rms,
                rms_dex_error=some.ratio(inside[chosen], number[chosen], root=True),
                deviance=float(costs[chosen].mean()),
                deviance_error=some.mean(costs[chosen]),
            )
        )
    return scores


SMALLEST_RATE = 0.01
"""Lowest predicted rate [halos per bin]."""
LARGEST_RATE = 1e15


@dataclass(frozen=True)
class RangeDeviance:
    """Mean Poisson deviance of the bins of one luminosity range."""

    log10_L: tuple[float, float]
    deviance: float
    """Per bin and map [nat]."""
    deviance_error: float | None


@dataclass(frozen=True)
class CountScore:
    """Deviances of one predictor."""

    ranges: list[RangeDeviance]
    whole: RangeDeviance


def deviance(rates: Float, counts: Float) -> Float:
    """Poisson deviance of each count [nat]; arguments broadcast."""
    rate = np.clip(rates, SMALLEST_RATE, LARGEST_RATE)
    n = np.asarray(counts, np.float64)
    ratio = np.where(n > 0, n, rate) / rate
    return np.asarray(2.0 * (n * np.log(ratio) - n + rate))


def score_counts(rates: Float, counts: Float, bin_edges: Float, bootstrap: Bootstrap) -> CountScore:
    """Deviances of predicted rates [num_samples, num_bins] or [num_bins] on a test set.

    counts: true dN [num_samples, num_bins]; bin_edges: log10(L/Lsun) [num_bins + 1].
    """
    values = deviance(rates, counts)

    def of(bounds: tuple[float, float], some: Float) -> RangeDeviance:
        per_map = some.mean(axis=1)
        return RangeDeviance(bounds, float(per_map.mean()), bootstrap.mean(per_map))

    return CountScore(
        [of(bounds, values[:, inside]) for bounds, inside in ranges_with_bins(bin_edges)],
        of((float(bin_edges[0]), float(bin_edges[-1])), values),
    )
