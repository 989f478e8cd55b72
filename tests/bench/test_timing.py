"""Clocks: the thread's own time leaves out what it waits for, medians are of each way in turn; on a
GPU the events stand between calls."""

from __future__ import annotations

import time
from itertools import count

import pytest
import torch

from streamtrain.bench.timing import (
    CALLS,
    CALLS_BEFORE,
    CALLS_IN_TURN,
    ONE_THREAD,
    in_turn,
    median_seconds,
    one_torch_thread,
)

CPU = torch.device("cpu")


def test_median_of_a_known_clock() -> None:
    """Durations 1, 2, 3 ... after a warm-up that does not count: the median of 5 is 3."""
    ticks = (k * (k + 1) / 4 for k in count())  # differences of every second pair grow by one
    times = list(zip(*[iter([next(ticks) for _ in range(10)])] * 2, strict=True))
    expected = sorted(b - a for a, b in times)[2]
    clock = iter([t for pair in times for t in pair])
    assert median_seconds(lambda: None, 0.0, CPU, least=5, clock=lambda: next(clock)) == expected


def test_waiting_is_no_work() -> None:
    asleep = median_seconds(lambda: time.sleep(0.02), 0.0, CPU, clock=ONE_THREAD)
    awake = median_seconds(lambda: time.sleep(0.02), 0.0, CPU)
    assert asleep < 0.01 < 0.02 <= awake


def test_ways_take_turns() -> None:
    called: list[str] = []
    in_turn({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, 0.0)
    assert called == ["a", "b"] * 6


def test_one_thread_for_torch() -> None:
    before = torch.get_num_threads()
    with one_torch_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


class Event:
    """A CUDA event on a stream whose only work is what was enqueued before it."""

    now = 0.0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing
        self.at: float | None = None

    def record(self, stream: object) -> None:
        assert stream == "the current stream"
        self.at = Event.now

    def synchronize(self) -> None:
        assert self.at is not None

    def elapsed_time(self, other: Event) -> float:
        assert self.at is not None and other.at is not None
        return other.at - self.at


@pytest.mark.parametrize("turns", [False, True])
def test_events_stand_between_calls(monkeypatch: pytest.MonkeyPatch, turns: bool) -> None:
    """Milliseconds of events that a fake GPU passes, in seconds; every fourth call takes longer,
    and the host waits once per group."""
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "the current stream")
    device, calls = torch.device("cuda", 0), []

    def work() -> None:
        calls.append(Event.now)
        Event.now += 7.0 if len(calls) % 4 else 11.0

    if turns:
        assert in_turn({"work": work}, 0.0, device) == {"work": pytest.approx(8e-3)}
        assert len(calls) == 1 + 5 * (CALLS_BEFORE + CALLS_IN_TURN)
    else:
        assert median_seconds(work, 0.0, device) == pytest.approx(8e-3)
        assert len(calls) == 1 + 3 * (CALLS_BEFORE + CALLS)
