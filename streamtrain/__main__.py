"""The command `streamtrain`, also as `python -m streamtrain`: what is around `cli.main`.

Signals are answered from here on, before anything large is imported, until the process has ended:
with one sentence, and at once. Streams that are closed or full are no reason for a traceback.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from types import FrameType

from streamtrain.machine.interrupt import PIPE_CLOSED, SIGNALS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit status (see `cli.main`). For the main thread of a process."""
    _open_streams()
    _answer_signals()
    _let_threads_sleep()
    try:
        os.getcwd()
    except OSError as error:  # libraries would abort
        _say(f"the current folder cannot be used ({error.strerror}): go to another")
        return 2
    try:
        from streamtrain.cli.main import main as run

        status = run(arguments)
    except SystemExit as asked:  # --help, and arguments that are none
        status = asked.code if isinstance(asked.code, int) else 1 if asked.code else 0
    except Exception as error:  # of a library; `cli.main` tells of its own
        if os.environ.get("STREAMTRAIN_DEBUG"):
            raise
        _say(f"a library that it needs cannot be imported: {type(error).__name__}: {error}")
        status = 1
    status = _flush(status)
    _answer_signals(lambda number, frame: os._exit(status))  # what was to be done is done
    return status


def _open_streams() -> None:
    """Streams that are closed read and write nothing; no file that is opened takes their number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number
        if getattr(sys, name) is None:
            stream = open(number, "w" if number else "r", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


SPINS = "1000"
"""Turns for which threads of libgomp look whether the others are done, before they sleep."""


def _let_threads_sleep() -> None:
    """Threads of torch that wait for one another sleep after some 50 us, not after 10 ms.

    Its operations are divided among the threads of GNU's OpenMP, which turn 300 000 times before
    they sleep where they are no more than the cores, and 1000 times where they are more. Of other
    processes they know nothing: beside these, a thread that waits takes the core that the one it
    waits for needs, and `evaluate` took a hundred times as long (docs/benchmarks.md). The library
    reads this when torch is imported. A choice of the user's stands.
    """
    if not os.environ.keys() & {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}:
        os.environ["GOMP_SPINCOUNT"] = SPINS


def _leave(number: int, frame: FrameType | None) -> None:
    """End at once: nothing has been begun."""
    name = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
    if os.environ.get("RANK", "0") == "0":
        _say(f"interrupted{name}")
    os._exit(128 + number)


def _answer_signals(handler: Callable[[int, FrameType | None], object] = _leave) -> None:
    """Let a handler answer them until another is set."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"streamtrain: {' '.join(text.split())}\n".encode(errors="replace"))


def _flush(status: int) -> int:
    """Write out what was printed, as Python does it at the end with a traceback."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())
            if stream is sys.stderr:  # nobody is there to be told
                return status
            if isinstance(error, BrokenPipeError):
                return status or PIPE_CLOSED
            if not status:
                _say(f"what it prints cannot be written: {error.strerror}")
            return status or 1
    return status


if __name__ == "__main__":
    sys.exit(main())
