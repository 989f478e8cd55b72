"""The time that a survey spent on its pixels or voxels, or the noise that it says they have, as
sigma of a voxel over that of the map."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamtrain.numerics import portable
from streamtrain.operators.base import MapState
from streamtrain.operators.voxel_files import pixels_digest, read_voxels
from streamtrain.schema import ConfigError, setting

Float = NDArray[np.float64]

MOST = 1e20
"""Larger numbers are no hits, but marks of missing values."""


@dataclass(frozen=True)
class HitsConfig:
    """Time on a field that falls off from its middle as a Gaussian, to nothing beyond a radius."""

    fwhm_deg: float = setting(help="full width at half maximum of the time [deg]", above=0)
    radius_deg: float | None = setting(
        None, "nothing is observed beyond this [deg]; default: all is", above=0
    )


def sigma_of_file(
    hits: str | HitsConfig | None, rms: str | None, state: MapState, where: str, *, in_units: bool
) -> tuple[NDArray[np.float32] | None, str | None, float | None]:
    """Sigma of pixels or voxels over a level, -1 where nothing was observed, and the digest of what
    its file holds; of a map of sigma also the level, that of a voxel with the mean of 1/sigma^2.

    hits, rms: of the section `where`; in_units: whether the level is that of a map of sigma, which
    must then be in the units of the cube.
    """
    if hits is not None:
        seen = read_hits(hits, state, f"{where}.hits")
        return relative_sigma(seen), _digest(seen), None
    if rms is None:
        return None, None, None
    sigma = read_rms(rms, state, f"{where}.rms", in_units)
    weight = np.where(sigma > 0.0, 1.0, 0.0) / np.where(sigma > 0.0, sigma * sigma, 1.0)
    return relative_sigma(weight), _digest(sigma), 1.0 / math.sqrt(mean_of_hit(weight))


def read_hits(path: str | HitsConfig, state: MapState, where: str) -> Float:
    """Hits, or any measure of time, float64 [n_dec, n_ra] or [n_freq, n_dec, n_ra] from a file, see
    `read_voxels`, or by a formula. Raises ConfigError, one sentence that begins with `where`."""
    if isinstance(path, HitsConfig):
        return _hits_by_formula(path, state, where)
    hits = read_voxels(path, "hits", state, where).astype(np.float64)
    if not (np.isfinite(hits).all() and (hits >= 0.0).all() and (hits < MOST).all()):
        raise ConfigError(
            f"{where}: {path} holds hits that are negative, not finite or above {MOST:g}"
        )
    if not hits.any():
        raise ConfigError(f"{where}: {path} holds no pixel that was hit")
    return hits


def _hits_by_formula(config: HitsConfig, state: MapState, where: str) -> Float:
    """exp(-4 ln 2 r^2 / FWHM^2) at the pixels' centres [n_dec, n_ra], r from the field's middle."""
    _, num_dec, num_ra = state.shape
    fov_ra, fov_dec = state.grid.fov_deg
    dec, ra = (
        ((np.arange(num) + 0.5) / num - 0.5) * fov
        for num, fov in ((num_dec, fov_dec), (num_ra, fov_ra))
    )
    square = dec[:, None] * dec[:, None] + ra * ra
    hits = portable.exp2(-4.0 * square / (config.fwhm_deg * config.fwhm_deg))
    if config.radius_deg is not None:
        hits = np.where(square <= config.radius_deg * config.radius_deg, hits, 0.0)
    if not hits.any():
        raise ConfigError(
            f"{where}.radius_deg = {config.radius_deg:g} leaves no pixel of a map of {fov_ra:g} x "
            f"{fov_dec:g} deg"
        )
    return hits


def read_rms(path: str, state: MapState, where: str, in_units: bool) -> Float:
    """Sigma, float64 [n_dec, n_ra] or [n_freq, n_dec, n_ra], from a file, see `read_voxels`, 0 in
    voxels that were not observed: what is not finite, 0 or negative in the file. Raises
    ConfigError, one sentence that begins with `where`."""
    sigma = read_voxels(path, "sigma", state, where, in_units=in_units).astype(np.float64)
    seen = np.isfinite(sigma) & (sigma > 0.0) & (sigma < MOST)
    if not seen.any():
        raise ConfigError(f"{where}: {path} holds no voxel that was observed")
    return np.where(seen, sigma, 0.0)


def mean_of_hit(hits: Float) -> float:
    """The mean of what was hit."""
    hit = hits > 0.0
    return math.fsum(hits[hit].tolist()) / int(hit.sum())  # rounded once: no order of additions


def relative_sigma(hits: Float) -> NDArray[np.float32]:
    """sqrt(mean / hits), the mean being that of the pixels that were hit; -1 for the others."""
    hit = hits > 0.0
    sigma = np.where(hit, np.sqrt(mean_of_hit(hits) / np.where(hit, hits, 1.0)), -1.0)
    return sigma.astype(np.float32)


def _digest(values: Float) -> str:
    """Of pixels as they are, of a cube in float32: regridding rounds differently elsewhere."""
    return pixels_digest(values if values.ndim == 2 else values.astype(np.float32))
