"""The probability that a mixture of normal distributions gives to an interval.

Heads of counts ask it for the interval of a latent number that means n halos, which may be as wide
as the line or narrower than the rounding of its ends. All is float64, and so are the gradients,
which are finite everywhere.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.special import log_ndtr

NARROW = 1e-5
"""An interval of less than so many standard deviations has the density times its width."""
LN_PEAK = -0.5 * math.log(2.0 * math.pi)
"""ln of the normal distribution's largest density."""


def interval_log_prob(
    weight: Tensor, mean: Tensor, ln_std: Tensor, low: Tensor, high: Tensor, width: Tensor
) -> Tensor:
    """ln of the probability that x lies between low and high [...], where x is drawn from a mixture
    of normal distributions of some weights (before a softmax), means and deviations [...,
    components]; float64, finite with finite gradients. width: high - low without rounding."""
    found: Tensor = _IntervalOfMixture.apply(weight, mean, ln_std, low, high, width)
    return found


class _IntervalOfMixture(torch.autograd.Function):
    """`interval_log_prob` with its gradient written out, which takes half of the time."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, mean: Tensor, ln_std: Tensor, *ends: Tensor) -> Tensor:
        inverse = torch.exp(-ln_std)
        low, high = ((end[..., None] - mean) * inverse for end in ends[:2])
        width = ends[2][..., None] * inverse
        each = normal_log_interval(low, high, width)
        ln_weight = weight.log_softmax(-1)
        share = ln_weight + each
        total = share.logsumexp(-1, keepdim=True)
        share = torch.exp(share - total)
        # densities at the ends over the probability between them
        at_low, at_high = (torch.exp(LN_PEAK - 0.5 * x * x - each) for x in (low, high))
        middle, narrow = 0.5 * (low + high), width < NARROW
        slope = torch.where(narrow, middle, at_low - at_high)
        stretch = torch.where(narrow, middle * middle - 1.0, at_low * low - at_high * high)
        ctx.save_for_backward(share - ln_weight.exp(), share * slope * inverse, share * stretch)
        return total[..., 0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        outer = gradients[0][..., None]
        return *(outer * inner for inner in ctx.saved_tensors), None, None, None


def normal_log_interval(low: Tensor, high: Tensor, width: Tensor) -> Tensor:
    """ln(Phi(high) - Phi(low)) of the normal distribution, float64.

    width: high - low, without the rounding of the difference.
    """
    narrow, middle = width < NARROW, 0.5 * (low + high)
    thin = LN_PEAK - 0.5 * middle * middle + torch.where(narrow, width, 1.0).log()
    # in the tail where both probabilities are small
    mirrored = middle > 0.0
    near = log_ndtr(torch.where(mirrored, -low, high))
    far = log_ndtr(torch.where(mirrored, -high, low))
    apart = torch.where(narrow, 1.0, near - far)
    return torch.where(narrow, thin, near + torch.log(-torch.expm1(-apart)))
