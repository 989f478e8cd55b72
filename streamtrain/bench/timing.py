"""Durations: CUDA events on a GPU, the host's clocks on a CPU.

What one thread does on a CPU is measured in its own CPU time (`ONE_THREAD`), which other work on
the machine does not enter; what several threads do, by the wall clock.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch

Clock = Callable[[], float]
WALL: Clock = time.perf_counter
ONE_THREAD: Clock = time.thread_time
"""CPU seconds of the calling thread: for work that it does alone."""
CALLS = 16
"""Calls that are enqueued on a GPU before the host waits for them."""
CALLS_IN_TURN = 4
"""Likewise, where each is one of several ways in turn."""


def median_seconds(
    call: Callable[[], Any],
    seconds: float,
    device: torch.device,
    *,
    least: int = 3,
    clock: Clock = WALL,
) -> float:
    """Median duration [s] of `call`, repeated for about `seconds`, after one warm-up.

    On a GPU: from one CUDA event to the next on the current stream, an event after each call, so
    that it is the time by which a call delays the next and the host runs ahead as it does in a
    training.
    """
    call()
    durations: list[float] = []
    begin = time.perf_counter()
    while len(durations) < least or time.perf_counter() - begin < seconds:
        if device.type == "cuda":
            durations += _between_events(call, device, CALLS)
        else:
            start = clock()
            call()
            durations.append(clock() - start)
    return statistics.median(durations)


def _between_events(call: Callable[[], Any], device: torch.device, calls: int) -> list[float]:
    """Seconds between the ends of so many calls on the GPU."""
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(calls + 1)]
    stream = torch.cuda.current_stream(device)
    marks[0].record(stream)
    for mark in marks[1:]:
        call()
        mark.record(stream)
    marks[-1].synchronize()
    return [before.elapsed_time(after) / 1e3 for before, after in pairwise(marks)]


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
                spent = _between_events(call, device, CALLS_IN_TURN)
                times[name].append(statistics.median(spent))
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
