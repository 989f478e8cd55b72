"""Joining blocks of voxels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from streamtrain.numerics.backend import Kernels
from streamtrain.numerics.workspace import DeviceArrays
from streamtrain.operators.base import MapState, Operator, Shape, Turn
from streamtrain.schema import ConfigError, setting


@dataclass(frozen=True)
class PoolConfig:
    """Join blocks of voxels."""

    factor: tuple[int, int, int] = setting((1, 1, 1), "voxels (freq, dec, ra) joined", low=1)
    reduce: Literal["mean", "sum"] = setting("mean", "mean (of an intensity) or sum")


@dataclass
class Pool(Operator):
    """Sum or mean of blocks of voxels."""

    section = PoolConfig
    words = "pooled"
    turn = Turn.HEAD
    random = False
    reshapes = True

    factor: Shape
    mean: bool

    @classmethod
    def from_config(cls, name: str, stage: int, config: PoolConfig, state: MapState) -> Pool:
        return cls(name, stage, config.factor, config.reduce == "mean")

    @classmethod
    def check(cls, section: PoolConfig, where: str, state: MapState) -> None:
        if any(n % f for n, f in zip(state.shape, section.factor, strict=True)):
            raise ConfigError(
                f"{where}.factor = {list(section.factor)} does not divide the cube's shape "
                f"{list(state.shape)}"
            )

    @classmethod
    def state_after(cls, section: PoolConfig, state: MapState) -> MapState:
        freq, dec, ra = (j * f for j, f in zip(state.joined, section.factor, strict=True))
        weight = state.weight * (1 if section.reduce == "mean" else math.prod(section.factor))
        return MapState(state.grid, (freq, dec, ra), weight)

    @property
    def title(self) -> str:
        freq, dec, ra = self.factor
        words, _, suffix = super().title.partition(" ")
        of_second = f" ({suffix})" if suffix else ""
        return f"{words}: {'mean' if self.mean else 'sum'} of {freq} x {dec} x {ra}{of_second}"

    def apply(self, kernels: Kernels, cube: Tensor, keys: Tensor, drawn: DeviceArrays) -> Tensor:
        samples = len(cube)
        shape = [n // f for n, f in zip(cube.shape[1:], self.factor, strict=True)]
        pooled = torch.empty((samples, *shape), dtype=torch.float32, device=cube.device)
        factors = (np.int32(f) for f in self.factor)
        weight = np.float32(1.0 / math.prod(self.factor) if self.mean else 1.0)
        sizes = (np.int32(shape[1]), np.int32(shape[2]))
        kernels.elementwise(
            "pool", samples, pooled[0].numel(), *sizes, *factors, weight, cube, pooled
        )
        return pooled
