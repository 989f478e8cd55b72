"""Generators of tiny samples with a known answer: of the training loop, and of test sets.

In training a sample is white noise of an amplitude a; log10 dN of bin n = 3 + a - n / 10, or class
1 where a > 1. They keep the promises of the real one: a sample is a function of (seed, split,
index).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from streamtrain.catalogs.headers import Header
from streamtrain.catalogs.synthesis.fresh import MadeLightcone
from streamtrain.config import Config, from_mapping
from streamtrain.generator.generator import Batch
from streamtrain.generator.windows import SkiesInUse
from streamtrain.labels import Label
from streamtrain.networks.network import Network
from streamtrain.train.trainer import Trainer

NUM_BINS = 7
SPLITS = ("train", "validation", "test")


class FakeSkies:
    """The lightcone files of a generator, by their headers."""

    def __init__(self, headers: Sequence[Header]) -> None:
        self.headers = headers

    @property
    def realisations(self) -> dict[str, str]:
        return {header.name: header.realisation for header in self.headers}

    def identity(self) -> list[str]:
        """What decides the halos: the lightcones' digests."""
        return [header.digest for header in self.headers]


class FakeGenerator:
    """A `streamtrain.generator.draws.SampleGenerator`."""

    input_shape = (2, 8, 8)
    num_bins = NUM_BINS
    volume_Mpc3 = 2e6
    headers: ClassVar[list[Header]] = []

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
        bins = replace(config.label, bins=self.num_bins)
        self.label = Label(bins, [self.volume_Mpc3], self.classes)
        self.num_outputs, self.bin_edges = self.label.num_outputs, self.label.bins.edges

    @property
    def skies(self) -> FakeSkies:
        return FakeSkies(self.headers)

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

    def ln_accepted(self) -> NDArray[np.float64]:
        """As of priors without conditions."""
        return np.zeros(len(self.label.parameters))

    def identity(self) -> dict[str, Any]:
        """As of one lightcone."""
        return {"lightcones": ["none"], "model": "fake"}

    def counts(self, indices: Sequence[int]) -> torch.Tensor:
        return self.generate(indices).counts

    def blank(self, indices: Sequence[int]) -> torch.Tensor:
        """Maps of nothing."""
        return torch.zeros(len(indices), *self.input_shape)

    def skies_of(self, index: int) -> SkiesInUse:
        """As of one lightcone."""
        return SkiesInUse(["none"], 1)

    def skies_until(self, number: int) -> dict[str, str]:
        """All of them."""
        return self.skies.realisations

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


@dataclass
class FakeHeader:
    """What a manifest says of a lightcone file."""

    name: str
    digest: str
    realisation: str
    recipe: str | None = None


class FileGenerator(FakeGenerator):
    """Samples of a test set, which depend on seed, split, index and the bytes of the lightcone
    files. Counts are Poisson; the first map row of the first channel spells out the label, that of
    the second log10 of the expected counts."""

    input_shape = (2, 16, 16)
    num_bins = 14
    volume_Mpc3 = 3e6

    def __init__(
        self, config: Config, split: str = "test", device: str = "cpu", threads: int = 1
    ) -> None:
        super().__init__(config, split, device, threads)
        paths = [Path(p) for p in getattr(config.data, split)]
        for path in paths:
            if not path.is_file():
                raise ValueError(f"there is no lightcone {path}")
        self.headers = [
            FakeHeader(p.name, hashlib.sha256(p.read_bytes()).hexdigest(), p.stem) for p in paths
        ]
        own = config.test.seed if split == "test" else None
        self.seed = config.seed if own is None else own

    def generate(self, indices: Sequence[int]) -> Batch:
        # the real one writes from threads, which do not share the caller's inference mode
        assert not torch.is_inference_mode_enabled()
        cubes, counts, rates = [], [], []
        for index in indices:
            identity = repr((self.seed, self.split, index, [h.digest for h in self.headers]))
            words = np.frombuffer(hashlib.sha256(identity.encode()).digest(), np.uint32)
            rng = np.random.default_rng(words)
            expected = 10 ** np.linspace(4.0 + 0.3 * rng.normal(), -1.0, self.num_bins)
            counts.append(rng.poisson(expected))
            rates.append(np.log10(expected))
            cubes.append(rng.normal(size=self.input_shape))
        count, cube = np.array(counts), np.array(cubes)
        unit_label = self.label.unit_label(np.zeros(len(count), np.int64))
        label = self._label(count, unit_label.numpy())
        cube[:, 0, 0, : label.shape[1]] = label
        cube[:, 1, 0, : self.num_bins] = rates
        return Batch(
            cube=torch.tensor(cube, dtype=torch.float32),
            label=torch.tensor(label, dtype=torch.float32),
            counts=torch.tensor(count, dtype=torch.int32),
            draws=[{"lightcone": self.headers[i % len(self.headers)].name} for i in indices],
            indices=list(indices),
            saturated=torch.zeros(len(indices), dtype=torch.int32),
            unit_label=unit_label,
        )

    def _label(self, count: NDArray[Any], unit_label: NDArray[Any]) -> NDArray[Any]:
        if self.label.is_class:
            return np.eye(2)[(count[:, 0] > 10**4).astype(int)]
        label = count.astype(float)
        if self.label.config.quantity == "cumulative":
            label = np.cumsum(label[:, ::-1], axis=1)[:, ::-1]
        if self.label.form == "log10":
            return np.log10(np.maximum(label, 1.0)) + unit_label
        return label * unit_label


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
