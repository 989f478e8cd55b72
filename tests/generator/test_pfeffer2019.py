"""configs/pfeffer2019/published.yaml, step by step against a plain statement of the pipeline."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.config import load_config
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
