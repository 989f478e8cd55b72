"""What TensorBoard and the log show of a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from support.fake_generator import FakeGenerator, FakeTrainer, tiny_config
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.backend_context import Context
from torch import Tensor

from streamtrain import figures, load_config
from streamtrain.config import Config
from streamtrain.generator.generator import Batch
from streamtrain.generator.windows import SkiesInUse
from streamtrain.machine.memory import memory_use
from streamtrain.machine.progress import Progress
from streamtrain.train import monitor
from streamtrain.train.folder import read_history
from streamtrain.train.monitor import Monitor
from streamtrain.train.stopwatch import Times
from streamtrain.train.tensorboard import hyper_parameters
from streamtrain.train.validation import RESIDUAL_EDGES, Example, Summary

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def drawn_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures of trainings are drawn, in spite of `empty_figures` of conftest."""
    for name in ("map_slices", "luminosity_function"):
        monkeypatch.setattr(monitor, name, getattr(figures, name))


def events_of(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"tensors": 0, "histograms": 0}).Reload()


def texts(events: EventAccumulator, tag: str) -> list[tuple[int, str]]:
    return [
        (e.step, e.tensor_proto.string_val[0].decode())
        for e in events.Tensors(f"{tag}/text_summary")
    ]


class Blind(FakeTrainer):
    """Its network sees no map."""

    def _evaluate(self, batch: Batch) -> tuple[Tensor, Tensor]:
        batch.cube.zero_()
        return super()._evaluate(batch)


def train(
    config: Config, kind: type[FakeTrainer] = FakeTrainer, steps: int | None = None
) -> Summary:
    return kind(config, max_steps=steps).run()


def test_a_network_that_sees_nothing_is_warned_of_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tiny_config(tmp_path, steps=20, validate_every=4), Blind)
    assert capsys.readouterr().err.count("hardly depend on the maps") == 1
    events = events_of(tmp_path)
    [(step, text)] = texts(events, "warning")
    assert (
        step == 4 and "maps without a halo change the mean prediction by" in text
    )  # a fifth of 20
    assert all(abs(e.value) < 0.01 for e in events.Scalars("probe/skill"))


def test_a_network_that_learns_is_not_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(
        tmp_path, 0.0, steps=150, validate_every=150, validation_samples=64, learning_rate=2e-2
    )
    result = train(config).validation
    assert result is not None and result.dependence.skill > 0.5
    assert result.dependence.blank_dex is not None and result.dependence.blank_dex > 0.1
    assert "hardly depend" not in capsys.readouterr().err
    last = read_history(tmp_path / "history.jsonl")[-1]
    assert last["skill"] == result.dependence.skill
    assert last["blank_dex"] == result.dependence.blank_dex


def test_probes_are_those_of_the_samples(tmp_path: Path) -> None:
    """By hand, from the same samples and the last weights."""
    config = tiny_config(tmp_path, validation_samples=11)
    trainer = FakeTrainer(config)
    result = trainer.run().validation
    assert result is not None
    generator = FakeGenerator(config, "validation")
    batch = generator.generate(range(11))
    trainer.network.eval()
    with torch.no_grad():
        answer = trainer.network(batch.cube).double().numpy()
        blank = trainer.network(generator.blank(range(8))).double().numpy().mean(0)
    true = batch.label.double().numpy()
    error = np.mean((answer - true) ** 2)
    exchanged = np.mean([(np.roll(answer, k, 0) - true) ** 2 for k in range(1, 11)])
    assert result.dependence.skill == pytest.approx(1 - error / exchanged, rel=1e-4, abs=1e-6)
    away = np.sqrt(np.mean((blank - answer.mean(0)) ** 2))
    assert result.dependence.blank_dex == pytest.approx(away, rel=1e-4)
    [every] = [r for r in result.residuals if r.name == "all"]
    residuals = (answer - true).ravel()
    counts = np.histogram(residuals.clip(-0.999, 0.999), RESIDUAL_EDGES)[0]
    assert every.counts.tolist() == counts.tolist()
    assert every.total == pytest.approx(residuals.sum(), rel=1e-4)
    assert every.squares == pytest.approx((residuals**2).sum(), rel=1e-4)
    [shown] = events_of(tmp_path).Histograms("residual_dex/logL_all")[-1:]
    assert shown.histogram_value.bucket == counts.tolist()
    assert shown.histogram_value.bucket_limit == RESIDUAL_EDGES[1:].tolist()


@pytest.mark.usefixtures("drawn_figures")
def test_everything_is_shown(tmp_path: Path) -> None:
    result = train(tiny_config(tmp_path)).validation
    assert result is not None
    events = events_of(tmp_path)
    ranges = [error.name for error in result.ranges]
    assert ranges[-1] == "all" and len(ranges) == 6
    wanted = {
        *(f"error_dex/logL_{name}" for name in ranges),
        "loss/train",
        "loss/validation",
        "memory/process_GB",
        "optimiser/gradient_norm",
        "optimiser/learning_rate",
        "probe/blank_dex",
        "probe/skill",
        "progress/lightcones_seen",
        "progress/samples_seen",
        "speed/generate_ms",
        "speed/samples_per_s",
        "speed/train_ms",
        "speed/wait_ms",
        "speed/overlap",
    }
    assert wanted == set(events.Tags()["scalars"])
    assert set(events.Tags()["histograms"]) == {f"residual_dex/logL_{name}" for name in ranges}
    assert set(events.Tags()["images"]) == {"map", "luminosity_function"}


def test_the_mean_label_is_a_run_of_its_own(tmp_path: Path) -> None:
    """It has the names of the network's curves, and so another colour in the same charts."""
    result = train(tiny_config(tmp_path)).validation
    assert result is not None
    beside, own = events_of(tmp_path / "mean_label"), events_of(tmp_path)
    wanted = {f"error_dex/logL_{error.name}": error.baseline_dex for error in result.ranges}
    assert result.mean_label_loss is not None
    wanted["loss/validation"] = result.mean_label_loss
    assert set(wanted) == set(beside.Tags()["scalars"]) <= set(own.Tags()["scalars"])
    for tag, value in wanted.items():
        assert [e.step for e in beside.Scalars(tag)] == [e.step for e in own.Scalars(tag)]
        assert beside.Scalars(tag)[-1].value == pytest.approx(value)
    train(tiny_config(tmp_path / "class", label={"quantity": "class"}))
    assert not (tmp_path / "class" / "mean_label").exists()


@pytest.mark.parametrize("head", ["mse", "poisson", "joint_counts"])
def test_mean_label_loss_is_that_of_an_untrained_network(
    tmp_path: Path, head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose prediction is the mean label; the line of the progress has it."""
    said: list[str] = []
    monkeypatch.setattr(Progress, "note", lambda self, text: said.append(text))
    monkeypatch.setattr(Progress, "update", lambda self, text: said.append(text))
    network = {"kind": "means", "layers": 1, "filters": 4, "dense": 8, "head": head}
    config = tiny_config(
        tmp_path, network=network, validation_samples=16, steps=6, learning_rate=1e-2
    )
    trainer = FakeTrainer(config)
    batch = FakeGenerator(config, "validation").generate(range(16))
    untrained = []
    step = trainer._step

    def first(batches: Iterator[Batch]) -> bool:
        if not untrained:
            with torch.no_grad():
                prediction = trainer.network.eval()(batch.cube)
                given = (batch.label, batch.counts, batch.unit_label)
                untrained.append(float(trainer.network.head.loss(prediction, *given)))
        return step(batches)

    monkeypatch.setattr(trainer, "_step", first)
    result = trainer.run().validation
    assert result is not None and result.mean_label_loss is not None
    assert result.mean_label_loss == pytest.approx(untrained[0], rel=1e-5)
    assert abs(result.loss / untrained[0] - 1.0) > 1e-3
    [*_, entry] = [e for e in read_history(tmp_path / "history.jsonl") if "validation_loss" in e]
    assert entry["mean_label_loss"] == result.mean_label_loss
    assert any(f"(mean label {result.mean_label_loss:.4g})" in text for text in said)


@pytest.mark.usefixtures("drawn_figures")
def test_the_map_is_shown_with_the_light_of_its_halos(tmp_path: Path) -> None:
    """In map units: what the transforms at the end did to the map is undone."""
    file = tmp_path / "c.yaml"
    file.write_text("grid: {shape: [2, 8, 8]}\nobserve: {noise: {sigma_uK: 1}, log_modulus: {}}\n")
    config = load_config(str(file), [f"run={tmp_path / 'run'}"])
    label = FakeGenerator(tiny_config(tmp_path)).label
    shown = Monitor(tmp_path / "run", config, label, torch.device("cpu"), 0)
    rng = np.random.default_rng(3)
    signal, noise = np.abs(rng.normal(size=(2, 8, 8))), rng.normal(size=(2, 8, 8))
    cube, nothing = (np.sign(v) * np.log10(1 + np.abs(v)) for v in (signal + noise, noise))
    draw = {
        "lightcone": "sky.h5",
        "model": "li16",
        "parameters": {"alpha": 1.37},
        "noise": {"a": 2},
    }
    figure = shown._maps(Example(cube, nothing, draw, None))
    shown.close()
    title = figure.get_suptitle()
    assert title.startswith("validation sample 0: the map that the network sees, and the light")
    assert "model li16 (alpha = 1.37); noise (a = 2)" in title and "sky.h5" not in title
    assert np.allclose(figure.axes[0].images[0].get_array(), cube[0])
    assert np.allclose(figure.axes[2].images[0].get_array(), signal[0])
    assert figure.axes[5].get_ylabel() == "halos' light [uK]"


def test_the_time_that_is_left_is_that_of_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is done once, before the first steps of a training or after a resume, is no part of
    it."""
    config = tiny_config(tmp_path, steps=200)
    label = FakeGenerator(config).label
    clock, said = [100.0], []
    monkeypatch.setattr(monitor.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(monitor.Progress, "update", lambda _, text: said.append(text))
    shown = Monitor(tmp_path / "run", config, label, torch.device("cpu"), 90)
    times = Times(32.0, 1.0, 2.0, 0.0, 1.0)
    for step, passed in ((100, 400.0), (110, 5.0), (120, 5.0)):
        clock[0] += passed
        shown._show(step, 1.0, times)
    shown.close()
    assert "left" not in said[0] and said[0].endswith("train 2 ms")
    assert said[1].endswith("  left 0:45") and said[2].endswith("  left 0:40")


def test_hyper_parameters_are_shown_with_the_last_metrics(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, learning_rate=3e-3)
    train(config, steps=5)
    assert plugin(tmp_path, metadata.SESSION_END_INFO_TAG) is None
    train(config)
    session = plugin(tmp_path, metadata.SESSION_START_INFO_TAG)
    assert session is not None
    shown = session.session_start_info.hparams
    assert shown["train.learning_rate"].number_value == 3e-3
    assert shown["network.kind"].string_value == "hybrid"
    assert set(shown) == set(hyper_parameters(config))
    assert plugin(tmp_path, metadata.SESSION_END_INFO_TAG) is not None


def test_hyper_parameters_begin_with_those_in_which_runs_differ(tmp_path: Path) -> None:
    """As TensorBoard lists them for the folder of all runs, and so in its first columns."""
    for name, more in (("a", {"learning_rate": 7e-4}), ("b", {"weight_decay": 0.1})):
        train(tiny_config(tmp_path / name, **more))
    runs = EventMultiplexer().AddRunsFromDirectory(str(tmp_path)).Reload()
    board = Context(TBContext(data_provider=MultiplexerDataProvider(runs, str(tmp_path))))
    written = board.hparams_metadata(RequestContext(), "")
    experiment = board.experiment_from_metadata(RequestContext(), "", True, written, [])
    names = [info.name for info in experiment.hparam_infos]
    assert names[:2] == ["train.learning_rate", "train.weight_decay"] and len(names) > 20
    shown = {info.name.tag for info in experiment.metric_infos}
    assert {"loss/validation", "error_dex/logL_all", "probe/skill"} <= shown


def plugin(folder: Path, tag: str) -> metadata.plugin_data_pb2.HParamsPluginData | None:
    content = events_of(folder).PluginTagToContent(metadata.PLUGIN_NAME).get(tag)
    if content is None:
        return None
    return metadata.plugin_data_pb2.HParamsPluginData.FromString(content)


def test_operators_and_modifiers_are_hyper_parameters(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("observe: {noise: {sigma_uK: 7}, pool: {factor: [1, 2, 2]}}\n")
    found = hyper_parameters(load_config(str(file)))
    assert found["observe.noise.sigma_uK"] == 7
    assert found["observe.pool.factor"] == "(1, 2, 2)"


class OfManySkies(FakeGenerator):
    def skies_of(self, index: int) -> SkiesInUse:
        window = index // 40  # five steps of eight
        return SkiesInUse([f"sky_{window}", "other"], window + 2)


def test_lightcones_are_named_when_they_change(tmp_path: Path) -> None:
    FakeTrainer(tiny_config(tmp_path, steps=12, log_every=2), generator=OfManySkies).run()
    events = events_of(tmp_path)
    assert texts(events, "lightcones in use") == [
        (2, "sky_0, other"),
        (6, "sky_1, other"),
        (12, "sky_2, other"),
    ]
    seen = {e.step: e.value for e in events.Scalars("progress/lightcones_seen")}
    assert seen == {2: 2, 4: 2, 6: 3, 8: 3, 10: 3, 12: 4}


class OfFive(OfManySkies):
    def skies_of(self, index: int) -> SkiesInUse:
        return SkiesInUse(["some"], super().skies_of(index).seen, 5)


def test_lightcones_without_a_turn_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each split: a validation of few samples sees the first lightcones alone."""
    said: list[str] = []
    monkeypatch.setattr(Progress, "note", lambda self, text: said.append(text))
    FakeTrainer(tiny_config(tmp_path, steps=18, validation_samples=16), generator=OfFive).run()
    [warning] = [text for text in said if "of 5 lightcones" in text]
    assert warning.startswith("warning: the 16 samples of validation are of 2 of 5 lightcones, as")
    said.clear()
    short = tiny_config(tmp_path / "short", steps=4, validation_samples=160)
    FakeTrainer(short, generator=OfFive).run()
    [warning] = [text for text in said if "of 5 lightcones" in text]
    assert warning.startswith("warning: the 32 samples of train are of 2 of 5 lightcones, as")


def test_memory_grows_with_what_is_held() -> None:
    before = memory_use(torch.device("cpu"))["process_GB"]
    held = np.ones(25_000_000)
    after = memory_use(torch.device("cpu"))["process_GB"]
    assert after - before == pytest.approx(held.nbytes / 1e9, abs=0.02)


@pytest.mark.usefixtures("drawn_figures")
def test_a_joint_posterior_is_watched(tmp_path: Path) -> None:
    """Coverage, bias and log probability of the validation samples, in TensorBoard and history."""
    network = {"kind": "means", "layers": 1, "filters": 4, "dense": 8, "head": "joint_counts"}
    config = tiny_config(tmp_path, network=network, steps=4, validation_samples=30)
    trainer = FakeTrainer(config)
    result = trainer.run().validation
    assert result is not None
    batch = FakeGenerator(config, "validation").generate(range(30))
    with torch.no_grad():
        log_q = trainer.network.head.log_prob(trainer.network.eval()(batch.cube), batch.counts)
    found = result.posterior
    assert found["log_probability"] == pytest.approx(log_q.mean().item(), rel=1e-6)
    for name in ("logL_all", "light", "bins", "curve", "density", "distance"):
        assert 0 <= found[f"coverage_68/{name}"] <= found[f"coverage_95/{name}"] <= 1
    assert abs(found["bias_sigma/light"]) < 3
    [entry] = [e for e in read_history(tmp_path / "history.jsonl") if "validation_loss" in e]
    shown = events_of(tmp_path)
    for name, value in found.items():
        assert entry[f"posterior/{name}"] == value
        [scalar] = shown.Scalars(f"posterior/{name}")
        assert scalar.value == pytest.approx(value, rel=1e-6)
    other = FakeTrainer(tiny_config(tmp_path / "other", steps=4)).run().validation
    assert other is not None and not other.posterior
