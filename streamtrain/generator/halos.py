"""The bank's halos on one device, as the paint kernel reads them for one grid."""

from __future__ import annotations

from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from streamtrain import portable
from streamtrain.catalogs.bank import Bank
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.generator.geometry import Grid, Pose, tile_columns


class Column(Protocol):
    """A number for every halo of a lightcone [n]; used: those that it matters for [n]."""

    def __call__(
        self, lightcone: Lightcone, /, *, used: NDArray[np.bool_]
    ) -> NDArray[np.floating]: ...


class Halos:
    """Positions, masses, redshifts and frequency channels of a bank's halos, and their tiles.

    join: channels of the grid that are joined into one of the cube. exponent: of the fixed-point
    scale; default: the grid's own.
    """

    def __init__(
        self,
        bank: Bank,
        grid: Grid,
        min_mass_Msun: float,
        join: int,
        device: torch.device,
        exponent: int | None = None,
    ) -> None:
        self.bank, self.grid, self.device, self.join = bank, grid, device, join
        self.min_mass_Msun = min_mass_Msun
        self.scale = 2.0 ** (grid.fixed_point_exponent if exponent is None else exponent)
        """Fixed-point units per map unit."""
        self.channel = np.concatenate(
            [_channel(c, grid, min_mass_Msun, join) for c in bank.lightcones]
        )
        arrays = (bank.x, bank.y, bank.z, bank.log2_mass, bank.log2_1pz, self.channel)
        self.arrays = [torch.from_numpy(a).to(device) for a in arrays]
        """x, y, z, log2_mass, log2_1pz, channel as in kernels/paint.cu."""
        cones = bank.lightcones
        first = zip(bank.first_row, cones, strict=False)
        self._tile_rows = np.concatenate([row + c.tile_offsets for row, c in first])
        """First row in the bank of every tile of all lightcones, and of each one past its last."""
        sizes = [len(c.tile_offsets) for c in cones]
        self._tiling = (
            np.array([c.footprint_deg for c in cones]),
            np.array([c.tile_shape for c in cones]),
            np.array([c.tile_deg for c in cones]),
            np.cumsum([0, *sizes[:-1]]),
        )
        """Per lightcone: footprint, tiles (n_dec, n_ra), their side, place of its first one."""

    @property
    def num_painted(self) -> NDArray[np.int64]:
        """Halos in the band and above the mass cut, per lightcone."""
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

    def items(
        self, lightcone: NDArray[np.int64], pose: Pose
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Work items [num, 3] (sample, first row, rows), and the first item of every sample."""
        footprint, shape, tile_deg, first_tile = (a[lightcone] for a in self._tiling)
        tile_rows, columns = tile_columns(pose, self.grid.fov_deg, footprint, shape, tile_deg)
        tile = columns + (first_tile[:, None] + tile_rows * shape[:, 1:])[:, :, None]
        sample, place = np.nonzero(columns[:, :, 0] < columns[:, :, 1])
        rows = self._tile_rows[tile[sample, place]]
        items = np.stack([sample, rows[:, 0], rows[:, 1] - rows[:, 0]], axis=-1)
        items = items[items[:, 2] > 0]
        start = np.searchsorted(items[:, 0], np.arange(len(lightcone) + 1))
        return np.ascontiguousarray(items), start


def _channel(
    lightcone: Lightcone, grid: Grid, min_mass_Msun: float, join: int
) -> NDArray[np.int16]:
    """Channel of the cube per halo, -1 outside the band or below the mass cut."""
    fine = grid.channel(lightcone.z_obs)
    heavy = lightcone.mass_Msun.astype(np.float64) > min_mass_Msun
    return np.where(heavy & (fine >= 0), fine // join, -1).astype(np.int16)
