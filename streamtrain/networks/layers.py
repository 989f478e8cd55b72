"""Layers that several networks share, and the sizes of maps through them.

Axes: b sample, c channel, then frequency (in 3 dimensions), declination, right ascension.

`Unconstrained` and `NonIncreasing` turn the network's numbers into a function of luminosity: any,
or one that never rises. Both have `set_normalisation(label, mean, std)`, and predict the mean label
for numbers of zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.functional import pad, softplus

KERAS_EPSILON = 1e-3
"""Added to the variance by Keras' batch normalisation."""
KERAS_MOMENTUM = 0.01
"""Keras' momentum of 0.99: there it is the share of the old average, in torch that of the new."""


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after an axis in TensorFlow's 'same': an output of ceil(size / stride), the
    odd zero at the end."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def pad_same(x: Tensor, kernel: Sequence[int], stride: Sequence[int], value: float) -> Tensor:
    """x [B, C, ...] padded on its last axes for `same_padding`."""
    both = [same_padding(n, k, s) for n, k, s in zip(x.shape[2:], kernel, stride, strict=True)]
    flat = [zeros for axis in reversed(both) for zeros in axis]
    return pad(x, flat, value=value) if any(flat) else x


Inputs: TypeAlias = Callable[[], Iterable[Tensor]]
"""Inputs [B, n_freq, n_dec, n_ra] of the samples of the normalisation, batch by batch and in their
order; each call begins with the first."""


class Body(nn.Module):
    """What stands between a network's normalised input and its head.

    A body is made of its section of the configuration, the shape (n_freq, n_dec, n_ra) of the maps
    and the number of numbers that the head wants; one that `sees_boxes` also takes the `InputMap`
    of what the maps show, as `input_map`, and inputs that are not normalised.
    """

    dimensions: int
    """2: frequencies are channels; 3: frequency is an axis."""
    sees_boxes: ClassVar[bool] = False
    convolves: ClassVar[bool] = True
    """Whether the layout of maps in memory matters for its speed."""
    memory_format: torch.memory_format = torch.contiguous_format
    """The layout that it was given."""

    def set_normalisation(self, inputs: Inputs) -> None:
        """Set what is a function of training samples and not learned; here nothing is."""


class SameConv(nn.Module):
    """A convolution in 2 or 3 dimensions with TensorFlow's 'same' padding, Keras' first weights.

    kernel, stride: one per axis. groups: the channels fall into so many groups.
    """

    def __init__(
        self, before: int, after: int, kernel: Sequence[int], stride: Sequence[int], groups: int = 1
    ) -> None:
        super().__init__()
        convolution: Any = nn.Conv2d if len(kernel) == 2 else nn.Conv3d
        self._kernel, self._stride = tuple(kernel), tuple(stride)
        # without a stride the zeros are the same on both sides, and the convolution adds them
        even = all(s == 1 and k % 2 for k, s in zip(kernel, stride, strict=True))
        self._pads = not even
        padding = [k // 2 for k in kernel] if even else 0
        self.convolution = convolution(
            before, after, self._kernel, self._stride, padding=padding, groups=groups
        )
        keras_initialise(self.convolution)

    def forward(self, x: Tensor) -> Tensor:
        if self._pads:
            x = pad_same(x, self._kernel, self._stride, 0.0)
        y: Tensor = self.convolution(x)
        return y


class SameMaxPool(nn.Module):
    """Maximum over a window, with TensorFlow's 'same' padding."""

    def __init__(self, kernel: Sequence[int], stride: Sequence[int]) -> None:
        super().__init__()
        self._kernel, self._stride = tuple(kernel), tuple(stride)
        pool = nn.MaxPool2d if len(kernel) == 2 else nn.MaxPool3d
        self._pool = pool(self._kernel, self._stride)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self._pool(pad_same(x, self._kernel, self._stride, -math.inf))
        return y


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation in any dimensions, over the batches of all ranks together.

    A run on several ranks so learns what one rank learns from the whole batch, and every rank has
    the same running moments; torch's SyncBatchNorm does the same on GPUs alone. The ranks' batches
    are of one size.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=KERAS_EPSILON, momentum=KERAS_MOMENTUM)

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of axes will do."""

    def forward(self, x: Tensor) -> Tensor:
        ranks = dist.get_world_size() if dist.is_initialized() else 1
        if ranks == 1 or not self.training:
            return super().forward(x)
        axes = [0, *range(2, x.ndim)]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        wide = x.float()
        mean = all_reduce(wide.mean(axes)) / ranks
        centred = wide - mean.view(shape)
        variance = all_reduce(centred.square().mean(axes)) / ranks
        self._remember(mean.detach(), variance.detach(), ranks * x.numel() // x.shape[1])
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale.view(shape) + self.bias.view(shape)).to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, number: int) -> None:
        """Move the running moments towards those of a batch of so many values per channel."""
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (number / max(number - 1, 1)), self.momentum)


def keras_initialise(layer: nn.Module) -> None:
    """Keras' first weights of a dense or convolutional layer: uniform in +-sqrt(6 / (fan_in +
    fan_out)) (Glorot & Bengio 2010), biases zero."""
    assert isinstance(layer, nn.Linear | nn.Conv2d | nn.Conv3d)
    groups = 1 if isinstance(layer, nn.Linear) else layer.groups
    inputs = layer.weight[0].numel()
    outputs = layer.weight.numel() // layer.weight.shape[1] // groups
    limit = math.sqrt(6.0 / (inputs + outputs))
    nn.init.uniform_(layer.weight, -limit, limit)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)


def he_initialise(layer: nn.Module) -> None:
    """First weights that keep the variance through GELU (He et al. 2015, arXiv:1502.01852)."""
    assert isinstance(layer, nn.Conv2d | nn.Conv3d | nn.Linear)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)


def full_precision(values: Tensor) -> AbstractContextManager[Any]:
    """float32 inside, whatever autocast says outside (which does not know the meta device)."""
    return nullcontext() if values.is_meta else torch.autocast(values.device.type, enabled=False)


class Output(nn.Linear):
    """The last layer: it starts at zero, of which the head makes the mean label, and is never in
    bfloat16, whose 8 bits would round a label."""

    def __init__(self, features: int, numbers: int) -> None:
        super().__init__(features, numbers)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, features: Tensor) -> Tensor:
        with full_precision(features):
            return super().forward(features.float())


SMALLEST_STEP = 1e-3
"""Floor of a mean increment in units of its scale: softplus of a smaller one would hardly learn."""


class Unconstrained(nn.Module):
    """mean + std times the number, bin by bin [B, num_outputs]."""

    label_mean: Tensor
    scale: Tensor

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.register_buffer("label_mean", torch.zeros(num_outputs))
        self.register_buffer("scale", torch.ones(num_outputs))

    @torch.no_grad()
    def set_normalisation(self, label_bn: Tensor, mean: Tensor, std: Tensor) -> None:
        """mean, std: what the prediction is centred on and scaled by [num_outputs]."""
        self.label_mean.copy_(mean)
        self.scale.copy_(std)

    def forward(self, numbers: Tensor) -> Tensor:
        return self.label_mean + self.scale * numbers


class NonIncreasing(nn.Module):
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
    def set_normalisation(self, label_bn: Tensor, mean: Tensor, std: Tensor) -> None:
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


def halve(sizes: Sequence[int], round_up: bool) -> tuple[int, ...]:
    """Half of every size, of one pixel one."""
    return tuple(max(1, (n + round_up) // 2) for n in sizes)


def check_halvings(
    sky: tuple[int, int], times: int, what: str, *, round_up: bool, remedy: str
) -> list[tuple[int, ...]]:
    """The sizes of a map after each of so many halvings, the map itself first.

    sky: pixels (dec, ra); round_up: half of 5 is 3, not 2; what, remedy: the setting that asks for
    them, and the end of the sentence ('{most}' in it becomes the number that fits).
    Raises ValueError with all sizes if a side of one pixel would be halved.
    """
    sizes: list[tuple[int, ...]] = [sky]
    while min(sizes[-1]) > 1 and len(sizes) <= times:
        sizes.append(halve(sizes[-1], round_up))
    most = len(sizes) - 1
    if most < times:
        shown = ", ".join(f"{dec} x {ra}" for dec, ra in sizes[1:]) or "one pixel"
        raise ValueError(
            f"{what} halve the map {times} times, but a map of {sky[0]} x {sky[1]} pixels becomes "
            f"{shown}, and a side of one pixel cannot be halved: {remedy.format(most=most)}"
        )
    return sizes
