"""A run on lightcones that are made while it trains."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from streamtrain.catalogs.headers import Header
from streamtrain.catalogs.skies import LightconeFiles
from streamtrain.catalogs.synthesis import fresh as fresh_module
from streamtrain.catalogs.synthesis.synthesize import synthesize
from streamtrain.cli.main import main
from streamtrain.config import Config, from_mapping
from streamtrain.generator.generator import Generator
from streamtrain.machine.interrupt import Stopped, Unfinished
from streamtrain.train.folder import read_history
from streamtrain.train.normalisation import NUM_SAMPLES
from streamtrain.train.trainer import Trainer, train

TIME_TO_LEAVE_S = 20.0
Z_RANGE = (115.27 / 33.9 - 1.0, 115.27 / 33.0 - 1.0)


@pytest.fixture
def sky(tmp_path: Path) -> Path:
    path = tmp_path / "validation.h5"
    options: dict[str, Any] = {"z_range": Z_RANGE, "min_mass_Msun": 2e11}
    synthesize(1, footprint_deg=(0.34, 0.34), **options).save(path)
    return path


def config(sky: Path, steps: int = 6) -> Config:
    return from_mapping(
        {
            "seed": 5,
            "run": str(sky.parent / "run"),
            "grid": {"fov_deg": [0.2, 0.2], "shape": [4, 8, 8], "nu_GHz": [33.9, 33.0]},
            "data": {
                "train": {"synthesize": {"reuse": 8}},
                "active": 1,
                "min_mass_Msun": 2e11,
                "validation": [str(sky)],
            },
            "network": {"layers": 2, "filters": 4, "dense": 8},
            "train": {
                "steps": steps,
                "batch_size": 4,
                "warmup_steps": 0,
                "log_every": 1,
                "validation_samples": 8,
                "threads": 1,
            },
        }
    )


def test_lightcones_are_in_the_record_and_the_same_after_a_restart(
    sky: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = config(sky)
    Trainer(whole, "cpu", max_steps=3).run()
    Trainer(whole, "cpu").run()
    record = read_history(sky.parent / "run" / "lightcones.jsonl", "number")
    numbers = [entry["number"] for entry in record]
    assert len(numbers) == len(set(numbers))
    # calibration used the first samples, in windows of 8 with a lightcone each
    assert set(range(NUM_SAMPLES // 8)) <= set(numbers)
    options, seed = sky.parent / "options.yaml", str(record[7]["seed"])
    options.write_text(json.dumps(record[7]["options"]))
    made = sky.parent / "again"
    command = ["catalog", "make", "1", "--first-seed", seed, "--options", str(options)]
    assert main([*command, "--out", str(made)]) == 0
    (again,) = made.iterdir()
    assert Header.read(again).digest == record[7]["digest"]
    assert record[7]["options"]["z_range"] == list(Z_RANGE)
    assert "warning: lightcone" not in capsys.readouterr().err


def test_a_lightcone_that_came_out_differently_is_told(
    sky: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = config(sky)
    Trainer(whole, "cpu", max_steps=2).run()
    path = sky.parent / "run" / "lightcones.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line["digest"] = "0" * 64
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    Trainer(whole, "cpu").run()
    assert "before 000000000000: last bits differ between devices" in capsys.readouterr().err
    assert len(read_history(path, "number")) > len(lines)


def test_other_lightcones_do_not_continue_a_run(sky: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = config(sky)
    Trainer(whole, "cpu", max_steps=2).run()
    monkeypatch.setattr("streamtrain.catalogs.synthesis.fresh.METHOD_VERSION", 10**6)
    with pytest.raises(ValueError, match=r"lightcones of data.train are not those the run was"):
        Trainer(whole, "cpu").run()


def test_the_trained_network_sees_what_the_record_says(sky: Path) -> None:
    """The first batch is painted from the lightcone with the recorded seed."""
    whole = config(sky)
    fresh = Generator(whole)
    options: dict[str, Any] = {"z_range": Z_RANGE, "min_mass_Msun": 2e11}
    seed = fresh.skies.seed_of(0)
    assert not isinstance(fresh.skies, LightconeFiles)
    lightcone = synthesize(seed, footprint_deg=(0.339, 0.339), **options)
    plain = Generator(whole, lightcones=[lightcone])
    assert plain.generate(range(4)).digests() == fresh.generate(range(4)).digests()
    fresh.close()


@pytest.mark.parametrize(
    ("call", "step"),
    [
        (0, None),  # before the network exists
        (5, None),  # for the calibration, which has 128 samples of 16 lightcones
        (17 + 5, 10),  # for steps: lightcone 0 again, and two steps with each
    ],
)
def test_a_signal_is_heard_while_a_lightcone_is_made(
    sky: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    call: int,
    step: int | None,
) -> None:
    """One that would take minutes: training does not wait for it."""
    calls, begin = 0, 0.0

    def slow(*arguments: Any, progress: Any, **options: Any) -> Any:
        nonlocal calls, begin
        calls += 1
        if calls == call + 1:
            begin = time.monotonic()
            os.kill(os.getpid(), signal.SIGTERM)
            while time.monotonic() < begin + 300.0:
                progress(0.5, "halos")
                time.sleep(0.01)
        return synthesize(*arguments, progress=progress, **options)

    monkeypatch.setattr(fresh_module, "synthesize", slow)
    whole = config(sky, steps=40)
    with pytest.raises(Unfinished, match="the same call continues"):
        train(whole, "cpu")
    assert begin and time.monotonic() - begin < TIME_TO_LEAVE_S
    said = capsys.readouterr().err
    saved = sorted(path.name for path in (sky.parent / "run").glob("checkpoints/step_*"))
    if step is None:
        assert "stopped before the first step" in said and not saved
        return
    done = int(saved[-1].removeprefix("step_"))
    assert 0 < done <= step
    assert f"stopped after step {done}; the same command continues" in said
    monkeypatch.undo()
    assert Trainer(whole, "cpu", max_steps=2).run().step == done + 2


def test_no_signal_is_lost_before_the_run(sky: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sent while the first lightcone is made, it ends the construction by an exception."""

    def interrupted(*arguments: Any, progress: Any, **options: Any) -> Any:
        os.kill(os.getpid(), signal.SIGUSR1)
        return synthesize(*arguments, progress=progress, **options)

    monkeypatch.setattr(fresh_module, "synthesize", interrupted)
    before = [signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGINT)]
    with pytest.raises(Stopped):
        Trainer(config(sky), "cpu")
    assert [signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGINT)] == before
