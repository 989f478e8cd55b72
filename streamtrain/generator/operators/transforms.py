"""Transforms of a voxel's value into the network's input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from streamtrain.config_observe import LogModulusConfig
from streamtrain.generator.backend import Kernels
from streamtrain.generator.operators.base import Drawn, MapState, Shape
from streamtrain.rng import Draws


@dataclass
class LogModulus:
    """sign(T) log10(|T| + 1)."""

    name: str
    stage: int

    @classmethod
    def from_config(
        cls, name: str, stage: int, config: LogModulusConfig, state: MapState
    ) -> LogModulus:
        """The operator where the map is in `state`."""
        return cls(name, stage)

    def draw(self, draws: Draws) -> Drawn:
        return {}

    def output_shape(self, shape: Shape) -> Shape:
        return shape

    def apply(
        self, kernels: Kernels, cube: torch.Tensor, keys: torch.Tensor, drawn: Mapping[str, Any]
    ) -> torch.Tensor:
        kernels.elementwise("log_modulus", len(cube), cube[0].numel(), cube)
        return cube
