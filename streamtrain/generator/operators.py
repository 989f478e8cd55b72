"""Map operators: what happens to a cube after painting, in the order of the configuration.

An operator draws what varies from sample to sample (on the host, from the index) and changes the
cubes of a batch on the device. Labels never change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from streamtrain.config import LogModulusConfig, NoiseConfig, PoolConfig, VoxelSize
from streamtrain.generator.backend import Kernels
from streamtrain.generator.geometry import DEG, Grid
from streamtrain.rng import STAGE_OBSERVE, Draws

Shape = tuple[int, int, int]
Drawn = dict[str, NDArray[np.float32]]


class Operator(Protocol):
    """One step between the painted cube and the network's input."""

    name: str
    stage: int

    def draw(self, draws: Draws) -> Drawn:
        """What varies between samples: name -> float32 [B]."""

    def output_shape(self, shape: Shape) -> Shape:
        """Shape (freq, dec, ra) after the operator."""

    def apply(
        self, kernels: Kernels, cube: torch.Tensor, keys: torch.Tensor, drawn: Mapping[str, Any]
    ) -> torch.Tensor:
        """Change cubes float32 [B, freq, dec, ra]; returns the same tensor or a new one.

        keys: int32 [B, 6], as in kernels/paint.cu; drawn: tensors float32 [B] on the device.
        """


@dataclass
class Pool:
    """Sum or mean of blocks of voxels."""

    name: str
    stage: int
    factor: Shape
    mean: bool

    @property
    def number(self) -> int:
        """Voxels that are joined."""
        return self.factor[0] * self.factor[1] * self.factor[2]

    def draw(self, draws: Draws) -> Drawn:
        return {}

    def output_shape(self, shape: Shape) -> Shape:
        freq, dec, ra = (n // f for n, f in zip(shape, self.factor, strict=True))
        return freq, dec, ra

    def apply(
        self, kernels: Kernels, cube: torch.Tensor, keys: torch.Tensor, drawn: Mapping[str, Any]
    ) -> torch.Tensor:
        samples = len(cube)
        shape = self.output_shape((cube.shape[1], cube.shape[2], cube.shape[3]))
        pooled = torch.empty((samples, *shape), dtype=torch.float32, device=cube.device)
        factors = (np.int32(f) for f in self.factor)
        weight = np.float32(1.0 / self.number if self.mean else 1.0)
        sizes = (np.int32(shape[1]), np.int32(shape[2]))
        kernels.elementwise(
            "pool", samples, pooled[0].numel(), *sizes, *factors, weight, cube, pooled
        )
        return pooled


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


@dataclass
class LogModulus:
    """sign(T) log10(|T| + 1)."""

    name: str
    stage: int

    def draw(self, draws: Draws) -> Drawn:
        return {}

    def output_shape(self, shape: Shape) -> Shape:
        return shape

    def apply(
        self, kernels: Kernels, cube: torch.Tensor, keys: torch.Tensor, drawn: Mapping[str, Any]
    ) -> torch.Tensor:
        kernels.elementwise("log_modulus", len(cube), cube[0].numel(), cube)
        return cube


def build_operators(observe: Mapping[str, Any], grid: Grid) -> list[Operator]:
    """The operators of a configuration's `observe` section for a grid."""
    operators: list[Operator] = []
    joined, reduction = 1, 1.0  # fine voxels per voxel so far; what pooling did to the sum
    for position, (name, config) in enumerate(observe.items()):
        stage = STAGE_OBSERVE + 2 * position
        if isinstance(config, PoolConfig):
            pool = Pool(name, stage, config.factor, config.reduce == "mean")
            joined *= pool.number
            reduction *= pool.number if pool.mean else 1.0
            operators.append(pool)
        elif isinstance(config, NoiseConfig):
            given = config.sigma_uK
            levels = given if isinstance(given, tuple) else (given, given)
            factor = _noise_factor(config, grid, joined, reduction)
            operators.append(Noise(name, stage, levels, factor, config.absent))
        else:
            assert isinstance(config, LogModulusConfig)
            operators.append(LogModulus(name, stage))
    return operators


def _noise_factor(config: NoiseConfig, grid: Grid, joined: int, reduction: float) -> float:
    """sigma of the cube's present voxel / sigma as quoted.

    At fixed total time sigma goes as 1/sqrt(dnu Omega); noise of fine voxels that are pooled adds
    in quadrature, and is divided by their number where pooling is a mean.
    """
    if config.per == "map_voxel":
        return 1.0
    fine = 1.0
    if isinstance(config.per, VoxelSize):
        side = config.per.arcmin / 60.0 * DEG
        quoted = side * side * config.per.MHz * 1e-3
        fine = float(np.sqrt(quoted / (grid.pixel_sr * grid.dnu_GHz)))
    return fine * float(np.sqrt(joined)) / reduction
