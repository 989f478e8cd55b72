"""The arguments of `streamtrain compare`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

DESCRIPTION = """Trained runs next to each other.

The table has the settings that differ, size and training of each network, and its errors on its
test maps; test sets, losses and functions that are not the same are marked. Figures: runs.png with
the histories, bands of predicted over true, and rms by luminosity; maps.png with what the runs make
of the same test maps. (`streamtrain catalog compare` is for lightcones.)"""


def add_compare_runs(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    """Add the command to those of `streamtrain`. parents: parsers of common options."""
    command = commands.add_parser(
        "compare",
        parents=parents,
        help="trained runs next to each other: a table and figures",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = command.add_argument
    add(
        "runs",
        nargs="+",
        metavar="RUN",
        help="the folder of a run; key=value settings of all of them may follow, such as "
        "train.threads=2",
    )
    add("--out", type=Path, default=Path("comparison"), help="folder of the figures [%(default)s]")
    add("--evaluate", action="store_true", help="evaluate the runs that have no evaluation")
    add(
        "--no-answers",
        action="store_true",
        help="do not ask the networks again: no maps.png, and bands per luminosity range",
    )
    command.set_defaults(run=run_compare_runs, settings=[])


def run_compare_runs(arguments: argparse.Namespace) -> int:
    """Run the command; raises ValueError with one sentence for bad input."""
    from streamtrain.cores import num_cores
    from streamtrain.evaluate.compare_runs import compare_runs
    from streamtrain.progress import Progress
    from streamtrain.train.distributed import choose_device

    folders = [name for name in arguments.runs if "=" not in name or Path(name).is_dir()]
    settings = [text for text in arguments.runs if text not in folders] + arguments.settings
    if not folders:
        raise ValueError("compare needs the folder of a run")
    text = compare_runs(
        folders,
        arguments.out,
        make_evaluations=arguments.evaluate,
        answers=not arguments.no_answers,
        settings=settings,
        device=str(choose_device(arguments.device)),
        threads=num_cores(),
        progress=Progress(),
    )
    print(text)
    return 0
