"""The commands `streamtrain catalog make`, `import` and `compare`."""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamtrain.catalogs.synthesis.options import add_flags, chosen, flag_of
from streamtrain.cli.common import taken
from streamtrain.shipped import trained_networks

if TYPE_CHECKING:
    from streamtrain.generator.needed import Needed


BYTES_PER_HALO = 20
"""Size of a halo in a file: position, mass and redshift in float32; a column or a component of the
velocity adds 4."""
SAID_BY_CONFIG = {"out": "--out", "prefix": "--prefix", "first_seed": "--first-seed"}
SAID_BY_CONFIG |= {name: flag_of(name) for name in ("z_range", "min_mass_Msun")}
"""Options that have no place beside --for, and their flags."""


def make_catalog(arguments: argparse.Namespace) -> int:
    """Run `streamtrain catalog make`; raises ValueError with one sentence for bad input."""
    if arguments.config is not None:
        return _make_for(arguments)
    from streamtrain.catalogs.synthesis.make import make

    return make(arguments)


def command_for(error: BaseException, arguments: argparse.Namespace) -> str:
    """The end of a sentence that says that a lightcone file of the configuration is not there: what
    makes it, or of a run, where it is looked for."""
    config, run = (getattr(arguments, name, None) for name in ("config", "folder"))
    if config is None and run is None:
        return ""
    from streamtrain.catalogs.skies import NoFileError

    if not isinstance(error, NoFileError) or error.where.startswith("--"):
        return ""
    ships = str(config if run is None else run) in trained_networks()
    if run is not None or ships:
        page = "; docs/infer.md, 'Networks that ship', says what makes them" if ships else ""
        return (
            f"; this needs the lightcones of {config if run is None else run}: "
            f"{error.where}=[FILES] after the other arguments says where they lie now{page}"
        )
    settings = [word for word in getattr(arguments, "settings", []) if "=" in word]
    words = ["streamtrain", "catalog", "make", "--for", str(config), *settings]
    return f"; lightcones for this configuration: {shlex.join(words)}"


def _make_for(arguments: argparse.Namespace) -> int:
    from streamtrain.catalogs.synthesis.make import make_lightcones
    from streamtrain.config import load_config
    from streamtrain.generator.needed import needed_skies
    from streamtrain.numerics.rng import SPLITS

    words = [*arguments.number, *arguments.settings]
    if plain := [word for word in words if "=" not in word]:
        raise ValueError(
            f"'{plain[0]}' is no key=value setting: how many lightcones is --number TRAIN "
            "VALIDATION TEST with --for"
        )
    given, how = chosen(arguments)
    for name, flag in SAID_BY_CONFIG.items():
        if getattr(arguments, name, None) is not None or name in given:
            raise ValueError(f"{flag} has no place beside --for: {arguments.config} says that")
    numbers = None
    if arguments.numbers is not None:
        if min(arguments.numbers) < 0 or not any(arguments.numbers):
            told = " ".join(map(str, arguments.numbers))
            raise ValueError(f"--number {told}: each must be at least 0, and one of them above it")
        numbers = dict(zip(SPLITS, arguments.numbers, strict=True))
    config = load_config(arguments.config, words)
    needed = needed_skies(config, numbers, given, how)
    if os.environ.get("RANK", "0") == "0":
        for line in _describe(needed):
            print(line)
        for split in SPLITS:
            if not getattr(config.data, split):
                print(
                    f"data.{split} names no files, and none are made for it: "
                    f"'data.{split}=[lightcones/{split}_*.h5]' after {arguments.config} names some"
                )
    if arguments.plan:
        return 0
    for one in needed:
        if one.missing:
            make_lightcones(
                len(one.seeds),
                one.recipe,
                first_seed=one.seeds.start,
                processes=arguments.processes,
            )
    return 0


def _describe(needed: list[Needed]) -> list[str]:
    """What is there and what is to be made."""
    from streamtrain.catalogs.synthesis.synthesize import expected_halos, memory_needed

    lines, files, halos, size, memory = [], 0, 0.0, 0.0, 0.0
    for one in needed:
        if one.there:
            lines.append(f"{one.where}: {_files(len(one.there))} of {one.pattern} there, which fit")
        if not one.missing:
            continue
        options, recipe, number = one.recipe.options, one.recipe, len(one.missing)
        each = expected_halos(options)
        row = BYTES_PER_HALO + 12 * recipe.velocities + 4 * recipe.sfr
        (width, height), (low, high) = options.footprint_deg, options.z_range
        last = f" to {one.missing[-1].name}" if number > 1 else ""
        lines.append(
            f"{one.where}: {_files(number)} to make, {one.missing[0]}{last}, each "
            f"{width:g} x {height:g} deg, z = {low:g}..{high:g}, above "
            f"{options.min_mass_Msun:.3g} Msun{', with a column sfr' if recipe.sfr else ''}: "
            f"about {each:.2g} halos, {_size(each * row)}"
        )
        files, halos, size = files + number, halos + number * each, size + number * each * row
        memory = max(memory, memory_needed(options))
    lines.append(
        f"in all {_files(files)} to make, about {halos:.2g} halos, {_size(size)}; making one "
        f"takes up to {_size(memory)} of memory"
        if files
        else "nothing is to be made"
    )
    return lines


def _files(number: int) -> str:
    return f"{number} file" + ("" if number == 1 else "s")


def _size(size: float) -> str:
    return f"{size / 1e9:.2g} GB" if size >= 1e9 else f"{max(size, 1e5) / 1e6:.3g} MB"


IMPORT_DESCRIPTION = """Convert other programs' halo catalogs to streamtrain's HDF5 lightcones.

The format follows from the file's name, or say --format. Tables with named columns need a map,
--columns map.yaml or --columns x_Mpc=X ..., also with arithmetic like mass_Msun=10**logM;
docs/lightcones.md has examples and all formats. --box takes all files as snapshots of one periodic
box and tiles them into one lightcone."""


def add_import(kinds: Any) -> None:
    """Add the command to those of `streamtrain catalog`."""
    command = kinds.add_parser(
        "import",
        help="convert other programs' halo lightcones and boxes",
        description=IMPORT_DESCRIPTION,
    )
    add = command.add_argument
    add(
        "files",
        nargs="*",
        type=Path,
        metavar="FILE",
        help="a catalog, a quoted pattern, or a folder",
    )
    add("--out", type=Path, default=Path("lightcones"), help="folder [%(default)s]")
    add("--realisation", help="name of the simulated sky; cuts of one sky must share it")
    add(
        "--format",
        help="format of the files: npz, pinocchio-plc, pinocchio-snapshot, rockstar, hlist, pksc, "
        "groups or table",
    )
    add(
        "--columns",
        nargs="+",
        metavar="MAP.yaml|NAME=COLUMN",
        help="which column of a table is what: a YAML file, or x_Mpc=X/0.7 y_Mpc=Y/0.7 z_Mpc=Z/0.7 "
        "mass_Msun=10**logM z_obs=ZCOS+DZ sfr_Msun_yr=SFR and the like, a name with other signs in "
        "quotes; centre_deg=RA,DEC the point of ra_deg and dec_deg that is turned to the line of "
        "sight; table=NAME of several in a file; sure=mass,x where that unit is right but the file "
        "says another or the masses look odd",
    )
    add(
        "--cosmology",
        nargs="+",
        metavar="NAME=VALUE",
        help="whichever of Omega_m, Omega_b, h, n_s, sigma8 the file lacks",
    )
    add(
        "--units",
        choices=("Mpc", "Mpc/h", "kpc/h"),
        help="units of a file that does not state them; PINOCCHIO: Mpc and Msun, or Mpc/h and "
        "Msun/h; groups: lengths in Mpc/h or kpc/h (masses in 1e10 Msun/h)",
    )
    add("--mass-column", help="mass of a .list [Mvir] or of groups [GroupMass]")
    add(
        "--axis",
        nargs=3,
        type=float,
        metavar=("X", "Y", "Z"),
        help="axis of a PINOCCHIO light cone",
    )
    add(
        "--observer",
        nargs=3,
        type=float,
        metavar=("X", "Y", "Z"),
        help="where the observer of a table, npz or .pksc stands, comoving Mpc without h "
        "[the origin]",
    )
    add(
        "--line-of-sight",
        nargs="?",
        const="",
        metavar="AXIS",
        help="direction in which the observer of a table, npz or .pksc looks: x, y, z, -x, -y or "
        "-z [z]",
    )
    for axis in ("-x", "-y", "-z"):  # after --line-of-sight argparse takes them for options
        add(axis, dest="line_of_sight", action="store_const", const=axis, help=argparse.SUPPRESS)
    add(
        "--footprint-deg",
        nargs=4,
        type=float,
        metavar=("RA_MIN", "RA_MAX", "DEC_MIN", "DEC_MAX"),
        help="keep this part of the sky",
    )
    add("--z-range", nargs=2, type=float, metavar=("LOW", "HIGH"), help="keep these redshifts")
    add("--min-mass", type=float, metavar="MSUN", help="keep halos above this mass")
    add(
        "--box",
        nargs="?",
        type=float,
        const=0.0,
        metavar="SIDE_MPC",
        help="tile snapshots of a periodic box into a lightcone of --footprint-deg and --z-range; "
        "its side, where the files do not state it",
    )
    add(
        "--redshifts",
        nargs="+",
        type=float,
        metavar="Z",
        help="redshifts of snapshots that do not state them",
    )
    add("--seed", type=int, default=0, help="seed of the tiling [%(default)s]")
    command.set_defaults(run=run_import)


def run_import(arguments: argparse.Namespace) -> int:
    """Run the command; raises ValueError with one sentence for bad input."""
    from streamtrain.catalogs.readers import Options
    from streamtrain.catalogs.readers.columnmap import map_of_words
    from streamtrain.catalogs.readers.halos import is_pattern
    from streamtrain.catalogs.readers.importing import import_boxes, import_catalogs
    from streamtrain.catalogs.readers.view import View

    files, words = list(arguments.files), list(arguments.columns or [])
    for word in words[1:]:  # a file after --columns
        if "=" not in word and (Path(word).exists() or is_pattern(Path(word))):
            words.remove(word)
            files.append(Path(word))
    if not files:
        raise ValueError("catalog import needs a FILE (before --columns and --cosmology)")
    options = Options(
        columns=map_of_words(words) if words else None,
        cosmology=_numbers(arguments.cosmology),
        h_units=None if arguments.units is None else arguments.units != "Mpc",
        length=arguments.units,
        axis=arguments.axis,
        mass=arguments.mass_column,
        view=View(arguments.observer, arguments.line_of_sight),
    )
    common = taken(arguments, "format", "realisation", "footprint_deg", "z_range")
    common |= {"options": options, "min_mass_Msun": arguments.min_mass}
    if arguments.box is None:
        if arguments.redshifts is not None:
            raise ValueError("--redshifts is of snapshots, with --box")
        return import_catalogs(files, arguments.out, **common)
    if arguments.footprint_deg is None or arguments.z_range is None:
        raise ValueError("--box needs --footprint-deg and --z-range: the field to fill")
    common |= taken(arguments, "redshifts", "seed")
    return import_boxes(files, arguments.out, side_Mpc=arguments.box or None, **common)


def _numbers(settings: list[str] | None) -> dict[str, float] | None:
    """`h=0.7` and its like as a dict."""
    if settings is None:
        return None
    numbers = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        try:
            numbers[name] = float(value)
        except ValueError:
            raise ValueError(
                f"--cosmology takes NAME=VALUE like h=0.7, not '{setting}' (files go before it)"
            ) from None
    return numbers


COMPARE_DESCRIPTION = """What a line map of a lightcone looks like, next to that of others.

Paints the same field of every lightcone (any format that catalog info reads) with one luminosity
model: mean temperature, standard deviation and skewness of voxels of 2.5 x 2.5 x 10 Mpc, and the
power spectrum. The last rows compare the others with the first."""


def add_compare(kinds: Any) -> None:
    """Add the command to those of `streamtrain catalog`."""
    command = kinds.add_parser(
        "compare",
        help="line maps of lightcones next to each other: mean, scatter, power",
        description=COMPARE_DESCRIPTION,
    )
    add = command.add_argument
    add("files", nargs="+", type=Path, metavar="FILE")
    add(
        "--fov-deg", type=float, metavar="DEG", help="side of the field [what fits in all, up to 2]"
    )
    add(
        "--nu-GHz",
        nargs=2,
        type=float,
        metavar=("HIGH", "LOW"),
        default=(34.0, 26.0),
        help="band [34 26]",
    )
    add(
        "--nu-rest-GHz",
        type=float,
        default=115.27,
        metavar="GHZ",
        help="rest frequency of the line [%(default)s]",
    )
    add("--model", default="li16", help="luminosity model, or file.py:function [%(default)s]")
    add(
        "--min-mass",
        type=float,
        metavar="MSUN",
        help="halos above this mass shine [the highest limit]",
    )
    add("--seed", type=int, default=0, help="seed of the luminosities' scatter [%(default)s]")
    command.set_defaults(run=run_compare)


def run_compare(arguments: argparse.Namespace) -> int:
    """Run the command; raises ValueError with one sentence for bad input."""
    from streamtrain.preview.compare_catalogs import compare

    given = taken(arguments, "fov_deg", "nu_rest_GHz", "model", "seed")
    band, least = tuple(arguments.nu_GHz), arguments.min_mass
    print(compare(arguments.files, min_mass_Msun=least, nu_GHz=band, **given))
    return 0


def add_make(command: argparse.ArgumentParser) -> None:
    """Declare the options; what is not given stays None, so that a YAML file can set it."""
    add = command.add_argument
    add(
        "number", nargs="*", metavar="N", help="how many lightcones; with --for: key=value settings"
    )
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
        help="with --for: how many of each [64 8 8]",
    )
    add("--plan", action="store_true", help="with --for: say what would be made, and stop")
    add("--out", type=Path, help="folder [lightcones]")
    add("--prefix", help="start of the file names [sky]")
    add("--first-seed", type=int, help="seed of the first lightcone [0]")
    add(
        "--options",
        type=Path,
        metavar="FILE",
        help="YAML file with any of the options below, by the names that a lightcone's provenance "
        "has (footprint_deg, z_range, min_mass_Msun, cosmology: {Omega_m: ...} ...), and with "
        "what is drawn for every sky (vary: ...); skies.yaml, a prior, ships with streamtrain",
    )
    add_flags(command)
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
