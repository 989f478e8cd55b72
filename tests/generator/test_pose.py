"""Grid, poses and tiles against closed forms and against the reference's trigonometry."""

from __future__ import annotations

import numpy as np
import pytest
from support import reference as ref
from support import small

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.rows import tile_shape as shape_of_tiles
from streamtrain.cosmology import Cosmology
from streamtrain.generator.paint import paint
from streamtrain.generator.pose import Pose, Roll, check_fits, draw_poses, single_pose, tile_columns
from streamtrain.grid import K_JY, K_UK, Grid
from streamtrain.numerics.rng import STAGE_POSE, Draws


def one_colour(mass_Msun: object, z: object) -> float:
    """Every halo shines alike."""
    return 1e6


def halo_at(ra: float, dec: float, z: float = 2.8) -> Lightcone:
    """One halo; the footprint is 2 deg wide."""
    x, y, depth = ref.position(ra, dec, float(Cosmology().comoving_distance(z)))
    return Lightcone.from_arrays(
        [x], [y], [depth], [1e12], [z],
        cosmology=Cosmology().to_dict(), footprint_deg=(-1, 1, -1, 1), min_mass_Msun=2.5e10,
    )  # fmt: skip


GRID = Grid(fov_deg=(1.0, 0.5), shape=(4, 5, 10))
"""Pixels of 0.1 deg."""


def lit_voxel(ra: float, dec: float, **pose: object) -> tuple[int, ...]:
    cube, _ = paint(halo_at(ra, dec), GRID, one_colour, scatter=False, allow_empty=True, **pose)
    (where,) = np.argwhere(cube.numpy() > 0)
    return tuple(int(n) for n in where)


# Grid.


def test_frequency_falls_along_the_first_axis() -> None:
    grid = Grid(shape=(4, 2, 2), nu_GHz=(34.0, 26.0))
    np.testing.assert_array_equal(grid.edges[0], [34, 32, 30, 28, 26])
    nu = np.array([34.0, 33.0, 32.0, 31.99, 26.0, 25.99, 34.01])
    expected = [0, 0, 0, 1, 3, -1, -1]  # half-open in increasing frequency, closed at the top
    channel = Grid(shape=(4, 2, 2), nu_GHz=(34.0, 26.0), nu_rest_GHz=64.0).channel(64 / nu - 1)
    assert channel.tolist() == expected
    assert channel.dtype == np.int16
    assert grid.z_range == pytest.approx((115.27 / 34 - 1, 115.27 / 26 - 1))


def test_edges_are_the_reference() -> None:
    grid = Grid(fov_deg=(1.4, 0.9), shape=(7, 11, 13), nu_GHz=(33.0, 27.0))
    for ours, expected in zip(
        grid.edges, ref.edges(grid.fov_deg, grid.shape, grid.nu_GHz), strict=True
    ):
        np.testing.assert_array_equal(ours, expected)
    z = np.random.default_rng(1).uniform(2.2, 3.6, 5000)
    upward = ref.bin_number(115.27 / (1 + z), grid.edges[0][::-1])
    np.testing.assert_array_equal(grid.channel(z), np.where(upward < 0, -1, 6 - upward))


def test_constants() -> None:
    assert pytest.approx(ref.K_T, rel=5e-8) == K_UK
    assert pytest.approx(ref.K_JY, rel=5e-8) == K_JY


@pytest.mark.parametrize("units", ["uK", "Jy/sr"])
def test_fixed_point_scale(units: str) -> None:
    """1e9 Lsun at the near edge fill between 2^39 and 2^40."""
    for grid in (Grid(units=units), Grid((0.5, 0.5), (10, 64, 64), (33.0, 30.0), 230.538, units)):
        z = grid.z_range[0]
        brightest = ref.surface_brightness(
            1e9, ref.comoving_distance(z), z, nu_rest_GHz=grid.nu_rest_GHz,
            dnu_GHz=grid.dnu_GHz, omega_sr=grid.pixel_sr, units=units,
        )  # fmt: skip
        assert 39 < np.log2(float(brightest)) + grid.fixed_point_exponent <= 40


# Pose.


def test_rotation_is_that_of_the_reference() -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        centre, roll = tuple(rng.uniform(-30, 30, 2)), rng.uniform(-400, 400)
        mirror = bool(rng.integers(2))
        found = single_pose(centre, roll, mirror).matrix[0]
        np.testing.assert_allclose(found, ref.rotation(centre, roll, mirror), atol=2e-15)


def test_centre_goes_to_the_line_of_sight() -> None:
    for centre in [(0.0, 0.0), (3.0, -2.0), (-11.0, 14.0)]:
        for roll in (0.0, 90.0, 217.0):
            turned = single_pose(centre, roll).matrix[0] @ np.array(ref.position(*centre, 1.0))
            np.testing.assert_allclose(turned, [0, 0, 1], atol=1e-15)
    np.testing.assert_array_equal(single_pose().matrix[0], np.eye(3))
    np.testing.assert_array_equal(
        single_pose(roll_deg=90.0).matrix[0], [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    )


def test_unit_label_at_a_known_place() -> None:
    """At ra 0.17, dec -0.08 deg, 30.33 GHz: column 6.7, row 1.7, channel (34 - 30.33) / 2 = 1.8."""
    assert lit_voxel(0.17, -0.08) == (1, 1, 6)
    assert lit_voxel(0.17, -0.08, centre_deg=(0.17, -0.08)) == (1, 2, 5)  # edges are half-open
    assert lit_voxel(0.17, -0.08, centre_deg=(0.5, 0.1)) == (1, 0, 1)
    assert lit_voxel(0.17, -0.08, mirror=True) == (1, 1, 3)
    # a roll by +90 deg turns +x to +y: (ra, dec) = (-x, y) -> dec' = -ra, ra' = dec
    assert lit_voxel(0.17, -0.08, roll_deg=90.0) == (1, 0, 4)
    assert lit_voxel(0.17, -0.08, roll_deg=90.0, mirror=True) == (1, 0, 5)
    assert lit_voxel(0.17, -0.08, roll_deg=180.0) == (1, 3, 3)


def test_field_is_closed_at_its_border() -> None:
    """A hair inside each corner is in the corner voxel, a hair outside is nowhere."""
    for ra, column in ((-0.5, 0), (0.5, 9)):
        for dec, row in ((-0.25, 0), (0.25, 4)):
            assert lit_voxel(ra * 0.9999, dec * 0.9999) == (1, row, column)
            for outside in ((ra * 1.0001, dec * 0.9999), (ra * 0.9999, dec * 1.0001)):
                with pytest.raises(ValueError, match="no halo"):
                    lit_voxel(*outside)


@pytest.mark.parametrize("axis", ["ra", "dec"])
def test_halo_exactly_on_the_upper_border_is_in_the_last_pixel(axis: str) -> None:
    sky = halo_at(0.27, 0.27)
    ra, dec, _ = ref.sky(sky.x_Mpc, sky.y_Mpc, sky.z_Mpc)
    border = float(np.radians(ra if axis == "ra" else dec)[0])
    found = set()
    for half in border * (1 + np.arange(-8, 9) * 2.0**-53):  # one is the kernel's ra or dec
        side = 360 / np.pi * half
        grid = {"ra": Grid((side, 1.0), (1, 1, 5)), "dec": Grid((1.0, side), (1, 5, 1))}[axis]
        try:
            cube, _ = paint(sky, grid, one_colour, scatter=False, allow_empty=True)
        except ValueError:
            continue
        found.add(int(np.flatnonzero(cube)[0]))
    assert found == {4}


def test_directions_behind_the_observer_are_outside() -> None:
    with pytest.raises(ValueError, match="no halo"):
        lit_voxel(0.0, 0.0, centre_deg=(180.0, 0.0))


def test_wide_fields_need_no_approximation() -> None:
    """Polynomials for asin and atan: no halo of a field of 20 deg lies in a wrong pixel."""
    rng = np.random.default_rng(3)
    ra, dec = rng.uniform(-9.99, 9.99, (2, 20_000))
    chi = np.full(20_000, float(Cosmology().comoving_distance(2.8)))
    sky = Lightcone.from_arrays(
        *ref.position(ra, dec, chi), np.full(20_000, 1e12), np.full(20_000, 2.8),
        cosmology=Cosmology().to_dict(), min_mass_Msun=2.5e10,
    )  # fmt: skip
    grid = Grid((20.0, 20.0), (1, 500, 500))
    cube, _ = paint(sky, grid, one_colour, scatter=False, allow_empty=True)
    ra, dec, _ = ref.sky(sky.x_Mpc, sky.y_Mpc, sky.z_Mpc)
    expected = np.zeros((500, 500), int)
    np.add.at(expected, (ref.bin_number(dec, grid.edges[1]), ref.bin_number(ra, grid.edges[2])), 1)
    count = cube[0].numpy() / cube[0].numpy()[expected == 1].mean()
    np.testing.assert_allclose(count, expected, rtol=1e-4)


# Where fields may lie.


ROLLS: list[Roll] = ["any", "quarter", "none"]


def many_poses(roll: Roll, fov: tuple[float, float], footprint: tuple[float, ...]) -> Pose:
    draws = Draws(5, "train", np.arange(4000, dtype=np.uint64), STAGE_POSE)
    return draw_poses(draws, np.array([footprint] * 4000), fov, roll, mirror=True)


@pytest.mark.parametrize("roll", ROLLS)
def test_drawn_fields_are_complete(roll: Roll) -> None:
    """The border of every field lies inside the footprint, also far from the equator."""
    for footprint in ((-1.2, 1.3, -1.0, 1.5), (-12.0, -9.5, 8.0, 10.3)):
        fov = (1.4, 0.9)
        pose = many_poses(roll, fov, footprint)
        t = np.linspace(-0.5, 0.5, 33)
        border_ra = fov[0] * np.concatenate([t, t, 0 * t - 0.5, 0 * t + 0.5])
        border_dec = fov[1] * np.concatenate([0 * t - 0.5, 0 * t + 0.5, t, t])
        directions = np.stack(ref.position(border_ra, border_dec, 1.0))
        ra, dec, _ = ref.sky(*np.einsum("bji,jp->ibp", pose.matrix, directions))
        margin = 2e-3
        assert ra.min() > footprint[0] - margin
        assert ra.max() < footprint[1] + margin
        assert dec.min() > footprint[2] - margin
        assert dec.max() < footprint[3] + margin
        if roll == "none":  # and the fields use the footprint to its edges
            assert ra.min() < footprint[0] + 0.02
            assert dec.max() > footprint[3] - 0.02


def test_distribution_of_poses() -> None:
    pose = many_poses("any", (1.0, 1.0), (-2.0, 2.0, -2.0, 2.0))
    assert pose.roll_deg.min() >= 0
    assert pose.roll_deg.max() < 360
    error = 5 / np.sqrt(4000)
    assert pose.mirror.mean() == pytest.approx(0.5, abs=0.5 * error)
    assert pose.roll_deg.mean() == pytest.approx(180, abs=104 * error)
    np.testing.assert_allclose(pose.centre_deg.mean(axis=0), [0, 0], atol=error)
    drawn = np.array([*pose.centre_deg.T, pose.roll_deg, pose.mirror])
    assert np.abs(np.corrcoef(drawn) - np.eye(4)).max() < error
    quarter = many_poses("quarter", (1.0, 1.0), (-2.0, 2.0, -2.0, 2.0))
    angles, counts = np.unique(quarter.roll_deg, return_counts=True)
    assert angles.tolist() == [0, 90, 180, 270]
    assert np.abs(counts / 1000 - 1).max() < 5 * np.sqrt(0.75 / 1000)
    assert not many_poses("none", (1.0, 1.0), (-2.0, 2.0, -2.0, 2.0)).roll_deg.any()


def test_check_fits_gives_both_sizes() -> None:
    square = (-0.95, 0.95, -0.95, 0.95)
    check_fits(square, (1.3, 1.3), "any", "sky")
    check_fits(square, (1.4, 1.4), "quarter", "sky")
    check_fits((-0.71, 0.71, -0.46, 0.46), (1.4, 0.9), "none", "sky")
    with pytest.raises(ValueError, match="needs") as refusal:
        check_fits(square, (1.4, 1.4), "any", "sky.h5")
    assert str(refusal.value) == (
        "a field of 1.4 x 1.4 deg with roll 'any' needs 1.98 x 1.98 deg, but the footprint of "
        "sky.h5 is 1.9 x 1.9 deg: use a smaller field, a wider lightcone or data.roll=quarter"
    )
    with pytest.raises(ValueError, match=r"needs 1\.4 x 1\.4 deg.* is 1\.42 x 0\.92 deg"):
        check_fits((-0.71, 0.71, -0.46, 0.46), (1.4, 0.9), "quarter", "sky")
    with pytest.raises(ValueError, match=r"needs 1\.4 x 0\.9 deg"):
        check_fits((-0.71, 0.71, -0.44, 0.44), (1.4, 0.9), "none", "sky")


# Tiles.


@pytest.mark.parametrize("tile", [0.1, 0.05])
@pytest.mark.parametrize("roll", ROLLS)
def test_tiles_cover_every_halo_of_the_field(roll: Roll, tile: float) -> None:
    """Random fields of random footprints: a halo inside the field is in a tile that is visited."""
    rng = np.random.default_rng({"any": 1, "quarter": 2, "none": 3}[roll])
    for _ in range(40):
        corner = rng.uniform(-15, 12, 2)
        size = rng.uniform(0.4, 4, 2)
        footprint = (corner[0], corner[0] + size[0], corner[1], corner[1] + size[1])
        longest = size.min() / (1.5 if roll == "any" else 1.05)
        fov = tuple(longest * rng.uniform(0.1, 1, 2))
        draws = Draws(7, "train", np.arange(25, dtype=np.uint64), STAGE_POSE)
        pose = draw_poses(draws, np.array([footprint] * 25), fov, roll, True)
        shape = shape_of_tiles(footprint, tile)
        rows, columns = tile_columns(pose, fov, footprint, shape, tile)
        assert columns.shape == (*rows.shape, 2)
        assert len(rows) == 25
        assert rows.min() >= 0
        assert rows.max() < shape[0]
        assert columns.min() >= 0
        assert columns.max() <= shape[1]
        ra, dec = rng.uniform(footprint[0], footprint[1], 4000), rng.uniform(*footprint[2:], 4000)
        position = np.stack(ref.position(ra, dec, 1.0))
        row = np.clip(((dec - footprint[2]) / tile).astype(int), 0, shape[0] - 1)
        column = np.clip(((ra - footprint[0]) / tile).astype(int), 0, shape[1] - 1)
        for k in range(25):
            field_ra, field_dec, _ = ref.sky(*(pose.matrix[k] @ position))
            inside = (np.abs(field_ra) <= fov[0] / 2) & (np.abs(field_dec) <= fov[1] / 2)
            visits = np.zeros(shape, int)
            for place, (first, last) in zip(rows[k], columns[k], strict=True):
                visits[place, first:last] += 1
            assert visits.max() == 1
            assert np.all(visits[row, column][inside] == 1)


def test_tiles_are_few() -> None:
    """A field of a hundredth of the footprint visits little more than its own tiles."""
    footprint = (-5.0, 5.0, -5.0, 5.0)
    draws = Draws(7, "train", np.arange(50, dtype=np.uint64), STAGE_POSE)
    pose = draw_poses(draws, np.array([footprint] * 50), (1.0, 1.0), "any", True)
    shape = shape_of_tiles(footprint, 0.05)
    _, columns = tile_columns(pose, (1.0, 1.0), footprint, shape, 0.05)
    visited = (columns[..., 1] - columns[..., 0]).sum(axis=1)
    assert visited.max() < 1.25 * 400
    assert visited.min() >= 400


def test_a_field_that_hangs_over_the_edge_is_painted_where_there_are_halos() -> None:
    sky = small.lightcone()
    grid = Grid((0.8, 0.8), (3, 4, 4))
    options = {"scatter": False, "centre_deg": (0.6, 0.0)}
    cube, counts = paint(sky, grid, one_colour, allow_empty=True, **options)
    ra, dec, _ = ref.sky(*ref.pose(sky.x_Mpc, sky.y_Mpc, sky.z_Mpc, (0.6, 0.0)))
    inside = (np.abs(ra) <= 0.4) & (np.abs(dec) <= 0.4) & (grid.channel(sky.z_obs) >= 0)
    assert counts.sum() == np.count_nonzero(inside & (sky.mass_Msun > 2.5e10))
    assert np.all(cube.numpy()[:, :, 2:] == 0)


def test_volume_of_the_field_is_its_share_of_the_shell() -> None:
    grid = Grid(fov_deg=(10.0, 6.0), shape=(4, 8, 8), nu_GHz=(34.0, 26.0))
    chi = [ref.comoving_distance(z) for z in grid.z_range]
    shell = 4 * np.pi / 3 * (chi[1] ** 3 - chi[0] ** 3)
    share = (10 / 360) * (np.sin(np.radians(3.0)) - np.sin(np.radians(-3.0))) / 2
    assert grid.volume_Mpc3(0.286, 0.7) == pytest.approx(shell * share, rel=1e-5)
