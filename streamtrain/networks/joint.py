"""The joint posterior of all bins of a luminosity function: an exact likelihood of its counts.

Axes: b map, s drawn function, i bin, k node of the tree, f sum over bins, u hidden unit, c number
of a node's mixture. A map tells sums over many bins, such as the luminosity of all halos, far
better than the number in one bin, so counts are drawn from the coarse to the fine: the halos in
blocks of neighbouring bins first, then how many of a block are in its brighter half, until every
bin is known. The probability of all counts is a product over these nodes,

    p(N | map) = product over k of p(n_k | n_0 ... n_{k-1}, map).

A block has n = floor(e^x) halos, and the brighter half of what has P halos n = floor((P + 1) /
(1 + e^-x)) of them, where x is drawn from a mixture of normal distributions: each number has the
probability of an interval, empty bins and bins of 10^5 halos alike. `v` is the middle of the
interval, ln(n + 1/2) or ln((n + 1/2) / (P - n + 1/2)).

The network says of every node, and of sums over all bins, a mean and a width: those of v, or ln of
the sum, whatever the others are. What a node depends on is in units of these widths, which are
twenty times as small for one map as for another: the distances r of the nodes before from their
means, and what the sums lack (`_pulls`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, silu

from streamtrain.labels import SMALLEST_STD_DEX, Label
from streamtrain.networks.heads import LARGEST_DEX, Head, bounded
from streamtrain.networks.intervals import interval_log_prob
from streamtrain.numerics.portable import LN10

COMPONENTS = 3
"""Normal distributions in the mixture of a node."""
CONTEXT = 48
"""Numbers of the map that all nodes see."""
HIDDEN = 32
"""Hidden units of each node."""
BLOCK = 7
"""Bins of a block, at most."""
FIRST = 0.7
"""Where the first block is, as a share of the bins: 10^6 Lsun for the usual label."""
POWERS = (1.0, 2.0)
"""Powers of L that are summed over all halos: what the mean of a map and its shot noise know."""
RIDGE = 0.05
"""The ridge of the regression that the dependence starts as, in variances of a node."""
SMALLEST_SCATTER = 0.05
"""Floor of what the regression leaves, in standard deviations of a node."""
SMALLEST_WIDTH = 0.1
"""Floor of a node's standard deviation over maps."""
FARTHEST = 8.0
"""Distances are taken for this many widths at most."""
FARTHEST_PULL = 4.0
"""And pulls of sums for this many."""
LARGEST_V = 50.0
"""The largest |v|, and ln of a sum, that pulls are reckoned with."""
LARGEST_X = 52.0 * math.log(2.0)
"""The largest ln N: float64 holds every whole number up to here."""
MARGIN = 10.0
"""A drawn block has at most so many times the halos that it had in any sample of the normalisation.
The tails of a mixture reach far beyond, and means over draws were theirs."""
FAR = 1e3
"""Stands for an end of an interval that is infinitely far."""
MARGINAL_WEIGHT, SUM_WEIGHT = 1.0, 0.2
"""How much the loss of means and widths weighs beside that of the counts, per node and per sum."""
LIKELIHOOD_SLOPE = 0.2
"""Scale of the gradient of all these beside that of the point estimate, whose squared error is in
variances of the label. Without it labels that the map decides entirely, whose likelihood has no
largest value, keep a network from learning to look at maps."""
RATE_DRAWS, QUANTILE_DRAWS = 256, 1000
"""Functions that are drawn for mean counts, which are off by 1/16 of the posterior's width, and for
quantiles."""
SEED = 0
"""The seed of these draws."""


class JointCountsHead(Head):
    """The number of halos in all bins, together.

    The network's numbers are a point estimate of each bin's label, trained with the mean squared
    error; mean and width of each node and sum, trained with the likelihood of a normal
    distribution; and a context. Untrained, it draws the functions that it was normalised with: each
    node depends on those before as a linear regression made from their labels.
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
    largest: Tensor
    regression: Tensor
    sum_centre: Tensor
    sum_scale: Tensor
    _block: Tensor
    _part: Tensor
    _whole: Tensor
    _before: Tensor
    _spread: Tensor
    _weights: Tensor

    def __init__(self, label: Label, name: str, monotonic: bool = False) -> None:
        super().__init__(label, name)
        bins, sums = label.num_outputs, len(POWERS)
        self._tree = tree(bins)
        self.num_numbers = 3 * bins + 2 * sums + CONTEXT
        self.register_buffer("label_mean", torch.zeros(bins))
        self.register_buffer("label_std", torch.ones(bins))
        for buffer in ("centre", "scale", "scatter", "largest"):
            self.register_buffer(buffer, torch.ones(bins, dtype=torch.float64))
        for buffer in ("sum_centre", "sum_scale"):
            self.register_buffer(buffer, torch.ones(sums, dtype=torch.float64))
        self.register_buffer("regression", torch.zeros(bins, bins, dtype=torch.float64))
        self.linear = nn.Parameter(torch.zeros(bins, bins))
        self.seen = nn.Parameter(torch.zeros(bins, 2 * bins, HIDDEN))
        self.pulled = nn.Parameter(0.3 * torch.randn(bins, 3 * sums, HIDDEN))
        self.context = nn.Parameter(torch.zeros(bins, CONTEXT, HIDDEN))
        self.bias = nn.Parameter(torch.zeros(1, bins, HIDDEN))
        self.pull = nn.Parameter(torch.zeros(bins, sums))
        self.tighten = nn.Parameter(torch.zeros(bins, sums))
        self.mixtures = nn.Parameter(torch.zeros(1, bins, 3 * COMPONENTS))
        self.output = nn.Parameter(torch.zeros(bins, HIDDEN, 3 * COMPONENTS))
        before = torch.ones(bins, bins).tril(-1)
        width = (2.0 * before.sum(1) + CONTEXT).rsqrt()[:, None, None]
        with torch.no_grad():
            self.seen.normal_().mul_(width * before.repeat(1, 2)[:, :, None])
            self.context.normal_().mul_(width)
        place = torch.arange(bins)
        ends = torch.tensor(self._tree)[:, :, None]
        L = torch.from_numpy(label.bins.mean_Lsun)
        constants = {
            "block": ends[:, 0, 0] == ends[:, 1, 0],
            "part": ((ends[:, 1] <= place) & (place < ends[:, 2])).double(),
            "whole": ((ends[:, 0] <= place) & (place < ends[:, 2])).double(),
            "before": before,
            "spread": torch.linspace(-1.0, 1.0, COMPONENTS, dtype=torch.float64),
            "weights": torch.stack([(L / L.max()) ** power for power in POWERS]),
        }
        for name_, values in constants.items():
            self.register_buffer(f"_{name_}", values, persistent=False)

    @torch.no_grad()
    def set_normalisation(self, label_bn: Tensor, counts_bn: Tensor, unit_label: Tensor) -> None:
        log10 = counts_bn.double().clamp(min=1.0).log10()
        self.label_mean.copy_(log10.mean(0))
        self.label_std.copy_(log10.std(0, correction=0).clamp(min=SMALLEST_STD_DEX))
        n, P = self._nodes(counts_bn.double())
        self.largest.copy_(MARGIN * n.amax(0).clamp(min=1.0))
        v = self._values(n, P)
        self.centre.copy_(v.mean(0))
        self.scale.copy_(v.std(0, correction=0).clamp(min=SMALLEST_WIDTH))
        sums = self._ln_sums(counts_bn.double())
        self.sum_centre.copy_(sums.mean(0))
        self.sum_scale.copy_(sums.std(0, correction=0).clamp(min=SMALLEST_WIDTH))
        x = (v - self.centre) / self.scale
        self.regression.zero_()
        for k, near in enumerate(_related(self._tree)):
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
        counts, known = counts_bn.double(), self._known(prediction)
        n, P = self._nodes(counts)
        surprise = -self._log_prob(n, P, known, self._moved(prediction)).mean() / self.num_outputs
        # what trains means and widths tells nothing that the counts' probability does not
        some = torch.where(self._block, 1.0, P / (P + 3.0))  # none of nothing is no news
        nodes = some * _normal_loss(self._values(n, P), known.mean, known.ln_width)
        sums = _normal_loss(self._ln_sums(counts), known.sum, known.ln_sum_width)
        beside = MARGINAL_WEIGHT * nodes.mean() + SUM_WEIGHT * sums.mean()
        slope = LIKELIHOOD_SLOPE * (surprise + beside)
        return squared + (surprise.detach() + slope - slope.detach()).float()

    def log_prob(self, prediction: Tensor, counts: Tensor) -> Tensor:
        n, P = self._nodes(counts.to(prediction.device).double())
        return self._log_prob(n, P, self._known(prediction), self._moved(prediction))

    def _log_prob(self, n: Tensor, P: Tensor, known: _Known, moved: _Moved) -> Tensor:
        """ln of the probability [..., B] of nodes with n of P halos [..., B, bins]."""
        v = moved.back(self._values(n, P))
        r = ((v - known.mean) * torch.exp(-known.ln_width)).clamp(-FARTHEST, FARTHEST)
        before = self._before
        weights = self.seen * before.repeat(1, 2)[:, :, None]
        seen = torch.cat([r.float(), _how_few(n)], -1)
        hidden = _of_all(seen, weights) + known.hidden
        with torch.no_grad():
            own = (n, P) if self.move is None else self._nodes(self._counts_of(v))
            pulls = self._pulls(known, self._lacking(known, *own), own[1], slice(None))
        linear = r @ (self.regression + self.linear * before).T
        mixture = self._mixture(hidden, linear, pulls, known, slice(None))
        return interval_log_prob(*moved.mixture(*mixture), *self._ends(n, P)).sum(-1)

    @torch.no_grad()
    def sample(self, prediction: Tensor, number: int, generator: torch.Generator) -> Tensor:
        known, moved = self._known(prediction), self._moved(prediction)
        bins, device = self.num_outputs, prediction.device
        shape = (bins, number, len(prediction))
        options: dict[str, Any] = {"generator": generator, "device": generator.device}
        chance = torch.rand(shape, dtype=torch.float64, **options).to(device)
        normal = torch.randn(shape, dtype=torch.float64, **options).to(device)
        r = torch.zeros(*shape[1:], bins, dtype=torch.float64, device=device)
        few = torch.zeros(*shape[1:], bins, device=device)
        counts, own = torch.zeros_like(r), torch.zeros_like(r)
        lacking = self._lacking_at_first(known).expand(number, -1, -1)
        # cumsum: torch 2.6 refuses it on a GPU where train.deterministic asks for one order of sums
        ones = r.new_ones(COMPONENTS, COMPONENTS - 1).triu()
        for k, (low, middle, _) in enumerate(self._tree):
            # what is known of a block, or of a part of it, is kept in its first bin
            P, own_P = counts[..., low].clone(), own[..., low].clone()
            before = [r[..., :k].float(), few[..., :k]]
            hidden = known.hidden[:, k]
            for values, weights in zip(before, self.seen[k].split(bins), strict=True):
                hidden = hidden + values @ weights[:k]
            linear = r[..., :k] @ (self.regression[k, :k] + self.linear[k, :k])
            at = slice(k, k + 1)
            pulls = self._pulls(known, lacking[..., None], own_P[..., None], at)
            mixture = self._mixture(hidden[..., None, :], linear[..., None], pulls, known, at)
            weight, mean, ln_std = (rows[..., 0, :] for rows in moved.mixture(*mixture, at))
            passed = weight.softmax(-1) @ ones < chance[k, ..., None]
            component = passed.sum(-1, keepdim=True)
            centre, std = (rows.gather(-1, component)[..., 0] for rows in (mean, ln_std.exp()))
            x = centre + std * normal[k]
            if low == middle:
                n = torch.minimum(x.clamp(max=LARGEST_X).exp(), self.largest[k]).floor()
            else:
                n = torch.minimum(((P + 1.0) * x.sigmoid()).floor(), P)
                counts[..., low] = P - n
            counts[..., middle] = n
            v = moved.back(_value(n, P, low == middle)[..., None], at)[..., 0]
            drawn = _count(v, own_P, low == middle)
            if low != middle:
                own[..., low] = own_P - drawn
            own[..., middle] = drawn
            lacking = lacking - self._more(known, drawn[..., None], own_P[..., None], at)[..., 0]
            r[..., k] = (v - known.mean[:, k]) * torch.exp(-known.ln_width[:, k])
            r[..., k].clamp_(-FARTHEST, FARTHEST)
            few[..., k] = _how_few(n)
        return counts

    def point(self, prediction: Tensor, unit_label: Tensor) -> Tensor:
        log10 = self._points(prediction)
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

    def tells_apart(self, prediction: Tensor) -> Tensor:
        bins = self.num_outputs
        return torch.cat([prediction[:, :bins], prediction[:, -CONTEXT:]], 1)

    def centre_of(self, prediction: Tensor) -> Tensor:
        return LN10 * self._points(prediction).double()

    def _points(self, prediction: Tensor) -> Tensor:
        """Point estimates of log10 of the halos in each bin [B, bins], from one halo to as many as
        a drawn block may have: far outside of its training a network says anything."""
        most = ((self.largest * self._block) @ self._part).log10().to(self.label_mean)
        points = self.label_mean + self.label_std * prediction[:, : self.num_outputs]
        within = torch.minimum(points.clamp(min=0.0), most).detach()
        return within + (points - points.detach())  # slopes stay those of what the network says

    def _nodes(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Halos of each node and of what it is a part of, [..., bins], of counts [..., bins]."""
        return counts @ self._part.T, counts @ self._whole.T

    def _values(self, n: Tensor, P: Tensor) -> Tensor:
        """v of nodes with n of P halos [..., bins]."""
        return torch.where(self._block, _value(n, P, True), _value(n, P, False))

    def _counts_of(self, v: Tensor) -> Tensor:
        """Counts [..., bins] of nodes' values, which need not be whole."""
        counts = torch.zeros_like(v)
        for k, (low, middle, _) in enumerate(self._tree):
            P = counts[..., low].clone()
            n = _count(v[..., k], P, low == middle)
            if low != middle:
                counts[..., low] = P - n
            counts[..., middle] = n
        return counts

    def _ln_sums(self, counts: Tensor) -> Tensor:
        """ln of the sums over bins [..., f]; no halo counts as half of one in the faintest bin."""
        return (counts @ self._weights.T + 0.5 * self._weights[:, 0]).log()

    def _known(self, prediction: Tensor) -> _Known:
        """What the network says, from its numbers."""
        bins, sums = self.num_outputs, len(POWERS)
        _, mean, ln_width, total, ln_sum_width, context = prediction.split(
            [bins, bins, bins, sums, sums, CONTEXT], dim=1
        )
        hidden = _of_all(context, self.context) + self.bias
        mean = self.centre + self.scale * mean.double()
        ln_width = self.scale.log() + bounded(ln_width.double())
        total = self.sum_centre + self.sum_scale * total.double()
        ln_sum_width = self.sum_scale.log() + bounded(ln_sum_width.double())
        return _Known(mean, ln_width, total, ln_sum_width, hidden, *self._expected(mean, ln_width))

    @torch.no_grad()
    def _expected(self, mean: Tensor, ln_width: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The last numbers of `_Known`."""
        mean = mean.clamp(-LARGEST_V, LARGEST_V)
        half, left = ~self._block, self._whole - self._part
        ln = torch.where(half, logsigmoid(mean), mean) @ self._part
        each = torch.exp(ln + torch.where(half, logsigmoid(-mean), 0.0) @ left)
        light = each[:, None, :] * self._weights
        brighter = light @ self._part.T / (each @ self._part.T)[:, None]
        fainter = light @ left.T / (each @ left.T + self._block)[:, None]
        share = torch.where(half, mean.sigmoid(), 1.0)
        step = torch.where(half, 1.0 - share, 1.0) * share * ln_width.clamp(max=FARTHEST).exp()
        whole = each @ self._whole.T
        moves = (whole * step)[:, None] * (brighter - fainter)
        later = (moves * moves) @ self._before.double()
        return share * torch.where(half, 1.0, whole), brighter - fainter, step, later

    def _lacking_at_first(self, known: _Known) -> Tensor:
        """What sums lack before any node is known [B, f]."""
        blocks = known.expected[:, self._block]
        expected = (blocks[:, None] * known.light[..., self._block]).sum(-1)
        return known.sum.clamp(-LARGEST_V, LARGEST_V).exp() - expected

    def _more(self, known: _Known, n: Tensor, P: Tensor, k: slice) -> Tensor:
        """What nodes with n of P halos [..., B, k] add to expected sums [..., B, f, k]."""
        expected = known.expected[:, k] * torch.where(self._block[k], 1.0, P)
        return (n - expected)[..., None, :] * known.light[..., k]

    def _lacking(self, known: _Known, n: Tensor, P: Tensor) -> Tensor:
        """What sums lack when a node's turn comes [..., B, f, bins]."""
        more = self._more(known, n, P, slice(None))
        return self._lacking_at_first(known)[..., None] - more @ self._before.double().T

    def _pulls(self, known: _Known, lacking: Tensor, P: Tensor, k: slice) -> _Pulls:
        """What the sums say of nodes in whose wholes are P halos [..., B, k].

        Were all nodes that are not known yet normal and independent, with their means and widths,
        and the sums seen with theirs, v would be moved by so many widths, and have this share of
        its variance (Kalman 1960).
        """
        whole = torch.where(self._block[k], known.expected[:, k], P)
        step = (whole * known.step[:, k])[..., None, :] * known.light[..., k]
        ln = known.sum.clamp(-LARGEST_V, LARGEST_V) + known.ln_sum_width.clamp(max=FARTHEST)
        variance = (2.0 * ln).exp()[..., None] + known.later[..., k] + step * step
        away = (step * lacking / variance).clamp(-FARTHEST_PULL, FARTHEST_PULL)
        gain = step * step / variance
        ln_left = 0.5 * (1.0001 - gain).log()
        rows = torch.stack([away, gain, -0.5 * ln_left], -1).movedim(-3, -2).flatten(-2)
        return _Pulls(rows.float(), away.mT, ln_left.mT)

    def _mixture(
        self, hidden: Tensor, linear: Tensor, pulls: _Pulls, known: _Known, k: slice
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Weights before a softmax, means and ln of the deviations of x of nodes, [..., B, k,
        COMPONENTS] each.

        hidden: of the nodes before and the map [..., B, k, HIDDEN]; linear: what the regression
        makes of the nodes before, in widths [..., B, k].
        """
        hidden = hidden + torch.einsum("...kj,kju->...ku", pulls.rows, self.pulled[k])
        numbers = torch.einsum("...ku,kuc->...kc", silu(hidden), self.output[k])
        numbers = (self.mixtures[0, k] + numbers).double()
        weight, mean, stretch = numbers.split(COMPONENTS, dim=-1)
        mean_of_node, ln_width = known.mean[:, k, None], known.ln_width[:, k, None]
        scatter = self.scatter[k, None]
        away = (linear + (self.pull[k] * pulls.away).sum(-1))[..., None] + mean
        tightened = ln_width + (self.tighten[k] * pulls.ln_left).sum(-1)[..., None] + scatter.log()
        ln_std = tightened + bounded(stretch - 0.3)
        return weight, mean_of_node + ln_width.exp() * away + tightened.exp() * self._spread, ln_std

    def _ends(self, n: Tensor, P: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Both ends of the intervals of x that are n of P halos, and their widths, [..., bins]."""
        some, rest = n.clamp(min=1.0), (P - n).clamp(min=1.0)
        half = ~self._block
        low = some.log() - torch.where(half, (P - n + 1.0).log(), 0.0)
        high = (n + 1.0).log() - torch.where(half, rest.log(), 0.0)
        width = (1.0 / some).log1p() + torch.where(half, (1.0 / rest).log1p(), 0.0)
        none, all_ = n == 0, half & (n == P)
        width = torch.where(none | all_, torch.inf, width)
        return torch.where(none, -FAR, low), torch.where(all_, FAR, high), width

    def _moved(self, prediction: Tensor) -> _Moved:
        """The move of the nodes: that of their bins, about the point estimates."""
        if self.move is None:
            return _Moved(None, None, None)
        centre = self.centre_of(prediction)
        shift, width = self.move.at(centre)
        before, after = (
            self._values(*self._nodes(ln.clamp(max=LARGEST_X).exp()))
            for ln in (centre, centre + shift)
        )
        inside = centre.clamp(max=LARGEST_X).exp()
        of_node = (inside * width.log()) @ self._whole.T / (inside @ self._whole.T)
        return _Moved(before, after, of_node.exp())


class _Known(NamedTuple):
    """What the network says of a map."""

    mean: Tensor
    """Of v of each node, whatever the others are [B, bins]."""
    ln_width: Tensor
    """ln of its standard deviation [B, bins]."""
    sum: Tensor
    """Mean of ln of each sum [B, f]."""
    ln_sum_width: Tensor
    """ln of its standard deviation [B, f]."""
    hidden: Tensor
    """What the context adds to hidden units [B, bins, HIDDEN]."""
    expected: Tensor
    """Halos of a block by the mean of v, and share of the brighter half in its whole [B, bins]."""
    light: Tensor
    """What a halo more of a node adds to each sum [B, f, bins]."""
    step: Tensor
    """What one width of v adds to a node's halos, in those of its whole [B, bins]."""
    later: Tensor
    """Variance of each sum by all nodes after this one, were they independent [B, f, bins]."""


class _Pulls(NamedTuple):
    rows: Tensor
    """What hidden units see [..., B, k, 3 f]."""
    away: Tensor
    """The distance from the mean that each sum asks for, in widths [..., B, k, f]."""
    ln_left: Tensor
    """ln of the share of the width that each sum leaves [..., B, k, f]."""


class _Moved(NamedTuple):
    """A move of nodes: v' = after + width (v - before); nothing where there is none."""

    before: Tensor | None
    after: Tensor | None
    width: Tensor | None

    def back(self, v: Tensor, k: slice = slice(None)) -> Tensor:
        """Values [..., B, k] before the move."""
        if self.before is None or self.after is None or self.width is None:
            return v
        return self.before[:, k] + (v - self.after[:, k]) / self.width[:, k]

    def mixture(
        self, weight: Tensor, mean: Tensor, ln_std: Tensor, k: slice = slice(None)
    ) -> tuple[Tensor, Tensor, Tensor]:
        """A mixture [..., B, k, COMPONENTS] after it."""
        if self.before is None or self.after is None or self.width is None:
            return weight, mean, ln_std
        before, after, width = (rows[:, k, None] for rows in (self.before, self.after, self.width))
        return weight, after + width * (mean - before), ln_std + width.log()


def tree(bins: int) -> list[tuple[int, int, int]]:
    """All nodes in the order in which they are drawn: a node is the bins from its second number to
    its third, as a part of those from its first on; of a block both are the same.

    The block at `FIRST` is the first, then those that are brighter, then those that are fainter;
    then all are halved, level by level.
    """
    number = -(-bins // BLOCK)
    ends = [round(k * bins / number) for k in range(number + 1)]
    blocks = [(ends[k], ends[k + 1]) for k in range(number)]
    first = next(k for k, (_, high) in enumerate(blocks) if int(FIRST * bins) < high)
    wholes = blocks[first:] + blocks[:first][::-1]
    nodes = [(low, low, high) for low, high in wholes]
    while wholes:
        halves = []
        for low, high in wholes:
            if high - low > 1:
                middle = (low + high) // 2
                nodes.append((low, middle, high))
                halves += [(low, middle), (middle, high)]
        wholes = halves
    return nodes


def _related(nodes: Sequence[tuple[int, int, int]]) -> list[list[int]]:
    """For each node the ones before that the regression is made of: of a block all blocks, of a
    half what it lies in and what it touches."""
    found = []
    for k, (low, middle, high) in enumerate(nodes):
        touching = [j for j in range(k) if nodes[j][0] <= high and nodes[j][2] >= low]
        found.append(list(range(k)) if low == middle else touching)
    return found


def _value(n: Tensor, P: Tensor, block: bool) -> Tensor:
    """v of n halos, of P in its whole where it is no block."""
    ln = (n + 0.5).log()
    return ln if block else ln - (P - n + 0.5).log()


def _count(v: Tensor, P: Tensor, block: bool) -> Tensor:
    """The number of halos, which need not be whole, of a value."""
    found = v.clamp(max=LARGEST_X).exp() if block else (P + 1.0) * v.sigmoid()
    found = (found - 0.5).clamp(min=0.0)
    return found if block else torch.minimum(found, P)


def _of_all(x: Tensor, weights: Tensor) -> Tensor:
    """What weights [k, j, u] of all nodes make of the same numbers [..., j], [..., k, u]; one
    product of matrices, which is faster than one for each node."""
    rows, units = len(weights), weights.shape[2]
    return (x @ weights.transpose(0, 1).flatten(1)).unflatten(-1, (rows, units))


def _how_few(n: Tensor) -> Tensor:
    """How well a number of halos is known by itself, from 1 for none to -1 for many."""
    return (2.0 * torch.rsqrt(n + 1.0) - 1.0).float()


def _normal_loss(values: Tensor, mean: Tensor, ln_width: Tensor) -> Tensor:
    """Minus ln of a normal density, but for a constant."""
    away = (values - mean) * torch.exp(-ln_width)
    return 0.5 * away * away + ln_width


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(SEED)
