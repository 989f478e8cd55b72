"""`evaluate --calibration` of networks whose posterior is known."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from support import map_runs, small
from support.fake_generator import FileGenerator
from support.made_runs import save_run

from streamtrain.bins import LuminosityBins, ranges_with_bins
from streamtrain.catalogs.skies import NoFileError
from streamtrain.cli.main import main
from streamtrain.evaluate import baselines, testset, trained
from streamtrain.evaluate.bootstrap import Bootstrap
from streamtrain.evaluate.calibration import calibration
from streamtrain.evaluate.calibration.calibration import Prior, calibrate, sums_of
from streamtrain.evaluate.calibration.figures import calibration_figure
from streamtrain.evaluate.calibration.report import Ranked, numbers
from streamtrain.evaluate.posterior.functions import simultaneous_band
from streamtrain.evaluate.run import Run
from streamtrain.grid import Grid
from streamtrain.labels import Label, LabelConfig
from streamtrain.networks.network import build_head
from streamtrain.ranks import BANDS, RankedTruth

NUM_BINS = 14
SHAPE = (2, 16, 16)
MAPS = 300


class Oracle(torch.nn.Module):
    """Reads the expected counts that the stand-in generator writes into the map: the counts'
    posterior is Poisson's. spread: of the rate it claims, over the true one [dex]."""

    def __init__(self, name: str = "poisson", factor: float = 1.0) -> None:
        super().__init__()
        self.name, self.factor = name, factor

    def forward(self, cube: torch.Tensor) -> torch.Tensor:
        ln_rate = np.log(10.0) * cube[:, 1, 0, :NUM_BINS] + np.log(self.factor)
        if self.name == "poisson":
            return ln_rate
        return torch.cat([ln_rate, torch.full_like(ln_rate, np.log(0.05))], dim=1)


@pytest.fixture
def use(config, monkeypatch):
    """A function that makes a run whose network is an oracle, and returns its configuration."""

    def made(network: Oracle):
        ours = replace(
            config,
            network=replace(config.network, head=network.name),
            test=replace(config.test, samples=MAPS),
        )
        training = testset.Generator(ours, split="train")
        with torch.random.fork_rng(devices=[]):
            network.head = build_head(network.name, training.label)
        counts = training.generate(range(64)).counts
        network.head.set_normalisation(counts, counts, torch.zeros(1, NUM_BINS))
        save_run(ours, network, training)
        monkeypatch.setattr(trained, "build_network", lambda *_: network)
        return ours

    return made


@pytest.fixture(autouse=True)
def without_slow_parts(request, monkeypatch):
    """The figure, and all steps of the prior's density, in tests of theirs alone."""
    if "prior" not in request.node.name:
        monkeypatch.setattr(calibration, "WHOLE_STEPS", calibration.LOOK_EVERY)
    if "figure" not in request.node.name:
        monkeypatch.setattr(calibration, "calibration_figure", lambda *_: None)
        monkeypatch.setattr(calibration, "write_png", lambda figure, path: None)


def by_name(result):
    return {row["name"]: row for row in result["statistics"]}


def test_the_posterior_of_an_oracle_is_calibrated(use, capsys):
    ours = use(Oracle())
    result = calibrate(ours, draws=100)
    assert result["p"] > 1e-3 and result["maps"] == MAPS
    found = by_name(result)
    assert {"bins", "density", "curve", "distance"} < found.keys()
    for level in BANDS:
        error = np.sqrt(level * (1 - level) / MAPS)
        for row in found.values():
            assert row[f"coverage_{100 * level:g}"] == pytest.approx(level, abs=4 * error)
    for row in found.values():
        if row["kind"] == "sum":
            assert row["bias_sigma"] == pytest.approx(0.0, abs=4 * row["bias_sigma_error"])
            assert row["spread_sigma"] == pytest.approx(1.0, abs=4 * row["spread_sigma_error"])
    written = json.loads((Path(ours.run) / "calibration.json").read_text())
    assert written == json.loads(json.dumps(result))
    text = capsys.readouterr().out
    assert "largest TARP deviation" in text and "takes bins as independent" in text
    assert "bias in standard deviations,\npositive if it is too low, width of its 68 %" in text


def test_log_probability_and_widths_of_an_oracle(use):
    """Those of Poisson counts, by scipy."""
    ours = use(Oracle())
    result = calibrate(ours, draws=400)
    batch = testset.Generator(ours).generate(range(MAPS))
    rate = 10.0 ** batch.cube[:, 1, 0, :NUM_BINS].double().numpy()
    expected = stats.poisson.logpmf(batch.counts.numpy(), rate).sum(axis=1)
    found = result["information"]
    assert found["log_probability_nat"] == pytest.approx(expected.mean(), abs=1e-3)
    error = expected.std() / np.sqrt(MAPS)
    assert found["log_probability_nat_error"] == pytest.approx(error, rel=0.2)
    drawn = np.random.default_rng(0).poisson(rate, (400, *rate.shape))
    surprise = (stats.poisson.logpmf(drawn, rate).sum(axis=2).mean(axis=0) - expected).mean()
    assert found["surprise_nat"] == pytest.approx(surprise, abs=0.3 * error)
    inside = next(inside for _, inside in ranges_with_bins(np.linspace(3.5, 7.0, NUM_BINS + 1)))
    total = rate[:, inside].sum(axis=1)
    width = np.log10(stats.poisson.ppf(0.84, total) / stats.poisson.ppf(0.16, total)).mean()
    faint = by_name(result)["3.5-4.5"]
    assert faint["width_68_dex"] == pytest.approx(width, rel=0.02)


def test_a_network_that_answers_with_the_prior_knows_nothing(use, capsys):
    """The joint head as it starts, made from the training maps that the prior is fitted to: it is
    no better a density, and a little worse."""

    class Untrained(Oracle):
        def forward(self, cube: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(cube), self.head.num_numbers)

    result = calibrate(use(Untrained("joint_counts")), draws=50)
    assert -3.0 < result["information"]["information_nat"] < 0.1
    assert result["information"]["log_prior_nat"] < -40
    assert not result["bins_are_independent"]
    assert "independent: sums" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("network", "sign"), [(Oracle(factor=1.03), -1), (Oracle("negative_binomial"), 0)]
)
def test_wrong_posteriors_are_found(use, network, sign):
    """Rates too high by 3 %; and a claimed scatter of the rates of 22 %, which they have not."""
    result = calibrate(use(network), draws=100)
    assert result["p"] < 1e-6
    faint = by_name(result)["3.5-4.5"]
    assert np.sign(round(faint["bias_sigma"], 0)) == sign
    if sign == 0:
        assert faint["coverage_68"] > 0.9 and faint["spread_sigma"] < 0.5


def test_the_command_is_deterministic_and_writes_elsewhere(use, tmp_path):
    ours = use(Oracle())
    for name in ("one", "other"):
        arguments = ["--calibration", "--draws", "30", "--samples", "40"]
        assert main(["evaluate", ours.run, *arguments, "--out", str(tmp_path / name)]) == 0
    one, other = ((tmp_path / name / "calibration.json").read_text() for name in ("one", "other"))
    assert one == other and json.loads(one)["draws"] == 30
    assert not (Path(ours.run) / "calibration.json").exists()
    assert (tmp_path / "one" / "testset.json").is_file()


def test_the_training_lightcones_need_not_be_here(use, tmp_path, monkeypatch, capsys):
    """The prior is then counted on maps behind the test set, which is said; ranks that need none
    are the same."""
    ours = use(Oracle())
    arguments = ["--calibration", "--draws", "30", "--samples", "40", "--out"]
    assert main(["evaluate", ours.run, *arguments, str(tmp_path / "with")]) == 0

    def absent(*_):
        raise NoFileError("data.train", "train_*.h5")

    monkeypatch.setattr(Run, "training", absent)
    asked = []
    generate = FileGenerator.generate
    monkeypatch.setattr(
        FileGenerator,
        "generate",
        lambda self, indices: asked.extend(indices) or generate(self, indices),
    )
    assert main(["evaluate", ours.run, *arguments, str(tmp_path / "without")]) == 0
    assert min(asked[: baselines.MEAN_LABEL_SAMPLES]) == 40  # none of the test set
    here, there = (
        json.loads((tmp_path / name / "calibration.json").read_text())
        for name in ("with", "without")
    )
    said = "data.train: no file matches 'train_*.h5': the prior is counted on further maps"
    assert said in there["test_set"]["notes"][0] and said in capsys.readouterr().out
    for one, other in zip(here["statistics"], there["statistics"], strict=True):
        assert one["name"] == other["name"]
        if one["name"] not in ("distance",):
            assert one["coverage_68"] == other["coverage_68"], one["name"]


@pytest.mark.parametrize(
    ("settings", "words", "sentence"),
    [
        ({"network": {"head": "mse"}}, ["--calibration"], "network.head = mse predicts none"),
        ({"network": {"head": "gaussian"}}, ["--calibration"], "or joint_counts"),
        ({"label": {"quantity": "class"}}, ["--calibration"], "not of a class"),
        ({}, ["--calibration", "--draws", "3"], "--draws 3 must be 20 or more"),
        ({}, ["--calibration", "--samples", "0"], "--samples 0 must be 1 or more"),
        ({}, ["--draws", "100"], "--calibration and --catalogs draw"),
        ({}, ["--calibration", "--probes"], "name one"),
    ],
)
def test_what_cannot_be_calibrated_is_told_in_a_sentence(
    config, capsys, tmp_path, settings, words, sentence
):
    ours = config
    usual = {"network": {"head": "poisson"}} if "label" not in settings else {}
    for section, values in {**usual, **settings}.items():
        ours = replace(ours, **{section: replace(getattr(ours, section), **values)})
    path = tmp_path / "settings.yaml"
    path.write_text(ours.to_yaml())
    assert main(["evaluate", str(path), *words]) == 2
    text = capsys.readouterr().err
    assert sentence in text and text.count("\n") == 1


def test_sums_that_differ_by_a_factor_are_one():
    bins = LuminosityBins()
    found = sums_of(bins, Grid())
    assert list(found) == [
        *("3.5-4.5", "4.5-5.5", "5.5-6", "6-6.5", "6.5-7, N(>10^6.5)"),
        *("N(>10^5)", "N(>10^6)", "rho_L, <T>"),
    ]
    luminosity = 10 ** (0.5 * (bins.edges[1:] + bins.edges[:-1]))
    ratio = found["rho_L, <T>"] / luminosity
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-9)


def test_sums_of_faint_halos_are_not_taken_for_one_another():
    """However small what one halo adds is: here 1e-10 uK and less."""
    bins = LuminosityBins((-3.0, 1.0), 8)
    assert list(sums_of(bins, Grid()))[-3:] == ["0.5-1, N(>10^0.5)", "N(>10^0)", "rho_L, <T>"]


@small.EXTRAPOLATES
def test_one_bin_in_a_map_of_intensities(tmp_path, monkeypatch):
    """No bin is bright, so no maps are grouped by bright halos; noise has the units of the maps."""
    monkeypatch.setattr(calibration, "calibration_figure", calibration_figure)
    ours = map_runs.make_run(
        tmp_path,
        grid={"fov_deg": map_runs.FOV_DEG, "shape": [9, 20, 24], "units": "Jy/sr"},
        observe={"noise": {"sigma_uK": [1.0, 3.0], "per": "map_voxel"}},
        label={"bins": 1},
        network={"layers": 2, "filters": 4, "dense": 8, "head": "joint_counts"},
        test={"samples": 64},
    )
    result = calibrate(ours, draws=20)
    assert {row["by"] for row in result["groups"]} == {"noise [Jy/sr]"}
    assert [row["name"] for row in result["statistics"]][:2] == [
        "bins", "3.5-7, N(>10^3.5), rho_L, <I>",
    ]  # fmt: skip


def test_the_prior_is_a_density_of_the_training_counts():
    """Of two bins that go together, log-normal, and of two with tails beyond; and probabilities of
    all counts add up to one."""
    rng = np.random.default_rng(4)
    cov = np.array([[1.0, 0.8], [0.8, 1.0]])
    drawn = np.floor(np.exp(rng.multivariate_normal([5.0, 5.0], cov, 8000)))
    label = Label(LabelConfig(bins=2))
    prior, given = Prior(drawn[:4000], label), drawn[4000:]
    exact = stats.multivariate_normal([5.0, 5.0], cov).logpdf(np.log(given + 0.5))
    more = exact - np.log(given + 0.5).sum(axis=1) - prior.log_prob(given)
    assert more.mean() == pytest.approx(0.01, abs=0.01 + 4 * more.std() / np.sqrt(len(more)))
    far = np.floor(np.exp(5.0 + 0.5 * rng.standard_t(3, (8000, 2)).clip(-12, 12)))
    prior, given = Prior(far[:4000], label), far[4000:]
    ends = np.log(np.stack([given, given + 1.0]).clip(1e-9)) - 5.0
    exact = np.log(np.diff(stats.t(3).cdf(2.0 * ends), axis=0)[0].clip(1e-12)).sum(axis=1)
    more = exact - prior.log_prob(given)
    assert abs(more.mean()) < 0.15
    assert more.max() < 20.0
    few = Prior(rng.poisson(2.0, (500, 2)).astype(float), label)
    grid = np.stack(np.meshgrid(np.arange(400.0), np.arange(400.0)), -1).reshape(-1, 2)
    assert np.exp(few.log_prob(grid)).sum() == pytest.approx(1.0, abs=1e-3)


def test_the_prior_of_two_populations_is_known():
    """Of maps of two models, one of which has no halos in the bright bins: what a mixture of normal
    distributions about a regression on neighbours, as the head starts, misses by 2 nat."""
    rng = np.random.default_rng(8)

    def drawn(number: int) -> tuple[np.ndarray, np.ndarray]:
        faint = rng.random(number) < 0.4
        level = rng.normal(0.0, 0.3, number)
        rates = np.exp(level[:, None] + np.array([5.0, 4.0, 3.0, 2.5]))
        rates[faint] = [20.0, 0.5, 0.01, 0.01]
        return rng.poisson(rates).astype(float), faint

    label = Label(LabelConfig(bins=4))
    counts, _ = drawn(2048)
    prior = Prior(counts[:512], label, counts[512:])
    given, _ = drawn(2000)
    levels, weights = np.polynomial.hermite_e.hermegauss(80)
    rates = np.exp(0.3 * levels[:, None] + np.array([5.0, 4.0, 3.0, 2.5]))
    bright = stats.poisson.pmf(given[:, None], rates).prod(-1) @ (weights / weights.sum())
    faint = stats.poisson.pmf(given, [20.0, 0.5, 0.01, 0.01]).prod(-1)
    missed = np.log(0.6 * bright + 0.4 * faint) - prior.log_prob(given)
    assert -0.02 < missed.mean() < 0.25
    assert prior.counts.shape == (512, 4)


@cache
def ranked(num: int, seed: int = 5) -> Ranked:
    """Gamma-Poisson counts of three ranges, seen through a Poisson number, by their posterior."""
    rng = np.random.default_rng(seed)
    bins = LuminosityBins(num=7)
    unit = np.geomspace(300.0, 0.3, 7)
    brightness = rng.gamma(4.0, 0.25, num)
    seen = rng.poisson(5.0 * brightness)
    posterior = rng.gamma(4.0 + seen, 1 / 9.0, (60, num))
    truth, references = (rng.poisson(b[:, None] * unit) for b in (brightness, brightness[::-1]))
    truths = RankedTruth(sums_of(bins, Grid()), np.full(7, 0.3), seed)
    samples = rng.poisson(posterior[..., None] * unit).astype(float)
    log_q = rng.normal(size=(61, num))
    truths.add(samples, truth.astype(float), references.astype(float), (log_q[0], log_q[1:]))
    return Ranked(
        truths.ranks(),
        60,
        np.zeros(num),
        [f"sky {k % 10}" for k in range(num)],
        np.median(samples[..., -2:].sum(-1), axis=0),
        rng.uniform(1.0, 6.0, num),
        [("li16", "keating16")[k % 2] for k in range(num)],
    )


def test_groups_of_an_exact_posterior_are_calibrated():
    of = ranked(2000)
    result = numbers(of, Bootstrap.choose(of.skies), 6.0)
    assert result["bootstrap"]["resampled"] == "lightcones"
    by = {row["by"] for row in result["groups"]}
    assert by == {"bright halos", "noise [uK]", "model"}
    assert sum(row["maps"] for row in result["groups"]) == 3 * 2000
    total = sum(row["maps"] * row["curve_coverage_68"] for row in result["groups"])
    whole = by_name(result)["curve"]["coverage_68"]
    assert total / (3 * 2000) == pytest.approx(whole, rel=1e-9)
    assert len({row["curve_coverage_68"] for row in result["groups"]}) > 5
    for row in result["groups"]:
        assert row["p"] > 1e-4
        error = np.sqrt(0.68 * 0.32 / row["maps"])
        assert row["curve_coverage_68"] == pytest.approx(0.68, abs=4 * error)


def test_groups_have_every_map_where_a_quarter_is_empty():
    """The first quartile, 0.75, lies in a gap, and the next two are 3: no map is between them."""
    of = ranked(126)
    values = np.array([0.0] * 32 + [3.0] * 74 + [9.0] * 20)
    result = numbers(replace(of, bright=values), Bootstrap.choose(of.skies), 6.0)
    groups = [row for row in result["groups"] if row["by"] == "bright halos"]
    assert [(row["group"], row["maps"]) for row in groups] == [("0 to 0", 32), ("3 to 9", 94)]


@pytest.mark.parametrize("level", BANDS)
def test_levels_of_curves_are_those_of_simultaneous_bands(level):
    """A truth lies in the band around the samples where its level is lower, but for ties."""
    rng = np.random.default_rng(3)
    samples, truth = rng.normal(size=(999, 200, 5)), rng.normal(size=(200, 5))
    truths = RankedTruth({"all": np.ones(5)}, np.ones(5))
    truths.add(samples, truth, truth)
    at = truths.ranks().levels["curve"]
    for k in range(200):
        (low, high), _ = simultaneous_band(samples[:, k], level)
        inside = ((low <= truth[k]) & (truth[k] <= high)).all()
        if abs(at[k] - level) > 0.02:
            assert inside == (at[k] < level)


def test_errors_resample_skies():
    """Maps of one sky that are all alike: the error is that of ten maps, not of 2000."""
    of = ranked(2000)
    inside = np.repeat(np.random.default_rng(1).uniform(size=10) < 0.68, 200).astype(float)
    chosen = replace(of.ranks, levels=of.ranks.levels | {"curve": 0.9 - 0.5 * inside})
    of = replace(of, ranks=chosen, skies=[f"sky {k // 200}" for k in range(2000)])
    found = []
    for unit in ("lightcones", "maps"):
        result = numbers(of, Bootstrap.choose(of.skies, unit), 6.0)
        found.append(by_name(result)["curve"]["coverage_68_error"])
    share = inside.mean()
    assert found[0] == pytest.approx(np.sqrt(share * (1 - share) / 10), rel=0.2)
    assert found[1] == pytest.approx(np.sqrt(share * (1 - share) / 2000), rel=0.2)


def test_the_figure_shows_every_statistic():
    of = ranked(300)
    bootstrap = Bootstrap.choose(of.skies)
    result = numbers(of, bootstrap, 6.0)
    figure = calibration_figure(of.ranks, result, LuminosityBins(num=7).edges, bootstrap)
    labels = [line.get_label() for axes in figure.axes[:3] for line in axes.lines]
    shown = {label.split(":")[0] for label in labels if not label.startswith("_")}
    titles = {"density": "highest density", "curve": "whole curve", "distance": "distance (TARP)"}
    names = {titles.get(row["name"], row["name"]) for row in result["statistics"]} - {"bins"}
    assert shown == names
    figure.canvas.draw()
