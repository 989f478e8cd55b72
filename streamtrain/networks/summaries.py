"""Networks on a map's power spectrum and voxel intensity distribution.

`summaries` sees these two, which line-intensity maps are analysed with (Ihle et al. 2019,
arXiv:1808.07487), and not the map: what a network finds beyond them shows beside it, with the same
samples, head and training. `hybrid`, the default, adds what they lack: its channels are weighted by
the inverse of their covariance, which removes continuum sources; there are distributions at several
scales; and sky means of convolutions, which are trained, stand beside the summaries.

All is computed on the device, of the map before its transform. The bins of k are a function of the
grid; those of T, the covariance, and the moments that normalise the features come from the samples
of the normalisation, and are saved with the weights.

Axes: b sample, n feature, then frequency, declination, right ascension.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, gelu

from streamtrain.networks.layers import (
    Body,
    Inputs,
    Output,
    check_halvings,
    full_precision,
    he_initialise,
)
from streamtrain.networks.settings import HybridConfig, SummariesConfig
from streamtrain.operators.plan import InputMap
from streamtrain.spectra import (
    Power,
    edge_voxels,
    quantile_edges,
    rings,
    shells,
    slabs,
    voxel_counts,
)

SLABS = 8
"""Bins of k_par, unless the configuration says otherwise."""
NUM_EDGE_SAMPLES = 32
"""How many samples of the normalisation choose the bins of T."""
SMALLEST_STD = 0.01
"""Floor of a feature's standard deviation, which is a natural logarithm."""
EMPTY_SHARE = 1e-3
"""P of a map without anything in it, over the mean of the samples of the normalisation."""
FEWEST_VOXEL_BINS = 8
"""Bins of the voxel intensity distribution of the coarsest map, unless fewer are asked for."""
SMALLEST_EIGENVALUE = 1e-6
"""Smallest eigenvalue of the channels' covariance over the median one. A mode with a smaller one
was removed from the maps by a filter, and stays out."""
NO_EIGENVALUE = 1e-12
"""Smallest eigenvalue of a covariance over the largest one; below it is the rounding of zero. A sky
of n pixels has fewer than n modes, however many its channels, and a flagged channel has none."""
LEAST_IN_COMMON = 0.1
"""Share of a channel's variance that the others have to explain, or channels stay by themselves:
the scatter of the covariance would spill bright voxels into the other channels."""


class _OnSummaries(Body):
    """ln P and ln(1 + voxels) of maps joined by 1, 2, 4 pixels, normalised; dense layers with GELU.

    Its input is not normalised per channel, which would change the power spectrum. voxel_bins: of
    the voxel intensity distribution, for each scale, of the map itself first; others: further
    features; dense: widths of the dense layers.
    """

    dimensions = 2
    sees_boxes = True

    voxel_edges: Tensor
    mean_power: Tensor
    feature_mean: Tensor
    feature_std: Tensor

    def __init__(
        self,
        input_map: InputMap,
        power: Power | None,
        voxel_bins: Sequence[int],
        others: int,
        dense: Sequence[int],
        dropout: float,
        num_numbers: int,
    ) -> None:
        super().__init__()
        self._input_map, self._voxel_bins, self.power = input_map, list(voxel_bins), power
        num_power = len(power.modes) if power is not None else 0
        num_features = num_power + sum(voxel_bins) + others
        self.register_buffer("mean_power", torch.ones(num_power))
        self.register_buffer("voxel_edges", torch.zeros(sum(bins - 1 for bins in voxel_bins)))
        self.register_buffer("feature_mean", torch.zeros(num_features))
        self.register_buffer("feature_std", torch.ones(num_features))
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise([num_features, *dense]))
        for layer in self.layers:
            he_initialise(layer)
        self.dropout = nn.Dropout(dropout)
        self.output = Output(dense[-1], num_numbers)

    def set_normalisation(self, inputs: Inputs) -> None:
        self.set_edges(_first(inputs(), NUM_EDGE_SAMPLES))
        with torch.no_grad():
            self.set_moments(torch.cat([self.features(cubes) for cubes in inputs()]))

    @torch.no_grad()
    def set_edges(self, cubes: Tensor) -> None:
        """Choose the bins of T from some inputs [B, n_freq, n_dec, n_ra], and what P is compared
        with."""
        cubes = self.restore(cubes)
        edges = []
        for scale, bins in enumerate(self._voxel_bins):
            joined = _joined(cubes, scale)
            edges.append(quantile_edges(edge_voxels(joined), bins))
        if edges:
            self.voxel_edges.copy_(torch.cat([torch.from_numpy(some) for some in edges]))
        if self.power is not None:
            mean = self.power(cubes).double().mean(0)
            self.mean_power.copy_(mean.clamp(min=torch.finfo(torch.float32).tiny))

    @torch.no_grad()
    def set_moments(self, features: Tensor) -> None:
        """Normalise features from now on by the moments of these samples [B, num_features]."""
        self.feature_mean.copy_(features.double().mean(0))
        std = features.double().std(0, correction=0)
        self.feature_std.copy_(std.clamp(min=SMALLEST_STD))

    def restore(self, cube_bfyx: Tensor) -> Tensor:
        """The maps [B, n_freq, n_dec, n_ra] that the summaries are of, from inputs."""
        return self._input_map.restore(cube_bfyx)

    def features(self, cube_bfyx: Tensor) -> Tensor:
        """Features of inputs, not yet normalised, float32 [B, num_features]."""
        with full_precision(cube_bfyx):
            return self._summaries(self.restore(cube_bfyx))

    def _summaries(self, cube: Tensor) -> Tensor:
        parts = []
        if self.power is not None:
            parts.append((self.power(cube) / self.mean_power + EMPTY_SHARE).log())
        edges = self.voxel_edges.split([bins - 1 for bins in self._voxel_bins])
        for scale, some in enumerate(edges):
            parts.append(voxel_counts(_joined(cube, scale), some).float().log1p())
        return torch.cat(parts, dim=1)

    def forward(self, cube_bfyx: Tensor) -> Tensor:
        """Inputs [B, n_freq, n_dec, n_ra] to the head's numbers [B, num_numbers]."""
        x = (self.features(cube_bfyx) - self.feature_mean) / self.feature_std
        for layer in self.layers:
            x = gelu(layer(x))
        numbers: Tensor = self.output(self.dropout(x))
        return numbers


class Summaries(_OnSummaries):
    """The power spectrum and the voxel intensity distribution of the map as it is.

    network: its configuration; input_map: what the cubes show, of the shape input_shape (n_freq,
    n_dec, n_ra); num_numbers: of the head. Raises ValueError for another shape, or a box without a
    mode in a bin.
    """

    convolves = False

    def __init__(
        self,
        network: SummariesConfig,
        input_shape: tuple[int, int, int],
        num_numbers: int,
        *,
        input_map: InputMap,
    ) -> None:
        _check_shape(input_shape, input_map)
        super().__init__(
            input_map,
            _power(network, input_map),
            [network.voxel_bins] if network.voxel_bins else [],
            0,
            [network.dense] * network.layers,
            network.dropout,
            num_numbers,
        )


class Hybrid(_OnSummaries):
    """Summaries and trained convolutions of a map whose channels are weighted.

    Every channel is C^-1 times all channels, in units of its scatter, where C is the covariance of
    the channels over the sky: what varies alike in all of them, as continuum sources do, has the
    smallest weight. (The weights of quadratic estimators, here of frequencies: Liu and Tegmark
    2011, arXiv:1103.0281.) Channels that have little in common are left as they are, in units of
    their common scatter. The summaries are P(k_perp, k_par) and the voxel intensity distributions
    of the weighted map, joined by 1, 2, 4 pixels. The log modulus of each channel is also
    convolved: pooling by two, convolution and GELU, repeated, and the means over sky and channels
    of all layers stand beside the summaries. The convolutions are the same for all channels, which
    are maps of one sky's statistics.

    network, input_shape, num_numbers, input_map: as of `Summaries`. Raises ValueError as that, and
    if the poolings do not fit the map.
    """

    weights: Tensor
    """From channels to weighted ones [n_freq, n_freq]."""
    offset: Tensor
    """What is subtracted from weighted channels [n_freq]: their mean, where they are weighted."""

    def __init__(
        self,
        network: HybridConfig,
        input_shape: tuple[int, int, int],
        num_numbers: int,
        *,
        input_map: InputMap,
    ) -> None:
        _check_shape(input_shape, input_map)
        for poolings, what in ((network.layers, "layers"), (network.scales - 1, "scales")):
            check_halvings(
                input_shape[1:],
                poolings,
                f"network.{what} = {getattr(network, what)}",
                round_up=False,
                remedy="at most {most} layers and one more scales fit",
            )
        box = input_map.box
        widths = [network.filters << layer for layer in range(network.layers)]
        super().__init__(
            input_map,
            Power.cylindrical(box, rings(box, network.power_bins), slabs(box, network.slabs)),
            [_voxel_bins(network.voxel_bins, scale) for scale in range(network.scales)],
            sum(widths),
            [network.dense] * network.dense_layers,
            network.dropout,
            num_numbers,
        )
        self.register_buffer("weights", torch.eye(input_shape[0]))
        self.register_buffer("offset", torch.zeros(input_shape[0]))
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, network.kernel, padding="same")
            for before, after in pairwise([1, *widths])
        )
        for convolution in self.convolutions:
            he_initialise(convolution)

    def set_normalisation(self, inputs: Inputs) -> None:
        self.set_weights(inputs())
        super().set_normalisation(inputs)

    @torch.no_grad()
    def set_weights(self, inputs: Iterable[Tensor]) -> None:
        """Weight channels from now on by their covariance in these samples, [B, n_freq, n_dec,
        n_ra] each. Every sample counts in units of its own median eigenvalue, so that a bright one
        does not decide."""
        means, scales, scaled = [], [], []
        for cubes in inputs:
            cube = super().restore(cubes).double().flatten(2)
            means.append(cube.mean(2))
            contrast = cube - means[-1][:, :, None]
            covariance = contrast @ contrast.mT / cube.shape[2]
            scale = _median_eigenvalue(torch.linalg.eigvalsh(covariance))
            seen = scale > 0  # not of blank maps
            scales.append(scale[seen])
            scaled.append(covariance[seen] / scale[seen, None, None])
        scale = torch.cat(scales)
        if not len(scale):
            return  # maps without anything in them
        covariance = torch.cat(scaled).mean(0)
        values, vectors = torch.linalg.eigh(covariance)
        there = values > SMALLEST_EIGENVALUE * _median_eigenvalue(values)
        inverse = vectors[:, there] / values[there] @ vectors[:, there].mT
        flagged = torch.diag(covariance) <= NO_EIGENVALUE * torch.diag(covariance).max()
        inverse[flagged] = inverse[:, flagged] = 0.0  # but for rounding it is
        alone = 1.0 / (torch.diag(inverse) * torch.diag(covariance))
        if alone[~flagged].median() > 1.0 - LEAST_IN_COMMON:
            self.weights.copy_(torch.eye(len(values)) / scale.median().sqrt())
            self.offset.zero_()
            return
        scatter = torch.sqrt(torch.diag(inverse) * scale.median())  # C^-1 C C^-1 is C^-1
        weights = inverse / scatter.clamp(min=torch.finfo(torch.float32).tiny)[:, None]
        self.weights.copy_(weights)
        self.offset.copy_(weights @ torch.cat(means).mean(0))

    def restore(self, cube_bfyx: Tensor) -> Tensor:
        cube = super().restore(cube_bfyx)
        weighted = self.weights @ cube.flatten(2) - self.offset[:, None]
        return weighted.view(cube.shape)

    def features(self, cube_bfyx: Tensor) -> Tensor:
        with full_precision(cube_bfyx):
            cube = self.restore(cube_bfyx)
            summaries = self._summaries(cube)
            x = _joined(cube, 1)
            x = x.sign() * x.abs().log1p()
        x = x.view(-1, 1, *x.shape[2:]).contiguous(memory_format=self.memory_format)
        means = []
        for layer, convolution in enumerate(self.convolutions):
            x = gelu(convolution(avg_pool2d(x, 2) if layer else x))
            total = x.to(cube.dtype).sum((2, 3)).view(*cube.shape[:2], -1).sum(1)
            means.append(total / (cube.shape[1] * x.shape[2] * x.shape[3]))
        return torch.cat([summaries, *means], dim=1)


def _check_shape(input_shape: tuple[int, int, int], input_map: InputMap) -> None:
    if input_map.box.shape != input_shape:
        raise ValueError(
            f"the maps have the shape {input_map.box.shape}, not {input_shape} (freq, dec, ra)"
        )


def _first(batches: Iterable[Tensor], number: int) -> Tensor:
    """The first so many inputs, or all where there are fewer; no batch beyond them is made."""
    found: list[Tensor] = []
    for cubes in batches:
        found.append(cubes)
        if sum(map(len, found)) >= number:
            break
    return torch.cat(found)[:number]


def _median_eigenvalue(values: Tensor) -> Tensor:
    """Of eigenvalues [..., n], among those that are not rounding [...]; nan where all are zero."""
    largest = values.amax(-1, keepdim=True)
    return values.where(values > NO_EIGENVALUE * largest, torch.nan).nanmedian(-1).values


def _joined(cube: Tensor, scale: int) -> Tensor:
    """A map of half the pixels, `scale` times."""
    return avg_pool2d(cube, 1 << scale) if scale else cube


def _voxel_bins(bins: int, scale: int) -> int:
    return max(bins >> scale, min(bins, FEWEST_VOXEL_BINS))


def _power(network: SummariesConfig, input_map: InputMap) -> Power | None:
    box = input_map.box
    if network.power == "spherical":
        return Power.spherical(box, shells(box, network.power_bins))
    if network.power == "cylindrical":
        across, along = rings(box, network.power_bins), slabs(box, network.slabs or SLABS)
        return Power.cylindrical(box, across, along)
    return None
