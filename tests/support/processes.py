"""Trainings as processes of their own: under torchrun, or forked from a process that has imported
everything, which takes a tenth of a second."""

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
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

import torch

from streamtrain.machine.interrupt import SIGNALS
from streamtrain.train.folder import read_history
from support import ROOT, TESTS

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
LATER = ("torch._dynamo", "torch.utils.tensorboard", "matplotlib.pyplot", "streamtrain.api")
"""What a training imports when it begins, in five times the time of its steps."""
PATIENCE_S = 300.0
"""On a machine with much else to do, a torchrun that restarts its ranks takes minutes [s]."""


def start(
    folder: Path,
    *arguments: str,
    ranks: int = 1,
    train: tuple[str, ...] = (),
    torchrun: tuple[str, ...] = (),
) -> subprocess.Popen[str]:
    """Start `fake_training.py` in `folder`; `train`: settings of the section `train`; `torchrun`:
    its options."""
    folder.mkdir(exist_ok=True)
    launcher = [*TORCHRUN, *torchrun] if ranks == 2 else [sys.executable]
    return subprocess.Popen(
        [*launcher, "-m", "support.fake_training", str(folder), *arguments, "--train", *train],
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
    """Ranks of `fake_training.py`, forked.

    folder: of the run; arguments: of the script; `train`: settings of the section `train`.
    """

    def __init__(
        self, folder: Path, *arguments: str, ranks: int = 1, train: tuple[str, ...] = ()
    ) -> None:
        folder.mkdir(exist_ok=True)
        context = _fork_server()
        self._errors = folder / "stderr"
        self._errors.write_text("")
        port = _free_port()
        self.ranks: list[ForkServerProcess] = []
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
            given = [str(folder), *arguments, "--train", *train]
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
    context.set_forkserver_preload(["support.fake_training", *LATER])
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
    descriptor = os.open(errors, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 2)
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    from support import fake_training

    sys.exit(fake_training.main(arguments))


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
