"""A progress line: rewritten in place on a terminal, one line every ten seconds elsewhere.

What takes minutes says within its first seconds how long it will take: `Progress.count`.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

SOON_S = 1.0
"""After a line that cannot say how long it will take, the next may follow as soon [s]."""
SLOW_S = 2.0
"""What takes longer says what it is [s]."""
LOADING = "loading libraries"
"""What commands do before anything else, which takes long where the files have not been read."""


class Progress:
    """Shows where something long stands.

    every_s: time between lines where the output is not a terminal [s]
    stream: where to write; default: stderr
    active: False writes nothing (the other ranks)
    """

    def __init__(
        self, *, every_s: float = 10.0, stream: TextIO | None = None, active: bool = True
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._every_s = every_s
        self._active = active
        self._terminal = self._stream.isatty()
        self._last = -float("inf")
        self._width = 0
        self._what, self._since, self._first = "", 0.0, 0.0

    def count(self, what: str, done: float, total: float, unit: str) -> None:
        """Show how far something is, and how long the rest will take: 'evaluating: 64/256 samples
        left 0:09'. Another `what` is another thing."""
        left = self.left(what, done, total)
        self.update(f"{what}: {done:.0f}/{total:.0f} {unit}{left}")
        if not left and done < total:
            self.soon()

    def soon(self) -> None:
        """After a line that cannot say how long it will take: the one that can is not to wait."""
        self._last = min(self._last, time.monotonic() - self._every_s + SOON_S)

    def left(self, what: str, done: float, total: float) -> str:
        """'  left 0:09', for the end of a line of one's own; '' where it is not known: after the
        first part, which holds what is done once."""
        now = time.monotonic()
        if what != self._what or done <= self._first:
            self._what, self._since, self._first = what, now, done
        rate = (done - self._first) / max(now - self._since, 1e-9)
        return f"  left {duration((total - done) / rate)}" if rate > 0.0 and done < total else ""

    def update(self, text: str) -> None:
        """Show the line `text`, in place of the one before."""
        if not self._active:
            return
        now = time.monotonic()
        if self._terminal:
            self._write("\r" + text.ljust(self._width))
            self._width = len(text)
        elif now - self._last >= self._every_s:
            self._write(text + "\n")
            self._last = now

    def note(self, text: str) -> None:
        """Leave the line `text` for good; the progress line goes on below it."""
        if not self._active:
            return
        start = "\r" if self._terminal and self._width else ""
        self._write(start + text.ljust(self._width) + "\n")
        self._width = 0

    def close(self) -> None:
        """Leave the cursor below the line."""
        if self._active and self._terminal and self._width:
            self._write("\n")
        self._width = 0

    def _write(self, text: str) -> None:
        """What cannot be shown (the disk behind a log is full) stops no work."""
        with suppress(OSError):
            self._stream.write(text)
            self._stream.flush()


@contextmanager
def said_if_slow(what: str, after_s: float = SLOW_S) -> Iterator[None]:
    """Say once on stderr what is being done inside, if it takes longer than `after_s` [s]: what
    has no parts that could be counted, such as an import."""

    def say() -> None:
        with suppress(OSError, ValueError):
            print(f"streamtrain: {what} ...", file=sys.stderr, flush=True)

    timer = threading.Timer(after_s, say)
    timer.daemon = True
    if os.environ.get("RANK", "0") == "0":
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


SILENT = Progress(active=False)
"""A progress line that shows nothing."""


def duration(seconds: float) -> str:
    """A time in seconds as text, such as '0:42' or '3:07:09'."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
