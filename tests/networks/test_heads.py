"""Heads and losses against closed forms, scipy and torch.distributions."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from support.network_tools import label_of, labels_from

from streamtrain.networks import heads
from streamtrain.networks.heads import Head
from streamtrain.networks.network import build_head, loss_name

COUNTS = torch.tensor([0, 1, 2, 17, 1000, 10**6])
LN_RATES = torch.tensor([-10.0, -1.0, 0.0, 3.0, 7.0, 13.8, 15.0])


def numbers(head: Head, batch: int = 3, scale: float = 0.0) -> torch.Tensor:
    return scale * torch.randn(batch, head.num_numbers)


def poisson_counts(number: int, bins: int = 5) -> torch.Tensor:
    """Falling with luminosity, scattering from map to map; the last bin nearly always empty."""
    mean = 10 ** (torch.linspace(4.0, -1.5, bins) + 0.3 * torch.randn(number, 1))
    return torch.poisson(mean).int()


def calibrated(name: str, samples: int = 400, **label: Any) -> tuple[Head, torch.Tensor]:
    """A head, and the counts that it was normalised with."""
    made = label_of(**label)
    head = build_head(name, made, monotonic=made.config.quantity == "cumulative")
    counts = poisson_counts(samples)
    unit_label = made.unit_label(np.zeros(samples, np.int64)).expand(samples, -1)
    head.set_normalisation(labels_from(made, counts), counts, unit_label)
    return head, counts


@pytest.mark.parametrize("name", ["mse", "log_cosh", "gaussian"])
@pytest.mark.parametrize("quantity", ["counts", "phi"])
def test_maps_are_told_apart_in_standard_deviations_of_a_linear_label(
    name: str, quantity: str
) -> None:
    """Whatever the label's unit: numbers of phi are 1e-10, and an alarm has an absolute floor."""
    head, counts = calibrated(name, quantity=quantity, scale="linear")
    unit = head.label.unit_label(np.zeros(1, np.int64))
    labels = counts * unit
    others = torch.full((len(labels), head.num_numbers - labels.shape[1]), 0.3)
    seen = head.tells_apart(torch.cat([labels, others], dim=1))
    expected = labels / (labels.std(0, correction=0).clamp(min=unit[0]))
    torch.testing.assert_close(seen[:, : labels.shape[1]], expected)
    assert (seen[:, labels.shape[1] :] == 0.3).all()
    logarithm, _ = calibrated(name, quantity=quantity)
    same = torch.randn(4, logarithm.num_numbers)
    assert torch.equal(logarithm.tells_apart(same), same)


def test_poisson_is_scipys_for_every_count_and_rate() -> None:
    ours = heads.poisson_nll(LN_RATES[:, None], COUNTS)
    exact = -stats.poisson.logpmf(COUNTS, LN_RATES.double().exp().numpy()[:, None])
    np.testing.assert_allclose(ours, exact, rtol=1e-9, atol=1e-8)
    other = torch.distributions.Poisson(LN_RATES.double().exp()[:, None]).log_prob(COUNTS.double())
    torch.testing.assert_close(ours, -other, rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize("dispersion", [1e-6, 1e-3, 0.1, 1.0, 50.0, 1e4])
def test_negative_binomial_is_scipys_for_every_count_and_rate(dispersion: float) -> None:
    ln_dispersion = torch.tensor(math.log(dispersion), dtype=torch.float64)
    ours = heads.negative_binomial_nll(LN_RATES[:, None], ln_dispersion, COUNTS)
    mean, shape = LN_RATES.double().exp()[:, None], 1 / dispersion
    exact = -stats.nbinom.logpmf(COUNTS, shape, (1 / (1 + dispersion * mean)).numpy())
    np.testing.assert_allclose(ours, exact, rtol=1e-6, atol=1e-6)
    other = torch.distributions.NegativeBinomial(
        torch.tensor(shape, dtype=torch.float64), logits=LN_RATES.double()[:, None] + ln_dispersion
    ).log_prob(COUNTS.double())
    torch.testing.assert_close(ours, -other, rtol=1e-6, atol=1e-6)


def test_negative_binomial_of_little_dispersion_is_poisson() -> None:
    few = COUNTS[:5]
    poisson = heads.poisson_nll(LN_RATES[:5, None], few)
    ours = heads.negative_binomial_nll(
        LN_RATES[:5, None], torch.tensor(math.log(1e-8), dtype=torch.float64), few
    )
    # the next order: dispersion ((N - mean)^2 - N) / 2
    mean = LN_RATES[:5, None].double().exp()
    torch.testing.assert_close(
        ours, poisson - 0.5e-8 * ((few - mean) ** 2 - few), rtol=1e-6, atol=1e-5
    )


def test_gaussian_is_scipys() -> None:
    true, mean, std = torch.tensor([-3.0, 0.0, 2.5]), torch.tensor(0.5), torch.tensor([0.1, 1, 40])
    ours = heads.gaussian_nll(mean, std.log(), true)
    np.testing.assert_allclose(ours, -stats.norm.logpdf(true, mean, std), rtol=1e-5)


def test_log_cosh_and_squared_log_error_in_closed_form() -> None:
    error = torch.tensor([-200.0, -2.0, 0.0, 1e-3, 5.0])
    wide = error.double().numpy()
    exact = np.logaddexp(wide, -wide) - math.log(2)
    # it is a sum of numbers near ln 2, which float32 rounds by 1e-7; its slope is exact
    np.testing.assert_allclose(heads.log_cosh(error), exact, rtol=1e-6, atol=3e-7)
    error.requires_grad_()
    heads.log_cosh(error).sum().backward()
    assert error.grad is not None
    torch.testing.assert_close(error.grad, torch.tanh(error.detach()), rtol=1e-5, atol=2e-7)
    predicted, true = torch.tensor([0.0, 3.0, 1e6]), torch.tensor([0.0, 0.0, 10.0])
    exact = (np.log1p(predicted.numpy()) - np.log1p(true.numpy())) ** 2
    np.testing.assert_allclose(heads.squared_log_error(predicted, true), exact, rtol=1e-6)
    below = torch.tensor(-5.0, requires_grad=True)
    heads.squared_log_error(below, torch.tensor(1.0)).backward()
    assert below.grad is not None and below.grad < 0  # it is pulled up; Keras' would stay


@pytest.mark.parametrize("name", ["poisson", "negative_binomial", "gaussian"])
@pytest.mark.parametrize("size", [0.0, 30.0, 1e4])
def test_loss_and_gradient_are_finite_at_extremes(name: str, size: float) -> None:
    """Numbers of the last layer up to +-1e4, counts from 0 to 1e6."""
    head, _ = calibrated(name)
    counts = torch.tensor([[0, 0, 0, 0, 0], [10**6] * 5])
    label = labels_from(head.label, counts)
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=2)))
    for sign in signs:
        given = size * sign.repeat_interleave(5)[: head.num_numbers].repeat(2, 1)
        given.requires_grad_()
        answer = head(given)
        loss = head.loss(answer, label, counts, torch.zeros(1, 5))
        loss.backward()
        assert torch.isfinite(loss)
        assert given.grad is not None and torch.isfinite(given.grad).all()
        assert torch.isfinite(head.point(answer, torch.zeros(1, 5))).all()
        assert loss.dtype == torch.float32


@pytest.mark.parametrize("scale", ["log10", "linear"])
@pytest.mark.parametrize("name", ["auto", "mse", "log_cosh", "gaussian"])
def test_untrained_head_answers_the_mean_label(name: str, scale: str) -> None:
    for quantity in ("counts", "phi", "phi_L"):
        head, counts = calibrated(name, quantity=quantity, scale=scale)
        unit_label = head.label.unit_label(np.zeros(3, np.int64))
        point = head.point(head(numbers(head)), unit_label)
        mean = labels_from(head.label, counts).double().mean(0).float()
        torch.testing.assert_close(point, mean.expand(3, -1), rtol=1e-5, atol=0)


@pytest.mark.parametrize("scale", ["log10", "linear"])
@pytest.mark.parametrize("name", ["poisson", "negative_binomial"])
def test_untrained_count_head_answers_the_mean_count(name: str, scale: str) -> None:
    """Whatever the label's unit: dN, or dN per volume and luminosity."""
    for quantity in ("counts", "phi", "phi_L"):
        head, counts = calibrated(name, quantity=quantity, scale=scale)
        unit_label = head.label.unit_label(np.zeros(3, np.int64))
        point = head.point(head(numbers(head)), unit_label)
        mean = counts.double().mean(0).clamp(min=0.5 / 400)
        linear = scale == "linear"
        expected = mean * unit_label if linear else mean.clamp(min=1).log10() + unit_label
        torch.testing.assert_close(point.double(), expected.expand(3, -1), rtol=1e-5, atol=1e-5)
        counted = head.label.log10_counts(point, unit_label)
        torch.testing.assert_close(counted[0], mean.clamp(min=1).log10(), rtol=1e-4, atol=1e-5)


def test_untrained_negative_binomial_has_the_scatter_of_the_counts() -> None:
    head, counts = calibrated("negative_binomial", samples=20_000)
    ln_mean, ln_dispersion = head(numbers(head, 1)).double().exp()[0].split(5)
    variance = counts.double().var(0, correction=0)
    predicted = ln_mean + ln_dispersion * ln_mean**2
    torch.testing.assert_close(predicted[:4], variance[:4], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["mse", "log_cosh", "gaussian", "poisson", "negative_binomial"])
def test_each_loss_is_least_at_the_truth(name: str) -> None:
    """The slope of the expected loss in the head's first number vanishes where the data's mean, or
    rate, is: here at zero, where the head was normalised with those data."""
    head, counts = calibrated(name, samples=4000, scale="linear")
    given = numbers(head, 4000).requires_grad_()
    label = labels_from(head.label, counts)
    head.loss(head(given), label, counts, torch.ones(1, 5)).backward()
    assert given.grad is not None
    first = given.grad[:, :5]
    bias = first.double().sum(0).abs() / first.double().abs().sum(0)
    # log cosh is least at a robust centre, which for skewed counts lies below the mean
    assert (bias < (0.35 if name == "log_cosh" else 1e-3))[:4].all()


@pytest.mark.parametrize("scale", ["log10", "linear"])
def test_mean_squared_errors_by_hand(scale: str) -> None:
    """In dex, or in standard deviations of each bin; log cosh of the same error."""
    head, _ = calibrated("mse", scale=scale)
    other, _ = calibrated("log_cosh", scale=scale)
    other.load_state_dict(head.state_dict())
    truth, prediction = torch.zeros(2, 5), torch.rand(2, 5)
    error = prediction / (head.label_std if scale == "linear" else 1.0)
    nothing = torch.ones(1)
    assert head.loss(prediction, truth, truth, nothing) == pytest.approx(
        error.square().mean().item()
    )
    assert other.loss(prediction, truth, truth, nothing) == pytest.approx(
        error.cosh().log().mean().item(), rel=1e-5
    )


def test_msle_is_of_the_count_in_any_unit() -> None:
    found = []
    for quantity in ("counts", "phi", "phi_L"):
        head, _ = calibrated("msle", quantity=quantity, scale="linear")
        one = head.label.unit_label(np.zeros(1, np.int64))
        truth, prediction = torch.tensor([[0.0, 5, 9, 0, 1e5]]), torch.tensor([[1.0, 5, 0, 0, 1e4]])
        found.append(head.loss(prediction * one, truth * one, truth, one).item())
    exact = np.mean((np.log1p(prediction.numpy()) - np.log1p(truth.numpy())) ** 2)
    assert found == pytest.approx([exact] * 3, rel=1e-5)


def test_loss_of_a_class_is_minus_the_log_of_its_probability() -> None:
    head = build_head("auto", label_of(quantity="class"))
    chances = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.25, 0.25]])
    one_hot = torch.tensor([[1.0, 0, 0], [0, 0, 1.0]])
    logits = chances.log() + torch.tensor([[5.0], [-3.0]])  # only their differences count
    loss = head.loss(logits, one_hot, one_hot, torch.ones(1))
    assert loss == pytest.approx(-(math.log(0.7) + math.log(0.25)) / 2)
    assert loss_name("auto", is_class=True) == "cross-entropy of the label"


@pytest.mark.parametrize("name", ["mse", "log_cosh", "gaussian"])
@pytest.mark.parametrize("scale", ["log10", "linear"])
def test_monotonic_function_never_rises_and_starts_at_the_mean(name: str, scale: str) -> None:
    label = label_of(40, quantity="cumulative", scale=scale)
    head = build_head(name, label, monotonic=True)
    counts = poisson_counts(300, 40)
    values = labels_from(label, counts)
    head.set_normalisation(values, counts, torch.ones(1, 40))
    start = head.point(head(numbers(head)), torch.ones(1, 40))
    # bins without a halo in any sample keep a step of a thousandth of their scale
    slack = {"log10": 1e-3, "linear": 0.05}[scale]
    torch.testing.assert_close(start[0], values.mean(0), rtol=1e-5, atol=slack)
    for size in (1.0, 30.0, 1e4):
        point = head.point(head(numbers(head, 200, size)), torch.ones(1, 40))
        assert torch.isfinite(point).all()
        assert (point.diff(dim=1) <= 0).all()
        assert (point >= 0).all()
    given = numbers(head, 4, 1.0).requires_grad_()
    head.point(head(given), torch.ones(1, 40)).sum().backward()
    assert given.grad is not None and (given.grad[:, :40] > 0).all()


def test_free_function_may_rise() -> None:
    head = build_head("mse", label_of(40, quantity="cumulative"))
    point = head.point(head(numbers(head, 200, 1.0)), torch.ones(1, 40))
    assert (point.diff(dim=1) > 0).any()


@pytest.mark.parametrize("scale", ["log10", "linear"])
def test_quantiles_hold_their_share_of_the_data(scale: str) -> None:
    """Counts drawn from what a head answers lie below its quantiles as often as they should."""
    levels, number = (0.16, 0.5, 0.84), 4000
    for name in ("gaussian", "poisson", "negative_binomial"):
        head, _ = calibrated(name, quantity="phi_L", scale=scale)
        given = numbers(head, 1, 0.3).expand(number, -1)
        answer = head(given)
        unit_label = head.label.unit_label(np.zeros(number, np.int64))
        if name == "gaussian":
            mean, stretch = answer.split(5, dim=1)
            drawn = torch.normal(mean, stretch.exp() * head.label_std).double()
        else:
            rates = answer[:, :5].double().exp()
            if name == "negative_binomial":
                shape = torch.exp(-answer[:, 5:].double())
                rates = rates * torch.distributions.Gamma(shape, shape).sample()
            drawn = labels_from(head.label, torch.poisson(rates)).double()
        spread = head.spread(answer, unit_label, levels)
        assert spread is not None and spread.shape == (3, number, 5)
        for level, quantile in zip(levels, spread, strict=True):
            tolerance = 1e-6 * quantile.abs()
            below = (drawn < quantile - tolerance).double().mean(0)
            upto = (drawn <= quantile + tolerance).double().mean(0)
            assert (below < level + 0.03).all() and (upto > level - 0.03).all()


def test_point_heads_have_no_spread() -> None:
    head, _ = calibrated("mse")
    assert head.spread(numbers(head), torch.ones(1, 5), (0.5,)) is None
