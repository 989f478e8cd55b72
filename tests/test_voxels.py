"""The voxel intensity distribution."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from streamtrain.spectra import quantile_edges, voxel_counts


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_as_numpy_counts_and_nothing_is_lost(dtype: torch.dtype) -> None:
    """Edges that values lie on, a value below and one above all of them."""
    generator = torch.Generator().manual_seed(0)
    cube = torch.randint(-4, 5, (3, 5, 4, 7), generator=generator).to(dtype)
    cube[0, 0, 0, :2] = torch.tensor([-1e30, 1e30])
    edges = torch.tensor([-3.0, -1.0, -0.5, 2.0])
    found = voxel_counts(cube, edges)
    open_ends = np.concatenate([[-np.inf], edges.numpy(), [np.inf]])
    for row, values in zip(found, cube, strict=True):
        assert row.tolist() == np.histogram(values.numpy(), open_ends)[0].tolist()
        assert row.sum() == values.numel()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("edges", ["one", "one twice", "values", "far apart", "close", "no number"])
def test_many_voxels_are_counted_as_few(dtype: torch.dtype, edges: str) -> None:
    """Large cubes are counted in another way: against NumPy's search, with edges that are equal,
    many in a cell, and numbers that are none."""
    rng = np.random.default_rng(7)
    values = torch.from_numpy(rng.normal(30.0, 2.0, (3, 4, 40, 41))).to(dtype).numpy()
    values[0, 0, 0, :5] = [np.nan, np.inf, -np.inf, -1e30, 1e30]
    drawn = rng.choice(values[1].ravel(), 60)
    chosen = {
        "one": [30.0],
        "one twice": [30.0, 30.0],
        "values": [*drawn, *drawn[:20]],
        "far apart": [-1e30, 29.0, 30.0, 1e30],
        "close": [29.0, *np.linspace(30.0, 30.01, 50), 3000.0],
        "no number": [29.0, 30.0, np.inf],
    }[edges]
    at = torch.tensor(sorted(chosen)).to(dtype)
    found = voxel_counts(torch.from_numpy(values), at)
    for row, some in zip(found, values, strict=True):
        bins = np.searchsorted(at.numpy(), some.ravel(), side="right")
        assert row.tolist() == np.bincount(bins, minlength=len(at) + 1).tolist()


def test_counts_do_not_follow_the_order_of_the_voxels() -> None:
    cube = torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(1))
    edges = torch.linspace(-2.0, 2.0, 9)
    assert torch.equal(voxel_counts(cube, edges), voxel_counts(cube.flip(3).roll(2, 1), edges))


def test_bins_of_white_noise_are_of_equal_width() -> None:
    values = np.random.default_rng(0).normal(1.0, 2.0, 400_000)
    edges = quantile_edges(values, 9)
    assert len(edges) == 8
    np.testing.assert_allclose(edges, 1.0 + 2.0 * np.linspace(-3.0, 3.0, 8), atol=0.06)
    assert quantile_edges(values, 2) == pytest.approx([np.median(values)])
    with pytest.raises(ValueError, match="num_bins = 1: a distribution needs at least 2 bins"):
        quantile_edges(values, 1)
