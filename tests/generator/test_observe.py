"""The operators on a map that exists already: the generator's bits, shapes, what is refused."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from support import small

from streamtrain import observe
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.config import Config, from_mapping
from streamtrain.generator.generator import Generator
from streamtrain.shipped import resource_dir

pytestmark = small.EXTRAPOLATES

INDICES = [0, 7, 2**33 + 5]
SHAPE = tuple(small.GRID["shape"])
OPERATORS: dict[str, Any] = {
    "beam": {"fwhm_arcmin": 4.5},
    "noise": {"sigma_uK": [1.0, 9.0], "per": "fine_voxel", "absent": 0.2},
    "high_pass": {"modes": 2},
    "noise_2": {"sigma_uK": 2.0},
    "pool": {"factor": [3, 3, 1]},
    "mask": {"edge_pixels": 1},
    "subtract_mean": {"skip_zeros": True},
    "log_modulus": {},
    "standardise": {},
}


def make(observe: dict[str, Any], sky: Lightcone, split: Any = "train") -> torch.Tensor:
    generator = Generator(small.config(observe=observe), split, lightcones=[sky])
    return generator.generate(INDICES).cube


def config(**operators: Any) -> Config:
    return small.config(observe=operators)


@pytest.mark.parametrize("split", ["train", "test"])
def test_bits_are_those_of_the_generator(small_sky: Lightcone, split: Any) -> None:
    painted, expected = (make(o, small_sky, split) for o in ({}, OPERATORS))
    before = painted.clone()
    settings = config(**OPERATORS)
    found = observe(painted, settings, settings.seed, INDICES, split)
    assert torch.equal(found, expected)
    for k, index in enumerate(INDICES):
        one = observe(painted[k].numpy(), settings, settings.seed, index, split)
        assert torch.equal(one, expected[k])
    assert torch.equal(painted, before)


def test_pool_at_the_head(small_sky: Lightcone) -> None:
    """The generator sums integers before rounding, `observe` float32 after it: the noise is the
    same to the bit, the signal to the last digit."""
    for reduce in ("mean", "sum"):
        pool = {"pool": {"factor": [3, 3, 3], "reduce": reduce}}
        with_noise = {**pool, "noise": {"sigma_uK": 2.0}}
        painted = make({}, small_sky)
        found = observe(painted, config(**pool), 11, INDICES)
        torch.testing.assert_close(found, make(pool, small_sky), rtol=2e-7, atol=0)
        found = observe(painted, config(**with_noise), 11, INDICES)
        torch.testing.assert_close(found, make(with_noise, small_sky), rtol=3e-7, atol=2e-6)
        silence = observe(torch.zeros_like(painted), config(**with_noise), 11, INDICES)
        assert torch.equal(silence, observe(torch.zeros(3, 3, 7, 7), _pooled_noise(), 11, INDICES))


def _pooled_noise() -> Config:
    """The same noise as second operator of a map that needs no pooling."""
    grid = {**small.GRID, "shape": [3, 7, 7]}
    return small.config(grid=grid, observe={"pool": {}, "noise": {"sigma_uK": 2.0}})


def test_kinds_of_cubes() -> None:
    """Tensors and arrays of any type and layout give the same float32."""
    values = np.random.default_rng(1).integers(-50, 50, (2, *SHAPE)).astype(np.float32)
    settings = config(beam={"fwhm_pixels": 2.0}, noise={"sigma_uK": 3.0})
    expected = observe(values, settings, 4, [3, 4])
    assert expected.dtype == torch.float32
    assert expected.shape == values.shape
    double = torch.from_numpy(values).double()
    strided = torch.from_numpy(np.ascontiguousarray(values.transpose(3, 2, 1, 0))).permute(
        3, 2, 1, 0
    )
    for cube in (
        values.astype(">f8"), values.astype(int), values.tolist(), double, strided,
        torch.from_numpy(values).requires_grad_(),
    ):  # fmt: skip
        assert torch.equal(observe(cube, settings, 4, [3, 4]), expected)
    assert torch.equal(observe(values, settings, 4, 3), expected)  # 3 and the next
    assert torch.equal(observe(values, settings, 4, np.array([3, 4])), expected)
    assert observe(values[:0], settings, 4, []).shape == (0, *SHAPE)
    unchanged = observe(torch.from_numpy(values), config())
    assert torch.equal(unchanged, torch.from_numpy(values))
    unchanged += 1
    assert torch.equal(observe(values, config()) + 1, unchanged)


def test_seeds_splits_and_indices_matter() -> None:
    settings, zero = config(noise={}), np.zeros(SHAPE)
    cubes = [
        observe(zero, settings),
        observe(zero, settings, seed=1),
        observe(zero, settings, index=1),
        observe(zero, settings, split="validation"),
    ]
    correlation = np.corrcoef([c.numpy().ravel() for c in cubes]) - np.eye(len(cubes))
    assert np.abs(correlation).max() < 5 / np.sqrt(zero.size)


def test_refusals() -> None:
    for shape in ((9, 21, 20), (21, 21), (1, 1, *SHAPE)):
        with pytest.raises(
            ValueError, match=r"the cube has shape \(.*config.grid.shape is \(9, 21,"
        ):
            observe(np.zeros(shape), config())
    hole = np.zeros(SHAPE)
    hole[:, 0, 3] = np.nan
    mask = {"edge_pixels": 1}
    assert torch.equal(observe(hole, config(mask=mask)), torch.zeros(SHAPE))
    for operators in ({"noise": {}, "mask": mask}, {"mask": {"edge_pixels": 1}, "noise": {}}):
        cube = np.roll(hole, 5, axis=1) if next(iter(operators)) == "mask" else hole
        with pytest.raises(ValueError, match="9 of the cube's 3969 voxels are NaN or infinite"):
            observe(cube, config(**operators))
    with pytest.raises(ValueError, match="2 cubes need as many indices, not 3"):
        observe(np.zeros((2, *SHAPE)), config(), index=[1, 2, 3])
    with pytest.raises(ValueError, match="sample index -1 is outside"):
        observe(np.zeros(SHAPE), config(), index=-1)
    with pytest.raises(ValueError, match="split 'dev' is none of"):
        observe(np.zeros(SHAPE), config(), split="dev")  # type: ignore[arg-type]


def test_observe_page() -> None:
    """The YAML of docs/observe.md is valid and its Python runs."""
    text = (resource_dir("configs").parent / "docs" / "observe.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert blocks
    for block in blocks:
        assert from_mapping({"grid": {"shape": [100, 256, 256]}, **yaml.safe_load(block)}).observe
    (python,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {"cube": torch.zeros(10, 64, 64)}
    exec(compile(python, "observe.md", "exec"), names)
    assert names["noisy"].std() > 0.3


@pytest.mark.gpu
def test_gpu() -> None:
    cube = np.random.default_rng(2).normal(0, 5, (2, *SHAPE)).astype(np.float32)
    settings = config(**OPERATORS)
    expected = observe(cube, settings, 4, [3, 2**40])
    for found in (
        observe(cube, settings, 4, [3, 2**40], device="cuda"),
        observe(torch.from_numpy(cube).cuda(), settings, 4, [3, 2**40]),
    ):
        assert found.device.type == "cuda"
        assert torch.equal(found.cpu(), expected)


def test_another_realisation_at_the_same_levels(small_sky: Lightcone) -> None:
    """noise_seed changes the random numbers, not the level that the seed draws."""
    painted = make({}, small_sky)
    settings = config(noise={"sigma_uK": [1.0, 90.0]})
    first, second = (
        observe(painted, settings, 11, INDICES, noise_seed=n) - painted for n in (11, 12)
    )
    assert torch.equal(first, observe(painted, settings, 11, INDICES) - painted)
    assert not torch.equal(first, second)
    levels = [noise.flatten(1).std(1) for noise in (first, second)]
    torch.testing.assert_close(levels[0], levels[1], rtol=0.06, atol=0)
    assert float(levels[0].max() / levels[0].min()) > 1.3
    other = observe(painted, settings, 12, INDICES) - painted
    assert not torch.allclose(other.flatten(1).std(1), levels[1], rtol=0.06)
