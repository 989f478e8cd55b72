"""Published models of [CII] 158 um and Lyman-alpha: L(M, z) [Lsun], scatter, priors."""

from __future__ import annotations

from typing import Any

import numpy as np

from streamtrain.luminosity.co import COMAP_Z, double_power_law, yang22_on_fraction
from streamtrain.luminosity.lines import CII_GHZ, LYA_GHZ
from streamtrain.luminosity.model import LuminosityModel, mean_preserving
from streamtrain.priors import Normal, Prior

LSUN_ERG_S = 3.828e33

SILVA15 = {
    "m1": (0.8475, 7.2203),
    "m2": (1.0, 6.9647),
    "m3": (0.8727, 6.7250),
    "m4": (0.9231, 6.5234),
}
"""log10 L = a log10 SFR + b (1410.4808, table 1)."""


def silva15(mass_Msun: Any, z: Any, *, sfr: Any, a: Any = 1.0, b: Any = 6.9647) -> Any:
    """L [Lsun] of [CII] from the star-formation rate [Msun/yr]."""
    return 10**b * sfr**a


def lagache18(mass_Msun: Any, z: Any, *, sfr: Any) -> Any:
    """L [Lsun] of [CII] from the star-formation rate [Msun/yr], z = 4..7.6."""
    return 10 ** (7.1 - 0.07 * z) * sfr ** (1.4 - 0.07 * z)


def padmanabhan19_cii(
    mass_Msun: Any,
    z: Any,
    *,
    M1: Any = 2.39e-5,
    N1: Any = 4.19e11,
    a: Any = 1.79,
    b: Any = 0.49,
) -> Any:
    """L [Lsun] of [CII], abundance matching, z = 0..6. In the kernel's float32 the exponential
    adds a relative error of 3e-6 N1 / M."""
    rate = (1 + z) ** 2.7 / (1 + ((1 + z) / 2.9) ** 5.6)
    return rate**a * (mass_Msun / M1) ** b * np.exp(-N1 / mass_Msun)


def yang22_cii(mass_Msun: Any, z: Any) -> Any:
    """L [Lsun] of [CII] while a halo is active; pieces below z = 4, to 5, and above."""
    low = double_power_law(
        mass_Msun,
        12.11 * z**-0.04105,
        -0.907 * np.exp(-z / 0.867) - 3.04,
        1.35 + 0.450 * z - 0.0805 * z**2,
        2.57 * np.exp(-z / 1.55) + 0.0575,
    )
    middle = double_power_law(
        mass_Msun,
        8.69 + 1.26 * z - 0.143 * z**2,
        -5.467 + 1.056 * z - 0.1133 * z**2,
        6.135 - 1.786 * z + 0.1837 * z**2,
        0.443 - 0.0521 * z,
    )
    high = double_power_law(
        mass_Msun,
        11.92 - 0.1068 * z,
        -2.37 - 0.130 * z,
        2.82 - 0.298 * z + 0.0196 * z**2,
        1760 * np.exp(-z / 0.520) + 0.0782,
    )
    return np.where(z < 4, low, np.where(z < 5, middle, high))


def _yang22_cii_sigma(mass_Msun: Any, z: Any) -> Any:
    return 0.32 * np.exp(-z / 1.5) + 0.18


def chung19_lya(mass_Msun: Any, z: Any, *, sfr: Any) -> Any:
    """L [Lsun] of Lyman-alpha with an escape fraction that falls with the star-formation rate."""
    base = 0.18 + 0.82 / (1 + 0.8 * sfr**0.875)
    escape = (1 + np.exp(-1.6 * z + 5)) ** -0.5 * base**2
    return 1.6e42 / LSUN_ERG_S * sfr * escape


OTHER_MODELS: tuple[LuminosityModel, ...] = (
    *(
        LuminosityModel(
            f"silva15_{name}",
            silva15,
            {"a": a, "b": b},
            "Prospects for detecting CII emission during the epoch of reionization (Silva et al. "
            "2015), 1410.4808",
            nu_rest_GHz=CII_GHZ,
            z_range=(5.3, 8.5),
            mass_range_Msun=(0.0, np.inf),
        )
        for name, (a, b) in SILVA15.items()
    ),
    LuminosityModel(
        "lagache18",
        lagache18,
        {"sigma": 0.5},
        "The [CII] 158 um line emission in high-redshift galaxies (Lagache et al. 2018), "
        "1711.00798",
        lambda p: mean_preserving(p["sigma"]),
        preserves="median",
        nu_rest_GHz=CII_GHZ,
        z_range=(4.0, 7.6),
        mass_range_Msun=(0.0, np.inf),
    ),
    LuminosityModel(
        "padmanabhan19_cii",
        padmanabhan19_cii,
        {"M1": 2.39e-5, "N1": 4.19e11, "a": 1.79, "b": 0.49},
        "Constraining the evolution of [CII] intensity through the end stages of reionization "
        "(Padmanabhan 2019), 1811.01968",
        priors={
            "published": Prior(
                {
                    "M1": Normal(2.39e-5, 1.86e-5, low=1e-6),
                    "N1": Normal(4.19e11, 3.27e11, low=0.0),
                    "a": Normal(1.79, 0.30),
                    "b": Normal(0.49, 0.38),
                }
            )
        },
        nu_rest_GHz=CII_GHZ,
        z_range=(0.0, 6.0),
        mass_range_Msun=(1e10, np.inf),
    ),
    LuminosityModel(
        "yang22_cii",
        yang22_cii,
        {},
        "An empirical representation of a physical model for the ISM [CII], CO, and [CI] emission "
        "at redshift 1 <= z <= 9 (Yang et al. 2022), 2108.07716",
        sigma_dex=_yang22_cii_sigma,
        on_fraction=yang22_on_fraction,
        nu_rest_GHz=CII_GHZ,
        z_range=(1.0, 9.0),
        mass_range_Msun=(1e10, np.inf),
    ),
    LuminosityModel(
        "chung19_lya",
        chung19_lya,
        {},
        "Cross-correlating carbon monoxide line-intensity maps with spectroscopic and photometric "
        "galaxy surveys (Chung et al. 2019), 1809.04550",
        nu_rest_GHz=LYA_GHZ,
        z_range=COMAP_Z,
        mass_range_Msun=(0.0, np.inf),
    ),
)
