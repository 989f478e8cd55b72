"""Halos out of any table with named columns, by the help of a column map."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.catalogs.headers import CatalogError
from streamtrain.catalogs.readers.columnmap import QUANTITIES, Column, ColumnMap, load_map
from streamtrain.catalogs.readers.columnmeta import Units
from streamtrain.catalogs.readers.expressions import RATE, Unit, is_stated, read_unit
from streamtrain.catalogs.readers.halos import (
    Halos,
    files_beside,
    files_of,
    merged_cosmology,
    reading,
)
from streamtrain.catalogs.readers.tablefile import TEXT_ENDINGS, Columns, read_columns, stated_h
from streamtrain.catalogs.readers.text import ending_notes
from streamtrain.catalogs.readers.view import FORWARD, View, centre_advice
from streamtrain.cosmology import C_KMS, Cosmology
from streamtrain.machine.files import sha256

Array = NDArray[np.float64]

H_DIFFERS = 0.003
"""Share by which two values of h are those of different cosmologies, and not rounded."""
MAX_LOG10 = 30.0
"""Larger numbers are not taken for the logarithm of a mass."""
_PER_H = r"\s*/\s*h|[\s_]*(?:per|over)?[\s_]*h(?:inv)?|[\s_]*h\^?-1"
_SUFFIX = re.compile(
    r"(?:^|[\s_])(1e10[\s_]*)?(h(?:\^?-1|inv)[\s_]*)?(M_?sun|[kMG]pc)(" + _PER_H + ")?$", re.I
)
"""What a name can end in: factor, 1/h, unit, 1/h."""
_DIVIDED = re.compile(r"(Msun|[kMG]pc)/h")
"""Units that a division by h makes plain."""
_LOGARITHM = re.compile(r"(log(_?10)?|lg)([^a-z]|m|sfr)", re.I)
"""Names of logarithms."""


def read_table(
    path: Path,
    columns: Path | Mapping[str, Any] | ColumnMap,
    *,
    cosmology: Mapping[str, float] | None = None,
    redshift: float | None = None,
    view: View = FORWARD,
) -> Halos:
    """The halos of a table, converted to Mpc, Msun and km/s; `redshift` is that of a snapshot
    whose map does not state it, `view` is for x, y, z. `path` may be a pattern like NAME.*.hdf5,
    whose files are joined. Raises CatalogError.

    x, y, z are as seen from the origin (or in a periodic box); ra and dec are turned so that
    `centre_deg` lies on +z, their distance is that of z_cos, of z_obs without v_los, or of z_obs.
    """
    chosen = columns if isinstance(columns, ColumnMap) else load_map(columns)
    every = {**chosen.quantities, **{f"columns.{n}": c for n, c in chosen.columns.items()}}
    needed = [name for column in every.values() for name in column.inputs]
    files = files_of(path)
    found, units = _joined(files, needed, chosen.table)
    with reading(files[0], "a table"):
        parameters = merged_cosmology(chosen.cosmology, cosmology, complete=False)
        notes: list[str] = []
        _check_h(files[0], every, parameters.get("h"))
        values = {
            key: _values(key, column, found, units, parameters.get("h"), notes)
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
        number = f" and {len(files) - 1} more of {path.name}" if len(files) > 1 else ""
        halos.notes.append(f"table {files[0].name}{number}, sha256 {sha256(files[0])}")
        if len(files) == 1 and (others := files_beside(path)):
            halos.notes.append(f"{others} files of that name with other numbers are not in it")
        halos.notes.append(
            "read as " + ", ".join(f"{k} = {c.name} [{c.unit.text}]" for k, c in every.items())
        )
        halos.notes += _units_in_expressions(every.values(), units) + notes
        if files[0].name.lower().endswith(TEXT_ENDINGS):
            halos.notes += [f"{f.name}: {note}" for f in files for note in ending_notes(f)]
        halos.sure_of_mass = chosen.quantities["mass"].sure
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
            halos.side_Mpc = float(_plain("box.side", np.array(side), unit, parameters.get("h")))
            halos.notes.append(f"from a periodic box of side {halos.side_Mpc:g} Mpc")
    return halos


def _check_h(file: Path, columns: Mapping[str, Column], h: float | None) -> None:
    """CatalogError where units with h are to be converted with another h than the file states."""
    with_h = [key for key, column in columns.items() if column.unit.h_power]
    if h is None or not with_h:
        return
    for name, own in stated_h(file).items():
        if abs(own - h) > H_DIFFERS * own:
            raise CatalogError(
                f"{with_h[0]} is in {columns[with_h[0]].unit.text}, and by {name} of the file h is "
                f"{own:.6g}, but the cosmology has h = {h:g}: give the file's, or convert with an "
                "expression, like X/0.7 in Mpc, which nothing compares"
            )


def _joined(files: Sequence[Path], names: Sequence[str], table: str) -> tuple[Columns, Units]:
    """Columns of one file, or of several with the same columns in the same units."""
    parts: list[tuple[Columns, Units]] = []
    for file in files:
        with reading(file, "a table"):
            found, units = read_columns(file, names, table)
            if parts and units != parts[0][1]:
                raise CatalogError(f"its units, {units}, are not those of {files[0].name}")
            sizes = {name: array.shape[:1] for name, array in found.items()}
            if len(files) > 1 and len(set(sizes.values())) > 1:
                raise CatalogError(f"columns of different length: {sizes}")
            parts.append((found, units))
    if len(parts) == 1:
        return parts[0]
    with reading(files[0], "a table"):
        joined = {name: np.ma.concatenate([found[name] for found, _ in parts]) for name in names}
        return joined, parts[0][1]


def _units_in_expressions(columns: Iterable[Column], units: Units) -> list[str]:
    """What the file says about the columns of expressions, which nothing compares."""
    inputs = dict.fromkeys(a for column in columns if column.expression for a in column.inputs)
    stated = [f"{name} in {units[name]}" for name in inputs if units.get(name)]
    return [f"in expressions, by the file: {', '.join(stated)}"] if stated else []


def _values(
    key: str, column: Column, found: Columns, units: Units, h: float | None, notes: list[str]
) -> Array:
    """The numbers of a quantity in Mpc, Msun, km/s or deg; CatalogError unless all are there."""
    if column.expression is not None:
        for name in column.inputs:
            _check_present(key, name, found[name])
        try:
            array = column.expression.evaluate({n: np.asarray(a) for n, a in found.items()})
        except CatalogError as error:
            raise CatalogError(f"{key}: {error}") from None
        return _converted(key, column, array, h)
    array = found[column.name]
    if column.index is not None:
        if array.ndim != 2 or column.index >= array.shape[1]:
            raise CatalogError(f"{key}: '{column.name}' has no index {column.index}")
        array = array[:, column.index]
    elif array.ndim == 2 and 1 in array.shape:
        array = array.ravel()  # as MATLAB and IDL write a column
    if array.dtype.kind not in "fiu":
        raise CatalogError(f"{key}: '{column.name}' holds no real numbers (it is {array.dtype})")
    if array.ndim != 1:
        raise CatalogError(
            f"{key}: '{column.name}' has shape {array.shape}, one number per halo is needed (index)"
        )
    _check_present(key, column.name, array)
    _compare_unit(key, column, units.get(column.name, ""), h, notes)
    return _converted(key, column, np.asarray(array, np.float64), h)


def _check_present(key: str, name: str, array: NDArray[Any]) -> None:
    missing = np.ma.getmaskarray(array)
    if missing.any():
        row, number = np.argwhere(missing)[0][0], np.count_nonzero(missing)
        raise CatalogError(
            f"{key}: '{name}' has no value at row {row} ({number} of {missing.size} are missing): "
            "give it values, or leave those halos out"
        )


def _compare_unit(key: str, column: Column, stated: str, h: float | None, notes: list[str]) -> None:
    """CatalogError if the file states another unit for a column than the map, or one that cannot
    be compared; a note if the map is sure, or if the unit is not converted."""
    allowed = RATE if key == "columns.sfr" else QUANTITIES.get(key)
    if allowed is None or (allowed is RATE and read_unit(stated, RATE) is None):
        if is_stated(stated) and "".join(stated.split()) != "".join(column.unit.text.split()):
            notes.append(f"{key} in {column.unit.text} by the map, in {stated} by the file")
        return
    if not is_stated(stated):
        stated = _unit_in_name(column.name)
    unit = read_unit(stated, allowed)
    logarithm = key in ("mass", "columns.sfr") and _LOGARITHM.match(column.name)
    if logarithm and unit is not None and not unit.log10:  # that of what the logarithm is of
        stated = f"log10 {stated}"
        unit = read_unit(stated, allowed)
    if not is_stated(stated) or (unit is not None and unit.same(column.unit)):
        return
    says = f"the file says that '{column.name}' is in {stated}, the map says "
    says += column.unit.text or "a redshift"
    sure = "if the map is right add sure: true to it"
    sure += f" (--columns sure={key})" if key in QUANTITIES else ""
    if column.sure:
        notes.append(f"{says}, which was believed")
    elif unit is None:
        raise CatalogError(
            f"{key}: {says}, and the two cannot be compared: convert the column, or {sure}"
        )
    else:
        by_h = "" if h is None else f" (h = {h:g}"
        if h is not None:
            by_h += f"; in words {column.name}/{h:g})" if _DIVIDED.fullmatch(stated) else ")"
        by_h = by_h or " (and give h in the cosmology)"
        raise CatalogError(
            f"{key}: {says}: write unit: {stated}{by_h if unit.h_power else ''}, or {sure}"
        )


def _unit_in_name(name: str) -> str:
    """The unit that a name like "M200 [Msun/h]", "mass_Msun_h" or "M200 Msun/h" ends in, else
    nothing."""
    bracket = re.search(r"\[([^\[\]]+)\]$|\((.+)\)$", name)
    text = (bracket[1] or bracket[2]) if bracket else ""
    inner = re.search(r"\[([^\[\]]+)\]\)$", name)  # log10(M [Msun])
    for found in (text, inner[1] if inner else ""):
        if found and any(read_unit(found, units) for units in (*QUANTITIES.values(), RATE)):
            return found
    suffix = _SUFFIX.search(name)
    if not suffix:
        return ""
    unit = {"k": "kpc", "m": "Mpc", "g": "Gpc"}[suffix[3][0].lower()]
    unit = "Msun" if suffix[3].lower().endswith("sun") else unit
    return ("1e10 " if suffix[1] else "") + unit + ("/h" if suffix[2] or suffix[4] else "")


def _converted(key: str, column: Column, values: Array, h: float | None) -> Array:
    _check_finite(key, column, values)
    if column.unit.log10 and np.max(values, initial=0.0) > MAX_LOG10:
        raise CatalogError(
            f"{key}: '{column.name}' reaches {values.max():.6g}, which is no log10: it looks like "
            f"{'masses' if key == 'mass' else 'rates'} themselves"
        )
    return _plain(key, values, column.unit, h)


def _plain(key: str, values: Array, unit: Unit, h: float | None) -> Array:
    if unit.log10:
        values = 10.0**values
    if unit.h_power and h is None:
        raise CatalogError(f"{key} is in {unit.text} and h is unknown: give it in the cosmology")
    return values * unit.factor * (h or 1.0) ** unit.h_power


def _check_finite(key: str, column: Column, values: Array) -> None:
    bad = ~np.isfinite(values)
    if bad.any():
        row = int(np.argmax(bad))
        raise CatalogError(
            f"{key} = {values[row]} at row {row} (column '{column.name}', {np.count_nonzero(bad)} "
            "such values): every number must be finite"
        )


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
    if ra.size and np.abs(ra).max() > 2.0 * np.pi + 1e-9:
        raise CatalogError(f"ra reaches {np.degrees(np.abs(ra).max()):g} deg, beyond 360")
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
    halos.by_angles = True
    if chosen.centre_deg is not None:
        halos.notes.append(f"ra, dec = {chosen.centre_deg} deg turned to the line of sight")
    elif depth.size and depth.min() <= 0.0:
        raise CatalogError(
            f"halos lie more than 90 deg from ra = dec = 0: {centre_advice(halos.position_Mpc)}"
        )
