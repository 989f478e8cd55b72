"""The Poisson deviance against its closed forms."""

import numpy as np
import pytest
from scipy import stats

from streamtrain.evaluate.bootstrap import Bootstrap
from streamtrain.evaluate.scores import SMALLEST_RATE, deviance, score_counts

EDGES = np.linspace(3.5, 7.0, 50)


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
