"""The commands that read or write maps: `streamtrain infer`, `map info` and `export`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from streamtrain.cli.common import (
    add_no_recalibration,
    add_run,
    add_settings,
    config_of,
    config_of_run,
    resources_of,
    taken,
)
from streamtrain.machine.progress import LOADING, said_if_slow
from streamtrain.maps import READING

EXPORT_DESCRIPTION = """A finite set of samples in files, for other tools.

hdf5: one file with cubes, labels, counts, all that was drawn, and the recipe. limlam: a folder with
an npz file per sample as limlam_mocker writes them, maps in their units. comap: a folder with an
HDF5 file per sample as COMAP's pipeline writes its maps, in K, with noise and hits where they are
known. docs/infer.md lists what they hold; `streamtrain infer` reads all."""


def add_export(
    commands: Any, configured: argparse.ArgumentParser, device: argparse.ArgumentParser
) -> None:
    """Add the command; configured, device: parsers of what it shares with others."""
    command = commands.add_parser(
        "export",
        parents=[configured, device],
        help="samples in files, for other tools",
        description=EXPORT_DESCRIPTION,
    )
    add = command.add_argument
    add("--samples", type=int, required=True, help="how many")
    add(
        "--out", type=Path, required=True, help="file (hdf5) or folder (limlam, comap); must be new"
    )
    add(
        "--format",
        choices=("hdf5", "limlam", "comap"),
        default="hdf5",
        help="what is written [%(default)s]",
    )
    add("--split", default="train", help="train, validation or test [%(default)s]")
    add("--first-index", type=int, default=0, help="index of the first sample [%(default)s]")
    add(
        "--raw",
        action="store_true",
        help="maps in their units, before log_modulus and other transforms; always so in folders",
    )
    command.set_defaults(run=run_export)


def run_export(arguments: argparse.Namespace) -> int:
    """Run the command; raises ValueError with one sentence for bad input."""
    from streamtrain.generator.export import export

    resources = resources_of(arguments)
    path = export(
        config_of(arguments),
        arguments.out,
        **taken(arguments, "samples", "first_index", "split", "format"),
        before_transforms=arguments.raw,
        resources=resources,
    )
    resources.progress.close()
    print(f"wrote {path}: {arguments.samples} samples")
    return 0


INFO_DESCRIPTION = """\
What a map file holds: layout, axes, units, band, field, noise, hits, what its pipeline has done.

Ends with the lines of a configuration whose maps have these voxels. Options say what the file does
not; docs/infer.md has the layouts."""


def add_map(commands: Any) -> None:
    """Add the command to those of `streamtrain`."""
    kinds = commands.add_parser(
        "map", help="inspect a map file", description="Inspect a map file."
    ).add_subparsers(metavar="COMMAND", required=True)
    command = kinds.add_parser(
        "info",
        help="what a map file holds, and the grid of a configuration for it",
        description=INFO_DESCRIPTION,
    )
    command.add_argument("files", nargs="+", type=Path, metavar="FILE", help="FITS, npz or HDF5")
    _add_reading(command)
    command.set_defaults(run=run_map_info)


def run_map_info(arguments: argparse.Namespace) -> int:
    """Run the command; raises ValueError with one sentence for bad input."""
    with said_if_slow(LOADING):
        from streamtrain.maps.info import describe
        from streamtrain.maps.read import read_map

    said = taken(arguments, *READING)
    for number, file in enumerate(arguments.files):
        with said_if_slow(f"reading {file}"):
            sky = read_map(file, **said, need_units=False)
        print(("\n" if number else "") + describe(sky))
    return 0


def _add_reading(command: argparse.ArgumentParser) -> None:
    """Add the options of `READING`."""
    add = command.add_argument
    add(
        "--units",
        help="units of a map that does not state them, or wrongly: uK, mK, K, Jy/sr, kJy/sr or "
        "MJy/sr",
    )
    add(
        "--nu-rest-GHz",
        type=float,
        metavar="GHZ",
        help="rest frequency of the line, where the map does not state it, or wrongly",
    )
    add("--index", type=int, help="which sample of a file of streamtrain export")
    add("--hdu", help="which image of a FITS file that holds several: number or EXTNAME")
    add(
        "--no-value",
        type=float,
        metavar="NUMBER",
        help="what stands for no value besides NaN; nan: nothing else does",
    )
    add(
        "--sum-feeds",
        action="store_true",
        help="sum the feeds of a file with a map for each, with weights 1/sigma^2",
    )


INFER_DESCRIPTION = """\
The luminosity function of a map of your own, predicted by a trained network.

RUN is the folder of a training; MAP a FITS cube, an npz file (limlam_mocker's, or arrays with
edges) or an HDF5 file; docs/infer.md has the layouts. The map must be of the line, units, band,
field and voxels that the network was trained on; --regrid brings it to these voxels. Writes
NAME.ecsv, NAME.json and NAME.png."""


def add_infer(commands: Any, device: argparse.ArgumentParser) -> None:
    """Add the command to those of `streamtrain`; device: the parser of --device."""
    command = commands.add_parser(
        "infer",
        parents=[device],
        help="the luminosity function of a map of your own",
        description=INFER_DESCRIPTION,
    )
    add = command.add_argument
    add_run(command)
    add("map", type=Path, metavar="MAP", help="FITS, npz or HDF5")
    add_settings(command)
    _add_reading(command)
    add("--regrid", action="store_true", help="bring the map to the network's voxels")
    add(
        "--centre",
        nargs=2,
        type=float,
        metavar=("RA", "DEC"),
        help="with --regrid: middle of the field in the map's coordinates [deg]; default: the "
        "middle of the map",
    )
    add(
        "--rayleigh-jeans",
        action="store_true",
        help="convert between Jy/sr and brightness temperature",
    )
    add(
        "--anyway",
        action="store_true",
        help="also read a map that was processed otherwise than the maps of the training",
    )
    add(
        "--samples",
        type=int,
        metavar="N",
        help="maps of the run's prior that the map is compared with, half of them on other skies "
        "than the training's; 0: none [as many as the run has kept, or 2000]",
    )
    add(
        "--measure",
        action="store_true",
        help="measure the network's errors on its test set again, and look at maps of the prior "
        "anew",
    )
    add(
        "--functions",
        type=int,
        default=4000,
        help="luminosity functions that are drawn from the posterior, where the network predicts "
        "numbers of halos [%(default)s]",
    )
    add(
        "--seed",
        type=int,
        default=0,
        help="which functions are drawn, and which maps are painted [%(default)s]",
    )
    add(
        "--functions-out",
        type=Path,
        metavar="FILE",
        help="an npz file for the drawn functions (docs/posterior.md); default: none is written",
    )
    add(
        "--check",
        action="store_true",
        help="paint maps from the posterior and compare the map with them, NAME_check.png; the "
        "first time it is calibrated on maps of the prior, which takes minutes",
    )
    add(
        "--painted",
        type=int,
        default=256,
        metavar="NUMBER",
        help="with --check: maps that are painted [%(default)s]",
    )
    add(
        "--check-maps",
        type=int,
        default=300,
        metavar="NUMBER",
        help="with --check: maps of the prior that the map is ranked among; no p is below 1 / "
        "(NUMBER + 1) [%(default)s]",
    )
    add(
        "--noise-level",
        type=float,
        metavar="SIGMA",
        help="with --check: noise of the map, as observe.noise.sigma_uK quotes it, where that "
        "differs from map to map; default: it is read off the map",
    )
    add("--out", type=Path, help="folder; default: infer in the run folder")
    add_no_recalibration(command)
    command.set_defaults(run=run_infer)


def run_infer(arguments: argparse.Namespace) -> int:
    """Run the command; raises ValueError with one sentence for bad input."""
    with said_if_slow(LOADING):
        from streamtrain.evaluate.inference.infer import CheckOptions, Options, infer

    wanted = CheckOptions(arguments.painted, arguments.check_maps, arguments.noise_level)
    if not arguments.check and wanted != CheckOptions():
        raise ValueError("--painted, --check-maps and --noise-level are for --check")
    names = ("regrid", "rayleigh_jeans", "anyway", "samples", "measure", "out", "functions", "seed")
    options = Options(
        **taken(arguments, *READING, *names, "functions_out"),
        centre_deg=None if arguments.centre is None else tuple(arguments.centre),
        check=wanted if arguments.check else None,
    )
    infer(
        config_of_run(arguments),
        arguments.map,
        options,
        recalibrated=arguments.recalibrated,
        resources=resources_of(arguments),
    )
    return 0
