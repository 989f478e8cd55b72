"""What Python has for the command `train`, which calls it too."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from streamtrain.arguments import whole_number
from streamtrain.catalogs.skies import NoFileError
from streamtrain.config import Config, load_config
from streamtrain.evaluate.run import Run
from streamtrain.schema import ConfigError
from streamtrain.train import trainer


def train(
    config: str | Path | Mapping[str, Any] | Config,
    *settings: str,
    device: str | torch.device | None = None,
    max_steps: int | None = None,
    **changes: Any,
) -> Run:
    """Train the network of a configuration, or go on where its run was left; returns the run.

    config, changes: as of `load_config`, so that `train={"steps": 200}` changes that section, and
    `run="runs/mine"` names the folder; settings: the same as on the command line,
    "train.steps=200". The run's folder is that of the command `train`: resolved configuration,
    checkpoints, TensorBoard, history. device: cpu, cuda, cuda:1 ...; default: a GPU if there is
    one. max_steps: end this call, with a checkpoint, after so many steps.

    Ctrl-C ends it after the step, with a checkpoint, and raises KeyboardInterrupt; the same call
    goes on. Meanwhile signals are answered here, torch computes on half of the cores, and progress
    is written to stderr; afterwards signals, torch's threads and random numbers are as before.
    Raises ValueError, one sentence, for input that cannot be used, and TrainingError if the loss is
    not finite too often.

    The smallest training of use takes a minute or two on two cores, in an empty folder. Its
    lightcones are made on the command line, by `streamtrain catalog make --for small.yaml --number
    6 2 1`; then `run = streamtrain.train("small.yaml")` trains, and `run.infer` has the posterior
    of a map. The same with a few steps alone, and skies that lie elsewhere:

    >>> import streamtrain
    >>> skies = {name: [f"lightcones/{name}_*.h5"] for name in ("train", "validation", "test")}
    >>> few = {"steps": 4, "batch_size": 8, "validation_samples": 8}
    >>> run = streamtrain.train("small.yaml", run="runs/mine", data=skies, train=few)
    >>> run
    Run('runs/mine', step 4 of 4, counts, hybrid)
    >>> sample = run.testing().generate([0])  # or the name of a FITS file
    >>> cube = sample.cube[0]  # the network's input
    >>> posterior = run.infer(cube, prepared=True, compare_with=0)  # left out: maps for the alarm
    >>> posterior.functional("N(>10^5)").unit
    ''
    """
    read = load_config(config, settings, **changes)
    if not (device is None or isinstance(device, str | torch.device)):
        raise ConfigError(f"device must be like 'cpu' or 'cuda:1', not {device!r}")
    steps = None if max_steps is None else whole_number(max_steps, "max_steps")
    if steps is not None and steps < 1:
        raise ConfigError(f"max_steps = {steps} must be 1 or more")
    try:
        done = trainer.train(read, device, steps)
    except NoFileError as error:
        if error.where.startswith(("data.", "emit.")) and isinstance(config, str | Path):
            words = [str(config), *settings]
            raise ConfigError(
                f"{error}; lightcones for this configuration, on the command line: streamtrain "
                f"catalog make --for {shlex.join(words)}"
            ) from None
        raise
    return Run(done.config, device=str(done.world.device))
