"""The line map of a lightcone next to those of other lightcones: `streamtrain catalog compare`.

The same field of every lightcone is painted with one luminosity model; mean temperature, standard
deviation and skewness of voxels of 2.5 x 2.5 x 10 Mpc, and the power spectrum with its shot noise
are compared.

The power spectrum is that of `streamtrain.spectra`, in shells of any width. Shot noise stays in:
unclustered sources that add T_i each to one voxel have `P = V / N^2 sum T_i^2`. Where the voxels
average over the signal, P is divided by the square of their window. That is exact for what varies
slowly over a voxel; white noise, whose aliases already fill up what the window takes away, comes
out too high by `1 + (k a)^2 / 12`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from streamtrain.catalogs.headers import CatalogError
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.readers import read
from streamtrain.cosmology import Cosmology
from streamtrain.generator.paint import paint
from streamtrain.generator.pose import single_pose
from streamtrain.grid import Grid
from streamtrain.luminosity.model import ModelFunction
from streamtrain.luminosity.registry import find_model
from streamtrain.machine.progress import Progress
from streamtrain.spectra import Box, Power
from streamtrain.tables import columns

CELL_MPC = 1.25
"""Side of the voxels that P(k) is measured on, about."""
VOXEL = (8, 2, 2)
"""How many of them make a voxel of 2.5 x 2.5 x 10 Mpc (frequency, dec, ra)."""
SHELLS = tuple((k - 0.025, k + 0.025) for k in (0.1, 0.2, 0.3, 0.4))
"""Shells of k in which P(k) is averaged, (low, high) [1/Mpc]."""
MIN_FOV_DEG, MAX_FOV_DEG = 0.2, 2.0
"""Narrower fields have too few modes, wider ones make cubes of many GB."""
NAMES = ("halos", "<T>", "std", "skewness", *(f"P({k:g})" for k in (0.1, 0.2, 0.3, 0.4)))


@dataclass(frozen=True)
class View:
    """What every lightcone is looked at with."""

    fov_deg: float
    """Side of the field."""
    nu_GHz: tuple[float, float] = (34.0, 26.0)
    """Band, from high to low."""
    nu_rest_GHz: float = 115.27
    model: str | ModelFunction = "li16"
    """Name of a luminosity model, `file.py:function`, or a function."""
    min_mass_Msun: float = 2.5e10
    """Halos above this mass shine."""
    seed: int = 0
    """Seed of the scatter of luminosities."""

    def __post_init__(self) -> None:
        if not MIN_FOV_DEG <= self.fov_deg <= MAX_FOV_DEG:
            raise ValueError(
                f"a field of {self.fov_deg:g} deg is outside {MIN_FOV_DEG:g}..{MAX_FOV_DEG:g} deg"
            )


def grid_of(view: View, cosmology: Cosmology) -> tuple[Grid, tuple[float, float, float]]:
    """The grid of about cubic voxels, and the comoving sides [Mpc] of the box it is taken for:
    the band's depth, and the field's width at the middle of it. Shapes are multiples of `VOXEL`."""
    one = Grid((view.fov_deg, view.fov_deg), (1, 1, 1), view.nu_GHz, view.nu_rest_GHz)
    near, far = (float(chi) for chi in cosmology.comoving_distance(one.z_range))
    width = math.radians(view.fov_deg) * 0.5 * (near + far)
    sides = (far - near, width, width)
    depth, height, breadth = (
        step * max(1, round(side / (CELL_MPC * step)))
        for side, step in zip(sides, VOXEL, strict=True)
    )
    shape = (depth, height, breadth)
    grid = Grid((view.fov_deg, view.fov_deg), shape, view.nu_GHz, view.nu_rest_GHz)
    return grid, sides


def _widest_deg(lightcone: Lightcone) -> float:
    """Side of the largest field at the middle of the footprint, whose ra narrow away from dec 0."""
    ra_min, ra_max, dec_min, dec_max = lightcone.footprint_deg
    half, middle = 0.5 * (dec_max - dec_min), 0.5 * abs(dec_min + dec_max)
    narrowing = math.cos(math.radians(middle + half)) if middle > 1e-3 else 1.0
    return min((ra_max - ra_min) * narrowing, dec_max - dec_min)


def measure(lightcone: Lightcone, view: View) -> NDArray[np.float64]:
    """The numbers called `NAMES` of one lightcone: temperatures in uK, powers in uK^2 Mpc^3.

    The field lies at the middle of the footprint. Raises ValueError for a field, band or mass
    limit that the lightcone does not fill.
    """
    ra_min, ra_max, dec_min, dec_max = lightcone.footprint_deg
    if view.fov_deg > _widest_deg(lightcone) + 1e-3:
        raise CatalogError(
            f"{lightcone.name}: a field of {view.fov_deg:g} deg does not fit in its footprint of "
            f"{ra_max - ra_min:.4g} x {dec_max - dec_min:.4g} deg"
        )
    cosmology = Cosmology.from_dict(lightcone.cosmology)
    grid, sides = grid_of(view, cosmology)
    (low, high), (first, last) = grid.z_range, lightcone.z_range
    if low < first - 1e-3 or high > last + 1e-3:
        raise CatalogError(
            f"{lightcone.name}: the band {view.nu_GHz[0]:g}..{view.nu_GHz[1]:g} GHz is "
            f"z = {low:.4g}..{high:.4g}, and the lightcone is filled for {first:.4g}..{last:.4g}"
        )
    if view.min_mass_Msun < 0.999 * lightcone.min_mass_Msun:
        raise CatalogError(
            f"{lightcone.name}: it is complete above {lightcone.min_mass_Msun:.4g} Msun, not above "
            f"{view.min_mass_Msun:.4g}"
        )
    centre = (0.5 * (ra_min + ra_max), 0.5 * (dec_min + dec_max))
    cube = paint(
        lightcone,
        grid,
        view.model,
        seed=view.seed,
        centre_deg=centre,
        min_mass_Msun=view.min_mass_Msun,
    )[0].numpy()
    inside = (lightcone.mass_Msun > view.min_mass_Msun) & (grid.channel(lightcone.z_obs) >= 0)
    rows = [getattr(lightcone, f"{axis}_Mpc")[inside].astype(np.float64) for axis in "xyz"]
    x, y, z = single_pose(centre).matrix[0] @ np.stack(rows)  # in the field's own ra and dec
    half = view.fov_deg / 2.0
    inside_field = np.abs(np.degrees(np.arctan2(-x, z))) <= half
    inside_field &= np.abs(np.degrees(np.arctan2(y, np.hypot(x, z)))) <= half
    number = float(np.count_nonzero(inside_field))
    return np.array([number, *moments(pooled(cube, VOXEL)), *power_spectrum(cube, sides)])


def compare(
    files: Sequence[Path], *, fov_deg: float | None = None, min_mass_Msun: float | None = None,
    **view: Any,
) -> str:  # fmt: skip
    """A table of `measure` for lightcone files of any format, and of the ratio to the first.

    The default field is the largest that fits in all footprints, up to 2 deg, the default mass
    limit the highest of the files. Further arguments are those of `View`. Raises ValueError.
    """
    lightcones = [read(file) for file in files]
    widths = [_widest_deg(lightcone) for lightcone in lightcones]
    if fov_deg is None:
        fov_deg = min(MAX_FOV_DEG, math.floor(min(widths) * 100.0 + 0.1) / 100.0)
    if min_mass_Msun is None:
        # A little less: halos shine above the limit, and the lightest of a simulation are many.
        min_mass_Msun = 0.9999 * max(c.min_mass_Msun for c in lightcones)
    chosen = View(fov_deg=fov_deg, min_mass_Msun=min_mass_Msun, **view)
    name = find_model(chosen.model).name
    progress = Progress()
    rows = []
    for number, lightcone in enumerate(lightcones, 1):
        progress.count("measuring", number - 1, len(lightcones), "lightcones")
        rows.append(measure(lightcone, chosen))
    progress.close()
    head = (
        f"{name}, field of {fov_deg:g} deg, {chosen.nu_GHz[0]:g}..{chosen.nu_GHz[1]:g} GHz, halos "
        f"above {min_mass_Msun:.4g} Msun\nT in uK, voxels of 2.5 x 2.5 x 10 Mpc; P(k) with shot "
        "noise in uK^2 Mpc^3, k in 1/Mpc"
    )
    return "\n".join([head, *table([str(file) for file in files], np.array(rows))])


def table(names: Sequence[str], rows: NDArray[np.float64]) -> list[str]:
    """Lines of text: every row, and if there are several the mean of the others, their scatter,
    and both over the first. `rows` [num_lightcones, num_names]."""
    formats = ("{:.0f}", "{:.4f}", "{:.3f}", "{:.3f}", *["{:.4g}"] * len(SHELLS))
    lines = [
        [label, *(f.format(value) for f, value in zip(formats, row, strict=True))]
        for label, row in zip(names, rows, strict=True)
    ]
    if len(rows) > 1:
        others = rows[1:]
        ratio = others.mean(axis=0) / rows[0]
        mean = [f.format(v) for f, v in zip(formats, others.mean(axis=0), strict=True)]
        if len(rows) > 2:
            lines.append([f"mean of the {len(others)} others", *mean])
        lines.append(["others / first", *(f"{value:.3f}" for value in ratio)])
        if len(rows) > 2:
            scatter = others.std(axis=0, ddof=1) / rows[0]
            lines.append(["scatter / first", *(f"{value:.3f}" for value in scatter)])
    return columns(["", *NAMES], lines)


def moments(cube: NDArray[np.floating]) -> tuple[float, float, float]:
    """Mean, standard deviation and skewness over all voxels: the third central moment over std^3,
    0 where all voxels are equal."""
    values = np.asarray(cube, np.float64)
    centred = values - values.mean()
    variance, third = float(np.mean(centred**2)), float(np.mean(centred**3))
    return float(values.mean()), variance**0.5, third / variance**1.5 if variance > 0.0 else 0.0


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
    shells: Sequence[tuple[float, float]] = SHELLS,
) -> NDArray[np.float64]:
    """P(k) [T^2 Mpc^3] of a cube of comoving sides [Mpc] in shells low <= |k| < high [1/Mpc],
    divided by the window of its voxels [num_shells]. Raises ValueError for a shell without any."""
    cells = tuple(side / n for side, n in zip(sides_Mpc, cube.shape, strict=True))
    power = Power.spherical(Box(cube.shape, cells), shells, deconvolve=True)
    return power(torch.from_numpy(np.asarray(cube, np.float32))[None])[0].double().numpy()
