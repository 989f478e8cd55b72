"""A run before halos of other makers: its rows are those of `evaluate` and its calibration."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support import map_runs as runs
from support import small

from streamtrain.catalogs.headers import Header
from streamtrain.catalogs.synthesis.box import METHOD
from streamtrain.catalogs.synthesis.make import Recipe
from streamtrain.cli import main
from streamtrain.config import Config
from streamtrain.cosmology import Cosmology
from streamtrain.evaluate import baselines, evaluation
from streamtrain.evaluate.calibration import calibration
from streamtrain.evaluate.evaluation import evaluate
from streamtrain.evaluate.robustness import makers
from streamtrain.evaluate.robustness.makers import FIRST_SEED, MADE_SKIES, Maker, free_seed
from streamtrain.evaluate.robustness.makers_report import makers_figure, makers_table, statistic
from streamtrain.evaluate.run import Run

pytestmark = small.EXTRAPOLATES
JOINT = {"layers": 2, "filters": 4, "dense": 8, "head": "joint_counts"}
DRAWS = ["--draws", "20"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return runs.make_run(tmp_path_factory.mktemp("made"), network=JOINT, test={"samples": 24})


@pytest.fixture
def folder(made: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run, and skies of other makers in the current one; without figures."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(baselines, "MEAN_LABEL_SAMPLES", 32)
    monkeypatch.setattr(evaluation, "save", lambda drawn, folder: list(drawn))
    for module in (calibration, makers):
        monkeypatch.setattr(module, "write_png", lambda figure, path: None)
    monkeypatch.setattr(calibration, "calibration_figure", lambda *_: None)
    for seed in (70, 71):
        small.lightcone(seed, num=26_000).save(f"far_{seed}.h5")
    return Path(shutil.copytree(made.run, tmp_path / "run"))


def catalogs(folder: Path, *words: str) -> dict[str, Any]:
    assert main.main(["evaluate", str(folder), "--catalogs", *words, *DRAWS]) == 0
    return json.loads((folder / "catalogs.json").read_text())


def test_rows_are_those_of_evaluate_and_of_its_calibration(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run's own skies first; settings may stand among the makers; twice the same."""
    found = catalogs(folder, "far=far_7*.h5", "train.threads=1", "one=far_70.h5,far_71.h5")
    text = capsys.readouterr().out
    assert [row["name"] for row in found["makers"]] == ["the run's own", "far", "one"]
    assert found["makers"][0]["skies"] == 1 and found["makers"][1]["skies"] == 2
    own, far, one = found["makers"]
    assert main.main(["evaluate", str(folder), "--calibration", *DRAWS]) == 0
    assert evaluate(folder)["network"]["mse"] == own["mse"]
    ranked = json.loads((folder / "calibration.json").read_text())
    other = evaluate(folder, on=["far_7*.h5"], out="there")
    assert main.main(["evaluate", str(folder), "--calibration", *DRAWS, "--on", "far_7*.h5"]) == 0
    ranked_there = json.loads(Path("run_on_far/calibration.json").read_text())
    for row, errors, ranks in ((own, None, ranked), (far, other, ranked_there)):
        assert row["statistics"] == ranks["statistics"]
        assert row["information"] == ranks["information"]
        if errors is not None:
            assert row["mse"] == errors["network"]["mse"]
            assert row["mse_ratio"] == pytest.approx(row["mse"] / errors["mean_label"]["mse"])
            assert row["ranges"] == json.loads(json.dumps(errors["network"]["ranges"]))
    assert {**far, "name": "", "manifest_sha256": ""} == {**one, "name": "", "manifest_sha256": ""}
    assert "2 skies, other realisations than the training's: far_70.h5, far_71.h5" in text
    bias = f"{statistic(far, 'rho_L, <T>')['bias_sigma']:.3f}"
    assert "mse / mean label's" in text and bias in text
    assert found == catalogs(folder, "far=far_7*.h5", "one=far_70.h5,far_71.h5")
    figure = makers_figure(found)
    assert [label.get_text().split("\n")[0] for label in figure.axes[0].get_yticklabels()] == [
        "the run's own", "far", "one",
    ]  # fmt: skip
    assert len(figure.axes[1].get_legend().get_texts()) == sum(
        1 for one in own["statistics"] if one["kind"] == "sum"
    )


def test_another_mass_limit_and_cosmology_are_told(folder: Path) -> None:
    changes = {"cosmology": Cosmology().to_dict() | {"sigma8": 0.9}, "min_mass_Msun": 9e10}
    sky = small.lightcone(80, num=4000)
    keep = sky.mass_Msun > 9e10
    rows = {name: getattr(sky, name)[keep] for name in ("x_Mpc", "y_Mpc", "z_Mpc", "z_obs")}
    heavy = small.lightcone(80, num=4000, **rows, mass_Msun=sky.mass_Msun[keep], **changes)
    heavy.save("heavy.h5")
    notes = " ".join(catalogs(folder, "heavy=heavy.h5")["makers"][1]["notes"])
    assert "its halos are above 9e+10 Msun alone, the training's above 2.5e+10" in notes
    assert "heavy.h5 has another cosmology: sigma8 = 0.9" in notes


def test_skies_of_a_mass_function_are_made(
    folder: Path, made: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of seeds that no sky of the run has, for the field and the masses of the run."""
    asked: list[tuple[int, int, Recipe]] = []

    def make(number: int, recipe: Recipe, *, first_seed: int) -> int:
        asked.append((number, first_seed, recipe))
        recipe.folder.mkdir(parents=True, exist_ok=True)
        for seed in range(first_seed, first_seed + number):
            name = f"{METHOD}-{seed}-0123abcd"
            small.lightcone(seed, num=9000, realisation=name).save(recipe.path(seed))
        return 0

    monkeypatch.setattr(makers, "make_lightcones", make)
    row = catalogs(folder, "watson13_fof", "tinker08+tinker10")["makers"][1]
    [(number, first, recipe), (_, again, other)] = asked
    assert (number, first, again) == (MADE_SKIES, FIRST_SEED, FIRST_SEED)
    assert recipe.options.mass_function == "watson13_fof" and other.options.bias == "tinker10"
    assert recipe.options.min_mass_Msun == made.data.min_mass_Msun
    assert recipe.options.footprint_deg[0] >= max(made.grid.fov_deg)
    assert recipe.options.cosmology == Cosmology.from_dict(
        Header.read(Path(made.data.train[0])).cosmology  # type: ignore[index]
    )
    assert row["skies"] == MADE_SKIES and row["bootstrap"]["resampled"] == "lightcones"
    assert (
        "8 skies, made here: mass function watson13_fof, bias tinker10, seeds 3000"
        in row["notes"][0]
    )
    # a sky of the run may have any seed
    taken = f"{METHOD}-{FIRST_SEED + 2}-0123abcd"
    small.lightcone(9, realisation=taken).save("taken.h5")
    with Run.open(folder, ["data.test=[taken.h5]"]) as run:
        assert free_seed(run, MADE_SKIES) == FIRST_SEED + 3


def test_a_table_without_errors_from_skies_says_so(folder: Path) -> None:
    found = catalogs(folder, "far=far_70.h5")
    text = makers_table(found)
    assert text.count("the scatter from sky to sky") == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["far_70.h5"], "--catalogs far_70.h5: give the files a name, as in pinocchio=far_70.h5"),
        (["=far_70.h5"], "a maker is NAME=FILES, or a mass function"),
        (["watson"], "unknown mass function 'watson'"),
        (["tinker08+sheth"], "unknown bias 'sheth'"),
        (["a=gone.h5"], "--catalogs a: no file matches 'gone.h5'"),
        (["a=far_70.h5", "a=far_71.h5"], "two makers are called 'a'"),
        (["a=far_70.h5", "--on", "far_71.h5"], "--catalogs names lightcones itself"),
        (["a=far_70.h5", "--calibration"], "are different things: name one"),
    ],
)
def test_what_cannot_be_compared_is_a_sentence(
    folder: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["evaluate", str(folder), "--catalogs", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_sky_that_does_not_fit_is_refused_before_others_are_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(small, "HALF_DEG", 0.1)
    small.lightcone(72, num=900).save("narrow.h5")
    monkeypatch.setattr(makers, "make_lightcones", lambda *_, **more: pytest.fail("made"))
    words = ["tinker08", "far=far_70.h5", "narrow=narrow.h5"]
    assert main.main(["evaluate", str(folder), "--catalogs", *words, "--out", "there"]) == 2
    assert "the footprint of narrow.h5 is 0.2 x 0.2 deg" in capsys.readouterr().err


def test_names_of_makers() -> None:
    assert Maker.parse("pinocchio=a.h5,b_*.h5") == Maker("pinocchio", ("a.h5", "b_*.h5"))
    assert Maker.parse("tinker08").stem == "tinker08"
    assert Maker("colossus:despali16").stem == "colossus_despali16"


def test_a_network_without_a_posterior_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = runs.make_run(tmp_path, network=JOINT | {"head": "mse"})
    assert main.main(["evaluate", other.run, "--catalogs", "tinker08"]) == 2
    assert "--catalogs needs a network that predicts a distribution" in capsys.readouterr().err
