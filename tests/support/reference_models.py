"""Luminosity models in float64 NumPy, written from the papers: L [Lsun] of halos of mass [Msun] at
redshift z, their scatter, duty cycle and rest frequency. A part of `reference`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import quad

Array = NDArray[np.float64]

C_KMS = 299792.458
LSUN_W = 3.828e26  # [W], exact (IAU 2015 B3)
MPC_M = 648000.0 / np.pi * 149597870700.0 * 1e6  # [m], exact (IAU 2015 B2)


def _lsun(lprime: Array, nu_rest_GHz: float) -> Array:
    return 4.9e-5 * (nu_rest_GHz / 115.27) ** 3 * lprime


def li16(
    mass_Msun: ArrayLike,
    z: ArrayLike,
    sfr: ArrayLike | None = None,
    *,
    log10_delta_mf: float = 0.0,
    alpha: float = 1.37,
    beta: float = -1.74,
    r_J1: float = 1.0,
    nu_rest_GHz: float = 115.27,
) -> Array:
    """Li et al. 2016 (1503.08833), without scatter; `sfr` [Msun/yr] defaults to `sfr_fit`."""
    rate = sfr_fit(mass_Msun, z) if sfr is None else np.asarray(sfr, np.float64)
    infrared = rate * 1e10 / 10.0**log10_delta_mf
    return r_J1 * _lsun((infrared * 10.0**-beta) ** (1.0 / alpha), nu_rest_GHz)


def chung22(
    mass_Msun: ArrayLike,
    z: ArrayLike,
    *,
    A: float = -2.85,
    B: float = -0.42,
    log10_C: float = 10.63,
    log10_Mstar: float = 12.3,
    r_J1: float = 1.0,
    nu_rest_GHz: float = 115.27,
) -> Array:
    """Chung et al. 2022 (2111.05931), UM+COLDz+COPSS, without scatter."""
    ratio = np.asarray(mass_Msun, np.float64) / 10.0**log10_Mstar
    return r_J1 * _lsun(10.0**log10_C / (ratio**A + ratio**B), nu_rest_GHz)


def padmanabhan18(
    mass_Msun: ArrayLike,
    z: ArrayLike,
    *,
    m10: float = 4.17e12,
    m11: float = -1.17,
    n10: float = 0.0033,
    n11: float = 0.04,
    b10: float = 0.95,
    b11: float = 0.48,
    y10: float = 0.66,
    y11: float = -0.33,
    r_J1: float = 1.0,
    nu_rest_GHz: float = 115.27,
) -> Array:
    """Padmanabhan 2018 (1706.01471)."""
    mass, z = np.asarray(mass_Msun, np.float64), np.asarray(z, np.float64)
    t = z / (1.0 + z)
    ratio = mass / 10.0 ** (np.log10(m10) + m11 * t)
    low, high = ratio ** -(b10 + b11 * t), ratio ** (y10 + y11 * t)
    return r_J1 * _lsun(2.0 * (n10 + n11 * t) * mass / (low + high), nu_rest_GHz)


def breysse15(mass_Msun: ArrayLike, z: ArrayLike, *, A: float = 2e-6, b: float = 1.0) -> Array:
    """A power law of the mass (Breysse et al. 2015, 1503.05202), an active halo. A = 2e-6 is the
    1e6 Lsun / 5e11 Msun of Pullen et al.'s model A, and belongs with its duty cycle."""
    return A * np.asarray(mass_Msun, np.float64) ** b


def keating16(mass_Msun: ArrayLike, z: ArrayLike) -> Array:
    """Keating et al. 2016 (1605.03971): L = A M, M > 1e10 Msun."""
    mass = np.asarray(mass_Msun, np.float64)
    return 6.3e-7 * mass * (mass > 1e10)


def keating20(mass_Msun: ArrayLike, z: ArrayLike) -> Array:
    """Keating et al. 2020 (2008.08087): the chain of Li et al. with its alpha and beta."""
    return _lsun((sfr_fit(mass_Msun, z) * 1e10 / 10.0**-1.0) ** (1.0 / 1.27), 115.27)


def lidz11(mass_Msun: ArrayLike, z: ArrayLike) -> Array:
    """Lidz et al. 2011 (1104.4800), an active halo; one in ten is."""
    return 2.8e3 * np.asarray(mass_Msun, np.float64) / 1e8


def pullen13(mass_Msun: ArrayLike, z: ArrayLike) -> Array:
    """Pullen et al. 2013 (1211.1397), model A, an active halo."""
    return 1e6 * np.asarray(mass_Msun, np.float64) / 5e11


def age_Gyr(z: float, Omega_m: float = 0.286, h: float = 0.7) -> float:
    """Age of a flat LCDM universe without radiation at z [Gyr], by numerical integration over a."""
    hubble_Gyr = MPC_M / 1e5 / h / (1e9 * 365.25 * 86400.0)
    end = 1.0 / (1.0 + z)
    value, _ = quad(lambda a: (Omega_m / a + (1.0 - Omega_m) * a * a) ** -0.5, 0.0, end)
    return hubble_Gyr * value


def pullen13_duty(mass_Msun: ArrayLike, z: ArrayLike) -> Array:
    """0.1 Gyr / t_age(z) (1211.1397)."""
    nodes = np.linspace(0.0, 10.0, 501)  # exact at multiples of 0.02, elsewhere to 1e-4
    ages = [age_Gyr(node) for node in nodes]
    return 0.1 / np.interp(np.asarray(z, np.float64), nodes, ages)


# Yang et al. 2022 (2108.07716), tables 1 and 2: (log10 M1, log10 N, a, b) of
# L = 2 N M / [(M/M1)^-a + (M/M1)^b] for z < 4, 4 <= z < 5, z >= 5.
_YANG22 = {
    "co10": (
        lambda z: (
            12.13 - 0.1678 * z,
            -6.855 + 0.2366 * z - 0.05013 * z**2,
            1.642 + 0.1663 * z - 0.03238 * z**2,
            1.77 * np.exp(-z / 2.72) - 0.0827,
        ),
        lambda z: (
            11.75 - 0.06833 * z,
            -6.554 - 0.03725 * z,
            3.73 - 0.833 * z + 0.0884 * z**2,
            0.598 - 0.0710 * z,
        ),
        lambda z: (
            11.63 - 0.04943 * z,
            -6.274 - 0.09087 * z,
            2.56 - 0.223 * z + 0.0142 * z**2,
            33.4 * np.exp(-z / 0.846) + 0.160,
        ),
    ),
    "cii": (
        lambda z: (
            12.11 * z**-0.04105,
            -0.907 * np.exp(-z / 0.867) - 3.04,
            1.35 + 0.450 * z - 0.0805 * z**2,
            2.57 * np.exp(-z / 1.55) + 0.0575,
        ),
        lambda z: (
            8.69 + 1.26 * z - 0.143 * z**2,
            -5.467 + 1.056 * z - 0.1133 * z**2,
            6.135 - 1.786 * z + 0.1837 * z**2,
            0.443 - 0.0521 * z,
        ),
        lambda z: (
            11.92 - 0.1068 * z,
            -2.37 - 0.130 * z,
            2.82 - 0.298 * z + 0.0196 * z**2,
            1760.0 * np.exp(-z / 0.520) + 0.0782,
        ),
    ),
}


def yang22(line: str, mass_Msun: ArrayLike, z: ArrayLike, piece: int | None = None) -> Array:
    """Yang et al. 2022 for the line 'co10' or 'cii'; `piece` 0, 1, 2 instead of the one at z."""
    mass, z = np.broadcast_arrays(np.asarray(mass_Msun, float), np.asarray(z, float))
    number = np.digitize(z, [4.0, 5.0]) if piece is None else np.full(z.shape, piece)
    luminosity = np.empty(z.shape)
    for k, coefficients in enumerate(_YANG22[line]):
        here = number == k
        log_m1, log_n, a, b = coefficients(z[here])
        ratio = mass[here] / 10.0**log_m1
        luminosity[here] = 2.0 * 10.0**log_n * mass[here] / (ratio**-a + ratio**b)
    return luminosity


def yang22_co10_wrong(mass_Msun: ArrayLike, z: ArrayLike) -> Array:
    """The piece z < 4 as four public codes have it: another b, with another sign."""
    mass, z = np.asarray(mass_Msun, np.float64), np.asarray(z, np.float64)
    log_m1, log_n, a, _ = _YANG22["co10"][0](z)
    ratio = mass / 10.0**log_m1
    b = 1.77 * np.exp(-1.0 / 2.72) - 0.00827
    return 2.0 * 10.0**log_n * mass / (ratio**-a + ratio**-b)


def yang22_co10_sigma(mass_Msun: ArrayLike, z: ArrayLike) -> Array:
    """Scatter [dex] of CO(1-0) (2108.07716)."""
    z = np.asarray(z, np.float64)
    return 0.357 - 0.0701 * z + 0.00621 * z**2


def yang22_on(mass_Msun: ArrayLike, z: ArrayLike) -> Array:
    """Fraction of halos that shine, of every line alike: the duty cycle of 2108.07716 in the codes
    of its authors' group (simim of R. Keenan, line_fir_yang; lim of P. Breysse)."""
    mass, z = np.asarray(mass_Msun, np.float64), np.asarray(z, np.float64)
    power = 1.37 - 0.190 * z + 0.0215 * z**2
    return np.where(z >= 4.0, 1.0, 1.0 / (1.0 + (mass / 10.0 ** (11.73 + 0.6634 * z)) ** power))


def yang22_cii_sigma(mass_Msun: ArrayLike, z: ArrayLike) -> Array:
    """Scatter [dex] of [CII] (2108.07716)."""
    return 0.32 * np.exp(-np.asarray(z, np.float64) / 1.5) + 0.18


KAMENETZKY16 = {  # J_up: (a, b) of log L_FIR = a log L' + b (1508.05102)
    1: (1.27, -1.0), 2: (1.11, 0.6), 3: (1.18, 0.1), 4: (1.09, 1.2), 5: (1.05, 1.8),
    6: (1.04, 2.2), 7: (0.98, 2.9), 8: (1.00, 3.0), 9: (1.03, 2.9), 10: (1.01, 3.2),
    11: (1.06, 3.1), 12: (0.99, 3.7), 13: (1.12, 2.9),
}  # fmt: skip


def kamenetzky16(
    j_up: int, mass_Msun: ArrayLike, z: ArrayLike, fir_per_sfr: float = 1.1e10
) -> Array:
    """CO(J, J-1), nu_rest = 115.271 J GHz, L_FIR = 1.1e10 SFR."""
    a, b = KAMENETZKY16[j_up]
    log_lprime = (np.log10(fir_per_sfr * sfr_fit(mass_Msun, z)) - b) / a
    return _lsun(10.0**log_lprime, 115.271 * j_up)


SILVA15 = {  # (a, b) of log L = a log SFR + b (1410.4808)
    "m1": (0.8475, 7.2203),
    "m2": (1.0, 6.9647),
    "m3": (0.8727, 6.7250),
    "m4": (0.9231, 6.5234),
}


def silva15(variant: str, mass_Msun: ArrayLike, z: ArrayLike) -> Array:
    """[CII] of Silva et al. 2015."""
    a, b = SILVA15[variant]
    return 10.0 ** (a * np.log10(sfr_fit(mass_Msun, z)) + b)


def lagache18(mass_Msun: ArrayLike, z: ArrayLike) -> Array:
    """[CII] of Lagache et al. 2018 (1711.00798), the median."""
    z = np.asarray(z, np.float64)
    return 10.0 ** ((1.4 - 0.07 * z) * np.log10(sfr_fit(mass_Msun, z)) + 7.1 - 0.07 * z)


def padmanabhan19_cii(
    mass_Msun: ArrayLike,
    z: ArrayLike,
    *,
    M1: float = 2.39e-5,
    N1: float = 4.19e11,
    a: float = 1.79,
    b: float = 0.49,
) -> Array:
    """[CII] of Padmanabhan 2019 (1811.01968)."""
    mass, growth = np.asarray(mass_Msun, np.float64), 1.0 + np.asarray(z, np.float64)
    rate = growth**2.7 / (1.0 + (growth / 2.9) ** 5.6)
    return rate**a * (mass / M1) ** b * np.exp(-N1 / mass)


def chung19_lya(mass_Msun: ArrayLike, z: ArrayLike) -> Array:
    """Lyman-alpha of Chung et al. 2019 (1809.04550): 1.6e42 erg/s SFR f_esc."""
    rate, z = sfr_fit(mass_Msun, z), np.asarray(z, np.float64)
    escape = (1.0 + np.exp(-1.6 * z + 5.0)) ** -0.5
    escape = escape * (0.18 + 0.82 / (1.0 + 0.8 * rate**0.875)) ** 2
    return 1.6e42 * 1e-7 / LSUN_W * rate * escape


def freeform(
    mass_Msun: ArrayLike,
    z: ArrayLike,
    *,
    log10_L: float = 5.3,
    slope: float = 1.0,
    bend_1: float = 0.0,
    bend_2: float = 0.0,
    bend_3: float = 0.0,
    g: float = 0.0,
    tilt: float = 0.0,
    z_pivot: float = 2.9,
    log10_Medge: float = 0.0,
    log10_Mcut: float = 0.0,
) -> Array:
    """The form of docs/models.md, a luminosity function without a model, by linear interpolation
    between its knots."""
    mass, z = np.asarray(mass_Msun, np.float64), np.asarray(z, np.float64)
    fourth = slope - bend_2 - bend_3
    knots = np.array([6.2, 11.2, 11.8, 12.4, 17.4])
    steps = [5 * (slope + bend_1), 0.6 * slope, 0.6 * (slope - bend_2), 5 * fourth]
    heights = np.concatenate([[0.0], np.cumsum(steps)])
    heights += log10_L - heights[2]
    log_mass = np.log10(mass)
    luminosity = 10.0 ** np.interp(log_mass, knots, heights)
    power = g - tilt * np.clip(11.8 - log_mass, 0.0, None)
    luminosity = luminosity * ((1.0 + z) / (1.0 + z_pivot)) ** power
    return luminosity * np.exp(-(10.0**log10_Mcut) / mass) * (mass > 10.0**log10_Medge)


MODELS: dict[str, Callable[[ArrayLike, ArrayLike], Array]] = {
    "li16": li16,
    "chung22": chung22,
    "padmanabhan18": padmanabhan18,
    "breysse15": breysse15,
    "keating16": keating16,
    "keating20": keating20,
    "lidz11": lidz11,
    "pullen13": pullen13,
    "yang22_co10": partial(yang22, "co10"),
    **{f"kamenetzky16_co{j}": partial(kamenetzky16, j) for j in KAMENETZKY16},
    **{f"silva15_{variant}": partial(silva15, variant) for variant in SILVA15},
    "lagache18": lagache18,
    "padmanabhan19_cii": padmanabhan19_cii,
    "yang22_cii": partial(yang22, "cii"),
    "chung19_lya": chung19_lya,
    "freeform": freeform,
}
"""L [Lsun] of (mass [Msun], z) at the published parameters, without scatter, while it shines."""

NU_CII_GHZ = 1900.537
NU_LYA_GHZ = C_KMS / 121.567e-9 * 1e-6  # 1215.67 A
NU_REST_GHZ: dict[str, float] = {
    **dict.fromkeys(("yang22_co10", "keating16", "lidz11", "pullen13"), 115.271),
    **{f"kamenetzky16_co{j}": 115.271 * j for j in KAMENETZKY16},
    **{f"silva15_{variant}": NU_CII_GHZ for variant in SILVA15},
    "lagache18": NU_CII_GHZ,
    "padmanabhan19_cii": NU_CII_GHZ,
    "yang22_cii": NU_CII_GHZ,
    "chung19_lya": NU_LYA_GHZ,
}
"""The one line of a model; a model that is not here takes the rest frequency of the grid."""

ON_FRACTION: dict[str, Callable[[ArrayLike, ArrayLike], Array]] = {
    "lidz11": lambda mass_Msun, z: np.full(np.broadcast(mass_Msun, z).shape, 0.1),
    "pullen13": pullen13_duty,
    "breysse15": pullen13_duty,
    "yang22_co10": yang22_on,
    "yang22_cii": yang22_on,
    "freeform": lambda mass_Msun, z: np.ones(np.broadcast(mass_Msun, z).shape),
}
SIGMA_DEX: dict[str, Callable[[ArrayLike, ArrayLike], Array]] = {
    "yang22_co10": yang22_co10_sigma,
    "yang22_cii": yang22_cii_sigma,
}


# SFR(M, z) of Behroozi et al. 2013 (1207.6105): a fit to the table that limlam_mocker uses. Each
# line of coefficients is a polynomial in u = log10(1 + z) - u0. Order: log10 SFR at 10^11.5 Msun,
# slope, then strength, log10 mass and ln width of each soft kink.

_SFR_HIGH_Z = (  # 1.7 <= z <= 8.1
    0.6,
    (0.7322873, 3.659612, 7.891777, -5.442306, -14.16151),
    (1.852434, 1.357367, -0.7425595, -5.585197),
    (1.077525, -5.010008, 8.781853, -12.83),
    (11.33738, -0.2190301, -3.300856),
    (-2.482057, -1.921308),
    (-3.06044, 5.487277, -10.85892, 3.195725, 76.22558),
    (11.94043, -0.4346182, -7.269381, 1.601779),
    (-1.656031, -0.9514547, 1.538938),
)
_SFR_LOW_Z = (  # 0.1 <= z <= 1.5
    0.2,
    (0.6405584, 2.419488, -13.47443, 19.03106),
    (1.728566, 0.8955228, -3.003664, 6.842238),
    (2.932397, 3.184997, -3.161236),
    (10.8892, 0.8886914, 2.726172),
    (-2.053224, 0.8587337, 2.320297),
    (-42.06128, 40.0395, 62.20317),
    (12.21301, 0.9539091, -2.280606),
    (-0.7348827, 0.3270872, -2.628945),
    (37.04969, -45.52332, -53.02221),
    (12.32766, 1.191792, -2.254463),
    (-0.8421836, 0.06455012, -1.098259),
)


def sfr_fit(mass_Msun: ArrayLike, z: ArrayLike) -> Array:
    """SFR [Msun/yr] for 0.1 <= z <= 8.1; log10 SFR is blended linearly in z over 1.5..1.7."""
    log_mass = np.log10(np.asarray(mass_Msun, np.float64))
    z = np.asarray(z, np.float64)
    weight = np.clip((z - 1.5) / 0.2, 0.0, 1.0)
    high = _log10_sfr(log_mass, np.maximum(z, 1.4), *_SFR_HIGH_Z)
    low = _log10_sfr(log_mass, np.minimum(z, 1.8), *_SFR_LOW_Z)
    return 10.0 ** (weight * high + (1.0 - weight) * low)


def _log10_sfr(log_mass: Array, z: Array, u0: float, *polynomials: tuple[float, ...]) -> Array:
    u = np.log10(1.0 + z) - u0
    level, slope, *kinks = (np.polynomial.polynomial.polyval(u, c) for c in polynomials)
    total = level + slope * (log_mass - 11.5)
    for strength, mass, log_width in zip(kinks[0::3], kinks[1::3], kinks[2::3], strict=True):
        width = np.exp(log_width)
        total = total + strength * width * np.logaddexp(0.0, (log_mass - mass) / width)
    return total
