"""A compiled network trains as the plain one does, and its checkpoints are the same.

All but the test marked slow leave out the code generator of torch.compile, which takes half a
minute: the network is traced, differentiated and run operation by operation (aot_eager).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from fake_generator import FakeGenerator, tiny_config
from states import assert_same_bits, losses, state_of

import streamtrain.train.trainer
from streamtrain.config import Config, ConfigError
from streamtrain.models import build_network
from streamtrain.train import Trainer
from streamtrain.train.optimiser import build_optimiser, load_state


def train_losses(config: Config) -> list[float]:
    return [loss for _, loss in losses(config)]


CALLS: list[bool] = []
"""Whether gradients were wanted, at each call of a compiled network."""


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(streamtrain.train.trainer, "Generator", FakeGenerator)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch._dynamo.reset()


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile without generating code, and note each call."""
    CALLS.clear()
    usual = torch.compile

    def noting(network: torch.nn.Module, **options: object) -> torch.nn.Module:
        model = usual(network, backend="aot_eager", **options)
        model.register_forward_pre_hook(lambda *_: CALLS.append(torch.is_grad_enabled()))
        return model

    monkeypatch.setattr(torch, "compile", noting)


@pytest.mark.usefixtures("traced")
def test_checkpoints_of_compiled_and_plain_networks_are_the_same(tmp_path: Path) -> None:
    """Names, shapes and, with the same operations, values; every step of training is compiled and
    no validation."""
    plain, fast = (partial(tiny_config, tmp_path / name, dropout=0.0) for name in ("a", "b"))
    Trainer(plain(), "cpu").run()
    assert CALLS == []
    Trainer(fast(compile=True), "cpu").run()
    assert CALLS == [True] * 12
    first, second = state_of(plain()), state_of(fast())
    assert list(first["network"]) == list(second["network"])
    for name, value in first["network"].items():
        torch.testing.assert_close(second["network"][name], value, rtol=1e-4, atol=1e-5)
    expected = [loss for _, loss in losses(plain(), "validation_loss")]
    found = [loss for _, loss in losses(fast(), "validation_loss")]
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.usefixtures("traced")
def test_a_run_goes_on_compiled_and_back(tmp_path: Path) -> None:
    config = partial(tiny_config, tmp_path, dropout=0.0)
    for steps, compile_ in ((4, False), (4, True), (None, False)):
        Trainer(config(compile=compile_), "cpu", steps).run()
    assert len(CALLS) == 4
    assert state_of(config())["step"] == 12
    whole = tiny_config(tmp_path / "whole", dropout=0.0)
    Trainer(whole, "cpu").run()
    assert train_losses(config()) == pytest.approx(train_losses(whole), rel=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_with_generated_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    configs = [tiny_config(tmp_path / "a", dropout=0.0)]
    configs.append(tiny_config(tmp_path / "b", dropout=0.0, compile=True))
    for config in configs:
        Trainer(config, "cpu").run()
    assert train_losses(configs[1]) == pytest.approx(train_losses(configs[0]), rel=1e-4)
    assert list((tmp_path / "cache").glob("**/*.cpp"))


def test_determinism_excludes_compilation(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train.compile = true and train.deterministic = true"):
        tiny_config(tmp_path, compile=True, deterministic=True)


def test_a_run_goes_on_with_the_other_memory_layout(tmp_path: Path) -> None:
    """Weights and what the optimiser keeps of them have one layout, which fused updates need."""
    config = partial(tiny_config, tmp_path, dropout=0.0)
    Trainer(config(), "cpu", 4).run()
    trainer = Trainer(config(channels_last=False), "cpu", 4)
    trainer.run()
    [weight, *_] = [p for p in trainer.network.parameters() if p.ndim == 4 and p.shape[1] > 1]
    assert weight.is_contiguous()
    assert trainer._optimiser.state[weight]["exp_avg"].stride() == weight.stride()
    Trainer(config(), "cpu").run()
    whole = tiny_config(tmp_path / "whole", dropout=0.0)
    Trainer(whole, "cpu").run()
    assert train_losses(config()) == pytest.approx(train_losses(whole), rel=1e-4)


def test_state_of_an_optimiser_is_loaded_exactly(tmp_path: Path) -> None:
    """Bit for bit, whatever the layout."""
    config, generator = tiny_config(tmp_path), FakeGenerator(tiny_config(tmp_path))
    shape, label = generator.input_shape, generator.label
    first, second = (
        build_network(config.network, shape, label, channels_last=last) for last in (True, False)
    )
    optimisers = [build_optimiser(network, config.train) for network in (first, second)]
    torch.nn.Sequential(first)(torch.ones(2, *shape)).square().sum().backward()
    optimisers[0].step()
    load_state(optimisers[1], optimisers[0].state_dict())
    assert_same_bits(optimisers[0].state_dict(), optimisers[1].state_dict())
