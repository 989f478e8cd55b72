"""A user's map from a file of any known layout."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from streamtrain.arguments import all_numbers, given_cube, number, truth_value, whole_number
from streamtrain.grid import Grid
from streamtrain.machine.files import reading
from streamtrain.maps.fits import read_fits
from streamtrain.maps.fitsimage import FITS_SUFFIXES
from streamtrain.maps.hdf5 import read_hdf5
from streamtrain.maps.missing import with_doubtful_zeros, without_marks, without_unseen
from streamtrain.maps.npz import read_npz
from streamtrain.maps.skymap import (
    MapError,
    SkyMap,
    frequency_axis,
    no_feeds,
    one_map,
    parse_units,
    same_units,
    sky_axis,
)


@dataclass(frozen=True)
class Said:
    """What a user says of a file; None where the file says it itself."""

    nu_rest_GHz: float | None = None
    """Rest frequency of the line [GHz], instead of what the file says."""
    index: int | None = None
    """Number of the sample that is read from an exported file with several."""
    hdu: str | None = None
    """Number or EXTNAME of the image that is read from a FITS file with several."""
    units: str | None = None
    """Units of the map, instead of what the file says."""
    sum_feeds: bool = False
    """Whether the feeds of a file with a map for each are summed."""


@dataclass(frozen=True)
class Format:
    """A format of maps."""

    title: str
    suffixes: tuple[str, ...]
    """Endings of file names, for where the content does not tell."""
    holds: Callable[[Path], bool]
    """Whether a file is of it, by its content."""
    read: Callable[[Path, Said], SkyMap]


def _starts_as_fits(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(9) == b"SIMPLE  ="


FORMATS = {
    "fits": Format(
        "FITS",
        FITS_SUFFIXES,
        _starts_as_fits,
        lambda path, said: read_fits(path, said.hdu, said.nu_rest_GHz, said.sum_feeds),
    ),
    "npz": Format(
        "npz",
        (".npz",),
        zipfile.is_zipfile,
        lambda path, said: read_npz(path, said.nu_rest_GHz),
    ),
    "hdf5": Format(
        "HDF5",
        (".h5", ".hdf5", ".hd5", ".hdf"),
        h5py.is_hdf5,
        lambda path, said: read_hdf5(
            path, said.index, said.nu_rest_GHz, said.units, said.sum_feeds
        ),
    ),
}
"""Every format of maps; of two that a file could be, the first."""
REST_TOLERANCE = 1e-3
"""Rest frequencies nearer than this, relative, are those of one line."""


def read_map(
    path: str | Path,
    *,
    units: str | None = None,
    nu_rest_GHz: float | None = None,
    index: int | None = None,
    hdu: str | int | None = None,
    no_value: float | None = None,
    sum_feeds: bool = False,
    need_units: bool = True,
) -> SkyMap:
    """Read a FITS cube, an npz file or an HDF5 file; docs/infer.md has the layouts.

    units, nu_rest_GHz: what a file does not say, or says wrongly; index: which sample of an
    exported file; hdu: which image of a FITS file, by number or EXTNAME; no_value: the number that
    stands for no value, NaN if none does but NaN; sum_feeds: of a file with a map for each feed,
    their sum with weights 1/sigma^2; need_units: False where a map without known units will do.
    Voxels that nobody observed, without hits or a sigma, are NaN. Raises MapError (a ValueError),
    one sentence that names the file, for what cannot be read or has no geometry.
    """
    file = Path(path)
    if not file.exists():
        raise MapError(f"there is no map {path}")
    said, no_value = _checked(units, nu_rest_GHz, index, hdu, no_value, sum_feeds)
    with reading(file, MapError, "cannot be read, or is cut short"):
        found = _with_rest(_read(file, said), said.nu_rest_GHz)
        found = _with_units(found, units, need_units)
        return with_doubtful_zeros(without_marks(without_unseen(found), no_value))


def map_of_array(values: Any, grid: Grid, *, units: str, no_value: float | None = None) -> SkyMap:
    """An array [n_freq, n_dec, n_ra] as a map of a grid's line, band and field, from high to low
    frequency and from low to high dec and ra.

    units: of its numbers, as in a file; no_value: see `read_map`. Masked voxels are NaN. A note
    says that the coordinates are the grid's. Raises MapError, one sentence, for what is no such
    array, or is in another unit by its own account.
    """
    source = "the array"
    said, mark = _checked(units, None, None, None, no_value, False)
    parse_units(units, "units")
    try:
        given = given_cube(values, source)
    except ValueError as error:
        raise MapError(str(error)) from None
    if given.unit is not None and not same_units(str(given.unit), units):
        raise MapError(f"{source} is in '{given.unit}', units says {units}")
    cube = given.values
    if cube.ndim != 3 or not cube.size:
        raise MapError(
            f"{source} has the shape {cube.shape}, where a map has three axes (freq, dec, ra)"
        )
    if cube.shape != grid.shape:
        for order in permutations(range(3)):
            if tuple(cube.shape[axis] for axis in order) == grid.shape:
                raise MapError(
                    f"{source} has the shape {cube.shape}, the run's grid {grid.shape} (freq, dec, "
                    f"ra): with its axes in the order {order} it would fit, by np.transpose"
                )
    if given.masked is not None:
        cube = np.where(given.masked, np.nan, cube)
    fov_ra, fov_dec = grid.fov_deg
    num_freq, num_dec, num_ra = cube.shape
    note = (
        f"an array in {units} without coordinates, which were taken to be those of the run: "
        f"{grid.nu_GHz[0]:g} to {grid.nu_GHz[1]:g} GHz, {fov_ra:g} x {fov_dec:g} deg (ra, dec), "
        "its axes [freq, dec, ra], from high to low frequency and from low to high dec and ra"
    )
    found = SkyMap(
        cube,
        frequency_axis(np.linspace(*grid.nu_GHz, num_freq + 1)),
        sky_axis(np.linspace(-0.5, 0.5, num_dec + 1) * fov_dec),
        sky_axis(np.linspace(-0.5, 0.5, num_ra + 1) * fov_ra),
        units=said.units,
        nu_rest_GHz=grid.nu_rest_GHz,
        source=source,
        layout="array",
        notes=(note,),
        axes=("freq", "dec", "ra"),
    )
    return without_marks(found, mark)


def _checked(
    units: Any, nu_rest_GHz: Any, index: Any, hdu: Any, no_value: Any, sum_feeds: Any
) -> tuple[Said, float | None]:
    """What a user says of a file, and the number that stands for no value, in their types. Raises
    MapError, one sentence."""
    try:
        if not isinstance(units, str | None):
            raise ValueError(f"units must be text, such as 'uK', not {units!r:.40}")
        if not isinstance(hdu, str | None):
            hdu = str(whole_number(hdu, "hdu, which is no EXTNAME,"))
        mark = None if no_value is None else all_numbers(no_value, "no_value")
        if mark is not None and mark.ndim:
            raise ValueError(f"no_value must be one number, not {no_value!r:.40}")
        said = Said(
            None if nu_rest_GHz is None else number(nu_rest_GHz, "nu_rest_GHz", "GHz"),
            None if index is None else whole_number(index, "index"),
            hdu,
            units,
            truth_value(sum_feeds, "sum_feeds"),
        )
        return said, None if mark is None else float(mark)
    except ValueError as error:
        raise MapError(str(error)) from None


def _read(path: Path, said: Said) -> SkyMap:
    kind = _kind(path)
    if kind != "hdf5" and said.index is not None:
        raise one_map(str(path))
    if kind != "fits" and said.hdu is not None:
        raise MapError(f"{path} is no FITS file: --hdu is of one with several images")
    if kind == "npz" and said.sum_feeds:
        raise no_feeds(str(path))
    if said.nu_rest_GHz is not None and not said.nu_rest_GHz > 0.0:
        raise MapError(f"--nu-rest-GHz {said.nu_rest_GHz:g} must be positive")
    return FORMATS[kind].read(path, said)


def _kind(file: Path) -> str:
    """The name of the format: by what is in the file, else by its name."""
    for kind, format in FORMATS.items():
        if format.holds(file):
            return kind
    for kind, format in FORMATS.items():
        if file.name.lower().endswith(format.suffixes):
            return kind
    *others, last = (format.title for format in FORMATS.values())
    raise MapError(f"{file} is no map in {', '.join(others)} or {last}")


def _with_units(found: SkyMap, units: str | None, needed: bool) -> SkyMap:
    if units is not None:
        parse_units(units, "--units")
        if found.done is not None and not found.units:
            raise MapError(f"{found.source} is in numbers without a unit, --units says {units}")
        if found.units and not same_units(found.units, units):
            note = f"it says that it is in {found.units}, and was read as {units} (--units)"
            return replace(found, units=units, notes=(*found.notes, note))
        return replace(found, units=units)
    if not needed:
        return found
    if found.units is None:
        raise MapError(
            f"{found.source} ({found.layout}) does not say its units: give --units, such as uK or "
            "Jy/sr"
        )
    if found.units:
        try:
            parse_units(found.units, found.source)
        except MapError as error:
            raise MapError(f"{error}; --units says what they are") from None
    elif found.done is None:
        raise MapError(f"{found.source}: its units are empty: give --units, such as uK or Jy/sr")
    return found


def _with_rest(found: SkyMap, nu_rest_GHz: float | None) -> SkyMap:
    if nu_rest_GHz is None:
        return found
    stated = found.nu_rest_GHz
    notes = found.notes
    if stated is not None and abs(stated / nu_rest_GHz - 1.0) > REST_TOLERANCE:
        notes += (f"it says that its line is at {stated:g} GHz, and was read as of one at "
                  f"{nu_rest_GHz:g} GHz (--nu-rest-GHz)",)  # fmt: skip
    return replace(found, nu_rest_GHz=nu_rest_GHz, notes=notes)
