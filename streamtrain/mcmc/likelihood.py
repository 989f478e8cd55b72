"""The likelihood of a vector of summaries whose covariance was simulated, and the prior of the
model's parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from streamtrain.priors import Fixed, Normal, Prior, Sometimes, Uniform
from streamtrain.schema import ConfigError

Float = NDArray[np.float64]


def covariance(vectors: Float) -> Float:
    """Unbiased covariance [n, n] of simulated vectors [num, n]."""
    return np.atleast_2d(np.cov(vectors, rowvar=False))


def hartlap_factor(num: int, size: int) -> float:
    """(num - size - 2) / (num - 1): times the inverse of a covariance that was estimated from `num`
    simulations it is an unbiased inverse (Hartlap et al. 2007, arXiv:astro-ph/0608064).

    Raises ValueError for fewer simulations than it takes.
    """
    if num < size + 3:
        raise ValueError(
            f"a covariance of {size} numbers needs at least {size + 3} simulations, not {num}"
        )
    return (num - size - 2) / (num - 1)


KINDS = ("percival", "sellentin", "hartlap")


def exponent(kind: str, num: int, size: int, num_parameters: int) -> float:
    """m of the density [1 + d^T S^-1 d / (num - 1)]^(-m/2) of a difference d of `size` numbers,
    whose covariance S is that of `num` simulations.

    sellentin: num, the likelihood with the covariance marginalised under Jeffreys' prior (Sellentin
    and Heavens 2016, arXiv:1511.05969). percival: under the prior that gives the posterior of so
    many parameters the width by which their estimates scatter (Percival et al. 2022,
    arXiv:2108.10402). Written as public analyses with that likelihood do, not from the paper, and
    tested by how often its intervals hold the truth; it raises ValueError for fewer simulations
    than it takes.
    """
    if kind == "sellentin":
        return float(num)
    if num < size + 5:
        raise ValueError(
            f"the likelihood '{kind}' of {size} numbers needs at least {size + 5} simulations, not "
            f"{num}"
        )
    spread = (num - size - 2) / ((num - size - 1) * (num - size - 4)) * (size - num_parameters)
    return num_parameters + 2 + (num - 1 + spread) / (1 + spread)


class Likelihood:
    """ln density of a vector given its mean, up to a constant.

    covariance: [n, n]; num: of the simulations that it was estimated from; None: it is known, and
    the density is normal. kind: of one that was estimated. "percival" and "sellentin" marginalise
    the unknown covariance, which makes the density a multivariate t-distribution, see `exponent`;
    "hartlap" is normal with the unbiased inverse (`hartlap_factor`). Where fewer parameters are
    fitted than there are numbers, the intervals of the last two are too narrow. num_parameters:
    of the fit, at most n; for "percival" alone. Raises ValueError for a covariance that cannot be
    inverted, or of too few simulations.
    """

    def __init__(
        self,
        covariance: Float,
        num: int | None = None,
        kind: str = "percival",
        num_parameters: int = 1,
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f"the likelihood '{kind}' is none of {', '.join(KINDS)}")
        size = len(covariance)
        self.factor = 1.0 if num is None else hartlap_factor(num, size)
        self._num = num
        self._exponent: float | None = None
        if num is not None and kind != "hartlap":
            self._exponent = exponent(kind, num, size, num_parameters)
        self.sigma = np.sqrt(np.diag(covariance))
        """Standard deviation of each number [n]."""
        with np.errstate(all="ignore"):
            correlation = covariance / np.outer(self.sigma, self.sigma)
        if not np.isfinite(correlation).all():
            raise ValueError("a covariance with a variance of zero cannot be inverted")
        try:
            self._cholesky = cho_factor(correlation, lower=True)
        except np.linalg.LinAlgError:
            raise ValueError("a covariance that is not positive cannot be inverted") from None

    def chi2(self, difference: Float) -> Float:
        """Chi squared [...] of differences [..., n] between vectors and their means, with the
        unbiased inverse: n on average, whatever the kind."""
        scaled = np.atleast_2d(difference / self.sigma)
        solved = cho_solve(self._cholesky, scaled.T).T
        return np.asarray(self.factor * np.sum(scaled * solved, axis=-1)).reshape(
            difference.shape[:-1]
        )

    def log(self, difference: Float) -> Float:
        """ln density of differences [..., n], [...], up to a constant."""
        chi2 = self.chi2(difference)
        if self._num is None or self._exponent is None:
            return -0.5 * chi2
        return -0.5 * self._exponent * np.log1p(chi2 / self.factor / (self._num - 1))


@dataclass(frozen=True)
class Density:
    """The prior of the parameters that a model draws, as a density.

    names: of those; prior: of the model; defaults: all parameters of the model.
    """

    names: Sequence[str]
    prior: Prior
    defaults: Mapping[str, float]

    @classmethod
    def of(cls, prior: Prior, defaults: Mapping[str, float]) -> Density:
        """Raises ConfigError if no parameter is drawn, or one within a range of width zero, or one
        that has a probability at a single value, which is no density."""
        drawn = [n for n, given in prior.parameters.items() if not isinstance(given, Fixed)]
        if prior.correlated is not None:
            drawn += [n for n in prior.correlated.names if n not in prior.parameters]
        if not drawn or prior.scale == 0.0:
            raise ConfigError(
                "no parameter of emit.line is drawn: choose a prior, as in emit.line.prior=narrow"
            )
        for name in drawn:
            given = prior.parameters.get(name)
            if isinstance(given, Sometimes):
                raise ConfigError(
                    f"{name} is exactly {given.value:g} in {100 * given.probability:g} % of the "
                    "prior's draws, and a Markov chain needs a density: hold it at a value, as in "
                    f"emit.line.parameters.{name}={given.value:g}, or give it a distribution there"
                )
            if isinstance(given, Normal) and given.width == 0.0:
                raise ConfigError(f"the prior of {name} has no width: hold it at a value")
        return cls(sorted(drawn), prior, defaults)

    def whole(self, theta: Float) -> dict[str, Float]:
        """All parameters of the model, [num] each, from the drawn ones [num, num_names]."""
        values = {n: np.full(len(theta), float(v)) for n, v in self.defaults.items()}
        for name, given in self.prior.parameters.items():
            if isinstance(given, Fixed):
                values[name] = np.full(len(theta), given.value)
        return values | {name: theta[:, k] for k, name in enumerate(self.names)}

    def log(self, theta: Float) -> Float:
        """ln of the density, up to a constant, of parameters [num, num_names]; -inf where the prior
        excludes them."""
        values, scale = self.whole(theta), self.prior.scale
        total = np.zeros(len(theta))
        for name in self.names:
            given, value = self.prior.parameters.get(name), values[name]
            if isinstance(given, Normal):
                total -= 0.5 * ((value - given.mean) / (scale * given.width)) ** 2
                total[(value <= given.low) | (value >= given.high)] = -np.inf
            elif isinstance(given, Uniform):
                total += _log_uniform(given, value, scale)
        total += self._log_correlated(values)
        constraint = self.prior.constraint
        if constraint is not None:
            total[~constraint(values)] = -np.inf
        return total

    def _log_correlated(self, values: Mapping[str, Float]) -> Float | float:
        joint = self.prior.correlated
        if joint is None:
            return 0.0
        # a parameter with a distribution of its own leaves the others their marginal one
        kept = [k for k, name in enumerate(joint.names) if name not in self.prior.parameters]
        mean = np.array(joint.mean)[kept]
        inverse = np.linalg.inv(np.array(joint.covariance)[np.ix_(kept, kept)])
        away = np.stack([values[joint.names[k]] for k in kept], axis=1) - mean
        away = away / self.prior.scale
        return -0.5 * np.einsum("bi,ij,bj->b", away, inverse, away)


def _log_uniform(given: Uniform, value: Float, scale: float) -> Float:
    ends = np.array([given.low, given.high])
    with np.errstate(invalid="ignore", divide="ignore"):
        place = np.log(value) if given.log else value
        ends = np.log(ends) if given.log else ends
        inside = np.abs(place - ends.mean()) <= 0.5 * scale * (ends[1] - ends[0])
        density = -place if given.log else np.zeros_like(value)  # of the value itself
    return np.where(inside, density, -np.inf)
