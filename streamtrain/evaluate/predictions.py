"""What a network predicts for the maps of a test set, beside the truth.

run/predictions.npz keeps, beside a run's evaluation, what `predict` returns: log10 of the predicted
and true counts, which bins are occupied, the sky of each map, and which checkpoint and manifest
they belong to. It is made again where that is not the evaluation's.
"""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamtrain.evaluate import testset
from streamtrain.evaluate.alarm.watch import Watch
from streamtrain.evaluate.bootstrap import Float
from streamtrain.evaluate.parameter_scores import ParameterPredictions, PosteriorOf, together
from streamtrain.evaluate.run import Run
from streamtrain.evaluate.scores import Bool
from streamtrain.generator.batch import Batch
from streamtrain.generator.generator import Generator
from streamtrain.labels import Label
from streamtrain.machine.files import sha256_of, writing
from streamtrain.machine.progress import SILENT, Progress
from streamtrain.networks.heads import Head
from streamtrain.networks.network import Network, point_of
from streamtrain.ranks import INTERVAL_ENDS
from streamtrain.shipped import is_shipped


@dataclass(frozen=True)
class Predictions:
    """What a network predicts and the truth: log10 of counts, float64 [num_samples, num_bins]."""

    predicted: Float
    true: Float
    occupied: Bool
    """Where the count is at least 1, [num_samples, num_bins]."""
    bin_edges: Float
    """log10(L/Lsun), [num_bins + 1]."""
    unit: Float | None = None
    """What one halo is worth in the label's quantity, [num_samples, num_bins]; None: one."""
    rates: Float | None = None
    """Predicted number of halos, which may lie below one; None: 10^predicted."""
    halos: Float | None = None
    """Halos per luminosity bin, whatever the label is of; None: the rounded truth."""
    skies: list[str] | None = None
    """The sky that each map was cut from [num_samples]; None: one for each map."""
    quantiles: Float | None = None
    """Quantiles of log10 of the count at `INTERVAL_ENDS`, [4, num_samples, num_bins]; None where
    the head has none."""
    alarm: Float | None = None
    """p-value of each map's alarm [num_samples]; None where the run has no reference for one."""

    @property
    def rate(self) -> Float:
        """Predicted number of halos [num_samples, num_bins]."""
        return 10.0**self.predicted if self.rates is None else self.rates

    @property
    def count(self) -> Float:
        """True number of halos, of the label's quantity [num_samples, num_bins]."""
        return np.where(self.occupied, np.rint(10.0**self.true), 0.0)

    @property
    def halos_per_bin(self) -> Float:
        """`halos`, or else `count`."""
        return self.count if self.halos is None else self.halos


@dataclass(frozen=True)
class ClassPredictions:
    """A network's predictions and the truth, where the label is a class."""

    chances: Float
    """Probability of each class, [num_samples, num_classes]."""
    true: NDArray[np.int64]
    """Number of the class [num_samples]."""
    classes: list[str]
    skies: list[str] | None = None
    """The sky that each map was cut from [num_samples]."""
    alarm: Float | None = None
    """p-value of each map's alarm [num_samples]; None where the run has no reference for one."""


AnyPredictions: TypeAlias = Predictions | ClassPredictions | ParameterPredictions


def predict(
    network: Network,
    manifest: testset.Manifest,
    generator: Generator,
    progress: Progress = SILENT,
    watch: Watch | None = None,
) -> AnyPredictions:
    """Make the test set again, compare each sample with the manifest, and let the network predict.

    watch: finds the alarms of the maps. Raises ValueError at the first sample that differs, or if a
    prediction is not finite.
    """
    batches = testset.compared(manifest, generator)
    count = manifest.count
    return predict_batches(network, generator, batches, count, "evaluating", progress, watch)


def predict_batches(
    network: Network,
    generator: Generator,
    batches: Iterable[tuple[list[int], Batch]],
    count: int,
    doing: str,
    progress: Progress = SILENT,
    watch: Watch | None = None,
) -> AnyPredictions:
    """A network's predictions for the samples of some batches, `count` in all.

    batches: (indices, batch) of `generator`; doing: for the progress line; watch: finds the alarms
    of the maps. Raises ValueError if a prediction is not finite.
    """
    label, parts, done = generator.label, [], 0
    posterior = PosteriorOf(generator) if label.is_parameters else None
    skies: list[str] = []
    alarms: list[Float] = []
    for indices, batch in batches:
        output, point = point_of(network, batch.cube, batch.unit_label)
        with torch.inference_mode():
            if posterior is not None:
                parts.append(posterior.part(network.head, batch, output))
            elif label.is_class:
                parts.append(_class_part(batch, point))
            else:
                parts.append(_part(network.head, label, batch, output, point))
        skies += testset.skies_of(generator, batch)
        if watch is not None:
            alarms.append(watch.p_values(batch.cube))
        done += len(indices)
        progress.count(doing, done, count, "samples")
    alarm = np.concatenate(alarms) if alarms else None
    if posterior is not None:
        return replace(together(parts, posterior, label, skies), alarm=alarm)
    whole: dict[str, Any] = {
        name: np.concatenate([part[name] for part in parts], axis=-2 if name != "classes" else 0)
        for name in parts[0]
    }
    if label.is_class:
        return ClassPredictions(whole["chances"], whole["classes"], label.classes, skies, alarm)
    return Predictions(**whole, bin_edges=generator.bin_edges, skies=skies, alarm=alarm)


def _part(
    head: Head, label: Label, batch: Batch, output: Tensor, point: Tensor
) -> dict[str, NDArray[Any]]:
    """Fields of `Predictions` for a batch, [B, num_bins] each."""
    predicted, true = (
        label.log10_counts(values, batch.unit_label).cpu().numpy()
        for values in (point, batch.label)
    )
    part: dict[str, NDArray[Any]] = {
        "predicted": predicted,
        "true": true,
        "occupied": label.occupied(batch.label, batch.counts).cpu().numpy(),
        "rates": head.rate(output, batch.unit_label.to(output.device)).cpu().numpy(),
        "halos": batch.counts.double().cpu().numpy(),
    }
    unit = label.unit_of(batch.unit_label)
    if unit is not None:
        part["unit"] = np.broadcast_to(unit, true.shape)
    quantiles = head.spread(output, batch.unit_label.to(output.device), INTERVAL_ENDS)
    if quantiles is not None:
        part["quantiles"] = np.stack(
            [label.log10_counts(row, batch.unit_label).cpu().numpy() for row in quantiles]
        )
    return part


def _class_part(batch: Batch, point: Tensor) -> dict[str, NDArray[Any]]:
    """Probabilities [B, num_classes] and true classes [B] of a batch."""
    chances = point.double().softmax(dim=1)
    return {
        "chances": chances.cpu().numpy(),
        "classes": batch.label.argmax(dim=1).cpu().numpy(),
    }


FILE = "predictions.npz"


def predictions_of(run: Run) -> Predictions:
    """The predictions that the evaluation of a run is of.

    run: with an evaluation and a manifest, of a function of luminosity. Raises ValueError, one
    sentence, if they cannot be made here (lightcones or checkpoint missing, or another one).
    """
    assert run.evaluation is not None
    step, digest = run.evaluation["checkpoint_step"], run.evaluation["test_set"]["manifest_sha256"]
    moved, file = run.evaluation.get("recalibration"), run.folder / FILE
    weights = run.evaluation.get("weights_sha256")  # evaluations of before have none
    which = [step, digest, *([sha256_of(moved)] if moved else []), *([weights] if weights else [])]
    key = json.dumps(which)
    found = _load(file, key)
    if found is not None:
        return found
    if run.trained.step != step:
        raise ValueError(
            f"its newest checkpoint is of step {run.trained.step}, its evaluation of step {step}"
        )
    if weights not in (None, run.trained.weights_sha256):
        raise ValueError(
            "its evaluation is of another training than its newest checkpoint: `streamtrain "
            "evaluate` makes it again"
        )
    if run.trained.applied.record() != moved:
        raise ValueError(
            "its evaluation is of another recalibration than the run has now: "
            "`streamtrain evaluate` makes it again"
        )
    manifest, generator = run.reopened(testset.default_path(run.config))
    made = predict(run.network(generator), manifest, generator, run.progress)
    assert isinstance(made, Predictions)
    if not is_shipped(run.folder):
        with contextlib.suppress(OSError):  # it only saves time
            _save(file, key, made)
    return made


def _save(file: Path, key: str, predictions: Predictions) -> None:
    unit = np.ones(0) if predictions.unit is None else predictions.unit
    with writing(file) as part, part.open("wb") as stream:
        np.savez_compressed(
            stream,
            key=np.array(key),
            predicted=predictions.predicted,
            true=predictions.true,
            occupied=predictions.occupied,
            bin_edges=predictions.bin_edges,
            unit=unit,
            skies=np.array(predictions.skies or [], str),
        )


def _load(file: Path, key: str) -> Predictions | None:
    try:
        with np.load(file) as data:
            if str(data["key"]) != key:
                return None
            unit = data["unit"]
            return Predictions(
                data["predicted"],
                data["true"],
                data["occupied"],
                data["bin_edges"],
                unit if unit.size else None,
                skies=data["skies"].tolist() or None,
            )
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
