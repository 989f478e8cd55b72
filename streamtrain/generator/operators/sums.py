"""Sums over voxels in a fixed order: rows of ra, then slices, then the cube, in float64."""

from __future__ import annotations

import numpy as np
import torch

from streamtrain.generator.backend import Kernels


def slice_sums(kernels: Kernels, cube: torch.Tensor, skip_zeros: bool) -> torch.Tensor:
    """(sum, number) of the voxels of every frequency slice, float64 [B, n_freq, 2]; with skip_zeros
    of those that are not zero."""
    samples, num_freq, num_dec, num_ra = cube.shape
    rows = _pairs(cube, samples, num_freq, num_dec)
    skip = np.int32(skip_zeros)
    kernels.elementwise("row_sums", samples, num_freq * num_dec, np.int32(num_ra), skip, cube, rows)
    return _joined(kernels, rows)


def cube_sums(kernels: Kernels, cube: torch.Tensor) -> torch.Tensor:
    """(sum, number) of the voxels of every cube, float64 [B, 2]."""
    return _joined(kernels, slice_sums(kernels, cube, False))


def cube_squares(kernels: Kernels, cube: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    """(sum, number) of (T - mean)^2 of every cube, float64 [B, 2]; total: its `cube_sums`."""
    samples, num_freq, num_dec, num_ra = cube.shape
    rows = _pairs(cube, samples, num_freq, num_dec)
    kernels.elementwise(
        "row_squares", samples, num_freq * num_dec, np.int32(num_ra), total, cube, rows
    )
    return _joined(kernels, _joined(kernels, rows))


def _pairs(like: torch.Tensor, *shape: int) -> torch.Tensor:
    return torch.empty((*shape, 2), dtype=torch.float64, device=like.device)


def _joined(kernels: Kernels, parts: torch.Tensor) -> torch.Tensor:
    """Pairs summed over the last axis but one: [B, ..., n, 2] -> [B, ..., 2]."""
    sums = _pairs(parts, *parts.shape[:-2])
    samples = len(parts)
    groups = sums[0].numel() // 2
    kernels.elementwise("group_sums", samples, groups, np.int32(parts.shape[-2]), parts, sums)
    return sums
