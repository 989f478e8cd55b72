"""Map operators: moments and independence of the noise, pooling, log-modulus."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from support import reference as ref
from support.limlam import load
from support.operator_tools import SHAPE, keys, operators

from streamtrain.numerics.backend import Kernels
from streamtrain.numerics.rng import STAGE_OBSERVE, Draws
from streamtrain.operators.base import Operator
from streamtrain.operators.noise import Noise


def noise_of(kernels: Kernels, operator: Operator, num: int = 4, **key: Any) -> NDArray[Any]:
    """What the operator adds to empty cubes [num, *SHAPE], at unit sigma."""
    sigma = torch.ones(num)
    cube = torch.zeros(num, *SHAPE)
    return operator.apply(kernels, cube, keys(num, **key), {"voxel_sigma": sigma}).numpy()


# Noise.


def test_noise_is_white_and_normal(kernels: Kernels) -> None:
    (operator,) = operators({"noise": {}})
    noise = noise_of(kernels, operator, 40).astype(float)
    flat = noise.ravel()
    assert stats.kstest(flat, "norm").pvalue > 1e-4
    error = 5 / np.sqrt(flat.size)
    assert flat.mean() == pytest.approx(0, abs=error)
    assert flat.var() == pytest.approx(1, abs=error * np.sqrt(2))
    for axis in range(4):  # samples, frequencies, dec, ra
        for lag in (1, 2, 3, 4):
            first = np.take(noise, range(noise.shape[axis] - lag), axis)
            second = np.take(noise, range(lag, noise.shape[axis]), axis)
            assert abs(np.mean(first * second)) < 5 / np.sqrt(first.size)


def test_noise_of_samples_splits_seeds_and_operators_is_independent(kernels: Kernels) -> None:
    first, second = operators({"noise": {}, "noise_2": {}})
    cubes = [
        noise_of(kernels, first, 1),
        noise_of(kernels, second, 1),
        noise_of(kernels, first, 1, first=1),
        noise_of(kernels, first, 1, seed=4),
        noise_of(kernels, first, 1, split="validation"),
        noise_of(kernels, first, 1, split="test"),
    ]
    correlation = np.corrcoef([c.ravel() for c in cubes]) - np.eye(len(cubes))
    assert np.abs(correlation).max() < 5 / np.sqrt(cubes[0].size)
    np.testing.assert_array_equal(
        noise_of(kernels, first, 3)[2], noise_of(kernels, first, 1, first=2)[0]
    )


def test_noise_is_added_in_proportion_to_sigma(kernels: Kernels) -> None:
    (operator,) = operators({"noise": {}})
    signal = torch.from_numpy(np.random.default_rng(1).uniform(0, 8, (3, *SHAPE)).astype("f4"))
    drawn = {"voxel_sigma": torch.tensor([0.0, 0.5, 4.0])}
    result = operator.apply(kernels, signal.clone(), keys(3), drawn).numpy()
    unit = noise_of(kernels, operator, 3)
    np.testing.assert_array_equal(result[0], signal[0].numpy())
    for k, sigma in ((1, 0.5), (2, 4.0)):
        np.testing.assert_array_equal(result[k], signal[k].numpy() + np.float32(sigma) * unit[k])


def draws(num: int) -> Draws:
    return Draws(9, "train", np.arange(num, dtype=np.uint64), STAGE_OBSERVE)


def test_drawn_levels() -> None:
    """Uniform between the ends, absent as often as asked."""
    (operator,) = operators({"noise": {"sigma_uK": [2.0, 6.31], "absent": 0.1}})
    sigma = operator.draw(draws(5000))["sigma_uK"]
    absent = sigma == 0
    assert absent.mean() == pytest.approx(0.1, abs=5 * np.sqrt(0.09 / 5000))
    assert stats.kstest(sigma[~absent], "uniform", (2.0, 4.31)).pvalue > 1e-4
    (fixed,) = operators({"noise": {"sigma_uK": 3.0}})
    assert set(fixed.draw(draws(50))["voxel_sigma"].tolist()) == {3.0}
    (never,) = operators({"noise": {"sigma_uK": 3.0, "absent": 1.0}})
    assert not never.draw(draws(50))["voxel_sigma"].any()


def factor_of(observe: dict[str, Any], name: str = "noise", **grid: Any) -> float:
    """voxel_sigma over sigma_uK of the noise `name`."""
    (operator,) = (o for o in operators(observe, **grid) if o.name == name)
    assert isinstance(operator, Noise)
    drawn = operator.draw(draws(1))
    return float(drawn["voxel_sigma"][0] / drawn["sigma_uK"][0])


@pytest.mark.parametrize(
    ("reduce", "expected"), [("mean", 1 / np.sqrt(20)), ("sum", np.sqrt(20))], ids=["mean", "sum"]
)
def test_noise_quoted_for_fine_voxels(reduce: str, expected: float, kernels: Kernels) -> None:
    """Added after the pool it has the level of noise that is added before and pooled."""
    pool, noise = {"factor": [5, 2, 2], "reduce": reduce}, {"sigma_uK": 3.0, "per": "fine_voxel"}
    assert factor_of({"pool": pool, "noise": noise}) == pytest.approx(expected, rel=1e-6)
    assert factor_of({"noise": noise, "pool": pool}) == 1.0
    assert factor_of({"pool": pool, "noise": {"sigma_uK": 3.0}}) == 1.0
    before, pooling = operators({"noise": noise, "pool": pool})
    fine = torch.from_numpy(noise_of(kernels, before, 40))
    pooled = pooling.apply(kernels, fine, keys(40), {}).numpy()
    assert pooled.std() == pytest.approx(expected, rel=5 / np.sqrt(2 * pooled.size))


def test_noise_quoted_for_a_voxel_size() -> None:
    """sigma ~ 1 / sqrt(dnu Omega); a voxel that is pooled to the quoted size has that sigma."""
    noise = {"sigma_uK": 11.0, "per": {"arcmin": 4.0, "MHz": 15.6}}
    grid = {"fov_deg": [32 / 60, 32 / 60], "shape": [10, 32, 32], "nu_GHz": [34.0, 34 - 0.156]}
    assert factor_of({"noise": noise}, **grid) == pytest.approx(4.0, rel=1e-6)  # 1 arcmin pixels
    pool = {"factor": [1, 4, 4]}
    assert factor_of({"pool": pool, "noise": noise}, **grid) == pytest.approx(1.0, rel=1e-6)
    pool = {"factor": [2, 4, 4], "reduce": "sum"}
    expected = 16 * np.sqrt(2)
    assert factor_of({"pool": pool, "noise": noise}, **grid) == pytest.approx(expected, rel=1e-6)


# Pool and log-modulus.


def test_pool(kernels: Kernels) -> None:
    cube = np.random.default_rng(2).normal(0, 5, (3, *SHAPE)).astype(np.float32)
    for reduce, truth in (("mean", ref.pool_mean), ("sum", ref.pool_sum)):
        (pool,) = operators({"pool": {"factor": [5, 8, 4], "reduce": reduce}})
        found = pool.apply(kernels, torch.from_numpy(cube), keys(3), {}).numpy()
        assert found.shape == (3, 2, 4, 8)
        expected = np.stack([truth(c.astype(float), (5, 8, 4)) for c in cube])
        np.testing.assert_allclose(found, expected, rtol=2e-7, atol=1e-12)


def log_modulus(kernels: Kernels, values: NDArray[Any]) -> NDArray[Any]:
    (operator,) = operators({"log_modulus": {}})
    cube = torch.from_numpy(values.astype(np.float32).reshape(1, 1, 1, -1))
    return operator.apply(kernels, cube, keys(1), {}).numpy().ravel()


def test_log_modulus(kernels: Kernels) -> None:
    x = np.concatenate([np.linspace(-50, 50, 100_001), [1e6, -1e6, 1e30]]).astype(np.float32)
    expected = ref.log_modulus(x)
    found = log_modulus(kernels, x)
    np.testing.assert_allclose(found, expected, rtol=3e-7, atol=1e-7)  # |x| + 1 rounds small x
    edges = log_modulus(kernels, np.array([0.0, -0.0, 9.0, -9.0, 99.0]))
    np.testing.assert_allclose(edges, [0, 0, 1, -1, 2], rtol=2e-7)
    np.testing.assert_array_equal(log_modulus(kernels, -x), -found)


@pytest.mark.parametrize("name", ["v3_breysse_offset", "v1_li_square"])
def test_pool_and_log_modulus_of_limlam(name: str, kernels: Kernels) -> None:
    """The published pipeline's block sums and log-modulus of its own map."""
    case = load(name)
    side, depth = case.params["pool"]
    fine = np.ascontiguousarray(case.map("map"), np.float32)
    grid = {"shape": list(fine.shape)}
    pool, transform = operators(
        {"pool": {"factor": [depth, side, side], "reduce": "sum"}, "log_modulus": {}}, **grid
    )
    pooled = pool.apply(kernels, torch.from_numpy(fine[None]), keys(1), {})
    np.testing.assert_allclose(pooled[0].numpy(), case.map("pooled"), rtol=5e-7)
    result = transform.apply(kernels, pooled, keys(1), {})[0].numpy()
    np.testing.assert_allclose(result, case.map("logmod"), rtol=5e-7, atol=1e-7)
