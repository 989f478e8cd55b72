"""Tables whose headers lie: FITS, Parquet and ECSV with forged counts, sizes and types."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.halo_files import at_most
from support.table_files import FORMATS, NUM, column_map, expected, plain

from streamtrain.catalogs.headers import CatalogError
from streamtrain.catalogs.readers import Options, read

UNITS = dict.fromkeys("XYZ", "Mpc")
CARD = 80
COUNTS = (
    "-1", "0", "1", "2", "3", "4", "5", "8", "9", "10", "11", "17", "39", "40", "41", "80", "999",
    "1000", "65536", "2147483647", "2147483648", "4294967296", "1152921504606846976",
    "9223372036854775807", "9223372036854775808", "1" + "0" * 40, "-9223372036854775808", "1.5",
    "1E9", "NaN", "T", "'9'", "''", "",
)  # fmt: skip
FORMS = (
    "D", "1D", "2D", "0D", "9D", "D9", "E", "J", "K", "I", "B", "L", "X", "64X", "8A", "A", "C",
    "M", "P", "PD(9)", "QD(9)", "1PD(999999999)", "1QD(9223372036854775807)", "99999999999D",
    "-1D", "1.5D", "Z", "", "D D", "()", "D" * 60,
)  # fmt: skip
KEYS = ("BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "PCOUNT", "GCOUNT", "TFIELDS")


def made(kind: str, folder: Path) -> bytes:
    columns = {name: values.astype(float) for name, values in plain().items()}
    return FORMATS[kind](folder, columns, UNITS, "").read_bytes()


def with_card(content: bytes, key: str, value: str, among: slice) -> bytes:
    """The first card of that name there with another value."""
    place = content.index(f"{key:8s}=".encode(), among.start or 0, among.stop)
    card = f"{key:8s}= {value:>20s}".ljust(CARD)[:CARD].encode()
    return content[:place] + card + content[place + CARD :]


def forged_fits(content: bytes) -> Iterator[tuple[str, bytes]]:
    table = slice(content.index(b"XTENSION"), None)
    for key in KEYS:
        for value in COUNTS:
            yield f"{key} = {value}", with_card(content, key, value, table)
    for key in ("BITPIX", "NAXIS"):
        for value in COUNTS:
            yield f"primary {key} = {value}", with_card(content, key, value, slice(0, 2880))
    for key in ("TFORM1", "TFORM4", "TFORM5"):
        for form in FORMS:
            yield f"{key} = {form}", with_card(content, key, f"'{form:8s}'", table)
    for key, value in (("XTENSION", "'IMAGE   '"), ("XTENSION", "'TABLE   '"), ("XTENSION", "1"),
                       ("TTYPE1", "'Y       '"), ("TTYPE1", "5"), ("TUNIT1", "3"),
                       ("TUNIT1", "'kpc     '"), ("TTYPE4", "''")):  # fmt: skip
        yield f"{key} = {value}", with_card(content, key, value, table)


def forged_parquet(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Lengths and any byte of the footer, whose integers are of variable length."""
    size = len(content)
    length = struct.unpack("<I", content[-8:-4])[0]
    for other in (0, 1, length - 1, length + 1, size, size - 12, size + 9, 2**31 - 1, 2**31, -1):
        footer = struct.pack("<I", other % 2**32)
        yield f"a footer of {other} bytes", content[:-8] + footer + content[-4:]
    yield "another mark", content[:-1] + b"2"
    yield "encrypted", content[:-4] + b"PARE"
    footer = size - 8 - length
    rng = np.random.default_rng(5)
    rows = [k for k in range(footer, size - 8) if content[k] == 2 * NUM]  # zigzag
    places = [*rows, *rng.integers(footer, size - 8, 400)]
    for place in places:
        for byte in (content[place] ^ (1 << int(rng.integers(8))), 0xFF):
            changed = bytearray(content)
            changed[place] = byte
            yield f"{byte} at {place}", bytes(changed)


def forged_ecsv(content: bytes) -> Iterator[tuple[str, bytes]]:
    text = content.decode()
    for old in ("float64", "datatype", "name: X", "unit: Mpc", "%ECSV 1.0", "---", "delimiter"):
        for new in ("", "int8", "object", "complex128", "string", "float999", "!!python/name:os.x",
                    "[" * 2000, "&a [*a]", "{", "\0", "'", "x" * 10000):  # fmt: skip
            if old in text:
                yield f"{old} -> {new[:9]}", text.replace(old, new, 1).encode()


FORGERS = {"fits": forged_fits, "parquet": forged_parquet, "ecsv": forged_ecsv}


def outcome(path: Path, what: str) -> str:
    """done: the same halos; fewer of them, where the header says so; refused; else silent. An
    AssertionError for a hang or what is no sentence."""
    try:
        with at_most(20):
            found = read(path, options=Options(columns=column_map()))
    except CatalogError as error:
        text = str(error)
        assert text.startswith(f"{path}: ") and text.isprintable() and len(text) < 3000, text[:999]
        return "refused"
    right = expected()
    if found.digest == right.digest:
        return "done"
    number = len(found.x_Mpc)
    names = ("x_Mpc", "y_Mpc", "z_Mpc", "mass_Msun", "z_obs")
    fewer = all(np.isin(getattr(found, name), getattr(right, name)).all() for name in names)
    return "fewer" if fewer and number < NUM else f"silent: {what}"


def sweep(kind: str, folder: Path, every: int) -> Counter[str]:
    content = made(kind, folder)
    (path,) = folder.iterdir()
    assert outcome(path, "") == "done"
    found: Counter[str] = Counter()
    for number, (what, bad) in enumerate(FORGERS[kind](content)):
        if number % every:
            continue
        path.write_bytes(bad)
        found[outcome(path, what)] += 1
    assert list(folder.iterdir()) == [path]
    return found


@pytest.mark.parametrize("kind", FORGERS)
def test_forged_tables(kind: str, tmp_path: Path) -> None:
    counts = sweep(kind, tmp_path, 9)
    assert set(counts) <= {"done", "fewer", "refused"} and counts["refused"] >= 6, counts


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORGERS)
def test_every_forged_table(kind: str, tmp_path: Path) -> None:
    counts = sweep(kind, tmp_path, 1)
    assert set(counts) <= {"done", "fewer", "refused"} and counts["refused"] >= 70, counts
