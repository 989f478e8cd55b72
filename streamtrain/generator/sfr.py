"""Star-formation rate of a halo, SFR(M, z), of Behroozi, Wechsler and Conroy 2013 (1207.6105).

A closed form fitted to the table that limlam_mocker interpolates (Li et al. 2016, 1503.08833):
log10 SFR is a line in log10 M plus two or three soft kinks, whose parameters are polynomials in
log10(1 + z). Against the table: rms 0.008 dex, at most 0.036 dex for 0.1 <= z <= 7.9. The rms
error of a CO luminosity through Li+16 is 0.73 times that. Where the table has no data, see
`in_table`, the fit is an extrapolation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from streamtrain import portable

Z_RANGE = (0.1, 8.1)
"""Redshifts the fit covers; it is blended linearly between its two parts over 1.5 < z < 1.7."""

TABLE_Z = (0.6, 1.81, 2.63, 3.13, 3.7, 5.08, 5.3, 6.0, 7.0, 7.9, 7.954)
TABLE_LOG10_MASS = (15.05, 14.1, 13.55, 13.25, 12.95, 12.25, 12.2, 11.95, 11.5, 11.2, 11.1)
"""Where the table ends: the heaviest log10 M with data at these redshifts, of which the last is its
last one. Beyond, where Behroozi et al. have no data, the fit extrapolates; limlam_mocker has no
star formation."""


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
    """SFR [Msun/yr]; see `log10_sfr`."""
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
