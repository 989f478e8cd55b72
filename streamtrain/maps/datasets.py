"""Arrays of an HDF5 file that holds a map: their numbers as they are meant, marks of missing values
included."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from streamtrain.machine.files import one_line
from streamtrain.machine.hdf5file import MARKS, content_of, fill_value, holds, object_of
from streamtrain.maps.skymap import MapError, check_numbers, number_of

PACKING = {"scale_factor": 1.0, "add_offset": 0.0}
"""Attributes of netCDF, and what they are where they are missing."""


def is_dataset(file: Any, name: str) -> bool:
    """Whether a file has the dataset `name`."""
    return holds(file, name) and isinstance(object_of(file, name), h5py.Dataset)


def array_of(file: Any, name: str, source: str) -> NDArray[Any]:
    """The numbers of the dataset `name` as they are stored. Raises MapError where there are
    none."""
    dataset = object_of(file, name) if holds(file, name) else None
    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
        there = one_line(", ".join(sorted(file)))
        raise MapError(
            f"{source} has no dataset {name}"
            + (" that holds anything" if dataset else f" (it holds {there})" if there else "")
        )
    values = content_of(dataset)
    check_numbers(values, name, source)
    return values


def said(about: Any, name: str) -> Any:
    """An attribute; None for one that is empty."""
    value = about.get(name)
    return None if isinstance(value, h5py.Empty) else value


def unpacked(
    values: NDArray[Any], dataset: Any, source: str
) -> tuple[NDArray[Any], tuple[float, ...], tuple[str, ...]]:
    """Numbers of a dataset and the marks of missing values, both after netCDF's scale_factor and
    add_offset, and what to say of these."""
    marks = _marks(dataset, source)
    given = {name: dataset.attrs[name] for name in PACKING if name in dataset.attrs}
    if not given:
        return values, marks, ()
    scale, offset = (
        number_of(given[name], name, source) if name in given else default
        for name, default in PACKING.items()
    )
    if values.dtype.kind == "f":
        marks = tuple(float(values.dtype.type(mark)) for mark in marks)
    told = f"its numbers were multiplied by {scale:g}" + (f", plus {offset:g}" if offset else "")
    return (
        np.asarray(values, np.float64) * scale + offset,
        tuple(mark * scale + offset for mark in marks),
        (f"{told}, as {' and '.join(given)} say",),
    )


def meant(values: NDArray[Any], dataset: Any, source: str) -> NDArray[Any]:
    """Numbers of a dataset after `unpacked`, NaN where they are a mark of a missing value."""
    found, marks, _ = unpacked(values, dataset, source)
    if not marks:
        return found
    kind = found.dtype.type if found.dtype.kind == "f" else np.float64
    with np.errstate(over="ignore"):
        lost = np.isin(found, [kind(mark) for mark in marks])
    return np.where(lost, kind(np.nan), found) if lost.any() else found


def _marks(dataset: Any, source: str) -> tuple[float, ...]:
    """Numbers that stand for no value: as attributes say, or the fill value that was chosen."""
    said = [*(dataset.attrs.get(name) for name in MARKS), fill_value(dataset)]
    marks = [value for given in said if given is not None for value in np.ravel(given)]
    numbers = []
    for mark in marks:
        kind = np.asarray(mark).dtype.kind
        if kind in "iuf" and not np.isfinite(mark):
            continue
        numbers.append(number_of(mark, "the mark of missing values (_FillValue)", source))
    return tuple(dict.fromkeys(numbers))
