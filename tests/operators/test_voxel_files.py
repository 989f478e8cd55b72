"""Sigma, hits and masks per voxel, from cubes in files of every layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support import map_runs as runs
from support import small
from support.operator_tools import keys

from streamtrain import observe
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.config import ConfigError, from_mapping
from streamtrain.evaluate.inference.prepare import prepare
from streamtrain.generator.generator import Generator
from streamtrain.maps.read import read_map
from streamtrain.maps.regrid import mean_over, overlap
from streamtrain.numerics.backend import Kernels
from streamtrain.operators import voxel_files as voxels_module
from streamtrain.operators.mask import Mask
from streamtrain.operators.noise import Noise
from streamtrain.operators.voxel_files import read_voxels
from streamtrain.schema import AssumptionWarning

pytestmark = small.ASSUMES

Array = NDArray[np.float64]

SIGMA = np.random.default_rng(3).uniform(1.0, 9.0, runs.SHAPE)
SIGMA[0, 3:5, 7] = 0.0
SIGMA[:, 11, 2] = 0.0
SEEN = SIGMA > 0
LEVEL = 1.0 / np.sqrt((1.0 / SIGMA[SEEN] ** 2).mean())
"""Sigma of a voxel with the mean weight."""
PATTERN = np.where(SEEN, SIGMA / LEVEL, -1.0)


def built(shape: tuple[int, ...] = runs.SHAPE, units: str = "uK", **observe: Any) -> list[Any]:
    """Operators on the field of `runs`."""
    grid = {"fov_deg": runs.FOV_DEG, "shape": list(shape), "units": units}
    return from_mapping({"grid": grid, "observe": observe}).observation.operators()


def noise_of(path: Path, key: str = "rms", **given: Any) -> Noise:
    (operator,) = built(noise={key: str(path), **given})
    assert isinstance(operator, Noise)
    return operator


WRITERS: dict[str, Callable[..., Path]] = {
    "sigma.fits": runs.write_fits,
    "limlam.npz": lambda path, cube: runs.write_limlam(path, cube, units="uK"),
    "edges.npz": lambda path, cube: runs.write_edges(path, cube, units="uK"),
    "sigma.h5": runs.write_hdf5,
}


@pytest.mark.parametrize("name", WRITERS)
def test_sigma_of_every_layout(tmp_path: Path, name: str) -> None:
    """Its own level where none is given, else the given one at a voxel of mean weight; the same
    identity whatever the file."""
    path = WRITERS[name](tmp_path / name, SIGMA)
    own = noise_of(path)
    assert own.sigma == (pytest.approx(LEVEL, rel=1e-12),) * 2 and own.voxels is not None
    np.testing.assert_allclose(own.voxels.values, PATTERN, rtol=1e-6)
    given = noise_of(path, sigma_uK=[2.0, 4.0], per="fine_voxel")
    assert given.sigma == (2.0, 4.0) and given.voxels is not None
    np.testing.assert_array_equal(given.voxels.values, own.voxels.values)
    assert own.identity() == noise_of(runs.write_hdf5(tmp_path / "same", SIGMA)).identity()
    assert own.identity() != noise_of(runs.write_hdf5(tmp_path / "other", SIGMA * 2)).identity()
    np.testing.assert_array_equal(own.unseen(), ~SEEN)


def test_noise_of_that_sigma(kernels: Kernels, tmp_path: Path) -> None:
    """In every voxel, and nothing in those that were not observed, without noise neither."""
    noise = noise_of(runs.write_hdf5(tmp_path / "s.h5", np.where(SEEN, SIGMA, np.nan)))
    cubes = torch.full((400, *runs.SHAPE), 100.0)
    drawn = {"voxel_sigma": torch.full((400,), float(np.float32(noise.sigma[0])))}
    found = noise.apply(kernels, cubes, keys(400), drawn).numpy().astype(float)
    assert not found[:, ~SEEN].any()
    scatter = (found[:, SEEN] - 100.0) / SIGMA[SEEN]
    assert np.abs(scatter.mean(axis=0)).max() < 5.0 / np.sqrt(400)
    np.testing.assert_allclose(scatter.std(axis=0), 1.0, atol=5.5 / np.sqrt(800))
    without = noise.apply(
        kernels, torch.ones(1, *runs.SHAPE), keys(1), {"voxel_sigma": torch.zeros(1)}
    )
    np.testing.assert_array_equal(without[0].numpy(), SEEN)


def test_units_of_sigma(tmp_path: Path) -> None:
    milli = runs.write_fits(tmp_path / "mK.fits", SIGMA / 1000, BUNIT="mK")
    assert noise_of(milli).sigma[0] == pytest.approx(LEVEL, rel=1e-9)
    (jansky,) = built(units="Jy/sr", noise={"rms": str(runs.write_hdf5(
        tmp_path / "k.h5", SIGMA, units="kJy/sr"))})  # fmt: skip
    assert jansky.sigma[0] == pytest.approx(1000 * LEVEL, rel=1e-9)
    with pytest.raises(ConfigError, match=r"is in mK, but grid.units = Jy/sr"):
        built(units="Jy/sr", noise={"rms": str(milli)})
    silent = runs.write_fits(tmp_path / "none.fits", SIGMA, BUNIT=None)
    with pytest.raises(ConfigError, match=r"observe.noise.rms: .* does not say the units"):
        noise_of(silent)
    ratios = noise_of(silent, sigma_uK=3.0).sigma_pattern()
    np.testing.assert_allclose(ratios, PATTERN, rtol=1e-6)


@pytest.mark.parametrize(("grid", "file"), [("Jy/sr", "K"), ("uK", "kJy/sr")])
def test_ratios_of_sigma_in_the_other_kind_of_units(tmp_path: Path, grid: str, file: str) -> None:
    """Intensity over temperature goes as the square of frequency, also where a level is given."""
    nu = np.array([32.667, 30.0, 27.333])
    power = 2.0 if grid == "Jy/sr" else -2.0
    path = runs.write_hdf5(tmp_path / "s.h5", np.full(runs.SHAPE, 5.0), units=file)
    with pytest.warns(AssumptionWarning, match=f"converted from {file} to {grid} at each channel"):
        (noise,) = built(units=grid, noise={"rms": str(path), "sigma_uK": 4.0})
    sigma = noise.sigma_pattern()[:, 0, 0]
    np.testing.assert_allclose(sigma / sigma[1], (nu / 30.0) ** power, rtol=1e-4)
    assert (1 / sigma.astype(float) ** 2).mean() == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize(
    ("unit", "grid", "factor"),
    [("mK", "uK", 1e3), ("uK", "uK", 1.0), ("MJy/sr", "Jy/sr", 1e6), ("Jy sr-1", "Jy/sr", 1.0)],
)
def test_units_of_an_image_of_sigma(tmp_path: Path, unit: str, grid: str, factor: float) -> None:
    """BUNIT says the level of sigma per pixel; one of the other kind, or none, is refused."""
    fits = pytest.importorskip("astropy.io.fits")
    file, sigma = tmp_path / "sigma.fits", SIGMA[1]
    runs.write_fits(file, SIGMA)

    def written(unit: str | None) -> None:
        with fits.open(file) as units:
            old = units[0].header
        names = ("CTYPE", "CRVAL", "CRPIX", "CDELT", "CUNIT")
        cards = {f"{n}{k}": old[f"{n}{k}"] for k in (1, 2) for n in names if f"{n}{k}" in old}
        header = fits.Header(cards | ({} if unit is None else {"BUNIT": unit}))
        fits.PrimaryHDU(sigma, header).writeto(file, overwrite=True)

    written(unit)
    noise = built(units=grid, noise={"rms": str(file)})[0]
    seen = sigma > 0
    level = factor / np.sqrt((1.0 / sigma[seen] ** 2).mean())
    assert noise.sigma == (pytest.approx(level, rel=1e-9),) * 2 and noise.pixels is not None
    other = {"uK": "Jy/sr", "Jy/sr": "uK"}[grid]
    with pytest.raises(ConfigError, match=f"is in {unit}, but grid.units = {other}"):
        built(units=other, noise={"rms": str(file)})
    assert built(units=other, noise={"rms": str(file), "sigma_uK": 2.0})[0].sigma == (2.0, 2.0)
    for text, message in ((None, "numbers per pixel and no BUNIT"), ("K_CMB", "none of uK, mK")):
        written(text)
        with pytest.raises(ConfigError, match=message):
            built(units=grid, noise={"rms": str(file)})


def test_sigma_of_voxels_that_are_summed(tmp_path: Path) -> None:
    """The file's is that of a brightness; a sum of 6 has six times that."""
    path = runs.write_hdf5(tmp_path / "s.h5", SIGMA)
    pool = {"factor": [3, 2, 1], "reduce": "sum"}
    _, noise = built((9, 40, 24), pool=pool, noise={"rms": str(path)})
    assert noise.sigma[0] == pytest.approx(6 * LEVEL, rel=1e-12)


def test_another_level_of_a_map_of_sigma(tmp_path: Path) -> None:
    """All of it times a factor, also in voxels that are summed."""
    path = runs.write_hdf5(tmp_path / "s.h5", SIGMA)
    pool = {"factor": [3, 2, 1], "reduce": "sum"}
    grid = {"fov_deg": runs.FOV_DEG, "shape": [9, 40, 24]}
    config = from_mapping({"grid": grid, "observe": {"pool": pool, "noise": {"rms": str(path)}}})
    step = config.observation.steps[1]
    ((said, section),) = step.build().turned(step.section, 1.25).items()
    assert said == f"rms = {path}"
    observe = {**config.observe, "noise": section}
    _, louder = replace(config, observe=observe).observation.operators()
    np.testing.assert_allclose(
        louder.levels_of_voxels()[0], 6 * 1.25 * np.where(SEEN, SIGMA, np.nan), rtol=1e-6
    )


def on_other_voxels(folder: Path, values: Array, margin: float, **changes: Any) -> Path:
    """A file of a band and field that reach `margin` of their width beyond the map's."""
    num_freq, num_dec, num_ra = values.shape
    wide = 1.0 + 2.0 * margin
    dec, ra = (0.5 * wide * side for side in (runs.FOV_DEG[1], runs.FOV_DEG[0]))
    axes = {
        "nu_edges_GHz": np.linspace(30 + 4 * wide, 30 - 4 * wide, num_freq + 1),
        "dec_edges_deg": np.linspace(-dec, dec, num_dec + 1),
        "ra_edges_deg": np.linspace(-ra, ra, num_ra + 1),
    }
    return runs.write_hdf5(folder, values, **axes, **changes)


def shares_of(path: Path, shape: tuple[int, int, int]) -> tuple[Array, Array, Array]:
    sky = read_map(path, units="uK")
    nu, dec, ra = runs.edges(shape)
    return (
        overlap(sky.freq.edges, nu, "GHz"),
        overlap(sky.dec.edges, dec, "deg in dec"),
        overlap(sky.ra.edges, ra, "deg in ra"),
    )


def test_sigma_on_other_voxels(tmp_path: Path) -> None:
    """That of a map which `infer --regrid` makes of one with this noise: the root of the sum of
    the squares of sigma times the mean's response to each voxel, of which some have no value."""
    shape, rng = (2, 3, 4), np.random.default_rng(1)
    fine = rng.uniform(1.0, 5.0, (5, 8, 9))
    fine[:, :4, :2] = 0.0
    path = on_other_voxels(tmp_path / "fine.h5", fine, 0.07)
    shares = shares_of(path, shape)
    variance = np.zeros(shape)
    for place in zip(*np.nonzero(fine), strict=True):
        impulse = np.where(fine > 0, 0.0, np.nan)
        impulse[place] = fine[place]
        variance += mean_over(impulse, shares) ** 2
    with pytest.warns(AssumptionWarning, match=r"was brought from 5 x 8 x 9 to 2 x 3 x 4 voxels"):
        (noise,) = built(shape, noise={"rms": str(path)})
    expected, seen = np.sqrt(variance), np.isfinite(variance)
    assert 0 < (~seen).sum() < seen.sum()
    np.testing.assert_array_equal(noise.unseen(), ~seen)
    np.testing.assert_allclose((noise.sigma[0] * noise.voxels.values)[seen], expected[seen],
                               rtol=1e-6)  # fmt: skip


def test_hits_and_masks_on_other_voxels(tmp_path: Path) -> None:
    """Voxels of 2 x 2 x 2: hits are their sum, and half of a voxel decides whether it was hit, and
    a mask; hits of voxels that lie across two are shared by volume."""
    rng = np.random.default_rng(2)
    hits = rng.integers(0, 9, (6, 40, 48)).astype(float)
    blocks = hits.reshape(3, 2, 20, 2, 24, 2)
    sums = np.where((blocks > 0).sum(axis=(1, 3, 5)) >= 4, blocks.sum(axis=(1, 3, 5)), 0.0)
    path = on_other_voxels(tmp_path / "hits.h5", hits, 0.0, units=None)
    noise = noise_of(path, "hits", sigma_uK=2.0)
    expected = np.sqrt(sums[sums > 0].mean() / sums[sums > 0])
    np.testing.assert_allclose(noise.sigma_pattern()[sums > 0], expected, rtol=1e-6)  # type: ignore[index]
    keep = (rng.uniform(size=hits.shape) > 0.5).astype(float)
    kept = keep.reshape(3, 2, 20, 2, 24, 2).sum(axis=(1, 3, 5)) >= 4
    path = on_other_voxels(tmp_path / "mask.h5", keep, 0.0, units=None)
    (mask,) = built(mask={"file": str(path)})
    np.testing.assert_array_equal(mask.keep.values, kept)
    even = on_other_voxels(tmp_path / "even.h5", np.full((7, 31, 37), 3.0), 0.0, units=None)
    (noise,) = built(noise={"hits": str(even)})
    np.testing.assert_allclose(noise.sigma_pattern(), 1.0, rtol=1e-6)


def test_hits_leave_the_voxels_that_the_regridded_map_has(tmp_path: Path) -> None:
    """A voxel of which less than half was hit has no value in a map, and no hits."""
    hits = np.random.default_rng(8).integers(0, 2, (6, 40, 48)).astype(float)
    path = on_other_voxels(tmp_path / "hits.h5", hits, 0.0, units=None)
    mean = mean_over(np.where(hits > 0, 1.0, np.nan), shares_of(path, runs.SHAPE))
    unseen = noise_of(path, "hits", sigma_uK=2.0).unseen()
    assert unseen is not None and 0.1 < unseen.mean() < 0.9
    np.testing.assert_array_equal(unseen, np.isnan(mean))


def test_mask_of_voxels(kernels: Kernels, tmp_path: Path) -> None:
    """Whatever masked voxels hold becomes 0, in every cube; the border besides."""
    keep = (np.random.default_rng(5).uniform(size=runs.SHAPE) > 0.3).astype(int)
    path = runs.write_fits(tmp_path / "mask.fits", keep, BUNIT=None)
    (mask,) = built(mask={"file": str(path), "edge_pixels": 2})
    assert isinstance(mask, Mask) and mask.identity() is not None
    expected = keep.copy()
    expected[:, [0, 1, -2, -1]] = 0
    expected[:, :, [0, 1, -2, -1]] = 0
    cubes = torch.where(torch.from_numpy(expected) == 1, 7.0, torch.nan).repeat(3, 1, 1, 1)
    found = mask.apply(kernels, cubes, keys(3), {})
    np.testing.assert_array_equal(found.numpy(), np.stack([7.0 * expected] * 3))
    grey = runs.write_fits(tmp_path / "grey.fits", keep * 0.5, BUNIT=None)
    with pytest.raises(ConfigError, match=r"observe.mask.file: .* holds 0.5, a mask holds 1"):
        built(mask={"file": str(grey)})
    with pytest.raises(ConfigError, match=r"observe.mask masks every voxel"):
        built(mask={"file": str(runs.write_hdf5(tmp_path / "no.h5", np.zeros(runs.SHAPE)))})


def test_a_map_that_carries_its_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a map with sigma and hits these are taken, not its temperatures; a voxel without hits was
    not observed, whatever its sigma says."""
    temperatures = np.random.default_rng(4).normal(0, 3, runs.SHAPE)
    path = runs.write_hdf5(tmp_path / "map.h5", temperatures)
    hits = np.where(SEEN, 1000.0 / np.maximum(SIGMA, 1) ** 2, 0.0)
    hits[2, 5, 5] = 0.0
    monkeypatch.setattr(
        voxels_module,
        "read_map",
        lambda *args, **said: replace(
            read_map(*args, **said), sigma=np.where(SEEN, SIGMA, np.nan), hits=hits
        ),
    )
    observed = hits > 0
    noise = noise_of(path)
    np.testing.assert_array_equal(noise.unseen(), ~observed)
    found = noise.sigma[0] * noise.sigma_pattern()  # type: ignore[operator]
    np.testing.assert_allclose(found[observed], SIGMA[observed], rtol=1e-6)
    np.testing.assert_allclose(
        noise_of(path, "hits").sigma_pattern()[observed],  # type: ignore[index]
        noise.sigma_pattern()[observed],  # type: ignore[index]
        rtol=1e-6,
    )
    (mask,) = built(mask={"file": str(path)})
    np.testing.assert_array_equal(mask.keep.values, observed)


def test_files_that_are_something_else(tmp_path: Path) -> None:
    temperatures = np.random.default_rng(4).normal(0, 3, runs.SHAPE)
    path = runs.write_hdf5(tmp_path / "map.h5", temperatures)
    for key, what in (("rms", "it is no map of sigma"), ("hits", "it is no map of hits")):
        with pytest.raises(ConfigError, match=what):
            noise_of(path, key, sigma_uK=1.0)
    np.savez(tmp_path / "rms.npz", rms=np.ones(runs.SHAPE[1:]))
    assert noise_of(tmp_path / "rms.npz", sigma_uK=2.0).pixels is not None
    with pytest.raises(ConfigError, match="it holds no array 'hits' but rms"):
        noise_of(tmp_path / "rms.npz", "hits", sigma_uK=2.0)
    empty = runs.write_hdf5(tmp_path / "empty.h5", np.zeros(runs.SHAPE))
    with pytest.raises(ConfigError, match=r"noise.rms: .* holds no voxel that was observed"):
        noise_of(empty)
    small_field = on_other_voxels(tmp_path / "small.h5", SIGMA, -0.1)
    with pytest.raises(ConfigError, match=r"covers 26.8 to 33.2 GHz, the map there 26 to 34"):
        noise_of(small_field)
    coarse = on_other_voxels(tmp_path / "coarse.h5", SIGMA[:, ::2], 0.0)
    with pytest.raises(ConfigError, match="cannot be made finer"):
        noise_of(coarse)
    np.savez(tmp_path / "pixels.npz", sigma=np.ones(runs.SHAPE[1:]))
    with pytest.raises(ConfigError, match="holds numbers per pixel and no BUNIT"):
        noise_of(tmp_path / "pixels.npz")
    assert noise_of(tmp_path / "pixels.npz", sigma_uK=2.0).pixels is not None
    with pytest.raises(ConfigError, match="there is no file"):
        noise_of(tmp_path / "none.h5")
    (tmp_path / "cut.h5").write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ConfigError, match=r"observe.noise.rms: .* cannot be read"):
        noise_of(tmp_path / "cut.h5")


@pytest.mark.parametrize(
    ("key", "carried", "advice"),
    [("hits", "sigma", "name it in rms instead"), ("rms", "hits", "name it in hits instead")],
)
def test_a_map_that_carries_the_other(tmp_path: Path, key: str, carried: str, advice: str) -> None:
    """Its temperatures, which are all positive, are neither."""
    path = runs.write_hdf5(tmp_path / "map.h5", np.full(runs.SHAPE, 3.0))
    with h5py.File(path, "a") as file:
        file[carried] = np.ones(runs.SHAPE)
    with pytest.raises(ConfigError, match=rf"carries {carried}, no .*{advice}"):
        noise_of(path, key, sigma_uK=1.0)


@pytest.mark.filterwarnings("default")
def test_temperatures_that_are_taken_for_hits_are_said(tmp_path: Path) -> None:
    path = runs.write_hdf5(tmp_path / "map.h5", np.full(runs.SHAPE, 3.0))
    with pytest.warns(AssumptionWarning, match="in uK, and its numbers were taken for hits"):
        noise_of(path, "hits", sigma_uK=1.0)


@pytest.mark.parametrize(
    ("beside", "name"),
    [({"hits": "h.npz"}, "hits"), ({"index": 0.5}, "index"), ({"per": "fine_voxel"}, "per")],
)
def test_what_does_not_go_with_sigma(beside: dict[str, Any], name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"observe.noise.{name} beside observe.noise.rms"):
        from_mapping({"observe": {"noise": {"rms": "s.h5", **beside}}})


def test_infer_sets_voxels_that_were_not_observed_to_zero(tmp_path: Path) -> None:
    path = runs.write_hdf5(tmp_path / "s.h5", SIGMA)
    cube = np.random.default_rng(2).normal(5.0, 2.0, runs.SHAPE)
    cube[~SEEN] = np.nan
    sky = read_map(runs.write_hdf5(tmp_path / "m.h5", cube))
    grid = {"fov_deg": runs.FOV_DEG, "shape": list(runs.SHAPE)}
    config = from_mapping({"grid": grid, "observe": {"noise": {"rms": str(path)}}})
    found = prepare(sky, config)
    np.testing.assert_array_equal(found.cube.numpy(), np.where(SEEN, cube, 0.0).astype(np.float32))
    assert "voxels without hits in noise were set to 0" in found.notes


def test_masked_voxels_may_have_no_value(tmp_path: Path) -> None:
    """A mask at the head of the operators removes them from a map of one's own, in `observe` and
    for a network, and zeros that a mask made are told from others by `skip_zeros`."""
    cube = np.random.default_rng(2).normal(5.0, 2.0, runs.SHAPE).astype(np.float32)
    lost = np.where(SEEN, cube, np.nan)
    path = runs.write_hdf5(tmp_path / "mask.h5", SEEN.astype(float))
    grid = {"fov_deg": runs.FOV_DEG, "shape": list(runs.SHAPE)}
    steps = {"mask": {"file": str(path)}, "subtract_mean": {"skip_zeros": True}}
    config = from_mapping({"grid": grid, "observe": steps})
    means = np.nanmean(lost.astype(float), axis=(1, 2), keepdims=True)
    expected = np.where(SEEN, cube - means, 0.0)
    mine = observe(lost, config).numpy()
    theirs = prepare(read_map(runs.write_hdf5(tmp_path / "m.h5", lost)), config).cube.numpy()
    for found in (mine, theirs):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(found == 0, ~SEEN)


@small.EXTRAPOLATES
def test_identity_sees_sigma(small_sky: Lightcone, tmp_path: Path) -> None:
    """It decides samples, wherever the file lies; a configuration without it is what it was."""
    shape = (9, 21, 21)
    sigma = np.random.default_rng(1).uniform(1, 2, shape)
    axes = {
        "nu_edges_GHz": np.linspace(34.0, 26.0, 10),
        "dec_edges_deg": np.linspace(-0.4, 0.4, 22),
        "ra_edges_deg": np.linspace(-0.4, 0.4, 22),
    }

    def generator(name: str, values: Array) -> Generator:
        path = runs.write_hdf5(tmp_path / name, values, **axes)
        config = small.config(observe={"noise": {"rms": str(path)}})
        return Generator(config, lightcones=[small_sky])

    here, there, other = generator("a", sigma), generator("b", sigma), generator("c", sigma * 2)
    assert here.identity() == there.identity() != other.identity()
    assert here.config.sample_settings() == there.config.sample_settings()
    assert here.config.sample_settings()["observe"]["noise"]["rms"] == "file"
    assert here.generate([0]).digests() == there.generate([0]).digests()
    plain = small.config(observe={"noise": {}}).sample_settings()
    assert "rms" not in plain["observe"]["noise"]


def test_a_file_is_read_once_for_all_that_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What looks at the noise before it finds the operator that maps go through."""
    path, read = runs.write_fits(tmp_path / "sigma.fits", SIGMA), []

    def counted(*args: Any, **given: Any) -> Any:
        read.append(args[0])
        return read_voxels(*args, **given)

    monkeypatch.setattr("streamtrain.operators.hits.read_voxels", counted)
    noise, correlated, pca = built(
        noise={"rms": str(path)},
        correlated_noise={"sigma_uK": 1.0, "knee_per_GHz": 1.0},
        pca={"modes": 1},
    )
    assert read == [str(path)]
    for operator in (correlated.voxels, pca.sigma):
        np.testing.assert_array_equal(operator.values.ravel(), noise.voxels.values.ravel())
