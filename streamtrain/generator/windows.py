"""Which lightcones are in use when, a function of the sample's index; and those, on the device.

The lightcones of the next window are made ready in the background.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import lru_cache
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray

from streamtrain.catalogs.settings import DEFAULT_FRESH_ACTIVE, DataConfig, SynthesizeConfig
from streamtrain.catalogs.skies import LightconeFiles
from streamtrain.catalogs.synthesis.fresh import FreshSkies
from streamtrain.generator.line import EmissionLine
from streamtrain.numerics.rng import STAGE_SKIES, Draws, Split


@dataclass(frozen=True)
class SkiesInUse:
    """The lightcones of a window."""

    names: list[str]
    seen: int
    """How many different ones it and the windows before it have."""
    num: int | None = None
    """How many there are; None where there is no end of them."""

    def waiting(self, samples: str) -> str:
        """A sentence if some have had no turn, else nothing. samples: up to those of the window."""
        if self.num is None or self.seen >= self.num:
            return ""
        return (
            f"{samples} are of {self.seen} of {self.num} lightcones, as the others wait for their "
            "turn: data.active=0 uses all at once, a smaller data.active_samples more of them"
        )


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
        """These windows for `num` other lightcones: all of them active where these all are."""
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
        ends = self.window(indices[0]), self.window(indices[-1])
        if isinstance(indices, range) and ends[0] == ends[1]:
            yield ends[0], 0, len(indices)
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


def schedule_of(
    data: DataConfig, seed: int, split: Split, skies: LightconeFiles | FreshSkies
) -> Schedule:
    """The schedule that the section `data` asks for, of the lightcones of a split."""
    if isinstance(skies, LightconeFiles):
        active = data.active or len(skies)
        return Schedule(seed, split, len(skies), active, data.active_samples)
    active = data.active or DEFAULT_FRESH_ACTIVE
    reuse = data.fresh.reuse if data.fresh else SynthesizeConfig().reuse
    return Schedule(seed, split, None, active, active * reuse)


KEPT = 2
"""Windows that are held: the present one and the next."""


@dataclass(frozen=True)
class Scene:
    """What the samples of one window are painted from."""

    numbers: NDArray[np.int64]
    """Numbers of the lightcones among all of the split."""
    line: EmissionLine
    interlopers: dict[str, EmissionLine]
    unit_label: torch.Tensor
    """The label of one halo in each bin, of each lightcone or of all, see `Label.unit_label`."""
    _streams: set[int] = field(default_factory=set, compare=False)
    """The streams of a GPU in which it has been read."""

    @property
    def tensors(self) -> list[torch.Tensor]:
        """All that its lines read on the device, each once: lines of the same lightcones share
        their bank's."""
        every = [tensor for line in self.lines for tensor in line.painter.tensors]
        return list({id(tensor): tensor for tensor in every}.values())

    @property
    def lines(self) -> list[EmissionLine]:
        """The line, then the interlopers."""
        return [self.line, *self.interlopers.values()]

    @property
    def numpy_because(self) -> str:
        """Why NumPy draws its samples; empty where kernels do."""
        return next((line.why_not for line in self.lines if line.why_not), "")

    def read_from_here(self, device: torch.device) -> None:
        """What is enqueued from now on in torch's current stream of a GPU reads the lightcones.

        They were made in another stream; so that, whoever lets go of them, their memory is not used
        again before that is done."""
        if device.type != "cuda":
            return
        stream = torch.cuda.current_stream(device)
        if stream.cuda_stream in self._streams:
            return
        drawn_with = [tensor for line in self.lines for tensor in line.drawn_with]
        read = [*self.tensors, self.unit_label, *drawn_with]
        for tensor in {tensor.data_ptr(): tensor for tensor in read}.values():
            tensor.record_stream(stream)
        self._streams.add(stream.cuda_stream)


class LightconeWindows:
    """Scenes by window. build: makes one; follows: whether a window has a successor worth making in
    advance. Errors of the background come up when its scene is asked for."""

    def __init__(
        self, build: Callable[[int], Scene], device: torch.device, *, follows: bool
    ) -> None:
        self._build, self._device, self._follows = build, device, follows
        self._made: dict[int, Future[Scene]] = {}
        self._lock = Lock()
        self._executor: ThreadPoolExecutor | None = None
        self.latest = self.of(0, ahead=False)
        """The scene that was asked for last."""

    def of(self, window: int, ahead: bool = True) -> Scene:
        """The scene of a window; the next one is then put in the making."""
        with self._lock:
            future = self._request(window)
        scene = future.result()
        if ahead and self._follows:
            with self._lock:
                self._request(window + 1)
        self.latest = scene
        return scene

    def ready(self, window: int, seconds: float) -> bool:
        """Whether the scene of a window is there, or failed, after at most so long [s]; it is put
        in the making."""
        with self._lock:
            future = self._request(window)
        return future in wait([future], seconds).done

    def _request(self, window: int) -> Future[Scene]:
        """The scene of a window, made or in the making; the oldest request is forgotten."""
        if window not in self._made:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(1, "streamtrain-skies")
            self._made[window] = self._executor.submit(self._make, window)
        self._made[window] = self._made.pop(window)  # the youngest is last
        while len(self._made) > KEPT:
            self._made.pop(next(iter(self._made))).cancel()
        return self._made[window]

    def _make(self, window: int) -> Scene:
        if self._device.type != "cuda":
            return self._build(window)
        with torch.cuda.device(self._device):  # a new thread starts on device 0
            scene = self._build(window)
            torch.cuda.current_stream().synchronize()
            return scene

    def close(self) -> None:
        """Stop making scenes in the background."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
            self._executor = None
