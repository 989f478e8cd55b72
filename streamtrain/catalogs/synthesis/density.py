"""A Gaussian random density field over one box of cells, and the displacements that follow from it.

Second-order Lagrangian perturbation theory (2LPT), everything linearly extrapolated to z = 0: a
particle that starts at q is, at growth factor D, at `x = q + D psi1(q) + D^2 psi2(q)`.

A field is narrow: the modes above its width carry most of the bulk flow and of the scatter
between fields. In a periodic box no larger than the field they are missing or, along its long
axis, badly sampled: the modes of a 160 x 160 x 1200 Mpc box give velocities of 161, 161 and
406 km/s at z = 2.87, where linear theory has 211. So the power is split, P = P_long + P_short,
`P_long = P exp(-(k/ks)^2)`. The few modes of P_long in a much larger box are summed at every cell
centre (`LongModes`), one matrix product per axis: 204, 204 and 215 km/s. Missing remains what is
longer than the larger box. The short modes (`DensityModes`) are white noise on the cells, coloured
by FFT and periodic. So the field as a whole is not periodic, and the outermost 40 Mpc are padding.

Arrays are [x, y, z] with z fastest; `_kxyz` arrays hold the half space of rfftn, [nx, ny, nz/2+1],
those of the long modes [num_kx, num_ky, num_kz] with kz >= 0.

References:
    Transients from initial conditions in cosmological simulations
    (Crocce, Pueblas & Scoccimarro, 2006), arXiv:astro-ph/0606505
    Cosmological structure formation with augmented Lagrangian perturbation theory
    (Kitaura & Hess, 2013), arXiv:1212.3514, where small scales have displacements of their own
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from streamtrain.catalogs.synthesis.arrays import NUMPY, Array, NumpyArrays
from streamtrain.catalogs.synthesis.box import Box, along, settled, uniform
from streamtrain.cosmology import Cosmology
from streamtrain.machine.workers import num_cores
from streamtrain.numerics import portable

SPLIT_K = 0.06
"""ks, where the power passes from the long to the short modes [1/Mpc]."""
MAX_K = 0.174
"""Largest component of a long mode [1/Mpc]; there exp(-(k/ks)^2) has fallen to 2e-4."""
LONG_BOX_MPC = (800.0, 800.0, 1600.0)
"""Least sides of the larger box; it also exceeds the field's box by half."""


def long_fraction(k2: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of the power in long modes at squared wavenumber k2 [1/Mpc^2]."""
    return portable.exp(-k2 / SPLIT_K**2)


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
        power = PowerTable(cosmology, min(steps), 2.0 * MAX_K)(self.k2) * long_fraction(self.k2)
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
        """These modes, to be summed on the cells of another box."""
        other = copy.copy(self)
        other._place(box)
        return other

    def draw(self, key: int, stage: int) -> Array:
        """One realisation of c_k, from one random stream."""
        arrays = self.arrays
        words = arrays.random_bits(key, stage, 0, 2 * self.variance.size)
        normal = arrays.cast(arrays.ndtri(uniform(words)), arrays.float32)
        real, imaginary = normal.reshape(2, *self.variance.shape)
        return arrays.put(np.sqrt(self.variance)) * (real + 1j * imaginary)

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
        along_z = arrays.empty((rank_x * rank_y, nz), arrays.float32)
        arrays.product(core.reshape(rank_x * rank_y, -1), basis_z, along_z)
        along_yz = arrays.empty((rank_x, ny, nz), arrays.float32)
        arrays.product(basis_y, along_z.reshape(rank_x, rank_y, nz), along_yz)
        field = arrays.empty((nx, ny, nz), arrays.float32)
        arrays.product(basis_x, along_yz.reshape(rank_x, -1), field.reshape(nx, -1))
        return field


def _smooth_basis(
    phases: NDArray[np.float64],
) -> tuple[NDArray[np.float32], NDArray[np.complex128]]:
    """exp(i phases) = basis @ weights to 1e-6: `basis` [n, rank] is real with orthonormal columns,
    `weights` [rank, num_k] complex. The waves on an interval much shorter than their box are
    nearly dependent, so the rank is well below the number of waves.

    By Gram and Schmidt, the largest remainder first: singular vectors would be fewer by a few, but
    those of nearly equal values are whatever the kernels make of them that a matrix library has for
    a processor. Sums go row by row, whatever the width of its vectors.
    """
    sine, cosine = portable.sincos_turns(phases / (2.0 * np.pi))
    rest = np.hstack([cosine, sine])
    squares = np.sum(rest * rest, axis=0)
    least = 1e-12 * squares.max()
    columns, shares = [], []
    while squares.max() > least:
        largest = int(squares.argmax())
        column = rest[:, largest] / np.sqrt(squares[largest])
        share = np.sum(column[:, None] * rest, axis=0)
        rest -= column[:, None] * share
        squares = np.sum(rest * rest, axis=0)
        columns.append(column)
        shares.append(share)
    real, imaginary = np.hsplit(np.stack(shares), 2)
    return np.stack(columns, axis=1).astype(np.float32), real + 1j * imaginary


T = TypeVar("T")
R = TypeVar("R")

NOISE_STAGE = 0
LONG_STAGE = 1
"""Random streams of the short and of the long modes; a sampler takes the numbers above."""

INFALL_MPC = 2.0
"""Scale below which displacements can be other than those of 2LPT."""
LARGE_BOX = 20_000_000
"""Cells of a box above which memory is saved rather than time."""

_K_BINS = 4096


@dataclass(frozen=True)
class DensityField:
    """One realisation of the linear density contrast at z = 0."""

    short_kxyz: Array
    """Modes of the periodic part, complex64."""
    long_kxyz: Array
    """Modes of `LongModes`, complex128."""


class DensityModes:
    """The modes over one box: draws of the field, its filters and its displacements.

    Domain: linear density contrast at z = 0 with the power spectrum of `cosmology`; variances are
    those of the very modes that are summed. Nothing here depends on a seed but `draw`.
    """

    def __init__(
        self,
        box: Box,
        cosmology: Cosmology,
        whole: Box | None = None,
        arrays: NumpyArrays = NUMPY,
    ) -> None:
        """`whole` is the box that `box` was cut from, which decides on the long modes; `arrays`
        says on what fields are made. The tables here are prepared on the host."""
        self.box, self.arrays = box, arrays
        self.long = LongModes(box if whole is None else whole, cosmology, arrays).at(box)
        step = 2.0 * np.pi / box.cell_Mpc
        nx, ny, nz = box.shape
        waves = (np.fft.fftfreq(nx), np.fft.fftfreq(ny), np.fft.rfftfreq(nz))
        k = [along(step * wave.astype(np.float64), axis) for axis, wave in enumerate(waves)]
        k2 = k[0] ** 2 + k[1] ** 2 + k[2] ** 2
        power_at = PowerTable(cosmology, step / max(box.shape) / 2.0, 2.0 * step)
        power = np.stack([power_at(plane) * (1.0 - long_fraction(plane)) for plane in k2])
        power[0, 0, 0] = 0.0
        self._k2 = arrays.put(k2.astype(np.float32))
        self._amplitude = arrays.put(np.sqrt(power / box.cell_Mpc**3).astype(np.float32))
        # i k is not Hermitian at the Nyquist frequency of an even side: no gradient there.
        gradient = [np.where(np.abs(ki) > 0.4999 * step, 0.0, ki) for ki in k]
        self._k = [arrays.put(ki.astype(np.float32)) for ki in gradient]
        window = [1.0 / np.sinc(ki / step) for ki in k]
        self._inverse_window = [arrays.put(one.astype(np.float32)) for one in window]
        long_windows = [1.0 / np.sinc(ki / step) for ki in self.long.k]
        long_window = long_windows[0] * long_windows[1] * long_windows[2]
        self._long_inverse_window = arrays.put(long_window)
        self._long_k = [arrays.put(ki) for ki in self.long.k]
        self._long_k2, self._long_inverse_k2 = map(arrays.put, (self.long.k2, self.long.inverse_k2))

        copies = np.full(nz // 2 + 1, 2.0)
        copies[0] = 1.0
        if nz % 2 == 0:
            copies[-1] = 1.0
        power *= copies / (box.num_cells * box.cell_Mpc**3)
        inverse_k4 = 1.0 / np.maximum(k2, 1e-30) ** 2
        self.displacement_rms = np.sqrt(
            [np.sum(power * inverse_k4 * ki**2) for ki in k]
            + np.array(
                [
                    np.sum(self.long.variance * (self.long.inverse_k2 * ki) ** 2)
                    for ki in self.long.k
                ]
            )
        )
        """Linear rms displacement along x, y and z at z = 0 [Mpc], [3]."""
        del inverse_k4
        for axis_window in window:
            power *= axis_window**2
        self._k_step = float(np.sqrt(k2.max())) / _K_BINS
        self._variance_per_bin = self._binned(k2, power) + self._binned(
            self.long.k2, self.long.variance * long_window**2
        )

    def at(self, box: Box) -> DensityModes:
        """These modes in another box of the same shape, cut from the same whole."""
        other = copy.copy(self)
        other.box, other.long = box, self.long.at(box)
        return other

    def _binned(self, k2: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
        bins = np.minimum(np.sqrt(k2) / self._k_step, _K_BINS - 1).astype(np.intp)
        return np.bincount(bins.ravel(), weight.ravel(), minlength=_K_BINS).astype(np.float64)

    def variance(self, k_cut: float) -> float:
        """Ensemble variance of `filtered` fields at z = 0."""
        k = (np.arange(_K_BINS) + 0.5) * self._k_step
        return float(np.sum(self._variance_per_bin * np.exp(-((k / k_cut) ** 4))))

    def draw(self, key: int, pool: Executor) -> DensityField:
        """One realisation; cell n of the whole takes half a word of the noise stream."""
        arrays, size = self.arrays, self.box.num_cells
        noise = arrays.empty((size,), arrays.float32)
        first = self.box.first_cell  # even, as is every FFT length

        def fill(start: int) -> None:
            stop = min(start + piece, size)
            words = (first + start) // 2, (first + stop + 1) // 2
            bits = arrays.random_bits(key, NOISE_STAGE, *words)
            uniform = (arrays.halves(bits)[: stop - start] + 0.5) * 2.0**-32
            noise[start:stop] = arrays.ndtri(uniform)

        piece = 2 * arrays.words_per_piece
        list(pool.map(fill, range(0, size, piece)))
        short = arrays.rfftn(noise.reshape(self.box.shape))
        short *= self._amplitude
        return DensityField(short, self.long.draw(key, LONG_STAGE))

    def deconvolved(self, density: DensityField) -> DensityField:
        """The field before it was averaged over cells, as `filtered` wants it."""
        short = density.short_kxyz * self._inverse_window[0]
        for inverse in self._inverse_window[1:]:
            short *= inverse
        return DensityField(short, density.long_kxyz * self._long_inverse_window)

    def filtered(self, deconvolved: DensityField, k_cut: float) -> Array:
        """The field seen through exp(-(k/k_cut)^4/2), [nx, ny, nz]."""
        window = self._k2 * np.float32(1.0 / k_cut**2)
        window = self.arrays.square(window)
        window *= np.float32(-0.5)
        window = self.arrays.exp(window)
        long_window = self.arrays.put(portable.exp(-0.5 * (self.long.k2 / k_cut**2) ** 2))
        return self._to_cells(deconvolved.short_kxyz * window, deconvolved.long_kxyz * long_window)

    def displacements(
        self,
        density: DensityField,
        pool: Executor,
        report: Callable[[float], None] = lambda done: None,
        infall: float = 0.0,
    ) -> Array:
        """psi1 and psi2 at the cell centres [Mpc], [nx, ny, nz, 6]: x, y, z of the first, then
        of the second order (`+3/7 i k/k^2` times the source).

        report: called with the fraction done. infall: the potential of both is multiplied by
        1 + infall (kR)^2 / (1 + (kR)^2), R = `INFALL_MPC`: above 0 it makes up for collapse on
        small scales that 2LPT misses, below 0 it takes away some that it overdoes.
        """
        arrays = self.arrays
        inverse_k2 = 1.0 / arrays.at_least(self._k2, 1e-12)
        inverse_k2[0, 0, 0] = 0.0
        short = density.short_kxyz * inverse_k2
        long = density.long_kxyz * self._long_inverse_k2
        if infall:
            short *= _more_on_small_scales(self._k2, infall)
            long *= _more_on_small_scales(self._long_k2, infall)

        def second_derivative(axes: tuple[int, int]) -> Array:
            i, j = axes
            return self._to_cells(
                short * (self._k[i] * self._k[j]), long * (self._long_k[i] * self._long_k[j])
            )

        xx, yy, zz = self._each(second_derivative, [(0, 0), (1, 1), (2, 2)], pool)
        source = xx * yy
        xx += yy
        xx *= zz
        source += xx
        del xx, yy, zz
        mixed_axes = [(0, 1), (0, 2), (1, 2)]
        for done, mixed in enumerate(self._each(second_derivative, mixed_axes, pool), 3):
            report(done / 12)
            source -= arrays.square(mixed)
            del mixed
        second = arrays.rfftn(source)
        del source
        second *= inverse_k2
        second *= np.float32(3.0 / 7.0)
        del inverse_k2
        out = arrays.empty((*self.box.shape, 6), arrays.float32)

        def gradient(component: int) -> None:
            axis = component % 3
            if component < 3:
                out[..., component] = self._to_cells(
                    short * (1j * self._k[axis]), long * (1j * self._long_k[axis])
                )
            else:
                out[..., component] = self._short_to_cells(second * (1j * self._k[axis]))

        for done, _ in enumerate(self._each(gradient, range(6), pool), 6):
            report(done / 12)
        return out

    def _each(self, make: Callable[[T], R], of: Iterable[T], pool: Executor) -> Iterable[R]:
        """make(item) in turn; side by side where so many fields are no burden."""
        return map(make, of) if self.large else pool.map(make, of)

    @property
    def large(self) -> bool:
        """Whether the box is so large that one field at a time is in the making."""
        return self.box.num_cells > LARGE_BOX

    def _short_to_cells(self, short_kxyz: Array) -> Array:
        workers = num_cores() if self.large else 1
        return self.arrays.irfftn(short_kxyz, self.box.shape, workers)

    def _to_cells(self, short_kxyz: Array, long_kxyz: Array) -> Array:
        field = self._short_to_cells(short_kxyz)
        field += self.long.to_cells(long_kxyz)
        return field


def gather(table: Array, shape: tuple[int, int, int], place: Array, arrays: NumpyArrays) -> Array:
    """Trilinear interpolation of cell-centred rows at places in cells, [num, table columns]."""
    lower = arrays.cast(arrays.math.floor(place - 0.5), arrays.index)
    part = arrays.cast(place - 0.5 - lower, arrays.float32)
    sides = arrays.put(np.array(shape))
    near, far = lower % sides, (lower + 1) % sides
    weights = (1.0 - part, part)
    flat = [
        (index[:, 0] * (shape[1] * shape[2]), index[:, 1] * shape[2], index[:, 2])
        for index in (near, far)
    ]
    total = arrays.zeros((len(place), table.shape[1]), arrays.float32)
    for i in (0, 1):
        for j in (0, 1):
            plane = flat[i][0] + flat[j][1]
            weight = weights[i][:, 0] * weights[j][:, 1]
            for k in (0, 1):
                total += (weight * weights[k][:, 2])[:, None] * table[plane + flat[k][2]]
    return arrays.cast(total, arrays.float64)


def _more_on_small_scales(k2: Array, infall: float) -> Array:
    """Factor on a mode at squared wavenumber k2 [1/Mpc^2]."""
    squared = k2 * INFALL_MPC**2
    return 1.0 + infall * squared / (1.0 + squared)


class PowerTable:
    """P(k) today [Mpc^3] at many squared wavenumbers, from 1e4 nodes in ln k (wiggles to 1e-6)."""

    def __init__(self, cosmology: Cosmology, k_low: float, k_high: float) -> None:
        """k_low, k_high: range [1/Mpc]; P is constant beyond it."""
        low, high = (round(math.log(k), 6) for k in (k_low, k_high))
        self._log_k = np.linspace(low, high, 10_000)
        self._log_power = settled(np.log(cosmology.linear_power(np.exp(self._log_k))))

    def __call__(self, k2: NDArray[np.float64]) -> NDArray[np.float64]:
        log_k = 0.5 * portable.log(np.maximum(k2, 1e-30))
        return portable.exp(np.interp(log_k, self._log_k, self._log_power))
