"""A small stand-in for the generator, and runs that use it."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from streamtrain.config import Config, from_mapping
from streamtrain.evaluate import baselines, run, testset, trained
from streamtrain.labels import Label

NUM_BINS = 14
VOLUME_MPC3 = 3e6
SHAPE = (2, 16, 16)


@dataclass
class FakeLightcone:
    name: str
    digest: str
    realisation: str


@dataclass
class FakeBatch:
    cube: torch.Tensor
    label: torch.Tensor
    counts: torch.Tensor
    unit_label: torch.Tensor
    draws: list[dict[str, str]]

    def check(self) -> None:
        """No halo is too bright here."""

    def digests(self) -> list[str]:
        pairs = zip(self.cube, self.counts, strict=True)
        return [
            hashlib.sha256(cube.numpy().tobytes() + counts.numpy().tobytes()).hexdigest()
            for cube, counts in pairs
        ]


class FakeGenerator:
    """Samples that depend on seed, split, index and the bytes of the lightcone files. Counts are
    Poisson; the first map row of the first channel spells out the label, that of the second log10
    of the expected counts."""

    def __init__(self, config, split="test", device="cpu", threads=1):
        self.config = config
        paths = [Path(p) for p in getattr(config.data, split)]
        for path in paths:
            if not path.is_file():
                raise ValueError(f"there is no lightcone {path}")
        self.lightcones = [
            FakeLightcone(p.name, hashlib.sha256(p.read_bytes()).hexdigest(), p.stem) for p in paths
        ]
        self.headers = self.lightcones
        test_seed = config.test.seed if split == "test" else None
        self.seed = config.seed if test_seed is None else test_seed
        self.split = split
        self.classes = ["faint", "bright"]
        self.label = Label(config.label, [VOLUME_MPC3], self.classes)
        self.input_shape = SHAPE
        self.num_bins, self.num_outputs = NUM_BINS, self.label.num_outputs
        self.bin_edges = self.label.bins.edges
        self.device = torch.device(device)

    def close(self):
        """Nothing is open."""

    def generate(self, indices):
        # the real one writes from threads, which do not share the caller's inference mode
        assert not torch.is_inference_mode_enabled()
        cubes, counts, rates = [], [], []
        for index in indices:
            identity = repr((self.seed, self.split, index, [c.digest for c in self.lightcones]))
            words = np.frombuffer(hashlib.sha256(identity.encode()).digest(), np.uint32)
            rng = np.random.default_rng(words)
            expected = 10 ** np.linspace(4.0 + 0.3 * rng.normal(), -1.0, NUM_BINS)
            counts.append(rng.poisson(expected))
            rates.append(np.log10(expected))
            cubes.append(rng.normal(size=SHAPE))
        count = np.array(counts)
        label = count.astype(float)
        unit_label = self.label.unit_label(np.zeros(len(count), np.int64))
        if self.label.config.quantity == "cumulative":
            label = np.cumsum(label[:, ::-1], axis=1)[:, ::-1]
        if self.label.is_class:
            label = np.eye(2)[(count[:, 0] > 10**4).astype(int)]
        elif self.label.form == "log10":
            label = np.log10(np.maximum(label, 1.0)) + unit_label.numpy()
        else:
            label = label * unit_label.numpy()
        cube = np.array(cubes)
        cube[:, 0, 0, : label.shape[1]] = label
        cube[:, 1, 0, :NUM_BINS] = rates
        return FakeBatch(
            torch.tensor(cube, dtype=torch.float32),
            torch.tensor(label.copy(), dtype=torch.float32),
            torch.tensor(count, dtype=torch.int32),
            unit_label,
            [{"lightcone": self.headers[index % len(self.headers)].name} for index in indices],
        )


@pytest.fixture
def config(tmp_path, monkeypatch) -> Config:
    """A run of 40 test samples on two test lightcones and one training lightcone."""
    for module in (testset, run):
        monkeypatch.setattr(module, "Generator", FakeGenerator)
    for module in (testset, trained):
        monkeypatch.setattr(module, "GENERATOR_VERSION", 3)
    monkeypatch.setattr(baselines, "MEAN_LABEL_SAMPLES", 64)
    for name in ("train", "north", "south"):
        (tmp_path / f"{name}.h5").write_text(f"halos of {name}")
    data = {
        "train": [str(tmp_path / "train.h5")],
        "test": [str(tmp_path / "north.h5"), str(tmp_path / "south.h5")],
    }
    return from_mapping(
        {
            "seed": 5,
            "run": str(tmp_path / "run"),
            "data": data,
            "grid": {"shape": list(SHAPE)},
            "observe": {"noise": {"sigma_uK": 2.0}, "log_modulus": {}},
            "label": {"bins": NUM_BINS},
            "network": {"layers": 2, "filters": 2, "dense": 4},
            "test": {"samples": 40},
        }
    )
