"""Masked pixels and voxels, those of a user's file or of the map's border."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from streamtrain.numerics.backend import Kernels
from streamtrain.numerics.workspace import DeviceArrays
from streamtrain.operators.base import MapState, Operator, Table, Turn
from streamtrain.operators.voxel_files import pixels_digest, read_voxels
from streamtrain.schema import ConfigError, setting


@dataclass(frozen=True)
class MaskConfig:
    """Pixels, or voxels, set to zero."""

    file: str | None = setting(
        None,
        "npz or FITS map [n_dec, n_ra] or a cube: 1 = keep, 0 = mask; or a survey's map with hits",
    )
    edge_pixels: int = setting(0, "width of a masked border [pixels]", low=0)


@dataclass
class Mask(Operator):
    """Sets the same pixels of every frequency slice to zero, or the same voxels of every cube,
    whatever they hold (also NaN)."""

    section = MaskConfig
    words = "masked"
    turn = Turn.MASK
    random = False
    selects = True
    files = ("file",)

    keep: Table
    """int32 [n_dec, n_ra] or [n_freq, n_dec, n_ra], 1 = keep."""
    digest: str | None
    """sha256 of what the file keeps; None without a file."""

    @classmethod
    def from_config(cls, name: str, stage: int, config: MaskConfig, state: MapState) -> Mask:
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
            raise ConfigError(
                f"observe.{name} masks every {'pixel' if keep.ndim == 2 else 'voxel'}"
            )
        return cls(name, stage, Table(keep.astype(np.int32)), digest)

    @classmethod
    def check(cls, section: MaskConfig, where: str, state: MapState) -> None:
        if section.file is None and not section.edge_pixels:
            raise ConfigError(f"{where} needs a file, edge_pixels or both")
        if 2 * section.edge_pixels >= min(state.shape[1:]):
            raise ConfigError(
                f"{where}.edge_pixels = {section.edge_pixels} leaves nothing of a map of "
                f"{state.shape[1]} x {state.shape[2]} pixels"
            )

    def identity(self) -> str | None:
        return self.digest

    def unseen(self) -> NDArray[np.bool_]:
        return self.keep.values == 0

    def apply(self, kernels: Kernels, cube: Tensor, keys: Tensor, drawn: DeviceArrays) -> Tensor:
        masked = self.keep.values.size  # a slice, or a whole cube
        kernels.elementwise(
            "mask_pixels", cube.numel() // masked, masked, self.keep.on(cube.device), cube
        )
        return cube


def read_mask(path: str, state: MapState, where: str) -> NDArray[np.bool_]:
    """A mask [n_dec, n_ra] or [n_freq, n_dec, n_ra] from a file, see `read_voxels`; 1 = keep.
    Raises ConfigError."""
    values = read_voxels(path, "mask", state, where)
    keep = values == 1
    if not (keep | (values == 0)).all():
        bad = values[~(keep | (values == 0))][0]
        raise ConfigError(f"{where}: {path} holds {bad}, a mask holds 1 (keep) and 0 only")
    return np.ascontiguousarray(keep)
