"""Two queues of work without a GPU: what is enqueued runs later, in any order that queues and
marks allow."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random


class Mark:
    """A place in a queue."""

    passed = False


class FakeLanes:
    """Has the interface of `streamtrain.stream.CudaLanes`.

    The queues: 0 the caller's, 1 the side."""

    def __init__(self) -> None:
        self.queues: tuple[deque[Callable[[], bool]], ...] = (deque(), deque())
        self.names: list[str] = []
        """What the host did, in its order."""
        self._present = 0

    @contextmanager
    def side(self) -> Iterator[None]:
        before, self._present = self._present, 1
        yield
        self._present = before

    def mark(self) -> Mark:
        mark = Mark()

        def passes() -> bool:
            mark.passed = True
            return True

        self._enqueue(passes)
        return mark

    def wait(self, mark: Mark) -> None:
        self.names.append("side waits" if self._present else "caller waits")
        self._enqueue(lambda: mark.passed)

    def run(self, work: Callable[[], None]) -> None:
        """Enqueue some work in the present queue."""

        def done() -> bool:
            work()
            return True

        self._enqueue(done)

    def _enqueue(self, step: Callable[[], bool]) -> None:
        self.queues[self._present].append(step)

    def finish(self, random: Random, favourite: int | None = None, share: float = 0.9) -> None:
        """Do everything, in an order that `random` chooses; one queue may be favoured."""
        while any(self.queues):
            ready = [k for k, queue in enumerate(self.queues) if queue]
            if favourite in ready and random.random() < share:
                ready = [favourite]
            number = random.choice(ready)
            if self.queues[number][0]():  # else it waits: the other queue has to go on
                self.queues[number].popleft()
            elif len(ready) == 1 and not self.queues[1 - number]:
                raise AssertionError("a queue waits for ever")
