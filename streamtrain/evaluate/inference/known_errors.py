"""What a prediction for a user's map is set against: the network's training field and its errors.

Both are measured once and kept in the run folder, infer_reference.json. Errors that the run has,
there or in evaluation.json, are used whatever step they were measured at, and their age is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.evaluate.inference.training_field import FILE, Kept, TrainingField
from streamtrain.evaluate.predictions import Predictions, predict
from streamtrain.evaluate.run import Run
from streamtrain.generator.generator import GENERATOR_VERSION
from streamtrain.ranks import INTERVAL_ENDS

Float = NDArray[np.float64]

EVALUATION = "evaluation.json"


@dataclass(frozen=True)
class Errors:
    """The errors of a network on its test set."""

    residuals: Float
    """Quantiles of predicted minus true log10 count at `INTERVAL_ENDS`, [4, num_bins]."""
    test_samples: int
    step: int
    """Step of the checkpoint that the errors were measured with."""
    generator_version: int
    """Version of the generator that made the test set."""
    source: str
    """Name of the file in the run folder."""
    weights_sha256: str | None = None
    """sha256 of the weights that they were measured with; None in files of before."""

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

    def of_another(self, step: int, weights_sha256: str) -> bool:
        """Whether they are of another training, whose checkpoint had the same step."""
        return self.step == step and self.weights_sha256 not in (None, weights_sha256)

    def outdated(self, step: int) -> bool:
        """Whether they are not those of this step and version."""
        return self.step != step or self.generator_version != GENERATOR_VERSION


@dataclass(frozen=True)
class ErrorReference:
    """What the predictions of one network are set against."""

    training: TrainingField
    errors: Errors | None
    """None if they are not needed, or cannot be made here."""
    problems: tuple[str, ...] = ()
    """What could not be measured and why, a sentence each."""


class Measurement:
    """Measures, or finds, the reference of a run's newest checkpoint; again: measure what the run
    has, too."""

    def __init__(self, run: Run, *, again: bool = False) -> None:
        self.run, self.again = run, again

    def get(self, residuals: bool, cosmology: bool = False) -> ErrorReference:
        """The reference; residuals: whether the errors on the test set are needed; cosmology:
        whether that of the training lightcones is."""
        kept = Kept(self.run.config)
        training, problems = kept.field(self.run.training, cosmology=cosmology, again=self.again)
        errors = None
        if residuals:
            errors = None if self.again else self._errors(kept.data)
            if errors is None:
                try:
                    kept.data.update(self._test())
                except (ValueError, OSError) as error:
                    problems.append(f"the prediction has no uncertainty: {error}")
                errors = _errors_of(kept.data, self._num_bins, FILE)
        kept.save()
        return ErrorReference(training, errors, tuple(problems))

    @property
    def _num_bins(self) -> int:
        return self.run.config.label.luminosity_bins.num

    def _errors(self, kept: Mapping[str, Any]) -> Errors | None:
        """The newest that the run has, but for those of a training before it in this folder."""
        trained = self.run.trained
        found = [_errors_of(kept, self._num_bins, FILE), self._evaluated()]
        here = [
            errors
            for errors in found
            if errors and not errors.of_another(trained.step, trained.weights_sha256)
        ]
        return max(here, key=lambda e: (e.generator_version, e.step)) if here else None

    def _evaluated(self) -> Errors | None:
        """Those of the run's evaluation."""
        data = self.run.evaluation or {}
        try:
            kept = {
                "residuals": [data["residuals"][f"{100 * level:g}"] for level in INTERVAL_ENDS],
                "test_samples": data["test_set"]["samples"],
                "checkpoint_step": data["checkpoint_step"],
                "generator_version": data["test_set"]["generator_version"],
                "weights_sha256": data.get("weights_sha256"),
            }
        except (KeyError, TypeError):
            return None
        return _errors_of(kept, self._num_bins, EVALUATION)

    def _test(self) -> dict[str, Any]:
        manifest, generator = self.run.test_set()
        predictions = predict(self.run.network(generator), manifest, generator, self.run.progress)
        generator.close()
        assert isinstance(predictions, Predictions)
        quantiles = np.quantile(predictions.predicted - predictions.true, INTERVAL_ENDS, axis=0)
        return {
            "residuals": quantiles.tolist(),
            "test_samples": len(predictions.true),
            "checkpoint_step": self.run.trained.step,
            "generator_version": GENERATOR_VERSION,
            "weights_sha256": self.run.trained.weights_sha256,
        }


def _errors_of(kept: Mapping[str, Any], num_bins: int, source: str) -> Errors | None:
    """Errors from plain data; None where there are none of these bins."""
    try:
        residuals = np.array(kept["residuals"], np.float64)
        names = ("test_samples", "checkpoint_step", "generator_version")
        test_samples, step, version = (int(kept[name]) for name in names)
        if residuals.shape != (len(INTERVAL_ENDS), num_bins) or not np.isfinite(residuals).all():
            return None
        weights = kept.get("weights_sha256")
        weights = weights if isinstance(weights, str) else None
        return Errors(residuals, test_samples, step, version, source, weights)
    except (ValueError, KeyError, TypeError):
        return None
