"""The arguments of `streamtrain catalog compare`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

DESCRIPTION = """What a line map of a lightcone looks like, next to that of others.

Paints the same field of every lightcone (any format that catalog info reads) with one luminosity
model: mean temperature, standard deviation and skewness of voxels of 2.5 x 2.5 x 10 Mpc, and the
power spectrum. The last rows compare the others with the first."""


def add_compare(kinds: Any) -> None:
    """Add the command to those of `streamtrain catalog`."""
    command = kinds.add_parser(
        "compare",
        help="line maps of lightcones next to each other: mean, scatter, power",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
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
        "--nu-rest-GHz", type=float, default=115.27, metavar="GHZ", help="of the line [%(default)s]"
    )
    add("--model", default="li16", help="luminosity model, or file.py:function [%(default)s]")
    add("--min-mass", type=float, metavar="MSUN", help="halos above it shine [the highest limit]")
    add("--seed", type=int, default=0, help="of the luminosities' scatter [%(default)s]")
    command.set_defaults(run=run_compare)


def run_compare(arguments: argparse.Namespace) -> int:
    """Run the command; raises ValueError with one sentence for bad input."""
    from streamtrain.evaluate.compare import compare

    print(
        compare(
            arguments.files,
            fov_deg=arguments.fov_deg,
            min_mass_Msun=arguments.min_mass,
            nu_GHz=tuple(arguments.nu_GHz),
            nu_rest_GHz=arguments.nu_rest_GHz,
            model=arguments.model,
            seed=arguments.seed,
        )
    )
    return 0
