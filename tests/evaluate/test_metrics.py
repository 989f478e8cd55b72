"""Statistics of residuals against constructed truths."""

import numpy as np
import pytest

from streamtrain.evaluate.scores import delta_percentiles, score

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
    assert [r.log10_L for r in result.ranges] == [(3.5, 4.5), (6.0, 6.5)]
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
