"""Transforms: log10, asinh, standardisation, log-modulus and back; the seed project's pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support import reference as ref
from support.limlam import Case

from streamtrain.config import ConfigError, from_mapping
from streamtrain.generator.observe import observe
from streamtrain.operators.beam import FWHM_PER_SIGMA
from streamtrain.operators.transforms import inverse_log_modulus


def transform(operators: dict[str, Any], cube: NDArray[Any]) -> NDArray[np.float64]:
    """Operators on cubes [..., n_freq, n_dec, n_ra], or on numbers [n]."""
    whole = cube if cube.ndim > 1 else cube.reshape(-1, 1, 1, 1)
    config = from_mapping({"grid": {"shape": list(whole.shape[-3:])}, "observe": operators})
    found = observe(whole.astype(np.float32), config).numpy().astype(np.float64)
    return found if cube.ndim > 1 else found.ravel()


MAGNITUDES = np.logspace(-30, 30, 4000)[:, None] * np.array([1.0, -1.0])
"""Sixty decades of both signs."""


@pytest.mark.parametrize("scale", [1.0, 0.037, 2e5])
def test_asinh(scale: float) -> None:
    x = np.append(MAGNITUDES.ravel(), np.logspace(-3, 6, 3000) * scale).astype(np.float32)
    found = transform({"asinh": {"scale": scale}}, x)
    expected = np.arcsinh(x.astype(float) / np.float32(scale))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_array_equal(transform({"asinh": {"scale": scale}}, -x), -found)
    zeros = transform({"asinh": {"scale": scale}}, np.array([0.0, -0.0]))
    np.testing.assert_array_equal(zeros, 0)


def test_asinh_of_what_float32_cannot_hold() -> None:
    """Underflow is zero, overflow the logarithm of the largest power of two."""
    found = transform({"asinh": {"scale": 1e20}}, np.array([1e-20, -1e-25, 1e-10]))
    np.testing.assert_allclose(found, [0, 0, 1e-30], rtol=1e-6)
    found = transform({"asinh": {"scale": 1e-20}}, np.array([1e30, -1e30]))
    np.testing.assert_allclose(found, np.log(2.0) * 129 * np.array([1, -1]), rtol=1e-6)


@pytest.mark.parametrize("epsilon", [1.0, 1e-3, 30.0])
def test_log10(epsilon: float) -> None:
    x = np.abs(MAGNITUDES[:, 0]).astype(np.float32)
    found = transform({"log10": {"epsilon": epsilon}}, x)
    np.testing.assert_allclose(found, np.log10(x.astype(float) + epsilon), rtol=3e-7, atol=1e-7)
    empty = np.log10(epsilon)
    negative = np.array([0.0, -0.9, -0.999, -1.0, -1.5, -1e6]) * epsilon
    found = transform({"log10": {"epsilon": epsilon}}, negative)
    np.testing.assert_allclose(found - empty, [0, -1, -3, -3, -3, -3], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["log10", "asinh"])
def test_bad_settings(name: str) -> None:
    setting = {"log10": "epsilon", "asinh": "scale"}[name]
    for value, sentence in ((0, "outside its range 1e-30..1e[+]30"), (-1, "outside its range")):
        with pytest.raises(ConfigError, match=rf"observe.{name}.{setting} = {value} is {sentence}"):
            from_mapping({"observe": {name: {setting: value}}})
    with pytest.raises(ConfigError, match=rf"'observe.{name}.{setting}' is missing"):
        from_mapping({"observe": {name: {}}})


def test_standardise() -> None:
    rng = np.random.default_rng(4)
    cubes = rng.gamma(0.1, 50.0, (3, 5, 9, 11)) * np.array([1, 1e-6, 1e6]).reshape(3, 1, 1, 1)
    found = transform({"standardise": {}}, cubes + 3.0)
    cubes = (cubes + 3.0).astype(np.float32).astype(np.float64)
    mean, std = cubes.mean((1, 2, 3), keepdims=True), cubes.std((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(found, (cubes - mean) / std, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(found.mean((1, 2, 3)), 0, atol=1e-7)
    np.testing.assert_allclose(found.std((1, 2, 3)), 1, rtol=1e-7)
    assert not transform({"standardise": {}}, np.full((7, 9, 11), 0.1)).any()
    assert not transform({"standardise": {}}, np.zeros((7, 9, 11))).any()


def test_inverse_log_modulus() -> None:
    x = np.concatenate([MAGNITUDES.ravel(), [0.0], np.linspace(-40, 40, 1001)])
    there = ref.log_modulus(x)
    resolved = np.abs(x) > 1e-3  # below, |x| + 1 keeps few digits of x
    back = inverse_log_modulus(there)
    np.testing.assert_allclose(back[resolved], x[resolved], rtol=1e-11)
    np.testing.assert_allclose(back, x, rtol=1e-11, atol=3e-16)
    torch.testing.assert_close(inverse_log_modulus(torch.from_numpy(there)).numpy(), back)
    small = inverse_log_modulus(np.array([1e-12]))
    np.testing.assert_allclose(small, 1e-12 * np.log(10), rtol=1e-11)
    found = inverse_log_modulus(transform({"log_modulus": {}}, x[resolved & (np.abs(x) < 1e5)]))
    np.testing.assert_allclose(found, x[resolved & (np.abs(x) < 1e5)], rtol=1e-5, atol=3e-7)


@pytest.mark.parametrize("name", ["v3_breysse_offset", "v1_li_square"])
def test_pipeline_of_the_seed_project(name: str, shared: Path) -> None:
    """Pool, log-modulus, beam, in the published order, and a map added in between.

    The seed project's beam has sigma = FWHM / 2.355.
    """
    file = shared / "data" / "oracle" / f"{name}.npz"
    if not file.is_file():
        pytest.skip(f"{file} is not there")
    about = json.loads(file.with_suffix(".json").read_text())
    with np.load(file) as arrays:
        case = Case(name, dict(arrays), about["params"], about["cosmo_header"])
    side, depth = case.params["pool"]
    pool = {"pool": {"factor": [depth, side, side], "reduce": "sum"}}
    width = case.params["smooth_fwhm_pix"] * FWHM_PER_SIGMA / 2.355
    beam = {"beam": {"fwhm_pixels": width}}
    fine = case.map("map")

    pooled = transform(pool, fine)
    np.testing.assert_allclose(pooled, case.map("pooled"), rtol=5e-7)
    logmod = transform({**pool, "log_modulus": {}}, fine)
    np.testing.assert_allclose(logmod, case.map("logmod"), rtol=5e-7, atol=1e-7)
    smoothed = transform({**pool, "log_modulus": {}, **beam}, fine)
    np.testing.assert_allclose(smoothed, case.map("logmod_smoothed"), rtol=1e-6, atol=1e-7)

    undone = inverse_log_modulus(case.map("logmod"))  # in float64, as the seed project's
    np.testing.assert_allclose(undone, case.map("pooled"), rtol=1e-12)
    for added in (undone + case.map("add_map"), case.map("pooled") + case.map("add_map")):
        found = transform({"log_modulus": {}}, added)
        np.testing.assert_allclose(found, case.map("add_result"), rtol=5e-7, atol=1e-7)
        found = transform({"log_modulus": {}, **beam}, added)
        smoothed = case.map("add_result_smoothed")
        np.testing.assert_allclose(found, smoothed, rtol=1e-6, atol=3e-7)
