"""Transforms of a voxel's value into the network's input, and the way back.

`ScaledLog` is the brightness augmentation of Pfeffer, Breysse and Stein 2019 as it was done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamtrain.luminosity.modifiers import Brightness, BrightnessConfig
from streamtrain.numerics.backend import Kernels
from streamtrain.numerics.portable import LN10
from streamtrain.numerics.rng import Draws
from streamtrain.numerics.workspace import DeviceArrays
from streamtrain.operators.base import Drawn, Operator, Pointwise, Turn
from streamtrain.schema import setting

Values = TypeVar("Values", Tensor, NDArray[np.floating])


@dataclass(frozen=True)
class LogModulusConfig:
    """sign(T) log10(|T| + 1)."""


@dataclass
class LogModulus(Pointwise):
    """sign(T) log10(|T| + 1)."""

    section = LogModulusConfig
    words = "log-modulus"

    def apply(self, kernels: Kernels, cube: Tensor, keys: Tensor, drawn: DeviceArrays) -> Tensor:
        kernels.elementwise("log_modulus", len(cube), cube[0].numel(), cube)
        return cube

    def undo(self, values: Tensor) -> Tensor:
        return inverse_log_modulus(values)

    def slope(self, values: Tensor) -> Tensor:
        slope: Tensor = 10.0 ** -torch.abs(values) / LN10
        return slope


def inverse_log_modulus(values: Values) -> Values:
    """T of sign(T) log10(|T| + 1): sign(v) (10^|v| - 1), of an array or a tensor."""
    if isinstance(values, Tensor):
        return torch.sign(values) * torch.expm1(torch.abs(values) * LN10)
    return np.sign(values) * np.expm1(np.abs(values) * LN10)


@dataclass(frozen=True)
class Log10Config:
    """The transform log10(T + epsilon)."""

    epsilon: float = setting(
        help="added to T [map units]; a sum below a thousandth of it counts as that",
        low=1e-30,
        high=1e30,
    )


@dataclass
class Log10(Pointwise):
    """log10(T + epsilon).

    T + epsilon counts as epsilon / 1000 where it is less than that: the logarithm of a voxel goes
    down to three below that of an empty one, and is defined for negative T.
    """

    section = Log10Config
    words = "log10"

    epsilon: float

    def apply(self, kernels: Kernels, cube: Tensor, keys: Tensor, drawn: DeviceArrays) -> Tensor:
        epsilon, lowest = np.float32(self.epsilon), np.float32(1e-3 * self.epsilon)
        kernels.elementwise("shifted_log10", len(cube), cube[0].numel(), epsilon, lowest, cube)
        return cube

    def undo(self, values: Tensor) -> Tensor:
        """What was cut off below comes back as its floor."""
        shifted: Tensor = 10.0**values - self.epsilon
        return shifted

    def slope(self, values: Tensor) -> Tensor:
        shifted = 10.0**values
        above = shifted > 1e-3 * self.epsilon * (1 + 1e-5)
        return torch.where(above, 1.0 / (LN10 * shifted), torch.zeros_like(shifted))


@dataclass(frozen=True)
class AsinhConfig:
    """The transform asinh(T / scale)."""

    scale: float = setting(help="linear below, logarithmic above [map units]", low=1e-30, high=1e30)


@dataclass
class Asinh(Pointwise):
    """asinh(T / scale): linear for |T| below the scale, logarithmic above, odd."""

    section = AsinhConfig
    words = "asinh"

    scale: float

    def apply(self, kernels: Kernels, cube: Tensor, keys: Tensor, drawn: DeviceArrays) -> Tensor:
        kernels.elementwise(
            "scaled_asinh", len(cube), cube[0].numel(), np.float32(self.scale), cube
        )
        return cube

    def undo(self, values: Tensor) -> Tensor:
        return torch.sinh(values) * self.scale

    def slope(self, values: Tensor) -> Tensor:
        return 1.0 / (self.scale * torch.cosh(values))


@dataclass
class ScaledLog(Operator):
    """The log-modulus of the map, not the map, times the factor of a modifier: T becomes
    sign(T) ((|T| + 1)^factor - 1). It belongs to `emit`."""

    section = BrightnessConfig
    words = "brightness scaled in the log"
    turn = Turn.HEAD
    random = True

    brightness: Brightness

    def draw(self, draws: Draws) -> Drawn:
        factor = self.brightness.draw(draws).record["factor"]
        return {"factor": factor.astype(np.float32)}

    def apply(self, kernels: Kernels, cube: Tensor, keys: Tensor, drawn: DeviceArrays) -> Tensor:
        kernels.elementwise("scaled_log", len(cube), cube[0].numel(), drawn["factor"], cube)
        return cube
