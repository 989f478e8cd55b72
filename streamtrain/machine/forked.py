"""Work for the steps to come, done in a process of its own, whose Python holds up nobody else's."""

from __future__ import annotations

import ctypes
import fcntl
import gc
import multiprocessing
import os
import select
import signal
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

T = TypeVar("T")

PIPE_BYTES = 2**20
"""Bytes that the process may have sent before they are read: what Linux grants to all."""
PATIENCE_S = 60.0
"""Seconds of silence after which a process is taken for lost."""
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None
_alone = threading.Lock()
"""What `_quietly` changes is the process's."""


class Forked(Generic[T]):
    """make(0), make(1), ... of a forked process, handed over in order through a pipe, until `make`
    raises StopIteration.

    The process has what the caller has at this moment, as it is; `make` must not touch a GPU,
    torch's threads or those that multiply matrices for NumPy, which a forked process has not, and
    what it makes must be picklable. It works ahead until the pipe is full, and ends with the thread
    that forked it. Whatever happens to it is no error: `take` then says None, with a warning, and
    the caller does the work itself. Raises OSError where no process can be forked.
    """

    def __init__(self, make: Callable[[int], T]) -> None:
        if multiprocessing.current_process().daemon:
            raise OSError("a daemonic process may have no children")
        context = multiprocessing.get_context("fork")
        self._pipe, end = context.Pipe(duplex=False)
        with suppress(AttributeError, OSError):  # only Linux has it
            fcntl.fcntl(end.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._process = context.Process(
            target=_run, args=(make, os.getpid(), end, self._pipe), daemon=True
        )
        try:
            with _quietly():
                self._process.start()
        except OSError:
            self._pipe.close()
            raise
        finally:
            end.close()
        self._end = weakref.finalize(self, _end, os.getpid(), self._pipe, self._process)
        self._answers = select.poll()  # `Connection.poll` makes one each time
        self._answers.register(self._pipe.fileno(), select.POLLIN)
        self._next = 0

    @property
    def pid(self) -> int | None:
        """Number of the process; None when it has been ended."""
        return self._process.pid if self._end.alive else None

    def take(self, number: int) -> T | None:
        """make(number), for 0, 1, 2, ...; None, now and ever after, for any other number, or if
        the process has ended or does not answer."""
        if not self._end.alive:
            return None
        if number != self._next:
            self.close()
            return None
        self._next += 1
        try:
            return self._receive()
        except BaseException as error:
            self.close()  # what is left in the pipe has no beginning
            if not isinstance(error, OSError):
                raise
            if self._process.exitcode != -signal.SIGTERM:  # else a job is ended, this part first
                warnings.warn(
                    f"a process that worked ahead {error}: its work is done in this one from now "
                    "on, which changes no result but takes longer",
                    RuntimeWarning,
                    stacklevel=2,
                )
            return None

    def _receive(self) -> T:
        """What the process sends next; OSError with what is wrong with it."""
        if not self._answers.poll(1e3 * PATIENCE_S):
            raise OSError(f"has not answered in {PATIENCE_S:.0f} s")
        try:
            made, failure = self._pipe.recv()
        except (EOFError, OSError):  # the latter amid a result
            self._process.join(PATIENCE_S)
            raise OSError(f"ended with exit code {self._process.exitcode}") from None
        if failure is not None:
            raise OSError(failure)
        return made

    def close(self) -> None:
        """End the process, which also happens when nobody holds this any more."""
        self._end()


class ForkedTeam(Generic[T]):
    """make(0), make(1), ... of so many forked processes, which take turns, see `Forked`; of none
    where they cannot be forked."""

    def __init__(self, make: Callable[[int], T], number: int) -> None:
        def turn(first: int, turn: int) -> T:
            return make(first + turn * number)

        self.processes: list[Forked[T]] = []
        with ExitStack() as started, suppress(OSError):
            for first in range(number):
                self.processes.append(Forked(partial(turn, first)))
                started.callback(self.processes[-1].close)
            started.pop_all()
            return
        self.processes.clear()

    def take(self, number: int) -> T | None:
        """make(number), or None if it has to be made here; see `Forked.take`."""
        if not self.processes:
            return None
        turn, process = divmod(number, len(self.processes))
        return self.processes[process].take(turn)

    def close(self) -> None:
        """End the team's processes."""
        for process in self.processes:
            process.close()


def _end(caller: int, pipe: Connection, process: BaseProcess) -> None:
    pipe.close()
    if os.getpid() == caller:  # not a copy of it, forked by somebody else
        process.kill()  # it has nothing to lose
        process.join()


def _run(make: Callable[[int], Any], caller: int, end: Connection, others: Connection) -> None:
    """The process: its work in turn, until nobody reads it."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # for one that is stuck, and reads no pipe
    if os.getppid() != caller:
        os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    others.close()  # or writing would go on after the reader has gone
    gc.freeze()  # what the caller left behind is not ours to clean up: it may be on a GPU
    gc.enable()
    with suppress(BrokenPipeError):
        number = 0
        while True:
            try:
                made = make(number)
            except StopIteration:
                break
            except Exception as error:
                end.send((None, f"failed with {type(error).__name__}: {error}"))
                break
            end.send((made, None))
            number += 1
    os._exit(0)


@contextmanager
def _quietly() -> Iterator[None]:
    """A process that is forked in here hears no signal that is meant for the caller, cleans nothing
    up of what it finds, and Python does not warn of threads, of which it needs none."""
    with _alone:
        collects = gc.isenabled()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            gc.disable()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                yield
        finally:
            if collects:
                gc.enable()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)  # Ctrl-C may come up here
