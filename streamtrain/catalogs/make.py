"""Make and import lightcone files: `streamtrain catalog make` and `catalog import`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from streamtrain.catalogs.bank import realisation_of
from streamtrain.catalogs.lightcone import CatalogError, Lightcone
from streamtrain.catalogs.readers import read
from streamtrain.catalogs.synthesize import synthesize
from streamtrain.progress import Progress


def make_lightcones(
    number: int,
    folder: Path,
    *,
    prefix: str = "sky",
    first_seed: int = 0,
    footprint_deg: float = 2.0,
    z_range: tuple[float, float] = (2.38, 3.45),
    min_mass_Msun: float = 2.5e10,
    mass_function: str = "tinker08",
    velocities: bool = True,
) -> int:
    """Synthesise lightcones of `number` consecutive seeds into PREFIX_SEED.h5.

    A complete file that is there already is kept, so that an interrupted call can be repeated.
    Raises ValueError for options out of range, CatalogError for a file that is something else.
    """
    if number < 1:
        raise ValueError(f"the number of lightcones, {number}, must be at least 1")
    folder.mkdir(parents=True, exist_ok=True)
    progress = Progress()
    for seed in range(first_seed, first_seed + number):
        path = folder / f"{prefix}_{seed:04d}.h5"
        done = f"lightcone {seed - first_seed + 1}/{number}"
        if path.exists():
            progress.note(f"{done}: {path} is there ({realisation_of(path)})")
            continue
        start = time.perf_counter()
        lightcone = synthesize(
            seed,
            footprint_deg=(footprint_deg, footprint_deg),
            z_range=z_range,
            min_mass_Msun=min_mass_Msun,
            mass_function=mass_function,
            progress=lambda share, what, done=done: progress.update(  # type: ignore[misc]
                f"{done}: {100 * share:3.0f} % {what}"
            ),
        )
        if not velocities:
            lightcone = without_velocities(lightcone)
        lightcone.save(path)
        seconds = time.perf_counter() - start
        progress.note(f"{done}: {path}, {len(lightcone)} halos, {seconds:.1f} s")
    return 0


def without_velocities(lightcone: Lightcone) -> Lightcone:
    """The same halos without velocities, which painting does not need (z_obs contains them)."""
    c = lightcone
    return Lightcone.from_arrays(
        c.x_Mpc,
        c.y_Mpc,
        c.z_Mpc,
        c.mass_Msun,
        c.z_obs,
        cosmology=c.cosmology,
        columns=c.columns,
        provenance=c.provenance,
        footprint_deg=c.footprint_deg,
        z_range=c.z_range,
        min_mass_Msun=c.min_mass_Msun,
        realisation=c.realisation,
    )


def import_lightcones(
    files: Sequence[Path], folder: Path, *, realisation: str | None = None
) -> int:
    """Convert halo lightcones of other programs to streamtrain's HDF5 files NAME.h5 in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        target = folder / f"{file.stem}.h5"
        if target.exists():
            raise CatalogError(f"{target} exists already: remove it, or use another --out folder")
        lightcone = read(file, realisation=realisation)
        lightcone.save(target)
        print(f"{file} -> {target}")
        print(lightcone.describe())
    return 0
