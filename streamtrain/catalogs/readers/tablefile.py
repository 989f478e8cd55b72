"""Named columns of numbers out of CSV, ECSV, FITS, HDF5, Parquet, npz and plain text files.

Nothing in a file is ever executed or unpickled: only columns of numbers are taken. What a file
marks as missing, in whichever way its format has for it, is masked.
"""

from __future__ import annotations

import csv
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from streamtrain.catalogs.headers import CatalogError
from streamtrain.catalogs.readers.columnmeta import (
    DESCRIPTION,
    Units,
    astropy_meta,
    astropy_units,
    compound_units,
    description_of,
    hdf5_column,
    masked,
    stated_units,
)
from streamtrain.catalogs.readers.text import (
    check_last_row,
    check_lines,
    load_numbers,
    read_whitespace,
)
from streamtrain.machine.files import check_memory, check_npz, one_line
from streamtrain.machine.fitsfile import check_fits
from streamtrain.machine.hdf5file import content_of, dataset_of, holds, object_of
from streamtrain.schema import nearest

Columns = dict[str, NDArray[Any]]
PARQUET_DESCRIPTION = "table_meta_yaml"
"""Where astropy puts its description of the columns."""
TEXT_ENDINGS = (".ecsv", ".csv", ".dat", ".txt")
_DELIMITERS = (",", ";", "\t")


def read_columns(path: Path, names: Sequence[str], table: str = "") -> tuple[Columns, Units]:
    """The columns `names` of a table, each [n] or [n, k], and the units the file states.

    A column with missing values is a masked array. `table` chooses an HDU by name or number
    (FITS), a group or a compound dataset (HDF5). Raises CatalogError.
    """
    endings = [ending for ending in READERS if path.name.lower().endswith(ending)]
    if not endings:
        raise CatalogError(f"no table with named columns; supported are {', '.join(READERS)}")
    if endings[0] in TEXT_ENDINGS:
        check_lines(path)
    return READERS[endings[0]](path, list(dict.fromkeys(names)), table)


def _check_names(wanted: Sequence[str], found: Sequence[str]) -> None:
    if not found:
        raise CatalogError("it names no column")
    for name in wanted:
        if list(found).count(name) > 1:
            raise CatalogError(f"the column '{name}' is there {list(found).count(name)} times")
        if name not in found:
            parts, quotient = name.split("/"), ""
            if len(parts) > 1 and all(part in found or _is_number(part) for part in parts):
                quotient = f"({name}) is a quotient; "
            known = nearest(name, list(found)[:60])
            raise CatalogError(f"there is no column '{name}': {quotient}{known}")


def _read_csv(path: Path, wanted: Sequence[str], table: str) -> tuple[Columns, Units]:
    """Separated by comma, semicolon or tab. The header is the first line without #, or the last
    with it if that one has the names."""
    comment, first, lines = "", "", 0
    with path.open(encoding="utf-8-sig", newline="") as file:
        for line in file:
            if line.strip() and not line.startswith("#"):
                first = line
                break
            comment, lines = (line.lstrip("#") if line.strip() else comment), lines + 1
    headers = [(line, mark) for line in (first, comment) for mark in _DELIMITERS]
    named = [(line, mark) for line, mark in headers if set(wanted) <= set(_cells(line, mark))]
    header, mark = named[0] if named else max(headers, key=lambda one: len(_cells(*one)))
    found = _cells(header, mark)
    _check_names(wanted, found)
    check_last_row(path, lambda line: _cells(line, mark), len(found))
    columns = [found.index(name) for name in wanted]
    skip = lines + (header is first)
    _check_rows(path, mark, skip, len(found))
    try:
        numbers = load_numbers(path, delimiter=mark, skip=skip, columns=columns)
    except CatalogError:
        _name_text(path, mark, skip, dict(zip(wanted, columns, strict=True)))
        raise
    return {name: numbers[:, i] for i, name in enumerate(wanted)}, {}


def _cells(line: str, mark: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line], delimiter=mark), [])]


def _check_rows(path: Path, mark: str, skip: int, width: int) -> None:
    """CatalogError unless every row has as many cells as the header."""
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.count(mark) == width - 1 and '"' not in line and "#" not in line:
                continue
            row = line.split("#")[0]
            cells = len(_cells(row, mark))
            if number > skip and cells != width and row.strip():
                raise CatalogError(
                    f"the header names {width} columns, but line {number} has {cells}"
                )


def _name_text(path: Path, mark: str, skip: int, columns: Mapping[str, int]) -> None:
    """CatalogError that names the first cell of `columns` that holds no number, if there is one."""
    bad = []
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            row = line.split("#")[0]
            if number > skip and row.strip():
                cells = _cells(row, mark)
                here = [(name, cells[i]) for name, i in columns.items()]
                bad += [(number, name, text) for name, text in here if not _is_number(text)]
    if bad:
        number, name, text = bad[0]
        hint = " (a decimal comma?)" if _is_number(text.replace(",", ".")) else ""
        what = f"holds '{text}'{hint}" if text else "is empty"
        raise CatalogError(
            f"'{name}' {what} at line {number} ({len(bad)} such cells): a number is needed"
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def _astropy(what: str) -> None:
    try:
        import astropy  # noqa: F401
    except ImportError:
        raise CatalogError(f"{what} needs `pip install astropy`") from None


def _read_ecsv(path: Path, wanted: Sequence[str], table: str) -> tuple[Columns, Units]:
    _astropy("ECSV")
    from astropy.table import Table

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_memory(path.stat().st_size, "it has")
        lines = path.read_text(encoding="utf-8-sig").split("\n")
        content = Table.read(lines, format="ascii.ecsv")
    _check_names(wanted, content.colnames)
    units = {name: str(getattr(content[name], "unit", None) or "") for name in wanted}
    return {name: np.ma.asarray(content[name]) for name in wanted}, units


def _read_fits(path: Path, wanted: Sequence[str], table: str) -> tuple[Columns, Units]:
    _astropy("FITS")
    from astropy.io import fits

    check_fits(path)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            with path.open("rb") as stream, fits.open(stream, memmap=False) as file:
                tables = [hdu for hdu in file if isinstance(hdu, (fits.BinTableHDU, fits.TableHDU))]
                for warning in map(str, (one.message for one in said)):
                    if "truncated" in warning or "corrupted" in warning:  # astropy reads on
                        raise CatalogError(f"a damaged or truncated FITS file ({warning.strip()})")
                hdu = _chosen_hdu(tables, file, wanted, table)
                units = {name: str(hdu.columns[name].unit or "") for name in wanted}
                return {name: _fits_column(hdu, name) for name in wanted}, units
        except fits.VerifyError as error:
            raise CatalogError(f"a damaged FITS file ({error})") from error


def _chosen_hdu(tables: Sequence[Any], file: Any, wanted: Sequence[str], table: str) -> Any:
    chosen = [
        hdu
        for hdu in tables
        if not table or table == str(file.index(hdu)) or hdu.name == table.upper()
    ]
    if not chosen:
        listed = _hdus(tables, file) or "none"
        raise CatalogError(f"there is no table {table or 'HDU'}; tables: {listed}")
    fitting = [hdu for hdu in chosen if set(wanted) <= set(hdu.columns.names)]
    if len(fitting) > 1:
        raise CatalogError(
            f"{len(fitting)} tables have these columns, {_hdus(fitting, file)}: say which "
            "by name or number, `table: NAME` in the map (--columns ... table=NAME)"
        )
    hdu = (fitting or chosen)[0]
    _check_names(wanted, hdu.columns.names)
    return hdu


def _hdus(tables: Sequence[Any], file: Any) -> str:
    return ", ".join(f"{hdu.name or 'without a name'} ({file.index(hdu)})" for hdu in tables)


def _fits_column(hdu: Any, name: str) -> NDArray[Any]:
    """Masked where the stored number (before TSCAL and TZERO) is TNULL.

    Also where the number itself is, as astropy writes unsigned integers, for floats, where the
    standard does not have it, and where an ASCII table is blank.
    """
    values = np.asarray(hdu.data[name])
    stored: NDArray[Any] = np.asarray(hdu.data)[name]
    null = hdu.header.get(f"TNULL{hdu.columns.names.index(name) + 1}")
    if stored.shape != values.shape:  # bits, and rows of different length
        return values
    if stored.dtype.kind == "S":
        stored = np.char.strip(stored)
        return np.ma.array(values, mask=(stored == b"") | (stored == str(null).strip().encode()))
    if not isinstance(null, (int, float)):
        return values
    return np.ma.array(values, mask=(stored == null) | (values == null))


def _read_hdf5(path: Path, wanted: Sequence[str], table: str) -> tuple[Columns, Units]:
    with h5py.File(path, "r") as file:
        place: Any = file
        if table:
            if not holds(file, table):
                raise CatalogError(f"there is no group or dataset '{table}'")
            place = object_of(file, table)
        else:
            place = _only_table(file, wanted)
        columns: Columns = {}
        units: Units = {}
        if isinstance(place, h5py.Dataset):
            names = place.dtype.names or ()
            _check_names(wanted, names)
            rows = content_of(place)
            for name in wanted:
                columns[name] = rows[name]
                if f"{name}.mask" in names:
                    columns[name] = masked(name, columns[name], rows[f"{name}.mask"])
            stated = compound_units(file, place)
            return columns, {name: stated.get(name, "") for name in wanted}
        _check_names(wanted, _datasets(place))
        for name in wanted:
            columns[name] = hdf5_column(dataset_of(place, name))
            if holds(place, f"{name}.mask"):
                columns[name] = masked(
                    name, columns[name], content_of(dataset_of(place, f"{name}.mask"))
                )
            units[name] = "; ".join(stated_units(place[name].attrs))
        return columns, units


def _only_table(file: Any, wanted: Sequence[str]) -> Any:
    """What holds the columns: the file itself, or the one group or compound dataset in it that
    does. If none does, the file, or the compound dataset that is alone in it."""
    names = _datasets(file)
    if set(wanted) <= set(names):
        return file
    fields = {name: file[name].dtype.names for name in names if file[name].dtype.names}
    fitting = [name for name, found in fields.items() if set(wanted) <= set(found)]
    groups: list[str] = []
    file.visititems(lambda name, item: groups.append(name) if hasattr(item, "keys") else None)
    inside = set(names)
    fitting += [group for group in groups if inside >= {f"{group}/{name}" for name in wanted}]
    if len(fitting) > 1:
        raise CatalogError(
            f"{len(fitting)} tables have these columns, {one_line(', '.join(fitting))}: say which, "
            "`table: NAME` in the map (--columns ... table=NAME)"
        )
    alone = list(fields) if len(fields) == 1 and not groups else []
    return file[(fitting or alone)[0]] if fitting or alone else file


def _datasets(group: Any) -> list[str]:
    names: list[str] = []

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            names.append(name)

    group.visititems(note)
    return names


def _read_parquet(path: Path, wanted: Sequence[str], table: str) -> tuple[Columns, Units]:
    try:
        from pyarrow import parquet
    except ImportError:
        raise CatalogError("Parquet needs `pip install pyarrow`") from None

    with parquet.ParquetFile(path) as file:
        schema = file.schema_arrow
        _check_names(wanted, schema.names)
        masks = [f"{name}.mask" for name in wanted if f"{name}.mask" in schema.names]
        # lists say their length here if all are as long; the metadata of a file's parts, which
        # have the numbers of the others, end the process where they are damaged
        each = [getattr(schema.field(name).type, "list_size", 1) for name in [*wanted, *masks]]
        check_memory(8 * file.metadata.num_rows * sum(each), "its columns have")
        content = file.read(columns=[*wanted, *masks])
    described = (schema.metadata or {}).get(PARQUET_DESCRIPTION.encode())
    units = astropy_units(described.decode()) if described else {}
    columns: Columns = {}
    for name in wanted:
        columns[name] = _arrow_column(name, content[name])
        if f"{name}.mask" in masks:
            mask = np.ma.getdata(_arrow_column(f"{name}.mask", content[f"{name}.mask"]))
            columns[name] = masked(name, columns[name], mask)
        stated = stated_units(
            {k.decode(): v for k, v in (schema.field(name).metadata or {}).items()}
        )
        units[name] = "; ".join(dict.fromkeys(filter(None, [units.get(name, ""), *stated])))
    return columns, units


def _arrow_column(name: str, column: Any) -> NDArray[Any]:
    """The numbers of a column of Arrow, [n], or [n, k] of lists of k, masked where there is none.
    Raises CatalogError for lists of different lengths."""
    missing = column.is_null().to_numpy()
    if not hasattr(column.type, "value_field"):
        return np.ma.array(column.to_numpy(), mask=missing)
    lengths = {k for part in column.chunks for k in part.value_lengths().to_pylist()}
    if len(lengths) != 1 or None in lengths:
        raise CatalogError(f"'{name}' holds lists of different lengths: one length is needed")
    flat = [part.flatten() for part in column.chunks]
    numbers, none = (
        np.concatenate([a.to_numpy(zero_copy_only=False) for a in arrays]).reshape(len(missing), -1)
        for arrays in (flat, [a.is_null() for a in flat])
    )
    return np.ma.array(numbers, mask=none)


def _read_npz(path: Path, wanted: Sequence[str], table: str) -> tuple[Columns, Units]:
    """Arrays by name, or the fields of the array `table` of records, by default of the only one."""
    with np.load(path, allow_pickle=False) as content:
        check_npz(content.zip)
        arrays = {name: content[name] for name in {table} & set(content.files)}
        if table and table not in arrays:
            raise CatalogError(f"there is no array '{table}': {nearest(table, content.files)}")
        if not table and not set(wanted) <= set(content.files) and len(content.files) == 1:
            arrays = {content.files[0]: content[content.files[0]]}
        for rows in arrays.values():
            if rows.dtype.names:
                _check_names(wanted, rows.dtype.names)
                return {name: rows[name] for name in wanted}, {}
        _check_names(wanted, content.files)
        return {name: content[name] for name in wanted}, {}


_H_NAMES = ("hubbleparam", "hubble_h", "hubbleh", "little_h", "littleh", "h100", "h")
_H0_NAMES = ("h0", "h_0", "hubble")


def stated_h(path: Path) -> dict[str, float]:
    """h where a file states it by a usual name, by that name: in the attributes of an HDF5 file and
    its groups, the headers of a FITS file, what ECSV, HDF5 and Parquet files of astropy or Parquet
    files of others say of the table, or an array of an npz file."""
    name = path.name.lower()
    if name.endswith((".h5", ".hdf5")):
        with h5py.File(path, "r") as file:
            groups = [file, *(one for one in _own(file) if isinstance(one, h5py.Group))]
            named = [(key, g.attrs[key]) for g in groups for key in g.attrs if _names_h(key)]
            texts = [
                description_of(one)
                for g in groups
                for one in _own(g)
                if isinstance(one, h5py.Dataset) and str(one.name).endswith(DESCRIPTION)
            ]
            return _values_of_h([*named, *(pair for t in texts for pair in astropy_meta(t))])
    if name.endswith((".fits", ".fit", ".fits.gz")):
        from astropy.io import fits

        with path.open("rb") as stream, fits.open(stream, memmap=False) as file:
            names = [n.upper() for n in (*_H_NAMES, *_H0_NAMES)]
            return _values_of_h(
                (n, hdu.header[n]) for hdu in file for n in names if n in hdu.header
            )
    if name.endswith(".ecsv"):
        with path.open(encoding="utf-8-sig") as lines:
            header = [line[1:].removeprefix(" ") for line in takewhile(_is_comment, lines)]
        return _values_of_h(astropy_meta("".join(header[1:])))
    if name.endswith(".parquet"):
        from pyarrow import parquet

        with parquet.ParquetFile(path) as file:
            metadata = file.schema_arrow.metadata or {}
        said = {k.decode(): v.decode(errors="replace") for k, v in metadata.items()}
        return _values_of_h([*said.items(), *astropy_meta(said.get(PARQUET_DESCRIPTION, ""))])
    if name.endswith(".npz"):
        with np.load(path, allow_pickle=False) as content:
            named = [n for n in content.files if _names_h(n)]
            with suppress(ValueError):  # objects, which are never unpickled, state nothing
                return _values_of_h((n, content[n]) for n in named)
    return {}


def _own(group: h5py.Group) -> list[Any]:
    """What a group holds itself, no link to somewhere else."""
    hard = [n for n in group if isinstance(group.get(n, getlink=True), h5py.HardLink)]
    return [group[n] for n in hard]


def _is_comment(line: str) -> bool:
    return line.startswith("#")


def _names_h(key: Any) -> bool:
    return str(key).lower() in (*_H_NAMES, *_H0_NAMES)


def _values_of_h(pairs: Iterable[tuple[Any, Any]]) -> dict[str, float]:
    found = {}
    for key, value in pairs:
        if not _names_h(key) or np.size(value) != 1:
            continue
        with suppress(ValueError, TypeError):  # a text that is no number, and the like
            h = float(np.ravel(value)[0]) * (1.0 if key.lower() in _H_NAMES else 0.01)
            if 0.4 < h < 0.99:  # 1 and 100 are units of h
                found[key] = h
    return found


READERS: Mapping[str, Callable[[Path, Sequence[str], str], tuple[Columns, Units]]] = {
    ".ecsv": _read_ecsv,
    ".csv": _read_csv,
    ".fits": _read_fits,
    ".fit": _read_fits,
    ".fits.gz": _read_fits,
    ".h5": _read_hdf5,
    ".hdf5": _read_hdf5,
    ".parquet": _read_parquet,
    ".npz": _read_npz,
    ".dat": read_whitespace,
    ".txt": read_whitespace,
}
"""Readers by the end of the file's name."""
