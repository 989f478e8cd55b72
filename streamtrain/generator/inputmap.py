"""What a network's input is a map of: its box, and the way back from a transform."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from streamtrain.config import Config
from streamtrain.config_observe import AsinhConfig, Log10Config, LogModulusConfig, PoolConfig
from streamtrain.generator.generator import grid_of
from streamtrain.generator.operators import inverse_log_modulus
from streamtrain.spectra import Box

INVERTIBLE = (LogModulusConfig, Log10Config, AsinhConfig)
"""Transforms of a voxel's value that can be undone; a cube that was standardised has lost its own
mean and scatter."""


@dataclass(frozen=True)
class InputMap:
    """The map that a network's input shows."""

    box: Box
    undone: tuple[tuple[str, Any], ...]
    """Transforms at the end of `observe`, name and section, the last one first."""

    @classmethod
    def of(cls, config: Config) -> InputMap:
        """Of a configuration's samples. Only transforms after all other operators are undone."""
        joined = (1, 1, 1)
        for section in config.observe.values():
            if isinstance(section, PoolConfig):
                f, d, r = section.factor
                joined = (joined[0] * f, joined[1] * d, joined[2] * r)
        undone = []
        for name, section in reversed(config.observe.items()):
            if not isinstance(section, INVERTIBLE):
                break
            undone.append((name, section))
        return cls(Box.of_grid(grid_of(config.grid), joined), tuple(undone))

    def restore(self, cube: Tensor) -> Tensor:
        """Cubes [B, n_freq, n_dec, n_ra] as they were before the transforms [map units]. What log10
        had cut off below comes back as its floor."""
        for _, section in self.undone:
            if isinstance(section, LogModulusConfig):
                cube = inverse_log_modulus(cube)
            elif isinstance(section, Log10Config):
                cube = 10.0**cube - section.epsilon
            else:
                assert isinstance(section, AsinhConfig)
                cube = torch.sinh(cube) * section.scale
        return cube
