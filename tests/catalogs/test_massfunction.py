"""Abundance and bias of halos against colossus and their defining integrals."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from streamtrain.catalogs.synthesis.massfunction import MASS_FUNCTIONS, halo_bias, mass_function
from streamtrain.cosmology import Cosmology

COMAP = Cosmology()
MASS = np.array([2.5e10, 1e12, 3e13])

# colossus 1.4.0 with COMAP's cosmology (relspecies=False, Tcmb0=2.7255): massFunction(q_out=
# "dndlnM") ln(10), models tinker08 (200m) and watson13 (fof); haloBias tinker10 (200m). Its
# sigma(M) table is 1e-4..3e-4 off, which the exponential tail multiplies.
COLOSSUS = {
    ("tinker08", 0.0): [0.108393, 0.00415951, 0.000186474],
    ("tinker08", 2.9): [0.0943546, 0.00125737, 1.05021e-06],
    ("watson13_fof", 0.0): [0.113621, 0.00382895, 0.000164443],
    ("watson13_fof", 2.9): [0.111246, 0.00179702, 2.04478e-06],
}
COLOSSUS_BIAS = {0.0: [0.651884, 0.795013, 1.33199], 2.9: [1.52319, 3.20679, 9.66981]}


@pytest.mark.parametrize(("name", "z"), COLOSSUS)
def test_mass_function_agrees_with_colossus(name: str, z: float) -> None:
    ours = mass_function(name).dn_dlog10M(MASS, z, COMAP)
    np.testing.assert_allclose(ours, COLOSSUS[name, z], rtol=1.5e-3)


@pytest.mark.parametrize("z", COLOSSUS_BIAS)
def test_bias_agrees_with_colossus(z: float) -> None:
    np.testing.assert_allclose(halo_bias(MASS, z, COMAP), COLOSSUS_BIAS[z], rtol=5e-4)


def test_number_of_halos_in_a_comap_field() -> None:
    """1.4 x 1.4 deg, z = 2.39..3.44, M > 2.5e10 Msun: 964 241 by an independent integration."""
    z = np.linspace(2.39, 3.44, 401)
    chi = COMAP.comoving_distance(z)
    density = mass_function("tinker08").number_density((2.5e10, 1e15), z, COMAP)
    area = np.radians(1.4) * 2.0 * np.sin(np.radians(0.7))
    shells = density * chi**2
    number = area * np.sum(0.5 * (shells[1:] + shells[:-1]) * np.diff(chi))
    np.testing.assert_allclose(number, 964_241, rtol=1e-3)


@pytest.mark.parametrize("name", MASS_FUNCTIONS)
def test_number_density_is_the_integral_over_mass(name: str) -> None:
    log_mass = np.linspace(10.4, 14.0, 20_001)
    per_dex = mass_function(name).dn_dlog10M(10.0**log_mass, 2.5, COMAP)
    expected = np.sum(0.5 * (per_dex[1:] + per_dex[:-1])) * (log_mass[1] - log_mass[0])
    density = mass_function(name).number_density((10.0**10.4, 1e14), 2.5, COMAP)
    np.testing.assert_allclose(density, expected, rtol=1e-6)


def test_names_and_definitions() -> None:
    for name, option in MASS_FUNCTIONS.items():
        assert option.name == name
        assert option.mass_definition and "arXiv:" in option.reference
    with pytest.raises(ValueError, match="unknown mass function 'tinker'; allowed: tinker08, wat"):
        mass_function("tinker")
    with pytest.raises(ValueError, match="mass edges"):
        mass_function("tinker08").number_density((1e12, 1e11), 0.0, COMAP)


@pytest.mark.parametrize("name", ["colossus:tinker08:200m", "colossus:watson13:fof"])
def test_colossus_models_are_those_of_colossus(name: str) -> None:
    """The two models that we also have ourselves, with our sigma(M): equal to rounding."""
    pytest.importorskip("colossus")
    own = mass_function({"tinker08": "tinker08", "watson13": "watson13_fof"}[name.split(":")[1]])
    z = np.array([[0.3], [2.9], [7.0]])
    ours, theirs = (option.dn_dlog10M(MASS, z, COMAP) for option in (own, mass_function(name)))
    np.testing.assert_allclose(theirs, ours, rtol=1e-5)
    bias = halo_bias(MASS, z, COMAP, "colossus:tinker10")
    np.testing.assert_allclose(bias, halo_bias(MASS, z, COMAP), rtol=1e-5)


def test_colossus_keeps_its_cosmology_and_names_its_definitions() -> None:
    cosmology = pytest.importorskip("colossus.cosmology.cosmology")
    before = cosmology.current_cosmo
    option = mass_function("colossus:despali16")
    option.dn_dlog10M(MASS, 2.9, COMAP)
    assert cosmology.current_cosmo is before
    assert option.mass_definition.startswith("200m")
    assert mass_function("colossus:watson13").mass_definition.startswith("fof")
    for name, message in [
        ("colossus:tinker88", "colossus has no mass function 'tinker88'; it has angulo12, "),
        (
            "colossus:despali16:fof",
            "despali16 of colossus has no mass definition 'fof'; it",
        ),
        ("colossus:tinker08:200x", "has no mass definition '200x'"),
    ]:
        with pytest.raises(ValueError, match=message):
            mass_function(name)
    with pytest.raises(ValueError, match="colossus has no bias 'mo96'; it has bhattacharya11, "):
        halo_bias(MASS, 0.0, COMAP, "colossus:mo96")
    with pytest.raises(ValueError, match="unknown bias 'mo96'; allowed: tinker10, or colossus"):
        halo_bias(MASS, 0.0, COMAP, "mo96")


def test_colossus_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "colossus", None)
    for name in list(sys.modules):
        if name.startswith("colossus."):
            monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ValueError, match="need the package colossus"):
        mass_function("colossus:despali16")


@pytest.mark.parametrize(
    ("z", "light", "heavy"),
    [
        (2.9, (0.71, 1.19), (0.99, 1.75)),
        (6.0, (1.06, 1.77), (0.67, 7.1)),
        (8.0, (1.17, 2.2), (0.106, 30.7)),
    ],
)
def test_spread_of_mass_functions(
    z: float, light: tuple[float, float], heavy: tuple[float, float]
) -> None:
    """Lowest and highest of six over Tinker08, at 2.5e10 and 1e13 Msun, as docs/lightcones.md says;
    they are colossus' own."""
    pytest.importorskip("colossus")
    others = ["watson13:200m", "watson13:fof", "despali16", "bocquet16", "sheth99", "reed07"]
    usual = mass_function("tinker08")
    for mass, ends in ((2.5e10, light), (1e13, heavy)):
        found = [
            float(
                mass_function(f"colossus:{name}").dn_dlog10M(mass, z, COMAP)
                / usual.dn_dlog10M(mass, z, COMAP)
            )
            for name in others
        ]
        assert (min(found), max(found)) == pytest.approx(ends, rel=0.03)
