"""Star-formation rate of a halo from a user's table, as limlam_mocker reads Behroozi's.

The table of Behroozi, Wechsler and Conroy 2013 (1207.6105, the release's sfr file) is not part of
streamtrain; `data.sfr: FILE` names a copy of it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from streamtrain import portable
from streamtrain.config_data import SFR_CHOICES
from streamtrain.files import read_text, why_not_a_file
from streamtrain.schema import ConfigError

Float = NDArray[np.float64]

NO_DATA = -1000.0
"""log10 SFR of a node without data."""


@dataclass(frozen=True, eq=False)
class SFRTable:
    """SFR(M, z) on a rectangular grid: bilinear in (log10 M, log10(1 + z)) of the linear SFR.

    Beyond the first and last mass the rate is that of the edge, as with SciPy's
    RectBivariateSpline(kx=1, ky=1). Nodes without data have SFR = 0 and shine with nothing.
    """

    log10_mass: Float
    """log10(M / Msun) of the nodes, increasing [num_masses]."""
    one_plus_z: Float
    """1 + z of the nodes, increasing [num_redshifts]."""
    log10_sfr: Float
    """log10 SFR [Msun/yr] [num_masses, num_redshifts]; -1000 = no data."""
    name: str = "the table"
    """What messages call it."""

    @classmethod
    def read(cls, path: str | Path) -> SFRTable:
        """Read 1 + z, log10 M, log10 SFR and, unused, log10 M* from the columns of a text file.

        Rows in any order, `#` starts a comment. Raises ValueError with one sentence for a file that
        is missing or is not a full grid of finite numbers, at least 2 x 2.
        """
        rows = _rows(path)
        z_nodes, z_index = np.unique(rows[:, 0], return_inverse=True)
        m_nodes, m_index = np.unique(rows[:, 1], return_inverse=True)
        shape = len(m_nodes), len(z_nodes)
        if min(shape) < 2:
            raise ValueError(
                f"{path}: a table of star-formation rates needs two masses and two redshifts or "
                f"more, not {shape[0]} and {shape[1]}"
            )
        node = m_index.reshape(-1) * shape[1] + z_index.reshape(-1)
        if len(rows) != shape[0] * shape[1] or len(np.unique(node)) != len(rows):
            raise ValueError(
                f"{path}: {len(rows)} rows do not fill the grid of its {shape[0]} masses and "
                f"{shape[1]} redshifts once"
            )
        if z_nodes[0] < 1.0:
            raise ValueError(
                f"{path}: the first column must be 1 + z, at least 1, but holds {z_nodes[0]:g}"
            )
        values = np.empty(shape)
        values.reshape(-1)[node] = rows[:, 2]
        return cls(m_nodes, z_nodes, values, str(path))

    @property
    def digest(self) -> str:
        """sha256 of the numbers (little-endian float64 by mass, then redshift), not of the file."""
        text = hashlib.sha256(repr(self.log10_sfr.shape).encode())
        for array in (self.log10_mass, self.one_plus_z, self.log10_sfr):
            text.update(np.ascontiguousarray(array, "<f8").tobytes())
        return text.hexdigest()

    def sfr(self, mass_Msun: ArrayLike, z: ArrayLike) -> Float:
        """SFR [Msun/yr] for halos of mass [Msun] at redshift z (arrays of one shape).

        Raises ValueError for a redshift outside the table. The same bits on every machine.
        """
        mass, redshift = np.broadcast_arrays(
            np.asarray(mass_Msun, np.float64), np.asarray(z, np.float64)
        )
        low, high = self.one_plus_z[0] - 1.0, self.one_plus_z[-1] - 1.0
        if redshift.size and not (low <= redshift.min() and redshift.max() <= high):
            raise ValueError(
                f"{self.name} covers z = {low:.3f}..{high:.3f}, not "
                f"{redshift.min():.3f}..{redshift.max():.3f}"
            )
        rate = np.where(self.log10_sfr == NO_DATA, 0.0, portable.exp10(self.log10_sfr))
        m, t = _place(self.log10_mass, portable.log10(mass))
        k, u = _place(portable.log10(self.one_plus_z), portable.log10(1.0 + redshift))
        lighter = (1.0 - u) * rate[m, k] + u * rate[m, k + 1]
        heavier = (1.0 - u) * rate[m + 1, k] + u * rate[m + 1, k + 1]
        return (1.0 - t) * lighter + t * heavier


def sfr_source(choice: str, setting: str = "sfr") -> str | SFRTable:
    """One of `SFR_CHOICES`, or the table that `choice` is the path of.

    Raises ConfigError if there is no such file, ValueError if it is no table.
    """
    if choice in SFR_CHOICES:
        return choice
    if not isinstance(choice, str | Path):
        raise ConfigError(f"{setting} must be text, not {choice!r}")
    if not Path(choice).is_file():
        raise ConfigError(
            f"{setting} = '{choice}' is none of {', '.join(SFR_CHOICES)}, and no file either: "
            "a path must lead to a table of 1+z, log10 M, log10 SFR"
        )
    return SFRTable.read(choice)


def _place(nodes: Float, x: Float) -> tuple[NDArray[np.intp], Float]:
    """The cell of every x, and where in it (0..1); beyond the ends, the end."""
    cell = np.clip(np.searchsorted(nodes, x, side="right") - 1, 0, len(nodes) - 2)
    inside = (x - nodes[cell]) / (nodes[cell + 1] - nodes[cell])
    return cell, np.clip(inside, 0.0, 1.0)


def _rows(path: str | Path) -> Float:
    """The file's rows [n, 3]: 1 + z, log10 M, log10 SFR."""
    if not Path(path).exists():
        raise ValueError(f"{path}: there is no such table of star-formation rates")
    if problem := why_not_a_file(path):
        raise ValueError(f"{path}: {problem}")
    try:
        lines = read_text(Path(path)).splitlines()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(
            f"{path} is not a table of star-formation rates: not a text file"
        ) from None
    rows = []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            row = [float(word) for word in words[:3]]
        except ValueError:
            raise ValueError(f"{path}: line {number} is not made of numbers") from None
        if len(words) not in (3, 4):
            raise ValueError(
                f"{path}: line {number} has {len(words)} columns, not four: 1+z, log10 M, "
                "log10 SFR, log10 M*"
            )
        if not np.isfinite(row).all():
            raise ValueError(f"{path}: line {number} holds a number that is not finite")
        rows.append(row)
    return np.array(rows, np.float64).reshape(-1, 3)
