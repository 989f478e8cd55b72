"""The arguments of `streamtrain catalog import`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

DESCRIPTION = """Convert other programs' halo catalogs to streamtrain's HDF5 lightcones.

The format follows from the file's name, or say --format. Tables with named columns need a map,
--columns map.yaml or --columns x_Mpc=X ..., also with arithmetic like mass_Msun=10**logM;
docs/lightcones.md has examples and all formats. --box takes all files as snapshots of one periodic
box and tiles them into one lightcone."""


def add_import(kinds: Any) -> None:
    """Add the command to those of `streamtrain catalog`."""
    command = kinds.add_parser(
        "import",
        help="convert other programs' halo lightcones and boxes",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = command.add_argument
    add("files", nargs="*", type=Path, metavar="FILE", help="or a quoted pattern, or a folder")
    add("--out", type=Path, default=Path("lightcones"), help="folder [%(default)s]")
    add("--realisation", help="name of the simulated sky; cuts of one sky must share it")
    add(
        "--format",
        help="npz, pinocchio-plc, pinocchio-snapshot, rockstar, hlist, pksc, groups or table",
    )
    add(
        "--columns",
        nargs="+",
        metavar="MAP.yaml|NAME=COLUMN",
        help="which column of a table is what: a YAML file, or x_Mpc=X/0.7 y_Mpc=Y/0.7 z_Mpc=Z/0.7 "
        "mass_Msun=10**logM z_obs=ZCOS+DZ and the like; centre_deg=RA,DEC the point of ra_deg and "
        "dec_deg that is turned to the line of sight; table=NAME of several in a file; sure=mass,x "
        "where that unit is right but the file says another or the masses look odd",
    )
    add(
        "--cosmology",
        nargs="+",
        metavar="NAME=VALUE",
        help="those of Omega_m, Omega_b, h, n_s, sigma8 that the file lacks",
    )
    add(
        "--units",
        choices=("Mpc", "Mpc/h", "kpc/h"),
        help="of a PINOCCHIO file that does not say: Mpc and Msun, or Mpc/h and Msun/h; of groups "
        "that do not say: lengths in Mpc/h or kpc/h (masses 1e10 Msun/h)",
    )
    add("--mass-column", help="of a .list [Mvir] or of groups [GroupMass]")
    add("--axis", nargs=3, type=float, metavar=("X", "Y", "Z"), help="of a PINOCCHIO light cone")
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
        help="of a table, npz or .pksc: x, y, z, -x, -y or -z [z]",
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
    add("--redshifts", nargs="+", type=float, metavar="Z", help="of snapshots that do not say")
    add("--seed", type=int, default=0, help="of the tiling [%(default)s]")
    command.set_defaults(run=run_import)


def run_import(arguments: argparse.Namespace) -> int:
    """Run the command; raises ValueError with one sentence for bad input."""
    from streamtrain.catalogs.importing import import_boxes, import_catalogs
    from streamtrain.catalogs.readers import Options
    from streamtrain.catalogs.readers.chunks import is_pattern
    from streamtrain.catalogs.readers.columnmap import map_of_words
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
    common: dict[str, Any] = {
        "format": arguments.format,
        "options": options,
        "realisation": arguments.realisation,
        "min_mass_Msun": arguments.min_mass,
        "footprint_deg": arguments.footprint_deg,
        "z_range": arguments.z_range,
    }
    if arguments.box is None:
        if arguments.redshifts is not None:
            raise ValueError("--redshifts is of snapshots, with --box")
        return import_catalogs(files, arguments.out, **common)
    if arguments.footprint_deg is None or arguments.z_range is None:
        raise ValueError("--box needs --footprint-deg and --z-range: the field to fill")
    return import_boxes(
        files,
        arguments.out,
        side_Mpc=arguments.box or None,
        redshifts=arguments.redshifts,
        seed=arguments.seed,
        **common,
    )


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
