"""The density field and its displacements against plane waves and linear theory."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from streamtrain.catalogs.synthesis.box import Box, random_bits
from streamtrain.catalogs.synthesis.density import DensityField, DensityModes
from streamtrain.cosmology import Cosmology

BOX = Box((32, 40, 48), 4.0, (-64.0, -80.0, 6000.0))
COMAP = Cosmology()


@pytest.fixture(scope="module")
def modes() -> DensityModes:
    return DensityModes(BOX, COMAP)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


def empty_field(modes: DensityModes) -> DensityField:
    nx, ny, nz = BOX.shape
    return DensityField(
        np.zeros((nx, ny, nz // 2 + 1), np.complex64), np.zeros(modes.long.variance.shape, complex)
    )


def test_crossing_plane_waves_have_a_closed_form(
    modes: DensityModes, pool: ThreadPoolExecutor
) -> None:
    """delta = a cos(kx x) + b cos(ky y): psi1 = -(a/kx sin, b/ky sin, 0), and the source of the
    second order is a b cos cos, so psi2_x = -3/7 a b kx/(kx^2 + ky^2) sin(kx x) cos(ky y)."""
    a, b, m, n = 0.3, 0.2, 2, 3
    nx, ny, _ = BOX.shape
    field = empty_field(modes)
    for row in (m, nx - m):
        field.short_kxyz[row, 0, 0] = 0.5 * a * BOX.num_cells
    for row in (n, ny - n):
        field.short_kxyz[0, row, 0] = 0.5 * b * BOX.num_cells
    kx, ky = 2 * np.pi * m / (nx * 4.0), 2 * np.pi * n / (ny * 4.0)
    x = kx * 4.0 * np.arange(nx)[:, None, None]
    y = ky * 4.0 * np.arange(ny)[None, :, None]
    psi = modes.displacements(field, pool)
    zero = np.zeros(BOX.shape)
    second = -3.0 / 7.0 * a * b / (kx**2 + ky**2)
    expected = [
        -a / kx * np.sin(x) + zero,
        -b / ky * np.sin(y) + zero,
        zero,
        second * kx * np.sin(x) * np.cos(y) + zero,
        second * ky * np.cos(x) * np.sin(y) + zero,
        zero,
    ]
    np.testing.assert_allclose(psi, np.stack(expected, axis=-1), atol=2e-5)


def test_long_mode_is_the_wave_at_the_cell_centres(
    modes: DensityModes, pool: ThreadPoolExecutor
) -> None:
    field = empty_field(modes)
    kx, ky, kz = (k.ravel() for k in modes.long.k)
    index = (len(kx) // 2 + 3, len(ky) // 2 - 2, 5)
    field.long_kxyz[index] = 0.7 - 0.4j
    k = np.array([kx[index[0]], ky[index[1]], kz[index[2]]])
    x, y, z = (BOX.centres(axis) for axis in range(3))
    phase = np.exp(1j * (k[0] * x[:, None, None] + k[1] * y[:, None] + k[2] * z))
    wave = (0.7 - 0.4j) * phase
    np.testing.assert_allclose(modes.long.to_cells(field.long_kxyz), wave.real, atol=1e-5)
    psi = modes.displacements(field, pool)
    for axis in range(3):
        expected = (1j * k[axis] / (k @ k) * wave).real
        np.testing.assert_allclose(psi[..., axis], expected, atol=2e-4)


def test_displacements_have_the_variance_of_linear_theory(modes: DensityModes) -> None:
    """sigma^2 = int P dk / (6 pi^2). The modes above 800 Mpc are missing, 3 to 4 %
    of it, and the short modes of a 128 Mpc box are coarse."""
    k = np.geomspace(1e-5, 1e2, 20_000)
    variance = np.sum(COMAP.linear_power(k) * k) * np.log(k[1] / k[0]) / (6.0 * np.pi**2)
    np.testing.assert_allclose(np.mean(modes.displacement_rms**2), variance, rtol=0.08)


def test_filtered_variance_is_the_integral_and_what_is_drawn(
    modes: DensityModes, pool: ThreadPoolExecutor
) -> None:
    """Ensemble against an integral over k, and draws against the ensemble."""
    cut = 0.3
    k = np.geomspace(1e-4, 2.0, 20_000)
    integrand = COMAP.linear_power(k) * k**3 * np.exp(-((k / cut) ** 4)) / (2.0 * np.pi**2)
    integral = np.sum(integrand) * np.log(k[1] / k[0])
    # The cells are deconvolved: at k = 0.2, where the variance lies, by 1 + (k a)^2/36 = 1.02.
    np.testing.assert_allclose(modes.variance(cut), 1.02 * integral, rtol=0.03)
    drawn = [np.mean(modes.filtered(modes.draw(seed, pool), cut) ** 2) for seed in range(12)]
    error = np.std(drawn, ddof=1) / np.sqrt(len(drawn))
    assert abs(np.mean(drawn) - modes.variance(cut)) < 4.0 * error
    assert error < 0.1 * modes.variance(cut)


def test_draws_depend_on_the_key_alone(modes: DensityModes, pool: ThreadPoolExecutor) -> None:
    one, again, other = (modes.draw(key, pool) for key in (3, 3, 4))
    np.testing.assert_array_equal(one.short_kxyz, again.short_kxyz)
    np.testing.assert_array_equal(one.long_kxyz, again.long_kxyz)
    assert not np.any(one.long_kxyz[modes.long.variance > 0] == other.long_kxyz[0, 0, 1])
    with ThreadPoolExecutor(1) as single:
        np.testing.assert_array_equal(modes.draw(3, single).short_kxyz, one.short_kxyz)


def test_a_part_of_a_random_stream_is_that_part() -> None:
    whole = random_bits(2**100 + 5, 7, 0, 1000)
    for start, stop in [(0, 1), (3, 8), (4, 999), (998, 1000)]:
        np.testing.assert_array_equal(random_bits(2**100 + 5, 7, start, stop), whole[start:stop])
    assert not np.any(whole == random_bits(2**100 + 5, 8, 0, 1000))
