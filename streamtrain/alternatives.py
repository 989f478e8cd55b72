"""What one would write without streamtrain, for the benchmark: the same sample, other ways.

`numpy_user`: float32 NumPy with bincount, everything cached that does not change between samples.
`limlam_pipeline`: the steps of limlam_mocker and intensitymap_cnn (1905.10376) in their order, with
NumPy's histogramdd into the full 256 x 256 x 100 cube, a luminosity table, pooling and noise. Both
are written from the published description; neither shares code with the kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RegularGridInterpolator
from scipy.ndimage import gaussian_filter

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.generator.geometry import K_UK, Grid
from streamtrain.generator.sfr import log10_sfr

DRAWS = {"delta": (0.0, 0.03), "alpha": (1.37, 0.037), "beta": (-1.74, 0.374)}


@dataclass(frozen=True)
class Alternative:
    """A way to make one sample; `make(number)` returns the cube and the counts."""

    name: str
    make: Callable[[int], tuple[NDArray[np.floating], NDArray[np.integer]]]


def numpy_user(lightcone: Lightcone, grid: Grid, min_mass_Msun: float) -> Alternative:
    """Careful float32 NumPy: roll, project, Li+16 with scatter, bincount into the coarse cube."""
    kept = (grid.channel(lightcone.z_obs) >= 0) & (lightcone.mass_Msun > min_mass_Msun)
    x, y, z = (getattr(lightcone, f"{a}_Mpc")[kept] for a in "xyz")
    channel = grid.channel(lightcone.z_obs)[kept].astype(np.int32)
    log_sfr = log10_sfr(lightcone.mass_Msun, lightcone.z_obs)[kept].astype(np.float32)
    chi2 = x * x + y * y + z * z
    inverse_chi = 1.0 / np.sqrt(chi2)
    factor = (grid.intensity_factor / chi2).astype(np.float32)
    freq, dec_pixels, ra_pixels = grid.shape
    half_ra, half_dec = (np.float32(np.radians(side) / 2) for side in grid.fov_deg)
    edges = np.linspace(3.5, 7.0, 50)

    def make(number: int) -> tuple[NDArray[np.floating], NDArray[np.integer]]:
        rng = np.random.default_rng(number)
        angle = np.float32(rng.uniform(0, 2 * np.pi))
        cosine, sine = np.cos(angle), np.sin(angle)
        delta, alpha, beta = (np.float32(rng.normal(*d)) for d in DRAWS.values())
        ra = np.arctan2(-(cosine * x - sine * y), z)
        dec = np.arcsin((sine * x + cosine * y) * inverse_chi)
        inside = (np.abs(ra) < half_ra) & (np.abs(dec) < half_dec)
        ra, dec = ra[inside], dec[inside]
        log_l = ((log_sfr[inside] + 10 - delta) - beta) / alpha + np.float32(np.log10(4.9e-5))
        scatter = rng.standard_normal(len(log_l), np.float32)
        log_l = log_l + (scatter * np.float32(0.37) - np.float32(0.13))
        column = ((ra + half_ra) * (ra_pixels / (2 * half_ra))).astype(np.int32)
        row = ((dec + half_dec) * (dec_pixels / (2 * half_dec))).astype(np.int32)
        column, row = np.minimum(column, ra_pixels - 1), np.minimum(row, dec_pixels - 1)
        voxel = (channel[inside] * dec_pixels + row) * ra_pixels + column
        weight = factor[inside] * np.float32(10) ** log_l
        painted = np.bincount(voxel, weight, freq * dec_pixels * ra_pixels)
        number_per_bin = ((log_l - 3.5) * (49 / 3.5)).astype(np.int32)
        good = (log_l >= edges[0]) & (log_l < edges[-1])
        counts = np.bincount(number_per_bin[good], minlength=49)[:49]
        noise = rng.standard_normal(grid.shape, np.float32)
        cube = painted.reshape(grid.shape).astype(np.float32) + noise
        return np.sign(cube) * np.log10(np.abs(cube) + 1), counts

    return Alternative("NumPy float32, bincount", make)


def limlam_pipeline(lightcone: Lightcone, grid: Grid, min_mass_Msun: float) -> Alternative:
    """limlam_mocker's order of work on one field, then the seed project's pooling and noise.

    The field is cut around the lightcone's axis; the cube is the fine one (4 x 4 x 10 finer than
    `grid` where that is 64 x 64 x 10), summed down afterwards.
    """
    pooling = (10, 4, 4)
    freq, dec_pixels, ra_pixels = (n * p for n, p in zip(grid.shape, pooling, strict=True))
    log_mass, redshift = np.linspace(10.0, 15.0, 101), np.linspace(2.0, 4.0, 101)
    mesh = np.meshgrid(log_mass, redshift, indexing="ij")
    rates = 10 ** log10_sfr(10 ** mesh[0], mesh[1])
    table = RegularGridInterpolator((log_mass, redshift), rates, bounds_error=False, fill_value=0)
    cone = lightcone
    positions = [np.asarray(a, np.float64) for a in (cone.x_Mpc, cone.y_Mpc, cone.z_Mpc)]
    low, high = grid.z_range

    def make(number: int) -> tuple[NDArray[np.floating], NDArray[np.integer]]:
        rng = np.random.default_rng(number)
        angle = rng.uniform(0, 2 * np.pi)
        x = np.cos(angle) * positions[0] - np.sin(angle) * positions[1]
        y = np.sin(angle) * positions[0] + np.cos(angle) * positions[1]
        z = positions[2]
        chi = np.sqrt(x**2 + y**2 + z**2)
        ra, dec = np.degrees(np.arctan2(-x, z)), np.degrees(np.arcsin(y / chi))
        keep = (cone.mass_Msun > min_mass_Msun) & (cone.z_obs >= low) & (cone.z_obs <= high)
        keep &= (np.abs(ra) <= grid.fov_deg[0] / 2) & (np.abs(dec) <= grid.fov_deg[1] / 2)
        ra, dec, chi = ra[keep], dec[keep], chi[keep]
        mass, z_obs = cone.mass_Msun[keep].astype(np.float64), cone.z_obs[keep].astype(np.float64)
        delta, alpha, beta = (rng.normal(*d) for d in DRAWS.values())
        sfr = table(np.stack([np.log10(mass), z_obs], axis=-1))
        sfr *= rng.lognormal(-0.5 * (2.302585 * 0.3) ** 2, 2.302585 * 0.3, len(sfr))
        infrared = sfr * 1e10 / 10**delta
        luminosity = 4.9e-5 * (infrared * 10**-beta) ** (1 / alpha)
        luminosity *= rng.lognormal(-0.5 * (2.302585 * 0.3) ** 2, 2.302585 * 0.3, len(sfr))
        counts, _ = np.histogram(luminosity, np.logspace(3.5, 7, 50))
        nu = grid.nu_rest_GHz / (1 + z_obs)
        dnu = grid.dnu_GHz / pooling[0]
        pixel = grid.pixel_sr / (pooling[1] * pooling[2])
        weight = K_UK / 2 / nu**2 * luminosity
        weight /= 4 * np.pi * chi**2 * (1 + z_obs) ** 2 * dnu * pixel
        cube, _ = np.histogramdd(
            (ra, dec, nu),
            (
                np.linspace(-grid.fov_deg[0] / 2, grid.fov_deg[0] / 2, ra_pixels + 1),
                np.linspace(-grid.fov_deg[1] / 2, grid.fov_deg[1] / 2, dec_pixels + 1),
                np.linspace(grid.nu_GHz[1], grid.nu_GHz[0], freq + 1),
            ),
            weights=weight,
        )
        pooled = cube.reshape(ra_pixels // 4, 4, dec_pixels // 4, 4, freq // 10, 10).sum((1, 3, 5))
        pooled += rng.normal(0, np.sqrt(160) * 3.47, pooled.shape)
        pooled = np.sign(pooled) * np.log10(np.abs(pooled) + 1)
        return gaussian_filter(pooled, (3 / 2.355, 3 / 2.355, 0)), counts

    return Alternative("limlam_mocker's pipeline, histogramdd", make)
