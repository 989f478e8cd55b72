"""Masked pixels, and numbers per pixel of a map from a user's FITS or npz file."""

from __future__ import annotations

import hashlib
import os
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from streamtrain.machine.files import DEBUG, check_npz, reason_of, why_not_a_file
from streamtrain.machine.fitsimage import FITS_SUFFIXES, FitsError, plane_of, read_image
from streamtrain.numerics.backend import Kernels
from streamtrain.numerics.workspace import DeviceArrays
from streamtrain.operators.base import MapState, Operator, Table, Turn
from streamtrain.schema import AssumptionWarning, ConfigError, setting

EDGES = ("pix_binedges_x", "pix_binedges_y")
"""Arrays of an npz file that say where its columns (ra) and rows (dec) lie [deg]."""
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
        warnings.warn(f"{where}: {path}: {note}", AssumptionWarning, stacklevel=2)
    if fov_deg is None:
        how = "a header with coordinates" if fits else f"arrays {' and '.join(EDGES)} [deg]"
        warnings.warn(
            f"{where}: {path} does not say how it lies on the sky, and is taken as [dec, ra] with "
            f"both rising; {how} would say it",
            AssumptionWarning,
            stacklevel=2,
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
        if name not in others and len(others) != 1:
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


@dataclass(frozen=True)
class MaskConfig:
    """Pixels set to zero."""

    file: str | None = setting(None, "npz or FITS map [n_dec, n_ra]: 1 = keep, 0 = mask")
    edge_pixels: int = setting(0, "width of a masked border [pixels]", low=0)


@dataclass
class Mask(Operator):
    """Sets the same pixels of every frequency slice to zero, whatever they hold (also NaN)."""

    section = MaskConfig
    words = "masked"
    turn = Turn.MASK
    random = False
    selects = True
    files = ("file",)

    keep: Table
    """int32 [n_dec, n_ra], 1 = keep."""
    digest: str | None
    """sha256 of the file's map; None without a file."""

    @classmethod
    def from_config(cls, name: str, stage: int, config: MaskConfig, state: MapState) -> Mask:
        shape = state.shape[1:]
        keep = np.ones(shape, bool)
        digest = None
        if config.file is not None:
            keep = read_mask(config.file, state, f"observe.{name}.file")
            digest = pixels_digest(keep)
        edge = config.edge_pixels
        if edge:
            inner = np.zeros(shape, bool)
            inner[edge:-edge, edge:-edge] = True
            keep = keep & inner
        if not keep.any():
            raise ConfigError(f"observe.{name} masks every pixel")
        return cls(name, stage, Table(keep.astype(np.int32)), digest)

    @classmethod
    def check(cls, section: MaskConfig, where: str, state: MapState) -> None:
        if section.file is None and not section.edge_pixels:
            raise ConfigError(f"{where} needs a file, edge_pixels or both")
        if 2 * section.edge_pixels >= min(state.shape[1:]):
            raise ConfigError(
                f"{where}.edge_pixels = {section.edge_pixels} leaves nothing of a map of "
                f"{state.shape[1]} x {state.shape[2]} pixels"
            )

    def identity(self) -> str | None:
        return self.digest

    def apply(self, kernels: Kernels, cube: Tensor, keys: Tensor, drawn: DeviceArrays) -> Tensor:
        slices, pixels = cube.shape[0] * cube.shape[1], cube[0, 0].numel()
        kernels.elementwise("mask_pixels", slices, pixels, self.keep.on(cube.device), cube)
        return cube


def read_mask(path: str, state: MapState, where: str) -> NDArray[np.bool_]:
    """A mask [n_dec, n_ra] from a file, see `read_pixels`; 1 = keep. Raises ConfigError."""
    values = read_pixels(path, "mask", state, where)
    keep = values == 1
    if not (keep | (values == 0)).all():
        bad = values[~(keep | (values == 0))][0]
        raise ConfigError(f"{where}: {path} holds {bad}, a mask holds 1 (keep) and 0 only")
    return np.ascontiguousarray(keep)
