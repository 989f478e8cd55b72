"""Maps painted from a posterior: ranks that are uniform by construction, parameters by SBC on the
model that they assume, samples of given parameters to the last bit."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import ndtr
from support import map_runs as runs
from support import small

from streamtrain import Generator, Run
from streamtrain.cli import main
from streamtrain.config import Config
from streamtrain.evaluate.calibration.recalibration import Recalibration
from streamtrain.evaluate.repaint import model_fit as repaint_parameters
from streamtrain.evaluate.repaint.model_fit import (
    FLOOR,
    ParametersOfCounts,
    field_scatter,
    modes,
)
from streamtrain.evaluate.repaint.painter import NoiseLevel
from streamtrain.evaluate.repaint.repaint import Calibration, _calibration, _identity
from streamtrain.evaluate.repaint.statistics import (
    NAMES,
    VOXEL_BINS,
    Measured,
    PaintedStatistics,
    Statistic,
    scores,
)
from streamtrain.generator.line import Chosen
from streamtrain.numerics.rng import STAGE_POSE, Draws
from streamtrain.numerics.workspace import FreshMemory
from streamtrain.ranks import uniformity
from streamtrain.spectra import quantile_edges

pytestmark = small.EXTRAPOLATES
Float = NDArray[np.float64]
JOINT = {"layers": 2, "filters": 4, "dense": 8, "head": "joint_counts"}
BREYSSE15 = {"model": "breysse15", "prior": "published", "parameters": {"duty": 1.0}}
LI16 = {"model": "li16", "prior": "narrow"}
LINES = [LI16, {"mixture": {"one": LI16, "other": {**BREYSSE15, "weight": 0.5}}}]


def made(folder: Path, **sections: Any) -> Config:
    """A run with a network of random weights, whose validation skies are others."""
    config = runs.make_run(folder, **({"network": JOINT, "emit": {"line": BREYSSE15}} | sections))
    path = folder / "validation.h5"
    small.lightcone(3).save(path)
    config = replace(config, data=replace(config.data, validation=[str(path)]))
    (Path(config.run) / "config.yaml").write_text(config.to_yaml())
    return config


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return made(tmp_path_factory.mktemp("repaint"))


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the prior, which these models need no more of."""
    monkeypatch.setattr(repaint_parameters, "POOL", 512)


@pytest.mark.parametrize("number", [8, 300])
def test_scores_are_standard_normal_whatever_the_number_of_painted_maps(number: int) -> None:
    """Of 20 000 normal numbers, each among `number` others: mean and rms to four errors, and their
    distribution."""
    rng, size = np.random.default_rng(number), 20_000
    found = scores(
        5.0 + 3.0 * rng.standard_normal(size),
        5.0 + 3.0 * rng.standard_normal((number, size)),
        np.zeros(size),
    )
    assert found.mean() == pytest.approx(0.0, abs=4.0 / np.sqrt(size))
    assert np.mean(found**2) == pytest.approx(1.0, abs=4.0 * np.sqrt(2.0 / size))
    assert uniformity(ndtr(found)).p > 1e-3
    far = scores(np.array([1e6, -1e6]), rng.standard_normal((number, 2)), np.zeros(2))
    assert np.isfinite(far).all() and far[0] > 5.0 and far[1] < -5.0


def statistics_of(rows: dict[str, Float], number: int) -> list[Statistic]:
    nothing = np.zeros(0)
    return [
        Statistic(name, nothing, nothing, every[number], nothing) for name, every in rows.items()
    ]


def calibration_of(rows: dict[str, Float]) -> Calibration:
    covariance = {name: np.eye(every.shape[1]) for name, every in rows.items()}
    return Calibration(rows, covariance, np.eye(3), 1)


def test_ranks_of_maps_of_the_prior_are_uniform_by_construction() -> None:
    """Each of n maps in turn is ranked among the others, whatever the scores are: heavy tails,
    scales and numbers that hang together. A statistic's p is 1/n, 2/n ... 1, each once, and so is
    that of all together."""
    rng, num = np.random.default_rng(4), 41
    mixed = rng.standard_t(1.5, (num, 6)) @ rng.standard_normal((6, 6))
    rows = {"power": mixed, "means": np.exp(mixed[:, :2]) + rng.standard_t(2, (num, 2))}
    whole, single = [], []
    for k in range(num):
        others = {name: np.delete(every, k, axis=0) for name, every in rows.items()}
        p, p_values = calibration_of(others).p_values(statistics_of(rows, k))
        whole.append(p)
        single.append(p_values["power"])
    steps = np.arange(1, num + 1) / num
    assert np.sort(single) == pytest.approx(steps)
    assert np.sort(whole) == pytest.approx(steps)


def test_a_map_that_is_unlike_in_one_number_is_found() -> None:
    rng, num = np.random.default_rng(5), 200
    rows = {"power": rng.standard_normal((num + 1, 16)), "means": rng.standard_normal((num + 1, 3))}
    rows["power"][-1, 3] += 8.0
    others = {name: every[:-1] for name, every in rows.items()}
    p, p_values = calibration_of(others).p_values(statistics_of(rows, -1))
    assert p_values["power"] == pytest.approx(1.0 / (num + 1)) and p_values["means"] > 0.05
    assert p == pytest.approx(1.0 / (num + 1))


def test_bins_of_t_are_those_of_the_whole_map(config: Config) -> None:
    """Every 16th column, which a step of 16 voxels would take alone, is masked."""
    maps = torch.randn(1, 64, 64, 64, generator=torch.Generator().manual_seed(1))
    maps[..., ::16] = 0.0
    found = PaintedStatistics(config, None).edges(Measured({}, maps))
    np.testing.assert_allclose(found, quantile_edges(maps.numpy(), VOXEL_BINS), atol=0.2)


def test_what_an_operator_removes_from_every_map_decides_nothing() -> None:
    """A statistic that is rounding alone has no p, and that of all is the same without it; a map
    that has something there is found."""
    rng, num = np.random.default_rng(8), 40
    rows = {"power": rng.standard_normal((num, 4)), "means": 1e-4 * rng.standard_normal((num, 3))}
    calibration = calibration_of({name: every[:-1] for name, every in rows.items()})
    power, means = statistics_of(rows, -1)
    p, p_values = calibration.p_values([power, replace(means, removed=np.ones(3, bool))])
    assert "means" not in p_values and p == calibration.p_values([power])[0]
    far = replace(means, score=means.score + 9.0)
    assert calibration.p_values([power, far])[1]["means"] == pytest.approx(1.0 / num)


def test_rounding_is_told_from_what_a_map_has(config: Config) -> None:
    """Channel means of 1e-7 of the scatter are removed in every map; those of a map that has some
    are not, and neither is anything else."""
    statistics = PaintedStatistics(config, None)
    cubes = torch.randn(
        41, *statistics.input_map.box.shape, generator=torch.Generator().manual_seed(9)
    )
    measured = statistics.measure(0.1 * cubes)
    measured.raw["means"] *= 1e-7
    painted = Measured({k: rows[1:] for k, rows in measured.raw.items()}, measured.maps[1:])
    found = {s.name: s.removed for s in statistics.compare(measured.one(0), painted).statistics}
    assert found.pop("means").all() and not any(removed.any() for removed in found.values())
    measured.raw["means"][0] *= 1e7
    found = {s.name: s.removed for s in statistics.compare(measured.one(0), painted).statistics}
    assert not found["means"].all()


def test_functions_without_a_halo_where_the_prior_has_none() -> None:
    """They say nothing of the parameters: what is drawn is the prior, without a warning. 400 draws
    know a normal distribution's mean to 0.05 and its width to 4 %."""
    config = small.config(emit={"line": LI16}, label={"log10_L": [12, 13], "bins": 5})
    fit = ParametersOfCounts(Generator(config, lightcones=[small.lightcone(num=2000)]))
    with np.errstate(divide="raise", invalid="raise"):
        chosen = fit.draw(np.zeros((400, 5)), np.random.default_rng(0))
    (found,) = chosen.parameters
    for name, mean, width in (("alpha", 1.37, 0.037), ("beta", -1.74, 0.374)):
        assert abs(found[name].mean() - mean) < 0.2 * width  # four deviations
        assert found[name].std() == pytest.approx(width, rel=0.15)


def test_field_scatter_of_numbers_that_were_drawn_with_it() -> None:
    """To a fifth, of 2000 fields; Poisson scatter is no part of it."""
    rng, bins, num = np.random.default_rng(6), 12, 2000
    true = np.array([0.06, 0.03, 0.02])
    expected = np.tile(np.geomspace(5000.0, 60.0, bins), (num, 1))
    waves = (true * rng.standard_normal((num, 3))) @ modes(bins)
    counts = rng.poisson(expected * (1.0 + waves)).astype(np.float64)
    found = field_scatter(counts, expected)
    assert np.sqrt(np.diag(found)) == pytest.approx(true, rel=0.2)
    assert abs(found[0, 1]) < 0.2 * true[0] * true[1]
    still = field_scatter(rng.poisson(expected).astype(np.float64), expected)
    assert np.sqrt(np.diag(still)) == pytest.approx(np.zeros(3), abs=0.01)


@pytest.mark.parametrize("line", LINES, ids=["one model", "mixture"])
def test_parameters_given_numbers_of_halos(config: Config, line: dict[str, Any]) -> None:
    """Simulation-based calibration on the model that is assumed: parameters of the prior, fields
    about their mean numbers, Poisson scatter. The truth's ranks among what is drawn are uniform,
    and of several models each has its probability; drawn parameters make such numbers."""
    generator = Generator(runs.with_settings(config, emit={"line": line}), "train")
    scatter, number, each = np.diag([0.05, 0.03, 0.02]) ** 2, 90, 12
    of = ParametersOfCounts(generator, scatter)
    rng = np.random.default_rng(7)
    draws = Draws(3, "test", np.arange(number, dtype=np.uint64), STAGE_POSE)
    true = generator.line.choose(draws)
    means = np.zeros((number, config.label.bins))
    for k, given in enumerate(true.parameters):
        if (true.model == k).any():
            means[true.model == k] = of.expected(given, k)
    waves = (rng.standard_normal((number, 3)) @ np.sqrt(scatter)) @ modes(means.shape[1])
    error = FLOOR * rng.standard_normal(means.shape)
    functions = rng.poisson(np.maximum(means * (1.0 + waves + error), 0.0)).astype(np.float64)
    drawn = of.draw(np.repeat(functions, each, axis=0), rng)
    of_truth = np.repeat(true.model, each)
    share = (drawn.model == of_truth).reshape(number, each).mean(axis=1)
    if "mixture" in line:
        assert share.mean() > 0.7  # the two are told apart by their numbers
        assert np.mean(drawn.model == 0) == pytest.approx(np.mean(true.model == 0), abs=0.06)
    mine = np.flatnonzero((true.model == 0) & (share == 1.0))
    rows = np.flatnonzero(drawn.model == 0)
    place = {row: at for at, row in enumerate(rows.tolist())}
    own = np.cumsum(true.model == 0) - 1
    for name in ("alpha", "beta", "sigma_lco"):
        values = np.array(
            [[drawn.parameters[0][name][place[each * k + j]] for j in range(each)] for k in mine]
        )
        truth = true.parameters[0][name][own[mine]]
        rank = ((values < truth[:, None]).sum(axis=1) + rng.random(len(mine))) / (each + 1)
        assert uniformity(rank).p > 1e-3, name
        if name == "beta":
            assert values.std(axis=1).mean() < 0.7 * true.parameters[0][name].std()
    generator.close()


def test_samples_of_given_parameters_and_levels_are_those_that_drew_them(config: Config) -> None:
    """To the last bit; other parameters make other maps."""
    generator = Generator(config, "train")
    drawn = generator.generate(range(4))
    names = drawn.draws[0]["parameters"]
    given = {name: np.array([one["parameters"][name] for one in drawn.draws]) for name in names}
    levels = {"noise": np.array([float(one["noise"]["sigma_uK"]) for one in drawn.draws])}
    chosen = Chosen(np.zeros(4, np.int64), [given])

    def cubes(chosen: Chosen, levels: dict[str, Float]) -> torch.Tensor:
        drawing = generator.draw(range(4), chosen, levels)
        return generator.make(drawing, 0, 4, FreshMemory(generator.device)).cube

    again = cubes(chosen, levels)
    assert torch.equal(again, drawn.cube)
    brighter = Chosen(chosen.model, [given | {"A": 2.0 * given["A"]}])
    assert not torch.equal(cubes(brighter, levels), drawn.cube)
    louder = cubes(chosen, {"noise": np.full(4, 30.0)})
    assert (louder.std((1, 2, 3)) > 2.0 * drawn.cube.std((1, 2, 3))).all()
    generator.close()


def test_the_level_of_noise_is_read_off_a_map(config: Config) -> None:
    """Maps of white noise over a smooth sky: within 3 sigma of what 1440 voxels tell of a level."""
    generator = Generator(config, "train")
    noise = NoiseLevel(generator)
    assert noise.mode == "estimated"
    rng, shape = np.random.default_rng(8), (3, 20, 24)
    levels = noise.prior(24, rng)
    assert levels["noise"].min() >= 1.0 and levels["noise"].max() <= 3.0

    def maps(level: Float) -> torch.Tensor:
        return torch.from_numpy(
            level[:, None, None, None] * rng.standard_normal((len(level), *shape))
        )

    for true in (1.3, 2.7):
        found = noise.read_off(maps(np.array([true])), maps(levels["noise"]), levels, 500, rng)
        assert found["noise"].mean() == pytest.approx(true, rel=0.15)
        assert 0.005 < found["noise"].std() / true < 0.08
    stated = NoiseLevel(generator, 2.5)
    assert stated.mode == "stated" and (stated.given(3, rng)["noise"] == 2.5).all()
    with pytest.raises(ValueError, match=r"level of the noise, -1, must be 0 or more"):
        NoiseLevel(generator, -1.0)
    generator.close()


def test_the_level_of_noise_is_read_off_the_voxels_that_were_observed(config: Config) -> None:
    """Six voxels of ten are masked, so that most differences between neighbours are 0."""
    observe = {"pool": {"factor": [3, 1, 1]}, "noise": {"sigma_uK": [1.0, 3.0]},
               "mask": {"edge_pixels": 4}}  # fmt: skip
    generator = Generator(runs.with_settings(config, observe=observe), "train")
    noise, rng = NoiseLevel(generator), np.random.default_rng(8)
    levels = noise.prior(24, rng)

    def maps(level: Float) -> torch.Tensor:
        made = torch.zeros((len(level), 3, 20, 24), dtype=torch.float64)
        inner = level[:, None, None, None] * rng.standard_normal((len(level), 3, 12, 16))
        made[:, :, 4:-4, 4:-4] = torch.from_numpy(inner)
        return made

    for true in (1.3, 2.7):
        found = noise.read_off(maps(np.array([true])), maps(levels["noise"]), levels, 500, rng)
        assert found["noise"].mean() == pytest.approx(true, rel=0.2)
        assert found["noise"].std() / true < 0.12
    generator.close()


def test_a_check_is_made_again_by_its_seed_and_finds_a_map_that_is_none_of_ours(
    config: Config,
) -> None:
    """The calibration is made once; a map of a hundred times the brightness is the most unusual of
    all."""
    with Run.open(config.run) as run:
        cube = run.testing().generate([3]).cube[0]
        first = run.check(cube, prepared=True, number=48, maps=30)
        file = run.folder / "check_calibration.npz"
        written = file.stat().st_mtime_ns
    with Run.open(config.run) as run:
        posterior = run.infer(cube, prepared=True, functions=100, compare_with=0)
        again = run.check(cube, posterior, prepared=True, number=48, maps=30)
        same = run.check(cube, prepared=True, number=48, maps=30)
        assert file.stat().st_mtime_ns == written
        assert [one.name for one in first.statistics] == list(NAMES)
        for one, other in zip(first.statistics, same.statistics, strict=True):
            assert np.array_equal(one.painted, other.painted)
        assert first.to_dict() == same.to_dict()
        assert again.p != first.p or again.counts.sum() != first.counts.sum()
        other_seed = run.check(cube, prepared=True, number=48, maps=30, seed=1)
        assert not np.array_equal(other_seed.counts, first.counts)
        assert 1.0 / 31 <= first.p <= 1.0
        map_ = run.config.observation.input_map
        loud = 100.0 * map_.restore(cube[None].double())[0]
        strange = (loud.sign() * torch.log10(loud.abs() + 1.0)).float()
        far = run.check(strange, number=48, maps=30)
        assert str(far).startswith("warning   the array was taken for the network's input, after ")
        assert far.of_the_map and far.to_dict()["warnings"] == list(far.of_the_map)
        assert not first.of_the_map and not str(first).startswith("warning")
        assert (
            max(far.p, min(far.p_values.values())) < 0.07 and not far.warning
        )  # 30 maps cannot tell a p of 0.01
        text = str(far)
        assert "0.032 or less" in text and "x the painted" in text
        assert "noise: the level of the map is not known; sigma = " in text
        with pytest.raises(ValueError, match=r"number of painted maps, 3, must be 24 or more"):
            run.check(cube, prepared=True, number=3)
        with pytest.raises(ValueError, match=r"maps of the calibration, 3, must be 20 or more"):
            run.check(cube, prepared=True, maps=3)


def test_a_calibration_is_of_the_posterior_that_paints(config: Config, tmp_path: Path) -> None:
    """Other weights of the same step, and a recalibration, have their own."""
    folder = Path(shutil.copytree(config.run, tmp_path / "run"))
    usual: dict[str, Any] = {"number": 24, "maps": 20}
    with Run.open(folder) as run:
        cube, trained = run.testing().generate([3]).cube[0], run.trained
        plain = run.check(cube, prepared=True, **usual)
    Recalibration(
        trained.step, trained.weights_sha256, [0.0], [0.3], [0.1], [1.5], [1.5], [], 1, 1, [],
        "2026-11-29", "1",
    ).save(folder)  # fmt: skip
    with Run.open(folder) as run:
        moved = run.check(cube, prepared=True, **usual)
        kept = _calibration(run.painting, NoiseLevel(run.painting.training), 20)
    with Run.open(folder, recalibrated=False) as run:
        again = run.check(cube, prepared=True, **usual)
        before = _calibration(run.painting, NoiseLevel(run.painting.training), 20)
        other = replace(run.painting, weights_sha256="another")
        assert _identity(other, NoiseLevel(other.training)) != _identity(
            run.painting, NoiseLevel(run.painting.training)
        )
    assert plain.to_dict() == again.to_dict() != moved.to_dict()
    assert not np.array_equal(kept.scores["network"], before.scores["network"])


def test_infer_writes_the_check(config: Config, tmp_path: Path, capsys: Any) -> None:
    path = runs.write_hdf5(tmp_path / "m.h5", runs.map_of(config, 3))
    out = tmp_path / "out"
    command = ["infer", str(config.run), str(path), "--out", str(out), "--samples", "0"]
    more = ["--check", "--painted", "48", "--check-maps", "30", "--noise-level", "2"]
    assert main.main([*command, *more]) == 0
    said = capsys.readouterr().out
    assert "48 maps painted from the posterior (seed 0)" in said and "sigma = 2, as stated" in said
    result = json.loads((out / "m.json").read_text())["check"]
    assert result["calibration"] == {"maps": 30, "skies": 1} and set(result["statistics"]) == {
        *NAMES
    }
    assert os.path.getsize(out / "m_check.png") > 10_000
    assert main.main([*command, "--painted", "48"]) == 2
    assert "--painted, --check-maps and --noise-level are for --check" in capsys.readouterr().err


def test_parameters_that_the_network_predicts(tmp_path: Path) -> None:
    """Maps are painted with what the flow draws."""
    config = made(
        tmp_path,
        label={"quantity": "parameters", "bins": 14},
        network={"layers": 2, "filters": 4, "dense": 8},
    )
    with Run.open(config.run) as run:
        found = run.check(run.testing().generate([3]).cube[0], prepared=True, number=24, maps=20)
        assert 1.0 / 21 <= found.p <= 1.0 and found.counts.shape == (24, 14)


def test_what_has_no_posterior_is_refused(tmp_path: Path) -> None:
    config = made(tmp_path, network={"layers": 2, "filters": 4, "dense": 8, "head": "mse"})
    with Run.open(config.run) as run, pytest.raises(ValueError, match="predicts no distribution"):
        run.check(np.zeros(runs.SHAPE))
