"""Rockstar lists, those of consistent-trees and Peak Patch catalogs, written by the formats'
definitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import reference as ref

from streamtrain.catalogs.headers import CatalogError
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.readers import Options, read, read_halos
from streamtrain.cli.main import main
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


NAMES = [
    *("scale", "id", "desc_scale", "desc_id", "num_prog", "pid", "upid", "desc_pid", "phantom"),
    *("sam_mvir", "mvir", "rvir", "rs", "vrms", "mmp?", "scale_of_last_MM", "vmax", "x", "y", "z"),
    *("vx", "vy", "vz", "Jx", "Jy", "Jz", "Spin"),
]
LATER = "Rs_Klypin Mvir_all M200b M200c A[x] b_to_a(500c) T/|U|"
HEADER = """#{names} {later}
#Omega_M = 0.286000; Omega_L = 0.714000; h0 = 0.700000
#Full box size = 70.000000 Mpc/h
#Scale: Scale factor of halo.
#Pid: ID of least massive host halo (-1 if distinct halo).
#Phantom: Nonzero for halos interpolated across timesteps.
#SAM_Mvir: Halo mass, smoothed across accretion history (Msun/h).
#Mvir: Halo mass (Msun/h).
#X/Y/Z: Halo position (Mpc/h comoving).
#VX/VY/VZ: Halo velocity (km/s physical).
#Mvir_all: Mass enclosed within the specified overdensity, including unbound particles (Msun/h)
#Consistent Trees Version 1.01
"""


def write(path: Path, num: int = 4, last: str = "0.25000") -> Path:
    """`last` is the scale factor of the last halo; the second is a subhalo, the third a phantom."""
    names = " ".join(f"{name}({i})" for i, name in enumerate(NAMES))
    text = HEADER.format(names=names, later=LATER)
    rng = np.random.default_rng(1)
    for row in range(num):
        x, y, z = 70 * rng.uniform(size=3) if num > 9 else (7.0 * (row + 1), 14.0, 21.0)
        entry = dict.fromkeys(NAMES, "0") | {"scale": "0.25000", "id": str(row), "pid": "-1"}
        entry |= {"mvir": f"7.000e+1{row % 4}", "sam_mvir": "9e15", "x": f"{x:.5f}"}
        entry |= {"y": f"{y:.5f}", "z": f"{z:.5f}", "vx": "100.5", "vy": "-200.25", "vz": f"{row}"}
        entry |= {"pid": "0", "upid": "0"} if row == 1 else {}
        entry |= {"phantom": "1"} if row == 2 else {}
        entry |= {"scale": last} if row == num - 1 else {}
        text += " ".join(entry.values()) + " 1 2 1.4e12 4 5 0.6 0.5\n"
    path.write_text(text)
    return path


def test_hosts_arrive_in_our_units(tmp_path: Path) -> None:
    halos = read_halos(write(tmp_path / "hlist_0.25000.list"))
    np.testing.assert_allclose(halos.position_Mpc, [[10, 20, 30], [30, 20, 30], [40, 20, 30]])
    np.testing.assert_allclose(halos.mass_Msun, [1e11, 1e13, 1e14])
    assert halos.velocity_kms is not None
    np.testing.assert_allclose(halos.velocity_kms, [[100.5, -200.25, row] for row in (0, 2, 3)])
    assert halos.redshift == pytest.approx(3.0)
    assert halos.side_Mpc == pytest.approx(100.0)
    assert halos.cosmology == {"Omega_m": 0.286, "h": 0.7}
    notes = "; ".join(halos.notes)
    assert "1 subhalos (pid not -1) left out, of the others 1 are phantoms, kept" in notes
    assert "mass mvir (mvir is the virial mass unless" in notes
    other = read_halos(tmp_path / "hlist_0.25000.list", options=Options(mass="M200b"))
    np.testing.assert_allclose(other.mass_Msun, 2e12)
    with pytest.raises(CatalogError, match=r"a snapshot of a box, no lightcone: add --box"):
        read(tmp_path / "hlist_0.25000.list")


def test_a_box_is_tiled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "hlist_0.25000.list", 200)
    cosmology = ["Omega_b=0.047", "n_s=0.96", "sigma8=0.82"]
    arguments = ["catalog", "import", str(path), "--box", "--out", str(tmp_path / "made")]
    arguments += ["--footprint-deg", "-0.5", "0.5", "-0.5", "0.5", "--z-range", "2.9", "3.1"]
    assert main([*arguments, "--cosmology", *cosmology]) == 0
    cone = Lightcone.open(tmp_path / "made/hlist_0.25000_tiled_0000.h5")
    chi = [ref.comoving_distance(z) for z in (2.9, 3.1)]
    volume = (chi[1] ** 3 - chi[0] ** 3) / 3 * np.radians(1.0) ** 2
    assert len(cone) == pytest.approx(199 * volume / 100.0**3, rel=0.2)
    assert cone.cosmology == Cosmology().to_dict()
    assert main([*arguments, "--cosmology", *cosmology, "h=0.68", "--seed", "1"]) == 2
    assert "h is 0.7 in the file, but 0.68" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("h0 = 0.7", "h = 0.7", "does not state h0"),
        ("Omega_M = 0.286", "Omega_M = 0.386", "must be flat"),
        ("Omega_M = 0.286", "Omega_M = none", "does not state Omega_M"),
        ("#Full box", "#Box", "does not state the box"),
        ("70.000000 Mpc/h", "70.000000 Mpc", r"does not say 'Full box size = \.\.\. Mpc/h'"),
        ("Halo mass (Msun/h)", "Halo mass (Msun)", r"does not say 'Halo mass \(Msun/h\)'"),
        ("(Mpc/h comoving)", "(Mpc/h)", r"does not say 'Halo position"),
        ("(km/s physical)", "(km/s comoving)", r"does not say 'Halo velocity"),
        ("x(17) y(18)", "y(17) x(19)", r"its first line calls column 18 'x\(19\)'"),
        (" x(17)", " xx(17)", "no columns 'x': did you mean 'xx'"),
        ("phantom(8)", "pid(8)", "it has 2 columns 'pid'"),
        (" mvir(10)", " m(10)", "no columns 'mvir'"),
        ("#scale(0)", "#ID(0)", r"does not begin with '#scale\(0\) id\(1\)'"),
        ("7.000e+10", "heavy", "damaged: .*heavy"),
        ("7.000e+10", "nan", "mass_Msun = nan at row 0"),
    ],
)
def test_damaged_lists(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = write(tmp_path / "hlist_0.25000.list")
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(CatalogError, match=message):
        read_halos(path)


def test_cut_and_empty_lists(tmp_path: Path) -> None:
    path = write(tmp_path / "hlist_0.25000.list")
    text = path.read_text()
    for content, message in {
        "": "does not begin with",
        text[:-9]: "truncated: its last line has no line end and 32 of 34 cells",
        text[: text.index("0.25000 0")]: "holds no halo",
        text + "0.25 7\n": "line 17 has 2 numbers, its header names 34 columns",
        text.replace(" 9e15", "", 1): "line 13 has 33 numbers, its header names 34 columns",
        text.replace(" -1 0 0 0 ", " 9 9 9 0 ").replace(" -1 0 0 1 ", " 9 9 9 1 "): "no halo",
    }.items():
        path.write_text(content)
        with pytest.raises(CatalogError, match=message):
            read_halos(path)
    path.write_text(text[:-1])
    assert read_halos(path).notes[-1].startswith("the last line has no line end: its last number")


def test_scale_factor(tmp_path: Path) -> None:
    assert read_halos(write(tmp_path / "hlist_a.list")).redshift == pytest.approx(3.0)
    with pytest.raises(CatalogError, match=r"have the scale factor 0\.25, its name says otherwise"):
        read_halos(write(tmp_path / "hlist_0.35000.list"))
    with pytest.raises(CatalogError, match=r"scale factors from 0\.25 to 0\.5: a snapshot has one"):
        read_halos(write(tmp_path / "hlist_0.25000.list", last="0.5"))
