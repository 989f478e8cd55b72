"""What tests of map operators share: operators of a configuration, and samples' keys."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from streamtrain.config import from_mapping
from streamtrain.numerics.rng import seed_words, stage_word
from streamtrain.operators.base import Operator

SHAPE = (10, 32, 32)


def operators(observe: dict[str, Any], **grid: Any) -> list[Operator]:
    """The operators of an `observe` section for maps of `SHAPE`; `grid` as in a YAML file."""
    config = from_mapping({"grid": {"shape": SHAPE, **grid}, "observe": observe})
    return config.observation.operators()


def keys(num: int, seed: int = 3, split: str = "train", first: int = 0) -> torch.Tensor:
    """Keys of samples first.. as the painter makes them."""
    rows = [[*seed_words(seed), first + k, 0, stage_word(split, 0), 0] for k in range(num)]  # type: ignore[arg-type]
    return torch.from_numpy(np.array(rows, np.uint32).view(np.int32))
