"""Units of a map: brightness temperatures and intensities."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamtrain.generator.operators.sources import SOURCE_UK
from streamtrain.maps.skymap import MapError

Float = NDArray[np.float64]

KNOWN = "uK, mK, K, Jy/sr, kJy/sr, MJy/sr"
_PREFIXES = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6}
_FORM = re.compile(r"(?P<prefix>[numkM]?)(?P<base>K|Jy/sr)")
_SAME = (("\u00b5", "u"), ("\u03bc", "u"), (" ", ""), ("_RJ", ""))
_PER_SR = re.compile(r"Jy[.*]?sr(\^|\*\*)?\(?-1\)?")


@dataclass(frozen=True)
class Units:
    """What a number in a map means."""

    kind: str
    """"uK", a Rayleigh-Jeans brightness temperature, or "Jy/sr", as in a configuration."""
    factor: float
    """A number of the map in that unit."""


def parse_units(text: str, where: str) -> Units:
    """The meaning of 'mK' or 'MJy sr-1'. Raises MapError, one sentence that begins with `where`,
    for anything that is neither a brightness temperature nor an intensity."""
    plain = text.strip()
    for old, new in _SAME:
        plain = plain.replace(old, new)
    plain = _PER_SR.sub("Jy/sr", plain)
    found = _FORM.fullmatch(plain)
    if found is None:
        raise MapError(f"{where}: the units '{text}' are none of {KNOWN}")
    power = _PREFIXES[found["prefix"]]
    if found["base"] == "K":
        return Units("uK", 1.0 if found["prefix"] == "u" else power * 1e6)
    return Units("Jy/sr", power)


def rayleigh_jeans_uK(nu_GHz: Float) -> Float:
    """T [uK] of an intensity of 1 Jy/sr at frequencies [n]: c^2 I / (2 k nu^2)."""
    return 1e3 * SOURCE_UK / (nu_GHz * nu_GHz)
