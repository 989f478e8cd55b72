"""An image in a FITS file and how its axes lie, from its header, read through astropy."""

from __future__ import annotations

import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.machine.files import DEBUG, reason_of
from streamtrain.machine.fitsfile import FitsError, check_fits

Float = NDArray[np.float64]

_AS_STORED = {"memmap": False, "do_not_scale_image_data": True}
ROTATED_DEG = 1.0
"""Angle against ra and dec beyond which an image's turn is noted [deg]."""
FITS_SUFFIXES = (".fits", ".fit", ".fts", ".fits.gz", ".fit.gz")
REST = ("RESTFRQ", "RESTFREQ")
LIGHT, PLANCK = 299792458.0, 6.62607015e-34
"""c [m/s] and h [J s]."""
_NUMBERS = re.compile(
    r"(CRVAL|CRPIX|CDELT|CROTA)\d+|(PC|CD|PV)\d+_\d+|(LON|LAT)POLE|RESTWAV|B(SCALE|ZERO)|BLANK"
)
_TEXTS = re.compile(r"C(TYPE|UNIT)\d+")
_LOGARITHMIC = {
    "WAVE-LOG": lambda wavelength: LIGHT / wavelength,
    "WAVN-LOG": lambda number: LIGHT * number,
    "ENER-LOG": lambda energy: energy / PLANCK,
}
"""Frequency of what wcslib does not turn into one, in SI units."""


@dataclass(frozen=True)
class Image:
    """Numbers of an image and what its header says."""

    values: NDArray[Any]
    """Pixels as astropy has them: the axes of the header in reverse order, NaN where BLANK says
    so."""
    header: Any
    wcs: Any
    """World coordinates of the axes, an astropy.wcs.WCS."""
    notes: tuple[str, ...] = ()
    """What was changed in the header to read it."""
    primary: Any = None
    """The header of the file's first unit, which may hold no image."""

    @property
    def types(self) -> str:
        """The CTYPE of all axes, for messages."""
        return ", ".join(str(name) or "-" for name in self.wcs.wcs.ctype)

    def axis(self, number: int) -> int:
        """Axis of `values` that is axis `number` (from 0) of the header; -1: it has none."""
        return max(self.values.ndim - 1 - number, -1)


def read_image(path: Path, axes: int, name: str, hdu: str | None = None) -> Image:
    """The image of `axes` axes or more in a FITS file.

    hdu: which, by number or EXTNAME. Without it: the only one, or the one whose EXTNAME is `name`.
    Raises FitsError, also with the list where there are several.
    """
    try:
        from astropy.io import fits
        from astropy.wcs import WCS
    except ImportError:
        raise FitsError("FITS needs `pip install astropy`, npz and HDF5 do not") from None
    try:
        check_fits(path)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with path.open("rb") as file, fits.open(file, **_AS_STORED) as units:
                number = _choose(units, axes, name, hdu)
                header, notes = _mended(units[number].header)
                primary = units[0].header.copy()
                packed = isinstance(units[number], fits.CompImageHDU)
                values = None if packed else _physical(np.asarray(units[number].data), header)
                wcs = _coordinates(WCS, header, units)
            if values is None:
                # uint=False: else BLANK is not looked at in unsigned integers
                with path.open("rb") as file, fits.open(file, memmap=False, uint=False) as units:
                    values = np.asarray(units[number].data)
        said = [" ".join(str(w.message).split()) for w in caught]
        cut = [text for text in said if "truncated" in text]
        if cut:
            raise OSError(cut[0])
    except FitsError:
        raise
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        raise FitsError(f"cannot be read, or is cut short: {reason_of(error)}") from error
    changed = (text for text in said if "Changed CTYPE" in text)
    return Image(values, header, wcs, (*notes, *changed), primary)


def _physical(stored: NDArray[Any], header: Any) -> NDArray[Any]:
    """The numbers that are meant by those of a file, BZERO + BSCALE * stored, NaN where integers
    are BLANK. Integers of 64 bits that are no more than moved stay exact."""
    scale, zero = float(header.get("BSCALE", 1.0)), float(header.get("BZERO", 0.0))
    blank = header.get("BLANK") if stored.dtype.kind in "iu" else None
    if blank is not None and blank != int(blank):
        raise FitsError(f"BLANK = {blank} in its header must be a whole number")
    lost = np.zeros(stored.shape, bool) if blank is None else stored == int(blank)
    if scale == 1.0 and zero == 0.0 and not lost.any():
        return stored
    if stored.dtype.kind in "iu" and stored.dtype.itemsize == 8 and scale == 1.0:
        if zero == 2.0**63:
            moved: NDArray[Any] = stored.astype(np.int64).view(np.uint64) ^ np.uint64(1 << 63)
        else:
            moved = stored.astype(np.float64) + zero
        return np.where(lost, np.nan, moved.astype(np.float64)) if lost.any() else moved
    return np.where(lost, np.nan, stored.astype(np.float64) * scale + zero)


def _mended(given: Any) -> tuple[Any, tuple[str, ...]]:
    """A header whose coordinates have the types that they are due, and what was changed. Raises
    FitsError for a text that is no number, and the like: wcslib would take it for 0."""
    header, notes = given.copy(), []
    for key in list(dict.fromkeys(header)):
        value = header[key] if key else ""
        if _TEXTS.fullmatch(key) and not isinstance(value, str):
            raise FitsError(f"{key} = {value!r} in its header must be text")
        if not _NUMBERS.fullmatch(key) or (type(value) in (int, float) and np.isfinite(value)):
            continue
        try:
            header[key] = float(value if isinstance(value, str) else "no number")
        except ValueError:
            raise FitsError(f"{key} = {value!r} in its header must be a number") from None
        notes.append(f"{key} = '{value}' is text in its header, and was read as a number")
    return header, tuple(notes)


def _choose(units: Any, axes: int, name: str, hdu: str | None) -> int:
    images = {
        k: unit
        for k, unit in enumerate(units)
        if unit.is_image and unit.header.get("NAXIS", 0) >= axes and unit.size
    }
    if not images:
        least = {2: "two", 3: "three"}[axes]
        raise FitsError(f"holds no image of {least} axes or more")
    if hdu is not None:
        found = [k for k, u in images.items() if hdu in (str(k), u.name) or hdu.upper() == u.name]
    elif len(images) == 1:
        found = list(images)
    else:
        found = [k for k, unit in images.items() if unit.name == name]
    if len(found) == 1:
        return found[0]
    parts = (
        f"{k} ({unit.name or 'no name'}, {' x '.join(map(str, unit.shape))})"
        for k, unit in images.items()
    )
    what = f"has not one image '{hdu}'" if hdu else "holds several images"
    how = "--hdu chooses one" if name == "MAP" else f"the one with the EXTNAME {name} would be used"
    raise FitsError(f"{what}: which of {', '.join(parts)}? {how}")


def _coordinates(kind: Any, header: Any, units: Any) -> Any:
    usable = header.copy()
    for key in REST:
        if isinstance(usable.get(key), str):  # --nu-rest-GHz can say it; wcslib would stop
            del usable[key]
    try:
        return kind(usable, units)
    except Exception as error:  # wcslib has many of its own
        raise FitsError(f"its coordinates cannot be read: {_of_wcslib(error)}") from None


def _of_wcslib(error: Exception) -> str:
    """What wcslib says, without where in its source."""
    return re.sub(r"ERROR \d+ in \w+\(\) at line \d+ of file \S+: ?", "", reason_of(error))


@dataclass(frozen=True)
class Plane:
    """How the pixels of an image lie on the sky, through its middle."""

    wcs: Any
    """World coordinates of the longitude and latitude axes alone, in this order."""
    ra_axis: int
    """Axis of the image's values along which ra changes most; dec changes along the other."""
    dec_axis: int
    ra_falls: bool
    dec_falls: bool
    width_deg: float
    """Angle on the sky of the pixel in the middle along `ra_axis`, times their number: a long way
    along a parallel is no great circle."""
    height_deg: float
    angle_deg: float
    """Angle of the axis of ra from the parallel, towards the pole [deg]."""
    swapped: bool
    """Whether the header's axis of longitude is the one along which dec changes most."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What to say of an image whose pixels do not lie along ra and dec, or whose coordinates
        are others than these."""
        told: tuple[str, ...] = ()
        if abs(self.angle_deg) > ROTATED_DEG or self.swapped:
            turned = f"{self.angle_deg:.1f} deg" + (" and a quarter turn" if self.swapped else "")
            told = (f"it is turned by {turned} against ra and dec, and used along its pixels",)
        names = (str(self.wcs.wcs.lngtyp), str(self.wcs.wcs.lattyp))
        if names != ("RA", "DEC"):
            told += (
                f"its coordinates are {' and '.join(names)}: they stand where ra and dec do, in "
                "--centre, too",
            )
        return told

    def oriented(self, plane: NDArray[Any]) -> NDArray[Any]:
        """Numbers [..., n_dec, n_ra] with dec and ra rising."""
        dec, ra = (slice(None, None, -1 if f else 1) for f in (self.dec_falls, self.ra_falls))
        return plane[..., dec, ra]


def plane_of(image: Image) -> Plane:
    """How an image lies on the sky. Raises FitsError for one that does not say it."""
    from astropy.wcs import WCSSUB_LATITUDE, WCSSUB_LONGITUDE

    axes = []
    for what, number in (("ra", image.wcs.wcs.lng), ("dec", image.wcs.wcs.lat)):
        if number < 0 or image.axis(number) < 0:
            raise FitsError(
                f"has no {what} axis: its CTYPE are {image.types}, a map needs such as RA---TAN, "
                "DEC--TAN and FREQ"
            )
        axes.append(image.axis(number))
    sky = _part(image, [WCSSUB_LONGITUDE, WCSSUB_LATITUDE], "sky")
    sizes = [image.values.shape[axis] for axis in axes]
    middle = [(size - 1) / 2.0 for size in sizes]
    across = []
    for k, size in enumerate(sizes):
        places = np.array([middle] * 4)
        places[:, k] = (-0.5, size - 0.5, middle[k] - 0.5, middle[k] + 0.5)
        world = sky.wcs_pix2world(places, 0)
        if not np.isfinite(world).all():
            raise FitsError("its header puts the ends of its axes nowhere on the sky")
        pixel, east, north = _across(world[2:])
        across.append((size * pixel, east, north))
    swapped = abs(across[1][1]) > abs(across[0][1])
    order = (1, 0) if swapped else (0, 1)
    (width, east, north), (height, _, up) = (across[k] for k in order)
    return Plane(
        sky,
        axes[order[0]],
        axes[order[1]],
        bool(east < 0.0),
        bool(up < 0.0),
        width,
        height,
        float(np.degrees(np.arctan2(north * np.sign(east), abs(east)))),
        swapped,
    )


def _across(world: Float) -> tuple[float, float, float]:
    """Angle on the sky between two points (ra, dec) [deg], and the unit vector from the first to
    the second (towards growing ra, dec)."""
    (ra0, dec0), (ra1, dec1) = np.radians(world)
    turn = (ra1 - ra0 + np.pi) % (2.0 * np.pi) - np.pi
    half = np.sin(0.5 * (dec1 - dec0)) ** 2
    half += np.cos(dec0) * np.cos(dec1) * np.sin(0.5 * turn) ** 2
    east, north = turn * np.cos(0.5 * (dec0 + dec1)), dec1 - dec0
    length = np.hypot(east, north)
    if not length > 0.0:
        raise FitsError("its header gives the two ends of an axis the same place on the sky")
    return (
        float(np.degrees(2.0 * np.arcsin(np.sqrt(half)))),
        float(east / length),
        float(north / length),
    )


def channel_edges_GHz(image: Image, nu_rest_GHz: float | None = None) -> tuple[Float, int, str]:
    """Edges of the channels [n + 1] in the order of the file, the axis of the image's values, and
    its CTYPE; wavelengths and velocities become frequencies by wcslib.

    nu_rest_GHz: of the line, instead of what the header says. Raises FitsError.
    """
    from astropy.wcs import WCSSUB_SPECTRAL

    number = image.wcs.wcs.spec
    if number < 0 or image.axis(number) < 0:
        raise FitsError(
            f"has no frequency axis: its CTYPE are {image.types}, a map needs such as RA---TAN, "
            "DEC--TAN and FREQ"
        )
    axis = image.axis(number)
    wcs = _part(image, [WCSSUB_SPECTRAL], "frequency")
    kind = str(wcs.wcs.ctype[0])
    if nu_rest_GHz is not None:
        wcs.wcs.restfrq, wcs.wcs.restwav = nu_rest_GHz * 1e9, 0.0
    to_hertz = _LOGARITHMIC.get(kind, lambda hertz: hertz)
    try:
        if not kind.startswith("FREQ") and kind not in _LOGARITHMIC:
            wcs.wcs.sptr("FREQ-???")
        places = np.arange(image.values.shape[axis] + 1) - 0.5
        with np.errstate(divide="ignore"):
            edges = to_hertz(np.asarray(wcs.wcs_pix2world(places[:, None], 0)[:, 0])) / 1e9
    except Exception as error:  # wcslib has many of its own
        velocity = kind[:4] in ("VRAD", "VOPT", "ZOPT", "VELO", "BETA")
        lacks = velocity and not (wcs.wcs.restfrq or wcs.wcs.restwav)
        reason = f" ({_of_wcslib(error)})"
        hint = "; it has no RESTFRQ, --nu-rest-GHz gives one" if lacks else reason
        raise FitsError(
            f"CTYPE{number + 1} = '{kind}' cannot be turned into a frequency{hint}"
        ) from None
    with np.errstate(invalid="ignore"):
        steps = np.diff(edges)
    if not (edges > 0).all() or not ((steps > 0).all() or (steps < 0).all()):
        raise FitsError(
            f"its axis {number + 1} ({kind}) runs from {edges[0]:g} to {edges[-1]:g} GHz, not "
            "through rising or falling positive frequencies"
        )
    return edges, axis, kind


def _part(image: Image, axes: list[int], what: str) -> Any:
    try:
        return image.wcs.sub(axes)
    except Exception:  # wcslib has many of its own
        raise FitsError(
            f"its header ties the {what} to other axes (PC or CD), so that pixels have no "
            f"{what} of their own"
        ) from None
