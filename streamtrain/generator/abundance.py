"""Luminosities by abundance matching: the heaviest halo is the brightest, and so on down.

The luminosity function of Breysse et al. 2017 (1609.01728),
phi(L) = phi* (L/L*)^a exp(-L/L* - Lmin/L), is integrated to N(>L) and given to the halos of a
lightcone in the order of their mass. Plain float64 throughout, so the bits do not depend on the
machine.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamtrain import portable
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.generator.geometry import DEG, distance_Mpc

PHI_STAR = 8.7e-11
"""[1 / (Lsun Mpc^3)]"""
L_STAR = 2.1e6
SLOPE = -1.87
L_MIN = 500.0
"""[Lsun], as L_STAR."""
LOG10_L = (1.0, 9.0)
STEPS = 4096


def luminosity_function(luminosity: NDArray[np.float64]) -> NDArray[np.float64]:
    """phi(L) [1 / (Lsun Mpc^3)] of luminosities [Lsun]."""
    ratio = luminosity / L_STAR
    power = portable.exp2(SLOPE * portable.log2(ratio))
    return PHI_STAR * power * portable.exp(-ratio - L_MIN / luminosity)


def number_above() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """log10 L [Lsun] and N(>L) [1/Mpc^3] on a grid, by the trapezoidal rule in ln L."""
    step = (LOG10_L[1] - LOG10_L[0]) / STEPS
    log10_l: NDArray[np.float64] = LOG10_L[0] + step * np.arange(STEPS + 1, dtype=np.float64)
    luminosity = portable.exp10(log10_l)
    per_step = luminosity_function(luminosity) * luminosity * (portable.LN2 * portable.LOG2_10)
    areas = 0.5 * step * (per_step[1:] + per_step[:-1])
    above = np.zeros(STEPS + 1)
    above[:-1] = np.add.accumulate(areas[::-1])[::-1]
    return log10_l, above


def volume_Mpc3(lightcone: Lightcone) -> float:
    """Comoving volume between the lightcone's redshifts inside its footprint [Mpc^3]."""
    ra_min, ra_max, dec_min, dec_max = lightcone.footprint_deg
    sines = portable.sincos_deg([dec_min, dec_max])[0]
    area_sr = (ra_max - ra_min) * DEG * float(sines[1] - sines[0])
    c = lightcone.cosmology
    near, far = (distance_Mpc(z, c["Omega_m"], c["h"]) for z in lightcone.z_range)
    return area_sr * (far * far * far - near * near * near) / 3.0


def matched_luminosity(lightcone: Lightcone) -> NDArray[np.float64]:
    """L [Lsun] of every halo [n]; halos beyond the faint end of the luminosity function have 0."""
    log10_l, above = number_above()
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
