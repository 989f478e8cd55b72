"""Star-formation rates of halos, SFR(M, z), of Behroozi, Wechsler and Conroy 2013 (1207.6105).

`sfr` is a closed form fitted to the table that limlam_mocker interpolates (Li et al. 2016,
1503.08833): log10 SFR is a line in log10 M plus two or three soft kinks, whose parameters are
polynomials in log10(1 + z). Against the table: rms 0.008 dex, at most 0.036 dex for
0.1 <= z <= 7.9. The rms error of a CO luminosity through Li+16 is 0.73 times that. Where the table
has no data, see `in_table`, the fit is an extrapolation.

`SFRTable` reads a user's table as limlam_mocker does. The authors' own (the release's sfr file) is
not part of streamtrain; `data.sfr: FILE` names a copy of it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from streamtrain.catalogs.settings import SFR_CHOICES
from streamtrain.machine.files import MAX_TABLE_BYTES, read_text, why_not_a_file
from streamtrain.numerics import portable
from streamtrain.schema import ConfigError, ModelRangeWarning, warn

Z_RANGE = (0.1, 8.1)
"""Redshifts the fit covers; it is blended linearly between its two parts over 1.5 < z < 1.7."""

TABLE_Z = (0.6, 1.81, 2.63, 3.13, 3.7, 5.08, 5.3, 6.0, 7.0, 7.9, 7.954)
TABLE_LOG10_MASS = (15.05, 14.1, 13.55, 13.25, 12.95, 12.25, 12.2, 11.95, 11.5, 11.2, 11.1)
"""Where the table ends: the heaviest log10 M with data at these redshifts, of which the last is its
last one. Beyond, where Behroozi et al. have no data, the fit extrapolates; limlam_mocker has no
star formation."""

MOST_EXTRAPOLATED = 0.01
"""Share of the squared rates, which make the shot noise, that goes without a warning."""


@dataclass(frozen=True)
class KinkFit:
    """Coefficients of the fit. `orders` are the polynomial degrees in u = log10(1 + z) - u0 of:
    log10 SFR at 10^11.5 Msun, the slope there, then (strength, log10 mass, ln width) of each kink.
    """

    u0: float
    orders: tuple[int, ...]
    coefficients: tuple[float, ...]

    def log10_sfr(
        self, log10_mass: NDArray[np.float64], z: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """log10 SFR [Msun/yr] of halos of log10(M/Msun) at redshift z."""
        u = portable.log10(1.0 + z) - self.u0
        terms, first = [], 0
        for order in self.orders:
            value = np.zeros_like(u)
            for coefficient in reversed(self.coefficients[first : first + order + 1]):
                value = value * u + coefficient
            terms.append(value)
            first += order + 1
        total = terms[0] + terms[1] * (log10_mass - 11.5)
        for strength, mass, log_width in zip(terms[2::3], terms[3::3], terms[4::3], strict=True):
            width = portable.exp(log_width)
            x = (log10_mass - mass) / width
            softplus = np.maximum(x, 0.0) + portable.log(1.0 + portable.exp(-np.abs(x)))
            total = total + strength * width * softplus
        return total


HIGH = KinkFit(
    u0=0.6,
    orders=(4, 3, 3, 2, 1, 4, 3, 2),
    coefficients=(
        0.7322873,
        3.659612,
        7.891777,
        -5.442306,
        -14.16151,
        1.852434,
        1.357367,
        -0.7425595,
        -5.585197,
        1.077525,
        -5.010008,
        8.781853,
        -12.83,
        11.33738,
        -0.2190301,
        -3.300856,
        -2.482057,
        -1.921308,
        -3.06044,
        5.487277,
        -10.85892,
        3.195725,
        76.22558,
        11.94043,
        -0.4346182,
        -7.269381,
        1.601779,
        -1.656031,
        -0.9514547,
        1.538938,
    ),
)
"""1.7 <= z <= 8.1, 10 <= log10 M <= 15: max 0.033, rms 0.0077 dex."""

LOW = KinkFit(
    u0=0.2,
    orders=(3, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2),
    coefficients=(
        0.6405584,
        2.419488,
        -13.47443,
        19.03106,
        1.728566,
        0.8955228,
        -3.003664,
        6.842238,
        2.932397,
        3.184997,
        -3.161236,
        10.8892,
        0.8886914,
        2.726172,
        -2.053224,
        0.8587337,
        2.320297,
        -42.06128,
        40.0395,
        62.20317,
        12.21301,
        0.9539091,
        -2.280606,
        -0.7348827,
        0.3270872,
        -2.628945,
        37.04969,
        -45.52332,
        -53.02221,
        12.32766,
        1.191792,
        -2.254463,
        -0.8421836,
        0.06455012,
        -1.098259,
    ),
)
"""0.1 <= z <= 1.5: max 0.035, rms 0.0083 dex."""


def log10_sfr(mass_Msun: ArrayLike, z: ArrayLike) -> NDArray[np.float64]:
    """log10 SFR [Msun/yr] for halos of mass [Msun] at redshift z (arrays of one shape).

    Raises ValueError for a redshift outside the fit. The same bits on every machine.
    """
    mass, redshift = np.broadcast_arrays(
        np.asarray(mass_Msun, np.float64), np.asarray(z, np.float64)
    )
    if redshift.size and not (Z_RANGE[0] <= redshift.min() and redshift.max() <= Z_RANGE[1]):
        raise ValueError(
            f"the SFR fit covers z = {Z_RANGE[0]}..{Z_RANGE[1]}, not "
            f"{redshift.min():.3f}..{redshift.max():.3f}: give the lightcone an 'sfr' column"
        )
    log10_mass = portable.log10(mass)
    weight = np.clip((redshift - 1.5) / 0.2, 0.0, 1.0)
    total = np.zeros_like(redshift)
    for fit, share in ((HIGH, weight), (LOW, 1.0 - weight)):
        used = share > 0.0
        total[used] += share[used] * fit.log10_sfr(log10_mass[used], redshift[used])
    return total


def sfr(mass_Msun: ArrayLike, z: ArrayLike) -> NDArray[np.float64]:
    """The fitted SFR [Msun/yr] for halos of mass [Msun] at redshift z; see `log10_sfr`."""
    return portable.exp10(log10_sfr(mass_Msun, z))


def heaviest_log10_mass(z: ArrayLike) -> NDArray[np.float64]:
    """log10(M/Msun) at which the fitted table ends at redshift z, to 0.05; -infinity beyond its
    last redshift."""
    redshift = np.asarray(z, np.float64)
    end = np.interp(redshift, TABLE_Z, TABLE_LOG10_MASS)
    return np.where(redshift > TABLE_Z[-1], -np.inf, end)


def in_table(mass_Msun: ArrayLike, z: ArrayLike) -> NDArray[np.bool_]:
    """Whether Behroozi et al. have data for halos of mass [Msun] at redshift z (one shape)."""
    return portable.log10(np.asarray(mass_Msun, np.float64)) <= heaviest_log10_mass(z)


def squared_rates(
    rates: NDArray[np.float64], mass_Msun: ArrayLike, z: ArrayLike
) -> tuple[float, float]:
    """Sum of the squared rates [Msun^2/yr^2] of halos of mass [Msun] at redshift z [n]: of all, and
    of those for which Behroozi et al. have no data."""
    squares = rates**2
    return float(squares.sum()), float(squares[~in_table(mass_Msun, z)].sum())


def warn_of_extrapolation(squares: tuple[float, float], last_z: float, advice: str) -> None:
    """Warn (ModelRangeWarning) where more than `MOST_EXTRAPOLATED` of the squared rates are of
    halos beyond the data.

    squares: as `squared_rates` gives them; last_z: highest redshift of the halos; advice: what to
    do, the end of the sentence.
    """
    whole, beyond = squares
    if beyond <= MOST_EXTRAPOLATED * whole:
        return
    last = min(last_z, TABLE_Z[-1])
    warn(
        f"star-formation rates of Behroozi et al. 2013 end at z = {TABLE_Z[-1]:g}, and at 10^"
        f"{float(heaviest_log10_mass(last)):.2f} Msun for z = {last:.1f}: the fit extrapolates "
        f"them for halos beyond, which have more than a hundredth of the shot noise; {advice}",
        ModelRangeWarning,
    )


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
        for column, what, most in ((1, "mass [Msun]", 20.0), (2, "SFR [Msun/yr]", 10.0)):
            if (largest := rows[:, column].max()) > most:
                raise ValueError(
                    f"{path}: column {column + 1} must be log10 of the {what}, but reaches "
                    f"{largest:g}"
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


_TABLE_COLUMNS = (
    "a table of star-formation rates has 1+z, log10 M, log10 SFR, log10 M*, apart by blanks (# "
    "begins a comment)"
)


def _rows(path: str | Path) -> Float:
    """The file's rows [n, 3]: 1 + z, log10 M, log10 SFR."""
    if not Path(path).exists():
        raise ValueError(f"{path}: there is no such table of star-formation rates")
    if problem := why_not_a_file(path):
        raise ValueError(f"{path}: {problem}")
    try:
        lines = read_text(Path(path), MAX_TABLE_BYTES).splitlines()
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
            raise ValueError(
                f"{path}: line {number} is not made of numbers: {_TABLE_COLUMNS}"
            ) from None
        if len(words) not in (3, 4):
            raise ValueError(
                f"{path}: line {number} has {len(words)} columns, not four: {_TABLE_COLUMNS}"
            )
        if not np.isfinite(row).all():
            raise ValueError(f"{path}: line {number} holds a number that is not finite")
        rows.append(row)
    return np.array(rows, np.float64).reshape(-1, 3)
