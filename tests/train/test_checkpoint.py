"""Checkpoints: complete or absent, the newest that verifies, of this configuration only."""

from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.fake_generator import tiny_config

from streamtrain.config import Config, from_mapping
from streamtrain.schema import to_dict
from streamtrain.train import checkpoint
from streamtrain.train.checkpoint import (
    CheckpointError,
    first_difference,
    load_checkpoint,
    save_checkpoint,
)


def state_of(step: int) -> dict[str, Any]:
    return {"step": step, "next_index": 8 * step, "network": {"w": torch.arange(step, step + 999)}}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return tiny_config(tmp_path)


@pytest.fixture
def folder(tmp_path: Path, config: Config) -> Path:
    for step in (4, 8, 12):
        save_checkpoint(tmp_path / "checkpoints", state_of(step), config, 1)
    return tmp_path / "checkpoints"


def changed(config: Config, section: str, **settings: Any) -> Config:
    data = to_dict(config)
    data[section] = {**data[section], **settings}
    return from_mapping(data)


def test_newest_is_loaded_and_the_one_before_kept(folder: Path, config: Config) -> None:
    state = load_checkpoint(folder, config, 1)
    assert state is not None
    assert (state["step"], state["next_index"]) == (12, 96)
    assert torch.equal(state["network"]["w"], torch.arange(12, 12 + 999))
    assert sorted(p.name for p in folder.iterdir()) == ["step_000000008", "step_000000012"]


def test_no_checkpoint_is_none(tmp_path: Path, config: Config) -> None:
    assert load_checkpoint(tmp_path / "absent", config, 1) is None


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip_one_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["state.pt", "config.yaml", "manifest.json"])
@pytest.mark.parametrize("damage", [truncate, flip_one_bit, os.remove])
def test_damaged_checkpoint_falls_back_to_the_previous(
    folder: Path, config: Config, capsys: pytest.CaptureFixture[str], damage: Any, name: str
) -> None:
    damage(folder / "step_000000012" / name)
    state = load_checkpoint(folder, config, 1)
    assert state is not None
    assert state["step"] == 8
    assert "step_000000012" in capsys.readouterr().err


def test_every_flipped_bit_of_a_manifest_is_found(folder: Path) -> None:
    path = folder / "step_000000012"
    whole = (path / "manifest.json").read_bytes()
    assert checkpoint._verify(path, 12)["next_index"] == 96
    for position in range(8 * len(whole)):
        data = bytearray(whole)
        data[position // 8] ^= 1 << position % 8
        (path / "manifest.json").write_bytes(data)
        with pytest.raises(ValueError):  # CheckpointError, or no JSON, or no UTF-8
            checkpoint._verify(path, 12)


def test_checkpoint_under_the_name_of_another_step_is_passed_over(
    folder: Path, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "step_000000012").rename(folder / "step_000000099")
    state = load_checkpoint(folder, config, 1)
    assert state is not None and state["step"] == 8
    assert "step_000000099: it is the checkpoint of step 12" in capsys.readouterr().err


def test_damaged_checkpoints_of_later_steps_do_not_push_out_intact_ones(
    folder: Path, config: Config
) -> None:
    """Steps 16 and 20 were damaged, so training went on from 12 and saves 14."""
    for step in (16, 20):
        save_checkpoint(folder, state_of(step), config, 1)
    save_checkpoint(folder, state_of(12), config, 1)
    for step in (16, 20):
        save_checkpoint(folder / "other", state_of(step), config, 1)
        path = folder / "other" / f"step_{step:09d}"
        truncate(path / "state.pt")
        path.rename(folder / path.name)
    (folder / "other").rmdir()
    save_checkpoint(folder, state_of(14), config, 1)
    assert sorted(p.name for p in folder.iterdir()) == ["step_000000012", "step_000000014"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES])
@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (os, "fsync"),
        (os, "rename"),
        (os, "open"),
        (torch, "save"),
        (Path, "mkdir"),
        (json, "dumps"),
    ],
)
def test_no_error_while_writing_harms_what_is_there(
    folder: Path,
    config: Config,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    number: int,
) -> None:
    """At the first, second, ... call until there are no more: the checkpoint is whole or absent,
    and nothing is left of it, so that a full disk does not fill further."""
    real = getattr(owner, name)
    for fatal in range(20):
        calls = iter(range(100))

        def failing(*arguments: Any, calls: Any = calls, fatal: int = fatal, **more: Any) -> Any:
            if next(calls) == fatal:
                raise OSError(number, os.strerror(number))
            return real(*arguments, **more)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, failing)
            failed = False
            try:
                save_checkpoint(folder, state_of(16), config, 1)
            except OSError:
                failed = True
        state = load_checkpoint(folder, config, 1)
        assert state is not None and state["step"] in (12, 16)
        assert not list(folder.glob(".step_000000016*"))
        if next(calls) <= fatal:  # it did not fail
            break
        if state["step"] == 16:  # on disk, but perhaps not for good, or the older ones remain
            shutil.rmtree(folder / "step_000000016")
    assert fatal > 0 and not failed
    assert not list(folder.glob(".*"))


def test_checkpoints_that_change_while_they_are_read_are_read_again(
    folder: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An evaluation during a training that removes the two checkpoints it has found."""
    real, first = checkpoint._verify, []

    def verify(path: Path, step: int) -> dict[str, Any]:
        if not first:
            first.append(path)
            for later in (16, 20):
                save_checkpoint(folder, state_of(later), config, 1)
        return real(path, step)

    monkeypatch.setattr(checkpoint, "_verify", verify)
    state = load_checkpoint(folder, config, 1)
    assert state is not None and state["step"] == 20


def test_same_step_replaces_a_damaged_checkpoint(folder: Path, config: Config) -> None:
    truncate(folder / "step_000000012" / "state.pt")
    save_checkpoint(folder, state_of(12), config, 1)
    state = load_checkpoint(folder, config, 1)
    assert state is not None
    assert state["step"] == 12


def test_all_damaged_is_an_error_not_a_fresh_start(folder: Path, config: Config) -> None:
    for path in folder.iterdir():
        truncate(path / "state.pt")
    with pytest.raises(CheckpointError, match=r"none of the 2 checkpoints .* is intact"):
        load_checkpoint(folder, config, 1)


def test_interruption_while_writing_leaves_the_previous(
    folder: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    for function in ("rename", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint.os, function, interrupted)
            with pytest.raises(KeyboardInterrupt):
                save_checkpoint(folder, state_of(16), config, 1)
        state = load_checkpoint(folder, config, 1)
        assert state is not None
        assert state["step"] == 12
    checkpoint.remove_leftovers(folder)
    assert sorted(p.name for p in folder.iterdir()) == ["step_000000008", "step_000000012"]


@pytest.mark.parametrize(
    ("section", "settings", "sentence"),
    [
        ("train", {"batch_size": 16}, "train.batch_size = 8 there, 16 here"),
        ("network", {"filters": 5}, "network.filters = 4 there, 5 here"),
        ("observe", {"noise": {"sigma_uK": 3.0}}, "observe.noise = absent there"),
        ("grid", {"shape": [5, 64, 64]}, r"grid.shape = \[2, 8, 8\] there, \[5, 64, 64\] here"),
    ],
)
def test_other_configuration_is_refused_by_its_first_differing_setting(
    folder: Path, config: Config, section: str, settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(CheckpointError, match=f"of another configuration: {sentence}"):
        load_checkpoint(folder, changed(config, section, **settings), 1)


def test_order_of_operators_matters(tmp_path: Path, config: Config) -> None:
    pool, noise = {"factor": [1, 2, 2]}, {"sigma_uK": 3.0}
    first = changed(config, "observe", pool=pool, noise=noise)
    save_checkpoint(tmp_path, state_of(1), first, 1)
    second = changed(config, "observe", noise=noise, pool=pool)
    with pytest.raises(
        CheckpointError, match=r'the order of observe = \["pool", "noise"\] there, '
    ):
        load_checkpoint(tmp_path, second, 1)


def test_settings_that_change_no_weight_may_differ(folder: Path, config: Config) -> None:
    other = changed(
        replace(config, run="elsewhere"), "train", threads=7, log_every=3, queue=9, processes=0
    )
    other = changed(other, "data", validation=["more/*.h5"], test=["other.h5"])
    assert load_checkpoint(folder, other, 1) is not None


def test_other_generator_version_is_refused(folder: Path, config: Config) -> None:
    with pytest.raises(CheckpointError, match="generator version 1, this is version 2"):
        load_checkpoint(folder, config, 2)


def test_a_network_in_use_compares_the_named_sections_only(folder: Path, config: Config) -> None:
    moved = changed(config, "data", train=["elsewhere/*.h5"])
    with pytest.raises(CheckpointError, match=r"data\.train"):
        load_checkpoint(folder, moved, 1)
    state = load_checkpoint(folder, moved, 1, ("grid", "label", "network"))
    assert state is not None and state["step"] == 12
    other = changed(moved, "network", filters=config.network.filters + 1)
    with pytest.raises(CheckpointError, match=r"network\.filters"):
        load_checkpoint(folder, other, 1, ("grid", "label", "network"))


def test_order_of_parameters_and_models_matters() -> None:
    """It decides random numbers and the numbers of classes; validation skies do not."""
    both = {"a": 1.0, "b": 2.0}
    turned = dict(reversed(both.items()))
    saved, now = ({"emit": {"line": {"mixture": order}}} for order in (both, turned))
    said = 'the order of emit.line.mixture = ["a", "b"] there, ["b", "a"] here'
    assert first_difference(saved, now) == said
    old, new = ({"emit": {"interloper": {"test": [name]}}} for name in "xy")
    assert first_difference(old, new) == ""
