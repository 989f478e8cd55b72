"""What tests of map operators share: operators of a configuration, and samples' keys."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from streamtrain.config import from_mapping
from streamtrain.numerics.backend import Kernels
from streamtrain.numerics.rng import seed_words, stage_word
from streamtrain.operators.base import Operator

SHAPE = (10, 32, 32)


def operators(observe: dict[str, Any], **grid: Any) -> list[Operator]:
    """The operators of an `observe` section for maps of `SHAPE`; `grid` as in a YAML file."""
    config = from_mapping({"grid": {"shape": SHAPE, **grid}, "observe": observe})
    return config.observation.operators()


def applied(
    kernels: Kernels, observe: dict[str, Any], cube: NDArray[Any], **grid: Any
) -> NDArray[np.float64]:
    """Operators that draw nothing, on cubes [n_freq, n_dec, n_ra] or [B, n_freq, n_dec, n_ra]."""
    found = torch.from_numpy(np.array(cube, np.float32, order="C")).reshape(-1, *cube.shape[-3:])
    none = torch.zeros(len(found), 6, dtype=torch.int32)
    for operator in operators(observe, **{"shape": list(cube.shape[-3:]), **grid}):
        found = operator.apply(kernels, found, none, {})
    return found.reshape(*cube.shape[:-3], *found.shape[1:]).numpy().astype(np.float64)


def keys(num: int, seed: int = 3, split: str = "train", first: int = 0) -> torch.Tensor:
    """Keys of samples first.. as the painter makes them."""
    rows = [[*seed_words(seed), first + k, 0, stage_word(split, 0), 0] for k in range(num)]  # type: ignore[arg-type]
    return torch.from_numpy(np.array(rows, np.uint32).view(np.int32))
