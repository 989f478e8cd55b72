"""Widths of halos' emission lines, in channels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.cosmology import C_KMS
from streamtrain.generator.halos import Halos
from streamtrain.luminosity.modifiers import LineWidthConfig
from streamtrain.numerics import portable
from streamtrain.operators.beam import FWHM_PER_SIGMA

NOT_PAINTED = -1e9
"""Place along the frequency axis of a halo below the mass cut."""

WIDEST_REACH = 4.0 * 2.0 / np.sqrt(3.0)
"""Standard deviations from its centre to which the kernel spreads a line: REACH, of discs that are
seen edge-on."""


def virial_velocity_kms(lightcone: Lightcone) -> NDArray[np.float64]:
    """v = 35 km/s (M / 1e10 Msun)^(1/3) (H(z) / 100 km/s/Mpc)^(1/3) of every halo [n] (Chung et al.
    2021, 2104.11171), the full width of its line at half maximum."""
    c = lightcone.cosmology
    a = 1.0 + lightcone.z_obs.astype(np.float64)
    hubble = c["h"] * np.sqrt(c["Omega_m"] * (a * a * a) + (1.0 - c["Omega_m"]))
    mass = lightcone.mass_Msun.astype(np.float64) / 1e10
    return 35.0 * portable.exp2(portable.log2(mass * hubble) / 3.0)


def line_columns(halos: Halos, config: LineWidthConfig) -> list[NDArray[np.float32]]:
    """Place of every halo along the frequency axis, and log2 of the standard deviation of its line,
    both in channels of the cube, float32 [num_rows] each."""
    grid = halos.grid
    width_GHz = grid.dnu_GHz * halos.join

    def frequency(lightcone: Lightcone) -> NDArray[np.float64]:
        return grid.nu_rest_GHz / (1.0 + lightcone.z_obs.astype(np.float64))

    def place(lightcone: Lightcone) -> NDArray[np.float64]:
        heavy = lightcone.mass_Msun.astype(np.float64) > halos.min_mass_Msun
        along = (grid.nu_GHz[0] - frequency(lightcone)) / width_GHz
        return np.where(heavy, along, NOT_PAINTED)

    def log2_sigma(lightcone: Lightcone) -> NDArray[np.float64]:
        fwhm = config.factor * virial_velocity_kms(lightcone) / C_KMS * frequency(lightcone)
        return portable.log2(fwhm / FWHM_PER_SIGMA / width_GHz)

    return [halos.bank.gather(place), halos.bank.gather(log2_sigma)]


def within_reach(halos: Halos, columns: list[NDArray[np.float32]]) -> NDArray[np.bool_]:
    """Halos whose lines may reach into the band, those beside it among them, bool [num_rows].

    columns: see `line_columns`.
    """
    place = columns[0].astype(np.float64)
    reach = WIDEST_REACH * portable.exp2(columns[1]) + 1.0
    channels = halos.grid.shape[0] // halos.join
    inside = (place + reach >= 0.0) & (place - reach <= channels)
    return inside & (columns[0] != np.float32(NOT_PAINTED))
