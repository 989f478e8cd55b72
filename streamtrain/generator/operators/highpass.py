"""Removing what is smooth in frequency."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from streamtrain.config_observe import HighPassConfig
from streamtrain.generator.backend import Kernels
from streamtrain.generator.operators.base import GROUP, Fixed, MapState, Table


@dataclass
class HighPass(Fixed):
    """Subtracts from every pixel's spectrum its projection on smooth modes."""

    name: str
    stage: int
    modes: Table
    """Orthonormal, float64 [modes, n_freq]."""

    @classmethod
    def from_config(
        cls, name: str, stage: int, config: HighPassConfig, state: MapState
    ) -> HighPass:
        """The operator where the map is in `state`."""
        return cls(name, stage, Table(polynomials(config.modes, state.shape[0])))

    def apply(
        self, kernels: Kernels, cube: torch.Tensor, keys: torch.Tensor, drawn: Mapping[str, Any]
    ) -> torch.Tensor:
        samples, num_freq = cube.shape[:2]
        num_modes, pixels = len(self.modes.values), cube[0, 0].numel()
        modes = self.modes.on(cube.device)
        amplitudes = torch.empty(
            (samples, num_modes, pixels), dtype=torch.float64, device=cube.device
        )
        sizes = (np.int64(pixels), np.int32(num_modes), np.int32(num_freq))
        groups = -(-pixels // GROUP)
        kernels.elementwise(
            "mode_amplitudes", samples * num_modes, groups, *sizes, modes, cube, amplitudes
        )
        kernels.elementwise(
            "subtract_modes", samples * num_freq, groups, *sizes, modes, amplitudes, cube
        )
        return cube


def polynomials(num: int, num_freq: int) -> NDArray[np.float64]:
    """Orthonormal polynomials of degree 0..num-1 on equidistant channels, [num, num_freq].

    Each is x times the one before it, made orthogonal to all before it: Gram-Schmidt with exactly
    rounded sums, so the bits are those of any machine. Orthogonal to 1e-15, whatever the number.
    """
    x = (2.0 * np.arange(num_freq) - (num_freq - 1)) / num_freq
    modes: list[NDArray[np.float64]] = []
    for _ in range(num):
        mode = x * modes[-1] if modes else np.ones(num_freq)
        for earlier in modes:
            mode = mode - math.fsum(earlier * mode) * earlier
        modes.append(mode / math.sqrt(math.fsum(mode * mode)))
    return np.stack(modes)
