"""Catalogs in several files: chunks NAME.0.hdf5, NAME.1.hdf5, ... and patterns like NAME_*.fits."""

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
    elif is_pattern(path):
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


def is_pattern(path: Path) -> bool:
    """Whether a path stands for several files."""
    return not path.exists() and any(sign in path.name for sign in "*?[")


def files_of(path: Path) -> list[Path]:
    """The files of a pattern in the order of their names, of any other path itself.

    Raises CatalogError if there is none.
    """
    if not is_pattern(path):
        return [path]
    files = sorted(a for a in path.parent.glob(path.name) if a.is_file())
    if not files:
        raise CatalogError(f"{path}: there is no such file")
    return files


def files_beside(path: Path) -> int:
    """How many other files have the same name but for a number, NAME.7.fits beside NAME.6.fits."""
    found = re.fullmatch(r"(.+\.)(\d+)(\.[a-z0-9]+)", path.name)
    if found is None:
        return 0
    same = re.compile(rf"{re.escape(found.group(1))}\d+{re.escape(found.group(3))}")
    return sum(same.fullmatch(a.name) is not None for a in path.parent.iterdir()) - 1
