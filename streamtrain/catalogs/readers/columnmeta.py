"""What files say about their columns beside the numbers: missing values and units."""

from __future__ import annotations

import re
from typing import Any

import h5py
import numpy as np
import yaml
from numpy.typing import NDArray

from streamtrain.catalogs.headers import CatalogError
from streamtrain.machine.files import one_line, reason_of
from streamtrain.machine.hdf5file import MARKS, content_of, fill_value, holds

Units = dict[str, str]
DESCRIPTION = ".__table_column_meta__"
"""What astropy adds to the name of a compound dataset for that of its description."""
MAX_CODES = 200
"""Characters of a unit."""


def masked(name: str, values: NDArray[Any], missing: NDArray[Any]) -> NDArray[Any]:
    """A column without the values that another column `name`.mask marks, as astropy writes it."""
    if values.shape != missing.shape:
        raise CatalogError(
            f"'{name}.mask' has shape {missing.shape}, but '{name}' has {values.shape}"
        )
    return np.ma.array(values, mask=np.ma.getmaskarray(values) | missing.astype(bool))


def hdf5_column(dataset: Any) -> NDArray[Any]:
    """The numbers of a dataset, unpacked, and masked where its fill value or the netCDF attributes
    say so."""
    values = content_of(dataset)
    if values.dtype.kind not in "fiu":
        return values
    fills = [_numbers_of(dataset, key) for key in MARKS if key in dataset.attrs]
    if (fill := fill_value(dataset)) is not None:
        fills.append(fill)
    missing = np.zeros(values.shape, bool)
    for fill in map(np.ravel, fills):
        with np.errstate(all="ignore"):
            same = fill.astype(values.dtype)
        one_size = fill.dtype.kind in "iu" and fill.dtype.itemsize == values.dtype.itemsize
        if values.dtype.kind in "iu" and not one_size:  # -1 of int16 is 65535 of uint16, but
            same = same[same == fill]  # a fill value beyond the type stands nowhere
        missing |= np.isin(values, same)
    packed = {key: _numbers_of(dataset, key) for key in ("scale_factor", "add_offset")}
    scale, offset = packed["scale_factor"], packed["add_offset"]
    if scale.size or offset.size:
        factor = float(scale[0]) if scale.size else 1.0
        values = values * factor + (float(offset[0]) if offset.size else 0.0)
    return np.ma.array(values, mask=missing)


def _numbers_of(dataset: Any, key: str) -> NDArray[Any]:
    """The numbers [n] of an attribute, none if it is not there or empty; some programs write them
    as text. Raises CatalogError for what is no number."""
    value = dataset.attrs.get(key)
    if value is None or isinstance(value, h5py.Empty):
        return np.zeros(0)
    array = np.ravel(np.asarray(value))
    if array.dtype.kind in "fiu":
        return array
    texts = [text for text in _texts(value) if text]
    try:
        return np.array([float(text) for text in texts])
    except ValueError:
        name = one_line(str(dataset.name), 60)
        raise CatalogError(
            f"the attribute {key} of '{name}' is {one_line(', '.join(texts), 60)!r}: a number is "
            "needed, or none where no value is missing"
        ) from None


def stated_units(attributes: Any) -> list[str]:
    """The different texts of the attributes unit and units, written as whatever kind of text."""
    texts: list[str] = []
    for key in attributes:
        if key.lower() in ("unit", "units"):
            texts += _texts(attributes[key])
    return list(dict.fromkeys(texts))


def _texts(value: Any) -> list[str]:
    """The texts of an attribute: str, bytes, one or several of them in an array, or one as the
    codes of its characters, as MATLAB writes it."""
    if isinstance(value, h5py.Empty):
        return []
    codes = np.asarray(value)
    if codes.dtype.kind == "u" and 0 < codes.size <= MAX_CODES and codes.max() < 0x110000:
        text = "".join(map(chr, codes.ravel().tolist()))
        if text.isprintable():
            return [text.strip()]
    return [text.strip("\0 ") for text in _written(value)]


def _written(value: Any) -> list[str]:
    """Texts as they are in the file, with their spaces."""
    parts = np.ravel(np.asarray(value, object))
    return [a.decode(errors="replace") if isinstance(a, bytes) else str(a) for a in parts]


def description_of(dataset: Any) -> str:
    """The text of a dataset whose name ends in `DESCRIPTION`, a line for each of its rows, which
    begin with the spaces that mean something in YAML."""
    return "\n".join(line.rstrip("\0 ") for line in _written(content_of(dataset)))


def compound_units(file: Any, rows: Any) -> Units:
    """The units of the fields of a compound dataset, which astropy writes as YAML and others as one
    text per field."""
    if holds(file, rows.name + DESCRIPTION):
        return astropy_units(description_of(file[rows.name + DESCRIPTION]))
    names = rows.dtype.names
    units: Units = {}
    for key in rows.attrs:
        field = re.fullmatch(r"(?i)field_(\d+)_units?", key)
        if field and int(field[1]) < len(names):
            units[names[int(field[1])]] = "; ".join(_texts(rows.attrs[key]))
        elif key.lower() in ("unit", "units"):
            texts = _texts(rows.attrs[key])
            each = texts if len(texts) == len(names) else ["; ".join(texts)] * len(names)
            units |= dict(zip(names, each, strict=True))
    return units


class _PlainLoader(yaml.SafeLoader):
    """YAML with tags of other programs, whose content is taken as plain mappings and lists."""


def _plain(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    assert isinstance(node, yaml.ScalarNode)
    return loader.construct_scalar(node)


_PlainLoader.add_multi_constructor("!", _plain)


def astropy_units(text: str) -> Units:
    """The units in the description of columns that astropy puts into HDF5 and Parquet files."""
    content = _description(text)
    try:
        units = {}
        for column in content["datatype"]:
            unit = column.get("unit") or ""
            units[str(column["name"])] = str(unit["unit"] if isinstance(unit, dict) else unit)
    except (AttributeError, KeyError, TypeError) as error:
        raise CatalogError(f"a damaged description of its columns ({reason_of(error)})") from error
    return units


def astropy_meta(text: str) -> list[tuple[Any, Any]]:
    """What the same description says of the table as a whole, by name; nothing if it is damaged."""
    try:
        return list(dict(_description(text)["meta"] or {}).items())  # of a mapping, or of pairs
    except (CatalogError, KeyError, TypeError, ValueError):
        return []


def _description(text: str) -> Any:
    try:
        return yaml.load(text, _PlainLoader)
    except yaml.YAMLError as error:
        raise CatalogError(f"a damaged description of its columns ({reason_of(error)})") from error
