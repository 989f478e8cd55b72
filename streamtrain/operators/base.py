"""What a map operator is: a step between the painted cube and the network's input.

An operator draws what varies from sample to sample (on the host, from the index) and changes the
cubes of a batch on the device. Labels never change. What is known of its kind stands in its class,
and nowhere else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamtrain.grid import Grid
from streamtrain.numerics.backend import Kernels
from streamtrain.numerics.rng import Draws
from streamtrain.numerics.workspace import DeviceArrays

Shape = tuple[int, int, int]
Drawn = dict[str, NDArray[np.float32]]
LARGEST = 1e30
"""Largest number that an operator may draw: sums and squares of more would not fit into float32."""
GROUP = 8
"""Neighbouring voxels that one element of some kernels works on, as in kernels/observe.cu."""


@dataclass(frozen=True)
class MapState:
    """The map as an operator finds it."""

    grid: Grid
    """The grid that was painted."""
    joined: Shape = (1, 1, 1)
    """Fine voxels (freq, dec, ra) joined into one of the map."""
    weight: float = 1.0
    """A voxel over the mean of its fine voxels: 1 where they were averaged, their number where they
    were summed."""
    through: tuple[Callable[[], Operator], ...] = field(default=(), repr=False, compare=False)
    """Makes the operators that the map has gone through, each once, one after the other."""

    @property
    def shape(self) -> Shape:
        """Shape (freq, dec, ra) of the map."""
        freq, dec, ra = (n // f for n, f in zip(self.grid.shape, self.joined, strict=True))
        return freq, dec, ra

    @property
    def number(self) -> int:
        """Fine voxels joined into one of the map."""
        return self.joined[0] * self.joined[1] * self.joined[2]


class Turn(IntEnum):
    """The order of an instrument, and of what is done with its map."""

    HEAD = 0
    """Voxels are joined; the turn counts at the head of the operators alone."""
    SOURCES = 1
    BEAM = 2
    NOISE = 3
    MASK = 4
    FILTER = 5
    TRANSFORM = 6
    STANDARDISE = 7


@dataclass
class Operator(ABC):
    """One step between the painted cube and the network's input.

    A class says what is known of its kind in class attributes. Those without a default have to be
    said: a class without one of them, or that draws and does not say that it is random, is refused
    with a TypeError where it is defined.
    """

    section: ClassVar[type[Any]]
    """The operator's section of the configuration, a frozen dataclass."""
    words: ClassVar[str]
    """What it adds, or else the map after it, in plain words."""
    turn: ClassVar[Turn]
    """Place of the operator in the order of an instrument."""
    random: ClassVar[bool]
    """Whether it differs from sample to sample. A user's map is taken to have it already."""
    adds: ClassVar[bool] = False
    """Whether it adds something to the map, in the map's units."""
    telescope: ClassVar[bool] = False
    """Whether it is what a telescope does to a map, as long as the map has its units."""
    unitless: ClassVar[bool] = False
    """Whether the map has no unit after it."""
    reshapes: ClassVar[bool] = False
    """Whether voxels are joined: see `state_after`."""
    selects: ClassVar[bool] = False
    """Whether it takes voxels out of the map, whatever they hold, also those without a value."""
    spares: ClassVar[bool] = False
    """Whether it leaves voxels as they are that were masked or not observed before it."""
    files: ClassVar[tuple[str, ...]] = ()
    """Settings that name a file: it counts by what is in it, not by where it lies."""
    measured: ClassVar[tuple[str, ...]] = ()
    """Settings that were measured of the instrument, with an error: numbers above 0, all of one of
    them times the same factor in `turned`."""
    pipeline: ClassVar[Literal["", "filter", "pca"]] = ""
    """What a survey's pipeline does that it stands for, and that a map's file may say was done, see
    `SkyMap.filtered` and `SkyMap.pca_modes`."""
    hint: ClassVar[str] = ""
    """What to do instead where `needs_units` finds none."""

    name: str
    """Key of the operator in the configuration: that of its kind, or with the suffix of a second
    use."""
    stage: int
    """Random stage that the operator draws from."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.apply is Operator.apply:
            return  # what several have in common
        for said in ("section", "words", "turn", "random"):
            if not hasattr(cls, said):
                raise TypeError(f"the operator {cls.__name__} does not say `{said}`")
        if not cls.random and cls.draw is not Operator.draw:
            raise TypeError(f"the operator {cls.__name__} draws: it is random")

    @classmethod
    def from_config(cls, name: str, stage: int, config: Any, state: MapState) -> Operator:
        """The operator where the map is in `state`; here one whose fields are its settings. Raises
        ConfigError."""
        return cls(name, stage, **vars(config))

    @classmethod  # noqa: B027
    def check(cls, section: Any, where: str, state: MapState) -> None:
        """Raise ConfigError for what the types of a section, `where` in the configuration, do not
        tell, where the map is in `state`."""

    @classmethod
    def state_after(cls, section: Any, state: MapState) -> MapState:
        """The map after an operator of this section."""
        return state

    @classmethod
    def of_the_map(cls, in_units: bool) -> bool:
        """Whether a real map has it already: noise, foregrounds and all else that is random or
        added, and what a telescope does. in_units: the map before it has its units."""
        return cls.random or cls.adds or (cls.telescope and in_units)

    @classmethod
    def needs_units(cls, section: Any) -> bool:
        """Whether an operator of this section is meant for a map in its units."""
        return cls.adds

    def turned(self, section: Any, factor: float) -> dict[str, Any]:
        """The operator's section with one of `measured` times a factor, by the setting with its
        value, for each that is given."""
        given = {name: value for name in self.measured if (value := getattr(section, name))}
        found = {}
        for name, value in given.items():
            times = (factor * np.asarray(value)).tolist()
            times = tuple(times) if isinstance(times, list) else times
            found[f"{name} = {value}"] = replace(section, **{name: times})
        return found

    @property
    def title(self) -> str:
        """The operator in words, with the suffix of a second use."""
        suffix = self.name.rpartition("_")[2]
        return f"{self.words} {suffix}" if suffix.isdigit() else self.words

    def identity(self) -> str | None:
        """The digest of what it has read from a file, if it reads one."""
        return None

    def unseen(self) -> NDArray[np.bool_] | None:
        """What it sets to 0 in a user's map too, if there is any: pixels [n_dec, n_ra] or voxels
        [n_freq, n_dec, n_ra]."""
        return None

    def sigma_pattern(self) -> NDArray[np.float32] | None:
        """Sigma of the noise that it adds to each voxel over a level of the sample, [n_dec, n_ra]
        or [n_freq, n_dec, n_ra], negative where nothing was observed; None where it adds no noise,
        or the same to all."""
        return None

    def draw(self, draws: Draws) -> Drawn:
        """What varies between samples: name -> float32 [B]."""
        return {}

    @abstractmethod
    def apply(self, kernels: Kernels, cube: Tensor, keys: Tensor, drawn: DeviceArrays) -> Tensor:
        """Change cubes float32 [B, freq, dec, ra]; returns the same tensor or a new one.

        keys: int32 [B, 6], as in kernels/paint.cu; drawn: tensors float32 [B] on the device.
        """


class Pointwise(Operator):
    """A transform of each voxel by itself, which can be undone."""

    turn = Turn.TRANSFORM
    random = False
    unitless = True

    @abstractmethod
    def undo(self, values: Tensor) -> Tensor:
        """The map before the transform, of any shape."""

    @abstractmethod
    def slope(self, values: Tensor) -> Tensor:
        """The derivative of the transform where its result is `values`."""


def draw_finite(operator: Operator, draws: Draws) -> Drawn:
    """What an operator draws. Raises ValueError for numbers that no map in float32 survives."""
    with np.errstate(over="ignore"):
        drawn = operator.draw(draws)
    for name, values in drawn.items():
        bad = ~(np.abs(values) <= LARGEST)
        if bad.any():
            raise ValueError(
                f"observe.{operator.name}: {name} = {values[bad].ravel()[0]:g} is beyond what a "
                f"map can hold ({LARGEST:g})"
            )
    return drawn


class Table:
    """A constant array of an operator, copied to each device once."""

    def __init__(self, values: NDArray[np.generic]) -> None:
        self.values = np.ascontiguousarray(values)
        self._copies: dict[torch.device, Tensor] = {}

    def on(self, device: torch.device) -> Tensor:
        """The array on a device."""
        if device not in self._copies:
            self._copies[device] = torch.from_numpy(self.values).to(device)
        return self._copies[device]
