"""The section `observe` of a configuration: what happens to a map after it is painted."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from streamtrain.luminosity.priors import DistributionConfig, check_distribution
from streamtrain.schema import ConfigError, OrderWarning, operator_kind, setting


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
class RadiometerConfig:
    """sigma = T_sys / sqrt(n_feeds n_pol t dnu), t = the time on one pixel of the map."""

    T_sys_K: float = setting(help="system temperature [K]", above=0)
    n_feeds: int = setting(help="feeds that look at the field", low=1)
    hours: float = setting(help="time on the field, shared evenly by its pixels [h]", above=0)
    n_pol: int = setting(1, "polarisations per feed", choices=(1, 2))
    field_deg2: float | None = setting(
        None, "the field that this time is spent on [deg^2]; default: the map", above=0
    )


@dataclass(frozen=True)
class NoiseConfig:
    """Independent Gaussian noise in every voxel."""

    sigma_uK: float | tuple[float, float] | None = setting(
        None, "noise [map units], or [lo, hi]: uniform per sample; default: 11", low=0
    )
    per: Literal["map_voxel", "fine_voxel"] | VoxelSize = setting(
        "map_voxel", "the voxel that sigma is for: map_voxel, fine_voxel, or {arcmin, MHz}"
    )
    absent: float = setting(0.0, "probability of a sample without it", low=0, high=1)
    radiometer: RadiometerConfig | None = setting(
        None, "sigma from the instrument, instead of sigma_uK"
    )
    hits: str | None = setting(
        None, "npz or FITS file of the time on every pixel of the map; without time: set to 0"
    )
    index: float = setting(
        0.0,
        "sigma goes as frequency^index, from that at reference_GHz",
        low=-10,
        high=10,
    )
    reference_GHz: float | None = setting(None, "default: the middle of the band", above=0)


@dataclass(frozen=True)
class EdgeNoiseConfig:
    """Gaussian noise that rises linearly to the map's edges."""

    sigma_uK: float | tuple[float, float] = setting(
        100.0, "noise at the very edge [map units], or [lo, hi]: uniform per sample", low=0
    )
    width: float = setting(1 / 22, "where it begins, as a fraction of the side", above=0, high=0.5)
    per: Literal["map_voxel", "fine_voxel"] = setting(
        "map_voxel", "the voxel that sigma is for; fine_voxel: noise of fine voxels, pooled"
    )
    absent: float = setting(0.0, "probability of a sample without it", low=0, high=1)


SOURCE_LIMITS = {"density": 1e5, "slope": 10.0}
"""Highest values of a setting, and of what is drawn for it; the lowest is 0."""


@dataclass(frozen=True)
class RadioSourcesConfig:
    """Extragalactic radio point sources (Muchovej et al. 2010, 0912.2335), Poisson distributed."""

    density: float | DistributionConfig = setting(
        27.2,
        "sources per deg^2 in the flux range, or a distribution of it",
        low=0,
        high=SOURCE_LIMITS["density"],
    )
    slope: float | DistributionConfig = setting(
        2.18, "of dN/dS ~ S^-slope, or a distribution of it", low=0, high=SOURCE_LIMITS["slope"]
    )
    flux_mJy: tuple[float, float] = setting(
        (1.0, 316.22776601683796),
        "lowest and highest flux density at 31 GHz [mJy]; measured from 0.7 to 15",
        low=1e-9,
        high=1e9,
    )
    alpha: tuple[float, float] = setting(
        (0.39, 0.33), "mean and width of the spectral index: S ~ nu^-alpha", low=-10, high=10
    )
    nu: Literal["channel", "band_mean"] = setting(
        "channel", "frequency of the conversion to temperature"
    )
    sum_pixels: bool = setting(
        True, "where voxels were summed, sources are too; no: only over their channels"
    )
    absent: float = setting(0.0, "probability of a sample without them", low=0, high=1)


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
    "edge_noise": EdgeNoiseConfig,
    "radio_sources": RadioSourcesConfig,
}
"""The section of each map operator."""

FILES = ("file", "hits")
"""Settings that name a file: it counts by what is in it, not by where it lies."""


def without_paths(section: dict[str, Any]) -> dict[str, Any]:
    """A map operator's settings as plain data, with 'file' for the path of each of its files."""
    return {k: "file" if k in FILES and v is not None else v for k, v in section.items()}


DIMENSIONLESS = ("log_modulus", "log10", "asinh", "standardise")
"""After these the map has no unit."""
_ORDER = (
    ("pool",),
    ("radio_sources",),
    ("beam",),
    ("noise", "edge_noise"),
    ("mask",),
    ("high_pass", "subtract_mean"),
    ("log_modulus", "log10", "asinh"),
    ("standardise",),
)
_TURN = {kind: turn for turn, kinds in enumerate(_ORDER) for kind in kinds if turn}
"""Place of each kind in `_ORDER`, what the instrument does and what is done with its map; a pool
is first at the head alone."""


def place_operator(observe: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The operators with the last one, `name`, at its place in the order of an instrument: pool,
    sources, beam, noise, mask, filters, transforms; the others keep theirs, and a beam after a
    transform smooths the network's input.

    Warns (OrderWarning) where that is not the end. Raises ConfigError if the others leave several
    places, or none.
    """
    names = [n for n in observe if n != name]
    turns = _turns(names)
    turn = _TURN.get(operator_kind(name), 0)
    places = [
        place
        for place in range(len(names) + 1)
        if all(t is None or t <= turn for t in turns[:place])
        and all(t is None or t >= turn for t in turns[place:])
    ]
    like = [place for place, t in enumerate(turns, 1) if t == turn]
    between = names[max([*places[:1], *like]) : places[-1]] if places else []
    if not places or (turn and any(operator_kind(n) == "pool" for n in between)):
        raise ConfigError(
            f"observe.{name} is new, and has no certain place among {', '.join(names)}: write the "
            "section observe, in its order, in a YAML file, which may extend this one"
        )
    place = places[-1] if turn else max([0, *like])
    order = [*names[:place], name, *names[place:]]
    if order[-1] != name:
        warnings.warn(
            f"observe.{name} is new and takes its place in the order of an instrument: "
            f"{', '.join(order)}",
            OrderWarning,
            stacklevel=2,
        )
    return {n: observe[n] for n in order}


def _turns(names: Sequence[str]) -> list[int | None]:
    """The turn of each operator; None of a pool in the middle, which has none, and of a beam after
    a transform that of the transform."""
    turns: list[int | None] = []
    latest = 0
    for name in names:
        kind = operator_kind(name)
        turn = _TURN.get(kind, 0)
        if kind == "beam" and latest >= _TURN["log10"]:
            turn = latest
        turns.append(None if turn < latest and kind == "pool" else turn)
        latest = max(latest, turn)
    return turns


def check_order(observe: Mapping[str, Any]) -> None:
    """Warn (OrderWarning) of what adds to a map in its units, or is a telescope's, after a
    transform that leaves it without units."""
    transform = ""
    for name, section in observe.items():
        kind = operator_kind(name)
        added = kind in ("noise", "edge_noise", "radio_sources")
        if transform and (added or getattr(section, "fwhm_arcmin", None) is not None):
            warnings.warn(
                f"observe.{name} comes after observe.{transform}, where the map has no unit"
                + ("" if added else " (a smoothing of such values takes fwhm_pixels)"),
                OrderWarning,
                stacklevel=2,
            )
        if kind in DIMENSIONLESS and not transform:
            transform = name


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
        if isinstance(operator, NoiseConfig | EdgeNoiseConfig):
            _check_noise(operator, f"observe.{name}")
        if isinstance(operator, RadioSourcesConfig):
            _check_sources(operator, f"observe.{name}")


def _check_filter(where: str, operator: Any, shape: tuple[int, int, int]) -> None:
    """The same for the operators that change or remove part of a map of `shape`."""
    if isinstance(operator, BeamConfig):
        arcmin, pixels = operator.fwhm_arcmin, operator.fwhm_pixels
        if arcmin is None and pixels is None:
            raise ConfigError(f"{where} needs either fwhm_arcmin (COMAP: 4.5) or fwhm_pixels")
        if arcmin is not None and pixels is not None:
            raise ConfigError(
                f"{where} has both fwhm_arcmin = {arcmin:g} and fwhm_pixels = {pixels:g}: "
                f"{where}.fwhm_pixels=null removes the one, {where}.fwhm_arcmin=null the other"
            )
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


def _check_noise(noise: NoiseConfig | EdgeNoiseConfig, where: str) -> None:
    if isinstance(noise.sigma_uK, tuple):
        low, high = noise.sigma_uK
        if low > high:
            raise ConfigError(f"{where}.sigma_uK = [{low:g}, {high:g}] must increase")
    if isinstance(noise, NoiseConfig) and noise.radiometer is not None:
        beside = [n for n in ("sigma_uK", "per") if getattr(noise, n) != getattr(NoiseConfig(), n)]
        if beside:
            removed = {"sigma_uK": "sigma_uK=null", "per": "per=map_voxel"}
            raise ConfigError(
                f"{where}.{' and '.join(beside)} beside {where}.radiometer: "
                f"{', '.join(f'{where}.{removed[n]}' for n in beside)} removes the one, "
                f"{where}.radiometer=null the other"
            )
    if isinstance(noise, NoiseConfig) and noise.reference_GHz is not None and noise.index == 0.0:
        raise ConfigError(f"{where}.reference_GHz needs {where}.index: else it does nothing")


def _check_sources(sources: RadioSourcesConfig, where: str) -> None:
    for name, highest in SOURCE_LIMITS.items():
        given = getattr(sources, name)
        if isinstance(given, DistributionConfig):
            check_distribution(given, f"{where}.{name}")
            ends = given.uniform or given.log_uniform or (0.0, 0.0)
            if not 0 <= ends[0] <= ends[1] <= highest:
                raise ConfigError(f"{where}.{name} = {list(ends)} is outside 0..{highest:g}")
    low, high = sources.flux_mJy
    if low >= high:
        raise ConfigError(f"{where}.flux_mJy = [{low:g}, {high:g}] must increase")
    if sources.alpha[1] < 0:
        raise ConfigError(f"{where}.alpha = {list(sources.alpha)}: the width is negative")
