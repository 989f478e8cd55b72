"""Several luminosity models in one run, and what a configuration may ask of their draws."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import small

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.config import ConfigError, load_config
from streamtrain.generator.generator import Generator
from streamtrain.luminosity.mixture import Component
from streamtrain.luminosity.registry import MODELS, user_model
from streamtrain.luminosity.settings import LineConfig
from streamtrain.priors import DistributionConfig

MIXTURE: dict[str, Any] = {
    "li16": {"prior": "narrow", "weight": 2},
    "power_law": {"model": "breysse15", "parameters": {"b": 0.95, "duty": 1.0}},
    "yang22_co10": {},
}


def generator(sky: Lightcone, threads: int = 1, **line: Any) -> Generator:
    return Generator(small.config(emit={"line": line}), lightcones=[sky], threads=threads)


def test_weights_decide_how_often_a_model_is_drawn(small_sky: Lightcone) -> None:
    number = 4000
    records = generator(small_sky, mixture=MIXTURE).draw(range(number)).records
    found = Counter(record["model"] for record in records)
    for name, share in (("li16", 0.5), ("power_law", 0.25), ("yang22_co10", 0.25)):
        error = np.sqrt(share * (1 - share) / number)
        assert found[name] / number == pytest.approx(share, abs=4 * error)
    assert {r["parameters"]["b"] for r in records if r["model"] == "power_law"} == {0.95}
    alphas = [r["parameters"]["alpha"] for r in records if r["model"] == "li16"]
    assert len(set(alphas)) == len(alphas)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_sample_has_the_bits_of_its_model_alone(small_sky: Lightcone, threads: int) -> None:
    """Whatever stands beside it in the batch."""
    indices = [*range(12), 10**12]
    mixed = generator(small_sky, threads, mixture=MIXTURE).generate(indices)
    alone = {
        name: generator(
            small_sky, **{"model": name} | {k: given[k] for k in given if k != "weight"}
        )
        for name, given in MIXTURE.items()
    }
    models = [record["model"] for record in mixed.draws]
    assert set(models) == set(MIXTURE)
    for index, model, digest in zip(indices, models, mixed.digests(), strict=True):
        assert alone[model].generate([index]).digests() == [digest]


def test_breysse15_whose_halos_all_shine_is_the_plain_power_law(
    small_sky: Lightcone, tmp_path: Path
) -> None:
    """Bit for bit: what configs/pfeffer2019 paints with `duty: 1`."""
    file = tmp_path / "plain.py"
    file.write_text(
        "from streamtrain.priors import Normal\n"
        "def line(mass_Msun, z, *, A=2e-6, b=1.0):\n    return A * mass_Msun**b\n"
        "line.prior = {'A': Normal(2e-6, 5e-7, low=0.0), 'b': Normal(1.0, 0.125)}\n"
    )
    plain = generator(small_sky, model=f"{file}:line", prior="own")
    names = ("combined_base", "combined_random", "scenarios/09_breysse15")
    lines = [load_config(f"configs/pfeffer2019/{name}.yaml").line for name in names]
    used = [line.components["breysse15"].parameters for line in lines]
    assert used == [{"duty": 1.0}] * 3
    whole = generator(small_sky, model="breysse15", prior="published", parameters=used[1])
    assert whole.generate(range(12)).digests() == plain.generate(range(12)).digests()


def test_the_order_of_a_batch_does_not_matter(small_sky: Lightcone) -> None:
    made = generator(small_sky, mixture=MIXTURE)
    there, back = made.generate([5, 9, 2, 7]), made.generate([7, 2, 9, 5])
    assert there.digests() == back.digests()[::-1]


def test_the_class_of_the_model_as_label(small_sky: Lightcone) -> None:
    config = small.config(emit={"line": {"mixture": MIXTURE}}, label={"quantity": "class"})
    made = Generator(config, lightcones=[small_sky])
    assert made.classes == list(MIXTURE) and made.num_outputs == 3
    batch = made.generate(range(12))
    expected = np.eye(3)[[made.classes.index(record["model"]) for record in batch.draws]]
    np.testing.assert_array_equal(batch.label.numpy(), expected)
    functions = generator(small_sky, mixture=MIXTURE).generate(range(12))
    assert batch.digests() == functions.digests()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ({"mixture": MIXTURE, "model": "chung22"}, "emit.line.model stands beside"),
        ({"mixture": {"li17": {}}}, "unknown luminosity model 'li17': did you mean 'li16'?"),
        ({"mixture": {"li16": {"weight": 0}}}, "emit.line.mixture.li16.weight = 0 must be above 0"),
        (
            {"mixture": {"li16": {"parameters": {"alpha": {"uniform": [2, 1]}}}}},
            "emit.line.mixture.li16.parameters.alpha.uniform = [2, 1] must increase",
        ),
        ({"require": {"mean_uK": [2, 1]}}, "emit.line.require.mean_uK = [2.0, 1.0] must increase"),
        ({"constraints": ["alpha ~ 1"]}, "is not a comparison"),
        ({"constraints": ["alpha < bta"]}, "did you mean 'beta'?"),
        (
            {"multivariate": {"names": ["alpha"], "mean": [1], "covariance": [[1, 0]]}},
            "covariance must have 1 rows of 1 entries",
        ),
        (
            {"multivariate": {"names": ["alpha", "beta"], "mean": [1], "covariance": []}},
            "mean has 1 entries for 2 names",
        ),
        (
            {
                "multivariate": {
                    "names": ["alpha", "beta"],
                    "mean": [1, 2],
                    "covariance": [[1, 2], [2, 1]],
                }
            },
            "the covariance of alpha, beta is not positive",
        ),
        (
            {
                "multivariate": {
                    "names": ["alpha", "beta"],
                    "mean": [1, 2],
                    "covariance": [[1, 0.5], [0.4, 1]],
                }
            },
            "covariance must be symmetric",
        ),
        (
            {"multivariate": {"names": ["gamma"], "mean": [1], "covariance": [[1]]}},
            "the model li16 has no parameter 'gamma'",
        ),
    ],
)
def test_refusals(small_sky: Lightcone, line: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError) as error:
        generator(small_sky, **line)
    assert expected in str(error.value)
    assert isinstance(error.value, ConfigError) or "not positive" in expected


def drawn(sky: Lightcone, number: int, **line: Any) -> dict[str, np.ndarray]:
    records = [r["parameters"] for r in generator(sky, **line).draw(range(number)).records]
    return {name: np.array([r[name] for r in records]) for name in records[0]}


def test_multivariate_normal_of_ones_own(small_sky: Lightcone) -> None:
    """Mean and covariance; it takes its parameters out of the published prior."""
    mean, covariance = np.array([1.4, -1.7]), np.array([[0.0016, -0.003], [-0.003, 0.01]])
    joint = {"names": ["alpha", "beta"], "mean": mean.tolist(), "covariance": covariance.tolist()}
    number = 4000
    found = drawn(small_sky, number, prior="narrow", multivariate=joint)
    pair = np.array([found["alpha"], found["beta"]])
    assert np.abs(pair.mean(axis=1) - mean).max() < 4 * np.sqrt(0.01 / number)
    errors = np.sqrt((np.outer(np.diag(covariance), np.diag(covariance)) + covariance**2) / number)
    assert np.all(np.abs(np.cov(pair) - covariance) < 4 * errors)
    assert found["log10_delta_mf"].std() == pytest.approx(0.03, rel=4 / np.sqrt(2 * number))


def test_constraints_of_ones_own(small_sky: Lightcone) -> None:
    parameters = {"A": {"uniform": [-3, 0]}, "B": {"uniform": [-2, 1]}}
    given = {"model": "chung22", "parameters": parameters}
    found = drawn(small_sky, 300, **given, constraints=["A < B", "-1.5 <= A <= -0.5"])
    assert np.all(found["A"] < found["B"])
    assert -1.5 <= found["A"].min() < -1.4 and -0.6 < found["A"].max() <= -0.5
    free = drawn(small_sky, 300, **given)
    assert np.any(free["A"] > free["B"])


@small.EXTRAPOLATES
@pytest.mark.parametrize(
    "name", ["li16", "chung22", "padmanabhan18", "breysse15", "yang22_co10", "pullen13"]
)
def test_expectation_is_that_of_the_painted_maps(small_sky: Lightcone, name: str) -> None:
    """Mean of the map and halos per luminosity, against 40 fields painted; 5 % and the fields'
    own scatter."""
    made = generator(small_sky, model=name)
    indices = range(40)
    batch = made.generate(indices)
    arguments = made.draw(indices).arguments
    counts = made.painter.paint(arguments, 0, len(arguments))[1].numpy().astype(float)
    defaults = {n: np.array([v]) for n, v in MODELS[name].defaults.items()}
    expected = made.painter.compiled_models[0].expect(defaults)
    for value, painted in (
        (expected.mean, batch.cube.mean(dim=(1, 2, 3)).numpy()),
        (expected.inside, counts[:, :49].sum(axis=1)),
        (expected.above, counts[:, 49]),
        (expected.below, counts[:, 50]),
    ):
        error = 4 * painted.std() / np.sqrt(len(painted)) + 0.02
        assert float(value[0]) == pytest.approx(painted.mean(), rel=0.05, abs=error)


def test_a_draw_can_be_required_to_make_a_visible_map(small_sky: Lightcone) -> None:
    wide = {"model": "li16", "prior": "wide"}
    require = {"mean_uK": [0.01, 0.1], "halos": [500, 1e9]}
    free, bound = generator(small_sky, **wide), generator(small_sky, **wide, require=require)
    means = bound.generate(range(60)).cube.mean(dim=(1, 2, 3)).numpy()
    assert means.min() > 0.007 and means.max() < 0.15
    without = free.generate(range(60))
    mean = without.cube.mean(dim=(1, 2, 3)).numpy()
    number = without.counts.sum(dim=1).numpy()
    allowed = (mean > 0.01) & (mean < 0.1) & (number > 500)
    assert 0.05 < allowed.mean() < 0.8
    for index in np.flatnonzero(allowed)[:5]:  # a draw that is accepted stays what it was
        first = without.draws[index]["parameters"]
        assert bound.draw([int(index)]).records[0]["parameters"] == first
    assert bound.generate([37]).digests() == [bound.generate(range(60)).digests()[37]]


def test_an_impossible_requirement_is_an_error(
    small_sky: Lightcone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamtrain.priors.MAX_ATTEMPTS", 5)
    made = generator(small_sky, prior="narrow", require={"mean_uK": [1e5, 1e6]})
    with pytest.raises(ValueError, match="no draw in 5 attempts satisfies"):
        made.generate([0])


def test_what_is_said_at_the_start(small_sky: Lightcone) -> None:
    lines = generator(small_sky, mixture=MIXTURE).describe().splitlines()
    assert len(lines) == 4
    assert lines[1].startswith("li16: prior 'narrow', 50 % of the samples, 100 % of its draws")
    assert "power_law: prior 'fiducial', 25 % of the samples" in lines[2]
    assert all("warning" not in line for line in lines)  # too faint is no fault
    emit = {"line": {"model": "breysse15", "parameters": {"duty": 1.0}}}
    label = {"log10_L": [1.0, 3.0]}
    low = Generator(small.config(emit=emit, label=label), lightcones=[small_sky])
    assert "more than 5 % are outside the label" in low.describe()
    inside = generator(small_sky, model="breysse15", parameters={"duty": 1.0}).describe()
    assert "0.0 % of the halos are fainter" in inside and "warning" not in inside


def test_a_negative_scatter_is_drawn_again(small_sky: Lightcone) -> None:
    """Also where a distribution of one's own has lost the published bound."""
    given = {"model": "chung22", "parameters": {"sigma": {"normal": [0.4, 0.3]}}}
    found = drawn(small_sky, 400, **given)
    assert 0 <= found["sigma"].min() < 0.05


@pytest.mark.parametrize(
    "line",
    [
        {"model": "li16", "require": {"mean_uK": [100, 200]}},
        {"model": "chung22", "constraints": ["A > B"]},
        {"mixture": {"li16": {"prior": "narrow"}, "dark": {"model": "breysse15",
         "parameters": {"A": 1e-12}}}, "require": {"halos": [100, 1e9]}},
    ],
)  # fmt: skip
def test_held_parameters_must_do_what_is_asked(small_sky: Lightcone, line: Any) -> None:
    with pytest.raises(ConfigError, match=r"no parameter of .* is drawn, and those it has break"):
        generator(small_sky, **line)


def test_too_many_parameters_are_refused(small_sky: Lightcone) -> None:
    names = [f"p{k}" for k in range(33)]
    scope: dict[str, Any] = {}
    arguments = ", ".join(f"{name}=1.0" for name in names)
    exec(f"def mine(mass_Msun, z, *, {arguments}): return p0 * mass_Msun", scope)
    line = LineConfig(model="m", mixture={}, parameters={n: _uniform() for n in names})
    component = line.components["m"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "streamtrain.luminosity.mixture.find_model", lambda _: user_model(scope["mine"])
        )
        with pytest.raises(ConfigError, match="has more than 32 parameters"):
            Component.from_config("m", component)


def _uniform() -> DistributionConfig:
    return DistributionConfig(uniform=(0.5, 1.5))


def test_identity_holds_defaults_and_prior(
    small_sky: Lightcone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An edited model file is noticed, whatever was edited in it, and where Python keeps
    bytecode."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = tmp_path / "mine.py"
    found = set()
    for default, width in (("1e-6", "1e-7"), ("2e-6", "1e-7"), ("1e-6", "2e-7")):
        file.write_text(
            f"def my_line(mass_Msun, z, *, A={default}):\n    return A * mass_Msun\n"
            f"my_line.prior = {{'A': (1e-6, {width})}}\n"
        )
        made = generator(small_sky, model=f"{file}:my_line", prior="own")
        found.add(made.identity()["model"])
    assert len(found) == 3
