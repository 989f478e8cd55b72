"""Diagnostics of posteriors, on posteriors that are known exactly and on ones that are wrong."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from streamtrain import ranks as calibration
from streamtrain.ranks import RankedTruth, Ranks, depth, p_value, p_values, rank_band

FAULTS = ("narrow", "shift", "shuffled")
"""Widths times 0.8; a shift of 0.3 standard deviations; right marginals without correlation."""


def sums(num_bins: int) -> dict[str, np.ndarray]:
    """Two ranges and an integral over luminosity."""
    faint = (np.arange(num_bins) < num_bins // 2).astype(float)
    return {"faint": faint, "bright": 1.0 - faint, "rho_L": 10 ** np.linspace(0, 1, num_bins)}


def gaussian(num: int, draws: int, num_bins: int, seed: int, fault: str = "") -> Ranks:
    """ln of the halos per bin is normal and smooth, and each bin is seen with noise of 0.3."""
    rng = np.random.default_rng(seed)
    at = np.arange(num_bins)
    prior = np.exp(-0.5 * ((at[:, None] - at) / 3.0) ** 2) + 1e-6 * np.eye(num_bins)
    gain = prior @ np.linalg.inv(prior + 0.09 * np.eye(num_bins))
    root, prior_root = (np.linalg.cholesky(c) for c in (prior - gain @ prior, prior))
    truth, reference = rng.normal(size=(2, num, num_bins)) @ prior_root.T
    mean = (truth + 0.3 * rng.normal(size=truth.shape)) @ gain.T
    std = np.linalg.norm(root, axis=1)
    if fault == "narrow":
        root = 0.8 * root
    elif fault == "shift":
        mean = mean + 0.3 * std
    elif fault == "shuffled":
        root = np.diag(std)
    samples = mean + rng.normal(size=(draws, num, num_bins)) @ root.T
    inverse = np.linalg.inv(root)

    def log_q(theta: np.ndarray) -> np.ndarray:
        return -0.5 * (((theta - mean) @ inverse.T) ** 2).sum(-1)

    ranked = RankedTruth(sums(num_bins), np.ones(num_bins), seed)
    counts = (np.exp(3.0 + values) for values in (samples, truth, reference))
    ranked.add(*counts, (log_q(truth), log_q(samples[: draws // 2])))
    return ranked.ranks()


SHAPE, EXPOSURE = 4.0, 5.0
"""Of the gamma prior of the brightness, whose mean is 1; Poisson mean of what measures it."""


def poisson(num: int, draws: int, num_bins: int, seed: int, fault: str = "") -> Ranks:
    """Counts, mostly zero in bright bins, of a common brightness that a Poisson number measures:
    their posterior is a negative multinomial."""
    rng = np.random.default_rng(seed)
    unit = np.geomspace(30.0, 0.05, num_bins)
    brightness = rng.gamma(SHAPE, 1 / SHAPE, (2, num))
    truth, reference = rng.poisson(brightness[..., None] * unit)
    shape = SHAPE + rng.poisson(EXPOSURE * brightness[0])
    rate = np.full(num, SHAPE + EXPOSURE)
    if fault == "narrow":
        shape, rate = shape / 0.64, rate / 0.64
    shift = 0.3 * np.sqrt(shape) / rate if fault == "shift" else 0.0
    columns = num_bins if fault == "shuffled" else 1
    drawn = rng.gamma(shape[:, None], 1 / rate[:, None], (draws, num, columns))
    samples = rng.poisson((drawn + np.reshape(shift, (-1, 1))) * unit)

    def log_q(counts: np.ndarray) -> np.ndarray:
        if fault == "shuffled":
            chance = rate[:, None] / (rate[:, None] + unit)
            return stats.nbinom.logpmf(counts, shape[:, None], chance).sum(-1)
        total, all_units = counts.sum(-1), unit.sum()
        found = special.gammaln(shape + total) - special.gammaln(shape)
        found += shape * np.log(rate) - (shape + total) * np.log(rate + all_units)
        return found + (counts * np.log(unit) - special.gammaln(counts + 1)).sum(-1)

    ranked = RankedTruth(sums(num_bins), np.full(num_bins, 0.3), seed)
    counts = (values.astype(float) for values in (samples, truth, reference))
    ranked.add(*counts, (log_q(truth), log_q(samples[: draws // 2])))
    return ranked.ranks()


TOYS = (gaussian, poisson)


@pytest.mark.parametrize("toy", TOYS)
@pytest.mark.parametrize("fault", FAULTS)
def test_wrong_posteriors_are_caught(toy, fault):
    assert p_value(toy(2000, 100, 10, 1, fault)) < 1e-6


@pytest.mark.parametrize("toy", TOYS)
def test_bins_alone_do_not_see_a_lost_correlation(toy):
    found = p_values(toy(2000, 100, 10, 2, "shuffled"))
    assert found["bins"] > 1e-3
    assert max(found[name] for name in ("rho_L", "density", "distance")) < 1e-6


@pytest.mark.parametrize("toy", TOYS)
def test_exact_posteriors_pass(toy):
    """A false alarm at 0.05 in 0.05 of 200 test sets, within what chance allows once in 1000."""
    alarms = sum(p_value(toy(200, 50, 6, 100 + seed)) < 0.05 for seed in range(200))
    low, high = stats.binom.ppf((0.001, 0.999), 200, 0.05)
    assert low <= alarms <= high


@pytest.mark.slow
@pytest.mark.parametrize("toy", TOYS)
def test_large_test_sets_of_exact_posteriors_pass(toy):
    alarms = sum(p_value(toy(2000, 100, 10, 1000 + seed)) < 0.05 for seed in range(200))
    assert alarms <= stats.binom.ppf(0.999, 200, 0.05)


@pytest.mark.parametrize("toy", TOYS)
def test_numbers_of_an_exact_posterior(toy):
    """Coverage, pulls and biases within four standard errors."""
    num = 4000
    ranks = toy(num, 60, 6, 3)
    for level in calibration.BANDS:
        error = np.sqrt(level * (1 - level) / num)
        for share in ranks.inside(level).values():
            assert share.mean() == pytest.approx(level, abs=4 * error)
    for pull in ranks.pulls.values():
        assert pull.mean() == pytest.approx(0.0, abs=4 * pull.std() / np.sqrt(num))
        assert (pull**2).mean() == pytest.approx(1.0, abs=4 * (pull**2).std() / np.sqrt(num))
    for test in calibration.tests_of(ranks).values():
        assert test.mean == pytest.approx(0.0, abs=4 / np.sqrt(num))
        assert test.rms == pytest.approx(1.0, abs=4 / np.sqrt(2 * num))


def test_biases_and_widths_are_read_in_standard_deviations():
    narrow, shifted = (gaussian(4000, 200, 6, 4, fault) for fault in ("narrow", "shift"))
    for name, test in calibration.tests_of(narrow).items():
        if name in narrow.sums:
            assert test.rms == pytest.approx(1 / 0.8, abs=0.06)
            assert (narrow.pulls[name] ** 2).mean() == pytest.approx(1 / 0.64, abs=0.12)
    for name in ("density", "curve"):
        assert narrow.levels[name].mean() > 0.6  # regions that are too small, from 0.5 on
    assert shifted.pulls["faint"].mean() < -0.3  # 0.3 in each bin, and bins go together


def test_what_depends_on_the_truth_is_no_condition():
    """An exact posterior is calibrated for maps that look alike, not for truths that are alike."""
    ranks = gaussian(4000, 60, 6, 5)
    looks = ranks.median["bright"]
    chosen = ranks.among(looks > np.quantile(looks, 0.75))
    assert len(chosen) == 1000
    assert p_value(chosen) > 1e-3
    rank = ranks.sums["bright"]
    truth_is_high = ranks.among(rank > 0.75)
    assert p_value(truth_is_high) < 1e-6


@pytest.mark.parametrize("whole", [False, True])
def test_depth_by_counting(whole):
    rng = np.random.default_rng(6)
    functions = rng.normal(size=(30, 4, 5))
    if whole:
        functions = np.round(2 * functions)
    found = depth(functions)
    for s in range(30):
        for b in range(4):
            below = (functions[:, b] <= functions[s, b]).sum(axis=0)
            above = (functions[:, b] >= functions[s, b]).sum(axis=0)
            assert found[s, b] == min(below.min(), above.min())


def test_a_curve_outside_in_one_bin_alone_is_outside():
    """All bins of the truth are in the middle but one."""
    samples = np.random.default_rng(7).uniform(0, 100, (400, 1, 9))
    truth = np.full((1, 9), 50.0)
    levels = []
    for value in (50.0, 101.0):
        truth[0, 4] = value
        ranked = RankedTruth(sums(9), np.ones(9))
        ranked.add(samples, truth, samples[0])
        levels.append(ranked.ranks().levels["curve"][0])
    assert levels[0] < 0.01
    assert levels[1] > 0.95


def test_empty_maps_have_ranks():
    """All samples and the truth are empty: ranks are drawn at random, pulls and widths are zero."""
    ranked = RankedTruth(sums(4), np.ones(4))
    nothing = np.zeros((20, 500, 4))
    ranked.add(nothing, nothing[0], nothing[0], (nothing[0, :, 0], nothing[:, :, 0]))
    ranks = ranked.ranks()
    assert p_value(ranks) > 1e-3
    for values in (ranks.pulls, ranks.width_68, ranks.width_95, ranks.median):
        assert not np.concatenate(list(values.values())).any()


def test_batches_do_not_matter():
    rng = np.random.default_rng(8)
    samples, truth, references = (
        rng.poisson(2.0, size).astype(float) for size in ((30, 10, 4), (10, 4), (10, 4))
    )
    found = []
    for size in (10, 3):
        ranked = RankedTruth(sums(4), np.ones(4), seed=9)
        for first in range(0, 10, size):
            part = slice(first, first + size)
            ranked.add(samples[:, part], truth[part], references[part])
        found.append(ranked.ranks())
    one, other = found
    np.testing.assert_array_equal(one.bins, other.bins)
    for name in ("sums", "levels", "pulls"):
        for key, values in getattr(one, name).items():
            np.testing.assert_array_equal(values, getattr(other, name)[key])
    assert "density" not in one.levels and one.log_q is one.surprise is None


def test_shapes_that_do_not_fit_are_refused():
    ranked = RankedTruth(sums(4), np.ones(4))
    with pytest.raises(ValueError, match=r"shape mismatch: samples \(9, 3, 4\), truth \(2, 4\)"):
        ranked.add(np.ones((9, 3, 4)), np.ones((2, 4)), np.ones((2, 4)))


def test_p_values_are_those_of_scipy():
    rank = np.random.default_rng(10).uniform(size=300) ** 1.1
    found = calibration.uniformity(rank)
    exact = stats.kstest(rank, "uniform")
    assert found.deviation == pytest.approx(exact.statistic, rel=1e-12)
    assert found.shape == pytest.approx(exact.pvalue, rel=0.02)
    usual = calibration.usual_deviation(300)
    assert usual == pytest.approx(stats.kstwo.isf(0.05, 300), rel=2e-3)
    score = stats.norm.ppf(rank)
    shift = stats.norm.sf(abs(score.mean()) * np.sqrt(300))
    assert found.shift == pytest.approx(2 * shift, rel=1e-9)
    square = (score**2).sum()
    width = min(stats.chi2.cdf(square, 300), stats.chi2.sf(square, 300))
    assert found.width == pytest.approx(2 * width, rel=1e-9)


@pytest.mark.parametrize("p", [[0.3], [1e-200], [0.04, 0.7, 0.2], [1e-14, 0.9999]])
def test_combined_p_values(p):
    """The tail of Cauchy's distribution, as scipy has it."""
    mean = stats.cauchy.isf(p).mean()
    assert calibration.combine(p) == pytest.approx(stats.cauchy.sf(mean), rel=1e-6)


@pytest.mark.parametrize("num", [50, 1000])
def test_uniform_ranks_keep_to_the_band(num):
    """95 % of them; the band was found with other random numbers."""
    rng = np.random.default_rng(11)
    low, high = rank_band(num)
    curves = np.stack([calibration.rank_curve(rng.uniform(size=num)) for _ in range(2000)])
    within = np.mean(((low - 1e-9 <= curves) & (curves <= high + 1e-9)).all(axis=1))
    # the band is the quantile of other simulations
    error = np.sqrt(0.95 * 0.05 * (1 / 2000 + 1 / calibration.RESAMPLES))
    assert within > 0.95 - 4 * error
    if num == 1000:  # of few, many reach the band's end without leaving it
        assert within < 0.95 + 4 * error
    assert (low < 0).all() and (high > 0).all()


@pytest.mark.parametrize("toy", TOYS)
@pytest.mark.parametrize("fault", ["", "shuffled"])
def test_exact_posteriors_are_not_surprised(toy, fault):
    """Nor are right marginals without correlation, which surprise cannot see."""
    surprise = toy(2000, 100, 10, 13, fault).surprise
    assert abs(surprise.mean()) < 4 * surprise.std() / np.sqrt(len(surprise))


@pytest.mark.parametrize("width", [0.8, 1.25])
def test_surprise_of_wrong_widths(width):
    """n / 2 (1 / width^2 - 1) of a normal distribution in n dimensions, and its error."""
    rng, num, bins = np.random.default_rng(14), 4000, 7
    truth, samples = rng.normal(size=(num, bins)), width * rng.normal(size=(60, num, bins))
    of_truth, of_samples = (-0.5 * (x**2).sum(-1) / width**2 for x in (truth, samples))
    ranked = RankedTruth(sums(bins), np.ones(bins))
    for some in (slice(1000), slice(1000, num)):
        counts = (np.exp(3.0 + x[..., some, :]) for x in (samples, truth, truth))
        ranked.add(*counts, (of_truth[some], of_samples[:, some]))
    error = np.sqrt(0.5 * bins * (1 / width**4 + 1 / 60) / num)
    expected = 0.5 * bins * (1 / width**2 - 1)
    assert ranked.ranks().surprise.mean() == pytest.approx(expected, abs=4 * error)
    faint = ranked.ranks().among(np.arange(num) < 10)
    np.testing.assert_allclose(faint.surprise, of_samples[:, :10].mean(0) - of_truth[:10])


def test_scalars_to_watch():
    found = calibration.scalars(gaussian(300, 64, 6, 12, "narrow"))
    assert found["coverage_68/rho_L"] < 0.62 and found["log10_p"] < -6
    assert {"coverage_95/curve", "bias_sigma/faint", "log_probability"} <= found.keys()
    assert found["surprise"] == pytest.approx(3 * (1 / 0.64 - 1), abs=0.6)
