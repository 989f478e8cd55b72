"""The published priors: moments, conditions, and that every draw can be painted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from support import small

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.generator.expectation import Shine
from streamtrain.generator.generator import Generator
from streamtrain.luminosity.mixture import Mixture
from streamtrain.luminosity.registry import MODELS
from streamtrain.luminosity.settings import LineConfig
from streamtrain.numerics.rng import STAGE_MODEL, Draws
from streamtrain.priors import Normal, Prior

CII_BAND = {"nu_GHz": [1900.537 / 3.4, 1900.537 / 4.43], "nu_rest_GHz": 1900.537}


# Priors.


def draw(model: str, prior: str, num: int = 4000, scale: float = 1.0) -> dict[str, np.ndarray]:
    draws = Draws(1, "train", np.arange(num, dtype=np.uint64), STAGE_MODEL)
    published = replace(MODELS[model].prior(prior), scale=scale)
    return published.draw(draws, MODELS[model].defaults)


def assert_moments(values: np.ndarray, mean: float, width: float) -> None:
    error = width / np.sqrt(len(values))
    assert values.mean() == pytest.approx(mean, abs=5 * error)
    assert values.std() == pytest.approx(width, abs=5 * error / np.sqrt(2))


LI16_WIDTHS = {  # (mean, width) of alpha and beta, widths of log delta and of the scatters
    "wide": ((1.37, 0.37), (-1.74, 3.74), 0.3, 0.1),
    "narrow": ((1.37, 0.037), (-1.74, 0.374), 0.03, 0.01),
    "stronger": ((1.37, 0.04), (-1.74, 0.4), 0.3, 0.1),
    "comap": ((1.17, 0.37), (0.21, 3.74), 0.3, 0.1),
}


@pytest.mark.parametrize("prior", list(LI16_WIDTHS))
def test_priors_of_li16(prior: str) -> None:
    alpha, beta, delta, sigma = LI16_WIDTHS[prior]
    drawn = draw("li16", prior)
    assert_moments(drawn["beta"], *beta)
    assert_moments(drawn["log10_delta_mf"], 0.0, delta)
    assert drawn["alpha"].min() > 0.5
    assert min(drawn["sigma_sfr"].min(), drawn["sigma_lco"].min()) > 0
    if prior in ("narrow", "stronger"):  # else the truncation moves mean and width
        assert_moments(drawn["alpha"], *alpha)
    if prior == "narrow":
        assert_moments(drawn["sigma_sfr"], 0.3, sigma)
        assert_moments(drawn["sigma_lco"], 0.3, sigma)
    assert np.all(drawn["r_J1"] == 1.0)
    names = [name for name in drawn if name != "r_J1"]
    correlation = np.corrcoef([drawn[n] for n in names]) - np.eye(len(names))
    assert np.abs(correlation).max() < 5 / np.sqrt(4000)


def test_truncated_normal_has_the_moments_of_one() -> None:
    """x ~ N(0, 1) given x > 0: mean sqrt(2/pi), variance 1 - 2/pi."""
    prior = Prior({"x": Normal(0.0, 1.0, low=0.0)})
    draws = Draws(1, "train", np.arange(20_000, dtype=np.uint64), STAGE_MODEL)
    x = prior.draw(draws, {"x": 5.0, "kept": 2.0})
    assert_moments(x["x"], np.sqrt(2 / np.pi), np.sqrt(1 - 2 / np.pi))
    assert np.all(x["kept"] == 2.0)


def test_priors_of_chung22() -> None:
    wide = draw("chung22", "wide")
    assert np.all(wide["A"] < wide["B"])
    assert_moments(wide["log10_C"], 10.25, 5.29)
    assert_moments(wide["log10_Mstar"], 12.41, 1.77)
    difference = np.random.default_rng(0).normal([[-1.66], [0.04]], [[2.33], [1.26]], (2, 10**6))
    kept = difference[:, difference[0] < difference[1]]
    assert kept.shape[1] / 1e6 == pytest.approx(0.74, abs=0.005)  # physics.md: P(A < B) = .74
    for name, values in zip("AB", kept, strict=True):
        assert_moments(wide[name], values.mean(), values.std())


CHUNG22_MEAN = [-3.614278, 0.45687856, 10.68714991, 12.47593157, 0.35517494]
CHUNG22_COVARIANCE = [
    [2.20772089, 0.08729876, 0.16230234, 0.19120324, -0.02930135],
    [0.08729876, 0.99506924, 0.19754548, 0.08097735, 0.02139264],
    [0.16230234, 0.19754548, 0.22875155, 0.16540717, -0.0210548],
    [0.19120324, 0.08097735, 0.16540717, 0.15713717, -0.02256431],
    [-0.02930135, 0.02139264, -0.0210548, -0.02256431, 0.02119048],
]


def test_correlated_prior_of_chung22() -> None:
    """Against NumPy's multivariate normal with the same two cuts."""
    drawn = draw("chung22", "correlated", 20_000)
    names = ["A", "B", "log10_C", "log10_Mstar", "sigma"]
    found = np.array([drawn[n] for n in names])
    rng = np.random.default_rng(0)
    truth = rng.multivariate_normal(CHUNG22_MEAN, CHUNG22_COVARIANCE, 400_000).T
    truth = truth[:, (truth[0] < truth[1]) & (truth[4] > 0)]
    width = truth.std(axis=1)
    np.testing.assert_allclose(
        found.mean(axis=1) / width, truth.mean(axis=1) / width, atol=5 / np.sqrt(20_000)
    )
    scaled = np.cov(found) - np.cov(truth)
    assert np.abs(scaled / np.outer(width, width)).max() < 5 * np.sqrt(2 / 20_000)


def test_prior_of_padmanabhan18() -> None:
    drawn = draw("padmanabhan18", "published")
    assert_moments(drawn["m11"], -1.17, 0.85)
    assert drawn["m10"].min() > 1e11
    for letter in "nby":  # positive from z = 0 (t = 0) to the end of time (t = 1)
        assert drawn[f"{letter}10"].min() > 0
        assert (drawn[f"{letter}10"] + drawn[f"{letter}11"]).min() > 0


def test_prior_of_breysse15() -> None:
    drawn = draw("breysse15", "published")
    assert_moments(drawn["b"], 1.0, 0.125)
    assert_moments(drawn["A"], 2e-6, 5e-7)


def test_prior_of_keating16() -> None:
    assert_moments(draw("keating16", "published")["A"], 6.3e-7, 1.75e-7)  # +1.4 / -2.1


def test_prior_of_padmanabhan19_cii() -> None:
    drawn = draw("padmanabhan19_cii", "published")
    assert_moments(drawn["a"], 1.79, 0.30)
    assert_moments(drawn["b"], 0.49, 0.38)
    assert drawn["M1"].min() > 0
    assert drawn["N1"].min() > 0
    for name, middle, width in (("M1", 2.39e-5, 1.86e-5), ("N1", 4.19e11, 3.27e11)):
        above = drawn[name][drawn[name] > middle] - middle  # half a normal, whatever is cut below
        assert_moments(above, np.sqrt(2 / np.pi) * width, np.sqrt(1 - 2 / np.pi) * width)


def test_prior_scale_is_a_factor_on_every_width() -> None:
    """Where nothing is cut, a tenth of the wide prior is the narrow one, draw by draw."""
    whole, tenth = draw("li16", "narrow"), draw("li16", "narrow", scale=0.1)
    for name, mean in [("beta", -1.74), ("alpha", 1.37), ("sigma_sfr", 0.3)]:
        np.testing.assert_allclose(tenth[name] - mean, 0.1 * (whole[name] - mean), rtol=1e-9)
    joint = draw("chung22", "correlated", scale=0.0)
    np.testing.assert_allclose(joint["log10_C"], CHUNG22_MEAN[2], rtol=1e-15)
    np.testing.assert_array_equal(draw("li16", "wide", 5, 0.0)["beta"], [-1.74] * 5)


def test_draws_are_a_function_of_the_index() -> None:
    """Also where some attempts are refused: each attempt has its own counters."""
    prior, defaults = MODELS["chung22"].prior("wide"), MODELS["chung22"].defaults
    indices = np.arange(200, dtype=np.uint64)
    together = prior.draw(Draws(1, "train", indices, STAGE_MODEL), defaults)
    for k in (199, 3, 77):
        alone = prior.draw(Draws(1, "train", indices[k : k + 1], STAGE_MODEL), defaults)
        assert {n: v[0] for n, v in alone.items()} == {n: v[k] for n, v in together.items()}


def test_fiducial_prior_keeps_the_defaults() -> None:
    drawn = draw("li16", "fiducial", 3)
    assert {n: v.tolist() for n, v in drawn.items()} == {
        n: [v] * 3 for n, v in MODELS["li16"].defaults.items()
    }


def test_fixed_parameters_keep_to_the_priors_conditions(small_sky: Lightcone) -> None:
    """A held at 0.5, above the middle of B's prior: every B is above it, every sigma positive."""
    line = {"model": "chung22", "prior": "correlated", "parameters": {"A": 0.5}}
    generator = Generator(small.config(emit={"line": line}), lightcones=[small_sky])
    drawn = [record["parameters"] for record in generator.draw(range(1000)).records]
    assert {p["A"] for p in drawn} == {0.5}
    assert min(p["B"] for p in drawn) > 0.5
    assert min(p["sigma"] for p in drawn) > 0
    assert len({p["B"] for p in drawn}) == 1000


def test_a_fixed_parameter_may_lie_outside_its_own_bounds() -> None:
    """alpha held at 0.4, outside alpha > 0.5, which bounds draws; the others keep their bounds."""
    draws = Draws(1, "train", np.arange(4000, dtype=np.uint64), STAGE_MODEL)
    line = LineConfig(prior="wide", prior_scale=3.0, parameters={"alpha": 0.4})
    drawn = Mixture(line).components[0].prior.draw(draws, MODELS["li16"].defaults)
    assert np.all(drawn["alpha"] == 0.4)
    assert min(drawn["sigma_sfr"].min(), drawn["sigma_lco"].min()) > 0
    assert_moments(drawn["beta"], -1.74, 3 * 3.74)


PRIORS = [
    (name, prior)
    for name, model in MODELS.items()
    for prior, given in model.priors.items()
    if given.varies
]


@small.EXTRAPOLATES
@pytest.mark.parametrize(("name", "prior"), PRIORS)
def test_every_prior_generates(name: str, prior: str, small_sky: Lightcone) -> None:
    """200 samples: no halo is too bright for the cube (`generate` would raise), all draws differ,
    and the draws that were refused do not depend on what is made beside them."""
    grid = small.GRID | (CII_BAND if MODELS[name].nu_rest_GHz == CII_BAND["nu_rest_GHz"] else {})
    config = small.config(grid=grid, emit={"line": {"model": name, "prior": prior}})
    generator = Generator(config, lightcones=[small_sky])
    batch = generator.generate(range(200))
    assert int(batch.saturated.sum()) == 0
    assert bool(torch.isfinite(batch.cube).all())
    assert float(batch.cube.min()) >= 0
    drawn = [tuple(record["parameters"].values()) for record in batch.draws]
    assert len(set(drawn)) == 200
    assert generator.generate([137]).digests() == [batch.digests()[137]]


@pytest.mark.parametrize(("name", "prior"), [("li16", "comap"), ("chung22", "wide")])
def test_wide_priors_saturate_without_the_check(
    name: str, prior: str, small_sky: Lightcone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shine, "fits", lambda shine, *_: shine.sigma >= 0.0)
    config = small.config(emit={"line": {"model": name, "prior": prior}})
    with pytest.raises(ValueError, match="too bright for the cube's fixed-point range"):
        Generator(config, lightcones=[small_sky]).generate(range(200))


def test_impossible_prior_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamtrain.priors.MAX_ATTEMPTS", 5)
    prior = Prior({"x": Normal(0.0, 1.0, low=50.0)})
    with pytest.raises(ValueError, match="no draw in 5 attempts satisfies the prior's bounds"):
        prior.draw(Draws(1, "train", np.zeros(1, np.uint64), 2), {"x": 0.0})
