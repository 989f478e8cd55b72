"""What is drawn for samples on the host, before anything is made on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamtrain.generator.batch import Batch
from streamtrain.generator.operators import Drawn
from streamtrain.generator.painter import Job
from streamtrain.generator.records import Records
from streamtrain.generator.scenes import Scene
from streamtrain.generator.workspace import Workspace

if TYPE_CHECKING:
    from streamtrain.generator.generator import Generator

SAMPLES_AHEAD = 256
"""Samples that are drawn at once: most of what NumPy's calls cost is per call."""


@dataclass(frozen=True)
class Drawing:
    """What is drawn for B samples of one window of the schedule."""

    scene: Scene
    indices: Sequence[int]
    job: Job
    """For the painter."""
    operators: list[Drawn]
    """For each map operator."""
    records: Records
    """For the user, per sample."""

    def __len__(self) -> int:
        return len(self.job)


def drawn_together(batch_size: int, samples: int = SAMPLES_AHEAD) -> int:
    """How many batches are drawn at once."""
    return max(1, samples // batch_size)


class DrawnAhead:
    """Makes batch 0, 1, 2, ... of a generator, and draws for a few of them at once.

    indices: those of a batch, consecutive. Only batches of one window of the schedule are drawn
    together, so that nothing waits for lightcones before it needs them.
    """

    def __init__(
        self,
        generator: Generator,
        indices: Callable[[int], list[int]],
        samples: int = SAMPLES_AHEAD,
    ) -> None:
        self._generator, self._indices = generator, indices
        self.together = drawn_together(len(indices(0)), samples)
        """Batches that are drawn at once."""
        self._drawing: Drawing | None = None
        self._places: dict[int, int] = {}
        """First sample in the drawing of each batch that it holds."""

    def make(self, number: int, memory: Workspace) -> Batch:
        """Batch `number`, see `Generator.generate`."""
        drawn = self.drawn(number)
        if drawn is None:
            return self._generator.generate(self._indices(number), memory)
        return self._generator.make(*drawn, memory)

    def drawn(self, number: int) -> tuple[Drawing, int, int] | None:
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
        self._drawing, self._places = None, {}
        together: list[int] = []
        places = {}
        window = self._generator.window(self._indices(number)[0])
        for ahead in range(number, number + self.together):
            indices = self._indices(ahead)
            if any(self._generator.window(index) != window for index in (indices[0], indices[-1])):
                break
            places[ahead] = len(together)
            together += indices
        if together:
            self._drawing = self._generator.draw(together)
        self._places = places
