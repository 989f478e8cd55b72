"""What tables can hold instead of a halo's numbers, and how it is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from support.table_files import (
    FORMATS,
    MISSING_ROW,
    NUM,
    UNDER_MASK,
    arrow,
    check,
    column_map,
    csv,
    expected,
    fits,
    hdf5,
    masked_table,
    parquet,
    plain,
    refused,
    table,
)

from streamtrain.bins import LuminosityBins
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.readers import Options, read
from streamtrain.cli.main import main
from streamtrain.generator.halos import Bank
from streamtrain.generator.paint import paint
from streamtrain.generator.painter import LinePainter
from streamtrain.grid import Grid
from streamtrain.luminosity.abundance import matched_luminosity
from streamtrain.luminosity.registry import find_model


def test_astropy_marks_missing_unsigned_integers_otherwise(tmp_path: Path) -> None:
    """Its TNULL is the number after TZERO."""
    columns = plain() | {"M": plain()["M"].astype("u2")}
    path = tmp_path / "a.fits"
    masked_table(columns, {}, "M").write(path)
    assert fits.getheader(path, 1)["TNULL4"] == UNDER_MASK
    check(path, column_map(), "mass: 'M' has no value at row 4 .1 of 9 are missing.")


def test_scaled_columns(tmp_path: Path) -> None:
    """TSCAL and TZERO, also of numbers without sign, and the attributes of netCDF."""
    columns = plain()
    made = [fits.Column(n, "D", array=a) for n, a in columns.items() if n in ("X", "ZOBS")]
    made.append(fits.Column("Y", "B", bzero=-128, array=columns["Y"].astype("i1")))
    made.append(fits.Column("Z", "J", array=(columns["Z"] - 5000) // 20))
    made.append(fits.Column("M", "K", bzero=2**63, array=columns["M"].astype("u8")))
    hdu = fits.BinTableHDU.from_columns(made)
    hdu.writeto(tmp_path / "a.fits")
    with fits.open(tmp_path / "a.fits", mode="update", memmap=False) as file:
        file[1].header["TSCAL4"], file[1].header["TZERO4"] = 20, 5000
    check(tmp_path / "a.fits", column_map())
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        for name, values in columns.items():
            file[name] = (values - 5000) // 20 if name == "Z" else values
        file["Z"].attrs["scale_factor"], file["Z"].attrs["add_offset"] = np.array([20.0]), 5000.0
    check(tmp_path / "a.hdf5", column_map())


def test_missing_in_ascii_tables_of_fits(tmp_path: Path) -> None:
    for text in (b"***", b"   "):
        made = [fits.Column(n, "E15.7", array=a) for n, a in plain().items() if n != "M"]
        made.append(fits.Column("M", "I5", array=plain()["M"], null="***"))
        path = tmp_path / f"{len(text.strip())}.fits"
        fits.TableHDU.from_columns(made).writeto(path)
        check(path, column_map())
        content = path.read_bytes()
        assert content.count(b"  117") == 1
        path.write_bytes(content.replace(b"  117", b"  " + text))
        check(path, column_map(), "mass: 'M' has no value at row 4")


def test_sentinels_that_the_file_names(tmp_path: Path) -> None:
    """TNULL of a float column, the fill value of an HDF5 dataset, missing_value."""
    columns = plain()
    columns["M"] = np.where(np.arange(NUM) == MISSING_ROW, 1e20, columns["M"]).astype("f4")
    made = [fits.Column(n, "E", array=a) for n, a in columns.items()]
    hdu = fits.BinTableHDU.from_columns(made)
    hdu.header["TNULL4"] = float(np.float32(1e20))
    hdu.writeto(tmp_path / "a.fits")
    check(tmp_path / "a.fits", column_map(), "'M' has no value at row 4")
    for number, how in enumerate(("fill", "missing_value")):
        path = tmp_path / f"{number}.hdf5"
        with h5py.File(path, "w") as file:
            for name, values in columns.items():
                fill = 1e20 if how == "fill" and name == "M" else None
                file.create_dataset(name, data=values, fillvalue=fill)
            if how == "missing_value":
                file["M"].attrs[how] = 1e20
        check(path, column_map(), "'M' has no value at row 4")
    with h5py.File(path, "r+") as file:
        del file["M"]
        file["M"], file["M.mask"] = plain()["M"], np.zeros(3, bool)
    check(path, column_map(), r"'M.mask' has shape \(3,\), but 'M' has \(9,\)")


@pytest.mark.parametrize("fill", ["1.17e2", b"117", np.array([b"117"]), "-1", "117 "])
def test_fill_values_as_text(tmp_path: Path, fill: Any) -> None:
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        for name, values in plain().items():
            file[name] = values
        assert plain()["M"].tolist().index(117) == MISSING_ROW
        file["M"].attrs["_FillValue"] = fill
        file["Z"].attrs["add_offset"] = "0"
        file["X"].attrs["missing_value"] = h5py.Empty("S1")
    number = float(np.ravel(fill)[0])
    check(path, column_map(), "'M' has no value at row 4" if number == 117 else "")
    with h5py.File(path, "r+") as file:
        file["M"].attrs["_FillValue"] = "none"
    check(path, column_map(), "the attribute _FillValue of '/M' is 'none': a number is needed")


def test_fill_values_beyond_the_type_stand_nowhere(tmp_path: Path) -> None:
    """117 + 65536 is no number of 16 bits, although its last 16 bits are those of a halo."""
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        for name, values in plain().items():
            file[name] = values.astype("u2") if name == "M" else values
        file["M"].attrs["_FillValue"] = 117 + 65536
    check(path, column_map())


@pytest.mark.parametrize("more", ["", "another", "group", "other columns"])
def test_tables_by_astropy_in_hdf5(tmp_path: Path, more: str) -> None:
    """One table is taken, of two the map has to name one."""
    path = tmp_path / "a.hdf5"
    made = table.Table(plain())
    made.write(path, path="t", serialize_meta=True)
    if more == "group":
        with h5py.File(path, "a") as file:
            for name, values in plain().items():
                file[f"halos/{name}"] = values
    elif more:
        other = made if more == "another" else table.Table({"A": [1.0]})
        other.write(path, path="deep/s", append=True)
    if more in ("another", "group"):
        second = "halos" if more == "group" else "deep/s"
        check(
            path, column_map(), f"2 tables have these columns, .*{second}.*: say which, .table: N"
        )
        check(path, column_map(table=second))
    check(path, column_map(**({"table": "t"} if more in ("another", "group") else {})))
    if not more:
        check(path, column_map(mass="MM"), "there is no column 'MM': did you mean 'M'")


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4"])
def test_units_as_codes_of_characters(tmp_path: Path, dtype: str) -> None:
    """As MATLAB writes text."""
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        for name, values in plain().items():
            file[name] = values
        file["M"].attrs["unit"] = np.array([[ord(a) for a in "1e10 Msun"]], dtype)
    check(path, column_map())
    with h5py.File(path, "r+") as file:
        file["M"].attrs["unit"] = np.array([ord(a) for a in "1e10 Msun/h"], dtype)
    check(path, column_map(), "the file says that 'M' is in 1e10 Msun/h, the map says 1e10 Msun")


@pytest.mark.parametrize("ending", [".csv", ".txt", ".dat"])
def test_a_last_line_without_a_line_end(tmp_path: Path, ending: str) -> None:
    """As spreadsheets write it: whole rows are read, and it is said; of cut ones it is seen."""
    mark = "," if ending == ".csv" else "\t"
    lines = [mark.join((*plain(), "word"))]
    lines += [mark.join((*map(repr, row), "1.5")) for row in
              zip(*(a.tolist() for a in plain().values()), strict=True)]  # fmt: skip
    path = tmp_path / f"a{ending}"
    text = "\n".join(lines)
    path.write_text(text)
    check(path, column_map())
    said = read(path, options=Options(columns=column_map())).provenance
    assert f"a{ending}: the last line has no line end: its last number may be cut off" in said
    path.write_text(text + "\n")
    assert "line end" not in read(path, options=Options(columns=column_map())).provenance
    for cut in (text[: -len("1.5")], text[: -len("5")] + "e", text[: -len("1.5") - 1], text + mark):
        path.write_text(cut)
        if cut == text + mark and ending != ".csv":
            check(path, column_map())
        else:
            check(path, column_map(), "truncated: its last line has no line end and")


@pytest.mark.parametrize("ending", [".csv", ".txt", ".ecsv"])
@pytest.mark.parametrize("code", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_text_in_other_codes(tmp_path: Path, ending: str, code: str) -> None:
    path = tmp_path / f"a{ending}"
    path.write_text(csv(",")(tmp_path, plain(), {}, "").read_text(), encoding=code)
    check(path, column_map(), f"text in {code[:6].upper()}, as .*: save it as UTF-8 .iconv -f UTF-")


def test_sentinels_that_no_file_names(tmp_path: Path) -> None:
    """One halo that lies elsewhere than its redshift, or weighs nothing."""
    for name, value, sentence in (
        ("Z", 99999.0, r"row 4 is 99999 Mpc away, .* its observed redshift is .*missing values"),
        ("X", 1e30, r"row 4 is 1e\+30 Mpc away"),
        ("at the observer", 0.0, "the halo at row 4 is at the observer"),
        ("ZOBS", 99.0, "row 4 .* its observed redshift is 99 "),
        ("ZOBS", 0.0, "row 4 .* its observed redshift is 0 "),
        ("M", 1e-7, "mass = 1000 Msun at row 4, no halo's mass: a missing value?"),
    ):
        columns = {n: a.astype("f8") for n, a in plain().items()}
        for changed in ("X", "Y", "Z") if name == "at the observer" else (name,):
            columns[changed][MISSING_ROW] = value
        path = csv(",")(tmp_path, columns, {}, "")
        check(path, column_map(), sentence)
    still = {n: a for n, a in plain().items() if n != "ZOBS"}
    columns = still | {a: np.full(NUM, 20.0) for a in ("VX", "VY", "VZ")}
    columns["VZ"][MISSING_ROW] = -99999.0
    chosen = column_map() | {a.lower(): {"column": a, "unit": "km/s"} for a in ("VX", "VY", "VZ")}
    del chosen["z_obs"]
    check(csv(",")(tmp_path, columns, {}, ""), chosen, "row 4 is .*its observed redshift is")
    columns = plain() | {"RA": np.zeros(NUM), "DEC": np.zeros(NUM)}
    columns["RA"][MISSING_ROW] = -999.0
    chosen = {k: v for k, v in column_map().items() if k not in "xyz"}
    chosen |= {a.lower(): {"column": a, "unit": "deg"} for a in ("RA", "DEC")}
    check(csv(",")(tmp_path, columns, {}, ""), chosen, "ra reaches 999 deg, beyond 360")


def no_numbers() -> dict[str, Any]:
    return {
        "bool": np.arange(NUM) > 3,
        "complex": plain()["M"] * (1 + 1j),
        "text": plain()["M"].astype("S"),
        "object": np.array([str(a) for a in plain()["M"]], object),
        "vector": np.stack([plain()["M"]] * 2, axis=-1),
        "cube": np.ones((NUM, 2, 2)),
        "scalar": np.float64(3.0),
        "empty": h5py.Empty("f8"),
        "short": np.arange(1.0, NUM),
    }


@pytest.mark.parametrize("kind", no_numbers())
def test_columns_that_are_no_numbers(tmp_path: Path, kind: str) -> None:
    values = no_numbers()[kind]
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        for name, a in (plain() | {"M": values}).items():
            file[name] = a
    sentence = "holds no real numbers|has shape|columns of different length"
    refused(tmp_path / "a.hdf5", sentence + ("|damaged" if kind == "empty" else ""))
    if kind in ("scalar", "empty", "short"):
        return
    made = table.Table(plain() | {"M": values})
    if kind not in ("object",):
        made.write(tmp_path / "a.fits")
        refused(tmp_path / "a.fits", sentence)
    made.write(tmp_path / "a.ecsv")
    refused(tmp_path / "a.ecsv", sentence)
    if kind != "complex":
        lists = values.tolist()
        parquet.write_table(arrow.table(plain() | {"M": lists}), tmp_path / "a.parquet")
        refused(tmp_path / "a.parquet", sentence)


def test_more_columns_that_are_no_numbers(tmp_path: Path) -> None:
    """Rows of different length, bits, decimals, dates, and what astropy builds from columns."""
    made = [fits.Column(n, "D", array=a) for n, a in plain().items() if n != "M"]
    rows = np.array([np.arange(n + 1) for n in range(NUM)], object)
    for number, (code, values) in enumerate((("PJ()", rows), ("3X", np.ones((NUM, 3), bool)))):
        path = tmp_path / f"{number}.fits"
        fits.BinTableHDU.from_columns([*made, fits.Column("M", code, array=values)]).writeto(path)
        refused(path, "holds no real numbers")
    whole = plain()["M"].tolist()
    for number, kind in enumerate((arrow.decimal128(15, 2), arrow.date32())):
        path = tmp_path / f"{number}.parquet"
        values = arrow.array(whole, arrow.int32()).cast(kind)
        parquet.write_table(arrow.table(plain() | {"M": values}), path)
        refused(path, "holds no real numbers")
    dates = pytest.importorskip("astropy.time").Time(np.arange(NUM) + 50000.0, format="mjd")
    table.QTable(plain() | {"M": dates}).write(tmp_path / "a.ecsv")
    refused(tmp_path / "a.ecsv", "holds no real numbers")


def test_masses_in_another_unit_are_named(tmp_path: Path) -> None:
    mass = 10 ** np.linspace(10.2, 14.9, NUM)
    for values, unit, sentence in (
        (np.log10(mass), "Msun", "run from 10.2 to 14.9 Msun: this looks like log10 of masses"),
        (np.log(mass), "Msun", "natural logarithm"),
        (mass / 1e10, "Msun", "looks like masses in 1e10 Msun"),
        (mass / 1e10 * 0.7, "Msun/h", "looks like masses in 1e10 Msun"),
        (mass, "1e10 Msun", "masses in Msun taken for 1e10 Msun"),
        (mass * 1.989e30, "Msun", "masses in g or kg"),
        (mass, "log10 Msun", "'M' reaches .* no log10: it looks like masses"),
    ):
        path = csv(",")(tmp_path, plain() | {"M": values}, {}, "")
        chosen = column_map() | {"mass": {"column": "M", "unit": unit}}
        check(path, chosen, sentence)


def test_whoever_is_sure_is_believed(tmp_path: Path) -> None:
    """Of masses that look odd, and of a unit that the file has otherwise."""
    path = csv(",")(tmp_path, plain(), {}, "")
    sure = column_map(mass="M") | {"mass": {"column": "M", "unit": "Msun", "sure": True}}
    light = read(path, options=Options(columns=sure))
    np.testing.assert_array_equal(np.sort(light.mass_Msun), np.sort(plain()["M"]))
    path = hdf5(tmp_path, plain(), {"M": "1e10 Msun/h", "X": "furlong"}, "")
    check(path, column_map(), "'X' is in furlong, the map says Mpc, and the two cannot be compared")
    chosen = column_map()
    chosen["x"]["sure"] = chosen["mass"]["sure"] = True
    believed = read(path, options=Options(columns=chosen))
    assert believed.digest == expected().digest
    assert "'M' is in 1e10 Msun/h, the map says 1e10 Msun, which was believed" in (
        believed.provenance
    )


def test_unit_of_a_further_column_is_noted(tmp_path: Path) -> None:
    columns = plain() | {"S": np.ones(NUM)}
    path = hdf5(tmp_path, columns, {"S": "kg / s"}, "")
    chosen = column_map(columns={"sfr": {"column": "S", "unit": "Msun/yr"}})
    cone = read(path, options=Options(columns=chosen))
    assert "columns.sfr in Msun/yr by the map, in kg / s by the file" in cone.provenance


@pytest.mark.parametrize(
    ("stored", "unit", "stated"),
    [(30.0, "Msun/yr", "Msun yr-1"), (np.log10(30.0), "log10 Msun/yr", "dex(solMass / yr)"),
     (3e10, "Msun/Gyr", "")],
)  # fmt: skip
def test_rates_of_star_formation_are_converted(
    tmp_path: Path, stored: float, unit: str, stated: str
) -> None:
    """Models take a column sfr in Msun/yr."""
    path = hdf5(tmp_path, plain() | {"S": np.full(NUM, stored)}, {"S": stated}, "")
    chosen = column_map(columns={"sfr": {"column": "S", "unit": unit}})
    cone = read(path, options=Options(columns=chosen))
    np.testing.assert_allclose(cone.columns["sfr"], 30.0, rtol=1e-6)
    other = "log10 Msun/yr" if unit != "log10 Msun/yr" else "Msun/yr"
    chosen["columns"]["sfr"]["unit"] = other
    if stated:
        check(path, chosen, rf"columns.sfr: the file says .*, the map says {other}")


def test_units_of_compound_datasets(tmp_path: Path) -> None:
    """One text per field, or an attribute each."""
    rows = np.zeros(NUM, [(name, "f8") for name in plain()])
    for name, values in plain().items():
        rows[name] = values
    listed = np.array(["Mpc", "Mpc", "Mpc", "Msun/h", ""], "S")
    for number, attributes in enumerate(({"units": listed}, {"FIELD_3_UNIT": "Msun/h"})):
        with h5py.File(tmp_path / f"{number}.hdf5", "w") as file:
            file["halos"] = rows
            file["halos"].attrs.update(attributes)
        chosen = column_map(table="halos")
        check(tmp_path / f"{number}.hdf5", chosen, "'M' is in Msun/h, the map says 1e10 Msun")


def test_one_of_several_tables(tmp_path: Path) -> None:
    made = [fits.BinTableHDU(table.Table(plain()), name=name) for name in ("ALL", "BRIGHT", "ALL")]
    made.insert(0, fits.BinTableHDU(table.Table({"K": [1.0]}), name="SPECTRUM"))
    fits.HDUList([fits.PrimaryHDU(), *made]).writeto(tmp_path / "a.fits")
    path = tmp_path / "a.fits"
    check(path, column_map(), r"3 tables have these columns, ALL \(2\), BRIGHT \(3\), ALL \(4\)")
    check(path, column_map(table="all"), "2 tables have these columns")
    check(path, column_map(table="bright"))
    check(path, column_map(table="4"))
    check(path, column_map(table="dim"), "there is no table dim; tables: SPECTRUM")


def test_columns_as_matlab_writes_them(tmp_path: Path) -> None:
    """[1, n] or [n, 1]; three numbers per halo in [3, n] are refused."""
    for number, shape in enumerate(((1, NUM), (NUM, 1))):
        with h5py.File(tmp_path / f"{number}.hdf5", "w") as file:
            for name, values in plain().items():
                file[name] = values.reshape(shape)
        check(tmp_path / f"{number}.hdf5", column_map())
    path = tmp_path / "0.hdf5"
    with h5py.File(path, "r+") as file:
        file["POS"] = np.stack([plain()[a] for a in "XYZ"])
    positions = {a: {"column": "POS", "unit": "Mpc", "index": i} for i, a in enumerate("xyz")}
    check(path, column_map() | positions, "columns of different length: x 3, y 3, z 3, mass 9")


def test_damaged_header_of_fits(tmp_path: Path) -> None:
    path = FORMATS["fits"](tmp_path, plain(), {}, "")
    content = path.read_bytes()
    assert content.count(b"TFORM4  = 'K") == 1
    path.write_bytes(content.replace(b"TFORM4  = 'K", b"TFORM4  = ~K"))
    refused(path, "a damaged FITS file")


def test_text_and_short_rows_in_csv(tmp_path: Path) -> None:
    path = csv(";")(tmp_path, plain(), {}, "")
    whole = path.read_text()
    for old, new, sentence in (
        ("5900;5;", "5900;5,5;", "'M' holds '5,5' .a decimal comma.. at line 2 .1 such cells"),
        ("5900;5;", "5900;Vir(5);", "'M' holds 'Vir.5.' at line 2"),
        ("5900;5;", "5900;;", "'M' is empty at line 2"),
        ("5900;5;", "5900;1_0;", "'M' holds '1_0' at line 2"),
        ("5900;5;", "5900;0;5;", "the header names 5 columns, but line 2 has 6"),
        ("5900;5;", "5900;", "the header names 5 columns, but line 2 has 4"),
    ):
        assert old in whole
        path.write_text(whole.replace(old, new))
        check(path, column_map(), sentence)
    path.write_text(whole.replace("X;Y;Z;M;ZOBS", "# of a test\n#X;Y;Z;M;ZOBS") + "\n# end\n")
    check(path, column_map())
    path.write_text("".join(f'"{line}"\n'.replace(";", '";"') for line in whole.splitlines()))
    check(path, column_map())
    path.write_text(whole, encoding="utf-16")
    refused(path, "a.csv: ")


@pytest.mark.parametrize("num", [1, 5])
def test_unit_label_and_halos_in_one_point(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], num: int
) -> None:
    """Imported, described and painted; a lightcone without volume has no abundance of halos."""
    columns = {name: np.repeat(a[:1], num) for name, a in plain().items()}
    columns["M"] = 10.0 ** np.linspace(12, 12.5, num) / 1e10
    (tmp_path / "map.yaml").write_text(yaml.dump(column_map()))
    path = csv(",")(tmp_path, columns, {}, "")
    arguments = ["catalog", "import", str(path), "--columns", str(tmp_path / "map.yaml")]
    filled = ["--footprint-deg", "-1", "1", "-1", "1", "--z-range", "2.3", "3.5"]
    assert main([*arguments, "--out", str(tmp_path / "bare")]) == 0
    assert main([*arguments, "--out", str(tmp_path / "filled"), *filled]) == 0
    assert main(["catalog", "info", str(tmp_path / "bare" / "a.h5")]) == 0
    shown = capsys.readouterr().out
    assert f"halos        {num} in 1 tiles" in shown
    grid = Grid((0.9, 0.9), (20, 16, 16), (34.0, 26.0), 115.27)
    bare = Lightcone.open(tmp_path / "bare" / "a.h5")
    LinePainter(Bank([bare]), grid, [find_model("li16")], LuminosityBins(), min_mass_Msun=0.9999e12)
    with pytest.raises(ValueError, match="has no volume, so no abundance of halos"):
        matched_luminosity(bare)
    cone = Lightcone.open(tmp_path / "filled" / "a.h5")
    cube, counts = paint(cone, grid, "li16", scatter=False, min_mass_Msun=0.9999e12)
    assert int(counts.sum()) == num
    assert np.count_nonzero(cube) == 1
