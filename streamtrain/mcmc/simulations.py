"""Simulated data vectors from the generator, at parameters from the prior or at given ones.

A data vector is the power spectrum and the voxel intensity distribution of a map in one array.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from streamtrain.config import Config
from streamtrain.generator.batch import Batch
from streamtrain.generator.generator import Generator
from streamtrain.generator.line import Chosen
from streamtrain.labels import NO_FUNCTION
from streamtrain.luminosity.modifiers import count_changing
from streamtrain.mcmc.likelihood import Density
from streamtrain.numerics.workspace import FreshMemory
from streamtrain.operators.noise import LevelNoise
from streamtrain.operators.plan import InputMap
from streamtrain.schema import ConfigError
from streamtrain.spectra import ANSCOMBE, Power, edge_voxels, quantile_edges, shells, voxel_counts

Float = NDArray[np.float64]
Report = Callable[[int], None]

BATCH_SIZE = 32
EDGE_SAMPLES = 64
"""Samples whose voxels choose the bins of T."""


@dataclass(frozen=True)
class Simulations:
    """Fields that were painted and observed; one row each."""

    theta: Float
    """Drawn parameters of the luminosity model [num, num_names]."""
    levels: Float
    """Noise levels that were drawn [num, num_levels]."""
    vectors: Float
    """Data vectors [num, size]."""
    log10_counts: Float
    """log10 of the label's counts, at least 0 [num, num_bins]."""
    halos: Float
    """Halos in all luminosity bins together [num]."""


def check(config: Config) -> None:
    """Raise ConfigError for what a chain over one model's parameters cannot be about."""
    if config.label.quantity in NO_FUNCTION:
        label = NO_FUNCTION[config.label.quantity]
        raise ConfigError(f"a Markov chain reads off a luminosity function, not {label}")
    if config.line.mixture:
        raise ConfigError(
            "a Markov chain takes the parameters of one luminosity model: emit.line.mixture has "
            f"{', '.join(config.line.mixture)}"
        )
    for name in count_changing(config.emit):
        raise ConfigError(
            f"a Markov chain takes the parameters of the luminosity model alone: {name} "
            "changes the halos' light beyond it"
        )


def drawn_levels(generator: Generator) -> list[str]:
    """The noise operators whose level differs from sample to sample."""
    noise = (each for each in generator.operators if isinstance(each, LevelNoise))
    return [operator.name for operator in noise if operator.level_varies]


def levels_of(batch: Batch, names: list[str]) -> Float:
    """The noise levels of a batch's samples [B, num_names]."""
    rows = [[draw[name]["sigma_uK"] for name in names] for draw in batch.draws]
    return np.array(rows, np.float64).reshape(len(batch), len(names))


def data_vector(generator: Generator) -> DataVector:
    """With bins of T that the generator's first samples choose."""
    input_map = generator.config.observation.input_map
    parts = []
    for batch in _batches(generator, 0, EDGE_SAMPLES):
        parts.append(edge_voxels(input_map.restore(batch.cube)))
    # voxels of maps without noise may be equal, and an edge given twice is one
    edges = np.unique(quantile_edges(np.concatenate(parts), VOXEL_BINS))
    return DataVector(input_map, edges)


def simulate(
    generator: Generator,
    density: Density,
    vector: DataVector,
    first: int,
    num: int,
    report: Report = lambda done: None,
    *,
    theta: Float | None = None,
    levels: Float | None = None,
) -> Simulations:
    """Samples first .. first + num - 1 of a generator. density: names the parameters. theta,
    levels: parameters [num, num_names] and noise levels [num_levels] that they have; None: those
    that they draw."""
    names = drawn_levels(generator)
    given = None if levels is None else dict(zip(names, levels, strict=True))
    drawn: list[list[float]] = []
    drawn_noise, vectors, counts, halos = [], [], [], []
    for batch in _batches(generator, first, num, density, theta, given):
        drawn += [[draw["parameters"][n] for n in density.names] for draw in batch.draws]
        drawn_noise.append(levels_of(batch, names))
        vectors.append(vector(batch.cube))
        counts.append(generator.label.log10_counts(batch.label, batch.unit_label).cpu().numpy())
        halos.append(batch.counts.sum(1).cpu().numpy().astype(np.float64))
        report(len(drawn))
    whole = [np.concatenate(parts) for parts in (drawn_noise, vectors, counts, halos)]
    return Simulations(np.array(drawn), *whole)


def _batches(
    generator: Generator,
    first: int,
    num: int,
    density: Density | None = None,
    theta: Float | None = None,
    levels: Mapping[str, float] | None = None,
) -> Iterator[Batch]:
    """Samples in batches of one window of lightcones each."""
    for start in range(first, first + num, BATCH_SIZE):
        indices = range(start, min(start + BATCH_SIZE, first + num))
        for _, begin, end in generator.schedule.runs(indices):
            part, chosen, noise = indices[begin:end], None, None
            if density is not None and theta is not None:
                rows = theta[part.start - first : part.stop - first]
                chosen = Chosen(np.zeros(len(part), np.int64), [density.whole(rows)])
            if levels is not None:
                noise = {name: np.full(len(part), level) for name, level in levels.items()}
            drawing = generator.draw(part, chosen, noise)
            batch = generator.make(drawing, 0, len(part), FreshMemory(generator.device))
            batch.check()
            yield batch


POWER_BINS = 16
VOXEL_BINS = 24
SMALLEST_POWER = 1e-300


class DataVector:
    """ln P(k) in shells, then sqrt(n + 3/8) of the n voxels in each bin of T, of maps before their
    transform.

    Both are functions of the summaries whose scatter depends less on their mean: that of ln P is
    sqrt(2 / modes) for a Gaussian field, that of the square root 1/2 for independent voxels
    (Anscombe 1948). So a Gaussian likelihood is closer to the truth than for P and n.

    voxel_edges: of T [map units] [num_edges]
    """

    def __init__(self, input_map: InputMap, voxel_edges: Float) -> None:
        self._input_map = input_map
        box = input_map.box
        self.power = Power.spherical(box, shells(box, POWER_BINS))
        self.voxel_edges = voxel_edges

    @property
    def num_power(self) -> int:
        """How many of the numbers are those of P(k); they are the first."""
        return len(self.power.modes)

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return self.num_power + len(self.voxel_edges) + 1

    @torch.no_grad()
    def __call__(self, cubes: torch.Tensor) -> Float:
        """Of network inputs [B, n_freq, n_dec, n_ra]: [B, size]; in float64, on their device."""
        maps = self._input_map.restore(cubes.double())
        power = self.power.to(maps.device)(maps).clamp(min=SMALLEST_POWER).log()
        edges = torch.from_numpy(self.voxel_edges).to(maps.device)
        voxels = (voxel_counts(maps, edges) + ANSCOMBE).sqrt()
        return torch.cat([power, voxels], dim=1).cpu().numpy()

    def voxels(self, vectors: Float) -> Float:
        """The numbers of voxels behind vectors [..., size]: [..., num_edges + 1]."""
        return np.asarray(vectors[..., self.num_power :] ** 2 - ANSCOMBE)
