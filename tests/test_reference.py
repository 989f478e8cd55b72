"""The reference physics against limlam_mocker's own output (tests/data/README.md)."""

from __future__ import annotations

import numpy as np
import pytest
from support import reference as ref
from support.limlam import CARRIED, SHARED_ONLY, Case, load


@pytest.fixture(params=CARRIED + SHARED_ONLY)
def case(request: pytest.FixtureRequest) -> Case:
    return load(request.param)


def test_voxel_edges(case: Case) -> None:
    frequency, dec, ra = ref.edges(**case.grid())
    np.testing.assert_allclose(frequency, case.arrays["nu_binedges"], rtol=1e-15)
    np.testing.assert_allclose(ra, case.arrays["pix_binedges_x"], rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(dec, case.arrays["pix_binedges_y"], rtol=1e-14, atol=1e-15)


def test_luminosity(case: Case) -> None:
    """The oracle's `sfr` belongs to the float32 run, so Li+16 is compared with that one."""
    key, kept = ("Lco", "keep") if case.params["model"] == "Li" else ("Lco_f64", "keep_f64")
    luminosity = case.luminosity()[case.arrays[kept]]
    np.testing.assert_allclose(luminosity, case.arrays[key], rtol=1e-14)


def test_kept_halos(case: Case) -> None:
    """Mass cut strict, band and field closed."""
    x, y, z, mass, z_obs = case.halos()
    ra, dec, _ = ref.sky(x, y, z)
    voxel = ref.voxel_number(
        ra, dec, case.params["nu_rest"] / (1.0 + z_obs), ref.edges(**case.grid())
    )
    kept = (voxel >= 0) & (mass > case.params["min_mass"])
    np.testing.assert_array_equal(kept, case.arrays["keep_f64"])


def test_map(case: Case) -> None:
    cube, _ = case.paint(case.oracle_luminosity("Lco_f64"))
    truth = case.map("map_f64")
    np.testing.assert_array_equal(cube > 0, truth > 0)
    np.testing.assert_allclose(cube, truth, rtol=1e-14, atol=0.0)
    if case.params["model"] != "Li":
        np.testing.assert_allclose(case.paint(case.luminosity())[0], truth, rtol=2e-14, atol=0.0)


@pytest.mark.parametrize(
    "case", [c for c in CARRIED + SHARED_ONLY if c != "v6_edge_ties"], indirect=True
)
def test_map_of_single_precision_positions(case: Case) -> None:
    """limlam's production run: same voxels, up to its float32 arithmetic (ties in v6 differ)."""
    cube, _ = case.paint(case.luminosity())
    np.testing.assert_array_equal(cube > 0, case.map("map") > 0)
    np.testing.assert_allclose(cube, case.map("map"), rtol=1e-6)


def test_luminosity_function(case: Case) -> None:
    """Counts are those of the float32 run, exactly."""
    counts = ref.luminosity_counts(case.arrays["Lco"])
    np.testing.assert_array_equal(counts, case.arrays["lum_dN"])
    np.testing.assert_array_equal(ref.cumulative(counts), case.arrays["lum_Ngt"])
    np.testing.assert_allclose(ref.log10_label(counts), case.arrays["lum_log10dN"], rtol=1e-15)
    lower, upper = ref.LUMINOSITY_EDGES[:-1], ref.LUMINOSITY_EDGES[1:]
    np.testing.assert_allclose(np.sqrt(lower * upper), case.arrays["lum_centre"], rtol=1e-13)
    if case.name != "v6_edge_ties":
        np.testing.assert_array_equal(case.paint(case.luminosity())[1], counts)


@pytest.mark.parametrize("case", ["v1_li_square", "v3_breysse_offset"], indirect=True)
def test_pool_and_log_modulus(case: Case) -> None:
    side, depth = case.params["pool"]
    factors = (depth, side, side)
    pooled = ref.pool_sum(case.map("map"), factors)
    np.testing.assert_allclose(pooled, case.map("pooled"), rtol=2e-15)
    np.testing.assert_allclose(ref.log_modulus(pooled), case.map("logmod"), rtol=2e-15)
    mean = ref.pool_mean(case.map("map"), factors)
    np.testing.assert_allclose(mean * depth * side**2, pooled, rtol=1e-15)


def test_constants() -> None:
    """limlam's Jy/sr branch agrees with exact constants; its uK branch is 0.52 % high."""
    np.testing.assert_allclose(ref.K_T, 2.61715, atol=5e-6)
    np.testing.assert_allclose(ref.K_JY, ref.K_JY_LIMLAM, rtol=2e-5)
    np.testing.assert_allclose(ref.K_T_LIMLAM / ref.K_T, 1.0052, atol=1e-4)


def test_rotation() -> None:
    """The centre goes to +z, the roll turns +x towards +y, the mirror flips x."""
    centre = ref.position(3.0, -2.0, 5000.0)
    np.testing.assert_allclose(ref.pose(*centre, (3.0, -2.0), 40.0, True), (0, 0, 5000), atol=1e-9)
    np.testing.assert_allclose(ref.rotation(roll_deg=90.0) @ [1, 0, 0], [0, 1, 0], atol=1e-16)
    np.testing.assert_allclose(ref.rotation(mirror=True), np.diag([-1, 1, 1]))
    turn = ref.rotation((3.0, -2.0), 40.0)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-15)
    assert np.linalg.det(turn) == pytest.approx(1.0)
    # North of the centre stays north of it, at the same angle.
    north = ref.sky(*ref.pose(*ref.position(3.0, -1.5, 5000.0), (3.0, -2.0)))
    np.testing.assert_allclose(north, (0.0, 0.5, 5000.0), atol=1e-12)


def test_unit_label_in_closed_form() -> None:
    """1e6 Lsun at z = 2.8 in a voxel of 4 arcmin and 15.6 MHz."""
    chi, omega = ref.comoving_distance(2.8), np.radians(1 / 15) ** 2
    x, y, z = ref.position(0.01, -0.01, chi)
    cube, counts = ref.paint(
        [x], [y], [z], [1e12], [2.8], [1e6],
        fov_deg=(2 / 15, 2 / 15), shape=(2, 2, 2), nu_GHz=(30.3432, 30.312),
    )  # fmt: skip
    nu = 115.27 / 3.8 * 1e9
    distance = chi * 3.8 * ref.MPC_M
    intensity = 1e6 * ref.LSUN_W / (4 * np.pi * distance**2 * 15.6e6 * omega)
    expected = 1e6 * 299792458.0**2 * intensity / (2 * ref.K_BOLTZMANN * nu**2)
    assert cube[0, 0, 1] == pytest.approx(expected, rel=1e-9)
    assert cube.sum() == cube[0, 0, 1]
    assert counts.sum() == 1
    assert counts[np.searchsorted(ref.LUMINOSITY_EDGES, 1e6, side="right") - 1] == 1


@pytest.mark.parametrize("name", ["v1_li_square", "v5_li_co21_small"])
def test_sfr_fit(name: str) -> None:
    """The closed form against the table's values at the halos, below the table's highest mass."""
    case = load(name)
    kept = case.arrays["keep"]
    _, _, _, mass, z_obs = (a[kept] for a in case.halos())
    u = np.log10(1.0 + z_obs) - 0.5
    table_end = np.polyval([-0.4773078, -2.434461, -4.871748, 13.84657], u)  # log10 Msun
    error = np.log10(ref.sfr_fit(mass, z_obs) / case.arrays["sfr"])
    error = error[np.log10(mass) < table_end - 0.1]
    assert len(error) > 0.999 * len(mass)
    assert np.abs(error).max() < 0.036
    assert np.sqrt(np.mean(error**2)) < 0.012


def test_models_without_an_oracle() -> None:
    """Chung+22 is C / 2 at M*; a line scales with the cube of its frequency; SFR is continuous."""
    assert ref.chung22(10**12.3, 2.8) == pytest.approx(4.9e-5 * 10**10.63 / 2)
    twice = ref.chung22(1e12, 2.8, nu_rest_GHz=230.54) / ref.chung22(1e12, 2.8)
    assert twice == pytest.approx(8.0)
    mass = np.logspace(10.5, 13.5, 31)
    for z in (1.5, 1.7):
        below, above = ref.sfr_fit(mass, z - 1e-9), ref.sfr_fit(mass, z + 1e-9)
        np.testing.assert_allclose(below, above, rtol=1e-6)
