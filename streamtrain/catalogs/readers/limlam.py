"""The npz layout of limlam_mocker and Peak Patch.

Keys x, y, z [comoving Mpc], M [Msun], zhalo (observed redshift), and optionally vx, vy, vz [km/s];
every further array with one number per halo (zform, sfr) becomes a column. Without zhalo the
redshift is that of the distance with the velocity along the line of sight. The cosmology is
`cosmo_header_json` or the original `cosmo_header`, a pickled dict, which `pickled` reads.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.catalogs.info import mass_problem
from streamtrain.catalogs.lightcone import CatalogError, Lightcone
from streamtrain.catalogs.readers.halos import (
    PARAMETERS,
    Halos,
    merged_cosmology,
    observed_redshift,
    reading,
    sha256,
)
from streamtrain.catalogs.readers.pickled import npy_header, numbers, read_pickled_header
from streamtrain.catalogs.readers.view import FORWARD, View, check_direction
from streamtrain.cosmology import Cosmology
from streamtrain.files import check_npz, one_line

_NEEDED_KEYS = ("x", "y", "z", "M")
_HALO_KEYS = (*_NEEDED_KEYS, "zhalo")
_VELOCITY_KEYS = ("vx", "vy", "vz")
_COSMOLOGY = {
    "Omega_M": "Omega_m",
    "Omega_B": "Omega_b",
    "h": "h",
    "ns": "n_s",
    "sigma8": "sigma8",
}


def read_npz(
    path: str | os.PathLike[str],
    *,
    realisation: str | None = None,
    cosmology: Mapping[str, float] | None = None,
    view: View = FORWARD,
) -> Lightcone:
    """A limlam_mocker or Peak Patch catalog as a lightcone, seen as `view` says; `cosmology`
    (Omega_m, Omega_b, h, n_s, sigma8) adds what its header lacks.

    Two cuts of one simulated sky must be given the same `realisation`; the default is derived from
    the content. Raises `CatalogError` for a file that is missing, damaged, incomplete, or holds a
    pickle of anything but a dict of numbers.
    """
    path = Path(path)
    with reading(path, "an npz file"):
        with zipfile.ZipFile(path) as archive:
            check_npz(archive)
            arrays, header = _read_members(archive)
        return _lightcone(path, arrays, header, realisation, cosmology, view)


def _lightcone(
    path: Path,
    arrays: dict[str, NDArray[Any]],
    header: dict[str, float],
    realisation: str | None,
    given: Mapping[str, float] | None,
    view: View,
) -> Lightcone:
    centre = [header.get(f"cen_{axis}_fov", 0.0) for axis in "xy"]
    note = f", field centre {centre[0]:g}, {centre[1]:g} deg" if any(centre) else ""
    cosmology = _cosmology(header, given)
    added = [name for name in given or {} if name not in _stated(header)]
    note += f", {', '.join(added)} as given, not in the file" if added else ""
    position = _positions(arrays)
    mass = arrays.pop("M")
    moving = [key in arrays for key in _VELOCITY_KEYS]
    if any(moving) and not all(moving):
        raise CatalogError("of vx, vy, vz all or none must be there")
    parts = [arrays.pop(key) for key in _VELOCITY_KEYS] if all(moving) else None
    velocities = None if parts is None else np.stack(parts, axis=-1)
    position, velocities, turned = view.turned(position, velocities)
    note += "".join(f"; {text}" for text in turned)
    check_direction(position)
    if "zhalo" in arrays:
        redshift = arrays.pop("zhalo")
    else:
        halos = Halos(position, mass, velocities)
        halos.check()
        redshift = observed_redshift(halos, Cosmology.from_dict(cosmology))
        note += "; without zhalo: z_obs from the distance" + (
            ", without peculiar velocities"
            if velocities is None
            else " and vx, vy, vz [km/s], z_cos + (1 + z_cos) v_los/c"
        )
    if mass.size and (problem := mass_problem(mass)):
        raise CatalogError(problem)
    return Lightcone.from_arrays(
        position[:, 0],
        position[:, 1],
        position[:, 2],
        mass,
        redshift,
        cosmology=cosmology,
        velocities_kms=velocities,
        columns={key: a for key, a in arrays.items() if a.shape == mass.shape},
        provenance=f"limlam_mocker npz {path.name}, sha256 {sha256(path)}{note}",
        realisation=realisation,
        sure_of_mass=True,
    )


def _positions(arrays: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """x, y, z taken out of the arrays as [n, 3]."""
    shapes = {key: arrays[key].shape for key in _NEEDED_KEYS}
    if len(set(shapes.values())) > 1 or len(shapes["x"]) != 1:
        raise CatalogError(
            "arrays of different shape: "
            + ", ".join(f"{key} has shape {shape}" for key, shape in shapes.items())
        )
    return np.stack([arrays.pop(axis) for axis in "xyz"], axis=-1)


def _read_members(archive: zipfile.ZipFile) -> tuple[dict[str, NDArray[Any]], dict[str, float]]:
    """Numeric arrays by key, and the header dict."""
    names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise CatalogError(f"holds {', '.join(twice)} more than once")
    missing = [key for key in _NEEDED_KEYS if key not in names]
    if missing:
        raise CatalogError(
            f"lacks {', '.join(missing)}; a limlam_mocker catalog has {', '.join(_HALO_KEYS)}, "
            f"this file has {', '.join(names)}"
        )
    header: dict[str, float]
    if "cosmo_header_json" in names:
        with archive.open("cosmo_header_json.npy") as file:
            text = str(np.lib.format.read_array(file, allow_pickle=False)[()])
        try:
            header = numbers(json.loads(text))
        except json.JSONDecodeError as error:
            raise CatalogError(f"cosmo_header_json is not JSON ({error})") from error
    elif "cosmo_header" in names:
        with archive.open("cosmo_header.npy") as file:
            header = read_pickled_header(file)
    else:
        header = {}
    arrays = {}
    for name in names:
        if name.startswith("cosmo_header"):
            continue
        with archive.open(f"{name}.npy") as file:
            shape, dtype = npy_header(file)
        if dtype.kind in "fiu" and (len(shape) == 1 or name in _HALO_KEYS):
            with archive.open(f"{name}.npy") as file:
                arrays[name] = np.lib.format.read_array(file, allow_pickle=False)
        elif name in _HALO_KEYS:
            raise CatalogError(f"{name} holds no real numbers (its type is {dtype})")
    return arrays, header


def _stated(header: Mapping[str, float]) -> dict[str, float]:
    """The parameters of a header, by our names."""
    return {ours: header[theirs] for theirs, ours in _COSMOLOGY.items() if theirs in header}


def _cosmology(header: Mapping[str, float], given: Mapping[str, float] | None) -> dict[str, float]:
    both = merged_cosmology(_stated(header), given, complete=False)
    missing = [name for name in PARAMETERS if name not in both]
    if missing:
        add = f"add --cosmology {' '.join(f'{name}=...' for name in missing)}"
        if not header:
            raise CatalogError(f"has neither cosmo_header nor cosmo_header_json: {add}")
        theirs = next(theirs for theirs, ours in _COSMOLOGY.items() if ours == missing[0])
        raise CatalogError(
            f"cosmo_header lacks '{theirs}': {', '.join(_COSMOLOGY)} are needed, "
            f"it has {one_line(', '.join(header))}: {add}"
        )
    total = both["Omega_m"] + header.get("Omega_L", 1.0 - both["Omega_m"])
    if abs(total - 1.0) > 2e-3:
        raise CatalogError(f"the universe must be flat, but Omega_M + Omega_L = {total:g}")
    return both
