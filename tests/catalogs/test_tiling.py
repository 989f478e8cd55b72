"""Boxes tiled into a lightcone: every halo is one of the box, moved as its copy says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import reference as ref

from streamtrain.catalogs.headers import CatalogError
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.readers import Options, read
from streamtrain.catalogs.readers.halos import Halos, lightcone_of
from streamtrain.catalogs.readers.importing import read_boxes
from streamtrain.catalogs.readers.tiling import tile_boxes, transform
from streamtrain.cli.main import main
from streamtrain.cosmology import Cosmology

SIDE = 40.0
FIELD: dict[str, Any] = {"footprint_deg": (-0.5, 0.5, -0.3, 0.4), "z_range": (2.4, 2.6)}


def box(num: int = 4000, redshift: float = 2.5, **changes: Any) -> Halos:
    """Halos spread evenly over a box; the mass tells which one it is."""
    rng = np.random.default_rng(6)
    given: dict[str, Any] = {
        "position_Mpc": rng.uniform(0, SIDE, (num, 3)),
        "mass_Msun": 1e11 * (1.0 + np.arange(num)),
        "velocity_kms": rng.normal(0, 200, (num, 3)),
        "columns": {"number": np.arange(num, dtype=float)},
        "cosmology": Cosmology().to_dict(),
        "side_Mpc": SIDE,
        "redshift": redshift,
    }
    return Halos(**(given | changes))


def cone_of(snapshots: list[Halos], seed: int = 0, **changes: Any) -> Lightcone:
    field = FIELD | changes
    return lightcone_of(tile_boxes(snapshots, seed=seed, **field), **field)


def test_every_halo_is_one_of_the_box_moved_as_its_copy_says() -> None:
    source = box()
    cone = cone_of([source], seed=5)
    assert cone.velocities_kms is not None
    assert source.velocity_kms is not None
    position = np.stack([cone.x_Mpc, cone.y_Mpc, cone.z_Mpc], axis=-1).astype(float)
    tiles = np.floor(position / SIDE + [0.5, 0.5, 0.0]).astype(int)
    seen = set()
    for row in range(0, len(cone), 7):
        tile = tuple(int(a) for a in tiles[row])
        shift, axes, signs = transform(5, tile)
        seen.add((axes, *signs))
        number = int(cone.columns["number"][row])
        assert cone.mass_Msun[row] == np.float32(source.mass_Msun[number])
        inside = source.position_Mpc[number][list(axes)] * signs + shift * SIDE
        offset = position[row] - inside
        np.testing.assert_allclose(offset / SIDE - np.round(2 * offset / SIDE) / 2, 0, atol=2e-5)
        velocity = source.velocity_kms[number][list(axes)] * signs
        np.testing.assert_allclose(cone.velocities_kms[row], velocity, rtol=1e-6)
    assert len(seen) > 15  # of 48 orientations


def test_density_and_observed_redshift() -> None:
    """As many halos as the volume holds, everywhere in the field and up to its redshift edges."""
    cone = cone_of([box()])
    model = Cosmology()
    solid = np.radians(1.0) * (np.sin(np.radians(0.4)) - np.sin(np.radians(-0.3)))
    chi = model.comoving_distance(np.linspace(2.4, 2.6, 5))
    expected = solid * np.diff(chi**3) / 3.0 * 4000 / SIDE**3
    counts = np.histogram(cone.z_obs, np.linspace(2.4, 2.6, 5))[0]
    np.testing.assert_allclose(counts, expected, rtol=6 / np.sqrt(expected.min()))
    counts = np.histogram(np.degrees(np.arctan2(-cone.x_Mpc, cone.z_Mpc)), 5, (-0.5, 0.5))[0]
    np.testing.assert_allclose(counts, len(cone) / 5, rtol=6 / np.sqrt(len(cone) / 5))
    position = np.stack([cone.x_Mpc, cone.y_Mpc, cone.z_Mpc], axis=-1).astype(float)
    chi = np.sqrt(np.sum(position**2, axis=1))
    z_cos = model.redshift(chi)
    v_los = np.sum(position * cone.velocities_kms, axis=1) / chi
    np.testing.assert_allclose(cone.z_obs, z_cos + (1 + z_cos) * v_los / ref.C_KMS, atol=1e-6)
    assert cone.footprint_deg == (-0.5, 0.5, -0.3, 0.4)
    assert cone.z_range == (2.4, 2.6)


def test_seed_and_order_of_files() -> None:
    two = [box(), box(redshift=2.45)]
    assert cone_of(two, seed=1).digest == cone_of(two[::-1], seed=1).digest
    assert cone_of(two, seed=1).digest != cone_of(two, seed=2).digest


def test_nearest_snapshot_for_every_distance() -> None:
    two = [box(), box(redshift=2.44, columns={"number": np.full(4000, -1.0)})]
    cone = cone_of(two, z_range=(2.4, 2.6))
    chi = np.sqrt(cone.x_Mpc**2.0 + cone.y_Mpc**2.0 + cone.z_Mpc**2.0)
    middle = Cosmology().comoving_distance([2.44, 2.5]).mean()
    np.testing.assert_array_equal(cone.columns["number"] < 0, chi < middle)
    assert "tiled from 2 snapshot(s) at z = 2.44, 2.5" in cone.provenance
    assert "(at most 0.1 away in redshift)" in cone.provenance


@pytest.mark.parametrize(
    ("halos", "changes", "message"),
    [
        ([box(side_Mpc=None)], {}, "add --box SIDE_MPC"),
        ([box(redshift=None)], {}, "add --redshifts"),
        ([box()], {"side_Mpc": 41.0}, "several sides"),
        ([box(side_Mpc=28.0)], {}, "more than the box of 28 Mpc"),
        ([box(side_Mpc=57.0)], {}, r"fill only .* of the box of 57 Mpc"),
        ([box(), box()], {}, "two snapshots have the same redshift"),
        ([box(), box(redshift=3.0, velocity_kms=None)], {}, "have velocities or none"),
        ([box()], {"z_range": (2.6, 2.4)}, "redshift range must increase"),
        ([box()], {"footprint_deg": (0.5, -0.5, 0, 1)}, "the footprint must be"),
        ([box()], {"seed": -1}, "the seed, -1"),
        ([box(cosmology={"h": 0.7})], {}, "add --cosmology Omega_m="),
        ([box(), box(redshift=3.0, cosmology={"h": 0.6})], {}, r"h is 0\.6 in the file"),
        ([box(num=1, position_Mpc=np.array([[np.nan, 0, 0]]))], {}, "finite"),
        ([box(side_Mpc=SIDE)], {"footprint_deg": (-30, 30, -30, 30)}, "box is too small"),
    ],
)  # fmt: skip
def test_bad_boxes(halos: list[Halos], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        tile_boxes(halos, **(FIELD | changes))


def test_snapshot_of_pinocchio(shared: Path, tmp_path: Path) -> None:
    """A real box: density as in the box, no warning near its redshift, one realisation."""
    file = shared / "data/lightcones/native/small_run_asc/pinocchio.2.3500.sample.catalog.out"
    if not file.is_file():
        pytest.skip(f"there is no {file}")
    field: dict[str, Any] = {"footprint_deg": (-1, 1, -1, 1), "z_range": (2.3, 2.4)}
    cone = read_boxes([file], seed=0, **field)
    chi = Cosmology().comoving_distance([2.3, 2.4])
    solid = np.radians(2.0) * 2 * np.sin(np.radians(1.0))
    expected = solid * (chi[1] ** 3 - chi[0] ** 3) / 3 * 2375 / 126.0**3
    assert len(cone) == pytest.approx(expected, rel=0.04)
    assert cone.info()["warnings"] == []
    assert read_boxes([file], seed=1, **field).realisation == cone.realisation
    arguments = ["catalog", "import", str(file), "--box", "--footprint-deg", "-1", "1", "-1", "1"]
    arguments += ["--z-range", "2.3", "2.4", "--out", str(tmp_path)]
    assert main(arguments) == 0
    written = Lightcone.open(tmp_path / "pinocchio.2.3500.sample_tiled_0000.h5")
    assert written.digest == cone.digest


def rockstar_list(path: Path, scale: float, seed: int) -> Path:
    """300 halos in a box of 28 Mpc/h."""
    rng = np.random.default_rng(seed)
    text = (
        "#ID Mvir X Y Z VX VY VZ\n"
        f"#a = {scale}\n#Om = 0.286; Ol = 0.714; h = 0.7\n#Box size: 28.0 Mpc/h\n"
        "#Units: Masses in Msun / h\n#Units: Positions in Mpc / h (comoving)\n"
    )
    for row in range(300):
        numbers = [*rng.uniform(0, 28, 3), *rng.normal(0, 200, 3)]
        text += f"{row} {1e11 * (row + 1):.4e} " + " ".join(f"{a:.5f}" for a in numbers) + "\n"
    path.write_text(text)
    return path


def test_two_rockstar_lists_from_the_command_line(tmp_path: Path) -> None:
    files = [rockstar_list(tmp_path / f"out_{n}.list", a, n) for n, a in ((1, 0.28), (2, 0.29))]
    arguments = ["catalog", "import", *map(str, files), "--box", "--out", str(tmp_path / "out")]
    arguments += ["--footprint-deg", "-0.5", "0.5", "-0.5", "0.5", "--z-range", "2.4", "2.6"]
    given = ["--cosmology", "Omega_b=0.047", "n_s=0.96", "sigma8=0.82"]
    assert main([*arguments, "--seed", "4", "--min-mass", "1e12", *given]) == 0
    cone = Lightcone.open(tmp_path / "out" / "out_1_tiled_0004.h5")
    assert cone.cosmology == Cosmology().to_dict()
    assert cone.min_mass_Msun == 1e12
    assert cone.mass_Msun.min() >= 1e12
    assert "box of side 40 Mpc" in cone.provenance
    assert cone.info()["box_repeats"] > 1
    assert main([*arguments, *given]) == 0
    assert main([*arguments, *given]) == 2  # it is there
    assert main([*arguments, "--redshifts", "3", "--out", str(tmp_path / "b"), *given]) == 2
    assert not (tmp_path / "b").exists()


def test_table_of_a_box(tmp_path: Path) -> None:
    """A map with `box` makes a snapshot of a table; the same halos give the same lightcone."""
    source = box(num=500)
    lines = ["X,Y,Z,VX,VY,VZ,M"]
    assert source.velocity_kms is not None
    table = np.column_stack([source.position_Mpc * 0.7, source.velocity_kms, source.mass_Msun])
    lines += [",".join(repr(float(a)) for a in row) for row in table]
    (tmp_path / "box.csv").write_text("\n".join(lines) + "\n")
    columns: dict[str, Any] = {a.lower(): {"column": a, "unit": "Mpc/h"} for a in "XYZ"}
    columns |= {a.lower(): {"column": a, "unit": "km/s"} for a in ("VX", "VY", "VZ")}
    columns |= {"mass": {"column": "M", "unit": "Msun"}, "cosmology": Cosmology().to_dict()}
    columns["box"] = {"side": 28.0, "unit": "Mpc/h", "redshift": 2.5}
    options = Options(columns=columns)
    with pytest.raises(CatalogError, match="a snapshot of a box, no lightcone: add --box"):
        read(tmp_path / "box.csv", options=options)
    cone = read_boxes([tmp_path / "box.csv"], options=options, **FIELD)
    direct = cone_of([box(num=500)])
    np.testing.assert_allclose(np.sort(cone.x_Mpc), np.sort(direct.x_Mpc), atol=1e-3)
    np.testing.assert_array_equal(np.sort(cone.mass_Msun), np.sort(direct.mass_Msun))


def test_box_without_velocities() -> None:
    """Halos without velocity keep z_obs at the distance."""
    cone = cone_of([box(velocity_kms=None)])
    assert cone.velocities_kms is None
    chi = np.sqrt(cone.x_Mpc**2.0 + cone.y_Mpc**2.0 + cone.z_Mpc**2.0)
    np.testing.assert_allclose(cone.z_obs, Cosmology().redshift(chi), atol=1e-6)
    assert "without peculiar velocities" in cone.provenance
