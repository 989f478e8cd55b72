"""The scenario set `published_models`: every published luminosity model of a run's line in turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from streamtrain.config import Config
from streamtrain.luminosity.lines import line_name
from streamtrain.luminosity.model import LuminosityModel
from streamtrain.luminosity.registry import MODELS
from streamtrain.schema import ConfigError, to_dict

PUBLISHED_MODELS = "published_models"
VARIANTS: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    "breysse15": {"all_shine": {"duty": 1.0}},
}
"""What else of a model is in use than its paper's: parameters by the end of the scenario's name.
breysse15 with all halos shining is what 1905.10376 trained on."""
ROOM_LSUN = 1e12
"""Luminosity that the cubes have room for: lagache18 and yang22_cii have halos beyond the usual."""


@dataclass(frozen=True)
class PublishedModel:
    """A luminosity model as the only thing that a scenario changes."""

    name: str
    """Names of the model and its prior, joined."""
    about: str
    """Where it is from, by which prior, and where it is extrapolated."""
    settings: dict[str, Any]
    """Settings of the run, with this model as its line, and room for it in the cube."""


def published_models(run: Config) -> list[PublishedModel]:
    """The models that were published for a run's line, in the order of the registry, each with the
    prior that it is compared by; so a new model takes part by itself.

    For CO(J, J-1) with J > 1 those of CO(1-0) whose ratio to it is a parameter are among them.
    Modifiers and interlopers stay the run's; what `emit.line.require` asks for does not hold, since
    it would be another model. Raises ConfigError where there is none.
    """
    nu_rest = run.grid.nu_rest_GHz
    models = [model for model in MODELS.values() if model.published_for(nu_rest)]
    if not models:
        raise ConfigError(
            f"{PUBLISHED_MODELS}: no model was published for the line of this run, "
            f"{line_name(nu_rest)}"
        )
    found = []
    for model in models:
        found.append(_of(model, run, "", {}))
        for ending, parameters in VARIANTS.get(model.name, {}).items():
            found.append(_of(model, run, f"_{ending}", parameters))
    return found


def _of(
    model: LuminosityModel, run: Config, ending: str, parameters: Mapping[str, float]
) -> PublishedModel:
    prior = model.compared_prior
    about = f"{model.source}; prior {prior}"
    about += "".join(f", {name} = {value:g}" for name, value in parameters.items())
    if extrapolated := model.extrapolated(run.grid.z_range):
        about += f"; {extrapolated}"
    line = {"model": model.name, "prior": prior, "parameters": dict(parameters)}
    settings = to_dict(run)
    settings["emit"] |= {"line": line}
    room = max(run.grid.brightest_Lsun or 0.0, ROOM_LSUN)
    settings["grid"] |= {"brightest_Lsun": room}
    return PublishedModel(f"{model.name}_{prior}{ending}", about, settings)
