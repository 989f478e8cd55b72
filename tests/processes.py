"""Trainings as processes of their own: one rank, or two under torchrun."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from streamtrain.train.folder import read_history

TESTS = Path(__file__).parent
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
PATIENCE_S = 60.0


def start(
    folder: Path, *arguments: str, ranks: int = 1, train: tuple[str, ...] = ()
) -> subprocess.Popen[str]:
    """Start `fake_training.py` in `folder`; `train`: settings of the section `train`."""
    folder.mkdir(exist_ok=True)
    launcher = TORCHRUN if ranks == 2 else [sys.executable]
    paths = [str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [*launcher, str(TESTS / "fake_training.py"), str(folder), *arguments, "--train", *train],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)},
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit status and stderr."""
    errors = process.communicate(timeout=PATIENCE_S)[1]
    return process.returncode, errors


def wait_for_step(folder: Path, step: int, process: subprocess.Popen[str]) -> None:
    """Until the history has an entry of that step."""
    end = time.monotonic() + PATIENCE_S
    while not any(entry["step"] >= step for entry in read_history(folder / "history.jsonl")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "no step in time"
        time.sleep(0.05)


def trained_indices(folder: Path, rank: int = 0) -> list[list[int]]:
    """Training samples that a rank generated, batch by batch."""
    lines = (folder / f"indices.{rank}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]
