"""Extragalactic radio point sources, the brightest continuum foreground of a CO map."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from streamtrain.grid import DEG, SOURCE_UK
from streamtrain.numerics import portable
from streamtrain.numerics.backend import Kernels
from streamtrain.numerics.rng import Draws
from streamtrain.numerics.workspace import DeviceArrays
from streamtrain.operators.base import Drawn, MapState, Operator, Table, Turn
from streamtrain.priors import (
    Distribution,
    DistributionConfig,
    Normal,
    Prior,
    check_distribution,
    distribution,
)
from streamtrain.schema import ConfigError, setting

Float = NDArray[np.float64]

NU_GHZ = 31.0
"""Where flux densities are given."""
ABSENT = 1 << 20
"""Element of the draw that decides whether a sample has sources; those of the prior lie below."""
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
        2.18,
        "exponent of dN/dS ~ S^-slope, or its distribution",
        low=0,
        high=SOURCE_LIMITS["slope"],
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
        True, "sum sources where voxels were summed; false: over their channels only"
    )
    absent: float = setting(0.0, "probability of a sample without them", low=0, high=1)


@dataclass
class RadioSources(Operator):
    """Poisson distributed sources with dN/dS ~ S^-slope and S(nu) = S (nu / 31 GHz)^-alpha.

    Every pixel draws its number of sources, every source its flux density and spectral index. A
    voxel of the map gets their mean temperature over its pixel and its fine channels, times the
    number of fine voxels where these were summed.

    Counts and their slope are those of Muchovej et al. 2010 (0912.2335), measured at 31 GHz from
    0.7 to 15 mJy. Up to 316 mJy, the default's end, they are extrapolated: 2 sources in 50 lie
    beyond 15 mJy, with 40 % of the flux.
    """

    section = RadioSourcesConfig
    words = "radio sources"
    turn = Turn.SOURCES
    random = True
    adds = True

    prior: Prior
    """Prior of density [1/deg^2] and slope."""
    absent: float
    pixel_deg2: float
    flux_mJy: tuple[float, float]
    alpha: tuple[float, float]
    by_freq: int
    """Fine channels per channel of the map."""
    log2_nu: Table
    """log2(nu / 31 GHz) at the fine channels' centres, float32 [fine channels]."""
    response: Table
    """What 1 mJy in a fine channel adds to the voxel [map units], float32 [fine channels]."""

    @classmethod
    def from_config(
        cls, name: str, stage: int, config: RadioSourcesConfig, state: MapState
    ) -> RadioSources:
        grid = state.grid
        edges = grid.edges[0]
        nu = 0.5 * (edges[:-1] + edges[1:])
        pixel_sr = grid.pixel_sr * state.joined[1] * state.joined[2]
        weight = state.weight if config.sum_pixels else _weight_of_channels(name, state)
        share = np.full(len(nu), weight / state.joined[0] / pixel_sr)
        if grid.units == "uK":
            at = 0.5 * (grid.nu_GHz[0] + grid.nu_GHz[1]) if config.nu == "band_mean" else nu
            response = SOURCE_UK / (at * at) * share
        else:
            response = 1e-3 * share
        return cls(
            name,
            stage,
            Prior({n: _below(getattr(config, n), high) for n, high in SOURCE_LIMITS.items()}),
            config.absent,
            pixel_sr / (DEG * DEG),
            config.flux_mJy,
            config.alpha,
            state.joined[0],
            Table(portable.log2(nu / NU_GHZ).astype(np.float32)),
            Table(response.astype(np.float32)),
        )

    @classmethod
    def check(cls, section: RadioSourcesConfig, where: str, state: MapState) -> None:
        for name, highest in SOURCE_LIMITS.items():
            given = getattr(section, name)
            if isinstance(given, DistributionConfig):
                check_distribution(given, f"{where}.{name}")
                ends = given.uniform or given.log_uniform or (0.0, 0.0)
                if not 0 <= ends[0] <= ends[1] <= highest:
                    raise ConfigError(f"{where}.{name} = {list(ends)} is outside 0..{highest:g}")
        low, high = section.flux_mJy
        if low >= high:
            raise ConfigError(f"{where}.flux_mJy = [{low:g}, {high:g}] must increase")
        if section.alpha[1] < 0:
            raise ConfigError(f"{where}.alpha = {list(section.alpha)}: the width is negative")

    @cached_property
    def _log2_flux(self) -> tuple[float, float]:
        low, high = (float(portable.log2(flux)) for flux in self.flux_mJy)
        return low, high

    def draw(self, draws: Draws) -> Drawn:
        drawn = self.prior.draw(draws, dict.fromkeys(self.prior.parameters, 0.0))
        absent = draws.uniform([ABSENT])[:, 0] < self.absent
        return {
            "density": np.where(absent, 0.0, drawn["density"]).astype(np.float32),
            "slope": drawn["slope"].astype(np.float32),
        }

    def apply(self, kernels: Kernels, cube: Tensor, keys: Tensor, drawn: DeviceArrays) -> Tensor:
        low, high = self._log2_flux
        kernels.elementwise(
            "radio_sources",
            len(cube),
            cube.shape[2] * cube.shape[3],
            np.int32(cube.shape[1]),
            np.int32(self.by_freq),
            np.uint32(self.stage + 1),
            np.float64(self.pixel_deg2),
            np.float32(low),
            np.float32(high - low),
            np.float32(self.alpha[0]),
            np.float32(self.alpha[1]),
            keys,
            drawn["density"],
            drawn["slope"],
            self.log2_nu.on(cube.device),
            self.response.on(cube.device),
            cube,
        )
        return cube


def _below(given: float | DistributionConfig, highest: float) -> Distribution:
    """What a configuration gives; a normal distribution is truncated to 0..highest."""
    drawn = distribution(given)
    if isinstance(drawn, Normal):
        return replace(drawn, low=max(drawn.low, 0.0), high=min(drawn.high, highest))
    return drawn


def _weight_of_channels(name: str, state: MapState) -> float:
    """The weight of a voxel whose channels were summed as they were, but its pixels averaged."""
    if state.weight == 1.0:
        return 1.0
    if state.weight != state.number:
        raise ConfigError(
            f"observe.{name}.sum_pixels = false needs pools before it that all sum, or none that "
            "does"
        )
    return float(state.joined[0])
