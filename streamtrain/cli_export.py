"""The arguments of `streamtrain export`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

DESCRIPTION = """A finite set of samples in files, for other tools.

hdf5: one file with cubes, labels, counts, all that was drawn, and the recipe. limlam: a folder with
an npz file per sample as limlam_mocker writes them, maps in their units. docs/infer.md lists what
they hold; `streamtrain infer` reads both."""


def add_export(
    commands: Any, configured: argparse.ArgumentParser, device: argparse.ArgumentParser
) -> None:
    """Add the command; configured, device: parsers of what it shares with others."""
    command = commands.add_parser(
        "export",
        parents=[configured, device],
        help="samples in files, for other tools",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = command.add_argument
    add("--samples", type=int, required=True, help="how many")
    add("--out", type=Path, required=True, help="file (hdf5) or folder (limlam); must be new")
    add("--format", choices=("hdf5", "limlam"), default="hdf5", help="[%(default)s]")
    add("--split", default="train", help="train, validation or test [%(default)s]")
    add("--first-index", type=int, default=0, help="of the first sample [%(default)s]")
    add(
        "--raw",
        action="store_true",
        help="maps in their units, before log_modulus and other transforms; always so in limlam",
    )
    command.set_defaults(run=run_export)


def run_export(arguments: argparse.Namespace) -> int:
    """Run the command; raises ValueError with one sentence for bad input."""
    from streamtrain.config import load_config
    from streamtrain.cores import num_cores
    from streamtrain.maps.export import export
    from streamtrain.progress import Progress
    from streamtrain.train.distributed import choose_device

    config, progress = load_config(arguments.config, arguments.settings), Progress()
    path = export(
        config,
        arguments.out,
        samples=arguments.samples,
        first_index=arguments.first_index,
        split=arguments.split,
        format=arguments.format,
        before_transforms=arguments.raw,
        device=str(choose_device(arguments.device)),
        threads=config.train.threads or num_cores(),
        progress=progress,
    )
    progress.close()
    print(f"wrote {path}: {arguments.samples} samples")
    return 0
