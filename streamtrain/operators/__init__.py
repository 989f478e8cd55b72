"""Map operators: what happens to a cube after painting, in the order of the configuration.

`base` says what an operator is and what its class tells of it, `table` lists them by name; each
file besides holds operators and their sections of the configuration. `plan` puts those of a
configuration in a row; the rest of the package reads it. `voxel_files` reads noise, hits and masks
per voxel from files of surveys, which `hits` makes sigma of; `curve_files` reads curves of
instruments; `profile` has the measured beam.
"""

from __future__ import annotations

from streamtrain.operators.base import Drawn, MapState, Operator, Pointwise, Shape, Turn
from streamtrain.operators.noise import Noise
from streamtrain.operators.plan import InputMap, ObservationPlan
from streamtrain.operators.pool import Pool
from streamtrain.operators.table import OPERATORS
from streamtrain.operators.transforms import inverse_log_modulus

__all__ = [
    "OPERATORS",
    "Drawn",
    "InputMap",
    "MapState",
    "Noise",
    "ObservationPlan",
    "Operator",
    "Pointwise",
    "Pool",
    "Shape",
    "Turn",
    "inverse_log_modulus",
]
