"""Noise that is correlated along frequency: what is left of 1/f noise in a map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamtrain.numerics import portable
from streamtrain.numerics.backend import Kernels
from streamtrain.numerics.rng import Draws
from streamtrain.numerics.workspace import DeviceArrays
from streamtrain.operators.base import Drawn, MapState, Operator, Table, Turn
from streamtrain.operators.noise import check_levels, draw_level, levels_of
from streamtrain.operators.voxel_files import sigma_before
from streamtrain.schema import setting

Float = NDArray[np.float64]

WIDE_GROUP = 32
"""Pixels that one element of the kernel works on, as in kernels/noise.cuh."""


@dataclass(frozen=True)
class CorrelatedNoiseConfig:
    """Gaussian noise of every pixel whose power along frequency is (knee / f)^index."""

    sigma_uK: float | tuple[float, float] = setting(
        help="white noise whose power it has at the knee [map units], or [lo, hi]: uniform per "
        "sample",
        low=0,
    )
    knee_per_GHz: float = setting(help="the knee: cycles per GHz of the band", above=0)
    index: float = setting(1.0, "its power falls as f^-index", above=0, high=4)
    absent: float = setting(0.0, "probability of a sample without it", low=0, high=1)


@dataclass
class CorrelatedNoise(Operator):
    """Adds to every pixel a Gaussian process along frequency, independent of other pixels.

    Its power at f cycles per GHz is (knee / f)^index times that of white noise of sigma, so that
    beside such noise the power is white times 1 + (knee / f)^index. Sigma differs between voxels
    as that of the noise before it does.
    """

    section = CorrelatedNoiseConfig
    words = "correlated noise"
    turn = Turn.NOISE
    random = True
    adds = True
    spares = True
    measured = ("knee_per_GHz",)

    sigma: tuple[float, float]
    """Lowest and highest sigma [map units]."""
    absent: float
    root: Table
    """Lower triangle whose product with its transpose is the covariance of channels at sigma 1,
    float32 [n_freq, n_freq]."""
    voxels: Table
    """Sigma of a voxel over that of the sample, float32 [n_freq, pixels]; negative where nothing
    was observed."""

    @classmethod
    def from_config(
        cls, name: str, stage: int, config: CorrelatedNoiseConfig, state: MapState
    ) -> CorrelatedNoise:
        levels = levels_of(config.sigma_uK)
        num_freq, dnu_GHz = state.shape[0], state.grid.dnu_GHz * state.joined[0]
        covariance = channel_covariance(num_freq, dnu_GHz, config.knee_per_GHz, config.index)
        voxels = sigma_before(state, f"observe.{name}").reshape(num_freq, -1)
        root = triangular_root(covariance).astype(np.float32)
        return cls(name, stage, levels, config.absent, Table(root), Table(voxels))

    @classmethod
    def check(cls, section: CorrelatedNoiseConfig, where: str, state: MapState) -> None:
        check_levels(section.sigma_uK, where)

    def draw(self, draws: Draws) -> Drawn:
        return {"sigma_uK": draw_level(draws, self.sigma, self.absent).astype(np.float32)}

    def apply(self, kernels: Kernels, cube: Tensor, keys: Tensor, drawn: DeviceArrays) -> Tensor:
        samples, num_freq = cube.shape[:2]
        pixels = cube[0, 0].numel()
        groups = -(-pixels // WIDE_GROUP)
        normals = groups * num_freq * WIDE_GROUP
        white = torch.zeros((samples, normals), dtype=torch.float32, device=cube.device)
        kernels.elementwise(
            "white_noise",
            samples,
            normals // 4,
            np.int64(normals),
            np.uint32(self.stage + 1),
            keys,
            torch.ones_like(drawn["sigma_uK"]),
            white,
        )
        kernels.elementwise(
            "correlated_noise",
            samples,
            groups * num_freq,
            np.int64(pixels),
            np.int32(num_freq),
            self.root.on(cube.device),
            self.voxels.on(cube.device),
            drawn["sigma_uK"],
            white,
            cube,
        )
        return cube


def channel_covariance(num_freq: int, dnu_GHz: float, knee_per_GHz: float, index: float) -> Float:
    """Covariance [num_freq, num_freq] of channels d apart, at sigma 1: the sum over j = 1..N-1 of
    (knee / f_j)^index cos(2 pi j d / N) / N, with N = 2 num_freq and f_j = min(j, N - j) / (N dnu).

    It is that of one half of a periodic band twice as wide, so that the ends of the band are not
    neighbours. What varies more slowly than by half a cycle in the band is left out.
    """
    number = 2 * num_freq
    j = np.arange(1, number)
    f = np.minimum(j, number - j) / (number * dnu_GHz)
    power = portable.exp2(index * portable.log2(knee_per_GHz / f))
    apart = np.zeros(num_freq)
    for k, of_mode in zip(j, power, strict=True):  # a fixed order of additions
        _, cosine = portable.sincos_turns(k * np.arange(num_freq) % number / number)
        apart = apart + of_mode * cosine
    place = np.arange(num_freq)
    return apart[np.abs(place[:, None] - place[None, :])] / number


def triangular_root(matrix: Float) -> Float:
    """The lower triangle L of a positive definite matrix L L^T (Cholesky), column by column, in a
    fixed order of additions."""
    left = matrix.copy()
    root = np.zeros_like(matrix)
    for k in range(len(matrix)):
        root[k:, k] = left[k:, k] / np.sqrt(left[k, k])
        left[k:, k:] = left[k:, k:] - root[k:, k, None] * root[None, k:, k]
    return root
