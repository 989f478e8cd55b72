"""What a training leaves to look at: TensorBoard, the history file, the progress line.

All of it is written by the one rank that keeps the record of the run.
"""

from __future__ import annotations

import contextlib
import sys
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter

from streamtrain.catalogs.synthesis.fresh import MadeLightcone
from streamtrain.config import Config
from streamtrain.figures import confusion, luminosity_function, map_slices
from streamtrain.generator.windows import SkiesInUse
from streamtrain.labels import Label
from streamtrain.machine.memory import memory_use
from streamtrain.machine.progress import Progress, duration
from streamtrain.train import tensorboard
from streamtrain.train.folder import History
from streamtrain.train.probe import Dependence
from streamtrain.train.stopwatch import Times
from streamtrain.train.tensorboard import SkyRecord
from streamtrain.train.validation import Example, ValidationResult, range_names

WARN_AFTER = 0.2
"""Share of the steps before which there is no warning of predictions that ignore the maps."""


@dataclass(frozen=True)
class Logged:
    """What is recorded of the steps since the last log."""

    loss: float
    """Mean loss of these steps over all ranks; `gradient_norm` is a mean over them, too."""
    gradient_norm: float
    learning_rate: float
    times: Times
    skies: SkiesInUse
    """Lightcones that were in use for the last sample."""


class Monitor:
    """Rank 0's record of a run.

    folder: the run's folder; config: the run's configuration; label: of its generator;
    device: that rank 0 trains on;
    step: what training continues from: events and entries past it are dropped.
    """

    def __init__(
        self, folder: Path, config: Config, label: Label, device: torch.device, step: int
    ) -> None:
        self._config, self._label, self._device = config, label, device
        self._history = History(folder / "history.jsonl", step)
        purge = step + 1 if step else None
        self._writer = SummaryWriter(str(folder), purge_step=purge)
        self._mean_label = None
        if label.is_function:
            of_mean = folder / tensorboard.MEAN_LABEL
            self._mean_label = SummaryWriter(str(of_mean), purge_step=purge)
        if not step:
            tensorboard.begin(
                self._writer, config, range_names(label.bins.edges) if label.is_function else []
            )
        self._skies = SkyRecord(folder / "lightcones.jsonl")
        self._progress = Progress()
        self._timed_from: tuple[int, float] | None = None
        """Step and time of the first log: what comes before holds what is done once."""
        self._validation = ""
        self._skies_in_use: list[str] = []
        self._warned = False

    def say(self, text: str) -> None:
        """A line that stays."""
        self._progress.note(text)

    def tell(self, step: int, name: str, text: str) -> None:
        """A line that stays, also in TensorBoard, under a name."""
        self.say(text)
        self._writer.add_text(name, text, step)

    def warn(self, step: int, text: str) -> None:
        """A warning that stays, also in TensorBoard."""
        self.say(f"warning: {text}")
        self._writer.add_text("warning", text, step)

    def flush(self) -> None:
        """What was recorded outlives this process from now on."""
        for writer in self._writers():
            writer.flush()

    def _writers(self) -> list[SummaryWriter]:
        return [writer for writer in (self._writer, self._mean_label) if writer is not None]

    def busy(self, text: str) -> None:
        """A progress line for something other than training steps."""
        self._progress.update(text)

    def log(self, step: int, logged: Logged) -> None:
        """Record the steps since the last log."""
        train, times, loss = self._config.train, logged.times, logged.loss
        scalars = {
            "loss/train": loss,
            "optimiser/learning_rate": logged.learning_rate,
            "optimiser/gradient_norm": logged.gradient_norm,
            "speed/samples_per_s": times.samples_per_s,
            "speed/generate_ms": times.generate_ms,
            "speed/train_ms": times.train_ms,
            "speed/wait_ms": times.wait_ms,
            "speed/overlap": times.overlap,
            "progress/samples_seen": float(step * train.batch_size),
            "progress/lightcones_seen": float(logged.skies.seen),
            **{f"memory/{name}": value for name, value in memory_use(self._device).items()},
        }
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)
        self._history.append(
            {
                "step": step,
                "samples": step * train.batch_size,
                "loss": loss,
                "learning_rate": logged.learning_rate,
                "samples_per_s": times.samples_per_s,
                "generate_ms": times.generate_ms,
                "train_ms": times.train_ms,
                "wait_ms": times.wait_ms,
                "overlap": times.overlap,
            }
        )
        if logged.skies.names != self._skies_in_use:
            self._skies_in_use = logged.skies.names
            self._writer.add_text("lightcones in use", ", ".join(self._skies_in_use), step)
        self._show(step, loss, times)

    def _show(self, step: int, loss: float, times: Times) -> None:
        total, now, left = self._config.train.steps, time.monotonic(), ""
        if self._timed_from is None:
            self._timed_from = step, now
        elif step > self._timed_from[0]:
            first, begin = self._timed_from
            left = f"  left {duration((now - begin) / (step - first) * (total - step))}"
        self._progress.update(
            f"step {step}/{total}  loss {loss:.4g}{self._validation}  "
            f"{times.samples_per_s:.0f} samples/s  generate {times.generate_ms:.0f} ms  "
            f"train {times.train_ms:.0f} ms{left}"
        )
        if not left:
            self._progress.soon()

    def made(self, step: int, lightcones: Sequence[MadeLightcone]) -> None:
        """Record lightcones that were made during training."""
        for sentence in self._skies.add(lightcones):
            self.warn(step, sentence)

    def validated(self, step: int, result: ValidationResult) -> None:
        """Record a validation, with its two figures."""
        entry: dict[str, Any] = {"step": step, "validation_loss": result.loss}
        self._writer.add_scalar("loss/validation", result.loss, step)
        for error in result.ranges:
            tag = tensorboard.error_tag(error.name)
            self._writer.add_scalar(tag, error.rms_dex, step)
            if self._mean_label is not None:
                self._mean_label.add_scalar(tag, error.baseline_dex, step)
            entry[f"error_dex_{error.name}"] = error.rms_dex
            entry[f"baseline_dex_{error.name}"] = error.baseline_dex
        for parameter in result.parameters:
            self._writer.add_scalar(f"parameter_error/{parameter.name}", parameter.rms, step)
            self._writer.add_scalar(f"prior_error/{parameter.name}", parameter.baseline, step)
            entry[f"parameter_error_{parameter.name}"] = parameter.rms
        self._validation = f"  validation {result.loss:.4g}"
        if result.mean_label_loss is not None:
            name = "prior" if self._label.is_parameters else "mean label"
            self._validation += f" ({name} {result.mean_label_loss:.4g})"
            entry[f"{name.replace(' ', '_')}_loss"] = result.mean_label_loss
            if self._mean_label is not None:
                self._mean_label.add_scalar("loss/validation", result.mean_label_loss, step)
        if result.classes is not None:
            scores = {
                "accuracy": result.classes.accuracy,
                "baseline_accuracy": result.classes.baseline_accuracy,
                "baseline_loss": result.classes.baseline_loss,
            }
            for name, value in scores.items():
                self._writer.add_scalar(f"classes/{name}", value, step)
            entry |= scores
            if self._label.is_class:
                self._validation += f" (frequencies alone {result.classes.baseline_loss:.4g})"
            self._validation += (
                f"  accuracy {result.classes.accuracy:.3f} (most frequent class "
                f"{result.classes.baseline_accuracy:.3f})"
            )
            figure = confusion(result.classes.confusion, self._label.classes)
            self._writer.add_figure("confusion", figure, step)
        for name, value in result.posterior.items():
            self._writer.add_scalar(f"posterior/{name}", value, step)
            entry[f"posterior/{name}"] = value
        for residuals in result.residuals:
            tensorboard.add_residuals(self._writer, residuals, step)
        entry |= self._probe(step, result.dependence)
        self._history.append(entry)
        if result.example is not None:
            self._draw(step, result.example)
        if step == self._config.train.steps:
            tensorboard.end(self._writer, step)
        self.flush()

    def _probe(self, step: int, dependence: Dependence) -> dict[str, float]:
        """Show how far predictions depend on the maps, and warn once if they do not; returns what
        goes into the history."""
        found = {"skill": dependence.skill}
        if dependence.blank_dex is not None:
            found["blank_dex"] = dependence.blank_dex
        for name, value in found.items():
            self._writer.add_scalar(f"probe/{name}", value, step)
        if step >= WARN_AFTER * self._config.train.steps:
            if dependence.problem and not self._warned:
                self.warn(step, dependence.problem)
            self._warned = bool(dependence.problem)
        return found

    def _draw(self, step: int, example: Example) -> None:
        """Figures of a few samples."""
        self._writer.add_figure("map", self._maps(example), step)
        if example.functions is not None:
            functions = luminosity_function(
                example.functions.predicted,
                example.functions.true,
                self._label.bins.edges,
                occupied=example.functions.occupied,
                quantity=self._config.label.quantity,
                blank=example.functions.blank,
                unit=example.functions.unit,
                title=f"validation samples: luminosity functions as the network of step {step} "
                "predicts them, and true ones",
            )
            self._writer.add_figure("luminosity_function", functions, step)

    def _maps(self, example: Example) -> Figure:
        """What the network sees, and below it the light of the halos alone: how the map differs
        from the same without a halo, in map units where these are not lost."""
        grid, of = self._config.grid, self._config.observation.input_map
        cube, nothing = torch.from_numpy(np.stack([example.cube, example.nothing])).unsqueeze(1)
        light = (of.restore(cube) - of.restore(nothing))[0].numpy()
        rows = {
            "network input": example.cube,
            f"halos' light [{of.units or 'network input'}]": light,
        }
        return map_slices(
            rows,
            fov_deg=grid.fov_deg,
            nu_GHz=grid.nu_GHz,
            title=f"validation sample 0: the map that the network sees, and the light of its halos "
            f"in it\n{textwrap.fill(drawn_in_words(example.draw), 110)}".replace("\0", " "),
        )

    def close(self) -> None:
        """Write out everything and close the files."""
        self._progress.close()
        self._history.close()
        for writer in self._writers():
            writer.close()


def drawn_in_words(record: Mapping[str, Any]) -> str:
    """What was drawn for a sample, an entry of `Batch.draws`: 'model li16 (alpha = 1.37, ...);
    noise (sigma_uK = 2)'. Where its field lies is left out."""
    said = [f"model {record['model']}{_numbers(record.get('parameters', {}))}"]
    for name, value in record.items():
        if name == "parameters" or not isinstance(value, Mapping):
            continue
        if "model" in value:
            said.append(f"{name}: {drawn_in_words(value)}")
        else:
            said.append(f"{name.replace('_', ' ')}{_numbers(value)}")
    return "; ".join(said)


def _numbers(values: Mapping[str, float]) -> str:
    shown = ", ".join(f"{name}\0=\0{value:.3g}" for name, value in values.items())
    return f" ({shown})" if shown else ""


class Record:
    """Writes through a `Monitor` in rank 0 and nothing in the others.

    A disk that is full ends no training: one line says so, what cannot be written is left out, and
    writing goes on once there is room again.

    open_monitor: makes the monitor that continues from a step; None: nothing is recorded
    step: what training continues from
    Raises OSError if the record cannot be opened.
    """

    def __init__(self, open_monitor: Callable[[int], Monitor] | None, step: int) -> None:
        self._open, self._lost = open_monitor, False
        self._monitor = open_monitor(step) if open_monitor is not None else None

    def write(self, step: int, action: Callable[[Monitor], None]) -> None:
        """Let `action` record something of this step."""
        if self._monitor is None or self._open is None:
            return
        try:
            action(self._monitor)
            self._lost = False
        except OSError as error:
            self._tell(error)
            self._reopen(step, action)

    def _reopen(self, step: int, action: Callable[[Monitor], None]) -> None:
        """TensorBoard's writer never recovers from an error: another one takes its place."""
        assert self._open is not None and self._monitor is not None
        try:
            again = self._open(step)
        except OSError:
            return
        old, self._monitor = self._monitor, again
        with contextlib.suppress(OSError):
            old.close()
        with contextlib.suppress(OSError):
            action(again)

    def _tell(self, error: OSError) -> None:
        if not self._lost:
            with contextlib.suppress(OSError):
                print(
                    f"streamtrain: warning: the run's record cannot be written ({error}); "
                    "training goes on",
                    file=sys.stderr,
                )
        self._lost = True

    def close(self) -> None:
        """Write out everything and close the files."""
        if self._monitor is not None:
            with contextlib.suppress(OSError):
                self._monitor.close()
