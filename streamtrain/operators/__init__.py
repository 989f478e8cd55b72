"""Map operators: what happens to a cube after painting, in the order of the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamtrain.grid import Grid
from streamtrain.numerics.rng import STAGE_OBSERVE
from streamtrain.operators.base import Drawn, MapState, Operator, Shape
from streamtrain.operators.beam import Beam
from streamtrain.operators.filters import HighPass, Standardise, SubtractMean
from streamtrain.operators.mask import Mask
from streamtrain.operators.noise import EdgeNoise, Noise
from streamtrain.operators.pool import Pool
from streamtrain.operators.sources import RadioSources
from streamtrain.operators.transforms import Asinh, Log10, LogModulus, inverse_log_modulus
from streamtrain.schema import operator_kind

__all__ = [
    "OPERATORS",
    "Drawn",
    "MapState",
    "Noise",
    "Operator",
    "Pool",
    "Shape",
    "build_operators",
    "inverse_log_modulus",
]

OPERATORS: dict[str, Any] = {
    "pool": Pool,
    "noise": Noise,
    "log_modulus": LogModulus,
    "beam": Beam,
    "mask": Mask,
    "subtract_mean": SubtractMean,
    "high_pass": HighPass,
    "log10": Log10,
    "asinh": Asinh,
    "standardise": Standardise,
    "edge_noise": EdgeNoise,
    "radio_sources": RadioSources,
}
"""Every operator by the name a configuration gives it; its section is in `config_observe`."""


def build_operators(observe: Mapping[str, Any], grid: Grid) -> list[Operator]:
    """The operators of a configuration's `observe` section for a grid."""
    operators: list[Operator] = []
    state = MapState(grid)
    for position, (name, config) in enumerate(observe.items()):
        stage = STAGE_OBSERVE + 2 * position
        operator = OPERATORS[operator_kind(name)].from_config(name, stage, config, state)
        if isinstance(operator, Pool):
            state = operator.state_after(state)
        operators.append(operator)
    return operators
