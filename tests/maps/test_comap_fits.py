"""FITS files as COMAP's pipeline writes them: one each for temperature, noise, hits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support import map_runs as runs

from streamtrain.maps.read import read_map
from streamtrain.maps.skymap import UNKNOWN_MODES, MapError, SkyMap

fits = pytest.importorskip("astropy.io.fits")

FIELDS = {"equator": (25.4, 0.0), "north": (170.0, 52.3)}
"""Middles (ra, dec) [deg]."""
KINDS = {
    "temperature": ("MAP", "Temperature", "K"),
    "sigma_wn": ("SIGMA_WN", "Temperature", "K"),
    "nhit": ("NHIT", "Number of hits", None),
}
NUM_RA, NUM_DEC, NUM_CHANNELS = 24, 20, 8


def cards(field: str = "north", **changes: Any) -> dict[str, Any]:
    """A plate carree whose reference point lies on the equator, the step in frequency 1000 times
    too small and the rest frequency in GHz; what is None is left out."""
    ra, dec = FIELDS[field]
    step = 2.0 / 60.0
    given = {
        "CTYPE1": "RA---CAR", "CUNIT1": "deg", "CRVAL1": ra, "CRPIX1": (NUM_RA + 1) / 2,
        "CDELT1": -step / np.cos(np.radians(dec)),
        "CTYPE2": "DEC--CAR", "CUNIT2": "deg", "CRVAL2": 0.0, "CDELT2": step,
        "CRPIX2": (NUM_DEC + 1) / 2 - dec / step,
        "CTYPE3": "FREQ", "CUNIT3": "Hz", "CRVAL3": 26.5e9, "CRPIX3": 1.0, "CDELT3": 1e6,
        "RESTFRQ": 115.27,
    }  # fmt: skip
    return {name: value for name, value in (given | changes).items() if value is not None}


def cubes(feeds: int | None = None) -> dict[str, NDArray[Any]]:
    """Arrays of the three files in their order, [freq, dec, ra] with or without feeds."""
    random = np.random.default_rng(7)
    shape = (*(() if feeds is None else (feeds,)), NUM_CHANNELS, NUM_DEC, NUM_RA)
    hits = random.integers(0, 4, shape).astype(np.int32)
    sigma = random.uniform(1e-5, 3e-5, shape).astype(np.float32)
    cube = random.normal(0.0, 2e-5, shape).astype(np.float32)
    cube[hits == 0], sigma[hits == 0] = np.nan, np.nan
    return {"temperature": cube, "sigma_wn": sigma, "nhit": hits}


def write(
    folder: Path,
    arrays: dict[str, NDArray[Any]],
    name: str = "co7_map_coadd",
    primary: dict[str, Any] | None = None,
    **changes: Any,
) -> dict[str, Path]:
    """Write the files through astropy's own WCS, as the pipeline does; changes: other cards."""
    wcs = pytest.importorskip("astropy.wcs")
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for kind, values in arrays.items():
        extension, about, unit = KINDS[kind]
        given = cards(**changes)
        if values.ndim == 4:
            given |= {"CTYPE4": "FEED", "CRVAL4": 0.0, "CRPIX4": 0.0, "CDELT4": 1.0}
        header = wcs.WCS(fits.Header(given)).to_header()
        header["BTYPE"] = about
        if unit is not None:
            header["BUNIT"] = unit
        first = fits.PrimaryHDU()
        first.header.update(primary or {})
        paths[kind] = folder / f"{name}_{kind}.fits"
        fits.HDUList([first, fits.ImageHDU(values, header, extension)]).writeto(paths[kind])
    return paths


def in_order(values: NDArray[Any]) -> NDArray[Any]:
    """Numbers of a file, with rising frequency and falling ra, as a map has them."""
    return values[..., ::-1, :, ::-1]


def same(found: NDArray[Any] | None, expected: NDArray[Any]) -> bool:
    return found is not None and np.array_equal(found, expected, equal_nan=True)


@pytest.mark.parametrize("field", FIELDS)
def test_the_three_files_are_one_map(tmp_path: Path, field: str) -> None:
    arrays = cubes()
    paths = write(tmp_path, arrays, field=field)
    with pytest.raises(
        MapError, match=r"RESTFRQ = 115.27 Hz is below that of any line .*--nu-rest"
    ):
        read_map(paths["temperature"])
    found = read_map(paths["temperature"], nu_rest_GHz=115.27)
    assert same(found.cube, in_order(arrays["temperature"]))
    assert same(found.sigma, in_order(arrays["sigma_wn"]))
    assert same(found.hits, in_order(arrays["nhit"]))
    assert found.nu_GHz == pytest.approx((34.0, 26.0), rel=1e-12)
    assert (found.units, found.nu_rest_GHz) == ("K", 115.27)
    assert found.filtered and found.pca_modes is None
    assert found.axes == ("freq", "dec", "ra")
    notes = " | ".join(found.notes)
    assert "channels of 1000 kHz, 1000 times less than the pipeline's, which were taken" in notes
    assert "co7_map_coadd_sigma_wn.fits and co7_map_coadd_nhit.fits beside it were read" in notes
    assert "it was taken to be a map of COMAP's pipeline" in notes
    assert "its line is at 1.1527e-07 GHz, and was read as of one at 115.27" in notes


@pytest.mark.parametrize("field", FIELDS)
def test_pixels_lie_where_astropy_has_them(tmp_path: Path, field: str) -> None:
    """Their size is that on the sky, ra times cos(dec), and each one's middle is found."""
    coordinates = pytest.importorskip("astropy.coordinates")
    wcs = pytest.importorskip("astropy.wcs")

    path = write(tmp_path, cubes(), field=field)["temperature"]
    found = read_map(path, nu_rest_GHz=115.27)
    sky = wcs.WCS(fits.getheader(path, "MAP")).celestial
    middle = ((NUM_RA - 1) / 2, (NUM_DEC - 1) / 2)
    along = [sky.pixel_to_world(middle[0] + d, middle[1]) for d in (-0.5, 0.5)]
    up = [sky.pixel_to_world(middle[0], middle[1] + d) for d in (-0.5, 0.5)]
    assert found.ra.step == pytest.approx(along[0].separation(along[1]).deg, rel=1e-9)
    assert found.dec.step == pytest.approx(up[0].separation(up[1]).deg, rel=1e-9)
    assert (60 * found.ra.step, 60 * found.dec.step) == pytest.approx((2.0, 2.0), rel=1e-7)
    assert found.centre_deg == pytest.approx(FIELDS[field], abs=1e-9)
    assert found.locate is not None
    for x, y in ((0, 0), (23, 3), (5, 19)):
        place = sky.pixel_to_world(x, y)
        east, north = found.locate(place.ra.deg, place.dec.deg)
        column, row = NUM_RA - 1 - x, y  # ra falls along the header's axis
        assert east == pytest.approx(0.5 * sum(found.ra.edges[column : column + 2]), abs=1e-9)
        assert north == pytest.approx(0.5 * sum(found.dec.edges[row : row + 2]), abs=1e-9)
    centre = coordinates.SkyCoord(*FIELDS[field], unit="deg")
    assert sky.pixel_to_world(*middle).separation(centre).arcsec < 1e-6


def test_a_wide_field_is_as_wide_as_its_pixels(tmp_path: Path) -> None:
    """The parallel through its middle is no great circle, from end to end 4 % shorter here."""
    array = np.zeros((2, 4, 360), np.float32)
    ra, dec = 268.0, 66.561
    place = {"CRVAL1": ra, "CDELT1": -2 / 60 / np.cos(np.radians(dec)), "CRPIX1": 180.5}
    place |= {"CRPIX2": 2.5 - dec * 30}
    path = write(tmp_path, {"temperature": array}, **place)["temperature"]
    found = read_map(path, nu_rest_GHz=115.27)
    assert found.ra.width == pytest.approx(12.0, rel=1e-6)
    assert found.centre_deg == pytest.approx((ra, dec), abs=1e-9)


def test_a_file_of_its_own(tmp_path: Path) -> None:
    """That of the noise is a map whose cube is sigma; a temperature without the others has
    none."""
    arrays = cubes()
    paths = write(tmp_path, arrays)
    found = read_map(paths["sigma_wn"], nu_rest_GHz=115.27)
    assert same(found.cube, in_order(arrays["sigma_wn"])) and found.units == "K"
    assert found.sigma is None and found.hits is None
    with pytest.raises(MapError, match=r"nhit.fits .* does not say its units"):
        read_map(paths["nhit"], nu_rest_GHz=115.27)
    found = read_map(paths["nhit"], nu_rest_GHz=115.27, need_units=False)
    assert same(found.cube, in_order(arrays["nhit"]))
    assert "of its voxels are exactly 0" in found.notes[-1]
    for kind in ("sigma_wn", "nhit"):
        paths[kind].unlink()
    found = read_map(paths["temperature"], nu_rest_GHz=115.27)
    assert found.sigma is None and found.hits is None and "beside it" not in " ".join(found.notes)


def test_a_header_that_says_what_is_right(tmp_path: Path) -> None:
    """The step and the line of a header are left alone where they can be right."""
    given = {"CDELT3": 1e9, "RESTFRQ": 115.27e9}
    found = read_map(write(tmp_path, cubes(), **given)["temperature"])
    assert found.nu_GHz == pytest.approx((34.0, 26.0), rel=1e-12)
    assert found.nu_rest_GHz == pytest.approx(115.27)
    assert "1000 times" not in " ".join(found.notes)
    absent = write(tmp_path / "absent", cubes(), RESTFRQ=None)["temperature"]
    assert read_map(absent).nu_rest_GHz is None


def test_other_files_keep_narrow_channels(tmp_path: Path) -> None:
    """Nobody else's header is taken to be wrong, and nobody else's map to be filtered."""
    arrays = cubes()["temperature"]
    path = runs.write_fits(tmp_path / "a.fits", arrays, CDELT3=1e6, CRVAL3=26.5e9)
    found = read_map(path)
    assert found.freq.width == pytest.approx(0.008) and not found.filtered
    assert found.layout == "FITS" and found.pca_modes is None


@pytest.mark.parametrize(
    ("name", "primary", "modes", "filtered"),
    [
        ("co7_map_n5_subtr_sigma_wn_coadd", {}, 5, True),
        ("co7_map_coadd", {"ISPCASBR": False}, 0, True),
        ("co7_map_coadd", {"ISPCASBR": True}, UNKNOWN_MODES, True),
        ("co7_map_n12_subtr_approx_coadd", {"ISPCASBR": True, "ISSIM": True}, 12, True),
        ("co7_map_simcube_coadd", {"ISPCASBR": False, "ISCUBE": True}, 0, False),
        ("co7_map_coadd", {}, None, True),
    ],
)
def test_what_was_done(
    tmp_path: Path, name: str, primary: dict[str, Any], modes: int | None, filtered: bool
) -> None:
    found = read_map(write(tmp_path, cubes(), name, primary)["temperature"], nu_rest_GHz=115.27)
    assert (found.pca_modes, found.filtered) == (modes, filtered)
    notes = " ".join(found.notes)
    assert ("as its name says" in notes) == ("subtr" in name)
    assert ("does not say how many" in notes) == (modes == UNKNOWN_MODES)
    assert ("of a simulation" in notes) == ("ISSIM" in primary or "ISCUBE" in primary)


def test_files_beside_it_that_differ(tmp_path: Path) -> None:
    sentences: dict[str, Any] = {
        "has 1 x 7 x 20 x 24 voxels (feed, freq, dec, ra), not 1 x 8 x 20 x 24": lambda unit: (
            setattr(unit, "data", unit.data[1:])
        ),
        "is of a field about (171, 52.3) deg, not (170, 52.3)": {"CRVAL1": 171.0},
        "has other voxels along ra": {"CDELT1": -0.06},
        "has other voxels along freq": {"CRVAL3": 27.5e9},
        "is in mK, not in K": {"BUNIT": "mK"},
        "has no ra axis": {"CTYPE1": "LINEAR", "CTYPE2": "LINEAR"},
        "holds no image of three axes or more": lambda unit: setattr(unit, "data", unit.data[0]),
    }
    for number, (sentence, spoil) in enumerate(sentences.items()):
        paths = write(tmp_path / str(number), cubes())
        with fits.open(paths["sigma_wn"], mode="update") as units:
            if callable(spoil):
                spoil(units[1])
            else:
                units[1].header.update(spoil)
        with pytest.raises(MapError) as error:
            read_map(paths["temperature"], nu_rest_GHz=115.27)
        start = f"{paths['temperature']}: co7_map_coadd_sigma_wn.fits beside it "
        assert str(error.value).startswith(start + sentence) and "\n" not in str(error.value)


def test_what_lies_beside_it_and_is_no_file(tmp_path: Path) -> None:
    paths = write(tmp_path, cubes())
    paths["nhit"].unlink()
    paths["nhit"].mkdir()
    with pytest.raises(MapError, match=r"co7_map_coadd_nhit.fits beside it: a folder"):
        read(paths)


def read(paths: dict[str, Path], **options: Any) -> SkyMap:
    return read_map(paths["temperature"], nu_rest_GHz=115.27, **options)


def test_a_map_per_feed(tmp_path: Path) -> None:
    """Summed as in the HDF5 layout, if the noise lies beside it."""
    arrays = cubes(feeds=3)
    paths = write(tmp_path, arrays, "co7_map")
    with pytest.raises(MapError, match="holds 3 maps, one per feed: --sum-feeds adds them up with"):
        read(paths)
    found = read(paths, sum_feeds=True)
    weight = np.nan_to_num(1.0 / arrays["sigma_wn"].astype(np.float64) ** 2)
    total = np.nansum(arrays["temperature"] * weight, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        cube, sigma = total / weight.sum(0), 1.0 / np.sqrt(weight.sum(0))
    sigma[weight.sum(0) == 0.0] = np.nan
    np.testing.assert_allclose(found.cube, in_order(cube), rtol=1e-11)
    np.testing.assert_allclose(found.sigma, in_order(sigma), rtol=1e-12)
    assert same(found.hits, in_order(arrays["nhit"].sum(0)))
    assert found.axes == ("feed", "freq", "dec", "ra")
    paths["nhit"].unlink()
    assert read(paths, sum_feeds=True).hits is None
    paths["sigma_wn"].unlink()
    with pytest.raises(MapError, match=r"no \.\.\._sigma_wn.fits lies beside it"):
        read(paths, sum_feeds=True)
    with pytest.raises(MapError, match="holds no map per feed: --sum-feeds is of"):
        read(write(tmp_path / "coadded", cubes()), sum_feeds=True)


def test_pixels_that_narrow_towards_a_pole(tmp_path: Path) -> None:
    """In plate carree, whose pixels have equal steps in ra."""

    def said(folder: str, **changes: Any) -> str:
        paths = write(tmp_path / folder, cubes(), **changes)
        return " ".join(read_map(paths["temperature"], nu_rest_GHz=115.27).notes)

    assert "narrower in ra" not in said("own")
    height, step = 4.0, 4.0 / NUM_DEC
    high = {"CDELT2": step, "CRPIX2": (NUM_DEC + 1) / 2 - 84.0 / step, "CDELT1": -0.1}
    share = 1.0 - np.cos(np.radians(84 + height / 2)) / np.cos(np.radians(84 - height / 2))
    assert f"are {100 * share:.0f} % narrower in ra at one end of dec" in said("high", **high)
