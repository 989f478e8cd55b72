"""Tables with named columns: every kind of file, every way to say where a halo is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from support import ROOT
from support.halo_tables import COSMOLOGY, H, check, column_map, halos, write_csv

from streamtrain.catalogs.headers import CatalogError
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.readers import FORMATS, Options, read, read_halos
from streamtrain.catalogs.readers.columnmap import load_map, map_of_words
from streamtrain.catalogs.readers.tablefile import stated_h
from streamtrain.cli.main import main

DOCS = ROOT / "docs" / "lightcones.md"


def write(path: Path, columns: dict[str, Any]) -> Path:
    upper = {name.upper(): np.asarray(a) for name, a in columns.items()}
    if path.suffix == ".csv":
        return write_csv(path, columns)
    if path.suffix in (".ecsv", ".fits"):
        table = pytest.importorskip("astropy.table").Table(upper)
        table.write(path, format="ascii.ecsv" if path.suffix == ".ecsv" else "fits")
    elif path.suffix == ".hdf5":
        with h5py.File(path, "w") as file:
            for name, a in upper.items():
                file[name] = a
    else:
        arrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(arrow.table(upper), path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".ecsv", ".fits", ".hdf5", ".parquet"])
def test_every_kind_of_file(tmp_path: Path, suffix: str) -> None:
    names = "x y z mass vx vy vz"
    path = write(tmp_path / f"a{suffix}", {k: halos()[k] for k in names.split()})
    lightcone = read(path, options=Options(columns=column_map(names)))
    check(lightcone)
    assert lightcone.velocities_kms is not None
    assert f"table a{suffix}, sha256 " in lightcone.provenance
    assert "mass = MASS [Msun]" in lightcone.provenance


@pytest.mark.parametrize(
    "names",
    ["x y z mass z_obs", "x y z mass v_los", "x y z mass z_cos v_los", "x y z mass vx vy vz z_cos",
     "ra dec z_cos mass v_los", "ra dec z_cos z_obs mass", "ra dec z_obs v_los mass"],
)  # fmt: skip
def test_every_way_to_say_where(tmp_path: Path, names: str) -> None:
    path = write(tmp_path / "a.csv", {k: halos()[k] for k in names.split()})
    check(read(path, options=Options(columns=column_map(names))), 1e-6)


VECTORS = {
    **{name: {"expression": f"pos[{k}]/h", "unit": "Mpc"} for k, name in enumerate("xyz")},
    "mass": {"column": "m", "unit": "Msun"},
    "z_obs": "redshift",
    "cosmology": COSMOLOGY,
}


def test_npz_of_any_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Arrays of three numbers per halo, a number for all halos, and one array of records."""
    true = halos()
    place = np.stack([true[name] for name in "xyz"], axis=-1) * H
    path = tmp_path / "a.npz"
    np.savez(path, pos=place, m=true["mass"], redshift=true["z_obs"], h=H, name="mine")
    check(read(path, options=Options(columns=VECTORS)), 1e-6)
    rows = np.zeros(len(place), [("pos", "f8", 3), ("m", "f4"), ("redshift", "f8"), ("h", "f8")])
    rows["pos"], rows["m"], rows["redshift"], rows["h"] = place, true["mass"], true["z_obs"], H
    np.savez(path, halos=rows)
    check(read(path, options=Options(columns=VECTORS)), 1e-6)
    np.savez(path, halos=rows, others=rows[:3])
    check(read(path, options=Options(columns=VECTORS | {"table": "halos"})), 1e-6)
    for changes, message in (
        ({}, "there is no column 'pos': .*valid: halos, others"),
        ({"table": "halo"}, "there is no array 'halo': did you mean 'halos'"),
    ):
        with pytest.raises(CatalogError, match=message):
            read(path, options=Options(columns=VECTORS | changes))
    np.savez(path, pos=place, m=np.array([{}, 1]), redshift=true["z_obs"], h=H)
    with pytest.raises(CatalogError, match="allow_pickle=False"):
        read(path, options=Options(columns=VECTORS))
    quotient = VECTORS | {"mass": {"column": "m/h", "unit": "Msun"}}
    np.savez(path, pos=place, m=true["mass"], redshift=true["z_obs"], h=H)
    with pytest.raises(CatalogError, match=r"no column 'm/h': \(m/h\) is a quotient"):
        read(path, options=Options(columns=quotient))
    assert main(["catalog", "import", str(path)]) == 2
    assert "; --columns reads a table of other names" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["hdf5", "fits"])
def test_another_h_than_the_file_states(tmp_path: Path, kind: str) -> None:
    """Units with h are not converted with another; H0 = 100 says nothing."""
    true = halos()
    scaled = true | {name: true[name] * H for name in "xyz"}
    chosen = column_map("x y z mass z_obs")
    for name in "xyz":
        chosen[name]["unit"] = "Mpc/h"
    path = write(tmp_path / f"a.{kind}", {k: scaled[k] for k in ("x", "y", "z", "mass", "z_obs")})

    def states(name: str, value: float) -> None:
        if kind == "hdf5":
            with h5py.File(path, "r+") as file:
                file.require_group("Header").attrs[name] = np.array([value])
        else:
            from astropy.io import fits

            fits.setval(path, name, value=value, ext=1)

    for name, value in (("H0", 100.0), ("H0", 100 * H), ("HUBBLE_H" if kind == "hdf5" else "H", H)):
        states(name, value)
        check(read(path, options=Options(columns=chosen)), 1e-6)
    states("H0", 67.74)
    with pytest.raises(
        CatalogError, match=r"by H0 of the file h is 0\.6774, but .* h = 0\.7: give"
    ):
        read(path, options=Options(columns=chosen))
    for name in "xyz":
        chosen[name] = {"expression": f"{name.upper()}/{H}", "unit": "Mpc"}
    check(read(path, options=Options(columns=chosen)), 1e-6)


def test_h_that_tables_of_every_format_state(tmp_path: Path) -> None:
    """As astropy and pyarrow write them, and an array beside the columns of an npz file."""
    table = pytest.importorskip("astropy.table").Table({"mass": [1e12], "x": [3.0]})
    table.meta = {"Hubble_h": 0.6774, "H0": 100.0, "author": "none", "h": [1, 2]}
    for name, path in (("a.ecsv", ""), ("a.h5", "halos"), ("b.h5", "data/halos")):
        more = {"serialize_meta": True, "path": path} if path else {}
        table.write(tmp_path / name, **more)
        assert stated_h(tmp_path / name) == {"Hubble_h": 0.6774}, name
    with h5py.File(tmp_path / "a.h5", "r+") as file:  # as astropy 6.1 and before write a dict
        lines = ["datatype:", "- {name: mass, datatype: float64}", "meta:", "  Hubble_h: 0.7"]
        del file["halos.__table_column_meta__"]
        file["halos.__table_column_meta__"] = np.array(lines, "S")
    assert stated_h(tmp_path / "a.h5") == {"Hubble_h": 0.7}
    table.meta = {"H": 0.6774}
    for name in ("a.fits", "a.parquet"):
        table.write(tmp_path / name)
        assert stated_h(tmp_path / name) == {"H": 0.6774}, name
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"mass": [1e12]}
    plain = arrow.table(columns).replace_schema_metadata({"h": "0.6774", "H0": "none"})
    parquet.write_table(plain, tmp_path / "b.parquet")
    np.savez(tmp_path / "b.npz", **columns, H0=67.74, h=np.array("none"))
    for name, key in (("b.parquet", "h"), ("b.npz", "H0")):
        assert stated_h(tmp_path / name) == {key: pytest.approx(0.6774)}, name
    (tmp_path / "c.csv").write_text("mass,x\n1e12,3\n")
    (tmp_path / "c.ecsv").write_text("# %ECSV 1.0\n# ---\n# meta: {H0: [\nmass x\n1e12 3\n")
    np.savez(tmp_path / "c.npz", mass=[1e12], h=np.array({"value": 0.7}, dtype=object))
    for name in ("c.csv", "c.ecsv", "c.npz"):
        assert stated_h(tmp_path / name) == {}, name


def test_a_table_in_hdf5_without_a_map(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its ending is that of a lightcone, too, of which the options are none."""
    path = write(tmp_path / "a.hdf5", halos())
    for options in ([], ["--cosmology", "h=0.7"]):
        assert main(["catalog", "import", str(path), *options]) == 2
        assert "--columns" in capsys.readouterr().err


def test_lists_in_parquet(tmp_path: Path) -> None:
    """As long ones as Arrow knows kinds of; a list of another length, or a hole, is refused."""
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    true, path = halos(), tmp_path / "a.parquet"
    place = [list(row) for row in np.stack([true[name] for name in "xyz"], axis=-1) * H]

    def written(lists: list[Any], kind: Any, chunk: int = 1 << 20) -> Path:
        columns = {"pos": arrow.array(lists, kind), "m": true["mass"], "redshift": true["z_obs"]}
        columns["h"] = np.full(len(lists), H)
        parquet.write_table(arrow.table(columns), path, row_group_size=chunk)
        return path

    kinds = arrow.list_(arrow.float64()), arrow.list_(arrow.float64(), 3)
    for kind in (*kinds, arrow.large_list(arrow.float64())):
        for chunk in (1 << 20, len(place) // 3):
            check(read(written(place, kind, chunk), options=Options(columns=VECTORS)), 1e-6)
    for wrong, message in (
        ([1.0, 2.0], "'pos' holds lists of different lengths"),
        (None, "'pos' holds lists of different lengths"),
        ([1.0, None, 2.0], "'pos' has no value at row 4"),
    ):
        holed = [*place[:4], wrong, *place[5:]]
        with pytest.raises(CatalogError, match=message):
            read(written(holed, kinds[0]), options=Options(columns=VECTORS))


def test_what_is_missing_is_assumed_and_said(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", halos())
    still = read(path, options=Options(columns=column_map("x y z mass")))
    np.testing.assert_allclose(np.sort(still.z_obs), np.sort(halos()["z_cos"]), atol=1e-6)
    assert "without peculiar velocities" in still.provenance
    seen = read(path, options=Options(columns=column_map("ra dec z_obs mass")))
    assert "positions are in redshift space" in seen.provenance


def test_units(tmp_path: Path) -> None:
    """With h, in kpc, as a logarithm, in 1e10 Msun/h and in radians."""
    true = halos()
    for unit, factor in {"Mpc/h": H, "kpc": 1e3, "kpc / h": 1e3 * H, "Gpc": 1e-3}.items():
        scaled = true | {name: true[name] * factor for name in "xyz"}
        chosen = column_map("x y z mass z_obs")
        for name in "xyz":
            chosen[name]["unit"] = unit
        check(read(write(tmp_path / "a.csv", scaled), options=Options(columns=chosen)))
    masses = {
        "Msun/h": true["mass"] * H,
        "1e10 Msun/h": true["mass"] * H / 1e10,
        "log10 Msun/h": np.log10(true["mass"] * H),
        "log10 Msun": np.log10(true["mass"]),
    }
    for unit, values in masses.items():
        chosen = column_map("x y z mass z_obs", mass={"column": "MASS", "unit": unit})
        path = write(tmp_path / "a.csv", true | {"mass": values})
        check(read(path, options=Options(columns=chosen)), 1e-6)
    angles = true | {name: np.radians(true[name]) for name in ("ra", "dec")}
    chosen = column_map("ra dec z_cos v_los mass")
    chosen["ra"]["unit"] = chosen["dec"]["unit"] = "rad"
    check(read(write(tmp_path / "a.csv", angles), options=Options(columns=chosen)), 1e-6)


@pytest.mark.parametrize(
    ("unit", "power"), [("km/s/a", 1), ("km/s * a", -1), ("m/s*sqrt(a)", -0.5)]
)
def test_velocities_with_a_scale_factor(tmp_path: Path, unit: str, power: float) -> None:
    """v = number * a^-power: of a lightcone by z_cos, of a snapshot by its redshift."""
    true = halos()
    speeds = ("vx", "vy", "vz")
    milli = 1e3 if unit.startswith("m/s") else 1.0
    scale = {"cone": 1 / (1 + true["z_cos"]), "box": 1 / 3.5}
    names = "x y z mass vx vy vz"
    units = {a: {"column": a.upper(), "unit": unit} for a in speeds}
    stored = {a: true[a] * scale["cone"] ** power * milli for a in speeds}
    path = write(tmp_path / "a.csv", true | stored)
    check(read(path, options=Options(columns=column_map(f"{names} z_cos") | units)), 1e-6)
    with pytest.raises(CatalogError, match=r"vx is in .* scale factor a is unknown: say z_cos"):
        read(path, options=Options(columns=column_map(names) | units))
    stored = {a: true[a] * scale["box"] ** power * milli for a in speeds}
    path = write(tmp_path / "b.csv", true | stored)
    for options in (
        Options(columns=column_map(names) | units, redshift=2.5),
        Options(columns=column_map(names, box={"redshift": 2.5}) | units),
    ):
        velocity = read_halos(path, options=options).velocity_kms
        assert velocity is not None
        np.testing.assert_allclose(velocity, np.stack([true[a] for a in speeds], -1), rtol=1e-12)


def test_unit_of_the_file_has_a_scale_factor(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        for name in ("x", "y", "z", "mass", "v_los"):
            file[name.upper()] = halos()[name]
        file["V_LOS"].attrs["unit"] = "km/s/a"
    with pytest.raises(CatalogError, match="says that 'V_LOS' is in km/s/a, the map says km/s"):
        read(tmp_path / "a.hdf5", options=Options(columns=column_map("x y z mass v_los")))


@pytest.mark.parametrize(
    ("ra_0", "dec_0"), [(0.0, 70.0), (75.0, 0.0), (180.0, -30.0), (270.0, 5.0)]
)
def test_advice_of_a_centre_can_be_pasted(tmp_path: Path, ra_0: float, dec_0: float) -> None:
    """The middle of fields on both sides of ra = 0, of ra = 180 and near the pole."""
    true = halos()
    ra = (ra_0 + true["ra"] / np.cos(np.radians(dec_0))) % 360.0
    path = write(tmp_path / "a.csv", true | {"ra": ra, "dec": dec_0 + true["dec"]})
    with pytest.raises(CatalogError, match="centre_deg") as caught:
        read(path, options=Options(columns=column_map("ra dec z_cos v_los mass")))
    advice = re.search(r"--columns \.\.\. (centre_deg=(\S+?),(\S+?))\)", str(caught.value))
    assert advice is not None
    assert "--observer" not in str(caught.value)
    assert np.abs((float(advice[2]) - ra_0 + 180.0) % 360.0 - 180.0) < 1.0
    assert float(advice[3]) == pytest.approx(dec_0, abs=1.0)
    for written in (advice[1], f"centre_deg=[{advice[2]}, {advice[3]}]"):
        centre = map_of_words([*["ra_deg=A", "dec_deg=B", "z_obs=C", "mass_Msun=D"], written])
        assert isinstance(centre, dict)
        chosen = column_map("ra dec z_cos v_los mass", centre_deg=centre["centre_deg"])
        cone = read(path, options=Options(columns=chosen))
        assert np.abs(cone.footprint_deg).max() < 2.0


def test_centre_is_turned_to_the_line_of_sight(tmp_path: Path) -> None:
    """A field around ra, dec = 150, 60 deg: angles from its centre are kept."""
    true = halos()
    dec = 60.0 + true["dec"]
    ra = 150.0 + true["ra"] / np.cos(np.radians(dec))
    path = write(tmp_path / "a.csv", true | {"ra": ra, "dec": dec})
    with pytest.raises(CatalogError, match=r"centre_deg: \[(149|150)\.\d+, (59|60)\."):
        read(path, options=Options(columns=column_map("ra dec z_cos v_los mass")))
    chosen = column_map("ra dec z_cos v_los mass", centre_deg=[150, 60])
    cone = read(path, options=Options(columns=chosen))
    order, expected = np.argsort(cone.mass_Msun), np.argsort(true["mass"])
    found = np.degrees(np.arctan2(-cone.x_Mpc, cone.z_Mpc))[order]
    np.testing.assert_allclose(found, true["ra"][expected], atol=6e-3)
    away = np.radians(dec) - np.radians(60.0)
    cosine = np.cos(away) - np.cos(np.radians(dec)) * np.cos(np.radians(60)) * (
        1 - np.cos(np.radians(ra - 150.0))
    )  # of the angle from the centre, by the spherical law of cosines
    chi = np.sqrt(cone.x_Mpc**2.0 + cone.y_Mpc**2.0 + cone.z_Mpc**2.0)
    np.testing.assert_allclose(np.hypot(cone.x_Mpc, cone.y_Mpc)[order] / chi[order],
                               np.sin(np.arccos(cosine))[expected], atol=1e-6)  # fmt: skip


def test_hdf5_groups_compound_datasets_and_vectors(tmp_path: Path) -> None:
    true = halos()
    position = np.stack([true[a] for a in "xyz"], axis=-1)
    rows = np.zeros(60, [("POS", "f8", 3), ("M", "f4"), ("Z", "f8")])
    rows["POS"], rows["M"], rows["Z"] = position, true["mass"], true["z_obs"]
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["Halos/POS"], file["Halos/M"], file["Halos/Z"] = position, rows["M"], rows["Z"]
        file["rows"] = rows
    chosen = {name: {"column": "POS", "unit": "Mpc", "index": i} for i, name in enumerate("xyz")}
    chosen |= {"mass": {"column": "M", "unit": "Msun"}, "z_obs": "Z", "cosmology": COSMOLOGY}
    for table in ("Halos", "rows"):
        check(read(tmp_path / "a.hdf5", options=Options(columns=chosen | {"table": table})))


@pytest.mark.parametrize("suffix", [".csv", ".fits", ".hdf5", ".parquet"])
def test_files_of_a_pattern_are_joined(tmp_path: Path, suffix: str) -> None:
    names = "x y z mass z_obs"
    for number, rows in enumerate((slice(0, 25), slice(25, 26), slice(26, 60))):
        part = {name: halos()[name][rows] for name in names.split()}
        write(tmp_path / f"cone.{number}{suffix}", part)
    options = Options(columns=column_map(names))
    cone = read(tmp_path / f"cone.*{suffix}", options=options)
    check(cone)
    assert f"table cone.0{suffix} and 2 more of cone.*{suffix}, sha256 " in cone.provenance
    alone = read(tmp_path / f"cone.2{suffix}", options=options)
    assert len(alone) == 34
    assert "2 files of that name with other numbers are not in it" in alone.provenance
    with pytest.raises(CatalogError, match="there is no such file"):
        read(tmp_path / f"other.*{suffix}", options=options)


def test_files_of_a_pattern_must_be_alike(tmp_path: Path) -> None:
    names = "x y z mass z_obs"
    options = Options(columns=column_map(names))
    for number in (0, 1):
        write(tmp_path / f"a.{number}.hdf5", {name: halos()[name] for name in names.split()})
    with h5py.File(tmp_path / "a.1.hdf5", "r+") as file:
        file["MASS"].attrs["unit"] = "Msun"
    with pytest.raises(CatalogError, match=r"a\.1\.hdf5: its units, .* not those of a\.0\.hdf5"):
        read(tmp_path / "a.*.hdf5", options=options)
    for number, name in enumerate(("MASS", "X")):  # as many numbers in all
        with h5py.File(tmp_path / f"a.{number}.hdf5", "r+") as file:
            shorter = file[name][:-1]
            del file[name]
            file[name] = shorter
    with pytest.raises(CatalogError, match=r"a\.0\.hdf5: columns of different length"):
        read(tmp_path / "a.*.hdf5", options=options)
    write(tmp_path / "a.0.hdf5", {name: halos()[name] for name in names.split()})
    (tmp_path / "a.1.hdf5").write_bytes(b"x")
    with pytest.raises(CatalogError, match=r"a\.1\.hdf5: not a table, or a damaged one"):
        read(tmp_path / "a.*.hdf5", options=options)


def test_a_pattern_on_the_command_line(tmp_path: Path) -> None:
    names = "x y z mass z_obs"
    for number, rows in enumerate((slice(0, 25), slice(25, 60))):
        part = {name: halos()[name][rows] for name in names.split()}
        write(tmp_path / f"cone_{number}.csv", part)
    (tmp_path / "map.yaml").write_text(yaml.dump(column_map(names)))
    arguments = ["--columns", str(tmp_path / "map.yaml"), "--out", str(tmp_path / "made")]
    assert main(["catalog", "import", str(tmp_path / "cone_*.csv"), *arguments]) == 0
    check(Lightcone.open(tmp_path / "made/cone.h5"))


def test_unit_of_the_file_is_compared(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        for name in ("x", "y", "z", "mass", "z_obs"):
            file[name.upper()] = halos()[name]
        file["MASS"].attrs["unit"] = "Msun/h"
    with pytest.raises(CatalogError, match="says that 'MASS' is in Msun/h, the map says Msun"):
        read(tmp_path / "a.hdf5", options=Options(columns=column_map("x y z mass z_obs")))


@pytest.mark.parametrize(
    ("name", "unit", "stated"),
    [
        *((name, "Msun/h", "Msun/h") for name in (
            "M200 Msun/h", "M_Msun/h", "m_Msun_over_h", "M_msunh", "M_msun_per_h", "M Msun h^-1",
            "M_hinvMsun", "mass_h-1_Msun", "M200c_Msun_h", "MSUN/H", "M_M_sun_h",
        )),
        ("M_1e10Msun/h", "1e10 Msun/h", "1e10 Msun/h"),
        ("logM [Msun/h]", "log10 Msun/h", "log10 Msun/h"),
        ("log10(M [Msun/h])", "log10 Msun/h", "log10 Msun/h"),
        ("log10_Mvir_Msun_h", "log10 Msun/h", "log10 Msun/h"),
        ("lg M (Msun/h)", "log10 Msun/h", "log10 Msun/h"),
    ],
)  # fmt: skip
def test_unit_in_a_name(tmp_path: Path, name: str, unit: str, stated: str) -> None:
    """A map without its h, or without its logarithm, is refused, and one with them is right."""
    true = halos()
    mass = true["mass"] * H / (1e10 if "1e10" in unit else 1.0)
    mass = np.log10(mass) if "log10" in unit else mass
    table = np.stack([*(true[a] for a in ("x", "y", "z", "z_obs")), mass], axis=-1)
    path = tmp_path / "a.csv"
    np.savetxt(path, table, delimiter=",", header=f"X,Y,Z,Z_OBS,{name}", comments="", fmt="%.9g")
    chosen = column_map("x y z mass z_obs", mass={"column": name, "unit": unit})
    check(read(path, options=Options(columns=chosen)), 1e-6)
    for wrong in {unit.replace("/h", ""), unit.replace("log10 ", "")} - {unit}:
        chosen["mass"]["unit"] = wrong
        with pytest.raises(CatalogError, match=re.escape(f"'{name}' is in {stated}, the map says")):
            read(path, options=Options(columns=chosen))


@pytest.mark.parametrize("name", ["mass", "M200m_h", "Mach", "logical", "M/h", "Munich"])
def test_no_unit_in_a_name(tmp_path: Path, name: str) -> None:
    """What only may be one is none."""
    true = halos()
    table = np.stack([true[a] for a in ("x", "y", "z", "z_obs", "mass")], axis=-1)
    path = tmp_path / "a.csv"
    np.savetxt(path, table, delimiter=",", header=f"X,Y,Z,Z_OBS,{name}", comments="", fmt="%.9g")
    chosen = column_map("x y z mass z_obs", mass={"column": name, "unit": "Msun"})
    check(read(path, options=Options(columns=chosen)), 1e-6)


def test_rates_on_the_command_line(tmp_path: Path) -> None:
    """With the unit in the name, like all others; on top of a map; a name near it is told."""
    path = write(tmp_path / "a.csv", halos() | {"sfr": halos()["mass"] / 1e12})
    words = ["x_Mpc=X", "y_Mpc=Y", "z_Mpc=Z", "mass_Msun=MASS", "z_obs=Z_OBS"]
    for sfr in ("sfr_Msun_yr=SFR", "sfr_Msun_yr=10**log10(SFR)"):
        chosen = map_of_words([*words, sfr])
        cone = read(path, options=Options(columns=chosen, cosmology=COSMOLOGY))
        np.testing.assert_allclose(cone.columns["sfr"], cone.mass_Msun / 1e12, rtol=1e-6)
    chosen = column_map("x y z mass z_obs", columns={"age": {"column": "SFR", "unit": "Gyr"}})
    (tmp_path / "map.yaml").write_text(yaml.dump(chosen))
    both = map_of_words([str(tmp_path / "map.yaml"), "sfr_Msun_yr=SFR"])
    assert set(read(path, options=Options(columns=both)).columns) == {"age", "sfr"}
    with pytest.raises(CatalogError, match="has no 'sfr': did you mean 'sfr_Msun_yr'"):
        map_of_words([*words, "sfr=SFR"])
    path = write(tmp_path / "b.csv", halos() | {"sfr": np.log10(halos()["mass"] / 1e12)})
    with pytest.raises(CatalogError, match=r"rates .* must not be negative: are they logarithms"):
        read(
            path,
            options=Options(columns=map_of_words([*words, "sfr_Msun_yr=SFR"]), cosmology=COSMOLOGY),
        )


def test_a_name_with_other_signs_wants_quotes() -> None:
    with pytest.raises(
        CatalogError, match=r"'x \[Mpc/h\]' is not allowed .* other signs in quotes"
    ):
        load_map({**column_map("x y z mass z_obs"), **map_of_words(["x_Mpc=x [Mpc/h]"])})


def test_msun_over_h_taken_for_msun_is_told_at_import(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """PINOCCHIO's halos in a table in Msun/h; the map says Msun, then Msun/h."""
    file = shared / "data/lightcones/pinocchio_A_m1e11.npz"
    if not file.is_file():
        pytest.skip(f"there is no {file}")
    with np.load(file) as content, h5py.File(tmp_path / "a.hdf5", "w") as table:
        for name in ("x", "y", "z", "M", "zhalo"):
            table[name] = content[name] * (H if name == "M" else 1.0)
    for unit, warned in (("Msun", True), ("Msun/h", False)):
        chosen: dict[str, Any] = {a: {"column": a, "unit": "Mpc"} for a in "xyz"}
        chosen |= {"mass": {"column": "M", "unit": unit}, "z_obs": "zhalo", "cosmology": COSMOLOGY}
        (tmp_path / "map.yaml").write_text(yaml.dump(chosen))
        arguments = ["catalog", "import", str(tmp_path / "a.hdf5")]
        arguments += ["--columns", str(tmp_path / "map.yaml")]
        assert main([*arguments, "--out", str(tmp_path / unit.replace("/", "_"))]) == 0
        shown = capsys.readouterr().out
        assert ("WARNING: the halo density is" in shown) == warned
        assert ("masses in Msun/h taken for Msun (h = 0.7): masses 1." in shown) == warned


def test_every_format_is_in_the_table_of_the_documentation() -> None:
    rows = [line.split("|")[2].strip() for line in DOCS.read_text().splitlines() if "|" in line]
    assert set(FORMATS) <= set(rows)


def test_example_of_the_documentation(tmp_path: Path) -> None:
    text = DOCS.read_text().split("## Your own catalogues")[1].split("```yaml")[1].split("```")[0]
    (tmp_path / "map.yaml").write_text(text)
    true = halos()
    columns = {name: true[name] * H for name in "xyz"}
    columns |= {"m200m": true["mass"] * H, "sfr": true["mass"] / 1e12}
    columns |= {name: true[name] for name in ("vx", "vy", "vz")}
    path = write_csv(tmp_path / "a.csv", columns)
    path.write_text(path.read_text().replace("M200M", "M200m"))
    cone = read(path, options=Options(columns=tmp_path / "map.yaml"))
    check(cone, 1e-6)
    np.testing.assert_allclose(cone.columns["sfr"], cone.mass_Msun / 1e12, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mas": {"column": "M"}}, "no 'mas': did you mean 'mass'"),
        ({"mass": {"column": "M"}}, "mass needs a unit: Msun, .*not None"),
        ({"mass": {"column": "M", "unit": "Mjup"}}, "not 'Mjup'"),
        ({"mass": {"column": "M", "unit": "Msun", "sure": "yes"}}, "sure must be true or false"),
        ({"mass": {"column": "M", "unit": "Msun", "scale": 2}}, "mass has no 'scale'"),
        ({"x": {"column": "X", "unit": "Msun"}}, "x needs a unit: Mpc"),
        ({"x": "X"}, "x must be like"),
        ({"ra": {"column": "R", "unit": "deg"}}, "either x, y, z or ra, dec"),
        ({"vx": {"column": "R", "unit": "km/s"}}, "vx, vy, vz go together"),
        ({"cosmology": {"Omega_M": 0.3}}, "did you mean 'Omega_m'"),
        ({"cosmology": {"h": "0.7"}}, "cosmology.h must be a number"),
        ({"columns": {"age": {"column": "S"}}}, "columns.age needs a unit in words"),
        ({"columns": {"sfr": {"column": "S"}}}, "columns.sfr needs a unit: Msun/yr, .*not None"),
        ({"columns": {"sfr": {"column": "S", "unit": "kg/s"}}}, "log10 Msun/yr; not 'kg/s'"),
        ({"centre_deg": 3}, "centre_deg must be"),
        ({"box": {"side": 3}}, "box needs a unit"),
    ],
)
def test_bad_maps(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        load_map(column_map("x y z mass") | changes)


def test_map_with_a_key_twice(tmp_path: Path) -> None:
    path = tmp_path / "map.yaml"
    path.write_text(yaml.dump(column_map("x y z mass")) + "mass: {column: B, unit: Msun}\n")
    with pytest.raises(CatalogError, match="'mass' is given twice"):
        load_map(path)
    path.write_text("x: [1,")
    with pytest.raises(CatalogError, match="not valid YAML"):
        load_map(path)
    path.write_text("!!python/object/apply:os.mkdir [made]")
    with pytest.raises(CatalogError, match="not valid YAML"):
        load_map(path)
