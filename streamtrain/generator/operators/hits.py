"""Hit maps: how long every pixel of a map was looked at."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from streamtrain.generator.operators.base import MapState
from streamtrain.generator.operators.pixel_file import read_pixels
from streamtrain.schema import ConfigError

Float = NDArray[np.float64]

MOST = 1e20
"""Larger numbers are no hits, but marks of missing values."""


def read_hits(path: str, state: MapState, where: str) -> Float:
    """Hits, or any measure of time, float64 [n_dec, n_ra] from a file, see `read_pixels`. Raises
    ConfigError, one sentence that begins with `where`."""
    hits = read_pixels(path, "hits", state, where).astype(np.float64)
    if not (np.isfinite(hits).all() and (hits >= 0.0).all() and (hits < MOST).all()):
        raise ConfigError(
            f"{where}: {path} holds hits that are negative, not finite or above {MOST:g}"
        )
    if not hits.any():
        raise ConfigError(f"{where}: {path} holds no pixel that was hit")
    return hits


def relative_sigma(hits: Float) -> NDArray[np.float32]:
    """sqrt(mean / hits), the mean being that of the pixels that were hit; -1 for the others."""
    hit = hits > 0.0
    mean = math.fsum(hits[hit].tolist()) / int(hit.sum())  # rounded once: no order of additions
    sigma = np.where(hit, np.sqrt(mean / np.where(hit, hits, 1.0)), -1.0)
    return sigma.astype(np.float32)
