"""The lightcones of one split, known by their headers, read when they are used; that no sky is in
two splits; and whether lightcones are those of a record, made again elsewhere.

A file is opened once for its header, for all who ask (`Header.read`), and again for its halos when
their turn comes: thousands of files are not read before a run begins.
"""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from streamtrain.catalogs.headers import SAME_SKY, CatalogError, Header, num_shared
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.machine.files import why_nothing_found
from streamtrain.shipped import shipped


class NoFileError(CatalogError):
    """A lightcone file that is not there; `where` names it, a setting or an option."""

    def __init__(self, where: str, pattern: str) -> None:
        super().__init__(f"{where}: no file matches '{pattern}'")
        self.where = where


def expand(patterns: Sequence[str], where: str, must_exist: bool = True) -> list[Path]:
    """Files that paths and globs name, sorted by name; CatalogError if one names nothing and
    `must_exist`.

    `configs/...` also finds the files that ship with streamtrain, wherever one stands.
    """
    files: list[Path] = []
    for pattern in patterns:
        found = sorted(glob.glob(pattern, recursive=True))
        if not found and Path(pattern).parts[:1] == ("configs",):
            found = sorted(glob.glob(str(shipped(pattern)), recursive=True))
        if not found and (forbidden := why_nothing_found(pattern)):
            raise CatalogError(f"{where}: {forbidden}, where '{pattern}' is looked for")
        if not found and must_exist:
            raise NoFileError(where, pattern)
        files += [Path(name) for name in found if Path(name) not in files]
    return files


class LightconeFiles:
    """Lightcones by number; files are read when they are asked for, and must not have changed."""

    def __init__(self, sources: Sequence[Lightcone | Path]) -> None:
        if not sources:
            raise CatalogError("a generator needs at least one lightcone")
        self._alive: WeakValueDictionary[int, Lightcone] = WeakValueDictionary()
        self.headers = [s.header if isinstance(s, Lightcone) else Header.read(s) for s in sources]
        self._names = _distinct(self.headers)
        called = zip(sources, self._names, strict=True)
        self.sources = [_called(s, n) if isinstance(s, Lightcone) else s for s, n in called]

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def cosmologies(self) -> list[dict[str, float]]:
        """The cosmology of each lightcone."""
        return [header.cosmology for header in self.headers]

    def name(self, number: int) -> str:
        """The name of lightcone `number`: of its file, with so many of its folders as tell it from
        others."""
        return self._names[number]

    def cosmology_of(self, name: str) -> Mapping[str, float]:
        """The cosmology of a lightcone, by its name."""
        return self.headers[self._names.index(name)].cosmology

    def digest_of(self, name: str) -> str:
        """The digest of a lightcone, by its name."""
        return self.headers[self._names.index(name)].digest

    @property
    def realisations(self) -> dict[str, str]:
        """The sky of each lightcone, by its name."""
        return {n: h.realisation for n, h in zip(self._names, self.headers, strict=True)}

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
        found = self._alive[number] = _called(found, self.name(number))
        return found


def _called(lightcone: Lightcone, name: str) -> Lightcone:
    return lightcone if lightcone.name == name else replace(lightcone, called=name)


def _distinct(headers: Sequence[Header]) -> list[str]:
    """Names of lightcones, of which no two are alike but those of one sky in memory."""
    names = [header.name for header in headers]
    for name in [name for name, times in Counter(names).items() if times > 1]:
        alike = [k for k, header in enumerate(headers) if header.name == name and header.path]
        parts = {k: Path(headers[k].path or "").absolute().parts for k in alike}
        for depth in range(2, max(map(len, parts.values()), default=0) + 1):
            longer = {k: "/".join(of[-depth:]) for k, of in parts.items()}
            if len(set(longer.values())) == len(longer):
                for k in alike:
                    names[k] = longer[k]
                break
    return names


def recipes_of(headers: Iterable[Header]) -> dict[str, str]:
    """The recipes of lightcones by their digests, of those that streamtrain made."""
    return {h.digest: h.recipe for h in headers if h.recipe is not None}


def again_of(
    record: Any, now: Any, recipes: Mapping[str, str], headers: Sequence[Header]
) -> list[str] | None:
    """The lightcones, by name, that are those of a record, made again: of the same recipes, but of
    other digests. None where the record is of other lightcones, or of something else.

    record, now: plain data with digests, of then and of now. recipes: of digests of then; headers:
    of the lightcones of now.
    """
    here = recipes_of(headers)
    both = {*recipes.values()} & {*here.values()}
    if _by_recipe(record, recipes, both) != _by_recipe(now, here, both):
        return None
    return [h.name for h in headers if h.recipe in both and h.digest not in recipes]


def _by_recipe(record: Any, recipes: Mapping[str, str], known: Collection[str]) -> Any:
    """A record with a recipe in the place of every digest of which it is known."""
    if isinstance(record, Mapping):
        return {key: _by_recipe(value, recipes, known) for key, value in record.items()}
    if isinstance(record, list | tuple):
        return [_by_recipe(value, recipes, known) for value in record]
    found = recipes.get(record) if isinstance(record, str) else None
    return found if found in known else record


def made_again(names: Sequence[str], whose: str) -> str:
    """A sentence on lightcones that are those of a record, made again. names: theirs; whose: of
    the lightcones of the record."""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return (
        f"{names[0]}{more}: lightcones of the recipe of {whose} (method, seed and options), but "
        "made on another processor or by another version: the same skies, whose last bits differ, "
        "and with them a few halos in a million"
    )


def check_once(named: Mapping[str, Sequence[Path]]) -> None:
    """Raise CatalogError when one lightcone is named twice, by two paths, a link, a copy, or made
    twice: its samples would count twice. named: the files of a setting or an option."""
    for where, paths in named.items():
        seen: dict[str, Path] = {}
        for path in paths:
            header = Header.read(path)
            for content in (header.digest, header.recipe or header.digest):
                other = seen.setdefault(content, path)
                if other is not path:
                    raise CatalogError(
                        f"{where} has one lightcone twice, {other} and {path} (the same file, "
                        "a link, a copy, or made again elsewhere): name it once"
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
