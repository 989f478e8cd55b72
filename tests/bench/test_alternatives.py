"""The alternatives on tensors and arrays of the CPU make the sample of the NumPy ones, given the
same random numbers. On a GPU the same code runs on its tensors and on CuPy's arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import small
import torch
from scipy.ndimage import gaussian_filter

from streamtrain.alternatives import limlam_pipeline, numpy_user
from streamtrain.alternatives_gpu import (
    Drawn,
    TorchField,
    array_pipeline,
    array_user,
    torch_batches,
)
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.generator.geometry import Grid

GRID = Grid((0.8, 0.8), (10, 16, 16), (34.0, 26.0), 115.27)
MASS = 2.5e10
ANGLE, NORMAL = 0.83, 0.4
"""What every uniform angle and every standard normal number is here."""


class Fixed:
    """A generator whose random numbers are all the same."""

    def uniform(self, low: float, high: float) -> float:
        return ANGLE

    def normal(self, mean: float, width: float, size: Any = None) -> Any:
        value = mean + width * NORMAL
        return value if size is None else np.full(size, value)

    def standard_normal(self, size: Any, dtype: Any = np.float64) -> Any:
        return np.full(size, NORMAL, dtype)

    def lognormal(self, mean: float, width: float, size: int) -> Any:
        return np.full(size, np.exp(mean + width * NORMAL))


@pytest.fixture
def fixed(monkeypatch: pytest.MonkeyPatch, small_sky: Lightcone) -> None:
    monkeypatch.setattr(np.random, "default_rng", lambda number: Fixed())


def drawn(field: TorchField, batch: int) -> Drawn:
    column = torch.ones(batch, 1)
    delta, alpha, beta = (m + w * NORMAL for m, w in ((0.0, 0.03), (1.37, 0.037), (-1.74, 0.374)))
    scatter, noise = torch.ones(batch, len(field)), torch.ones(batch, *GRID.shape)
    return Drawn(
        ANGLE * column, delta * column, alpha * column, beta * column, NORMAL * scatter,
        NORMAL * noise,
    )  # fmt: skip


@pytest.mark.usefixtures("fixed")
@pytest.mark.parametrize("batch", [1, 3])
def test_torch_makes_the_sample_of_numpy(small_sky: Lightcone, batch: int) -> None:
    expected, counts = numpy_user(small_sky, GRID, MASS).make(0)
    field = TorchField(small_sky, GRID, MASS, torch.device("cpu"))
    cube, found = field.paint(drawn(field, batch))
    assert counts.sum() > 3000 and (counts > 0).sum() > 10
    for k in range(batch):
        np.testing.assert_array_equal(found[k].numpy(), counts)
        np.testing.assert_allclose(cube[k].numpy(), expected, rtol=2e-5)


@pytest.mark.usefixtures("fixed")
def test_additions_at_indices_make_the_sample_of_bincount(small_sky: Lightcone) -> None:
    expected, counts = numpy_user(small_sky, GRID, MASS).make(0)
    cube, found = array_user(np, np.add.at, small_sky, GRID, MASS).make(0)
    np.testing.assert_array_equal(found, counts)
    np.testing.assert_allclose(cube, expected, rtol=2e-5)


@pytest.mark.usefixtures("fixed")
def test_histogramdd_of_a_module_makes_the_sample_of_limlam_mocker(small_sky: Lightcone) -> None:
    expected, counts = limlam_pipeline(small_sky, GRID, MASS).make(0)
    cube, found = array_pipeline(np, gaussian_filter, small_sky, GRID, MASS).make(0)
    assert cube.shape == expected.shape == (16, 16, 10)
    np.testing.assert_array_equal(found, counts)
    np.testing.assert_allclose(cube, expected, rtol=1e-9)


def test_batches_differ_and_repeat() -> None:
    """Scatter, noise, angle and parameters of their own for each sample of a batch."""
    way = torch_batches(small.lightcone(num=3000), GRID, MASS, torch.device("cpu"), 2)
    cube, counts = way.make(5)
    assert cube.shape == (2, *GRID.shape) and counts.shape == (2, 49)
    assert not torch.equal(cube[0], cube[1]) and not torch.equal(counts[0], counts[1])
    torch.testing.assert_close(way.make(5)[0], cube)
    assert not torch.equal(way.make(6)[0], cube)
