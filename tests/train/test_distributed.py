"""Ranks: two of them train as one does, stop together, and are set up with clear errors."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from fake_generator import tiny_config
from processes import finish, start, trained_indices, wait_for_step

from streamtrain.generator.generator import GENERATOR_VERSION
from streamtrain.train.checkpoint import load_checkpoint
from streamtrain.train.distributed import _sendable, choose_device
from streamtrain.train.folder import RunLock, read_history


def children(process: subprocess.Popen[str]) -> list[int]:
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(text) for text in path.read_text().split()]


def test_two_ranks_see_the_samples_of_one_and_learn_the_same(tmp_path: Path) -> None:
    settings = ("steps=6", "validate_every=3")
    processes = {
        name: start(tmp_path / name, "--dropout", "0", ranks=ranks, train=settings)
        for name, ranks in (("one", 1), ("two", 2))
    }
    config = tiny_config(tmp_path, dropout=0.0, steps=6, validate_every=3)
    weights, losses = [], []
    for name, process in processes.items():
        status, errors = finish(process)
        assert status == 0, errors
        state = load_checkpoint(tmp_path / name / "checkpoints", config, GENERATOR_VERSION)
        assert state is not None
        assert state["next_index"] == 6 * 8
        weights.append(state["network"])
        history = read_history(tmp_path / name / "history.jsonl")
        losses.append([e["validation_loss"] for e in history if "validation_loss" in e])
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=1e-4, atol=1e-6)
    assert len(losses[0]) == 2
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)

    batches = [list(range(8 * step, 8 * step + 8)) for step in range(6)]
    assert trained_indices(tmp_path / "one")[:6] == batches
    halves = [trained_indices(tmp_path / "two", rank)[:6] for rank in (0, 1)]
    assert [[*a, *b] for a, b in zip(*halves, strict=True)] == batches


def test_ranks_stop_together_when_one_is_asked_to(tmp_path: Path) -> None:
    """SIGTERM to rank 1 alone: both write off the same step, and torchrun reports success."""
    process = start(tmp_path, "--delay", "0.05", ranks=2, train=("steps=500",))
    wait_for_step(tmp_path, 2, process)
    os.kill(max(children(process)), signal.SIGTERM)
    status, errors = finish(process)
    assert status == 0, errors
    config = tiny_config(tmp_path, steps=500)
    state = load_checkpoint(tmp_path / "checkpoints", config, GENERATOR_VERSION)
    assert state is not None
    assert 2 <= state["step"] < 500
    assert state["next_index"] == 8 * state["step"]


def test_ranks_end_when_torchrun_is_killed(tmp_path: Path) -> None:
    """kill -9 of torchrun leaves no orphan that keeps the run's folder."""
    process = start(tmp_path, "--delay", "0.05", ranks=2, train=("steps=500",))
    wait_for_step(tmp_path, 2, process)
    ranks = children(process)
    assert len(ranks) == 2
    process.kill()
    RunLock(tmp_path, patience_s=20).close()
    end = time.monotonic() + 20
    while any(Path(f"/proc/{rank}").exists() for rank in ranks):
        assert time.monotonic() < end
        time.sleep(0.1)
    process.communicate()


def test_gpu_is_asked_for_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device(None, 0, 1) == torch.device("cpu")
    with pytest.raises(ValueError, match="device 'cuda': torch finds no NVIDIA GPU"):
        choose_device("cuda", 0, 1)


def test_one_gpu_per_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device(None, 1, 2) == torch.device("cuda:1")
    with pytest.raises(ValueError, match=r"3 processes on a machine with 2 GPU\(s\)"):
        choose_device(None, 1, 3)
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ValueError, match=r"'cuda:1' is one GPU for 2 processes: use device 'cuda'"):
        choose_device("cuda:1", 0, 2)


def test_a_rank_that_fails_says_so_and_the_steps_before_are_kept(tmp_path: Path) -> None:
    """Sample 46 is the third of rank 1 in the sixth step."""
    status, errors = finish(start(tmp_path, "--fail-at", "46", ranks=2))
    assert status != 0
    assert said(errors) == ["streamtrain: rank 1: sample 46: no such halo"]
    state = load_checkpoint(tmp_path / "checkpoints", tiny_config(tmp_path), GENERATOR_VERSION)
    assert state is not None
    assert (state["step"], state["next_index"]) == (5, 40)


def test_an_error_of_rank_0_reaches_all_ranks_and_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    status, errors = finish(start(tmp_path, ranks=2))
    assert status != 0
    (sentence,) = said(errors)
    assert sentence.startswith("streamtrain: [Errno 21] Is a directory")
    assert 'fake_training.py", line' not in errors  # torchrun itself shows a traceback


def said(errors: str) -> list[str]:
    """What the ranks printed themselves."""
    return [line for line in errors.splitlines() if line.startswith("streamtrain: ")]


def test_error_that_pickle_cannot_carry_is_sent_as_text() -> None:
    class Local(Exception):
        """Pickle finds no class of this name."""

    assert str(_sendable(Local("the reason"))) == "Local: the reason"
    error = ValueError("the reason")
    assert _sendable(error) is error
