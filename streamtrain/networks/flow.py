"""A density of a few numbers given what a network has seen: an autoregressive flow.

Numbers x become z of a standard normal by transforms that are invertible, each number in turn given
those before it and the context. The first is a shift and a stretch, so that a normal posterior with
any correlations is within reach however narrow it is; the others are monotonic splines, which bend
what is left. All start as the identity: without training the density is standard normal.

Masked Autoregressive Flow (Papamakarios et al. 2017), arXiv:1705.07057; Neural Spline Flows (Durkan
et al. 2019), arXiv:1906.04032.

Axes: p number, b sample, i input, o output, k bin of a spline. Sums with a triangle of ones stand
for cumsum, and sums over bins for gather, which a GPU does in an order of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, pad, softplus

from streamtrain.labels import Label
from streamtrain.networks.heads import Head, bounded

CONTEXT = 64
"""Numbers that a flow knows of a map."""
WIDTH = 64
"""Width of the two hidden layers for each number of each transform."""
SPLINES = 2
BINS = 8
BOUND = 5.0
"""Splines act on -5..5 and leave the rest as it is."""
LN_TWO_PI = math.log(2.0 * math.pi)
SMALLEST_BIN, SMALLEST_SLOPE = 1e-3, 1e-3
"""Floors of a bin's share of the range, and of a spline's slope at a knot."""


class FlowHead(Head):
    """The joint posterior of the luminosity model's parameters: a probability for each model, and
    for each a flow of its own over the normal scores of its parameters.

    It starts at the prior, whatever the map. The loss is minus the information [nat] that the
    posterior has of the truth over the prior of independent scores: 0 for the prior itself.
    """

    losses: ClassVar[Mapping[str, str]] = {
        "flow": "ln of the prior over the posterior density of the parameters"
    }
    ln_share: Tensor

    def __init__(self, label: Label, name: str, monotonic: bool = False) -> None:
        super().__init__(label, name)
        self._classes = label.num_class_columns
        self.num_numbers = self._classes + CONTEXT
        shares = torch.tensor([model.share for model in label.parameters])
        self.register_buffer("ln_share", shares.log()[: self._classes])
        self.flows = nn.ModuleDict(
            {
                str(number): Flow(len(model.names), CONTEXT)
                for number, model in enumerate(label.parameters)
                if model.names
            }
        )

    def set_normalisation(self, label_bn: Tensor, counts_bn: Tensor, unit_label: Tensor) -> None:
        """The prior is known: it takes nothing from samples."""

    def forward(self, numbers: Tensor) -> Tensor:
        """The prediction is ln of the models' probabilities, up to a constant, and the context of
        the flows."""
        chances = numbers[:, : self._classes] + self.ln_share
        return torch.cat([chances, numbers[:, self._classes :]], dim=1)

    def loss(
        self, prediction: Tensor, label_bn: Tensor, counts_bn: Tensor, unit_label: Tensor
    ) -> Tensor:
        return (self.log_prior(label_bn) - self.log_prob(prediction, label_bn)).mean()

    def log_prob(self, prediction: Tensor, label_bn: Tensor) -> Tensor:
        """ln of the posterior density of labels [B, num_outputs], not of counts, [B]."""
        logits, context = self._split(prediction)
        total = (logits.log_softmax(1) * label_bn[:, : self._classes]).sum(1)
        for number, columns, flow in self._models():
            density = flow.log_prob(label_bn[:, columns], context)
            total = total + self._of_model(label_bn, number, density)
        return total

    def log_prior(self, label_bn: Tensor) -> Tensor:
        """ln of the prior density of labels [B, num_outputs], of independent scores, [B]."""
        total = (self.ln_share * label_bn[:, : self._classes]).sum(1)
        for number, columns, flow in self._models():
            scores = label_bn[:, columns]
            density = -0.5 * (scores * scores).sum(1) - 0.5 * flow.size * LN_TWO_PI
            total = total + self._of_model(label_bn, number, density)
        return total

    def point(self, prediction: Tensor, unit_label: Tensor) -> Tensor:
        """ln of the models' probabilities, and where each flow has its middle: the medians of the
        parameters, each given those of the others before it."""
        logits, context = self._split(prediction)
        point = torch.zeros(len(prediction), self.num_outputs, device=prediction.device)
        point[:, : self._classes] = logits.log_softmax(1)
        for _, columns, flow in self._models():
            middle = torch.zeros(len(prediction), flow.size, device=prediction.device)
            point[:, columns] = flow.inverse(middle, context)
        return point

    @torch.no_grad()
    def sample(self, prediction: Tensor, number: int, generator: torch.Generator) -> Tensor:
        """Labels drawn from the posterior, float32 [number, B, num_outputs]; generator: see
        `Head.sample`."""
        logits, _ = self._split(prediction)
        drawn = self.sample_scores(prediction, number, generator)
        if not self._classes:
            return drawn
        shape = (number, len(prediction), 1)
        uniform = torch.rand(shape, generator=generator, device=generator.device).to(drawn)
        ones = logits.new_ones(self._classes, self._classes - 1).triu()
        passed = (logits.softmax(1) @ ones < uniform).sum(-1, keepdim=True)
        drawn[..., : self._classes].scatter_(2, passed, 1.0)
        for model, columns, _ in self._models():
            drawn[..., columns] *= drawn[..., model, None]
        return drawn

    @torch.no_grad()
    def sample_scores(self, prediction: Tensor, number: int, generator: torch.Generator) -> Tensor:
        """Labels with draws from the posterior of every model, as if it had made the map, and with
        classes of 0, float32 [number, B, num_outputs]."""
        batch, device = len(prediction), prediction.device
        context = self._split(prediction)[1].repeat(number, 1)
        drawn = torch.zeros(number, batch, self.num_outputs, device=device)
        for _, columns, flow in self._models():
            shape = (number * batch, flow.size)
            normal = torch.randn(shape, generator=generator, device=generator.device).to(device)
            drawn[..., columns] = flow.inverse(normal, context).view(number, batch, flow.size)
        return drawn

    def _split(self, prediction: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the models [B, num_models or 0], and the context [B, CONTEXT]."""
        return prediction[:, : self._classes], prediction[:, self._classes :]

    def _models(self) -> Iterator[tuple[int, slice, Flow]]:
        """Number, columns of the label and flow of every model that has parameters."""
        for number, columns in enumerate(self.label.parameter_columns):
            if columns.start < columns.stop:
                flow = self.flows[str(number)]
                assert isinstance(flow, Flow)
                yield number, columns, flow

    def _of_model(self, label_bn: Tensor, number: int, values: Tensor) -> Tensor:
        """Values [B], 0 for samples of other models: of all samples, so that every flow has its
        gradient in every rank and nothing waits for a GPU."""
        return values * label_bn[:, number] if self._classes else values


class Flow(nn.Module):
    """The density of `size` numbers x given `context` numbers.

    It has no numbers beyond those of float32, and the same arithmetic on every device.
    """

    def __init__(self, size: int, context: int) -> None:
        super().__init__()
        self.size = size
        self.transforms = nn.ModuleList([Conditioner(size, context, 2)])
        for _ in range(SPLINES):
            self.transforms.append(Conditioner(size, context, 3 * BINS - 1))

    def log_prob(self, x: Tensor, context: Tensor) -> Tensor:
        """ln density [B] of numbers [B, size] given contexts [B, context]."""
        z, total = x, torch.zeros_like(x[:, 0])
        for number, conditioner in enumerate(self.transforms):
            z, ln_slope = _forward(number, z, conditioner(z, context))
            total = total + ln_slope.sum(1)
            z = z.flip(1)  # the next transform goes through the numbers in the other order
        return total - 0.5 * (z * z).sum(1) - 0.5 * self.size * LN_TWO_PI

    def inverse(self, z: Tensor, context: Tensor) -> Tensor:
        """Numbers x [B, size] of the standard normal z [B, size] given contexts [B, context]."""
        for number, conditioner in reversed(list(enumerate(self.transforms))):
            assert isinstance(conditioner, Conditioner)
            z, x = z.flip(1), torch.zeros_like(z)
            for place in range(self.size):
                values = conditioner.of_one(place, x, context)
                x[:, place] = _inverse(number, z[:, place], values)
            z = x
        return z


class Conditioner(nn.Module):
    """What a transform of each number depends on: two dense layers of its own for each, on the
    context and the numbers before it, and a linear way around them.

    size, context: as in `Flow`; outputs: per number, which start at zero.
    """

    earlier: Tensor

    def __init__(self, size: int, context: int, outputs: int) -> None:
        super().__init__()
        inputs = size + context
        mask = torch.cat([torch.ones(size, size).tril(-1), torch.ones(size, context)], dim=1)
        self.register_buffer("earlier", mask, persistent=False)
        self.first = _Dense(size, inputs, WIDTH)
        self.second = _Dense(size, WIDTH, WIDTH)
        self.last = _Dense(size, WIDTH + inputs, outputs)
        nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Outputs [p, B, outputs] for numbers [B, size], each from those before it."""
        given = torch.cat([x, context], dim=1) * self.earlier[:, None]
        hidden = gelu(self.second(gelu(self.first(given))))
        outputs: Tensor = self.last(torch.cat([hidden, given], dim=2))
        return outputs

    def of_one(self, place: int, x: Tensor, context: Tensor) -> Tensor:
        """Outputs [B, outputs] for the number `place` alone."""
        given = torch.cat([x, context], dim=1) * self.earlier[place]
        hidden = gelu(self.second.of_one(place, gelu(self.first.of_one(place, given))))
        return self.last.of_one(place, torch.cat([hidden, given], dim=1))


class _Dense(nn.Module):
    """A dense layer for each of `size` numbers."""

    def __init__(self, size: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(size, inputs, outputs) * math.sqrt(2.0 / inputs))
        self.bias = nn.Parameter(torch.zeros(size, 1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """[p, B, outputs] of [p, B, inputs]."""
        return torch.baddbmm(self.bias, x, self.weight)

    def of_one(self, place: int, x: Tensor) -> Tensor:
        """[B, outputs] of [B, inputs]."""
        return torch.addmm(self.bias[place], x, self.weight[place])


def _forward(number: int, x: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """z and ln dz/dx [B, p] of x [B, p]; values: of the conditioner [p, B, outputs]."""
    values = values.transpose(0, 1)
    if number == 0:
        mean, ln_stretch = values[..., 0], bounded(values[..., 1])
        return (x - mean) * ln_stretch.exp(), ln_stretch
    return spline(x, values)


def _inverse(number: int, z: Tensor, values: Tensor) -> Tensor:
    """x [B] of z [B]; values: of the conditioner [B, outputs]."""
    if number == 0:
        return values[:, 0] + z * torch.exp(-bounded(values[:, 1]))
    return inverse_spline(z, values)


def spline(x: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """A monotonic rational-quadratic spline of x [...] and the ln of its slope [...].

    values: unconstrained widths, heights and inner slopes [..., 3 * BINS - 1]; zeros make it the
    identity. Beyond +-BOUND it is the identity (equations 4 and 5 of 1906.04032).
    """
    inside = x.abs() < BOUND
    held = x.clamp(-BOUND, BOUND)
    left, bottom, width, height, slope, next_slope = _bin_of(held, values, 0)
    t = (held - left) / width
    mean = height / width
    rest = t * (1.0 - t)
    below = mean + (slope + next_slope - 2.0 * mean) * rest
    y = bottom + height * (mean * t * t + slope * rest) / below
    rise = next_slope * t * t + 2.0 * mean * rest + slope * (1.0 - t) ** 2
    ln_slope = 2.0 * torch.log(mean / below) + torch.log(rise)
    return torch.where(inside, y, x), torch.where(inside, ln_slope, torch.zeros_like(x))


def inverse_spline(y: Tensor, values: Tensor) -> Tensor:
    """x [...] of a `spline`'s y [...] (equations 6 to 8 of 1906.04032)."""
    inside = y.abs() < BOUND
    held = y.clamp(-BOUND, BOUND)
    left, bottom, width, height, slope, next_slope = _bin_of(held, values, 1)
    mean = height / width
    up = held - bottom
    bend = slope + next_slope - 2.0 * mean
    a = height * (mean - slope) + up * bend
    b = height * slope - up * bend
    c = -mean * up
    root = (b * b - 4.0 * a * c).clamp(min=0.0).sqrt()
    t = 2.0 * c / (-b - root)
    return torch.where(inside, left + t * width, y)


def _bin_of(x: Tensor, values: Tensor, axis: int) -> tuple[Tensor, ...]:
    """Left and lower end, width, height, slopes at both ends of the bin that x [...] lies in.

    axis: 0: x is along the widths; 1: along the heights.
    """
    sizes = [_shares(values[..., k * BINS : (k + 1) * BINS]) for k in (0, 1)]
    ones = torch.ones(BINS, BINS, dtype=x.dtype, device=x.device).triu(1)
    starts = [2.0 * BOUND * (size @ ones) - BOUND for size in sizes]
    inner = SMALLEST_SLOPE + softplus(values[..., 2 * BINS :] + _SLOPE_OF_ONE)
    slopes = pad(inner, (1, 1), value=1.0)
    reached = x[..., None] >= starts[axis]
    reached = torch.cat([torch.ones_like(reached[..., :1]), reached[..., 1:]], dim=-1)
    # the last bin whose start is reached
    later = torch.cat([reached[..., 1:], torch.zeros_like(reached[..., :1])], dim=-1)
    chosen = (reached & ~later).to(x.dtype)
    rows = (*starts, *(2.0 * BOUND * size for size in sizes), slopes[..., :-1], slopes[..., 1:])
    return tuple((row * chosen).sum(-1) for row in rows)


_SLOPE_OF_ONE = math.log(math.expm1(1.0 - SMALLEST_SLOPE))


def _shares(values: Tensor) -> Tensor:
    """Shares of the bins [..., BINS], none below the floor."""
    return SMALLEST_BIN + (1.0 - BINS * SMALLEST_BIN) * values.softmax(-1)
