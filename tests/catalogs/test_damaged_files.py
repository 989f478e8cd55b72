"""Damaged and hostile files: each is refused with one sentence, and nothing is written."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from support.halo_files import (
    COSMOLOGY,
    NUM,
    columns,
    csv,
    hdf5,
    map_file,
    npz,
    pksc,
    plc,
    plc_text,
    raw,
    truncated,
)

from streamtrain.cli.main import main


class Payload:
    """Makes a folder when unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.mkdir, (str(self.trace),)


def claims_much(path: Path) -> list[str]:
    made = hdf5(path, X=None)
    with h5py.File(made[0], "r+") as file:
        file.create_dataset("X", (10**12,), "f8", chunks=(1024,))
    return made


def pickled(path: Path, name: str, *arguments: str) -> list[str]:
    return raw(path, name, pickle.dumps({"x": Payload(path / "executed")}), *arguments)


def object_array(path: Path) -> list[str]:
    array = np.empty((), object)
    array[()] = Payload(path / "executed")
    return npz(path, cosmo_header_json=None, cosmo_header=array)


def object_column(path: Path) -> list[str]:
    array = np.empty(NUM, object)
    array[:] = [Payload(path / "executed")] * NUM
    return npz(path, M=array)


def folder(path: Path) -> list[str]:
    (path / "a.npz").mkdir()
    return [str(path / "a.npz")]


def nan_in(name: str, value: float = np.nan) -> dict[str, Any]:
    array = np.array(columns()[name], float)
    array[7] = value
    return {name: array}


def fits(path: Path, share: float) -> list[str]:
    table = pytest.importorskip("astropy.table").Table(columns())
    table.write(path / "a.fits")
    return truncated([str(path / "a.fits"), *map_file(path)], share)


def ecsv(path: Path) -> list[str]:
    pytest.importorskip("astropy")
    text = "# %ECSV 1.0\n# ---\n# datatype:\n# - {name: X, datatype: !!python/object/apply:os.mkdir"
    return raw(path, "a.ecsv", f"{text} [{path}/executed]}}\nX\n1\n".encode(), *map_file(path))


HUGE = '{"Omega_M": 1e400, "Omega_B": 0.047, "h": 0.7, "ns": 0.96, "sigma8": 0.82}'
ROCKSTAR = b"#ID DescID Mvir X Y Z VX VY VZ\n#a = 0.25\n#Om = 0.3; Ol = 0.7; h = 0.7\n"

CASES: dict[str, tuple[Callable[[Path], list[str]], str]] = {
    "npz, nothing in it": (lambda p: raw(p, "a.npz", b""), "not an npz file"),
    "npz, cut in half": (lambda p: truncated(npz(p), 0.5), "not an npz file, or a damaged one"),
    "npz, a folder": (folder, "a folder, not a file"),
    "npz, not there": (lambda p: [str(p / "a.npz")], "there is no such file"),
    "npz, really a picture": (lambda p: raw(p, "a.npz", b"\x89PNG\r\n\x1a\n" * 9), "not an npz"),
    "npz, header is live code": (object_array, "cosmo_header"),
    "npz, column is live code": (object_column, "M holds no real numbers"),
    "npz, a bare pickle": (lambda p: pickled(p, "a.npz"), "not an npz file"),
    "npz, NaN": (lambda p: npz(p, M=nan_in("M")["M"]), "mass_Msun = nan at row 7"),
    "npz, wrong lengths": (lambda p: npz(p, M=np.ones(3)), "different shape"),
    "npz, complex numbers": (lambda p: npz(p, M=np.ones(NUM, complex)), "holds no real numbers"),
    "npz, infinite cosmology": (lambda p: npz(p, cosmo_header_json=np.array(HUGE)), "Omega_"),
    "npz, Mpc/h": (lambda p: npz(p, x=columns()["X"] * 0.7, y=columns()["Y"] * 0.7,
                                 z=columns()["Z"] * 0.7), "probably in Mpc/h"),
    "h5, really text": (lambda p: raw(p, "a.h5", b"x y z\n1 2 3\n"), "not an HDF5 file"),
    "h5, of somebody else": (lambda p: hdf5(p)[:1], "not a streamtrain lightcone"),
    "csv, zero bytes": (lambda p: raw(p, "a.csv", b"", *map_file(p)), "it names no column"),
    "csv, a header only": (lambda p: raw(p, "a.csv", b"X,Y,Z,M,ZOBS\n", *map_file(p)), "no halo"),
    "csv, without a map": (lambda p: csv(p)[:1], "needs a column map: add --columns"),
    "csv, duplicate columns": (lambda p: csv(p, head="X,Y,Z,M,M"), "'M' is there 2 times"),
    "csv, no such column": (lambda p: csv(p, head="X,Y,Z,Mass,ZOBS"), "there is no column 'M'"),
    "csv, last row cut": (lambda p: truncated(csv(p), 0.99), "no line end and 3 of 5 cells"),
    "csv, a short last row": (lambda p: csv(p, head="X,Y,Z,M,ZOBS,SFR"), "but line 2 has 5"),
    "csv, a word": (lambda p: csv(p, M=["1e12"] * 39 + ["heavy"]), "'M' holds 'heavy' at line 41"),
    "csv, negative mass": (lambda p: csv(p, **nan_in("M", -1e12)), "masses must be positive"),
    "csv, zero mass": (lambda p: csv(p, **nan_in("M", 0.0)), "masses must be positive"),
    "csv, infinite position": (lambda p: csv(p, **nan_in("X", np.inf)), "x = inf at row 7"),
    "csv, other separator": (lambda p: csv(p, head="X;Y;Z;M;ZOBS"), "but line 2 has 1"),
    "csv, really binary": (lambda p: raw(p, "a.csv", bytes(range(256)), *map_file(p)), "damaged"),
    "csv, a pickle": (lambda p: pickled(p, "a.csv", *map_file(p)), "a.csv: "),
    "csv, behind the observer": (lambda p: csv(p, Z=-columns()["Z"]), "add --line-of-sight -z"),
    "csv, all around": (lambda p: csv(p, Z=columns()["Z"] * (-1) ** np.arange(NUM)), "--observer"),
    "csv, one behind": (lambda p: csv(p, Z=columns()["Z"] * np.where(np.arange(NUM), 1, -1)),
                        "behind the observer"),
    "csv, an axis that is none": (lambda p: [*csv(p), "--line-of-sight", "w"],
                                  "must be one of x, y, z, -x, -y, -z, not 'w'"),
    "csv, an observer who is nowhere": (lambda p: [*csv(p), "--observer", "0", "nan", "0"],
                                        "the observer must be three numbers"),
    "csv, a box with an observer": (lambda p: [
        *csv(p), "--line-of-sight", "x", "--box", "--footprint-deg", "-1", "1", "-1", "1",
        "--z-range", "2", "3"], "not with --box"),
    "plc, an observer": (lambda p: [*plc(p), "--observer", "0", "0", "1"], "--axis says where"),
    "csv, kpc taken for Mpc": (lambda p: csv(p, **{a: columns()[a] * 1e3 for a in "XYZ"}),
                               "probably in kpc"),
    "csv, unknown unit": (lambda p: csv(p, map_changes={"mass": {"column": "M", "unit": "g"}}),
                          "mass needs a unit: Msun"),
    "map, code in YAML": (lambda p: [*csv(p)[:1], "--columns", raw(
        p, "map.yaml", f"!!python/object/apply:os.mkdir [{p}/executed]".encode())[0]],
                          "not valid YAML"),
    "map, a list": (lambda p: [*csv(p)[:1], "--columns", raw(p, "m.yaml", b"[1, 2]")[0]],
                    "must be a mapping"),
    "hdf5, wrong lengths": (lambda p: hdf5(p, M=np.ones(3)), "columns of different length"),
    "hdf5, words": (lambda p: hdf5(p, M=np.array([b"1e12"] * NUM)), "holds no real numbers"),
    "hdf5, a matrix": (lambda p: hdf5(p, M=np.ones((NUM, 2))), "has shape (40, 2)"),
    "hdf5, cut in half": (lambda p: truncated(hdf5(p), 0.5), "not a table, or a damaged one"),
    "hdf5, claims 8 TB": (claims_much, "claims 8000000000000 bytes"),
    "hdf5, really csv": (lambda p: raw(p, "a.hdf5", b"X,Y\n1,2\n", *map_file(p)), "damaged"),
    "fits, cut in half": (lambda p: fits(p, 0.5), "damaged"),
    "fits, zero bytes": (lambda p: fits(p, 0.0), "damaged"),
    "ecsv, code in its header": (ecsv, "a.ecsv: "),
    "dat, really binary": (lambda p: raw(p, "a.dat", bytes(range(256)), *map_file(p)), "damaged"),
    "dat, a pickle": (lambda p: pickled(p, "a.dat", *map_file(p)), "a.dat: "),
    "txt, without a map": (lambda p: raw(p, "a.txt", b"1 2 3\n"), "add --columns"),
    "parquet, really csv": (lambda p: raw(p, "a.parquet", b"X,Y\n1,2\n", *map_file(p)),
                            "a.parquet: "),
    "plc, in kpc": (lambda p: [*plc(p), "--units", "kpc/h"], "kpc/h is not of the format"),
    "groups, really text": (lambda p: raw(p, "a.0.hdf5", b"x", "--format", "groups"), "damaged"),
    "groups, of somebody else": (lambda p: [hdf5(p)[0], "--format", "groups"], "counts groups"),
    "groups, no folder": (lambda p: [str(p / "groups"), "--format", "groups"], "no such file"),
    "groups, an empty folder": (lambda p: [str(p), "--format", "groups"], "holds no NAME.0.hdf5"),
    "a folder of other things": (lambda p: [str(Path(hdf5(p)[0]).parent)], "no reader for ''"),
    "plc, zero bytes": (lambda p: raw(p, "a.plc.out", b"", *COSMOLOGY), "an empty file"),
    "plc, cut": (lambda p: truncated(plc(p), 0.9), "truncated: a block of 40 halos"),
    "plc, random bytes": (lambda p: raw(p, "a.plc.out", b"\x07" * 99), "no header of a PINOCCHIO"),
    "plc, other bytes at its end": (lambda p: raw(
        p, "a.plc.out", Path(plc(p)[0]).read_bytes() + b"\x01" * 12), "markers are damaged"),
    "plc, NaN": (lambda p: plc(p, mass=np.nan), "mass_Msun = nan at row 3"),
    "plc, negative mass": (lambda p: plc(p, mass=-1.0), "masses must be positive"),
    "plc, a redshift that is wrong": (lambda p: plc(p, z_obs=3.1), "row 3 contradicts itself"),
    "plc, ASCII cut in a row": (lambda p: plc_text(p, row="2 3.0 0 0 64"), "its last line has no"),
    "plc, ASCII with a short row": (lambda p: plc_text(p, row="2 3.0 0\n"), "damaged"),
    "plc, ASCII of another kind": (lambda p: plc_text(p, head="# x\n#    1) group ID\n"),
                                   "names no column 'true redshift'"),
    "plc, without a cosmology": (lambda p: plc(p)[:5], "add --cosmology Omega_m="),
    "catalog, a light cone's name": (lambda p: raw(
        p, "a.catalog.out", Path(plc(p)[0]).read_bytes()), "no header of a PINOCCHIO snapshot"),
    "rockstar, no units": (lambda p: raw(p, "out_1.list", ROCKSTAR), "#Units: Masses"),
    "rockstar, zero bytes": (lambda p: raw(p, "out_1.list", b""), "does not name the columns"),
    "rockstar, a list of consistent-trees": (lambda p: raw(
        p, "out_1.list", b"#scale(0) id(1)\n"), "--format hlist"),
    "hlist, zero bytes": (lambda p: raw(p, "hlist_1.0.list", b""), "does not begin with"),
    "hlist, an observer": (lambda p: raw(
        p, "hlist_1.0.list", b"", "--line-of-sight", "x"), "not of the format hlist"),
    "pksc, more halos than bytes": (lambda p: pksc(p, num=2**31 - 1), "its header says 2147483647"),
    "pksc, no halo": (lambda p: pksc(p, num=0), "its header says 0 halos"),
    "pksc, negative number": (lambda p: pksc(p, num=-5), "its header says -5 halos: no reader"),
    "pksc, negative number that fits": (lambda p: pksc(p, num=-NUM), "of 40 halos of 11 numbers"),
    "pksc, a negative radius": (lambda p: pksc(p, radius=-2.0), "not a positive number"),
    "pksc, cut": (lambda p: truncated(pksc(p), 0.7), "truncated, or something else"),
    "pksc, three bytes": (lambda p: raw(p, "a.pksc", b"abc", *COSMOLOGY), "3 bytes are no"),
    "no known ending": (lambda p: raw(p, "a.sav", b"IDL"), "no reader for '.sav' files"),
    "no such format": (lambda p: [*npz(p), "--format", "gadget"], "there is no format 'gadget'"),
    "bad cosmology": (lambda p: [*pksc(p), "--cosmology", "h:0.7"], "takes NAME=VALUE"),
    "box without a field": (lambda p: [*pksc(p), "--box"], "--box needs --footprint-deg"),
}  # fmt: skip
"""What is wrong: how to write it and what the sentence says."""


@pytest.mark.parametrize("case", CASES)
def test_refused_with_one_sentence(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, expected = CASES[case]
    given, out = tmp_path / "given", tmp_path / "out"
    given.mkdir()
    assert main(["catalog", "import", *make(given), "--out", str(out)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert expected in shown.err
    assert not out.exists()
    assert not (given / "executed").exists()


@pytest.mark.parametrize("make", [npz, csv, hdf5, plc, plc_text, pksc])
def test_the_same_files_without_fault_are_read(
    make: Callable[[Path], list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sentences above are for the faults and nothing else."""
    assert main(["catalog", "import", *make(tmp_path), "--out", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out").glob("*.h5"))) == 1
    assert "provenance" in capsys.readouterr().out


def test_payloads_are_live(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Payload(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()
