"""The bank's halos on one device, as the paint kernel reads them for one grid."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from streamtrain import portable
from streamtrain.catalogs.bank import Bank
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.generator.geometry import Grid, Pose, tile_columns

ROWS_PER_ITEM = 2048
"""Halos that one GPU block paints."""


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
        self.rows_per_item = ROWS_PER_ITEM if device.type == "cuda" else None
        arrays = (bank.x, bank.y, bank.z, bank.log2_mass, bank.log2_1pz, self.channel)
        self.arrays = [torch.from_numpy(a).to(device) for a in arrays]
        """x, y, z, log2_mass, log2_1pz, channel as in kernels/paint.cu."""
        self._tiles = [c.tile_offsets for c in bank.lightcones]

    @property
    def num_painted(self) -> NDArray[np.int64]:
        """Halos in the band and above the mass cut, per lightcone."""
        ends = zip(self.bank.first_row[:-1], self.bank.first_row[1:], strict=True)
        return np.array([np.count_nonzero(self.channel[a:b] >= 0) for a, b in ends])

    @property
    def heaviest_Msun(self) -> float:
        """Mass of the heaviest halo that is painted [Msun]; 0 without any."""
        return float(portable.exp2(self.bank.log2_mass[self.channel >= 0].max(initial=-np.inf)))

    def items(
        self, lightcone: NDArray[np.int64], pose: Pose
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Work items [num, 3] (sample, first row, rows), and the first item of every sample."""
        slices = [np.empty((0, 3), np.int64)]
        for number in np.unique(lightcone):
            chosen = np.flatnonzero(lightcone == number)
            cone = self.bank.lightcones[number]
            some = Pose(pose.centre_deg[chosen], pose.roll_deg[chosen], pose.mirror[chosen])
            tile_rows, columns = tile_columns(
                some, self.grid.fov_deg, cone.footprint_deg, cone.tile_shape, cone.tile_deg
            )
            tile = columns + (tile_rows * cone.tile_shape[1])[:, :, None]
            rows = self._tiles[number][tile]
            first, last = rows[..., 0], rows[..., 1]
            sample = np.broadcast_to(chosen[:, None], first.shape)
            first = first + self.bank.first_row[number]
            last = last + self.bank.first_row[number]
            slices.append(np.stack([sample, first, last - first], axis=-1).reshape(-1, 3))
        items = np.concatenate(slices)
        items = items[items[:, 2] > 0]
        items = items[np.argsort(items[:, 0], kind="stable")]
        if self.rows_per_item is not None:
            items = _split_items(items, self.rows_per_item)
        start = np.searchsorted(items[:, 0], np.arange(len(lightcone) + 1))
        return np.ascontiguousarray(items), start


def _channel(
    lightcone: Lightcone, grid: Grid, min_mass_Msun: float, join: int
) -> NDArray[np.int16]:
    """Channel of the cube per halo, -1 outside the band or below the mass cut."""
    fine = grid.channel(lightcone.z_obs)
    heavy = lightcone.mass_Msun.astype(np.float64) > min_mass_Msun
    return np.where(heavy & (fine >= 0), fine // join, -1).astype(np.int16)


def _split_items(items: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
    """Cut work items into pieces of at most `rows` rows."""
    pieces = -(-items[:, 2] // rows)
    source = np.repeat(np.arange(len(items)), pieces)
    number = np.arange(len(source)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    cut = items[source]
    cut[:, 1] += number * rows
    cut[:, 2] = np.minimum(rows, cut[:, 2] - number * rows)
    return cut
