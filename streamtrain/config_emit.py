"""The section `emit` of a configuration: what shines, and how it differs from its model."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from streamtrain.config_line import (
    DistributionConfig,
    LineConfig,
    ModelConfig,
    check_distribution,
    check_line,
    check_model,
)
from streamtrain.config_observe import OrderWarning, operator_kind
from streamtrain.schema import ConfigError, setting


@dataclass(frozen=True)
class BrightnessConfig:
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


@dataclass(frozen=True)
class DimConfig:
    """Halos brighter than a luminosity dimmed or removed, in map and label."""

    above_log10_L: float = setting(help="luminosities above this, log10(L/Lsun)", low=-20, high=30)
    factor: float = setting(0.0, "what they are multiplied by; 0 removes them", low=0, high=1)
    probability: float = setting(1.0, "share of the samples it happens to", low=0, high=1)


@dataclass(frozen=True)
class BlankConfig:
    """Samples without any emission: nothing in the map, no halo in the label."""

    probability: float = setting(0.1, "share of the samples", low=0, high=1)


@dataclass(frozen=True)
class LineWidthConfig:
    """Lines as wide as their halos' virial velocity, spread over the channels; the label does not
    change. v = 35 km/s (M / 1e10 Msun)^(1/3) (H(z) / 100 km/s/Mpc)^(1/3) is the full width at half
    maximum (Chung et al. 2021, 2104.11171)."""

    inclination: bool = setting(False, "times sin i / (sqrt(3) / 2), discs at random angles")
    factor: float = setting(1.0, "factor on every width", above=0, high=100)


@dataclass(frozen=True)
class InterloperConfig(ModelConfig):
    """Another line, of halos at the redshifts where it falls in the same band; in the map alone."""

    nu_rest_GHz: float = setting(115.27, "its rest frequency [GHz]", above=0)
    train: list[str] = setting([], "its own lightcones; default: those of the line")
    validation: list[str] = setting([], "likewise")
    test: list[str] = setting([], "likewise")

    @property
    def line(self) -> LineConfig:
        """Its model, as the section of a line."""
        return LineConfig(**{f.name: getattr(self, f.name) for f in fields(ModelConfig)})


EMIT: dict[str, Any] = {
    "line": LineConfig,
    "line_width": LineWidthConfig,
    "brightness": BrightnessConfig,
    "dim": DimConfig,
    "blank": BlankConfig,
    "interloper": InterloperConfig,
}
"""The section of each emitter."""
ONCE = (LineConfig, LineWidthConfig, BlankConfig)
"""Emitters that a configuration can have one of."""


def note_emitter(emit: Mapping[str, Any], name: str) -> None:
    """Warn (OrderWarning) that the emitter `name`, added by a setting, acts after others on whose
    order with it the light depends."""
    changing = ("brightness", "dim")
    if operator_kind(name) in changing and any(
        operator_kind(n) in changing for n in emit if n != name
    ):
        warnings.warn(
            f"emit.{name} is new and acts last: {', '.join(emit)}", OrderWarning, stacklevel=2
        )


def check_emit(emit: Mapping[str, Any], nu_GHz: tuple[float, float]) -> None:
    """Raise ConfigError for what the types alone do not tell. nu_GHz: the band."""
    if "line" not in emit:
        raise ConfigError("emit needs one entry 'line', the luminosity model")
    if next(iter(emit)) != "line":
        raise ConfigError("emit must begin with 'line', the luminosity model")
    for kind in ONCE:
        names = [name for name, section in emit.items() if isinstance(section, kind)]
        if len(names) > 1:
            raise ConfigError(f"emit.{names[1]}: there is emit.{names[0]} already")
    _check_log_map(emit)
    check_line(emit["line"])
    for name, section in emit.items():
        where = f"emit.{name}"
        if isinstance(section, BrightnessConfig):
            _check_brightness(section, where)
        if isinstance(section, InterloperConfig):
            check_model(section, where)
            if nu_GHz[0] >= section.nu_rest_GHz:
                raise ConfigError(
                    f"{where}.nu_rest_GHz = {section.nu_rest_GHz:g} must lie above the band "
                    f"{nu_GHz[0]:g}..{nu_GHz[1]:g} GHz"
                )


def _check_log_map(emit: Mapping[str, Any]) -> None:
    """The label of the published augmentation is shifted after all that changes luminosities, and
    the map with all its lines: it stands alone."""
    changing = (BrightnessConfig, DimConfig, InterloperConfig)
    for name, section in emit.items():
        if isinstance(section, BrightnessConfig) and section.log_map:
            others = [n for n, s in emit.items() if n != name and isinstance(s, changing)]
            if others:
                raise ConfigError(f"emit.{name}.log_map cannot stand beside emit.{others[0]}")


def _check_brightness(section: BrightnessConfig, where: str) -> None:
    factor = section.factor
    if section.poisson_bins is not None and factor != 1.0:
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
        raise ConfigError(f"{where}.factor must stay inside 0..1000; a normal needs low and high")
