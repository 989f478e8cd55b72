"""The brightness augmentation of Pfeffer, Breysse and Stein 2019 as it was done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from streamtrain.generator.backend import Kernels
from streamtrain.generator.emitters import Brightness
from streamtrain.generator.operators.base import Drawn, Shape
from streamtrain.rng import Draws


@dataclass
class ScaledLog:
    """The log-modulus of the map, not the map, times the factor of an emitter: T becomes
    sign(T) ((|T| + 1)^factor - 1)."""

    name: str
    stage: int
    brightness: Brightness

    def draw(self, draws: Draws) -> Drawn:
        factor = self.brightness.draw(draws).record["factor"]
        return {"factor": factor.astype(np.float32)}

    def output_shape(self, shape: Shape) -> Shape:
        return shape

    def apply(
        self, kernels: Kernels, cube: torch.Tensor, keys: torch.Tensor, drawn: Mapping[str, Any]
    ) -> torch.Tensor:
        kernels.elementwise("scaled_log", len(cube), cube[0].numel(), drawn["factor"], cube)
        return cube
