"""Bins of luminosity, the halos counted in them, and the ranges that errors are given for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from streamtrain.numerics import portable

SMALLEST_BIN_DEX = 1e-5
"""Narrowest luminosity bin: log2 L is known to 2e-6."""
_ABOVE_ALL = 3e38
"""What pads the kernel's table of edges: no log2 L reaches it."""
_MOST_CELLS = 1024
"""Cells of the kernel's table, at most: 4 kB of a CPU's first cache."""


@dataclass(frozen=True)
class LuminosityBins:
    """Bins of log10(L / Lsun), half-open, the last one closed: equal ones, or between `given`
    edges."""

    log10_L: tuple[float, float] = (3.5, 7.0)
    num: int = 49
    given: tuple[float, ...] | None = None
    """log10(L / Lsun) [num + 1] of unequal bins; the first and last are `log10_L`."""

    @classmethod
    def between(cls, edges: Sequence[float]) -> LuminosityBins:
        """Bins between any increasing edges, log10(L / Lsun) [num + 1]."""
        return cls((edges[0], edges[-1]), len(edges) - 1, tuple(edges))

    @property
    def num_counts(self) -> int:
        """Entries of the paint kernel's counts, see `Counts`."""
        return self.num + Counts.EXTRA

    @property
    def edges(self) -> NDArray[np.float64]:
        """log10(L / Lsun) [num + 1]."""
        if self.given is not None:
            return np.array(self.given)
        return np.linspace(*self.log10_L, self.num + 1)

    @property
    def width_Lsun(self) -> NDArray[np.float64]:
        """dL of each bin [Lsun], in portable float64 [num]."""
        return np.diff(portable.exp10(self.edges))

    @property
    def width_lnL(self) -> NDArray[np.float64]:
        """dlnL of each bin [num]."""
        return np.diff(self.edges) * (portable.LOG2_10 * portable.LN2)

    @property
    def mean_Lsun(self) -> NDArray[np.float64]:
        """Mean luminosity of each bin's halos [Lsun], evenly spread in ln L, [num]."""
        return self.width_Lsun / self.width_lnL

    def kernel_values(self) -> tuple[float, float, float]:
        """First and last edge as log2, bins (or cells, where they are unequal) per unit of log2."""
        low, high = (edge * portable.LOG2_10 for edge in self.log10_L)
        return low, high, (self.num if self.given is None else self._num_cells) / (high - low)

    def source(self) -> str:
        """What kernels/paint.cu is compiled with: nothing for equal bins, else its two tables."""
        if self.given is None:
            return ""
        cell = self._cell_of_edges(self._num_cells)
        first = np.searchsorted(cell[1:-1], np.arange(cell[-1] + 1))
        most = max(1, int(np.bincount(cell[1:-1], minlength=1).max()))
        stride = 1 << (most.bit_length() - 1)
        edges = np.full(self.num - 1 + 2 * stride, _ABOVE_ALL, np.float32)
        edges[: self.num] = self._log2_edges[:-1]
        return (
            f"\n#define EDGE_STRIDE {stride}\n"
            + _table("int", "bin_of_cell", map(str, first))
            + _table("float", "bin_edges", (f"{edge:.8e}f" for edge in edges))
        )

    @property
    def _log2_edges(self) -> NDArray[np.float32]:
        return (self.edges * portable.LOG2_10).astype(np.float32)

    @cached_property
    def _num_cells(self) -> int:
        """The fewest cells of which none holds two inner edges, up to `_MOST_CELLS`."""
        for cells in (64, 128, 256, 512):
            if len(np.unique(self._cell_of_edges(cells)[1:-1])) == self.num - 1:
                return cells
        return _MOST_CELLS

    def _cell_of_edges(self, cells: int) -> NDArray[np.int64]:
        """The cell that each edge lies in, with the kernel's own float32 arithmetic [num + 1]."""
        low, high = (edge * portable.LOG2_10 for edge in self.log10_L)
        per_log2 = np.float32(cells / (high - low))
        return ((self._log2_edges - np.float32(low)) * per_log2).astype(np.int64)


def _table(kind: str, name: str, numbers: Iterable[str]) -> str:
    """An array as source for either compiler."""
    values = list(numbers)
    text = ", ".join(values)
    return (
        f"#ifdef __CUDACC__\n__device__\n#endif\n"
        f"static const {kind} {name}[{len(values)}] = {{{text}}};\n"
    )


A = TypeVar("A", NDArray[Any], Tensor)


class Counts(Generic[A]):
    """Parts of what the paint kernel counts of each sample, an array or tensor [B, num_bins + 3].

    They are views: nothing is copied.
    """

    EXTRA = 3
    """Entries after the bins."""

    def __init__(self, raw: A) -> None:
        self._raw: A = raw

    @property
    def bins(self) -> A:
        """Halos per luminosity bin [B, num_bins]."""
        return self._raw[:, : -self.EXTRA]

    @property
    def above(self) -> A:
        """Halos above the last edge [B]."""
        return self._raw[:, -3]

    @property
    def below(self) -> A:
        """Halos below the first edge [B]; one that a duty cycle switches off is one of them."""
        return self._raw[:, -2]

    @property
    def saturated(self) -> A:
        """Halos too bright for the cube's fixed-point range [B]; any makes the sample wrong."""
        return self._raw[:, -1]

    @property
    def halos(self) -> A:
        """All halos that were painted, whatever their luminosity [B]."""
        return self._raw[:, :-1].sum(1)


def cumulative(counts: A) -> A:
    """N(>L), halos above the lower edge of each bin and below the last edge, from halos per bin
    [..., num_bins]."""
    if isinstance(counts, Tensor):
        return counts.flip(-1).cumsum(-1).flip(-1)
    return np.flip(np.cumsum(np.flip(counts, -1), -1), -1)


RANGE_DEX = (0.5, 1.0, 2.5, 5.0, 10.0, 0.25, 0.1, 0.05, 0.025, 0.01)
"""Widths of a bright luminosity range, the first that fits; faint ones are twice as wide [dex]."""
_FEWEST, _MOST = 3, 12
"""Fewest and most of these widths in the span of a label."""
NUM_BRIGHT_RANGES = 3
"""Ranges of one width, before those of two."""
SLACK = 0.15
"""Share of a range by which its bins may end elsewhere, and it keeps its round numbers."""
_TOLERANCE = 1e-9
"""Slack when a bin's centre is compared with a range's edge, log10(L/Lsun)."""


def luminosity_ranges(bin_edges: NDArray[np.float64]) -> list[tuple[float, float]]:
    """Luminosity ranges that errors are given for, log10(L/Lsun), from faint to bright.

    Counted from the last edge: three of half a dex, then of one dex to the first edge, where a
    rest of less than half a range joins its neighbour; 3.5..7 has 3.5-4.5, 4.5-5.5, 5.5-6, 6-6.5
    and 6.5-7. Labels of less than 1.5 or more than 6 dex have others of `RANGE_DEX`.
    bin_edges: log10(L/Lsun) [num_bins + 1].
    """
    first, last = float(bin_edges[0]), float(bin_edges[-1])
    span = last - first
    slack = 1.0 + _TOLERANCE
    fits = (d for d in RANGE_DEX if _FEWEST * d <= span * slack and span <= _MOST * d * slack)
    width = next(fits, None)
    if width is None:
        return [(first, last)]
    edges, number = [last], 0
    while True:
        number += 1
        step = width if number <= NUM_BRIGHT_RANGES else 2.0 * width
        edge = round(edges[-1] - step, 9)
        if edge - first < 0.5 * step:
            break
        edges.append(edge)
    if abs(edges[-1] - first) > _TOLERANCE:
        edges.append(first)
    return list(zip(edges[:0:-1], edges[-2::-1], strict=True))


def bright_bins(bin_edges: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The bins of bright halos, whose centres lie in the two brightest ranges [num_bins]."""
    return _centres(bin_edges) >= _bright(bin_edges) - _TOLERANCE


def _bright(bin_edges: NDArray[np.float64]) -> float:
    """The lower end of the two brightest ranges."""
    ranges = luminosity_ranges(bin_edges)
    return ranges[-min(2, len(ranges))][0]


def bright_above(bin_edges: NDArray[np.float64]) -> float:
    """Above this halos are bright, log10(L/Lsun): the lower end of `bright_bins`."""
    bright = bright_bins(bin_edges)
    found = [low for (low, _), inside in ranges_with_bins(bin_edges) if bright[inside].all()]
    return min(found) if found else _bright(bin_edges)


def ranges_with_bins(
    bin_edges: NDArray[np.float64],
) -> Iterator[tuple[tuple[float, float], NDArray[np.bool_]]]:
    """Each of `luminosity_ranges` that holds the centre of a bin, and the mask of its bins
    [num_bins]. Where the bins of one do not end where it does, within `SLACK`, all are from the
    first edge of their bins to the last.

    bin_edges: log10(L/Lsun) [num_bins + 1].
    """
    centres, found, fit = _centres(bin_edges), [], True
    for low, high in luminosity_ranges(bin_edges):
        inside = (centres >= low - _TOLERANCE) & (centres < high - _TOLERANCE)
        if inside.any():
            ends = (bin_edges[:-1][inside].min(), bin_edges[1:][inside].max())
            away = max(abs(ends[0] - low), abs(ends[1] - high))
            fit = fit and bool(away <= SLACK * (high - low))
            found.append(
                ((low, high), (round(float(ends[0]), 9), round(float(ends[1]), 9)), inside)
            )
    for bounds, of_bins, inside in found:
        yield (bounds if fit else of_bins), inside


def _centres(bin_edges: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(0.5 * (bin_edges[1:] + bin_edges[:-1]))
