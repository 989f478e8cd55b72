"""The box of cells that a density field lives on, and the random streams that fill it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

GOLDEN = 0x9E3779B97F4A7C15
"""2^64 over the golden ratio: the step between the states of SplitMix64."""


@dataclass(frozen=True)
class Box:
    """A periodic box of cubic cells; arrays on it are [x, y, z], z fastest."""

    shape: tuple[int, int, int]
    """Number of cells along x, y and z."""
    cell_Mpc: float
    """Side of a cell [Mpc]."""
    corner_Mpc: tuple[float, float, float]
    """Position of the lower corner of the first cell [Mpc]."""
    first_cell: int = 0
    """Flat number of the first cell in the box that this one was cut from."""

    @property
    def num_cells(self) -> int:
        """How many cells the box has."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    def centres(self, axis: int) -> NDArray[np.float64]:
        """Coordinates of the cell centres along one axis [Mpc]."""
        index = np.arange(self.shape[axis], dtype=np.float64) + 0.5
        return self.corner_Mpc[axis] + self.cell_Mpc * index

    def cut(self, start: int, stop: int) -> Box:
        """The planes start..stop along x: its cells are consecutive cells of this box."""
        x, y, z = self.corner_Mpc
        return Box(
            (stop - start, *self.shape[1:]),
            self.cell_Mpc,
            (x + start * self.cell_Mpc, y, z),
            self.first_cell + start * self.shape[1] * self.shape[2],
        )


def along(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Values of one axis, shaped to broadcast over the other two."""
    return values.reshape([-1 if i == axis else 1 for i in range(3)])


def random_bits(key: int, stage: int, start: int, stop: int) -> NDArray[np.uint64]:
    """Words start..stop of a Philox4x64 stream: a function of (key, stage, word number) alone."""
    first = start // 4
    stream = np.random.Philox(key=key, counter=[first, 0, 0, stage])
    return stream.random_raw(stop - 4 * first)[start - 4 * first :]


def cell_words(key: int, stage: int, cells: Any) -> Any:
    """One random word per cell number (words), in any order: SplitMix64 at that place of a sequence
    that the key and the stage start, mixed with the key once more."""
    low, high = (key >> shift & 2**64 - 1 for shift in (0, 64))
    start = int(mix(np.array([((stage + 1) * GOLDEN + low) % 2**64], np.uint64))[0])
    words = mix(cells * constant(GOLDEN, cells) + constant(start, cells))
    return mix(words ^ constant(high, cells))


def uniform(words: Any) -> Any:
    """Uniform numbers in (0, 1) from the upper 52 bits."""
    upper = down(words, 12)
    whole = upper.astype(np.float64) if isinstance(upper, np.ndarray) else upper.double()
    return (whole + 0.5) * 2.0**-52


def mix(words: Any) -> Any:
    """The finaliser of SplitMix64 (Steele, Lea & Flood 2014): one random word per input word.

    Words are uint64 arrays, or int64 tensors of the same bits.
    """
    words = (words ^ down(words, 30)) * constant(0xBF58476D1CE4E5B9, words)
    words = (words ^ down(words, 27)) * constant(0x94D049BB133111EB, words)
    return words ^ down(words, 31)


def down(words: Any, bits: int) -> Any:
    """Words shifted to the right by `bits`, zeros following from the left."""
    if isinstance(words, np.ndarray):
        return words >> np.uint64(bits)
    return (words >> bits) & (1 << (64 - bits)) - 1


def constant(value: int, words: Any) -> Any:
    """A 64-bit constant that words can be multiplied with or added to."""
    return np.uint64(value) if isinstance(words, np.ndarray) else signed(value)


def signed(value: int) -> int:
    """The number that has the bits of an unsigned 64-bit number as an int64."""
    return value - (value >> 63 << 64)
