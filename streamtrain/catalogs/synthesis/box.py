"""The box of cells that a density field lives on, and the random streams that fill it: `Box`; and
the one that the lightcones of some options are made in: `FieldBox`.

A field too large for memory is made in slabs along ra, each in a box of its own with 80 Mpc more
on both sides. White noise, long modes and the random numbers of a halo belong to cells of the
whole box, so slabs continue each other; what changes with the number of slabs is how the short
modes are wrapped around.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len

from streamtrain.catalogs.synthesis.options import SkyOptions
from streamtrain.cosmology import Cosmology

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


METHOD = "pbs2lpt"
METHOD_VERSION = 2
"""Goes up when the same options and seed give other halos."""
METHOD_REVISION = 1
"""Goes up when they give the same halos with other last bits, and with them another digest: a sky
keeps its name. Files that do not say theirs were made before there was one, when the last bits were
those of the processor's matrix library."""


def settled(table: Any) -> NDArray[np.float64]:
    """A table in float64 without its last digits: rounded to float32.

    What NumPy, SciPy and the C library compute differs in the last bit of float64 from processor to
    processor; of a rounded number that is left in one of some 1e8.
    """
    return np.asarray(table, np.float32).astype(np.float64)


PAD_MPC = 40.0
"""Least distance from the field to the edge of the periodic box [Mpc]."""
EDGE_SIGMAS = 4.5
"""Halos are made this many rms displacements beyond the edges of the field."""

SLAB_PAD_MPC = 80.0
"""What a slab's box has more on either side [Mpc]."""
MAX_CELLS = 150_000_000
"""Cells of one box; a larger field is made in slabs."""


@dataclass(frozen=True)
class Slab:
    """A part of the field, with the box that it is made in."""

    box: Box
    start: int
    """First plane of the box that belongs to the slab, up to `stop`; the others are padding."""
    stop: int


class FieldBox:
    """The box that the lightcones of one set of options are made in, and its random streams."""

    def __init__(self, options: SkyOptions) -> None:
        """`options` are those of one sky: none is drawn."""
        self.options = options
        cosmology = options.cosmology
        self.edges = _settled_Mpc(cosmology.comoving_distance(options.z_range))
        # Displacements are largest at the near end; along the line of sight velocity adds to them.
        near = options.z_range[0]
        rms = float(cosmology.growth(near)) * _displacement_rms(cosmology)
        cell_radius = options.cell_Mpc * math.sqrt(3.0) / 2.0
        self.margin = _settled_Mpc(EDGE_SIGMAS * rms + cell_radius)
        stretch = 1.0 + float(cosmology.growth_rate(options.z_range[1]))
        self.depth_margin = _settled_Mpc(EDGE_SIGMAS * rms * stretch + cell_radius)
        low, high = self.edges[0] - self.depth_margin, self.edges[1] + self.depth_margin
        self.chi_step = 0.5
        self.chi = np.arange(low - 1.0, high + 2.0, self.chi_step)
        """Comoving distances that halos of the field come from [Mpc]."""
        self.box = self._box()
        self.slabs = self._slabs()
        self.phases = hashlib.sha256(
            f"{METHOD} {METHOD_VERSION} {self.box.shape}".encode()
        ).hexdigest()

    def key(self, seed: int) -> int:
        """The 128-bit key of the random streams. All that decides their use is in it, so fields
        of the same seed share their phases if, and only if, they share the name of the sky."""
        return seed | int(self.phases[:16], 16) << 64

    def realisation(self, seed: int) -> str:
        """The name of the sky of a seed."""
        return f"{METHOD}-{seed}-{self.phases[:8]}"

    def _box(self) -> Box:
        """The smallest periodic box with room for the field and its padding."""
        cell = self.options.cell_Mpc
        half_ra, half_dec = (math.radians(side) / 2.0 for side in self.options.footprint_deg)
        pad = max(PAD_MPC, self.margin + cell)
        far = float(self.edges[1])
        depth_pad = max(PAD_MPC, self.depth_margin + cell)
        bottom = float(self.edges[0]) * math.cos(half_ra) * math.cos(half_dec) - depth_pad
        bottom = _settled_Mpc(bottom)
        sides = (
            2.0 * (far * math.sin(half_ra) + pad),
            2.0 * (far * math.sin(half_dec) + pad),
            far + depth_pad - bottom,
        )
        nx, ny, nz = (_fft_length(math.ceil(side / cell)) for side in sides)
        return Box((nx, ny, nz), cell, (-nx * cell / 2.0, -ny * cell / 2.0, bottom))

    def _slabs(self) -> list[Slab]:
        """Slabs of boxes of one shape; their planes along x follow each other."""
        nx, ny, nz = self.box.shape
        pad = math.ceil(SLAB_PAD_MPC / self.box.cell_Mpc)
        for number in [self.options.num_slabs] if self.options.num_slabs else range(1, 65):
            edges = [nx * i // number for i in range(number + 1)]
            widest = max(stop - start for start, stop in pairwise(edges))
            width = nx if number == 1 else min(nx, _fft_length(widest + 2 * pad))
            if width * ny * nz <= MAX_CELLS:
                break
        slabs = []
        for start, stop in pairwise(edges):
            first = min(max(start - (width - (stop - start)) // 2, 0), nx - width)
            box = self.box.cut(first, first + width)
            slabs.append(Slab(box, start - first, stop - first))
        return slabs

    def active_cells(self, slab: Slab) -> tuple[NDArray[np.uint32], NDArray[np.uint16]]:
        """Flat numbers of the slab's cells whose halos may end up in the field, and chi bins."""
        tan_ra, tan_dec = (math.tan(math.radians(s) / 2.0) for s in self.options.footprint_deg)
        x, y, z = (slab.box.centres(axis) for axis in range(3))
        yz2 = y[:, None] ** 2 + z**2
        active, bins = [], []
        for row in range(slab.start, slab.stop):
            chi = np.sqrt(x[row] ** 2 + yz2)
            inside = (chi >= self.edges[0] - self.depth_margin) & (
                chi <= self.edges[1] + self.depth_margin
            )
            inside &= np.abs(x[row]) <= z * tan_ra + self.margin
            inside &= np.abs(y[:, None]) <= np.hypot(x[row], z) * tan_dec + self.margin
            index = np.flatnonzero(inside)
            active.append((index + row * chi.size).astype(np.uint32))
            place = np.rint((chi.ravel()[index] - self.chi[0]) / self.chi_step)
            bins.append(place.astype(np.uint16))
        return np.concatenate(active), np.concatenate(bins)


def _settled_Mpc(length: Any) -> Any:
    """A length without its last digits, see `settled`."""
    return np.round(length, 6)


def _displacement_rms(cosmology: Cosmology) -> float:
    """Linear rms displacement per axis today [Mpc], every wavelength included."""
    k = np.geomspace(1e-5, 1e2, 4000)
    power = cosmology.linear_power(k)
    return math.sqrt(np.sum(power * k) * math.log(k[1] / k[0]) / (6.0 * math.pi**2))


def _fft_length(num_cells: int) -> int:
    """The next even length that FFTs are fast at."""
    return 2 * next_fast_len((num_cells + 1) // 2, real=True)
