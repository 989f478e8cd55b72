"""A 2-D convolutional network from map cubes to a label.

Axes: b sample, f frequency (the input's channels), y declination, x right ascension, n output
(luminosity bin or class). What it predicts is a property of the whole field, so every layer's mean
over the sky reaches the dense layer: the first layers' means describe the distribution of voxel
values, the later ones' the clustering.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from streamtrain.config import NetworkConfig

SMALLEST_STD = 1e-6
"""Floor of an input channel's standard deviation; a constant channel stays zero."""


class CNN2d(nn.Module):
    """Convolution, GELU and pooling by two, repeated; sky means of all layers; a dense layer.

    The input is normalised per frequency channel and each output is scaled, with moments that
    `calibrate` sets once and that are saved with the weights. An untrained network predicts the
    mean label.

    network: the section `network` of a configuration
    input_shape: (n_freq, n_dec, n_ra) of the cubes
    num_outputs: numbers of the label
    Raises ValueError if the poolings do not fit the map.
    """

    input_mean: Tensor
    input_std: Tensor
    label_mean: Tensor
    label_std: Tensor

    def __init__(
        self, network: NetworkConfig, input_shape: tuple[int, int, int], num_outputs: int
    ) -> None:
        super().__init__()
        num_freq, num_dec, num_ra = input_shape
        side = min(num_dec, num_ra)
        most = side.bit_length() - 1
        if network.layers > most:
            raise ValueError(
                f"network.layers = {network.layers} halve the map {network.layers} times, but a "
                f"map of {num_dec} x {num_ra} pixels can be halved at most {most} times"
            )
        widths = [
            min(network.filters << layer, network.max_filters) for layer in range(network.layers)
        ]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, network.kernel, padding="same")
            for before, after in zip([num_freq, *widths[:-1]], widths, strict=True)
        )
        self.pool = nn.AvgPool2d(2)
        self.dense = nn.Linear(sum(widths), network.dense)
        self.dropout = nn.Dropout(network.dropout)
        self.output = nn.Linear(network.dense, num_outputs)
        self.register_buffer("input_mean", torch.zeros(num_freq))
        self.register_buffer("input_std", torch.ones(num_freq))
        self.register_buffer("label_mean", torch.zeros(num_outputs))
        self.register_buffer("label_std", torch.ones(num_outputs))
        self._initialise()

    def _initialise(self) -> None:
        """Weights that keep the variance through GELU (He et al. 2015, arXiv:1502.01852), an
        output that starts at the mean label."""
        for layer in [*self.convolutions, self.dense]:
            assert isinstance(layer, nn.Conv2d | nn.Linear)
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    @torch.no_grad()
    def calibrate(
        self, input_mean: Tensor, input_std: Tensor, label_mean: Tensor, label_std: Tensor
    ) -> None:
        """Set the moments of the input [n_freq] and of the label [num_outputs]."""
        self.input_mean.copy_(input_mean)
        self.input_std.copy_(input_std.clamp(min=SMALLEST_STD))
        self.label_mean.copy_(label_mean)
        self.label_std.copy_(label_std)

    def forward(self, cube_bfyx: Tensor) -> Tensor:
        """Cubes float32 [B, n_freq, n_dec, n_ra] to labels float32 [B, num_outputs]."""
        column = (1, -1, 1, 1)
        x = (cube_bfyx - self.input_mean.view(column)) / self.input_std.view(column)
        x = x.contiguous(memory_format=torch.channels_last)
        means = []
        for convolution in self.convolutions:
            x = self.pool(gelu(convolution(x)))
            means.append(x.mean(dim=(2, 3)))
        features = self.dropout(gelu(self.dense(torch.cat(means, dim=1))))
        with torch.autocast(features.device.type, enabled=False):
            # bfloat16 has 8 bits: a label of 4 dex would be rounded to 0.016 dex
            return self.label_mean + self.label_std * self.output(features.float())
