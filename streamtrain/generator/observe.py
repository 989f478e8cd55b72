"""The map operators of a configuration on a map that already exists."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import lru_cache
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from streamtrain.config import Config
from streamtrain.generator.backend import Kernels, full_device, kernels_for
from streamtrain.generator.generator import grid_of
from streamtrain.generator.operators import build_operators
from streamtrain.generator.operators.mask import Mask
from streamtrain.rng import Draws, Split, sample_indices, seed_words, stage_word


def observe(
    cube: torch.Tensor | ArrayLike,
    config: Config,
    seed: int = 0,
    index: int | Sequence[int] = 0,
    split: Split = "train",
    device: torch.device | str | None = None,
    *,
    noise_seed: int | None = None,
) -> torch.Tensor:
    """Apply a configuration's map operators: beam, noise, masks, filters, transforms.

    cube: [n_freq, n_dec, n_ra] or [B, n_freq, n_dec, n_ra], a tensor or an array of the shape
    config.grid.shape and in its units; it is not changed. Of (seed, split, index) only what an
    operator draws depends, as in a `Generator` whose configuration has this seed. index: of the
    cube, or of the first of a batch (the others follow), or one for each. device: where it is done;
    default: where the cube is. noise_seed: makes another realisation of noise and foregrounds at
    the levels that `seed` draws.

    Returns float32 of the shape after the operators, on that device. A cube painted by a
    `Generator` without operators becomes, to the bit, what the one with them makes; but a pool at
    the head of the list is summed there before rounding to float32, here after it (1e-7).
    Raises ValueError, one sentence, for a cube of another shape, for another number of indices than
    cubes, or for voxels without a value unless `mask`, at the head of the list, removes them.
    """
    given = cube if isinstance(cube, torch.Tensor) else _tensor(cube)
    target = full_device(given.device if device is None else device)
    grid = grid_of(config.grid)
    shape = tuple(given.shape)
    if len(shape) not in (3, 4) or shape[-3:] != grid.shape:
        raise ValueError(
            f"observe: the cube has shape {shape}, config.grid.shape is {grid.shape} (freq, dec, "
            "ra), after a batch axis if there is one"
        )
    numbers = _indices(index, 1 if len(shape) == 3 else shape[0])
    operators = build_operators(config.observe, grid)
    kernels = _kernels(target)
    noise = seed if noise_seed is None else noise_seed
    with torch.inference_mode(False), torch.no_grad():
        observed = torch.empty(
            (len(numbers), *grid.shape), dtype=torch.float32, device=target
        ).copy_(given.reshape(-1, *grid.shape))
        keys = torch.from_numpy(_keys(noise, split, numbers).view(np.int32)).to(target)
        masks = len(list(takewhile(lambda step: isinstance(step, Mask), operators)))
        for number, step in enumerate(operators):
            if number == masks:
                _check_finite(observed)
            drawn = step.draw(Draws(seed, split, numbers, step.stage))
            tensors: dict[str, Any] = {k: torch.from_numpy(v).to(target) for k, v in drawn.items()}
            if len(numbers):
                observed = step.apply(kernels, observed, keys, tensors)
    return observed[0] if len(shape) == 3 else observed


def _check_finite(cube: torch.Tensor) -> None:
    bad = cube.numel() - int(torch.isfinite(cube).sum())
    if bad:
        raise ValueError(
            f"observe: {bad} of the cube's {cube.numel()} voxels are NaN or infinite; where pixels "
            "are missing, begin with the operator mask"
        )


@lru_cache
def _kernels(device: torch.device) -> Kernels:
    return kernels_for(device, "observe.cu")


def _tensor(cube: ArrayLike) -> torch.Tensor:
    """An array of any byte order and type."""
    return torch.from_numpy(np.array(cube, np.float32))


def _indices(index: int | Sequence[int], num: int) -> NDArray[np.uint64]:
    if isinstance(index, Sequence | np.ndarray):
        numbers = sample_indices(index)
        if len(numbers) != num:
            raise ValueError(f"observe: {num} cubes need as many indices, not {len(numbers)}")
        return numbers
    first = operator.index(index)
    return sample_indices(range(first, first + num))


def _keys(seed: int, split: Split, indices: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """uint32 [B, 6] as in kernels/paint.cu; no operator reads the last, a halo's first row."""
    keys = np.zeros((len(indices), 6), np.uint32)
    keys[:, :2] = seed_words(seed)
    keys[:, 2] = indices & np.uint64(0xFFFFFFFF)
    keys[:, 3] = indices >> np.uint64(32)
    keys[:, 4] = stage_word(split, 0)
    return keys
