"""Labels: what a network predicts of a sample, and what its answer means.

A label is a function of luminosity, one number per luminosity bin, or the class of the luminosity
model. Functions are a count times the label of one halo (its unit, which depends on the volume of
the field), or the log10 of that; so errors in dex are those of the count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamtrain import portable
from streamtrain.config import ConfigError, LabelConfig
from streamtrain.generator.backend import Kernels
from streamtrain.generator.bins import LuminosityBins
from streamtrain.generator.workspace import Arrays, FreshMemory, Told, Workspace

EXTRA_COUNTS = 3
"""Entries after the bins in the kernel's counts: overflow, underflow, saturated deposits."""
SMALLEST_STD_DEX = 0.1
"""Floor of a bin's standard deviation in the log10 form: a bin that happened to be constant in the
calibration samples must not get an unbounded weight. In the linear form it is one halo."""
SMALLEST_FREQUENCY = 1e-3
"""Floor of a class's frequency in the calibration samples."""
_SAFE = (1e-36, 1e30)
"""Units that float32 can hold, also times a count."""


@dataclass(frozen=True)
class Quantity:
    """A function of luminosity, for tables and figures."""

    symbol: str
    axis: str
    """Name and unit, in matplotlib's mathematics."""
    at_lower_edge: bool = False
    """Its value belongs to the lower edge of a bin, not to the centre."""


QUANTITIES = {
    "counts": Quantity("dN", "halos per bin, $dN$"),
    "cumulative": Quantity("N(>L)", "halos above $L$, $N(>L)$", at_lower_edge=True),
    "phi": Quantity("phi", r"$\phi = dn/dL$ [Mpc$^{-3}$ $L_\odot^{-1}$]"),
    "phi_L": Quantity("phi L", r"$\phi L = dn/d\ln L$ [Mpc$^{-3}$]"),
}


class Label:
    """What a network predicts.

    config: the section `label` of a configuration
    volumes_Mpc3: comoving volume of the field, per lightcone
    classes: names of the luminosity models, for the quantity `class`
    device: where labels are made
    Raises ConfigError if there is nothing to tell apart, or a unit that float32 cannot hold.
    """

    def __init__(
        self,
        config: LabelConfig,
        volumes_Mpc3: Sequence[float] = (1.0,),
        classes: Sequence[str] = (),
        device: torch.device | str = "cpu",
    ) -> None:
        self.config, self.bins, self.classes = config, LuminosityBins.of(config), list(classes)
        if self.is_class and len(self.classes) < 2:
            raise ConfigError(
                "label.quantity = class needs several luminosity models to tell apart: list them "
                "in emit.line.mixture"
            )
        volumes, self._row = np.unique(np.asarray(volumes_Mpc3, np.float64), return_inverse=True)
        if not self.has_unit:
            volumes, self._row = np.ones(1), np.zeros_like(self._row)
        self.unit = self._units(volumes)
        one_halo = portable.log10(self.unit) if self.form == "log10" else self.unit
        self._one_halo = torch.from_numpy(one_halo.astype(np.float32)).to(device)

    def _units(self, volumes_Mpc3: NDArray[np.float64]) -> NDArray[np.float64]:
        """What one halo in a bin is worth, [number of volumes, num_bins]."""
        width = np.ones(self.bins.num)
        if self.config.quantity == "phi":
            width = self.bins.width_Lsun
        elif self.config.quantity == "phi_L":
            width = self.bins.width_lnL
        with np.errstate(divide="ignore"):
            unit = 1.0 / (volumes_Mpc3[:, None] * width)
        low, high = float(unit.min()), float(unit.max())
        if not _SAFE[0] < low <= high < _SAFE[1]:
            raise ConfigError(
                f"label.quantity = {self.config.quantity}: one halo is worth {low:g} to {high:g} "
                f"per bin, outside {_SAFE[0]:g}..{_SAFE[1]:g}"
            )
        return unit

    @property
    def is_class(self) -> bool:
        """Whether the label is a class, not a function of luminosity."""
        return self.config.quantity == "class"

    @property
    def has_unit(self) -> bool:
        """Whether the function of luminosity is a density, not a number of halos."""
        return self.config.quantity in ("phi", "phi_L")

    @property
    def form(self) -> Literal["log10", "linear", "class"]:
        """What the numbers of the label are."""
        return "class" if self.is_class else self.config.scale

    @property
    def num_outputs(self) -> int:
        """Numbers in a label: luminosity bins, or classes."""
        return len(self.classes) if self.is_class else self.bins.num

    def one_halo(self, lightcone: NDArray[np.int64]) -> Tensor:
        """The label of one halo in each bin, float32 [B, num_bins], or [1, num_bins] where it is
        the same for all lightcones. lightcone: number of each sample's [B]."""
        if len(self._one_halo) == 1:
            return self._one_halo
        return self._one_halo[torch.from_numpy(self._row[lightcone]).to(self._one_halo.device)]

    def told(self, lightcone: NDArray[np.int64], model: NDArray[np.int64]) -> Arrays:
        """What `one_halo_of` and `make` need to know of samples, still on the host.

        lightcone: number of each sample's [B]; model: of its luminosity model [B].
        """
        arrays: dict[str, NDArray[np.generic]] = {}
        if len(self._one_halo) > 1:
            arrays["row"] = self._row[lightcone]
        if self.is_class:
            arrays["one_hot"] = np.eye(len(self.classes), dtype=np.float32)[model]
        return arrays

    def one_halo_of(self, told: Told) -> Tensor:
        """`one_halo` of the samples of `told`, on the device."""
        return self._one_halo[told["row"]] if "row" in told else self._one_halo

    def make(
        self, kernels: Kernels, counts: Tensor, told: Told, memory: Workspace | None = None
    ) -> Tensor:
        """Labels float32 [B, num_outputs].

        kernels: of label.cu; counts: the paint kernel's, int32 [B, num_bins + 3]; told: see there,
        on the device; memory: where the labels lie [new].
        """
        memory = memory or FreshMemory(counts.device)
        if self.is_class:
            return memory.empty("label", told["one_hot"].shape, torch.float32).copy_(
                told["one_hot"]
            )
        bins, one_halo = self.bins.num, self.one_halo_of(told)
        label = memory.empty("label", (len(counts), bins), torch.float32)
        kernels.elementwise(
            "make_label",
            len(counts),
            bins,
            np.int32(self.config.quantity == "cumulative"),
            np.int32(self.config.overflow),
            np.int32(self.form == "log10"),
            np.int64(bins if len(one_halo) > 1 else 0),
            one_halo,
            counts,
            label,
        )
        return label

    def log10_counts(self, values: Tensor, one_halo: Tensor) -> Tensor:
        """log10 of the count, at least 0, from labels or a network's answers [B, num_bins], in
        float64 on their device.

        Below one halo there is nothing to predict: smaller values become log10(1) = 0, as they are
        in the label. one_halo: `Batch.one_halo`.
        """
        one = one_halo.to(values.device, torch.float64)
        if self.form == "linear":
            return (values.double() / one).clamp(min=1.0).log10()
        return (values.double() - one).clamp(min=0.0)

    def occupied(self, values: Tensor, counts: Tensor) -> Tensor:
        """Where the count is at least one, bool [B, num_bins]; the log10 of one would not tell.

        values: labels; counts: `Batch.counts`. A function N(>L) also has halos beyond the bins.
        """
        if self.config.quantity != "cumulative":
            return counts > 0
        above = counts.flip(1).cumsum(1).flip(1) > 0
        return above | (values.to(counts.device) > 0)

    def unit_of(self, one_halo: Tensor) -> NDArray[np.float64] | None:
        """What one halo is worth in the label's quantity, whatever its scale, in the shape of
        one_halo; None where it is one, a count."""
        if not self.has_unit:
            return None
        one = one_halo.cpu().double().numpy()
        return np.asarray(10.0**one if self.form == "log10" else one)

    def output_moments(self, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        """What a network's output is centred on and scaled by, float32 [num_outputs].

        mean, std: of the labels of some samples. Classes start at the log of their frequencies.
        """
        if self.is_class:
            return mean.clamp(min=SMALLEST_FREQUENCY).log(), torch.ones_like(std)
        if self.form == "log10":
            return mean, std.clamp(min=SMALLEST_STD_DEX)
        floor = torch.from_numpy(self.unit.max(axis=0)).to(std)
        return mean, torch.maximum(std, floor)
