"""The commands that take finished runs: `streamtrain runs`, `alarm`, `calibrate`, `compare`,
`mcmc`, `layers`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from streamtrain.cli.common import (
    add_run,
    add_settings,
    config_of,
    config_of_run,
    resources_of,
    taken,
)

LIST_DESCRIPTION = """\
The trained networks that ship with streamtrain, and the runs in FOLDER.

Of each: the line and its band, the luminosity models of its training, the maps that it takes, its
label, its optimiser steps, and its mean squared error on its test maps beside that of always the
mean label; of networks that ship, and of a run or network named instead of FOLDER, also the noise
and what else the maps of its training went through.
Commands that take RUN also take the name of a network that ships: streamtrain infer comap MAP."""
PACK_DESCRIPTION = """\
Copy what a run needs to predict into FOLDER, which commands take as they take the run.

The copy has the weights that predict, without the optimiser, and the numbers that were measured of
the network (evaluation, calibration, alarm), without figures and lightcones."""


def add_runs(commands: Any) -> None:
    """Add the command to those of `streamtrain`."""
    kinds = commands.add_parser(
        "runs",
        help="list trained networks, copy one to hand on",
        description="List trained networks, and copy one to hand on.",
    ).add_subparsers(metavar="COMMAND", required=True)
    command = kinds.add_parser(
        "list",
        help="the networks that ship with streamtrain, and the runs in a folder",
        description=LIST_DESCRIPTION,
    )
    command.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path("runs"),
        metavar="FOLDER",
        help="folder of runs, or one run, or the name of a network that ships [%(default)s]",
    )
    command.set_defaults(run=run_list)
    command = kinds.add_parser(
        "pack",
        help="a small copy of a run that predicts as it does",
        description=PACK_DESCRIPTION,
    )
    add_run(command)
    command.add_argument("--out", type=Path, required=True, help="folder; must be new")
    command.set_defaults(run=run_pack)


def run_list(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from streamtrain.evaluate.packed import describe_runs

    print("\n".join(describe_runs(arguments.folder)))
    return 0


def run_pack(arguments: argparse.Namespace) -> int:
    """Run the command; raises ValueError with one sentence for bad input."""
    from streamtrain.evaluate.packed import pack

    target = pack(arguments.folder, arguments.out)
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    print(f"wrote {target}: {size / 1e6:.1f} MB")
    return 0


ALARM_DESCRIPTION = """\
Compare a run with maps of its own prior, so that every later prediction says how unusual its map
is among those that the training could have made.

Half of the maps are of the training's skies and give means and covariances of their statistics,
the others of the validation skies and show how far from these a map of the prior lies; the p-value
of a map is its rank among the latter. `streamtrain infer` makes a smaller reference by itself
where there is none; `evaluate` and its options use the one that is there. Prints how often the
alarm is false on the run's test maps, and writes alarm.npz, alarm.json and alarm.png into the run
folder. More in docs/infer.md."""


def add_alarm(commands: Any, device: argparse.ArgumentParser) -> None:
    """Add the command to those of `streamtrain`; device: the parser of --device."""
    command = commands.add_parser(
        "alarm",
        parents=[device],
        help="look at maps of a run's prior, so that predictions mark maps unlike them",
        description=ALARM_DESCRIPTION,
    )
    add = command.add_argument
    add_run(command)
    add_settings(command)
    add("--maps", type=int, default=10_000, metavar="N", help="maps of the prior [%(default)s]")
    add(
        "--beside",
        type=Path,
        action="append",
        default=[],
        metavar="RUN",
        help="another run that takes the same maps, whose disagreement counts; repeatable",
    )
    command.set_defaults(run=run_alarm)


def run_alarm(arguments: argparse.Namespace) -> int:
    """Run the command; raises ValueError with one sentence for bad input."""
    from streamtrain.evaluate.alarm.report import make_alarm

    given = taken(arguments, "maps", "beside")
    make_alarm(config_of_run(arguments), **given, resources=resources_of(arguments))
    return 0


CALIBRATE_DESCRIPTION = """\
Learn from a few skies of another maker of halos how far a run's posterior is off.

FILES are lightcones that the network was not trained on. How far the posterior has to be shifted
and widened, by the rank of halos in their map, is written into recalibration.json of the run. From
then on `infer` and `evaluate` apply it and say so; --no-recalibration goes without, and --remove
removes it. It belongs to the checkpoint: after more training, calibrate again. More in
docs/posterior.md."""


def add_calibrate(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    """Add the command to those of `streamtrain`. parents: parsers of common options."""
    command = commands.add_parser(
        "calibrate",
        parents=parents,
        help="mend a run's posterior for halos of another maker",
        description=CALIBRATE_DESCRIPTION,
    )
    add_run(command)
    add = command.add_argument
    add(
        "files",
        nargs="*",
        metavar="FILES",
        help="lightcones or globs; key=value settings may follow, such as train.threads=2",
    )
    add("--samples", type=int, default=512, help="maps of these skies [%(default)s]")
    add("--remove", action="store_true", help="remove what was learned")
    command.set_defaults(run=run_calibrate, settings=[])


def run_calibrate(arguments: argparse.Namespace) -> int:
    """Run the command; raises ValueError with one sentence for bad input."""
    from streamtrain.evaluate.calibration.recalibrate import recalibrate, remove
    from streamtrain.evaluate.folder import run_config

    files = [word for word in arguments.files if "=" not in word or Path(word).exists()]
    settings = [word for word in arguments.files if word not in files] + arguments.settings
    if arguments.remove:
        if files:
            raise ValueError(f"--remove takes no lightcones, and '{files[0]}' is given")
        path = remove(arguments.folder)
        print(f"removed {path}" if path else f"{arguments.folder} has no recalibration")
        return 0
    if not files:
        raise ValueError("calibrate needs lightcones of another maker: RUN FILES")
    config = run_config(arguments.folder, settings)
    recalibrate(config, files, maps=arguments.samples, resources=resources_of(arguments))
    return 0


COMPARE_RUNS_DESCRIPTION = """Trained runs next to each other.

The table has the settings that differ, size and training of each network, and its errors on its
test maps; test sets, losses and functions that are not the same are marked. Figures: runs.png with
the histories, bands of predicted over true, and rms by luminosity; maps.png with what the runs
predict for the same test maps. (`streamtrain catalog compare` is for lightcones.)"""


def add_compare_runs(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    """Add the command to those of `streamtrain`. parents: parsers of common options."""
    command = commands.add_parser(
        "compare",
        parents=parents,
        help="trained runs next to each other: a table and figures",
        description=COMPARE_RUNS_DESCRIPTION,
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
        "--no-predictions",
        action="store_true",
        help="do not run the networks again: no maps.png, and bands per luminosity range",
    )
    add("--no-answers", dest="no_predictions", action="store_true", help=argparse.SUPPRESS)
    command.set_defaults(run=run_compare_runs, settings=[])


def run_compare_runs(arguments: argparse.Namespace) -> int:
    """Run the command; raises ValueError with one sentence for bad input."""
    from streamtrain.evaluate.compare.compare_runs import compare_runs

    folders = [name for name in arguments.runs if "=" not in name or Path(name).is_dir()]
    settings = [text for text in arguments.runs if text not in folders] + arguments.settings
    if not folders:
        raise ValueError("compare needs the folder of a run")
    text = compare_runs(
        folders,
        arguments.out,
        make_evaluations=arguments.evaluate,
        predictions=not arguments.no_predictions,
        settings=settings,
        resources=resources_of(arguments),
    )
    print(text)
    return 0


MCMC_DESCRIPTION = """\
The classical method, beside the network: what power spectrum and voxel intensity
distribution say of the luminosity model's parameters, and so of the luminosity function.

For each of the first test maps a Markov chain (emcee) draws from the posterior of the parameters
under the prior of emit.line. The mean of the summaries is learnt from simulations on the stream of
training samples, their covariance, with the mean's own error, is that of simulations at the
parameters that a first chain has found, and noise levels that are drawn per sample count as
known. Writes mcmc.json and figures into the run folder, and prints errors beside those of the run's
network, if it has been trained. The same command continues where it was interrupted.
More in docs/classical.md."""


def add_mcmc(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    """Add the command. parents: CONFIG with its settings, --device."""
    command = commands.add_parser(
        "mcmc",
        parents=parents,
        help="the classical method: a Markov chain on power spectrum and voxel intensities",
        description=MCMC_DESCRIPTION,
    )
    add = command.add_argument
    add("--maps", type=_positive, default=4, help="test maps [%(default)s]")
    add(
        "--beside",
        type=Path,
        action="append",
        default=[],
        metavar="RUN",
        help="folder of another run whose network also predicts the same maps; repeatable",
    )
    add(
        "--simulations",
        type=_positive,
        default=6000,
        metavar="N",
        help="at parameters from the prior, for the mean [%(default)s]",
    )
    add(
        "--covariance",
        type=_positive,
        default=400,
        metavar="N",
        help="simulations for each covariance: one for each noise level, one for each map "
        "[%(default)s]",
    )
    add("--walkers", type=_positive, default=32, help="walkers of the ensemble [%(default)s]")
    add("--steps", type=_positive, default=6000, help="steps of each walker [%(default)s]")
    add(
        "--likelihood",
        choices=("percival", "sellentin", "hartlap"),
        default="percival",
        help="for a covariance of few simulations: percival, a t-distribution whose intervals "
        "hold the parameters as often as they say (arXiv:2108.10402); sellentin, that of "
        "Sellentin and Heavens 2016; hartlap, normal with an unbiased inverse [%(default)s]",
    )
    add("--out", type=Path, help="folder; default: the run folder")
    command.set_defaults(run=run_mcmc)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} must be at least 1")
    return number


def run_mcmc(arguments: argparse.Namespace) -> int:
    """Run the command; raises ValueError with one sentence for bad input."""
    from streamtrain.machine.interrupt import interruptible
    from streamtrain.mcmc.inference import Options
    from streamtrain.mcmc.report import run

    config = config_of(arguments)
    names = ("simulations", "covariance", "walkers", "steps", "likelihood")
    options, resources = Options(**taken(arguments, *names)), resources_of(arguments)
    with interruptible():
        run(config, options, **taken(arguments, "maps", "beside", "out"), resources=resources)
    return 0


LAYERS_DESCRIPTION = """What the layers of a trained network do with one test map.

Draws into the folder of the run, or --out: filters.png, the first layer's filters with the largest
weights; activations.png, what the layers put out for the map; gradient.png, the derivative of an
output with respect to every voxel, in map units where the map's transform can be undone."""


def add_layers(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    """Add the command to those of `streamtrain`. parents: parsers of common options."""
    command = commands.add_parser(
        "layers",
        parents=parents,
        help="filters, activations and gradient of a trained network",
        description=LAYERS_DESCRIPTION,
    )
    add_run(command)
    add_settings(command)
    add = command.add_argument
    add("--index", type=int, default=0, help="index of the test sample [%(default)s]")
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
    from streamtrain.evaluate.interpret.layers import show_layers

    bounds = None if arguments.log10_L is None else tuple(arguments.log10_L)
    given = taken(arguments, "index", "class_name", "settings", "out")
    resources = resources_of(arguments)
    print(show_layers(arguments.folder, bounds=bounds, **given, resources=resources))
    return 0
