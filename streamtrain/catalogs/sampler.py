"""Halos from rates and displacements: the sampler behind `synthesize`, and its plan.

A plan is everything that does not depend on the seed. Steps for one seed: draw the density field,
turn it into an expected number of halos per Lagrangian cell and mass node, draw a Poisson number
per cell, give each halo a node, a mass and a place in its cell, move it by 2LPT at the growth of
its own distance, and keep what is then seen inside the field.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from concurrent.futures import Executor

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from scipy.special import ndtri

from streamtrain.catalogs.box import Box, mix, random_bits, uniform
from streamtrain.catalogs.lpt import LONG_STAGE, DensityField, DensityModes
from streamtrain.catalogs.massfunction import mass_function
from streamtrain.catalogs.massnodes import MassNodes, Rates
from streamtrain.catalogs.skyoptions import SkyOptions
from streamtrain.cosmology import C_KMS, Cosmology

Float = NDArray[np.float32]
Double = NDArray[np.float64]

METHOD = "pbs2lpt"
METHOD_VERSION = 1
"""Goes up when the same options and seed give other halos."""

PAD_MPC = 40.0
"""Least distance from the field to the edge of the periodic box [Mpc]."""
EDGE_SIGMAS = 4.5
"""Halos are made this many rms displacements beyond the edges of the field."""

_COUNT_STAGE = LONG_STAGE + 1
_HALO_STAGE = LONG_STAGE + 2
_CHUNK = 1 << 17
_BYTES_PER_CELL = 110
_BYTES_PER_HALO = 200
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class HaloSampler:
    """What all seeds of one set of options share: box, filters, rate laws and active cells."""

    def __init__(self, options: SkyOptions) -> None:
        self.options = options
        cosmology = options.cosmology
        self.edges = cosmology.comoving_distance(options.z_range)
        # Displacements are largest at the near end; along the line of sight velocity adds to them.
        near = options.z_range[0]
        rms = float(cosmology.growth(near)) * _displacement_rms(cosmology)
        cell_radius = options.cell_Mpc * math.sqrt(3.0) / 2.0
        self.margin = EDGE_SIGMAS * rms + cell_radius
        stretch = 1.0 + float(cosmology.growth_rate(options.z_range[1]))
        self.depth_margin = EDGE_SIGMAS * rms * stretch + cell_radius
        self.box = self._box()

        low, high = self.edges[0] - self.depth_margin, self.edges[1] + self.depth_margin
        self.chi_step = 0.5
        self.chi = np.arange(low - 1.0, high + 2.0, self.chi_step)
        self.z = cosmology.redshift(self.chi)
        self.growth = cosmology.growth(self.z)
        # Proper velocity per displacement today [km/s/Mpc].
        rate = cosmology.growth_rate(self.z) * cosmology.hubble(self.z) / (1.0 + self.z)
        self.velocity = rate * self.growth
        area = np.radians(options.footprint_deg).prod()
        volume = area * (self.edges[1] ** 3 - self.edges[0] ** 3) / 3.0
        self.nodes = MassNodes(
            mass_function(options.mass_function),
            cosmology,
            options.min_mass_Msun,
            (float(self.z[0]), float(self.z[-1])),
            volume,
        )
        num_halos = volume * float(self.nodes.density.sum(axis=0).max())
        _check_memory(self.box, len(self.nodes), num_halos)

        self.phases = hashlib.sha256(
            f"{METHOD} {METHOD_VERSION} {self.box.shape}".encode()
        ).hexdigest()
        self.modes = DensityModes(self.box, cosmology)
        self.cuts = self.nodes.filters(self.modes)
        self.active, self.bins = self._active_cells()

    def key(self, seed: int) -> int:
        """The 128-bit key of the random streams. All that decides their use is in it, so fields
        of the same seed share their phases if, and only if, they share the name of the sky."""
        return seed | int(self.phases[:16], 16) << 64

    def _box(self) -> Box:
        """The smallest periodic box with room for the field and its padding."""
        cell = self.options.cell_Mpc
        half_ra, half_dec = (math.radians(side) / 2.0 for side in self.options.footprint_deg)
        pad = max(PAD_MPC, self.margin + cell)
        far = float(self.edges[1])
        depth_pad = max(PAD_MPC, self.depth_margin + cell)
        bottom = float(self.edges[0]) * math.cos(half_ra) * math.cos(half_dec) - depth_pad
        sides = (
            2.0 * (far * math.sin(half_ra) + pad),
            2.0 * (far * math.sin(half_dec) + pad),
            far + depth_pad - bottom,
        )
        nx, ny, nz = (_fft_length(math.ceil(side / cell)) for side in sides)
        return Box((nx, ny, nz), cell, (-nx * cell / 2.0, -ny * cell / 2.0, bottom))

    def _active_cells(self) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
        """Flat indices of the cells whose halos may end up in the field, and their chi bins."""
        tan_ra, tan_dec = (math.tan(math.radians(s) / 2.0) for s in self.options.footprint_deg)
        x, y, z = (self.box.centres(axis) for axis in range(3))
        yz2 = y[:, None] ** 2 + z**2
        active, bins = [], []
        for row, x_row in enumerate(x):
            chi = np.sqrt(x_row**2 + yz2)
            inside = (chi >= self.edges[0] - self.depth_margin) & (
                chi <= self.edges[1] + self.depth_margin
            )
            inside &= np.abs(x_row) <= z * tan_ra + self.margin
            inside &= np.abs(y[:, None]) <= np.hypot(x_row, z) * tan_dec + self.margin
            index = np.flatnonzero(inside)
            active.append(index + row * chi.size)
            bins.append(np.rint((chi.ravel()[index] - self.chi[0]) / self.chi_step))
        return np.concatenate(active), np.concatenate(bins).astype(np.int32)

    def halos(
        self, key: int, pool: Executor, report: Callable[[float, str], None]
    ) -> dict[str, Float]:
        """One realisation: columns by the names of `Lightcone.from_arrays`, cell by cell."""
        report(0.1, "density field")
        density = self.modes.draw(key, pool)
        report(0.2, "halo rates")
        cumulative = self.cumulative_rates(density, pool)
        report(0.5, "displacements")
        displacements = self.modes.displacements(density, pool).reshape(-1, 6)
        report(0.7, "halos")

        def sample(start: int) -> dict[str, Float]:
            return self.sample(key, slice(start, start + _CHUNK), cumulative, displacements)

        parts = list(pool.map(sample, range(0, self.active.size, _CHUNK)))
        return {name: np.concatenate([part.pop(name) for part in parts]) for name in [*parts[0]]}

    def cumulative_rates(self, density: DensityField, pool: Executor) -> Float:
        """Expected halos per active cell in nodes 0..j, [num_nodes, num_active]."""
        rates = np.empty((len(self.nodes), self.active.size), np.float32)

        def fill(cut: float) -> None:
            field = self.modes.filtered(density, cut).reshape(-1)[self.active]
            variance = self.modes.variance(cut)
            for node in np.flatnonzero(self.cuts == cut):
                law = self.nodes.rates(int(node), variance, self.box.cell_Mpc, self.z)
                _evaluate(law, field, self.bins, rates[node])

        list(pool.map(fill, np.unique(self.cuts)))
        for node in range(1, len(self.nodes)):
            rates[node] += rates[node - 1]
        return rates

    def sample(
        self,
        key: int,
        part: slice,
        cumulative: Float,
        displacements: Float,
    ) -> dict[str, Float]:
        """The halos of some active cells that are seen inside the field.

        `cumulative` as made by `cumulative_rates`, `displacements` [num_cells, 6] [Mpc]. The
        random numbers of a halo depend on its cell and its rank in it, nothing else.
        """
        active, cumulative = self.active[part], cumulative[:, part]
        words = [
            random_bits(key, stage, int(active[0]), int(active[-1]) + 1)[active - active[0]]
            for stage in (_COUNT_STAGE, _HALO_STAGE)
        ]
        count = _poisson(cumulative[-1].astype(np.float64), uniform(words[0]))
        cell = np.repeat(np.arange(active.size), count)
        rank = np.arange(cell.size) - np.repeat(np.cumsum(count) - count, count)
        key = words[1][cell] + (rank.astype(np.uint64) << np.uint64(3)) * _GOLDEN
        draws = [
            uniform(mix(key + _GOLDEN * purpose))
            for purpose in np.arange(1, 6, dtype=np.uint64)[:, None]
        ]

        threshold = (draws[0] * cumulative[-1][cell]).astype(np.float32)
        node = np.zeros(cell.size, np.intp)
        for bound in cumulative[:-1]:
            node += bound[cell] <= threshold
        place = np.stack(draws[2:], axis=1)
        place += np.stack(np.unravel_index(active[cell], self.box.shape), axis=1)
        start = place * self.box.cell_Mpc + self.box.corner_Mpc
        chi = np.sqrt(np.einsum("ij,ij->i", start, start))
        growth = np.interp(chi, self.chi, self.growth)[:, None]
        per_displacement = np.interp(chi, self.chi, self.velocity)[:, None]
        log_mass = self.nodes.log_mass_at(node, np.interp(chi, self.chi, self.z), draws[1])

        gathered = _gather(displacements, self.box.shape, place)
        first, second = gathered[:, :3], gathered[:, 3:]
        second = growth * second
        position = start + growth * (first + second)
        velocity = per_displacement * (first + 2.0 * second)
        return self._observe(position, velocity, 10.0**log_mass)

    def _observe(self, position: Double, velocity: Double, mass: Double) -> dict[str, Float]:
        """Halos inside the footprint, the redshift range and above the mass limit, as float32."""
        chi = np.sqrt(np.einsum("ij,ij->i", position, position))
        z = np.interp(chi, self.chi, self.z)
        radial = np.einsum("ij,ij->i", velocity, position) / chi
        z_obs = (z + (1.0 + z) * radial / C_KMS).astype(np.float32)
        position32, mass32 = position.astype(np.float32), mass.astype(np.float32)
        half_ra, half_dec = (side / 2.0 for side in self.options.footprint_deg)
        x, y, depth = position32.T.astype(np.float64)
        low, high = self.options.z_range
        keep = (z_obs >= low) & (z_obs <= high) & (mass32 > self.options.min_mass_Msun)
        keep &= np.abs(np.degrees(np.arctan2(-x, depth))) <= half_ra
        keep &= (
            np.abs(np.degrees(np.arcsin(y / np.sqrt(x * x + y * y + depth * depth)))) <= half_dec
        )
        kept = np.flatnonzero(keep)
        return {
            "x_Mpc": position32[kept, 0],
            "y_Mpc": position32[kept, 1],
            "z_Mpc": position32[kept, 2],
            "mass_Msun": mass32[kept],
            "z_obs": z_obs[kept],
            "velocities_kms": velocity[kept].astype(np.float32),
        }


def _displacement_rms(cosmology: Cosmology) -> float:
    """Linear rms displacement per axis today [Mpc], every wavelength included."""
    k = np.geomspace(1e-5, 1e2, 4000)
    power = cosmology.linear_power(k)
    return math.sqrt(np.sum(power * k) * math.log(k[1] / k[0]) / (6.0 * math.pi**2))


def _fft_length(num_cells: int) -> int:
    """The next even length that FFTs are fast at."""
    return 2 * next_fast_len((num_cells + 1) // 2, real=True)


def _check_memory(box: Box, num_nodes: int, num_halos: float) -> None:
    per_cell = _BYTES_PER_CELL + 4.0 * num_nodes
    needed = box.num_cells * per_cell + num_halos * _BYTES_PER_HALO
    free = _free_memory()
    if needed > free:
        raise ValueError(
            f"a field of {box.shape[0]} x {box.shape[1]} x {box.shape[2]} cells with about "
            f"{num_halos:.2g} halos needs {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free: "
            "choose a smaller footprint_deg or z_range, or a larger cell_Mpc or min_mass_Msun"
        )


def _free_memory() -> float:
    """Memory that can be used [bytes]; infinite where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as table:
            fields = dict(line.split(":", 1) for line in table)
        return float(fields["MemAvailable"].split()[0]) * 1024.0
    except (OSError, KeyError, ValueError):
        return math.inf


def _evaluate(
    law: Rates,
    field: Float,
    bins: NDArray[np.int32],
    out: Float,
) -> None:
    """out = the expected number in each cell, for a field and its chi bins of the same shape."""
    for start in range(0, field.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        bin_part, field_part = bins[part], field[part]
        exponent = law.quadratic[bin_part] * field_part
        exponent += law.linear[bin_part]
        exponent *= field_part
        exponent += law.constant[bin_part]
        np.exp(exponent, out=out[part])


def _poisson(mean: Double, uniform: Double) -> NDArray[np.intp]:
    """Poisson counts by inverse distribution; above a mean of 60 its normal expansion."""
    count = np.zeros(mean.size, np.intp)
    large = np.flatnonzero(mean > 60.0)
    if large.size:
        normal, m = ndtri(uniform[large]), mean[large]
        rounded = np.rint(m + np.sqrt(m) * normal + (normal**2 - 1.0) / 6.0)
        count[large] = np.maximum(rounded, 0.0).astype(np.intp)
    term = np.exp(-mean)
    todo = np.flatnonzero((uniform > term) & (mean <= 60.0))
    term, mean, rest = term[todo], mean[todo], uniform[todo] - term[todo]
    rank = 0
    while todo.size:
        rank += 1
        count[todo] += 1
        term = term * mean / rank
        more = (rest > term) & (rank < 400)
        todo, rest = todo[more], (rest - term)[more]
        term, mean = term[more], mean[more]
    return count


def _gather(table: Float, shape: tuple[int, int, int], place: Double) -> Double:
    """Trilinear interpolation of cell-centred rows at places in cells, [num, table columns]."""
    lower = np.floor(place - 0.5).astype(np.intp)
    part = (place - 0.5 - lower).astype(np.float32)
    near, far = lower % shape, (lower + 1) % shape
    weights = (1.0 - part, part)
    flat = [
        (index[:, 0] * (shape[1] * shape[2]), index[:, 1] * shape[2], index[:, 2])
        for index in (near, far)
    ]
    total = np.zeros((len(place), table.shape[1]), np.float32)
    for i in (0, 1):
        for j in (0, 1):
            plane = flat[i][0] + flat[j][1]
            weight = weights[i][:, 0] * weights[j][:, 1]
            for k in (0, 1):
                total += (weight * weights[k][:, 2])[:, None] * table[plane + flat[k][2]]
    return total.astype(np.float64)
