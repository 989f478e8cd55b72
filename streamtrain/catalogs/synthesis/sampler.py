"""Halos from rates and displacements: the sampler behind `synthesize`, and its plan.

A plan is everything that does not depend on the seed. Steps for one seed: draw the density field,
turn it into an expected number of halos per Lagrangian cell and mass node, draw the halos of each
cell, give each a mass and a place in its cell, move it by 2LPT at the growth of its own distance,
and keep what is then seen inside the field.

The halos of a cell are the arrivals of a Poisson process of unit rate: halo r comes at the sum of
r + 1 exponential numbers, and belongs to the node within whose share of the expected numbers,
added up from the lowest node, it comes. So one pass over the nodes is enough, with one filtered
field in memory at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from streamtrain.catalogs.synthesis.arrays import NUMPY, Array, NumpyArrays
from streamtrain.catalogs.synthesis.box import (
    GOLDEN,
    Box,
    FieldBox,
    Slab,
    cell_words,
    constant,
    mix,
    settled,
    uniform,
)
from streamtrain.catalogs.synthesis.density import LONG_STAGE, DensityField, DensityModes, gather
from streamtrain.catalogs.synthesis.halo_rates import MassNodes, Rates
from streamtrain.catalogs.synthesis.massfunction import mass_function
from streamtrain.catalogs.synthesis.options import SkyOptions
from streamtrain.cosmology import C_KMS, Cosmology

Double = NDArray[np.float64]

_HALO_STAGE = LONG_STAGE + 1
_BYTES = 2.5e8
_BYTES_PER_HALO = 80
_LAST_MODES: dict[tuple[Box, Cosmology, Box, str, str], DensityModes] = {}
"""Those that were made last, by their box, cosmology, whole box and what holds them."""


@dataclass(frozen=True)
class Arrivals:
    """Halos of some cells, sorted by cell and rank; arrays [num_halos]."""

    cell: Array
    """Flat number of the cell in its slab's box."""
    rank: Array
    """How many halos of the cell came earlier."""
    node: Array
    """Number of the mass node of each halo."""


class HaloSampler(FieldBox):
    """What all seeds of one set of options share: box, filters, rate laws and active cells."""

    def __init__(self, options: SkyOptions, arrays: NumpyArrays = NUMPY) -> None:
        """`arrays` says on what fields and halos are made; the plan is made on the host."""
        super().__init__(options)
        self.arrays = arrays
        cosmology = options.cosmology
        self.z = settled(cosmology.redshift(self.chi))
        self.growth = settled(cosmology.growth(self.z))
        # Proper velocity per displacement today [km/s/Mpc].
        rate = cosmology.growth_rate(self.z) * cosmology.hubble(self.z) / (1.0 + self.z)
        self.velocity = settled(rate * self.growth)
        area = np.radians(options.footprint_deg).prod()
        volume = area * (self.edges[1] ** 3 - self.edges[0] ** 3) / 3.0
        self.nodes = MassNodes(
            replace(
                mass_function(options.mass_function),
                factor=options.abundance,
                tilt=options.abundance_tilt,
            ),
            cosmology,
            options.min_mass_Msun,
            (float(self.z[0]), float(self.z[-1])),
            volume,
            options.bias,
            arrays,
            options.bias_factor,
        )
        names = ("chi", "z", "growth", "velocity")
        self._tables = {name: arrays.put(getattr(self, name)) for name in names}
        shell = np.gradient(cosmology.comoving_distance(self.nodes.z) ** 3)
        num_halos = volume * float(self.nodes.density.sum(axis=0) @ shell / shell.sum())
        self.num_halos = num_halos
        """Expected in a lightcone."""
        cells = self.slabs[0].box.num_cells
        self.memory = _BYTES + cells * arrays.bytes_per_cell + num_halos * _BYTES_PER_HALO
        """About what making one field takes [bytes]."""
        self._kept_cells: dict[int, tuple[Array, Array]] = {}

    @cached_property
    def modes(self) -> DensityModes:
        """The modes over the box of the first slab; ValueError if memory does not hold them.

        Skies of one cosmology share them, whatever else is drawn for each."""
        box, cosmology = self.slabs[0].box, self.options.cosmology
        which = (box, cosmology, self.box, self.arrays.name, self.arrays.where)
        found = _LAST_MODES.get(which)
        if found is None:
            _LAST_MODES.clear()
            _check_memory(box, self.num_halos, self.memory, self.arrays.free_memory())
            found = _LAST_MODES[which] = DensityModes(box, cosmology, self.box, self.arrays)
        return found

    @cached_property
    def cuts(self) -> Double:
        """The filter of each node, its cut-off wavenumber [1/Mpc]."""
        return self.nodes.filters(self.modes)

    @cached_property
    def laws(self) -> dict[float, dict[int, Rates]]:
        """The rate laws of the nodes of each cut-off wavenumber, the highest first."""
        put, cell, found = self.arrays.put, self.box.cell_Mpc, {}
        for cut in -np.unique(-self.cuts):
            variance = self.modes.variance(cut)
            found[float(cut)] = {
                int(node): self.nodes.rates(int(node), variance, cell, self.z).on(put)
                for node in np.flatnonzero(self.cuts == cut)
            }
        return found

    def _cells(self, slab: Slab) -> tuple[Array, Array]:
        """`FieldBox.active_cells` as the arrays in use."""
        found = self._kept_cells.get(slab.box.first_cell)
        if found is None:
            cells, bins = self.active_cells(slab)
            found = self.arrays.put(cells), self.arrays.put(bins)
            if self.arrays.keeps_plans and len(self.slabs) == 1:
                self._kept_cells[slab.box.first_cell] = found
        return found

    def halos(
        self, key: int, pool: Executor, report: Callable[[float, str], None]
    ) -> dict[str, NDArray[np.float32]]:
        """One realisation: columns by the names of `Lightcone.from_arrays`, cell by cell."""
        parts: list[dict[str, NDArray[np.float32]]] = []
        for number, slab in enumerate(self.slabs):

            def tell(done: float, what: str, number: int = number) -> None:
                report(0.05 + 0.85 * (number + done) / len(self.slabs), what)

            def tell_moving(done: float, tell: Callable[[float, str], None] = tell) -> None:
                tell(0.55 + 0.2 * done, "displacements")

            tell(0.0, "density field")
            modes = self.modes.at(slab.box) if number else self.modes
            density = modes.draw(key, pool)
            tell(0.05, "active cells")
            arrivals = self.arrivals(key, slab, modes, density, pool, tell)
            tell(0.55, "displacements")
            displacements = modes.displacements(
                density, pool, tell_moving, self.options.infall
            ).reshape(-1, 6)
            del density
            tell(0.75, "halos")
            sample = partial(self.sample, key, slab.box, displacements)
            for done, part in enumerate(pool.map(sample, arrivals)):
                tell(0.75 + 0.25 * done / len(arrivals), "halos")
                parts.append(part)
            del displacements, sample
        return {name: np.concatenate([part.pop(name) for part in parts]) for name in [*parts[0]]}

    def arrivals(
        self,
        key: int,
        slab: Slab,
        modes: DensityModes,
        density: DensityField,
        pool: Executor,
        report: Callable[[float, str], None],
    ) -> list[Arrivals]:
        """The halos that the slab's cells hold, in the order of the cells."""
        arrays = self.arrays
        active, bins = self._cells(slab)
        size, piece = len(active), arrays.cells_per_piece
        expected = arrays.zeros((size,), arrays.float32)
        due = arrays.empty((size,), arrays.float32)
        rank = arrays.zeros((size,), arrays.rank)
        parts = [slice(first, first + piece) for first in range(0, size, piece)]
        found: list[list[tuple[Array, Array, int]]] = [[] for _ in parts]

        def wait(cells: Array, ranks: Array) -> Array:
            words = self._words(key, slab.box, cells)
            return -arrays.math.log(_draw(words, arrays.as_words(ranks), 0))

        def start(part: slice) -> None:
            due[part] = wait(active[part], rank[part])

        def add(number: int, field: Array, laws: dict[int, Rates]) -> None:
            part = parts[number]
            cells, level, next_due, next_rank = active[part], expected[part], due[part], rank[part]
            values = field[cells]
            for node, law in laws.items():
                level += _evaluate(law, values, bins[part], arrays)
                hit = arrays.flatnonzero(next_due <= level)
                while len(hit):
                    found[number].append((hit, next_rank[hit], node))
                    next_rank[hit] += 1
                    later = next_due[hit] + wait(cells[hit], next_rank[hit])
                    next_due[hit] = arrays.cast(later, arrays.float32)
                    hit = hit[next_due[hit] <= level[hit]]

        def collect(number: int) -> Arrivals:
            none = arrays.zeros((0,), arrays.index)
            join = arrays.math.concatenate
            index = join([none, *(hit for hit, _, _ in found[number])])
            ranks = join([none, *(ranks for _, ranks, _ in found[number])])
            nodes = [
                arrays.zeros((len(hit),), arrays.node) + node for hit, _, node in found[number]
            ]
            node = join([none, *nodes])
            found[number].clear()
            order = arrays.order(index << 16 | ranks)
            cells = active[parts[number]][index[order]]
            return Arrivals(
                arrays.cast(cells, arrays.index),
                arrays.cast(ranks[order], arrays.rank),
                arrays.cast(node[order], arrays.node),
            )

        list(pool.map(start, parts))
        report(0.08, "halo rates")
        deconvolved = modes.deconvolved(density)
        cuts, laws_of = [*self.laws], [*self.laws.values()]
        fields = _ahead(partial(modes.filtered, deconvolved), cuts, pool, 0 if modes.large else 2)
        for done, (laws, field) in enumerate(zip(laws_of, fields, strict=True)):
            report(0.1 + 0.45 * done / len(cuts), "halo rates")
            flat = field.reshape(-1)
            list(pool.map(partial(add, field=flat, laws=laws), range(len(parts))))
            del field, flat
        del deconvolved
        return list(pool.map(collect, range(len(parts))))

    def _words(self, key: int, box: Box, cells: Array) -> Array:
        """The random words of the cells of a box, which are those of the whole one's cells."""
        words = self.arrays.as_words(cells)
        return cell_words(key, _HALO_STAGE, words + constant(box.first_cell, words))

    def sample(
        self, key: int, box: Box, displacements: Array, arrivals: Arrivals
    ) -> dict[str, NDArray[np.float32]]:
        """Positions, masses and redshifts of the halos that are seen inside the field;
        `displacements` [num_cells, 6] [Mpc].

        The random numbers of a halo depend on its cell and its rank in it, nothing else.
        """
        arrays, (_, ny, nz) = self.arrays, box.shape
        words, ranks = self._words(key, box, arrivals.cell), arrays.as_words(arrivals.rank)
        place = arrays.math.stack([_draw(words, ranks, purpose) for purpose in (2, 3, 4)], 1)
        plane, row = arrivals.cell // (ny * nz), arrivals.cell // nz
        place += arrays.math.stack([plane, row - plane * ny, arrivals.cell - row * nz], 1)
        start = place * box.cell_Mpc + arrays.put(np.array(box.corner_Mpc))
        chi = arrays.math.sqrt(arrays.math.einsum("ij,ij->i", start, start))
        growth = self._at(chi, "growth")[:, None]
        per_displacement = self._at(chi, "velocity")[:, None]
        log_mass = self.nodes.log_mass_at(
            arrays.cast(arrivals.node, arrays.index),
            self._at(chi, "z"),
            _draw(words, ranks, 1),
        )

        gathered = gather(displacements, box.shape, place, arrays)
        first, second = gathered[:, :3], gathered[:, 3:]
        second = growth * second
        position = start + growth * (first + second)
        velocity = per_displacement * (first + 2.0 * second)
        return self._observe(position, velocity, arrays.exp10(log_mass))

    def _at(self, chi: Array, name: str) -> Array:
        """A table of the plan at comoving distances [Mpc]."""
        return self.arrays.interp(chi, self._tables["chi"], self._tables[name])

    def _observe(
        self, position: Array, velocity: Array, mass: Array
    ) -> dict[str, NDArray[np.float32]]:
        """Halos inside the footprint, the redshift range and above the mass limit, as float32."""
        arrays, math_ = self.arrays, self.arrays.math
        chi = math_.sqrt(math_.einsum("ij,ij->i", position, position))
        z = self._at(chi, "z")
        radial = math_.einsum("ij,ij->i", velocity, position) / chi
        z_obs, position32, mass32 = (
            arrays.cast(array, arrays.float32)
            for array in (z + (1.0 + z) * radial / C_KMS, position, mass)
        )
        half_ra, half_dec = (side / 2.0 for side in self.options.footprint_deg)
        x, y, depth = arrays.cast(position32.T, arrays.float64)
        low, high = self.options.z_range
        keep = (z_obs >= low) & (z_obs <= high) & (mass32 > self.options.min_mass_Msun)
        keep &= abs(arrays.degrees(math_.arctan2(-x, depth))) <= half_ra
        distance = math_.sqrt(x * x + y * y + depth * depth)
        keep &= abs(arrays.degrees(math_.arcsin(y / distance))) <= half_dec
        kept = arrays.flatnonzero(keep)
        seen = {
            "x_Mpc": position32[kept, 0],
            "y_Mpc": position32[kept, 1],
            "z_Mpc": position32[kept, 2],
            "mass_Msun": mass32[kept],
            "z_obs": z_obs[kept],
            "velocities_kms": arrays.cast(velocity[kept], arrays.float32),
        }
        return {name: arrays.get(column) for name, column in seen.items()}


def _check_memory(box: Box, num_halos: float, needed: float, free: float) -> None:
    if needed > free:
        raise ValueError(
            f"a field of {box.shape[0]} x {box.shape[1]} x {box.shape[2]} cells with about "
            f"{num_halos:.2g} halos needs {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free: "
            "choose a smaller footprint_deg or z_range, or a larger cell_Mpc or min_mass_Msun"
        )


def _draw(words: Array, ranks: Array, purpose: int) -> Array:
    """Uniform numbers in (0, 1) of halos, from their cells' words and their ranks as words."""
    step = ranks * constant(8, ranks) + constant(purpose, ranks)
    return uniform(mix(words + step * constant(GOLDEN, ranks)))


def _evaluate(law: Rates, field: Array, bins: Array, arrays: NumpyArrays = NUMPY) -> Array:
    """The expected number in each cell, for a field and its chi bins of the same shape."""
    exponent = law.quadratic[bins] * field
    exponent += law.linear[bins]
    exponent *= field
    exponent += law.constant[bins]
    return arrays.exp(exponent)


def _ahead(
    make: Callable[[float], Array], of: Iterable[float], pool: Executor, number: int
) -> Iterator[Array]:
    """make(item) in turn, with up to `number` of the next ones in the making."""
    if not number:
        yield from map(make, of)
        return
    coming: deque[Future[Array]] = deque()
    for item in of:
        coming.append(pool.submit(make, item))
        if len(coming) > number:
            yield coming.popleft().result()
    while coming:
        yield coming.popleft().result()
