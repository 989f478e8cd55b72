"""A training of any network on `fake_generator`, to be run as a process of its own:

    PYTHONPATH=tests python -m support.network_training FOLDER NETWORK

NETWORK: the section `network` as YAML
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

import streamtrain.train.trainer
from streamtrain.config import Config, from_mapping
from streamtrain.train.trainer import Trainer
from support.fake_generator import FakeGenerator, tiny_config

RANKS = {"steps": 8, "validate_every": 8, "optimiser": "sgd", "learning_rate": 0.03}
"""Of a run as a process: gradient descent, in which roundings stay as small as they are."""


def training_config(
    folder: Path, network: dict[str, Any], label: dict[str, Any] | None = None, **train: Any
) -> Config:
    """A tiny run with this network."""
    config = tiny_config(folder, label=label, **train)
    checked = from_mapping({"network": network, "label": label or {}})
    return replace(config, network=checked.network)


if __name__ == "__main__":
    streamtrain.train.trainer.Generator = FakeGenerator  # type: ignore[misc]
    settings = yaml.safe_load(sys.argv[2])
    run = training_config(Path(sys.argv[1]), settings, **RANKS)
    Trainer(run, "cpu").run()
