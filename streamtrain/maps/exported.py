"""What exported samples of every format say of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.generator.generator import Generator
from streamtrain.generator.operators import MapState, Pool, build_operators
from streamtrain.maps.steps import has_units

Float = NDArray[np.float64]


class Geometry:
    """The voxels of exported maps, after pools."""

    def __init__(self, generator: Generator) -> None:
        grid, observe = generator.grid, generator.config.observe
        self.grid, self.observe = grid, observe
        state = MapState(grid)
        for operator in build_operators(observe, grid):
            if isinstance(operator, Pool):
                state = operator.state_after(state)
        self.weight = state.weight
        freq, dec, ra = state.shape
        self.nu_edges: Float = np.linspace(*grid.nu_GHz, freq + 1)
        self.dec_edges: Float = np.linspace(-0.5, 0.5, dec + 1) * grid.fov_deg[1]
        self.ra_edges: Float = np.linspace(-0.5, 0.5, ra + 1) * grid.fov_deg[0]
        self.units = grid.units if has_units(observe) else ""


def flattened(record: Mapping[str, Any], prefix: str = "") -> dict[str, float | str]:
    """What was drawn for a sample as columns: 'parameters.alpha', 'centre_deg.0', 'mirror' (0 or
    1)."""
    columns: dict[str, float | str] = {}
    for key, value in record.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            columns |= flattened(value, f"{name}.")
        elif isinstance(value, str):
            columns[name] = value
        elif isinstance(value, list | tuple | np.ndarray):
            columns |= flattened({str(k): v for k, v in enumerate(value)}, f"{name}.")
        elif value is not None:
            columns[name] = float(value)
    return columns
