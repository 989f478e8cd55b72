"""Extragalactic radio point sources, the brightest continuum foreground of a CO map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from streamtrain.grid import DEG
from streamtrain.luminosity.priors import (
    Distribution,
    DistributionConfig,
    Normal,
    Prior,
    distribution,
)
from streamtrain.numerics import portable
from streamtrain.numerics.backend import Kernels
from streamtrain.numerics.rng import Draws
from streamtrain.operators.base import Drawn, MapState, Shape, Table
from streamtrain.operators.settings import SOURCE_LIMITS, RadioSourcesConfig
from streamtrain.schema import ConfigError

Float = NDArray[np.float64]

NU_GHZ = 31.0
"""Where flux densities are given."""
SOURCE_UK = 0.032548286
"""T = SOURCE_UK S / (nu^2 Omega) [uK], S in mJy, nu in GHz, Omega in sr: c^2 / (2 k_B) times
1 mJy / (GHz^2 sr) in uK, CODATA 2018 (c and k_B exact)."""
ABSENT = 1 << 20
"""Element of the draw that decides whether a sample has sources; those of the prior lie below."""


@dataclass
class RadioSources:
    """Poisson distributed sources with dN/dS ~ S^-slope and S(nu) = S (nu / 31 GHz)^-alpha.

    Every pixel draws its number of sources, every source its flux density and spectral index. A
    voxel of the map gets their mean temperature over its pixel and its fine channels, times the
    number of fine voxels where these were summed.

    Counts and their slope are those of Muchovej et al. 2010 (0912.2335), measured at 31 GHz from
    0.7 to 15 mJy. Up to 316 mJy, the default's end, they are extrapolated: 2 sources in 50 lie
    beyond 15 mJy, with 40 % of the flux.
    """

    name: str
    stage: int
    prior: Prior
    """Of density [1/deg^2] and slope."""
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
        """The operator where the map is in `state`. Raises ConfigError."""
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

    def output_shape(self, shape: Shape) -> Shape:
        return shape

    def apply(
        self, kernels: Kernels, cube: torch.Tensor, keys: torch.Tensor, drawn: Mapping[str, Any]
    ) -> torch.Tensor:
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
