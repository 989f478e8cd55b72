"""Lists of consistent-trees, with the header that the code writes."""

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
