"""Formulas as the instructions of kernels/program.cuh."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray

from streamtrain.generator.recorder import Attempts
from streamtrain.luminosity.symbol import Symbol, TraceError, evaluate
from streamtrain.numerics import portable
from streamtrain.priors import MAX_ATTEMPTS

ARITHMETIC: tuple[str, ...] = (
    *("add", "sub", "mul", "div", "neg", "abs", "min", "max", "sqrt", "exp2", "log2"),
    *("lt", "le", "where"),
)
OPERATIONS: tuple[str, ...] = (
    *("number", "halo", "drawn", *ARITHMETIC, "uniform", "normal", "count"),
    *("keep", "begin", "accept", "require", "all", "sum", "out"),
)
REGISTERS = 32
"""Numbers that are worked on at a time; the widest prior with its conditions takes 15."""
MAX_DRAWN = 80
"""Numbers that are kept for a sample, of which the widest prior keeps 19."""
MAX_TERMS = 128
"""Halos that a condition may look at."""
PADDED = 16
"""Halos that a CPU works out side by side."""
FIELDS = 5
"""Numbers of an instruction: operation, target and three more."""

Float = NDArray[np.float64]
Group = Mapping[str, Float]
"""Numbers of some halos, by the name of the symbol or column, [n] each."""


def source() -> str:
    """What kernels/program.cuh is compiled with."""
    sizes = {"REGISTERS": REGISTERS, "MAX_DRAWN": MAX_DRAWN, "MAX_TERMS": MAX_TERMS}
    sizes |= {"MAX_ATTEMPTS": MAX_ATTEMPTS}
    text = "".join(f"#define {name} {value}\n" for name, value in sizes.items())
    return f"{portable.source()}{text}enum Operation {{ {', '.join(OPERATIONS).upper()} }};\n"


@dataclass(frozen=True)
class _Line:
    """An instruction before it has registers: those that it reads are numbered as results are."""

    operation: str
    target: int | None
    reads: tuple[int, ...]
    numbers: tuple[int, ...]
    place: int = 0
    """What stands for a target where there is none."""


Value = float | Float | int
"""What is known of an expression: its number, one for each halo, or the result that holds it."""


class Program:
    """Instructions and the numbers they read, of the formulas that are added to it."""

    def __init__(self, numbers: Sequence[float] = ()) -> None:
        """numbers: with which those of the program begin."""
        self._numbers: list[Float] = []
        self._size = 0
        self._places: dict[bytes, int] = {}
        self.place(np.array(numbers, np.float64))
        self._lines: list[tuple[int, ...]] = []

    @property
    def instructions(self) -> NDArray[np.int32]:
        """The instructions, int32 [n, 5]: operation, target, and three numbers more."""
        return np.array(self._lines, np.int32).reshape(-1, FIELDS)

    @property
    def numbers(self) -> Float:
        """All numbers that instructions read, float64 [n]."""
        return np.concatenate([*self._numbers, np.zeros(1)])

    def place(self, values: Float) -> int:
        """Where these numbers are among those of the program."""
        key = values.tobytes()
        if key not in self._places:
            self._places[key] = self._size
            self._numbers.append(values)
            self._size += len(values)
        return self._places[key]

    def add(
        self,
        attempts: Sequence[Attempts],
        results: Sequence[Symbol],
        requirements: Sequence[Symbol] = (),
        *,
        parameters: Mapping[str, Symbol] | None = None,
        groups: Mapping[str, Group] | None = None,
    ) -> tuple[int, int]:
        """Add what draws `attempts` in turn, then gives results 0, 1, ...; returns its first
        instruction and the one past its last.

        requirements: what must not be 0; parameters: what the symbols of parameters are; groups:
        the halos of symbols `all` and `sum`. Raises TraceError for too much.
        """
        kept = max((place for one in attempts for place in one.kept), default=-1) + 1
        writer = _Writer(self, parameters or {}, groups or {}, count(kept))
        try:
            for one in attempts:
                writer.attempt(one)
            writer.results(results, requirements)
        except RecursionError:
            raise TraceError("a formula is nested too deeply to be drawn by a kernel") from None
        if next(writer.free) > MAX_DRAWN:
            raise TraceError(f"more than {MAX_DRAWN} numbers are drawn for a sample")
        first = len(self._lines)
        main, sections = writer.main, writer.sections
        starts = np.cumsum([first + len(main), *map(len, sections)]).tolist()
        for line in main:
            operation, target, *rest = line
            if operation == OPERATIONS.index("accept"):
                rest[1] += first
            elif operation in (OPERATIONS.index("all"), OPERATIONS.index("sum")):
                rest[:2] = starts[rest[0]], starts[rest[0] + 1]
            self._lines.append((operation, target, *rest))
        for section in sections:
            self._lines += section
        return first, first + len(main)


class _Writer:
    """Instructions of one sample's draws, and the sections of them that look at halos."""

    def __init__(
        self,
        program: Program,
        parameters: Mapping[str, Symbol],
        groups: Mapping[str, Group],
        free: count[int],
    ) -> None:
        self.program, self.parameters, self.groups, self.free = program, parameters, groups, free
        self.main: list[tuple[int, ...]] = []
        self.sections: list[list[tuple[int, ...]]] = []

    def attempt(self, one: Attempts) -> None:
        begin = len(self.main)
        lines = _Lines(self)
        lines.say("begin")
        for place, value in one.kept.items():
            lines.say("keep", lines.register(value), place=place)
        for condition in one.conditions:
            held = lines.value(condition)
            if not isinstance(held, float) or held != 1.0:
                lines.say("accept", lines.in_register(held), numbers=(begin + 1,))
        self.main += lines.encoded()

    def results(self, results: Sequence[Symbol], requirements: Sequence[Symbol]) -> None:
        lines = _Lines(self)
        for place, value in enumerate(results):
            bare = value.args[0] if value.op == "float32" else value
            lines.say("out", lines.register(bare), place=place)
        for requirement in requirements:
            lines.say("require", lines.register(requirement))
        self.main += lines.encoded()

    def keep(self, lines: _Lines, value: int) -> int:
        """A place of its own for a result that a section reads."""
        place = next(self.free)
        lines.say("keep", value, place=place)
        return place


class _Lines:
    """Instructions without a jump. of: the lines that a section's belong to, and its halos."""

    def __init__(self, writer: _Writer, of: _Lines | None = None, halos: Group | None = None):
        self._writer, self._of, self._halos = writer, of, halos or {}
        self._lines: list[_Line] = []
        self._results = 0
        self._values: dict[tuple[object, ...], Value] = {}
        self._keys: dict[int, tuple[Symbol, tuple[object, ...]]] = {}
        self._interned: dict[tuple[object, ...], int] = {}
        self._of_halos: dict[tuple[object, ...], bool] = {}
        self._passed: dict[int, int] = {}

    def say(
        self,
        operation: str,
        *reads: int,
        numbers: tuple[int, ...] = (),
        place: int | None = None,
    ) -> int:
        """Add an instruction; returns its result. place: instead of a result."""
        target = None
        if place is None and operation not in ("begin", "accept", "require"):
            target = self._results
            self._results += 1
        self._lines.append(_Line(operation, target, reads, numbers, place or 0))
        return -1 if target is None else target

    def register(self, node: Symbol) -> int:
        """The result that holds an expression."""
        return self.in_register(self.value(node))

    def in_register(self, value: Value) -> int:
        """The result that holds a value."""
        if isinstance(value, int):
            return value
        if isinstance(value, float):
            place = self._writer.program.place(np.array([value]))
            return self.say("number", numbers=(place,))
        padded = np.full(-(-len(value) // PADDED) * PADDED, value[-1])
        padded[: len(value)] = value
        return self.say("halo", numbers=(self._writer.program.place(padded),))

    def value(self, node: Symbol) -> Value:
        """What is known of an expression; equal ones are worked out once."""
        key = self._key(node)
        if key not in self._values:
            made = self._value(node)
            self._values[key] = made
        return self._values[key]

    def _key(self, node: Symbol) -> tuple[object, ...]:
        """Equal for equal expressions."""
        if id(node) not in self._keys:
            parts = tuple(self._interned[self._key(arg)] for arg in node.args)
            key = (node.op, parts, node.name, repr(node.value))  # of numbers, -0 is not 0
            self._interned.setdefault(key, len(self._interned))
            self._keys[id(node)] = node, key
        return self._keys[id(node)][1]

    def _value(self, node: Symbol) -> Value:
        if node.op == "const":
            return node.value
        if node.op == "parameter":
            return self.value(self._writer.parameters[node.name])
        if node.op == "kept":
            return self.say("drawn", numbers=(int(node.value),))
        if self._of is None:
            return self._of_a_sample(node)
        if not self._reads_halos(node):
            return self._passed_on(node)
        if node.op in ("mass", "one_plus_z"):
            return self._halos[node.op]
        if node.op == "redshift":
            return self._halos["one_plus_z"] - 1.0
        if node.op == "column":
            return self._halos[node.name]
        return self._operation(node)

    def _reads_halos(self, node: Symbol) -> bool:
        key = self._key(node)
        if key not in self._of_halos:
            self._of_halos[key] = node.varying or any(map(self._reads_halos, node.args))
        return self._of_halos[key]

    def _passed_on(self, node: Symbol) -> Value:
        """In a section, what is the same for all halos: worked out before it."""
        assert self._of is not None
        value = self._of.value(node)
        if not isinstance(value, int):
            return value
        if value not in self._passed:
            self._passed[value] = self._writer.keep(self._of, value)
        return self.say("drawn", numbers=(self._passed[value],))

    def _of_a_sample(self, node: Symbol) -> Value:
        if node.op in ("uniform", "normal"):
            stage, element, step = map(int, node.name.split())
            return self.say(node.op, numbers=(stage, element, step))
        if node.op == "count":
            edges = np.array([edge.value for edge in node.args[1:]])
            place = self._writer.program.place(edges)
            return self.say("count", self.register(node.args[0]), numbers=(place, len(edges)))
        if node.op in ("all", "sum"):
            return self._over_halos(node)
        return self._operation(node)

    def _operation(self, node: Symbol) -> Value:
        if node.op == "pow":
            base, exponent = node.args
            return self.value(Symbol("exp2", (Symbol("mul", (exponent, Symbol("log2", (base,)))),)))
        if node.op not in ARITHMETIC:
            raise TraceError(f"'{node.op}' cannot be drawn by a kernel")
        values = [self.value(arg) for arg in node.args]
        if not any(isinstance(value, int) for value in values):
            with np.errstate(all="ignore"):
                made = np.asarray(evaluate(node.op, values), np.float64)
            return made if made.ndim else float(made)
        return self.say(node.op, *(self.in_register(value) for value in values))

    def _over_halos(self, node: Symbol) -> Value:
        halos = self._writer.groups[node.name]
        number = len(next(iter(halos.values())))
        if number > MAX_TERMS:
            raise TraceError(f"a condition looks at {number} halos, more than {MAX_TERMS}")
        section = _Lines(self._writer, self, halos)
        result = section.register(node.args[0])
        last = section._lines[-1]
        assert last.target == result
        self._writer.sections.append(section.encoded())
        return self.say(node.op, numbers=(len(self._writer.sections) - 1, 0, number))

    def encoded(self) -> list[tuple[int, ...]]:
        """The instructions, whose results share registers when nobody reads them any more."""
        last = {r: k for k, line in enumerate(self._lines) for r in line.reads}
        free, held, encoded = list(range(REGISTERS - 1, -1, -1)), dict[int, int](), []
        for k, line in enumerate(self._lines):
            reads = tuple(held[r] for r in line.reads)
            for r in {r for r in line.reads if last[r] == k}:
                free.append(held.pop(r))
            target = line.place
            if line.target is not None:
                if not free:
                    raise TraceError(f"more than {REGISTERS} numbers are needed at a time")
                target = free.pop()
                if line.target in last:
                    held[line.target] = target
                else:
                    free.append(target)
            fields = (OPERATIONS.index(line.operation), target, *reads, *line.numbers, 0, 0, 0)
            encoded.append(fields[:FIELDS])
        return encoded
