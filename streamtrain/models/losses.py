"""Losses of luminosity functions, element by element.

Arguments broadcast. Likelihoods are minus the logarithm of a probability [nat]; those of counts are
in float64, because a count of 1e6 leaves float32 no digit for the rest.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

LARGEST_LN_RATE = 35.0
"""A rate of 10^15.2, beyond any count: from there on it grows linearly, not exponentially."""


def log_cosh(error: Tensor) -> Tensor:
    """ln cosh of an error: half its square where small, its size less ln 2 where large."""
    size = error.abs()
    return size + softplus(-2.0 * size) - math.log(2.0)


def squared_log_error(predicted: Tensor, true: Tensor) -> Tensor:
    """(ln(1 + predicted) - ln(1 + true))^2 of counts.

    true: at least 0. Below 0, where Keras clips the prediction and so loses its gradient, the
    logarithm goes on as a straight line.
    """
    log = torch.where(predicted < 0, predicted, torch.log1p(predicted.clamp(min=0.0)))
    return (log - torch.log1p(true)) ** 2


def gaussian_nll(mean: Tensor, ln_std: Tensor, true: Tensor) -> Tensor:
    """Minus the log density of a normal distribution."""
    pull = (true - mean) * torch.exp(-ln_std)
    return 0.5 * pull * pull + ln_std + 0.5 * math.log(2.0 * math.pi)


def poisson_nll(ln_rate: Tensor, counts: Tensor) -> Tensor:
    """Minus the log probability of counts (whole numbers from 0)."""
    ln_rate, counts = ln_rate.double(), counts.double()
    return rate(ln_rate) - counts * ln_rate + torch.lgamma(counts + 1.0)


def negative_binomial_nll(ln_mean: Tensor, ln_dispersion: Tensor, counts: Tensor) -> Tensor:
    """Minus the log probability of counts of variance mean + dispersion mean^2.

    It is the distribution of Poisson counts whose rate scatters by sqrt(dispersion); dispersion 0
    would be Poisson. dispersion: 1e-8 or more, below which float64 runs out of digits.
    """
    ln_mean, counts = ln_mean.double(), counts.double()
    ln_shape = -ln_dispersion.double()  # scipy's n
    shape = torch.exp(ln_shape)
    odds = ln_mean - ln_shape
    return (
        torch.lgamma(shape)
        + torch.lgamma(counts + 1.0)
        - torch.lgamma(shape + counts)
        + shape * softplus(odds, threshold=40.0)
        + counts * softplus(-odds, threshold=40.0)
    )


def rate(ln_rate: Tensor) -> Tensor:
    """exp, linear beyond `LARGEST_LN_RATE`: finite with a finite slope for any finite argument."""
    over = (ln_rate - LARGEST_LN_RATE).clamp(min=0.0)
    return torch.exp(ln_rate.clamp(max=LARGEST_LN_RATE)) * (1.0 + over)
