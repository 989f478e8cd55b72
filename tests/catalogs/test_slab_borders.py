"""Fields made in slabs against the same fields in one piece: what is equal, and what is unbiased.

The short modes are periodic in each slab's own box, so the slabs' halos are not all those of the
one piece. What holds is that 80 Mpc of padding keep the difference small at a border, and that it
has no sign: as many halos, as many pairs across the border, the same power.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.synthesis.options import SkyOptions
from streamtrain.catalogs.synthesis.sampler import HaloSampler
from streamtrain.catalogs.synthesis.synthesize import synthesize
from streamtrain.cosmology import Cosmology

WIDE: dict[str, Any] = {"footprint_deg": (4.5, 0.3), "z_range": (2.7, 2.8), "min_mass_Msun": 1e11}
SEEDS = 6
CELL_MPC = 10.0
Array = NDArray[np.float64]


@pytest.fixture(scope="module")
def skies() -> list[list[Lightcone]]:
    """Of every seed the field in one piece and in three slabs."""
    return [[synthesize(seed, num_slabs=n, **WIDE) for n in (1, 3)] for seed in range(SEEDS)]


@pytest.fixture(scope="module")
def borders() -> list[float]:
    """x of the two borders [Mpc]; they lie 100 Mpc and more inside the field."""
    plan = HaloSampler(SkyOptions(**WIDE, num_slabs=3))
    return [slab.box.corner_Mpc[0] + slab.start * 2.5 for slab in plan.slabs[1:]]


def counts(lightcone: Lightcone, centre: float, half_width: float) -> Array:
    """Halos in cells of 10 Mpc [x, y, z]; a border at `centre` is a face of the cells."""
    near = float(Cosmology().comoving_distance(WIDE["z_range"][0])) + CELL_MPC
    sides = ((centre - half_width, centre + half_width), (-10.0, 10.0), (near, near + 60.0))
    edges = [np.arange(low, high + 1.0, CELL_MPC) for low, high in sides]
    place = np.stack([lightcone.x_Mpc, lightcone.y_Mpc, lightcone.z_Mpc], axis=1)
    return np.histogramdd(place, edges)[0]


def assert_unbiased(whole: Array, cut: Array, known_to: float) -> None:
    """The mean of `cut` is that of `whole`, by the paired differences of many borders or skies."""
    error = np.std(cut - whole, ddof=1) / np.sqrt(whole.size) / whole.mean()
    assert error < known_to, error
    assert abs(cut.mean() / whole.mean() - 1.0) < 4.0 * error, (cut.mean() / whole.mean(), error)


def test_number_of_halos_at_the_borders(skies: list[list[Lightcone]], borders: list[float]) -> None:
    """Within 10 Mpc of a border; 600 of them."""
    number = np.array(
        [
            [[np.count_nonzero(np.abs(c.x_Mpc - border) < 10.0) for c in pair] for pair in skies]
            for border in borders
        ],
        np.float64,
    )
    assert_unbiased(number[..., 0].ravel(), number[..., 1].ravel(), 0.01)


def test_pairs_across_the_borders(skies: list[list[Lightcone]], borders: list[float]) -> None:
    """Products of the counts of neighbouring cells on the two sides of a border."""
    pairs = np.empty((len(borders), len(skies), 2))
    for i, border in enumerate(borders):
        for j, sky in enumerate(skies):
            for k, lightcone in enumerate(sky):
                left, right = counts(lightcone, border, CELL_MPC)
                pairs[i, j, k] = np.sum(left * right)
    assert_unbiased(pairs[..., 0].ravel(), pairs[..., 1].ravel(), 0.02)


def test_power_along_the_slabs(skies: list[list[Lightcone]]) -> None:
    """Power of the counts along x, over 400 Mpc that hold both borders, to k = 0.1/Mpc and from
    there to 0.2/Mpc; the window is the same, so it need not be known."""
    power = np.empty((2, len(skies), 2))
    for j, sky in enumerate(skies):
        for k, lightcone in enumerate(sky):
            cells = counts(lightcone, 0.0, 200.0)
            modes = np.abs(np.fft.rfft(cells, axis=0)[1:]) ** 2
            per_k = np.mean(modes, axis=(1, 2)) / np.mean(cells)
            wave = 2.0 * np.pi * np.fft.rfftfreq(len(cells), CELL_MPC)[1:]
            for i, (low, high) in enumerate(((0.0, 0.1), (0.1, 0.2))):
                power[i, j, k] = np.mean(per_k[(wave > low) & (wave <= high)])
    for row in power:
        assert_unbiased(row[:, 0], row[:, 1], 0.02)


def test_most_halos_are_those_of_one_piece(skies: list[list[Lightcone]]) -> None:
    """More than nine in ten have the very mass, and have moved by less than 1 Mpc (median)."""
    for whole, cut in skies:
        shared, here, there = np.intersect1d(whole.mass_Msun, cut.mass_Msun, return_indices=True)
        assert shared.size > 0.9 * max(len(whole), len(cut))
        apart = [
            getattr(whole, name)[here].astype(np.float64) - getattr(cut, name)[there]
            for name in ("x_Mpc", "y_Mpc", "z_Mpc")
        ]
        assert np.median(np.sqrt(np.sum(np.square(apart), axis=0))) < 1.0
