"""The arguments of `streamtrain mcmc`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

DESCRIPTION = """The classical method, beside the network: what power spectrum and voxel intensity
distribution say of the luminosity model's parameters, and so of the luminosity function.

For each of the first test maps a Markov chain (emcee) draws from the posterior of the parameters
under the prior of emit.line. The mean of the summaries is learnt from simulations on the stream of
training samples, their covariance is that of simulations at the fiducial parameters and of the
mean's own error, and noise levels that are drawn per sample count as known. Writes mcmc.json and
figures into the run folder, and prints errors beside those of the run's network, if it has been
trained. The same command continues where it was interrupted. More in docs/classical.md."""


def add_mcmc(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    """Add the command. parents: CONFIG with its settings, --device."""
    command = commands.add_parser(
        "mcmc",
        parents=parents,
        help="the classical method: a Markov chain on power spectrum and voxel intensities",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = command.add_argument
    add("--maps", type=_positive, default=4, help="test maps [%(default)s]")
    add(
        "--beside",
        type=Path,
        action="append",
        default=[],
        metavar="RUN",
        help="folder of another run whose network answers too; repeatable",
    )
    add(
        "--simulations",
        type=_positive,
        default=2000,
        metavar="N",
        help="at parameters from the prior, for the mean [%(default)s]",
    )
    add(
        "--covariance",
        type=_positive,
        default=400,
        metavar="N",
        help="simulations at the fiducial parameters, for each noise level [%(default)s]",
    )
    add("--walkers", type=_positive, default=32, help="of the ensemble [%(default)s]")
    add("--steps", type=_positive, default=6000, help="of each walker [%(default)s]")
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
    from streamtrain.classical.inference import Options
    from streamtrain.classical.report import run
    from streamtrain.config import load_config
    from streamtrain.cores import num_cores
    from streamtrain.progress import Progress
    from streamtrain.train.distributed import choose_device
    from streamtrain.train.interrupt import interruptible

    config = load_config(arguments.config, arguments.settings)
    options = Options(
        arguments.simulations,
        arguments.covariance,
        arguments.walkers,
        arguments.steps,
        arguments.likelihood,
    )
    with interruptible():
        run(
            config,
            options,
            maps=arguments.maps,
            beside=arguments.beside,
            out=arguments.out,
            device=str(choose_device(arguments.device)),
            threads=config.train.threads or num_cores(),
            progress=Progress(),
        )
    return 0
