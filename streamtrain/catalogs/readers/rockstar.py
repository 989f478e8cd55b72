"""Rockstar's ASCII halo lists, `out_N.list`.

The header names the columns and states scale factor, Omega_m, h, box and units; Omega_b, n_s and
sigma8 are not in it. With a column PID (find_parents) subhalos are left out, for the mass of a
host contains theirs; without one they cannot be told from hosts.

References:
    The Rockstar phase-space temporal halo finder (Behroozi et al., 2013), arXiv:1110.4372
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from streamtrain.catalogs.lightcone import CatalogError
from streamtrain.catalogs.readers.halos import Halos, merged_cosmology, reading, sha256
from streamtrain.catalogs.readers.text import (
    check_last_line,
    comment_lines,
    load_numbers,
    stated_number,
)
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
        for name in wanted:
            if names.count(name) != 1:
                known = [n for n in names if n[0] == "M"] if name == mass else names
                raise CatalogError(
                    f"it has {names.count(name) or 'no'} columns '{name}': {nearest(name, known)}"
                )
        text = "\n".join(header)
        scale = stated_number(text, r"#\s*a\s*=\s*", "the scale factor (#a = ...)")
        found = {
            "Omega_m": stated_number(text, r"\bOm\s*=\s*", "Om"),
            "h": stated_number(text, r"\bh\s*=\s*", "h"),
        }
        if abs(found["Omega_m"] + stated_number(text, r"\bOl\s*=\s*", "Ol") - 1.0) > 2e-3:
            raise CatalogError("the universe must be flat, but Om + Ol is not 1")
        halos = Halos(np.zeros((0, 3)), np.zeros(0), cosmology=merged_cosmology(found, None, False))
        merged_cosmology(found, cosmology, complete=False)
        for what, unit in (("Masses", "Msun"), ("Positions", "Mpc")):
            if not re.search(rf"#\s*Units:\s*{what} in {unit}\s*/\s*h", text):
                raise CatalogError(f"its header does not say '#Units: {what} in {unit} / h'")
        side = stated_number(text, r"#\s*Box size:\s*", "the box size") / found["h"]
        check_last_line(path)
        columns = [names.index(name) for name in wanted]
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
