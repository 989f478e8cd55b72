"""What a luminosity model consists of.

A model is a plain NumPy function of (mass_Msun, z, parameters) that returns L [Lsun]; the tracer
compiles it into the paint kernel. An argument without a default that is no parameter is a column
of the lightcone.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from streamtrain.luminosity.lines import CO10_GHZ
from streamtrain.luminosity.lines import TOLERANCE as LINE_TOLERANCE
from streamtrain.numerics import portable
from streamtrain.numerics.portable import LN10
from streamtrain.priors import Prior
from streamtrain.schema import AssumptionWarning, ConfigError, ModelRangeWarning, nearest, warn

ModelFunction = Callable[..., Any]
Range = tuple[float, float]


def lsun_per_lprime(nu_rest_GHz: float) -> float:
    """L [Lsun] of L' = 1 K km/s pc^2: 4.9e-5 at 115.27 GHz (1503.08833, equation 4)."""
    ratio = nu_rest_GHz / 115.27
    return 4.9e-5 * ratio * ratio * ratio  # products: a power would depend on the C library


@dataclass(frozen=True, repr=False)
class LuminosityModel:
    """A luminosity model: function, default parameters, scatter, priors."""

    name: str
    function: ModelFunction
    defaults: Mapping[str, float]
    source: str = ""
    scatter: Callable[[Mapping[str, Any]], tuple[Any, Any]] | None = None
    """(sigma, mu) of ln L from the parameters; this mu preserves the mean, mu = 0 the median."""
    priors: Mapping[str, Prior] = field(default_factory=dict)
    sigma_dex: ModelFunction | None = None
    """Scatter [dex] that depends on the halo, a function like `function`."""
    on_fraction: ModelFunction | None = None
    """Fraction of halos that shine at all, a function like `function`."""
    preserves: Literal["mean", "median"] = "mean"
    """What the scatter preserves."""
    nu_rest_GHz: float | None = None
    """Rest frequency of the one line it is for; None: the function takes any."""
    published_GHz: float | None = None
    """Rest frequency of the line it was published for, where the function takes any; None: as
    `nu_rest_GHz`, or it was not published."""
    usual_prior: str | None = None
    """The prior that it is compared with others by; None: 'published' if it has that, else
    'fiducial'."""
    z_range: Range | None = None
    """Redshifts it was published for; None: unknown, as of a user's model."""
    mass_range_Msun: Range | None = None
    """Halo masses likewise; 0 and infinity where the paper sets no end."""

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value:g}" for name, value in self.defaults.items())
        priors = f"; priors {', '.join(self.priors)}" if self.priors else ""
        return f"LuminosityModel({self.name}: {values or 'no parameters'}{priors})"

    def prior(self, name: str) -> Prior:
        """The prior `name`; 'fiducial' keeps every parameter at its default."""
        if name == "fiducial":
            return Prior()
        if name not in self.priors:
            known = ["fiducial", *self.priors]
            raise ConfigError(
                f"the model {self.name} has no prior '{name}': {nearest(name, known)}"
                f"{self._own_prior}"
            )
        return self.priors[name]

    @property
    def _own_prior(self) -> str:
        """How a model without a prior is given one: half a sentence with the line of YAML."""
        varied = next(iter(self.defaults.items()), None)
        if self.priors or varied is None:
            return ""
        parameter, value = varied
        width = 0.2 * abs(value) or 1.0
        return (
            "; its parameters get one of their own by {prior: fiducial, parameters: "
            f"{{{parameter}: {{normal: [{value:g}, {width:g}]}}}}}}"
        )

    @property
    def compared_prior(self) -> str:
        """Name of the prior that the model is compared with others by, see `usual_prior`."""
        return self.usual_prior or ("published" if "published" in self.priors else "fiducial")

    @property
    def lightest_Msun(self) -> float:
        """The lightest halo that it was published for; 0: none is named."""
        return 0.0 if self.mass_range_Msun is None else self.mass_range_Msun[0]

    def published_for(self, nu_rest_GHz: float) -> bool:
        """Whether it was published for a line, or for CO(1-0) and has a parameter for the ratio of
        the line to that, `r_J1`."""
        line = self.published_GHz or self.nu_rest_GHz
        if line is None:
            return False
        return abs(nu_rest_GHz / line - 1.0) < LINE_TOLERANCE or (
            "r_J1" in self.defaults and _co_level(nu_rest_GHz) > 1
        )

    def parameters(self, given: Mapping[str, float]) -> dict[str, float]:
        """The defaults with `given` values in their place. Raises ConfigError for an unknown name,
        for a negative width, which is one whose name begins with sigma, and for a negative duty."""
        if not isinstance(given, Mapping):
            raise ConfigError(
                f"parameters must be a mapping like {{'alpha': 1.3}}, not {type(given).__name__}"
            )
        for name in given:
            if name not in self.defaults:
                raise ConfigError(
                    f"the model {self.name} has no parameter '{name}': "
                    f"{nearest(str(name), self.defaults)}"
                )
        for name, value in {**self.defaults, **given}.items():
            if name.startswith("sigma") and isinstance(value, int | float) and value < 0:
                raise ConfigError(
                    f"{name} = {value:g} of the model {self.name}: a scatter is not negative"
                )
            if name == "duty" and isinstance(value, int | float) and value < 0:
                raise ConfigError(
                    f"duty = {value:g} of the model {self.name}: a share of halos is not negative"
                )
        return {**self.defaults, **given}

    def with_scatter(self, scatter: bool | Literal["mean", "median"]) -> LuminosityModel:
        """The model with its scatter as published (True), without (False), or preserving the mean
        or the median of L. Raises ConfigError for anything else."""
        if isinstance(scatter, bool | np.bool_):
            return self if scatter else replace(self, scatter=None, sigma_dex=None)
        if not isinstance(scatter, str) or scatter not in ("mean", "median"):
            raise ConfigError(f"scatter = {scatter!r} is none of True, False, 'mean', 'median'")
        return replace(self, preserves=scatter)

    def log2_scatter(self, parameters: Mapping[str, Any]) -> tuple[Any, Any]:
        """Scatter of log2 L and what is added to log2 L, numbers or [B] as `parameters` are; for a
        model whose scatter depends on the halo: a switch, and what the squared scatter is
        multiplied by."""
        sigma, mu = 0.0, 0.0
        if self.sigma_dex is not None:
            sigma, mu = 1.0, -0.5 * portable.LN2
        elif self.scatter is not None:
            with np.errstate(all="ignore"):  # `CompiledModel.values` refuses what is not finite
                sigma, mu = (value / portable.LN2 for value in self.scatter(parameters))
        return sigma, mu if self.preserves == "mean" else 0.0

    @property
    def traced_parameters(self) -> list[str]:
        """Parameters that the compiled functions take (scatter widths may not be among them)."""
        functions = (self.function, self.sigma_dex, self.on_fraction)
        taken = {n for f in functions if f is not None for n in inspect.signature(f).parameters}
        return [name for name in self.defaults if name in taken]

    def check_line(self, nu_rest_GHz: float) -> None:
        """ConfigError if a grid's line is another one than the model's."""
        own = self.nu_rest_GHz
        if own is not None and abs(nu_rest_GHz / own - 1.0) > 0.001:
            raise ConfigError(
                f"the model {self.name} is for the line at {own:g} GHz, but "
                f"nu_rest_GHz = {nu_rest_GHz:g}: set grid.nu_rest_GHz={own:g} (and the band)"
            )

    def check_ratio(self, nu_rest_GHz: float, given: Collection[str]) -> None:
        """Warn (AssumptionWarning) if a model of the L' of CO(1-0) is used for a higher CO line
        while `r_J1`, the ratio of their L', is not among the `given` parameters."""
        upper = _co_level(nu_rest_GHz)
        if "r_J1" in self.defaults and "r_J1" not in given and upper > 1:
            warn(
                f"the model {self.name} is of CO(1-0), and CO({upper}-{upper - 1}) is taken to "
                f"have the same L' (r_J1 = {self.defaults['r_J1']:g}): the parameter r_J1 sets "
                "their ratio, in galaxies about 0.75 for J = 2 and 0.3 for J = 4",
                AssumptionWarning,
            )

    def extrapolated(self, z_range: Range) -> str:
        """Half a sentence if a band's redshifts are others than it was published for, else ''."""
        if self.z_range is None or _within(z_range, self.z_range):
            return ""
        return "published for z = {:g}..{:g}, extrapolated to z = {:.2f}..{:.2f}".format(
            *self.z_range, *z_range
        )

    def check_range(self, z_range: Range, mass_range_Msun: Range) -> None:
        """Warn (ModelRangeWarning) if a band's redshifts or the masses of its halos are others than
        the model was published for."""
        published, held = [], []
        if self.z_range is not None and not _within(z_range, self.z_range):
            published.append("z = {:g}..{:g}".format(*self.z_range))
            held.append("z = {:.2f}..{:.2f}".format(*z_range))
        if self.mass_range_Msun is not None and not _within(mass_range_Msun, self.mass_range_Msun):
            published.append(_masses(self.mass_range_Msun))
            held.append(_masses(mass_range_Msun))
        if held:
            warn(
                f"the model {self.name} is published for {' and '.join(published)}, but the band "
                f"holds {' and '.join(held)}: its luminosities are extrapolated",
                ModelRangeWarning,
            )


def _co_level(nu_rest_GHz: float) -> int:
    """J of CO(J, J-1) for J up to 40, 0 for another line."""
    upper = round(nu_rest_GHz / CO10_GHZ)
    ladder = 1 <= upper <= 40 and abs(nu_rest_GHz / (upper * CO10_GHZ) - 1.0) < 0.003
    return upper if ladder else 0


def _within(inner: Range, outer: Range) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]


def _masses(ends: Range) -> str:
    if math.isinf(ends[1]):
        return f"halos above {ends[0]:.3g} Msun"
    return f"halos of {ends[0]:.3g}..{ends[1]:.3g} Msun"


def mean_preserving(sigma_dex: Any) -> tuple[Any, Any]:
    """(sigma, mu) of ln L for a log-normal scatter [dex] that keeps <L>."""
    sigma = LN10 * sigma_dex
    return sigma, -0.5 * sigma * sigma
