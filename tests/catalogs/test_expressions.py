"""Arithmetic with the columns of a table, column maps from the command line, and spellings of
units, against astropy where it reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from support.halo_tables import COSMOLOGY, H, check, column_map, halos, write_csv

from streamtrain.catalogs.headers import CatalogError
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.readers import Options, read
from streamtrain.catalogs.readers.columnmap import load_map, map_of_words
from streamtrain.catalogs.readers.expressions import (
    ANGLE,
    LENGTH,
    MASS,
    REDSHIFT,
    SPEED,
    is_stated,
    parse_expression,
    read_unit,
)
from streamtrain.cli.main import main

COLUMNS = {"a": np.array([1.0, 4.0, 100.0]), "b": np.array([3, 2, 1], np.uint8),
           "Pos": np.arange(6.0).reshape(3, 2), "M-200": np.array([1.0, 2.0, 3.0])}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a + b", [4, 6, 101]),
        ("b - a", [2, -2, -99]),
        ("-b", [-3, -2, -1]),
        ("1e10*a/0.5", [2e10, 8e10, 2e12]),
        ("10**b", [1000, 100, 10]),
        ("2**b**2 - -a", [513, 20, 102]),
        ("log10(a) * sqrt(a) + exp(0*a)", [1, 1 + 2 * np.log10(4), 21]),
        ("(a - b) / (a + b)", [-2 / 4, 2 / 6, 99 / 101]),
        ("Pos[1] * 2", [2, 6, 10]),
        ("'M-200' * 2", [2, 4, 6]),
    ],
)
def test_value(text: str, value: list[float]) -> None:
    np.testing.assert_allclose(parse_expression(text).evaluate(COLUMNS), value, rtol=1e-15)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a +", "'a \\+' is no expression"),
        ("__import__('os').system('true')", "is not allowed"),
        ("a.__class__", "'a.__class__' is not allowed"),
        ("[a for a in b]", "is not allowed"),
        ("(lambda: a)()", "is not allowed"),
        ("open(a)", r"'open\(a\)' is not allowed in 'open\(a\)': only numbers, columns"),
        ("log10(a, b)", "is not allowed"),
        ("log10(x=a)", "is not allowed"),
        ("a if b else a", "is not allowed"),
        ("a > b", "is not allowed"),
        ("a // b", "is not allowed"),
        ("~b", "is not allowed"),
        ("a * True", "'True' is not allowed"),
        ("a * 1j", "'1j' is not allowed"),
        ("(x := a)", "is not allowed"),
        ("Pos[-1]", "is not allowed"),
        ("Pos[0:1]", "is not allowed"),
        ("a; b", "is no expression"),
        ("M 200", "is no expression .*names with other signs in quotes"),
        ("lambda", "is no expression"),
        ("", "is no expression"),
        ("1 + 2", "names no column"),
        ("(" * 250 + "a" + ")" * 250, "an expression of 501 letters"),
        ("(" * 140 + "a" + ")" * 140 + "\0", "is no expression"),
    ],
)
def test_what_is_not_arithmetic_is_refused(text: str, message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        parse_expression(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Pos * 2", r"'Pos \* 2' has shape \(3, 2\)"),
        ("Pos[2] + a", "'Pos' has no index 2"),
        ("a[0] + a", "'a' has no index 0"),
        ("Pos + a", r"different shape: Pos \(3, 2\), a \(3,\)"),
        ("word + a", "'word' holds no real numbers"),
    ],
)
def test_columns_that_do_not_fit(text: str, message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        parse_expression(text).evaluate(COLUMNS | {"word": np.array(["x", "y", "z"])})


def test_a_tower_of_powers_ends(tmp_path: Path) -> None:
    value = parse_expression("a * 9**9**9**9**9").evaluate(COLUMNS)
    assert np.isinf(value).all()


def shifted(path: Path) -> Path:
    """A table as mocks have it: the cosmological redshift, its shift, and log masses."""
    true = halos()
    columns = {name: true[name] for name in ("x", "y", "z")}
    columns |= {"zcos": true["z_cos"], "dz": true["z_obs"] - true["z_cos"]}
    columns |= {"logm": np.log10(true["mass"]), "m10": true["mass"] / 1e10 * H}
    return write_csv(path, columns)


def test_map_with_expressions(tmp_path: Path) -> None:
    path = shifted(tmp_path / "a.csv")
    chosen = column_map("x y z") | {
        "mass": {"expression": "10**LOGM * 0.7", "unit": "Msun/h"},
        "z_obs": "ZCOS + DZ",
    }
    cone = read(path, options=Options(columns=chosen))
    check(cone, 1e-6)
    assert "z_obs = ZCOS + DZ []" in cone.provenance
    assert "mass = 10**LOGM * 0.7 [Msun/h]" in cone.provenance
    with pytest.raises(CatalogError, match="there is no column 'DX'"):
        read(path, options=Options(columns=chosen | {"z_obs": "ZCOS + DX"}))
    with pytest.raises(CatalogError, match=r"mass.*must be finite"):
        read(path, options=Options(columns=chosen | {"mass": {"expression": "log10(0*X)",
                                                              "unit": "Msun"}}))  # fmt: skip


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = shifted(tmp_path / "a.csv")
    words = ["x_Mpc=X", "y_Mpc=Y", "z_Mpc=Z", "mass_Msun=1e10*M10/0.7", "z_obs=ZCOS+DZ"]
    cosmology = ["--cosmology", *(f"{name}={value}" for name, value in COSMOLOGY.items())]
    arguments = ["catalog", "import", str(path), *cosmology, "--out"]
    assert main([*arguments, str(tmp_path / "one"), "--columns", *words]) == 0
    check(Lightcone.open(tmp_path / "one/a.h5"), 1e-6)
    (tmp_path / "map.yaml").write_text(yaml.dump(column_map("x y z mass z_obs")))
    words = [str(tmp_path / "map.yaml"), "mass_Msun=10**LOGM", "z_obs=ZCOS+DZ"]
    assert main([*arguments, str(tmp_path / "two"), "--columns", *words]) == 0
    check(Lightcone.open(tmp_path / "two/a.h5"), 1e-6)
    after = ["--columns", *words, str(path), *cosmology, "--out", str(tmp_path / "after")]
    assert main(["catalog", "import", *after]) == 0
    check(Lightcone.open(tmp_path / "after/a.h5"), 1e-6)
    capsys.readouterr()
    assert main(["catalog", "import", "--columns", *words]) == 2
    assert "catalog import needs a FILE" in capsys.readouterr().err
    for wrong, message in {
        "mass_Msun=10**": "mass: '10**' is no expression",
        "mass=LOGM": "--columns has no 'mass': did you mean 'mass_Msun'?",
        "LOGM": "--columns takes a file and then NAME=COLUMN like mass_Msun=10**logM, not 'LOGM'",
        "z_obs=": "not 'z_obs='",
        "centre_deg=a,2": "centre_deg must be a number, not 'a'",
    }.items():
        assert main([*arguments, str(tmp_path / "bad"), "--columns", *words, wrong]) == 2
        shown = capsys.readouterr().err
        assert message in shown and shown.count("\n") == 1


def test_names_paths_and_vectors_of_hdf5(tmp_path: Path) -> None:
    true = halos()
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["Halos/POS"] = np.stack([true[a] * H for a in "xyz"], axis=-1)
        file["Halos/M-200"], file["Halos/Z"] = true["mass"] / 1e10, true["z_obs"]
        file["Halos/M-200"].attrs["unit"] = "1e10Msun"
    words = [f"{name}_Mpc='Halos/POS'[{i}]/{H}" for i, name in enumerate("xyz")]
    words += ["mass_Msun='Halos/M-200'*1e10", "z_obs=Halos/Z"]
    chosen: Any = map_of_words(words)
    assert chosen["z_obs"] == "Halos/Z"
    cone = read(tmp_path / "a.hdf5", options=Options(columns=chosen, cosmology=COSMOLOGY))
    check(cone, 1e-6)
    assert "in expressions, by the file: Halos/M-200 in 1e10Msun" in cone.provenance
    words = [f"{name}_Mpc=POS[{i}]/{H}" for i, name in enumerate("xyz")]
    words += ["mass_Msun='M-200'*1e10", "z_obs=Z", "table=Halos"]
    chosen = map_of_words(words)
    check(read(tmp_path / "a.hdf5", options=Options(columns=chosen, cosmology=COSMOLOGY)), 1e-6)
    with pytest.raises(CatalogError, match=r"'M-200' is in 1e10Msun, the map says Msun"):
        chosen = map_of_words([*words, "mass_Msun='M-200'"])  # a name alone: a plain column
        read(tmp_path / "a.hdf5", options=Options(columns=chosen, cosmology=COSMOLOGY))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"expression": "10**"}, "mass: '10\\*\\*' is no expression"),
        ({"expression": "M", "column": "M"}, "mass must be like"),
        ({"expression": 3}, "mass must be like"),
        ({"expression": "M*2", "index": 0}, "mass: index must be .*of a column"),
    ],
)
def test_bad_maps(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        load_map(column_map("x y z", mass=entry | {"unit": "Msun"}))


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
