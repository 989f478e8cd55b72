"""A compiled network trains as the plain one does, and its checkpoints are the same.

All but the test marked slow leave out the code generator of torch.compile, which takes half a
minute: the network is traced, differentiated and run operation by operation (aot_eager).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support.fake_generator import FakeGenerator, FakeTrainer, tiny_config
from support.processes import one_thread, start
from support.states import assert_same_bits, losses, state_of

from streamtrain.config import Config, ConfigError
from streamtrain.networks.network import build_network
from streamtrain.train.optimiser import build_optimiser, load_state

CALLS: list[bool] = []
"""Whether gradients were wanted, at each call of a compiled network."""


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _dynamo() -> Iterator[None]:
    yield
    torch._dynamo.reset()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Of a run that is not compiled and not interrupted."""
    config = tiny_config(tmp_path_factory.mktemp("plain"), dropout=0.0)
    with one_thread():
        FakeTrainer(config).run()
    return config


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


def assert_learnt_the_same(config: Config, plain: Config) -> None:
    """All losses, and weights by their names."""
    for kind in ("loss", "validation_loss"):
        expected, found = losses(plain, kind), losses(config, kind)
        assert [step for step, _ in found] == [step for step, _ in expected]
        assert [x for _, x in found] == pytest.approx([x for _, x in expected], rel=1e-4)
    first, second = state_of(plain)["network"], state_of(config)["network"]
    assert list(first) == list(second)
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("traced")
def test_every_step_is_compiled_and_no_validation(tmp_path: Path, plain: Config) -> None:
    config = tiny_config(tmp_path, dropout=0.0, compile=True)
    FakeTrainer(config).run()
    assert CALLS == [True] * 12
    assert_learnt_the_same(config, plain)


@pytest.mark.usefixtures("traced")
def test_a_compiled_run_goes_on_without(tmp_path: Path, plain: Config) -> None:
    FakeTrainer(tiny_config(tmp_path, dropout=0.0, compile=True), max_steps=4).run()
    config = tiny_config(tmp_path, dropout=0.0)
    FakeTrainer(config).run()
    assert CALLS == [True] * 4
    assert_learnt_the_same(config, plain)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_with_generated_code(
    tmp_path: Path, plain: Config, ranks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In processes of their own, as torch.compile starts others; also of two ranks."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    training = start(tmp_path / "run", "--dropout", "0", ranks=ranks, train=("compile=true",))
    errors = training.communicate(timeout=600)[1]
    assert training.returncode == 0, errors
    assert_learnt_the_same(tiny_config(tmp_path / "run", dropout=0.0, compile=True), plain)
    assert list((tmp_path / "cache").glob("**/*.cpp"))


def test_determinism_excludes_compilation(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train.compile = true and train.deterministic = true"):
        tiny_config(tmp_path, compile=True, deterministic=True)


def test_a_run_goes_on_with_the_other_memory_layout(tmp_path: Path, plain: Config) -> None:
    """Weights and what the optimiser keeps of them have one layout, which fused updates need."""
    FakeTrainer(tiny_config(tmp_path, dropout=0.0), max_steps=4).run()
    config = tiny_config(tmp_path, dropout=0.0, channels_last=False)
    trainer = FakeTrainer(config)
    trainer.run()
    [weight, *_] = [p for p in trainer.network.parameters() if p.ndim == 4 and p.shape[1] > 1]
    assert weight.is_contiguous()
    assert trainer._optimiser.state[weight]["exp_avg"].stride() == weight.stride()
    assert_learnt_the_same(config, plain)


def test_state_of_an_optimiser_is_loaded_exactly(tmp_path: Path) -> None:
    """Bit for bit, whatever the layout."""
    config = tiny_config(tmp_path)
    generator = FakeGenerator(config)
    with torch.random.fork_rng([]):
        first, second = (
            build_network(
                config.network,
                generator.input_shape,
                generator.label,
                config.observation.input_map,
                channels_last=last,
            )
            for last in (True, False)
        )
        first(torch.ones(2, *generator.input_shape)).square().sum().backward()
    optimisers = [build_optimiser(network, config.train) for network in (first, second)]
    optimisers[0].step()
    load_state(optimisers[1], optimisers[0].state_dict())
    assert_same_bits(optimisers[0].state_dict(), optimisers[1].state_dict())
