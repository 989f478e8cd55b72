"""Luminosity models against the papers' formulas, scatter, priors, and models from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference as ref

from streamtrain.generator.luminosity import MODELS, find_model, user_model
from streamtrain.generator.priors import Normal, Prior
from streamtrain.rng import STAGE_MODEL, Draws
from streamtrain.schema import ConfigError

MASS = np.array([3e10, 1e12, 2e13])
Z = np.array([[2.5], [3.2]])


def evaluate(name: str, nu_rest_GHz: float = 115.27, **parameters: float) -> np.ndarray:
    """L of MASS x Z [2, 3] by the package's plain NumPy function."""
    function = MODELS[name].function
    extra: dict[str, Any] = {} if name == "breysse15" else {"nu_rest_GHz": nu_rest_GHz}
    if name == "li16":
        extra["sfr"] = ref.sfr_fit(MASS, Z)
    return function(MASS, Z, **extra, **parameters)


@pytest.mark.parametrize("name", list(MODELS))
def test_fiducial_models_are_the_papers(name: str) -> None:
    expected = getattr(ref, name)(MASS, Z)
    np.testing.assert_allclose(evaluate(name) + 0 * Z, expected + 0 * Z, rtol=1e-13)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("li16", {"log10_delta_mf": 0.3, "alpha": 1.1, "beta": 0.2}),
        ("chung22", {"A": -3.7, "B": 7.0, "log10_C": 11.1, "log10_Mstar": 12.5}),
        ("padmanabhan18", {"m10": 2e12, "m11": -2, "n10": 0.001, "n11": 0.01, "b10": 1.2,
                           "b11": 0.1, "y10": 0.3, "y11": 0.2}),
        ("breysse15", {"A": 1e-6, "b": 1.1}),
    ],
)  # fmt: skip
def test_parameters_mean_what_the_papers_say(name: str, parameters: dict[str, float]) -> None:
    expected = getattr(ref, name)(MASS, Z, **parameters)
    np.testing.assert_allclose(evaluate(name, **parameters) + 0 * Z, expected + 0 * Z, rtol=1e-13)
    assert set(parameters) <= set(MODELS[name].defaults)


def test_values_worked_out_by_hand() -> None:
    """One halo of 1e12 Msun at z = 3 (t = 3/4) per model, from the published numbers."""
    chung = MODELS["chung22"].function(1e12, 3.0, nu_rest_GHz=115.27)
    ratio = 10 ** (12 - 12.3)
    assert chung == pytest.approx(4.9e-5 * 10**10.63 / (ratio**-2.85 + ratio**-0.42), rel=1e-12)
    padmanabhan = MODELS["padmanabhan18"].function(1e12, 3.0, nu_rest_GHz=115.27)
    m1, n, b, y = 4.17e12 * 10 ** (-1.17 * 0.75), 0.0033 + 0.03, 0.95 + 0.36, 0.66 - 0.2475
    shape = (1e12 / m1) ** -b + (1e12 / m1) ** y
    assert padmanabhan == pytest.approx(4.9e-5 * 2 * n * 1e12 / shape, rel=1e-12)
    li = MODELS["li16"].function(1e12, 3.0, sfr=100.0, nu_rest_GHz=115.27)
    assert li == pytest.approx(4.9e-5 * 10 ** ((12 + 1.74) / 1.37), rel=1e-12)
    assert MODELS["breysse15"].function(1e12, 3.0) == pytest.approx(2e6)


@pytest.mark.parametrize("name", ["li16", "chung22", "padmanabhan18"])
def test_luminosity_grows_with_the_cube_of_the_rest_frequency(name: str) -> None:
    np.testing.assert_allclose(evaluate(name, 230.54) / evaluate(name), 8.0, rtol=1e-12)


# Scatter.


def log_normal(name: str, **parameters: float) -> tuple[float, float]:
    """(sigma, mu) of ln L at the fiducial parameters or those given."""
    model = MODELS[name]
    assert model.scatter is not None
    sigma, mu = model.scatter(model.parameters(parameters))
    return float(sigma), float(mu)


def test_scatter_of_chung22_keeps_the_mean() -> None:
    sigma, mu = log_normal("chung22")
    assert sigma == pytest.approx(0.42 * np.log(10))
    assert np.exp(mu + sigma**2 / 2) == pytest.approx(1.0, rel=1e-14)


def test_scatter_of_li16_is_that_of_its_two_steps() -> None:
    """SFR and L_CO each scattered with their mean kept, L' ~ SFR^(1/alpha) between them."""
    alpha, sfr_dex, co_dex = 1.2, 0.25, 0.4
    sigma, mu = log_normal("li16", alpha=alpha, sigma_sfr=sfr_dex, sigma_lco=co_dex)
    rng = np.random.default_rng(4)
    s, c = sfr_dex * np.log(10), co_dex * np.log(10)
    first = rng.normal(-(s**2) / 2, s, 1_000_000)
    log_l = first / alpha + rng.normal(-(c**2) / 2, c, 1_000_000)
    assert mu == pytest.approx(log_l.mean(), abs=5 * sigma / 1e3)
    assert sigma == pytest.approx(log_l.std(), rel=5 / np.sqrt(2e6))
    assert log_normal("li16", sigma_sfr=0.0)[1] == pytest.approx(-((0.3 * np.log(10)) ** 2) / 2)


def test_models_without_scatter() -> None:
    assert MODELS["padmanabhan18"].scatter is None
    assert MODELS["breysse15"].scatter is None


# Priors.


def draw(model: str, prior: str, num: int = 4000, scale: float = 1.0) -> dict[str, np.ndarray]:
    draws = Draws(1, "train", np.arange(num, dtype=np.uint64), STAGE_MODEL)
    return MODELS[model].prior(prior).draw(draws, MODELS[model].defaults, scale)


def assert_moments(values: np.ndarray, mean: float, width: float) -> None:
    error = width / np.sqrt(len(values))
    assert values.mean() == pytest.approx(mean, abs=5 * error)
    assert values.std() == pytest.approx(width, abs=5 * error / np.sqrt(2))


LI16_WIDTHS = {  # (mean, width) of alpha and beta, widths of log delta and of the scatters
    "wide": ((1.37, 0.37), (-1.74, 3.74), 0.3, 0.1),
    "narrow": ((1.37, 0.037), (-1.74, 0.374), 0.03, 0.01),
    "stronger": ((1.37, 0.04), (-1.74, 0.4), 0.3, 0.1),
    "comap": ((1.17, 0.37), (0.21, 3.74), 0.3, 0.1),
}


@pytest.mark.parametrize("prior", list(LI16_WIDTHS))
def test_priors_of_li16(prior: str) -> None:
    alpha, beta, delta, sigma = LI16_WIDTHS[prior]
    drawn = draw("li16", prior)
    assert_moments(drawn["beta"], *beta)
    assert_moments(drawn["log10_delta_mf"], 0.0, delta)
    assert drawn["alpha"].min() > 0.5
    assert min(drawn["sigma_sfr"].min(), drawn["sigma_lco"].min()) > 0
    if prior in ("narrow", "stronger"):  # else the truncation moves mean and width
        assert_moments(drawn["alpha"], *alpha)
    if prior == "narrow":
        assert_moments(drawn["sigma_sfr"], 0.3, sigma)
        assert_moments(drawn["sigma_lco"], 0.3, sigma)
    names = list(drawn)
    correlation = np.corrcoef([drawn[n] for n in names]) - np.eye(len(names))
    assert np.abs(correlation).max() < 5 / np.sqrt(4000)


def test_truncated_normal_has_the_moments_of_one() -> None:
    """x ~ N(0, 1) given x > 0: mean sqrt(2/pi), variance 1 - 2/pi."""
    prior = Prior({"x": Normal(0.0, 1.0, low=0.0)})
    draws = Draws(1, "train", np.arange(20_000, dtype=np.uint64), STAGE_MODEL)
    x = prior.draw(draws, {"x": 5.0, "kept": 2.0}, 1.0)
    assert_moments(x["x"], np.sqrt(2 / np.pi), np.sqrt(1 - 2 / np.pi))
    assert np.all(x["kept"] == 2.0)


def test_priors_of_chung22() -> None:
    wide = draw("chung22", "wide")
    assert np.all(wide["A"] < wide["B"])
    assert_moments(wide["log10_C"], 10.25, 5.29)
    assert_moments(wide["log10_Mstar"], 12.41, 1.77)
    difference = np.random.default_rng(0).normal([[-1.66], [0.04]], [[2.33], [1.26]], (2, 10**6))
    kept = difference[:, difference[0] < difference[1]]
    assert kept.shape[1] / 1e6 == pytest.approx(0.74, abs=0.005)  # physics.md: P(A < B) = .74
    for name, values in zip("AB", kept, strict=True):
        assert_moments(wide[name], values.mean(), values.std())


CHUNG22_MEAN = [-3.614278, 0.45687856, 10.68714991, 12.47593157, 0.35517494]
CHUNG22_COVARIANCE = [
    [2.20772089, 0.08729876, 0.16230234, 0.19120324, -0.02930135],
    [0.08729876, 0.99506924, 0.19754548, 0.08097735, 0.02139264],
    [0.16230234, 0.19754548, 0.22875155, 0.16540717, -0.0210548],
    [0.19120324, 0.08097735, 0.16540717, 0.15713717, -0.02256431],
    [-0.02930135, 0.02139264, -0.0210548, -0.02256431, 0.02119048],
]


def test_correlated_prior_of_chung22() -> None:
    """Against NumPy's multivariate normal with the same two cuts."""
    drawn = draw("chung22", "correlated", 20_000)
    names = ["A", "B", "log10_C", "log10_Mstar", "sigma"]
    found = np.array([drawn[n] for n in names])
    rng = np.random.default_rng(0)
    truth = rng.multivariate_normal(CHUNG22_MEAN, CHUNG22_COVARIANCE, 400_000).T
    truth = truth[:, (truth[0] < truth[1]) & (truth[4] > 0)]
    width = truth.std(axis=1)
    np.testing.assert_allclose(
        found.mean(axis=1) / width, truth.mean(axis=1) / width, atol=5 / np.sqrt(20_000)
    )
    scaled = np.cov(found) - np.cov(truth)
    assert np.abs(scaled / np.outer(width, width)).max() < 5 * np.sqrt(2 / 20_000)


def test_prior_of_padmanabhan18() -> None:
    drawn = draw("padmanabhan18", "published")
    assert_moments(drawn["m11"], -1.17, 0.85)
    assert drawn["m10"].min() > 1e11
    for letter in "nby":  # positive from z = 0 (t = 0) to the end of time (t = 1)
        assert drawn[f"{letter}10"].min() > 0
        assert (drawn[f"{letter}10"] + drawn[f"{letter}11"]).min() > 0


def test_prior_of_breysse15() -> None:
    drawn = draw("breysse15", "published")
    assert_moments(drawn["b"], 1.0, 0.125)
    assert_moments(drawn["A"], 2e-6, 5e-7)


def test_prior_scale_is_a_factor_on_every_width() -> None:
    """Where nothing is cut, a tenth of the wide prior is the narrow one, draw by draw."""
    whole, tenth = draw("li16", "narrow"), draw("li16", "narrow", scale=0.1)
    for name, mean in [("beta", -1.74), ("alpha", 1.37), ("sigma_sfr", 0.3)]:
        np.testing.assert_allclose(tenth[name] - mean, 0.1 * (whole[name] - mean), rtol=1e-9)
    joint = draw("chung22", "correlated", scale=0.0)
    np.testing.assert_allclose(joint["log10_C"], CHUNG22_MEAN[2], rtol=1e-15)
    np.testing.assert_array_equal(draw("li16", "wide", 5, 0.0)["beta"], [-1.74] * 5)


def test_draws_are_a_function_of_the_index() -> None:
    """Also where some attempts are refused: each attempt has its own counters."""
    prior, defaults = MODELS["chung22"].prior("wide"), MODELS["chung22"].defaults
    indices = np.arange(200, dtype=np.uint64)
    together = prior.draw(Draws(1, "train", indices, STAGE_MODEL), defaults, 1.0)
    for k in (199, 3, 77):
        alone = prior.draw(Draws(1, "train", indices[k : k + 1], STAGE_MODEL), defaults, 1.0)
        assert {n: v[0] for n, v in alone.items()} == {n: v[k] for n, v in together.items()}


def test_fiducial_prior_keeps_the_defaults() -> None:
    drawn = draw("li16", "fiducial", 3)
    assert {n: v.tolist() for n, v in drawn.items()} == {
        n: [v] * 3 for n, v in MODELS["li16"].defaults.items()
    }


def test_impossible_prior_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamtrain.generator.priors.MAX_ATTEMPTS", 5)
    prior = Prior({"x": Normal(0.0, 1.0, low=50.0)})
    with pytest.raises(ValueError, match="no draw in 5 attempts satisfies the prior's bounds"):
        prior.draw(Draws(1, "train", np.zeros(1, np.uint64), 2), {"x": 0.0}, 1.0)


# Names, files and functions.


def test_unknown_names_give_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown luminosity model 'li_16': did you mean 'li16'"):
        find_model("li_16")
    with pytest.raises(ConfigError, match=r"no prior 'narow': did you mean 'narrow'.*fiducial"):
        MODELS["li16"].prior("narow")
    with pytest.raises(ConfigError, match="li16 has no parameter 'alpa': did you mean 'alpha'"):
        MODELS["li16"].parameters({"alpa": 1.0})
    assert MODELS["li16"].parameters({"alpha": 1.0})["alpha"] == 1.0


def test_model_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "def line(mass_Msun, z, *, age, amplitude=1e-6, sigma_dex=0.2):\n"
        "    return amplitude * mass_Msun * age\n"
        "line.prior = {'amplitude': (1e-6, 1e-7)}\n"
    )
    model = find_model(f"{file}:line")
    assert model.name == "line"
    assert model.defaults == {"amplitude": 1e-6, "sigma_dex": 0.2}
    assert model.traced_parameters == ["amplitude", "sigma_dex"]
    assert model.priors["own"].parameters == {"amplitude": Normal(1e-6, 1e-7)}
    assert model.scatter is not None
    sigma, mu = model.scatter({"sigma_dex": 0.2})
    assert (sigma, mu) == pytest.approx((0.2 * np.log(10), -((0.2 * np.log(10)) ** 2) / 2))
    with pytest.raises(ConfigError, match=r"mine\.py defines no 'other'"):
        find_model(f"{file}:other")
    with pytest.raises(ConfigError, match=r"there is no file .*nowhere\.py"):
        find_model(f"{tmp_path}/nowhere.py:line")


def test_functions_that_are_no_models() -> None:
    def wrong(mass: Any, z: Any) -> Any:
        return mass

    def lost(mass_Msun: Any, z: Any, *, amplitude: float = 1.0) -> Any:
        return mass_Msun

    lost.prior = {"amplitud": (1.0, 0.1)}  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"wrong\(mass, z\) must start with .* mass_Msun, z"):
        user_model(wrong)
    with pytest.raises(ConfigError, match="names 'amplitud': did you mean 'amplitude'"):
        user_model(lost)
    with pytest.raises(ConfigError, match="is not a function"):
        find_model(3)  # type: ignore[arg-type]
