"""Numbers per pixel or per voxel of a map, from a user's file or a survey's map; the noise that
operators before have said of each voxel.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from streamtrain.machine.files import DEBUG, check_npz, reason_of, why_not_a_file
from streamtrain.machine.fitsfile import FitsError
from streamtrain.maps.fitsimage import FITS_SUFFIXES, plane_of, read_image
from streamtrain.maps.missing import BEYOND
from streamtrain.maps.read import read_map
from streamtrain.maps.regrid import LEAST_VALID, SLACK, overlap
from streamtrain.maps.skymap import (
    MapError,
    SkyMap,
    order_notes,
    parse_units,
    rayleigh_jeans_uK,
)
from streamtrain.operators.base import MapState, Operator, Shape
from streamtrain.schema import AssumptionWarning, ConfigError, warn

Float = NDArray[np.float64]
Quantity = Literal["sigma", "hits", "mask"]

EDGES = ("pix_binedges_x", "pix_binedges_y")
"""Arrays of an npz file that say where its columns (ra) and rows (dec) lie [deg]."""
NAMED = {"sigma": "sigma", "rms": "sigma", "hits": "hits", "nhit": "hits", "mask": "mask"}
"""What an array of an npz file is by its name; it is taken for nothing else, be it the only one."""
SIZE_TOLERANCE = 0.2
"""How far the width of a file's field may be from the map's, in pixels."""


def read_pixels(path: str, name: str, state: MapState, where: str) -> NDArray[Any]:
    """Numbers [n_dec, n_ra], dec and ra rising, for a map in `state`.

    From an npz file: its array `name`, or its only one beside `EDGES`, which say where it lies; or
    from a FITS file: its only image, or that with the EXTNAME `name`, turned as its header says. A
    file that says nothing of its directions is taken to have them rising, with an
    AssumptionWarning. Raises ConfigError, one sentence that begins with `where`.
    """
    if not Path(path).exists():
        raise ConfigError(f"{where}: there is no file {path}")
    if problem := why_not_a_file(path):
        raise ConfigError(f"{where}: {path}: {problem}")
    fits = path.lower().endswith(FITS_SUFFIXES)
    try:
        values, fov_deg, notes = _read_fits(path, name) if fits else _read_npz(path, name)
    except FitsError as error:
        raise ConfigError(f"{where}: {path} {error}") from None
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        raise ConfigError(f"{where}: {path} cannot be read: {reason_of(error)}") from error
    if values.dtype.kind not in "biuf":
        raise ConfigError(f"{where}: {path} holds {values.dtype}, not numbers")
    if values.shape != state.shape[1:]:
        raise ConfigError(
            f"{where}: {path} has shape {values.shape}, the map there [n_dec, n_ra] = "
            f"{state.shape[1:]}"
        )
    for note in notes:
        warn(f"{where}: {path}: {note}", AssumptionWarning)
    if fov_deg is None:
        how = "a header with coordinates" if fits else f"arrays {' and '.join(EDGES)} [deg]"
        warn(
            f"{where}: {path} does not say how it lies on the sky, and is taken as [dec, ra] with "
            f"both rising; {how} would say it",
            AssumptionWarning,
        )
        return values
    for have, need, size in zip(fov_deg, state.grid.fov_deg, values.shape[::-1], strict=True):
        if abs(have - need) > SIZE_TOLERANCE * need / size:
            raise ConfigError(
                f"{where}: {path} is of a field of {fov_deg[0]:.5g} x {fov_deg[1]:.5g} deg (ra, "
                f"dec), the map of {state.grid.fov_deg[0]:.5g} x {state.grid.fov_deg[1]:.5g} deg"
            )
    return values


def pixels_digest(values: NDArray[Any]) -> str:
    """sha256 of the numbers (little-endian float64), not of the file."""
    text = hashlib.sha256(repr(values.shape).encode())
    text.update(np.ascontiguousarray(values, "<f8").tobytes())
    return text.hexdigest()


Pixels = tuple[NDArray[Any], tuple[float, float] | None, tuple[str, ...]]
"""Numbers as they lie in a map, width in ra and dec [deg] if the file says it, and what to say."""


def _read_npz(path: str, name: str) -> Pixels:
    if not zipfile.is_zipfile(path):
        raise ValueError("it is neither npz nor FITS")
    with np.load(path, allow_pickle=False) as file:
        check_npz(file.zip)
        others = [key for key in file.files if key not in EDGES]
        if name not in others and (len(others) != 1 or NAMED.get(others[0].lower(), name) != name):
            raise ValueError(f"it holds no array '{name}' but {', '.join(others) or 'nothing'}")
        values: NDArray[Any] = file[name if name in others else others[0]]
        if not all(key in file.files for key in EDGES):
            return values, None, ()
        sides = [np.asarray(file[key], np.float64).reshape(-1) for key in EDGES]
    sides[0] = np.unwrap(sides[0], period=360.0)  # ra may pass 0
    for key, side, size in zip(EDGES, sides, values.shape[::-1], strict=False):
        steps = np.diff(side)
        if len(steps) != size or not ((steps > 0).all() or (steps < 0).all()):
            raise ValueError(f"{key} must be {size + 1} edges of pixels [deg], rising or falling")
    middle = 0.5 * (sides[1][0] + sides[1][-1])
    shrink = float(np.cos(np.radians(middle)))  # offsets from a middle, or positions on the sky
    falls = [side[-1] < side[0] for side in sides]
    fov = abs(sides[0][-1] - sides[0][0]) * shrink, abs(sides[1][-1] - sides[1][0])
    turned = values[:: -1 if falls[1] else 1, :: -1 if falls[0] else 1]
    return turned, (float(fov[0]), float(fov[1])), ()


def _read_fits(path: str, name: str) -> Pixels:
    image = read_image(Path(path), 2, name.upper())
    values = image.values
    if image.wcs.wcs.lng < 0 and image.wcs.wcs.lat < 0:
        return (
            values.reshape([size for size in values.shape if size != 1] or [1]),
            None,
            image.notes,
        )
    plane = plane_of(image)
    axes = (plane.dec_axis, plane.ra_axis)
    others = [k for k in range(values.ndim) if k not in axes]
    turned = values.transpose(*others, *axes)
    if all(values.shape[k] == 1 for k in others):
        turned = turned[(0,) * len(others)]
    notes = (*image.notes, *plane.notes)
    return plane.oriented(turned), (plane.width_deg, plane.height_deg), notes


def read_voxels(
    path: str, quantity: Quantity, state: MapState, where: str, *, in_units: bool = False
) -> NDArray[Any]:
    """Numbers [n_freq, n_dec, n_ra] of a map in `state` from a cube, else those of `read_pixels`.

    A cube is a file that `read_map` reads: a map that carries its sigma and hits, or one whose
    numbers are the quantity itself. One of other voxels is regridded about its middle, with an
    AssumptionWarning: sigma as that of a mean, hits as a sum, and a mask keeps what half of a voxel
    keeps. sigma and hits are 0 where nothing was observed; sigma has the grid's units where it is
    wanted `in_units`, else only its ratios count. Raises ConfigError, one sentence that begins with
    `where`.
    """
    hdu = quantity.upper() if _is_cube(path, quantity, quantity.upper()) else None
    if hdu is None and not _is_cube(path, quantity, None):
        pixels = read_pixels(path, quantity, state, where)
        if not in_units:
            return pixels
        said: list[str] = []
        factor = _in_grid_units(_unit_of_pixels(path, quantity), path, state, where, said)
        for note in said:
            warn(f"{where}: {path}: {note}", AssumptionWarning)
        return pixels * factor
    try:
        sky = read_map(path, no_value=float("nan"), hdu=hdu, need_units=in_units)
    except MapError as error:
        if "--units" not in str(error):
            raise ConfigError(f"{where}: {error}") from None
        raise ConfigError(
            f"{where}: {path} does not say the units of its numbers, such as uK or Jy/sr: with "
            "sigma_uK beside it only their ratios count"
        ) from None
    plain = order_notes(sky.freq)  # nothing was assumed
    notes = [note for note in sky.notes if note not in plain and "--units" not in note]
    values = _quantity_of(sky, quantity, where)
    if in_units:
        values = values * _in_grid_units(sky.units, sky.source, state, where, notes)
    elif quantity == "sigma":
        values = values * _ratio_of_units(sky, state, notes)[:, None, None]
    else:  # units matter to no other
        notes = [note for note in notes if "its units" not in note]
        if quantity == "hits" and sky.hits is None and _is_brightness(sky):
            notes.append(f"it says that it is in {sky.units}, and its numbers were taken for hits")
    if not _lies_alike(sky, state):
        values = _regridded(values, quantity, sky, state, where)
        shapes = (" x ".join(map(str, shape)) for shape in (sky.shape, state.shape))
        notes.append(f"it was brought from {' to '.join(shapes)} voxels, about its middle")
    if quantity != "mask" and not values.any():
        raise ConfigError(f"{where}: {path} holds no voxel that was observed")
    for note in notes:
        warn(f"{where}: {path}: {note}", AssumptionWarning)
    return values


def _is_cube(path: str, quantity: Quantity, hdu: str | None) -> bool:
    """Whether `read_map` is to read a file, of a FITS file the image `hdu`; not one that is not
    there, or of pixels."""
    if why_not_a_file(path):
        return False
    if path.lower().endswith(FITS_SUFFIXES):
        for axes, name in ((2, quantity.upper()), (3, "MAP")):
            with contextlib.suppress(Exception):
                shape = read_image(Path(path), axes, name, hdu).values.shape
                return sum(size > 1 for size in shape) > 2
        return False
    if hdu is not None:
        return False
    if zipfile.is_zipfile(path):
        with contextlib.suppress(Exception), np.load(path, allow_pickle=False) as file:
            check_npz(file.zip)
            return any(file[key].ndim == 3 for key in ("map", "map_cube") if key in file.files)
    return bool(h5py.is_hdf5(path))


def _quantity_of(sky: SkyMap, quantity: Quantity, where: str) -> Float:
    """sigma or hits of a map, 0 where nothing was observed, or 1 where a mask keeps a voxel."""
    seen_by = sky.sigma if sky.hits is None else sky.hits
    carried = {"sigma": sky.sigma, "hits": sky.hits, "mask": seen_by}[quantity]
    if carried is None and quantity == "mask":
        return np.asarray(sky.cube, np.float64)
    if carried is None and seen_by is not None:
        other, setting = ("sigma", "rms") if quantity == "hits" else ("hits", "hits")
        raise ConfigError(
            f"{where}: {sky.source} carries {other}, no {quantity}: name it in {setting} instead"
        )
    values = np.array(sky.cube if carried is None else carried, np.float64)
    for mark in sky.marks:
        values[values == mark] = np.nan
    negative = np.unique(values[values < 0.0])
    if len(negative) > 1:
        raise ConfigError(
            f"{where}: {sky.source} holds numbers such as {negative[-1]:g}: it is no map of "
            f"{quantity}"
        )
    seen = np.isfinite(values) & (values > 0.0) & (values < BEYOND)
    if quantity == "sigma" and sky.hits is not None:
        seen &= np.asarray(sky.hits) > 0
    return np.where(seen, 1.0 if quantity == "mask" else values, 0.0)


def _is_brightness(sky: SkyMap) -> bool:
    with contextlib.suppress(MapError):
        return bool(parse_units(sky.units or "", sky.source))
    return False


def _unit_of_pixels(path: str, quantity: Quantity) -> str | None:
    """The units of numbers per pixel, which a FITS header alone says."""
    if not path.lower().endswith(FITS_SUFFIXES):
        return None
    said = read_image(Path(path), 2, quantity.upper()).header.get("BUNIT")
    return str(said) if said else None


def _in_grid_units(
    text: str | None, source: str, state: MapState, where: str, notes: list[str]
) -> float:
    """From a file's units to those of the map in `state`."""
    if text is None:
        raise ConfigError(
            f"{where}: {source} holds numbers per pixel and no BUNIT: only their ratios count, and "
            "sigma_uK beside it gives the level"
        )
    try:
        units = parse_units(text, f"{where}: {source}")
    except MapError as error:
        raise ConfigError(str(error)) from None
    if units.kind != state.grid.units:
        raise ConfigError(f"{where}: {source} is in {text}, but grid.units = {state.grid.units}")
    if state.weight != 1.0:
        notes.append(f"voxels are sums of {state.weight:g} here, so its sigma was multiplied by it")
    return units.factor * state.weight


def _ratio_of_units(sky: SkyMap, state: MapState, notes: list[str]) -> Float:
    """From sigma in the file's units to that in the kind of units of the map, but for a factor, for
    each channel of the file: the ratio of temperature and intensity depends on frequency."""
    try:
        kind = parse_units(sky.units or "", sky.source).kind
    except MapError:
        kind = state.grid.units  # it does not say it
    if kind == state.grid.units:
        notes[:] = [note for note in notes if "its units" not in note]  # nothing rests on them
        return np.ones(sky.shape[0])
    notes.append(
        f"its sigma was converted from {sky.units} to {state.grid.units} at each channel's centre"
    )
    kelvin = rayleigh_jeans_uK(0.5 * (sky.freq.edges[1:] + sky.freq.edges[:-1]))
    return kelvin if state.grid.units == "uK" else 1.0 / kelvin


def _edges(state: MapState) -> tuple[Float, Float, Float]:
    """Edges of the map's voxels: frequency [GHz], dec and ra from the middle [deg]."""
    num_freq, num_dec, num_ra = state.shape
    fov_ra, fov_dec = state.grid.fov_deg
    return (
        np.linspace(*state.grid.nu_GHz, num_freq + 1),
        np.linspace(-0.5, 0.5, num_dec + 1) * fov_dec,
        np.linspace(-0.5, 0.5, num_ra + 1) * fov_ra,
    )


def _lies_alike(sky: SkyMap, state: MapState) -> bool:
    """Whether a file has the voxels of the map."""
    if sky.shape != state.shape or not sky.freq.even:
        return False
    ends = zip((sky.freq, sky.dec, sky.ra), _edges(state), strict=True)
    return all(
        np.abs(axis.edges[[0, -1]] - edges[[0, -1]]).max() <= 0.5 * SIZE_TOLERANCE * axis.step
        for axis, edges in ends
    )


def _regridded(
    values: Float, quantity: Quantity, sky: SkyMap, state: MapState, where: str
) -> Float:
    """A quantity on the voxels of the map, each of which covers those of the file by its shares."""
    shares, parts = [], []
    names = ("GHz", "deg in dec", "deg in ra")
    for axis, edges, what in zip((sky.freq, sky.dec, sky.ra), _edges(state), names, strict=True):
        have, need = (np.sort(side[[0, -1]]) for side in (axis.edges, edges))
        step, widest = (need[1] - need[0]) / (len(edges) - 1), np.abs(np.diff(axis.edges)).max()
        if (np.abs(np.clip(need, *have) - need) > SLACK * step).any():
            raise ConfigError(
                f"{where}: {sky.source} covers {have[0]:.6g} to {have[1]:.6g} {what}, the map "
                f"there {need[0]:.6g} to {need[1]:.6g}"
            )
        if widest > step * (1.0 + SLACK):
            raise ConfigError(
                f"{where}: {sky.source} has voxels of {widest:.4g} {what}, which cannot be made "
                f"finer: the map there has voxels of {step:.4g}"
            )
        share = overlap(axis.edges, edges, what)
        shares.append(share)
        parts.append(share * step / np.abs(np.diff(axis.edges)))
    covered = _contracted((values > 0.0).astype(np.float64), shares)
    known = covered >= LEAST_VALID - 1e-12
    if quantity == "hits":
        return np.where(known, _contracted(values, parts), 0.0)
    if quantity == "mask":
        return known.astype(np.float64)
    square = _contracted(values * values, [share * share for share in shares])
    return np.where(known, np.sqrt(square) / np.where(known, covered, 1.0), 0.0)


def _contracted(values: Float, weights: list[Float]) -> Float:
    """Sums over each axis with weights [new, old], added in a fixed order."""
    for axis, weight in enumerate(weights):
        old = np.moveaxis(values, axis, 0)
        new = np.zeros((len(weight), *old.shape[1:]))
        for target, source in zip(*np.nonzero(weight), strict=True):
            new[target] += weight[target, source] * old[source]
        values = np.moveaxis(new, 0, axis)
    return values


def sigma_before(state: MapState, where: str) -> NDArray[np.float32]:
    """Sigma of every voxel over a level of the sample, float32 [n_freq, n_dec, n_ra]: that of the
    last noise before it which differs between voxels, 1 where there is none; -1 in voxels that were
    masked or not observed. Several noises are said to be one, with an AssumptionWarning."""
    sigma, uneven = np.ones(state.shape), []
    operators = [made() for made in state.through]
    for operator in operators:
        pattern = operator.sigma_pattern()
        if pattern is not None:
            uneven.append(operator.name)
            sigma = _joined(pattern.astype(np.float64), state.shape)
    if len(uneven) > 1:
        warn(
            f"{where} takes the noise of each voxel from observe.{uneven[-1]}, not also from "
            f"{', '.join(uneven[:-1])}",
            AssumptionWarning,
        )
    return np.where(_unseen(operators, state.shape), -1.0, sigma).astype(np.float32)


def unseen_before(state: MapState) -> NDArray[np.bool_]:
    """Voxels [n_freq, n_dec, n_ra] of the map in `state` that operators before it have masked, or
    that were not observed; of joined voxels those of which no part is left."""
    return _unseen([made() for made in state.through], state.shape)


def _unseen(operators: Sequence[Operator], shape: Shape) -> NDArray[np.bool_]:
    unseen = np.zeros(shape, bool)
    for operator in operators:
        lost = operator.unseen()
        if lost is not None:
            unseen |= _joined(np.where(lost, -1.0, 1.0), shape) < 0.0
    return unseen


def _joined(sigma: Float, shape: Shape) -> Float:
    """Sigma of the voxels of `shape` from that of voxels [n_dec, n_ra] or [n_freq, n_dec, n_ra]
    that were joined to them: squares are added, and negative ones, not observed, do not count."""
    cube = sigma[None] if sigma.ndim == 2 else sigma
    blocks = [max(old // new, 1) for old, new in zip(cube.shape, shape, strict=True)]
    if blocks == [1, 1, 1]:
        return np.broadcast_to(cube, shape)
    square: Float = np.zeros([old // by for old, by in zip(cube.shape, blocks, strict=True)])
    for first in np.ndindex(*blocks):  # a fixed order of additions
        steps = (slice(k, None, by) for k, by in zip(first, blocks, strict=True))
        part = np.maximum(cube[tuple(steps)], 0.0)
        square = square + part * part
    return np.broadcast_to(np.where(square > 0.0, np.sqrt(square), -1.0), shape)
