"""The data vector: power spectrum and voxel intensity distribution of a map, in one array."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from streamtrain.generator.inputmap import InputMap
from streamtrain.spectra import Power, shells
from streamtrain.voxels import voxel_counts

Float = NDArray[np.float64]

POWER_BINS = 16
VOXEL_BINS = 24
ANSCOMBE = 0.375
SMALLEST_POWER = 1e-300


class DataVector:
    """ln P(k) in shells, then sqrt(n + 3/8) of the n voxels in each bin of T, of maps before their
    transform.

    Both are functions of the summaries whose scatter hardly depends on their mean: that of ln P is
    sqrt(2 / modes) for a Gaussian field, that of the square root 1/2 for independent voxels
    (Anscombe 1948). So a covariance from one set of parameters serves for others, and a Gaussian
    likelihood is closer to the truth than for P and n.

    voxel_edges: of T [map units] [num_edges]
    """

    def __init__(
        self, input_map: InputMap, voxel_edges: Float, *, power_bins: int = POWER_BINS
    ) -> None:
        self._input_map = input_map
        box = input_map.box
        self.power = Power.spherical(box, shells(box, power_bins))
        self.voxel_edges = voxel_edges

    @property
    def num_power(self) -> int:
        """How many of the numbers are those of P(k); they are the first."""
        return len(self.power.modes)

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return self.num_power + len(self.voxel_edges) + 1

    @torch.no_grad()
    def __call__(self, cubes: torch.Tensor) -> Float:
        """Of network inputs [B, n_freq, n_dec, n_ra]: [B, size]; in float64, on their device."""
        maps = self._input_map.restore(cubes.double())
        power = self.power.to(maps.device)(maps).clamp(min=SMALLEST_POWER).log()
        edges = torch.from_numpy(self.voxel_edges).to(maps.device)
        voxels = (voxel_counts(maps, edges) + ANSCOMBE).sqrt()
        return torch.cat([power, voxels], dim=1).cpu().numpy()

    def voxels(self, vectors: Float) -> Float:
        """The numbers of voxels behind vectors [..., size]: [..., num_edges + 1]."""
        return np.asarray(vectors[..., self.num_power :] ** 2 - ANSCOMBE)
