"""Checkpoints beside the training: what is written is the state at the time of saving."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from support.fake_generator import tiny_config

from streamtrain.config import Config
from streamtrain.train import writer
from streamtrain.train.checkpoint import load_checkpoint
from streamtrain.train.writer import CheckpointWriter, Snapshot


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return tiny_config(tmp_path)


def test_what_changes_meanwhile_is_not_written(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread begins to write when the weights are already other ones; saving did not wait."""
    may_write, real = threading.Event(), writer.save_checkpoint

    def save(*arguments: Any) -> Path:
        assert may_write.wait(10)
        return real(*arguments)

    monkeypatch.setattr(writer, "save_checkpoint", save)
    weights = torch.arange(10.0)
    background = CheckpointWriter(tmp_path, config, 1)
    state = {"step": 3, "next_index": 24, "network": {"w": weights}, "groups": [{"lr": 0.1}]}
    background.save(state)
    weights.zero_()
    state["groups"][0]["lr"] = 0.2  # type: ignore[index]
    assert not list(tmp_path.glob("step_*"))
    may_write.set()
    background.close()
    assert background.failure is None
    loaded = load_checkpoint(tmp_path, config, 1)
    assert loaded is not None
    assert torch.equal(loaded["network"]["w"], torch.arange(10.0))
    assert loaded["groups"] == [{"lr": 0.1}]


def test_next_checkpoint_waits_for_the_one_under_way(tmp_path: Path, config: Config) -> None:
    """Many at once, from buffers that are used again: each is whole and of its step."""
    background, weights = CheckpointWriter(tmp_path, config, 1), torch.zeros(100_000)
    for step in range(1, 6):
        weights.fill_(step)
        background.save({"step": step, "next_index": 8 * step, "w": weights})
    background.close()
    assert sorted(p.name for p in tmp_path.glob("step_*")) == ["step_000000004", "step_000000005"]
    loaded = load_checkpoint(tmp_path, config, 1)
    assert loaded is not None and (loaded["w"] == 5).all()


def test_failure_is_told_and_the_next_one_is_written(tmp_path: Path, config: Config) -> None:
    folder = tmp_path / "checkpoints"
    folder.write_text("a file where the folder should be")
    background = CheckpointWriter(folder, config, 1)
    background.save({"step": 1, "next_index": 8})
    background.wait()
    assert background.failure == "the checkpoint of step 1 could not be written: File exists"
    folder.unlink()
    background.save({"step": 2, "next_index": 16})
    background.close()
    assert background.failure is None
    assert load_checkpoint(folder, config, 1) is not None


def test_snapshot_uses_its_memory_again() -> None:
    state = {"a": torch.ones(3), "b": [torch.ones(2, dtype=torch.int64), "text"]}
    snapshot = Snapshot()
    first, _ = snapshot.take(state)
    state["a"].fill_(5.0)  # type: ignore[attr-defined]
    second, _ = snapshot.take(state)
    assert first["a"].data_ptr() == second["a"].data_ptr() != state["a"].data_ptr()  # type: ignore[attr-defined]
    assert second["a"].tolist() == [5.0] * 3 and second["b"][1] == "text"
    assert second["b"][0].dtype == torch.int64


def test_snapshot_keeps_the_order_of_axes_in_memory() -> None:
    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(1))
    weight = weight.to(memory_format=torch.channels_last)
    copy, _ = Snapshot().take({"w": weight})
    assert copy["w"].stride() == weight.stride() and torch.equal(copy["w"], weight)


@pytest.mark.gpu
def test_snapshot_of_a_gpu_is_the_state_when_it_was_taken() -> None:
    """Later work on the same stream, enqueued at once, does not reach it."""
    weights = torch.zeros(50_000_000, device="cuda")
    snapshot = Snapshot()
    for value in (1.0, 2.0, 3.0):
        weights.fill_(value)
        copy, ready = snapshot.take({"w": weights})
        weights.fill_(-1.0)
        assert ready is not None and copy["w"].is_pinned()
        ready.synchronize()
        assert (copy["w"] == value).all()
