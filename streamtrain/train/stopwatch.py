"""Where the time of a step goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Times:
    """Means over the steps since the last reading."""

    samples_per_s: float
    generate_ms: float
    """Making this rank's share of a batch, beside training where that is possible [ms]."""
    train_ms: float
    """Forward, backward and update for one batch [ms]."""
    wait_ms: float
    """Training waiting for the batch [ms]."""


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
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def wait(self) -> Iterator[None]:
        """Around waiting for a batch."""
        start = time.perf_counter()
        yield
        self._wait += time.perf_counter() - start

    def generated(self, seconds: float) -> None:
        """Making the batch took `seconds`."""
        self._generate += seconds

    @contextmanager
    def train(self) -> Iterator[None]:
        """Around a training step (on a GPU: around enqueueing it)."""
        if self._cuda:
            events = (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
            events[0].record()
            yield
            events[1].record()
            self._events.append(events)
        else:
            start = time.perf_counter()
            yield
            self._train += time.perf_counter() - start
        self._steps += 1

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
            self._train = sum(start.elapsed_time(end) for start, end in self._events) / 1e3
        now = time.perf_counter()
        steps = max(self._steps, 1)
        elapsed = max(now - self._begin - self._paused, 1e-9)
        times = Times(
            samples_per_s=self._steps * self._batch_size / elapsed,
            generate_ms=1e3 * self._generate / steps,
            train_ms=1e3 * self._train / steps,
            wait_ms=1e3 * self._wait / steps,
        )
        self._begin = now
        self._clear()
        return times
