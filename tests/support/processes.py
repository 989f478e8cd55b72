"""Trainings as processes of their own: under torchrun, or forked from a process that has imported
everything, which takes a tenth of a second; torchrun itself can be forked too, with its ranks."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from multiprocessing.context import ForkProcess, ForkServerContext, ForkServerProcess
from pathlib import Path

import torch
import torch.distributed.run
from torch.distributed.elastic.multiprocessing import api as elastic

from streamtrain.machine.interrupt import SIGNALS
from streamtrain.train.folder import read_history
from support import ROOT, TESTS

SCRIPT = "support.fake_training"
TWO_RANKS = ("--standalone", "--nproc-per-node=2")
LATER = ("torch._dynamo", "torch.utils.tensorboard", "matplotlib.pyplot", "streamtrain.api")
"""What a training imports when it begins, in five times the time of its steps."""
PATIENCE_S = 300.0
"""On a machine with much else to do, a torchrun that restarts its ranks takes minutes [s]."""


def start(
    folder: Path, *arguments: str, ranks: int = 1, train: tuple[str, ...] = ()
) -> subprocess.Popen[str]:
    """Start `fake_training.py` in `folder`, two ranks under torchrun; `train`: settings of the
    section `train`."""
    folder.mkdir(exist_ok=True)
    launcher = ["-m", "torch.distributed.run", *TWO_RANKS] if ranks == 2 else []
    return subprocess.Popen(
        [sys.executable, *launcher, "-m", SCRIPT, str(folder), *arguments, "--train", *train],
        env={**os.environ, **_environment()},
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit status and stderr."""
    try:
        errors = process.communicate(timeout=PATIENCE_S)[1]
    except subprocess.TimeoutExpired:
        process.terminate()  # torchrun ends its ranks
        raise AssertionError(f"not done in time: {process.communicate()[1]}") from None
    return process.returncode, errors


@contextmanager
def one_thread() -> Iterator[None]:
    """Meanwhile torch computes on one, as in `Forked`: their number changes bits of weights."""
    threads, before = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        del os.environ["OMP_NUM_THREADS"]
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before


@contextmanager
def answer_signals() -> Iterator[None]:
    """Meanwhile no signal that streamtrain answers is ignored, as SIGINT is in a background job of
    a script, and SIGHUP under nohup; processes inherit that."""
    ignored = [number for number in SIGNALS if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, usual)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


class Forked:
    """Ranks of `fake_training.py`, forked, or a torchrun of two.

    folder: of the run; arguments: of the script; `train`: settings of the section `train`;
    torchrun: its options, None: without it. `ranks` has the processes, torchrun alone if there is
    one.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        ranks: int = 1,
        train: tuple[str, ...] = (),
        torchrun: tuple[str, ...] | None = None,
    ) -> None:
        folder.mkdir(exist_ok=True)
        context = _fork_server()
        self._errors = folder / "stderr"
        self._errors.write_text("")
        port = _free_port()
        given = [str(folder), *arguments, "--train", *train]
        self.ranks: list[ForkServerProcess] = []
        if torchrun is not None:
            words = [*TWO_RANKS, *torchrun, "-m", SCRIPT, *given]
            process = context.Process(target=_torchrun, args=(words, str(self._errors)))
            process.start()
            self.ranks, ranks = [process], 0
        for rank in range(ranks):
            variables = {
                "RANK": rank,
                "WORLD_SIZE": ranks,
                "LOCAL_RANK": rank,
                "LOCAL_WORLD_SIZE": ranks,
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
                "OMP_NUM_THREADS": 1,
            }
            environment = {name: str(value) for name, value in variables.items()}
            process = context.Process(target=_run, args=(given, environment, str(self._errors)))
            process.start()
            self.ranks.append(process)

    @property
    def errors(self) -> str:
        """What the ranks have written to stderr."""
        return self._errors.read_text(encoding="utf-8")

    def finish(self) -> list[int | None]:
        """The exit status of each rank, negative for a signal."""
        for process in self.ranks:
            process.join(PATIENCE_S)
            if process.is_alive():
                process.kill()
        return [process.exitcode for process in self.ranks]

    def wait_for_step(self, step: int) -> None:
        """Until the history has an entry of that step."""
        wait_for_step(self._errors.parent, step, self)

    def poll(self) -> int | None:
        """The exit status of rank 0 if it has ended."""
        return self.ranks[0].exitcode

    def communicate(self) -> tuple[str, str]:
        """As of a subprocess that has ended."""
        return "", self.errors


def _environment() -> dict[str, str]:
    paths = [str(TESTS), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}


def _fork_server() -> ForkServerContext:
    """Started once; it has imported everything and done nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([SCRIPT, "support.processes", *LATER])
    before = dict(os.environ)
    os.environ.update(_environment())
    forkserver.ensure_running()
    os.environ.clear()
    os.environ.update(before)
    return context


def _run(arguments: list[str], environment: dict[str, str], errors: str) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    answer_signals().__enter__()
    _write_errors_to(errors)
    from support import fake_training

    sys.exit(fake_training.main(arguments))


def _write_errors_to(file: str) -> None:
    os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND), 2)
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115


class _ForkedRank(ForkProcess):
    """What torchrun starts, with the methods of `subprocess.Popen` that it calls."""

    def poll(self) -> int | None:
        return self.exitcode

    def wait(self, timeout: float | None = None) -> int | None:
        self.join(timeout)
        if self.exitcode is None:
            raise subprocess.TimeoutExpired("a rank", timeout or 0.0)
        return self.exitcode


def _torchrun(arguments: list[str], errors: str) -> None:
    """torchrun, which forks its ranks and does everything else as ever."""

    def rank(command: tuple[str, ...], environment: dict[str, str]) -> None:
        os.setsid()
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)  # as of a program that is started
        _run(list(command[command.index(SCRIPT) + 1 :]), environment, errors)

    def popen(_: object, command: tuple[str, ...], environment: dict[str, str]) -> _ForkedRank:
        started = _ForkedRank(target=rank, args=(command, environment))
        started.start()
        return started

    _write_errors_to(errors)
    elastic.SubprocessHandler._popen = popen
    torch.distributed.run.main(arguments)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for_step(folder: Path, step: int, process: subprocess.Popen[str] | Forked) -> None:
    """Until the history has an entry of that step."""
    end = time.monotonic() + PATIENCE_S
    while not any(entry["step"] >= step for entry in read_history(folder / "history.jsonl")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "no step in time"
        time.sleep(0.05)


def trained_indices(folder: Path, rank: int = 0) -> list[list[int]]:
    """Training samples that a rank generated, batch by batch."""
    lines = (folder / f"indices.{rank}.jsonl").read_text(encoding="utf-8").splitlines()
    batches = []
    for line in lines:
        with suppress(json.JSONDecodeError):  # cut short by kill -9
            batches.append(json.loads(line))
    return batches
