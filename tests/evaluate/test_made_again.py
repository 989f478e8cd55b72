"""Lightcones that were made again on another processor: the same recipe, other last bits."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import map_runs, small

from streamtrain.catalogs.headers import MAKER, CatalogError, Header
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.skies import again_of, check_once, recipes_of
from streamtrain.cli.main import main
from streamtrain.config import Config
from streamtrain.evaluate import baselines, testset
from streamtrain.evaluate.folder import run_config
from streamtrain.evaluate.run import Run
from streamtrain.schema import AssumptionWarning

pytestmark = small.EXTRAPOLATES
SAID, THOSE = "lightcones of the recipe of ", "those that the network of"
JOINT = {"layers": 2, "filters": 4, "dense": 8, "head": "joint_counts"}
RECORD = {"program": MAKER, "version": "0.1.0", "method": "pbs2lpt", "method_version": 2}


def recipe(seed: int, **changes: Any) -> str:
    """The provenance of a lightcone that streamtrain made, of other options than the default."""
    return json.dumps({**RECORD, "seed": seed, "mass_function": "tinker08", **changes})


def elsewhere(path: Path, **changes: Any) -> None:
    """Make a lightcone file that is there again, as another processor would: some halos move by
    the last bit of float32. changes: of its provenance."""
    made = Lightcone.open(path)
    x = made.x_Mpc.copy()
    x[::7] = np.nextafter(x[::7], np.float32(np.inf))
    record = json.loads(made.provenance) | {"version": "0.0.9"} | changes
    again = replace(made, x_Mpc=x, provenance=json.dumps(record))
    Lightcone.from_arrays(
        *(getattr(again, name) for name in ("x_Mpc", "y_Mpc", "z_Mpc", "mass_Msun", "z_obs")),
        cosmology=again.cosmology,
        provenance=again.provenance,
        footprint_deg=again.footprint_deg,
        z_range=again.z_range,
        min_mass_Msun=again.min_mass_Msun,
        realisation=again.realisation,
    ).save(path)
    assert Header.read(path).digest != made.digest


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with a test set and an alarm, and of its lightcones."""
    folder = tmp_path_factory.mktemp("made")
    with torch.random.fork_rng(devices=[]):
        config = map_runs.make_run(folder, provenance=recipe, network=JOINT, test={"samples": 24})
    testset.make(config)
    return folder


@pytest.fixture
def config(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """The run in a folder of its own, with its lightcones beside it."""
    monkeypatch.setattr(baselines, "MEAN_LABEL_SAMPLES", 32)
    folder = Path(shutil.copytree(made, tmp_path / "made"))
    files = [f"data.{split}=['{folder / split}.h5']" for split in ("train", "test")]
    return run_config(folder / "run", [*files, "train.threads=1"])


def command(config: Config, *words: str) -> list[str]:
    files = [f"data.{split}=['{config.data.files(split)[0]}']" for split in ("train", "test")]
    return [words[0], config.run, *words[1:], *files, "train.threads=1"]


COMMANDS = {
    "evaluation.json": ("evaluate",),
    "calibration.json": ("evaluate", "--calibration", "--draws", "40"),
    "alarm.json": ("alarm", "--maps", "200"),
}


@pytest.mark.parametrize("file", COMMANDS)
def test_a_test_set_made_again_is_said_and_marked(config: Config, file: str, capsys: Any) -> None:
    """Test and training lightcones of the same recipe do; the result has the sentence, too. With
    the record's own bytes there is none."""
    words, result = command(config, *COMMANDS[file]), Path(config.run) / file
    assert main(words) == 0
    said = capsys.readouterr()
    assert SAID not in said.err + said.out + result.read_text()
    for split in ("train", "test"):
        elsewhere(Path(config.data.files(split)[0]))
    with warnings.catch_warnings():
        warnings.simplefilter("always")  # the command shows them
        assert main(words) == 0
    said = capsys.readouterr()
    assert f"warning: test.h5: {SAID}the test set (method, seed and options)" in said.err
    if file != "evaluation.json":  # which takes the mean label of the evaluation before
        assert f"train.h5: {SAID}{THOSE} {config.run} was trained on" in said.err
    found = json.loads(result.read_text())
    [note] = found.get("test_set", found)["notes"]
    assert note.startswith("test.h5: ") and "its maps are not compared" in note
    assert note in " ".join(said.out.split())


@pytest.mark.parametrize("file", COMMANDS)
def test_another_recipe_is_refused(config: Config, file: str, capsys: Any) -> None:
    """Other options for the same sky, or a record of before recipes were written down."""
    words, result = command(config, *COMMANDS[file]), Path(config.run) / file
    test, path = Path(config.data.files("test")[0]), testset.default_path(config)
    record, bytes_before = json.loads(path.read_text()), test.read_bytes()
    elsewhere(test, mass_function="watson13_fof")
    assert main(words) == 2
    assert "Lightcone test.h5 differs: its sha256 begins" in capsys.readouterr().err
    test.write_bytes(bytes_before)
    elsewhere(test)
    del record["lightcones"][0]["recipe"]
    path.write_text(json.dumps(record))
    assert main(words) == 2
    assert "Lightcone test.h5 differs: its sha256 begins" in capsys.readouterr().err
    assert not result.exists()


def test_training_lightcones_made_again(config: Config) -> None:
    """Said by whatever makes training maps; others, and those of a checkpoint without recipes, are
    refused."""
    path = Path(config.data.files("train")[0])
    elsewhere(path)
    with Run.open(config) as run:
        with pytest.warns(AssumptionWarning, match=f"^train.h5: {SAID}{THOSE}"):
            run.training()
        run.trained.recipes.clear()
        with pytest.raises(ValueError, match=r"lightcones of data\.train are not those"):
            run.training()
    elsewhere(path, seed=99)
    match = r"lightcones of data\.train are not those"
    with Run.open(config) as run, pytest.raises(ValueError, match=match):
        run.training()


def test_a_training_sky_made_again_is_no_other_sky(config: Config, tmp_path: Path) -> None:
    """Also where the training's own lightcones are gone."""
    path = Path(config.data.files("train")[0])
    elsewhere(path)
    moved = path.rename(tmp_path / "moved.h5")
    words = ["evaluate", config.run, "--on", str(moved), "--out", str(tmp_path / "out")]
    assert main([*words, "train.threads=1"]) == 2


def test_verify_says_that_bytes_cannot_be_the_same(config: Config, capsys: Any) -> None:
    path = testset.default_path(config)
    assert testset.verify(path, config).ok
    elsewhere(Path(config.data.files("test")[0]))
    report = testset.verify(path, config)
    assert report.samples_compared == 0 and len(report.problems) == 1
    assert report.problems[0].startswith(f"test.h5: {SAID}the test set")


def test_a_lightcone_made_twice_counts_once(made: Path, tmp_path: Path) -> None:
    one, two = (Path(shutil.copy(made / "test.h5", tmp_path / name)) for name in ("a.h5", "b.h5"))
    elsewhere(two)
    with pytest.raises(CatalogError, match=r"data\.test has one lightcone twice, .* made again"):
        check_once({"data.test": [one, two]})
    elsewhere(two, seed=77)
    check_once({"data.test": [one, two]})


def test_records_by_recipe(made: Path, tmp_path: Path) -> None:
    """The order counts, and everything that is no lightcone of a known recipe."""
    old = [Header.read(made / f"{name}.h5") for name in ("train", "test")]
    for name in ("train", "test"):
        shutil.copy(made / f"{name}.h5", tmp_path)
        elsewhere(tmp_path / f"{name}.h5")
    new = [Header.read(tmp_path / f"{name}.h5") for name in ("train", "test")]
    recipes = recipes_of(old)
    assert len(recipes) == 2 and recipes_of(new).keys() != recipes.keys()
    then = {"lightcones": [old[0].digest], "co": {"lightcones": [old[1].digest]}, "model": "m"}
    now = {"lightcones": [new[0].digest], "co": {"lightcones": [new[1].digest]}, "model": "m"}
    assert again_of(then, now, recipes, new) == ["train.h5", "test.h5"]
    half = now | {"co": then["co"]}
    assert again_of(then, half, recipes, [new[0], old[1]]) == ["train.h5"]
    assert again_of(then, now, {}, new) is None
    assert again_of(then, now | {"model": "n"}, recipes, new) is None
    swapped = {"lightcones": [new[1].digest], "co": {"lightcones": [new[0].digest]}, "model": "m"}
    assert again_of(then, swapped, recipes, new[::-1]) is None
