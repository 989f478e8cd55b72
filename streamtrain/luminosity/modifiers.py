"""Emitters that change the light of the line: brightness, dimming, blank samples, line width.

The first three are adjustments of log2 L, one after the other in the order of the configuration:
what is brighter than a threshold is shifted. Labels follow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamtrain.labels import LuminosityBins
from streamtrain.luminosity.priors import Prior, distribution
from streamtrain.luminosity.settings import (
    BlankConfig,
    BrightnessConfig,
    DimConfig,
    DistributionConfig,
    LineWidthConfig,
)
from streamtrain.numerics import portable
from streamtrain.numerics.rng import STAGE_EMIT, Draws
from streamtrain.schema import ConfigError

Float = NDArray[np.float64]

ALL = -3e38
"""Threshold below every log2 L."""
REMOVED = -1000.0
"""Shift of log2 L that leaves nothing in map and label."""
HAPPENS = 60
"""Random element that decides whether an emitter touches a sample."""
MAX_POISSON = 1000
SMALLEST_TERM = 1e-18
"""Probability below which the rounding of the others decides."""


@dataclass(frozen=True)
class Adjusted:
    """An adjustment of B samples: thresholds and shifts of log2 L [B]."""

    threshold: Float
    shift: Float
    record: dict[str, Float]
    """What a sample's record says of it, [B] each."""


class Adjustment(Protocol):
    """What shifts the luminosities of a sample."""

    @property
    def name(self) -> str:
        """Its key in the configuration."""

    @property
    def stage(self) -> int:
        """Its random stage."""

    @property
    def headroom(self) -> float:
        """The largest upward shift of log2 L."""

    def draw(self, draws: Draws) -> Adjusted:
        """The adjustment of the samples of `draws`, which is of `stage`."""


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
        if self.config.poisson_bins is not None:
            return 0.0
        factor = self.config.factor
        if isinstance(factor, DistributionConfig):
            ends = factor.uniform or factor.log_uniform
            factor = ends[1] if ends is not None else float(factor.high or 1.0)
        return max(float(portable.log2(factor)), 0.0)

    def draw(self, draws: Draws) -> Adjusted:
        size = len(draws.indices)
        if self.config.poisson_bins is not None:
            bins = poisson(draws.uniform([0])[:, 0], np.full(size, self.config.poisson_bins))
            shift = -self.bin_log2 * bins
        else:
            prior = Prior({"factor": distribution(self.config.factor)})
            shift = portable.log2(prior.draw(draws, {"factor": 1.0})["factor"])
        happens = draws.uniform([HAPPENS])[:, 0] < self.config.probability
        shift = np.where(happens, shift, 0.0)
        return Adjusted(np.full(size, ALL), shift, {"factor": portable.exp2(shift)})


@dataclass(frozen=True)
class Dim:
    """Bright halos dimmed or removed, as `DimConfig`."""

    name: str
    stage: int
    config: DimConfig

    @property
    def headroom(self) -> float:
        return 0.0

    def draw(self, draws: Draws) -> Adjusted:
        happens = draws.uniform([HAPPENS])[:, 0] < self.config.probability
        factor = self.config.factor
        shift = REMOVED if factor == 0.0 else float(portable.log2(factor))
        threshold = np.full(len(happens), self.config.above_log10_L * portable.LOG2_10)
        record = {"factor": np.where(happens, factor, 1.0)}
        return Adjusted(threshold, np.where(happens, shift, 0.0), record)


@dataclass(frozen=True)
class Blank:
    """Some samples without any emission, as `BlankConfig`."""

    name: str
    stage: int
    config: BlankConfig

    @property
    def headroom(self) -> float:
        return 0.0

    def draw(self, draws: Draws) -> Adjusted:
        happens = draws.uniform([HAPPENS])[:, 0] < self.config.probability
        shift = np.where(happens, REMOVED, 0.0)
        return Adjusted(np.full(len(shift), ALL), shift, {"blank": happens.astype(np.float64)})


@dataclass(frozen=True)
class Adjustments:
    """What the emitters of one line do to B samples."""

    pairs: NDArray[np.float32]
    """Thresholds and shifts of log2 L, [B, 2 per adjustment]."""
    label_shift: Float
    """Shift of log2 L in the label alone [B]."""
    records: dict[str, dict[str, Float]]
    """What the samples' records say, by the name of the emitter."""

    @classmethod
    def none(cls, size: int) -> Adjustments:
        """Of B = `size` samples without emitters."""
        return cls(np.zeros((size, 0), np.float32), np.zeros(size), {})

    def take(self, samples: NDArray[np.int64]) -> Adjustments:
        """Those of some of the samples; without records."""
        return Adjustments(self.pairs[samples], self.label_shift[samples], {})


@dataclass(frozen=True)
class Emitters:
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
    def blank(self) -> Emitters:
        """Those that other lines share: none of them shines in a blank sample."""
        kept = (a for a in self.adjustments if isinstance(a, Blank))
        return Emitters(tuple(kept), self.width)

    def source(self, width_column: int) -> str:
        """What kernels/paint.cu is compiled with; nothing without emitters. width_column: the
        first of the two columns of the line width."""
        text = f"\n#define NUM_ADJUSTMENTS {len(self.adjustments)}\n" if self.adjustments else ""
        if self.width is not None:
            text += f"\n#define LINE_WIDTH {width_column}\n"
            text += "#define LINE_INCLINED\n" if self.width.inclination else ""
        return text

    def draw(self, draws: Draws) -> Adjustments:
        """What they do to the samples of `draws`, which is of any stage."""
        size = len(draws.indices)
        pairs = np.zeros((size, 2 * len(self.adjustments)), np.float32)
        shift, records = np.zeros(size), {}
        for k, adjustment in enumerate(self.adjustments):
            made = adjustment.draw(draws.of_stage(adjustment.stage))
            pairs[:, 2 * k], pairs[:, 2 * k + 1] = made.threshold, made.shift
            records[adjustment.name] = made.record
        for brightness in self.in_label:
            made = brightness.draw(draws.of_stage(brightness.stage))
            shift = shift + made.shift
            records[brightness.name] = made.record
        return Adjustments(pairs, shift, records)


PLAIN = Emitters()
"""The light of the model as it is."""


def emit_stage(position: int) -> int:
    """First of the four random stages of emitter number `position` of a configuration."""
    return STAGE_EMIT + 4 * position


def build_emitters(emit: Mapping[str, Any], bins: LuminosityBins) -> Emitters:
    """The emitters of a configuration's `emit` section that change the line's light.

    Raises ConfigError for steps of a label bin where bins are not equal.
    """
    adjustments: list[Adjustment] = []
    in_label: list[Brightness] = []
    width = None
    for position, (name, config) in enumerate(emit.items()):
        stage = emit_stage(position)
        if isinstance(config, BrightnessConfig):
            what = "poisson_bins" if config.poisson_bins is not None else "log_map"
            if bins.given is not None and (what == "poisson_bins" or config.log_map):
                raise ConfigError(
                    f"emit.{name}.{what} needs equal luminosity bins, not label.edges"
                )
            bin_dex = (bins.log10_L[1] - bins.log10_L[0]) / bins.num
            brightness = Brightness(name, stage, config, bin_dex * portable.LOG2_10)
            (in_label if config.log_map else adjustments).append(brightness)
        elif isinstance(config, DimConfig):
            adjustments.append(Dim(name, stage, config))
        elif isinstance(config, BlankConfig):
            adjustments.append(Blank(name, stage, config))
        elif isinstance(config, LineWidthConfig):
            width = config
    return Emitters(tuple(adjustments), width, tuple(in_label))


def poisson(u: Float, mean: Float) -> Float:
    """Poisson numbers [n] from uniforms in (0, 1) by the inverse distribution; the same bits on
    every machine."""
    term = portable.exp(-mean)
    below = term.copy()
    number = np.zeros_like(u)
    for k in range(1, MAX_POISSON):
        more = u >= below
        if not more.any() or np.all((k > mean) & (term < SMALLEST_TERM)):
            break
        number = np.where(more, float(k), number)
        term = term * mean / k
        below = below + term
    return number
