"""Coverage and sharpness of predictions whose distribution is known."""

import numpy as np
import pytest
import torch
from scipy import stats

from streamtrain.evaluate.bootstrap import LEVELS, Bootstrap, score_intervals
from streamtrain.labels import Label, LabelConfig
from streamtrain.networks.network import build_head

EDGES = np.linspace(3.5, 7.0, 50)
NUM = 800


def test_a_calibrated_gaussian_covers_68_and_95_percent():
    rng = np.random.default_rng(6)
    mean, sigma = 3.0 + rng.normal(size=(NUM, 49)), rng.uniform(0.05, 0.3, (NUM, 49))
    true = mean + sigma * rng.normal(size=mean.shape)
    quantiles = np.stack([mean + stats.norm.ppf(p) * sigma for p in LEVELS])
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
    quantiles = np.stack([np.full_like(true, 0.1 * stats.norm.ppf(p)) for p in LEVELS])
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
    quantiles = head.spread(answer, unit_label, LEVELS).numpy()
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
