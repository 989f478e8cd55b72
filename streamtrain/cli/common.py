"""What commands have in common: CONFIG or RUN, their settings, what they compute with."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamtrain.machine.progress import Progress
from streamtrain.machine.workers import Resources, num_cores
from streamtrain.schema import nearest

if TYPE_CHECKING:
    from streamtrain.config import Config

SETTINGS = "where files lie and how to compute, such as train.threads=2, data.test=[...]"


class Parser(argparse.ArgumentParser):
    """Names the command or choice nearest to a misspelt one; a description of several lines keeps
    them in the help."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        if "\n" in (options.get("description") or ""):
            options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*arguments, **options)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        known = action.choices
        if known is not None and value not in known:
            what = "command" if action.metavar == "COMMAND" else "choice"
            hint = nearest(str(value), map(str, known))
            self.error(f"there is no {what} '{value}': {hint}")


def with_config() -> Parser:
    """The parent of commands that take a configuration."""
    parser = Parser(add_help=False)
    parser.add_argument(
        "config",
        metavar="CONFIG",
        help="a configuration file, the name of one that ships, or the folder of a run",
    )
    add_settings(parser, "settings to change")
    parser.add_argument(
        "--print-config", action="store_true", help="print the resolved configuration and stop"
    )
    return parser


def with_device() -> Parser:
    """The parent of commands that compute."""
    parser = Parser(add_help=False)
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ...; default: a GPU if there is one")
    return parser


def add_run(command: argparse.ArgumentParser) -> None:
    """Add the run that a command takes."""
    command.add_argument(
        "folder",
        type=Path,
        metavar="RUN",
        help="the folder of a run, or the name of a network that ships (runs list)",
    )


def add_settings(command: argparse.ArgumentParser, text: str = SETTINGS) -> None:
    """Add settings of the configuration; text: what they are for."""
    command.add_argument("settings", nargs="*", metavar="key=value", help=text)


def add_no_recalibration(command: argparse.ArgumentParser) -> None:
    """Add the option of commands that apply what `calibrate` has learned."""
    command.add_argument(
        "--no-recalibration",
        dest="recalibrated",
        action="store_false",
        help="leave out what `streamtrain calibrate` has learned of the run's posterior",
    )


def taken(arguments: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Some of the arguments, for a function that calls them as the command does."""
    return {name: getattr(arguments, name) for name in names}


def config_of(arguments: argparse.Namespace) -> Config:
    """The configuration of a command `with_config`."""
    from streamtrain.config import load_config

    return load_config(arguments.config, arguments.settings)


def config_of_run(arguments: argparse.Namespace) -> Config:
    """The configuration of the run of a command, see `add_run`, with its settings."""
    from streamtrain.evaluate.folder import run_config

    return run_config(arguments.folder, arguments.settings)


def device_of(arguments: argparse.Namespace) -> str:
    """The device of a command `with_device`. On a CPU torch gets as many threads as there are cores
    for this process, where OMP_NUM_THREADS does not say otherwise: it knows of no quota."""
    from streamtrain.train.distributed import choose_device

    device = choose_device(arguments.device)
    if device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        import torch

        torch.set_num_threads(min(torch.get_num_threads(), num_cores()))
    return str(device)


def resources_of(arguments: argparse.Namespace) -> Resources:
    """What a command `with_device` may use: as many threads as its configuration says."""
    return Resources(device_of(arguments), None, Progress())
