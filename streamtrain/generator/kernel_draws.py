"""What kernels/draw.cu draws for samples, on the device: for an emission line, for map operators.

`EmissionLine.draw` and `Operator.draw` say the same in NumPy, to the last bit, but for the work
items: these may hold more halos beyond the field, which the paint kernel leaves out.
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
from streamtrain.generator.compiled_model import LARGEST_DEPOSIT, CompiledModel
from streamtrain.generator.expectation import OfHalos, Shine
from streamtrain.generator.halos import Bank
from streamtrain.generator.painter import items_of
from streamtrain.generator.pose import MARGIN_DEG, outline_of, stretch
from streamtrain.generator.program import Group, Program
from streamtrain.generator.recorder import Recorder, Symbols, exact
from streamtrain.grid import DEG
from streamtrain.luminosity.mixture import Component
from streamtrain.luminosity.modifiers import Modifiers
from streamtrain.luminosity.printer import storable
from streamtrain.luminosity.settings import RequireConfig
from streamtrain.luminosity.symbol import Symbol, column, symbol
from streamtrain.numerics.backend import Kernels, kernels_for
from streamtrain.numerics.rng import (
    STAGE_MIXTURE,
    STAGE_MODEL,
    STAGE_PAINT,
    STAGE_POSE,
    Split,
    seed_words,
    stage_word,
)
from streamtrain.numerics.workspace import DeviceArrays, Workspace
from streamtrain.operators.base import Operator


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
LIMIT, WEIGHT, INTENSITY = " limit", " weight", " intensity"
"""Columns of the halos that conditions look at, which no lightcone has."""
BRIGHT, TYPICAL = "bright", "typical"
"""Names of the groups of halos that conditions look at, see `CompiledModel`."""
MAX_OUTLINE = 512
"""Points on the border of a field."""
ROOM = 8 * (2 * MAX_OUTLINE + program.MAX_TERMS)
"""Bytes of shared memory of a GPU's block."""


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


def seed_of(seed: int, split: Split, device: torch.device) -> Tensor:
    """Seed and split as the kernels read them."""
    words = [*seed_words(seed), stage_word(split, 0)]
    return torch.from_numpy(np.array(words, np.uint32).view(np.int32)).to(device)


class _SymbolsOfHalos(OfHalos):
    """What `OfHalos` says of arrays, said of symbols; group: the name that the halos have."""

    def __init__(self, group: str) -> None:
        self._group = group

    def beside(self, value: Symbol) -> Symbol:
        return value

    def every(self, holds: Symbol) -> Symbol:
        return Symbol("all", (holds,), name=self._group)

    def total(self, values: Symbol) -> Symbol:
        return Symbol("sum", (values,), name=self._group)


class _ModelFormulas:
    """What is drawn for a luminosity model, and what the paint kernel reads of it: the functions
    that NumPy works out, called with symbols."""

    def __init__(
        self,
        component: Component,
        compiled: CompiledModel,
        modifiers: Modifiers,
        require: RequireConfig,
        stage: int,
    ) -> None:
        self._compiled, self._recorder = compiled, Recorder()
        draws = self._recorder.draws(stage)
        bright, typical = compiled.bright, compiled.typical
        self._groups: dict[str, Group] = {BRIGHT: {**bright.halos, LIMIT: compiled.log2_limit}}
        if require.asks:
            seen = {WEIGHT: compiled.weights, INTENSITY: typical.intensity}
            self._groups[TYPICAL] = {**typical.halos, **seen}

        def accept(parameters: Symbols) -> Symbol:
            fits: Symbol = self._shine(parameters, BRIGHT).fits(column(LIMIT), compiled.varies)
            if not require.asks:
                return fits
            expected = self._shine(parameters, TYPICAL).expected(
                column(WEIGHT), column(INTENSITY), compiled.log2_range, compiled.num_voxels
            )
            return np.minimum(fits, expected.enough(require))

        self._parameters: Symbols = component.prior.draw(  # type: ignore[assignment]
            draws,
            component.model.defaults,
            accept,  # type: ignore[arg-type]
        )
        both, label = modifiers.drawn(draws)
        shift = sum((exact(made.shift) for made in label), symbol(0.0))  # type: ignore[arg-type]
        pairs = [value for made in both for value in (made.threshold, exact(made.shift))]  # type: ignore[arg-type]
        sigma, mu = self._scatter(self._parameters)
        uniforms = map(storable, compiled.traced.uniforms)
        values = compiled.kernel_values(sigma, mu, shift, [*pairs, *uniforms])
        self.values = [symbol(value) for value in values]
        """What the kernel reads, in its order."""
        self._possible = np.where(sigma < 0.0, 0.0, 1.0)

    def add_to(self, program: Program, width: int) -> tuple[int, int]:
        """Add it to a program, with as many values as the widest has; see `Program.add`."""
        values = [*self.values, *[symbol(0.0)] * (width - len(self.values))]
        return program.add(
            self._recorder.attempts,
            values,
            [self._possible],  # type: ignore[list-item]
            parameters=self._parameters,
            groups=self._groups,
        )

    def _scatter(self, parameters: Symbols) -> tuple[Symbol, Symbol]:
        sigma, mu = self._compiled.model.log2_scatter(parameters)
        return exact(sigma), exact(mu)

    def _shine(self, parameters: Symbols, group: str) -> Shine:
        """How the model lights a group of halos."""
        output = self._compiled.traced.outputs.get
        return Shine(output, *self._scatter(parameters), _SymbolsOfHalos(group))


class LineDraws:
    """Draws a line's part of samples on one device.

    bank: the lightcones that fields are cut from; models: the luminosity model of each component.
    Raises TraceError for what no kernel can draw, and whatever a user's conditions raise when they
    are recorded.
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
        formulas = [
            _ModelFormulas(component, compiled, modifiers, require, stages.model)
            for component, compiled in zip(components, models, strict=True)
        ]
        width = max(len(one.values) for one in formulas)
        places = [one.add_to(made, width) for one in formulas]
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
        self.arrays = [torch.from_numpy(a).to(self._device) for a in arrays]
        """All that the kernel reads of bank and models, on the device."""

    def draw(
        self, index: Tensor, seed: Tensor, counts: Tensor, memory: Workspace, name: str
    ) -> DeviceArrays:
        """What the paint kernel reads of B samples, see `LinePainter.deposit`, and `lightcone` and
        `model`, int64 [B].

        index: global indices, int64 [B]; seed: see `seed_of`; counts: int32 [B, n], to whose last
        number 1 is added where a sample cannot be drawn; name: of the line, for `memory`.
        """
        size = len(index)
        items = memory.empty(f"{name} items", (self._models, size * self._slots, 3), torch.int64)
        kinds = {
            "lightcone": ((size,), torch.int64),
            "model": ((size,), torch.int64),
            "pose": ((size, 11), torch.float64),
            "values": ((size, self._width), torch.float32),
            "keys": ((size, 6), torch.int32),
        }
        arrays = {
            key: memory.empty(f"{name} {key}", shape, dtype)
            for key, (shape, dtype) in kinds.items()
        }
        together = 1 if self._device.type == "cpu" else size
        self._kernels.per_sample(
            "draw_line",
            size,
            ROOM,
            index,
            seed,
            *self.arrays,
            np.int64(together),
            items,
            *arrays.values(),
            counts,
            np.int64(counts.shape[1]),
        )
        return {**{items_of(k): items[k] for k in range(self._models)}, **arrays}

    def part(self, arrays: DeviceArrays, first: int, last: int) -> DeviceArrays:
        """The arrays of samples first..last-1 of those that `draw` made."""
        rows = {items_of(k): self._slots for k in range(self._models)}
        return {
            name: array[first * rows.get(name, 1) : last * rows.get(name, 1)]
            for name, array in arrays.items()
        }


class OperatorDraws:
    """Draws the numbers of map operators on one device.

    Raises TraceError for what no kernel can draw, and whatever an operator's own functions raise
    when they are recorded.
    """

    def __init__(
        self,
        operators: Sequence[Operator],
        device: torch.device,
        compiler_flags: Sequence[str] = (),
    ) -> None:
        self._kernels = draw_kernels(device, compiler_flags)
        recorder = Recorder()
        drawn = [one.draw(recorder.draws(one.stage)) for one in operators]
        self._names = [list(values) for values in drawn]
        every: list[Any] = [value for values in drawn for value in values.values()]
        self._number, made = len(every), Program()
        _, self._length = made.add(recorder.attempts, [exact(value) for value in every])
        self._arrays = [torch.from_numpy(a).to(device) for a in (made.instructions, made.numbers)]

    def draw(
        self, index: Tensor, seed: Tensor, counts: Tensor, memory: Workspace
    ) -> list[DeviceArrays]:
        """What each operator draws for B samples, float32 [B] by name; see `LineDraws.draw`."""
        size = len(index)
        made = memory.empty("operators drawn", (self._number, size), torch.float32)
        if self._number:
            program, numbers = self._arrays
            self._kernels.per_sample(
                "draw_numbers",
                size,
                ROOM,
                index,
                seed,
                program,
                np.int32(self._length),
                numbers,
                made,
                counts,
                np.int64(counts.shape[1]),
            )
        rows = iter(made)
        return [{name: next(rows) for name in names} for names in self._names]


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
        numbers = [
            *footprints[k],
            float(stretch(footprints[k])),
            *tiles,
            bank.first_row[k],
            largest,
        ]
        made.append(numbers)
    return np.array(made, np.float64)
