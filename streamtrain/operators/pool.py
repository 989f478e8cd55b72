"""Joining blocks of voxels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from streamtrain.numerics.backend import Kernels
from streamtrain.numerics.rng import Draws
from streamtrain.operators.base import Drawn, MapState, Shape
from streamtrain.operators.settings import PoolConfig


@dataclass
class Pool:
    """Sum or mean of blocks of voxels."""

    name: str
    stage: int
    factor: Shape
    mean: bool

    @classmethod
    def from_config(cls, name: str, stage: int, config: PoolConfig, state: MapState) -> Pool:
        """The operator where the map is in `state`."""
        return cls(name, stage, config.factor, config.reduce == "mean")

    def state_after(self, state: MapState) -> MapState:
        """The map when it is done."""
        freq, dec, ra = (j * f for j, f in zip(state.joined, self.factor, strict=True))
        weight = state.weight * (1 if self.mean else self.number)
        return MapState(state.grid, (freq, dec, ra), weight)

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
