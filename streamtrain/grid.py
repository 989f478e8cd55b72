"""The grid of a cube: its voxels in frequency and on the sky.

Frequency index 0 is the highest frequency (lowest redshift); dec and ra increase with their index.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from streamtrain.arguments import given_numbers, number, numbers, whole_number
from streamtrain.cosmology import HUBBLE, OMEGA_M
from streamtrain.numerics import portable
from streamtrain.schema import number_text, setting

Float = NDArray[np.float64]
Redshift = TypeVar("Redshift", float, Float)

K_UK = 2.6171521
"""T = K_UK / 2 / nu^2 L / (4 pi chi^2 (1+z)^2 dnu Omega) [uK], with L in Lsun (3.828e26 W, IAU
2015 B3), nu and dnu in GHz, chi in Mpc, Omega in sr: c^2 Lsun / (k_B Mpc^2 GHz^3), CODATA 2018."""
K_JY = 4.0204146e-2
"""I = K_JY L / (4 pi chi^2 (1+z)^2 dnu Omega) [Jy/sr]: Lsun / (Mpc^2 GHz) in Jy."""
SOURCE_UK = 0.032548286
"""T = SOURCE_UK S / (nu^2 Omega) [uK], S in mJy, nu in GHz, Omega in sr: c^2 / (2 k_B) times
1 mJy / (GHz^2 sr) in uK, CODATA 2018 (c and k_B exact)."""
DEG = np.pi / 180.0
SMALLEST_PIXEL_DEG = 1e-7
"""Less is a mistake of units, and rounds away in the positions of halos."""
WIDEST_DEG = 20.0
BRIGHTEST_LSUN = 1e9
"""What a cube has room for unless a grid says more."""
BRIGHTEST_RANGE_LSUN = (1e6, 1e15)
"""What a grid may say."""
Units = Literal["uK", "Jy/sr"]


@dataclass(frozen=True)
class Grid:
    """The cube that halos are painted into, and the section `grid` of a configuration.

    The band runs from high to low. Angles and frequencies may have units of astropy. Raises
    ValueError, one sentence, for what is no grid.

    >>> from streamtrain import Grid
    >>> grid = Grid(fov_deg=(0.35, 0.35), shape=(20, 64, 64), nu_GHz=(34.0, 26.0))
    >>> grid
    Grid(fov_deg=(0.35, 0.35), shape=(20, 64, 64), nu_GHz=(34.0, 26.0), nu_rest_GHz=115.27, ...
    >>> grid.dnu_GHz, [round(z, 3) for z in grid.z_range]
    (0.4, [2.39, 3.433])
    """

    fov_deg: tuple[float, float] = setting(
        (1.4, 1.4), "field (ra, dec) [deg]", above=0, high=WIDEST_DEG
    )
    shape: tuple[int, int, int] = setting(
        (100, 256, 256), "voxels (freq, dec, ra)", low=1, high=4096
    )
    nu_GHz: tuple[float, float] = setting((34.0, 26.0), "band, high to low [GHz]", above=0)
    nu_rest_GHz: float = setting(115.27, "rest frequency of the line [GHz]", above=0)
    units: Units = setting("uK", "brightness temperature or intensity")
    brightest_Lsun: float | None = setting(
        None,
        "a luminosity that the cube's fixed-point numbers have room for [Lsun]; default: 1e9",
        low=BRIGHTEST_RANGE_LSUN[0],
        high=BRIGHTEST_RANGE_LSUN[1],
        later=True,
    )

    def __post_init__(self) -> None:
        _refuse_one("fov_deg", "(ra, dec)", self.fov_deg, 2)
        _refuse_one("shape", "(freq, dec, ra)", self.shape, 3)
        plain = {
            "fov_deg": numbers(self.fov_deg, "fov_deg", "(ra, dec)", "deg"),
            "nu_GHz": numbers(self.nu_GHz, "nu_GHz", "(high, low)", "GHz"),
            "nu_rest_GHz": number(self.nu_rest_GHz, "nu_rest_GHz", "GHz"),
            "shape": tuple(
                whole_number(n.item(), "a number of voxels")
                for n in given_numbers(self.shape, "shape").values.ravel()
            ),
        }
        for name, value in plain.items():
            object.__setattr__(self, name, value)
        if not all(0.0 < side <= WIDEST_DEG for side in self.fov_deg):
            raise ValueError(f"fov_deg = {self.fov_deg} is outside 0..{WIDEST_DEG:g} deg")
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ValueError(f"shape = {self.shape} must be three positive numbers")
        pixel = min(self.fov_deg[0] / self.shape[2], self.fov_deg[1] / self.shape[1])
        if pixel < SMALLEST_PIXEL_DEG:
            raise ValueError(
                f"fov_deg = {self.fov_deg} in {self.shape[2]} x {self.shape[1]} pixels: one is "
                f"{pixel:.3g} deg, less than {SMALLEST_PIXEL_DEG:g}"
            )
        if not 0.0 < self.nu_GHz[1] < self.nu_GHz[0]:
            raise ValueError(f"nu_GHz = {list(self.nu_GHz)} must run from high to low, above 0")
        if not self.nu_GHz[0] < self.nu_rest_GHz:
            raise ValueError(
                f"nu_GHz = {list(self.nu_GHz)} must lie below nu_rest_GHz = {self.nu_rest_GHz:g}"
            )
        low, high = BRIGHTEST_RANGE_LSUN
        if self.brightest_Lsun is not None:
            brightest = number(self.brightest_Lsun, "brightest_Lsun", "Lsun")
            object.__setattr__(self, "brightest_Lsun", brightest)
        if self.brightest_Lsun is not None and not low <= self.brightest_Lsun <= high:
            raise ValueError(
                f"brightest_Lsun = {self.brightest_Lsun:g} is outside "
                f"{number_text(low)}..{number_text(high)}"
            )
        if self.units not in get_args(Units):
            raise ValueError(f"units '{self.units}' is none of {', '.join(get_args(Units))}")

    @property
    def dnu_GHz(self) -> float:
        """Width of a channel [GHz]."""
        return (self.nu_GHz[0] - self.nu_GHz[1]) / self.shape[0]

    @property
    def pixel_sr(self) -> float:
        """Solid angle of a pixel [sr]."""
        ra, dec = self.fov_deg
        return (ra * DEG / self.shape[2]) * (dec * DEG / self.shape[1])

    @property
    def z_range(self) -> tuple[float, float]:
        """Redshifts of the band's ends."""
        return self.nu_rest_GHz / self.nu_GHz[0] - 1.0, self.nu_rest_GHz / self.nu_GHz[1] - 1.0

    def volume_Mpc3(self, Omega_m: float = OMEGA_M, h: float = HUBBLE) -> float:
        """Comoving volume of the field between the band's redshifts [Mpc^3], flat LCDM."""
        solid_angle = (
            self.fov_deg[0] * DEG * 2.0 * float(portable.sincos_deg(self.fov_deg[1] / 2)[0])
        )
        near, far = (distance_Mpc(z, Omega_m, h) for z in self.z_range)
        return solid_angle * (far * far * far - near * near * near) / 3.0

    @cached_property
    def edges(self) -> tuple[Float, Float, Float]:
        """Voxel edges: frequency [GHz] (descending), dec [deg], ra [deg]."""
        freq, dec, ra = self.shape
        half_ra, half_dec = self.fov_deg[0] / 2, self.fov_deg[1] / 2
        return (
            _edges(self.nu_GHz[0], self.nu_GHz[1], freq),
            _edges(-half_dec, half_dec, dec),
            _edges(-half_ra, half_ra, ra),
        )

    def channel(self, z_obs: ArrayLike) -> NDArray[np.int16]:
        """Frequency channel of redshifts [n]: int16 [n], -1 outside the band.

        Bins are half-open in increasing frequency, channel 0 closed at its top.
        """
        nu = self.nu_rest_GHz / (1.0 + np.asarray(z_obs, np.float64))
        edges = self.edges[0][::-1]
        bin_ = np.searchsorted(edges, nu, side="right") - 1
        inside = (nu >= edges[0]) & (nu <= edges[-1])
        from_top = self.shape[0] - 1 - np.minimum(bin_, self.shape[0] - 1)
        return np.where(inside, from_top, -1).astype(np.int16)

    @cached_property
    def intensity_factor(self) -> float:
        """c of T = c L / chi^2 [uK], or of I = c L / (chi (1+z))^2 [Jy/sr]; L in Lsun, chi in Mpc.

        In brightness temperature the redshift cancels: nu_obs (1 + z) = nu_rest.
        """
        common = 4.0 * np.pi * self.dnu_GHz * self.pixel_sr
        if self.units == "uK":
            return K_UK / 2.0 / (self.nu_rest_GHz * self.nu_rest_GHz) / common
        return K_JY / common

    @cached_property
    def fixed_point_exponent(self) -> int:
        """Power of two that deposits are scaled by: `brightest_Lsun` at the near edge fill about
        2^40.

        It depends on the grid alone (the distance is that of a fixed cosmology).
        """
        near = self.z_range[0]
        distance = distance_Mpc(near)
        luminosity = BRIGHTEST_LSUN if self.brightest_Lsun is None else self.brightest_Lsun
        brightest = self.intensity_factor * luminosity / (distance * distance)
        if self.units == "Jy/sr":
            brightest = brightest / ((1.0 + near) * (1.0 + near))
        return 40 - int(np.ceil(portable.log2(brightest)))


def _refuse_one(name: str, form: str, given: Any, several: int) -> None:
    """ValueError with what to write instead, for one number in the place of several."""
    if isinstance(given, int | float):
        same = ", ".join([f"{given:g}"] * several)
        raise ValueError(f"{name} must be {form}, not {given:g}: if all are the same, ({same})")


def _edges(first: float, last: float, bins: int) -> Float:
    """Edges of equal bins [bins + 1], in plain float64: they decide where a halo falls."""
    edges: Float = first + np.arange(bins + 1, dtype=np.float64) * ((last - first) / bins)
    edges[-1] = last
    return edges


def distance_Mpc(z: Redshift, Omega_m: float = OMEGA_M, h: float = HUBBLE) -> Redshift:
    """Comoving distance [Mpc] of a redshift, or of each of an array, flat LCDM, in plain float64
    (midpoint rule, 1e-6 relative up to z = 6, 1e-5 up to 20)."""
    root: Any = np.sqrt if isinstance(z, np.ndarray) else math.sqrt
    steps, total = 512, 0.0 * z
    for k in range(steps):
        a = 1.0 + z * (k + 0.5) / steps
        total = total + 1.0 / root(Omega_m * a * a * a + (1.0 - Omega_m))
    return 2997.92458 / h * z * total / steps
