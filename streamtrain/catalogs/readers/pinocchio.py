"""PINOCCHIO's past light cones and snapshot catalogs, in ASCII and binary (V5; V4 light cones).

The ASCII headers name every column with its unit, and these are believed. The binary files carry
no unit: true Mpc and Msun are assumed unless the run's `parameter_file` beside them asks for
OutputInH100. The cosmology and the box are only in that parameter file. A light cone points along
the axis of the run, which `pinocchio.RUN.geometry.out` has and the column theta implies; it is
turned to +z.

References:
    PINOCCHIO (Monaco et al., 2002 and 2013), arXiv:astro-ph/0109323, arXiv:1305.1505;
    file layouts: scripts/ReadPinocchio5.py of github.com/pigimonaco/Pinocchio
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.catalogs.headers import CatalogError
from streamtrain.catalogs.readers.halos import Halos, reading
from streamtrain.catalogs.readers.text import check_last_line, comment_lines, load_numbers
from streamtrain.cosmology import C_KMS
from streamtrain.machine.files import MAX_TABLE_BYTES, read_text, sha256

_PLC = [
    ("name", "<u8"),
    ("z_cos", "<f4"),
    ("position", "<f4", 3),
    ("velocity", "<f4", 3),
    ("mass", "<f4"),
    ("theta", "<f4"),
    ("phi", "<f4"),
    ("v_los", "<f4"),
    ("z_obs", "<f4"),
]
PLC = np.dtype(_PLC)
"""A halo of a binary past light cone: 56 bytes."""
_PLC_CLASSIC = [("head", "<i4"), *_PLC, ("tail", "<i4")]
CATALOG = np.dtype(
    [
        ("name", "<i8"),
        ("mass", "<f4"),
        ("position", "<f4", 3),
        ("velocity", "<f4", 3),
        ("initial", "<f4", 3),
        ("num_particles", "<i4"),
        ("padding", "<i4"),
    ]
)
"""A halo of a binary snapshot catalog: 56 bytes (48 in the light format, without the last two)."""
_LIGHT_CATALOG = np.dtype([("name", "<i8"), *((n, "<f4", 3) if n != "mass" else (n, "<f4")
                           for n in ("mass", "position", "velocity", "initial"))])  # fmt: skip
_PLC_COLUMNS = {
    "true redshift": 1,
    "comoving position": 3,
    "velocity": 3,
    "group mass": 1,
    "theta": 1,
    "observed redshift": 1,
}
_CATALOG_COLUMNS = {"group mass": 1, "final position": 3, "velocity": 3}
_COSMOLOGY = {
    "Omega0": "Omega_m",
    "OmegaBaryon": "Omega_b",
    "Hubble100": "h",
    "PrimordialIndex": "n_s",
    "Sigma8": "sigma8",
}
MAX_SHIFT = 1e-4
"""Largest credible |z_obs - z_cos - (1 + z_cos) v_los/c|: PINOCCHIO writes six decimals."""


def read_plc(
    path: Path,
    *,
    cosmology: Mapping[str, float] | None = None,
    axis: Sequence[float] | None = None,
    h_units: bool | None = None,
) -> Halos:
    """A past light cone, turned so that its axis is +z; z_obs is in redshift space.

    `axis` is the direction of the cone (default: as in the module's text); `h_units` says whether
    lengths are Mpc/h and masses Msun/h where the file does not. Raises CatalogError.
    """
    with reading(path, "a PINOCCHIO past light cone", whole=True):
        run = _run_of(path)
        text = _is_text(path)
        if text:
            columns, units = _read_ascii(path, _PLC_COLUMNS, "past light cone")
            sine = np.sin(np.radians(columns["theta"]))
            position, velocity = columns["comoving position"], columns["velocity"]
            mass, z_cos = columns["group mass"], columns["true redshift"]
            z_obs = columns["observed redshift"]
        else:
            rows = np.concatenate([_read_binary_plc(part) for part in _parts(path)])
            units = {}
            sine = np.sin(np.radians(rows["theta"].astype(np.float64)))
            position, velocity = rows["position"], rows["velocity"]
            mass, z_cos, z_obs = rows["mass"], rows["z_cos"], rows["z_obs"]
        halos = Halos(position, mass, velocity, z_obs)
        halos.check()
        halos.notes.append(_source("past light cone", path))
        _apply_run(halos, run, units, h_units, cosmology)
        direction, source = _axis(path, axis, halos.position_Mpc, sine)
        halos.notes.append(
            f"turned from the axis ({', '.join(f'{a:.6f}' for a in direction)}) {source} to +z"
        )
        turn = _rotation_to_z(direction)
        halos.position_Mpc = halos.position_Mpc @ turn.T
        halos.velocity_kms = velocity @ turn.T
        chi = np.sqrt(np.sum(halos.position_Mpc**2, axis=1))
        v_los = np.sum(halos.position_Mpc * halos.velocity_kms, axis=1) / chi
        shift = np.abs(z_obs - z_cos - (1.0 + z_cos) * v_los / C_KMS)
        if shift.max() > MAX_SHIFT:
            row = int(shift.argmax())
            raise CatalogError(
                f"row {row} contradicts itself: true redshift {z_cos[row]:.6f} and velocity "
                f"{v_los[row]:.1f} km/s along the line of sight, observed redshift {z_obs[row]:.6f}"
            )
        halos.z_range = (float(z_cos.min()), float(z_cos.max()))
        outermost = float(np.min(halos.position_Mpc[:, 2] / chi))
        halos.cone_deg = float(np.degrees(np.arccos(np.clip(outermost, -1.0, 1.0))))
        halos.notes.append(f"cone of half-opening angle {halos.cone_deg:.4g} deg")
    return halos


def read_snapshot(
    path: Path,
    *,
    cosmology: Mapping[str, float] | None = None,
    redshift: float | None = None,
    h_units: bool | None = None,
) -> Halos:
    """A snapshot catalog: final positions in the periodic box. Raises CatalogError.

    The redshift is in the ASCII header, for binary files in the file's name.
    """
    with reading(path, "a PINOCCHIO snapshot catalog", whole=True):
        run = _run_of(path)
        named = re.match(r"pinocchio\.(\d+\.\d+)\.", path.name)
        if _is_text(path):
            columns, units = _read_ascii(path, _CATALOG_COLUMNS, "snapshot catalog")
            position, velocity = columns["final position"], columns["velocity"]
            mass = columns["group mass"]
            stated = re.search(r"redshift\s+([\d.]+)", " ".join(comment_lines(path)))
            found = float(stated.group(1)) if stated else None
        else:
            rows = np.concatenate([_read_binary_catalog(part) for part in _parts(path)])
            units = {}
            position, velocity, mass = rows["position"], rows["velocity"], rows["mass"]
            found = float(named.group(1)) if named else None
        halos = Halos(position, mass, velocity)
        halos.check()
        halos.notes.append(_source("snapshot", path))
        _apply_run(halos, run, units, h_units, cosmology)
        if found is not None and redshift is not None and abs(found - redshift) > 1e-3:
            raise CatalogError(f"the file is of redshift {found:g}, not {redshift:g}")
        halos.redshift = redshift if found is None else found
    return halos


def _source(kind: str, path: Path) -> str:
    more = len(_parts(path)) - 1
    name = f"{path.name} and {more} more" if more else path.name
    return f"PINOCCHIO {kind} {name}, sha256 {sha256(path)}"


def _parts(path: Path) -> list[Path]:
    """The file, or of NAME.out.0 all parts NAME.out.0, NAME.out.1 and so on.

    CatalogError if one is missing, before others or by NumFiles of the `parameter_file`.
    """
    if not re.search(r"\.\d+$", path.name):
        return [path]
    if path.suffix != ".0":
        raise CatalogError("a part of a catalog: name its first part, which ends in .0")
    parts = [path]
    while (following := path.with_suffix(f".{len(parts)}")).is_file():
        parts.append(following)
    numbers = re.compile(rf"{re.escape(path.stem)}\.(\d+)")
    matches = [numbers.fullmatch(a.name) for a in path.parent.iterdir()]
    there = [int(found.group(1)) for found in matches if found]
    written = _run_of(path).get("NumFiles", "")
    if max(there) >= len(parts) or (written.isdigit() and int(written) > len(parts)):
        raise CatalogError(f"its part {path.stem}.{len(parts)} is missing")
    return parts


def _is_text(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        raise CatalogError("an empty file")
    return start.startswith(b"#")


def _read_ascii(
    path: Path, wanted: Mapping[str, int], kind: str
) -> tuple[dict[str, NDArray[np.float64]], dict[str, str]]:
    """Columns by their label, and the unit of each; the header says where they are."""
    layout: dict[str, tuple[int, int, str]] = {}
    for line in comment_lines(path):
        found = re.match(r"#\s*(\d+)(?:\s*-\s*(\d+))?\)\s*([^(]*?)\s*(?:\((.*)\))?\s*$", line)
        if found:
            first, last, label, unit = found.groups()
            layout[label] = (int(first) - 1, int(last or first), unit or "")
    missing = [name for name in wanted if name not in layout]
    if missing:
        raise CatalogError(
            f"its header names no column '{missing[0]}', so it is no PINOCCHIO {kind} "
            f"(it names: {', '.join(layout) or 'no column'})"
        )
    for name, num in wanted.items():
        first, stop, _ = layout[name]
        if stop - first != num:
            raise CatalogError(f"the header gives '{name}' {stop - first} columns instead of {num}")
    if path.suffix == ".0":
        raise CatalogError("ASCII in several files is not read: put them into one with cat")
    check_last_line(path)
    table = load_numbers(path)
    width = max(stop for _, stop, _ in layout.values())
    if table.shape[1] != width:
        raise CatalogError(f"rows have {table.shape[1]} numbers, its header names {width} columns")
    columns = {}
    for name, num in wanted.items():
        first, stop, _ = layout[name]
        columns[name] = table[:, first] if num == 1 else table[:, first:stop]
    return columns, {name: layout[name][2] for name in wanted}


def _read_binary_plc(path: Path) -> NDArray[Any]:
    content = np.fromfile(path, np.uint8)
    first = content[:12].view("<i4") if content.size >= 12 else np.zeros(3, "<i4")
    if first[0] == 56:  # before V5: every halo between two markers
        dtype = np.dtype(_PLC_CLASSIC)
        if content.size % dtype.itemsize:
            raise CatalogError("truncated: its length is no multiple of a halo's 64 bytes")
        rows = content.view(dtype)
        if np.any(rows["head"] != 56) or np.any(rows["tail"] != 56):
            raise CatalogError("a halo's length marker is not 56: the file is damaged")
        return rows
    if first[0] != 4 or first[2] != 4:
        raise CatalogError("its first bytes are no header of a PINOCCHIO past light cone")
    if first[1] == 32:
        raise CatalogError("the light format has no positions: write the full light cone")
    if first[1] != PLC.itemsize:
        raise CatalogError(f"its halos have {first[1]} bytes, those of V5 have {PLC.itemsize}")
    return _blocks(content, 12, PLC)


def _read_binary_catalog(path: Path) -> NDArray[Any]:
    content = np.fromfile(path, np.uint8)
    head = content[:16].view("<i4") if content.size >= 16 else np.zeros(4, "<i4")
    if head[0] != 8 or head[3] != 8:
        raise CatalogError("its first bytes are no header of a PINOCCHIO snapshot catalog")
    if 0 < head[2] <= 10:
        raise CatalogError("the format of PINOCCHIO before V5 is not read: write it in ASCII")
    dtypes = {CATALOG.itemsize: CATALOG, _LIGHT_CATALOG.itemsize: _LIGHT_CATALOG}
    if int(head[2]) not in dtypes:
        raise CatalogError(f"its halos have {head[2]} bytes, those of V5 have 56 or 48")
    return _blocks(content, 16, dtypes[int(head[2])])


def _blocks(content: NDArray[np.uint8], start: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The halos of all blocks: markers around their number, then markers around the halos."""
    parts = []
    place = start
    while place < content.size:
        if content.size < place + 12:
            raise CatalogError("truncated in the header of a block")
        before, num, after = (int(a) for a in content[place : place + 12].view("<i4"))
        if before != 4 or after != 4 or num < 0:
            raise CatalogError(f"a block's length markers are damaged at byte {place}")
        place += 12
        if num == 0:
            continue
        size = num * dtype.itemsize
        if content.size < place + size + 8:
            raise CatalogError(
                f"truncated: a block of {num} halos needs {size + 8} bytes, "
                f"{content.size - place} are left"
            )
        edges = (content[place : place + 4], content[place + 4 + size : place + 8 + size])
        if any(int(edge.view("<u4")[0]) != size % 2**32 for edge in edges):
            raise CatalogError(f"a block's length markers are damaged at byte {place}")
        parts.append(content[place + 4 : place + 4 + size].view(dtype))
        place += size + 8
    if not parts:
        raise CatalogError("holds no halo")
    return np.concatenate(parts)


def _run_of(path: Path) -> dict[str, str]:
    """The settings of the `parameter_file` beside the catalog; empty without one."""
    beside = path.with_name("parameter_file")
    if not beside.is_file():
        return {}
    settings = {}
    for line in read_text(beside, MAX_TABLE_BYTES, errors="replace").splitlines():
        words = re.split(r"[#%]", line, maxsplit=1)[0].split()
        if words:
            settings[words[0]] = " ".join(words[1:])
    return settings


def _apply_run(
    halos: Halos,
    run: Mapping[str, str],
    units: Mapping[str, str],
    h_units: bool | None,
    given: Mapping[str, float] | None,
) -> None:
    """Cosmology and box from the parameter file; lengths and masses to Mpc and Msun."""
    if run:
        number = {name: _setting(run, name) for name in _COSMOLOGY}
        halos.cosmology = {_COSMOLOGY[name]: value for name, value in number.items()}
        if abs(number["Omega0"] + _setting(run, "OmegaLambda") - 1.0) > 2e-3:
            raise CatalogError("parameter_file: Omega0 + OmegaLambda must be 1 (a flat universe)")
        if "TabulatedEoSfile" in run and run["TabulatedEoSfile"] != "no":
            raise CatalogError("parameter_file: dark energy must be a cosmological constant")
        halos.notes.append("cosmology and box from the parameter_file beside it")
    h = (halos.cosmology | dict(given or {})).get("h")
    if run:
        assert h is not None
        halos.side_Mpc = _setting(run, "BoxSize") / (h if "BoxInH100" in run else 1.0)
        halos.notes.append(f"from a periodic box of side {halos.side_Mpc:g} Mpc")
    stated = {
        name: "/h" in unit for name, unit in units.items() if unit.startswith(("Mpc", "Msun"))
    }
    if stated and len(set(stated.values())) > 1:
        raise CatalogError(f"its header mixes units with and without h: {dict(units)}")
    if stated:
        with_h = next(iter(stated.values()))
        reason = "as its header says"
        if h_units is not None and h_units != with_h:
            raise CatalogError("its header contradicts the units that were given")
    elif h_units is not None:
        if run and h_units != ("OutputInH100" in run):
            raise CatalogError("the parameter_file contradicts the units that were given")
        with_h, reason = h_units, "as given"
    else:
        with_h = "OutputInH100" in run
        reason = "as the parameter_file says" if run else "assumed: binary files do not say"
    if with_h:
        if h is None:
            raise CatalogError("in Mpc/h and Msun/h, and h is unknown: add --cosmology h=...")
        halos.position_Mpc = halos.position_Mpc / h
        halos.mass_Msun = halos.mass_Msun / h
    halos.notes.append(f"read as {'Mpc/h and Msun/h' if with_h else 'Mpc and Msun'} ({reason})")


def _setting(run: Mapping[str, str], name: str) -> float:
    try:
        return float(run[name])
    except (KeyError, ValueError) as error:
        raise CatalogError(f"parameter_file: {name} is missing or no number") from error


def _axis(
    path: Path,
    given: Sequence[float] | None,
    position: NDArray[Any],
    sine: NDArray[np.float64],
) -> tuple[NDArray[np.float64], str]:
    """Direction of the cone, checked against the sines of the column theta, and its source."""
    towards = position / np.sqrt(np.sum(position.astype(np.float64) ** 2, axis=1))[:, None]
    beside = path.with_name(re.sub(r"\.plc\.out(\.0)?$", ".geometry.out", path.name))
    fitted = np.linalg.lstsq(towards, sine, rcond=None)[0]
    source = "fitted to the column theta"
    direction = fitted
    if given is not None:
        direction, source = np.asarray(given, np.float64), "as given"
    elif beside != path and beside.is_file():
        with beside.open(errors="replace") as file:
            match = re.search(r"^#\s*D\s*=((?:\s*\S+){3})\s*$", file.read(4096), re.MULTILINE)
        if match:
            direction = np.array([float(word) for word in match.group(1).split()])
            source = f"of {beside.name}"
    length = float(np.sqrt(np.sum(direction**2)))
    if direction.shape != (3,) or not 0.0 < length < np.inf:
        raise CatalogError(f"an axis needs three numbers that are not all 0, got {given}")
    direction = direction / length
    wrong = float(np.median(np.abs(towards @ direction - sine)))
    if wrong > 1e-4:
        raise CatalogError(
            f"the axis ({', '.join(f'{a:.4f}' for a in direction)}) {source} does not fit the "
            f"column theta, which asks for ({', '.join(f'{a:.4f}' for a in fitted)})"
        )
    return direction, source


def _rotation_to_z(axis: NDArray[np.float64]) -> NDArray[np.float64]:
    """A proper rotation that takes a unit vector to +z, [3, 3]."""
    helper = np.eye(3)[int(np.argmin(np.abs(axis)))]
    first = np.cross(helper, axis)
    first /= np.sqrt(np.sum(first**2))
    return np.stack([first, np.cross(axis, first), axis])
