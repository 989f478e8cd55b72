"""A small sky and small configurations: samples of it take a millisecond."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.config import Config, from_mapping
from streamtrain.cosmology import Cosmology
from support import reference as ref

HALF_DEG = 0.6
Z_RANGE = (2.3, 3.5)
MASS_RANGE = (2.5e10, 1e13)
NUM_HALOS = 20_000

GRID = {"fov_deg": [0.8, 0.8], "shape": [9, 21, 21]}
"""Its voxels, also when pooled by three, are no multiple of the four that share a random word."""

ASSUMES = pytest.mark.filterwarnings("ignore::streamtrain.schema.AssumptionWarning")
EXTRAPOLATES = pytest.mark.filterwarnings("ignore::streamtrain.schema.ModelRangeWarning")
"""Marks tests that paint outside what a model was published for: they are not about L(M, z)."""


def lightcone(seed: int = 1, num: int = NUM_HALOS, **changes: Any) -> Lightcone:
    """Halos spread evenly over a footprint of 1.2 deg, z = 2.3..3.5, dn/dM ~ M^-1.9."""
    rng = np.random.default_rng(seed)
    z = rng.uniform(*Z_RANGE, num)
    chi = Cosmology().comoving_distance(z)
    ra, dec = rng.uniform(-HALF_DEG, HALF_DEG, (2, num))
    x, y, depth = ref.position(ra, dec, chi)
    ends = np.array(MASS_RANGE) ** -0.9
    mass = (ends[0] + (ends[1] - ends[0]) * rng.uniform(0, 1, num)) ** (-1 / 0.9)
    z_obs = z + (1 + z) * rng.normal(0.0, 200.0, num) / ref.C_KMS
    given: dict[str, Any] = {
        "x_Mpc": x,
        "y_Mpc": y,
        "z_Mpc": depth,
        "mass_Msun": np.clip(mass, *MASS_RANGE),
        "z_obs": z_obs,
        "cosmology": Cosmology().to_dict(),
        "footprint_deg": (-HALF_DEG, HALF_DEG, -HALF_DEG, HALF_DEG),
        "z_range": Z_RANGE,
        "min_mass_Msun": MASS_RANGE[0],
        "realisation": f"small-{seed}",
    }
    return Lightcone.from_arrays(**(given | changes))


def config(**sections: Any) -> Config:
    """A configuration for `lightcone`: 0.8 deg, 9 x 21 x 21 voxels, 34..26 GHz; `sections` as in a
    YAML file."""
    return from_mapping({"seed": 11, "grid": GRID, **sections})
