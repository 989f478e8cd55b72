"""torch.cuda: one GPU, whose streams do everything at once."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from types import SimpleNamespace
from typing import Any

import torch

from support.stand_in_gpu.tensors import LATE

NAME = "the CPU in place of a GPU"
MEMORY = 80 << 30
MODES = {"default": False, "error": True}
_addresses = count(4096, 4096)
_present = threading.local()
_said = False


class Stream:
    """Has an address; work in it is done when it is enqueued, but for copies to the CPU."""

    def __init__(self, device: Any = None, address: int | None = None) -> None:
        self.cuda_stream = next(_addresses) if address is None else address

    def wait_event(self, event: Event) -> None:
        assert event.time is not None, "an event that was not recorded"

    def synchronize(self) -> None:
        LATE.finish()


DEFAULT = Stream(address=0)


class Event:
    """The time when it was recorded."""

    def __init__(self, enable_timing: bool = False) -> None:
        self._timed = enable_timing
        self.time: float | None = None
        self._copies = 0

    def record(self, stream: Stream | None = None) -> None:
        self.time, self._copies = time.perf_counter(), LATE.begun

    def query(self) -> bool:
        self.synchronize()
        return True

    def synchronize(self) -> None:
        LATE.finish(self._copies)

    def elapsed_time(self, end: Event) -> float:
        assert self._timed and end._timed and self.time is not None and end.time is not None
        return 1e3 * (end.time - self.time) + 1e-6


def current_stream(device: Any = None) -> Stream:
    return getattr(_present, "stream", DEFAULT)


@contextmanager
def stream(chosen: Stream) -> Iterator[None]:
    before, _present.stream = current_stream(), chosen
    try:
        yield
    finally:
        _present.stream = before


@contextmanager
def device(chosen: Any) -> Iterator[None]:
    yield


def set_sync_debug_mode(mode: str) -> None:
    """As torch does, warns after the first call of a process has had its effect."""
    global _said
    LATE.forbid_waiting = MODES[mode]
    said, _said = _said, True
    if not said:
        warnings.warn("Synchronization debug mode is a prototype feature", stacklevel=2)


def install() -> None:
    """The functions of torch.cuda that a GPU's part would bring."""
    properties = SimpleNamespace(name=NAME, major=9, minor=0, total_memory=MEMORY)
    answers = {
        "is_available": True,
        "is_initialized": True,
        "is_bf16_supported": True,
        "is_current_stream_capturing": False,
        "device_count": 1,
        "current_device": 0,
        "get_device_name": NAME,
        "get_device_capability": (9, 0),
        "get_device_properties": properties,
        "mem_get_info": (MEMORY // 2, MEMORY),
        "max_memory_allocated": 1 << 30,
        "_lazy_init": None,
        "_sleep": None,
        "set_device": None,
        "empty_cache": None,
        "reset_peak_memory_stats": None,
        "manual_seed_all": None,
        "set_rng_state": None,
    }
    for name, answer in answers.items():
        setattr(torch.cuda, name, lambda *args, a=answer, **kwargs: a)
    torch.cuda.get_rng_state = lambda device=None: torch.zeros(16, dtype=torch.uint8)
    torch.cuda.synchronize = lambda device=None: LATE.finish()
    for function in (Stream, Event, current_stream, stream, device, set_sync_debug_mode):
        setattr(torch.cuda, function.__name__, function)
    torch.version.cuda = "12.9"
