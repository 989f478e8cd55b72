"""Maps in FITS files: a cube with a world coordinate system, read through astropy."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.maps.skymap import (
    Axis,
    MapError,
    SkyMap,
    check_numbers,
    frequency_axis,
    order_notes,
    oriented,
    sky_axis,
)

ROTATED_DEG = 1.0
"""A map turned by more than this against ra and dec is told of."""
REST = ("RESTFRQ", "RESTFREQ")


def read_fits(path: Path) -> SkyMap:
    """The first image cube of a FITS file. Raises MapError, one sentence."""
    source = str(path)
    try:
        from astropy.io import fits
        from astropy.wcs import WCS, FITSFixedWarning
    except ImportError:
        raise MapError(f"{source}: FITS needs `pip install astropy`, npz and HDF5 do not") from None
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with fits.open(path, memmap=False) as units:
                found = [u for u in units if u.is_image and u.header.get("NAXIS", 0) >= 3]
                image = found[0] if found else None
                cube = None if image is None else np.asarray(image.data)
                header = None if image is None else image.header.copy()
        cut = [str(w.message) for w in caught if "truncated" in str(w.message)]
        if cut:
            raise OSError(cut[0])
    except (OSError, ValueError, TypeError, EOFError, IndexError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MapError(f"{source} cannot be read, or is cut short: {reason}") from None
    if cube is None or header is None:
        raise MapError(f"{source} holds no image of three axes or more")
    check_numbers(cube, "its image", source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        try:
            wcs = WCS(header)
        except Exception as error:  # wcslib has many of its own
            raise MapError(f"{source}: its coordinates cannot be read: {error}") from None
    return _read(cube, header, wcs, source)


def _read(cube: NDArray[Any], header: Any, wcs: Any, source: str) -> SkyMap:
    types = [str(name) for name in wcs.wcs.ctype]
    spec, lng, lat = wcs.wcs.spec, wcs.wcs.lng, wcs.wcs.lat
    for what, axis in (("frequency", spec), ("ra", lng), ("dec", lat)):
        if axis < 0:
            raise MapError(
                f"{source} has no {what} axis: its CTYPE are {', '.join(t or '-' for t in types)}, "
                "a map needs such as RA---TAN, DEC--TAN and FREQ"
            )
    if not types[spec].startswith("FREQ"):
        raise MapError(
            f"{source}: CTYPE{spec + 1} = '{types[spec]}', but the axis of channels must be FREQ"
        )
    axes = len(types)
    order = [axes - 1 - axis for axis in (spec, lat, lng)]  # FITS counts from the other end
    others = [k for k in range(axes) if k not in order]
    if any(cube.shape[k] != 1 for k in others):
        names = ", ".join(types[axes - 1 - k] or "-" for k in others)
        raise MapError(f"{source}: its further axes ({names}) must have one plane each")
    cube = cube.transpose(*others, *order)[(0,) * len(others)]
    freq, turned = _axes(wcs, cube.shape, (spec, lat, lng))
    nu, dec, ra, angle = *freq, turned
    notes = order_notes(nu)
    if abs(angle) > ROTATED_DEG:
        notes += (f"it is turned by {angle:.1f} deg against ra and dec, and used along its pixels",)
    rest = next((float(header[key]) / 1e9 for key in REST if header.get(key)), None)
    return SkyMap(
        oriented(cube, nu, dec, ra),
        nu,
        dec,
        ra,
        units=str(header["BUNIT"]).strip() if header.get("BUNIT") else None,
        nu_rest_GHz=rest,
        source=source,
        layout="FITS",
        notes=notes,
        locate=_locator(wcs, cube.shape, ra, dec, source),
    )


def _axes(
    wcs: Any, shape: tuple[int, ...], numbers: tuple[int, int, int]
) -> tuple[tuple[Axis, Axis, Axis], float]:
    """Frequency, dec and ra axis of a cube of `shape` [freq, dec, ra], and the angle [deg] between
    its pixels and ra, dec. Sizes are angles on the sky through the middle of the map."""
    spec = wcs.spectral
    num_freq, num_dec, num_ra = shape
    ends = np.array([-0.5, num_freq - 0.5])
    first, last = (float(hz) / 1e9 for hz in spec.wcs_pix2world(ends[:, None], 0)[:, 0])
    nu = frequency_axis(np.linspace(first, last, num_freq + 1))
    middle = ((num_ra - 1) / 2.0, (num_dec - 1) / 2.0)
    sky = wcs.celestial
    width, along = _across(sky, (-0.5, middle[1]), (num_ra - 0.5, middle[1]))
    height, up = _across(sky, (middle[0], -0.5), (middle[0], num_dec - 0.5))
    sign_ra, sign_dec = (1.0 if v >= 0.0 else -1.0 for v in (along[0], up[1]))
    ra = sky_axis(sign_ra * np.linspace(-0.5 * width, 0.5 * width, num_ra + 1))
    dec = sky_axis(sign_dec * np.linspace(-0.5 * height, 0.5 * height, num_dec + 1))
    angle = float(np.degrees(np.arctan2(along[1] * sign_ra, along[0] * sign_ra)))
    return (nu, dec, ra), angle


def _across(
    sky: Any, start: tuple[float, float], end: tuple[float, float]
) -> tuple[float, tuple[float, float]]:
    """Angle on the sky between two pixels [deg], and its direction (ra cos(dec), dec)."""
    world = sky.wcs_pix2world(np.array([start, end]), 0)
    if sky.wcs.lng > sky.wcs.lat:
        world = world[:, ::-1]
    (lon0, lat0), (lon1, lat1) = np.radians(world)
    half = np.sin(0.5 * (lat1 - lat0)) ** 2
    half += np.cos(lat0) * np.cos(lat1) * np.sin(0.5 * (lon1 - lon0)) ** 2
    east = np.arctan2(np.sin(lon1 - lon0), np.cos(lon1 - lon0)) * np.cos(0.5 * (lat0 + lat1))
    return float(np.degrees(2.0 * np.arcsin(np.sqrt(half)))), (float(east), float(lat1 - lat0))


def _locator(wcs: Any, shape: tuple[int, ...], ra: Axis, dec: Axis, source: str) -> Any:
    sky = wcs.celestial

    def locate(ra_deg: float, dec_deg: float) -> tuple[float, float]:
        world = [ra_deg, dec_deg] if sky.wcs.lng < sky.wcs.lat else [dec_deg, ra_deg]
        x, y = sky.wcs_world2pix(np.array([world]), 0)[0]
        if not np.isfinite([x, y]).all():
            raise MapError(f"{source}: ({ra_deg:g}, {dec_deg:g}) deg is not on the map")
        from_middle = (x - (shape[2] - 1) / 2.0) * ra.step, (y - (shape[1] - 1) / 2.0) * dec.step
        return (
            -from_middle[0] if ra.flipped else from_middle[0],
            -from_middle[1] if dec.flipped else from_middle[1],
        )

    return locate
