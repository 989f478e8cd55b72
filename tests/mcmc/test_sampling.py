"""The sampler and the likelihood against posteriors that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from streamtrain.config import ConfigError
from streamtrain.mcmc.likelihood import (
    KINDS,
    Density,
    Likelihood,
    covariance,
    exponent,
    hartlap_factor,
)
from streamtrain.mcmc.sampling import Chain, sample
from streamtrain.priors import Correlated, Fixed, Normal, Prior, Sometimes, Uniform
from streamtrain.spectra import Box, Power, shells

Float = NDArray[np.float64]


def test_linear_gaussian_model_has_the_known_posterior() -> None:
    """Data = A theta + noise with a correlated covariance, a normal prior: mean and covariance of
    the posterior in closed form, through density, likelihood and sampler as `mcmc` uses them."""
    rng = np.random.default_rng(7)
    matrix = rng.normal(size=(12, 3))
    root = 0.3 * rng.normal(size=(12, 12)) + np.eye(12)
    noise = root @ root.T
    means, widths = np.array([1.0, -2.0, 0.3]), np.array([0.5, 3.0, 0.1])
    prior = Prior({n: Normal(m, w) for n, m, w in zip("abc", means, widths, strict=True)}, scale=2)
    density = Density.of(prior, dict.fromkeys("abc", 0.0))
    data = matrix @ np.array([1.4, -4.0, 0.2]) + root @ rng.normal(size=12)
    inverse = np.linalg.inv(noise)
    precision = matrix.T @ inverse @ matrix + np.diag(1.0 / (2.0 * widths) ** 2)
    truth_covariance = np.linalg.inv(precision)
    truth = truth_covariance @ (matrix.T @ inverse @ data + means / (2.0 * widths) ** 2)
    likelihood = Likelihood(noise)

    def log_density(theta: Float) -> Float:
        return density.log(theta) + likelihood.log(data - theta @ matrix.T)

    seen: list[int] = []
    start = truth + 0.1 * rng.normal(size=(24, 3))
    chain = sample(log_density, start, 3000, seed=3, report=seen.append)
    assert seen == list(range(1, 3001))
    assert chain.long_enough
    assert chain.warning() == ""
    assert 0.4 < chain.acceptance < 0.9
    independent = len(chain.samples) / chain.tau
    sigma = np.sqrt(np.diag(truth_covariance))
    assert (np.abs(chain.samples.mean(0) - truth) < 4.0 * sigma / np.sqrt(independent)).all()
    found = covariance(chain.samples) / np.outer(sigma, sigma)
    expected = truth_covariance / np.outer(sigma, sigma)
    assert np.abs(found - expected).max() < 4.0 * np.sqrt(2.0 / independent)
    again = sample(log_density, start, 50, seed=3)
    assert np.array_equal(again.samples[-24:], sample(log_density, start, 50, seed=3).samples[-24:])
    assert not np.array_equal(again.samples, sample(log_density, start, 50, seed=4).samples)


def test_a_short_chain_warns() -> None:
    rng = np.random.default_rng(1)
    chain = sample(lambda x: -0.5 * np.sum(x**2, axis=1), rng.normal(size=(8, 2)), 60)
    assert not chain.long_enough
    assert "the chain of 60 steps is shorter than 50 autocorrelation times of" in chain.warning()
    assert chain.burn_in <= 30
    long = Chain(np.zeros((1, 1)), 0.5, 10.0, 500, 100)
    assert long.long_enough


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (np.zeros((3, 2)), "3 walkers are too few for 2 parameters: take 4"),
        (np.full((8, 2), -1.0), "a walker starts where the density is zero"),
    ],
)
def test_starts_that_cannot_be_used(start: Float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample(lambda x: np.where((x >= 0).all(1), 0.0, -np.inf), start, 10)


def test_chi2_is_that_of_the_inverse() -> None:
    rng = np.random.default_rng(0)
    root = rng.normal(size=(6, 6))
    matrix, away = root @ root.T * 1e-6, rng.normal(size=(4, 6)) * 1e-3
    expected = np.einsum("bi,ij,bj->b", away, np.linalg.inv(matrix), away)
    np.testing.assert_allclose(Likelihood(matrix).chi2(away), expected, rtol=1e-6)
    assert Likelihood(matrix).chi2(away[0]) == pytest.approx(expected[0])
    np.testing.assert_allclose(Likelihood(matrix, 40).chi2(away), expected * 32 / 39, rtol=1e-6)
    for bad, text in ((np.diag([1.0, 0.0]), "variance of zero"), (np.ones((2, 2)), "not positive")):
        with pytest.raises(ValueError, match=text):
            Likelihood(bad)
    with pytest.raises(ValueError, match="of 6 numbers needs at least 9 simulations, not 8"):
        Likelihood(matrix, 8)


def test_likelihood_of_an_estimated_covariance_is_a_t_distribution() -> None:
    """Sellentin and Heavens (2016): num - n degrees of freedom, shape S (num - 1) / (num - n)."""
    rng = np.random.default_rng(5)
    size, num = 6, 15
    matrix = covariance(rng.normal(size=(num, size)))
    away = rng.normal(size=(200, size)) * 2.0
    truth = stats.multivariate_t(
        shape=matrix * (num - 1) / (num - size), df=num - size
    ).logpdf(away)  # fmt: skip
    found = Likelihood(matrix, num, "sellentin").log(away)
    np.testing.assert_allclose(found - found[0], truth - truth[0], rtol=1e-9, atol=1e-9)
    normal = stats.multivariate_normal(cov=matrix).logpdf(away)
    for likelihood, factor in (
        (Likelihood(matrix), 1.0),
        (Likelihood(matrix, num, "hartlap"), hartlap_factor(num, size)),
    ):
        found = likelihood.log(away)
        np.testing.assert_allclose(found - found[0], factor * (normal - normal[0]), rtol=1e-9)
    # another exponent m is another t-distribution, of m - n degrees of freedom
    power = exponent("percival", num, size, 2)
    truth = stats.multivariate_t(
        shape=matrix * (num - 1) / (power - size), df=power - size
    ).logpdf(away)  # fmt: skip
    found = Likelihood(matrix, num, "percival", 2).log(away)
    np.testing.assert_allclose(found - found[0], truth - truth[0], rtol=1e-9, atol=1e-9)
    assert power < num
    assert exponent("percival", num, size, size) == num + size + 1
    # n_theta + 2 + (n_s - 1 + B (n_d - n_theta)) / (1 + B (n_d - n_theta)), B = 26 / (27 * 24)
    assert exponent("percival", 40, 12, 1) == pytest.approx(30.364026, abs=1e-6)
    many = Likelihood(matrix, 10**6).log(away)
    np.testing.assert_allclose(many - many[0], normal - normal[0], rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="of 6 numbers needs at least 11 simulations, not 10"):
        Likelihood(matrix, 10)
    with pytest.raises(
        ValueError, match="the likelihood 'gauss' is none of percival, sellentin, hartlap"
    ):
        Likelihood(matrix, num, "gauss")


def test_intervals_from_few_simulations_cover_what_they_say() -> None:
    """One parameter of 12 numbers, covariance from 40 simulations, flat prior: the 68 and 95 % of
    "percival" hold the truth as often, to the 0.02 of its approximation (66 and 94 % of 4000);
    the estimate scatters with the covariance (Dodelson and Schneider 2013), which the others do
    not know."""
    rng = np.random.default_rng(8)
    size, num, trials = 12, 40, 1500
    root = np.eye(size) + 0.3 * rng.normal(size=(size, size))
    grid = np.linspace(-5.0, 5.0, 251)
    covered = {kind: np.zeros(2) for kind in KINDS}
    for _ in range(trials):
        data = root @ rng.normal(size=size)
        matrix = covariance(rng.normal(size=(num, size)) @ root.T)
        for kind, held in covered.items():
            log = Likelihood(matrix, num, kind).log(data - grid[:, None])
            chance = np.exp(log - log.max())
            place = (chance[:125].sum() + 0.5 * chance[125]) / chance.sum()  # of the truth, 0
            held += np.abs(place - 0.5) < np.array([0.34, 0.475])
    shares = {kind: held / trials for kind, held in covered.items()}
    wanted = np.array([0.68, 0.95])
    error = np.sqrt(wanted * (1.0 - wanted) / trials)
    assert (np.abs(shares["percival"] - wanted) < 0.02 + 3 * error).all()
    for kind in ("sellentin", "hartlap"):
        assert (shares[kind] < wanted - 0.02 - 3 * error).all()


def test_the_t_distribution_of_as_many_parameters_as_numbers_is_exact() -> None:
    """Then (num - n) / n / (num - 1) d^T S^-1 d is of the F-distribution (Hotelling 1931), and so
    it is under the t-distribution of Sellentin and Heavens."""
    rng = np.random.default_rng(6)
    size, num, trials = 4, 12, 2000
    chi2 = np.empty(trials)
    for k in range(trials):
        likelihood = Likelihood(covariance(rng.normal(size=(num, size))), num, "sellentin")
        chi2[k] = likelihood.chi2(rng.normal(size=size)) / likelihood.factor
    place = stats.f(size, num - size).cdf(chi2 * (num - size) / size / (num - 1))
    assert stats.kstest(place, "uniform").pvalue > 1e-3


def test_hartlap_factor_makes_the_inverse_unbiased() -> None:
    """Mean inverse of 2000 estimates from 20 simulations of 5 independent numbers: one."""
    rng = np.random.default_rng(2)
    estimates = [np.linalg.inv(covariance(rng.normal(size=(20, 5)))) for _ in range(2000)]
    mean = hartlap_factor(20, 5) * np.mean(estimates, axis=0)
    assert np.abs(mean - np.eye(5)).max() < 0.06
    assert np.mean(estimates, axis=0)[0, 0] > 1.3


def test_covariance_of_the_power_of_white_noise() -> None:
    """2 P^2 / modes on the diagonal, conjugates counted, and no correlation between shells."""
    box = Box((8, 16, 16), (20.0, 3.0, 3.0))
    power = Power.spherical(box, shells(box, 5))
    number = 2000
    noise = np.random.default_rng(4).normal(0.0, 1.5, (number, *box.shape))
    found = covariance(power(torch.from_numpy(noise)).numpy())
    truth = 1.5**2 * float(np.prod(box.cells_Mpc))
    sigma = truth * np.sqrt(2.0 / power.modes)
    # relative scatter of a variance: sqrt((2 + kurtosis) / n), of chi^2 the kurtosis is 12 / modes
    ratio = np.diag(found) / sigma**2
    assert (np.abs(ratio - 1.0) < 4.0 * np.sqrt((2.0 + 12.0 / power.modes) / number)).all()
    correlation = found / np.sqrt(np.outer(np.diag(found), np.diag(found)))
    assert np.abs(correlation - np.eye(5)).max() < 4.5 / np.sqrt(number)


def test_density_is_that_of_the_prior() -> None:
    """Differences of ln density against scipy, and what is excluded."""
    stats = pytest.importorskip("scipy.stats")
    joint = Correlated(("d", "e", "a"), (1.0, 2.0, 9.0), ((1.0, 0.3, 0), (0.3, 2.0, 0), (0, 0, 1)))
    prior = Prior(
        {
            "a": Normal(0.5, 0.2, low=0.0),
            "b": Uniform(-1.0, 3.0),
            "c": Uniform(0.1, 10.0, log=True),
            "held": Fixed(4.0),
        },
        correlated=joint,
        constraint=lambda v: v["a"] < v["held"],
        scale=0.5,
    )
    defaults = dict.fromkeys(["a", "b", "c", "d", "e", "held", "other"], 7.0)
    density = Density.of(prior, defaults)
    assert list(density.names) == ["a", "b", "c", "d", "e"]
    theta = np.array(
        [[0.5, 1.0, 1.0, 1.0, 2.0], [0.6, 0.2, 0.5, 1.7, 2.2], [0.3, 1.9, 2.0, 0.4, 1]]
    )
    of_both = stats.multivariate_normal([1.0, 2.0], [[0.25, 0.075], [0.075, 0.5]])
    expected = (
        stats.norm(0.5, 0.1).logpdf(theta[:, 0])
        + stats.loguniform(0.1, 10.0).logpdf(theta[:, 2])
        + of_both.logpdf(theta[:, 3:])
    )
    found = density.log(theta)
    np.testing.assert_allclose(np.diff(found), np.diff(expected))
    outside = np.tile(theta[0], (4, 1))
    outside[0, 0], outside[1, 1], outside[2, 2], outside[3, 2] = -0.1, 2.1, 3.3, -1.0
    assert (density.log(outside) == -np.inf).all()
    assert density.whole(theta)["held"].tolist() == [4.0] * 3
    assert density.whole(theta)["other"].tolist() == [7.0] * 3


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (Prior(), "no parameter of emit.line is drawn"),
        (Prior({"a": Normal(0.0, 1.0)}, scale=0.0), "no parameter of emit.line is drawn"),
        (Prior({"a": Normal(0.0, 0.0)}), "the prior of a has no width: hold it at a value"),
        (
            Prior({"a": Sometimes(0.25, 1.0, Uniform(0.0, 1.0))}),
            "a is exactly 1 in 25 % of the prior's draws, .*emit.line.parameters.a=1, or give it",
        ),
    ],
)
def test_priors_without_a_density(prior: Prior, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Density.of(prior, {"a": 0.0})
