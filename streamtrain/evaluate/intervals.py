"""Whether the uncertainties that a network predicts are right: coverage and sharpness.

A head that predicts a distribution gives quantiles of the label. Coverage is the share of bins in
which the truth lies between two of them, ends included: 0.68 and 0.95 for an honest network.
Sharpness is the mean width of the interval [dex]: of two honest networks the sharper knows more.
Numbers of a few halos are discrete, so their intervals cover more than 0.68 and 0.95, and, as in
the label, no halo and one halo are one value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streamtrain.evaluate.bootstrap import Bootstrap, Float
from streamtrain.generator.bins import ranges_with_bins

LEVELS = (0.025, 0.16, 0.84, 0.975)
"""Probabilities of the quantiles."""
TOLERANCE_DEX = 1e-6
"""Labels are float32; a truth this far outside an interval lies on its end."""


@dataclass(frozen=True)
class RangeIntervals:
    """Coverage and sharpness in one luminosity range, over all bins and maps."""

    log10_L: tuple[float, float]
    coverage_68: float
    coverage_68_error: float | None
    coverage_95: float
    coverage_95_error: float | None
    width_68: float
    """Mean distance of the 16th and 84th percentile of log10 dN [dex]."""
    width_68_error: float | None
    width_95: float
    """Likewise of the 2.5th and 97.5th."""
    width_95_error: float | None


@dataclass(frozen=True)
class IntervalScore:
    """Of one network."""

    ranges: list[RangeIntervals]
    whole: RangeIntervals


def score_intervals(
    quantiles: Float, true: Float, bin_edges: Float, bootstrap: Bootstrap
) -> IntervalScore:
    """Coverage and sharpness of predicted quantiles.

    quantiles: of log10 dN at `LEVELS` [4, num_samples, num_bins]; true: [num_samples, num_bins].
    """
    low95, low68, high68, high95 = quantiles
    made = [
        ((low - TOLERANCE_DEX <= true) & (true <= high + TOLERANCE_DEX), high - low)
        for low, high in ((low68, high68), (low95, high95))
    ]

    def of(bounds: tuple[float, float], inside: np.ndarray) -> RangeIntervals:
        numbers = []
        for covered, width in made:
            for values in (covered, width):
                per_map = values[:, inside].mean(axis=1)
                numbers.append((float(per_map.mean()), bootstrap.mean(per_map)))
        (c68, e68), (w68, f68), (c95, e95), (w95, f95) = numbers
        return RangeIntervals(bounds, c68, e68, c95, e95, w68, f68, w95, f95)

    everything = np.ones(true.shape[1], bool)
    return IntervalScore(
        [of(bounds, inside) for bounds, inside in ranges_with_bins(bin_edges)],
        of((float(bin_edges[0]), float(bin_edges[-1])), everything),
    )
