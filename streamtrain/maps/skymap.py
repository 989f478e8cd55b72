"""A map of the sky as it was read from a file, in the order of streamtrain's cubes; its units."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from streamtrain.grid import SOURCE_UK

Float = NDArray[np.float64]

SHOWN = 40
"""Characters of a message's longest quotation."""
UNKNOWN_MODES = -1
"""A number of principal components that a file does not say, though it says that some are gone."""
NARROWING = 0.1
"""Share of a pixel's width in ra that may be lost towards a pole before it is said."""
POLE_DEG = 90.0 + 1e-6
SIGMA, HITS = ("sigma", "rms"), ("hits",)
"""Names of what may stand beside a cube in a file; the first that is there counts."""
EVEN = 1e-3
"""How far steps of an axis may differ from their mean, in steps."""


class MapError(ValueError):
    """A map that cannot be used; the message is one sentence for the person who has it."""


def no_feeds(source: str) -> MapError:
    """What to raise where feeds are to be summed and there are none."""
    return MapError(f"{source} holds no map per feed: --sum-feeds is of a file with several")


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
        """Mean width of a voxel."""
        return self.width / (len(self.edges) - 1)

    @property
    def even(self) -> bool:
        """Whether all voxels have the same width."""
        steps = np.abs(np.diff(self.edges))
        return bool(np.abs(steps / self.step - 1.0).max() <= EVEN)


@dataclass(frozen=True)
class SkyMap:
    """A map and what its file says of it."""

    cube: NDArray[Any]
    """[n_freq, n_dec, n_ra]: from high to low frequency, from low to high dec and ra."""
    freq: Axis
    dec: Axis
    ra: Axis
    units: str | None
    """Units as in the file; None where it does not say, '' for numbers without a unit."""
    nu_rest_GHz: float | None
    """Rest frequency of the line; None where the file does not say."""
    source: str
    """The file, for messages."""
    layout: str
    """What kind of file it is."""
    notes: tuple[str, ...] = ()
    """What was found and assumed."""
    marks: tuple[float, ...] = ()
    """Numbers that stand for no value, as the file says."""
    done: Mapping[str, Any] | None = None
    """Section `observe` that the map has gone through, if streamtrain wrote it."""
    locate: Callable[[float, float], tuple[float, float]] | None = field(default=None, repr=False)
    """(ra, dec) [deg] of the file as (ra, dec) from the middle of the map along its axes."""
    sigma: NDArray[Any] | None = field(default=None, repr=False)
    """Standard deviation of the white noise in each voxel, of the cube's shape and order and in its
    units; NaN where nothing was observed, None where the file does not say."""
    hits: NDArray[Any] | None = field(default=None, repr=False)
    """Samples in each voxel, of the cube's shape and order; None where the file does not say."""
    filtered: bool | None = None
    """Whether the file is a pipeline's that filters the data before it makes a map; None where the
    file does not say."""
    pca_modes: int | None = None
    """Modes along frequency that were subtracted from it by principal components, 0 for none,
    `UNKNOWN_MODES` for an unknown number; None where the file does not say."""
    axes: tuple[str, ...] = ()
    """The axes of the cube in the file, in their order."""
    centre_deg: tuple[float, float] | None = None
    """(ra, dec) [deg] of the middle, in the coordinates of the file."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the map, (n_freq, n_dec, n_ra)."""
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


def sky_axes(
    ra_edges: Float, dec_edges: Float, source: str
) -> tuple[Axis, Axis, dict[str, Any], tuple[str, ...]]:
    """The axes (ra, dec) of coordinates [deg] in the order of the file, ra shrunk by cos(dec) of
    the middle, `locate` and `centre_deg` of a `SkyMap`, and what to say of them. Raises MapError
    for what lies beyond a pole."""
    low, high = sorted((float(dec_edges[0]), float(dec_edges[-1])))
    if low < -POLE_DEG or high > POLE_DEG:
        raise MapError(f"{source}: its dec, {low:g} to {high:g} deg, lies beyond a pole")
    middle = tuple(0.5 * float(e[0] + e[-1]) for e in (ra_edges, dec_edges))
    shrink = float(np.cos(np.radians(middle[1])))

    def locate(ra: float, dec: float) -> tuple[float, float]:
        turn = (ra - middle[0] + 180.0) % 360.0 - 180.0
        return turn * shrink, dec - middle[1]

    ra_axis = sky_axis(ra_edges * shrink if shrink < 1.0 - 1e-3 else ra_edges)
    place = {"locate": locate, "centre_deg": (round(middle[0], 9) % 360.0, middle[1])}
    return ra_axis, sky_axis(dec_edges), place, narrowing_notes(low, high)


def narrowing_notes(low: float, high: float) -> tuple[str, ...]:
    """What to say of a map whose pixels have equal steps in ra, from one dec [deg] to another."""
    ends = [float(np.cos(np.radians(dec))) for dec in (low, high)]
    share = 1.0 - min(ends) / max(ends)
    if share <= NARROWING:
        return ()
    return (
        f"its pixels are {100.0 * share:.0f} % narrower in ra at one end of dec than at the other, "
        "and were taken to be as wide as in its middle",
    )


def checked_edges(values: ArrayLike, name: str, source: str, *, even: bool = True) -> Float:
    """Edges of voxels [n + 1], one after the other and, if `even`, of equal voxels. Raises MapError
    with the offending steps."""
    check_numbers(np.asarray(values), name, source)
    edges = np.asarray(values, np.float64)
    edges = edges.reshape(-1) if edges.size == max(edges.shape, default=0) else edges
    if edges.ndim != 1 or len(edges) < 2 or not np.isfinite(edges).all():
        raise MapError(f"{source}: {name} must be a list of two numbers or more, all finite")
    steps = np.diff(edges)
    mean = steps.mean()
    if mean == 0.0 or (steps / mean).min() <= 0.0:
        raise MapError(f"{source}: {name} must rise or fall from each number to the next")
    if even and np.abs(steps / mean - 1.0).max() > EVEN:
        raise MapError(
            f"{source}: {name} must have equal steps, but they are {steps.min():.6g} to "
            f"{steps.max():.6g}"
        )
    return edges


def ra_in_order(values: ArrayLike) -> NDArray[Any]:
    """Right ascensions [deg] without the step of 360 that a map at ra = 0 has."""
    given = np.asarray(values)
    if given.dtype.kind not in "iuf":
        return given
    given = given.reshape(-1) if given.size == max(given.shape, default=0) else given
    whole = given.ndim == 1 and len(given) > 1 and np.isfinite(given).all()
    return np.unwrap(given, period=360.0) if whole else given


def in_order(
    cube: NDArray[Any], axes: dict[str, int], name: str, source: str, reverse: bool = False
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """A cube with its axes in the order of `axes`, and what to say of it: Fortran, Julia and MATLAB
    write them the other way round.

    reverse: whether the file says that they are, which decides where both orders have the same
    shape. Raises MapError for another shape than either.
    """
    wanted = tuple(axes.values())
    turned = wanted[::-1]
    if cube.shape == turned and (reverse or cube.shape != wanted):
        return cube.transpose(), (f"its axes are [{', '.join(reversed(axes))}] and were turned",)
    check_shape(cube.shape, axes, name, source)
    return cube, ()


def per_voxel(
    values: NDArray[Any], axes: dict[str, int], name: str, source: str, reverse: bool = False
) -> NDArray[Any]:
    """Numbers that stand beside a cube with these axes, such as its noise: one for every voxel, or
    an image for all channels; see `in_order`. Raises MapError for any other shape."""
    if values.ndim != 2:
        return in_order(values, axes, name, source, reverse)[0]
    image = {axis: number for axis, number in axes.items() if axis != "freq"}
    plane, _ = in_order(values, image, name, source, reverse)
    place = list(axes).index("freq")
    return np.broadcast_to(np.expand_dims(plane, place), tuple(axes.values()))


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


def number_of(value: Any, name: str, source: str) -> float:
    """A finite number that stands alone or in an array of one, also as text. Raises MapError."""
    value = np.asarray(value).item() if np.asarray(value).size == 1 else value
    if isinstance(value, bool):
        value = str(value)
    try:
        text = np.asarray(value).dtype.kind in "OSU"
        found = float(text_of(value)) if text else float(np.asarray(value).item())
    except (ValueError, TypeError):
        found = float("nan")
    if not np.isfinite(found):
        raise MapError(f"{source}: {name} must be one number, not {text_of(value)}")
    return found


def rest_of(value: Any, name: str, source: str, given_GHz: float | None) -> float | None:
    """A rest frequency [GHz] that a file states; what is no number is no matter if one is given."""
    if value is None:
        return None
    try:
        return number_of(value, name, source)
    except MapError as error:
        if given_GHz is None:
            raise MapError(f"{error}; --nu-rest-GHz says what it is") from None
        return None


def text_of(value: Any) -> str:
    """Text that stands alone or in an array of one, as text, as bytes or as MATLAB's codes; what is
    no text is shown in one short line."""
    array = np.asarray(value)
    if array.dtype == np.uint16 and 1 < array.size <= SHOWN:
        return "".join(map(chr, array.reshape(-1)))
    single = array.item() if array.size == 1 else value
    text = single.decode("utf-8", "replace") if isinstance(single, bytes) else str(single)
    if array.size == 1 and array.dtype.kind in "OSU":
        return text
    text = " ".join(text.split())
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


def check_numbers(cube: NDArray[Any], name: str, source: str) -> None:
    """Raise MapError for an array that does not hold real numbers."""
    if cube.dtype.kind not in "iuf":
        raise MapError(f"{source}: {name} holds {cube.dtype}, not numbers")


KNOWN = "uK, mK, K, Jy/sr, kJy/sr, MJy/sr"
_PREFIXES = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6}
_FORM = re.compile(r"(?P<prefix>[numkM]?)(?P<base>K|Jy/sr)")
_SAME = (("\u00b5", "u"), ("\u03bc", "u"), ("mu", "u"), (" ", ""), ("_RJ", ""))
_PER_SR = re.compile(r"Jy[.*]?sr(\^|\*\*)?[({]?-1[)}]?")


@dataclass(frozen=True)
class Units:
    """What a number in a map means."""

    kind: str
    """"uK", a Rayleigh-Jeans brightness temperature, or "Jy/sr", as in a configuration."""
    factor: float
    """A number of the map in that unit."""


PER_BEAM = (
    "Jy/beam over the beam's solid angle, 1.133 x BMAJ x BMIN in sr, where 1 arcmin^2 = 8.46e-8 "
    "sr, is Jy/sr"
)
"""How a map per beam of a Gaussian is converted: pi / (4 ln 2) = 1.133."""
HINTS = (
    (r"beam", PER_BEAM),
    (r"pix", "Jy/pixel over the solid angle of a pixel in sr is Jy/sr"),
    (
        r"CMB|thermo",
        "a thermodynamic temperature is no brightness temperature, which at nu is "
        "x^2 e^x / (e^x - 1)^2 of it, x = nu / 56.79 GHz",
    ),
    (
        r"^(?!.*Hz).*W[^a-z]*m.*sr",
        "nu I_nu over nu is an intensity: 1 nW m-2 sr-1 is 1e8 / (nu / GHz) Jy/sr",
    ),
)
"""What to do with numbers in units like these, by a pattern of their name."""


def one_map(source: str) -> MapError:
    """What to raise where a sample is chosen and there is one map."""
    return MapError(f"{source} holds one map: --index is of a file with several samples")


def same_units(one: str, other: str) -> bool:
    """Whether two units mean the same; ones that mean nothing do not."""
    try:
        return one == other or parse_units(one, "") == parse_units(other, "")
    except MapError:
        return False


def parse_units(text: str, where: str) -> Units:
    """The meaning of 'mK' or 'MJy sr-1'. Raises MapError, one sentence that begins with `where`,
    for anything that is neither a brightness temperature nor an intensity."""
    plain = text.strip()
    for old, new in _SAME:
        plain = plain.replace(old, new)
    plain = _PER_SR.sub("Jy/sr", plain)
    found = _FORM.fullmatch(plain)
    if found is None:
        fits = (f" ({hint})" for pattern, hint in HINTS if re.search(pattern, text, re.IGNORECASE))
        hint = next(fits, "")
        raise MapError(f"{where}: the units '{text}' are none of {KNOWN}{hint}")
    power = _PREFIXES[found["prefix"]]
    if found["base"] == "K":
        return Units("uK", 1.0 if found["prefix"] == "u" else power * 1e6)
    return Units("Jy/sr", power)


def rayleigh_jeans_uK(nu_GHz: Float) -> Float:
    """T [uK] of an intensity of 1 Jy/sr at frequencies [n]: c^2 I / (2 k nu^2)."""
    return 1e3 * SOURCE_UK / (nu_GHz * nu_GHz)
