"""How well a network tells luminosity models apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamtrain.evaluate.bootstrap import Bootstrap, Float

CHANCE_FLOOR = 1e-30
"""Floor of the probability that a predictor gives to the truth."""


@dataclass(frozen=True)
class ClassScore:
    """Errors of one classifier; standard errors come from a bootstrap over maps."""

    accuracy: float
    """Share of the maps whose most probable class is the true one."""
    accuracy_error: float | None
    cross_entropy: float
    """Mean of -ln(probability of the true class) [nat]."""
    cross_entropy_error: float | None
    confusion: list[list[int]]
    """Maps of each true class (row) and predicted class (column)."""
    confusion_error: list[list[float]] | None


def score_classes(
    chances: Float, true: NDArray[np.int64], bootstrap: Bootstrap | None = None
) -> ClassScore:
    """Statistics of a classifier on a test set.

    chances: probability of each class, [num_samples, num_classes], or one row [num_classes], the
    same answer for every map; true: number of each map's class [num_samples]. bootstrap: makes the
    errors; default: over maps.
    """
    num_classes = chances.shape[-1]
    rows = np.broadcast_to(chances, (len(true), num_classes))
    predicted = rows.argmax(axis=1)
    right = (predicted == true).astype(np.float64)
    surprise = -np.log(np.maximum(rows[np.arange(len(true)), true], CHANCE_FLOOR))
    bootstrap = bootstrap or Bootstrap.of_maps(len(true))
    confusion = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(confusion, (true, predicted), 1)
    errors = [
        [
            len(true) * (bootstrap.mean(((true == row) & (predicted == column)) * 1.0) or 0.0)
            for column in range(num_classes)
        ]
        for row in range(num_classes)
    ]
    return ClassScore(
        accuracy=float(right.mean()),
        accuracy_error=bootstrap.mean(right),
        cross_entropy=float(surprise.mean()),
        cross_entropy_error=bootstrap.mean(surprise),
        confusion=confusion.tolist(),
        confusion_error=errors if bootstrap.num_blocks > 1 else None,
    )
