"""Luminosity models whose fields hold given numbers of halos: parameters given a luminosity
function.

A posterior of halos per bin says what the field of a map holds, not which model made it. Other
fields like it are painted with parameters theta drawn from

    p(theta | N) ~ p(N | theta) prior(theta),

the prior being that of the training. The number of halos of a bin scatters about its mean over all
fields, mu(theta), by Poisson's law and from field to field: large structures raise or lower all
bins together, by a factor that may be inclined and bent in log10 L. Square roots make them normal
(Anscombe 1948): y = 2 sqrt(N + 3/8) has a variance of 1 for a Poisson number. So p(N | theta) is
taken for normal in y, with a covariance that the field-to-field scatter of painted fields adds to,
and theta is drawn in the normal scores of its prior (`luminosity.scores`), where the prior is
normal, too. Where y is linear in the scores the result is a normal distribution in closed form; it
is made so about the draws of the prior that are nearest to N, and a short Markov chain with the
true y corrects it.

Axes: s function, p draw of the prior, n neighbour, k luminosity bin, i parameter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from streamtrain.generator.generator import Generator
from streamtrain.generator.line import Chosen, EmissionLine
from streamtrain.luminosity.mixture import Component
from streamtrain.luminosity.scores import NormalScores, scores_of
from streamtrain.numerics.rng import STAGE_POSE, Draws
from streamtrain.priors import Parameters

Float = NDArray[np.float64]

POOL = 4096
"""Draws of the prior of every model, from which neighbours of a function are taken."""
FIRST_INDEX = 2**52
"""Index of the first of these draws, far from those of a training."""
STRATA = 512
"""Ranges of mass that the mean numbers of halos are made of."""
NEIGHBOURS = 12
"""Neighbours of a function for each number that is fitted to them."""
STEPS = 16
"""Steps of the Markov chain of each function."""
STEP = 0.5
"""Width of a step, in widths of the closed form; every other step is a new draw from that."""
WIDER = 1.2
"""Width of a new draw, likewise."""
FLOOR = 0.02
"""Relative error of the mean number of halos of a bin: of the ranges of mass, and of the network
that draws functions."""
USUAL = np.array([0.05, 0.02, 0.01])
"""Amplitudes of `modes` where they are not measured."""
FEWEST = 30.0
"""Halos that a bin is expected to hold to count in `field_scatter`."""


def root(number: Float) -> Float:
    """2 sqrt(N + 3/8) of numbers of halos, whose variance is 1 by Poisson's law."""
    return 2.0 * np.sqrt(np.maximum(number, 0.0) + 0.375)


def modes(num_bins: int) -> Float:
    """What large structures do to all bins, in units of their amplitudes [3, num_bins]: a common
    factor, one that is inclined in log10 L, and one that is bent."""
    x = np.linspace(-1.0, 1.0, num_bins)
    return np.stack([np.ones(num_bins), x, x * x])


def field_scatter(counts: Float, expected: Float) -> Float:
    """Covariance [3, 3] of the amplitudes of `modes` from field to field.

    counts: halos of painted fields [num, num_bins]; expected: their means over all fields. Poisson
    scatter is taken off.
    """
    shape = modes(counts.shape[1])
    found, noise = np.zeros((0, 3)), np.zeros((3, 3))
    for number, mean in zip(counts, expected, strict=True):
        enough = mean > FEWEST
        if enough.sum() < 4:
            continue
        poisson = 1.0 / mean[enough]
        weight = shape[:, enough] / (poisson + FLOOR**2)
        fit = np.linalg.solve(weight @ shape[:, enough].T, weight)
        found = np.concatenate([found, (fit @ (number[enough] / mean[enough] - 1.0))[None]])
        noise = noise + (fit * poisson) @ fit.T
    if len(found) < 8:
        return np.diag(USUAL**2)
    values, vectors = np.linalg.eigh((found.T @ found - noise) / len(found))
    return np.asarray((vectors * np.maximum(values, 1e-6)) @ vectors.T)


@dataclass(frozen=True)
class _Pool:
    """Draws of the prior of one luminosity model."""

    component: Component
    number: int
    of: NormalScores
    scores: Float
    """[P, num_names]"""
    means: Float
    """`root` of the mean numbers of halos [P, num_bins]."""
    ln_share: float


@dataclass(frozen=True)
class _Fit:
    """The closed form for some functions by one model."""

    mean: Float
    """[S, num_names]"""
    cholesky: Float
    """Of the covariance, lower triangles [S, num_names, num_names]."""
    ln_evidence: Float
    """[S]"""
    start: NDArray[np.int64]
    """The nearest draw of the pool [S]."""


@dataclass(frozen=True)
class _Errors:
    """The covariance of y of some functions: diagonal, and some modes."""

    variance: Float
    """[S, num_bins]"""
    modes: Float
    """[S, 3, num_bins]"""
    inner: Float
    """Inverse of (scatter^-1 + modes variance^-1 modes^T) [S, 3, 3]."""

    @classmethod
    def of(cls, functions: Float, scatter: Float) -> _Errors:
        """functions: halos per bin [S, num_bins]; scatter: see `field_scatter`."""
        variance = 1.0 + FLOOR**2 * functions
        shape = np.sqrt(functions + 0.375)[:, None] * modes(functions.shape[1])
        weighted = np.einsum("sak,sk,sbk->sab", shape, 1.0 / variance, shape)
        return cls(variance, shape, np.linalg.inv(np.linalg.inv(scatter) + weighted))

    def chi2(self, away: Float) -> Float:
        """[S, ...] of differences [S, ..., num_bins]."""
        light = away / np.expand_dims(self.variance, tuple(range(1, away.ndim - 1)))
        along = np.einsum("s...k,sak->s...a", light, self.modes)
        mean = np.einsum("s...a,sab,s...b->s...", along, self.inner, along)
        return np.asarray((light * away).sum(-1) - mean)

    def inverse(self) -> Float:
        """The inverse covariance [S, num_bins, num_bins]."""
        light = self.modes / self.variance[:, None]
        full = -np.einsum("sak,sab,sbl->skl", light, self.inner, light)
        diagonal = np.arange(full.shape[1])
        full[:, diagonal, diagonal] += 1.0 / self.variance
        return full

    def take(self, rows: NDArray[np.int64]) -> _Errors:
        """Those of some of the functions."""
        return _Errors(self.variance[rows], self.modes[rows], self.inner[rows])


class ParametersOfCounts:
    """Draws luminosity models and parameters behind luminosity functions.

    generator: of the run's samples, whose skies the mean numbers of halos are of. scatter: see
    `field_scatter`.
    """

    def __init__(self, generator: Generator, scatter: Float | None = None) -> None:
        self.line: EmissionLine = generator.line
        self.scatter = np.diag(USUAL**2) if scatter is None else scatter
        mixture = self.line.mixture
        self._pools = []
        for number, of in enumerate(scores_of(mixture)):
            component = mixture.components[number]
            size = POOL if of.names else 1
            indices = np.arange(FIRST_INDEX, FIRST_INDEX + size, dtype=np.uint64)
            draws = Draws(generator.seed, generator.split, indices, STAGE_POSE)
            drawn = self.line.prior_draws(draws, number)
            scores = of.drawn(draws.of_stage(self.line.stages.model), drawn)
            share = float(np.log(mixture.share(number)))
            means = root(self.expected(drawn, number))
            self._pools.append(_Pool(component, number, of, scores, means, share))

    def expected(self, parameters: Parameters, number: int = 0) -> Float:
        """Mean numbers of halos of a field per bin [B, num_bins]; number: of the model."""
        compiled = self.line.painter.compiled_models[number]
        return compiled.expected_counts(parameters, STRATA)[:, :-1]

    def draw(self, functions: Float, rng: np.random.Generator) -> Chosen:
        """A model and parameters for each of some functions, halos per bin [S, num_bins]."""
        errors, y = _Errors.of(functions, self.scatter), root(functions)
        fits = [_closed_form(pool, y, errors) for pool in self._pools]
        evidence = np.stack([fit.ln_evidence for fit in fits])
        chances = np.exp(evidence - logsumexp(evidence, axis=0))
        model = (chances.cumsum(axis=0) < rng.random(len(y))).sum(axis=0)
        model = np.minimum(model, len(fits) - 1)
        parameters = []
        for pool, fit in zip(self._pools, fits, strict=True):
            mine = np.flatnonzero(model == pool.number)
            scores = self._chain(pool, fit, y, errors, mine, rng)
            parameters.append(self._whole(pool, scores))
        return Chosen(model, parameters)

    def values(self, scores: list[Float]) -> list[Parameters]:
        """All parameters of every model for some scores [B, num_names] of it."""
        return [self._whole(pool, mine) for pool, mine in zip(self._pools, scores, strict=True)]

    def allowed(self, number: int, scores: Float) -> NDArray[np.bool_]:
        """Whether scores [B, num_names] of a model satisfy the conditions of the prior [B]."""
        return self.line.accepts(self._whole(self._pools[number], scores), number)

    def _whole(self, pool: _Pool, scores: Float) -> Parameters:
        held = pool.component.prior.held(pool.component.model.defaults)
        every = {name: np.full(len(scores), value[0]) for name, value in held.items()}
        return {**every, **pool.of.values(scores)}

    def _chain(
        self,
        pool: _Pool,
        fit: _Fit,
        y: Float,
        errors: _Errors,
        mine: NDArray[np.int64],
        rng: np.random.Generator,
    ) -> Float:
        """Scores [len(mine), num_names] of a model for the functions `mine`."""
        mean, lower = fit.mean[mine], fit.cholesky[mine]
        at, errors, y = pool.scores[fit.start[mine]], errors.take(mine), y[mine]
        if not len(mine) or not pool.of.names:
            return at
        inverse = np.linalg.inv(lower)

        def proposal(scores: Float) -> Float:
            """ln density of a new draw."""
            z = np.einsum("sij,sj->si", inverse, scores - mean) / WIDER
            return np.asarray(-0.5 * (z * z).sum(axis=1))

        def target(scores: Float) -> Float:
            whole = self._whole(pool, scores)
            allowed = self.line.accepts(whole, pool.number)
            found = np.full(len(scores), -np.inf)
            if allowed.any():
                some = {name: values[allowed] for name, values in whole.items()}
                away = y[allowed] - root(self.expected(some, pool.number))
                chi2 = errors.take(np.flatnonzero(allowed)).chi2(away)
                found[allowed] = -0.5 * (chi2 + (scores[allowed] ** 2).sum(axis=1))
            return found

        ln_at = target(at)
        for step in range(STEPS):
            anew = step % 2 == 0
            z = rng.standard_normal(at.shape)
            moved = np.einsum("sij,sj->si", lower, z * (WIDER if anew else STEP))
            trial = moved + (mean if anew else at)
            ln_trial = target(trial)
            ratio = ln_trial - ln_at + ((proposal(at) - proposal(trial)) if anew else 0.0)
            accepted = np.log(rng.random(len(at))) < ratio
            at = np.where(accepted[:, None], trial, at)
            ln_at = np.where(accepted, ln_trial, ln_at)
        return at


def _closed_form(pool: _Pool, y: Float, errors: _Errors) -> _Fit:
    """The normal distribution of scores of a model about each function [S, num_bins]."""
    size = len(pool.of.names)
    chi2 = np.concatenate(
        [
            errors.take(rows).chi2(y[rows][:, None] - pool.means[None])
            for rows in np.array_split(np.arange(len(y)), max(1, len(y) // 16))
        ]
    )
    total = chi2 + (pool.scores**2).sum(axis=1)
    start = total.argmin(axis=1)
    if not size:
        none = np.zeros((len(y), 0))
        return _Fit(none, np.zeros((len(y), 0, 0)), pool.ln_share - 0.5 * chi2[:, 0], start)
    number = min(NEIGHBOURS * (size + 1), len(pool.scores) - 1)
    near = np.argpartition(chi2, number, axis=1)[:, :number]
    distance = np.take_along_axis(chi2, near, axis=1)
    farthest = distance.max(axis=1, keepdims=True)
    share = distance / np.where(farthest > 0.0, farthest, 1.0)  # 0 where all have no halo, as it
    weight = np.sqrt(1.0 - 0.999 * share)
    x = np.concatenate([np.ones((*near.shape, 1)), pool.scores[near]], axis=2) * weight[..., None]
    square = x.transpose(0, 2, 1) @ x + 1e-3 * np.eye(size + 1)
    linear = np.linalg.solve(square, x.transpose(0, 2, 1) @ (pool.means[near] * weight[..., None]))
    away, slope = y - linear[:, 0], linear[:, 1:]
    inverse = errors.inverse()
    precision = np.einsum("sik,skl,sjl->sij", slope, inverse, slope, optimize=True) + np.eye(size)
    pull = np.einsum("sik,skl,sl->si", slope, inverse, away, optimize=True)
    covariance = np.linalg.inv(precision)
    mean = np.einsum("sij,sj->si", covariance, pull)
    chi2_here = np.einsum("sk,skl,sl->s", away, inverse, away, optimize=True)
    evidence = -0.5 * chi2_here + 0.5 * (pull * mean).sum(axis=1)
    evidence += 0.5 * np.linalg.slogdet(covariance)[1]
    return _Fit(mean, np.linalg.cholesky(covariance), pool.ln_share + evidence, start)
