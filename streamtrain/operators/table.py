"""The table of map operators: a new one is a class in a file of this room, and a line here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from streamtrain.operators.base import Operator
from streamtrain.operators.beam import Beam
from streamtrain.operators.correlated import CorrelatedNoise
from streamtrain.operators.filters import PCA, HighPass, Standardise, SubtractMean
from streamtrain.operators.mask import Mask
from streamtrain.operators.noise import EdgeNoise, Noise
from streamtrain.operators.pool import Pool
from streamtrain.operators.response import ChannelResponse
from streamtrain.operators.sources import RadioSources
from streamtrain.operators.transfer import TransferFunction
from streamtrain.operators.transforms import Asinh, Log10, LogModulus
from streamtrain.schema import operator_kind

OPERATORS: dict[str, type[Operator]] = {
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
    "correlated_noise": CorrelatedNoise,
    "pca": PCA,
    "channel_response": ChannelResponse,
    "transfer_function": TransferFunction,
}
"""Every operator by the name that a configuration gives it."""


def operator_of(name: str) -> type[Operator] | None:
    """The operator that a name in a configuration stands for, `noise_2` for a second use; None
    where there is none."""
    return OPERATORS.get(operator_kind(name))


def without_paths(name: str, section: dict[str, Any]) -> dict[str, Any]:
    """An operator's settings as plain data, with 'file' for the path of each of its files."""
    operator = operator_of(name)
    files = () if operator is None else operator.files
    return {k: "file" if k in files and isinstance(v, str) else v for k, v in section.items()}


def of_the_map(names: Iterable[str]) -> dict[str, bool]:
    """Whether a real map has each of these operators in it already, by name, see
    `Operator.of_the_map`; False for a name that is not known."""
    found: dict[str, bool] = {}
    in_units = True
    for name in names:
        operator = operator_of(name)
        found[name] = operator is not None and operator.of_the_map(in_units)
        in_units = in_units and not (operator is not None and operator.unitless)
    return found
