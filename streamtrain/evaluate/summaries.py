"""Summary statistics of an intensity cube: moments of its voxels and its power spectrum.

The power spectrum is that of `streamtrain.spectra`, in shells of any width. Shot noise stays in:
unclustered sources that add T_i each to one voxel have `P = V / N^2 sum T_i^2`. Where the voxels
average over the signal, P is divided by the square of their window. That is exact for what varies
slowly over a voxel; white noise, whose aliases already fill up what the window takes away, comes
out too high by `1 + (k a)^2 / 12`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from streamtrain import spectra
from streamtrain.spectra import Box

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Of the voxels of a cube."""

    mean: float
    std: float
    skewness: float
    """Third central moment over std^3; 0 where all voxels are equal."""


@dataclass(frozen=True)
class Power:
    """P(k) in shells; arrays [num_shells]."""

    k: Float
    """Mean wavenumber of the modes [1/Mpc]."""
    power: Float
    """[T^2 Mpc^3]."""
    modes: NDArray[np.int64]
    """Number of modes, a wave and its conjugate counting as two."""


def moments(cube: NDArray[np.floating]) -> Moments:
    """Mean, standard deviation and skewness over all voxels."""
    values = np.asarray(cube, np.float64)
    mean = float(values.mean())
    centred = values - mean
    variance = float(np.mean(centred**2))
    third = float(np.mean(centred**3))
    return Moments(mean, variance**0.5, third / variance**1.5 if variance > 0.0 else 0.0)


def pooled(cube: NDArray[np.floating], factor: tuple[int, int, int]) -> NDArray[np.floating]:
    """Means over blocks of voxels; what is left over at the upper ends is cut off."""
    sizes = [length // step for length, step in zip(cube.shape, factor, strict=True)]
    if min(sizes) < 1:
        raise ValueError(f"blocks of {factor} voxels do not fit in a cube of {cube.shape}")
    kept = cube[tuple(slice(n * step) for n, step in zip(sizes, factor, strict=True))]
    (f, d, r), (nf, nd, nr) = factor, sizes
    return kept.reshape(nf, f, nd, d, nr, r).mean(axis=(1, 3, 5))


def power_spectrum(
    cube: NDArray[np.floating],
    sides_Mpc: Sequence[float],
    shells: Sequence[tuple[float, float]],
    *,
    deconvolve: bool = True,
) -> Power:
    """P(k) of a cube in shells low <= |k| < high [1/Mpc].

    Args:
        cube: three axes of any length.
        sides_Mpc: comoving side of the box along each axis.
        deconvolve: whether to divide by the window of the voxels.

    Raises ValueError for a shell without a mode or beyond the Nyquist wavenumber of an axis.
    """
    sides = [float(side) for side in sides_Mpc]
    cells = [side / n for side, n in zip(sides, cube.shape, strict=True)]
    nyquist = np.pi / max(cells)
    for low, high in shells:
        if not 0.0 <= low < high <= nyquist:
            raise ValueError(
                f"the shell k = {low:g}..{high:g} /Mpc must be increasing and below the Nyquist "
                f"wavenumber {nyquist:.3g} /Mpc of voxels of {max(cells):.3g} Mpc"
            )
    box = Box((cube.shape[0], cube.shape[1], cube.shape[2]), (cells[0], cells[1], cells[2]))
    spectrum = spectra.Power.spherical(box, shells, deconvolve=deconvolve)
    power = spectrum(torch.from_numpy(np.asarray(cube, np.float32))[None])[0]
    return Power(spectrum.k, power.double().numpy(), spectrum.modes)
