"""The halos of a lightcone as arrays: what they must be, how they are sorted, their digest.

Frame: observer at the origin, line of sight +z, comoving Mpc (not Mpc/h), Msun (not Msun/h).
On the sky ra = atan2(-x, z) and dec = asin(y / chi) [deg], as in limlam_mocker. Rows are sorted by
sky tiles (dec rows first, then ra; stable), so a field touches few of them, and a halo's row number
is its identity for the random numbers of every sample.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from streamtrain.arguments import given_numbers, little_h, numbers
from streamtrain.catalogs.headers import FORMAT, FORMAT_VERSION, CatalogError, Header, marks_of
from streamtrain.cosmology import C_KMS, MAX_REDSHIFT, Cosmology

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
TILE_DEG = 0.05
"""Side of a tile. A field of 1.4 deg reads about 8 to 14 % more halos than it holds, depending on
how it is turned; a file keeps the tiles that it was made with."""
ROUNDING_DEG = 1e-5
"""How far outside its footprint float32 rounding may put a halo."""
CORE = ("x_Mpc", "y_Mpc", "z_Mpc", "mass_Msun", "z_obs")
_UNITS = {"x_Mpc": "Mpc", "y_Mpc": "Mpc", "z_Mpc": "Mpc", "mass_Msun": "Msun", "z_obs": "",
          "velocities_kms": "km/s", "column 'sfr'": "Msun/yr"}  # fmt: skip
"""Units as astropy writes them. The unit of any other column is known to the user's model alone."""
HALO_MASSES = (1e4, 1e17)
"""No catalog has halos outside [Msun]."""
HEAVIEST = 1e6
"""The least that the heaviest halo of a catalog can have [Msun]."""
MAX_SHIFT_KMS = 3000.0
"""Largest credible median of c |z_obs - z(chi)| / (1 + z): peculiar motion is a tenth of it."""


@dataclass(frozen=True, eq=False, repr=False)
class Rows:
    """The halos of a lightcone and what it says of itself; its arrays are read-only."""

    x_Mpc: Float32
    """Comoving position [n], with y_Mpc and z_Mpc."""
    y_Mpc: Float32
    z_Mpc: Float32
    mass_Msun: Float32
    """Masses of the halos [n], in Msun without h."""
    z_obs: Float32
    """Observed redshift [n], peculiar velocity included."""
    columns: dict[str, Float32]
    """Further numbers per halo [n] that a luminosity model can name, e.g. "sfr" [Msun/yr]."""
    velocities_kms: Float32 | None
    """Proper peculiar velocity [n, 3] [km/s], or None."""
    cosmology: dict[str, float]
    """Omega_m, Omega_b, h, n_s, sigma8; flat."""
    footprint_deg: tuple[float, float, float, float]
    """ra_min, ra_max, dec_min, dec_max."""
    z_range: tuple[float, float]
    """The redshifts between which the lightcone is filled."""
    min_mass_Msun: float
    """The mass above which it is complete."""
    realisation: str
    """Name of the simulated sky: two cuts of one sky share it, two splits must not."""
    provenance: str
    """Where the halos come from: program, parameters, source file."""
    tile_shape: tuple[int, int]
    """Number of tiles (n_dec, n_ra)."""
    tile_offsets: NDArray[np.int64]
    """First row of every tile [n_tiles + 1]; tile = dec row * n_ra + ra column."""
    digest: str
    """sha256 over arrays, cosmology and footprint; the file's layout does not enter."""
    path: Path | None = None
    """The file it was read from."""
    tile_deg: float = TILE_DEG
    """Side of a tile."""
    called: str = ""
    """A name instead of the file's, where that is not its alone (see `LightconeFiles`)."""

    def __len__(self) -> int:
        return len(self.mass_Msun)

    @property
    def name(self) -> str:
        """The file's name, or the realisation of a lightcone in memory."""
        return self.called or (self.path.name if self.path else self.realisation)

    @cached_property
    def header(self) -> Header:
        """What it says of itself without its halos."""
        shared = {field.name for field in fields(Header)} & {field.name for field in fields(Rows)}
        return Header(
            **{name: getattr(self, name) for name in shared},
            num_halos=len(self),
            numbers_per_halo=5 + len(self.columns) + 3 * (self.velocities_kms is not None),
            marks=marks_of(self.mass_Msun, self.z_obs),
        )

    def __repr__(self) -> str:
        ra_min, ra_max, dec_min, dec_max = self.footprint_deg
        return (
            f"<Lightcone {self.realisation}: {len(self)} halos above {self.min_mass_Msun:.3g} "
            f"Msun, z = {self.z_range[0]:.3g}..{self.z_range[1]:.3g}, {ra_max - ra_min:.3g} x "
            f"{dec_max - dec_min:.3g} deg, {self.path or 'in memory'}>"
        )


def sky_angles_deg(x: ArrayLike, y: ArrayLike, z: ArrayLike) -> tuple[Float64, Float64]:
    """ra and dec [deg] of positions in any unit of length, in float64."""
    x, y, z = (np.asarray(a, np.float64) for a in (x, y, z))
    chi = np.sqrt(x * x + y * y + z * z)
    return np.degrees(np.arctan2(-x, z)), np.degrees(np.arcsin(y / chi))


def tile_shape(footprint_deg: Sequence[float], tile_deg: float = TILE_DEG) -> tuple[int, int]:
    """Number of tiles (n_dec, n_ra) that cover a footprint (ra_min, ra_max, dec_min, dec_max)."""
    if not 0.0 < tile_deg < np.inf:
        raise CatalogError(f"tile_deg must be positive and finite, got {tile_deg}")
    ra_min, ra_max, dec_min, dec_max = footprint_deg
    n_dec, n_ra = (
        max(1, int(np.ceil(round(width / tile_deg, 9))))
        for width in (dec_max - dec_min, ra_max - ra_min)
    )
    return n_dec, n_ra


def tile_numbers(
    ra: Float64,
    dec: Float64,
    footprint: Sequence[float],
    shape: tuple[int, int],
    tile_deg: float,
) -> NDArray[Any]:
    """The tile of every halo [n], dec row * n_ra + ra column, in as few bits as hold it; halos
    outside the footprint are in the tile next to them."""
    n_dec, n_ra = shape
    column = np.clip(np.floor((ra - footprint[0]) / tile_deg), 0, n_ra - 1).astype(np.int64)
    row = np.clip(np.floor((dec - footprint[2]) / tile_deg), 0, n_dec - 1).astype(np.int64)
    tile = row * n_ra + column
    return tile.astype(np.uint16) if n_dec * n_ra <= 65536 else tile  # uint16: a radix sort


def in_float32(name: str, values: ArrayLike) -> Float32:
    """Numbers as a contiguous float32 array. Raises CatalogError, which calls them `name`."""
    try:
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(values, np.float32)
    except (TypeError, ValueError) as error:
        raise CatalogError(f"{name} is not an array of numbers ({error})") from error


def given_halos(
    halos: Mapping[str, Any],
    columns: Mapping[str, Any] | None,
    velocities_kms: Any,
    h: float,
    sure_of_mass: bool,
) -> tuple[dict[str, Float32], dict[str, Float32], Float32 | None]:
    """Halos, columns and velocities as a caller gives them, in float32."""
    if not isinstance(columns, Mapping | None):
        raise CatalogError(f"columns must be a mapping of arrays, not {type(columns).__name__}")
    further = {f"column '{name}'": a for name, a in (columns or {}).items()}
    velocity = {} if velocities_kms is None else {"velocities_kms": velocities_kms}
    every = {**halos, **further, **velocity}
    _check_same_rows(every)
    found = {name: _in_float32(name, a, h, sure_of_mass) for name, a in every.items()}
    return (
        {name: found[name] for name in halos},
        {name: found[f"column '{name}'"] for name in columns or {}},
        found.get("velocities_kms"),
    )


def _check_same_rows(arrays: Mapping[str, Any]) -> None:
    """Refuse columns of pandas whose rows are in different orders: they are read by place."""
    first = ""
    for name, array in arrays.items():
        if hasattr(getattr(array, "index", None), "equals"):
            first = first or name
            if not arrays[first].index.equals(array.index):
                raise CatalogError(
                    f"{name} has another index than {first}: bring the rows into one order, or "
                    "pass .to_numpy()"
                )


def _in_float32(name: str, values: Any, h: float, sure_of_mass: bool) -> Float32:
    try:
        given = given_numbers(values, name)
        array = given.to(_UNITS.get(name, ""), little_h(given, h))
    except ValueError as error:
        raise CatalogError(str(error)) from None
    if given.num_masked:
        raise CatalogError(
            f"{name} has {given.num_masked} masked entries of {given.values.size}: leave these "
            "halos out of all arrays, or fill them in"
        )
    if name == "mass_Msun" and not sure_of_mass and array.size and np.isfinite(array).all():
        problem = mass_problem(array.ravel())  # kg overflow in float32
        if problem:
            raise CatalogError(
                f"{problem} (from_arrays takes Msun, or an astropy Quantity, which is converted; "
                "if they are right, sure_of_mass=True)"
            )
    return in_float32(name, array)


def plain_numbers(values: Any, name: str, form: str, unit: str = "") -> tuple[float, ...]:
    """Numbers that may have units of astropy, as `numbers` takes them. Raises CatalogError."""
    try:
        return numbers(values, name, form, unit)
    except ValueError as error:
        raise CatalogError(str(error)) from None


def read_only(arrays: dict[str, Any]) -> dict[str, Any]:
    """Forbid writing into these arrays, and return them."""
    for array in arrays.values():
        array.flags.writeable = False
    return arrays


def check_halos(
    halos: dict[str, Float32], columns: dict[str, Float32], velocity: Float32 | None
) -> None:
    """Raise CatalogError for arrays of different lengths, and for a number that no halo has."""
    size = halos["x_Mpc"].size
    named = halos | {f"column '{name}'": a for name, a in columns.items()}
    for name, array in named.items():
        if array.shape != (size,):
            raise CatalogError(
                f"arrays of different shape: x_Mpc has {size} halos, {name} has shape {array.shape}"
            )
    for name in columns:
        if not name.isidentifier() or name in CORE:
            raise CatalogError(f"'{name}' cannot name a column: use a new name like 'sfr'")
    if velocity is not None:
        if velocity.shape != (size, 3):
            raise CatalogError(
                f"velocities_kms must have shape ({size}, 3), one row per halo, "
                f"but has shape {velocity.shape}"
            )
        named = named | {"velocities_kms": velocity}
    if size == 0:
        raise CatalogError("the lightcone holds no halo")
    for name, array in named.items():
        _refuse(name, array, ~np.isfinite(array), "every number must be finite (in float32)")
    mass, depth, z_obs = halos["mass_Msun"], halos["z_Mpc"], halos["z_obs"]
    _refuse("mass_Msun", mass, mass <= 0, "masses must be positive")
    _refuse("z_Mpc", depth, depth <= 0, "at or behind the observer; the line of sight is +z")
    _refuse("z_obs", z_obs, z_obs <= -1, "redshifts must be above -1")


def check_rates(columns: dict[str, Float32]) -> None:
    """Raise CatalogError for star-formation rates that are logarithms. (One and the same negative
    number is a mark, which matters if its halos are painted; a file may hold whatever no model
    reads.)"""
    rates = columns.get("sfr", np.zeros(0, np.float32))
    if len(np.unique(rates[rates < 0])) > 1:
        rule = "rates [Msun/yr] must not be negative: are they logarithms?"
        _refuse("column 'sfr'", rates, rates < 0, rule)


def _refuse(name: str, array: Float32, bad: NDArray[np.bool_], rule: str) -> None:
    if bad.any():
        first = tuple(np.argwhere(bad)[0])
        raise CatalogError(
            f"{name} = {array[first]:.7g} at row {first[0]} ({np.count_nonzero(bad)} such values): "
            f"{rule}"
        )


def checked_cosmology(cosmology: Mapping[str, float]) -> dict[str, float]:
    """The five parameters of a cosmology as floats. Raises CatalogError."""
    if not isinstance(cosmology, Mapping):
        raise CatalogError(
            "cosmology must be a mapping with Omega_m, Omega_b, h, n_s and sigma8, not "
            f"{type(cosmology).__name__}"
        )
    try:
        return Cosmology.from_dict(cosmology).to_dict()
    except ValueError as error:
        raise CatalogError(str(error)) from error


def checked_footprint(
    footprint: Sequence[float] | None, ra: Float64, dec: Float64
) -> tuple[float, float, float, float]:
    """A footprint [deg] that holds halos at ra and dec [n] [deg]; by default their bounding box.
    Raises CatalogError."""
    if footprint is None:
        return float(ra.min()), float(ra.max()), float(dec.min()), float(dec.max())
    ra_min, ra_max, dec_min, dec_max = plain_numbers(
        footprint, "footprint_deg", "(ra_min, ra_max, dec_min, dec_max)", "deg"
    )
    if not (-90.0 <= ra_min < ra_max <= 90.0 and -90.0 <= dec_min < dec_max <= 90.0):
        raise CatalogError(
            "footprint_deg must be (ra_min, ra_max, dec_min, dec_max), increasing and within "
            f"-90..90 deg, got {tuple(footprint)}"
        )
    outside = np.maximum(
        np.maximum(ra_min - ra, ra - ra_max), np.maximum(dec_min - dec, dec - dec_max)
    )
    if outside.max() > ROUNDING_DEG:
        row = int(outside.argmax())
        raise CatalogError(
            f"{np.count_nonzero(outside > ROUNDING_DEG)} halos lie outside footprint_deg "
            f"{(ra_min, ra_max, dec_min, dec_max)}, the farthest at row {row}: "
            f"ra = {ra[row]:.6g}, dec = {dec[row]:.6g} deg"
        )
    return ra_min, ra_max, dec_min, dec_max


def digest_of(
    halos: dict[str, Float32],
    columns: dict[str, Float32],
    velocity: Float32 | None,
    offsets: NDArray[np.int64],
    cosmology: Mapping[str, float],
    footprint: Sequence[float],
) -> str:
    """sha256 [hex] over little-endian arrays with their names and shapes, cosmology, footprint."""
    arrays: dict[str, NDArray[Any]] = {name: halos[name] for name in CORE}
    arrays |= {f"columns/{name}": columns[name] for name in sorted(columns)}
    arrays |= {} if velocity is None else {"velocities_kms": velocity}
    arrays |= {"tile_offsets": offsets}
    total = hashlib.sha256(f"{FORMAT} {FORMAT_VERSION}\n".encode())
    for name, array in arrays.items():
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        total.update(f"{name} {little.dtype.str} {little.shape}\n".encode())
        total.update(little.data)
    numbers = [f"{key}={float(cosmology[key]).hex()}" for key in sorted(cosmology)]
    numbers += [float(edge).hex() for edge in footprint]
    total.update("\n".join(numbers).encode())
    return total.hexdigest()


def distance_problem(
    halos: Mapping[str, NDArray[np.float32]], cosmology: Mapping[str, float]
) -> str | None:
    """A sentence if z_obs is not the redshift of the halos' distance, else None.

    `halos` has x_Mpc, y_Mpc, z_Mpc and z_obs, each of shape [n]. At most 1e5 rows are looked at.
    """
    step = max(1, len(halos["z_obs"]) // 100_000)
    x, y, z = (halos[name][::step].astype(np.float64) for name in ("x_Mpc", "y_Mpc", "z_Mpc"))
    z_obs = halos["z_obs"][::step].astype(np.float64)
    model = Cosmology.from_dict(cosmology)
    farthest = float(model.comoving_distance(MAX_REDSHIFT))
    chi = np.sqrt(x * x + y * y + z * z)
    z_chi = model.redshift(np.minimum(chi, 0.999 * farthest))
    shift = np.median(C_KMS * np.abs(z_obs - z_chi) / (1.0 + z_chi))
    if shift <= MAX_SHIFT_KMS:
        return None
    near = np.maximum(model.comoving_distance(np.clip(z_obs, 0.0, MAX_REDSHIFT)), 1e-9)
    ratio, h = float(np.median(chi / near)), model.h
    guesses = {
        h: "the positions are probably in Mpc/h instead of Mpc",
        1.0 / h: "the positions were probably divided by h once too often",
        1e3: "the positions are probably in kpc instead of Mpc",
        1e3 * h: "the positions are probably in kpc/h instead of Mpc",
    }
    closest = min(guesses, key=lambda guess: abs(np.log(ratio / guess)))
    cause = (
        "they belong to another cosmology, z_obs is not the redshift of these halos, or the "
        "observer is not at the origin (catalog import --observer)"
    )
    if abs(np.log(ratio / closest)) < 0.03:
        cause = guesses[closest]
    return (
        f"z_obs disagrees with the positions: at the median distance {np.median(chi):.6g} Mpc the "
        f"cosmology gives z = {np.median(z_chi):.4g}, but z_obs is {np.median(z_obs):.4g} "
        f"(distances are {ratio:.4g} times chi(z_obs)); {cause}"
    )


def mass_problem(mass_Msun: NDArray[np.floating[Any]]) -> str | None:
    """A sentence if masses [n] above 0 cannot be halos' masses in Msun, else None."""
    row = int(np.argmin(mass_Msun))
    low, high = float(mass_Msun[row]), float(mass_Msun.max())
    runs = f"masses run from {low:.6g} to {high:.6g} Msun: this looks like"
    if not low > 0.0:
        return None
    if low >= 5.0 and high <= 17.0:
        return f"{runs} log10 of masses (unit log10 Msun), or like masses in 1e10 Msun"
    if low >= 11.5 and high <= 40.0:
        return f"{runs} the natural logarithm of masses, or like masses in 1e10 Msun"
    if high < HEAVIEST:
        return f"{runs} masses in 1e10 Msun"
    if low < HALO_MASSES[1] < high:
        row = int(np.argmax(mass_Msun))
        return f"mass = {high:.6g} Msun at row {row}, no halo's mass: a missing value?"
    if high > HALO_MASSES[1]:
        return f"{runs} masses in {'Msun taken for 1e10 Msun' if high < 1e27 else 'g or kg'}"
    if low < HALO_MASSES[0]:
        return f"mass = {low:.6g} Msun at row {row}, no halo's mass: a missing value?"
    return None
