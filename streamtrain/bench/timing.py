"""Durations: CUDA events on a GPU, the host's clocks on a CPU.

What one thread does on a CPU is measured in its own CPU time (`ONE_THREAD`), which other work on
the machine does not enter; what several threads do, by the wall clock. `batch_maker` makes batches
as a training takes them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from streamtrain.generator.batch import Batch
from streamtrain.generator.generator import Generator
from streamtrain.stream import SampleStream

Clock = Callable[[], float]
WALL: Clock = time.perf_counter
ONE_THREAD: Clock = time.thread_time
"""CPU seconds of the calling thread: for work that it does alone."""
CALLS = 16
"""Calls that are enqueued on a GPU and timed before the host waits for them; their mean counts."""
CALLS_IN_TURN = 4
"""Calls per measurement where several ways are measured in turn."""
CALLS_BEFORE = 4
"""Calls before them, with which the host gets ahead."""


def median_seconds(
    call: Callable[[], Any],
    seconds: float,
    device: torch.device,
    *,
    least: int = 3,
    clock: Clock = WALL,
) -> float:
    """Median duration [s] of `call`, repeated for about `seconds`, after one warm-up.

    On a GPU: the time between CUDA events on the current stream with some calls in between, over
    their number, so that it is the time by which a call delays the next, and the host runs ahead as
    it does in a training.
    """
    call()
    durations: list[float] = []
    begin = time.perf_counter()
    while len(durations) < least or time.perf_counter() - begin < seconds:
        if device.type == "cuda":
            durations.append(_between_events(call, device, CALLS))
        else:
            start = clock()
            call()
            durations.append(clock() - start)
    return statistics.median(durations)


def _between_events(call: Callable[[], Any], device: torch.device, calls: int) -> float:
    """Seconds per call on the GPU, the mean over so many."""
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    stream = torch.cuda.current_stream(device)
    for _ in range(CALLS_BEFORE):
        call()
    first.record(stream)
    for _ in range(calls):
        call()
    last.record(stream)
    last.synchronize()
    return first.elapsed_time(last) / 1e3 / calls


def in_turn(
    ways: dict[str, Callable[[], Any]],
    seconds: float,
    device: torch.device | None = None,
    *,
    clock: Clock = WALL,
) -> dict[str, float]:
    """Median seconds of each call, after a warm-up; one of each at a time, so that all see the
    same machine. `seconds`: about, for each. device: a GPU that the calls work on."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for call in ways.values():
        call()
    begin = time.perf_counter()
    while min(map(len, times.values())) < 5 or time.perf_counter() - begin < seconds * len(ways):
        for name, call in ways.items():
            if device is not None and device.type == "cuda":
                times[name].append(_between_events(call, device, CALLS_IN_TURN))
                continue
            start = clock()
            call()
            times[name].append(clock() - start)
    return {name: statistics.median(found) for name, found in times.items()}


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Meanwhile torch works in the calling thread alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def batch_maker(generator: Generator, size: int) -> Callable[[], Batch]:
    """A function that makes the next batch: on a CPU in the calling thread; on a GPU it takes it
    from a stream, whose memory it is valid in until the next call."""
    if generator.device.type == "cuda":
        batches = iter(SampleStream(generator, size, own=False))
        return lambda: next(batches)
    numbers = iter(range(0, 10**15, size))
    return lambda: generator.generate(range(start := next(numbers), start + size))
