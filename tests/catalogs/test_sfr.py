"""The star-formation rate against numbers of the code it was fitted with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from support import reference as ref
from support import small

from streamtrain import Grid, Lightcone, paint
from streamtrain.catalogs.sfr import heaviest_log10_mass, in_table, log10_sfr, sfr
from streamtrain.cosmology import Cosmology
from streamtrain.schema import ModelRangeWarning

LOG10_MASS = (10.4, 11.4, 12.0, 13.2)
PINNED = {  # z: log10 SFR of the fit's own code (shared/data/sfr_fit.md) at LOG10_MASS
    0.1: (-1.933403767, -0.119848479, 0.295918867, -0.056959549),
    0.8: (-1.466469645, 0.393623203, 1.087222543, 0.872648464),
    1.5: (-1.435574387, 0.369500502, 1.518367201, 1.293976595),
    1.7: (-1.440296997, 0.370749983, 1.572121902, 1.458475340),
    2.0: (-1.445615580, 0.379990924, 1.665548299, 1.631238523),
    2.4: (-1.413886678, 0.444114297, 1.754122897, 1.829516948),
    3.0: (-1.301068796, 0.622555245, 1.872977425, 2.037847580),
    3.4: (-1.194941133, 0.772210301, 1.945429475, 2.123766735),
    5.0: (-0.653587584, 1.382261491, 2.043295143, 2.205127296),
    8.0: (0.356267923, 1.734690623, 2.159649881, 2.987225925),
}


def test_pinned_values() -> None:
    for z, expected in PINNED.items():
        np.testing.assert_allclose(log10_sfr(10 ** np.array(LOG10_MASS), z), expected, atol=2e-9)


def test_against_the_reference() -> None:
    """Everywhere in 0.1 <= z <= 8.1, also where the two fits are blended."""
    rng = np.random.default_rng(6)
    z = np.concatenate([rng.uniform(0.1, 8.1, 5000), rng.uniform(1.45, 1.75, 2000), [1.5, 1.7]])
    mass = 10 ** rng.uniform(10, 15, len(z))
    np.testing.assert_allclose(sfr(mass, z), ref.sfr_fit(mass, z), rtol=1e-10)


def test_shapes() -> None:
    assert log10_sfr(1e12, 3.0).shape == ()
    assert log10_sfr(np.ones((3, 1)) * 1e12, [2.0, 3.0]).shape == (3, 2)
    assert log10_sfr([], []).shape == (0,)


def test_redshift_outside_the_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"covers z = 0\.1\.\.8\.1, not 0\.050\.\.3\.000.*'sfr'"):
        log10_sfr([1e12, 1e12], [0.05, 3.0])
    with pytest.raises(ValueError, match=r"not 3\.000\.\.8\.200"):
        log10_sfr([1e12, 1e12], [3.0, 8.2])
    with pytest.raises(ValueError, match="covers"):
        log10_sfr([1e12], [np.nan])


def test_rates_of_halos_that_are_not_painted_are_no_matter() -> None:
    """Outside the band, or below the mass limit: neither the fit's redshifts nor a column's signs
    are asked of them, and the map is what it was."""
    sky, grid = small.lightcone(num=2000), Grid((1.0, 1.0), (4, 8, 8), (34.0, 26.0))
    low, high = grid.z_range
    z = sky.z_obs.astype(np.float64)
    beyond = z > high
    assert beyond.any() and not beyond.all()
    arrays = (sky.x_Mpc, sky.y_Mpc, sky.z_Mpc, sky.mass_Msun)
    header = {
        "cosmology": sky.cosmology,
        "footprint_deg": sky.footprint_deg,
        "min_mass_Msun": sky.min_mass_Msun,
    }
    far = Lightcone.from_arrays(*arrays, np.where(beyond, 8.9, z), z_range=(low, 9.0), **header)
    expected, _ = paint(sky, grid, "li16", min_mass_Msun=1e11)
    np.testing.assert_array_equal(paint(far, grid, "li16", min_mass_Msun=1e11)[0], expected)
    with pytest.raises(ValueError, match=r"the SFR fit covers z = 0\.1\.\.8\.1"):
        paint(far, Grid((1.0, 1.0), (4, 8, 8), (34.0, 11.6)), "li16", min_mass_Msun=1e11)

    rates = sfr(sky.mass_Msun, z)
    for ignored in (beyond, sky.mass_Msun < 1e11):
        column = {"sfr": np.where(ignored, -1.0, rates)}
        dark = Lightcone.from_arrays(*arrays, z, z_range=sky.z_range, columns=column, **header)
        cube, _ = paint(dark, grid, "li16", min_mass_Msun=1e11)
        np.testing.assert_allclose(cube, expected, rtol=1e-5)


def test_where_the_fitted_table_ends() -> None:
    """The heaviest halos with data in the release of 1207.6105, which ends at z = 7.954; a cubic
    fit to all of the table's ends is within 0.1 dex of these."""
    for z, end in ((5.3, 12.20), (6.0, 11.95), (7.0, 11.50), (7.9, 11.20), (0.3, 15.05)):
        assert float(heaviest_log10_mass(z)) == pytest.approx(end, abs=1e-12)
    z = np.linspace(0.6, 7.95, 300)
    cubic = np.polyval([-0.4773078, -2.434461, -4.871748, 13.84657], np.log10(1 + z) - 0.5)
    assert np.abs(heaviest_log10_mass(z) - np.minimum(cubic, 15.05)).max() < 0.1
    inside = in_table(10 ** np.array([11.9, 12.0, 9.0, 9.0]), [6.0, 6.0, 7.95, 7.96])
    assert inside.tolist() == [True, False, True, False]


def early_sky() -> Lightcone:
    """20 000 halos at z = 7.2..8.1 with masses up to 10^12 Msun."""
    rng = np.random.default_rng(3)
    z = rng.uniform(7.2, 8.1, 20_000)
    ra, dec = rng.uniform(-0.6, 0.6, (2, len(z)))
    x, y, depth = ref.position(ra, dec, Cosmology().comoving_distance(z))
    return Lightcone.from_arrays(
        x, y, depth, 10 ** rng.uniform(10.5, 12.0, len(z)), z, cosmology=Cosmology().to_dict(),
        footprint_deg=(-0.6, 0.6, -0.6, 0.6), z_range=(7.2, 8.1), min_mass_Msun=2.5e10,
    )  # fmt: skip


def test_beyond_the_table_rates_are_a_choice() -> None:
    """The fit's, as asked for, or none as in limlam_mocker; unasked, the fit's with a warning."""
    sky = early_sky()
    grid = Grid((1.19, 1.19), (1, 4, 4), (1900.537 / 8.21, 1900.537 / 9.09), 1900.537)
    with pytest.warns(ModelRangeWarning, match=r"at 10\^11\.\d+ Msun for z = 8\.0: the fit extra"):
        unasked, _ = paint(sky, grid, "silva15_m2", units="Jy/sr")
    fit, _ = paint(sky, grid, "silva15_m2", units="Jy/sr", sfr="fit")
    assert torch.equal(fit, unasked)
    known = in_table(sky.mass_Msun, sky.z_obs)
    assert 0.3 < known.mean() < 0.7
    rates = np.where(known, sfr(sky.mass_Msun, sky.z_obs), 0.0).astype(np.float32)
    given = replace(sky, columns={"sfr": rates})
    some, _ = paint(sky, grid, "silva15_m2", units="Jy/sr", sfr="fit_in_range")
    same, _ = paint(given, grid, "silva15_m2", units="Jy/sr")
    np.testing.assert_allclose(some, same, rtol=2e-6)
    assert some.sum() < 0.6 * fit.sum()


def test_a_few_halos_beyond_the_table_are_not_worth_a_word(small_sky: Lightcone) -> None:
    """z = 2.39..3.43: less than 0.2 % of the squared rates."""
    few = small_sky.mass_Msun.copy()
    few[:1] = 10**13.45
    sky = replace(small_sky, mass_Msun=few)
    assert not in_table(sky.mass_Msun, sky.z_obs).all()
    fit, whole = (
        paint(sky, Grid((0.8, 0.8), (4, 8, 8)), "li16", sfr=s)[0] for s in ("auto", "fit")
    )
    assert torch.equal(fit, whole)
