"""How many halos there are of each mass, and how strongly they cluster on large scales.

The choice among published mass functions is the largest error of a synthetic lightcone: at
2.5e10 Msun and z = 2.9 they differ by tens of per cent. So every option carries its mass
definition, and a lightcone records both.

Options named `colossus:MODEL[:DEFINITION]` are those of the colossus package, which is imported
where one is used. It keeps its cosmology in a global variable, which is put back afterwards.

References:
    COLOSSUS: a Python toolkit for cosmology, large-scale structure and dark matter halos
    (Diemer, 2018), arXiv:1712.04512
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from streamtrain.cosmology import DELTA_C, T_CMB_K, Cosmology

Array = NDArray[np.float64]

PIVOT_MSUN = 1e12
"""Where a tilt leaves the abundance as it is."""


@dataclass(frozen=True)
class MassFunction:
    """A published abundance of halos, `dn/dlnM = f(sigma, z) rho_m / M |dln sigma/dlnM|`."""

    name: str
    """Name of the option."""
    mass_definition: str
    """What is meant by the mass of a halo."""
    multiplicity: Callable[[Array, Array, Cosmology], Array]
    """f(sigma, z, cosmology), halos per unit of ln(1/sigma), dimensionless."""
    reference: str
    """Title (authors, year), arXiv number and the range of the calibration."""
    factor: float = 1.0
    """What the published abundance is multiplied by."""
    tilt: float = 0.0
    """The power of M / 1e12 Msun that it is multiplied by, too."""

    def dn_dlog10M(self, mass_Msun: ArrayLike, z: ArrayLike, cosmology: Cosmology) -> Array:
        """Comoving number density per decade of mass [1/Mpc^3/dex]; M and z broadcast."""
        mass, z = np.asarray(mass_Msun, np.float64), np.asarray(z, np.float64)
        slope = -cosmology.dlnsigma_dlnM(mass)
        per_ln_mass = self.multiplicity(cosmology.sigma(mass, z), z, cosmology) * slope
        published = math.log(10.0) * per_ln_mass * cosmology.matter_density / mass
        return published * (self.factor * (mass / PIVOT_MSUN) ** self.tilt)

    def number_density(
        self, mass_edges_Msun: tuple[float, float], z: ArrayLike, cosmology: Cosmology
    ) -> Array:
        """Comoving number density of halos between two masses [1/Mpc^3], the shape of z."""
        low, high = mass_edges_Msun
        if not 0.0 < low < high:
            raise ValueError(f"mass edges {low:g}, {high:g} Msun must be positive and increasing")
        node, weight = np.polynomial.legendre.leggauss(64)
        half = 0.5 * math.log10(high / low)
        mass = low * 10.0 ** (half * (node + 1.0))
        z = np.asarray(z, np.float64)
        return half * (self.dn_dlog10M(mass, z[..., None], cosmology) @ weight)


def _tinker08(sigma: Array, z: Array, cosmology: Cosmology) -> Array:
    """Equations 3 and 5 to 8 at an overdensity of 200 against the mean; z not capped."""
    growth = 1.0 + z
    a = 1.47 * growth**-0.06
    b = 2.57 * growth ** -(10.0 ** -((0.75 / math.log10(200.0 / 75.0)) ** 1.2))
    amplitude = 0.186 * growth**-0.14
    return amplitude * ((sigma / b) ** -a + 1.0) * np.exp(-1.19 / sigma**2)


def _watson13_fof(sigma: Array, z: Array, cosmology: Cosmology) -> Array:
    """Equation 12 with the universal parameters of table 2."""
    return 0.282 * ((1.406 / sigma) ** 2.163 + 1.0) * np.exp(-1.210 / sigma**2)


MASS_FUNCTIONS: dict[str, MassFunction] = {
    "tinker08": MassFunction(
        "tinker08",
        "200m: spherical overdensity of 200 times the mean matter density",
        _tinker08,
        "Toward a halo mass function for precision cosmology (Tinker et al., 2008), "
        "arXiv:0803.2706; calibrated for 1e11..1e15 Msun/h, z < 2.5, extrapolated beyond",
    ),
    "watson13_fof": MassFunction(
        "watson13_fof",
        "FoF: friends of friends with a linking length of 0.2",
        _watson13_fof,
        "The halo mass function through the cosmic ages (Watson et al., 2013), "
        "arXiv:1212.0095; calibrated for z < 26; what PINOCCHIO is tuned to",
    ),
}
"""The options by name."""


def mass_function(name: str) -> MassFunction:
    """The mass function called `name`; ValueError lists the names there are.

    `colossus:MODEL` and `colossus:MODEL:DEFINITION` take those of the colossus package.
    """
    if name.startswith(PREFIX):
        model, definition = find_mass_function(name)
        return MassFunction(
            name,
            f"{definition}, as colossus calls it",
            partial(multiplicity, model, definition),
            f"model {model} of colossus (Diemer, 2018), arXiv:1712.04512",
        )
    if name not in MASS_FUNCTIONS:
        allowed = ", ".join(sorted(MASS_FUNCTIONS))
        raise ValueError(
            f"unknown mass function {name!r}; allowed: {allowed}, or colossus:MODEL for those of "
            "the colossus package"
        )
    return MASS_FUNCTIONS[name]


def halo_bias(
    mass_Msun: ArrayLike, z: ArrayLike, cosmology: Cosmology, model: str = "tinker10"
) -> Array:
    """Large-scale Eulerian bias of halos of mass M at z; M and z broadcast.

    `model` is `tinker10` or `colossus:MODEL`; ValueError for another.
    """
    nu = DELTA_C / cosmology.sigma(mass_Msun, z)
    if model.startswith(PREFIX):
        return bias(model, nu, np.asarray(z, np.float64), cosmology)
    if model != "tinker10":
        raise ValueError(
            f"unknown bias {model!r}; allowed: tinker10, or colossus:MODEL for those of the "
            "colossus package"
        )
    return _tinker10(nu)


def _tinker10(nu: Array) -> Array:
    """Bias of halos of 200m mass: equation 6 and table 2 at an overdensity of 200 against the
    mean, peak height `nu = 1.686 / sigma(M, z)`.

    References:
        The large-scale bias of dark matter halos (Tinker et al., 2010), arXiv:1001.3162
    """
    y = math.log10(200.0)
    fade = math.exp(-((4.0 / y) ** 4))
    rise = 1.0 + 0.24 * y * fade
    a = 0.44 * y - 0.88
    c = 0.019 + 0.107 * y + 0.19 * fade
    return 1.0 - rise * nu**a / (nu**a + DELTA_C**a) + 0.183 * nu**1.5 + c * nu**2.4


PREFIX = "colossus:"


def find_mass_function(name: str) -> tuple[str, str]:
    """Model and mass definition of `colossus:MODEL[:DEFINITION]`.

    The default definition is FoF where the model has it, else 200m, else the model's own.
    Raises ValueError for what colossus does not have, and when it is not installed.
    """
    model, _, definition = name.removeprefix(PREFIX).partition(":")
    models = _import("lss.mass_function").models
    if model not in models:
        raise ValueError(
            f"colossus has no mass function {model!r}; it has {', '.join(sorted(models))}"
        )
    offered = list(models[model].mdefs)
    any_sphere = "*" in offered
    if not definition:
        definition = next(
            (d for d in ("fof", "200m") if d in offered or (d == "200m" and any_sphere)),
            offered[0],
        )
    known = definition in offered or (any_sphere and definition != "fof")
    if known and definition != "fof" and not definition.startswith("sp-"):
        try:
            _import("halo.mass_so").parseMassDefinition(definition)
        except Exception:  # colossus raises bare exceptions
            known = False
    if not known:
        raise ValueError(
            f"the mass function {model} of colossus has no mass definition {definition!r}; it has "
            f"{', '.join(offered).replace('*', 'any spherical overdensity, such as 200m')}"
        )
    return model, definition


def multiplicity(
    model: str, definition: str, sigma: Array, z: Array, cosmology: Cosmology
) -> Array:
    """The multiplicity function f(sigma, z) of a model, dimensionless; sigma and z broadcast."""
    module = _import("lss.mass_function")

    def at(sigma_row: Array, redshift: float) -> Array:
        return module.massFunction(
            sigma_row, redshift, q_in="sigma", q_out="f", mdef=definition, model=model
        )

    with _current(cosmology):
        return _per_redshift(at, sigma, z)


def bias(name: str, nu: Array, z: Array, cosmology: Cosmology) -> Array:
    """Eulerian bias of the model `colossus:MODEL[:DEFINITION]`, 200m by default, at peak height nu.

    nu and z broadcast. Raises ValueError for what colossus does not have.
    """
    model, _, definition = name.removeprefix(PREFIX).partition(":")
    module = _import("lss.bias")
    if model not in module.models:
        raise ValueError(
            f"colossus has no bias {model!r}; it has {', '.join(sorted(module.models))}"
        )

    def at(nu_row: Array, redshift: float) -> Array:
        return module.haloBiasFromNu(nu_row, redshift, mdef=definition or "200m", model=model)

    with _current(cosmology):
        return _per_redshift(at, nu, z)


def _per_redshift(function: Any, values: Array, z: Array) -> Array:
    values, z = np.broadcast_arrays(values, z)
    out = np.empty(values.shape)
    for redshift in np.unique(z):
        rows = z == redshift
        out[rows] = function(values[rows], float(redshift))
    return out


@contextmanager
def _current(cosmology: Cosmology) -> Iterator[None]:
    """colossus with this cosmology, without its radiation and its files on disk."""
    module = _import("cosmology.cosmology")
    before = module.current_cosmo
    parameters = {
        "flat": True,
        "H0": 100.0 * cosmology.h,
        "Om0": cosmology.Omega_m,
        "Ob0": cosmology.Omega_b,
        "sigma8": cosmology.sigma8,
        "ns": cosmology.n_s,
        "Tcmb0": T_CMB_K,
        "relspecies": False,
        "persistence": "",
    }
    try:
        module.setCosmology("streamtrain", params=parameters)
        yield
    finally:
        module.current_cosmo = before


def _import(name: str) -> Any:
    try:
        return importlib.import_module(f"colossus.{name}")
    except ImportError:
        raise ValueError(
            "mass functions and biases named colossus:MODEL need the package colossus "
            "(pip install colossus)"
        ) from None
