"""A process that works ahead: its results in order, and no trace of it when it is not needed."""

from __future__ import annotations

import fcntl
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support import ROOT

from streamtrain.machine import forked
from streamtrain.machine.forked import PIPE_BYTES, Forked

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux")


def is_running(pid: int) -> bool:
    """Whether a process is at work: neither gone nor a corpse that nobody has collected."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def wait_for_end(pid: int) -> None:
    end = time.monotonic() + 60.0
    while is_running(pid):
        assert time.monotonic() < end, f"process {pid} goes on"
        time.sleep(0.01)


@pytest.fixture
def squares() -> Iterator[Forked[int]]:
    made = Forked(lambda n: n * n)
    yield made
    made.close()


def pid_of(made: Forked[int]) -> int:
    assert made.pid is not None
    return made.pid


def test_in_order_from_another_process() -> None:
    """Whether what is made fits the pipe or not, and with a state of its own."""
    for size in (1, 3 * PIPE_BYTES // 8):
        state = [0]

        def make(number: int, size: int = size, state: list[int] = state) -> tuple[int, np.ndarray]:
            state[0] += 1
            return os.getpid(), np.full(size, number + 10 * state[0])

        made = Forked(make)
        for number in range(5):
            taken = made.take(number)
            assert taken is not None
            assert taken[0] == made.pid != os.getpid()
            assert np.array_equal(taken[1], np.full(size, number + 10 * (number + 1)))
        assert state == [0]
        made.close()


def test_it_works_ahead(tmp_path: Path) -> None:
    """And waits when the pipe is full: four of these fit, the fifth goes in bit by bit."""
    count = tmp_path / "count"

    def make(number: int) -> bytes:
        count.write_text(str(number))
        return bytes(PIPE_BYTES * 23 // 100)

    made = Forked(make)
    if fcntl.fcntl(made._pipe.fileno(), fcntl.F_GETPIPE_SZ) != PIPE_BYTES:
        pytest.skip("this user has too many large pipes")
    end = time.monotonic() + 60.0
    while not (count.exists() and count.read_text() == "4"):
        assert time.monotonic() < end
        time.sleep(0.01)
    time.sleep(0.1)
    assert count.read_text() == "4"
    made.close()


def test_another_number_is_not_made(squares: Forked[int]) -> None:
    pid = pid_of(squares)
    assert [squares.take(n) for n in (0, 1, 3, 2)] == [0, 1, None, None]
    assert squares.pid is None and not is_running(pid)


def test_closing_ends_it(squares: Forked[int]) -> None:
    pid = pid_of(squares)
    squares.close()
    squares.close()
    assert not is_running(pid) and squares.take(0) is None


def test_it_ends_when_nobody_holds_it() -> None:
    """Although a process that was forked later has the ends of its pipe, too."""
    made, later = Forked(lambda n: n), Forked(lambda n: n)
    pid = pid_of(made)
    del made
    assert not is_running(pid)
    assert later.take(0) == 0
    later.close()


def test_a_copy_of_the_caller_does_not_end_it(squares: Forked[int]) -> None:
    """One that somebody forks, and that leaves as Python does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
        copy = os.fork()
    if not copy:
        squares.close()
        os._exit(0)
    assert os.waitpid(copy, 0) == (copy, 0)
    assert [squares.take(n) for n in range(50_000)] == [n * n for n in range(50_000)]


def test_without_it_the_caller_does_the_work(squares: Forked[int]) -> None:
    """A process that is killed, as by a system without memory, is named."""
    assert squares.take(0) == 0
    os.kill(pid_of(squares), signal.SIGKILL)
    with pytest.warns(RuntimeWarning, match="ahead ended with exit code -9: its work is done in"):
        taken = [squares.take(n) for n in range(1, 100_000)]
    assert taken[-1] is None
    made = [value for value in taken if value is not None]
    assert made == [n * n for n in range(1, len(made) + 1)]


def test_the_end_of_a_job_is_no_news(squares: Forked[int]) -> None:
    """SIGTERM to all processes: the caller has its own way to end."""
    os.kill(pid_of(squares), signal.SIGTERM)
    wait_for_end(pid_of(squares))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert None in [squares.take(n) for n in range(100_000)]


@pytest.mark.usefixtures("usual_signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_for_the_caller_are_not_heard(squares: Forked[int], number: int) -> None:
    os.kill(pid_of(squares), number)
    time.sleep(0.05)
    assert [squares.take(n) for n in range(50_000)] == [n * n for n in range(50_000)]


def test_a_failure_is_told() -> None:
    def make(number: int) -> float:
        return 1 / (2 - number)

    made = Forked(make)
    assert [made.take(n) for n in (0, 1)] == [0.5, 1.0]
    with pytest.warns(RuntimeWarning, match="failed with ZeroDivisionError: division by zero"):
        assert made.take(2) is None
    assert made.pid is None


def test_work_can_be_done() -> None:
    """What there is, is handed over; whoever asks for more is told that the process has ended."""

    def make(number: int) -> int:
        if number == 3:
            raise StopIteration
        return number

    made = Forked(make)
    wait_for_end(pid_of(made))
    assert [made.take(n) for n in range(3)] == [0, 1, 2]
    with pytest.warns(RuntimeWarning, match="ended with exit code 0"):
        assert made.take(3) is None


def test_silence_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forked, "PATIENCE_S", 0.2)
    made = Forked(lambda number: time.sleep(3600))
    with pytest.warns(RuntimeWarning, match=r"has not answered in 0 s"):
        assert made.take(0) is None


def test_an_interrupted_caller_does_not_read_on_amid_a_result() -> None:
    """Ctrl-C while a result comes in: what follows is not taken for the next one."""

    class Interrupted(Exception):
        pass

    def raises(*_: object) -> None:
        raise Interrupted

    made = Forked(lambda number: time.sleep(2.0))
    before = signal.signal(signal.SIGALRM, raises)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(Interrupted):
            made.take(0)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert made.pid is None and made.take(1) is None


def test_threads_of_the_caller_do_not_matter() -> None:
    """One holds a lock that the process would wait for if it used it, another allocates."""
    held, stop = threading.Lock(), threading.Event()

    def hold() -> None:
        with held:
            stop.wait()

    def allocate() -> None:
        while not stop.is_set():
            np.ones(100_000).sum()

    threads = [threading.Thread(target=work) for work in (hold, allocate)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        made = Forked(lambda n: float(np.full(1000, n).sum()))
        assert [made.take(n) for n in range(100)] == [1000.0 * n for n in range(100)]
        made.close()
    stop.set()
    for thread in threads:
        thread.join()


def test_a_daemonic_caller_may_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker of a pool, say: Python forbids it, which is no reason to fail."""
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)  # type: ignore[attr-defined]
    with pytest.raises(OSError, match="daemonic"):
        Forked(lambda n: n)


def test_forking_leaves_the_caller_as_it_is(squares: Forked[int]) -> None:
    """What is set for the moment of forking: signals, warnings, the collector of cycles."""
    assert gc.isenabled() and signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
    before = list(warnings.filters)
    gc.disable()
    try:
        Forked(lambda n: n).close()
        assert not gc.isenabled()
    finally:
        gc.enable()
    assert warnings.filters == before


ENDS = """
import sys, time
from streamtrain.machine import forked
from streamtrain.machine.forked import Forked
works = [lambda n: n, lambda n: n, lambda n: time.sleep(600)]
if "unaided" in sys.argv[1]:
    forked._libc = None
    works.pop()
made = [Forked(work) for work in works]
assert made[0].take(0) == made[1].take(0) == 0
print(*(m.pid for m in made), flush=True)
if "waits" in sys.argv[1]:
    time.sleep(600)
"""


@pytest.mark.parametrize("end", ["leaves", "waits", "waits, unaided by the system"])
def test_it_ends_with_the_caller(end: str) -> None:
    """One that leaves without a word, and one that is killed; also if it is stuck, where the system
    says so. Elsewhere it notices when it has something to hand over."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", ENDS, end],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as caller:
        assert caller.stdout is not None
        pids = [int(word) for word in caller.stdout.readline().split()]
        assert len(pids) == (2 if "unaided" in end else 3)
        if "waits" in end:
            caller.kill()
        caller.wait(60)
    for pid in pids:
        wait_for_end(pid)
    assert caller.returncode == (-signal.SIGKILL if "waits" in end else 0)
