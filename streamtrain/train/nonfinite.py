"""Updates whose loss or gradient is not finite are skipped, and their samples written down.

The decision is made on the device, so no step waits for a GPU: the host learns of it when it reads
the means of the last steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from streamtrain.config import Config
from streamtrain.train.folder import History

FILE = "nonfinite.jsonl"


@dataclass(frozen=True)
class Skipped:
    """What the host learns at a reading."""

    steps: list[int]
    """Steps whose loss or gradient was not finite, counted from the reading before."""
    in_a_row: int
    """How many of them are the last ones, or led to the stop."""
    stop: bool
    """More in a row than allowed; from there on every update was skipped."""


class Guard:
    """Lets an optimiser make finite updates only; a skipped one changes no state at all.

    The ranks decide alike: `tied` makes the gradient of a loss that is not finite NaN, the gradient
    is averaged over the ranks, and its norm is what counts.

    allowed: steps in a row that may be skipped; every: most steps between readings;
    in_a_row: how many the last ones before were, in a training that is continued.
    """

    def __init__(
        self,
        network: nn.Module,
        optimiser: torch.optim.Optimizer,
        device: torch.device,
        *,
        allowed: int,
        every: int,
        in_a_row: int = 0,
    ) -> None:
        self._optimiser, self._allowed = optimiser, allowed
        self._waits = device.type == "cpu" or not _skips_on_device(optimiser)
        self._running = [
            buffer
            for module in network.modules()
            if isinstance(module, _NormBase)
            for buffer in module.buffers(recurse=False)
        ]
        self._before: list[Tensor] = []
        self._flags = torch.zeros(every, dtype=torch.bool, device=device)
        self._row = torch.tensor(in_a_row, device=device)
        self._stop = torch.tensor(False, device=device)
        self._steps = 0

    def begin(self) -> None:
        """Before the forward pass: it changes the running means of batch normalisation."""
        self._before = [buffer.clone() for buffer in self._running]

    def undo(self) -> None:
        """A step that was begun does not come about."""
        for buffer, before in zip(self._running, self._before, strict=False):
            buffer.copy_(before)
        self._before = []

    def tied(self, loss: Tensor) -> Tensor:
        """The loss, or NaN (with its gradient) if it is not finite."""
        return loss * torch.where(torch.isfinite(loss.detach()), 1.0, torch.nan)

    def update(self, norm: Tensor) -> Tensor:
        """Let the optimiser step if the gradient norm is finite; bool scalar: whether it did."""
        bad = ~torch.isfinite(norm)
        self._flags[self._steps] = bad & ~self._stop
        self._steps += 1
        self._row = torch.where(self._stop | bad, self._row + (bad & ~self._stop), 0)
        self._stop = self._stop | (self._row > self._allowed)
        skip = bad | self._stop
        if self._waits or not self._optimiser.state:  # a first momentum would be left undefined
            if not skip:
                self._optimiser.step()
        else:
            self._optimiser.found_inf = skip.float()  # type: ignore[attr-defined]
            self._optimiser.step()
        for buffer, before in zip(self._running, self._before, strict=True):
            buffer.copy_(torch.where(skip, before, buffer))
        self._before = []
        return ~skip

    def read(self) -> Skipped:
        """What happened since the last reading; waits for the GPU."""
        flags = self._flags[: self._steps].tolist()
        self._steps = 0
        steps = [number for number, flag in enumerate(flags) if flag]
        return Skipped(steps, int(self._row), bool(self._stop))


def _skips_on_device(optimiser: torch.optim.Optimizer) -> bool:
    """Fused optimisers take a flag that torch.amp.GradScaler gives them otherwise."""
    return getattr(optimiser, "_step_supports_amp_scaling", False)


def describe_stop(skipped: Skipped, config: Config, step: int) -> str:
    """Why training stops and what to do about it, in a sentence. step: the last one skipped."""
    train, path = config.train, Path(config.run) / FILE
    index = (step - 1) * train.batch_size
    return (
        f"the loss or its gradient was not finite in {skipped.in_a_row} steps in a row, up to step "
        f"{step} (train.max_nonfinite = {train.max_nonfinite}): their samples are listed in {path} "
        f"(streamtrain preview {config.run}/config.yaml --index {index} shows the first of the "
        "last); the last checkpoint is intact: try a lower train.learning_rate than "
        f"{train.learning_rate:g}"
    )


class SkipRecord:
    """`nonfinite.jsonl`: a line per skipped step with the indices of its samples.

    folder: of the run; step: what training continues from; batch_size: over all ranks.
    """

    def __init__(self, folder: Path, step: int, batch_size: int) -> None:
        self._batch_size = batch_size
        self._history = History(folder / FILE, step)

    def add(self, step: int) -> dict[str, Any]:
        """Write down the update number `step` (from 1), whose samples can be made again."""
        first = (step - 1) * self._batch_size
        entry = {"step": step, "indices": list(range(first, first + self._batch_size))}
        self._history.append(entry)
        return entry

    def close(self) -> None:
        """Close the file of skipped steps."""
        self._history.close()
