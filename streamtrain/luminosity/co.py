"""Published models of carbon monoxide lines: L(M, z) [Lsun], scatter, duty cycle, priors.

L = 4.9e-5 (nu_rest / 115.27 GHz)^3 L' [K km/s pc^2], as in all published codes. Coefficients keep
the letters of their papers. Models of the L' of CO(1-0) take any line: that of CO(J, J-1)
is r_J1 times as large.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from streamtrain.luminosity.lines import CO10_GHZ
from streamtrain.luminosity.model import LuminosityModel, lsun_per_lprime, mean_preserving
from streamtrain.numerics.portable import LN10
from streamtrain.priors import Correlated, Fixed, Normal, Prior


def _positive(parameter: Any) -> Any:
    """A parameter so written that the tracer knows its sign, and carries L as a logarithm."""
    return np.exp2(np.log2(parameter))


def li16(
    mass_Msun: Any,
    z: Any,
    *,
    sfr: Any,
    nu_rest_GHz: float,
    log10_delta_mf: Any = 0.0,
    alpha: Any = 1.37,
    beta: Any = -1.74,
    r_J1: Any = 1.0,
) -> Any:
    """L [Lsun] from the star-formation rate [Msun/yr] through the infrared luminosity."""
    infrared = sfr * 1e10 / 10**log10_delta_mf
    lprime = (infrared * 10**-beta) ** (1 / alpha)
    return lsun_per_lprime(nu_rest_GHz) * lprime * _positive(r_J1)


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
    r_J1: Any = 1.0,
) -> Any:
    """L [Lsun], a double power law of the halo mass."""
    ratio = mass_Msun / 10**log10_Mstar
    lprime = 10**log10_C / (ratio**A + ratio**B)
    return lsun_per_lprime(nu_rest_GHz) * lprime * _positive(r_J1)


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
    r_J1: Any = 1.0,
) -> Any:
    """L [Lsun], abundance matching of CO(1-0) at z = 0..3."""
    t = z / (1 + z)
    ratio = mass_Msun / 10 ** (np.log10(m10) + m11 * t)
    lprime = (
        2 * (n10 + n11 * t) * mass_Msun / (ratio ** -(b10 + b11 * t) + ratio ** (y10 + y11 * t))
    )
    return lsun_per_lprime(nu_rest_GHz) * lprime * _positive(r_J1)


def _padmanabhan18_rises_and_falls(p: Mapping[str, Any]) -> Any:
    """N, b and y positive over 0 <= z (t = 0..1): the published double power law."""
    signs = [(p[f"{k}10"] > 0) & (p[f"{k}10"] + p[f"{k}11"] > 0) for k in "nby"]
    return signs[0] & signs[1] & signs[2]


def breysse15(mass_Msun: Any, z: Any, *, A: Any = 2e-6, b: Any = 1.0) -> Any:
    """L [Lsun] = A M^b, while a halo is active."""
    return A * mass_Msun**b


def breysse15_duty(mass_Msun: Any, z: Any, *, duty: Any = 0.0) -> Any:
    """Fraction of halos that are active: `duty`, or for 0 the 0.1 Gyr / t_age(z) that A = 2e-6
    belongs with (0.0435 at z = 2.84), since A is 1e6 Lsun / 5e11 Msun of Pullen et al. 2013."""
    return np.where(abs(duty) > 0, duty, pullen13_duty(mass_Msun, z))


def keating16(mass_Msun: Any, z: Any, *, A: Any = 6.3e-7) -> Any:
    """L [Lsun] = A M above 1e10 Msun. The paper's A is for a scatter from theory; that it has 0.3
    dex and keeps the median is from the group's code simim (github.com/rpkeenan/simim_public)."""
    return np.where(mass_Msun > 1e10, A * mass_Msun, 0.0)


def lidz11(mass_Msun: Any, z: Any, *, A: Any = 2.8e3) -> Any:
    """L [Lsun] = A M / 1e8 Msun, while a halo is active."""
    return A * (mass_Msun / 1e8)


def _constant_duty(mass_Msun: Any, z: Any, *, duty: Any = 0.1) -> Any:
    """Fraction of halos that are active."""
    return duty


def pullen13(mass_Msun: Any, z: Any, *, A: Any = 1e6) -> Any:
    """L [Lsun] = A M / 5e11 Msun, while a halo is active (model A)."""
    return A * (mass_Msun / 5e11)


def pullen13_duty(
    mass_Msun: Any, z: Any, *, t_Gyr: Any = 0.1, Omega_m: Any = 0.286, h: Any = 0.7
) -> Any:
    """t / age of the universe at z (flat, without radiation)."""
    x = np.sqrt((1 - Omega_m) / Omega_m) * (1 + z) ** -1.5
    age_Gyr = 9.77792 / h * 2 / 3 / np.sqrt(1 - Omega_m) * np.log(x + np.sqrt(1 + x * x))
    return t_Gyr / age_Gyr


def double_power_law(mass_Msun: Any, log10_M1: Any, log10_N: Any, a: Any, b: Any) -> Any:
    """2 N M / ((M/M1)^-a + (M/M1)^b) [Lsun], the form of Yang et al. 2022."""
    ratio = mass_Msun / 10**log10_M1
    return 2 * 10**log10_N * mass_Msun / (ratio**-a + ratio**b)


def yang22_co10(mass_Msun: Any, z: Any) -> Any:
    """L [Lsun] of CO(1-0) while a halo is active; pieces below z = 4, to 5, and above."""
    low = double_power_law(
        mass_Msun,
        12.13 - 0.1678 * z,
        -6.855 + 0.2366 * z - 0.05013 * z**2,
        1.642 + 0.1663 * z - 0.03238 * z**2,
        1.77 * np.exp(-z / 2.72) - 0.0827,
    )
    middle = double_power_law(
        mass_Msun,
        11.75 - 0.06833 * z,
        -6.554 - 0.03725 * z,
        3.73 - 0.833 * z + 0.0884 * z**2,
        0.598 - 0.0710 * z,
    )
    high = double_power_law(
        mass_Msun,
        11.63 - 0.04943 * z,
        -6.274 - 0.09087 * z,
        2.56 - 0.223 * z + 0.0142 * z**2,
        33.4 * np.exp(-z / 0.846) + 0.160,
    )
    return np.where(z < 4, low, np.where(z < 5, middle, high))


def _yang22_co10_sigma(mass_Msun: Any, z: Any) -> Any:
    return 0.357 - 0.0701 * z + 0.00621 * z**2


def yang22_on_fraction(mass_Msun: Any, z: Any) -> Any:
    """Fraction of halos that shine, one for every line of Yang et al. 2022."""
    ratio = mass_Msun / 10 ** (11.73 + 0.6634 * z)
    return np.where(z < 4, 1 / (1 + ratio ** (1.37 - 0.190 * z + 0.0215 * z**2)), 1.0)


CO_LADDER_A = (1.27, 1.11, 1.18, 1.09, 1.05, 1.04, 0.98, 1.00, 1.03, 1.01, 1.06, 0.99, 1.12)
CO_LADDER_B = (-1.0, 0.6, 0.1, 1.2, 1.8, 2.2, 2.9, 3.0, 2.9, 3.2, 3.1, 3.7, 2.9)
"""log10 L_FIR = a log10 L' + b for CO(J, J-1), J = 1..13 (1508.05102, table 3)."""


def kamenetzky16(
    mass_Msun: Any,
    z: Any,
    *,
    sfr: Any,
    nu_rest_GHz: float,
    a: Any = 1.27,
    b: Any = -1.0,
    fir_per_sfr: Any = 1.1e10,
) -> Any:
    """L [Lsun] of a CO line from the far-infrared luminosity, L_FIR [Lsun] = fir_per_sfr times the
    star-formation rate [Msun/yr]. The paper's L_FIR is that of 40 to 120 micrometres."""
    lprime = (_positive(fir_per_sfr) * sfr * 10**-b) ** (1 / a)
    return lsun_per_lprime(nu_rest_GHz) * lprime


def breysse17(mass_Msun: Any, z: Any, *, abundance_matched_L: Any) -> Any:
    """L [Lsun] by abundance matching: a column, made once per lightcone."""
    return abundance_matched_L


def breysse17_lim(mass_Msun: Any, z: Any, *, abundance_matched_L_lim: Any) -> Any:
    """L [Lsun] likewise, with the later parameters of the author's code."""
    return abundance_matched_L_lim


COMAP_Z = (2.39, 3.44)
"""CO(1-0) at 26..34 GHz: the redshifts of models published for COMAP or for "z ~ 3"."""

# Each model's z_range and mass_range_Msun are what its paper fitted, simulated or predicted; the
# table in docs/models.md gives the basis of each.

CO_MODELS: tuple[LuminosityModel, ...] = (
    LuminosityModel(
        "li16",
        li16,
        {
            "log10_delta_mf": 0.0,
            "alpha": 1.37,
            "beta": -1.74,
            "sigma_sfr": 0.3,
            "sigma_lco": 0.3,
            "r_J1": 1.0,
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
        published_GHz=CO10_GHZ,
        usual_prior="narrow",
        z_range=COMAP_Z,
        mass_range_Msun=(1e10, 1e15),
    ),
    LuminosityModel(
        "chung22",
        chung22,
        {"A": -2.85, "B": -0.42, "log10_C": 10.63, "log10_Mstar": 12.3, "sigma": 0.42, "r_J1": 1.0},
        "COMAP Early Science: V. Constraints and Forecasts at z ~ 3 (Chung et al. 2022), "
        "2111.05931",
        lambda p: mean_preserving(p["sigma"]),
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
        published_GHz=CO10_GHZ,
        usual_prior="correlated",
        z_range=COMAP_Z,
        mass_range_Msun=(1e10, np.inf),
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
            "r_J1": 1.0,
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
        published_GHz=CO10_GHZ,
        z_range=(0.0, 3.0),
        mass_range_Msun=(1e10, np.inf),
    ),
    LuminosityModel(
        "breysse15",
        breysse15,
        {"A": 2e-6, "b": 1.0, "duty": 0.0},
        "Masking line foregrounds in intensity-mapping surveys (Breysse, Kovetz and "
        "Kamionkowski 2015), 1503.05202",
        None,
        {"published": Prior({"A": Normal(2e-6, 5e-7, low=0.0), "b": Normal(1.0, 0.125)})},
        on_fraction=breysse15_duty,
        published_GHz=CO10_GHZ,
        z_range=COMAP_Z,
        mass_range_Msun=(1e9, np.inf),
    ),
    LuminosityModel(
        "breysse17",
        breysse17,
        {},
        "Insights from probability distribution functions of intensity maps (Breysse et al. 2017), "
        "1609.01728",
        nu_rest_GHz=CO10_GHZ,
        z_range=COMAP_Z,
        mass_range_Msun=(0.0, np.inf),
    ),
    LuminosityModel(
        "breysse17_lim",
        breysse17_lim,
        {},
        "Insights from probability distribution functions of intensity maps (Breysse et al. 2017), "
        "1609.01728, with the parameters of github.com/pcbreysse/lim",
        nu_rest_GHz=CO10_GHZ,
        z_range=COMAP_Z,
        mass_range_Msun=(0.0, np.inf),
    ),
    LuminosityModel(
        "keating16",
        keating16,
        {"A": 6.3e-7, "sigma": 0.3},
        "COPSS II: the molecular gas content of ten million cubic megaparsecs at redshift z ~ 3 "
        "(Keating et al. 2016), 1605.03971",
        lambda p: mean_preserving(p["sigma"]),
        {"published": Prior({"A": Normal(6.3e-7, 1.75e-7, low=0.0)})},
        preserves="median",
        nu_rest_GHz=CO10_GHZ,
        z_range=(2.3, 3.3),
        mass_range_Msun=(1e10, np.inf),
    ),
    LuminosityModel(
        "keating20",
        li16,
        {
            "log10_delta_mf": 0.0,
            "alpha": 1.27,
            "beta": -1.0,
            "sigma_sfr": 0.3,
            "sigma_lco": 0.3,
            "r_J1": 1.0,
        },
        "An intensity mapping detection of aggregate CO line emission at 3 mm (Keating et al. "
        "2020), 2008.08087",
        _li16_scatter,
        published_GHz=CO10_GHZ,
        z_range=(1.0, 5.0),
        mass_range_Msun=(1e10, 1e15),
    ),
    LuminosityModel(
        "lidz11",
        lidz11,
        {"A": 2.8e3, "duty": 0.1},
        "Intensity mapping with carbon monoxide emission lines and the redshifted 21 cm line (Lidz "
        "et al. 2011), 1104.4800",
        on_fraction=_constant_duty,
        nu_rest_GHz=CO10_GHZ,
        z_range=(6.0, 10.0),
        mass_range_Msun=(1e8, np.inf),
    ),
    LuminosityModel(
        "pullen13",
        pullen13,
        {"A": 1e6, "t_Gyr": 0.1, "Omega_m": 0.286, "h": 0.7},
        "Cross-correlations as a cosmological carbon monoxide detector (Pullen et al. 2013), "
        "1211.1397",
        on_fraction=pullen13_duty,
        nu_rest_GHz=CO10_GHZ,
        z_range=(0.2, 3.5),
        mass_range_Msun=(1e9, np.inf),
    ),
    LuminosityModel(
        "yang22_co10",
        yang22_co10,
        {},
        "An empirical representation of a physical model for the ISM [CII], CO, and [CI] "
        "emission at redshift 1 <= z <= 9 (Yang et al. 2022), 2108.07716",
        sigma_dex=_yang22_co10_sigma,
        on_fraction=yang22_on_fraction,
        nu_rest_GHz=CO10_GHZ,
        z_range=(1.0, 9.0),
        mass_range_Msun=(1e10, np.inf),
    ),
    *(
        LuminosityModel(
            f"kamenetzky16_co{j}",
            kamenetzky16,
            {
                "a": CO_LADDER_A[j - 1],
                "b": CO_LADDER_B[j - 1],
                "fir_per_sfr": 1.1e10,
                "sigma": 0.0,
            },
            "L'_CO/L_FIR relations with CO rotational ladders of galaxies across the Herschel "
            "SPIRE archive (Kamenetzky et al. 2016), 1508.05102",
            lambda p: mean_preserving(p["sigma"]),
            {"simim": Prior({"fir_per_sfr": Fixed(0.6e10), "sigma": Fixed(0.3)})},
            preserves="median",
            nu_rest_GHz=CO10_GHZ * j,
            z_range=(0.0, 0.3),
            mass_range_Msun=(0.0, np.inf),
        )
        for j in range(1, 14)
    ),
)
