"""Normal scores of parameters against scipy's distributions, there and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats
from support import small

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.config import ConfigError
from streamtrain.generator.generator import Generator
from streamtrain.luminosity.mixture import Mixture
from streamtrain.luminosity.scores import NormalScores, in_label, scores_of
from streamtrain.numerics.rng import Draws
from streamtrain.priors import Correlated, Fixed, Normal, Prior, Sometimes, Uniform

pytestmark = [small.ASSUMES, small.EXTRAPOLATES]

NUM = 4000
DRAWS = Draws(7, "train", np.arange(NUM, dtype=np.uint64), 2)
EXACT: dict[str, tuple[Any, float, Any]] = {
    "normal": (Normal(-2.0, 0.7), 1.0, stats.norm(-2.0, 0.7)),
    "scaled": (Normal(-2.0, 0.7), 2.5, stats.norm(-2.0, 1.75)),
    "positive": (
        Normal(0.4, 0.5, low=0.0),
        1.0,
        stats.truncnorm(-0.8, np.inf, 0.4, 0.5),
    ),
    "far tail": (Normal(0.0, 1.0, low=3.0, high=5.0), 1.0, stats.truncnorm(3.0, 5.0)),
    "uniform": (Uniform(2.0, 5.0), 1.0, stats.uniform(2.0, 3.0)),
    "narrowed": (Uniform(2.0, 5.0), 0.5, stats.uniform(2.75, 1.5)),
    "logarithmic": (Uniform(0.01, 10.0, log=True), 1.0, stats.loguniform(0.01, 10.0)),
}


@pytest.mark.parametrize("name", EXACT)
def test_a_score_is_the_normal_quantile_of_the_priors_probability(name: str) -> None:
    given, scale, exact = EXACT[name]
    values = exact.ppf(np.linspace(1e-6, 1 - 1e-6, 501))
    of = NormalScores(Prior({"a": given}, scale=scale), {"a": 0.0, "b": 1.0})
    assert of.names == ("a",)
    found = of.scores({"a": values}, np.full((501, 1), 0.5))[:, 0]
    lower, upper = stats.norm.ppf(exact.cdf(values)), stats.norm.isf(exact.sf(values))
    expected = np.where(exact.cdf(values) < 0.5, lower, upper)
    np.testing.assert_allclose(found, expected, atol=2e-9)
    np.testing.assert_allclose(of.values(found[:, None])["a"], values, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", EXACT)
def test_scores_of_draws_are_standard_normal_and_become_the_draws(name: str) -> None:
    given, scale, _ = EXACT[name]
    if name == "far tail":
        given = Normal(0.0, 1.0, low=1.0, high=2.0)  # else most attempts are in vain
    prior = Prior({"a": given}, scale=scale)
    drawn = prior.draw(DRAWS, {"a": 0.0})
    of = NormalScores(prior, {"a": 0.0})
    scores = of.drawn(DRAWS, drawn)
    assert stats.kstest(scores[:, 0], "norm").pvalue > 1e-3
    np.testing.assert_allclose(of.values(scores)["a"], drawn["a"], rtol=1e-10, atol=1e-10)
    assert of.within_bounds == pytest.approx(prior.acceptance(DRAWS, {"a": 0.0}), abs=0.035)


@pytest.mark.parametrize(
    "given",
    [
        Sometimes(0.3, 0.0, Normal(0.2, 0.8)),
        Sometimes(0.5, -3.0, Normal(0.0, 1.0, low=-1.0)),
        Sometimes(0.85, 1.0, Uniform(0.02, 1.0, log=True)),
        Sometimes(0.9, 0.0, Uniform(10.0, 11.5)),
        Sometimes(0.4, 0.0, Uniform(0.5, 1.0, log=True)),
        Sometimes(0.3, 0.5, Uniform(0.0, 1.0)),
    ],
    ids=["inside", "outside bounds", "upper end", "below", "no logarithm", "in the middle"],
)
def test_a_value_with_a_probability_is_spread_over_its_jump(given: Sometimes) -> None:
    """Scores are standard normal, their jump holds the value's share, and no other becomes it."""
    prior = Prior({"a": given})
    drawn = prior.draw(DRAWS, {"a": 0.0})["a"]
    of = NormalScores(prior, {"a": 0.0})
    scores = of.drawn(DRAWS, {"a": drawn})[:, 0]
    assert stats.kstest(scores, "norm").pvalue > 1e-3
    exactly = drawn == given.value
    assert np.array_equal(of.values(scores[:, None])["a"] == given.value, exactly)
    np.testing.assert_allclose(of.values(scores[:, None])["a"], drawn, rtol=1e-9, atol=1e-12)
    place = stats.norm.cdf(scores[exactly])
    low, high = place.min(), place.max()
    assert high - low == pytest.approx(exactly.mean(), abs=0.035)
    assert not ((scores > scores[exactly].min()) & (scores < scores[exactly].max()))[~exactly].any()
    assert stats.kstest((place - low) / (high - low), "uniform").pvalue > 1e-3


def test_a_correlated_prior_is_made_independent() -> None:
    """By scipy's density: that of the parameters is that of the scores over |d value / d score|."""
    covariance = ((2.2, 0.9, -0.3), (0.9, 0.8, 0.1), (-0.3, 0.1, 0.4))
    joint = Correlated(("a", "b", "c"), (1.0, -2.0, 0.5), covariance)
    prior = Prior({"b": Fixed(3.0)}, joint, scale=1.5)
    defaults = {"c": 0.0, "b": 0.0, "a": 0.0}
    of = NormalScores(prior, defaults)
    assert of.names == ("c", "a")
    drawn = prior.draw(DRAWS, defaults)
    scores = of.drawn(DRAWS, drawn)
    correlation = np.cov(scores, rowvar=False)
    np.testing.assert_allclose(correlation, np.eye(2), atol=0.08)
    back = of.values(scores)
    for name in of.names:
        np.testing.assert_allclose(back[name], drawn[name], rtol=1e-9, atol=1e-9)
    exact = stats.multivariate_normal((1.0, 0.5), 2.25 * np.array([[2.2, -0.3], [-0.3, 0.4]]))
    density = exact.logpdf(np.stack([drawn["a"], drawn["c"]], axis=1))
    ln_volume = density - stats.norm.logpdf(scores).sum(axis=1)
    np.testing.assert_allclose(ln_volume, ln_volume[0], atol=1e-8)
    # each for itself
    marginal = scores @ of.mixing.T
    np.testing.assert_allclose(marginal[:, 1], (drawn["a"] - 1.0) / (1.5 * np.sqrt(2.2)), atol=1e-9)
    np.testing.assert_allclose(marginal[:, 0], (drawn["c"] - 0.5) / (1.5 * np.sqrt(0.4)), atol=1e-9)


@pytest.mark.parametrize("name", EXACT)
def test_any_number_is_the_score_of_a_value_within_bounds(name: str) -> None:
    """Also those that no draw has, which a flow may put out."""
    given, scale, exact = EXACT[name]
    of = NormalScores(Prior({"a": given}, scale=scale), {"a": 0.0})
    values = of.values(np.array([[-1e30], [-40.0], [-8.0], [8.0], [40.0], [1e30]]))["a"]
    low, high = exact.support()
    assert np.isfinite(values).all() and (np.diff(values) >= 0.0).all()
    assert (low <= values * (1 + 1e-12)).all() and (values <= high * (1 + 1e-12)).all()


def test_what_is_not_drawn_has_no_score() -> None:
    held = {
        "held": Fixed(1.0),
        "point": Uniform(2.0, 2.0),
        "always": Sometimes(0.5, 2.0, Uniform(2.0, 2.0)),
        "drawn": Normal(0.0, 1.0),
        "two": Sometimes(0.25, 1.0, Normal(0.0, 0.0)),
    }
    defaults = dict.fromkeys([*held, "other"], 0.0)
    of = NormalScores(Prior(held), defaults)
    assert of.names == ("drawn", "two")
    scores = of.drawn(DRAWS, Prior(held).draw(DRAWS, defaults))
    assert stats.kstest(scores[:, 1], "norm").pvalue > 1e-3
    assert set(of.values(scores)["two"]) == {0.0, 1.0}
    assert NormalScores(Prior(held, scale=0.0), defaults).names == ("two",)


MIXTURE = {
    "li16": {"prior": "narrow"},
    "chung22": {"prior": "correlated", "weight": 2.0},
    "breysse15": {},
}


def test_the_label_is_the_scores_of_what_the_sample_drew(small_sky: Lightcone) -> None:
    """Whatever the batch, and the maps are those of any other label."""
    emit = {"line": {"mixture": MIXTURE}}
    config = small.config(emit=emit, label={"quantity": "parameters"})
    generator = Generator(config, lightcones=[small_sky])
    batch = generator.generate(range(40, 60))
    other = Generator(small.config(emit=emit), lightcones=[small_sky]).generate(range(40, 60))
    assert batch.digests() == other.digests()
    label, of = generator.label, scores_of(Mixture(config.line))
    assert label.num_outputs == batch.label.shape[1] == 3 + 5 + 5
    assert label.parameter_names[0] == "li16.log10_delta_mf"
    assert [m.share for m in in_label(config.label, config.line)] == [0.25, 0.5, 0.25]
    for row, draw in zip(batch.label.double().numpy(), batch.draws, strict=True):
        number = generator.classes.index(draw["model"])
        assert row[:3].tolist() == np.eye(3)[number].tolist()
        at = label.parameter_columns[number]
        for name, value in of[number].values(row[at]).items():
            assert value == pytest.approx(draw["parameters"][name], rel=1e-6, abs=1e-6)
        assert np.count_nonzero(row[3:]) == at.stop - at.start
    again = generator.generate([57, 3])
    assert np.array_equal(again.label[0].numpy(), batch.label[17].numpy())


def test_a_constraint_is_no_part_of_the_scores(small_sky: Lightcone) -> None:
    """Its share of their space is known to the line, with that of what the cube cannot hold."""
    prior = {"model": "chung22", "prior": "wide"}
    config = small.config(emit={"line": prior}, label={"quantity": "parameters"})
    generator = Generator(config, lightcones=[small_sky])
    [of] = scores_of(Mixture(config.line))
    [component] = generator.mixture.components
    of_constraint = component.prior.acceptance(DRAWS, component.model.defaults)
    expected = stats.norm.cdf((0.04 + 1.66) / np.hypot(2.33, 1.26))  # A < B
    assert of_constraint / of.within_bounds == pytest.approx(expected, abs=0.03)
    [compiled] = generator.painter.compiled_models
    values = of.values(np.random.default_rng(1).standard_normal((NUM, 5)))
    everything = {n: np.full(NUM, v) for n, v in component.model.defaults.items()} | values
    fits = (everything["A"] < everything["B"]) & compiled.fits(everything)
    accepted = generator.line.acceptance(0, DRAWS)
    assert accepted / of.within_bounds == pytest.approx(fits.mean(), abs=0.03)
    assert accepted < 0.9 * of_constraint
    scores = generator.draw(range(2000)).parameters
    assert scores is not None and scores[:, 0].mean() < -0.2  # A is smaller than without it


def test_nothing_to_learn_is_one_sentence(small_sky: Lightcone) -> None:
    config = small.config(label={"quantity": "parameters"})
    with pytest.raises(
        ConfigError, match=r"no parameter of li16 is drawn: give emit\.line a prior"
    ):
        Generator(config, lightcones=[small_sky])
