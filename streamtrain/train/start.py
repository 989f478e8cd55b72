"""How a run begins: with the weights of another run, or where it stopped, with more steps.

With another number of steps, the learning rate goes on as `train.extend` says, and what was
extended is kept in the run's configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from streamtrain.config import Config
from streamtrain.luminosity.source import model_name
from streamtrain.machine.files import read_text
from streamtrain.networks.network import BODIES, Network
from streamtrain.schema import ConfigError, build, to_dict
from streamtrain.shipped import find_run, near_run
from streamtrain.train.checkpoint import CheckpointError, first_difference, load_weights, newest
from streamtrain.train.folder import run_folder
from streamtrain.train.optimiser import learning_rate
from streamtrain.train.settings import (
    LONGEST_WARMUP,
    ExtensionConfig,
    StartConfig,
    TrainConfig,
    default_warmup,
)
from streamtrain.yamltext import parse_yaml


@dataclass(frozen=True)
class Start:
    """The newest intact checkpoint of the run `train.start_from`."""

    record: StartConfig
    input_shape: tuple[int, int, int]
    """(n_freq, n_dec, n_ra) of the cubes that it was trained on."""
    weights: dict[str, Any]
    """Weights of the network, the moments it normalises with among them; averaged ones where they
    were kept."""

    @classmethod
    def of(cls, config: Config) -> Start | None:
        """None for a run that begins with random weights, and for one that has begun, which needs
        the other no more.

        Raises ConfigError, one sentence, where the other run is none, or of another network or
        label.
        """
        run = config.train.start_from
        folder = run_folder(config)
        if run is None or any((folder / "checkpoints").glob("step_*")):
            return None
        other = find_run(run)
        if not other.is_dir():
            raise ConfigError(f"train.start_from: there is no run '{run}': {near_run(run)}")
        if other.resolve() == folder.resolve():
            raise ConfigError(
                f"train.start_from = {run} is the run itself: name another, or give this one "
                "another folder (run=...)"
            )
        found = newest(other / "checkpoints")
        if found is None:
            raise ConfigError(f"train.start_from: {run} has no checkpoint; train it first")
        _refuse_other_network(found.config, config, run)
        state = found.state
        average = state.get("average", {})
        step, digest = int(state["step"]), str(found.manifest["digest"])
        return cls(
            StartConfig(run, step, digest, bool(average)),
            tuple(state["input_shape"]),
            state["network"] | average,
        )

    def load_into(self, network: Network, input_shape: tuple[int, int, int]) -> None:
        """Give a network the weights. Raises ConfigError for cubes of another shape than the
        network of the other run was trained on."""
        where = f"train.start_from = {self.record.run}"
        if self.input_shape != tuple(input_shape):
            raise ConfigError(
                f"{where} was trained on maps of {_shape(self.input_shape)} voxels, here they have "
                f"{_shape(input_shape)}"
            )
        try:
            load_weights(network, self.weights)
        except CheckpointError as error:
            raise ConfigError(f"{where}: {error}") from None

    def describe(self) -> str:
        """A sentence for the log."""
        which = "the average of the weights" if self.record.averaged else "the weights"
        return (
            f"begins with {which} of {self.record.run} after step {self.record.step}, checkpoint "
            f"{self.record.digest[:12]}, and with the moments of inputs and labels that they were "
            "trained with; optimiser and learning rate begin anew"
        )


def _refuse_other_network(saved: dict[str, Any], config: Config, run: str) -> None:
    """Compare what decides which numbers the network takes and gives."""
    current = to_dict(config)
    sections = ["network", "label"]
    if BODIES[type(config.network)].sees_boxes:
        sections.append("grid")  # which decides the modes and voxels that a summary is about
        saved, current = (_without_room(whole) for whole in (saved, current))
    if config.label.quantity == "parameters":
        sections.append("emit")  # whose prior decides what a score is
    if config.label.quantity == "class":
        saved = saved | {"classes": _classes(saved)}
        current |= {"classes": _classes(current)}
        sections.append("classes")
    difference = first_difference(
        *({section: whole.get(section) for section in sections} for whole in (saved, current))
    )
    if difference:
        raise ConfigError(
            f"train.start_from = {run} is of another network or label: {difference}; weights can "
            "be used with the same alone"
        )


def _without_room(config: dict[str, Any]) -> dict[str, Any]:
    """Without what the cubes have room for, which changes roundings alone."""
    grid = {name: value for name, value in config["grid"].items() if name != "brightest_Lsun"}
    return {**config, "grid": grid}


def _classes(config: dict[str, Any]) -> list[str]:
    line = config["emit"]["line"]
    return list(line["mixture"]) or [model_name(str(line["model"]))]


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


SMALLEST_RATE = 1e-2
"""Share of the highest learning rate below which going on from it would teach nothing."""
OF_THE_RUN = ("steps", "extend", "extensions", "started_from", "warmup_steps")
"""Settings of `train` that `continued` compares."""


def continued(config: Config, saved: Mapping[str, Any], step: int, folder: Path) -> Config:
    """The configuration with which a run goes on from its checkpoint of `step`: that of this call
    with what the run keeps of itself, its extensions and the weights it began with.

    saved: the checkpoint's configuration, as plain data. folder: of the run; an extension that was
    begun there and has no checkpoint yet stays where it was, so that interruptions leave no trace.
    Raises CheckpointError for a number of steps that the run cannot go on with.
    """
    then, train = _kept(saved["train"]), config.train
    history: tuple[ExtensionConfig, ...] = then.extensions
    extend = train.extend
    if train.steps == then.steps:
        begun = history[-1].schedule if history else extend
        if extend not in (None, begun):
            raise CheckpointError(
                f"train.extend = {begun} there, {extend} here: {config.run} goes on so from step "
                f"{history[-1].at} to {history[-1].to_steps}; change train.steps as well, to go on "
                "in another way from where it is"
            )
        extend = begun
    else:
        _refuse_fewer(config, then.steps, step)
        begun_here = _begun(folder, history, train)
        history = begun_here or (*history, _extension(config, then, step))
        extend = history[-1].schedule
    whole = replace(
        train,
        extend=extend,
        extensions=history,
        started_from=then.started_from,
        warmup_steps=_warmup(train, then),
    )
    return replace(config, train=whole)


def with_same_schedule(saved: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """A checkpoint's configuration with those settings of `continued`, to compare all others."""
    train = to_dict(config.train)
    same = {name: train[name] for name in OF_THE_RUN if name != "warmup_steps"}
    return {**saved, "train": {**saved["train"], **same}}


def begun_anew(config: Config, start: Start | None) -> Config:
    """The configuration of a run that has no checkpoint: without what another kept of itself, with
    the weights it begins with."""
    started = start.record if start is not None else None
    return replace(config, train=replace(config.train, extensions=(), started_from=started))


def describe_extension(extension: ExtensionConfig, train: TrainConfig) -> str:
    """A sentence for the log."""
    rate = learning_rate(max(extension.at, train.warmup) - 1, train)
    how = {
        "constant": f"stays {rate:.3g}",
        "cosine": f"falls from {rate:.3g} to 0 in a cosine",
        "rewarm": f"climbs from {rate:.3g} to {train.learning_rate:.3g}, then falls to 0 in a "
        "cosine",
    }[extension.schedule]
    return (
        f"extended at step {extension.at}: {extension.to_steps} steps instead of "
        f"{extension.from_steps}; the learning rate {how}"
    )


def _kept(saved: Mapping[str, Any]) -> TrainConfig:
    """The section of a checkpoint's configuration, as far as it matters here."""
    names = (*OF_THE_RUN, "schedule", "learning_rate")
    return build(TrainConfig, {name: saved[name] for name in names if name in saved}, "train")


def _warmup(train: TrainConfig, then: TrainConfig) -> int | None:
    """The warm-up that a run goes on with: what it began with, where this call does not say; 100
    was once the default of all runs."""
    began = then.warmup_steps
    if train.warmup_steps is None:
        return began if began in (None, LONGEST_WARMUP) else default_warmup(then.first_steps)
    return None if began is None and train.warmup_steps == then.warmup else train.warmup_steps


def _refuse_fewer(config: Config, steps: int, step: int) -> None:
    if config.train.steps <= step:
        before = f"train.steps={steps} to go on as before, " if steps > step else ""
        raise CheckpointError(
            f"train.steps = {steps} there, {config.train.steps} here, but {config.run} has been "
            f"trained {step} steps: give more than that, {before}or another folder (run=...) to "
            "train anew"
        )


def _extension(config: Config, then: TrainConfig, step: int) -> ExtensionConfig:
    """The extension that begins at `step`."""
    train, run = config.train, config.run
    last = then.extensions[-1].schedule if then.extensions else then.schedule
    schedule = train.extend or ("constant" if last == "constant" else None)
    rate = learning_rate(max(step, then.warmup) - 1, then)
    what = f"train.steps = {then.steps} there, {train.steps} here"
    rewarm = f"climbs to train.learning_rate = {train.learning_rate:g} again and then falls to 0"
    anew = f"a new run with these weights is train.start_from={run} run=..."
    if schedule != "rewarm" and rate < SMALLEST_RATE * then.learning_rate:
        raise CheckpointError(
            f"{what}: the learning rate of {run} is {rate:.3g} at step {step}, and constant or "
            f"a cosine from there teach nothing: use train.extend=rewarm, which {rewarm}; {anew}"
        )
    if schedule is None:
        raise CheckpointError(
            f"{what}: say how the learning rate of {run}, {rate:.3g} at step {step}, goes on: "
            f"train.extend=constant stays there, cosine falls from there to 0, rewarm {rewarm}; "
            f"{anew}"
        )
    return ExtensionConfig(step, then.steps, train.steps, schedule)


def _begun(
    folder: Path, history: tuple[ExtensionConfig, ...], train: TrainConfig
) -> tuple[ExtensionConfig, ...]:
    """The extensions that the folder's config.yaml has, if the last is the one of this call and
    the others are those of the checkpoint."""
    try:
        noted = parse_yaml(read_text(folder / "config.yaml"), "config.yaml")
        begun = _kept(noted["train"]).extensions
    except (OSError, ValueError, KeyError, TypeError):
        return ()
    same = begun[:-1] == history and begun and begun[-1].to_steps == train.steps
    return begun if same and train.extend in (None, begun[-1].schedule) else ()
