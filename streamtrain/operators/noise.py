"""White noise: of one level, or with a level per pixel.

Noise that rises to the edges of the map, the "geometric" noise of 1905.10376.

Hit maps: how long every pixel of a map was looked at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from streamtrain.grid import DEG
from streamtrain.numerics import portable
from streamtrain.numerics.backend import Kernels
from streamtrain.numerics.rng import Draws
from streamtrain.operators.base import Drawn, MapState, Shape, Table
from streamtrain.operators.mask import pixels_digest, read_pixels
from streamtrain.operators.settings import EdgeNoiseConfig, NoiseConfig, RadiometerConfig, VoxelSize
from streamtrain.schema import ConfigError

COMAP_SIGMA_UK = 11.0
"""Noise of a COMAP voxel of 4 arcmin and 15.6 MHz (Ihle et al. 2019, 1808.07487)."""


@dataclass
class Noise:
    """White Gaussian noise of fixed or drawn level.

    With a hit map sigma goes as 1 / sqrt(hits), and is the given one where a pixel has the mean of
    the pixels that were hit; the others become 0, in samples without noise too. With an index it
    goes as that power of frequency.
    """

    name: str
    stage: int
    sigma: tuple[float, float]
    """Lowest and highest sigma [map units] per voxel as it was quoted."""
    factor: float
    """From the quoted voxel to the voxel of the cube at this point."""
    absent: float
    pixels: Table | None = None
    """Sigma of a pixel over that of the sample, float32 [n_dec, n_ra]; -1 where it was not hit."""
    digest: str | None = None
    """Of the hit map."""
    voxels: Table | None = None
    """The same of every voxel [n_freq, n_dec, n_ra], where sigma depends on frequency."""

    @classmethod
    def from_config(cls, name: str, stage: int, config: NoiseConfig, state: MapState) -> Noise:
        """The operator where the map is in `state`. Raises ConfigError."""
        given = COMAP_SIGMA_UK if config.sigma_uK is None else config.sigma_uK
        factor = noise_factor(config.per, state)
        if config.radiometer is not None:
            if state.grid.units != "uK":
                raise ConfigError(
                    f"observe.{name}.radiometer gives uK, but grid.units = {state.grid.units}"
                )
            given, factor = radiometer_uK(config.radiometer, state), state.weight
        levels = given if isinstance(given, tuple) else (given, given)
        pixels, digest, voxels = None, None, None
        if config.hits is not None:
            hits = read_hits(config.hits, state, f"observe.{name}.hits")
            pixels, digest = Table(relative_sigma(hits)), pixels_digest(hits)
        if config.index != 0.0:
            of_pixel = np.ones(state.shape[1:], np.float32) if pixels is None else pixels.values
            voxels = Table(_of_channel(config, state)[:, None, None] * of_pixel)
        return cls(name, stage, levels, factor, config.absent, pixels, digest, voxels)

    def draw(self, draws: Draws) -> Drawn:
        sigma = draw_level(draws, self.sigma, self.absent)
        return {
            "sigma_uK": sigma.astype(np.float32),
            "voxel_sigma": (sigma * self.factor).astype(np.float32),
        }

    def output_shape(self, shape: Shape) -> Shape:
        return shape

    def apply(
        self, kernels: Kernels, cube: torch.Tensor, keys: torch.Tensor, drawn: Mapping[str, Any]
    ) -> torch.Tensor:
        sigma = drawn["voxel_sigma"]
        relative = self.pixels if self.voxels is None else self.voxels
        if relative is not None:
            return add_pixel_noise(kernels, cube, keys, self.stage, sigma, relative)
        voxels = cube[0].numel()
        kernels.elementwise(
            "white_noise",
            len(cube),
            -(-voxels // 4),
            np.int64(voxels),
            np.uint32(self.stage + 1),
            keys,
            sigma,
            cube,
        )
        return cube


def draw_level(draws: Draws, sigma: tuple[float, float], absent: float) -> NDArray[np.float64]:
    """sigma of B samples [B]: uniform between the two, 0 with the probability `absent`."""
    low, high = sigma
    u = draws.uniform([0, 1])
    return np.where(u[:, 1] < absent, 0.0, low + (high - low) * u[:, 0])


def add_pixel_noise(
    kernels: Kernels,
    cube: torch.Tensor,
    keys: torch.Tensor,
    stage: int,
    sigma: torch.Tensor,
    relative: Table,
) -> torch.Tensor:
    """Noise of sigma [B] times the table, [n_dec, n_ra] or one for every voxel; where that is
    negative the cube becomes 0.

    The random numbers are those of `Noise` at the same stage.
    """
    voxels = cube[0].numel()
    kernels.elementwise(
        "pixel_noise",
        len(cube),
        -(-voxels // 4),
        np.int64(voxels),
        np.int64(relative.values.size),
        np.uint32(stage + 1),
        keys,
        sigma,
        relative.on(cube.device),
        cube,
    )
    return cube


def _of_channel(config: NoiseConfig, state: MapState) -> NDArray[np.float32]:
    """(nu / reference)^index at the centres of the map's channels, float32 [n_freq]."""
    edges = state.grid.edges[0][:: state.joined[0]]
    reference = config.reference_GHz or 0.5 * (edges[0] + edges[-1])
    nu = 0.5 * (edges[:-1] + edges[1:])
    return portable.exp2(config.index * portable.log2(nu / reference)).astype(np.float32)


def radiometer_uK(instrument: RadiometerConfig, state: MapState) -> float:
    """sigma [uK] of the mean temperature of the map's present voxel: T_sys / sqrt(n_feeds n_pol
    t dnu), t = time on the field * solid angle of a pixel / that of the field."""
    grid = state.grid
    _, num_dec, num_ra = state.shape
    pixels = float(num_dec * num_ra)
    if instrument.field_deg2 is not None:
        pixel_deg2 = grid.pixel_sr * state.joined[1] * state.joined[2] / (DEG * DEG)
        pixels = instrument.field_deg2 / pixel_deg2
    seconds = instrument.hours * 3600.0 / pixels
    hertz = grid.dnu_GHz * state.joined[0] * 1e9
    looks = instrument.n_feeds * instrument.n_pol * seconds * hertz
    return instrument.T_sys_K * 1e6 / float(np.sqrt(looks))


def noise_factor(per: str | VoxelSize, state: MapState) -> float:
    """sigma of the map's present voxel / sigma as quoted.

    At fixed total time sigma goes as 1/sqrt(dnu Omega); noise of fine voxels that are pooled adds
    in quadrature, and is divided by their number where pooling is a mean.
    """
    if per == "map_voxel":
        return 1.0
    fine = 1.0
    if isinstance(per, VoxelSize):
        side = per.arcmin / 60.0 * DEG
        quoted = side * side * per.MHz * 1e-3
        fine = float(np.sqrt(quoted / (state.grid.pixel_sr * state.grid.dnu_GHz)))
    return fine * float(np.sqrt(state.number)) / (state.number / state.weight)


Float = NDArray[np.float64]


@dataclass
class EdgeNoise:
    """White noise of sigma * max(1 - d / width, 0), d = distance of a pixel's centre to the nearest
    edge over the side; where it is quoted for fine voxels theirs is pooled as the map was."""

    name: str
    stage: int
    sigma: tuple[float, float]
    """Lowest and highest sigma [map units] at the very edge."""
    absent: float
    pixels: Table
    """Sigma of a pixel over that, float32 [n_dec, n_ra]."""

    @classmethod
    def from_config(
        cls, name: str, stage: int, config: EdgeNoiseConfig, state: MapState
    ) -> EdgeNoise:
        """The operator where the map is in `state`."""
        given = config.sigma_uK
        levels = given if isinstance(given, tuple) else (given, given)
        if config.per == "map_voxel":
            pixels = edge_ramp(state.shape[1:], config.width)
        else:
            pixels = pooled_sigma(edge_ramp(state.grid.shape[1:], config.width), state)
        return cls(name, stage, levels, config.absent, Table(pixels.astype(np.float32)))

    def draw(self, draws: Draws) -> Drawn:
        return {"sigma_uK": draw_level(draws, self.sigma, self.absent).astype(np.float32)}

    def output_shape(self, shape: Shape) -> Shape:
        return shape

    def apply(
        self, kernels: Kernels, cube: torch.Tensor, keys: torch.Tensor, drawn: Mapping[str, Any]
    ) -> torch.Tensor:
        return add_pixel_noise(kernels, cube, keys, self.stage, drawn["sigma_uK"], self.pixels)


def edge_ramp(shape: tuple[int, int], width: float) -> Float:
    """max(1 - d_dec / width, 1 - d_ra / width, 0) at the centres of pixels [n_dec, n_ra]."""
    dec, ra = (1.0 - (np.minimum(k, k[::-1]) + 0.5) / len(k) / width for k in map(np.arange, shape))
    return np.maximum(np.maximum(dec[:, None], ra[None, :]), 0.0)


def pooled_sigma(sigma: Float, state: MapState) -> Float:
    """Sigma per voxel of the map from that of fine voxels [n_dec, n_ra], the same in each of their
    channels: added in quadrature, and divided by their number where pooling is a mean."""
    channels, by_dec, by_ra = state.joined
    square = np.zeros(state.shape[1:])
    for j in range(by_dec):  # a fixed order of additions
        for k in range(by_ra):
            part = sigma[j::by_dec, k::by_ra]
            square = square + part * part
    return np.sqrt(channels * square) * (state.weight / state.number)


MOST = 1e20
"""Larger numbers are no hits, but marks of missing values."""


def read_hits(path: str, state: MapState, where: str) -> Float:
    """Hits, or any measure of time, float64 [n_dec, n_ra] from a file, see `read_pixels`. Raises
    ConfigError, one sentence that begins with `where`."""
    hits = read_pixels(path, "hits", state, where).astype(np.float64)
    if not (np.isfinite(hits).all() and (hits >= 0.0).all() and (hits < MOST).all()):
        raise ConfigError(
            f"{where}: {path} holds hits that are negative, not finite or above {MOST:g}"
        )
    if not hits.any():
        raise ConfigError(f"{where}: {path} holds no pixel that was hit")
    return hits


def relative_sigma(hits: Float) -> NDArray[np.float32]:
    """sqrt(mean / hits), the mean being that of the pixels that were hit; -1 for the others."""
    hit = hits > 0.0
    mean = math.fsum(hits[hit].tolist()) / int(hit.sum())  # rounded once: no order of additions
    sigma = np.where(hit, np.sqrt(mean / np.where(hit, hits, 1.0)), -1.0)
    return sigma.astype(np.float32)
