"""A run's network on other skies: what it says there, and that the run stays as it was."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import map_runs, small

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.synthesis.box import METHOD
from streamtrain.cli import main
from streamtrain.config import Config
from streamtrain.cosmology import Cosmology
from streamtrain.evaluate import baselines, evaluation
from streamtrain.evaluate.evaluation import evaluate
from streamtrain.evaluate.folder import run_config
from streamtrain.evaluate.inference.training_field import Kept
from streamtrain.evaluate.interpret import layers, probes
from streamtrain.evaluate.robustness.other_skies import notes_on
from streamtrain.generator.generator import Generator

pytestmark = small.EXTRAPOLATES


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return map_runs.make_run(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def skies(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Config, list[Path]]:
    """The run, and two skies that it has never seen, in the current folder; without figures."""
    monkeypatch.setattr(evaluation, "save", lambda drawn, folder: list(drawn))
    for module in (probes, layers):
        monkeypatch.setattr(
            module,
            "write_png",
            lambda figure, path: path.parent.mkdir(exist_ok=True) or path.touch(),
        )
    monkeypatch.setattr(baselines, "MEAN_LABEL_SAMPLES", 32)
    monkeypatch.chdir(tmp_path)
    paths = [tmp_path / f"far_000{number}.h5" for number in (0, 1)]
    for number, path in enumerate(paths):
        small.lightcone(70 + number).save(path)
    return config, paths


def contents(folder: Path) -> dict[Path, tuple[bytes, int]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_other_skies_leave_the_run_alone(skies: tuple[Config, list[Path]], capsys: Any) -> None:
    """The numbers are those of a run whose test skies these are."""
    config, paths = skies
    before = contents(Path(config.run))
    words = ["evaluate", config.run, "--on", "far_*.h5", "train.threads=1", "--samples", "10"]
    assert main.main(words) == 0
    assert contents(Path(config.run)) == before
    out = Path("run_on_far")
    found = json.loads((out / "evaluation.json").read_text())
    assert found["test_set"]["lightcones"] == [path.name for path in paths]
    assert found["test_set"]["samples"] == 10
    said = capsys.readouterr().out
    assert "2 skies, other realisations than the training's: far_0000.h5, far_0001.h5" in said
    assert "maps come from 2 skies, and the scatter from sky to sky is not in the errors" in said
    assert "not in the errors" in found["bootstrap"]["without"]
    assert found["bootstrap"]["skies"] == 2
    assert main.main(words) == 2
    assert "run_on_far is already there, and is not overwritten" in capsys.readouterr().err
    copy = Path(shutil.copytree(config.run, "copy"))
    assert copy.name == "copy" and not (copy / "testset.json").exists()
    files = json.dumps([str(path) for path in paths])
    expected = evaluate(run_config(copy, [f"data.test={files}", "test.samples=10"]))
    for key in ("network", "mean_label", "residuals", "mean_label_dN"):
        assert found[key] == json.loads(json.dumps(expected[key]))
    # with the mean label of the run's own evaluation
    again = evaluate(copy, on=[str(paths[0])], samples=4, out="one", bootstrap="maps")
    assert again["mean_label_dN"] == expected["mean_label_dN"]
    assert again["bootstrap"]["skies"] == 1


@pytest.mark.parametrize("command", [["evaluate"], ["preview", "--index=3"]])
def test_a_run_of_another_user(
    skies: tuple[Config, list[Path]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
) -> None:
    """Refused before anything is painted."""
    config, paths = skies
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != Path(config.run))
    monkeypatch.setattr(Generator, "generate", None)
    assert main.main([*command, config.run, f"data.test=[{paths[0]}]"]) == 2
    said = capsys.readouterr().err
    assert f"{config.run} may not be written into by you; --out FOLDER" in said


def test_a_sky_of_the_training_is_refused(skies: tuple[Config, list[Path]]) -> None:
    config, paths = skies
    train = Path(config.data.train[0])  # type: ignore[index]
    shutil.copy(train, "renamed.h5")
    for file in (str(train), "renamed.h5"):
        with pytest.raises(ValueError, match=r"--on .*: the network of .* was trained on this sky"):
            evaluate(config.run, on=[str(paths[0]), file])
    gone = run_config(config.run, ["data.train=[gone.h5]"])
    with pytest.raises(ValueError, match=r"--on renamed.h5: the network of .* was trained on this"):
        evaluate(gone, on=["renamed.h5"])
    # skies that the training made are known by their seeds, and by their digests
    run = Path(shutil.copytree(config.run, "fresh"))
    made = {"number": 0, "seed": 70, "digest": Lightcone.open(paths[0]).digest, "halos": 1}
    (run / "lightcones.jsonl").write_text(json.dumps(made) + "\n")
    small.lightcone(9, realisation=f"{METHOD}-70-0123abcd").save("made.h5")
    small.lightcone(9, realisation=f"{METHOD}-701-0123abcd").save("unmade.h5")
    for file in ("made.h5", str(paths[0])):
        with pytest.raises(ValueError, match=r"--on .*: the network of fresh was trained on this"):
            evaluate(run, on=[file])
    evaluate(run, on=["unmade.h5"], samples=2, out="there")
    assert not list(Path().glob("*run_on*"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"min_mass_Msun": 9e10}, "holds halos above 9e.10 Msun only, but data.min_mass_Msun"),
        ({"z_range": (2.3, 3.0)}, r"holds halos at z = 2.300..3.000, but the band"),
    ],
)
def test_a_sky_that_does_not_fit(
    skies: tuple[Config, list[Path]], changes: dict[str, Any], said: str, capsys: Any
) -> None:
    config, _ = skies
    cone = small.lightcone(80)
    for name, value in changes.items():
        object.__setattr__(cone, name, value)
    cone.save("odd.h5")
    assert main.main(["evaluate", config.run, "--on", "odd.h5"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and re.search(said, error)
    assert not Path("run_on_odd").exists()


def test_files_that_are_not_there_or_twice(
    skies: tuple[Config, list[Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Of which the configuration says nothing, so no command that makes its lightcones helps."""
    config, paths = skies
    shutil.copy(paths[0], "copy.h5")
    for files, said in (
        (["gone.h5"], "--on: no file matches 'gone.h5'"),
        ([str(paths[0]), "gone*.h5"], "--on: no file matches 'gone*.h5'"),
        ([str(paths[0]), "copy.h5"], f"--on has one lightcone twice, {paths[0]} and copy.h5 (the "
         "same file, a link, a copy, or made again elsewhere): name it once"),
    ):  # fmt: skip
        assert main.main(["evaluate", config.run, "--on", *files]) == 2
        assert capsys.readouterr().err == f"streamtrain: {said}\n"
    assert main.main(["evaluate", config.run, "data.test=[gone.h5]", "--out", "x"]) == 2
    assert f"catalog make --for {config.run} 'data.test=[gone.h5]'" in capsys.readouterr().err
    assert not Path("x").exists() and not list(Path().glob("*run_on*"))


def test_a_setting_where_the_configuration_is_meant(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["train.steps=20"], ["train.steps=20", "quickstart.yaml"]):
        assert main.main(["train", *words]) == 2
        assert capsys.readouterr().err == (
            "streamtrain: no configuration file or run 'train.steps=20': settings stand after the "
            "configuration, as in quickstart.yaml train.steps=20\n"
        )


def test_training_skies_of_several_cosmologies(tmp_path: Path) -> None:
    """A test sky between them is none that they do not hold; volumes are the first one's, which is
    told each time."""
    cones = [
        small.lightcone(number, cosmology=Cosmology(Omega_m=value).to_dict())
        for number, value in enumerate((0.288, 0.286, 0.29, 0.284))
    ]
    for number, cone in enumerate(cones[:2]):
        cone.save(tmp_path / f"{number}.h5")
    config = small.config(run=str(tmp_path / "run"), data={"train": [str(tmp_path / "*.h5")]})
    generator = Generator(config, lightcones=cones)
    notes = notes_on(config, generator)
    assert len(notes) == 3 and notes[1:] == [
        f"small-{number} has another cosmology: Omega_m = {value}; the training: "
        "Omega_m = 0.286 to 0.288"
        for number, value in ((2, 0.29), (3, 0.284))
    ]
    turns = replace(config, data=replace(config.data, active=1, active_samples=300))
    assert turns.test.samples == 512  # of two lightcones alone
    some = notes_on(turns, Generator(turns, lightcones=cones))
    assert notes[0].startswith("4 skies, other") and some[0].startswith("2 skies, other")
    (tmp_path / "run").mkdir()
    for _ in range(2):  # measured, then kept
        kept = Kept(config)
        found, told = kept.field(lambda: generator, cosmology=True)
        kept.save()
        assert found.Omega_m == 0.288
        assert found.volume_Mpc3 == generator.grid.volume_Mpc3(0.288, 0.7)
        assert told == [
            "the training's skies have Omega_m = 0.284 to 0.29: volume and distances are those of "
            "Omega_m = 0.288, h = 0.7, of its first lightcone"
        ]


def test_another_cosmology_is_told(skies: tuple[Config, list[Path]]) -> None:
    config, _ = skies
    small.lightcone(81, cosmology=Cosmology().to_dict() | {"sigma8": 0.9}).save("other.h5")
    notes = evaluate(config.run, on=["other.h5"], samples=4)["test_set"]["notes"]
    usual = Cosmology().to_dict()["sigma8"]
    assert (
        notes[1] == f"other.h5 has another cosmology: sigma8 = 0.9; the training: sigma8 = {usual}"
    )


def test_what_does_not_go_together(skies: tuple[Config, list[Path]], capsys: Any) -> None:
    config, _ = skies
    evaluating = ["evaluate", config.run]
    for words, said in (
        (["--scenarios", "pfeffer2019", "--on", "far_0000.h5"], "use data.test=[...]"),
        (["--probes", "--samples", "3"], "cannot be used with --samples"),
        (["--samples", "0", "--on", "far_0000.h5"], "--samples 0 must be 1 or more"),
        (["--on", "nothing_*.h5"], "--on: no file matches 'nothing_*.h5'"),
        (["--on", "test.samples=3"], "--on needs a lightcone file"),
        (["--on", "far_0000.h5", "label.bins=7"], "label.bins = 14 there, 7 here"),
    ):
        assert main.main([*evaluating, *words]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1


def test_probes_on_other_skies(skies: tuple[Config, list[Path]]) -> None:
    config, _ = skies
    before = contents(Path(config.run))
    words = ["evaluate", config.run, "--probes", "--on", "far_0000.h5", "test.samples=2"]
    assert main.main(words) == 0
    assert json.loads(Path("run_on_far_0000/probes.json").read_text())["samples"] == 2
    assert contents(Path(config.run)) == before


# Settings of a trained network.


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("observe.noise.sigma_uK=9", "observe.noise.sigma_uK = .* there, 9.0 here"),
        ("label.bins=7", "label.bins = 14 there, 7 here"),
        ("train.learning_rate=1", "train.learning_rate = 0.003 there, 1.0 here"),
        ("data.sfr=fit", "data.sfr = .auto. there, .fit. here"),
        ("data.train={synthesize: {}}", "data.train = "),
        ("run=elsewhere", "the run is already named"),
        ("network.filtres=3", "did you mean 'filters'"),
    ],
)
def test_a_setting_of_the_training_is_refused(
    skies: tuple[Config, list[Path]], setting: str, said: str, capsys: Any
) -> None:
    config, _ = skies
    for words in (["infer", config.run, "map.h5"], ["layers", config.run], ["compare", config.run]):
        assert main.main([*words, setting]) == 2
        error = capsys.readouterr().err
        assert re.search(said, error) and error.count("\n") == 1


def test_layers_of_another_sky_lie_elsewhere(skies: tuple[Config, list[Path]], capsys: Any) -> None:
    config, _ = skies
    run = Path(shutil.copytree(config.run, "mine"))
    evaluate(run, samples=4)
    before = contents(run)
    words = ["layers", "mine", "train.threads=1", "test.samples=4"]
    assert main.main([*words, "data.test=[far_0000.h5]"]) == 2
    assert "keeps what was made with its own settings" in capsys.readouterr().err
    assert main.main([*words, "data.test=[far_0000.h5]", "--out", "there"]) == 0
    assert Path("there/gradient.png").is_file()
    assert contents(run) == before
