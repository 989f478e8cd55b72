"""A user's map from a file of any known layout."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import h5py

from streamtrain.machine.files import reading
from streamtrain.machine.fitsimage import FITS_SUFFIXES
from streamtrain.maps.fits import read_fits
from streamtrain.maps.hdf5 import read_hdf5
from streamtrain.maps.npz import read_npz
from streamtrain.maps.skymap import MapError, SkyMap, parse_units, without_marks

SUFFIXES = {
    "fits": FITS_SUFFIXES,
    "npz": (".npz",),
    "hdf5": (".h5", ".hdf5", ".hd5", ".hdf"),
}
REST_TOLERANCE = 1e-3
"""Rest frequencies nearer than this, relative, are those of one line."""


def read_map(
    path: str | Path,
    *,
    units: str | None = None,
    nu_rest_GHz: float | None = None,
    index: int | None = None,
    hdu: str | None = None,
    no_value: float | None = None,
) -> SkyMap:
    """Read a FITS cube, an npz file or an HDF5 file; docs/infer.md has the layouts.

    units, nu_rest_GHz: what a file does not say, or says wrongly; index: which sample of an
    exported file; hdu: which image of a FITS file, by number or EXTNAME; no_value: the number that
    stands for no value, NaN if none does but NaN. Raises MapError (a ValueError), one sentence that
    names the file, for what cannot be read or has no geometry.
    """
    file = Path(path)
    if not file.exists():
        raise MapError(f"there is no map {path}")
    with reading(file, MapError, "cannot be read, or is cut short"):
        return _read(file, units, nu_rest_GHz, index, hdu, no_value)


def _read(
    path: Path,
    units: str | None,
    nu_rest_GHz: float | None,
    index: int | None,
    hdu: str | None,
    no_value: float | None,
) -> SkyMap:
    kind = _kind(path)
    if kind != "hdf5" and index is not None:
        raise MapError(f"{path} holds one map: --index is of a file with several samples")
    if kind != "fits" and hdu is not None:
        raise MapError(f"{path} is no FITS file: --hdu is of one with several images")
    if nu_rest_GHz is not None and not nu_rest_GHz > 0.0:
        raise MapError(f"--nu-rest-GHz {nu_rest_GHz:g} must be positive")
    if kind == "fits":
        found = read_fits(path, hdu, nu_rest_GHz)
    elif kind == "npz":
        found = read_npz(path, nu_rest_GHz)
    else:
        found = read_hdf5(path, index, nu_rest_GHz)
    return without_marks(_with_units(_with_rest(found, nu_rest_GHz), units), no_value)


def _kind(file: Path) -> str:
    """fits, npz or hdf5: by what is in the file, else by its name."""
    with file.open("rb") as stream:
        start = stream.read(9)
    if start.startswith(b"SIMPLE  ="):
        return "fits"
    if zipfile.is_zipfile(file):
        return "npz"
    if h5py.is_hdf5(file):
        return "hdf5"
    for kind, suffixes in SUFFIXES.items():
        if file.name.lower().endswith(suffixes):
            return kind
    raise MapError(f"{file} is no map in FITS, npz or HDF5")


def _with_units(found: SkyMap, units: str | None) -> SkyMap:
    if units is not None:
        given = parse_units(units, "--units")
        if found.done is not None and not found.units:
            raise MapError(f"{found.source} is in numbers without a unit, --units says {units}")
        try:
            same = not found.units or parse_units(found.units, found.source) == given
        except MapError:
            same = False
        if not same:
            note = f"it says that it is in {found.units}, and was read as {units} (--units)"
            return replace(found, units=units, notes=(*found.notes, note))
        return replace(found, units=units)
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
