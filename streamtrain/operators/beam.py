"""A Gaussian beam."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamtrain.numerics import portable
from streamtrain.numerics.backend import Kernels
from streamtrain.numerics.workspace import DeviceArrays
from streamtrain.operators.base import GROUP, MapState, Operator, Table, Turn
from streamtrain.schema import ConfigError, setting

FWHM_PER_SIGMA = 2.3548200450309493
"""Full width at half maximum over standard deviation of a Gaussian, sqrt(8 ln 2)."""
TRUNCATE = 4.0
"""The beam ends after this many sigma, rounded to whole pixels (the default of SciPy's filter)."""


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


@dataclass
class BeamAxis:
    """The beam along one axis of the sky."""

    source: Table
    """Pixel of the map seen in each of n + 2 radius places, -1 for none: int32."""
    weights: Table
    """float32 [n_freq, 2 radius + 1], each row of sum 1."""

    @classmethod
    def of(cls, num: int, sigma_pixels: NDArray[np.float64], edge: str) -> BeamAxis:
        """An axis of `num` pixels; sigma_pixels [n_freq]."""
        radius = max(_radius(sigma) for sigma in sigma_pixels)
        weights = np.stack([_weights(sigma, radius) for sigma in sigma_pixels])
        return cls(Table(_source(num, radius, edge)), Table(weights.astype(np.float32)))


@dataclass
class Beam(Operator):
    """Convolution of every frequency slice with a Gaussian, along ra and then along dec.

    In a map without units, after a transform, it is a smoothing of the network's input.
    """

    section = BeamConfig
    words = "smoothed by the beam"
    turn = Turn.BEAM
    random = False
    telescope = True
    hint = "a smoothing of such values takes fwhm_pixels"

    ra: BeamAxis
    dec: BeamAxis

    @classmethod
    def from_config(cls, name: str, stage: int, config: BeamConfig, state: MapState) -> Beam:
        num_freq, num_dec, num_ra = state.shape
        if config.fwhm_arcmin is not None:
            fov_ra, fov_dec = state.grid.fov_deg
            pixel_arcmin = 60.0 * fov_ra / num_ra, 60.0 * fov_dec / num_dec
            width = [config.fwhm_arcmin / side for side in pixel_arcmin]
        else:
            assert config.fwhm_pixels is not None
            width = [config.fwhm_pixels] * 2
        scale = np.ones(num_freq)
        if config.reference_GHz is not None:
            edges = state.grid.edges[0][:: state.joined[0]]
            scale = config.reference_GHz / (0.5 * (edges[:-1] + edges[1:]))
        widest = [float(w * scale.max()) for w in width]
        if widest[0] > num_ra or widest[1] > num_dec:
            raise ConfigError(
                f"observe.{name}: the beam's FWHM, {widest[0]:.4g} x {widest[1]:.4g} pixels "
                f"(ra, dec), is wider than the map, {num_ra} x {num_dec} pixels"
            )
        ra, dec = (
            BeamAxis.of(num, w / FWHM_PER_SIGMA * scale, config.edge)
            for num, w in zip((num_ra, num_dec), width, strict=True)
        )
        return cls(name, stage, ra, dec)

    @classmethod
    def check(cls, section: BeamConfig, where: str, state: MapState) -> None:
        arcmin, pixels = section.fwhm_arcmin, section.fwhm_pixels
        if arcmin is None and pixels is None:
            raise ConfigError(f"{where} needs either fwhm_arcmin (COMAP: 4.5) or fwhm_pixels")
        if arcmin is not None and pixels is not None:
            raise ConfigError(
                f"{where} has both fwhm_arcmin = {arcmin:g} and fwhm_pixels = {pixels:g}: "
                f"{where}.fwhm_pixels=null removes the one, {where}.fwhm_arcmin=null the other"
            )

    @classmethod
    def needs_units(cls, section: BeamConfig) -> bool:
        return section.fwhm_arcmin is not None

    def apply(self, kernels: Kernels, cube: Tensor, keys: Tensor, drawn: DeviceArrays) -> Tensor:
        samples, num_freq = cube.shape[:2]
        for axis in (self.ra, self.dec):  # each turns the slices: [dec, ra], [ra, dec], [dec, ra]
            across, along = cube.shape[2:]
            room, taps = len(axis.source.values), axis.weights.values.shape[1]
            padded = torch.empty(
                (samples, num_freq, room, across), dtype=torch.float32, device=cube.device
            )
            kernels.elementwise(
                "beam_pad",
                samples * num_freq * room,
                across,
                np.int32(room),
                np.int32(along),
                axis.source.on(cube.device),
                cube,
                padded,
            )
            cube = torch.empty(
                (samples, num_freq, along, across), dtype=torch.float32, device=cube.device
            )
            kernels.elementwise(
                "beam_pass",
                samples * num_freq,
                -(-along * across // GROUP),
                np.int64(along * across),
                np.int32(num_freq),
                np.int32(taps),
                np.int32(across),
                axis.weights.on(cube.device),
                padded,
                cube,
            )
        return cube


def _radius(sigma_pixels: float) -> int:
    return int(TRUNCATE * sigma_pixels + 0.5)


def _weights(sigma_pixels: float, radius: int) -> NDArray[np.float64]:
    """exp(-x^2 / (2 sigma^2)) of pixels -radius..radius, zero beyond its own radius, of sum 1."""
    offset = np.arange(-radius, radius + 1, dtype=np.float64)
    ratio = offset / sigma_pixels
    weights = portable.exp(-0.5 * ratio * ratio)
    weights[np.abs(offset) > _radius(sigma_pixels)] = 0.0
    return weights / math.fsum(weights)


def _source(num: int, radius: int, edge: str) -> NDArray[np.int32]:
    place = np.arange(-radius, num + radius)
    if edge == "zero":
        return np.where((place >= 0) & (place < num), place, -1).astype(np.int32)
    turn = place % (2 * num)  # d c b a | a b c d | d c b a
    return np.where(turn < num, turn, 2 * num - 1 - turn).astype(np.int32)
