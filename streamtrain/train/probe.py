"""Whether the network looks at the map at all.

A network that has learned the mean label, or that reads its prediction off something else than the
sky, can have a small loss. Two numbers show it: what it predicts for maps without a halo, and how
much larger its error is when the maps are exchanged among the samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

F64 = NDArray[np.float64]

SMALLEST_SKILL = 0.1
"""Skill below which predictions are said to depend hardly at all on the maps."""
LARGEST_EXPONENT = 700.0
"""The largest x whose e^x is sure to be a number of float64."""


@dataclass(frozen=True)
class Dependence:
    """How far a network's predictions depend on the maps."""

    skill: float
    """1 - e / e', where e is the mean squared error [dex^2] and e' the one with the maps exchanged
    among the samples: 0 for predictions that do not depend on the map, 1 for perfect ones. Where
    the label is a class, e is the share of wrong predictions. Where it is parameters, 1 - e^(-2 I)
    of the information I over the prior, which for one normal parameter is the same."""
    blank_dex: float | None = None
    """rms over bins of the mean prediction for maps without a halo minus the mean prediction [dex];
    None where the label is no function of luminosity."""
    information: float | None = None
    """Information that a posterior of parameters has over their prior [nat]; None for other
    labels."""

    @classmethod
    def of_information(cls, information: float) -> Dependence:
        """The dependence of a posterior with so much information over the prior [nat]."""
        return cls(-math.expm1(min(-2.0 * information, LARGEST_EXPONENT)), information=information)

    @property
    def problem(self) -> str:
        """A sentence if the predictions hardly depend on the maps, else nothing."""
        if self.skill >= SMALLEST_SKILL:
            return ""
        if self.information is not None:
            return (
                "the network's posterior hardly differs from the prior: on the validation samples "
                f"it has {self.information:.2g} nat of information"
            )
        blank = ""
        if self.blank_dex is not None:
            blank = (
                f", and maps without a halo change the mean prediction by {self.blank_dex:.2g} dex"
            )
        return (
            "the network's predictions hardly depend on the maps: with the maps exchanged among "
            f"the validation samples its errors grow by a factor of {1 / (1 - self.skill):.3g} only"
            f"{blank}"
        )


def pair_sums(predicted: Tensor, true: Tensor) -> Tensor:
    """What `skill` needs of a batch, to be added up: float64 [6, num_bins].

    predicted, true: log10 of the count [B, num_bins].
    """
    number = torch.full_like(true, 1.0)
    rows = (predicted, predicted**2, true, true**2, predicted * true, number)
    return torch.stack([row.double().sum(0) for row in rows])


def skill(sums: F64) -> float:
    """`Dependence.skill` of functions of luminosity, from added-up `pair_sums` [6, num_bins].

    The error with exchanged maps is the mean over all pairs of two different samples.
    """
    p, pp, t, tt, pt, number = sums
    n = float(number[0])
    right = float((pp + tt - 2.0 * pt).sum())
    if n < 2:
        return 0.0
    every = float((n * (pp + tt) - 2.0 * p * t).sum())
    exchanged = (every - right) / (n - 1.0)
    return 1.0 - right / exchanged if exchanged > 0.0 else 0.0


def class_skill(confusion: F64) -> float:
    """Skill of a classifier: 1 - (error / error with the maps exchanged among the samples).
    confusion: samples by true and predicted class."""
    n = float(confusion.sum())
    if n < 2:
        return 0.0
    right = float(np.trace(confusion))
    every = float(confusion.sum(axis=1) @ confusion.sum(axis=0))
    wrong, wrong_exchanged = 1.0 - right / n, 1.0 - (every - right) / (n * (n - 1.0))
    return 1.0 - wrong / wrong_exchanged if wrong_exchanged > 0.0 else 0.0
