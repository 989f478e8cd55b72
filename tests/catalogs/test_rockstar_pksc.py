"""Rockstar lists and Peak Patch catalogs, written by the formats' definitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import reference as ref

from streamtrain.catalogs.headers import CatalogError
from streamtrain.catalogs.readers import Options, read, read_halos
from streamtrain.cosmology import Cosmology

COSMOLOGY = Cosmology().to_dict()
ROCKSTAR = """#ID DescID Mvir Vmax Vrms Rvir Rs Np X Y Z VX VY VZ JX JY JZ Spin M200b{pid}
#a = 0.250000
#Om = 0.286000; Ol = 0.714000; h = 0.700000
#FOF linking length: 0.280000
#Particle mass: 6.36846e+08 Msun/h
#Box size: 70.000000 Mpc/h
#Force resolution assumed: 0.002 Mpc/h
#Units: Masses in Msun / h
#Units: Positions in Mpc / h (comoving)
#Units: Velocities in km / s (physical, peculiar)
#Rockstar Version: 0.99.9-RC3+
"""


def write_rockstar(path: Path, parents: list[int] | None = None) -> Path:
    text = ROCKSTAR.format(pid=" PID" if parents else "")
    for row in range(3):
        text += (
            f"{row} -1 7.000e+1{row} 200.1 190.2 300.123 40.5 512 {7.0 * (row + 1):.5f} 14.0 21.0"
        )
        text += f" 100.5 -200.25 {row}.00 1e9 1e9 1e9 0.03 {1.4e12:.3e}"
        text += f" {parents[row]}\n" if parents else "\n"
    path.write_text(text)
    return path


def test_rockstar(tmp_path: Path) -> None:
    path = write_rockstar(tmp_path / "out_3.list")
    halos = read_halos(path)
    np.testing.assert_allclose(halos.position_Mpc, [[10, 20, 30], [20, 20, 30], [30, 20, 30]])
    np.testing.assert_allclose(halos.mass_Msun, [1e11, 1e12, 1e13])
    assert halos.velocity_kms is not None
    np.testing.assert_allclose(halos.velocity_kms, [[100.5, -200.25, row] for row in range(3)])
    assert halos.redshift == pytest.approx(3.0)
    assert halos.side_Mpc == pytest.approx(100.0)
    assert halos.cosmology == {"Omega_m": 0.286, "h": 0.7}
    assert any("no column PID" in note for note in halos.notes)
    other = read_halos(path, options=Options(mass="M200b"))
    np.testing.assert_allclose(other.mass_Msun, 2e12)
    with pytest.raises(CatalogError, match="no columns 'M200m': did you mean 'M200b'"):
        read_halos(path, options=Options(mass="M200m"))
    with pytest.raises(CatalogError, match=r"h is 0\.7 in the file, but 0\.68"):
        read_halos(path, options=Options(cosmology={"h": 0.68}))
    with pytest.raises(CatalogError, match="add --box"):
        read(path)


def test_rockstar_subhalos_are_left_out(tmp_path: Path) -> None:
    halos = read_halos(write_rockstar(tmp_path / "out_3.list", [-1, 2, -1]))
    np.testing.assert_allclose(halos.mass_Msun, [1e11, 1e13])
    assert "1 subhalos left out" in halos.notes


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("#a =", "the scale factor"),
        ("#Om =", "does not state Om"),
        ("#Units: Masses", "#Units: Masses in Msun / h"),
        ("#Box size", "the box size"),
        ("#ID", "does not name the columns"),
    ],
)
def test_rockstar_header_must_be_whole(tmp_path: Path, line: str, message: str) -> None:
    path = write_rockstar(tmp_path / "out_3.list")
    kept = [a for a in path.read_text().splitlines(keepends=True) if not a.startswith(line)]
    path.write_text("".join(kept))
    with pytest.raises(CatalogError, match=message):
        read_halos(path)


def test_a_row_that_lost_a_number_is_refused(tmp_path: Path) -> None:
    """All later numbers would be those of other columns."""
    path = write_rockstar(tmp_path / "out_3.list")
    path.write_text(path.read_text().replace(" 200.1 190.2", " 200.1", 1))
    with pytest.raises(CatalogError, match="line 12 has 18 numbers, its header names 19 columns"):
        read_halos(path)


def write_pksc(path: Path, columns: int = 11, num: int = 40) -> np.ndarray:
    rng = np.random.default_rng(2)
    rows = rng.normal(0, 1, (num, columns))
    chi = Cosmology().comoving_distance(rng.uniform(2.5, 3.2, num))
    angles = rng.uniform(-0.4, 0.4, (2, num))
    rows[:, 0:3] = np.stack(ref.position(angles[0], angles[1], chi), axis=-1)
    rows[:, 3:6] = rng.normal(0, 200, (num, 3))
    rows[:, 6] = rng.uniform(0.8, 4.0, num)
    rows = rows.astype("<f4")
    head = np.array(num, "<i4").tobytes() + np.array([rows[:, 6].max(), 2.9], "<f4").tobytes()
    path.write_bytes(head + rows.tobytes())
    return rows


@pytest.mark.parametrize("columns", [10, 11, 33])
def test_pksc(tmp_path: Path, columns: int) -> None:
    rows = write_pksc(tmp_path / "a.pksc", columns)
    cone = read(tmp_path / "a.pksc", options=Options(cosmology=COSMOLOGY))
    order = np.argsort(cone.mass_Msun)
    expected = np.argsort(rows[:, 6])
    np.testing.assert_array_equal(cone.x_Mpc[order], rows[expected, 0])
    density = 2.77536627e11 * 0.286 * 0.7**2
    mass = 4 / 3 * np.pi * rows[expected, 6].astype(float) ** 3 * density
    np.testing.assert_allclose(cone.mass_Msun[order], mass, rtol=1e-6)
    x = rows[expected, 0:3].astype(float)
    chi = np.sqrt(np.sum(x**2, axis=1))
    v_los = np.sum(x * rows[expected, 3:6], axis=1) / chi
    z_cos = Cosmology().redshift(chi)
    z_obs = z_cos + (1 + z_cos) * v_los / ref.C_KMS
    np.testing.assert_allclose(cone.z_obs[order], z_obs, atol=1e-6)
    assert f"of {columns} columns" in cone.provenance
    assert "(assumed)" in cone.provenance
    with pytest.raises(CatalogError, match="add --cosmology Omega_m="):
        read(tmp_path / "a.pksc")
