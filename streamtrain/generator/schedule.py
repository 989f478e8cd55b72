"""Which lightcones are in use when: a function of the sample's index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from streamtrain.catalogs.fresh import FreshSkies
from streamtrain.catalogs.skies import Skies
from streamtrain.config_data import DEFAULT_FRESH_ACTIVE, DataConfig, SynthesizeConfig
from streamtrain.rng import STAGE_SKIES, Draws, Split


@dataclass(frozen=True)
class SkiesInUse:
    """The lightcones of a window."""

    names: list[str]
    seen: int
    """How many different ones it and the windows before it have."""


@dataclass(frozen=True)
class Schedule:
    """`active` of `num` lightcones at a time, others after every `samples` indices.

    Window w = index // samples has the lightcones number w * active and following of an endless
    sequence, in which all of them, in a new order each time, follow one another. Without a `num`
    there is no end of lightcones, and number k of the sequence is lightcone k.
    """

    seed: int
    split: Split
    num: int | None
    active: int
    samples: int

    @property
    def turns(self) -> bool:
        """Whether there are more lightcones than are active at a time."""
        return self.num is None or self.active < self.num

    def of(self, num: int) -> Schedule:
        """The same windows for `num` other lightcones: all of them active where these all are."""
        return replace(self, num=num, active=self.active if self.turns else num)

    def window(self, index: int) -> int:
        """The window of a sample; always 0 where all lightcones are active."""
        return index // self.samples if self.turns else 0

    def lightcones(self, window: int) -> tuple[int, ...]:
        """Numbers of the lightcones of a window [active], each at most once a round."""
        first = window * self.active
        places = range(first, first + self.active)
        if self.num is None:
            return tuple(places)
        if not self.turns:
            return tuple(range(self.num))
        return tuple(self._at(place, self.num) for place in places)

    def seen(self, window: int) -> int:
        """How many different lightcones the windows 0 .. `window` have."""
        places = (window + 1) * self.active
        return places if self.num is None else min(places, self.num)

    def _at(self, place: int, num: int) -> int:
        round_, rest = divmod(place, num)
        return _order(self.seed, self.split, num, round_)[rest]

    def runs(self, indices: Sequence[int]) -> Iterator[tuple[int, int, int]]:
        """(window, first, last + 1) of the stretches of `indices` that lie in one window each."""
        if not self.turns or not len(indices):
            yield 0, 0, len(indices)
            return
        start = 0
        for k in range(1, len(indices) + 1):
            if k == len(indices) or self.window(indices[k]) != self.window(indices[start]):
                yield self.window(indices[start]), start, k
                start = k


@lru_cache(maxsize=64)
def _order(seed: int, split: Split, num: int, round_: int) -> tuple[int, ...]:
    """The lightcones in a random order."""
    draws = Draws(seed, split, np.array([round_], np.uint64), STAGE_SKIES)
    return tuple(np.argsort(draws.uniform(range(num))[0], kind="stable").tolist())


def schedule_of(data: DataConfig, seed: int, split: Split, skies: Skies | FreshSkies) -> Schedule:
    """The schedule that the section `data` asks for, of the lightcones of a split."""
    if isinstance(skies, Skies):
        active = data.active or len(skies)
        return Schedule(seed, split, len(skies), active, data.active_samples)
    active = data.active or DEFAULT_FRESH_ACTIVE
    reuse = data.fresh.reuse if data.fresh else SynthesizeConfig().reuse
    return Schedule(seed, split, None, active, active * reuse)
