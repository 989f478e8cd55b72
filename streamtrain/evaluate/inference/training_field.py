"""The field that a network was trained on, and the file that remembers what was measured for it.

Volume and distances of the field are those of the training lightcones' cosmology. They are found
once and kept in the run folder, infer_reference.json, beside the errors of `infer_reference`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamtrain.config import Config
from streamtrain.cosmology import HUBBLE, OMEGA_M
from streamtrain.generator.generator import GENERATOR_VERSION, Generator
from streamtrain.machine.files import sha256_of, write_json
from streamtrain.shipped import is_shipped
from streamtrain.train.folder import run_folder

FILE = "infer_reference.json"


@dataclass(frozen=True)
class TrainingField:
    """What is known of the field of the maps that a network was trained on."""

    volume_Mpc3: float
    """Comoving volume of the field [Mpc^3], in the cosmology of the first training lightcone."""
    Omega_m: float = OMEGA_M
    """Matter density of the first training lightcone."""
    h: float = HUBBLE
    """Hubble constant of the first training lightcone [100 km/s/Mpc]."""


class Kept:
    """What infer_reference.json of a run holds, as plain data.

    config: of the run. What cannot be read, or is of other training maps, is not there.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.path: Path = run_folder(config) / FILE
        self.data = self._read()
        self._before = dict(self.data)

    def field(
        self, training: Callable[[], Generator], *, cosmology: bool, again: bool = False
    ) -> tuple[TrainingField, list[str]]:
        """The field of the training maps, with a sentence if its cosmology could not be found.

        training: opens a generator of the run's training samples; cosmology: whether volume and
        distances of the field matter; again: look anew.
        """
        problems = []
        if cosmology and (again or "cosmology" not in self.data):
            try:
                self.data.update(_measured(training))
            except (ValueError, OSError) as error:
                problems.append(f"volume and distances are those of Omega_m = {OMEGA_M:g}: {error}")
        found = {
            name: float(value)
            for name, value in dict(self.data.get("cosmology", {})).items()
            if name in ("Omega_m", "h")
        }
        if cosmology and (ends := self.data.get("cosmologies")):
            said = ", ".join(f"{name} = {low:g} to {high:g}" for name, (low, high) in ends.items())
            ours = ", ".join(f"{name} = {value:g}" for name, value in found.items())
            problems.append(
                f"the training's skies have {said}: volume and distances are those of {ours}, of "
                "its first lightcone"
            )
        volume = self.data.get("volume_Mpc3")  # files of before have no cosmology beside it
        if volume is None:
            volume = self.config.grid.volume_Mpc3(**found)
        return TrainingField(float(volume), **found), problems

    def save(self) -> None:
        """Write the file, if anything is new, and the folder may be written into."""
        if self.data != self._before and not is_shipped(self.path.parent):
            with contextlib.suppress(OSError):
                write_json(self.path, {**self.data, "of": self._identity()})
            self._before = dict(self.data)

    def _read(self) -> dict[str, Any]:
        try:
            data = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        if not isinstance(data, Mapping):
            return {}
        kept, of = dict(data), data.get("of")
        # files of before have one identity for errors and training maps
        if isinstance(of, Mapping) and "checkpoint_step" in of:
            kept.setdefault("checkpoint_step", of["checkpoint_step"])
            kept.setdefault("generator_version", of.get("generator_version"))
        if of != self._identity():
            for name in ("volume_Mpc3", "cosmology", "cosmologies"):
                kept.pop(name, None)
        return kept

    def _identity(self) -> dict[str, Any]:
        """The settings and the generator that the training maps are of."""
        return {
            "samples": sha256_of(self.config.sample_settings()),
            "generator_version": GENERATOR_VERSION,
        }


def _measured(training: Callable[[], Generator]) -> dict[str, Any]:
    with contextlib.closing(training()) as generator:
        every = generator.skies.cosmologies
        cosmology = {name: every[0][name] for name in ("Omega_m", "h")}
        found: dict[str, Any] = {
            "volume_Mpc3": generator.grid.volume_Mpc3(**cosmology),
            "cosmology": cosmology,
        }
    ends = {name: [min(c[name] for c in every), max(c[name] for c in every)] for name in cosmology}
    if differ := {name: [low, high] for name, (low, high) in ends.items() if low < high}:
        found["cosmologies"] = differ
    return found
