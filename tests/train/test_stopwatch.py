"""Where a step's time goes, on a GPU whose clock the test sets."""

from __future__ import annotations

import pytest
import torch

from streamtrain.train.stopwatch import Stopwatch, overlap


class Gpu:
    """A clock [ms] that runs when work is enqueued, and events that remember it."""

    def __init__(self) -> None:
        self.now = 0.0

    def event(self, enable_timing: bool) -> Event:
        assert enable_timing
        return Event(self)


class Event:
    """Has the interface of torch.cuda.Event."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu, self._time = gpu, 0.0

    def record(self) -> None:
        self._time = self._gpu.now

    def elapsed_time(self, end: Event) -> float:
        return end._time - self._time


def test_times_on_a_gpu_are_the_gpu_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps of 50 s that wait 20 s for batches which take 30 s, and the host nothing."""
    gpu = Gpu()
    monkeypatch.setattr(torch.cuda, "Event", gpu.event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    stopwatch = Stopwatch(torch.device("cuda"), batch_size=8)
    for _ in range(2):
        began, ready = gpu.event(True), gpu.event(True)
        began.record()
        ready._time = gpu.now + 30_000.0
        with stopwatch.wait():
            gpu.now += 20_000.0
        stopwatch.generated(0.001, (began, ready))
        with stopwatch.train():
            gpu.now += 50_000.0
    times = stopwatch.read()
    assert (times.generate_ms, times.train_ms, times.wait_ms) == (30_000.0, 50_000.0, 20_000.0)
    assert stopwatch.read().generate_ms == 0.0


def test_a_batch_made_while_it_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu()
    monkeypatch.setattr(torch.cuda, "Event", gpu.event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    stopwatch = Stopwatch(torch.device("cuda"), batch_size=8)
    with stopwatch.wait():
        gpu.now += 30_000.0
    stopwatch.generated(0.001, None)
    with stopwatch.train():
        pass
    times = stopwatch.read()
    assert times.generate_ms == times.wait_ms == 30_000.0


def test_times_on_a_cpu_are_the_host_s() -> None:
    stopwatch = Stopwatch(torch.device("cpu"), batch_size=8)
    with stopwatch.wait():
        pass
    stopwatch.generated(3.0, None)
    with stopwatch.train():
        pass
    times = stopwatch.read()
    assert times.generate_ms == 3000.0
    assert 0.0 <= times.train_ms < 1000.0


@pytest.mark.parametrize(
    ("generate", "train", "both", "expected"),
    [(3.0, 5.0, 8.0, 0.0), (3.0, 5.0, 5.0, 1.0), (5.0, 3.0, 6.5, 0.5), (0.0, 5.0, 5.0, 0.0)],
)
def test_overlap(generate: float, train: float, both: float, expected: float) -> None:
    assert overlap(generate, train, both) == expected
