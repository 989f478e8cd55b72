"""Abundance matching: the painted luminosity function is the one that was asked for."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from support import small

from streamtrain import Grid, paint
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.rows import sky_angles_deg
from streamtrain.cosmology import Cosmology
from streamtrain.luminosity import abundance
from streamtrain.luminosity.columns import model_column


def _phi(luminosity: float, phi_star: float = 8.7e-11, l_min: float = 500.0) -> float:
    """1609.01728, the fiducial model."""
    ratio = luminosity / 2.1e6
    return phi_star * ratio**-1.87 * np.exp(-ratio - l_min / luminosity)


@pytest.mark.parametrize("lower", [1e3, 1e5, 3e6])
def test_integral(lower: float) -> None:
    log10_l, above = abundance.number_above()
    expected = quad(lambda x: _phi(np.exp(x)) * np.exp(x), np.log(lower), np.log(1e9), limit=200)[0]
    assert 10 ** np.interp(np.log10(lower), log10_l[:-1], np.log10(above[:-1])) == pytest.approx(
        expected, rel=1e-5
    )


def test_volume() -> None:
    sky = small.lightcone(num=100)
    near, far = Cosmology().comoving_distance(np.array(small.Z_RANGE))
    side = 2 * np.radians(small.HALF_DEG)
    area = side * 2 * np.sin(side / 2)
    assert abundance.volume_Mpc3(sky) == pytest.approx(area * (far**3 - near**3) / 3, rel=1e-5)


def test_heavier_halos_are_brighter_and_as_many_as_asked(small_sky: Lightcone) -> None:
    luminosity = abundance.matched_luminosity(small_sky)
    order = np.argsort(small_sky.mass_Msun, kind="stable")
    distinct = np.diff(small_sky.mass_Msun[order]) > 0
    assert (np.diff(luminosity[order])[distinct] <= 0).sum() == 0
    volume = abundance.volume_Mpc3(small_sky)
    for lower in (1e6, 5e6):
        expected = volume * quad(lambda x: _phi(np.exp(x)) * np.exp(x), np.log(lower), 21)[0]
        assert abs((luminosity > lower).sum() - expected) <= 1.0


def test_later_parameters(small_sky: Lightcone) -> None:
    """Those of the author's code: 9.6e-11, which all halos have here, and 5000, a faint end."""
    log10_l, above = abundance.number_above(abundance.LATER)
    luminosity = model_column(small_sky, "abundance_matched_L_lim", "linear")
    volume = abundance.volume_Mpc3(small_sky)
    for lower in (2e3, 1e6, 5e6):
        ends = np.log(lower), 21
        expected = quad(lambda x: _phi(np.exp(x), 9.6e-11, 5000.0) * np.exp(x), *ends)[0]
        found = 10 ** np.interp(np.log10(lower), log10_l[:-1], np.log10(above[:-1]))
        assert found == pytest.approx(expected, rel=1e-4)
        if lower > 1e5:
            assert abs((luminosity > lower).sum() - volume * expected) <= 1.0


def test_model_paints_it(small_sky: Lightcone) -> None:
    grid = Grid(fov_deg=(1.19, 1.19), shape=(4, 8, 8), nu_GHz=(34, 26), nu_rest_GHz=115.27)
    _, counts = paint(small_sky, grid, "breysse17")
    luminosity = abundance.matched_luminosity(small_sky)
    inside = grid.channel(small_sky.z_obs) >= 0
    ra, dec = sky_angles_deg(small_sky.x_Mpc, small_sky.y_Mpc, small_sky.z_Mpc)
    inside &= (np.abs(ra) <= 0.595) & (np.abs(dec) <= 0.595)
    expected = np.histogram(luminosity[inside], np.logspace(3.5, 7, 50))[0]
    assert expected.sum() > 10_000
    np.testing.assert_array_equal(counts.numpy(), expected)
