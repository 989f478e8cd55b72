"""Which column of a table is what, and in which unit: a YAML file or a dict.

x: {column: X, unit: Mpc/h}       # or ra, dec [deg] with z_cos or z_obs instead of x, y, z
mass: {column: M200m, unit: Msun/h}
z_obs: {column: ZOBS}             # or vx, vy, vz, or v_los, or z_cos, or nothing
columns: {sfr: {column: SFR, unit: Msun/yr}}
cosmology: {Omega_m: 0.3, Omega_b: 0.045, h: 0.7, n_s: 0.96, sigma8: 0.8}

`sure: true` beside a unit: it holds whatever the file says and the numbers look like.

Instead of a column `expression: Z + DZ`, arithmetic with columns. The command line has the same in
words: x_Mpc=X/0.7 mass_Msun=10**logM z_obs=Z+DZ centre_deg=150.1,2.2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from streamtrain.catalogs.headers import CatalogError
from streamtrain.catalogs.readers.expressions import (
    ANGLE,
    LENGTH,
    MASS,
    RATE,
    REDSHIFT,
    SPEED,
    Expression,
    Unit,
    accepted,
    parse_expression,
    read_unit,
)
from streamtrain.catalogs.readers.halos import PARAMETERS, reading
from streamtrain.machine.files import read_text
from streamtrain.schema import ConfigError, nearest
from streamtrain.yamltext import parse_yaml

QUANTITIES: dict[str, dict[str, float]] = {
    **dict.fromkeys(("x", "y", "z"), LENGTH),
    **dict.fromkeys(("vx", "vy", "vz", "v_los"), SPEED),
    **dict.fromkeys(("ra", "dec"), ANGLE),
    **dict.fromkeys(("z_obs", "z_cos"), REDSHIFT),
    "mass": MASS,
}
"""What a column can be, and its units in Mpc, Msun, km/s and deg."""
_WORDS = {
    f"{name}{suffix}": (name, unit)
    for suffix, unit, names in (
        ("_Mpc", "Mpc", ("x", "y", "z")),
        ("_kms", "km/s", ("vx", "vy", "vz", "v_los")),
        ("_deg", "deg", ("ra", "dec")),
        ("_Msun", "Msun", ("mass",)),
        ("", "", ("z_obs", "z_cos")),
    )
    for name in names
}
"""Names on the command line, with the quantity and its unit."""
RATE_WORD = "sfr_Msun_yr"
"""The name on the command line of the column of star-formation rates."""
_OTHER = ("columns", "cosmology", "box", "centre_deg", "table")


@dataclass(frozen=True)
class Column:
    """Where the numbers are and what they mean."""

    name: str
    """The text in the map: a column's name or an expression."""
    unit: Unit
    index: int | None = None
    """Which of several numbers per row it is; None for a column with one."""
    expression: Expression | None = None
    """Arithmetic with columns instead of one column."""
    sure: bool = False
    """Whether the unit holds whatever the file says and the numbers look like."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns that it needs."""
        return (self.name,) if self.expression is None else self.expression.columns


@dataclass(frozen=True)
class ColumnMap:
    """A column map whose every entry has been checked."""

    quantities: dict[str, Column]
    """The columns by the names of `QUANTITIES`."""
    columns: dict[str, Column] = field(default_factory=dict)
    """Further columns by the name they get."""
    cosmology: dict[str, float] = field(default_factory=dict)
    side: tuple[float, Unit] | None = None
    """The side of the periodic box of a snapshot, and its unit."""
    redshift: float | None = None
    """The redshift of a snapshot."""
    centre_deg: tuple[float, float] | None = None
    """ra and dec of the point that is turned to the line of sight +z."""
    table: str = ""
    """HDU of a FITS file, group or dataset of an HDF5 file."""


def load_map(source: Path | Mapping[str, Any]) -> ColumnMap:
    """A column map from a YAML file or a dict; CatalogError says what is wrong with it."""
    if isinstance(source, Mapping):
        return _checked(source)
    with reading(source, "a YAML file"):
        return _checked(_content(source))


def map_of_words(words: Sequence[str]) -> Path | dict[str, Any]:
    """The column map of the command line: a YAML file, NAME=COLUMN_OR_EXPRESSION, or a file and
    then what it lacks or has otherwise. Raises CatalogError."""
    file = None if "=" in words[0] and not Path(words[0]).is_file() else Path(words[0])
    settings = words if file is None else words[1:]
    if file is not None and not settings:
        return file
    content: dict[str, Any] = {}
    sure: list[str] = []
    if file is not None:
        with reading(file, "a YAML file"):
            content = dict(_content(file))
    for word in settings:
        name, equals, text = (part.strip() for part in word.partition("="))
        if not equals or not text:
            raise CatalogError(
                f"--columns takes a file and then NAME=COLUMN like mass_Msun=10**logM, not '{word}'"
            )
        if name == "table":
            content["table"] = text
        elif name == "centre_deg":
            parts = [part.strip() for part in text.strip("[]()").split(",")]
            content["centre_deg"] = [float(a) if _is_number(a) else a for a in parts]
        elif name == "sure":
            sure += text.split(",")
        elif name in _WORDS:
            quantity, unit = _WORDS[name]
            content[quantity] = text if not unit else _entry(text) | {"unit": unit}
        elif name == RATE_WORD:
            rate = _entry(text) | {"unit": "Msun/yr"}
            content["columns"] = {**_mapping(content, "columns"), "sfr": rate}
        else:
            known = nearest(name, (*_WORDS, RATE_WORD, "table", "centre_deg", "sure"))
            if name.lower().startswith("sfr"):
                known = f"did you mean '{RATE_WORD}'?"
            raise CatalogError(f"--columns has no '{name}': {known}")
    for name in sure:
        entry = content.get(name)
        if name not in QUANTITIES or not isinstance(entry, Mapping | str):
            raise CatalogError(f"sure={name} names no column of the map, like sure=mass")
        content[name] = {**(_entry(entry) if isinstance(entry, str) else entry), "sure": True}
    return content


def _content(path: Path) -> Any:
    try:
        return parse_yaml(read_text(path), "this")
    except ConfigError as error:
        raise CatalogError(str(error)) from None


def _entry(text: str) -> dict[str, Any]:
    """A name, or a path in an HDF5 file like Halos/Z, is a column; all else is an expression."""
    plain = re.fullmatch(r"[^\W\d][\w.]*(/[^\W\d][\w.]*)*", text)
    return {"column" if plain else "expression": text}


def _is_number(text: str) -> bool:
    try:
        return np.isfinite(float(text))
    except ValueError:
        return False


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
        units = RATE if name == "sfr" else None  # what luminosity models know the unit of
        extra[str(name)] = _column(f"columns.{name}", entry, units)
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
        side = (_number("box.side", box["side"]), parse_unit("box", box.get("unit"), LENGTH))
    redshift = _number("box.redshift", box["redshift"]) if "redshift" in box else None
    centre = content.get("centre_deg")
    if centre is not None:
        if not isinstance(centre, list) or len(centre) != 2:
            raise CatalogError(
                f"centre_deg must be [ra, dec], not {centre!r} (--columns ... centre_deg=150.1,2.2)"
            )
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
    if isinstance(entry, str) and units is REDSHIFT:
        entry = _entry(entry)
    named = [
        entry[a] for a in ("column", "expression") if isinstance(entry, Mapping) and a in entry
    ]
    if len(named) != 1 or not isinstance(named[0], str):
        raise CatalogError(
            f"{key} must be like {{column: NAME, unit: ...}} or {{expression: A + B, unit: ...}}, "
            f"not {entry!r}"
        )
    for name in entry:
        if name not in ("column", "expression", "unit", "index", "sure"):
            raise CatalogError(
                f"{key} has no '{name}': valid: column, expression, index, sure, unit"
            )
    index = entry.get("index")
    if index is not None and (type(index) is not int or index < 0 or "expression" in entry):
        raise CatalogError(
            f"{key}: index must be a number from 0 and of a column (NAME[0] in an expression), "
            f"not {index!r}"
        )
    sure = entry.get("sure", False)
    if type(sure) is not bool:
        raise CatalogError(f"{key}: sure must be true or false, not {sure!r}")
    if units is None:
        if not isinstance(entry.get("unit"), str):
            raise CatalogError(f"{key} needs a unit in words; it is written down, not converted")
        unit = Unit(entry["unit"], 1.0)
    elif units is REDSHIFT and "unit" not in entry:
        unit = Unit("", 1.0)
    else:
        unit = parse_unit(key, entry.get("unit"), units)
    if "column" in entry:
        return Column(named[0], unit, index, sure=sure)
    try:
        expression = parse_expression(named[0])
    except CatalogError as error:
        raise CatalogError(f"{key}: {error}") from None
    if expression.only_name is not None:
        return Column(expression.only_name, unit, sure=sure)
    return Column(named[0], unit, None, expression, sure)


def parse_unit(key: str, text: Any, units: Mapping[str, float]) -> Unit:
    """A unit out of `units`, with /h after a length or mass, log10 before a mass and a power of
    the scale factor a after a speed."""
    unit = read_unit(text, units) if isinstance(text, str) else None
    if unit is None:
        raise CatalogError(f"{key} needs a unit: {accepted(units)}; not {text!r}")
    return unit


def _mapping(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = content.get(key) or {}
    if not isinstance(value, Mapping):
        raise CatalogError(f"{key} must be a mapping, not {value!r}")
    return value


def _number(key: str, value: Any) -> float:
    if type(value) not in (int, float):
        raise CatalogError(f"{key} must be a number, not {value!r}")
    return float(value)
