"""What is drawn for samples on the host, before anything is made on the device."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from streamtrain.catalogs.synthesis.fresh import MadeLightcone
from streamtrain.generator.batch import Batch, Records
from streamtrain.generator.painter import PaintArguments
from streamtrain.generator.windows import LightconeWindows, Scene, SkiesInUse
from streamtrain.labels import Label
from streamtrain.machine.forked import ForkedTeam
from streamtrain.machine.workers import own_cores
from streamtrain.numerics.workspace import Workspace
from streamtrain.operators.base import Drawn

SAMPLES_AHEAD = 256
"""Samples that are drawn at once: most of what NumPy's calls cost is per call."""
WORTH_FORKING = 4096
"""Samples of a window for which processes are forked, which takes as long as drawing for two
thousand."""


HandedOver = tuple[PaintArguments, list[Drawn], Records, NDArray[np.float32] | None]
"""What a process hands over: a `SampleDraws` without what this process has itself."""


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


class DrawsSamples(Protocol):
    """The part of a generator that drawing ahead needs, and a stream of samples on a GPU; see
    `Generator`."""

    @property
    def scenes(self) -> LightconeWindows:
        """The lightcones of every window, made ready in turn."""

    def generate(self, indices: Sequence[int], memory: Workspace | None = None) -> Batch:
        """The batch of these samples, drawn and painted."""

    def make(self, drawing: SampleDraws, first: int, last: int, memory: Workspace) -> Batch:
        """The batch of samples `first` to `last` (left out) of what has been drawn."""

    def draw(self, indices: Sequence[int]) -> SampleDraws:
        """Draw what varies between these samples."""

    def draw_for(self, scene: Scene, indices: Sequence[int]) -> SampleDraws:
        """Draw samples of one window, whose lightcones are at hand."""

    def window(self, index: int) -> int:
        """Number of the window of lightcones that a sample falls into."""


def drawn_together(batch_size: int, samples: int = SAMPLES_AHEAD) -> int:
    """How many batches are drawn at once."""
    return max(1, samples // batch_size)


class DrawAhead:
    """Makes batch 0, 1, 2, ... of a generator, and draws for a few of them at once.

    indices: those of a batch, consecutive. Only batches of one window of the schedule are drawn
    together, so that nothing waits for lightcones before it needs them.

    processes: forked to draw instead, with the same result, for batches that are asked for one
    after the other. NumPy holds Python's lock while it draws, and so would keep this process from
    enqueuing. There are as many as there are cores for beside this process, new ones for each
    window, and none for a short window or where no process can be forked.
    """

    def __init__(
        self,
        generator: DrawsSamples,
        indices: Callable[[int], list[int]],
        samples: int = SAMPLES_AHEAD,
        *,
        processes: int = 0,
    ) -> None:
        self._generator, self._indices = generator, indices
        size = len(indices(0))
        self.together = drawn_together(size, samples)
        """Batches that are drawn at once."""
        self._drawing: SampleDraws | None = None
        self._places: dict[int, int] = {}
        """First sample in the drawing of each batch that it holds."""
        can = "fork" in multiprocessing.get_all_start_methods()
        self._processes = max(0, min(processes, own_cores() - 1)) if can else 0
        self._worth = max(1, WORTH_FORKING // size)
        self.drawers: ForkedTeam[HandedOver] | None = None
        """What draws instead of this process,"""
        self._window, self._start = -1, 0
        """for this window of the schedule, from this batch on."""

    def close(self) -> None:
        """End the processes that draw."""
        if self.drawers is not None:
            self.drawers.close()

    def make(self, number: int, memory: Workspace) -> Batch:
        """Batch `number`, see `Generator.generate`."""
        drawn = self.drawn(number)
        if drawn is None:
            return self._generator.generate(self._indices(number), memory)
        return self._generator.make(*drawn, memory)

    def drawn(self, number: int) -> tuple[SampleDraws, int, int] | None:
        """What holds the draws for a batch, and the batch's first and last + 1 sample in it; None
        for a batch with samples of several windows."""
        if number not in self._places:
            self._draw(number)
        if self._drawing is None:
            return None
        first = self._places[number]
        return self._drawing, first, first + len(self._indices(number))

    def _draw(self, number: int) -> None:
        """Draw for a batch and what follows it in the same window."""
        self._drawing = None
        window = self._generator.window(self._indices(number)[0])
        indices, self._places = self._together(number, window)
        if not indices:
            return
        if window != self._window:
            self._enter(window, number)
        handed_over = self._drawn_elsewhere(number)
        if handed_over is None:
            self._drawing = self._generator.draw(indices)
            return
        self._drawing = SampleDraws(self._generator.scenes.of(window), indices, *handed_over)

    def _together(self, number: int, window: int) -> tuple[list[int], dict[int, int]]:
        """Indices of a batch and of what is drawn with it, as far as they lie in a window, and the
        place of each batch among them."""
        together: list[int] = []
        places = {}
        for ahead in range(number, number + self.together):
            indices = self._indices(ahead)
            if any(self._generator.window(index) != window for index in (indices[0], indices[-1])):
                break
            places[ahead] = len(together)
            together += indices
        return together, places

    def _enter(self, window: int, number: int) -> None:
        """Have processes that draw for a window from batch `number` on, if it is long enough."""
        self._window, self._start, self.drawers = window, number, None
        last = self._indices(number + self._worth - 1)[-1]
        if not self._processes or self._generator.window(last) != window:
            return
        generator, scene = self._generator, self._generator.scenes.of(window)

        def draw(group: int) -> HandedOver:
            indices, _ = self._together(number + group * self.together, window)
            if not indices:
                raise StopIteration
            drawing = generator.draw_for(scene, indices)
            return drawing.arguments, drawing.operators, drawing.records, drawing.parameters

        self.drawers = ForkedTeam(draw, self._processes)

    def _drawn_elsewhere(self, number: int) -> HandedOver | None:
        """What a process has drawn for batch `number` and those that are drawn with it."""
        group, later = divmod(number - self._start, self.together)
        return None if later or self.drawers is None else self.drawers.take(group)
