"""Simulated data vectors from the generator: at parameters from the prior, or at given ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from streamtrain.classical.likelihood import Density
from streamtrain.classical.vector import VOXEL_BINS, DataVector
from streamtrain.config import Config, ConfigError
from streamtrain.config_emit import BlankConfig, BrightnessConfig, DimConfig
from streamtrain.config_line import LineConfig
from streamtrain.config_observe import NoiseConfig
from streamtrain.generator.batch import Batch
from streamtrain.generator.generator import Generator
from streamtrain.generator.inputmap import InputMap
from streamtrain.voxels import quantile_edges

Float = NDArray[np.float64]
Report = Callable[[int], None]

BATCH_SIZE = 32
EDGE_SAMPLES = 64
"""Samples whose voxels choose the bins of T."""
EDGE_VOXELS = 1 << 14
"""Voxels of a sample that do so, at most."""


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
    if config.label.quantity == "class":
        raise ConfigError("a Markov chain reads off a luminosity function, not a class")
    if config.line.mixture:
        raise ConfigError(
            "a Markov chain takes the parameters of one luminosity model: emit.line.mixture has "
            f"{', '.join(config.line.mixture)}"
        )
    for name, section in config.emit.items():
        if isinstance(section, BrightnessConfig | DimConfig | BlankConfig):
            raise ConfigError(
                f"a Markov chain takes the parameters of the luminosity model alone: emit.{name} "
                "changes the halos' light beyond it"
            )


def drawn_levels(config: Config) -> list[str]:
    """The noise operators whose level differs from sample to sample."""
    return [
        name
        for name, section in config.observe.items()
        if isinstance(section, NoiseConfig)
        and section.radiometer is None
        and (isinstance(section.sigma_uK, tuple) or section.absent > 0.0)
    ]


def held(
    config: Config, parameters: Sequence[dict[str, float]], levels: dict[str, float]
) -> Config:
    """The configuration with these noise levels, and one of some sets of parameters of its model
    for every sample."""
    (component,) = config.line.components.values()
    sets = {
        f"set{number}": replace(
            component,
            parameters={**component.parameters, **given},
            multivariate=None,
            constraints=[],
        )
        for number, given in enumerate(parameters)
    }
    line = replace(LineConfig(), mixture=sets)
    observe = dict(config.observe)
    for name, level in levels.items():
        observe[name] = replace(observe[name], sigma_uK=level, absent=0.0)
    return replace(config, emit={**config.emit, "line": line}, observe=observe)


def levels_of(batch: Batch, names: list[str]) -> Float:
    """The noise levels of a batch's samples [B, num_names]."""
    rows = [[draw[name]["sigma_uK"] for name in names] for draw in batch.draws]
    return np.array(rows, np.float64).reshape(len(batch), len(names))


def data_vector(generator: Generator) -> DataVector:
    """With bins of T that the generator's first samples choose."""
    input_map = InputMap.of(generator.config)
    parts = []
    for batch in _batches(generator, 0, EDGE_SAMPLES):
        voxels = input_map.restore(batch.cube).flatten(1)
        parts.append(voxels[:, :: -(-voxels.shape[1] // EDGE_VOXELS)].cpu().numpy())
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
) -> Simulations:
    """Samples first .. first + num - 1 of a generator. density: names the parameters."""
    names = drawn_levels(generator.config)
    theta: list[list[float]] = []
    levels, vectors, counts, halos = [], [], [], []
    for batch in _batches(generator, first, num):
        theta += [[draw["parameters"][n] for n in density.names] for draw in batch.draws]
        levels.append(levels_of(batch, names))
        vectors.append(vector(batch.cube))
        counts.append(generator.label.log10_counts(batch.label, batch.one_halo).cpu().numpy())
        halos.append(batch.counts.sum(1).cpu().numpy().astype(np.float64))
        report(len(theta))
    whole = [np.concatenate(parts) for parts in (levels, vectors, counts, halos)]
    return Simulations(np.array(theta), *whole)


def _batches(generator: Generator, first: int, num: int) -> Iterator[Batch]:
    for start in range(first, first + num, BATCH_SIZE):
        with torch.inference_mode():
            batch = generator.generate(range(start, min(start + BATCH_SIZE, first + num)))
        batch.check()
        yield batch
