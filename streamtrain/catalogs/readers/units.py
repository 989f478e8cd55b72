"""Units as people and files spell them, in Mpc, Msun, km/s and deg.

"Msun/h", "h^-1 M_sun", "1e10 solMass / littleh", "dex(solMass)", "cMpc h^{-1}" and "km s-1" are
read. What is not known here gives None, never a guess.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

LENGTH = {"Mpc": 1.0, "kpc": 1e-3, "Gpc": 1e3, "pc": 1e-6}
MASS = {"Msun": 1.0}
SPEED = {"km/s": 1.0, "m/s": 1e-3, "cm/s": 1e-5}
SCALED = {"/a": -1.0, "*a": 1.0, "*sqrt(a)": 0.5}
"""What may follow a unit of speed, and the power of the scale factor that it means."""
ANGLE = {"deg": 1.0, "rad": 180.0 / math.pi, "arcmin": 1 / 60, "arcsec": 1 / 3600, "hourangle": 15}
REDSHIFT = {"": 1.0}
_SPELLINGS = {
    "Msun": r"(?i:m_?(sun|sol|solar|odot|⊙|☉)|sol_?mass|solar\.?mass(es)?)",
    "km/s": r"km(/s|/sec|\.?s-1|\.?sec-1)",
    "m/s": r"m(/s|/sec|\.s-1)",
    "cm/s": r"cm(/s|/sec|\.s-1)",
    "deg": r"(?i:deg(ree)?s?|°)",
    "rad": r"(?i:rad(ian)?s?)",
    "arcmin": r"(?i:arcmin(ute)?s?)",
    "arcsec": r"(?i:arcsec(ond)?s?)",
    "hourangle": r"(?i:hour\.?angle)",
    "": r"(?i:1?|redshift)",
} | {name: rf"(co?\.?|comoving\.?)?{name}(cm|\.?comoving|\(comoving\))?" for name in LENGTH}
_NOT_STATED = ("", "1", "-", "?", "none", "dimensionless", "unitless", "unknown", "n/a")


@dataclass(frozen=True)
class Unit:
    """A factor to Mpc, Msun, km/s or deg, and powers of h and of the scale factor."""

    text: str
    factor: float
    h_power: int = 0
    """-1 for a unit with /h."""
    log10: bool = False
    """Whether the numbers are the decimal logarithm of the quantity."""
    a_power: float = 0.0
    """-1 for a speed in km/s/a."""

    def same(self, other: Unit) -> bool:
        """Whether numbers in both units mean the same."""
        return (
            math.isclose(self.factor, other.factor, rel_tol=1e-9)
            and self.h_power == other.h_power
            and self.log10 == other.log10
            and self.a_power == other.a_power
        )


def read_unit(text: str, units: Mapping[str, float]) -> Unit | None:
    """The unit that `text` says, out of `units` (LENGTH, MASS ...), or None.

    /h is read after a length or mass, log10 or dex before a mass, a power of the scale factor a
    after a speed, a factor before any of them.
    """
    rest = re.sub(r"\\[,;:! ]|~", " ", text)
    rest = re.sub(r"\\(mathrm|rm|text)|[${}\\]", "", rest).strip()
    rest = re.sub(r"(?<=[\w)])\s+(?=[\w(])", ".", rest)
    rest = re.sub(r"\s+", "", rest).replace("*(-1)", "*-1")
    rest = re.sub(r"(\^|\*\*)\(?(-1)\)?", r"\2", rest)
    log10 = re.fullmatch(r"(?:log_?10|dex)\.?(?:\((?:M/)?(.+)\)|(.+))", rest)
    if log10:
        rest = log10[1] or log10[2]
    factor, rest = _factor(rest)
    with_h = re.fullmatch(r"h-1[*.]?(.+)|(.+?)(?:/(?:little)?h|[*.]?(?:little)?h-1)", rest)
    if with_h:
        rest = with_h[1] or with_h[2]
    scaled = re.fullmatch(r"(.+?)(/a|[*.]a|[*.]sqrt\(a\))", rest)
    a_power = 0.0
    if scaled and units is SPEED:
        rest, a_power = scaled[1], SCALED[scaled[2].replace(".", "*")]
    if (log10 and units is not MASS) or (with_h and units not in (LENGTH, MASS)):
        return None
    for name in units:
        if re.fullmatch(_SPELLINGS[name], rest.replace("*", ".")):
            h_power = -1 if with_h else 0
            return Unit(text, units[name] * factor, h_power, log10 is not None, a_power)
    return None


def _factor(text: str) -> tuple[float, str]:
    """The number before a unit, 1 without one, and the unit."""
    power, number = r"10(?:\^|\*\*)\(?(\d+)\)?", r"(\d+(?:\.\d*)?(?:[eE]\+?\d+)?)"
    found = re.fullmatch(rf"(?:{power}|{number})[*.x]?(\D.*)", text)
    if found is None:
        return 1.0, text
    return (10.0 ** int(found[1]) if found[1] else float(found[2])), found[3]


def is_stated(text: str) -> bool:
    """Whether what a file has in the place of a unit is one."""
    return text.strip().lower() not in _NOT_STATED


def accepted(units: Mapping[str, float]) -> str:
    """The units that a column map may name, for a sentence."""
    names = [name for name in units if name]
    if units is MASS:
        names = ["Msun", "1e10 Msun", "log10 Msun"]
    if units is LENGTH or units is MASS:
        names += [f"{name}/h" for name in names]
    if units is SPEED:
        names += [f"km/s{suffix}" for suffix in SCALED]
    return ", ".join(names) or "none"
