"""The transfer function of a pipeline: the share of power that its filters leave of each wave."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from streamtrain.numerics import portable
from streamtrain.numerics.backend import Kernels
from streamtrain.numerics.workspace import DeviceArrays
from streamtrain.operators.base import MapState, Operator, Table, Turn
from streamtrain.operators.curve_files import arrays_digest, assume, read_arrays, reading
from streamtrain.operators.fourier import Axis, SliceFilter
from streamtrain.schema import ConfigError, setting
from streamtrain.spectra import Box

Float = NDArray[np.float64]

GROUP_NAME = "cylindrically_averaged"
"""Group of an HDF5 file that holds the arrays, as the COMAP pipeline writes them."""
NAMES = ("transfer_function", "k_bin_edges_perp", "k_bin_edges_par")
NOISE = 0.1
"""T further than this outside 0..1 is noise: its bin holds no information."""
FEW = 0.25
"""A ring of k_perp with more than this share of such bins holds none at all: the others are in
range by chance. Then the same of a slab of k_par, in the rings that are left."""


@dataclass(frozen=True)
class TransferTable:
    """T, the share of power that is left, constant in bins of k_perp and k_par."""

    power: Float
    """0..1, [n_perp, n_par]."""
    perp: Float
    """Edges of the bins of k_perp [n_perp + 1], comoving [1/Mpc]."""
    par: Float
    """Edges of the bins of k_par [n_par + 1], comoving [1/Mpc]."""
    missing: NDArray[np.bool_]
    """Bins without information [n_perp, n_par], which hold T of the nearest bin."""

    @classmethod
    def of(cls, power: Float, perp: Float, par: Float) -> TransferTable:
        """A table as it was measured. Raises ValueError for one that cannot be used."""
        if power.shape != (len(perp) - 1, len(par) - 1):
            raise ValueError(
                f"transfer_function has the shape {power.shape}, its edges are those of "
                f"{len(perp) - 1} bins of k_perp and {len(par) - 1} of k_par"
            )
        for name, edges in (("k_bin_edges_perp", perp), ("k_bin_edges_par", par)):
            if not (np.isfinite(edges).all() and edges[0] >= 0.0 and (np.diff(edges) > 0.0).all()):
                raise ValueError(f"{name} must rise from 0 or above [1/Mpc]")
        missing = without_information(power)
        if missing.all():
            raise ValueError(f"no bin holds a T of 0..1, to within {NOISE:g}")
        return cls(np.clip(_filled(power, missing), 0.0, 1.0), perp, par, missing)

    @classmethod
    def read(cls, path: Path) -> TransferTable:
        """From an HDF5 file in the layout of the COMAP pipeline, or npz with the same names."""
        arrays = read_arrays(path, GROUP_NAME, NAMES)
        power, perp, par = (arrays[name] for name in NAMES)
        if perp.ndim != 1 or par.ndim != 1:
            raise ValueError("edges of bins must be one row of numbers")
        return cls.of(power, perp, par)

    def at(self, k_perp: Float, k_par: Float) -> Float:
        """T of waves [1/Mpc] of any shape; beyond the table that of its nearest bin."""
        return np.asarray(self.power[_bin(self.perp, k_perp), _bin(self.par, k_par)])


def without_information(power: Float) -> NDArray[np.bool_]:
    """Bins whose T is no share of power: NaN, or outside 0..1 by more than noise (`NOISE`), with
    all bins of a ring or slab where these are many (`FEW`)."""
    bad = ~((power >= -NOISE) & (power <= 1.0 + NOISE))
    rings = bad.mean(axis=1) > FEW
    if rings.all():
        return np.ones_like(bad)
    slabs = bad[~rings].mean(axis=0) > FEW
    return np.asarray(bad | rings[:, None] | slabs)


def _filled(power: Float, missing: NDArray[np.bool_]) -> Float:
    """T with that of the nearest bin, in numbers of bins, where it is missing; the lower k of two
    that are as near."""
    filled = power.copy()
    held = np.argwhere(~missing)
    for place in np.argwhere(missing):
        nearest = held[np.argmin(((held - place) ** 2).sum(axis=1))]
        filled[tuple(place)] = power[tuple(nearest)]
    return filled


def _bin(edges: Float, k: Float) -> NDArray[np.int64]:
    return np.clip(np.searchsorted(edges, k, "right") - 1, 0, len(edges) - 2)


@dataclass(frozen=True)
class TransferFunctionConfig:
    """Every wave of the cube is left with a share T of its power."""

    file: str | None = setting(None, "HDF5 or npz file of T(k_perp, k_par) [1/Mpc]")
    k_half: tuple[float, float] | None = setting(
        None, "or, for a formula, k_perp and k_par [1/Mpc] where half of the power is left", above=0
    )
    slope: tuple[float, float] = setting(
        (2.7, 3.6),
        "exponents of k_perp and k_par with which T falls below k_half",
        above=0,
        high=20,
    )
    mean: Literal["remove", "keep"] = setting(
        "remove", "the mean of the cube, of which a table says nothing"
    )


@dataclass
class TransferFunction(Operator):
    """Every Fourier mode of the cube times sqrt(T(k_perp, k_par)); the cube is taken to repeat
    itself along each axis."""

    section = TransferFunctionConfig
    words = "filtered by the pipeline"
    turn = Turn.BEAM
    random = False
    telescope = True
    pipeline = "filter"
    measured = ("k_half",)
    files = ("file",)

    freq: Axis
    slices: SliceFilter
    """Each wave along frequency, times sqrt(T) [n_freq / 2 + 1, n_ra, n_dec]."""
    digest: str | None
    """Digest of the table; None of a formula."""

    @classmethod
    def from_config(
        cls, name: str, stage: int, config: TransferFunctionConfig, state: MapState
    ) -> TransferFunction:
        freq, dec, ra = (Axis.fourier(num, half=axis == 0) for axis, num in enumerate(state.shape))
        k_par, k_dec, k_ra = (np.abs(k) for k in _waves(Box.of_grid(state.grid, state.joined)))
        k_perp = np.sqrt(k_ra[:, None] * k_ra[:, None] + k_dec * k_dec)
        digest = None
        if config.k_half is not None:
            power = _by_formula(config.k_half, config.slope, k_perp, k_par[: freq.num_waves])
        else:
            assert config.file is not None
            where = f"observe.{name}.file"
            table = reading(TransferTable.read, config.file, where)
            _say(table, k_perp, k_par, partial(assume, f"{where}: {config.file}"))
            power = table.at(k_perp, k_par[: freq.num_waves, None, None])
            digest = arrays_digest([table.power, table.perp, table.par])
        factors = np.sqrt(power)
        factors[0, 0, 0] = 1.0 if config.mean == "keep" else 0.0
        if not factors.any():
            num_freq, num_dec, num_ra = state.shape
            raise ConfigError(
                f"observe.{name} leaves nothing of a map of {num_freq} x {num_dec} x {num_ra} "
                "voxels (freq, dec, ra), as T is 0 for all of its waves"
            )
        slices = SliceFilter(dec, ra, Table(factors.astype(np.float32)))
        return cls(name, stage, freq, slices, digest)

    @classmethod
    def check(cls, section: TransferFunctionConfig, where: str, state: MapState) -> None:
        if (section.file is None) == (section.k_half is None):
            raise ConfigError(
                f"{where} needs either a file or k_half: [k_perp, k_par] (COMAP: [0.052, 0.023])"
            )
        if section.k_half is None and section.slope != TransferFunctionConfig.slope:
            raise ConfigError(f"{where}.slope is of the formula with {where}.k_half, not of a file")

    @classmethod
    def needs_units(cls, section: TransferFunctionConfig) -> bool:
        return True

    def identity(self) -> str | None:
        return self.digest

    def apply(self, kernels: Kernels, cube: Tensor, keys: Tensor, drawn: DeviceArrays) -> Tensor:
        samples, num_freq, num_dec, num_ra = cube.shape
        waves = self.freq.to_waves(kernels, cube.view(samples, num_freq, num_dec * num_ra))
        waves = self.slices.apply(kernels, waves.view(2, -1, num_dec, num_ra))
        waves = waves.view(2, samples, self.freq.num_waves, num_dec * num_ra)
        return self.freq.to_rows(kernels, waves, real=True).view(cube.shape)


def _by_formula(
    k_half: tuple[float, float], slope: tuple[float, float], k_perp: Float, k_par: Float
) -> Float:
    """T = 1 / (1 + (k_half / k)^slope) of k_perp times that of k_par, 0 where one of them is 0."""
    perp, par = (
        np.where(k > 0.0, 1.0 / (1.0 + _power(half / np.where(k > 0.0, k, half), steepness)), 0.0)
        for k, half, steepness in zip((k_perp, k_par), k_half, slope, strict=True)
    )
    return par[:, None, None] * perp


def _power(base: Float, exponent: float) -> Float:
    return portable.exp2(exponent * portable.log2(base))


def _waves(box: Box) -> tuple[Float, Float, Float]:
    """k along each axis [1/Mpc], with both signs on all of them."""
    freq, dec, half = box.waves()
    ra = np.arange(box.shape[2])
    return freq, dec, half[np.minimum(ra, box.shape[2] - ra)]


def _say(table: TransferTable, k_perp: Float, k_par: Float, say: partial[None]) -> None:
    """Say which bins hold no information, and how many waves of the map lie in none."""
    if num := int(table.missing.sum()):
        ring, slab = (np.flatnonzero(table.missing.any(axis=axis))[0] for axis in (1, 0))
        say(
            f"{num} of {table.missing.size} bins hold no information on T (NaN, or noise beyond "
            f"{-NOISE:g}..{1.0 + NOISE:g}), from k_perp = {table.perp[ring]:.3g} and k_par = "
            f"{table.par[slab]:.3g} /Mpc on; they take T of the nearest bin that does"
        )
    inside = [
        float(((k >= edges[0]) & (k < edges[-1])).mean())
        for edges, k in ((table.perp, k_perp), (table.par, k_par))
    ]
    if (beyond := 100.0 * (1.0 - inside[0] * inside[1])) > 0.0:
        say(
            f"{beyond:.2g} % of the map's waves lie beyond its bins, k_perp = {table.perp[0]:.3g}"
            f"..{table.perp[-1]:.3g} and k_par = {table.par[0]:.3g}..{table.par[-1]:.3g} /Mpc; "
            "they take T of the nearest one"
        )
