"""Folders of runs of which every number is known, and the cells of a table of them."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from streamtrain.config import Config, from_mapping
from streamtrain.evaluate import predictions as answers_file
from streamtrain.evaluate import trained
from streamtrain.evaluate.baselines import MeanLabelBaseline
from streamtrain.evaluate.compare import runs
from streamtrain.evaluate.predictions import ClassPredictions, Predictions
from streamtrain.evaluate.report import bootstrap_of, scores_of
from streamtrain.evaluate.testset import Manifest
from streamtrain.generator.generator import GENERATOR_VERSION
from streamtrain.schema import to_dict
from streamtrain.train.checkpoint import save_checkpoint

BINS, MAPS = 7, 30
EDGES = np.linspace(3.5, 7.0, BINS + 1)
RNG = np.random.default_rng(3)
TRUE = np.log10(RNG.poisson(10 ** np.linspace(4.0, 0.5, BINS), (MAPS, BINS)).clip(1))
STEPS = 40


def whole(**changes: Any) -> dict[str, Any]:
    """A configuration, section by section as in a file that extends another."""
    settings: dict[str, Any] = {
        "seed": 5,
        "grid": {"shape": [2, 16, 16]},
        "observe": {"noise": {"sigma_uK": 2.0}, "log_modulus": {}},
        "label": {"bins": BINS},
        "network": {"layers": 2, "filters": 2, "dense": 4},
        "train": {"steps": STEPS, "batch_size": 8, "warmup_steps": 0},
        "test": {"samples": MAPS},
    }
    for name, value in changes.items():
        settings[name] = settings.get(name, {}) | value if isinstance(value, dict) else value
    return settings


def history(size: int = 8) -> list[dict[str, Any]]:
    """A log every 4 steps, a validation every 20; 100 samples/s, then 50."""
    entries: list[dict[str, Any]] = []
    for step in range(4, STEPS + 1, 4):
        rate = 100.0 if step <= 20 else 50.0
        entry = {"step": step, "samples": step * size, "loss": 1 / step, "samples_per_s": rate}
        entries.append(entry)
        if step % 20 == 0:
            errors = {"error_dex_3.5-4.5": 2 / step, "baseline_dex_3.5-4.5": 0.3}
            entries.append({"step": step, "validation_loss": 3 / step, **errors})
    return entries


def make_run(
    folder: Path,
    residual: Any = 0.1,
    *,
    samples: str = "maps",
    halos: int = 5,
    classes: ClassPredictions | None = None,
    skies: list[str] | None = None,
    **changes: Any,
) -> Path:
    """A run whose network errs by `residual` [dex], on test maps that `samples` stands for.
    skies: what each was cut from; None: they are not known."""
    config = from_mapping(whole(run=str(folder), **changes))
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(config.to_yaml())
    lines = [json.dumps(entry) for entry in history(config.train.batch_size)]
    (folder / "history.jsonl").write_text("".join(line + "\n" for line in lines))
    digests = [hashlib.sha256(f"{samples}{k}".encode()).hexdigest() for k in range(MAPS)]
    cones = [{"name": "north.h5", "digest": "d" * 64}]
    manifest = Manifest(GENERATOR_VERSION, halos, MAPS, to_dict(config), cones, digests)
    (folder / "testset.json").write_text(json.dumps(asdict(manifest)))
    digest = hashlib.sha256((folder / "testset.json").read_bytes()).hexdigest()
    found: Predictions | ClassPredictions
    found = Predictions(np.maximum(TRUE + residual, 0.0), TRUE, TRUE > 0, EDGES, skies=skies)
    labels, counts = (np.eye(2), np.eye(2)) if classes else (TRUE, 10**TRUE)
    judged = classes or found
    mean, bootstrap = (
        MeanLabelBaseline.of(labels, counts, ["sky"] * len(labels)),
        bootstrap_of(judged),
    )
    result = {
        "checkpoint_step": STEPS,
        "test_set": {"manifest_sha256": digest, "samples": MAPS},
        **scores_of(judged, mean, config.label.quantity, bootstrap),
    }
    (folder / "evaluation.json").write_text(json.dumps(result))
    if classes is None:
        answers_file._save(folder / answers_file.FILE, json.dumps([STEPS, digest]), found)
    return folder


def save_run(
    config: Config, network: torch.nn.Module, generator: Any, step: int = 7, **more: Any
) -> None:
    """The checkpoint and the configuration of a run; generator: of its samples."""
    state = {
        "step": step,
        "next_index": 0,
        "network": network.state_dict(),
        "input_shape": list(generator.input_shape),
        "classes": generator.classes,
        **more,
    }
    folder = Path(config.run)
    save_checkpoint(folder / "checkpoints", state, config, trained.GENERATOR_VERSION)
    (folder / "config.yaml").write_text(config.to_yaml())


def read(*folders: Path) -> list[runs.RunRecord]:
    return runs.read_runs(list(folders))


def rows(text: str, name: str) -> dict[str, str]:
    """The cells of a run in all blocks of the table, by column. Cells are right-aligned."""
    found: dict[str, str] = {}
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if not re.match(rf"{re.escape(name)}  ", line):
            continue
        head = next(k for k in range(number - 1, -1, -1) if lines[k].startswith("  "))
        for title in re.finditer(r"\S+(?: \S+)*", lines[head]):
            start = line.rfind("  ", 0, title.end())
            found[title.group()] = line[start : title.end()].strip()
    return found
