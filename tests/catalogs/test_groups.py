"""Groups of Gadget-4, Arepo and SWIFT in HDF5, in one file and in chunks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from support import reference as ref

from streamtrain.catalogs.headers import CatalogError
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.readers import Options, read, read_halos
from streamtrain.cli.main import main
from streamtrain.cosmology import Cosmology

H, SCALE = 0.7, 0.25
CM_PER_MPC = 3.0856775814913673e24
COSMOLOGY = {"Omega0": 0.286, "OmegaLambda": 0.714, "HubbleParam": H}
TWO = (CM_PER_MPC / 1e3, 1.989e43)  # kpc/h, 1e10 Msun/h


def groups(num: int = 7) -> dict[str, Any]:
    """Of a box of 100 Mpc, in comoving Mpc, Msun and km/s."""
    rng = np.random.default_rng(3)
    return {"position": rng.uniform(0, 100, (num, 3)), "mass": 10 ** rng.uniform(11, 13, num),
            "velocity": rng.normal(0, 300, (num, 3))}  # fmt: skip


def write(
    path: Path,
    halos: dict[str, Any],
    *,
    sizes: Sequence[int] = (),
    kpc: float = 1e3,
    units: tuple[float, float] | None = TWO,
    header: dict[str, Any] | None = None,
    more: dict[str, Any] | None = None,
) -> Path:
    """As Gadget-4 and Arepo do; the units, if any, in the group Parameters as in Gadget-4."""
    stored = {"GroupPos": halos["position"] * H * kpc, "GroupMass": halos["mass"] * H / 1e10,
              "GroupVel": halos["velocity"] * SCALE} | (more or {})  # fmt: skip
    edges = np.concatenate([[0], np.cumsum(sizes or [len(halos["mass"])])])
    name = f"{path.name}.{{}}.hdf5" if sizes else f"{path.name}.hdf5"
    for number, (low, high) in enumerate(pairwise(edges)):
        with h5py.File(path.with_name(name.format(number)), "w") as file:
            said = {"Ngroups_ThisFile": high - low, "Ngroups_Total": len(halos["mass"]),
                    "NumFiles": len(edges) - 1, "Redshift": 1 / SCALE - 1, "Time": SCALE,
                    "BoxSize": 100.0 * H * kpc} | COSMOLOGY | (header or {})  # fmt: skip
            file.create_group("Header").attrs.update(
                {key: value for key, value in said.items() if value is not None}
            )
            if units:
                file.create_group("Parameters").attrs.update(
                    UnitLength_in_cm=units[0], UnitMass_in_g=units[1], UnitVelocity_in_cm_per_s=1e5
                )
            table = file.create_group("Group")
            for key, array in stored.items():
                if high > low and array is not None:
                    table[key] = np.asarray(array[low:high])
    return path.with_name(name.format(0))


def check(path: Path, options: Options | None = None, velocities: bool = True) -> list[str]:
    true, halos = groups(), read_halos(path, options=options)
    np.testing.assert_allclose(halos.position_Mpc, true["position"], rtol=1e-12)
    np.testing.assert_allclose(halos.mass_Msun, true["mass"], rtol=1e-12)
    if velocities:
        assert halos.velocity_kms is not None
        np.testing.assert_allclose(halos.velocity_kms, true["velocity"], rtol=1e-12)
    else:
        assert halos.velocity_kms is None
    assert halos.side_Mpc == pytest.approx(100.0)
    assert halos.redshift == pytest.approx(3.0)
    assert halos.cosmology == {"Omega_m": 0.286, "h": H}
    return halos.notes


def test_one_file_and_chunks_are_the_same(tmp_path: Path) -> None:
    check(write(tmp_path / "fof_subhalo_tab_007", groups()))
    folder = tmp_path / "groups_007"
    folder.mkdir()
    first = write(folder / "fof_tab_007", groups(), sizes=(3, 0, 4))
    for path in (first, folder / "fof_tab_007.2.hdf5", folder, folder / "fof_tab_*.hdf5"):
        notes = check(path)
    assert "groups fof_tab_007.0.hdf5 in 3 chunks, sha256 " in notes[0]
    assert "(0.001 Mpc/h, 1e+10 Msun/h, 1 km/s)" in notes[1]


def test_units(tmp_path: Path) -> None:
    """In Mpc/h; in another unit of mass; not stated; in attributes of the datasets."""
    path = tmp_path / "a"
    check(write(path, groups(), kpc=1.0, units=(CM_PER_MPC, 1.989e43)))
    light = groups()["mass"] * H / 7.3e8
    file = write(path, groups(), units=(TWO[0], 7.3e8 * 1.98841e33), more={"GroupMass": light})
    check(file)
    file = write(path, groups(), units=None)
    with pytest.raises(CatalogError, match=r"no UnitLength_in_cm .* --units kpc/h or --units"):
        read_halos(file)
    assert "lengths in kpc/h (as given)" in check(file, Options(length="kpc/h"))[1]
    check(write(path, groups(), units=None, kpc=1.0), Options(length="Mpc/h"))
    file = write(path, groups())
    with pytest.raises(CatalogError, match=r"its lengths are in 0\.001 Mpc/h, not Mpc/h"):
        read_halos(file, options=Options(length="Mpc/h"))
    file = write(path, groups(), units=None)
    with h5py.File(file, "r+") as content:
        for name, cgs, a_power, h_power in (
            ("GroupPos", CM_PER_MPC / 1e3, 1.0, -1.0),
            ("GroupMass", 1.989e43, 0.0, -1.0),
            ("GroupVel", 1e5, -1.0, 0.0),
        ):
            content[f"Group/{name}"].attrs.update(to_cgs=cgs, a_scaling=a_power, h_scaling=h_power)
    assert "units as the datasets state them" in check(file)[1]
    with h5py.File(file, "r+") as content:  # physical velocities then
        content["Group/GroupVel"][...] /= SCALE
        content["Group/GroupVel"].attrs["a_scaling"] = 0.0
    check(file)


def test_swift(tmp_path: Path) -> None:
    """Without h in the units, with the box's three sides and no velocities."""
    true = groups()
    cgs = "Conversion factor to CGS (not including cosmological corrections)"
    folder = tmp_path / "fof_output_0007"
    folder.mkdir()
    for number, rows in enumerate((slice(0, 4), slice(4, 4), slice(4, 7))):
        with h5py.File(folder / f"fof_output_0007.{number}.hdf5", "w") as file:
            here = np.array([len(true["mass"][rows])])
            file.create_group("Header").attrs.update(
                NumGroups_ThisFile=here, NumGroups_Total=np.array([7]), Redshift=np.array([3.0]),
                NumFilesPerSnapshot=np.array([3]), BoxSize=np.full(3, 100.0),
            )  # fmt: skip
            file.create_group("Cosmology").attrs.update(
                {"Omega_m": [0.286], "Omega_lambda": [0.714], "h": [H], "Omega_b": [0.0]}
            )
            for name, array, unit, power in (
                ("Masses", true["mass"][rows] / 1e10, 1.98841e43, 0.0),
                ("Centres", true["position"][rows], CM_PER_MPC, 1.0),
            ):
                data = array if len(array) else h5py.Empty("f8")
                file[f"Groups/{name}"] = data
                attributes = {cgs: [unit], "a-scale exponent": [power], "h-scale exponent": [0.0]}
                file[f"Groups/{name}"].attrs.update(attributes)
    check(folder, velocities=False)
    with h5py.File(folder / "fof_output_0007.0.hdf5", "r+") as file:
        file["Header"].attrs["BoxSize"] = [100.0, 100.0, 50.0]
    with pytest.raises(CatalogError, match="its box is no cube: BoxSize = 100, 100, 50"):
        read_halos(folder)


def test_other_masses(tmp_path: Path) -> None:
    mean = groups()["mass"] * H / 1e10 * np.array([0.9, 0.9, 0.0, 0.9, 0.9, 0.0, 0.9])
    path = write(tmp_path / "a", groups(), more={"Group_M_Mean200": mean})
    halos = read_halos(path, options=Options(mass="Group_M_Mean200"))
    np.testing.assert_allclose(halos.mass_Msun, 0.9 * groups()["mass"][[0, 1, 3, 4, 6]])
    assert "2 groups with Group_M_Mean200 = 0 left out" in halos.notes
    with pytest.raises(CatalogError, match="no dataset Group/Group_M_Mean20: did you mean"):
        read_halos(path, options=Options(mass="Group_M_Mean20"))


def test_a_box_is_tiled_from_all_chunks_that_a_shell_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "fof_tab_007", groups(400), sizes=(100, 300), header={"OmegaBaryon": 0.047})
    chunks = [str(tmp_path / f"fof_tab_007.{number}.hdf5") for number in (0, 1)]
    arguments = [
        "--box",
        "--footprint-deg",
        "-0.5",
        "0.5",
        "-0.5",
        "0.5",
        "--z-range",
        "2.9",
        "3.1",
    ]
    arguments += ["--cosmology", "n_s=0.96", "sigma8=0.82", "--out", str(tmp_path / "made")]
    assert main(["catalog", "import", *chunks, *arguments]) == 0
    cone = Lightcone.open(tmp_path / "made/fof_tab_007_tiled_0000.h5")
    chi = [ref.comoving_distance(z) for z in (2.9, 3.1)]
    volume = (chi[1] ** 3 - chi[0] ** 3) / 3 * np.radians(1.0) ** 2
    assert len(cone) == pytest.approx(400 * volume / 100.0**3, rel=0.2)
    assert cone.cosmology == Cosmology().to_dict()
    capsys.readouterr()
    assert main(["catalog", "import", chunks[0], "--out", str(tmp_path)]) == 2
    assert "a snapshot of a box, no lightcone: add --box" in capsys.readouterr().err


def test_groups_on_a_light_cone(tmp_path: Path) -> None:
    """Each has its own scale factor, and the peculiar velocity itself."""
    rng = np.random.default_rng(4)
    z = rng.uniform(2.5, 3.2, 40)
    x, y, depth = ref.position(*rng.uniform(-0.4, 0.4, (2, 40)), Cosmology().comoving_distance(z))
    halos = groups(40) | {"position": np.stack([x, y, depth], axis=-1)}
    own = {"GroupVel": halos["velocity"], "GroupAscale": 1 / (1 + z)}
    path = write(tmp_path / "lightcone", halos, sizes=(20, 20), more=own)
    more = {"Omega_b": 0.047, "n_s": 0.96, "sigma8": 0.82}
    cone = read(path, options=Options(cosmology=more))
    order, expected = np.argsort(cone.mass_Msun), np.argsort(halos["mass"])
    assert cone.velocities_kms is not None
    np.testing.assert_allclose(cone.velocities_kms[order], halos["velocity"][expected], rtol=1e-5)
    v_los = np.sum(halos["position"] * halos["velocity"], axis=1)
    v_los /= np.linalg.norm(halos["position"], axis=1)
    z_obs = z + (1 + z) * v_los / ref.C_KMS
    np.testing.assert_allclose(cone.z_obs[order], z_obs[expected], rtol=1e-6)
    assert "groups on a light cone, scale factors 0.2" in cone.provenance
    notes = check(write(tmp_path / "box", groups(), more={"GroupAscale": np.full(7, SCALE)}))
    assert "peculiar velocity = stored number x a^-1" in notes


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"BoxSize": None}, "lacks BoxSize"),
        ({"BoxSize": -1.0}, "lacks BoxSize"),
        ({"Redshift": None}, "lacks Redshift"),
        ({"Redshift": -1.0}, "Redshift = -1"),
        ({"Redshift": "three"}, "lacks Redshift"),
        ({"HubbleParam": None}, "does not state HubbleParam"),
        ({"OmegaLambda": 0.8}, "must be flat"),
        ({"Ngroups_Total": 9}, r"7 groups in 1 chunk\(s\), its header says that there are 9"),
        ({"Ngroups_Total": 7.5}, "Ngroups_Total = 7.5"),
        ({"Ngroups_ThisFile": 6}, "must hold 6 numbers"),
        ({"Ngroups_Total": 9, "NumFiles": 3}, "there are 3 chunks, 1 are here"),
    ],
)
def test_bad_headers(tmp_path: Path, header: dict[str, Any], message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        read_halos(write(tmp_path / "a", groups(), header=header))


@pytest.mark.parametrize("units", [(-1.0, 2e43), (3e21, -2e43)])
def test_negative_units(tmp_path: Path, units: tuple[float, float]) -> None:
    with pytest.raises(CatalogError, match="its units are"):
        read_halos(write(tmp_path / "a", groups(), units=units))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"GroupMass": None}, "no dataset Group/GroupMass"),
        ({"GroupPos": None}, "no dataset Group/GroupPos"),
        ({"GroupPos": np.ones((7, 2))}, "must hold 7 x 3 numbers, its shape is"),
        ({"GroupVel": np.ones(7)}, "must hold 7 x 3 numbers"),
        ({"GroupMass": np.full(7, np.nan)}, "mass_Msun = nan at row 0"),
        ({"GroupMass": np.full(7, -1.0)}, "masses must be positive"),
        ({"GroupMass": np.zeros(7)}, "holds no halo"),
        ({"GroupMass": np.array([b"heavy"] * 7)}, "must hold 7 numbers"),
    ],
)
def test_bad_datasets(tmp_path: Path, more: dict[str, Any], message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        read_halos(write(tmp_path / "a", groups(), more=more))


def test_chunks_that_are_not_there(tmp_path: Path) -> None:
    first = write(tmp_path / "a", groups(), sizes=(3, 1, 3))
    (tmp_path / "a.1.hdf5").rename(tmp_path / "b")
    for path in (first, tmp_path, tmp_path / "a.*.hdf5", tmp_path / "a.2.hdf5"):
        with pytest.raises(CatalogError, match=r"the chunk a\.1\.hdf5 is missing, 2 others"):
            read_halos(path)
    (tmp_path / "b").rename(tmp_path / "a.1.hdf5")
    (tmp_path / "a.2.hdf5").rename(tmp_path / "b")
    with pytest.raises(CatalogError, match="there are 3 chunks, 2 are here"):
        read_halos(first)
    (tmp_path / "b").rename(tmp_path / "other.hdf5")
    with pytest.raises(CatalogError, match="there are 3 chunks, 1 are here"):
        read_halos(tmp_path / "other.hdf5")
    (tmp_path / "other.hdf5").rename(tmp_path / "a.2.hdf5")
    read_halos(first)
    (tmp_path / "a.2.hdf5").write_bytes((tmp_path / "a.2.hdf5").read_bytes()[:900])
    with pytest.raises(CatalogError, match=r"a\.2\.hdf5: not a file of groups, or a damaged one"):
        read_halos(first)
    write(tmp_path / "c", groups(), sizes=(3, 4))
    with pytest.raises(CatalogError, match="chunks of several sets, a, c: name a file of one"):
        read_halos(tmp_path)
    write(tmp_path / "d", groups(), sizes=(3, 4))
    write(tmp_path / "e", groups(8), sizes=(3, 5))
    (tmp_path / "e.1.hdf5").rename(tmp_path / "d.1.hdf5")
    with pytest.raises(CatalogError, match="it is of a set with 8 groups, not 7"):
        read_halos(tmp_path / "d.0.hdf5")
