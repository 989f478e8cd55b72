"""Evaluate a trained network on its test set: scores, JSON, figures.

The test set is made again from its manifest and compared with it, the newest intact checkpoint
predicts, and its errors are put beside those of the plainest predictor, which predicts the mean
training label for every map (where the label is a class: the frequencies of the classes; where it
is the model's parameters: their prior).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from streamtrain.arguments import whole_number
from streamtrain.config import Config
from streamtrain.evaluate import figures, testset
from streamtrain.evaluate.alarm.alarm import alarm_scores
from streamtrain.evaluate.alarm.watch import Watch
from streamtrain.evaluate.baselines import (
    TRAINED_ON,
    MeanLabelBaseline,
    comparable,
    ihle2019,
    mean_label,
    published,
    same_maps,
)
from streamtrain.evaluate.bootstrap import UNITS, Float
from streamtrain.evaluate.folder import check_writable, run_config
from streamtrain.evaluate.interpret.layers import map_units
from streamtrain.evaluate.parameter_scores import ParameterPredictions, parameter_figure
from streamtrain.evaluate.posterior.functions import simultaneous_band
from streamtrain.evaluate.posterior.posterior import NUM_FUNCTIONS
from streamtrain.evaluate.predictions import (
    AnyPredictions,
    ClassPredictions,
    Predictions,
    predict,
    predict_batches,
)
from streamtrain.evaluate.report import bootstrap_of, score_classes, scores_of
from streamtrain.evaluate.result import Evaluation
from streamtrain.evaluate.robustness import other_skies
from streamtrain.evaluate.run import Run
from streamtrain.figures import Slices, confusion, frequency_GHz, write_png
from streamtrain.generator.generator import Generator
from streamtrain.machine.files import sha256, write_json
from streamtrain.machine.workers import Resources
from streamtrain.networks.network import Network, loss_name
from streamtrain.ranks import BAND
from streamtrain.train.distributed import choose_device
from streamtrain.train.folder import read_history, run_folder


def evaluate(
    run: Run | Config | str | Path,
    *,
    on: str | Path | Sequence[str | Path] | None = None,
    samples: int | None = None,
    out: str | Path | None = None,
    bootstrap: str = "auto",
    recalibrated: bool = True,
    resources: Resources | None = None,
) -> Evaluation:
    """Evaluate the newest intact checkpoint of a run, and write evaluation.json and the figures
    into the run folder, as the command `evaluate` does.

    run: an open run, a configuration, or the folder of a run. on: lightcone files or globs to
    evaluate on instead of the run's test skies, and out: the new folder that all is then written
    into, its manifest too (default: RUN_on_NAME in the current folder); with either the run stays
    as it is, and settings may be others than the run's. samples: instead of test.samples.
    bootstrap: what errors resample, maps, lightcones or auto (see `Bootstrap.choose`).
    recalibrated: whether a recalibration of the run is applied (see `recalibrate`). resources: what
    is computed with; default: as an open run does, else a GPU if there is one. The manifest
    testset.json of the run folder is made if it is absent, and every sample is compared with it.
    Raises ValueError with one sentence if there is no checkpoint, if the test set is not the
    manifest's, or for a folder `out` that is not new and a sky `on` that the network was trained
    on.

    >>> import streamtrain
    >>> found = streamtrain.evaluate("runs/example", samples=16, out="runs/of_16_maps")
    >>> for name, score in found.scores.items():
    ...     print(name, score)
    3.5-4.5 ... +- ... dex (plainest predictor ... dex)
    ...
    3.5-7 ... +- ... dex (plainest predictor ... dex)
    """
    if isinstance(run, Run):
        recalibrated, resources = recalibrated and run.recalibrated, resources or run.resources
        vars(run).pop("evaluation", None)  # it is read again
        run = run.config
    config = run if isinstance(run, Config) else run_config(run)
    if samples is not None:
        samples = whole_number(samples, "samples")
        if samples < 1:
            raise ValueError(f"--samples {samples} must be 1 or more")
        config = replace(config, test=replace(config.test, samples=samples))
    if isinstance(on, str | Path):
        on = [on]
    if not (on is None or isinstance(on, Sequence)):
        raise ValueError(f"on must be lightcone files or globs, not {on!r}")
    if not (out is None or isinstance(out, str | Path)):
        raise ValueError(f"out must be the name of a folder, not {out!r}")
    if not (resources is None or isinstance(resources, Resources)):
        raise ValueError(
            f"resources must be Resources, not {resources!r}: "
            "Run.open(run, device=..., threads=...) says what an open run computes with"
        )
    files = None if on is None else [str(file) for file in on]
    if bootstrap not in UNITS:
        raise ValueError(f"bootstrap over {bootstrap!r} is none of {', '.join(UNITS)}")
    resources = resources or Resources(str(choose_device(None)), threads=None)
    with Run.using(resources, config, recalibrated=recalibrated) as own:
        if files is None and out is None:
            target, result = own.folder, _of_the_run(own, bootstrap)
        else:
            target = other_skies.default_folder(own, files) if out is None else Path(out)
            with other_skies.new_folder(target, own) as folder:
                result = _elsewhere(own, files, folder, bootstrap)
    return Evaluation(result, target)


def _of_the_run(run: Run, bootstrap: str) -> dict[str, Any]:
    """On the run's own test set, into its folder."""
    _ = run.trained  # a run without a network is refused before anything is made
    check_writable(run.folder)
    path = testset.default_path(run.config)
    with testset.kept(path):
        manifest, generator = run.test_set()
    _check_classes(run, generator)
    reference = _mean_label(run)
    network = run.network(generator)
    watch = run.kept_watch()
    predictions = predict(network, manifest, generator, run.progress, watch)
    notes = [*testset.not_compared(manifest, generator), *run.said(generator)]
    about = test_set_record(path, manifest, notes)
    return _scored(
        run, generator, network, predictions, reference, about, bootstrap, run.folder, watch
    )


def _elsewhere(run: Run, on: Sequence[str] | None, folder: Path, bootstrap: str) -> dict[str, Any]:
    """On other skies or with other settings, into a folder of its own."""
    config, own, generator, notes = other_test_set(run, on)
    _check_classes(run, generator)
    kept = MeanLabelBaseline.of_evaluation(run.evaluation)
    if kept is not None and len(kept.mean) != generator.num_bins:
        kept = None
    reference = kept or _mean_label(run, own)
    path = folder / "testset.json"
    batches = testset.made(config, path, generator)
    count = config.test.samples
    network = run.network(generator)
    watch = run.kept_watch()
    predictions = predict_batches(
        network, generator, batches, count, "evaluating", run.progress, watch
    )
    about = test_set_record(path, testset.load(path), [*notes, *run.said(generator)])
    return _scored(run, generator, network, predictions, reference, about, bootstrap, folder, watch)


def other_test_set(
    run: Run, on: Sequence[str] | None
) -> tuple[Config, Config, Generator, list[str]]:
    """What makes the test maps of a run on other skies or with other settings than its own.

    on: lightcone files or globs; None: those of the settings. Returns the configuration of the test
    maps, the run's own with the lightcones of here, the generator of the test maps, and what should
    be known of them, a sentence each. Raises ValueError, one sentence, if the network does not take
    such maps.
    """
    own = config = run.config
    if (run.folder / "config.yaml").is_file():
        own = replace(run_config(run.folder), data=config.data)
    usual = replace(own, test=replace(own.test, samples=config.test.samples))
    if on is not None:
        config = other_skies.on_other_skies(run, on)
    generator = run.testing(config)
    run.trained.check_maps(generator)
    notes = other_skies.notes_on(config, generator) if on is not None else []
    difference = testset.difference_in_samples(usual, config)
    if difference is not None:
        notes.append(difference.text("in the run", "here"))
    return config, own, generator, notes


def _check_classes(run: Run, generator: Generator) -> None:
    if generator.label.is_class and run.trained.classes != generator.classes:
        raise ValueError(
            f"the network of {run.folder} tells {', '.join(run.trained.classes)} apart, but "
            f"the test set is made of {', '.join(generator.classes)}"
        )


def _mean_label(run: Run, config: Config | None = None) -> MeanLabelBaseline | None:
    """The baseline that always gives the mean label of the training samples; None where the label
    is of parameters, whose prior is known. config: other than the run's."""
    if run.config.label.quantity == "parameters":
        return None
    with contextlib.closing(run.training(config)) as generator:
        return mean_label(generator, run.progress)


def test_set_record(
    path: Path, manifest: testset.Manifest, notes: Sequence[str] = ()
) -> dict[str, Any]:
    """Which test set a result is of, as plain data for a JSON file.

    path: of its manifest; notes: what should be known of it, a sentence each.
    """
    return {
        "manifest_sha256": sha256(path),
        "samples": manifest.count,
        "seed": manifest.seed,
        "generator_version": manifest.generator_version,
        "lightcones": [cone["name"] for cone in manifest.lightcones],
        **({"notes": list(notes)} if notes else {}),
    }


def _scored(
    run: Run,
    generator: Generator,
    network: Network,
    predictions: AnyPredictions,
    reference: MeanLabelBaseline | None,
    about: dict[str, Any],
    bootstrap: str,
    folder: Path,
    watch: Watch | None,
) -> dict[str, Any]:
    """The result, written into `folder` with its figures. generator: of the test set; watch: what
    found the alarms of the predictions."""
    resampled = bootstrap_of(predictions, bootstrap)
    alarm = None
    if watch is not None and predictions.alarm is not None:
        alarm = alarm_scores(predictions.alarm, watch.reference, resampled)
    result = {
        "checkpoint_step": run.trained.step,
        "weights_sha256": run.trained.weights_sha256,
        "recalibration": run.trained.applied.record(),
        "test_set": about,
        **scores_of(predictions, reference, generator.config.label.quantity, resampled),
        "alarm": alarm,
        "figures": _draw(predictions, reference, generator, network, folder),
    }
    write_json(folder / "evaluation.json", result)
    return result


def _draw(
    predictions: AnyPredictions,
    reference: MeanLabelBaseline | None,
    generator: Generator,
    network: Network,
    folder: Path,
) -> list[str]:
    """Write the figures into a folder; their file names."""
    config = generator.config
    if isinstance(predictions, ParameterPredictions):
        drawn = {"parameters.png": parameter_figure(predictions)}
        if predictions.label.num_class_columns:
            counts = score_classes(predictions.chances, predictions.model).confusion
            drawn["confusion.png"] = confusion(np.array(counts), predictions.label.classes)
    elif isinstance(predictions, ClassPredictions):
        counts = score_classes(predictions.chances, predictions.true).confusion
        drawn = {"confusion.png": confusion(np.array(counts), predictions.classes)}
    else:
        assert reference is not None
        drawn = _function_figures(predictions, reference, generator, network)
    entries = read_history(run_folder(config) / "history.jsonl")
    if entries:
        quantity = config.label.quantity
        loss = loss_name(config.network.head, quantity == "class", quantity == "parameters")
        drawn["loss.png"] = figures.loss_history(entries, loss)
    return save(drawn, folder)


def _function_figures(
    predictions: Predictions, reference: MeanLabelBaseline, generator: Generator, network: Network
) -> dict[str, Figure]:
    """Of functions of luminosity, by file name."""
    quantity = generator.config.label.quantity
    arrays = (predictions.true, predictions.occupied, predictions.bin_edges)
    beside = comparable(quantity, predictions.bin_edges)
    options: dict[str, Any] = {"quantity": quantity, "unit": predictions.unit}
    return {
        "comparison.png": figures.comparison(
            predictions.predicted,
            *arrays,
            reference=reference.mean,
            slices=lambda numbers: _slices(generator, numbers),
            band=partial(_band, generator, network) if network.head.joint else None,
            **options,
        ),
        "functions.png": figures.functions(
            predictions.predicted, *arrays, reference=reference.mean, **options
        ),
        "ratio.png": figures.ratio_bands(
            predictions.predicted, reference.mean, *arrays, quantity=quantity
        ),
        "residual.png": figures.residual_bands(
            predictions.predicted,
            *arrays,
            quantity=quantity,
            published=published(TRAINED_ON) if beside else None,
            limits=ihle2019() if beside else None,
            other_maps=not same_maps(generator.config, "grid", "emit", "observe"),
        ),
    }


def _slices(generator: Generator, numbers: Sequence[int]) -> Slices:
    """The channel in the middle of the band of some samples, in map units where these are left."""
    grid = generator.config.grid
    cube = generator.generate(list(numbers)).cube.double().cpu().numpy()
    values, _, unit = map_units(generator.config, cube)
    num_freq = values.shape[1]
    channel = num_freq // 2
    nu_GHz = frequency_GHz(grid.nu_GHz, channel, num_freq)
    return Slices(values[:, channel], grid.fov_deg, nu_GHz, unit)


def _band(generator: Generator, network: Network, numbers: Sequence[int]) -> Float:
    """Ends of the simultaneous 95 % band of some samples, log10 of the count [2, B, num_bins]."""
    with torch.inference_mode():
        prediction = network(generator.generate(list(numbers)).cube)
        luck = torch.Generator().manual_seed(0)
        drawn = network.head.sample(prediction, NUM_FUNCTIONS, luck).cpu().numpy()
    ends = [simultaneous_band(drawn[:, k], BAND)[0] for k in range(len(numbers))]
    return np.log10(np.maximum(np.stack(ends, axis=1), 1.0))


def save(drawn: Mapping[str, Figure], folder: Path) -> list[str]:
    """Write figures into a folder, each whole or not at all; their file names."""
    for name, figure in drawn.items():
        write_png(figure, folder / name)
    return list(drawn)
