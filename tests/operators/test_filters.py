"""Map operators that smooth or remove: beam, mask, mean, smooth modes in frequency."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from support import small
from support.operator_tools import applied

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.config import ConfigError
from streamtrain.generator.generator import Generator
from streamtrain.numerics.backend import kernels_for
from streamtrain.operators.filters import polynomials
from streamtrain.schema import AssumptionWarning

pytestmark = small.ASSUMES

SHAPE = (6, 21, 30)
FOV = (0.5, 0.7)
"""ra, dec [deg]: pixels of 1 x 2 arcmin, in numbers that eight does not divide."""
SIGMA = 1 / np.sqrt(8 * np.log(2))


def apply(
    observe: dict[str, Any], cube: NDArray[Any], fov: tuple[float, float] = FOV
) -> NDArray[np.float64]:
    return applied(kernels_for("cpu", "observe.cu"), observe, cube, fov_deg=list(fov))


@pytest.fixture(scope="module")
def cube() -> NDArray[np.float64]:
    """Two cubes of voxels between -1 and 1 plus 3 per cent of bright ones."""
    rng = np.random.default_rng(5)
    bright = 100 * (rng.uniform(0, 1, (2, *SHAPE)) > 0.97)
    return (rng.uniform(-1, 1, (2, *SHAPE)) + bright).astype(np.float32).astype(np.float64)


# Beam.


@pytest.mark.parametrize(("edge", "mode"), [("reflect", "reflect"), ("zero", "constant")])
@pytest.mark.parametrize("fwhm", [0.1, 0.8, 3.0, 11.0, 21.0])
def test_beam_is_scipys(cube: NDArray[Any], edge: str, mode: str, fwhm: float) -> None:
    """From no pixel but its own to a beam that reaches beyond the mirror image of the map."""
    found = apply({"beam": {"fwhm_pixels": fwhm, "edge": edge}}, cube)
    expected = ndimage.gaussian_filter(cube, fwhm * SIGMA, axes=(2, 3), mode=mode, truncate=4.0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-7 * np.abs(expected).max())


def test_beam_of_unequal_pixels(cube: NDArray[Any]) -> None:
    """6 arcmin are 6 pixels in ra and 3 in dec; after a pool, 2 and 1."""
    found = apply({"beam": {"fwhm_arcmin": 6.0}}, cube)
    expected = ndimage.gaussian_filter(cube, (3 * SIGMA, 6 * SIGMA), axes=(2, 3))
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-7 * np.abs(expected).max())
    pool = {"pool": {"factor": [1, 3, 3]}}
    pooled = apply(pool, cube)
    found = apply({**pool, "beam": {"fwhm_arcmin": 6.0}}, cube)
    expected = ndimage.gaussian_filter(pooled, (SIGMA, 2 * SIGMA), axes=(2, 3))
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-7 * np.abs(expected).max())


def test_width_goes_as_the_wavelength(cube: NDArray[Any]) -> None:
    """FWHM = 4 pixels at 30 GHz; channel centres descend, also those of joined channels."""
    for joined in (1, 3):
        pool = {"pool": {"factor": [joined, 1, 1]}}
        pooled = apply(pool, cube)
        found = apply({**pool, "beam": {"fwhm_pixels": 4.0, "reference_GHz": 30.0}}, cube)
        num = SHAPE[0] // joined
        for channel in range(num):
            nu = 34 - 8 * (channel + 0.5) / num
            sigma = 4 * SIGMA * 30 / nu
            expected = ndimage.gaussian_filter(pooled[:, channel], sigma, axes=(1, 2))
            tolerance = 5e-7 * np.abs(expected).max()
            np.testing.assert_allclose(found[:, channel], expected, rtol=0, atol=tolerance)


def test_beam_and_pool_conserve_flux(cube: NDArray[Any]) -> None:
    for fwhm in (0.8, 5.0, 21.0):
        found = apply({"beam": {"fwhm_pixels": fwhm}}, cube)
        np.testing.assert_allclose(found.sum((2, 3)), cube.sum((2, 3)), rtol=3e-7)
    flat = apply({"beam": {"fwhm_pixels": 5.0}}, np.full(SHAPE, 7.0))
    np.testing.assert_allclose(flat, 7.0, rtol=3e-7)
    found = apply({"pool": {"factor": [3, 7, 5], "reduce": "sum"}}, cube)
    np.testing.assert_allclose(found.sum((1, 2, 3)), cube.sum((1, 2, 3)), rtol=1e-6)
    found = apply({"pool": {"factor": [3, 7, 5]}}, cube)
    np.testing.assert_allclose(found.mean((1, 2, 3)), cube.mean((1, 2, 3)), rtol=1e-6)


def test_beam_of_a_point() -> None:
    """A Gaussian of that FWHM: half of the peak at half the width, second moment sigma^2."""
    point = np.zeros((1, 101, 101))
    point[0, 50, 50] = 1.0
    found = apply({"beam": {"fwhm_arcmin": 16.0}}, point, (101 / 60, 101 / 60))[0]
    assert found[50, 58] / found[50, 50] == pytest.approx(0.5, rel=1e-6)
    offset = np.arange(101) - 50
    for axis in (0, 1):
        variance = (found.sum(axis) * offset**2).sum()
        assert variance == pytest.approx((16 * SIGMA) ** 2, rel=2e-3)  # cut at 4 sigma
    lost = apply({"beam": {"fwhm_pixels": 16.0, "edge": "zero"}}, np.roll(point, 50, axis=1))
    assert lost.sum() == pytest.approx(0.5 + found[50].sum() / 2, rel=1e-5)


def test_beam_along_a_strip_of_one_pixel() -> None:
    """Along it the beam of a map that is as wide as long; across it all light stays. A profile, and
    a sky that ends at the strip, are refused as in any map that is narrower than the beam."""
    strip = np.zeros((1, 1, 101))
    strip[0, 0, 50] = 1.0
    beam = {"fwhm_pixels": 4.0}
    found = apply({"beam": beam}, strip, (101 / 60, 1 / 60))
    wide = apply({"beam": beam}, np.repeat(strip, 101, axis=1), (101 / 60, 101 / 60))
    np.testing.assert_allclose(found[0, 0], wide[0, 50], rtol=1e-5, atol=1e-9)
    assert found.sum() == pytest.approx(1.0, rel=1e-5)
    for refused, shape in ((beam | {"edge": "zero"}, (1, 1, 101)), (beam, (1, 2, 101))):
        with pytest.raises(ConfigError, match=r"FWHM, 4 x 4 pixels .* is wider than the map, 101"):
            apply({"beam": refused}, np.zeros(shape), (101 / 60, shape[1] / 60))


@pytest.mark.parametrize(("fwhm", "excess"), [(0.6, 0.40), (1.0, 0.45), (1.6, 0.11), (3.0, 0.02)])
def test_a_beam_that_is_narrow_for_the_pixels_is_told(fwhm: float, excess: float) -> None:
    """Halos lie anywhere in their pixels. Against a map painted 16 times as fine, smoothed and then
    joined, the scatter is too large by `excess`; with the factor that is said, by a tenth at
    most."""
    rng, num = np.random.default_rng(3), 128
    places, light = rng.uniform(0, num, (4000, 2)), 1.0 + rng.pareto(3, 4000)

    def seen(finer: int) -> float:
        counts = np.histogram2d(*places.T, num * finer, [[0, num]] * 2, weights=light)[0]
        after = {"pool": {"factor": [1, finer, finer], "reduce": "sum"}} if finer > 1 else {}
        observe = {"beam": {"fwhm_arcmin": fwhm}, **after}
        return float(apply(observe, counts[None], (num / 60, num / 60)).std())

    truth = seen(16)
    if fwhm > 1.5:
        assert seen(1) / truth == pytest.approx(1.0 + excess, abs=0.03)
        return
    with pytest.warns(AssumptionWarning, match="FWHM is .* pixels where") as told:
        assert seen(1) / truth == pytest.approx(1.0 + excess, abs=0.03)
    [finer] = map(int, re.findall(r"pixels (\d) times", str(told[0].message)))
    assert finer * fwhm >= 1.5 and seen(finer) / truth < 1.1


def test_a_narrow_beam_is_told_of_the_narrowest_channel_and_the_widest_pixels() -> None:
    """In pixels of 2 x 1 arcmin, 3.4 arcmin at 26 GHz are 2.65 arcmin at 33.3 GHz, the first of six
    channels. Along an axis of
    one pixel, and of a width that is given in pixels, nothing is said."""
    cube, strip, sides = np.zeros((6, 30, 30)), np.zeros((1, 1, 30)), (1.0, 0.5)
    with pytest.warns(AssumptionWarning) as told:
        apply({"beam": {"fwhm_arcmin": 3.4, "reference_GHz": 26.0}}, cube, sides)
        apply({"beam": {"fwhm_arcmin": 3.4}}, cube, sides)
        apply({"beam": {"fwhm_pixels": 0.5}}, cube, sides)
        apply({"beam": {"fwhm_arcmin": 2.0}}, strip, (0.5, 1.0))
    assert len(told) == 1
    assert str(told[0].message).startswith("observe.beam: the beam's FWHM is 1.3 pixels where")


@pytest.mark.parametrize(
    ("beam", "sentence"),
    [
        ({}, "observe.beam needs either fwhm_arcmin"),
        (
            {"fwhm_arcmin": 4.5, "fwhm_pixels": 3},
            "observe.beam has both .*: observe.beam.fwhm_pixels=null removes the one",
        ),
        ({"fwhm_pixels": 22}, r"FWHM, 22 x 22 pixels \(ra, dec\), is wider than the map, 30 x 21"),
        ({"fwhm_arcmin": 31.0}, r"FWHM, 31 x 15.5 pixels .* wider than the map, 30 x 21 pixels"),
        ({"fwhm_pixels": 20, "reference_GHz": 34}, "wider than the map"),
        ({"fwhm_arcmin": 0}, r"observe.beam.fwhm_arcmin = 0 must be above 0"),
        ({"fwhm_arcmin": 4, "edge": "wrap"}, "'wrap' is none of reflect, zero"),
    ],
)
def test_bad_beam(beam: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        apply({"beam": beam}, np.zeros(SHAPE))


# Mask.


@pytest.fixture
def keep() -> NDArray[np.bool_]:
    return np.random.default_rng(8).uniform(0, 1, SHAPE[1:]) > 0.3


def write_mask(folder: Path, kind: str, keep: NDArray[Any]) -> str:
    path = folder / f"mask.{kind}"
    if kind == "npz":
        np.savez_compressed(path, mask=keep, other=np.zeros(3))
    else:
        fits = pytest.importorskip("astropy.io.fits")
        units = [fits.PrimaryHDU(), fits.ImageHDU(keep.astype(">f4"))]
        fits.HDUList(units).writeto(path)
    return str(path)


@pytest.mark.parametrize("kind", ["npz", "fits"])
def test_mask_of_a_file(kind: str, keep: NDArray[Any], cube: NDArray[Any], tmp_path: Path) -> None:
    path = write_mask(tmp_path, kind, keep)
    dirty = np.where(keep, cube, np.nan)
    np.testing.assert_array_equal(apply({"mask": {"file": path}}, dirty), np.where(keep, cube, 0))
    both = keep.copy()
    both[[0, 1, -2, -1]] = False
    both[:, [0, 1, -2, -1]] = False
    found = apply({"mask": {"file": path, "edge_pixels": 2}}, cube)
    np.testing.assert_array_equal(found, np.where(both, cube, 0))


def test_mask_of_the_border(cube: NDArray[Any]) -> None:
    found = apply({"mask": {"edge_pixels": 3}}, cube)
    np.testing.assert_array_equal(found[..., 3:-3, 3:-3], cube[..., 3:-3, 3:-3])
    assert np.count_nonzero(found) == 2 * SHAPE[0] * (SHAPE[1] - 6) * (SHAPE[2] - 6)


def test_bad_masks(tmp_path: Path, keep: NDArray[Any]) -> None:
    def refused(sentence: str, **mask: Any) -> None:
        with pytest.raises(ConfigError, match=sentence):
            apply({"mask": mask}, np.zeros(SHAPE))

    good = write_mask(tmp_path, "npz", keep)
    refused("observe.mask needs a file, edge_pixels or both")
    refused(r"edge_pixels = 11 leaves nothing of a map of 21 x 30 pixels", edge_pixels=11)
    refused("observe.mask.file: there is no file none.npz", file="none.npz")
    text = tmp_path / "text.npz"
    for content in ("no mask", ""):
        text.write_text(content)
        refused("text.npz cannot be read: it is neither npz nor FITS", file=str(text))
    text.write_bytes(Path(good).read_bytes()[:-40])
    refused("text.npz cannot be read: ", file=str(text))
    for name, content in (("objects", np.array([None, 1])), ("text", np.array(["a"]))):
        np.savez(tmp_path / f"{name}.npz", mask=content)
        refused(
            f"{name}.npz (cannot be read: Object arrays|holds <U1)", file=f"{tmp_path}/{name}.npz"
        )
    np.savez(text, first=keep, second=keep)
    refused("holds no array 'mask' but first, second", file=str(text))
    np.savez(text, keep.T)
    refused(r"has shape \(30, 21\), the map there \[n_dec, n_ra\] = \(21, 30\)", file=str(text))
    for bad in (0.5, np.nan, 2):
        np.savez(text, np.where(keep, 1, bad))
        refused(rf"text.npz holds {bad}.*, a mask holds 1 \(keep\) and 0 only", file=str(text))
    np.savez(text, np.zeros(SHAPE[1:]))
    refused("observe.mask masks every pixel", file=str(text))


def test_bad_fits(tmp_path: Path) -> None:
    fits = pytest.importorskip("astropy.io.fits")
    path = tmp_path / "empty.fits"
    fits.HDUList([fits.PrimaryHDU()]).writeto(path)
    with pytest.raises(ConfigError, match=r"empty.fits holds no image of two axes or more"):
        apply({"mask": {"file": str(path)}}, np.zeros(SHAPE))
    whole = Path(write_mask(tmp_path, "fits", np.ones(SHAPE[1:]))).read_bytes()
    for content in (b"no FITS", b"", whole[:-2880], whole[:100]):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"empty.fits cannot be read, or is cut short: "):
            apply({"mask": {"file": str(path)}}, np.zeros(SHAPE))


@small.EXTRAPOLATES
def test_identity_holds_the_mask(small_sky: Lightcone, tmp_path: Path) -> None:
    """What is in the file counts, not where it lies; without a file, identity is as ever."""

    def identity(observe: dict[str, Any]) -> dict[str, Any]:
        return Generator(small.config(observe=observe), lightcones=[small_sky]).identity()

    keep = np.ones(small.GRID["shape"][1:])
    keep[4] = 0
    np.savez(tmp_path / "a.npz", keep)
    np.savez(tmp_path / "b.npz", mask=keep.astype(bool))
    keep[5] = 0
    np.savez(tmp_path / "c.npz", keep)
    a, b, c = (identity({"mask": {"file": f"{tmp_path}/{name}.npz"}}) for name in "abc")
    assert a == b != c
    assert list(a["observe"]) == ["mask"]
    assert set(identity({"mask": {"edge_pixels": 1}})) == {"lightcones", "model"}
    a, b = (small.config(observe={"mask": {"file": name}}) for name in ("a.npz", "d/b.npz"))
    assert a.sample_settings() == b.sample_settings()
    assert (
        small.config(observe={"mask": {"edge_pixels": 2}}).sample_settings() != a.sample_settings()
    )


# Mean.


def test_subtract_mean(cube: NDArray[Any]) -> None:
    found = apply({"subtract_mean": {}}, cube)
    expected = cube - cube.mean((2, 3), keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-12)
    assert np.abs(found.mean((2, 3))).max() < 2e-8 * np.abs(cube).max()
    constant = apply({"subtract_mean": {}}, np.full(SHAPE, 0.1))
    assert not constant.any()


def test_subtract_mean_of_masked_maps(cube: NDArray[Any], keep: NDArray[Any]) -> None:
    masked = np.where(keep, cube, 0)
    masked[:, 2] = 0
    found = apply({"subtract_mean": {"skip_zeros": True}}, masked)
    mean = masked.sum((2, 3), keepdims=True) / keep.sum()
    np.testing.assert_allclose(
        found, np.where(masked == 0, 0, masked - mean), rtol=1e-7, atol=1e-12
    )
    assert np.abs(found.mean((2, 3))).max() < 2e-8 * np.abs(cube).max()


# Smooth modes.


@pytest.mark.parametrize("num_freq", [2, 10, 256])
def test_modes_are_orthonormal_polynomials(num_freq: int) -> None:
    modes = polynomials(num_freq - 1, num_freq)
    np.testing.assert_allclose(modes @ modes.T, np.eye(num_freq - 1), atol=1e-14)
    x = np.linspace(-1, 1, num_freq)
    for degree in range(min(num_freq - 1, 40)):
        fit = np.polynomial.Legendre.fit(x, modes[degree], degree)
        np.testing.assert_allclose(fit(x), modes[degree], atol=1e-10)


@pytest.mark.parametrize("modes", [1, 3, 5])
def test_high_pass(cube: NDArray[Any], modes: int) -> None:
    """What is left is orthogonal to polynomials, and nothing else is gone."""
    found = apply({"high_pass": {"modes": modes}}, cube)
    x = np.linspace(-1, 1, SHAPE[0])
    basis, _ = np.linalg.qr(np.vander(x, modes))
    expected = cube - np.einsum("fm,gm,bgyx->bfyx", basis, basis, cube)
    scale = np.abs(cube).max()
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-13 * scale)
    assert np.abs(np.einsum("fm,bfyx->bmyx", basis, found)).max() < 1e-7 * scale
    again = apply({"high_pass": {"modes": modes}}, found)
    np.testing.assert_allclose(again, found, rtol=0, atol=2e-7 * scale)


def test_high_pass_annihilates_polynomials(cube: NDArray[Any]) -> None:
    """A smooth foreground a thousand times the signal, up to its own rounding to float32."""
    x = np.linspace(-1, 1, SHAPE[0])
    coefficients = np.random.default_rng(3).normal(0, 1e4, (3, *SHAPE[1:]))
    foreground = np.einsum("mf,myx->fyx", np.vander(x, 3).T, coefficients)
    operator = {"high_pass": {"modes": 3}}
    left = apply(operator, foreground)
    assert np.abs(left).max() < 1.2e-7 * np.abs(foreground).max()
    difference = apply(operator, cube[0] + foreground) - apply(operator, cube[0])
    assert np.abs(difference).max() < 1.2e-7 * np.abs(foreground).max()
    masked = np.zeros(SHAPE)
    assert not apply(operator, masked).any()


def test_too_many_modes() -> None:
    for observe in (
        {"high_pass": {"modes": 6}},
        {"pool": {"factor": [3, 1, 1]}, "high_pass": {"modes": 2}},
    ):
        with pytest.raises(ConfigError, match=r"must be below the number of frequencies, [62]"):
            apply(observe, np.zeros(SHAPE))
