"""Checkpoints of the tests' trainings, and whether two are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from streamtrain.config import Config
from streamtrain.generator.generator import GENERATOR_VERSION
from streamtrain.train.checkpoint import load_checkpoint
from streamtrain.train.folder import read_history


def state_of(config: Config) -> dict[str, Any]:
    """The newest intact checkpoint of a run."""
    state = load_checkpoint(Path(config.run) / "checkpoints", config, GENERATOR_VERSION)
    assert state is not None
    return state


def losses(config: Config, kind: str = "loss") -> list[tuple[int, float]]:
    """(step, loss) of the history of a run."""
    history = read_history(Path(config.run) / "history.jsonl")
    return [(entry["step"], entry[kind]) for entry in history if kind in entry]


def assert_same_bits(first: Any, second: Any, where: str = "") -> None:
    """Of nested states."""
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_same_bits(first[key], second[key], f"{where}.{key}")
    else:
        assert first == second, where
