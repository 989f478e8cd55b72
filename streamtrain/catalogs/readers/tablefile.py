"""Named columns of numbers out of CSV, ECSV, FITS, HDF5, Parquet and plain text files.

Nothing in a file is ever executed or unpickled: only columns of numbers are taken.
"""

from __future__ import annotations

import csv
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from streamtrain.catalogs.lightcone import CatalogError
from streamtrain.catalogs.readers.text import check_last_line, last_line, load_numbers
from streamtrain.catalogs.readers.whitespace import read_whitespace
from streamtrain.schema import nearest

MAX_COMPRESSION = 1000.0
"""An HDF5 dataset that claims more than this many times its bytes in the file is refused."""
Columns = dict[str, NDArray[Any]]
Units = dict[str, str]


def read_columns(path: Path, names: Sequence[str], table: str = "") -> tuple[Columns, Units]:
    """The columns `names` of a table, each [n] or [n, k], and the units the file states.

    `table` chooses an HDU (FITS), a group or a compound dataset (HDF5). Raises CatalogError.
    """
    endings = [ending for ending in READERS if path.name.lower().endswith(ending)]
    if not endings:
        raise CatalogError(f"no table with named columns; supported are {', '.join(READERS)}")
    return READERS[endings[0]](path, list(dict.fromkeys(names)), table)


def _check_names(wanted: Sequence[str], found: Sequence[str]) -> None:
    if not found:
        raise CatalogError("it names no column")
    for name in wanted:
        if list(found).count(name) > 1:
            raise CatalogError(f"the column '{name}' is there {list(found).count(name)} times")
        if name not in found:
            raise CatalogError(f"there is no column '{name}': {nearest(name, list(found)[:60])}")


def _read_csv(path: Path, wanted: Sequence[str], table: str) -> tuple[Columns, Units]:
    """The header is the first line without #, or the last with it if only numbers follow."""
    header, lines = "", 0
    with path.open(errors="strict", newline="") as file:
        for line in file:
            if not line.startswith("#") and line.strip():
                if not header or not _all_numbers(line):
                    header, lines = line, lines + 1
                break
            header, lines = line.lstrip("#"), lines + 1
    found = [name.strip() for name in next(csv.reader([header]), [])]
    _check_names(wanted, found)
    check_last_line(path)
    end = next(csv.reader([last_line(path)]), [])
    if len(end) != len(found):
        raise CatalogError(
            f"truncated: the header names {len(found)} columns, the last row has {len(end)}"
        )
    columns = [found.index(name) for name in wanted]
    numbers = load_numbers(path, delimiter=",", skip=lines, columns=columns)
    return {name: numbers[:, i] for i, name in enumerate(wanted)}, {}


def _all_numbers(line: str) -> bool:
    try:
        return len([float(word) for word in line.split(",")]) > 0
    except ValueError:
        return False


def _astropy(what: str) -> None:
    try:
        import astropy  # noqa: F401
    except ImportError:
        raise CatalogError(f"{what} needs `pip install streamtrain[tables]` (astropy)") from None


def _read_ecsv(path: Path, wanted: Sequence[str], table: str) -> tuple[Columns, Units]:
    _astropy("ECSV")
    from astropy.table import Table

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = Table.read(path, format="ascii.ecsv")
    _check_names(wanted, content.colnames)
    units = {name: str(content[name].unit or "") for name in wanted}
    return {name: _unmasked(content[name]) for name in wanted}, units


def _unmasked(column: Any) -> NDArray[Any]:
    values = np.ma.asarray(column)
    if values.dtype.kind not in "fiu" or not np.ma.is_masked(values):
        return np.asarray(values.data)
    return np.where(np.ma.getmaskarray(values), np.nan, values.data)


def _read_fits(path: Path, wanted: Sequence[str], table: str) -> tuple[Columns, Units]:
    _astropy("FITS")
    from astropy.io import fits

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with fits.open(path, memmap=False) as file:
            tables = [hdu for hdu in file if isinstance(hdu, (fits.BinTableHDU, fits.TableHDU))]
            for warning in map(str, (one.message for one in said)):
                if "truncated" in warning or "corrupted" in warning:  # astropy reads on
                    raise CatalogError(f"a damaged or truncated FITS file ({warning.strip()})")
            chosen = [hdu for hdu in tables if not table or hdu.name == table.upper()]
            if not chosen:
                names = ", ".join(hdu.name or "without a name" for hdu in tables) or "none"
                raise CatalogError(f"there is no table {table or 'HDU'}; tables: {names}")
            columns = chosen[0].columns
            _check_names(wanted, columns.names)
            units = {name: str(columns[name].unit or "") for name in wanted}
            return {name: np.array(chosen[0].data[name]) for name in wanted}, units


def _read_hdf5(path: Path, wanted: Sequence[str], table: str) -> tuple[Columns, Units]:
    with h5py.File(path, "r") as file:
        place: Any = file
        if table:
            if table not in file:
                raise CatalogError(f"there is no group or dataset '{table}'")
            place = file[table]
        columns: Columns = {}
        units: Units = {}
        if isinstance(place, h5py.Dataset):
            _check_names(wanted, place.dtype.names or ())
            rows = _content(place)
            return {name: rows[name] for name in wanted}, units
        _check_names(wanted, _datasets(place))
        for name in wanted:
            dataset = place[name]
            stated = dataset.attrs.get("unit", dataset.attrs.get("units", ""))
            units[name] = stated if isinstance(stated, str) else ""
            columns[name] = _content(dataset)
        return columns, units


def _datasets(group: Any) -> list[str]:
    names: list[str] = []

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            names.append(name)

    group.visititems(note)
    return names


def _content(dataset: Any) -> NDArray[Any]:
    claimed, stored = dataset.size * dataset.dtype.itemsize, dataset.id.get_storage_size()
    if claimed > 2**20 and claimed > MAX_COMPRESSION * stored:
        raise CatalogError(f"'{dataset.name}' claims {claimed} bytes, but {stored} are stored")
    content: NDArray[Any] = dataset[()]
    return np.asarray(content)


def _read_parquet(path: Path, wanted: Sequence[str], table: str) -> tuple[Columns, Units]:
    try:
        from pyarrow import parquet
    except ImportError:
        raise CatalogError("Parquet needs `pip install streamtrain[tables]` (pyarrow)") from None

    with parquet.ParquetFile(path) as file:
        _check_names(wanted, file.schema_arrow.names)
        content = file.read(columns=list(wanted))
    return {name: content[name].to_numpy() for name in wanted}, {}


READERS: Mapping[str, Callable[[Path, Sequence[str], str], tuple[Columns, Units]]] = {
    ".ecsv": _read_ecsv,
    ".csv": _read_csv,
    ".fits": _read_fits,
    ".fit": _read_fits,
    ".fits.gz": _read_fits,
    ".h5": _read_hdf5,
    ".hdf5": _read_hdf5,
    ".parquet": _read_parquet,
    ".dat": read_whitespace,
    ".txt": read_whitespace,
}
"""By the end of the file's name."""
