"""The section `observe` of a configuration: what happens to a map after it is painted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from streamtrain.schema import ConfigError, setting


@dataclass(frozen=True)
class PoolConfig:
    """Join blocks of voxels."""

    factor: tuple[int, int, int] = setting((1, 1, 1), "voxels (freq, dec, ra) joined", low=1)
    reduce: Literal["mean", "sum"] = setting("mean", "mean (of an intensity) or sum")


@dataclass(frozen=True)
class VoxelSize:
    """The voxel that a noise level is quoted for."""

    arcmin: float = setting(help="side on the sky [arcmin]", above=0)
    MHz: float = setting(help="width in frequency [MHz]", above=0)


@dataclass(frozen=True)
class NoiseConfig:
    """Independent Gaussian noise in every voxel."""

    sigma_uK: float | tuple[float, float] = setting(
        11.0, "noise [map units], or [lo, hi]: uniform per sample", low=0
    )
    per: Literal["map_voxel", "fine_voxel"] | VoxelSize = setting(
        "map_voxel", "the voxel that sigma is for: map_voxel, fine_voxel, or {arcmin, MHz}"
    )
    absent: float = setting(0.0, "probability of a sample without it", low=0, high=1)


@dataclass(frozen=True)
class LogModulusConfig:
    """sign(T) log10(|T| + 1)."""


OBSERVE: dict[str, Any] = {
    "pool": PoolConfig,
    "noise": NoiseConfig,
    "log_modulus": LogModulusConfig,
}
"""The section of each map operator."""


def operator_kind(name: str) -> str:
    """'noise' for 'noise' and 'noise_2'."""
    stem, _, suffix = name.rpartition("_")
    return stem if stem and suffix.isdigit() else name


def check_observe(observe: Mapping[str, Any], shape: tuple[int, int, int]) -> None:
    """Raise ConfigError for what the types alone do not tell. shape: (freq, dec, ra) as painted."""
    for name, operator in observe.items():
        if isinstance(operator, PoolConfig):
            if any(n % f for n, f in zip(shape, operator.factor, strict=True)):
                raise ConfigError(
                    f"observe.{name}.factor = {list(operator.factor)} does not divide the cube's "
                    f"shape {list(shape)}"
                )
            pairs = zip(shape, operator.factor, strict=True)
            freq, dec, ra = (n // f for n, f in pairs)
            shape = (freq, dec, ra)
        if isinstance(operator, NoiseConfig) and isinstance(operator.sigma_uK, tuple):
            low, high = operator.sigma_uK
            if low > high:
                raise ConfigError(f"observe.{name}.sigma_uK = [{low:g}, {high:g}] must increase")
