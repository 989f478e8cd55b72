"""The lightcone object, its file and its checks."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from support import SHARED
from support import reference as ref

from streamtrain.catalogs.headers import CatalogError
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.readers import read_npz
from streamtrain.catalogs.rows import sky_angles_deg, tile_shape
from streamtrain.catalogs.synthesis.massfunction import mass_function
from streamtrain.cosmology import Cosmology

COSMOLOGY = Cosmology().to_dict()
FOOTPRINT = (-0.55, 0.45, -0.2, 0.37)


def halos(num: int = 3000, seed: int = 1) -> dict[str, Any]:
    """Keyword arguments of from_arrays: halos spread evenly over FOOTPRINT and z = 2.4..3.4."""
    rng = np.random.default_rng(seed)
    z = np.sort(rng.uniform(2.4, 3.4, num))
    rng.shuffle(z)
    nodes = np.linspace(2.3, 3.5, 200)
    chi = np.interp(z, nodes, [ref.comoving_distance(x) for x in nodes])
    ra, dec = rng.uniform(*FOOTPRINT[:2], num), rng.uniform(*FOOTPRINT[2:], num)
    x, y, depth = ref.position(ra, dec, chi)
    velocity = rng.normal(0.0, 200.0, (num, 3))
    return {
        "x_Mpc": x,
        "y_Mpc": y,
        "z_Mpc": depth,
        "mass_Msun": 10 ** rng.uniform(10.5, 13, num),
        "z_obs": z + (1 + z) * velocity[:, 2] / ref.C_KMS,
        "cosmology": COSMOLOGY,
        "velocities_kms": velocity,
        "columns": {"sfr": rng.uniform(0, 50, num), "age": rng.uniform(0, 2, num)},
        "provenance": "drawn by the tests",
        "footprint_deg": FOOTPRINT,
    }


def make(**changes: Any) -> Lightcone:
    return Lightcone.from_arrays(**(halos() | changes))


def arrays_of(lightcone: Lightcone) -> dict[str, Any]:
    names = ("x_Mpc", "y_Mpc", "z_Mpc", "mass_Msun", "z_obs", "velocities_kms", "tile_offsets")
    return {name: getattr(lightcone, name) for name in names} | lightcone.columns


def test_rows_are_sorted_by_tile_and_keep_their_order_within() -> None:
    given = halos()
    given["columns"] = {"row": np.arange(3000)}
    lightcone = Lightcone.from_arrays(**given, tile_deg=0.1)
    assert lightcone.tile_shape == (6, 10)
    assert lightcone.tile_deg == 0.1
    ra, dec, _ = ref.sky(lightcone.x_Mpc, lightcone.y_Mpc, lightcone.z_Mpc)
    row = lightcone.columns["row"].astype(int)
    offsets = lightcone.tile_offsets
    assert offsets[0] == 0
    assert offsets[-1] == len(lightcone) == 3000
    assert len(offsets) == 61
    for tile in range(60):
        part = slice(offsets[tile], offsets[tile + 1])
        low_dec, low_ra = FOOTPRINT[2] + 0.1 * (tile // 10), FOOTPRINT[0] + 0.1 * (tile % 10)
        assert np.all((ra[part] >= low_ra - 1e-9) & (ra[part] < low_ra + 0.1 + 1e-9))
        assert np.all((dec[part] >= low_dec - 1e-9) & (dec[part] < low_dec + 0.1 + 1e-9))
        assert np.all(np.diff(row[part]) > 0)
    np.testing.assert_array_equal(np.sort(row), np.arange(3000))
    for name in ("x_Mpc", "mass_Msun", "z_obs"):
        np.testing.assert_array_equal(getattr(lightcone, name), given[name][row].astype(np.float32))
    expected = given["velocities_kms"][row].astype(np.float32)
    np.testing.assert_array_equal(lightcone.velocities_kms, expected)


def test_arrays_are_read_only_contiguous_float32() -> None:
    for name, array in arrays_of(make()).items():
        assert array.dtype == (np.int64 if name == "tile_offsets" else np.float32)
        assert array.flags.c_contiguous
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_arrays_of_the_caller_stay_writable() -> None:
    given = {
        k: np.asarray(v, np.float32) for k, v in halos().items() if k.endswith(("Mpc", "Msun"))
    }
    make(**given)
    given["x_Mpc"][0] = 1.0


def test_defaults_come_from_the_halos() -> None:
    lightcone = make(footprint_deg=None, velocities_kms=None, columns=None)
    ra, dec = sky_angles_deg(lightcone.x_Mpc, lightcone.y_Mpc, lightcone.z_Mpc)
    assert lightcone.footprint_deg == (ra.min(), ra.max(), dec.min(), dec.max())
    assert lightcone.z_range == (lightcone.z_obs.min(), lightcone.z_obs.max())
    assert np.nextafter(np.float32(lightcone.min_mass_Msun), np.inf) == lightcone.mass_Msun.min()
    assert lightcone.min_mass_Msun < lightcone.mass_Msun.min()
    assert lightcone.realisation == f"sha256-{lightcone.digest[:16]}"
    assert lightcone.columns == {}
    assert lightcone.velocities_kms is None
    assert lightcone.path is None


def test_unit_label_is_a_lightcone() -> None:
    chi = ref.comoving_distance(3.0)
    lightcone = Lightcone.from_arrays([0], [0], [chi], [1e12], [3.0], cosmology=COSMOLOGY)
    assert lightcone.tile_shape == (1, 1)
    assert lightcone.tile_offsets.tolist() == [0, 1]
    assert lightcone.info()["warnings"] == []


def test_halos_on_the_far_edge_belong_to_the_last_tile() -> None:
    chi = ref.comoving_distance(3.0)
    x, y, z = ref.position([0.2, 0.2 + 4e-6, 0.0], [0.1, 0.1, 0.0], chi)
    lightcone = Lightcone.from_arrays(
        *(x, y, z, [1e12] * 3, [3.0] * 3),
        cosmology=COSMOLOGY,
        footprint_deg=(0.0, 0.2, 0.0, 0.1),
        tile_deg=0.1,
    )
    assert lightcone.tile_offsets.tolist() == [0, 1, 3]


def test_file_round_trip(tmp_path: Path) -> None:
    lightcone = make(realisation="sky 7", z_range=(2.4, 3.4), min_mass_Msun=3e10)
    lightcone.save(tmp_path / "a.h5")
    back = Lightcone.open(tmp_path / "a.h5")
    for name, array in arrays_of(lightcone).items():
        np.testing.assert_array_equal(arrays_of(back)[name], array)
        assert not arrays_of(back)[name].flags.writeable
    same = "cosmology footprint_deg z_range min_mass_Msun realisation provenance tile_shape digest"
    for name in same.split():
        assert getattr(back, name) == getattr(lightcone, name)
    assert back.path == tmp_path / "a.h5"
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]
    back.save(tmp_path / "b.h5")
    assert Lightcone.open(tmp_path / "b.h5").digest == lightcone.digest


def test_file_without_velocities_and_columns(tmp_path: Path) -> None:
    make(velocities_kms=None, columns=None).save(tmp_path / "a.h5")
    back = Lightcone.open(tmp_path / "a.h5")
    assert back.velocities_kms is None
    assert back.columns == {}


def test_digest_covers_content_only() -> None:
    digest = make().digest
    assert make(provenance="another", realisation="x", z_range=(2, 4)).digest == digest
    assert make(columns=dict(reversed(halos()["columns"].items()))).digest == digest
    mass = halos()["mass_Msun"].astype(np.float32)
    mass[17] = np.nextafter(mass[17], np.float32(np.inf))
    others = [
        make(mass_Msun=mass),
        make(velocities_kms=None),
        make(columns={}),
        make(columns={"sfr2": halos()["columns"]["sfr"], "age": halos()["columns"]["age"]}),
        make(cosmology=COSMOLOGY | {"sigma8": 0.81}),
        make(footprint_deg=(-0.55, 0.45, -0.2, 0.371)),
    ]
    assert len({digest, *(other.digest for other in others)}) == 7


@pytest.mark.parametrize(
    ("tile", "digest"),
    [
        (0.1, "ab43fddb51ffd7ff1390654b1a00e5add2f51f881465d0dd26c54a1f34f0310d"),
        (0.05, "f993012ccc460f38088c49c787c7d2dcc36368717a834208ff8a65a1c210b033"),
    ],
)
def test_digest_is_pinned(tile: float, digest: str) -> None:
    """The digest names lightcones in manifests: it must not change between releases."""
    x, y, z = ref.position(np.linspace(-0.5, 0.5, 11), np.full(11, 0.25), 6000.0)
    redshift = np.interp(6000.0, [ref.comoving_distance(a) for a in (2.59, 2.6)], [2.59, 2.6])
    x, y, z = (a.astype(np.float16).astype(np.float64) for a in (x, y, z))  # no last-bit question
    lightcone = Lightcone.from_arrays(
        *(x, y, z, [1e12] * 11, [np.float16(redshift)] * 11),
        cosmology=COSMOLOGY,
        footprint_deg=(-1, 1, 0, 1),
        tile_deg=tile,
    )
    assert lightcone.digest == digest


@pytest.mark.parametrize("tile", [0.1, 0.07])
def test_a_file_keeps_its_tiles(tmp_path: Path, tile: float) -> None:
    make(tile_deg=tile).save(tmp_path / "a.h5")
    back = Lightcone.open(tmp_path / "a.h5")
    assert back.tile_deg == tile
    assert back.tile_shape == tile_shape(back.footprint_deg, tile)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file.attrs["tile_deg"] = 0.02
        del file.attrs["seal"]
    with pytest.raises(CatalogError, match=r"entries, but \d+ x \d+ tiles of 0.02 deg cover"):
        Lightcone.open(tmp_path / "a.h5")
    with pytest.raises(CatalogError, match="tile_deg must be positive"):
        make(tile_deg=0.0)


def bad(name: str, row: int, value: float) -> dict[str, Any]:
    array = np.array(halos()[name])
    array[row] = value
    return {name: array}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (bad("x_Mpc", 5, np.nan), r"x_Mpc = nan at row 5"),
        (bad("y_Mpc", 6, -np.inf), r"y_Mpc = -inf at row 6"),
        (bad("mass_Msun", 7, -1e12), r"mass_Msun = -1e\+12 at row 7 .* positive"),
        (bad("mass_Msun", 8, 0.0), r"mass_Msun = 0 at row 8"),
        (bad("mass_Msun", 8, 1e300), r"mass = 1e.300 Msun at row 8, no halo's mass"),
        (bad("z_Mpc", 9, -5000.0), r"z_Mpc = -5000 at row 9 .* observer"),
        (bad("z_obs", 3, -1.0), r"z_obs = -1 at row 3 .* above -1"),
        (bad("velocities_kms", 4, np.nan), r"velocities_kms = nan at row 4"),
        ({"x_Mpc": np.zeros(7)}, r"x_Mpc has 7 halos, y_Mpc has shape \(3000,\)"),
        ({"mass_Msun": ["heavy"] * 3000}, r"mass_Msun must be numbers, not 'heavy'"),
        ({"velocities_kms": np.zeros((3, 3000))}, r"\(3000, 3\).*\(3, 3000\)"),
        ({"columns": {"sfr": np.zeros(5)}}, r"3000 halos, column 'sfr' has shape \(5,\)"),
        (
            {"columns": {"sfr": np.linspace(-0.3, 2.7, 3000)}},
            r"column 'sfr' = -0.3 at row 0 \(300 such values\): rates .* are they logarithms",
        ),
        ({"columns": {"sfr/old": np.zeros(3000)}}, r"'sfr/old' cannot name a column"),
        ({"columns": {"z_obs": np.zeros(3000)}}, r"'z_obs' cannot name a column"),
        ({"cosmology": COSMOLOGY | {"w0": -1.0}}, r"unknown \['w0'\]"),
        ({"cosmology": {"Omega_m": 0.3}}, r"missing \['Omega_b', 'h', 'n_s', 'sigma8'\]"),
        ({"cosmology": COSMOLOGY | {"h": 70.0}}, r"h = 70.0 must be"),
        ({"cosmology": COSMOLOGY | {"h": "0.7"}}, r"h = '0.7' must be a number"),
        ({"footprint_deg": (-0.5, 0.45, -0.2, 0.37)}, r"\d+ halos lie outside .* ra = -0.5"),
        ({"footprint_deg": (0.5, -0.5, -0.2, 0.37)}, r"footprint_deg must be"),
        ({"z_range": (3.0, 2.0)}, r"z_range must be .* got \(3.0, 2.0\)"),
        ({"min_mass_Msun": 0.0}, r"min_mass_Msun must be positive"),
        ({"min_mass_Msun": 10.4}, r"min_mass_Msun = 10.4: .* perhaps a logarithm"),
    ],
)
def test_bad_input_is_one_sentence(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CatalogError, match=message) as caught:
        make(**changes)
    assert "\n" not in str(caught.value)


def test_no_halo() -> None:
    with pytest.raises(CatalogError, match="no halo"):
        Lightcone.from_arrays([], [], [], [], [], cosmology=COSMOLOGY)


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (0.7, "probably in Mpc/h"),
        (1 / 0.7, "divided by h once too often"),
        (1000.0, "probably in kpc instead"),
        (700.0, "probably in kpc/h"),
        (0.9, "another cosmology"),
    ],
)
def test_positions_in_another_unit(factor: float, message: str) -> None:
    scaled = {name: halos()[name] * factor for name in ("x_Mpc", "y_Mpc", "z_Mpc")}
    with pytest.raises(CatalogError, match=message):
        make(**scaled)


def test_another_cosmology_is_noticed() -> None:
    with pytest.raises(CatalogError, match="another cosmology"):
        make(cosmology=COSMOLOGY | {"Omega_m": 0.31})


def test_peculiar_velocities_are_no_inconsistency() -> None:
    make(z_obs=halos()["z_obs"] + 4 * 500.0 / ref.C_KMS)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.9999])
def test_truncated_file(tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.h5"
    make().save(path)
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(CatalogError, match=r"a\.h5: (truncated|not an HDF5)"):
        Lightcone.open(path)


def edit(path: Path, change: str) -> None:
    with h5py.File(path, "r+") as file:
        if change == "foreign":
            del file.attrs["format"]
        elif change == "version":
            file.attrs["format_version"] = 99
        elif change == "dataset":
            del file["halos/mass_Msun"]
        elif change == "attribute":
            del file.attrs["z_range"]
        elif change == "mass":
            file["halos/mass_Msun"][3] *= 1.01
        elif change == "nan":
            file["halos/mass_Msun"][3] = np.nan
        elif change == "cosmology":
            file["cosmology"].attrs["sigma8"] = 0.9
        elif change == "tiles":
            file["tile_offsets"][3] += 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("foreign", "not a streamtrain lightcone"),
        ("version", "format version 99, this streamtrain reads version 1"),
        ("dataset", "lacks 'halos/mass_Msun'"),
        ("attribute", "lacks the attribute 'z_range'"),
        ("mass", "damaged or edited"),
        ("nan", "mass_Msun = nan at row 3"),
        ("cosmology", "damaged or edited"),
        ("tiles", "damaged or edited"),
    ],
)
def test_edited_file(tmp_path: Path, change: str, message: str) -> None:
    make().save(tmp_path / "a.h5")
    edit(tmp_path / "a.h5", change)
    with pytest.raises(CatalogError, match=message) as caught:
        Lightcone.open(tmp_path / "a.h5")
    assert str(tmp_path / "a.h5") in str(caught.value)


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="no such file"):
        Lightcone.open(tmp_path / "none.h5")
    with pytest.raises(CatalogError, match="a folder, not a file"):
        Lightcone.open(tmp_path)
    (tmp_path / "text.h5").write_text("# x y z\n1 2 3\n")
    with pytest.raises(CatalogError, match="not an HDF5 file"):
        Lightcone.open(tmp_path / "text.h5")
    with pytest.raises(CatalogError, match="cannot be written"):
        make().save(tmp_path / "no_folder" / "a.h5")


def test_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.h5"
    old = make()
    old.save(path)

    def full_disk(self: Lightcone, file: h5py.File) -> None:
        file.create_dataset("half", data=self.x_Mpc)
        raise OSError("no space left")

    monkeypatch.setattr(Lightcone, "_to_file", full_disk)
    with pytest.raises(CatalogError, match="no space left"):
        make(footprint_deg=None).save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]
    assert Lightcone.open(path).digest == old.digest


def tinker_lightcone(
    min_mass: float = 2e11, z_range: tuple[float, float] = (2.4, 3.4)
) -> Lightcone:
    """One square degree of halos drawn from Tinker08."""
    rng = np.random.default_rng(5)
    model, tinker = Cosmology(), mass_function("tinker08")
    z_edges = np.linspace(*z_range, 41)
    z_mid = 0.5 * (z_edges[1:] + z_edges[:-1])
    log_edges = np.log10(min_mass) + np.linspace(0.0, 3.0, 301)
    log_mid = 0.5 * (log_edges[1:] + log_edges[:-1])
    density = tinker.dn_dlog10M(10**log_mid, z_mid[:, None], model) * np.diff(log_edges)
    volume = np.radians(1.0) ** 2 * np.diff(model.comoving_distance(z_edges) ** 3) / 3.0
    cell = np.repeat(np.arange(density.size), rng.poisson(density * volume[:, None]).ravel())
    num = len(cell)
    z = z_edges[cell // 300] + rng.uniform(0, np.diff(z_edges)[0], num)
    mass = 10 ** (log_edges[cell % 300] + rng.uniform(0, 0.01, num))
    ra, dec = rng.uniform(-0.5, 0.5, num), rng.uniform(-0.5, 0.5, num)
    positions = ref.position(ra, dec, model.comoving_distance(z))
    return Lightcone.from_arrays(
        *(*positions, mass, z),
        cosmology=COSMOLOGY,
        footprint_deg=(-0.5, 0.5, -0.5, 0.5),
        z_range=z_range,
        min_mass_Msun=min_mass,
    )


def with_masses_times(lightcone: Lightcone, factor: float) -> Lightcone:
    return replace(
        lightcone,
        mass_Msun=lightcone.mass_Msun * np.float32(factor),
        min_mass_Msun=lightcone.min_mass_Msun * factor,
    )


def test_density_of_tinker_halos() -> None:
    lightcone = tinker_lightcone()
    facts = lightcone.info()
    assert facts["warnings"] == []
    assert facts["num_halos"] == len(lightcone) > 20_000
    assert facts["area_deg2"] == pytest.approx(1.0, rel=2e-5)
    assert len(facts["density"]) >= 6
    for row in facts["density"]:
        assert row["halos"] == pytest.approx(row["expected"], abs=4.5 * row["expected"] ** 0.5)


@pytest.mark.parametrize(
    ("power", "message"), [(1, "masses in Msun/h taken"), (-1, "divided by h once too often")]
)
def test_masses_off_by_h(power: int, message: str) -> None:
    """The warning names the mistake and the factor that undoes it."""
    (warning,) = with_masses_times(tinker_lightcone(), 0.7**power).info()["warnings"]
    assert message in warning
    assert "h = 0.7" in warning
    found = float(warning.split("masses ")[-1].split(" times as large")[0])
    assert found == pytest.approx(0.7**-power, rel=0.04)


@pytest.mark.parametrize(
    ("mass", "name"), [(1.0, "positions in Mpc/h taken for Mpc"), (0.7, "masses in Msun/h and")]
)
@pytest.mark.parametrize(("lightest", "z_range"), [(2e11, (2.4, 3.4)), (3e10, (5.3, 6.3))])
def test_positions_off_by_h(
    mass: float, name: str, lightest: float, z_range: tuple[float, float]
) -> None:
    """Redshifts that are those of positions in Mpc/h: they fit them, and halos are too rare, far
    away those of 10^12 Msun by a factor of 1000; the warning has the true ones."""
    cone = tinker_lightcone(lightest, z_range)
    x, y, z = (getattr(cone, f"{axis}_Mpc").astype(float) * 0.7 for axis in "xyz")
    near = Cosmology().redshift(np.sqrt(x**2 + y**2 + z**2))
    wrong = Lightcone.from_arrays(
        x, y, z, cone.mass_Msun * mass, near, cosmology=cone.cosmology,
        min_mass_Msun=cone.min_mass_Msun * mass,
    )  # fmt: skip
    (warning,) = wrong.info()["warnings"]
    assert f"as expected of {name}" in warning and "(h = 0.7)" in warning
    low, high = re.findall(r"lie at z = ([\d.]+)\.\.([\d.]+)", warning)[0]
    assert (float(low), float(high)) == pytest.approx(cone.z_range, abs=0.05)


@pytest.mark.parametrize("side", [50.0, 500.0])
def test_box_repeats(side: float) -> None:
    """One square degree from z = 2.4 to 3.4 in boxes of two sizes."""
    assert tinker_lightcone().info()["box_repeats"] is None
    cone = replace(
        tinker_lightcone(), provenance=f"a run; from a periodic box of side {side:g} Mpc"
    )
    chi = Cosmology().comoving_distance([2.4, 3.4])
    volume = np.radians(1.0) * 2 * np.sin(np.radians(0.5)) * (chi[1] ** 3 - chi[0] ** 3) / 3
    facts = cone.info()
    assert facts["box_repeats"] == pytest.approx(volume / side**3)
    independent = min(1.0, side**3 / volume)
    assert facts["independent_area_deg2"] == pytest.approx(independent, rel=1e-4)
    text = cone.describe()
    assert ("deg^2 of independent sky" in text) == (side == 50.0)
    assert ("none: " in text) == (side == 500.0)


def test_footprint_too_large_is_no_unit() -> None:
    """A tenth of the stated area: a warning, but not about h."""
    wide = replace(tinker_lightcone(), footprint_deg=(-5.0, 5.0, -0.5, 0.5))
    (warning,) = wide.info()["warnings"]
    assert "no confusion of units" in warning


def test_circular_field_in_its_bounding_box_is_fine() -> None:
    wide = replace(tinker_lightcone(), footprint_deg=(-0.5, 0.5, -2 / np.pi, 2 / np.pi))
    assert wide.info()["warnings"] == []


def warnings_of(rows: NDArray[Any], **changed: Any) -> list[str]:
    """Of some halos of a lightcone."""
    cone = tinker_lightcone()
    names = ("x_Mpc", "y_Mpc", "z_Mpc", "mass_Msun", "z_obs")
    given: Any = {name: getattr(cone, name)[rows] for name in names} | changed
    told: list[str] = Lightcone.from_arrays(**given, cosmology=cone.cosmology).info()["warnings"]
    return told


def test_halos_that_are_there_twice() -> None:
    """Without a guess at h, which twice as many halos look like."""
    rows = np.arange(len(tinker_lightcone()))
    (warning,) = warnings_of(np.concatenate([rows, rows]))
    assert f"{len(rows)} of {2 * len(rows)} halos are there more than once" in warning
    (warning,) = warnings_of(np.append(rows, 5))
    assert f"1 of {len(rows) + 1} halos are there more than once" in warning


def test_a_footprint_with_a_corner_without_halos() -> None:
    cone = tinker_lightcone()
    angles = sky_angles_deg(cone.x_Mpc, cone.y_Mpc, cone.z_Mpc)
    (warning,) = warnings_of(np.flatnonzero((angles[0] < 0) | (angles[1] < 0)))
    share = re.match(r"(\d+) % of the footprint hold no halo", warning)
    assert share and float(share[1]) == pytest.approx(25, abs=3)


@pytest.mark.parametrize(
    ("claim", "message"),
    [({"z_range": (2.0, 4.0)}, "z_range = 2..4 does not fit its rows, which fill 2.4"),
     ({"min_mass_Msun": 1e9}, "min_mass_Msun = 1e.09 does not fit its rows: the lightest")],
)  # fmt: skip
def test_what_the_halos_do_not_fill(claim: dict[str, Any], message: str) -> None:
    """Without the guess that masses are in Msun/h, which fewer halos look like."""
    (warning,) = warnings_of(np.arange(len(tinker_lightcone())), **claim)
    assert re.match(message, warning)


@pytest.mark.parametrize(("step", "told"), [(1e-3, 0), (0.01, 1), (0.1, 1)])
def test_redshifts_of_a_few_shells(step: float, told: int) -> None:
    """Rounded to two decimals, or those of snapshots: a map of 31 MHz channels shows it."""
    z_obs = np.round(tinker_lightcone().z_obs.astype(float) / step) * step
    found = warnings_of(np.arange(len(z_obs)), z_obs=z_obs)
    assert [("different values only" in text) for text in found] == [True] * told


def test_describe() -> None:
    text = with_masses_times(tinker_lightcone(), 0.7).describe()
    for part in ("1 deg^2", "2.4..3.4", "Omega_m 0.286", "sha256-", "not stated", "WARNING: "):
        assert part in text


@pytest.mark.parametrize("name", ["pinocchio_A_m1e11", "pinocchio_A_m2.5e10"])
def test_pinocchio_density(name: str, shared_lightcones: Path) -> None:
    """A halo finder of another kind: 1.0 to 1.5 times Tinker08, and no warning."""
    lightcone = read_npz(shared_lightcones / f"{name}.npz")
    facts = lightcone.info()
    assert facts["warnings"] == []
    assert all(0.9 < row["ratio"] < 1.5 for row in facts["density"])
    (warning,) = with_masses_times(lightcone, 0.7).info()["warnings"]
    assert "masses in Msun/h taken" in warning
    (warning,) = with_masses_times(lightcone, 1 / 0.7).info()["warnings"]
    assert "divided by h" in warning


@pytest.fixture
def shared_lightcones() -> Path:
    folder = SHARED / "data" / "lightcones"
    if not folder.is_dir():
        pytest.skip(f"the PINOCCHIO lightcones are not in {folder}")
    return folder
