"""Turn a luminosity model written in NumPy into straight-line kernel code.

The model function is called once with symbols instead of arrays. A symbol records what is done to
it (operators, NumPy functions); the record is then printed as float32 C over the portable log2 and
exp2 of kernels/portable.cuh. Positive quantities made of products and powers are carried as their
base-2 logarithm, so that `(M / M1) ** b` costs one subtraction and one product, and the range of
float32 is never the limit. What depends on parameters alone is evaluated on the host in float64,
once per sample, and handed to the kernel as one number ("uniform").
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain import portable

INPUTS = ("mass_Msun", "z")
_VARYING = ("log2_mass", "log2_1pz", "column")


class TraceError(ValueError):
    """A model function that cannot be compiled; the message says where and why."""


class Symbol:
    """A quantity of the model: what it is computed from, not its value."""

    __slots__ = ("args", "name", "op", "positive", "value", "varying")

    def __init__(self, op: str, args: tuple[Symbol, ...] = (), name: str = "", value: float = 0.0):
        self.op, self.args, self.name, self.value = op, args, name, value
        self.varying = op in _VARYING or any(a.varying for a in args)
        self.positive = _is_positive(op, args, value)

    @property
    def key(self) -> tuple[Any, ...]:
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

    def __bool__(self) -> bool:
        raise TraceError(_blame("a branch on a halo's value (use np.where)"))

    def __float__(self) -> float:
        raise TraceError(_blame("a conversion to a Python number (math.* functions: use np.*)"))

    def __iter__(self) -> Any:
        raise TraceError(_blame("a loop over halos"))

    def __getitem__(self, _: Any) -> Any:
        raise TraceError(_blame("indexing (use np.where)"))

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Symbol:
        rule = _UFUNCS.get(ufunc.__name__)
        if rule is None or method != "__call__" or options:
            raise TraceError(_blame(f"np.{ufunc.__name__}"))
        result: Symbol = rule(*inputs)
        return result

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Symbol:
        if function is np.where and len(args) == 3 and not options:
            return Symbol("where", (symbol(args[0]), symbol(args[1]), symbol(args[2])))
        if function is np.clip and len(args) == 3 and not options:
            return _binary("min", _binary("max", args[0], args[1]), args[2])
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


def symbol(value: Any) -> Symbol:
    """`value` itself, or a constant."""
    if isinstance(value, Symbol):
        return value
    if isinstance(value, bool | int | float | np.number) or (
        isinstance(value, np.ndarray) and value.ndim == 0
    ):
        return Symbol("const", value=float(value))
    raise TraceError(_blame(f"a constant of type {type(value).__name__}"))


def _binary(op: str, left: Any, right: Any) -> Symbol:
    a, b = symbol(left), symbol(right)
    if a.op == "const" and b.op == "const":
        return Symbol("const", value=float(_evaluate_op(op, [a.value, b.value])))
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
    "greater": lambda a, b: _binary("lt", b, a),
    "greater_equal": lambda a, b: _binary("le", b, a),
}


def _evaluate_op(op: str, args: list[Any]) -> Any:
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


def _blame(what: str) -> str:
    """`what` cannot be compiled, at the line of the user's function that does it."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    code = frame.f_code
    return (
        f"{what} in {code.co_name} ({code.co_filename}, line {frame.f_lineno}) cannot be compiled "
        "into the kernel; use + - * / **, comparisons, np.where, np.clip and "
        f"{', '.join('np.' + name for name in sorted(_UFUNCS) if name not in ('positive',))}"
    )


@dataclass
class Traced:
    """A model function as kernel code and the host expressions that feed it."""

    source: str = ""
    """C function model_log2_luminosity, float32."""
    uniforms: list[Symbol] = field(default_factory=list)
    """Expressions of parameters alone; the kernel reads their values as u[0], u[1], ..."""
    columns: list[tuple[str, str]] = field(default_factory=list)
    """(column, form) in the order the kernel reads them; form is 'linear' or 'log2'."""
    output: Symbol = field(default_factory=lambda: symbol(0.0))

    def evaluate_uniforms(self, parameters: Mapping[str, NDArray[np.float64]]) -> NDArray[Any]:
        """Values of the uniforms for B samples: float32 [B, num_uniforms]."""
        size = len(next(iter(parameters.values()), np.zeros(1)))
        memo: dict[int, Any] = {}

        def value(node: Symbol) -> Any:
            if id(node) not in memo:
                if node.op == "const":
                    memo[id(node)] = np.float64(node.value)
                elif node.op == "parameter":
                    memo[id(node)] = np.asarray(parameters[node.name], np.float64)
                else:
                    memo[id(node)] = _evaluate_op(node.op, [value(a) for a in node.args])
            return memo[id(node)]

        with np.errstate(all="ignore"):
            rows = [np.broadcast_to(value(u), (size,)) for u in self.uniforms]
            table = np.stack(rows, axis=1) if rows else np.zeros((size, 0))
            return np.clip(table, -3e38, 3e38).astype(np.float32)


class _Printer:
    """Prints an expression as C statements, each value once, as itself or as its log2."""

    def __init__(self) -> None:
        self.traced = Traced()
        self.lines: list[str] = []
        self.memo: dict[tuple[str, tuple[Any, ...]], str] = {}
        self.interned: dict[tuple[Any, ...], Symbol] = {}
        self.slots: dict[tuple[Any, ...], int] = {}

    def intern(self, node: Symbol) -> Symbol:
        """Equal expressions become one object."""
        args = tuple(self.intern(a) for a in node.args)
        copy = node
        if any(a is not b for a, b in zip(args, node.args, strict=True)):
            copy = Symbol(node.op, args, node.name, node.value)
        return self.interned.setdefault(copy.key, copy)

    def _name(self, form: str, node: Symbol, expression: str) -> str:
        name = f"t{len(self.lines)}"
        self.lines.append(f"    const float {name} = {expression};")
        self.memo[form, node.key] = name
        return name

    def _uniform(self, node: Symbol) -> str:
        if node.op == "const":
            return _literal(node.value)
        slot = self.slots.setdefault(node.key, len(self.traced.uniforms))
        if slot == len(self.traced.uniforms):
            self.traced.uniforms.append(node)
        return f"u[{slot}]"

    def _column(self, name: str, form: str) -> str:
        if (name, form) not in self.traced.columns:
            self.traced.columns.append((name, form))
        return f"columns[{self.traced.columns.index((name, form))} * stride]"

    def linear(self, node: Symbol) -> str:
        """C expression of the value."""
        known = self.memo.get(("linear", node.key))
        if known is not None:
            return known
        if not node.varying:
            return self._uniform(node)
        op, args = node.op, node.args
        if op in ("log2_mass", "log2_1pz"):
            return op
        if op == "column":
            return self._name("linear", node, self._column(node.name, "linear"))
        if op == "redshift":
            return self._name("linear", node, f"{self.linear(args[0])} - 1.0f")
        if op == "log2":
            return self.log2(args[0])
        if _natural(node):
            return self._name("linear", node, f"portable_exp2({self.log2(node)})")
        if op in ("lt", "le"):
            sign = "<" if op == "lt" else "<="
            form = self.log2 if _by_logarithm(*args) else self.linear
            return self._name("linear", node, f"{form(args[0])} {sign} {form(args[1])} ? 1.0f : 0.0f")
        values = [self.linear(a) for a in args]
        patterns = {
            "add": "{0} + {1}",
            "sub": "{0} - {1}",
            "mul": "{0} * {1}",
            "div": "{0} / {1}",
            "neg": "-{0}",
            "abs": "{0} < 0.0f ? -{0} : {0}",
            "sqrt": "square_root({0})",
            "min": "{0} < {1} ? {0} : {1}",
            "max": "{0} > {1} ? {0} : {1}",
            "where": "{0} != 0.0f ? {1} : {2}",
        }
        return self._name("linear", node, patterns[op].format(*values))

    def log2(self, node: Symbol) -> str:
        """C expression of the base-2 logarithm of the value."""
        known = self.memo.get(("log2", node.key))
        if known is not None:
            return known
        if not node.varying:
            return self._uniform(self.intern(_log2_of_uniform(node)))
        op, args = node.op, node.args
        if op in ("mass", "one_plus_z"):
            return args[0].op
        if op == "column":
            return self._name("log2", node, self._column(node.name, "log2"))
        if op == "exp2":
            return self.linear(args[0])
        if op == "pow":
            return self._name("log2", node, f"{self.log2(args[0])} * {self.linear(args[1])}")
        if op == "sqrt" and args[0].positive:
            return self._name("log2", node, f"0.5f * {self.log2(args[0])}")
        if op in ("mul", "div") and node.positive:
            sign = "+" if op == "mul" else "-"
            return self._name("log2", node, f"{self.log2(args[0])} {sign} {self.log2(args[1])}")
        if op == "where" and node.positive:
            return self._name(
                "log2",
                node,
                f"{self.linear(args[0])} != 0.0f ? {self.log2(args[1])} : {self.log2(args[2])}",
            )
        return self._name("log2", node, f"portable_log2({self.linear(node)})")


def _natural(node: Symbol) -> bool:
    """Whether the logarithm of the value is at hand without computing one."""
    if node.op in ("mass", "one_plus_z", "column", "exp2", "pow"):
        return True
    if node.op in ("mul", "div") and node.positive:
        return all(_natural(a) or not a.varying for a in node.args)
    return node.op == "sqrt" and _natural(node.args[0])


def _by_logarithm(a: Symbol, b: Symbol) -> bool:
    return a.positive and b.positive and (_natural(a) or _natural(b))


def _log2_of_uniform(node: Symbol) -> Symbol:
    if node.op == "const":
        return symbol(float(portable.log2(node.value)))
    return node.args[0] if node.op == "exp2" else _log2(node)


def _literal(value: float) -> str:
    text = repr(float(np.float32(np.clip(value, -3e38, 3e38))))
    return f"({text}f)" if value < 0 else f"{text}f"


def trace(
    function: Callable[..., Any], parameters: list[str], extra: Mapping[str, float] | None = None
) -> Traced:
    """Record `function(mass_Msun, z, ...)` and print it as kernel code.

    parameters: names that become parameters of a sample; `extra`: names with a fixed value (the
    line's rest frequency); any other argument without a default is a column of the lightcone.
    Raises TraceError for an operation that cannot be compiled.
    """
    arguments: dict[str, Any] = {}
    for name, argument in inspect.signature(function).parameters.items():
        if name in INPUTS:
            continue
        if name in parameters:
            arguments[name] = parameter(name)
        elif extra and name in extra:
            arguments[name] = extra[name]
        elif argument.default is inspect.Parameter.empty:
            arguments[name] = column(name)
    printer = _Printer()
    output = printer.intern(symbol(function(MASS, REDSHIFT, **arguments)))
    result = printer.log2(output)
    body = "\n".join(printer.lines)
    printer.traced.output = output
    printer.traced.source = (
        f"// {getattr(function, '__name__', 'model')}: traced from Python\n"
        "INLINE float model_log2_luminosity(float log2_mass, float log2_1pz, const float* columns,\n"
        "                                   i64 stride, const float* u) {\n"
        "    (void)log2_mass; (void)log2_1pz; (void)columns; (void)stride; (void)u;\n"
        f"{body}\n    return {result};\n}}\n"
        f"#define NUM_UNIFORMS {len(printer.traced.uniforms)}\n"
    )
    return printer.traced
