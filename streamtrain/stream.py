"""An endless dataset of generated batches whose whole state is one integer.

On a GPU batches are made beside the training that uses them, by two queues of work (`Ring`): the
caller's queue runs the training steps, a side queue makes batches. When batch N is wanted, batch
N + 1 is put in the making first; then the caller's queue waits for N, and only then for N + 1 when
that is wanted, behind the step on N. A batch is made in one of a few slots, whose memory is used
again once the step that reads it is done. Nobody but the queues waits: the host goes on to enqueue,
no further ahead than there are slots.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch.utils.data import IterableDataset, get_worker_info
from torch.utils.data._utils.collate import default_collate_fn_map

from streamtrain.arguments import whole_number
from streamtrain.generator.batch import Batch
from streamtrain.generator.draws import SampleGenerator
from streamtrain.numerics.workspace import Workspace

NO_WORKERS = (
    "SampleStream makes its batches itself: use DataLoader(stream, batch_size=None, num_workers=0)"
)


def _whole_already(*_: Any, **__: Any) -> None:
    """What a DataLoader with a batch_size of its own makes of batches."""
    raise ValueError(NO_WORKERS)


default_collate_fn_map[Batch] = _whole_already


class SampleStream(IterableDataset[Batch]):
    """Yields whole batches for ever; use it directly or in `DataLoader(stream, batch_size=None)`.

    Step s of rank r holds the samples s*B + r*B/W ... of the global sequence (B = batch_size, the
    global one; W = world_size), so the sequence does not depend on the number of ranks. The state
    is the next global index. On a CPU the generator's threads make `queue` batches ahead; the order
    never changes. On a GPU a stream of its own makes one batch ahead, see `ring`, and torch's
    current stream waits for a batch when it is asked for. queue = 0: batches are made when they are
    asked for, on a GPU on the current stream.

    own: whether a batch is in tensors of its own. If not, those of a GPU are used again: they hold
    the batch until the next one is asked for, and all work on it has to be enqueued by then.

    >>> from streamtrain import Generator, SampleStream, load_config
    >>> stream = SampleStream(Generator(load_config("reference.yaml"), "test"), batch_size=4)
    >>> for step, batch in zip(range(2), stream):
    ...     print(batch.indices)
    [0, 1, 2, 3]
    [4, 5, 6, 7]
    >>> stream.state_dict()
    {'next_index': 8}
    >>> stream.close()
    """

    def __init__(
        self,
        generator: SampleGenerator,
        batch_size: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        start: int = 0,
        queue: int = 4,
        own: bool = True,
    ) -> None:
        """Raises ValueError for sizes that do not fit."""
        super().__init__()
        if not hasattr(generator, "generate"):
            raise ValueError(
                f"a SampleStream takes a Generator, not a {type(generator).__name__}: "
                "Generator(config) makes one"
            )
        given = {"batch_size": batch_size, "rank": rank, "world_size": world_size, "start": start}
        for name, value in (given | {"queue": queue}).items():
            whole_number(value, name)
        if batch_size < 1 or batch_size % world_size:
            raise ValueError(
                f"batch_size = {batch_size} must be a positive multiple of the {world_size} ranks"
            )
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is outside 0..{world_size - 1}")
        if queue < 0:
            raise ValueError(f"queue = {queue} must be at least 0")
        if start < 0 or start % batch_size:
            raise ValueError(f"start = {start} must be a multiple of batch_size = {batch_size}")
        self.generator = generator
        self.batch_size, self.rank, self.world_size = batch_size, rank, world_size
        self._ahead, self._own = queue, own
        self._next_index = start
        self._ring: Ring | None = None
        self._window: int | None = None
        self._executor: ThreadPoolExecutor | None = None
        self._pending: deque[Future[Batch]] = deque()

    def __repr__(self) -> str:
        state = f"batches of {self.batch_size}, next index {self._next_index}"
        return f"SampleStream({self.generator!r}, {state})"

    def state_dict(self) -> dict[str, int]:
        """The first global index that has not been yielded."""
        return {"next_index": self._next_index}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a stored index, with any number of ranks and the same batch_size."""
        if not isinstance(state, Mapping) or "next_index" not in state:
            raise ValueError("the state of a stream is what state_dict returned, {'next_index': N}")
        index = whole_number(state["next_index"], "next_index")
        if index < 0 or index % self.batch_size:
            raise ValueError(
                f"next_index = {index} is not a multiple of batch_size = {self.batch_size}: "
                "the stream was stored with another batch size"
            )
        self._drop_pending()
        self._next_index, self._window = index, None

    def indices(self, first: int) -> range:
        """This rank's global indices in the step that starts at global index `first`."""
        return _indices(first, self.batch_size, self.rank, self.world_size)

    def __getstate__(self) -> Any:
        raise ValueError(NO_WORKERS)  # worker processes that are spawned get a pickled copy

    def __iter__(self) -> Iterator[Batch]:
        if get_worker_info() is not None:
            raise ValueError(NO_WORKERS)
        self._drop_pending()
        return self._batches()

    def _batches(self) -> Iterator[Batch]:
        while True:
            batch = self._take()
            self._window = self._last_window()
            self._next_index += self.batch_size
            yield batch

    @property
    def _enqueued(self) -> int:
        """Steps whose batches are put in the making before the next one is handed out, itself
        included, by the thread that asks for it."""
        return 2 if self._ahead and self.generator.device.type == "cuda" else 1

    def _last_window(self) -> int:
        """Window of the last sample that is needed with the next step's, over all ranks."""
        return self.generator.window(self._next_index + self._enqueued * self.batch_size - 1)

    @property
    def may_wait(self) -> bool:
        """Whether the next batch needs other lightcones than the one before, the same in all ranks;
        also true of the first batch."""
        return self._last_window() != self._window

    def ready(self, seconds: float) -> bool:
        """Whether the next batch waits for no lightcone, after about so long [s] at most.

        On a GPU that means the lightcones of this rank's first sample, and those of the batch that
        is made meanwhile.
        """
        if not self._ahead or self.generator.device.type == "cuda":
            starts = (self._next_index + k * self.batch_size for k in range(self._enqueued))
            return all(self.generator.ready(self.indices(s)[0], seconds) for s in starts)
        self._fill()
        return self._pending[0] in wait([self._pending[0]], seconds).done

    def _take(self) -> Batch:
        """The batch at `_next_index`; the following ones are put in the making."""
        if not self._ahead:
            return self.generator.generate(self.indices(self._next_index))
        if self.generator.device.type == "cuda":
            return self._from_ring()
        self._fill()
        return self._pending.popleft().result()

    def _fill(self) -> None:
        """Put the next batches in the making."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, "streamtrain-stream")
        for ahead in range(len(self._pending), self._ahead + 1):
            indices = self.indices(self._next_index + ahead * self.batch_size)
            self._pending.append(self._executor.submit(self.generator.generate, indices))

    def _from_ring(self) -> Batch:
        if self._ring is None:
            self._ring = self._start_ring(CudaLanes(self.generator.device))
        made = self._ring.take()
        batch = made.batch
        if self._own:
            batch = batch.clone()
            self._ring.release()
        batch.marks = made.began, made.ready
        return batch

    def _start_ring(self, lanes: Lanes) -> Ring:
        """A ring whose first batch is that at `_next_index`."""
        start, size, rank, world = self._next_index, self.batch_size, self.rank, self.world_size
        generate = cast(Callable[[Sequence[int], Workspace], Batch], self.generator.generate)

        def make(number: int, memory: Workspace) -> Batch:  # which does not know the stream, or
            first = start + number * size  # both would live on together
            return generate(_indices(first, size, rank, world), memory)

        scratch = Workspace(self.generator.device)  # the side queue makes one batch at a time
        return Ring(make, lambda: Workspace(self.generator.device, scratch), lanes)

    def _drop_pending(self) -> None:
        for future in self._pending:
            future.cancel()
        self._pending.clear()
        if self._ring is not None:
            self._ring.close()
            self._ring = None

    def close(self) -> None:
        """Stop making batches; the stream can be iterated again afterwards."""
        self._drop_pending()
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
            self._executor = None


def _indices(first: int, batch_size: int, rank: int, world_size: int) -> range:
    """A rank's global indices in the step that starts at global index `first`."""
    local = batch_size // world_size
    return range(first + rank * local, first + (rank + 1) * local)


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
        """The queue in which batches are made, as a context; see `Lanes`."""
        return torch.cuda.stream(self._stream)

    def mark(self) -> torch.cuda.Event:
        """A mark after all that is enqueued in the present stream; its time can be read."""
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def wait(self, mark: torch.cuda.Event) -> None:
        """Let the caller's queue wait for a mark; see `Lanes`."""
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
