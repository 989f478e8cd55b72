"""Columns of numbers in text files."""

from __future__ import annotations

import codecs
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamtrain.catalogs.lightcone import CatalogError

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
