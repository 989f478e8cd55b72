"""Whether a map looks like the maps that a network was trained on.

A network predicts something for any map. For a map unlike all it has seen that is an extrapolation,
so a few plain statistics of the map, as the network takes it, are compared with those of training
samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Float = NDArray[np.float64]

NAMES = ("mean", "standard deviation", "lowest voxel", "highest voxel")
BEYOND = 0.1
"""How far a statistic may lie beyond the range of the training samples, in widths of that range."""
MOST_CHANNELS = 0.1
"""Share of the channels that may lie outside; each has a small chance of its own."""


def statistics(cubes: torch.Tensor) -> tuple[Float, Float]:
    """The statistics `NAMES` of cubes [B, n_freq, n_dec, n_ra] as [B, 4], and the mean and standard
    deviation of every channel [B, 2, n_freq]."""
    wide = cubes.double()
    std = (1, 2, 3)
    whole = (wide.mean(std), wide.std(std, correction=0), wide.amin(std), wide.amax(std))
    channels = torch.stack([wide.mean((2, 3)), wide.std((2, 3), correction=0)], dim=1)
    return torch.stack(whole, dim=1).cpu().numpy(), channels.cpu().numpy()


@dataclass(frozen=True)
class Seen:
    """The range of the statistics of training samples, lowest and highest."""

    samples: int
    whole: Float
    """Lowest and highest value of each statistic of the whole cube, [2, 4]."""
    channels: Float
    """Lowest and highest mean and standard deviation of each channel, [2, 2, n_freq]."""

    @classmethod
    def of(cls, parts: list[tuple[Float, Float]]) -> Seen:
        """The ranges of what `statistics` found in some batches."""
        whole, channels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return cls(
            len(whole),
            np.stack([whole.min(0), whole.max(0)]),
            np.stack([channels.min(0), channels.max(0)]),
        )

    def to_dict(self) -> dict[str, Any]:
        """The ranges as plain data for a JSON file."""
        return {
            "samples": self.samples,
            "whole": self.whole.tolist(),
            "channels": self.channels.tolist(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Seen:
        """The ranges that `to_dict` wrote."""
        return cls(int(data["samples"]), np.array(data["whole"]), np.array(data["channels"]))

    def problem(self, cube: torch.Tensor) -> str:
        """A sentence if a map [n_freq, n_dec, n_ra] is unlike the training samples, else ''."""
        whole, channels = (values[0] for values in statistics(cube[None]))
        said = [
            f"{name} {value:.4g} (theirs {low:.4g} to {high:.4g})"
            for name, value, low, high, out in zip(
                NAMES, whole, *self.whole, _outside(whole, self.whole), strict=True
            )
            if out
        ]
        number = channels.shape[-1]
        outside = _outside(channels, self.channels).sum(axis=1)
        for name, count in zip(("mean", "standard deviation"), outside, strict=True):
            if count > max(1, MOST_CHANNELS * number):
                said.append(f"{name} of {count} of {number} channels")
        if not said:
            return ""
        return (
            f"the map is unlike the {self.samples} training maps it was compared with, so the "
            f"answer is an extrapolation; outside their range: {', '.join(said)}"
        )


def _outside(values: Float, ends: Float) -> NDArray[np.bool_]:
    low, high = ends
    slack = BEYOND * (high - low)
    return np.asarray((values < low - slack) | (values > high + slack))
