"""Arithmetic with the columns of a table, `Z + DZ` or `10**logM`, and the units of columns.

An expression holds numbers, names of columns, + - * / **, brackets, log10, sqrt and exp; [k] takes
one number of a column with several. A name with other signs than letters, digits and _ goes in
quotes: `'Halos/M' * 1e10`. The text is parsed, never executed.

Units, in Mpc, Msun, km/s and deg, are read as people and files spell them: "Msun/h", "h^-1 M_sun",
"1e10 solMass / littleh", "dex(solMass)", "cMpc h^{-1}" and "km s-1". An unknown spelling gives
None, never a guess.
"""

from __future__ import annotations

import ast
import math
import operator
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.catalogs.headers import CatalogError

MAX_LENGTH = 300
_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {"log10": np.log10, "sqrt": np.sqrt, "exp": np.exp}
_ALLOWED = f"numbers, columns, + - * / **, brackets and {', '.join(_FUNCTIONS)}"


@dataclass(frozen=True)
class Expression:
    """A checked expression. Made by `parse_expression`."""

    text: str
    tree: ast.expr
    columns: tuple[str, ...]
    """The columns it names, in order."""

    @property
    def only_name(self) -> str | None:
        """The column, of an expression that is nothing but its name."""
        return _name(self.tree)

    def evaluate(self, found: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """The expression's value for every row [n] in float64; `found` has its columns, [n] or [n,
        k].

        Raises CatalogError for a column without real numbers and for shapes that do not fit. What
        is no number (the logarithm of 0) comes out as NaN or infinite.
        """
        with np.errstate(all="ignore"):
            value = _value(self.tree, found)
        if np.ndim(value) != 1:
            raise CatalogError(
                f"'{self.text}' has shape {np.shape(value)}, one number per halo is needed"
            )
        return np.asarray(value, np.float64)


def parse_expression(text: str) -> Expression:
    """The expression that a text holds; CatalogError says what is not allowed in it."""
    if len(text) > MAX_LENGTH:
        raise CatalogError(f"an expression of {len(text)} letters, more than {MAX_LENGTH}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Python would say about its own syntax
            tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        what = error.msg if isinstance(error, SyntaxError) else str(error)
        raise CatalogError(
            f"'{text}' is no expression ({what}); allowed are {_ALLOWED}, and names with other "
            "signs in quotes"
        ) from None
    names: list[str] = []
    _check(tree, text, names)
    if not names:
        raise CatalogError(f"'{text}' names no column")
    return Expression(text, tree, tuple(dict.fromkeys(names)))


def _check(node: ast.expr, text: str, names: list[str]) -> None:
    """CatalogError unless a node and all below it are allowed; collects the columns."""
    name = _name(node)
    if name is not None:
        names.append(name)
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return
    elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        _check(node.left, text, names)
        _check(node.right, text, names)
    elif isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
        _check(node.operand, text, names)
    elif isinstance(node, ast.Call) and _function(node) and len(node.args) == 1:
        _check(node.args[0], text, names)
    elif isinstance(node, ast.Subscript) and _name(node.value) and _index(node) is not None:
        _check(node.value, text, names)
    else:
        part = ast.get_source_segment(text.strip(), node) or text
        raise CatalogError(
            f"'{part}' is not allowed in '{text}': only {_ALLOWED}, and names with other signs in "
            "quotes"
        )


def _name(node: ast.expr) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return None


def _function(node: ast.Call) -> Callable[..., Any] | None:
    known = isinstance(node.func, ast.Name) and not node.keywords
    return _FUNCTIONS.get(getattr(node.func, "id", "")) if known else None


def _index(node: ast.Subscript) -> int | None:
    value = node.slice.value if isinstance(node.slice, ast.Constant) else None
    return value if type(value) is int else None


def _value(node: ast.expr, found: Mapping[str, NDArray[Any]]) -> Any:
    name = _name(node)
    if name is not None:
        array = found[name]
        if array.dtype.kind not in "fiu":
            raise CatalogError(f"'{name}' holds no real numbers (it is {array.dtype})")
        return array.astype(np.float64)
    if isinstance(node, ast.Constant):
        return np.float64(node.value)  # type: ignore[arg-type]
    if isinstance(node, ast.UnaryOp):
        return _OPERATORS[type(node.op)](_value(node.operand, found))
    if isinstance(node, ast.Call):
        function = _function(node)
        assert function is not None
        return function(_value(node.args[0], found))
    if isinstance(node, ast.Subscript):
        array, index = _value(node.value, found), _index(node)
        if array.ndim != 2 or index is None or index >= array.shape[1]:
            raise CatalogError(f"'{_name(node.value)}' has no index {index}")
        return array[:, index]
    assert isinstance(node, ast.BinOp)
    left, right = _value(node.left, found), _value(node.right, found)
    if np.ndim(left) and np.ndim(right) and np.shape(left) != np.shape(right):
        raise CatalogError(
            f"columns of different shape: {ast.unparse(node.left)} {np.shape(left)}, "
            f"{ast.unparse(node.right)} {np.shape(right)}"
        )
    return _OPERATORS[type(node.op)](left, right)


LENGTH = {"Mpc": 1.0, "kpc": 1e-3, "Gpc": 1e3, "pc": 1e-6}
MASS = {"Msun": 1.0}
SPEED = {"km/s": 1.0, "m/s": 1e-3, "cm/s": 1e-5}
SCALED = {"/a": -1.0, "*a": 1.0, "*sqrt(a)": 0.5}
"""What may follow a unit of speed, and the power of the scale factor that it means."""
ANGLE = {"deg": 1.0, "rad": 180.0 / math.pi, "arcmin": 1 / 60, "arcsec": 1 / 3600, "hourangle": 15}
REDSHIFT = {"": 1.0}
RATE = {"Msun/yr": 1.0, "Msun/Gyr": 1e-9}
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
_SPELLINGS |= {
    f"Msun/{time}": rf"{_SPELLINGS['Msun']}(/{word}|\.{word}-1)"
    for time, word in (("yr", "(yr|year)"), ("Gyr", "Gyr"))
}
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

    /h is read after a length or mass, log10 or dex before a mass or rate, a power of the scale
    factor a after a speed, a factor before any of them.
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
    if (log10 and units is not MASS and units is not RATE) or (
        with_h and units not in (LENGTH, MASS)
    ):
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
    if units is RATE:
        names.append("log10 Msun/yr")
    if units is LENGTH or units is MASS:
        names += [f"{name}/h" for name in names]
    if units is SPEED:
        names += [f"km/s{suffix}" for suffix in SCALED]
    return ", ".join(names) or "none"
