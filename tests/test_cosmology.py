"""Distances, growth and power against closed forms and colossus."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad

from streamtrain.cosmology import C_KMS, Cosmology

EINSTEIN_DE_SITTER = Cosmology(Omega_m=1.0, Omega_b=0.05)
COMAP = Cosmology()
Z = np.array([0.0, 0.5, 1.0, 2.4, 2.9, 3.45])


def test_einstein_de_sitter_is_exact() -> None:
    a = 1.0 / (1.0 + Z)
    hubble_distance = C_KMS / 70.0
    model = EINSTEIN_DE_SITTER
    np.testing.assert_allclose(
        model.comoving_distance(Z), 2.0 * hubble_distance * (1.0 - np.sqrt(a)), rtol=1e-13
    )
    np.testing.assert_allclose(model.growth(Z), a, rtol=1e-14)
    np.testing.assert_allclose(model.growth_rate(Z), 1.0, rtol=1e-14)
    np.testing.assert_allclose(model.hubble(Z), 70.0 * a**-1.5, rtol=1e-14)
    np.testing.assert_allclose(model.age(Z), 2.0 / 3.0 * 977.7922 / 70.0 * a**1.5, rtol=1e-6)


@pytest.mark.parametrize("z", [0.01, 1.0, 3.0, 20.0])
def test_distance_and_age_are_the_integrals_of_the_expansion(z: float) -> None:
    distance = quad(lambda s: C_KMS / float(COMAP.hubble(s)), 0.0, z, epsabs=0, epsrel=1e-11)[0]
    np.testing.assert_allclose(COMAP.comoving_distance(z), distance, rtol=1e-10)
    age = quad(
        lambda x: 977.7922216807891 / float(COMAP.hubble(np.expm1(x))),
        np.log1p(z),
        np.log1p(1000.0),
        epsabs=0,
        epsrel=1e-11,
    )[0]
    np.testing.assert_allclose(COMAP.age(z) - COMAP.age(1000.0), age, rtol=1e-8)


def test_redshift_inverts_distance() -> None:
    z = np.concatenate([np.linspace(0.0, 12.0, 997), [1100.0]])
    np.testing.assert_allclose(COMAP.redshift(COMAP.comoving_distance(z)), z, rtol=1e-9, atol=1e-12)


def test_growth_solves_its_equation() -> None:
    """D'' + (2 + dlnH/dlna) D' = 1.5 Omega_m(a) D, with ' = d/dlna and D' = f D."""
    x, step = -np.log1p(np.array([0.1, 1.0, 3.0])), 1e-3

    def rate_times_growth(log_a: np.ndarray) -> np.ndarray:
        z = np.expm1(-log_a)
        return COMAP.growth_rate(z) * COMAP.growth(z)

    z = np.expm1(-x)
    first = rate_times_growth(x)
    second = (rate_times_growth(x + step) - rate_times_growth(x - step)) / (2.0 * step)
    source = 1.5 * COMAP.matter_fraction(z)
    np.testing.assert_allclose(second + (2.0 - source) * first, source * COMAP.growth(z), rtol=1e-6)
    slope = np.log(COMAP.growth(np.expm1(-x - step)) / COMAP.growth(np.expm1(-x + step)))
    np.testing.assert_allclose(COMAP.growth_rate(z), slope / (2.0 * step), rtol=1e-6)


# colossus 1.4.0: setCosmology(flat, H0=70, Om0=.286, Ob0=.047, sigma8=.82, ns=.96,
# relspecies=False, Tcmb0=2.7255); its own interpolation tables are good to 3e-4.
COLOSSUS_K = np.array([1e-4, 1e-3, 1e-2, 0.05, 0.1, 0.3, 1.0, 10.0])
COLOSSUS_POWER = np.array([2089.13, 18465.7, 79260.3, 29208.5, 10281.2, 1228.64, 81.8213, 0.24276])
COLOSSUS_GROWTH = np.array([0.999968, 0.777336, 0.616795, 0.377512, 0.330349, 0.290224])
COLOSSUS_MASS = np.array([1e9, 2.5e10, 1e12, 1e14])
COLOSSUS_SIGMA = np.array([4.71416, 3.43335, 2.17348, 0.992335])


def test_power_growth_and_sigma_agree_with_colossus() -> None:
    np.testing.assert_allclose(COMAP.linear_power(COLOSSUS_K), COLOSSUS_POWER, rtol=5e-4)
    np.testing.assert_allclose(COMAP.growth(Z), COLOSSUS_GROWTH, rtol=1e-4)
    np.testing.assert_allclose(COMAP.sigma(COLOSSUS_MASS), COLOSSUS_SIGMA, rtol=5e-4)


def test_sigma8_is_the_variance_of_the_power_in_spheres() -> None:
    radius = 8.0 / COMAP.h
    k = np.geomspace(1e-5, 1e2, 200_001)
    x = k * radius
    window = 3.0 * (np.sin(x) - x * np.cos(x)) / x**3
    window[x < 1e-2] = 1.0 - 0.1 * x[x < 1e-2] ** 2
    integrand = COMAP.linear_power(k) * k**3 * window**2 / (2.0 * np.pi**2)
    variance = np.sum(integrand) * np.log(k[1] / k[0])
    np.testing.assert_allclose(np.sqrt(variance), COMAP.sigma8, rtol=1e-6)
    mass = 4.0 / 3.0 * np.pi * radius**3 * COMAP.matter_density
    np.testing.assert_allclose(COMAP.sigma(mass), COMAP.sigma8, rtol=1e-6)


def test_power_and_sigma_grow_with_the_growth_factor() -> None:
    growth = COMAP.growth(2.9)
    np.testing.assert_allclose(COMAP.linear_power(0.1, 2.9), COMAP.linear_power(0.1) * growth**2)
    np.testing.assert_allclose(COMAP.sigma(1e11, 2.9), COMAP.sigma(1e11) * growth)
    mass = np.geomspace(1e9, 1e15, 7)
    up, down = np.log(COMAP.sigma(mass * 1.01)), np.log(COMAP.sigma(mass / 1.01))
    numeric = (up - down) / (2.0 * np.log(1.01))
    np.testing.assert_allclose(COMAP.dlnsigma_dlnM(mass), numeric, rtol=1e-4)


def test_dict_round_trip_and_refusals() -> None:
    assert Cosmology.from_dict(COMAP.to_dict()) == COMAP
    values = COMAP.to_dict()
    with pytest.raises(ValueError, match=r"unknown \['sigma_8'\], missing \['sigma8'\]"):
        Cosmology.from_dict({**{k: v for k, v in values.items() if k != "sigma8"}, "sigma_8": 0.8})
    with pytest.raises(ValueError, match=r"Omega_m = nan must be a number in 0\.05\.\.1\.0"):
        Cosmology(Omega_m=float("nan"))
    with pytest.raises(ValueError, match=r"h = '0\.7' must be a number"):
        Cosmology.from_dict({**values, "h": "0.7"})
    with pytest.raises(ValueError, match=r"Omega_b = 0\.3 must be below Omega_m = 0\.2"):
        Cosmology(Omega_m=0.2, Omega_b=0.3)
    with pytest.raises(ValueError, match="redshift -2"):
        COMAP.comoving_distance(-2.0)
    with pytest.raises(ValueError, match="comoving distance"):
        COMAP.redshift(1e6)
    with pytest.raises(ValueError, match="halo mass"):
        COMAP.sigma(1.0)
    with pytest.raises(ValueError, match="wavenumber"):
        COMAP.linear_power(-1.0)
