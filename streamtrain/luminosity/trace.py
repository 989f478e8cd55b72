"""Turn a luminosity model written in NumPy into straight-line kernel code.

The record of the model (see `symbol`) is printed as float32 C over the portable log2 and exp2 of
kernels/portable.cuh. Positive quantities made of products and powers are carried as their base-2
logarithm, so that `(M / M1) ** b` costs one subtraction and one product, and the range of float32
is never the limit. What depends on parameters alone is evaluated on the host in float64, once per
sample, and handed to the kernel as one number ("uniform"). What depends on the halo alone and needs
a logarithm or an exponential is computed by the kernel once per halo, as a column ("static").
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.luminosity.symbol import (
    LARGEST,
    MASS,
    REDSHIFT,
    Symbol,
    TraceError,
    column,
    evaluate,
    operations,
    parameter,
    symbol,
)
from streamtrain.numerics import portable

__all__ = ["Symbol", "TraceError", "Traced", "trace"]

INPUTS = ("mass_Msun", "z")
SMALLEST = 1.1754944e-38
"""Smallest normal float32: a GPU takes smaller numbers for zero, so all do."""
LONGEST_TEXT = 10_000
"""Length of an expression in a model's identity; a longer one is given a name."""
Z_MARGIN = 1e-3
"""How far a comparison must be from all redshifts to be decided beforehand."""


@dataclass
class Traced:
    """A model function as kernel code and the host expressions that feed it."""

    source: str = ""
    """C functions model_log2_luminosity and, if the model has them, model_sigma and
    model_on_fraction; float32."""
    uniforms: list[Symbol] = field(default_factory=list)
    """Expressions of parameters alone; the kernel reads their values as u[0], u[1], ..."""
    columns: list[tuple[str, str]] = field(default_factory=list)
    """(column, form) in the order the kernel reads them; form is 'linear' or 'log2'."""
    num_static: int = 0
    """Expressions of the halo alone that need a logarithm or an exponential: their values are
    columns after `columns`, which the kernel fills once."""
    outputs: dict[str, Symbol] = field(default_factory=dict)
    """What the functions return: luminosity [Lsun], sigma (of log2 L), on_fraction."""

    def identity(self) -> str:
        """The whole model as text: the kernel code and the expressions that feed it."""

        texts: dict[int, str] = {}
        named: list[str] = []
        for node in operations(self.uniforms):
            if node.op in ("const", "parameter"):
                text = repr(node.value) if node.op == "const" else node.name
            else:
                text = f"{node.op}({', '.join(texts[id(a)] for a in node.args)})"
            if len(text) > LONGEST_TEXT:  # what is shared would double it again and again
                named.append(text)
                text = f"#{len(named)}"
            texts[id(node)] = text
        return "\n".join([self.source, *named, *(texts[id(u)] for u in self.uniforms)])

    def evaluate(
        self,
        output: str,
        parameters: Mapping[str, NDArray[np.float64]],
        halos: Mapping[str, NDArray[np.float64]],
    ) -> NDArray[np.float64]:
        """One of `outputs` in portable float64 on the host, [B, n].

        parameters: [B] each; halos: "mass", "one_plus_z" and the columns by name, [n] each.
        """
        size = len(next(iter(parameters.values()), np.zeros(1)))

        def leaf(node: Symbol) -> Any:
            if node.op == "const":
                return np.float64(node.value)
            if node.op == "parameter":
                return np.asarray(parameters[node.name], np.float64)[:, None]
            if node.op in ("mass", "one_plus_z"):
                return halos[node.op]
            if node.op == "redshift":
                return halos["one_plus_z"] - 1.0
            return halos[node.name] if node.op == "column" else None

        with np.errstate(all="ignore"):
            result = _value(self.outputs[output], leaf, {})
        return np.broadcast_to(result, (size, len(halos["mass"])))

    def evaluate_uniforms(self, parameters: Mapping[str, NDArray[np.float64]]) -> NDArray[Any]:
        """Values of the uniforms for B samples: float32 [B, num_uniforms]."""
        size = len(next(iter(parameters.values()), np.zeros(1)))
        memo: dict[int, Any] = {}

        def leaf(node: Symbol) -> Any:
            if node.op == "const":
                return np.float64(node.value)
            if node.op == "parameter":
                return np.asarray(parameters[node.name], np.float64)
            return None

        with np.errstate(all="ignore"):
            rows = [np.broadcast_to(_value(u, leaf, memo), (size,)) for u in self.uniforms]
            table = np.stack(rows, axis=1) if rows else np.zeros((size, 0))
            table = np.where(np.abs(table) < SMALLEST, 0.0, table)
            return np.clip(table, -3e38, 3e38).astype(np.float32)


def _value(node: Symbol, leaf: Callable[[Symbol], Any], memo: dict[int, Any]) -> Any:
    """What an expression evaluates to, each part once. leaf: a leaf's value, None for what has to
    be evaluated."""
    if id(node) not in memo:
        value = leaf(node)
        if value is None:
            value = evaluate(node.op, [_value(a, leaf, memo) for a in node.args])
        memo[id(node)] = value
    return memo[id(node)]


class _Printer:
    """Prints an expression as C statements, each value once, as itself or as its log2."""

    def __init__(self, z_range: tuple[float, float] | None = None) -> None:
        self.traced = Traced()
        self.z_range = z_range
        self.lines: list[str] = []
        self.memo: dict[tuple[str, tuple[Any, ...]], str] = {}
        self.interned: dict[tuple[Any, ...], Symbol] = {}
        self.seen: dict[int, tuple[Symbol, Symbol]] = {}
        self.heavy: dict[tuple[str, int], tuple[Symbol, bool]] = {}
        self.slots: dict[tuple[Any, ...], int] = {}
        self.in_static = False

    def function(self, name: str, output: str, form: str, node: Symbol) -> None:
        """Add a C function of a halo that returns `node`, as itself or as its log2."""
        self.lines, self.memo = [], {}
        node = self.intern(node)
        self.traced.outputs[output] = node
        result = self.log2(node) if form == "log2" else self.linear(node)
        self._print(name, result)

    def _print(self, name: str, result: str) -> None:
        body = "".join(f"{line}\n" for line in self.lines)
        self.traced.source += (
            f"INLINE float {name}(float log2_mass, float log2_1pz, const float* columns,\n"
            f"{' ' * (len(name) + 14)}i64 stride, const float* u) {{\n"
            "    (void)log2_mass; (void)log2_1pz; (void)columns; (void)stride; (void)u;\n"
            f"{body}    return {result};\n}}\n"
        )

    def _static(self, form: str, node: Symbol) -> str | None:
        """Where the value of `node` depends on the halo alone and needs a logarithm or an
        exponential: the column it is looked up in, made by a function of its own."""
        if self.in_static or node.has_parameters or not self._is_heavy(form, node):
            return None
        outside, self.lines, self.memo, self.in_static = (self.lines, self.memo), [], {}, True
        result = self.log2(node) if form == "log2" else self.linear(node)
        if "u[" not in "".join([*self.lines, result]):
            self._print(f"static_{self.traced.num_static}", result)
            result = f"columns[(NUM_INPUTS + {self.traced.num_static}) * stride]"
            self.traced.num_static += 1
        else:
            result = ""
        (self.lines, self.memo), self.in_static = outside, False
        return self._name(form, node, result) if result else None

    def _is_heavy(self, form: str, node: Symbol) -> bool:
        if (form, id(node)) not in self.heavy:
            self.heavy[form, id(node)] = node, _heavy(form, node, self._is_heavy)
        return self.heavy[form, id(node)][1]

    def finish(self) -> None:
        """Sizes, and the function that fills the static columns."""
        traced = self.traced
        head = f"#define NUM_INPUTS {len(traced.columns)}\n"
        head += f"#define NUM_UNIFORMS {len(traced.uniforms)}\n"
        if traced.num_static:
            head += f"#define NUM_STATIC {traced.num_static}\n"
            stores = "".join(
                f"    columns[(NUM_INPUTS + {k}) * stride] =\n"
                f"        static_{k}(log2_mass, log2_1pz, columns, stride, columns);\n"
                for k in range(traced.num_static)
            )
            traced.source += (
                "INLINE void store_static(float log2_mass, float log2_1pz, float* columns,\n"
                f"                         i64 stride) {{\n{stores}}}\n"
            )
        traced.source = head + traced.source

    def intern(self, node: Symbol) -> Symbol:
        """Equal expressions become one object; comparisons that z_range decides disappear."""
        if id(node) not in self.seen:
            self.seen[id(node)] = node, self._intern(node)
        return self.seen[id(node)][1]

    def _intern(self, node: Symbol) -> Symbol:
        decided = self._decided(node)
        if decided is not None:
            return self.intern(decided)
        args = tuple(self.intern(a) for a in node.args)
        copy = node
        if any(a is not b for a, b in zip(args, node.args, strict=True)):
            copy = Symbol(node.op, args, node.name, node.value)
        return self.interned.setdefault(copy.key, copy)

    def _decided(self, node: Symbol) -> Symbol | None:
        """The branch of np.where(z < constant, ...) that all redshifts take, if they do."""
        if self.z_range is None or node.op != "where" or node.args[0].op not in ("lt", "le"):
            return None
        low, high = self.z_range[0] - Z_MARGIN, self.z_range[1] + Z_MARGIN
        left, right = node.args[0].args
        if left.op == "redshift" and right.op == "const":
            below, above = high < right.value, low > right.value
        elif right.op == "redshift" and left.op == "const":
            below, above = low > left.value, high < left.value
        else:
            return None
        return node.args[1] if below else node.args[2] if above else None

    def _name(self, form: str, node: Symbol, expression: str) -> str:
        self.memo[form, node.key] = name = self._line(expression)
        return name

    def _line(self, expression: str) -> str:
        name = f"t{len(self.lines)}"
        self.lines.append(f"    const float {name} = {expression};")
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
        static = self._static("linear", node)
        if static is not None:
            return static
        op, args = node.op, node.args
        if op in ("log2_mass", "log2_1pz"):
            return op
        if op == "column":
            return self._name("linear", node, self._column(node.name, "linear"))
        if op == "redshift":
            return self._name("linear", node, f"{self.linear(args[0])} - 1.0f")
        if op == "log2":
            return self.log2(args[0])
        if node.natural:
            return self._name("linear", node, f"portable_exp2({self.log2(node)})")
        if op in ("lt", "le"):
            sign = "<" if op == "lt" else "<="
            form = self.log2 if _by_logarithm(*args) else self.linear
            return self._name(
                "linear", node, f"{form(args[0])} {sign} {form(args[1])} ? 1.0f : 0.0f"
            )
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
        static = self._static("log2", node)
        if static is not None:
            return static
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
        if op == "add" and all(a.natural for a in args):
            # log2(2^p + 2^q) with one exponential, whatever the size of p and q
            p, q = self.log2(args[0]), self.log2(args[1])
            larger = self._line(f"{p} > {q} ? {p} : {q}")
            gap = self._line(f"{p} > {q} ? {q} - {p} : {p} - {q}")
            sum_ = self._line(f"1.0f + portable_exp2({gap})")
            return self._name("log2", node, f"{larger} + portable_log2({sum_})")
        return self._name("log2", node, f"portable_log2({self.linear(node)})")


def _heavy(form: str, node: Symbol, of: Callable[[str, Symbol], bool]) -> bool:
    """Whether the kernel needs a logarithm or an exponential for the value. of: the same of what it
    is made of."""
    op, args = node.op, node.args
    if not node.varying or op in ("log2_mass", "log2_1pz", "column"):
        return False
    if form == "linear":
        if op == "log2":
            return of("log2", args[0])
        compares = op in ("lt", "le") and _by_logarithm(*args)
        inner = "log2" if compares else "linear"
        return op == "redshift" or node.natural or any(of(inner, a) for a in args)
    if op in ("mass", "one_plus_z"):
        return False
    if op == "exp2":
        return of("linear", args[0])
    if op == "pow":
        return of("log2", args[0]) or of("linear", args[1])
    if (op == "sqrt" and args[0].positive) or (op in ("mul", "div") and node.positive):
        return any(of("log2", a) for a in args)
    if op == "where" and node.positive:
        return of("linear", args[0]) or any(of("log2", a) for a in args[1:])
    return True


def _by_logarithm(a: Symbol, b: Symbol) -> bool:
    return a.positive and b.positive and (a.natural or b.natural)


def _log2_of_uniform(node: Symbol) -> Symbol:
    if node.op == "const":
        return symbol(float(portable.log2(node.value)))
    return node.args[0] if node.op == "exp2" else Symbol("log2", (node,))


def _literal(value: float) -> str:
    value = 0.0 if abs(value) < SMALLEST else value
    text = repr(float(np.float32(np.clip(value, -3e38, 3e38))))
    return f"({text}f)" if value < 0 else f"{text}f"


def trace(
    function: Callable[..., Any],
    parameters: Sequence[str],
    extra: Mapping[str, float] | None = None,
    *,
    sigma_dex: Callable[..., Any] | None = None,
    on_fraction: Callable[..., Any] | None = None,
    z_range: tuple[float, float] | None = None,
) -> Traced:
    """Record `function(mass_Msun, z, ...)` and print it as kernel code.

    parameters: names that become parameters of a sample; `extra`: names with a fixed value (the
    line's rest frequency); any other argument without a default is a column of the lightcone.
    sigma_dex, on_fraction: functions of the same kind for the scatter [dex] and the duty cycle of
    a halo. z_range: redshifts of the halos that matter, which decide comparisons with z.
    Raises TraceError for an operation that cannot be compiled.
    """
    try:
        return _trace(function, parameters, extra or {}, sigma_dex, on_fraction, z_range)
    except RecursionError:
        name = getattr(function, "__name__", "the model")
        raise TraceError(f"{name} is nested too deeply to be compiled into the kernel") from None


def _trace(
    function: Callable[..., Any],
    parameters: Sequence[str],
    extra: Mapping[str, float],
    sigma_dex: Callable[..., Any] | None,
    on_fraction: Callable[..., Any] | None,
    z_range: tuple[float, float] | None,
) -> Traced:
    printer = _Printer(z_range)
    output = _record(function, parameters, extra)
    printer.function("model_log2_luminosity", "luminosity", "log2", output)
    if sigma_dex is not None:
        width = _record(sigma_dex, parameters, extra) * portable.LOG2_10
        printer.function("model_sigma", "sigma", "linear", width)
        printer.traced.source += "#define MODEL_SIGMA\n"
    if on_fraction is not None:
        share = _record(on_fraction, parameters, extra)
        printer.function("model_on_fraction", "on_fraction", "linear", share)
        printer.traced.source += "#define MODEL_DUTY\n"
    printer.finish()
    return printer.traced


def _record(
    function: Callable[..., Any], parameters: Sequence[str], extra: Mapping[str, float]
) -> Symbol:
    """Call the function with symbols."""
    arguments: dict[str, Any] = {}
    for name, argument in inspect.signature(function).parameters.items():
        if name in INPUTS:
            continue
        if name in parameters:
            arguments[name] = parameter(name)
        elif name in extra:
            arguments[name] = extra[name]
        elif argument.default is inspect.Parameter.empty:
            arguments[name] = column(name)
    name = getattr(function, "__name__", "the model")
    try:
        result = function(MASS, REDSHIFT, **arguments)
    except TraceError:
        raise
    except Exception as error:
        raise TraceError(
            f"{name} cannot be compiled into the kernel: {type(error).__name__}: {error}"
        ) from error
    if isinstance(result, Symbol) and (number := len(operations([result]))) > LARGEST:
        raise TraceError(f"{name} consists of {number} operations; at most {LARGEST} are compiled")
    if not isinstance(result, Symbol | int | float | np.number):
        raise TraceError(
            f"{name} must return the luminosity [Lsun], one "
            f"number per halo, but returns an object of type {type(result).__name__}"
        )
    return symbol(result)
