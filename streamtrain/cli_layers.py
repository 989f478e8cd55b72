"""The arguments of `streamtrain layers`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

DESCRIPTION = """What the layers of a trained network do with one test map.

Draws into the folder of the run, or --out: filters.png, the first layer's filters with the largest
weights; activations.png, what the layers put out for the map; gradient.png, the derivative of an
output with respect to every voxel, in map units where the map's transform can be undone."""


def add_layers(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    """Add the command to those of `streamtrain`. parents: parsers of common options."""
    command = commands.add_parser(
        "layers",
        parents=parents,
        help="filters, activations and gradient of a trained network",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = command.add_argument
    add("folder", type=Path, metavar="RUN", help="the folder of a run")
    add("settings", nargs="*", metavar="key=value", help="such as train.threads=2, data.test=[...]")
    add("--index", type=int, default=0, help="of the test sample [%(default)s]")
    add(
        "--log10-L",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="luminosity range of the output that gradient.png explains [all bins]",
    )
    add("--class", dest="class_name", metavar="NAME", help="or its class [the true one]")
    add("--out", type=Path, help="folder; default: that of the run")
    command.set_defaults(run=run_layers)


def run_layers(arguments: argparse.Namespace) -> int:
    """Run the command; raises ValueError with one sentence for bad input."""
    from streamtrain.evaluate.show_layers import show_layers
    from streamtrain.train.distributed import choose_device

    bounds = arguments.log10_L
    print(
        show_layers(
            arguments.folder,
            index=arguments.index,
            bounds=None if bounds is None else (bounds[0], bounds[1]),
            class_name=arguments.class_name,
            settings=arguments.settings,
            out=arguments.out,
            device=str(choose_device(arguments.device)),
        )
    )
    return 0
