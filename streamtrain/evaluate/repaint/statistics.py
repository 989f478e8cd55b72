"""What painted maps are compared with a map in, and how unusual the map is in each number.

Every statistic is a row of numbers on a scale on which their scatter is nearly normal: ln P, square
roots of numbers of voxels, ln of a channel's scatter. A number of the map is compared with those of
R painted maps: (value - mean) / (s sqrt(1 + 1/R)) follows Student's t of R - 1 degrees of freedom
where they are normal; its quantile is written as that of a standard normal, the score. So scores
do not depend on R but for their own noise, and a calibration with fewer painted maps serves for
more of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri, stdtr

from streamtrain.config import Config
from streamtrain.networks.network import Network
from streamtrain.spectra import (
    ANSCOMBE,
    Power,
    edge_voxels,
    quantile_edges,
    rings,
    shells,
    slabs,
    voxel_counts,
)

Float = NDArray[np.float64]

POWER_BINS, RINGS, SLABS, VOXEL_BINS = 16, 8, 5, 16
BATCH = 32
"""Maps that are measured at a time; the first so many painted ones choose the bins of T."""
EMPTY = 1e-6
"""What P and the scatter of a channel without anything in it count as, in means of the painted
maps."""
LEAST_P = 1e-300

NAMES = ("power", "power_2d", "voxels", "means", "scatter", "brightest", "network")
TITLES = {
    "power": "P(k)",
    "power_2d": "P(k_perp, k_par)",
    "voxels": "voxel intensity distribution",
    "means": "channel means",
    "scatter": "channel scatter",
    "brightest": "brightest voxel",
    "network": "the network's numbers",
}
"""The statistics in words, by name."""
FLOORS = {
    "power": 1e-3,
    "power_2d": 1e-3,
    "voxels": 0.1,
    "means": 1e-3,
    "scatter": 1e-3,
    "brightest": 1e-3,
    "network": 1e-4,
}
"""Smallest scatter of a number on its scale; of means, in those of a channel's mean by the scatter
of its pixels. What is removed from every map scatters by rounding alone."""


@dataclass(frozen=True)
class Measured:
    """Some maps, measured."""

    raw: dict[str, Float]
    """Numbers of each statistic but `voxels`, [B, size], before they are brought to their scale."""
    maps: torch.Tensor
    """Before the transforms of the network's input, float32 [B, n_freq, n_dec, n_ra]."""

    def one(self, number: int) -> Measured:
        """One of the maps."""
        some = slice(number, number + 1)
        return Measured({name: rows[some] for name, rows in self.raw.items()}, self.maps[some])

    @classmethod
    def join(cls, parts: list[Measured]) -> Measured:
        """All maps of some parts."""
        names = parts[0].raw
        return cls(
            {name: np.concatenate([part.raw[name] for part in parts]) for name in names},
            torch.cat([part.maps for part in parts]),
        )


@dataclass(frozen=True)
class Statistic:
    """One statistic of a map beside those of painted maps."""

    name: str
    """One of `NAMES`."""
    value: Float
    """Numbers of the map [size]: P [units^2 Mpc^3], voxels, means and scatter of channels and the
    contrast of the brightest voxel [map units], the network's numbers."""
    painted: Float
    """Numbers of the painted maps [R, size]."""
    score: Float
    """How unusual each number is among the painted maps', in sigma [size]."""
    covariance: Float
    """Covariance of the painted maps' own scores [size, size]."""
    removed: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(1, bool))
    """Numbers that are rounding alone, in the map and in the painted maps, since an operator
    removes them from every map [size, or 1 for all]."""


@dataclass(frozen=True)
class Compared:
    """A map beside painted maps."""

    statistics: tuple[Statistic, ...]
    """In the order of `NAMES`."""
    edges: Float
    """Edges of the bins of T in which voxels are counted [VOXEL_BINS - 1]."""


class PaintedStatistics:
    """Measures and compares maps as the network of a run takes them.

    config: of the run; network: of it, or None: without its numbers.
    """

    def __init__(self, config: Config, network: Network | None) -> None:
        plan = config.observation
        self.input_map, self._network = plan.input_map, network
        box = self.input_map.box
        self.power = Power.spherical(box, shells(box, POWER_BINS))
        self.rings, self.slabs = rings(box, RINGS), slabs(box, SLABS)
        self.power_2d = Power.cylindrical(box, self.rings, self.slabs)

    @torch.no_grad()
    def measure(self, cubes: torch.Tensor) -> Measured:
        """Measure network inputs [B, n_freq, n_dec, n_ra]."""
        parts = []
        for some in cubes.split(BATCH):
            maps = self.input_map.restore(some.double())
            pixels = maps.flatten(2)
            mean = pixels.mean(2)
            raw = {
                "power": self.power.to(maps.device)(maps),
                "power_2d": self.power_2d.to(maps.device)(maps),
                "means": mean,
                "scatter": pixels.std(2, correction=0),
                "brightest": (pixels.amax((1, 2)) - mean.mean(1))[:, None],
            }
            if self._network is not None:
                with torch.inference_mode():
                    raw["network"] = self._network(some).double()
            found = {name: values.cpu().numpy() for name, values in raw.items()}
            parts.append(Measured(found, maps.float().cpu()))
        return Measured.join(parts)

    def edges(self, painted: Measured) -> Float:
        """Edges of the bins of T that some painted maps choose [VOXEL_BINS - 1]."""
        return quantile_edges(edge_voxels(painted.maps[:BATCH]), VOXEL_BINS)

    def compare(self, one: Measured, painted: Measured) -> Compared:
        """A map beside painted ones."""
        chosen = self.edges(painted)
        edges = torch.from_numpy(chosen)
        voxels = [voxel_counts(m.maps, edges).numpy().astype(np.float64) for m in (one, painted)]
        pixels = painted.maps[0, 0].numel()
        found = []
        for name in NAMES:
            if name != "voxels" and name not in painted.raw:
                continue
            both = voxels if name == "voxels" else [m.raw[name] for m in (one, painted)]
            value, samples = both[0][0], both[1]
            floor = np.full(len(value), FLOORS[name])
            least: float | Float = -1.0
            scaled = [value, samples]
            if name == "voxels":
                scaled = [2.0 * np.sqrt(v + ANSCOMBE) for v in scaled]
            elif name in ("power", "power_2d", "scatter", "brightest"):
                least = EMPTY * samples.mean() + np.finfo(np.float64).tiny
                scaled = [np.log(np.maximum(v, 0.0) + least) for v in scaled]
            elif name == "means":
                floor = floor * painted.raw["scatter"].mean(axis=0) / np.sqrt(pixels) + 1e-30
                least = floor
            removed = (np.abs(samples) <= least).all(axis=0) & (np.abs(value) <= least)
            away = scaled[1] - scaled[1].mean(axis=0)
            away = away / np.sqrt(scaled[1].var(axis=0, ddof=1) + floor**2)
            score = scores(scaled[0], scaled[1], floor)
            covariance = away.T @ away / (len(away) - 1)
            found.append(Statistic(name, value, samples, score, covariance, removed))
        return Compared(tuple(found), chosen)


def scores(value: Float, samples: Float, floor: Float) -> Float:
    """How unusual numbers [size] are among samples [R, size], as standard normal numbers [size].

    floor: the smallest standard deviation of each number [size].
    """
    num = len(samples)
    deviation = np.sqrt(samples.var(axis=0, ddof=1) + floor**2)
    t = (value - samples.mean(axis=0)) / (deviation * np.sqrt(1.0 + 1.0 / num))
    tail = np.maximum(stdtr(num - 1, -np.abs(t)), LEAST_P)
    return np.asarray(-np.sign(t) * ndtri(tail))
