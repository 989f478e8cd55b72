"""What is drawn for a luminosity model, and what the paint kernel reads of it, as formulas.

NumPy says the same in `CompiledModel`; a draw's conditions and the kernel's values are equal to the
last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from streamtrain.generator.compiled_model import SAFE_SIGMA, WIDE_SIGMA_DEX, CompiledModel
from streamtrain.generator.program import Group, Program
from streamtrain.generator.recorder import Recorder, Symbols, exact
from streamtrain.luminosity.mixture import Component
from streamtrain.luminosity.modifiers import Adjusted, Modifiers
from streamtrain.luminosity.printer import SMALLEST
from streamtrain.luminosity.settings import RequireConfig
from streamtrain.luminosity.symbol import Symbol, column, symbol
from streamtrain.numerics import portable

LIMIT, WEIGHT, INTENSITY = " limit", " weight", " intensity"
"""Columns of the halos that conditions look at, which no lightcone has."""
BRIGHT, TYPICAL = "bright", "typical"
"""Names of the groups of halos that conditions look at, see `CompiledModel`."""


class ModelStatement:
    """What is drawn for a luminosity model, and what the paint kernel reads of it."""

    def __init__(
        self,
        component: Component,
        compiled: CompiledModel,
        modifiers: Modifiers,
        require: RequireConfig,
        stage: int,
    ) -> None:
        self._compiled, self._recorder, self._groups = compiled, Recorder(), dict[str, Group]()
        draws = self._recorder.draws(stage)

        def accept(parameters: Symbols) -> Symbol:
            conditions = [self._fits(parameters)]
            if require.mean_uK is not None or require.halos is not None:
                conditions.append(self._enough(parameters, require))
            return _both(conditions)

        self._parameters: Symbols = component.prior.draw(  # type: ignore[assignment]
            draws,
            component.model.defaults,
            accept,  # type: ignore[arg-type]
        )
        both, label = modifiers.drawn(draws)
        self._requirements: list[Symbol] = []
        self.values = self._values(both, label)
        """What the kernel reads, in its order."""

    def add_to(self, program: Program, width: int) -> tuple[int, int]:
        """Add it to a program, with as many values as the widest has; see `Program.add`."""
        values = [*self.values, *[symbol(0.0)] * (width - len(self.values))]
        return program.add(
            self._recorder.attempts,
            values,
            self._requirements,
            parameters=self._parameters,
            groups=self._groups,
        )

    def _scatter(self, parameters: Symbols) -> tuple[Any, Any]:
        """See `LuminosityModel.log2_scatter`."""
        model, pair = self._compiled.model, (symbol(0.0), symbol(0.0))
        if model.sigma_dex is not None:
            pair = symbol(1.0), symbol(-0.5 * portable.LN2)
        elif model.scatter is not None:
            sigma, mu = model.scatter(parameters)
            pair = exact(sigma / portable.LN2), exact(mu / portable.LN2)
        return pair[0], pair[1] if model.preserves == "mean" else symbol(0.0)

    def _fits(self, parameters: Symbols) -> Symbol:
        """See `CompiledModel.fits`."""
        compiled = self._compiled
        self._groups[BRIGHT] = {**compiled.bright.halos, LIMIT: compiled.log2_limit}
        sigma, mu = self._scatter(parameters)
        possible = [sigma >= 0.0, abs(sigma) <= np.finfo(np.float64).max]
        if compiled.model.sigma_dex is not None:
            sigma, mu = symbol(WIDE_SIGMA_DEX * portable.LOG2_10), symbol(0.0)
        luminosity = compiled.traced.outputs["luminosity"]
        below = portable.log2(luminosity) + (SAFE_SIGMA * sigma + mu) < column(LIMIT)
        bright = Symbol("all", (_both([below, luminosity >= 0.0]),), name=BRIGHT)
        return _both([*possible, bright])

    def _enough(self, parameters: Symbols, require: RequireConfig) -> Symbol:
        """See `EmissionLine.enough` and `CompiledModel.expect`."""
        compiled, outputs = self._compiled, self._compiled.traced.outputs
        probes = compiled.typical
        extra = {WEIGHT: compiled.weights, INTENSITY: probes.intensity}
        self._groups[TYPICAL] = {**probes.halos, **extra}
        log2_l: Any = portable.log2(outputs["luminosity"])
        sigma, mu = self._scatter(parameters)
        if compiled.model.sigma_dex is not None:
            width = outputs["sigma"]
            sigma, mu = sigma * width, mu * width * width
        centre, shining = log2_l + mu, column(WEIGHT)
        if "on_fraction" in outputs:
            shining = shining * np.clip(outputs["on_fraction"], 0.0, 1.0)
        conditions = []
        if require.mean_uK is not None:
            bent = centre + 0.5 * portable.LN2 * sigma * sigma
            boost: Any = portable.exp2(np.clip(bent, -1000.0, 1000.0))
            light = Symbol("sum", (shining * boost * column(INTENSITY),), name=TYPICAL)
            conditions.append(_within(light / compiled.num_voxels, require.mean_uK))
        if require.halos is not None:
            low, high = compiled.log2_range
            narrow = np.maximum(sigma, 1e-6)
            fainter: Any = portable.normal_cdf((low - centre) / narrow)
            brighter: Any = portable.normal_cdf((centre - high) / narrow)
            inside = Symbol("sum", (shining * (1.0 - fainter - brighter),), name=TYPICAL)
            conditions.append(_within(inside, require.halos))
        return _both(conditions)

    def _values(self, both: list[Adjusted], label: list[Adjusted]) -> list[Symbol]:
        """See `CompiledModel.values`."""
        sigma, mu = self._scatter(self._parameters)
        self._requirements.append(np.where(sigma < 0.0, 0.0, 1.0))  # type: ignore[arg-type]
        shift: Any = symbol(0.0)
        for made in label:
            shift = shift + exact(made.shift)  # type: ignore[arg-type]
        first, second, *edges = self._compiled.constants
        values = [first, second, sigma, mu, edges[0] - shift, edges[1] - shift, edges[2]]
        for made in both:
            values += [made.threshold, exact(made.shift)]  # type: ignore[arg-type]
        for uniform in self._compiled.traced.uniforms:
            least = np.where(np.abs(uniform) < SMALLEST, 0.0, uniform)
            values.append(np.clip(least, -3e38, 3e38))
        return [symbol(value) for value in values]


def _both(conditions: Sequence[Any]) -> Symbol:
    """Whether all of some conditions hold, of samples or of halos."""
    first, *others = map(symbol, conditions)
    for other in others:
        first = Symbol("min", (first, other))
    return first


def _within(value: Symbol, bounds: tuple[float, float]) -> Symbol:
    return _both([bounds[0] <= value, value <= bounds[1]])
