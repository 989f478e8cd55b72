"""Heads: what a network's numbers mean, and the losses they are trained with.

Axes: b sample, n output (luminosity bin or class), k number per output. A head takes the numbers of
the network's last layer, which start at zero, to a prediction that starts at the mean of the labels
it was normalised with. From a prediction it makes the loss, the point estimate in the label's
scale, and quantiles where it has them.

Losses are computed element by element, and their arguments broadcast. Likelihoods are minus the
logarithm of a probability [nat]; those of counts are in float64, because a count of 1e6 leaves
float32 no digit for the rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softplus

from streamtrain.labels import Label
from streamtrain.networks.layers import NonIncreasing, Unconstrained
from streamtrain.networks.move import Move
from streamtrain.numerics.portable import LN10

LARGEST_LN_STRETCH = 8.0
"""A Gaussian head's deviation is within a factor e^8 of the label's."""
LN_DISPERSION = (math.log(1e-2), math.log(1e6))
"""Centre and half-width of the range of a negative binomial head's dispersion: 1e-8 to 1e4."""
LARGEST_DEX = 300.0
"""A rate beyond 10^300 is no number."""


class Head(nn.Module):
    """What the heads share.

    label: of the generator. `num_numbers` is how many numbers the network's last layer puts out.
    """

    losses: ClassVar[Mapping[str, str]] = {}
    """What the loss is, in words, by the name that `network.head` has for it."""
    per_output = 1
    """Numbers per output, k."""
    joint: ClassVar[bool] = False
    """Whether `sample` and `log_prob` know how bins go together, or take them as independent."""

    def __init__(self, label: Label, name: str, monotonic: bool = False) -> None:
        super().__init__()
        self.label, self.name = label, name
        self.move: Move | None = None
        self.num_outputs = label.num_outputs
        self.num_numbers = self.per_output * label.num_outputs

    def set_normalisation(self, label_bn: Tensor, counts_bn: Tensor, unit_label: Tensor) -> None:
        """Start at the mean of these labels. counts_bn, unit_label: as in a `Batch`."""
        raise NotImplementedError

    def forward(self, numbers: Tensor) -> Tensor:
        """The prediction [B, num_numbers], float32, from the last layer's numbers of that shape."""
        raise NotImplementedError

    def loss(
        self, prediction: Tensor, label_bn: Tensor, counts_bn: Tensor, unit_label: Tensor
    ) -> Tensor:
        """Mean loss, a float32 scalar. label_bn, counts_bn, unit_label: as in a `Batch`."""
        raise NotImplementedError

    def point(self, prediction: Tensor, unit_label: Tensor) -> Tensor:
        """The point estimate in the label's scale [B, num_outputs]; logits of a class."""
        raise NotImplementedError

    def spread(
        self, prediction: Tensor, unit_label: Tensor, levels: Sequence[float]
    ) -> Tensor | None:
        """Quantiles of the label [len(levels), B, num_outputs], float64 on the CPU; None where the
        head has none. levels: probabilities, such as (0.16, 0.84) for one standard deviation."""
        return None

    def rate(self, prediction: Tensor, unit_label: Tensor) -> Tensor:
        """The mean number of halos, float64 [B, num_outputs], which may lie below one."""
        one, point = unit_label.double(), self.point(prediction, unit_label).double()
        if self.label.form == "linear":
            return point / one
        return torch.pow(10.0, (point - one).clamp(max=LARGEST_DEX))

    def sample(self, prediction: Tensor, number: int, generator: torch.Generator) -> Tensor:
        """Counts drawn from what is predicted, float64 [number, B, num_outputs].

        generator: its random numbers decide; those of a CPU give the same counts, up to rounding,
        on every device. Raises ValueError where the head predicts no distribution of counts.
        """
        raise ValueError(f"network.head = {self.name} predicts no distribution of counts")

    def log_prob(self, prediction: Tensor, counts: Tensor) -> Tensor:
        """ln of the probability of the counts of all bins together [nat], float64 [..., B].

        counts: whole numbers [..., B, num_outputs]. Raises ValueError as `sample` does.
        """
        raise ValueError(f"network.head = {self.name} predicts no distribution of counts")

    def tells_apart(self, prediction: Tensor) -> Tensor:
        """The numbers of a prediction [B, any] that maps are compared in, to see whether one is
        unlike those of the training."""
        return prediction

    def moved(self, move: Move) -> Head:
        """This head with its posterior shifted and widened about its point estimate in every bin.

        `log_prob` is that of what `sample` draws. Raises ValueError, one sentence, where the head
        predicts no distribution of counts that has a width of its own.
        """
        if type(self).centre_of is Head.centre_of:
            raise ValueError(
                f"network.head = {self.name} predicts no distribution of counts whose width could "
                "be another: train with joint_counts or negative_binomial"
            )
        found = deepcopy(self)
        found.move = move
        return found

    def centre_of(self, prediction: Tensor) -> Tensor:
        """ln of the counts that a move is about, before it, float64 [B, num_outputs]; of the heads
        that can be moved."""
        raise NotImplementedError

    def _parts(self, prediction: Tensor) -> list[Tensor]:
        """[B, num_outputs] each, one for every number."""
        return list(prediction.split(self.num_outputs, dim=1))

    def _of_counts(self, counts: Tensor, unit_label: Tensor) -> Tensor:
        """Counts as labels, where a count below one halo reads as one in the log10 scale."""
        if self.label.form == "linear":
            return counts * unit_label
        return counts.clamp(min=1.0).log10() + unit_label


class PointHead(Head):
    """One number per bin, in the label's scale; or logits of a class.

    `mse` and `log_cosh` take the error in dex (log10) or in standard deviations of each bin
    (linear, whose values span many decades); `msle` takes that of ln(1 + count).
    """

    losses: ClassVar[Mapping[str, str]] = {
        "mse": "mean squared error of the label",
        "log_cosh": "mean log cosh error of the label",
        "msle": "mean squared error of ln(1 + count)",
    }
    label_std: Tensor

    def __init__(self, label: Label, name: str, monotonic: bool = False) -> None:
        super().__init__(label, "cross_entropy" if label.is_class else name)
        self.function = (NonIncreasing if monotonic else Unconstrained)(label.num_outputs)
        self.register_buffer("label_std", torch.ones(label.num_outputs))

    @torch.no_grad()
    def set_normalisation(self, label_bn: Tensor, counts_bn: Tensor, unit_label: Tensor) -> None:
        mean, std = self.label.output_moments(*moments(label_bn))
        self.label_std.copy_(std)
        self.function.set_normalisation(label_bn, mean, std)

    def forward(self, numbers: Tensor) -> Tensor:
        return self.function(numbers)

    def loss(
        self, prediction: Tensor, label_bn: Tensor, counts_bn: Tensor, unit_label: Tensor
    ) -> Tensor:
        if self.name == "cross_entropy":
            return cross_entropy(prediction, label_bn)
        if self.name == "msle":
            return squared_log_error(prediction / unit_label, label_bn / unit_label).mean()
        error = prediction - label_bn
        if self.label.form == "linear":
            error = error / self.label_std
        return (log_cosh(error) if self.name == "log_cosh" else error * error).mean()

    def point(self, prediction: Tensor, unit_label: Tensor) -> Tensor:
        return prediction

    def tells_apart(self, prediction: Tensor) -> Tensor:
        """Where the label is linear, in its standard deviations: phi has units of 1e-10."""
        if self.label.form != "linear":
            return prediction
        point, *others = self._parts(prediction)
        return torch.cat([point / self.label_std, *others], dim=1)


class GaussianHead(PointHead):
    """Mean and standard deviation of each bin's label, independent of each other.

    The loss is minus the log density of the label, of the label in its standard deviations where
    it is linear.
    """

    losses: ClassVar[Mapping[str, str]] = {"gaussian": "minus log density of the label"}
    per_output = 2

    def forward(self, numbers: Tensor) -> Tensor:
        """The prediction is the mean, and the ln of the deviation over the label's."""
        mean, stretch = self._parts(numbers)
        return torch.cat([self.function(mean), bounded(stretch)], dim=1)

    def loss(
        self, prediction: Tensor, label_bn: Tensor, counts_bn: Tensor, unit_label: Tensor
    ) -> Tensor:
        mean, stretch = self._parts(prediction)
        error = (mean - label_bn) / self.label_std
        density = gaussian_nll(error, stretch, torch.zeros_like(error))
        return (density if self.label.form == "linear" else density + self.label_std.log()).mean()

    def point(self, prediction: Tensor, unit_label: Tensor) -> Tensor:
        return self._parts(prediction)[0]

    def spread(
        self, prediction: Tensor, unit_label: Tensor, levels: Sequence[float]
    ) -> Tensor | None:
        stats = _stats()
        mean, stretch = (part.double().cpu() for part in self._parts(prediction.detach()))
        std = stretch.exp() * self.label_std.double().cpu()
        return torch.stack([mean + float(stats.norm.ppf(p)) * std for p in levels])


class PoissonHead(Head):
    """The rate of each bin's count; the loss is the Poisson probability of the halos.

    It starts at the mean count and gives the counts of bright, empty bins their exact weight. A
    count N is trusted to 1/sqrt(N), so faint bins with their 10^5 halos rule the loss.
    """

    losses: ClassVar[Mapping[str, str]] = {"poisson": "minus log probability of the counts"}
    ln_mean: Tensor
    ln_std: Tensor

    def __init__(self, label: Label, name: str, monotonic: bool = False) -> None:
        super().__init__(label, name)
        self.register_buffer("ln_mean", torch.zeros(label.num_outputs))
        self.register_buffer("ln_std", torch.ones(label.num_outputs))

    @torch.no_grad()
    def set_normalisation(self, label_bn: Tensor, counts_bn: Tensor, unit_label: Tensor) -> None:
        counts = counts_bn.double()
        # half a halo over all samples, where none was seen
        self.ln_mean.copy_(counts.mean(0).clamp(min=0.5 / len(counts)).log())
        _, std = moments(counts.clamp(min=1.0).log())
        self.ln_std.copy_(std.clamp(min=0.1 * LN10))

    def forward(self, numbers: Tensor) -> Tensor:
        """The prediction is the ln of the rate."""
        return self.ln_mean + self.ln_std * numbers

    def loss(
        self, prediction: Tensor, label_bn: Tensor, counts_bn: Tensor, unit_label: Tensor
    ) -> Tensor:
        return poisson_nll(prediction, counts_bn).mean().float()

    def point(self, prediction: Tensor, unit_label: Tensor) -> Tensor:
        return _point_of_rate(self, self._parts(prediction)[0], unit_label)

    def spread(
        self, prediction: Tensor, unit_label: Tensor, levels: Sequence[float]
    ) -> Tensor | None:
        mean, stats = rate(prediction.detach().double().cpu()).numpy(), _stats()
        counts = np.stack([stats.poisson.ppf(p, mean) for p in levels])
        return self._of_counts(torch.from_numpy(counts), unit_label.double().cpu())

    def rate(self, prediction: Tensor, unit_label: Tensor) -> Tensor:
        return rate(self._parts(prediction)[0].double())

    def sample(self, prediction: Tensor, number: int, generator: torch.Generator) -> Tensor:
        rates = rate(self._parts(prediction.detach())[0].double()).to(generator.device)
        return _poisson(rates.expand(number, -1, -1), generator).to(prediction.device)

    def log_prob(self, prediction: Tensor, counts: Tensor) -> Tensor:
        return -poisson_nll(prediction, counts).sum(-1)


class NegativeBinomialHead(PoissonHead):
    """Mean and dispersion of each bin's count: Poisson counts whose rate is uncertain as well.

    The variance is mean + dispersion mean^2. It starts at the mean and the variance of the counts
    it was normalised with.
    """

    losses: ClassVar[Mapping[str, str]] = {
        "negative_binomial": "minus log probability of the counts"
    }
    per_output = 2
    ln_dispersion: Tensor

    def __init__(self, label: Label, name: str, monotonic: bool = False) -> None:
        super().__init__(label, name)
        self.register_buffer("ln_dispersion", torch.zeros(label.num_outputs))

    @torch.no_grad()
    def set_normalisation(self, label_bn: Tensor, counts_bn: Tensor, unit_label: Tensor) -> None:
        super().set_normalisation(label_bn, counts_bn, unit_label)
        mean, std = moments(counts_bn.double())
        dispersion = (std**2 - mean) / mean.clamp(min=0.5 / len(counts_bn)) ** 2
        centre, half = LN_DISPERSION
        start = (dispersion.clamp(min=1e-3, max=1e3).log() - centre) / half
        self.ln_dispersion.copy_(half * torch.atanh(start))

    def forward(self, numbers: Tensor) -> Tensor:
        """The prediction is the ln of the mean and of the dispersion."""
        mean, dispersion = super()._parts(numbers)
        centre, half = LN_DISPERSION
        bounded = centre + half * torch.tanh((self.ln_dispersion + dispersion) / half)
        return torch.cat([super().forward(mean), bounded], dim=1)

    def loss(
        self, prediction: Tensor, label_bn: Tensor, counts_bn: Tensor, unit_label: Tensor
    ) -> Tensor:
        mean, dispersion = self._parts(prediction)
        return negative_binomial_nll(mean, dispersion, counts_bn).mean().float()

    def spread(
        self, prediction: Tensor, unit_label: Tensor, levels: Sequence[float]
    ) -> Tensor | None:
        stats = _stats()
        ln_mean, ln_dispersion = (part.double().cpu() for part in self._parts(prediction.detach()))
        shape = torch.exp(-ln_dispersion).numpy()
        chance = torch.sigmoid(-ln_dispersion - ln_mean).numpy()  # scipy's p, shape/(shape + mean)
        counts = np.stack([stats.nbinom.ppf(p, shape, chance) for p in levels])
        return self._of_counts(torch.from_numpy(counts), unit_label.double().cpu())

    def sample(self, prediction: Tensor, number: int, generator: torch.Generator) -> Tensor:
        ln_mean, ln_dispersion = (
            part.double().to(generator.device) for part in self._parts(prediction.detach())
        )
        shape = torch.exp(-ln_dispersion).expand(number, -1, -1)
        scatter = torch._standard_gamma(shape, generator) / shape
        return _poisson(rate(ln_mean) * scatter, generator).to(prediction.device)

    def log_prob(self, prediction: Tensor, counts: Tensor) -> Tensor:
        mean, dispersion = self._parts(prediction)
        return -negative_binomial_nll(mean, dispersion, counts).sum(-1)

    def centre_of(self, prediction: Tensor) -> Tensor:
        return super()._parts(prediction)[0].double()

    def _parts(self, prediction: Tensor) -> list[Tensor]:
        """ln of the mean and of the dispersion. Where it is moved: the relative variance, 1 / mean
        + dispersion, has the factor of the width squared, but stays above that of Poisson counts.
        """
        mean, dispersion = super()._parts(prediction)
        if self.move is None:
            return [mean, dispersion]
        shift, width = self.move.at(mean)
        variance = width.square() * (torch.exp(-mean.double()) + torch.exp(dispersion.double()))
        mean = mean + shift
        centre, half = LN_DISPERSION
        least = math.exp(centre - half)
        dispersion = (variance - torch.exp(-mean)).clamp(min=least).log()
        return [mean.to(prediction), dispersion.to(prediction)]


def _point_of_rate(head: Head, ln_rate: Tensor, unit_label: Tensor) -> Tensor:
    """A rate as a label: float32 holds the log10 of any, the rate itself up to 1e15."""
    if head.label.form == "linear":
        return rate(ln_rate) * unit_label
    return (ln_rate / LN10).clamp(min=0.0) + unit_label


def _poisson(rates: Tensor, generator: torch.Generator) -> Tensor:
    """Poisson counts; of rates that leave float64 no digit for their scatter, the rates."""
    few = rates < LARGEST_POISSON
    return torch.where(few, torch.poisson(rates.where(few, 0.0), generator), rates.round())


def bounded(ln_stretch: Tensor) -> Tensor:
    """The ln of a stretch, kept within `LARGEST_LN_STRETCH`."""
    return LARGEST_LN_STRETCH * torch.tanh(ln_stretch / LARGEST_LN_STRETCH)


def _stats() -> Any:
    """scipy.stats, which takes a second to load: training does without."""
    from scipy import stats

    return stats


def moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the first axis, float32, accumulated in float64."""
    wide = values.double()
    return wide.mean(0).float(), wide.std(0, correction=0).float()


LARGEST_POISSON = 1e12
"""Rate from which on Poisson's scatter of less than 1e-6 is left out."""
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
