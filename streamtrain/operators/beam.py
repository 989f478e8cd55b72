"""A telescope's beam: a Gaussian, or a profile that was measured."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamtrain.numerics import portable
from streamtrain.numerics.backend import Kernels
from streamtrain.numerics.workspace import DeviceArrays
from streamtrain.operators.base import GROUP, MapState, Operator, Table, Turn
from streamtrain.operators.curve_files import assume
from streamtrain.operators.fourier import Edge, continued
from streamtrain.operators.profile import ProfileBeam, fwhm_deg, read_profile, say_what_does_not_fit
from streamtrain.schema import ConfigError, setting

FWHM_PER_SIGMA = 2.3548200450309493
"""Full width at half maximum over standard deviation of a Gaussian, sqrt(8 ln 2)."""
TRUNCATE = 4.0
"""The beam ends after this many sigma, rounded to whole pixels (the default of SciPy's filter)."""
NARROW_PIXELS = 1.5
"""A Gaussian of a lower FWHM is told: it leaves the light of a halo in its pixel, wherever in it
the halo lies. The scatter of voxels that single halos make is too large by 2 % at 3 pixels, 5 % at
2, 13 % at 1.5, 45 % at 1."""


@dataclass(frozen=True)
class BeamConfig:
    """A beam on every frequency slice: a Gaussian, or a measured profile."""

    fwhm_arcmin: float | None = setting(None, "full width at half maximum [arcmin]", above=0)
    fwhm_pixels: float | None = setting(None, "or in pixels, as many in ra as in dec", above=0)
    profile: str | None = setting(
        None,
        "or a measured profile: text of two columns, or npz: radius [deg], response",
        later=True,
    )
    efficiency: float | None = setting(
        None,
        "share of the beam's power within the profile's radii; default: 1",
        above=0,
        high=1,
        later=True,
    )
    reference_GHz: float | None = setting(
        None, "the width is for this frequency and goes as 1/nu; default: the same in all", above=0
    )
    edge: Edge = setting(
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
    def of(cls, num: int, sigma_pixels: NDArray[np.float64], edge: Edge) -> BeamAxis:
        """An axis of `num` pixels; sigma_pixels [n_freq]."""
        radius = max(_radius(sigma) for sigma in sigma_pixels)
        weights = np.stack([_weights(sigma, radius) for sigma in sigma_pixels])
        source = continued(np.arange(-radius, num + radius), num, edge)
        return cls(Table(source.astype(np.int32)), Table(weights.astype(np.float32)))


@dataclass
class GaussianBeam:
    """Convolution of every frequency slice with a Gaussian, along ra and then along dec."""

    ra: BeamAxis
    dec: BeamAxis

    def apply(self, kernels: Kernels, cube: Tensor) -> Tensor:
        """Cubes [B, n_freq, n_dec, n_ra] as the beam shows them."""
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


@dataclass
class Beam(Operator):
    """Convolution of every frequency slice with the beam.

    In a map without units, after a transform, it is a smoothing of the network's input.
    """

    section = BeamConfig
    words = "smoothed by the beam"
    turn = Turn.BEAM
    random = False
    telescope = True
    files = ("profile",)
    measured = ("fwhm_arcmin", "fwhm_pixels")
    hint = "a smoothing of such values takes fwhm_pixels"

    convolution: GaussianBeam | ProfileBeam

    @classmethod
    def from_config(cls, name: str, stage: int, config: BeamConfig, state: MapState) -> Beam:
        num_freq, num_dec, num_ra = state.shape
        sides, shape = state.grid.fov_deg, (num_ra, num_dec)
        pixel_deg = sides[0] / num_ra, sides[1] / num_dec
        scale = np.ones(num_freq)
        if config.reference_GHz is not None:
            edges = state.grid.edges[0][:: state.joined[0]]
            scale = config.reference_GHz / (0.5 * (edges[:-1] + edges[1:]))
        profile, where = None, f"observe.{name}.profile"
        if config.profile is not None:
            profile = read_profile(config.profile, where)
            width = [fwhm_deg(profile) / side for side in pixel_deg]
        elif config.fwhm_arcmin is not None:
            width = [config.fwhm_arcmin / (60.0 * side) for side in pixel_deg]
        else:
            assert config.fwhm_pixels is not None
            width = [config.fwhm_pixels] * 2
        widest = [float(w * scale.max()) for w in width]
        # across a strip of one pixel the mirror image keeps all light, whatever the width
        strip = 1 if config.edge == "reflect" and profile is None else 0
        if any(w > num > strip for w, num in zip(widest, shape, strict=True)):
            raise ConfigError(
                f"observe.{name}: the beam's FWHM, {widest[0]:.4g} x {widest[1]:.4g} pixels "
                f"(ra, dec), is wider than the map, {num_ra} x {num_dec} pixels"
            )
        if config.fwhm_arcmin is not None:
            _say_narrow(config.fwhm_arcmin * scale, pixel_deg, shape, f"observe.{name}")
        if profile is None:
            ra, dec = (
                BeamAxis.of(num, w / FWHM_PER_SIGMA * scale, config.edge)
                for num, w in zip(shape, width, strict=True)
            )
            return cls(name, stage, GaussianBeam(ra, dec))
        say_what_does_not_fit(profile, scale, sides, shape, f"{where}: {config.profile}")
        efficiency = 1.0 if config.efficiency is None else config.efficiency
        return cls(
            name,
            stage,
            ProfileBeam.of(profile, efficiency, scale, pixel_deg, shape[::-1], config.edge),
        )

    @classmethod
    def check(cls, section: BeamConfig, where: str, state: MapState) -> None:
        names = ("fwhm_arcmin", "fwhm_pixels", "profile")
        given = {n: v for n in names if (v := getattr(section, n)) is not None}
        if not given:
            raise ConfigError(
                f"{where} needs either fwhm_arcmin (COMAP: 4.5), fwhm_pixels or a profile"
            )
        if len(given) > 1:
            (first, one), (second, other) = list(given.items())[:2]
            raise ConfigError(
                f"{where} has both {first} = {one} and {second} = {other}: {where}.{second}=null "
                f"removes the one, {where}.{first}=null the other"
            )
        if section.efficiency is not None and section.profile is None:
            raise ConfigError(f"{where}.efficiency is that of a profile, and there is none")

    @classmethod
    def needs_units(cls, section: BeamConfig) -> bool:
        return section.fwhm_pixels is None

    def identity(self) -> str | None:
        return self.convolution.digest if isinstance(self.convolution, ProfileBeam) else None

    def apply(self, kernels: Kernels, cube: Tensor, keys: Tensor, drawn: DeviceArrays) -> Tensor:
        return self.convolution.apply(kernels, cube)


def _say_narrow(
    fwhm_arcmin: NDArray[np.float64],
    pixel_deg: tuple[float, float],
    shape: tuple[int, int],
    where: str,
) -> None:
    """Say (AssumptionWarning) that a Gaussian of these widths [n_freq] is narrow for the pixels,
    where it is. pixel_deg, shape: (ra, dec); along an axis of one pixel nothing is smoothed."""
    sides = [60.0 * side for side, num in zip(pixel_deg, shape, strict=True) if num > 1]
    narrow = float(fwhm_arcmin.min()) / max(sides, default=1e-30)
    if narrow < NARROW_PIXELS:
        finer = math.ceil(NARROW_PIXELS / narrow)
        assume(
            where,
            f"the beam's FWHM is {narrow:.2g} pixels where it is narrowest: light stays in its "
            "pixel, wherever in it a halo lies, so that voxels scatter too much; paint pixels "
            f"{finer} times as fine and join them after the beam, by pool: {{factor: [1, {finer}, "
            f"{finer}]}}",
        )


def _radius(sigma_pixels: float) -> int:
    return int(TRUNCATE * sigma_pixels + 0.5)


def _weights(sigma_pixels: float, radius: int) -> NDArray[np.float64]:
    """exp(-x^2 / (2 sigma^2)) of pixels -radius..radius, zero beyond its own radius, of sum 1."""
    offset = np.arange(-radius, radius + 1, dtype=np.float64)
    ratio = offset / sigma_pixels
    weights = portable.exp(-0.5 * ratio * ratio)
    weights[np.abs(offset) > _radius(sigma_pixels)] = 0.0
    return weights / math.fsum(weights)
