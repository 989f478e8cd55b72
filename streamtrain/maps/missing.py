"""Voxels without a value: those that nobody observed, and those that hold the mark of one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.maps.skymap import MapError, SkyMap

BEYOND = 1e20
"""No map holds numbers as large as this; marks of missing values, such as HEALPix's, do."""
MARKS = (-999.0, -9999.0, -99999.0, -999999.0, -32768.0, 99999.0, 999999.0)
"""Numbers that often stand for no value, without the file saying so."""
MARKED = 3
"""Voxels that hold exactly one of `MARKS`, from which on it is suspected."""


def without_marks(found: SkyMap, no_value: float | None) -> SkyMap:
    """A map with NaN where it holds a mark of a missing value: those of the file, `no_value`, and
    numbers beyond any map. Raises MapError for a float map with voxels of one of `MARKS`.

    no_value: what its user says is one; NaN: there is none but NaN.
    """
    cube = found.cube
    lost = np.zeros(cube.shape, bool)
    marks = list(dict.fromkeys(found.marks if no_value is None else (no_value,)))
    with np.errstate(over="ignore"):
        for mark in marks:
            lost |= cube == (cube.dtype.type(mark) if cube.dtype.kind == "f" else mark)
    notes = []
    if lost.any():
        named = ", ".join(f"{mark:g}" for mark in marks)
        notes.append(f"{int(lost.sum())} of its voxels hold {named} and have no value")
    if no_value is None:
        with np.errstate(over="ignore"):  # float16 holds no such number
            beyond = (np.abs(cube) >= BEYOND) & np.isfinite(cube) & ~lost
        if beyond.any():
            example = f"{float(cube[beyond][0]):g}"
            notes.append(f"{int(beyond.sum())} of its voxels hold numbers such as {example}, which "
                         "was taken for no value")  # fmt: skip
            lost |= beyond
        for mark in MARKS:
            number = int(((cube == np.float64(mark)) & ~lost).sum())
            if number >= MARKED:
                raise MapError(
                    f"{found.source}: {number} voxels are exactly {mark:g}, which looks like a "
                    f"mark of a missing value: --no-value {mark:g} says that it is, --no-value nan "
                    "that it is not"
                )
    if not lost.any():
        return found
    values = np.array(cube, cube.dtype if cube.dtype.kind == "f" else np.float64)
    values[lost] = np.nan
    sigma = None if found.sigma is None else np.where(lost, np.nan, found.sigma)
    return replace(found, cube=values, sigma=sigma, notes=(*found.notes, *notes))


def observed(
    sigma: NDArray[Any] | None, hits: NDArray[Any] | None, shape: tuple[int, ...]
) -> NDArray[np.bool_]:
    """Which voxels were observed: those with hits, and a sigma that is a positive number."""
    seen = np.ones(shape, bool)
    with np.errstate(invalid="ignore", over="ignore"):
        for values in (sigma, hits):
            if values is not None:
                seen &= (values > 0) & (values < BEYOND)
    return seen


def without_unseen(found: SkyMap) -> SkyMap:
    """A map with NaN in its cube where nothing was observed, and in its sigma where the cube has no
    value; hits that are no positive number are 0. A map without sigma and hits stays as it is."""
    if found.sigma is None and found.hits is None:
        return found
    cube, sigma, hits = found.cube, found.sigma, found.hits
    seen = observed(sigma, hits, cube.shape)
    notes = found.notes
    if not seen.all():
        notes += (f"{int((~seen).sum())} of its voxels have no hits or no sigma, and so no value",)
        cube = np.where(seen, cube, np.asarray(np.nan, _float_of(cube)))
    if sigma is not None:
        known = seen & ~np.isnan(cube)
        sigma = np.where(known, sigma, np.asarray(np.nan, _float_of(sigma)))
    if hits is not None:
        hits = np.where(observed(None, hits, hits.shape), hits, hits.dtype.type(0))
    return replace(found, cube=cube, sigma=sigma, hits=hits, notes=notes)


def with_doubtful_zeros(found: SkyMap) -> SkyMap:
    """A pipeline's map with a note where voxels are exactly 0 and nothing says whether they were
    observed."""
    zeros = int((found.cube == 0).sum())
    if not (found.filtered and found.sigma is None and found.hits is None and zeros):
        return found
    note = (
        f"{zeros} of its voxels are exactly 0, and nothing says whether they were observed: "
        "--no-value 0 says that they were not"
    )
    return replace(found, notes=(*found.notes, note))


def _float_of(values: NDArray[Any]) -> np.dtype[Any]:
    return values.dtype if values.dtype.kind == "f" else np.dtype(np.float64)
