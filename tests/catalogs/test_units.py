"""Spellings of units, against astropy where it reads them."""

from __future__ import annotations

import pytest

from streamtrain.catalogs.readers.expressions import (
    ANGLE,
    LENGTH,
    MASS,
    REDSHIFT,
    SPEED,
    is_stated,
    read_unit,
)

KINDS = {"Msun": MASS, "Mpc": LENGTH, "km/s": SPEED, "deg": ANGLE, "": REDSHIFT}


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("solMass", "Msun"), ("Msun", "Msun"), ("M_sun", "Msun"), ("1e10 solMass", "Msun"),
        ("1e+10 Msun", "Msun"), ("10**10 solMass", "Msun"), ("10^12 M_sun", "Msun"),
        ("kpc", "Mpc"), ("Gpc", "Mpc"), ("pc", "Mpc"), ("1000 kpc", "Mpc"),
        ("km / s", "km/s"), ("km s-1", "km/s"), ("km.s**-1", "km/s"), ("m s^-1", "km/s"),
        ("cm/s", "km/s"), ("rad", "deg"), ("arcmin", "deg"), ("arcsec", "deg"),
        ("hourangle", "deg"), ("deg", "deg"),
    ],
)  # fmt: skip
def test_factors_are_those_of_astropy(text: str, plain: str) -> None:
    units = pytest.importorskip("astropy.units")
    unit = read_unit(text, KINDS[plain])
    assert unit is not None
    assert unit.factor == pytest.approx(units.Unit(text).to(plain), rel=1e-12)
    assert (unit.h_power, unit.log10, unit.a_power) == (0, False, 0.0)


@pytest.mark.parametrize(
    "text",
    ["Msun/h", "Msun / h", "h^-1 Msun", "h-1 M_sun", "Msun h^-1", "Msun*h**-1", "Msun h**(-1)",
     "solMass / littleh", "$h^{-1}\\,M_\\odot$", r"h$^{-1}$ $\mathrm{M}_\odot$",
     "solar masses / h", "M\u2609/h"],
)  # fmt: skip
def test_spellings_of_mass_with_h(text: str) -> None:
    unit = read_unit(text, MASS)
    assert unit is not None
    assert (unit.factor, unit.h_power, unit.log10) == (1.0, -1, False)
    with_factor = read_unit(f"1e10 {text}", MASS)
    assert with_factor is not None
    assert (with_factor.factor, with_factor.h_power) == (1e10, -1)


@pytest.mark.parametrize(
    ("text", "h_power"),
    [("log10 Msun", 0), ("log10(Msun)", 0), ("dex(solMass)", 0), ("log10(M/Msun)", 0),
     ("log10 Msun/h", -1), ("log10(h^-1 Msun)", -1), ("dex(solMass / littleh)", -1)],
)  # fmt: skip
def test_logarithms(text: str, h_power: int) -> None:
    unit = read_unit(text, MASS)
    assert unit is not None
    assert (unit.factor, unit.h_power, unit.log10) == (1.0, h_power, True)


@pytest.mark.parametrize(
    ("text", "h_power"),
    [("cMpc", 0), ("comoving Mpc", 0), ("Mpccm/h", -1), ("cMpc/h", -1), ("Mpc h^{-1}", -1)],
)
def test_comoving_lengths(text: str, h_power: int) -> None:
    unit = read_unit(text, LENGTH)
    assert unit is not None
    assert (unit.factor, unit.h_power) == (1.0, h_power)


@pytest.mark.parametrize(
    ("text", "a_power"), [("km/s/a", -1.0), ("km s-1 a", 1.0), ("km/s * sqrt(a)", 0.5)]
)
def test_speeds_with_the_scale_factor(text: str, a_power: float) -> None:
    unit = read_unit(text, SPEED)
    assert unit is not None
    assert (unit.factor, unit.a_power) == (1.0, a_power)


@pytest.mark.parametrize(
    ("text", "kind"),
    [("log Msun", MASS), ("ln(Msun)", MASS), ("Msun h", MASS), ("Msunh", MASS), ("Msun/h70", MASS),
     ("Msun/h^2", MASS), ("Msun/yr", MASS), ("kg", MASS), ("1e10", MASS),
     ("[Msun]", MASS), ("h", MASS), ("", MASS),
     ("Mpc/h-1", LENGTH), ("pMpc", LENGTH), ("physical kpc", LENGTH), ("mpc", LENGTH),
     ("Mpc/a", LENGTH), ("log10 Mpc", LENGTH), ("km/h", SPEED), ("c", SPEED), ("ms-1", SPEED),
     ("h", ANGLE), ("deg/h", ANGLE), ("km/s", REDSHIFT)],
)  # fmt: skip
def test_what_is_not_known_is_no_unit(text: str, kind: dict[str, float]) -> None:
    assert read_unit(text, kind) is None


def test_what_stands_for_no_unit() -> None:
    assert not any(is_stated(text) for text in ("", " ", "-", "1", "None", "dimensionless"))
    assert is_stated("Msun")
    assert is_stated("furlong")
