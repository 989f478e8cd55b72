"""Symbols that record what a luminosity model does to its inputs.

The model function is called once with symbols instead of arrays; operators and NumPy functions on
them (through NumPy's own protocols) build an expression. What cannot be recorded is refused with
the line that does it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from streamtrain.numerics import portable

_VARYING = ("log2_mass", "log2_1pz", "column")
DEEPEST = 200
"""Operations on top of each other, which are walked one inside the other."""
LARGEST = 5000
"""Operations of a model, a few seconds of compilation."""


PORTABLE = "portable"
"""Name of the symbols of log2 and exp2 that NumPy evaluates by `numerics.portable`, too."""


class TraceError(ValueError):
    """A model function that cannot be compiled; the message says where and why."""


def _refused(what: str) -> Callable[..., Any]:
    """A method of Symbol that cannot be recorded."""

    def method(self: Symbol, *_: Any) -> Any:
        raise TraceError(_blame(what))

    return method


class Symbol:
    """A quantity of the model: what it is computed from, not its value."""

    __slots__ = (
        "args",
        "depth",
        "has_parameters",
        "may_be_negative",
        "name",
        "natural",
        "op",
        "positive",
        "value",
        "varying",
    )

    def __init__(self, op: str, args: tuple[Symbol, ...] = (), name: str = "", value: float = 0.0):
        self.op, self.args, self.name, self.value = op, args, name, value
        self.depth: int = 1 + max((a.depth for a in args), default=0)
        if self.depth > DEEPEST:
            raise TraceError(
                f"more than {DEEPEST} operations, each on the result of the one before, "
                f"{_place()} are too many to be compiled into the kernel"
            )
        self.varying: bool = op in _VARYING or any(a.varying for a in args)
        self.has_parameters: bool = op == "parameter" or any(a.has_parameters for a in args)
        self.positive = _is_positive(op, args, value)
        self.natural: bool = _is_natural(op, args, self.positive)
        """Whether the logarithm of the value is at hand without computing one."""
        self.may_be_negative: bool = _may_be_negative(self)
        """Whether a halo's value changes sign for sensible parameters (taken as positive)."""

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells this expression from another one: operation, arguments, name and value."""
        return self.op, tuple(id(a) for a in self.args), self.name, self.value

    # operators
    def __add__(self, other: Any) -> Symbol:
        return _binary("add", self, other)

    def __radd__(self, other: Any) -> Symbol:
        return _binary("add", other, self)

    def __sub__(self, other: Any) -> Symbol:
        return _binary("sub", self, other)

    def __rsub__(self, other: Any) -> Symbol:
        return _binary("sub", other, self)

    def __mul__(self, other: Any) -> Symbol:
        return _binary("mul", self, other)

    def __rmul__(self, other: Any) -> Symbol:
        return _binary("mul", other, self)

    def __truediv__(self, other: Any) -> Symbol:
        return _binary("div", self, other)

    def __rtruediv__(self, other: Any) -> Symbol:
        return _binary("div", other, self)

    def __pow__(self, other: Any) -> Symbol:
        return _power(self, other)

    def __rpow__(self, other: Any) -> Symbol:
        return _power(other, self)

    def __neg__(self) -> Symbol:
        return Symbol("neg", (self,))

    def __pos__(self) -> Symbol:
        return self

    def __abs__(self) -> Symbol:
        return Symbol("abs", (self,))

    def __lt__(self, other: Any) -> Symbol:
        return _binary("lt", self, other)

    def __le__(self, other: Any) -> Symbol:
        return _binary("le", self, other)

    def __gt__(self, other: Any) -> Symbol:
        return _binary("lt", other, self)

    def __ge__(self, other: Any) -> Symbol:
        return _binary("le", other, self)

    def __and__(self, other: Any) -> Symbol:
        if self.varying or not isinstance(other, Symbol) or other.varying:
            raise TraceError(_blame("& | ~ (nest np.where)"))
        return Symbol("min", (self, other))  # of two comparisons, which are 0 or 1

    __rand__ = __and__

    def __portable__(self, function: str) -> Symbol:
        """A function of `numerics.portable` of it."""
        return Symbol(function, (self,), name=PORTABLE)

    def astype(self, kind: Any) -> Symbol:
        """What is drawn for a sample as another type; of a halo's value it is refused."""
        if self.varying or self.has_parameters:
            raise TraceError(_blame("the attribute .astype"))
        return self if kind is np.float64 else Symbol("float32", (self,))

    __hash__ = object.__hash__
    __eq__ = __ne__ = _refused("a test for equality (use <= or >=)")
    __or__ = __ror__ = __invert__ = _refused("& | ~ (nest np.where)")
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = _refused("// or %")
    __bool__ = _refused("a branch on a halo's value (use np.where)")
    __float__ = __int__ = __round__ = _refused(
        "a conversion to a Python number (math.* functions: use np.*)"
    )
    __iter__ = __len__ = _refused("a loop over halos")
    __getitem__ = _refused("indexing (use np.where)")
    __setitem__ = _refused("an assignment to elements (use np.where)")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise TraceError(_blame(f"the attribute .{name}"))

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Symbol:
        rule = _UFUNCS.get(ufunc.__name__)
        if rule is None or method != "__call__" or options:
            form = "" if method == "__call__" else f".{method}"
            given = f" with {', '.join(options)}=" if options else ""
            raise TraceError(_blame(f"np.{ufunc.__name__}{form}{given}"))
        result: Symbol = rule(*inputs)
        return result

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Symbol:
        if function is np.where and len(args) == 3 and not options:
            return Symbol("where", (symbol(args[0]), symbol(args[1]), symbol(args[2])))
        if function is np.clip and len(args) == 3 and not options:
            return _binary("min", _binary("max", args[0], args[1]), args[2])
        drawn = not (self.varying or self.has_parameters)
        if function is np.searchsorted and drawn and options == {"side": "right"}:
            return Symbol("count", (self, *(symbol(edge) for edge in args[0])))
        raise TraceError(_blame(f"np.{function.__name__}"))


def _is_positive(op: str, args: tuple[Symbol, ...], value: float) -> bool:
    """Whether the value is certainly above zero."""
    if op == "const":
        return value > 0.0
    if op in ("exp2", "one_plus_z", "mass", "column", "redshift", "abs", "sqrt"):
        return True
    if op == "pow":
        return args[0].positive
    if op in ("add", "mul", "div", "min"):
        return args[0].positive and args[1].positive
    if op == "max":
        return args[0].positive or args[1].positive
    if op == "where":
        return args[1].positive and args[2].positive
    return False


def _is_natural(op: str, args: tuple[Symbol, ...], positive: bool) -> bool:
    if op in ("mass", "one_plus_z", "column", "exp2", "pow"):
        return True
    if op in ("mul", "div") and positive:
        return all(a.natural or not a.varying for a in args)
    return op == "sqrt" and args[0].natural


def _may_be_negative(node: Symbol) -> bool:
    if node.op == "const" or not node.varying:
        return node.value < 0.0
    if node.positive:
        return False
    if node.op in ("add", "mul", "div", "min"):
        return any(a.may_be_negative for a in node.args)
    if node.op == "max":
        return all(a.may_be_negative for a in node.args)
    if node.op == "where":
        return any(a.may_be_negative for a in node.args[1:])
    return node.op in ("sub", "neg", "log2")


_LOG2_MASS = Symbol("log2_mass")
_LOG2_1PZ = Symbol("log2_1pz")
MASS = Symbol("mass", (_LOG2_MASS,))
ONE_PLUS_Z = Symbol("one_plus_z", (_LOG2_1PZ,))
REDSHIFT = Symbol("redshift", (ONE_PLUS_Z,))


def column(name: str) -> Symbol:
    """A column of the lightcone, non-negative (a star-formation rate, say)."""
    return Symbol("column", name=name)


def parameter(name: str) -> Symbol:
    """A parameter of the model: one number per sample."""
    return Symbol("parameter", name=name)


def operations(roots: Iterable[Symbol]) -> list[Symbol]:
    """All that some expressions consist of, each once, what it is made of before it."""
    found: dict[int, Symbol] = {}
    waiting = [(root, False) for root in roots]
    while waiting:
        node, ready = waiting.pop()
        if id(node) in found:
            continue
        if ready:
            found[id(node)] = node
        else:
            waiting += [(node, True), *((a, False) for a in node.args)]
    return list(found.values())


def symbol(value: Any) -> Symbol:
    """`value` itself, or a constant."""
    if isinstance(value, Symbol):
        return value
    if isinstance(value, bool | int | float | np.number) or (
        isinstance(value, np.ndarray) and value.ndim == 0
    ):
        if value != value:
            raise TraceError(_blame("a constant that is not a number (NaN)"))
        return Symbol("const", value=float(value))
    raise TraceError(_blame(f"a constant of type {type(value).__name__}"))


def _binary(op: str, left: Any, right: Any) -> Symbol:
    a, b = symbol(left), symbol(right)
    if a.op == "const" and b.op == "const":
        return Symbol("const", value=float(evaluate(op, [a.value, b.value])))
    if op == "add" and a.op == "redshift" and b.op == "const" and b.value == 1.0:
        return ONE_PLUS_Z
    if op == "add" and b.op == "redshift" and a.op == "const" and a.value == 1.0:
        return ONE_PLUS_Z
    return Symbol(op, (a, b))


def _power(base: Any, exponent: Any) -> Symbol:
    a, b = symbol(base), symbol(exponent)
    if b.op == "const" and b.value == 1.0:
        return a
    if b.op == "const" and b.value == 2.0 and not a.positive:
        return _binary("mul", a, a)
    if a.op == "const":
        return _exp2(_binary("mul", b, float(portable.log2(a.value))))
    if b.op == "const" and b.value.is_integer() and not a.positive:
        power = Symbol("pow", (abs(a), b))  # the logarithm of a negative base does not exist
        sign = Symbol("where", (_binary("lt", a, 0.0), symbol(-1.0), symbol(1.0)))
        return sign * power if b.value % 2 else power
    if a.may_be_negative:
        raise TraceError(
            _blame("a power of something that may be negative (use np.abs or np.maximum)")
        )
    return Symbol("pow", (a, b))


def _exp2(x: Any) -> Symbol:
    return Symbol("exp2", (symbol(x),))


def _log2(x: Any) -> Symbol:
    return Symbol("log2", (symbol(x),))


def _logaddexp(a: Any, b: Any) -> Symbol:
    """ln(e^a + e^b) without overflow."""
    difference = abs(_binary("sub", a, b))
    tail = _log2(1.0 + _exp2(difference * (-1.0 / portable.LN2))) * portable.LN2
    return _binary("max", a, b) + tail


_UFUNCS: dict[str, Callable[..., Symbol]] = {
    "add": lambda a, b: _binary("add", a, b),
    "subtract": lambda a, b: _binary("sub", a, b),
    "multiply": lambda a, b: _binary("mul", a, b),
    "divide": lambda a, b: _binary("div", a, b),
    "power": _power,
    "float_power": _power,
    "square": lambda a: _binary("mul", a, a),
    "sqrt": lambda a: Symbol("sqrt", (symbol(a),)),
    "cbrt": lambda a: _power(a, 1.0 / 3.0),
    "reciprocal": lambda a: _binary("div", 1.0, a),
    "negative": lambda a: -symbol(a),
    "positive": symbol,
    "absolute": lambda a: abs(symbol(a)),
    "fabs": lambda a: abs(symbol(a)),
    "exp": lambda a: _exp2(symbol(a) * (1.0 / portable.LN2)),
    "exp2": _exp2,
    "log": lambda a: _log2(a) * portable.LN2,
    "log2": _log2,
    "log10": lambda a: _log2(a) * portable.LOG10_2,
    "log1p": lambda a: _log2(1.0 + symbol(a)) * portable.LN2,
    "logaddexp": _logaddexp,
    "maximum": lambda a, b: _binary("max", a, b),
    "minimum": lambda a, b: _binary("min", a, b),
    "less": lambda a, b: _binary("lt", a, b),
    "less_equal": lambda a, b: _binary("le", a, b),
    "logical_and": lambda a, b: symbol(a) & symbol(b),
    "greater": lambda a, b: _binary("lt", b, a),
    "greater_equal": lambda a, b: _binary("le", b, a),
}
_UNNAMED = ("positive", "logical_and")
"""Those that a message does not recommend."""


def evaluate(op: str, args: list[Any]) -> Any:
    """One operation on float64 numbers or arrays, the same bits everywhere."""
    rules: dict[str, Callable[..., Any]] = {
        "add": lambda a, b: a + b,
        "sub": lambda a, b: a - b,
        "mul": lambda a, b: a * b,
        "div": lambda a, b: a / b,
        "neg": lambda a: -a,
        "abs": abs,
        "min": np.minimum,
        "max": np.maximum,
        "sqrt": np.sqrt,
        "exp2": portable.exp2,
        "log2": portable.log2,
        "pow": lambda a, b: portable.exp2(b * portable.log2(a)),
        "lt": lambda a, b: np.asarray(a < b, np.float64),
        "le": lambda a, b: np.asarray(a <= b, np.float64),
        "where": lambda c, a, b: np.where(np.asarray(c) != 0.0, a, b),
    }
    return rules[op](*args)


def _place() -> str:
    """The line of the user's function that is at work."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    return f"in {frame.f_code.co_name} ({frame.f_code.co_filename}, line {frame.f_lineno})"


def _blame(what: str) -> str:
    """`what` cannot be compiled, at the line of the user's function that does it."""
    return (
        f"{what} {_place()} cannot be compiled "
        "into the kernel; use + - * / **, comparisons, np.where, np.clip and "
        f"{', '.join('np.' + name for name in sorted(_UFUNCS) if name not in _UNNAMED)}"
    )
