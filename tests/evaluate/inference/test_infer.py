"""A user's map and the network's answer: the same as for the sample it was, with its errors."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from support import ROOT, small
from support import map_runs as runs

from streamtrain import Generator
from streamtrain.cli import main
from streamtrain.config import Config, from_mapping
from streamtrain.evaluate import baselines as mean_label
from streamtrain.evaluate import evaluation, testset
from streamtrain.evaluate import run as run_module
from streamtrain.evaluate.alarm import watch
from streamtrain.evaluate.alarm.alarm import FEWEST_MAPS
from streamtrain.evaluate.compare.compare_runs import compare_runs
from streamtrain.evaluate.folder import run_config
from streamtrain.evaluate.inference import known_errors as reference
from streamtrain.evaluate.inference import output as infer_output
from streamtrain.evaluate.inference.infer import Function, Options, infer, predict_map
from streamtrain.evaluate.inference.known_errors import ErrorReference, Errors
from streamtrain.evaluate.inference.training_field import TrainingField
from streamtrain.evaluate.predictions import predict, predictions_of
from streamtrain.evaluate.run import Run
from streamtrain.evaluate.trained import Trained
from streamtrain.generator.export import export
from streamtrain.generator.generator import GENERATOR_VERSION
from streamtrain.ranks import INTERVAL_ENDS

pytestmark = small.EXTRAPOLATES
INDEX = 3


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return runs.make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without figures; one test draws them."""
    monkeypatch.setattr(infer_output, "write_png", lambda figure, path: None)


@pytest.mark.parametrize("name", runs.WRITERS)
def test_the_answer_to_a_map_is_that_to_the_sample(
    config: Config, tmp_path: Path, name: str
) -> None:
    """To the last bit, whatever file the map went through."""
    writer, told = runs.WRITERS[name]
    path = writer(tmp_path / name, runs.map_of(config, INDEX))
    result = infer(config, path, Options(out=tmp_path / "out", samples=0, **told))
    assert result["value"] == (10.0 ** runs.answer_of(config, INDEX)).tolist()
    assert result["applied"] == ["high_pass", "log_modulus"]
    assert result["left_out"] == ["beam", "noise"]
    assert result["warnings"] == []
    stored = json.loads((tmp_path / "out" / f"{name.split('.')[0]}.json").read_text())
    assert stored == json.loads(json.dumps(result))


@pytest.mark.parametrize("before_transforms", [False, True])
def test_exported_samples_are_read(config: Config, tmp_path: Path, before_transforms: bool) -> None:
    path = export(config, tmp_path / "s.h5", samples=2, first_index=INDEX - 1, split="test",
                  before_transforms=before_transforms)  # fmt: skip
    result = infer(config.run, path, Options(out=tmp_path, samples=0, index=INDEX))
    assert result["value"] == (10.0 ** runs.answer_of(config, INDEX)).tolist()
    assert result["applied"] == (["high_pass", "log_modulus"] if before_transforms else [])


def test_feeds_are_summed(config: Config, tmp_path: Path, capsys: Any) -> None:
    """Two feeds that saw the same are that map; without the option a sentence names it."""
    cube = runs.map_of(config, INDEX)
    stored = cube[np.roll(np.arange(len(cube)), 1)][:, None]
    feeds = {"map": np.stack([stored] * 2), "rms": np.ones((2, *stored.shape))}
    path = runs.write_comap(tmp_path / "m.h5", cube, map_coadd=None, **feeds)
    command = ["infer", config.run, str(path), "--units", "uK", "--samples", "0", "--out",
               str(tmp_path / "out")]  # fmt: skip
    assert main.main([*command, "--device", "cpu"]) == 2
    assert "--sum-feeds adds them up with weights 1/sigma^2" in capsys.readouterr().err
    assert main.main([*command, "--device", "cpu", "--sum-feeds"]) == 0
    found = json.loads((tmp_path / "out" / "m.json").read_text())
    assert found["value"] == (10.0 ** runs.answer_of(config, INDEX)).tolist()
    assert found["map"]["options"] == {"units": "uK", "sum_feeds": "True"}
    sky = run_module.Run.open(config.run).network_input(path, units="uK", sum_feeds=True)
    assert "2 of its 2 feeds were summed with weights 1/sigma^2" in sky.notes


def test_the_uncertainty_is_that_of_the_test_set(config: Config, tmp_path: Path) -> None:
    path = runs.write_hdf5(tmp_path / "m.h5", runs.map_of(config, INDEX))
    result = infer(config, path, Options(out=tmp_path, samples=0))
    manifest = testset.load(testset.default_path(config))
    generator = testset.open_generator(config)
    answers = predict(Trained.load(config).network(generator.label), manifest, generator)
    low, high = np.quantile(answers.predicted - answers.true, (0.16, 0.84), axis=0)
    predicted = np.log10(result["value"])
    assert np.log10(result["low_68"]) == pytest.approx(np.maximum(predicted - high, 0), abs=1e-9)
    assert np.log10(result["high_68"]) == pytest.approx(np.maximum(predicted - low, 0), abs=1e-9)
    assert result["uncertainty"] == "errors of the network on the 24 maps of its test set"
    table = pytest.importorskip("astropy.table").Table.read(tmp_path / "m.ecsv")
    assert table.colnames == ["log10_L_low", "log10_L_high", "dN", "dN_low_95", "dN_low_68",
                              "dN_high_68", "dN_high_95"]  # fmt: skip
    assert np.array_equal(table["dN"], result["value"])
    assert table.meta["map"]["sha256"] == result["map"]["sha256"]


def test_what_was_measured_once_is_kept(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = runs.write_hdf5(tmp_path / "m.h5", runs.map_of(config, INDEX))
    options = Options(out=tmp_path, samples=FEWEST_MAPS)
    first = infer(config, path, options)
    monkeypatch.setattr(run_module, "Generator", None)
    monkeypatch.setattr(testset, "open_generator", None)
    assert infer(config, path, options) == first
    assert infer(config, path, replace(options, samples=None)) == first
    threads = run_config(config.run, ["train.threads=2", "test.samples=9"])
    assert infer(threads, path, options) == first
    with pytest.raises(TypeError):
        infer(config, path, replace(options, measure=True))


def test_errors_of_another_step_are_used_and_their_age_told(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """The newest that the run has: of infer itself, or of its evaluation."""
    path = runs.write_hdf5(tmp_path / "m.h5", runs.map_of(config, INDEX))
    run = Path(shutil.copytree(config.run, tmp_path / "run"))
    there = [Path(config.run), *Path(config.run).parent.glob("*.h5")]
    options = Options(out=tmp_path, samples=0)
    first = infer(run, path, options)
    assert first["errors"]["steps_ago"] == 0 and first["warnings"] == []
    assert (
        "infer_reference.json, measured with the checkpoint of step 7\n" in capsys.readouterr().out
    )
    kept = run / reference.FILE
    data = json.loads(kept.read_text())
    data["checkpoint_step"], data["generator_version"] = 4, GENERATOR_VERSION - 1
    kept.write_text(json.dumps(data))
    monkeypatch.setattr(run_module, "Generator", None)
    monkeypatch.setattr(testset, "open_generator", None)
    old = infer(run, path, options)
    assert old["low_95"] == first["low_95"] and old["errors"]["steps_ago"] == 3
    said = (
        "infer_reference.json, measured with the checkpoint of step 4, 3 steps earlier than the "
        f"one that predicts, by generator version {GENERATOR_VERSION - 1}"
    )
    assert said in " ".join(capsys.readouterr().out.split()) and said in old["warnings"][0]
    monkeypatch.undo()
    monkeypatch.setattr(infer_output, "write_png", lambda figure, path: None)
    monkeypatch.setattr(evaluation, "save", lambda drawn, folder: list(drawn))
    monkeypatch.setattr(mean_label, "MEAN_LABEL_SAMPLES", 16)
    evaluated = evaluation.evaluate(run)
    kept.unlink()
    monkeypatch.setattr(testset, "open_generator", None)
    found = infer(run, path, options)
    assert found["errors"]["source"] == "evaluation.json" and found["errors"]["test_samples"] == 24
    assert evaluated["test_set"]["samples"] == 24
    assert np.log10(found["low_95"]) == pytest.approx(np.log10(first["low_95"]), abs=1e-9)
    assert all(path.exists() for path in there)


def test_errors_of_a_training_before_are_measured_again(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run whose checkpoints were removed and that was trained again to the same step: its
    evaluation, what infer has kept and the predictions for its test maps are another network's."""
    monkeypatch.setattr(evaluation, "save", lambda drawn, folder: list(drawn))
    monkeypatch.setattr(mean_label, "MEAN_LABEL_SAMPLES", 16)
    run = Path(shutil.copytree(config.run, tmp_path / "run"))
    (run / reference.FILE).unlink(missing_ok=True)
    evaluation.evaluate(run)
    with Run.open(run) as opened:
        evaluated = predictions_of(opened)
        wanted = reference.Measurement(opened).get(residuals=True).errors
        again = reference.Measurement(opened, again=True).get(residuals=True).errors
    assert wanted is not None and wanted.source == "evaluation.json"
    assert again is not None and again.residuals == pytest.approx(wanted.residuals)
    for name in ("evaluation.json", reference.FILE):
        kept = json.loads((run / name).read_text())
        assert kept["weights_sha256"] == wanted.weights_sha256
        kept["weights_sha256"] = "0" * 64
        rows = kept["residuals"]
        for key in rows if isinstance(rows, dict) else range(len(rows)):
            rows[key] = [value + 1.0 for value in rows[key]]
        (run / name).write_text(json.dumps(kept))
    with Run.open(run) as opened:
        found = reference.Measurement(opened).get(residuals=True).errors
        assert found is not None and found.source == reference.FILE
        assert found.residuals == pytest.approx(wanted.residuals)
        with pytest.raises(ValueError, match="evaluation is of another training than its newest"):
            predictions_of(opened)
    told = compare_runs([run, config.run], tmp_path / "out", predictions=True)
    assert "run: its evaluation is of another training than its checkpoint of step 7" in told
    assert evaluated.predicted.shape == evaluated.true.shape


def test_lightcones_that_moved_are_found_by_settings(config: Config, tmp_path: Path) -> None:
    """And others are not taken for those of the training."""
    path = runs.write_hdf5(tmp_path / "m.h5", runs.map_of(config, INDEX))
    whole = Path(shutil.copytree(Path(config.run).parent, tmp_path / "moved"))
    told = whole / "run" / "config.yaml"
    told.write_text(told.read_text().replace(str(Path(config.run).parent), "/gone"))
    for name in (reference.FILE, watch.FILE):
        (whole / "run" / name).unlink(missing_ok=True)
    options = Options(out=tmp_path, samples=FEWEST_MAPS)
    moved = f"data.test=[{whole}/test.h5]"
    here = [moved, f"data.train=[{whole}/train.h5]", "train.threads=1"]
    other = run_config(whole / "run", [moved, f"data.train=[{whole}/test.h5]"])
    other = replace(other, data=replace(other.data, test=[]))
    warnings = infer(other, path, options)["warnings"]
    assert "the lightcones of data.train are not those that the network" in warnings[1]
    result = infer(run_config(whole / "run", here), path, options)
    assert result["warnings"] == [] and result["errors"]["steps_ago"] == 0


def test_answers_to_another_map_stay(config: Config, tmp_path: Path) -> None:
    run = Path(shutil.copytree(config.run, tmp_path / "run"))
    options = Options(samples=0)
    path = runs.write_hdf5(tmp_path / "m.h5", runs.map_of(config, INDEX))
    infer(run, path, options)
    answer = run / "infer" / "m.json"
    infer(run, path, options)  # the same again
    before = answer.read_bytes()
    with pytest.raises(ValueError, match=r"m.json is of this map with other options, and stays"):
        infer(run, path, replace(options, units="uK"))
    runs.write_hdf5(path, runs.map_of(config, INDEX + 1))
    with pytest.raises(ValueError, match=r"m.json is of another map, .*: --out writes elsewhere"):
        infer(run, path, options)
    assert answer.read_bytes() == before
    infer(run, path, replace(options, out=tmp_path / "out"))
    assert (tmp_path / "out" / "m.json").read_bytes() != before


@pytest.mark.parametrize("head", ["gaussian", "negative_binomial"])
def test_a_head_that_knows_its_errors(tmp_path: Path, head: str) -> None:
    network = {"layers": 2, "filters": 4, "dense": 8, "head": head}
    config = runs.make_run(tmp_path, network=network, label={"bins": 14, "quantity": "phi_L"})
    path = runs.write_hdf5(tmp_path / "m.h5", runs.map_of(config, INDEX))
    result = infer(config, path, Options(out=tmp_path, samples=0))
    assert result["uncertainty"] == "predicted by the network"
    generator = Generator(config, "test")
    batch = generator.generate([INDEX])
    trained = Trained.load(config).network(generator.label)
    with torch.inference_mode():
        spread = trained.head.spread(trained(batch.cube), batch.unit_label, INTERVAL_ENDS)
    expected = 10.0 ** np.maximum(spread[:, 0].numpy(), batch.unit_label.numpy())
    names = ("low_95", "low_68", "high_68", "high_95")
    assert np.array([result[n] for n in names]) == pytest.approx(expected, rel=1e-6)
    table = pytest.importorskip("astropy.table").Table.read(tmp_path / "m.ecsv")
    assert str(table["phi_L"].unit) == "1 / Mpc3"
    assert not (Path(config.run) / "testset.json").exists()


def test_a_class(tmp_path: Path, capsys: Any) -> None:
    line = {"mixture": {"breysse15": {}, "padmanabhan18": {}}}
    config = runs.make_run(tmp_path, emit={"line": line}, label={"quantity": "class"})
    path = runs.write_hdf5(tmp_path / "m.h5", runs.map_of(config, INDEX))
    result = infer(config, path, Options(out=tmp_path, samples=0))
    assert list(result["classes"]) == ["breysse15", "padmanabhan18"]
    assert sum(result["classes"].values()) == pytest.approx(1.0)
    table = pytest.importorskip("astropy.table").Table.read(tmp_path / "m.ecsv")
    assert table["class"].tolist() == list(result["classes"])
    assert "breysse15" in capsys.readouterr().out


def test_a_map_unlike_the_maps_of_the_prior_is_told(
    config: Config, tmp_path: Path, capsys: Any
) -> None:
    cube = runs.map_of(config, INDEX)
    options = Options(out=tmp_path, samples=FEWEST_MAPS)
    like = infer(config, runs.write_hdf5(tmp_path / "l.h5", cube), options)
    assert like["warnings"] == [] and like["alarm"]["p"] > 0.01
    path = runs.write_hdf5(tmp_path / "m.h5", 30 * cube)
    found = infer(config, path, options)
    (problem,) = found["warnings"]
    assert problem.startswith("extrapolated: the map is unlike the maps that the training could")
    assert f"p = {1 / 101:.2g} (the smallest there is) among 100 of them; most off: " in problem
    assert found["alarm"]["extrapolated"] and abs(found["alarm"]["off"][0]["sigma"]) > 3.0
    told = capsys.readouterr().out
    assert (
        "\nalarm     extrapolated, p = 0.0099 among 100 maps of the training's own skies (outputs "
        in told
    )
    lines = told.splitlines()
    head = next(k for k, line in enumerate(lines) if line.startswith("warning   extrapolated: "))
    listed = lines[head + 2 : head + 2 + len(found["alarm"]["off"])]
    assert lines[head + 1].endswith("among 100 of them; most off:")
    assert [line.removeprefix(10 * " " + "- ") for line in listed] == problem.partition(
        "most off: "
    )[2].split("; ")
    assert len(listed) > 1 and max(map(len, lines[head - 2 : head + 2])) <= 100
    meta = pytest.importorskip("astropy.table").Table.read(tmp_path / "m.ecsv").meta
    assert meta["alarm"]["p"] == found["alarm"]["p"]
    assert "!!python" not in (tmp_path / "m.ecsv").read_text()  # YAML that other programs read


def test_the_ends_of_an_interval_follow_from_the_errors(config: Config) -> None:
    """A network that is always 0.3 dex too high, plus or minus 0.1."""
    generator = Generator(config, "test")
    network = Trained.load(config).network(generator.label)
    residuals = np.full((4, 14), 0.3) + np.array([-0.2, -0.1, 0.1, 0.2])[:, None]
    reference = ErrorReference(TrainingField(1.0), Errors(residuals, 24, 7, 2, "here"))
    cube = generator.generate([INDEX]).cube[0]
    found = predict_map(network, generator.label, cube, reference)
    assert isinstance(found, Function) and found.interval is not None
    value = np.log10(found.value)
    for ends, shift in zip(found.interval, (-0.5, -0.4, -0.2, -0.1), strict=True):
        assert np.log10(ends) == pytest.approx(np.maximum(value + shift, 0.0), abs=1e-9)


def test_without_lightcones_there_is_an_answer_and_the_reason(
    config: Config, tmp_path: Path
) -> None:
    folder = shutil.copytree(Path(config.run).parent, tmp_path / "copy")
    for file in folder.glob("*.h5"):
        file.unlink()
    text = (folder / "run" / "config.yaml").read_text()
    gone = text.replace(str(Path(config.run).parent), str(folder))
    (folder / "run" / "config.yaml").write_text(gone)
    for name in (reference.FILE, watch.FILE):
        (folder / "run" / name).unlink(missing_ok=True)
    path = runs.write_hdf5(tmp_path / "m.h5", runs.map_of(config, INDEX))
    result = infer(folder / "run", path, Options(out=tmp_path))
    assert result["value"] == (10.0 ** runs.answer_of(config, INDEX)).tolist()
    assert [w.split(":")[0] for w in result["warnings"]] == [
        "the prediction has no uncertainty",
        "the map was not compared with maps of the prior",
    ]
    assert result["uncertainty"] == "none" and "low_68" not in result


def test_the_command(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.undo()  # with the figure
    path = runs.write_limlam(tmp_path / "m.npz", runs.map_of(config, INDEX))
    out = tmp_path / "out"
    arguments = ["infer", config.run, str(path), "--device", "cpu", "--out", str(out)]
    assert main.main(arguments) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("streamtrain: ") and "does not say its units: give --units" in said
    assert not out.exists()
    assert main.main([*arguments, "--units", "uK", "--samples", "0"]) == 0
    said = capsys.readouterr().out
    assert "applied   high_pass, log_modulus" in said
    assert "left out  beam, noise: a map has them in it" in said
    assert "\n10 of 14 bins, less than one halo counts as one; the files have them all\n" in said
    kept = json.loads((out / "m.json").read_text())
    value, low, high = (np.array(kept[name]) for name in ("value", "low_68", "high_68"))
    outside = int(((value < low) | (value > high)).sum())
    assert outside and f"\n* in {outside} bins the value lies outside its 68 %: the inter" in said
    assert sorted(p.name for p in out.iterdir()) == ["m.ecsv", "m.json", "m.png"]
    assert (out / "m.png").stat().st_size > 10_000
    assert main.main([*arguments, "--samples", "-1"]) == 2
    assert main.main(["infer", str(tmp_path), str(path)]) == 2
    assert "is not the folder of a run" in capsys.readouterr().err


def test_a_signal_leaves_nothing_half_written(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    path = runs.write_hdf5(tmp_path / "m.h5", runs.map_of(config, INDEX))
    out = tmp_path / "out"
    monkeypatch.setattr(infer_output, "write_png", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    arguments = ["infer", config.run, str(path), "--device", "cpu", "--out", str(out)]
    assert main.main([*arguments, "--samples", "0"]) == 128 + signal.SIGTERM
    assert "interrupted by SIGTERM" in capsys.readouterr().err
    assert not out.exists()


def test_densities_have_the_volume_of_the_training(tmp_path: Path) -> None:
    """Of its lightcones' cosmology, whether or not the map is compared with training maps."""
    config = runs.make_run(
        tmp_path, label={"bins": 14, "quantity": "phi_L"}, cosmology={"Omega_m": 0.29}
    )
    path = runs.write_hdf5(tmp_path / "m.h5", runs.map_of(config, INDEX))
    result = infer(config, path, Options(out=tmp_path, samples=0))
    generator = Generator(config, "train")
    expected = generator.label.unit_of(generator.label.unit_label(np.zeros(1, np.int64)))
    assert expected is not None and result["one_halo"] == pytest.approx(expected[0])
    default = 1.0 / (generator.grid.volume_Mpc3() * generator.bins.width_lnL)
    assert abs(result["one_halo"][0] / default[0] - 1.0) > 0.003


def test_the_example_of_the_docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its model and configuration make samples, some of few halos and some of many."""
    text = (ROOT / "docs" / "infer.md").read_text(encoding="utf-8")
    (python,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("sparse.py").write_text(python)
    data = yaml.safe_load(block)
    data["grid"]["fov_deg"] = [0.8, 0.8]
    generator = Generator(from_mapping(data), lightcones=[small.lightcone()])
    batch = generator.generate(range(8))
    assert batch.cube.shape == (8, 10, 32, 32)
    halos = batch.counts.sum(1).numpy()
    duty = np.array([record["parameters"]["duty"] for record in batch.draws])
    assert np.corrcoef(np.log(duty), np.log(halos + 1))[0, 1] > 0.8
