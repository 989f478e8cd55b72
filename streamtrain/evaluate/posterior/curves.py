"""Samples of a function of luminosity: intervals of each value, and bands of the whole function.

Quantiles are whole samples, the smallest value that at least this share does not exceed, so that
numbers of halos stay whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from streamtrain.calibration import depth

Float = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curve:
    """Samples of a function of luminosity."""

    samples: Float
    """A function in each row [num_samples, num_bins]."""
    L_Lsun: Float
    """Where each value belongs [Lsun] [num_bins]: centre of a bin; its lower edge for N(>L)."""
    quantity: str
    """A name of `streamtrain.labels.QUANTITIES`."""

    def quantiles(self, levels: ArrayLike) -> Float:
        """Quantiles of each value by itself [len(levels), num_bins]; levels: from 0 to 1."""
        chances = np.asarray(levels, np.float64)
        if chances.ndim != 1 or not ((chances >= 0.0) & (chances <= 1.0)).all():
            raise ValueError(f"quantiles: levels must be a list of numbers in 0..1, not {chances}")
        return whole_quantiles(self.samples, chances)

    def interval(self, level: float) -> Float:
        """Ends of the central interval of each value by itself [2, num_bins].

        level: the chance that it holds this one value, such as 0.68.
        """
        tail = 0.5 * (1.0 - _level(level))
        return self.quantiles([tail, 1.0 - tail])

    def band(self, level: float) -> Float:
        """Ends of the simultaneous band [2, num_bins]: a function of the posterior lies within it
        everywhere with the chance `level`, such as 0.95.

        It is made of central intervals of each value, all of one level, which is chosen so that the
        share `level` of the samples lie within in every bin, ends included, each looked at with the
        band that the others make. Raises ValueError where there are too few samples for it.
        """
        ends, held = simultaneous_band(self.samples, level)
        if held < level:
            raise ValueError(
                f"a simultaneous {100 * level:g} % band needs more than {len(self.samples)} "
                f"functions: the range of them all holds {100 * held:.1f} % of new ones"
            )
        return ends


def whole_quantiles(samples: Float, levels: ArrayLike) -> Float:
    """The smallest samples [len(levels), ...] that at least these shares of all do not exceed.

    samples: [num_samples, ...]; levels: from 0 to 1, which may be off by a rounding.
    """
    order = np.ceil(np.asarray(levels) * len(samples) - 1e-6).astype(int) - 1
    return np.asarray(np.sort(samples, axis=0)[np.clip(order, 0, len(samples) - 1)])


def simultaneous_band(samples: Float, level: float) -> tuple[Float, float]:
    """The band of `Curve.band` around functions [num_samples, num_bins], its ends [2, num_bins],
    and the share of the functions that lie within the band of the others.

    The share is less than `level` where even the range of all samples holds fewer of new ones.
    """
    num = len(samples)
    ordered = np.sort(samples, axis=0)
    # the band of order m reaches from the m-th lowest to the m-th highest value of each bin; a
    # sample lies within that of the others if it is at least m + 1 deep among all
    others = np.sort(depth(samples[:, None])[:, 0]) - 1
    order = max(1, int(others[int((1.0 - _level(level)) * num + 1e-9)]))
    return np.stack([ordered[order - 1], ordered[num - order]]), float((others >= order).mean())


def _level(level: float) -> float:
    if not 0.0 < level < 1.0:
        raise ValueError(f"level = {level} must lie between 0 and 1, such as 0.68 or 0.95")
    return level
