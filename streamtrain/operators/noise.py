"""Noise: white, of one level or with a level per pixel or voxel (hits, sigma); rising to the map's
edges, the "geometric" noise of 1905.10376.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from streamtrain.grid import DEG
from streamtrain.numerics import portable
from streamtrain.numerics.backend import Kernels
from streamtrain.numerics.rng import Draws
from streamtrain.numerics.workspace import DeviceArrays
from streamtrain.operators.base import Drawn, MapState, Operator, Table, Turn
from streamtrain.operators.hits import HitsConfig, sigma_of_file
from streamtrain.schema import ConfigError, setting

Float = NDArray[np.float64]

COMAP_SIGMA_UK = 11.0
"""Noise of a COMAP voxel of 4 arcmin and 15.6 MHz (Ihle et al. 2019, 1808.07487)."""
EDGE_SIGMA_UK = 100.0
"""Noise at the edge, of 1905.10376."""


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
        None, "noise [map units], or [lo, hi]: uniform per sample; default: 11 in uK", low=0
    )
    per: Literal["map_voxel", "fine_voxel"] | VoxelSize = setting(
        "map_voxel", "the voxel that sigma is for: map_voxel, fine_voxel, or {arcmin, MHz}"
    )
    absent: float = setting(0.0, "probability of a sample without it", low=0, high=1)
    radiometer: RadiometerConfig | None = setting(
        None, "sigma from the instrument, instead of sigma_uK"
    )
    hits: str | HitsConfig | None = setting(
        None,
        "file of hits or time on every pixel or voxel of the map, or {fwhm_deg, radius_deg}; the "
        "map is 0 where there are none",
    )
    index: float = setting(
        0.0,
        "sigma goes as frequency^index, from that at reference_GHz",
        low=-10,
        high=10,
    )
    reference_GHz: float | None = setting(
        None, "frequency that sigma is for [GHz]; default: the middle of the band", above=0
    )
    rms: str | None = setting(
        None,
        "file of sigma in every voxel of the map, which is 0 where there is none; with sigma_uK "
        "beside it only its ratios count",
        later=True,
    )


@dataclass
class LevelNoise(Operator):
    """What noise has whose level is fixed, or drawn for every sample."""

    turn = Turn.NOISE
    random = True
    adds = True
    measured = ("sigma_uK",)

    sigma: tuple[float, float]
    """Lowest and highest level [map units], as it is quoted."""
    absent: float
    """Probability of a sample without it."""

    def turned(self, section: Any, factor: float) -> dict[str, Any]:
        """The section with another sigma, where the level is the same in all samples."""
        if section.sigma_uK is None:
            level = self.sigma[0]
            return {f"sigma_uK = {level}": replace(section, sigma_uK=factor * level)}
        return {} if isinstance(section.sigma_uK, tuple) else super().turned(section, factor)

    @property
    def level_varies(self) -> bool:
        """Whether the level differs from sample to sample."""
        return self.sigma[0] < self.sigma[1] or 0.0 < self.absent < 1.0

    def draw(self, draws: Draws) -> Drawn:
        return self.at_level(draw_level(draws, self.sigma, self.absent))

    @abstractmethod
    def at_level(self, sigma: Float) -> Drawn:
        """What is drawn where the level is given; sigma: [B], as it is quoted."""

    @abstractmethod
    def levels_of_voxels(self) -> list[Float]:
        """The lowest and the highest sigma [map units] in each voxel, or one number for all; NaN
        where nothing was observed."""


@dataclass
class Noise(LevelNoise):
    """White Gaussian noise of fixed or drawn level.

    With a hit map sigma goes as 1 / sqrt(hits), and is the given one where a pixel has the mean of
    the pixels that were hit; the others become 0, in samples without noise too. A map of sigma is
    one of hits = 1 / sigma^2, and has its own level where none is given. With an index sigma goes
    as that power of frequency.
    """

    section = NoiseConfig
    words = "detector noise"
    files = ("hits", "rms")

    factor: float
    """From the quoted voxel to the voxel of the cube at this point."""
    pixels: Table | None = None
    """Sigma of a pixel over that of the sample, float32 [n_dec, n_ra]; -1 where it was not hit."""
    digest: str | None = None
    """Digest of the hits or of sigma in the file; None where there is none."""
    voxels: Table | None = None
    """Sigma of a voxel over that of the sample, float32 [n_freq, n_dec, n_ra], where sigma depends
    on frequency; negative where it was not hit."""

    @classmethod
    def from_config(cls, name: str, stage: int, config: NoiseConfig, state: MapState) -> Noise:
        given = COMAP_SIGMA_UK if config.sigma_uK is None else config.sigma_uK
        factor = noise_factor(config.per, state)
        if config.radiometer is not None:
            if state.grid.units != "uK":
                raise ConfigError(
                    f"observe.{name}.radiometer gives uK, but grid.units = {state.grid.units}: "
                    "sigma_uK takes the noise in the units of the map"
                )
            given, factor = radiometer_uK(config.radiometer, state), state.weight
        pattern, digest, own = sigma_of_file(
            config.hits, config.rms, state, f"observe.{name}", in_units=_is_alone(config)
        )
        if _is_alone(config) and own is not None:
            given = own
        if config.index != 0.0:
            of_pixel = np.ones(state.shape[1:], np.float32) if pattern is None else pattern
            pattern = _of_channel(config, state)[:, None, None] * of_pixel
        table = None if pattern is None else Table(pattern)
        pixels, voxels = (table, None) if pattern is None or pattern.ndim == 2 else (None, table)
        return cls(name, stage, levels_of(given), config.absent, factor, pixels, digest, voxels)

    @classmethod
    def check(cls, section: NoiseConfig, where: str, state: MapState) -> None:
        check_levels(section.sigma_uK, where)
        _check_rms(section, where)
        if section.radiometer is not None:
            given = {n: getattr(section, n) for n in ("sigma_uK", "per")}
            beside = [n for n, value in given.items() if value != getattr(NoiseConfig(), n)]
            if beside:
                removed = {"sigma_uK": "sigma_uK=null", "per": "per=map_voxel"}
                raise ConfigError(
                    f"{where}.{' and '.join(beside)} beside {where}.radiometer: "
                    f"{', '.join(f'{where}.{removed[n]}' for n in beside)} removes the one, "
                    f"{where}.radiometer=null the other"
                )
        elif section.sigma_uK is None and section.rms is None:
            _check_default(where, state)
        if section.reference_GHz is not None and section.index == 0.0:
            raise ConfigError(f"{where}.reference_GHz needs {where}.index: else it does nothing")

    def turned(self, section: NoiseConfig, factor: float) -> dict[str, Any]:
        """The section with another sigma, also where a default, a file or a radiometer says it."""
        if (instrument := section.radiometer) is not None:
            T_sys_K = instrument.T_sys_K
            hotter = replace(instrument, T_sys_K=factor * T_sys_K)
            return {f"radiometer.T_sys_K = {T_sys_K}": replace(section, radiometer=hotter)}
        if _is_alone(section):
            said = f"sigma_uK = {self.sigma[0]}" if section.rms is None else f"rms = {section.rms}"
            return {said: replace(section, sigma_uK=factor * self.sigma[0])}
        return super().turned(section, factor)

    def identity(self) -> str | None:
        return self.digest

    def unseen(self) -> NDArray[np.bool_] | None:
        pattern = self.sigma_pattern()
        return None if pattern is None or self.digest is None else pattern < 0.0

    def sigma_pattern(self) -> NDArray[np.float32] | None:
        table = self.pixels if self.voxels is None else self.voxels
        return None if table is None else np.asarray(table.values, np.float32)

    def at_level(self, sigma: Float) -> Drawn:
        return {
            "sigma_uK": sigma.astype(np.float32),
            "voxel_sigma": (sigma * self.factor).astype(np.float32),
        }

    def levels_of_voxels(self) -> list[Float]:
        pattern = self.sigma_pattern()
        relative = np.ones(()) if pattern is None else np.where(pattern < 0.0, np.nan, pattern)
        return [level * self.factor * relative for level in self.sigma]

    def apply(self, kernels: Kernels, cube: Tensor, keys: Tensor, drawn: DeviceArrays) -> Tensor:
        sigma = drawn["voxel_sigma"]
        relative = self.pixels if self.voxels is None else self.voxels
        if relative is not None:
            return add_pixel_noise(kernels, cube, keys, self.stage, sigma, relative)
        voxels = cube[0].numel()
        kernels.elementwise(
            "white_noise",
            len(cube),
            -(-voxels // 4),
            np.int64(voxels),
            np.uint32(self.stage + 1),
            keys,
            sigma,
            cube,
        )
        return cube


def _is_alone(section: NoiseConfig) -> bool:
    """Whether nothing but a map of sigma, or a default, says the level."""
    return section.sigma_uK is None and section.radiometer is None


def _check_default(where: str, state: MapState) -> None:
    """Raise ConfigError where sigma is left to a default, in uK, and the map is in other units."""
    if state.grid.units != "uK":
        raise ConfigError(f"{where} needs sigma_uK [map units] in {state.grid.units}")


def _check_rms(section: NoiseConfig, where: str) -> None:
    """Raise ConfigError for what does not go with a map of sigma."""
    if section.rms is None:
        return
    beside = {"hits": section.hits is not None, "index": section.index != 0.0}
    beside["per"] = _is_alone(section) and section.per != "map_voxel"
    for name, given in beside.items():
        if given:
            raise ConfigError(
                f"{where}.{name} beside {where}.rms, which is sigma in every voxel of the map: "
                "remove one of them"
            )


def check_levels(sigma: float | tuple[float, float] | None, where: str) -> None:
    """Raise ConfigError for a range of levels that does not rise."""
    if isinstance(sigma, tuple) and sigma[0] > sigma[1]:
        raise ConfigError(f"{where}.sigma_uK = [{sigma[0]:g}, {sigma[1]:g}] must increase")


def levels_of(sigma: float | tuple[float, float]) -> tuple[float, float]:
    """Lowest and highest level that a setting says."""
    return sigma if isinstance(sigma, tuple) else (sigma, sigma)


def draw_level(draws: Draws, sigma: tuple[float, float], absent: float) -> NDArray[np.float64]:
    """sigma of B samples [B]: uniform between the two, 0 with the probability `absent`."""
    low, high = sigma
    u = draws.uniform([0, 1])
    return np.where(u[:, 1] < absent, 0.0, low + (high - low) * u[:, 0])


def add_pixel_noise(
    kernels: Kernels,
    cube: Tensor,
    keys: Tensor,
    stage: int,
    sigma: Tensor,
    relative: Table,
) -> Tensor:
    """Noise of sigma [B] times the table, [n_dec, n_ra] or one for every voxel; where that is
    negative the cube becomes 0.

    The random numbers are those of `Noise` at the same stage.
    """
    voxels = cube[0].numel()
    kernels.elementwise(
        "pixel_noise",
        len(cube),
        -(-voxels // 4),
        np.int64(voxels),
        np.int64(relative.values.size),
        np.uint32(stage + 1),
        keys,
        sigma,
        relative.on(cube.device),
        cube,
    )
    return cube


def _of_channel(config: NoiseConfig, state: MapState) -> NDArray[np.float32]:
    """(nu / reference)^index at the centres of the map's channels, float32 [n_freq]."""
    edges = state.grid.edges[0][:: state.joined[0]]
    reference = config.reference_GHz or 0.5 * (edges[0] + edges[-1])
    nu = 0.5 * (edges[:-1] + edges[1:])
    return portable.exp2(config.index * portable.log2(nu / reference)).astype(np.float32)


def radiometer_uK(instrument: RadiometerConfig, state: MapState) -> float:
    """sigma [uK] of the mean temperature of the map's present voxel: T_sys / sqrt(n_feeds n_pol
    t dnu), t = time on the field * solid angle of a pixel / that of the field."""
    grid = state.grid
    _, num_dec, num_ra = state.shape
    pixels = float(num_dec * num_ra)
    if instrument.field_deg2 is not None:
        pixel_deg2 = grid.pixel_sr * state.joined[1] * state.joined[2] / (DEG * DEG)
        pixels = instrument.field_deg2 / pixel_deg2
    seconds = instrument.hours * 3600.0 / pixels
    hertz = grid.dnu_GHz * state.joined[0] * 1e9
    looks = instrument.n_feeds * instrument.n_pol * seconds * hertz
    return instrument.T_sys_K * 1e6 / float(np.sqrt(looks))


def noise_factor(per: str | VoxelSize, state: MapState) -> float:
    """sigma of the map's present voxel / sigma as quoted.

    At fixed total time sigma goes as 1/sqrt(dnu Omega); noise of fine voxels that are pooled adds
    in quadrature, and is divided by their number where pooling is a mean.
    """
    if per == "map_voxel":
        return 1.0
    fine = 1.0
    if isinstance(per, VoxelSize):
        side = per.arcmin / 60.0 * DEG
        quoted = side * side * per.MHz * 1e-3
        fine = float(np.sqrt(quoted / (state.grid.pixel_sr * state.grid.dnu_GHz)))
    return fine * float(np.sqrt(state.number)) / (state.number / state.weight)


@dataclass(frozen=True)
class EdgeNoiseConfig:
    """Gaussian noise that rises linearly to the map's edges."""

    sigma_uK: float | tuple[float, float] | None = setting(
        None,
        "noise at the very edge [map units], or [lo, hi]: uniform per sample; default: 100 in uK",
        low=0,
    )
    width: float = setting(1 / 22, "where it begins, as a fraction of the side", above=0, high=0.5)
    per: Literal["map_voxel", "fine_voxel"] = setting(
        "map_voxel", "the voxel that sigma is for; fine_voxel: noise of fine voxels, pooled"
    )
    absent: float = setting(0.0, "probability of a sample without it", low=0, high=1)


@dataclass
class EdgeNoise(LevelNoise):
    """White noise of sigma * max(1 - d / width, 0), d = distance of a pixel's centre to the nearest
    edge over the side; where it is quoted for fine voxels theirs is pooled as the map was."""

    section = EdgeNoiseConfig
    words = "noise at the edges"

    pixels: Table
    """Sigma of a pixel over that at the very edge, float32 [n_dec, n_ra]."""

    @classmethod
    def from_config(
        cls, name: str, stage: int, config: EdgeNoiseConfig, state: MapState
    ) -> EdgeNoise:
        levels = levels_of(EDGE_SIGMA_UK if config.sigma_uK is None else config.sigma_uK)
        if config.per == "map_voxel":
            pixels = edge_ramp(state.shape[1:], config.width)
        else:
            pixels = pooled_sigma(edge_ramp(state.grid.shape[1:], config.width), state)
        return cls(name, stage, levels, config.absent, Table(pixels.astype(np.float32)))

    @classmethod
    def check(cls, section: EdgeNoiseConfig, where: str, state: MapState) -> None:
        check_levels(section.sigma_uK, where)
        if section.sigma_uK is None:
            _check_default(where, state)

    def at_level(self, sigma: Float) -> Drawn:
        return {"sigma_uK": sigma.astype(np.float32)}

    def levels_of_voxels(self) -> list[Float]:
        return [level * self.pixels.values.astype(np.float64) for level in self.sigma]

    def apply(self, kernels: Kernels, cube: Tensor, keys: Tensor, drawn: DeviceArrays) -> Tensor:
        return add_pixel_noise(kernels, cube, keys, self.stage, drawn["sigma_uK"], self.pixels)


def edge_ramp(shape: tuple[int, int], width: float) -> Float:
    """max(1 - d_dec / width, 1 - d_ra / width, 0) at the centres of pixels [n_dec, n_ra]."""
    dec, ra = (1.0 - (np.minimum(k, k[::-1]) + 0.5) / len(k) / width for k in map(np.arange, shape))
    return np.maximum(np.maximum(dec[:, None], ra[None, :]), 0.0)


def pooled_sigma(sigma: Float, state: MapState) -> Float:
    """Sigma per voxel of the map from that of fine voxels [n_dec, n_ra], the same in each of their
    channels: added in quadrature, and divided by their number where pooling is a mean."""
    channels, by_dec, by_ra = state.joined
    square = np.zeros(state.shape[1:])
    for j in range(by_dec):  # a fixed order of additions
        for k in range(by_ra):
            part = sigma[j::by_dec, k::by_ra]
            square = square + part * part
    return np.sqrt(channels * square) * (state.weight / state.number)
