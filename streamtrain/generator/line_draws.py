"""What is drawn for an emission line by kernels/draw.cu, from the statements that NumPy runs.

`EmissionLine.draw` is the same in NumPy, to the last bit, but for the work items: these may hold
halos beyond the field, which the paint kernel leaves out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamtrain.generator import program
from streamtrain.generator.compiled_model import (
    LARGEST_DEPOSIT,
    SAFE_SIGMA,
    WIDE_SIGMA_DEX,
    CompiledModel,
)
from streamtrain.generator.halos import Bank
from streamtrain.generator.painter import items_of
from streamtrain.generator.pose import MARGIN_DEG, STEEP_DEG, outline_of, stretch
from streamtrain.generator.program import Group, Program
from streamtrain.generator.recorder import Recorder, Symbols, exact
from streamtrain.grid import DEG
from streamtrain.luminosity.mixture import Component
from streamtrain.luminosity.modifiers import Adjusted, Modifiers
from streamtrain.luminosity.settings import RequireConfig
from streamtrain.luminosity.symbol import Symbol, column, symbol
from streamtrain.luminosity.trace import SMALLEST
from streamtrain.numerics import portable
from streamtrain.numerics.backend import Kernels, kernels_for
from streamtrain.numerics.rng import (
    STAGE_MIXTURE,
    STAGE_MODEL,
    STAGE_PAINT,
    STAGE_POSE,
    Draws,
    seed_words,
    stage_word,
)
from streamtrain.numerics.workspace import DeviceArrays, Workspace

@dataclass(frozen=True)
class Stages:
    """Random stages of a line's draws."""

    pose: int = STAGE_POSE
    mixture: int = STAGE_MIXTURE
    model: int = STAGE_MODEL
    paint: int = STAGE_PAINT


ROLLS = ("none", "quarter", "any")
LAYOUT = ("cones", "slots", "points", "models", "values", "roll", "mirror", "pose_stage",
          "mixture_stage", "paint_stage", "shares", "first_model")  # fmt: skip
"""Places in the kernel's `layout`."""
CONE = ("ra_min", "ra_max", "dec_min", "dec_max", "stretch", "tile", "rows", "columns",
        "first_tile", "first_row", "largest", "cone_width")  # fmt: skip
"""Numbers of a lightcone."""
MAX_OUTLINE = 512
"""Points on the border of a field."""
ROOM = 8 * (2 * MAX_OUTLINE + program.MAX_TERMS)
"""Bytes of shared memory of a GPU's block."""
LIMIT, WEIGHT, INTENSITY = " limit", " weight", " intensity"
"""Columns of the halos that conditions look at, which no lightcone has."""
BRIGHT, TYPICAL = "bright", "typical"


def source() -> str:
    """What kernels/draw.cu is compiled with."""
    enums = {"Layout": LAYOUT, "Cone": CONE, "Roll": [f"roll_{roll}" for roll in ROLLS]}
    text = "".join(f"enum {k} {{ {', '.join(v).upper()} }};\n" for k, v in enums.items())
    sizes = {"MAX_OUTLINE": MAX_OUTLINE, "MARGIN_DEG": MARGIN_DEG, "DEG": DEG}
    text += "".join(f"#define {name} {value!r}\n" for name, value in sizes.items())
    return program.source() + text


def draw_kernels(device: torch.device, compiler_flags: Sequence[str] = ()) -> Kernels:
    """The kernels of draw.cu for a device."""
    return kernels_for(device, "draw.cu", source(), compiler_flags)


def seed_of(draws: Draws, device: torch.device) -> Tensor:
    """The seed and split of draws as the kernels read them."""
    words = [*seed_words(draws.seed), stage_word(draws.split, 0)]
    return torch.from_numpy(np.array(words, np.uint32).view(np.int32)).to(device)


class LineDraws:
    """Draws a line's part of samples on one device.

    bank: the lightcones that fields are cut from; models: the luminosity model of each component;
    values_of: see `ModelDraws`. Raises TraceError for what no kernel can draw, and whatever a
    user's conditions raise when they are recorded.
    """

    def __init__(
        self,
        bank: Bank,
        models: Sequence[CompiledModel],
        components: Sequence[Component],
        shares: NDArray[np.float64],
        modifiers: Modifiers,
        require: RequireConfig,
        stages: Stages,
        *,
        fov_deg: tuple[float, float],
        roll: str,
        mirror: bool,
        scale: float,
        compiler_flags: Sequence[str] = (),
    ) -> None:
        self._device = bank.device
        self._kernels = draw_kernels(bank.device, compiler_flags)
        border = outline_of(fov_deg, float(np.abs(bank.footprints[:, 2:]).max()) + max(fov_deg))
        made = Program([*fov_deg, scale])
        begins, width = [], 0
        for component, compiled in zip(components, models, strict=True):
            statement = _ModelStatement(component, compiled, modifiers, require, stages.model)
            width = max(width, len(statement.values))
            begins.append(statement)
        places = [one.add_to(made, width) for one in begins]
        self._slots, self._models, self._width = _slots(bank, fov_deg), len(models), width
        layout = {
            "cones": len(bank.lightcones),
            "slots": self._slots,
            "points": len(border),
            "models": len(models),
            "values": width,
            "roll": ROLLS.index(roll),
            "mirror": int(mirror),
            "pose_stage": stages.pose,
            "mixture_stage": stages.mixture,
            "paint_stage": stages.paint,
            "shares": made.place(shares),
        }
        numbers = [layout[name] for name in LAYOUT[:-1]] + [end for both in places for end in both]
        arrays = (
            np.array(numbers, np.int32),
            made.instructions,
            made.numbers,
            _cones(bank),
            bank.tile_rows,
            border,
        )
        self._arrays = [torch.from_numpy(a).to(self._device) for a in arrays]

    def draw(
        self, index: Tensor, seed: Tensor, failed: Tensor, memory: Workspace, name: str
    ) -> DeviceArrays:
        """What the paint kernel reads of B samples, see `LinePainter.deposit`, and `lightcone` and
        `model`, int64 [B].

        index: global indices, int64 [B]; seed: see `seed_of`; failed: int32 [B], of any stride, to
        which 1 is added where a sample cannot be drawn; name: of the line, for `memory`.
        """
        size = len(index)
        items = memory.empty(
            f"{name} items", (self._models, size * self._slots, 3), torch.int64
        )
        kinds = {
            "lightcone": ((size,), torch.int64),
            "model": ((size,), torch.int64),
            "pose": ((size, 11), torch.float64),
            "values": ((size, self._width), torch.float32),
            "keys": ((size, 6), torch.int32),
        }
        arrays = {
            key: memory.empty(f"{name} {key}", shape, dtype) for key, (shape, dtype) in kinds.items()
        }
        together = 1 if self._device.type == "cpu" else size
        self._kernels.per_sample(
            "draw_line",
            size,
            ROOM,
            index,
            seed,
            *self._arrays,
            np.int64(together),
            items,
            *arrays.values(),
            failed,
            np.int64(failed.stride(0) if size else 0),
        )
        return {**{items_of(k): items[k] for k in range(self._models)}, **arrays}


class _ModelStatement:
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
            draws, component.model.defaults, accept  # type: ignore[arg-type]
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
        possible = [0.0 <= sigma, abs(sigma) <= np.finfo(np.float64).max]
        if compiled.model.sigma_dex is not None:
            sigma, mu = symbol(WIDE_SIGMA_DEX * portable.LOG2_10), symbol(0.0)
        luminosity = compiled.traced.outputs["luminosity"]
        below = portable.log2(luminosity) + (SAFE_SIGMA * sigma + mu) < column(LIMIT)
        bright = Symbol("all", (_both([below, 0.0 <= luminosity]),), name=BRIGHT)
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
            least = np.where(np.abs(uniform) < SMALLEST, 0.0, uniform)  # type: ignore[arg-type]
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


def _slots(bank: Bank, fov_deg: tuple[float, float]) -> int:
    """Rows of tiles that a field touches at most: a corner is no further from the centre than on a
    plane."""
    length = float(np.hypot(*fov_deg)) + 4.0 * MARGIN_DEG
    return max(min(int(length / c.tile_deg) + 2, c.tile_shape[0]) for c in bank.lightcones)


def _cones(bank: Bank) -> NDArray[np.float64]:
    """What the kernel knows of each lightcone [n, 11], in the order of `CONE`."""
    footprints, made = bank.footprints, []
    first_tile = np.cumsum([0, *(len(c.tile_offsets) for c in bank.lightcones)])
    for k, cone in enumerate(bank.lightcones):
        largest = min(np.floor(2.0**62 / len(cone)), LARGEST_DEPOSIT)
        tiles = [cone.tile_deg, *cone.tile_shape, first_tile[k]]
        numbers = [*footprints[k], float(stretch(footprints[k])), *tiles, bank.first_row[k], largest]
        made.append(numbers)
    return np.array(made, np.float64)
