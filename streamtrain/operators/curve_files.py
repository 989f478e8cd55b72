"""What was measured of an instrument, from a user's file: a curve, or named arrays."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from streamtrain.machine.files import (
    DEBUG,
    check_npz,
    one_line,
    read_text,
    reason_of,
    sha256_of,
    why_not_a_file,
)
from streamtrain.machine.hdf5file import content_of, dataset_of, group_of, holds
from streamtrain.operators.voxel_files import pixels_digest
from streamtrain.schema import AssumptionWarning, ConfigError, warn

Float = NDArray[np.float64]
Arrays = dict[str, Float]
T = TypeVar("T")

NOTHING = 1e-7
"""A response below this share of its peak counts as none at the ends of a curve."""
NEGLIGIBLE = 1e-3
"""A curve that ends with more than this share of its peak does not reach zero."""
HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf", ".he5")
UNITS = (
    r"(?<![A-Za-z])(arc ?min(?:ute)?s?|arc ?sec(?:ond)?s?|degrees?|deg|radians?|rad|"
    r"[kKMGT]?Hz|k?m/s)(?![A-Za-z])"
)
"""Words in a table's head that are taken for the unit of its first column."""


def reading(read: Callable[[Path], T], path: str, where: str) -> T:
    """What `read` makes of a file. Raises ConfigError, one sentence that begins with `where`, also
    for every error of `read`."""
    if not Path(path).exists():
        raise ConfigError(f"{where}: there is no file {path}")
    if problem := why_not_a_file(path):
        raise ConfigError(f"{where}: {path}: {problem}")
    try:
        return read(Path(path))
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        raise ConfigError(f"{where}: {path} cannot be used: {reason_of(error)}") from error


def assume(where: str, text: str) -> None:
    """Say what had to be assumed."""
    warn(f"{where}: {text}", AssumptionWarning)


def read_arrays(path: Path, group: str, names: Sequence[str]) -> Arrays:
    """Arrays of an HDF5 file, in `group` or at its root, or of an npz file. Raises ValueError for
    one that is not there or that holds no numbers."""
    if path.name.lower().endswith(HDF5_SUFFIXES) or h5py.is_hdf5(path):
        with h5py.File(path) as file:
            home = group_of(file, group) if holds(file, group) else file
            found = {n: content_of(dataset_of(home, n)) for n in names if holds(home, n)}
    else:
        found = _npz_arrays(path, names)
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(f"it holds no {' and no '.join(missing)}")
    return {name: _numbers(name, values) for name, values in found.items()}


def _npz_arrays(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    if not zipfile.is_zipfile(path):
        raise ValueError("it is neither HDF5 nor npz")
    with np.load(path, allow_pickle=False) as file:
        check_npz(file.zip)
        return {name: file[name] for name in names if name in file.files}


def _numbers(name: str, values: NDArray[Any]) -> Float:
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{name} holds {values.dtype}, not numbers")
    return np.asarray(values, np.float64)


def arrays_digest(arrays: Sequence[Float]) -> str:
    """Digest of numbers and shapes, not of the file that they came from."""
    return sha256_of([pixels_digest(values) for values in arrays])


@dataclass(frozen=True)
class Curve:
    """A response that was measured at places, straight between them and nothing beyond."""

    place: Float
    """Places where it was measured, rising [num]."""
    response: Float
    """Response at each place, not negative [num]."""

    def at(self, place: Float) -> Float:
        """The response at places of any shape, with the same bits everywhere."""
        left = np.clip(np.searchsorted(self.place, place, "right") - 1, 0, len(self.place) - 2)
        start, width = self.place[left], np.diff(self.place)[left]
        low, rise = self.response[left], np.diff(self.response)[left]
        inside = (place >= self.place[0]) & (place <= self.place[-1])
        return np.where(inside, low + rise * ((place - start) / width), 0.0)

    def digest(self) -> str:
        """Digest of its numbers."""
        return arrays_digest([self.place, self.response])


def read_curve(path: str, names: tuple[str, str], unit: str, where: str) -> Curve:
    """A curve from a text file of two columns (place in `unit`, response), or from the arrays
    `names` of an npz file.

    Columns are separated by commas, semicolons or blanks; what follows a # is a comment, and a line
    of words may stand at the head. Response far below its peak is cut off at the ends (`NOTHING`).
    Raises ConfigError, one sentence that begins with `where`.
    """

    def read(file: Path) -> Curve:
        if zipfile.is_zipfile(file):
            arrays = read_arrays(file, "/", names)
            place, response = (arrays[name].ravel() for name in names)
        else:
            place, response = _columns(read_text(file), names, unit)
        return _checked(place, response, names)

    return reading(read, path, where)


def _columns(text: str, names: tuple[str, str], unit: str) -> tuple[Float, Float]:
    rows: list[list[float]] = []
    head = ""
    for line in text.splitlines():
        content, _, comment = line.partition("#")
        words = re.split(r"[\s,;]+", content.strip(" \t,;"))
        try:
            row = [float(word) for word in words if word]
        except ValueError:
            if rows:
                raise ValueError(
                    f"'{one_line(content.strip(), 40)}' is no row of numbers"
                ) from None
            head += content
            continue
        head += "" if rows else comment
        if row:
            rows.append(row)
    wrong = [u for u in re.findall(UNITS, head) if not u.startswith(unit)]
    if wrong:
        raise ValueError(f"its head says {wrong[0]}, but {names[0]} is expected in {unit}")
    widths = sorted({len(row) for row in rows})
    if widths == [1]:
        raise ValueError(
            f"it has one column of {len(rows)} numbers: the {names[0]} [{unit}] of each is "
            f"missing, a column before that of the {names[1]}"
        )
    if widths != [2]:
        raise ValueError(f"its rows have {widths or 'no'} columns, not two: {', '.join(names)}")
    table = np.array(rows)
    return table[:, 0], table[:, 1]


def _checked(place: Float, response: Float, names: tuple[str, str]) -> Curve:
    if len(place) != len(response) or len(place) < 2:
        raise ValueError(
            f"it has {len(place)} numbers of {names[0]}, {len(response)} of {names[1]}"
        )
    if not (np.isfinite(place).all() and np.isfinite(response).all()):
        raise ValueError("it holds NaN or infinity")
    if not (np.diff(place) > 0.0).all():
        raise ValueError(f"{names[0]} must rise from row to row")
    if (response < 0.0).any():
        first = int(np.argmax(response < 0.0))
        raise ValueError(
            f"its response is negative, {response[first]:g}, at {names[0]} = {place[first]:g}"
        )
    seen = np.flatnonzero(response > NOTHING * response.max())
    if not len(seen):
        raise ValueError("its response is zero")
    kept = slice(max(int(seen[0]) - 1, 0), int(seen[-1]) + 2)
    return Curve(place[kept], response[kept])
