"""The joint posterior of all bins of a luminosity function: an exact likelihood of its counts.

Axes: b map, s drawn function, k bin in the order of the chain, u hidden unit, c number of a bin's
mixture. The probability of all counts is a product over the bins,

    p(N | map) = product over k of p(N_k | N_0 ... N_{k-1}, map),

whose order is coarse to fine: a bright bin, the last and the first, then always one in the middle
of the widest gap, so that a drawn function is interpolated between bins that are known already and
errors do not grow along a chain. Each factor is a mixture of log-normal distributions rounded down
to whole numbers, N = floor(e^x): no halo has the probability of x < 0, and bins of 10^5 halos are
treated like empty ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import silu
from torch.special import log_ndtr

from streamtrain.labels import SMALLEST_STD_DEX, Label
from streamtrain.networks.heads import LARGEST_DEX, LARGEST_LN_STRETCH, LN10, Head

COMPONENTS = 3
"""Log-normal distributions in the mixture of a bin."""
CONTEXT = 48
"""Numbers of the map that all bins see."""
HIDDEN = 24
"""Hidden units of each bin."""
FIRST = 0.7
"""Where the chain begins, as a share of the bins: 10^6 Lsun for the usual label."""
NEIGHBOURS = 2
"""Bins on each side that the first weights, a linear regression, reach to."""
RIDGE = 0.02
"""The ridge of that regression, in variances of a bin."""
SMALLEST_SCATTER = 0.02
"""Floor of what the regression leaves, in standard deviations of a bin."""
NARROW = 1e-5
"""An interval of less than so many standard deviations has the density times its width."""
LN_PEAK = -0.5 * math.log(2.0 * math.pi)
"""ln of the normal distribution's largest density."""
LARGEST_X = 52.0 * math.log(2.0)
"""The largest drawn ln N: float64 holds every whole number up to here."""
LOWEST_X = -1e3
"""Stands for the ln of the lower end of an empty bin."""
LIKELIHOOD_SLOPE = 0.05
"""Scale of the likelihood's gradient beside that of the point estimate, whose squared error is in
variances of the label. What maps tell changes few of the chain's factors, and without it the noise
of all others, and the clipping of their gradient, keep a network from learning to look at maps."""
RATE_DRAWS, QUANTILE_DRAWS = 256, 1000
"""Functions that are drawn for mean counts, which are off by 1/16 of the posterior's width, and for
quantiles."""
SEED = 0
"""The seed of these draws."""


class JointCountsHead(Head):
    """The number of halos in all bins, together.

    The network's numbers are a point estimate of each bin's label, trained with the mean squared
    error, and a context; the head makes the mixture of each bin of the context and of the bins
    before. It starts as a linear regression of the log counts, from their points on, on the nearest
    bins before, made from the labels it was normalised with.
    """

    losses: ClassVar[Mapping[str, str]] = {
        "joint_counts": "minus log probability of the counts of all bins together, per bin, and "
        "mean squared error of the label in its variance"
    }
    joint: ClassVar[bool] = True
    label_mean: Tensor
    label_std: Tensor
    centre: Tensor
    scale: Tensor
    scatter: Tensor
    regression: Tensor
    _order: Tensor
    _before: Tensor
    _spread: Tensor

    def __init__(self, label: Label, name: str, monotonic: bool = False) -> None:
        super().__init__(label, name)
        bins = label.num_outputs
        self.num_numbers = bins + CONTEXT
        self.register_buffer("label_mean", torch.zeros(bins))
        self.register_buffer("label_std", torch.ones(bins))
        for buffer in ("centre", "scale", "scatter"):
            self.register_buffer(buffer, torch.ones(bins, dtype=torch.float64))
        self.register_buffer("regression", torch.zeros(bins, bins, dtype=torch.float64))
        self.linear = nn.Parameter(torch.zeros(bins, bins))
        self.counted = nn.Parameter(torch.zeros(bins, 2 * bins, HIDDEN))
        self.context = nn.Parameter(torch.zeros(bins, CONTEXT, HIDDEN))
        self.bias = nn.Parameter(torch.zeros(1, bins, HIDDEN))
        self.mixtures = nn.Parameter(torch.zeros(1, bins, 3 * COMPONENTS))
        self.output = nn.Parameter(torch.zeros(bins, HIDDEN, 3 * COMPONENTS))
        before = torch.ones(bins, bins).tril(-1)
        self.register_buffer("_before", before, persistent=False)
        spread = torch.linspace(-1.0, 1.0, COMPONENTS, dtype=torch.float64)
        self.register_buffer("_spread", spread, persistent=False)
        self.register_buffer("_order", torch.tensor(coarse_to_fine(bins)), persistent=False)
        width = (2.0 * before.sum(1) + CONTEXT).rsqrt()[:, None, None]
        with torch.no_grad():
            self.counted.normal_().mul_(width * before.repeat(1, 2)[:, :, None])
            self.context.normal_().mul_(width)

    @torch.no_grad()
    def set_normalisation(self, label_bn: Tensor, counts_bn: Tensor, unit_label: Tensor) -> None:
        log10 = counts_bn.double().clamp(min=1.0).log10()
        self.label_mean.copy_(log10.mean(0))
        self.label_std.copy_(log10.std(0, correction=0).clamp(min=SMALLEST_STD_DEX))
        x = _ln(counts_bn.double()[:, self._order])
        self.centre.copy_(x.mean(0))
        self.scale.copy_(x.std(0, correction=0).clamp(min=SMALLEST_STD_DEX * LN10))
        x = (x - self.centre) / self.scale
        self.regression.zero_()
        for k, near in enumerate(_nearest(self._order.tolist())):
            known = x[:, near]
            normal = known.T @ known / len(x) + RIDGE * torch.eye(len(near)).to(x)
            self.regression[k, near] = torch.linalg.solve(normal, known.T @ x[:, k] / len(x))
            left = x[:, k] - known @ self.regression[k, near]
            self.scatter[k] = left.std(correction=0).clamp(min=SMALLEST_SCATTER)

    def forward(self, numbers: Tensor) -> Tensor:
        """The prediction is the numbers themselves, [B, num_numbers]."""
        return numbers

    def loss(
        self, prediction: Tensor, label_bn: Tensor, counts_bn: Tensor, unit_label: Tensor
    ) -> Tensor:
        points = self.label_mean + self.label_std * prediction[:, : self.num_outputs]
        error = points - counts_bn.clamp(min=1).log10()
        squared = (error * error).mean() / (self.label_std * self.label_std).mean()
        surprise = -(self.log_prob(prediction, counts_bn).mean() / self.num_outputs).float()
        unmoved = surprise.detach()
        return squared + unmoved + LIKELIHOOD_SLOPE * (surprise - unmoved)

    def log_prob(self, prediction: Tensor, counts: Tensor) -> Tensor:
        counts = counts.to(prediction.device).double()[..., self._order]
        points, width, context = self._split(prediction)
        x, seen = self._seen(counts, points, width, slice(None))
        weights = self.counted * self._before.repeat(1, 2)[:, :, None]
        hidden = torch.einsum("...j,kju->...ku", torch.cat(seen, -1), weights) + context
        numbers = self.mixtures[0] + torch.einsum("...ku,kuc->...kc", silu(hidden), self.output)
        linear = self.regression + self.linear * self._before
        mixture = self._mixture(numbers, x @ linear.T, points, width, slice(None))
        return rounded_log_prob(*mixture, counts).sum(-1)

    @torch.no_grad()
    def sample(self, prediction: Tensor, number: int, generator: torch.Generator) -> Tensor:
        points, width, context = self._split(prediction)
        bins, device = self.num_outputs, generator.device
        shape = (bins, number, len(prediction))
        chance = torch.rand(shape, generator=generator, device=device, dtype=torch.float64)
        normal = torch.randn(shape, generator=generator, device=device, dtype=torch.float64)
        chance, normal = chance.to(prediction.device), normal.to(prediction.device)
        counts = torch.empty(*shape[1:], bins, dtype=torch.float64, device=prediction.device)
        x = torch.empty_like(counts)
        seen = [torch.empty_like(x, dtype=torch.float32) for _ in range(2)]
        # cumsum: torch 2.6 refuses it on a GPU where train.deterministic asks for one order of sums
        ones = x.new_ones(COMPONENTS, COMPONENTS - 1).triu()
        for k in range(bins):
            before = [values[..., :k] for values in seen]
            numbers, linear = self._given(k, context, x[..., :k], before)
            weight, mean, ln_std = self._mixture(numbers, linear, points[:, k], width[:, k], k)
            passed = weight.softmax(-1) @ ones < chance[k, ..., None]
            component = passed.sum(-1, keepdim=True)
            centre, std = (v.gather(-1, component)[..., 0] for v in (mean, ln_std.exp()))
            counts[..., k] = (centre + std * normal[k]).clamp(max=LARGEST_X).exp().floor()
            x[..., k], more = self._seen(counts[..., k], points[:, k], width[:, k], k)
            for values, new in zip(seen, more, strict=True):
                values[..., k] = new
        drawn = torch.empty_like(counts)
        drawn[..., self._order] = counts
        return drawn

    def _given(
        self, k: int, context: Tensor, x: Tensor, seen: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """What `_mixture` makes bin k of; x, seen: of the bins before [..., B, k]; context: of
        `_split`."""
        hidden = context[:, k]
        for values, weights in zip(seen, self.counted[k].split(self.num_outputs), strict=True):
            hidden = hidden + values @ weights[:k]
        numbers = self.mixtures[0, k] + silu(hidden) @ self.output[k]
        return numbers, x @ (self.regression[k, :k] + self.linear[k, :k])

    def point(self, prediction: Tensor, unit_label: Tensor) -> Tensor:
        log10 = self.label_mean + self.label_std * prediction[:, : self.num_outputs]
        if self.move is not None:
            shift, _ = self.move.at(self.centre_of(prediction))
            log10 = log10 + (shift / LN10).to(log10)
        if self.label.form == "linear":
            return torch.pow(10.0, log10.clamp(max=LARGEST_DEX)) * unit_label
        return log10 + unit_label

    def rate(self, prediction: Tensor, unit_label: Tensor) -> Tensor:
        return self.sample(prediction, RATE_DRAWS, _generator()).mean(0)

    def spread(
        self, prediction: Tensor, unit_label: Tensor, levels: Sequence[float]
    ) -> Tensor | None:
        drawn = self.sample(prediction, QUANTILE_DRAWS, _generator()).sort(0).values
        rows = [round(level * (QUANTILE_DRAWS - 1)) for level in levels]
        return self._of_counts(drawn[rows], unit_label.to(drawn)).cpu()

    def centre_of(self, prediction: Tensor) -> Tensor:
        points = prediction[:, : self.num_outputs].double()
        found = torch.empty_like(points)
        found[:, self._order] = self.centre + self.scale * points[:, self._order]
        return found

    def _split(self, prediction: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The points of all bins in standard deviations, the factor of distances from them
        [B, bins], and what the context adds to their hidden units [B, bins, HIDDEN], all in the
        order of the chain."""
        points, context = prediction.split([self.num_outputs, CONTEXT], dim=1)
        shared = torch.einsum("bj,kju->bku", context, self.context) + self.bias
        points = points[:, self._order].double()
        if self.move is None:
            return points, torch.ones_like(points), shared
        shift, width = (row[:, self._order] for row in self.move.at(self.centre_of(prediction)))
        return points + shift / self.scale, width, shared

    def _seen(
        self, counts: Tensor, points: Tensor, width: Tensor, k: int | slice
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The normalised ln of counts of bins k from their points on, in their widths, and what
        hidden units see of them: that, and how well a count is known, from 1 for none to -1 for
        many."""
        x = ((_ln(counts) - self.centre[k]) / self.scale[k] - points) / width
        return x, (x.float(), (2.0 * torch.rsqrt(counts + 1.0) - 1.0).float())

    def _mixture(
        self, numbers: Tensor, linear: Tensor, points: Tensor, width: Tensor, k: int | slice
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Weights before a softmax, means and ln of the deviations of ln N in bins k, [...,
        COMPONENTS] each; linear: what the bins before make of its normalised distance from the
        points."""
        weight, mean, stretch = numbers.double().split(COMPONENTS, dim=-1)
        scale, scatter = self.scale[k, ...], self.scatter[k, ...]
        away = linear[..., None] + mean + scatter[..., None] * self._spread
        normalised = points[..., None] + width[..., None] * away
        bounded = LARGEST_LN_STRETCH * torch.tanh((stretch - 0.3) / LARGEST_LN_STRETCH)
        ln_std = (scale * scatter * width).log()[..., None] + bounded
        return (
            weight,
            self.centre[k, ..., None] + scale[..., None] * normalised,
            ln_std,
        )


def coarse_to_fine(bins: int) -> list[int]:
    """All bins in the order of the chain."""
    order = list(dict.fromkeys([int(FIRST * bins), bins - 1, 0]))
    while len(order) < bins:
        low, high = max(pairwise(sorted(order)), key=lambda gap: gap[1] - gap[0])
        order.append((low + high) // 2)
    return order


def _nearest(order: Sequence[int]) -> list[list[int]]:
    """For each bin of a chain the places in it of the nearest ones before, on both sides."""
    found = []
    for k, bin_ in enumerate(order):
        near = sorted(range(k), key=lambda j: abs(order[j] - bin_))
        fainter = [j for j in near if order[j] < bin_][:NEIGHBOURS]
        brighter = [j for j in near if order[j] > bin_][:NEIGHBOURS]
        found.append(fainter + brighter)
    return found


def _ln(counts: Tensor) -> Tensor:
    """The ln of the middle of what is rounded down to a count."""
    return (counts + 0.5).log()


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(SEED)


def rounded_log_prob(weight: Tensor, mean: Tensor, ln_std: Tensor, counts: Tensor) -> Tensor:
    """ln of the probability that e^x, rounded down, is a count [...], where x is drawn from a
    mixture of normal distributions of some weights (before a softmax), means and deviations
    [..., components]; float64, finite with finite gradients."""
    found: Tensor = _RoundedMixture.apply(weight, mean, ln_std, counts)
    return found


class _RoundedMixture(torch.autograd.Function):
    """`rounded_log_prob` with its gradient written out, which takes half of the time."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, mean: Tensor, ln_std: Tensor, counts: Tensor) -> Tensor:
        n = counts[..., None]
        inverse, some = torch.exp(-ln_std), n.clamp(min=1.0)
        low = (torch.where(n > 0, some.log(), LOWEST_X) - mean) * inverse
        high = ((n + 1.0).log() - mean) * inverse
        width = torch.where(n > 0, (1.0 / some).log1p() * inverse, torch.inf)
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
        return *(outer * inner for inner in ctx.saved_tensors), None


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
