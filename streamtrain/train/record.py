"""The record of a run, in the one rank that keeps it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable

from streamtrain.train.monitor import Monitor


class Record:
    """Writes through a `Monitor` in rank 0 and nothing in the others.

    A disk that is full ends no training: one line tells, what cannot be recorded is left out, and
    recording goes on once there is room again.

    open_monitor: makes the monitor that continues from a step; None: nothing is recorded
    step: what training continues from
    Raises OSError if the record cannot be opened.
    """

    def __init__(self, open_monitor: Callable[[int], Monitor] | None, step: int) -> None:
        self._open, self._lost = open_monitor, False
        self._monitor = open_monitor(step) if open_monitor is not None else None

    def write(self, step: int, action: Callable[[Monitor], None]) -> None:
        """Let `action` record something of this step."""
        if self._monitor is None or self._open is None:
            return
        try:
            action(self._monitor)
            self._lost = False
        except OSError as error:
            self._tell(error)
            self._reopen(step, action)

    def _reopen(self, step: int, action: Callable[[Monitor], None]) -> None:
        """TensorBoard's writer never recovers from an error: another one takes its place."""
        assert self._open is not None and self._monitor is not None
        try:
            again = self._open(step)
        except OSError:
            return
        old, self._monitor = self._monitor, again
        with contextlib.suppress(OSError):
            old.close()
        with contextlib.suppress(OSError):
            action(again)

    def _tell(self, error: OSError) -> None:
        if not self._lost:
            with contextlib.suppress(OSError):
                print(
                    f"streamtrain: warning: the run's record cannot be written ({error}); "
                    "training goes on",
                    file=sys.stderr,
                )
        self._lost = True

    def close(self) -> None:
        """Write out everything."""
        if self._monitor is not None:
            with contextlib.suppress(OSError):
                self._monitor.close()
