"""Runs whose samples are those of a stand-in for the generator."""

import pytest
from support.fake_generator import FileGenerator

from streamtrain.config import Config, from_mapping
from streamtrain.evaluate import baselines, run, testset, trained


@pytest.fixture
def config(tmp_path, monkeypatch) -> Config:
    """A run of 40 test samples on two test lightcones and one training lightcone."""
    for module in (testset, run):
        monkeypatch.setattr(module, "Generator", FileGenerator)
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
            "grid": {"shape": list(FileGenerator.input_shape)},
            "observe": {"noise": {"sigma_uK": 2.0}, "log_modulus": {}},
            "label": {"bins": FileGenerator.num_bins},
            "network": {"layers": 2, "filters": 2, "dense": 4},
            "test": {"samples": 40},
        }
    )
