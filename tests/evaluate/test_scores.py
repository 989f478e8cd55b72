"""Residuals, errors by bright halos and the Poisson deviance against closed forms."""

import numpy as np
import pytest
from scipy import stats

from streamtrain.evaluate.bootstrap import Bootstrap
from streamtrain.evaluate.scores import (
    SMALLEST_RATE,
    delta_percentiles,
    deviance,
    num_bright,
    score,
    score_counts,
    score_groups,
)

EDGES = np.linspace(3.5, 7.0, 50)
NUM_BINS = 49


def full(num_samples: int) -> np.ndarray:
    return np.ones((num_samples, NUM_BINS), bool)


def test_gaussian_residuals_give_their_rms_and_lognormal_percentiles():
    rng = np.random.default_rng(1)
    sigma = 0.1
    true = np.full((4000, NUM_BINS), 3.0)
    result = score(true + sigma * rng.normal(size=true.shape), true, full(4000), EDGES)
    for values in [*result.ranges, result.whole]:
        # standard error of an rms of n independent values: sigma / sqrt(2 n)
        expected_error = sigma / np.sqrt(2 * values.num_values)
        assert values.rms_dex == pytest.approx(sigma, abs=4 * expected_error)
        assert values.rms_dex_error == pytest.approx(expected_error, rel=0.2)
        assert values.median == pytest.approx(0.0, abs=0.005)
        assert values.interval_68 == pytest.approx(
            (10 ** (-0.99446 * sigma) - 1, 10 ** (0.99446 * sigma) - 1), abs=0.01
        )
        assert values.interval_95 == pytest.approx(
            (10 ** (-1.95996 * sigma) - 1, 10 ** (1.95996 * sigma) - 1), abs=0.02
        )
    assert result.mse == pytest.approx(sigma**2, rel=0.03)
    assert result.mse_error == pytest.approx(sigma**2 * np.sqrt(2 / true.size), rel=0.2)


def test_bins_of_one_map_are_not_independent():
    # one offset per map: only num_samples independent values, however many bins
    rng = np.random.default_rng(2)
    true = np.full((1000, NUM_BINS), 3.0)
    result = score(true + 0.1 * rng.normal(size=(1000, 1)), true, full(1000), EDGES)
    assert result.whole.rms_dex_error == pytest.approx(0.1 / np.sqrt(2 * 1000), rel=0.2)


def test_percentiles_of_constructed_ratios_are_exact():
    # ratios 0.50, 0.51 ... 1.50: percentile q of 101 equidistant values is 0.5 + q / 100
    ratios = np.linspace(0.5, 1.5, 101)
    true = np.full((101, NUM_BINS), 2.0)
    result = score(true + np.log10(ratios)[:, None], true, full(101), EDGES)
    bands = delta_percentiles(np.broadcast_to(np.log10(ratios)[:, None], true.shape), full(101))
    assert bands[:, 0] == pytest.approx([-0.475, -0.34, 0.0, 0.34, 0.475])
    assert (bands == bands[:, :1]).all()
    assert result.ranges[2].median == pytest.approx(0.0, abs=1e-12)
    # seven equal bins: each value occurs seven times, so the percentiles move by at most a step
    assert result.ranges[2].interval_68 == pytest.approx((-0.34, 0.34), abs=0.01)


def test_ranges_are_the_published_ones():
    true = np.full((3, NUM_BINS), 2.0)
    centres = 0.5 * (EDGES[1:] + EDGES[:-1])
    result = score(true + centres, true, full(3), EDGES)
    assert [r.log10_L for r in result.ranges] == [
        (3.5, 4.5),
        (4.5, 5.5),
        (5.5, 6.0),
        (6.0, 6.5),
        (6.5, 7.0),
    ]
    assert [r.num_bins for r in result.ranges] == [14, 14, 7, 7, 7]
    for values in result.ranges:
        low, high = values.log10_L
        inside = centres[(centres > low) & (centres < high)]
        assert values.rms_dex == pytest.approx(np.sqrt(np.mean(inside**2)))


def test_ranges_without_a_bin_are_left_out():
    edges = np.linspace(3.5, 7.0, 3)
    result = score(np.ones(2), np.ones((2, 2)), np.ones((2, 2), bool), edges)
    assert [r.log10_L for r in result.ranges] == [(3.5, 5.25), (5.25, 7.0)]
    assert result.whole.log10_L == (3.5, 7.0)


def test_empty_bins_count_in_mse_alone():
    true = np.full((8, NUM_BINS), 1.0)
    occupied = full(8)
    true[:4, 42:] = 0.0
    occupied[:4, 42:] = False
    predicted = np.where(occupied, true, 2.0)
    result = score(predicted, true, occupied, EDGES)
    brightest = result.ranges[-1]
    assert brightest.excluded == 0.5
    assert brightest.num_values == 4 * 7
    assert brightest.rms_dex == 0.0
    assert brightest.interval_95 == (0.0, 0.0)
    assert result.mse == pytest.approx(2.0**2 * 4 * 7 / true.size)


def test_a_range_without_halos_has_no_statistics():
    occupied = full(5)
    occupied[:, 42:] = False
    true = np.where(occupied, 1.0, 0.0)
    brightest = score(true, true, occupied, EDGES).ranges[-1]
    assert (brightest.num_values, brightest.excluded) == (0, 1.0)
    assert brightest.median is None and brightest.rms_dex is None
    assert np.isnan(delta_percentiles(true, occupied)[:, 42:]).all()


def test_always_predicting_the_mean_has_the_scatter_of_the_truth():
    rng = np.random.default_rng(3)
    scatter = np.linspace(0.1, 0.5, NUM_BINS)
    true = 3.0 + scatter * rng.normal(size=(2000, NUM_BINS))
    result = score(np.full(NUM_BINS, 3.0), true, full(2000), EDGES)
    assert result.mse == pytest.approx(np.mean(scatter**2), rel=0.03)
    assert result.ranges[0].rms_dex == pytest.approx(np.sqrt(np.mean(scatter[:14] ** 2)), rel=0.03)
    rows = np.broadcast_to(np.full(NUM_BINS, 3.0), true.shape)
    assert score(rows, true, full(2000), EDGES) == result


def test_huge_residuals_stay_finite():
    true = np.zeros((2, NUM_BINS))
    result = score(true + 1e4, true, full(2), EDGES)
    assert np.isfinite(result.ranges[0].interval_95).all()


def test_shapes_that_do_not_match_are_refused():
    true = np.ones((3, NUM_BINS))
    with pytest.raises(ValueError, match=r"predicted \(3, 48\), true \(3, 49\)"):
        score(true[:, 1:], true, full(3), EDGES)
    with pytest.raises(ValueError, match="bin_edges"):
        score(true, true, full(3), EDGES[1:])
    with pytest.raises(ValueError, match="num_samples, num_bins"):
        score(true[0], true[0], full(3)[0], EDGES)


def test_one_map_has_no_standard_error():
    result = score(np.ones((1, NUM_BINS)), np.ones((1, NUM_BINS)), full(1), EDGES)
    assert result.mse_error is None and result.whole.rms_dex_error is None


def test_bright_halos_are_those_of_the_two_brightest_ranges():
    counts = np.ones((2, 49))
    counts[1, 35:] = 3
    assert num_bright(counts, EDGES).tolist() == [14, 42]
    assert num_bright(np.ones((2, 7)), np.linspace(6.0, 9.5, 8)).tolist() == [2, 2]
    assert num_bright(np.ones((2, 1)), np.array([3.5, 7.0])) is None


def test_each_quarter_has_its_own_errors():
    bright = np.arange(80.0)
    offset = np.repeat([0.1, 0.2, 0.3, 0.4], 20)
    true = np.full((80, 49), 2.0)
    occupied = np.ones((80, 49), bool)
    order = np.random.default_rng(9).permutation(80)
    groups = score_groups(
        (true + offset[:, None])[order], 10 ** (true + offset[:, None])[order], true,
        np.full((80, 49), 100.0), occupied, bright[order], Bootstrap.of_maps(80),
    )  # fmt: skip
    assert [g.bright for g in groups] == [(0, 19), (20, 39), (40, 59), (60, 79)]
    assert [g.maps for g in groups] == [20] * 4
    assert [g.mse for g in groups] == pytest.approx([0.01, 0.04, 0.09, 0.16])
    assert [g.rms_dex for g in groups] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    ratio = 10 ** np.array([0.1, 0.2, 0.3, 0.4])
    assert [g.deviance for g in groups] == pytest.approx(200 * (ratio - 1 - np.log(ratio)))


def test_maps_with_equal_numbers_stay_together():
    bright = np.array([0.0] * 30 + [5.0] * 2 + [9.0] * 8)
    true = np.ones((40, 49))
    groups = score_groups(
        true, 10**true, true, 10**true, true > 0, bright, Bootstrap.of_maps(40)
    )  # fmt: skip
    assert groups[0].bright == (0, 0)
    assert groups[0].maps == 30
    assert sum(g.maps for g in groups) == 40


@pytest.mark.parametrize("rate", [0.1, 1.0, 30.0])
def test_the_deviance_is_twice_a_ratio_of_likelihoods(rate):
    n = np.arange(60)
    best = stats.poisson.logpmf(n, np.maximum(n, 1e-300))
    assert deviance(np.full(60, rate), n) == pytest.approx(
        2 * (best - stats.poisson.logpmf(n, rate)), abs=1e-9
    )


def test_an_empty_bin_costs_twice_the_predicted_number():
    assert deviance(np.array([0.3, 5.0]), np.zeros(2)) == pytest.approx([0.6, 10.0])


def test_a_prediction_below_unit_label_counts_as_it_is_down_to_the_smallest_rate():
    one = np.ones(4)
    found = deviance(np.array([0.5, SMALLEST_RATE, 0.0, -3.0]), one)
    assert found[0] == pytest.approx(2 * (np.log(2.0) - 0.5))
    assert found[1:] == pytest.approx(2 * (np.log(1 / SMALLEST_RATE) - 1 + SMALLEST_RATE))


@pytest.mark.parametrize("rate", [0.2, 3.0, 400.0])
def test_the_true_rate_has_the_deviance_of_poisson_counts(rate):
    n = np.arange(2000)
    expected = np.sum(stats.poisson.pmf(n, rate) * deviance(np.full(2000, rate), n))
    counts = np.random.default_rng(5).poisson(rate, (1000, 49)).astype(float)
    result = score_counts(np.full(49, rate), counts, EDGES, Bootstrap.of_maps(1000))
    assert result.whole.deviance == pytest.approx(expected, abs=4 * result.whole.deviance_error)
    per_bin = deviance(np.full(49, rate), counts)
    assert result.whole.deviance_error == pytest.approx(
        per_bin.std() / np.sqrt(per_bin.size), rel=0.2
    )
    assert result.ranges[0].log10_L == (3.5, 4.5)
    if rate > 100:
        assert expected == pytest.approx(1.0, abs=0.01)


def test_a_relative_error_of_large_counts_adds_its_square_times_the_count():
    counts = np.full((3, 49), 1e6)
    result = score_counts(1.01 * counts, counts, EDGES, Bootstrap.of_maps(3))
    assert result.whole.deviance == pytest.approx(1e6 * 0.01**2, rel=0.01)


def test_ranges_have_their_own_deviance():
    counts = np.zeros((2, 49))
    rates = np.where(EDGES[:-1] >= 6.5 - 1e-9, 0.5, 0.1) * np.ones((2, 49))
    result = score_counts(rates, counts, EDGES, Bootstrap.of_maps(2))
    assert [r.deviance for r in result.ranges] == pytest.approx([0.2] * 4 + [1.0])
    assert result.whole.deviance == pytest.approx((42 * 0.2 + 7 * 1.0) / 49)
