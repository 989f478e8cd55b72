"""The alarm: its p-values are uniform for maps of the prior, and it finds what is none of them."""

from __future__ import annotations

import io
import json
import shutil
import weakref
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import norm
from support import map_runs as runs
from support import small
from support.map_runs import OBSERVE

from streamtrain import Run
from streamtrain.cli import main
from streamtrain.config import Config, load_config
from streamtrain.evaluate.alarm import report, watch
from streamtrain.evaluate.alarm.alarm import (
    FEWEST_MAPS,
    INSTRUMENT,
    TESTS,
    TURNED,
    Alarm,
    Reference,
)
from streamtrain.evaluate.alarm.statistics import (
    COMPONENT,
    EXTREME,
    FRAME,
    MEANS,
    POWER,
    SCATTER,
    VOXELS,
    MapStatistics,
    Place,
)
from streamtrain.evaluate.calibration.recalibration import Recalibration
from streamtrain.evaluate.evaluation import evaluate
from streamtrain.generator.generator import Generator
from streamtrain.grid import Grid
from streamtrain.machine.progress import Progress
from streamtrain.operators.plan import InputMap
from streamtrain.ranks import deviation_p, rank_band, rank_curve, uniformity
from streamtrain.spectra import Box

pytestmark = small.EXTRAPOLATES
Float = NDArray[np.float64]

JOINT = {"layers": 2, "filters": 4, "dense": 8, "head": "joint_counts"}
SCALES = MapStatistics.choose(
    InputMap(Box((4, 8, 6), (3.0, 1.0, 1.5)), (), "uK"), torch.arange(1536.0).view(8, 4, 8, 6).sin()
)


def maps(number: int, seed: int) -> tuple[Float, Float]:
    """Statistics [number, 40] and outputs [number, 4] of maps: the outputs know two properties of a
    map, and its statistics follow from them, bent, with scatter."""
    rng = np.random.default_rng(seed)
    known = rng.normal(size=(number, 2))
    outputs = np.concatenate([known, known @ [[0.5, 1.0], [1.0, -0.5]]], axis=1)
    outputs += 0.1 * rng.normal(size=outputs.shape)
    slopes = np.random.default_rng(0).normal(size=(2, 40))
    bent = known @ slopes + 0.2 * (known @ slopes[::-1]) ** 2
    return bent + 0.3 * rng.normal(size=(number, 40)), outputs


@pytest.fixture(scope="module")
def reference() -> Reference:
    places = [Place(POWER if k < 20 else VOXELS, f"place {k}", k < 3) for k in range(40)]
    prior = {"rho_L": [1.0, 2.0, 3.0, 4.0, 5.0]}
    return Reference.fit(SCALES, maps(4000, 1), maps(4000, 2), places, "8 skies", prior)


def test_maps_of_the_prior_have_uniform_p_values(reference: Reference) -> None:
    p = reference.p_values(*maps(4000, 3))
    # two samples of 4000: deviations are those of one of 2000
    assert uniformity(p[::2]).shape > 0.01
    for level in (0.01, 0.05, 0.3):
        assert np.mean(p < level) == pytest.approx(level, abs=5 * np.sqrt(level / 2000))
    assert uniformity(reference.expected).deviation < 1.01 / len(reference)


def test_p_values_among_maps_that_scatter_too_keep_to_the_band() -> None:
    """Those of maps of the prior differ from uniform numbers as two samples do: 95 % of test sets
    keep to the band of the figure, and their p is small as often as it says."""
    rng = np.random.default_rng(0)
    left, small, number = [], [], 1000
    for _ in range(200):
        known = np.sort(rng.random(number))
        p = (number - np.searchsorted(known, rng.random(2000)) + 1) / (number + 1)
        of = report.worth(p, known)
        low, high = rank_band(of)
        curve = rank_curve(p)
        left.append(bool(((curve < low) | (curve > high)).any()))
        small.append(deviation_p(uniformity(p).deviation, of) < 0.05)
    assert of == 667
    assert np.mean(left) == pytest.approx(0.05, abs=0.05)
    assert np.mean(small) == pytest.approx(0.05, abs=0.05)


@pytest.mark.parametrize("fault", ["one statistic", "together", "outputs", "far"])
def test_what_is_no_map_of_the_prior_is_found(reference: Reference, fault: str) -> None:
    numbers, outputs = maps(1000, 4)
    if fault == "one statistic":
        numbers[:, 3] += 3.0  # within what the prior has, but not with these outputs
    elif fault == "together":
        numbers = maps(1000, 5)[0]  # each of the two is of the prior
    elif fault == "outputs":
        outputs[:, 3] += 1.0
    else:
        outputs, numbers = 4.0 * outputs, 4.0 * numbers
    p = reference.p_values(numbers, outputs)
    assert np.mean(p < 0.05) > 0.8
    if fault == "one statistic":
        found = reference.judge(numbers[:50], outputs[:50])
        assert all(a.off[0].where == "place 3" and a.off[0].factor is None for a in found if a.off)
        assert np.mean([a.off[0].sigma for a in found if a.off]) == pytest.approx(10.0, abs=1.0)
        warnings = [alarm.warning for alarm in found if alarm.extrapolated]
        assert warnings and all(
            "most off: P(k_perp, k_par) at place 3: +" in text for text in warnings
        )


def test_what_is_all_too_usual_hides_nothing() -> None:
    """A map whose other statistics are exactly what is expected, nearer to that than all maps of
    the prior, while one number of its power spectrum is far off."""
    rng = np.random.default_rng(0)
    places = [Place(POWER if k < 20 else VOXELS, f"place {k}", True) for k in range(40)]
    seen, unseen = ((rng.normal(size=(1000, 40)), rng.normal(size=(1000, 1))) for _ in range(2))
    reference = Reference.fit(SCALES, seen, unseen, places, "8 skies")
    numbers = seen[0].mean(0)[None]
    numbers[0, 3] += 20.0
    (alarm,) = reference.judge(numbers, seen[1].mean(0)[None])
    assert alarm.tests["power spectrum"] == 1 / 1001
    assert max(alarm.tests.values()) > 0.99
    assert alarm.p < 0.01


def test_a_network_that_predicts_the_same_of_all_maps_has_no_alarm() -> None:
    places = [Place(POWER if k < 20 else VOXELS, f"place {k}", True) for k in range(40)]
    seen, unseen = ((numbers, np.ones((300, 4))) for numbers, _ in (maps(300, 1), maps(300, 2)))
    with pytest.raises(ValueError, match="predicts the same of all"):
        Reference.fit(SCALES, seen, unseen, places, "8 skies")


def test_a_measured_number_is_read_off_maps() -> None:
    """A small change of one number, spread over 40 statistics: the ranks of the other distances
    hardly see it, its own does as often as the best test of a known direction, and the factor that
    is read off is the true one within its error."""
    rng = np.random.default_rng(0)
    direction, other = rng.normal(size=(2, 40))
    faint = np.exp(
        0.5 * rng.normal(size=12_000)
    )  # some maps scatter more than others, as outputs tell

    def made(first: int, number: int, ln: float = 0.0) -> tuple[Float, Float]:
        one = np.random.default_rng([first, number])
        scatter = faint[first : first + number, None]
        numbers = scatter * (one.normal(size=(number, 40)) + one.normal(size=(number, 1)) * other)
        return numbers + ln * direction, np.log(scatter)

    across = direction - (direction @ other) / (1.0 + other @ other) * other
    z = np.log(1.5) * np.sqrt(direction @ across) / faint[9000:]
    best = np.mean(norm.sf(1.96 - z) + norm.cdf(-1.96 - z))
    places = [Place(POWER if k < 20 else VOXELS, f"place {k}", True) for k in range(40)]
    turned = {"observe.beam.fwhm_arcmin = 4.5": made(0, 3000, np.log(TURNED))}
    several = turned | {"observe.noise.sigma_uK = 11.0": made(0, 3000)}  # one without any effect
    for readings in (turned, several):
        seen, unseen = made(0, 3000), made(3000, 3000)
        reference = Reference.fit(SCALES, seen, unseen, places, "8 skies", None, readings)
        assert [place.where for place in reference.places[40:]] == list(turned)
        p = np.array([a.tests[INSTRUMENT] for a in reference.judge(*made(6000, 3000))])
        assert uniformity(p[::2]).shape > 0.01
        assert reference._distances(*made(6000, 3000))[1][:, 40].std() == pytest.approx(
            1.0, abs=0.05
        )
        found = reference.judge(*made(9000, 3000, np.log(1.5)))
        shares = [np.mean([a.tests[name] < 0.05 for a in found]) for name in TESTS]
        assert shares[-1] == pytest.approx(best, abs=0.1) and max(shares[:-1]) < 0.1
        # 0.25 +- 0.01 if the instrument counted once among the five, as the others do
        assert np.mean([a.p < 0.05 for a in found]) > 0.28
        said = [o for a in found for o in a.off if o.kind == INSTRUMENT]
        assert {o.where for o in said} == set(turned)
        assert np.median([o.sigma for o in said]) > 3.0
        _, sigma, size = reference._distances(*made(9000, 3000, np.log(1.5)))
        error = size[:, 40] / sigma[:, 40]
        assert np.average(size[:, 40], weights=1.0 / error**2) == pytest.approx(
            np.log(1.5), rel=0.1
        )
        assert np.corrcoef(np.log(error), np.log(faint[9000:]))[0, 1] > 0.9
    assert str(replace(said[0], sigma=4.04, factor=1.23)) == (
        "observe.beam.fwhm_arcmin = 4.5: as if it were 1.23 times that, +4.0 sigma"
    )


def test_a_factor_is_told_of_logarithms(reference: Reference) -> None:
    numbers, outputs = maps(400, 6)
    numbers[:, 1] += np.log(8.0)
    off = [alarm.off[0] for alarm in reference.judge(numbers, outputs)]
    assert {one.where for one in off} == {"place 1"}
    factors = np.log([one.factor or 1.0 for one in off])
    # a part is taken for another property of the map, whose leading directions know the statistic
    assert 2.0 < np.exp(factors.mean()) <= 8.5


def test_an_alarm_does_not_depend_on_the_others(reference: Reference) -> None:
    numbers, outputs = maps(20, 7)
    together = reference.judge(numbers, outputs)
    alone = [reference.judge(numbers[k : k + 1], outputs[k : k + 1])[0] for k in range(20)]
    assert [a.p for a in together] == [a.p for a in alone]
    assert [a.p for a in together] == reference.p_values(numbers, outputs).tolist()
    assert Alarm.from_dict(json.loads(json.dumps(together[0].to_dict()))) == together[0]


def test_a_reference_is_kept_whole(reference: Reference, tmp_path: Path) -> None:
    reference.save(tmp_path / "alarm.npz", {"step": 3})
    again, about = Reference.load(tmp_path / "alarm.npz")
    assert about == {"step": 3}
    assert again._arrays.keys() == reference._arrays.keys()
    for name, values in reference._arrays.items():  # so that p-values are those of before
        assert np.array_equal(again._arrays[name], values), name
    [*_, last] = again.judge(*maps(5, 8))
    assert last == reference.judge(*maps(5, 8))[-1]
    assert last.prior == {"rho_L": (1.0, 2.0, 3.0, 4.0, 5.0)}
    (tmp_path / "alarm.npz").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"alarm\.npz: it is no npz file"):
        Reference.load(tmp_path / "alarm.npz")


@pytest.fixture(scope="module")
def statistics() -> tuple[MapStatistics, torch.Tensor]:
    grid = Grid((0.7, 0.8), (6, 16, 20), (34.0, 26.0), 115.27)
    luck = torch.Generator().manual_seed(3)
    cubes = 5.0 + 2.0 * torch.randn(64, 6, 16, 20, generator=luck)
    return MapStatistics.choose(InputMap(Box.of_grid(grid), (), "uK"), cubes), cubes


def test_statistics_of_white_noise(statistics: tuple[MapStatistics, torch.Tensor]) -> None:
    """P is that of the scales, the voxels lie in their quantiles, and no frame differs."""
    found, cubes = statistics
    numbers = found(cubes)
    kinds = np.array([place.kind for place in found.places])
    assert numbers.shape == (64, len(kinds))
    assert np.exp(numbers[:, kinds == POWER]).mean() == pytest.approx(1.0, abs=0.05)
    counts = np.expm1(numbers[:, kinds == VOXELS])
    assert counts.sum(1) == pytest.approx(np.full(64, 6 * 16 * 20))
    assert counts.mean(0)[1:-1].argmax() in (9, 10, 11, 12)
    unit = float(cubes.std())
    assert unit * numbers[:, kinds == MEANS] == pytest.approx(cubes.mean((2, 3)).numpy(), rel=1e-5)
    spread = np.exp(numbers[:, kinds == SCATTER])
    assert spread == pytest.approx(cubes.std((2, 3), correction=0).numpy(), rel=1e-5)
    assert abs(numbers[:, kinds == FRAME]).mean() < 0.05
    components = np.exp(numbers[:, kinds == COMPONENT])
    flat = cubes.double().flatten(2).numpy()
    flat = (flat - flat.mean(2, keepdims=True)) / flat.std(2, keepdims=True)
    singular = np.linalg.svd(flat / np.sqrt(flat.shape[2]), compute_uv=False)
    assert components == pytest.approx(singular, rel=1e-5)
    brightest, faintest = np.sinh(numbers[:, kinds == EXTREME]).T
    assert 2.0 * brightest == pytest.approx(cubes.amax((1, 2, 3)).numpy() - 5.0, abs=0.02)
    assert 2.0 * faintest == pytest.approx(cubes.amin((1, 2, 3)).numpy() - 5.0, abs=0.02)


@pytest.mark.parametrize(
    ("change", "kind", "where"),
    [
        ("bright", EXTREME, "the brightest"),
        ("channel", SCATTER, "channel 4"),
        ("edge", FRAME, "frame "),
        ("smooth", POWER, "k_perp"),
        ("cleaned", COMPONENT, "number 6 of 6"),
        ("foreground", COMPONENT, "number 1 of 6"),
    ],
)
def test_a_change_moves_its_statistic_most(
    statistics: tuple[MapStatistics, torch.Tensor], change: str, kind: str, where: str
) -> None:
    found, cubes = statistics
    before, changed = found(cubes), cubes.clone()
    if change == "bright":
        changed[:, 2, 8, 9] = 60.0
    elif change == "channel":
        changed[:, 4] = 5.0 + 1.6 * (cubes[:, 4] - 5.0)
    elif change == "edge":
        changed[:, :, :2] = 5.0 + 2.0 * (cubes[:, :, :2] - 5.0)
    elif change == "cleaned":
        u, s, v = torch.linalg.svd(cubes.flatten(2) - 5.0, full_matrices=False)
        s[:, :1] = 0.0
        changed = 5.0 + (u * s[:, None] @ v).view(cubes.shape)
    elif change == "foreground":
        changed = cubes + 0.8 * cubes[:1, :1].roll(3, 2) - 4.0
    else:
        changed = (cubes + cubes.roll(1, 3)) / 2.0**0.5 + 5.0 - 5.0 * 2.0**0.5
    moved = (found(changed) - before).mean(0) / before.std(0)
    place = found.places[int(np.abs(moved).argmax())]
    assert place.kind == kind and place.where.startswith(where)


def test_a_turned_map_has_the_same_statistics(
    statistics: tuple[MapStatistics, torch.Tensor],
) -> None:
    found, cubes = statistics
    assert found(cubes[:4].flip(2)) == pytest.approx(found(cubes[:4]), abs=1e-9)


@pytest.mark.parametrize("last", ["high_pass", "subtract_mean", "log_modulus"])
def test_what_is_removed_from_every_map_is_no_statistic(tmp_path: Path, last: str) -> None:
    """Means and modes that an operator takes off are rounding alone: another rounding of a map, as
    of a file or another device, has the same p-value; one that has them is found."""
    filters = {"high_pass": {"high_pass": {"modes": 1}}, "subtract_mean": {"subtract_mean": {}}}
    filters["log_modulus"] = {"subtract_mean": {}, "log_modulus": {}}
    observe = {"pool": {"factor": [3, 1, 1]}, "noise": {"sigma_uK": 2.0}, **filters[last]}
    config = runs.make_run(tmp_path, network=JOINT, observe=observe)
    with Run.open(config.run) as run:
        watch, _ = run.watch(FEWEST_MAPS)
        assert watch is not None
        cubes = run.testing().generate(range(24)).cube
        luck = torch.Generator().manual_seed(1)
        rounded = cubes * (1.0 + 3e-7 * torch.randn(cubes.shape, generator=luck))
        assert watch.p_values(rounded) == pytest.approx(watch.p_values(cubes), abs=0.011)
        found = watch.judge(cubes + 1.0)
    assert all(alarm.tests["other statistics"] < 0.01 for alarm in found)


def test_another_beam_is_told_with_its_width(tmp_path: Path) -> None:
    observe = OBSERVE | {"noise": {"sigma_uK": 0.05}}
    config = runs.make_run(tmp_path, network=JOINT, observe=observe)
    with Run.open(config.run) as run:
        watch, _ = run.watch(1000)
        assert watch is not None
        beam, noise = [each for each in watch.reference.places if each.kind == INSTRUMENT]
        assert beam.where == "observe.beam.fwhm_arcmin = 4.5"
        assert noise.where == "observe.noise.sigma_uK = 0.05"
        wider = runs.with_settings(config, observe=observe | {"beam": {"fwhm_arcmin": 5.4}})
        found = watch.judge(run.testing(wider).generate(range(32)).cube)
    assert np.median([alarm.tests[INSTRUMENT] for alarm in found]) < 0.01
    said = [off for alarm in found for off in alarm.off if off.where == beam.where]
    assert len(said) > 16
    factors = [off.factor for off in said if off.factor is not None]
    assert 1.1 < np.median(factors) < 1.6 and max(factors) < 2.0


def test_what_is_no_instrument_of_the_map_is_not_looked_for(config: Config) -> None:
    """A smoothing of the network's input, and a beam that would be wider than the map, which is
    told; the others have the lightcones of the first."""
    observe = {
        "beam": {"fwhm_arcmin": 41.0},
        "noise": {"sigma_uK": 2.0},
        "log_modulus": {},
        "beam_2": {"fwhm_pixels": 2.0},
    }
    told = io.StringIO()
    with closing(Generator(runs.with_settings(config, observe=observe))) as generator:
        found = watch._turned(generator, Progress(stream=told))
        assert list(found) == ["observe.noise.sigma_uK = 2.0"]
        assert all(other.scenes is generator.scenes for other in found.values())
    assert told.getvalue().count("does not look for another observe.beam.fwhm_arcmin = 41.0: ") == 1


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A run with validation lightcones."""
    folder = tmp_path_factory.mktemp("alarm")
    small.lightcone(3).save(folder / "validation.h5")
    return runs.make_run(
        folder,
        network=JOINT,
        data={
            **{split: [str(folder / f"{split}.h5")] for split in ("train", "validation", "test")},
            "roll": "quarter",
        },
    )


def test_the_command_and_what_uses_it(
    config: Config, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network beside, a report, and the same numbers wherever maps are looked at."""
    folder = Path(shutil.copytree(config.run, tmp_path / "run"))
    other = Path(shutil.copytree(config.run, tmp_path / "other"))
    words = ["alarm", str(folder), "--maps", str(FEWEST_MAPS), "--beside", str(other)]
    assert main.main([*words, "--device", "cpu"]) == 0
    told = capsys.readouterr().out
    assert "alarm, among 100 maps of 1 sky that no training saw: p < 0.05 in " in told
    report = json.loads((folder / "alarm.json").read_text())
    assert report["beside"] == [str(other)] and report["maps_of_the_prior"] == FEWEST_MAPS
    assert (folder / "alarm.png").stat().st_size > 10_000
    with Run.open(folder) as run:
        watch, problems = run.watch(make=False)
        assert watch is not None and not problems and len(watch.others) == 1
        kinds = [place.kind for place in watch.reference.places]
        assert kinds[-2:] == ["prediction of another network", INSTRUMENT]
        batch = run.testing().generate(range(24))
        p = watch.p_values(batch.cube)
        counts = np.concatenate(
            [
                run._samples_of(split).generate(range(100)).counts
                for split in ("train", "validation")
            ]
        )
        posterior = run.infer(batch.cube[0], prepared=True)
    for each in posterior.estimates():  # the prior is what the 200 maps have
        [known] = [f for f in posterior.functionals if f.name == each.name]
        low, high = np.quantile(known.of(counts), [0.16, 0.84], method="inverted_cdf")
        assert each.prior_68 == pytest.approx((low, high), rel=1e-12)
    assert np.mean(p < 0.05) == report["below_0.05"]
    from streamtrain.evaluate import baselines, evaluation

    monkeypatch.setattr(baselines, "MEAN_LABEL_SAMPLES", 16)
    monkeypatch.setattr(evaluation, "save", lambda drawn, folder: list(drawn))
    found = evaluate(folder)
    assert found["alarm"]["below_0.05"] == report["below_0.05"]
    assert "alarm, among 100 maps of 1 sky" in str(found)
    smaller = replace(
        load_config(folder), data=replace(load_config(folder).data, min_mass_Msun=1e11)
    )
    with Run.open(smaller) as run:  # other maps are compared with those of the run's own prior
        assert run.watch(make=False)[0] is not None
    shutil.rmtree(other)
    for make in (False, True):
        watch, (problem,) = Run.open(folder).watch(make=make)
        assert watch is None and "there is no run" in problem and "--beside" in problem


def test_a_recalibration_is_no_disagreement(config: Config, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(config.run, tmp_path / "run"))
    other = Path(shutil.copytree(config.run, tmp_path / "other"))
    with Run.open(folder) as run:
        made, _ = run.watch(FEWEST_MAPS, beside=[other])
        cubes, trained = run.testing().generate(range(24)).cube, run.trained
        assert made is not None
        before = made.p_values(cubes)
    moved = Recalibration(
        trained.step, trained.weights_sha256, [0.0], [0.5], [0.1], [1.0], [1.0], [], 1, 1, [],
        "2026-11-29", "1",
    )  # fmt: skip
    for changed in (other, folder):
        moved.save(changed)
        with Run.open(folder) as run:
            watch, _ = run.watch(make=False)
            assert watch is not None
            assert watch.p_values(cubes).tolist() == before.tolist()


def test_an_alarm_of_another_checkpoint_is_told(config: Config, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(config.run, tmp_path / "run"))
    Run.open(folder).watch(FEWEST_MAPS)
    reference, about = Reference.load(folder / "alarm.npz")
    reference.save(folder / "alarm.npz", about | {"weights": "of another"})
    with Run.open(folder) as run:
        watch, (problem,) = run.watch(make=False)
        assert watch is None and "`streamtrain alarm " in problem


def test_an_alarm_of_a_linear_label_looks_at_the_outputs(tmp_path: Path) -> None:
    """phi has numbers of 1e-10: an alarm of them as they are was blind to the outputs, or none."""
    label = {"quantity": "phi", "scale": "linear", "bins": 14}
    made = runs.make_run(tmp_path, network=JOINT | {"head": "mse"}, label=label)
    with Run.open(made) as run:
        watch, problems = run.watch(FEWEST_MAPS)
        assert watch is not None and not problems
        outputs = watch.reference._arrays["output_axes"]
        assert outputs.shape[1] >= 2
        assert np.abs(outputs).max() < 1e3
    reference, about = Reference.load(Path(made.run) / "alarm.npz")
    reference.save(Path(made.run) / "alarm.npz", {k: about[k] for k in about if k != "outputs"})
    with Run.open(made) as run:
        assert run.watch(make=False)[0] is None  # one of before


def test_one_split_is_in_memory_at_a_time(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[weakref.ref[Generator]] = []
    with Run.open(Path(shutil.copytree(config.run, tmp_path / "run"))) as run:
        samples_of = run._samples_of

        def watched(split: str) -> Generator:
            assert all(earlier() is None for earlier in opened)
            generator = samples_of(split)
            opened.append(weakref.ref(generator))
            return generator

        monkeypatch.setattr(run, "_samples_of", watched)
        made, said = run.watch(FEWEST_MAPS, again=True)
    assert made is not None, said
    assert len(opened) == 2


def test_an_odd_number_of_maps_is_kept_too(config: Config, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(config.run, tmp_path / "run"))
    with Run.open(folder) as run:
        made, _ = run.watch(FEWEST_MAPS + 1)
    before = (folder / "alarm.npz").stat().st_mtime_ns
    with Run.open(folder) as run:
        watch, _ = run.watch(FEWEST_MAPS + 1)
    assert made is not None and watch is not None and len(watch.reference) == FEWEST_MAPS // 2
    assert (folder / "alarm.npz").stat().st_mtime_ns == before


def test_probes_scenarios_and_calibration_tell_the_alarm(
    config: Config, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from streamtrain.evaluate import baselines
    from streamtrain.evaluate.calibration import calibration

    monkeypatch.setattr(baselines, "MEAN_LABEL_SAMPLES", 16)
    folder = Path(config.run)
    Run.open(folder).watch(FEWEST_MAPS)
    words = ["evaluate", str(folder / "config.yaml"), "--device", "cpu"]
    assert main.main([*words, "--probes"]) == 0
    assert "    alarm: p < 0.05 in " in capsys.readouterr().out
    probes = json.loads((folder / "probes.json").read_text())["probes"]
    by_name = {probe["probe"]: probe["alarm"] for probe in probes}
    assert by_name["brightness x 2"]["0.05"] > by_name["unchanged"]["0.05"]
    monkeypatch.setattr(calibration, "FEWEST_DRAWS", 20)
    assert main.main([*words, "--calibration", "--draws", "40"]) == 0
    groups = json.loads((folder / "calibration.json").read_text())["groups"]
    assert "no alarm, p >= 0.05" in [group["group"] for group in groups]
    assert main.main(words) == 0
    capsys.readouterr()
    out = str(tmp_path / "compared")
    assert main.main(["compare", str(folder), "--no-predictions", "--out", out]) == 0
    told = capsys.readouterr().out.splitlines()
    (head,) = [k for k, line in enumerate(told) if line.startswith("Posteriors (evaluate --cali")]
    bins = json.loads((folder / "calibration.json").read_text())["statistics"][0]
    assert bins["name"] == "bins" and f" {bins['coverage_68']:.3f}+-" in told[head + 2]
    assert "alarm p < 0.05" in told[head + 1] and " % " in told[head + 2] + " "
    (tmp_path / "set").mkdir()
    brighter = {
        "line": {"model": "breysse15", "parameters": {"duty": 1.0}},
        "brightness": {"factor": 30.0},
    }
    scenario = {"emit": brighter, "observe": OBSERVE}
    (tmp_path / "set" / "bright.yaml").write_text(json.dumps(scenario))
    assert main.main([*words, "--scenarios", str(tmp_path / "set")]) == 0
    told = capsys.readouterr().out
    assert "alarm, among 100 maps of 1 sky that no training saw: share of maps" in told
    (row,) = json.loads((folder / "scenarios.json").read_text())["scenarios"]
    assert row["alarm"]["below_0.05"] == 1.0 and row["alarm"]["auroc"] > 0.95


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"observe": {"pool": {"factor": [3, 1, 1]}}}, "does not fit: observe: "),
        ({"label": {"bins": 12}}, "does not fit: label: bins = 14 in this run, 12 in "),
    ],
)
def test_networks_that_do_not_fit_are_refused(
    config: Config, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    other = runs.make_run(tmp_path / "o", network=JOINT, **changes)
    with Run.open(config.run) as run, pytest.raises(ValueError, match=message) as caught:
        run.watch(FEWEST_MAPS, beside=[other.run])
    assert "\n" not in str(caught.value)
