"""The options of a synthetic lightcone, each said once: name, unit, range, default, one sentence.

From the fields of `SkyOptions` and `FileOptions` follow the flags of `streamtrain catalog make`,
the keys of its --options file, what the section `data.train.synthesize` says of them, and the
checks.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from streamtrain.catalogs.synthesis.vary import SkyPrior, nested
from streamtrain.cosmology import Cosmology
from streamtrain.machine.files import read_text, reading
from streamtrain.schema import convert, nearest, setting
from streamtrain.shipped import find_shipped
from streamtrain.yamltext import parse_yaml

DEFAULT_COSMOLOGY = Cosmology()
"""Cosmology of limlam_mocker and COMAP."""


def option(
    default: Any,
    help: str,
    unit: str = "",
    span: tuple[float, float] | None = None,
    flag: str = "",
    later: bool = False,
) -> Any:
    """A field of the options: its default, one sentence, unit and range of its numbers, and its
    flag with what follows it; without one, it is for the --options file alone.

    later: files of before do not have it, and it is left out of the record where it is the default.
    """
    metadata = {"help": help, "unit": unit, "span": span, "flag": flag, "later": later}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class SkyOptions:
    """Everything but the seed that decides which halos a lightcone holds.

    Plain data does: one side of the footprint for both, some parameters of the cosmology for the
    others as in COMAP's, text for a number. Raises ValueError, one sentence, for an option that is
    of another type, out of its range, or unknown as a mass function or bias.
    """

    footprint_deg: tuple[float, float] = option(
        (2.4, 2.4),
        "side on the sky, or width in ra and dec, around the line of sight; a field of 1.4 deg can "
        "roll freely in the default",
        "deg",
        (0.05, 10.0),
        "--footprint-deg DEG",
    )
    z_range: tuple[float, float] = option(
        (2.38, 3.45),
        "observed redshifts; the default is CO(1-0) at 26-34 GHz",
        span=(0.1, 12.0),
        flag="--z-range LOW HIGH",
    )
    min_mass_Msun: float = option(
        2.5e10, "halos above this mass", "Msun", (1e8, 1e14), "--min-mass MSUN"
    )
    cosmology: Cosmology = option(DEFAULT_COSMOLOGY, "Omega_m, Omega_b, h, n_s, sigma8; flat")
    cell_Mpc: float = option(
        2.5,
        "side of the Lagrangian cells; the accuracy is stated for the default",
        "Mpc",
        (1.0, 8.0),
    )
    mass_function: str = option(
        "tinker08",
        "tinker08, watson13_fof or colossus:MODEL[:DEFINITION]",
        flag="--mass-function NAME",
    )
    bias: str = option("tinker10", "tinker10 or colossus:MODEL[:DEFINITION]", flag="--bias NAME")
    abundance: float = option(
        1.0, "factor on the number of halos of every mass", span=(0.1, 10.0), later=True
    )
    abundance_tilt: float = option(
        0.0,
        "power of (M / 1e12 Msun) that the number of halos is also multiplied by",
        span=(-1.0, 1.0),
        later=True,
    )
    bias_factor: float = option(
        1.0, "factor on the large-scale bias of every mass", span=(0.3, 3.0), later=True
    )
    infall: float = option(
        0.0,
        "displacements on scales below 2 Mpc are 1 + this times those of 2LPT",
        span=(-1.0, 2.0),
        later=True,
    )
    vary: SkyPrior | None = option(
        None, "what is drawn for every sky, instead of being the same for all", later=True
    )
    num_slabs: int | None = option(
        None,
        "parts along ra that are made one after the other; by default as few as keep a part below "
        "1.5e8 cells",
        span=(1, 64),
    )

    def __post_init__(self) -> None:
        from streamtrain.catalogs.synthesis.massfunction import halo_bias, mass_function

        hints = get_type_hints(SkyOptions)
        for one in fields(self):
            value = _plain(one.name, getattr(self, one.name))
            if not isinstance(value, Cosmology | SkyPrior):
                value = convert(value, hints[one.name], one.name)
                _check_range(one, value)
            object.__setattr__(self, one.name, value)
        if self.z_range[1] - self.z_range[0] < 0.01:
            raise ValueError(
                f"z_range {self.z_range} must run from the lower to the higher redshift and span "
                "at least 0.01"
            )
        mass_functions, biases = [self.mass_function], [self.bias]
        if self.vary is not None:
            self._check_drawn(self.vary)
            mass_functions += self.vary.mass_function.choice if self.vary.mass_function else ()
            biases += self.vary.bias.choice if self.vary.bias else ()
        for name in mass_functions:
            mass_function(name)
        for name in biases:
            halo_bias(1e12, 1.0, DEFAULT_COSMOLOGY, name)

    def _check_drawn(self, prior: SkyPrior) -> None:
        """Refuse what cannot be drawn, and what is given besides."""
        prior.check(SPANS, self.cosmology.to_dict())
        for name in prior.said():
            given, default = (_of(options, name) for options in (self, SkyOptions))
            if given != default:
                raise ValueError(f"{name} = {given} is given, and drawn by vary.{name}: omit one")

    def of(self, seed: int) -> SkyOptions:
        """The options of the sky of a seed: these, with what `vary` draws for it."""
        if self.vary is None:
            return self
        drawn = nested(self.vary.draw(seed, SPANS))
        cosmology = replace(self.cosmology, **drawn.pop("cosmology", {}))
        return replace(self, vary=None, cosmology=cosmology, **drawn)

    def drawn(self, seed: int) -> dict[str, Any]:
        """What `vary` draws for the sky of a seed, as an options file takes it; else nothing."""
        return nested(self.vary.draw(seed, SPANS)) if self.vary else {}

    def to_dict(self) -> dict[str, Any]:
        """The options that decide the halos, as JSON can hold them; without later ones that have
        their default."""
        values = {
            one.name: getattr(self, one.name)
            for one in fields(self)
            if not one.metadata["later"] or getattr(self, one.name) != one.default
        }
        values |= {name: list(values[name]) for name in ("footprint_deg", "z_range")}
        if self.vary is not None:
            values["vary"] = self.vary.to_dict()
        del values["num_slabs"]
        return values | {"cosmology": self.cosmology.to_dict()}


LATER = {one.name: one.default for one in fields(SkyOptions) if one.metadata["later"]}
"""What holds in the record of a lightcone that does not name them."""
SPANS: dict[str, tuple[float, float]] = {
    one.name: one.metadata["span"] for one in fields(SkyOptions) if one.metadata["span"]
} | {
    f"cosmology.{one.name}": (one.metadata["low"], one.metadata["high"])
    for one in fields(Cosmology)
}
"""Lowest and highest value of the options that are numbers, by their names in `SkyPrior`."""


def _of(options: Any, name: str) -> Any:
    """The option of a name such as "cosmology.h", or its default for the class."""
    for part in name.split("."):
        options = getattr(options, part)
    return options


@dataclass(frozen=True, kw_only=True)
class FileOptions:
    """What a file holds of its halos besides their places, masses and redshifts."""

    velocities: bool = option(
        True,
        "keep the velocities, which painting does not need (z_obs contains them)",
        flag="--no-velocities",
    )
    sfr: bool = option(
        False, 'add the column "sfr" of star-formation rates [Msun/yr]', flag="--sfr"
    )


def _plain(name: str, value: Any) -> Any:
    """A value as `convert` takes it: no arrays, both sides, a whole cosmology."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if name == "footprint_deg":
        sides = tuple(value) if isinstance(value, list | tuple) else (value,)
        if len(sides) not in (1, 2):
            raise ValueError(f"footprint_deg {value!r} must be one number or two")
        return sides if len(sides) == 2 else sides * 2
    if name == "cosmology" and not isinstance(value, Cosmology):
        names = DEFAULT_COSMOLOGY.to_dict()
        if not isinstance(value, Mapping):
            raise ValueError(f"cosmology must be a mapping of {', '.join(names)}")
        return Cosmology.from_dict(
            names | {key: convert(v, float, f"cosmology.{key}") for key, v in value.items()}
        )
    return value


def _check_range(one: Field[Any], value: Any) -> None:
    if one.metadata["span"] is None or value is None:
        return
    (low, high), unit = one.metadata["span"], one.metadata["unit"]
    for number in value if isinstance(value, tuple) else (value,):
        if not low <= number <= high:
            text = f"{one.name} {number:g} {unit} must lie in {low:g}..{high:g} {unit}"
            raise ValueError(" ".join(text.split()))


def section_of(name: str, unsaid: str = "") -> Any:
    """A field of a section that is the option `name`: its default or, if that depends on other
    settings, none and a text that says what then holds; none, too, for a later one."""
    one = SkyOptions.__dataclass_fields__[name]
    said, unit = one.metadata["help"].partition(";")[0], one.metadata["unit"]
    help = f"{said} [{unit}]" if unit else said
    low, high = one.metadata["span"] or (None, None)
    if later := one.metadata["later"]:
        unsaid = "none" if one.default is None else f"{one.default:g}"
    if unsaid:
        return setting(None, f"{help}; default: {unsaid}", low=low, high=high, later=later)
    return setting(one.default, help, low=low, high=high)


def _with_flags() -> list[Field[Any]]:
    return [one for one in (*fields(SkyOptions), *fields(FileOptions)) if one.metadata["flag"]]


def flag_of(name: str) -> str:
    """The flag of an option, as "--min-mass"."""
    return next(one.metadata["flag"].split()[0] for one in _with_flags() if one.name == name)


def add_flags(command: argparse.ArgumentParser) -> None:
    """Declare the options; what is not given stays None, so that a YAML file can set it."""
    for one in _with_flags():
        flag, *metavar = one.metadata["flag"].split()
        help, default = one.metadata["help"], one.default
        if isinstance(default, bool):
            action = "store_false" if default else "store_true"
            help = f"do not {help}" if default else help
            command.add_argument(flag, dest=one.name, default=None, action=action, help=help)
            continue
        values = default if isinstance(default, tuple) else (default,)
        texts = [value if isinstance(value, str) else f"{value:g}" for value in values]
        several = len(metavar) > 1
        command.add_argument(
            flag,
            dest=one.name,
            type=type(values[0]),
            nargs=(len(metavar) if several else "+") if isinstance(default, tuple) else None,
            metavar=tuple(metavar) if several else metavar[0],
            help=f"{help} [{' '.join(texts)}]",
        )
    for one in fields(Cosmology):
        command.add_argument(
            f"--{one.name.replace('_', '-')}",
            type=float,
            dest=one.name,
            metavar="VALUE",
            help=f"{one.metadata['help']} [{one.default:g}]",
        )


def chosen(arguments: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the command line says, and the file of --options where it says nothing: of the fields of
    `SkyOptions`, and of those of a `Recipe`. Raises ValueError."""
    given = _from_file(arguments.options) if arguments.options else {}
    flags = {one.name: getattr(arguments, one.name, None) for one in _with_flags()}
    given |= {name: value for name, value in flags.items() if value is not None}
    parameters = {one.name: getattr(arguments, one.name) for one in fields(Cosmology)}
    parameters = {name: value for name, value in parameters.items() if value is not None}
    parameters = {**given.get("cosmology", {}), **parameters}
    drawn = given.get("vary") or {}
    twice = [name for name in given if name in drawn and name != "cosmology"]
    twice += [name for name in parameters if name in (drawn.get("cosmology") or {})]
    if twice:  # also where what is given is the default, which the options cannot tell
        raise ValueError(f"{twice[0]} is given, and drawn by vary of {arguments.options}: omit one")
    given["cosmology"] = _plain("cosmology", parameters)
    how = {one.name: given.pop(one.name) for one in fields(FileOptions) if one.name in given}
    return given, how | {"device": arguments.device}


def _from_file(path: Path) -> dict[str, Any]:
    """The options of a YAML file, or of one that ships with streamtrain; ValueError with its name
    for one that does not fit."""
    path = find_shipped(path)
    hints = get_type_hints(FileOptions)
    names = [one.name for kind in (SkyOptions, FileOptions) for one in fields(kind)]
    with reading(path, ValueError, "it cannot be read"):
        try:
            values = parse_yaml(read_text(path), "this")
        except UnicodeDecodeError:
            raise ValueError("this is not a text file") from None
        if not isinstance(values, dict):
            raise ValueError("options must be a mapping of names to values")
        for name, value in values.items():
            if name not in names:
                raise ValueError(f"unknown option '{name}': {nearest(str(name), names)}")
            if name in hints:
                convert(value, hints[name], name)
        SkyOptions(**{name: value for name, value in values.items() if name not in hints})
    return values
