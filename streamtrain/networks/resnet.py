"""The residual network of Pfeffer, Breysse and Stein 2019 (1905.10376), and ResNeXt.

intensitymap_cnn, models_to_load.py, get_master_res_next: 50 layers of Deep Residual Learning for
Image Recognition (He et al. 2015, arXiv:1512.03385) in 3 dimensions, twice as wide, with LeakyReLU.
Its axes are (x, y, frequency); here they are (frequency, dec, ra), which changes nothing.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import leaky_relu, relu

from streamtrain.networks.layers import (
    BatchNorm,
    Body,
    Output,
    SameConv,
    SameMaxPool,
    check_halvings,
    keras_initialise,
)
from streamtrain.networks.settings import ResNetConfig, ResNeXtConfig

BLOCKS = (3, 4, 6, 3)
"""Residual blocks per stage."""
SLOPE = 0.3
"""Keras' default slope of a LeakyReLU below zero."""
ONE, TWO, THREE, SEVEN = ((n, n, n) for n in (1, 2, 3, 7))


class Block(nn.Module):
    """A bottleneck: convolutions 1^3, 3^3 (with the stride and the groups) and 1^3, each with batch
    normalisation, and a shortcut, itself a 1^3 convolution where the shape changes."""

    def __init__(
        self, before: int, middle: int, after: int, stride: tuple[int, int, int], groups: int
    ) -> None:
        super().__init__()
        self.first = SameConv(before, middle, ONE, ONE)
        self.first_norm = BatchNorm(middle)
        self.second = SameConv(middle, middle, THREE, stride, groups)
        self.second_norm = BatchNorm(middle)
        self.third = SameConv(middle, after, ONE, ONE)
        self.third_norm = BatchNorm(after)
        self.shortcut: nn.Module = nn.Identity()
        if before != after:
            self.shortcut = nn.Sequential(SameConv(before, after, ONE, stride), BatchNorm(after))

    def forward(self, x: Tensor) -> Tensor:
        y = leaky_relu(self.first_norm(self.first(x)), SLOPE)
        y = leaky_relu(self.second_norm(self.second(y)), SLOPE)
        return leaky_relu(self.third_norm(self.third(y)) + self.shortcut(x), SLOPE)


class ResNet(Body):
    """Convolution 7^3 and maximum 3^3, both with stride 2; four stages of residual blocks; the mean
    over the map; a dense layer with batch normalisation, ReLU and dropout.

    With 64 filters and 49 luminosity bins it has the published 159 589 153 numbers: 159 518 929
    parameters and 70 224 running moments. As published, but for the scaling of input and label that
    every network here has, and a last layer that starts at zero.

    ResNeXt (Aggregated Residual Transformations for Deep Neural Networks, Xie et al. 2016,
    arXiv:1611.05431) splits the 3^3 convolutions into groups of channels, form (c) of its figure 3.
    The published code has that as `cardinality`, at the widths of its ResNet, used with 1 alone:
    with more it would cut the frequency axis, not the channels.

    network: its configuration; input_shape: (n_freq, n_dec, n_ra) of the cubes; num_numbers: of the
    head. Raises ValueError if the map is too small to be halved five times.
    """

    dimensions = 3

    def __init__(
        self,
        network: ResNetConfig | ResNeXtConfig,
        input_shape: tuple[int, int, int],
        num_numbers: int,
    ) -> None:
        super().__init__()
        check_halvings(
            input_shape[1:],
            5,
            f"the stages of network.kind = {network.kind}",
            round_up=True,
            remedy="it takes maps of at least 17 pixels a side",
        )
        filters = network.filters
        groups = network.cardinality if isinstance(network, ResNeXtConfig) else 1
        self.stem = SameConv(1, filters, SEVEN, TWO)
        self.stem_norm = BatchNorm(filters)
        self.pool = SameMaxPool(THREE, TWO)
        stages, channels = [], filters
        for number, blocks in enumerate(BLOCKS):
            middle, after = filters << (number + 1), filters << (number + 2)
            stage = []
            for block in range(blocks):
                stride = TWO if number and not block else ONE
                stage.append(Block(channels, middle, after, stride, groups))
                channels = after
            stages.append(nn.Sequential(*stage))
        self.stages = nn.ModuleList(stages)
        self.dense = nn.Linear(channels, network.dense)
        keras_initialise(self.dense)
        self.dense_norm = BatchNorm(network.dense)
        self.dropout = nn.Dropout(network.dropout)
        self.output = Output(network.dense, num_numbers)

    def forward(self, cube_bfyx: Tensor) -> Tensor:
        """Normalised cubes [B, n_freq, n_dec, n_ra] to the head's numbers [B, num_numbers]."""
        x = cube_bfyx[:, None].contiguous(memory_format=self.memory_format)
        x = self.pool(leaky_relu(self.stem_norm(self.stem(x)), SLOPE))
        for stage in self.stages:
            x = stage(x)
        features = relu(self.dense_norm(self.dense(x.mean(dim=(2, 3, 4)))))
        numbers: Tensor = self.output(self.dropout(features))
        return numbers
