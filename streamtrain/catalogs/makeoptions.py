"""Options of `streamtrain catalog make`, from the command line and from a YAML file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from streamtrain.schema import parse_yaml

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


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the options; what is not given stays None, so that a YAML file can set it."""
    add = command.add_argument
    add("number", nargs="*", metavar="N", help="how many; key=value settings with --for")
    add(
        "--for",
        dest="config",
        metavar="CONFIG",
        help="make the lightcones that all splits of a configuration need, under its names",
    )
    add(
        "--number",
        dest="numbers",
        type=int,
        nargs=3,
        metavar=("TRAIN", "VALIDATION", "TEST"),
        help="with --for: how many of each [16 2 8]",
    )
    add("--plan", action="store_true", help="with --for: say what would be made, and stop")
    add("--out", type=Path, help="folder [lightcones]")
    add("--prefix", help="start of the file names [sky]")
    add("--first-seed", type=int, help="seed of the first [0]")
    add(
        "--options",
        type=Path,
        metavar="FILE",
        help="YAML file with any of the options below, by the names that a lightcone's provenance "
        "has (footprint_deg, z_range, min_mass_Msun, cosmology: {Omega_m: ...} ...)",
    )
    add(
        "--footprint-deg",
        type=float,
        nargs="+",
        metavar="DEG",
        help="side on the sky, or width in ra and dec [2.4; a 1.4-deg field can roll freely in it]",
    )
    add(
        "--z-range",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="observed redshifts [2.38 3.45: CO(1-0) at 26-34 GHz]",
    )
    add(
        "--min-mass",
        type=float,
        dest="min_mass_Msun",
        metavar="MSUN",
        help="halos above this mass [2.5e10]",
    )
    add(
        "--mass-function",
        metavar="NAME",
        help="tinker08, watson13_fof, or colossus:MODEL[:DEFINITION] [tinker08]",
    )
    add("--bias", metavar="NAME", help="tinker10, or colossus:MODEL[:DEFINITION] [tinker10]")
    for name in COSMOLOGY:
        add(f"--{name.replace('_', '-')}", type=float, dest=name, metavar="VALUE", help=_HELP[name])
    add("--sfr", action="store_true", default=None, help="add a column of star-formation rates")
    add(
        "--no-velocities",
        action="store_false",
        dest="velocities",
        default=None,
        help="keep only what painting needs",
    )
    add(
        "--processes",
        type=int,
        help="lightcones made at the same time [as many as cores and memory allow; one on a GPU]",
    )
    add(
        "--device",
        default="cpu",
        help="cpu, or cuda, cuda:1 ...: the same skies but for the last bits [%(default)s]",
    )


_HELP = {
    "Omega_m": "matter density [0.286]",
    "Omega_b": "baryon density [0.047]",
    "h": "Hubble constant over 100 km/s/Mpc [0.7]",
    "n_s": "slope of the primordial spectrum [0.96]",
    "sigma8": "rms density contrast in 8 Mpc/h [0.82]",
}


def make(arguments: argparse.Namespace) -> int:
    """Run the command without --for."""
    from streamtrain.catalogs.make import Recipe, make_lightcones
    from streamtrain.catalogs.skyoptions import SkyOptions

    words = [*arguments.number, *arguments.settings]
    if len(words) != 1 or not words[0].lstrip("-").isdigit():
        raise ValueError(
            f"catalog make needs the number of lightcones, not '{' '.join(words)}'; settings "
            "(key=value) belong to --for CONFIG"
        )
    for name in ("numbers", "plan"):
        if getattr(arguments, name):
            raise ValueError(f"--{name.replace('numbers', 'number')} belongs to --for CONFIG")
    given, how = chosen(arguments)
    folder, prefix = arguments.out or Path("lightcones"), arguments.prefix or "sky"
    return make_lightcones(
        int(words[0]),
        Recipe(folder, prefix, SkyOptions(**given), **how),
        first_seed=arguments.first_seed or 0,
        processes=arguments.processes,
    )


def chosen(arguments: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the options say: fields of `SkyOptions`, and of `Recipe`. Raises ValueError."""
    from streamtrain.cosmology import Cosmology

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
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"), "this")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
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
