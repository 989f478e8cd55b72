"""Test maps with their data vectors, true luminosity functions, and what networks predict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from streamtrain.config import Config
from streamtrain.evaluate.inference.parameter_posterior import parameters_of
from streamtrain.evaluate.run import Run
from streamtrain.evaluate.testset import open_generator, skies_of
from streamtrain.labels import Label
from streamtrain.luminosity.mixture import Mixture
from streamtrain.luminosity.scores import NormalScores, in_label
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
    posteriors: dict[str, list[Float]] = field(default_factory=dict)
    """For each map samples of the parameters [num_drawn, num_names], in the order of `theta`, by
    networks that predict these, by name."""


def networks_of(config: Config, beside: list[Path]) -> dict[str, Run]:
    """The runs whose networks predict too, by name: the configuration's own, if it has been
    trained, and those of the folders, which may also predict the model's parameters. Raises
    ValueError for one that was trained on other maps, labels or parameters, or on another prior of
    these."""
    runs: dict[str, Run] = {}
    if (Path(config.run) / "checkpoints").is_dir():
        runs[config.network.kind] = Run(config, recalibrated=False)
    for folder in beside:
        other = Run.open(folder, recalibrated=False)
        of_parameters = other.config.label.quantity == "parameters"
        settings = [_maps_and_labels(c, not of_parameters) for c in (other.config, config)]
        difference = next(differences(*settings), None)
        if difference is not None:
            raise ValueError(
                f"the run {folder} has other maps or labels than this configuration: "
                f"{difference.text('there', 'here')}"
            )
        if of_parameters and _drawn(other.config) != _drawn(config):
            raise ValueError(
                f"the run {folder} is of other parameters than this configuration: "
                f"{', '.join(_drawn(other.config))} there, {', '.join(_drawn(config))} here"
            )
        if of_parameters and _priors(other.config) != _priors(config):
            raise ValueError(
                f"the run {folder} was trained on another prior of its parameters than this "
                "configuration has, and so has another posterior: give emit.line the same one"
            )
        name = f"{other.config.network.kind}{', parameters' if of_parameters else ''}"
        runs[name if name not in runs else f"{name} ({folder})"] = other
    return runs


def _maps_and_labels(config: Config, labels: bool) -> dict[str, object]:
    settings = config.sample_settings()
    return {key: settings[key] for key in ("grid", "observe", *(["label"] if labels else []))}


def _drawn(config: Config) -> list[str]:
    """Models, each with the parameters that it draws."""
    found = []
    for component in Mixture(config.line).components:
        names = sorted(NormalScores(component.prior, component.model.defaults).names)
        found.append(f"{component.model.name} ({', '.join(names)})")
    return found


def _priors(config: Config) -> list[tuple[object, ...]]:
    """What parameters are drawn from, of every model, but for conditions on a draw."""
    priors = [component.prior for component in Mixture(config.line).components]
    return [(dict(prior.parameters), prior.correlated, prior.scale) for prior in priors]


def make_maps(inference: Inference, num: int, runs: dict[str, Run]) -> Maps:
    """The first maps of the test set, split "test", and what networks say of them."""
    generator = open_generator(inference.config, inference.resources)
    with torch.inference_mode():
        batch = generator.generate(range(num))
    batch.check()
    label = generator.label
    true = label.log10_counts(batch.label, batch.unit_label).cpu().numpy()
    names = inference.density.names
    predictions, posteriors = {}, {}
    for name, run in runs.items():
        if run.config.label.quantity == "parameters":
            posteriors[name] = _posteriors(run, batch.cube, names)
            continue
        _, point = point_of(run.network(generator), batch.cube, batch.unit_label)
        predictions[name] = label.log10_counts(point, batch.unit_label).cpu().numpy()
    made = Maps(
        inference.vector(batch.cube),
        levels_of(batch, inference.levels),
        np.array([[draw["parameters"][name] for name in names] for draw in batch.draws]),
        true,
        label.occupied(batch.label, batch.counts).cpu().numpy(),
        label.unit_of(batch.unit_label),
        skies_of(generator, batch),
        predictions,
        posteriors,
    )
    generator.close()
    return made


def _posteriors(run: Run, cubes: torch.Tensor, names: Sequence[str]) -> list[Float]:
    """What a network says of the parameters of some maps, see `Maps.posteriors`."""
    config = run.config
    parameters = in_label(config.label, config.line)
    label = Label(config.label, classes=config.line.class_names, parameters=parameters)
    network = run.trained.network(label, cubes.device)
    output, _ = point_of(network, cubes, torch.zeros(1, 1))
    found = []
    for row in output:
        [model] = parameters_of(network, config.line, row[None]).models
        order = [model.parameters.index(name) for name in names]
        found.append(model.samples[:, order])
    return found
