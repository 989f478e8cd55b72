"""How halos shine: published luminosity models L(M, z), their scatter and their priors.

A model is a plain NumPy function of (mass_Msun, z, parameters) that returns L [Lsun]; the tracer
compiles it into the paint kernel. An argument without a default that is no parameter is a column
of the lightcone. L = 4.9e-5 (nu_rest / 115.27 GHz)^3 L' [K km/s pc^2], as in all published codes.
"""

from __future__ import annotations

import importlib.util
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from streamtrain.generator.priors import Correlated, Normal, Prior
from streamtrain.schema import ConfigError, nearest

LN10 = 2.302585092994046
ModelFunction = Callable[..., Any]


def lsun_per_lprime(nu_rest_GHz: float) -> float:
    """L [Lsun] of L' = 1 K km/s pc^2: 4.9e-5 at 115.27 GHz (1503.08833, equation 4)."""
    ratio = nu_rest_GHz / 115.27
    return 4.9e-5 * ratio * ratio * ratio  # products: a power would depend on the C library


@dataclass(frozen=True)
class LuminosityModel:
    """A luminosity model: function, default parameters, scatter, priors."""

    name: str
    function: ModelFunction
    defaults: Mapping[str, float]
    source: str = ""
    scatter: Callable[[Mapping[str, Any]], tuple[Any, Any]] | None = None
    """(sigma, mu) of ln L at fixed mass; mean-preserving if mu = -sigma^2 / 2."""
    priors: Mapping[str, Prior] = field(default_factory=dict)

    def prior(self, name: str) -> Prior:
        """The prior `name`; 'fiducial' keeps every parameter at its default."""
        if name == "fiducial":
            return Prior()
        if name not in self.priors:
            known = ["fiducial", *self.priors]
            raise ConfigError(
                f"the model {self.name} has no prior '{name}': {nearest(name, known)}"
            )
        return self.priors[name]

    def parameters(self, given: Mapping[str, float]) -> dict[str, float]:
        """The defaults with `given` values in their place; an unknown name is an error."""
        for name in given:
            if name not in self.defaults:
                raise ConfigError(
                    f"the model {self.name} has no parameter '{name}': "
                    f"{nearest(name, self.defaults)}"
                )
        return {**self.defaults, **given}

    @property
    def traced_parameters(self) -> list[str]:
        """Parameters that the function itself takes (scatter widths may not be among them)."""
        return [n for n in inspect.signature(self.function).parameters if n in self.defaults]


def _mean_preserving(sigma_dex: Any) -> tuple[Any, Any]:
    sigma = LN10 * sigma_dex
    return sigma, -0.5 * sigma * sigma


def li16(
    mass_Msun: Any,
    z: Any,
    *,
    sfr: Any,
    nu_rest_GHz: float,
    log10_delta_mf: Any = 0.0,
    alpha: Any = 1.37,
    beta: Any = -1.74,
) -> Any:
    """L [Lsun] from the star-formation rate [Msun/yr] through the infrared luminosity."""
    infrared = sfr * 1e10 / 10**log10_delta_mf
    lprime = (infrared * 10**-beta) ** (1 / alpha)
    return lsun_per_lprime(nu_rest_GHz) * lprime


def _li16_scatter(p: Mapping[str, Any]) -> tuple[Any, Any]:
    """Two mean-preserving scatters, the first through a power 1/alpha, as one normal."""
    s_sfr, s_co = LN10 * p["sigma_sfr"], LN10 * p["sigma_lco"]
    variance = (s_sfr / p["alpha"]) * (s_sfr / p["alpha"]) + s_co * s_co
    mu = -(s_sfr * s_sfr) / (2.0 * p["alpha"]) - 0.5 * s_co * s_co
    return np.sqrt(variance), mu


def _li16_prior(
    delta: float, alpha: tuple[float, float], beta: tuple[float, float], sigma: float
) -> Prior:
    return Prior(
        {
            "log10_delta_mf": Normal(0.0, delta),
            "alpha": Normal(*alpha, low=0.5),
            "beta": Normal(*beta),
            "sigma_sfr": Normal(0.3, sigma, low=0.0),
            "sigma_lco": Normal(0.3, sigma, low=0.0),
        }
    )


def chung22(
    mass_Msun: Any,
    z: Any,
    *,
    nu_rest_GHz: float,
    A: Any = -2.85,
    B: Any = -0.42,
    log10_C: Any = 10.63,
    log10_Mstar: Any = 12.3,
) -> Any:
    """L [Lsun], a double power law of the halo mass."""
    ratio = mass_Msun / 10**log10_Mstar
    lprime = 10**log10_C / (ratio**A + ratio**B)
    return lsun_per_lprime(nu_rest_GHz) * lprime


def padmanabhan18(
    mass_Msun: Any,
    z: Any,
    *,
    nu_rest_GHz: float,
    m10: Any = 4.17e12,
    m11: Any = -1.17,
    n10: Any = 0.0033,
    n11: Any = 0.04,
    b10: Any = 0.95,
    b11: Any = 0.48,
    y10: Any = 0.66,
    y11: Any = -0.33,
) -> Any:
    """L [Lsun], abundance matching of CO(1-0) at z = 0..3."""
    t = z / (1 + z)
    ratio = mass_Msun / 10 ** (np.log10(m10) + m11 * t)
    lprime = (
        2 * (n10 + n11 * t) * mass_Msun / (ratio ** -(b10 + b11 * t) + ratio ** (y10 + y11 * t))
    )
    return lsun_per_lprime(nu_rest_GHz) * lprime


def _padmanabhan18_rises_and_falls(p: Mapping[str, Any]) -> Any:
    """N, b and y positive over 0 <= z (t = 0..1): the published double power law."""
    signs = [(p[f"{k}10"] > 0) & (p[f"{k}10"] + p[f"{k}11"] > 0) for k in "nby"]
    return signs[0] & signs[1] & signs[2]


def breysse15(mass_Msun: Any, z: Any, *, A: Any = 2e-6, b: Any = 1.0) -> Any:
    """L [Lsun] = A M^b."""
    return A * mass_Msun**b


MODELS: dict[str, LuminosityModel] = {
    model.name: model
    for model in (
        LuminosityModel(
            "li16",
            li16,
            {
                "log10_delta_mf": 0.0,
                "alpha": 1.37,
                "beta": -1.74,
                "sigma_sfr": 0.3,
                "sigma_lco": 0.3,
            },
            "Connecting CO Intensity Mapping to Molecular Gas and Star Formation in the Epoch of "
            "Galaxy Assembly (Li et al. 2016), 1503.08833",
            _li16_scatter,
            {
                "wide": _li16_prior(0.3, (1.37, 0.37), (-1.74, 3.74), 0.1),
                "narrow": _li16_prior(0.03, (1.37, 0.037), (-1.74, 0.374), 0.01),
                "stronger": _li16_prior(0.3, (1.37, 0.04), (-1.74, 0.4), 0.1),
                "comap": _li16_prior(0.3, (1.17, 0.37), (0.21, 3.74), 0.1),
            },
        ),
        LuminosityModel(
            "chung22",
            chung22,
            {"A": -2.85, "B": -0.42, "log10_C": 10.63, "log10_Mstar": 12.3, "sigma": 0.42},
            "COMAP Early Science: V. Constraints and Forecasts at z ~ 3 (Chung et al. 2022), "
            "2111.05931",
            lambda p: _mean_preserving(p["sigma"]),
            {
                "wide": Prior(
                    {
                        "A": Normal(-1.66, 2.33),
                        "B": Normal(0.04, 1.26),
                        "log10_C": Normal(10.25, 5.29),
                        "log10_Mstar": Normal(12.41, 1.77),
                        "sigma": Normal(0.4, 0.1, low=0.0),
                    },
                    constraint=lambda p: p["A"] < p["B"],
                ),
                "correlated": Prior(
                    correlated=Correlated(
                        ("A", "B", "log10_C", "log10_Mstar", "sigma"),
                        (-3.614278, 0.45687856, 10.68714991, 12.47593157, 0.35517494),
                        (
                            (2.20772089, 0.08729876, 0.16230234, 0.19120324, -0.02930135),
                            (0.08729876, 0.99506924, 0.19754548, 0.08097735, 0.02139264),
                            (0.16230234, 0.19754548, 0.22875155, 0.16540717, -0.0210548),
                            (0.19120324, 0.08097735, 0.16540717, 0.15713717, -0.02256431),
                            (-0.02930135, 0.02139264, -0.0210548, -0.02256431, 0.02119048),
                        ),
                    ),
                    constraint=lambda p: (p["A"] < p["B"]) & (p["sigma"] > 0),
                ),
            },
        ),
        LuminosityModel(
            "padmanabhan18",
            padmanabhan18,
            {
                "m10": 4.17e12,
                "m11": -1.17,
                "n10": 0.0033,
                "n11": 0.04,
                "b10": 0.95,
                "b11": 0.48,
                "y10": 0.66,
                "y11": -0.33,
            },
            "Constraining the CO intensity mapping power spectrum at intermediate redshifts "
            "(Padmanabhan 2018), 1706.01471",
            None,
            {
                "published": Prior(
                    {
                        "m10": Normal(4.17e12, 2.03e12, low=1e11),
                        "m11": Normal(-1.17, 0.85),
                        "n10": Normal(0.0033, 0.0016),
                        "n11": Normal(0.04, 0.03),
                        "b10": Normal(0.95, 0.46),
                        "b11": Normal(0.48, 0.35),
                        "y10": Normal(0.66, 0.32),
                        "y11": Normal(-0.33, 0.24),
                    },
                    constraint=_padmanabhan18_rises_and_falls,
                )
            },
        ),
        LuminosityModel(
            "breysse15",
            breysse15,
            {"A": 2e-6, "b": 1.0},
            "Masking line foregrounds in intensity-mapping surveys (Breysse, Kovetz and "
            "Kamionkowski 2015), 1503.05202",
            None,
            {"published": Prior({"A": Normal(2e-6, 5e-7, low=0.0), "b": Normal(1.0, 0.125)})},
        ),
    )
}


def user_model(function: ModelFunction, name: str | None = None) -> LuminosityModel:
    """A luminosity model from a user's function of (mass_Msun, z, *, parameters=defaults).

    Keyword arguments with a numeric default are its parameters; one called `sigma_dex` is the
    mean-preserving log-normal scatter. The attribute `function.prior`, {name: (mean, width)} or
    {name: Normal(...)}, is drawn from with `prior: own`. Raises ConfigError if the function cannot
    be a model.
    """
    name = name or str(getattr(function, "__name__", "model"))
    if not callable(function):
        raise ConfigError(f"the model {name} is not a function of (mass_Msun, z)")
    arguments = list(inspect.signature(function).parameters.values())
    if [a.name for a in arguments[:2]] != ["mass_Msun", "z"]:
        shown = ", ".join(a.name for a in arguments)
        raise ConfigError(f"the model {name}({shown}) must start with the arguments mass_Msun, z")
    defaults = {
        a.name: float(a.default)
        for a in arguments[2:]
        if isinstance(a.default, int | float) and a.name != "nu_rest_GHz"
    }
    own = {
        k: v if isinstance(v, Normal) else Normal(*v)
        for k, v in getattr(function, "prior", {}).items()
    }
    unknown = [k for k in own if k not in defaults]
    if unknown:
        raise ConfigError(
            f"the prior of {name} names '{unknown[0]}': {nearest(unknown[0], defaults)}"
        )
    scattered = "sigma_dex" in defaults
    return LuminosityModel(
        name,
        function,
        defaults,
        "a user's function",
        (lambda p: _mean_preserving(p["sigma_dex"])) if scattered else None,
        {"own": Prior(own)} if own else {},
    )


def find_model(model: str | ModelFunction) -> LuminosityModel:
    """A model by its name, as `file.py:function`, or from a function.

    Raises ConfigError with the nearest valid name, or what is wrong with the file.
    """
    if not isinstance(model, str):
        return user_model(model)
    match = re.fullmatch(r"(.+\.py):(\w+)", model)
    if match is None:
        if model not in MODELS:
            raise ConfigError(f"unknown luminosity model '{model}': {nearest(model, MODELS)}")
        return MODELS[model]
    path, name = Path(match[1]), match[2]
    if not path.is_file():
        raise ConfigError(f"emit.line.model = '{model}': there is no file {path}")
    spec = importlib.util.spec_from_file_location(f"streamtrain_user_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, name):
        raise ConfigError(f"emit.line.model = '{model}': {path} defines no '{name}'")
    return user_model(getattr(module, name), name)
