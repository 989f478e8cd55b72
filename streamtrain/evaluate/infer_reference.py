"""What a prediction for a user's map is set against: the network's training maps and its errors.

Both are measured once and kept in the run folder, infer_reference.json. Errors that the run has,
there or in evaluation.json, are used whatever step they were measured at, and their age is said.

`Seen` says whether a map looks like the maps that a network was trained on. A network predicts
something for any map. For a map unlike all it has seen that is an extrapolation, so a few plain
statistics of the map, as the network takes it, are compared with those of training samples.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from streamtrain.evaluate import testset
from streamtrain.evaluate.predictions import Predictions, predict
from streamtrain.evaluate.run import Run
from streamtrain.generator.generator import GENERATOR_VERSION
from streamtrain.labels import LuminosityBins
from streamtrain.machine.files import sha256_of, write_json

Float = NDArray[np.float64]

FILE = "infer_reference.json"
EVALUATION = "evaluation.json"
LEVELS = (0.025, 0.16, 0.84, 0.975)
"""Probabilities of the ends of a 95 % and a 68 % interval."""


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
class Errors:
    """The errors of a network on its test set."""

    residuals: Float
    """Quantiles of predicted minus true log10 count at `LEVELS`, [4, num_bins]."""
    test_samples: int
    step: int
    """Step of the checkpoint that the errors were measured with."""
    generator_version: int
    """Version of the generator that made the test set."""
    source: str
    """Name of the file in the run folder."""

    def age(self, step: int) -> str:
        """When they were measured, for a network of a step, in words."""
        steps = step - self.step
        when = f"the checkpoint of step {self.step}"
        if steps:
            far = f"{abs(steps)} steps {'earlier' if steps > 0 else 'later'}"
            when += f", {far} than the one that predicts"
        old = self.generator_version
        if old != GENERATOR_VERSION:
            when += f", by generator version {old} (this is version {GENERATOR_VERSION})"
        return f"{self.source}, measured with {when}"

    def outdated(self, step: int) -> bool:
        """Whether they are not those of this step and version."""
        return self.step != step or self.generator_version != GENERATOR_VERSION


@dataclass(frozen=True)
class ErrorReference:
    """What the predictions of one network are set against."""

    seen: Seen | None
    """Statistics of training maps; None where they cannot be made here."""
    errors: Errors | None
    """None if they are not needed, or cannot be made here."""
    volume_Mpc3: float
    """Comoving volume of the field [Mpc^3], in the cosmology of the first training lightcone."""
    problems: tuple[str, ...] = ()
    """What could not be measured and why, a sentence each."""


class Measurement:
    """Measures, or finds, the reference of a run's newest checkpoint.

    samples: training maps to look at; 0: none. again: measure what the run has, too.
    """

    def __init__(self, run: Run, *, samples: int, again: bool = False) -> None:
        self.run, self.samples, self.again = run, samples, again
        self.path = run.folder / FILE

    def get(self, residuals: bool) -> ErrorReference:
        """The reference; residuals: whether the errors on the test set are needed."""
        kept = self._kept()
        seen = None if self.again else kept.get("seen")
        if not (isinstance(seen, Mapping) and seen.get("samples") == self.samples):
            kept.pop("seen", None)
        before = dict(kept)
        problems: list[str] = []
        if "seen" not in kept and self.samples:
            self._try(kept, self._training, "the map was not compared with training maps", problems)
        elif "volume_Mpc3" not in kept and self.run.config.label.quantity in ("phi", "phi_L"):
            self._try(kept, self._training, "the field has the volume of Omega_m = 0.286", problems)
        errors = None
        if residuals:
            errors = None if self.again else self._errors(kept)
            if errors is None:
                self._try(kept, self._test, "the prediction has no uncertainty", problems)
                errors = _errors_of(kept, self._num_bins, FILE)
        if kept != before:
            self._keep(kept)
        volume = kept.get("volume_Mpc3")
        if volume is None:
            volume = self.run.config.grid.volume_Mpc3()
        return ErrorReference(
            Seen.from_dict(kept["seen"]) if "seen" in kept and self.samples else None,
            errors,
            float(volume),
            tuple(problems),
        )

    @property
    def _num_bins(self) -> int:
        return LuminosityBins.of(self.run.config.label).num

    def _errors(self, kept: Mapping[str, Any]) -> Errors | None:
        """The newest that the run has."""
        found = [_errors_of(kept, self._num_bins, FILE), self._evaluated()]
        here = [errors for errors in found if errors is not None]
        return max(here, key=lambda e: (e.generator_version, e.step)) if here else None

    def _evaluated(self) -> Errors | None:
        """Those of the run's evaluation."""
        data = self.run.evaluation or {}
        try:
            kept = {
                "residuals": [data["residuals"][f"{100 * level:g}"] for level in LEVELS],
                "test_samples": data["test_set"]["samples"],
                "checkpoint_step": data["checkpoint_step"],
                "generator_version": data["test_set"]["generator_version"],
            }
        except (KeyError, TypeError):
            return None
        return _errors_of(kept, self._num_bins, EVALUATION)

    def _try(self, kept: dict[str, Any], measure: Any, failed: str, problems: list[str]) -> None:
        try:
            kept.update(measure())
        except (ValueError, OSError) as error:
            problems.append(f"{failed}: {error}")

    def _training(self) -> dict[str, Any]:
        with contextlib.closing(self.run.training()) as generator:
            cosmology = generator.skies.cosmologies[0]
            volume = generator.grid.volume_Mpc3(cosmology["Omega_m"], cosmology["h"])
            parts = []
            for start in range(0, self.samples, testset.BATCH_SIZE):
                stop = min(start + testset.BATCH_SIZE, self.samples)
                batch = generator.generate(range(start, stop))
                batch.check()
                parts.append(statistics(batch.cube))
                self.run.progress.update(f"training maps: {stop}/{self.samples}")
        return {"volume_Mpc3": volume} | ({"seen": Seen.of(parts).to_dict()} if parts else {})

    def _test(self) -> dict[str, Any]:
        manifest, generator = self.run.test_set()
        predictions = predict(self.run.network(generator), manifest, generator, self.run.progress)
        generator.close()
        assert isinstance(predictions, Predictions)
        quantiles = np.quantile(predictions.predicted - predictions.true, LEVELS, axis=0)
        return {
            "residuals": quantiles.tolist(),
            "test_samples": len(predictions.true),
            "checkpoint_step": self.run.trained.step,
            "generator_version": GENERATOR_VERSION,
        }

    def _kept(self) -> dict[str, Any]:
        """What infer_reference.json holds; training maps and field only if they are this run's."""
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
            for name in ("seen", "volume_Mpc3"):
                kept.pop(name, None)
        return kept

    def _identity(self) -> dict[str, Any]:
        """Of the training maps."""
        return {
            "samples": sha256_of(self.run.config.sample_settings()),
            "generator_version": GENERATOR_VERSION,
        }

    def _keep(self, kept: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # a folder that may only be read
            write_json(self.path, {**kept, "of": self._identity()})


def _errors_of(kept: Mapping[str, Any], num_bins: int, source: str) -> Errors | None:
    """Errors from plain data; None where there are none of these bins."""
    try:
        residuals = np.array(kept["residuals"], np.float64)
        names = ("test_samples", "checkpoint_step", "generator_version")
        test_samples, step, version = (int(kept[name]) for name in names)
        if residuals.shape != (len(LEVELS), num_bins) or not np.isfinite(residuals).all():
            return None
        return Errors(residuals, test_samples, step, version, source)
    except (ValueError, KeyError, TypeError):
        return None
