"""From the network's numbers to a function of luminosity: any, or one that never rises.

Both are a module with `calibrate(label, mean, std)`, and answer the mean label for numbers of zero.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

SMALLEST_STEP = 1e-3
"""Floor of a mean increment in units of its scale: softplus of a smaller one would hardly learn."""


class Free(nn.Module):
    """mean + std times the number, bin by bin [B, num_outputs]."""

    label_mean: Tensor
    scale: Tensor

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.register_buffer("label_mean", torch.zeros(num_outputs))
        self.register_buffer("scale", torch.ones(num_outputs))

    @torch.no_grad()
    def calibrate(self, label_bn: Tensor, mean: Tensor, std: Tensor) -> None:
        """mean, std: what the answer is centred on and scaled by [num_outputs]."""
        self.label_mean.copy_(mean)
        self.scale.copy_(std)

    def forward(self, numbers: Tensor) -> Tensor:
        return self.label_mean + self.scale * numbers


class Decreasing(nn.Module):
    """A sum of non-negative steps from the last bin down to each: N(>L) in either scale.

    The step of a bin is a softplus of its number, in units of the steps' scatter; the last bin's
    step is its value, which is not negative either (log10 of at least one halo, or a number).
    """

    start: Tensor
    scale: Tensor

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.register_buffer("start", torch.zeros(num_outputs))
        self.register_buffer("scale", torch.ones(num_outputs))

    @torch.no_grad()
    def calibrate(self, label_bn: Tensor, mean: Tensor, std: Tensor) -> None:
        """label_bn: labels that never rise; std: their scatter, the floor of which steps share."""
        above = torch.cat([label_bn[:, 1:], torch.zeros_like(label_bn[:, :1])], dim=1)
        steps = (label_bn - above).double()
        share = std.double() / len(std)
        scale = torch.maximum(steps.std(0, correction=0), share)
        step = (steps.mean(0) / scale).clamp(min=SMALLEST_STEP)
        self.scale.copy_(scale)
        self.start.copy_(step + torch.log(-torch.expm1(-step)))  # softplus backwards

    def forward(self, numbers: Tensor) -> Tensor:
        steps = self.scale * softplus(self.start + numbers)
        total = steps.flip(1).cumsum(1)
        # a GPU adds in an order of its own, which may cost the last digit
        return total.cummax(1).values.flip(1)
