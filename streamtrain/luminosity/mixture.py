"""The luminosity models that a sample may be made with, and what is drawn of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from streamtrain.luminosity.model import LuminosityModel
from streamtrain.luminosity.registry import find_model
from streamtrain.luminosity.settings import ComponentConfig, LineConfig
from streamtrain.numerics.rng import Draws
from streamtrain.priors import (
    MOST_PARAMETERS,
    Condition,
    Correlated,
    Fixed,
    Parameters,
    Prior,
    distribution,
)
from streamtrain.schema import ConfigError, nearest


@dataclass(frozen=True)
class Component:
    """A luminosity model with the prior of its parameters."""

    name: str
    weight: float
    model: LuminosityModel
    prior: Prior
    prior_name: str

    @classmethod
    def from_config(cls, name: str, config: ComponentConfig) -> Component:
        """Raises ConfigError for what the model does not have."""
        model = find_model(config.model).with_scatter(config.scatter)
        given = {n: distribution(value) for n, value in config.parameters.items()}
        model.parameters({n: d.value if isinstance(d, Fixed) else 0.0 for n, d in given.items()})
        held = {n: d for n, d in given.items() if isinstance(d, Fixed)}
        drawn = {n: d for n, d in given.items() if n not in held}
        published = model.prior(config.prior)
        prior = replace(
            published,
            parameters={**published.parameters, **drawn, **held},
            scale=config.prior_scale,
        )
        if config.multivariate is not None:
            joint = config.multivariate
            model.parameters(dict.fromkeys(joint.names, 0.0))
            covariance = tuple(map(tuple, joint.covariance))
            correlated = Correlated(tuple(joint.names), tuple(joint.mean), covariance)
            correlated.cholesky()
            others = {
                n: d for n, d in prior.parameters.items() if n in given or n not in joint.names
            }
            prior = replace(prior, correlated=correlated, parameters=others)
        for text in config.constraints:
            both = prior.constraint, parse_constraint(text, model.defaults)
            prior = replace(prior, constraint=_all(both))
        joint_size = len(prior.correlated.names) if prior.correlated is not None else 0
        if max(len(prior.parameters), joint_size) > MOST_PARAMETERS:
            raise ConfigError(f"the prior of {name} has more than {MOST_PARAMETERS} parameters")
        return cls(name, config.weight, model, prior, config.prior)

    def identity(self) -> str:
        """What decides its draws besides the kernel code, as text."""
        model, prior = self.model, self.prior
        parts = [dict(model.defaults), model.preserves, dict(prior.parameters)]
        return repr([*parts, prior.correlated, prior.scale])


class Mixture:
    """Some luminosity models, one of which is drawn for every sample by weight."""

    def __init__(self, line: LineConfig) -> None:
        sections = zip(line.class_names, line.components.values(), strict=True)
        self.components = [Component.from_config(name, section) for name, section in sections]
        weights = np.array([c.weight for c in self.components])
        self.upper = np.add.accumulate(weights)
        self.upper /= self.upper[-1]
        """Shares of the samples, up to and with each component, the last of which is 1."""

    @property
    def names(self) -> list[str]:
        """Names of the components, which are the classes of a classifier."""
        return [component.name for component in self.components]

    @property
    def models(self) -> list[LuminosityModel]:
        """Luminosity models of the components, in their order."""
        return [component.model for component in self.components]

    def share(self, number: int) -> float:
        """Fraction of the samples that a component makes."""
        return float(np.diff(self.upper, prepend=0.0)[number])

    def choose(self, draws: Draws) -> NDArray[np.int64]:
        """Number of the component of B samples, [B]."""
        if len(self.components) == 1:
            return np.zeros(len(draws.indices), np.int64)
        u = draws.uniform([0])[:, 0]
        found = np.searchsorted(self.upper, u, side="right")
        return np.minimum(found, len(self.components) - 1)

    def draw(
        self, draws: Draws, choice: NDArray[np.int64], accept: Sequence[Condition]
    ) -> list[Parameters]:
        """For every component the parameters of the samples that chose it, in their order.

        accept: a further condition on the draws of each component.
        """
        return [
            component.prior.draw(
                draws.take(np.flatnonzero(choice == number)),
                component.model.defaults,
                condition,
            )
            for number, (component, condition) in enumerate(
                zip(self.components, accept, strict=True)
            )
        ]


_COMPARISONS: dict[str, Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.bool_]]] = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}


def parse_constraint(text: str, parameters: Mapping[str, float]) -> Condition:
    """A condition on parameters, as in 'A < B' or '0 < sigma <= 1'.

    Raises ConfigError for anything but comparisons of known parameters and numbers.
    """
    parts = [part.strip() for part in re.split(r"(<=|>=|<|>)", text)]
    if len(parts) < 3 or not all(parts):
        raise ConfigError(f"the constraint '{text}' is not a comparison as in 'A < B'")
    sides = [_side(part, text, parameters) for part in parts[::2]]

    def holds(values: Parameters) -> NDArray[np.bool_]:
        numbers = [values[s] if isinstance(s, str) else np.float64(s) for s in sides]
        compared = [
            _COMPARISONS[sign](left, right)  # type: ignore[arg-type]
            for left, sign, right in zip(numbers, parts[1::2], numbers[1:], strict=False)
        ]
        return reduce(np.logical_and, compared)

    return holds


def _side(part: str, text: str, parameters: Mapping[str, float]) -> str | float:
    if part in parameters:
        return part
    try:
        return float(part)
    except ValueError:
        raise ConfigError(
            f"the constraint '{text}': '{part}' is neither a number nor a parameter: "
            f"{nearest(part, parameters)}"
        ) from None


def _all(conditions: Sequence[Condition | None]) -> Condition:
    """True where every condition is."""
    given = [condition for condition in conditions if condition is not None]

    def holds(values: Parameters) -> NDArray[np.bool_]:
        return reduce(np.logical_and, [condition(values) for condition in given])

    return holds
