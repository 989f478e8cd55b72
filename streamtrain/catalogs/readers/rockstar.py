"""ASCII halo lists of Rockstar, `out_N.list`, and of consistent-trees, `hlist_SCALE.list`.

Rockstar's header names the columns and states scale factor, Omega_m, h, box and units. With a
column PID (find_parents) subhalos are left out, for the mass of a host contains theirs; without one
they cannot be told from hosts.

The first line of consistent-trees names the columns, most with their number: #scale(0) id(1) ...
mvir(10) ... x(17). Its header states Omega_m, h, box and units. Subhalos (pid not -1) are left out;
phantoms, which the code put where the finder lost a halo for a few snapshots, stay.

Omega_b, n_s and sigma8 are in neither.

References:
    The Rockstar phase-space temporal halo finder (Behroozi et al., 2013), arXiv:1110.4372
    Gravitationally consistent halo catalogs and merger trees (Behroozi et al., 2013),
    arXiv:1110.4370
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from streamtrain.catalogs.headers import CatalogError
from streamtrain.catalogs.readers.halos import Halos, merged_cosmology, reading
from streamtrain.catalogs.readers.text import (
    check_last_line,
    check_last_row,
    comment_lines,
    ending_notes,
    load_numbers,
    stated_number,
)
from streamtrain.machine.files import sha256
from streamtrain.schema import nearest


def read_rockstar(
    path: Path, *, cosmology: Mapping[str, float] | None = None, mass: str = "Mvir"
) -> Halos:
    """A snapshot of a periodic box, in Mpc, Msun and km/s; `mass` names the mass column.

    Raises CatalogError.
    """
    with reading(path, "a Rockstar list"):
        header = comment_lines(path)
        names = header[0].lstrip("#").split() if header else []
        wanted = ("X", "Y", "Z", "VX", "VY", "VZ", mass)
        if not {"X", "Y", "Z"} <= set(names):
            other = (
                "; it is one of consistent-trees: --format hlist"
                if names[:1] == ["scale(0)"]
                else ""
            )
            raise CatalogError(
                f"its first line does not name the columns of a Rockstar list{other}"
            )
        columns = _places(wanted, names, [name for name in names if name[0] == "M"])
        text = "\n".join(header)
        scale = stated_number(text, r"#\s*a\s*=\s*", "the scale factor (#a = ...)")
        found = _cosmology(text, "Om", "Ol", "h")
        halos = Halos(np.zeros((0, 3)), np.zeros(0), cosmology=merged_cosmology(found, None, False))
        merged_cosmology(found, cosmology, complete=False)
        for what, unit in (("Masses", "Msun"), ("Positions", "Mpc")):
            if not re.search(rf"#\s*Units:\s*{what} in {unit}\s*/\s*h", text):
                raise CatalogError(f"its header does not say '#Units: {what} in {unit} / h'")
        side = stated_number(text, r"#\s*Box size:\s*", "the box size") / found["h"]
        check_last_line(path)
        parent = names.count("PID") == 1
        columns += [names.index("PID")] if parent else []
        table = load_numbers(path, columns=columns, width=len(names))
        kept = table[:, 7] < 0 if parent else np.ones(len(table), bool)
        halos.position_Mpc = table[kept, 0:3] / found["h"]
        halos.velocity_kms = table[kept, 3:6]
        halos.mass_Msun = table[kept, 6] / found["h"]
        halos.side_Mpc, halos.redshift = side, 1.0 / scale - 1.0
        halos.check()
        halos.notes += [
            f"Rockstar list {path.name}, sha256 {sha256(path)}",
            f"mass {mass}, read as Mpc/h and Msun/h (as its header says)",
            f"{np.count_nonzero(~kept)} subhalos left out"
            if parent
            else "subhalos are in it as halos of their own: it has no column PID",
            f"from a periodic box of side {side:g} Mpc",
        ]
    return halos


def _places(wanted: Sequence[str], names: list[str], masses: list[str]) -> list[int]:
    """Where the columns stand, of which the last one is a mass, one of `masses`."""
    for name in wanted:
        if names.count(name) != 1:
            hint = nearest(name, masses if name == wanted[-1] else names)
            raise CatalogError(f"it has {names.count(name) or 'no'} columns '{name}': {hint}")
    return [names.index(name) for name in wanted]


def _cosmology(text: str, matter: str, dark_energy: str, h: str) -> dict[str, float]:
    """Omega_m and h of a flat universe, by the names that the header has for them."""
    m, lam, h0 = (stated_number(text, rf"\b{n}\s*=\s*", n) for n in (matter, dark_energy, h))
    if abs(m + lam - 1.0) > 2e-3:
        raise CatalogError(f"the universe must be flat, but {matter} + {dark_energy} is not 1")
    return {"Omega_m": m, "h": h0}


_UNITS = {
    "Halo mass": "Msun/h",
    "Halo position": "Mpc/h comoving",
    "Halo velocity": "km/s physical",
}


def read_hlist(
    path: Path, *, cosmology: Mapping[str, float] | None = None, mass: str = "mvir"
) -> Halos:
    """A snapshot of a periodic box, in Mpc, Msun and km/s; `mass` names the mass column, in upper
    or lower case. Raises CatalogError.
    """
    with reading(path, "a halo list of consistent-trees"):
        header = comment_lines(path)
        names = column_names(header)
        wanted = [*("scale", "x", "y", "z", "vx", "vy", "vz", "pid", "phantom"), mass.lower()]
        columns = _places(wanted, names, [n for n in names if "m" in n and "_" not in n])
        text = "\n".join(header)
        found = _cosmology(text, "Omega_M", "Omega_L", "h0")
        merged_cosmology(found, cosmology, complete=False)
        for what, unit in _UNITS.items():
            if not re.search(rf"#.*: {what} \({unit}\)", text):
                raise CatalogError(f"its header does not say '{what} ({unit})'")
        side = stated_number(text, r"#\s*Full box size\s*=\s*", "the box (Full box size = ...)")
        if not re.search(r"Full box size\s*=\s*\S+\s*Mpc/h", text):
            raise CatalogError("its header does not say 'Full box size = ... Mpc/h'")
        check_last_row(path, str.split, len(names))
        table = load_numbers(path, columns=columns, width=len(names))
        hosts, phantoms = table[:, 7] < 0, table[:, 8] != 0
        kept = table[hosts]
        halos = Halos(
            kept[:, 1:4] / found["h"],
            kept[:, 9] / found["h"],
            kept[:, 4:7],
            cosmology=found,
            side_Mpc=side / found["h"],
            redshift=1.0 / _scale(path, table[:, 0]) - 1.0,
            notes=[
                f"consistent-trees list {path.name}, sha256 {sha256(path)}",
                f"mass {mass.lower()} (mvir is the virial mass unless the run of the finder was "
                "told another definition), read as Mpc/h and Msun/h (as its header says)",
                f"{np.count_nonzero(~hosts)} subhalos (pid not -1) left out, of the others "
                f"{np.count_nonzero(hosts & phantoms)} are phantoms, kept",
                f"from a periodic box of side {side / found['h']:g} Mpc",
                *ending_notes(path),
            ],
        )
        halos.check()
    return halos


def column_names(header: list[str]) -> list[str]:
    """The columns in lower case without their numbers; CatalogError for another kind of file."""
    words = header[0].lstrip("#").split() if header else []
    names = []
    for place, word in enumerate(words):
        named = re.fullmatch(r"(.+)\((\d+)\)", word)
        if named and int(named.group(2)) != place:
            raise CatalogError(f"its first line calls column {place} '{word}'")
        names.append((named.group(1) if named else word).lower())
    if names[:2] != ["scale", "id"]:
        raise CatalogError(
            "its first line does not begin with '#scale(0) id(1)' as that of a list of "
            "consistent-trees"
        )
    return names


def _scale(path: Path, scales: np.ndarray) -> float:
    """The scale factor of every halo, compared with the name of the file."""
    scale = float(scales[0])
    if not (0.0 < scale <= 1.01 and np.ptp(scales) <= 1e-4):
        raise CatalogError(
            f"scale factors from {scales.min():g} to {scales.max():g}: a snapshot has one, in 0..1 "
            "(a file of trees has many)"
        )
    named = re.search(r"hlist_(\d*\.\d+)", path.name)
    if named and abs(float(named.group(1)) - scale) > 1e-4:
        raise CatalogError(f"its halos have the scale factor {scale:g}, its name says otherwise")
    return scale
