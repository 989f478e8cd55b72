"""A voxel found in float32 is place_halo's wherever it claims to know."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from support import compiled

from streamtrain.generator.pose import single_pose
from streamtrain.grid import DEG

OUTSIDE, UNSURE = -1, -2
FIELDS = {
    "comap": ((1.4, 1.4), (64, 64), (1, 1)),
    "pooled": ((1.4, 1.4), (256, 256), (4, 4)),
    "fine": ((1.4, 0.7), (1024, 500), (1, 2)),
    "wide": ((20.0, 20.0), (40, 30), (1, 3)),
    "one voxel": ((0.5, 0.5), (1, 1), (1, 1)),
}
"""Sides (ra, dec) [deg], voxels (ra, dec), pooling (ra, dec)."""
POSE = single_pose((13.0, -8.0), 77.0, True)


def place(
    name: str, ra_deg: NDArray[np.float64], dec_deg: NDArray[np.float64]
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """Quick, narrow and exact voxels of halos at these places in the field of `POSE`."""
    fov, fine, pooling = FIELDS[name]
    ra, dec = ra_deg * DEG, dec_deg * DEG
    frame = np.stack([-np.sin(ra) * np.cos(dec), np.sin(dec), np.cos(ra) * np.cos(dec)])
    distance = np.random.default_rng(0).uniform(1000.0, 8000.0, len(ra))
    position = (np.einsum("ji,jn->in", POSE.matrix[0], frame) * distance).astype(np.float32)
    half = [side * DEG / 2 for side in fov]
    field = [*half, *(n / (2 * h) for n, h in zip(fine, half, strict=True))]
    field += [1.0 / factor for factor in pooling]
    shape = [1, fine[1] // pooling[1], fine[0] // pooling[0], fine[1], fine[0], 1]
    return compiled.place(
        list(position), POSE.matrix[0], np.array(field), np.array(shape, np.int32)
    )


@pytest.mark.parametrize("name", list(FIELDS))
def test_halos_anywhere(name: str) -> None:
    (ra_side, dec_side), fine, _ = FIELDS[name]
    rng = np.random.default_rng(1)
    ra = rng.uniform(-0.6, 0.6, 200_000) * ra_side
    dec = rng.uniform(-0.6, 0.6, 200_000) * dec_side
    *ways, exact = place(name, ra, dec)
    assert np.count_nonzero(exact >= 0) > 100_000
    assert np.count_nonzero(exact == OUTSIDE) > 10_000
    near = (np.abs(ra) < 11.0) & (np.abs(dec) < 11.0)  # beyond, its polynomials are not trusted
    bins = max(fine) / (min(ra_side, dec_side) * DEG)
    # the rotation in float32: both edges of both axes, 2^-21 rad each times a sum of about 1
    for found, unsure in zip(ways, (0.0, 3e-6), strict=True):
        sure = found != UNSURE
        np.testing.assert_array_equal(found[sure], exact[sure])
        assert np.mean(~sure & near) < 2e-5 * max(fine) + unsure * bins


def test_halos_far_outside_of_a_narrow_field() -> None:
    """What float32 calls outside is, wherever it lies before the observer."""
    rng = np.random.default_rng(3)
    ra, dec = rng.uniform(-89.0, 89.0, (2, 200_000))
    quick, narrow, exact = place("comap", ra, dec)
    sure = narrow != UNSURE
    np.testing.assert_array_equal(narrow[sure], exact[sure])
    assert np.mean(sure) > 0.9 and np.mean(quick != UNSURE) < 0.1


@pytest.mark.parametrize("name", list(FIELDS))
@pytest.mark.parametrize("distance", [1e-9, 1e-8, 1e-7, 1e-6, 1e-5])
def test_halos_next_to_edges(name: str, distance: float) -> None:
    """Displaced from the edges of voxels by a fraction of the field, to either side."""
    sides, fine, pooling = FIELDS[name]
    rng = np.random.default_rng(2)
    places = []
    for side, number, factor in zip(sides, fine, pooling, strict=True):
        edge = rng.integers(0, number // factor + 1, 20_000) / (number // factor) - 0.5
        places.append(side * (edge + distance * rng.normal(size=20_000)))
    *ways, exact = place(name, *places)
    for found in ways:
        sure = found != UNSURE
        np.testing.assert_array_equal(found[sure], exact[sure])
        if distance <= 1e-8:
            assert np.mean(~sure) > 0.1  # positions in float32 add a displacement of their own


def test_behind_the_observer_and_nowhere() -> None:
    """What float32 cannot tell is left to place_halo."""
    quick, narrow, exact = place("comap", np.array([180.0, 90.0, 0.1]), np.array([0.0, 0.0, 180.0]))
    assert set(quick) | set(narrow) <= {UNSURE, OUTSIDE}
    assert exact.tolist() == [OUTSIDE] * 3
