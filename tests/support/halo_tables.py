"""Sixty halos, their table in plain units, and whether they have arrived in a lightcone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.cosmology import Cosmology
from support import reference as ref

COSMOLOGY = Cosmology().to_dict()
H = COSMOLOGY["h"]


def halos(num: int = 60) -> dict[str, Any]:
    """Columns in plain units, by the names of a map's quantities."""
    rng = np.random.default_rng(4)
    z_cos = rng.uniform(2.5, 3.2, num)
    chi = Cosmology().comoving_distance(z_cos)
    ra, dec = rng.uniform(-0.4, 0.4, (2, num))
    x, y, z = ref.position(ra, dec, chi)
    velocity = rng.normal(0, 300, (3, num))
    v_los = (x * velocity[0] + y * velocity[1] + z * velocity[2]) / chi
    return {
        "x": x, "y": y, "z": z, "ra": ra, "dec": dec, "z_cos": z_cos, "v_los": v_los,
        **dict(zip(("vx", "vy", "vz"), velocity, strict=True)),
        "z_obs": z_cos + (1 + z_cos) * v_los / ref.C_KMS, "mass": 10 ** rng.uniform(11, 13, num),
    }  # fmt: skip


UNITS = {"mass": "Msun", "ra": "deg", "dec": "deg"} | dict.fromkeys("xyz", "Mpc")
UNITS |= dict.fromkeys(("vx", "vy", "vz", "v_los"), "km/s")


def column_map(names: str, **changes: Any) -> dict[str, Any]:
    entries = {
        name: {"column": name.upper()} | ({"unit": UNITS[name]} if name in UNITS else {})
        for name in names.split()
    }
    return entries | {"cosmology": COSMOLOGY} | changes


def write_csv(path: Path, columns: dict[str, Any]) -> Path:
    lines = [",".join(name.upper() for name in columns)]
    lines += [",".join(repr(float(a)) for a in row) for row in zip(*columns.values(), strict=True)]
    path.write_text("# made by a test\n" + "\n".join(lines) + "\n")
    return path


def check(lightcone: Lightcone, accuracy: float = 2e-7) -> None:
    """The halos of `halos()` have arrived."""
    true = halos()
    order, expected = np.argsort(lightcone.mass_Msun), np.argsort(true["mass"])
    for ours, theirs in (("x_Mpc", "x"), ("y_Mpc", "y"), ("z_Mpc", "z"), ("z_obs", "z_obs")):
        there = true[theirs][expected]
        np.testing.assert_allclose(
            getattr(lightcone, ours)[order], there, rtol=accuracy, atol=accuracy * 6000
        )
    np.testing.assert_allclose(lightcone.mass_Msun[order], true["mass"][expected], rtol=accuracy)
