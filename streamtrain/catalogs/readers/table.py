"""Halos out of any table with named columns, told by a column map."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.catalogs.lightcone import CatalogError
from streamtrain.catalogs.readers.columnmap import (
    QUANTITIES,
    SCALED,
    Column,
    ColumnMap,
    Unit,
    load_map,
)
from streamtrain.catalogs.readers.halos import Halos, merged_cosmology, reading, sha256
from streamtrain.catalogs.readers.tablefile import Columns, Units, read_columns
from streamtrain.catalogs.readers.view import FORWARD, View
from streamtrain.cosmology import C_KMS, Cosmology

Array = NDArray[np.float64]

_KNOWN = {unit for units in QUANTITIES.values() for unit in units if unit}
_KNOWN |= {f"{speed}{suffix}" for speed in QUANTITIES["v_los"] for suffix in SCALED}


def read_table(
    path: Path,
    columns: Path | Mapping[str, Any] | ColumnMap,
    *,
    cosmology: Mapping[str, float] | None = None,
    redshift: float | None = None,
    view: View = FORWARD,
) -> Halos:
    """The halos of a table, converted to Mpc, Msun and km/s; `redshift` is that of a snapshot
    whose map does not state it, `view` is for x, y, z. Raises CatalogError.

    x, y, z are as seen from the origin (or in a periodic box); ra and dec are turned so that
    `centre_deg` lies on +z, their distance is that of z_cos, of z_obs without v_los, or of z_obs.
    """
    chosen = columns if isinstance(columns, ColumnMap) else load_map(columns)
    with reading(path, "a table"):
        every = {**chosen.quantities, **{f"columns.{n}": c for n, c in chosen.columns.items()}}
        needed = [name for column in every.values() for name in column.inputs]
        found, units = read_columns(path, needed, chosen.table)
        parameters = merged_cosmology(chosen.cosmology, cosmology, complete=False)
        values = {
            key: _values(key, column, found, units, parameters.get("h"))
            for key, column in every.items()
        }
        for key, column in every.items():
            if column.unit.a_power:
                scale = _scale_factor(key, column, values, chosen.redshift, redshift)
                values[key] = values[key] * scale**column.unit.a_power
        sizes = {key: len(array) for key, array in values.items()}
        if len(set(sizes.values())) > 1:
            raise CatalogError(
                "columns of different length: " + ", ".join(f"{k} {n}" for k, n in sizes.items())
            )
        extra = {name: values.pop(f"columns.{name}") for name in chosen.columns}
        halos = Halos(np.zeros((0, 3)), values["mass"], columns=extra, cosmology=parameters)
        halos.notes.append(f"table {path.name}, sha256 {sha256(path)}")
        halos.notes.append(
            "read as " + ", ".join(f"{k} = {c.name} [{c.unit.text}]" for k, c in every.items())
        )
        halos.notes += _units_in_expressions(every.values(), units)
        _check_finite(values)
        if "x" in values:
            _cartesian(halos, values, view)
        elif view:
            raise CatalogError(
                "ra and dec are as the observer sees them: --observer and --line-of-sight are for "
                "x, y, z (centre_deg in the map turns a field to the line of sight)"
            )
        else:
            _sky(halos, values, chosen, parameters)
        halos.check()
        halos.redshift = chosen.redshift
        if chosen.side is not None:
            side, unit = chosen.side
            halos.side_Mpc = float(
                _converted("box.side", np.array(side), unit, parameters.get("h"))
            )
            halos.notes.append(f"from a periodic box of side {halos.side_Mpc:g} Mpc")
    return halos


def _units_in_expressions(columns: Iterable[Column], units: Units) -> list[str]:
    """What the file says about the columns of expressions, which nothing compares."""
    inputs = dict.fromkeys(a for column in columns if column.expression for a in column.inputs)
    stated = [f"{name} in {units[name]}" for name in inputs if units.get(name)]
    return [f"in expressions, by the file: {', '.join(stated)}"] if stated else []


def _values(key: str, column: Column, found: Columns, units: Units, h: float | None) -> Array:
    if column.expression is not None:
        try:
            array = column.expression.evaluate(found)
        except CatalogError as error:
            raise CatalogError(f"{key}: {error}") from None
        return _converted(key, array, column.unit, h)
    array = found[column.name]
    if column.index is not None:
        if array.ndim != 2 or column.index >= array.shape[1]:
            raise CatalogError(f"{key}: '{column.name}' has no index {column.index}")
        array = array[:, column.index]
    if array.dtype.kind not in "fiu":
        raise CatalogError(f"{key}: '{column.name}' holds no real numbers (it is {array.dtype})")
    if array.ndim != 1:
        raise CatalogError(
            f"{key}: '{column.name}' has shape {array.shape}, one number per halo is needed (index)"
        )
    stated = "".join(units.get(column.name, "").split())
    if stated and not key.startswith("columns.") and column.unit.text:
        asked = "".join(column.unit.text.split())
        stated = stated.replace("solMass", "Msun")
        if stated != asked and stated.removesuffix("/h") in _KNOWN:
            raise CatalogError(
                f"{key}: the file says that '{column.name}' is in {stated}, the map says {asked}"
            )
    return _converted(key, array.astype(np.float64), column.unit, h)


def _converted(key: str, values: Array, unit: Unit, h: float | None) -> Array:
    if unit.log10:
        values = 10.0**values
    if unit.h_power and h is None:
        raise CatalogError(f"{key} is in {unit.text} and h is unknown: give it in the cosmology")
    return values * unit.factor * (h or 1.0) ** unit.h_power


def _scale_factor(
    key: str,
    column: Column,
    values: Mapping[str, Array],
    mapped: float | None,
    given: float | None,
) -> Array:
    """Of the halos or of their snapshot: from z_cos, else the map's redshift or the given one."""
    redshift = mapped if mapped is not None else given
    if "z_cos" not in values and redshift is None:
        raise CatalogError(
            f"{key} is in {column.unit.text} and the scale factor a is unknown: say z_cos in the "
            "map, or the redshift of the snapshot (box: {redshift: ...} or --redshifts)"
        )
    z = values["z_cos"] if "z_cos" in values else np.asarray(redshift, np.float64)
    if z.size and not z.min() > -1.0:
        raise CatalogError(f"redshift {z.min():g} has no scale factor: it must be above -1")
    if len({array.shape for array in (z, values[key]) if array.ndim}) > 1:
        raise CatalogError(f"columns of different length: z_cos {len(z)}, {key} {len(values[key])}")
    return 1.0 / (1.0 + z)


def _check_finite(values: Mapping[str, Array]) -> None:
    for name, array in values.items():
        if not np.isfinite(array).all():
            row = int(np.argmin(np.isfinite(array)))
            raise CatalogError(
                f"{name} = {array[row]} at row {row} ({np.count_nonzero(~np.isfinite(array))} "
                "such values): every number must be finite"
            )


def _cartesian(halos: Halos, values: Mapping[str, Array], view: View) -> None:
    halos.position_Mpc = np.stack([values[name] for name in "xyz"], axis=-1)
    if "vx" in values:
        halos.velocity_kms = np.stack([values[name] for name in ("vx", "vy", "vz")], axis=-1)
    halos.position_Mpc, halos.velocity_kms, turned = view.turned(
        halos.position_Mpc, halos.velocity_kms
    )
    halos.notes += turned
    if "z_obs" in values:
        halos.z_obs = values["z_obs"]
    elif "v_los" in values or "z_cos" in values:
        chi = np.sqrt(np.sum(halos.position_Mpc**2, axis=1))
        model = Cosmology.from_dict(merged_cosmology(halos.cosmology, None))
        z_cos = values["z_cos"] if "z_cos" in values else model.redshift(chi)
        if "vx" in values:
            towards = halos.position_Mpc / np.maximum(chi, 1e-9)[:, None]
            v_los = np.sum(towards * halos.velocity_kms, axis=1)
        else:
            v_los = values.get("v_los", np.zeros(len(chi)))
            if "v_los" not in values:
                halos.notes.append("z_obs = z_cos, without peculiar velocities")
        halos.z_obs = z_cos + (1.0 + z_cos) * v_los / C_KMS


def _sky(
    halos: Halos, values: Mapping[str, Array], chosen: ColumnMap, parameters: dict[str, float]
) -> None:
    """Positions from angles and redshift; the point centre_deg is turned to +z."""
    model = Cosmology.from_dict(merged_cosmology(parameters, None))
    speed = values["v_los"] / C_KMS if "v_los" in values else None
    if "z_cos" in values:
        z_cos = values["z_cos"]
    elif speed is not None:
        z_cos = (values["z_obs"] - speed) / (1.0 + speed)
    else:
        z_cos = values["z_obs"]
        halos.notes.append("distances from z_obs: positions are in redshift space")
    if "z_obs" in values:
        halos.z_obs = values["z_obs"]
    elif speed is not None:
        halos.z_obs = z_cos + (1.0 + z_cos) * speed
    else:
        halos.z_obs = z_cos
        halos.notes.append("z_obs = z_cos, without peculiar velocities")
    if z_cos.size and z_cos.min() <= 0.0:
        raise CatalogError(f"redshift {z_cos.min():g} gives no distance: it must be above 0")
    ra, dec = np.radians(values["ra"]), np.radians(values["dec"])
    if dec.size and np.abs(dec).max() > np.pi / 2 + 1e-9:
        raise CatalogError(f"dec reaches {np.degrees(np.abs(dec).max()):g} deg, beyond 90")
    ra_0, dec_0 = np.radians(chosen.centre_deg or (0.0, 0.0))
    side = np.cos(dec) * np.sin(ra - ra_0)
    ahead = np.cos(dec) * np.cos(ra - ra_0)
    up = np.sin(dec)
    depth = np.cos(dec_0) * ahead + np.sin(dec_0) * up
    height = np.cos(dec_0) * up - np.sin(dec_0) * ahead
    chi = model.comoving_distance(z_cos)
    halos.position_Mpc = np.stack([-side * chi, height * chi, depth * chi], axis=-1)
    if chosen.centre_deg is not None:
        halos.notes.append(f"ra, dec = {chosen.centre_deg} deg turned to the line of sight")
    elif depth.size and depth.min() <= 0.0:
        raise CatalogError(
            "halos lie more than 90 deg from ra = dec = 0: say centre_deg: [ra, dec] in the map"
        )
