"""The array operations of the synthesis on torch tensors, for a GPU.

Fourier transforms and exponentials round the last bit elsewhere than those of `arrays.NumpyArrays`.
torch has no unsigned 64-bit arithmetic, so words are int64 with the same bits: products and sums
wrap around alike, and shifts to the right are masked (`box.down`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Any

import numpy as np
import torch

from streamtrain.catalogs.synthesis.arrays import Array, NumpyArrays
from streamtrain.catalogs.synthesis.box import down, signed

_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_STEPS = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_MASK = 0xFFFFFFFF


class Inline(Executor):
    """Runs what it is given at once, in the caller's thread: a device has its own parallelism, and
    torch's current device belongs to a thread."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **more: Any) -> Future[Any]:
        """Call the function at once, and return a Future that is done."""
        done: Future[Any] = Future()
        done.set_result(function(*args, **more))
        return done


class TorchArrays(NumpyArrays):
    """The operations of `NumpyArrays` on torch tensors of one device."""

    math = torch
    float32 = torch.float32
    float64 = torch.float64
    complex128 = torch.complex128
    index = torch.int64
    cell = torch.int64
    rank = torch.int64
    node = torch.int64
    cells_per_piece = 1 << 23
    words_per_piece = 1 << 22
    bytes_per_cell = 230
    keeps_plans = True

    def __init__(self, device: torch.device) -> None:
        self.device, self.where = device, str(device)
        model = torch.cuda.get_device_name(device) if device.type == "cuda" else "host"
        self.name = f"{device.type} ({model}, torch {torch.__version__})"

    def pool(self, threads: int) -> Executor:
        return Inline()

    def put(self, array: np.ndarray) -> Array:
        if array.dtype in (np.uint8, np.uint16, np.uint32, np.intp):
            array = array.astype(np.int64)
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def get(self, array: Array) -> np.ndarray:
        return array.cpu().numpy()

    def empty(self, shape: Sequence[int], dtype: Any) -> Array:
        return torch.empty(tuple(shape), dtype=dtype, device=self.device)

    def zeros(self, shape: Sequence[int], dtype: Any) -> Array:
        return torch.zeros(tuple(shape), dtype=dtype, device=self.device)

    def cast(self, array: Array, dtype: Any) -> Array:
        return array.to(dtype)

    def permute(self, array: Array, axes: tuple[int, ...]) -> Array:
        return array.permute(axes)

    def rfftn(self, field: Array) -> Array:
        return torch.fft.rfftn(field)

    def irfftn(self, modes: Array, shape: tuple[int, int, int], workers: int) -> Array:
        return torch.fft.irfftn(modes, s=shape)

    def exp(self, array: Array) -> Array:
        return array.exp_()

    def exp10(self, array: Array) -> Array:
        return 10.0**array

    def square(self, array: Array) -> Array:
        return array.square_()

    def at_least(self, array: Array, least: float) -> Array:
        return array.clamp(min=least)

    def product(self, left: Array, right: Array, out: Array) -> None:
        out.copy_(left @ right)

    def ndtri(self, uniform: Array) -> Array:
        return torch.special.ndtri(uniform)

    def random_bits(self, key: int, stage: int, start: int, stop: int) -> Array:
        """Philox4x64-10 as NumPy's generator runs it: the counter goes up before each block."""
        first, last = start // 4, -(-stop // 4)
        blocks = torch.arange(first + 1, last + 1, dtype=torch.int64, device=self.device)
        zero = torch.zeros_like(blocks)
        c0, c1, c2, c3 = blocks, zero, zero, zero + stage
        k0, k1 = key & 2**64 - 1, key >> 64 & 2**64 - 1
        for _ in range(10):
            high0, low0 = _times(_MULTIPLIERS[0], c0)
            high1, low1 = _times(_MULTIPLIERS[1], c2)
            c0, c1 = high1 ^ c1 ^ signed(k0), low1
            c2, c3 = high0 ^ c3 ^ signed(k1), low0
            k0, k1 = ((k + step) & 2**64 - 1 for k, step in zip((k0, k1), _STEPS, strict=True))
        return torch.stack([c0, c1, c2, c3], dim=1).reshape(-1)[
            start - 4 * first : stop - 4 * first
        ]

    def halves(self, words: Array) -> Array:
        # As float64, which holds them: whole numbers plus 0.5 would become float32.
        return torch.stack([words & _MASK, down(words, 32)], dim=1).reshape(-1).double()

    def as_words(self, array: Array) -> Array:
        return array.to(torch.int64)

    def interp(self, x: Array, grid: Array, values: Array) -> Array:
        lower = (torch.searchsorted(grid, x.contiguous(), right=True) - 1).clamp(0, len(grid) - 2)
        slope = (values[1:] - values[:-1]) / (grid[1:] - grid[:-1])
        inside = x.clamp(min=grid[0], max=grid[-1])
        return slope[lower] * (inside - grid[lower]) + values[lower]

    def degrees(self, radians: Array) -> Array:
        return torch.rad2deg(radians)

    def flatnonzero(self, array: Array) -> Array:
        return array.reshape(-1).nonzero().reshape(-1)

    def order(self, keys: Array) -> Array:
        return torch.argsort(keys, stable=True)

    def free_memory(self) -> int:
        if self.device.type != "cuda":
            return super().free_memory()
        return int(torch.cuda.mem_get_info(self.device)[0])


def _times(factor: int, words: Array) -> tuple[Array, Array]:
    """Upper and lower half of the 128-bit products of a 64-bit constant with words."""
    high, low = factor >> 32, factor & _MASK
    words_high, words_low = down(words, 32), words & _MASK
    middle = high * words_low + down(low * words_low, 32)
    other = low * words_high + (middle & _MASK)
    upper = high * words_high + down(middle, 32) + down(other, 32)
    return upper, words * signed(factor)
