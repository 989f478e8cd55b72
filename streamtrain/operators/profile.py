"""A beam of a measured profile: its convolution is a product of waves.

The profile enters through its own transform, B(k) = 2 pi int B(r) J0(k r) r dr, at the waves of the
map: what passes is B(k) and nothing else. No window of a pixel is multiplied, for the pixels of a
map are means already, and its waves above the pixels' have no place in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from streamtrain.numerics import portable
from streamtrain.numerics.backend import Kernels
from streamtrain.operators.base import Table
from streamtrain.operators.curve_files import NEGLIGIBLE, Curve, assume, read_curve
from streamtrain.operators.fourier import Axis, Edge, SliceFilter, cheap_length
from streamtrain.schema import ConfigError

Float = NDArray[np.float64]

COLUMNS = ("radius_deg", "response")
CELLS = 512
"""Places along the profile's radius that its integrals are sums over."""
STEPS = 32
"""Values of B(k) to half a turn of the wave at the largest radius; a cubic between them is good for
1e-6."""
UNRESOLVED = 0.1
"""More of B(k) than this at the highest wave of an axis, and the beam is narrow for the pixels."""


@dataclass(frozen=True)
class Window:
    """B(k) of a profile, 1 at k = 0, at equal steps from there."""

    values: Float
    """[num + 3], the last ones for the cubic at the end."""
    step: float
    """From one wavenumber to the next [1/deg]."""

    @classmethod
    def of(cls, profile: Curve, highest: float) -> Window:
        """Up to a wavenumber [1/deg].

        The profile is summed along one direction of the sky, then times cos(k x) along the other.
        """
        cell = float(profile.place[-1]) / CELLS
        x = cell * (np.arange(CELLS) + 0.5)
        step = np.pi / (STEPS * float(profile.place[-1]))
        k = step * np.arange(int(highest / step) + 4)
        across = np.zeros(CELLS)
        for y in x:
            across = across + profile.at(np.sqrt(x * x + y * y))
        values = np.zeros(len(k))
        for place, response in zip(x, across, strict=True):
            values = values + response * portable.sincos_turns(k * (place / (2.0 * np.pi)))[1]
        return cls(values / values[0], step)

    def at(self, k: Float) -> Float:
        """B at wavenumbers [1/deg] of any shape, by the cubic through the four values around."""
        place = k / self.step
        left = np.clip(np.floor(place).astype(np.int64), 0, len(self.values) - 3)
        x = place - left
        before, low, high, after = (self.values[np.abs(left + n)] for n in (-1, 0, 1, 2))
        return np.asarray(
            -x * (x - 1.0) * (x - 2.0) / 6.0 * before
            + (x + 1.0) * (x - 1.0) * (x - 2.0) / 2.0 * low
            - (x + 1.0) * x * (x - 2.0) / 2.0 * high
            + (x + 1.0) * x * (x - 1.0) / 6.0 * after
        )


@dataclass
class ProfileBeam:
    """Convolution of every frequency slice with a beam of a measured profile."""

    slices: SliceFilter
    """Each channel, times B(k): one for each or one for all."""
    digest: str
    """Digest of the profile."""

    @classmethod
    def of(
        cls,
        profile: Curve,
        efficiency: float,
        widths: Float,
        pixel_deg: tuple[float, float],
        shape: tuple[int, int],
        edge: Edge,
    ) -> ProfileBeam:
        """The beam of a map of `shape` (dec, ra) and pixels `pixel_deg` (ra, dec).

        efficiency: the profile's integral; widths: factors on its radii in each channel [n_freq].
        """
        widths = widths[:1] if (widths == widths[0]).all() else widths
        reach = float(profile.place[-1] * widths.max())
        axes, waves = [], []
        for num, pixel, half in zip(shape, pixel_deg[::-1], (True, False), strict=True):
            if edge == "reflect":
                axis = Axis.cosines(num)
            else:
                length = cheap_length(num + int(np.ceil(reach / pixel)))
                axis = Axis.fourier(num, half=half, length=length)
            number = np.arange(axis.num_waves)
            turns = np.minimum(number, axis.length - number) / (axis.length * pixel)
            waves.append(2.0 * np.pi * turns)
            axes.append(axis)
        k_dec, k_ra = waves
        k = np.sqrt(k_ra[:, None] * k_ra[:, None] + k_dec * k_dec)
        window = Window.of(profile, float(k.max() * widths.max()))
        factors = efficiency * window.at(k * widths[:, None, None])
        slices = SliceFilter(axes[0], axes[1], Table(factors.astype(np.float32)))
        return cls(slices, profile.digest())

    def apply(self, kernels: Kernels, cube: Tensor) -> Tensor:
        """Cubes [B, n_freq, n_dec, n_ra] as the beam shows them."""
        return self.slices.apply(kernels, cube.flatten(0, 1)).view(cube.shape)


def read_profile(path: str, where: str) -> Curve:
    """A beam's response against radius [deg] from a file, see `read_curve`. Warns
    (AssumptionWarning) where it does not begin at 0 or does not reach zero. Raises ConfigError."""
    curve = read_curve(path, COLUMNS, "deg", where)
    place, response = curve.place, curve.response
    if place[0] < 0.0:
        raise ConfigError(f"{where}: {path} has the radius {place[0]:g} deg, which is below 0")
    if place[0] > 0.0:
        assume(where, f"{path} begins at {place[0]:.3g} deg; further in it is taken to stay level")
        place, response = np.append(0.0, place), np.append(response[0], response)
    if (last := response[-1] / response.max()) > NEGLIGIBLE:
        assume(
            where,
            f"{path} ends at {place[-1]:.3g} deg with {last:.2g} of its peak, and is taken for "
            "nothing beyond",
        )
    return Curve(place, response)


def say_what_does_not_fit(
    profile: Curve,
    widths: Float,
    sides_deg: tuple[float, float],
    shape: tuple[int, int],
    where: str,
) -> None:
    """Say (AssumptionWarning) which part of a beam reaches beyond a map of these sides, and that it
    is narrow for the pixels, where that is so. sides_deg, shape: (ra, dec)."""
    side = min(sides_deg) / float(widths.max())
    if (beyond := 1.0 - _within(profile, side) / _within(profile, np.inf)) > NEGLIGIBLE:
        assume(
            where,
            f"{100.0 * beyond:.2g} % of the beam's power lie further from its middle than the "
            f"map's side, {min(sides_deg):.3g} deg",
        )
    highest = max(np.pi * num / size for num, size in zip(shape, sides_deg, strict=True))
    passed = float(Window.of(profile, highest).at(np.array(highest * widths.min())))
    if passed > UNRESOLVED:
        assume(
            where,
            f"the beam is narrow for the pixels: {passed:.2g} is left of the highest wave of an "
            "axis, so that a point is seen with ripples around it",
        )


def _within(profile: Curve, radius: float) -> float:
    """The integral of response times radius up to a radius [deg], by the midpoint rule."""
    cell = min(radius, float(profile.place[-1])) / (8 * CELLS)
    r = np.asarray(cell * (np.arange(8 * CELLS) + 0.5), np.float64)
    return float(cell * (r * profile.at(r)).sum())


def fwhm_deg(profile: Curve) -> float:
    """Twice the radius at which the response falls to half its peak for good [deg]."""
    half = 0.5 * profile.response.max()
    last = int(np.flatnonzero(profile.response >= half)[-1])
    if last + 1 == len(profile.place):
        return 2.0 * float(profile.place[-1])
    (high, low), (near, far) = (a[last : last + 2] for a in (profile.response, profile.place))
    return 2.0 * float(near + (far - near) * (high - half) / (high - low))
