"""How well a network tells luminosity models apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamtrain.evaluate.metrics import Float, bootstrap_error

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


def score_classes(chances: Float, true: NDArray[np.int64], seed: int = 0) -> ClassScore:
    """Statistics of a classifier on a test set.

    chances: probability of each class, [num_samples, num_classes], or one row [num_classes], the
    same answer for every map; true: number of each map's class [num_samples].
    """
    num_classes = chances.shape[-1]
    rows = np.broadcast_to(chances, (len(true), num_classes))
    predicted = rows.argmax(axis=1)
    right = (predicted == true).astype(np.float64)
    surprise = -np.log(np.maximum(rows[np.arange(len(true)), true], CHANCE_FLOOR))
    once = np.ones(len(true))
    confusion = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(confusion, (true, predicted), 1)
    return ClassScore(
        accuracy=float(right.mean()),
        accuracy_error=bootstrap_error(right, once, seed, root=False),
        cross_entropy=float(surprise.mean()),
        cross_entropy_error=bootstrap_error(surprise, once, seed, root=False),
        confusion=confusion.tolist(),
    )
