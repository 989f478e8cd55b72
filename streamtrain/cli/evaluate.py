"""The commands of test sets and of what a network is worth on them: `testset`, `evaluate`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from streamtrain.cli.common import add_no_recalibration, config_of, resources_of


def add_testset(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    """Add the commands `testset make` and `verify`. parents: CONFIG with its settings, --device."""
    testset = commands.add_parser(
        "testset",
        help="fixed test sets as recipes",
        description="Make and verify test sets: recipes with a digest per sample.",
    )
    kinds = testset.add_subparsers(metavar="COMMAND", required=True)
    command = kinds.add_parser(
        "make",
        parents=parents,
        help="write the manifest",
        description="Generate the test set of a configuration and write its manifest.",
    )
    command.add_argument("--out", type=Path, help="file; default: testset.json in the run folder")
    command.set_defaults(run=_testset_make)
    command = kinds.add_parser(
        "verify",
        parents=parents,
        help="generate it again and compare every digest",
        description="Generate a test set again and compare every digest with its manifest.",
    )
    command.add_argument("--manifest", type=Path, help="default: testset.json in the run folder")
    command.set_defaults(run=_testset_verify)


def _testset_make(arguments: argparse.Namespace) -> int:
    from streamtrain.evaluate import testset

    config, resources = config_of(arguments), resources_of(arguments)
    path = arguments.out or testset.default_path(config)
    there = os.path.lexists(path)
    testset.make(config, path, resources)
    resources.progress.close()
    if there:
        again = "'streamtrain testset verify' makes them again and compares"
        print(f"{path} is already made: the same {config.test.samples} samples; {again}")
    else:
        print(f"wrote {path}: {config.test.samples} samples as a recipe, a digest each")
    return 0


def _testset_verify(arguments: argparse.Namespace) -> int:
    from streamtrain.evaluate import testset

    config, resources = config_of(arguments), resources_of(arguments)
    path = arguments.manifest or testset.default_path(config)
    report = testset.verify(path, config, resources)
    resources.progress.close()
    for problem in report.problems:
        print(problem)
    if report.ok:
        print("the same bytes: yes")
    return 0 if report.ok else 1


def add_evaluate(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    """Add the command. parents: CONFIG with its settings, --device."""
    command = commands.add_parser(
        "evaluate",
        parents=parents,
        help="evaluate the trained network on its test set",
        description="Evaluate the newest intact checkpoint of a run on a test set: a table, a JSON "
        "file and figures. docs/evaluation.md explains the numbers.",
    )
    add = command.add_argument
    add(
        "--on",
        nargs="+",
        metavar="FILES",
        help="evaluate on these lightcones (files or globs) instead of the run's test skies; "
        "writes into a new folder and leaves the run as it is",
    )
    add("--samples", type=int, help="test maps; default: test.samples")
    add(
        "--out",
        type=Path,
        help="a new folder for everything, also for other settings than the run's; default: the "
        "run folder; with --on: RUN_on_NAME here",
    )
    add(
        "--probes",
        action="store_true",
        help="instead: its predictions for blank, shuffled, turned, fainter and brighter maps",
    )
    add(
        "--calibration",
        action="store_true",
        help="instead: how often the intervals of a posterior of counts hold the truth",
    )
    add(
        "--draws",
        type=int,
        metavar="N",
        help="functions that --calibration and --catalogs draw for each map [1000]",
    )
    add(
        "--catalogs",
        nargs="+",
        metavar="MAKER",
        help="instead: halos of other makers, a row for each: NAME=FILES (lightcones or globs, "
        "with commas), or a mass function of which skies are made, such as watson13_fof, "
        "colossus:despali16, tinker08, also with a bias: tinker08+colossus:comparat17",
    )
    add(
        "--blind",
        action="store_true",
        help="instead: 24 maps that each differ from the training in one thing "
        "(configs/blind/maps.yaml): whether its bands hold the truth, and its alarms",
    )
    add(
        "--scenarios",
        metavar="SET",
        help="instead of the run's test set, every scenario of a set: pfeffer2019, "
        "published_models (every published luminosity model of the line), or a folder of YAML "
        "files with the sections emit and observe",
    )
    add(
        "--bootstrap",
        choices=("auto", "maps", "lightcones"),
        default="auto",
        help="what errors resample; auto: lightcones if the test set has 8 or more, else maps",
    )
    add_no_recalibration(command)
    command.set_defaults(run=_evaluate)


def _evaluate(arguments: argparse.Namespace) -> int:
    from streamtrain.evaluate.evaluation import evaluate
    from streamtrain.evaluate.robustness.scenarios import evaluate_scenarios

    config = config_of(arguments)
    options: dict[str, Any] = {"resources": resources_of(arguments)}
    elsewhere = {"on": arguments.on, "out": arguments.out}
    samples = arguments.samples
    if arguments.scenarios is not None and (arguments.on is not None or samples is not None):
        raise ValueError(
            "--scenarios are painted on the test skies of the configuration: use data.test=[...] "
            "and test.samples=N, with --out, instead of --on and --samples"
        )
    catalogs = arguments.catalogs
    if catalogs is not None and (arguments.on is not None or samples is not None):
        raise ValueError(
            "--catalogs names lightcones itself, beside the test skies of the configuration: use "
            "test.samples=N, with --out, instead of --on and --samples"
        )
    if arguments.draws is not None and not arguments.calibration and catalogs is None:
        raise ValueError(
            "--draws is the number of functions that --calibration and --catalogs draw: name one"
        )
    if arguments.blind and (arguments.on is not None or samples is not None):
        raise ValueError("--blind makes its maps itself: it cannot be used with --on or --samples")
    chosen = ["probes", "calibration", "scenarios", "catalogs", "blind"]
    if sum(bool(getattr(arguments, name)) for name in chosen) > 1:
        told = ", ".join(f"--{name}" for name in chosen[:-1])
        raise ValueError(f"{told} and --{chosen[-1]} are different things: name one")
    usual = {"bootstrap": arguments.bootstrap, "recalibrated": arguments.recalibrated}
    if arguments.probes:
        from streamtrain.evaluate.interpret.probes import run_probes

        if samples is not None:
            raise ValueError("--probes changes the first 64 maps: it cannot be used with --samples")
        run_probes(config, **elsewhere, **options)
    elif arguments.calibration:
        from streamtrain.evaluate.calibration.calibration import DRAWS, calibrate

        draws = DRAWS if arguments.draws is None else arguments.draws
        calibrate(config, draws=draws, samples=samples, **elsewhere, **options, **usual)
    elif catalogs is not None:
        from streamtrain.evaluate.calibration.calibration import DRAWS
        from streamtrain.evaluate.robustness.makers import evaluate_catalogs

        draws = DRAWS if arguments.draws is None else arguments.draws
        evaluate_catalogs(config, catalogs, draws=draws, out=arguments.out, **options, **usual)
    elif arguments.blind:
        from streamtrain.evaluate.robustness.blind import blind_test

        recalibrated = arguments.recalibrated
        blind_test(config, out=arguments.out, recalibrated=recalibrated, **options)
    elif arguments.scenarios is None:
        print(evaluate(config, samples=samples, **elsewhere, **options, **usual))
    else:
        evaluate_scenarios(config, arguments.scenarios, out=arguments.out, **options, **usual)
    return 0
