"""Maps in files: the same numbers out of every layout, and a sentence for what is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from support import TESTS, limlam, small
from support import map_runs as runs

from streamtrain.maps.read import read_map
from streamtrain.maps.skymap import MapError, Units, parse_units, rayleigh_jeans_uK

CUBE = np.random.default_rng(3).normal(size=runs.SHAPE).astype(np.float32)


@pytest.mark.parametrize("name", runs.WRITERS)
def test_the_same_numbers_out_of_every_layout(tmp_path: Path, name: str) -> None:
    writer, told = runs.WRITERS[name]
    found = read_map(writer(tmp_path / name, CUBE), **told)
    assert found.cube.dtype.newbyteorder("=") == np.float32
    assert np.array_equal(found.cube, CUBE)
    expected = runs.edges()
    assert found.nu_GHz == pytest.approx((34.0, 26.0), rel=1e-9)
    for axis, edges in zip((found.freq, found.dec, found.ra), expected, strict=True):
        assert np.all(np.abs(axis.edges - edges) < 2e-5 * abs(edges[-1] - edges[0]))
    assert found.units == "uK"
    stated = 115.27 if name in ("map.fits", "map.h5") else None
    assert found.nu_rest_GHz == (None if stated is None else pytest.approx(stated))


def test_another_order_is_put_right_and_told(tmp_path: Path) -> None:
    nu, dec, ra = runs.edges()
    turned = {"map": CUBE[::-1, ::-1].copy(), "nu_edges_GHz": nu[::-1], "dec_edges_deg": dec[::-1]}
    found = read_map(runs.write_hdf5(tmp_path / "turned.h5", CUBE, **turned))
    assert np.array_equal(found.cube, CUBE)
    assert found.notes == ("its channels run from low to high frequency and were reversed",)
    assert np.array_equal(found.freq.edges, nu) and np.array_equal(found.ra.edges, ra)


@pytest.mark.parametrize("name", ["v2_padmanabhan_rect_intensity", "v3_breysse_offset"])
def test_maps_of_the_reference_cases(name: str) -> None:
    case = limlam.load(name)
    found = read_map(TESTS / "data" / f"{name}.npz", units="Jy/sr")
    assert np.array_equal(found.cube, case.map("map"))
    grid = case.grid()
    assert found.nu_GHz == pytest.approx(grid["nu_GHz"])
    assert (found.ra.width, found.dec.width) == pytest.approx(grid["fov_deg"])


def test_a_turned_map_keeps_its_size(tmp_path: Path) -> None:
    """Its pixels are 2 arcmin in ra and 2.1 in dec before the rotation shears them."""
    cosine, sine = np.cos(0.3), np.sin(0.3)
    turn = {"PC1_1": cosine, "PC1_2": -sine, "PC2_1": sine, "PC2_2": cosine}
    found = read_map(runs.write_fits(tmp_path / "turned.fits", CUBE, **turn))
    side = np.array([runs.FOV_DEG[0] / 24, runs.FOV_DEG[1] / 20])
    width, height = (np.hypot(*(side * c)) for c in ((cosine, sine), (sine, cosine)))
    assert (found.ra.width, found.dec.width) == pytest.approx((24 * width, 20 * height), rel=1e-4)
    angle = np.degrees(np.arctan2(side[1] * sine, side[0] * cosine))
    assert f"turned by {-angle:.1f} deg" in found.notes[-1]


def test_a_stokes_axis(tmp_path: Path) -> None:
    fits = pytest.importorskip("astropy.io.fits")

    with fits.open(runs.write_fits(tmp_path / "plain.fits", CUBE)) as units:
        units[0].data = units[0].data[None]
        units[0].header["CTYPE4"] = "STOKES"
        units.writeto(tmp_path / "stokes.fits")
    assert np.array_equal(read_map(tmp_path / "stokes.fits").cube, CUBE)


def test_where_a_point_of_the_sky_lies(tmp_path: Path) -> None:
    """Half a pixel off the middle in ra and dec, in each kind of coordinates."""
    maps = read_map(runs.write_fits(tmp_path / "m.fits", CUBE))
    assert maps.locate is not None
    assert maps.locate(150.0, 52.0) == pytest.approx((0.0, 0.0), abs=1e-9)
    east, north = maps.locate(150.0 + 0.1 / np.cos(np.radians(52.0)), 52.1)
    assert (east, north) == pytest.approx((0.1, 0.1), rel=4e-3)
    comap = read_map(runs.write_comap(tmp_path / "c.h5", CUBE), units="K")
    assert comap.locate is not None
    assert comap.locate(170.0 + 0.1 / np.cos(np.radians(52.5)), 52.4) == pytest.approx((0.1, -0.1))


@pytest.mark.parametrize(
    ("text", "kind", "factor"),
    [
        ("uK", "uK", 1.0), ("\u00b5K", "uK", 1.0), ("mK", "uK", 1e3), ("K", "uK", 1e6),
        ("Jy/sr", "Jy/sr", 1.0), ("Jy sr-1", "Jy/sr", 1.0), ("MJy sr^-1", "Jy/sr", 1e6),
        ("kJy/sr", "Jy/sr", 1e3), ("Jy.sr**-1", "Jy/sr", 1.0), ("muK", "uK", 1.0),
        ("MJy sr^{-1}", "Jy/sr", 1e6),
    ],
)  # fmt: skip
def test_units(text: str, kind: str, factor: float) -> None:
    found = parse_units(text, "here")
    assert found == Units(kind, pytest.approx(factor))


def test_units_against_astropy() -> None:
    u = pytest.importorskip("astropy.units")

    nu = np.array([26.0, 34.0])
    expected = (1.0 * u.Jy / u.sr).to(u.uK, u.brightness_temperature(nu * u.GHz))
    assert rayleigh_jeans_uK(nu) == pytest.approx(expected.value, rel=1e-6)


def told_of(units: str) -> str:
    """What is said, in parentheses, of units that no map can have."""
    with pytest.raises(MapError, match="none of uK, mK, K, Jy/sr, kJy/sr, MJy/sr") as refused:
        parse_units(units, "here")
    return str(refused.value).partition(" (")[2].removesuffix(")")


@pytest.mark.parametrize("units", ["K_CMB", "uK CMB", "K (thermodynamic)"])
def test_a_thermodynamic_temperature_is_told_its_conversion(units: str) -> None:
    """The sentence is that of astropy, of the CMB's temperature today."""
    u = pytest.importorskip("astropy.units")
    told = told_of(units)
    assert "which at nu is x^2 e^x / (e^x - 1)^2 of it" in told
    at = float(told.split("x = nu / ")[1].split()[0])
    for nu in (30.0, 250.0, 420.0):
        given = 1.0 * u.K
        intensity = given.to(u.Jy / u.sr, u.thermodynamic_temperature(nu * u.GHz, 2.7255 * u.K))
        brightness = intensity.to(u.K, u.brightness_temperature(nu * u.GHz)).value
        x = nu / at
        assert x**2 * np.exp(x) / np.expm1(x) ** 2 == pytest.approx(brightness, rel=2e-3)


@pytest.mark.parametrize("units", ["nW m-2 sr-1", "W/m^2/sr", "nW m**-2 sr**-1"])
def test_nu_times_an_intensity_is_told_its_conversion(units: str) -> None:
    u = pytest.importorskip("astropy.units")
    told = told_of(units)
    assert told.endswith("1 nW m-2 sr-1 is 1e8 / (nu / GHz) Jy/sr")
    found = (1e-9 * u.W / u.m**2 / u.sr / (250.0 * u.GHz)).to(u.Jy / u.sr).value
    assert found == pytest.approx(1e8 / 250.0, rel=1e-9)
    assert told_of("W m-2 Hz-1 sr-1") == "" and told_of("km/s") == ""


def test_a_map_per_beam_is_told_its_conversion() -> None:
    """The numbers of the sentence are those of a Gaussian beam of 4 x 5 arcmin in astropy."""
    u = pytest.importorskip("astropy.units")
    sentence = r"none of .* \(Jy/beam over .* (1\.133) x BMAJ x BMIN .* = (8\.46e-8) sr, is Jy/sr"
    with pytest.raises(MapError, match=sentence) as caught:
        parse_units("Jy/beam", "here")
    factor, arcmin2 = map(float, re.search(sentence, str(caught.value)).groups())  # type: ignore[union-attr]
    sigma = 1.0 / np.sqrt(8.0 * np.log(2.0))
    area = 2.0 * np.pi * (4.0 * u.arcmin * sigma) * (5.0 * u.arcmin * sigma)
    expected = (1.0 * u.Jy / u.beam).to(u.Jy / u.sr, u.beam_angular_area(area))
    assert 1.0 / (factor * 4.0 * 5.0 * arcmin2) == pytest.approx(expected.value, rel=1e-3)


def _cut(path: Path) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    return path


def _lightcone(path: Path) -> Path:
    small.lightcone(num=10).save(path)
    return path


def _text(path: Path) -> Path:
    path.write_text("no map at all")
    return path


def _two_axes(path: Path) -> Path:
    fits = pytest.importorskip("astropy.io.fits")

    fits.PrimaryHDU(np.zeros((4, 4), np.float32)).writeto(path)
    return path


def _pickle(path: Path) -> Path:
    np.savez(path, map_cube=np.array([{"a": 1}], object))
    return path


def _two_samples(path: Path) -> Path:
    runs.write_hdf5(path, CUBE, map=None, cube=np.stack([CUBE, CUBE]))
    with h5py.File(path, "a") as file:
        file["index"] = np.array([4, 9], np.uint64)
    return path


F, L, E, H = runs.write_fits, runs.write_limlam, runs.write_edges, runs.write_hdf5
ROLLED = CUBE.transpose(1, 2, 0)


@pytest.mark.parametrize(
    ("name", "write", "told", "sentence"),
    [
        ("a.fits", lambda p: F(p, CUBE, BUNIT=None), {}, "(FITS) does not say its units: give"),
        ("a.fits", lambda p: F(p, CUBE, BUNIT="Jy/beam"), {}, "the units 'Jy/beam' are none of uK"),
        ("a.fits", lambda p: F(p, CUBE), {"units": "furlong"}, "--units: the units 'furlong' are"),
        ("a.fits", lambda p: F(p, CUBE, CTYPE3="VRAD", CUNIT3="m/s"), {},
         "its axis 3 (VRAD) runs from -9881.71 to -12957.7 GHz"),
        ("a.fits", lambda p: F(p, CUBE, CTYPE3="VRAD", CUNIT3="m/s", RESTFRQ=None), {},
         "CTYPE3 = 'VRAD' cannot be turned into a frequency; it has no RESTFRQ"),
        ("a.fits", lambda p: F(p, CUBE, CTYPE3=None, CUNIT3=None), {},
         "has no frequency axis: its CTYPE are RA---TAN, DEC--TAN, -"),
        ("a.fits", lambda p: F(p, CUBE, CTYPE1=None, CTYPE2=None), {}, "has no ra axis: its CTYPE"),
        ("a.fits", lambda p: _cut(F(p, CUBE)), {}, "cannot be read, or is cut short: "),
        ("a.fits", _two_axes, {}, "holds no image of three axes or more"),
        ("a.fits", lambda p: F(p, CUBE), {"nu_rest_GHz": -1.0}, "--nu-rest-GHz -1 must be"),
        ("a.npz", lambda p: L(p, CUBE), {}, "(limlam_mocker npz) does not say its units"),
        ("a.npz", lambda p: L(p, CUBE, map_frequencies=None), {}, "says nothing of its geometry"),
        ("a.npz", lambda p: L(p, CUBE, map_cube=None), {}, "holds neither map_cube nor map, but"),
        ("a.npz", lambda p: L(p, CUBE, map_cube=ROLLED), {"units": "uK"},
         "map_cube has shape (20, 24, 3), but its axes [ra, dec, freq] have (24, 20, 3) voxels"),
        ("a.npz", lambda p: L(p, CUBE, pix_size_x=0.5), {},
         "npix_x * pix_size_x = 12 deg, but fov_x = 0.8 deg"),
        ("a.npz", lambda p: L(p, CUBE, map_frequencies=np.array([33.0, 30.0, 28.0])), {},
         "map_frequencies must have equal steps, but they are -3 to -2"),
        ("a.npz", lambda p: E(p, CUBE, pix_binedges_y=np.linspace(-1, 1, 25)), {},
         "map has shape (24, 20, 3), but its axes [ra, dec, freq] have (24, 24, 3)"),
        ("a.npz", lambda p: E(p, CUBE, map=CUBE.astype("U4")), {}, "map holds <U4, not numbers"),
        ("a.npz", lambda p: _cut(E(p, CUBE)), {}, "is no npz file, or is cut short"),
        ("a.npz", _pickle, {}, "cannot be read, or is cut short (Object arrays cannot be loaded"),
        ("a.h5", lambda p: H(p, CUBE, units=None), {}, "(HDF5) does not say its units"),
        ("a.h5", lambda p: H(p, CUBE, ra_edges_deg=None), {}, "has no dataset ra_edges_deg"),
        ("a.h5", lambda p: H(p, CUBE, map=ROLLED.copy()), {},
         "map has shape (20, 24, 3), but its axes [freq, dec, ra] have (3, 20, 24) voxels"),
        ("a.h5", lambda p: H(p, CUBE, map=None), {}, "holds none of map, cube and map_coadd, but"),
        ("a.h5", _lightcone, {},
         "is a lightcone of halos, not a map: `streamtrain export CONFIG --split test --samples 1"),
        ("a.h5", lambda p: _cut(H(p, CUBE)), {}, "cannot be read, or is cut short ("),
        ("a.h5", _two_samples, {}, "holds 2 samples: choose one with --index, such as 4"),
        ("a.h5", _two_samples, {"index": 5}, "has no sample 5, but 4..9"),
        ("a.h5", lambda p: H(p, CUBE), {"index": 5}, "holds one map: --index is of a file with"),
        ("a.txt", _text, {}, "is no map in FITS, npz or HDF5"),
        ("a.txt", lambda p: p, {}, "there is no map"),
    ],
)  # fmt: skip
def test_what_is_wrong_has_its_sentence(
    tmp_path: Path, name: str, write: Callable[[Path], Path], told: dict[str, Any], sentence: str
) -> None:
    path = write(tmp_path / name)
    with pytest.raises(MapError) as error:
        read_map(path, **told)
    text = str(error.value)
    assert sentence in text and "\n" not in text
    assert text.startswith("--") or str(path) in text
