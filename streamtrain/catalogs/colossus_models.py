"""Mass functions and biases of the colossus package, by the name `colossus:MODEL[:DEFINITION]`.

colossus is imported where one is used. It keeps its cosmology in a global variable, which is put
back afterwards.

References:
    COLOSSUS: a Python toolkit for cosmology, large-scale structure and dark matter halos
    (Diemer, 2018), arXiv:1712.04512
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.cosmology import T_CMB_K, Cosmology

Array = NDArray[np.float64]

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
    """f(sigma, z), dimensionless; sigma and z broadcast."""
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
