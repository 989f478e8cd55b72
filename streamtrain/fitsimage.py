"""An image in a FITS file and how its axes lie, from its header, read through astropy."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

FITS_SUFFIXES = (".fits", ".fit", ".fts", ".fits.gz", ".fit.gz")


REST = ("RESTFRQ", "RESTFREQ")


class FitsError(ValueError):
    """An image that cannot be used; the message is one sentence without the name of the file."""


@dataclass(frozen=True)
class Image:
    """Numbers of an image and what its header says."""

    values: NDArray[Any]
    """As astropy has them: the axes of the header in reverse order. NaN where BLANK says so."""
    header: Any
    wcs: Any
    """astropy.wcs.WCS."""
    notes: tuple[str, ...] = ()
    """What wcslib changed in the types of axes."""

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
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            # uint=False: else BLANK is not looked at in unsigned integers
            with fits.open(path, memmap=False, uint=False) as units:
                unit = _choose(units, axes, name, hdu)
                values, header = np.asarray(unit.data), unit.header.copy()
                wcs = _coordinates(WCS, header, units)
        said = [" ".join(str(w.message).split()) for w in caught]
        cut = [text for text in said if "truncated" in text]
        if cut:
            raise OSError(cut[0])
    except FitsError:
        raise
    except (OSError, ValueError, TypeError, EOFError, IndexError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FitsError(f"cannot be read, or is cut short: {reason}") from None
    return Image(values, header, wcs, tuple(text for text in said if "Changed CTYPE" in text))


def _choose(units: Any, axes: int, name: str, hdu: str | None) -> Any:
    images = {
        k: unit
        for k, unit in enumerate(units)
        if unit.is_image and unit.header.get("NAXIS", 0) >= axes and unit.data is not None
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
        return images[found[0]]
    parts = (
        f"{k} ({unit.name or 'no name'}, {' x '.join(map(str, unit.shape))})"
        for k, unit in images.items()
    )
    what = f"has not one image '{hdu}'" if hdu else "holds several images"
    raise FitsError(f"{what}: which of {', '.join(parts)}? --hdu chooses one")


def _coordinates(kind: Any, header: Any, units: Any) -> Any:
    usable = header.copy()
    for key in REST:
        if isinstance(usable.get(key), str):  # --nu-rest-GHz can say it; wcslib would stop
            del usable[key]
    try:
        return kind(usable, units)
    except Exception as error:  # wcslib has many of its own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FitsError(f"its coordinates cannot be read: {reason}") from None


@dataclass(frozen=True)
class Plane:
    """How the pixels of an image lie on the sky, through its middle."""

    wcs: Any
    """Of the longitude and latitude axis alone, in this order."""
    ra_axis: int
    """Axis of the image's values along which ra changes most; dec changes along the other."""
    dec_axis: int
    ra_falls: bool
    dec_falls: bool
    width_deg: float
    """Angle on the sky from edge to edge along `ra_axis`."""
    height_deg: float
    angle_deg: float
    """Of the axis of ra from the parallel, towards the pole."""
    swapped: bool
    """Whether the header's axis of longitude is the one along which dec changes most."""

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
        ends = np.array([middle, middle])
        ends[:, k] = (-0.5, size - 0.5)
        world = sky.wcs_pix2world(ends, 0)
        if not np.isfinite(world).all():
            raise FitsError("its header puts the ends of its axes nowhere on the sky")
        across.append(_across(world))
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
    try:
        if not kind.startswith("FREQ"):
            wcs.wcs.sptr("FREQ-???")
        places = np.arange(image.values.shape[axis] + 1) - 0.5
        edges = np.asarray(wcs.wcs_pix2world(places[:, None], 0)[:, 0]) / 1e9
    except Exception as error:  # wcslib has many of its own
        reason = " ".join(str(error).split()) or type(error).__name__
        lacks = not (wcs.wcs.restfrq or wcs.wcs.restwav)
        hint = "; it has no RESTFRQ, --nu-rest-GHz gives one" if lacks else f" ({reason})"
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
    except Exception as error:  # wcslib has many of its own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FitsError(f"its {what} axes depend on the others: {reason}") from None
