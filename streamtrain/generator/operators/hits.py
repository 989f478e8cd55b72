"""Hit maps: how long every pixel of a map was looked at."""

from __future__ import annotations

import hashlib
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.schema import ConfigError

Float = NDArray[np.float64]
FITS_SUFFIXES = (".fits", ".fit", ".fts", ".gz")


def read_hits(path: str, shape: tuple[int, int], setting: str) -> Float:
    """Hits, or any measure of time, float64 [n_dec, n_ra] = `shape`, both axes as in the cube.

    path: an npz file (the array `hits`, or its only one) or a FITS file (its first image; needs
    astropy). Raises ConfigError, one sentence that names `setting`.
    """
    where = f"{setting} = '{path}'"
    if not Path(path).is_file():
        raise ConfigError(f"{where}: there is no such file")
    suffix = Path(path).suffix.lower()
    if suffix != ".npz" and suffix not in FITS_SUFFIXES:
        raise ConfigError(f"{where} is neither an npz nor a FITS file")
    given = _read_npz(path, where) if suffix == ".npz" else _read_fits(path, where)
    if given.shape != shape:
        raise ConfigError(
            f"{where} has shape {list(given.shape)}, but the map is {list(shape)} (dec, ra) here"
        )
    if given.dtype.kind not in "iuf":
        raise ConfigError(f"{where} holds {given.dtype}, not numbers")
    hits = given.astype(np.float64)
    if not (np.isfinite(hits).all() and (hits >= 0.0).all()):
        raise ConfigError(f"{where} holds hits that are negative or not finite")
    if not hits.any():
        raise ConfigError(f"{where} holds no pixel that was hit")
    return hits


def relative_sigma(hits: Float) -> NDArray[np.float32]:
    """sqrt(mean / hits), the mean being that of the pixels that were hit; -1 for the others."""
    hit = hits > 0.0
    mean = math.fsum(hits[hit].tolist()) / int(hit.sum())  # rounded once: no order of additions
    sigma = np.where(hit, np.sqrt(mean / np.where(hit, hits, 1.0)), -1.0)
    return sigma.astype(np.float32)


def hits_digest(hits: Float) -> str:
    """sha256 of the numbers (little-endian float64), not of the file."""
    text = hashlib.sha256(repr(hits.shape).encode())
    text.update(np.ascontiguousarray(hits, "<f8").tobytes())
    return text.hexdigest()


def _read_npz(path: str, where: str) -> NDArray[Any]:
    try:
        with np.load(path, allow_pickle=False) as file:
            names = list(file)
            if "hits" not in names and len(names) != 1:
                raise ConfigError(
                    f"{where} needs an array 'hits', or one array only; it has "
                    f"{', '.join(names) or 'none'}"
                )
            array: NDArray[Any] = file["hits" if "hits" in names else names[0]]
            return array
    except ConfigError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{where} cannot be read as npz: {error}") from None


def _read_fits(path: str, where: str) -> NDArray[Any]:
    try:
        from astropy.io import fits
    except ImportError:
        raise ConfigError(f"{where}: a FITS file needs astropy: `pip install astropy`") from None
    try:
        with fits.open(path, memmap=False) as file:
            images = [unit.data for unit in file if unit.is_image and unit.data is not None]
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{where} cannot be read as FITS: {error}") from None
    if not images:
        raise ConfigError(f"{where} holds no image")
    return np.asarray(images[0])
