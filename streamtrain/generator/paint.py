"""Maps of one lightcone, without a configuration: `paint` for one, a `Painter` for many; what both
return is `Painted`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from streamtrain.arguments import all_numbers, number, ra_dec, truth_value, whole_number
from streamtrain.bins import SMALLEST_BIN_DEX, Counts, LuminosityBins
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.sfr import sfr_source
from streamtrain.generator.halos import Bank
from streamtrain.generator.line import check_masses, check_redshifts
from streamtrain.generator.painter import LinePainter, PaintArguments
from streamtrain.generator.pose import Pose, check_covers, single_pose
from streamtrain.grid import Grid
from streamtrain.luminosity.model import ModelFunction
from streamtrain.luminosity.registry import find_model
from streamtrain.maps.write import write_fits
from streamtrain.numerics.backend import kernels_for
from streamtrain.numerics.rng import STAGE_PAINT, Draws


class Painted(tuple[torch.Tensor, torch.Tensor]):
    """A map and its halos per luminosity bin, as a pair: `cube, counts = paint(...)`.

    It also says what they are: `counts` against `bin_edges` is the luminosity function, and
    `write_fits` knows where the voxels lie. With B sets of parameters it holds B maps.

    >>> from streamtrain import Grid, Lightcone, paint
    >>> sky = Lightcone.open("reference_0000.h5")
    >>> painted = paint(sky, Grid(fov_deg=(0.35, 0.35), shape=(10, 32, 32)), "li16",
    ...                 min_mass_Msun=5e10)
    >>> painted
    Painted(li16 in reference_0000.h5, cube [10, 32, 32] in uK, 18765 halos in 49 bins)
    >>> painted.bin_edges[:3]  # log10 L/Lsun; plt.stairs(painted.counts, painted.bin_edges)
    array([3.5       , 3.57142857, 3.64285714])
    >>> painted.write_fits("painted.fits")
    PosixPath('painted.fits')
    """

    grid: Grid
    """The voxels, with the units of the cube."""
    bin_edges: NDArray[np.float64]
    """Edges of the luminosity bins, log10(L/Lsun) [n_bins + 1]."""
    about: dict[str, Any]
    """What the map was made of: lightcone, model, parameters (a list where several were given),
    seed, centre_deg, roll_deg, mirror."""

    def __new__(
        cls,
        cube: torch.Tensor,
        counts: torch.Tensor,
        grid: Grid,
        bin_edges: NDArray[np.float64],
        about: dict[str, Any],
    ) -> Painted:
        """Together what a painter has made."""
        made = super().__new__(cls, (cube, counts))
        made.grid, made.bin_edges, made.about = grid, bin_edges, about
        return made

    def __reduce__(self) -> Any:
        return Painted, (*self, self.grid, self.bin_edges, self.about)

    @property
    def cube(self) -> torch.Tensor:
        """The map, float32 [n_freq, n_dec, n_ra], after an axis of B for a list of parameters."""
        return self[0]

    @property
    def counts(self) -> torch.Tensor:
        """Halos per luminosity bin, int32 [n_bins], after an axis of B for a list of parameters."""
        return self[1]

    def write_fits(
        self, path: str | Path, number: int | None = None, *, overwrite: bool = False
    ) -> Path:
        """Write the map as a FITS file, see `streamtrain.write_fits`. number: which of several."""
        cube, about = self.cube, dict(self.about)
        if cube.ndim == 4:
            if number is None:
                raise ValueError(f"there are {len(cube)} maps: write_fits(path, number) writes one")
            chosen = whole_number(number, "number")
            if not 0 <= chosen < len(cube):
                raise ValueError(f"number = {chosen} is outside 0..{len(cube) - 1}")
            cube, about["parameters"] = cube[chosen], about["parameters"][chosen]
        elif number is not None:
            raise ValueError(f"there is one map: number = {number!r} is of several")
        pose = {name: about[name] for name in ("centre_deg", "roll_deg", "mirror")}
        return write_fits(path, cube, self.grid, **pose, about=about, overwrite=overwrite)

    def __repr__(self) -> str:
        halos = int(self.counts.sum())
        return (
            f"Painted({self.about['model']} in {self.about['lightcone']}, cube "
            f"{list(self.cube.shape)} in {self.grid.units}, {halos} halos in "
            f"{len(self.bin_edges) - 1} bins)"
        )


def paint(
    lightcone: Lightcone | str | Path,
    grid: Grid,
    model: str | ModelFunction,
    parameters: Mapping[str, float] | Sequence[Mapping[str, float] | None] | None = None,
    scatter: bool | Literal["mean", "median"] = True,
    seed: int = 0,
    roll_deg: float = 0.0,
    mirror: bool = False,
    centre_deg: tuple[float, float] = (0.0, 0.0),
    min_mass_Msun: float = 2.5e10,
    units: Literal["uK", "Jy/sr"] | None = None,
    device: torch.device | str = "cpu",
    sfr: str = "auto",
    allow_empty: bool = False,
    bin_edges: ArrayLike | None = None,
) -> Painted:
    """Paint the halos of a lightcone into an intensity cube.

    lightcone: one that is open, or its file. model: the name of a published model, or a function of
    (mass_Msun, z, *, parameters=defaults) that returns L [Lsun]; `parameters` replace its defaults,
    and a list of them makes as many maps (see `Painter.paint`). The field lies at `centre_deg` (ra,
    dec), rolled about its centre, then mirrored. Halos must be above `min_mass_Msun`, down to which
    the lightcone must be complete. `sfr` is where star-formation rates come from: "auto" (the
    lightcone's column if it has one, else the fit), "fit", "fit_in_range" (no star formation beyond
    the fitted table), "column", or the path of a table (see `SFRTable`). allow_empty: also paint a
    field or a band that the lightcone does not reach over; where it does not, the cube is empty.
    bin_edges: log10(L / Lsun) [n_bins + 1] between which halos are counted, 49 bins from 3.5 to 7
    if not given, which suit CO; for [CII] np.linspace(6, 9.5, 36), say. Angles and the mass may
    have units of astropy. A `Painter` makes further maps of the same lightcone, grid and model much
    faster.

    Returns the cube, float32 [n_freq, n_dec, n_ra] in `units` (default: the grid's), frequency 0
    the highest, and the halos per bin, int32 [n_bins]: a pair, which also has the edges of the bins
    (see `Painted`). Halos beyond the bins are in the cube and not in the counts. The scatter is a
    function of the seed and of the halo's row. Raises ValueError, one sentence, for an argument
    that cannot be used, for a halo whose L is negative or no number, and when no halo is left.

    >>> from streamtrain import Grid, Lightcone, paint
    >>> sky = Lightcone.open("reference_0000.h5")
    >>> grid = Grid(fov_deg=(0.35, 0.35), shape=(20, 64, 64))
    >>> cube, counts = paint(sky, grid, "li16", {"alpha": 1.3}, seed=7, min_mass_Msun=5e10)
    >>> cube.shape, int(counts.sum()) > 1000
    (torch.Size([20, 64, 64]), True)
    """
    painter = Painter(
        lightcone,
        grid,
        model,
        scatter=scatter,
        min_mass_Msun=min_mass_Msun,
        units=units,
        device=device,
        sfr=sfr,
        bin_edges=bin_edges,
    )
    return painter.paint(
        parameters,
        seed=seed,
        roll_deg=roll_deg,
        mirror=mirror,
        centre_deg=centre_deg,
        allow_empty=allow_empty,
        check_all=True,
    )


def _bins_between(edges: ArrayLike) -> LuminosityBins:
    """Bins between edges as a caller gives them. Raises ValueError, one sentence."""
    values = all_numbers(edges, "bin_edges")
    if values.ndim != 1 or not 2 <= len(values) <= 1001:
        raise ValueError(f"bin_edges must be 2 to 1001 numbers, not of shape {values.shape}")
    if not (np.diff(values) >= SMALLEST_BIN_DEX).all() or not (np.abs(values) <= 40.0).all():
        raise ValueError(
            "bin_edges must increase, from -40 to 40 at most: they are log10(L / Lsun), not "
            f"{values[0]:.6g} .. {values[-1]:.6g}"
        )
    return LuminosityBins.between(values.tolist())


class Painter:
    """A lightcone made ready to be painted into one grid by one luminosity model, again and again.

    lightcone, grid, model, scatter, min_mass_Msun, units, device, sfr, bin_edges: as for `paint`.
    What these decide is computed once; `paint` of a painter takes what varies from map to map.
    Raises ValueError, one sentence, for an argument that cannot be used.

    >>> from streamtrain import Grid, Painter
    >>> grid = Grid(fov_deg=(0.35, 0.35), shape=(20, 64, 64))
    >>> painter = Painter("reference_0000.h5", grid, "li16", min_mass_Msun=5e10)
    >>> cubes, counts = painter.paint([{"alpha": 1.2}, {"alpha": 1.4}], seed=7)
    >>> cubes.shape, counts.shape
    (torch.Size([2, 20, 64, 64]), torch.Size([2, 49]))
    """

    def __init__(
        self,
        lightcone: Lightcone | str | Path,
        grid: Grid,
        model: str | ModelFunction,
        *,
        scatter: bool | Literal["mean", "median"] = True,
        min_mass_Msun: float = 2.5e10,
        units: Literal["uK", "Jy/sr"] | None = None,
        device: torch.device | str = "cpu",
        sfr: str = "auto",
        bin_edges: ArrayLike | None = None,
    ) -> None:
        if isinstance(lightcone, str | Path):
            lightcone = Lightcone.open(lightcone)
        if not isinstance(lightcone, Lightcone):
            raise ValueError(
                "paint needs a Lightcone, or the name of its file, not a "
                f"{type(lightcone).__name__}"
            )
        if not isinstance(grid, Grid):
            raise ValueError(f"paint needs a Grid, not a {type(grid).__name__}")
        self.lightcone = lightcone
        self.grid = replace(grid, units=grid.units if units is None else units)
        self._model = find_model(model).with_scatter(scatter)
        self._model.check_line(grid.nu_rest_GHz)
        self.min_mass_Msun = number(min_mass_Msun, "min_mass_Msun", "Msun")
        if self.min_mass_Msun <= 0.0:
            raise ValueError(f"min_mass_Msun = {self.min_mass_Msun:g} must be above 0")
        check_masses(lightcone, self.min_mass_Msun, "min_mass_Msun")
        self._bins = LuminosityBins() if bin_edges is None else _bins_between(bin_edges)
        self._painter = LinePainter(
            Bank([lightcone], device),
            self.grid,
            [self._model],
            self._bins,
            min_mass_Msun=self.min_mass_Msun,
            sfr=sfr_source(sfr),
        )
        self._observe = kernels_for(self._painter.device, "observe.cu")

    def __repr__(self) -> str:
        return f"Painter({self._model.name}, {self.lightcone.name}, {self.grid})"

    @property
    def parameters(self) -> dict[str, float]:
        """The model's parameters with their defaults."""
        return dict(self._model.defaults)

    @property
    def bin_edges(self) -> NDArray[np.float64]:
        """Edges of the luminosity bins, log10(L / Lsun) [n_bins + 1]."""
        return self._bins.edges

    def paint(
        self,
        parameters: Mapping[str, float] | Sequence[Mapping[str, float] | None] | None = None,
        *,
        seed: int = 0,
        roll_deg: float = 0.0,
        mirror: bool = False,
        centre_deg: tuple[float, float] = (0.0, 0.0),
        allow_empty: bool = False,
        check_all: bool = False,
    ) -> Painted:
        """Paint one map, or one for each of several sets of parameters.

        parameters, seed, roll_deg, mirror, centre_deg, allow_empty: as for `paint`. A list of B
        sets makes B maps of the same halos with the same random numbers for the scatter. check_all:
        look at the luminosity of every halo of the field before it is painted, as `paint` does;
        else at those of a halo in each of 96 ranges of mass, as a `Generator` does.

        Returns the cube, float32 [n_freq, n_dec, n_ra], and the halos per bin, int32 [n_bins], with
        a leading axis of B for a list, see `Painted`. The same arguments make the same bits as
        `paint`. Raises ValueError, one sentence, as `paint`.
        """
        several = isinstance(parameters, Sequence) and not isinstance(parameters, str)
        sets: list[Any] = list(parameters) if several else [parameters]  # type: ignore[arg-type]
        if not sets:
            raise ValueError("parameters = [] holds no set of parameters")
        turned: dict[str, Any] = {
            "centre_deg": ra_dec(centre_deg, "centre_deg"),
            "roll_deg": number(roll_deg, "roll_deg", "deg"),
            "mirror": truth_value(mirror, "mirror"),
        }
        pose = single_pose(**turned)
        if not truth_value(allow_empty, "allow_empty"):
            self._check_full(pose)
        check_all = truth_value(check_all, "check_all")
        chosen = [self._values(one) for one in sets]
        cubes, counts = self._painted(self._arguments(chosen, pose, seed, check_all), pose)
        about = {
            "lightcone": self.lightcone.name,
            "model": self._model.name,
            "parameters": chosen if several else chosen[0],
            "seed": seed,
            **turned,
        }
        made = (cubes, counts) if several else (cubes[0], counts[0])
        return Painted(*made, self.grid, self.bin_edges, about)

    def _values(self, given: Mapping[str, float] | None) -> dict[str, float]:
        """A set of parameters, checked."""
        model, given = self._model, {} if given is None else given
        chosen = model.parameters(given)
        model.check_ratio(self.grid.nu_rest_GHz, given)
        return model.parameters({k: number(v, f"the parameter {k}") for k, v in chosen.items()})

    def _arguments(
        self, chosen: Sequence[Mapping[str, float]], pose: Pose, seed: int, check_all: bool
    ) -> PaintArguments:
        """What the kernel needs for sets of parameters at one pose."""
        values = {name: np.array([one[name] for one in chosen]) for name in chosen[0]}
        size = len(chosen)
        arguments = self._painter.arguments(
            np.zeros(size, np.int64),
            pose.repeated(size),
            np.zeros(size, np.int64),
            [values],
            draws=Draws(seed, "train", np.zeros(size, np.uint64), STAGE_PAINT),
        )
        rows = None
        if check_all:
            first = arguments.items[: arguments.item_start[1]]
            rows = self._painter.halos.rows_of(first)
        self._painter.compiled_models[0].check_luminosities(values, rows)
        return arguments

    def _painted(self, arguments: PaintArguments, pose: Pose) -> tuple[torch.Tensor, torch.Tensor]:
        """Cubes and counts of all that the arguments are for."""
        total, raw = self._painter.paint(arguments, 0, len(arguments))
        counts = Counts(raw)
        if not int(counts.halos.min()):
            lightcone, grid = self.lightcone, self.grid
            raise ValueError(
                f"no halo of {lightcone.name} is left above {self.min_mass_Msun:.3g} Msun, inside "
                f"{grid.nu_GHz[0]:g}..{grid.nu_GHz[1]:g} GHz and inside the field at "
                f"{tuple(pose.centre_deg[0].tolist())} deg (its heaviest has "
                f"{lightcone.mass_Msun.max():.6g} Msun; a halo at the limit does not count)"
            )
        if saturated := int(counts.saturated.sum()):
            raise ValueError(
                f"{saturated} halos are too bright for the cube's fixed-point range "
                "(brightest_Lsun of the grid makes room for more than 1e9 Lsun)"
            )
        cube = torch.empty(total.shape, dtype=torch.float32, device=total.device)
        self._observe.elementwise(
            "from_fixed_point",
            len(total),
            total[0].numel(),
            np.float64(self._painter.unit),
            total,
            cube,
        )
        if not bool(torch.isfinite(cube).all()):
            raise ValueError(f"voxels are brighter than float32 holds in {self.grid.units}")
        return cube, counts.bins.clone()

    def _check_full(self, pose: Pose) -> None:
        """ValueError where the lightcone leaves a part of the cube empty."""
        lightcone, grid = self.lightcone, self.grid
        try:
            check_covers(lightcone.footprint_deg, pose, grid.fov_deg, lightcone.name)
            check_redshifts(lightcone, grid)
        except ValueError as error:
            raise ValueError(f"{error}; allow_empty=True leaves the rest empty") from None
