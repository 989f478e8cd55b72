"""What TensorBoard shows of a run besides plain curves, and `lightcones.jsonl` in its folder.

lightcones.jsonl lists the lightcones that were made during training.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from streamtrain.catalogs.synthesis.fresh import MadeLightcone
from streamtrain.config import Config
from streamtrain.train.folder import read_history
from streamtrain.train.validation import RESIDUAL_EDGES, Residuals

SECTIONS = ("network", "label", "emit", "observe")
"""Whose settings are hyper-parameters, with some of `train`."""
OF_TRAINING = (
    "batch_size",
    "clip_norm",
    "ema",
    "learning_rate",
    "optimiser",
    "precision",
    "schedule",
    "steps",
    "warmup_steps",
    "weight_decay",
)
MEAN_LABEL = "mean_label"
"""Folder in that of a run: what always predicting the mean label makes of the same curves. As a run
of its own it has a colour of its own in all of TensorBoard."""
GROUPS = {
    "loss": ("loss/train", "loss/validation"),
    "speed": ("speed/generate_ms", "speed/train_ms", "speed/wait_ms"),
}
"""Curves that are also drawn together, in the tab of custom scalars."""


def hyper_parameters(config: Config) -> dict[str, str | float | bool]:
    """The settings that runs are compared by, by dotted name."""
    sections = {name: getattr(config, name) for name in SECTIONS}
    training = {name: getattr(config.train, name) for name in OF_TRAINING}
    sections["train"] = training | {"warmup_steps": config.train.warmup}
    found = {}
    for name, value in _leaves(sections, ""):
        if isinstance(value, bool | int | float | str):
            found[name] = value
        elif value:  # None and empty lists say nothing
            found[name] = str(value)
    return found


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if not isinstance(value, Mapping):
        yield name, value
        return
    for key, part in value.items():
        yield from _leaves(part, f"{name}.{key}" if name else str(key))


def begin(writer: SummaryWriter, config: Config, ranges: Sequence[str]) -> None:
    """Once per run: configuration, groups of curves, hyper-parameters.

    No list of hyper-parameters is written for all runs together: TensorBoard then makes one of all
    that it shows, with those first in which runs differ.

    ranges: names of the label's luminosity ranges; none where it is no function of luminosity.
    """
    writer.add_text("config", f"```yaml\n{config.to_yaml()}```", 0)
    errors = {f"error, log L {name}": (error_tag(name),) for name in ranges}
    layout = {title: ["Multiline", list(tags)] for title, tags in (GROUPS | errors).items()}
    writer.add_custom_scalars({"together": layout})
    _, session, _ = hparams(hyper_parameters(config), {})
    writer.file_writer.add_summary(session, 0)  # type: ignore[attr-defined]


def end(writer: SummaryWriter, step: int) -> None:
    """All steps are done: the run is one of those that the page of hyper-parameters compares."""
    _, _, summary = hparams({}, {})
    writer.file_writer.add_summary(summary, step)  # type: ignore[attr-defined]


def error_tag(name: str) -> str:
    """The curve of a luminosity range's rms error."""
    return f"error_dex/logL_{name}"


def add_residuals(writer: SummaryWriter, residuals: Residuals, step: int) -> None:
    """A histogram of log10(predicted / true)."""
    counts = residuals.counts
    writer.add_histogram_raw(
        f"residual_dex/logL_{residuals.name}",
        min=float(RESIDUAL_EDGES[0]),
        max=float(RESIDUAL_EDGES[-1]),
        num=float(counts.sum()),
        sum=residuals.total,
        sum_squares=residuals.squares,
        bucket_limits=RESIDUAL_EDGES[1:].tolist(),
        bucket_counts=counts.tolist(),
        global_step=step,
    )


class SkyRecord:
    """One line per lightcone: number, seed, digest, halos (see `MadeLightcone`).

    A run that is continued makes the lightcones of its present window again; they have a line
    already, and should have the same digest.

    path: the file, made with its first line
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        made = read_history(path, "number")
        self._digests = {entry["number"]: str(entry.get("digest")) for entry in made}

    def add(self, made: Iterable[MadeLightcone]) -> Iterator[str]:
        """Write down what was made; yields a sentence for each that came out differently."""
        for lightcone in made:
            number, digest = lightcone.number, lightcone.digest
            before = self._digests.get(number)
            if before == digest:
                continue
            self._digests[number] = digest
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(lightcone)) + "\n")
            if before is not None:
                yield (
                    f"lightcone {number} has the digest {digest[:12]}, before {before[:12]}: last "
                    "bits differ between devices and versions, so that a few halos differ; the "
                    "samples are not bit for bit those of before"
                )
