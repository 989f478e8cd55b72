"""The choices that, with a seed, decide which halos a synthetic lightcone holds."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from streamtrain.cosmology import Cosmology
from streamtrain.machine.files import read_text, reading
from streamtrain.schema import parse_yaml

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
        from streamtrain.catalogs.synthesis.massfunction import halo_bias, mass_function

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
        mass_function(self.mass_function)
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


COSMOLOGY = ("Omega_m", "Omega_b", "h", "n_s", "sigma8")


_SKY = {
    "footprint_deg",
    "z_range",
    "min_mass_Msun",
    "cosmology",
    "cell_Mpc",
    "mass_function",
    "bias",
    "num_slabs",
}


_FILE = {"velocities", "sfr"}


def chosen(arguments: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the options say: fields of `SkyOptions`, and of `Recipe`. Raises ValueError."""
    given = _from_file(arguments.options) if arguments.options else {}
    for name in (_SKY | _FILE) - {"cosmology"}:
        value = getattr(arguments, name, None)
        if value is not None:
            given[name] = value
    parameters = Cosmology().to_dict() | (given.pop("cosmology", None) or {})
    parameters |= {
        name: getattr(arguments, name) for name in COSMOLOGY if getattr(arguments, name) is not None
    }
    given["cosmology"] = Cosmology.from_dict(parameters)
    if "footprint_deg" in given:
        given["footprint_deg"] = _two_sides(given["footprint_deg"])
    how: dict[str, Any] = {name: given.pop(name) for name in sorted(_FILE & given.keys())}
    return given, how | {"device": arguments.device}


def _two_sides(value: Any) -> tuple[Any, ...]:
    sides = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    if len(sides) not in (1, 2):
        raise ValueError(f"footprint_deg {value!r} must be one number or two")
    return sides if len(sides) == 2 else sides * 2


def _from_file(path: Path) -> dict[str, Any]:
    """The options of a YAML file; ValueError for one that is not a mapping of known names."""
    with reading(path, ValueError, "it cannot be read"):
        try:
            values = parse_yaml(read_text(path), "this")
        except UnicodeDecodeError:
            raise ValueError(f"{path}: this is not a text file") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: options must be a mapping of names to values")
    allowed = _SKY | _FILE
    if unknown := sorted(str(name) for name in values if name not in allowed):
        raise ValueError(
            f"{path}: unknown option {unknown[0]!r}; allowed: {', '.join(sorted(allowed))}"
        )
    if not isinstance(values.get("cosmology", {}), dict):
        raise ValueError(f"{path}: cosmology must be a mapping of {', '.join(COSMOLOGY)}")
    for name in _FILE & values.keys():
        if not isinstance(values[name], bool):
            raise ValueError(f"{path}: {name} = {values[name]!r} must be true or false")
    for name in ("min_mass_Msun", "cell_Mpc"):
        values |= {name: _number(path, name, values[name])} if name in values else {}
    for name in ("footprint_deg", "z_range"):
        if isinstance(values.get(name), list):
            values[name] = [_number(path, name, value) for value in values[name]]
        elif name in values:
            values[name] = _number(path, name, values[name])
    return values


def _number(path: Path, name: str, value: Any) -> float:
    """Also 2.5e10, which YAML 1.1 reads as text."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{path}: {name} = {value!r} must be a number") from None
