"""Samples drawn by NumPy, and what training needs of whatever makes samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from streamtrain.catalogs.headers import Header
from streamtrain.catalogs.synthesis.fresh import MadeLightcone
from streamtrain.generator.batch import Batch, Column, OfModels, Records
from streamtrain.generator.line import Chosen
from streamtrain.generator.painter import PaintArguments
from streamtrain.generator.windows import Scene, SkiesInUse
from streamtrain.labels import Label
from streamtrain.luminosity.modifiers import Modifiers
from streamtrain.luminosity.scores import NormalScores
from streamtrain.numerics.rng import STAGE_POSE, Draws, Split, sample_indices
from streamtrain.operators.base import Drawn, Operator, draw_finite
from streamtrain.operators.noise import LevelNoise


@dataclass(frozen=True)
class SampleDraws:
    """What is drawn for B samples of one window of the schedule."""

    scene: Scene
    indices: Sequence[int]
    arguments: PaintArguments
    """What the painter needs to paint these samples."""
    operators: list[Drawn]
    """What each map operator drew."""
    records: Records
    """What was drawn, per sample, as the user sees it in `batch.draws`."""
    parameters: NDArray[np.float32] | None = None
    """The label where it is of parameters [B, num_outputs]."""

    def __len__(self) -> int:
        return len(self.arguments)


class NumpyDraws:
    """Draws samples with NumPy alone; `kernel_draws` draws the same on the device.

    scores: of each luminosity model, where the label is of parameters.
    """

    def __init__(
        self,
        seed: int,
        split: Split,
        modifiers: Modifiers,
        operators: Sequence[Operator],
        label: Label,
        scores: Sequence[NormalScores],
    ) -> None:
        self._seed, self._split, self._modifiers = seed, split, modifiers
        self._operators, self._label, self._scores = operators, label, scores

    def draw(
        self,
        scene: Scene,
        indices: Sequence[int],
        chosen: Chosen | None = None,
        levels: Mapping[str, NDArray[np.float64]] | None = None,
    ) -> SampleDraws:
        """Draw samples of one window whose lightcones are at hand, see `Generator.draw`."""
        numbers = sample_indices(indices)
        draws = Draws(self._seed, self._split, numbers, STAGE_POSE)
        fields = scene.line.fields(draws)
        adjustments = self._modifiers.draw(draws)
        arguments, records = scene.line.draw(draws, fields, adjustments, chosen)
        columns: dict[str, Column] = {
            name: Records(made, range(len(arguments))) for name, made in adjustments.records.items()
        }
        for name, line in scene.interlopers.items():
            same = line.stages.pose == scene.line.stages.pose
            theirs = fields if same else line.fields(draws)
            other, described = line.draw(draws, theirs, line.modifiers.draw(draws))
            arguments.others.append(other)
            columns[name] = described
        drawn = [
            draw_finite(operator, Draws(self._seed, self._split, numbers, operator.stage))
            for operator in self._operators
        ]
        for k, operator in enumerate(self._operators):
            if levels is not None and operator.name in levels:
                assert isinstance(operator, LevelNoise)
                drawn[k] = operator.at_level(levels[operator.name])
        for operator, values in zip(self._operators, drawn, strict=True):
            if values:
                columns[operator.name] = Records(values, range(len(arguments)))
        parameters = self._parameters(draws, scene, records)
        return SampleDraws(
            scene, indices, arguments, drawn, records.with_columns(columns), parameters
        )

    def _parameters(
        self, draws: Draws, scene: Scene, records: Records
    ) -> NDArray[np.float32] | None:
        """The label of samples where it is of parameters, from those that they have drawn."""
        if not self._scores:
            return None
        drawn = records.column("parameters")
        assert isinstance(drawn, OfModels)
        draws = draws.of_stage(scene.line.stages.model)
        scores = [
            one.drawn(draws.take(np.flatnonzero(drawn.choice == number)), mine)
            for number, (one, mine) in enumerate(zip(self._scores, drawn.parameters, strict=True))
        ]
        return self._label.of_parameters(drawn.choice, scores)


class SampleGenerator(Protocol):
    """The part of a generator that training needs, see `Generator`; any class that has it can be
    trained on instead."""

    classes: list[str]
    label: Label
    device: torch.device

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape (n_freq, n_dec, n_ra) of a sample's cube."""

    @property
    def num_bins(self) -> int:
        """Number of luminosity bins."""

    @property
    def bin_edges(self) -> NDArray[np.float64]:
        """Edges of the luminosity bins, log10(L / Lsun) [num_bins + 1]."""

    @property
    def headers(self) -> list[Header]:
        """Headers of the lightcone files that samples are made of."""

    def describe(self) -> str:
        """What samples are made of, as text."""

    def identity(self) -> dict[str, Any]:
        """What decides samples besides the configuration, as plain data."""

    def ln_accepted(self) -> NDArray[np.float64]:
        """ln of the share that the conditions on a draw leave of the scores of each luminosity
        model [num_models]; asked where the label is of parameters."""

    def generate(self, indices: Sequence[int]) -> Batch:
        """The batch of these samples."""

    def blank(self, indices: Sequence[int]) -> torch.Tensor:
        """The maps of these samples had there been no halo, float32 [B, n_freq, n_dec, n_ra]."""

    def skies_of(self, index: int) -> SkiesInUse:
        """The lightcones that a sample may be painted from."""

    def window(self, index: int) -> int:
        """Number of the window of lightcones that a sample falls into."""

    def ready(self, index: int, seconds: float) -> bool:
        """Whether the lightcones of a sample are in use, after waiting for at most so long [s]."""

    def take_made(self) -> list[MadeLightcone]:
        """The lightcones that were made, not read, since the last call."""

    def give_up(self) -> None:
        """Make no more lightcones: a sample that waits for one fails."""

    def close(self) -> None:
        """Stop the generator's threads; it cannot be used afterwards."""
