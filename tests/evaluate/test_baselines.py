"""The published numbers as they are stated elsewhere, and what is wrong with some of them."""

import numpy as np
import pytest
from support import ROOT, small

from streamtrain import Generator, load_config
from streamtrain.evaluate import baselines
from streamtrain.evaluate.baselines import bin_edges, comparable, ihle2019, published, same_maps
from streamtrain.evaluate.bootstrap import Bootstrap

# data/predictions/*corrected*.pkl of intensitymap_cnn, reduced independently: mse, and median
# [16 %, 84 %] {2.5 %, 97.5 %} of delta at bins 0 and 42
STATED = {
    "basic": (0.0659, (0.06, -0.10, 0.33, -0.22, 0.96), (-0.48, -0.71, 0.05, -0.83, 1.83)),
    "noisy": (0.0784, (0.05, -0.11, 0.27, -0.24, 0.70), (-0.38, -0.70, 0.47, -0.84, 3.17)),
    "foreground": (0.0627, (0.06, -0.11, 0.32, -0.24, 0.96), (-0.39, -0.67, 0.23, -0.80, 2.43)),
    "noisy_foreground": (
        0.0723, (0.05, -0.12, 0.27, -0.26, 0.66), (-0.34, -0.67, 0.56, -0.80, 3.40),
    ),
    "noisy_foreground_random": (
        0.0756, (0.05, -0.12, 0.29, -0.26, 0.72), (-0.31, -0.67, 0.55, -0.82, 3.22),
    ),
    "geometric_noise": (
        0.2052, (-0.06, -0.26, 0.21, -0.40, 0.85), (0.53, -0.39, 3.44, -0.73, 10.66),
    ),
    "fewer_bright_sources": (
        0.0764, (0.05, -0.12, 0.28, -0.26, 0.72), (-0.31, -0.65, 0.49, -0.82, 3.31),
    ),
    "padmanabhan18": (0.0764, (0.04, -0.12, 0.27, -0.26, 0.72), (-0.32, -0.66, 0.48, -0.81, 3.11)),
    "fiducial": (0.0497, (0.00, -0.12, 0.16, -0.23, 0.33), (-0.53, -0.72, -0.17, -0.83, 0.31)),
    "fiducial_noisy": (0.0446, (0.02, -0.13, 0.19, -0.24, 0.37), (-0.43, -0.68, 0.04, -0.80, 0.95)),
    "fiducial_foreground": (
        0.0378, (0.00, -0.12, 0.15, -0.24, 0.32), (-0.41, -0.65, -0.01, -0.79, 0.64),
    ),
    "fiducial_noisy_foreground": (
        0.0422, (0.03, -0.11, 0.19, -0.25, 0.41), (-0.36, -0.65, 0.19, -0.81, 1.06),
    ),
    "fiducial_noisy_foreground_random": (
        0.0429, (0.01, -0.13, 0.18, -0.26, 0.36), (-0.37, -0.65, 0.17, -0.80, 1.27),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STATED)
def test_the_numbers_are_those_stated_elsewhere(name):
    mse, first, last = STATED[name]
    found = published(name)
    assert found.mse == pytest.approx(mse, abs=5e-5)
    assert found.maps == 1160
    constant = 0.0053 if name.startswith("fiducial") else 0.3061
    assert found.mse_mean_predictor == pytest.approx(constant, abs=5e-5)
    for number, stated in ((0, first), (42, last)):
        median, low68, high68, low95, high95 = stated
        assert found.percentiles[:, number] == pytest.approx(
            [low95, low68, median, high68, high95], abs=6e-3
        )


def test_the_limits_are_those_stated_elsewhere():
    lower, upper = ihle2019()
    at = [12, 20, 28, 34, 38, 42]
    assert lower[at] == pytest.approx([-0.44, -0.27, -0.10, -0.25, -0.30, -0.42], abs=6e-3)
    assert upper[at] == pytest.approx([1.32, 0.72, 0.25, 0.46, 0.46, 0.40], abs=6e-3)
    assert np.isnan(lower[0]) and np.isnan(upper[0])


def test_tests_that_tested_something_else_say_so():
    training = published("noisy_foreground_random")
    for name in STATED:
        assert bool(published(name).note) == (name in ("padmanabhan18", "fewer_bright_sources"))
    # their maps are those of the training's scenario: as many occupied bins, everywhere
    for name in ("padmanabhan18", "fewer_bright_sources"):
        assert (published(name).num == training.num).all()
    assert published("breysse15") is None


def test_errors_of_a_range_are_those_of_its_bins_together():
    found = published("basic")
    whole = found.as_data()
    number, rms = found.num[35:42], found.rms_dex[35:42]
    expected = np.sqrt(np.sum(number * rms**2) / number.sum())
    assert whole["ranges"][3]["log10_L"] == (6.0, 6.5)
    assert whole["ranges"][3]["rms_dex"] == pytest.approx(expected)


def test_only_the_same_bins_of_dN_can_be_compared():
    assert comparable("counts", bin_edges()) and comparable("phi", bin_edges())
    assert not comparable("cumulative", bin_edges())
    assert not comparable("counts", np.linspace(3.5, 7.0, 36))
    assert not comparable("counts", np.linspace(3.0, 7.0, 50))


@pytest.mark.filterwarnings("ignore")
def test_the_published_maps_are_those_of_their_preset() -> None:
    """Field, models and operators, one by one; another run, another one's maps."""
    folder = ROOT / "configs" / "pfeffer2019"
    names = ("grid", "emit", "observe")
    found = {
        name: [same_maps(load_config(file), one) for one in names]
        for name, file in {
            "published": folder / "published.yaml",
            "random_noise": folder / "random_noise.yaml",
            "quickstart": ROOT / "configs" / "quickstart.yaml",
        }.items()
    }
    assert found == {
        "published": [True, True, True],
        "random_noise": [True, False, False],
        "quickstart": [False, False, False],
    }
    assert same_maps(load_config(folder / "published.yaml"), *names)


@small.EXTRAPOLATES
def test_errors_of_the_mean_label_are_over_skies(tmp_path, monkeypatch):
    """Of eight skies, each in two files, all of one name: blocks of the bootstrap are skies."""
    monkeypatch.setattr(baselines, "MEAN_LABEL_SAMPLES", 64)
    for number in range(16):
        (tmp_path / f"{number:02}").mkdir()
        sky = small.lightcone(number, num=8000, realisation=f"sky {number // 2}")
        sky.save(tmp_path / f"{number:02}" / "halos.h5")
    config = small.config(
        data={"train": [str(tmp_path / "*/halos.h5")], "roll": "quarter"},
        emit={"line": {"model": "breysse15", "parameters": {"duty": 1.0}}},
        label={"bins": 5},
    )
    generator = Generator(config, "train")
    found = baselines.mean_label(generator)
    batch = generator.generate(range(64))
    sky = [int(draw["lightcone"].split("/")[0]) // 2 for draw in batch.draws]
    assert len({*sky}) == 8
    bootstrap = Bootstrap(np.array(sky))
    wanted = [bootstrap.mean(column) for column in batch.label.double().numpy().T]
    assert found.mean_error == pytest.approx(wanted, rel=1e-6)
