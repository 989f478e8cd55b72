"""The section `train` of a configuration: optimisation, and what is recorded of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from streamtrain.schema import ConfigError, setting, to_dict

Schedule = Literal["constant", "cosine", "rewarm"]
"""How the learning rate goes on."""
LONGEST_WARMUP = 100
"""Steps of the warm-up where a configuration does not say, of a run of 1000 steps or more."""


def default_warmup(steps: int) -> int:
    """Steps of the warm-up of so many steps, where a configuration does not say."""
    return min(LONGEST_WARMUP, steps // 10)


@dataclass(frozen=True)
class ExtensionConfig:
    """A change of the number of steps of a run that had begun."""

    at: int = setting(help="steps that had been done", low=1)
    from_steps: int = setting(help="what train.steps was", low=1)
    to_steps: int = setting(help="what it became", low=1)
    schedule: Schedule = setting(help="how the learning rate goes on")


@dataclass(frozen=True)
class StartConfig:
    """The weights that a run began with."""

    run: str = setting(help="the folder of their run")
    step: int = setting(help="steps they had been trained", low=0)
    digest: str = setting(help="sha256 of the checkpoint's manifest")
    averaged: bool = setting(help="the average of the weights, not the last ones")


@dataclass(frozen=True)
class TrainConfig:
    """Optimisation, and what is recorded of it."""

    steps: int = setting(1000, "optimiser steps; a run may get more later", low=1)
    extend: Schedule | None = setting(
        None,
        "how the learning rate goes on in a run whose steps have changed: constant, a cosine from "
        "where it is to zero, or rewarm: up to learning_rate again, then a cosine to zero",
    )
    start_from: str | None = setting(
        None, "folder of a run whose weights this one begins with; default: random weights"
    )
    batch_size: int = setting(32, "samples per step over all ranks", low=1)
    optimiser: Literal["adamw", "adam", "sgd", "muon"] = setting(
        "adamw", "how weights are updated; muon: hidden dense layers by Muon, all others by adamw"
    )
    learning_rate: float = setting(3e-3, "after the warm-up", above=0, high=10)
    momentum: float | None = setting(None, "of sgd; default: 0.9", low=0, high=0.9999)
    nesterov: bool = setting(False, "Nesterov's momentum, of sgd")
    weight_decay: float = setting(
        1e-4,
        "of weights (tensors of two or more dimensions), not of vectors such as biases; in adam "
        "and sgd it is a penalty on their squares",
        low=0,
        high=10,
    )
    warmup_steps: int | None = setting(
        None,
        "linear warm-up of the learning rate; default: a tenth of the steps, at most 100",
        low=0,
    )
    schedule: Literal["cosine", "constant"] = setting(
        "cosine", "after the warm-up: a cosine to zero, or no change"
    )
    clip_norm: float = setting(1.0, "largest gradient norm", above=0)
    precision: Literal["auto", "float32", "bfloat16"] = setting(
        "auto", "bfloat16 on a GPU, float32 on a CPU"
    )
    log_every: int = setting(10, "steps between entries in TensorBoard", low=1)
    validate_every: int = setting(200, "steps between validations", low=1)
    validation_samples: int = setting(256, "samples per validation, the same every time", low=1)
    checkpoint_every: int = setting(200, "steps between checkpoints", low=1)
    ema: float = setting(
        0.0,
        "decay per step of the average of the weights that is evaluated; 0: none",
        low=0,
        high=1,
    )
    max_nonfinite: int = setting(
        10, "steps in a row that may be skipped because the loss is not finite", low=0
    )
    compile: bool = setting(False, "torch.compile of the network for its training steps")
    channels_last: bool = setting(True, "memory layout of convolutions; which is faster varies")
    deterministic: bool = setting(False, "the same weights bit for bit from run to run")
    threads: int = setting(0, "generator threads on a CPU; 0: one per core", low=0, high=1024)
    queue: int = setting(4, "batches made ahead on a CPU", low=1, high=64)
    processes: int = setting(
        2, "without effect, read because older configurations say it", low=0, high=64
    )
    extensions: tuple[ExtensionConfig, ...] = setting(
        (), "written by the run: where its steps have changed"
    )
    started_from: StartConfig | None = setting(
        None, "written by the run: the weights it began with"
    )

    @property
    def first_steps(self) -> int:
        """Steps before any extension."""
        return self.extensions[0].from_steps if self.extensions else self.steps

    @property
    def warmup(self) -> int:
        """Steps of the warm-up."""
        return default_warmup(self.first_steps) if self.warmup_steps is None else self.warmup_steps


def check_training(train: TrainConfig) -> None:
    """Raise ConfigError for settings that contradict one another."""
    if train.ema == 1:
        raise ConfigError("train.ema = 1 would never leave the first weights: it must be below 1")
    if train.optimiser != "sgd":
        for name, given in (("momentum", train.momentum is not None), ("nesterov", train.nesterov)):
            if given:
                raise ConfigError(f"train.{name} belongs to train.optimiser = sgd, not to "
                                  f"{train.optimiser}")  # fmt: skip
    if train.compile and train.deterministic:
        raise ConfigError("train.compile = true and train.deterministic = true exclude each other: "
                          "a compiler may choose between ways to sum by timing them")  # fmt: skip
    if train.nesterov and train.momentum == 0:
        raise ConfigError("train.nesterov needs train.momentum above 0")
    if train.warmup and train.warmup >= train.first_steps:
        raise ConfigError(
            f"train.warmup_steps = {train.warmup_steps} must be below "
            f"train.steps = {train.first_steps}"
        )


def said_of_training(train: TrainConfig) -> dict[str, Any]:
    """What a digest has of the section: a setting that says nothing leaves no trace, the warm-up is
    the number of steps."""
    whole: dict[str, Any] = to_dict(train)
    for name in ("extend", "start_from", "extensions", "started_from"):
        if not whole[name]:
            del whole[name]
    return whole | {"warmup_steps": train.warmup}
