"""Which lightcones are the same sky, by their halos and by what they are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import h5py
import numpy as np

from streamtrain.catalogs.about import CatalogError, read_about
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.seal import SAME_SKY, Marks, marks_of, num_shared
from streamtrain.files import reading
from streamtrain.hdf5file import content_of, dataset_of


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


def check_once(splits: Mapping[str, Sequence[Path]], where: str) -> None:
    """CatalogError when a split has one lightcone twice, by two paths, a link or a copy: its
    samples would count twice. where: the section of the splits."""
    for split, paths in splits.items():
        seen: dict[str, Path] = {}
        for path in paths:
            other = seen.setdefault(Known.read(path).digest, path)
            if other is not path:
                raise CatalogError(
                    f"{where}.{split} has one lightcone twice, {other} and {path} (the same file, "
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
