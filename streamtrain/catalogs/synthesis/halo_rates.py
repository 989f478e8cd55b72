"""Halo masses as a ladder of nodes: how many halos each node has in a cell, given the density.

A node collects the halos near its mass, weighted by a hat function in log10 M; the hats of all
nodes add up to one, so the nodes together follow the mass function exactly. In a Lagrangian cell
of volume V with `d = D(z) delta`, delta seen through the node's filter,

    lambda = n V sqrt(1 + beta S) exp(alpha d - beta d^2/2 - alpha^2 S / (2 (1 + beta S)))

where S is the variance of d, `b1 = bias - 1` the Lagrangian bias, `g = 1/sigma^2 + 1/1.686^2`,
`beta = g / (1 - g S)` and `alpha = b1 (1 + beta S)`. For Gaussian d this has mean n V, response
`<lambda d> = b1 S n V` and second bias `b1^2 - g`; it is positive everywhere, so nothing is
clipped. The filter grows with mass such that `g S = 0.85`: one filter for all masses would let
the rare nodes live on a few cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq

from streamtrain.catalogs.synthesis.arrays import NUMPY, NumpyArrays
from streamtrain.catalogs.synthesis.arrays import Array as AnyArray
from streamtrain.catalogs.synthesis.box import settled
from streamtrain.catalogs.synthesis.density import DensityModes
from streamtrain.catalogs.synthesis.massfunction import MassFunction, halo_bias
from streamtrain.cosmology import DELTA_C, Cosmology
from streamtrain.numerics import portable

Array = NDArray[np.float64]

NODE_DEX = 0.3
"""Distance of the nodes in log10 M."""
FILTER_LOAD = 0.85
"""g S at the near end; 0.8 to 0.9 give the same halos within the scatter."""
FILTERS_PER_DECADE = 16
"""Cut-off wavenumbers are rounded down to this ladder, so that nodes share filters."""
MAX_LOG_MASS = 16.0

_POINTS_PER_NODE = 64
_NUM_REDSHIFTS = 25
_NUM_QUANTILES = 513


@dataclass(frozen=True)
class Rates:
    """log lambda of one node as a quadratic in the filtered field at z = 0, per bin of chi."""

    constant: AnyArray
    linear: AnyArray
    quadratic: AnyArray

    def on(self, put: Callable[[NDArray[np.float32]], AnyArray]) -> Rates:
        """This rate law in arrays of another device, made by `put`."""
        return Rates(put(self.constant), put(self.linear), put(self.quadratic))


class MassNodes:
    """Mean density, mass distribution and filter of each node over a range of redshifts."""

    def __init__(
        self,
        mass_function: MassFunction,
        cosmology: Cosmology,
        min_mass_Msun: float,
        z_range: tuple[float, float],
        volume_Mpc3: float,
        bias: str = "tinker10",
        arrays: NumpyArrays = NUMPY,
        bias_factor: float = 1.0,
    ) -> None:
        """`bias` is a name that `halo_bias` knows, `bias_factor` what it is multiplied by.
        `volume_Mpc3` sets the top: above it less than 0.01 halos are expected. `arrays` says on
        what masses are drawn."""
        self.arrays = arrays
        self.cosmology = cosmology
        self.bias, self.bias_factor = bias, bias_factor
        self.z = np.linspace(*z_range, _NUM_REDSHIFTS)
        bottom = float(portable.log10(min_mass_Msun))
        per_node = _POINTS_PER_NODE
        num_spans = math.ceil((MAX_LOG_MASS - bottom) / NODE_DEX)
        log_mass = bottom + NODE_DEX / per_node * np.arange(num_spans * per_node + 1)
        mass = portable.exp10(log_mass)
        density = settled(mass_function.dn_dlog10M(mass, self.z[:, None], cosmology))
        per_point = density * (NODE_DEX / per_node)

        above = np.cumsum(per_point[:, ::-1], axis=1)[:, ::-1].max(axis=0) * volume_Mpc3
        num_spans = min(num_spans, math.ceil(max(np.sum(above > 0.01), 1) / per_node))
        self.log_mass = bottom + NODE_DEX * np.arange(num_spans + 1)
        self.mass = portable.exp10(self.log_mass)

        self.density = np.empty((num_spans + 1, _NUM_REDSHIFTS))
        quantile = np.linspace(0.0, 1.0, _NUM_QUANTILES)
        quantiles = np.empty((num_spans + 1, _NUM_REDSHIFTS, _NUM_QUANTILES), np.float32)
        for node, centre in enumerate(self.log_mass):
            first = max(node - 1, 0) * per_node
            last = min(node + 1, num_spans) * per_node
            part = slice(first, last + 1)
            hat = np.maximum(1.0 - np.abs(log_mass[part] - centre) / NODE_DEX, 0.0)
            weighted = per_point[:, part] * hat
            cumulative = np.zeros_like(weighted)
            np.cumsum(0.5 * (weighted[:, 1:] + weighted[:, :-1]), axis=1, out=cumulative[:, 1:])
            self.density[node] = cumulative[:, -1]
            for row, column in enumerate(cumulative):
                quantiles[node, row] = np.interp(quantile * column[-1], column, log_mass[part])
        self._quantiles = arrays.put(quantiles.reshape(-1))

    def __len__(self) -> int:
        return len(self.mass)

    def filters(self, modes: DensityModes) -> Array:
        """Cut-off wavenumber of each node [1/Mpc], shape [num_nodes], on a common ladder."""
        ceiling = 0.9 * math.pi / modes.box.cell_Mpc
        floor = ceiling * 10.0 ** (-40 / FILTERS_PER_DECADE)
        near = self.z[0]
        growth2 = float(self.cosmology.growth(near)) ** 2
        cuts = np.empty(len(self))
        for node, mass in enumerate(self.mass):
            target = FILTER_LOAD / (self._curvature(mass, near) * growth2)

            def excess(k_cut: float, target: float = float(target)) -> float:
                return modes.variance(k_cut) - target

            if excess(ceiling) <= 0.0:
                cut = ceiling
            else:
                cut = floor if excess(floor) >= 0.0 else brentq(excess, floor, ceiling, rtol=1e-6)
            rung = math.ceil(FILTERS_PER_DECADE * math.log10(ceiling / cut) - 1e-9)
            cuts[node] = ceiling * 10.0 ** (-rung / FILTERS_PER_DECADE)
        return cuts

    def _curvature(self, mass: float, z: Array | float) -> Array:
        """g, minus the part of the second bias that does not come from b1."""
        return 1.0 / self.cosmology.sigma(mass, z) ** 2 + 1.0 / DELTA_C**2

    def rates(self, node: int, variance: float, cell_Mpc: float, z: Array) -> Rates:
        """The node's rate law per cell at redshifts z; `variance` of its filtered field today."""
        mass = float(self.mass[node])
        growth = self.cosmology.growth(z)
        s = growth**2 * variance
        g = self._curvature(mass, z)
        beta = g / (1.0 - g * s)
        spread = 1.0 + beta * s
        at_nodes = self.bias_factor * halo_bias(mass, self.z, self.cosmology, self.bias)
        alpha = (CubicSpline(self.z, at_nodes)(z) - 1.0) * spread
        log_density = CubicSpline(self.z, np.log(np.maximum(self.density[node], 1e-300)))(z)
        constant = log_density + 3.0 * math.log(cell_Mpc) + 0.5 * np.log(spread)
        constant -= alpha**2 * s / (2.0 * spread)
        return Rates(
            constant.astype(np.float32),
            (alpha * growth).astype(np.float32),
            (-0.5 * beta * growth**2).astype(np.float32),
        )

    def log_mass_at(self, node: AnyArray, z: AnyArray, uniform: AnyArray) -> AnyArray:
        """log10 M [Msun] of halos of the given nodes at z, for uniform numbers in (0, 1)."""
        step = (self.z[-1] - self.z[0]) / (_NUM_REDSHIFTS - 1)
        row, row_part = self._split((z - float(self.z[0])) / float(step), _NUM_REDSHIFTS)
        place, part = self._split(uniform * (_NUM_QUANTILES - 1), _NUM_QUANTILES)
        flat = self._quantiles
        index = (node * _NUM_REDSHIFTS + row) * _NUM_QUANTILES + place
        near = flat[index] * (1.0 - part) + flat[index + 1] * part
        index += _NUM_QUANTILES
        far = flat[index] * (1.0 - part) + flat[index + 1] * part
        return near * (1.0 - row_part) + far * row_part

    def _split(self, position: AnyArray, num_nodes: int) -> tuple[AnyArray, AnyArray]:
        """Lower node and fraction of the way to the next, for linear interpolation."""
        position = self.arrays.math.clip(position, 0.0, num_nodes - 1.000001)
        lower = self.arrays.cast(position, self.arrays.index)
        return lower, position - lower
