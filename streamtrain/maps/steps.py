"""Which steps of `observe` make a map what it is, and which belong to the network.

A real map has its sky, beam and noise already. Of a configuration's operators only the others are
left to do: what is removed from it, what is joined, how its values are transformed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from streamtrain.config import Config
from streamtrain.config_observe import DIMENSIONLESS, operator_kind

RANDOM = ("noise", "edge_noise", "radio_sources")
"""What differs from sample to sample."""
SHAPING = ("pool", "mask")
"""What changes which voxels there are, not what they hold."""


def of_the_map(observe: Mapping[str, Any]) -> dict[str, bool]:
    """Of each operator whether a real map has it already: noise and foregrounds, and a beam where
    it is the telescope's, not a smoothing of transformed values."""
    found: dict[str, bool] = {}
    unitless = False
    for name in observe:
        kind = operator_kind(name)
        found[name] = kind in RANDOM or (kind == "beam" and not unitless)
        unitless = unitless or kind in DIMENSIONLESS
    return found


def has_units(observe: Mapping[str, Any]) -> bool:
    """Whether a map that has gone through these operators is still in its units."""
    return not any(operator_kind(name) in DIMENSIONLESS for name in observe)


def raw(config: Config) -> Config:
    """The configuration whose samples are maps in their units: its operators up to the last one
    that is of the map, with the pools and masks that follow, and before any transform."""
    names: list[str] = []
    last = 0
    already = of_the_map(config.observe)
    for number, name in enumerate(config.observe, 1):
        if operator_kind(name) in DIMENSIONLESS:
            break
        names.append(name)
        follows = operator_kind(name) in SHAPING and last == number - 1
        if already[name] or follows:
            last = number
    return replace(config, observe={name: config.observe[name] for name in names[:last]})
