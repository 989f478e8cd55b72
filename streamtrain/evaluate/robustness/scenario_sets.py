"""Sets of scenarios: folders of YAML files, and every published luminosity model of a run's line.

A scenario says what else may be in a map than what a network was trained on: a YAML file with the
sections `emit` and `observe`; grid, label, network and lightcones are those of the run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from streamtrain.config import Config, from_mapping, read_settings
from streamtrain.luminosity.lines import line_name
from streamtrain.luminosity.model import LuminosityModel
from streamtrain.luminosity.registry import MODELS, find_model
from streamtrain.luminosity.source import model_name
from streamtrain.machine.files import why_nothing_found
from streamtrain.schema import ConfigError, differences, nearest, to_dict
from streamtrain.shipped import resource_dir

BAND = ("nu_GHz", "nu_rest_GHz", "units")
PUBLISHED_MODELS = "published_models"
VARIANTS: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    "breysse15": {"all_shine": {"duty": 1.0}},
}
"""What else of a model is in use than its paper's: parameters by the end of the scenario's name.
breysse15 with all halos shining is what 1905.10376 trained on."""
ROOM_LSUN = 1e12
"""Luminosity that the cubes have room for: lagache18 and yang22_cii have halos beyond the usual."""


@dataclass(frozen=True)
class Scenario:
    """One of a set, for a run."""

    name: str
    """Name of the scenario's file, without the number that orders them; or of model and prior."""
    about: str
    """The comment at the top of its file; or where the model is from."""
    config: Config
    """The run's, with the scenario's emit and observe."""
    differs: list[str]
    """Settings of emit and observe in which it is not what the run trains on."""

    @property
    def models(self) -> list[str]:
        """Names of the luminosity models that make its maps."""
        return [component.model for component in self.config.line.components.values()]

    @property
    def extrapolated(self) -> list[str]:
        """Which of these models were published for other redshifts than the band's, and for
        which."""
        said = []
        for name in self.models:
            text = find_model(name).extrapolated(self.config.grid.z_range)
            said += [f"{model_name(name)} {text}"] if text else []
        return said


def load_scenarios(where: str | Path, run: Config) -> list[Scenario]:
    """The scenarios of a set, in the order of their file names.

    where: the name of a set that ships with streamtrain, a folder of YAML files, or one file; a
    folder or file of that name comes first. Raises ConfigError, one sentence, for a set that does
    not exist and for a scenario that does not fit the run.
    """
    if str(where) == PUBLISHED_MODELS and not Path(where).exists():
        return published_models(run)
    files = _files(where)
    scenarios = [_scenario(file, run) for file in files]
    names = [scenario.name for scenario in scenarios]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{where}: two scenarios are called '{name}'")
    return scenarios


def published_models(run: Config) -> list[Scenario]:
    """A scenario for every model that was published for a run's line, in the order of the registry,
    each with the prior that it is compared by; so a new model takes part by itself.

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
) -> Scenario:
    """The run's maps by a published luminosity model, with room for it in the cube."""
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
    name = f"{model.name}_{prior}{ending}"
    try:
        config = from_mapping(settings)
    except ConfigError as error:
        raise ConfigError(f"{PUBLISHED_MODELS}: {name} does not fit the run: {error}") from None
    return Scenario(name, about, config, _differences(run, config))


def _files(where: str | Path) -> list[Path]:
    path = Path(where)
    if path.is_file():
        return [path]
    shipped = {p.parent.name: p for p in sorted(resource_dir("configs").glob("*/scenarios"))}
    folder = path if path.is_dir() else shipped.get(str(where))
    if folder is None:
        raise ConfigError(
            f"there are no scenarios '{where}': name a folder of YAML files, one of them, or a set "
            f"that ships with streamtrain ({', '.join([*shipped, PUBLISHED_MODELS])})"
        )
    files = sorted(folder.glob("*.yaml"))
    if not files:
        if forbidden := why_nothing_found(folder):
            raise ConfigError(f"scenarios: {forbidden}")
        raise ConfigError(f"the folder {folder} holds no scenario: no file ends in .yaml")
    return files


def _scenario(file: Path, run: Config) -> Scenario:
    data, known = read_settings(file), [field.name for field in fields(Config)]
    for key in data:
        if key not in known:
            raise ConfigError(f"{file}: unknown setting '{key}': {nearest(key, known)}")
    missing = [key for key in ("emit", "observe") if key not in data]
    if missing:
        raise ConfigError(f"{file} is no scenario: it has no section {missing[0]}")
    whole = to_dict(run)
    for key in BAND:
        given = data.get("grid", {}).get(key, whole["grid"][key])
        if given != whole["grid"][key]:
            raise ConfigError(
                f"{file} does not fit the run: grid.{key} = {given} there, "
                f"{whole['grid'][key]} in the run"
            )
    try:
        config = from_mapping(whole | {key: data[key] for key in ("emit", "observe")})
    except ConfigError as error:
        raise ConfigError(f"{file} does not fit the run: {error}") from None
    ours, theirs = _encoding(run), _encoding(config)
    if ours != theirs:
        raise ConfigError(
            f"{file} does not fit the run: it writes maps by {_listed(theirs)}, the network reads "
            f"maps written by {_listed(ours)}: --scenarios {PUBLISHED_MODELS} keeps the run's "
            "observe, and so can a folder of scenarios of your own"
        )
    name = re.sub(r"^\d+[_-]", "", file.stem)
    return Scenario(name, _about(file), config, _differences(run, config))


def _encoding(config: Config) -> list[tuple[str, Any]]:
    return [(kind, to_dict(section)) for kind, section in config.observation.encoding]


def _listed(encoding: list[tuple[str, Any]]) -> str:
    if not encoding:
        return "no pool and no transform"
    return ", ".join(
        f"{kind} ({', '.join(f'{k} {v}' for k, v in settings.items())})" if settings else kind
        for kind, settings in encoding
    )


def _about(file: Path) -> str:
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# ").rstrip())
    return " ".join(lines)


def _differences(run: Config, scenario: Config) -> list[str]:
    """Entries of emit and observe, by their dotted names."""
    sections = ("emit", "observe")
    ours, theirs = ({k: to_dict(getattr(c, k)) for k in sections} for c in (run, scenario))
    names = (difference.name.split(".") for difference in differences(theirs, ours))
    return list(dict.fromkeys(".".join(name[:2]) for name in names))
