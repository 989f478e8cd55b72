"""Normal scores of a luminosity model's parameters: what a label of parameters is made of.

A parameter's score is Phi^-1(F(value)), with F the distribution function of its prior and Phi that
of a standard normal: in the prior every score is standard normal, and every number is the score of
a value that the prior allows, so that no posterior leaks beyond it. Where a parameter is exactly
one value with a probability (`Sometimes`), F jumps there, and the score is drawn evenly from the
jump: the distributional transform (Rueschendorf 2009), with a random number of the sample's own.
Parameters of a multivariate normal are first made independent by the inverse of its Cholesky
factor. The bounds of a normal distribution are part of F. Other conditions on a draw (a constraint,
`emit.line.require`) are not: they leave a part of the scores' space empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from streamtrain.labels import LabelConfig, ModelParameters
from streamtrain.luminosity.mixture import Mixture
from streamtrain.luminosity.settings import LineConfig
from streamtrain.numerics import portable
from streamtrain.numerics.rng import Draws
from streamtrain.priors import (
    Distribution,
    Fixed,
    Normal,
    Parameters,
    Prior,
    Sometimes,
    Uniform,
)

Float = NDArray[np.float64]

FIRST_SCORE = 1 << 21
"""First element of the random numbers that place a score in a jump, beyond those of all draws."""
SMALLEST = 2.0**-53
"""Smallest probability that a draw has; it keeps scores finite, within +-8.2."""
LARGEST = -float(ndtri(SMALLEST))
"""Scores beyond are taken for that, so that no value is infinite."""


@dataclass(frozen=True)
class _Coordinate:
    """One parameter with a distribution of its own."""

    prior: Normal | Uniform
    scale: float
    probability: float = 0.0
    """Of the value `at`, among the draws within bounds."""
    at: float = 0.0

    @classmethod
    def of(cls, given: Distribution, scale: float) -> _Coordinate | None:
        """None for a parameter that is always the same."""
        if isinstance(given, Fixed):
            return None
        if not isinstance(given, Sometimes):
            made = cls(given, scale)
            return made if made._width else None
        made = cls(given.otherwise, scale)
        if not made._width and made._centre == given.value:
            return None
        p = given.probability
        return cls(given.otherwise, scale, p / (p + (1.0 - p) * made._mass), given.value)

    @property
    def _ends(self) -> tuple[float, float]:
        """Of a uniform distribution, its logarithm's where that is uniform."""
        assert isinstance(self.prior, Uniform)
        low, high = self.prior.low, self.prior.high
        return (
            (float(portable.log2(low)), float(portable.log2(high)))
            if self.prior.log
            else (low, high)
        )

    @property
    def _centre(self) -> float:
        if isinstance(self.prior, Normal):
            return self.prior.mean
        low, high = self._ends
        return float(portable.exp2(0.5 * (low + high))) if self.prior.log else 0.5 * (low + high)

    @property
    def _width(self) -> float:
        """Standard deviation, or length; 0: one value alone is drawn."""
        if isinstance(self.prior, Normal):
            return self.scale * self.prior.width
        low, high = self._ends
        return self.scale * (high - low)

    @property
    def _bounds(self) -> tuple[float, float]:
        """Of a normal distribution, in its standard deviations."""
        assert isinstance(self.prior, Normal)
        low, high = (
            (end - self.prior.mean) / self._width for end in (self.prior.low, self.prior.high)
        )
        return low, high

    @property
    def _mass(self) -> float:
        """Probability of a draw from `prior` to lie within its bounds."""
        if isinstance(self.prior, Uniform) or not self._width:
            return 1.0
        low, high = self._bounds
        return float(ndtr(high) - ndtr(low) if low < 0.0 else ndtr(-low) - ndtr(-high))

    def within_bounds(self, given: Distribution) -> float:
        """Probability of a draw from the whole distribution to lie within its bounds."""
        p = given.probability if isinstance(given, Sometimes) else 0.0
        return p + (1.0 - p) * self._mass

    def _tails(self, values: Float, uniform: Float) -> tuple[Float, Float]:
        """Probabilities of less and of more than a value, in `prior` within its bounds."""
        if not self._width:
            below = np.where(values == self.at, float(self.at > self._centre), uniform)
            return below, 1.0 - below
        if isinstance(self.prior, Uniform):
            low, high = self._ends
            x = portable.log2(values) if self.prior.log else values
            with np.errstate(invalid="ignore"):
                place = (x - 0.5 * (low + high)) / self._width
            below = np.clip(place + 0.5, 0.0, 1.0)
            return below, np.clip(0.5 - place, 0.0, 1.0)
        low, high = self._bounds
        x = np.clip((values - self.prior.mean) / self._width, low, high)
        return (ndtr(x) - ndtr(low)) / self._mass, (ndtr(-x) - ndtr(-high)) / self._mass

    def score(self, values: Float, uniform: Float) -> Float:
        """Scores [...] of values [...]; uniform: where in the jump [...]."""
        p = self.probability
        if p and isinstance(self.prior, Uniform) and self.prior.log:
            # the value that it sometimes is may have no logarithm
            smallest = np.finfo(np.float64).tiny
            below, above = self._tails(np.maximum(values, smallest), uniform)
        else:
            below, above = self._tails(values, uniform)
        jumped = np.where(values == self.at, uniform, values > self.at)
        below, above = (1.0 - p) * below + p * jumped, (1.0 - p) * above + p * (1.0 - jumped)
        below, above = np.maximum(below, SMALLEST), np.maximum(above, SMALLEST)
        return np.where(below < above, ndtri(below), -ndtri(above))

    def value(self, scores: Float) -> Float:
        """Values [...] of scores [...]."""
        held = np.clip(scores, -LARGEST, LARGEST)
        below, above, p = ndtr(held), ndtr(-held), self.probability
        if not p:
            return self._quantile(below, above)
        before = np.array(self.at)
        if isinstance(self.prior, Uniform) and self.prior.log:
            before = np.maximum(before, np.finfo(np.float64).tiny)
        start = (1.0 - p) * float(self._tails(before, np.array(0.5))[0])
        less, more = below < start, below > start + p
        rest_below = np.where(more, below - p, below) / (1.0 - p)
        rest_above = np.where(less, above - p, above) / (1.0 - p)
        drawn = self._quantile(np.clip(rest_below, 0.0, 1.0), np.clip(rest_above, 0.0, 1.0))
        return np.where(less | more, drawn, self.at)

    def _quantile(self, below: Float, above: Float) -> Float:
        """The value with these probabilities of less and of more, in `prior` within its bounds."""
        if not self._width:
            return np.full(below.shape, self._centre)
        if isinstance(self.prior, Uniform):
            low, high = self._ends
            place = np.where(below < above, below - 0.5, 0.5 - above)
            x = 0.5 * (low + high) + self._width * place
            return portable.exp2(x) if self.prior.log else x
        low, high = self._bounds
        lower = ndtr(low) + self._mass * below
        upper = ndtr(-high) + self._mass * above
        x = np.where(lower < upper, ndtri(lower), -ndtri(upper))
        return np.asarray(self.prior.mean + self._width * np.clip(x, low, high))


class NormalScores:
    """The scores of one luminosity model's drawn parameters.

    prior: of the parameters; defaults: all parameters of the model, whose order scores have.
    """

    def __init__(self, prior: Prior, defaults: Mapping[str, float]) -> None:
        self._coordinates: dict[str, _Coordinate] = {}
        self.within_bounds = 1.0
        """Probability of a draw to lie within the bounds of all normal distributions."""
        for name, given in prior.parameters.items():
            if (coordinate := _Coordinate.of(given, prior.scale)) is not None:
                self._coordinates[name] = coordinate
                self.within_bounds *= coordinate.within_bounds(given)
        self._joint: list[str] = []
        if prior.correlated is not None and prior.scale > 0.0:
            of = prior.correlated
            kept = [k for k, name in enumerate(of.names) if name not in prior.parameters]
            self._joint = [of.names[k] for k in kept]
            self._mean = np.array(of.mean)[kept]
            covariance = prior.scale**2 * np.array(of.covariance)[np.ix_(kept, kept)]
            self._lower = np.linalg.cholesky(covariance)
        drawn = {*self._coordinates, *self._joint}
        self.names = tuple(name for name in defaults if name in drawn)

    @property
    def mixing(self) -> Float:
        """What makes of independent scores those of each parameter for itself [num_names,
        num_names]; see `ModelParameters`."""
        made = np.eye(len(self.names))
        if self._joint:
            at = [self.names.index(name) for name in self._joint]
            sigma = np.sqrt((self._lower**2).sum(axis=1))
            made[np.ix_(at, at)] = self._lower / sigma[:, None]
        return made

    def scores(self, parameters: Parameters, uniform: Float) -> Float:
        """Scores [B, num_names] of parameters, [B] each; uniform: of the samples, where in a jump
        the scores lie [B, num_names]."""
        made = np.zeros(uniform.shape)
        for name, coordinate in self._coordinates.items():
            k = self.names.index(name)
            made[:, k] = coordinate.score(parameters[name], uniform[:, k])
        if self._joint:
            away = np.stack([parameters[name] for name in self._joint]) - self._mean[:, None]
            solved = np.linalg.solve(self._lower, away)
            made[:, [self.names.index(name) for name in self._joint]] = solved.T
        return made

    def values(self, scores: Float) -> Parameters:
        """Parameters [...] of scores [..., num_names]."""
        made = {}
        if self._joint:
            at = [self.names.index(name) for name in self._joint]
            joint = self._mean + scores[..., at] @ self._lower.T
            made = {name: joint[..., k] for k, name in enumerate(self._joint)}
        for name, coordinate in self._coordinates.items():
            made[name] = coordinate.value(scores[..., self.names.index(name)])
        return {name: made[name] for name in self.names}

    def drawn(self, draws: Draws, parameters: Mapping[str, ArrayLike]) -> Float:
        """Scores [B, num_names] of the parameters that samples have drawn, [B] each. draws: of the
        stage of the model's parameters."""
        values = {name: np.asarray(parameters[name], np.float64) for name in self.names}
        elements = [FIRST_SCORE + k for k in range(len(self.names))]
        return self.scores(values, draws.uniform(elements))


def scores_of(mixture: Mixture) -> list[NormalScores]:
    """The scores of every luminosity model's parameters."""
    return [NormalScores(one.prior, one.model.defaults) for one in mixture.components]


def in_label(label: LabelConfig, line: LineConfig) -> list[ModelParameters]:
    """What a label holds of every luminosity model; of none where it is not of parameters."""
    if label.quantity != "parameters":
        return []
    mixture = Mixture(line)
    return [
        ModelParameters(one.names, mixture.share(number), one.mixing)
        for number, one in enumerate(scores_of(mixture))
    ]
