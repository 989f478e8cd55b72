"""A Fourier transform with the same bits everywhere.

Transforms of torch and NumPy differ between devices and versions in the last bits. This one is
made of weighted sums of rows in a fixed order (kernels/fourier.cuh): a transform of length n is cut
into steps, one for each factor of n (Stockham's order, which needs no reordering at the end), so
that a row costs as many terms as the factors add up to; a prime length is one step. The weights
come from `streamtrain.numerics.portable`.

Real rows become the waves k = 0..n/2, which say all of them. Waves are float32 [2, slices, rows,
across]: real parts, then imaginary parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamtrain.numerics import portable
from streamtrain.numerics.backend import Kernels
from streamtrain.operators.base import GROUP, Table

STEP_COST = 4
"""What a step costs beside its terms, in terms: it reads and writes all rows."""
CACHE_BYTES = 2**20
"""Waves that a CPU works on at a time."""

Edge = Literal["reflect", "zero"]
Form = Literal["rows_to_rows", "rows_to_waves", "waves_to_waves", "waves_to_rows"]


@dataclass(frozen=True)
class RowSums:
    """Rows as weighted sums of other rows, added in the order of their terms."""

    num_in: int
    """Number of rows that they are made of."""
    source: Table
    """Row of each term, int32 [num_out, num_terms]."""
    weights: Table
    """Its weight, real and imaginary part, float32 [num_out, num_terms, 2]."""

    @classmethod
    def of(cls, num_in: int, source: NDArray[np.int64], weights: NDArray[np.float64]) -> RowSums:
        """Sums of rows `source`, -1 for a term that is not there, with weights [..., 2]; terms that
        no row has at its end are left out."""
        weights = np.where(source[..., None] < 0, 0.0, weights)
        used = np.flatnonzero(weights.any(axis=(0, 2)))
        terms = int(used[-1]) + 1 if len(used) else 1
        rows = np.maximum(source[:, :terms], 0).astype(np.int32)
        return cls(num_in, Table(rows), Table(weights[:, :terms].astype(np.float32)))

    def apply(self, kernels: Kernels, form: Form, rows: Tensor) -> Tensor:
        """The sums of rows [..., slices, num_in, across] as [..., slices, num_out, across]; `form`
        says which of both are waves [2, ...]."""
        *_, slices, num_in, across = rows.shape
        num_out, terms = self.source.values.shape
        planes = (2,) if form.endswith("waves") else ()
        made = torch.empty(
            (*planes, slices, num_out, across), dtype=torch.float32, device=rows.device
        )
        kernels.elementwise(
            form,
            slices,
            num_out * -(-across // GROUP),
            np.int32(num_in),
            np.int32(num_out),
            np.int32(terms),
            np.int64(across),
            self.source.on(rows.device),
            self.weights.on(rows.device),
            rows,
            made,
        )
        return made


@dataclass(frozen=True)
class Axis:
    """The transform along one axis of a map, which may be continued beyond its end."""

    length: int
    """Rows of the continued axis, which is taken to repeat itself."""
    forward: tuple[RowSums, ...]
    """Steps from the map's rows to waves."""
    backward: tuple[RowSums, ...]
    """Steps from waves to the map's rows."""

    @classmethod
    def of(cls, num: int, *, half: bool, length: int = 0, edge: Edge = "zero") -> Axis:
        """An axis of `num` rows, continued to `length` (default: not at all) by nothing or by their
        mirror image; half: the rows are real, and the waves 0..length / 2 are enough."""
        length = length or num
        place = np.arange(length)
        after = num + (length - num + 1) // 2  # of what is beyond, half lies after and half before
        source = continued(np.where(place < after, place, place - length), num, edge)
        return cls(length, _forward(source, num, half), _backward(length, num, half))

    @property
    def num_waves(self) -> int:
        """Number of waves that `forward` makes."""
        return len(self.forward[-1].source.values)

    def to_waves(self, kernels: Kernels, rows: Tensor) -> Tensor:
        """Waves [2, slices, num_waves, across] of rows, which are real [slices, num, across] or
        waves along another axis [2, slices, num, across]."""
        for step in self.forward:
            real = rows.dim() == 3
            rows = step.apply(kernels, "rows_to_waves" if real else "waves_to_waves", rows)
        return rows

    def to_rows(self, kernels: Kernels, waves: Tensor, *, real: bool) -> Tensor:
        """The rows of waves: real, or still waves along another axis."""
        for step in self.backward[:-1]:
            waves = step.apply(kernels, "waves_to_waves", waves)
        last: Form = "waves_to_rows" if real else "waves_to_waves"
        return self.backward[-1].apply(kernels, last, waves)


def continued(place: NDArray[np.int64], num: int, edge: Edge) -> NDArray[np.int64]:
    """The row of an axis of `num` that is seen in each place, also beyond its ends: of its mirror
    image, d c b a | a b c d | d c b a, or none, -1."""
    if edge == "zero":
        return np.where((place >= 0) & (place < num), place, -1)
    turn = place % (2 * num)
    return np.where(turn < num, turn, 2 * num - 1 - turn)


@dataclass(frozen=True)
class SliceFilter:
    """Slices [dec, ra] of a map whose waves are multiplied by factors."""

    dec: Axis
    ra: Axis
    factors: Table
    """float32 [num_factors, ra.num_waves, dec.num_waves]: slice after slice takes one in turn."""

    def apply(self, kernels: Kernels, slices: Tensor) -> Tensor:
        """The slices after it: real [slices, n_dec, n_ra], or waves along another axis [2, slices,
        n_dec, n_ra], where both of `dec` and `ra` are whole."""
        num = slices.shape[-3]
        size = 8 * self.factors.values[0].size
        together = num if slices.device.type == "cuda" else max(1, CACHE_BYTES // size)
        if num <= together:
            return self._piece(kernels, slices, 0)
        made = torch.empty_like(slices)
        for first in range(0, num, together):
            part = slices[..., first : first + together, :, :].contiguous()
            made[..., first : first + together, :, :] = self._piece(kernels, part, first)
        return made

    def _piece(self, kernels: Kernels, slices: Tensor, first: int) -> Tensor:
        waves = _turned(kernels, self.dec.to_waves(kernels, slices))
        waves = self.ra.to_waves(kernels, waves)
        factors = self.factors.on(waves.device)
        numbers = (np.int64(waves.shape[1]), np.int64(first), np.int64(len(factors)))
        size = factors[0].numel()
        kernels.elementwise("multiply_waves", 2 * waves.shape[1], size, *numbers, factors, waves)
        waves = _turned(kernels, self.ra.to_rows(kernels, waves, real=False))
        return self.dec.to_rows(kernels, waves, real=slices.dim() == 3)


def _turned(kernels: Kernels, waves: Tensor) -> Tensor:
    """[..., rows, columns] as [..., columns, rows]."""
    *outer, rows, columns = waves.shape
    made = torch.empty((*outer, columns, rows), dtype=torch.float32, device=waves.device)
    slices = waves.numel() // (rows * columns)
    elements = columns * -(-rows // GROUP)
    sizes = np.int64(rows), np.int64(columns)
    kernels.elementwise("turn_slices", slices, elements, *sizes, waves, made)
    return made


@lru_cache
def radices(length: int) -> tuple[int, ...]:
    """Factors of a length, one for each step, that make a transform cheap."""
    return min(_cuts(length), key=lambda cut: (sum(cut) + STEP_COST * len(cut), cut))


def _cuts(length: int) -> list[tuple[int, ...]]:
    """The length as one factor, and as the cheapest ones behind each of its divisors."""
    divisors = [d for d in range(2, int(length**0.5) + 1) if length % d == 0]
    return [(length,), *((d, *radices(length // d)) for d in divisors)]


def cheap_length(least: int) -> int:
    """The length from `least` on that costs least."""
    return min(
        range(least, 2 * least), key=lambda n: n * (sum(radices(n)) + STEP_COST * len(radices(n)))
    )


def _steps(length: int, sign: int) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Source and weights of each step of sum_j x_j exp(2 pi i sign j k / length), j and k from 0.

    After steps whose factors multiply to l, row k * (length / l) + j holds the transform, of length
    l, of rows j, j + length / l, and so on.
    """
    steps = []
    done = 1
    for radix in radices(length):
        left, done = length // done, done * radix
        step = left // radix
        wave, place = np.divmod(np.arange(length), step)
        term = np.arange(radix)
        source = (wave % (done // radix) * left + place)[:, None] + step * term
        turns = (wave[:, None] * term % done) / done
        sine, cosine = portable.sincos_turns(turns)
        steps.append((source, np.stack([cosine, sign * sine], axis=-1)))
    return steps


def _forward(source: NDArray[np.int64], num: int, half: bool) -> tuple[RowSums, ...]:
    length = len(source)
    steps = _steps(length, -1)
    steps[0] = (source[steps[0][0]], steps[0][1])
    if half:
        steps[-1] = tuple(part[: length // 2 + 1] for part in steps[-1])  # type: ignore[assignment]
    return _sums(num, steps)


def _backward(length: int, num: int, half: bool) -> tuple[RowSums, ...]:
    steps = _steps(length, 1)
    source, weights = steps[0]
    num_waves = length // 2 + 1 if half else length
    alone = (source == 0) | (2 * source == length) | (not half)
    weights = weights * (np.where(alone, 1.0, 2.0) / length)[..., None]
    steps[0] = np.where(source < num_waves, source, -1), weights
    steps[-1] = tuple(part[:num] for part in steps[-1])  # type: ignore[assignment]
    return _sums(num_waves, steps)


def _sums(
    num_in: int, steps: Sequence[tuple[NDArray[np.int64], NDArray[np.float64]]]
) -> tuple[RowSums, ...]:
    made = []
    for source, weights in steps:
        made.append(RowSums.of(num_in, source, weights))
        num_in = len(source)
    return tuple(made)
