"""The map operators of a configuration on a map that already exists."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import permutations, takewhile
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from streamtrain.arguments import given_cube, whole_number
from streamtrain.config import Config
from streamtrain.grid import Grid
from streamtrain.numerics.backend import Kernels, full_device, kernels_for
from streamtrain.numerics.rng import Draws, Split, sample_indices, seed_words, stage_word
from streamtrain.operators.base import draw_finite


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
    config.grid.shape and in its units, or with a unit of astropy that is converted to them (from
    intensity to brightness temperature and back at each channel's centre); masked voxels have no
    value. It is not changed. Of (seed, split, index) only what an
    operator draws depends, as in a `Generator` whose configuration has this seed. index: of the
    cube, or of the first of a batch (the others follow), or one for each. device: where it is done;
    default: where the cube is. noise_seed: makes another realisation of noise and foregrounds at
    the levels that `seed` draws.

    Returns float32 of the shape after the operators, on that device. A cube painted by a
    `Generator` without operators becomes, to the bit, what the one with them makes; but a pool at
    the head of the list is summed there before rounding to float32, here after it (1e-7).
    Raises ValueError, one sentence, for a cube of another shape, for another number of indices than
    cubes, for what is no array of real numbers or of another unit, or for voxels without a value
    unless `mask`, at the head of the list, removes them.

    >>> import numpy as np
    >>> from streamtrain import load_config, observe
    >>> settings = {"grid": {"shape": [10, 32, 32]}, "observe": {"noise": {"sigma_uK": 2}}}
    >>> config = load_config(settings)
    >>> noisy = observe(np.zeros((10, 32, 32)), config, seed=1)
    >>> 1.9 < float(noisy.std()) < 2.1
    True
    """
    if not isinstance(config, Config):
        raise ValueError(
            f"observe: config must be what load_config returns, not a {type(config).__name__}"
        )
    grid = config.grid
    given = _tensor(cube, grid)
    target = full_device(given.device if device is None else device)
    shape = tuple(given.shape)
    numbers = _indices(index, 1 if len(shape) == 3 else shape[0])
    operators = config.observation.operators()
    kernels = _kernels(target)
    noise = seed if noise_seed is None else noise_seed
    with torch.inference_mode(False), torch.no_grad():
        observed = torch.empty(
            (len(numbers), *grid.shape), dtype=torch.float32, device=target
        ).copy_(given.reshape(-1, *grid.shape))
        keys = torch.from_numpy(_keys(noise, split, numbers).view(np.int32)).to(target)
        masks = len(list(takewhile(lambda step: step.selects, operators)))
        for number, step in enumerate(operators):
            if number == masks:
                _check_finite(observed)
            drawn = draw_finite(step, Draws(seed, split, numbers, step.stage))
            tensors: dict[str, Any] = {k: torch.from_numpy(v).to(target) for k, v in drawn.items()}
            if len(numbers):
                observed = step.apply(kernels, observed, keys, tensors)
        if masks == len(operators):
            _check_finite(observed)
        elif bad := observed.numel() - int(torch.isfinite(observed).sum()):
            raise ValueError(
                f"observe: {bad} of the {observed.numel()} voxels are NaN or infinite after "
                f"{', '.join(step.name for step in operators)}: a setting, or the cube, is beyond "
                "what float32 holds"
            )
    return observed[0] if len(shape) == 3 else observed


def _check_finite(cube: torch.Tensor) -> None:
    bad = cube.numel() - int(torch.isfinite(cube).sum())
    if bad:
        raise ValueError(
            f"observe: {bad} of the cube's {cube.numel()} voxels are NaN or infinite, or masked; "
            "where pixels are missing, begin with the operator mask"
        )


@lru_cache
def _kernels(device: torch.device) -> Kernels:
    return kernels_for(device, "observe.cu")


def _tensor(cube: torch.Tensor | ArrayLike, grid: Grid) -> torch.Tensor:
    """The cube in the grid's units; a tensor, whose device counts, as it is."""
    if isinstance(cube, torch.Tensor) and not hasattr(cube, "get_mask"):
        if cube.dtype == torch.bool or cube.is_complex():
            raise ValueError(f"observe: the cube must be numbers, not {cube.dtype}")
        _check_shape(tuple(cube.shape), grid)
        return cube if cube.layout == torch.strided else cube.to_dense()
    given = given_cube(cube, "observe: the cube")
    _check_shape(given.values.shape, grid)
    values = given.to(grid.units, () if given.unit is None else _brightness(grid))
    with np.errstate(over="ignore"):
        numbers = np.array(values, np.float32)
    if given.masked is not None:
        numbers[given.masked] = np.nan
    return torch.from_numpy(numbers)


def _brightness(grid: Grid) -> Sequence[Any]:
    """astropy's equivalence of intensity and Rayleigh-Jeans temperature in every channel."""
    try:
        from astropy import units
    except ImportError:
        return ()
    edges = grid.edges[0][:, None, None]
    equivalence: Sequence[Any] = units.brightness_temperature(
        0.5 * (edges[1:] + edges[:-1]) * units.GHz
    )
    return equivalence


def _check_shape(shape: tuple[int, ...], grid: Grid) -> None:
    if len(shape) in (3, 4) and shape[-3:] == grid.shape:
        return
    turned = [axes for axes in permutations(range(3)) if _turned(shape, axes) == grid.shape]
    hint = ""
    if turned and len(set(grid.shape)) == 3:
        hint = f"; with its axes in the order {turned[0]} it would fit"
    raise ValueError(
        f"observe: the cube has shape {shape}, config.grid.shape is {grid.shape} (freq, dec, "
        f"ra), after a batch axis if there is one{hint}"
    )


def _turned(shape: tuple[int, ...], axes: Sequence[int]) -> tuple[int, ...]:
    return tuple(shape[axis] for axis in axes) if len(shape) == 3 else ()


def _indices(index: int | Sequence[int], num: int) -> NDArray[np.uint64]:
    if isinstance(index, Sequence | np.ndarray):
        numbers = sample_indices(index)
        if len(numbers) != num:
            raise ValueError(f"observe: {num} cubes need as many indices, not {len(numbers)}")
        return numbers
    first = whole_number(index, "observe: index")
    return sample_indices(range(first, first + num))


def _keys(seed: int, split: Split, indices: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """uint32 [B, 6] as in kernels/paint.cu; no operator reads the last, a halo's first row."""
    keys = np.zeros((len(indices), 6), np.uint32)
    keys[:, :2] = seed_words(seed)
    keys[:, 2] = indices & np.uint64(0xFFFFFFFF)
    keys[:, 3] = indices >> np.uint64(32)
    keys[:, 4] = stage_word(split, 0)
    return keys
