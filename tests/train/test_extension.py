"""Runs that get more steps, and runs that begin with another run's weights."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from support.fake_generator import FakeGenerator, FakeTrainer, tiny_config
from support.states import assert_same_bits

from streamtrain.config import Config, from_mapping, load_config
from streamtrain.generator.generator import GENERATOR_VERSION, Batch
from streamtrain.train.checkpoint import CheckpointError, load_checkpoint, newest
from streamtrain.train.monitor import Monitor
from streamtrain.train.optimiser import learning_rate
from streamtrain.train.settings import ExtensionConfig, TrainConfig
from streamtrain.train.start import SMALLEST_RATE, continued
from streamtrain.train.validation import Summary

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Monitor, "_draw", lambda *_: None)  # which takes longer than the steps


def run(
    config: Config, max_steps: int | None = None, generator: type[FakeGenerator] = FakeGenerator
) -> Summary:
    return FakeTrainer(config, max_steps=max_steps, generator=generator).run()


def state(folder: Path) -> dict[str, Any]:
    found = newest(folder / "checkpoints")
    assert found is not None
    return found.state


def train_of(*extensions: tuple[int, int, int, str], **more: Any) -> TrainConfig:
    """A schedule of 100 steps that was changed: at, from, to, how."""
    told = tuple(ExtensionConfig(*e) for e in extensions)  # type: ignore[arg-type]
    given = {"steps": told[-1].to_steps, "warmup_steps": 10, "learning_rate": 1.0}
    return TrainConfig(**(given | {"extensions": told} | more))


def test_constant_stays_and_cosine_falls_from_where_it_was() -> None:
    before = TrainConfig(steps=100, warmup_steps=10, learning_rate=1.0)
    present = learning_rate(69, before)
    assert 0.2 < present < 0.3
    for schedule in ("constant", "cosine", "rewarm"):
        train = train_of((70, 100, 200, schedule))
        rates = [learning_rate(step, train) for step in range(200)]
        assert rates[:70] == [learning_rate(step, before) for step in range(70)]
        if schedule == "constant":
            assert rates[70:] == [present] * 130
        if schedule == "cosine":
            assert rates[70] == present
            assert rates[70 + 65] == pytest.approx(present / 2)
            assert 0 < rates[-1] < 1e-3 * present
        if schedule == "rewarm":
            climb = [present + (1 - present) * k / 10 for k in range(1, 11)]
            assert rates[70:80] == pytest.approx(climb)
            assert rates[80 + 60] == pytest.approx(0.5)
            assert 0 < rates[-1] < 1e-3


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_the_learning_rate_never_jumps(schedule: Any) -> None:
    """By at most a tenth of the highest from step to step: the slope of a warm-up of 10 steps."""
    kinds, places = ("constant", "cosine", "rewarm"), [(3, 7), (9, 10), (40, 41), (99, 140)]
    for first, second, at in product(kinds, kinds, [*places, (100, 160)]):
        train = train_of((at[0], 100, 180, first), (at[1], 180, 300, second), schedule=schedule)
        rates = [learning_rate(step, train) for step in range(300)]
        assert max(abs(a - b) for a, b in pairwise(rates)) < 0.1 + 1e-12
        assert all(0 < rate < 1 + 1e-12 for rate in rates)


def test_warm_up_is_a_tenth_of_a_short_run() -> None:
    assert [TrainConfig(steps=n).warmup for n in (1, 9, 50, 999, 1000, 20000)] == [
        0, 0, 5, 99, 100, 100,
    ]  # fmt: skip
    assert (
        TrainConfig(steps=2000, extensions=(ExtensionConfig(9, 500, 2000, "cosine"),)).warmup == 50
    )


def test_extended_run_is_bit_equal_to_itself_however_it_is_interrupted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tiny_config(tmp_path / "whole"))
    for copy in ("parts", "damaged"):
        shutil.copytree(tmp_path / "whole", tmp_path / copy)
    longer = {"steps": 20, "extend": "cosine"}
    summary = run(tiny_config(tmp_path / "whole", **longer))
    told = (ExtensionConfig(12, 12, 20, "cosine"),)
    assert (summary.step, summary.extensions) == (20, told)
    said = capsys.readouterr().err
    assert "extended at step 12: 20 steps instead of 12; the learning rate falls from" in said

    for steps in (1, 4, None):  # by the same command, and from the folder alone
        run(tiny_config(tmp_path / "parts", **longer), steps)
        assert load_config(tmp_path / "parts").train.extensions == told
    assert_same_bits(state(tmp_path / "whole"), state(tmp_path / "parts"))

    checkpoints = tmp_path / "damaged" / "checkpoints"
    shutil.copytree(checkpoints / "step_000000008", tmp_path / "kept")
    run(tiny_config(tmp_path / "damaged", **longer), 1)
    shutil.rmtree(checkpoints)
    shutil.copytree(tmp_path / "kept", checkpoints / "step_000000008")
    assert run(load_config(tmp_path / "damaged")).extensions == told
    assert_same_bits(state(tmp_path / "whole"), state(tmp_path / "damaged"))

    again = run(load_config(tmp_path / "whole", ["train.steps=24", "train.extend=rewarm"]))
    assert again.extensions == (*told, ExtensionConfig(20, 20, 24, "rewarm"))
    record = yaml.safe_load((tmp_path / "whole" / "config.yaml").read_text())["train"]
    assert [e["at"] for e in record["extensions"]] == [12, 20]
    with pytest.raises(CheckpointError, match=r"12 here, but .* has been trained 24 steps"):
        run(tiny_config(tmp_path / "whole"))
    anew = run(load_config(tmp_path / "whole", [f"run={tmp_path / 'anew'}"]), 1)
    assert anew.extensions == ()  # those of another run are none of this one


def went_on(saved: dict[str, Any], step: int, folder: Path, **train: Any) -> TrainConfig:
    """What a run of `saved` goes on with at a step."""
    old = tiny_config(folder, **({"steps": 1000, "warmup_steps": 100} | saved))
    given = {"steps": 1000, "warmup_steps": 100} | saved | train
    plain = yaml.safe_load(old.to_yaml())
    return continued(tiny_config(folder, **given), plain, step, folder).train


@pytest.mark.parametrize(
    ("saved", "step", "train", "sentence"),
    [
        ({}, 500, {"steps": 500}, "1000 there, 500 here, but .* has been trained 500 steps"),
        ({}, 500, {"steps": 2000}, "say how the learning rate .* goes on: train.extend=constant"),
        ({}, 500, {"steps": 800}, "say how the learning rate .* goes on: .*train.start_from="),
        ({}, 1000, {"steps": 2000}, r"is 9.14e-09 at step 1000, .* nothing: use train"),
        ({}, 1000, {"steps": 2000, "extend": "cosine"}, "teach nothing: use train.extend=rewarm"),
        ({}, 1000, {"steps": 2000, "extend": "constant"}, "teach nothing: use train.extend=re"),
        (
            {"steps": 2000, "extend": "rewarm", "extensions": [
                {"at": 400, "from_steps": 1000, "to_steps": 2000, "schedule": "rewarm"}]},
            500, {"extend": "cosine"}, "rewarm there, cosine here: .* goes on so from step",
        ),
    ],
)  # fmt: skip
def test_steps_that_a_run_cannot_go_on_with(
    tmp_path: Path, saved: dict[str, Any], step: int, train: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(CheckpointError, match=sentence):
        went_on(saved, step, tmp_path, **train)


def test_steps_that_a_run_goes_on_with(tmp_path: Path) -> None:
    same = went_on({}, 500, tmp_path, extend="cosine")
    assert (same.extensions, same.extend) == ((), "cosine")
    constant = went_on({"schedule": "constant"}, 500, tmp_path, steps=2000)
    assert constant.extensions == (ExtensionConfig(500, 1000, 2000, "constant"),)
    assert learning_rate(1999, constant) == constant.learning_rate
    sooner = went_on({}, 500, tmp_path, steps=700, extend="cosine")
    assert sooner.extensions == (ExtensionConfig(500, 1000, 700, "cosine"),)
    late = went_on({}, 900, tmp_path, steps=2000, extend="cosine")
    assert learning_rate(900, late) > SMALLEST_RATE * late.learning_rate


def test_a_run_made_before_the_warm_up_had_a_default_of_its_own(tmp_path: Path) -> None:
    """Every run had 100 steps unless it said otherwise, short ones too."""
    plain = yaml.safe_load(tiny_config(tmp_path, steps=500, warmup_steps=100).to_yaml())
    for name in ("extend", "extensions", "start_from", "started_from"):
        del plain["train"][name]
    silent = continued(tiny_config(tmp_path, steps=500, warmup_steps=None), plain, 300, tmp_path)
    assert silent.train.warmup == 100
    said = continued(tiny_config(tmp_path, steps=500, warmup_steps=30), plain, 300, tmp_path)
    assert said.train.warmup == 30  # which is then told from 100 as any other setting


def test_the_default_warm_up_may_be_said(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, steps=30, warmup_steps=None)
    run(config, 4)
    assert run(tiny_config(tmp_path, steps=30, warmup_steps=3), 1).step == 5
    with pytest.raises(CheckpointError, match=r"train\.warmup_steps = null there, 4 here"):
        run(tiny_config(tmp_path, steps=30, warmup_steps=4), 1)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found = state(folder)
    return found["network"] | found.get("average", {})


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_run_begins_with_the_weights_of_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ema: float
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    run(tiny_config(old, ema=ema, steps=8))
    tuned = tiny_config(new, start_from=str(old), steps=6, learning_rate=1e-4, batch_size=4)
    trainer = FakeTrainer(tuned, max_steps=3)
    assert_same_bits(weights(old), dict(trainer.network.state_dict()))
    trainer.run()
    said = capsys.readouterr().err
    which = "the average of the weights" if ema else "the weights"
    assert f"begins with {which} of {old} after step 8" in said
    found = newest(old / "checkpoints")
    assert found is not None
    record = load_config(new).train.started_from
    assert record is not None
    assert (record.run, record.step, record.averaged) == (str(old), 8, bool(ema))
    assert record.digest == found.manifest["digest"]
    one, other = state(old), state(new)
    assert (other["step"], other["next_index"]) == (3, 12)
    assert float(next(iter(other["optimiser"]["state"].values()))["step"]) == 3
    for moments in ("input_mean", "input_std"):
        assert torch.equal(other["network"][moments], one["network"][moments])

    shutil.rmtree(old)
    run(tuned)  # resuming needs the other run no more
    assert load_config(new).train.started_from == record
    assert state(new)["step"] == 6


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"start_from": "{tmp}/nowhere"}, "there is no run '.*nowhere'"),
        ({"start_from": "{tmp}/empty"}, "has no checkpoint; train it first"),
        ({"start_from": "{tmp}/new"}, "is the run itself"),
        ({"label": {"quantity": "phi"}}, "label.quantity = .counts. there, .phi. here"),
        ({"dropout": 0.2}, "network.dropout = 0.1 there, 0.2 here"),
    ],
)
def test_weights_that_a_run_cannot_begin_with(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    run(tiny_config(tmp_path / "old", steps=3), 1)
    for name in ("empty", "new"):
        (tmp_path / name).mkdir()
    given = {"start_from": "{tmp}/old"} | changes
    given["start_from"] = given["start_from"].format(tmp=tmp_path)
    with pytest.raises(ValueError, match=sentence):
        FakeTrainer(tiny_config(tmp_path / "new", **given))
    assert not list((tmp_path / "new").iterdir())


def test_a_cube_with_more_room_takes_the_same_weights(tmp_path: Path) -> None:
    """Of a network that sees boxes; a field of another size it refuses."""
    run(tiny_config(tmp_path / "old", steps=3), 1)
    config = tiny_config(tmp_path / "new", start_from=str(tmp_path / "old"))
    assert config.network.kind == "hybrid"
    roomy = replace(config, grid=replace(config.grid, brightest_Lsun=1e12))
    network = FakeTrainer(roomy).network
    assert_same_bits(weights(tmp_path / "old"), dict(network.state_dict()))
    other = replace(config, grid=replace(config.grid, fov_deg=(1.0, 1.0)))
    with pytest.raises(ValueError, match=r"grid\.fov_deg"):
        FakeTrainer(other)


class Larger(FakeGenerator):
    input_shape = (2, 16, 16)


def test_weights_for_maps_of_another_shape_are_refused(tmp_path: Path) -> None:
    means: dict[str, object] = {"kind": "means", "layers": 2}
    run(tiny_config(tmp_path / "old", network=means, steps=3), 1)
    config = tiny_config(tmp_path / "new", network=means, start_from=str(tmp_path / "old"))
    with pytest.raises(ValueError, match="maps of 2 x 8 x 8 voxels, here they have 2 x 16 x 16"):
        FakeTrainer(config, generator=Larger)


def test_refusal_of_other_settings_names_a_new_run_that_begins_with_these_weights(
    tmp_path: Path,
) -> None:
    config = tiny_config(tmp_path, steps=3)
    run(config, 1)
    with pytest.raises(CheckpointError, match=r"16 here; .*\(train\.start_from=.*\), or remove"):
        run(tiny_config(tmp_path, steps=3, batch_size=16))
    other = replace(config, network=replace(config.network, filters=5))
    with pytest.raises(CheckpointError, match=r"folder \(run=\.\.\.\), or remove that one"):
        load_checkpoint(tmp_path / "checkpoints", other, GENERATOR_VERSION)


class Alike(FakeGenerator):
    """All samples have the label of the first."""

    def generate(self, indices: Sequence[int]) -> Batch:
        batch = super().generate(indices)
        batch.label[:] = super().generate([0]).label
        return batch


@pytest.mark.parametrize("quantity", ["counts", "class"])
def test_labels_that_are_all_alike_are_refused_before_training(
    tmp_path: Path, quantity: str
) -> None:
    config = tiny_config(tmp_path, label={"quantity": quantity})
    with pytest.raises(ValueError, match="first 128 training samples all have the same label"):
        run(config, generator=Alike)
    assert not list(tmp_path.glob("checkpoints/*"))


def test_nothing_is_made_for_a_training_without_validation(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    settings = yaml.safe_load(config.to_yaml())
    fresh = from_mapping(settings | {"data": {"train": {"synthesize": {}}}})
    with pytest.raises(ValueError, match=r"data\.validation names no lightcone: name some, as in"):
        FakeTrainer(fresh)
