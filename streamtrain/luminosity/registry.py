"""Luminosity models by name, from a user's file, or from a function or its source."""

from __future__ import annotations

import importlib.util
import inspect
import re
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType

from streamtrain.luminosity.cii_lya import OTHER_MODELS
from streamtrain.luminosity.co import CO_MODELS
from streamtrain.luminosity.freeform import FREEFORM
from streamtrain.luminosity.model import LuminosityModel, ModelFunction, mean_preserving
from streamtrain.luminosity.source import function_of, is_source
from streamtrain.priors import Distribution, Normal, Prior, Sometimes, Uniform
from streamtrain.schema import ConfigError, nearest

__all__ = ["MODELS", "LuminosityModel", "ModelFunction", "find_model", "user_model"]

MODELS: dict[str, LuminosityModel] = {
    model.name: model for model in (*CO_MODELS, *OTHER_MODELS, FREEFORM)
}
"""Every built-in model, by the name a configuration gives it."""


def user_model(function: ModelFunction, name: str | None = None) -> LuminosityModel:
    """A luminosity model from a user's function of (mass_Msun, z, *, parameters=defaults).

    Keyword arguments with a numeric default are its parameters; one called `sigma_dex` is the
    mean-preserving log-normal scatter. Attributes of the function, all optional: `prior`, {name:
    (mean, width), Normal(...), Uniform(...) or Sometimes(...)}, drawn from with `prior: own`;
    `on_fraction`, a function like it for the share of the halos that shine; `z_range` and
    `mass_range_Msun`, (low, high), where it holds. Raises ConfigError if the function cannot be a
    model.
    """
    name = name or str(getattr(function, "__name__", type(function).__name__))
    if not callable(function):
        raise ConfigError(f"the model {name} is not a function of (mass_Msun, z)")
    try:
        arguments = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        raise ConfigError(
            f"the model {name} does not say its arguments: write a function"
        ) from None
    if [a.name for a in arguments[:2]] != ["mass_Msun", "z"]:
        shown = ", ".join(a.name for a in arguments)
        raise ConfigError(f"the model {name}({shown}) must start with the arguments mass_Msun, z")
    defaults = {
        a.name: float(a.default)
        for a in arguments[2:]
        if isinstance(a.default, int | float) and a.name != "nu_rest_GHz"
    }
    on_fraction = getattr(function, "on_fraction", None)
    if on_fraction is not None:
        duty = inspect.signature(on_fraction).parameters.values()
        defaults |= {a.name: float(a.default) for a in duty if isinstance(a.default, int | float)}
    own: dict[str, Distribution] = {}
    for key, value in getattr(function, "prior", {}).items():
        try:
            ready = isinstance(value, Normal | Uniform | Sometimes)
            own[key] = value if ready else Normal(*map(float, value))
        except (TypeError, ValueError):
            raise ConfigError(
                f"the prior of {name}'s '{key}' must be (mean, width), a Normal, a Uniform or a "
                f"Sometimes, not {value!r}"
            ) from None
    unknown = [k for k in own if k not in defaults]
    if unknown:
        raise ConfigError(
            f"the prior of {name} names '{unknown[0]}': {nearest(unknown[0], defaults)}"
        )
    scattered = "sigma_dex" in defaults
    return LuminosityModel(
        name,
        function,
        defaults,
        "a user's function",
        (lambda p: mean_preserving(p["sigma_dex"])) if scattered else None,
        {"own": Prior(own)} if own else {},
        on_fraction=on_fraction,
        z_range=_range(function, "z_range", name),
        mass_range_Msun=_range(function, "mass_range_Msun", name),
    )


def _range(function: ModelFunction, attribute: str, name: str) -> tuple[float, float] | None:
    """A user's (low, high), or None."""
    given = getattr(function, attribute, None)
    if given is None:
        return None
    try:
        low, high = map(float, given)
    except (TypeError, ValueError):
        low, high = 0.0, 0.0
    if not low < high:
        raise ConfigError(f"{name}.{attribute} must be (low, high), not {given!r}")
    return low, high


class _Unkept(SourceFileLoader):
    """Runs a file as it is now. Bytecode that Python keeps is taken for that of an edited file of
    the same length and second."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def find_model(model: str | ModelFunction) -> LuminosityModel:
    """A model by its name, as `file.py:function`, as the text of a function, or from a function.

    Raises ConfigError with the nearest valid name, or what is wrong with the file.
    """
    if not isinstance(model, str):
        return user_model(model)
    if is_source(model):
        return user_model(function_of(model))
    match = re.fullmatch(r"(.+\.py):(\w+)", model)
    if match is None:
        if model not in MODELS:
            raise ConfigError(f"unknown luminosity model '{model}': {nearest(model, MODELS)}")
        return MODELS[model]
    path, name = Path(match[1]), match[2]
    if not path.is_file():
        raise ConfigError(f"emit.line.model = '{model}': there is no file {path}")
    module_name = f"streamtrain_user_{path.stem}"
    loader = _Unkept(module_name, str(path))
    spec = importlib.util.spec_from_file_location(module_name, path, loader=loader)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(
            f"emit.line.model = '{model}': {path} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    if not hasattr(module, name):
        raise ConfigError(f"emit.line.model = '{model}': {path} defines no '{name}'")
    return user_model(getattr(module, name), name)
