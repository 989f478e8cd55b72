"""Scenarios: what else may be in a map than what a network was trained on.

A scenario is a YAML file whose sections `emit` and `observe` say what is in the map; grid, label,
network and lightcones are those of the run. A set of them is a folder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from streamtrain.config import Config, ConfigError, from_mapping, read_settings
from streamtrain.config_observe import operator_kind
from streamtrain.resources import resource_dir
from streamtrain.schema import nearest, to_dict

ENCODING = ("pool", "log_modulus", "log10", "asinh", "standardise")
"""Map operators that write a map as the network's input and add nothing to it: a network reads what
it was trained to read."""
BAND = ("nu_GHz", "nu_rest_GHz", "units")
PFEFFER2019 = "pfeffer2019"


@dataclass(frozen=True)
class Scenario:
    """One of a set, for a run."""

    name: str
    """Of its file, without the number that orders them."""
    about: str
    """The comment at the top of its file."""
    config: Config
    """The run's, with the scenario's emit and observe."""
    differs: list[str]
    """Settings of emit and observe in which it is not what the run trains on."""

    @property
    def models(self) -> list[str]:
        """Its luminosity models."""
        return [component.model for component in self.config.line.components.values()]


def load_scenarios(where: str | Path, run: Config) -> list[Scenario]:
    """The scenarios of a set, in the order of their file names.

    where: the name of a set that ships with streamtrain, a folder of YAML files, or one file.
    Raises ConfigError, one sentence, for a set that does not exist and for a scenario that does not
    fit the run.
    """
    files = _files(where)
    scenarios = [_scenario(file, run) for file in files]
    names = [scenario.name for scenario in scenarios]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{where}: two scenarios are called '{name}'")
    return scenarios


def _files(where: str | Path) -> list[Path]:
    path = Path(where)
    if path.is_file():
        return [path]
    shipped = {p.parent.name: p for p in sorted(resource_dir("configs").glob("*/scenarios"))}
    folder = path if path.is_dir() else shipped.get(str(where))
    if folder is None:
        raise ConfigError(
            f"there are no scenarios '{where}': name a folder of YAML files, one of them, or a set "
            f"that ships with streamtrain ({', '.join(shipped)})"
        )
    files = sorted(folder.glob("*.yaml"))
    if not files:
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
            f"maps written by {_listed(ours)}"
        )
    name = re.sub(r"^\d+[_-]", "", file.stem)
    return Scenario(name, _about(file), config, _differences(run, config))


def _encoding(config: Config) -> list[tuple[str, Any]]:
    kinds = ((operator_kind(name), section) for name, section in config.observe.items())
    return [(kind, to_dict(section)) for kind, section in kinds if kind in ENCODING]


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
    found = []
    for section in ("emit", "observe"):
        ours, theirs = (to_dict(getattr(config, section)) for config in (run, scenario))
        names = [*theirs, *(name for name in ours if name not in theirs)]
        changed = [f"{section}.{name}" for name in names if ours.get(name) != theirs.get(name)]
        if not changed and list(ours) != list(theirs):
            changed = [f"the order of {section}"]
        found += changed
    return found
