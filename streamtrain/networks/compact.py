"""A compact residual network for properties of a whole field.

Axes: b sample, f frequency (the input's channels), y declination, x right ascension.

What it is built on. A luminosity function is the same for a map that is shifted or mirrored, so
only means over the sky reach the dense layers. It shows in the distribution of voxel values, at
every scale between a voxel and the clustering length, so every scale has its means. One full
convolution over all frequencies at once tells lines, which live in one channel, from continuum
sources, which live in all. After that most of the arithmetic goes into mixing channels point by
point; depthwise convolutions look at the neighbours (A ConvNet for the 2020s, Liu et al. 2022,
arXiv:2201.03545). A residual block begins as the identity, so the network begins shallow.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, gelu

from streamtrain.networks.layers import Body, Output, check_halvings, he_initialise
from streamtrain.networks.settings import CompactConfig

EXPANSION = 2
"""Channels inside a block, over those outside."""
SMALL_STD = 1e-3
"""Of the first weights at the end of a block."""


class Block(nn.Module):
    """x + pointwise(GELU(pointwise(depthwise(x)))), at first nearly x."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, kernel, padding="same", groups=channels)
        self.widen = nn.Conv2d(channels, EXPANSION * channels, 1)
        self.narrow = nn.Conv2d(EXPANSION * channels, channels, 1)
        he_initialise(self.depthwise)
        he_initialise(self.widen)
        he_initialise(self.narrow)
        nn.init.normal_(self.narrow.weight, std=SMALL_STD)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.narrow(gelu(self.widen(self.depthwise(x))))
        return x + y


class Compact(Body):
    """Stages of residual blocks, each on half the pixels of the one before with twice the channels;
    the sky means of all stages, normalised; a dense layer.

    network: its configuration; input_shape: (n_freq, n_dec, n_ra) of the cubes; num_numbers: of the
    head. Raises ValueError if the stages do not fit the map.
    """

    dimensions = 2

    def __init__(
        self, network: CompactConfig, input_shape: tuple[int, int, int], num_numbers: int
    ) -> None:
        super().__init__()
        check_halvings(
            input_shape[1:],
            network.layers - 1,
            f"network.layers = {network.layers}, of which all but the first",
            round_up=False,
            remedy="at most {most} of these fit",
        )
        widths = [
            min(network.filters << layer, network.max_filters) for layer in range(network.layers)
        ]
        self.stem = nn.Conv2d(input_shape[0], widths[0], network.kernel, padding="same")
        he_initialise(self.stem)
        self.widen = nn.ModuleList(
            nn.Conv2d(before, after, 1) for before, after in pairwise(widths)
        )
        for layer in self.widen:
            he_initialise(layer)
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(width, network.kernel) for _ in range(network.blocks)))
            for width in widths[1:]
        )
        self.norm = nn.LayerNorm(sum(widths))
        self.dense = nn.Linear(sum(widths), network.dense)
        he_initialise(self.dense)
        self.dropout = nn.Dropout(network.dropout)
        self.output = Output(network.dense, num_numbers)

    def forward(self, cube_bfyx: Tensor) -> Tensor:
        """Normalised cubes [B, n_freq, n_dec, n_ra] to the head's numbers [B, num_numbers]."""
        x = gelu(self.stem(cube_bfyx.contiguous(memory_format=self.memory_format)))
        means = [x.mean(dim=(2, 3))]
        for widen, stage in zip(self.widen, self.stages, strict=True):
            x = stage(gelu(widen(avg_pool2d(x, 2))))
            means.append(x.mean(dim=(2, 3)))
        features = gelu(self.dense(self.norm(torch.cat(means, dim=1))))
        numbers: Tensor = self.output(self.dropout(features))
        return numbers
