"""The trained network of a run: its newest intact checkpoint, as it predicts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from streamtrain.catalogs.skies import again_of, made_again
from streamtrain.config import Config
from streamtrain.evaluate.calibration.recalibration import Applied, find
from streamtrain.evaluate.posterior.posterior import has_posterior
from streamtrain.generator.generator import GENERATOR_VERSION, Generator
from streamtrain.labels import Label
from streamtrain.machine.files import sha256_of
from streamtrain.networks.network import Network, build_network
from streamtrain.schema import warn
from streamtrain.train.checkpoint import load_checkpoint, load_weights
from streamtrain.train.folder import run_folder


@dataclass(frozen=True)
class Trained:
    """The newest intact checkpoint of a run."""

    step: int
    """Optimiser steps that it has seen."""
    input_shape: tuple[int, int, int]
    """(n_freq, n_dec, n_ra) of the cubes that it takes."""
    classes: list[str]
    """Luminosity models that it was trained on; its classes where the label is one."""
    lightcones: list[str] | None
    """Digests of the lightcone files that it was trained on; None where they were made during the
    training, or the checkpoint does not say."""
    recipes: dict[str, str]
    """Recipes of these by their digests, of those that streamtrain made (see `Header.recipe`);
    checkpoints of before there were some have none."""
    applied: Applied
    """How its posterior is shifted and widened, if it is."""
    _config: Config
    _weights: dict[str, Any]

    @classmethod
    def load(cls, config: Config, *, recalibrated: bool = True) -> Trained:
        """The network of the run `config.run`. Raises ValueError, one sentence, if there is no
        checkpoint, or one of another grid, label or network; where the label is of parameters, of
        another prior. recalibrated: whether the run's recalibration is applied."""
        folder = run_folder(config)
        sections = ["grid", "label", "network"]
        if config.label.quantity == "parameters":
            sections.append("emit")
        state = load_checkpoint(folder / "checkpoints", config, GENERATOR_VERSION, sections)
        if state is None:
            raise ValueError(f"the run folder {folder} has no checkpoint; train first")
        shape, weights = tuple(state["input_shape"]), state["network"] | state.get("average", {})
        cones = state.get("samples", {}).get("lightcones")
        known = list(cones) if isinstance(cones, list) else None
        step, applied = int(state["step"]), Applied()
        if recalibrated and has_posterior(config):
            applied = find(folder, step, digest_of(weights))
        classes, recipes = list(state["classes"]), dict(state.get("recipes", {}))
        return cls(step, shape, classes, known, recipes, applied, config, weights)

    @property
    def weights_sha256(self) -> str:
        """sha256 [hex] of the weights that predict."""
        return digest_of(self._weights)

    @property
    def plain(self) -> Trained:
        """The network as it was trained, without a recalibration."""
        return replace(self, applied=Applied())

    def made_of(self, own: Config) -> dict[str, Any]:
        """What its predictions for maps of the prior depend on, as plain data; own: the
        configuration of the run with the lightcones of here."""
        return {
            "samples": sha256_of(own.sample_settings()),
            "generator_version": GENERATOR_VERSION,
            "weights": self.weights_sha256,
            "lightcones": self.lightcones,
            "other_skies": bool(own.data.files("validation")),
        }

    def check_training(self, generator: Generator) -> None:
        """Raise ValueError if a generator of training samples has not the lightcone files that the
        network was trained on; a warning if these were made again elsewhere."""
        here = generator.skies.identity()
        if self.lightcones is None or self.lightcones == here:
            return
        whose = f"those that the network of {self._config.run} was trained on"
        again = again_of(self.lightcones, here, self.recipes, generator.headers)
        if again is None:
            raise ValueError(f"the lightcones of data.train are not {whose}")
        warn(made_again(again, whose))

    def check_maps(self, generator: Generator, what: str = "the test maps") -> None:
        """Raise ValueError for a generator whose maps the network does not take."""
        if generator.input_shape != self.input_shape:
            raise ValueError(
                f"{what} have {generator.input_shape} voxels, the network of {self._config.run} "
                f"takes {self.input_shape}"
            )

    def network(self, label: Label, device: torch.device | str = "cpu") -> Network:
        """The network with its weights (their average, if one was kept), to predict with.

        label: of a generator of this configuration.
        """
        with torch.random.fork_rng(devices=[]):  # initial weights, replaced at once
            network = build_network(
                self._config.network, self.input_shape, label, self._config.observation.input_map
            )
        load_weights(network, self._weights)
        if self.applied.recalibration is not None:
            network.head = self.applied.recalibration.moved(network.head)
        return network.to(device).eval()


def digest_of(weights: Mapping[str, torch.Tensor]) -> str:
    """sha256 [hex] of the names and bytes of tensors, in any order."""
    total = hashlib.sha256()
    for name in sorted(weights):
        values = weights[name].detach().cpu().contiguous()
        total.update(f"{name} {tuple(values.shape)} {values.dtype}".encode())
        total.update(values.flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
