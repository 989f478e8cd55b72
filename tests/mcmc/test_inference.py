"""From simulations to the posterior of a map, on a small sky; the mean model learns a conditional
mean, not the noise around it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from scipy.special import ndtri
from support import small

from streamtrain.cli.main import main
from streamtrain.config import Config
from streamtrain.evaluate.testset import open_generator
from streamtrain.generator.generator import Generator
from streamtrain.luminosity.registry import find_model
from streamtrain.mcmc import inference as of_maps
from streamtrain.mcmc import report
from streamtrain.mcmc import simulations as of_simulations
from streamtrain.mcmc.emulator import Emulator
from streamtrain.mcmc.inference import Inference, Options, field_factors
from streamtrain.mcmc.likelihood import Density, Likelihood, covariance
from streamtrain.mcmc.simulations import data_vector, drawn_levels, levels_of, simulate
from streamtrain.numerics.workspace import FreshMemory
from streamtrain.operators.plan import InputMap
from streamtrain.priors import Normal
from streamtrain.ranks import PERCENTILES
from streamtrain.spectra import Box, Power, quantile_edges, shells
from streamtrain.train.trainer import Trainer

pytestmark = small.EXTRAPOLATES

NOISE = {"sigma_uK": [0.2, 0.6], "per": "map_voxel", "absent": 0.2}
SECTIONS: dict[str, Any] = {
    "emit": {"line": {"prior": "narrow"}},
    "observe": {"noise": NOISE, "log_modulus": {}},
}


@pytest.fixture
def skies(tmp_path: Path) -> dict[str, list[str]]:
    """Files of three skies, one for each split."""
    files = {}
    for seed, split in enumerate(("train", "validation", "test")):
        small.lightcone(seed).save(tmp_path / f"{split}.h5")
        files[split] = [str(tmp_path / f"{split}.h5")]
    return files


@pytest.fixture
def short_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean model is learnt in 200 steps, for tests of what is done with it."""
    monkeypatch.setattr(of_maps, "Emulator", partial(Emulator, steps=200))


def config_of(files: dict[str, list[str]], **sections: Any) -> Config:
    return small.config(data=files, **(SECTIONS | sections))


def test_expected_counts_are_the_mean_of_painted_fields(skies: dict[str, list[str]]) -> None:
    """Of 400 fields at one set of parameters: to the scatter of their mean, and their strata."""
    parameters = {"alpha": 1.2, "beta": -1.2, "sigma_lco": 0.35}
    config = config_of(skies, label={"bins": 12}, emit={"line": {"parameters": parameters}})
    generator = Generator(config, "train")
    counts = generator.generate(range(400)).counts.double().numpy()
    defaults = generator.mixture.components[0].model.defaults | parameters
    found = generator.painter.compiled_models[0].expected_counts(
        {name: np.array([value, value]) for name, value in defaults.items()}
    )
    generator.close()
    assert found.shape == (2, 13)
    assert np.array_equal(found[0], found[1])
    mean, error = counts.mean(0), counts.std(0) / 20.0
    many = mean > 20
    assert many.sum() >= 8
    assert (np.abs(found[0, :-1] - mean)[many] < 4.0 * error[many] + 0.02 * mean[many]).all()
    assert found[0].sum() < small.NUM_HALOS


def test_data_vector_is_power_and_voxels_of_the_map(skies: dict[str, list[str]]) -> None:
    """Of the map before log_modulus; what is drawn of the noise is known."""
    config = config_of(skies)
    generator, plain = (
        Generator(config_of(skies, observe=observe), "train")
        for observe in (config.observe, {"noise": NOISE})
    )
    vector = data_vector(generator)
    batch, maps = generator.generate(range(20)), plain.generate(range(20)).cube.double()
    found = vector(batch.cube)
    assert found.shape == (20, vector.size)
    power = Power.spherical(vector.power.box, shells(vector.power.box, 16))
    np.testing.assert_allclose(np.exp(found[:, : vector.num_power]), power(maps).numpy(), rtol=2e-5)
    voxels = vector.voxels(found)
    np.testing.assert_allclose(voxels.sum(1), maps[0].numel())
    edges = np.concatenate([[-np.inf], vector.voxel_edges, [np.inf]])
    truth = np.array([np.histogram(cube.numpy(), edges)[0] for cube in maps])
    assert np.abs(voxels - truth).max() < 5  # roundings of the transform at an edge
    names = drawn_levels(generator)
    assert names == ["noise"]
    levels = levels_of(batch, names)
    assert levels[:, 0].tolist() == [draw["noise"]["sigma_uK"] for draw in batch.draws]
    assert (levels == 0.0).any()
    density = Density.of(
        generator.mixture.components[0].prior, generator.mixture.components[0].model.defaults
    )
    made = simulate(generator, density, vector, 5, 40)
    assert np.array_equal(made.vectors[:15], found[5:])
    assert np.array_equal(made.levels[:15], levels[5:])
    assert made.theta[0].tolist() == [batch.draws[5]["parameters"][n] for n in density.names]
    generator.close()
    plain.close()


def test_levels_of_every_kind_of_noise_are_known(skies: dict[str, list[str]]) -> None:
    """Those that differ from sample to sample, at the edges too; simulations have them as given."""
    edge = {"sigma_uK": [1.0, 9.0]}
    noise = {"noise": {"sigma_uK": 2.0}, "noise_2": {"sigma_uK": 2.0, "absent": 0.5}}
    generator = Generator(config_of(skies, observe={**noise, "edge_noise": edge}), "train")
    names = drawn_levels(generator)
    assert names == ["noise_2", "edge_noise"]
    given = dict(zip(names, (np.full(3, 0.5), np.full(3, 7.0)), strict=True))
    drawing = generator.draw(range(3), levels=given)
    batch = generator.make(drawing, 0, 3, FreshMemory(generator.device))
    assert np.array_equal(levels_of(batch, names), [[0.5, 7.0]] * 3)
    generator.close()


def test_bins_of_t_are_those_of_the_whole_map(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every 16th column, which a step of 16 voxels would take alone, is masked."""
    box = Box((64, 64, 64), (3.0, 1.0, 1.0))
    cube = torch.randn(1, *box.shape, generator=torch.Generator().manual_seed(1))
    cube[..., ::16] = 0.0
    plan = SimpleNamespace(input_map=InputMap(box, (), "uK"))
    generator: Any = SimpleNamespace(config=SimpleNamespace(observation=plan))
    monkeypatch.setattr(of_simulations, "_batches", lambda *_: [SimpleNamespace(cube=cube)])
    edges = data_vector(generator).voxel_edges
    whole = quantile_edges(cube.numpy(), of_simulations.VOXEL_BINS)
    np.testing.assert_allclose(edges, np.unique(whole), atol=0.2)


def test_simulations_at_given_parameters_are_those_of_a_prior_that_holds_them(
    skies: dict[str, list[str]],
) -> None:
    """And of a configuration with that noise level."""
    generator = Generator(config_of(skies), "train")
    component = generator.mixture.components[0]
    density = Density.of(component.prior, component.model.defaults)
    vector = data_vector(generator)
    assert list(density.names) == ["alpha", "beta", "log10_delta_mf", "sigma_lco", "sigma_sfr"]
    rows = np.array([[1.3, -1.7, 0.0, 0.2, 0.3], [1.4, -1.2, 0.1, 0.4, 0.1]])
    theta = rows[np.arange(40) % 2]
    made = simulate(generator, density, vector, 5, 40, theta=theta, levels=np.array([0.4]))
    generator.close()
    assert np.array_equal(made.theta, theta)
    np.testing.assert_allclose(made.levels, 0.4, rtol=1e-6)
    for number, row in enumerate(rows):
        line = {"parameters": dict(zip(density.names, map(float, row), strict=True))}
        noise = {"sigma_uK": 0.4, "per": "map_voxel"}
        config = config_of(skies, emit={"line": line}, observe={"noise": noise, "log_modulus": {}})
        there = Generator(config, "train")
        batch = there.generate(range(5 + number, 45, 2))
        there.close()
        assert np.array_equal(made.vectors[number::2], vector(batch.cube))


FEW = ["--simulations", "160", "--covariance", "60", "--walkers", "12", "--steps", "120"]


@pytest.mark.usefixtures("short_fits")
def test_command_beside_a_network_and_again(
    tmp_path: Path, skies: dict[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """As a user runs it: table, JSON, figures, a warning for the short chain; a second call makes
    only the maps that are missing."""
    run, file = tmp_path / "run", tmp_path / "config.yaml"
    config = config_of(
        skies,
        run=str(run),
        network={"kind": "summaries", "dense": 16},
        label={"quantity": "cumulative", "bins": 7},
        train={"steps": 4, "warmup_steps": 0, "batch_size": 8, "validation_samples": 16,
               "threads": 1},
    )  # fmt: skip
    Trainer(config, "cpu").run()
    file.write_text(config.to_yaml())
    capsys.readouterr()
    assert main(["mcmc", str(file), "--maps", "1", "--device", "cpu", *FEW]) == 0
    first = json.loads((run / "mcmc.json").read_text())
    captured = capsys.readouterr()
    assert "the chain of 120 steps is shorter than 50 autocorrelation times" in captured.err
    for name in ("mcmc.png", "mcmc_parameters.png"):
        assert (run / name).stat().st_size > 10_000
    assert main(["mcmc", str(file), "--maps", "2", "--device", "cpu", *FEW]) == 0
    captured = capsys.readouterr()
    assert "test map 0" not in captured.err
    assert "test map 1: chi^2 =" in captured.err
    second = json.loads((run / "mcmc.json").read_text())
    assert second["maps"][0] == first["maps"][0]
    # one sky each: its offset is in nothing, and that is said
    assert second["training_skies"] == 1 == second["scores"]["bootstrap"]["skies"]
    assert "warning: the simulations are of one sky" in captured.out
    assert "bootstrap over maps\n" in captured.out
    head = captured.out.splitlines()[2]
    assert head.split() == ["log10", "L", "summaries", "mcmc", "mean", "label"]
    generator = open_generator(config)
    batch = generator.generate([0, 1])
    truth = generator.label.log10_counts(batch.label, batch.unit_label).numpy()
    generator.close()
    for entry, true, draw in zip(second["maps"], truth, batch.draws, strict=True):
        assert entry["log10_count"]["true"] == true.tolist()
        assert entry["noise_level"] == [draw["noise"]["sigma_uK"]]
        assert (np.diff(entry["log10_count"]["mean"], axis=0) >= 0).all()
        assert (np.diff(entry["log10_count"]["field"][2]) <= 0).all()  # N(>L)
        for name, values in entry["parameters"].items():
            assert values["true"] == draw["parameters"][name]
    scores = second["scores"]["predictors"]
    assert scores.keys() == {"summaries", "mcmc", "mean label"}
    changed = [*FEW, "--likelihood", "hartlap"]
    before = (run / "mcmc.json").read_bytes()
    command = ["mcmc", str(file), "--maps", "1", "--device", "cpu"]
    for other in (changed, [*FEW, "test.seed=3"]):
        assert main([*command, *other]) == 2
        assert "stays as it is: --out" in capsys.readouterr().err or "test.seed" in other[-1]
    assert main([*command, *changed, "--out", str(tmp_path / "there")]) == 0
    assert "test map 0: chi^2" in capsys.readouterr().err
    assert (run / "mcmc.json").read_bytes() == before and (tmp_path / "there/mcmc.png").is_file()


@pytest.mark.usefixtures("short_fits")
def test_a_networks_parameters_beside_the_chains(
    tmp_path: Path,
    skies: dict[str, list[str]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Their percentiles stand beside the chain's, in its order and units: at the start of a
    training the prior's. A run of other parameters is refused before any work."""
    drawn: list[dict[str, Any]] = []
    monkeypatch.setattr(report, "corner", lambda *_, **more: drawn.append(more) or Figure())
    train = {"steps": 1, "warmup_steps": 0, "batch_size": 8, "validation_samples": 16, "threads": 1}
    of_parameters = {
        "network": {"kind": "summaries", "dense": 16},
        "label": {"quantity": "parameters"},
        "train": train | {"learning_rate": 1e-9},
    }
    Trainer(config_of(skies, run=str(tmp_path / "flow"), **of_parameters), "cpu").run()
    other = {"line": {"prior": "narrow", "parameters": {"sigma_sfr": 0.3}}}
    Trainer(config_of(skies, run=str(tmp_path / "other"), emit=other, **of_parameters), "cpu").run()
    file = tmp_path / "config.yaml"
    file.write_text(config_of(skies, run=str(tmp_path / "run")).to_yaml())
    command = ["mcmc", str(file), "--maps", "1", "--device", "cpu", *FEW, "--beside"]
    capsys.readouterr()
    assert main([*command, str(tmp_path / "other")]) == 2
    assert "other is of other parameters than this configuration: li16 (alpha, beta" in (
        capsys.readouterr().err
    )
    wider = {"line": {"prior": "narrow", "prior_scale": 1.5}}
    Trainer(config_of(skies, run=str(tmp_path / "wider"), emit=wider, **of_parameters), "cpu").run()
    capsys.readouterr()
    assert main([*command, str(tmp_path / "wider")]) == 2
    assert "wider was trained on another prior of its parameters" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "flow")]) == 0
    name = "summaries, parameters"
    [entry] = json.loads((tmp_path / "run" / "mcmc.json").read_text())["maps"]
    prior = find_model("li16").prior("narrow").parameters
    assert entry["parameters"].keys() == prior.keys()
    for parameter, values in entry["parameters"].items():
        given = prior[parameter]
        assert isinstance(given, Normal)
        exact = given.mean + given.width * ndtri(np.array(PERCENTILES) / 100)
        found = np.array(values["networks"][name])
        np.testing.assert_allclose(found, exact, atol=0.15 * given.width)
    [figure] = drawn
    assert figure["beside"][f"network {name}"].shape == (4000, 5)


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        ([], ["--walkers", "8"], "8 walkers are too few for 5 parameters: take at least 10"),
        ([], ["--simulations", "99"], "99 simulations are too few for a mean model and 32"),
        ([], ["--covariance", "20"], "numbers around a line in 5 parameters needs at least"),
        (["emit.line.prior=fiducial"], [], "no parameter of emit.line is drawn: choose a prior"),
        (["emit.blank={}"], [], "emit.blank changes the halos' light beyond it"),
        (["emit.line={mixture: {li16: {}, chung22: {}}}"], [], "emit.line.mixture has li16, chung"),
        ([], ["--beside", "nowhere"], "there is no run 'nowhere'"),
    ],
)
def test_bad_input(
    tmp_path: Path,
    skies: dict[str, list[str]],
    capsys: pytest.CaptureFixture[str],
    settings: list[str],
    options: list[str],
    message: str,
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(config_of(skies, run=str(tmp_path / "run")).to_yaml())
    assert main(["mcmc", str(file), *settings, *options, "--device", "cpu"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error
    assert not (tmp_path / "run" / "mcmc.json").exists()


def test_without_emcee(monkeypatch: pytest.MonkeyPatch, skies: dict[str, list[str]]) -> None:
    monkeypatch.setitem(__import__("sys").modules, "emcee", None)
    with pytest.raises(ValueError, match=r"pip install emcee"):
        report.run(config_of(skies), Options())


@pytest.mark.usefixtures("short_fits")
def test_the_covariance_is_that_of_the_parameters_that_the_chain_finds(
    skies: dict[str, list[str]],
) -> None:
    """Of a map that is 0.6 dex brighter than the prior's centre: other fields with its parameters
    scatter by chi^2 = 1 per number, and by twice that in the covariance of fields at the centre."""
    noise = {"sigma_uK": 0.3, "per": "map_voxel"}
    config = config_of(skies, observe={"noise": noise, "log_modulus": {}})
    inference = Inference(config, Options(300, 200, 12, 200))
    bright, centre = np.array([[1.37, -2.55, 0.0, 0.3, 0.3], [1.37, -1.74, 0.0, 0.3, 0.3]])

    def fields(theta: np.ndarray, first: int, num: int) -> np.ndarray:
        rows = np.tile(theta, (num, 1))
        of = (inference.generator, inference.density, inference.vector)
        return simulate(*of, first, num, theta=rows).vectors

    levels = np.zeros(0)
    posterior = inference.infer(fields(bright, 10**6, 1)[0], levels)
    used, others = posterior.noise.used, fields(bright, 2 * 10**6, 400)[:, posterior.noise.used]
    away = others - others.mean(axis=0)
    at_centre = covariance(fields(centre, 3 * 10**6, 200)[:, used])
    found, fixed = (
        likelihood.chi2(away).mean() / used.sum()
        for likelihood in (posterior.noise.likelihood, Likelihood(at_centre, 200))
    )
    inference.close()
    assert abs(found - 1.0) < 0.2
    assert fixed > 1.8


@pytest.mark.slow
def test_posteriors_hold_the_truth(skies: dict[str, list[str]]) -> None:
    """24 maps of the sky of the simulations: the place of the true parameters among the samples is
    uniform, chi^2 is that of so many numbers, and two thirds of the bins lie in their 68 %."""
    noise = {"sigma_uK": 0.4, "per": "map_voxel"}
    config = config_of(skies, observe={"noise": noise, "log_modulus": {}})
    inference = Inference(config, Options(simulations=1500, covariance=300, steps=1500))
    generator = inference.generator
    first = 100_000  # samples of the stream that nothing was learnt from
    batch = generator.generate(range(first, first + 24))
    vectors, levels = inference.vector(batch.cube), levels_of(batch, inference.levels)
    true = generator.label.log10_counts(batch.label, batch.unit_label).numpy()
    places, chi2, inside = [], [], []
    for k in range(24):
        found = inference.infer(vectors[k], levels[k], seed=k)
        theta = [batch.draws[k]["parameters"][name] for name in inference.density.names]
        places.append((found.chain.samples < theta).mean(axis=0))
        chi2.append(found.chi2 / found.noise.used.sum())
        held_in = (found.field[1] <= true[k]) & (true[k] <= found.field[3])
        inside.append(held_in[true[k] > 1.0].mean())
    inference.close()
    placed = np.array(places)
    # mean of 24 uniform numbers: 0.5 +- 0.06; their scatter 0.29 +- 0.03
    assert (np.abs(placed.mean(axis=0) - 0.5) < 0.24).all()
    assert (placed.std(axis=0) > 0.17).all()
    assert 0.6 < np.mean(chi2) < 1.4
    assert 0.5 < np.mean(inside) < 0.9


@pytest.mark.usefixtures("short_fits")
@pytest.mark.parametrize("mean", [30.0, 1e5])
def test_fields_scatter_without_the_poisson_scatter_of_their_halos(mean: float) -> None:
    """Which is drawn once more for a posterior's own counts: few halos scattered twice."""
    rng = np.random.default_rng(0)
    fields = np.exp(0.1 * rng.normal(size=4000) - 0.005)
    expected = mean * rng.uniform(0.7, 1.3, 4000)
    found = field_factors(rng.poisson(expected * fields).astype(float), expected)
    assert found.mean() == pytest.approx(1.0)
    assert found.std() == pytest.approx(0.1, abs=0.012)
    own = rng.poisson(mean * rng.choice(found, 4000)).std() / mean
    assert own == pytest.approx(np.sqrt(0.01 + 1.0 / mean), rel=0.06)


def test_fields_without_halos_tell_no_scatter() -> None:
    few = np.array([0.0, 0.0, 1.0])
    assert np.isfinite(field_factors(few, np.array([0.0, 0.5, 0.5]))).all()
    assert (field_factors(np.zeros(3), np.array([0.0, 0.2, 0.1])) == 1.0).all()


def test_a_count_at_the_end_of_a_band_is_inside() -> None:
    """Labels are of single precision: log10 of 2 is more there than that of a drawn 2."""
    halos = np.arange(1.0, 51.0)
    true = np.log10(halos).astype(np.float32).astype(np.float64)[None]
    assert (true > np.log10(halos)).any() and (true < np.log10(halos)).any()
    ends = np.repeat(np.log10(halos)[None], 5, axis=0)  # of counts that are known
    kept = [{"log10_count": {"mean": ends.tolist(), "field": ends.tolist()}}]
    test: Any = SimpleNamespace(
        true=true, occupied=np.ones((1, 50), bool), skies=["sky"], networks={}
    )
    inference: Any = SimpleNamespace(
        generator=SimpleNamespace(bin_edges=np.linspace(3.0, 7.0, 51)),
        simulations=SimpleNamespace(log10_counts=true),
    )
    assert report._scores(kept, test, inference)["coverage"] == {"68 %": 1.0, "95 %": 1.0}


def test_interrupted_chain_leaves_whole_maps(
    tmp_path: Path, skies: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(skies, run=str(tmp_path / "run"))
    options = Options(160, 60, 12, 40)
    usual, calls = Inference.infer, []

    def infer(self: Inference, *given: Any, **more: Any) -> Any:
        calls.append(more["seed"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return usual(self, *given, **more)

    monkeypatch.setattr(Inference, "infer", infer)
    with pytest.raises(KeyboardInterrupt):
        report.run(config, options, maps=2)
    assert len(json.loads((tmp_path / "run" / "mcmc.json").read_text())["maps"]) == 1
    assert not list((tmp_path / "run").glob("*.part"))
    report.run(config, options, maps=2)
    assert calls == [0, 1, 1]
    monkeypatch.setattr(report, "METHOD", 1)
    with pytest.raises(ValueError, match="another version of the method, and stays as it is"):
        report.run(config, options, maps=2)
    assert torch.is_grad_enabled()


def curve(x: np.ndarray) -> np.ndarray:
    """Three smooth functions of two inputs, one of them not straight at all."""
    a, b = x.T
    return np.stack([3.0 + a - 2.0 * b, 100.0 * np.log(np.exp(a) + b**2), np.full(len(x), 5.0)], 1)


def test_learns_the_mean_below_the_noise() -> None:
    rng = np.random.default_rng(0)
    inputs = np.stack([rng.normal(2.0, 0.5, 3000), rng.uniform(0.0, 3.0, 3000)], axis=1)
    truth = curve(inputs)
    noise = rng.normal(size=truth.shape) * [0.3, 10.0, 0.0]
    seen: list[int] = []
    emulator = Emulator(
        inputs, truth + noise, steps=600, report=lambda step, steps: seen.append(step)
    )
    assert seen[-1] == 600
    points = np.stack([rng.normal(2.0, 0.4, 500), rng.uniform(0.2, 2.8, 500)], axis=1)
    error = np.sqrt(np.mean((emulator(points) - curve(points)) ** 2, axis=0))
    assert error[0] < 0.3 / 5
    assert error[1] < 10.0 / 5
    assert error[2] < 1e-6
    variance = (truth + noise).var(axis=0)
    np.testing.assert_allclose(emulator.unexplained[:2], [0.09, 100.0] / variance[:2], rtol=0.25)


def test_a_straight_line_is_kept_exactly() -> None:
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(200, 2))
    vectors = inputs @ np.array([[1.0, 2.0], [-3.0, 0.5]]) + 4.0
    emulator = Emulator(inputs, vectors, steps=50)
    np.testing.assert_allclose(emulator(inputs), vectors, atol=1e-6)


def test_too_few_simulations() -> None:
    with pytest.raises(ValueError, match="99 simulations are too few for an emulator: take 100"):
        Emulator(np.zeros((99, 1)), np.zeros((99, 2)))
