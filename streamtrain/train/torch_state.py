"""What a training sets in torch, and puts back afterwards."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import torch

from streamtrain.train.settings import TrainConfig

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""cuBLAS gives the same bits every time where this is :4096:8 or :16:8 before its first use."""


class TorchState:
    """While entered: torch's generators start from `seed`, and on a CPU it uses half the cores.

    Half, because the generator's threads need the others, and torch's own, which spin while they
    wait, slow down everything when there are more threads than cores: the quickstart made 440
    samples/s with one torch thread on two cores, 270 with two. OMP_NUM_THREADS says otherwise
    where it is set.

    cores: how many this process may use
    deterministic: torch makes the same bits from run to run on this machine: algorithms that do,
    and on a CPU a number of threads that depends on the machine alone (half of `machine_cores`,
    whatever this run may use)
    machine_cores: this process's share of what the machine has; default: cores
    """

    def __init__(
        self,
        device: torch.device,
        seed: int,
        cores: int,
        *,
        deterministic: bool = False,
        machine_cores: int | None = None,
    ) -> None:
        self._seed, self._deterministic = seed, deterministic
        self._rng = torch.random.fork_rng([device] if device.type == "cuda" else [])
        chosen = deterministic or "OMP_NUM_THREADS" not in os.environ
        self._set_threads = device.type == "cpu" and chosen
        if deterministic:
            cores = machine_cores or cores
        self._threads = max(1, cores // 2)

    def __enter__(self) -> None:
        self._previous_threads = torch.get_num_threads()
        self._rng.__enter__()
        torch.manual_seed(self._seed)
        if self._set_threads:
            torch.set_num_threads(self._threads)
        if self._deterministic:
            cudnn = torch.backends.cudnn
            self._previous = (
                torch.are_deterministic_algorithms_enabled(),
                torch.is_deterministic_algorithms_warn_only_enabled(),
                cudnn.benchmark,
                os.environ.get(WORKSPACE),
            )
            if self._previous[3] not in (":4096:8", ":16:8"):
                os.environ[WORKSPACE] = ":4096:8"
            torch.use_deterministic_algorithms(True)
            cudnn.benchmark = False

    def __exit__(self, *raised: Any) -> None:
        self._rng.__exit__(*raised)
        if self._set_threads:
            torch.set_num_threads(self._previous_threads)
        if self._deterministic:
            enabled, warn_only, torch.backends.cudnn.benchmark, workspace = self._previous
            torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
            os.environ.pop(WORKSPACE)
            if workspace is not None:
                os.environ[WORKSPACE] = workspace


def refuse_random_order(
    network: torch.nn.Module, input_shape: tuple[int, ...], device: torch.device
) -> None:
    """Raise ValueError if torch has no deterministic algorithm for an operation of a network.

    Which ones have none depends on torch and the device (on a GPU cumsum, once also the gradient of
    MaxPool3d), so a map of zeros is tried, forwards and backwards; it changes nothing.
    """
    training = network.training
    network.eval()  # leaves running means and random numbers alone
    try:
        with torch.enable_grad():
            network(torch.zeros((2, *input_shape), device=device)).sum().backward()
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        reason = str(error).partition(", but")[0]
        raise ValueError(
            f"train.deterministic = true: {reason} in torch {torch.__version__} on {device.type}; "
            "set it to false, or choose a network without that"
        ) from None
    finally:
        network.train(training)
        network.zero_grad()


def seed_dropout(seed: int, step: int, rank: int) -> None:
    """Seed torch for one step, so that dropout is a function of the step and needs no state."""
    digest = hashlib.sha256(f"{seed} {step} {rank}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:8], "little"))


def use_bfloat16(train: TrainConfig, device: torch.device) -> bool:
    """Whether the network computes in bfloat16: as `train.precision` says, or on a GPU."""
    if train.precision == "auto":
        return device.type == "cuda"
    return train.precision == "bfloat16"
