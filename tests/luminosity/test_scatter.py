"""Scatter and duty cycle: what is published, and what is painted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scipy.special import ndtr
from support import reference as ref
from support import small

from streamtrain.bins import LuminosityBins
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.cosmology import Cosmology
from streamtrain.generator.halos import Bank
from streamtrain.generator.paint import paint
from streamtrain.generator.painter import LinePainter
from streamtrain.generator.pose import single_pose
from streamtrain.grid import Grid
from streamtrain.luminosity.registry import MODELS
from streamtrain.numerics.rng import STAGE_PAINT, Draws

pytestmark = small.EXTRAPOLATES

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
    **{f"kamenetzky16_co{j}": 0.0 for j in range(1, 14)},
    "freeform": 0.0,
}
KEEPS_MEDIAN = {"lagache18", "keating16", *(f"kamenetzky16_co{j}" for j in range(1, 14))}
"""keating16 and the scatter that kamenetzky16 may have: in simim, a code of the group of COPSS and
mmIME, they do not preserve the mean. What the paper of keating16 says was not seen."""


@pytest.mark.parametrize("name", list(ref.MODELS))
def test_published_scatter(name: str) -> None:
    assert (MODELS[name].scatter is not None) == (name in SCATTER_DEX)
    assert MODELS[name].preserves == ("median" if name in KEEPS_MEDIAN else "mean")
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
    painter = LinePainter(Bank([sky]), grid, [model.with_scatter(scatter)], bins, min_mass_Msun=1e9)
    values = {k: np.array([v]) for k, v in model.parameters(parameters).items()}
    one = np.zeros(1, np.int64)
    draws = Draws(3, "train", np.array([5], np.uint64), STAGE_PAINT)
    arguments = painter.arguments(one, single_pose((0.0, 0.0)), one, [values], draws=draws)
    total, counts = painter.paint(arguments, 0, 1)
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
@pytest.mark.parametrize("name", ["chung22", "li16", "lagache18", "keating16"])
def test_painted_scatter_keeps_the_mean_or_the_median(name: str, scatter: Any) -> None:
    """As published (the median for two of them), or as arrays; li16's two steps as one normal."""
    grid, z = (WIDE_Z_CII, 5.0) if name == "lagache18" else (WIDE_Z, 2.8)
    sigma = float(SCATTER_DEX[name])
    keeps = ("median" if name in KEEPS_MEDIAN else "mean") if scatter is True else scatter
    shift = -np.log(10) / 2 * sigma**2
    if name == "li16":
        shift = -np.log(10) / 2 * (0.3**2 / 1.37 + 0.3**2)
    luminosity = float(ref.MODELS[name](1e12, z))
    painted = paint_equal(name, 1e12, z, grid, scatter)
    assert_log_normal(painted, luminosity, sigma, shift if keeps == "mean" else 0.0)


def test_light_of_keating16_by_what_its_scatter_preserves() -> None:
    """exp((0.3 ln 10)^2 / 2) = 1.27 times the light where it is the median."""
    mean, median = (paint_equal("keating16", 1e12, 2.8, scatter=s).mean_L for s in ("mean", True))
    assert median / mean == pytest.approx(1.27, abs=0.002)


def test_both_conventions_of_kamenetzky16() -> None:
    """L_FIR = 1.1e10 SFR without scatter; simim: 0.6 L_IR, L_IR = 1e10 SFR, and 0.3 dex."""
    model = MODELS["kamenetzky16_co4"]
    named = model.prior("simim")
    assert not named.varies
    held = {name: float(value[0]) for name, value in named.held(model.defaults).items()}
    assert (held["fir_per_sfr"], held["sigma"]) == (0.6 * 1e10, 0.3)
    grid = Grid((0.1, 0.1), (1, 1, 1), (461.084 / 1.05, 461.084 / 1.35), 461.084)
    usual, other = (float(ref.kamenetzky16(4, 1e12, 0.2, fir)) for fir in (1.1e10, 0.6e10))
    assert usual / other == pytest.approx((1.1 / 0.6) ** (1 / 1.09))
    plain = paint_equal("kamenetzky16_co4", 1e12, 0.2, grid)
    assert plain.mean_L == pytest.approx(usual, rel=2e-5) and plain.sigma_dex < 1e-6
    painted = paint_equal("kamenetzky16_co4", 1e12, 0.2, grid, **held)
    assert_log_normal(painted, other, 0.3, 0.0)


@pytest.mark.parametrize(
    ("name", "z"), [("co10", 2.4), ("co10", 3.5), ("cii", 3.3), ("cii", 4.5), ("cii", 6.0)]
)
def test_painted_scatter_of_yang22_follows_the_redshift(name: str, z: float) -> None:
    """Two masses per redshift; their mean is kept, and their share that shines is the paper's."""
    name, grid = f"yang22_{name}", WIDE_Z if name == "co10" else WIDE_Z_CII
    for mass in (1e11, 1e13):
        sigma = float(ref.SIGMA_DEX[name](mass, z))
        on = float(ref.ON_FRACTION[name](mass, z))
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
    [
        ("lidz11", {"duty": 1.0}),
        ("pullen13", None),  # its duty cycle follows the age
        ("breysse15", {"duty": 1.0}),
        ("yang22_co10", None),
    ],
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
        made = [
            paint(sky, grid, name, parameters, seed=s, allow_empty=True) for s in range(NUM_PAINTED)
        ]
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
