"""Luminosity models against the papers' formulas, scatter, priors, and models from a file."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference as ref
import small
import torch
from scipy.special import ndtr

from streamtrain.catalogs.bank import Bank
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.cosmology import Cosmology
from streamtrain.generator.generator import Generator
from streamtrain.generator.geometry import Grid, single_pose
from streamtrain.generator.labels import LuminosityBins
from streamtrain.generator.luminosity import MODELS, find_model, user_model
from streamtrain.generator.paint import paint
from streamtrain.generator.painter import Painter
from streamtrain.generator.priors import Normal, Prior
from streamtrain.rng import STAGE_MODEL, Draws
from streamtrain.schema import ConfigError, apply_override

MASS = np.array([3e10, 1e12, 2e13])
Z = np.array([[2.5], [2.9]])
HIGH_Z = {"lagache18": np.array([[4.5], [7.0]])}
LATER = {"breysse17"}  # a column of the lightcone: test_abundance.py
CII_BAND = {"nu_GHz": [1900.537 / 3.4, 1900.537 / 4.43], "nu_rest_GHz": 1900.537}


def evaluate(
    name: str, function: Any = None, *, mass: Any = MASS, z: Any = Z, **parameters: float
) -> np.ndarray:
    """A plain NumPy function of the package, the model's luminosity by default, at mass and z."""
    model = MODELS[name]
    function = function or model.function
    nu_rest_GHz = parameters.pop("nu_rest_GHz", model.nu_rest_GHz or 115.27)
    given = {**model.defaults, "nu_rest_GHz": nu_rest_GHz, "sfr": ref.sfr_fit(mass, z)}
    taken = inspect.signature(function).parameters
    return function(mass, z, **{k: v for k, v in {**given, **parameters}.items() if k in taken})


# The published formulas.


def test_every_model_has_a_reference() -> None:
    assert set(MODELS) - LATER == set(ref.MODELS)


@pytest.mark.parametrize("name", list(ref.MODELS))
def test_fiducial_models_are_the_papers(name: str) -> None:
    """Luminosity at three masses and two redshifts, scatter, duty cycle and rest frequency."""
    model, z = MODELS[name], HIGH_Z.get(name, Z)
    nothing = np.zeros((2, 3))
    luminosity = evaluate(name, z=z) + nothing
    assert np.all(luminosity > 0)
    np.testing.assert_allclose(luminosity, ref.MODELS[name](MASS, z) + nothing, rtol=1e-12)
    for function, truth in ((model.sigma_dex, ref.SIGMA_DEX), (model.on_fraction, ref.ON_FRACTION)):
        assert (function is None) == (name not in truth)
        if function is not None:
            found, expected = evaluate(name, function, z=z), truth[name](MASS, z)
            np.testing.assert_allclose(found + nothing, expected + nothing, rtol=1e-6)
    if name in ref.NU_REST_GHZ:
        assert model.nu_rest_GHz == pytest.approx(ref.NU_REST_GHZ[name], rel=1e-5)
    else:
        assert model.nu_rest_GHz is None


@pytest.mark.parametrize("line", ["co10", "cii"])
def test_pieces_of_yang22(line: str) -> None:
    """All three, their scatter and on-fraction, at z = 1..9, the ends z = 4 and z = 5 included."""
    name, z = f"yang22_{line}", np.array([1.0, 2.0, 3.99, 4.0, 4.5, 4.99, 5.0, 6.5, 9.0])[:, None]
    model = MODELS[name]
    with np.errstate(over="ignore"):  # the last piece of [CII] at z = 1, where it is not used
        found = evaluate(name, z=z)
    np.testing.assert_allclose(found, ref.yang22(line, MASS, z), rtol=1e-12)
    sigma = evaluate(name, model.sigma_dex, z=z)
    np.testing.assert_allclose(sigma, ref.SIGMA_DEX[name](MASS, z), rtol=1e-12)
    if line == "co10":
        on = evaluate(name, model.on_fraction, z=z)
        np.testing.assert_allclose(on, ref.yang22_co10_on(MASS, z), rtol=1e-12)
        assert np.all((on > 0) & (on <= 1))


@pytest.mark.parametrize(("z", "jump_dex"), [(4.0, 0.06), (5.0, 0.04)])
def test_pieces_of_yang22_join(z: float, jump_dex: float) -> None:
    """The largest jump of CO(1-0) over 1e10..3e13 Msun, as published."""
    mass = np.logspace(10, 13.5, 71)
    ends = np.array([[np.nextafter(z, 0.0)], [z]])
    below, above = np.log10(evaluate("yang22_co10", mass=mass, z=ends))
    assert np.abs(above - below).max() == pytest.approx(jump_dex, abs=0.005)


def test_yang22_is_not_the_variant_of_other_codes() -> None:
    """Their b has z = 1 and .00827 in it, and the other sign: L grows to the end of the masses."""
    wrong, right = ref.yang22_co10_wrong(MASS, Z), evaluate("yang22_co10")
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(wrong, right, rtol=0.05)
    assert np.all(wrong[:, 2] > 100 * right[:, 2])


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("li16", {"log10_delta_mf": 0.3, "alpha": 1.1, "beta": 0.2}),
        ("chung22", {"A": -3.7, "B": 7.0, "log10_C": 11.1, "log10_Mstar": 12.5}),
        ("padmanabhan18", {"m10": 2e12, "m11": -2, "n10": 0.001, "n11": 0.01, "b10": 1.2,
                           "b11": 0.1, "y10": 0.3, "y11": 0.2}),
        ("breysse15", {"A": 1e-6, "b": 1.1}),
        ("padmanabhan19_cii", {"M1": 1e-5, "N1": 1e11, "a": 1.5, "b": 0.6}),
    ],
)  # fmt: skip
def test_parameters_mean_what_the_papers_say(name: str, parameters: dict[str, float]) -> None:
    expected = getattr(ref, name)(MASS, Z, **parameters)
    np.testing.assert_allclose(evaluate(name, **parameters) + 0 * Z, expected + 0 * Z, rtol=1e-13)
    assert set(parameters) <= set(MODELS[name].defaults)


@pytest.mark.parametrize("name", ["breysse15", "keating16", "lidz11", "pullen13"])
def test_luminosity_is_proportional_to_the_amplitude(name: str) -> None:
    twice = 2 * MODELS[name].defaults["A"]
    np.testing.assert_allclose(evaluate(name, A=twice), 2 * evaluate(name), rtol=1e-14)


def test_keating16_is_dark_below_its_mass() -> None:
    assert evaluate("keating16", mass=np.array([1e10, 1.001e10])).tolist() == [
        0.0,
        6.3e-7 * 1.001e10,
    ]


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


@pytest.mark.parametrize("name", ["li16", "chung22", "padmanabhan18", "keating20"])
def test_luminosity_grows_with_the_cube_of_the_rest_frequency(name: str) -> None:
    ratio = evaluate(name, nu_rest_GHz=230.54) / evaluate(name)
    np.testing.assert_allclose(ratio, 8.0, rtol=1e-12)


# The line of the grid.


def test_a_cii_model_in_a_co_grid_is_refused(small_sky: Lightcone) -> None:
    message = (
        "the model lagache18 is for the line at 1900.54 GHz, but nu_rest_GHz = 115.27: "
        "set grid.nu_rest_GHz=1900.54 (and the band)"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        paint(small_sky, Grid(), "lagache18")
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        Generator(small.config(emit={"line": {"model": "lagache18"}}), lightcones=[small_sky])


@pytest.mark.parametrize("name", list(ref.NU_REST_GHZ))
def test_the_line_that_the_refusal_names_is_taken(name: str) -> None:
    model = MODELS[name]
    with pytest.raises(ConfigError) as refused:
        model.check_line(1.002 * ref.NU_REST_GHZ[name])
    named = re.search(r"set grid\.nu_rest_GHz=(\S+)", str(refused.value))
    assert named is not None
    overrides: dict[str, Any] = {}
    apply_override(overrides, f"grid.nu_rest_GHz={named[1]}")
    model.check_line(overrides["grid"]["nu_rest_GHz"])
    model.check_line(ref.NU_REST_GHZ[name])


def test_a_co_ladder_takes_any_line() -> None:
    MODELS["li16"].check_line(345.8)


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


SCATTER_DEX = {  # published, constant
    "li16": np.hypot(0.3 / 1.37, 0.3),
    "keating20": np.hypot(0.3 / 1.27, 0.3),
    "chung22": 0.42,
    "keating16": 0.3,
    "lagache18": 0.5,
}


@pytest.mark.parametrize("name", list(ref.MODELS))
def test_published_scatter(name: str) -> None:
    assert (MODELS[name].scatter is not None) == (name in SCATTER_DEX)
    assert MODELS[name].preserves == ("median" if name == "lagache18" else "mean")
    if name in SCATTER_DEX:
        assert log_normal(name)[0] == pytest.approx(np.log(10) * SCATTER_DEX[name], rel=1e-14)


# What is painted: many equal halos, against the moments of their luminosity.

NUM_EQUAL = 100_000
WIDE_Z = Grid((0.1, 0.1), (1, 1, 1), (115.27 / 3.3, 115.27 / 4.6))
WIDE_Z_CII = Grid((0.1, 0.1), (1, 1, 1), (1900.537 / 4.2, 1900.537 / 7.5), 1900.537)


@dataclass
class Painted:
    """Luminosity of equal halos, from the painted cube and counts."""

    mean_L: float
    """Of all halos [Lsun]."""
    log10_L: float
    sigma_dex: float
    num_on: int


def paint_equal(
    name: str, mass: float, z: float, grid: Grid = WIDE_Z, scatter: Any = True, **parameters: float
) -> Painted:
    """NUM_EQUAL halos at one place; mean and width of log10 L of those that shine."""
    chi = ref.comoving_distance(z)
    place = (np.full(NUM_EQUAL, v) for v in (0.0, 0.0, chi, mass, z))
    sky = Lightcone.from_arrays(
        *place, cosmology=Cosmology().to_dict(), footprint_deg=(-0.1, 0.1, -0.1, 0.1)
    )
    model, bins = MODELS[name], LuminosityBins((0.0, 14.0), 7000)
    painter = Painter(Bank([sky]), grid, model, bins, min_mass_Msun=1e9, scatter=scatter)
    values = {k: np.array([v]) for k, v in model.parameters(parameters).items()}
    one, first = np.zeros(1, np.int64), np.array([5], np.uint64)
    job = painter.job(one, single_pose((0.0, 0.0)), values, seed=3, split="train", indices=first)
    total, counts = painter.paint(job, 0, 1)
    per_lsun = ref.surface_brightness(
        1.0, chi, z, nu_rest_GHz=grid.nu_rest_GHz, dnu_GHz=grid.dnu_GHz, omega_sr=grid.pixel_sr
    )
    number = counts[0, : bins.num].numpy()
    centres = 0.5 * (bins.edges[1:] + bins.edges[:-1])
    mean = np.average(centres, weights=number)
    width = np.sqrt(np.average((centres - mean) ** 2, weights=number))
    mean_l = float(total.sum()) * painter.unit / float(per_lsun) / NUM_EQUAL
    return Painted(mean_l, float(mean), float(width), int(number.sum()))


def assert_log_normal(
    painted: Painted, luminosity: float, sigma_dex: float, shift_dex: float, on: float = 1.0
) -> None:
    """Within 4 standard errors: log10 L ~ N(log10 luminosity + shift, sigma) in a share `on`."""
    number, s = painted.num_on, np.log(10) * sigma_dex
    assert number == pytest.approx(on * NUM_EQUAL, abs=4 * np.sqrt(on * (1 - on) * NUM_EQUAL))
    middle = np.log10(luminosity) + shift_dex
    assert painted.log10_L == pytest.approx(middle, abs=4 * sigma_dex / np.sqrt(number) + 2e-5)
    assert painted.sigma_dex == pytest.approx(sigma_dex, rel=4 / np.sqrt(2 * number) + 2e-4)
    mean = 10**middle * np.exp(s**2 / 2)
    error = mean * np.sqrt((on * np.exp(s**2) - on**2) / NUM_EQUAL)
    assert painted.mean_L == pytest.approx(on * mean, abs=4 * error + 2e-5 * mean)


@pytest.mark.parametrize("scatter", [True, "mean", "median"])
@pytest.mark.parametrize("name", ["chung22", "li16", "lagache18"])
def test_painted_scatter_keeps_the_mean_or_the_median(name: str, scatter: Any) -> None:
    """As published (the median for lagache18), or as told; li16's two steps as one normal."""
    grid, z = (WIDE_Z_CII, 5.0) if name == "lagache18" else (WIDE_Z, 2.8)
    sigma = float(SCATTER_DEX[name])
    keeps = ("median" if name == "lagache18" else "mean") if scatter is True else scatter
    shift = -np.log(10) / 2 * sigma**2
    if name == "li16":
        shift = -np.log(10) / 2 * (0.3**2 / 1.37 + 0.3**2)
    luminosity = float(ref.MODELS[name](1e12, z))
    painted = paint_equal(name, 1e12, z, grid, scatter)
    assert_log_normal(painted, luminosity, sigma, shift if keeps == "mean" else 0.0)


@pytest.mark.parametrize(
    ("name", "z"), [("co10", 2.4), ("co10", 3.5), ("cii", 3.5), ("cii", 4.5), ("cii", 6.0)]
)
def test_painted_scatter_of_yang22_follows_the_redshift(name: str, z: float) -> None:
    """Two masses per redshift; their mean is kept, and their share that shines is the paper's."""
    name, grid = f"yang22_{name}", WIDE_Z if name == "co10" else WIDE_Z_CII
    for mass in (1e11, 1e13):
        sigma = float(ref.SIGMA_DEX[name](mass, z))
        on = float(ref.ON_FRACTION[name](mass, z)) if name in ref.ON_FRACTION else 1.0
        painted = paint_equal(name, mass, z, grid)
        luminosity = float(ref.MODELS[name](mass, z))
        assert_log_normal(painted, luminosity, sigma, -np.log(10) / 2 * sigma**2, on)
    median = paint_equal(name, mass, z, grid, "median")
    assert_log_normal(median, luminosity, sigma, 0.0, on)


@pytest.mark.parametrize("z", [2.4, 3.4])
def test_painted_duty_cycle_of_pullen13_follows_the_age(z: float) -> None:
    on = 0.1 / ref.age_Gyr(z)
    expected = pytest.approx(on * NUM_EQUAL, abs=4 * np.sqrt(on * (1 - on) * NUM_EQUAL))
    assert paint_equal("pullen13", 1e12, z).num_on == expected


# What is painted: a sky, against the sum over its halos.

WHOLE_SKY = Grid((1.25, 1.25), (1, 1, 1), (36.0, 25.0))
NUM_PAINTED = 10


@pytest.mark.parametrize(
    ("name", "always"),
    [("lidz11", {"duty": 1.0}), ("pullen13", {"t_Gyr": 1e3}), ("yang22_co10", None)],
)
def test_painted_duty_cycle(
    name: str, always: dict[str, float] | None, small_sky: Lightcone
) -> None:
    """Intensity and every bin's count are those of always shining halos times the duty cycle of
    each halo (a tenth, for lidz11), and convolved with the scatter of each, for yang22."""
    sky, grid = small_sky, WHOLE_SKY
    mass, z = sky.mass_Msun.astype(np.float64), sky.z_obs.astype(np.float64)
    _, _, chi = ref.sky(sky.x_Mpc, sky.y_Mpc, sky.z_Mpc)
    luminosity, on = ref.MODELS[name](mass, z), ref.ON_FRACTION[name](mass, z)
    brightness = ref.surface_brightness(
        luminosity, chi, z, nu_rest_GHz=115.27, dnu_GHz=grid.dnu_GHz, omega_sr=grid.pixel_sr
    )
    edges = np.log10(ref.LUMINOSITY_EDGES)
    sigma = ref.SIGMA_DEX[name](mass, z) if name in ref.SIGMA_DEX else np.full(len(mass), 1e-6)
    middle = np.log10(luminosity) - np.log(10) / 2 * sigma**2
    share = on * np.diff(ndtr((edges[:, None] - middle) / sigma), axis=0)  # [bins, halos]
    power = np.exp((np.log(10) * sigma) ** 2)

    def painted(**parameters: float) -> tuple[np.ndarray, np.ndarray]:
        made = [paint(sky, grid, name, parameters, seed=s) for s in range(NUM_PAINTED)]
        cubes = np.array([cube.numpy().astype(np.float64).sum() for cube, _ in made])
        return cubes.mean(), np.mean([number.numpy() for _, number in made], axis=0)

    if always is not None:
        intensity, counts = painted(**always)
        assert intensity == pytest.approx(brightness.sum(), rel=2e-5)
        assert np.abs(counts - ref.luminosity_counts(luminosity)).sum() <= 4  # on bins' edges
    intensity, counts = painted()
    error = np.sqrt(((on * power - on**2) * brightness**2).sum() / NUM_PAINTED)
    assert intensity == pytest.approx((on * brightness).sum(), abs=4 * error)
    expected = share.sum(axis=1)
    variance = (share * (1 - share)).sum(axis=1) / NUM_PAINTED
    filled = NUM_PAINTED * expected > 10
    assert filled.sum() > 15
    deviation = (counts - expected)[filled] / np.sqrt(variance[filled])
    assert np.abs(deviation).max() < 4
    assert (deviation**2).sum() < filled.sum() + 4 * np.sqrt(2 * filled.sum())
    assert error < 0.04 * intensity  # else the comparison says nothing


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


def test_prior_of_keating16() -> None:
    assert_moments(draw("keating16", "published")["A"], 6.3e-7, 1.75e-7)  # +1.4 / -2.1


def test_prior_of_padmanabhan19_cii() -> None:
    drawn = draw("padmanabhan19_cii", "published")
    assert_moments(drawn["a"], 1.79, 0.30)
    assert_moments(drawn["b"], 0.49, 0.38)
    assert drawn["M1"].min() > 0
    assert drawn["N1"].min() > 0
    for name, middle, width in (("M1", 2.39e-5, 1.86e-5), ("N1", 4.19e11, 3.27e11)):
        above = drawn[name][drawn[name] > middle] - middle  # half a normal, whatever is cut below
        assert_moments(above, np.sqrt(2 / np.pi) * width, np.sqrt(1 - 2 / np.pi) * width)


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


def test_fixed_parameters_keep_to_the_priors_conditions(small_sky: Lightcone) -> None:
    """A held at 0.5, above the middle of B's prior: every B is above it, every sigma positive."""
    line = {"model": "chung22", "prior": "correlated", "parameters": {"A": 0.5}}
    generator = Generator(small.config(emit={"line": line}), lightcones=[small_sky])
    drawn = [record["parameters"] for record in generator.draw(range(1000))[2]]
    assert {p["A"] for p in drawn} == {0.5}
    assert min(p["B"] for p in drawn) > 0.5
    assert min(p["sigma"] for p in drawn) > 0
    assert len({p["B"] for p in drawn}) == 1000


def test_a_fixed_parameter_may_lie_outside_its_own_bounds() -> None:
    """alpha held at 0.4, outside alpha > 0.5, which bounds draws; the others keep their bounds."""
    draws = Draws(1, "train", np.arange(4000, dtype=np.uint64), STAGE_MODEL)
    given = MODELS["li16"].parameters({"alpha": 0.4})
    drawn = MODELS["li16"].prior("wide").draw(draws, given, 3.0, fixed=["alpha"])
    assert np.all(drawn["alpha"] == 0.4)
    assert min(drawn["sigma_sfr"].min(), drawn["sigma_lco"].min()) > 0
    assert_moments(drawn["beta"], -1.74, 3 * 3.74)


PRIORS = [(name, prior) for name, model in MODELS.items() for prior in model.priors]


@pytest.mark.parametrize(("name", "prior"), PRIORS)
def test_every_prior_generates(name: str, prior: str, small_sky: Lightcone) -> None:
    """200 samples: no halo is too bright for the cube (`generate` would raise), all draws differ,
    and the draws that were refused do not depend on what is made beside them."""
    grid = small.GRID | (CII_BAND if MODELS[name].nu_rest_GHz == CII_BAND["nu_rest_GHz"] else {})
    config = small.config(grid=grid, emit={"line": {"model": name, "prior": prior}})
    generator = Generator(config, lightcones=[small_sky])
    batch = generator.generate(range(200))
    assert int(batch.saturated.sum()) == 0
    assert bool(torch.isfinite(batch.cube).all())
    assert float(batch.cube.min()) >= 0
    drawn = [tuple(record["parameters"].values()) for record in batch.draws]
    assert len(set(drawn)) == 200
    assert generator.generate([137]).digests() == [batch.digests()[137]]


@pytest.mark.parametrize(("name", "prior"), [("li16", "comap"), ("chung22", "wide")])
def test_wide_priors_saturate_without_the_check(
    name: str, prior: str, small_sky: Lightcone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def anything(_: Painter, drawn: dict[str, np.ndarray]) -> np.ndarray:
        return np.ones(len(next(iter(drawn.values()))), bool)

    monkeypatch.setattr(Painter, "fits", anything)
    config = small.config(emit={"line": {"model": name, "prior": prior}})
    with pytest.raises(ValueError, match="too bright for the cube's fixed-point range"):
        Generator(config, lightcones=[small_sky]).generate(range(200))


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
