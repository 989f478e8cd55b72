"""What is drawn for samples by NumPy, and what training needs of whatever makes samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from streamtrain.catalogs.synthesis.fresh import MadeLightcone
from streamtrain.generator.batch import Batch, Records
from streamtrain.generator.painter import PaintArguments
from streamtrain.generator.windows import Scene, SkiesInUse
from streamtrain.labels import Label
from streamtrain.operators.base import Drawn


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

    def describe(self) -> str:
        """What samples are made of, as text."""

    def identity(self) -> dict[str, Any]:
        """What decides samples besides the configuration, as plain data."""

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
