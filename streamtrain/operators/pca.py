"""Principal components along frequency, subtracted from every cube as a survey's pipeline does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from streamtrain.numerics.backend import Kernels
from streamtrain.numerics.workspace import DeviceArrays
from streamtrain.operators.base import GROUP, MapState, Operator, Table, Turn
from streamtrain.operators.filters import check_modes
from streamtrain.operators.voxel_files import sigma_before
from streamtrain.schema import setting

PIXELS_OF_CHUNK = 256
"""Pixels whose products are added before those of other chunks, as in kernels/pca.cuh."""


@dataclass(frozen=True)
class PCAConfig:
    """The leading principal components along frequency are subtracted from every cube."""

    modes: int = setting(help="how many, of all channels' number less one [COMAP: 5]", low=1)


@dataclass
class PCA(Operator):
    """Subtracts from a cube its leading principal components along frequency.

    They are the singular vectors of the matrix [n_freq, pixels] of the cube over sigma, that of the
    noise before it, with 0 in voxels that were masked or not observed, which stay as they are.
    """

    section = PCAConfig
    words = "principal components subtracted"
    turn = Turn.FILTER
    random = False
    pipeline = "pca"

    modes: int
    sigma: Table
    """Sigma of each voxel over a level of the sample, float32 [n_freq, pixels]; negative in voxels
    that were masked or not observed."""

    @classmethod
    def from_config(cls, name: str, stage: int, config: PCAConfig, state: MapState) -> PCA:
        sigma = sigma_before(state, f"observe.{name}")
        return cls(name, stage, config.modes, Table(sigma.reshape(state.shape[0], -1)))

    @classmethod
    def check(cls, section: PCAConfig, where: str, state: MapState) -> None:
        check_modes(section.modes, where, state)

    def apply(self, kernels: Kernels, cube: Tensor, keys: Tensor, drawn: DeviceArrays) -> Tensor:
        samples, num_freq = cube.shape[:2]
        pixels, sigma = cube[0, 0].numel(), self.sigma.on(cube.device)
        weighted = _empty(cube, samples, num_freq, pixels)
        kernels.elementwise(
            "in_units_of_noise", samples * num_freq, pixels, np.int32(num_freq), sigma, cube,
            weighted,
        )  # fmt: skip
        modes = self.leading_modes(kernels, weighted)
        amplitudes = _empty(cube, samples, self.modes, pixels)
        sizes = (np.int64(pixels), np.int32(self.modes), np.int32(num_freq))
        groups = -(-pixels // GROUP)
        kernels.elementwise(
            "principal_amplitudes", samples * self.modes, groups, *sizes, modes, weighted,
            amplitudes,
        )  # fmt: skip
        kernels.elementwise(
            "subtract_principal", samples * num_freq, groups, *sizes, sigma, modes, amplitudes,
            cube,
        )  # fmt: skip
        return cube

    def leading_modes(self, kernels: Kernels, weighted: Tensor) -> Tensor:
        """Orthonormal, float64 [B, modes, n_freq], of cubes over sigma [B, n_freq, pixels]."""
        samples, num_freq, pixels = weighted.shape
        chunks = -(-pixels // PIXELS_OF_CHUNK)
        products = _empty(weighted, samples, chunks, num_freq, num_freq)
        kernels.elementwise(
            "channel_products", samples * chunks, num_freq * num_freq,
            np.int32(pixels), np.int32(chunks), np.int32(num_freq), weighted, products,
        )  # fmt: skip
        room = room_for_modes(num_freq, self.modes)
        modes = _empty(weighted, samples, self.modes, num_freq)
        kernels.per_item(
            "leading_modes", samples, 0,
            np.int32(num_freq), np.int32(chunks), np.int32(self.modes), np.int64(room), products,
            _empty(weighted, samples, room), modes,
        )  # fmt: skip
        return modes


def room_for_modes(num_freq: int, modes: int) -> int:
    """Numbers that the kernel `leading_modes` needs room for, per cube."""
    return 2 * num_freq * num_freq + 4 * num_freq + modes * (1 + 3 * num_freq)


def _empty(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float64, device=like.device)
