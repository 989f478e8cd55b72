"""A luminosity function without a model: L(M) of any shape that published models have.

log10 L is piecewise linear in log10 M, with a power law of 1 + z, log-normal scatter, a duty cycle
and a lower edge of the mass. It belongs to no line: its two priors say how bright CO(1-0) at
COMAP's redshifts and [CII] of reionization may be. What is special in published models has a
probability of its own there: exactly one slope, no scatter, no evolution, all halos shining.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.luminosity.model import LuminosityModel, mean_preserving
from streamtrain.numerics import portable
from streamtrain.numerics.portable import LN10
from streamtrain.priors import (
    Distribution,
    Fixed,
    Normal,
    Parameters,
    Prior,
    Sometimes,
    Uniform,
)

LOG10_PIVOT = 11.8
"""log10 M [Msun] where L is `log10_L`, the middle of the knots."""
LOG10_KNOTS = (11.2, 11.8, 12.4)
"""log10 M [Msun] where the slope may change."""
SLOPES = (-2.0, 6.0)
"""Smallest and largest slope of log10 L in log10 M that the priors allow."""


def _bent(x: Any, slope: Any, bend_1: Any, bend_2: Any, bend_3: Any) -> Any:
    """log10 L over that at the pivot, of x = log10 M - LOG10_PIVOT; plain arithmetic."""
    low, middle, high = (knot - LOG10_PIVOT for knot in LOG10_KNOTS)
    lighter = bend_1 * np.minimum(x - low, 0.0)
    heavier = bend_2 * np.maximum(x - middle, 0.0) + bend_3 * np.maximum(x - high, 0.0)
    return slope * x + lighter - heavier


def freeform(
    mass_Msun: Any,
    z: Any,
    *,
    log10_L: Any = 5.3,
    slope: Any = 1.0,
    bend_1: Any = 0.0,
    bend_2: Any = 0.0,
    bend_3: Any = 0.0,
    g: Any = 0.0,
    tilt: Any = 0.0,
    z_pivot: Any = 2.9,
    log10_Medge: Any = 0.0,
    log10_Mcut: Any = 0.0,
) -> Any:
    """L [Lsun] while a halo shines: 10^log10_L at 10^11.8 Msun and z_pivot, growing with mass as
    M^slope between 10^11.2 and 10^11.8 Msun; the slope falls by bend_1, bend_2 and bend_3 at
    10^11.2, 10^11.8 and 10^12.4 Msun. Times ((1 + z) / (1 + z_pivot))^g, where g grows by `tilt`
    per decade of mass up to 10^11.8 Msun, and exp(-10^log10_Mcut / M); 0 up to 10^log10_Medge
    Msun."""
    log10_mass = np.log10(mass_Msun)
    x = log10_mass - LOG10_PIVOT
    shape = _bent(x, slope, bend_1, bend_2, bend_3)
    power = g + tilt * np.minimum(x, 0.0)
    evolution = power * (np.log10(1 + z) - np.log10(1 + z_pivot))
    cut = 10**log10_Mcut / mass_Msun  # one subtraction of logarithms in the kernel
    luminosity = 10 ** (log10_L + shape + evolution - cut * (1 / LN10))
    return np.where(log10_mass > log10_Medge, luminosity, 0.0)


def freeform_duty(mass_Msun: Any, z: Any, *, duty: Any = 1.0) -> Any:
    """Fraction of halos that shine."""
    return duty


@dataclass(frozen=True)
class Halos:
    """Halos per Mpc^3 and decade of mass by Tinker et al. 2008 (0803.2706) in the cosmology of
    synthesised lightcones, at masses 0.2 dex apart."""

    lightest: float
    """First log10 M [Msun]."""
    number: tuple[float, ...]

    def items(self) -> list[tuple[float, float]]:
        """log10 M [Msun], and the halos per Mpc^3 that stand for it, by the trapezoidal rule."""
        weights = [0.5, *[1.0] * (len(self.number) - 1)]
        return [
            (self.lightest + 0.2 * k, 0.2 * weight * number)
            for k, (weight, number) in enumerate(zip(weights, self.number, strict=True))
        ]


# fmt: off
AT_Z29 = Halos(10.4, (
    0.09393, 0.05828, 0.03576, 0.02164, 0.01288, 0.007516, 0.004278, 0.002363, 0.001258, 0.00064,
    0.0003079, 0.0001382, 5.691e-05, 2.103e-05, 6.779e-06, 1.838e-06, 3.997e-07, 6.542e-08,
    7.407e-09, 5.18e-10, 1.919e-11,
))
"""z = 2.9, the middle of COMAP's band, above its lightcones' 2.5e10 Msun."""
AT_Z6 = Halos(10.0, (
    0.07286, 0.03912, 0.02037, 0.01023, 0.004925, 0.002254, 0.0009711, 0.0003893, 0.0001432,
    4.744e-05, 1.386e-05, 3.472e-06, 7.209e-07, 1.188e-07, 1.472e-08, 1.277e-09, 7.096e-11,
))
"""z = 6, above the 1e10 Msun of lightcones for [CII]."""
# fmt: on


@dataclass(frozen=True)
class Plausible:
    """Whether the mean light of all halos lies between two densities [Lsun/Mpc^3], each slope
    between `SLOPES`, and the luminosity of a halo of 10^13 Msun that shines below a bound; a
    condition on draws.

    The sum over a fixed mass function is within 2 % of the integral for most draws, and knows
    neither lightcone nor redshift: `emit.line.require` does.
    """

    halos: Halos
    low: float
    high: float
    log10_brightest: float
    """Bound of log10 L [Lsun] at 10^13 Msun."""

    def density(self, p: Parameters) -> NDArray[np.float64]:
        """Mean light at the pivot redshift [Lsun/Mpc^3] by B sets of parameters, [B]."""
        bends = [p[name] for name in ("slope", "bend_1", "bend_2", "bend_3")]
        total: Any = 0.0
        for log10_mass, number in self.halos.items():
            cut = portable.exp10(p["log10_Mcut"] - log10_mass) * (1 / LN10)
            log10_L = p["log10_L"] + _bent(log10_mass - LOG10_PIVOT, *bends) - cut
            light = number * portable.exp10(np.clip(log10_L, -300.0, 300.0))
            total = total + np.where(log10_mass > p["log10_Medge"], light, 0.0)
        return p["duty"] * total

    def __call__(self, p: Parameters) -> NDArray[np.bool_]:
        """For which of B sets of parameters it is so, [B]."""
        third = p["slope"] - p["bend_2"]
        slopes = (p["slope"] + p["bend_1"], p["slope"], third, third - p["bend_3"])
        density = self.density(p)
        heavy = _bent(13.0 - LOG10_PIVOT, p["slope"], p["bend_1"], p["bend_2"], p["bend_3"])
        inside = (self.low <= density) & (density <= self.high)
        inside = inside & (p["log10_L"] + heavy <= self.log10_brightest)
        for slope in slopes:
            inside = inside & (SLOPES[0] <= slope) & (slope <= SLOPES[1])
        return inside


_SHAPE: dict[str, Distribution] = {
    "slope": Normal(1.7, 1.3, low=-0.5, high=6.0),
    "bend_1": Sometimes(0.5, 0.0, Normal(0.2, 0.8)),
    "bend_2": Sometimes(0.5, 0.0, Normal(0.8, 1.2)),
    "bend_3": Sometimes(0.5, 0.0, Normal(0.8, 1.5)),
    "sigma": Sometimes(0.1, 0.0, Uniform(0.0, 0.7)),
    "duty": Sometimes(0.85, 1.0, Uniform(0.02, 1.0, log=True)),
}
"""What both priors have in common."""

FREEFORM = LuminosityModel(
    "freeform",
    freeform,
    {
        "log10_L": 5.3,
        "slope": 1.0,
        "bend_1": 0.0,
        "bend_2": 0.0,
        "bend_3": 0.0,
        "sigma": 0.0,
        "duty": 1.0,
        "g": 0.0,
        "tilt": 0.0,
        "z_pivot": 2.9,
        "log10_Medge": 0.0,
        "log10_Mcut": 0.0,
    },
    "a form that holds the published ones, of this package",
    lambda p: mean_preserving(p["sigma"]),
    {
        "co10": Prior(
            {
                "log10_L": Uniform(3.5, 8.0),
                **_SHAPE,
                "g": Sometimes(0.3, 0.0, Normal(0.0, 2.0)),
                "log10_Medge": Sometimes(0.9, 0.0, Uniform(10.0, 11.5)),
            },
            constraint=Plausible(AT_Z29, 50.0, 2e4, 9.0),
        ),
        "cii": Prior(
            {
                "log10_L": Uniform(6.0, 11.0),
                **_SHAPE,
                "g": Sometimes(0.3, 0.0, Normal(0.0, 3.0)),
                "tilt": Sometimes(0.5, 0.0, Normal(0.0, 2.0)),
                "z_pivot": Fixed(6.0),
                "log10_Medge": Sometimes(0.9, 0.0, Uniform(10.0, 11.5)),
                "log10_Mcut": Sometimes(0.7, 0.0, Uniform(10.0, 12.0)),
            },
            constraint=Plausible(AT_Z6, 3e3, 1e6, 11.0),
        ),
    },
    on_fraction=freeform_duty,
    z_range=(0.0, 10.0),
    mass_range_Msun=(0.0, np.inf),
)
"""The model `freeform`."""
