"""The training maps that a user's map is compared with, and the file that remembers them.

A network predicts something for any map. For a map unlike all it has seen that is an extrapolation,
so a few plain statistics of the map, as the network takes it, are compared with those of training
samples (`Seen`). They are measured once, with the cosmology of the training lightcones, and kept in
the run folder, infer_reference.json, beside the errors of `infer_reference`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from streamtrain.config import Config
from streamtrain.evaluate import testset
from streamtrain.generator.generator import GENERATOR_VERSION, Generator
from streamtrain.machine.files import sha256_of, write_json
from streamtrain.machine.progress import SILENT, Progress
from streamtrain.train.folder import run_folder

Float = NDArray[np.float64]

FILE = "infer_reference.json"
NUM_SAMPLES = 128
"""Training maps that a map is compared with."""

NAMES = ("mean", "standard deviation", "lowest voxel", "highest voxel")
BEYOND = 0.1
"""How far a statistic may lie beyond the range of the training samples, in widths of that range."""
MOST_CHANNELS = 0.1
"""Share of the channels that may lie outside; each has a small chance of its own."""


def statistics(cubes: torch.Tensor) -> tuple[Float, Float]:
    """The statistics `NAMES` of cubes [B, n_freq, n_dec, n_ra] as [B, 4], and the mean and standard
    deviation of every channel [B, 2, n_freq]."""
    wide = cubes.double()
    std = (1, 2, 3)
    whole = (wide.mean(std), wide.std(std, correction=0), wide.amin(std), wide.amax(std))
    channels = torch.stack([wide.mean((2, 3)), wide.std((2, 3), correction=0)], dim=1)
    return torch.stack(whole, dim=1).cpu().numpy(), channels.cpu().numpy()


@dataclass(frozen=True)
class Seen:
    """The range of the statistics of training samples, lowest and highest."""

    samples: int
    whole: Float
    """Lowest and highest value of each statistic of the whole cube, [2, 4]."""
    channels: Float
    """Lowest and highest mean and standard deviation of each channel, [2, 2, n_freq]."""

    @classmethod
    def of(cls, parts: list[tuple[Float, Float]]) -> Seen:
        """The ranges of what `statistics` found in some batches."""
        whole, channels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return cls(
            len(whole),
            np.stack([whole.min(0), whole.max(0)]),
            np.stack([channels.min(0), channels.max(0)]),
        )

    def to_dict(self) -> dict[str, Any]:
        """The ranges as plain data for a JSON file."""
        return {
            "samples": self.samples,
            "whole": self.whole.tolist(),
            "channels": self.channels.tolist(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Seen:
        """The ranges that `to_dict` wrote."""
        return cls(int(data["samples"]), np.array(data["whole"]), np.array(data["channels"]))

    def problem(self, cube: torch.Tensor) -> str:
        """A sentence if a map [n_freq, n_dec, n_ra] is unlike the training samples, else ''."""
        whole, channels = (values[0] for values in statistics(cube[None]))
        said = [
            f"{name} {value:.4g} (theirs {low:.4g} to {high:.4g})"
            for name, value, low, high, out in zip(
                NAMES, whole, *self.whole, _outside(whole, self.whole), strict=True
            )
            if out
        ]
        number = channels.shape[-1]
        outside = _outside(channels, self.channels).sum(axis=1)
        for name, count in zip(("mean", "standard deviation"), outside, strict=True):
            if count > max(1, MOST_CHANNELS * number):
                said.append(f"{name} of {count} of {number} channels")
        if not said:
            return ""
        return (
            f"the map is unlike the {self.samples} training maps it was compared with, so the "
            f"prediction is an extrapolation; outside their range: {', '.join(said)}"
        )


def _outside(values: Float, ends: Float) -> NDArray[np.bool_]:
    low, high = ends
    slack = BEYOND * (high - low)
    return np.asarray((values < low - slack) | (values > high + slack))


@dataclass(frozen=True)
class TrainingMaps:
    """What is known of the maps that a network was trained on."""

    seen: Seen | None
    """None where they were not asked for, or cannot be made here."""
    volume_Mpc3: float
    """Comoving volume of the field [Mpc^3], in the cosmology of the first training lightcone."""
    Omega_m: float = 0.286
    """Matter density of the first training lightcone."""
    h: float = 0.7
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

    def training_maps(
        self,
        training: Callable[[], Generator],
        *,
        samples: int,
        cosmology: bool,
        again: bool = False,
        progress: Progress = SILENT,
    ) -> tuple[TrainingMaps, list[str]]:
        """The training maps, measured where they are not kept; with a sentence for each thing that
        could not be.

        training: opens a generator of the run's training samples; samples: maps to look at, 0:
        none; cosmology: whether volume and distances of the field matter; again: look anew.
        """
        seen = self.data.get("seen")
        known = not again and isinstance(seen, Mapping) and seen.get("samples") == samples
        problems = []
        failed = ""
        if samples and not known:
            failed = "the map was not compared with training maps"
        elif cosmology and "cosmology" not in self.data:
            failed = "volume and distances are those of Omega_m = 0.286"
        if failed:
            try:
                self.data.update(_measured(training, samples, progress))
                known = True
            except (ValueError, OSError) as error:
                problems.append(f"{failed}: {error}")
        found = {
            name: float(value)
            for name, value in dict(self.data.get("cosmology", {})).items()
            if name in ("Omega_m", "h")
        }
        volume = self.data.get("volume_Mpc3")  # files of before have no cosmology beside it
        if volume is None:
            volume = self.config.grid.volume_Mpc3(**found)
        here = Seen.from_dict(self.data["seen"]) if samples and known else None
        return TrainingMaps(here, float(volume), **found), problems

    def save(self) -> None:
        """Write the file, if anything is new, and the folder may be written into."""
        if self.data != self._before:
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
            for name in ("seen", "volume_Mpc3", "cosmology"):
                kept.pop(name, None)
        return kept

    def _identity(self) -> dict[str, Any]:
        """The settings and the generator that the training maps are of."""
        return {
            "samples": sha256_of(self.config.sample_settings()),
            "generator_version": GENERATOR_VERSION,
        }


def _measured(
    training: Callable[[], Generator], samples: int, progress: Progress
) -> dict[str, Any]:
    with contextlib.closing(training()) as generator:
        cosmology = {name: generator.skies.cosmologies[0][name] for name in ("Omega_m", "h")}
        volume = generator.grid.volume_Mpc3(**cosmology)
        parts = []
        for start in range(0, samples, testset.BATCH_SIZE):
            stop = min(start + testset.BATCH_SIZE, samples)
            batch = generator.generate(range(start, stop))
            batch.check()
            parts.append(statistics(batch.cube))
            progress.update(f"training maps: {stop}/{samples}")
    found = {"volume_Mpc3": volume, "cosmology": cosmology}
    return found | ({"seen": Seen.of(parts).to_dict()} if parts else {})
