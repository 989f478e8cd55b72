"""The plan of an observation: what the operators of a configuration do to a map, step by step.

It says which steps are random, which a user's map has in it already, where units are lost, and what
a network's input is a map of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamtrain.grid import Grid
from streamtrain.numerics.rng import STAGE_OBSERVE
from streamtrain.operators.base import MapState, Operator, Pointwise, Turn
from streamtrain.operators.pool import Pool
from streamtrain.operators.table import OPERATORS, of_the_map, operator_of
from streamtrain.schema import ConfigError, OrderWarning, operator_kind, warn
from streamtrain.spectra import Box


@dataclass(frozen=True)
class Step:
    """An operator at its place in a configuration."""

    name: str
    """Key of the operator in the configuration."""
    operator: type[Operator]
    section: Any
    stage: int
    before: MapState
    """The map that it finds."""
    after: MapState
    of_the_map: bool
    """Whether a real map has it already."""
    in_units: bool
    """Whether the map after it has its units."""
    build: Callable[[], Operator] = field(repr=False, compare=False)
    """Makes the operator, once. Raises ConfigError, also for a file that cannot be used."""

    @property
    def kind(self) -> str:
        """The name without the suffix of a second use."""
        return operator_kind(self.name)

    @property
    def filters(self) -> bool:
        """Whether it removes something of a map's values that a real map still has."""
        operator = self.operator
        return not (self.of_the_map or operator.reshapes or operator.selects)


@dataclass(frozen=True)
class InputMap:
    """The map that a network's input shows."""

    box: Box
    undone: tuple[Pointwise, ...]
    """Transforms of each voxel at the end of `observe`, the last one first, which can be undone. A
    cube that was standardised has lost its own mean and scatter."""
    units: str
    """Units of the map before the transforms; '' where it has none, as it was transformed
    before."""

    def restore(self, cube: Tensor) -> Tensor:
        """Cubes [B, n_freq, n_dec, n_ra] as they were before the transforms [map units]. What log10
        had cut off below comes back as its floor."""
        for transform in self.undone:
            cube = transform.undo(cube)
        return cube

    def slope(self, cube: Tensor) -> Tensor:
        """The derivative of each voxel of a network's input by the map that `restore` makes."""
        slope = torch.ones_like(cube)
        for transform in self.undone:
            slope = slope * transform.slope(cube)
            cube = transform.undo(cube)
        return slope


class ObservationPlan:
    """The steps of a configuration's section `observe`, on a grid, in their order."""

    def __init__(self, observe: Mapping[str, Any], grid: Grid) -> None:
        self.grid = grid
        steps: list[Step] = []
        state, in_units, already = MapState(grid), True, of_the_map(observe)
        for position, (name, section) in enumerate(observe.items()):
            operator = OPERATORS[operator_kind(name)]
            before, stage, there = state, STAGE_OBSERVE + 2 * position, already[name]
            build = cache(partial(operator.from_config, name, stage, section, before))
            state = replace(operator.state_after(section, before), through=(*before.through, build))
            in_units = in_units and not operator.unitless
            steps.append(
                Step(name, operator, section, stage, before, state, there, in_units, build)
            )
        self.steps = tuple(steps)
        self.state = state
        """The map after all of them."""
        self.units: str = grid.units if in_units else ""
        """Of the map after all of them; '' where it has none."""

    def check(self) -> None:
        """Raise ConfigError for what the types of the sections alone do not tell."""
        for step in self.steps:
            step.operator.check(step.section, f"observe.{step.name}", step.before)

    def check_order(self) -> None:
        """Warn (OrderWarning) of what adds to a map in its units, or is a telescope's, after a
        transform that leaves it without units, or after a filter."""
        without = [step for step in self.steps if not step.in_units]
        for step in without[1:]:
            if step.operator.needs_units(step.section):
                hint = step.operator.hint
                warn(
                    f"observe.{step.name} comes after observe.{without[0].name}, where the map has "
                    "no unit" + (f" ({hint})" if hint else ""),
                    OrderWarning,
                )
        for number, step in enumerate(self.steps):
            later = next((s.name for s in self.steps[number:] if s.of_the_map), "")
            if later and step.in_units and step.filters:
                warn(
                    f"observe.{later} comes after observe.{step.name}, but is in a map for infer "
                    "before it, so that the network sees other maps there than in training: put "
                    f"observe.{step.name} last of them",
                    OrderWarning,
                )

    def operators(self) -> list[Operator]:
        """The operators, the same each time. Raises ConfigError, also for a file that cannot be
        used."""
        return [step.build() for step in self.steps]

    def check_filled(self, operators: Sequence[Operator]) -> None:
        """Warn (OrderWarning) of voxels that one of the operators sets to 0 and another fills that
        a user's map has in it already, as they stay 0 there."""
        for (name, by), voxels in self._filled(operators).items():
            if voxels.any():
                warn(
                    f"observe.{by} fills voxels that observe.{name} has set to 0, and that stay 0 "
                    "in a map for infer: put it before, or a mask of them after it",
                    OrderWarning,
                )

    def _filled(self, operators: Sequence[Operator]) -> dict[tuple[str, str], NDArray[np.bool_]]:
        """Voxels that stay filled, by the operator that had set them to 0 and the one that filled
        them."""
        zero: dict[str, NDArray[np.bool_]] = {}
        filled: dict[tuple[str, str], NDArray[np.bool_]] = {}
        for step, operator in zip(self.steps, operators, strict=True):
            if step.operator.reshapes:
                zero = {name: _whole(voxels, step.after) for name, voxels in zero.items()}
                filled = {names: _whole(voxels, step.after) for names, voxels in filled.items()}
            if step.of_the_map and not step.operator.spares:
                filled |= {(name, step.name): voxels for name, voxels in zero.items()}
            if (unseen := operator.unseen()) is not None:
                filled = {names: voxels & ~unseen for names, voxels in filled.items()}
                zero[step.name] = np.broadcast_to(unseen, step.after.shape)
        return filled

    @property
    def random(self) -> list[str]:
        """Names of the steps that differ from sample to sample."""
        return [step.name for step in self.steps if step.operator.random]

    @property
    def leading_pool(self) -> Pool | None:
        """The pool at the head, which is a part of painting: the joined voxels are painted."""
        first = next((s.build() for s in self.steps[:1] if s.operator is Pool), None)
        assert first is None or isinstance(first, Pool)
        return first

    @property
    def encoding(self) -> list[tuple[str, Any]]:
        """Kinds and sections of the steps that write a map as the network's input and add nothing
        to it: a network reads what it was trained to read."""
        written = (s for s in self.steps if s.operator.reshapes or s.operator.unitless)
        return [(step.kind, step.section) for step in written]

    @property
    def raw(self) -> dict[str, Any]:
        """The part of `observe` that makes maps in their units: up to the last step that is of the
        map, with the steps that join or select voxels right after it, and before any transform."""
        last = 0
        for number, step in enumerate(self.steps, 1):
            if not step.in_units:
                break
            follows = (step.operator.reshapes or step.operator.selects) and last == number - 1
            if step.of_the_map or follows:
                last = number
        return {step.name: step.section for step in self.steps[:last]}

    @property
    def input_map(self) -> InputMap:
        """What a network's input is a map of. Only transforms after all other steps are undone."""
        steps = list(self.steps)
        undone: list[Pointwise] = []
        while steps and issubclass(steps[-1].operator, Pointwise):
            transform = steps.pop().build()
            assert isinstance(transform, Pointwise)
            undone.append(transform)
        in_units = not steps or steps[-1].in_units
        box = Box.of_grid(self.grid, self.state.joined)
        return InputMap(box, tuple(undone), self.grid.units if in_units else "")


def place_operator(observe: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The operators with the last one, `name`, at its place in the order of an instrument: pool,
    sources, beam, noise, mask, filters, transforms; the others keep theirs, and a beam after a
    transform smooths the network's input.

    Warns (OrderWarning) where that is not the end. Raises ConfigError if the others leave several
    places, or none.
    """
    names = [n for n in observe if n != name]
    turns = _turns(names)
    turn = _turn(name)
    places = [
        place
        for place in range(len(names) + 1)
        if all(t is None or t <= turn for t in turns[:place])
        and all(t is None or t >= turn for t in turns[place:])
    ]
    like = [place for place, t in enumerate(turns, 1) if t == turn]
    between = names[max([*places[:1], *like]) : places[-1]] if places else []
    if not places or (turn > Turn.HEAD and any(_joins(n) for n in between)):
        raise ConfigError(
            f"observe.{name} is new, and has no certain place among {', '.join(names)}: write the "
            "section observe, in its order, in a YAML file, which may extend this one"
        )
    place = places[-1] if turn > Turn.HEAD else max([0, *like])
    order = [*names[:place], name, *names[place:]]
    if order[-1] != name:
        warn(
            f"observe.{name} is new and takes its place in the order of an instrument: "
            f"{', '.join(order)}",
            OrderWarning,
        )
    return {n: observe[n] for n in order}


def _whole(voxels: NDArray[np.bool_], after: MapState) -> NDArray[np.bool_]:
    """Voxels of a map that were joined to those of `after`, where all parts of one are among
    them."""
    blocks = (
        size
        for new, old in zip(after.shape, voxels.shape, strict=True)
        for size in (new, old // new)
    )
    joined: NDArray[np.bool_] = np.all(voxels.reshape(*blocks), axis=(1, 3, 5))
    return joined


def _turn(name: str) -> Turn:
    operator = operator_of(name)
    return Turn.HEAD if operator is None else operator.turn


def _joins(name: str) -> bool:
    operator = operator_of(name)
    return operator is not None and operator.reshapes


def _turns(names: Sequence[str]) -> list[int | None]:
    """The turn of each operator; None of a pool in the middle, which has none, and of a beam after
    a transform that of the transform."""
    turns: list[int | None] = []
    latest: int = Turn.HEAD
    for name in names:
        operator, turn = operator_of(name), int(_turn(name))
        if operator is not None and operator.telescope and latest >= Turn.TRANSFORM:
            turn = latest
        turns.append(None if turn < latest and _joins(name) else turn)
        latest = max(latest, turn)
    return turns
