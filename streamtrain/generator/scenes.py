"""The lines that a map shows, with the lightcones whose halos shine in them.

Before lightcones are used, the memory that they take is compared with what is free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from streamtrain.catalogs.headers import CatalogError, Header
from streamtrain.catalogs.sfr import SFRTable
from streamtrain.catalogs.skies import LightconeFiles
from streamtrain.catalogs.synthesis.fresh import FreshSkies
from streamtrain.config import Config
from streamtrain.generator.halos import BANK_BYTES, Bank
from streamtrain.generator.kernel_draws import Stages
from streamtrain.generator.line import EmissionLine, LinePlan, RedshiftError
from streamtrain.generator.open import open_interlopers
from streamtrain.generator.windows import KEPT, Scene, Schedule
from streamtrain.labels import Label
from streamtrain.luminosity.modifiers import build_modifiers, emit_stage
from streamtrain.luminosity.scores import in_label
from streamtrain.luminosity.settings import InterloperConfig
from streamtrain.machine.memory import GB, free_memory
from streamtrain.numerics.rng import STAGE_POSE, Split
from streamtrain.schema import ConfigError

Line = tuple[LightconeFiles | FreshSkies, Schedule, LinePlan]
"""The lightcones whose halos shine in a line, when they are used, and what else makes the line."""


class SceneBuilder:
    """Builds what the samples of any window are painted from, by a configuration.

    skies, schedule: the lightcones of the line, and when they are used. Raises ConfigError or
    CatalogError, one sentence each, for interlopers that cannot be used.
    """

    def __init__(
        self,
        config: Config,
        split: Split,
        skies: LightconeFiles | FreshSkies,
        schedule: Schedule,
        *,
        sfr: str | SFRTable,
        device: torch.device,
        compiler_flags: Sequence[str],
    ) -> None:
        self._config, self._skies, self._schedule = config, skies, schedule
        self._sfr, self._device, self._compiler_flags = sfr, device, compiler_flags
        self.modifiers = build_modifiers(config.emit, config.label.luminosity_bins)
        self._volume_of = lru_cache(maxsize=4096)(config.grid.volume_Mpc3)
        volumes = [self._volume(cosmology) for cosmology in skies.cosmologies]
        self._own_volumes = isinstance(skies, FreshSkies) and len(set(volumes)) > 1
        self.label = Label(
            config.label,
            volumes[:1] if self._own_volumes else volumes,
            list(config.line.class_names),
            device,
            in_label(config.label, config.line),
        )
        """What a network predicts of the samples."""
        self._own_skies = open_interlopers(config, split, skies)
        self._plans = {"line": LinePlan(config.line, config.grid, self.modifiers)}
        for position, (name, section) in enumerate(config.emit.items()):
            if isinstance(section, InterloperConfig):
                self._plans[name] = self._interloper(name, section, emit_stage(position))

    def _volume(self, cosmology: Mapping[str, float]) -> float:
        """Comoving volume of a field [Mpc^3]."""
        return self._volume_of(cosmology["Omega_m"], cosmology["h"])

    @property
    def lines(self) -> list[Line]:
        """The line of the label, then the interlopers."""
        return [(*self._skies_of(name), plan) for name, plan in self._plans.items()]

    @property
    def headers(self) -> list[Header]:
        """Headers of all lightcone files: the line's, then those of interlopers that have their
        own."""
        every = (self._skies, *self._own_skies.values())
        return [h for skies in every if isinstance(skies, LightconeFiles) for h in skies.headers]

    def identity(self, scene: Scene, files: Mapping[str, Any]) -> dict[str, Any]:
        """What decides samples besides the configuration: digests of lightcones, of models, and of
        other `files`. scene: any of those that were built."""
        others = {name: line.identity() for name, line in scene.interlopers.items()}
        for name, own in self._own_skies.items():
            others[name]["lightcones"] = own.identity()
        return {**scene.line.identity(), "lightcones": self._skies.identity(), **files, **others}

    def _interloper(self, name: str, section: InterloperConfig, stage: int) -> LinePlan:
        """Another line in the same band, in the field of the line or in one of its own."""
        pose = stage + 1 if name in self._own_skies else STAGE_POSE
        return LinePlan(
            section.line,
            replace(self._config.grid, nu_rest_GHz=section.nu_rest_GHz),
            self.modifiers.blank,
            Stages(pose, stage, stage + 3, stage + 2),
            self._config.grid.fixed_point_exponent,
        )

    def _skies_of(self, name: str) -> tuple[LightconeFiles | FreshSkies, Schedule]:
        """The lightcones whose halos shine in a line, and when they are used."""
        own = self._own_skies.get(name)
        return (self._skies, self._schedule) if own is None else (own, self._schedule.of(len(own)))

    def build(self, window: int) -> Scene:
        """What the samples of a window are painted from."""
        banks: dict[int, Bank] = {}
        lines = {}
        for name, plan in self._plans.items():
            skies, schedule = self._skies_of(name)
            if id(skies) not in banks:
                numbers = schedule.lightcones(window)
                banks[id(skies)] = Bank([skies.load(k) for k in numbers], self._device)
            try:
                lines[name] = EmissionLine(
                    plan,
                    self._config.data,
                    banks[id(skies)],
                    self.label.bins,
                    self._config.observation.leading_pool,
                    sfr=self._sfr,
                    compiler_flags=self._compiler_flags,
                )
            except RedshiftError as error:
                if name == "line":
                    raise
                raise CatalogError(
                    f"emit.{name}: {error}; lightcones of other redshifts than the line's are "
                    f"emit.{name}.train, .validation and .test"
                ) from None
        in_use, volumes = np.array(self._schedule.lightcones(window)), None
        if self._own_volumes:
            volumes = np.array([self._volume(c.cosmology) for c in lines["line"].lightcones])
        unit_label = self.label.unit_label(in_use, volumes)
        return Scene(in_use, lines.pop("line"), lines, unit_label)


SHARE = 0.5
"""Share of the free memory that lightcones may take."""


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return free_memory()


def bytes_in_use(lines: Sequence[Line], device: torch.device) -> float:
    """Memory that lightcones take on a device [bytes], while those of a window and of the next are
    held: every bank once, what every line adds to it, on a CPU the lightcones' own arrays too."""
    per_halo: dict[int, int] = {}
    for skies, _, plan in lines:
        per_halo[id(skies)] = per_halo.get(id(skies), BANK_BYTES) + plan.bytes_per_halo()
    total = 0.0
    for skies, schedule in {id(s): (s, schedule) for s, schedule, _ in lines}.values():
        number = schedule.active if schedule.turns else schedule.num or 0
        most = skies.most_bytes(number, per_halo[id(skies)], with_rows=device.type == "cpu")
        total += (KEPT if schedule.turns else 1) * most
    return total


def check_memory(lines: Sequence[Line], limit_GB: float | None, device: torch.device) -> None:
    """Raise ConfigError if the lightcones in use, and those that follow them, do not fit.

    lines: of the samples, the one of the label first; limit_GB: instead of half of what is free on
    the device.
    """
    first = lines[0][1]
    needed = bytes_in_use(lines, device)
    limit = SHARE * free_bytes(device) if limit_GB is None else GB * limit_GB
    if needed > limit:
        advice = "data.active, as in data.active=2,"
        if first.turns:
            advice = f"data.active below {first.active}"
        raise ConfigError(
            f"the lightcones in use need {needed / GB:.2g} GB, more than the {limit / GB:.2g} GB "
            f"there are for them: set {advice} to use fewer at a time"
        )
