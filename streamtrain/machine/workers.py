"""What a command may use, its cores above all, and independent pieces of work, one per seed.

Each process gets every n-th seed of its rank, so which process makes what depends on nothing but
the numbers. The parent alone writes to the terminal.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from streamtrain.machine.cgroups import groups_of, lines, number_in
from streamtrain.machine.interrupt import SIGNALS
from streamtrain.machine.memory import free_memory
from streamtrain.machine.progress import SILENT, Progress


def num_cores(root: Path = Path("/")) -> int:
    """Cores that this process may use: a batch job's or a container's share, not the whole machine.

    A quota of processor time (Kubernetes, `docker --cpus`) counts as so many cores, rounded up: of
    more threads than that all have to stop at once until the next period. root: where proc and sys
    lie.
    """
    whole = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if whole else os.cpu_count() or 1
    return max(1, min([cores, *_quotas(root)]))


def _quotas(root: Path) -> Iterator[int]:
    """Cores that are worth the quota of each control group that has one."""
    for group, version in groups_of("cpu", root):
        if version == 1:
            names = "cpu.cfs_quota_us", "cpu.cfs_period_us"
            quota, period = (number_in(group / name) for name in names)
        else:
            words = " ".join(lines(group / "cpu.max")).split()
            quota, period = (int(word) if word.isdigit() else None for word in [*words, "", ""][:2])
        if quota and period:
            yield math.ceil(quota / period)


def own_cores() -> int:
    """Cores of this rank: its share of those of the machine's ranks."""
    return max(1, num_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


@dataclass(frozen=True)
class Resources:
    """What a command may use: a device, cores and the terminal."""

    device: str = "cpu"
    """Where samples are made and networks predict: cpu, cuda, cuda:1 ..."""
    threads: int | None = 1
    """Threads of a generator on a CPU; None: train.threads of the configuration, or one per
    core."""
    progress: Progress = SILENT
    """Where it is shown how far the work is."""

    def of_generator(self, configured: int) -> dict[str, Any]:
        """Device and number of threads as arguments of `Generator`; configured: train.threads."""
        return {"device": self.device, "threads": self.threads or configured or num_cores()}


ALONE = Resources()
"""One thread of the CPU, and nothing is shown."""

Work = Callable[[int, int, Callable[[float, str], None]], str]
"""work(seed, threads, report) -> what was done, in a sentence."""

_REPORT_S = 0.5
_BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")


def own_range(first: int, number: int) -> range:
    """The seeds of this rank: consecutive ranges, of all if there is one rank."""
    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    return range(first + number * rank // ranks, first + number * (rank + 1) // ranks)


def how_many(number: int, memory: float) -> int:
    """Processes for so many pieces of work that take `memory` [bytes] each."""
    local_ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    fitting = 0.8 * free_memory() / local_ranks / max(memory, 1.0)
    return max(1, min(number, own_cores(), int(min(fitting, 1e6))))


def is_running(pid: int) -> bool:
    """Whether a process of this machine has this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def run(work: Work, seeds: Sequence[int], processes: int) -> None:
    """work(seed, threads, report) for every seed, with a progress line.

    Raises ValueError with the sentence of the first piece of work that failed; on that and on
    Ctrl-C the other processes end at once.
    """
    progress = Progress()
    rank = f"rank {os.environ['RANK']}: " if os.environ.get("WORLD_SIZE", "1") != "1" else ""
    processes = max(1, min(processes, len(seeds)))
    threads = max(1, own_cores() // processes)
    try:
        if processes == 1:
            for done, seed in enumerate(seeds, 1):
                label = f"{rank}lightcone {done}/{len(seeds)}"
                _alone(work, seed, threads, label, progress)
        elif seeds:
            _together(work, seeds, processes, threads, rank, progress)
    finally:
        progress.close()


def _alone(work: Work, seed: int, threads: int, label: str, progress: Progress) -> None:
    start = time.perf_counter()
    note = work(
        seed,
        threads,
        lambda share, what: progress.update(
            f"{label}: {100 * share:3.0f} % {what}{progress.left(label, share, 1.0)}"
        ),
    )
    progress.note(f"{label}: {note}, {time.perf_counter() - start:.1f} s")


def _together(
    work: Work, seeds: Sequence[int], processes: int, threads: int, rank: str, progress: Progress
) -> None:
    context = multiprocessing.get_context("spawn")
    children: dict[Connection, Any] = {}
    try:
        with _one_blas_thread(), _signals_wait():
            for number in range(processes):
                pipe, end = context.Pipe(duplex=False)
                child = context.Process(
                    target=_child, args=(work, seeds[number::processes], threads, end), daemon=True
                )
                child.start()
                children[pipe] = child
                end.close()
        start = time.perf_counter()
        shares, done, warned = dict.fromkeys(children, 0.0), 0, dict[Any, Any]()
        for pipe, kind, value in _messages(children):
            if kind == "failed":
                raise ValueError(value)
            if kind == "warned":
                text, category, file, line = value
                warnings.warn_explicit(text, category, file, line, registry=warned)  # each once
                continue
            if kind == "done":
                shares[pipe] = 0.0
                done += 1
                seconds = time.perf_counter() - start
                progress.note(f"{rank}lightcone {done}/{len(seeds)}: {value}, at {seconds:.1f} s")
                continue
            shares[pipe] = value
            share = (done + sum(shares.values())) / len(seeds)
            progress.update(
                f"{rank}{done}/{len(seeds)} lightcones, {100 * share:.0f} %, {processes} processes"
                f"{progress.left('lightcones', share, 1.0)}"
            )
    finally:
        for child in children.values():
            child.terminate()
        for child in children.values():
            child.join()


def _messages(children: dict[Connection, Any]) -> Iterator[tuple[Connection, str, Any]]:
    """What the processes send, until the last has ended; ValueError when one is killed."""
    waiting = list(children)
    while waiting:
        for pipe in wait(waiting):
            assert isinstance(pipe, Connection)
            try:
                kind, value = pipe.recv()
            except EOFError:
                children[pipe].join()
                if status := children[pipe].exitcode:
                    raise ValueError(
                        f"a process that was making lightcones ended with exit code {status} (out "
                        "of memory?): run the command again, perhaps with fewer --processes"
                    ) from None
                waiting.remove(pipe)
            else:
                yield pipe, kind, value


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """Processes that start in here leave the matrix library one thread."""
    before = {name: os.environ.get(name) for name in _BLAS_THREADS}
    os.environ.update(dict.fromkeys(_BLAS_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _signals_wait() -> Iterator[None]:
    """A signal that comes meanwhile is answered afterwards, when every process can be ended.

    Processes that start in here never hear SIGINT: Ctrl-C goes to them too, and it is for the
    parent to end them.
    """
    resource_tracker.ensure_running()  # its own start would let SIGINT through
    came: list[int] = []
    handlers: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                handlers[number] = signal.signal(number, lambda given, _: came.append(given))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for given, handler in handlers.items():
            signal.signal(given, handler)
        if came:
            signal.raise_signal(came[0])


def _child(work: Work, seeds: Sequence[int], threads: int, pipe: Connection) -> None:
    """One process: its seeds in turn; reports, notes, warnings and a failure go to the parent,
    without which it ends."""

    def show(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
        pipe.send(("warned", (str(message), category, *where[:2])))

    with suppress(BrokenPipeError), warnings.catch_warnings():
        warnings.showwarning = show
        _work(work, seeds, threads, pipe)


def _work(work: Work, seeds: Sequence[int], threads: int, pipe: Connection) -> None:
    last = -math.inf

    def report(share: float, what: str) -> None:
        nonlocal last
        if time.monotonic() - last > _REPORT_S:
            last = time.monotonic()
            pipe.send(("share", share))

    try:
        for seed in seeds:
            pipe.send(("done", work(seed, threads, report)))
    except BrokenPipeError:
        raise
    except (ValueError, OSError, MemoryError) as error:
        pipe.send(("failed", str(error) or "out of memory: use fewer --processes"))
    finally:
        pipe.close()
