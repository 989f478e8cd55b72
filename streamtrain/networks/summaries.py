"""A network that sees a map's power spectrum and voxel intensity distribution, not the map.

What a convolutional network adds to these two, the summaries that line-intensity maps are
analysed with (Ihle et al. 2019, arXiv:1808.07487), shows beside it: same samples, same head, same
training. The body computes them on the device: P(k) in shells, or P(k_perp, k_par), of the map
before its transform, and the number of voxels in bins of T. The bins of k are a function of the
grid; those of T, and the moments that normalise the features, come from the samples
of the normalisation. All are saved with the weights.

Axes: b sample, n feature, then frequency, declination, right ascension.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from streamtrain.networks.layers import Body, Output, full_precision, he_initialise
from streamtrain.networks.settings import SummariesConfig
from streamtrain.operators.plan import InputMap
from streamtrain.spectra import Power, quantile_edges, rings, shells, slabs, voxel_counts

SLABS = 8
"""Bins of k_par, unless the configuration says otherwise."""
EDGE_VOXELS = 1 << 14
"""Voxels of a sample that the bins of T are chosen from, evenly spaced among all."""
SMALLEST_STD = 0.01
"""Floor of a feature's standard deviation, which is a natural logarithm."""
EMPTY_SHARE = 1e-3
"""P of a map without anything in it, over the mean of the samples of the normalisation."""


class Summaries(Body):
    """ln P and ln(1 + voxels), normalised; dense layers with GELU.

    Its input is not normalised per channel, which would change the power spectrum. network: its
    configuration; input_map: what the cubes show, of the shape input_shape (n_freq, n_dec, n_ra);
    num_numbers: of the head. Raises ValueError for another shape, or a box without a mode in a bin.
    """

    dimensions = 2
    sees_boxes = True
    convolves = False

    voxel_edges: Tensor
    mean_power: Tensor
    feature_mean: Tensor
    feature_std: Tensor

    def __init__(
        self,
        network: SummariesConfig,
        input_shape: tuple[int, int, int],
        num_numbers: int,
        *,
        input_map: InputMap,
    ) -> None:
        super().__init__()
        if input_map.box.shape != input_shape:
            raise ValueError(
                f"the maps have the shape {input_map.box.shape}, not {input_shape} (freq, dec, ra)"
            )
        self._input_map, self._num_voxel_bins = input_map, network.voxel_bins
        self.power = _power(network, input_map)
        num_power = len(self.power.modes) if self.power is not None else 0
        num_features = num_power + network.voxel_bins
        self.register_buffer("mean_power", torch.ones(num_power))
        self.register_buffer("voxel_edges", torch.zeros(max(network.voxel_bins - 1, 0)))
        self.register_buffer("feature_mean", torch.zeros(num_features))
        self.register_buffer("feature_std", torch.ones(num_features))
        widths = [num_features, *[network.dense] * network.layers]
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))
        for layer in self.layers:
            he_initialise(layer)
        self.dropout = nn.Dropout(network.dropout)
        self.output = Output(network.dense, num_numbers)

    @torch.no_grad()
    def set_edges(self, cubes: Tensor) -> None:
        """Choose the bins of T from some inputs [B, n_freq, n_dec, n_ra], and what P is compared
        with."""
        cubes = self._input_map.restore(cubes)
        if self._num_voxel_bins:
            stride = -(-cubes[0].numel() // EDGE_VOXELS)
            voxels = cubes.flatten(1)[:, ::stride].cpu().numpy()
            edges = quantile_edges(voxels, self._num_voxel_bins)
            self.voxel_edges.copy_(torch.from_numpy(edges))
        if self.power is not None:
            self.mean_power.copy_(self.power(cubes).double().mean(0))

    @torch.no_grad()
    def set_moments(self, features: Tensor) -> None:
        """Normalise features by those of some samples [B, num_features]."""
        self.feature_mean.copy_(features.double().mean(0))
        std = features.double().std(0, correction=0)
        self.feature_std.copy_(std.clamp(min=SMALLEST_STD))

    def features(self, cube_bfyx: Tensor) -> Tensor:
        """Summaries of inputs, not yet normalised, float32 [B, num_features]."""
        parts = []
        with full_precision(cube_bfyx):
            cube = self._input_map.restore(cube_bfyx.float())
            if self.power is not None:
                parts.append((self.power(cube) / self.mean_power + EMPTY_SHARE).log())
            if self._num_voxel_bins:
                parts.append(voxel_counts(cube, self.voxel_edges).float().log1p())
            return torch.cat(parts, dim=1)

    def forward(self, cube_bfyx: Tensor) -> Tensor:
        """Inputs [B, n_freq, n_dec, n_ra] to the head's numbers [B, num_numbers]."""
        x = (self.features(cube_bfyx) - self.feature_mean) / self.feature_std
        for layer in self.layers:
            x = gelu(layer(x))
        numbers: Tensor = self.output(self.dropout(x))
        return numbers


def _power(network: SummariesConfig, input_map: InputMap) -> Power | None:
    box = input_map.box
    if network.power == "spherical":
        return Power.spherical(box, shells(box, network.power_bins))
    if network.power == "cylindrical":
        across, along = rings(box, network.power_bins), slabs(box, network.slabs or SLABS)
        return Power.cylindrical(box, across, along)
    return None
