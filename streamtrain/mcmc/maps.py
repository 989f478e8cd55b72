"""Test maps with their data vectors, true luminosity functions, and what networks predict."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from streamtrain.config import Config
from streamtrain.evaluate.run import Run
from streamtrain.evaluate.testset import open_generator
from streamtrain.mcmc.inference import Inference
from streamtrain.mcmc.simulations import levels_of
from streamtrain.networks.network import point_of
from streamtrain.schema import differences

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Maps:
    """The first maps of a test set; one row each."""

    vectors: Float
    """Data vectors [num, size]."""
    levels: Float
    """Noise levels [num, num_levels]."""
    theta: Float
    """True parameters [num, num_names]."""
    true: Float
    """log10 of the label's counts, at least 0 [num, num_bins]."""
    occupied: NDArray[np.bool_]
    """Where the count is at least 1 [num, num_bins]."""
    unit: Float | None
    """What one halo is worth in the label's quantity [1 or num, num_bins]; None: one."""
    skies: list[str]
    """What each map was cut from [num]."""
    networks: dict[str, Float]
    """Predictions of trained networks as `true`, by name."""


def networks_of(config: Config, beside: list[Path]) -> dict[str, Run]:
    """The runs whose networks predict too, by name: the configuration's own, if it has been
    trained, and those of the folders. Raises ValueError for one that was trained on other maps or
    labels."""
    runs: dict[str, Run] = {}
    if (Path(config.run) / "checkpoints").is_dir():
        runs[config.network.kind] = Run(config)
    for folder in beside:
        other = Run.open(folder)
        difference = next(
            differences(_maps_and_labels(other.config), _maps_and_labels(config)), None
        )
        if difference is not None:
            raise ValueError(
                f"the run {folder} has other maps or labels than this configuration: "
                f"{difference.text('there', 'here')}"
            )
        name = other.config.network.kind
        runs[name if name not in runs else f"{name} ({folder})"] = other
    return runs


def _maps_and_labels(config: Config) -> dict[str, object]:
    settings = config.sample_settings()
    return {key: settings[key] for key in ("grid", "observe", "label")}


def make_maps(
    inference: Inference, num: int, runs: dict[str, Run], *, device: str, threads: int
) -> Maps:
    """The first maps of the test set, split "test", and what networks say of them."""
    generator = open_generator(inference.config, device=device, threads=threads)
    with torch.inference_mode():
        batch = generator.generate(range(num))
    batch.check()
    label = generator.label
    true = label.log10_counts(batch.label, batch.unit_label).cpu().numpy()
    predictions = {}
    for name, run in runs.items():
        _, point = point_of(run.network(generator), batch.cube, batch.unit_label)
        predictions[name] = label.log10_counts(point, batch.unit_label).cpu().numpy()
    names = inference.density.names
    realisation = {header.name: header.realisation for header in generator.headers}
    made = Maps(
        inference.vector(batch.cube),
        levels_of(batch, inference.levels),
        np.array([[draw["parameters"][name] for name in names] for draw in batch.draws]),
        true,
        label.occupied(batch.label, batch.counts).cpu().numpy(),
        label.unit_of(batch.unit_label),
        [realisation[draw["lightcone"]] for draw in batch.draws],
        predictions,
    )
    generator.close()
    return made
