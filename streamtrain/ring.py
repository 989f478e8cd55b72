"""Batches made beside the training that uses them: two queues of work on one GPU.

The caller's queue runs the training steps, a side queue makes batches. When batch N is asked for,
batch N + 1 is put in the making first; then the caller's queue waits for N, and only then for
N + 1 when that is asked for, behind the step on N. A batch is made in one of a few slots, whose
memory is used again once the step that reads it is done. Nobody but the queues waits: the host
goes on to enqueue, no further ahead than there are slots.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from streamtrain.generator.batch import Batch
from streamtrain.generator.workspace import Workspace

SLOTS = 2
"""Batches in memory: one is read while the other is made."""


class Lanes(Protocol):
    """Two queues of work on a device, and marks in them."""

    def side(self) -> AbstractContextManager[Any]:
        """What is enqueued inside goes to the side queue."""

    def mark(self) -> Any:
        """A mark after all that is enqueued in the present queue."""

    def wait(self, mark: Any) -> None:
        """What is enqueued in the present queue from now on begins after a mark."""


class CudaLanes:
    """The streams of a GPU: torch's current one, and one for the side."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def side(self) -> AbstractContextManager[Any]:
        """See `Lanes`."""
        return torch.cuda.stream(self._stream)

    def mark(self) -> torch.cuda.Event:
        """See `Lanes`; its time can be read."""
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def wait(self, mark: torch.cuda.Event) -> None:
        """See `Lanes`."""
        torch.cuda.current_stream(self._device).wait_event(mark)


@dataclass
class Slot:
    """Memory for one batch after the other."""

    memory: Workspace
    batch: Batch | None = None
    """The last one, whose tensors may lie elsewhere too."""
    consumed: Any = None
    """Mark after the step that read it; None: nothing has."""


@dataclass
class Made:
    """A batch that is made, or in the making."""

    batch: Batch
    slot: Slot
    began: Any
    ready: Any
    """Marks before and after its making."""


class Ring:
    """Makes batches ahead, in order, and hands them out.

    make: (number, memory) -> batch 0, 1, 2, ..., enqueues its making in the present queue
    memory: makes a slot's memory
    """

    def __init__(
        self,
        make: Callable[[int, Workspace], Batch],
        memory: Callable[[], Workspace],
        lanes: Lanes,
        slots: int = SLOTS,
    ) -> None:
        self._make, self._lanes = make, lanes
        self._slots = [Slot(memory()) for _ in range(slots)]
        self._next = 0
        self._ahead: deque[Made] = deque()
        self._used: Slot | None = None

    def take(self) -> Made:
        """The next batch; its tensors are the slot's, valid until the one after it is asked for.

        What was enqueued since the last call is taken to be all that reads the batch of the last
        call. The caller's queue waits for the new one.
        """
        self.release()
        if not self._ahead:
            self._enqueue()
        made = self._ahead.popleft()
        self._used = made.slot
        self._enqueue()
        self._lanes.wait(made.ready)
        return made

    def release(self) -> None:
        """Nothing that is enqueued from now on reads the batch that was handed out last."""
        if self._used is not None:
            self._used.consumed = self._lanes.mark()
            self._used = None

    def _enqueue(self) -> None:
        """Put the next batch in the making, in the slot that was used longest ago."""
        slot = self._slots[self._next % len(self._slots)]
        with self._lanes.side():
            if slot.consumed is not None:
                self._lanes.wait(slot.consumed)
            slot.batch, began = None, self._lanes.mark()
            slot.batch = self._make(self._next, slot.memory)
            self._ahead.append(Made(slot.batch, slot, began, self._lanes.mark()))
        self._next += 1

    def close(self) -> None:
        """Let go of the batches; the side queue does nothing more before what the caller has
        enqueued so far, which may read them, is done."""
        mark = self._lanes.mark()
        with self._lanes.side():
            self._lanes.wait(mark)
        self._ahead.clear()
        self._slots.clear()
