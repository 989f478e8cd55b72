"""White noise: of one level, or with a level per pixel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from streamtrain import portable
from streamtrain.config_observe import NoiseConfig, RadiometerConfig, VoxelSize
from streamtrain.generator.backend import Kernels
from streamtrain.generator.geometry import DEG
from streamtrain.generator.operators.base import Drawn, MapState, Shape, Table
from streamtrain.generator.operators.hits import read_hits, relative_sigma
from streamtrain.generator.operators.pixel_file import pixels_digest
from streamtrain.rng import Draws
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
