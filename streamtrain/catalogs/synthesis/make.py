"""Make lightcone files from seeds, side by side: `streamtrain catalog make`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamtrain.catalogs.headers import CatalogError
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.synthesis.arrays import NUMPY
from streamtrain.catalogs.synthesis.options import LATER, FileOptions, SkyOptions, chosen
from streamtrain.catalogs.synthesis.synthesize import (
    EmptySkyError,
    arrays_for,
    memory_needed,
    synthesize,
)
from streamtrain.machine import workers

Report = Callable[[float, str], None]


@dataclass(frozen=True)
class Recipe(FileOptions):
    """What files a call makes: PREFIX_SEED.h5 in a folder, for any seed."""

    folder: Path
    prefix: str = "sky"
    """Start of the file names."""
    options: SkyOptions = SkyOptions()
    """What decides the halos."""
    device: str = "cpu"
    """What makes them: see `synthesize`."""
    name: str = ""
    """Name of the file where one alone is made; default: prefix and seed."""
    kept: frozenset[int] = frozenset()
    """Seeds whose files are there and known to fit, however they were made."""
    stride: int = 0
    """Where a seed has no halo the one so much later takes its place, below `end`; 0: none does. Of
    consecutive seeds, fewer than this, none then meets another, on any number of ranks."""
    end: int = 0
    taken: frozenset[int] = frozenset()
    """Seeds that never take the place of another."""

    def path(self, seed: int) -> Path:
        """The file of a seed."""
        return self.folder / (self.name or f"{self.prefix}_{seed:04d}.h5")

    def candidates(self, seed: int) -> list[int]:
        """The seed, then those that take its place where it has no halo."""
        later = range(seed + self.stride, self.end, self.stride) if self.stride else ()
        return [seed, *(other for other in later if other not in self.taken)]

    def is_there(self, seed: int) -> bool:
        """Whether there is a file of the seed, or of one in its place."""
        return any(self.path(candidate).exists() for candidate in self.candidates(seed))

    def make(self, seed: int, threads: int, report: Report) -> str:
        """Make the file of a seed, or of one in its place, unless it is there; a sentence that says
        what happened.

        Raises CatalogError for a file of that name that is damaged or of other options, and where
        no seed has a halo.
        """
        remove_unfinished(self.path(seed))
        candidates = self.candidates(seed)
        for candidate in candidates:
            path = self.path(candidate)
            if path.exists():
                if candidate not in self.kept:
                    self._check(path, candidate)
                return f"{path} is there"
        for number, candidate in enumerate(candidates):
            try:
                done = self._make(candidate, threads, report)
            except EmptySkyError as error:
                if candidate != candidates[-1]:
                    continue
                before = f"{number} seeds before have no halo either, and " if number else ""
                raise CatalogError(f"{self.path(seed)}: {before}{error}") from None
            if not number:
                return done
            empty = ", ".join(map(str, candidates[:number][:3])) + (", ..." if number > 3 else "")
            which = f"seed {empty}, which has" if number == 1 else f"the seeds {empty}, which have"
            return f"{done}, of seed {candidate} in place of {which} no halo"
        raise AssertionError

    def _make(self, seed: int, threads: int, report: Report) -> str:
        """Make the file of a seed. Raises EmptySkyError."""
        path = self.path(seed)
        remove_unfinished(path)
        how: dict[str, Any] = {"threads": threads, "device": self.device, "progress": report}
        lightcone = synthesize(seed, self.options, sfr=self.sfr, **how)
        if not self.velocities:
            lightcone = without_velocities(lightcone)
        lightcone.save(path)
        return f"{path}, {len(lightcone)} halos"

    def _check(self, path: Path, seed: int) -> None:
        """Whether the file holds what this recipe makes; every row is checked."""
        lightcone = Lightcone.open(path)
        try:
            record = LATER | dict(json.loads(lightcone.provenance))
        except ValueError:
            record = {}
        wanted: dict[str, Any] = {"seed": seed, **LATER, **self.options.of(seed).to_dict()}
        wanted |= {"velocities": self.velocities, "sfr": self.sfr}
        record["velocities"] = lightcone.velocities_kms is not None
        record["sfr"] = "sfr" in lightcone.columns
        for name, value in wanted.items():
            if record.get(name) != value:
                raise CatalogError(
                    f"{path} was made with {name} = {record.get(name)}, not {value}: remove it, "
                    "or use another --prefix or --out"
                )


def make_lightcones(
    number: int, recipe: Recipe, *, first_seed: int = 0, processes: int | None = None
) -> int:
    """Make the lightcones of `number` consecutive seeds, on all cores; under torchrun each rank
    makes its own range of them.

    A complete file that is there already is kept, so that an interrupted call can be repeated.
    `processes` work side by side, by default as many as there are cores and memory, one on a GPU.
    Raises ValueError for options out of range and a device that is not there, CatalogError for a
    file that is something else.
    """
    if number < 1:
        raise ValueError(f"the number of lightcones, {number}, must be at least 1")
    if processes is not None and processes < 1:
        raise ValueError(f"the number of processes, {processes}, must be at least 1")
    if not 0 <= first_seed <= 2**64 - number:
        raise ValueError(f"the seeds {first_seed}.. must lie in 0..2^64-1")
    arrays = arrays_for(recipe.device)
    recipe.folder.mkdir(parents=True, exist_ok=True)
    seeds = workers.own_range(first_seed, number)
    missing = sum(not recipe.is_there(seed) for seed in seeds)
    if processes is None and arrays is not NUMPY:
        processes = 1
    elif processes is None:
        memory = memory_needed(recipe.options) if missing > 1 else 0.0
        processes = workers.how_many(missing, memory)
    workers.run(recipe.make, seeds, processes)
    return 0


def remove_unfinished(path: Path) -> None:
    """Remove what a killed process left of its temporary file for `path`."""
    for file in path.parent.glob(f".{path.name}.*.tmp"):
        pid = file.name.split(".")[-2]
        if not (pid.isdigit() and workers.is_running(int(pid))):
            file.unlink(missing_ok=True)


def without_velocities(lightcone: Lightcone) -> Lightcone:
    """A copy of the lightcone without velocities, which painting does not need (z_obs contains
    them)."""
    c = lightcone
    return Lightcone.from_arrays(
        c.x_Mpc,
        c.y_Mpc,
        c.z_Mpc,
        c.mass_Msun,
        c.z_obs,
        cosmology=c.cosmology,
        columns=c.columns,
        provenance=c.provenance,
        footprint_deg=c.footprint_deg,
        z_range=c.z_range,
        min_mass_Msun=c.min_mass_Msun,
        realisation=c.realisation,
    )


def make(arguments: argparse.Namespace) -> int:
    """Run `streamtrain catalog make` without --for."""
    words = [*arguments.number, *arguments.settings]
    if len(words) != 1 or not words[0].lstrip("-").isdigit():
        raise ValueError(
            f"catalog make needs the number of lightcones, not '{' '.join(words)}'; settings "
            "(key=value) belong to --for CONFIG"
        )
    for name in ("numbers", "plan"):
        if getattr(arguments, name):
            raise ValueError(f"--{name.replace('numbers', 'number')} belongs to --for CONFIG")
    given, how = chosen(arguments)
    folder, prefix = arguments.out or Path("lightcones"), arguments.prefix or "sky"
    return make_lightcones(
        int(words[0]),
        Recipe(folder, prefix, SkyOptions(**given), **how),
        first_seed=arguments.first_seed or 0,
        processes=arguments.processes,
    )
