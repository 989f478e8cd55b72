"""What one would write instead of the kernels, for `streamtrain bench --alternatives`.

Each makes a sample as its users would have to: another pose and other random numbers every time,
nothing cached that depends on them. What does not depend on them is computed once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RectBivariateSpline
from scipy.ndimage import gaussian_filter

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.sfr import log10_sfr
from streamtrain.grid import K_UK, Grid

DRAWS = {"delta": (0.0, 0.03), "alpha": (1.37, 0.037), "beta": (-1.74, 0.374)}


@dataclass(frozen=True)
class Alternative:
    """A way to make `batch` samples at a time; `make(number)` returns the cubes and the counts, on
    the device that has made them."""

    name: str
    make: Callable[[int], tuple[Any, Any]]
    batch: int = 1


def kept(lightcone: Lightcone, grid: Grid, min_mass_Msun: float) -> tuple[list[Any], Any, Any]:
    """Positions, log10 SFR and channel of the halos that can be painted: in the band, above the
    mass cut, and in the circle that the field fills as it turns about the lightcone's axis."""
    channel = grid.channel(lightcone.z_obs)
    some = (channel >= 0) & (lightcone.mass_Msun > min_mass_Msun)
    radius = np.tan(np.radians(np.hypot(*grid.fov_deg) / 2) * 1.001)
    some &= lightcone.x_Mpc**2 + lightcone.y_Mpc**2 < (radius * lightcone.z_Mpc) ** 2
    positions = [np.ascontiguousarray(getattr(lightcone, f"{a}_Mpc")[some]) for a in "xyz"]
    log_sfr = log10_sfr(lightcone.mass_Msun, lightcone.z_obs)[some].astype(np.float32)
    return positions, log_sfr, channel[some].astype(np.int32)


def numpy_user(lightcone: Lightcone, grid: Grid, min_mass_Msun: float) -> Alternative:
    """Careful float32 NumPy: roll, project, Li+16 with scatter, bincount into the coarse cube."""
    (x, y, z), log_sfr, channel = kept(lightcone, grid, min_mass_Msun)
    chi2 = x * x + y * y + z * z
    inverse_chi, factor = 1.0 / np.sqrt(chi2), (grid.intensity_factor / chi2).astype(np.float32)
    freq, dec_pixels, ra_pixels = grid.shape
    half_ra, half_dec = (np.float32(np.radians(side) / 2) for side in grid.fov_deg)

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
        good = (log_l >= 3.5) & (log_l < 7.0)
        counts = np.bincount(number_per_bin[good], minlength=49)[:49]
        noise = rng.standard_normal(grid.shape, np.float32)
        cube = painted.reshape(grid.shape).astype(np.float32) + noise
        return np.sign(cube) * np.log10(np.abs(cube) + 1), counts

    return Alternative("NumPy float32, bincount", make)


def limlam_pipeline(lightcone: Lightcone, grid: Grid, min_mass_Msun: float) -> Alternative:
    """limlam_mocker's order of work on one field in float64, then the seed project's pooling,
    foreground, noise and smoothing.

    The field is cut around the lightcone's axis beforehand, as the seed project cuts its fields
    into files; reading them is left out. The cube is the fine one (4 x 4 x 10 finer than `grid`
    where that is 64 x 64 x 10), summed down afterwards. Its rates come from a bilinear spline over
    log10 M and log10 (1 + z), all columns of its catalogue go through the cut, and bright halos are
    counted after a copy without dark ones, as there.
    """
    pooling = (10, 4, 4)
    freq, dec_pixels, ra_pixels = (n * p for n, p in zip(grid.shape, pooling, strict=True))
    log_mass, log_1pz = np.linspace(10.0, 15.0, 101), np.linspace(0.4, 0.7, 101)
    mesh = np.meshgrid(log_mass, log_1pz, indexing="ij")
    rates = 10 ** log10_sfr(10 ** mesh[0], 10 ** mesh[1] - 1.0)
    table = RectBivariateSpline(log_mass, log_1pz, rates, kx=1, ky=1)
    catalogue = _catalogue(lightcone, grid)
    low, high = grid.z_range
    edges = (
        np.linspace(-grid.fov_deg[0] / 2, grid.fov_deg[0] / 2, ra_pixels + 1),
        np.linspace(-grid.fov_deg[1] / 2, grid.fov_deg[1] / 2, dec_pixels + 1),
        np.linspace(grid.nu_GHz[1], grid.nu_GHz[0], freq + 1),
    )
    sigma = 0.3 * 2.302585

    def scattered(rng: np.random.Generator, data: Any) -> Any:
        factor = rng.lognormal(-0.5 * sigma**2, sigma, data.shape)
        return np.where(data > 0, data * factor, data)

    def make(number: int) -> tuple[NDArray[np.floating], NDArray[np.integer]]:
        rng = np.random.default_rng(number)
        halos = dict(catalogue)
        x, y, z = halos["x"], halos["y"], halos["z"]
        halos["chi"] = np.sqrt(x**2 + y**2 + z**2)
        halos["ra"] = np.arctan2(-x, z) * 180.0 / np.pi
        halos["dec"] = np.arcsin(y / halos["chi"]) * 180.0 / np.pi
        keep = (halos["mass"] > min_mass_Msun) * (halos["redshift"] >= low)
        keep = keep * (np.abs(halos["ra"]) <= grid.fov_deg[0] / 2)
        keep = keep * (np.abs(halos["dec"]) <= grid.fov_deg[1] / 2) * (halos["redshift"] <= high)
        halos = {name: column[keep] for name, column in halos.items()}
        delta, alpha, beta = (rng.normal(*d) for d in DRAWS.values())
        sfr = table.ev(np.log10(halos["mass"]), np.log10(halos["redshift"] + 1))
        infrared = scattered(rng, sfr) * 1e10 / 10**delta
        luminosity = scattered(rng, 4.9e-5 * infrared ** (1 / alpha) * 10 ** (-beta / alpha))
        shining = np.delete(luminosity, np.argwhere(luminosity == 0.0))
        counts, _ = np.histogram(shining, bins=np.logspace(3.5, 7, 50))
        nu = grid.nu_rest_GHz / (halos["redshift"] + 1)
        weight = K_UK / 2 / nu**2 * luminosity / 4 / np.pi / halos["chi"] ** 2
        weight = weight / (1 + halos["redshift"]) ** 2 / (grid.dnu_GHz / pooling[0])
        weight = weight / (grid.pixel_sr / (pooling[1] * pooling[2]))
        where = np.c_[halos["ra"], halos["dec"], nu]
        cube, _ = np.histogramdd(where, bins=edges, weights=weight)
        return _contaminated(rng, cube[:, :, ::-1], grid, pooling), counts

    return Alternative("limlam_mocker's pipeline, histogramdd", make)


def _catalogue(lightcone: Lightcone, grid: Grid) -> dict[str, NDArray[np.float64]]:
    """The columns of limlam_mocker's catalogue of one field: of all halos around it by 1 %."""
    limits = [np.tan(np.radians(0.505 * side)) for side in grid.fov_deg]
    inside = np.abs(lightcone.x_Mpc) < limits[0] * lightcone.z_Mpc
    inside &= np.abs(lightcone.y_Mpc) < limits[1] * lightcone.z_Mpc
    found = {
        "mass": lightcone.mass_Msun,
        "x": lightcone.x_Mpc,
        "y": lightcone.y_Mpc,
        "z": lightcone.z_Mpc,
        "redshift": lightcone.z_obs,
    }
    columns = {name: a[inside].astype(np.float64) for name, a in found.items()}
    for name in ("vx", "vy", "vz", "formation"):
        columns[name] = np.zeros(len(columns["x"]))
    return columns


def _contaminated(
    rng: np.random.Generator, cube: Any, grid: Grid, pooling: tuple[int, int, int]
) -> Any:
    """The seed project's input from a fine cube (ra, dec, frequency): summed, with sources and
    noise, logarithmic, smoothed."""
    ra, dec, freq = (n // p for n, p in zip(cube.shape, pooling[::-1], strict=True))
    pooled = cube.reshape(ra, pooling[2], dec, pooling[1], freq, pooling[0]).sum((1, 3, 5))
    flux = np.logspace(0.0, 2.5, 1001)
    middle, weight = 0.5 * (flux[1:] + flux[:-1]), np.diff(flux) * flux[:-1] ** -2.18
    area_deg2 = grid.fov_deg[0] * grid.fov_deg[1]
    number = rng.poisson(32.1 * area_deg2 / (ra * dec), (ra, dec))
    nu = np.linspace(grid.nu_GHz[0], grid.nu_GHz[1], freq * pooling[0])
    per_mJy = 0.03255 / (nu**2 * grid.pixel_sr)  # c^2 / (2 k nu^2 Omega), [uK / mJy]
    for place in np.argwhere(number):
        many = number[tuple(place)]
        strength = rng.choice(middle, many, p=weight / weight.sum())
        index = rng.normal(0.39, 0.33, many)
        spectrum = (strength * (nu[:, None] / 31.0) ** -index).sum(axis=1) * per_mJy
        pooled[tuple(place)] += spectrum.reshape(freq, pooling[0]).sum(axis=1)
    pooled += rng.normal(0, np.sqrt(160) * 3.47, pooled.shape)
    logarithm = np.sign(pooled) * np.log10(np.abs(pooled) + 1)
    return gaussian_filter(logarithm, (3 / 2.355, 3 / 2.355, 0))
