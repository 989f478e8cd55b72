"""Checkpoints written beside the training.

The state is copied to the host, which takes milliseconds; a thread writes it, flushes it to disk
and computes its digests. One checkpoint is written at a time: the next waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from streamtrain.config import Config
from streamtrain.train.checkpoint import save_checkpoint


class CheckpointWriter:
    """Writes the checkpoints of one run in a thread of its own.

    folder: where they go; config, generator_version: see `save_checkpoint`.
    """

    def __init__(self, folder: Path, config: Config, generator_version: int) -> None:
        self._folder, self._config, self._version = folder, config, generator_version
        self._snapshot = Snapshot()
        self._executor = ThreadPoolExecutor(1, "streamtrain-checkpoint")
        self._pending: Future[Path] | None = None
        self._step = 0
        self.failure: str | None = None
        """Why the last checkpoint could not be written; None: it is on disk, or under way."""

    def save(self, state: Mapping[str, Any]) -> None:
        """Begin to write a checkpoint, after the one that may be under way."""
        self.wait()
        self.failure, self._step = None, state["step"]
        copy, ready = self._snapshot.take(state)
        self._pending = self._executor.submit(self._write, copy, ready)

    def _write(self, state: dict[str, Any], ready: torch.cuda.Event | None) -> Path:
        if ready is not None:
            ready.synchronize()
        return save_checkpoint(self._folder, state, self._config, self._version)

    def wait(self) -> None:
        """Wait for the checkpoint under way; `failure` tells how it ended."""
        if self._pending is None:
            return
        error, self._pending = self._pending.exception(), None
        if error is not None:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            self.failure = f"the checkpoint of step {self._step} could not be written: {reason}"

    def poll(self) -> None:
        """Set `failure` if the checkpoint under way has ended; waits for nothing."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def close(self) -> None:
        """Wait for the checkpoint under way and end the thread."""
        self.wait()
        self._executor.shutdown()


class Snapshot:
    """Copies of nested states in host memory that is used again (pinned for a GPU)."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def take(self, state: Mapping[str, Any]) -> tuple[dict[str, Any], torch.cuda.Event | None]:
        """The copy, valid until the next one is taken, and on a GPU the event of its being there.

        Later changes of the state do not reach it, also those enqueued on a GPU meanwhile.
        """
        self._cuda = False
        copy = self._copy(state, "")
        if not self._cuda:
            return copy, None
        ready = torch.cuda.Event()
        ready.record()
        return copy, ready

    def _copy(self, value: Any, where: str) -> Any:
        if isinstance(value, Tensor):
            return self._copy_tensor(value.detach(), where)
        if isinstance(value, Mapping):
            return {key: self._copy(v, f"{where}.{key}") for key, v in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._copy(v, f"{where}.{k}") for k, v in enumerate(value))
        return value

    def _copy_tensor(self, value: Tensor, where: str) -> Tensor:
        buffer = self._buffers.get(where)
        if buffer is None or buffer.shape != value.shape or buffer.dtype != value.dtype:
            buffer = torch.empty_like(value, device="cpu", pin_memory=value.is_cuda)
            self._buffers[where] = buffer
        self._cuda |= value.is_cuda
        return buffer.copy_(value, non_blocking=True)
