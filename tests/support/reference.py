"""The physics of a sample in float64 NumPy, written from the papers: the truth of the tests.

Nothing of streamtrain is imported here. Positions in comoving Mpc with the observer at the origin
and the line of sight along +z; masses in Msun, luminosities in Lsun, frequencies in GHz, angles
in deg. A cube has axes [freq, dec, ra]; frequency index 0 is the highest frequency.
`test_reference.py` compares this module with limlam_mocker.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import quad

from support.reference_models import (
    C_KMS as C_KMS,
)
from support.reference_models import (
    KAMENETZKY16 as KAMENETZKY16,
)
from support.reference_models import (
    LSUN_W as LSUN_W,
)
from support.reference_models import (
    MODELS as MODELS,
)
from support.reference_models import (
    MPC_M as MPC_M,
)
from support.reference_models import (
    NU_CII_GHZ as NU_CII_GHZ,
)
from support.reference_models import (
    NU_LYA_GHZ as NU_LYA_GHZ,
)
from support.reference_models import (
    NU_REST_GHZ as NU_REST_GHZ,
)
from support.reference_models import (
    ON_FRACTION as ON_FRACTION,
)
from support.reference_models import (
    SIGMA_DEX as SIGMA_DEX,
)
from support.reference_models import (
    SILVA15 as SILVA15,
)
from support.reference_models import (
    age_Gyr as age_Gyr,
)
from support.reference_models import (
    breysse15 as breysse15,
)
from support.reference_models import (
    chung19_lya as chung19_lya,
)
from support.reference_models import (
    chung22 as chung22,
)
from support.reference_models import (
    freeform as freeform,
)
from support.reference_models import (
    kamenetzky16 as kamenetzky16,
)
from support.reference_models import (
    keating16 as keating16,
)
from support.reference_models import (
    keating20 as keating20,
)
from support.reference_models import (
    lagache18 as lagache18,
)
from support.reference_models import (
    li16 as li16,
)
from support.reference_models import (
    lidz11 as lidz11,
)
from support.reference_models import (
    padmanabhan18 as padmanabhan18,
)
from support.reference_models import (
    padmanabhan19_cii as padmanabhan19_cii,
)
from support.reference_models import (
    pullen13 as pullen13,
)
from support.reference_models import (
    pullen13_duty as pullen13_duty,
)
from support.reference_models import (
    sfr_fit as sfr_fit,
)
from support.reference_models import (
    silva15 as silva15,
)
from support.reference_models import (
    yang22 as yang22,
)
from support.reference_models import (
    yang22_cii_sigma as yang22_cii_sigma,
)
from support.reference_models import (
    yang22_co10_sigma as yang22_co10_sigma,
)
from support.reference_models import (
    yang22_co10_wrong as yang22_co10_wrong,
)
from support.reference_models import (
    yang22_on as yang22_on,
)

Array = NDArray[np.float64]

K_BOLTZMANN = 1.380649e-23  # [J/K], exact (SI 2019)

K_JY = LSUN_W / (MPC_M**2 * 1e9) * 1e26
"""1 Lsun / (Mpc^2 GHz) in Jy: 4.0204e-2."""
K_T = K_JY * 1e-26 * (1e3 * C_KMS) ** 2 / (K_BOLTZMANN * 1e18) * 1e6
"""1 Lsun / (Mpc^2 GHz^3 sr) times c^2 / k_B in uK: 2.61715."""
K_T_LIMLAM = 2.63083
"""What limlam_mocker uses for K_T (it implies Lsun = 3.848e26 W)."""
K_JY_LIMLAM = 4.0204e-2
"""What limlam_mocker uses for K_JY."""

LUMINOSITY_EDGES = np.logspace(3.5, 7.0, 50)
"""Edges of the 49 label bins [Lsun]."""


# Geometry.


def comoving_distance(z: float, Omega_m: float = 0.286, h: float = 0.7) -> float:
    """chi(z) [Mpc] in flat LCDM without radiation, by numerical integration."""
    value, _ = quad(lambda x: (Omega_m * (1.0 + x) ** 3 + 1.0 - Omega_m) ** -0.5, 0.0, z)
    return C_KMS / (100.0 * h) * value


def sky(x: ArrayLike, y: ArrayLike, z: ArrayLike) -> tuple[Array, Array, Array]:
    """ra [deg] = atan2(-x, z), dec [deg] = asin(y / chi), and chi [Mpc]."""
    x, y, z = (np.asarray(a, np.float64) for a in (x, y, z))
    chi = np.sqrt(x**2 + y**2 + z**2)
    return np.degrees(np.arctan2(-x, z)), np.degrees(np.arcsin(y / chi)), chi


def position(ra_deg: ArrayLike, dec_deg: ArrayLike, chi: ArrayLike) -> tuple[Array, Array, Array]:
    """x, y, z [Mpc] of a direction and distance: the inverse of `sky`."""
    ra, dec = np.radians(np.asarray(ra_deg, float)), np.radians(np.asarray(dec_deg, float))
    chi = np.asarray(chi, np.float64)
    return -chi * np.cos(dec) * np.sin(ra), chi * np.sin(dec), chi * np.cos(dec) * np.cos(ra)


def rotation(
    centre_deg: tuple[float, float] = (0.0, 0.0), roll_deg: float = 0.0, mirror: bool = False
) -> Array:
    """Matrix [3, 3] of r' = mirror Rz(roll) C(centre) r; C turns the field centre to +z."""
    a, b, c = np.radians(centre_deg[0]), np.radians(centre_deg[1]), np.radians(roll_deg)
    about_y = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    flip = np.diag([-1.0 if mirror else 1.0, 1.0, 1.0])
    return flip @ about_z @ about_x @ about_y


def pose(
    x: ArrayLike,
    y: ArrayLike,
    z: ArrayLike,
    centre_deg: tuple[float, float] = (0.0, 0.0),
    roll_deg: float = 0.0,
    mirror: bool = False,
) -> tuple[Array, Array, Array]:
    """Positions [Mpc] in the frame of a field."""
    r = np.stack([np.asarray(a, np.float64) for a in (x, y, z)])
    turned = rotation(centre_deg, roll_deg, mirror) @ r
    return turned[0], turned[1], turned[2]


def edges(
    fov_deg: tuple[float, float], shape: tuple[int, int, int], nu_GHz: tuple[float, float]
) -> tuple[Array, Array, Array]:
    """Voxel edges: frequency (descending) [GHz], dec [deg], ra [deg]; `fov_deg` is (ra, dec)."""
    n_freq, n_dec, n_ra = shape
    return (
        np.linspace(nu_GHz[0], nu_GHz[1], n_freq + 1),
        np.linspace(-fov_deg[1] / 2, fov_deg[1] / 2, n_dec + 1),
        np.linspace(-fov_deg[0] / 2, fov_deg[0] / 2, n_ra + 1),
    )


def bin_number(values: ArrayLike, increasing_edges: Array) -> NDArray[np.int64]:
    """Half-open bins [lo, hi), the last one closed; -1 outside."""
    values = np.asarray(values, np.float64)
    number = np.searchsorted(increasing_edges, values, side="right") - 1
    number = np.where(values == increasing_edges[-1], len(increasing_edges) - 2, number)
    return np.where((number < 0) | (number > len(increasing_edges) - 2), -1, number)


def voxel_number(
    ra_deg: ArrayLike,
    dec_deg: ArrayLike,
    nu_GHz: ArrayLike,
    voxel_edges: tuple[Array, Array, Array],
) -> NDArray[np.int64]:
    """Index into the flattened cube [freq, dec, ra], or -1 outside."""
    frequency, dec_edges, ra_edges = voxel_edges
    n_freq, n_dec, n_ra = (len(e) - 1 for e in voxel_edges)
    upward = bin_number(nu_GHz, frequency[::-1])
    channel = np.where(upward < 0, -1, n_freq - 1 - upward)
    row, column = bin_number(dec_deg, dec_edges), bin_number(ra_deg, ra_edges)
    inside = (channel >= 0) & (row >= 0) & (column >= 0)
    return np.where(inside, (channel * n_dec + row) * n_ra + column, -1)


# Intensity.


def surface_brightness(
    luminosity: ArrayLike,
    chi: ArrayLike,
    z_obs: ArrayLike,
    *,
    nu_rest_GHz: float,
    dnu_GHz: float,
    omega_sr: float,
    units: str = "uK",
    k_t: float = K_T,
    k_jy: float = K_JY,
) -> Array:
    """What one halo adds to its voxel: uK (Rayleigh-Jeans) or Jy/sr.

    I_nu = L / (4 pi D_L^2 dnu Omega), D_L = chi (1 + z); T = c^2 I_nu / (2 k_B nu_obs^2), nu_obs
    the halo's own frequency.
    """
    luminosity, chi = np.asarray(luminosity, np.float64), np.asarray(chi, np.float64)
    growth = 1.0 + np.asarray(z_obs, np.float64)
    flux = luminosity / (4.0 * np.pi * chi**2 * growth**2 * dnu_GHz * omega_sr)
    if units == "Jy/sr":
        return k_jy * flux
    if units != "uK":
        raise ValueError(f"units must be uK or Jy/sr, got {units}")
    return k_t / 2.0 / (nu_rest_GHz / growth) ** 2 * flux


def paint(
    x: ArrayLike,
    y: ArrayLike,
    z: ArrayLike,
    mass_Msun: ArrayLike,
    z_obs: ArrayLike,
    luminosity: ArrayLike,
    *,
    fov_deg: tuple[float, float],
    shape: tuple[int, int, int],
    nu_GHz: tuple[float, float],
    nu_rest_GHz: float = 115.27,
    min_mass_Msun: float = 0.0,
    centre_deg: tuple[float, float] = (0.0, 0.0),
    roll_deg: float = 0.0,
    mirror: bool = False,
    units: str = "uK",
    k_t: float = K_T,
    k_jy: float = K_JY,
    luminosity_edges: Array = LUMINOSITY_EDGES,
) -> tuple[Array, NDArray[np.int64]]:
    """A cube [n_freq, n_dec, n_ra] and the halos per luminosity bin.

    All halo arrays have shape [n], `luminosity` in Lsun; halos with M > min_mass_Msun count.
    `fov_deg` is (ra, dec), `nu_GHz` (highest, lowest).
    """
    ra, dec, chi = sky(*pose(x, y, z, centre_deg, roll_deg, mirror))
    nu = nu_rest_GHz / (1.0 + np.asarray(z_obs, np.float64))
    voxel = voxel_number(ra, dec, nu, edges(fov_deg, shape, nu_GHz))
    kept = (voxel >= 0) & (np.asarray(mass_Msun, np.float64) > min_mass_Msun)
    value = surface_brightness(
        luminosity,
        chi,
        z_obs,
        nu_rest_GHz=nu_rest_GHz,
        dnu_GHz=(nu_GHz[0] - nu_GHz[1]) / shape[0],
        omega_sr=np.radians(fov_deg[0] / shape[2]) * np.radians(fov_deg[1] / shape[1]),
        units=units,
        k_t=k_t,
        k_jy=k_jy,
    )
    size = shape[0] * shape[1] * shape[2]
    cube = np.bincount(voxel[kept], weights=value[kept], minlength=size).reshape(shape)
    counts = luminosity_counts(np.asarray(luminosity, np.float64)[kept], luminosity_edges)
    return cube, counts


# Labels and maps.


def luminosity_counts(
    luminosity: ArrayLike, luminosity_edges: Array = LUMINOSITY_EDGES
) -> NDArray[np.int64]:
    """Halos per luminosity bin, half-open, the last bin closed; outside halos in no bin."""
    number = bin_number(luminosity, luminosity_edges)
    return np.bincount(number[number >= 0], minlength=len(luminosity_edges) - 1)


def cumulative(counts: ArrayLike, overflow: int = 0) -> NDArray[np.int64]:
    """N(>L) at the lower edge of every bin, with `overflow` halos above the last edge."""
    return np.cumsum(np.asarray(counts, np.int64)[::-1])[::-1] + overflow


def log10_label(counts: ArrayLike) -> Array:
    """log10 of the counts, 0 for an empty bin."""
    counts = np.asarray(counts, np.float64)
    return np.where(counts > 0, np.log10(np.where(counts > 0, counts, 1.0)), 0.0)


def pool_sum(cube: Array, factors: tuple[int, int, int]) -> Array:
    """Sum over blocks of `factors` = (freq, dec, ra) voxels."""
    n_freq, n_dec, n_ra = (n // f for n, f in zip(cube.shape, factors, strict=True))
    blocks = cube.reshape(n_freq, factors[0], n_dec, factors[1], n_ra, factors[2])
    return blocks.sum(axis=(1, 3, 5))


def pool_mean(cube: Array, factors: tuple[int, int, int]) -> Array:
    """Mean over blocks of `factors` = (freq, dec, ra) voxels."""
    return pool_sum(cube, factors) / (factors[0] * factors[1] * factors[2])


def log_modulus(cube: ArrayLike) -> Array:
    """sign(x) log10(|x| + 1)."""
    cube = np.asarray(cube, np.float64)
    return np.sign(cube) * np.log10(np.abs(cube) + 1.0)
