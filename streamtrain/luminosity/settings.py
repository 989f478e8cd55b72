"""The section `emit` of a configuration: line, models and priors, interlopers, modifiers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any, Literal

from streamtrain.luminosity.modifiers import MODIFIERS, BrightnessConfig, ModifierConfig
from streamtrain.luminosity.source import model_name
from streamtrain.priors import (
    DistributionConfig,
    MultivariateConfig,
    SometimesConfig,
    check_distribution,
    check_multivariate,
    drawn_as,
)
from streamtrain.schema import ConfigError, setting


@dataclass(frozen=True)
class ModelConfig:
    """A luminosity model, and how its parameters are drawn for every sample."""

    model: str = setting("li16", "a model's name, file.py:function, or the source of a function")
    prior: str = setting("fiducial", "a prior of the model, or 'fiducial': its fixed parameters")
    prior_scale: float = setting(1.0, "factor on every width of the prior", low=0, high=100)
    parameters: dict[str, float | DistributionConfig | SometimesConfig] = setting(
        {}, "parameters held at a value, or drawn from a distribution of their own"
    )
    multivariate: MultivariateConfig | None = setting(
        None, "parameters drawn together, instead of those of the prior"
    )
    constraints: list[str] = setting([], "conditions on a draw, as in 'A < B' or '0 < sigma < 1'")
    scatter: bool | Literal["mean", "median"] = setting(
        True, "log-normal scatter of L at fixed mass: as published, none, or what it preserves"
    )

    @classmethod
    def meant(cls, key: str, value: Any, where: str) -> str:
        """The end of a message on a setting of another type, or one that there is not: where a
        parameter's own prior or value stands, and how a model is named."""
        if not key:
            named = issubclass(cls, LineConfig | InterloperConfig)
            return f", such as {{{'model: li16' if named else 'prior: narrow'}}}"
        if key == "prior" and isinstance(value, Mapping) and value:
            drawn = [f"{name}: {_one(given)}" for name, given in value.items()]
            return (
                ": it names one of the model's priors; a parameter gets a prior of its own with "
                f"{where}.parameters={{{', '.join(drawn)}}}"
            )
        known = [field.name for field in fields(cls)]
        if key in known or isinstance(value, str) or get_close_matches(key, known, cutoff=0.5):
            return ""
        return f"; a parameter of the model is set with {where}.parameters={{{key}: {_one(value)}}}"


def _one(given: Any) -> str:
    """What a parameter was given in a wrong place, as it stands in `parameters`."""
    if isinstance(given, Mapping):
        return f"{{{', '.join(f'{key}: {value}' for key, value in given.items())}}}"
    return f"{{{drawn_as(given)}}}" if isinstance(given, list | tuple | str) else str(given)


@dataclass(frozen=True)
class ComponentConfig(ModelConfig):
    """One of the models that a sample may be made with."""

    model: str = setting(
        "", "a model's name, file.py:function, or a source; default: the component's name"
    )
    weight: float = setting(
        1.0, "its share of the samples, relative to the others", above=0, high=1e9
    )


@dataclass(frozen=True)
class RequireConfig:
    """What a draw must be expected to make; another one is drawn again."""

    mean_uK: tuple[float, float] | None = setting(
        None, "lowest and highest mean of the painted map, before a pool sums [map units]", low=0
    )
    halos: tuple[float, float] | None = setting(
        None, "lowest and highest number of halos among the label's luminosities", low=0
    )

    @property
    def asks(self) -> bool:
        """Whether it asks for anything."""
        return any(bounds is not None for bounds in vars(self).values())


@dataclass(frozen=True)
class LineConfig(ModelConfig):
    """The luminosity model that the halos shine with, or several to choose from."""

    mixture: dict[str, ComponentConfig] = setting(
        {}, "instead of one model: several by name, one of which is drawn for every sample"
    )
    require: RequireConfig = setting(RequireConfig(), "")

    @property
    def class_names(self) -> list[str]:
        """Names of the models; of a function, also of one in a file, the function's."""
        if self.mixture:
            return list(self.mixture)
        return [model_name(self.model)]

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
        check_multivariate(model.multivariate, f"{where}.multivariate")


@dataclass(frozen=True)
class InterloperConfig(ModelConfig):
    """Another line, of halos at the redshifts where it falls in the same band; in the map alone."""

    nu_rest_GHz: float = setting(115.27, "its rest frequency [GHz]", above=0)
    train: list[str] = setting([], "its own lightcones; default: those of the line")
    validation: list[str] = setting([], "its own lightcones; default: those of the line")
    test: list[str] = setting([], "its own lightcones; default: those of the line")

    @property
    def line(self) -> LineConfig:
        """The interloper's model, as the section of a line."""
        return LineConfig(**{f.name: getattr(self, f.name) for f in fields(ModelConfig)})


EMIT: dict[str, Any] = {
    "line": LineConfig,
    **MODIFIERS,
    "interloper": InterloperConfig,
}
"""The section of each source and modifier that `emit` may name."""


def check_emit(emit: Mapping[str, Any], nu_GHz: tuple[float, float]) -> None:
    """Raise ConfigError for what the types alone do not tell. nu_GHz: the band."""
    if "line" not in emit:
        raise ConfigError("emit needs one entry 'line', the luminosity model")
    if next(iter(emit)) != "line":
        raise ConfigError("emit must begin with 'line', the luminosity model")
    for kind in dict.fromkeys(map(type, emit.values())):
        names = [name for name, section in emit.items() if type(section) is kind]
        if len(names) > 1 and (kind is LineConfig or getattr(kind, "once", False)):
            raise ConfigError(f"emit.{names[1]}: there is emit.{names[0]} already")
    _check_log_map(emit)
    check_line(emit["line"])
    for name, section in emit.items():
        where = f"emit.{name}"
        if isinstance(section, ModifierConfig):
            section.check(where)
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
    changing = [
        name
        for name, section in emit.items()
        if isinstance(section, InterloperConfig) or getattr(section, "moves_light", False)
    ]
    for name, section in emit.items():
        if isinstance(section, BrightnessConfig) and section.log_map:
            others = [n for n in changing if n != name]
            if others:
                raise ConfigError(f"emit.{name}.log_map cannot stand beside emit.{others[0]}")
