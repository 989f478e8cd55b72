"""Signals: a training stops after its step, other long commands at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

PIPE_CLOSED = 128 + 13
"""The exit status of a program whose output nobody reads (`| head`)."""


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Ctrl-C; launchers and schedulers; a terminal that is closed; a scheduler's warning."""

SAME_PRESS_S = 0.5
"""A second SIGINT this soon is the first one, forwarded by a launcher [s]."""


class Stopped(Exception):
    """Somebody asked to stop before the first step."""


class Unfinished(KeyboardInterrupt):
    """Somebody stopped a training; what it has done is in a checkpoint, and the same call goes on
    from there."""


class StopRequest:
    """While entered: one of `SIGNALS` sets `requested`, a second SIGINT leaves at once.

    SIGHUP stays ignored where it is (nohup). A rank of torchrun also stops when torchrun itself is
    gone (kill -9), so that no orphan keeps the run's folder. Signals are left alone outside the
    main thread.
    """

    def __init__(self) -> None:
        self._signal: int | None = None
        self._time = 0.0
        self._previous: dict[int, object] = {}
        self._parent = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None

    @property
    def requested(self) -> bool:
        """True once somebody asked to stop."""
        orphaned = self._parent is not None and os.getppid() != self._parent
        return self._signal is not None or orphaned

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                ignored = signal.getsignal(number) is signal.SIG_IGN
                if number != signal.SIGHUP or not ignored:
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *raised: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        again = self._signal is not None and now - self._time > SAME_PRESS_S
        if number == signal.SIGINT and again:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        if self._signal is None:
            self._signal, self._time = number, now
            if os.environ.get("RANK", "0") == "0":
                name = signal.Signals(number).name
                text = f"\n{name}: stopping after this step (Ctrl-C again: at once)\n"
                with contextlib.suppress(OSError):  # the terminal is gone
                    os.write(2, text.encode())


class Interrupted(KeyboardInterrupt):
    """A signal other than SIGINT ended a command; `number` is that signal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextlib.contextmanager
def interruptible(came: list[int] | None = None) -> Iterator[None]:
    """Meanwhile `SIGNALS` end what runs by an exception, as SIGINT always does.

    came: where to note them; a library may make another error of the exception.
    Raises Interrupted, a KeyboardInterrupt. Signals are left alone outside the main thread.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        if came is not None:
            came.append(number)
        raise KeyboardInterrupt if number == signal.SIGINT else Interrupted(number)

    previous = {}
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                previous[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
