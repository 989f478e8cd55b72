"""FITS files before astropy opens them: whether what their headers claim can be there."""

from __future__ import annotations

import gzip
import math
import re
from pathlib import Path

from streamtrain.machine.files import check_memory

_BLOCK, _HEADER_BLOCKS, _MOST = 2880, 1500, 999
"""Bytes of a block, blocks of a header that are read, and what the standard allows to count."""


class FitsError(ValueError):
    """An image that cannot be used; the message is one sentence without the name of the file."""


def check_fits(path: Path) -> None:
    """FitsError for a FITS file, perhaps compressed, whose headers do not end, claim more columns
    or axes than the standard allows, or more bytes than fit in memory: astropy would try."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    total = 0
    with gzip.open(path) if packed else path.open("rb") as file:
        while block := file.read(_BLOCK):
            cards: dict[str, str] = {}
            for _ in range(_HEADER_BLOCKS):
                lines = [block[k : k + 80].decode("ascii", "replace") for k in range(0, _BLOCK, 80)]
                cards |= {line[:8].rstrip(): line[10:30] for line in lines if line[8:9] == "="}
                if any(line.rstrip() == "END" for line in lines):
                    break
                block = file.read(_BLOCK)
                if len(block) < _BLOCK:
                    return  # cut short, as astropy will say
            else:
                raise FitsError(f"has a header of more than {_HEADER_BLOCKS} blocks")
            for key in ("NAXIS", "TFIELDS"):
                if not 0 <= _whole(cards, key, 0) <= _MOST:
                    raise FitsError(f"claims {key} = {cards[key].strip()} (at most {_MOST})")
            sizes = [_whole(cards, f"NAXIS{k + 1}", 0) for k in range(_whole(cards, "NAXIS", 0))]
            if min(sizes, default=0) < 0 or _whole(cards, "PCOUNT", 0) < 0:
                raise FitsError("claims a negative number of bytes")
            elements = math.prod(sizes) if sizes else 0
            groups = max(_whole(cards, "GCOUNT", 1), 1)
            width = abs(_whole(cards, "BITPIX", 8)) // 8
            size = width * groups * (elements + _whole(cards, "PCOUNT", 0))
            total += size
            try:
                check_memory(total, "claims")
            except ValueError as error:
                raise FitsError(str(error)) from None
            if not packed and file.tell() + size > path.stat().st_size:
                return  # cut short, as astropy will say
            file.seek(-(-size // _BLOCK) * _BLOCK, 1)


def _whole(cards: dict[str, str], key: str, default: int) -> int:
    text = cards.get(key, "").partition("/")[0].strip()
    return int(text) if re.fullmatch(r"[-+]?\d{1,30}", text) else default
