"""configs/pfeffer2019/published.yaml, step by step against a plain statement of the pipeline; and
configs/time.yaml: a strip of one pixel across, five lines in one band."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from support import small
from support.network_tools import network_for

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.config import load_config
from streamtrain.cosmology import Cosmology
from streamtrain.generator.generator import Generator

OVERRIDES = ["grid.fov_deg=[0.8, 0.8]"]
NUM = 60


@pytest.fixture(scope="module")
def published(small_sky: Lightcone) -> Generator:
    config = load_config("configs/pfeffer2019/published.yaml", OVERRIDES)
    return Generator(config, lightcones=[small_sky])


@pytest.fixture(scope="module")
def samples(published: Generator) -> list[tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """What was drawn, and the map after every step."""
    records = published.draw(range(NUM)).records
    steps = [
        {name: cube.double().numpy() for name, cube in published.steps(index)}
        for index in range(NUM)
    ]
    return list(zip(records, steps, strict=True))


def test_order(samples: list[tuple[dict[str, Any], dict[str, np.ndarray]]]) -> None:
    names = ["line", "brightness", "radio_sources", "noise", "log_modulus", "beam"]
    assert all(list(steps) == names for _, steps in samples)
    assert samples[0][1]["line"].shape == (10, 64, 64)


def test_sum_over_fine_voxels(published: Generator, small_sky: Lightcone) -> None:
    """16 x 10 times the mean; the label is not touched by what comes after."""
    mean = [*OVERRIDES, "observe.pool.reduce=mean"]
    config = load_config("configs/pfeffer2019/published.yaml", mean)
    averaged = Generator(config, lightcones=[small_sky]).steps(3)[0][1].double().numpy()
    summed = published.steps(3)[0][1].double().numpy()
    np.testing.assert_allclose(summed, 160 * averaged, rtol=1e-6)


def test_steps(samples: list[tuple[dict[str, Any], dict[str, np.ndarray]]]) -> None:
    blank, dimmed, foreground, noisy = 0, 0, 0, 0
    for record, steps in samples:
        line, factor = steps["line"], record["brightness"]["factor"]
        if record["blank"]["blank"]:
            blank += 1
            assert not line.any()
        np.testing.assert_allclose(steps["brightness"], (line + 1) ** factor - 1, 1e-5, 1e-5)
        dimmed += factor < 1
        added = steps["radio_sources"] - steps["brightness"]
        foreground += bool(added.any())
        pixels = np.abs(added).max(axis=0) > 1e-3
        assert pixels.mean() < 0.03  # some 30 sources per deg^2
        noise = steps["noise"] - steps["radio_sources"]
        sigma = record["noise"]["sigma_uK"]
        assert noise.std() == pytest.approx(np.sqrt(160) * sigma, rel=0.02, abs=1e-5)
        noisy += sigma > 0
        value = steps["noise"]
        logarithm = np.sign(value) * np.log10(np.abs(value) + 1)
        np.testing.assert_allclose(steps["log_modulus"], logarithm, atol=1e-6)
        smooth = gaussian_filter(logarithm, (0, *[3 / np.sqrt(8 * np.log(2))] * 2), mode="reflect")
        np.testing.assert_allclose(steps["beam"], smooth, atol=1e-5)
    assert 1 <= blank <= 15 and 1 <= dimmed <= 15
    assert 45 <= foreground < NUM and 45 <= noisy < NUM


def test_a_source_is_sixteen_times_too_faint(published: Generator, small_sky: Lightcone) -> None:
    sound = [*OVERRIDES, "observe.radio_sources.sum_pixels=true"]
    config = load_config("configs/pfeffer2019/published.yaml", sound)
    right, wrong = Generator(config, lightcones=[small_sky]), published
    present = [
        k for k, r in enumerate(published.draw(range(20)).records) if r["radio_sources"]["density"]
    ]
    for index in present[:3]:
        maps = []
        for generator in (right, wrong):
            steps = dict(generator.steps(index))
            maps.append((steps["radio_sources"] - steps["brightness"]).double().numpy())
        bright = maps[0] > 1.0
        assert bright.any()
        np.testing.assert_allclose(maps[0][bright] / maps[1][bright], 16, rtol=0.05)


HALOS = 400_000
SIDE_DEG = 1.55


def lightcone(z_range: tuple[float, float], seed: int) -> Lightcone:
    """Halos of 1e11 Msun, evenly in angles and distance: enough of them for a narrow strip."""
    rng = np.random.default_rng(seed)
    near, far = Cosmology().comoving_distance(z_range)
    chi = rng.uniform(near, far, HALOS)
    x, y = np.radians(rng.uniform(-SIDE_DEG / 2, SIDE_DEG / 2, (2, HALOS)))
    position = np.stack([-np.tan(x), np.tan(y) / np.cos(x), np.ones(HALOS)])
    position *= chi / np.sqrt((position**2).sum(axis=0))
    half = SIDE_DEG / 2
    return Lightcone.from_arrays(
        *position,
        np.full(HALOS, 1e11),
        Cosmology().redshift(chi),
        cosmology=Cosmology().to_dict(),
        footprint_deg=(-half, half, -half, half),
        z_range=z_range,
        min_mass_Msun=1e10,
        realisation=f"even-{seed}",
    )


@small.EXTRAPOLATES
def test_it_paints_and_a_network_takes_its_maps(tmp_path: Path) -> None:
    """All lines shine into it; noise is all that is left without them, at the level that was drawn,
    and grows with frequency; the network of the preset takes a map of one pixel across."""
    skies = {"line": (5.2, 8.1), "co": (0.14, 2.35)}
    for number, (name, z_range) in enumerate(skies.items()):
        lightcone(z_range, number).save(tmp_path / f"{name}.h5")
    config = load_config("configs/time.yaml")
    others = [name for name in config.emit if name.startswith("interloper")]
    assert len(others) == 4
    files = {"data.train": "line"} | {f"emit.{name}.train": "co" for name in others}
    settings = [f"{name}=['{tmp_path / file}.h5']" for name, file in files.items()]
    more = {"data.validation": "[]", "data.test": "[]", "train.threads": "1"}
    more |= {f"emit.{name}.{split}": "[]" for name in others for split in ("validation", "test")}
    settings += [f"{name}={value}" for name, value in more.items()]
    config = load_config("configs/time.yaml", settings)
    generator = Generator(config, "train")
    batch = generator.generate(range(8))
    assert batch.cube.shape == (8, 40, 1, 180) and torch.isfinite(batch.cube).all()
    assert (batch.counts.sum(dim=1) > 0).all()
    scale = config.observe["asinh"].scale
    maps = scale * np.sinh(batch.cube.double().numpy())
    noise = scale * np.sinh(generator.blank(range(8)).double().numpy())
    light = (maps - noise).mean(axis=(0, 2, 3))
    assert (light > 0.0).all()
    middle = np.linspace(302.0, 210.0, 81)[1::2]
    for k, draw in enumerate(batch.draws):
        sigma = draw["noise"]["sigma_uK"] * (middle / 250.0) ** 3.2
        assert (noise[k, :, 0] / sigma[:, None]).std() == pytest.approx(1.0, abs=0.03)
    assert torch.isfinite(network_for(generator)(batch.cube)).all()
    generator.close()
