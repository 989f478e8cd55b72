"""Options of a synthetic lightcone that are drawn for every sky, a function of its seed alone.

Halo makers differ by tens of per cent in the number of halos and in how they cluster. A network
that is trained on skies of one of them takes that for knowledge; on skies from such priors it
cannot.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from streamtrain.machine.files import sha256_of
from streamtrain.numerics.rng import STAGE_VARY, Draws
from streamtrain.priors import (
    DistributionConfig,
    Normal,
    Prior,
    Uniform,
    check_distribution,
    distribution,
)
from streamtrain.schema import setting, to_dict

PLACES = (
    "mass_function",
    "bias",
    "abundance",
    "abundance_tilt",
    "bias_factor",
    "infall",
    "cosmology.Omega_m",
    "cosmology.Omega_b",
    "cosmology.h",
    "cosmology.n_s",
    "cosmology.sigma8",
)
"""Every option draws random numbers of its own, by its place here, so that its value does not
depend on what else is drawn. New ones go to the end."""
LEAST_INSIDE = 0.05
"""Share of a normal distribution that must lie between its bounds."""
FAR_SIGMAS = 6.0
"""Where a normal distribution is taken to end: one draw in 5e8 lies further from the mean."""


@dataclass(frozen=True)
class ChoiceConfig:
    """A name drawn from several, each as likely as the others."""

    choice: tuple[str, ...] = setting(help="names")


def _drawn(help: str) -> Any:
    return setting(None, help, later=True)


@dataclass(frozen=True)
class CosmologyPrior:
    """Parameters of the cosmology that are drawn."""

    Omega_m: DistributionConfig | None = _drawn("matter density")
    Omega_b: DistributionConfig | None = _drawn("baryon density")
    h: DistributionConfig | None = _drawn("Hubble constant over 100 km/s/Mpc")
    n_s: DistributionConfig | None = _drawn("slope of the primordial spectrum")
    sigma8: DistributionConfig | None = _drawn("linear rms density contrast in 8/h Mpc")


@dataclass(frozen=True)
class SkyPrior:
    """What is drawn of the options of a sky; the others are the same for all skies."""

    mass_function: ChoiceConfig | None = _drawn("which mass function")
    bias: ChoiceConfig | None = _drawn("which bias")
    abundance: DistributionConfig | None = _drawn("factor on the mass function")
    abundance_tilt: DistributionConfig | None = _drawn("tilt of the mass function")
    bias_factor: DistributionConfig | None = _drawn("factor on the bias")
    infall: DistributionConfig | None = _drawn("more displacement on small scales")
    cosmology: CosmologyPrior | None = _drawn("parameters of the cosmology")

    def said(self) -> dict[str, ChoiceConfig | DistributionConfig]:
        """What is drawn by its name, as "bias" or "cosmology.h", in the order of `PLACES`."""
        given = {}
        for name in PLACES:
            value: Any = self
            for part in name.split("."):
                value = getattr(value, part, None)
            if value is not None:
                given[name] = value
        return given

    def to_dict(self) -> dict[str, Any]:
        """The prior as plain data, without what it leaves out."""
        return nested(
            {
                name: {k: v for k, v in to_dict(given).items() if v is not None}
                for name, given in self.said().items()
            }
        )

    @property
    def digest(self) -> str:
        """sha256 of the prior [hex]."""
        return sha256_of(self.to_dict())

    def draw(self, seed: int, spans: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
        """What is drawn for the sky of a seed, by name as in `said`.

        spans: lowest and highest value of each option that is a number, within which a normal
        distribution without bounds of its own is drawn again.
        """
        values: dict[str, Any] = {}
        for name, given in self.said().items():
            place = np.array([PLACES.index(name)], np.uint64)
            draws = Draws(seed, "train", place, STAGE_VARY)
            if isinstance(given, ChoiceConfig):
                number = int(float(draws.uniform([0])[0, 0]) * len(given.choice))
                values[name] = given.choice[min(number, len(given.choice) - 1)]
            else:
                prior = Prior({name: _within(given, spans[name])})
                values[name] = float(prior.draw(draws, {name: 0.0})[name][0])
        return values

    def check(
        self, spans: Mapping[str, tuple[float, float]], cosmology: Mapping[str, float]
    ) -> None:
        """Raise ValueError, one sentence, for what cannot be drawn. spans: as in `draw`;
        cosmology: the parameters where they are not drawn."""
        said = self.said()
        if not said:
            raise ValueError(f"vary draws nothing: it takes {', '.join(PLACES)}")
        for name, given in said.items():
            where = f"vary.{name}"
            if isinstance(given, ChoiceConfig):
                if not given.choice or len(set(given.choice)) < len(given.choice):
                    raise ValueError(f"{where}.choice must list different names")
            else:
                check_distribution(given, where)
                _check_span(given, spans[name], where)
        ends = {}
        for parameter in ("Omega_m", "Omega_b"):
            name, value = f"cosmology.{parameter}", cosmology[parameter]
            ends[parameter] = _ends(said[name], spans[name]) if name in said else (value, value)
        if ends["Omega_b"][1] >= ends["Omega_m"][0]:
            raise ValueError(
                f"vary.cosmology: Omega_b, up to {ends['Omega_b'][1]:g}, could exceed Omega_m, "
                f"from {ends['Omega_m'][0]:g}, which includes the baryons: give them low and high"
            )


def nested(named: Mapping[str, Any]) -> dict[str, Any]:
    """Values by names such as "cosmology.h", with those of the cosmology in a mapping of their
    own: what an options file takes."""
    plain: dict[str, Any] = {}
    for name, value in named.items():
        section, _, parameter = name.rpartition(".")
        (plain.setdefault(section, {}) if section else plain)[parameter] = value
    return plain


def _within(given: DistributionConfig, span: tuple[float, float]) -> Normal | Uniform:
    """The distribution, a normal one between its bounds or else the ends of the option's span."""
    drawn = distribution(given)
    assert isinstance(drawn, Normal | Uniform)
    if isinstance(drawn, Uniform):
        return drawn
    return replace(drawn, low=max(drawn.low, span[0]), high=min(drawn.high, span[1]))


def _ends(given: Any, span: tuple[float, float]) -> tuple[float, float]:
    """The lowest and the highest value that are drawn."""
    drawn = _within(given, span)
    if isinstance(drawn, Uniform):
        return drawn.low, drawn.high
    reach = FAR_SIGMAS * drawn.width
    return max(drawn.low, drawn.mean - reach), min(drawn.high, drawn.mean + reach)


def _check_span(given: DistributionConfig, span: tuple[float, float], where: str) -> None:
    """ValueError for values that an option does not take, and bounds that are hardly ever met."""
    said = {one.name: getattr(given, one.name) for one in fields(DistributionConfig)}
    ends = given.uniform or given.log_uniform or (said["low"], said["high"])
    for value in ends:
        if value is not None and not span[0] <= value <= span[1]:
            raise ValueError(
                f"{where}: {value:g} is outside what it may be, {span[0]:g}..{span[1]:g}"
            )
    drawn = _within(given, span)
    if not isinstance(drawn, Normal):
        return
    low, high = drawn.low, drawn.high
    inside = float(low < drawn.mean < high)
    if drawn.width > 0.0:
        places = [(end - drawn.mean) / (drawn.width * math.sqrt(2.0)) for end in (low, high)]
        inside = 0.5 * (math.erf(places[1]) - math.erf(places[0]))
    if inside < LEAST_INSIDE:
        raise ValueError(
            f"{where}.normal = [{drawn.mean:g}, {drawn.width:g}] lies within {low:g}..{high:g} in "
            f"{100.0 * inside:.2g} % of its draws only: take another mean or width, or uniform"
        )
