"""Friends-of-friends groups in HDF5, in one file or in chunks NAME.0.hdf5, NAME.1.hdf5, ...

Gadget-4, Arepo and what is built on them (IllustrisTNG, CAMELS): Group/GroupMass, GroupPos,
GroupVel in units that the header or the parameters state, masses and lengths over h; GroupVel is
a^2 dx/dt, so the peculiar velocity is GroupVel / a. SWIFT: Groups/Masses and Centres with the unit
of each beside it, no velocities. Either is a snapshot of a periodic box, or, where GroupAscale is
not the scale factor of the header, Gadget-4's groups on a light cone around the origin, whose
GroupVel is the peculiar velocity itself.

References:
    Gadget-4 (Springel et al., 2021), arXiv:2010.03567; src/fof/fof.cc, src/fof/fof_io.cc and
    src/lightcone/lightcone.cc of its source
    SWIFT (Schaller et al., 2024), arXiv:2305.13380; src/fof_catalogue_io.c of its source
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from streamtrain.catalogs.headers import CatalogError
from streamtrain.catalogs.readers.halos import Halos, chunks_of, merged_cosmology, reading
from streamtrain.machine.files import sha256, why_not_a_file
from streamtrain.machine.hdf5file import content_of, dataset_of, group_of, holds
from streamtrain.schema import nearest

Array = NDArray[np.float64]
CM_PER_MPC, G_PER_MSUN, CM_S_PER_KMS = 3.0856775814913673e24, 1.98841e33, 1e5


@dataclass(frozen=True)
class _Layout:
    """What a code calls its groups."""

    table: str
    mass: str
    position: str
    velocity: str
    here: str
    total: str
    num_files: str


_LAYOUTS = (
    _Layout("Group", "GroupMass", "GroupPos", "GroupVel",
            "Ngroups_ThisFile", "Ngroups_Total", "NumFiles"),
    _Layout("Groups", "Masses", "Centres", "Velocities",
            "NumGroups_ThisFile", "NumGroups_Total", "NumFilesPerSnapshot"),
)  # fmt: skip


@dataclass(frozen=True)
class _Unit:
    """A stored number times factor a^a_power h^h_power is in comoving Mpc, Msun or km/s."""

    factor: float
    a_power: float
    h_power: float

    def of(self, values: Any, scale: Any, h: float) -> Any:
        return values * (self.factor * h**self.h_power) * scale**self.a_power


def is_group_file(path: Path) -> bool:
    """Whether a file is one of groups, as its header tells; False for what is no HDF5 file."""
    if why_not_a_file(path):
        return False
    try:
        with h5py.File(path, "r") as file:
            return holds(file, "Header") and _layout(file) is not None
    except Exception:  # whatever is wrong with it, it is none
        return False


def read_groups(
    path: Path,
    *,
    cosmology: Mapping[str, float] | None = None,
    mass: str | None = None,
    length: str | None = None,
) -> Halos:
    """The groups of all chunks of a snapshot or a light cone, in Mpc, Msun and km/s.

    `path` is the file, any of its chunks, their folder or a pattern; `mass` another mass than that
    of the group (Group_M_Mean200); `length` the unit of lengths, "Mpc/h" or "kpc/h", where the
    file does not state it, masses then being 1e10 Msun/h. Raises CatalogError.
    """
    chunks = chunks_of(path)
    with reading(chunks[0], "a file of groups"), h5py.File(chunks[0], "r") as file:
        layout = _layout(file)
        if layout is None:
            raise CatalogError("it has no header that counts groups (Ngroups_Total)")
        total = _count(file, layout.total)
        scale = 1.0 / (1.0 + _number(file, "Redshift"))
        found = _cosmology(file)
        units, source = _units(file, layout, mass or layout.mass, length)
        side = _side(file)
        parameters = merged_cosmology(found, cosmology, complete=False)
        if "h" not in parameters:
            raise CatalogError("it does not state HubbleParam: add --cosmology h=...")
    parts = []
    for chunk in chunks:
        with reading(chunk, "a file of groups"), h5py.File(chunk, "r") as file:
            parts.append(_part(file, layout, mass or layout.mass, total, len(chunks)))
    _check_total(chunks, layout, [len(part["mass"]) for part in parts], total)
    parts = [part for part in parts if len(part["mass"])]
    if not parts:
        raise CatalogError(f"{chunks[0]}: holds no group")
    if len({tuple(part) for part in parts}) > 1:
        raise CatalogError(f"{chunks[0]}: some of its chunks lack {layout.velocity} or GroupAscale")
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    with reading(chunks[0], "a file of groups"):
        return _halos(chunks, joined, units, parameters, scale, side, mass or layout.mass, source)


def _halos(
    chunks: list[Path],
    joined: dict[str, Array],
    units: dict[str, _Unit],
    found: dict[str, float],
    scale: float,
    side: float,
    mass: str,
    source: str,
) -> Halos:
    h = found["h"]
    there = joined["mass"] != 0.0
    joined = {name: array[there] for name, array in joined.items()}
    scales = joined.pop("scale", np.full(len(joined["mass"]), scale))
    cone = bool((np.abs(scales / scale - 1.0) > 1e-5).any())
    number = f" in {len(chunks)} chunks" if len(chunks) > 1 else ""
    halos = Halos(
        units["position"].of(joined["position"], scale, h),
        units["mass"].of(joined["mass"], scale, h),
        cosmology=found,
        notes=[
            f"groups {chunks[0].name}{number}, sha256 {sha256(chunks[0])}",
            f"mass {mass}, {source}, subhalos are not in it",
        ],
    )
    if "velocity" in joined:
        unit = replace(units["velocity"], a_power=0.0) if cone else units["velocity"]
        halos.velocity_kms = unit.of(joined["velocity"], scale, h)
        halos.notes.append(f"peculiar velocity = stored number x a^{unit.a_power:g}")
    if not there.all():
        halos.notes.append(f"{np.count_nonzero(~there)} groups with {mass} = 0 left out")
    if cone:
        halos.notes.append(
            f"groups on a light cone, scale factors {scales.min():g} to {scales.max():g}, observer "
            "at the origin"
        )
    else:
        halos.side_Mpc, halos.redshift = float(units["side"].of(side, scale, h)), 1.0 / scale - 1.0
        halos.notes.append(f"from a periodic box of side {halos.side_Mpc:g} Mpc")
    halos.check()
    return halos


def _layout(file: Any) -> _Layout | None:
    attributes = file["Header"].attrs if holds(file, "Header") else {}
    return next((a for a in _LAYOUTS if a.total in attributes), None)


def _stated(file: Any, *names: str) -> float | None:
    """The first number of an attribute in the header, the parameters or the cosmology."""
    for group in ("Header", "Parameters", "Cosmology"):
        for name in names:
            if holds(file, group) and name in file[group].attrs:
                value = np.ravel(file[group].attrs[name])
                if value.size and value.dtype.kind in "fiu" and np.isfinite(value[0]):
                    return float(value[0])
    return None


def _number(file: Any, name: str) -> float:
    value = _stated(file, name)
    if value is None:
        raise CatalogError(f"its header lacks {name}")
    if name == "Redshift" and not value > -1.0:
        raise CatalogError(f"its header says Redshift = {value:g}")
    return value


def _count(file: Any, name: str) -> int:
    value = _number(file, name)
    if value < 0 or value != round(value):
        raise CatalogError(f"its header says {name} = {value:g}")
    return int(value)


def _cosmology(file: Any) -> dict[str, float]:
    """What the file says about the cosmology; CatalogError unless it is flat."""
    named = {
        "Omega_m": _stated(file, "Omega0", "Omega_m"),
        "Omega_b": _stated(file, "OmegaBaryon", "Omega_b"),
        "h": _stated(file, "HubbleParam", "h"),
    }
    found = {name: value for name, value in named.items() if value is not None and value > 0.0}
    dark = _stated(file, "OmegaLambda", "Omega_lambda")
    if "Omega_m" in found and dark is not None and abs(found["Omega_m"] + dark - 1.0) > 2e-3:
        raise CatalogError(
            f"the universe must be flat, but Omega_m + Omega_Lambda = {found['Omega_m'] + dark:g}"
        )
    return found


def _side(file: Any) -> float:
    sides = np.ravel(file["Header"].attrs.get("BoxSize", ()))
    if sides.size == 0 and (stated := _stated(file, "BoxSize")) is not None:
        sides = np.array([stated])
    if sides.size == 0 or sides.dtype.kind not in "fiu" or not (sides > 0.0).all():
        raise CatalogError("its header lacks BoxSize")
    if np.ptp(sides) > 1e-6 * sides[0]:
        raise CatalogError(f"its box is no cube: BoxSize = {', '.join(f'{a:g}' for a in sides)}")
    return float(sides[0])


def _units(
    file: Any, layout: _Layout, mass: str, length: str | None
) -> tuple[dict[str, _Unit], str]:
    """Units of position, mass, velocity and side, and in words where they are from."""
    table = group_of(file, layout.table) if holds(file, layout.table) else {}
    place = _beside(table, layout.position, CM_PER_MPC)
    weight = _beside(table, mass, G_PER_MSUN)
    if place is not None and weight is not None:
        comoving = _Unit(place.factor, place.a_power - 1.0, place.h_power)
        speed = _beside(table, layout.velocity, CM_S_PER_KMS)
        named = {"position": comoving, "mass": weight, "side": comoving}
        named["velocity"] = speed or _Unit(1.0, -1.0, 0.0)
        assumed = ", velocities in km/s/a (assumed)" if speed is None else ""
        return named, "units as the datasets state them" + assumed * (layout.velocity in table)
    centimetres, grams = _stated(file, "UnitLength_in_cm"), _stated(file, "UnitMass_in_g")
    if centimetres and grams:
        if min(centimetres, grams) <= 0.0:
            raise CatalogError(f"its units are {centimetres:g} cm and {grams:g} g")
        factors = [_rounded(centimetres / CM_PER_MPC), _rounded(grams / G_PER_MSUN)]
        speed_cgs = _stated(file, "UnitVelocity_in_cm_per_s")
        kms = _rounded((speed_cgs or CM_S_PER_KMS) / CM_S_PER_KMS)
        source = "units as the header states them"
        source += "" if speed_cgs else " and km/s (assumed)"
    elif length in ("Mpc/h", "kpc/h"):
        factors, kms = [1.0 if length == "Mpc/h" else 1e-3, 1e10], 1.0
        source = f"in 1e10 Msun/h, lengths in {length} (as given), velocities in km/s"
    else:
        raise CatalogError(
            "it states no UnitLength_in_cm and UnitMass_in_g: say --units kpc/h or --units Mpc/h "
            "(its masses are then taken as 1e10 Msun/h)"
        )
    asked = {"Mpc/h": 1.0, "kpc/h": 1e-3}.get(length or "", factors[0])
    if abs(asked / factors[0] - 1.0) > 1e-2:
        raise CatalogError(f"it says that its lengths are in {factors[0]:g} Mpc/h, not {length}")
    source += f" ({factors[0]:g} Mpc/h, {factors[1]:g} Msun/h, {kms:g} km/s)"
    long = _Unit(factors[0], 0.0, -1.0)
    named = {"position": long, "side": long, "mass": _Unit(factors[1], 0.0, -1.0)}
    return named | {"velocity": _Unit(kms, -1.0, 0.0)}, source


def _beside(table: Any, name: str, cgs: float) -> _Unit | None:
    """The unit in the attributes of a dataset, as Arepo or SWIFT write them."""
    attributes = table[name].attrs if table and holds(table, name) else {}
    for factor, a_power, h_power in (
        ("to_cgs", "a_scaling", "h_scaling"),
        ("Conversion factor to CGS (not including cosmological corrections)",
         "a-scale exponent", "h-scale exponent"),
    ):  # fmt: skip
        if factor in attributes and a_power in attributes and h_power in attributes:
            values = [float(np.ravel(attributes[key])[0]) for key in (factor, a_power, h_power)]
            if values[0] > 0.0:
                return _Unit(_rounded(values[0] / cgs), values[1], values[2])
    return None


def _rounded(factor: float) -> float:
    """A power of ten if it is one up to the digits of somebody's constants."""
    power = 10.0 ** round(np.log10(factor))
    return power if abs(factor / power - 1.0) < 2e-3 else factor


def _part(file: Any, layout: _Layout, mass: str, total: int, num_chunks: int) -> dict[str, Array]:
    """Mass, position, velocity and scale factor of a chunk, as stored."""
    here = _count(file, layout.here)
    if _count(file, layout.total) != total:
        raise CatalogError(f"it is of a set with {_count(file, layout.total)} groups, not {total}")
    num_files = _stated(file, layout.num_files)
    if num_files is not None and here != total and int(num_files) != num_chunks:
        raise CatalogError(
            f"its header says that there are {int(num_files)} chunks, {num_chunks} are here"
        )
    empty = {"mass": np.zeros(0), "position": np.zeros((0, 3))}
    if here == 0:
        return empty
    table = group_of(file, layout.table) if holds(file, layout.table) else {}
    named = {"mass": mass, "position": layout.position}
    if table and holds(table, layout.velocity):
        named["velocity"] = layout.velocity
    if table and holds(table, "GroupAscale"):
        named["scale"] = "GroupAscale"
    part = {}
    for key, name in named.items():
        if not (table and holds(table, name)):
            known = [a for a in table if "mass" in a.lower() or "_M_" in a]
            hint = f": {nearest(name, known)}" if key == "mass" else ""
            raise CatalogError(f"there is no dataset {layout.table}/{name}{hint}")
        dataset: Any = dataset_of(table, name)
        shape = (here, 3) if key in ("position", "velocity") else (here,)
        if getattr(dataset, "shape", None) != shape or dataset.dtype.kind not in "fiu":
            raise CatalogError(
                f"{layout.table}/{name} must hold {' x '.join(map(str, shape))} numbers, its shape "
                f"is {getattr(dataset, 'shape', None)}"
            )
        part[key] = content_of(dataset).astype(np.float64)
    return part


def _check_total(chunks: list[Path], layout: _Layout, sizes: list[int], total: int) -> None:
    if sum(sizes) != total:
        raise CatalogError(
            f"{chunks[0]}: {sum(sizes)} groups in {len(chunks)} chunk(s), its header says that "
            f"there are {total} ({layout.total}): a chunk is missing or named otherwise than "
            f"{re.sub(r'[.]0[.]', '.N.', chunks[0].name)}"
        )
