"""One map from one lightcone, without a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
import torch

from streamtrain.arguments import number, numbers, truth_value
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.sfr import sfr_source
from streamtrain.generator.halos import Bank
from streamtrain.generator.line import check_masses, check_redshifts
from streamtrain.generator.painter import Painter
from streamtrain.generator.pose import Pose, check_covers, single_pose
from streamtrain.grid import Grid
from streamtrain.labels import Counts, LuminosityBins
from streamtrain.luminosity.registry import ModelFunction, find_model
from streamtrain.numerics.backend import kernels_for
from streamtrain.numerics.rng import STAGE_PAINT, Draws


def paint(
    lightcone: Lightcone,
    grid: Grid,
    model: str | ModelFunction,
    parameters: Mapping[str, float] | None = None,
    scatter: bool | Literal["mean", "median"] = True,
    seed: int = 0,
    roll_deg: float = 0.0,
    mirror: bool = False,
    centre_deg: tuple[float, float] = (0.0, 0.0),
    min_mass_Msun: float = 2.5e10,
    units: Literal["uK", "Jy/sr"] | None = None,
    device: torch.device | str = "cpu",
    sfr: str = "auto",
    allow_empty: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Paint the halos of a lightcone into an intensity cube.

    model: the name of a published model, or a function of (mass_Msun, z, *, parameters=defaults)
    that returns L [Lsun]; `parameters` replace its defaults. The field lies at `centre_deg`
    (ra, dec), rolled about its centre, then mirrored. Halos must be above `min_mass_Msun`, down to
    which the lightcone must be complete. `sfr` is where star-formation rates come from: "auto" (the
    lightcone's column if it has one, else the fit), "fit", "fit_in_range" (no star formation beyond
    the fitted table), "column", or the path of a table (see `SFRTable`). allow_empty: also paint a
    field or a band that the lightcone does not reach over; where it does not, the cube is empty.
    Angles and the mass may have units of astropy.

    Returns the cube, float32 [n_freq, n_dec, n_ra] in `units` (default: the grid's), frequency 0
    the highest, and the halos per bin of log10 L = 3.5..7 (49 bins), int32 [49]. The scatter is a
    function of the seed and of the halo's row. Raises ValueError, one sentence, for an argument
    that cannot be used, for a halo whose L is negative or no number, and when no halo is left.
    """
    if not isinstance(lightcone, Lightcone):
        raise ValueError(
            f"paint needs a Lightcone, as of Lightcone.open(path), not a {type(lightcone).__name__}"
        )
    if not isinstance(grid, Grid):
        raise ValueError(f"paint needs a Grid, not a {type(grid).__name__}")
    grid = replace(grid, units=grid.units if units is None else units)
    found = find_model(model).with_scatter(scatter)
    found.check_line(grid.nu_rest_GHz)
    found.check_ratio(grid.nu_rest_GHz, () if parameters is None else parameters)
    chosen = found.parameters({} if parameters is None else parameters)
    chosen = found.parameters({k: number(v, f"the parameter {k}") for k, v in chosen.items()})
    values = {k: np.array([v]) for k, v in chosen.items()}
    pose = single_pose(
        numbers(centre_deg, "centre_deg", "(ra, dec)", "deg"),
        number(roll_deg, "roll_deg", "deg"),
        truth_value(mirror, "mirror"),
    )
    min_mass_Msun = number(min_mass_Msun, "min_mass_Msun", "Msun")
    if min_mass_Msun <= 0.0:
        raise ValueError(f"min_mass_Msun = {min_mass_Msun:g} must be above 0")
    check_masses(lightcone, min_mass_Msun, "min_mass_Msun")
    if not truth_value(allow_empty, "allow_empty"):
        _check_full(lightcone, grid, pose)
    bins = LuminosityBins()
    painter = Painter(
        Bank([lightcone], device),
        grid,
        [found],
        bins,
        min_mass_Msun=min_mass_Msun,
        sfr=sfr_source(sfr),
    )
    arguments = painter.arguments(
        np.zeros(1, np.int64),
        pose,
        np.zeros(1, np.int64),
        [values],
        draws=Draws(seed, "train", np.zeros(1, np.uint64), STAGE_PAINT),
    )
    painter.compiled_models[0].check_luminosities(values, painter.halos.rows_of(arguments.items))
    total, raw = painter.paint(arguments, 0, 1)
    counts = Counts(raw)
    if not int(counts.halos):
        raise ValueError(
            f"no halo of {lightcone.name} is left above {min_mass_Msun:.3g} Msun, inside "
            f"{grid.nu_GHz[0]:g}..{grid.nu_GHz[1]:g} GHz and inside the field at "
            f"{tuple(pose.centre_deg[0].tolist())} deg (its heaviest has "
            f"{lightcone.mass_Msun.max():.6g} Msun; a halo at the limit does not count)"
        )
    if int(counts.saturated):
        raise ValueError(
            f"{int(counts.saturated)} halos are too bright for the cube's fixed-point range "
            "(brightest_Lsun of the grid makes room for more than 1e9 Lsun)"
        )
    cube = torch.empty(total.shape, dtype=torch.float32, device=total.device)
    kernels_for(total.device, "observe.cu").elementwise(
        "from_fixed_point", 1, total[0].numel(), np.float64(painter.unit), total, cube
    )
    if not bool(torch.isfinite(cube).all()):
        raise ValueError(f"voxels are brighter than float32 holds in {grid.units}")
    return cube[0], counts.bins[0].clone()


def _check_full(lightcone: Lightcone, grid: Grid, pose: Pose) -> None:
    """ValueError where the lightcone leaves a part of the cube empty."""
    try:
        check_covers(lightcone.footprint_deg, pose, grid.fov_deg, lightcone.name)
        check_redshifts(lightcone, grid)
    except ValueError as error:
        raise ValueError(f"{error}; allow_empty=True leaves the rest empty") from None
