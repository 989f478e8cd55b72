"""Peak Patch's merged halo catalogs, `.pksc`.

Layout, little-endian without markers, as its public readers have it (pksc3npz.py of
github.com/PatrickHorlaville/CITA_LIM): number of halos (int32), largest top-hat radius [Mpc] and
redshift (float32), then 10, 11 or 33 float32 per halo: x, y, z [Mpc], vx, vy, vz [km/s], top-hat
radius R [Mpc], Lagrangian x, y, z [Mpc], and further numbers that are not read. The mass is
4/3 pi R^3 times the comoving matter density. Assumed: no h in the units, proper peculiar
velocities, observer at the origin.

References:
    The mass-Peak Patch algorithm (Stein, Alvarez & Bond, 2019), arXiv:1810.07727
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from streamtrain.catalogs.headers import CatalogError
from streamtrain.catalogs.readers.halos import Halos, merged_cosmology, reading
from streamtrain.catalogs.readers.view import FORWARD, View
from streamtrain.cosmology import Cosmology
from streamtrain.machine.files import sha256

COLUMNS = (10, 11, 33)
"""How many numbers a halo can have."""


def read_pksc(
    path: Path, *, cosmology: Mapping[str, float] | None = None, view: View = FORWARD
) -> Halos:
    """The halos of a Peak Patch lightcone (or box), masses from `cosmology`, which the file lacks.

    Raises CatalogError.
    """
    with reading(path, "a Peak Patch catalog", whole=True):
        size = path.stat().st_size
        if size < 12:
            raise CatalogError(f"{size} bytes are no Peak Patch catalog, its header has 12")
        num = int(np.fromfile(path, "<i4", 1)[0])
        largest, redshift = (float(a) for a in np.fromfile(path, "<f4", 2, offset=4))
        if num <= 0:
            fits = [str(n) for n in COLUMNS if size == 12 + 4 * n * -num and num]
            raise CatalogError(
                f"its header says {num} halos"
                + (": no reader of .pksc says what a negative number means" if num else "")
                + (f" (its size is that of {-num} halos of {fits[0]} numbers)" if fits else "")
            )
        layouts = [columns for columns in COLUMNS if size == 12 + 4 * columns * num]
        if not layouts:
            raise CatalogError(
                f"its header says {num} halos, which with 10, 11 or 33 numbers each need "
                f"{', '.join(str(12 + 4 * n * num) for n in COLUMNS)} bytes; it has {size}: "
                "truncated, or something else"
            )
        rows = np.fromfile(path, "<f4", num * layouts[0], offset=12).reshape(num, layouts[0])
        model = Cosmology.from_dict(merged_cosmology({}, cosmology))
        radius = rows[:, 6].astype(np.float64)
        if not (np.isfinite(radius).all() and radius.min() > 0.0):
            raise CatalogError("a top-hat radius is not a positive number")
        if radius.max() > 1.001 * largest:
            raise CatalogError(
                f"a top-hat radius of {radius.max():.4g} Mpc is above the largest of its header, "
                f"{largest:.4g} Mpc"
            )
        position, velocity, turned = view.turned(rows[:, 0:3].copy(), rows[:, 3:6].copy())
        halos = Halos(
            position,
            4.0 / 3.0 * np.pi * radius**3 * model.matter_density,
            velocity,
            cosmology=model.to_dict(),
            notes=[
                f"Peak Patch {path.name} of {layouts[0]} columns, sha256 {sha256(path)}",
                f"redshift {redshift:g} in its header",
                "mass 4/3 pi R_TH^3 times the matter density; read as Mpc and km/s without h"
                f"{'' if view.observer_Mpc is not None else ', observer at the origin'} (assumed)",
                *turned,
            ],
        )
        halos.check()
    return halos
