"""The oracle that knows the parameters: closed forms, and what is really painted."""

import numpy as np
import pytest
from scipy import stats
from support import small

from streamtrain.bins import Counts
from streamtrain.evaluate.bootstrap import Bootstrap
from streamtrain.evaluate.robustness.parameter_oracle import (
    OtherFields,
    few_skies,
    repaint,
    repaint_all,
    score_floor,
)
from streamtrain.evaluate.scores import deviance
from streamtrain.generator.generator import Generator

EDGES = np.linspace(3.5, 7.0, 50)
NUM = 1500
FACTORS = np.array([0.4, 1.0, 2.5])


def in_turn(counts, skies=16):
    """Fields that take turns with so many skies."""
    number, maps = counts.shape[:2]
    places = np.arange(number)[:, None] + number * np.arange(maps)
    return OtherFields(counts, places % skies)


def poisson_case(fields: int, seed: int = 10):
    """Rates that differ from map to map, their counts, counts on other fields, and the variance of
    log10 dN."""
    rng = np.random.default_rng(seed)
    kind, shape = rng.integers(0, 3, NUM), np.geomspace(300.0, 0.5, 49)
    rates = FACTORS[kind, None] * shape
    counts, others = rng.poisson(rates), rng.poisson(rates, (fields, NUM, 49))
    n = np.arange(1200)
    logs, variance = np.log10(np.maximum(n, 1)), np.empty((3, 49))
    for k, factor in enumerate(FACTORS):
        chances = stats.poisson.pmf(n, factor * shape[:, None])
        variance[k] = chances @ logs**2 - (chances @ logs) ** 2
    return rates, counts.astype(float), others.astype(float), variance[kind]


@pytest.mark.parametrize("fields", [3, 4])
def test_the_floor_of_poisson_counts_is_their_variance(fields):
    _, counts, others, variance = poisson_case(fields)
    true, seen = np.log10(np.maximum(counts, 1)), in_turn(others)
    result = score_floor(true, counts, counts > 0, seen, EDGES, Bootstrap.of_maps(NUM))
    assert result["mse"] == pytest.approx(variance.mean(), abs=4 * result["mse_error"])
    assert result["mse_error"] < 0.02 * result["mse"]
    # where no bin is empty, selecting occupied ones changes nothing
    faint = result["ranges"][0]
    assert faint["rms_dex"] == pytest.approx(
        np.sqrt(variance[:, :14].mean()), abs=4 * faint["rms_dex_error"]
    )


def test_the_selection_of_occupied_bins_leaves_no_bias():
    # half of the brightest bins are empty: the answer is E[(t - mu)^2] of those that are not
    rates, counts, others, _ = poisson_case(4)
    true, occupied = np.log10(np.maximum(counts, 1)), counts > 0
    n = np.arange(100)
    kinds, kind = np.unique(rates[:, -1], return_inverse=True)
    mean = (stats.poisson.pmf(n, kinds[:, None]) @ np.log10(np.maximum(n, 1)))[kind]
    squares = (true[:, -1] - mean) ** 2
    expected = np.sqrt(squares[occupied[:, -1]].mean())
    result = score_floor(
        true[:, -1:], counts[:, -1:], occupied[:, -1:], in_turn(others[:, :, -1:]),
        np.array([6.5, 7.0]), Bootstrap.of_maps(NUM),
    )  # fmt: skip
    found = result["ranges"][0]
    assert 0.2 < occupied[:, -1].mean() < 0.8
    assert found["rms_dex"] == pytest.approx(expected, abs=3 * found["rms_dex_error"])


def test_the_oracle_of_many_fields_has_the_deviance_of_the_true_rate():
    rates, counts, others, _ = poisson_case(40)
    true, seen = np.log10(np.maximum(counts, 1)), in_turn(others, 40)
    result = score_floor(true, counts, counts > 0, seen, EDGES, Bootstrap.of_maps(NUM))
    assert result["counts"]["whole"]["deviance"] == pytest.approx(
        deviance(rates, counts).mean(), rel=0.03
    )


def sky_case(rng, oracle, test, maps=40, offset=0.05, scatter=0.02):
    """log10 of counts so large that they are not discrete: a parameter of each map, an offset of
    each sky, a scatter of each field."""
    mean = rng.normal(5.0, 0.3, maps)
    skies = rng.normal(0.0, offset, oracle), rng.normal(0.0, offset, test)
    sky = np.arange(maps) % test
    true = mean + skies[1][sky] + rng.normal(0.0, scatter, maps)
    number = min(4, oracle)
    fields = in_turn(np.zeros((number, maps, 1)), oracle)
    logs = mean + skies[0][fields.sky] + rng.normal(0.0, scatter, (number, maps))
    over_skies = Bootstrap(sky, "lightcones", num_skies=test)
    seen = OtherFields(10.0 ** logs[..., None], fields.sky)
    counts = 10.0 ** true[:, None]
    return score_floor(
        true[:, None], counts, counts > 0, seen, np.array([3.5, 7.0]), over_skies
    )  # fmt: skip


@pytest.mark.parametrize(("oracle", "test"), [(4, 2), (16, 16), (6, 10), (2, 8)])
def test_skies_share_an_offset_and_the_floor_knows(oracle, test):
    """offset^2 + scatter^2 in closed form, without bias from few skies; the errors are the scatter
    of the floor over other skies."""
    rng = np.random.default_rng(3)
    made = [sky_case(rng, oracle, test) for _ in range(300)]
    found = np.array([one["mse"] for one in made])
    assert found.mean() == pytest.approx(0.05**2 + 0.02**2, abs=4 * found.std() / 300**0.5)
    if oracle < 3:
        assert made[0]["mse_error"] is None
        return
    error = np.sqrt(np.mean([one["mse_error"] ** 2 for one in made]))
    # of two test skies a bootstrap gives 1/sqrt(2) of the error; of ten sqrt(0.9)
    assert 0.65 * found.std() < error < 1.3 * found.std()


def test_few_skies_are_said():
    assert few_skies(16, 8) is None
    assert few_skies(4, 2).startswith("the floor rests on 4 training and 2 test skies: the offset")
    assert "its error is not known" in few_skies(2, 9) and "is not known" in few_skies(16, 1)


@pytest.fixture(scope="module")
def skies():
    return small.lightcone(1), small.lightcone(2)


MIXTURE = {
    "line": {"mixture": {"li16": {"prior": "narrow"}, "breysse15": {"prior": "published"}}},
    "dim": {"above_log10_L": 5.0, "factor": 0.5, "probability": 0.5},
    "brightness": {"factor": {"uniform": [0.5, 2.0]}},
}


@small.EXTRAPOLATES
@pytest.mark.parametrize("threads", [1, 3])
def test_a_sample_painted_on_its_own_field_is_itself(skies, threads):
    generator = Generator(small.config(emit=MIXTURE), split="test", lightcones=skies[:1])
    indices = [3, 4, 11, 12, 13]
    batch = generator.generate(indices)
    assert {draw["model"] for draw in batch.draws} == {"li16", "breysse15"}
    again = repaint(generator, generator, indices, indices, threads)
    found = generator.label.of_counts(again.bins, again.above)
    assert (found == batch.counts.numpy()).all()


@small.EXTRAPOLATES
def test_other_fields_keep_the_parameters_alone(skies):
    """Brightness by a factor of 10^5 in some samples: they, and only they, lie in other bins."""
    emit = {"line": {"model": "li16"}, "brightness": {"factor": 1000.0, "probability": 0.5}}
    config = small.config(emit=emit)
    generator = Generator(config, split="test", lightcones=skies[:1])
    other = Generator(config, split="train", lightcones=skies[1:])
    batch = generator.generate(range(12))
    fields = repaint_all(generator, other, 12).counts
    assert fields.shape == (4, 12, 49)
    bright = np.array([draw["brightness"]["factor"] > 1 for draw in batch.draws])
    assert 0 < bright.sum() < 12
    highest = fields[:, :, 30:].sum(axis=(0, 2))
    assert highest[bright].min() > 10 * highest[~bright].max()
    same = [(fields[k] == batch.counts.numpy()).all() for k in range(4)]
    assert not any(same)
    assert not (fields[0] == fields[1]).all()


def test_functions_N_above_L_add_up_from_above(skies):
    for overflow, more in ((True, 5), (False, 0)):
        label = {"quantity": "cumulative", "bins": 3, "overflow": overflow}
        generator = Generator(small.config(label=label), split="test", lightcones=skies[:1])
        raw = Counts(np.array([[4, 2, 1, 5, 7, 0]], np.int32))
        found = generator.label.of_counts(raw.bins, raw.above)
        assert found.tolist() == [[7 + more, 3 + more, 1 + more]]


@pytest.mark.parametrize("scatter", [True, False])
def test_every_field_has_a_scatter_of_its_own(skies, scatter):
    """One field fills the sky, so only the scatter of luminosities is left."""
    config = small.config(
        grid=small.GRID | {"fov_deg": [1.2, 1.2]},
        data={"roll": "none", "mirror": False},
        emit={"line": {"model": "li16", "scatter": scatter}},
    )
    generator = Generator(config, split="test", lightcones=skies[:1])
    other = Generator(config, split="train", lightcones=skies[1:])
    fields = repaint_all(generator, other, 2).counts
    same = [(fields[k] == fields[k + 1]).all() for k in range(3)]
    assert same == [not scatter] * 3
    assert (fields[:, 0] == fields[:, 1]).all() == (not scatter)


@small.EXTRAPOLATES
@pytest.mark.parametrize("data", [{}, {"active": 2, "active_samples": 4}])
def test_fields_of_a_sample_are_of_different_skies_which_take_turns(data):
    """Also where two of five skies are in use at a time. Skies have halos by their number."""
    cones = [small.lightcone(seed, num=1000 * seed) for seed in range(1, 6)]
    wide = {"fov_deg": [1.2, 1.2]}
    data = data | {"roll": "none", "mirror": False}
    config = small.config(grid=small.GRID | wide, data=data, label={"log10_L": [0.0, 9.0]})
    generator = Generator(config, split="test", lightcones=[small.lightcone(9)])
    other = Generator(config, split="train", lightcones=cones)
    told = []
    fields = repaint_all(generator, other, 10, report=told.append)
    other.close()
    assert told[-1] == 10
    assert fields.sky.shape == (4, 10)
    assert all(len(set(column)) == 4 for column in fields.sky.T.tolist())
    assert np.bincount(fields.sky.ravel()).tolist() == [8] * 5
    halos = fields.counts.sum(axis=2)
    own = np.array([halos[fields.sky == sky].mean() for sky in range(5)])
    spread = np.array([np.ptp(halos[fields.sky == sky]) for sky in range(5)])
    assert (spread < 20).all()
    assert np.diff(np.sort(own)).min() > 300
