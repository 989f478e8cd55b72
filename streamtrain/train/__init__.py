"""Training: the loop, its checkpoints, its ranks, its record."""

from __future__ import annotations

import contextlib

import torch

from streamtrain.config import Config
from streamtrain.train.interrupt import Stopped
from streamtrain.train.summary import Summary
from streamtrain.train.trainer import Trainer, TrainingError

__all__ = ["Summary", "Trainer", "TrainingError", "train"]


def train(config: Config, device: str | torch.device | None = None) -> int:
    """Train, or continue training; the exit status.

    0 both for a finished run and for one that was asked to stop: its work is safe in a checkpoint,
    and a launcher treats any other status of a rank as a failure. Raises ValueError for what the
    user can put right, TrainingError if the loss is not finite.
    """
    with contextlib.suppress(Stopped):  # the lightcones of the first samples were still made
        Trainer(config, device).run()
    return 0
