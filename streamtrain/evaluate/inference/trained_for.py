"""What maps a network was trained for, in two lines for a person, and as plain data."""

from __future__ import annotations

import textwrap
from dataclasses import MISSING, fields
from typing import Any

import numpy as np
import yaml

from streamtrain.config import Config
from streamtrain.evaluate.inference.prepare import map_taken
from streamtrain.evaluate.inference.processing import noise_levels
from streamtrain.luminosity.lines import line_name
from streamtrain.operators.noise import Noise
from streamtrain.operators.plan import ObservationPlan
from streamtrain.schema import to_dict
from streamtrain.tables import span

WIDTH = 100
"""Characters of a line on the screen."""
LEVEL = ("sigma_uK", "per", "absent", "radiometer")
"""Settings of noise that its level in the network's voxels is made of."""


def luminosity(config: Config) -> list[str]:
    """The luminosity models of the training, each with its prior."""
    line = config.line
    priors = [one.prior for one in line.components.values()]
    return [f"{name} {prior}" for name, prior in zip(line.class_names, priors, strict=True)]


def trained_for(config: Config) -> dict[str, Any]:
    """What the maps of a training are, as plain data.

    voxels: (freq, dec, ra) of the map that `infer` takes; noise: the lowest and the highest sigma
    of the training's maps in one of its voxels [units], the median over voxels, None where it is
    not known; observe: each operator with the settings that are not its default.
    """
    plan, grid = config.observation, config.grid
    return {
        "field_deg": list(grid.fov_deg),
        "voxels": list(map_taken(plan).shape),
        "nu_GHz": list(grid.nu_GHz),
        "nu_rest_GHz": grid.nu_rest_GHz,
        "units": grid.units,
        "luminosity": luminosity(config),
        "noise": _noise(plan),
        "observe": {step.name: _changed(step.section) for step in plan.steps},
    }


def trained_for_lines(config: Config) -> list[str]:
    """`trained_for` in two lines: the map that the network takes with the luminosity models behind
    it, and what the training's maps went through."""
    found = trained_for(config)
    width, height = found["field_deg"]
    high, low = found["nu_GHz"]
    name, rest = line_name(found["nu_rest_GHz"]), f"{found['nu_rest_GHz']:g} GHz"
    line = f"{name} ({rest})" if "GHz" not in name else f"a line at {rest}"
    weight = map_taken(config.observation).weight
    sums = "" if weight == 1.0 else f", sums of {weight:g}"
    maps = (
        f"{width:g} x {height:g} deg in {' x '.join(map(str, found['voxels']))} voxels (freq, dec, "
        f"ra{sums}), {low:g}..{high:g} GHz, {found['units']}; {line}, luminosities by "
        f"{', '.join(_with_prior(each) for each in found['luminosity'])}"
    )
    steps = []
    for step in config.observation.steps:
        if step.operator is Noise and found["noise"] is not None:
            more = {n: v for n, v in found["observe"][step.name].items() if n not in LEVEL}
            steps.append(" ".join([f"{step.name} of {noise_words(found)}", *_flow(more)]))
            found["noise"] = None  # that of all together is said once
        else:
            steps.append(" ".join([step.name, *_flow(found["observe"][step.name])]))
    return [maps, "maps went through " + (", ".join(steps) or "no operator")]


def wrapped(line: str, first: str, others: str) -> list[str]:
    """A line broken for a terminal; first, others: what the first and the other parts begin
    with."""
    return textwrap.wrap(
        line, WIDTH, initial_indent=first, subsequent_indent=others, break_long_words=False
    )


def _with_prior(model: str) -> str:
    """'freeform (prior co10)' of 'freeform co10'."""
    name, _, prior = model.rpartition(" ")
    return f"{name} (prior {prior})"


def noise_words(found: dict[str, Any]) -> str:
    """The noise of `trained_for` in words; '' where it is not known."""
    if found["noise"] is None:
        return ""
    return f"{span(*found['noise'])} {found['units']} per voxel"


def _noise(plan: ObservationPlan) -> list[float] | None:
    try:
        levels = noise_levels(plan, map_taken(plan))
    except (ValueError, OSError):  # a file of hits or sigma that is not here
        return None
    if levels is None:
        return None
    return [float(f"{level:.4g}") for level in levels]


def _changed(section: Any) -> dict[str, Any]:
    """The settings of an operator that are not its default."""
    found = {}
    for field in fields(section):
        value = getattr(section, field.name)
        default = field.default
        if field.default_factory is not MISSING:
            default = field.default_factory()
        if value is not None and (default is MISSING or value != default):
            found[field.name] = value
    plain = to_dict(section)
    return {name: _without_none(plain[name]) for name in found}


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_none(each) for name, each in value.items() if each is not None}
    return value


def _flow(settings: dict[str, Any]) -> list[str]:
    """Settings as they stand in YAML, in braces; nothing where there are none."""
    if not settings:
        return []
    rounded = {name: _rounded(value) for name, value in settings.items()}
    text = yaml.safe_dump(rounded, default_flow_style=True, sort_keys=False, width=np.inf)
    return [text.strip()]


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    return value
