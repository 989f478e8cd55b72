"""A run's posterior shifted and widened by what skies of another maker say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import map_runs as runs
from support import small

from streamtrain import Posterior, Run
from streamtrain.cli import main
from streamtrain.config import Config
from streamtrain.evaluate import baselines, evaluation
from streamtrain.evaluate.calibration import calibration
from streamtrain.evaluate.calibration.move_fit import SKY_SCATTER, SKY_WEIGHT, Fit, fit, shift_error
from streamtrain.evaluate.calibration.recalibration import FILE
from streamtrain.evaluate.compare import compare_runs
from streamtrain.evaluate.inference import output as infer_output
from streamtrain.generator.generator import GENERATOR_VERSION
from streamtrain.networks.move import Move
from streamtrain.ranks import RankedTruth
from streamtrain.train.checkpoint import load_checkpoint, save_checkpoint

pytestmark = small.EXTRAPOLATES
BINS = 12
AT = np.arange(BINS)
SUMS = {
    "faint": (AT < 6) * 1.0,
    "bright": (AT >= 6) * 1.0,
    "rho_L": 10 ** np.linspace(0, 1, BINS),
}
F64 = np.ndarray[Any, np.dtype[np.float64]]


class Toy:
    """ln of the halos per bin, whose posterior is normal and known, smooth from bin to bin.

    factor: the posterior's width over the exact one; shift: of the posterior, in deviations;
    maker: factor of the true halos, by log10 N(>L) of the point estimate.
    """

    def __init__(
        self,
        maps: int,
        seed: int,
        draws: int = 100,
        *,
        factor: float = 1.0,
        shift: float = 0.0,
        maker: Any = lambda place: np.ones_like(place),
    ) -> None:
        rng = np.random.default_rng(seed)
        root = np.linalg.cholesky(
            0.01 * np.exp(-0.5 * ((AT[:, None] - AT) / 4.0) ** 2) + 1e-4 * np.eye(BINS)
        )
        std = np.linalg.norm(root, axis=1)
        mean = np.linspace(9.0, 4.0, BINS) + rng.normal(size=(maps, 1))
        place = np.log10(np.exp(mean)[:, ::-1].cumsum(axis=1)[:, ::-1])
        true = mean + rng.normal(size=(maps, BINS)) @ root.T
        self.truth = np.floor(np.exp(true) * maker(place))
        self.centre = mean - shift * std
        away = factor * rng.normal(size=(draws, maps, BINS)) @ root.T
        self.drawn = np.floor(np.exp(self.centre + away))
        self.skies = [f"sky {k % 8}" for k in range(maps)]
        self.std = std

    def fit(self, **changes: Any) -> Fit:
        given: dict[str, Any] = {"skies": self.skies} | changes
        return fit(self.drawn, self.truth, self.centre, sums=SUMS, **given)

    def moved(self, found: Fit) -> F64:
        """The drawn functions as `found` has them."""
        move = Move(*(tuple(row) for row in (found.log10_N, found.shift_dex, found.width)))
        shift, width = (row.numpy() for row in move.at(torch.from_numpy(self.centre)))
        x = np.log(self.drawn + 0.5)
        return np.maximum(np.rint(np.exp(self.centre + shift + width * (x - self.centre))), 0.0)

    def ranks(self, drawn: F64) -> Any:
        truths = RankedTruth(SUMS, np.ones(BINS))
        truths.add(drawn, self.truth, self.truth[::-1])
        return truths.ranks()


def check_calibrated(ranks: Any, maps: int, learned: int) -> None:
    """Coverage and bias of all sums and of the bins within three standard errors, those of the maps
    that were learned from among them."""
    both = np.sqrt(1 / maps + 1 / learned)
    for name, share in ranks.inside(0.68).items():
        if name in (*SUMS, "bins"):
            assert share.mean() == pytest.approx(0.68, abs=3 * np.sqrt(0.68 * 0.32) * both), name
    for pull in ranks.pulls.values():
        assert pull.mean() == pytest.approx(0.0, abs=3 * both)


def test_a_posterior_too_narrow_and_shifted_is_mended() -> None:
    """On maps that it was not learned from; what was wrong is what was put in."""
    wrong = {"factor": 0.8, "shift": 0.3}
    found = Toy(400, 1, **wrong).fit()
    test = Toy(1000, 2, **wrong)
    before = test.ranks(test.drawn)
    assert before.pulls["rho_L"].mean() > 0.3
    assert before.inside(0.68)["rho_L"].mean() < 0.6
    check_calibrated(test.ranks(test.moved(found)), 1000, 400)
    # the widths of `PSEUDO_MAPS` are of factor 1, and 2 (e / sigma)^2 is 0.02 to 0.04 for 8 skies
    assert np.average(found.width_of_maps) == pytest.approx(1.25, abs=0.08)
    shift = 0.3 * test.std[0] / np.log(10.0)
    assert np.average(found.shift_dex) == pytest.approx(shift, abs=3 * test.std[0] / 20 / 2.3)
    assert found.score[1] < found.score[0]


def test_an_exact_posterior_stays() -> None:
    """The cost in width is that of the error of the shift, a few per cent for 8 skies."""
    found = Toy(400, 3).fit()
    test = Toy(1000, 4)
    check_calibrated(test.ranks(test.moved(found)), 1000, 400)
    assert np.average(found.width) == pytest.approx(1.02, abs=0.04)
    # a quarter of the maps have bins around a knot, the first and last but few
    error = test.std[0] / np.log(10.0) / np.sqrt(100)
    assert np.abs(found.shift_dex[1:-1]).max() < 4 * error


def test_halos_that_another_maker_has_more_of_are_found_by_their_rank() -> None:
    """A factor that depends on mass is one of N(>L), in maps of every brightness."""

    def maker(place: F64) -> F64:
        return np.asarray(10 ** np.interp(place, [2.0, 3.0, 4.0], [-0.15, 0.1, -0.05]))

    found = Toy(400, 5, maker=maker).fit()
    expected = np.log10(maker(found.log10_N))
    inside = slice(1, -1)
    np.testing.assert_allclose(found.shift_dex[inside], expected[inside], atol=0.015)
    test = Toy(1000, 6, maker=maker)
    assert test.ranks(test.drawn).inside(0.68)["bins"].mean() < 0.5
    check_calibrated(test.ranks(test.moved(found)), 1000, 400)
    assert np.average(found.width) < 1.1


def test_the_error_of_the_shift_is_that_between_skies() -> None:
    """Known scatter of many skies; of one, that which is assumed."""
    rng = np.random.default_rng(7)
    skies = [f"{k % 40}" for k in range(800)]
    offset = 0.03 * rng.normal(size=40)
    left = offset[np.arange(800) % 40, None] + 0.001 * rng.normal(size=(800, 6))
    hats, deviation = np.ones((800, 6, 1)), np.array([0.01])
    expected = np.sqrt(
        (SKY_WEIGHT * (SKY_SCATTER * 0.01) ** 2 + 39 * offset.var(ddof=1)) / (SKY_WEIGHT + 39) / 40
    )
    assert shift_error(hats, left, deviation, skies) == pytest.approx(expected, rel=0.01)
    assert shift_error(hats, left, deviation, ["one"] * 800) == pytest.approx(SKY_SCATTER * 0.01)
    toy = Toy(200, 8)
    one, many = (toy.fit(skies=skies).width.mean() for skies in (["one"] * 200, toy.skies))
    assert one / many == pytest.approx(np.sqrt(1 + 2 * SKY_SCATTER**2), abs=0.04)


# With a run.

JOINT = {"layers": 2, "filters": 4, "dense": 8, "head": "joint_counts"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return runs.make_run(tmp_path_factory.mktemp("made"), network=JOINT)


@pytest.fixture
def folder(made: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run, and a sky of another maker in the current one; without figures."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(baselines, "MEAN_LABEL_SAMPLES", 32)
    monkeypatch.setattr(evaluation, "save", lambda drawn, folder: list(drawn))
    monkeypatch.setattr(calibration, "calibration_figure", lambda *_: None)
    for module in (calibration, infer_output, compare_runs):
        monkeypatch.setattr(module, "write_png", lambda figure, path: None)
    monkeypatch.setattr(compare_runs, "comparison", lambda *_: None)
    small.lightcone(70, num=26_000).save("other.h5")
    return Path(shutil.copytree(made.run, tmp_path / "run"))


def calibrate(folder: Path, *words: str) -> None:
    assert main.main(["calibrate", str(folder), "other.h5", "--samples", "32", *words]) == 0


def test_a_run_is_recalibrated_and_everything_says_so(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Run.open(folder) as run:
        cube = run.testing().generate([0]).cube[0]
        plain = run.infer(cube, prepared=True, functions=200, compare_with=0)
        head = run.network(run.testing()).head
    calibrate(folder, "train.threads=1")
    text = capsys.readouterr().out
    assert "learned from 32 maps of 1 sky" in text and "before" in text and "after" in text
    assert "hardly known" in text  # of one sky
    kept = json.loads((folder / FILE).read_text())
    assert [sky["name"] for sky in kept["skies"]] == ["other.h5"]
    assert kept["checkpoint_step"] == 7 and kept["maps"] == 32 and kept["seed"] != 11
    with Run.open(folder) as run:
        found = run.infer(cube, prepared=True, functions=200, compare_with=0)
        moved = run.network(run.testing()).head
    assert moved.move is not None and head.move is None
    said = "recalibrated on 32 maps of 1 sky of another maker (other.h5;"
    assert found.recalibration.startswith(said) and said in str(found)
    assert plain.recalibration == "" and not np.array_equal(plain.samples, found.samples)
    # samples, probabilities and integrals are those of the moved head
    assert found.source is not None
    expected = moved.log_prob(found.source.prediction.expand(200, -1), torch.tensor(found.samples))
    np.testing.assert_allclose(found.log_prob(found.samples), expected.detach(), rtol=1e-9)
    found.save("functions.npz")
    assert Posterior.load("functions.npz").recalibration == found.recalibration
    assert found._shown().texts[-1] == "(recalibrated)"
    assert "(recalibrated)" not in plain._shown().texts
    with Run.open(folder, recalibrated=False) as run:
        again = run.infer(cube, prepared=True, functions=200, compare_with=0)
    assert np.array_equal(again.samples, plain.samples)


def test_infer_and_evaluate_apply_it_or_not(
    folder: Path, made: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(runs.write_fits(Path("m.fits"), runs.map_of(made, 3)))
    more = ["--samples", "0", "--functions", "200"]
    assert main.main(["infer", str(folder), path, *more]) == 0
    plain = json.loads((folder / "infer/m.json").read_text())
    evaluating = ["evaluate", str(folder), "test.samples=24"]
    assert main.main(evaluating) == 0
    before = json.loads((folder / "evaluation.json").read_text())
    calibrate(folder)
    capsys.readouterr()
    said = "recalibrated on 32 maps of 1 sky"
    assert main.main(["infer", str(folder), path, *more]) == 0
    assert said in capsys.readouterr().out
    found = json.loads((folder / "infer/m.json").read_text())
    assert found["recalibration"]["maps"] == 32 and said in found["uncertainty"]
    assert said in (folder / "infer/m.ecsv").read_text()
    assert found["value"] != plain["value"] and plain["recalibration"] is None
    assert main.main(["infer", str(folder), path, *more, "--no-recalibration"]) == 0
    again = json.loads((folder / "infer/m.json").read_text())
    assert again["value"] == plain["value"] and said not in capsys.readouterr().out
    assert main.main(evaluating) == 0
    after = json.loads((folder / "evaluation.json").read_text())
    assert said in capsys.readouterr().out and said in after["test_set"]["notes"][0]
    assert after["network"]["mse"] != before["network"]["mse"]
    assert main.main(["compare", str(folder), "--out", "both"]) == 0
    assert "its posterior was recalibrated on other.h5" in capsys.readouterr().out
    assert main.main([*evaluating, "--no-recalibration"]) == 0
    assert json.loads((folder / "evaluation.json").read_text())["network"] == before["network"]
    # on the sky that it was learned from
    words = ["--calibration", "--draws", "20", "--samples", "16", "--on", "other.h5"]
    assert main.main(["evaluate", str(folder), *words]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert said in text and "the recalibration was learned from other.h5" in text


def test_it_belongs_to_a_checkpoint(
    folder: Path, made: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    calibrate(folder)
    state = load_checkpoint(folder / "checkpoints", made, GENERATOR_VERSION)
    assert state is not None
    for step, which in ((7, "another training"), (8, "step 7")):
        weights = {k: v + 0.01 if v.is_floating_point() else v for k, v in state["network"].items()}
        shutil.rmtree(folder / "checkpoints")
        new = state | {"step": step, "network": weights}
        save_checkpoint(folder / "checkpoints", new, made, GENERATOR_VERSION)
        with Run.open(folder) as run:
            [text] = run.said()
            assert run.network(run.testing()).head.move is None
        assert f"not recalibrated: {FILE} is of {which}" in text
    assert main.main(["calibrate", str(folder), "--remove"]) == 0
    with Run.open(folder) as run:
        assert run.said() == []
    assert main.main(["calibrate", str(folder), "--remove"]) == 0
    assert "has no recalibration" in capsys.readouterr().out


def test_what_cannot_be_recalibrated_is_a_sentence(
    folder: Path, made: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = made.data.train[0]  # type: ignore[index]
    for words, said in (
        ([], "calibrate needs lightcones of another maker"),
        (["gone.h5"], "calibrate: no file matches 'gone.h5'"),
        ([str(train)], "was trained on this sky"),
        (["other.h5", "--samples", "3"], "--samples 3 must be 16 or more"),
        (["other.h5", "--remove"], "--remove takes no lightcones"),
        (["other.h5", "label.bins=7"], "label.bins = 14 there, 7 here"),
    ):
        assert main.main(["calibrate", str(folder), *words]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
    for head, said in (("mse", "predicts none"), ("poisson", "whose width could be another")):
        other = runs.make_run(tmp_path / head, network=JOINT | {"head": head})
        assert main.main(["calibrate", other.run, "other.h5", "--samples", "16"]) == 2
        assert said in capsys.readouterr().err
    (folder / FILE).write_text('{"width": [0]}')
    assert main.main(["evaluate", str(folder), "--samples", "4"]) == 2
    assert f"{FILE} is damaged: `streamtrain calibrate" in capsys.readouterr().err
