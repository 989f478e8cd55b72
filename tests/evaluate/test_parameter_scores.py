"""A posterior of parameters through a run: trained, continued, evaluated, inferred; and misuse."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from support import map_runs as runs
from support import small
from support.network_tools import network_for
from torch import Tensor

from streamtrain.config import Config, ConfigError, from_mapping
from streamtrain.evaluate import evaluation
from streamtrain.evaluate.bootstrap import Bootstrap
from streamtrain.evaluate.calibration.calibration import check_head
from streamtrain.evaluate.compare.compare_runs import compare_runs
from streamtrain.evaluate.inference.infer import Options, infer
from streamtrain.evaluate.inference.parameter_posterior import parameters_of
from streamtrain.evaluate.interpret.layers import target_of
from streamtrain.evaluate.interpret.probes import run_probes
from streamtrain.evaluate.parameter_scores import (
    DRAWN,
    ParameterPredictions,
    PosteriorOf,
    parameter_figure,
    score_parameters,
    scores_of_parameters,
    together,
)
from streamtrain.evaluate.posterior.posterior import check_posterior
from streamtrain.evaluate.predictions import predict_batches
from streamtrain.evaluate.robustness.scenarios import evaluate_scenarios
from streamtrain.evaluate.run import Run
from streamtrain.generator.generator import Generator
from streamtrain.labels import Label, LabelConfig, ModelParameters
from streamtrain.mcmc import simulations
from streamtrain.networks.flow import FlowHead
from streamtrain.ranks import QUANTILE_NAMES
from streamtrain.schema import to_dict
from streamtrain.train.checkpoint import newest
from streamtrain.train.trainer import Trainer
from streamtrain.train.validation import _parameter_errors

pytestmark = [small.EXTRAPOLATES, small.ASSUMES]

LINE = {"model": "chung22", "prior": "correlated"}
MIXTURE = {"mixture": {"li16": {"prior": "narrow"}, "breysse15": {}, "chung22": {"prior": "wide"}}}
STEPS = 6


def run_of(folder: Path, line: dict[str, Any], **changes: Any) -> Config:
    """A small run whose checkpoint has random weights; `Trainer` begins it anew elsewhere."""
    folder.mkdir(parents=True, exist_ok=True)
    small.lightcone(3).save(folder / "validation.h5")
    made = runs.make_run(
        folder,
        grid={"fov_deg": runs.FOV_DEG, "shape": [9, 20, 24], "brightest_Lsun": 1e12},
        emit={"line": line},
        label={"quantity": "parameters"},
        train={
            "steps": STEPS, "batch_size": 8, "validate_every": 3, "validation_samples": 10,
            "checkpoint_every": 3, "log_every": 3, "threads": 1,
        },
        **changes,
    )  # fmt: skip
    validation = [str(folder / "validation.h5")]
    return replace(made, data=replace(made.data, validation=validation))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return run_of(tmp_path_factory.mktemp("one"), LINE)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return run_of(tmp_path_factory.mktemp("mixed"), MIXTURE)


@pytest.mark.parametrize("line", [LINE, MIXTURE], ids=["one model", "mixture"])
def test_a_run_trains_and_goes_on_to_the_bit(tmp_path: Path, line: dict[str, Any]) -> None:
    config = run_of(tmp_path, line)
    weights = []
    for name, calls in (("whole", (None,)), ("parts", (4, None))):
        there = replace(config, run=str(tmp_path / name))
        for max_steps in calls:
            summary = Trainer(there, max_steps=max_steps).run()
        found = newest(tmp_path / name / "checkpoints")
        assert found is not None
        weights.append(found.state["network"])
    for name, values in weights[0].items():
        assert torch.equal(values, weights[1][name]), name
    assert summary.step == STEPS and summary.validation is not None
    result = summary.validation
    assert np.isfinite(result.loss) and not result.ranges
    known = {error.name for error in result.parameters}
    expected = {"A", "B"} if line is LINE else {"li16.alpha", "chung22.sigma"}
    assert expected <= known
    assert all(0.2 < error.baseline < 3.0 for error in result.parameters)
    assert (result.classes is None) == (line is LINE)
    [entry] = [
        json.loads(text)
        for text in (tmp_path / "parts" / "history.jsonl").read_text().splitlines()
        if f'"step": {STEPS}, "validation_loss"' in text
    ]
    assert entry["validation_loss"] == result.loss
    assert {f"parameter_error_{name}" for name in known} <= entry.keys()
    # what the prior with its conditions knows is no skill: of chung22's wide one A < B
    generator = Generator(config, "validation")
    made = [generator.classes.index(draw["model"]) for draw in generator.generate(range(10)).draws]
    share = stats.norm.cdf((0.04 + 1.66) / np.hypot(2.33, 1.26))
    accepted = np.exp(generator.ln_accepted())
    assert accepted[-1] < (1.0 if line is LINE else share + 0.03)
    assert entry["prior_loss"] == pytest.approx(np.log(accepted)[made].mean())
    information = entry["prior_loss"] - entry["validation_loss"]
    assert entry["skill"] == pytest.approx(1.0 - np.exp(-2.0 * information))
    generator.close()


def test_errors_stand_beside_those_of_the_mean_parameter() -> None:
    """Which is not the prior's median where conditions narrow the prior."""
    models = [ModelParameters(("a",), 1.0, np.eye(1))]
    label = Label(LabelConfig(quantity="parameters"), classes=["one"], parameters=models)
    true = 2.0 + 0.5 * np.random.default_rng(1).standard_normal(200)
    totals = np.array([[9.0], [200.0], [true.sum()], [(true**2).sum()]])
    [error] = _parameter_errors(label, totals)
    assert error.rms == pytest.approx(np.sqrt(9.0 / 200)) and error.name == "a"
    assert error.baseline == pytest.approx(true.std())


def test_the_first_loss_is_the_priors(config: Config) -> None:
    """Whatever the maps: an untrained network has no information."""
    generator = Generator(config, "train")
    network = network_for(generator)
    batch = generator.generate(range(12))
    prediction = network(batch.cube)
    loss = network.head.loss(prediction, batch.label, batch.counts, batch.unit_label)
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    generator.close()


def posteriors(
    centre: Callable[[Tensor], Tensor], width: float, number: int = 1500
) -> ParameterPredictions:
    """What is scored of posteriors N(centre, width^2) of scores x given x + 0.5 noise."""
    random = np.random.default_rng(2)
    true = random.standard_normal((number, 2))
    seen = true + 0.5 * random.standard_normal((number, 2))
    mean = np.asarray(centre(torch.from_numpy(seen)))
    draws = mean + width * random.standard_normal((DRAWN, number, 2))
    exact = stats.norm(mean, width).logpdf(true) - stats.norm.logpdf(true)
    models = [ModelParameters(("a", "b"), 1.0, np.eye(2))]
    label = Label(LabelConfig(quantity="parameters"), classes=["one"], parameters=models)
    return ParameterPredictions(
        information=exact.sum(axis=1),
        ln_accepted=np.zeros(1),
        model=np.zeros(number, np.int64),
        chances=np.ones((number, 1)),
        true=true,
        mean=draws.mean(axis=0),
        std=draws.std(axis=0),
        rank=((draws < true).sum(axis=0) + random.random(true.shape)) / (DRAWN + 1),
        region=random.random(number),
        quantiles=np.percentile(draws, (16, 50, 84), axis=0),
        true_values=true,
        label=label,
    )


def test_the_scores_of_exact_posteriors_are_those_in_closed_form() -> None:
    """x given x + 0.5 noise: normal with mean 0.8 seen and variance 0.2; 0.8 nat of each."""
    made = posteriors(lambda seen: 0.8 * seen, np.sqrt(0.2))
    bootstrap = Bootstrap.of_maps(1500)
    assert made.information.mean() == pytest.approx(np.log(5.0), abs=4 * 1.3 / np.sqrt(1500))
    for score in score_parameters(made, bootstrap).values():
        assert score.maps == sum(score.ranks) == 1500
        assert score.width == pytest.approx(np.sqrt(0.2), rel=0.01)
        assert score.rms_error is not None and score.bias_sigma_error is not None
        assert abs(score.rms - np.sqrt(0.2)) < 4 * score.rms_error
        assert abs(score.bias_sigma) < 4 * score.bias_sigma_error
        assert score.coverage_68 == pytest.approx(0.68, abs=4 * 0.47 / np.sqrt(1500))
        assert score.coverage_95 == pytest.approx(0.95, abs=4 * 0.22 / np.sqrt(1500))
        assert stats.chisquare(score.ranks).pvalue > 1e-3 and score.p > 1e-3
    assert parameter_figure(made).axes


def test_wrong_posteriors_are_seen() -> None:
    """0.8 of the width, and 0.3 sigma beside the truth."""
    bootstrap = Bootstrap.of_maps(1500)
    narrow = score_parameters(posteriors(lambda s: 0.8 * s, 0.8 * np.sqrt(0.2)), bootstrap)
    assert narrow["a"].coverage_68 < 0.62 and narrow["a"].p < 1e-6
    moved = score_parameters(
        posteriors(lambda s: 0.8 * s + 0.3 * np.sqrt(0.2), np.sqrt(0.2)), bootstrap
    )
    assert moved["b"].bias_sigma == pytest.approx(0.3, abs=0.1)
    assert stats.chisquare(moved["b"].ranks).pvalue < 1e-6 and moved["b"].p < 1e-6


class Correlated(FlowHead):
    """A head whose posterior of two scores is known: of correlation 0.9, or, `destroyed`, 0."""

    destroyed = False

    def sample_scores(self, prediction: Tensor, number: int, generator: torch.Generator) -> Tensor:
        normal = torch.randn(number, len(prediction), 2, generator=generator)
        if not self.destroyed:
            normal[..., 1] = 0.9 * normal[..., 0] + np.sqrt(0.19) * normal[..., 1]
        return prediction[:, :2] + 0.3 * normal

    def log_prob(self, prediction: Tensor, label_bn: Tensor) -> Tensor:
        return torch.zeros(len(prediction))


@pytest.mark.parametrize("destroyed", [False, True])
def test_a_destroyed_correlation_with_right_marginals_is_seen(
    config: Config, destroyed: bool
) -> None:
    """By the regions of both parameters together, at 2000 maps."""
    line = {"parameters": {"alpha": {"normal": [1.2, 0.1]}, "beta": {"normal": [0.0, 1.0]}}}
    changed = from_mapping(to_dict(config) | {"emit": {"line": line}})
    generator = Generator(changed, "test")
    posterior = PosteriorOf(generator)
    with torch.random.fork_rng(devices=[]):
        head = Correlated(generator.label, "flow")
    head.destroyed = destroyed
    batch = generator.generate([0])
    random = torch.Generator().manual_seed(4)
    parts = []
    # of the means, so that the truth is standard normal
    root = torch.linalg.cholesky(torch.eye(2) - 0.09 * torch.tensor([[1.0, 0.9], [0.9, 1.0]]))
    for number in range(20):
        mean = torch.randn(100, 2, generator=random) @ root.T
        noise = torch.randn(100, 2, generator=random)
        noise[:, 1] = 0.9 * noise[:, 0] + np.sqrt(0.19) * noise[:, 1]
        indices = [100 * number + k for k in range(100)]
        many = replace(batch, label=mean + 0.3 * noise, indices=indices)
        parts.append(posterior.part(head, many, mean))
    made = together(parts, posterior, generator.label, [])
    found = scores_of_parameters(made, Bootstrap.of_maps(2000), "none")["network"]
    for score in found["parameters"].values():
        assert score["p"] > 1e-3
    assert (found["regions"]["p"] < 1e-6) == destroyed
    if not destroyed:
        assert found["regions"]["p"] > 1e-3
        assert found["regions"]["coverage_68"] == pytest.approx(0.68, abs=4 * 0.47 / np.sqrt(2000))
    generator.close()


@pytest.mark.parametrize("which", ["config", "mixed"])
def test_evaluate_says_what_the_network_knows(which: str, request: pytest.FixtureRequest) -> None:
    """The information is that of the head's densities, with the prior's conditions."""
    config: Config = request.getfixturevalue(which)
    result = evaluation.evaluate(config)
    text = str(result)
    assert "information over the prior:" in text and "bias/sigma" in text
    assert "bias/sigma of the posterior's mean, positive if it is too high" in text
    with Run(config) as run:
        manifest, generator = run.test_set()
        network, head = run.network(generator), run.network(generator).head
        assert isinstance(head, FlowHead)
        batch = generator.generate(range(manifest.count))
        with torch.inference_mode():
            output = network(batch.cube)
            found = head.log_prob(output, batch.label) - head.log_prior(batch.label)
        chosen = [generator.classes.index(draw["model"]) for draw in batch.draws]
        accepted = np.log([result["accepted"][generator.classes[k]] for k in chosen])
    expected = found.double().numpy() + accepted
    assert result["network"]["information"] == pytest.approx(expected.mean(), rel=1e-4)
    network_of = result["network"]
    number = sum(of["maps"] for of in network_of["parameters"].values())
    sizes = {"li16": 5, "breysse15": 0, "chung22": 5}
    assert number == sum(sizes[generator.classes[k]] for k in chosen)
    assert ("confusion" in network_of) == (which == "mixed")
    assert result["accepted"]["chung22"] < 1.0
    folder = Path(config.run)
    assert json.loads((folder / "evaluation.json").read_text())["label"] == "parameters"
    assert {"parameters.png"} <= {*result["figures"]}
    table = compare_runs([folder], folder / "compared")
    assert "information [nat]" in table


def test_infer_gives_parameters_in_their_own_units(
    mixed: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Percentiles of samples of each model, within its prior; every file says the same."""
    pytest.importorskip("astropy")
    from astropy.table import Table

    path = runs.write_fits(tmp_path / "map.fits", runs.map_of(mixed, 3))
    result = infer(mixed, path, Options(out=tmp_path / "out", samples=0))
    models = result["models"]
    assert [*models] == ["li16", "breysse15", "chung22"]
    assert sum(of["probability"] for of in models.values()) == pytest.approx(1.0)
    assert models["breysse15"]["parameters"] == {}
    generator = Generator(mixed, "test")
    batch = generator.generate([3])
    with Run(mixed) as run:
        network = run.trained.network(generator.label)
    with torch.inference_mode():
        output = network(batch.cube)
        chances = output[0, :3].double().softmax(0)
    for chance, of in zip(chances.tolist(), models.values(), strict=True):
        assert of["probability"] == pytest.approx(chance, rel=1e-5)
    posterior = parameters_of(network, mixed.line, output)
    for model in posterior.models:
        for k, name in enumerate(model.parameters):
            spread = models[model.name]["parameters"][name]
            values = [spread[key] for key in QUANTILE_NAMES]
            exact = np.percentile(model.samples[:, k], (2.5, 16, 50, 84, 97.5))
            np.testing.assert_allclose(values, exact, rtol=1e-5)
            assert values == sorted(values)
    wide = posterior.models[2]
    assert (wide.samples[:, 0] < wide.samples[:, 1]).all()  # its constraint A < B
    assert wide.left_out == models["chung22"]["left_out"] < 1.0
    assert (wide.samples[:, 4] > 0.0).all()
    # of the prior itself, the share that breaks A < B
    prior = parameters_of(network_for(generator), mixed.line, torch.zeros_like(output))
    broken = stats.norm.sf((0.04 + 1.66) / np.hypot(2.33, 1.26))
    assert prior.models[2].left_out == pytest.approx(broken, abs=4 * 0.44 / np.sqrt(4000))
    found = prior.plain()["models"]["chung22"]["correlation"]
    exact = np.corrcoef(prior.models[2].samples, rowvar=False)
    assert exact[0, 1] > 0.2  # the constraint's
    np.testing.assert_allclose(found, exact, rtol=1e-9, atol=1e-12)
    assert prior.warnings() == [
        f"{100 * prior.models[2].left_out:.0f} % of the posterior of chung22 breaks the "
        "constraints of its prior and is left out"
    ]
    kept = json.loads((tmp_path / "out" / "map.json").read_text())["models"]["chung22"]
    assert kept["names"] == list(wide.parameters)
    table = Table.read(tmp_path / "out" / "map.ecsv")
    assert [*table["parameter"]] == [n for of in models.values() for n in of["parameters"]]
    assert table["median"][0] == models["li16"]["parameters"]["log10_delta_mf"]["median"]
    assert (tmp_path / "out" / "map.png").stat().st_size > 10_000
    text = capsys.readouterr().out
    assert "chung22: probability" in text and "log10_Mstar" in text
    model = posterior.models[0]  # the prior stands beside it, which an untrained network answers
    for k, name in enumerate(model.parameters):
        low, high = model.prior_68[:, k]
        assert re.search(rf"{name} .* {low:.4g} \.\. {high:.4g}$", text, re.MULTILINE), name
    known = np.percentile(prior.models[0].samples, (16, 84), axis=0)
    spread = prior.models[0].samples.std(axis=0)
    assert (np.abs(model.prior_68 - known) < 0.15 * spread).all()
    generator.close()


def test_the_prior_beside_a_posterior_meets_what_is_required(tmp_path: Path, capsys: Any) -> None:
    """`emit.line.require` narrows the parameters of the training: its prior is not that of which
    scores are made."""
    line = {"model": "li16", "prior": "wide", "require": {"mean_uK": [0.1, 0.4]}}
    narrowed = run_of(tmp_path, line)
    generator = Generator(narrowed, "train")
    drawn = generator.draw(range(600)).records
    names = list(generator.label.parameter_names)
    true = np.array([[draw["parameters"][name] for name in names] for draw in drawn])
    network = network_for(generator)
    output = torch.zeros(1, network.head.num_numbers)
    found = parameters_of(network, narrowed.line, output, generator.line.accepts).likeliest
    wanted = np.percentile(true, (16, 84), axis=0)
    spread = true.std(axis=0)
    assert (np.abs(found.prior_68 - wanted) < 0.25 * spread).all()
    free = parameters_of(network, narrowed.line, output).likeliest
    beta = names.index("beta")
    assert np.ptp(free.prior_68[:, beta]) > 1.2 * np.ptp(found.prior_68[:, beta])
    generator.close()
    path = runs.write_hdf5(tmp_path / "map.h5", runs.map_of(narrowed, 3))
    infer(narrowed, path, Options(out=tmp_path / "out", samples=0))
    low, high = found.prior_68[:, beta]
    assert f"{low:.4g} .. {high:.4g}\n" in capsys.readouterr().out


def test_an_unlikely_model_may_break_its_constraints(mixed: Config) -> None:
    """With all of its posterior: what a flow says of maps that its model does not make."""
    generator = Generator(mixed, "test")
    network = network_for(generator)
    generator.close()
    flow = network.head.flows["2"]
    with torch.no_grad():  # A and B of the constraint A < B
        flow.transforms[0].last.bias[:2, 0, 0] = torch.tensor([30.0, -30.0])
    output = torch.zeros(1, network.head.num_numbers)
    output[0, :3] = torch.tensor([4.0, 1.0, 0.0])
    found = parameters_of(network, mixed.line, output)
    assert found.likeliest.name == "li16" and found.models[2].parameters == ()
    assert found.warnings() == [
        "100 % of the posterior of chung22 breaks the constraints of its prior and is left out"
    ]
    assert found.plain()["models"]["chung22"]["parameters"] == {}
    assert set(found.table()["model"]) == {"li16"} and "chung22: probability" in str(found.lines())
    output[0, :3] = torch.tensor([0.0, 1.0, 4.0])
    with pytest.raises(ValueError, match="the whole posterior of chung22 breaks the constraints"):
        parameters_of(network, mixed.line, output)


def test_misuse_is_one_sentence(config: Config, tmp_path: Path) -> None:
    """Everything that is of luminosity functions, and weights of another prior."""
    says = "the model's parameters"
    with pytest.raises(ValueError, match=says):
        evaluate_scenarios(config, "pfeffer2019")
    with pytest.raises(ValueError, match=says):
        run_probes(config)
    with pytest.raises(ConfigError, match=says):
        simulations.check(config)
    with pytest.raises(ValueError, match=says):
        check_head(config)
    with pytest.raises(ValueError, match=says):
        check_posterior(config)
    with Run(config) as run:
        label = run.testing().label
    with pytest.raises(ValueError, match=says):
        target_of(label)
    plain = to_dict(config)
    plain["emit"]["line"] = {"model": "chung22", "prior": "wide"}
    other = from_mapping(plain)
    with pytest.raises(ValueError, match=r'emit\.line\.prior = "correlated" there, "wide" here'):
        evaluation.evaluate(other, out=tmp_path / "elsewhere")
    plain["run"] = str(tmp_path / "new")
    plain["train"] = plain["train"] | {"start_from": config.run}
    with pytest.raises(ConfigError, match=r"another network or label: emit\.line\.prior"):
        Trainer(from_mapping(plain))


def test_ranks_of_a_network_are_those_of_its_draws(config: Config) -> None:
    """The predictions of two batches are one set."""
    generator = Generator(config, "test")
    with Run(config) as run:
        network = run.trained.network(generator.label)
    batches = [([0, 1, 2], generator.generate([0, 1, 2])), ([3, 4], generator.generate([3, 4]))]
    found = predict_batches(network, generator, batches, 5, "testing")
    assert isinstance(found, ParameterPredictions)
    assert found.true.shape == found.rank.shape == found.true_values.shape == (5, 5)
    assert found.quantiles.shape == (3, 5, 5)
    draws = [draw for _, batch in batches for draw in batch.draws]
    names = found.label.parameter_names
    exact = np.array([[draw["parameters"][name] for name in names] for draw in draws])
    np.testing.assert_allclose(found.true_values, exact, rtol=1e-5, atol=1e-5)
    # each parameter for itself: (value - mean) / sigma of the correlated prior
    component = generator.mixture.components[0]
    joint = component.prior.correlated
    assert joint is not None
    sigma = np.sqrt(np.diag(np.array(joint.covariance)))
    np.testing.assert_allclose(found.true, (exact - joint.mean) / sigma, rtol=1e-4, atol=1e-4)
    low, middle, high = found.quantiles
    inside = (low < exact) & (exact < high)
    np.testing.assert_array_equal(inside, (found.rank > 0.16) & (found.rank < 0.84))
    assert (low < middle).all() and (middle < high).all()
    sure = np.abs(found.rank - 0.5) > 0.01
    np.testing.assert_array_equal((exact < middle)[sure], (found.rank < 0.5)[sure])
    generator.close()
