"""PINOCCHIO's own files: the real ones of a small run, and files of every layout."""

from __future__ import annotations

import re
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamtrain.catalogs.headers import CatalogError
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.readers import Options, read, read_halos
from streamtrain.catalogs.readers.pinocchio import CATALOG, PLC

COSMOLOGY = {"Omega_m": 0.286, "Omega_b": 0.047, "h": 0.7, "n_s": 0.96, "sigma8": 0.82}
WHOLE = (-1.26, 1.26, -1.26, 1.26)
CONE, BOX = "pinocchio.sample.plc.out", "pinocchio.2.3500.sample.catalog.out"


@pytest.fixture(scope="module")
def native(shared: Path) -> Path:
    folder = shared / "data" / "lightcones" / "native"
    if not folder.is_dir():
        pytest.skip(f"PINOCCHIO's own files are not in {folder}")
    return folder


@pytest.fixture(scope="module")
def small_run(native: Path) -> dict[str, Lightcone]:
    return {a: read(native / f"small_run_{a}" / CONE, footprint_deg=WHOLE) for a in ("asc", "bin")}


def test_light_cone_of_the_small_run(small_run: dict[str, Lightcone]) -> None:
    """Count, mass and redshift limits of check.txt; the cone has 1.25 deg."""
    for cone in small_run.values():
        assert len(cone) == 54853
        assert cone.min_mass_Msun == pytest.approx(7.78e11, rel=1e-3)
        assert cone.z_range == pytest.approx((2.35, 3.5), abs=1e-4)
        chi = np.sqrt(cone.x_Mpc**2 + cone.y_Mpc**2 + cone.z_Mpc**2.0)
        angle = np.degrees(np.arcsin(np.hypot(cone.x_Mpc, cone.y_Mpc) / chi))
        assert angle.max() == pytest.approx(1.25, abs=2e-4)
        np.testing.assert_allclose((chi.min(), chi.max()), (5721.5, 6896.2), atol=0.6)
        assert "(0.545868, -0.686833, 0.479884) of pinocchio.sample.geometry.out" in cone.provenance
        assert "box of side 126 Mpc" in cone.provenance
    assert "(as its header says)" in small_run["asc"].provenance
    assert "(as the parameter_file says)" in small_run["bin"].provenance


def test_ascii_and_binary_are_the_same_halos(small_run: dict[str, Lightcone]) -> None:
    rows = {}
    for kind, cone in small_run.items():
        order = np.lexsort((np.round(cone.z_obs, 3), np.round(np.log10(cone.mass_Msun), 4)))
        both = [cone.x_Mpc, cone.y_Mpc, cone.z_Mpc, cone.z_obs]
        assert cone.velocities_kms is not None
        table = np.stack([*both, *cone.velocities_kms.T])
        rows[kind] = table[:, order[np.argsort(cone.z_Mpc[order], kind="stable")]]
    np.testing.assert_allclose(rows["asc"][2], rows["bin"][2], atol=2e-3)
    same = np.all(np.abs(rows["asc"] - rows["bin"]) < 5e-3, axis=0)
    assert np.count_nonzero(~same) < 20  # ties of the sorting


def test_every_100th_halo_is_in_the_converted_npz(native: Path) -> None:
    """The npz of the same run was made by others: equal masses, distances and redshifts."""
    cone = read(
        native / "pinocchio.comapA_every100.plc.out",
        options=Options(cosmology=COSMOLOGY),
        footprint_deg=WHOLE,
    )
    assert len(cone) == 47064
    npz = read(native.parent / "pinocchio_A_m1e11.npz")
    chi, z_obs, mass = {}, {}, {}
    for name, one in (("ours", cone), ("npz", npz)):
        chi[name] = np.sqrt(one.x_Mpc**2.0 + one.y_Mpc**2.0 + one.z_Mpc**2.0)
        z_obs[name], mass[name] = one.z_obs, one.mass_Msun
    away = np.hypot(cone.x_Mpc, cone.y_Mpc) / cone.z_Mpc
    chosen = (cone.mass_Msun > 1.01e11) & (away < np.radians(0.79))
    assert np.count_nonzero(chosen) > 1000
    order = np.argsort(chi["npz"])
    near = np.searchsorted(chi["npz"][order], chi["ours"][chosen])
    best, partner = np.full(near.shape, np.inf), np.zeros(near.shape, int)
    for step in range(-6, 6):
        row = order[np.clip(near + step, 0, len(order) - 1)]
        distance = np.abs(chi["npz"][row] - chi["ours"][chosen]) / 3e-3
        distance += np.abs(z_obs["npz"][row] - z_obs["ours"][chosen]) / 2e-6
        distance += np.abs(mass["npz"][row] / mass["ours"][chosen] - 1.0) / 1e-6
        partner = np.where(distance < best, row, partner)
        best = np.minimum(best, distance)
    assert np.mean(best < 3.0) > 0.999
    found = best < 3.0  # the two frames differ by a rotation around the axis, and by no mirror
    ours = np.stack([cone.x_Mpc, cone.y_Mpc, cone.z_Mpc], axis=-1)[chosen][found].astype(float)
    theirs = np.stack([npz.x_Mpc, npz.y_Mpc, npz.z_Mpc], axis=-1)[partner[found]].astype(float)
    turn = np.linalg.lstsq(ours, theirs, rcond=None)[0]
    np.testing.assert_allclose(ours @ turn, theirs, atol=0.01)
    assert np.linalg.det(turn) == pytest.approx(1.0, abs=1e-5)
    assert turn[2, 2] == pytest.approx(1.0, abs=1e-6)
    assert cone.velocities_kms is not None
    assert npz.velocities_kms is not None
    moved = cone.velocities_kms[chosen][found] @ turn
    np.testing.assert_allclose(moved, npz.velocities_kms[partner[found]], atol=0.05)


def test_cuts_of_one_file_share_their_realisation(native: Path) -> None:
    file = native / "small_run_bin" / CONE
    cuts = [read(file, z_range=(2.4, 2.9)), read(file, min_mass_Msun=2e12)]
    assert cuts[0].z_range == (2.4, 2.9)
    wide = read(file, z_range=(2.0, 2.9))
    assert wide.z_range == pytest.approx((2.35, 2.9), abs=1e-4)  # it is filled no further
    assert cuts[1].min_mass_Msun == 2e12 < cuts[1].mass_Msun.min()
    assert cuts[0].digest != cuts[1].digest
    assert cuts[0].realisation == cuts[1].realisation == read(file).realisation
    assert read(file, realisation="A").realisation == "A"


def test_default_footprint_is_the_square_inside_the_cone(native: Path) -> None:
    cone = read(native / "small_run_bin" / CONE)
    assert cone.footprint_deg == pytest.approx(np.array([-1, 1, -1, 1]) * 1.25 / 2**0.5, abs=2e-4)
    assert "square of 1.768 deg inside the cone" in cone.provenance


def test_axis_from_theta_is_that_of_the_run(native: Path, tmp_path: Path) -> None:
    """Without the run's other files the axis comes from the column theta, to 1e-5."""
    shutil.copy(native / "small_run_bin" / CONE, tmp_path / CONE)
    with pytest.raises(CatalogError, match="add --cosmology Omega_m="):
        read(tmp_path / CONE)
    cone = read(tmp_path / CONE, options=Options(cosmology=COSMOLOGY))
    text = cone.provenance
    assert "assumed: binary files do not say" in text
    found = [float(a) for a in text.split("from the axis (")[1].split(")")[0].split(",")]
    np.testing.assert_allclose(found, (0.545868, -0.686833, 0.479884), atol=1e-5)
    with pytest.raises(CatalogError, match=r"axis .* as given does not fit the column theta"):
        read(tmp_path / CONE, options=Options(cosmology=COSMOLOGY, axis=(0.5, -0.7, 0.5)))


def test_wrong_units_are_noticed(native: Path, tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="parameter_file contradicts the units"):
        read(native / "small_run_bin" / CONE, options=Options(h_units=True))
    shutil.copy(native / "small_run_bin" / CONE, tmp_path / CONE)
    with pytest.raises(CatalogError, match="divided by h once too often"):
        read(tmp_path / CONE, options=Options(cosmology=COSMOLOGY, h_units=True))


def test_snapshot_of_the_small_run(native: Path) -> None:
    text, binary = (read_halos(native / f"small_run_{a}" / BOX) for a in ("asc", "bin"))
    for snapshot in (text, binary):
        assert len(snapshot) == 2375
        assert snapshot.redshift == 2.35
        assert snapshot.side_Mpc == 126.0
        assert snapshot.cosmology == COSMOLOGY
        particle = 1.6677e9 * 3.6**3  # check.txt, at 100^3 instead of 360^3 particles
        number = snapshot.mass_Msun / particle
        np.testing.assert_allclose(number, np.round(number), rtol=3e-4)
    np.testing.assert_allclose(text.position_Mpc, binary.position_Mpc, atol=0.0051)
    np.testing.assert_allclose(text.velocity_kms, binary.velocity_kms, atol=0.0051)
    np.testing.assert_allclose(text.mass_Msun, binary.mass_Msun, rtol=1e-6)
    with pytest.raises(CatalogError, match="a snapshot of a box, no lightcone: add --box"):
        read(native / "small_run_asc" / BOX)
    with pytest.raises(CatalogError, match=r"of redshift 2\.35, not 3"):
        read_halos(native / "small_run_asc" / BOX, options=Options(redshift=3.0))


# Other layouts, written here.


def rows_of(path: Path) -> Any:
    """The halos of a real binary light cone of one or more blocks."""
    content, place, parts = path.read_bytes(), 12, []
    while place < len(content):
        num = struct.unpack("<3i", content[place : place + 12])[1]
        parts.append(np.frombuffer(content, PLC, num, place + 16))
        place += 12 + 8 + num * PLC.itemsize
    return np.concatenate(parts)


def test_layout_before_v5(native: Path, tmp_path: Path) -> None:
    """Every halo between two markers."""
    rows = rows_of(native / "small_run_bin" / CONE)
    classic = np.empty(len(rows), [("a", "<i4"), ("halo", PLC), ("b", "<i4")])
    classic["a"] = classic["b"] = 56
    classic["halo"] = rows
    path = tmp_path / CONE
    path.write_bytes(classic.tobytes())
    options = Options(cosmology=COSMOLOGY, axis=(0.545868, -0.686833, 0.479884))
    (tmp_path / "new").mkdir()
    shutil.copy(native / "small_run_bin" / CONE, tmp_path / "new" / CONE)
    assert (
        read(path, options=options).digest == read(tmp_path / "new" / CONE, options=options).digest
    )


def test_binary_catalog_in_several_files(native: Path, tmp_path: Path) -> None:
    """The blocks of the real files, each in a file of its own, named by the first."""
    for name, start in ((CONE, 12), (BOX, 16)):
        content = (native / "small_run_bin" / name).read_bytes()
        head, place, part = content[:start], start, 0
        while place < len(content):
            num = struct.unpack("<3i", content[place : place + 12])[1]
            end = place + 12 + (8 + 56 * num if num else 0)
            (tmp_path / f"{name}.{part}").write_bytes(head + content[place:end])
            place, part = end, part + 1
        assert part > 1
    for beside in ("parameter_file", "pinocchio.sample.geometry.out"):
        shutil.copy(native / "small_run_bin" / beside, tmp_path / beside)
    cone = read(tmp_path / f"{CONE}.0")
    assert cone.digest == read(native / "small_run_bin" / CONE).digest
    assert f"{CONE}.0 and " in cone.provenance
    whole, parts = (read_halos(a) for a in (native / "small_run_bin" / BOX, tmp_path / f"{BOX}.0"))
    np.testing.assert_array_equal(parts.position_Mpc, whole.position_Mpc)
    assert parts.redshift == whole.redshift
    with pytest.raises(CatalogError, match=r"name its first part, which ends in \.0"):
        read(tmp_path / f"{CONE}.1")
    run = tmp_path / "parameter_file"
    run.write_text(re.sub(r"(NumFiles +)1", r"\g<1>9", run.read_text()))
    with pytest.raises(CatalogError, match=rf"its part {CONE}\.\d is missing"):
        read(tmp_path / f"{CONE}.0")
    run.unlink()
    (tmp_path / f"{CONE}.1").rename(tmp_path / f"{CONE}.7")
    with pytest.raises(CatalogError, match=rf"its part {CONE}\.1 is missing"):
        read(tmp_path / f"{CONE}.0")


def write_snapshot(path: Path, num: int = 50, unit: str = "") -> Path:
    rng = np.random.default_rng(1)
    lines = [
        "# Group catalog for redshift 2.900000 and minimal mass of 10 particles",
        "#    1) group ID",
        f"#    2) group mass (Msun{unit})",
        f"# 3- 5) initial position (Mpc{unit})",
        f"# 6- 8) final position (Mpc{unit})",
        "# 9-11) velocity (km/s)",
        "#   12) number of particles",
        "#",
    ]
    for row in range(num):
        numbers = [*rng.uniform(0, 70, 6), *rng.normal(0, 200, 3)]
        lines.append(f"{row:8d} 1.4e12 " + " ".join(f"{a:.3f}" for a in numbers) + " 20")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_ascii_header_with_h(tmp_path: Path) -> None:
    plain = read_halos(write_snapshot(tmp_path / "a.catalog.out"))
    path = write_snapshot(tmp_path / "b.catalog.out", unit="/h")
    with pytest.raises(CatalogError, match="h is unknown: add --cosmology h="):
        read_halos(path)
    with_h = read_halos(path, options=Options(cosmology={"h": 0.7}))
    np.testing.assert_allclose(with_h.position_Mpc * 0.7, plain.position_Mpc)
    np.testing.assert_allclose(with_h.mass_Msun * 0.7, plain.mass_Msun)
    np.testing.assert_array_equal(with_h.velocity_kms, plain.velocity_kms)
    with pytest.raises(CatalogError, match="header contradicts the units"):
        read_halos(path, options=Options(cosmology={"h": 0.7}, h_units=False))


def test_binary_in_h_units_as_the_parameter_file_says(tmp_path: Path) -> None:
    halos = np.zeros(3, CATALOG)
    halos["mass"], halos["position"] = 7e11, [[7.0, 14.0, 21.0]] * 3
    path = tmp_path / "pinocchio.2.9000.mine.catalog.out"
    blocks = b"".join(
        struct.pack("<4i", 4, len(part), 4, part.nbytes) + part.tobytes()
        + struct.pack("<i", part.nbytes)
        for part in (halos[:1], halos[1:])
    )  # fmt: skip
    empty = struct.pack("<3i", 4, 0, 4)
    path.write_bytes(struct.pack("<4i", 8, 3, 56, 8) + empty + blocks)
    (tmp_path / "parameter_file").write_text(
        "BoxSize 100.0 # Mpc/h\nBoxInH100\nOutputInH100\nOmega0 0.3\nOmegaLambda 0.7\n"
        "OmegaBaryon .045\nHubble100 .7\nSigma8 .8\nPrimordialIndex .96\n"
    )
    found = read_halos(path)
    assert found.redshift == 2.9
    assert found.side_Mpc == pytest.approx(100 / 0.7)
    np.testing.assert_allclose(found.position_Mpc, [[10.0, 20.0, 30.0]] * 3, rtol=1e-6)
    np.testing.assert_allclose(found.mass_Msun, 1e12, rtol=1e-6)
