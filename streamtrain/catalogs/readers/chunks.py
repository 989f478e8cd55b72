"""Files in chunks, NAME.0.hdf5, NAME.1.hdf5, ...: all of a set from one, a folder or a pattern."""

from __future__ import annotations

import re
from pathlib import Path

from streamtrain.catalogs.lightcone import CatalogError

_CHUNK = re.compile(r"(.+)\.(\d+)\.(hdf5|h5)")


def chunks_of(path: Path) -> list[Path]:
    """The chunks 0, 1, 2, ... of a set, or the one file.

    `path` is any of them, a folder that holds one set, or a pattern like folder/NAME.*.hdf5.
    Raises CatalogError if there is none, a number is missing, or there are several sets.
    """
    if path.is_file():
        found = _CHUNK.fullmatch(path.name)
        if found is None:
            return [path]
        candidates, name = sorted(path.parent.iterdir()), found.group(1)
    elif path.is_dir():
        candidates, name = sorted(path.iterdir()), ""
    elif any(sign in path.name for sign in "*?["):
        candidates, name = sorted(path.parent.glob(path.name)), ""
    else:
        raise CatalogError(f"{path}: there is no such file")
    matches = [(a, found) for a in candidates if (found := _CHUNK.fullmatch(a.name))]
    sets = sorted({found.group(1) for _, found in matches})
    if not name and not sets:
        whole = [a for a in candidates if a.suffix in (".hdf5", ".h5") and a.is_file()]
        if len(whole) == 1:
            return whole
        raise CatalogError(f"{path}: holds no NAME.0.hdf5, NAME.1.hdf5, ... and not one .hdf5 file")
    if not name and len(sets) > 1:
        raise CatalogError(
            f"{path}: holds chunks of several sets, {', '.join(sets[:5])}: name a file of one"
        )
    chosen = {int(found.group(2)): a for a, found in matches if found.group(1) == (name or sets[0])}
    missing = [number for number in range(max(chosen)) if number not in chosen]
    if missing:
        there = f"{name or sets[0]}.{missing[0]}.hdf5"
        raise CatalogError(f"{path}: the chunk {there} is missing, {len(chosen)} others are there")
    return [chosen[number] for number in sorted(chosen)]
