"""Radio sources: number, fluxes, spectra and temperature against closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from support import operator_tools
from support import reference as ref
from support.limlam import load

from streamtrain.config import ConfigError
from streamtrain.grid import SOURCE_UK
from streamtrain.numerics.backend import Kernels
from streamtrain.numerics.rng import STAGE_OBSERVE, Draws, seed_words, stage_word
from streamtrain.operators.base import Operator
from streamtrain.operators.sources import RadioSources

GRID = {"fov_deg": [1.4, 1.4], "shape": [4, 64, 64], "nu_GHz": [34.0, 26.0]}
PIXEL_SR = np.radians(1.4 / 64) ** 2
NU = 33.0 - 2.0 * np.arange(4)
"""Centres of the channels [GHz]."""
ALL = {"nu": "band_mean", "alpha": [0.0, 0.0], "flux_mJy": [1.0, 1.0001]}
"""Every source adds the same to every channel."""

Array = NDArray[np.float64]


def operators(observe: dict[str, Any], **grid: Any) -> list[Operator]:
    return operator_tools.operators(observe, **{**GRID, **grid})


def sources(grid: dict[str, Any] | None = None, **given: Any) -> RadioSources:
    (operator,) = operators({"radio_sources": given}, **(grid or {}))
    assert isinstance(operator, RadioSources)
    return operator


def maps(
    kernels: Kernels, operator: Operator, shape: tuple[int, ...], num: int = 16, seed: int = 3
) -> Array:
    """What the operator adds to empty cubes [num, *shape]."""
    rows = [[*seed_words(seed), k, 0, stage_word("train", 0), 0] for k in range(num)]
    keys = torch.from_numpy(np.array(rows, np.uint32).view(np.int32))
    draws = Draws(seed, "train", np.arange(num, dtype=np.uint64), operator.stage)
    drawn = {name: torch.from_numpy(values) for name, values in operator.draw(draws).items()}
    return operator.apply(kernels, torch.zeros(num, *shape), keys, drawn).numpy().astype(float)


def one_source_uK(flux_mJy: float, nu_GHz: Any, pixel_sr: float) -> Any:
    """T = c^2 S / (2 k nu^2 Omega), SI units written out."""
    c, k = 299_792_458.0, 1.380649e-23
    return 1e6 * c**2 * flux_mJy * 1e-29 / (2 * k * (nu_GHz * 1e9) ** 2 * pixel_sr)


def test_constant_and_temperature_of_one_source() -> None:
    """10 mJy at 31 GHz in a pixel of (1.4 deg / 64)^2 = 1.45764e-7 sr: 0.0325483 * 10 / 31^2 over
    that = 2323.6 uK."""
    assert one_source_uK(1.0, 1.0, 1.0) == pytest.approx(SOURCE_UK, rel=1e-7)
    assert one_source_uK(10.0, 31.0, PIXEL_SR) == pytest.approx(2323.6, rel=1e-4)


def test_every_source_adds_its_spectrum(kernels: Kernels) -> None:
    """Sources of equal flux and spectral index: pixels hold whole multiples of one spectrum."""
    operator = sources(density=2000.0, flux_mJy=[10.0, 10.00001], alpha=[0.7, 0.0])
    cubes = maps(kernels, operator, (4, 64, 64), 2)
    one = one_source_uK(10.0, NU, PIXEL_SR) * (NU / 31.0) ** -0.7
    number = np.rint(cubes[:, 0] / one[0])
    assert set(np.unique(number)) >= {0.0, 1.0, 2.0, 3.0}
    np.testing.assert_allclose(cubes, number[:, None] * one[:, None, None], rtol=3e-6)


@pytest.mark.parametrize("density", [27.2, 2000.0, 40_000.0])
def test_number_is_poisson_and_uniform(kernels: Kernels, density: float) -> None:
    """Means per pixel of 0.013, 0.96 and 19 (which is shared by parts of a pixel)."""
    num = 100
    cubes = maps(kernels, sources(density=density, **ALL), (4, 64, 64), num)
    number = np.rint(cubes[:, 0] / one_source_uK(1.0, 30.0, PIXEL_SR)).astype(int)
    mean = density * (1.4 / 64) ** 2
    size = number.size
    assert number.mean() == pytest.approx(mean, abs=5 * np.sqrt(mean / size))
    spread = np.sqrt((mean + 2 * mean**2) / size)  # of the variance of a Poisson number
    assert number.var() == pytest.approx(mean, abs=5 * spread)
    counts = np.bincount(number.ravel())
    expected = size * stats.poisson.pmf(np.arange(len(counts)), mean)
    kept = expected > 10
    chi2 = ((counts - expected) ** 2 / expected)[kept].sum()
    assert stats.chi2.sf(chi2, kept.sum()) > 1e-4
    for axis in (1, 2):  # no row or column has more than its share
        rows = number.sum(axis=(0, axis))
        assert np.abs(rows - rows.mean()).max() < 5 * np.sqrt(rows.mean())
    assert abs(np.corrcoef(number[:, 1:].ravel(), number[:, :-1].ravel())[0, 1]) < 0.01


def test_default_density_is_that_of_the_paper() -> None:
    """dN/dS = 32.1 per mJy and deg^2 at 1 mJy, slope -2.18: N(> 1 mJy) = 32.1 / 1.18 = 27.2."""
    drawn = sources().draw(Draws(1, "train", np.arange(3, dtype=np.uint64), STAGE_OBSERVE))
    assert drawn["density"].tolist() == pytest.approx([32.1 / 1.18] * 3, rel=1e-3)
    assert drawn["slope"].tolist() == pytest.approx([2.18] * 3)


def fluxes(kernels: Kernels, num: int = 64, **given: Any) -> Array:
    """Flux densities [mJy] of pixels with one source or, rarely, more."""
    grid = {"shape": [4, 256, 256]}
    cubes = maps(kernels, sources(grid, density=400.0, **given), (4, 256, 256), num)
    unit = one_source_uK(1.0, NU[1], np.radians(1.4 / 256) ** 2) * (NU[1] / 31.0) ** -0.39
    value = cubes[:, 1] / unit
    found: Array = value[value > 0]
    return found


@pytest.mark.parametrize("slope", [2.18, 1.0, 0.5, 3.5])
def test_fluxes_follow_the_truncated_power_law(kernels: Kernels, slope: float) -> None:
    """N(<S) = (S1^a - S^a) / (S1^a - S2^a), a = 1 - slope; a logarithm where a = 0."""
    low, high = 1.0, 10**2.5
    found = fluxes(kernels, slope=slope, alpha=[0.39, 0.0])
    assert len(found) > 45_000
    found = found[found < high]  # two sources in one pixel: 0.6 % of them, at most 1.2 % of fluxes
    a = 1.0 - slope

    def cdf(s: Array) -> Array:
        if abs(a) < 1e-6:
            return np.log(s / low) / np.log(high / low)
        return (low**a - s**a) / (low**a - high**a)

    assert found.min() >= low * (1 - 1e-5)
    assert np.abs(np.arange(len(found)) / len(found) - cdf(np.sort(found))).max() < 0.014


def test_flux_beyond_the_measured_counts(kernels: Kernels) -> None:
    """Muchovej et al. 2010 measured 0.7 to 15 mJy. Up to 10^2.5 mJy, 15^-1.18 = 4 % of the sources
    lie beyond, with (15^-.18 - R^-.18) / (1 - R^-.18) = 40 % of the flux, R = 10^2.5."""
    found = fluxes(kernels, alpha=[0.39, 0.0])
    bright = found > 15.0
    assert bright.mean() == pytest.approx(15**-1.18, abs=0.006)  # and pixels with two sources
    share = (15**-0.18 - 10**-0.45) / (1 - 10**-0.45)
    assert share == pytest.approx(0.40, abs=0.005)
    assert found[bright].sum() / found.sum() == pytest.approx(share, abs=0.03)
    within = 27.2 * (1 - 15**-1.18)
    assert within == pytest.approx(26.1, abs=0.05)  # of docs/observe.md


def test_fluxes_of_the_published_pipeline(kernels: Kernels) -> None:
    """1000 logarithmic bins with p ~ S^-2.18 dS at their arithmetic centres."""
    case = load("v1_li_square")
    centres, p = case.arrays["fg_Sbin"], case.arrays["fg_PS"]
    edges = np.logspace(0.0, 2.5, 1001)
    np.testing.assert_allclose(centres, 0.5 * (edges[1:] + edges[:-1]), rtol=1e-12)
    found = fluxes(kernels, alpha=[0.39, 0.0])
    counts, _ = np.histogram(found, edges[::100])
    expected = len(found) * p.reshape(10, 100).sum(axis=1)
    assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected) + 0.012 * expected)


def test_temperatures_of_the_published_pipeline() -> None:
    """Its six sources, with the mean frequency of the band in nu^2, in each of 100 channels."""
    case = load("v1_li_square")
    side = 1.4 / np.sqrt(case.params["fg_omega_pix_deg2"])
    assert side == pytest.approx(16)
    operator = sources({"shape": [100, 16, 16]}, nu="band_mean")
    assert operator.pixel_deg2 == pytest.approx(case.params["fg_omega_pix_deg2"], rel=1e-12)
    flux, alpha = (case.arrays[f"fg_{n}"][:, None] for n in ("S31_mJy", "alpha"))
    found = operator.response.values * flux * 2.0 ** (-alpha * operator.log2_nu.values)
    np.testing.assert_allclose(found, case.arrays["fg_T_uK"], rtol=1e-5)


def test_spectral_indices(kernels: Kernels) -> None:
    """alpha = ln(T1 / T2) / ln(nu2 / nu1) - 2 of pixels with one source is N(0.39, 0.33)."""
    grid = {"shape": [2, 256, 256]}
    cubes = maps(kernels, sources(grid, density=100.0), (2, 256, 256), 64)
    lit = cubes[:, 0] > 0
    ratio = cubes[:, 0][lit] / cubes[:, 1][lit]
    alpha = -np.log(ratio) / np.log(32.0 / 28.0) - 2.0
    assert len(alpha) > 10_000
    assert alpha.mean() == pytest.approx(0.39, abs=5 * 0.33 / np.sqrt(len(alpha)))
    assert alpha.std() == pytest.approx(0.33, abs=5 * 0.33 / np.sqrt(2 * len(alpha)))
    assert stats.kstest(alpha, "norm", (0.39, 0.33)).pvalue > 1e-4
    assert abs(np.corrcoef(alpha, np.log(cubes[:, 0][lit]))[0, 1]) < 0.05


def test_flux_and_number_of_channels_in_jansky(kernels: Kernels) -> None:
    operator = sources(
        {"units": "Jy/sr"}, density=500.0, flux_mJy=[10.0, 10.00001], alpha=[0.7, 0.0]
    )
    cubes = maps(kernels, operator, (4, 64, 64), 2)
    one = 10e-3 / PIXEL_SR * (NU / 31.0) ** -0.7
    number = np.rint(cubes[:, 0] / one[0])
    assert number.max() >= 2
    np.testing.assert_allclose(cubes, number[:, None] * one[:, None, None], rtol=3e-6)


@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_after_a_pool_a_source_adds_what_it_adds_before(kernels: Kernels, reduce: str) -> None:
    """One source in a fine pixel, pooled, against one in the pooled pixel."""
    given = {"density": 3000.0, "flux_mJy": [10.0, 10.00001], "alpha": [0.7, 0.0]}
    pool = {"factor": [5, 4, 2], "reduce": reduce}
    before, pooling = operators({"radio_sources": given, "pool": pool}, shape=[20, 32, 32])
    _, after = operators({"pool": pool, "radio_sources": given}, shape=[20, 32, 32])
    fine = maps(kernels, before, (20, 32, 32), 1)
    spectrum = ref.pool_sum(fine[0], (1, 32, 32)).ravel()
    number = round(spectrum[0] / float(fine[0, 0][fine[0, 0] > 0].min()))
    pooled = pooling.apply(kernels, torch.from_numpy(fine.astype("f4")), torch.zeros(1), {})
    one = pooled[0].numpy().astype(float).sum(axis=(1, 2)) / number
    coarse = maps(kernels, after, (4, 8, 16), 1)[0]
    count = np.rint(coarse / one[:, None, None])
    assert count.max() > 5
    np.testing.assert_allclose(coarse, count * one[:, None, None], rtol=1e-5)


def test_published_weight_of_summed_maps(kernels: Kernels) -> None:
    """Only the channels are summed: 16 times too faint against a map summed over 4 x 4 x 10."""
    pool = {"factor": [10, 4, 4], "reduce": "sum"}
    given = {"density": 500.0}
    both = [
        maps(kernels, operators(o, shape=[20, 32, 32])[1], (2, 8, 8), 2)
        for o in (
            {"pool": pool, "radio_sources": given},
            {"pool": pool, "radio_sources": {**given, "sum_pixels": False}},
            {"pool": {**pool, "reduce": "mean"}, "radio_sources": given},
            {"pool": {**pool, "reduce": "mean"}, "radio_sources": {**given, "sum_pixels": False}},
        )
    ]
    np.testing.assert_allclose(both[0], 16.0 * both[1], rtol=1e-6)
    np.testing.assert_allclose(both[0], 160.0 * both[2], rtol=1e-6)
    np.testing.assert_array_equal(both[2], both[3])
    mixed = {
        "pool": {"factor": [1, 4, 4]},
        "pool_2": {"factor": [10, 1, 1], "reduce": "sum"},
        "radio_sources": {"sum_pixels": False},
    }
    with pytest.raises(ConfigError, match="sum_pixels = false needs pools before it that all sum"):
        operators(mixed, shape=[20, 32, 32])


def test_mean_temperature_of_the_default(kernels: Kernels) -> None:
    """<S> N = 27.2 * 1.18 / 0.18 * (1 - R^-0.18) / (1 - R^-1.18), R = 10^2.5: 115 mJy per deg^2,
    as T at 31 GHz."""
    cubes = maps(kernels, sources({"shape": [1, 16, 16], "nu_GHz": [31.1, 30.9]}), (1, 16, 16), 400)
    ratio = 10**2.5
    expected = 27.2 * 1.18 / 0.18 * (1 - ratio**-0.18) / (1 - ratio**-1.18)
    mean = one_source_uK(expected / np.radians(1.0) ** 2, 31.0, 1.0)
    square = 1.18 / 0.82 * (ratio**0.82 - 1) / (1 - ratio**-1.18)  # <S^2> [mJy^2]
    error = np.sqrt(square * 27.2 * 1.96 * 400) / (expected * 1.96 * 400)
    assert expected == pytest.approx(115.2, rel=1e-3)
    assert cubes.mean() == pytest.approx(mean, rel=5 * error)


def test_absent_and_drawn_density() -> None:
    draws = Draws(9, "train", np.arange(4000, dtype=np.uint64), STAGE_OBSERVE)
    operator = sources(density={"normal": [32.1, 3.0]}, slope={"normal": [2.18, 0.12]}, absent=0.1)
    drawn = operator.draw(draws)
    absent = drawn["density"] == 0
    assert absent.mean() == pytest.approx(0.1, abs=5 * np.sqrt(0.09 / 4000))
    assert stats.kstest(drawn["density"][~absent], "norm", (32.1, 3.0)).pvalue > 1e-4
    assert stats.kstest(drawn["slope"], "norm", (2.18, 0.12)).pvalue > 1e-4
    assert abs(np.corrcoef(drawn["density"][~absent], drawn["slope"][~absent])[0, 1]) < 0.08
    wide = sources(density={"normal": [1.0, 5.0]}).draw(draws)["density"]
    assert wide.min() > 0
    even = sources(density={"uniform": [10.0, 30.0]}).draw(draws)["density"]
    assert stats.kstest(even, "uniform", (10.0, 20.0)).pvalue > 1e-4


def test_absent_sources_add_nothing(kernels: Kernels) -> None:
    assert not maps(kernels, sources(absent=1.0), (4, 64, 64), 4).any()
    assert not maps(kernels, sources(density=0.0), (4, 64, 64), 4).any()


def test_samples_differ_and_do_not_depend_on_their_batch(kernels: Kernels) -> None:
    operator = sources(density=2000.0)
    many, one = (maps(kernels, operator, (4, 64, 64), num) for num in (5, 1))
    np.testing.assert_array_equal(many[0], one[0])
    lit = (many[:, 0] > 0).reshape(5, -1).astype(float)
    correlation = np.corrcoef(lit) - np.eye(5)
    assert np.abs(correlation).max() < 5 / 64
    given = {"density": 2000.0}
    _, second = operators({"radio_sources": given, "radio_sources_2": given})
    for other, seed in ((operator, 4), (second, 3)):
        again = maps(kernels, other, (4, 64, 64), 1, seed=seed)
        assert abs(np.corrcoef((again[:, 0] > 0).ravel(), lit[0])[0, 1]) < 5 / 64


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 7, 5), (2, 1, 300)])
def test_any_shape_of_map(kernels: Kernels, shape: tuple[int, int, int]) -> None:
    """Total flux is that of the field, however it is cut into pixels; also from an upper limit."""
    operator = sources({"shape": list(shape)}, density=500.0, **ALL)
    cubes = maps(kernels, operator, shape, 50)
    pixel = np.radians(1.4) ** 2 / shape[1] / shape[2]
    number = cubes[:, -1].sum(axis=(1, 2)) / one_source_uK(1.0, 30.0, pixel)
    expected = 500.0 * 1.96
    np.testing.assert_allclose(number, np.rint(number), atol=0.1)
    assert number.mean() == pytest.approx(expected, abs=5 * np.sqrt(expected / 50))
    assert number.var() == pytest.approx(expected, rel=5 * np.sqrt(2 / 50))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"density": -1.0}, "observe.radio_sources.density = -1 is outside"),
        ({"density": {"uniform": [-1, 3]}}, r"density = \[-1.0, 3.0\] is outside 0..100000"),
        ({"density": {"log_uniform": [1, 2e5]}}, r"density = .* is outside 0..100000"),
        ({"slope": {"normal": [2.0, -1.0]}}, "slope.normal .* the width is negative"),
        ({"slope": {}}, "slope must be a number, or one of normal, uniform, log_uniform"),
        ({"flux_mJy": [5, 2]}, r"flux_mJy = \[5, 2\] must increase"),
        ({"alpha": [0.39, -0.1]}, "the width is negative"),
        ({"nu": "band"}, "is none of channel, band_mean"),
    ],
)
def test_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sources(**given)
