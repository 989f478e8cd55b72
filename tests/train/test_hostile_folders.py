"""What somebody else put into a run's folder: a sentence or the checkpoint before, and no more."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace as replace_fields
from pathlib import Path
from typing import Any

import pytest
import torch
from support.fake_generator import tiny_config
from torch import nn

from streamtrain.config import Config, TrainConfig
from streamtrain.train import checkpoint
from streamtrain.train.checkpoint import (
    CheckpointError,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)
from streamtrain.train.folder import History, RunLock, read_history
from streamtrain.train.optimiser import ExponentialMovingAverage, build_optimiser, load_state
from streamtrain.train.tensorboard import SkyRecord
from streamtrain.train.writer import CheckpointWriter

Make = Callable[[Path], object]


def state_of(step: int) -> dict[str, Any]:
    return {"step": step, "next_index": 8 * step, "network": {"w": torch.arange(9.0) + step}}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return tiny_config(tmp_path)


@pytest.fixture
def folder(tmp_path: Path, config: Config) -> Path:
    for step in (8, 12):
        save_checkpoint(tmp_path / "checkpoints", state_of(step), config, 1)
    return tmp_path / "checkpoints"


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    """A read that waits for ever ends the test."""
    with_alarm = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGALRM, _alarm) if with_alarm else None
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def _alarm(*_: object) -> None:
    raise AssertionError("a hang")


def precious(path: Path) -> Path:
    """A file elsewhere that a link leads to; it must stay as it is."""
    file = path.parent.parent / f"precious-{path.name.strip('.')}"
    file.write_text("precious")
    return file


OBSTACLES: dict[str, Make] = {
    "pipe": os.mkfifo,
    "folder": Path.mkdir,
    "full folder": lambda path: (path / "sub").mkdir(parents=True),
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
    "link to a file": lambda path: path.symlink_to(precious(path)),
    "link to a folder": lambda path: path.symlink_to(path.parent.parent),
    "file": lambda path: path.write_bytes(b"\xff" * 99),
    "empty file": Path.touch,
}
obstacles = pytest.mark.parametrize("make", OBSTACLES.values(), ids=OBSTACLES.keys())


def replace(path: Path, make: Make) -> None:
    if path.is_dir():
        for inside in path.iterdir():
            inside.unlink()
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
    make(path)


def untouched(folder: Path) -> bool:
    return all(f.read_text() == "precious" for f in folder.rglob("precious-*"))


@obstacles
@pytest.mark.parametrize("name", ["state.pt", "config.yaml", "manifest.json", ""])
def test_in_place_of_a_file_the_checkpoint_before_is_used(
    folder: Path, config: Config, capsys: pytest.CaptureFixture[str], make: Make, name: str
) -> None:
    replace(folder / "step_000000012" / name, make)
    state = load_checkpoint(folder, config, 1)
    assert state is not None and state["step"] == 8
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"passing over {folder / 'step_000000012'}: " in said
    for step in (12, 16):  # that place is taken, and the next
        save_checkpoint(folder, state_of(step), config, 1)
        state = load_checkpoint(folder, config, 1)
        assert state is not None and state["step"] == step
    assert untouched(folder.parent)


@obstacles
@pytest.mark.parametrize("name", [".step_000000016.tmp", ".step_000000008.old.tmp"])
def test_leftovers_block_no_checkpoint(folder: Path, config: Config, make: Make, name: str) -> None:
    make(folder / name)
    save_checkpoint(folder, state_of(16), config, 1)
    state = load_checkpoint(folder, config, 1)
    assert state is not None and state["step"] == 16
    assert sorted(p.name for p in folder.iterdir()) == ["step_000000012", "step_000000016"]
    assert untouched(folder.parent)


def test_a_leftover_that_cannot_be_removed_is_passed_by(
    folder: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It belongs to another user."""
    (folder / ".step_000000016.tmp").mkdir()
    usual = checkpoint.discard
    monkeypatch.setattr(
        checkpoint, "discard", lambda p: None if p.name == ".step_000000016.tmp" else usual(p)
    )
    assert save_checkpoint(folder, state_of(16), config, 1).name == "step_000000016"


@obstacles
def test_in_place_of_the_folder_of_checkpoints(tmp_path: Path, config: Config, make: Make) -> None:
    (tmp_path / "run").mkdir()
    place = tmp_path / "run" / "checkpoints"
    make(place)
    if place.is_dir():
        assert load_checkpoint(place, config, 1) is None
    else:
        with pytest.raises((CheckpointError, OSError), match="checkpoints"):
            load_checkpoint(place, config, 1)


def reseal(path: Path, **changes: Any) -> None:
    """Give a checkpoint a manifest that fits what is in it now."""
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["digest"]
    manifest["files"] = {n: checkpoint._describe(path / n) for n in ("state.pt", "config.yaml")}
    manifest |= changes
    sealed = manifest | {"digest": checkpoint._digest(manifest)}
    (path / "manifest.json").write_text(checkpoint._render(sealed))


def expanded() -> torch.Tensor:
    return torch.zeros(1).expand(10**12)


STATES: list[Any] = [
    None, 7, [], "text", torch.zeros(3), {}, {"step": 12}, {"step": "12"},
    *(
        state_of(12) | changes
        for changes in (
            {"step": 13}, {"step": True}, {"step": 12.0}, {"next_index": -1}, {"next_index": None},
            {"network": 3}, {"network": [torch.zeros(3)]}, {"network": {"w": 1.0}},
            {"network": {3: torch.zeros(3)}}, {"network": {"w": torch.tensor([0.0, torch.nan])}},
            {"network": {"w": torch.tensor([torch.inf])}}, {"network": {"w": expanded()}},
            {"average": {"w": torch.tensor([-torch.inf])}}, {"average": [1]}, {"optimiser": []},
            {"samples": "x"}, {"input_shape": 3}, {"classes": None}, {"skipped_in_a_row": 0.5},
            {"num_bins": "49"},
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize("state", STATES, ids=range(len(STATES)))
def test_a_sealed_state_of_another_kind_is_passed_over(
    folder: Path, config: Config, capsys: pytest.CaptureFixture[str], state: Any
) -> None:
    path = folder / "step_000000012"
    torch.save(state, path / "state.pt")
    reseal(path)
    found = load_checkpoint(folder, config, 1)
    assert found is not None and found["step"] == 8
    assert capsys.readouterr().err.count("\n") == 1


CONFIGS = (
    "",
    "3",
    "- a\n- b\n",
    "grid: 3\n",
    "a: &a [x, x]\nb: [*a, *a]\n",
    "!!python/object:os.system {}",
    "[" * 5000,
    "{a: " * 5000,
    "a: " + "9" * 5000,
    "\x00",
    "x" * 30_000_000,
)


def test_a_configuration_that_names_many_files(tmp_path: Path, config: Config) -> None:
    """And one list twice, which YAML could write as a reference."""
    many = tuple(f"lightcones/of_a_long_name/{k:05d}.h5" for k in range(3000))
    data = replace_fields(config.data, train=many, validation=many)
    whole = replace_fields(config, data=data)
    save_checkpoint(tmp_path / "checkpoints", state_of(8), whole, 1)
    assert load_checkpoint(tmp_path / "checkpoints", whole, 1) is not None


@pytest.mark.parametrize("text", CONFIGS, ids=range(len(CONFIGS)))
def test_a_sealed_configuration_that_is_none(folder: Path, config: Config, text: str) -> None:
    """Passed over, or refused as another one."""
    path = folder / "step_000000012"
    (path / "config.yaml").write_text(text)
    reseal(path)
    for sections in (None, ("grid", "label", "network")):
        try:
            found = load_checkpoint(folder, config, 1, sections)
        except CheckpointError as error:
            assert "\n" not in str(error)
        else:
            assert found is not None and found["step"] == 8


MANIFESTS: list[dict[str, Any]] = [
    {"files": {}},
    {"files": None},
    {"files": ["state.pt"]},
    {"files": {"state.pt": 3, "config.yaml": 4}},
    {"files": {"/dev/zero": {"bytes": 1, "sha256": ""}}},
    {"files": {"../../x": {}, "config.yaml": {}}},
    {"files": {"state.pt": {"bytes": 10**30}, "config.yaml": {}}},
    {"generator_version": "1"},
    {"generator_version": None},
    {"step": None},
    {"next_index": [[]]},
    {"more": "x" * 5_000_000},
]


@pytest.mark.parametrize("changes", MANIFESTS, ids=range(len(MANIFESTS)))
def test_a_sealed_manifest_of_another_kind_is_passed_over(
    folder: Path, config: Config, capsys: pytest.CaptureFixture[str], changes: dict[str, Any]
) -> None:
    reseal(folder / "step_000000012", **changes)
    found = load_checkpoint(folder, config, 1)
    assert found is not None and found["step"] == 8
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and len(said) < 1000


@pytest.mark.parametrize("text", ["", "null", "[]", "7", "[" * 100_000, '{"a":' * 100_000, "NaN"])
def test_a_manifest_that_is_none(folder: Path, config: Config, text: str) -> None:
    (folder / "step_000000012" / "manifest.json").write_text(text)
    found = load_checkpoint(folder, config, 1)
    assert found is not None and found["step"] == 8


def test_what_a_state_lacks_is_a_sentence(folder: Path, config: Config) -> None:
    state = load_checkpoint(folder, config, 1)
    assert state is not None
    with pytest.raises(CheckpointError, match="step_000000012 has no 'samples'"):
        state["samples"]


WEIGHTS: list[tuple[dict[str, torch.Tensor], str]] = [
    ({"weight": torch.zeros(2, 3)}, "bias is in the network alone"),
    ({"weight": torch.zeros(2, 3), "bias": torch.zeros(2), "x": torch.zeros(1)}, "x is in the che"),
    ({"weight": torch.zeros(3, 2), "bias": torch.zeros(2)}, r"weight is float32 \(3, 2\) in the"),
    ({"weight": torch.zeros(2, 3), "bias": torch.zeros(1)}, r"bias is float32 \(1,\) in the"),
    ({"weight": torch.zeros(2, 3).long(), "bias": torch.zeros(2)}, r"weight is int64 \(2, 3\)"),
    ({"weight": torch.zeros(2, 3).double(), "bias": torch.zeros(2)}, r"weight is float64"),
]


@pytest.mark.parametrize(("weights", "sentence"), WEIGHTS)
def test_weights_of_another_network(weights: dict[str, torch.Tensor], sentence: str) -> None:
    with torch.random.fork_rng():
        network = nn.Linear(3, 2)
    with pytest.raises(CheckpointError, match=sentence):
        load_weights(network, weights)


def _trained(optimiser: str) -> tuple[nn.Module, torch.optim.Optimizer, dict[str, Any]]:
    if optimiser == "muon" and not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon")
    network = nn.Linear(3, 2)
    made = build_optimiser(network, TrainConfig(optimiser=optimiser))
    network(torch.ones(1, 3)).sum().backward()
    made.step()
    return network, made, made.state_dict()


OPTIMISERS: list[Callable[[dict[str, Any]], object]] = [
    lambda s: s.clear(),
    lambda s: s.update(param_groups=[]),
    lambda s: s.update(param_groups="x"),
    lambda s: s.update(state=[]),
    lambda s: s["param_groups"][0].pop("params"),
    lambda s: s["param_groups"][0].update(params=[0, 1, 2]),
    lambda s: s["state"][0].pop("exp_avg"),
    lambda s: s["state"][0].update(more=torch.zeros(2, 3)),
    lambda s: s["state"][0].update(exp_avg=torch.zeros(1)),
    lambda s: s["state"][0].update(exp_avg=torch.zeros(3, 2)),
    lambda s: s["state"][1].update(exp_avg_sq=torch.zeros(())),
    lambda s: s["state"][0].update(step=torch.zeros(7)),
    lambda s: s["state"].update({0: 3}),
]


@pytest.mark.parametrize("damage", OPTIMISERS, ids=range(len(OPTIMISERS)))
def test_an_optimiser_of_another_kind(damage: Callable[[dict[str, Any]], object]) -> None:
    """A moment of another shape would be read beyond its end."""
    with torch.random.fork_rng():
        _, made, state = _trained("adamw")
    damage(state)
    with pytest.raises(ValueError, match="the optimiser in the checkpoint does not fit") as caught:
        load_state(made, state)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("optimiser", ["adamw", "adam", "sgd", "muon"])
def test_settings_of_an_optimiser_are_those_of_the_configuration(optimiser: str) -> None:
    with torch.random.fork_rng():
        _, made, state = _trained(optimiser)
    before = [dict(group) for group in made.param_groups]
    for group in state["param_groups"]:
        group |= {"weight_decay": 9.0, "lr": "x", "foreach": 3}
    load_state(made, state)
    for group, own in zip(made.param_groups, before, strict=True):
        assert {k: v for k, v in group.items() if k != "params"} == {
            k: v for k, v in own.items() if k != "params"
        }


@pytest.mark.parametrize("wrong", [torch.zeros(1), torch.zeros(3, 2), None])
def test_a_momentum_of_muon_that_does_not_fit(wrong: torch.Tensor | None) -> None:
    with torch.random.fork_rng():
        _, made, state = _trained("muon")
    momentum = state["state"][0]
    assert set(momentum) == {"momentum_buffer"} and set(state["state"][1]) > {"exp_avg"}
    momentum["momentum_buffer"] = wrong
    if wrong is None:
        momentum.clear()
    with pytest.raises(ValueError, match="the optimiser in the checkpoint does not fit"):
        load_state(made, state)


@pytest.mark.parametrize("change", [{"weight": torch.zeros(1)}, {"bias": torch.zeros(3)}, {"x": 1}])
def test_an_average_of_another_network(change: dict[str, Any]) -> None:
    with torch.random.fork_rng():
        network = nn.Linear(3, 2)
    average = ExponentialMovingAverage(network, 0.9)
    state = average.state_dict() | change
    if "x" in change:
        del state["weight"]
    with pytest.raises(ValueError, match=r"average of (weight|bias) in the checkpoint"):
        average.load_state_dict(state)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
def test_a_full_disk_is_told_by_its_errno(
    folder: Path, config: Config, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Torch makes '[enforce fail at inline_container.cc:...] unexpected pos' of it."""
    real = checkpoint._Remembering.write

    def write(self: Any, data: Any) -> int:
        self._file = _Full(number)
        return real(self, data)

    monkeypatch.setattr(checkpoint._Remembering, "write", write)
    writer = CheckpointWriter(folder, config, 1)
    writer.save(state_of(16))
    writer.wait()
    assert writer.failure is not None and os.strerror(number) in writer.failure
    assert "enforce" not in writer.failure and "\n" not in writer.failure
    writer.close()


class _Full:
    def __init__(self, number: int) -> None:
        self._number = number

    def write(self, data: Any) -> int:
        raise OSError(self._number, os.strerror(self._number))

    def flush(self) -> None:
        raise OSError(self._number, os.strerror(self._number))


def test_a_file_that_may_not_grow(tmp_path: Path, config: Config) -> None:
    """The kernel's own refusal, in the middle of a large state."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    state = {"step": 1, "next_index": 8, "network": {"w": torch.zeros(300_000)}}
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_checkpoint(tmp_path / "checkpoints", state, config, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / "checkpoints").iterdir()) == []


GOOD = b'{"step": 1, "loss": 2.0}\n'
LINES = {
    "binary": b"\xff\xfe\x00\x80\n",
    "deep": b"[" * 100_000 + b"\n",
    "deep table": b'{"a":' * 100_000 + b"\n",
    "huge": b'{"step": 2, "x": "' + b"y" * 2_000_000 + b'"}\n',
    "number": b"7\n",
    "list": b"[1]\n",
    "no step": b'{"loss": 1.0}\n',
    "text": b'{"step": "2"}\n',
    "fraction": b'{"step": 2.5}\n',
    "true": b'{"step": true}\n',
    "null": b'{"step": null}\n',
    "empty": b"\n",
    "long number": b'{"step": ' + b"9" * 5000 + b"}\n",
    "cut": b'{"step": 2, "lo\n',
    "NUL": b"\x00\n",
}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES.keys())
def test_damaged_lines_of_a_history_are_left_out_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: bytes
) -> None:
    path = tmp_path / "history.jsonl"
    path.write_bytes(GOOD + line + GOOD.replace(b"1", b"3", 1) + b'{"step": 4, "unfin')
    history = History(path, 9)
    history.append({"step": 5})
    history.close()
    assert "1 damaged lines are left out (2)" in capsys.readouterr().err
    assert [entry["step"] for entry in read_history(path)] == [1, 3, 5]
    assert capsys.readouterr().err == ""


def test_damaged_lines_of_the_record_of_skies(tmp_path: Path) -> None:
    path = tmp_path / "lightcones.jsonl"
    path.write_bytes(b'{"number": 1, "digest": "a"}\n{"number": "x"}\n{"number": 2}\n')
    assert SkyRecord(path)._digests == {1: "a", 2: "None"}


@obstacles
@pytest.mark.parametrize("name", ["history.jsonl", ".history.jsonl.tmp", "lock"])
def test_in_place_of_what_a_training_keeps_open(tmp_path: Path, make: Make, name: str) -> None:
    """A link would lead it to write over a file that is none of its own."""
    run = tmp_path / "run"
    run.mkdir()
    make(run / name)
    try:
        RunLock(run).close()
        history = History(run / "history.jsonl", 0)
        history.append({"step": 1})
        history.close()
        assert read_history(run / "history.jsonl") == [{"step": 1}]
    except (ValueError, OSError) as error:
        assert name in str(error) and "\n" not in str(error)
    assert untouched(tmp_path)
