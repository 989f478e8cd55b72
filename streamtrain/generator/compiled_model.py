"""How a bank's halos shine by one luminosity model: the model compiled for a device, with the
columns it reads, and what it is expected to make of a set of parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from streamtrain.bins import LuminosityBins
from streamtrain.catalogs.sfr import SFRTable
from streamtrain.generator.expectation import SMALLEST_SIGMA, Expectation, OfHalos, Shine
from streamtrain.generator.halos import Halos, line_columns, within_reach
from streamtrain.grid import Grid
from streamtrain.luminosity.columns import model_column
from streamtrain.luminosity.model import LuminosityModel
from streamtrain.luminosity.modifiers import PLAIN, Adjustments, Modifiers
from streamtrain.luminosity.trace import Traced, trace
from streamtrain.numerics import portable
from streamtrain.numerics.backend import kernels_for
from streamtrain.schema import warn

LARGEST_DEPOSIT = 2.0**50
STRATA = 96
"""Halos, one for each range of mass, that stand for all in `CompiledModel.expect`: half of the
ranges equal in the logarithm of the rank, for the light, half in the rank, for the number."""

LOGARITHMS = 30.0
"""log10 and ln of the brightest halo's L [Lsun] are below; a line of so little light is none."""
CHECKED_AT_ONCE = 1 << 16
"""Halos in one piece of `CompiledModel.check_luminosities`."""
FINE_STRATA = 4096
"""Number of mass ranges for `CompiledModel.expected_counts`."""

Float = NDArray[np.float64]
Parameters = Mapping[str, Float]


@dataclass(frozen=True)
class Probes:
    """Some halos of the bank as the model sees them."""

    halos: dict[str, Float]
    """mass, one_plus_z and the columns by name, [n] each."""
    intensity: Float
    """Map units per Lsun that a halo adds to its voxel, [n]."""


class CompiledModel:
    """A luminosity model for the halos of a bank, painted into a grid.

    sfr: see `model_column`. modifiers: what changes the light of the model.
    """

    def __init__(
        self,
        model: LuminosityModel,
        halos: Halos,
        bins: LuminosityBins,
        sfr: str | SFRTable = "auto",
        modifiers: Modifiers = PLAIN,
        compiler_flags: Sequence[str] = (),
    ) -> None:
        self.model, self._halos, self._bins = model, halos, bins
        self.traced = traced_for(model, halos.grid)
        width, used = [], halos.channel >= 0
        if modifiers.width is not None:
            width = line_columns(halos, modifiers.width)
            used = within_reach(halos, width)
        place = len(self.traced.columns) + self.traced.num_static
        self.source = self.traced.source + bins.source() + modifiers.source(place)
        """What kernels/paint.cu is compiled with."""
        self.kernels = kernels_for(halos.device, "paint.cu", self.source, compiler_flags)
        inputs = [
            halos.gather(partial(model_column, name=name, form=form, sfr=sfr), used)
            for name, form in self.traced.columns
        ]
        shape = num_columns(self.traced, modifiers), halos.bank.num_rows
        self.columns = torch.empty(shape, dtype=torch.float32, device=halos.device)
        """Inputs of the model, its static values, and the lines' places and widths, float32
        [num, num_rows]."""
        for row, values in [*enumerate(inputs), *enumerate(width, place)]:
            self.columns[row].copy_(torch.from_numpy(values))
        self.fill_static()
        order = _by_mass(halos)
        self.bright = self._probes(_heaviest_and_some(order), inputs)
        """The halos that a draw must leave room for in the cube,"""
        largest = min(2.0**62 / max(len(c) for c in halos.bank.lightcones), LARGEST_DEPOSIT)
        limit = portable.log2(largest / (halos.scale * self.bright.intensity))
        self.log2_limit = limit - modifiers.headroom
        """and what log2 L [Lsun] of each must stay below [n]."""
        rows, edges = _strata(order)
        self.weights = np.diff(edges) * _share_of_flat(halos)
        self.typical = self._probes(rows, inputs)
        """Halos for `expect`, of which each stands for `weights` halos of a field [n]."""
        self._fine: dict[int, tuple[Probes, Float]] = {}

    def fill_static(self) -> None:
        """Compute what of the model is the same in every sample, on the device."""
        if self.traced.num_static:
            log2_mass, log2_1pz = self._halos.bank.arrays[3:]
            rows = self.columns.shape[1]
            self.kernels.elementwise(
                "fill_static", 1, rows, log2_mass, log2_1pz, self.columns, np.int64(rows)
            )

    def _probes(self, chosen: NDArray[np.int64], inputs: list[NDArray[np.float32]]) -> Probes:
        bank, grid = self._halos.bank, self._halos.grid
        seen = {
            "mass": portable.exp2(bank.log2_mass[chosen]),
            "one_plus_z": portable.exp2(bank.log2_1pz[chosen]),
        }
        for (name, form), column in zip(self.traced.columns, inputs, strict=True):
            values = column[chosen].astype(np.float64)
            seen[name] = portable.exp2(values) if form == "log2" else values
        return Probes(seen, _intensity_per_lsun(bank, chosen, seen["one_plus_z"], grid))

    def values(self, parameters: Parameters, adjustments: Adjustments) -> NDArray[np.float32]:
        """The kernel's arguments for B samples, float32 [B, 7 + adjustments + uniforms], as in
        kernels/paint.cu. Raises ValueError for parameters that give no luminosity."""
        pairs, size = adjustments.pairs, len(adjustments.pairs)
        sigma, mu = self._scatter(parameters, size)
        uniforms = self.traced.evaluate_uniforms({**parameters, "": np.zeros(size)})
        columns = self.kernel_values(sigma, mu, adjustments.label_shift, [*pairs.T, *uniforms.T])
        with np.errstate(over="ignore"):  # infinite in float32: refused below
            rows = [np.broadcast_to(column, (size,)) for column in columns]
            values = np.stack(rows, axis=1).astype(np.float32)
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1) | (sigma < 0.0))
        if len(bad):
            drawn = {name: float(v[bad[0]]) for name, v in parameters.items()}
            cause = "a negative scatter" if sigma[bad[0]] < 0.0 else "no luminosity"
            raise ValueError(f"{self.model.name} has {cause} for the parameters {drawn}")
        return values

    @property
    def varies(self) -> bool:
        """Whether the model's scatter depends on the halo."""
        return self.model.sigma_dex is not None

    def kernel_values(
        self, sigma: Any, mu: Any, label_shift: Any, others: Sequence[Any]
    ) -> list[Any]:
        """The kernel's arguments in their order, of arrays [B] or of symbols.

        sigma, mu: see `LuminosityModel.log2_scatter`; label_shift: of log2 L in the label alone;
        others: threshold and shift of each adjustment, then the uniforms of the model.
        """
        factor, power, *edges = self.constants
        ends = (edges[0] - label_shift, edges[1] - label_shift)
        return [factor, power, sigma, mu, *ends, edges[2], *others]

    @property
    def constants(self) -> tuple[float, ...]:
        """What is the same for all samples of `values`, as float32: the factor and the power of
        1 + z of the intensity, then of the bins what `LuminosityBins.kernel_values` gives."""
        grid = self._halos.grid
        power = 0.0 if grid.units == "uK" else -2.0
        every = (grid.intensity_factor, power, *self._bins.kernel_values())
        return tuple(float(np.float32(number)) for number in every)

    @property
    def log2_range(self) -> tuple[float, float]:
        """First and last edge of the label's bins, log2(L / Lsun)."""
        return self._bins.kernel_values()[:2]

    @property
    def num_voxels(self) -> int:
        """Fine voxels of the cube."""
        return int(np.prod(self._halos.grid.shape))

    def check_luminosities(
        self, parameters: Parameters, rows: NDArray[np.int64] | None = None
    ) -> None:
        """Raise ValueError where a halo has, by a set of parameters [B], a luminosity or scatter
        that is negative, infinite or no number, or a share of shining time outside 0..1: the kernel
        would take it for something else. rows: of the halos; default: one for each of `STRATA`
        ranges of mass."""
        inputs: list[NDArray[np.float32]] = []
        if rows is not None:
            inputs = list(self.columns[: len(self.traced.columns)].cpu().numpy())
        for start in range(0, 1 if rows is None else len(rows), CHECKED_AT_ONCE):
            probes = self.typical
            if rows is not None:
                probes = self._probes(rows[start : start + CHECKED_AT_ONCE], inputs)
            for output, name in (
                ("luminosity", "L"),
                ("sigma", "a scatter"),
                ("on_fraction", "an on_fraction"),
            ):
                if output in self.traced.outputs:
                    values = self.traced.evaluate(output, parameters, probes.halos)
                    most = 1.0 if output == "on_fraction" else np.finfo(np.float64).max
                    self._refuse(~((values >= 0.0) & (values <= most)), values, name, probes)
                    if name == "L" and not start and _logarithms(values):
                        warn(
                            f"{self.model.name} gives halos L = {values.min():.3g} to "
                            f"{values.max():.3g} Lsun, as logarithms of luminosities would be: L "
                            "itself is wanted"
                        )

    def _refuse(self, bad: NDArray[np.bool_], values: Float, name: str, probes: Probes) -> None:
        if not bad.any():
            return
        sample, halo = np.argwhere(bad)[0]
        mass, one_plus_z = (float(probes.halos[key][halo]) for key in ("mass", "one_plus_z"))
        unit = " Lsun" if name == "L" else ""
        raise ValueError(
            f"{self.model.name} gives {name} = {values[sample, halo]:.4g}{unit} for a halo of "
            f"{mass:.4g} Msun at z = {one_plus_z - 1.0:.3f} ({np.count_nonzero(bad[sample])} of "
            f"{len(bad[sample])} halos): it must be "
            + ("between 0 and 1" if "on_fraction" in name else "finite and not negative")
        )

    def fits(self, parameters: Parameters) -> NDArray[np.bool_]:
        """Whether the brightest halos of B parameter sets [B] stay inside the cube's fixed-point
        range, `SAFE_SIGMA` of scatter included; neither scatter nor luminosities may be negative.
        A function of the bank and the parameters."""
        shine = self._shine(parameters, self.bright)
        return np.asarray(shine.fits(self.log2_limit, self.varies))

    def too_bright(self, parameters: Parameters) -> NDArray[np.bool_]:
        """Whether the brightness of halos is all that `fits` has against B parameter sets, [B]."""
        shine = self._shine(parameters, self.bright)
        possible = np.asarray(shine.fits(np.full_like(self.log2_limit, np.inf), self.varies))
        return possible & ~np.asarray(shine.fits(self.log2_limit, self.varies))

    def expect(self, parameters: Parameters) -> Expectation:
        """What a field of B parameter sets [B] is expected to hold, from one halo of the bank for
        each of `STRATA` ranges of mass, before any modifier changes the light. A function of
        the bank and the parameters."""
        shine = self._shine(parameters, self.typical)
        return shine.expected(
            self.weights, self.typical.intensity, self.log2_range, self.num_voxels
        )

    @property
    def expected_over_true(self) -> float:
        """Halos of a field by `weights`, which decide samples, over those that fields have: not 1
        where footprints are of several sizes, or far from the equator."""
        true = float((self._halos.num_painted * _shares(self._halos)).mean())
        return float(self.weights.sum()) / true if true > 0.0 else 1.0

    def expected_counts(self, parameters: Parameters, strata: int = FINE_STRATA) -> Float:
        """Halos that a field is expected to hold per luminosity bin, float64 [B, num_bins + 1], of
        B parameter sets [B]; the last number is of those beyond the last bin.

        From one halo of the bank for each of `strata` ranges of mass and its scatter, so it is
        paint-free: the mean over all fields of the bank's lightcones, before any modifier.
        """
        if strata not in self._fine:
            order = _by_mass(self._halos)
            rows, ends = _strata(order, strata)
            weights = _of_a_field(self._halos, order, ends)
            columns = self.columns[: len(self.traced.columns)].cpu().numpy()
            self._fine[strata] = self._probes(rows, list(columns)), weights
        probes, weights = self._fine[strata]
        shine = self._shine(parameters, probes)
        (centre, sigma), weights = shine.log2_l(), shine.shining(weights)
        narrow = np.broadcast_to(np.maximum(sigma, SMALLEST_SIGMA) * np.sqrt(2.0), centre.shape)
        edges = self._bins.edges * portable.LOG2_10
        weights = np.broadcast_to(weights, centre.shape)
        brighter = np.empty((len(centre), len(edges)))
        step = max(1, CHECKED_AT_ONCE * 64 // (len(edges) * centre.shape[1]))
        for first in range(0, len(centre), step):
            some = slice(first, first + step)
            peak, spread, number = (torch.tensor(v[some]) for v in (centre, narrow, weights))
            away = torch.erf((peak[..., None] - torch.from_numpy(edges)) / spread[..., None])
            brighter[some] = 0.5 * (away + 1.0).mul_(number[..., None]).sum(1).numpy()
        return np.concatenate([brighter[:, :-1] - brighter[:, 1:], brighter[:, -1:]], axis=1)

    def _shine(self, parameters: Parameters, probes: Probes) -> Shine:
        """How B parameter sets [B] light some halos."""

        def output(name: str) -> Float | None:
            known = name in self.traced.outputs
            return self.traced.evaluate(name, parameters, probes.halos) if known else None

        size = len(next(iter(parameters.values()), np.zeros(1)))
        return Shine(output, *self._scatter(parameters, size), OfHalos())

    def _scatter(self, parameters: Parameters, size: int) -> tuple[Float, Float]:
        """`LuminosityModel.log2_scatter`, [size] each."""
        sigma, mu = self.model.log2_scatter(parameters)
        return np.broadcast_to(sigma, (size,)), np.broadcast_to(mu, (size,))


def traced_for(model: LuminosityModel, grid: Grid) -> Traced:
    """A model as kernel code for the line of a grid. Raises ConfigError for a model of another
    line, TraceError for one that cannot be compiled."""
    model.check_line(grid.nu_rest_GHz)
    return trace(
        model.function,
        model.traced_parameters,
        {"nu_rest_GHz": grid.nu_rest_GHz},
        sigma_dex=model.sigma_dex,
        on_fraction=model.on_fraction,
        z_range=grid.z_range,
    )


def num_columns(traced: Traced, modifiers: Modifiers) -> int:
    """Numbers (float32) per halo that a model adds to its bank, see `CompiledModel.columns`."""
    width = 0 if modifiers.width is None else 2
    return max(len(traced.columns) + traced.num_static + width, 1)


def _intensity_per_lsun(
    bank: Any, chosen: NDArray[np.int64], one_plus_z: Float, grid: Grid
) -> Float:
    x, y, z = (a[chosen].astype(np.float64) for a in (bank.x, bank.y, bank.z))
    intensity = grid.intensity_factor / (x * x + y * y + z * z)
    return intensity if grid.units == "uK" else intensity / (one_plus_z * one_plus_z)


def _logarithms(luminosity: Float) -> bool:
    """Whether luminosities [Lsun] look like log10 or ln of some."""
    return bool(1.0 < luminosity.max(initial=0.0) < LOGARITHMS and (luminosity > 0.0).all())


def _by_mass(halos: Halos) -> NDArray[np.int64]:
    """Rows of the halos that are painted, the heaviest first, and equal ones in their order."""
    painted = np.flatnonzero(halos.channel >= 0)
    # one whole number of mass and row, of which a bank has less than 2^32: NumPy sorts these
    # several times as fast as it finds a stable order. Positive floats are in the order of their
    # bits, and no halo has 1 Msun
    keys = halos.bank.log2_mass[painted].view(np.int32).astype(np.int64)
    keys <<= 32
    np.negative(keys, out=keys)
    keys |= painted
    keys.sort()
    keys &= 0xFFFFFFFF
    return keys


def _heaviest_and_some(order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of the heaviest halos, and of some of every mass. order: as of `_by_mass`."""
    ranks = np.unique(np.linspace(0, len(order) - 1, 40).astype(np.int64))
    return np.unique(np.concatenate([order[:24], order[ranks] if len(order) else order]))


def _strata(
    order: NDArray[np.int64], num: int = STRATA
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows that stand for ranges of mass [n], and the ends of these in the order [n + 1]. order: as
    of `_by_mass`."""
    last, number = float(len(order)), num // 2
    steps = np.arange(number + 1) / number
    ranks = portable.exp2(steps * portable.log2(last + 1.0)) - 1.0
    edges = np.unique(np.rint(np.concatenate([ranks, steps * last])).astype(np.int64))
    return order[(edges[:-1] + edges[1:]) // 2], edges


def _share_of_flat(halos: Halos) -> float:
    """The share of a bank's halos that a field has, were its lightcones one sky, and flat."""
    ra_min, ra_max, dec_min, dec_max = halos.bank.footprints.T
    area = float(OfHalos().total((ra_max - ra_min) * (dec_max - dec_min)))
    field = halos.grid.fov_deg[0] * halos.grid.fov_deg[1]
    return field / area if area > 0.0 else 1.0  # no area: all halos in one point or on one line


def _shares(halos: Halos) -> Float:
    """The share of a lightcone's halos that a field has, for each lightcone of a bank [n]."""
    ra_min, ra_max, dec_min, dec_max = np.radians(halos.bank.footprints.T)
    area = (ra_max - ra_min) * (np.sin(dec_max) - np.sin(dec_min))
    field = halos.grid.pixel_sr * halos.grid.shape[1] * halos.grid.shape[2]
    return np.where(area > 0.0, field / np.where(area > 0.0, area, 1.0), 1.0)


def _of_a_field(halos: Halos, order: NDArray[np.int64], edges: NDArray[np.int64]) -> Float:
    """Mean number of halos of a field in each of some ranges of mass [n], where samples take all
    lightcones of the bank alike often. order: as of `_by_mass`; edges: ends of the ranges in it
    [n + 1]."""
    shares = _shares(halos) / len(halos.bank.lightcones)
    if np.ptp(shares) == 0.0:
        return np.diff(edges) * shares[0]
    of_row = shares[np.searchsorted(halos.bank.first_row, order, side="right") - 1]
    return np.add.reduceat(of_row, edges[:-1])
