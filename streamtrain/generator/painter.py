"""From halos to painted cubes: the paint kernel with everything it needs on one device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from streamtrain import portable
from streamtrain.catalogs.bank import Bank
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.generator import abundance, sfr
from streamtrain.generator.backend import full_device, kernels_for
from streamtrain.generator.bins import LuminosityBins
from streamtrain.generator.geometry import Grid, Pose, tile_columns
from streamtrain.generator.labels import EXTRA_COUNTS
from streamtrain.generator.model import LuminosityModel
from streamtrain.generator.trace import trace
from streamtrain.rng import STAGE_PAINT, Split, seed_words, stage_word

ROWS_PER_ITEM = 2048
"""Halos that one GPU block paints."""
LARGEST_DEPOSIT = 2.0**50
SAFE_SIGMA = 6.0
"""Scatter that a drawn model must leave room for; one halo in 1e9 is brighter."""
WIDE_SIGMA_DEX = 0.5
"""Scatter assumed for that where it depends on the halo."""


@dataclass
class Job:
    """What the kernel is told about B samples; the arrays of kernels/paint.cu, on the host."""

    items: NDArray[np.int64]
    item_start: NDArray[np.int64]
    """First work item of every sample [B + 1]."""
    pose: NDArray[np.float64]
    values: NDArray[np.float32]
    keys: NDArray[np.uint32]
    lightcone: NDArray[np.int64]
    """Number of the lightcone of every sample [B]; for the label, not for the kernel."""

    def __len__(self) -> int:
        return len(self.pose)


class Painter:
    """Paints fields of the bank's lightcones with one luminosity model into one grid.

    pooling: factors (freq, dec, ra) by which the grid's voxels are joined while painting; the
    cube then has the joined voxels, and `unit` says whether they hold a sum or a mean.
    """

    def __init__(
        self,
        bank: Bank,
        grid: Grid,
        model: LuminosityModel,
        bins: LuminosityBins,
        *,
        min_mass_Msun: float,
        pooling: tuple[int, int, int] = (1, 1, 1),
        mean: bool = True,
        scatter: bool | Literal["mean", "median"] = True,
        device: torch.device | str = "cpu",
        compiler_flags: Sequence[str] = (),
    ) -> None:
        self.bank, self.grid, self.model, self.bins = bank, grid, model, bins
        self.scatter = model.preserves if scatter is True else scatter
        model.check_line(grid.nu_rest_GHz)
        self.pooling = pooling
        freq, dec, ra = (n // f for n, f in zip(grid.shape, pooling, strict=True))
        self.shape = freq, dec, ra
        joined = pooling[0] * pooling[1] * pooling[2] if mean else 1
        self.scale = 2.0**grid.fixed_point_exponent
        self.unit = 1.0 / self.scale / joined
        self.device = full_device(device)
        self.rows_per_item = ROWS_PER_ITEM if self.device.type == "cuda" else None
        extra = {"nu_rest_GHz": grid.nu_rest_GHz}
        self.traced = trace(
            model.function,
            model.traced_parameters,
            extra,
            sigma_dex=model.sigma_dex,
            on_fraction=model.on_fraction,
            z_range=grid.z_range,
        )
        source = self.traced.source + bins.source()
        self.kernels = kernels_for(self.device, "paint.cu", source, compiler_flags)
        self._upload(min_mass_Msun)

    def _upload(self, min_mass_Msun: float) -> None:
        bank, grid = self.bank, self.grid
        channel = np.concatenate([self._channel(c, min_mass_Msun) for c in bank.lightcones])
        self.num_painted = np.array(
            [
                np.count_nonzero(channel[a:b] >= 0)
                for a, b in zip(bank.first_row[:-1], bank.first_row[1:], strict=True)
            ]
        )
        columns = [
            bank.gather(lambda c, name=name, form=form: _column(c, name, form))  # type: ignore[misc]
            for name, form in self.traced.columns
        ]
        stacked = np.stack(columns) if columns else np.zeros((1, 1), np.float32)
        half_ra, half_dec = (np.pi / 360.0 * side for side in grid.fov_deg)
        _, dec, ra = grid.shape
        field = [half_ra, half_dec, ra / (2.0 * half_ra), dec / (2.0 * half_dec)]
        field += [1.0 / self.pooling[2], 1.0 / self.pooling[1]]
        shape = [*self.shape, dec, ra, self.bins.num]
        halos = (bank.x, bank.y, bank.z, bank.log2_mass, bank.log2_1pz, channel, stacked)
        self._halos = [torch.from_numpy(a).to(self.device) for a in halos]
        self._column_stride = np.int64(stacked.shape[1])
        self._field = torch.tensor(field, dtype=torch.float64, device=self.device)
        self._shape = torch.tensor(shape, dtype=torch.int32, device=self.device)
        self._tiles = [c.tile_offsets for c in bank.lightcones]
        self._set_limit(channel, stacked)

    def _set_limit(self, channel: NDArray[np.int16], columns: NDArray[np.float32]) -> None:
        """Choose the halos that `fits` looks at: the heaviest, and some of every mass."""
        bank = self.bank
        painted = np.flatnonzero(channel >= 0)
        order = painted[np.argsort(-bank.log2_mass[painted], kind="stable")]
        ranks = np.unique(np.linspace(0, len(order) - 1, 40).astype(np.int64))
        chosen = np.unique(np.concatenate([order[:24], order[ranks] if len(order) else order]))
        self._probes = {
            "mass": portable.exp2(bank.log2_mass[chosen]),
            "one_plus_z": portable.exp2(bank.log2_1pz[chosen]),
        }
        for number, (name, form) in enumerate(self.traced.columns):
            values = columns[number, chosen].astype(np.float64)
            self._probes[name] = portable.exp2(values) if form == "log2" else values
        x, y, z = (a[chosen].astype(np.float64) for a in (bank.x, bank.y, bank.z))
        chi2 = x * x + y * y + z * z
        intensity = self.scale * self.grid.intensity_factor / chi2
        if self.grid.units == "Jy/sr":
            intensity = intensity / (self._probes["one_plus_z"] * self._probes["one_plus_z"])
        largest = min(2.0**62 / max(len(c) for c in bank.lightcones), LARGEST_DEPOSIT)
        self._log2_limit = portable.log2(largest / intensity)

    def fits(self, parameters: Mapping[str, NDArray[np.float64]]) -> NDArray[np.bool_]:
        """Whether the brightest halos of B parameter sets [B] stay inside the cube's fixed-point
        range, `SAFE_SIGMA` of scatter included. A function of the bank and the parameters."""
        size = len(next(iter(parameters.values()), np.zeros(1)))
        log2_l = self.traced.evaluate(parameters, self._probes)
        sigma, mu = self._scatter(parameters, size)
        if self.model.sigma_dex is not None:
            sigma, mu = np.full(size, WIDE_SIGMA_DEX * portable.LOG2_10), np.zeros(size)
        bright = log2_l + (SAFE_SIGMA * sigma + mu)[:, None]
        return np.asarray((bright < self._log2_limit).all(axis=1) & np.isfinite(sigma))

    def _channel(self, lightcone: Lightcone, min_mass_Msun: float) -> NDArray[np.int16]:
        """Channel of the (pooled) cube per halo, -1 outside the band or the mass cut."""
        fine = self.grid.channel(lightcone.z_obs)
        heavy = lightcone.mass_Msun.astype(np.float64) > min_mass_Msun
        return np.where(heavy & (fine >= 0), fine // self.pooling[0], -1).astype(np.int16)

    def job(
        self,
        lightcone: NDArray[np.int64],
        pose: Pose,
        parameters: Mapping[str, NDArray[np.float64]],
        *,
        seed: int,
        split: Split,
        indices: NDArray[np.uint64],
    ) -> Job:
        """Everything the kernel needs for B samples: lightcone [B], pose, parameters (each [B])."""
        size = len(lightcone)
        items, item_start = self._items(lightcone, pose)
        rows = np.array([len(c) for c in self.bank.lightcones])
        kernel_pose = np.empty((size, 11))
        kernel_pose[:, :9] = pose.matrix.reshape(size, 9)
        kernel_pose[:, 9] = self.scale
        kernel_pose[:, 10] = np.minimum(np.floor(2.0**62 / rows[lightcone]), LARGEST_DEPOSIT)
        sigma, mu = self._scatter(parameters, size)
        low, high, per_log2 = self.bins.kernel_values()
        uniforms = self.traced.evaluate_uniforms({**parameters, "": np.zeros(size)})
        values = np.empty((size, 7 + uniforms.shape[1]), np.float32)
        values[:, 0] = self.grid.intensity_factor
        values[:, 1] = 0.0 if self.grid.units == "uK" else -2.0
        values[:, 2] = sigma
        values[:, 3] = mu
        values[:, 4:7] = low, high, per_log2
        values[:, 7:] = uniforms
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1) | (sigma < 0.0))
        if len(bad):
            drawn = {name: float(v[bad[0]]) for name, v in parameters.items()}
            raise ValueError(f"{self.model.name} has no luminosity for the parameters {drawn}")
        keys = np.empty((size, 6), np.uint32)
        keys[:, :2] = seed_words(seed)
        keys[:, 2] = indices & np.uint64(0xFFFFFFFF)
        keys[:, 3] = indices >> np.uint64(32)
        keys[:, 4] = stage_word(split, STAGE_PAINT)
        keys[:, 5] = self.bank.first_row[lightcone]
        return Job(items, item_start, kernel_pose, values, keys, lightcone)

    def _scatter(
        self, parameters: Mapping[str, NDArray[np.float64]], size: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Scatter of log2 L and what is added to log2 L, [B] each; for a model whose scatter
        depends on the halo: a switch, and what the squared scatter is multiplied by."""
        sigma, mu = np.zeros(size), np.zeros(size)
        if self.scatter and self.model.sigma_dex is not None:
            sigma, mu = sigma + 1.0, mu - 0.5 * portable.LN2
        elif self.scatter and self.model.scatter is not None:
            pair = self.model.scatter(parameters)
            sigma, mu = (np.broadcast_to(a, (size,)) / portable.LN2 for a in pair)
        return sigma, mu if self.scatter == "mean" else np.zeros(size)

    def _items(
        self, lightcone: NDArray[np.int64], pose: Pose
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Work items [num, 3] (sample, first row, rows), and the first item of every sample."""
        slices = [np.empty((0, 3), np.int64)]
        for number in np.unique(lightcone):
            chosen = np.flatnonzero(lightcone == number)
            cone = self.bank.lightcones[number]
            some = Pose(pose.centre_deg[chosen], pose.roll_deg[chosen], pose.mirror[chosen])
            columns = tile_columns(
                some, self.grid.fov_deg, cone.footprint_deg, cone.tile_shape, cone.tile_deg
            )
            tile = columns + (np.arange(cone.tile_shape[0]) * cone.tile_shape[1])[None, :, None]
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

    def paint(self, job: Job, first: int, last: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Paint samples first..last-1 of a job.

        Returns the cubes in fixed point, int64 [n, freq, dec, ra] (times `unit` = map units), and
        the counts, int32 [n, bins + 3].
        """
        size = last - first
        total = torch.zeros((size, *self.shape), dtype=torch.int64, device=self.device)
        counts = torch.zeros(
            (size, self.bins.num + EXTRA_COUNTS), dtype=torch.int32, device=self.device
        )
        items = job.items[job.item_start[first] : job.item_start[last]].copy()
        items[:, 0] -= first
        self.kernels.per_item(
            "paint",
            len(items),
            4 * counts.shape[1],
            self._device(items),
            *self._halos,
            self._column_stride,
            self._device(job.pose[first:last]),
            self._device(job.values[first:last]),
            np.int32(job.values.shape[1]),
            self._device(job.keys[first:last].view(np.int32)),
            self._field,
            self._shape,
            total,
            counts,
        )
        return total, counts

    def _device(self, array: NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


def _split_items(items: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
    """Cut work items into pieces of at most `rows` rows."""
    pieces = -(-items[:, 2] // rows)
    source = np.repeat(np.arange(len(items)), pieces)
    number = np.arange(len(source)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    cut = items[source]
    cut[:, 1] += number * rows
    cut[:, 2] = np.minimum(rows, cut[:, 2] - number * rows)
    return cut


def _column(lightcone: Lightcone, name: str, form: str) -> NDArray[np.floating]:
    """A model's input per halo, from the lightcone or, for `sfr`, from the fit."""
    if name in lightcone.columns:
        values = lightcone.columns[name].astype(np.float64)
        if values.size and values.min() < 0.0:
            raise ValueError(
                f"the column '{name}' of {lightcone.name} holds {values.min():g}: "
                "a luminosity model needs numbers that are not negative"
            )
        return portable.log2(values) if form == "log2" else values
    if name == "sfr":
        log10_sfr = sfr.log10_sfr(lightcone.mass_Msun, lightcone.z_obs)
        return log10_sfr * portable.LOG2_10 if form == "log2" else portable.exp10(log10_sfr)
    if name == "abundance_matched_L":
        luminosity = abundance.matched_luminosity(lightcone)
        return portable.log2(luminosity) if form == "log2" else luminosity
    known = ", ".join(["sfr (from the fit)", *lightcone.columns])
    raise ValueError(
        f"the luminosity model needs the column '{name}', which {lightcone.name} does not have "
        f"(it has: {known})"
    )
