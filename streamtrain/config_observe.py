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


@dataclass(frozen=True)
class BeamConfig:
    """A Gaussian beam on every frequency slice."""

    fwhm_arcmin: float | None = setting(None, "full width at half maximum [arcmin]", above=0)
    fwhm_pixels: float | None = setting(None, "or in pixels, as many in ra as in dec", above=0)
    reference_GHz: float | None = setting(
        None, "the width is for this frequency and goes as 1/nu; default: the same in all", above=0
    )
    edge: Literal["reflect", "zero"] = setting(
        "reflect", "what lies beyond the edge: the map's mirror image (conserves flux) or nothing"
    )


@dataclass(frozen=True)
class MaskConfig:
    """Pixels set to zero."""

    file: str | None = setting(None, "npz or FITS map [n_dec, n_ra]: 1 = keep, 0 = mask")
    edge_pixels: int = setting(0, "width of a masked border [pixels]", low=0)


@dataclass(frozen=True)
class SubtractMeanConfig:
    """The mean of every frequency slice is subtracted."""

    skip_zeros: bool = setting(
        False, "the mean of voxels that are not 0 (masked ones are), which alone are changed"
    )


@dataclass(frozen=True)
class HighPassConfig:
    """Smooth modes along frequency are removed from every pixel."""

    modes: int = setting(help="polynomials of a degree below this [1: mean]", low=1)


@dataclass(frozen=True)
class Log10Config:
    """log10(T + epsilon)."""

    epsilon: float = setting(
        help="[map units]; T + epsilon below a thousandth of it counts as that",
        low=1e-30,
        high=1e30,
    )


@dataclass(frozen=True)
class AsinhConfig:
    """asinh(T / scale)."""

    scale: float = setting(help="linear below, logarithmic above [map units]", low=1e-30, high=1e30)


@dataclass(frozen=True)
class StandardiseConfig:
    """(T - mean) / std of each cube, 0 where std is 0."""


OBSERVE: dict[str, Any] = {
    "pool": PoolConfig,
    "noise": NoiseConfig,
    "log_modulus": LogModulusConfig,
    "beam": BeamConfig,
    "mask": MaskConfig,
    "subtract_mean": SubtractMeanConfig,
    "high_pass": HighPassConfig,
    "log10": Log10Config,
    "asinh": AsinhConfig,
    "standardise": StandardiseConfig,
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
        _check_filter(f"observe.{name}", operator, shape)
        if isinstance(operator, NoiseConfig) and isinstance(operator.sigma_uK, tuple):
            low, high = operator.sigma_uK
            if low > high:
                raise ConfigError(f"observe.{name}.sigma_uK = [{low:g}, {high:g}] must increase")


def _check_filter(where: str, operator: Any, shape: tuple[int, int, int]) -> None:
    """The same for the operators that change or remove part of a map of `shape`."""
    if isinstance(operator, BeamConfig) and (
        (operator.fwhm_arcmin is None) == (operator.fwhm_pixels is None)
    ):
        raise ConfigError(f"{where} needs either fwhm_arcmin (COMAP: 4.5) or fwhm_pixels")
    if isinstance(operator, MaskConfig):
        if operator.file is None and not operator.edge_pixels:
            raise ConfigError(f"{where} needs a file, edge_pixels or both")
        if 2 * operator.edge_pixels >= min(shape[1:]):
            raise ConfigError(
                f"{where}.edge_pixels = {operator.edge_pixels} leaves nothing of a map of "
                f"{shape[1]} x {shape[2]} pixels"
            )
    if isinstance(operator, HighPassConfig) and operator.modes >= shape[0]:
        raise ConfigError(
            f"{where}.modes = {operator.modes} must be below the number of frequencies, {shape[0]}"
        )
