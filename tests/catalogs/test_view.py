"""Observers away from the origin and lines of sight along other axes than +z."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.halo_tables import COSMOLOGY, column_map, halos, write_csv

from streamtrain.catalogs.headers import CatalogError
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.readers import Options, read
from streamtrain.catalogs.readers.view import LINES_OF_SIGHT, View, check_direction
from streamtrain.cli.main import main

OBSERVER = (1000.0, -20.0, 5.5)
ALONG: dict[str, np.ndarray[Any, Any]] = {
    "x": np.array([1, 0, 0]), "y": np.array([0, 1, 0]), "z": np.array([0, 0, 1]),
    "-x": np.array([-1, 0, 0]), "-y": np.array([0, -1, 0]), "-z": np.array([0, 0, -1]),
}  # fmt: skip


def matrix(line_of_sight: str) -> np.ndarray[Any, Any]:
    """The rotation that `View` does, from what it does to the axes."""
    return View(None, line_of_sight).turned(np.eye(3), None)[0].T


@pytest.mark.parametrize("line_of_sight", LINES_OF_SIGHT)
def test_the_line_of_sight_comes_to_z_without_a_mirror(line_of_sight: str) -> None:
    turn = matrix(line_of_sight)
    np.testing.assert_array_equal(turn @ ALONG[line_of_sight], [0, 0, 1])
    assert np.linalg.det(turn) == 1.0
    np.testing.assert_array_equal(turn @ turn.T, np.eye(3))


def moved(line_of_sight: str, observer: tuple[float, ...]) -> dict[str, Any]:
    """The halos in a file whose observer stands and looks so: turned with the inverse rotation."""
    true = halos()
    back = matrix(line_of_sight).T
    x = back @ np.stack([true[a] for a in "xyz"])
    v = back @ np.stack([true[f"v{a}"] for a in "xyz"])
    there = dict(zip("xyz", x + np.reshape(observer, (3, 1)), strict=True))
    return true | there | dict(zip(("vx", "vy", "vz"), v, strict=True))


def table(path: Path, columns: dict[str, Any], view: View) -> Lightcone:
    chosen = column_map("x y z mass vx vy vz")
    return read(write_csv(path / "a.csv", columns), options=Options(columns=chosen, view=view))


def npz(path: Path, columns: dict[str, Any], view: View) -> Lightcone:
    names = {"Omega_M": "Omega_m", "Omega_B": "Omega_b", "h": "h", "ns": "n_s", "sigma8": "sigma8"}
    header = {theirs: COSMOLOGY[ours] for theirs, ours in names.items()}
    keys = {key: columns[key] for key in ("x", "y", "z", "vx", "vy", "vz")}
    np.savez(path / "a.npz", cosmo_header_json=np.array(json.dumps(header)), M=columns["mass"],
             **keys)  # fmt: skip
    return read(path / "a.npz", options=Options(view=view))


def pksc(path: Path, columns: dict[str, Any], view: View) -> Lightcone:
    names = ("x", "y", "z", "vx", "vy", "vz")
    rows = np.stack([columns[a] for a in names] + [columns["mass"] ** (1 / 3) / 3e3] * 5, axis=-1)
    head = np.array([len(rows)], "<i4").tobytes() + np.array([1e3, 3.0], "<f4").tobytes()
    (path / "a.pksc").write_bytes(head + rows.astype("<f4").tobytes())
    return read(path / "a.pksc", options=Options(cosmology=COSMOLOGY, view=view))


@pytest.mark.parametrize("reader", [table, npz, pksc])
@pytest.mark.parametrize("line_of_sight", ["x", "y", "-x", "-y", "-z"])
def test_the_same_lightcone(tmp_path: Path, reader: Callable[..., Lightcone],
                            line_of_sight: str) -> None:  # fmt: skip
    plain = reader(tmp_path, halos(), View())
    turned = reader(tmp_path, moved(line_of_sight, (0, 0, 0)), View(None, line_of_sight))
    both = reader(tmp_path, moved(line_of_sight, OBSERVER), View(OBSERVER, line_of_sight))
    assert turned.velocities_kms is not None and both.velocities_kms is not None
    for name in ("x_Mpc", "y_Mpc", "z_Mpc", "mass_Msun", "z_obs", "velocities_kms"):
        np.testing.assert_array_equal(getattr(turned, name), getattr(plain, name))
        there = getattr(both, name)  # float32 positions of a .pksc around another origin
        np.testing.assert_allclose(there, getattr(plain, name), rtol=1e-6, atol=1e-3)
    assert f"line of sight {line_of_sight} of the file: x, y, z are its " in turned.provenance
    assert "seen from the observer at (1000, -20, 5.5) Mpc of the file" in both.provenance
    with pytest.raises(CatalogError, match=f"lie around .* add --line-of-sight {line_of_sight},"):
        reader(tmp_path, moved(line_of_sight, (0, 0, 0)), View())


@pytest.mark.parametrize("names", ["x y z mass v_los", "x y z mass z_obs", "x y z mass z_cos"])
def test_redshifts_of_the_file_are_of_that_observer(tmp_path: Path, names: str) -> None:
    options = Options(columns=column_map(names))
    plain = read(write_csv(tmp_path / "a.csv", halos()), options=options)
    file = write_csv(tmp_path / "b.csv", moved("z", OBSERVER))
    seen = read(file, options=Options(columns=column_map(names), view=View(OBSERVER)))
    np.testing.assert_allclose(seen.z_obs, plain.z_obs, rtol=1e-7)
    np.testing.assert_allclose(seen.x_Mpc, plain.x_Mpc, atol=1e-6)
    if "z_obs" in names:
        with pytest.raises(CatalogError, match="the observer is not at the origin"):
            read(file, options=options)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    columns = moved("-z", OBSERVER)
    names = ("x_Mpc", "y_Mpc", "z_Mpc", "mass_Msun", "vx_kms", "vy_kms", "vz_kms")
    words = [f"{name}={name.split('_')[0].upper()}" for name in names]
    cosmology = [f"{name}={value}" for name, value in COSMOLOGY.items()]
    arguments = ["catalog", "import", str(write_csv(tmp_path / "a.csv", columns))]
    arguments += ["--out", str(tmp_path / "made"), "--columns", *words]
    arguments += ["--cosmology", *cosmology, "--observer", *map(str, OBSERVER)]
    assert main(arguments) == 2
    assert "add --line-of-sight -z" in capsys.readouterr().err
    assert main([*arguments, "--line-of-sight"]) == 2
    assert "must be one of x, y, z, -x, -y, -z, not ''" in capsys.readouterr().err
    assert main([*arguments, "--line-of-sight", "-z"]) == 0
    (tmp_path / "made/a.h5").rename(tmp_path / "made/b.h5")
    assert main([*arguments, "--line-of-sight=-z"]) == 0
    assert Lightcone.open(tmp_path / "made/a.h5").digest == (
        Lightcone.open(tmp_path / "made/b.h5").digest
    )
    cone = Lightcone.open(tmp_path / "made/a.h5")
    plain = table(tmp_path, halos(), View())
    np.testing.assert_allclose(cone.z_obs, plain.z_obs, rtol=1e-6)
    np.testing.assert_allclose(cone.y_Mpc, plain.y_Mpc, rtol=1e-6, atol=1e-5)


def test_angles_belong_to_an_observer_already(tmp_path: Path) -> None:
    chosen = column_map("ra dec z_cos v_los mass")
    path = write_csv(tmp_path / "a.csv", halos())
    with pytest.raises(CatalogError, match="ra and dec are as the observer sees them"):
        read(path, options=Options(columns=chosen, view=View(None, "x")))


def test_a_full_sky_is_cut_with_a_footprint() -> None:
    rng = np.random.default_rng(5)
    around = rng.normal(0, 1, (3000, 3))
    with pytest.raises(CatalogError, match="or keep a part with --footprint-deg"):
        check_direction(around)
    check_direction(around, (-10, 10, -10, 10))
    with pytest.raises(CatalogError, match="lie around the direction"):
        check_direction(np.abs(around) @ np.diag([1, 1, -1]), (-10, 10, -10, 10))


@pytest.mark.parametrize("corner", [0.0, -50.0])
@pytest.mark.parametrize("kind", ["csv", "npz"])
def test_a_snapshot_is_no_lightcone(tmp_path: Path, corner: float, kind: str) -> None:
    """Halos in a cube at the observer were taken for a lightcone down to z = 0; so were those with
    the redshift of a snapshot in every row, which were refused with other advice."""
    rng = np.random.default_rng(5)
    columns = dict(zip("xyz", rng.uniform(corner, corner + 100.0, (3, 2000)), strict=True))
    columns |= {"mass": rng.uniform(1e11, 1e12, 2000), "z_obs": np.full(2000, 5.8)}
    columns |= {f"v{a}": np.zeros(2000) for a in "xyz"}

    def imported(names: str, view: View) -> Lightcone:
        if kind == "npz":
            return npz(tmp_path, columns, view)
        path = write_csv(tmp_path / "a.csv", columns)
        return read(path, options=Options(columns=column_map(names), view=view))

    advice = r"fill a cube of (99\.9\d*|100) Mpc, as those of a snapshot do: --box (99\.\d+|100) "
    for names in ("x y z mass", "x y z mass vx vy vz", "x y z mass z_obs"):
        with pytest.raises(CatalogError, match=advice):
            imported(names, View())
    if corner == 0.0:
        assert len(imported("x y z mass", View((0.0, 0.0, 0.0)))) == 2000
    inside = np.sqrt(sum(columns[a] ** 2 for a in "xyz")) < 100.0  # an octant of a sphere
    columns = {name: a[inside] for name, a in columns.items()}
    if corner == 0.0:
        assert len(imported("x y z mass", View())) == inside.sum()
