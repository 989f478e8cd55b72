"""The response of a spectrometer's channels, which see more than their own width."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from streamtrain.numerics import portable
from streamtrain.numerics.backend import Kernels
from streamtrain.numerics.workspace import DeviceArrays
from streamtrain.operators.base import MapState, Operator, Turn
from streamtrain.operators.beam import FWHM_PER_SIGMA
from streamtrain.operators.curve_files import NEGLIGIBLE, Curve, assume, read_curve
from streamtrain.operators.fourier import Edge, RowSums, continued
from streamtrain.schema import ConfigError, setting

Float = NDArray[np.float64]
GAUSSIAN_REACH = 2.5
"""A Gaussian ends this many FWHM from its middle: 4e-9 of it lie beyond."""
LORENTZIAN_REACH = 10.0
"""A Lorentzian ends this many FWHM from its middle: 3.2 % of it lie beyond."""
NARROW = 0.01
"""A response that is narrower than this share of a channel leaves 99.5 % of its light in it."""
COLUMNS = ("offset_MHz", "response")


@dataclass(frozen=True)
class Response:
    """What a channel sees at each offset in frequency from its middle."""

    below: Callable[[Float], Float]
    """The part of it below an offset [MHz], to within a factor and a constant."""
    reach: float
    """Nothing is seen further from the middle [MHz]."""
    width: float
    """Full width at half maximum, or its integral over its peak [MHz]."""

    @classmethod
    def gaussian(cls, fwhm_MHz: float) -> Response:
        """A Gaussian, cut at `GAUSSIAN_REACH`."""
        inverse = FWHM_PER_SIGMA / fwhm_MHz
        return cls(lambda x: portable.normal_cdf(x * inverse), GAUSSIAN_REACH * fwhm_MHz, fwhm_MHz)

    @classmethod
    def lorentzian(cls, fwhm_MHz: float) -> Response:
        """1 / (1 + (2 x / FWHM)^2), cut at `LORENTZIAN_REACH`."""
        inverse = 2.0 / fwhm_MHz
        return cls(lambda x: portable.arctan(x * inverse), LORENTZIAN_REACH * fwhm_MHz, fwhm_MHz)

    @classmethod
    def measured(cls, curve: Curve) -> Response:
        """A curve, straight between the places where it was measured [MHz]."""
        steps = 0.5 * np.diff(curve.place) * (curve.response[1:] + curve.response[:-1])
        total = np.concatenate([[0.0], np.cumsum(steps)])

        def below(x: Float) -> Float:
            inside = np.clip(x, curve.place[0], curve.place[-1])
            left = np.clip(np.searchsorted(curve.place, inside, "right") - 1, 0, len(steps) - 1)
            part = 0.5 * (inside - curve.place[left]) * (curve.response[left] + curve.at(inside))
            return np.asarray(total[left] + part)

        reach = max(-float(curve.place[0]), float(curve.place[-1]))
        return cls(below, reach, float(total[-1] / curve.response.max()))


@dataclass(frozen=True)
class ChannelResponseConfig:
    """Every channel sees its neighbours too."""

    fwhm_MHz: float | None = setting(None, "full width at half maximum [MHz]", above=0)
    resolving_power: float | None = setting(
        None, "or R: the width is frequency / R of each channel", above=0
    )
    profile: Literal["gaussian", "lorentzian"] = setting(
        "gaussian", "its form; a Fabry-Perot's is a Lorentzian, cut 10 widths from its middle"
    )
    file: str | None = setting(
        None, "or a measured response: text of two columns, or npz: offset [MHz], response"
    )
    edge: Edge = setting(
        "reflect", "what lies beyond the band: the spectrum's mirror image or nothing"
    )


@dataclass
class ChannelResponse(Operator):
    """Every channel becomes the mean of all, weighted with its response to them."""

    section = ChannelResponseConfig
    words = "seen by the channels"
    turn = Turn.BEAM
    random = False
    telescope = True
    files = ("file",)
    measured = ("fwhm_MHz", "resolving_power")

    sums: RowSums
    """Weights of all channels for each."""
    digest: str | None
    """Digest of the file's numbers; None without a file."""

    @classmethod
    def from_config(
        cls, name: str, stage: int, config: ChannelResponseConfig, state: MapState
    ) -> ChannelResponse:
        where = f"observe.{name}"
        edges = 1e3 * state.grid.edges[0][:: state.joined[0]]
        step, band = float(edges[0] - edges[1]), float(edges[0] - edges[-1])
        digest = None
        if config.file is not None:
            curve = read_curve(config.file, COLUMNS, "MHz", f"{where}.file")
            digest = curve.digest()
            if np.abs(curve.place).min() > band:
                raise ConfigError(
                    f"{where}.file: {config.file} runs from {curve.place[0]:.6g} to "
                    f"{curve.place[-1]:.6g} MHz, beyond the band of {band:.4g} MHz: offsets from a "
                    "channel's middle are needed, no frequencies"
                )
            _say_ends(curve, f"{where}.file: {config.file}")
            responses = [Response.measured(curve)] * state.shape[0]
        else:
            middle = 0.5 * (edges[:-1] + edges[1:])
            responses = [_analytic(config, float(nu)) for nu in middle]
        if (widest := max(response.width for response in responses)) > band:
            raise ConfigError(
                f"{where}: the response is {widest:.4g} MHz wide, the band {band:.4g} MHz"
            )
        if widest < NARROW * step:
            assume(
                where,
                f"the response is {widest:.3g} MHz wide and a channel {step:.4g} MHz, so that it "
                "changes next to nothing" + (" (offsets in GHz?)" if config.file else ""),
            )
        return cls(name, stage, _sums(responses, step, config.edge), digest)

    @classmethod
    def check(cls, section: ChannelResponseConfig, where: str, state: MapState) -> None:
        names = ("fwhm_MHz", "resolving_power", "file")
        given = [name for name in names if getattr(section, name) is not None]
        if not given:
            raise ConfigError(f"{where} needs one of {', '.join(names)}")
        if len(given) > 1:
            raise ConfigError(
                f"{where} has both {given[0]} and {given[1]}: {where}.{given[1]}=null removes the "
                f"one, {where}.{given[0]}=null the other"
            )
        if section.file is not None and section.profile != "gaussian":
            raise ConfigError(f"{where}.profile = {section.profile} beside {where}.file, which is "
                              "a profile: leave one of them out")  # fmt: skip

    @classmethod
    def needs_units(cls, section: ChannelResponseConfig) -> bool:
        return True

    def identity(self) -> str | None:
        return self.digest

    def apply(self, kernels: Kernels, cube: Tensor, keys: Tensor, drawn: DeviceArrays) -> Tensor:
        samples, num_freq = cube.shape[:2]
        rows = cube.view(samples, num_freq, -1)
        return self.sums.apply(kernels, rows, real=True).view(cube.shape)


def _analytic(config: ChannelResponseConfig, nu_MHz: float) -> Response:
    fwhm = config.fwhm_MHz
    if fwhm is None:
        assert config.resolving_power is not None
        fwhm = nu_MHz / config.resolving_power
    return Response.gaussian(fwhm) if config.profile == "gaussian" else Response.lorentzian(fwhm)


def _say_ends(curve: Curve, where: str) -> None:
    """Say that a measured response does not reach zero, if so."""
    ends = np.maximum(curve.response[0], curve.response[-1]) / curve.response.max()
    if ends > NEGLIGIBLE:
        assume(
            where,
            f"the response ends at {ends:.2g} of its peak, {curve.place[0]:.4g} and "
            f"{curve.place[-1]:.4g} MHz from the middle, and is taken for nothing beyond",
        )


def _sums(responses: list[Response], step: float, edge: Edge) -> RowSums:
    """The weights of all channels for each, whose sum is 1 where none lies beyond the band.

    step: between channels [MHz]; frequency falls with their number.
    """
    num = len(responses)
    matrix = np.zeros((num, num))
    for channel, response in enumerate(responses):
        reach = int(np.ceil(response.reach / step + 0.5))
        offset = np.arange(-reach, reach + 1)
        ends = np.clip(step * (np.arange(-reach, reach + 2) - 0.5), -response.reach, response.reach)
        weights = np.diff(response.below(ends))
        seen = continued(channel - offset, num, edge)
        for place, weight in zip(seen, weights / math.fsum(weights), strict=True):
            if place >= 0:
                matrix[channel, place] += weight
    reached = [np.flatnonzero(row) for row in matrix]
    terms = max(int(places[-1] - places[0]) + 1 for places in reached)
    first = np.array([min(int(places[0]), num - terms) for places in reached])
    source = first[:, None] + np.arange(terms)
    weights = np.take_along_axis(matrix, source, axis=1)
    return RowSums.of(num, source, np.stack([weights, np.zeros_like(weights)], axis=-1))
