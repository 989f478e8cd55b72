"""Priors of parameters, drawn as a function of an index: of a luminosity model, or of a sky."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.numerics import portable
from streamtrain.numerics.rng import Draws
from streamtrain.schema import ConfigError, setting

Parameters = dict[str, NDArray[np.float64]]
Condition = Callable[[Parameters], NDArray[np.bool_]]

MAX_ATTEMPTS = 1000
ELEMENTS_PER_ATTEMPT = 64
FIRST_CORRELATED = 32
MOST_PARAMETERS = 32
"""Distributions of a prior, and names of its multivariate normal: more would share elements."""
FIRST_CHOICE = 1 << 20
"""First element of the choices of `Sometimes`, beyond those of all attempts; each attempt has
`MOST_PARAMETERS` of them."""


@dataclass(frozen=True)
class Normal:
    """A normal distribution, truncated to low < value < high."""

    mean: float
    width: float
    low: float = -np.inf
    high: float = np.inf

    def __post_init__(self) -> None:
        _check(self, self.mean, self.width)
        if self.width < 0.0 or not self.low < self.high:
            raise ValueError(f"{self}: the width must not be negative, low must be below high")


@dataclass(frozen=True)
class Uniform:
    """A uniform distribution between low and high, of the logarithm if `log` (both positive)."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        _check(self, self.low, self.high)
        if self.low > self.high or (self.log and self.low <= 0.0):
            least = ", and both above 0" if self.log else ""
            raise ValueError(f"{self}: low must not be above high{least}")


@dataclass(frozen=True)
class Fixed:
    """A parameter held at a value; a prior's bounds do not touch it."""

    value: float

    def __post_init__(self) -> None:
        _check(self, self.value)


@dataclass(frozen=True)
class Sometimes:
    """A parameter that is exactly `value` with a probability, and drawn from a distribution else.

    A continuous distribution has no probability at any one value; a law that has no scatter, say,
    needs one there. A prior's scale leaves value and probability as they are.
    """

    probability: float
    value: float
    otherwise: Normal | Uniform

    def __post_init__(self) -> None:
        _check(self, self.probability, self.value)
        if not isinstance(self.otherwise, Normal | Uniform):
            raise ValueError(f"{self}: otherwise must be a Normal or a Uniform")
        if not 0.0 < self.probability < 1.0:
            raise ValueError(f"{self}: the probability must be between 0 and 1")


def _check(given: object, *numbers: float) -> None:
    """ValueError for a distribution whose numbers are not finite."""
    if not all(isinstance(n, int | float | np.number) and np.isfinite(n) for n in numbers):
        raise ValueError(f"{given}: its numbers must be finite")


Distribution = Normal | Uniform | Fixed | Sometimes


@dataclass(frozen=True)
class Correlated:
    """A multivariate normal over `names`, in the order of mean [n] and covariance [n, n]."""

    names: tuple[str, ...]
    mean: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        size = len(self.names)
        shapes = {len(self.mean), len(self.covariance), *map(len, self.covariance)}
        _check(self, *self.mean, *(value for row in self.covariance for value in row))
        if shapes != {size}:
            raise ValueError(f"{self}: {size} names need as many means, rows and columns")

    def cholesky(self) -> list[list[float]]:
        """Lower triangle of covariance = L L^T, in plain float64 (the same bits everywhere)."""
        size = len(self.mean)
        lower = [[0.0] * size for _ in range(size)]
        for i in range(size):
            for j in range(i + 1):
                rest = self.covariance[i][j]
                for k in range(j):  # not sum(): Python 3.12 rounds it another way
                    rest -= lower[i][k] * lower[j][k]
                if i == j and rest <= 0.0:
                    raise ValueError(f"the covariance of {', '.join(self.names)} is not positive")
                lower[i][j] = float(np.sqrt(rest)) if i == j else rest / lower[j][j]
        return lower


class NoDrawError(ValueError):
    """No draw of a prior is accepted."""


@dataclass(frozen=True)
class Prior:
    """The joint prior of a model's parameters; parameters it does not name keep their default.

    A parameter with a distribution of its own leaves the correlated ones: they keep their marginal
    distribution. Widths are multiplied by `scale`.
    """

    parameters: Mapping[str, Distribution] = field(default_factory=dict)
    correlated: Correlated | None = None
    constraint: Condition | None = None
    """A draw for which this is false is drawn again."""
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not (self.scale >= 0.0 and np.isfinite(self.scale)):
            raise ValueError(f"the scale of a prior is {self.scale}: it must not be negative")

    @property
    def names(self) -> set[str]:
        """Parameters that it names."""
        return {*self.parameters, *(self.correlated.names if self.correlated else ())}

    @property
    def varies(self) -> bool:
        """Whether any parameter is drawn."""
        held = {name for name, given in self.parameters.items() if isinstance(given, Fixed)}
        return bool(self.names - held)

    def draw(
        self, draws: Draws, defaults: Mapping[str, float], accept: Condition | None = None
    ) -> Parameters:
        """Parameters of B samples, each float64 [B].

        accept: a further condition on a draw. Each attempt has counters of its own, so the
        accepted draw is a function of the index. Raises ValueError when no attempt satisfies the
        bounds and conditions.
        """
        if draws.recorder is not None:
            return draws.recorder.accepted(self, draws, defaults, accept)
        size = len(draws.indices)
        values = self._start(defaults, size)
        if not self.varies:
            return values
        waiting = np.arange(size)
        for attempt in range(MAX_ATTEMPTS):
            given = {name: v[waiting] for name, v in values.items()}
            trial, accepted = self._try(draws.take(waiting), attempt, given, accept)
            for name, drawn in trial.items():
                values[name][waiting[accepted]] = drawn[accepted]
            waiting = waiting[~accepted]
            if not len(waiting):
                return values
        raise NoDrawError(
            f"no draw in {MAX_ATTEMPTS} attempts satisfies the prior's bounds and conditions: use "
            "a narrower prior, or a smaller prior_scale"
        )

    def acceptance(
        self, draws: Draws, defaults: Mapping[str, float], accept: Condition | None = None
    ) -> float:
        """Fraction of first attempts that are accepted; arguments as in `draw`."""
        if not self.varies or not len(draws.indices):
            return 1.0
        given = self._start(defaults, len(draws.indices))
        return float(self._try(draws, 0, given, accept)[1].mean())

    def first_accepted(
        self, draws: Draws, defaults: Mapping[str, float], accept: Condition | None = None
    ) -> Parameters:
        """Parameters of those of B first attempts that are accepted, float64 [at most B] each;
        arguments as in `draw`."""
        given = self._start(defaults, len(draws.indices))
        trial, accepted = self._try(draws, 0, given, accept)
        return {name: v[accepted] for name, v in {**given, **trial}.items()}

    def held(self, defaults: Mapping[str, float]) -> Parameters:
        """The parameters where none is drawn, float64 [1] each."""
        return self._start(defaults, 1)

    def _start(self, defaults: Mapping[str, float], size: int) -> Parameters:
        held = {n: given.value for n, given in self.parameters.items() if isinstance(given, Fixed)}
        whole = {**defaults, **held}
        return {name: np.full(size, value, np.float64) for name, value in whole.items()}

    def _try(
        self, draws: Draws, attempt: int, given: Parameters, accept: Condition | None
    ) -> tuple[Parameters, NDArray[np.bool_]]:
        """The drawn parameters of one attempt, and for which samples they are accepted."""
        trial = self.attempt(draws, attempt)
        whole = {**given, **trial}
        accepted = np.ones(len(draws.indices), bool) & self.holds(whole)
        if accept is not None and accepted.any():
            accepted[accepted] = accept({n: v[accepted] for n, v in whole.items()})
        return trial, accepted

    def attempt(self, draws: Draws, attempt: int) -> Parameters:
        """What B samples draw at an attempt, [B] each; a distribution's random numbers depend on
        its place among the others."""
        first = attempt * ELEMENTS_PER_ATTEMPT
        trial: Parameters = {}
        if self.correlated is not None:
            joint = self.correlated
            count = len(joint.names)
            normals = draws.normal([first + FIRST_CORRELATED + k for k in range(count)])
            for name, mean, row in zip(joint.names, joint.mean, joint.cholesky(), strict=True):
                shift: Any = 0.0
                for k, factor in enumerate(row):
                    shift = shift + factor * normals[:, k]
                if name not in self.parameters:
                    trial[name] = mean + self.scale * shift
        elements = [first + k for k in range(len(self.parameters))]
        normals, uniforms = draws.normal(elements), draws.uniform(elements)
        for k, (name, given) in enumerate(self.parameters.items()):
            prior = given.otherwise if isinstance(given, Sometimes) else given
            if isinstance(prior, Normal):
                trial[name] = prior.mean + self.scale * prior.width * normals[:, k]
            elif isinstance(prior, Uniform):
                trial[name] = _between(prior, self.scale * (uniforms[:, k] - 0.5))
            if isinstance(given, Sometimes):
                choice = draws.uniform([FIRST_CHOICE + attempt * MOST_PARAMETERS + k])[:, 0]
                trial[name] = np.where(choice < given.probability, given.value, trial[name])
        return trial

    def holds(self, values: Parameters) -> Any:
        """Whether parameters [B] lie within the bounds of their distributions and satisfy the
        constraint, [B]; True where there is nothing that they could break."""
        conditions: list[Any] = []
        for name, given in self.parameters.items():
            prior = given.otherwise if isinstance(given, Sometimes) else given
            if isinstance(prior, Normal):
                value: Any = values[name]
                inside = (prior.low < value) & (value < prior.high)
                if isinstance(given, Sometimes):
                    at = (value <= given.value) & (value >= given.value)
                    inside = np.where(at, 1.0, inside) > 0.0
                conditions.append(inside)
        if self.constraint is not None:
            conditions.append(self.constraint(values))
        return reduce(np.logical_and, conditions, True)


def _between(prior: Uniform, place: NDArray[np.float64]) -> NDArray[np.float64]:
    """The value at `place` of the range, -1/2..1/2 from end to end."""
    if not prior.log:
        return 0.5 * (prior.low + prior.high) + (prior.high - prior.low) * place
    low, high = (float(portable.log2(end)) for end in (prior.low, prior.high))
    return portable.exp2(0.5 * (low + high) + (high - low) * place)


def distribution(given: float | DistributionConfig) -> Distribution:
    """What a configuration says of a parameter, as a distribution."""
    if not isinstance(given, DistributionConfig):
        return Fixed(given)
    drawn: Normal | Uniform
    if given.normal is not None:
        low = -np.inf if given.low is None else given.low
        drawn = Normal(*given.normal, low, np.inf if given.high is None else given.high)
    else:
        ends = given.uniform or given.log_uniform
        assert ends is not None
        drawn = Uniform(*ends, log=given.uniform is None)
    return Sometimes(*given.sometimes, drawn) if isinstance(given, SometimesConfig) else drawn


def check_multivariate(given: MultivariateConfig, where: str) -> None:
    """Raise ConfigError for names, mean and covariance that do not make a normal distribution."""
    size = len(given.names)
    if len(set(given.names)) < size or not size:
        raise ConfigError(f"{where}.names = {given.names} must be different parameters")
    if len(given.mean) != size:
        raise ConfigError(f"{where}.mean has {len(given.mean)} entries for {size} names")
    rows = given.covariance
    if len(rows) != size or any(len(row) != size for row in rows):
        raise ConfigError(f"{where}.covariance must have {size} rows of {size} entries")
    if any(rows[i][j] != rows[j][i] for i in range(size) for j in range(i)):
        raise ConfigError(f"{where}.covariance must be symmetric")


def check_distribution(given: DistributionConfig, where: str) -> None:
    """Raise ConfigError unless it is one distribution, with ends in order."""
    kinds = {k: getattr(given, k) for k in ("normal", "uniform", "log_uniform")}
    chosen = [name for name, value in kinds.items() if value is not None]
    if len(chosen) > 1:
        removed = ", ".join(f"{where}.{name}=null" for name in chosen)
        raise ConfigError(f"{where} has {', '.join(chosen)}: remove all but one of them, {removed}")
    if not chosen:
        beside = ", beside sometimes" if isinstance(given, SometimesConfig) else ""
        raise ConfigError(f"{where} must be a number, or one of {', '.join(kinds)}{beside}")
    first, second = kinds[chosen[0]]
    if chosen[0] == "normal" and second < 0:
        raise ConfigError(f"{where}.normal = [{first:g}, {second:g}]: the width is negative")
    if chosen[0] != "normal" and first >= second:
        raise ConfigError(f"{where}.{chosen[0]} = [{first:g}, {second:g}] must increase")
    if given.low is not None and given.high is not None and given.low >= given.high:
        raise ConfigError(f"{where}: low = {given.low:g} must be below high = {given.high:g}")
    if chosen[0] != "normal" and (given.low is not None or given.high is not None):
        raise ConfigError(f"{where}: low and high belong to normal, not to {chosen[0]}")
    if isinstance(given, SometimesConfig) and not 0.0 < given.sometimes[0] < 1.0:
        raise ConfigError(
            f"{where}.sometimes = {list(given.sometimes)}: the first number is a probability "
            "between 0 and 1, the second the value"
        )


@dataclass(frozen=True)
class DistributionConfig:
    """A parameter drawn for every sample: one of normal, uniform and log_uniform."""

    normal: tuple[float, float] | None = setting(None, "mean and width")
    uniform: tuple[float, float] | None = setting(None, "lowest and highest value")
    log_uniform: tuple[float, float] | None = setting(
        None, "lowest and highest value; uniform in the logarithm", above=0
    )
    low: float | None = setting(None, "normal: values below are drawn again")
    high: float | None = setting(None, "normal: values above are drawn again")

    @staticmethod
    def meant(key: str, value: Any, where: str) -> str:
        """The end of a message on a value that is no number: how a distribution is written."""
        return "" if key else f" (to draw it: {{{drawn_as(value)}}})"


def drawn_as(value: Any) -> str:
    """What somebody may have meant by a value that stands where a distribution is wanted: the pair
    [low, high] as `uniform: [low, high]`."""
    pair = value if isinstance(value, list | tuple) and len(value) == 2 else None
    if pair is None or not all(isinstance(end, int | float) for end in pair):
        return "uniform: [LOW, HIGH]"
    return f"uniform: [{pair[0]}, {pair[1]}]"


@dataclass(frozen=True, kw_only=True)
class SometimesConfig(DistributionConfig):
    """A parameter with one value in some of the samples, and drawn in the others."""

    sometimes: tuple[float, float] = setting(
        help="probability that the parameter is exactly a value, and the value"
    )


@dataclass(frozen=True)
class MultivariateConfig:
    """Parameters drawn together from a multivariate normal."""

    names: list[str] = setting(help="parameters")
    mean: list[float] = setting(help="their means")
    covariance: list[list[float]] = setting(help="their covariance, row by row")
