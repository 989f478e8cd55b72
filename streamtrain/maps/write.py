"""A cube as a FITS file, with the coordinates that its voxels have."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from streamtrain._version import __version__
from streamtrain.arguments import given_cube, number, ra_dec, truth_value
from streamtrain.grid import DEG, Grid
from streamtrain.machine.files import writing
from streamtrain.maps.fitsimage import FITS_SUFFIXES
from streamtrain.maps.skymap import MapError, parse_units

KINDS = {"uK": "Brightness temperature", "Jy/sr": "Intensity"}
"""BTYPE of a map by the units that it has after all factors."""
CARD = 72
"""Characters of a comment in a header, which longer ones are broken into in mid-word."""


def write_fits(
    path: str | Path,
    cube: ArrayLike,
    grid: Grid,
    *,
    centre_deg: tuple[float, float] = (0.0, 0.0),
    roll_deg: float = 0.0,
    mirror: bool = False,
    units: str | None = None,
    about: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a cube as a FITS file that `Run.infer`, `streamtrain map info` and astropy read.

    cube: [n_freq, n_dec, n_ra] of the grid, or of whole numbers of its voxels joined (a pool);
    array or tensor, of `paint` or one of a `Batch`. centre_deg: (ra, dec) of the field's middle;
    roll_deg, mirror: how it was turned and mirrored, as of `paint`. units: of the cube, such as uK
    or Jy/sr; default: those of the grid; "" for numbers without a unit, as after log_modulus.
    about: what the map is, which becomes comments. overwrite: replace a file that is there.

    The axes of the image are those of the cube, so frequency falls and ra rises with the index. The
    pixels have equal steps in ra and dec as seen from the field's middle, which is the projection
    CAR about that; the frequency is in Hz, RESTFRQ that of the line. Returns the path. Raises
    ValueError, one sentence, for what cannot be written.

    >>> from streamtrain import Grid, Lightcone, paint, write_fits
    >>> sky = Lightcone.open("reference_0000.h5")
    >>> grid = Grid(fov_deg=(0.35, 0.35), shape=(10, 32, 32))
    >>> cube, counts = paint(sky, grid, "li16", min_mass_Msun=5e10)
    >>> write_fits("map.fits", cube, grid, about={"model": "li16"})
    PosixPath('map.fits')
    """
    try:
        from astropy.io import fits
    except ImportError:
        raise MapError("FITS needs `pip install astropy`") from None
    target = _target(path, truth_value(overwrite, "overwrite"))
    if not isinstance(grid, Grid):
        raise MapError(f"write_fits needs the Grid of the cube, not a {type(grid).__name__}")
    bunit = grid.units if units is None else _units(units)
    values = _values(cube, grid, bunit)
    header = fits.Header()
    for key, value in _coordinates(
        values.shape,
        grid,
        ra_dec(centre_deg, "centre_deg"),
        number(roll_deg, "roll_deg", "deg"),
        truth_value(mirror, "mirror"),
    ).items():
        header[key] = value
    if bunit:
        header["BUNIT"], header["BTYPE"] = bunit, KINDS[parse_units(bunit, "units").kind]
    if not (about is None or isinstance(about, Mapping)):
        raise MapError(f"about must be a mapping like {{'model': 'li16'}}, not {about!r:.80}")
    header["ORIGIN"] = f"streamtrain {__version__}"
    for name, value in (about or {}).items():
        text = f"{name}: {_plainly(value)}".encode("ascii", "replace").decode()
        for line in textwrap.wrap(text, CARD, subsequent_indent="  "):
            header.add_comment(line)
    target.parent.mkdir(parents=True, exist_ok=True)
    with writing(target) as part, part.open("wb") as stream:
        fits.PrimaryHDU(values, header).writeto(stream)
    return target


def _plainly(value: Any) -> str:
    """A value of `about` as text; a mapping as name=value."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={each}" for name, each in value.items())
    return str(value)


def _target(path: Any, overwrite: bool) -> Path:
    if not isinstance(path, str | Path):
        raise MapError(f"write_fits needs the name of a file first, not a {type(path).__name__}")
    target = Path(path)
    if not target.name.lower().endswith((".fits", ".fit", ".fts")):
        known = ", ".join(name for name in FITS_SUFFIXES if not name.endswith(".gz"))
        raise MapError(f"{target}: the name of a FITS file ends in {known}")
    if os.path.lexists(target) and not overwrite:
        raise MapError(f"{target} is there already: overwrite=True replaces it")
    return target


def _values(cube: Any, grid: Grid, units: str) -> NDArray[Any]:
    """The cube's numbers in these units, as they are written."""
    if isinstance(cube, tuple) or hasattr(cube, "draws"):
        raise MapError(
            "write_fits takes a cube, not what it came with: painted.cube, or batch.cube[0]"
        )
    given = given_cube(cube, "write_fits: the cube")
    values = given.to(units)
    if values.ndim == 4:
        raise MapError(f"the cube holds {len(values)} maps, a file one: write cube[0], cube[1] ...")
    fits_in = values.ndim == 3 and all(
        have and whole % have == 0 for have, whole in zip(values.shape, grid.shape, strict=True)
    )
    if not fits_in:
        raise MapError(
            f"the cube has the shape {values.shape}, the grid {grid.shape} (freq, dec, ra), or "
            "whole numbers of its voxels joined"
        )
    kind = "<f8" if values.dtype == np.float64 else "<f4"
    written = np.array(values, kind)
    if given.masked is not None:
        written[given.masked] = np.nan
    return written


def _units(units: Any) -> str:
    if not isinstance(units, str):
        raise MapError(f"units must be text, such as 'uK', not a {type(units).__name__}")
    if units:
        parse_units(units, "write_fits")
    return units


def _coordinates(
    shape: tuple[int, ...],
    grid: Grid,
    centre_deg: tuple[float, ...],
    roll_deg: float,
    mirror: bool,
) -> dict[str, Any]:
    """Cards of the axes. A voxel lies at the ra and dec of the field's own frame, r' = Rz(roll)
    C(centre) r, where C turns the centre to +z: these are the native coordinates of CAR about the
    field's middle. Of a field that is rolled the pole of that frame is given instead (PV), which
    the middle does not tell where its dec is 0."""
    num_freq, num_dec, num_ra = shape
    step_ra, step_dec = grid.fov_deg[0] / num_ra, grid.fov_deg[1] / num_dec
    dnu = 1e9 * (grid.nu_GHz[0] - grid.nu_GHz[1]) / num_freq
    cards: dict[str, Any] = {}
    reference = (centre_deg[0], centre_deg[1])
    if roll_deg % 360.0:
        reference, cards["LONPOLE"] = _pole_deg(centre_deg, roll_deg)
        cards |= {"PV1_1": 0.0, "PV1_2": 90.0}
    axes = {
        1: ("RA---CAR", "deg", 0.5 * (num_ra + 1), reference[0] % 360.0, step_ra),
        2: ("DEC--CAR", "deg", 0.5 * (num_dec + 1), reference[1], step_dec),
        3: ("FREQ", "Hz", 1.0, 1e9 * grid.nu_GHz[0] - 0.5 * dnu, -dnu),
    }
    for axis, values in axes.items():
        for key, value in zip(("CTYPE", "CUNIT", "CRPIX", "CRVAL", "CDELT"), values, strict=True):
            cards[f"{key}{axis}"] = value
    if mirror:
        cards["CDELT1"] = -step_ra
    return cards | {"RADESYS": "ICRS", "RESTFRQ": 1e9 * grid.nu_rest_GHz}


def _pole_deg(centre_deg: tuple[float, ...], roll_deg: float) -> tuple[tuple[float, float], float]:
    """(ra, dec) of the pole of a field's own frame, and the ra in that frame of the sky's pole."""
    ra, dec, roll = (angle * DEG for angle in (*centre_deg, roll_deg))
    first = np.array([np.cos(ra), 0.0, np.sin(ra)])  # rows of C, see generator/pose.py
    second = np.array([np.sin(ra) * np.sin(dec), np.cos(dec), -np.cos(ra) * np.sin(dec)])
    x, y, z = np.sin(roll) * first + np.cos(roll) * second
    place = float(np.arctan2(-x, z) / DEG), float(np.arcsin(np.clip(y, -1.0, 1.0)) / DEG)
    return place, float(np.arctan2(np.sin(roll) * np.cos(dec), np.sin(dec)) / DEG)
