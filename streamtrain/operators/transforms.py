"""Transforms of a voxel's value into the network's input.

The brightness augmentation of Pfeffer, Breysse and Stein 2019 as it was done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from streamtrain.luminosity.modifiers import Brightness
from streamtrain.numerics.backend import Kernels
from streamtrain.numerics.rng import Draws
from streamtrain.operators.base import Drawn, Fixed, MapState, Shape
from streamtrain.operators.settings import AsinhConfig, Log10Config, LogModulusConfig

LN10 = 2.302585092994046
Values = TypeVar("Values", torch.Tensor, NDArray[np.floating])


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


def inverse_log_modulus(values: Values) -> Values:
    """T of sign(T) log10(|T| + 1): sign(v) (10^|v| - 1), of an array or a tensor."""
    if isinstance(values, torch.Tensor):
        return torch.sign(values) * torch.expm1(torch.abs(values) * LN10)
    return np.sign(values) * np.expm1(np.abs(values) * LN10)


@dataclass
class Log10(Fixed):
    """log10(T + epsilon).

    T + epsilon counts as epsilon / 1000 where it is less than that: the logarithm of a voxel goes
    down to three below that of an empty one, and is defined for negative T.
    """

    name: str
    stage: int
    epsilon: float

    @classmethod
    def from_config(cls, name: str, stage: int, config: Log10Config, state: MapState) -> Log10:
        """The operator where the map is in `state`."""
        return cls(name, stage, config.epsilon)

    def apply(
        self, kernels: Kernels, cube: torch.Tensor, keys: torch.Tensor, drawn: Mapping[str, Any]
    ) -> torch.Tensor:
        epsilon, lowest = np.float32(self.epsilon), np.float32(1e-3 * self.epsilon)
        kernels.elementwise("shifted_log10", len(cube), cube[0].numel(), epsilon, lowest, cube)
        return cube


@dataclass
class Asinh(Fixed):
    """asinh(T / scale): linear for |T| below the scale, logarithmic above, odd."""

    name: str
    stage: int
    scale: float

    @classmethod
    def from_config(cls, name: str, stage: int, config: AsinhConfig, state: MapState) -> Asinh:
        """The operator where the map is in `state`."""
        return cls(name, stage, config.scale)

    def apply(
        self, kernels: Kernels, cube: torch.Tensor, keys: torch.Tensor, drawn: Mapping[str, Any]
    ) -> torch.Tensor:
        kernels.elementwise(
            "scaled_asinh", len(cube), cube[0].numel(), np.float32(self.scale), cube
        )
        return cube


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
