"""A Fourier transform with the same bits everywhere.

Transforms of torch and NumPy differ between devices and versions in the last bits. This one is
made of weighted sums of rows in a fixed order (kernels/fourier.cuh): a transform of length n is cut
into steps, one for each factor of n (Stockham's order, which needs no reordering at the end), so
that a row costs as many terms as the factors add up to; a prime length is one step. The weights
come from `streamtrain.numerics.portable`.

Real rows become the waves k = 0..n/2, which say all of them, or the cosines whose mirror image
continues them. Waves are float32 [2, slices, rows, across], real parts and then imaginary parts;
cosines have real ones alone, [slices, rows, across].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
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

Edge = Literal["reflect", "zero"]

COLUMNS = 64
"""Columns that go through all steps together on a CPU, as in kernels/fourier_host.cuh."""


@dataclass(frozen=True)
class RowSums:
    """Rows as weighted sums of other rows, added in the order of their terms."""

    num_in: int
    """Number of rows that they are made of."""
    source: Table
    """Row of each term, int32 [num_out, num_terms]."""
    weights: Table
    """Weight of each term, real and imaginary part, float32 [num_out, num_terms, 2]."""

    @classmethod
    def of(cls, num_in: int, source: NDArray[np.int64], weights: NDArray[np.float64]) -> RowSums:
        """Sums of rows `source`, -1 for a term that is not there, with weights [..., 2]; terms that
        no row has at its end are left out."""
        weights = np.where(source[..., None] < 0, 0.0, weights)
        used = np.flatnonzero(weights.any(axis=(0, 2)))
        terms = int(used[-1]) + 1 if len(used) else 1
        rows = np.maximum(source[:, :terms], 0).astype(np.int32)
        return cls(num_in, Table(rows), Table(weights[:, :terms].astype(np.float32)))

    def apply(self, kernels: Kernels, rows: Tensor, *, real: bool) -> Tensor:
        """The sums of rows [slices, num_in, across], or of waves [2, slices, num_in, across]; real:
        as rows, without their imaginary parts."""
        *complex_rows, slices, num_in, across = rows.shape
        num_out, terms = self.source.values.shape
        planes = () if real else (2,)
        form = f"{'waves' if complex_rows else 'rows'}_to_{'rows' if real else 'waves'}"
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


class Steps:
    """The steps of some axes, one behind the other, as kernels/fourier_host.cuh reads them."""

    def __init__(self, *axes: Sequence[RowSums]) -> None:
        steps = [step for axis in axes for step in axis]
        shapes = np.array([(step.num_in, *step.source.values.shape) for step in steps])
        self.num = Table(np.array([len(axis) for axis in axes], np.int32))
        self.shapes = Table(shapes.astype(np.int32))
        self.source = Table(np.concatenate([step.source.values.ravel() for step in steps]))
        self.weights = Table(np.concatenate([step.weights.values.ravel() for step in steps]))
        self.num_out = int(shapes[-1, 1])
        """Rows that the last of them makes."""
        self.most_rows = int(shapes[:, :2].max())
        """The most that one of them reads or makes."""

    def tables(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Shapes of the steps, rows and weights of their terms, on a device."""
        return self.shapes.on(device), self.source.on(device), self.weights.on(device)

    def room(self, slices: int = 0) -> Tensor:
        """What the host's kernels need for blocks of columns, and for so many whole slices."""
        numbers = 4 * self.most_rows * COLUMNS + 2 * slices * self.most_rows**2
        return torch.empty(numbers, dtype=torch.float32)


@dataclass(frozen=True)
class Axis:
    """The transform along one axis of a map."""

    length: int
    """Rows after which what is transformed repeats itself."""
    forward: tuple[RowSums, ...]
    """Steps from the map's rows to waves."""
    backward: tuple[RowSums, ...]
    """Steps from waves to the map's rows."""
    real: bool = False
    """Whether waves of real rows are real."""

    @classmethod
    def fourier(cls, num: int, *, half: bool, length: int = 0) -> Axis:
        """An axis of `num` rows, with zeros behind them up to `length` (default: none); half: the
        rows are real, and the waves 0..length / 2 are enough."""
        length = length or num
        num_waves = length // 2 + 1 if half else length
        forward, backward = _steps(length, -1), _steps(length, 1)
        first = forward[0]
        forward[0] = replace(first, source=np.where(first.source < num, first.source, -1))
        forward[-1] = forward[-1].rows(np.arange(num_waves))
        first = backward[0]
        alone = (first.source == 0) | (2 * first.source == length) | (not half)
        source = np.where(first.source < num_waves, first.source, -1)
        backward[0] = replace(first, source=source, size=np.where(alone, 1.0, 2.0) / length)
        backward[-1] = backward[-1].rows(np.arange(num))
        return cls(length, _sums(num, forward), _sums(num_waves, backward))

    @classmethod
    def cosines(cls, num: int) -> Axis:
        """An axis of `num` rows that their mirror image continues: its waves are the cosines of 0..
        num - 1 half turns along it.

        After Makhoul (1980): the rows 0, 2, 4.. and then back ..5, 3, 1 have a Fourier transform
        whose parts along exp(i pi k / (2 num)) are the amplitudes of the cosines.
        """
        there = np.concatenate([np.arange(0, num, 2), np.arange(1, num, 2)[::-1]])
        back = np.argsort(there)
        forward, backward = _steps(num, -1), _steps(num, 1)
        forward[0] = replace(forward[0], source=there[forward[0].source])
        last = forward[-1]
        forward[-1] = replace(last, turns=last.turns - np.arange(num)[:, None] / (4 * num))
        first = backward[0]
        backward[0] = replace(
            first,
            turns=first.turns + first.source / (4 * num),
            size=np.where(first.source == 0, 1.0, 2.0) / num,
        )
        backward[-1] = backward[-1].rows(back)
        return cls(2 * num, _sums(num, forward), _sums(num, backward), real=True)

    @property
    def num_waves(self) -> int:
        """Number of waves that `forward` makes."""
        return len(self.forward[-1].source.values)

    def to_waves(self, kernels: Kernels, rows: Tensor) -> Tensor:
        """Waves [2, slices, num_waves, across] of rows, which are real [slices, num, across] or
        waves along another axis [2, slices, num, across]."""
        if kernels.blockwise:
            return _in_blocks(kernels, self._forward, rows, self.real)
        return _through(kernels, self.forward, rows, self.real)

    def to_rows(self, kernels: Kernels, waves: Tensor, *, real: bool) -> Tensor:
        """The rows of waves: real, or still waves along another axis."""
        if kernels.blockwise:
            return _in_blocks(kernels, self._backward, waves, real)
        return _through(kernels, self.backward, waves, real)

    @cached_property
    def _forward(self) -> Steps:
        return Steps(self.forward)

    @cached_property
    def _backward(self) -> Steps:
        return Steps(self.backward)


def _in_blocks(kernels: Kernels, steps: Steps, rows: Tensor, real: bool) -> Tensor:
    *complex_rows, slices, _, across = rows.shape
    planes = () if real else (2,)
    made = torch.empty((*planes, slices, steps.num_out, across), dtype=torch.float32)
    kernels.per_item(
        "axis_of_slices", slices, 0, np.int32(len(steps.shapes.values)),
        *steps.tables(rows.device), np.int64(across), np.int32(bool(complex_rows)),
        np.int32(not real), np.int64(steps.most_rows), rows, made, steps.room(),
    )  # fmt: skip
    return made


def _through(kernels: Kernels, steps: Sequence[RowSums], rows: Tensor, real: bool) -> Tensor:
    for step in steps:
        rows = step.apply(kernels, rows, real=real and step is steps[-1])
    return rows


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
    """float32 [num, ra.num_waves, dec.num_waves]: slice after slice takes one of these in turn."""

    def apply(self, kernels: Kernels, slices: Tensor) -> Tensor:
        """The slices after it: real [slices, n_dec, n_ra], or waves along another axis [2, slices,
        n_dec, n_ra], of which `dec` and `ra` make all waves."""
        if kernels.blockwise:
            return self._in_blocks(kernels, slices)
        columns = _turned(kernels, self.dec.to_waves(kernels, slices))
        waves = self.ra.to_waves(kernels, columns)
        factors = self.factors.on(waves.device)
        planes, size = waves.numel() // factors[0].numel(), factors[0].numel()
        kernels.elementwise("multiply_waves", planes, size, np.int64(len(factors)), factors, waves)
        columns = self.ra.to_rows(kernels, waves, real=columns.dim() == 3)
        return self.dec.to_rows(kernels, _turned(kernels, columns), real=slices.dim() == 3)

    @cached_property
    def _steps(self) -> Steps:
        return Steps(self.dec.forward, self.ra.forward, self.ra.backward, self.dec.backward)

    def _in_blocks(self, kernels: Kernels, slices: Tensor) -> Tensor:
        made, steps, factors = torch.empty_like(slices), self._steps, self.factors
        *complex_rows, _, num_dec, num_ra = slices.shape
        kernels.per_item(
            "filter_slices", slices.shape[-3], 0, np.int64(len(factors.values)),
            np.int32(num_dec), np.int32(num_ra), steps.num.on(slices.device),
            *steps.tables(slices.device), np.int32(bool(complex_rows)),
            np.int32(not self.dec.real), np.int32(not self.ra.real), np.int64(steps.most_rows),
            factors.on(slices.device), slices, made, steps.room(slices=2),
        )  # fmt: skip
        return made


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


@dataclass(frozen=True)
class _Step:
    """Terms of rows: size exp(2 pi i turns) times a row, each [num_out, num_terms]."""

    source: NDArray[np.int64]
    turns: NDArray[np.float64]
    size: NDArray[np.float64]

    def rows(self, kept: NDArray[np.int64]) -> _Step:
        return _Step(self.source[kept], self.turns[kept], self.size[kept])


def _steps(length: int, sign: int) -> list[_Step]:
    """The steps of sum_j x_j exp(2 pi i sign j k / length), j and k from 0.

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
        turns = sign * (wave[:, None] * term % done) / done
        steps.append(_Step(source, turns, np.ones_like(turns)))
    return steps


def _sums(num_in: int, steps: Sequence[_Step]) -> tuple[RowSums, ...]:
    made = []
    for step in steps:
        sine, cosine = portable.sincos_turns(step.turns)
        weights = step.size[..., None] * np.stack([cosine, sine], axis=-1)
        made.append(RowSums.of(num_in, step.source, weights))
        num_in = len(step.source)
    return tuple(made)
