"""One map written in hundreds of ways: always the numbers of the plain file, or a sentence."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from support import map_runs as runs

from streamtrain.config import ConfigError, from_mapping
from streamtrain.evaluate.inference.prepare import prepare
from streamtrain.maps.read import read_map
from streamtrain.maps.skymap import MapError
from streamtrain.operators.mask import Mask
from streamtrain.schema import AssumptionWarning

fits = pytest.importorskip("astropy.io.fits")
Cube = NDArray[Any]

CUBE = np.random.default_rng(8).integers(0, 100, runs.SHAPE).astype(np.float64)
"""Whole numbers from 0, so that every dtype and unit holds them."""
SQUARE = np.random.default_rng(9).integers(0, 100, (4, 16, 16)).astype(np.float64)
REST_HZ = 115.27e9
LIGHT = 299792458.0
SIZES = {"uK": 1.0, "mK": 1e-3, "K": 1e-6}
ZEROS = {"i1": (-128, "u1"), "u2": (2**15, "i2"), "u4": (2**31, "i4"), "u8": (2**63, "i8")}
"""BZERO of integers that FITS stores as others, and these."""


@dataclass
class Written:
    """A FITS cube: which physical axis each of its axes is, and what its numbers are."""

    order: tuple[str, ...] = ("ra", "dec", "nu")
    """From the first axis of the header on."""
    falls: tuple[bool, bool, bool] = (True, False, False)
    """ra, dec, nu: from the first pixel to the last."""
    dtype: str = "f4"
    unit: str = "uK"
    spectral: str = "FREQ"
    quarter: bool = False
    """Turned by a PC matrix: what the header calls ra runs along the other axis."""
    missing: bool = False
    cube: Cube = field(default_factory=lambda: CUBE)

    def write(self, path: Path) -> Cube:
        """Write the file and return what a reader should find, [freq, dec, ra] in uK."""
        lost = np.zeros(self.cube.shape, bool)
        lost[-1, 2, 3] = lost[0, -1, 5] = self.missing
        ra, dec, nu = (slice(None, None, -1 if falls else 1) for falls in self.falls)
        place = [("nu", "dec", "ra").index(name) for name in reversed(self.order)]
        stored, gone = (a[::-1][nu, dec, ra].transpose(place) for a in (self.cube, lost))
        size = SIZES[self.unit]
        header = self._axes() | {"BUNIT": self.unit, "RESTFRQ": REST_HZ}
        if self.dtype[0] == "f":
            image = fits.PrimaryHDU(np.where(gone, np.nan, stored * size).astype(self.dtype))
        else:  # physical value = BZERO + BSCALE * stored
            zero, kind = ZEROS.get(self.dtype, (0, self.dtype))
            values = [[int(v) - zero for v in row] for row in stored.reshape(len(stored), -1)]
            blank = np.iinfo(kind).max
            numbers = np.array(values, kind).reshape(stored.shape)
            image = fits.PrimaryHDU(np.where(gone, numbers.dtype.type(blank), numbers))
            shift = zero if size == 1.0 else zero * size
            header |= {"BZERO": shift, "BSCALE": size, "BLANK": int(blank)}
        image.writeto(path)
        with fits.open(path, mode="update", do_not_scale_image_data=True) as units:
            units[0].header.update(header)
        return np.where(lost, np.nan, self.cube)

    def _axes(self) -> dict[str, Any]:
        num = dict(zip(("nu", "dec", "ra"), self.cube.shape, strict=True))
        hertz = np.array([34e9, 26e9] if self.falls[2] else [26e9, 34e9])
        world = hertz if self.spectral == "FREQ" else LIGHT * (1.0 - hertz / REST_HZ)
        step = {
            "ra": runs.FOV_DEG[0] / num["ra"] * (-1 if self.falls[0] else 1),
            "dec": runs.FOV_DEG[1] / num["dec"] * (-1 if self.falls[1] else 1),
            "nu": (world[1] - world[0]) / num["nu"],
        }
        names = {"ra": "RA---TAN", "dec": "DEC--TAN", "nu": self.spectral}
        values = {"ra": 150.0, "dec": 52.0, "nu": world[0] + 0.5 * step["nu"]}
        unit = "Hz" if self.spectral == "FREQ" else "m/s"
        units = {"ra": "deg", "dec": "deg", "nu": unit}
        called = {"ra": "dec", "dec": "ra", "nu": "nu"} if self.quarter else {n: n for n in num}
        header: dict[str, Any] = {}
        for k, name in enumerate(self.order, 1):
            header |= {f"CTYPE{k}": names[called[name]], f"CRVAL{k}": values[called[name]]}
            header |= {f"CUNIT{k}": units[name], f"CDELT{k}": 1.0}
            header[f"CRPIX{k}"] = 1.0 if name == "nu" else (num[name] + 1) / 2
            header[f"PC{self.order.index(called[name]) + 1}_{k}"] = step[name]
            if self.quarter and name != "nu":
                header[f"PC{k}_{k}"] = 0.0
        return header


SIGNS = tuple(itertools.product((False, True), repeat=3))
ORDERS = tuple(itertools.permutations(("ra", "dec", "nu")))


def geometries() -> Iterator[Written]:
    """Every order and direction of the axes, square pixels or not, turned or not."""
    for order, falls, cube in itertools.product(ORDERS, SIGNS, (CUBE, SQUARE)):
        yield Written(order, falls, cube=cube)
    for order, falls in itertools.product(ORDERS, SIGNS):
        yield Written(order, falls, quarter=True)
        yield Written(order, falls, spectral="VRAD")


def numbers() -> Iterator[Written]:
    """Every dtype and unit, with and without voxels that have no value, in two orders."""
    kinds = ("f4", "f8", "u1", "i1", "i2", "i4", "i8", "u2", "u4", "u8")
    orders = (("ra", "dec", "nu"), ("dec", "nu", "ra"))
    for dtype, unit, missing, order in itertools.product(kinds, SIZES, (False, True), orders):
        if dtype != "u8" or unit == "uK":  # 2^63 in other units holds no fractions
            yield Written(order, dtype=dtype, unit=unit, missing=missing)


def check(variant: Written, path: Path) -> None:
    expected = variant.write(path)
    found = read_map(path)
    factor = 1.0 / SIZES[variant.unit]
    rtol = 0.0 if factor == 1.0 else 2e-7  # of float32
    largest = abs(ZEROS.get(variant.dtype, (0, ""))[0])
    atol = 0.0 if factor == 1.0 else 4.0 * largest * 2.0**-53
    np.testing.assert_allclose(found.cube * factor, expected, rtol=rtol, atol=atol)
    axes = zip((found.freq, found.dec, found.ra), runs.edges(variant.cube.shape), strict=True)
    for axis, edges in axes:
        assert np.abs(axis.edges - edges).max() < 2e-5 * abs(edges[-1] - edges[0])
    assert found.locate is not None
    east, north = found.locate(150.0 + 0.1 / np.cos(np.radians(52.0)), 52.05)
    assert (east, north) == pytest.approx((0.1, 0.05), rel=4e-3)


def test_fits_cubes_in_every_order_direction_dtype_and_unit(tmp_path: Path) -> None:
    variants = [*geometries(), *numbers()]
    assert len(variants) > 290
    for number, variant in enumerate(variants):
        try:
            check(variant, tmp_path / f"{number}.fits")
        except Exception as error:
            raise AssertionError(f"{variant}: {error}") from error


TEXTS: tuple[Any, ...] = ("mK", b"mK", np.array(["mK"], "S"), np.array("mK", "S"))
NUMBERS: tuple[Any, ...] = (115.27, np.array([115.27]), np.array(["115.27"], "S"), "115.27")
ROWS = ((-1,), (1, -1), (-1, 1))
"""Shapes of a list of edges, as C, Fortran and MATLAB write it."""


def write_npz(path: Path, cube: Cube, sides: list[Cube], number: int, turned: bool) -> None:
    names = ("nu_binedges", "pix_binedges_y", "pix_binedges_x")
    sides = [*sides[:2], sides[2] % 360.0]
    edges = {n: e.reshape(ROWS[number % 3]) for n, e in zip(names, sides, strict=True)}
    said = {"units": TEXTS[number % 4], "nu_rest": NUMBERS[number % 4]}
    np.savez(path, map=cube if turned else cube.transpose(), **edges, **said)


def write_hdf5(path: Path, cube: Cube, sides: list[Cube], number: int, turned: bool) -> None:
    names = ("nu_edges_GHz", "dec_edges_deg", "ra_edges_deg")
    with h5py.File(path, "w") as file:
        file["map"] = cube.transpose() if turned else cube
        for name, edges in zip(names, sides, strict=True):
            place = (edges + 360.0) % 360.0 if name == "ra_edges_deg" else edges
            file[name] = place.reshape(ROWS[number % 3])
        file.attrs["units"] = TEXTS[number % 4]
        file.attrs["nu_rest_GHz"] = NUMBERS[number % 4]


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4", "<f8", ">i2", "<i8"])
def test_arrays_in_every_order_direction_and_dtype(tmp_path: Path, dtype: str) -> None:
    """Also ra across 0, lists of shape (1, n) and (n, 1), text as bytes and in arrays."""
    writers = {"npz": write_npz, "h5": write_hdf5}
    variants = list(itertools.product(writers, SIGNS, (False, True)))
    for number, (kind, flips, turned) in enumerate(variants):
        steps = tuple(slice(None, None, -1 if flip else 1) for flip in flips)
        sides = [edges[step] for edges, step in zip(runs.edges(), steps, strict=True)]
        path = tmp_path / f"{number}.{kind}"
        writers[kind](path, CUBE.astype(dtype)[steps], sides, number, turned)
        found = read_map(path)
        where = f"{kind} {flips} {turned}"
        assert found.locate is not None
        for ra in (-0.1, 359.9):
            assert found.locate(ra, 0.2) == pytest.approx((-0.1, 0.2), abs=1e-9), where
        assert np.array_equal(found.cube, CUBE), where
        assert (found.units, found.nu_rest_GHz) == ("mK", 115.27), where
        assert ("were turned" in " ".join(found.notes)) == turned, where
        for axis, edges in zip((found.freq, found.dec, found.ra), runs.edges(), strict=True):
            assert np.abs(axis.edges - edges).max() < 1e-9, where


def test_matlab_says_that_axes_are_turned(tmp_path: Path) -> None:
    """Where the shape does not tell, its attribute does."""
    cube = np.random.default_rng(1).normal(size=(6, 6, 6)).astype(np.float32)
    path = runs.write_hdf5(tmp_path / "m.h5", cube)
    assert np.array_equal(read_map(path).cube, cube)
    with h5py.File(path, "a") as file:
        file["map"].attrs["MATLAB_class"] = np.bytes_("single")
    assert np.array_equal(read_map(path).cube, cube.transpose())


C = LIGHT / REST_HZ


@pytest.mark.parametrize(
    ("kind", "first", "step", "unit", "hertz"),
    [
        ("FREQ-LOG", 30e9, 1.5e9, "Hz", lambda p: 30e9 * np.exp(1.5e9 * p / 30e9)),
        ("WAVE", 0.009, 0.0009, "m", lambda p: LIGHT / (0.009 + 0.0009 * p)),
        ("WAVE-LOG", 0.009, 0.0009, "m", lambda p: LIGHT / (0.009 * np.exp(0.1 * p))),
        ("VOPT", 7e8, 9e7, "m/s", lambda p: LIGHT / (C * (1.0 + (7e8 + 9e7 * p) / LIGHT))),
        ("ZOPT", 2.4, 0.2, "", lambda p: REST_HZ / (3.4 + 0.2 * p)),
    ],
)
def test_channels_that_are_not_equal(
    kind: str, first: float, step: float, unit: str, hertz: Any, tmp_path: Path
) -> None:
    """Exact edges, for the axis is linear in another quantity (or its logarithm); such a map is
    regridded, or refused."""
    axis = {"CTYPE3": kind, "CRVAL3": first, "CDELT3": step, "CUNIT3": unit or None}
    path = runs.write_fits(tmp_path / "log.fits", CUBE, CRPIX3=1.0, **axis)
    found = read_map(path)
    edges = np.sort(hertz(np.arange(len(CUBE) + 1) - 0.5) / 1e9)[::-1]
    np.testing.assert_allclose(found.freq.edges, edges, rtol=1e-9)
    assert not found.freq.even
    rising = kind == "FREQ-LOG"
    stored = CUBE[::-1]  # in the order of the file
    assert np.array_equal(found.cube, stored[::-1] if rising else stored)
    middle = tuple(np.round(edges[[0, -1]] + [-0.4, 0.4], 1))
    grid = {"fov_deg": list(runs.FOV_DEG), "shape": [1, 20, 24], "nu_GHz": list(middle)}
    config = from_mapping({"grid": grid, "observe": {}})
    with pytest.raises(MapError, match=r"has channels of .* MHz, the network was trained on equal"):
        prepare(found, config)
    flat = replace(found, cube=np.broadcast_to([[[3.0]], [[5.0]], [[-4.0]]], CUBE.shape))
    seen = prepare(flat, config, regrid=True).cube[0].numpy()
    share = np.diff(np.clip(-edges, -middle[0], -middle[1]))
    np.testing.assert_allclose(seen, share @ [3.0, 5.0, -4.0] / share.sum(), rtol=1e-5)


def test_a_velocity_needs_the_line_that_it_is_of(tmp_path: Path) -> None:
    path = tmp_path / "velocity.fits"
    Written(spectral="VRAD").write(path)
    with fits.open(path, mode="update") as units:
        units[0].header["RESTFRQ"] = 115.27  # GHz in a keyword of Hz
    with pytest.raises(MapError, match=r"RESTFRQ = 115.27 Hz is below .*: --nu-rest-GHz says what"):
        read_map(path)
    found = read_map(path, nu_rest_GHz=115.27)
    assert found.nu_GHz == pytest.approx((34.0, 26.0))
    assert found.nu_rest_GHz == 115.27
    assert "its line is at 1.1527e-07 GHz, and was read as of one at 115.27" in found.notes[-1]


def test_what_a_file_says_wrongly_can_be_said_right(tmp_path: Path) -> None:
    path = runs.write_fits(tmp_path / "a.fits", CUBE, BUNIT="K (Tb)")
    with pytest.raises(MapError, match=r"the units 'K \(Tb\)' are none of .*; --units says"):
        read_map(path)
    found = read_map(path, units="K")
    assert found.units == "K"
    assert found.notes[-1] == "it says that it is in K (Tb), and was read as K (--units)"
    assert read_map(runs.write_hdf5(tmp_path / "a.h5", CUBE), units="mK").units == "mK"


def test_a_line_that_is_no_number(tmp_path: Path) -> None:
    for number, (rest, said) in enumerate((("much", "one number, not much"), (-1.0, "positive"))):
        path = runs.write_fits(tmp_path / f"{number}.fits", CUBE, RESTFRQ=rest)
        with pytest.raises(MapError, match=f"RESTFRQ .*must be {said}"):
            read_map(path)
    path = runs.write_fits(tmp_path / "text.fits", CUBE, RESTFRQ="much")
    assert read_map(path, nu_rest_GHz=115.27).nu_rest_GHz == 115.27
    path = runs.write_hdf5(tmp_path / "a.h5", CUBE, nu_rest_GHz="much")
    with pytest.raises(MapError, match="nu_rest_GHz must be one number, not much"):
        read_map(path)


def test_text_where_a_header_needs_a_number(tmp_path: Path) -> None:
    """A number as text is read, and said; anything else is refused: wcslib would take it for 0."""
    plain = read_map(runs.write_fits(tmp_path / "plain.fits", CUBE))
    header = fits.getheader(tmp_path / "plain.fits")
    numbers = [f"{key}{n}" for key in ("CRVAL", "CRPIX", "CDELT") for n in (1, 2, 3)]
    for name in numbers:
        text = runs.write_fits(tmp_path / f"{name}.fits", CUBE, **{name: str(header[name])})
        found = read_map(text)
        for axis, right in ((found.freq, plain.freq), (found.ra, plain.ra), (found.dec, plain.dec)):
            assert np.array_equal(axis.edges, right.edges) and axis.flipped == right.flipped
        assert f"{name} = '{header[name]}' is text in its header" in found.notes[0]
        assert found.locate is not None and plain.locate is not None
        assert found.locate(150.1, 52.1) == plain.locate(150.1, 52.1)
    for name, value in itertools.product((*numbers, "PC1_2", "CD1_1"), ("x", True)):
        path = runs.write_fits(tmp_path / f"{name}{value}.fits", CUBE, **{name: value})
        with pytest.raises(MapError, match=f"{name} = .* in its header must be a number"):
            read_map(path)


@pytest.mark.parametrize(("dtype", "zero"), [("u1", 0), ("u1", -128), ("i2", 0), ("i4", 0)])
def test_blank_may_be_0(dtype: str, zero: int, tmp_path: Path) -> None:
    path = runs.write_fits(tmp_path / "a.fits", (CUBE + 1).astype(dtype))
    with fits.open(path, mode="update", do_not_scale_image_data=True) as units:
        units[0].data[0, 0, 0] = 0
        units[0].header.update({"BLANK": 0, "BZERO": zero})
    expected = CUBE + 1.0 + zero
    expected[-1, 0, -1] = np.nan
    assert np.array_equal(read_map(path).cube, expected, equal_nan=True)


def test_unsigned_integers_of_64_bits_are_exact(tmp_path: Path) -> None:
    cube = CUBE.astype(np.uint64) + np.uint64(2**63 + 5)
    path = runs.write_fits(tmp_path / "a.fits", cube)
    assert fits.getheader(path)["BZERO"] == 2**63
    assert np.array_equal(read_map(path).cube, cube)


@pytest.mark.filterwarnings("ignore::astropy.utils.exceptions.AstropyWarning")
def test_blank_is_a_whole_number(tmp_path: Path) -> None:
    path = runs.write_fits(tmp_path / "a.fits", CUBE.astype(np.int16))
    with fits.open(path, mode="update", do_not_scale_image_data=True) as units:
        units[0].header["BLANK"] = 1.5
    with pytest.raises(MapError, match=r"BLANK = 1.5 in its header must be a whole number"):
        read_map(path)


@pytest.mark.parametrize("names", [("GLON", "GLAT"), ("ELON", "ELAT")])
def test_coordinates_other_than_ra_and_dec_are_told(names: tuple[str, str], tmp_path: Path) -> None:
    """A place is one in the coordinates of the file, which have its middle at (150, 52)."""
    file = tmp_path / "cube.fits"
    expected = Written(falls=(True, False, True)).write(file)
    assert read_map(file).notes == ()
    with fits.open(file, mode="update") as units:
        units[0].header.update({f"CTYPE{k}": f"{name}-TAN" for k, name in enumerate(names, 1)})
    found = read_map(file)
    assert found.notes == (
        f"its coordinates are {names[0]} and {names[1]}: they stand where ra and dec do, in "
        "--centre, too",
    )
    np.testing.assert_allclose(found.cube, expected, rtol=1e-6)
    assert found.centre_deg == pytest.approx((150.0, 52.0))
    assert found.locate is not None and found.locate(150.0, 52.0) == pytest.approx((0, 0), abs=1e-9)


def test_restwav_is_the_line_too(tmp_path: Path) -> None:
    path = runs.write_fits(tmp_path / "a.fits", CUBE, RESTFRQ=None, RESTWAV=LIGHT / REST_HZ)
    assert read_map(path).nu_rest_GHz == pytest.approx(115.27)


def test_several_images(tmp_path: Path) -> None:
    """One called MAP, one that is chosen, else a question."""
    plain = fits.open(runs.write_fits(tmp_path / "plain.fits", CUBE))
    header = plain[0].header

    def write(*names: str) -> Path:
        cubes = [fits.ImageHDU(plain[0].data * k, header, name) for k, name in enumerate(names, 1)]
        path = tmp_path / f"{'_'.join(names) or 'none'}.fits"
        fits.HDUList([fits.PrimaryHDU(), *cubes]).writeto(path, overwrite=True)
        return path

    several = write("hits", "map")
    assert np.array_equal(read_map(several).cube, 2 * CUBE)
    for hdu in ("1", "HITS", "hits"):
        assert np.array_equal(read_map(several, hdu=hdu).cube, CUBE)
    assert np.array_equal(read_map(write("only")).cube, CUBE)
    question = r"several images: which of 1 \(A, 3 x 20 x 24\), 2 \(B, 3 x 20 x 24\)\? --hdu"
    with pytest.raises(MapError, match=question):
        read_map(write("a", "b"))
    with pytest.raises(MapError, match=r"has not one image 'c': which of 1 \(A,"):
        read_map(write("a", "b"), hdu="c")
    with pytest.raises(MapError, match="is no FITS file: --hdu is of"):
        read_map(runs.write_hdf5(tmp_path / "a.h5", CUBE), hdu="1")
    plain.close()


@pytest.mark.parametrize(
    ("mark", "attribute", "told"),
    [
        (-9999.0, "_FillValue", None),
        (-9999.0, "missing_value", None),
        (-9999.0, "fill value", None),
        (-1.6375e30, None, None),
        (9.96921e36, None, None),
        (-9999.0, None, -9999.0),
        (-5.0, None, -5.0),
    ],
)
def test_marks_of_missing_values(
    mark: float, attribute: str | None, told: float | None, tmp_path: Path
) -> None:
    values = CUBE.astype(np.float32)
    values[0, :3] = mark
    path = runs.write_hdf5(tmp_path / "a.h5", values)
    with h5py.File(path, "a") as file:
        if attribute == "fill value":
            del file["map"]
            file.create_dataset("map", data=values, fillvalue=mark)
        elif attribute is not None:
            file["map"].attrs[attribute] = np.array([mark], np.float32)
    found = read_map(path, no_value=told)
    assert np.isnan(found.cube[0, :3]).all() and np.array_equal(found.cube[0, 3:], CUBE[0, 3:])
    assert "of its voxels hold" in found.notes[-1]


def test_packed_numbers_and_marks_as_text(tmp_path: Path) -> None:
    """netCDF's scale_factor and add_offset, after _FillValue, also as text."""
    for number, mark in enumerate((np.int16(-32768), "-32768", np.array([b"-32768"]))):
        values = CUBE.astype(np.int16)
        values[0, 0] = -32768
        path = runs.write_hdf5(tmp_path / f"{number}.h5", values)
        with h5py.File(path, "a") as file:
            attributes = {"_FillValue": mark, "scale_factor": [0.01], "add_offset": b"2"}
            for name, value in attributes.items():
                file["map"].attrs[name] = value
        found = read_map(path)
        assert np.isnan(found.cube[0, 0]).all()
        np.testing.assert_allclose(found.cube[1:], CUBE[1:] * 0.01 + 2.0, rtol=1e-12)
        assert "its numbers were multiplied by 0.01, plus 2" in found.notes[0]
    with h5py.File(path, "a") as file:
        file["map"].attrs["_FillValue"] = "none"
    with pytest.raises(
        MapError, match=r"missing values \(_FillValue\) must be one number, not none"
    ):
        read_map(path)


def test_what_a_file_says_of_its_line_may_be_overridden(tmp_path: Path) -> None:
    for number, rest in enumerate(("CO", b"nonsense", np.nan)):
        for path in (
            runs.write_hdf5(tmp_path / f"{number}.h5", CUBE, nu_rest_GHz=rest),
            runs.write_edges(tmp_path / f"{number}.npz", CUBE, nu_rest=rest, units="uK"),
        ):
            with pytest.raises(MapError, match=r"must be one number, .*; --nu-rest-GHz says what"):
                read_map(path)
            assert read_map(path, nu_rest_GHz=115.27).nu_rest_GHz == 115.27


def test_a_suspected_mark_is_asked_about(tmp_path: Path) -> None:
    values = CUBE.astype(np.float32)
    values[0, :3] = -999.0
    path = runs.write_fits(tmp_path / "a.fits", values)
    with pytest.raises(MapError, match="72 voxels are exactly -999, which looks like a mark"):
        read_map(path)
    assert np.isnan(read_map(path, no_value=-999.0).cube[0, 0]).all()
    whole = CUBE.astype(np.int16)
    whole[0, :3] = -32768
    with pytest.raises(MapError, match="72 voxels are exactly -32768"):
        read_map(runs.write_hdf5(tmp_path / "a.h5", whole))
    assert np.array_equal(read_map(path, no_value=float("nan")).cube, values)


MASK = np.ones((20, 24), np.int16)
MASK[3:7, 5] = MASK[0, :4] = 0
GRID = {"fov_deg": list(runs.FOV_DEG), "shape": [3, 20, 24], "nu_GHz": [34.0, 26.0]}


def mask_of(path: Path, **grid: Any) -> Cube:
    config = from_mapping({"grid": GRID | grid, "observe": {"mask": {"file": str(path)}}})
    (mask,) = config.observation.operators()
    assert isinstance(mask, Mask)
    return mask.keep.values


def test_a_mask_lies_as_its_header_says(tmp_path: Path) -> None:
    """In every order and direction, of two axes and of more: like the map with that header."""
    variants = itertools.product(ORDERS, SIGNS[::2], (False, True))
    for number, (order, falls, quarter) in enumerate(variants):
        path = tmp_path / f"{number}.fits"
        Written(order, falls, quarter=quarter, cube=MASK[None].astype(np.float64)).write(path)
        if order[2] == "nu":
            with fits.open(path) as units:
                flat = pytest.importorskip("astropy.wcs").WCS(units[0].header).celestial.to_header()
                fits.PrimaryHDU(units[0].data[0], flat).writeto(path, overwrite=True)
        said = pytest.warns(AssumptionWarning, match="a quarter turn against ra and dec")
        with said if quarter else contextlib.nullcontext():
            assert np.array_equal(mask_of(path), MASK), (order, falls, quarter)
    Written(cube=MASK[None].astype(np.float64)).write(tmp_path / "plain.fits")
    with pytest.raises(ConfigError, match=r"is of a field of 0.8 x 0.7 deg .* of 1.4 x 1.4 deg"):
        mask_of(tmp_path / "plain.fits", fov_deg=[1.4, 1.4])


def test_a_mask_of_an_npz_is_told_how_it_lies(tmp_path: Path) -> None:
    _, dec, ra = runs.edges()
    sides = {"pix_binedges_y": 52.0 + dec, "pix_binedges_x": (150.0 + ra / np.cos(np.radians(52)))}
    for rows, columns in itertools.product((1, -1), repeat=2):
        edges = {
            "pix_binedges_y": sides["pix_binedges_y"][::rows],
            "pix_binedges_x": sides["pix_binedges_x"][::columns],
        }
        np.savez(tmp_path / "mask.npz", MASK[::rows, ::columns], **edges)
        assert np.array_equal(mask_of(tmp_path / "mask.npz"), MASK)
    edges["pix_binedges_x"] = (ra[::columns] / np.cos(np.radians(52))) % 360.0
    np.savez(tmp_path / "mask.npz", MASK[::rows, ::columns], **edges)
    assert np.array_equal(mask_of(tmp_path / "mask.npz"), MASK)
    with pytest.raises(ConfigError, match="pix_binedges_x must be 25 edges of pixels"):
        np.savez(tmp_path / "mask.npz", MASK, **(edges | {"pix_binedges_x": ra[:-1]}))
        mask_of(tmp_path / "mask.npz")
    np.savez(tmp_path / "mask.npz", MASK)
    with pytest.warns(AssumptionWarning, match=r"taken as \[dec, ra\] with both rising"):
        mask_of(tmp_path / "mask.npz")


def test_several_masks_in_a_file(tmp_path: Path) -> None:
    images = [fits.ImageHDU(MASK * k, name=name) for k, name in ((5, "HITS"), (1, "MASK"))]
    fits.HDUList([fits.PrimaryHDU(), *images]).writeto(tmp_path / "two.fits")
    with pytest.warns(AssumptionWarning):
        assert np.array_equal(mask_of(tmp_path / "two.fits"), MASK)
    fits.HDUList([fits.PrimaryHDU(), images[0], images[0].copy()]).writeto(tmp_path / "no.fits")
    with pytest.raises(ConfigError, match=r"1 \(HITS, .*with the EXTNAME MASK would"):
        mask_of(tmp_path / "no.fits")


NU, DEC, RA = runs.edges()
NONSENSE: tuple[Any, ...] = (
    np.array([]), np.array(np.nan), np.array("x", "S"), np.array(["a", "bb"], "S"), -1.0, "", b"",
    b"\xff\xfe", np.zeros((2, 2)), np.full(3, np.nan), np.array([1, 2], "c16"), np.zeros(3, bool),
    h5py.Empty("f"), np.zeros((0, 3, 3)), np.zeros(3, [("a", "f4")]), np.array([1e300, -1e300]),
    NU[::-1], NU * 1e9, np.array([34, np.inf, 26.0]), np.zeros(runs.SHAPE, "i8"),
    np.full(runs.SHAPE, -32768, "i2"), np.full(runs.SHAPE, 1e30), np.zeros((2, *runs.SHAPE)),
)  # fmt: skip
NAMES = ("map", "nu_edges_GHz", "dec_edges_deg", "ra_edges_deg", "units", "nu_rest_GHz",
         "observe_done", "cube", "index", "map_coadd", "freq", "x", "MATLAB_class",
         "_FillValue")  # fmt: skip


def test_nonsense_gets_a_sentence(tmp_path: Path) -> None:
    """Each name of an HDF5 file as a dataset, a group and attributes of all kinds."""
    config = from_mapping({"grid": GRID, "observe": {}})
    plain = runs.write_hdf5(tmp_path / "plain.h5", CUBE)
    refused = 0
    ways = ("dataset", "map")
    for number, (name, value, way) in enumerate(itertools.product(NAMES, NONSENSE, ways)):
        path = tmp_path / f"{number}.h5"
        path.write_bytes(plain.read_bytes())
        with h5py.File(path, "a") as file:
            if way == "dataset":
                file.pop(name, None)
                file[name] = value
            else:
                file["map"].attrs[name] = value
        try:
            prepare(read_map(path), config)
        except MapError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 300 + len(str(path))
        path.unlink()
    assert refused > 90


WORDS: tuple[Any, ...] = (
    0.0, -1.0, 1e300, True, 5, 1e-30, 90.0, 400.0, 10**6, "", "deg", "Hz", "x", "GLON-TAN",
    "RA---SIN", "DEC--CAR", "FREQ", "VRAD", "VOPT-F2W", "FREQ-TAB", "STOKES", "AWAV", "km/s",
)  # fmt: skip
CARDS = ("CTYPE1", "CTYPE3", "CRVAL2", "CRVAL3", "CRPIX3", "CDELT1", "CDELT3", "CUNIT1", "CUNIT3",
         "CTYPE4", "RESTFRQ", "WCSAXES", "BLANK", "BSCALE", "PC1_2", "PC1_3", "PC3_1", "CD1_1",
         "LONPOLE", "PV2_1", "SPECSYS", "DATE-OBS")  # fmt: skip


@pytest.mark.filterwarnings("ignore::astropy.utils.exceptions.AstropyWarning")
def test_a_spoilt_header_gets_a_sentence(tmp_path: Path) -> None:
    """Two cards at a time of a header, drawn at random: a map with finite edges, or a sentence."""
    random = np.random.default_rng(4)
    header = fits.getheader(runs.write_fits(tmp_path / "plain.fits", CUBE))
    path = tmp_path / "spoilt.fits"
    outcomes = {True: 0, False: 0}
    for _ in range(300):
        spoilt = header.copy()
        for name in random.choice(CARDS, 2):
            spoilt[str(name)] = WORDS[random.integers(len(WORDS))]
        data = fits.getdata(tmp_path / "plain.fits")
        with contextlib.suppress(ValueError, TypeError, fits.VerifyError):
            fits.PrimaryHDU(data, spoilt).writeto(path, overwrite=True)
        try:
            found = read_map(path)
            assert np.isfinite(found.freq.edges).all() and found.locate is not None
            found.locate(150.0, 52.0)
        except MapError as error:
            assert "\n" not in str(error)
            outcomes[False] += 1
        else:
            outcomes[True] += 1
    assert min(outcomes.values()) > 30
