"""The array operations that the synthesis is written with: on NumPy, or on torch tensors.

The method (`density`, `halo_rates`, `sampler`) is stated once, with operators and with what is
below. `NumpyArrays` is the reference: lightcones on disk are identified by a digest, and it makes
the very halos on every x86-64 processor, without a matrix library, whose kernels are those of a
processor. `torch_arrays.TorchArrays` does the same on a GPU; it is imported where one is asked for,
since torch takes a process of `catalog make` longer to import than a small lightcone to make.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from scipy.fft import irfftn, rfftn
from scipy.special import ndtri

from streamtrain.catalogs.synthesis.box import random_bits
from streamtrain.machine.memory import free_memory
from streamtrain.numerics import portable

Array: TypeAlias = Any
"""A NumPy array or a torch tensor, whichever the operations in use take."""

_PRODUCT_PIECE = 2048
"""Columns of a matrix product that are made at a time."""


class NumpyArrays:
    """The operations that the method needs, by NumPy and SciPy on the host; the reference for
    `torch_arrays.TorchArrays`, whose methods do the same on a GPU."""

    name = "cpu"
    where = "memory"
    """The device that holds the arrays."""
    math: Any = np
    """The module of functions that NumPy and torch both have under one name."""
    float32: Any = np.float32
    float64: Any = np.float64
    complex128: Any = np.complex128
    index: Any = np.intp
    """Type of positions in arrays, and the smallest ones that hold cells, ranks and nodes."""
    cell: Any = np.uint32
    rank: Any = np.uint16
    node: Any = np.uint8
    cells_per_piece = 1 << 17
    """What one thread works on at a time."""
    words_per_piece = 1 << 19
    bytes_per_cell = 55
    """Most that a field of one slab takes, about."""
    keeps_plans = False
    """Whether the active cells are kept from field to field: a host has cores to find them again,
    and less room."""

    def pool(self, threads: int) -> Executor:
        """What `pool.map` and `pool.submit` of the method run on."""
        return ThreadPoolExecutor(threads)

    def put(self, array: np.ndarray) -> Array:
        """A host array as an array of this kind."""
        return array

    def get(self, array: Array) -> np.ndarray:
        """An array of this kind on the host."""
        return array

    def empty(self, shape: Sequence[int], dtype: Any) -> Array:
        """An array of this shape and type whose values are not set."""
        return np.empty(shape, dtype)

    def zeros(self, shape: Sequence[int], dtype: Any) -> Array:
        """An array of zeros of this shape and type."""
        return np.zeros(shape, dtype)

    def cast(self, array: Array, dtype: Any) -> Array:
        """A copy of the array with another type."""
        return array.astype(dtype)

    def permute(self, array: Array, axes: tuple[int, ...]) -> Array:
        """A view with other axes first."""
        return array.transpose(axes)

    def rfftn(self, field: Array) -> Array:
        """The half space of modes of a real field, which may be overwritten."""
        return rfftn(field, workers=2, overwrite_x=True)

    def irfftn(self, modes: Array, shape: tuple[int, int, int], workers: int) -> Array:
        """The real field of the half space of modes, which may be overwritten."""
        return irfftn(modes, s=shape, overwrite_x=True, workers=workers)

    def exp(self, array: Array) -> Array:
        """The exponential, in place."""
        return np.exp(array, out=array)

    def exp10(self, array: Array) -> Array:
        """10 to the power of an array of float64."""
        return portable.exp10(array)

    def square(self, array: Array) -> Array:
        """The square in place."""
        return np.square(array, out=array)

    def at_least(self, array: Array, least: float) -> Array:
        """The array with every element below `least` raised to it."""
        return np.maximum(array, array.dtype.type(least))

    def product(self, left: Array, right: Array, out: Array) -> None:
        """out = left @ right, [..., rows, inner] and [..., inner, columns]: products that are added
        up from the first to the last, each rounded, so that the bits are the same on every
        processor. Those of a matrix library are not, and its spinning threads lose a factor of ten
        on a busy machine where the caller has threads."""
        if np.iscomplexobj(out):
            real, imaginary = (np.ascontiguousarray(part) for part in (right.real, right.imag))
            parts = [np.ascontiguousarray(part) for part in (left.real, left.imag)]
            other = np.empty(out.shape, out.real.dtype)
            for target, (first, second), sign in (
                (out.real, (real, imaginary), np.subtract),
                (out.imag, (imaginary, real), np.add),
            ):
                own = np.empty_like(other)
                self.product(parts[0], first, own)
                self.product(parts[1], second, other)
                sign(own, other, out=target)
            return
        add_up = _by_einsum if _einsum_is_plain() else _by_row
        for start in range(0, right.shape[-1], _PRODUCT_PIECE):
            piece = slice(start, start + _PRODUCT_PIECE)
            add_up(left, right[..., piece], out[..., piece])

    def ndtri(self, uniform: Array) -> Array:
        """Standard normal numbers of uniform ones."""
        return ndtri(uniform)

    def random_bits(self, key: int, stage: int, start: int, stop: int) -> Array:
        """`box.random_bits`, the same words on any device."""
        return random_bits(key, stage, start, stop)

    def halves(self, words: Array) -> Array:
        """Each 64-bit word as two whole numbers below 2^32, the lower half first."""
        return words.astype("<u8").view("<u4")

    def as_words(self, array: Array) -> Array:
        """Whole numbers as 64-bit words."""
        return array.astype(np.uint64)

    def interp(self, x: Array, grid: Array, values: Array) -> Array:
        """Linear interpolation on increasing nodes."""
        return np.interp(x, grid, values)

    def degrees(self, radians: Array) -> Array:
        """Angles in degrees from angles in radians."""
        return np.degrees(radians)

    def flatnonzero(self, array: Array) -> Array:
        """Numbers of the elements that are not zero, in row order."""
        return np.flatnonzero(array)

    def order(self, keys: Array) -> Array:
        """The order that sorts, equal keys as they are."""
        return np.argsort(keys, kind="stable")

    def free_memory(self) -> int:
        """Memory that can be used [bytes]."""
        return free_memory()


def _by_einsum(left: Array, right: Array, out: Array) -> None:
    """out = left @ right by NumPy's own loops."""
    np.einsum("...ij,...jk->...ik", left, right, out=out, optimize=False)


def _by_row(left: Array, right: Array, out: Array) -> None:
    """out = left @ right, one product after the other."""
    np.multiply(left[..., :, :1], right[..., :1, :], out=out)
    term = np.empty_like(out)
    for k in range(1, right.shape[-2]):
        np.multiply(left[..., :, k, None], right[..., k, None, :], out=term)
        out += term


@lru_cache
def _einsum_is_plain() -> bool:
    """Whether NumPy's loops round every product and every sum, in their order, as they do on
    x86-64: where they are compiled for a processor that always has fused multiply-adds, as on ARM,
    they need not."""
    bits = random_bits(0, 0, 0, 7 * 40 + 40 * 300)
    values = (bits >> np.uint64(40)).astype(np.float64) * 2.0**-23 - 1.0
    for kind in (np.float32, np.float64):
        numbers = (values / 3.0).astype(kind)
        left, right = numbers[: 7 * 40].reshape(7, 40), numbers[7 * 40 :].reshape(40, 300)
        made = np.empty((2, 7, 300), kind)
        _by_einsum(left, right, made[0])
        _by_row(left, right, made[1])
        if not np.array_equal(*made):
            return False
    return True


NUMPY = NumpyArrays()
