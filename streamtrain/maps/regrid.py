"""A map on another grid: means over the voxels it covers, so that temperatures are conserved."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamtrain.maps.skymap import MapError

Float = NDArray[np.float64]

SLACK = 1e-3
"""How far a voxel may reach beyond the map, in voxels, and how much finer it may be."""
ANOTHER_CENTRE = ": choose another --centre"
"""The end of the sentence on a map that is large enough, but not there."""
LEAST_VALID = 0.5
"""Share of a voxel that must have a value; else the voxel has none."""


def overlap(source: Float, target: Float, what: str) -> Float:
    """Share of every target voxel that lies in each source voxel, [num_target, num_source]; rows
    add up to 1.

    source, target: edges [n + 1], both rising or both falling. Raises MapError with both ranges if
    the source does not cover the target, or with both widths if it is coarser.
    """
    if source[-1] < source[0]:
        source, target = -source, -target
    step, fine = (target[-1] - target[0]) / (len(target) - 1), np.diff(source).max()
    if source[0] > target[0] + SLACK * step or source[-1] < target[-1] - SLACK * step:
        raise MapError(
            f"the map covers {abs(source[0]):.6g} to {abs(source[-1]):.6g} {what}, the network "
            f"needs {abs(target[0]):.6g} to {abs(target[-1]):.6g}"
            if what == "GHz"
            else f"the map covers {source[0]:.4g} to {source[-1]:.4g} {what} from its middle, the "
            f"network needs {target[0]:.4g} to {target[-1]:.4g}"
            + (
                ANOTHER_CENTRE
                if source[-1] - source[0] >= target[-1] - target[0] - SLACK * step
                else ": the map is too small"
            )
        )
    if fine > step * (1.0 + SLACK):
        raise MapError(
            f"the map's voxels are {fine:.4g} {what} wide, the network's {step:.4g}: a map cannot "
            "be made finer"
        )
    inside = np.clip(target, source[0], source[-1])
    low = np.maximum(inside[:-1, None], source[None, :-1])
    high = np.minimum(inside[1:, None], source[None, 1:])
    shares: Float = np.maximum(high - low, 0.0)
    return shares / shares.sum(axis=1, keepdims=True)


def mean_over(cube: NDArray[np.floating], shares: tuple[Float, Float, Float]) -> Float:
    """The mean of a cube [freq, dec, ra] over the voxels of another grid; shares: of each axis, see
    `overlap`. Voxels without a value (NaN) do not count; one that has less than half of its volume
    with values has none."""
    values = np.asarray(cube, np.float64)
    valid = np.isfinite(values)
    if valid.all():
        return _contract(values, shares)
    weight = _contract(valid.astype(np.float64), shares)
    total = _contract(np.where(valid, values, 0.0), shares)
    known = weight >= LEAST_VALID - 1e-12
    return np.where(known, total / np.where(known, weight, 1.0), np.nan)


def sigma_of_mean(sigma: NDArray[np.floating], shares: tuple[Float, Float, Float]) -> Float:
    """Sigma of `mean_over` of a cube whose voxels have independent noise of this sigma; NaN where
    it has no value."""
    given = np.asarray(sigma, np.float64)
    valid = np.isfinite(given)
    weight = _contract(valid.astype(np.float64), shares)
    freq, dec, ra = (share * share for share in shares)
    square = _contract(np.where(valid, given * given, 0.0), (freq, dec, ra))
    known = weight >= LEAST_VALID - 1e-12
    return np.where(known, np.sqrt(square) / np.where(known, weight, 1.0), np.nan)


def _contract(values: Float, shares: tuple[Float, Float, Float]) -> Float:
    freq, dec, ra = shares
    first = np.tensordot(freq, values, axes=(1, 0))
    second = np.einsum("fdr,yd->fyr", first, dec, optimize=True)
    return np.asarray(second @ ra.T)
