"""Judge a trained network on its test set: table, JSON, figures.

The test set is made again from its manifest and compared with it, the newest intact checkpoint
predicts, and its errors are put beside those of the plainest predictor, which gives the mean
training label for every map (where the label is a class: the frequencies of the classes).
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from streamtrain.config import Config
from streamtrain.evaluate import figures, testset
from streamtrain.evaluate.classes import score_classes
from streamtrain.evaluate.metrics import Bool, Float, score
from streamtrain.evaluate.tables import table
from streamtrain.evaluate.trained import Trained, run_config
from streamtrain.figures import confusion
from streamtrain.generator.generator import Batch, Generator
from streamtrain.generator.labels import Label
from streamtrain.models import Network
from streamtrain.models.heads import loss_name
from streamtrain.progress import Progress
from streamtrain.train.folder import read_history, run_folder

MEAN_LABEL_SAMPLES = 512
"""Samples of the split "train", from index 0, whose mean label is the reference."""


@dataclass(frozen=True)
class Answers:
    """A network's answers and the truth; log10 of the count, float64 [num_samples, num_bins]."""

    predicted: Float
    true: Float
    occupied: Bool
    """Where the count is at least 1, [num_samples, num_bins]."""
    bin_edges: Float
    """log10(L/Lsun), [num_bins + 1]."""
    unit: Float | None = None
    """What one halo is worth in the label's quantity, [num_samples, num_bins]; None: one."""


@dataclass(frozen=True)
class ClassAnswers:
    """A network's answers and the truth, where the label is a class."""

    chances: Float
    """Probability of each class, [num_samples, num_classes]."""
    true: NDArray[np.int64]
    """Number of the class [num_samples]."""
    classes: list[str]


def evaluate(
    run: Config | str | Path,
    *,
    device: str = "cpu",
    threads: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Evaluate the newest intact checkpoint of a run: print the table, write evaluation.json and
    the figures into the run folder, return what the JSON file holds.

    run: a configuration, or the folder of a run. The manifest testset.json of the run folder is
    made if it is absent, and every sample is compared with it. Raises ValueError with one sentence
    if there is no checkpoint, or if the test set is not the manifest's.
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
        **judge(answers, reference, config),
        "figures": _draw(answers, reference, config),
    }
    text = json.dumps(result, indent=1, allow_nan=False) + "\n"
    testset.write_atomically(folder / "evaluation.json", text)
    if progress is not None:
        progress.close()
    print(table(result))
    return result


def mean_label(generator: Generator, progress: Progress | None = None) -> Float:
    """Mean log10 of the counts of the first training samples, float64 [num_bins], or the
    frequencies of their classes [num_classes].

    generator: of the split "train".
    """
    label, total = generator.label, np.zeros(generator.num_outputs)
    for start in range(0, MEAN_LABEL_SAMPLES, testset.BATCH_SIZE):
        batch = generator.generate(range(start, start + testset.BATCH_SIZE))
        batch.check()
        values = batch.label.double()
        if not label.is_class:
            values = label.log10_counts(values, batch.one_halo)
        total += values.sum(dim=0).cpu().numpy()
        if progress is not None:
            progress.update(
                f"mean training label: {start + testset.BATCH_SIZE}/{MEAN_LABEL_SAMPLES} samples"
            )
    return total / MEAN_LABEL_SAMPLES


def predict(
    network: Network,
    manifest: testset.Manifest,
    generator: Generator,
    progress: Progress | None = None,
) -> Answers | ClassAnswers:
    """Make the test set again, compare each sample with the manifest, and ask the network.

    Raises ValueError at the first sample that differs, or if an answer is not finite.
    """
    label, parts, done = generator.label, [], 0
    for indices, batch in testset.regenerate(manifest, generator):
        differing = testset.differing_samples(manifest, indices, batch)
        if differing:
            raise ValueError(
                f"test sample {differing[0]} is not the manifest's; 'streamtrain testset verify' "
                "tells more"
            )
        with torch.inference_mode():
            one_halo = batch.one_halo.to(batch.cube.device)
            output = network.head.point(network(batch.cube), one_halo)
        if not torch.isfinite(output).all():
            raise ValueError("the network's answer is not finite: its training has diverged")
        parts.append(_class_part(batch, output) if label.is_class else _part(label, batch, output))
        done += len(indices)
        if progress is not None:
            progress.update(f"evaluating: {done}/{manifest.count} samples")
    whole = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
    if label.is_class:
        return ClassAnswers(whole[0], whole[1], label.classes)
    unit = whole[3] if label.has_unit else None
    return Answers(whole[0], whole[1], whole[2], generator.bin_edges, unit)


def judge(answers: Answers | ClassAnswers, reference: Float, config: Config) -> dict[str, Any]:
    """The scores of the network and of the plainest predictor as plain data, and how they were
    made."""
    if isinstance(answers, ClassAnswers):
        return _judge_classes(answers, reference)
    network, mean = (
        asdict(score(values, answers.true, answers.occupied, answers.bin_edges))
        for values in (answers.predicted, reference)
    )
    return {
        "label": config.label.quantity,
        "conventions": {
            "delta": "10^(p - t) - 1, p and t: log10 of the predicted and true dN, at least 0",
            "empty_bins": "bins without a halo count in mse alone; 'excluded' is their fraction",
            "errors": "standard errors, bootstrap over maps",
            "mean_label": f"mean log10 dN of samples 0..{MEAN_LABEL_SAMPLES - 1} of split 'train'",
        },
        "network": network,
        "mean_label": mean,
        "mean_label_log10_dN": reference.tolist(),
    }


def _judge_classes(answers: ClassAnswers, frequencies: Float) -> dict[str, Any]:
    network, frequent = (
        asdict(score_classes(chances, answers.true)) for chances in (answers.chances, frequencies)
    )
    return {
        "label": "class",
        "classes": answers.classes,
        "conventions": {
            "accuracy": "share of the maps whose most probable class is the true one",
            "confusion": "maps of each true class (row) taken for each class (column)",
            "errors": "standard errors, bootstrap over maps",
            "most_frequent": "always the class frequencies of samples "
            f"0..{MEAN_LABEL_SAMPLES - 1} of split 'train'",
        },
        "network": network,
        "most_frequent": frequent,
        "class_frequencies": frequencies.tolist(),
    }


def _part(label: Label, batch: Batch, output: torch.Tensor) -> tuple[NDArray[Any], ...]:
    """Predicted and true log10 counts, occupied bins, unit, of a batch [B, num_bins] each."""
    predicted, true = (
        label.log10_counts(values, batch.one_halo).cpu().numpy() for values in (output, batch.label)
    )
    occupied = label.occupied(batch.label, batch.counts).cpu().numpy()
    unit = label.unit_of(batch.one_halo)
    return predicted, true, occupied, np.broadcast_to(1.0 if unit is None else unit, true.shape)


def _class_part(batch: Batch, output: torch.Tensor) -> tuple[NDArray[Any], ...]:
    """Probabilities [B, num_classes] and true classes [B] of a batch."""
    chances = output.double().softmax(dim=1)
    return chances.cpu().numpy(), batch.label.argmax(dim=1).cpu().numpy()


def _draw(answers: Answers | ClassAnswers, reference: Float, config: Config) -> list[str]:
    """Write the figures into the run folder; their file names."""
    folder = Path(config.run)
    if isinstance(answers, ClassAnswers):
        counts = score_classes(answers.chances, answers.true).confusion
        drawn = {"confusion.png": confusion(np.array(counts), answers.classes)}
    else:
        quantity = config.label.quantity
        arrays = (answers.true, answers.occupied, answers.bin_edges)
        drawn = {
            "comparison.png": figures.comparison(
                answers.predicted,
                *arrays,
                reference=reference,
                quantity=quantity,
                unit=answers.unit,
            ),
            "ratio.png": figures.ratio_bands(
                answers.predicted, reference, *arrays, quantity=quantity
            ),
        }
    entries = read_history(folder / "history.jsonl")
    if entries:
        loss = loss_name(config.network.head, config.label.quantity == "class")
        drawn["loss.png"] = figures.loss_history(entries, loss)
    for name, figure in drawn.items():
        part = folder / f"{name}.{os.getpid()}.part"
        try:
            figure.savefig(part, format="png")
            part.replace(folder / name)
        finally:
            part.unlink(missing_ok=True)
    return list(drawn)
