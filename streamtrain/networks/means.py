"""A 2-D convolutional network that decides by the sky means of all its layers.

Axes: b sample, f frequency (the input's channels), y declination, x right ascension. What it
predicts is a property of the whole field, so every layer's mean over the sky reaches the dense
layer: the first layers' means describe the distribution of voxel values, the later ones' the
clustering.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from streamtrain.networks.layers import Body, Output, check_halvings, he_initialise
from streamtrain.networks.settings import MeansConfig


class Means(Body):
    """Convolution, GELU and pooling by two, repeated; sky means of all layers; a dense layer.

    network: its configuration; input_shape: (n_freq, n_dec, n_ra) of the cubes; num_numbers: of the
    head. Raises ValueError if the poolings do not fit the map.
    """

    dimensions = 2

    def __init__(
        self, network: MeansConfig, input_shape: tuple[int, int, int], num_numbers: int
    ) -> None:
        super().__init__()
        check_halvings(
            input_shape[1:],
            network.layers,
            f"network.layers = {network.layers}",
            round_up=False,
            remedy="at most {most} layers fit",
        )
        widths = [
            min(network.filters << layer, network.max_filters) for layer in range(network.layers)
        ]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, network.kernel, padding="same")
            for before, after in zip([input_shape[0], *widths[:-1]], widths, strict=True)
        )
        self.pool = nn.AvgPool2d(2)
        self.dense = nn.Linear(sum(widths), network.dense)
        self.dropout = nn.Dropout(network.dropout)
        self.output = Output(network.dense, num_numbers)
        for layer in [*self.convolutions, self.dense]:
            he_initialise(layer)

    def forward(self, cube_bfyx: Tensor) -> Tensor:
        """Normalised cubes [B, n_freq, n_dec, n_ra] to the head's numbers [B, num_numbers]."""
        x = cube_bfyx.contiguous(memory_format=self.memory_format)
        means = []
        for convolution in self.convolutions:
            x = self.pool(gelu(convolution(x)))
            means.append(x.mean(dim=(2, 3)))
        numbers: Tensor = self.output(self.dropout(gelu(self.dense(torch.cat(means, dim=1)))))
        return numbers
