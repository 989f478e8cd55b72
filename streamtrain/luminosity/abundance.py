"""Luminosities by abundance matching: the heaviest halo is the brightest, and so on down.

The luminosity function of Breysse et al. 2017 (1609.01728),
phi(L) = phi* (L/L*)^a exp(-L/L* - Lmin/L), is integrated to N(>L) and given to the halos of a
lightcone in the order of their mass. Plain float64 throughout, so the bits do not depend on the
machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.grid import DEG, distance_Mpc
from streamtrain.numerics import portable

L_STAR = 2.1e6
SLOPE = -1.87
LOG10_L = (1.0, 9.0)
STEPS = 4096


@dataclass(frozen=True)
class FaintEnd:
    """What differs between the published luminosity function and its author's later one."""

    phi_star: float
    """Normalisation of the luminosity function [1 / (Lsun Mpc^3)]."""
    l_min: float
    """Lowest luminosity [Lsun], in the units of L_STAR."""


PUBLISHED = FaintEnd(8.7e-11, 500.0)
"""1609.01728: 0.283 sources per Mpc^3, seven times the halos above 2.5e10 Msun at z = 2.9."""
LATER = FaintEnd(9.6e-11, 5000.0)
"""Parameters of P. Breysse's code lim: 0.041 sources per Mpc^3, about as many as those halos."""
FUNCTIONS = {"abundance_matched_L": PUBLISHED, "abundance_matched_L_lim": LATER}
"""Luminosity function that each column of a lightcone is made with."""


def luminosity_function(
    luminosity: NDArray[np.float64], faint_end: FaintEnd = PUBLISHED
) -> NDArray[np.float64]:
    """phi(L) [1 / (Lsun Mpc^3)] of luminosities [Lsun]."""
    ratio = luminosity / L_STAR
    power = portable.exp2(SLOPE * portable.log2(ratio))
    return faint_end.phi_star * power * portable.exp(-ratio - faint_end.l_min / luminosity)


def number_above(
    faint_end: FaintEnd = PUBLISHED, power: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """log10 L [Lsun] and N(>L) [1/Mpc^3] on a grid, by the trapezoidal rule in ln L; with `power` 1
    the light of those sources [Lsun/Mpc^3]."""
    step = (LOG10_L[1] - LOG10_L[0]) / STEPS
    log10_l: NDArray[np.float64] = LOG10_L[0] + step * np.arange(STEPS + 1, dtype=np.float64)
    luminosity = portable.exp10(log10_l)
    phi = luminosity_function(luminosity, faint_end)
    per_step = phi * luminosity * (portable.LN2 * portable.LOG2_10)
    if power:
        per_step = per_step * luminosity
    areas = 0.5 * step * (per_step[1:] + per_step[:-1])
    above = np.zeros(STEPS + 1)
    above[:-1] = np.add.accumulate(areas[::-1])[::-1]
    return log10_l, above


def matched_share(density: float, faint_end: FaintEnd = PUBLISHED) -> tuple[float, float]:
    """The faintest luminosity [Lsun] that so many halos per Mpc^3 have when they are matched, and
    their share of the luminosity function's light."""
    log10_l, above = number_above(faint_end)
    light = number_above(faint_end, 1)[1]
    faintest = float(np.interp(-density, -above, log10_l))
    return 10.0**faintest, float(np.interp(faintest, log10_l, light) / light[0])


def volume_Mpc3(lightcone: Lightcone) -> float:
    """Comoving volume between the lightcone's redshifts inside its footprint [Mpc^3]."""
    ra_min, ra_max, dec_min, dec_max = lightcone.footprint_deg
    sines = portable.sincos_deg([dec_min, dec_max])[0]
    area_sr = (ra_max - ra_min) * DEG * float(sines[1] - sines[0])
    c = lightcone.cosmology
    near, far = (distance_Mpc(z, c["Omega_m"], c["h"]) for z in lightcone.z_range)
    return area_sr * (far * far * far - near * near * near) / 3.0


def matched_luminosity(
    lightcone: Lightcone, faint_end: FaintEnd = PUBLISHED
) -> NDArray[np.float64]:
    """L [Lsun] of every halo [n]; halos beyond the faint end of the luminosity function have 0."""
    log10_l, above = number_above(faint_end)
    order = np.argsort(-lightcone.mass_Msun.astype(np.float64), kind="stable")
    rank = np.empty(len(order))
    rank[order] = np.arange(len(order))
    volume = volume_Mpc3(lightcone)
    if not volume > 0.0:
        raise ValueError(
            f"{lightcone.name} has no volume, so no abundance of halos: its footprint is "
            f"{lightcone.footprint_deg} deg, its redshifts are {lightcone.z_range}"
        )
    density = (rank + 0.5) / volume
    falling = above[:-1]
    cell = np.clip(len(falling) - np.searchsorted(falling[::-1], density), 1, len(falling) - 1)
    log_above = portable.log2(falling)
    share = (portable.log2(density) - log_above[cell - 1]) / (log_above[cell] - log_above[cell - 1])
    found = log10_l[cell - 1] + share * (log10_l[cell] - log10_l[cell - 1])
    luminosity = portable.exp10(np.minimum(found, LOG10_L[1]))
    return np.where(density < falling[0], luminosity, 0.0)
