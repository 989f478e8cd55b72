"""The options of a training step that are timed are what they say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support import small

from streamtrain.bench import training
from streamtrain.bench.training import USUAL, best_option, build, report_options, training_options
from streamtrain.config import Config
from streamtrain.generator.generator import Generator
from streamtrain.networks.network import Network
from streamtrain.networks.settings import CNNConfig, ResNetConfig

NETWORK = CNNConfig(layers=2, kernel=3, filters=2, dense=8)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    small.lightcone(num=500).save(tmp_path / "sky.h5")
    data, label = {"train": [str(tmp_path / "sky.h5")]}, {"bins": 5}
    return small.config(data=data, label=label, train={"batch_size": 4})


@pytest.fixture(autouse=True)
def _random() -> Iterator[None]:
    with torch.random.fork_rng([]):
        yield


@pytest.mark.parametrize("option", [o for o, of in training.OPTIONS.items() if not of[3]])
def test_options(config: Config, option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Precision of the convolutions, memory layout, fused updates; and the step is a step."""
    generator = Generator(config, "train", "cpu", 1)
    seen: dict[str, Any] = {}
    usual = training.build_optimiser

    def noting(network: Network, *more: Any) -> torch.optim.Optimizer:
        seen["network"], seen["optimiser"] = network, usual(network, *more)
        convolution = next(m for m in network.modules() if isinstance(m, torch.nn.Conv2d))
        convolution.register_forward_hook(lambda m, x, y: seen.update(output=y))
        return seen["optimiser"]

    monkeypatch.setattr(training, "build_optimiser", noting)
    step = build(generator, NETWORK, config.train, option)
    before = [p.detach().clone() for p in seen["network"].parameters()]
    step(generator.generate(range(4)))
    pairs = zip(before, seen["network"].parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)
    output, last = seen["output"], "channels first" not in option
    assert output.dtype == (torch.bfloat16 if "bfloat16" in option else torch.float32)
    assert output.is_contiguous(memory_format=torch.channels_last) == last
    assert seen["optimiser"].param_groups[0]["fused"] == ("not fused" not in option)


def test_table(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = {k: v for k, v in training.OPTIONS.items() if not v[3]}
    monkeypatch.setattr(training, "OPTIONS", plain)
    monkeypatch.setattr(training, "networks", lambda *_: {"tiny": NETWORK})
    found = training_options(config, "cpu", 0.0)
    assert found.keys() == {"tiny"} and found["tiny"].keys() == plain.keys()
    assert any(line.startswith("what pays: ") for line in report_options(found))


def test_both_dimensions_are_timed(config: Config) -> None:
    kinds = list(training.networks(config, torch.device("cuda")).values())
    assert any(isinstance(n, CNNConfig) and n.dimensions == 2 for n in kinds)
    assert ResNetConfig() in kinds  # as published
    on_cpu = training.networks(config, torch.device("cpu")).values()
    assert any(isinstance(n, ResNetConfig) and n.filters == 8 for n in on_cpu)


def test_two_per_cent_is_nothing() -> None:
    assert best_option({USUAL: 100.0, "bfloat16": 99.0}) == (USUAL, 1.0)
    assert best_option({USUAL: 100.0, "bfloat16": 50.0, "compiled": 80.0}) == ("bfloat16", 2.0)
