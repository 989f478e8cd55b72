"""Density modes longer than a field, summed exactly on the cells of its box.

A field is narrow: the modes above its width carry most of the bulk flow and of the scatter
between fields. In a periodic box no larger than the field they are missing or, along its long
axis, badly sampled: the modes of a 160 x 160 x 1200 Mpc box give velocities of 161, 161 and
406 km/s at z = 2.87, where linear theory has 211. So the power is split, P = P_long + P_short,
`P_long = P exp(-(k/ks)^2)`, and the few modes of P_long in a much larger box are summed at every
cell centre, one matrix product per axis: 204, 204 and 215 km/s. Missing remains what is longer
than the larger box.

Arrays `_kxyz` are [num_kx, num_ky, num_kz] with kz >= 0.
"""

from __future__ import annotations

import copy
import math

import numpy as np
from numpy.typing import NDArray

from streamtrain.catalogs.arrays import NUMPY, Array, NumpyArrays
from streamtrain.catalogs.box import Box, along, uniform
from streamtrain.cosmology import Cosmology

SPLIT_K = 0.06
"""ks, where the power passes from the long to the short modes [1/Mpc]."""
MAX_K = 0.174
"""Largest component of a long mode [1/Mpc]; there exp(-(k/ks)^2) has fallen to 2e-4."""
LONG_BOX_MPC = (800.0, 800.0, 1600.0)
"""Least sides of the larger box; it also exceeds the field's box by half."""


def long_fraction(k2: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of the power in long modes at squared wavenumber k2 [1/Mpc^2]."""
    return np.exp(-k2 / SPLIT_K**2)


class LongModes:
    """The long modes over one field's box.

    A field is `Re sum_k c_k exp(i k x)`: for kz > 0 a mode stands for itself and its conjugate,
    <|c|^2> = 4 P/V; in the plane kz = 0 both are drawn, <|c|^2> = 2 P/V. The mean is zero.
    """

    def __init__(self, box: Box, cosmology: Cosmology, arrays: NumpyArrays = NUMPY) -> None:
        """`box` is the whole field's, `at` gives the modes on a part of it."""
        self.arrays = arrays
        sides = [
            max(least, 1.5 * num * box.cell_Mpc)
            for least, num in zip(LONG_BOX_MPC, box.shape, strict=True)
        ]
        steps = [2.0 * np.pi / side for side in sides]
        tops = [int(MAX_K / step) for step in steps]
        k_axes = [
            step * np.arange(-top if axis < 2 else 0, top + 1, dtype=np.float64)
            for axis, (step, top) in enumerate(zip(steps, tops, strict=True))
        ]
        self.k = [along(k, axis) for axis, k in enumerate(k_axes)]
        self.k2 = self.k[0] ** 2 + self.k[1] ** 2 + self.k[2] ** 2
        power = cosmology.linear_power(np.sqrt(self.k2)) * long_fraction(self.k2)
        power[self.k2 == 0.0] = 0.0
        copies = np.where(self.k[2] > 0.0, 2.0, 1.0)
        self.variance = copies * power / np.prod(sides)
        """Share of each mode in the variance of the field at z = 0."""
        self.inverse_k2 = np.where(self.k2 > 0.0, 1.0 / np.maximum(self.k2, 1e-30), 0.0)

        self._k_axes = k_axes
        self._place(box)

    def _place(self, box: Box) -> None:
        pairs = [
            _smooth_basis(np.outer(box.centres(axis), k)) for axis, k in enumerate(self._k_axes)
        ]
        (basis_x, _), (basis_y, _), (basis_z, _) = pairs
        bases = (basis_x, basis_y, np.ascontiguousarray(basis_z.T))
        self._basis = [self.arrays.put(basis) for basis in bases]
        self._weights = [self.arrays.put(weights) for _, weights in pairs]

    def at(self, box: Box) -> LongModes:
        """The same modes, to be summed on the cells of another box."""
        other = copy.copy(self)
        other._place(box)
        return other

    def draw(self, key: int, stage: int) -> Array:
        """One realisation of c_k, from one random stream."""
        words = self.arrays.random_bits(key, stage, 0, 2 * self.variance.size)
        normal = self.arrays.ndtri(uniform(words))
        real, imaginary = normal.reshape(2, *self.variance.shape)
        return self.arrays.put(np.sqrt(self.variance)) * (real + 1j * imaginary)

    def to_cells(self, modes_kxyz: Array) -> Array:
        """The field of the given c_k at the cell centres, [nx, ny, nz]."""
        arrays, small = self.arrays, modes_kxyz
        for weights in self._weights:  # contracts the first axis, appends the new one
            _, *rest = small.shape
            product = arrays.empty((len(weights), math.prod(rest)), arrays.complex128)
            arrays.product(weights, small.reshape(len(small), -1), product)
            small = product.T.reshape(*rest, len(weights))
        basis_x, basis_y, basis_z = self._basis
        nx, ny, nz = len(basis_x), len(basis_y), basis_z.shape[1]
        core = arrays.cast(small.real, arrays.float32)
        rank_x, rank_y, _ = core.shape
        along_z = arrays.empty((rank_x, rank_y, nz), arrays.float32)
        arrays.product(core, basis_z, along_z)
        along_yz = arrays.empty((rank_x, ny, nz), arrays.float32)
        arrays.product(basis_y, along_z, along_yz)
        field = arrays.empty((nx, ny, nz), arrays.float32)
        swapped = (1, 0, 2)
        arrays.product(basis_x, arrays.permute(along_yz, swapped), arrays.permute(field, swapped))
        return field


def _smooth_basis(
    phases: NDArray[np.float64],
) -> tuple[NDArray[np.float32], NDArray[np.complex128]]:
    """exp(i phases) = basis @ weights to 1e-6: `basis` [n, rank] is real with orthonormal columns,
    `weights` [rank, num_k] complex. The waves on an interval much shorter than their box are
    nearly dependent, so the rank is well below the number of waves."""
    waves = np.exp(1j * phases)
    left, singular, _ = np.linalg.svd(np.hstack([waves.real, waves.imag]), full_matrices=False)
    basis = left[:, singular > 1e-6 * singular[0]]
    return basis.astype(np.float32), basis.T @ waves
