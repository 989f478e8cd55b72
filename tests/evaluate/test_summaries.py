"""Moments and power spectra against closed forms: waves, white and coloured Gaussian fields, and
maps of halos that do not cluster."""

from __future__ import annotations

import numpy as np
import pytest

from streamtrain.preview.compare_catalogs import moments, pooled, power_spectrum

SHAPE, SIDES = (24, 20, 18), (120.0, 90.0, 60.0)
CELLS = [side / n for side, n in zip(SIDES, SHAPE, strict=True)]
VOLUME, VOXELS = float(np.prod(SIDES)), int(np.prod(SHAPE))


def test_moments_of_a_small_cube() -> None:
    """Three voxels of 0 and one of 4: mean 1, variance 3, third moment 6."""
    found = moments(np.array([[[0.0, 0.0], [0.0, 4.0]]], np.float32))
    assert (found.mean, found.std) == (1.0, pytest.approx(3.0**0.5))
    assert found.skewness == pytest.approx(6.0 / 3.0**1.5)
    assert moments(np.full((2, 2, 2), 5.0)).skewness == 0.0


def test_blocks_are_means_and_the_rest_is_cut_off() -> None:
    cube = np.arange(3 * 5 * 4, dtype=np.float64).reshape(3, 5, 4)
    found = pooled(cube, (1, 2, 4))
    assert found.shape == (3, 2, 1)
    assert found[1, 1, 0] == cube[1, 2:4].mean()
    with pytest.raises(ValueError, match=r"blocks of \(4, 1, 1\) voxels do not fit in a cube of"):
        pooled(cube, (4, 1, 1))


@pytest.mark.parametrize("wave", [(2, 1, 0), (-3, 0, 2), (1, -1, 3)])
def test_power_of_one_wave(wave: tuple[int, int, int]) -> None:
    """a cos(k x) averaged over voxels: P = V a^2/4 in the two modes k and -k, none elsewhere."""
    k = 2.0 * np.pi * np.array(wave) / SIDES
    centres = [(np.arange(n) + 0.5) * cell for n, cell in zip(SHAPE, CELLS, strict=True)]
    x, y, z = np.meshgrid(*centres, indexing="ij")
    window = np.prod(np.sinc(k * CELLS / (2.0 * np.pi)))
    cube = 7.0 + 0.8 * window * np.cos(k[0] * x + k[1] * y + k[2] * z)
    length = float(np.sqrt(k @ k))
    shells = [(length - 0.02, length + 0.02), (length + 0.02, length + 0.06)]
    found = power_spectrum(cube, SIDES, shells)
    np.testing.assert_allclose(found.power[0] * found.modes[0], VOLUME * 0.8**2 / 2, rtol=1e-4)
    assert found.power[1] < 1e-6 * found.power[0]
    raw = power_spectrum(cube, SIDES, shells, deconvolve=False)
    np.testing.assert_allclose(raw.power[0], window**2 * found.power[0], rtol=1e-5)


def test_modes_are_counted_once() -> None:
    """All wavenumbers of a small box, by hand."""
    grids = np.meshgrid(
        *(2.0 * np.pi * n / s * np.fft.fftfreq(n) for n, s in zip(SHAPE, SIDES, strict=True)),
        indexing="ij",
    )
    length = np.sqrt(sum(k**2 for k in grids))
    shells = [(0.0, 0.1), (0.1, 0.3), (0.3, 0.5)]
    found = power_spectrum(np.random.default_rng(1).normal(size=SHAPE), SIDES, shells)
    for number, k, (low, high) in zip(found.modes, found.k, shells, strict=True):
        inside = (length >= low) & (length < high) & (length > 0.0)
        assert number == np.count_nonzero(inside)
        assert k == pytest.approx(length[inside].mean())


def test_power_of_gaussian_fields() -> None:
    """Coloured noise with P = 500 / (1 + (k/0.15)^2)^2 and white noise, sigma^2 V / N, four
    standard errors of the mean over 60 boxes."""
    rng = np.random.default_rng(5)
    shells = [(0.05, 0.15), (0.15, 0.3), (0.3, 0.6)]
    grids = np.meshgrid(
        *(2.0 * np.pi * n / s * np.fft.fftfreq(n) for n, s in zip(SHAPE, SIDES, strict=True)),
        indexing="ij",
    )
    length = np.sqrt(sum(k**2 for k in grids))
    model = 500.0 / (1.0 + (length / 0.15) ** 2) ** 2
    coloured, white = [], []
    for _ in range(60):
        noise = rng.normal(size=SHAPE)
        field = np.fft.ifftn(np.fft.fftn(noise) * np.sqrt(model * VOXELS / VOLUME)).real
        for values, into in ((field, coloured), (3.0 * noise, white)):
            into.append(power_spectrum(values, SIDES, shells, deconvolve=False).power)
    for i, (low, high) in enumerate(shells):
        expected = model[(length >= low) & (length < high)].mean()
        for values, truth in ((coloured, expected), (white, 9.0 * VOLUME / VOXELS)):
            found = np.array(values)[:, i]
            assert abs(found.mean() - truth) < 4.0 * found.std(ddof=1) / np.sqrt(len(found))
            assert found.std() < 0.5 * truth


def test_shells_that_cannot_be_measured() -> None:
    cube = np.zeros(SHAPE)
    with pytest.raises(ValueError, match=r"below the Nyquist wavenumber 0\.628 /Mpc"):
        power_spectrum(cube, SIDES, [(0.1, 0.7)])
    with pytest.raises(ValueError, match="must be increasing"):
        power_spectrum(cube, SIDES, [(0.2, 0.1)])
    with pytest.raises(ValueError, match=r"no mode of a box of 120 x 90 x 60 Mpc lies in the"):
        power_spectrum(cube, SIDES, [(0.001, 0.01)])
