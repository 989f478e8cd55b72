"""Luminosity bins: the halos of any edges, the parts of the counts, and the ranges of a label."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from support import bit_oracle, small
from support import reference as ref

from streamtrain.bins import (
    Counts,
    LuminosityBins,
    bright_above,
    cumulative,
    luminosity_ranges,
    ranges_with_bins,
)
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.cosmology import Cosmology
from streamtrain.evaluate.scores import num_bright
from streamtrain.generator.generator import Generator

UNEQUAL = (3.0, 4.0, 4.2, 5.5, 5.51, 5.6, 7.0)


def test_unequal_bins_are_those_of_numpy(small_sky: Lightcone) -> None:
    """The luminosities of the reference in numpy.histogram; a halo or two per edge may differ by
    the rounding of float32."""
    line = {"model": "breysse15", "parameters": {"A": 2e-6, "b": 1.0, "duty": 1.0}}
    edges = (4.6, 4.7, 5.0, 5.05, 6.0, 6.9)
    config = small.config(emit={"line": line}, label={"edges": edges, "quantity": "cumulative"})
    generator = Generator(config, lightcones=[small_sky])
    np.testing.assert_array_equal(generator.bin_edges, edges)
    batch = generator.generate(range(4))
    for k, draws in enumerate(batch.draws):
        _, counts = ref.paint(
            small_sky.x_Mpc, small_sky.y_Mpc, small_sky.z_Mpc, small_sky.mass_Msun,
            small_sky.z_obs, 2e-6 * small_sky.mass_Msun, fov_deg=(0.8, 0.8),
            shape=(9, 21, 21), nu_GHz=(34, 26), min_mass_Msun=2.5e10,
            centre_deg=draws["centre_deg"], roll_deg=draws["roll_deg"], mirror=draws["mirror"],
            luminosity_edges=10 ** np.array(edges),
        )  # fmt: skip
        assert counts.min() > 0
        assert np.abs(batch.counts[k].numpy() - counts).max() <= 2
        above = np.rint(10 ** batch.label[k].double().numpy()).astype(int)
        beyond = above[-1] - int(batch.counts[k, -1])
        np.testing.assert_array_equal(above, ref.cumulative(batch.counts[k].numpy(), beyond))


TWO = np.log10(2.0)


@pytest.mark.parametrize(
    ("bins", "counts", "above"),
    [
        ({"log10_L": [17 * TWO, 20 * TWO], "bins": 3}, [1, 1, 2 + 3], [8, 7, 6]),
        ({"edges": [k * TWO for k in (17, 18, 18.5, 19, 20)]}, [1, 1, 0, 2 + 3], [8, 7, 6, 6]),
    ],
)
def test_halos_on_edges_are_in_the_bin_above(
    bins: dict[str, Any], counts: list[int], above: list[int]
) -> None:
    """Powers of two are exact: bins are half-open, the last one closed."""
    mass = 2.0 ** np.array([35, 36, 37, 38, 38, 39, 39, 39, 40])
    x, y, z = ref.position(0.1, 0.1, np.full(9, ref.comoving_distance(2.8)))
    sky = Lightcone.from_arrays(
        x, y, z, mass, np.full(9, 2.8), cosmology=Cosmology().to_dict(), z_range=(2.3, 3.5),
        footprint_deg=(-0.6, 0.6, -0.6, 0.6), min_mass_Msun=2.5e10,
    )  # fmt: skip
    line = {"model": "breysse15", "parameters": {"A": 2.0**-19, "duty": 1.0}}
    label = {**bins, "quantity": "cumulative", "scale": "linear"}
    config = small.config(data={"roll": "none"}, emit={"line": line}, label=label)
    batch = Generator(config, lightcones=[sky]).generate([0])
    assert batch.counts[0].tolist() == counts
    assert batch.label[0].tolist() == above


def test_equal_bins_given_as_edges_hold_the_same_halos(small_sky: Lightcone) -> None:
    edges = {"edges": np.linspace(3.5, 7.0, 50).tolist()}
    equal, given = (
        Generator(small.config(label=label), lightcones=[small_sky]).generate(range(3)).counts
        for label in ({}, edges)
    )
    assert (equal - given).abs().sum() <= 6
    assert equal.sum() > 1000


_RNG = np.random.default_rng(0)
EDGES = {
    "one bin": [4.0, 6.0],
    "two bins": [4.0, 5.9, 6.0],
    "a thousand": np.sort(_RNG.uniform(3.5, 6.5, 1001)).tolist(),
    "crowded": [2.0, *np.linspace(5.0, 5.002, 150), 11.0],
    "beyond all halos": [20.0, 21.0, 30.0],
}


@pytest.mark.parametrize("name", list(EDGES))
def test_any_edges_have_the_bits_of_the_oracle(small_sky: Lightcone, name: str) -> None:
    """The oracle uses numpy.searchsorted. Crowded edges share a cell of the kernel's table."""
    edges = np.array(EDGES[name])
    edges = edges[np.concatenate([[True], np.diff(edges) > 1e-5])].tolist()
    label = {"edges": edges, "quantity": "phi_L", "scale": "linear"}
    generator = Generator(small.config(label=label), lightcones=[small_sky])
    batch = generator.generate([0, 1])
    for k in range(2):
        _, counts, values = bit_oracle.sample(generator, batch, k)
        np.testing.assert_array_equal(batch.counts[k], counts)
        np.testing.assert_array_equal(batch.label[k].numpy().view("u4"), values.view("u4"))


def test_edges_share_cells_only_where_they_must() -> None:
    assert "EDGE_STRIDE 1\n" in LuminosityBins.between(UNEQUAL).source()
    assert "EDGE_STRIDE 128\n" in LuminosityBins.between(EDGES["crowded"]).source()
    assert LuminosityBins().source() == ""


def test_ranges_of_unequal_bins() -> None:
    """They are named by the edges of their bins, where these are not nearly those of a range; so is
    what is counted as bright."""
    edges = np.array(UNEQUAL)
    found = {bounds: inside.tolist() for bounds, inside in ranges_with_bins(edges)}
    assert found == {
        (3.0, 4.2): [True, True, False, False, False, False],
        (4.2, 5.5): [False, False, True, False, False, False],
        (5.5, 5.6): [False, False, False, True, True, False],
        (5.6, 7.0): [False, False, False, False, False, True],
    }
    assert bright_above(edges) == 5.6
    counts = np.array([[9.0, 8.0, 7.0, 6.0, 5.0, 4.0]])
    assert num_bright(counts, edges) == [4.0]
    wide = np.linspace(6.0, 10.0, 6)
    names = [f"{low:g}-{high:g}" for (low, high), _ in ranges_with_bins(wide)]
    assert names == ["6-6.8", "6.8-7.6", "7.6-8.4", "8.4-9.2", "9.2-10"]
    assert bright_above(wide) == 9.2


@pytest.mark.parametrize(
    ("ends", "inner", "bright"),
    [
        ((3.5, 7.0), [4.5, 5.5, 6.0, 6.5], 6.0),
        ((3.0, 7.0), [3.5, 4.5, 5.5, 6.0, 6.5], 6.0),
        ((6.0, 9.5), [7.0, 8.0, 8.5, 9.0], 8.5),
        ((3.3, 7.0), [4.5, 5.5, 6.0, 6.5], 6.0),
        ((4.0, 5.0), [4.25, 4.5, 4.75], 4.5),
        ((33.0, 43.0), [34.0, 36.0, 38.0, 40.0, 41.0, 42.0], 41.0),
        ((-3.0, -2.995), [], -3.0),
    ],
)
def test_luminosity_ranges_follow_the_label(
    ends: tuple[float, float], inner: list[float], bright: float
) -> None:
    """They share the label's span between them, and every bin is in one."""
    edges = np.linspace(*ends, 50)
    ranges = luminosity_ranges(edges)
    assert np.ravel(ranges) == pytest.approx(np.repeat([ends[0], *inner, ends[1]], 2)[1:-1])
    assert sum(inside for _, inside in ranges_with_bins(edges)).tolist() == [1] * 49
    assert bright_above(edges) == pytest.approx(bright)


def test_ranges_of_any_label_cover_it() -> None:
    for width in np.geomspace(0.02, 80, 60):
        for start in (-40.0, 3.5, 6.123):
            edges = np.array([start, start + width])
            ranges = luminosity_ranges(edges)
            assert 1 <= len(ranges) <= 9
            assert ranges[0][0] == edges[0] and ranges[-1][1] == edges[1]
            assert all(low < high for low, high in ranges)
            assert all(a[1] == b[0] for a, b in itertools.pairwise(ranges))


def test_parts_of_the_kernels_counts() -> None:
    """Bins, and beyond them; the same of arrays and of tensors, as views."""
    raw = np.array([[4, 2, 1, 5, 7, 3], [0, 0, 1, 0, 0, 0]], np.int32)
    tensor = torch.from_numpy(raw.copy())
    for given in (raw, tensor):
        counts: Any = Counts(given)
        assert counts.bins.tolist() == [[4, 2, 1], [0, 0, 1]]
        assert counts.above.tolist() == [5, 0] and counts.below.tolist() == [7, 0]
        assert counts.saturated.tolist() == [3, 0] and counts.halos.tolist() == [19, 1]
        assert cumulative(counts.bins).tolist() == [[7, 3, 1], [1, 1, 1]]
    Counts(tensor).saturated.add_(torch.tensor([1, 2]))
    assert tensor[:, -1].tolist() == [4, 2]
    assert LuminosityBins(num=3).num_counts == raw.shape[1]
