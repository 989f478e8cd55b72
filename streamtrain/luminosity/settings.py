"""The section `emit.line` of a configuration: what the halos shine with.

The section `emit` of a configuration: what shines, and how it differs from its model.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from streamtrain.schema import ConfigError, OrderWarning, operator_kind, setting


@dataclass(frozen=True)
class DistributionConfig:
    """A parameter drawn for every sample: one of normal, uniform and log_uniform."""

    normal: tuple[float, float] | None = setting(None, "mean and width")
    uniform: tuple[float, float] | None = setting(None, "lowest and highest value")
    log_uniform: tuple[float, float] | None = setting(
        None, "lowest and highest value; uniform in the logarithm", above=0
    )
    low: float | None = setting(None, "normal: values below are drawn again")
    high: float | None = setting(None, "normal: values above are drawn again")


@dataclass(frozen=True)
class MultivariateConfig:
    """Parameters drawn together from a multivariate normal."""

    names: list[str] = setting(help="parameters")
    mean: list[float] = setting(help="their means")
    covariance: list[list[float]] = setting(help="their covariance, row by row")


@dataclass(frozen=True)
class ModelConfig:
    """A luminosity model, and how its parameters are drawn for every sample."""

    model: str = setting("li16", "a model's name, or file.py:function")
    prior: str = setting("fiducial", "a prior of the model, or 'fiducial': its fixed parameters")
    prior_scale: float = setting(1.0, "factor on every width of the prior", low=0, high=100)
    parameters: dict[str, float | DistributionConfig] = setting(
        {}, "parameters held at a value, or drawn from a distribution of their own"
    )
    multivariate: MultivariateConfig | None = setting(
        None, "parameters drawn together, instead of those of the prior"
    )
    constraints: list[str] = setting([], "conditions on a draw, as in 'A < B' or '0 < sigma < 1'")
    scatter: bool | Literal["mean", "median"] = setting(
        True, "log-normal scatter of L at fixed mass: as published, none, or what it preserves"
    )


@dataclass(frozen=True)
class ComponentConfig(ModelConfig):
    """One of the models that a sample may be made with."""

    model: str = setting("", "a model's name, or file.py:function; default: the component's name")
    weight: float = setting(
        1.0, "its share of the samples, relative to the others", above=0, high=1e9
    )


@dataclass(frozen=True)
class RequireConfig:
    """What a draw must be expected to make; another one is drawn again."""

    mean_uK: tuple[float, float] | None = setting(
        None, "lowest and highest mean of the map [map units]", low=0
    )
    halos: tuple[float, float] | None = setting(
        None, "lowest and highest number of halos among the label's luminosities", low=0
    )


@dataclass(frozen=True)
class LineConfig(ModelConfig):
    """The luminosity model that the halos shine with, or several to choose from."""

    mixture: dict[str, ComponentConfig] = setting(
        {}, "instead of one model: several by name, one of which is drawn for every sample"
    )
    require: RequireConfig = setting(RequireConfig(), "")

    @property
    def class_names(self) -> list[str]:
        """Names of the models; of a function in a file, the function's."""
        if self.mixture:
            return list(self.mixture)
        return [self.model.rpartition(":")[2]]

    @property
    def components(self) -> dict[str, ComponentConfig]:
        """The models of the mixture by name; without one, the one model."""
        if self.mixture:
            return {
                name: replace(component, model=component.model or name)
                for name, component in self.mixture.items()
            }
        one = {field.name: getattr(self, field.name) for field in fields(ModelConfig)}
        return {self.model: ComponentConfig(**one)}


def check_line(line: LineConfig) -> None:
    """Raise ConfigError for what the types alone do not tell."""
    where = "emit.line"
    if line.mixture:
        for field in fields(ModelConfig):
            if getattr(line, field.name) != getattr(LineConfig(), field.name):
                raise ConfigError(
                    f"{where}.{field.name} stands beside {where}.mixture, which says it for each "
                    f"of its models ({where}.mixture={{}} removes it)"
                )
    for name, component in line.components.items():
        check_model(component, f"{where}.mixture.{name}" if line.mixture else where)
    for bound in fields(RequireConfig):
        ends = getattr(line.require, bound.name)
        if ends is not None and ends[0] >= ends[1]:
            raise ConfigError(f"{where}.require.{bound.name} = {list(ends)} must increase")


def check_model(model: ModelConfig, where: str) -> None:
    """Raise ConfigError for what the types alone do not tell."""
    for parameter, given in model.parameters.items():
        if isinstance(given, DistributionConfig):
            check_distribution(given, f"{where}.parameters.{parameter}")
    if model.multivariate is not None:
        _check_multivariate(model.multivariate, f"{where}.multivariate")


def _check_multivariate(given: MultivariateConfig, where: str) -> None:
    size = len(given.names)
    if len(set(given.names)) < size or not size:
        raise ConfigError(f"{where}.names = {given.names} must be different parameters")
    if len(given.mean) != size:
        raise ConfigError(f"{where}.mean has {len(given.mean)} entries for {size} names")
    rows = given.covariance
    if len(rows) != size or any(len(row) != size for row in rows):
        raise ConfigError(f"{where}.covariance must have {size} rows of {size} entries")
    if any(rows[i][j] != rows[j][i] for i in range(size) for j in range(i)):
        raise ConfigError(f"{where}.covariance must be symmetric")


def check_distribution(given: DistributionConfig, where: str) -> None:
    """Raise ConfigError unless it is one distribution, with ends in order."""
    kinds = {k: getattr(given, k) for k in ("normal", "uniform", "log_uniform")}
    chosen = [name for name, value in kinds.items() if value is not None]
    if len(chosen) > 1:
        removed = ", ".join(f"{where}.{name}=null" for name in chosen)
        raise ConfigError(f"{where} has {', '.join(chosen)}: remove all but one of them, {removed}")
    if not chosen:
        raise ConfigError(f"{where} must be a number, or one of {', '.join(kinds)}")
    first, second = kinds[chosen[0]]
    if chosen[0] == "normal" and second < 0:
        raise ConfigError(f"{where}.normal = [{first:g}, {second:g}]: the width is negative")
    if chosen[0] != "normal" and first >= second:
        raise ConfigError(f"{where}.{chosen[0]} = [{first:g}, {second:g}] must increase")
    if given.low is not None and given.high is not None and given.low >= given.high:
        raise ConfigError(f"{where}: low = {given.low:g} must be below high = {given.high:g}")
    if chosen[0] != "normal" and (given.low is not None or given.high is not None):
        raise ConfigError(f"{where}: low and high belong to normal, not to {chosen[0]}")


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
