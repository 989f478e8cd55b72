"""The halos of the lightcones in use, side by side on one device: `Bank`; and as one line sees
them: `Halos`, and the widths of their lines in its channels.

A halo's row in the bank is its row in its lightcone plus the lightcone's first row; its identity
for the random numbers is the row in its lightcone, so the other lightcones never matter. Lines that
shine in the same lightcones share one bank.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from streamtrain.catalogs.headers import CatalogError
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.cosmology import C_KMS
from streamtrain.generator.pose import Pose, tile_columns
from streamtrain.grid import Grid
from streamtrain.luminosity.modifiers import LineWidthConfig
from streamtrain.numerics import portable
from streamtrain.numerics.backend import full_device
from streamtrain.operators.beam import FWHM_PER_SIGMA

Float32 = NDArray[np.float32]


BANK_BYTES = 5 * 4
"""Bytes per halo in the arrays of a bank on its device."""
LINE_BYTES = 2
"""Bytes per halo that `Halos` adds for a line: its channel."""


class Bank:
    """Lightcones one after the other, whatever lines shine in them.

    Arrays [num_rows] on the host: x, y, z [Mpc], log2_mass (of M/Msun), log2_1pz (of 1 + z_obs),
    float32; on a CPU the `arrays` on the device are the same memory. Raises CatalogError without a
    lightcone, and for more halos than 32 bits count.
    """

    def __init__(self, lightcones: Sequence[Lightcone], device: torch.device | str = "cpu") -> None:
        if not lightcones:
            raise CatalogError("a generator needs at least one lightcone")
        self.lightcones, self.device = list(lightcones), full_device(device)
        sizes = [len(lightcone) for lightcone in lightcones]
        self.first_row = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        if self.num_rows >= 2**32:
            raise CatalogError(f"{self.num_rows} halos are more than a bank holds (2^32)")
        self.x, self.y, self.z = (
            self.gather(lambda c, name=name: getattr(c, name))  # type: ignore[misc]
            for name in ("x_Mpc", "y_Mpc", "z_Mpc")
        )
        self.log2_mass = self.gather(lambda c: portable.log2(c.mass_Msun))
        self.log2_1pz = self.gather(lambda c: portable.log2(1.0 + c.z_obs.astype(np.float64)))
        arrays = (self.x, self.y, self.z, self.log2_mass, self.log2_1pz)
        self.arrays = [torch.from_numpy(a).to(self.device) for a in arrays]
        """x, y, z, log2_mass, log2_1pz as in kernels/paint.cu, float32 [num_rows]."""
        cones = self.lightcones
        first = zip(self.first_row, cones, strict=False)
        self.tile_rows = np.concatenate([row + c.tile_offsets for row, c in first])
        """First row of every tile of all lightcones, and of each one past its last."""
        self._tiling = (
            self.footprints,
            np.array([c.tile_shape for c in cones]),
            np.array([c.tile_deg for c in cones]),
            np.cumsum([0, *(len(c.tile_offsets) for c in cones[:-1])]),
        )
        """Per lightcone: footprint, tiles (n_dec, n_ra), their side, place of its first one."""

    @property
    def num_rows(self) -> int:
        """How many halos all lightcones have."""
        return int(self.first_row[-1])

    @property
    def footprints(self) -> NDArray[np.float64]:
        """The footprint of each lightcone, (ra_min, ra_max, dec_min, dec_max) [deg], [n, 4]."""
        return np.array([c.footprint_deg for c in self.lightcones])

    def gather(self, column: Callable[[Lightcone], NDArray[np.floating]]) -> Float32:
        """One number per halo, float32 [num_rows], computed lightcone by lightcone."""
        return np.concatenate([np.asarray(column(c), np.float32) for c in self.lightcones])

    def items(
        self, lightcone: NDArray[np.int64], pose: Pose, fov_deg: tuple[float, float]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Work items of B fields of `fov_deg` [deg], each in a lightcone [B] at a pose: int64
        [num, 3] (sample, first row, rows), and the first item of every sample [B + 1]."""
        footprint, shape, tile_deg, first_tile = (a[lightcone] for a in self._tiling)
        tile_rows, columns = tile_columns(pose, fov_deg, footprint, shape, tile_deg)
        tile = columns + (first_tile[:, None] + tile_rows * shape[:, 1:])[:, :, None]
        sample, place = np.nonzero(columns[:, :, 0] < columns[:, :, 1])
        rows = self.tile_rows[tile[sample, place]]
        items = np.stack([sample, rows[:, 0], rows[:, 1] - rows[:, 0]], axis=-1)
        items = items[items[:, 2] > 0]
        start = np.searchsorted(items[:, 0], np.arange(len(lightcone) + 1))
        return np.ascontiguousarray(items), start


class Column(Protocol):
    """A number for every halo of a lightcone [n]; used: those that it matters for [n]."""

    def __call__(
        self, lightcone: Lightcone, /, *, used: NDArray[np.bool_]
    ) -> NDArray[np.floating]: ...


class Halos:
    """The halos of a bank as the line of one grid sees them: a bank and their frequency channels.

    join: channels of the grid that are joined into one of the cube. exponent: of the fixed-point
    scale; default: the grid's own.
    """

    def __init__(
        self,
        bank: Bank,
        grid: Grid,
        min_mass_Msun: float,
        join: int,
        exponent: int | None = None,
    ) -> None:
        self.bank, self.grid, self.device, self.join = bank, grid, bank.device, join
        self.min_mass_Msun = min_mass_Msun
        self.scale = 2.0 ** (grid.fixed_point_exponent if exponent is None else exponent)
        """Fixed-point units per map unit."""
        self.channel = np.concatenate(
            [_channel(c, grid, min_mass_Msun, join) for c in bank.lightcones]
        )
        """Channel of the cube per halo, int16 [num_rows]; -1: not painted."""
        self.arrays = [*bank.arrays, torch.from_numpy(self.channel).to(self.device)]
        """x, y, z, log2_mass, log2_1pz of the bank and channel as in kernels/paint.cu."""

    @property
    def num_painted(self) -> NDArray[np.int64]:
        """How many halos each lightcone has in the band and above the mass cut [n]."""
        return np.array([np.count_nonzero(part) for part in self._by_lightcone(self.channel >= 0)])

    def gather(self, column: Column, used: NDArray[np.bool_]) -> NDArray[np.float32]:
        """One number per halo of the bank, computed lightcone by lightcone.

        used: the halos that it matters for [num_rows]."""
        both = zip(self.bank.lightcones, self._by_lightcone(used), strict=True)
        return np.concatenate([np.asarray(column(c, used=u), np.float32) for c, u in both])

    def _by_lightcone(self, rows: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
        return [rows[first:end] for first, end in pairwise(self.bank.first_row)]

    @property
    def heaviest_Msun(self) -> float:
        """Mass of the heaviest halo that is painted [Msun]; 0 without any."""
        return float(portable.exp2(self.bank.log2_mass[self.channel >= 0].max(initial=-np.inf)))

    def rows_of(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of the halos of work items that are in the band and above the mass cut."""
        rows = [np.arange(first, first + num) for _, first, num in items]
        found = np.concatenate([np.zeros(0, np.int64), *rows])
        return found[self.channel[found] >= 0]


def _channel(
    lightcone: Lightcone, grid: Grid, min_mass_Msun: float, join: int
) -> NDArray[np.int16]:
    """Channel of the cube per halo, -1 outside the band or below the mass cut."""
    fine = grid.channel(lightcone.z_obs)
    heavy = lightcone.mass_Msun.astype(np.float64) > min_mass_Msun
    return np.where(heavy & (fine >= 0), fine // join, -1).astype(np.int16)


NOT_PAINTED = -1e9
"""Place along the frequency axis of a halo below the mass cut."""

WIDEST_REACH = 4.0 * 2.0 / np.sqrt(3.0)
"""Standard deviations from its centre to which the kernel spreads a line: REACH, of discs that are
seen edge-on."""


def virial_velocity_kms(lightcone: Lightcone) -> NDArray[np.float64]:
    """v = 35 km/s (M / 1e10 Msun)^(1/3) (H(z) / 100 km/s/Mpc)^(1/3) of every halo [n] (Chung et al.
    2021, 2104.11171), the full width of its line at half maximum."""
    c = lightcone.cosmology
    a = 1.0 + lightcone.z_obs.astype(np.float64)
    hubble = c["h"] * np.sqrt(c["Omega_m"] * (a * a * a) + (1.0 - c["Omega_m"]))
    mass = lightcone.mass_Msun.astype(np.float64) / 1e10
    return 35.0 * portable.exp2(portable.log2(mass * hubble) / 3.0)


def line_columns(halos: Halos, config: LineWidthConfig) -> list[NDArray[np.float32]]:
    """Place of every halo along the frequency axis, and log2 of the standard deviation of its line,
    both in channels of the cube, float32 [num_rows] each."""
    grid = halos.grid
    width_GHz = grid.dnu_GHz * halos.join

    def frequency(lightcone: Lightcone) -> NDArray[np.float64]:
        return grid.nu_rest_GHz / (1.0 + lightcone.z_obs.astype(np.float64))

    def place(lightcone: Lightcone) -> NDArray[np.float64]:
        heavy = lightcone.mass_Msun.astype(np.float64) > halos.min_mass_Msun
        along = (grid.nu_GHz[0] - frequency(lightcone)) / width_GHz
        return np.where(heavy, along, NOT_PAINTED)

    def log2_sigma(lightcone: Lightcone) -> NDArray[np.float64]:
        fwhm = config.factor * virial_velocity_kms(lightcone) / C_KMS * frequency(lightcone)
        return portable.log2(fwhm / FWHM_PER_SIGMA / width_GHz)

    return [halos.bank.gather(place), halos.bank.gather(log2_sigma)]


def within_reach(halos: Halos, columns: list[NDArray[np.float32]]) -> NDArray[np.bool_]:
    """Halos whose lines may reach into the band, those beside it among them, bool [num_rows].

    columns: see `line_columns`.
    """
    place = columns[0].astype(np.float64)
    reach = WIDEST_REACH * portable.exp2(columns[1]) + 1.0
    channels = halos.grid.shape[0] // halos.join
    inside = (place + reach >= 0.0) & (place - reach <= channels)
    return inside & (columns[0] != np.float32(NOT_PAINTED))
