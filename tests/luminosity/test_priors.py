"""Distributions of a parameter that a configuration gives itself."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support import reference as ref
from support import small

from streamtrain import priors
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.config import ConfigError, from_mapping
from streamtrain.generator.generator import Generator
from streamtrain.numerics.rng import STAGE_MODEL, Draws
from streamtrain.priors import Normal, Prior, Sometimes, Uniform
from streamtrain.schema import AssumptionWarning, to_dict
from streamtrain.yamltext import parse_yaml

NUM = 4000


def drawn(sky: Lightcone, name: str, given: Any, **line: Any) -> NDArray[np.float64]:
    """4000 draws of a parameter of li16."""
    line = {"model": "li16", "parameters": {name: given}, **line}
    generator = Generator(small.config(emit={"line": line}), lightcones=[sky])
    draws = Draws(3, "train", np.arange(NUM, dtype=np.uint64), STAGE_MODEL)
    (component,) = generator.mixture.components
    accept = generator.painter.compiled_models[0].fits
    values = component.prior.draw(draws, component.model.defaults, accept)
    return values[name]


def test_uniform(small_sky: Lightcone) -> None:
    values = drawn(small_sky, "alpha", {"uniform": [1.2, 1.6]})
    assert values.min() > 1.2 and values.max() < 1.6
    assert values.mean() == pytest.approx(1.4, abs=4 * 0.4 / np.sqrt(12 * NUM))
    assert values.std() == pytest.approx(0.4 / np.sqrt(12), rel=4 / np.sqrt(2 * NUM))


def test_log_uniform(small_sky: Lightcone) -> None:
    values = np.log(drawn(small_sky, "sigma_sfr", {"log_uniform": [0.05, 0.5]}))
    width = np.log(10)
    assert np.log(0.05) < values.min() and values.max() < np.log(0.5)
    assert values.mean() == pytest.approx(
        np.log(0.05) + width / 2, abs=4 * width / np.sqrt(12 * NUM)
    )


def test_truncated_normal_inside_a_published_prior(small_sky: Lightcone) -> None:
    given = {"normal": [1.4, 0.1], "low": 1.4}
    values = drawn(small_sky, "alpha", given, prior="narrow")
    assert values.min() > 1.4
    half_normal = 0.1 * np.sqrt(2 / np.pi)
    assert values.mean() == pytest.approx(1.4 + half_normal, abs=4 * 0.1 / np.sqrt(NUM))
    others = drawn(small_sky, "beta", -1.7, prior="narrow")
    assert np.unique(others).tolist() == [-1.7]


def test_prior_scale_narrows_about_the_middle(small_sky: Lightcone) -> None:
    values = drawn(small_sky, "alpha", {"uniform": [1.2, 1.6]}, prior_scale=0.5)
    assert values.min() == pytest.approx(1.3, abs=1e-3)
    assert values.max() == pytest.approx(1.5, abs=1e-3)


def test_one_distribution_replaces_one_parameter_of_a_joint_prior(small_sky: Lightcone) -> None:
    line = {
        "model": "chung22",
        "prior": "correlated",
        "parameters": {"log10_C": {"uniform": [10, 10.1]}},
    }
    generator = Generator(small.config(emit={"line": line}), lightcones=[small_sky])
    values = [d["parameters"] for d in generator.generate(range(50)).draws]
    assert all(10 < v["log10_C"] < 10.1 for v in values)
    assert np.std([v["A"] for v in values]) > 0.5


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "must be a number, or one of normal, uniform, log_uniform"),
        (
            {"normal": [0, 1], "uniform": [0, 1]},
            "alpha has normal, uniform: remove all but one of them, emit.line.parameters.alpha."
            "normal=null, emit.line.parameters.alpha.uniform=null",
        ),
        ({"uniform": [2, 1]}, "emit.line.parameters.alpha.uniform = [2, 1] must increase"),
        ({"normal": [1, -1]}, "the width is negative"),
        ({"uniform": [1, 2], "low": 1}, "low and high belong to normal"),
        ({"log_uniform": [-1, 2]}, "must be above 0"),
        ({"gauss": [1, 2]}, "unknown setting"),
        ({"sometimes": [0.5, 1.0]}, "one of normal, uniform, log_uniform, beside sometimes"),
        ({"uniform": [1, 2], "sometimes": [1.5, 1.0]}, "is a probability between 0 and 1"),
        ({"uniform": [1, 2], "sometimes": [0.5]}, "alpha.sometimes must have 2 entries, not 1"),
        ({"uniform": [2, 1], "sometimes": [0.5, 1.0]}, "uniform = [2, 1] must increase"),
    ],
)
def test_refusals(given: Any, expected: str) -> None:
    with pytest.raises(ConfigError) as error:
        small.config(emit={"line": {"model": "li16", "parameters": {"alpha": given}}})
    assert expected in str(error.value)


def test_acceptance_is_said_at_the_start(small_sky: Lightcone) -> None:
    """Half of a normal lies above its mean; a prior without bounds is accepted whole."""
    for given, expected in (
        ({"normal": [1.4, 0.1], "low": 1.4}, 50),
        ({"normal": [1.4, 0.01]}, 100),
    ):
        line = {"model": "li16", "parameters": {"alpha": given}}
        generator = Generator(small.config(emit={"line": line}), lightcones=[small_sky])
        text = generator.describe()
        percent = int(text.rsplit("% of its draws accepted")[0].split()[-1])
        assert percent == pytest.approx(
            expected, abs=4 * 50 / np.sqrt(512) if expected < 100 else 0
        )
        inside = generator.grid.channel(small_sky.z_obs) >= 0
        heavy = small_sky.mass_Msun.astype(float) > 2.5e10
        assert f"1 lightcones of 1 skies, {(inside & heavy).sum()} halos in the band" in text


def on_the_sky(dec_deg: float, half_deg: float, per_deg2: float, seed: int) -> Lightcone:
    """Halos as of `small.lightcone`, so many per deg^2, about a declination."""
    rng, whole = np.random.default_rng(seed), small.lightcone(seed)
    low, high = (np.sin(np.radians(dec_deg + s * half_deg)) for s in (-1, 1))
    half_ra = half_deg / np.cos(np.radians(dec_deg))
    num = round(per_deg2 * 2 * half_ra * np.degrees(high - low))
    dec = np.degrees(np.arcsin(rng.uniform(low, high, num)))
    chi = np.sqrt(sum(getattr(whole, f"{a}_Mpc").astype(float) ** 2 for a in "xyz"))[:num]
    x, y, z = ref.position(rng.uniform(-half_ra, half_ra, num), dec, chi)
    return small.lightcone(
        seed, num, x_Mpc=x, y_Mpc=y, z_Mpc=z, mass_Msun=whole.mass_Msun[:num],
        z_obs=whole.z_obs[:num], realisation=f"{dec_deg} {seed}",
        footprint_deg=(-half_ra, half_ra, dec_deg - half_deg, dec_deg + half_deg),
    )  # fmt: skip


@pytest.mark.parametrize("where", [((55.0, 0.6, 8000),), ((0.0, 0.6, 4000), (0.0, 0.3, 12000))])
def test_fields_hold_what_is_expected_of_footprints(where: Any) -> None:
    """Far from the equator, and of several sizes; what `require` counts instead is said."""
    cones = [on_the_sky(*place, seed) for seed, place in enumerate(where)]
    line = {"model": "li16", "require": {"halos": [1, 1e6]}}
    config = small.config(grid={**small.GRID, "fov_deg": [0.4, 0.4]}, emit={"line": line})
    with pytest.warns(AssumptionWarning, match="require expects 0.*the halos and the light that"):
        generator = Generator(config, lightcones=cones)
    counts = generator.generate(range(300)).counts.double().sum(1)
    compiled = generator.painter.compiled_models[0]
    given = {name: np.array([value]) for name, value in compiled.model.defaults.items()}
    found = compiled.expected_counts(given)[0, :-1].sum()
    error = float(counts.std()) / np.sqrt(300)
    assert abs(found - float(counts.mean())) < 4.0 * error + 0.02 * found
    before = float(compiled.expect(given).inside[0])
    assert before == pytest.approx(compiled.expected_over_true * found, rel=0.03)
    assert before < 0.9 * found


def test_models_of_users_may_import_from_the_former_place() -> None:
    """docs/models.md had `from streamtrain.generator.priors import Uniform`: such files are kept by
    runs, and are opened with them."""
    from streamtrain.generator import priors as first
    from streamtrain.luminosity import priors as second

    for former in (first, second):
        assert former.Uniform is priors.Uniform and former.Normal is priors.Normal


# A value with a probability of its own.


@pytest.mark.parametrize(
    "given",
    [
        {"uniform": [1.2, 1.6]},
        {"log_uniform": [1.2, 1.6]},
        {"normal": [1.4, 0.1], "low": 1.2, "high": 1.6},
    ],
)
def test_sometimes_a_value_and_else_the_distribution(small_sky: Lightcone, given: Any) -> None:
    """The value may lie outside the distribution; what is drawn is what is drawn without it."""
    plain = drawn(small_sky, "alpha", given)
    values = drawn(small_sky, "alpha", given | {"sometimes": [0.3, 1.7]})
    exactly = values == 1.7
    assert exactly.mean() == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / NUM))
    if "normal" in given:  # a refused attempt is drawn again, and may be the value then
        assert values[~exactly].min() > 1.2 and values[~exactly].max() < 1.6
    else:
        np.testing.assert_array_equal(values[~exactly], plain[~exactly])
    shares = np.diff(np.searchsorted(np.sort(plain[exactly]), np.quantile(plain, [0, 0.5, 1])))
    assert shares[0] == pytest.approx(exactly.sum() / 2, abs=4 * np.sqrt(exactly.sum() / 4))


def test_sometimes_is_a_function_of_the_index_and_leaves_the_others_alone() -> None:
    defaults = {"a": 0.0, "b": 0.0}
    first: dict[str, Any] = {"a": Uniform(0.0, 1.0), "b": Normal(0.0, 1.0, low=-0.5)}
    some = {"a": Sometimes(0.5, -1.0, Uniform(0.0, 1.0)), "b": first["b"]}
    draws = Draws(1, "train", np.arange(500, dtype=np.uint64), STAGE_MODEL)
    plain, values = Prior(first).draw(draws, defaults), Prior(some).draw(draws, defaults)
    np.testing.assert_array_equal(plain["b"], values["b"])
    for k in (3, 77, 499):
        alone = Prior(some).draw(draws.take(np.array([k])), defaults)
        assert (alone["a"][0], alone["b"][0]) == (values["a"][k], values["b"][k])


def test_two_values_are_independent() -> None:
    coin = Sometimes(0.5, -1.0, Uniform(0.0, 1.0))
    prior = Prior({"a": coin, "b": coin}, constraint=lambda p: p["a"] < 0.9)
    draws = Draws(1, "train", np.arange(NUM, dtype=np.uint64), STAGE_MODEL)
    values = prior.draw(draws, {"a": 0.0, "b": 0.0})
    a, b = values["a"] == -1.0, values["b"] == -1.0
    assert np.corrcoef(a, b)[0, 1] == pytest.approx(0.0, abs=4 / np.sqrt(NUM))
    assert np.unique(values["a"][~a]).size == (~a).sum()
    assert not np.intersect1d(values["a"][~a], values["b"][~b]).size


def test_prior_scale_leaves_value_and_probability() -> None:
    prior = Prior({"a": Sometimes(0.5, -1.0, Uniform(0.0, 1.0))}, scale=0.5)
    draws = Draws(1, "train", np.arange(NUM, dtype=np.uint64), STAGE_MODEL)
    values = prior.draw(draws, {"a": 0.0})["a"]
    assert (values == -1.0).mean() == pytest.approx(0.5, abs=4 * np.sqrt(0.25 / NUM))
    others = values[values != -1.0]
    assert 0.25 < others.min() < 0.26 and 0.74 < others.max() < 0.75


def test_sometimes_in_a_configuration_is_read_back(small_sky: Lightcone) -> None:
    """And one without it is written as it was before there was such a thing."""
    given: dict[str, Any] = {"uniform": [1.2, 1.6], "sometimes": [0.3, 1.7]}
    line = {"model": "li16", "parameters": {"alpha": given, "beta": {"uniform": [-2, -1]}}}
    config = small.config(emit={"line": line})
    assert from_mapping(parse_yaml(config.to_yaml(), "it")) == config
    plain = to_dict(config.line.parameters["beta"])
    assert list(plain) == ["normal", "uniform", "log_uniform", "low", "high"]
    drawn = Generator(config, lightcones=[small_sky]).draw(range(64)).records
    exactly = [record["parameters"]["alpha"] == 1.7 for record in drawn]
    assert 6 < sum(exactly) < 36


@pytest.mark.parametrize("probability", [0.0, 1.0, -0.1, np.nan])
def test_a_probability_is_between_none_and_all(probability: float) -> None:
    with pytest.raises(ValueError, match=r"between 0 and 1|must be finite"):
        Sometimes(probability, 0.0, Uniform(0.0, 1.0))
    with pytest.raises(ValueError, match="must be a Normal or a Uniform"):
        Sometimes(0.5, 0.0, priors.Fixed(1.0))  # type: ignore[arg-type]


@small.EXTRAPOLATES
def test_a_cube_without_room_is_named(small_sky: Lightcone) -> None:
    """L = A M of up to 1e13 Msun is too bright above some A. The line at the start says so, and so
    does the error where no draw is left; the setting that it names lets all draws in."""

    def opened(low: float, high: float, **grid: float) -> Generator:
        line = {"model": "keating16", "parameters": {"A": {"log_uniform": [low, high]}}}
        return Generator(
            small.config(grid={**small.GRID, **grid}, emit={"line": line}), lightcones=[small_sky]
        )

    def shares(text: str) -> tuple[int, int]:
        found = re.search(
            r"(\d+) % of its draws accepted(?: \((\d+) % have halos too bright)?", text
        )
        assert found is not None
        return int(found[1]), int(found[2] or 0)

    text = opened(1e-6, 10).describe()
    accepted, bright = shares(text)
    assert accepted + bright == pytest.approx(100, abs=1) and bright > 20
    assert "grid.brightest_Lsun makes room for more than 1e+09 Lsun" in text
    assert shares(opened(1e-6, 10, brightest_Lsun=1e15).describe()) == (100, 0)
    with pytest.raises(ConfigError, match=r"in 1000 attempts .*: grid\.brightest_Lsun makes room"):
        opened(1, 10).describe()
    with pytest.raises(ConfigError, match=r"grid\.brightest_Lsun makes room for more than 2e\+09"):
        opened(1, 10, brightest_Lsun=2e9).generate([0])
    assert opened(1, 10, brightest_Lsun=1e15).generate([0]).cube.mean() > 0
