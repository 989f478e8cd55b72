"""How far predicted luminosity functions lie from the true ones, per luminosity range.

Everything here works on p and t, the predicted and true log10 dN (dN: halos per luminosity bin),
float64 [num_samples, num_bins], as `Label.log10_counts` makes them: dN below one counts as one, so
an empty bin is 0, the convention of the label. delta = 10^(p - t) - 1 is the relative error of dN.

Statistics of delta and of p - t use the bins that hold a halo (`occupied`), because the ratio to
an empty bin has no meaning; the fraction left out is part of the result. The mean squared error
uses every bin, and so does the deviance of `likelihood`, which tells an empty bin from one halo.
Standard errors come from a bootstrap (see `bootstrap`): the bins of a map are correlated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.evaluate.bootstrap import Bootstrap, Float
from streamtrain.generator.bins import ranges_with_bins

Bool = NDArray[np.bool_]
Pair = tuple[float, float]

PERCENTILES = (2.5, 16.0, 50.0, 84.0, 97.5)


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
    """Median of delta."""
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
    same answer for every map. occupied: dN >= 1, same shape as `true`. bin_edges: log10(L/Lsun),
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
    '2.5': what `streamtrain infer` sets an answer against. residual: [num_samples, num_bins]."""
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
