"""The lightcones of one split, known by their headers, read when they are used.

Which lightcones are the same sky, by their halos and by what they are called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from weakref import WeakValueDictionary

import h5py
import numpy as np

from streamtrain.catalogs.headers import (
    SAME_SKY,
    CatalogError,
    Marks,
    marks_of,
    num_shared,
    read_about,
)
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.machine.files import reading
from streamtrain.machine.hdf5file import content_of, dataset_of


@dataclass(frozen=True)
class Header:
    """What a lightcone says of itself without its halos."""

    name: str
    digest: str
    """sha256 of its content."""
    realisation: str
    cosmology: dict[str, float]
    num_halos: int

    @classmethod
    def of(cls, lightcone: Lightcone) -> Header:
        """The header of a lightcone in memory."""
        c = lightcone
        return cls(c.name, c.digest, c.realisation, c.cosmology, len(c))

    @classmethod
    def read(cls, path: Path) -> Header:
        """The header of a lightcone file, without its halos. Raises CatalogError."""
        with reading(path, CatalogError, "not a readable streamtrain lightcone"):
            if not h5py.is_hdf5(path):
                raise CatalogError("not an HDF5 file, so not a streamtrain lightcone")
            with h5py.File(path, "r") as file:
                about = read_about(file)
        return cls(path.name, about.digest, about.realisation, about.cosmology, about.num_halos)


class LightconeFiles:
    """Lightcones by number; files are read when they are asked for, and must not have changed."""

    def __init__(self, sources: Sequence[Lightcone | Path]) -> None:
        if not sources:
            raise CatalogError("a generator needs at least one lightcone")
        self._sources = list(sources)
        self._alive: WeakValueDictionary[int, Lightcone] = WeakValueDictionary()
        self.headers = [
            Header.of(s) if isinstance(s, Lightcone) else Header.read(s) for s in sources
        ]

    def __len__(self) -> int:
        return len(self._sources)

    @property
    def cosmologies(self) -> list[dict[str, float]]:
        """Of each lightcone."""
        return [header.cosmology for header in self.headers]

    def name(self, number: int) -> str:
        """Of lightcone `number`."""
        return self.headers[number].name

    def most_halos(self, number: int) -> int:
        """Halos of the `number` largest lightcones."""
        return sum(sorted((header.num_halos for header in self.headers), reverse=True)[:number])

    def identity(self) -> list[str]:
        """What decides the halos: the lightcones' digests."""
        return [header.digest for header in self.headers]

    def load(self, number: int) -> Lightcone:
        """Lightcone `number`. Raises CatalogError if its file is gone, damaged, or another than
        when the run began."""
        source, header = self._sources[number], self.headers[number]
        if isinstance(source, Lightcone):
            return source
        if (alive := self._alive.get(number)) is not None:
            return alive
        if not source.is_file():
            raise CatalogError(
                f"{source}: this lightcone was there when the run began, now it is not"
            )
        found = Lightcone.open(source)
        if found.digest != header.digest:
            raise CatalogError(
                f"{source}: this lightcone is not the one it was when the run began (its digest "
                f"begins {found.digest[:12]}, then {header.digest[:12]})"
            )
        self._alive[number] = found
        return found


@dataclass(frozen=True, eq=False)
class Known:
    """What tells the sky of a lightcone."""

    path: Path
    digest: str
    realisation: str
    marks: Marks
    """Bits of mass and redshift of its heaviest halos, see `seal.marks_of`."""

    @classmethod
    def of(cls, lightcone: Lightcone) -> Known:
        """What tells the sky of a lightcone in memory."""
        c = lightcone
        marks = marks_of(c.mass_Msun, c.z_obs)
        return cls(c.path or Path(c.name), c.digest, c.realisation, marks)

    @classmethod
    def read(cls, path: Path) -> Known:
        """What tells the sky of a lightcone file. Raises CatalogError."""
        with reading(path, CatalogError, "not a readable streamtrain lightcone"):
            status = path.stat()
            return _read(path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

    def same_sky(self, other: Known) -> bool:
        """Whether two lightcones are cuts of one sky, by its name or by their halos."""
        return (
            self.realisation == other.realisation
            or self.digest == other.digest
            or num_shared(self.marks, other.marks) >= SAME_SKY
        )


@lru_cache(maxsize=4096)
def _read(path: Path, *version: int) -> Known:
    """version: what tells that the file is another one by now."""
    if not h5py.is_hdf5(path):
        raise CatalogError("not an HDF5 file, so not a streamtrain lightcone")
    with h5py.File(path, "r") as file:
        about = read_about(file)
        marks = about.marks
        if marks is None:
            mass, z_obs = (
                content_of(dataset_of(file, f"halos/{name}")) for name in ("mass_Msun", "z_obs")
            )
            marks = marks_of(mass, z_obs)
    return Known(path, about.digest, about.realisation, marks)


def check_once(named: Mapping[str, Sequence[Path]]) -> None:
    """CatalogError when one lightcone is named twice, by two paths, a link or a copy: its samples
    would count twice. named: the files of a setting or an option."""
    for where, paths in named.items():
        seen: dict[str, Path] = {}
        for path in paths:
            other = seen.setdefault(Known.read(path).digest, path)
            if other is not path:
                raise CatalogError(
                    f"{where} has one lightcone twice, {other} and {path} (the same file, "
                    "a link or a copy): name it once"
                )


def check_disjoint(splits: Mapping[str, Sequence[Path]]) -> None:
    """CatalogError when one sky is in two splits (its halos would leak between them), whatever
    its files and realisations are called."""
    known = {split: [Known.read(path) for path in paths] for split, paths in splits.items()}
    for split, ours in known.items():
        for other, theirs in known.items():
            if split == other:
                break
            if pair := _common_sky(theirs, ours):
                raise CatalogError(_leak(other, split, *pair))


def _common_sky(ours: Sequence[Known], theirs: Sequence[Known]) -> tuple[Known, Known] | None:
    """The first two lightcones that are of one sky."""
    marks = np.unique(np.concatenate([a.marks for a in ours])) if ours else np.zeros(0, np.uint64)
    names = {a.realisation for a in ours} | {a.digest for a in ours}
    for b in theirs:
        if {b.realisation, b.digest} & names or num_shared(marks, b.marks) >= SAME_SKY:
            for a in ours:
                if a.same_sky(b):
                    return a, b
    return None


def _leak(split: str, other: str, one: Known, two: Known) -> str:
    places = f"data.{split} ({one.path}) and data.{other} ({two.path})"
    if one.realisation == two.realisation:
        what = f"the realisation '{one.realisation}' is in two splits: {places}"
    else:
        shared = num_shared(one.marks, two.marks)
        what = (
            f"the same halos are in two splits: {places} have {shared} of their "
            f"{min(len(one.marks), len(two.marks))} heaviest halos in common, although their "
            f"realisations are called '{one.realisation}' and '{two.realisation}'"
        )
    return f"{what}; splits must be different skies"
