"""Removing the mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from streamtrain.config_observe import SubtractMeanConfig
from streamtrain.generator.backend import Kernels
from streamtrain.generator.operators.base import Fixed, MapState
from streamtrain.generator.operators.sums import slice_sums


@dataclass
class SubtractMean(Fixed):
    """Subtracts the mean of every frequency slice.

    skip_zeros: the mean is that of the voxels that are not exactly zero, and zeros stay zero: for
    masked maps. An empty voxel of a map without noise or beam is zero as well.
    """

    name: str
    stage: int
    skip_zeros: bool

    @classmethod
    def from_config(
        cls, name: str, stage: int, config: SubtractMeanConfig, state: MapState
    ) -> SubtractMean:
        """The operator where the map is in `state`."""
        return cls(name, stage, config.skip_zeros)

    def apply(
        self, kernels: Kernels, cube: torch.Tensor, keys: torch.Tensor, drawn: Mapping[str, Any]
    ) -> torch.Tensor:
        sums = slice_sums(kernels, cube, self.skip_zeros)
        slices, pixels = cube.shape[0] * cube.shape[1], cube[0, 0].numel()
        kernels.elementwise("subtract_mean", slices, pixels, np.int32(self.skip_zeros), sums, cube)
        return cube
