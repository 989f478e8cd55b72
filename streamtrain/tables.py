"""Tables as text of fixed width, and the numbers in them with their standard errors."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from math import floor, log10
from textwrap import wrap
from typing import Any

WIDTH = 118
"""Characters of a line that a terminal of usual width shows."""
TEXT_WIDTH = 100
"""Characters of a line of prose."""
GAP = "  "
LABEL = 10
"""Characters of the first column of what a command says of a map, as in "warning   ..."."""
AGREED = 1e-12
"""An error that is not larger is that of numbers that are all the same."""
WHOLE_WORDS: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
"""Names of files are not broken."""


def span(low: float, high: float) -> str:
    """'3 to 5', or '3' where both ends are the same."""
    return f"{high:.3g}" if low == high else f"{low:.3g} to {high:.3g}"


def columns(
    head: Sequence[str],
    rows: Sequence[Sequence[str] | str],
    *,
    left: Collection[int] = (0,),
    widest: int | None = None,
) -> list[str]:
    """Lines of a table, each column as wide as its widest cell.

    head: titles of the columns. rows: their cells; a text is a line of its own. left: numbers of
    the columns that are not right-aligned. widest: characters of a line; columns that do not fit
    go below, beside the first one again.
    """
    cells = [head, *(row for row in rows if not isinstance(row, str))]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    blocks, used = [[0]], widths[0]
    for column, width in enumerate(widths[1:], 1):
        if widest is not None and len(blocks[-1]) > 1 and used + len(GAP) + width > widest:
            blocks.append([0])
            used = widths[0]
        blocks[-1].append(column)
        used += len(GAP) + width

    def line(row: Sequence[str] | str, block: list[int]) -> str:
        if isinstance(row, str):
            return row
        aligned = (row[k].ljust(widths[k]) if k in left else row[k].rjust(widths[k]) for k in block)
        return GAP.join(aligned).rstrip()

    lines: list[str] = []
    for block in blocks:
        lines += [*([""] if lines else []), *(line(row, block) for row in (head, *rows))]
    return lines


def labelled(label: str, text: str) -> list[str]:
    """What a command says of something, after a label of `LABEL` characters at most: lines of
    prose, below one another."""
    first, others = label.ljust(LABEL), " " * LABEL
    return wrap(text, TEXT_WIDTH, initial_indent=first, subsequent_indent=others, **WHOLE_WORDS)


def prose(texts: Iterable[str], others: str = "") -> list[str]:
    """Lines of some sentences; others: what a further line of one begins with."""
    return [line for text in texts for line in wrap(text, TEXT_WIDTH, subsequent_indent=others)]


def range_title(bounds: Sequence[float]) -> str:
    """'3.5-4.5'. bounds: of a luminosity range, log10(L/Lsun)."""
    low, high = bounds
    return f"{low:g}-{high:g}"


def plus_minus(value: float | None, error: float | None, form: str = ".4f") -> str:
    """A number and its standard error, where that is known; '-' for none. Where all maps agree, as
    on a share of 1, the error is 0, or a rounding, and tells nothing."""
    if value is None:
        return "-"
    known = error is not None and error > AGREED
    return f"{value:{form}}" + (f" +- {error:{form}}" if known else "")


def rounded(value: float, error: float | None, sign: str = "") -> str:
    """A number and its standard error, with two digits of the error, unless that is a rounding."""
    if error is None or error < 1e-6:
        return f"{value:{sign}.4f}"
    digits = max(0, 1 - floor(log10(error)))
    return f"{value:{sign}.{digits}f}+-{error:.{digits}f}"


def rms_cell(errors: Mapping[str, Any], form: str = ".4f") -> str:
    """The rms of a luminosity range, an entry of a result's `ranges`, with its standard error."""
    return plus_minus(errors["rms_dex"], errors.get("rms_dex_error"), form)


def error_lines(bootstrap: Mapping[str, Any]) -> list[str]:
    """What the errors of a table are, and what they do not know of."""
    resampled = f"+-: standard errors, bootstrap over {bootstrap['resampled']}"
    return [resampled, *without_lines(bootstrap)]


def without_lines(bootstrap: Mapping[str, Any]) -> list[str]:
    """What errors do not know of; bootstrap: of the result of `evaluate`."""
    return prose([bootstrap.get("without") or ""])
