"""One emission line: the skies whose halos shine in it, where fields of them lie, by which models
they shine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from streamtrain.bins import LuminosityBins
from streamtrain.catalogs.headers import CatalogError
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.settings import DataConfig
from streamtrain.catalogs.sfr import SFRTable
from streamtrain.generator.batch import Column, OfModels, Records
from streamtrain.generator.compiled_model import CompiledModel, num_columns, traced_for
from streamtrain.generator.halos import LINE_BYTES, Bank
from streamtrain.generator.kernel_draws import LineDraws, Stages
from streamtrain.generator.painter import LinePainter, PaintArguments
from streamtrain.generator.pose import Pose, check_fits, draw_poses
from streamtrain.grid import BRIGHTEST_LSUN, Grid
from streamtrain.luminosity.mixture import Mixture
from streamtrain.luminosity.modifiers import Adjustments, Modifiers
from streamtrain.luminosity.settings import LineConfig
from streamtrain.numerics.backend import BackendError
from streamtrain.numerics.rng import Draws
from streamtrain.numerics.workspace import DeviceArrays, Workspace
from streamtrain.operators.pool import Pool
from streamtrain.priors import Condition, NoDrawError, Parameters
from streamtrain.schema import AssumptionWarning, ConfigError, warn

MAX_BRIGHTER_PERCENT = 5.0
"""Halos above the label's luminosities that go without a warning; there may be any number of
fainter ones, as a line has no faint end."""
CHECKED_DRAWS = 64
"""Draws of a prior whose luminosities are looked at before samples are made."""
MOST_OFF = 0.02
"""Error of the halos that `emit.line.require` expects in a field that goes without a warning."""
MASS_TOLERANCE = 1.1
Z_TOLERANCE = 0.01
UNTOLD = 0.01
"""Share of the mass limit, or of the band, by which lightcones may fall short without a warning."""


@dataclass(frozen=True)
class LinePlan:
    """What makes an emission line, whatever lightcones are in use."""

    section: LineConfig
    """The luminosity models and their priors."""
    grid: Grid
    """The grid of the cube with the rest frequency of this line."""
    modifiers: Modifiers
    stages: Stages = Stages()
    exponent: int | None = None
    """The exponent of the fixed-point scale; None: that of the grid."""

    def bytes_per_halo(self) -> int:
        """Memory on the device [bytes] that the line takes for each halo, besides its bank.

        Raises ConfigError or TraceError for a model that cannot be used."""
        models = {id(model): model for model in Mixture(self.section).models}
        traced = [traced_for(model, self.grid) for model in models.values()]
        return LINE_BYTES + 4 * sum(num_columns(one, self.modifiers) for one in traced)


@dataclass(frozen=True)
class Fields:
    """Where the fields of B samples lie."""

    lightcone: NDArray[np.int64]
    """Number of each sample's lightcone [B]."""
    pose: Pose


@dataclass(frozen=True)
class Chosen:
    """Luminosity models and parameters of B samples, where they are not drawn."""

    model: NDArray[np.int64]
    """Number of each sample's luminosity model among those of the mixture [B]."""
    parameters: list[Parameters]
    """For every luminosity model all parameters of its samples, in their order."""


class RedshiftError(CatalogError):
    """A lightcone that does not reach over the band."""


def check_redshifts(lightcone: Lightcone, grid: Grid) -> None:
    """Raise RedshiftError where a lightcone does not reach over the band; warn (AssumptionWarning)
    where it nearly does."""
    low, high = grid.z_range
    have = lightcone.z_range
    if have[0] > low + Z_TOLERANCE or have[1] < high - Z_TOLERANCE:
        raise RedshiftError(
            f"{lightcone.name} holds halos at z = {have[0]:.3f}..{have[1]:.3f}, but the band "
            f"{grid.nu_GHz[0]:g}..{grid.nu_GHz[1]:g} GHz needs z = {low:.3f}..{high:.3f}"
        )
    empty = (max(have[0] - low, 0.0) + max(high - have[1], 0.0)) / (high - low)
    if empty > UNTOLD:
        warn(
            f"{lightcone.name} holds halos at z = {have[0]:.4f}..{have[1]:.4f} of the band's z = "
            f"{low:.4f}..{high:.4f}: {100.0 * empty:.1f} % of the band at its ends stay empty",
            AssumptionWarning,
        )


def check_masses(lightcone: Lightcone, min_mass_Msun: float, where: str) -> None:
    """Raise CatalogError where a lightcone does not reach down to a mass [Msun], which the setting
    `where` asks for; warn (AssumptionWarning) where it nearly does."""
    if lightcone.min_mass_Msun > MASS_TOLERANCE * min_mass_Msun:
        stated = ", or say what it is complete for, from_arrays(min_mass_Msun=...)"
        raise CatalogError(
            f"{lightcone.name} holds halos above {lightcone.min_mass_Msun:.3g} Msun only, but "
            f"{where} = {min_mass_Msun:.3g}: raise it to that{'' if lightcone.path else stated}"
        )
    if lightcone.min_mass_Msun > (1.0 + UNTOLD) * min_mass_Msun:
        warn(
            f"{lightcone.name} holds halos above {lightcone.min_mass_Msun:.4g} Msun, and is taken "
            f"for complete above {where} = {min_mass_Msun:.4g}: lighter ones are missing",
            AssumptionWarning,
        )


class EmissionLine:
    """The halos of the lightcones of a bank in one line, painted into the fields of one grid.

    Raises ConfigError or CatalogError, one sentence each, for what cannot be used.
    """

    def __init__(
        self,
        plan: LinePlan,
        data: DataConfig,
        bank: Bank,
        bins: LuminosityBins,
        pool: Pool | None,
        *,
        sfr: str | SFRTable = "auto",
        compiler_flags: Sequence[str] = (),
    ) -> None:
        self._section, self._data, self.grid = plan.section, data, plan.grid
        self.bank, self.lightcones = bank, bank.lightcones
        self.stages, self.modifiers, grid = plan.stages, plan.modifiers, plan.grid
        self.mixture = Mixture(plan.section)
        for component in self.mixture.components:
            component.model.check_ratio(grid.nu_rest_GHz, component.prior.names)
        for lightcone in self.lightcones:
            self._check(lightcone)
        self.painter = LinePainter(
            self.bank,
            grid,
            self.mixture.models,
            bins,
            min_mass_Msun=data.min_mass_Msun,
            pooling=pool.factor if pool is not None else (1, 1, 1),
            mean=pool.mean if pool is not None else True,
            sfr=sfr,
            modifiers=plan.modifiers,
            exponent=plan.exponent,
            compiler_flags=compiler_flags,
        )
        self._check_halos()
        self._check_held()
        self._check_required()
        self._accept = [self._condition(compiled) for compiled in self.painter.compiled_models]
        self._check_luminosities()
        self._kernel: LineDraws | None = None
        self.why_not = ""
        """Why no kernel draws the same on the device, and NumPy has to."""
        try:
            self._kernel = self._line_draws(compiler_flags)
        except Exception as error:  # whatever a user's functions make of what is no array
            if isinstance(error, BackendError):
                raise
            self.why_not = str(error) or type(error).__name__

    def _line_draws(self, compiler_flags: Sequence[str]) -> LineDraws:
        data = self._data
        return LineDraws(
            self.bank,
            self.painter.compiled_models,
            self.mixture.components,
            self.mixture.upper,
            self.modifiers,
            self._section.require,
            self.stages,
            fov_deg=self.grid.fov_deg,
            roll=data.roll,
            mirror=data.mirror,
            scale=self.painter.scale,
            compiler_flags=compiler_flags,
        )

    def _check(self, lightcone: Lightcone) -> None:
        """Refuse a lightcone that cannot fill the cube."""
        data, grid = self._data, self.grid
        try:
            check_fits(lightcone.footprint_deg, grid.fov_deg, data.roll, lightcone.name)
        except ValueError as error:
            raise CatalogError(str(error)) from None
        check_redshifts(lightcone, grid)
        check_masses(lightcone, data.min_mass_Msun, "data.min_mass_Msun")

    def _check_halos(self) -> None:
        for lightcone, number in zip(self.lightcones, self.painter.halos.num_painted, strict=True):
            if number == 0:
                high, low = self.grid.nu_GHz
                raise CatalogError(
                    f"no halo of {lightcone.name} is left above "
                    f"{self._data.min_mass_Msun:.3g} Msun and inside {high:g}..{low:g} GHz"
                )

    def _condition(self, compiled: CompiledModel) -> Condition:
        """What a draw of a model's parameters must satisfy besides its prior's own conditions."""
        if not self._section.require.asks:
            return compiled.fits
        return lambda parameters: compiled.fits(parameters) & self._enough(compiled, parameters)

    def _enough(self, compiled: CompiledModel, parameters: Parameters) -> NDArray[np.bool_]:
        """Whether parameters are expected to make what `emit.line.require` asks for, [B]."""
        return np.asarray(compiled.expect(parameters).enough(self._section.require))

    def _check_required(self) -> None:
        """Warn (AssumptionWarning) where `emit.line.require` counts halos that fields do not have:
        which samples there are rests on how it does."""
        if not self._section.require.asks:
            return
        found = self.painter.compiled_models[0].expected_over_true
        if abs(found - 1.0) > MOST_OFF:
            warn(
                f"emit.line.require expects {found:.2f} times the halos and the light that fields "
                "have, because the lightcones have footprints of several sizes or far from the "
                f"equator: give {found:.2f} times the limits that are meant",
                AssumptionWarning,
            )

    def _check_held(self) -> None:
        """Refuse a model whose parameters are all held and break what is asked of them."""
        for compiled, component in zip(
            self.painter.compiled_models, self.mixture.components, strict=True
        ):
            if component.prior.varies:
                continue
            values = component.prior.held(component.model.defaults)
            constraint = component.prior.constraint
            broken = (
                "its constraints"
                if constraint is not None and not np.all(constraint(values))
                else ""
            )
            if self._section.require.asks and not self._enough(compiled, values)[0]:
                broken = "emit.line.require"
            if broken:
                raise ConfigError(
                    f"no parameter of {component.name} is drawn, and those it has break {broken}"
                )

    def _check_luminosities(self) -> None:
        """Refuse a model that gives halos no luminosity, by parameters of its prior."""
        draws = Draws(0, "train", np.arange(CHECKED_DRAWS, dtype=np.uint64), self.stages.model)
        for compiled, component, accept in zip(
            self.painter.compiled_models, self.mixture.components, self._accept, strict=True
        ):
            prior, defaults = component.prior, component.model.defaults
            some = draws.take(np.arange(CHECKED_DRAWS if prior.varies else 1))
            taken = prior.first_accepted(some, defaults, accept if prior.varies else None)
            if not len(next(iter(taken.values()), draws.indices)):  # say it if this is why
                taken = prior.first_accepted(some, defaults)
            try:
                compiled.check_luminosities(taken)
            except ValueError as error:
                raise ConfigError(str(error)) from None

    def describe(self, seed: int, split: Any) -> list[str]:
        """A line for each luminosity model, with the share of its prior's draws that are accepted,
        of its light that the mass cut takes, and of the halos that its accepted draws put beyond
        the label's luminosities."""
        indices = np.arange(512, dtype=np.uint64)
        draws = Draws(seed, split, indices, self.stages.model)
        return [self._describe(k, draws) for k in range(len(self.mixture.components))]

    def _describe(self, number: int, draws: Draws) -> str:
        component = self.mixture.components[number]
        compiled = self.painter.compiled_models[number]
        accepted, bright = self.acceptance(number, draws), self._too_bright(number, draws)
        some = draws.take(np.arange(64))
        expected = compiled.expect(self.prior_draws(some, number))
        total = float((expected.inside + expected.below + expected.above).sum())
        below, above = (100 * float(e.sum()) / total for e in (expected.below, expected.above))
        above = above if above > 1e-4 else 0.0
        kept = self.painter.kept_light[number]
        dark = ""
        if kept is not None and kept < 0.995:
            dark = f", {100 * (1 - kept):.0f} % of its light is below the mass cut"
        several = len(self.mixture.components) > 1
        share = f", {100 * self.mixture.share(number):.0f} % of the samples" if several else ""
        drawn = f"{100 * accepted:.0f} % of its draws accepted"
        if bright >= 0.005:
            drawn += f" ({100 * bright:.0f} % have {self._no_room})"
        if not component.prior.varies:
            drawn = "which draws no parameter: its samples differ by sky and scatter alone"
        warning = ""
        if above > MAX_BRIGHTER_PERCENT:
            warning = f" (warning: more than {MAX_BRIGHTER_PERCENT:g} % are outside the label)"
        return (
            f"{component.name}: prior '{component.prior_name}'{share}, {drawn}{dark}; "
            f"{below:.1f} % of the halos are fainter than the label's luminosities, "
            f"{above:.2g} % brighter{warning}"
        )

    @property
    def _no_room(self) -> str:
        """What is wrong with a draw that only the cube's fixed-point range refuses."""
        brightest = self.grid.brightest_Lsun or BRIGHTEST_LSUN
        return (
            "halos too bright for the cube's fixed-point range: grid.brightest_Lsun makes room "
            f"for more than {brightest:g} Lsun"
        )

    def _too_bright(self, number: int, draws: Draws) -> float:
        """Share of the draws from a model's prior that only the cube's fixed-point range refuses;
        arguments as in `acceptance`."""
        component = self.mixture.components[number]
        if not component.prior.varies:
            return 0.0
        possible = component.prior.first_accepted(draws, component.model.defaults)
        bright = self.painter.compiled_models[number].too_bright(possible)
        return float(bright.sum()) / len(draws.indices)

    def _why_none(self, error: NoDrawError, draws: Draws, numbers: Sequence[int]) -> ValueError:
        """The error where no draw of one of these models is accepted, with its cause. draws: of
        the stage of the model's parameters."""
        some = draws.take(np.arange(min(len(draws.indices), CHECKED_DRAWS)))
        for number in numbers:
            if self._too_bright(number, some) > 0.5:
                name = self.mixture.components[number].name
                text = str(error).partition(":")[0]
                return ConfigError(f"{name}: {text}: they have {self._no_room}")
        return error

    def acceptance(self, number: int, draws: Draws) -> float:
        """Share of the draws from a model's prior that are accepted. draws: of the samples of
        which the first attempts are looked at, of the stage of the model's parameters."""
        component = self.mixture.components[number]
        return component.prior.acceptance(draws, component.model.defaults, self._accept[number])

    def identity(self) -> dict[str, Any]:
        """What decides samples besides the configuration: digests of lightcones and models."""
        texts = [
            f"{compiled.traced.identity()}\n{component.identity()}"
            for compiled, component in zip(
                self.painter.compiled_models, self.mixture.components, strict=True
            )
        ]
        model = hashlib.sha256("\0".join(texts).encode()).hexdigest()
        return {"lightcones": [c.digest for c in self.lightcones], "model": model}

    def enough(self, parameters: Parameters) -> NDArray[np.bool_]:
        """Whether parameters of the first luminosity model are expected to make what
        `emit.line.require` asks for, [B]."""
        if not self._section.require.asks:
            return np.ones(len(next(iter(parameters.values()))), bool)
        return self._enough(self.painter.compiled_models[0], parameters)

    def fields(self, draws: Draws, lightcone: NDArray[np.int64] | None = None) -> Fields:
        """Where the fields of the samples of `draws` (of any stage) lie. lightcone: numbers of the
        lightcones that they are cut from [B]; None: drawn too."""
        draws = draws.of_stage(self.stages.pose)
        if lightcone is None:
            cones = len(self.lightcones)
            uniform = draws.uniform([0])[:, 0]
            lightcone = np.minimum(np.floor(uniform * cones), cones - 1).astype(np.int64)
        footprints = self.bank.footprints[lightcone]
        data = self._data
        pose = draw_poses(draws, footprints, self.grid.fov_deg, data.roll, data.mirror)
        return Fields(lightcone, pose)

    def choose(self, draws: Draws) -> Chosen:
        """Model and parameters of B samples, drawn from the prior. draws: of any stage."""
        choice = self.mixture.choose(draws.of_stage(self.stages.mixture))
        model = draws.of_stage(self.stages.model)
        try:
            return Chosen(choice, self.mixture.draw(model, choice, self._accept))
        except NoDrawError as error:
            raise self._why_none(error, model, range(len(self._accept))) from None

    def prior_draws(self, draws: Draws, number: int = 0) -> Parameters:
        """All parameters of a luminosity model, drawn from its prior, [B] each; number: of the
        model. draws: of any stage."""
        component = self.mixture.components[number]
        model = draws.of_stage(self.stages.model)
        try:
            return component.prior.draw(model, component.model.defaults, self._accept[number])
        except NoDrawError as error:
            raise self._why_none(error, model, [number]) from None

    def accepts(self, parameters: Parameters, number: int = 0) -> NDArray[np.bool_]:
        """Whether a draw of all parameters would be accepted, [B]: by the constraints of the prior,
        the range of the cube and `emit.line.require`; number: of the luminosity model."""
        constraint = self.mixture.components[number].prior.constraint
        accepted = self._accept[number](parameters)
        return accepted if constraint is None else accepted & constraint(parameters)

    def draw(
        self,
        draws: Draws,
        fields: Fields,
        adjustments: Adjustments,
        chosen: Chosen | None = None,
    ) -> tuple[PaintArguments, Records]:
        """Model and parameters of B samples: what the painter needs, and a record per sample.

        draws: of any stage; adjustments: of its modifiers; chosen: model and parameters, None:
        those are drawn too.
        """
        chosen = chosen or self.choose(draws)
        choice, parameters = chosen.model, chosen.parameters
        arguments = self.painter.arguments(
            fields.lightcone,
            fields.pose,
            choice,
            parameters,
            adjustments,
            draws=draws.of_stage(self.stages.paint),
        )
        return arguments, self._records(fields, choice, parameters)

    def draw_on_device(
        self,
        index: torch.Tensor,
        seed: torch.Tensor,
        counts: torch.Tensor,
        memory: Workspace,
        name: str,
    ) -> DeviceArrays:
        """What `draw` gives the painter, of global indices on the device, drawn there; see
        `LineDraws.draw`."""
        assert self._kernel is not None, self.why_not
        return self._kernel.draw(index, seed, counts, memory, name)

    @property
    def drawn_with(self) -> list[torch.Tensor]:
        """What `draw_on_device` reads of the lightcones and models, on the device."""
        return [] if self._kernel is None else self._kernel.arrays

    def part(self, arrays: DeviceArrays, first: int, last: int) -> DeviceArrays:
        """The arrays of samples first..last-1 of those that `draw_on_device` made."""
        assert self._kernel is not None, self.why_not
        return self._kernel.part(arrays, first, last)

    def _records(
        self, fields: Fields, choice: NDArray[np.int64], parameters: list[Parameters]
    ) -> Records:
        names, cones = self.mixture.names, [c.name for c in self.lightcones]
        pose = fields.pose
        columns: dict[str, Column] = {
            "lightcone": [cones[number] for number in fields.lightcone.tolist()],
            "centre_deg": pose.centre_deg,
            "roll_deg": pose.roll_deg,
            "mirror": pose.mirror,
            "model": [names[model] for model in choice.tolist()],
            "parameters": OfModels(choice, parameters),
        }
        return Records(columns, range(len(choice)))
