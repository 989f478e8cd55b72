"""Lightcones without files: number k of a run is made when its turn comes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from streamtrain.catalogs.headers import CatalogError, Header
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.synthesis.box import METHOD, METHOD_VERSION
from streamtrain.catalogs.synthesis.options import SkyOptions
from streamtrain.catalogs.synthesis.synthesize import (
    SOME_SKIES,
    EmptySkyError,
    expected_halos,
    synthesize,
)
from streamtrain.numerics.rng import STAGE_SKIES, Draws

ATTEMPTS = 30
"""Seeds of a lightcone, the first of them with a halo; of few that are expected, none may be."""


@dataclass(frozen=True)
class MadeLightcone:
    """What a run writes down of a lightcone: with `streamtrain catalog make 1 --first-seed SEED
    --options FILE` and its options in FILE anybody makes it again."""

    number: int
    seed: int
    digest: str
    """sha256 of its content. A GPU and a processor round the last bits differently, and with them a
    few halos and the digest differ."""
    halos: int
    drawn: dict[str, Any] = field(default_factory=dict)
    """What was drawn of its options, as a file of --options takes it."""
    prior: str = ""
    """sha256 of the prior that it was drawn from, if any."""
    options: dict[str, Any] = field(default_factory=dict)
    """All that decides its halos besides the seed, likewise."""


class FreshSkies:
    """An endless sequence of lightcones; number k is a function of the run's seed and of k.

    seed: of the run. options: of every lightcone. reserved: of the other splits, whose skies no
    fresh lightcone may be. device: where they are made, a name of torch's. report: called
    with (fraction done, what is being done).
    Like `LightconeFiles`, but for the number of lightcones.
    """

    def __init__(
        self,
        seed: int,
        options: SkyOptions,
        *,
        reserved: Sequence[Header] = (),
        threads: int | None = None,
        device: str = "cpu",
        report: Callable[[float, str], None] | None = None,
    ) -> None:
        self.options, self._seed, self._reserved = options, seed, reserved
        self.headers: list[Header] = []
        """Headers of lightcone files: there are none, as these skies have no file."""
        self._threads, self._device, self.report = threads, device, report
        self._made: list[MadeLightcone] = []
        self._lock, self._closed = Lock(), Event()
        self._alive: WeakValueDictionary[int, Lightcone] = WeakValueDictionary()
        self._cosmology_of: dict[str, Mapping[str, float]] = {}
        self.expected_halos = expected_halos(options)
        """About how many halos a lightcone has, in the mean where its options are drawn."""

    @property
    def cosmologies(self) -> list[Mapping[str, float]]:
        """The one cosmology of all of them or, where it is drawn, those of the first."""
        prior = self.options.vary
        some = range(SOME_SKIES if prior is not None and prior.cosmology is not None else 1)
        return [self.options.of(self.seed_of(k)).cosmology.to_dict() for k in some]

    def cosmology_of(self, realisation: str) -> Mapping[str, float]:
        """The cosmology of a lightcone that was made, by its name."""
        return self._cosmology_of[realisation]

    def name(self, number: int) -> str:
        """The name of lightcone `number`."""
        return f"number {number}"

    def digest_of(self, name: str) -> str:
        """'', as a lightcone that was made has no file."""
        return ""

    @property
    def realisations(self) -> dict[str, str]:
        """The sky of each lightcone whose name is another: of none."""
        return {}

    def most_bytes(self, number: int, bytes_per_halo: int, *, with_rows: bool) -> float:
        """Memory that so many lightcones take [bytes], about: so many for each halo, and with
        their own rows (of eight numbers, as there are velocities) if those stay beside it."""
        return number * self.expected_halos * (bytes_per_halo + with_rows * 8 * 4)

    def seed_of(self, number: int, attempt: int = 0) -> int:
        """The seed that lightcone `number` is synthesised from; attempt: how many before it have no
        halo."""
        draws = Draws(self._seed, "train", np.array([number], np.uint64), STAGE_SKIES)
        low, high = (int(word) for word in draws.words([attempt])[0, 0, :2])
        return low | high << 32

    def load(self, number: int) -> Lightcone:
        """Make lightcone `number`, unless somebody holds it. Raises CatalogError where that cannot
        be done."""
        if (alive := self._alive.get(number)) is not None:
            return alive

        def progress(fraction: float, what: str) -> None:
            if self._closed.is_set():
                raise CatalogError("no lightcone is made any more: the generator was closed")
            if self.report is not None:
                self.report(fraction, f"lightcone {number}: {what}")

        for attempt in range(ATTEMPTS):
            seed = self.seed_of(number, attempt)
            try:
                made = synthesize(
                    seed,
                    self.options,
                    threads=self._threads,
                    device=self._device,
                    progress=progress,
                )
                break
            except EmptySkyError as error:
                if attempt == ATTEMPTS - 1:
                    raise CatalogError(
                        f"data.train.synthesize: lightcone {number}: {attempt} seeds before have "
                        f"no halo either, and {error}"
                    ) from None
            except CatalogError:
                raise
            except ValueError as error:
                raise CatalogError(f"data.train.synthesize: {error}") from None
        for other in self._reserved:
            if other.same_sky(made.header):
                raise CatalogError(
                    f"lightcone {number} of data.train.synthesize is the sky '{made.realisation}' "
                    f"of data.validation or data.test ({other.path}): choose another seed"
                )
        with self._lock:
            drawn, prior = self.options.drawn(seed), self.options.vary
            digest = "" if prior is None else prior.digest
            options = self.options.of(seed).to_dict() | {"num_slabs": self.options.num_slabs}
            self._made.append(
                MadeLightcone(number, seed, made.digest, len(made), drawn, digest, options)
            )
            self._cosmology_of[made.realisation] = made.cosmology
            self._alive[number] = made
        return made

    def take_made(self) -> list[MadeLightcone]:
        """The lightcones made since the last call."""
        with self._lock:
            made, self._made = self._made, []
        return made

    def close(self) -> None:
        """Give up a lightcone in the making."""
        self._closed.set()

    def identity(self) -> dict[str, Any]:
        """What decides the lightcones besides the run's seed."""
        method = {"method": METHOD, "method_version": METHOD_VERSION}
        return {**method, **self.options.to_dict()}
