"""Markov chains of an ensemble of walkers (emcee: Foreman-Mackey et al. 2013, arXiv:1202.3665)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

ENOUGH_TAU = 50.0
"""A chain this many autocorrelation times long has an autocorrelation time to be trusted."""
BURN_IN_TAU = 10.0
"""Steps left out at the start, in autocorrelation times; but at most half of the chain."""


@dataclass(frozen=True)
class Chain:
    """What a sampler has drawn."""

    samples: Float
    """After the burn-in, walkers one beside the other, [num, num_parameters]."""
    acceptance: float
    """Mean share of the proposals that were accepted."""
    tau: float
    """Longest autocorrelation time of a parameter [steps]; NaN where no walker moved."""
    steps: int
    """In all, of each walker."""
    burn_in: int
    """How many of the first steps are left out."""

    @property
    def long_enough(self) -> bool:
        """Whether it is at least `ENOUGH_TAU` autocorrelation times long."""
        return bool(self.steps >= ENOUGH_TAU * self.tau)

    def spread(self, num: int) -> Float:
        """Evenly spaced ones of the samples [num, num_parameters]."""
        return self.samples[np.linspace(0, len(self.samples) - 1, num).astype(int)]

    def warning(self) -> str:
        """A sentence if it is too short, else nothing."""
        if self.long_enough:
            return ""
        return (
            f"the chain of {self.steps} steps is shorter than {ENOUGH_TAU:g} autocorrelation times "
            f"of {self.tau:.0f} steps: raise --steps"
        )


def sample(
    log_density: Callable[[Float], Float],
    start: Float,
    steps: int,
    *,
    seed: int = 0,
    report: Callable[[int], None] = lambda step: None,
) -> Chain:
    """Draw from a density.

    log_density: ln density up to a constant of points [num, num_parameters], [num]. start: a point
    for each walker, where the density is not zero, [num_walkers, num_parameters]; at least twice as
    many walkers as parameters. report: called with the number of steps done. Raises ValueError.
    """
    emcee = import_emcee()
    walkers, size = start.shape
    if walkers < 2 * size:
        raise ValueError(f"{walkers} walkers are too few for {size} parameters: take {2 * size}")
    if not np.isfinite(log_density(start)).all():
        raise ValueError("a walker starts where the density is zero")
    sampler = emcee.EnsembleSampler(walkers, size, log_density, vectorize=True)
    random = np.random.MT19937(seed).state
    state = emcee.State(start, random_state=random)
    for step, _ in enumerate(sampler.sample(state, iterations=steps), 1):
        report(step)
    tau = float(np.max(sampler.get_autocorr_time(tol=0)))
    finite = tau if np.isfinite(tau) else 0.0
    burn_in = min(int(np.ceil(BURN_IN_TAU * finite)), steps // 2)
    chosen = sampler.get_chain(discard=burn_in, flat=True)
    return Chain(chosen, float(np.mean(sampler.acceptance_fraction)), tau, steps, burn_in)


def import_emcee() -> Any:
    """The package; raises ValueError with one sentence where it is not installed."""
    try:
        import emcee
    except ImportError:
        raise ValueError("the Markov chain needs the package emcee: pip install emcee") from None
    return emcee
