"""Arithmetic with the columns of a table: `Z + DZ`, `1e10*Mvir/0.7`, `10**logM`, `Pos[0]/0.7`.

Numbers, names of columns, + - * / **, brackets, log10, sqrt and exp; [k] takes one number of a
column with several. A name with other signs than letters, digits and _ goes in quotes:
`'Halos/M' * 1e10`. The text is parsed, never executed.
"""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.catalogs.lightcone import CatalogError

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
        """Its value for every row [n] in float64; `found` has its columns, [n] or [n, k].

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
        raise CatalogError(f"'{part}' is not allowed in '{text}': only {_ALLOWED}")


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
