"""Maps in FITS files: a cube with a world coordinate system.

COMAP's pipeline writes a file each for temperature, noise and hits, side by side; their headers
hold its step in frequency and its rest frequency in other units than they say.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.machine.files import why_not_a_file
from streamtrain.machine.fitsfile import FitsError
from streamtrain.maps.comap import Coadded, sum_of_feeds
from streamtrain.maps.fitsimage import (
    LIGHT,
    REST,
    Image,
    Plane,
    channel_edges_GHz,
    plane_of,
    read_image,
)
from streamtrain.maps.skymap import (
    UNKNOWN_MODES,
    Axis,
    MapError,
    SkyMap,
    check_numbers,
    frequency_axis,
    narrowing_notes,
    no_feeds,
    number_of,
    order_notes,
    oriented,
    same_units,
    sky_axis,
)

Float = NDArray[np.float64]

LEAST_REST_GHZ = 1e-3
"""No line has a lower rest frequency."""
SURVEY = {
    "MAP": "Temperature",
    "NHIT": "Number of hits",
    "SIGMA_WN": "Temperature",
    "SIGNIFICANCE": "Significance",
}
"""EXTNAME and BTYPE of the images that COMAP's pipeline writes."""
LEAST_CHANNEL_GHZ = 1.5e-3
"""The pipeline's channels are of 2 MHz to 1 GHz; its header has a thousandth of that."""
TEMPERATURE = re.compile(r"_temperature(?P<ending>\.fits?(\.gz)?)$")
BESIDE = {"sigma_wn": "SIGMA_WN", "nhit": "NHIT"}
"""Files beside one called ..._temperature.fits, and the EXTNAME of their images."""
SUBTRACTED = re.compile(r"_n(\d+)_subtr")
"""How the pipeline names maps whose PCA modes were subtracted."""
SAME_PLACE = 0.01
"""How far two files' voxels may lie apart to be the same, in voxels."""


@dataclass(frozen=True)
class Placed:
    """An image and where its voxels lie."""

    cubes: NDArray[Any]
    """[feeds, n_freq, n_dec, n_ra] in the order of the axes; one feed where the file has none."""
    freq: Axis
    dec: Axis
    ra: Axis
    plane: Plane
    axes: tuple[str, ...]
    """The axes of the image in the file, in their order."""
    has_feeds: bool
    notes: tuple[str, ...]

    def locate(self, source: str) -> Any:
        """The function `locate` of a `SkyMap`."""
        middle = self.middle

        def locate(ra_deg: float, dec_deg: float) -> tuple[float, float]:
            try:
                place: NDArray[Any] = self.plane.wcs.wcs_world2pix([[ra_deg, dec_deg]], 0)[0]
            except Exception:  # wcslib has many of its own
                place = np.array([np.nan, np.nan])
            if not np.isfinite(place).all():
                raise MapError(f"{source}: ({ra_deg:g}, {dec_deg:g}) deg is not on the map")
            x, y = place[::-1] if self.plane.swapped else place
            east, north = (x - middle[0]) * self.ra.step, (y - middle[1]) * self.dec.step
            return (-east if self.ra.flipped else east, -north if self.dec.flipped else north)

        return locate

    @property
    def middle(self) -> tuple[float, float]:
        """The middle in pixels along ra and dec, from 0."""
        num_dec, num_ra = self.cubes.shape[2:]
        return (num_ra - 1) / 2.0, (num_dec - 1) / 2.0

    @property
    def native_ends_deg(self) -> tuple[float, float]:
        """The projection's own latitudes [deg] of the ends along dec; in CAR without CRVAL2 they
        are dec."""
        middle, num_dec = self.middle[0], self.cubes.shape[2]
        ends = [(middle, place) for place in (-0.5, num_dec - 0.5)]
        places = [end[::-1] for end in ends] if self.plane.swapped else ends
        low, high = sorted(self.plane.wcs.wcs.p2s(places, 0)["theta"])
        return float(low), float(high)

    @property
    def centre_deg(self) -> tuple[float, float]:
        """(ra, dec) [deg] of the middle."""
        middle = self.middle[::-1] if self.plane.swapped else self.middle
        ra, dec = self.plane.wcs.wcs_pix2world([middle], 0)[0]
        return round(float(ra), 9) % 360.0, float(dec)


def read_fits(
    path: Path,
    hdu: str | None = None,
    nu_rest_GHz: float | None = None,
    sum_feeds: bool = False,
) -> SkyMap:
    """The image cube of a FITS file, whatever the order of its axes, and for ..._temperature.fits
    what ..._sigma_wn.fits and ..._nhit.fits beside it say.

    hdu: which, by number or EXTNAME, where there are several and none is called MAP; nu_rest_GHz:
    of the line instead of RESTFRQ, for channels in velocities; sum_feeds: sum the feeds of a file
    with one map each, with weights 1/sigma^2. Raises MapError, one sentence.
    """
    source = str(path)
    try:
        image = read_image(path, 3, "MAP", hdu)
        check_numbers(image.values, "its image", source)
        return _read(image, path, nu_rest_GHz, sum_feeds)
    except FitsError as error:
        raise MapError(f"{source}: {error}") from None


def _read(image: Image, path: Path, nu_rest_GHz: float | None, sum_feeds: bool) -> SkyMap:
    source = str(path)
    rest = _rest(image, source, nu_rest_GHz)
    placed = _placed(image, source, nu_rest_GHz)
    if placed.has_feeds and not sum_feeds:
        raise MapError(
            f"{source} holds {len(placed.cubes)} maps, one per feed: --sum-feeds adds them up with "
            "weights 1/sigma^2"
        )
    if sum_feeds and not placed.has_feeds:
        raise no_feeds(source)
    units = str(image.header["BUNIT"]).strip() if image.header.get("BUNIT") else None
    sigma, hits, notes = _beside(path, placed, units, nu_rest_GHz)
    if placed.has_feeds:
        if sigma is None:
            raise MapError(
                f"{source} holds a map per feed, and no ..._sigma_wn.fits lies beside it: they "
                "cannot be summed with weights 1/sigma^2"
            )
        seen = [None] * len(sigma) if hits is None else list(hits)
        summed = sum_of_feeds(zip(placed.cubes, sigma, seen, strict=True))
        notes += summed.notes
    else:
        summed = Coadded(
            placed.cubes[0],
            None if sigma is None else sigma[0],
            None if hits is None else hits[0],
        )
    if str(placed.plane.wcs.wcs.ctype[0]).endswith("CAR"):  # equal steps in its own longitude
        notes += narrowing_notes(*placed.native_ends_deg)
    survey = _is_survey(image)
    modes, filtered, done = _processing(image, path) if survey else (None, None, ())
    return SkyMap(
        summed.cube,
        placed.freq,
        placed.dec,
        placed.ra,
        units=units,
        nu_rest_GHz=rest,
        source=source,
        layout="FITS of COMAP's pipeline" if survey else "FITS",
        notes=(*placed.notes, *notes, *done),
        locate=placed.locate(source),
        sigma=summed.sigma,
        hits=summed.hits,
        filtered=filtered,
        pca_modes=modes,
        axes=placed.axes,
        centre_deg=placed.centre_deg,
    )


def _placed(image: Image, source: str, nu_rest_GHz: float | None) -> Placed:
    plane = plane_of(image)
    nu, nu_axis, kind = channel_edges_GHz(image, nu_rest_GHz)
    axes = (nu_axis, plane.dec_axis, plane.ra_axis)
    shape, types = image.values.shape, image.types.split(", ")[::-1]
    names = dict(zip(axes, ("freq", "dec", "ra"), strict=True))
    others = [k for k in range(image.values.ndim) if k not in axes]
    several = [k for k in others if shape[k] != 1]
    feeds = several if [types[k] for k in several] == ["FEED"] else []
    if several and not feeds:
        told = ", ".join(types[k] for k in several)
        raise MapError(f"{source}: its further axes ({told}) must have one plane each")
    flat = [k for k in others if k not in feeds]
    cubes = image.values.transpose(*flat, *feeds, *axes)[(0,) * len(flat)]
    cubes = cubes if feeds else cubes[None]
    nu, notes = _survey_channels(image, nu, kind)
    freq = frequency_axis(nu)
    dec = _side(plane.height_deg, cubes.shape[2], plane.dec_falls)
    ra = _side(plane.width_deg, cubes.shape[3], plane.ra_falls)
    notes = (*image.notes, *notes, *order_notes(freq))
    if not kind.startswith("FREQ"):
        notes += (f"its channels are in {kind} and were turned into frequencies",)
    return Placed(
        np.stack([oriented(cube, freq, dec, ra) for cube in cubes]),
        freq,
        dec,
        ra,
        plane,
        tuple(names.get(k, types[k].lower()) for k in range(len(shape))),
        bool(feeds),
        (*notes, *plane.notes),
    )


def _side(width_deg: float, number: int, falls: bool) -> Axis:
    edges = np.linspace(-0.5 * width_deg, 0.5 * width_deg, number + 1)
    return sky_axis(-edges if falls else edges)


def _rest(image: Image, source: str, given_GHz: float | None) -> float | None:
    """Rest frequency [GHz] of the header, also from RESTWAV; what is no number there is no matter
    if one is given."""
    for key in REST:
        value = image.header.get(key)
        if value in (None, "", 0) or (given_GHz is not None and isinstance(value, str)):
            continue
        found = number_of(value, key, source) / 1e9
        if not found > 0.0:
            raise MapError(f"{source}: {key} = {value} must be positive")
        if found < LEAST_REST_GHZ and given_GHz is None:
            raise MapError(
                f"{source}: {key} = {value} Hz is below that of any line (GHz in a keyword of "
                "Hz?): --nu-rest-GHz says what it is"
            )
        return found
    wavelength = float(image.header.get("RESTWAV", 0.0) or 0.0)
    return LIGHT / wavelength / 1e9 if wavelength > 0.0 else None


def _is_survey(image: Image) -> bool:
    """Whether COMAP's pipeline wrote an image."""
    name, kind = (str(image.header.get(key, "")).strip() for key in ("EXTNAME", "BTYPE"))
    return SURVEY.get(name) == kind or "ISPCASBR" in image.primary


def _survey_channels(image: Image, nu: Float, kind: str) -> tuple[Float, tuple[str, ...]]:
    """Edges of channels [GHz], those of COMAP's pipeline as they are meant, and what to say of
    these: it writes steps in GHz times 1e6 into a keyword of Hz."""
    width = abs(float(nu[1] - nu[0]))
    if not (_is_survey(image) and kind == "FREQ" and width < LEAST_CHANNEL_GHZ):
        return nu, ()
    first = 0.5 * (nu[0] + nu[1])
    note = (
        f"its header has channels of {1e6 * width:.6g} kHz, 1000 times less than the pipeline's, "
        f"which were taken to be of {1e6 * width:.6g} MHz"
    )
    return first + 1e3 * (nu - first), (note,)


def _processing(image: Image, path: Path) -> tuple[int | None, bool, tuple[str, ...]]:
    """PCA modes that were subtracted (`SkyMap.pca_modes`), whether the map went through the
    pipeline's filters, and what to say of what was done to it."""
    header, notes = image.primary, ["it was taken to be a map of COMAP's pipeline"]
    named = SUBTRACTED.search(path.name) or SUBTRACTED.search(path.resolve().parent.name)
    modes = 0 if header.get("ISPCASBR") is False else None
    if modes is None and named:
        modes = int(named[1])
        notes.append(f"{modes} modes along frequency were subtracted, as its name says")
    elif modes is None and header.get("ISPCASBR"):
        modes = UNKNOWN_MODES
        notes.append("modes along frequency were subtracted, it does not say how many")
    pure = bool(header.get("ISCUBE"))
    if pure or header.get("ISSIM"):
        notes.append("it is of a simulation" + (", without filters (ISCUBE)" if pure else ""))
    return modes, not pure, tuple(notes)


def _beside(
    path: Path, placed: Placed, units: str | None, nu_rest_GHz: float | None
) -> tuple[NDArray[Any] | None, NDArray[Any] | None, tuple[str, ...]]:
    """Sigma and hits [feeds, n_freq, n_dec, n_ra] of the files beside one of temperatures, and what
    to say of these. Raises MapError for one whose voxels or units differ."""
    ending = TEMPERATURE.search(path.name)
    found: list[NDArray[Any] | None] = []
    names = []
    for what, extension in BESIDE.items():
        name = "" if ending is None else f"{path.name[: ending.start()]}_{what}{ending['ending']}"
        other = path.with_name(name) if name else path
        if not name or not other.exists():
            found.append(None)
            continue
        if problem := why_not_a_file(other):
            raise MapError(f"{path}: {name} beside it: {problem}")
        try:
            image = read_image(other, 3, extension)
            check_numbers(image.values, "its image", name)
            beside = _placed(image, f"{path}: {name}", nu_rest_GHz)
        except FitsError as error:
            raise MapError(f"{path}: {name} beside it {error}") from None
        _check_same(placed, beside, f"{path}: {name} beside it")
        stated = str(image.header.get("BUNIT") or units or "").strip()
        if what == "sigma_wn" and not same_units(stated, units or stated):
            raise MapError(f"{path}: {name} beside it is in {stated}, not in {units}")
        found.append(beside.cubes)
        names.append(name)
    sigma, hits = found
    told = (f"{' and '.join(names)} beside it were read, too",) if names else ()
    return sigma, hits, told


def _check_same(one: Placed, other: Placed, where: str) -> None:
    """Raise MapError, a sentence that begins with `where`, if another file has other voxels."""
    if one.cubes.shape != other.cubes.shape:
        theirs, ours = (" x ".join(map(str, placed.cubes.shape)) for placed in (other, one))
        raise MapError(f"{where} has {theirs} voxels (feed, freq, dec, ra), not {ours}")
    for name in ("freq", "dec", "ra"):
        axes: tuple[Axis, Axis] = (getattr(one, name), getattr(other, name))
        if np.abs(axes[0].edges - axes[1].edges).max() > SAME_PLACE * axes[0].step:
            raise MapError(f"{where} has other voxels along {name}")
    east, north = one.locate(where)(*other.centre_deg)
    if max(abs(east) / one.ra.step, abs(north) / one.dec.step) > SAME_PLACE:
        middles = ("({:.6g}, {:.6g})".format(*placed.centre_deg) for placed in (other, one))
        raise MapError(f"{where} is of a field about {next(middles)} deg, not {next(middles)}")
