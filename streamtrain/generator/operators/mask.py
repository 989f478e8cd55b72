"""Pixels that are not used."""

from __future__ import annotations

import hashlib
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from streamtrain.config_observe import MaskConfig
from streamtrain.generator.backend import Kernels
from streamtrain.generator.operators.base import Fixed, MapState, Table
from streamtrain.schema import ConfigError

FITS_SUFFIXES = (".fits", ".fit", ".fits.gz", ".fit.gz")


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
            keep = read_mask(config.file, shape, f"observe.{name}.file")
            digest = hashlib.sha256(repr(shape).encode() + keep.tobytes()).hexdigest()
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


def read_mask(path: str, shape: tuple[int, int], where: str) -> NDArray[np.bool_]:
    """A mask [n_dec, n_ra] from an npz file (its array `mask`, or its only one) or from the first
    image of a FITS file. Row 0 is the lowest dec and column 0 the lowest ra, as in a cube; a FITS
    header's coordinates are not read. Raises ConfigError, one sentence."""
    if not Path(path).is_file():
        raise ConfigError(f"{where}: there is no file {path}")
    try:
        values = _read_fits(path) if path.lower().endswith(FITS_SUFFIXES) else _read_npz(path)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"{where}: {path} cannot be read: {reason}") from None
    if values.dtype.kind not in "biuf":
        raise ConfigError(f"{where}: {path} holds {values.dtype}, a mask holds numbers")
    if values.shape != shape:
        raise ConfigError(
            f"{where}: the mask in {path} has shape {values.shape}, the map there "
            f"[n_dec, n_ra] = {shape}"
        )
    keep = values == 1
    if not (keep | (values == 0)).all():
        bad = values[~(keep | (values == 0))][0]
        raise ConfigError(f"{where}: {path} holds {bad}, a mask holds 1 (keep) and 0 only")
    return np.ascontiguousarray(keep)


def _read_npz(path: str) -> NDArray[Any]:
    if not zipfile.is_zipfile(path):
        raise ValueError("it is neither npz nor FITS")
    with np.load(path, allow_pickle=False) as file:
        if "mask" not in file.files and len(file.files) != 1:
            raise ValueError(f"it holds no array 'mask' but {', '.join(file.files) or 'nothing'}")
        values: NDArray[Any] = file["mask" if "mask" in file.files else file.files[0]]
        return values


def _read_fits(path: str) -> NDArray[Any]:
    try:
        from astropy.io import fits
    except ImportError:
        raise ValueError(
            "FITS needs `pip install streamtrain[fits]` (astropy), npz does not"
        ) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a damaged file is refused below or by astropy
        with fits.open(path, memmap=False) as units:
            for unit in units:
                if unit.is_image and unit.data is not None:
                    return np.array(unit.data)
    raise ValueError("it holds no image")
