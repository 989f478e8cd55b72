"""Judge a trained network on its test set: table, JSON, figures.

The test set is made again from its manifest and compared with it, the newest intact checkpoint
predicts, and its errors are put beside those of the plainest predictor, which gives the mean
training label for every map (where the label is a class: the frequencies of the classes).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from streamtrain.config import Config
from streamtrain.evaluate import figures, testset
from streamtrain.evaluate.answers import Answers, ClassAnswers, predict
from streamtrain.evaluate.classes import score_classes
from streamtrain.evaluate.judgement import bootstrap_of, judge
from streamtrain.evaluate.png import write_png
from streamtrain.evaluate.published import TRAINED_ON, comparable, ihle2019, published
from streamtrain.evaluate.reference import Reference, mean_label
from streamtrain.evaluate.tables import table
from streamtrain.evaluate.trained import Trained, run_config
from streamtrain.figures import confusion
from streamtrain.generator.generator import Generator
from streamtrain.models.heads import loss_name
from streamtrain.progress import Progress
from streamtrain.train.folder import read_history, run_folder


def evaluate(
    run: Config | str | Path,
    *,
    device: str = "cpu",
    threads: int = 1,
    bootstrap: str = "auto",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Evaluate the newest intact checkpoint of a run: print the table, write evaluation.json and
    the figures into the run folder, return what the JSON file holds.

    run: a configuration, or the folder of a run. bootstrap: what errors resample, maps, lightcones
    or auto (see `Bootstrap.choose`). The manifest testset.json of the run folder is made if it is
    absent, and every sample is compared with it. Raises ValueError with one sentence if there is
    no checkpoint, or if the test set is not the manifest's.
    """
    config = run if isinstance(run, Config) else run_config(run)
    folder = run_folder(config)
    trained = Trained.load(config)
    path = testset.default_path(config)
    if not path.exists():
        testset.make(config, path, device=device, threads=threads, progress=progress)
    manifest = testset.load(path)
    generator = testset.open_generator(
        testset.recipe(manifest, config), device=device, threads=threads
    )
    problems = testset.mismatches(manifest, generator)
    if problems:
        raise ValueError(f"this is not the test set of {path}: {' '.join(problems)}")
    if generator.label.is_class and trained.classes != generator.classes:
        raise ValueError(
            f"the network of {folder} tells {', '.join(trained.classes)} apart, but the test set "
            f"is made of {', '.join(generator.classes)}"
        )
    train_generator = Generator(config, split="train", device=device, threads=threads)
    reference = mean_label(train_generator, progress)
    train_generator.close()
    network = trained.network(generator.label, generator.device)
    answers = predict(network, manifest, generator, progress)
    generator.close()
    result = {
        "checkpoint_step": trained.step,
        "test_set": {
            "manifest_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "samples": manifest.count,
            "seed": manifest.seed,
            "generator_version": manifest.generator_version,
            "lightcones": [cone["name"] for cone in manifest.lightcones],
        },
        **judge(answers, reference, config.label.quantity, bootstrap_of(answers, bootstrap)),
        "figures": _draw(answers, reference, config),
    }
    text = json.dumps(result, indent=1, allow_nan=False) + "\n"
    testset.write_atomically(folder / "evaluation.json", text)
    if progress is not None:
        progress.close()
    print(table(result))
    return result


def _draw(answers: Answers | ClassAnswers, reference: Reference, config: Config) -> list[str]:
    """Write the figures into the run folder; their file names."""
    folder = Path(config.run)
    if isinstance(answers, ClassAnswers):
        counts = score_classes(answers.chances, answers.true).confusion
        drawn = {"confusion.png": confusion(np.array(counts), answers.classes)}
    else:
        drawn = _function_figures(answers, reference, config.label.quantity)
    entries = read_history(folder / "history.jsonl")
    if entries:
        loss = loss_name(config.network.head, config.label.quantity == "class")
        drawn["loss.png"] = figures.loss_history(entries, loss)
    return save(drawn, folder)


def _function_figures(answers: Answers, reference: Reference, quantity: str) -> dict[str, Figure]:
    """Of functions of luminosity, by file name."""
    arrays = (answers.true, answers.occupied, answers.bin_edges)
    beside = comparable(quantity, answers.bin_edges)
    options: dict[str, Any] = {"quantity": quantity, "unit": answers.unit}
    return {
        "comparison.png": figures.comparison(
            answers.predicted, *arrays, reference=reference.mean, **options
        ),
        "functions.png": figures.functions(
            answers.predicted, *arrays, reference=reference.mean, **options
        ),
        "ratio.png": figures.ratio_bands(
            answers.predicted, reference.mean, *arrays, quantity=quantity
        ),
        "residual.png": figures.residual_bands(
            answers.predicted,
            *arrays,
            quantity=quantity,
            published=published(TRAINED_ON) if beside else None,
            limits=ihle2019() if beside else None,
        ),
    }


def save(drawn: Mapping[str, Figure], folder: Path) -> list[str]:
    """Write figures into a folder, each whole or not at all; their file names."""
    for name, figure in drawn.items():
        write_png(figure, folder / name)
    return list(drawn)
