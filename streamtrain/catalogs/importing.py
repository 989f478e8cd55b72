"""Convert halo catalogs of other programs to lightcone files: `streamtrain catalog import`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from streamtrain.catalogs.lightcone import CatalogError, Lightcone
from streamtrain.catalogs.readers import Options, read


def import_catalogs(
    files: Sequence[Path],
    folder: Path,
    *,
    format: str | None = None,
    options: Options | None = None,
    realisation: str | None = None,
    footprint_deg: Sequence[float] | None = None,
    z_range: Sequence[float] | None = None,
    min_mass_Msun: float | None = None,
) -> int:
    """Write every file as a lightcone NAME.h5 in `folder` and print what it holds.

    The arguments are those of `readers.read`. A file that is refused leaves nothing behind.
    Raises CatalogError.
    """
    targets = [folder / f"{_stem(file)}.h5" for file in files]
    for number, target in enumerate(targets):
        if target in targets[:number]:
            raise CatalogError(f"two of the files would be written to {target}: import one by one")
        if target.exists():
            raise CatalogError(f"{target} exists already: remove it, or use another --out folder")
    for file, target in zip(files, targets, strict=True):
        lightcone = read(
            file,
            format=format,
            options=options,
            realisation=realisation,
            footprint_deg=footprint_deg,
            z_range=z_range,
            min_mass_Msun=min_mass_Msun,
        )
        _save(lightcone, target, str(file))
    return 0


def _save(lightcone: Lightcone, target: Path, source: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    lightcone.save(target)
    print(f"{source} -> {target}")
    print(lightcone.describe())


def _stem(file: Path) -> str:
    """The name without the ending of its format."""
    name = file.name
    for ending in (".out", ".plc", ".catalog", file.suffix):
        name = name.removesuffix(ending)
    return name
