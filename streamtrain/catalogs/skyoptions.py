"""The choices that, with a seed, decide which halos a synthetic lightcone holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from streamtrain.catalogs.massfunction import halo_bias
from streamtrain.catalogs.massfunction import mass_function as find_mass_function
from streamtrain.cosmology import Cosmology

DEFAULT_COSMOLOGY = Cosmology()


@dataclass(frozen=True)
class SkyOptions:
    """Everything but the seed that decides which halos a lightcone holds."""

    footprint_deg: tuple[float, float] = (2.4, 2.4)
    """Width in ra and in dec [deg], centred on the line of sight."""
    z_range: tuple[float, float] = (2.38, 3.45)
    """Lowest and highest observed redshift."""
    min_mass_Msun: float = 2.5e10
    """Halos above this mass are made."""
    cosmology: Cosmology = DEFAULT_COSMOLOGY
    cell_Mpc: float = 2.5
    """Side of the Lagrangian cells [Mpc]."""
    mass_function: str = "tinker08"
    """A name in `massfunction.MASS_FUNCTIONS`, or colossus:MODEL[:DEFINITION]."""
    bias: str = "tinker10"
    """tinker10 or colossus:MODEL[:DEFINITION]."""
    num_slabs: int | None = None
    """Parts along ra that are made one after the other; None: as few as memory asks for."""

    def __post_init__(self) -> None:
        """Plain floats and tuples, all inside their ranges."""
        for name in ("footprint_deg", "z_range"):
            value = getattr(self, name)
            if np.shape(value) != (2,):
                raise ValueError(f"{name} {value!r} must be two numbers")
            object.__setattr__(self, name, (float(value[0]), float(value[1])))
        for side in self.footprint_deg:
            _check("footprint_deg", side, 0.05, 10.0, "deg")
        for z in self.z_range:
            _check("z_range", z, 0.1, 12.0, "")
        if self.z_range[1] - self.z_range[0] < 0.01:
            raise ValueError(
                f"z_range {self.z_range} must run from the lower to the higher redshift and span "
                "at least 0.01"
            )
        _check("min_mass_Msun", self.min_mass_Msun, 1e8, 1e14, "Msun")
        _check("cell_Mpc", self.cell_Mpc, 1.0, 8.0, "Mpc")
        if self.num_slabs is not None:
            if type(self.num_slabs) is not int:
                raise ValueError(f"num_slabs {self.num_slabs!r} must be a whole number")
            _check("num_slabs", self.num_slabs, 1, 64, "")
        for name in ("mass_function", "bias"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} {getattr(self, name)!r} must be a name")
        object.__setattr__(self, "min_mass_Msun", float(self.min_mass_Msun))
        object.__setattr__(self, "cell_Mpc", float(self.cell_Mpc))
        find_mass_function(self.mass_function)
        halo_bias(1e12, 1.0, self.cosmology, self.bias)

    def to_dict(self) -> dict[str, Any]:
        """The options as JSON can hold them."""
        return {
            "footprint_deg": list(self.footprint_deg),
            "z_range": list(self.z_range),
            "min_mass_Msun": self.min_mass_Msun,
            "cosmology": self.cosmology.to_dict(),
            "cell_Mpc": self.cell_Mpc,
            "mass_function": self.mass_function,
            "bias": self.bias,
        }


def _check(name: str, value: float, low: float, high: float, unit: str) -> None:
    if not low <= value <= high:
        raise ValueError(
            f"{name} {value:g} {unit} must lie in {low:g}..{high:g} {unit}".replace("  ", " ")
        )
