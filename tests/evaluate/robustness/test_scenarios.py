"""A run judged in many scenarios, on small skies with the real generator."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support import small
from support.made_runs import save_run
from support.network_tools import mean_network

from streamtrain.cli import main
from streamtrain.config import ConfigError, from_mapping, load_config
from streamtrain.evaluate import baselines, testset
from streamtrain.evaluate.baselines import published
from streamtrain.evaluate.robustness import scenarios
from streamtrain.evaluate.robustness.scenario_sets import load_scenarios
from streamtrain.evaluate.robustness.scenarios import evaluate_scenarios
from streamtrain.generator.generator import Generator
from streamtrain.luminosity.registry import MODELS
from streamtrain.luminosity.settings import RequireConfig
from streamtrain.schema import to_dict

pytestmark = small.EXTRAPOLATES
NUM = 6


@pytest.fixture(scope="module")
def skies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("skies")
    for seed, name in enumerate(("train", "validation", "test"), 1):
        small.lightcone(seed, num=4000).save(folder / f"{name}.h5")
    return folder


@pytest.fixture
def run(skies, tmp_path, monkeypatch):
    """A run of the published scenario on a small grid; its network answers the mean label."""
    monkeypatch.setattr(baselines, "MEAN_LABEL_SAMPLES", 16)
    data = {split: [str(skies / f"{split}.h5")] for split in ("train", "validation", "test")}
    config = load_config(
        "pfeffer2019/scenarios/05_noisy_foreground_random.yaml",
        [
            "grid={fov_deg: [0.8, 0.8], shape: [10, 24, 24]}",
            f"data={json.dumps(data)}",
            f"run={tmp_path / 'run'}",
            "network={kind: means, layers: 1, filters: 2, dense: 4}",
            f"test.samples={NUM}",
        ],
    )
    generator = Generator(config, split="train")
    save_run(config, mean_network(generator, 16)[0], generator)
    return config


@pytest.fixture
def without_figures(monkeypatch):
    """Their drawing, the slow part, is for tests that look at them."""
    monkeypatch.setattr(scenarios, "save", lambda drawn, folder: list(drawn))


def write(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / f"{name}.yaml"
    file.write_text(text)
    return file


OBSERVE = "observe: {pool: {factor: [10, 4, 4], reduce: sum}, log_modulus: {}}\n"


def test_the_published_set_is_complete_and_says_what_it_is(run):
    found = {s.name: s for s in load_scenarios("pfeffer2019", run)}
    assert list(found) == [
        "basic",
        "noisy",
        "foreground",
        "noisy_foreground",
        "noisy_foreground_random",
        "geometric_noise",
        "fewer_bright_sources",
        "padmanabhan18",
        "breysse15",
        "fiducial",
        "fiducial_noisy",
        "fiducial_foreground",
        "fiducial_noisy_foreground",
        "fiducial_noisy_foreground_random",
    ]
    assert [name for name in found if published(name) is None] == ["breysse15"]
    assert found["noisy_foreground_random"].differs == []
    assert found["basic"].differs == ["observe.radio_sources", "observe.noise"]
    assert found["padmanabhan18"].models == ["padmanabhan18"]
    for scenario in found.values():
        # 1905.10376: noise and sources, then the transform, then the beam on the logarithm
        assert list(scenario.config.observe)[-2:] == ["log_modulus", "beam"]
        assert next(iter(scenario.config.observe)) == "pool"
        for name in ("grid", "label", "network", "data", "run"):
            assert getattr(scenario.config, name) == getattr(run, name)
        noise = scenario.config.observe.get("noise")
        # no test of theirs leaves it out of some maps, as the training does
        assert noise is None or noise.absent == 0.0
    edge = found["geometric_noise"].config.observe["edge_noise"]
    assert (edge.sigma_uK, edge.width, edge.per) == (625.0, 1 / 22, "fine_voxel")


def test_every_scenario_makes_maps_of_its_own(run):
    """No scenario is another in disguise, as two of the published tests were."""
    made = {}
    for scenario in load_scenarios("pfeffer2019", run):
        generator = testset.open_generator(scenario.config)
        batch = generator.generate([0, 1])
        made[scenario.name] = batch
        assert {draw["model"] for draw in batch.draws} == set(scenario.models)
    maps = {batch.cube.numpy().tobytes() for batch in made.values()}
    assert len(maps) == len(made)
    counts = {name: batch.counts.numpy() for name, batch in made.items()}
    usual = counts["noisy_foreground_random"]
    assert (counts["basic"] == usual).all()
    for other in ("padmanabhan18", "breysse15", "fewer_bright_sources", "fiducial"):
        assert (counts[other] != usual).any()
    # fewer bright sources: the same halos below 10^6 Lsun less half, at most, fewer above
    faint = counts["fewer_bright_sources"][:, :30]
    assert (faint == usual[:, :30]).all()


def test_one_command_judges_all(run, capsys):
    folder = Path(run.run)
    arguments = ["evaluate", str(folder / "config.yaml"), "--scenarios", "pfeffer2019"]
    assert main.main([*arguments, "--device", "cpu"]) == 0
    text = capsys.readouterr().out
    result = json.loads((folder / "scenarios.json").read_text())
    assert len(result["scenarios"]) == 14
    for row in result["scenarios"]:
        for key in ("network", "mean_label", "scenario_mean", "floor"):
            assert row[key]["mse"] >= 0
            # errors of the floor are over skies, and here is one
            assert row[key]["mse_error"] is None if key == "floor" else row[key]["mse_error"] > 0
        assert row["samples"] == NUM
    assert result["floor_skies"]["oracle"] == result["floor_skies"]["test"] == 1
    assert "warning: the floor rests on 1 training and 1 test skies and its error is not" in text
    rows = {row["name"]: row for row in result["scenarios"]}
    assert rows["basic"]["published"]["mse"] == published("basic").mse
    assert rows["breysse15"]["published"] is None
    assert [name for name, row in rows.items() if not row["models_trained"]] == [
        "padmanabhan18",
        "breysse15",
    ]
    # an untrained network answers the mean of the training, whatever the map
    assert rows["basic"]["network"]["mse"] == pytest.approx(rows["basic"]["mean_label"]["mse"])
    # the same emission makes the same labels and the same floor
    assert rows["basic"]["floor"] == rows["geometric_noise"]["floor"]
    assert rows["fiducial"]["floor"] != rows["basic"]["floor"]
    # the mean of the maps themselves is the best constant
    for row in rows.values():
        assert row["scenario_mean"]["mse"] <= row["mean_label"]["mse"]
        own = row["scenario_mean"]["counts"]["whole"]["deviance"]
        assert own <= row["mean_label"]["counts"]["whole"]["deviance"]
    assert "padmanabhan18 +" in text and "0.0764*" in text
    assert "the published maps of this name are those of 'noisy_foreground_random'" in text
    assert max(map(len, text.splitlines())) <= 120
    assert len(result["figures"]) == 15
    assert all((folder / name).stat().st_size > 10_000 for name in result["figures"])


@pytest.mark.usefixtures("without_figures")
def test_a_users_own_folder_is_judged_and_its_test_sets_are_verified(run, tmp_path):
    mine = tmp_path / "mine"
    write(mine, "1_faint", "# Fainter.\nemit: {line: {}, brightness: {factor: 0.5}}\n" + OBSERVE)
    write(mine, "2_plain", "emit: {line: {model: li16, prior: wide}}\n" + OBSERVE)
    result = evaluate_scenarios(run, mine)
    rows = result["scenarios"]
    assert [row["name"] for row in rows] == ["faint", "plain"]
    assert rows[0]["about"] == "Fainter."
    assert all(row["published"] is None for row in rows)
    assert evaluate_scenarios(run, mine) == result
    manifest = Path(run.run) / "scenarios" / "plain.testset.json"
    recorded = json.loads(manifest.read_text())
    assert recorded["config"]["emit"]["line"]["prior"] == "wide"
    whole = json.dumps(recorded)
    recorded["samples"][4] = "0" * 64
    manifest.write_text(json.dumps(recorded))
    with pytest.raises(ValueError, match="test sample 4 is not the manifest's"):
        evaluate_scenarios(run, mine)
    manifest.write_text(whole)
    more = replace(run, test=replace(run.test, samples=NUM + 1))
    with pytest.raises(
        ValueError, match=r"of another test set and stays .*test\.samples = 6.*--out"
    ):
        evaluate_scenarios(more, mine)
    there = evaluate_scenarios(more, mine / "2_plain.yaml", out=tmp_path / "there")
    assert there["samples"] == NUM + 1 and manifest.read_text() == whole
    assert (tmp_path / "there" / "scenarios" / "plain.testset.json").is_file()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("emit: {line: {}}\n", "has no section observe"),
        (OBSERVE, "has no section emit"),
        ("emit: {line: {}}\nobserve: {log_modulus: {}}\n", "it writes maps by log_modulus, the"),
        (
            "emit: {line: {}}\nobserve: {pool: {factor: [10, 4, 4]}, log_modulus: {}}\n",
            r"it writes maps by pool \(factor \[10, 4, 4\], reduce mean\), log_modulus, the "
            r"network reads maps written by pool \(factor \[10, 4, 4\], reduce sum\), log_modulus",
        ),
        ("emit: {line: {modl: li16}}\n" + OBSERVE, "unknown setting 'emit.line.modl'"),
        ("emitt: {}\n" + OBSERVE, "unknown setting 'emitt': did you mean 'emit'"),
        (
            "grid: {nu_rest_GHz: 1901.0}\nemit: {line: {}}\n" + OBSERVE,
            r"grid\.nu_rest_GHz = 1901\.0 there, 115\.27 in the run",
        ),
    ],
)
def test_a_scenario_that_does_not_fit_is_refused(run, tmp_path, text, said):
    file = write(tmp_path / "bad", "odd", text)
    with pytest.raises(ConfigError, match=said) as caught:
        load_scenarios(tmp_path / "bad", run)
    assert str(file) in str(caught.value)
    assert not (Path(run.run) / "scenarios").exists()


def test_what_is_no_set_is_refused(run, tmp_path):
    with pytest.raises(
        ConfigError, match=r"no scenarios 'pfefer'.*\(pfeffer2019, published_models\)"
    ):
        load_scenarios("pfefer", run)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no scenario"):
        load_scenarios(tmp_path / "empty", run)
    write(tmp_path / "twice", "1_a", "emit: {line: {}}\n" + OBSERVE)
    write(tmp_path / "twice", "2_a", "emit: {line: {}}\n" + OBSERVE)
    with pytest.raises(ConfigError, match="two scenarios are called 'a'"):
        load_scenarios(tmp_path / "twice", run)


def test_an_interrupted_matrix_leaves_whole_manifests(run, monkeypatch):
    real = scenarios.predict_batches

    def interrupted(network, generator, batches, count, doing, *more):
        if doing.startswith("scenario 3/"):
            next(iter(batches))
            raise KeyboardInterrupt
        return real(network, generator, batches, count, doing, *more)

    monkeypatch.setattr(scenarios, "predict_batches", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate_scenarios(run, "pfeffer2019")
    left = sorted(path.name for path in (Path(run.run) / "scenarios").glob("*"))
    assert left == ["basic.png", "basic.testset.json", "noisy.png", "noisy.testset.json"]
    assert not (Path(run.run) / "scenarios.json").exists()


CO10 = [
    "li16_narrow",
    "chung22_correlated",
    "padmanabhan18_published",
    "breysse15_published",
    "breysse15_published_all_shine",
    "breysse17_fiducial",
    "breysse17_lim_fiducial",
    "keating16_published",
    "keating20_fiducial",
    "lidz11_fiducial",
    "pullen13_fiducial",
    "yang22_co10_fiducial",
    "kamenetzky16_co1_fiducial",
]


def test_published_models_are_those_of_the_line(run):
    """On the run's own grid, operators and modifiers; `require` is not asked of them."""
    emit = {
        "line": {"model": "freeform", "prior": "co10", "require": {"mean_uK": [0.1, 1.0]}},
        "brightness": {"factor": 0.5},
    }
    mine = from_mapping(to_dict(run) | {"emit": emit})
    found = {s.name: s for s in load_scenarios("published_models", mine)}
    assert list(found) == CO10
    for name, scenario in found.items():
        model = MODELS[scenario.models[0]]
        assert name.startswith(model.name) and model.source in scenario.about
        grid = replace(mine.grid, brightest_Lsun=1e12)
        assert scenario.config == replace(mine, emit=scenario.config.emit, grid=grid)
        assert scenario.config.emit["brightness"] == mine.emit["brightness"]
        assert scenario.config.line.require == RequireConfig()
        assert scenario.differs == ["emit.line"]
    assert found["breysse15_published_all_shine"].config.line.parameters == {"duty": 1.0}
    said = "published for z = 6..10, extrapolated to z = 2.39..3.43"
    assert found["lidz11_fiducial"].extrapolated == [f"lidz11 {said}"]
    assert found["lidz11_fiducial"].about.endswith(said)
    assert found["li16_narrow"].extrapolated == []


@pytest.mark.parametrize(
    ("nu_rest_GHz", "names"),
    [
        (230.538, ["li16", "chung22", "padmanabhan18", "keating20", "kamenetzky16_co2"]),
        (1900.537, [*(f"silva15_m{k}" for k in (1, 2, 3, 4)), "lagache18", "padmanabhan19_cii",
                    "yang22_cii"]),
        (2466067.7, ["chung19_lya"]),
    ],
)  # fmt: skip
def test_published_models_of_other_lines(run, nu_rest_GHz, names):
    grid = to_dict(run.grid) | {"nu_rest_GHz": nu_rest_GHz}
    if nu_rest_GHz > 1000.0:
        grid["nu_GHz"] = [nu_rest_GHz / 6.34, nu_rest_GHz / 9.05]
    other = from_mapping(to_dict(run) | {"grid": grid, "emit": {"line": {"model": "freeform"}}})
    assert [s.models[0] for s in load_scenarios("published_models", other)] == names


def test_a_line_without_published_models_is_refused(run):
    grid = to_dict(run.grid) | {"nu_rest_GHz": 492.161}
    other = from_mapping(to_dict(run) | {"grid": grid, "emit": {"line": {"model": "freeform"}}})
    with pytest.raises(ConfigError, match=r"no model was published for .*\[CI\]\(1-0\)"):
        load_scenarios("published_models", other)


def test_a_new_model_is_among_the_published_ones(run, monkeypatch):
    """What `registry.MODELS` holds, and says its line; not a user's, which says none."""
    new = replace(MODELS["keating16"], name="new26", priors={})
    monkeypatch.setitem(MODELS, "new26", new)
    monkeypatch.setitem(MODELS, "mine", replace(MODELS["freeform"], name="mine"))
    names = [s.name for s in load_scenarios("published_models", run)]
    assert names == [*CO10, "new26_fiducial"]


@pytest.mark.usefixtures("without_figures")
def test_a_run_is_judged_by_published_models(run, capsys, tmp_path):
    """Each paints what it says; lidz11, the brightest, too."""
    result = evaluate_scenarios(run, "published_models", out=tmp_path / "models")
    text = capsys.readouterr().out
    rows = {row["name"]: row for row in result["scenarios"]}
    assert list(rows) == CO10
    assert [name for name, row in rows.items() if row["models_trained"]] == ["li16_narrow"]
    assert all(row["published"] is None for row in rows.values())
    assert len({row["mean_label"]["mse"] for row in rows.values()}) == len(rows)
    assert "lidz11 published for z = 6..10, extrapolated to z = 2.39..3.43" in text
    assert max(map(len, text.splitlines())) <= 120
    made = json.loads(
        (tmp_path / "models" / "scenarios" / "lidz11_fiducial.testset.json").read_text()
    )
    assert made["config"]["emit"]["line"]["model"] == "lidz11"
