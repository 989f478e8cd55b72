"""The alternatives on tensors and arrays of the CPU make the sample of the NumPy ones, given the
same random numbers. On a GPU the same code runs on its tensors and on CuPy's arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support import small

from streamtrain.bench.alternatives import numpy_user
from streamtrain.bench.alternatives_gpu import (
    Drawn,
    TorchField,
    array_pipeline,
    array_user,
    torch_batches,
)
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.sfr import log10_sfr
from streamtrain.grid import Grid

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
def test_histogramdd_of_a_module_makes_the_sample_halo_by_halo(small_sky: Lightcone) -> None:
    """Every halo into its voxel of 64 x 64 x 100 by division, pooled; Li+16 as published."""
    cube, counts = array_pipeline(np, lambda cube, sigma: cube, small_sky, GRID, MASS).make(0)
    x, y, z, mass, redshift = (
        getattr(small_sky, name).astype(np.float64)
        for name in ("x_Mpc", "y_Mpc", "z_Mpc", "mass_Msun", "z_obs")
    )
    chi = np.sqrt(x * x + y * y + z * z)
    cosine, sine = np.cos(ANGLE), np.sin(ANGLE)
    ra = -np.degrees(np.arctan((cosine * x - sine * y) / z))
    dec = np.degrees(np.arcsin((sine * x + cosine * y) / chi))
    nu = 115.27 / (1 + redshift)
    delta, alpha, beta = 0.03 * NORMAL, 1.37 + 0.037 * NORMAL, -1.74 + 0.374 * NORMAL
    scatter = np.exp(0.3 * 2.302585 * NORMAL - 0.5 * (0.3 * 2.302585) ** 2)
    infrared = 10 ** (log10_sfr(small_sky.mass_Msun, small_sky.z_obs) + 10 - delta) * scatter
    light = 4.9e-5 * 10 ** ((np.log10(infrared) - beta) / alpha) * scatter
    inside = (abs(ra) < 0.4) & (abs(dec) < 0.4) & (nu < 34.0) & (nu > 26.0) & (mass > MASS)
    places = [((a + 0.4) / 0.8 * 16).astype(int)[inside] for a in (ra, dec)]
    places.append(((nu - 26.0) / 8.0 * 10).astype(int)[inside])
    fine = Grid(GRID.fov_deg, (100, 64, 64), GRID.nu_GHz, GRID.nu_rest_GHz)
    expected = np.zeros((16, 16, 10))
    np.add.at(expected, tuple(places), (fine.intensity_factor * light / chi**2)[inside])
    noise = np.sqrt(160) * 3.47 * NORMAL
    np.testing.assert_allclose(cube, np.log10(expected + noise + 1), rtol=1e-6)
    assert counts.sum() == ((light[inside] >= 10**3.5) & (light[inside] <= 1e7)).sum()


def test_batches_differ_and_repeat() -> None:
    """Scatter, noise, angle and parameters of their own for each sample of a batch."""
    way = torch_batches(small.lightcone(num=3000), GRID, MASS, torch.device("cpu"), 2)
    cube, counts = way.make(5)
    assert cube.shape == (2, *GRID.shape) and counts.shape == (2, 49)
    assert not torch.equal(cube[0], cube[1]) and not torch.equal(counts[0], counts[1])
    torch.testing.assert_close(way.make(5)[0], cube)
    assert not torch.equal(way.make(6)[0], cube)
