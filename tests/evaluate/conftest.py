"""Runs whose samples are those of a stand-in for the generator; evaluations without figures."""

from collections.abc import Iterator

import pytest
from support.fake_generator import FileGenerator

from streamtrain.config import Config, from_mapping
from streamtrain.evaluate import baselines, evaluation, run, testset, trained
from streamtrain.evaluate.calibration import calibration

DRAWN = ("test_evaluation", "test_run_infer")
"""Files whose evaluations draw luminosity functions, of the stand-in's samples and of real ones."""


@pytest.fixture(autouse=True, scope="module")
def no_function_figures(request: pytest.FixtureRequest) -> Iterator[None]:
    """Elsewhere their four figures would cost more than the evaluation that is looked at."""
    with pytest.MonkeyPatch.context() as patch:
        if request.path.stem not in DRAWN:
            patch.setattr(evaluation, "_function_figures", lambda *_: {})
        yield


@pytest.fixture(autouse=True, scope="module")
def quick_prior(request: pytest.FixtureRequest) -> Iterator[None]:
    """Elsewhere than where the prior's density is looked at, it is fitted in few steps."""
    with pytest.MonkeyPatch.context() as patch:
        if request.path.stem != "test_calibration":
            patch.setattr(calibration, "PRIOR_MAPS", 0)
            patch.setattr(calibration, "WHOLE_STEPS", 10)
        yield


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
