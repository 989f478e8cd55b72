"""The lightcones of one split, known by their headers, read when they are used; and that no sky is
in two splits.

A file is opened once for its header, for all who ask (`Header.read`), and again for its halos when
their turn comes: thousands of files are not read before a run begins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np

from streamtrain.catalogs.headers import SAME_SKY, CatalogError, Header, num_shared
from streamtrain.catalogs.lightcone import Lightcone


class LightconeFiles:
    """Lightcones by number; files are read when they are asked for, and must not have changed."""

    def __init__(self, sources: Sequence[Lightcone | Path]) -> None:
        if not sources:
            raise CatalogError("a generator needs at least one lightcone")
        self.sources = list(sources)
        self._alive: WeakValueDictionary[int, Lightcone] = WeakValueDictionary()
        self.headers = [s.header if isinstance(s, Lightcone) else Header.read(s) for s in sources]

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def cosmologies(self) -> list[dict[str, float]]:
        """The cosmology of each lightcone."""
        return [header.cosmology for header in self.headers]

    def name(self, number: int) -> str:
        """The name of lightcone `number`."""
        return self.headers[number].name

    def most_bytes(self, number: int, bytes_per_halo: int, *, with_rows: bool) -> float:
        """Memory that the `number` largest lightcones take [bytes] with so many for each halo, and
        with what is read of their files if that stays beside it."""
        each = [h.num_halos * bytes_per_halo + with_rows * h.nbytes for h in self.headers]
        return sum(sorted(each, reverse=True)[:number])

    def identity(self) -> list[str]:
        """What decides the halos: the lightcones' digests."""
        return [header.digest for header in self.headers]

    def load(self, number: int) -> Lightcone:
        """Read lightcone `number`, unless somebody holds it. Raises CatalogError if its file is
        gone, damaged, or another than when the run began."""
        source, header = self.sources[number], self.headers[number]
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


def check_once(named: Mapping[str, Sequence[Path]]) -> None:
    """Raise CatalogError when one lightcone is named twice, by two paths, a link or a copy: its
    samples would count twice. named: the files of a setting or an option."""
    for where, paths in named.items():
        seen: dict[str, Path] = {}
        for path in paths:
            other = seen.setdefault(Header.read(path).digest, path)
            if other is not path:
                raise CatalogError(
                    f"{where} has one lightcone twice, {other} and {path} (the same file, "
                    "a link or a copy): name it once"
                )


def check_disjoint(splits: Mapping[str, Sequence[Path]]) -> None:
    """Raise CatalogError when one sky is in two splits (its halos would leak between them),
    whatever its files and realisations are called."""
    known = {split: [Header.read(path) for path in paths] for split, paths in splits.items()}
    for split, ours in known.items():
        for other, theirs in known.items():
            if split == other:
                break
            if pair := _common_sky(theirs, ours):
                raise CatalogError(_leak(other, split, *pair))


def _common_sky(ours: Sequence[Header], theirs: Sequence[Header]) -> tuple[Header, Header] | None:
    """The first two lightcones that are of one sky."""
    marks = np.unique(np.concatenate([a.marks for a in ours])) if ours else np.zeros(0, np.uint64)
    names = {a.realisation for a in ours} | {a.digest for a in ours}
    for b in theirs:
        if {b.realisation, b.digest} & names or num_shared(marks, b.marks) >= SAME_SKY:
            for a in ours:
                if a.same_sky(b):
                    return a, b
    return None


def _leak(split: str, other: str, one: Header, two: Header) -> str:
    places = f"data.{split} ({one.path or one.name}) and data.{other} ({two.path or two.name})"
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
