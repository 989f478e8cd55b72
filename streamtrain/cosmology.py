"""A flat universe of matter and a cosmological constant: distances, growth and linear power.

Comoving Mpc, Msun, km/s and Gyr throughout; `h` is a parameter of the model and never part of a
unit. Radiation is left out, so distance, age and growth are closed forms (hypergeometric
functions), exact for flat LCDM and cheap on arrays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from streamtrain.schema import setting

if TYPE_CHECKING:
    from scipy.interpolate import CubicHermiteSpline, CubicSpline

Array = NDArray[np.float64]

C_KMS = 299792.458
"""Speed of light [km/s]."""
GYR_KM_S_PER_MPC = 977.7922216807891
"""One Mpc/(km/s) [Gyr], the Julian year."""
RHO_CRIT_H2 = 2.77536627e11
"""Critical density today over h^2 [Msun/Mpc^3]."""
OMEGA_M, HUBBLE = 0.286, 0.7
"""Omega_m and h where nothing else is said: those of limlam_mocker and COMAP."""
T_CMB_K = 2.7255
"""CMB temperature today [K] (Fixsen 2009), arXiv:0911.1955."""
DELTA_C = 1.68647
"""Linear overdensity of spherical collapse in Einstein-de Sitter."""

MAX_REDSHIFT = 1100.0
SIGMA_MASS_RANGE = (1e6, 1e17)


@dataclass(frozen=True)
class Cosmology:
    """Flat LCDM without radiation; the defaults are those of limlam_mocker and COMAP.

    Every method takes a number or an array and returns a float64 array of the same shape.

    References:
        Baryonic Features in the Matter Transfer Function (Eisenstein & Hu, 1998),
        arXiv:astro-ph/9709112
    """

    Omega_m: float = setting(
        OMEGA_M,
        "matter density over the critical density, baryons included",
        low=0.05,
        high=1.0,
    )
    Omega_b: float = setting(0.047, "baryon density over the critical density", low=0.001, high=0.5)
    h: float = setting(HUBBLE, "Hubble constant over 100 km/s/Mpc", low=0.2, high=2.0)
    n_s: float = setting(0.96, "slope of the primordial spectrum", low=0.3, high=2.0)
    sigma8: float = setting(
        0.82, "linear rms density contrast today in spheres of 8/h Mpc", low=0.05, high=3.0
    )

    def __post_init__(self) -> None:
        for parameter in fields(self):
            name, value = parameter.name, getattr(self, parameter.name)
            low, high = (parameter.metadata[end] for end in ("low", "high"))
            number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
            if not number or not low <= value <= high:
                raise ValueError(f"cosmology: {name} = {value!r} must be a number in {low}..{high}")
            object.__setattr__(self, name, float(value))
        if self.Omega_b >= self.Omega_m:
            raise ValueError(
                f"cosmology: Omega_b = {self.Omega_b} must be below Omega_m = {self.Omega_m}, "
                "which includes the baryons"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Cosmology:
        """A cosmology from a mapping with exactly the five parameter names."""
        names = [field.name for field in fields(cls)]
        unknown = sorted(str(key) for key in values if key not in names)
        missing = [name for name in names if name not in values]
        if unknown or missing:
            raise ValueError(
                f"cosmology needs exactly the keys {', '.join(names)}: "
                f"unknown {unknown}, missing {missing}"
            )
        return cls(**{name: values[name] for name in names})

    def to_dict(self) -> dict[str, float]:
        """The five parameters by name, as `from_dict` takes them."""
        return asdict(self)

    @property
    def matter_density(self) -> float:
        """Comoving matter density [Msun/Mpc^3]."""
        return RHO_CRIT_H2 * self.Omega_m * self.h**2

    @property
    def _lambda_ratio(self) -> float:
        return (1.0 - self.Omega_m) / self.Omega_m

    def hubble(self, z: ArrayLike) -> Array:
        """Expansion rate H(z) [km/s/Mpc]."""
        cubed = (1.0 + _redshift(z)) ** 3
        return 100.0 * self.h * np.sqrt(self.Omega_m * cubed + 1.0 - self.Omega_m)

    def matter_fraction(self, z: ArrayLike) -> Array:
        """Omega_m(z), the matter density in units of the critical density at z."""
        return 1.0 / (1.0 + self._lambda_ratio / (1.0 + _redshift(z)) ** 3)

    def comoving_distance(self, z: ArrayLike) -> Array:
        """Comoving distance chi(z) [Mpc]."""
        a = 1.0 / (1.0 + _redshift(z))
        return C_KMS / (100.0 * self.h) * (self._conformal(np.float64(1.0)) - self._conformal(a))

    def _conformal(self, a: Array | np.float64) -> Array:
        from scipy.special import hyp2f1  # here, as SciPy takes long to import

        series = hyp2f1(1 / 6, 1 / 2, 7 / 6, -self._lambda_ratio * a**3)
        return 2.0 * np.sqrt(a / self.Omega_m) * series

    def redshift(self, chi_Mpc: ArrayLike) -> Array:
        """Redshift z(chi) at which the comoving distance is chi [Mpc]."""
        chi = np.asarray(chi_Mpc, dtype=np.float64)
        spline = _redshift_spline(self)
        if chi.size and not (np.min(chi) >= 0.0 and np.max(chi) <= spline.x[-1]):
            raise ValueError(
                f"comoving distance {np.min(chi):g}..{np.max(chi):g} Mpc must lie in "
                f"0..{spline.x[-1]:.0f} Mpc (z = {MAX_REDSHIFT:g})"
            )
        return spline(chi)

    def age(self, z: ArrayLike) -> Array:
        """Time since the Big Bang [Gyr]."""
        a = 1.0 / (1.0 + _redshift(z))
        x = np.sqrt(self._lambda_ratio * a**3)
        asinh_over_x = np.where(x > 1e-6, np.arcsinh(x) / np.maximum(x, 1e-300), 1.0)
        hubble_time = GYR_KM_S_PER_MPC / (100.0 * self.h)
        return 2.0 / 3.0 * hubble_time * np.sqrt(a**3 / self.Omega_m) * asinh_over_x

    def growth(self, z: ArrayLike) -> Array:
        """Linear growth factor D(z), D(0) = 1."""
        a = 1.0 / (1.0 + _redshift(z))
        return self._growth_over_a(a) * a / self._growth_over_a(np.float64(1.0))

    def _growth_over_a(self, a: Array | np.float64) -> Array:
        from scipy.special import hyp2f1

        return hyp2f1(1 / 3, 1.0, 11 / 6, -self._lambda_ratio * a**3)

    def growth_rate(self, z: ArrayLike) -> Array:
        """Logarithmic growth rate f(z) = dlnD/dlna."""
        a = 1.0 / (1.0 + _redshift(z))
        return self.matter_fraction(z) * (2.5 / self._growth_over_a(a) - 1.5)

    def linear_power(self, k: ArrayLike, z: ArrayLike = 0.0) -> Array:
        """Linear matter power spectrum P(k, z) [Mpc^3], k in [1/Mpc], with the baryon wiggles."""
        k = np.asarray(k, dtype=np.float64)
        if k.size and not np.min(k) >= 0.0:
            raise ValueError(f"wavenumber {np.min(k):g} 1/Mpc must not be negative")
        return _power_norm(self) * _unnormalised_power(self, k) * self.growth(z) ** 2

    def sigma(self, mass_Msun: ArrayLike, z: ArrayLike = 0.0) -> Array:
        """Linear rms density contrast in top-hat spheres that hold mass M on average."""
        log_mass = _log_mass(mass_Msun)
        return np.exp(_log_sigma_spline(self)(log_mass)) * self.growth(z)

    def dlnsigma_dlnM(self, mass_Msun: ArrayLike) -> Array:
        """Logarithmic slope of sigma(M), negative and the same at every redshift."""
        return _log_sigma_spline(self)(_log_mass(mass_Msun), 1)


def _redshift(z: ArrayLike) -> Array:
    z = np.asarray(z, dtype=np.float64)
    if z.size and not (np.min(z) > -1.0 and np.max(z) <= MAX_REDSHIFT):
        raise ValueError(
            f"redshift {np.min(z):g}..{np.max(z):g} must lie above -1 and not above "
            f"{MAX_REDSHIFT:g}"
        )
    return z


def _log_mass(mass_Msun: ArrayLike) -> Array:
    mass = np.asarray(mass_Msun, dtype=np.float64)
    low, high = SIGMA_MASS_RANGE
    if mass.size and not (np.min(mass) >= low and np.max(mass) <= high):
        raise ValueError(
            f"halo mass {np.min(mass):g}..{np.max(mass):g} Msun must lie in {low:g}..{high:g} Msun"
        )
    return np.log(mass)


@lru_cache(maxsize=16)
def _redshift_spline(cosmology: Cosmology) -> CubicHermiteSpline:
    """z as a function of chi [Mpc], with the exact slope dz/dchi = H/c at every node."""
    from scipy.interpolate import CubicHermiteSpline

    z = np.expm1(np.linspace(0.0, math.log1p(MAX_REDSHIFT), 4096))
    z[-1] = MAX_REDSHIFT
    chi = cosmology.comoving_distance(z)
    return CubicHermiteSpline(chi, z, cosmology.hubble(z) / C_KMS)


@lru_cache(maxsize=16)
def _power_norm(cosmology: Cosmology) -> float:
    radius = np.array([8.0 / cosmology.h])
    return float(cosmology.sigma8**2 / _top_hat_variance(cosmology, radius)[0])


@lru_cache(maxsize=16)
def _log_sigma_spline(cosmology: Cosmology) -> CubicSpline:
    """ln sigma(z=0) as a function of ln M [Msun]."""
    from scipy.interpolate import CubicSpline

    low, high = (math.log(mass) for mass in SIGMA_MASS_RANGE)
    log_mass = np.linspace(low, high, 112)
    radius = np.cbrt(3.0 * np.exp(log_mass) / (4.0 * np.pi * cosmology.matter_density))
    variance = _power_norm(cosmology) * _top_hat_variance(cosmology, radius)
    return CubicSpline(log_mass, 0.5 * np.log(variance))


def _top_hat_variance(cosmology: Cosmology, radius_Mpc: Array) -> Array:
    """Variance of the unnormalised field in spheres, shape [num_radii].

    Each radius has its own range of kR, so the oscillating tail is sampled alike for all; at
    kR = 100 the integrand has fallen by more than 1e-7.
    """
    log_kr = np.linspace(math.log(1e-5), math.log(300.0), 2400)
    kr = np.exp(log_kr)
    cubic = kr * kr * (0.1 - kr * kr / 280.0) + 1.0 - 0.2 * kr * kr
    window = np.where(
        kr < 0.05, cubic, 3.0 * (np.sin(kr) - kr * np.cos(kr)) / np.maximum(kr, 0.05) ** 3
    )
    k = kr[None, :] / radius_Mpc[:, None]
    integrand = _unnormalised_power(cosmology, k) * k**3 * window**2 / (2.0 * np.pi**2)
    return np.sum(integrand, axis=1) * (log_kr[1] - log_kr[0])


def _unnormalised_power(cosmology: Cosmology, k: Array) -> Array:
    return k**cosmology.n_s * _transfer(cosmology, k) ** 2


def _transfer(cosmology: Cosmology, k: Array) -> Array:
    """Matter transfer function of Eisenstein & Hu 1998, equations 2 to 24; k in [1/Mpc]."""
    omega_m = cosmology.Omega_m * cosmology.h**2
    omega_b = cosmology.Omega_b * cosmology.h**2
    f_b = cosmology.Omega_b / cosmology.Omega_m
    f_c = 1.0 - f_b
    theta = T_CMB_K / 2.7
    k = np.maximum(k, 1e-12)

    # Equality, drag epoch, sound horizon and Silk damping (2 to 7).
    z_eq = 2.50e4 * omega_m * theta**-4
    k_eq = 7.46e-2 * omega_m * theta**-2
    b1 = 0.313 * omega_m**-0.419 * (1.0 + 0.607 * omega_m**0.674)
    b2 = 0.238 * omega_m**0.223
    z_d = 1291.0 * omega_m**0.251 / (1.0 + 0.659 * omega_m**0.828) * (1.0 + b1 * omega_b**b2)
    r_d = 31.5 * omega_b * theta**-4 * (1e3 / z_d)
    r_eq = 31.5 * omega_b * theta**-4 * (1e3 / z_eq)
    s = (2.0 / (3.0 * k_eq)) * math.sqrt(6.0 / r_eq)
    s *= math.log((math.sqrt(1.0 + r_d) + math.sqrt(r_d + r_eq)) / (1.0 + math.sqrt(r_eq)))
    k_silk = 1.6 * omega_b**0.52 * omega_m**0.73 * (1.0 + (10.4 * omega_m) ** -0.95)

    # Cold dark matter (9 to 12, 17 to 20).
    a1 = (46.9 * omega_m) ** 0.670 * (1.0 + (32.1 * omega_m) ** -0.532)
    a2 = (12.0 * omega_m) ** 0.424 * (1.0 + (45.0 * omega_m) ** -0.582)
    alpha_c = a1 ** (-f_b) * a2 ** (-(f_b**3))
    c1 = 0.944 / (1.0 + (458.0 * omega_m) ** -0.708)
    c2 = (0.395 * omega_m) ** -0.0266
    beta_c = 1.0 / (1.0 + c1 * (f_c**c2 - 1.0))
    q = k / (13.41 * k_eq)
    ks = k * s
    mix = 1.0 / (1.0 + (ks / 5.4) ** 4)
    cdm = mix * _pressureless(q, 1.0, beta_c) + (1.0 - mix) * _pressureless(q, alpha_c, beta_c)

    # Baryons (13 to 15, 21 to 24).
    y = (1.0 + z_eq) / (1.0 + z_d)
    root = math.sqrt(1.0 + y)
    g = y * (-6.0 * root + (2.0 + 3.0 * y) * math.log((root + 1.0) / (root - 1.0)))
    alpha_b = 2.07 * k_eq * s * (1.0 + r_d) ** -0.75 * g
    beta_node = 8.41 * omega_m**0.435
    beta_b = 0.5 + f_b + (3.0 - 2.0 * f_b) * math.sqrt((17.2 * omega_m) ** 2 + 1.0)
    s_tilde = s / np.cbrt(1.0 + (beta_node / ks) ** 3)
    smooth = _pressureless(q, 1.0, 1.0) / (1.0 + (ks / 5.2) ** 2)
    damped = alpha_b / (1.0 + (beta_b / ks) ** 3) * np.exp(-((k / k_silk) ** 1.4))
    baryons = (smooth + damped) * np.sinc(k * s_tilde / np.pi)
    return f_b * baryons + f_c * cdm


def _pressureless(q: Array, alpha: float, beta: float) -> Array:
    """T_0 of equations 10, 19 and 20, the shape without baryon pressure."""
    log_term = np.log(np.e + 1.8 * beta * q)
    c = 14.2 / alpha + 386.0 / (1.0 + 69.9 * q**1.08)
    return log_term / (log_term + c * q * q)
