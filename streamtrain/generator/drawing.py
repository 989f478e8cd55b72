"""What is drawn for samples on the host, before anything is made on the device."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from streamtrain.cores import own_cores
from streamtrain.forked import Forked
from streamtrain.generator.batch import Batch
from streamtrain.generator.operators import Drawn
from streamtrain.generator.painter import Job
from streamtrain.generator.records import Later, Records
from streamtrain.generator.scenes import Scene
from streamtrain.generator.workspace import Workspace

if TYPE_CHECKING:
    from streamtrain.generator.generator import Generator

SAMPLES_AHEAD = 256
"""Samples that are drawn at once: most of what NumPy's calls cost is per call."""
PROCESSES = 2
"""Processes that draw: one draws for some 45 000 samples/s, which a GPU may outrun."""


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

    processes: forked to draw instead, with the same result, for batches that are asked for one
    after the other from the first on. NumPy holds Python's lock while it draws, and so would keep
    this process from enqueuing. There are as many as there are cores for beside this process, and
    none where the lightcones change or where no process can be forked.
    """

    def __init__(
        self,
        generator: Generator,
        indices: Callable[[int], list[int]],
        samples: int = SAMPLES_AHEAD,
        *,
        processes: int = 0,
    ) -> None:
        self._generator, self._indices = generator, indices
        self.together = drawn_together(len(indices(0)), samples)
        """Batches that are drawn at once."""
        self._drawing: Drawing | None = None
        self._places: dict[int, int] = {}
        """First sample in the drawing of each batch that it holds."""
        self.processes = self._fork(min(processes, own_cores() - 1))
        """What draws instead of this process, in turn."""

    def _fork(self, number: int) -> list[Forked[tuple[Job, list[Drawn]]]]:
        generator, together, indices = self._generator, self.together, self._indices
        can = "fork" in multiprocessing.get_all_start_methods()
        if number < 1 or not can or generator.schedule.turns:
            return []
        scene = generator.scenes.of(0)

        def draw(first: int, turn: int) -> tuple[Job, list[Drawn]]:
            group = first + turn * number
            numbers = range(group * together, (group + 1) * together)
            drawing = generator.draw_for(scene, [i for n in numbers for i in indices(n)])
            return drawing.job, drawing.operators

        with ExitStack() as started, suppress(OSError):
            processes = []
            for first in range(number):
                processes.append(Forked(partial(draw, first)))
                started.callback(processes[-1].close)
            started.pop_all()
            return processes
        return []

    def close(self) -> None:
        """End the processes that draw."""
        for process in self.processes:
            process.close()

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
            drawn = self._drawn_elsewhere(number, together)
            self._drawing = self._generator.draw(together) if drawn is None else drawn
        self._places = places

    def _drawn_elsewhere(self, number: int, indices: list[int]) -> Drawing | None:
        """What a process has drawn for batch `number` and the following ones. It does not hand
        over the records, which hardly anybody asks for: they are drawn again."""
        group, later = divmod(number, self.together)
        if not self.processes or later:
            return None
        turn, process = divmod(group, len(self.processes))
        made = self.processes[process].take(turn)
        if made is None:
            return None
        generator = self._generator
        scene = generator.scenes.of(0)
        records = Later(lambda: generator.draw_for(scene, indices).records.columns)
        return Drawing(scene, indices, *made, Records(records, range(len(indices))))
