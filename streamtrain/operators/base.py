"""What a map operator is: a step between the painted cube and the network's input.

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

from streamtrain.grid import Grid
from streamtrain.numerics.backend import Kernels
from streamtrain.numerics.rng import Draws

Shape = tuple[int, int, int]
Drawn = dict[str, NDArray[np.float32]]
LARGEST = 1e30
"""Of what operators draw: sums and squares of more would not fit into float32."""
GROUP = 8
"""Neighbouring voxels that one element of some kernels works on, as in kernels/observe.cu."""


@dataclass(frozen=True)
class MapState:
    """The map as an operator finds it."""

    grid: Grid
    """What was painted."""
    joined: Shape = (1, 1, 1)
    """Fine voxels (freq, dec, ra) joined into one of the map."""
    weight: float = 1.0
    """A voxel over the mean of its fine voxels: 1 where they were averaged, their number where they
    were summed."""

    @property
    def shape(self) -> Shape:
        """Shape (freq, dec, ra) of the map."""
        freq, dec, ra = (n // f for n, f in zip(self.grid.shape, self.joined, strict=True))
        return freq, dec, ra

    @property
    def number(self) -> int:
        """Fine voxels joined into one of the map."""
        return self.joined[0] * self.joined[1] * self.joined[2]


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


def draw_finite(operator: Operator, draws: Draws) -> Drawn:
    """What an operator draws. Raises ValueError for numbers that no map in float32 survives."""
    with np.errstate(over="ignore"):
        drawn = operator.draw(draws)
    for name, values in drawn.items():
        bad = ~(np.abs(values) <= LARGEST)
        if bad.any():
            raise ValueError(
                f"observe.{operator.name}: {name} = {values[bad].ravel()[0]:g} is beyond what a "
                f"map can hold ({LARGEST:g})"
            )
    return drawn


class Fixed:
    """What operators share that draw nothing and keep the shape."""

    def draw(self, draws: Draws) -> Drawn:
        return {}

    def output_shape(self, shape: Shape) -> Shape:
        return shape


class Table:
    """A constant array of an operator, copied to each device once."""

    def __init__(self, values: NDArray[np.generic]) -> None:
        self.values = np.ascontiguousarray(values)
        self._copies: dict[torch.device, torch.Tensor] = {}

    def on(self, device: torch.device) -> torch.Tensor:
        """The array on a device."""
        if device not in self._copies:
            self._copies[device] = torch.from_numpy(self.values).to(device)
        return self._copies[device]
