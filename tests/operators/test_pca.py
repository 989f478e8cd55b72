"""Principal components along frequency, against NumPy's singular value decomposition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support import small
from support.operator_tools import operators

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.config import ConfigError
from streamtrain.generator.generator import Generator
from streamtrain.numerics.backend import Kernels
from streamtrain.operators.filters import PCA

pytestmark = small.ASSUMES

Array = NDArray[np.float64]

FLOAT32 = 2.0**-24
"""Half the distance of 1 and the next number of float32."""


def cleaned(kernels: Kernels, cubes: NDArray[Any], modes: int, **before: Any) -> Array:
    """Cubes [B, n_freq, n_dec, n_ra] without their leading modes; before: operators in front."""
    made = operators({**before, "pca": {"modes": modes}}, shape=cubes.shape[1:])
    found = torch.from_numpy(np.array(cubes, np.float32))
    return made[-1].apply(kernels, found, torch.empty(0), {}).numpy().astype(np.float64)


def without_modes(cube: Array, modes: int, sigma: Array | float = 1.0) -> tuple[Array, Array]:
    """The same by NumPy, and the singular values; sigma: negative in voxels that do not count."""
    level = np.broadcast_to(sigma, cube.shape)
    weighted = np.where(level > 0, cube / np.abs(level), 0.0).reshape(len(cube), -1)
    left, singular, _ = np.linalg.svd(weighted, full_matrices=False)
    leading = left[:, :modes] @ (left[:, :modes].T @ weighted)
    return cube - np.maximum(level, 0.0) * leading.reshape(cube.shape), singular


def sky(shape: tuple[int, ...], seed: int = 3, foregrounds: int = 2) -> Array:
    """Noise of sigma 10 and some much brighter modes, in the numbers of float32."""
    rng = np.random.default_rng(seed)
    cube = rng.normal(0, 10, shape)
    for k in range(foregrounds):
        spectrum = rng.normal(size=(shape[0], 1, 1))
        cube = cube + 80 * 0.5**k * spectrum * rng.normal(size=(1, *shape[1:]))
    return cube.astype(np.float32).astype(np.float64)


SHAPES = [(2, 8, 8), (3, 5, 7), (10, 16, 17), (10, 2, 2), (40, 20, 20), (256, 9, 15)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_numpys_decomposition(kernels: Kernels, shape: tuple[int, int, int]) -> None:
    """From two channels to 256, more and fewer than pixels; one mode to all but one."""
    cube = sky(shape)
    for modes in sorted({1, min(5, shape[0] - 1), shape[0] - 1}):
        expected, _ = without_modes(cube, modes)
        found = cleaned(kernels, cube[None], modes)[0]
        error = np.abs(found - expected).max()
        assert error <= 2 * FLOAT32 * np.abs(expected).max() + 1e-9 * np.abs(cube).max(), modes


def save(path: Path, **arrays: Any) -> str:
    np.savez(path, **arrays)
    return str(path)


def test_weights_are_those_of_the_noise_before(kernels: Kernels, tmp_path: Path) -> None:
    """Voxels over sigma; pixels that were not hit, or are masked, count for nothing and stay."""
    shape = (10, 16, 18)
    rng = np.random.default_rng(8)
    hits = rng.integers(1, 400, shape[1:]).astype(float)
    hits[:, :2] = 0.0
    sigma = np.where(hits > 0, np.sqrt(hits[hits > 0].mean() / np.maximum(hits, 1)), -1.0)
    noise = {"hits": save(tmp_path / "hits.npz", hits=hits)}
    cube = sky(shape)
    expected, singular = without_modes(cube, 3, sigma)
    assert singular[2] / singular[3] > 1.005  # resolved
    found = cleaned(kernels, cube[None], 3, noise=noise)[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * np.abs(expected).max())
    assert np.array_equal(found[:, :, :2], cube[:, :, :2])
    assert np.abs(found - without_modes(cube, 3)[0]).max() > 1.0

    keep = np.ones(shape[1:])
    keep[3:5, 6:] = 0.0
    mask = {"file": save(tmp_path / "mask.npz", mask=keep)}
    expected, _ = without_modes(cube, 3, np.where(keep == 1, sigma, -1.0))
    found = cleaned(kernels, cube[None], 3, noise=noise, mask=mask)[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


def test_weights_of_pixels_that_were_pooled_since(kernels: Kernels, tmp_path: Path) -> None:
    """Sigma of a sum goes as the root of the sum of its parts' squares."""
    rng = np.random.default_rng(4)
    hits = rng.integers(1, 50, (16, 16)).astype(float)
    fine = hits.mean() / hits
    sigma = np.sqrt(fine.reshape(8, 2, 8, 2).sum(axis=(1, 3)))
    noise, pool = {"hits": save(tmp_path / "h.npz", hits=hits)}, {"factor": [2, 2, 2]}
    *_, operator = operators({"noise": noise, "pool": pool, "pca": {"modes": 2}}, shape=[8, 16, 16])
    cube = sky((4, 8, 8))
    found = operator.apply(
        kernels, torch.from_numpy(cube[None].astype(np.float32)), torch.empty(0), {}
    )
    expected, _ = without_modes(cube, 2, sigma)
    np.testing.assert_allclose(
        found[0].numpy(), expected, rtol=0, atol=2e-6 * np.abs(expected).max()
    )


@pytest.mark.parametrize("modes", [1, 3, 6])
def test_a_map_of_few_modes_vanishes(kernels: Kernels, modes: int) -> None:
    """To the rounding of its numbers to float32; more modes than it has do no harm."""
    rng = np.random.default_rng(modes)
    cube = np.einsum("fk,kyx->fyx", rng.normal(size=(12, modes)), rng.normal(size=(modes, 20, 20)))
    for more in (0, 1, 4):
        left = cleaned(kernels, cube[None], modes + more)[0]
        assert np.abs(left).max() <= 2 * FLOAT32 * np.abs(cube).max()
    assert np.abs(cleaned(kernels, cube[None], modes - 1)[0]).max() > 0.1 if modes > 1 else True


def test_close_and_equal_eigenvalues(kernels: Kernels) -> None:
    """The projection is what counts: of three modes of the same power no vector is told from
    another, but all of them go; so with powers that differ in the ninth digit."""
    rng = np.random.default_rng(6)
    left, _ = np.linalg.qr(rng.normal(size=(16, 16)))
    right, _ = np.linalg.qr(rng.normal(size=(400, 16)))
    for powers in ([7.0, 7.0, 7.0], [7.0, 7.0 - 7e-9, 7.0 - 1e-8]):
        singular = np.array([*powers, *np.linspace(2.0, 1.0, 13)])
        cube = (left * singular @ right.T).reshape(16, 20, 20)
        expected = (left[:, 3:] * singular[3:] @ right[:, 3:].T).reshape(16, 20, 20)
        found = cleaned(kernels, cube[None], 3)[0]
        np.testing.assert_allclose(found, expected, rtol=0, atol=8 * FLOAT32 * np.abs(cube).max())


def test_maps_with_nothing_to_tell(kernels: Kernels) -> None:
    """Zeros, one bright voxel, channels that are masked or the same, numbers that are tiny or
    huge: all finite, the modes of those that have some gone."""
    shape = (8, 6, 7)
    rng = np.random.default_rng(2)
    same = np.broadcast_to(rng.normal(size=(1, 6, 7)), shape)
    spot = np.zeros(shape)
    spot[3, 2, 2] = 5.0
    lost = sky(shape)
    lost[[0, 4]] = 0.0
    cubes = np.stack([np.zeros(shape), same, spot, lost, 1e-18 * sky(shape), 1e15 * sky(shape)])
    found = cleaned(kernels, cubes, 3)
    assert np.isfinite(found).all()
    for k in range(3):
        assert np.abs(found[k]).max() <= 2 * FLOAT32 * np.abs(cubes[k]).max()
    expected, _ = without_modes(lost, 3)
    np.testing.assert_allclose(found[3], expected, rtol=0, atol=2e-6 * np.abs(expected).max())
    assert np.abs(found[3][[0, 4]]).max() < 1e-12
    small_left, huge_left = (found[k] * scale for k, scale in ((4, 1e18), (5, 1e-15)))
    expected, _ = without_modes(sky(shape), 3)
    for left in (small_left, huge_left):
        np.testing.assert_allclose(left, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


def spectrum(kind: int, size: int, rng: np.random.Generator) -> Array:
    """Singular values: equal, over 12 decades, in steps, in clusters of 1e-12, of low rank, any."""
    return [
        np.ones(size),
        10.0 ** rng.uniform(-12, 0, size),
        np.round(rng.uniform(0, 3, size)),
        1 + 1e-12 * rng.normal(size=size),
        np.where(np.arange(size) < max(1, size // 2), 1.0, 1e-9),
        rng.uniform(0, 1, size),
    ][kind]


def test_no_other_modes_would_take_more(kernels: Kernels) -> None:
    """Of 300 matrices of all kinds, some with channels and voxels of 0: what is left of their
    squares is the least that modes can leave, to the rounding of float64, and modes are
    orthonormal."""
    rng = np.random.default_rng(12)
    for trial in range(300):
        num_freq, pixels = int(rng.choice([2, 3, 5, 10, 31, 64])), int(rng.integers(4, 100))
        size = min(num_freq, pixels)
        left, _ = np.linalg.qr(rng.normal(size=(num_freq, size)))
        right, _ = np.linalg.qr(rng.normal(size=(pixels, size)))
        matrix = left * spectrum(trial % 6, size, rng) @ right.T
        matrix[rng.uniform(size=num_freq) < 0.3 * (trial % 4 == 0)] = 0.0
        matrix *= rng.uniform(size=matrix.shape) > 0.5 * (trial % 5 == 0)
        (operator,) = operators(
            {"pca": {"modes": int(rng.integers(1, num_freq))}}, shape=[num_freq, 8, 8]
        )
        assert isinstance(operator, PCA)
        (found,) = operator.leading_modes(kernels, torch.from_numpy(matrix)[None]).numpy()
        assert np.abs(found @ found.T - np.eye(operator.modes)).max() < 1e-13
        least = (np.linalg.svd(matrix, compute_uv=False)[operator.modes :] ** 2).sum()
        remains = ((matrix - found.T @ (found @ matrix)) ** 2).sum()
        assert remains - least <= 4e-15 * (matrix**2).sum()


@pytest.mark.parametrize(
    ("num_freq", "modes", "noise_left", "signal_left"),
    [(10, 1, 0.892, 0.887), (10, 5, 0.479, 0.468), (64, 5, 0.905, 0.905)],
)
def test_what_is_left_of_noise_and_signal(
    kernels: Kernels, num_freq: int, modes: int, noise_left: float, signal_left: float
) -> None:
    """The numbers of docs/observe.md: of the variance of white noise less than 1 - modes / n, since
    the modes of most power go; of a signal in 2 per cent of the voxels about as much. By the law of
    Marchenko and Pastur no mode of noise has less than (1 - sqrt(n / pixels))^2 of the mean."""
    rng = np.random.default_rng(7)
    shape = (num_freq, 64, 64)
    noise = rng.normal(size=shape)
    signal = 3.0 * (rng.uniform(size=shape) > 0.98)
    alone, both = cleaned(kernels, np.stack([noise, noise + signal]), modes)
    left, share = alone.var() / noise.var(), 1 - modes / num_freq
    assert share * (1 - np.sqrt(num_freq / 4096)) ** 2 < left < share
    assert left == pytest.approx(noise_left, abs=0.01)  # scatter: 0.0024
    contrast = signal - signal.mean()
    error = np.sqrt(left / (contrast**2).sum())
    slope = (both * contrast).sum() / (contrast**2).sum()
    assert slope == pytest.approx(signal_left, abs=4 * error)


def test_a_sample_does_not_depend_on_its_batch(small_sky: Lightcone) -> None:
    observe = {"noise": {"sigma_uK": [1, 5]}, "pca": {"modes": 2}}
    generator = Generator(small.config(observe=observe), lightcones=[small_sky])
    whole = generator.generate(range(6)).cube
    for k in range(6):
        assert torch.equal(generator.generate([k]).cube[0], whole[k])


def test_too_many_modes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"pca.modes = 4 must be below the number of freq.*, 4"):
        operators({"pca": {"modes": 4}}, shape=[4, 8, 8])
    with pytest.raises(ConfigError, match=r"observe.pca.modes"):
        operators({"pca": {"modes": 0}}, shape=[4, 8, 8])
