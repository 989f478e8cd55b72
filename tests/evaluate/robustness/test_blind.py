"""The blind test: its maps are what they say, and its verdicts are those of the posterior."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import map_runs as runs
from support import small

from streamtrain import Run
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.cli import main
from streamtrain.config import Config, ConfigError, from_mapping
from streamtrain.evaluate.alarm.alarm import FEWEST_MAPS
from streamtrain.evaluate.robustness import blind
from streamtrain.evaluate.robustness.blind import Blind, blind_test, load_maps

pytestmark = small.EXTRAPOLATES
JOINT = {"layers": 2, "filters": 4, "dense": 8, "head": "joint_counts"}
NO_DRIFT = {"rms": 0.0, "index": 1.0}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return runs.make_run(tmp_path_factory.mktemp("blind"), network=JOINT)


def test_the_maps_that_ship() -> None:
    maps = load_maps()
    assert len(maps) == len({one.name for one in maps}) == 24
    assert all(one.what for one in maps)
    changed = [bool(m.skies or m.emit or m.scale or m.gain or m.drift["rms"]) for m in maps]
    assert changed == [False] * 4 + [True] * 20


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- {name: a}", "every map needs a name and what is changed"),
        ("- {name: a, what: b, gains: 0.1}", "unknown setting 'gains': did you mean 'gain'"),
        ("- {name: a, what: b, drift: {rmse: 1}}", "a: drift has an rms and an index alone"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_maps(tmp_path / "m.yaml")


def test_gains_multiply_channels_and_a_drift_is_noise_along_frequency(config: Config) -> None:
    shown = config.observation.input_map
    cube = 0.5 * torch.randn(3, 20, 24, generator=torch.Generator().manual_seed(1))
    before = shown.restore(cube[None])[0].double()
    gains = blind._spoilt(cube, Blind("a", "b", gain=0.2, drift=NO_DRIFT), config, 5)
    ratio = shown.restore(gains[None])[0].double() / before
    assert ratio.std((1, 2)) == pytest.approx(np.zeros(3), abs=1e-4)
    expected = 1.0 + 0.2 * np.random.default_rng([config.seed, 5]).normal(size=3)
    assert ratio.mean((1, 2)).numpy() == pytest.approx(expected, rel=1e-4)
    drifting = blind._spoilt(cube, Blind("a", "b", drift={"rms": 0.4, "index": 1.0}), config, 5)
    added = (shown.restore(drifting[None])[0].double() - before).numpy()
    assert added.std() == pytest.approx(0.4 * float(before.std(correction=0)), rel=1e-4)
    assert added.mean((1, 2)) == pytest.approx(np.zeros(3), abs=1e-5)
    # no mean along frequency: the channels of a pixel sum to what the channels' means take away
    assert added.sum(0) == pytest.approx(np.full((20, 24), added.sum(0).mean()), abs=1e-4)
    unchanged = blind._spoilt(cube, Blind("a", "b", drift=NO_DRIFT), config, 5)
    assert unchanged.numpy() == pytest.approx(cube.numpy(), abs=1e-6)


def test_the_command(
    config: Config, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it finds is what the posterior of the same map says; a map that the run cannot have is
    left out; the second time the same comes out."""
    folder = Path(shutil.copytree(config.run, tmp_path / "run"))
    text = (folder / "config.yaml").read_text().replace(config.run, str(folder))
    (folder / "config.yaml").write_text(text)
    Run.open(folder).watch(FEWEST_MAPS)
    (tmp_path / "m.yaml").write_text(
        "- {name: own, what: nothing}\n"
        "- {name: watson, what: others, skies: {mass_function: watson13_fof}}\n"
        "- {name: gains, what: gains of 20 %, gain: 0.2}\n"
        "- {name: beam, what: wide, scale: {observe.beam.fwhm_arcmin: 1.5}}\n"
        "- {name: none, what: no such noise, scale: {observe.edge_noise.sigma_uK: 2}}\n"
    )
    kept = Run.open(folder).config
    given: list[Any] = []
    draw = blind.blind_figure
    monkeypatch.setattr(blind, "blind_figure", lambda *of: given.append(of) or draw(*of))
    result = blind_test(kept, maps=tmp_path / "m.yaml")
    network, rows, ((posterior, counts), *others) = given[0]
    samples = posterior.samples.copy()
    some = np.arange(0, len(samples), 6)  # a sixth of all functions, and few of any bin
    samples[some, np.arange(len(some)) % samples.shape[1]] = 1e12
    wide = replace(posterior, samples=samples)
    assert "whole curve, 95 %, up to 1e+12" in wide.plot().axes[0].get_legend_handles_labels()[1]
    figure = draw(network, rows, [(wide, counts), *others])
    (key,) = figure.legends
    assert "whole curve, 95 %" in [text.get_text() for text in key.get_texts()]
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert all(axes.xaxis.label.get_visible() and axes.get_xlabel() for axes in panels)
    assert [row["name"] for row in result["maps"]] == ["own", "watson", "gains", "beam"]
    why = "the run has no observe.edge_noise.sigma_uK that is a number"
    assert result["left_out"] == {"none": why}
    assert sum(result["summary"].values()) == 4
    told = capsys.readouterr().out
    assert f"none is left out: {why}" in told
    assert (folder / "blind.png").stat().st_size > 10_000
    assert len(list((folder / "blind").glob("*.h5"))) == 2
    again = blind_test(kept, maps=tmp_path / "m.yaml")
    assert again == result
    assert json.loads(json.dumps(again)) == json.loads((folder / "blind.json").read_text())
    with Run.open(folder) as run:
        made = (folder / "blind").glob("*.h5")
        (sky,) = [p for p in made if "tinker08" in Lightcone.open(p).provenance]
        data = replace(run.config.data, test=[str(sky)])
        generator = run.testing(replace(run.config, data=data))
        batch = generator.generate([0])
        posterior = run.infer(batch.cube[0], prepared=True)
    low, high = posterior.band(0.95)
    true = batch.counts[0].numpy()
    row = result["maps"][0]
    assert row["held"] == bool(((true >= low) & (true <= high)).all())
    assert row["integrals"]["rho_L"]["median"] == posterior.functional("rho_L").median
    assert row["alarm"]["p"] == posterior.alarm.p  # type: ignore[union-attr]


def test_models_of_another_line_are_left_out(config: Config) -> None:
    (keating,) = [one for one in load_maps() if one.name == "keating16 1"]
    blind._check_line(keating, config)
    carbon = replace(config, grid=replace(config.grid, nu_rest_GHz=1900.5, nu_GHz=(300.0, 210.0)))
    with pytest.raises(ConfigError, match=r"the model keating16 was not published for \[CII\]"):
        blind._check_line(keating, carbon)


def test_an_interloper_that_cannot_fall_into_the_band_is_left_out(config: Config) -> None:
    """CO(2-1) is behind CO(1-0) at 26 to 34 GHz, but never seen at 210 to 300 GHz."""
    (co,) = [one for one in load_maps() if one.name == "interloper 1"]
    blind._check_line(co, config)
    carbon = replace(config, grid=replace(config.grid, nu_rest_GHz=1900.5, nu_GHz=(300.0, 210.0)))
    with pytest.raises(
        ConfigError, match=r"CO\(2-1\) at 230\.538 GHz does not fall into all of the"
    ):
        blind._check_line(co, carbon)


def test_maps_that_cannot_be_spoilt_are_left_out(config: Config) -> None:
    """Where the input does not show the map, or there is no noise along one frequency."""
    gains = Blind("a", "b", gain=0.1, drift=NO_DRIFT)
    drift = Blind("a", "b", drift={"rms": 0.1, "index": 1.0})
    blind._check_spoilt(gains, config)
    blind._check_spoilt(drift, config)
    lost = replace(config, observe=from_mapping({"observe": {"standardise": {}}}).observe)
    with pytest.raises(ConfigError, match="the map in its units cannot be had"):
        blind._check_spoilt(gains, lost)
    one = replace(config, grid=replace(config.grid, shape=(3, 20, 24)))
    blind._check_spoilt(gains, one)
    with pytest.raises(ConfigError, match="needs two channels or more"):
        blind._check_spoilt(drift, one)


def test_it_makes_its_maps_itself(config: Config, capsys: Any) -> None:
    words = ["evaluate", f"{config.run}/config.yaml", "--device", "cpu", "--blind"]
    assert main.main([*words, "--samples", "8"]) == 2
    assert "--blind makes its maps itself" in capsys.readouterr().err
    assert main.main([*words, "--probes"]) == 2
    assert "--catalogs and --blind are different things: name one" in capsys.readouterr().err
