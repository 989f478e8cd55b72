"""A generator of tiny samples with a known answer, for tests of the training loop.

Sample = white noise of an amplitude a per sample; log10 dN of bin n = 3 + a - n / 10, or class 1
where a > 1. It keeps the promises of the real one: a sample is a function of (seed, split, index).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from streamtrain.catalogs.synthesis.fresh import MadeLightcone
from streamtrain.config import Config, from_mapping
from streamtrain.generator.generator import Batch
from streamtrain.generator.windows import SkiesInUse
from streamtrain.labels import Label
from streamtrain.networks.network import Network
from streamtrain.train.trainer import Trainer

NUM_BINS = 7
VOLUME_MPC3 = 2e6
SPLITS = ("train", "validation", "test")


class FakeGenerator:
    """A `streamtrain.generator.draws.SampleGenerator`."""

    input_shape = (2, 8, 8)
    num_bins = NUM_BINS
    bin_edges = np.linspace(3.5, 7.0, NUM_BINS + 1)

    def __init__(
        self,
        config: Config,
        split: str = "train",
        device: str = "cpu",
        threads: int = 1,
        report: object = None,
    ) -> None:
        self.config, self.split, self.threads = config, split, threads
        self.device = torch.device(device)
        self.classes = ["faint", "bright"]
        bins = replace(config.label, bins=NUM_BINS)
        self.label = Label(bins, [VOLUME_MPC3], self.classes)
        self.num_outputs = self.label.num_outputs

    def describe(self) -> str:
        return f"{self.split}: made up"

    def generate(self, indices: Sequence[int]) -> Batch:
        begin = time.perf_counter()
        cubes, labels, classes = [], [], []
        for index in indices:
            key = [self.config.seed, SPLITS.index(self.split), index]
            rng = np.random.default_rng(key)
            amplitude = rng.uniform(0.5, 1.5)
            cubes.append(amplitude * rng.standard_normal(self.input_shape))
            labels.append(3.0 + amplitude - np.arange(NUM_BINS) / 10)
            classes.append(int(amplitude > 1.0))
        log10_counts = torch.tensor(np.array(labels), dtype=torch.float32)
        unit_label = self.label.unit_label(np.zeros(len(indices), np.int64))
        label = log10_counts + unit_label
        if self.label.is_class:
            label = torch.eye(2)[classes]
        elif self.label.form == "linear":
            label = 10**log10_counts * unit_label
        return Batch(
            cube=torch.tensor(np.array(cubes), dtype=torch.float32),
            label=label,
            counts=(10**log10_counts).round().int(),
            draws=[{"lightcone": "none", "model": "fake"} for _ in indices],
            indices=list(indices),
            saturated=torch.zeros(len(indices), dtype=torch.int32),
            unit_label=unit_label,
            seconds=time.perf_counter() - begin,
        )

    def identity(self) -> dict[str, Any]:
        """As of one lightcone."""
        return {"lightcones": ["none"], "model": "fake"}

    def blank(self, indices: Sequence[int]) -> torch.Tensor:
        """Maps of nothing."""
        return torch.zeros(len(indices), *self.input_shape)

    def skies_of(self, index: int) -> SkiesInUse:
        """As of one lightcone."""
        return SkiesInUse(["none"], 1)

    def take_made(self) -> list[MadeLightcone]:
        """It needs none."""
        return []

    def window(self, index: int) -> int:
        """All samples are of one lightcone."""
        return 0

    def ready(self, index: int, seconds: float) -> bool:
        """It never waits."""
        return True

    def give_up(self) -> None:
        """It makes no lightcones."""

    def close(self) -> None:
        """It has no threads."""


class FakeTrainer(Trainer):
    """Trains on samples of the fake generator, or of one derived from it."""

    def __init__(
        self,
        config: Config,
        device: str = "cpu",
        max_steps: int | None = None,
        *,
        generator: type[FakeGenerator] = FakeGenerator,
        network: Network | None = None,
    ) -> None:
        super().__init__(config, device, max_steps, generator=generator, network=network)


def tiny_config(
    folder: object,
    dropout: float = 0.1,
    label: dict[str, object] | None = None,
    network: dict[str, object] | None = None,
    **train: object,
) -> Config:
    """A run of a few small steps in `folder`, of a small network unless another is given."""
    settings: dict[str, object] = {
        "steps": 12,
        "batch_size": 8,
        "warmup_steps": 2,
        "log_every": 2,
        "validate_every": 4,
        "validation_samples": 10,
        "checkpoint_every": 4,
        "threads": 1,
    }
    return from_mapping(
        {
            "run": str(folder),
            "grid": {"shape": [2, 8, 8]},
            "label": label or {},
            "network": network or {"layers": 2, "filters": 4, "dense": 8, "dropout": dropout},
            "train": {**settings, **train},
        }
    )
