"""A map of the sky as it was read from a file, in the order of streamtrain's cubes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]

EVEN = 1e-3
"""How far steps of an axis may differ from their mean, in steps."""


class MapError(ValueError):
    """A map that cannot be used; the message is one sentence for the person who has it."""


@dataclass(frozen=True)
class Axis:
    """Edges of the voxels along one axis, in the order of a cube."""

    edges: Float
    """[n + 1]: GHz, falling; or degrees from the middle of the map, rising."""
    flipped: bool = False
    """Whether the file has them in the other order."""

    @property
    def width(self) -> float:
        """From end to end."""
        return float(abs(self.edges[-1] - self.edges[0]))

    @property
    def step(self) -> float:
        """Width of a voxel."""
        return self.width / (len(self.edges) - 1)


@dataclass(frozen=True)
class SkyMap:
    """A map and what its file says of it."""

    cube: NDArray[Any]
    """[n_freq, n_dec, n_ra]: from high to low frequency, from low to high dec and ra."""
    freq: Axis
    dec: Axis
    ra: Axis
    units: str | None
    """As in the file; None where it does not say, '' for numbers without a unit."""
    nu_rest_GHz: float | None
    """Of the line; None where the file does not say."""
    source: str
    """The file, for messages."""
    layout: str
    """What kind of file it is."""
    notes: tuple[str, ...] = ()
    """What was found and assumed."""
    done: Mapping[str, Any] | None = None
    """Section `observe` that the map has gone through, if streamtrain wrote it."""
    locate: Callable[[float, float], tuple[float, float]] | None = field(default=None, repr=False)
    """(ra, dec) [deg] of the file as (ra, dec) from the middle of the map along its axes."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(n_freq, n_dec, n_ra)."""
        freq, dec, ra = self.cube.shape
        return freq, dec, ra

    @property
    def nu_GHz(self) -> tuple[float, float]:
        """The band, from high to low."""
        return float(self.freq.edges[0]), float(self.freq.edges[-1])


def frequency_axis(edges: Float) -> Axis:
    """An axis from the edges of channels [GHz] in the order of the file."""
    rising = edges[-1] > edges[0]
    return Axis(edges[::-1] if rising else edges, bool(rising))


def sky_axis(edges: Float) -> Axis:
    """An axis from the edges of pixels [deg] in the order of the file."""
    falling = edges[-1] < edges[0]
    ordered = edges[::-1] if falling else edges
    return Axis(ordered - 0.5 * (ordered[0] + ordered[-1]), bool(falling))


def sky_axes(ra_edges: Float, dec_edges: Float) -> tuple[Axis, Axis, Any]:
    """The axes (ra, dec) of coordinates [deg] in the order of the file, ra shrunk by cos(dec) of
    the middle, and the function `locate` of a `SkyMap`."""
    middle = tuple(0.5 * float(e[0] + e[-1]) for e in (ra_edges, dec_edges))
    shrink = float(np.cos(np.radians(middle[1])))

    def locate(ra: float, dec: float) -> tuple[float, float]:
        return (ra - middle[0]) * shrink, dec - middle[1]

    ra_axis = sky_axis(ra_edges * shrink if shrink < 1.0 - 1e-3 else ra_edges)
    return ra_axis, sky_axis(dec_edges), locate


def checked_edges(values: ArrayLike, name: str, source: str) -> Float:
    """Edges of equal voxels [n + 1]. Raises MapError with the offending steps."""
    edges = np.asarray(values, np.float64)
    if edges.ndim != 1 or len(edges) < 2 or not np.isfinite(edges).all():
        raise MapError(f"{source}: {name} must be a list of two numbers or more, all finite")
    steps = np.diff(edges)
    mean = steps.mean()
    if mean == 0.0 or np.abs(steps / mean - 1.0).max() > EVEN:
        raise MapError(
            f"{source}: {name} must have equal steps, but they are {steps.min():.6g} to "
            f"{steps.max():.6g}"
        )
    return edges


def edges_of_centres(values: ArrayLike, name: str, source: str, step: float | None = None) -> Float:
    """Edges [n + 1] around the centres of equal voxels [n]; `step` where there is one alone."""
    centres = np.asarray(values, np.float64).reshape(-1)
    if len(centres) == 1 and step is not None:
        return np.array([centres[0] - 0.5 * step, centres[0] + 0.5 * step])
    centres = checked_edges(centres, name, source)
    half = 0.5 * (centres[-1] - centres[0]) / (len(centres) - 1)
    return np.append(centres - half, centres[-1] + half)


def oriented(cube: NDArray[Any], freq: Axis, dec: Axis, ra: Axis) -> NDArray[Any]:
    """A cube [freq, dec, ra] of the file in the order of the axes."""
    steps = tuple(slice(None, None, -1 if axis.flipped else 1) for axis in (freq, dec, ra))
    return np.ascontiguousarray(cube[steps])


def order_notes(freq: Axis) -> tuple[str, ...]:
    """What to say of the order of channels."""
    if not freq.flipped:
        return ()
    return ("its channels run from low to high frequency and were reversed",)


def check_shape(shape: tuple[int, ...], axes: dict[str, int], name: str, source: str) -> None:
    """Raise MapError if an array has not the lengths of its axes, named in their order."""
    if shape != tuple(axes.values()):
        raise MapError(
            f"{source}: {name} has shape {shape}, but its axes [{', '.join(axes)}] have "
            f"{tuple(axes.values())} voxels"
        )


def check_numbers(cube: NDArray[Any], name: str, source: str) -> None:
    """Raise MapError for an array that does not hold real numbers."""
    if cube.dtype.kind not in "iuf":
        raise MapError(f"{source}: {name} holds {cube.dtype}, not numbers")
