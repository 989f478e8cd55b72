"""Filters: smooth modes along frequency removed, means and principal components subtracted,
maps standardised.

Sums over voxels are added in a fixed order: rows of ra, then slices, then the cube, in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamtrain.numerics.backend import Kernels
from streamtrain.numerics.workspace import DeviceArrays
from streamtrain.operators.base import GROUP, MapState, Operator, Table, Turn
from streamtrain.operators.voxel_files import sigma_before
from streamtrain.schema import ConfigError, setting


@dataclass(frozen=True)
class HighPassConfig:
    """Smooth modes along frequency are removed from every pixel."""

    modes: int = setting(help="polynomials of a degree below this [1: mean]", low=1)


@dataclass
class HighPass(Operator):
    """Subtracts from every pixel's spectrum its projection on smooth modes."""

    section = HighPassConfig
    words = "high-pass filtered"
    turn = Turn.FILTER
    random = False

    modes: Table
    """Orthonormal, float64 [modes, n_freq]."""

    @classmethod
    def from_config(
        cls, name: str, stage: int, config: HighPassConfig, state: MapState
    ) -> HighPass:
        return cls(name, stage, Table(polynomials(config.modes, state.shape[0])))

    @classmethod
    def check(cls, section: HighPassConfig, where: str, state: MapState) -> None:
        check_modes(section.modes, where, state)

    def apply(self, kernels: Kernels, cube: Tensor, keys: Tensor, drawn: DeviceArrays) -> Tensor:
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


def check_modes(modes: int, where: str, state: MapState) -> None:
    """Raise ConfigError where modes along frequency are as many as the map's channels, or more."""
    if modes >= state.shape[0]:
        raise ConfigError(
            f"{where}.modes = {modes} must be below the number of frequencies, {state.shape[0]}"
        )


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


@dataclass(frozen=True)
class SubtractMeanConfig:
    """The mean of every frequency slice is subtracted."""

    skip_zeros: bool = setting(
        False, "the mean of voxels that are not 0 (masked ones are), which alone are changed"
    )


@dataclass
class SubtractMean(Operator):
    """Subtracts the mean of every frequency slice.

    skip_zeros: the mean is that of the voxels that are not exactly zero, and zeros stay zero: for
    masked maps. An empty voxel of a map without noise or beam is zero as well.
    """

    section = SubtractMeanConfig
    words = "slice mean subtracted"
    turn = Turn.FILTER
    random = False

    skip_zeros: bool

    def apply(self, kernels: Kernels, cube: Tensor, keys: Tensor, drawn: DeviceArrays) -> Tensor:
        sums = slice_sums(kernels, cube, self.skip_zeros)
        slices, pixels = cube.shape[0] * cube.shape[1], cube[0, 0].numel()
        kernels.elementwise("subtract_mean", slices, pixels, np.int32(self.skip_zeros), sums, cube)
        return cube


def slice_sums(kernels: Kernels, cube: Tensor, skip_zeros: bool) -> Tensor:
    """(sum, number) of the voxels of every frequency slice, float64 [B, n_freq, 2]; with skip_zeros
    of those that are not zero."""
    samples, num_freq, num_dec, num_ra = cube.shape
    rows = _pairs(cube, samples, num_freq, num_dec)
    skip = np.int32(skip_zeros)
    kernels.elementwise("row_sums", samples, num_freq * num_dec, np.int32(num_ra), skip, cube, rows)
    return _joined(kernels, rows)


def cube_sums(kernels: Kernels, cube: Tensor) -> Tensor:
    """(sum, number) of the voxels of every cube, float64 [B, 2]."""
    return _joined(kernels, slice_sums(kernels, cube, False))


def cube_squares(kernels: Kernels, cube: Tensor, total: Tensor) -> Tensor:
    """(sum, number) of (T - mean)^2 of every cube, float64 [B, 2]; total: its `cube_sums`."""
    samples, num_freq, num_dec, num_ra = cube.shape
    rows = _pairs(cube, samples, num_freq, num_dec)
    kernels.elementwise(
        "row_squares", samples, num_freq * num_dec, np.int32(num_ra), total, cube, rows
    )
    return _joined(kernels, _joined(kernels, rows))


def _pairs(like: Tensor, *shape: int) -> Tensor:
    return torch.empty((*shape, 2), dtype=torch.float64, device=like.device)


def _joined(kernels: Kernels, parts: Tensor) -> Tensor:
    """Pairs summed over the last axis but one: [B, ..., n, 2] -> [B, ..., 2]."""
    sums = _pairs(parts, *parts.shape[:-2])
    samples = len(parts)
    groups = sums[0].numel() // 2
    kernels.elementwise("group_sums", samples, groups, np.int32(parts.shape[-2]), parts, sums)
    return sums


@dataclass(frozen=True)
class StandardiseConfig:
    """(T - mean) / std of each cube, 0 where std is 0."""


@dataclass
class Standardise(Operator):
    """(T - mean) / std over all voxels of each cube; a constant cube becomes 0."""

    section = StandardiseConfig
    words = "standardised"
    turn = Turn.STANDARDISE
    random = False
    unitless = True

    def apply(self, kernels: Kernels, cube: Tensor, keys: Tensor, drawn: DeviceArrays) -> Tensor:
        total = cube_sums(kernels, cube)
        squares = cube_squares(kernels, cube, total)
        kernels.elementwise("standardise", len(cube), cube[0].numel(), total, squares, cube)
        return cube


PIXELS_OF_CHUNK = 256
"""Pixels whose products are added before those of other chunks, as in kernels/pca.cuh."""


@dataclass(frozen=True)
class PCAConfig:
    """The leading principal components along frequency are subtracted from every cube."""

    modes: int = setting(help="how many; fewer than there are channels [COMAP: 5]", low=1)


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
