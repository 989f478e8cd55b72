"""Noise that rises to the edges of the map, the "geometric" noise of 1905.10376."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from streamtrain.config_observe import EdgeNoiseConfig
from streamtrain.generator.backend import Kernels
from streamtrain.generator.operators.base import Drawn, MapState, Shape, Table
from streamtrain.generator.operators.noise import add_pixel_noise, draw_level
from streamtrain.rng import Draws

Float = NDArray[np.float64]


@dataclass
class EdgeNoise:
    """White noise of sigma * max(1 - d / width, 0), d = distance of a pixel's centre to the nearest
    edge over the side; where it is quoted for fine voxels theirs is pooled as the map was."""

    name: str
    stage: int
    sigma: tuple[float, float]
    """Lowest and highest sigma [map units] at the very edge."""
    absent: float
    pixels: Table
    """Sigma of a pixel over that, float32 [n_dec, n_ra]."""

    @classmethod
    def from_config(
        cls, name: str, stage: int, config: EdgeNoiseConfig, state: MapState
    ) -> EdgeNoise:
        """The operator where the map is in `state`."""
        given = config.sigma_uK
        levels = given if isinstance(given, tuple) else (given, given)
        if config.per == "map_voxel":
            pixels = edge_ramp(state.shape[1:], config.width)
        else:
            pixels = pooled_sigma(edge_ramp(state.grid.shape[1:], config.width), state)
        return cls(name, stage, levels, config.absent, Table(pixels.astype(np.float32)))

    def draw(self, draws: Draws) -> Drawn:
        return {"sigma_uK": draw_level(draws, self.sigma, self.absent).astype(np.float32)}

    def output_shape(self, shape: Shape) -> Shape:
        return shape

    def apply(
        self, kernels: Kernels, cube: torch.Tensor, keys: torch.Tensor, drawn: Mapping[str, Any]
    ) -> torch.Tensor:
        return add_pixel_noise(kernels, cube, keys, self.stage, drawn["sigma_uK"], self.pixels)


def edge_ramp(shape: tuple[int, int], width: float) -> Float:
    """max(1 - d_dec / width, 1 - d_ra / width, 0) at the centres of pixels [n_dec, n_ra]."""
    dec, ra = (1.0 - (np.minimum(k, k[::-1]) + 0.5) / len(k) / width for k in map(np.arange, shape))
    return np.maximum(np.maximum(dec[:, None], ra[None, :]), 0.0)


def pooled_sigma(sigma: Float, state: MapState) -> Float:
    """Sigma per voxel of the map from that of fine voxels [n_dec, n_ra], the same in each of their
    channels: added in quadrature, and divided by their number where pooling is a mean."""
    channels, by_dec, by_ra = state.joined
    square = np.zeros(state.shape[1:])
    for j in range(by_dec):  # a fixed order of additions
        for k in range(by_ra):
            part = sigma[j::by_dec, k::by_ra]
            square = square + part * part
    return np.sqrt(channels * square) * (state.weight / state.number)
