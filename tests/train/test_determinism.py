"""train.deterministic: what torch may do, and with how many threads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from support.fake_generator import FakeGenerator, FakeTrainer, tiny_config
from support.states import assert_same_bits, state_of

import streamtrain.train.trainer
from streamtrain.generator.generator import Batch
from streamtrain.train.torch_state import WORKSPACE, TorchState, refuse_random_order
from streamtrain.train.trainer import TrainingError


class Observer(FakeGenerator):
    """Notes how torch is set while training samples are made."""

    seen: list[dict[str, Any]]

    def generate(self, indices: Sequence[int]) -> Batch:
        if self.split == "validation":  # made in the thread that trains
            self.seen.append(
                {
                    "algorithms": torch.are_deterministic_algorithms_enabled(),
                    "benchmark": torch.backends.cudnn.benchmark,
                    "workspace": os.environ.get(WORKSPACE),
                    "threads": torch.get_num_threads(),
                }
            )
        return super().generate(indices)


def test_bits_do_not_depend_on_what_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Observer, "seen", [], raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    states = []
    for threads in ("1", "2"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        config = tiny_config(tmp_path / threads, deterministic=True, validate_every=100)
        FakeTrainer(config, generator=Observer).run()
        states.append(state_of(config))
    assert_same_bits(*states)
    wanted = {"algorithms": True, "benchmark": False, "workspace": ":4096:8", "threads": 3}
    assert Observer.seen and all(seen == wanted for seen in Observer.seen)


def test_workspace_that_is_deterministic_already_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for before, meanwhile in ((":16:8", ":16:8"), (":0:0", ":4096:8")):
        monkeypatch.setenv(WORKSPACE, before)
        with TorchState(torch.device("cpu"), 1, 2, deterministic=True):
            assert os.environ[WORKSPACE] == meanwhile
        assert os.environ[WORKSPACE] == before


def test_operation_without_a_deterministic_algorithm_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Random(FakeGenerator):
        def generate(self, indices: Sequence[int]) -> Batch:
            if self.split == "train" and 24 in indices and len(indices) == 8:
                torch.zeros(3).put_(torch.tensor([1, 1]), torch.ones(2))
            return super().generate(indices)

    monkeypatch.setattr(streamtrain.train.trainer, "set_normalisation", lambda *_, **__: None)
    config = tiny_config(tmp_path / "one", deterministic=True)
    sentence = r"^train\.deterministic: put_ does not have a deterministic .*; set it to false$"
    with pytest.raises(TrainingError, match=sentence):
        FakeTrainer(config, generator=Random).run()
    assert state_of(config)["step"] == 3
    FakeTrainer(tiny_config(tmp_path / "two", validate_every=100), generator=Random).run()


class Scattering(torch.nn.Module):
    """Torch has no deterministic algorithm for its output, if it scatters."""

    def __init__(self, scatters: bool) -> None:
        super().__init__()
        self.scatters = scatters
        self.body = torch.nn.Sequential(torch.nn.BatchNorm2d(2), torch.nn.Dropout(0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.body(x)
        if self.scatters:
            y = y.put(torch.tensor([1, 1]), torch.ones(2))
        return y


def test_network_without_a_deterministic_algorithm_is_refused(tmp_path: Path) -> None:
    """Before anything is made of it, and only if it must be deterministic."""
    sentence = (
        r"^train\.deterministic = true: put_ does not have .*implementation in torch .* on cpu;"
    )
    with pytest.raises(ValueError, match=sentence):
        FakeTrainer(
            tiny_config(tmp_path / "one", deterministic=True), network=Scattering(scatters=True)
        )
    assert not (tmp_path / "one").exists()
    FakeTrainer(tiny_config(tmp_path / "two"), network=Scattering(scatters=True))


def test_asking_a_network_changes_nothing() -> None:
    network = Scattering(scatters=False)
    before = [v.clone() for v in network.state_dict().values()]
    random = torch.get_rng_state()
    refuse_random_order(network, (2, 3, 3), torch.device("cpu"))
    assert all(map(torch.equal, before, network.state_dict().values()))
    assert torch.equal(random, torch.get_rng_state())
    assert network.training and all(p.grad is None for p in network.parameters())
