"""The arguments of `streamtrain bench`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from streamtrain.cli.common import config_of, device_of, taken


def add_bench(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    """Add the command to those of `streamtrain`."""
    command = commands.add_parser(
        "bench",
        parents=parents,
        help="speed of generation and training, and of what bounds it",
        description="Time the generation of samples, the training on them, and both together.",
    )
    add = command.add_argument
    add("--seconds", type=float, default=5.0, help="duration of each measurement [%(default)s]")
    add("--out", type=Path, help="write the numbers to this JSON file")
    add(
        "--floor",
        action="store_true",
        help="also say what a sample must cost: bytes, deposits and instructions over the rates "
        "measured here",
    )
    add(
        "--alternatives",
        action="store_true",
        help="also time what one would write otherwise: NumPy bincount, limlam_mocker's pipeline, "
        "torch index_add_, on a GPU CuPy as well",
    )
    add(
        "--models",
        action="store_true",
        help="also time every luminosity model, and painting alone beside all operators",
    )
    add(
        "--training",
        action="store_true",
        help="also time a step of the 2-D and the 3-D network with each option (bfloat16, "
        "train.compile, train.channels_last, a fused optimiser), and say which pays",
    )
    add(
        "--scaling",
        action="store_true",
        help="also time a sample against halos, voxels, batch size and size of the lightcone",
    )
    add("--figure", type=Path, metavar="PNG", help="draw the scaling; implies --scaling")
    add(
        "--cut",
        type=Path,
        metavar="LIGHTCONE",
        help="also time fields painted out of this wide lightcone beside lightcones that hold one",
    )
    add(
        "--ranks",
        type=int,
        default=0,
        metavar="N",
        help="also train with 1 to N processes (on a CPU with a core each): start-up and speed",
    )
    command.set_defaults(run=_bench)


def _bench(arguments: argparse.Namespace) -> int:
    from streamtrain.bench.report import Wanted, bench

    if arguments.ranks < 0:
        raise ValueError(f"--ranks {arguments.ranks} must be a number of processes")
    return bench(
        config_of(arguments),
        device=device_of(arguments),
        seconds=arguments.seconds,
        out=arguments.out,
        wanted=Wanted(
            **taken(arguments, "alternatives", "floor", "models", "training"),
            **taken(arguments, "cut", "ranks", "figure"),
            scaling=arguments.scaling or arguments.figure is not None,
        ),
    )
