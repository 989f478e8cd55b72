"""A number for every pixel of a map, from a user's FITS or npz file."""

from __future__ import annotations

import hashlib
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.schema import ConfigError

FITS_SUFFIXES = (".fits", ".fit", ".fts", ".fits.gz", ".fit.gz")


def read_pixels(path: str, name: str, shape: tuple[int, int], where: str) -> NDArray[Any]:
    """Numbers [n_dec, n_ra] from an npz file (its array `name`, or its only one) or from the first
    image of a FITS file (needs astropy).

    Row 0 is the lowest dec and column 0 the lowest ra, as in a cube; a FITS header's coordinates
    are not read. Raises ConfigError, one sentence that begins with `where`.
    """
    if not Path(path).is_file():
        raise ConfigError(f"{where}: there is no file {path}")
    fits = path.lower().endswith(FITS_SUFFIXES)
    try:
        values = _read_fits(path) if fits else _read_npz(path, name)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"{where}: {path} cannot be read: {reason}") from None
    if values.dtype.kind not in "biuf":
        raise ConfigError(f"{where}: {path} holds {values.dtype}, not numbers")
    if values.shape != shape:
        raise ConfigError(
            f"{where}: {path} has shape {values.shape}, the map there [n_dec, n_ra] = {shape}"
        )
    return values


def pixels_digest(values: NDArray[Any]) -> str:
    """sha256 of the numbers (little-endian float64), not of the file."""
    text = hashlib.sha256(repr(values.shape).encode())
    text.update(np.ascontiguousarray(values, "<f8").tobytes())
    return text.hexdigest()


def _read_npz(path: str, name: str) -> NDArray[Any]:
    if not zipfile.is_zipfile(path):
        raise ValueError("it is neither npz nor FITS")
    with np.load(path, allow_pickle=False) as file:
        if name not in file.files and len(file.files) != 1:
            raise ValueError(f"it holds no array '{name}' but {', '.join(file.files) or 'nothing'}")
        values: NDArray[Any] = file[name if name in file.files else file.files[0]]
        return values


def _read_fits(path: str) -> NDArray[Any]:
    try:
        from astropy.io import fits
    except ImportError:
        raise ValueError("FITS needs `pip install astropy`, npz does not") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a damaged file is refused below or by astropy
        with fits.open(path, memmap=False) as units:
            for unit in units:
                if unit.is_image and unit.data is not None:
                    return np.array(unit.data)
    raise ValueError("it holds no image")
