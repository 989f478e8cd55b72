"""Trainings that are killed and disks that are full: what is learnt stays the same."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from support.fake_generator import tiny_config
from support.processes import Forked
from support.states import assert_same_bits, losses, state_of
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from streamtrain.config import Config

SETTINGS = {"validate_every": 100, "deterministic": True, "ema": 0.9, "log_every": 1}
TRAIN = tuple(f"{key}={value}" for key, value in SETTINGS.items())

STEPS_KILLED_AT = tuple(range(1, 12))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A run of 12 steps that nothing interrupted; `events` beside it names what it did to files."""
    folder = tmp_path_factory.mktemp("whole")
    training = Forked(folder / "run", "--events", str(folder / "events"), train=TRAIN)
    assert training.finish() == [0], training.errors
    return tiny_config(folder / "run", **SETTINGS)


def events(whole: Config) -> list[str]:
    return (Path(whole.run).parent / "events").read_text(encoding="utf-8").splitlines()


def assert_continues(folder: Path, whole: Config) -> None:
    """The same command ends as the uninterrupted run, and leaves nothing half-written."""
    again = Forked(folder, train=TRAIN)
    assert again.finish() == [0], again.errors
    config = tiny_config(folder, **SETTINGS)
    assert_same_bits(state_of(config), state_of(whole))
    assert losses(config) == losses(whole)
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    if names[0] == "step_000000004":  # killed when all but the tidying was done
        del names[0]
    assert names == ["step_000000008", "step_000000012"]


def assert_survives_event(folder: Path, whole: Config, number: int) -> None:
    killed = Forked(folder, "--kill-event", str(number), train=TRAIN)
    assert killed.finish() == [-signal.SIGKILL], killed.errors
    if number >= events(whole).index("after rename"):  # from the first checkpoint on, always one
        state_of(tiny_config(folder, **SETTINGS))
    assert_continues(folder, whole)


def nth(names: list[str], name: str, count: int) -> int:
    """Where a name occurs for the `count`th time, from 1."""
    return [number for number, found in enumerate(names) if found == name][count - 1]


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("within state.pt", 5),
        ("within manifest.json", 2),
        ("before rename", 2),
        ("after rename", 2),
        ("after rename", 4),  # the oldest has been moved out of the way, not removed
    ],
)
def test_killed_while_a_checkpoint_is_written(
    tmp_path: Path, whole: Config, name: str, count: int
) -> None:
    assert_survives_event(tmp_path, whole, nth(events(whole), name, count))


@pytest.mark.slow
def test_killed_at_each_event_of_every_checkpoint(tmp_path: Path, whole: Config) -> None:
    names = events(whole)
    assert len(names) > 50 and {name.split()[0] for name in names} == {"before", "within", "after"}
    for number in range(len(names)):
        assert_survives_event(tmp_path / str(number), whole, number)


@pytest.mark.slow
def test_killed_before_each_step(tmp_path: Path, whole: Config) -> None:
    for step in STEPS_KILLED_AT:
        folder = tmp_path / str(step)
        assert Forked(folder, "--kill-at", str(step), train=TRAIN).finish() == [-signal.SIGKILL]
        assert_continues(folder, whole)


@pytest.mark.slow
def test_killed_twenty_times_at_any_moment(tmp_path: Path, whole: Config) -> None:
    """One run, killed from outside after 0.05 s, 0.1 s ... of training since it was continued."""
    kills = 0
    while kills < 20:
        training = Forked(tmp_path, "--delay", "0.1", train=TRAIN)
        while "train: made up" not in training.errors and training.poll() is None:
            time.sleep(0.01)
        time.sleep(0.05 * (kills + 1))
        if training.poll() == 0:
            break
        training.ranks[0].kill()
        assert training.finish() == [-signal.SIGKILL]
        kills += 1
    assert kills >= 5
    assert_continues(tmp_path, whole)


def test_tensorboard_has_each_step_once_after_kill_9(tmp_path: Path) -> None:
    """Steps 5 to 7 were recorded when it was killed, and are made again from step 4."""
    train = ("log_every=1",)
    assert Forked(tmp_path, "--kill-at", "7", train=train).finish() == [-signal.SIGKILL]
    time.sleep(1.1)  # TensorBoard orders event files by the second they were made in
    again = Forked(tmp_path, train=train)
    assert again.finish() == [0], again.errors
    record = EventAccumulator(str(tmp_path)).Reload()
    tags = set(record.Tags()["scalars"])
    assert {"loss/train", "loss/validation", "error_dex/logL_3.5-4.5", "speed/train_ms"} <= tags
    for tag in tags:
        steps = [event.step for event in record.Scalars(tag)]
        assert steps == sorted(set(steps)), tag
    assert [event.step for event in record.Scalars("loss/train")] == list(range(1, 13))
    assert [event.step for event in record.Scalars("loss/validation")] == [4, 8, 12]
    assert record.Scalars("progress/samples_seen")[-1].value == 96
    assert set(record.Tags()["images"]) == {"map", "luminosity_function"}
    assert "config/text_summary" in record.Tags()["tensors"]
    assert [step for step, _ in losses(tiny_config(tmp_path))] == list(range(1, 13))


def test_run_goes_on_while_the_disk_is_full(tmp_path: Path, whole: Config) -> None:
    """The kernel refuses the checkpoint of step 8 (EFBIG); that of step 12 is written."""
    limited = Forked(tmp_path, "--file-limit", "20000", "5", "8", train=TRAIN)
    assert limited.finish() == [0], limited.errors
    said = "the checkpoint of step 8 could not be written: File too large"
    assert f"{said}; training goes on and the one before is intact" in limited.errors
    config = tiny_config(tmp_path, **SETTINGS)
    assert_same_bits(state_of(config), state_of(whole))
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step_000000004", "step_000000012"]
    record = EventAccumulator(str(tmp_path)).Reload()
    events = record.Tensors("warning/text_summary")
    warnings = [event.tensor_proto.string_val[0].decode() for event in events]
    assert [said in text for text in warnings].count(True) == 1, warnings


def test_disk_full_at_the_end_is_an_error_and_leaves_the_last_checkpoint(
    tmp_path: Path, whole: Config
) -> None:
    """Neither TensorBoard nor the checkpoint of the last step, tried twice, finds room."""
    limited = Forked(tmp_path, "--file-limit", "20000", "5", "100", train=TRAIN)
    assert limited.finish() == [1], limited.errors
    assert limited.errors.splitlines()[-1] == (
        "streamtrain: the checkpoint of step 12 could not be written: File too large; the one "
        "before is intact, and the same command goes on from it"
    )
    assert "the run's record cannot be written ([Errno 27] File too large)" in limited.errors
    assert os.listdir(tmp_path / "checkpoints") == ["step_000000004"]
    assert_continues_after_full_disk(tmp_path, whole)


def assert_continues_after_full_disk(folder: Path, whole: Config) -> None:
    again = Forked(folder, train=TRAIN)
    assert again.finish() == [0], again.errors
    assert_same_bits(state_of(tiny_config(folder, **SETTINGS)), state_of(whole))
