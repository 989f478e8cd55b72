"""Which column of a table is what, and in which unit: a YAML file or a dict.

x: {column: X, unit: Mpc/h}       # or ra, dec [deg] with z_cos or z_obs instead of x, y, z
mass: {column: M200m, unit: Msun/h}
z_obs: {column: ZOBS}             # or vx, vy, vz, or v_los, or z_cos, or nothing
columns: {sfr: {column: SFR, unit: Msun/yr}}
cosmology: {Omega_m: 0.3, Omega_b: 0.045, h: 0.7, n_s: 0.96, sigma8: 0.8}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from streamtrain.catalogs.lightcone import CatalogError
from streamtrain.catalogs.readers.halos import PARAMETERS, reading
from streamtrain.schema import ConfigError, nearest, parse_yaml

_LENGTH = {"Mpc": 1.0, "kpc": 1e-3, "Gpc": 1e3}
_MASS = {"Msun": 1.0, "1e10Msun": 1e10}
_SPEED = {"km/s": 1.0, "m/s": 1e-3}
_ANGLE = {"deg": 1.0, "rad": 180.0 / np.pi, "arcmin": 1 / 60, "arcsec": 1 / 3600}
_REDSHIFT = {"": 1.0}
QUANTITIES: dict[str, dict[str, float]] = {
    **dict.fromkeys(("x", "y", "z"), _LENGTH),
    **dict.fromkeys(("vx", "vy", "vz", "v_los"), _SPEED),
    **dict.fromkeys(("ra", "dec"), _ANGLE),
    **dict.fromkeys(("z_obs", "z_cos"), _REDSHIFT),
    "mass": _MASS,
}
"""What a column can be, and its units in Mpc, Msun, km/s and deg."""
_OTHER = ("columns", "cosmology", "box", "centre_deg", "table")


@dataclass(frozen=True)
class Unit:
    """A factor to Mpc, Msun, km/s or deg, and a power of h."""

    text: str
    factor: float
    h_power: int = 0
    """-1 for a unit with /h."""
    log10: bool = False
    """Whether the numbers are the decimal logarithm of the quantity."""


@dataclass(frozen=True)
class Column:
    """Where the numbers are and what they mean."""

    name: str
    unit: Unit
    index: int | None = None
    """Of a column with several numbers per row."""


@dataclass(frozen=True)
class ColumnMap:
    """A checked map."""

    quantities: dict[str, Column]
    """By name out of `QUANTITIES`."""
    columns: dict[str, Column] = field(default_factory=dict)
    """Further columns by the name they get."""
    cosmology: dict[str, float] = field(default_factory=dict)
    side: tuple[float, Unit] | None = None
    """Of the periodic box of a snapshot."""
    redshift: float | None = None
    """Of a snapshot."""
    centre_deg: tuple[float, float] | None = None
    """ra and dec of the point that is turned to the line of sight +z."""
    table: str = ""
    """HDU of a FITS file, group or dataset of an HDF5 file."""


def load_map(source: Path | Mapping[str, Any]) -> ColumnMap:
    """A column map from a YAML file or a dict; CatalogError says what is wrong with it."""
    if isinstance(source, Mapping):
        return _checked(source)
    with reading(source, "a YAML file"):
        try:
            content = parse_yaml(source.read_text(encoding="utf-8"), "this")
        except ConfigError as error:
            raise CatalogError(str(error)) from None
        return _checked(content)


def _checked(content: Any) -> ColumnMap:
    if not isinstance(content, Mapping):
        raise CatalogError("a column map must be a mapping like `mass: {column: M, unit: Msun}`")
    known = (*QUANTITIES, *_OTHER)
    for key in content:
        if key not in known:
            raise CatalogError(f"a column map has no '{key}': {nearest(str(key), known)}")
    named = [key for key in content if key in QUANTITIES]
    quantities = {key: _column(key, content[key], QUANTITIES[key]) for key in named}
    _check_combination(set(quantities))
    extra = {}
    for name, entry in _mapping(content, "columns").items():
        extra[str(name)] = _column(f"columns.{name}", entry, None)
    cosmology = {}
    for name, value in _mapping(content, "cosmology").items():
        if name not in PARAMETERS:
            raise CatalogError(f"cosmology has no '{name}': {nearest(str(name), PARAMETERS)}")
        cosmology[name] = _number(f"cosmology.{name}", value)
    box = _mapping(content, "box")
    for key in box:
        if key not in ("side", "unit", "redshift"):
            raise CatalogError(f"box has no '{key}': valid: redshift, side, unit")
    side = None
    if "side" in box:
        side = (_number("box.side", box["side"]), parse_unit("box", box.get("unit"), _LENGTH))
    redshift = _number("box.redshift", box["redshift"]) if "redshift" in box else None
    centre = content.get("centre_deg")
    if centre is not None:
        if not isinstance(centre, list) or len(centre) != 2:
            raise CatalogError(f"centre_deg must be [ra, dec], not {centre!r}")
        centre = (_number("centre_deg", centre[0]), _number("centre_deg", centre[1]))
    return ColumnMap(
        quantities, extra, cosmology, side, redshift, centre, str(content.get("table", ""))
    )


def _check_combination(names: set[str]) -> None:
    cartesian, sky = {"x", "y", "z"}, {"ra", "dec"}
    if "mass" not in names:
        raise CatalogError("a column map needs mass")
    if bool(names & cartesian) == bool(names & sky):
        raise CatalogError("a column map needs either x, y, z or ra, dec")
    if names & cartesian and not cartesian <= names:
        only = ", ".join(sorted(names & cartesian))
        raise CatalogError(f"of x, y, z all are needed, not only {only}")
    if names & sky and not (sky <= names and names & {"z_obs", "z_cos"}):
        raise CatalogError("ra and dec need each other and z_cos or z_obs")
    moving = names & {"vx", "vy", "vz"}
    if moving and (len(moving) < 3 or names & sky):
        raise CatalogError("vx, vy, vz go together, and with x, y, z (with ra, dec: v_los)")
    if moving and "v_los" in names:
        raise CatalogError("either vx, vy, vz or v_los")


def _column(key: str, entry: Any, units: dict[str, float] | None) -> Column:
    """`units` None: any text, and the numbers stay as they are."""
    if isinstance(entry, str) and units is _REDSHIFT:
        entry = {"column": entry}
    if not isinstance(entry, Mapping) or not isinstance(entry.get("column"), str):
        raise CatalogError(f"{key} must be like {{column: NAME, unit: ...}}, not {entry!r}")
    for name in entry:
        if name not in ("column", "unit", "index"):
            raise CatalogError(f"{key} has no '{name}': valid: column, index, unit")
    index = entry.get("index")
    if index is not None and (type(index) is not int or index < 0):
        raise CatalogError(f"{key}: index must be a number from 0, not {index!r}")
    if units is None:
        if not isinstance(entry.get("unit"), str):
            raise CatalogError(f"{key} needs a unit in words; it is written down, not converted")
        return Column(entry["column"], Unit(entry["unit"], 1.0), index)
    if units is _REDSHIFT and "unit" not in entry:
        return Column(entry["column"], Unit("", 1.0), index)
    return Column(entry["column"], parse_unit(key, entry.get("unit"), units), index)


def parse_unit(key: str, text: Any, units: Mapping[str, float]) -> Unit:
    """A unit out of `units`, with /h after a length or mass and log10 before a mass."""
    with_h = units is _LENGTH or units is _MASS
    allowed = [*units] + [f"{name}/h" for name in units if with_h]
    allowed += ["log10 Msun", "log10 Msun/h"] if units is _MASS else []
    if isinstance(text, str):
        squeezed = "".join(text.split())
        log10 = units is _MASS and squeezed.startswith("log10Msun")
        plain = squeezed.removeprefix("log10") if log10 else squeezed
        base = plain.removesuffix("/h") if with_h else plain
        if base in units:
            return Unit(text, units[base], -1 if base != plain else 0, log10)
    raise CatalogError(f"{key} needs a unit: {', '.join(filter(None, allowed))}; not {text!r}")


def _mapping(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = content.get(key) or {}
    if not isinstance(value, Mapping):
        raise CatalogError(f"{key} must be a mapping, not {value!r}")
    return value


def _number(key: str, value: Any) -> float:
    if type(value) not in (int, float):
        raise CatalogError(f"{key} must be a number, not {value!r}")
    return float(value)
