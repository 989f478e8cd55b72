"""Noise that is correlated along frequency, against its power in closed form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support import small
from support.operator_tools import keys, operators

from streamtrain.config import ConfigError
from streamtrain.numerics.backend import Kernels
from streamtrain.numerics.rng import STAGE_OBSERVE, Draws
from streamtrain.operators.base import Operator
from streamtrain.operators.correlated import CorrelatedNoise, channel_covariance, triangular_root

pytestmark = small.ASSUMES

Array = NDArray[np.float64]
BAND = {"nu_GHz": [34.0, 26.0]}


def expected_covariance(num: int, dnu_GHz: float, knee: float, index: float) -> Array:
    """By NumPy's Fourier transform of the power on a band twice as wide."""
    f = np.abs(np.fft.fftfreq(2 * num, dnu_GHz))
    power = np.zeros(2 * num)
    power[1:] = (knee / f[1:]) ** index
    apart = np.fft.ifft(power).real
    return apart[np.abs(np.subtract.outer(np.arange(num), np.arange(num)))]


@pytest.mark.parametrize("index", [0.7, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("num", [1, 2, 10, 64, 256])
def test_the_matrix_is_the_root_of_the_covariance(num: int, index: float) -> None:
    expected = expected_covariance(num, 8.0 / num, 0.5, index)
    covariance = channel_covariance(num, 8.0 / num, 0.5, index)
    np.testing.assert_allclose(covariance, expected, rtol=0, atol=1e-12 * expected[0, 0])
    root = triangular_root(covariance)
    assert not np.triu(root, 1).any()
    np.testing.assert_allclose(root, np.linalg.cholesky(covariance), rtol=0,
                               atol=1e-9 * root[0, 0])  # fmt: skip
    np.testing.assert_allclose(root @ root.T, covariance, rtol=0, atol=1e-12 * expected[0, 0])


def added(
    kernels: Kernels, operator: Operator, cubes: torch.Tensor, **drawn: NDArray[np.float32]
) -> Array:
    values = {name: torch.from_numpy(given) for name, given in drawn.items()}
    return operator.apply(kernels, cubes, keys(len(cubes)), values).numpy().astype(np.float64)


def test_noise_has_that_covariance(kernels: Kernels) -> None:
    """Of 6 channels, in 60 maps of 32 x 32 pixels, each of its own level; pixels and samples are
    independent, and it adds to what is there."""
    noise = {"sigma_uK": 1.0, "knee_per_GHz": 0.4, "index": 1.5}
    (operator,) = operators({"correlated_noise": noise}, shape=[6, 32, 32], **BAND)
    sigma = np.linspace(1.0, 3.0, 60).astype(np.float32)
    cubes = torch.full((60, 6, 32, 32), 100.0)
    found = (added(kernels, operator, cubes, sigma_uK=sigma) - 100.0) / sigma[:, None, None, None]
    expected = expected_covariance(6, 8.0 / 6, 0.4, 1.5)
    spectra = found.transpose(1, 0, 2, 3).reshape(6, -1)
    num = spectra.shape[1]
    measured = spectra @ spectra.T / num
    variance = np.diag(expected)
    error = np.sqrt((np.outer(variance, variance) + expected**2) / num)
    assert (np.abs(measured - expected) < 4.5 * error).all()
    assert (np.abs(spectra.mean(axis=1)) < 4.5 * np.sqrt(variance / num)).all()
    beside = (found[..., 1:] * found[..., :-1]).mean() / variance[0]
    between = (found[1:] * found[:-1]).mean() / variance[0]
    assert max(abs(beside), abs(between)) < 4.5 * np.sqrt(6.0 / found.size)


def test_its_power_beside_white_noise(kernels: Kernels) -> None:
    """White noise and this make sigma^2 (1 + (knee / f)^index) on a band twice as wide, which is
    seen in a band by the window of its Fourier transform: Sum_k P_k |W(j - k)|^2."""
    num = 32
    observe = {
        "noise": {"sigma_uK": 2.0},
        "correlated_noise": {"sigma_uK": 2.0, "knee_per_GHz": 0.6, "index": 2.0},
    }
    white, correlated = operators(observe, shape=[num, 32, 32], **BAND)
    level = np.full(20, 2.0, np.float32)
    cube = torch.zeros(20, num, 32, 32)
    added(kernels, white, cube, voxel_sigma=level)
    found = added(kernels, correlated, cube, sigma_uK=level)
    power = (np.abs(np.fft.fft(found, axis=1)) ** 2).mean(axis=(0, 2, 3)) / num
    f = np.abs(np.fft.fftfreq(2 * num, 8.0 / num))
    model = np.full(2 * num, 4.0)
    model[1:] += 4.0 * (0.6 / f[1:]) ** 2
    window = np.abs(np.fft.fft(np.ones(num), 2 * num)) ** 2 / (2 * num) / num
    seen = [sum(model[k] * window[(2 * j - k) % (2 * num)] for k in range(2 * num))
            for j in range(num)]  # fmt: skip
    np.testing.assert_allclose(power, seen, rtol=5 / np.sqrt(20 * 1024))


def test_it_differs_between_voxels_as_the_noise_before(kernels: Kernels, tmp_path: Path) -> None:
    hits = np.ones((8, 8))
    hits[:, 4:] = 4.0
    hits[0] = 0.0
    np.savez(tmp_path / "hits.npz", hits=hits)
    noise = {"sigma_uK": 1.0, "hits": str(tmp_path / "hits.npz")}
    given: dict[str, Any] = {"sigma_uK": 1.0, "knee_per_GHz": 0.3}
    uneven = operators({"noise": noise, "correlated_noise": given}, shape=[4, 8, 8], **BAND)[1]
    even = operators({"noise": {}, "correlated_noise": given}, shape=[4, 8, 8], **BAND)[1]
    cubes = [
        added(kernels, operator, torch.zeros(2, 4, 8, 8), sigma_uK=np.ones(2, np.float32))
        for operator in (uneven, even)
    ]
    seen = hits > 0
    level = np.where(seen, np.sqrt(hits[seen].mean() / np.where(seen, hits, 1.0)), 0.0)
    np.testing.assert_allclose(cubes[0], cubes[1] * level, rtol=1e-6)


def test_levels_are_drawn() -> None:
    noise = {"sigma_uK": [2.0, 4.0], "knee_per_GHz": 1.0, "absent": 0.25}
    (operator,) = operators({"correlated_noise": noise})
    assert isinstance(operator, CorrelatedNoise)
    sigma = operator.draw(Draws(9, "train", np.arange(4000, dtype=np.uint64), STAGE_OBSERVE))
    present = sigma["sigma_uK"][sigma["sigma_uK"] > 0]
    assert len(present) / 4000 == pytest.approx(0.75, abs=5 * np.sqrt(0.1875 / 4000))
    assert 2.0 < present.min() < 2.01 and 3.99 < present.max() < 4.0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sigma_uK": [4.0, 2.0], "knee_per_GHz": 1.0}, r"sigma_uK = \[4, 2\] must increase"),
        ({"sigma_uK": 4.0}, "'observe.correlated_noise.knee_per_GHz' is missing"),
        ({"sigma_uK": 4.0, "knee_per_GHz": 0.0}, "correlated_noise.knee_per_GHz"),
        ({"sigma_uK": 4.0, "knee_per_GHz": 1.0, "index": 5.0}, "correlated_noise.index"),
    ],
)
def test_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        operators({"correlated_noise": given})
