"""Networks and heads in the training loop: they learn, continue, and are the same on all ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.fake_generator import FakeGenerator, FakeTrainer, tiny_config
from support.processes import Forked

from streamtrain.config import Config
from streamtrain.generator.generator import GENERATOR_VERSION
from streamtrain.train.checkpoint import load_checkpoint
from streamtrain.train.folder import read_history

CNN = {"kind": "cnn", "layers": 2, "filters": 4, "dense": 8, "kernel": 3, "dropout": 0.0}
COMPACT = {"kind": "compact", "layers": 2, "filters": 4, "dense": 8}


pytestmark = pytest.mark.usefixtures("one_thread")


def weights(config: Config) -> dict[str, torch.Tensor]:
    state = load_checkpoint(Path(config.run) / "checkpoints", config, GENERATOR_VERSION)
    assert state is not None
    network: dict[str, torch.Tensor] = state["network"]
    return network


@pytest.mark.parametrize(
    ("network", "label"),
    [
        ({"head": "log_cosh"}, {}),
        ({"head": "gaussian"}, {}),
        ({"head": "negative_binomial"}, {}),
        ({"head": "joint_counts"}, {}),
        ({"head": "joint_counts"}, {"quantity": "phi", "scale": "linear"}),
        ({"head": "poisson"}, {"quantity": "phi_L", "scale": "linear"}),
        ({"head": "msle"}, {"scale": "linear"}),
        ({"monotonic": True}, {"quantity": "cumulative"}),
        ({"monotonic": True, "head": "gaussian"}, {"quantity": "cumulative", "scale": "linear"}),
    ],
)
def test_every_head_learns(tmp_path: Path, network: dict[str, Any], label: dict[str, Any]) -> None:
    """The amplitude of white noise, which shifts all bins, to half the error of the mean label."""
    config = tiny_config(
        tmp_path, label=label, network=COMPACT | network, steps=150, warmup_steps=20,
        learning_rate=0.02, log_every=50, validate_every=150, validation_samples=64,
        checkpoint_every=150,
    )  # fmt: skip
    result = FakeTrainer(config).run().validation
    assert result is not None
    whole = result.ranges[-1]
    assert whole.rms_dex < 0.5 * whole.baseline_dex


@pytest.mark.parametrize(
    ("head", "optimiser"), [("auto", "sgd"), ("joint_counts", "sgd"), ("joint_counts", "muon")]
)
def test_batch_normalisation_and_momentum_continue_bit_for_bit(
    tmp_path: Path, head: str, optimiser: str
) -> None:
    """The weights of a body and of a head."""
    if optimiser == "muon" and not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon")
    network = CNN | {"dropout": 0.3, "head": head}
    whole, parts = (
        tiny_config(tmp_path / name, network=network, optimiser=optimiser, validate_every=12)
        for name in ("whole", "parts")
    )
    FakeTrainer(whole).run()
    for steps in (5, None):
        FakeTrainer(parts, max_steps=steps).run()
    first, second = weights(whole), weights(parts)
    assert any("running_var" in name for name in first)
    for name in first:
        assert torch.equal(first[name], second[name]), name


def test_validation_uses_the_running_moments(tmp_path: Path) -> None:
    """So a sample's answer does not depend on the others of its batch."""
    config = tiny_config(tmp_path, network=CNN, validation_samples=11, validate_every=12)
    trainer = FakeTrainer(config)
    result = trainer.run().validation
    assert result is not None
    batch = FakeGenerator(config, "validation").generate(range(11))
    trainer.network.eval()
    with torch.no_grad():
        one_by_one = torch.cat([trainer.network(cube[None]) for cube in batch.cube])
    loss = (one_by_one - batch.label).square().mean().item()
    assert result.loss == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("head", ["auto", "joint_counts"])
def test_two_ranks_normalise_over_the_whole_batch(tmp_path: Path, head: str) -> None:
    """Weights and running moments of one rank and of two, each with half of every batch. Gradient
    descent, in which roundings stay as small as they are."""
    settings = {"steps": 8, "validate_every": 8, "optimiser": "sgd", "learning_rate": 0.03}
    words, network = (
        tuple(f"{key}={value}" for key, value in settings.items()),
        CNN | {"head": head},
    )
    trainings = {
        name: Forked(tmp_path / name, "--network", str(network), ranks=ranks, train=words)
        for name, ranks in (("one", 1), ("two", 2))
    }
    found, losses = [], []
    for name, training in trainings.items():
        assert training.finish() == [0] * len(training.ranks), training.errors
        found.append(weights(tiny_config(tmp_path / name, network=network, **settings)))
        history = read_history(tmp_path / name / "history.jsonl")
        losses += [e["validation_loss"] for e in history if "validation_loss" in e]
    for key, weight in found[0].items():
        torch.testing.assert_close(found[1][key], weight, rtol=1e-4, atol=1e-5, msg=key)
    assert len(losses) == 2
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
