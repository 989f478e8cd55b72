"""Ctrl-C and SIGTERM as a request to stop after the step."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType

SAME_PRESS_S = 0.5
"""A second SIGINT this soon is the first one, forwarded by a launcher [s]."""


class StopRequest:
    """While entered: SIGINT or SIGTERM sets `requested`, a second SIGINT leaves at once.

    A rank of torchrun also stops when torchrun itself is gone (kill -9), so that no orphan keeps
    the run's folder. Signals are left alone outside the main thread.
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
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
                os.write(2, text.encode())
