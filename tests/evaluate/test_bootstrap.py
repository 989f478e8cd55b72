"""Standard errors against closed forms and against resamples written out; coverage and sharpness of
predictions whose distribution is known."""

import re

import numpy as np
import pytest
import torch
from scipy import stats

from streamtrain.evaluate.bootstrap import ENOUGH_LIGHTCONES, Bootstrap, score_intervals
from streamtrain.labels import Label, LabelConfig
from streamtrain.networks.network import build_head
from streamtrain.ranks import INTERVAL_ENDS


def test_the_error_of_a_mean_is_the_scatter_over_the_root_of_the_number():
    values = np.random.default_rng(0).normal(3.0, 2.0, 900)
    assert Bootstrap.of_maps(900).mean(values) == pytest.approx(2.0 / 30.0, rel=0.15)


@pytest.mark.parametrize("skies", [2, 4, 8])
def test_the_error_over_few_skies_is_right_on_average(skies):
    """The variance of the mean of a few skies, from many sets of them: of resamples alone it would
    be (n - 1) / n of that."""
    rng = np.random.default_rng(5)
    names = [f"sky {k % skies}" for k in range(3 * skies)]
    squares = []
    for _ in range(400):
        values = rng.normal(size=skies)[np.arange(3 * skies) % skies]
        squares.append(Bootstrap.choose(names, "lightcones").mean(values) ** 2)
    scatter = np.sqrt(2.0 / (skies - 1) / len(squares))
    assert np.mean(squares) == pytest.approx(1.0 / skies, rel=4.0 * scatter)


def test_the_error_of_a_median_is_that_of_theory():
    # of n normal values: sigma sqrt(pi / (2 n))
    values = np.random.default_rng(1).normal(0.0, 1.0, 2500)
    (error,) = Bootstrap.of_maps(2500).percentiles(values, np.arange(2500), (50.0,))
    assert error == pytest.approx(np.sqrt(np.pi / 2.0) / 50.0, rel=0.3)


@pytest.mark.parametrize("per_map", [1, 60])
def test_percentiles_are_those_of_the_resampled_values(per_map):
    # 60 values of each of 40 maps are too many to be ordered all at once
    values = np.random.default_rng(2).normal(size=(40, per_map))
    bootstrap = Bootstrap.of_maps(40)
    levels = (2.5, 16.0, 50.0, 84.0, 97.5)
    written_out = [
        np.percentile(np.repeat(values, times, axis=0), levels)
        for times in bootstrap._times.astype(int)
    ]
    found = bootstrap.percentiles(values.ravel(), np.repeat(np.arange(40), per_map), levels)
    unbiased = np.std(written_out, axis=0, ddof=1) * np.sqrt(40 / 39)
    assert found == pytest.approx(unbiased, rel=1e-9)


def test_the_error_of_a_median_over_two_skies_is_as_right_as_that_of_the_mean():
    """From many sets of two skies with offsets: without the factor it would be 0.7 of it."""
    rng = np.random.default_rng(1)
    sky = np.repeat(np.arange(2), 64)
    bootstrap, medians, squares = Bootstrap(sky, "lightcones", 2), [], []
    for _ in range(300):
        values = 0.5 * rng.normal(size=2)[sky] + rng.normal(size=128)
        (error,) = bootstrap.percentiles(values, np.arange(128), (50.0,))
        medians.append(np.median(values))
        squares.append(error**2)
    assert np.sqrt(np.mean(squares)) == pytest.approx(np.std(medians), rel=0.15)


def test_what_one_sky_or_map_alone_has_has_no_error():
    """In every resample that holds it at all it is the same, which is no error of zero."""
    values = np.random.default_rng(9).normal(size=32)
    skies = Bootstrap(np.repeat(np.arange(8), 4), "lightcones", 8)
    first = np.arange(32) < 4
    some = skies.among(first)
    assert some.mean(values[first]) is None
    assert some.percentiles(values[first], np.arange(4), (50.0,)) is None
    two = np.arange(32) < 8
    assert skies.among(two).mean(values[two]) > 0.0
    maps = Bootstrap.of_maps(16)
    only = np.zeros(16)
    only[3] = 2.0
    assert maps.ratio(1.7 * only, only, root=True) is None
    assert maps.ratio(1.7 * only, np.ones(16)) > 0.0
    assert maps.percentiles(np.array([1.0, 1.2]), np.array([3, 3]), (16.0, 50.0)) is None


def test_maps_of_one_sky_are_resampled_together():
    # one offset per sky, so only ten independent values
    offset = np.random.default_rng(3).normal(size=10)
    skies = [f"sky {k}" for k in range(10) for _ in range(50)]
    values = np.repeat(offset, 50)
    blocks = Bootstrap.choose(skies)
    assert (blocks.unit, blocks.num_blocks) == ("lightcones", 10)
    expected = offset.std() / np.sqrt(10)
    assert blocks.mean(values) == pytest.approx(expected, rel=0.1)
    maps = Bootstrap.choose(skies, "maps")
    assert (maps.unit, maps.num_blocks) == ("maps", 500)
    assert maps.mean(values) == pytest.approx(expected / np.sqrt(50), rel=0.1)


def test_few_skies_are_not_resampled_unless_asked_for():
    skies = ["a", "b"] * 20
    assert len(set(skies)) < ENOUGH_LIGHTCONES
    assert Bootstrap.choose(skies).unit == "maps"
    assert Bootstrap.choose(skies, "lightcones").describe()["number"] == 2
    with pytest.raises(ValueError, match="the test set has one"):
        Bootstrap.choose(["a"] * 5, "lightcones")
    with pytest.raises(ValueError, match="'sky' is none of auto, maps, lightcones"):
        Bootstrap.choose(skies, "sky")


@pytest.mark.parametrize(
    ("num", "unit", "said"),
    [
        (1, "auto", "the maps come from one sky, and the scatter .* from 8 test skies on it is"),
        (7, "auto", "the maps come from 7 skies, and the scatter .* from 8 test skies on it is"),
        (8, "auto", None),
        (9, "maps", "the maps come from 9 skies, .*; --bootstrap lightcones has it"),
        (2, "lightcones", None),
    ],
)
def test_errors_say_that_they_lack_the_scatter_between_skies(num, unit, said):
    skies = [f"sky {k % num}" for k in range(40)]
    bootstrap = Bootstrap.choose(skies, unit)
    for record in (bootstrap.describe(), bootstrap.among(np.arange(40) < 36).describe()):
        assert record["skies"] == num
        assert record["without"] is None if said is None else re.match(said, record["without"])
    assert Bootstrap.choose([str(k) for k in range(5)]).describe()["without"] is None
    assert Bootstrap.of_maps(40).describe()["without"] is None


def test_skies_differ_by_more_than_maps_of_one_do():
    """What is missing, in closed form: sky offsets of 1, maps of 1, 64 of each sky."""
    rng = np.random.default_rng(8)
    values = (rng.normal(size=(16, 1)) + rng.normal(size=(16, 64))).ravel()
    skies = np.repeat([f"sky {k}" for k in range(16)], 64)
    maps, cones = (Bootstrap.choose(skies, unit).mean(values) for unit in ("maps", "lightcones"))
    assert maps == pytest.approx(np.sqrt(2 / 1024), rel=0.15)
    assert cones == pytest.approx(np.sqrt((1 + 1 / 64) / 16), rel=0.35)


def test_some_of_the_maps_keep_their_resamples():
    values = np.random.default_rng(4).normal(size=200)
    chosen = values > 0.0
    some = Bootstrap.of_maps(200).among(chosen)
    error = values[chosen].std() / np.sqrt(chosen.sum())
    assert some.mean(values[chosen]) == pytest.approx(error, rel=0.15)


EDGES = np.linspace(3.5, 7.0, 50)
NUM = 800


def test_a_calibrated_gaussian_covers_68_and_95_percent():
    rng = np.random.default_rng(6)
    mean, sigma = 3.0 + rng.normal(size=(NUM, 49)), rng.uniform(0.05, 0.3, (NUM, 49))
    true = mean + sigma * rng.normal(size=mean.shape)
    quantiles = np.stack([mean + stats.norm.ppf(p) * sigma for p in INTERVAL_ENDS])
    result = score_intervals(quantiles, true, EDGES, Bootstrap.of_maps(NUM))
    for values in [*result.ranges, result.whole]:
        assert values.coverage_68 == pytest.approx(0.68, abs=4 * values.coverage_68_error)
        assert values.coverage_95 == pytest.approx(0.95, abs=4 * values.coverage_95_error)
        assert values.width_68 == pytest.approx(2 * 0.99446 * sigma.mean(), rel=0.02)
        assert values.width_95 == pytest.approx(2 * 1.95996 * sigma.mean(), rel=0.02)
    error = np.sqrt(0.68 * 0.32 / true.size)
    assert result.whole.coverage_68_error == pytest.approx(error, rel=0.15)


def test_a_network_too_sure_of_itself_covers_less():
    true = 0.2 * np.random.default_rng(7).normal(size=(NUM, 49))
    quantiles = np.stack([np.full_like(true, 0.1 * stats.norm.ppf(p)) for p in INTERVAL_ENDS])
    result = score_intervals(quantiles, true, EDGES, Bootstrap.of_maps(NUM))
    for values in [*result.ranges, result.whole]:
        expected = 2 * stats.norm.cdf(0.5 * stats.norm.ppf(0.84)) - 1
        assert values.coverage_68 == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("name", ["poisson", "negative_binomial"])
def test_heads_of_counts_cover_counts_that_follow_them(name):
    """The quantiles of a head, through float32 labels: 2000 maps of three bins."""
    mean, dispersion = np.array([3.0, 40.0, 5000.0]), 0.05
    rng = np.random.default_rng(8)
    rates = np.tile(mean, (2000, 1))
    if name == "negative_binomial":
        rates = rates * rng.gamma(1 / dispersion, dispersion, rates.shape)
    counts = torch.from_numpy(rng.poisson(rates))
    label = Label(LabelConfig(bins=3, log10_L=(3.5, 7.0)))
    head = build_head(name, label)
    parts = [np.log(mean)] + [np.full(3, np.log(dispersion))] * (name != "poisson")
    answer = torch.from_numpy(np.concatenate(parts)).tile(2000, 1)
    unit_label = torch.zeros(1, 3)
    quantiles = head.spread(answer, unit_label, INTERVAL_ENDS).numpy()
    true = counts.float().clamp(min=1.0).log10().double().numpy()
    edges = np.linspace(3.5, 7.0, 4)
    result = score_intervals(quantiles, true, edges, Bootstrap.of_maps(2000))
    if name == "poisson":
        family = stats.poisson(mean)
    else:
        family = stats.nbinom(1 / dispersion, 1 / (1 + dispersion * mean))
    for low, high, found in (
        (0.16, 0.84, result.whole.coverage_68),
        (0.025, 0.975, result.whole.coverage_95),
    ):
        # whole numbers, ends included: a little more than the nominal share; 0 reads as 1
        first = np.where(family.ppf(low) <= 1, 0, family.ppf(low))
        expected = np.mean(family.cdf(family.ppf(high)) - family.cdf(first - 1))
        assert found == pytest.approx(expected, abs=4 * np.sqrt(0.75 * 0.25 / 6000))
        assert expected > high - low
