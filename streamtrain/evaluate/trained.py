"""The trained network of a run, from its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from streamtrain.config import Config, load_config
from streamtrain.generator.generator import GENERATOR_VERSION
from streamtrain.generator.inputmap import InputMap
from streamtrain.generator.labels import Label
from streamtrain.models import Network, build_network
from streamtrain.resources import near_run
from streamtrain.train.checkpoint import load_checkpoint, load_weights
from streamtrain.train.folder import run_folder


def run_config(folder: str | Path) -> Config:
    """The configuration of a run from its folder, wherever that folder lies now."""
    if not Path(folder).is_dir():
        raise ValueError(f"there is no run '{folder}': {near_run(folder)}")
    return load_config(folder)


@dataclass(frozen=True)
class Trained:
    """The newest intact checkpoint of a run."""

    step: int
    """Optimiser steps that it has seen."""
    input_shape: tuple[int, int, int]
    """(n_freq, n_dec, n_ra) of the cubes that it takes."""
    classes: list[str]
    """Luminosity models that it was trained on; what it tells apart where the label is a class."""
    _config: Config
    _weights: dict[str, Any]

    @classmethod
    def load(cls, config: Config) -> Trained:
        """Of the run `config.run`. Raises ValueError, one sentence, if there is no checkpoint, or
        one of another grid, label or network."""
        folder = run_folder(config)
        sections = ("grid", "label", "network")
        state = load_checkpoint(folder / "checkpoints", config, GENERATOR_VERSION, sections)
        if state is None:
            raise ValueError(f"the run folder {folder} has no checkpoint; train first")
        shape, weights = tuple(state["input_shape"]), state["network"] | state.get("average", {})
        return cls(int(state["step"]), shape, list(state["classes"]), config, weights)

    def network(self, label: Label, device: torch.device | str = "cpu") -> Network:
        """The network with its weights (their average, if one was kept), to answer with.

        label: of a generator of this configuration.
        """
        with torch.random.fork_rng(devices=[]):  # initial weights, replaced at once
            network = build_network(
                self._config.network, self.input_shape, label, InputMap.of(self._config)
            )
        load_weights(network, self._weights)
        return network.to(device).eval()
