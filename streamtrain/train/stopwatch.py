"""Where the time of a step goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

Events = tuple[torch.cuda.Event, torch.cuda.Event]


@dataclass(frozen=True)
class Times:
    """Means over the steps since the last reading."""

    samples_per_s: float
    generate_ms: float
    """Making this rank's share of a batch, beside training [ms]."""
    train_ms: float
    """Forward, backward and update for one batch [ms]."""
    wait_ms: float
    """Training waiting for the batch [ms]."""
    overlap: float
    """(generate + train - step) / min(generate, train): 1 where the shorter is hidden behind the
    longer, 0 where they follow each other, less where they hinder each other."""


class Stopwatch:
    """Times steps: CUDA events on a GPU, read on log steps only; the host's clock on a CPU."""

    def __init__(self, device: torch.device, batch_size: int) -> None:
        self._cuda = device.type == "cuda"
        self._batch_size = batch_size
        self._begin = time.perf_counter()
        self._clear()

    def _clear(self) -> None:
        self._steps = 0
        self._generate = self._train = self._wait = self._paused = 0.0
        self._generate_events: list[Events] = []
        self._train_events: list[Events] = []
        self._wait_events: list[Events] = []

    @contextmanager
    def wait(self) -> Iterator[None]:
        """Around waiting for a batch (on a GPU: around enqueueing that)."""
        start = time.perf_counter()
        with self._between(self._wait_events):
            yield
        self._wait += time.perf_counter() - start

    def generated(self, seconds: float, marks: Events | None) -> None:
        """Making the batch that was waited for took the host `seconds`, a GPU the time between
        `marks`; None: the time of waiting."""
        self._generate += seconds
        if self._cuda:
            self._generate_events.append(marks or self._wait_events[-1])

    @contextmanager
    def train(self) -> Iterator[None]:
        """Around a training step (on a GPU: around enqueueing it)."""
        start = time.perf_counter()
        with self._between(self._train_events):
            yield
        self._train += time.perf_counter() - start
        self._steps += 1

    @contextmanager
    def _between(self, pairs: list[Events]) -> Iterator[None]:
        """On a GPU: add to `pairs` an event before and one after what is enqueued meanwhile."""
        if not self._cuda:
            yield
            return
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record()
        yield
        after.record()
        pairs.append((before, after))

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Around what is no step (a validation, a checkpoint)."""
        start = time.perf_counter()
        yield
        self._paused += time.perf_counter() - start

    def read(self) -> Times:
        """The means since the last reading; waits for the GPU."""
        if self._cuda:
            torch.cuda.synchronize()
            self._generate = _seconds(self._generate_events)
            self._train = _seconds(self._train_events)
            self._wait = _seconds(self._wait_events)
        now = time.perf_counter()
        steps = max(self._steps, 1)
        elapsed = max(now - self._begin - self._paused, 1e-9)
        times = Times(
            samples_per_s=self._steps * self._batch_size / elapsed,
            generate_ms=1e3 * self._generate / steps,
            train_ms=1e3 * self._train / steps,
            wait_ms=1e3 * self._wait / steps,
            overlap=overlap(self._generate, self._train, elapsed),
        )
        self._begin = now
        self._clear()
        return times


def overlap(generate: float, train: float, both: float) -> float:
    """How far generating and training happen at the same time, see `Times`; 0 for no time."""
    shorter = min(generate, train)
    return (generate + train - both) / shorter if shorter > 0.0 else 0.0


def _seconds(pairs: list[Events]) -> float:
    """Sum of the times between pairs of events that the GPU has passed [s]."""
    return sum(before.elapsed_time(after) for before, after in pairs) / 1e3
