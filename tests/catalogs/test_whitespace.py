"""Text tables with spaces between the columns, however they name them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.halo_tables import column_map, halos

from streamtrain.catalogs.headers import CatalogError
from streamtrain.catalogs.readers import Options, read
from streamtrain.catalogs.readers.columnmap import map_of_words
from streamtrain.catalogs.readers.tablefile import read_columns

ROWS = "1 10. 1.0D+12 a\n2.5\t-20 2.5d12 b # 7\n\n  3 3e1 4E12 c\n\n \n"
NAMES = ("x", "y", "mass")


def table(path: Path, header: str, rows: str = ROWS) -> Path:
    (path / "a.dat").write_text(header + rows)
    return path / "a.dat"


def check(path: Path, names: Sequence[str] = NAMES) -> dict[str, str]:
    columns, units = read_columns(path, names)
    for name, values in zip(names, [[1, 2.5, 3], [10, -20, 30], [1e12, 2.5e12, 4e12]], strict=True):
        np.testing.assert_array_equal(columns[name], values)
    return units


@pytest.mark.parametrize(
    ("header", "units"),
    [
        ("# x y mass name\n", {}),
        ("#x y mass name\n", {}),
        ("x y mass name\n", {}),
        ("x y mass name # of halos\n", {}),
        ("\n\nx, y, mass, name\n", {}),
        ("# made by a code\n#\n# x\ty\tmass\tname\n# in 3 nights\n", {}),
        ("# x y mass name\n# made by my code\n", {}),
        ("#x[Mpc] y[Mpc/h] mass(Msun) name\n", {"x": "Mpc", "y": "Mpc/h", "mass": "Msun"}),
        ("# x [Mpc] y [Mpc / h] mass (log10 Msun) name\n",
         {"x": "Mpc", "y": "Mpc/h", "mass": "log10Msun"}),
        ("#x(0) y(1) mass(2) name(3)\n", {}),
        ("#1 x #2 y #3 mass #4 name\n", {}),
        ("# 1:x 2:y 3:mass 4:name\n", {}),
        ("# 1) x 2) y 3) mass 4) name\n", {}),
        ("#  1 x\n#  2 y  the second [Mpc/h]\n# 3 mass\n# 4 name\n", {"y": "Mpc/h"}),
        ("# 0: x\n# 1: y\n# 2: mass\n# 3: name\n#\n", {}),
        ("\ufeff# x y mass name\n", {}),
    ],
)  # fmt: skip
def test_headers(tmp_path: Path, header: str, units: dict[str, str]) -> None:
    path = table(tmp_path, header)
    assert {name: unit for name, unit in check(path).items() if unit} == units
    check(path, ("col1", "col2", "col3"))


def test_without_names(tmp_path: Path) -> None:
    rows = ROWS.replace(" a\n", " 1\n").replace(" b", " 2").replace(" c", " 3")
    path = table(tmp_path, "# only two\n", rows)
    check(path, ("col1", "col2", "col3"))
    with pytest.raises(CatalogError, match=r"no line above .* its 4 columns; add a line like .*"
                       r"or call them col1\.\.col4"):  # fmt: skip
        read_columns(path, ["x"])
    with pytest.raises(CatalogError, match="no column 'col5'"):
        read_columns(path, ["col5"])


def test_halos(tmp_path: Path) -> None:
    true = halos()
    names = "x y z mass z_obs"
    text = "# " + " ".join(name.upper() for name in names.split()) + "\n"
    lines = zip(*(true[name] for name in names.split()), strict=True)
    text += "".join(" ".join(f"{a:.9E}".replace("E", "D") for a in row) + "\n" for row in lines)
    (tmp_path / "a.txt").write_text(text)
    named = read(tmp_path / "a.txt", options=Options(columns=column_map(names)))
    np.testing.assert_allclose(np.sort(named.mass_Msun), np.sort(true["mass"]), rtol=1e-7)
    words = ["x_Mpc=col1", "y_Mpc=col2", "z_Mpc=col3", "mass_Msun=2*col4/2", "z_obs=col5"]
    numbered: Any = map_of_words(words)
    options = Options(columns=numbered, cosmology=column_map("")["cosmology"])
    assert read(tmp_path / "a.txt", options=options).digest == named.digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no halo"),
        ("# x y mass\n", "holds no halo"),
        ("x y mass\n", "holds no halo"),
        ("# x y mass\n1 2 3\n1 2\n", "line 3 has 2 numbers, those before it 3"),
        ("# x y mass\n\n1 2 3\n\n1 2 3 4\n", "line 5 has 4 numbers, those before it 3"),
        ("# x y mass\n1 2 3\n1 heavy 3\n", "line 3: 'heavy' in column 2 is no number"),
        ("# x y mass\n1 2 3\n1 2 ****\n", r"line 3: '\*\*\*\*' in column 3 is no number"),
        ("# x y mass\n1 2 3\n1 2", "truncated: its last line has no line end and 2 of 3 cells"),
        ("# x y mass\n1 2 3\n1 2 3e", "truncated: its last line .* ends in '3e'"),
        ("x y mass\n1 2 3 4\n", r"line 1 names 3 columns \(x, y, mass\), line 2 has 4 numbers"),
        ("x y mas\n1 2 3\n", r"no column 'mass': did you mean 'mas'\? .* \(or col1\.\.col3\)"),
        ("x y y mass\n1 2 3 4\n", "the column 'y' is there 2 times"),
        ("# x y mass\n1,2,3\n", "no halo"),
        ("x,y,mass\n1,2,3\n", "line 2 has commas: a table with commas is called"),
        ("x y mass\n1, 2, 3\n", "line 2 has commas"),
    ],
)
def test_damaged_tables(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        read_columns(table(tmp_path, text, ""), NAMES)
