"""A run evaluated from its folder: predictors with known errors."""

import json
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.made_runs import save_run
from support.network_tools import mean_network

from streamtrain.cli import main
from streamtrain.config import from_mapping
from streamtrain.evaluate import baselines, evaluation, figures, predictions, testset, trained
from streamtrain.evaluate.report import _three, table
from streamtrain.evaluate.scores import deviance
from streamtrain.networks.network import build_head
from streamtrain.schema import to_dict

NUM_BINS = 14
SHAPE = (2, 16, 16)


class Reader(torch.nn.Module):
    """Reads the label that the stand-in generator writes into the map, plus an offset [dex]."""

    def __init__(self, offset: float = 0.0) -> None:
        super().__init__()
        self.offset = offset

    def forward(self, cube):
        return cube[:, 0, 0, :NUM_BINS] + self.offset


def use(monkeypatch, config, network, draw=False, **saved) -> None:
    """Let the run's network be `network`; figures, the slow part, only with `draw`."""
    generator = testset.Generator(config, split="train")
    network.head = build_head("auto", generator.label)
    save_run(config, network, generator, step=120, **saved)
    if not draw:
        monkeypatch.setattr(evaluation, "_draw", lambda *_: [])
    monkeypatch.setattr(trained, "build_network", lambda *_: network)


def test_a_network_that_knows_the_label_has_no_error(config, monkeypatch):
    use(monkeypatch, config, Reader())
    result = evaluation.evaluate(config)
    assert result["network"]["mse"] == 0.0
    assert result["network"]["whole"]["interval_95"] == (0.0, 0.0)
    assert result["mean_label"]["mse"] > 0.01
    assert result["checkpoint_step"] == 120
    stored = json.loads((Path(config.run) / "evaluation.json").read_text())
    assert stored == json.loads(json.dumps(dict(result)))
    assert "40 test maps (seed 5), checkpoint of step 120" in str(result)


def test_other_settings_never_reach_the_run(config, monkeypatch, tmp_path):
    """Another test set, other noise, other skies: refused, or in a folder of their own."""
    use(monkeypatch, config, Reader())
    noisy = replace(config, observe=from_mapping({"observe": {"noise": {"sigma_uK": 9.0}}}).observe)
    with pytest.raises(ValueError, match=r"keeps what .*sigma_uK = 2.0 in the run, .*--out FOLDER"):
        evaluation.evaluate(noisy)
    few = replace(config, test=replace(config.test, samples=12))
    evaluation.evaluate(few)  # the first: it makes the run's test set
    before = contents(Path(config.run))
    north = replace(config.data, test=config.data.test[:1])
    for other, said in (
        (config, r"test.samples = 12 there, 40 here; --out"),
        (replace(noisy, test=few.test), "observe.noise.sigma_uK = 2.0 there, 9.0 here; --out"),
        (replace(few, data=north), "south.h5 of the manifest is missing here; --out"),
    ):
        with pytest.raises(ValueError, match=said):
            evaluation.evaluate(other)
        out = tmp_path / f"out {len(said)}"
        result = evaluation.evaluate(other, out=out)
        stored = json.loads((out / "evaluation.json").read_text())
        assert stored == json.loads(json.dumps(dict(result)))
        manifest = testset.load(out / "testset.json")
        assert manifest.count == other.test.samples == result["test_set"]["samples"]
        with pytest.raises(ValueError, match="already there, and is not overwritten"):
            evaluation.evaluate(other, out=out)
    for inside in (Path(config.run), Path(config.run) / "new"):
        with pytest.raises(ValueError, match=r"lies in the run .* stays as it is"):
            evaluation.evaluate(config, out=inside)
    assert contents(Path(config.run)) == before
    assert not list(tmp_path.glob("*.part")) and not list(tmp_path.glob(".*.part"))


def contents(folder: Path) -> dict[Path, bytes]:
    """Every file, with its bytes and time."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path: path.read_bytes() + repr(path.stat().st_mtime_ns).encode() for path in files}


def test_an_offset_is_found_in_every_range(config, monkeypatch):
    use(monkeypatch, config, Reader(offset=0.2))
    for values in evaluation.evaluate(config)["network"]["ranges"]:
        assert values["rms_dex"] == pytest.approx(0.2, abs=1e-6)
        assert values["median"] == pytest.approx(10**0.2 - 1, abs=1e-6)


@pytest.mark.parametrize("scale", ["log10", "linear"])
@pytest.mark.parametrize("quantity", ["counts", "cumulative", "phi", "phi_L"])
def test_a_perfect_answer_is_perfect_for_every_label(config, monkeypatch, scale, quantity):
    label = {"bins": NUM_BINS, "scale": scale, "quantity": quantity}
    config = from_mapping(to_dict(config) | {"label": label})
    use(monkeypatch, config, Reader())
    result = evaluation.evaluate(config)
    assert result["network"]["mse"] == 0.0
    assert 0.0 < result["network"]["whole"]["excluded"] < 0.5
    symbol = {"counts": "dN", "cumulative": "N(>L)", "phi": "phi", "phi_L": "phi L"}[quantity]
    assert f"rms of log10 {symbol} in dex" in str(result)
    counted = symbol if quantity == "cumulative" else "dN"  # no label's unit is in a deviance
    assert f"Poisson deviance of {counted} per bin" in str(result)


def test_a_deviance_that_all_maps_have_is_without_an_error():
    assert _three(0.06641, 2.2e-17) == _three(0.06641, None) == "0.0664"
    assert _three(1234.0, 56.0) == "1.23e+03 +- 56"


@pytest.mark.parametrize("quantity", ["phi", "phi_L"])
def test_an_offset_in_dex_is_one_of_the_count(config, monkeypatch, quantity):
    config = from_mapping(to_dict(config) | {"label": {"bins": NUM_BINS, "quantity": quantity}})
    use(monkeypatch, config, Reader(offset=0.2))
    result = evaluation.evaluate(config)
    for values in result["network"]["ranges"]:
        assert values["rms_dex"] == pytest.approx(0.2, abs=3e-6)
    counts = from_mapping(to_dict(config) | {"label": {"bins": NUM_BINS}, "run": config.run + "2"})
    use(monkeypatch, counts, Reader(offset=0.2))
    mean, expected = (r["mean_label"] for r in (result, evaluation.evaluate(counts)))
    assert mean["mse"] == pytest.approx(expected["mse"], rel=1e-5)


@pytest.mark.parametrize("scale", ["log10", "linear"])
def test_answers_times_their_unit_are_the_labels(config, scale):
    label = {"bins": NUM_BINS, "quantity": "phi", "scale": scale}
    config = from_mapping(to_dict(config) | {"label": label})
    generator = testset.open_generator(config)
    manifest = testset.load(testset.make(config))
    reader = Reader()
    reader.head = build_head("auto", generator.label)
    found = predictions.predict(reader, manifest, generator)
    labels = generator.generate(range(40)).label.double().numpy()
    if scale == "log10":
        labels = 10**labels
    drawn = found.unit * 10**found.true
    assert drawn[found.occupied] == pytest.approx(labels[found.occupied], rel=1e-5)


# Classes.


class Classifier(torch.nn.Module):
    """Takes a share of the maps, spread evenly, for the wrong class; sure of itself."""

    def __init__(self, wrong_every: int = 10**6, sure: float = 3.0) -> None:
        super().__init__()
        self.wrong_every, self.sure, self.seen = wrong_every, sure, 0

    def forward(self, cube):
        one_hot = cube[:, 0, 0, :2].clone()
        for k in range(len(one_hot)):
            self.seen += 1
            if self.seen % self.wrong_every == 0:
                one_hot[k] = 1.0 - one_hot[k]
        return self.sure * one_hot


def class_config(config):
    return from_mapping(to_dict(config) | {"label": {"bins": NUM_BINS, "quantity": "class"}})


def test_a_classifier_is_judged_beside_the_most_frequent_class(config, monkeypatch):
    config = class_config(config)
    use(monkeypatch, config, Classifier(wrong_every=8), draw=True)
    result = evaluation.evaluate(config)
    labels = testset.open_generator(config).generate(range(40)).label.numpy()
    network, frequent = result["network"], result["most_frequent"]
    assert network["accuracy"] == 35 / 40
    p = 35 / 40
    assert network["accuracy_error"] == pytest.approx(np.sqrt(p * (1 - p) / 40), rel=0.15)
    right, wrong = np.log(1 + np.exp(-3.0)), np.log(1 + np.exp(3.0))
    assert network["cross_entropy"] == pytest.approx(p * right + (1 - p) * wrong, rel=1e-6)
    assert np.sum(network["confusion"], axis=1).tolist() == labels.sum(axis=0).tolist()
    assert np.trace(network["confusion"]) == 35
    train = testset.Generator(config, split="train").generate(range(64)).label.numpy()
    shares = train.mean(axis=0)
    assert result["class_frequencies"] == pytest.approx(shares)
    assert frequent["accuracy"] == labels.mean(axis=0)[shares.argmax()]
    assert frequent["cross_entropy"] == pytest.approx(-(labels @ np.log(shares)).mean())
    assert (Path(config.run) / "confusion.png").stat().st_size > 10_000
    assert result["figures"] == ["confusion.png"]
    stored = json.loads((Path(config.run) / "evaluation.json").read_text())
    assert stored == json.loads(json.dumps(dict(result)))
    text = str(result)
    assert re.search(r"^network +0\.8750 \+- 0\.0", text, re.MULTILINE)
    assert re.search(r"^always the most frequent +0\.\d{4}", text, re.MULTILINE)
    assert re.search(r"^faint +\d+ +\d+$", text, re.MULTILINE)


def test_a_network_of_other_classes_is_refused(config, monkeypatch):
    config = class_config(config)
    use(monkeypatch, config, Classifier(), classes=["faint", "dim"])
    with pytest.raises(ValueError, match=r"tells faint, dim apart, but .* faint, bright"):
        evaluation.evaluate(config)


def test_single_halos_are_not_taken_for_empty_bins(config, monkeypatch):
    # log10(1) = log10 label of an empty bin = 0: the counts tell
    use(monkeypatch, config, Reader())
    result = evaluation.evaluate(config)
    generator = testset.open_generator(config)
    counts = generator.generate(range(40)).counts.numpy()
    assert (counts == 1).any()
    assert result["network"]["whole"]["num_values"] == (counts > 0).sum()


def test_a_network_set_to_the_mean_label_scores_as_the_mean_label(config, monkeypatch):
    monkeypatch.setattr(evaluation, "_draw", lambda *_: [])
    # the mean label is that of training samples: another generator, another lightcone
    generator = testset.Generator(config, split="train")
    network, batch = mean_network(generator, baselines.MEAN_LABEL_SAMPLES)
    labels = batch.label
    save_run(config, network, generator)
    result = evaluation.evaluate(config)
    assert result["mean_label_log10_dN"] == pytest.approx(labels.mean(0).numpy(), abs=1e-5)
    assert result["network"]["mse"] == pytest.approx(result["mean_label"]["mse"], rel=1e-5)
    test_labels = testset.open_generator(config).generate(range(40)).label.numpy()
    expected = np.mean((labels.mean(0).numpy() - test_labels) ** 2)
    assert result["mean_label"]["mse"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("label", [{}, {"quantity": "phi_L", "scale": "linear"}])
def test_a_network_of_counts_is_judged_by_its_rate(config, monkeypatch, label):
    """Set to the mean count of the training samples, by hand."""
    monkeypatch.setattr(evaluation, "_draw", lambda *_: [])
    whole = to_dict(config) | {"label": {"bins": NUM_BINS, **label}}
    config = from_mapping(whole | {"network": whole["network"] | {"head": "negative_binomial"}})
    generator = testset.Generator(config, split="train")
    network, batch = mean_network(generator, 64)
    save_run(config, network, generator)
    result = evaluation.evaluate(config)
    mean = batch.counts.double().mean(0).clamp(min=1.0).log10().numpy()
    counts = testset.open_generator(config).generate(range(40)).counts.numpy()
    expected = np.mean((mean - np.log10(np.maximum(counts, 1))) ** 2)
    assert result["network"]["mse"] == pytest.approx(expected, rel=1e-4)
    # the deviance of its rate, which lies below one halo in the brightest bins
    rates = batch.counts.double().mean(0).numpy()
    assert rates.min() < 0.5
    brightest = result["network"]["counts"]["ranges"][-1]
    assert brightest["log10_L"] == (6.5, 7.0)
    expected = deviance(rates[-2:], counts[:, -2:]).mean()
    assert brightest["deviance"] == pytest.approx(expected, rel=1e-3)
    whole = result["network"]["counts"]["whole"]["deviance"]
    assert whole == pytest.approx(deviance(rates, counts).mean(), rel=1e-3)
    assert result["mean_label_dN"] == pytest.approx(rates, rel=1e-5)
    intervals = result["network"]["intervals"]["whole"]
    assert 0.6 < intervals["coverage_68"] < intervals["coverage_95"] <= 1.0
    assert 0.0 < intervals["width_68"] < intervals["width_95"]


NO_ESTIMATES = {"log10_L", "num_bins", "num_values", "num", "bright", "maps"}
"""What defines a number or counts the data."""


def without_error(values, where=""):
    """Names of the numbers in an evaluation that have no standard error beside them."""
    if isinstance(values, list):
        for k, value in enumerate(values):
            yield from without_error(value, f"{where}[{k}]")
    if not isinstance(values, dict):
        return
    for key, value in values.items():
        if key.endswith("_error") or key in NO_ESTIMATES:
            continue
        error = values.get(f"{key}_error")
        if key == "percentiles":  # None where a bin is occupied in no map
            if value.keys() != error.keys() or any(
                (one is None) != (other is None)
                for q in value
                for one, other in zip(value[q], error[q], strict=True)
            ):
                yield f"{where}.{key}"
        elif not _numbers(value):
            yield from without_error(value, f"{where}.{key}")
        elif error is None or not _numbers(error):
            yield f"{where}.{key}"


def _numbers(value) -> bool:
    """Whether it is a number or a list of numbers."""
    if isinstance(value, list | tuple):
        return bool(value) and all(map(_numbers, value))
    return isinstance(value, int | float)


@pytest.mark.parametrize("quantity", ["counts", "class"])
def test_every_number_has_an_error(config, monkeypatch, quantity):
    if quantity == "class":
        config = class_config(config)
        use(monkeypatch, config, Classifier(wrong_every=8))
    else:
        whole = to_dict(config)
        config = from_mapping(whole | {"network": whole["network"] | {"head": "gaussian"}})
        generator = testset.Generator(config, split="train")
        save_run(config, mean_network(generator, 64)[0], generator)
        monkeypatch.setattr(evaluation, "_draw", lambda *_: [])
    result = evaluation.evaluate(config)
    baselines = "mean_label" if quantity == "counts" else "most_frequent"
    assert list(without_error(result["network"])) == []
    assert list(without_error(result[baselines])) == []
    assert (
        list(without_error({k: v for k, v in result.items() if k.startswith("mean_label_")})) == []
    )
    if quantity == "counts":
        assert result["bootstrap"]["resampled"] == "maps"
        assert result["network"]["intervals"] and result["network"]["by_bright"]
    del result["network"]["mse_error" if quantity == "counts" else "accuracy_error"]
    assert len(list(without_error(result["network"]))) == 1


def test_lightcones_are_resampled_when_asked_for(config, monkeypatch):
    use(monkeypatch, config, Reader(offset=0.1))
    result = evaluation.evaluate(config, bootstrap="lightcones")
    assert result["bootstrap"]["resampled"] == "lightcones"
    assert result["bootstrap"]["number"] == 2
    assert "bootstrap over lightcones" in str(result)


def test_a_folder_is_enough_wherever_it_lies(config, monkeypatch, tmp_path):
    use(monkeypatch, config, Reader(), draw=True)
    (Path(config.run) / "history.jsonl").write_text(
        '{"step": 10, "loss": 0.5}\n{"step": 20, "validation_loss": 0.3}\n{"st'
    )
    testset.make(config)
    moved = Path(shutil.move(config.run, tmp_path / "elsewhere"))
    result = evaluation.evaluate(moved)
    assert result["figures"] == [
        "comparison.png",
        "functions.png",
        "ratio.png",
        "residual.png",
        "loss.png",
    ]
    assert all((moved / name).stat().st_size > 10_000 for name in result["figures"])
    assert not Path(config.run).exists()


def test_table_puts_the_network_above_the_mean_label(config, monkeypatch):
    use(monkeypatch, config, Reader(offset=0.1))
    lines = table(evaluation.evaluate(config)).splitlines()
    rows = [line.split() for line in lines if re.search(r" (network|mean label) +[+-]", line)]
    starts = ["3.5-4.5", "4.5-5.5", "5.5-6", "6-6.5", "6.5-7", "3.5-7"]
    assert [row[0] for row in rows[::2]] == starts
    assert all(row[1] == "network" and row[2] == "+0.259" for row in rows[::2])
    assert all(row[:2] == ["mean", "label"] for row in rows[1::2])
    assert max(map(len, lines)) <= 100
    assert len({len(line) for line in lines if "network  " in line and " .. " in line}) == 1


def test_one_test_map_is_enough(config, monkeypatch):
    config = replace(config, test=replace(config.test, samples=1))
    use(monkeypatch, config, Reader())
    assert evaluation.evaluate(config)["network"]["mse_error"] is None


def test_what_cannot_be_evaluated_is_refused(config, monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="has no checkpoint"):
        evaluation.evaluate(config)
    with pytest.raises(ValueError, match=r"has no config\.yaml"):
        evaluation.evaluate(tmp_path)
    use(monkeypatch, config, Reader(offset=float("nan")))
    with pytest.raises(ValueError, match="not finite"):
        evaluation.evaluate(config)
    assert not (Path(config.run) / "evaluation.json").exists()


def test_halos_too_bright_are_an_error(config, monkeypatch):
    # on a GPU nothing else looks
    manifest = testset.load(testset.make(config))
    generator = testset.open_generator(config)

    def check(batch):
        raise ValueError("halos are too bright")

    monkeypatch.setattr(type(generator.generate([0])), "check", check)
    with pytest.raises(ValueError, match="too bright"):
        baselines.mean_label(testset.Generator(config, split="train"))
    with pytest.raises(ValueError, match="too bright"):
        predictions.predict(Reader(), manifest, generator)


def test_another_test_set_is_refused(config, monkeypatch, tmp_path):
    use(monkeypatch, config, Reader())
    path = testset.make(config)
    original = path.read_text()
    manifest = json.loads(original)
    manifest["samples"][3] = "0" * 64
    path.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="test sample 3 is not the manifest's"):
        evaluation.evaluate(config)
    path.write_text(original)
    (tmp_path / "north.h5").write_text("other halos")
    with pytest.raises(ValueError, match=r"Lightcone north\.h5 differs"):
        evaluation.evaluate(config)


def test_the_average_of_the_weights_is_judged_where_there_is_one(config, monkeypatch, capsys):
    """A network whose last offset is 0.3 dex and whose average is right."""
    with_parameter = Reader()
    with_parameter.offset = torch.nn.Parameter(torch.tensor(0.3))
    average = {"offset": torch.tensor(0.0)}
    use(monkeypatch, config, with_parameter, average=average)
    assert evaluation.evaluate(config)["network"]["mse"] == 0.0


@pytest.mark.usefixtures("usual_signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_the_command_with_a_sentence_and_nothing_half_written(
    config, monkeypatch, capsys, number
):
    use(monkeypatch, config, Reader(), draw=True)
    (folder := Path(config.run)).joinpath("given.yaml").write_text(config.to_yaml())
    testset.make(config)
    before = sorted(path.name for path in folder.iterdir())
    real = figures.comparison

    def interrupted(*arguments, **more):
        figure = real(*arguments, **more)
        save = figure.savefig

        def half(path, **options):
            Path(path).write_bytes(b"half")
            os.kill(os.getpid(), number)
            save(path, **options)

        figure.savefig = half
        return figure

    monkeypatch.setattr(figures, "comparison", interrupted)
    assert main.main(["evaluate", str(folder / "given.yaml"), "--device", "cpu"]) == 128 + number
    said = capsys.readouterr().err.strip().splitlines()[-1]
    name = "" if number == signal.SIGINT else f" by {number.name}"
    assert said == f"streamtrain: interrupted{name}"
    assert sorted(path.name for path in folder.iterdir()) == before
