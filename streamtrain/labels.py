"""Labels: what a network predicts of a sample, and what its numbers mean.

A label is a function of luminosity, one number per luminosity bin, the class of the luminosity
model, or the model's parameters. Functions are a count times the label of one halo (its unit, which
depends on the volume of the field), or the log10 of that; so errors in dex are those of the count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamtrain.bins import SMALLEST_BIN_DEX, LuminosityBins, cumulative
from streamtrain.numerics import portable
from streamtrain.numerics.backend import Kernels
from streamtrain.numerics.workspace import DeviceArrays, FreshMemory, Workspace
from streamtrain.schema import ConfigError, setting


@dataclass(frozen=True)
class LabelConfig:
    """What the network predicts."""

    quantity: Literal["counts", "cumulative", "phi", "phi_L", "class", "parameters"] = setting(
        "counts",
        "halos per luminosity bin, N(>L) at each bin's lower edge, dn/dL [Mpc^-3 Lsun^-1], dn/dlnL "
        "[Mpc^-3], which of the luminosity models, or its parameters",
    )
    scale: Literal["log10", "linear"] = setting(
        "log10", "log10 (an empty bin counts as one halo) or linear"
    )
    log10_L: tuple[float, float] = setting(
        (3.5, 7.0), "first and last edge, log10(L/Lsun)", low=-40, high=40
    )
    bins: int = setting(49, "number of luminosity bins", low=1, high=1000)
    edges: tuple[float, ...] | None = setting(
        None, "edges of unequal bins, log10(L/Lsun), instead of log10_L and bins", low=-40, high=40
    )
    overflow: bool = setting(True, "cumulative: count halos above the last edge")

    @property
    def luminosity_bins(self) -> LuminosityBins:
        """The bins that it stands for."""
        if self.edges is not None:
            return LuminosityBins.between(self.edges)
        return LuminosityBins(self.log10_L, self.bins)


def check_label(label: LabelConfig) -> None:
    """Raise ConfigError for settings of a label that do not fit together."""
    if label.log10_L[0] >= label.log10_L[1]:
        raise ConfigError(f"label.log10_L = {list(label.log10_L)} must increase")
    if label.edges is None:
        return
    usual = LabelConfig()
    if (label.log10_L, label.bins) != (usual.log10_L, usual.bins):
        raise ConfigError(
            "label.edges replaces label.log10_L and label.bins: label.edges=null removes the one, "
            f"label.log10_L={list(usual.log10_L)} label.bins={usual.bins} the other"
        )
    if not 2 <= len(label.edges) <= 1001:
        raise ConfigError(f"label.edges must be 2 to 1001 numbers, not {len(label.edges)}")
    for low, high in zip(label.edges[:-1], label.edges[1:], strict=True):
        if high - low < SMALLEST_BIN_DEX:
            raise ConfigError(
                f"label.edges must increase by at least {SMALLEST_BIN_DEX:g} dex, but {high:.9g} "
                f"follows {low:.9g}"
            )


SMALLEST_STD_DEX = 0.1
"""Floor of a bin's standard deviation in the log10 form: a bin that happened to be constant in the
samples of the normalisation must not get an unbounded weight. In the linear form it is one halo."""
SMALLEST_FREQUENCY = 1e-3
"""Floor of a class's frequency in the samples of the normalisation."""
_SAFE = (1e-36, 1e30)
"""Units that float32 can hold, also times a count."""


@dataclass(frozen=True)
class Quantity:
    """A function of luminosity, for tables and figures."""

    symbol: str
    axis: str
    """Name and unit, in matplotlib's mathematics."""
    at_lower_edge: bool = False
    """Whether the value belongs to the lower edge of a bin, not to its centre."""


NO_FUNCTION = {"class": "a class", "parameters": "the model's parameters"}
"""Quantities of a label that are no function of luminosity, in words."""
COUNT_QUANTITIES = ("counts", "phi", "phi_L")
"""Quantities that are made of the halos of one bin each."""
QUANTITIES = {
    "counts": Quantity("dN", "halos per bin, $dN$"),
    "cumulative": Quantity("N(>L)", "halos above $L$, $N(>L)$", at_lower_edge=True),
    "phi": Quantity("phi", r"$\phi = dn/dL$ [Mpc$^{-3}$ $L_\odot^{-1}$]"),
    "phi_L": Quantity("phi L", r"$\phi L = dn/d\ln L$ [Mpc$^{-3}$]"),
}


@dataclass(frozen=True)
class ModelParameters:
    """What a label of parameters holds of one luminosity model."""

    names: tuple[str, ...]
    """Parameters that are drawn, in the order of their scores."""
    share: float
    """Fraction of the samples that the model makes."""
    mixing: NDArray[np.float64]
    """Standard normal scores of the parameters, each for itself, are this times the label's, which
    are independent of each other in the prior [num_names, num_names]."""


class Label:
    """What a network predicts.

    Parameters are normal scores: standard normal and independent in the prior, see
    `luminosity.scores`. Their label is one number for each class, 1 for the one that made the
    sample, where there are several; then those of every model in turn, 0 for models that did not.

    config: the section `label` of a configuration
    volumes_Mpc3: comoving volume of the field, per lightcone
    classes: names of the luminosity models, for the quantities `class` and `parameters`
    device: where labels are made
    parameters: of every luminosity model, for the quantity `parameters`
    Raises ConfigError if there is nothing to tell apart, or a unit that float32 cannot hold.
    """

    def __init__(
        self,
        config: LabelConfig,
        volumes_Mpc3: Sequence[float] = (1.0,),
        classes: Sequence[str] = (),
        device: torch.device | str = "cpu",
        parameters: Sequence[ModelParameters] = (),
    ) -> None:
        self.config, self.bins, self.classes = config, config.luminosity_bins, list(classes)
        self.parameters = list(parameters)
        if self.is_class and len(self.classes) < 2:
            raise ConfigError(
                "label.quantity = class needs several luminosity models to tell apart: list them "
                "in emit.line.mixture"
            )
        if self.is_parameters and not any(model.names for model in self.parameters):
            raise ConfigError(
                f"label.quantity = parameters, but no parameter of {', '.join(self.classes)} is "
                "drawn: give emit.line a prior or parameters with distributions"
            )
        volumes, self._row = np.unique(np.asarray(volumes_Mpc3, np.float64), return_inverse=True)
        if not self.has_unit:
            volumes, self._row = np.ones(1), np.zeros_like(self._row)
        self.unit = self._units(volumes)
        self._unit_label = torch.from_numpy(self._labels(self.unit)).to(device)

    def _labels(self, unit: NDArray[np.float64]) -> NDArray[np.float32]:
        """The labels of one halo that is worth `unit`."""
        return (portable.log10(unit) if self.form == "log10" else unit).astype(np.float32)

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
    def is_parameters(self) -> bool:
        """Whether the label is the luminosity model's parameters."""
        return self.config.quantity == "parameters"

    @property
    def is_function(self) -> bool:
        """Whether the label is a function of luminosity."""
        return self.config.quantity not in NO_FUNCTION

    @property
    def has_unit(self) -> bool:
        """Whether the function of luminosity is a density, not a number of halos."""
        return self.config.quantity in ("phi", "phi_L")

    @property
    def form(self) -> Literal["log10", "linear", "class", "parameters"]:
        """What the numbers of the label are."""
        if self.config.quantity == "class" or self.config.quantity == "parameters":
            return self.config.quantity
        return self.config.scale

    @property
    def num_outputs(self) -> int:
        """Numbers in a label: luminosity bins, classes, or parameters, behind the classes where
        there are several."""
        if self.is_parameters:
            return self.num_class_columns + sum(len(model.names) for model in self.parameters)
        return len(self.classes) if self.is_class else self.bins.num

    @property
    def num_class_columns(self) -> int:
        """Numbers of a label of parameters that say which model it is: none for a single model."""
        return len(self.parameters) if len(self.parameters) > 1 else 0

    @property
    def parameter_columns(self) -> list[slice]:
        """Where the parameters of every model are in a label of parameters."""
        columns, first = [], self.num_class_columns
        for model in self.parameters:
            columns.append(slice(first, first + len(model.names)))
            first += len(model.names)
        return columns

    @property
    def parameter_names(self) -> list[str]:
        """Names of the parameters in the order of the label, behind that of their model where there
        are several."""
        if not self.num_class_columns:
            return [name for model in self.parameters for name in model.names]
        models = zip(self.classes, self.parameters, strict=True)
        return [f"{of}.{name}" for of, model in models for name in model.names]

    def of_parameters(
        self, model: NDArray[np.int64], scores: Sequence[NDArray[np.float64]]
    ) -> NDArray[np.float32]:
        """Labels of parameters, still on the host [B, num_outputs].

        model: of each sample [B]; scores: for every model those of its samples, in their order
        [number, num_names].
        """
        made = np.zeros((len(model), self.num_outputs), np.float32)
        if self.num_class_columns:
            made[np.arange(len(model)), model] = 1.0
        for number, (columns, mine) in enumerate(zip(self.parameter_columns, scores, strict=True)):
            made[model == number, columns] = mine
        return made

    def marginal(self, values: Tensor) -> Tensor:
        """Labels of parameters [..., num_outputs] with the score of each parameter for itself,
        whatever the others of a correlated prior are."""
        made = values.clone()
        for model, columns in zip(self.parameters, self.parameter_columns, strict=True):
            mixing = torch.from_numpy(model.mixing).to(values)
            made[..., columns] = values[..., columns] @ mixing.T
        return made

    def unit_label(
        self, lightcone: NDArray[np.int64], volumes_Mpc3: NDArray[np.float64] | None = None
    ) -> Tensor:
        """The label of one halo in each bin, float32 [B, num_bins], or [1, num_bins] where it is
        the same for all lightcones. lightcone: number of each sample's [B]; volumes_Mpc3: of their
        fields [B], where not even the lightcones' number is known beforehand."""
        device = self._unit_label.device
        if volumes_Mpc3 is not None and self.has_unit:
            return torch.from_numpy(self._labels(self._units(volumes_Mpc3))).to(device)
        if len(self._unit_label) == 1:
            return self._unit_label
        return self._unit_label[torch.from_numpy(self._row[lightcone]).to(device)]

    def make(
        self,
        kernels: Kernels,
        counts: Tensor,
        unit_label: Tensor,
        drawn: DeviceArrays,
        memory: Workspace | None = None,
    ) -> Tensor:
        """Labels float32 [B, num_outputs].

        kernels: of label.cu; counts: the paint kernel's, int32 [B, num_bins + 3]; unit_label: of
        the samples, as `unit_label` gives it; drawn: `model`, number of each sample's luminosity
        model [B], and `parameters`, the label where it is of them, as `of_parameters` makes it;
        memory: where the labels lie [new].
        """
        memory = memory or FreshMemory(counts.device)
        if self.is_class:
            chosen = memory.zeros("label", (len(counts), len(self.classes)), torch.float32)
            return chosen.scatter_(1, drawn["model"][:, None], 1.0)
        if self.is_parameters:
            known = drawn["parameters"]
            return memory.empty("label", known.shape, torch.float32).copy_(known)
        bins = self.bins.num
        label = memory.empty("label", (len(counts), bins), torch.float32)
        kernels.elementwise(
            "make_label",
            len(counts),
            bins,
            np.int32(self.config.quantity == "cumulative"),
            np.int32(self.config.overflow),
            np.int32(self.form == "log10"),
            np.int64(bins if len(unit_label) > 1 else 0),
            unit_label,
            counts,
            label,
        )
        return label

    def log10_counts(self, values: Tensor, unit_label: Tensor) -> Tensor:
        """log10 of the count, at least 0, from labels or a network's point estimates [B, num_bins],
        in float64 on their device.

        Below one halo there is nothing to predict: smaller values become log10(1) = 0, as they are
        in the label. unit_label: `Batch.unit_label`.
        """
        one = unit_label.to(values.device, torch.float64)
        if self.form == "linear":
            return (values.double() / one).clamp(min=1.0).log10()
        return (values.double() - one).clamp(min=0.0)

    def occupied(self, values: Tensor, counts: Tensor) -> Tensor:
        """Where the count is at least one, bool [B, num_bins]; the log10 of one would not tell.

        values: labels; counts: `Batch.counts`. A function N(>L) also has halos beyond the bins.
        """
        if self.config.quantity != "cumulative":
            return counts > 0
        return (cumulative(counts) > 0) | (values.to(counts.device) > 0)

    def of_counts(self, counts: NDArray[Any], above: NDArray[Any]) -> NDArray[np.float64]:
        """Halos as the label's quantity counts them, whatever its unit [B, num_bins]: of each bin,
        or for N(>L) of all brighter ones.

        counts: halos per bin [B, num_bins]; above: halos above the last edge [B].
        """
        if self.config.quantity != "cumulative":
            return counts.astype(np.float64)
        beyond = above[:, None] * float(self.config.overflow)
        return np.asarray(cumulative(counts.astype(np.float64)) + beyond)

    def unit_of(self, unit_label: Tensor) -> NDArray[np.float64] | None:
        """What one halo is worth in the label's quantity, whatever its scale, in the shape of
        unit_label; None where it is one, a count."""
        if not self.has_unit:
            return None
        one = unit_label.cpu().double().numpy()
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
