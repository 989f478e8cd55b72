"""Columns of numbers in text files, such as `.dat` and `.txt` with columns apart by spaces or tabs.

Names come from the first line that is no comment, if it holds words, else from the last comment
line above the numbers that has one for every column: `# x y z mass`, `#x[Mpc] y[Mpc] m(Msun)`,
`# x [Mpc] y [Mpc]`, `#1 x #2 y`, `# 1:x 2:y`, `#x(0) y(1)`, or one line `# 1 x` for every column.
Columns are also called col1, col2, ..., which is all there is where nothing names them.
"""

from __future__ import annotations

import codecs
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamtrain.catalogs.headers import CatalogError
from streamtrain.schema import nearest

MAX_HEADER_LINES = 1000
_WIDE = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
"""Byte order marks of texts whose characters have two or four bytes."""
MAX_LINE_BYTES = 2**20
FORTRAN = re.compile(r"(?<=[\d.])[dD](?=[-+]?\d)")


def check_lines(path: Path) -> None:
    """CatalogError for a file without a line end in its first megabyte, which is no table: the
    whole of it would be one line. Also for text in UTF-16 or UTF-32."""
    with path.open("rb") as file:
        start = file.read(MAX_LINE_BYTES)
    kind = next((name for mark, name in _WIDE.items() if start.startswith(mark)), "")
    zeros = [start[n:1000:2].count(0) for n in (0, 1)]
    if not kind and len(start) > 8 and max(zeros) > 0.4 * len(start[:1000]) and not min(zeros):
        kind = "UTF-16"
    if kind:
        raise CatalogError(
            f"text in {kind}, as programs under Windows write it: save it as UTF-8 "
            f"(iconv -f {kind} -t UTF-8)"
        )
    if len(start) == MAX_LINE_BYTES and b"\n" not in start and b"\r" not in start:
        raise CatalogError(f"its first {MAX_LINE_BYTES} bytes hold no line end: no table of text")


def comment_lines(path: Path) -> list[str]:
    """The lines that begin with # at the start of a file."""
    check_lines(path)
    lines: list[str] = []
    with path.open(errors="replace") as file:
        for line in file:
            if not line.startswith("#") or len(lines) == MAX_HEADER_LINES:
                break
            lines.append(line.rstrip("\n"))
    return lines


def stated_number(text: str, before: str, what: str) -> float:
    """The positive number after a pattern; CatalogError names `what` the header does not state."""
    found = re.search(before + r"([-+.\deE]+)", text)
    try:
        value = float(found.group(1)) if found else np.nan
    except ValueError:
        value = np.nan
    if not 0.0 < value < np.inf:
        raise CatalogError(f"its header does not state {what}")
    return value


def _last_lines(path: Path, number: int) -> list[str]:
    """The last lines with their line ends, at most 64 kB of them."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 65536))
        lines = file.read().splitlines(keepends=True)[-number:]
    return [line.decode(errors="replace") for line in lines]


def last_line(path: Path) -> str:
    """The last line with its line end, at most 64 kB of it."""
    return "".join(_last_lines(path, 1))


def check_last_line(path: Path) -> None:
    """CatalogError if the file ends in the middle of a line."""
    if not last_line(path).endswith("\n"):
        raise CatalogError("truncated: its last line has no line end (if it is whole, add one)")


def check_last_row(path: Path, cells_of: Callable[[str], list[str]], width: int) -> None:
    """CatalogError if the file ends in the middle of a row.

    A last row without a line end, as spreadsheets write it, must have `width` cells, and a number
    at its end if the row before has one; what a cut number was cannot be told, see `ending_notes`.
    """
    *before, last = [line.split("#")[0] for line in _last_lines(path, 2)] or [""]
    if last.endswith(("\n", "\r")) or not last.strip() or not ending_notes(path):
        return
    cells, above = cells_of(last), cells_of("".join(before))
    end = cells[-1] if cells else ""
    number_due = bool(above) and is_number(above[-1]) and not is_number(end)
    if len(cells) != width or number_due or last.count('"') % 2 or not (end or not any(above[-1:])):
        cut = f"{len(cells)} of {width} cells" if len(cells) != width else f"ends in '{end}'"
        raise CatalogError(f"truncated: its last line has no line end and {cut}")


def ending_notes(path: Path) -> list[str]:
    """What is to be said of a text whose last line has no line end."""
    if last_line(path).endswith(("\n", "\r")):
        return []
    return ["the last line has no line end: its last number may be cut off"]


def is_number(text: str) -> bool:
    """Whether a cell is a number, also as Fortran writes it (1.5D+10)."""
    try:
        float(FORTRAN.sub("E", text))
    except ValueError:
        return False
    return "_" not in text


def load_numbers(
    path: Path,
    *,
    delimiter: str | None = None,
    skip: int = 0,
    columns: Sequence[int] | None = None,
    width: int | None = None,
) -> NDArray[np.float64]:
    """The numbers of a text file [rows, columns]; CatalogError names the row that is wrong.

    `width` is the number of columns that every row must have, of which `columns` are taken.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an empty file is refused below
            table: NDArray[np.float64] = np.loadtxt(
                path if width is None else _rows(path, width),
                delimiter=delimiter,
                skiprows=skip,
                usecols=columns,
                ndmin=2,
                quotechar='"' if delimiter else None,
            )
    except CatalogError:
        raise
    except ValueError as error:
        what = str(error).split("; use `usecols`")[0].rstrip(".")
        raise CatalogError(f"damaged: {what} (rows after the header)") from error
    if table.size == 0:
        raise CatalogError("holds no halo")
    return table


def _rows(path: Path, width: int) -> Iterator[str]:
    with path.open() as file:
        for number, line in enumerate(file, 1):
            fields = line.split("#")[0].split()
            if fields and len(fields) != width:
                raise CatalogError(
                    f"damaged: line {number} has {len(fields)} numbers, its header names {width} "
                    "columns"
                )
            yield line


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
            numbers = np.loadtxt(
                _rows_of_words(path, header), usecols=places, ndmin=2, comments=None
            )
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


def _rows_of_words(path: Path, header: _Header) -> Iterator[str]:
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
