"""The plainest predictors: always the mean of the training labels, or of the test labels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from streamtrain.evaluate import testset
from streamtrain.evaluate.bootstrap import Bootstrap
from streamtrain.evaluate.metrics import Float
from streamtrain.generator.generator import Generator
from streamtrain.progress import Progress

MEAN_LABEL_SAMPLES = 512
"""Samples of the split "train", from index 0, whose mean label is the reference."""


@dataclass(frozen=True)
class Reference:
    """One answer for every map."""

    mean: Float
    """Mean log10 of the count [num_bins], or the frequencies of the classes [num_classes]."""
    mean_error: Float
    """Standard error of it, over skies where there are enough (see `Bootstrap.choose`)."""
    rate: Float
    """Mean count [num_bins], the constant of least deviance."""
    rate_error: Float

    @classmethod
    def of(cls, labels: Float, counts: Float, skies: Sequence[str]) -> Reference:
        """The mean of some samples. labels: log10 of the count, or one-hot classes; counts
        [num_samples, num_bins]; skies: what each was cut from [num_samples]."""
        bootstrap = Bootstrap.choose(skies)

        def error(values: Float) -> Float:
            return np.array([bootstrap.mean(column) or 0.0 for column in values.T])

        return cls(labels.mean(axis=0), error(labels), counts.mean(axis=0), error(counts))

    @classmethod
    def kept(cls, evaluation: Path) -> Reference | None:
        """That of the training samples from a run's evaluation.json; None where there is none, or
        the label is a class."""
        try:
            data = json.loads(evaluation.read_text(encoding="utf-8"))
            names = ("log10_dN", "log10_dN_error", "dN", "dN_error")
            rows = [np.array(data[f"mean_label_{name}"], np.float64) for name in names]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return cls(*rows)


def mean_label(generator: Generator, progress: Progress | None = None) -> Reference:
    """The mean of the first training samples. generator: of the split "train"."""
    label, labels, counts = generator.label, [], []
    skies: list[str] = []
    for start in range(0, MEAN_LABEL_SAMPLES, testset.BATCH_SIZE):
        batch = generator.generate(range(start, start + testset.BATCH_SIZE))
        batch.check()
        values = batch.label.double()
        if label.is_class:
            counts.append(values.cpu().numpy())
        else:
            values = label.log10_counts(values, batch.one_halo)
            occupied = label.occupied(batch.label, batch.counts).cpu().numpy()
            counts.append(np.where(occupied, 10.0 ** values.cpu().numpy(), 0.0))
        labels.append(values.cpu().numpy())
        skies += [draw["lightcone"] for draw in batch.draws]
        if progress is not None:
            progress.update(
                f"mean training label: {start + testset.BATCH_SIZE}/{MEAN_LABEL_SAMPLES} samples"
            )
    return Reference.of(np.concatenate(labels), np.concatenate(counts), skies)
