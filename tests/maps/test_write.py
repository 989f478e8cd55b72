"""A cube as a FITS file: astropy, our own reader and the field's own geometry agree where the
voxels are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import small

from streamtrain import Generator, Grid, Painter, load_config, paint, write_fits
from streamtrain.generator.pose import single_pose
from streamtrain.maps.read import read_map

fits = pytest.importorskip("astropy.io.fits", reason="needs astropy")
WCS = pytest.importorskip("astropy.wcs").WCS

GRID = Grid(fov_deg=(2.0, 1.5), shape=(5, 6, 8), nu_GHz=(34.0, 26.0))
CUBE = np.random.default_rng(3).normal(size=GRID.shape).astype(np.float32)
PLACES = [(0.0, 0.0), (200.0, -30.0), (359.9, 60.0), (0.3, 1e-9), (33.0, 85.0)]


def in_the_sky(grid: Grid, centre: Any, roll: float, mirror: bool) -> list[np.ndarray]:
    """(ra, dec, frequency) of every voxel's middle [n_freq, n_dec, n_ra], by the painter's own
    rotation."""
    middles = [0.5 * (edges[1:] + edges[:-1]) for edges in grid.edges]
    nu, dec, ra = np.meshgrid(*middles, indexing="ij")
    ra, dec = np.radians(ra), np.radians(dec)
    field = np.stack([-np.sin(ra) * np.cos(dec), np.sin(dec), np.cos(ra) * np.cos(dec)], -1)
    x, y, z = np.moveaxis(field @ single_pose(centre, roll, mirror).matrix[0], -1, 0)
    return [np.degrees(np.arctan2(-x, z)), np.degrees(np.arcsin(y)), nu]


@pytest.mark.parametrize("centre", PLACES)
@pytest.mark.parametrize("roll", [0.0, 30.0, 90.0, 180.0, -200.5])
@pytest.mark.parametrize("mirror", [False, True])
def test_voxels_lie_where_they_were_painted(
    centre: tuple[float, float], roll: float, mirror: bool, tmp_path: Path
) -> None:
    """To a millionth of a degree: an arcsine in double precision near a pole has no more."""
    file = write_fits(
        tmp_path / "a.fits", CUBE, GRID, centre_deg=centre, roll_deg=roll, mirror=mirror
    )
    header = fits.getheader(file)
    places = np.meshgrid(*map(np.arange, GRID.shape), indexing="ij")[::-1]
    ra, dec, hertz = WCS(header).wcs_pix2world(*(place.ravel() for place in places), 0)
    true_ra, true_dec, nu = (a.ravel() for a in in_the_sky(GRID, centre, roll, mirror))
    across = ((ra - true_ra + 180.0) % 360.0 - 180.0) * np.cos(np.radians(true_dec))
    assert np.abs(across).max() < 1e-6 and np.abs(dec - true_dec).max() < 1e-6
    np.testing.assert_allclose(hertz, 1e9 * nu, rtol=1e-12)


@pytest.mark.parametrize("centre", PLACES)
def test_our_reader_reads_it(centre: tuple[float, float], tmp_path: Path) -> None:
    """Cube, axes, units and line; pixels near a pole of the sky are as wide as all."""
    file = write_fits(tmp_path / "a.fits", CUBE, GRID, centre_deg=centre)
    read = read_map(file)
    assert np.array_equal(read.cube, CUBE) and read.units == "uK" and not read.notes
    assert read.nu_rest_GHz == pytest.approx(GRID.nu_rest_GHz, rel=1e-12)
    assert read.centre_deg == pytest.approx((centre[0] % 360.0, centre[1]), abs=1e-9)
    for axis, edges in zip((read.freq, read.dec, read.ra), GRID.edges, strict=True):
        np.testing.assert_allclose(axis.edges, edges, rtol=1e-9, atol=1e-9)


def test_our_reader_reads_a_field_that_is_turned(tmp_path: Path) -> None:
    file = write_fits(tmp_path / "a.fits", CUBE, GRID, centre_deg=(12.0, 40.0), roll_deg=30.0)
    read = read_map(file)
    assert np.array_equal(read.cube, CUBE)
    assert read.centre_deg == pytest.approx((12.0, 40.0), abs=1e-9)
    assert read.notes == ("it is turned by 30.0 deg against ra and dec, and used along its pixels",)
    mirrored = write_fits(tmp_path / "b.fits", CUBE, GRID, mirror=True)
    assert np.array_equal(read_map(mirrored).cube, CUBE[:, :, ::-1])


def test_the_header_says_what_the_map_is(tmp_path: Path) -> None:
    sky = small.lightcone()
    grid = Grid(fov_deg=(0.35, 0.35), shape=(4, 8, 8), units="Jy/sr")
    painted = paint(sky, grid, "li16", {"alpha": 1.3}, seed=7, min_mass_Msun=5e10)
    file = painted.write_fits(tmp_path / "new" / "map.fits")
    header = fits.getheader(file)
    assert np.array_equal(fits.getdata(file), painted.cube.numpy())
    assert header["BUNIT"] == "Jy/sr" and header["BTYPE"] == "Intensity"
    assert header["RESTFRQ"] == 1e9 * grid.nu_rest_GHz and header["CUNIT3"] == "Hz"
    said = dict(line.split(": ", 1) for line in str(header["COMMENT"]).splitlines() if ": " in line)
    assert said["model"] == "li16" and said["seed"] == "7" and said["lightcone"] == "small-1"
    lines = list(header["COMMENT"])
    told = " ".join(line.strip() for line in lines)
    words = {"alpha=1.3", "log10_delta_mf=0.0", "sigma_sfr=0.3", "sigma_lco=0.3"}
    assert all(any(word in line for line in lines) for word in words), told  # broken between words
    assert max(map(len, lines)) <= 72
    first = file.read_bytes()
    assert painted.write_fits(file, overwrite=True).read_bytes() == first, "no date is in it"
    with pytest.raises(ValueError, match="is there already: overwrite=True replaces it"):
        painted.write_fits(file)


def test_one_of_several_maps(tmp_path: Path) -> None:
    painter = Painter(small.lightcone(), GRID_OF_SKY, "li16", min_mass_Msun=5e10)
    painted = painter.paint([{"alpha": 1.2}, {"alpha": 1.4}], centre_deg=(0.1, -0.1), roll_deg=5.0)
    file = painted.write_fits(tmp_path / "map.fits", 1)
    assert np.array_equal(fits.getdata(file), painted.cube[1].numpy())
    assert "alpha=1.4" in str(fits.getheader(file)["COMMENT"])
    assert read_map(file).centre_deg == pytest.approx((0.1, 359.9 - 360.0), abs=1e-9)
    with pytest.raises(ValueError, match=r"number = 2 is outside 0\.\.1"):
        painted.write_fits(tmp_path / "other.fits", 2)


GRID_OF_SKY = Grid(fov_deg=(0.35, 0.35), shape=(4, 8, 8))


def test_a_sample_whose_voxels_were_joined(tmp_path: Path) -> None:
    """The axes are those of the cube, the ends those of the grid; without a unit there is none."""
    config = load_config("reference.yaml")
    cube = Generator(config, "test").generate([0]).cube[0]
    file = write_fits(tmp_path / "a.fits", cube, config.grid, units="")
    header, read = fits.getheader(file), read_map(file, need_units=False)
    assert "BUNIT" not in header and read.shape == (10, 16, 16) and read.units is None
    assert read.nu_GHz == pytest.approx(config.grid.nu_GHz, rel=1e-12)
    assert read.ra.width == pytest.approx(0.35, rel=1e-9)
    kelvin = write_fits(tmp_path / "b.fits", 1e-6 * cube.double(), config.grid, units="K")
    assert fits.getdata(kelvin).dtype == np.dtype(">f8")
    assert fits.getheader(kelvin)["BTYPE"] == "Brightness temperature"


def test_what_else_may_be_written(tmp_path: Path) -> None:
    """A unit of astropy is converted, what is masked has no value."""
    units = pytest.importorskip("astropy.units")
    file = write_fits(tmp_path / "a.fits", 1e-3 * CUBE * units.mK, GRID)
    np.testing.assert_allclose(fits.getdata(file), CUBE, rtol=1e-6)
    kelvin = write_fits(tmp_path / "k.fits", CUBE * units.uK, GRID, units="K")
    np.testing.assert_allclose(fits.getdata(kelvin), 1e-6 * CUBE, rtol=1e-6)
    masked = np.ma.masked_array(CUBE, CUBE > 1.0)
    found = fits.getdata(write_fits(tmp_path / "b.fits", masked, GRID))
    assert np.array_equal(np.isnan(found), CUBE > 1.0)
    whole = fits.getdata(write_fits(tmp_path / "c.fits", torch.ones(GRID.shape).int(), GRID))
    assert whole.dtype == np.dtype(">f4") and (whole == 1.0).all()


def test_a_field_beyond_a_pole_is_nowhere(tmp_path: Path) -> None:
    for dec in (95.0, -90.1):
        with pytest.raises(ValueError, match=r"centre_deg = .*: its dec lies beyond a pole"):
            write_fits(tmp_path / "a.fits", CUBE, GRID, centre_deg=(0.0, dec))
    assert not list(tmp_path.iterdir())
