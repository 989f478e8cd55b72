"""The lightcones of one split, known by their headers, read when they are used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakValueDictionary

import h5py

from streamtrain.catalogs.about import CatalogError, read_about
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.files import reading


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


class Skies:
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
