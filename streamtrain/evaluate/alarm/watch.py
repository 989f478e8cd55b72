"""The alarm of a run: its reference, made once and kept in the run folder, and what judges maps.

The reference, alarm.npz, is of one checkpoint, one set of sample settings and one version of the
generator; with another of these it is made again. Other runs may be named whose networks take the
same maps: how far they predict something else is then a statistic of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
    TURNED,
    Alarm,
    Reference,
)
from streamtrain.evaluate.alarm.statistics import EDGE_MAPS, MapStatistics, Place
from streamtrain.evaluate.posterior.functions import Functional, functionals, whole_quantiles
from streamtrain.evaluate.testset import batches
from streamtrain.generator.generator import Generator
from streamtrain.labels import NO_FUNCTION
from streamtrain.machine.progress import SILENT, Progress
from streamtrain.networks.heads import PointHead
from streamtrain.networks.network import Network, point_of
from streamtrain.operators.plan import InputMap
from streamtrain.ranks import QUANTILES
from streamtrain.schema import ConfigError, differences, to_dict
from streamtrain.shipped import is_shipped
from streamtrain.tables import range_title

Float = NDArray[np.float64]

FILE = "alarm.npz"
PROCEDURE = 6
"""Goes up when other distances come out."""
TURNED_MAPS = 500
"""Maps of the prior, at most, that are made again for each measured number of the instrument."""
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
    if isinstance(network.head, PointHead) and network.head.label.form == "linear":
        about["outputs"] = "in standard deviations"  # not so in alarms of before
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
    looking = _Looking(network, others, input_map, progress, total=2 * number)
    turned: dict[str, tuple[Float, Float]] = {}
    with contextlib.closing(generators("train")) as generator:
        measured = _turned(generator, progress)
        again = min(number, TURNED_MAPS)
        looking.total += again * len(measured)
        seen = looking.at(generator, 0, number)
        for name in list(measured):
            turned[name] = looking.at(measured.pop(name), 0, again, counted=False)
    del generator  # its lightcones go before those of the next split come
    split, first = ("validation", 0) if has_validation else ("train", number)
    with contextlib.closing(generators(split)) as generator:
        unseen = looking.at(generator, first, number)
        count = len({*generator.skies_until(first + number).values()})
    skies = f"{count} {'sky' if count == 1 else 'skies'} that no training saw"
    if not has_validation:
        skies = "the training's own skies"
    statistics = looking.statistics
    places = [*statistics.places, *_places(network, others)]
    prior = {
        name: whole_quantiles(np.concatenate(values), QUANTILES).tolist()
        for name, values in looking.integrals.items()
    }
    return Reference.fit(statistics, seen, unseen, places, skies, prior, turned), statistics


class _Looking:
    """Looks at maps of the prior, and counts them.

    total: how many there will be.
    """

    statistics: MapStatistics
    """The statistics, whose scales are those of the first maps that it looks at."""

    def __init__(
        self,
        network: Network,
        others: Sequence[Other],
        input_map: InputMap,
        progress: Progress,
        total: int,
    ) -> None:
        self._network, self._others, self._input_map = network, others, input_map
        self._progress, self._done, self.total = progress, 0, total
        self.integrals: dict[str, list[Float]] = {}
        """What is quoted of the luminosity functions of maps, by name."""

    def at(
        self, generator: Generator, first: int, number: int, counted: bool = True
    ) -> tuple[Float, Float]:
        """Statistics and outputs of some maps; counted: whether their luminosity functions are
        among those of the prior."""
        quoted = _quoted(generator) if counted else []
        rows = []
        for _, batch in batches(generator, first + number, first):
            if not hasattr(self, "statistics"):
                cubes = batch.cube
                if len(cubes) < EDGE_MAPS:
                    more = range(len(cubes), min(EDGE_MAPS, number))
                    cubes = torch.cat([cubes, generator.generate(more).cube])
                self.statistics = MapStatistics.choose(self._input_map, cubes)
            rows.append(_look(self.statistics, self._network, self._others, batch.cube))
            if quoted:
                counts = batch.counts.double().cpu().numpy()
                for each in quoted:
                    self.integrals.setdefault(each.name, []).append(each.of(counts))
            self._done += len(batch.cube)
            self._progress.count("alarm", self._done, self.total, "maps of the prior")
        numbers, outputs = (np.concatenate(parts) for parts in zip(*rows, strict=True))
        return numbers, outputs


def _turned(generator: Generator, progress: Progress) -> dict[str, Generator]:
    """Generators of the same maps where one measured number of the instrument is `TURNED` times as
    large, by its setting with its value; they share the lightcones."""
    config, found = generator.config, {}
    for step in config.observation.steps:
        if not step.of_the_map:
            continue
        for number, section in step.build().turned(step.section, TURNED).items():
            setting = f"observe.{step.name}.{number}"
            changed = replace(config, observe={**config.observe, step.name: section})
            try:
                found[setting] = Generator(
                    changed,
                    generator.split,
                    generator.device,
                    generator.threads,
                    lightcones=generator.skies,
                    scenes=generator.scenes,
                )
            except ConfigError as error:  # such as a beam that would be wider than the map
                progress.note(f"the alarm does not look for another {setting}: {error}")
    return found


def _quoted(generator: Generator) -> list[Functional]:
    """What a posterior quotes of a luminosity function; nothing where the label is none."""
    label = generator.label
    if label.config.quantity in NO_FUNCTION:
        return []
    cosmology = generator.skies.cosmologies[0]
    return functionals(label.bins, generator.grid, cosmology["Omega_m"], cosmology["h"])


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
