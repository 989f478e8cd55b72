"""The convolutional networks of Pfeffer, Breysse and Stein 2019 (1905.10376) and their code.

They tried them in 2 and 3 dimensions, with 4, 5 or 6 layers, kernels of 3 or 5, convolutional or
maximum pooling (intensitymap_cnn, models_to_load.py: get_master_2, get_master_adam), before they
took a residual network. Axes as in `layers`; in 2 dimensions frequencies are channels.
"""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn.functional import relu

from streamtrain.networks.layers import (
    BatchNorm,
    Body,
    Output,
    SameConv,
    SameMaxPool,
    check_halvings,
    halve,
    keras_initialise,
)
from streamtrain.networks.settings import CNNConfig


class CNN(Body):
    """Per layer: convolution, ReLU, batch normalisation, dropout, a halving (a convolution with
    ReLU, or the maximum); then everything flattened, a dense layer with ReLU and dropout.

    Layer n has filters x 2^(n-1) filters. Padding is Keras' 'same', so 5 pixels become 3; in 3
    dimensions frequencies are halved too, until one is left. As published, but for the scaling of
    input and label that every network here has, biases everywhere, and a last layer that starts at
    zero.

    network: its configuration; input_shape: (n_freq, n_dec, n_ra) of the cubes; num_numbers: of the
    head. Raises ValueError if the poolings do not fit the map.
    """

    def __init__(
        self, network: CNNConfig, input_shape: tuple[int, int, int], num_numbers: int
    ) -> None:
        super().__init__()
        self.dimensions = network.dimensions
        num_freq, *sky = input_shape
        check_halvings(
            (sky[0], sky[1]),
            network.layers,
            f"network.layers = {network.layers}",
            round_up=True,
            remedy="at most {most} layers fit",
        )
        flat = self.dimensions == 2
        sizes: tuple[int, ...] = tuple(sky) if flat else input_shape
        channels = num_freq if flat else 1
        kernel = [network.kernel] * 2
        if not flat:
            kernel = [network.kernel_freq or 3, *kernel]
        layers: list[nn.Module] = []
        for layer in range(network.layers):
            width = network.filters << layer
            window = [min(2, n) for n in sizes]
            layers += [SameConv(channels, width, kernel, [1] * len(kernel)), nn.ReLU()]
            if network.batch_norm:
                layers.append(BatchNorm(width))
            layers.append(nn.Dropout(network.dropout))
            if network.pooling == "max":
                layers.append(SameMaxPool(window, window))
            else:
                layers += [SameConv(width, width, window, window), nn.ReLU()]
            channels, sizes = width, halve(sizes, round_up=True)
        self.layers = nn.Sequential(*layers)
        self.dense = nn.Linear(channels * math.prod(sizes), network.dense)
        keras_initialise(self.dense)
        self.dropout = nn.Dropout(network.dropout)
        self.output = Output(network.dense, num_numbers)

    def forward(self, cube_bfyx: Tensor) -> Tensor:
        """Normalised cubes [B, n_freq, n_dec, n_ra] to the head's numbers [B, num_numbers]."""
        x = cube_bfyx if self.dimensions == 2 else cube_bfyx[:, None]
        x = x.contiguous(memory_format=self.memory_format)
        features = self.dense(self.layers(x).flatten(1))
        numbers: Tensor = self.output(self.dropout(relu(features)))
        return numbers
