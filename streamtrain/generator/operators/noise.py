"""White noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from streamtrain.config_observe import NoiseConfig, VoxelSize
from streamtrain.generator.backend import Kernels
from streamtrain.generator.geometry import DEG
from streamtrain.generator.operators.base import Drawn, MapState, Shape
from streamtrain.rng import Draws


@dataclass
class Noise:
    """White Gaussian noise of fixed or drawn level."""

    name: str
    stage: int
    sigma: tuple[float, float]
    """Lowest and highest sigma [map units] per voxel as `sigma_uK` was quoted."""
    factor: float
    """From the quoted voxel to the voxel of the cube at this point."""
    absent: float

    @classmethod
    def from_config(cls, name: str, stage: int, config: NoiseConfig, state: MapState) -> Noise:
        """The operator where the map is in `state`."""
        given = config.sigma_uK
        levels = given if isinstance(given, tuple) else (given, given)
        return cls(name, stage, levels, noise_factor(config.per, state), config.absent)

    def draw(self, draws: Draws) -> Drawn:
        low, high = self.sigma
        u = draws.uniform([0, 1])
        sigma = low + (high - low) * u[:, 0]
        sigma = np.where(u[:, 1] < self.absent, 0.0, sigma)
        return {
            "sigma_uK": sigma.astype(np.float32),
            "voxel_sigma": (sigma * self.factor).astype(np.float32),
        }

    def output_shape(self, shape: Shape) -> Shape:
        return shape

    def apply(
        self, kernels: Kernels, cube: torch.Tensor, keys: torch.Tensor, drawn: Mapping[str, Any]
    ) -> torch.Tensor:
        voxels = cube[0].numel()
        kernels.elementwise(
            "white_noise",
            len(cube),
            -(-voxels // 4),
            np.int64(voxels),
            np.uint32(self.stage + 1),
            keys,
            drawn["voxel_sigma"],
            cube,
        )
        return cube


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
