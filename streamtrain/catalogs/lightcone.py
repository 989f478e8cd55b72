"""A halo lightcone: what every sample is painted from, in memory and as one HDF5 file.

Its frame and the order of its halos are those of `rows`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from streamtrain.catalogs import info as lightcone_info
from streamtrain.catalogs.headers import (
    FORMAT,
    FORMAT_VERSION,
    SEALED,
    VELOCITIES,
    CatalogError,
    opened,
    read_header,
)
from streamtrain.catalogs.rows import (
    CORE,
    HALO_MASSES,
    TILE_DEG,
    Float32,
    Rows,
    check_halos,
    check_rates,
    checked_cosmology,
    checked_footprint,
    digest_of,
    distance_problem,
    given_halos,
    in_float32,
    plain_numbers,
    read_only,
    sky_angles_deg,
    tile_numbers,
    tile_shape,
)
from streamtrain.machine.files import one_line, reserve, writing
from streamtrain.machine.hdf5file import content_of, dataset_of, group_of, holds
from streamtrain.shipped import find_shipped

__all__ = ["CatalogError", "Lightcone", "sky_angles_deg", "tile_shape"]


_REST = 200_000
"""Bytes of a file beside its arrays, at most."""


class Lightcone(Rows):
    """Halos seen by one observer. Made by `from_arrays` and `open`; its arrays are read-only.

    >>> from streamtrain import Lightcone
    >>> sky = Lightcone.open("reference_0000.h5")  # a file, or one that ships with streamtrain
    >>> sky
    <Lightcone ...: ... halos above 5e+10 Msun, z = ..., ... x ... deg, ...reference_0000.h5>
    >>> sky.mass_Msun.shape, sky.cosmology["h"]
    ((...,), 0.7)
    """

    def __init__(self, *values: Any, **fields: Any) -> None:
        if values or not fields:
            raise CatalogError(
                "Lightcone.open(path) reads a file, Lightcone.from_arrays(...) takes halos"
            )
        super().__init__(**fields)

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
        parameters = checked_cosmology(cosmology)
        given = {"x_Mpc": x_Mpc, "y_Mpc": y_Mpc, "z_Mpc": z_Mpc, "mass_Msun": mass_Msun}
        halos, extra, velocity = given_halos(
            given | {"z_obs": z_obs}, columns, velocities_kms, parameters["h"], sure_of_mass
        )
        check_halos(halos, extra, velocity)
        check_rates(extra)
        if problem := distance_problem(halos, parameters):
            raise CatalogError(problem)

        ra, dec = sky_angles_deg(halos["x_Mpc"], halos["y_Mpc"], halos["z_Mpc"])
        footprint = checked_footprint(footprint_deg, ra, dec)
        shape = tile_shape(footprint, tile_deg)
        tile = tile_numbers(ra, dec, footprint, shape, tile_deg)
        order = np.argsort(tile, kind="stable")
        counts = np.bincount(tile, minlength=shape[0] * shape[1])
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        halos = {name: a[order] for name, a in halos.items()}
        extra = {name: a[order] for name, a in extra.items()}
        velocity = None if velocity is None else velocity[order]

        digest = digest_of(halos, extra, velocity, offsets, parameters, footprint)
        seen = (halos["z_obs"].min(), halos["z_obs"].max())
        z_low, z_high = (
            seen if z_range is None else plain_numbers(z_range, "z_range", "(low, high)")
        )
        if not -1.0 < z_low <= z_high < np.inf:
            raise CatalogError(f"z_range must be (low, high) with -1 < low <= high, got {z_range}")
        limit = float(np.nextafter(halos["mass_Msun"].min(), np.float32(0)))
        if min_mass_Msun is not None:
            limit = plain_numbers([min_mass_Msun], "min_mass_Msun", "a number", "Msun")[0]
        if realisation is not None and not (realisation and realisation.isprintable()):
            raise CatalogError(f"realisation must be one line of text, not {realisation!r}")
        if not 0.0 < limit < np.inf:
            raise CatalogError(f"min_mass_Msun must be positive and finite, got {min_mass_Msun}")
        if min_mass_Msun is not None and limit < HALO_MASSES[0]:
            raise CatalogError(
                f"min_mass_Msun = {limit:g}: no halo's mass in Msun, but perhaps a logarithm of one"
            )
        return cls(
            **read_only(halos),
            columns=read_only(extra),
            velocities_kms=None if velocity is None else read_only({"v": velocity})["v"],
            cosmology=parameters,
            footprint_deg=footprint,
            z_range=(float(z_low), float(z_high)),
            min_mass_Msun=limit,
            realisation=realisation or f"sha256-{digest[:16]}",
            provenance=provenance.replace("\0", "?").encode(errors="backslashreplace").decode(),
            tile_shape=shape,
            tile_offsets=read_only({"offsets": offsets})["offsets"],
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
        if not isinstance(path, str | os.PathLike):
            raise CatalogError(f"a lightcone is opened by the name of its file, not {path!r:.80}")
        path = find_shipped(Path(path))
        with opened(path) as file:
            return cls._from_file(file, path)

    @classmethod
    def _from_file(cls, file: h5py.File, path: Path) -> Lightcone:
        about = read_header(file, path)
        halos = {name: _column(name, file, f"halos/{name}") for name in CORE}
        extra = {name: _column(name, file, f"columns/{name}") for name in group_of(file, "columns")}
        velocity = None
        if holds(file, VELOCITIES):
            velocity = _column("velocities_kms", file, VELOCITIES)
        offsets = _offsets(file, len(halos["x_Mpc"]))
        check_halos(halos, extra, velocity)
        cosmology, footprint = about.cosmology, about.footprint_deg
        digest = digest_of(halos, extra, velocity, offsets, cosmology, footprint)
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
            **read_only(halos),
            columns=read_only(extra),
            velocities_kms=None if velocity is None else read_only({"v": velocity})["v"],
            cosmology=cosmology,
            footprint_deg=footprint,
            z_range=about.z_range,
            min_mass_Msun=about.min_mass_Msun,
            realisation=about.realisation,
            provenance=about.provenance,
            tile_shape=shape,
            tile_offsets=read_only({"offsets": offsets})["offsets"],
            digest=digest,
            path=path,
            tile_deg=about.tile_deg,
        )
        if not about.sealed:
            places = sky_angles_deg(found.x_Mpc, found.y_Mpc, found.z_Mpc)
            if problem := lightcone_info.inconsistency(found, *places):
                raise CatalogError(f"damaged or edited lightcone file: {problem}")
        return found

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the lightcone to an HDF5 file: a temporary name first, renamed when complete.
        Raises `CatalogError`."""
        with writing(Path(path), CatalogError) as temporary:
            reserve(temporary, self.header.nbytes + _REST)
            with h5py.File(temporary, "w") as file:
                self._to_file(file)

    def _to_file(self, file: h5py.File) -> None:
        halos = file.create_group("halos")
        for name in CORE:
            halos.create_dataset(name, data=getattr(self, name))
        if self.velocities_kms is not None:
            file.create_dataset(VELOCITIES, data=self.velocities_kms)
        columns = file.create_group("columns")
        for name in sorted(self.columns):
            columns.create_dataset(name, data=self.columns[name])
        file.create_dataset("tile_offsets", data=self.tile_offsets)
        file.create_dataset("provenance", data=self.provenance)
        file.create_group("cosmology").attrs.update(self.cosmology)
        file.create_dataset("marks", data=self.header.marks)
        said = {name: getattr(self, name) for name in ("digest", "realisation", *SEALED)}
        file.attrs.update(format=FORMAT, format_version=FORMAT_VERSION, **said)
        file.attrs["seal"] = self.header.seal

    def info(self) -> dict[str, Any]:
        """What it holds, its halo density against Tinker08, and warnings about its units."""
        return lightcone_info.info(self)

    def describe(self) -> str:
        """What `info` says, as text for a person."""
        return lightcone_info.describe(self)


def _column(name: str, file: h5py.File, place: str) -> Float32:
    """A column of a lightcone file."""
    values = content_of(dataset_of(file, place))
    if values.dtype.kind not in "fiu":
        raise CatalogError(f"{name} holds no real numbers (it is {values.dtype})")
    return in_float32(name, values)


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
