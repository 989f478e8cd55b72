"""Convert halo catalogs of other programs to lightcone files: `streamtrain catalog import`."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from streamtrain.catalogs.headers import CatalogError
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.readers import Options, first_of_chunks, read, read_halos
from streamtrain.catalogs.readers.halos import files_of, lightcone_of
from streamtrain.catalogs.readers.tiling import tile_boxes
from streamtrain.machine.files import sha256


def import_catalogs(
    files: Sequence[Path],
    folder: Path,
    *,
    format: str | None = None,
    options: Options | None = None,
    **how: Any,
) -> int:
    """Write every file as a lightcone NAME.h5 in `folder` and print what it holds.

    The arguments are those of `readers.read`. If one file is refused, or cannot
    be written, none is there. Raises CatalogError.
    """
    files = first_of_chunks(files, format, options)
    targets = [folder / f"{_stem(file)}.h5" for file in files]
    for number, target in enumerate(targets):
        if target in targets[:number]:
            raise CatalogError(f"two of the files would be written to {target}: import one by one")
        if target.exists():
            raise CatalogError(f"{target} exists already: remove it, or use another --out folder")
    with _Together(folder) as together:
        for file, target in zip(files, targets, strict=True):
            lightcone = read(file, format=format, options=options, **how)
            together.add(lightcone, target, str(file))
    return 0


def import_boxes(files: Sequence[Path], folder: Path, *, seed: int = 0, **how: Any) -> int:
    """Write the lightcone of `read_boxes`, whose options are `how`, as NAME_tiled_SEED.h5 in
    `folder` and print what it holds. Raises CatalogError."""
    files = first_of_chunks(files, how.get("format"), how.get("options"))
    target = folder / f"{_stem(files[0])}_tiled_{seed:04d}.h5"
    if target.exists():
        raise CatalogError(f"{target} exists already: remove it, or use another --out folder")
    with _Together(folder) as together:
        lightcone = read_boxes(files, seed=seed, **how)
        together.add(lightcone, target, ", ".join(str(file) for file in files))
    return 0


def read_boxes(
    files: Sequence[Path],
    *,
    footprint_deg: Sequence[float],
    z_range: Sequence[float],
    side_Mpc: float | None = None,
    redshifts: Sequence[float] | None = None,
    seed: int = 0,
    format: str | None = None,
    options: Options | None = None,
    realisation: str | None = None,
    min_mass_Msun: float | None = None,
) -> Lightcone:
    """Snapshots of one periodic box, tiled into a lightcone.

    footprint_deg, z_range: the field to fill; side_Mpc, seed: see `tile_boxes`; redshifts: of the
    snapshots, where the files do not tell; the rest: see `readers.read`. The default realisation
    is the same for every seed: tilings of one box share its structure. Raises CatalogError.
    """
    options = options or Options()
    if options.view:
        raise CatalogError("--observer and --line-of-sight are of lightcones, not with --box")
    files = first_of_chunks(files, format, options)
    if redshifts is not None and len(redshifts) != len(files):
        raise CatalogError(f"{len(redshifts)} redshifts for {len(files)} snapshots")
    snapshots = []
    for number, file in enumerate(files):
        given = None if redshifts is None else redshifts[number]
        halos = read_halos(file, format=format, options=replace(options, redshift=given))
        if halos.z_obs is not None or halos.cone_deg is not None:
            raise CatalogError(f"{file}: a lightcone already (it has observed redshifts): no --box")
        if halos.redshift is None:
            halos.redshift = given
        elif given is not None and abs(halos.redshift - given) > 1e-3:
            raise CatalogError(f"{file}: of redshift {halos.redshift:g}, not {given:g}")
        snapshots.append(halos)
    name = ", ".join(str(file) for file in files)
    try:
        halos = tile_boxes(
            snapshots,
            footprint_deg=footprint_deg,
            z_range=z_range,
            seed=seed,
            side_Mpc=side_Mpc,
            cosmology=options.cosmology,
        )
        sums = sorted(sha256(files_of(file)[0]) for file in files)
        digest = hashlib.sha256(" ".join(sums).encode()).hexdigest()
        return lightcone_of(
            halos,
            footprint_deg=footprint_deg,
            z_range=z_range,
            min_mass_Msun=min_mass_Msun,
            realisation=realisation or f"box-{digest[:16]}",
        )
    except ValueError as error:
        raise CatalogError(f"{name}: {error}") from error


class _Together:
    """Files of one folder that get their names at the end, all or none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._new = [a for a in (folder, *folder.parents) if not a.exists()]
        self._waiting: list[tuple[Path, Path, str]] = []

    def __enter__(self) -> _Together:
        return self

    def add(self, lightcone: Lightcone, target: Path, source: str) -> None:
        """Write a lightcone, and keep what is to be said of it."""
        text = f"{source} -> {target}\n{lightcone.describe()}"
        self._folder.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        self._waiting.append((part, target, text))
        try:
            lightcone.save(part)
        except CatalogError as error:
            raise CatalogError(str(error).replace(str(part), str(target))) from error

    def __exit__(self, kind: Any, *_: object) -> None:
        for part, target, text in self._waiting:
            if kind is None:
                part.replace(target)
                print(text)
            else:
                part.unlink(missing_ok=True)
        if kind is not None:
            with suppress(OSError):  # somebody else has put something there
                for folder in self._new:
                    folder.rmdir()


def _stem(file: Path) -> str:
    """The name without the ending of its format and the number of a first chunk."""
    name = re.sub(r"\.0(\.h5|\.hdf5|)$", r"\1", file.name)
    for ending in (".out", ".plc", ".catalog", file.suffix):
        name = name.removesuffix(ending)
    return re.sub(r"[][*?]+", "", name).strip("._-") or "catalog"
