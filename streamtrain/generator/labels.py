"""Labels: what the luminosity function of a sample is written as."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from streamtrain import portable
from streamtrain.config import LabelConfig
from streamtrain.generator.backend import Kernels

EXTRA_COUNTS = 3
"""Entries after the bins in the kernel's counts: overflow, underflow, saturated deposits."""


RANGES = ((3.5, 4.5), (4.5, 5.5), (5.5, 6.0), (6.0, 6.5), (6.5, 7.0))
"""Luminosity ranges that errors are given for, log10(L/Lsun)."""
_TOLERANCE = 1e-9
"""Slack when a bin's centre is compared with a range's edge, log10(L/Lsun)."""


@dataclass(frozen=True)
class LuminosityBins:
    """Equal bins of log10(L / Lsun); half-open, the last one closed."""

    log10_L: tuple[float, float] = (3.5, 7.0)
    num: int = 49

    @property
    def edges(self) -> NDArray[np.float64]:
        """log10(L / Lsun) [num + 1]."""
        return np.linspace(*self.log10_L, self.num + 1)

    def kernel_values(self) -> tuple[float, float, float]:
        """First and last edge as log2, bins per unit of log2."""
        low, high = (edge * portable.LOG2_10 for edge in self.log10_L)
        return low, high, self.num / (high - low)


def ranges_with_bins(
    bin_edges: NDArray[np.float64],
) -> Iterator[tuple[tuple[float, float], NDArray[np.bool_]]]:
    """Each of `RANGES` that holds the centre of a bin, and the mask of its bins [num_bins].

    bin_edges: log10(L/Lsun) [num_bins + 1].
    """
    centres = 0.5 * (bin_edges[1:] + bin_edges[:-1])
    for low, high in RANGES:
        inside = (centres >= low - _TOLERANCE) & (centres < high - _TOLERANCE)
        if inside.any():
            yield (low, high), inside


def make_label(kernels: Kernels, counts: torch.Tensor, config: LabelConfig) -> torch.Tensor:
    """Label float32 [B, bins] from the kernel's counts int32 [B, bins + 3]."""
    bins = counts.shape[1] - EXTRA_COUNTS
    label = torch.empty((len(counts), bins), dtype=torch.float32, device=counts.device)
    kernels.elementwise(
        "make_label",
        len(counts),
        bins,
        np.int32(config.quantity == "cumulative"),
        np.int32(config.overflow),
        np.int32(config.scale == "log10"),
        counts,
        label,
    )
    return label
