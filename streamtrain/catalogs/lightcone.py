"""A halo lightcone: what every sample is painted from, in memory and as one HDF5 file.

Frame: observer at the origin, line of sight +z, comoving Mpc (not Mpc/h), Msun (not Msun/h).
On the sky ra = atan2(-x, z) and dec = asin(y / chi) [deg], as in limlam_mocker. Rows are sorted by
sky tiles (dec rows first, then ra; stable), so a field touches few of them, and a halo's row number
is its identity for the random numbers of every sample.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from streamtrain.catalogs import info as lightcone_info
from streamtrain.catalogs import seal
from streamtrain.catalogs.about import FORMAT, FORMAT_VERSION, CatalogError, read_about
from streamtrain.cosmology import Cosmology
from streamtrain.files import one_line, reading, reserve, writing
from streamtrain.given import given_numbers, little_h, numbers
from streamtrain.hdf5file import content_of, dataset_of, group_of, holds
from streamtrain.resources import find_shipped

__all__ = ["CatalogError", "Lightcone", "sky_angles_deg", "tile_shape"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

TILE_DEG = 0.05
"""Side of a tile. A field of 1.4 deg reads about 8 to 14 % more halos than it holds, depending on
how it is turned; a file keeps the tiles that it was made with."""
ROUNDING_DEG = 1e-5
"""How far outside its footprint float32 rounding may put a halo."""
_REST = 200_000
"""Bytes of a file beside its arrays, at most."""
_CORE = ("x_Mpc", "y_Mpc", "z_Mpc", "mass_Msun", "z_obs")


@dataclass(frozen=True, eq=False, repr=False)
class Lightcone:
    """Halos seen by one observer. Made by `from_arrays` and `open`; its arrays are read-only."""

    x_Mpc: Float32
    """Comoving position [n], with y_Mpc and z_Mpc."""
    y_Mpc: Float32
    z_Mpc: Float32
    mass_Msun: Float32
    """Halo mass [n]."""
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

    @classmethod
    def from_arrays(
        cls,
        x_Mpc: ArrayLike,
        y_Mpc: ArrayLike,
        z_Mpc: ArrayLike,
        mass_Msun: ArrayLike,
        z_obs: ArrayLike,
        *,
        cosmology: Mapping[str, float],
        velocities_kms: ArrayLike | None = None,
        columns: Mapping[str, ArrayLike] | None = None,
        provenance: str = "",
        footprint_deg: Sequence[float] | None = None,
        z_range: Sequence[float] | None = None,
        min_mass_Msun: float | None = None,
        realisation: str | None = None,
        tile_deg: float = TILE_DEG,
        sure_of_mass: bool = False,
    ) -> Lightcone:
        """Check the halos, sort them by sky tile and keep them as float32.

        Arrays have shape [n], `velocities_kms` [n, 3], in the units of the attributes or with a
        unit of astropy, which is converted (with the h of `cosmology`); those with masked entries
        are refused. Of pandas, the rows must have one order. Masses that look like logarithms, 1e10
        Msun or kg are refused unless you are `sure_of_mass`. Defaults: the footprint is the halos'
        bounding box, `z_range` their extremes, `min_mass_Msun` the float32 below the lightest
        (painted are halos above the limit), `realisation` the start of the digest. Raises
        `CatalogError`.
        """
        parameters = _checked_cosmology(cosmology)
        given = {"x_Mpc": x_Mpc, "y_Mpc": y_Mpc, "z_Mpc": z_Mpc, "mass_Msun": mass_Msun}
        halos, extra, velocity = _given_halos(
            given | {"z_obs": z_obs}, columns, velocities_kms, parameters["h"], sure_of_mass
        )
        _check_halos(halos, extra, velocity)
        if problem := lightcone_info.distance_problem(halos, parameters):
            raise CatalogError(problem)

        ra, dec = sky_angles_deg(halos["x_Mpc"], halos["y_Mpc"], halos["z_Mpc"])
        footprint = _checked_footprint(footprint_deg, ra, dec)
        shape = tile_shape(footprint, tile_deg)
        tile = _tile_numbers(ra, dec, footprint, shape, tile_deg)
        order = np.argsort(tile, kind="stable")
        counts = np.bincount(tile, minlength=shape[0] * shape[1])
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        halos = {name: a[order] for name, a in halos.items()}
        extra = {name: a[order] for name, a in extra.items()}
        velocity = None if velocity is None else velocity[order]

        digest = _digest(halos, extra, velocity, offsets, parameters, footprint)
        seen = (halos["z_obs"].min(), halos["z_obs"].max())
        z_low, z_high = seen if z_range is None else _numbers(z_range, "z_range", "(low, high)")
        if not -1.0 < z_low <= z_high < np.inf:
            raise CatalogError(f"z_range must be (low, high) with -1 < low <= high, got {z_range}")
        limit = float(np.nextafter(halos["mass_Msun"].min(), np.float32(0)))
        if min_mass_Msun is not None:
            limit = _numbers([min_mass_Msun], "min_mass_Msun", "a number", "Msun")[0]
        if realisation is not None and not (realisation and realisation.isprintable()):
            raise CatalogError(f"realisation must be one line of text, not {realisation!r}")
        if not 0.0 < limit < np.inf:
            raise CatalogError(f"min_mass_Msun must be positive and finite, got {min_mass_Msun}")
        return cls(
            **_read_only(halos),
            columns=_read_only(extra),
            velocities_kms=None if velocity is None else _read_only({"v": velocity})["v"],
            cosmology=parameters,
            footprint_deg=footprint,
            z_range=(float(z_low), float(z_high)),
            min_mass_Msun=limit,
            realisation=realisation or f"sha256-{digest[:16]}",
            provenance=provenance.replace("\0", "?").encode(errors="backslashreplace").decode(),
            tile_shape=shape,
            tile_offsets=_read_only({"offsets": offsets})["offsets"],
            digest=digest,
            tile_deg=tile_deg,
        )

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Lightcone:
        """Read a lightcone file; every row is checked against the digest that it carries.

        `configs/reference_0000.h5` also finds the file that ships with streamtrain, from any
        folder. Raises `CatalogError` for a file that is missing, truncated, damaged, not a
        lightcone, or of an unknown format version.
        """
        path = find_shipped(Path(path))
        with reading(path, CatalogError, "truncated or damaged lightcone file"):
            if not h5py.is_hdf5(path):
                raise CatalogError("not an HDF5 file, so not a streamtrain lightcone")
            with h5py.File(path, "r") as file:
                return cls._from_file(file, path)

    @classmethod
    def _from_file(cls, file: h5py.File, path: Path) -> Lightcone:
        about = read_about(file)
        halos = {name: _column(name, file, f"halos/{name}") for name in _CORE}
        extra = {name: _column(name, file, f"columns/{name}") for name in group_of(file, "columns")}
        velocity = None
        if holds(file, "halos/velocities_kms"):
            velocity = _column("velocities_kms", file, "halos/velocities_kms")
        offsets = _offsets(file, len(halos["x_Mpc"]))
        _check_halos(halos, extra, velocity)
        cosmology, footprint = about.cosmology, about.footprint_deg
        digest = _digest(halos, extra, velocity, offsets, cosmology, footprint)
        if digest != about.digest:
            raise CatalogError(
                f"damaged or edited lightcone file: its content has the digest {digest[:16]}, "
                f"the file says {one_line(about.digest)[:16]}"
            )
        shape = tile_shape(footprint, about.tile_deg)
        if len(offsets) != shape[0] * shape[1] + 1:
            raise CatalogError(
                f"tile_offsets has {len(offsets)} entries, but {shape[0]} x {shape[1]} tiles of "
                f"{about.tile_deg:g} deg cover the footprint"
            )
        if shape != about.tile_shape:
            raise CatalogError(f"tile_shape = {about.tile_shape} is not that of its tiles, {shape}")
        found = cls(
            **_read_only(halos),
            columns=_read_only(extra),
            velocities_kms=None if velocity is None else _read_only({"v": velocity})["v"],
            cosmology=cosmology,
            footprint_deg=footprint,
            z_range=about.z_range,
            min_mass_Msun=about.min_mass_Msun,
            realisation=about.realisation,
            provenance=about.provenance,
            tile_shape=shape,
            tile_offsets=_read_only({"offsets": offsets})["offsets"],
            digest=digest,
            path=path,
            tile_deg=about.tile_deg,
        )
        if not about.sealed:
            places = sky_angles_deg(found.x_Mpc, found.y_Mpc, found.z_Mpc)
            if problem := seal.inconsistency(found, *places):
                raise CatalogError(f"damaged or edited lightcone file: {problem}")
        return found

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the lightcone to an HDF5 file: a temporary name first, renamed when complete.
        Raises `CatalogError`."""
        numbers_per_halo = len(_CORE) + len(self.columns) + 3 * (self.velocities_kms is not None)
        size = 4 * len(self) * numbers_per_halo + self.tile_offsets.nbytes + _REST
        with writing(Path(path), CatalogError) as temporary:
            reserve(temporary, size)
            with h5py.File(temporary, "w") as file:
                self._to_file(file)

    def _to_file(self, file: h5py.File) -> None:
        halos = file.create_group("halos")
        for name in _CORE:
            halos.create_dataset(name, data=getattr(self, name))
        if self.velocities_kms is not None:
            halos.create_dataset("velocities_kms", data=self.velocities_kms)
        columns = file.create_group("columns")
        for name in sorted(self.columns):
            columns.create_dataset(name, data=self.columns[name])
        file.create_dataset("tile_offsets", data=self.tile_offsets)
        file.create_dataset("provenance", data=self.provenance)
        file.create_group("cosmology").attrs.update(self.cosmology)
        marks = seal.marks_of(self.mass_Msun, self.z_obs)
        file.create_dataset("marks", data=marks)
        about: dict[str, Any] = {
            "realisation": self.realisation,
            "footprint_deg": self.footprint_deg,
            "z_range": self.z_range,
            "min_mass_Msun": self.min_mass_Msun,
            "tile_deg": self.tile_deg,
            "tile_shape": self.tile_shape,
        }
        file.attrs.update(format=FORMAT, format_version=FORMAT_VERSION, digest=self.digest, **about)
        file.attrs["seal"] = seal.seal_of(
            self.digest, len(self), self.cosmology, about, self.provenance, marks
        )

    def __len__(self) -> int:
        return len(self.mass_Msun)

    @property
    def name(self) -> str:
        """The file's name, or the realisation of a lightcone in memory."""
        return self.path.name if self.path else self.realisation

    def __repr__(self) -> str:
        return f"<Lightcone {self.realisation}: {len(self)} halos, {self.path or 'in memory'}>"

    def info(self) -> dict[str, Any]:
        """What it holds, its halo density against Tinker08, and warnings about its units."""
        return lightcone_info.info(self)

    def describe(self) -> str:
        """`info` as text."""
        return lightcone_info.describe(self)


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


def _tile_numbers(
    ra: Float64,
    dec: Float64,
    footprint: Sequence[float],
    shape: tuple[int, int],
    tile_deg: float,
) -> NDArray[Any]:
    n_dec, n_ra = shape
    column = np.clip(np.floor((ra - footprint[0]) / tile_deg), 0, n_ra - 1).astype(np.int64)
    row = np.clip(np.floor((dec - footprint[2]) / tile_deg), 0, n_dec - 1).astype(np.int64)
    tile = row * n_ra + column
    return tile.astype(np.uint16) if n_dec * n_ra <= 65536 else tile  # uint16: a radix sort


def _float32(name: str, values: ArrayLike) -> Float32:
    try:
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(values, np.float32)
    except (TypeError, ValueError) as error:
        raise CatalogError(f"{name} is not an array of numbers ({error})") from error


_UNITS = {"x_Mpc": "Mpc", "y_Mpc": "Mpc", "z_Mpc": "Mpc", "mass_Msun": "Msun", "z_obs": "",
          "velocities_kms": "km/s", "column 'sfr'": "Msun/yr"}  # fmt: skip
"""As astropy writes them. Of another column it is known to the user's model alone."""


def _column(name: str, file: h5py.File, place: str) -> Float32:
    """A column of a lightcone file."""
    values = content_of(dataset_of(file, place))
    if values.dtype.kind not in "fiu":
        raise CatalogError(f"{name} holds no real numbers (it is {values.dtype})")
    return _float32(name, values)


def _offsets(file: h5py.File, num_halos: int) -> NDArray[np.int64]:
    """The offset table of a lightcone file; it decides which rows are looked at."""
    values = content_of(dataset_of(file, "tile_offsets"))
    if values.dtype.kind not in "iu" or values.ndim != 1:
        raise CatalogError(f"tile_offsets is no list of row numbers (it is {values.dtype})")
    offsets = np.ascontiguousarray(values, np.int64)
    ends = (int(offsets[0]), int(offsets[-1])) if len(offsets) else (0, 0)
    if ends != (0, num_halos) or (np.diff(offsets) < 0).any():
        raise CatalogError(
            f"tile_offsets does not lead from row 0 to {num_halos} without a step back"
        )
    return offsets


def _given_halos(
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
        problem = lightcone_info.mass_problem(array.ravel())  # kg overflow in float32
        if problem:
            raise CatalogError(
                f"{problem} (from_arrays takes Msun, or an astropy Quantity, which is converted; "
                "if they are right, sure_of_mass=True)"
            )
    return _float32(name, array)


def _numbers(values: Any, name: str, form: str, unit: str = "") -> tuple[float, ...]:
    try:
        return numbers(values, name, form, unit)
    except ValueError as error:
        raise CatalogError(str(error)) from None


def _read_only(arrays: dict[str, Any]) -> dict[str, Any]:
    for array in arrays.values():
        array.flags.writeable = False
    return arrays


def _check_halos(
    halos: dict[str, Float32], columns: dict[str, Float32], velocity: Float32 | None
) -> None:
    size = halos["x_Mpc"].size
    named = halos | {f"column '{name}'": a for name, a in columns.items()}
    for name, array in named.items():
        if array.shape != (size,):
            raise CatalogError(
                f"arrays of different shape: x_Mpc has {size} halos, {name} has shape {array.shape}"
            )
    for name in columns:
        if not name.isidentifier() or name in _CORE:
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


def _refuse(name: str, array: Float32, bad: NDArray[np.bool_], rule: str) -> None:
    if bad.any():
        first = tuple(np.argwhere(bad)[0])
        raise CatalogError(
            f"{name} = {array[first]:.7g} at row {first[0]} ({np.count_nonzero(bad)} such values): "
            f"{rule}"
        )


def _checked_cosmology(cosmology: Mapping[str, float]) -> dict[str, float]:
    if not isinstance(cosmology, Mapping):
        raise CatalogError(
            "cosmology must be a mapping with Omega_m, Omega_b, h, n_s and sigma8, not "
            f"{type(cosmology).__name__}"
        )
    try:
        return Cosmology.from_dict(cosmology).to_dict()
    except ValueError as error:
        raise CatalogError(str(error)) from error


def _checked_footprint(
    footprint: Sequence[float] | None, ra: Float64, dec: Float64
) -> tuple[float, float, float, float]:
    if footprint is None:
        return float(ra.min()), float(ra.max()), float(dec.min()), float(dec.max())
    ra_min, ra_max, dec_min, dec_max = _numbers(
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


def _digest(
    halos: dict[str, Float32],
    columns: dict[str, Float32],
    velocity: Float32 | None,
    offsets: NDArray[np.int64],
    cosmology: Mapping[str, float],
    footprint: Sequence[float],
) -> str:
    """sha256 [hex] over little-endian arrays with their names and shapes, cosmology, footprint."""
    arrays: dict[str, NDArray[Any]] = {name: halos[name] for name in _CORE}
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
