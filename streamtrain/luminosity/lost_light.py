"""The light that a mass cut takes away: of halos that a model was published for, but that are not
painted."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from streamtrain.catalogs import sfr
from streamtrain.catalogs.synthesis.massfunction import mass_function
from streamtrain.cosmology import SIGMA_MASS_RANGE, Cosmology
from streamtrain.luminosity import abundance
from streamtrain.luminosity.model import LuminosityModel
from streamtrain.luminosity.trace import Traced
from streamtrain.schema import AssumptionWarning, warn

MASS_FUNCTION = "tinker08"
"""Mass function that the lost light is worked out with, the default of synthesised lightcones."""
HEAVIEST_MSUN = 1e15
PER_DECADE = 40
"""Masses at which the light is evaluated; the share of a power law is exact to 1e-4."""
MOST_LOST = 0.1
"""Share of the light below the mass cut that goes without a warning."""


class LostLightWarning(AssumptionWarning):
    """Much of a model's light comes from halos below the mass cut."""


def kept_light(
    model: LuminosityModel,
    traced: Traced,
    z: float,
    min_mass_Msun: float,
    cosmology: Mapping[str, float],
) -> float | None:
    """The share of a model's mean light, at its default parameters, that halos above a mass emit
    at redshift z, of those above the lightest that it was published for.

    Of a luminosity function that is matched to the halos, what the halos there are can be given of
    it. None where no lightest halo of 1e6 Msun or more is published, or where the model reads other
    columns that a mass and a redshift do not give. Rates of star formation are the fit's.
    """
    columns = {name for name, _ in traced.columns}
    if matched := columns & set(abundance.FUNCTIONS):
        density = _density(z, min_mass_Msun, cosmology)
        return abundance.matched_share(density, abundance.FUNCTIONS[matched.pop()])[1]
    lightest = model.lightest_Msun
    if not SIGMA_MASS_RANGE[0] <= lightest < HEAVIEST_MSUN or columns - {"sfr"}:
        return None
    if min_mass_Msun <= lightest:
        return 1.0
    if min_mass_Msun >= HEAVIEST_MSUN:
        return 0.0
    whole = _light(model, traced, z, lightest, cosmology)
    return _light(model, traced, z, min_mass_Msun, cosmology) / whole if whole > 0.0 else None


def warn_of_lost_light(
    model: LuminosityModel, kept: float | None, z: float, min_mass_Msun: float
) -> None:
    """Warn (LostLightWarning) where a mass cut takes more than `MOST_LOST` of a model's light;
    kept: see `kept_light`."""
    if kept is not None and kept < 1.0 - MOST_LOST:
        lightest = model.lightest_Msun
        whose = (
            f"is published for halos above {lightest:.3g} Msun"
            if lightest
            else "gives halos the luminosities of more sources than there are halos"
        )
        warn(
            f"the model {model.name} {whose}, but those above the mass cut of "
            f"{min_mass_Msun:.3g} Msun have only {100 * kept:.0f} % of its light at z = {z:.1f}: "
            "the rest is missing from the map",
            LostLightWarning,
        )


def _density(z: float, above_Msun: float, cosmology: Mapping[str, float]) -> float:
    """Halos above a mass [1/Mpc^3]."""
    if above_Msun >= HEAVIEST_MSUN:
        return 0.0
    ends = max(above_Msun, SIGMA_MASS_RANGE[0]), HEAVIEST_MSUN
    function = mass_function(MASS_FUNCTION)
    return float(function.number_density(ends, z, Cosmology.from_dict(cosmology)))


def _light(
    model: LuminosityModel,
    traced: Traced,
    z: float,
    above_Msun: float,
    cosmology: Mapping[str, float],
) -> float:
    """Light of the halos above a mass, in units of its own."""
    decades = math.log10(HEAVIEST_MSUN / above_Msun)
    node, weight = np.polynomial.legendre.leggauss(max(8, math.ceil(PER_DECADE * decades)))
    mass = above_Msun * 10.0 ** (0.5 * decades * (node + 1.0))
    number = mass_function(MASS_FUNCTION).dn_dlog10M(mass, z, Cosmology.from_dict(cosmology))
    seen: dict[str, NDArray[np.float64]] = {"mass": mass, "one_plus_z": np.full(len(mass), 1.0 + z)}
    if traced.columns:
        seen["sfr"] = sfr.sfr(mass, np.clip(z, *sfr.Z_RANGE))
    defaults = {name: np.array([value]) for name, value in model.defaults.items()}
    light = number * traced.evaluate("luminosity", defaults, seen)[0]
    if "on_fraction" in traced.outputs:
        light = light * np.clip(traced.evaluate("on_fraction", defaults, seen)[0], 0.0, 1.0)
    return 0.5 * decades * float(light @ weight)
