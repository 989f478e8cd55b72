"""Maps that COMAP's pipeline writes in HDF5: of all feeds together, or one for each feed.

Both layouts have [sideband, channel, dec, ra] and the voxels' centres:
- today's, `map_coadd`, `sigma_wn_coadd`, `nhit_coadd` with `freq_centers` [GHz], `ra_centers` and
  `dec_centers` [deg], edges, and what was done to the map (`is_pca_subtr` ...);
- the older one, `map_coadd`, `rms_coadd`, `nhit_coadd` (or `map_beam` ...) with `freq`, `x`, `y`.
Maps per feed are `map`, `sigma_wn` (or `rms`) and `nhit` with a leading axis of feeds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.machine.files import check_memory
from streamtrain.machine.hdf5file import check_here, content_of
from streamtrain.maps.datasets import array_of, is_dataset, meant, said, unpacked
from streamtrain.maps.missing import observed
from streamtrain.maps.skymap import (
    EVEN,
    UNKNOWN_MODES,
    Axis,
    MapError,
    SkyMap,
    check_numbers,
    check_shape,
    edges_of_centres,
    frequency_axis,
    no_feeds,
    number_of,
    order_notes,
    oriented,
    ra_in_order,
    rest_of,
    sky_axes,
    text_of,
)

Float = NDArray[np.float64]

TODAY = {"freq": "freq_centers", "dec": "dec_centers", "ra": "ra_centers"}
OLDER = {"freq": "freq", "dec": "y", "ra": "x"}
"""Names of the voxels' centres."""
COADDED = ("map_coadd", "map_beam")
SIGMA = {
    "map_coadd": ("sigma_wn_coadd", "rms_coadd"),
    "map_beam": ("rms_beam",),
    "map": ("sigma_wn", "rms"),
}
"""Names of the noise beside each map, and below of its hits; the first that is there counts."""
HITS = {"map_coadd": ("nhit_coadd",), "map_beam": ("nhit_beam",), "map": ("nhit",)}
BETWEEN = 0.05
"""How far a centre may lie from the middle of its edges, in steps, before it is said."""

Feed = tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]
"""The map of a feed, its sigma and its hits, of one shape."""


@dataclass(frozen=True)
class Coadded:
    """A map of all feeds together, its arrays as the file has them."""

    cube: NDArray[Any]
    """Values, NaN where no feed observed."""
    sigma: NDArray[Any] | None
    """Standard deviation of the noise, None where the file does not say."""
    hits: NDArray[Any] | None
    """Samples, None where the file does not say."""
    marks: tuple[float, ...] = ()
    """Numbers in the cube that stand for no value."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Voxels:
    """Where the voxels of a file lie."""

    axes: dict[str, int]
    """Number of voxels along each axis of the file."""
    order: NDArray[np.intp]
    """The channels of all sidebands in the order of frequency."""
    freq: Axis
    dec: Axis
    ra: Axis
    place: dict[str, Any]
    """`locate` and `centre_deg` of a `SkyMap`."""
    notes: tuple[str, ...]

    def in_order(self, values: NDArray[Any]) -> NDArray[Any]:
        """Numbers [sideband, channel, dec, ra] of the file as [n_freq, n_dec, n_ra] of a map."""
        flat = values.reshape(-1, self.axes["dec"], self.axes["ra"])
        return oriented(flat[self.order], self.freq, self.dec, self.ra)


def is_comap(file: Any) -> bool:
    """Whether an HDF5 file has a layout of COMAP's pipeline."""
    own = is_dataset(file, "map") and is_dataset(file, "nu_edges_GHz")
    if own or is_dataset(file, "cube"):
        return False
    feeds = is_dataset(file, "map") and len(file["map"].shape or ()) == 5
    return feeds or any(is_dataset(file, name) for name in COADDED)


def read_comap(
    file: Any, source: str, nu_rest_GHz: float | None, units: str | None, sum_feeds: bool
) -> SkyMap:
    """The map of such a file, of all feeds together or, with sum_feeds, their sum with weights
    1/sigma^2.

    nu_rest_GHz, units: instead of what the file says; without units the pipeline's maps of today
    are in K. Raises MapError, one sentence.
    """
    names = TODAY if is_dataset(file, TODAY["freq"]) else OLDER
    name = _first(file, ("map",) if sum_feeds else COADDED)
    if name is None and sum_feeds:
        raise no_feeds(source)
    if name is None:
        raise MapError(
            f"{source} holds a map per feed and none of all together: --sum-feeds adds them up "
            "with weights 1/sigma^2"
        )
    voxels = _voxels(file, names, source)
    read = (_feeds if sum_feeds else _coadded)(file, name, source, voxels.axes)
    about = {**file.attrs, **file[name].attrs}
    modes, filtered, done = _processing(file, source)
    stated = said(about, "units")
    if stated is None and names is TODAY and units is None:
        stated = "K"
        done = ("it does not say its units, and was taken to be in K as the pipeline's maps are",
                *done)  # fmt: skip
    return SkyMap(
        voxels.in_order(read.cube),
        voxels.freq,
        voxels.dec,
        voxels.ra,
        units=None if stated is None else text_of(stated),
        nu_rest_GHz=rest_of(said(about, "nu_rest_GHz"), "nu_rest_GHz", source, nu_rest_GHz),
        source=source,
        layout="COMAP map file" if names is TODAY else "COMAP map file of the older layout",
        notes=(*read.notes, *voxels.notes, *done),
        marks=read.marks,
        sigma=None if read.sigma is None else voxels.in_order(read.sigma),
        hits=None if read.hits is None else voxels.in_order(read.hits),
        filtered=filtered,
        pca_modes=modes,
        axes=tuple(voxels.axes),
        **voxels.place,
    )


def _voxels(file: Any, names: dict[str, str], source: str) -> Voxels:
    """Where the voxels lie, by their centres."""
    nu, dec_deg, ra_deg = (array_of(file, names[axis], source) for axis in ("freq", "dec", "ra"))
    nu = nu if nu.ndim == 2 else nu.reshape(1, -1)
    order, edges = _channels(nu, names["freq"], _step(file, "freq_edges"), source)
    freq = frequency_axis(edges)
    notes: tuple[str, ...] = ()
    if not np.array_equal(order, np.arange(nu.size)):
        notes += (f"its {nu.shape[0]} sidebands were put in the order of frequency",)
    notes += order_notes(freq)
    ra_deg, dec_deg = ra_in_order(ra_deg).reshape(-1), dec_deg.reshape(-1)
    ra_edges, dec_edges = (
        edges_of_centres(centres, names[axis], source, _step(file, f"{axis}_edges"))
        for axis, centres in (("ra", ra_deg), ("dec", dec_deg))
    )
    ra, dec, place, narrowed = sky_axes(ra_edges, dec_edges, source)
    notes += narrowed
    for axis, centres in (("freq", nu), ("ra", ra_deg), ("dec", dec_deg)):
        notes += _edges_note(file, f"{axis}_edges", centres, names[axis], source)
    axes = {"sideband": nu.shape[0], "channel": nu.shape[1], "dec": dec_deg.size, "ra": ra_deg.size}
    return Voxels(axes, order, freq, dec, ra, place, notes)


def _coadded(file: Any, name: str, source: str, axes: dict[str, int]) -> Coadded:
    """The map of all feeds together."""

    def whole(key: str) -> NDArray[Any]:
        values = array_of(file, key, source)
        values = values[None] if values.ndim == 3 else values
        check_shape(values.shape, axes, key, source)
        return values

    sigma, hits = (
        None if key is None else meant(whole(key), file[key], source)
        for key in (_first(file, known[name]) for known in (SIGMA, HITS))
    )
    cube, marks, notes = unpacked(whole(name), file[name], source)
    return Coadded(cube, sigma, hits, marks, notes)


def _feeds(file: Any, name: str, source: str, axes: dict[str, int]) -> Coadded:
    """The sum of the maps of all feeds."""
    sigma, hits = (_first(file, known[name]) for known in (SIGMA, HITS))
    if sigma is None:
        raise MapError(
            f"{source} holds a map per feed without their noise ({' or '.join(SIGMA[name])}): they "
            "cannot be summed with weights 1/sigma^2"
        )
    number = len(file[name]) if file[name].ndim else 0
    for key in (name, sigma, hits):
        if key is not None:
            check_shape(file[key].shape, {"feed": number, **axes}, key, source)
            check_numbers(np.empty(0, file[key].dtype), key, source)
            check_here(file[key])
            check_memory(file[key].size // max(number, 1) * 8 * 4, f"a feed's {key} has")
    if not number:
        raise no_feeds(source)

    def each() -> Iterator[Feed]:
        for feed in range(number):
            values, noise, seen = (
                None if key is None else meant(file[key][feed], file[key], source)
                for key in (name, sigma, hits)
            )
            yield np.asarray(values), np.asarray(noise), seen

    return sum_of_feeds(each())


def sum_of_feeds(feeds: Iterable[Feed]) -> Coadded:
    """The map, sigma and hits of several feeds together.

    Each voxel is the mean of the feeds that observed it with weights 1/sigma^2, its sigma
    1 / sqrt(sum 1/sigma^2), its hits their sum; NaN where none did.
    """
    total: Any = 0.0
    weights: Any = 0.0
    hits: Any = None
    used: list[bool] = []
    for values, sigma, seen in feeds:
        known = observed(sigma, seen, values.shape) & np.isfinite(values)
        scale = np.where(known, sigma, 1.0).astype(np.float64)
        weight = np.where(known, 1.0 / (scale * scale), 0.0)
        total = total + weight * np.where(known, values, 0.0)
        weights = weights + weight
        if seen is not None:
            kind = np.int64 if seen.dtype.kind in "iu" else np.float64
            counted = np.where(known, seen, seen.dtype.type(0)).astype(kind)
            hits = counted if hits is None else hits + counted
        used.append(bool(known.any()))
    hit = weights > 0.0
    safe = np.where(hit, weights, 1.0)
    cube = np.where(hit, total / safe, np.nan)
    noise = np.where(hit, 1.0 / np.sqrt(safe), np.nan)
    note = f"{sum(used)} of its {len(used)} feeds were summed with weights 1/sigma^2"
    return Coadded(cube, noise, hits, notes=(note,))


def _first(file: Any, names: tuple[str, ...]) -> str | None:
    """The first of the names that is a dataset."""
    return next((name for name in names if is_dataset(file, name)), None)


def _channels(
    nu: NDArray[Any], name: str, step: float | None, source: str
) -> tuple[NDArray[np.intp], Float]:
    """The order of all channels [sideband, channel] in which their frequency rises, or falls where
    that of the first is the higher one, and their edges [n + 1]. Raises MapError for a gap between
    channels, and for channels that overlap."""
    flat = nu.ravel().astype(np.float64)
    if not (flat.size and np.isfinite(flat).all() and (flat > 0.0).all()):
        raise MapError(f"{source}: {name} must be frequencies [GHz], all positive")
    falls = flat[0] > flat[-1]
    order = np.argsort(-flat if falls else flat, kind="stable")
    centres = flat[order]
    if len(centres) == 1:
        if step is None:
            raise MapError(f"{source}: {name} is one channel, and no freq_edges say its width")
        return order, edges_of_centres(centres, name, source, -step if falls else step)
    steps = np.abs(np.diff(centres))
    usual = float(np.median(steps))
    off = np.abs(steps - usual)
    k = int(np.argmax(off))
    rounding = 2.0 * float(np.spacing(nu.max())) if nu.dtype.kind == "f" else 0.0
    if usual == 0.0 or off[k] > EVEN * usual + rounding:
        what = "leave a gap" if steps[k] > usual > 0.0 else "overlap"
        raise MapError(
            f"{source}: its channels {what}: those at {centres[k]:.7g} and {centres[k + 1]:.7g} "
            f"GHz ({name}) are {1e3 * steps[k]:.6g} MHz apart, the others {1e3 * usual:.6g}"
        )
    half = 0.5 * (centres[-1] - centres[0]) / (len(centres) - 1)
    return order, np.linspace(centres[0] - half, centres[-1] + half, len(centres) + 1)


def _step(file: Any, name: str) -> float | None:
    """The step of edges where there are two alone: of one voxel, whose centre does not tell."""
    edges = _content(file, name)
    if edges is None or edges.size != 2 or edges.dtype.kind not in "iuf":
        return None
    low, high = (float(edge) for edge in edges.ravel())
    return abs(high - low) or None


def _edges_note(
    file: Any, name: str, centres: NDArray[Any], what: str, source: str
) -> tuple[str, ...]:
    """What to say where the file's own edges [..., n + 1] do not lie about its centres [..., n]."""
    if not is_dataset(file, name):
        return ()
    edges = np.asarray(ra_in_order(array_of(file, name, source)), np.float64)
    if edges.size == centres.size + len(np.atleast_2d(centres)):
        edges = edges.reshape(*centres.shape[:-1], -1)
        off = 0.5 * (edges[..., 1:] + edges[..., :-1]) - centres
        turn = np.abs((off + 180.0) % 360.0 - 180.0)  # ra may pass 0
        if turn.max() <= BETWEEN * np.median(np.abs(np.diff(edges))):
            return ()
    return (f"its {name} do not lie about its {what}, which were used",)


def _processing(file: Any, source: str) -> tuple[int | None, bool, tuple[str, ...]]:
    """PCA modes that were subtracted (`SkyMap.pca_modes`), whether the map went through the
    pipeline's filters, and what to say of what was done to it."""
    notes: tuple[str, ...] = ()
    subtracted, high_passed, leftover, pure = (
        _flag(file, name, source)
        for name in ("is_pca_subtr", "is_highpassed", "is_pca_recon", "is_simcube")
    )
    modes = None if subtracted is None else 0
    if subtracted:
        modes = _whole(file, "n_pca", source)
        if modes is None:
            modes = UNKNOWN_MODES
            notes += ("modes along frequency were subtracted, it does not say how many (n_pca)",)
    if leftover:
        notes += ("it holds the modes that PCA finds, not what is left of the sky (is_pca_recon)",)
    if high_passed:
        number = _whole(file, "mpca_highpass_Nmodes", source)
        named = "modes" if number is None else f"{number} modes"
        notes += (f"{named} of a high-pass on the sky were subtracted (is_highpassed)",)
    if _flag(file, "is_sim", source) or pure:
        notes += ("it is of a simulation" + (", without filters (is_simcube)" if pure else ""),)
    return modes, not pure, notes


def _flag(file: Any, name: str, source: str) -> bool | None:
    """Whether something is so, as a bool, a number or text, alone or in an array of one; None where
    the file does not say it."""
    value = _content(file, name)
    if value is None:
        return None
    if value.size == 1 and value.dtype.kind in "biuf" and value.item() in (0, 1):
        return bool(value.item())
    known = {"true": True, "false": False}.get(text_of(value).strip().lower())
    if known is None:
        raise MapError(f"{source}: {name} must be true or false, not {text_of(value)}")
    return known


def _whole(file: Any, name: str, source: str) -> int | None:
    """A number of something; None where the file does not say it."""
    value = _content(file, name)
    if value is None:
        return None
    found = number_of(value, name, source)
    if found < 0 or found != int(found):
        raise MapError(f"{source}: {name} = {found:g} must be a whole number")
    return int(found)


def _content(file: Any, name: str) -> NDArray[Any] | None:
    """A dataset; None where there is none, or an empty one."""
    if not is_dataset(file, name) or file[name].shape is None:
        return None
    return content_of(file[name])
