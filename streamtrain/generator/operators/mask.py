"""Pixels that are not used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from streamtrain.config_observe import MaskConfig
from streamtrain.generator.backend import Kernels
from streamtrain.generator.operators.base import Fixed, MapState, Table
from streamtrain.generator.operators.pixel_file import pixels_digest, read_pixels
from streamtrain.schema import ConfigError


@dataclass
class Mask(Fixed):
    """Sets the same pixels of every frequency slice to zero, whatever they hold (also NaN)."""

    name: str
    stage: int
    keep: Table
    """int32 [n_dec, n_ra], 1 = keep."""
    digest: str | None
    """sha256 of the file's map; None without a file."""

    @classmethod
    def from_config(cls, name: str, stage: int, config: MaskConfig, state: MapState) -> Mask:
        """The operator where the map is in `state`; raises ConfigError for an unusable file."""
        shape = state.shape[1:]
        keep = np.ones(shape, bool)
        digest = None
        if config.file is not None:
            keep = read_mask(config.file, state, f"observe.{name}.file")
            digest = pixels_digest(keep)
        edge = config.edge_pixels
        if edge:
            inner = np.zeros(shape, bool)
            inner[edge:-edge, edge:-edge] = True
            keep = keep & inner
        if not keep.any():
            raise ConfigError(f"observe.{name} masks every pixel")
        return cls(name, stage, Table(keep.astype(np.int32)), digest)

    def apply(
        self, kernels: Kernels, cube: torch.Tensor, keys: torch.Tensor, drawn: Mapping[str, Any]
    ) -> torch.Tensor:
        slices, pixels = cube.shape[0] * cube.shape[1], cube[0, 0].numel()
        kernels.elementwise("mask_pixels", slices, pixels, self.keep.on(cube.device), cube)
        return cube


def read_mask(path: str, state: MapState, where: str) -> NDArray[np.bool_]:
    """A mask [n_dec, n_ra] from a file, see `read_pixels`; 1 = keep. Raises ConfigError."""
    values = read_pixels(path, "mask", state, where)
    keep = values == 1
    if not (keep | (values == 0)).all():
        bad = values[~(keep | (values == 0))][0]
        raise ConfigError(f"{where}: {path} holds {bad}, a mask holds 1 (keep) and 0 only")
    return np.ascontiguousarray(keep)
