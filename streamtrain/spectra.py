"""Power spectra and voxel intensity distributions of cubes, on the device that they lie on.

The cube is taken for a box of comoving sides, seen from far away. With V its volume and N its
number of voxels, `P(k) = V / N^2 |FFT(T - <T>)|^2`, averaged over the modes of a shell in |k|, or
of a ring in (k_perp, k_par); k = 2 pi n / side [1/Mpc] without h. Its unit is that of T squared
times Mpc^3. A wave and its conjugate count as two modes, so for Gaussian noise
Var P = 2 P^2 / modes.

The voxel intensity distribution (VID) is the number of voxels of a cube in each range of T; Breysse
et al. 2017, arXiv:1609.01728, introduced it to line-intensity mapping.

Axes: b sample, then (line of sight, dec, ra), of any length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import erf, gcd, inf, nan, sqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from streamtrain.grid import DEG, Grid, distance_Mpc

Float = NDArray[np.float64]
Span = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """A cube as a box: voxels along each axis, and their comoving sides [Mpc]."""

    shape: tuple[int, int, int]
    cells_Mpc: tuple[float, float, float]

    @classmethod
    def of_grid(cls, grid: Grid, joined: tuple[int, int, int] = (1, 1, 1)) -> Box:
        """The box of a grid whose voxels are joined by factors (freq, dec, ra).

        Depth: of the band; width: of the field at the middle of that depth; in the cosmology that
        the grid's own scales are made with, so that it is a function of the grid alone.
        """
        near, far = (distance_Mpc(z) for z in grid.z_range)
        width = DEG * 0.5 * (near + far)
        sides = (far - near, grid.fov_deg[1] * width, grid.fov_deg[0] * width)
        shape = tuple(n // f for n, f in zip(grid.shape, joined, strict=True))
        cells = tuple(s / n * f for s, n, f in zip(sides, grid.shape, joined, strict=True))
        return cls(shape, cells)  # type: ignore[arg-type]

    @property
    def sides_Mpc(self) -> tuple[float, float, float]:
        """Sides of the whole box [Mpc]: depth, height, width."""
        depth, height, width = (n * c for n, c in zip(self.shape, self.cells_Mpc, strict=True))
        return depth, height, width

    @property
    def volume_Mpc3(self) -> float:
        """Volume of the whole box [Mpc^3]."""
        return float(np.prod(self.sides_Mpc))

    def waves(self) -> tuple[Float, Float, Float]:
        """k along each axis [1/Mpc], in the order of `rfftn`: the last one has no negative k."""
        (n0, n1, n2), (c0, c1, c2) = self.shape, self.cells_Mpc
        turn = 2.0 * np.pi
        first, second = (np.fft.fftfreq(n, c) for n, c in ((n0, c0), (n1, c1)))
        return (
            np.asarray(turn * first),
            np.asarray(turn * second),
            np.asarray(turn * np.fft.rfftfreq(n2, c2)),
        )


class Power(nn.Module):
    """P averaged over sets of modes; a function of its box, it holds nothing that is trained.

    box: of the cubes. members: of each set, numbers of its modes in the half space of `rfftn`.
    conjugates: count a wave and its conjugate as two modes; without it each mode of the half space
    counts once, as limlam_mocker does. deconvolve: divide by the squared window of the voxels,
    prod sinc^2(k_i a_i / 2), which is exact for what varies slowly over a voxel.

    The arithmetic is of the cube's own precision: float32 is good for 1e-6 of P, float64 for 1e-14.
    """

    order: Tensor
    weight: Tensor

    def __init__(
        self,
        box: Box,
        members: Sequence[NDArray[np.int64]],
        *,
        conjugates: bool = True,
        deconvolve: bool = False,
    ) -> None:
        super().__init__()
        self.box = box
        k0, k1, k2 = np.meshgrid(*box.waves(), indexing="ij", sparse=True)
        shape = np.broadcast_shapes(k0.shape, k1.shape, k2.shape)
        length = np.sqrt(k0**2 + k1**2 + k2**2).ravel()
        # the planes at the ends of the half space hold their conjugates themselves
        last = np.arange(shape[2])
        ends = (last == 0) | (2 * last == box.shape[2])
        copies = np.where(ends | (not conjugates), 1, 2)
        copies = np.broadcast_to(copies, shape).ravel()
        order = np.concatenate([np.zeros(0, np.int64), *members])
        self._lengths = [len(some) for some in members]
        number = [int(copies[some].sum()) for some in members]
        self.modes = np.array(number, np.int64)
        """Number of modes of each set [num_sets]."""
        self.k = np.array(
            [copies[some] @ length[some] / n for some, n in zip(members, number, strict=True)]
        )
        """Their mean |k| [1/Mpc] [num_sets]."""
        weight = copies[order] / np.repeat(self.modes, self._lengths)
        weight = weight * box.volume_Mpc3 / float(np.prod(box.shape)) ** 2
        if deconvolve:
            window = np.ones(shape)
            for k, cell in zip((k0, k1, k2), box.cells_Mpc, strict=True):
                window = window * np.sinc(k * cell / (2.0 * np.pi)) ** 2
            weight = weight / window.ravel()[order]
        self.register_buffer("order", torch.as_tensor(order), persistent=False)
        self.register_buffer("weight", torch.as_tensor(weight), persistent=False)

    @classmethod
    def spherical(cls, box: Box, shells: Sequence[Span], **options: bool) -> Power:
        """In shells low <= |k| < high [1/Mpc], without k = 0. Raises ValueError for a shell without
        a mode. options: those of `Power`."""
        k0, k1, k2 = np.meshgrid(*box.waves(), indexing="ij", sparse=True)
        length = np.sqrt(k0**2 + k1**2 + k2**2).ravel()
        members = []
        for low, high in shells:
            inside = np.flatnonzero((length >= low) & (length < high) & (length > 0.0))
            if not len(inside):
                raise ValueError(f"{_no_mode(box)} the shell k = {low:g}..{high:g} /Mpc")
            members.append(inside)
        return cls(box, members, **options)

    @classmethod
    def cylindrical(
        cls, box: Box, across: Sequence[Span], along: Sequence[Span], **options: bool
    ) -> Power:
        """In rings of k_perp times slabs of |k_par| [1/Mpc], the slabs of the first ring first;
        without k = 0. Raises ValueError for one without a mode."""
        k0, k1, k2 = np.meshgrid(*box.waves(), indexing="ij", sparse=True)
        k_perp, k_par = np.sqrt(k1**2 + k2**2), np.abs(k0)
        members = []
        for low, high in across:
            ring = (k_perp >= low) & (k_perp < high)
            for bottom, top in along:
                inside = ring & (k_par >= bottom) & (k_par < top) & (k_perp + k_par > 0.0)
                if not inside.any():
                    raise ValueError(
                        f"{_no_mode(box)} k_perp = {low:g}..{high:g}, k_par = {bottom:g}.."
                        f"{top:g} /Mpc"
                    )
                members.append(np.flatnonzero(inside))
        return cls(box, members, **options)

    def forward(self, cube: Tensor) -> Tensor:
        """P of cubes [B, *box.shape], [B, num_sets] in their precision."""
        if tuple(cube.shape[1:]) != self.box.shape:
            raise ValueError(
                f"cube shape mismatch: {tuple(cube.shape[1:])} != {self.box.shape} (freq, dec, ra)"
            )
        axes = (1, 2, 3)
        contrast = cube - cube.double().mean(axes, keepdim=True).to(cube.dtype)
        modes = torch.fft.rfftn(contrast, dim=axes).flatten(1)[:, self.order]
        power = (modes.real.square() + modes.imag.square()) * self.weight.to(cube.dtype)
        # one sum after the other: no atomics, so the same bits every time
        return torch.stack([part.sum(1) for part in power.split(self._lengths, dim=1)], dim=1)


def _no_mode(box: Box) -> str:
    depth, height, width = box.sides_Mpc
    return f"no mode of a box of {depth:.4g} x {height:.4g} x {width:.4g} Mpc lies in"


def shells(box: Box, num: int) -> list[Span]:
    """At most `num` shells that hold all modes up to the highest Nyquist wavenumber of an axis.

    Their edges are multiples of the largest fundamental wavenumber of an axis, as limlam_mocker's,
    in steps that grow with k where there are more multiples than shells. The first begins at the
    longest wave where no axis has one below that.
    """
    first, *others = _steps(*_range(box, (0, 1, 2)), num)
    sides = [side for side, n in zip(box.sides_Mpc, box.shape, strict=True) if n > 1]
    longest = 2.0 * np.pi / max(sides, default=max(box.sides_Mpc))
    return others if others and longest >= first[1] else [first, *others]


def rings(box: Box, num: int) -> list[Span]:
    """At most `num` bins of k_perp [1/Mpc] that hold all modes up to the highest Nyquist wavenumber
    of an axis, chosen as in `shells`; the first one holds k_perp = 0 and the longest waves across.
    """
    first, *others = _steps(*_range(box, (1, 2)), num + 1)
    return [(first[0], others[0][1]), *others[1:]] if others else [first]


def slabs(box: Box, num: int) -> list[Span]:
    """At most `num` bins of |k_par| [1/Mpc] that hold all modes; each wavenumber of the axis lies
    at the middle of a step."""
    step = 2.0 * np.pi / box.sides_Mpc[0]
    highest = box.shape[0] // 2
    return [((low - 0.5) * step, (high - 0.5) * step) for low, high in _whole(highest + 1, num)]


def _range(box: Box, axes: tuple[int, ...]) -> tuple[float, int]:
    """The largest fundamental wavenumber of some axes [1/Mpc], and how many of them reach the
    highest Nyquist wavenumber. An axis of one voxel has no wave."""
    axes = tuple(axis for axis in axes if box.shape[axis] > 1) or axes
    step = max(2.0 * np.pi / box.sides_Mpc[axis] for axis in axes)
    # the highest wave itself belongs to the last shell: an end just above it
    top = max(2.0 * np.pi / box.sides_Mpc[a] * (box.shape[a] // 2) for a in axes)
    return step, max(1, int(np.floor(top / step * (1.0 + 1e-9))) + 1)


def _steps(step: float, number: int, num: int) -> list[Span]:
    # a little lower, so that a wave of a whole number of steps is inside whatever its rounding
    shift = 1e-6
    return [((low - shift) * step, (high - shift) * step) for low, high in _whole(number, num)]


def _whole(number: int, num: int) -> list[tuple[int, int]]:
    """0..number cut into at most `num` pieces of whole length, geometric where there are more."""
    if number <= num:
        ends = np.arange(number + 1)
    else:
        steps = np.geomspace(1, number, num)
        steps[-1] = number  # of a single piece, too
        ends = np.concatenate([[0], np.unique(np.rint(steps).astype(int))])
    return list(zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True))


EDGE_VOXELS = 1 << 14
"""Voxels of a map that the bins of T are chosen from, at most, evenly spaced among all."""
ANSCOMBE = 0.375
"""sqrt(n + this) of a number n of voxels scatters alike whatever its mean (Anscombe 1948)."""
TAIL_SIGMA = 3.0
"""`quantile_edges` reach as far into the tails as this many sigma of a normal distribution."""


CELLS = 1024
"""Cells of equal width that `voxel_counts` of a large cube looks for an edge in, on a CPU."""


def voxel_counts(cube: Tensor, edges: Tensor) -> Tensor:
    """Voxels of cubes [B, ...] in the bins between `edges`, int64 [B, len(edges) + 1].

    edges: increasing [num_edges], of the cube's kind and device. A bin holds its lower edge. The
    first and the last bin are open, so the counts of a cube add up to its number of voxels.
    """
    values = cube.flatten(1).contiguous()
    edges = edges.to(values.dtype)
    large = values.device.type == "cpu" and values.shape[1] >= 4 * CELLS
    if large and len(edges) and not torch.compiler.is_compiling():
        u, number = torch.unique_consecutive(edges, return_counts=True)
        scale = (CELLS - 3) / (u[-1] - u[0]).item() if len(u) > 1 else 1.0
        if 0.0 < scale < inf:
            counts = values.new_zeros((len(values), len(edges) + 1), dtype=torch.int64)
            place = torch.cat([number.new_zeros(1), number.cumsum(0)])
            counts[:, place] = _counted_in_cells(values, u, scale)
            return counts
    bins = len(edges) + 1
    # of all cubes in a row; counts of whole numbers have no order
    which = torch.bucketize(values, edges, right=True)
    which += bins * torch.arange(len(values), device=cube.device)[:, None]
    counts = which.new_zeros(len(values) * bins)
    counts.scatter_add_(0, which.view(-1), which.new_ones(1).expand(which.numel()))
    return counts.view(-1, bins)


def _counted_in_cells(values: Tensor, edges: Tensor, scale: float) -> Tensor:
    """Values [B, n] in the bins of edges, of which no two are equal: first the cell of a value, of
    equal width in T, then the few edges within it are looked at. A search for each value, whose
    turns no processor foresees, takes four times as long."""

    def cells(of: Tensor) -> Tensor:  # a larger value has no lower cell
        return of.mul(scale).add_(1.0 - scale * edges[0]).clamp_(0, CELLS - 1).int()

    home = cells(edges)
    before = torch.searchsorted(home, torch.arange(CELLS, dtype=home.dtype), out_int32=True)
    most = int(torch.bincount(home).max())
    ends = torch.cat([edges, edges.new_full((1,), nan)])  # no value is above the last
    found = []
    for some in values:
        known = some.nan_to_num(nan=inf, posinf=inf, neginf=-inf)  # as a search has it
        which = before.index_select(0, cells(known))
        for _ in range(most):
            which += known >= ends.index_select(0, which)
        found.append(torch.bincount(which, minlength=len(ends)))
    return torch.stack(found)


def edge_voxels(cube: Tensor) -> NDArray[np.floating]:
    """Voxels of cubes [B, n_freq, n_dec, n_ra] that tell the bins of T, [B, at most `EDGE_VOXELS`]:
    evenly spaced among all, of all columns and rows in turn, whose number the step has no divisor
    in common with."""
    freq, dec, ra = cube.shape[1:]
    step = -(-(freq * dec * ra) // EDGE_VOXELS)
    while gcd(step, dec * ra) > 1:
        step += 1
    return cube.flatten(1)[:, ::step].cpu().numpy()


def quantile_edges(values: NDArray[np.floating], num_bins: int) -> NDArray[np.float64]:
    """Edges of `num_bins` bins of T [num_bins - 1], from voxels of many maps.

    They are the quantiles that would be equally spaced if T were normal: white noise has bins of
    equal width, and the bright tail of sources as many of them as the faint one. The outermost two
    leave 0.13 % of the voxels each beyond them.
    """
    if num_bins < 2:
        raise ValueError(f"num_bins = {num_bins}: a distribution needs at least 2 bins")
    steps = np.linspace(-TAIL_SIGMA, TAIL_SIGMA, num_bins - 1) if num_bins > 2 else np.zeros(1)
    chances = [0.5 * (1.0 + erf(step / sqrt(2.0))) for step in steps]
    return np.quantile(np.asarray(values, np.float64).ravel(), chances)
