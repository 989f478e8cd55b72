"""The posterior of a luminosity model's parameters, and of the luminosity function, given the
summaries of a map."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamtrain.config import Config
from streamtrain.generator.generator import Generator
from streamtrain.machine.workers import ALONE, Resources
from streamtrain.mcmc.emulator import FEWEST_SIMULATIONS, Emulator
from streamtrain.mcmc.likelihood import (
    Density,
    Likelihood,
    covariance,
)
from streamtrain.mcmc.sampling import Chain, sample
from streamtrain.mcmc.simulations import (
    Simulations,
    check,
    data_vector,
    drawn_levels,
    simulate,
)
from streamtrain.ranks import PERCENTILES

Float = NDArray[np.float64]

METHOD = 3
"""Goes up when the same options give other posteriors."""
FEWEST_VOXELS = 5.0
"""A bin of T is used where simulations near the posterior have this many voxels in it on average:
the square root of fewer is not Gaussian."""
PILOT_STEPS = 1500
"""Steps that each walker takes, at most, in the chain that finds where the covariance is made."""
POSTERIOR_SAMPLES = 256
"""Samples of the chain, evenly spaced, whose luminosity functions are worked out."""


@dataclass(frozen=True)
class Options:
    """How much is simulated and sampled."""

    simulations: int = 6000
    """At parameters from the prior, for the emulator."""
    covariance: int = 400
    """For a covariance: one for each noise level, at parameters from the prior, and one for each
    map, at those of a first chain."""
    walkers: int = 32
    steps: int = 6000
    """Steps that each walker takes."""
    likelihood: str = "percival"
    """Which likelihood is used, see `Likelihood`."""


@dataclass(frozen=True)
class Noise:
    """What scatters around the mean model at one noise level and near some parameters."""

    used: NDArray[np.bool_]
    """Numbers of the data vector that take part [size]."""
    likelihood: Likelihood
    """Likelihood with the covariance of the simulations' distances from the emulator."""
    centre: Float
    """Mean parameters of these simulations [num_names]."""
    shift: Float
    """What is added to the emulator at the centre [size],"""
    slope: Float
    """and for each unit of the parameters away from it [num_names, size], by least squares."""
    offset: float
    """chi^2 of that; a shift of one posterior width has 1."""
    fields: Float
    """How much the simulated fields differ in their number of halos, see `field_factors` [any]."""

    def correction(self, theta: Float) -> Float:
        """What is added to the emulator at parameters [num, num_names]: [num, size]."""
        return np.asarray(self.shift + (theta - self.centre) @ self.slope)


@dataclass(frozen=True)
class Posterior:
    """What a map says."""

    chain: Chain
    theta: Float
    """`PERCENTILES` of the parameters [5, num_names]."""
    mean: Float
    """Percentiles of log10 of the mean counts of fields with such parameters [5, num_bins]."""
    field: Float
    """Percentiles of log10 of this field's own counts, with Poisson noise and the scatter of its
    number of halos [5, num_bins]."""
    chi2: float
    """Chi squared of the best sample."""
    noise: Noise
    """What scatters around the mean model at the parameters of the samples."""


class Inference:
    """Everything that maps have in common: generator, data vector, emulator.

    config: of a run; its training lightcones make the simulations. Raises ConfigError, one
    sentence, for a configuration it is not for.
    """

    def __init__(self, config: Config, options: Options, resources: Resources = ALONE) -> None:
        check(config)
        self.config, self.options, self.resources = config, options, resources
        self._count = count = resources.progress.count
        self._how = resources.of_generator(config.train.threads)
        self.generator = Generator(config, "train", **self._how)
        component = self.generator.mixture.components[0]
        self.density = Density.of(component.prior, component.model.defaults)
        _check_options(options, len(self.density.names))
        self.levels = drawn_levels(self.generator)
        self.vector = data_vector(self.generator)
        self._free = options.covariance - len(self.density.names)
        """Simulations of a covariance less the slopes that are fitted to them."""
        _check_covariance(options, self.vector.size - 1, len(self.density.names))
        num = options.simulations
        self.simulations = simulate(
            self.generator,
            self.density,
            self.vector,
            0,
            num,
            lambda done: count("simulations for the mean model", done, num, "maps"),
        )
        self.emulator = Emulator(
            np.concatenate([self.simulations.theta, self.simulations.levels], axis=1),
            self.simulations.vectors,
            seed=config.seed % 2**63,
            report=lambda step, steps: count("fitting the mean model", step, steps, "steps"),
        )
        self._noise: dict[tuple[float, ...], Noise] = {}

    def close(self) -> None:
        """Stop the generator's threads."""
        self.generator.close()

    def mean(self, theta: Float, levels: Float) -> Float:
        """Mean data vectors [num, size] of parameters [num, num_names] at the noise levels
        [num_levels]."""
        rows = np.broadcast_to(levels, (len(theta), len(levels)))
        return self.emulator(np.concatenate([theta, rows], axis=1))

    def noise(self, levels: Float) -> Noise:
        """What scatters at these noise levels [num_levels] over the whole prior, from simulations
        that are made once."""
        key = tuple(float(level) for level in levels)
        if key not in self._noise:
            self._noise[key] = self._scatter(levels)
        return self._noise[key]

    def noise_near(self, chain: Chain, levels: Float) -> Noise:
        """What scatters at these noise levels [num_levels] at the parameters of a chain.

        How much fields scatter depends on the parameters. The covariance that is that of the truth
        is found by making it again where the chain before has led (Eifler, Schneider and Hartlap
        2009, arXiv:0810.4254), and is fixed within a chain, since a Gaussian likelihood whose
        covariance varies claims information that is not there (Carron 2013, arXiv:1204.4724).
        """
        return self._scatter(levels, chain.spread(self.options.covariance))

    def _scatter(self, levels: Float, theta: Float | None = None) -> Noise:
        """From simulations at the parameters [num, num_names]; None: from the prior. What the
        emulator misses at these is part of it."""
        num = self.options.covariance
        made = simulate(
            self.generator,
            self.density,
            self.vector,
            self.options.simulations,  # fields that the emulator has not seen
            num,
            lambda done: self._count("simulations for the covariance", done, num, "maps"),
            theta=theta,
            levels=levels,
        )
        away, centre = made.vectors - self.mean(made.theta, levels), made.theta.mean(axis=0)
        straight = np.column_stack([np.ones(num), made.theta - centre])
        line = np.linalg.lstsq(straight, away, rcond=None)[0]
        used, free = self._used(made), self._free
        rest = (away - straight @ line)[:, used]
        scatter = covariance(rest) * (num - 1) / (free - 1)
        kind, parameters = self.options.likelihood, len(self.density.names)
        return Noise(
            used=used,
            # the line through these simulations scatters too
            likelihood=Likelihood(scatter * (1.0 + len(line) / num), free, kind, parameters),
            centre=centre,
            shift=line[0],
            slope=line[1:],
            offset=float(Likelihood(scatter, free).chi2(line[0][used])),
            fields=field_factors(made.halos, self.rates(made.theta)[:, :-1].sum(axis=1)),
        )

    def _used(self, made: Simulations) -> NDArray[np.bool_]:
        """P(k), and the bins of T that are not nearly empty, without the fullest: the number of
        voxels is known."""
        voxels = self.vector.voxels(made.vectors).mean(axis=0)
        enough = voxels >= FEWEST_VOXELS
        enough[np.argmax(voxels)] = False
        power = np.ones(self.vector.num_power, bool)
        used = np.concatenate([power, enough])
        return used & (made.vectors.std(axis=0) > 0.0)

    def log_posterior(self, data: Float, levels: Float, noise: Noise) -> Callable[[Float], Float]:
        """ln posterior, up to a constant, of parameters [num, num_names], given a map's data vector
        [size], its noise levels [num_levels] and what scatters."""

        def log_density(theta: Float) -> Float:
            total = self.density.log(theta)
            inside = np.flatnonzero(np.isfinite(total))
            if len(inside):
                enough = self.generator.line.enough(self.density.whole(theta[inside]))
                total[inside[~enough]] = -np.inf
                inside = inside[enough]
            if len(inside):
                away = data - self.mean(theta[inside], levels) - noise.correction(theta[inside])
                total[inside] += noise.likelihood.log(away[:, noise.used])
            return total

        return log_density

    def infer(self, data: Float, levels: Float, seed: int = 0) -> Posterior:
        """The posterior given the data vector [size] of a map and its noise levels [num_levels]."""
        most, wide = self.options.steps, self.noise(levels)
        pilot = self._chain(self.log_posterior(data, levels, wide), min(PILOT_STEPS, most), seed)
        noise = self.noise_near(pilot, levels)
        chain = self._chain(self.log_posterior(data, levels, noise), most, seed)
        theta = chain.spread(POSTERIOR_SAMPLES)
        rate = self.rates(theta)
        random = np.random.default_rng(seed)
        fields = random.choice(noise.fields, len(theta))[:, None]
        own = np.maximum(self._of_label(random.poisson(rate * fields).astype(float)), 1.0)
        away = data - self.mean(theta, levels) - noise.correction(theta)
        return Posterior(
            chain,
            np.percentile(chain.samples, PERCENTILES, axis=0),
            np.percentile(np.log10(np.maximum(self._of_label(rate), 1.0)), PERCENTILES, axis=0),
            np.percentile(np.log10(own), PERCENTILES, axis=0),
            float(noise.likelihood.chi2(away[:, noise.used]).min()),
            noise,
        )

    def _chain(self, log_density: Callable[[Float], Float], steps: int, seed: int) -> Chain:
        return sample(
            log_density,
            self._start(log_density, seed),
            steps,
            seed=seed,
            report=lambda step: self._count("chain", step, steps, "steps"),
        )

    def _start(self, log_density: Callable[[Float], Float], seed: int) -> Float:
        """Parameters of simulations that are among the likeliest, one for each walker."""
        theta, walkers = self.simulations.theta, self.options.walkers
        order = np.argsort(-log_density(theta), kind="stable")
        best = order[: max(walkers, len(order) // 16)]
        return theta[np.random.default_rng(seed).choice(best, walkers, replace=False)]

    def rates(self, theta: Float) -> Float:
        """Mean halos per luminosity bin, and beyond the last, of fields with these parameters
        [num, num_bins + 1]."""
        compiled = self.generator.painter.compiled_models[0]
        return compiled.expected_counts(self.density.whole(theta))

    def _of_label(self, counts: Float) -> Float:
        """Counts [num, num_bins + 1] as the label counts them [num, num_bins]."""
        return self.generator.label.of_counts(counts[:, :-1], counts[:, -1])


def field_factors(halos: Float, expected: Float) -> Float:
    """How many times their mean the halos of fields are, by what fields differ in beyond Poisson's
    scatter, which comes on top of it [num], 1 on average.

    halos: in the label's bins [num]; expected: their means over all fields [num].
    """
    some = expected > 0.0
    factor = halos[some] / expected[some]
    if not factor.any():
        return np.ones(1)
    factor = factor / factor.mean()
    variance, poisson = float(factor.var()), float(np.mean(1.0 / expected[some]))
    share = max(variance - poisson, 0.0) / variance if variance > 0.0 else 0.0
    return np.asarray(1.0 + np.sqrt(share) * (factor - 1.0))


def _check_options(options: Options, num_parameters: int) -> None:
    """Raise ValueError for what would be refused only after the simulations."""
    if options.walkers < 2 * num_parameters:
        raise ValueError(
            f"{options.walkers} walkers are too few for {num_parameters} parameters: take at least "
            f"{2 * num_parameters}"
        )
    least = max(FEWEST_SIMULATIONS, 4 * options.walkers)
    if options.simulations < least:
        raise ValueError(
            f"{options.simulations} simulations are too few for a mean model and "
            f"{options.walkers} walkers: take at least {least}"
        )


def _check_covariance(options: Options, size: int, num_parameters: int) -> None:
    """Raise ValueError for too few simulations of a covariance of up to `size` numbers."""
    least = size + num_parameters + (5 if options.likelihood == "percival" else 3)
    if options.covariance < least:
        raise ValueError(
            f"a covariance of {size} numbers around a line in {num_parameters} parameters needs at "
            f"least {least} simulations, not {options.covariance}"
        )
