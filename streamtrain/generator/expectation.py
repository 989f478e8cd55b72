"""What a luminosity model makes of some halos: whether they fit into a cube, and what a field is
expected to hold.

It is said once for both that draw samples: of arrays, which NumPy works out, and of symbols, which
become the formulas of a kernel (see `recorder`), with the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from streamtrain.luminosity.settings import RequireConfig
from streamtrain.numerics import portable

SAFE_SIGMA = 6.0
"""Scatter that a drawn model must leave room for; one halo in 1e9 is brighter."""
WIDE_SIGMA_DEX = 0.5
"""Scatter assumed for that where it depends on the halo."""
SMALLEST_SIGMA = 1e-6
"""Scatter of log2 L that stands for none."""
LARGEST = float(np.finfo(np.float64).max)


@dataclass(frozen=True)
class Expectation:
    """What a field is expected to hold, to a few per cent; float64 [B] each."""

    mean: Any
    """Mean of the map [map units of the grid]."""
    inside: Any
    """Halos among the label's luminosities."""
    below: Any
    """Fainter halos, those that do not shine included."""
    above: Any
    """Expected number of halos brighter than the label's luminosities."""

    def enough(self, require: RequireConfig) -> Any:
        """Whether that is what `emit.line.require` asks for, which asks for something, [B]."""
        asked = ((require.mean_uK, self.mean), (require.halos, self.inside))
        return reduce(
            np.minimum,
            [np.minimum(b[0] <= value, value <= b[1]) for b, value in asked if b is not None],
        )


class OfHalos:
    """How what belongs to samples, [B], and to their halos, [B, n], come together: of arrays."""

    def beside(self, value: Any) -> Any:
        """A value of each sample, beside those of its halos."""
        return value[:, None]

    def every(self, holds: Any) -> Any:
        """Whether something holds of every halo of a sample."""
        return np.asarray(holds.all(axis=-1))

    def total(self, values: Any) -> Any:
        """Sums over halos, one term after the other: the same bits on every machine."""
        return np.asarray(np.add.accumulate(values, axis=-1)[..., -1])


@dataclass(frozen=True)
class Shine:
    """How a model lights some halos."""

    output: Callable[[str], Any]
    """What the model's functions return, [B, n], by the names of `Traced.outputs`; None for a
    function that the model does not have."""
    sigma: Any
    """Scatter of log2 L, see `LuminosityModel.log2_scatter` [B],"""
    mu: Any
    """and what is added to log2 L."""
    halos: OfHalos

    def log2_l(self) -> tuple[Any, Any]:
        """Middle and standard deviation of the log2 L [Lsun] of each halo."""
        sigma, mu = self.halos.beside(self.sigma), self.halos.beside(self.mu)
        width = self.output("sigma")
        if width is not None:
            sigma, mu = sigma * width, mu * width * width
        return _log2(self.output("luminosity")) + mu, sigma

    def shining(self, weights: Any) -> Any:
        """How many halos shine, of those that each stands for [n]."""
        share = self.output("on_fraction")
        return weights if share is None else weights * np.clip(share, 0.0, 1.0)

    def fits(self, log2_limit: Any, varies: bool) -> Any:
        """Whether log2 L of every halo stays below its limit [n], `SAFE_SIGMA` of scatter included,
        and neither scatter nor luminosity is negative, [B]. varies: whether the scatter depends on
        the halo."""
        room = SAFE_SIGMA * (WIDE_SIGMA_DEX * portable.LOG2_10)
        if not varies:
            room = self.halos.beside(SAFE_SIGMA * self.sigma + self.mu)
        luminosity = self.output("luminosity")
        bright = np.minimum(_log2(luminosity) + room < log2_limit, luminosity >= 0.0)
        possible = np.minimum(self.sigma >= 0.0, self.sigma <= LARGEST)
        return np.minimum(possible, self.halos.every(bright))

    def expected(
        self, weights: Any, intensity: Any, log2_range: tuple[float, float], num_voxels: int
    ) -> Expectation:
        """What a field is expected to hold of halos that stand for `weights` of it each [n].

        intensity: map units per Lsun in a voxel [n]; log2_range: first and last edge of the label.
        """
        centre, sigma = self.log2_l()
        shining, total = self.shining(weights), self.halos.total
        bent = centre + 0.5 * portable.LN2 * sigma * sigma
        boost: Any = portable.exp2(np.clip(bent, -1000.0, 1000.0))
        low, high = log2_range
        narrow = np.maximum(sigma, SMALLEST_SIGMA)
        fainter: Any = portable.normal_cdf((low - centre) / narrow)
        brighter: Any = portable.normal_cdf((centre - high) / narrow)
        inside, above = total(shining * (1.0 - fainter - brighter)), total(shining * brighter)
        below = np.maximum(total(weights) - inside - above, 0.0)
        return Expectation(total(shining * boost * intensity) / num_voxels, inside, below, above)


def _log2(luminosity: Any) -> Any:
    with np.errstate(all="ignore"):
        return portable.log2(luminosity)
