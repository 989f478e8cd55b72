"""Summary statistics of an intensity cube: moments of its voxels and its power spectrum.

Conventions of the power spectrum: the cube is a box of comoving sides, seen from far away; with
V its volume and N its number of voxels, `P(k) = V / N^2 |FFT(T - <T>)|^2`, averaged over the modes
of a shell in |k|, kx = 2 pi n / side [1/Mpc] without h. Its unit is that of T squared times Mpc^3,
and shot noise stays in: unclustered sources that add T_i each to one voxel have
`P = V / N^2 sum T_i^2`. Where the voxels average over the signal, P is divided by the square of
their window, prod sinc^2(k_i a_i / 2). That is exact for what varies slowly over a voxel; white
noise, whose aliases already fill up what the window takes away, comes out too high by
`1 + (k a)^2 / 12`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import rfftn

from streamtrain.cores import num_cores

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
    top = max(high for _, high in shells)
    axes, kept = [], []
    for axis, (n, side) in enumerate(zip(cube.shape, sides, strict=True)):
        waves = np.fft.rfftfreq(n) if axis == 2 else np.fft.fftfreq(n)
        k = 2.0 * np.pi * n / side * waves
        kept.append(np.flatnonzero(np.abs(k) < top))
        axes.append(k[kept[-1]])
    contrast = np.asarray(cube, np.float32) - np.float32(np.mean(cube, dtype=np.float64))
    spectrum = rfftn(contrast, workers=num_cores(), overwrite_x=True)[np.ix_(*kept)]
    volume, voxels = float(np.prod(sides)), float(np.prod(cube.shape))
    power = (spectrum.real.astype(np.float64) ** 2 + spectrum.imag.astype(np.float64) ** 2) * (
        volume / voxels**2
    )
    k0, k1, k2 = np.meshgrid(*axes, indexing="ij", sparse=True)
    length = np.sqrt(k0**2 + k1**2 + k2**2)
    # The half space of rfftn: what is not in the planes of its ends stands for its conjugate too.
    ends = (k2 == 0.0) | (np.abs(k2) >= 0.99999 * np.pi / cells[2])
    copies = np.broadcast_to(np.where(ends, 1, 2), length.shape)
    if deconvolve:
        for k, cell in zip((k0, k1, k2), cells, strict=True):
            power /= np.sinc(k * cell / (2.0 * np.pi)) ** 2
    rows = []
    for low, high in shells:
        inside = (length >= low) & (length < high) & (length > 0.0)
        weight = copies[inside]
        if not weight.size:
            raise ValueError(
                f"no mode of a box of {sides[0]:.4g} x {sides[1]:.4g} x {sides[2]:.4g} Mpc lies in "
                f"the shell k = {low:g}..{high:g} /Mpc"
            )
        number = int(weight.sum())
        rows.append(
            (
                float(weight @ length[inside]) / number,
                float(weight @ power[inside]) / number,
                number,
            )
        )
    k_mean, values, numbers = zip(*rows, strict=True)
    return Power(np.array(k_mean), np.array(values), np.array(numbers, np.int64))
