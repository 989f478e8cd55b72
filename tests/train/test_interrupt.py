"""Signals: a training finishes its step and exits 0, all its ranks together."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from support.fake_generator import tiny_config
from support.processes import PATIENCE_S, Forked

from streamtrain.generator.generator import GENERATOR_VERSION
from streamtrain.machine.interrupt import SAME_PRESS_S, SIGNALS, Interrupted, interruptible
from streamtrain.train.checkpoint import load_checkpoint
from streamtrain.train.folder import read_history

pytestmark = pytest.mark.usefixtures("usual_signals")


def saved_step(folder: Path, **train: object) -> int:
    state = load_checkpoint(folder / "checkpoints", tiny_config(folder, **train), GENERATOR_VERSION)
    assert state is not None
    assert state["next_index"] == 8 * state["step"]
    return int(state["step"])


def wait_for_text(training: Forked, text: str) -> None:
    """Until it is in what the ranks have written to stderr."""
    end = time.monotonic() + PATIENCE_S
    while text not in training.errors:
        assert training.poll() is None and time.monotonic() < end, training.errors
        time.sleep(0.02)


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_ends_the_step_and_exits_0_with_a_checkpoint(
    tmp_path: Path, number: signal.Signals
) -> None:
    training = Forked(tmp_path, "--delay", "0.05", train=("steps=500", "validate_every=400"))
    training.wait_for_step(2)
    os.kill(training.ranks[0].pid, number)
    assert training.finish() == [0], training.errors
    assert 2 <= saved_step(tmp_path, steps=500) < 500
    assert f"{number.name}: stopping after this step" in training.errors


def test_hangup_is_ignored_under_nohup(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        from streamtrain.machine.interrupt import StopRequest

        with StopRequest() as request:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not request.requested
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_second_sigint_leaves_at_once(tmp_path: Path) -> None:
    """In the middle of a step that would take an hour."""
    training = Forked(
        tmp_path,
        *("--delay", "3600", "--delay-from", "8"),
        train=("steps=500", "log_every=1", "validate_every=400"),
    )
    training.wait_for_step(1)
    os.kill(training.ranks[0].pid, signal.SIGINT)
    wait_for_text(training, "stopping after this step")
    time.sleep(2.0 * SAME_PRESS_S)
    assert training.poll() is None
    os.kill(training.ranks[0].pid, signal.SIGINT)
    assert training.finish() == [-signal.SIGINT]


@pytest.mark.parametrize("ranks", [1, 2])
def test_signal_during_validation_stops_all_ranks(tmp_path: Path, ranks: int) -> None:
    """Sent to the last rank alone, in the middle of a validation of a hundred million samples."""
    train = ("steps=500", "validate_every=2", "validation_samples=100000000")
    training = Forked(tmp_path, ranks=ranks, train=train)
    training.wait_for_step(2)
    time.sleep(0.3)
    os.kill(training.ranks[-1].pid, signal.SIGTERM)
    assert training.finish() == [0] * ranks, training.errors
    assert not any("validation_loss" in e for e in read_history(tmp_path / "history.jsonl"))
    assert saved_step(tmp_path, steps=500) == 2
    assert "stopped after step 2; the same command continues" in training.errors


def test_signal_during_calibration_stops_before_the_first_step(tmp_path: Path) -> None:
    """Sample 7 is of the calibration, and takes a second."""
    training = Forked(tmp_path, "--slow-calibration", "1")
    wait_for_text(training, "normalising")
    os.kill(training.ranks[0].pid, signal.SIGTERM)
    assert training.finish() == [0]
    assert "stopped before the first step" in training.errors
    assert not (tmp_path / "checkpoints").exists()


def test_other_commands_end_by_an_exception_that_names_the_signal() -> None:
    handlers = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(Interrupted) as caught, interruptible():
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(1.0)
    assert caught.value.number == signal.SIGUSR1
    assert [signal.getsignal(number) for number in SIGNALS] == handlers
