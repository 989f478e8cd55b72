"""Runs in their folders, as they are compared: configuration, size, history, evaluation, test set.

What a run lacks is a sentence each, not an error: the others are compared all the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from streamtrain.config import Config
from streamtrain.evaluate import testset
from streamtrain.evaluate.folder import read_evaluation, read_json, run_config
from streamtrain.labels import COUNT_QUANTITIES, NO_FUNCTION, QUANTITIES, Label
from streamtrain.luminosity.scores import in_label
from streamtrain.machine.files import sha256, sha256_of
from streamtrain.networks.network import build_network, loss_name, multiply_adds
from streamtrain.shipped import find_run

CALIBRATION = "calibration.json"
"""What `evaluate --calibration` writes."""
LAST_SHARE = 0.1
"""Share of the steps, the last ones, whose mean training loss counts as the final loss."""


@dataclass(frozen=True)
class Size:
    """How large a network is."""

    parameters: int
    multiply_adds: int
    """Multiply-adds of convolutions and dense layers, per sample."""


@dataclass(frozen=True)
class RunRecord:
    """What lies in the folder of a run."""

    name: str
    folder: Path
    config: Config
    size: Size | None
    history: list[dict[str, Any]]
    """Up to the first line that cannot be read."""
    evaluation: dict[str, Any] | None
    """What evaluation.json holds, if it belongs to the test set beside it."""
    manifest: testset.Manifest | None
    problems: list[str] = field(default_factory=list)
    """What is missing or damaged, one sentence each."""

    @property
    def steps(self) -> int:
        """Optimiser steps that the history has."""
        return max((entry["step"] for entry in self.history), default=0)

    @property
    def samples(self) -> int:
        """Training samples that these steps have seen."""
        return self.steps * self.config.train.batch_size

    @property
    def seconds(self) -> float | None:
        """Time of the training steps, without validations and checkpoints [s]."""
        total, seen = 0.0, 0
        for entry in self.history:
            if entry.get("samples_per_s"):
                total += (entry["samples"] - seen) / entry["samples_per_s"]
                seen = entry["samples"]
        return total or None

    @property
    def training_loss(self) -> float | None:
        """Mean of the last tenth of the steps."""
        first = (1.0 - LAST_SHARE) * self.steps
        # an entry is of the steps since the one before it
        losses = [e["loss"] for e in self.history if "loss" in e and e["step"] > first]
        return sum(losses) / len(losses) if losses else None

    @property
    def validation_loss(self) -> float | None:
        """Loss of the last validation; None where there was none."""
        return next(
            (e["validation_loss"] for e in self.history[::-1] if "validation_loss" in e), None
        )

    @property
    def function(self) -> str:
        """What errors are about: dN, also of a density; N(>L); class; or parameters."""
        quantity = self.config.label.quantity
        if quantity in NO_FUNCTION:
            return quantity
        return "dN" if quantity in COUNT_QUANTITIES else QUANTITIES[quantity].symbol

    @property
    def loss(self) -> str:
        """What the loss is; losses of another name are numbers of another kind."""
        label, head = self.config.label, self.config.network.head
        name = loss_name(head, self.function == "class", self.function == "parameters")
        if not name.endswith("of the label"):
            return name
        if self.function == "class":
            return f"{name} [nat]"
        start = name.removesuffix(" of the label")
        linear = f"{self.function}, in standard deviations of each bin"
        return f"{start} of {linear if label.scale == 'linear' else f'log10 {self.function}'}"

    @property
    def errors_without(self) -> str:
        """What the errors of the evaluation do not know of, a sentence, or ''."""
        return ((self.evaluation or {}).get("bootstrap") or {}).get("without") or ""

    @property
    def calibration(self) -> dict[str, Any] | None:
        """What calibration.json holds, if it is of the checkpoint and the test maps of the
        evaluation."""
        found, of = read_json(self.folder / CALIBRATION), self.evaluation
        if found is None or of is None:
            return None
        same = ["checkpoint_step", "recalibration"]
        if "weights_sha256" in found and "weights_sha256" in of:  # files of before have none
            same.append("weights_sha256")
        if any(found.get(name) != of.get(name) for name in same):
            return None
        digests = [each.get("test_set", {}).get("manifest_sha256") for each in (found, of)]
        return found if digests[0] == digests[1] else None

    @property
    def maps(self) -> str | None:
        """Digest of the test maps: equal where every map and its halos are the same bytes."""
        return sha256_of(self.manifest.samples) if self.manifest else None

    @property
    def halos(self) -> str | None:
        """Digest of what decides the halos, their luminosities and bins in the test maps: equal
        where two runs predict the same functions, if perhaps of other maps."""
        if self.manifest is None:
            return None
        config = self.manifest.config
        grid = {k: v for k, v in config["grid"].items() if k not in ("shape", "units")}
        bins = {k: config["label"][k] for k in ("log10_L", "bins", "edges")}
        if config["label"]["quantity"] == "cumulative" and not config["label"]["overflow"]:
            bins["overflow"] = False  # another N(>L)
        data = {k: config["data"][k] for k in ("roll", "mirror", "min_mass_Msun", "sfr")}
        skies = [cone["digest"] for cone in self.manifest.lightcones]
        numbers = (self.manifest.seed, self.manifest.count, self.manifest.generator_version)
        return sha256_of([grid, bins, data, config["emit"], skies, numbers])


def read_runs(folders: Sequence[str | Path], given: Sequence[str] = ()) -> list[RunRecord]:
    """The runs in these folders, named by the part of their paths in which they differ.

    given: settings, see `run_config`. Raises ValueError for a folder that is none of a run, or is
    given twice.
    """
    paths = [find_run(folder) for folder in folders]
    known: dict[Path, Path] = {}
    for path in paths:
        if path.resolve() in known:
            raise ValueError(f"{path} is given twice")
        known[path.resolve()] = path
    names = zip(paths, _names(paths), strict=True)
    return [read_run(path, name, given) for path, name in names]


def read_run(folder: Path, name: str, given: Sequence[str] = ()) -> RunRecord:
    """The run in a folder. given: settings, see `run_config`. Raises ValueError if it has no
    configuration that can be read."""
    config = run_config(folder, given)
    problems: list[str] = []
    history = _history(folder, name, problems)
    evaluation, manifest = _evaluation(folder, name, problems)
    run = RunRecord(name, folder, config, _size(config), history, evaluation, manifest, problems)
    if run.evaluation and run.evaluation.get("recalibration"):
        skies = ", ".join(sky["name"] for sky in run.evaluation["recalibration"]["skies"][:3])
        problems.append(
            f"{name}: its posterior was recalibrated on {skies} (streamtrain calibrate)."
        )
    if run.evaluation and run.history and run.evaluation["checkpoint_step"] < run.steps:
        problems.append(
            f"{name} was evaluated at step {run.evaluation['checkpoint_step']} of {run.steps}; "
            f"'{how_to_evaluate(folder)}' does it again."
        )
    return run


def how_to_evaluate(folder: Path) -> str:
    """The command that makes a run's evaluation."""
    return f"streamtrain evaluate {folder}"


def test_sets(runs: Sequence[RunRecord]) -> dict[str, str]:
    """A short name for each run's test set: another letter for other halos, and another number for
    the same halos in other maps; '-' for a run without one."""
    letters: dict[str, list[str]] = {}
    for run in runs:
        if run.halos is not None and run.maps is not None:
            numbers = letters.setdefault(run.halos, [])
            if run.maps not in numbers:
                numbers.append(run.maps)
    names = {}
    for run in runs:
        names[run.name] = "-"
        if run.halos is not None and run.maps is not None:
            letter = _letter(list(letters).index(run.halos))
            number = letters[run.halos].index(run.maps)
            names[run.name] = letter + (str(number + 1) if len(letters[run.halos]) > 1 else "")
    return names


def _letter(number: int) -> str:
    """A to Z, then A', B' ..."""
    return chr(ord("A") + number % 26) + "'" * (number // 26)


def _names(paths: Sequence[Path]) -> list[str]:
    """The last parts of paths, as many as it takes to tell them apart."""
    parts = [path.resolve().parts for path in paths]
    for depth in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(p[-depth:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    raise AssertionError("two paths are equal")


def _size(config: Config) -> Size | None:
    """Of the network that a configuration makes; None where a file of a map operator is missing."""
    try:
        grid = config.grid
        plan = config.observation
        plan.operators()  # reads their files
        shape = plan.state.shape
        classes, parameters = list(config.line.class_names), in_label(config.label, config.line)
        label = Label(config.label, [grid.volume_Mpc3()], classes, parameters=parameters)
        with torch.device("meta"):
            network = build_network(config.network, shape, label, plan.input_map)
            number = sum(p.numel() for p in network.parameters())
            return Size(number, multiply_adds(network, shape))
    except (ValueError, OSError):
        return None


def _history(folder: Path, name: str, problems: list[str]) -> list[dict[str, Any]]:
    """Entries of history.jsonl. A last line without its end is that of a training that goes on."""
    file = folder / "history.jsonl"
    if not file.is_file():
        problems.append(f"{name} has no history.jsonl: nothing is known of its training.")
        return []
    lines = file.read_bytes().splitlines()
    entries: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        entry = _entry(line)
        if entry is None or (entries and entry["step"] < entries[-1]["step"]):
            if number < len(lines):
                problems.append(
                    f"{name}: history.jsonl is damaged at line {number} of {len(lines)}; what "
                    "follows is left out."
                )
            break
        entries.append(entry)
    return entries


def _entry(line: bytes) -> dict[str, Any] | None:
    """The numbers in a line of a history, if it is one."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    if not isinstance(entry, dict) or not isinstance(entry.get("step"), int):
        return None
    numbers = {k: v for k, v in entry.items() if isinstance(v, int | float)}
    complete = "loss" not in entry or {"loss", "samples", "samples_per_s"} <= numbers.keys()
    return numbers if complete else None


def _evaluation(
    folder: Path, name: str, problems: list[str]
) -> tuple[dict[str, Any] | None, testset.Manifest | None]:
    """evaluation.json and testset.json, if both are there and belong together."""
    file, path = folder / "evaluation.json", folder / "testset.json"
    again = f"'{how_to_evaluate(folder)}' makes it"
    if not file.is_file():
        problems.append(f"{name} has no evaluation: {again}.")
        return None, None
    try:
        found = read_evaluation(folder) or {}
        _check(found)
    except (ValueError, KeyError, TypeError):
        problems.append(f"{name}: evaluation.json is damaged; {again} again.")
        return None, None
    try:
        manifest = testset.load(path)
    except ValueError as error:
        problems.append(f"{name}: its test set is unknown: {error}.")
        return found, None
    if sha256(path) != found["test_set"]["manifest_sha256"]:
        problems.append(
            f"{name}: evaluation.json is of another test set than testset.json; {again} again."
        )
        return None, manifest
    return found, manifest


def _check(evaluation: Any) -> None:
    """Raise for what is no result of `evaluate`."""
    network = evaluation["network"]
    numbers = [evaluation["checkpoint_step"]]
    if evaluation["label"] == "class":
        numbers += [
            network["accuracy"],
            network["cross_entropy"],
            evaluation["most_frequent"]["accuracy"],
        ]
    elif evaluation["label"] == "parameters":
        numbers.append(network["information"])
        for of in network["parameters"].values():
            numbers += [of["width"], of["rms"], of["bias_sigma"], of["coverage_68"]]
    else:
        for predictor in (network, evaluation["mean_label"]):
            numbers.append(predictor["mse"])
            for part in [*predictor["ranges"], predictor["whole"]]:
                low, high = part["log10_L"]
                numbers += [low, high, part["num_values"]]
                _ = part["rms_dex"], part["rms_dex_error"], part["interval_68"], part["median"]
    if not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers):
        raise ValueError("a number is missing")
    if not isinstance(evaluation["test_set"]["manifest_sha256"], str):
        raise TypeError
