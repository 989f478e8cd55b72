"""Zero mean and unit variance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from streamtrain.config_observe import StandardiseConfig
from streamtrain.generator.backend import Kernels
from streamtrain.generator.operators.base import Fixed, MapState
from streamtrain.generator.operators.sums import cube_squares, cube_sums


@dataclass
class Standardise(Fixed):
    """(T - mean) / std over all voxels of each cube; a constant cube becomes 0."""

    name: str
    stage: int

    @classmethod
    def from_config(
        cls, name: str, stage: int, config: StandardiseConfig, state: MapState
    ) -> Standardise:
        """The operator where the map is in `state`."""
        return cls(name, stage)

    def apply(
        self, kernels: Kernels, cube: torch.Tensor, keys: torch.Tensor, drawn: Mapping[str, Any]
    ) -> torch.Tensor:
        total = cube_sums(kernels, cube)
        squares = cube_squares(kernels, cube, total)
        kernels.elementwise("standardise", len(cube), cube[0].numel(), total, squares, cube)
        return cube
