"""Noise of an instrument, of a hit map and of the map's edges."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support import reference as ref
from support import small
from support.operator_tools import SHAPE, keys, operators

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.config import ConfigError, load_config
from streamtrain.generator.generator import Generator
from streamtrain.numerics.backend import Kernels
from streamtrain.numerics.rng import STAGE_OBSERVE, Draws
from streamtrain.operators.base import Operator
from streamtrain.operators.noise import EdgeNoise, EdgeNoiseConfig, Noise, NoiseConfig

pytestmark = small.ASSUMES

PUBLISHED = {"sigma_uK": 625.0, "per": "fine_voxel"}
"""The edge noise of 1905.10376: N(0, 25 f) with f up to 25."""

Array = NDArray[np.float64]


def noise_of(
    kernels: Kernels, operator: Operator, shape: tuple[int, ...], num: int = 4, **key: Any
) -> Array:
    """What the operator adds to empty cubes [num, *shape]."""
    draws = Draws(9, "train", np.arange(num, dtype=np.uint64), STAGE_OBSERVE)
    drawn = {name: torch.from_numpy(values) for name, values in operator.draw(draws).items()}
    cube = operator.apply(kernels, torch.zeros(num, *shape), keys(num, **key), drawn)
    return cube.numpy().astype(float)


def sigma_of(observe: dict[str, Any], **grid: Any) -> float:
    """sigma of a voxel under the last operator."""
    operator = operators(observe, **grid)[-1]
    draws = Draws(9, "train", np.arange(1, dtype=np.uint64), STAGE_OBSERVE)
    return float(operator.draw(draws)["voxel_sigma"][0])


# Radiometer.

COMAP = {"fov_deg": [1.4, 1.4], "shape": [512, 21, 21], "nu_GHz": [34.0, 26.0]}
"""Voxels of 4 arcmin and 15.625 MHz."""


def test_radiometer_by_hand() -> None:
    """44 K, 19 feeds, 1500 h on 1.4 x 1.4 deg = 441 pixels of 4 arcmin: 5.4e6 s / 441 = 12 245 s
    each; 19 * 12 245 s * 15.625 MHz = 3.6352e12, 44 K / 1.90662e6 = 23.08 uK."""
    radiometer = {"T_sys_K": 44.0, "n_feeds": 19, "hours": 1500.0}
    assert sigma_of({"noise": {"radiometer": radiometer}}, **COMAP) == pytest.approx(
        23.08, rel=2e-4
    )
    both = {**radiometer, "n_pol": 2}
    assert sigma_of({"noise": {"radiometer": both}}, **COMAP) == pytest.approx(
        23.08 / np.sqrt(2), rel=2e-4
    )


def test_radiometer_of_the_comap_forecast() -> None:
    """40 K, 19 feeds and 6000 h on 2.25 deg^2 (COMAP in pcbreysse/lim) give 11.24 uK, near the 11
    uK of Ihle et al. 2019 (1808.07487)."""
    radiometer = {"T_sys_K": 40.0, "n_feeds": 19, "hours": 6000.0, "field_deg2": 2.25}
    sigma = sigma_of({"noise": {"radiometer": radiometer}}, **COMAP)
    assert sigma == pytest.approx(40e6 / np.sqrt(19 * 6000 * 3600 / 506.25 * 15.625e6), rel=1e-6)
    assert sigma == pytest.approx(11.0, rel=0.03)
    assert sigma_of({"noise": {}}, **COMAP) == 11.0


@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_radiometer_after_a_pool(reduce: str) -> None:
    """The joined voxel was seen for longer in a wider channel; a sum has its number times that."""
    noise = {"radiometer": {"T_sys_K": 44.0, "n_feeds": 19, "hours": 1500.0}}
    fine = sigma_of({"noise": noise}, **COMAP)
    pool = {"factor": [4, 3, 3], "reduce": reduce}
    found = sigma_of({"pool": pool, "noise": noise}, **COMAP)
    assert found == pytest.approx(fine * (6 if reduce == "sum" else 1 / 6), rel=1e-6)
    field = {"radiometer": {**noise["radiometer"], "field_deg2": 1.96}}
    assert sigma_of({"pool": pool, "noise": field}, **COMAP) == pytest.approx(found, rel=1e-6)


@pytest.mark.parametrize(
    ("noise", "grid", "message"),
    [
        (
            {"sigma_uK": 3.0},
            {},
            "noise.sigma_uK beside .*: observe.noise.sigma_uK=null removes",
        ),
        (
            {"per": "fine_voxel"},
            {},
            "noise.per beside .*: observe.noise.per=map_voxel rem",
        ),
        ({}, {"units": "Jy/sr"}, "observe.noise.radiometer gives uK, but grid.units = Jy/sr"),
    ],
)
def test_radiometer_refused(noise: dict[str, Any], grid: dict[str, Any], message: str) -> None:
    radiometer = {"T_sys_K": 44.0, "n_feeds": 19, "hours": 1500.0}
    with pytest.raises(ConfigError, match=message):
        operators({"noise": {"radiometer": radiometer, **noise}}, **grid)


@pytest.mark.parametrize("name", ["noise", "edge_noise"])
def test_a_default_in_uK_is_none_in_other_units(name: str) -> None:
    operators({name: {}})
    operators({name: {"sigma_uK": 100.0}}, units="Jy/sr")
    with pytest.raises(ConfigError, match=rf"observe\.{name} needs sigma_uK .* in Jy/sr"):
        operators({name: {}}, units="Jy/sr")


# Edge noise.


def ramp(shape: tuple[int, int], width: float) -> Array:
    """The noise level of 1905.10376 over its maximum, at the centres of pixels."""
    d_dec, d_ra = (np.minimum(np.arange(n) + 0.5, n - np.arange(n) - 0.5) / n for n in shape)
    return np.maximum(np.maximum(1 - d_dec[:, None] / width, 1 - d_ra[None, :] / width), 0.0)


def edge(observe: dict[str, Any], **grid: Any) -> EdgeNoise:
    operator = operators(observe, **grid)[-1]
    assert isinstance(operator, EdgeNoise)
    return operator


def test_edge_ramp() -> None:
    """64 pixels: the border of 1/22 is 2.9 of them; at their centres 1 - 22 (k + 1/2) / 64."""
    noise = edge({"edge_noise": {}}, shape=[4, 64, 64])
    assert noise.sigma == (100.0, 100.0)
    section = EdgeNoiseConfig()
    assert noise.turned(section, 1.5) == {"sigma_uK = 100.0": replace(section, sigma_uK=150.0)}
    pixels = noise.pixels.values
    profile = [1 - 22 * (k + 0.5) / 64 for k in range(3)]
    for line in (pixels[32], pixels[:, 32]):
        np.testing.assert_allclose(line[:3], profile, rtol=1e-6)
        np.testing.assert_allclose(line[::-1][:3], profile, rtol=1e-6)
        assert not line[3:-3].any()
    np.testing.assert_allclose(pixels[0], profile[0], rtol=1e-6)
    assert pixels[2, 0] == pixels[0, 2] == pixels[0, 0]
    wide = edge({"edge_noise": {"width": 0.3}}, shape=[4, 20, 50]).pixels.values
    np.testing.assert_allclose(wide, ramp((20, 50), 0.3), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_edge_noise_of_the_published_pipeline(reduce: str) -> None:
    """sqrt of the sum of the variances (25 f)^2 of 10 x 4 x 4 fine voxels, f = 25 ramp."""
    pool = {"factor": [10, 4, 4], "reduce": reduce}
    operator = edge({"pool": pool, "edge_noise": PUBLISHED}, shape=[100, 256, 256])
    variance = np.broadcast_to((25 * 25 * ramp((256, 256), 1 / 22)) ** 2, (10, 256, 256))
    expected = np.sqrt(ref.pool_sum(variance, (10, 4, 4))[0])
    if reduce == "mean":
        expected = expected / 160
    found = 625.0 * operator.pixels.values.astype(float)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    if reduce == "sum":  # the outermost row, whose fine rows are 1/2 ... 7/2 fine pixels inside
        rows = 625.0 * (1 - 22 * (np.arange(4) + 0.5) / 256)
        assert found[32, 0] == pytest.approx(np.sqrt(40 * (rows**2).sum()), rel=1e-6)
        assert found[32, 0] > 6000


def test_edge_noise_before_the_pool_is_that_after_it(kernels: Kernels) -> None:
    pool = {"factor": [5, 4, 4], "reduce": "sum"}
    noise = {"sigma_uK": 3.0, "per": "fine_voxel", "width": 0.2}
    before, pooling = operators({"edge_noise": noise, "pool": pool})
    fine = noise_of(kernels, before, SHAPE, 400)
    pooled = pooling.apply(kernels, torch.from_numpy(fine.astype("f4")), keys(400), {}).numpy()
    operator = edge({"pool": pool, "edge_noise": noise})
    after = noise_of(kernels, operator, (2, 8, 8), 400)
    expected = 3.0 * operator.pixels.values
    inside = expected > 0
    for cube in (pooled, after):
        found = cube.astype(float).std(axis=(0, 1))
        np.testing.assert_allclose(found[inside], expected[inside], rtol=5.5 / np.sqrt(2 * 800))
        assert not cube[:, :, ~inside].any()


def test_pixel_noise_is_white_noise_times_its_level(kernels: Kernels) -> None:
    """The same random numbers, voxel by voxel; edges of the groups of four included."""
    shape = (3, 7, 9)
    (white,) = operators({"noise": {"sigma_uK": 1.0}}, shape=shape)
    operator = edge({"edge_noise": {"sigma_uK": 4.0, "width": 0.5}}, shape=shape)
    level = np.float32(4.0) * operator.pixels.values
    np.testing.assert_array_equal(
        noise_of(kernels, operator, shape, 5),
        noise_of(kernels, white, shape, 5).astype("f4") * level,
    )


def test_edge_noise_of_samples_splits_and_operators_is_independent(kernels: Kernels) -> None:
    config = {"sigma_uK": 1.0, "width": 0.5}
    first, second = operators({"edge_noise": config, "edge_noise_2": config})
    level = ramp((32, 32), 0.5)
    cubes = [
        noise_of(kernels, operator, SHAPE, 1, **key) / level
        for operator, key in (
            (first, {}),
            (second, {}),
            (first, {"first": 1}),
            (first, {"seed": 4}),
            (first, {"split": "test"}),
        )
    ]
    inside = np.broadcast_to(level > 0, cubes[0].shape)
    correlation = np.corrcoef([c[inside] for c in cubes]) - np.eye(len(cubes))
    assert np.abs(correlation).max() < 5 / np.sqrt(inside.sum())
    assert np.std(cubes[0][inside]) == pytest.approx(1, abs=5 / np.sqrt(2 * inside.sum()))


def test_drawn_level_of_the_edge() -> None:
    operator = edge({"edge_noise": {"sigma_uK": [10.0, 50.0], "absent": 0.3}})
    draws = Draws(9, "train", np.arange(4000, dtype=np.uint64), STAGE_OBSERVE)
    sigma = operator.draw(draws)["sigma_uK"]
    present = sigma[sigma > 0]
    assert len(present) / 4000 == pytest.approx(0.7, abs=5 * np.sqrt(0.21 / 4000))
    assert present.min() > 10 and present.max() < 50
    assert present.mean() == pytest.approx(30, abs=5 * 40 / np.sqrt(12 * len(present)))
    with pytest.raises(ConfigError, match=r"edge_noise.sigma_uK = \[5, 2\] must increase"):
        edge({"edge_noise": {"sigma_uK": [5, 2]}})


# Hit maps.

HITS = np.random.default_rng(5).integers(1, 20, (8, 16)).astype(float)
HITS[0] = 0.0
HITS[5, 7] = 0.0


def save(path: Path, hits: Any = HITS, name: str = "hits") -> str:
    np.savez(path, **{name: hits})
    return str(path)


def test_hits(kernels: Kernels, tmp_path: Path) -> None:
    """sigma sqrt(mean / hits), the mean over the pixels that were hit; the others are 0."""
    shape = (10, 8, 16)
    noise = {"sigma_uK": 2.0, "hits": save(tmp_path / "hits.npz")}
    (operator,) = operators({"noise": noise}, shape=shape)
    signal = torch.full((400, *shape), 5.0)
    drawn = {"voxel_sigma": torch.full((400,), 2.0)}
    cube = operator.apply(kernels, signal, keys(400), drawn).numpy().astype(float)
    hit = HITS > 0
    assert not cube[:, :, ~hit].any()
    expected = 2.0 * np.sqrt(HITS[hit].mean() / HITS[hit])
    found = cube[:, :, hit].std(axis=(0, 1))
    np.testing.assert_allclose(found, expected, rtol=5.5 / np.sqrt(2 * 4000))
    assert cube[:, :, hit].mean() == pytest.approx(5, abs=0.05)


def test_pixels_without_hits_are_zero_in_samples_without_noise(
    kernels: Kernels, tmp_path: Path
) -> None:
    noise = {"absent": 1.0, "hits": save(tmp_path / "hits.npz")}
    (operator,) = operators({"noise": noise}, shape=[10, 8, 16])
    cube = operator.apply(
        kernels, torch.full((1, 10, 8, 16), 5.0), keys(1), {"voxel_sigma": torch.zeros(1)}
    )
    np.testing.assert_array_equal(cube[0, 3].numpy(), np.where(HITS > 0, 5.0, 0.0))


@pytest.mark.parametrize("index", [0.5, -2.0])
def test_noise_that_depends_on_frequency(kernels: Kernels, tmp_path: Path, index: float) -> None:
    """sigma (nu / reference)^index in every channel, the random numbers being those without it; on
    top of a hit map too, whose unseen pixels stay 0."""
    grid = {"shape": [12, 32, 32], "nu_GHz": [300.0, 210.0], "nu_rest_GHz": 1900.537}
    pool = {"pool": {"factor": [3, 1, 1]}}
    nu = 300.0 - 22.5 * (np.arange(4) + 0.5)
    plain = operators({**pool, "noise": {"sigma_uK": 5.0}}, **grid)[-1]
    flat = noise_of(kernels, plain, (4, 32, 32))
    for given, reference in (({}, 255.0), ({"reference_GHz": 250.0}, 250.0)):
        noise = {"sigma_uK": 5.0, "index": index, **given}
        steep = noise_of(kernels, operators({**pool, "noise": noise}, **grid)[-1], (4, 32, 32))
        expected = flat * ((nu / reference) ** index)[:, None, None]
        np.testing.assert_allclose(steep, expected, rtol=1e-6)
    with pytest.raises(ConfigError, match="reference_GHz needs observe"):
        operators({"noise": {"reference_GHz": 250.0}}, **grid)
    hits = np.ones((32, 32))
    hits[:, :16] = 0.0
    file = tmp_path / "half.npz"
    np.savez(file, hits=hits)
    both = {**pool, "noise": {"sigma_uK": 5.0, "index": index, "hits": str(file)}}
    half = noise_of(kernels, operators(both, **grid)[-1], (4, 32, 32))
    assert not half[..., :16].any()
    expected = flat * ((nu / 255.0) ** index)[:, None, None]
    np.testing.assert_allclose(half[..., 16:], expected[..., 16:], rtol=1e-6)


def test_noise_of_the_cii_preset() -> None:
    """Its level is that of Sato-Polito et al. 2020 (2011.08193), as the code LIMxCMBL takes it:
    5.7e4 Jy/sr in a pixel of (30 arcsec)^2 / (8 ln 2) and a channel of nu / 100, in the preset's
    voxels at equal time of the field. Its slope is that of CCAT's Sensitivity-Calculator, noise of
    a detector at 222 GHz and in a band that it has at 285 GHz and at 1071 um. In a survey of 2000 h
    for each of two fields of 4 deg^2, 15 settings of the Fabry-Perot and 175 detectors per GHz of a
    whole scan, that noise is 0.78 of the level: detectors and time are lost."""
    config = load_config("configs/cii.yaml")
    [noise] = [o for o in config.observe.values() if isinstance(o, NoiseConfig)]
    assert noise.reference_GHz == 250.0 and isinstance(noise.sigma_uK, float)
    assert config.observation.state.shape == (36, 64, 64)
    side = np.radians(config.grid.fov_deg[0]) / 64
    theirs = np.radians(30 / 3600) ** 2 / (8 * np.log(2))
    assert noise.sigma_uK == pytest.approx(5.7e4 * np.sqrt(theirs / side**2), rel=2e-3)
    low, high = 856187.459, 1513960.625
    slopes = [np.log(high / low) / np.log(nu / 222.0) for nu in (285.0, 299792.458 / 1071)]
    assert slopes[0] < noise.index < slopes[1]
    seconds = 175 * 2.5 * 2000 / 15 * 3600
    of_plan = low * (250 / 222) ** noise.index * np.sqrt(np.radians(2) ** 2 / side**2 / seconds)
    assert of_plan / noise.sigma_uK == pytest.approx(0.78, abs=0.01)


def test_noise_of_the_time_preset() -> None:
    """Its range is that of two forecasts of the collaboration, whose numbers stand in the file: of
    1000 h, a pixel of the 180 has those of 32 detectors for a 180th. One gives noise of a detector
    in two bands [Jy/sr s^0.5], the other sigma of a pixel [Jy/sr] by frequency."""
    config = load_config("configs/time.yaml")
    [noise] = [o for o in config.observe.values() if isinstance(o, NoiseConfig)]
    assert noise.reference_GHz == 250.0 and isinstance(noise.sigma_uK, tuple)
    assert config.observation.state.shape == (40, 1, 180)
    sides_arcmin = 60.0 * config.grid.fov_deg[0] / 180, 60.0 * config.grid.fov_deg[1]
    assert sides_arcmin == pytest.approx((0.43, 0.43))
    seconds = 1000 * 3600 * 32 / 180
    low, high = noise.sigma_uK
    for detector, nu in ((1e7, (230.68 + 301.99) / 2), (5e6, (199.86 + 228.58) / 2)):
        sigma = low * (nu / 250.0) ** noise.index
        assert sigma == pytest.approx(detector / seconds**0.5, rel=0.01)
    plotted = {215: 1.08e4, 235: 1.65e4, 250: 1.9e4, 280: 2.6e4, 300: 3.7e4}
    for nu, sigma in plotted.items():
        assert high * (nu / 250.0) ** noise.index == pytest.approx(sigma, rel=0.1)


def test_hits_by_a_formula(kernels: Kernels) -> None:
    """Half the time at half the FWHM is sqrt(2) the noise; beyond the radius there is none."""
    grid: dict[str, Any] = {"fov_deg": [1.2, 0.8], "shape": [2, 80, 120]}
    hits = {"fwhm_deg": 0.4, "radius_deg": 0.35}
    (operator,) = operators({"noise": {"sigma_uK": 3.0, "hits": hits}}, **grid)
    pattern = operator.sigma_pattern()
    assert pattern is not None and pattern.shape == (80, 120)
    ra, dec = (np.arange(120) - 59.5) * 0.01, (np.arange(80) - 39.5) * 0.01
    square = dec[:, None] ** 2 + ra**2
    seen = square <= 0.35**2
    time = np.where(seen, 0.5 ** (square / 0.2**2), 0.0)
    expected = np.where(seen, np.sqrt(time[seen].mean() / np.where(seen, time, 1.0)), -1.0)
    np.testing.assert_allclose(pattern, expected, rtol=1e-5)
    np.testing.assert_array_equal(operator.unseen(), ~seen)
    with pytest.raises(ConfigError, match=r"radius_deg = 0\.001 leaves no pixel"):
        operators({"noise": {"hits": {"fwhm_deg": 0.4, "radius_deg": 0.001}}}, **grid)


def test_even_hits_change_nothing(kernels: Kernels, tmp_path: Path) -> None:
    path = save(tmp_path / "even.npz", np.full((32, 32), 3), "anything")
    (plain,) = operators({"noise": {}})
    (operator,) = operators({"noise": {"hits": path}})
    np.testing.assert_array_equal(
        noise_of(kernels, operator, SHAPE), noise_of(kernels, plain, SHAPE)
    )


def test_hits_are_of_the_map_where_the_noise_is_added(tmp_path: Path) -> None:
    """After a pool the map is smaller; a radiometer's sigma is that of the mean time."""
    radiometer = {"T_sys_K": 44.0, "n_feeds": 19, "hours": 1500.0}
    noise = {"radiometer": radiometer, "hits": save(tmp_path / "hits.npz")}
    pool = {"factor": [1, 4, 2]}
    (_, operator) = operators({"pool": pool, "noise": noise})
    assert isinstance(operator, Noise) and operator.pixels is not None
    assert operator.pixels.values.shape == (8, 16)
    message = (
        r"observe.noise.hits: .* has shape \(8, 16\), the map there \[n_dec, n_ra\] = \(32, 32\)"
    )
    with pytest.raises(ConfigError, match=message):
        operators({"noise": noise, "pool": pool})


@pytest.mark.filterwarnings("default")  # those of another package
def test_fits_hits(tmp_path: Path) -> None:
    """An image in the first or a later unit, big-endian as FITS is, also compressed."""
    fits = pytest.importorskip("astropy.io.fits")
    primary = fits.PrimaryHDU(HITS.astype(np.float32))
    primary.writeto(tmp_path / "a.fits")
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(HITS.astype(np.int16))]).writeto(
        tmp_path / "b.fits.gz"
    )
    found = []
    for path in (tmp_path / "a.fits", tmp_path / "b.fits.gz", Path(save(tmp_path / "c.npz"))):
        (operator,) = operators({"noise": {"hits": str(path)}}, shape=[10, 8, 16])
        assert isinstance(operator, Noise) and operator.pixels is not None
        found.append((operator.digest, operator.pixels.values))
    assert len({digest for digest, _ in found}) == 1
    for _, values in found:
        np.testing.assert_array_equal(values, found[0][1])
    fits.PrimaryHDU().writeto(tmp_path / "empty.fits")
    (tmp_path / "text.fits").write_text("nothing")
    for name, message in (
        ("empty", "holds no image of two axes"),
        ("text", "cannot be read, or is cut short: "),
    ):
        with pytest.raises(ConfigError, match=message):
            operators({"noise": {"hits": str(tmp_path / f"{name}.fits")}})


def test_fits_without_astropy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hits.fits").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "astropy", None)
    monkeypatch.setitem(sys.modules, "astropy.io", None)
    with pytest.raises(ConfigError, match=r"FITS needs `pip install astropy`"):
        operators({"noise": {"hits": str(tmp_path / "hits.fits")}})


@pytest.mark.parametrize(
    ("hits", "message"),
    [
        (-HITS, "hits that are negative, not finite"),
        (np.full((8, 16), np.nan), "hits that are negative, not finite"),
        (np.full((8, 16), 1e30), "hits that are negative, not finite or above 1e[+]20"),
        (np.zeros((8, 16)), "no pixel that was hit"),
        (np.zeros((8, 16, 2)), r"shape \(8, 16, 2\), the map there \[n_dec, n_ra\] = \(8, 16\)"),
        (np.full((8, 16), "a"), "holds <U1, not numbers"),
        (np.full((8, 16), None), "cannot be read: .*allow_pickle=False"),
    ],
)
def test_hits_refused(hits: Any, message: str, tmp_path: Path) -> None:
    path = save(tmp_path / "hits.npz", hits)
    with pytest.raises(ConfigError, match=message):
        operators({"noise": {"hits": path}}, shape=[10, 8, 16])


def test_files_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", a=HITS, b=HITS)
    (tmp_path / "text.npz").write_text("nothing")
    (tmp_path / "hits.txt").write_text("1 2")
    for name, message in (
        ("two.npz", "holds no array 'hits' but a, b"),
        ("text.npz", "cannot be read: it is neither npz nor FITS"),
        ("hits.txt", "is neither npz nor FITS"),
        ("none.npz", "there is no file"),
    ):
        with pytest.raises(ConfigError, match=message):
            operators({"noise": {"hits": str(tmp_path / name)}})


@small.EXTRAPOLATES
def test_identity_sees_the_numbers_of_a_hit_map(small_sky: Lightcone, tmp_path: Path) -> None:
    """They decide samples, wherever the file lies."""

    def generator(path: str | None) -> Generator:
        config = small.config(observe={"noise": {"hits": path}})
        return Generator(config, lightcones=[small_sky])

    hits = np.arange(1.0, 21 * 21 + 1).reshape(21, 21)
    here, there = (generator(save(tmp_path / f"{n}.npz", hits)) for n in "ab")
    other = generator(save(tmp_path / "c.npz", hits + 1))
    assert here.identity() == there.identity()
    assert set(here.identity()["observe"]) == {"noise"}
    assert other.identity() != here.identity()
    assert "observe" not in generator(None).identity()
    assert here.config.sample_settings() == there.config.sample_settings()
    assert here.config.sample_settings()["observe"]["noise"]["hits"] == "file"
    assert here.config.sample_settings() != generator(None).config.sample_settings()
    assert other.generate([0]).digests() != here.generate([0]).digests()
