"""The voxel intensity distribution (VID): how many voxels of a cube lie in each range of T.

Introduced to line-intensity mapping by Breysse et al. 2017, arXiv:1609.01728.
"""

from __future__ import annotations

from math import erf, sqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

TAIL_SIGMA = 3.0
"""`quantile_edges` reach as far into the tails as this many sigma of a normal distribution."""


def voxel_counts(cube: Tensor, edges: Tensor) -> Tensor:
    """Voxels of cubes [B, ...] in the bins between `edges`, int64 [B, len(edges) + 1].

    edges: increasing [num_edges], of the cube's kind and device. A bin holds its lower edge. The
    first and the last bin are open, so the counts of a cube add up to its number of voxels.
    """
    values = cube.flatten(1).sort(dim=1).values
    rows = edges.to(values.dtype).expand(len(values), -1).contiguous()
    below = torch.searchsorted(values, rows)
    ends = (torch.zeros_like(below[:, :1]), torch.full_like(below[:, :1], values.shape[1]))
    return torch.cat([ends[0], below, ends[1]], dim=1).diff(dim=1)


def quantile_edges(values: NDArray[np.floating], num_bins: int) -> NDArray[np.float64]:
    """Edges of `num_bins` bins of T [num_bins - 1], from voxels of many maps.

    They are the quantiles that would be equally spaced if T were normal: white noise has bins of
    equal width, and the bright tail of sources as many of them as the faint one. The outermost two
    leave 0.13 % of the voxels each beyond them.
    """
    if num_bins < 2:
        raise ValueError(f"num_bins = {num_bins}: a distribution needs at least 2 bins")
    steps = np.linspace(-TAIL_SIGMA, TAIL_SIGMA, num_bins - 1) if num_bins > 2 else np.zeros(1)
    chances = [0.5 * (1.0 + erf(step / sqrt(2.0))) for step in steps]
    return np.quantile(np.asarray(values, np.float64).ravel(), chances)
