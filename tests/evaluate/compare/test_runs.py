"""Runs next to each other in a table: settings, numbers, what is marked, what is missing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.made_runs import BINS, MAPS, STEPS, TRUE, make_run, read, rows, save_run
from support.network_tools import mean_network

from streamtrain.cli import main
from streamtrain.config import Config, from_mapping
from streamtrain.evaluate import predictions, testset
from streamtrain.evaluate import predictions as answers_file
from streamtrain.evaluate.compare import compare_runs, runs_figures
from streamtrain.evaluate.compare import compare_runs as runs_table
from streamtrain.evaluate.predictions import ClassPredictions
from streamtrain.evaluate.run import Run
from streamtrain.labels import Label
from streamtrain.networks.network import build_network
from streamtrain.schema import to_dict


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without figures, which take most of the time."""
    monkeypatch.setattr(compare_runs, "comparison", lambda *_: None)
    monkeypatch.setattr(compare_runs, "write_png", lambda *_: None)
    monkeypatch.setattr(compare_runs, "same_maps", lambda *_: None)


# Settings.


def test_only_settings_that_differ_are_told(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one", train={"threads": 3, "log_every": 4})
    two = make_run(tmp_path / "two", network={"filters": 4}, train={"learning_rate": 0.01})
    text = runs_table.table(read(one, two))
    block = text.partition("\nTraining")[0].splitlines()
    assert block[1].split() == ["network.filters", "train.learning_rate"]
    assert block[2].split() == ["one", "2", "0.003"]
    assert block[3].split() == ["two", "4", "0.01"]
    assert len(block) == 4


def test_a_section_that_is_missing_is_one_setting() -> None:
    with_noise, without = (
        to_dict(from_mapping({"observe": observe}))
        for observe in ({"noise": {"sigma_uK": 2.0}, "log_modulus": {}}, {"pool": {}})
    )
    found = compare_runs.settings_that_differ([with_noise, without])
    assert found["observe.noise"] == ["sigma_uK 2, per map_voxel, absent 0, index 0", "-"]
    assert found["observe.log_modulus"] == ["yes", "-"]
    assert found["observe.pool"] == ["-", "factor [1, 1, 1], reduce mean"]
    assert len(found) == 3


def test_another_order_of_operators_and_another_kind_of_network() -> None:
    first, second = (
        to_dict(from_mapping({"observe": observe, "network": {"kind": kind}}))
        for observe, kind in (
            ({"log_modulus": {}, "standardise": {}}, "means"),
            ({"standardise": {}, "log_modulus": {}}, "cnn"),
        )
    )
    found = compare_runs.settings_that_differ([first, second])
    orders = ["[log_modulus, standardise]", "[standardise, log_modulus]"]
    assert found["the order of observe"] == orders
    assert found["network.kind"] == ["means", "cnn"]
    assert found["network.pooling"] == ["-", "convolution"]
    assert found["network.max_filters"] == ["256", "-"]


# Numbers.


def test_size_and_training(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "one")
    (run,) = read(folder)
    label = Label(run.config.label)
    with torch.random.fork_rng(devices=[]):
        network = build_network(
            run.config.network, (2, 16, 16), label, run.config.observation.input_map
        )
    assert run.size is not None
    assert run.size.parameters == sum(p.numel() for p in network.parameters())
    assert run.samples == STEPS * 8
    assert run.seconds == pytest.approx(160 / 100 + 160 / 50)
    assert run.training_loss == 1 / 40  # of steps 37 to 40, the last tenth
    assert run.validation_loss == pytest.approx(3 / 40)
    cells = rows(runs_table.table([run]), "one")
    assert cells["samples/s"] == f"{320 / 4.8:.0f}"
    assert (cells["steps"], cells["samples"], cells["time"]) == ("40/40", "320", "0:05")
    assert (cells["training loss"], cells["validation loss"]) == ("0.025", "0.075")


@pytest.mark.usefixtures("undrawn")
def test_errors_are_those_of_the_evaluation(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one", 0.1)
    two = make_run(tmp_path / "two", 0.2, samples="others")
    text = compare_runs.compare_runs([one, two], tmp_path / "out")
    first, second = rows(text, "one"), rows(text, "two")
    assert [c["mse"] for c in (first, second)] == ["0.0100", "0.0400"]
    assert first["3.5-4.5"].startswith("0.1") and second["3.5-4.5"].startswith("0.2")
    assert float(second["mse - one's"].split("+-")[0]) == pytest.approx(0.03)
    assert (first["test set"], second["test set"]) == ("A1", "A2")
    assert "the same fields and halos, other maps of them" in text
    mean = float(rows(text, "always the mean label")["mse"].split("+-")[0])
    assert mean == pytest.approx(np.mean((TRUE - TRUE.mean(axis=0)) ** 2), rel=0.01)


@pytest.mark.usefixtures("undrawn")
def test_differences_are_paired(tmp_path: Path) -> None:
    """Two networks with the same large scatter from map to map, of which one adds a little."""
    rng = np.random.default_rng(8)
    common = 0.5 + 0.2 * rng.normal(size=(MAPS, 1))
    more = common + 0.01 * rng.normal(size=(MAPS, 1))
    one, two = make_run(tmp_path / "one", common), make_run(tmp_path / "two", more)
    cells = rows(compare_runs.compare_runs([one, two], tmp_path / "out"), "two")
    value, error = map(float, cells["mse - one's"].split("+-"))
    change = ((np.maximum(TRUE + more, 0) - TRUE) ** 2).mean(axis=1)
    change -= ((np.maximum(TRUE + common, 0) - TRUE) ** 2).mean(axis=1)
    assert value == pytest.approx(change.mean(), abs=0.1 * error)
    assert error == pytest.approx(change.std(ddof=1) / np.sqrt(MAPS), rel=0.15)
    assert error < 0.3 * float(cells["mse"].split("+-")[1])


@pytest.mark.usefixtures("undrawn")
def test_differences_know_of_skies(tmp_path: Path) -> None:
    """Where all maps of a sky differ alike, only the skies count."""
    sky = np.arange(MAPS) % 8
    more = 0.5 + 0.05 * np.random.default_rng(4).normal(size=8)[sky, None]
    skies = [f"sky {number}" for number in sky]
    one = make_run(tmp_path / "one", 0.5, skies=skies)
    two = make_run(tmp_path / "two", more, skies=skies)
    text = compare_runs.compare_runs([one, two], tmp_path / "out")
    assert "bootstrap over lightcones" in text
    change = ((np.maximum(TRUE + more, 0) - TRUE) ** 2).mean(axis=1)
    means = np.array([change[sky == number].mean() for number in range(8)])
    error = float(rows(text, "two")["mse - one's"].split("+-")[1])
    assert error == pytest.approx(means.std() / np.sqrt(8), rel=0.2)
    assert error > 1.5 * change.std() / np.sqrt(MAPS)


@pytest.mark.usefixtures("undrawn")
def test_what_is_not_to_be_compared_is_marked(tmp_path: Path) -> None:
    dn = make_run(tmp_path / "dn")
    density = make_run(tmp_path / "density", label={"quantity": "phi"})
    above = make_run(tmp_path / "above", label={"quantity": "cumulative"})
    linear = make_run(tmp_path / "linear", label={"scale": "linear"})
    counts = make_run(tmp_path / "counts", network={"head": "poisson"})
    sky = make_run(tmp_path / "sky", halos=6, samples="sky")
    folders = [dn, density, above, linear, counts, sky]
    found = {run.name: run for run in read(*folders)}
    assert found["dn"].loss == found["density"].loss == "mean squared error of log10 dN"
    assert len({run.loss for run in found.values()}) == 4
    text = compare_runs.compare_runs(folders, tmp_path / "out")
    marks = {name: rows(text, name)["validation loss"][-3:] for name in found}
    assert marks == {
        "dn": "(a)", "density": "(a)", "above": "(b)", "linear": "(c)", "counts": "(d)",
        "sky": "(a)",
    }  # fmt: skip
    assert rows(text, "above")["of"] == "N(>L)"
    assert {rows(text, name)["of"] for name in found if name != "above"} == {"dN"}
    assert rows(text, "sky")["test set"] == "B" and rows(text, "dn")["test set"] == "A"
    pairs = {name: rows(text, name)["mse - dn's"] for name in ("density", "above", "sky")}
    assert pairs["density"].startswith("+0.0000")
    assert pairs["above"] == pairs["sky"] == "-"
    for sentence in (
        "errors of N(>L) and of dN are of different functions",
        "test sets of different letters: different halos or bins",
        "phi and phi L in dex of their count",
        "losses of different letters are numbers of different kinds",
        "Not in maps.png, of other halos or functions: above, sky.",
    ):
        assert sentence in text


def test_other_bins_and_priors_are_other_halos(tmp_path: Path) -> None:
    base = make_run(tmp_path / "base")
    others = {
        "bins": {"label": {"bins": BINS, "log10_L": [3.4, 7.0]}},
        "prior": {"emit": {"line": {"prior": "wide"}}},
        "field": {"grid": {"fov_deg": [1.0, 1.0]}},
    }
    same = {
        "noise": {"observe": {"noise": {"sigma_uK": 9.0}}},
        "channels": {"grid": {"shape": [4, 16, 16]}},
        "density": {"label": {"quantity": "phi_L"}},
    }
    for name, changes in (others | same).items():
        make_run(tmp_path / name, **changes)
    (expected, *rest) = read(base, *(tmp_path / name for name in others | same))
    equal = {run.name: run.halos == expected.halos for run in rest}
    assert equal == dict.fromkeys(others, False) | dict.fromkeys(same, True)


def test_halos_above_the_last_edge_make_another_function(tmp_path: Path) -> None:
    """Of N(>L), which counts them or not; of dN they are nowhere."""
    for quantity, same in (("cumulative", False), ("counts", True)):
        pair = [
            make_run(tmp_path / f"{quantity}{overflow}", label=label)
            for overflow in (True, False)
            for label in ({"bins": BINS, "quantity": quantity, "overflow": overflow},)
        ]
        one, other = read(*pair)
        assert (one.halos == other.halos) is same


# What is missing or damaged.


def damaged(tmp_path: Path, what: str) -> Path:
    folder = make_run(tmp_path / "hurt")
    file = folder / what.split(",")[0]
    if what.endswith("missing"):
        file.unlink()
    elif what.endswith("cut"):
        file.write_text(file.read_text()[:-30])
    elif what.endswith("middle"):
        lines = file.read_text().splitlines()
        lines[4] = lines[4][:9]
        file.write_text("\n".join(lines) + "\n")
    elif what.endswith("stale"):
        data = json.loads(file.read_text())
        file.write_text(json.dumps(data | {"checkpoint_step": 20}))
    elif what.endswith("other"):
        data = json.loads(file.read_text())
        file.write_text(json.dumps(data | {"seed": 77}))
    elif what.endswith("null"):
        data = json.loads(file.read_text())
        data["network"]["mse"] = None
        file.write_text(json.dumps(data))
    return folder


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("history.jsonl, missing", "hurt has no history.jsonl: nothing is known of its training."),
        ("history.jsonl, middle", "hurt: history.jsonl is damaged at line 5 of 12; what follows"),
        ("history.jsonl, cut", ""),
        ("evaluation.json, missing", "hurt has no evaluation: 'streamtrain evaluate "),
        ("evaluation.json, cut", "hurt: evaluation.json is damaged; 'streamtrain evaluate "),
        ("evaluation.json, null", "hurt: evaluation.json is damaged; 'streamtrain evaluate "),
        ("evaluation.json, stale", "hurt was evaluated at step 20 of 40; 'streamtrain evaluate "),
        ("testset.json, other", "hurt: evaluation.json is of another test set than testset.json"),
        ("testset.json, cut", "hurt: its test set is unknown: "),
    ],
)
def test_what_a_run_lacks_is_one_sentence(
    tmp_path: Path, what: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other run is compared all the same."""
    good, hurt = make_run(tmp_path / "good"), damaged(tmp_path, what)
    command = ["compare", str(good), str(hurt), "--out", str(tmp_path / "out"), "--no-predictions"]
    assert main.main(command) == 0
    text = capsys.readouterr().out
    told = [line for line in text.splitlines() if re.match(r"hurt(:| (?! ))", line)]
    assert len(told) == bool(message)
    assert all(line.startswith(message) and line.endswith(".") for line in told)
    assert rows(text, "good")["mse"] == "0.0100"
    assert rows(text, "good")["samples/s"] == "67"
    if what.startswith("history"):
        steps = {"missing": 0, "middle": 16, "cut": 40}[what.split()[-1]]
        assert rows(text, "hurt")["steps"] == f"{steps}/40"
    else:
        assert rows(text, "hurt")["steps"] == "40/40"


def test_a_run_without_anything_is_drawn_beside_another(tmp_path: Path) -> None:
    good, hurt = make_run(tmp_path / "good"), make_run(tmp_path / "hurt")
    for name in ("history.jsonl", "evaluation.json"):
        (hurt / name).unlink()
    text = compare_runs.compare_runs([hurt, good], tmp_path / "out")
    assert text.endswith(f"Figures in {tmp_path / 'out'}: runs.png")
    assert (tmp_path / "out" / "runs.png").stat().st_size > 20_000
    (good / "history.jsonl").unlink()
    (good / "evaluation.json").unlink()
    assert "Figures" not in compare_runs.compare_runs([hurt, good], tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


@pytest.mark.usefixtures("undrawn")
def test_folders_of_no_run_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = make_run(tmp_path / "one")
    for folders, message in (
        ([one, tmp_path], "is not the folder of a run: it has no config.yaml"),
        ([one, tmp_path / "one" / ".." / "one"], "is given twice"),
    ):
        assert main.main(["compare", *map(str, folders), "--out", str(tmp_path / "out")]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    first, second = make_run(tmp_path / "a" / "run"), make_run(tmp_path / "b" / "run")
    assert [run.name for run in read(first, second)] == ["a/run", "b/run"]


@pytest.mark.usefixtures("undrawn")
def test_classifiers_are_compared_by_accuracy(tmp_path: Path) -> None:
    true = np.arange(MAPS) % 2
    folders = []
    for name, wrong in (("good", 3), ("bad", 12)):
        chances = np.eye(2)[true] * 0.8 + 0.1
        chances[:wrong] = chances[:wrong, ::-1]
        made = ClassPredictions(chances, true, ["faint", "bright"])
        mixture = {"line": {"mixture": {"li16": {}, "breysse15": {}}}}
        label = {"quantity": "class"}
        folders.append(make_run(tmp_path / name, classes=made, emit=mixture, label=label))
    text = compare_runs.compare_runs(folders, tmp_path / "out")
    accuracy = [rows(text, n)["accuracy"].split("+-")[0] for n in ("good", "bad")]
    assert accuracy == ["0.900", "0.600"]
    assert rows(text, "always the most frequent")["accuracy"].startswith("0.5")
    assert "maps.png" not in text


# Predictions.


@pytest.mark.usefixtures("undrawn")
def test_answers_are_made_once(
    config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the checkpoint and the test set, on the stand-in generator; and again for another
    evaluation."""
    folder = Path(config.run)
    generator = testset.Generator(config, split="train")
    save_run(config, mean_network(generator, 64)[0], generator, step=120)
    text = compare_runs.compare_runs([folder], folder / "out", make_evaluations=True)
    assert "has no evaluation" not in text
    run = Run(config)
    assert run.evaluation is not None
    kept = answers_file.predictions_of(run)
    mse = np.mean((kept.predicted - kept.true) ** 2)
    assert mse == pytest.approx(run.evaluation["network"]["mse"], rel=1e-12)

    def no_more(*_: Any, **__: Any) -> None:
        raise AssertionError("asked again")

    monkeypatch.setattr(predictions, "predict", no_more)
    again = answers_file.predictions_of(run)
    np.testing.assert_array_equal(again.predicted, kept.predicted)
    run.evaluation["checkpoint_step"] = 60
    with pytest.raises(ValueError, match="newest checkpoint is of step 120, its evaluation of"):
        answers_file.predictions_of(run)
    capsys.readouterr()


def test_errors_of_few_skies_are_marked(tmp_path: Path) -> None:
    """In the table and over the bars."""
    folder = make_run(tmp_path / "a")
    file = folder / "evaluation.json"
    data = json.loads(file.read_text())
    for without in (None, "the maps come from 2 skies, and so on"):
        data["bootstrap"]["without"] = without
        file.write_text(json.dumps(data))
        found = read(folder)
        figure = runs_figures.comparison(found)
        assert figure is not None
        titles = [axes.get_title() for part in figure.subfigs for axes in part.axes]
        assert any("without the scatter" in title for title in titles) == bool(without)
        assert ("2 skies, and so on" in runs_table.table(found)) == bool(without)


def test_information_above_other_densities_of_the_prior_is_told(tmp_path: Path) -> None:
    """Of the same test maps, as two versions have it."""
    folders = [make_run(tmp_path / name) for name in ("one", "two")]

    def calibrated(priors: list[float]) -> str:
        for folder, prior in zip(folders, priors, strict=True):
            evaluation = json.loads((folder / "evaluation.json").read_text())
            found = {
                "checkpoint_step": evaluation["checkpoint_step"],
                "test_set": evaluation["test_set"],
                "statistics": [],
                "information": {
                    "log_prior_nat": prior,
                    "information_nat": -50.0 - prior,
                    "information_nat_error": 0.5,
                },
            }
            (folder / "calibration.json").write_text(json.dumps(found))
        return " ".join(runs_table.table(read(*folders)).split())

    assert "densities of the prior that differ by up to 24.5 nat" in calibrated([-80.0, -55.5])
    assert "densities of the prior" not in calibrated([-80.0, -80.0])
    for folder in folders:
        assert rows(runs_table.table(read(folder)), folder.name)["information [nat]"].startswith(
            "30"
        )
