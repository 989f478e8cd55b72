"""Judge a trained network on its test set: table, JSON, figures.

The test set is made again from its manifest and compared with it, the newest intact checkpoint
predicts, and its errors are put beside those of the plainest predictor, which gives the mean
training label for every map.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from streamtrain.config import Config, from_mapping
from streamtrain.evaluate import figures, testset
from streamtrain.evaluate.metrics import Bool, Float, log10_label, score
from streamtrain.generator.generator import GENERATOR_VERSION, Batch, Generator
from streamtrain.models import build_network
from streamtrain.progress import Progress
from streamtrain.schema import parse_yaml
from streamtrain.train.checkpoint import load_checkpoint
from streamtrain.train.folder import read_history, run_folder

MEAN_LABEL_SAMPLES = 512
"""Samples of the split "train", from index 0, whose mean label is the reference."""


@dataclass(frozen=True)
class Answers:
    """A network's answers and the truth; log10 dN, float64 [num_samples, num_bins]."""

    predicted: Float
    true: Float
    occupied: Bool
    """Where dN >= 1, [num_samples, num_bins]."""
    bin_edges: Float
    """log10(L/Lsun), [num_bins + 1]."""


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
    state = load_checkpoint(
        folder / "checkpoints", config, GENERATOR_VERSION, ("grid", "label", "network")
    )
    if state is None:
        raise ValueError(f"the run folder {folder} has no checkpoint; train first")
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
    train_generator = Generator(config, split="train", device=device, threads=threads)
    reference = mean_label(train_generator, config, progress)
    train_generator.close()
    with torch.random.fork_rng(devices=[]):  # initial weights, replaced at once
        network = build_network(config.network, tuple(state["input_shape"]), generator.num_bins)
    network.load_state_dict(state["network"])
    network.to(generator.device).eval()
    answers = predict(network, manifest, generator, config, progress)
    generator.close()
    result = {
        "checkpoint_step": int(state["step"]),
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


def run_config(folder: str | Path) -> Config:
    """The configuration of a run from its folder, wherever that folder lies now."""
    file = Path(folder) / "config.yaml"
    if not file.is_file():
        raise ValueError(f"{folder} is not the folder of a run: it has no config.yaml")
    data = parse_yaml(file.read_text(encoding="utf-8"), str(file))
    if not isinstance(data, dict):
        raise ValueError(f"{file} does not hold a configuration")
    return from_mapping(data | {"run": str(folder)})


def mean_label(generator: Generator, config: Config, progress: Progress | None = None) -> Float:
    """Mean log10 dN of the first training samples, float64 [num_bins].

    generator: of the split "train".
    """
    total = np.zeros(generator.num_bins)
    for start in range(0, MEAN_LABEL_SAMPLES, testset.BATCH_SIZE):
        batch = generator.generate(range(start, start + testset.BATCH_SIZE))
        batch.check()
        total += log10_label(batch.label.cpu().numpy(), config.label.scale).sum(axis=0)
        if progress is not None:
            progress.update(
                f"mean training label: {start + testset.BATCH_SIZE}/{MEAN_LABEL_SAMPLES} samples"
            )
    return total / MEAN_LABEL_SAMPLES


def predict(
    network: torch.nn.Module,
    manifest: testset.Manifest,
    generator: Generator,
    config: Config,
    progress: Progress | None = None,
) -> Answers:
    """Make the test set again, compare each sample with the manifest, and ask the network.

    Raises ValueError at the first sample that differs, or if an answer is not finite.
    """
    predicted, true, occupied = [], [], []
    done = 0
    for indices, batch in testset.regenerate(manifest, generator):
        differing = testset.differing_samples(manifest, indices, batch)
        if differing:
            raise ValueError(
                f"test sample {differing[0]} is not the manifest's; 'streamtrain testset verify' "
                "tells more"
            )
        with torch.inference_mode():
            output = network(batch.cube)
        if not torch.isfinite(output).all():
            raise ValueError("the network's answer is not finite: its training has diverged")
        predicted.append(log10_label(output.float().cpu().numpy(), config.label.scale))
        true.append(log10_label(batch.label.cpu().numpy(), config.label.scale))
        occupied.append(_occupied(true[-1], batch, config))
        done += len(indices)
        if progress is not None:
            progress.update(f"evaluating: {done}/{manifest.count} samples")
    return Answers(
        np.concatenate(predicted),
        np.concatenate(true),
        np.concatenate(occupied),
        generator.bin_edges,
    )


def judge(answers: Answers, reference: Float, config: Config) -> dict[str, Any]:
    """The scores of the network and of the mean label as plain data, and how they were made."""
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


def table(result: dict[str, Any]) -> str:
    """The result of `evaluate` as text of fixed width: the network above the mean label."""
    name = "dN" if result["label"] == "counts" else "N(>L)"
    test = result["test_set"]
    lines = [
        f"{test['samples']} test maps (seed {test['seed']}), checkpoint of step "
        f"{result['checkpoint_step']}",
        f"delta = predicted / true {name} - 1 where the true {name} is not 0; "
        f"rms of log10 {name} in dex",
        "",
        f"{'log10 L':10}{'predictor':12}{'median':>8}{'68 % of delta':>20}{'95 % of delta':>20}"
        f"{'rms':>19}{'empty':>9}",
    ]
    pairs = zip(
        [*result["network"]["ranges"], result["network"]["whole"]],
        [*result["mean_label"]["ranges"], result["mean_label"]["whole"]],
        strict=True,
    )
    for ours, mean in pairs:
        low, high = ours["log10_L"]
        empty = f"{100 * ours['excluded']:7.1f} %"
        lines.append(f"{f'{low:g}-{high:g}':10}{'network':12}{_row(ours)}{empty}")
        lines.append(f"{'':10}{'mean label':12}{_row(mean)}")
    lines.append("")
    for key, title in (("network", "network"), ("mean_label", "mean label")):
        errors = result[key]
        spread = _plus_minus(errors["mse"], errors["mse_error"])
        lines.append(f"mean squared error of log10 {name}, all bins   {title:12}{spread}")
    return "\n".join(lines)


def _row(values: dict[str, Any]) -> str:
    if not values["num_values"]:
        return f"{'-':>8}{'-':>20}{'-':>20}{'-':>19}"
    spans = "".join(
        f"{f'{low:+.3f} .. {high:+.3f}':>20}"
        for low, high in (values["interval_68"], values["interval_95"])
    )
    rms = _plus_minus(values["rms_dex"], values["rms_dex_error"])
    return f"{values['median']:>+8.3f}{spans}{rms:>19}"


def _plus_minus(value: float, error: float | None) -> str:
    return f"{value:.4f}" + (f" +- {error:.4f}" if error is not None else "")


def _occupied(true: Float, batch: Batch, config: Config) -> Bool:
    """Where dN (or N(>L)) is at least one, [B, num_bins]; the log10 of one alone would not tell."""
    counts = batch.counts.cpu().numpy()
    if config.label.quantity == "cumulative":
        counts = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]
    return np.asarray((true > 0) | (counts > 0))


def _draw(answers: Answers, reference: Float, config: Config) -> list[str]:
    """Write the figures into the run folder; their file names."""
    folder = Path(config.run)
    quantity = config.label.quantity
    arrays = (answers.true, answers.occupied, answers.bin_edges)
    drawn = {
        "comparison.png": figures.comparison(
            answers.predicted, *arrays, reference=reference, quantity=quantity
        ),
        "ratio.png": figures.ratio_bands(answers.predicted, reference, *arrays, quantity=quantity),
    }
    entries = read_history(folder / "history.jsonl")
    if entries:
        drawn["loss.png"] = figures.loss_history(entries)
    for name, figure in drawn.items():
        figure.savefig(folder / name)
    return list(drawn)
