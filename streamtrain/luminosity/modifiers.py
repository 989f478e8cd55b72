"""Modifiers of the light of the line: brightness, dimming, blank samples, line width.

The first three are adjustments of log2 L, one after the other in the order of the configuration:
what is brighter than a threshold is shifted. Labels follow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from streamtrain.bins import LuminosityBins
from streamtrain.numerics import portable
from streamtrain.numerics.rng import STAGE_EMIT, Draws
from streamtrain.priors import (
    DistributionConfig,
    Prior,
    check_distribution,
    distribution,
)
from streamtrain.schema import ConfigError, OrderWarning, operator_kind, setting, warn

Float = NDArray[np.float64]

ALL = -3e38
"""Threshold below every log2 L."""
REMOVED = -1000.0
"""Shift of log2 L that leaves nothing in map and label."""
HAPPENS = 60
"""Random element that decides whether a modifier touches a sample."""
MAX_POISSON = 1000
SMALLEST_TERM = 1e-18
"""Probability below which the rounding of the others decides."""


@dataclass(frozen=True)
class Adjusted:
    """An adjustment of B samples."""

    threshold: float
    """The log2 L above which luminosities are shifted, the same for all samples."""
    shift: Float
    """How much log2 L is shifted [B]."""
    record: dict[str, Float]
    """What a sample's record says of it, [B] each."""


class Adjustment(Protocol):
    """A modifier that shifts the luminosities of a sample."""

    @property
    def name(self) -> str:
        """Key of the modifier in the configuration."""

    @property
    def stage(self) -> int:
        """Random stage that the modifier draws from."""

    @property
    def headroom(self) -> float:
        """The largest upward shift of log2 L."""

    def draw(self, draws: Draws) -> Adjusted:
        """The adjustment of the samples of `draws`, which is of `stage`."""


@dataclass(frozen=True)
class ModifierConfig:
    """What the sections of all modifiers have in common."""

    once: ClassVar[bool] = False
    """Whether a configuration can have no more than one."""
    moves_light: ClassVar[bool] = False
    """Whether luminosities change, so that the order with others of that kind matters."""

    def check(self, where: str) -> None:
        """Raise ConfigError for what the types alone do not tell."""

    def adjustment(self, name: str, stage: int, bins: LuminosityBins) -> Adjustment | None:
        """What shifts luminosities, for a label of these bins; None if nothing does."""
        return None


@dataclass(frozen=True)
class BrightnessConfig(ModifierConfig):
    """Every halo brighter or fainter by one factor, in map and label."""

    factor: float | DistributionConfig = setting(
        1.0, "what luminosities are multiplied by, or its distribution"
    )
    poisson_bins: float | None = setting(
        None, "instead: fainter by a number of label bins, drawn with this mean", above=0, high=100
    )
    probability: float = setting(1.0, "share of the samples it happens to", low=0, high=1)
    log_map: bool = setting(
        False, "scale log10(T + 1) of the map instead of T, a mistake of 1905.10376"
    )

    moves_light: ClassVar[bool] = True

    def check(self, where: str) -> None:
        factor = self.factor
        if self.poisson_bins is not None and factor != 1.0:
            raise ConfigError(
                f"{where} has factor and poisson_bins: {where}.poisson_bins=null removes the one, "
                f"{where}.factor=1 the other"
            )
        if not isinstance(factor, DistributionConfig):
            if not 0.0 < factor <= 1000.0:
                raise ConfigError(f"{where}.factor = {factor:g} is outside 0..1000")
            return
        check_distribution(factor, f"{where}.factor")
        if factor.normal is not None:
            ends = factor.low, factor.high
        else:
            ends = factor.uniform or factor.log_uniform or (None, None)
        low, high = ends
        if low is None or high is None or not 0.0 <= low < high <= 1000.0:
            raise ConfigError(
                f"{where}.factor must stay inside 0..1000; a normal needs low and high"
            )

    def adjustment(self, name: str, stage: int, bins: LuminosityBins) -> Brightness:
        """Raises ConfigError for steps of a label bin where bins are not equal."""
        what = "poisson_bins" if self.poisson_bins is not None else "log_map"
        if bins.given is not None and (what == "poisson_bins" or self.log_map):
            raise ConfigError(f"emit.{name}.{what} needs equal luminosity bins, not label.edges")
        bin_dex = (bins.log10_L[1] - bins.log10_L[0]) / bins.num
        return Brightness(name, stage, self, bin_dex * portable.LOG2_10)


@dataclass(frozen=True)
class Brightness:
    """All luminosities times one factor, as `BrightnessConfig`."""

    name: str
    stage: int
    config: BrightnessConfig
    bin_log2: float
    """Width of a label bin in log2 L; for factors of whole bins."""

    @property
    def headroom(self) -> float:
        """Largest upward shift of log2 L, that of the upper end of the factor's distribution."""
        if self.config.poisson_bins is not None:
            return 0.0
        factor = self.config.factor
        if isinstance(factor, DistributionConfig):
            ends = factor.uniform or factor.log_uniform
            factor = ends[1] if ends is not None else float(factor.high or 1.0)
        return max(float(portable.log2(factor)), 0.0)

    def draw(self, draws: Draws) -> Adjusted:
        """Draw the factor of each sample, or its number of label bins."""
        if self.config.poisson_bins is not None:
            shift = -self.bin_log2 * poisson(draws.uniform([0])[:, 0], self.config.poisson_bins)
        else:
            prior = Prior({"factor": distribution(self.config.factor)})
            shift = portable.log2(prior.draw(draws, {"factor": 1.0})["factor"])
        happens = draws.uniform([HAPPENS])[:, 0] < self.config.probability
        shift = np.where(happens, shift, 0.0)
        return Adjusted(ALL, shift, {"factor": portable.exp2(shift)})


@dataclass(frozen=True)
class DimConfig(ModifierConfig):
    """Halos brighter than a luminosity dimmed or removed, in map and label."""

    above_log10_L: float = setting(help="luminosities above this, log10(L/Lsun)", low=-20, high=30)
    factor: float = setting(0.0, "what they are multiplied by; 0 removes them", low=0, high=1)
    probability: float = setting(1.0, "share of the samples it happens to", low=0, high=1)

    moves_light: ClassVar[bool] = True

    def adjustment(self, name: str, stage: int, bins: LuminosityBins) -> Dim:
        return Dim(name, stage, self)


@dataclass(frozen=True)
class Dim:
    """Bright halos dimmed or removed, as `DimConfig`."""

    name: str
    stage: int
    config: DimConfig

    @property
    def headroom(self) -> float:
        """Largest upward shift of log2 L: none, as dimming makes no halo brighter."""
        return 0.0

    def draw(self, draws: Draws) -> Adjusted:
        """Draw which samples are dimmed above the threshold."""
        happens = draws.uniform([HAPPENS])[:, 0] < self.config.probability
        factor = self.config.factor
        shift = REMOVED if factor == 0.0 else float(portable.log2(factor))
        threshold = self.config.above_log10_L * portable.LOG2_10
        record = {"factor": np.where(happens, factor, 1.0)}
        return Adjusted(threshold, np.where(happens, shift, 0.0), record)


@dataclass(frozen=True)
class BlankConfig(ModifierConfig):
    """Samples without any emission: nothing in the map, no halo in the label."""

    probability: float = setting(0.1, "share of the samples", low=0, high=1)

    once: ClassVar[bool] = True

    def adjustment(self, name: str, stage: int, bins: LuminosityBins) -> Blank:
        return Blank(name, stage, self)


@dataclass(frozen=True)
class Blank:
    """Some samples without any emission, as `BlankConfig`."""

    name: str
    stage: int
    config: BlankConfig

    @property
    def headroom(self) -> float:
        """Largest upward shift of log2 L: none, as a blank sample only loses light."""
        return 0.0

    def draw(self, draws: Draws) -> Adjusted:
        """Draw which samples are blank."""
        happens = draws.uniform([HAPPENS])[:, 0] < self.config.probability
        shift = np.where(happens, REMOVED, 0.0)
        return Adjusted(ALL, shift, {"blank": happens.astype(np.float64)})


@dataclass(frozen=True)
class LineWidthConfig(ModifierConfig):
    """Lines as wide as their halos' virial velocity, spread over the channels; the label does not
    change. v = 35 km/s (M / 1e10 Msun)^(1/3) (H(z) / 100 km/s/Mpc)^(1/3) is the full width at half
    maximum (Chung et al. 2021, 2104.11171)."""

    inclination: bool = setting(False, "times sin i / (sqrt(3) / 2), discs at random angles")
    factor: float = setting(1.0, "factor on every width", above=0, high=100)

    once: ClassVar[bool] = True


MODIFIERS: dict[str, type[ModifierConfig]] = {
    "line_width": LineWidthConfig,
    "brightness": BrightnessConfig,
    "dim": DimConfig,
    "blank": BlankConfig,
}
"""The section of every modifier by the name that a configuration gives it."""


@dataclass(frozen=True)
class Adjustments:
    """What the modifiers of one line do to B samples."""

    pairs: NDArray[np.float32]
    """Thresholds and shifts of log2 L, [B, 2 per adjustment]."""
    label_shift: Float
    """Shift of log2 L in the label alone [B]."""
    records: dict[str, dict[str, Float]]
    """What the samples' records say, by the name of the modifier."""

    @classmethod
    def none(cls, size: int) -> Adjustments:
        """Adjustments of `size` samples that change nothing."""
        return cls(np.zeros((size, 0), np.float32), np.zeros(size), {})

    def take(self, samples: NDArray[np.int64]) -> Adjustments:
        """Adjustments of some of the samples, without records."""
        return Adjustments(self.pairs[samples], self.label_shift[samples], {})


@dataclass(frozen=True)
class Modifiers:
    """What changes the light of one line."""

    adjustments: tuple[Adjustment, ...] = ()
    width: LineWidthConfig | None = None
    in_label: tuple[Brightness, ...] = ()
    """Adjustments of the label; the map is changed by an operator of its own."""

    @property
    def headroom(self) -> float:
        """The largest upward shift of log2 L."""
        return sum(adjustment.headroom for adjustment in self.adjustments)

    @property
    def blank(self) -> Modifiers:
        """Modifiers that other lines share: the line width, and that no line shines in a blank
        sample."""
        kept = (a for a in self.adjustments if isinstance(a, Blank))
        return Modifiers(tuple(kept), self.width)

    def source(self, width_column: int) -> str:
        """What kernels/paint.cu is compiled with; nothing without modifiers. width_column: the
        first of the two columns of the line width."""
        text = f"\n#define NUM_ADJUSTMENTS {len(self.adjustments)}\n" if self.adjustments else ""
        if self.width is not None:
            text += f"\n#define LINE_WIDTH {width_column}\n"
            text += "#define LINE_INCLINED\n" if self.width.inclination else ""
        return text

    def drawn(self, draws: Draws) -> tuple[list[Adjusted], list[Adjusted]]:
        """The adjustments of map and label, then those of the label alone, of the samples of
        `draws`, which is of any stage."""
        both, label = (
            [one.draw(draws.of_stage(one.stage)) for one in some]
            for some in (self.adjustments, self.in_label)
        )
        return both, label

    def draw(self, draws: Draws) -> Adjustments:
        """What they do to the samples of `draws`, which is of any stage."""
        size = len(draws.indices)
        both, label = self.drawn(draws)
        pairs = np.zeros((size, 2 * len(both)), np.float32)
        for k, made in enumerate(both):
            pairs[:, 2 * k], pairs[:, 2 * k + 1] = made.threshold, made.shift
        shift = sum((made.shift for made in label), np.zeros(size))
        names = [one.name for one in (*self.adjustments, *self.in_label)]
        records = {n: made.record for n, made in zip(names, [*both, *label], strict=True)}
        return Adjustments(pairs, shift, records)


PLAIN = Modifiers()
"""The light of the model as it is."""


def count_changing(emit: Mapping[str, Any]) -> list[str]:
    """The modifiers of a section `emit` that change how many halos of a luminosity there are."""
    return [
        f"emit.{name}"
        for name, one in emit.items()
        if isinstance(one, BlankConfig) or getattr(one, "moves_light", False)
    ]


def emit_stage(position: int) -> int:
    """First of the four random stages of modifier number `position` of a configuration."""
    return STAGE_EMIT + 4 * position


def build_modifiers(emit: Mapping[str, Any], bins: LuminosityBins) -> Modifiers:
    """The modifiers of a configuration's `emit` section that change the line's light.

    Raises ConfigError for steps of a label bin where bins are not equal.
    """
    adjustments: list[Adjustment] = []
    in_label: list[Brightness] = []
    width = None
    for position, (name, config) in enumerate(emit.items()):
        if isinstance(config, LineWidthConfig):
            width = config
        elif isinstance(config, ModifierConfig):
            adjustment = config.adjustment(name, emit_stage(position), bins)
            if isinstance(adjustment, Brightness) and adjustment.config.log_map:
                in_label.append(adjustment)
            elif adjustment is not None:
                adjustments.append(adjustment)
    return Modifiers(tuple(adjustments), width, tuple(in_label))


def poisson(u: Float, mean: float) -> Float:
    """Poisson numbers [n] from uniforms in (0, 1) by the inverse distribution; the same bits on
    every machine."""
    term = float(portable.exp(-mean))
    total, below = term, list[float]()
    for k in range(1, MAX_POISSON):
        if k > mean and term < SMALLEST_TERM:
            break
        below.append(total)
        term = term * mean / k
        total = total + term
    return np.searchsorted(below, u, side="right").astype(np.float64)


def note_modifier(emit: Mapping[str, Any], name: str) -> None:
    """Warn (OrderWarning) that the modifier `name`, added by a setting, acts after others on whose
    order with it the light depends."""
    kinds = {n: MODIFIERS.get(operator_kind(n), ModifierConfig) for n in emit}
    moving = [n for n, kind in kinds.items() if kind.moves_light]
    if name in moving and moving != [name]:
        warn(f"emit.{name} is new and acts last: {', '.join(emit)}", OrderWarning)
