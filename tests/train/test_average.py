"""The average of the weights: its definition, and what judges the network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.fake_generator import FakeGenerator, FakeTrainer, tiny_config
from support.states import assert_same_bits, state_of
from torch import nn

from streamtrain.config import ConfigError
from streamtrain.train.optimiser import ExponentialMovingAverage


def weights(value: float) -> nn.Module:
    network = nn.Module()
    network.w = nn.Parameter(torch.full((3,), value))
    return network


def test_it_is_the_exponential_average() -> None:
    """By hand, with the decay of a long run from step 80 on: (1 + 80) / (10 + 80) = 0.9."""
    network, expected = weights(2.0), 2.0
    average = ExponentialMovingAverage(network, 0.9)
    for step in range(100):
        network.w.data.fill_(step)
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert average.state_dict()["w"][0].item() == pytest.approx(expected, rel=1e-5)
    with average.installed():
        assert network.w[0].item() == pytest.approx(expected, rel=1e-5)
    assert network.w[0].item() == 99.0


def test_own_weights_come_back_after_an_error() -> None:
    network = weights(1.0)
    average = ExponentialMovingAverage(network, 0.5)
    network.w.data.fill_(7.0)
    with pytest.raises(ValueError), average.installed():
        assert network.w[0].item() == 1.0
        raise ValueError
    assert network.w[0].item() == 7.0


def test_validation_judges_the_average(tmp_path: Path) -> None:
    """And training is the same with and without it, bit for bit."""
    config = tiny_config(tmp_path / "with", validate_every=100, ema=0.5, learning_rate=0.05)
    trainer = FakeTrainer(config)
    result = trainer.run().validation
    assert result is not None
    state = state_of(config)
    trainer.network.load_state_dict(state["network"] | state["average"])
    batch = FakeGenerator(config, "validation").generate(range(10))
    with torch.no_grad():
        error = trainer.network.eval()(batch.cube) - batch.label
    assert result.loss == pytest.approx(error.square().mean().item(), rel=1e-5)
    plain = tiny_config(tmp_path / "without", validate_every=100, learning_rate=0.05)
    other = FakeTrainer(plain).run().validation
    assert other is not None and other.loss != pytest.approx(result.loss, rel=1e-3)
    assert_same_bits(state_of(plain)["network"], state["network"])
    assert "average" not in state_of(plain)


def test_decay_of_one_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"train\.ema = 1 would never leave the first weights"):
        tiny_config("unused", ema=1.0)
