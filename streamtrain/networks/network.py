"""A network: normalised input, a body that the configuration chooses, a head.

Axes: b sample, f frequency, y declination, x right ascension.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from streamtrain.labels import Label
from streamtrain.networks.cnn import CNN
from streamtrain.networks.compact import Compact
from streamtrain.networks.flow import FlowHead
from streamtrain.networks.heads import (
    GaussianHead,
    Head,
    NegativeBinomialHead,
    PointHead,
    PoissonHead,
)
from streamtrain.networks.joint import JointCountsHead
from streamtrain.networks.layers import Body, full_precision
from streamtrain.networks.means import Means
from streamtrain.networks.resnet import ResNet
from streamtrain.networks.settings import (
    CNNConfig,
    CompactConfig,
    HybridConfig,
    MeansConfig,
    NetworkConfig,
    ResNetConfig,
    ResNeXtConfig,
    SummariesConfig,
)
from streamtrain.networks.summaries import Hybrid, Summaries
from streamtrain.operators.plan import InputMap

SMALLEST_STD = 1e-6
"""Floor of an input channel's standard deviation; a constant channel stays zero."""


BODIES: dict[type, type[Body]] = {
    HybridConfig: Hybrid,
    MeansConfig: Means,
    CNNConfig: CNN,
    ResNetConfig: ResNet,
    ResNeXtConfig: ResNet,
    CompactConfig: Compact,
    SummariesConfig: Summaries,
}
"""Every body by its section of the configuration."""

HEADS: dict[str, type[Head]] = {
    name: head
    for head in (
        PointHead,
        GaussianHead,
        PoissonHead,
        NegativeBinomialHead,
        JointCountsHead,
        FlowHead,
    )
    for name in head.losses
}
"""Every head by the name that `network.head` gives it."""
AUTO = "mse"
"""The head that `network.head = auto` stands for, but for a label of parameters."""


def head_class(name: str) -> type[Head]:
    """The head that `network.head` names."""
    return HEADS[AUTO if name == "auto" else name]


def build_head(name: str, label: Label, monotonic: bool = False) -> Head:
    """The head of a configuration: `network.head`, for the generator's label."""
    if name == "auto":
        name = "flow" if label.is_parameters else AUTO
    return HEADS[name](label, name, monotonic)


def loss_name(name: str, is_class: bool, is_parameters: bool = False) -> str:
    """What the loss of `network.head` is, in words."""
    if is_class:
        return "cross-entropy of the label"
    if name == "auto":
        name = "flow" if is_parameters else AUTO
    return HEADS[name].losses[name]


class Network(nn.Module):
    """What is trained: from cubes to predictions, of which `head` makes labels and the loss.

    The input is normalised per frequency channel with moments that `set_normalisation` sets once,
    with those of the head; all are saved with the weights. An untrained network predicts the mean
    label.

    config: the section `network` of a configuration
    input_shape: (n_freq, n_dec, n_ra) of the cubes
    label: of the generator
    input_map: what the cubes show, for `network.kind` hybrid and summaries
    channels_last: how convolutions lay out their maps in memory, which changes rounding alone
    Raises ValueError if the network does not fit the map.
    """

    input_mean: Tensor
    input_std: Tensor

    def __init__(
        self,
        config: NetworkConfig,
        input_shape: tuple[int, int, int],
        label: Label,
        input_map: InputMap | None = None,
        *,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        self.kind = config.kind
        self.register_buffer("input_mean", torch.zeros(input_shape[0]))
        self.register_buffer("input_std", torch.ones(input_shape[0]))
        self.head = build_head(config.head, label, config.monotonic)
        self.body = _body(config, input_shape, self.head.num_numbers, input_map)
        if channels_last and self.body.convolves:
            flat = self.body.dimensions == 2
            self.body.memory_format = torch.channels_last if flat else torch.channels_last_3d
            self.body.to(memory_format=self.body.memory_format)  # type: ignore[call-overload]

    @torch.no_grad()
    def set_normalisation(
        self,
        input_mean: Tensor,
        input_std: Tensor,
        label_bn: Tensor,
        counts_bn: Tensor,
        unit_label: Tensor,
    ) -> None:
        """Set the moments of the input [n_freq], and the head's from labels as in a `Batch`."""
        self.input_mean.copy_(input_mean)
        self.input_std.copy_(input_std.clamp(min=SMALLEST_STD))
        self.head.set_normalisation(label_bn, counts_bn, unit_label)

    def forward(self, cube_bfyx: Tensor) -> Tensor:
        """Predictions float32 [B, head.num_numbers] from cubes float32 [B, n_freq, n_dec, n_ra]."""
        x = cube_bfyx
        if not self.body.sees_boxes:  # which normalises what it makes of the map
            column = (1, -1, 1, 1)
            x = (cube_bfyx - self.input_mean.view(column)) / self.input_std.view(column)
        # oneDNN's bfloat16 gradients of 3-D convolutions are wrong for 2 frequencies (torch 2.13)
        exact = self.body.dimensions == 3 and x.device.type == "cpu"
        with full_precision(x) if exact else nullcontext():
            numbers = self.body(x)
        with full_precision(numbers):
            prediction: Tensor = self.head(numbers.float())
        return prediction


def _body(
    config: NetworkConfig,
    input_shape: tuple[int, int, int],
    num_numbers: int,
    input_map: InputMap | None,
) -> Body:
    body = BODIES[type(config)]
    if not body.sees_boxes:
        return body(config, input_shape, num_numbers)
    if input_map is None:
        raise ValueError(f"network.kind = {config.kind} needs the box that its maps show")
    return body(config, input_shape, num_numbers, input_map=input_map)


def build_network(
    config: NetworkConfig,
    input_shape: tuple[int, int, int],
    label: Label,
    input_map: InputMap | None = None,
    *,
    channels_last: bool = True,
) -> Network:
    """The network of a configuration for cubes of (n_freq, n_dec, n_ra) and the generator's
    label; input_map: what the cubes show. Raises ValueError if it does not fit the map."""
    return Network(config, input_shape, label, input_map, channels_last=channels_last)


def point_of(network: Network, cubes: Tensor, unit_label: Tensor) -> tuple[Tensor, Tensor]:
    """What a network puts out for cubes [B, n_freq, n_dec, n_ra], and the labels that its head
    makes of that [B, num_outputs].

    unit_label: `Batch.unit_label`. Raises ValueError if a label is not finite.
    """
    with torch.inference_mode():
        output = network(cubes)
        point = network.head.point(output, unit_label.to(cubes.device))
        if not torch.isfinite(point).all():
            raise ValueError(
                "the network's prediction is not finite: its training has diverged, or the map is "
                "far beyond what it was trained on, such as an array before the operators of "
                "the configuration, of which units=... of Run.infer says that it is a map"
            )
    return output, point


def describe(network: Network, input_shape: tuple[int, int, int]) -> str:
    """Kind, size and cost in a line; it tries the network on one map to count."""
    parameters = sum(p.numel() for p in network.parameters())
    return (
        f"network {network.kind}: {parameters:,} parameters, "
        f"{short(multiply_adds(network, input_shape))} multiply-adds per sample"
    )


@torch.no_grad()
def multiply_adds(network: Network, input_shape: tuple[int, int, int]) -> int:
    """Multiply-adds of convolutions and dense layers for one map (torch's FlopCounterMode agrees,
    and takes a second to load)."""
    total = 0

    def count(layer: nn.Module, _: object, output: Tensor) -> None:
        nonlocal total
        assert isinstance(layer.weight, Tensor)
        total += output.numel() * layer.weight[0].numel()

    kinds = nn.Conv2d | nn.Conv3d | nn.Linear
    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, kinds)]
    training = network.training
    network.eval()(torch.zeros(1, *input_shape, device=network.input_mean.device))
    network.train(training)
    for hook in hooks:
        hook.remove()
    return total


def short(number: int) -> str:
    """A number in words, such as '12.3 million'."""
    for size, name in ((10**9, "billion"), (10**6, "million"), (10**3, "thousand")):
        if number >= size:
            return f"{number / size:.3g} {name}"
    return str(number)
