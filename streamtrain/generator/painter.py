"""From halos to painted cubes: the paint kernel with everything it needs on one device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from streamtrain.bins import LuminosityBins
from streamtrain.catalogs.sfr import SFRTable
from streamtrain.generator.compiled_model import LARGEST_DEPOSIT, CompiledModel, Parameters
from streamtrain.generator.halos import Bank, Halos
from streamtrain.generator.pose import Pose
from streamtrain.grid import Grid
from streamtrain.luminosity.columns import warn_of_extrapolated_rates
from streamtrain.luminosity.lost_light import kept_light, warn_of_lost_light
from streamtrain.luminosity.model import LuminosityModel
from streamtrain.luminosity.modifiers import PLAIN, Adjustments, Modifiers
from streamtrain.numerics.rng import Draws, seed_words, stage_word
from streamtrain.numerics.workspace import Arrays, DeviceArrays, FreshMemory


@dataclass
class PaintArguments:
    """The paint kernel's arguments for B samples: the arrays of kernels/paint.cu, on the host."""

    items: NDArray[np.int64]
    item_start: NDArray[np.int64]
    """First work item of every sample [B + 1]."""
    model: NDArray[np.int64]
    """Which of the painter's models makes a sample [B]."""
    pose: NDArray[np.float64]
    values: NDArray[np.float32]
    keys: NDArray[np.uint32]
    lightcone: NDArray[np.int64]
    """Number of the lightcone of every sample [B]; for the label, not for the kernel."""
    others: list[PaintArguments] = field(default_factory=list)
    """What the kernel reads of the other lines in the same cubes."""

    def __len__(self) -> int:
        return len(self.pose)


class LinePainter:
    """Paints fields of the bank's lightcones into one grid, each with one of some luminosity
    models.

    pooling: factors (freq, dec, ra) by which the grid's voxels are joined while painting; the
    cube then has the joined voxels, and `unit` says whether they hold a sum or a mean.
    sfr: "auto", "fit", "fit_in_range", "column" or a table, see `model_column`. Warns
    (ModelRangeWarning) where a model or a fit is used at redshifts or masses it was not published
    for, and (LostLightWarning) where much of a model's light comes from lighter halos.
    """

    def __init__(
        self,
        bank: Bank,
        grid: Grid,
        models: Sequence[LuminosityModel],
        bins: LuminosityBins,
        *,
        min_mass_Msun: float,
        pooling: tuple[int, int, int] = (1, 1, 1),
        mean: bool = True,
        compiler_flags: Sequence[str] = (),
        sfr: str | SFRTable = "auto",
        modifiers: Modifiers = PLAIN,
        exponent: int | None = None,
    ) -> None:
        self.bank, self.grid, self.bins = bank, grid, bins
        freq, dec, ra = (n // f for n, f in zip(grid.shape, pooling, strict=True))
        self.shape = freq, dec, ra
        joined = pooling[0] * pooling[1] * pooling[2] if mean else 1
        self.device = bank.device
        self.halos = Halos(bank, grid, min_mass_Msun, pooling[0], exponent)
        self.scale = self.halos.scale
        self.unit = 1.0 / self.scale / joined
        made = {
            id(m): CompiledModel(m, self.halos, bins, sfr, modifiers, compiler_flags)
            for m in {id(m): m for m in models}.values()
        }
        self.compiled_models = [made[id(m)] for m in models]
        """One for each of `models`; a model that is there twice, with two priors, is one."""
        middle, cosmology = 0.5 * sum(grid.z_range), bank.lightcones[0].cosmology
        self.kept_light: list[float | None] = []
        """Share of each model's mean light that halos above the mass cut have, see `kept_light`."""
        for compiled in self.compiled_models:
            model = compiled.model
            model.check_range(grid.z_range, (min_mass_Msun, self.halos.heaviest_Msun))
            kept = kept_light(model, compiled.traced, middle, min_mass_Msun, cosmology)
            warn_of_lost_light(model, kept, middle, min_mass_Msun)
            self.kept_light.append(kept)
        if any("sfr" in dict(compiled.traced.columns) for compiled in self.compiled_models):
            rows = np.split(self.halos.channel >= 0, bank.first_row[1:-1])
            warn_of_extrapolated_rates(bank.lightcones, rows, sfr)
        half_ra, half_dec = (np.pi / 360.0 * side for side in grid.fov_deg)
        _, fine_dec, fine_ra = grid.shape
        field = [half_ra, half_dec, fine_ra / (2.0 * half_ra), fine_dec / (2.0 * half_dec)]
        field += [1.0 / pooling[2], 1.0 / pooling[1]]
        shape = [*self.shape, fine_dec, fine_ra, bins.num]
        self._field = torch.tensor(field, dtype=torch.float64, device=self.device)
        self._shape = torch.tensor(shape, dtype=torch.int32, device=self.device)

    @property
    def tensors(self) -> list[torch.Tensor]:
        """All that the kernel reads of the bank and the grid, on the device."""
        columns = [compiled.columns for compiled in self.compiled_models]
        return [*self.halos.arrays, *columns, self._field, self._shape]

    def arguments(
        self,
        lightcone: NDArray[np.int64],
        pose: Pose,
        model: NDArray[np.int64],
        parameters: Sequence[Parameters],
        adjustments: Adjustments | None = None,
        *,
        draws: Draws,
    ) -> PaintArguments:
        """Everything the kernel needs for B samples: lightcone [B], pose, model [B]; parameters:
        for every model of the painter, those of its samples in their order; adjustments: of the
        modifiers; draws: of the stage of the scatter."""
        size = len(lightcone)
        items, item_start = self.bank.items(lightcone, pose, self.grid.fov_deg)
        rows = np.array([len(c) for c in self.bank.lightcones])
        kernel_pose = np.empty((size, 11))
        kernel_pose[:, :9] = pose.matrix.reshape(size, 9)
        kernel_pose[:, 9] = self.scale
        kernel_pose[:, 10] = np.minimum(np.floor(2.0**62 / rows[lightcone]), LARGEST_DEPOSIT)
        keys = np.empty((size, 6), np.uint32)
        keys[:, :2] = seed_words(draws.seed)
        keys[:, 2] = draws.indices & np.uint64(0xFFFFFFFF)
        keys[:, 3] = draws.indices >> np.uint64(32)
        keys[:, 4] = stage_word(draws.split, draws.stage)
        keys[:, 5] = self.bank.first_row[lightcone]
        values = self._values(model, parameters, adjustments or Adjustments.none(size))
        return PaintArguments(items, item_start, model, kernel_pose, values, keys, lightcone)

    def _values(
        self,
        model: NDArray[np.int64],
        parameters: Sequence[Parameters],
        adjustments: Adjustments,
    ) -> NDArray[np.float32]:
        """The values of all models in one array, as wide as the widest."""
        chosen = [np.flatnonzero(model == k) for k in range(len(self.compiled_models))]
        made = [
            compiled.values(given, adjustments.take(samples))
            for compiled, given, samples in zip(
                self.compiled_models, parameters, chosen, strict=True
            )
        ]
        values = np.zeros((len(model), max(v.shape[1] for v in made)), np.float32)
        for samples, some in zip(chosen, made, strict=True):
            values[samples, : some.shape[1]] = some
        return values

    def kernel_arguments(self, arguments: PaintArguments, first: int, last: int) -> Arrays:
        """The arrays of samples first..last-1 for `deposit`, still on the host."""
        items = arguments.items[arguments.item_start[first] : arguments.item_start[last]]
        arrays: dict[str, NDArray[np.generic]] = {
            "pose": arguments.pose[first:last],
            "values": arguments.values[first:last],
            "keys": arguments.keys[first:last].view(np.int32),
        }
        one = len(self.compiled_models) == 1
        for number in [0] if one else np.unique(arguments.model[first:last]):
            mine = items.copy() if one else items[arguments.model[items[:, 0]] == number]
            mine[:, 0] -= first
            arrays[items_of(number)] = mine
        return arrays

    def deposit(self, arrays: DeviceArrays, total: torch.Tensor, counts: torch.Tensor) -> None:
        """Add halos to B cubes in fixed point, int64 [B, freq, dec, ra] (times `unit` = map units),
        and to the counts, int32 [B, bins + 3]: one launch per luminosity model. arrays: see
        `kernel_arguments`, on the device."""
        for number, compiled in enumerate(self.compiled_models):
            items = arrays.get(items_of(number))
            if items is None:
                continue
            compiled.kernels.per_item(
                "paint",
                len(items),
                4 * counts.shape[1],
                items,
                *self.halos.arrays,
                compiled.columns,
                np.int64(compiled.columns.shape[1]),
                arrays["pose"],
                arrays["values"],
                np.int32(arrays["values"].shape[1]),
                arrays["keys"],
                self._field,
                self._shape,
                total,
                counts,
            )

    def paint(
        self, arguments: PaintArguments, first: int, last: int, total: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Paint samples first..last-1, into `total` if it is given.

        Returns the cubes and the counts of `deposit`.
        """
        memory = FreshMemory(self.device)
        if total is None:
            total = memory.zeros("total", (last - first, *self.shape), torch.int64)
        size = (last - first, self.bins.num_counts)
        counts = memory.zeros("counts", size, torch.int32)
        self.deposit(memory.send([self.kernel_arguments(arguments, first, last)])[0], total, counts)
        return total, counts


def items_of(model: int) -> str:
    """Name of the work items of a model's samples among the arrays of `LinePainter.deposit`."""
    return f"items of model {model}"
