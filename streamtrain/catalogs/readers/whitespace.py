"""Text tables whose columns are apart by spaces or tabs, `.dat` and `.txt`.

Names come from the first line that is no comment, if it holds words, else from the last comment
line above the numbers that has one for every column: `# x y z mass`, `#x[Mpc] y[Mpc] m(Msun)`,
`# x [Mpc] y [Mpc]`, `#1 x #2 y`, `# 1:x 2:y`, `#x(0) y(1)`, or one line `# 1 x` for every column.
Columns are also called col1, col2, ..., which is all there is where nothing names them.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamtrain.catalogs.lightcone import CatalogError
from streamtrain.catalogs.readers.text import FORTRAN, check_last_row, is_number
from streamtrain.schema import nearest

_BRACKETS = r"[\[(][^\[\]()]*[\])]"
MAX_COMMENTS = 1000


class _Header(NamedTuple):
    names: list[str]
    units: dict[str, str]
    """Unit by name, of the columns that state one."""
    start: int
    """Number of lines before the numbers."""
    width: int
    """Number of columns."""


def read_whitespace(
    path: Path, wanted: Sequence[str], table: str = ""
) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """The columns `wanted` [n] and the units that the header states for them.

    Raises CatalogError with the number of the line that is wrong.
    """
    header = _header(path, wanted)
    check_last_row(path, str.split, header.width)
    places = [_place(name, header) for name in wanted]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an empty table is refused below
            numbers = np.loadtxt(_rows(path, header), usecols=places, ndmin=2, comments=None)
    except ValueError as error:
        if isinstance(error, CatalogError):
            raise
        raise CatalogError(_bad_number(path, header, places) or str(error)) from None
    if numbers.size == 0:
        raise CatalogError("holds no halo")
    units = {name: header.units.get(name, "") for name in wanted}
    return {name: numbers[:, i] for i, name in enumerate(wanted)}, units


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8-sig") as file:
        yield from file


def _header(path: Path, wanted: Sequence[str]) -> _Header:
    comments: list[str] = []
    first, words = 0, None
    for number, line in enumerate(_lines(path)):
        if line.lstrip().startswith("#"):
            if words is None and len(comments) < MAX_COMMENTS:
                comments.append(line.strip().lstrip("#").strip())
        elif line.strip():
            fields = line.split("#")[0].split()
            if words is None and not any(is_number(field) for field in fields):
                words, first = line.split("#")[0], number + 1
                continue
            if "," in line:
                raise CatalogError(
                    f"line {number + 1} has commas: a table with commas is called .csv"
                )
            if words is not None:
                names, units = _names(words)
                if len(names) != len(fields):
                    raise CatalogError(
                        f"line {first} names {len(names)} columns ({', '.join(names)}), "
                        f"line {number + 1} has {len(fields)} numbers"
                    )
            else:
                names, units = _names_of_comments(comments, len(fields), wanted)
            return _Header(names, units, number, len(fields))
    raise CatalogError("holds no halo: it has no line of numbers")


def _names_of_comments(
    comments: Sequence[str], width: int, wanted: Sequence[str]
) -> tuple[list[str], dict[str, str]]:
    """From one line per column, else the last line that fits, of several one with all `wanted`."""
    listed = [re.match(r"#?\s*(\d+)\s*[:.)=]?\s+([^\s\[(]+)(.*)", comment) for comment in comments]
    found = [match for match in listed if match]
    if len(found) == width and _counts([match.group(1) for match in found]):
        names = [match.group(2) for match in found]
        stated = [re.findall(_BRACKETS, match.group(3)) for match in found]
        pairs = zip(names, stated, strict=True)
        return names, {name: unit[-1][1:-1].strip() for name, unit in pairs if unit}
    fitting = []
    for comment in reversed(comments):
        names, units = _names(comment)
        if len(names) == width and not all(is_number(name) for name in names):
            fitting.append((names, units))
    complete = [entry for entry in fitting if set(wanted) <= set(entry[0])]
    return ([*complete, *fitting] or [([], {})])[0]


def _names(line: str) -> tuple[list[str], dict[str, str]]:
    """Names and units of a line that has them side by side."""
    line = re.sub(_BRACKETS, lambda found: "".join(found.group().split()), line)
    words = [word for word in re.split(r"[\s,;#|]+", line) if word]
    glued = [match for word in words if (match := re.fullmatch(r"(\d+)[:=](.+)", word))]
    apart = [match for word in words[0::2] if (match := re.fullmatch(r"(\d+)[:.)=]?", word))]
    if len(glued) == len(words) and _counts([match.group(1) for match in glued]):
        words = [match.group(2) for match in glued]
    elif 2 * len(apart) == len(words) and _counts([match.group(1) for match in apart]):
        words = words[1::2]
    names: list[str] = []
    units: dict[str, str] = {}
    for word in words:
        match = re.fullmatch(rf"(.*?)({_BRACKETS})", word)
        inside = match.group(2)[1:-1] if match else ""
        if match is None:
            names.append(word)
        elif match.group(1) == "" and names:  # the unit of the name before it
            units[names[-1]] = inside
        else:
            names.append(match.group(1))
            units |= {} if inside.isdigit() else {match.group(1): inside}
    return names, units


def _counts(numbers: Sequence[str]) -> bool:
    """Whether they are 0, 1, 2, ... or 1, 2, 3, ..."""
    found = [int(number) for number in numbers]
    return found[:1] in ([0], [1]) and found == list(range(found[0], found[0] + len(found)))


def _place(name: str, header: _Header) -> int:
    """The column of a name."""
    if header.names.count(name) == 1:
        return header.names.index(name)
    if header.names.count(name) > 1:
        raise CatalogError(f"the column '{name}' is there {header.names.count(name)} times")
    numbered = re.fullmatch(r"col([1-9]\d*)", name)
    if numbered and int(numbered.group(1)) <= header.width:
        return int(numbered.group(1)) - 1
    if header.names:
        known = nearest(name, header.names[:60])
        raise CatalogError(f"there is no column '{name}': {known} (or col1..col{header.width})")
    raise CatalogError(
        f"there is no column '{name}': no line above the numbers names its {header.width} columns; "
        f"add a line like '# x y z mass' or call them col1..col{header.width}"
    )


def _rows(path: Path, header: _Header) -> Iterator[str]:
    for number, line in enumerate(_lines(path)):
        if number < header.start:
            continue
        row = line.split("#")[0]
        fields = row.split()
        if not fields:
            continue
        if len(fields) != header.width:
            raise CatalogError(
                f"line {number + 1} has {len(fields)} numbers, those before it {header.width}"
            )
        yield FORTRAN.sub("E", row) if "D" in row or "d" in row else row


def _bad_number(path: Path, header: _Header, places: Sequence[int]) -> str | None:
    """A sentence about the first field that is no number."""
    for number, line in enumerate(_lines(path)):
        fields = line.split("#")[0].split() if number >= header.start else []
        for place in places if fields else ():
            if not is_number(fields[place]):
                return f"line {number + 1}: '{fields[place]}' in column {place + 1} is no number"
    return None
