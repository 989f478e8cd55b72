"""The mean model learns a conditional mean, not the noise around it."""

from __future__ import annotations

import numpy as np
import pytest

from streamtrain.mcmc.emulator import Emulator


def curve(x: np.ndarray) -> np.ndarray:
    """Three smooth functions of two inputs, one of them not straight at all."""
    a, b = x.T
    return np.stack([3.0 + a - 2.0 * b, 100.0 * np.log(np.exp(a) + b**2), np.full(len(x), 5.0)], 1)


def test_learns_the_mean_below_the_noise() -> None:
    rng = np.random.default_rng(0)
    inputs = np.stack([rng.normal(2.0, 0.5, 3000), rng.uniform(0.0, 3.0, 3000)], axis=1)
    truth = curve(inputs)
    noise = rng.normal(size=truth.shape) * [0.3, 10.0, 0.0]
    seen: list[int] = []
    emulator = Emulator(
        inputs, truth + noise, steps=600, report=lambda step, steps: seen.append(step)
    )
    assert seen[-1] == 600
    points = np.stack([rng.normal(2.0, 0.4, 500), rng.uniform(0.2, 2.8, 500)], axis=1)
    error = np.sqrt(np.mean((emulator(points) - curve(points)) ** 2, axis=0))
    assert error[0] < 0.3 / 5
    assert error[1] < 10.0 / 5
    assert error[2] < 1e-6
    variance = (truth + noise).var(axis=0)
    np.testing.assert_allclose(emulator.unexplained[:2], [0.09, 100.0] / variance[:2], rtol=0.25)


def test_a_straight_line_is_kept_exactly() -> None:
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(200, 2))
    vectors = inputs @ np.array([[1.0, 2.0], [-3.0, 0.5]]) + 4.0
    emulator = Emulator(inputs, vectors, steps=50)
    np.testing.assert_allclose(emulator(inputs), vectors, atol=1e-6)


def test_too_few_simulations() -> None:
    with pytest.raises(ValueError, match="99 simulations are too few for an emulator: take 100"):
        Emulator(np.zeros((99, 1)), np.zeros((99, 2)))
