"""New maps of a posterior: parameters that its luminosity functions have, other halos, new noise.

Noise whose level differs from map to map is painted at the level of the map, as it is stated or as
the map shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp

from streamtrain.config import Config
from streamtrain.evaluate.repaint.model_fit import ParametersOfCounts
from streamtrain.evaluate.repaint.statistics import BATCH, Compared, Measured, PaintedStatistics
from streamtrain.generator.generator import Generator
from streamtrain.generator.line import Chosen
from streamtrain.networks.flow import FlowHead
from streamtrain.networks.network import Network
from streamtrain.numerics.workspace import FreshMemory
from streamtrain.operators.noise import LevelNoise
from streamtrain.operators.voxel_files import unseen_before
from streamtrain.priors import Parameters

Float = NDArray[np.float64]

PILOT = 24
"""Painted maps, of noise levels of the prior, that tell how the level of a map is read off it."""
LEVELS = 400
"""Levels that are told apart."""


class NoiseLevel:
    """The noise of maps that are painted.

    generator: of the run; stated: the level of the map, as it is quoted in the configuration; None:
    it is read off the map where it differs from sample to sample.
    """

    def __init__(self, generator: Generator, stated: float | None = None) -> None:
        self.drawn = [
            operator
            for operator in generator.operators
            if isinstance(operator, LevelNoise) and operator.level_varies
        ]
        self.stated = stated
        self.seen = torch.from_numpy(~unseen_before(generator.observation.state))
        if stated is not None and not self.drawn:
            raise ValueError(
                "the level of the noise was given, but no noise of this run's observe has a level "
                "that differs from map to map"
            )
        if stated is not None and not (stated >= 0.0 and np.isfinite(stated)):
            raise ValueError(f"the level of the noise, {stated:g}, must be 0 or more")

    @property
    def mode(self) -> str:
        """'fixed', 'stated' or 'estimated'."""
        if not self.drawn:
            return "fixed"
        return "estimated" if self.stated is None else "stated"

    def prior(self, number: int, rng: np.random.Generator) -> dict[str, Float]:
        """Levels of the prior [number], by the operator's name."""
        found = {}
        for operator in self.drawn:
            low, high = operator.sigma
            levels = low + (high - low) * rng.random(number)
            found[operator.name] = np.where(rng.random(number) < operator.absent, 0.0, levels)
        return found

    def given(self, number: int, rng: np.random.Generator) -> dict[str, Float]:
        """Levels where the first operator's is stated; others are drawn."""
        found = self.prior(number, rng)
        if self.stated is not None:
            found[self.drawn[0].name] = np.full(number, self.stated)
        return found

    def read_off(
        self,
        one: torch.Tensor,
        pilot: torch.Tensor,
        levels: Mapping[str, Float],
        number: int,
        rng: np.random.Generator,
    ) -> dict[str, Float]:
        """Levels [number] that a map may have.

        one: the map [1, n_freq, n_dec, n_ra]; pilot: painted maps of some levels. The scatter of
        differences between neighbouring channels is a line in the square of the level, which the
        painted maps fix; its residuals say how well a level is known. Levels are drawn from the
        prior times that.
        """
        operator, found = self.drawn[0], self.prior(number, rng)
        low, high = operator.sigma
        here, x = roughness(one, self.seen)[0], roughness(pilot, self.seen)
        square = np.asarray(levels[operator.name], np.float64) ** 2
        weight = 1.0 / np.maximum(x, 1e-30)
        terms = np.stack([np.ones(len(x)), square], axis=1) * weight[:, None]
        line, *_ = np.linalg.lstsq(terms, np.ones(len(x)), rcond=None)
        predicted = np.maximum(line[0] + line[1] * square, 0.1 * x)
        spread = np.sqrt(np.mean((x / predicted - 1.0) ** 2) * len(x) / (len(x) - 2))
        tried = low + (high - low) * (np.arange(LEVELS) + 0.5) / LEVELS
        ln_prior = np.full(LEVELS, np.log(max(1.0 - operator.absent, 1e-300) / LEVELS))
        if operator.absent > 0.0:
            tried, ln_prior = np.append(tried, 0.0), np.append(ln_prior, np.log(operator.absent))
        mean = np.maximum(line[0] + line[1] * tried**2, 1e-3 * x.min() + 1e-30)
        sigma = max(spread, 1e-3) * mean
        ln_chance = ln_prior - 0.5 * ((here - mean) / sigma) ** 2 - np.log(sigma)
        chance = np.exp(ln_chance - logsumexp(ln_chance))
        found[operator.name] = rng.choice(tried, number, p=chance / chance.sum())
        return found

    def text(self, levels: Mapping[str, Float]) -> list[str]:
        """What was done, a sentence each. levels: of the painted maps."""
        said = []
        for number, operator in enumerate(self.drawn):
            values = levels[operator.name]
            if number == 0 and self.stated is not None:
                said.append(f"{operator.name}: sigma = {self.stated:g}, as stated")
                continue
            low, middle, high = np.quantile(values, (0.16, 0.5, 0.84))
            how = "what the map shows" if number == 0 else "its prior, not by the map"
            said.append(
                f"{operator.name}: the level of the map is not known; sigma = {middle:.3g} "
                f"({low:.3g} .. {high:.3g}) is drawn by {how}"
            )
        return said


def roughness(maps: torch.Tensor, seen: torch.Tensor) -> Float:
    """Squared scatter of differences between neighbouring voxels along the line of sight, or along
    declination where there is one channel [B]: robust, so that few bright voxels do not count.

    seen: which voxels were observed [n_freq, n_dec, n_ra]; the others are the same in all maps.
    """
    axis = 1 if maps.shape[1] > 1 else 2
    near, far = (seen.narrow(axis - 1, k, seen.shape[axis - 1] - 1) for k in (0, 1))
    both = (near & far).to(maps.device)
    away = maps.diff(dim=axis).abs()[:, both if both.any() else torch.ones_like(both)].double()
    return np.asarray((1.4826 * away.median(dim=1).values / np.sqrt(2.0)).cpu().numpy() ** 2)


@dataclass(frozen=True)
class Repainted:
    """A map beside the maps that were painted from its posterior."""

    compared: Compared
    counts: NDArray[np.int64]
    """Halos of the painted maps [R, num_bins]."""
    levels: dict[str, Float]
    """Noise levels of the painted maps [R], by the operator's name, where they differ."""


class Repainter:
    """Paints maps from posteriors, and compares maps with them.

    config: of the run; network: of it; painting: generator of its training samples, whose skies
    the halos are from; scatter: see `field_scatter`, None: it does not matter.
    """

    def __init__(
        self, config: Config, network: Network, painting: Generator, scatter: Float | None = None
    ) -> None:
        self.network, self.painting = network, painting
        self.statistics = PaintedStatistics(config, network)
        self.of_counts = ParametersOfCounts(painting, scatter)

    def drawn(self, output: torch.Tensor, number: int, seed: int) -> list[Chosen]:
        """Models and parameters drawn from the posteriors of B maps, `number` for each of them.
        output: of the network [B, num_numbers]."""
        rng, luck = np.random.default_rng([seed, 1]), torch.Generator().manual_seed(seed)
        head = self.network.head
        if isinstance(head, FlowHead):
            return [self._of_labels(head, row[None], number, luck, rng) for row in output]
        with torch.inference_mode():
            functions = head.sample(output, number, luck).double().cpu().numpy()
        return [self.of_counts.draw(functions[:, k], rng) for k in range(len(output))]

    def _of_labels(
        self,
        head: FlowHead,
        output: torch.Tensor,
        number: int,
        luck: torch.Generator,
        rng: np.random.Generator,
    ) -> Chosen:
        """Models and parameters that the network itself draws for a map, but for those that the
        conditions of the prior forbid."""
        columns, classes = head.label.parameter_columns, head.label.num_class_columns
        drawn = head.sample(output, 4 * number, luck)[:, 0].double().cpu().numpy()
        model = drawn[:, :classes].argmax(axis=1) if classes else np.zeros(len(drawn), np.int64)
        allowed = np.zeros(len(drawn), bool)
        for k, at in enumerate(columns):
            mine = np.flatnonzero(model == k)
            allowed[mine] = self.of_counts.allowed(k, drawn[mine, at])
        good = np.flatnonzero(allowed)
        if not len(good):
            raise ValueError(
                "the whole posterior breaks the constraints of its prior: the network has not "
                "learned them, train it longer"
            )
        taken = good[:number] if len(good) >= number else rng.choice(good, number)
        chosen = model[taken]
        scores = [drawn[taken[chosen == k], at] for k, at in enumerate(columns)]
        return Chosen(chosen, self.of_counts.values(scores))

    def paint(
        self,
        chosen: Chosen,
        levels: Mapping[str, Float],
        first: int,
        report: Callable[[int], None] = lambda done: None,
    ) -> tuple[Measured, NDArray[np.int64]]:
        """Maps of models, parameters and noise levels, measured, and their halos [R, num_bins].

        first: index of the first; it decides place, scatter and noise. report: called with the
        number of maps done.
        """
        parts, counts, schedule = [], [], self.painting.schedule
        for start in range(0, len(chosen.model), BATCH):
            stop = min(start + BATCH, len(chosen.model))
            indices = [first + k for k in range(start, stop)]
            if schedule.turns:  # the lightcones of the first window are at hand
                indices = [index % schedule.samples for index in indices]
            some = {name: values[start:stop] for name, values in levels.items()}
            drawing = self.painting.draw(indices, _part(chosen, start, stop), some)
            memory = FreshMemory(self.painting.device)
            batch = self.painting.make(drawing, 0, len(indices), memory)
            batch.check()
            parts.append(self.statistics.measure(batch.cube))
            counts.append(batch.counts.cpu().numpy().astype(np.int64))
            report(stop)
        return Measured.join(parts), np.concatenate(counts)

    def repaint(
        self,
        one: Measured,
        chosen: Chosen,
        noise: NoiseLevel,
        first: int,
        seed: int,
        report: Callable[[int], None] = lambda done: None,
    ) -> Repainted:
        """Maps painted for a map, beside it.

        one: the map, measured; chosen: models and parameters of its posterior; noise: what is known
        of that of the map; first, report: see `paint`; seed: of the noise levels.
        """
        rng, number = np.random.default_rng([seed, 2]), len(chosen.model)
        if noise.mode == "estimated":
            tried = noise.prior(PILOT, rng)
            pilot, _ = self.paint(_part(chosen, 0, PILOT), tried, first + number)
            levels = noise.read_off(one.maps, pilot.maps, tried, number, rng)
        else:
            levels = noise.given(number, rng)
        made, counts = self.paint(chosen, levels, first, report)
        return Repainted(self.statistics.compare(one, made), counts, levels)


def _part(chosen: Chosen, start: int, stop: int) -> Chosen:
    """Some of the samples."""
    model = chosen.model[start:stop]
    parameters: list[Parameters] = []
    for k, given in enumerate(chosen.parameters):
        skip = int((chosen.model[:start] == k).sum())
        last = skip + int((model == k).sum())
        parameters.append({name: values[skip:last] for name, values in given.items()})
    return Chosen(model, parameters)
