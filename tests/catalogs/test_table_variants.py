"""One table in many files: each gives the halos of the plain one, or one sentence."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from support.table_files import (
    FORMATS,
    NUM,
    check,
    column_map,
    csv,
    plain,
)

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.cli.main import main
from streamtrain.cosmology import Cosmology

DTYPES = ("f4", "f8", "i4", "i8", "u2", ">f8", ">i4")
RIGHT = {"X": "Mpc", "Y": "cMpc", "Z": "Mpc", "M": "1e10 Msun"}
STATED = {  # what the file says, whether a value is missing, and the answer
    "no unit": ({}, "", ""),
    "right units": (RIGHT, "", ""),
    "other spelling": (RIGHT | {"M": "1e+10 solMass"}, "", ""),
    "mass with h": (
        RIGHT | {"M": "1e10 Msun/h"},
        "",
        r"in .*(Msun|solMass) ?/ ?h, the map says 1e10 Msun: write unit.*h = 0.7",
    ),
    "other factor": ({"M": "Msun"}, "", "in (Msun|solMass), the map says 1e10 Msun: write unit: "),
    "logarithm": ({"M": "dex(solMass)"}, "", "the map says 1e10 Msun"),
    "length in kpc": (RIGHT | {"Y": "kpc"}, "", "'Y.*' is in kpc, the map says Mpc"),
    "mass missing": (RIGHT, "M", "'M.*'( has no value| is empty| holds '(N/A|--)'|, 1 such)"),
    "position missing": ({}, "X", "'X'( has no value| is empty| holds '(N/A|--)'|, 1 such)"),
}


TEXT = [kind for kind in FORMATS if "csv" in kind]
ORDERED = ("fits", "hdf5", "hdf5 rows")
"""Files that have an order of bytes."""
CASES = [(kind, dtype) for kind, dtype in product(TEXT, ("f8", "i8"))]
CASES += [(kind, dtype) for kind, dtype in product((*ORDERED, "parquet"), DTYPES[:5])]
CASES += [(kind, dtype) for kind, dtype in product(ORDERED, DTYPES[5:])]


@pytest.mark.parametrize(("kind", "dtype"), CASES)
def test_same_halos_or_a_sentence(tmp_path: Path, kind: str, dtype: str) -> None:
    """Whatever the file says, in every order of its columns."""
    columns = {n: a if n == "ZOBS" else a.astype(dtype) for n, a in plain().items()}
    for number, (said, (units, missing, sentence)) in enumerate(STATED.items()):
        given = columns | {f"OTHER{i}": np.full(NUM, np.nan) for i in range(number % 3)}
        order = np.random.default_rng(number).permutation(list(given))
        (tmp_path / said).mkdir()
        path = FORMATS[kind](tmp_path / said, {name: given[name] for name in order}, units, missing)
        chosen = column_map(**({"table": "halos"} if kind == "hdf5 rows" else {}))
        for name in ("x", "y", "z", "mass") if kind.startswith("csv") else ():
            column = chosen[name]["column"]
            chosen[name]["column"] = f"{column} [{units[column]}]" if column in units else column
        check(path, chosen, sentence)


def test_command_line_may_be_sure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    columns = {name: a.astype("f8") for name, a in plain().items()}
    path = csv(",", "\ufeff")(tmp_path, columns, {}, "")
    words = [f"{a.lower()}_Mpc={a}" for a in "XYZ"] + ["z_obs=ZOBS", "mass_Msun=M"]
    cosmology = [f"{name}={value}" for name, value in Cosmology().to_dict().items()]
    arguments = ["catalog", "import", str(path), "--out", str(tmp_path / "out"), "--cosmology"]
    assert main([*arguments, *cosmology, "--columns", *words]) == 2
    assert "looks like masses in 1e10 Msun" in capsys.readouterr().err
    assert main([*arguments, *cosmology, "--columns", *words, "sure=mass"]) == 0
    assert Lightcone.open(tmp_path / "out" / "a.h5").mass_Msun.max() == plain()["M"].max()
    capsys.readouterr()
    (tmp_path / "out" / "a.h5").unlink()
    assert main([*arguments, *cosmology, "--columns", *words, "sure=mass,z_obs"]) == 0
    capsys.readouterr()
    assert main([*arguments, *cosmology, "--columns", *words, "sure=sfr"]) == 2
    assert "sure=sfr" in capsys.readouterr().err
