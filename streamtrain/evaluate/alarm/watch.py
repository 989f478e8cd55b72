"""The alarm of a run: its reference, made once and kept in the run folder, and what judges maps.

The reference, alarm.npz, is of one checkpoint, one set of sample settings and one version of the
generator; with another of these it is made again. Other runs may be named whose networks take the
same maps: how far they predict something else is then a statistic of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from streamtrain.bins import ranges_with_bins
from streamtrain.config import Config
from streamtrain.evaluate.alarm.alarm import (
    FEWEST_MAPS,
    NUM_MAPS,
    PRIOR_LEVELS,
    Alarm,
    Reference,
)
from streamtrain.evaluate.alarm.statistics import EDGE_MAPS, MapStatistics, Place
from streamtrain.evaluate.posterior.functions import Functional, functionals, whole_quantiles
from streamtrain.evaluate.testset import BATCH_SIZE
from streamtrain.generator.generator import Batch, Generator
from streamtrain.labels import NO_FUNCTION
from streamtrain.machine.progress import SILENT, Progress
from streamtrain.networks.network import Network, point_of
from streamtrain.operators.plan import InputMap
from streamtrain.schema import differences, to_dict
from streamtrain.shipped import is_shipped
from streamtrain.tables import range_title

Float = NDArray[np.float64]

FILE = "alarm.npz"
PROCEDURE = 4
"""Goes up when other distances come out."""
NO_ALARM = "the alarm is off: nothing says whether the training could have made this map"
"""What is noted of a map that was compared with no map of the prior, as was asked for."""
NETWORKS = "prediction of another network"
"""Kind of the statistics that compare networks."""


@dataclass(frozen=True)
class Other:
    """Another network that takes the same maps and predicts counts in the same bins."""

    folder: str
    """The folder of the run that it is from, from the root."""
    step: int
    """The optimiser steps that its checkpoint has seen."""
    weights_sha256: str
    """sha256 of its weights."""
    network: Network


@dataclass(frozen=True)
class Watch:
    """What judges maps: the statistics, the networks, and what maps of the prior have."""

    network: Network
    others: tuple[Other, ...]
    statistics: MapStatistics
    reference: Reference

    def judge(self, cubes: torch.Tensor) -> list[Alarm]:
        """The alarms of inputs [B, n_freq, n_dec, n_ra]. Raises ValueError for a prediction that is
        not finite."""
        return self.reference.judge(*_look(self.statistics, self.network, self.others, cubes))

    def p_values(self, cubes: torch.Tensor) -> Float:
        """The p-values of inputs [B, n_freq, n_dec, n_ra] alone [B]."""
        return self.reference.p_values(*_look(self.statistics, self.network, self.others, cubes))


def open_watch(
    folder: Path,
    identity: Mapping[str, Any],
    network: Network,
    input_map: InputMap,
    generators: Callable[[str], Generator] | None,
    *,
    maps: int | None = None,
    again: bool = False,
    others: Sequence[Other] = (),
    has_validation: bool = True,
    progress: Progress = SILENT,
) -> Watch | None:
    """The alarm of a run, from its folder where it is kept there, else made, and kept.

    identity: what the reference depends on, as plain data; generators: open the samples of a split,
    or None if nothing is to be made: there is no alarm then, unless it is kept. maps: of the prior,
    half of them on the training's skies, at least so many; None: those that are kept, or
    `NUM_MAPS`. has_validation: whether there are validation lightcones, which are the unseen skies;
    without them these are the training's, which is said. Raises ValueError or OSError where the
    maps cannot be made here.
    """
    compared = [[other.folder, other.step, other.weights_sha256] for other in others]
    about = {"procedure": PROCEDURE, **identity, "others": compared}
    with contextlib.suppress(ValueError, OSError):
        reference, of = Reference.load(folder / FILE)
        if of == about and not again and (maps is None or maps // 2 <= len(reference)):
            statistics = MapStatistics(input_map, reference.scales)
            return Watch(network, tuple(others), statistics, reference)
    if generators is None:
        return None
    reference, statistics = _made(
        network, input_map, generators, maps or NUM_MAPS, tuple(others), has_validation, progress
    )
    if not is_shipped(folder):
        with contextlib.suppress(OSError):
            reference.save(folder / FILE, about)
    return Watch(network, tuple(others), statistics, reference)


def kept_others(folder: Path) -> list[str]:
    """Folders of the other runs that the kept alarm of a run folder compares its network with."""
    with contextlib.suppress(ValueError, OSError, KeyError, TypeError):
        return [str(name) for name, *_ in Reference.load(folder / FILE)[1]["others"]]
    return []


def check_comparable(config: Config, other: Config, folder: str | Path) -> None:
    """Raise ValueError, one sentence, unless the network of `folder`, of the configuration `other`,
    takes the maps that the network of `config` does, and predicts the same function of them."""
    for name in ("grid", "observe", "label"):
        pair = [to_dict(getattr(one, name)) for one in (config, other)]
        difference = next(differences(*pair), None)
        if difference is not None:
            told = difference.text("in this run", f"in {folder}")
            raise ValueError(f"the network of {folder} does not fit: {name}: {told}")
    if config.label.quantity in NO_FUNCTION:
        raise ValueError(
            f"{folder}: networks are compared in their luminosity functions, and the label "
            f"is {NO_FUNCTION[config.label.quantity]}"
        )


def check_maps(maps: int) -> int:
    """A number of maps of the prior, or 0 for no alarm. Raises ValueError, one sentence."""
    if maps != 0 and maps < FEWEST_MAPS:
        raise ValueError(
            f"{maps} maps of the prior are too few for an alarm: {FEWEST_MAPS} or more, or 0 for "
            "none"
        )
    return maps


def _made(
    network: Network,
    input_map: InputMap,
    generators: Callable[[str], Generator],
    maps: int,
    others: tuple[Other, ...],
    has_validation: bool,
    progress: Progress,
) -> tuple[Reference, MapStatistics]:
    number = maps // 2
    statistics: MapStatistics | None = None
    skies = ""
    found: list[tuple[Float, Float]] = []
    integrals: dict[str, list[Float]] = {}
    for split in ("train", "validation" if has_validation else "train"):
        first = number if found and not has_validation else 0
        parts = []
        with contextlib.closing(generators(split)) as generator:
            quoted = _quoted(generator)
            if split == "train" and found:
                skies = "the training's own skies"
            elif split == "validation":
                count = len({header.realisation for header in generator.headers})
                skies = f"{count} {'sky' if count == 1 else 'skies'} that no training saw"
            for batch in _batches(generator, first, number):
                if statistics is None:
                    cubes = batch.cube
                    if len(cubes) < EDGE_MAPS:
                        more = range(len(cubes), min(EDGE_MAPS, number))
                        cubes = torch.cat([cubes, generator.generate(more).cube])
                    statistics = MapStatistics.choose(input_map, cubes)
                parts.append(_look(statistics, network, others, batch.cube))
                counts = batch.counts.double().cpu().numpy()
                for each in quoted:
                    integrals.setdefault(each.name, []).append(each.of(counts))
                done = len(found) * number + sum(len(part[0]) for part in parts)
                progress.count("alarm", done, 2 * number, "maps of the prior")
        del generator, batch  # their lightcones go before those of the next split come
        numbers, outputs = (np.concatenate(rows) for rows in zip(*parts, strict=True))
        found.append((numbers, outputs))
    assert statistics is not None
    places = [*statistics.places, *_places(network, others)]
    prior = {
        name: whole_quantiles(np.concatenate(values), PRIOR_LEVELS).tolist()
        for name, values in integrals.items()
    }
    return Reference.fit(statistics, found[0], found[1], places, skies, prior), statistics


def _quoted(generator: Generator) -> list[Functional]:
    """What a posterior quotes of a luminosity function; nothing where the label is none."""
    label = generator.label
    if label.config.quantity in NO_FUNCTION:
        return []
    cosmology = generator.skies.cosmologies[0]
    return functionals(label.bins, generator.grid, cosmology["Omega_m"], cosmology["h"])


def _batches(generator: Generator, first: int, number: int) -> Iterator[Batch]:
    for start in range(first, first + number, BATCH_SIZE):
        batch = generator.generate(range(start, min(start + BATCH_SIZE, first + number)))
        batch.check()
        yield batch


def _look(
    statistics: MapStatistics, network: Network, others: Sequence[Other], cubes: torch.Tensor
) -> tuple[Float, Float]:
    """Statistics, with those of other networks, and outputs of inputs."""
    unit_label = network.head.label.unit_label(np.zeros(1, np.int64))
    output, point = point_of(network, cubes, unit_label)
    numbers = [statistics(cubes)]
    if others:
        own = _of_ranges(network, point, unit_label)
        for other in others:
            theirs = other.network.head.label.unit_label(np.zeros(1, np.int64))
            _, predicted = point_of(other.network, cubes, theirs)
            numbers.append(_of_ranges(other.network, predicted, theirs) - own)
    outputs = network.head.tells_apart(output)
    return np.concatenate(numbers, axis=1), outputs.double().cpu().numpy()


def _of_ranges(network: Network, point: torch.Tensor, unit_label: torch.Tensor) -> Float:
    """Mean log10 of the counts in each luminosity range [B, num_ranges]."""
    label = network.head.label
    log10 = label.log10_counts(point, unit_label.to(point.device)).double().cpu().numpy()
    parts = [log10[:, inside].mean(1) for _, inside in ranges_with_bins(label.bins.edges)]
    return np.stack(parts, axis=1)


def _places(network: Network, others: Sequence[Other]) -> list[Place]:
    return [
        Place(NETWORKS, f"{other.folder}, log10 L = {range_title(span)}", False)
        for other in others
        for span, _ in ranges_with_bins(network.head.label.bins.edges)
    ]
