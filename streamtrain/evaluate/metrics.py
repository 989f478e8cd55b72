"""How far predicted luminosity functions lie from the true ones, per luminosity range.

Everything here works on p and t, the predicted and true log10 dN (dN: halos per luminosity bin),
float64 [num_samples, num_bins], as `Label.log10_counts` makes them: dN below one counts as one, so
an empty bin is 0, the convention of the label. delta = 10^(p - t) - 1 is the relative error of dN.

Statistics of delta and of p - t use the bins that hold a halo (`occupied`), because the ratio to
an empty bin has no meaning; the fraction left out is part of the result. The mean squared error
uses every bin. Standard errors come from a bootstrap over maps, the bins of a map being
correlated; test maps cut from the same few lightcones share halos, which it does not see.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamtrain.generator.bins import ranges_with_bins

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]

PERCENTILES = (2.5, 16.0, 50.0, 84.0, 97.5)
RESAMPLES = 400
"""Bootstrap resamples; a standard error is known to about 4 %."""


@dataclass(frozen=True)
class RangeScore:
    """Errors over the occupied bins of one luminosity range; None where there is none."""

    log10_L: tuple[float, float]
    num_bins: int
    num_values: int
    """Bins that hold a halo, over all maps."""
    excluded: float
    """Fraction of the bins that hold no halo and are left out."""
    median: float | None
    """Median of delta."""
    interval_68: tuple[float, float] | None
    """16th and 84th percentile of delta."""
    interval_95: tuple[float, float] | None
    """2.5th and 97.5th percentile of delta."""
    rms_dex: float | None
    """Root mean square of p - t [dex]."""
    rms_dex_error: float | None


@dataclass(frozen=True)
class Score:
    """Errors of one predictor."""

    ranges: list[RangeScore]
    whole: RangeScore
    """All bins as one range."""
    mse: float
    """Mean squared error of log10 dN over all bins, empty ones included [dex^2]."""
    mse_error: float | None


def score(predicted: Float, true: Float, occupied: Bool, bin_edges: Float, seed: int = 0) -> Score:
    """Statistics of a predictor on a test set.

    predicted, true: log10 dN, [num_samples, num_bins]; `predicted` may be one row [num_bins], the
    same answer for every map. occupied: dN >= 1, same shape as `true`. bin_edges: log10(L/Lsun),
    [num_bins + 1]. seed: of the bootstrap. Luminosity ranges without a bin are left out.
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
    residual = predicted - true
    ranges = [
        _range_score(residual[:, inside], occupied[:, inside], bounds, seed)
        for bounds, inside in ranges_with_bins(bin_edges)
    ]
    bounds = (float(bin_edges[0]), float(bin_edges[-1]))
    squares = residual**2
    per_map = squares.mean(axis=1)
    return Score(
        ranges=ranges,
        whole=_range_score(residual, occupied, bounds, seed),
        mse=float(per_map.mean()),
        mse_error=bootstrap_error(per_map, np.ones_like(per_map), seed, root=False),
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


def _range_score(
    residual: Float, occupied: Bool, bounds: tuple[float, float], seed: int
) -> RangeScore:
    values = residual[occupied]
    excluded = 1.0 - len(values) / occupied.size
    if not len(values):
        return RangeScore(bounds, residual.shape[1], 0, excluded, None, None, None, None, None)
    low95, low68, median, high68, high95 = np.percentile(_delta(values), PERCENTILES).tolist()
    squares, weights = np.where(occupied, residual, 0.0) ** 2, occupied.astype(np.float64)
    return RangeScore(
        log10_L=bounds,
        num_bins=residual.shape[1],
        num_values=len(values),
        excluded=excluded,
        median=median,
        interval_68=(low68, high68),
        interval_95=(low95, high95),
        rms_dex=float(np.sqrt(np.mean(values**2))),
        rms_dex_error=bootstrap_error(squares.sum(1), weights.sum(1), seed, root=True),
    )


def _delta(residual: Float) -> Float:
    """10^(p - t) - 1, finite for any finite residual [dex]."""
    return 10.0 ** np.minimum(residual, 300.0) - 1.0


def bootstrap_error(sums: Float, counts: Float, seed: int, root: bool) -> float | None:
    """Standard error of sum(sums) / sum(counts), or of its square root, when whole maps are drawn
    with replacement; None for a single map. sums, counts: per map, [num_samples]."""
    num_samples = len(sums)
    if num_samples < 2:
        return None
    rng = np.random.default_rng(seed)
    even = np.full(num_samples, 1.0 / num_samples)
    ratios = []
    for _ in range(RESAMPLES):
        times = rng.multinomial(num_samples, even)
        total = times @ counts
        if total:
            ratios.append((times @ sums) / total)
    spread = np.sqrt(ratios) if root else np.asarray(ratios)
    return float(np.std(spread, ddof=1))
