"""How well predicted numbers of halos agree with the true ones, empty bins included.

The Poisson deviance of a count n and a predicted rate r, D = 2 [n ln(n/r) - n + r] [nat], is twice
the logarithm of how much less likely r makes n than the best rate, n itself, would (McCullagh and
Nelder 1989, section 2.3). An empty bin costs 2 r. Its mean is about 1 where r is the true rate and
counts scatter as Poisson's; a relative error e of a large count adds n e^2.

A predicted rate may lie below one halo, where log10 dN of the label cannot follow: 0.3 counts as
0.3. Below `SMALLEST_RATE`, and where it is negative, it counts as `SMALLEST_RATE`, since a single
halo would make an infinite deviance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streamtrain.evaluate.bootstrap import Bootstrap, Float
from streamtrain.generator.bins import ranges_with_bins

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
