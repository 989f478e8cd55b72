"""One map from one lightcone, without a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
import torch

from streamtrain.catalogs.bank import Bank
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.generator.backend import kernels_for
from streamtrain.generator.bins import LuminosityBins
from streamtrain.generator.geometry import Grid, single_pose
from streamtrain.generator.luminosity import ModelFunction, find_model
from streamtrain.generator.painter import Painter
from streamtrain.generator.sfr_table import sfr_source
from streamtrain.rng import STAGE_PAINT, Draws


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
) -> tuple[torch.Tensor, torch.Tensor]:
    """Paint the halos of a lightcone into an intensity cube.

    model: the name of a published model, or a function of (mass_Msun, z, *, parameters=defaults)
    that returns L [Lsun]; `parameters` replace its defaults. The field lies at `centre_deg`
    (ra, dec), rolled about its centre, then mirrored; where the lightcone does not reach, it is
    empty. Halos must be above `min_mass_Msun`. `sfr` is where star-formation rates come from:
    "auto" (the lightcone's column if it has one, else the fit), "fit", "column", or the path of a
    table (see `sfr_table`).

    Returns the cube, float32 [n_freq, n_dec, n_ra] in `units` (default: the grid's), frequency 0
    the highest, and the halos per bin of log10 L = 3.5..7 (49 bins), int32 [49]. The scatter is a
    function of the seed and of the halo's row. Raises ValueError when no halo is left.
    """
    bins = LuminosityBins()
    found = find_model(model).with_scatter(scatter)
    painter = Painter(
        Bank([lightcone]),
        replace(grid, units=units or grid.units),
        [found],
        bins,
        min_mass_Msun=min_mass_Msun,
        device=device,
        sfr=sfr_source(sfr),
    )
    values = {k: np.array([v], float) for k, v in found.parameters(parameters or {}).items()}
    job = painter.job(
        np.zeros(1, np.int64),
        single_pose(centre_deg, roll_deg, mirror),
        np.zeros(1, np.int64),
        [values],
        draws=Draws(seed, "train", np.zeros(1, np.uint64), STAGE_PAINT),
    )
    total, counts = painter.paint(job, 0, 1)
    if not int(counts[0, : bins.num + 2].sum()):
        raise ValueError(
            f"no halo of {lightcone.name} is left above {min_mass_Msun:.3g} Msun, inside "
            f"{grid.nu_GHz[0]:g}..{grid.nu_GHz[1]:g} GHz and inside the field at {centre_deg} deg"
        )
    if int(counts[0, -1]):
        raise ValueError(
            f"{int(counts[0, -1])} halos are too bright for the cube's fixed-point range"
        )
    cube = torch.empty(total.shape, dtype=torch.float32, device=total.device)
    kernels_for(total.device, "observe.cu").elementwise(
        "from_fixed_point", 1, total[0].numel(), np.float64(painter.unit), total, cube
    )
    return cube[0], counts[0, : bins.num].clone()
