"""The posterior of a luminosity model's parameters, and of the luminosity function, given the
summaries of a map."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamtrain.catalogs.skies import LightconeFiles
from streamtrain.config import Config
from streamtrain.generator.generator import Generator
from streamtrain.generator.windows import LightconeWindows
from streamtrain.machine.workers import ALONE, Resources
from streamtrain.mcmc.emulator import FEWEST_SIMULATIONS, Emulator
from streamtrain.mcmc.likelihood import (
    Density,
    Likelihood,
    covariance,
    error_of_mean,
    exponent,
    hartlap_factor,
)
from streamtrain.mcmc.sampling import Chain, sample
from streamtrain.mcmc.simulations import (
    Simulations,
    check,
    data_vector,
    drawn_levels,
    held,
    simulate,
)

Float = NDArray[np.float64]

FEWEST_VOXELS = 5.0
"""A bin of T is used where the fiducial maps have this many voxels in it on average: the square
root of fewer is not Gaussian."""
CHECK_POINTS, CHECK_FIELDS = 16, 20
"""Parameters from the prior, and fields at each of them, that the emulator is compared with."""
POSTERIOR_SAMPLES = 256
"""Samples of the chain, evenly spaced, whose luminosity functions are worked out."""
LEVELS = (2.5, 16.0, 50.0, 84.0, 97.5)
"""Percentiles that are kept."""


@dataclass(frozen=True)
class Options:
    """How much is simulated and sampled."""

    simulations: int = 2000
    """At parameters from the prior, for the emulator."""
    covariance: int = 400
    """At the fiducial parameters, for each noise level."""
    walkers: int = 32
    steps: int = 6000
    """Steps that each walker takes."""
    likelihood: str = "percival"
    """Which likelihood is used, see `Likelihood`."""


@dataclass(frozen=True)
class Noise:
    """What scatters around the mean model at one noise level: from the fiducial simulations."""

    used: NDArray[np.bool_]
    """Numbers of the data vector that take part [size]."""
    likelihood: Likelihood
    """Likelihood with the covariance of these simulations."""
    missed: float
    """Variance of the emulator's error over that of the fields and the noise: the mean over all
    directions."""
    most_missed: float
    """The largest over all directions."""
    shift: Float
    """What is added to the emulator, so that it is the mean of the fiducial simulations there
    [size]."""
    offset: float
    """chi^2 of that; a shift of one posterior width has 1."""
    fields: Float
    """Halos of each simulated field over their mean [num]."""


@dataclass(frozen=True)
class Posterior:
    """What a map says."""

    chain: Chain
    theta: Float
    """Percentiles `LEVELS` of the parameters [5, num_names]."""
    mean: Float
    """Percentiles of log10 of the mean counts of fields with such parameters [5, num_bins]."""
    field: Float
    """Percentiles of log10 of this field's own counts, with Poisson noise and the scatter of its
    number of halos [5, num_bins]."""
    chi2: float
    """Chi squared of the best sample."""
    numbers: int
    """How many numbers of the data vector took part."""
    offset: float
    """Offset of the mean model, see `Noise.offset`."""
    missed: float
    """Error of the mean model, see `Noise.missed`."""
    most_missed: float


class Inference:
    """Everything that maps have in common: generator, data vector, emulator.

    config: of a run; its training lightcones make the simulations. Raises ConfigError, one
    sentence, for a configuration it is not for.
    """

    def __init__(self, config: Config, options: Options, resources: Resources = ALONE) -> None:
        check(config)
        self.config, self.options, self.resources = config, options, resources
        self._report = report = resources.progress.update
        self._how = resources.of_generator(config.train.threads)
        self.generator = Generator(config, "train", **self._how)
        component = self.generator.mixture.components[0]
        self.density = Density.of(component.prior, component.model.defaults)
        _check_options(options, len(self.density.names))
        self.levels = drawn_levels(config)
        self.vector = data_vector(self.generator)
        most = self.vector.size - 1
        hartlap_factor(options.covariance, most)
        if options.likelihood != "hartlap":
            exponent(options.likelihood, options.covariance, most, len(self.density.names))
        num = options.simulations
        self.simulations = simulate(
            self.generator,
            self.density,
            self.vector,
            0,
            num,
            lambda done: report(f"simulations for the mean model: {done}/{num}"),
        )
        self.emulator = Emulator(
            np.concatenate([self.simulations.theta, self.simulations.levels], axis=1),
            self.simulations.vectors,
            seed=config.seed % 2**63,
            report=lambda step, steps: report(f"mean model: step {step}/{steps}"),
        )
        self._noise: dict[tuple[float, ...], Noise] = {}
        self._scenes: dict[str, LightconeWindows] = {}

    def close(self) -> None:
        """Stop the generator's threads."""
        self.generator.close()

    def mean(self, theta: Float, levels: Float) -> Float:
        """Mean data vectors [num, size] of parameters [num, num_names] at the noise levels
        [num_levels]."""
        rows = np.broadcast_to(levels, (len(theta), len(levels)))
        return self.emulator(np.concatenate([theta, rows], axis=1))

    def noise(self, levels: Float) -> Noise:
        """The likelihood at these noise levels [num_levels], from simulations at the fiducial
        parameters, that are made once."""
        key = tuple(float(level) for level in levels)
        if key not in self._noise:
            self._noise[key] = self._make_noise(levels)
        return self._noise[key]

    def _make_noise(self, levels: Float) -> Noise:
        num, centre = self.options.covariance, self.density.centre()
        fiducial = self._simulate_at(
            [centre],
            levels,
            self.options.simulations,  # fields that the emulator has not seen
            num,
            "simulations for the covariance",
        )
        used = self._used(fiducial)
        scatter = covariance(fiducial.vectors[:, used])
        kind, parameters = self.options.likelihood, len(self.density.names)
        bare = Likelihood(scatter, num, kind, parameters)
        theta = np.array([[centre[name] for name in self.density.names]])
        shift = fiducial.vectors.mean(axis=0) - self.mean(theta, levels)[0]
        missed = self._missed(levels, shift, used, scatter)
        # the mean model is moved onto the mean of these simulations, which scatters too
        likelihood = Likelihood(scatter * (1.0 + 1.0 / num) + missed, num, kind, parameters)
        shares = np.linalg.eigvals(np.linalg.solve(scatter, missed)).real
        return Noise(
            used=used,
            likelihood=likelihood,
            missed=float(shares.mean()),
            most_missed=float(shares.max()),
            shift=shift,
            offset=float(bare.chi2(shift[used])),
            fields=fiducial.halos / fiducial.halos.mean(),
        )

    def _missed(
        self, levels: Float, shift: Float, used: NDArray[np.bool_], scatter: Float
    ) -> Float:
        """Covariance of the emulator's error at these noise levels, of the numbers that are used:
        from the mean vectors of about `CHECK_FIELDS` fields at each of `CHECK_POINTS` parameters.
        Nothing was learnt from these simulations. Where the fields scatter more than the fiducial
        ones, whose covariance is `scatter`, the error is taken in units of that."""
        first = self.options.simulations + self.options.covariance
        points = simulate(self.generator, self.density, self.vector, first, CHECK_POINTS).theta
        names = self.density.names
        found = self._simulate_at(
            [dict(zip(names, map(float, theta), strict=True)) for theta in points],
            levels,
            first + CHECK_POINTS,
            CHECK_POINTS * CHECK_FIELDS,
            "simulations that the mean model is compared with",
        )
        away, of_means = [], []
        for theta in points:
            here = found.vectors[(found.theta == theta).all(axis=1)][:, used]
            if len(here) < 2:
                continue
            there = covariance(here)
            with np.errstate(divide="ignore"):
                unit = np.minimum(1.0, np.sqrt(np.diag(scatter) / np.diag(there)))
            mean = self.mean(theta[None], levels)[0] + shift
            away.append(unit * (here.mean(axis=0) - mean[used]))
            of_means.append(np.outer(unit, unit) * there / len(here))
        return error_of_mean(np.array(away), np.array(of_means), scatter)

    def _simulate_at(
        self,
        parameters: list[dict[str, float]],
        levels: Float,
        first: int,
        num: int,
        doing: str,
    ) -> Simulations:
        """Fields at some sets of parameters, one of which is drawn for each, and noise levels."""
        drawn = dict(zip(self.levels, map(float, levels), strict=True))
        config = held(self.config, parameters, drawn)
        skies = self.generator.skies if isinstance(self.generator.skies, LightconeFiles) else None
        scenes = self._scenes.get(repr(parameters))  # noise levels differ in `observe` alone
        generator = Generator(config, "train", lightcones=skies, scenes=scenes, **self._how)
        self._scenes[repr(parameters)] = generator.scenes
        made = simulate(
            generator,
            self.density,
            self.vector,
            first,
            num,
            lambda done: self._report(f"{doing}: {done}/{num}"),
        )
        generator.close()
        return made

    def _used(self, fiducial: Simulations) -> NDArray[np.bool_]:
        """P(k), and the bins of T that are not nearly empty, without the fullest: the number of
        voxels is known."""
        voxels = self.vector.voxels(fiducial.vectors).mean(axis=0)
        enough = voxels >= FEWEST_VOXELS
        enough[np.argmax(voxels)] = False
        power = np.ones(self.vector.num_power, bool)
        used = np.concatenate([power, enough])
        return used & (fiducial.vectors.std(axis=0) > 0.0)

    def log_posterior(self, data: Float, levels: Float) -> Callable[[Float], Float]:
        """ln posterior, up to a constant, of parameters [num, num_names], given a map's data vector
        [size] and noise levels [num_levels]."""
        noise = self.noise(levels)

        def log_density(theta: Float) -> Float:
            total = self.density.log(theta)
            inside = np.flatnonzero(np.isfinite(total))
            if len(inside):
                enough = self.generator.line.enough(self.density.whole(theta[inside]))
                total[inside[~enough]] = -np.inf
                inside = inside[enough]
            if len(inside):
                away = data - noise.shift - self.mean(theta[inside], levels)
                total[inside] += noise.likelihood.log(away[:, noise.used])
            return total

        return log_density

    def infer(self, data: Float, levels: Float, seed: int = 0) -> Posterior:
        """The posterior given the data vector [size] of a map and its noise levels [num_levels]."""
        log_density = self.log_posterior(data, levels)
        steps = self.options.steps
        chain = sample(
            log_density,
            self._start(log_density, seed),
            steps,
            seed=seed,
            report=lambda step: self._report(f"chain: step {step}/{steps}"),
        )
        chosen = np.linspace(0, len(chain.samples) - 1, POSTERIOR_SAMPLES).astype(int)
        theta = chain.samples[chosen]
        rate = self.rates(theta)
        noise, random = self.noise(levels), np.random.default_rng(seed)
        fields = random.choice(noise.fields, len(theta))[:, None]
        own = np.maximum(self._of_label(random.poisson(rate * fields).astype(float)), 1.0)
        away = data - noise.shift - self.mean(theta, levels)
        return Posterior(
            chain,
            np.percentile(chain.samples, LEVELS, axis=0),
            np.percentile(np.log10(np.maximum(self._of_label(rate), 1.0)), LEVELS, axis=0),
            np.percentile(np.log10(own), LEVELS, axis=0),
            float(noise.likelihood.chi2(away[:, noise.used]).min()),
            int(noise.used.sum()),
            noise.offset,
            noise.missed,
            noise.most_missed,
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
