"""Labels: what the luminosity function of a sample is written as."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from streamtrain import portable
from streamtrain.config import LabelConfig
from streamtrain.generator.backend import Kernels

EXTRA_COUNTS = 3
"""Entries after the bins in the kernel's counts: overflow, underflow, saturated deposits."""


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
