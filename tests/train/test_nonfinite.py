"""Losses that are not finite: no trace in the weights, a list of the samples, and an end to it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from support.fake_generator import tiny_config
from support.processes import Forked
from support.states import assert_same_bits, losses, state_of
from torch import Tensor, nn

from streamtrain.config import Config
from streamtrain.train.folder import read_history
from streamtrain.train.nonfinite import FILE, Guard
from streamtrain.train.optimiser import MuonWithAdamW


def train(folder: Path, *bad: int, ranks: int = 1, **settings: object) -> tuple[Config, Forked]:
    """A training in which these samples are not finite."""
    given = {"validate_every": 100, "log_every": 1, **settings}
    words = tuple(f"{key}={value}" for key, value in given.items())
    arguments = ("--dropout", "0", "--bad", *map(str, bad))
    return tiny_config(folder, dropout=0.0, **given), Forked(
        folder, *arguments, ranks=ranks, train=words
    )


def test_a_step_that_is_not_finite_changes_nothing_and_is_listed(tmp_path: Path) -> None:
    """Sample 43 is in step 6, the last one here."""
    config, training = train(tmp_path / "bad", 43, steps=6, checkpoint_every=1, log_every=4)
    assert training.finish() == [0], training.errors
    folder = tmp_path / "bad" / "checkpoints"
    before, after = (
        torch.load(folder / f"step_{step:09d}" / "state.pt", weights_only=True) for step in (5, 6)
    )
    assert (before["step"], after["step"], after["next_index"]) == (5, 6, 48)
    for part in ("network", "optimiser"):
        for state in (before, after):  # the rate of the step that was skipped
            for group in state[part].get("param_groups", []):
                del group["lr"]
        assert_same_bits(before[part], after[part])
    assert after["skipped_in_a_row"] == 1
    (entry,) = read_history(tmp_path / "bad" / FILE)
    assert entry == {"step": 6, "indices": list(range(40, 48))}
    assert "step 6 is skipped, its loss or gradient is not finite: samples 40 to 47" in (
        training.errors
    )
    assert math.isfinite(losses(config)[-1][1])


@pytest.mark.parametrize("ranks", [1, 2])
def test_training_goes_on_after_it(tmp_path: Path, ranks: int) -> None:
    """With two ranks sample 43 reaches the first one only, and both skip."""
    config, training = train(tmp_path, 43, ranks=ranks)
    assert training.finish() == [0] * ranks, training.errors
    state = state_of(config)
    assert all(value.isfinite().all() for value in state["network"].values())
    assert {float(s["step"]) for s in state["optimiser"]["state"].values()} == {11.0}
    assert [step for step, _ in losses(config)] == [1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12]
    assert state["skipped_in_a_row"] == 0


def test_too_many_in_a_row_stop_with_a_sentence(tmp_path: Path) -> None:
    config, training = train(tmp_path, *range(32, 96, 8), max_nonfinite=3, log_every=2)
    assert training.finish() == [1]
    assert training.errors.splitlines()[-1] == (
        "streamtrain: the loss or its gradient was not finite in 4 steps in a row, up to step 8 "
        f"(train.max_nonfinite = 3): their samples are listed in {tmp_path / FILE} (streamtrain "
        f"preview {tmp_path}/config.yaml --index 56 shows the first of the last); the last "
        "checkpoint is intact: try a lower train.learning_rate than 0.003"
    )
    assert [entry["step"] for entry in read_history(tmp_path / FILE)] == [5, 6, 7, 8]
    assert state_of(config)["step"] == 4


def test_the_first_one_stops_where_none_is_allowed(tmp_path: Path) -> None:
    config, training = train(tmp_path, 43, max_nonfinite=0)
    assert training.finish() == [1]
    assert "not finite in 1 steps in a row, up to step 6" in training.errors
    assert state_of(config)["step"] == 4


def test_the_count_goes_on_in_a_run_that_is_continued(tmp_path: Path) -> None:
    """Steps 7 to 10 are bad, three in a row are allowed, and it was killed after the second."""
    bad = ("--dropout", "0", "--bad", *map(str, range(48, 80, 8)))
    words = ("validate_every=100", "max_nonfinite=3")
    Forked(tmp_path, *bad, "--kill-at", "9", train=words).finish()
    config = tiny_config(tmp_path, dropout=0.0, validate_every=100, max_nonfinite=3)
    state = state_of(config)
    assert (state["step"], state["skipped_in_a_row"]) == (8, 2)
    again = Forked(tmp_path, *bad, train=words)
    assert again.finish() == [1]
    assert "not finite in 4 steps in a row, up to step 10" in again.errors
    assert [entry["step"] for entry in read_history(tmp_path / FILE)] == [7, 8, 9, 10]


@pytest.fixture(autouse=True)
def _keep_random_state() -> Iterator[None]:
    """Networks are made with torch's own generator."""
    with torch.random.fork_rng(devices=[]):
        yield


def _muon(parameters: Iterator[nn.Parameter]) -> MuonWithAdamW:
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon")
    first, *others = parameters
    return MuonWithAdamW([first], [{"params": others}], 0.1, 0.0)


OPTIMISERS = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, fused=True),
    "muon": _muon,
}


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize("first", [True, False])
def test_device_skips_as_the_host_does(name: str, first: bool) -> None:
    """The same bits of weights, moments and running means, on a network with batch normalisation
    whose first or third input is not finite, and as if that input had not been there."""

    def trained(waits: bool, bad: int | None) -> tuple[dict[str, Tensor], list[Tensor]]:
        generator = torch.Generator().manual_seed(3)
        network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        optimiser = OPTIMISERS[name](network.parameters())
        guard = Guard(network, optimiser, torch.device("cpu"), allowed=5, every=9)
        guard._waits = waits
        for step in range(5):
            x = torch.randn(6, 3, generator=generator)
            if bad is None and step == where:
                continue
            if step == bad:
                x[2, 1] = torch.inf
            guard.begin()
            guard.tied(network(x).square().mean()).backward()
            norm = nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            assert bool(guard.update(norm)) == (step != bad)
            optimiser.zero_grad()
        assert guard.read().steps == ([] if bad is None else [bad])
        moments = [v for state in optimiser.state.values() for v in state.values()]
        return network.state_dict(), moments

    where = 0 if first else 2
    expected = trained(True, None)
    for waits in (True, False):
        weights, moments = trained(waits, where)
        assert_same_bits(weights, expected[0])
        for value, wanted in zip(moments, expected[1], strict=True):
            assert torch.equal(value, wanted)


@pytest.mark.gpu
@pytest.mark.parametrize("name", OPTIMISERS)
def test_gpu_skips_without_waiting(
    name: str, host_never_waits: Callable[[], AbstractContextManager[None]]
) -> None:
    """Weights and moments before and after a step whose gradient is not finite."""
    network = nn.Linear(64, 64).cuda()
    optimiser = OPTIMISERS[name](network.parameters())
    guard = Guard(network, optimiser, torch.device("cuda"), allowed=5, every=9)
    x = torch.ones(4, 64, device="cuda")

    def step(factor: float) -> None:
        guard.begin()
        guard.tied((network(x) * factor).square().mean()).backward()
        guard.update(nn.utils.clip_grad_norm_(network.parameters(), 1.0))
        optimiser.zero_grad()

    step(1.0)
    moments = optimiser.state[network.weight]
    before = [value.clone() for value in (*network.parameters(), *moments.values())]
    with host_never_waits():
        step(math.nan)
    after = [*network.parameters(), *moments.values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert guard.read().steps == [1]


def test_nothing_is_updated_from_the_stop_on() -> None:
    """Also before the host has read that there is one."""
    network = nn.Linear(2, 1)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    guard = Guard(network, optimiser, torch.device("cpu"), allowed=1, every=9)
    done = [bool(guard.update(torch.tensor(norm))) for norm in (1.0, math.nan, 1.0, math.inf)]
    assert done == [True, False, True, False]
    assert [bool(guard.update(torch.tensor(norm))) for norm in (math.nan, 1.0)] == [False, False]
    found = guard.read()
    assert (found.steps, found.in_a_row, found.stop) == ([1, 3, 4], 2, True)


def test_loss_that_overflows_with_a_finite_gradient_counts() -> None:
    """Its gradient becomes NaN, which every rank sees in the average."""
    weight = torch.tensor(1e20, requires_grad=True)
    optimiser = torch.optim.SGD([weight])
    guard = Guard(nn.Identity(), optimiser, torch.device("cpu"), allowed=1, every=1)
    loss = weight * weight
    assert loss.isinf()
    guard.tied(loss).backward()
    assert weight.grad is not None and weight.grad.isnan()
    weight.grad = None
    guard.tied(weight * 3.0).backward()
    assert weight.grad == 3.0
