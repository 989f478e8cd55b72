"""Ranks: two of them train as one does, stop together, and are set up with clear errors."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import torch
from support.fake_generator import tiny_config
from support.processes import (
    PATIENCE_S,
    Forked,
    finish,
    start,
    trained_indices,
    wait_for_step,
)
from support.states import assert_same_bits, losses, state_of

from streamtrain.config import Config
from streamtrain.generator.generator import GENERATOR_VERSION
from streamtrain.train.checkpoint import load_checkpoint
from streamtrain.train.distributed import _sendable, choose_device
from streamtrain.train.folder import RunLock


def children(pid: int | None) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(text) for text in path.read_text().split()]


NO_DROPOUT = {"validate_every": 100, "log_every": 1, "steps": 20}
"""Settings of trainings whose losses are compared between numbers of ranks."""


def launch(folder: Path, ranks: int, *arguments: str) -> Forked:
    words = tuple(f"{key}={value}" for key, value in NO_DROPOUT.items())
    return Forked(folder, "--dropout", "0", *arguments, ranks=ranks, train=words)


def global_batches(folder: Path, ranks: int, first: int, last: int) -> list[list[int]]:
    """What the ranks generated for the steps first..last-1, since `indices.*` were removed."""
    shares = [trained_indices(folder, rank)[: last - first] for rank in range(ranks)]
    for rank in range(ranks):
        (folder / f"indices.{rank}.jsonl").unlink()
    return [[index for part in step for index in part] for step in zip(*shares, strict=True)]


ALL_BATCHES = [list(range(8 * step, 8 * step + 8)) for step in range(20)]


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("one")
    training = launch(folder, 1)
    assert training.finish() == [0], training.errors
    assert global_batches(folder, 1, 0, 20) == ALL_BATCHES
    return tiny_config(folder, dropout=0.0, **NO_DROPOUT)


def assert_learns_the_same(config: Config, one_rank: Config) -> None:
    for kind in ("loss", "validation_loss"):
        expected, found = losses(one_rank, kind), losses(config, kind)
        assert [step for step, _ in found] == [step for step, _ in expected]
        assert [x for _, x in found] == pytest.approx([x for _, x in expected], rel=1e-5, abs=0)


@pytest.mark.parametrize("ranks", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_ranks_see_the_samples_of_one_and_learn_the_same(
    tmp_path: Path, one_rank: Config, ranks: int
) -> None:
    training = launch(tmp_path, ranks)
    assert training.finish() == [0] * ranks, training.errors
    assert global_batches(tmp_path, ranks, 0, 20) == ALL_BATCHES
    assert_learns_the_same(tiny_config(tmp_path, dropout=0.0, **NO_DROPOUT), one_rank)


def test_another_number_of_ranks_continues_with_the_same_samples(
    tmp_path: Path, one_rank: Config
) -> None:
    """Two ranks, stopped; one, killed; four to the end."""
    config = tiny_config(tmp_path, dropout=0.0, **NO_DROPOUT)
    training = launch(tmp_path, 2, "--delay", "0.05")
    training.wait_for_step(3)
    os.kill(training.ranks[1].pid, signal.SIGTERM)
    assert training.finish() == [0, 0], training.errors
    first = state_of(config)["step"]
    assert 3 <= first < 12
    batches = global_batches(tmp_path, 2, 0, first)
    training = launch(tmp_path, 1, "--kill-at", "14")
    assert training.finish() == [-signal.SIGKILL], training.errors
    second = state_of(config)["step"]
    assert second == 12
    batches += global_batches(tmp_path, 1, first, second)
    training = launch(tmp_path, 4)
    assert training.finish() == [0] * 4, training.errors
    batches += global_batches(tmp_path, 4, second, 20)
    assert batches == ALL_BATCHES
    assert_learns_the_same(config, one_rank)


def test_torchrun_restarts_after_a_killed_rank(tmp_path: Path) -> None:
    """kill -9 of rank 1 before step 7: the run ends as one of two ranks that was left alone."""
    settings = {"validate_every": 100, "deterministic": True, "log_every": 1}
    words = tuple(f"{key}={value}" for key, value in settings.items())
    killed = ("--kill-at", "7", "--kill-rank", "1")
    restarts = ("--max-restarts=3", "--monitor-interval=0.2")
    training = Forked(tmp_path / "killed", *killed, train=words, torchrun=restarts)
    whole = Forked(tmp_path / "whole", ranks=2, train=words)
    assert whole.finish() == [0, 0], whole.errors
    assert training.finish() == [0], training.errors
    assert f"continuing {tmp_path / 'killed'} from step" in training.errors
    first, second = (tiny_config(tmp_path / name, **settings) for name in ("killed", "whole"))
    assert_same_bits(state_of(first), state_of(second))
    assert losses(first) == losses(second)


def test_sigterm_to_torchrun_reaches_all_ranks(tmp_path: Path) -> None:
    """As from a scheduler: all leave within 20 s, with a checkpoint of the same step."""
    process = start(tmp_path, "--delay", "0.05", ranks=2, train=("steps=500",))
    wait_for_step(tmp_path, 2, process)
    ranks, begin = children(process.pid), time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, errors = finish(process)
    assert time.monotonic() - begin < 20
    assert not any(Path(f"/proc/{rank}").exists() for rank in ranks)
    assert "the same command continues" in errors and "exitcode" not in errors
    state = state_of(tiny_config(tmp_path, steps=500))
    assert 2 <= state["step"] < 500
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_ranks_stop_together_when_one_is_asked_to(tmp_path: Path) -> None:
    """SIGTERM to rank 1 alone: both write off the same step and end with 0, which is success."""
    training = Forked(tmp_path, "--delay", "0.05", ranks=2, train=("steps=500",))
    training.wait_for_step(2)
    os.kill(training.ranks[1].pid, signal.SIGTERM)
    assert training.finish() == [0, 0], training.errors
    config = tiny_config(tmp_path, steps=500)
    state = load_checkpoint(tmp_path / "checkpoints", config, GENERATOR_VERSION)
    assert state is not None
    assert 2 <= state["step"] < 500
    assert state["next_index"] == 8 * state["step"]


def test_ranks_end_when_torchrun_is_killed(tmp_path: Path) -> None:
    """kill -9 of torchrun leaves no orphan that keeps the run's folder."""
    training = Forked(tmp_path, "--delay", "0.05", train=("steps=500",), torchrun=())
    training.wait_for_step(2)
    [torchrun] = training.ranks
    ranks = children(torchrun.pid)
    assert len(ranks) == 2
    torchrun.kill()
    RunLock(tmp_path, patience_s=PATIENCE_S).close()
    end = time.monotonic() + PATIENCE_S
    while any(Path(f"/proc/{rank}").exists() for rank in ranks):
        assert time.monotonic() < end
        time.sleep(0.1)
    assert training.finish() == [-signal.SIGKILL]


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
    training = Forked(tmp_path, "--fail-at", "46", ranks=2)
    assert training.finish()[1] == 2
    sentences = [line for line in said(training.errors) if "another rank has ended" not in line]
    assert sentences == ["streamtrain: rank 1: sample 46: no such halo"]
    state = load_checkpoint(tmp_path / "checkpoints", tiny_config(tmp_path), GENERATOR_VERSION)
    assert state is not None
    assert (state["step"], state["next_index"]) == (5, 40)


def test_an_error_of_rank_0_reaches_all_ranks_and_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    training = Forked(tmp_path, ranks=2)
    assert training.finish() == [2, 2]
    (sentence,) = said(training.errors)
    assert sentence.endswith("lock is a folder, not a file")
    assert "Traceback" not in training.errors


def said(errors: str) -> list[str]:
    """What the ranks printed themselves."""
    return [line for line in errors.splitlines() if line.startswith("streamtrain: ")]


def test_error_that_pickle_cannot_carry_is_sent_as_text() -> None:
    class Local(Exception):
        """Pickle finds no class of this name."""

    assert str(_sendable(Local("the reason"))) == "Local: the reason"
    error = ValueError("the reason")
    assert _sendable(error) is error
