"""Turn a luminosity model written in NumPy into straight-line kernel code.

The model is called once with symbols, and the record of what it does (see `symbol`) is printed as
float32 C over the portable log2 and exp2 of kernels/portable.cuh (see `printer`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.luminosity.printer import Printer, storable
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
LONGEST_TEXT = 10_000
"""Length of an expression in a model's identity; a longer one is given a name."""


@dataclass(frozen=True)
class Traced:
    """A model function as kernel code and the host expressions that feed it."""

    source: str
    """C functions model_log2_luminosity and, if the model has them, model_sigma and
    model_on_fraction; float32."""
    uniforms: list[Symbol]
    """Expressions of parameters alone; the kernel reads their values as u[0], u[1], ..."""
    columns: list[tuple[str, str]]
    """(column, form) in the order the kernel reads them; form is 'linear' or 'log2'."""
    num_static: int
    """Expressions of the halo alone that need a logarithm or an exponential: their values are
    columns after `columns`, which the kernel fills once."""
    outputs: dict[str, Symbol]
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
            return np.asarray(storable(table), np.float32)


def _value(node: Symbol, leaf: Callable[[Symbol], Any], memo: dict[int, Any]) -> Any:
    """What an expression evaluates to, each part once. leaf: a leaf's value, None for what has to
    be evaluated."""
    if id(node) not in memo:
        value = leaf(node)
        if value is None:
            value = evaluate(node.op, [_value(a, leaf, memo) for a in node.args])
        memo[id(node)] = value
    return memo[id(node)]


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
    name = getattr(function, "__name__", "the model")
    try:
        made, again = (
            _trace(function, parameters, extra or {}, sigma_dex, on_fraction, z_range)
            for _ in range(2)
        )
    except RecursionError:
        raise TraceError(f"{name} is nested too deeply to be compiled into the kernel") from None
    if made.identity() != again.identity():
        raise TraceError(
            f"{name} is another formula each time that it is called: a random number in it would "
            "be one for all halos (a scatter is drawn for each halo from the parameter sigma)"
        )
    return made


def _trace(
    function: Callable[..., Any],
    parameters: Sequence[str],
    extra: Mapping[str, float],
    sigma_dex: Callable[..., Any] | None,
    on_fraction: Callable[..., Any] | None,
    z_range: tuple[float, float] | None,
) -> Traced:
    printer, outputs = Printer(z_range), dict[str, Symbol]()
    light = _record(function, parameters, extra)
    outputs["luminosity"] = printer.function("model_log2_luminosity", "log2", light)
    if sigma_dex is not None:
        width = _record(sigma_dex, parameters, extra) * portable.LOG2_10
        outputs["sigma"] = printer.function("model_sigma", "linear", width, "MODEL_SIGMA")
    if on_fraction is not None:
        share = _record(on_fraction, parameters, extra)
        outputs["on_fraction"] = printer.function(
            "model_on_fraction", "linear", share, "MODEL_DUTY"
        )
    return Traced(
        printer.finished(), printer.uniforms, printer.columns, printer.num_static, outputs
    )


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
