"""One small table as CSV, ECSV, FITS, HDF5 and Parquet, with units and a missing value."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from streamtrain.catalogs.headers import CatalogError
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.readers import Options, read
from streamtrain.cosmology import Cosmology

fits = pytest.importorskip("astropy.io.fits")
table = pytest.importorskip("astropy.table")
arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

NUM = 9
MISSING_ROW = 4
UNDER_MASK = 999
"""What stands where a value is missing; as a mass or a position it would pass."""
Columns = dict[str, np.ndarray[Any, Any]]
Write = Callable[[Path, Columns, dict[str, str], str], Path]


def plain() -> Columns:
    """Whole numbers that every type holds: positions in Mpc, masses in 1e10 Msun."""
    z = np.arange(5900, 5900 + 40 * NUM, 40)
    x, y = np.arange(NUM) * 3 + 1, 40 - np.arange(NUM) * 2
    z_obs = Cosmology().redshift(np.sqrt(x * x + y * y + z * z * 1.0)).astype(np.float32)
    return {"X": x, "Y": y, "Z": z, "M": np.arange(NUM) ** 2 * 7 + 5, "ZOBS": z_obs}


def expected() -> Lightcone:
    x, y, z, mass, z_obs = plain().values()
    return Lightcone.from_arrays(x, y, z, 1e10 * mass, z_obs, cosmology=Cosmology().to_dict())


def column_map(mass: str = "M", **changes: Any) -> dict[str, Any]:
    entries: dict[str, Any] = {a.lower(): {"column": a, "unit": "Mpc"} for a in "XYZ"}
    entries |= {"mass": {"column": mass, "unit": "1e10 Msun"}, "z_obs": "ZOBS"}
    return entries | {"cosmology": Cosmology().to_dict()} | changes


def masked_table(columns: Columns, units: dict[str, str], missing: str) -> Any:
    made = table.Table(masked=True)
    for name, values in columns.items():
        made[name] = table.MaskedColumn(values, unit=units.get(name))
        if name == missing:
            made[name].mask[MISSING_ROW] = True
            made[name].fill_value = UNDER_MASK
    return made


def csv(mark: str, head: str = "") -> Write:
    """A file whose header has the units in brackets, as the names of its columns."""

    def write(path: Path, columns: Columns, units: dict[str, str], missing: str) -> Path:
        names = [f"{name} [{units[name]}]" if units.get(name) else name for name in columns]
        cells = {name: [repr(a) for a in values.tolist()] for name, values in columns.items()}
        if missing:
            cells[missing][MISSING_ROW] = ("", "N/A", "--", "nan", "inf")[
                list(cells).index(missing) % 5
            ]
        lines = [head + mark.join(names), *map(mark.join, zip(*cells.values(), strict=True))]
        (path / "a.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path / "a.csv"

    return write


def ecsv(path: Path, columns: Columns, units: dict[str, str], missing: str) -> Path:
    masked_table(columns, units, missing).write(path / "a.ecsv", format="ascii.ecsv")
    return path / "a.ecsv"


def fits_file(path: Path, columns: Columns, units: dict[str, str], missing: str) -> Path:
    made = []
    for name, values in columns.items():
        code = {"f4": "E", "f8": "D", "i4": "J", "i8": "K", "u2": "I"}[values.dtype.str[1:]]
        more: dict[str, Any] = {"bzero": 32768} if code == "I" else {}
        if name == missing:
            values = values.copy()
            values[MISSING_ROW] = np.nan if code in "ED" else UNDER_MASK
            if code not in "ED":  # TNULL is the number in the file, before TZERO
                more["null"] = UNDER_MASK - more.get("bzero", 0)
        made.append(fits.Column(name, code, units.get(name), array=values, **more))
    fits.BinTableHDU.from_columns(made).writeto(path / "a.fits")
    return path / "a.fits"


def hdf5(path: Path, columns: Columns, units: dict[str, str], missing: str) -> Path:
    """Units as every kind of text in turn; a mask, or a fill value in an attribute."""
    kinds = (str, np.bytes_, lambda a: np.array([a], "S"), lambda a: np.array([a], object))
    with h5py.File(path / "a.hdf5", "w") as file:
        for number, (name, values) in enumerate(columns.items()):
            if name == missing:
                values = values.copy()
                values[MISSING_ROW] = UNDER_MASK
                mask = np.arange(NUM) == MISSING_ROW
                if number % 2:
                    file[f"{name}.mask"] = mask
            file[name] = values
            if name == missing and not number % 2:
                file[name].attrs["_FillValue"] = np.array([UNDER_MASK], values.dtype)
            if name in units:
                file[name].attrs["units" if number % 2 else "Unit"] = kinds[number % 4](units[name])
    return path / "a.hdf5"


def hdf5_rows(path: Path, columns: Columns, units: dict[str, str], missing: str) -> Path:
    made = masked_table(columns, units, missing)
    made.write(path / "a.hdf5", path="halos", serialize_meta=True)
    return path / "a.hdf5"


def parquet_file(path: Path, columns: Columns, units: dict[str, str], missing: str) -> Path:
    """By Arrow with nulls, or by astropy with masks, in turn."""
    if len(columns) % 2:
        masked_table(columns, units, missing).write(path / "a.parquet")
        return path / "a.parquet"
    arrays, fields = [], []
    for name, values in columns.items():
        mask = np.arange(NUM) == MISSING_ROW if name == missing else None
        arrays.append(arrow.array(values, mask=mask))
        meta = {"unit": units[name]} if name in units else None
        fields.append(arrow.field(name, arrays[-1].type, metadata=meta))
    parquet.write_table(arrow.table(arrays, arrow.schema(fields)), path / "a.parquet")
    return path / "a.parquet"


FORMATS: dict[str, Write] = {
    "csv": csv(","), "csv semicolon": csv(";"), "csv tab": csv("\t", "# "),
    "csv mark": csv(",", "\ufeff"), "ecsv": ecsv, "fits": fits_file, "hdf5": hdf5,
    "hdf5 rows": hdf5_rows, "parquet": parquet_file,
}  # fmt: skip


def check(path: Path, chosen: dict[str, Any], sentence: str = "") -> None:
    """The halos of the plain file in every bit, or the sentence."""
    if sentence:
        with pytest.raises(CatalogError, match=sentence) as caught:
            read(path, options=Options(columns=chosen))
        assert str(caught.value).startswith(f"{path}: ")
        assert "damaged" not in str(caught.value)
    else:
        assert read(path, options=Options(columns=chosen)).digest == expected().digest


def refused(path: Path, sentence: str) -> None:
    with pytest.raises(CatalogError, match=sentence):
        read(path, options=Options(columns=column_map()))
