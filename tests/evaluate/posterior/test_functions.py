"""Integrals over a luminosity function: direct sums, and the mean of a painted cube."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import constants
from support import reference as ref
from support import small

from streamtrain import Generator, Grid
from streamtrain.bins import LuminosityBins
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.cosmology import Cosmology
from streamtrain.evaluate.posterior.functions import (
    Functional,
    coarse,
    functionals,
    has_mean,
    uneven,
)


def evenly_spread() -> Lightcone:
    """Halos of which each comoving volume has as many."""
    rng, num, cosmology = np.random.default_rng(5), small.NUM_HALOS, Cosmology()
    ends = cosmology.comoving_distance(np.array(small.Z_RANGE))
    chi = np.cbrt(rng.uniform(*ends**3, num))
    z = np.linspace(*small.Z_RANGE, 2000)
    ra, dec = rng.uniform(-small.HALF_DEG, small.HALF_DEG, (2, num))
    x, y, depth = ref.position(ra, dec, chi)
    at = np.interp(chi, cosmology.comoving_distance(z), z)
    return small.lightcone(5, x_Mpc=x, y_Mpc=y, z_Mpc=depth, z_obs=at)


@small.EXTRAPOLATES
@pytest.mark.parametrize("units", ["uK", "Jy/sr"])
def test_mean_brightness_is_the_mean_of_the_cube(units: str) -> None:
    """All halos are inside the label, in bins of 0.1 dex. What is left is the halos' places along
    the line of sight, 1/chi^2 of each weighted by its L: 0.6 % for these."""
    config = small.config(
        grid=small.GRID | {"units": units},
        emit={"line": {"model": "breysse15", "parameters": {"duty": 1.0}}},
        label={"log10_L": [-2, 9], "bins": 110},
        data={"roll": "quarter"},
    )
    generator = Generator(config, lightcones=[evenly_spread()])
    batch = generator.generate(range(8))
    cosmology = {name: generator.skies.cosmologies[0][name] for name in ("Omega_m", "h")}
    *_, density, brightness = functionals(generator.bins, generator.grid, **cosmology)
    name, unit = ("<T>", "uK") if units == "uK" else ("<I>", "Jy sr-1")
    assert (brightness.name, brightness.unit) == (name, unit)
    counts, cubes = batch.counts.double().numpy(), batch.cube.double().numpy()
    assert counts.sum(1).min() > 7000
    ratio = brightness.of(counts) / cubes.mean((1, 2, 3))
    assert ratio == pytest.approx(1.0, abs=0.02)
    assert ratio.mean() == pytest.approx(1.0, abs=0.007)
    # the same L in a field of other voxels
    coarse = Grid(**(small.GRID | {"units": units, "shape": (3, 7, 7)}))
    *_, again = functionals(generator.bins, coarse, **cosmology)
    assert again.weights == pytest.approx(brightness.weights, rel=1e-12)
    volume = generator.grid.volume_Mpc3(**cosmology)
    middle = 10.0 ** (0.5 * (generator.bin_edges[1:] + generator.bin_edges[:-1]))
    assert density.weights * volume == pytest.approx(middle, rel=3e-3)  # bins of 0.1 dex


@pytest.mark.parametrize("units", ["uK", "Jy/sr"])
def test_mean_brightness_of_a_luminosity_density(units: str) -> None:
    """<T> = c^3 (1+z)^2 / (8 pi k nu_rest^3 H) rho_L (as in 1104.4800), and
    <I> = c / (4 pi nu_rest H) rho_L, the mean over the band's frequencies."""
    grid = Grid(**(small.GRID | {"units": units}))
    *_, density, brightness = functionals(LuminosityBins(), grid, Omega_m=0.31, h=0.68)
    nu = np.linspace(*grid.nu_GHz, 20_001)
    z = grid.nu_rest_GHz / (0.5 * (nu[1:] + nu[:-1])) - 1.0
    H = 68e3 * np.sqrt(0.31 * (1.0 + z) ** 3 + 0.69) / constants.parsec / 1e6  # 1/s
    rest = 1e9 * grid.nu_rest_GHz
    per_Lsun_Mpc3 = ref.LSUN_W / (1e6 * constants.parsec) ** 3
    if units == "uK":
        factor = constants.c**3 * (1.0 + z) ** 2 / (8 * np.pi * constants.k * rest**3 * H) * 1e6
    else:
        factor = constants.c / (4 * np.pi * rest * H) * 1e26
    ratio = brightness.weights / density.weights / per_Lsun_Mpc3
    assert ratio == pytest.approx(factor.mean(), rel=1e-3)


def test_sums_over_bins() -> None:
    bins, grid = LuminosityBins((5.0, 7.0), 4), Grid()
    found = {each.name: each for each in functionals(bins, grid)}
    assert list(found) == ["N(>10^5)", "N(>10^6)", "N(>10^6.5)", "rho_L", "<T>"]
    counts = np.array([[5.0, 7.0, 2.0, 1.0], [0.0, 0.0, 0.0, 3.0]])
    assert found["N(>10^5)"].of(counts).tolist() == [15.0, 3.0]
    assert found["N(>10^6)"].of(counts).tolist() == [3.0, 3.0]
    assert found["N(>10^6.5)"].of(counts).tolist() == [1.0, 3.0]
    edges = 10.0 ** np.array([5.0, 5.5, 6.0, 6.5, 7.0])
    mean = np.diff(edges) / np.diff(np.log(edges))  # of L, where halos are even in ln L
    luminosity = (counts * mean).sum(1) / grid.volume_Mpc3()
    assert found["rho_L"].of(counts) == pytest.approx(luminosity, rel=1e-12)
    assert found["rho_L"].of(counts[0]) == pytest.approx(luminosity[0], rel=1e-12)


def test_integrals_over_wide_bins_are_told() -> None:
    """Of halos whose number falls as 1/L: light that is counted over light that there is."""
    rng = np.random.default_rng(4)
    L = 10**3.5 / rng.uniform(10**-3.5, 1.0, 2_000_000)
    for edges in (
        np.linspace(3.5, 7.0, 50),
        np.linspace(3.5, 7.0, 8),
        np.array([3.5, 5.0, 6.0, 6.5, 7.0]),
    ):
        counts = np.histogram(np.log10(L), edges)[0].astype(float)
        bins = LuminosityBins.between(tuple(edges))
        low, high = 10.0 ** edges[[0, -1]]
        ratio = counts @ bins.mean_Lsun / L[(low <= L) & (high > L)].sum()
        said = coarse(edges, counts)
        if ratio < 1.01:
            assert said == ""
        else:
            told = float(said.split("that is ")[1].split()[0])
            assert told == pytest.approx(ratio, rel=0.02)
    assert coarse(np.array([3.5, 7.0]), np.zeros(1)) == ""


@pytest.mark.parametrize(
    ("band", "rest", "units", "said"),
    [
        ((34.0, 26.0), 115.27, "uK", False),  # COMAP
        ((35.0, 27.0), 115.27, "uK", False),  # COPSS
        ((115.0, 84.0), 230.538, "uK", True),  # mmIME, CO(2-1)
        ((300.0, 210.0), 1900.537, "Jy/sr", True),  # configs/cii.yaml
        ((420.0, 210.0), 1900.537, "Jy/sr", True),  # all of EoR-Spec's band
        ((250.0, 230.0), 1900.537, "Jy/sr", False),
    ],
)
def test_a_mean_brightness_that_rests_on_an_even_spread_is_told(
    band: tuple[float, float], rest: float, units: str, said: bool
) -> None:
    """Of a deep band: one luminosity at its near and far end, over the mean of the volume."""
    grid, cosmology = Grid(nu_GHz=band, nu_rest_GHz=rest, units=units), Cosmology()
    sentence = uneven(grid)
    assert bool(sentence) == said
    z = np.linspace(*grid.z_range, 20_001)
    chi = cosmology.comoving_distance(z)
    seen = 1.0 / (chi * (1.0 if units == "uK" else 1.0 + z)) ** 2
    mean = np.average(0.5 * (seen[1:] + seen[:-1]), weights=np.diff(chi**3))
    ends = f"near end would be {seen[0] / mean:.2f} times as bright, at the far end "
    assert not said or f"{ends}{seen[-1] / mean:.2f} times" in sentence


def test_thresholds_are_edges_of_the_label() -> None:
    """Where an edge is near enough; else the edges nearest to 10 and 10.5, of the brightest ranges
    of this label."""

    def counted(bins: LuminosityBins) -> dict[str, int]:
        found: list[Functional] = functionals(bins, Grid())[:-2]
        return {each.name: int(each.weights.sum()) for each in found}

    between = LuminosityBins.between
    assert counted(between((5.01, 6.0, 7.0))) == {"N(>10^5.01)": 2, "N(>10^6)": 1}
    assert counted(between((8.0, 9.0, 10.0, 11.0))) == {"N(>10^10)": 1}
    assert counted(LuminosityBins((8.0, 11.0), 7)) == {"N(>10^10.14)": 2, "N(>10^10.57)": 1}


def test_a_mean_is_quoted_where_it_is_known() -> None:
    """Where 4000 samples of a log-normal distribution give its mean, which is e^(s^2/2) in closed
    form, again and again, and of counts that are seldom; and not where they do not."""
    rng = np.random.default_rng(3)
    for deviation, stable in ((0.1, True), (1.0, True), (1.2, True), (2.0, False), (4.0, False)):
        draws = np.exp(deviation * rng.normal(size=(200, 4000)))
        off = draws.mean(axis=1) / np.exp(0.5 * deviation**2) - 1.0
        assert (float(np.sqrt(np.mean(off**2))) < 0.06) == stable, deviation
        quoted = np.mean([has_mean(row) for row in draws])
        assert abs(quoted - stable) <= 0.02, deviation
    assert has_mean(rng.poisson(0.12, 4000).astype(float))
    assert has_mean(np.full(4000, 3.0)) and has_mean(rng.normal(size=4000))
    assert has_mean(-np.exp(rng.normal(size=4000)))
