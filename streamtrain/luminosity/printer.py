"""Expressions of a luminosity model as kernel code: straight-line float32 C.

Positive quantities made of products and powers are carried as their base-2 logarithm, so that
`(M / M1) ** b` costs one subtraction and one product, and the range of float32 is never the limit.
What depends on parameters alone is evaluated on the host in float64, once per sample, and handed to
the kernel as one number ("uniform"). What depends on the halo alone and needs a logarithm or an
exponential is computed by the kernel once per halo, as a column ("static").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from streamtrain.luminosity.symbol import Symbol, symbol
from streamtrain.numerics import portable

SMALLEST = 1.1754944e-38
"""Smallest normal float32: a GPU takes smaller numbers for zero, so all do."""
Z_MARGIN = 1e-3
"""How far a comparison must be from all redshifts to be decided beforehand."""


class Printer:
    """Prints expressions as C functions of a halo, each value once, as itself or as its log2.

    `source`, `uniforms`, `columns` and `num_static` are those of `trace.Traced`.
    """

    def __init__(self, z_range: tuple[float, float] | None = None) -> None:
        """z_range: redshifts of the halos that matter, which decide comparisons with z."""
        self.source = ""
        self.uniforms: list[Symbol] = []
        self.columns: list[tuple[str, str]] = []
        self.num_static = 0
        self.z_range = z_range
        self.lines: list[str] = []
        self.memo: dict[tuple[str, tuple[Any, ...]], str] = {}
        self.interned: dict[tuple[Any, ...], Symbol] = {}
        self.seen: dict[int, tuple[Symbol, Symbol]] = {}
        self.heavy: dict[tuple[str, int], tuple[Symbol, bool]] = {}
        self.slots: dict[tuple[Any, ...], int] = {}
        self.in_static = False

    def function(self, name: str, form: str, node: Symbol, flag: str = "") -> Symbol:
        """Add a C function of a halo that returns `node`, as itself or as its log2, and define the
        flag that says so; returns the expression that was printed."""
        self.lines, self.memo = [], {}
        node = self.intern(node)
        result = self.log2(node) if form == "log2" else self.linear(node)
        self._print(name, result)
        if flag:
            self.source += f"#define {flag}\n"
        return node

    def _print(self, name: str, result: str) -> None:
        body = "".join(f"{line}\n" for line in self.lines)
        self.source += (
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
            self._print(f"static_{self.num_static}", result)
            result = f"columns[(NUM_INPUTS + {self.num_static}) * stride]"
            self.num_static += 1
        else:
            result = ""
        (self.lines, self.memo), self.in_static = outside, False
        return self._name(form, node, result) if result else None

    def _is_heavy(self, form: str, node: Symbol) -> bool:
        if (form, id(node)) not in self.heavy:
            self.heavy[form, id(node)] = node, _heavy(form, node, self._is_heavy)
        return self.heavy[form, id(node)][1]

    def finished(self) -> str:
        """The whole source: sizes, the functions, and that which fills the static columns."""
        head = f"#define NUM_INPUTS {len(self.columns)}\n"
        head += f"#define NUM_UNIFORMS {len(self.uniforms)}\n"
        if not self.num_static:
            return head + self.source
        head += f"#define NUM_STATIC {self.num_static}\n"
        stores = "".join(
            f"    columns[(NUM_INPUTS + {k}) * stride] =\n"
            f"        static_{k}(log2_mass, log2_1pz, columns, stride, columns);\n"
            for k in range(self.num_static)
        )
        return (
            f"{head}{self.source}"
            "INLINE void store_static(float log2_mass, float log2_1pz, float* columns,\n"
            f"                         i64 stride) {{\n{stores}}}\n"
        )

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
        slot = self.slots.setdefault(node.key, len(self.uniforms))
        if slot == len(self.uniforms):
            self.uniforms.append(node)
        return f"u[{slot}]"

    def _column(self, name: str, form: str) -> str:
        if (name, form) not in self.columns:
            self.columns.append((name, form))
        return f"columns[{self.columns.index((name, form))} * stride]"

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


def storable(value: Any) -> Any:
    """Numbers, or a symbol, as a kernel holds them in float32: not subnormal, not infinite."""
    return np.clip(np.where(np.abs(value) < SMALLEST, 0.0, value), -3e38, 3e38)


def _literal(value: float) -> str:
    text = repr(float(np.float32(storable(value))))
    return f"({text}f)" if value < 0 else f"{text}f"
