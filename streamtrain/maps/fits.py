"""Maps in FITS files: a cube with a world coordinate system."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.machine.fitsimage import (
    LIGHT,
    REST,
    FitsError,
    Image,
    Plane,
    channel_edges_GHz,
    plane_of,
    read_image,
)
from streamtrain.maps.skymap import (
    Axis,
    MapError,
    SkyMap,
    check_numbers,
    frequency_axis,
    number_of,
    order_notes,
    oriented,
    sky_axis,
)


def read_fits(path: Path, hdu: str | None = None, nu_rest_GHz: float | None = None) -> SkyMap:
    """The image cube of a FITS file, whatever the order of its axes.

    hdu: which, by number or EXTNAME, where there are several and none is called MAP; nu_rest_GHz:
    of the line instead of RESTFRQ, for channels in velocities. Raises MapError, one sentence.
    """
    source = str(path)
    try:
        image = read_image(path, 3, "MAP", hdu)
        check_numbers(image.values, "its image", source)
        return _read(image, source, nu_rest_GHz)
    except FitsError as error:
        raise MapError(f"{source}: {error}") from None


def _read(image: Image, source: str, nu_rest_GHz: float | None) -> SkyMap:
    plane = plane_of(image)
    nu, nu_axis, kind = channel_edges_GHz(image, nu_rest_GHz)
    axes = (nu_axis, plane.dec_axis, plane.ra_axis)
    others = [k for k in range(image.values.ndim) if k not in axes]
    if any(image.values.shape[k] != 1 for k in others):
        names = ", ".join(image.types.split(", ")[image.values.ndim - 1 - k] for k in others)
        raise MapError(f"{source}: its further axes ({names}) must have one plane each")
    cube = image.values.transpose(*others, *axes)[(0,) * len(others)]
    freq = frequency_axis(nu)
    dec = _side(plane.height_deg, cube.shape[1], plane.dec_falls)
    ra = _side(plane.width_deg, cube.shape[2], plane.ra_falls)
    notes = (*image.notes, *order_notes(freq))
    if not kind.startswith("FREQ"):
        notes += (f"its channels are in {kind} and were turned into frequencies",)
    notes += plane.notes
    return SkyMap(
        oriented(cube, freq, dec, ra),
        freq,
        dec,
        ra,
        units=str(image.header["BUNIT"]).strip() if image.header.get("BUNIT") else None,
        nu_rest_GHz=_rest(image, source, nu_rest_GHz),
        source=source,
        layout="FITS",
        notes=notes,
        locate=_locator(plane, cube.shape, ra, dec, source),
    )


def _side(width_deg: float, number: int, falls: bool) -> Axis:
    edges = np.linspace(-0.5 * width_deg, 0.5 * width_deg, number + 1)
    return sky_axis(-edges if falls else edges)


def _rest(image: Image, source: str, given_GHz: float | None) -> float | None:
    """Rest frequency [GHz] of the header, also from RESTWAV; what is no number there is no matter
    if one is given."""
    for key in REST:
        value = image.header.get(key)
        if value in (None, "", 0) or (given_GHz is not None and isinstance(value, str)):
            continue
        found = number_of(value, key, source) / 1e9
        if not found > 0.0:
            raise MapError(f"{source}: {key} = {value} must be positive")
        return found
    wavelength = float(image.header.get("RESTWAV", 0.0) or 0.0)
    return LIGHT / wavelength / 1e9 if wavelength > 0.0 else None


def _locator(plane: Plane, shape: tuple[int, ...], ra: Axis, dec: Axis, source: str) -> Any:
    def locate(ra_deg: float, dec_deg: float) -> tuple[float, float]:
        try:
            place: NDArray[Any] = plane.wcs.wcs_world2pix(np.array([[ra_deg, dec_deg]]), 0)[0]
        except Exception:  # wcslib has many of its own
            place = np.array([np.nan, np.nan])
        if not np.isfinite(place).all():
            raise MapError(f"{source}: ({ra_deg:g}, {dec_deg:g}) deg is not on the map")
        x, y = place[::-1] if plane.swapped else place
        east, north = (x - (shape[2] - 1) / 2.0) * ra.step, (y - (shape[1] - 1) / 2.0) * dec.step
        return (-east if ra.flipped else east, -north if dec.flipped else north)

    return locate
