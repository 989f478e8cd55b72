"""The weights of another run, which a run begins with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamtrain.config import Config, ConfigError
from streamtrain.config_train import StartConfig
from streamtrain.models import Network
from streamtrain.resources import near_run
from streamtrain.schema import to_dict
from streamtrain.train.checkpoint import CheckpointError, first_difference, load_weights, newest
from streamtrain.train.folder import run_folder


@dataclass(frozen=True)
class Start:
    """The newest intact checkpoint of the run `train.start_from`."""

    record: StartConfig
    input_shape: tuple[int, int, int]
    """(n_freq, n_dec, n_ra) of the cubes that it was trained on."""
    weights: dict[str, Any]
    """Of the network, the moments it normalises with among them; averaged ones where they were
    kept."""

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
        other = Path(run)
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
    if config.network.kind == "summaries":
        sections.append("grid")  # which decides the modes and voxels that a summary is about
    if config.label.quantity == "class":
        saved = saved | {"classes": _classes(saved)}
        current |= {"classes": _classes(current)}
        sections.append("classes")
    for section in sections:
        difference = first_difference(saved.get(section), current.get(section), section)
        if difference:
            raise ConfigError(
                f"train.start_from = {run} is of another network or label: {difference}; weights "
                "can be used with the same alone"
            )


def _classes(config: dict[str, Any]) -> list[str]:
    line = config["emit"]["line"]
    return list(line["mixture"]) or [str(line["model"]).rpartition(":")[2]]


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
