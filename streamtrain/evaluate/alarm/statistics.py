"""Plain statistics of maps, as named numbers: what a map is compared with other maps in.

They are chosen without regard to any network: learned features forget what training never needed.
All are of the map before its transform, on the device that it lies on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from streamtrain.operators.plan import InputMap
from streamtrain.spectra import Power, quantile_edges, rings, slabs, voxel_counts

Float = NDArray[np.float64]

RINGS, SLABS = 8, 4
"""Bins of k_perp and k_par, at most."""
VOXEL_BINS = 24
"""Bins of the voxel intensity distribution."""
MOST_CHANNELS = 48
"""Channels that are looked at one by one; of more, blocks of neighbours are."""
FRAMES = 4
"""Nested frames of the field of about as many pixels each, from its edge to its middle."""
COMPONENTS = (0, 1, 2, 4, 8)
"""Which principal components along frequency, from the largest and from the smallest one. Smooth
foregrounds are in the largest; a survey's cleaning takes these away and leaves empty ones."""
EDGE_MAPS = 64
"""Maps that choose the bins of T and the scales of powers and voxels."""
SMALLEST = 1e-6
"""What is added to powers and variances, over the mean of those of the maps that choose the scales:
their logarithm is taken. It is above what rounding leaves of modes that were filtered away."""

POWER, VOXELS, MEANS, SCATTER = (
    "P(k_perp, k_par)",
    "voxel intensities",
    "channel mean",
    "channel scatter",
)
EXTREME, FRAME = "extreme voxel", "scatter by distance from the edge"
COMPONENT = "scatter of principal components along frequency"
KINDS = (POWER, VOXELS, MEANS, SCATTER, EXTREME, FRAME, COMPONENT)
"""What the statistics are of."""


@dataclass(frozen=True)
class Place:
    """Which number of a statistic: its kind, and where in it."""

    kind: str
    where: str
    """In words, with units: 'k_perp = 0.1, k_par = 0.05 /Mpc'."""
    logarithm: bool
    """Whether the number is a natural logarithm."""


class MapStatistics:
    """P(k_perp, k_par), the voxel intensity distribution, mean and scatter of every channel, the
    brightest and the faintest voxel, the scatter by distance from the edge of the field, and that
    of principal components along frequency, of channels that are scaled to one scatter.

    input_map: what a network's inputs show. scales: as `choose` found them.
    """

    def __init__(self, input_map: InputMap, scales: Float) -> None:
        self._input_map, self.scales = input_map, np.asarray(scales, np.float64)
        box = input_map.box
        self._across, self._along = rings(box, RINGS), slabs(box, SLABS)
        self._power = Power.cylindrical(box, self._across, self._along)
        self._blocks = np.array_split(np.arange(box.shape[0]), min(box.shape[0], MOST_CHANNELS))
        self._frames = _frames(box.shape[1:])
        last = box.shape[0] - 1
        self._components = sorted({c for k in COMPONENTS if k <= last for c in (k, last - k)})
        num = len(self._power.modes)
        parts = (num, VOXEL_BINS - 1, 1, 1)
        if len(self.scales) != sum(parts):
            raise ValueError(f"the scales are {len(self.scales)} numbers, not {sum(parts)}")
        self._power_scale, self._edges, self._offset, self._unit = np.split(
            self.scales, np.cumsum(parts)[:-1]
        )

    @classmethod
    def choose(cls, input_map: InputMap, cubes: torch.Tensor) -> MapStatistics:
        """The statistics whose bins of T and scales are those of some inputs [B, n_freq, n_dec,
        n_ra]."""
        box = input_map.box
        maps = input_map.restore(cubes[:EDGE_MAPS]).double()
        power = Power.cylindrical(box, rings(box, RINGS), slabs(box, SLABS)).to(maps.device)
        scale = power(maps).mean(0).clamp(min=torch.finfo(torch.float32).tiny).cpu().numpy()
        edges = quantile_edges(maps.cpu().numpy(), VOXEL_BINS)
        unit = max(float(maps.std()), np.finfo(np.float32).tiny)
        return cls(input_map, np.concatenate([scale, edges, [float(maps.median()), unit]]))

    def __call__(self, cubes: torch.Tensor) -> Float:
        """The numbers of inputs [B, n_freq, n_dec, n_ra], float64 [B, len(places)]."""
        device = cubes.device
        maps = self._input_map.restore(cubes).double()
        means = maps.mean((2, 3))
        apart = maps - means[:, :, None, None]
        square = apart.square()
        variance = square.mean((2, 3))
        frames = torch.stack(
            [square[:, :, torch.from_numpy(f).to(device)].mean((1, 2)) for f in self._frames], 1
        )
        least = SMALLEST * self._unit[0] ** 2
        whole = (variance.mean(1, keepdim=True) + least).log()
        floor = SMALLEST * self._power_scale.mean()
        power = self._power.to(device)(maps) + floor
        extremes = torch.stack([maps.amax((1, 2, 3)), maps.amin((1, 2, 3))], 1)
        parts = [
            (power / torch.from_numpy(self._power_scale + floor).to(device)).log(),
            voxel_counts(maps, torch.from_numpy(self._edges).to(device)).double().log1p(),
            self._of_blocks(means) / self._unit[0],
            (self._of_blocks(variance) + least).log() / 2.0,
            torch.asinh((extremes - self._offset[0]) / self._unit[0]),
            ((frames + least).log() - whole) / 2.0,
            self._of_components(apart / (variance + least).sqrt()[:, :, None, None]),
        ]
        return np.asarray(torch.cat(parts, 1).cpu().numpy())

    @cached_property
    def places(self) -> list[Place]:
        """What each number is, in the order of the numbers."""
        found = [
            Place(POWER, f"k_perp = {_span(across)}, k_par = {_span(along)} /Mpc", True)
            for across in self._across
            for along in self._along
        ]
        units = f" {self._input_map.units}" if self._input_map.units else ""
        ends = [-np.inf, *self._edges, np.inf]
        for low, high in pairwise(ends):
            span = f"T < {high:.3g}" if np.isinf(low) else f"T = {low:.3g} to {high:.3g}"
            span = f"T > {low:.3g}" if np.isinf(high) else span
            found.append(Place(VOXELS, span + units, True))
        for kind, logarithm in ((MEANS, False), (SCATTER, True)):
            for block in self._blocks:
                ends_of = f"{block[0]}" if len(block) == 1 else f"{block[0]} to {block[-1]}"
                found.append(Place(kind, f"channel {ends_of}", logarithm))
        found += [Place(EXTREME, which, False) for which in ("the brightest", "the faintest")]
        for number in range(len(self._frames)):
            where = f"frame {number + 1} of {len(self._frames)}, from the edge"
            found.append(Place(FRAME, where, True))
        num = self._input_map.box.shape[0]
        found += [Place(COMPONENT, f"number {c + 1} of {num}", True) for c in self._components]
        return found

    def _of_components(self, scaled: torch.Tensor) -> torch.Tensor:
        """ln of the scatter of the principal components of maps [B, n_freq, n_dec, n_ra] whose
        channels have mean 0 and scatter 1, [B, number of components]."""
        rows = scaled.flatten(2)
        covariance = rows @ rows.transpose(1, 2) / rows.shape[2]
        falling = np.linalg.eigvalsh(covariance.cpu().numpy())[:, ::-1]
        scatter = np.log(np.maximum(falling[:, self._components], 0.0) + SMALLEST) / 2.0
        return torch.from_numpy(scatter).to(scaled.device)

    def _of_blocks(self, values: torch.Tensor) -> torch.Tensor:
        """Means over blocks of channels [B, n_freq] to [B, num_blocks]."""
        return torch.stack([values[:, b[0] : b[-1] + 1].mean(1) for b in self._blocks], 1)


def _frames(shape: Sequence[int]) -> list[NDArray[np.bool_]]:
    """Masks [n_dec, n_ra] of nested frames, from the edge to the middle."""
    steps = [np.minimum(np.arange(n), n - 1 - np.arange(n)) / n for n in shape]
    distance = np.minimum(*np.meshgrid(*steps, indexing="ij"))
    ends = np.unique(np.quantile(distance, np.linspace(0.0, 1.0, FRAMES + 1)[1:-1]))
    which = np.searchsorted(ends, distance, side="left")
    return [which == number for number in np.unique(which)]


def _span(ends: tuple[float, float]) -> str:
    return f"{max(ends[0], 0.0):.2g} to {ends[1]:.2g}"
