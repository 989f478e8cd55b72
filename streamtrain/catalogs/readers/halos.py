"""Halos as a file of another program has them, and how they become a lightcone.

A catalog may lie in several files: chunks NAME.0.hdf5, NAME.1.hdf5, ... or a pattern NAME_*.fits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.catalogs.headers import CatalogError
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.rows import mass_problem, sky_angles_deg
from streamtrain.cosmology import C_KMS, MAX_REDSHIFT, Cosmology
from streamtrain.machine import files
from streamtrain.machine.files import why_nothing_found

_CHUNK = re.compile(r"(.+)\.(\d+)\.(hdf5|h5)")


def chunks_of(path: Path) -> list[Path]:
    """The chunks 0, 1, 2, ... of a set, or the one file.

    `path` is any of them, a folder that holds one set, or a pattern like folder/NAME.*.hdf5.
    Raises CatalogError if there is none, a number is missing, or there are several sets.
    """
    if path.is_file():
        found = _CHUNK.fullmatch(path.name)
        if found is None:
            return [path]
        candidates, name = sorted(path.parent.iterdir()), found.group(1)
    elif path.is_dir():
        candidates, name = sorted(path.iterdir()), ""
    elif is_pattern(path):
        candidates, name = sorted(path.parent.glob(path.name)), ""
    else:
        raise CatalogError(f"{path}: there is no such file")
    matches = [(a, found) for a in candidates if (found := _CHUNK.fullmatch(a.name))]
    sets = sorted({found.group(1) for _, found in matches})
    if not name and not sets:
        whole = [a for a in candidates if a.suffix in (".hdf5", ".h5") and a.is_file()]
        if len(whole) == 1:
            return whole
        if not candidates and (forbidden := why_nothing_found(path)):
            raise CatalogError(f"{path}: {forbidden}")
        raise CatalogError(f"{path}: holds no NAME.0.hdf5, NAME.1.hdf5, ... and not one .hdf5 file")
    if not name and len(sets) > 1:
        raise CatalogError(
            f"{path}: holds chunks of several sets, {', '.join(sets[:5])}: name a file of one"
        )
    chosen = {int(found.group(2)): a for a, found in matches if found.group(1) == (name or sets[0])}
    missing = [number for number in range(max(chosen)) if number not in chosen]
    if missing:
        there = f"{name or sets[0]}.{missing[0]}.hdf5"
        raise CatalogError(f"{path}: the chunk {there} is missing, {len(chosen)} others are there")
    return [chosen[number] for number in sorted(chosen)]


def is_pattern(path: Path) -> bool:
    """Whether a path stands for several files."""
    return not path.exists() and any(sign in path.name for sign in "*?[")


def files_of(path: Path) -> list[Path]:
    """The files of a pattern in the order of their names, of any other path itself.

    Raises CatalogError if there is none.
    """
    if not is_pattern(path):
        return [path]
    files = sorted(a for a in path.parent.glob(path.name) if a.is_file())
    if not files:
        raise CatalogError(f"{path}: {why_nothing_found(path) or 'there is no such file'}")
    return files


def files_beside(path: Path) -> int:
    """How many other files have the same name but for a number, NAME.7.fits beside NAME.6.fits."""
    found = re.fullmatch(r"(.+\.)(\d+)(\.[a-z0-9]+)", path.name)
    if found is None:
        return 0
    same = re.compile(rf"{re.escape(found.group(1))}\d+{re.escape(found.group(3))}")
    return sum(same.fullmatch(a.name) is not None for a in path.parent.iterdir()) - 1


Floats = NDArray[np.floating[Any]]

PARAMETERS = ("Omega_m", "Omega_b", "h", "n_s", "sigma8")
MAX_SPEED = 0.1
"""No halo moves faster, in units of c."""


@dataclass
class Halos:
    """What a file says, in comoving Mpc, Msun and km/s (no h)."""

    position_Mpc: Floats
    """Comoving position [n, 3]; of a lightcone as seen from the origin, line of sight +z."""
    mass_Msun: Floats
    """Masses of the halos [n], in Msun without h."""
    velocity_kms: Floats | None = None
    """Proper peculiar velocity [n, 3], or None."""
    z_obs: Floats | None = None
    """Observed redshift [n]; None: from distance and velocity."""
    columns: Mapping[str, Floats] = field(default_factory=dict)
    """Further numbers per halo [n]."""
    cosmology: dict[str, float] = field(default_factory=dict)
    """Whichever of Omega_m, Omega_b, h, n_s and sigma8 the file gives."""
    notes: list[str] = field(default_factory=list)
    """Where the halos come from and what the reader assumed."""
    z_range: tuple[float, float] | None = None
    """Redshifts between which a lightcone is filled, if known."""
    cone_deg: float | None = None
    """Half the opening angle of a circular cone around +z."""
    side_Mpc: float | None = None
    """Side of the periodic box of the simulation, if known."""
    redshift: float | None = None
    """The redshift of a snapshot; None where every halo has its own."""
    sure_of_mass: bool = False
    """Whether the user insists on the masses, however unlikely."""
    by_angles: bool = False
    """Whether they came as ra and dec."""

    def __len__(self) -> int:
        return len(self.mass_Msun)

    def rows(self, chosen: NDArray[Any]) -> Halos:
        """The halos of some rows (a mask or row numbers)."""
        return Halos(
            **vars(self)
            | {
                "position_Mpc": self.position_Mpc[chosen],
                "mass_Msun": self.mass_Msun[chosen],
                "velocity_kms": None if self.velocity_kms is None else self.velocity_kms[chosen],
                "z_obs": None if self.z_obs is None else self.z_obs[chosen],
                "columns": {name: a[chosen] for name, a in self.columns.items()},
                "notes": list(self.notes),
            }
        )

    def check(self) -> None:
        """CatalogError unless there are halos, every number is finite and no mass is negative."""
        if len(self) == 0:
            raise CatalogError("holds no halo")
        named: dict[str, Floats] = {"position": self.position_Mpc, "mass_Msun": self.mass_Msun}
        named |= {} if self.velocity_kms is None else {"velocity": self.velocity_kms}
        named |= {} if self.z_obs is None else {"z_obs": self.z_obs}
        for name, array in (named | dict(self.columns)).items():
            bad = ~np.isfinite(array)
            if bad.any():
                row = tuple(np.argwhere(bad)[0])
                raise CatalogError(
                    f"{name} = {array[row]} at row {row[0]} ({np.count_nonzero(bad)} such "
                    "values): every number must be finite"
                )
        if (lowest := int(np.argmin(self.mass_Msun))) >= 0 > self.mass_Msun[lowest]:
            raise CatalogError(
                f"mass_Msun = {self.mass_Msun[lowest]:.7g} at row {lowest}: masses must be positive"
            )


@contextmanager
def reading(path: Path, what: str, *, whole: bool = False) -> Iterator[None]:
    """Turns whatever goes wrong with a file into one CatalogError that begins with its name.

    whole: it is all read into memory, and refused if it does not fit. Numbers beyond what float64
    holds are no warning: they are refused where halos are checked.
    """
    damaged = f"not {what}, or a damaged one"
    with files.reading(path, CatalogError, damaged), np.errstate(over="ignore", invalid="ignore"):
        if whole:
            files.check_memory(path.stat().st_size, "it has")
        yield


def merged_cosmology(
    found: Mapping[str, float], given: Mapping[str, float] | None, complete: bool = True
) -> dict[str, float]:
    """What the file and the user say about the cosmology, together.

    Raises CatalogError if they disagree, or if one of the five parameters is missing.
    """
    given = given or {}
    for name, value in given.items():
        if name not in PARAMETERS:
            raise CatalogError(
                f"the cosmology has no parameter '{name}', only {', '.join(PARAMETERS)}"
            )
        if name in found and abs(found[name] - value) > 1e-4 * abs(found[name]):
            raise CatalogError(
                f"{name} is {found[name]:g} in the file, but {value:g} in the given cosmology"
            )
    both = dict(found) | dict(given)
    missing = [name for name in PARAMETERS if name not in both]
    if missing and complete:
        says = f"the file gives {', '.join(found)} only" if found else "the file gives none"
        wanted = " ".join(f"{name}=..." for name in missing)
        raise CatalogError(f"the cosmology is needed and {says}: add --cosmology {wanted}")
    return both


def observed_redshift(halos: Halos, cosmology: Cosmology) -> Floats:
    """z_cos + (1 + z_cos) v_los / c of halos around an observer at the origin, float64 [n]."""
    position = halos.position_Mpc.astype(np.float64)
    chi = np.sqrt(np.sum(position**2, axis=1))
    z_cos = cosmology.redshift(chi)
    if halos.velocity_kms is None:
        return z_cos
    v_los = np.sum(position * halos.velocity_kms, axis=1) / np.maximum(chi, 1e-9)
    return z_cos + (1.0 + z_cos) * v_los / C_KMS


def lightcone_of(
    halos: Halos,
    *,
    cosmology: Mapping[str, float] | None = None,
    footprint_deg: Sequence[float] | None = None,
    z_range: Sequence[float] | None = None,
    min_mass_Msun: float | None = None,
    realisation: str | None = None,
) -> Lightcone:
    """A lightcone of the halos around an observer at the origin.

    `footprint_deg` (ra_min, ra_max, dec_min, dec_max), `z_range` and `min_mass_Msun` cut; without
    a footprint a circular cone is cut to the square inside. `cosmology` adds what the file
    lacks. Raises CatalogError.
    """
    halos.check()
    problem = None if halos.sure_of_mass else mass_problem(halos.mass_Msun)
    if problem:
        raise CatalogError(
            f"{problem} (say the unit in the column map; if they are right, add sure: true to the "
            "mass, --columns sure=mass)"
        )
    notes = list(halos.notes)
    parameters = merged_cosmology(halos.cosmology, cosmology)
    try:
        model = Cosmology.from_dict(parameters)
        z_obs = observed_redshift(halos, model) if halos.z_obs is None else halos.z_obs
    except ValueError as error:
        raise CatalogError(str(error)) from error
    if halos.z_obs is None:
        moving = halos.velocity_kms is not None
        notes.append(
            "z_obs = z_cos + (1 + z_cos) v_los/c, z_cos from the distance"
            if moving
            else "z_obs from the distance, without peculiar velocities"
        )
    _check_distances(halos, z_obs, model)
    ra, dec = sky_angles_deg(*halos.position_Mpc.T)
    if footprint_deg is None and halos.cone_deg is not None:
        half = halos.cone_deg / np.sqrt(2.0)
        footprint_deg = (-half, half, -half, half)
        notes.append(f"cut to the square of {2 * half:.4g} deg inside the cone")
    kept = np.ones(len(halos), bool)
    if footprint_deg is not None:
        ra_min, ra_max, dec_min, dec_max = footprint_deg
        kept &= (ra >= ra_min) & (ra <= ra_max) & (dec >= dec_min) & (dec <= dec_max)
    if z_range is not None:
        kept &= (z_obs >= z_range[0]) & (z_obs <= z_range[1])
        notes.append(f"cut to z {z_range[0]:g}..{z_range[1]:g}")
    if min_mass_Msun is not None:
        kept &= halos.mass_Msun >= min_mass_Msun
        notes.append(f"cut at {min_mass_Msun:g} Msun")
    if not kept.any():
        raise CatalogError(
            f"no halo is left after the cuts: there are {len(halos)} at ra {ra.min():.4g}.."
            f"{ra.max():.4g}, dec {dec.min():.4g}..{dec.max():.4g} deg, z {z_obs.min():.4g}.."
            f"{z_obs.max():.4g}, up to {halos.mass_Msun.max():.4g} Msun"
        )
    left = halos.rows(kept)
    x, y, z = left.position_Mpc.T
    return Lightcone.from_arrays(
        x,
        y,
        z,
        left.mass_Msun,
        z_obs[kept],
        cosmology=parameters,
        velocities_kms=left.velocity_kms,
        columns=left.columns,
        provenance="; ".join(notes),
        footprint_deg=footprint_deg,
        z_range=_common(z_range, halos.z_range),
        min_mass_Msun=min_mass_Msun,
        realisation=realisation,
        sure_of_mass=True,
    )


def _check_distances(halos: Halos, z_obs: Floats, model: Cosmology) -> None:
    """CatalogError for halos at the observer, and for a few whose redshift is not that of their
    distance; if it is so for most of them, `Lightcone` names the likely reason."""
    chi = np.sqrt(np.sum(halos.position_Mpc.astype(np.float64) ** 2, axis=1))
    row = int(np.argmin(chi))
    if chi[row] == 0.0:
        raise CatalogError(f"the halo at row {row} is at the observer: a missing value?")
    farthest = float(model.comoving_distance(MAX_REDSHIFT))
    z_chi = model.redshift(np.minimum(chi, 0.999 * farthest))
    bad = ~(np.abs(z_obs - z_chi) <= MAX_SPEED * (1.0 + z_chi))
    if 0 < (number := np.count_nonzero(bad)) <= len(halos) // 2:
        row = int(np.argmax(bad))
        raise CatalogError(
            f"the halo at row {row} is {chi[row]:.6g} Mpc away, which is z = {z_chi[row]:.4g}, but "
            f"its observed redshift is {z_obs[row]:.6g} ({number} such halos): missing values?"
        )


def _common(
    asked: Sequence[float] | None, filled: tuple[float, float] | None
) -> Sequence[float] | None:
    """The redshifts that are asked for and filled; None if neither is known."""
    if asked is None or filled is None:
        return filled if asked is None else asked
    return max(asked[0], filled[0]), min(asked[1], filled[1])
