"""What a training sets in torch, and puts back afterwards."""

from __future__ import annotations

import hashlib
import os
from types import TracebackType

import torch

from streamtrain.config import TrainConfig


class TorchState:
    """While entered: torch's generators start from `seed`, and on a CPU it uses half the cores.

    Half, because the generator's threads need the others, and torch's own, which spin while they
    wait, slow down everything when there are more threads than cores: the quickstart made 440
    samples/s with one torch thread on two cores, 270 with two. OMP_NUM_THREADS says otherwise
    where it is set.

    cores: how many this process may use.
    """

    def __init__(self, device: torch.device, seed: int, cores: int) -> None:
        self._seed = seed
        self._rng = torch.random.fork_rng([device] if device.type == "cuda" else [])
        self._set_threads = device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ
        self._threads = max(1, cores // 2)
        self._previous_threads = torch.get_num_threads()

    def __enter__(self) -> None:
        self._rng.__enter__()
        torch.manual_seed(self._seed)
        if self._set_threads:
            torch.set_num_threads(self._threads)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._rng.__exit__(kind, error, trace)
        if self._set_threads:
            torch.set_num_threads(self._previous_threads)


def seed_dropout(seed: int, step: int, rank: int) -> None:
    """Seed torch for one step, so that dropout is a function of the step and needs no state."""
    digest = hashlib.sha256(f"{seed} {step} {rank}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:8], "little"))


def use_bfloat16(train: TrainConfig, device: torch.device) -> bool:
    """Whether the network computes in bfloat16: as `train.precision` says, or on a GPU."""
    if train.precision == "auto":
        return device.type == "cuda"
    return train.precision == "bfloat16"
