"""Columns of numbers in text files."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamtrain.catalogs.lightcone import CatalogError

MAX_HEADER_LINES = 1000
MAX_LINE_BYTES = 2**20


def check_lines(path: Path) -> None:
    """CatalogError for a file without a line end in its first megabyte, which is no table: the
    whole of it would be one line."""
    with path.open("rb") as file:
        start = file.read(MAX_LINE_BYTES)
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


def last_line(path: Path) -> str:
    """The last line with its line end, at most 64 kB of it."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 65536))
        lines = file.read().splitlines(keepends=True)
    return lines[-1].decode(errors="replace") if lines else ""


def check_last_line(path: Path) -> None:
    """CatalogError if the file ends in the middle of a line."""
    if not last_line(path).endswith("\n"):
        raise CatalogError("truncated: its last line has no line end (if it is whole, add one)")


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
