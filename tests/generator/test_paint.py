"""Painted maps: one halo in closed form, and limlam_mocker's maps halo by halo."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support import reference as ref
from support import small
from support.limlam import CARRIED, SHARED_ONLY, Case, load

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.cosmology import Cosmology
from streamtrain.generator.paint import Painter, paint
from streamtrain.grid import Grid
from streamtrain.numerics.backend import BackendError
from streamtrain.schema import AssumptionWarning

MAX_OF_LARGEST = 2e-5
"""What a voxel may differ by, in units of the map's largest (float32 luminosities)."""


# One halo in closed form.


@small.EXTRAPOLATES
@pytest.mark.parametrize("nu_rest", [115.27, 230.538])
@pytest.mark.parametrize("units", ["uK", "Jy/sr"])
def test_unit_label_in_closed_form(units: str, nu_rest: float) -> None:
    """1e6 Lsun in a voxel of 4 arcmin and 15.6 MHz, from SI constants."""
    z_obs = nu_rest / 30.32 - 1.0
    chi = ref.comoving_distance(z_obs)
    x, y, z = ref.position(0.01, -0.01, chi)
    sky = Lightcone.from_arrays(
        [x], [y], [z], [1e12], [z_obs],
        cosmology=Cosmology().to_dict(), footprint_deg=(-0.1, 0.1, -0.1, 0.1),
        min_mass_Msun=2.5e10, z_range=(z_obs - 0.1, z_obs + 0.1),
    )  # fmt: skip
    grid = Grid((2 / 15, 2 / 15), (2, 2, 2), (30.3432, 30.312), nu_rest)
    cube, counts = paint(
        sky, grid, "breysse15", {"A": 1e-6, "duty": 1.0}, scatter=False, units=units
    )

    omega, nu = np.radians(1 / 15) ** 2, nu_rest / (1 + z_obs) * 1e9
    distance = chi * (1 + z_obs) * ref.MPC_M
    expected = 1e6 * ref.LSUN_W / (4 * np.pi * distance**2 * 15.6e6 * omega)  # W/m2/Hz/sr
    if units == "Jy/sr":
        expected *= 1e26
    else:
        expected *= 1e6 * 299792458.0**2 / (2 * ref.K_BOLTZMANN * nu**2)
    assert float(cube[1, 0, 1]) == pytest.approx(expected, rel=5e-6)
    assert float(cube.sum()) == float(cube[1, 0, 1])
    assert counts.sum() == 1
    assert counts[np.searchsorted(ref.LUMINOSITY_EDGES, 1e6, side="right") - 1] == 1


@small.EXTRAPOLATES
def test_few_halos_are_painted_whole_at_their_own_limit() -> None:
    z_obs = 115.27 / 30.32 - 1.0
    x, y, z = ref.position(0.01, -0.01, ref.comoving_distance(z_obs))
    grid = Grid((2 / 15, 2 / 15), (2, 2, 2), (30.3432, 30.312), 115.27)
    for mass in ([1e12], [3e11, 1e12, 2e12]):
        ones = np.ones(len(mass))
        sky = Lightcone.from_arrays(
            x * ones, y * ones, z * ones, mass, z_obs * ones,
            cosmology=Cosmology().to_dict(), footprint_deg=(-0.1, 0.1, -0.1, 0.1),
            z_range=(z_obs - 0.1, z_obs + 0.1),
        )  # fmt: skip
        _, counts = paint(
            sky, grid, "breysse15", {"A": 1e-6, "duty": 1.0}, min_mass_Msun=sky.min_mass_Msun
        )
        assert counts.sum() == len(mass)
    with pytest.raises(ValueError, match=r"above 2e.12 Msun.* heaviest has 2e.12.* does not count"):
        paint(sky, grid, "breysse15", min_mass_Msun=2e12)
    with pytest.raises(ValueError, match=r"raise it to that, or say .*from_arrays.min_mass_Msun="):
        paint(sky, grid, "breysse15", min_mass_Msun=2.5e10)


@small.EXTRAPOLATES
def test_mean_luminosity_does_not_depend_on_the_scatter() -> None:
    """Sum of the map over 20 000 halos with and without scatter, where the mean is kept."""
    sky, grid = small.lightcone(), Grid((1.2, 1.2), (1, 1, 1), (34.9, 25.65))
    quiet = float(paint(sky, grid, "chung22", scatter=False)[0].sum())
    loud = [float(paint(sky, grid, "chung22", {"sigma": 0.2}, seed=s)[0].sum()) for s in range(40)]
    error = np.std(loud) / np.sqrt(40)
    assert error < 0.005 * quiet  # keeping the median instead would add 11 %
    assert np.mean(loud) == pytest.approx(quiet, abs=5 * error)


def test_scatter_follows_the_seed() -> None:
    sky, grid = small.lightcone(num=2000), Grid((1.0, 1.0), (4, 8, 8))
    first, again, other = (paint(sky, grid, "li16", seed=s)[0].numpy() for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.count_nonzero(first != other) > 0.9 * np.count_nonzero(first)


@small.EXTRAPOLATES
def test_a_map_is_the_sum_of_its_halos() -> None:
    """The reference paints 20 000 halos with a model of the mass and redshift, in both units."""
    sky, grid = small.lightcone(), Grid((0.9, 0.7), (12, 14, 18))
    for units in ("uK", "Jy/sr"):
        pose = {"centre_deg": (0.1, -0.15), "roll_deg": 33.0, "mirror": True}
        cube, counts = paint(
            sky, grid, "padmanabhan18", scatter=False, units=units, allow_empty=True, **pose
        )
        truth, label = ref.paint(
            sky.x_Mpc, sky.y_Mpc, sky.z_Mpc, sky.mass_Msun, sky.z_obs,
            ref.padmanabhan18(sky.mass_Msun, sky.z_obs),
            fov_deg=grid.fov_deg, shape=grid.shape, nu_GHz=grid.nu_GHz, nu_rest_GHz=115.27,
            min_mass_Msun=2.5e10, units=units, **pose,
        )  # fmt: skip
        np.testing.assert_array_equal(cube.numpy() > 0, truth > 0)
        np.testing.assert_allclose(cube.numpy(), truth, rtol=2e-5)
        assert np.abs(counts.numpy() - label).sum() <= 4  # halos within 1e-5 of a bin's edge


def test_errors() -> None:
    sky, grid = small.lightcone(num=500), Grid((1.0, 1.0), (4, 8, 8))
    with pytest.raises(ValueError, match=r"no halo of small-1 is left above 1e\+15 Msun"):
        paint(sky, grid, "li16", min_mass_Msun=1e15)
    with pytest.raises(ValueError, match="halos are too bright for the cube's fixed-point range"):
        paint(sky, grid, "breysse15", {"A": 1e6, "duty": 1.0})
    with pytest.raises(ValueError, match=r"needs the column 'age', which small-1 does not have"):
        paint(sky, grid, lambda mass_Msun, z, *, age: age)
    with pytest.raises(ValueError, match="units 'K' is none of uK, Jy/sr"):
        paint(sky, grid, "li16", units="K")  # type: ignore[arg-type]
    dark = small.lightcone(num=500, columns={"sfr": np.full(500, -1.0)})
    with pytest.raises(ValueError, match=r"column 'sfr' of small-1 holds -1: .* not negative"):
        paint(dark, grid, "li16")


def test_room_for_bright_halos() -> None:
    """The same map, but for the rounding of its fixed-point numbers, and brighter halos."""
    sky, grid = small.lightcone(num=500), Grid((1.0, 1.0), (4, 8, 8))
    roomy = replace(grid, brightest_Lsun=1e15)
    assert grid.fixed_point_exponent - roomy.fixed_point_exponent in (19, 20)
    usual, counts = paint(sky, grid, "breysse15", {"duty": 1.0})
    cube, same = paint(sky, roomy, "breysse15", {"duty": 1.0})
    rounding = 2.0**-roomy.fixed_point_exponent * len(sky)
    np.testing.assert_allclose(cube.numpy(), usual.numpy(), rtol=1e-6, atol=rounding)
    assert (same == counts).all()
    bright, _ = paint(sky, roomy, "breysse15", {"A": 1e2, "duty": 1.0})
    np.testing.assert_allclose(
        bright.numpy(), usual.numpy() * (1e2 / 2e-6), rtol=1e-5, atol=rounding
    )
    with pytest.raises(ValueError, match=r"brightest_Lsun = 1e\+20 is outside"):
        replace(grid, brightest_Lsun=1e20)


SKY = small.lightcone(num=500)
GRID = Grid((1.0, 1.0), (4, 8, 8))


def said(error: BaseException) -> str:
    """A refusal: one sentence."""
    text = str(error)
    assert "\n" not in text and "Error" not in text
    return text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lightcone": "sky.h5"}, "sky.h5: there is no such file"),
        ({"model": 3}, "the model int is not a function of"),
        ({"model": lambda mass_Msun, z: None}, "must return the luminosity .* type NoneType"),
        ({"model": lambda mass_Msun, z: np.ones(3)}, "must return the luminosity .* ndarray"),
        ({"scatter": "foo"}, "scatter = 'foo' is none of True, False, 'mean', 'median'"),
        ({"scatter": 1}, "scatter = 1 is none of"),
        ({"scatter": None}, "scatter = None is none of"),
        ({"parameters": {"sigma_sfr": -0.3}}, "sigma_sfr = -0.3 of the model li16: a scatter is"),
        ({"parameters": {"alpha": float("nan")}}, "alpha = nan is not a finite number"),
        ({"parameters": {"alpha": float("inf")}}, "alpha = inf is not a finite number"),
        ({"parameters": {"alpha": [1.3, 1.4]}}, "alpha must be one number, not an array of shape"),
        ({"seed": float("nan")}, "the seed must be a whole number, not nan"),
        ({"seed": -1}, "seed -1 is outside"),
        ({"roll_deg": float("nan")}, "roll_deg = nan is not a finite number"),
        ({"roll_deg": "3"}, "roll_deg must be numbers, not '3'"),
        ({"mirror": 1}, "mirror must be True or False, not 1"),
        ({"centre_deg": (0.0, float("nan"))}, "centre_deg = nan is not a finite number"),
        ({"centre_deg": (0.0, 95.0)}, r"centre_deg = \(0, 95\): its dec lies beyond a pole"),
        ({"min_mass_Msun": float("nan")}, "min_mass_Msun = nan is not a finite number"),
        ({"min_mass_Msun": -1e11}, "min_mass_Msun = -1e.11 must be above 0"),
        ({"units": ""}, "units '' is none of uK, Jy/sr"),
        ({"sfr": 3}, "sfr must be text, not 3"),
        ({"allow_empty": "yes"}, "allow_empty must be True or False, not 'yes'"),
    ],
)
def test_odd_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        paint(**({"lightcone": SKY, "grid": GRID, "model": "li16"} | options))
    said(caught.value)


@pytest.mark.parametrize("device", ["cdua", None, "mps"])
def test_odd_devices(device: Any) -> None:
    with pytest.raises(BackendError, match=f"device '{device}' is n"):
        paint(SKY, GRID, "li16", device=device)


def test_arguments_with_units() -> None:
    units = pytest.importorskip("astropy.units")
    grid = Grid([48 * units.arcmin] * 2, (4, 8, 8), [0.034, 0.026] * units.THz)  # type: ignore[arg-type]
    assert grid == Grid((0.8, 0.8), (4, 8, 8), (34.0, 26.0))
    given = {"roll_deg": np.pi / 2 * units.rad, "min_mass_Msun": 1e41 * units.kg,
             "centre_deg": [6, 0] * units.arcmin}  # fmt: skip
    limit = float((1e41 * units.kg).to("Msun").value)
    plain = {"roll_deg": 90.0, "min_mass_Msun": limit, "centre_deg": (0.1, 0.0)}
    cube, counts = paint(SKY, grid, "li16", **given)
    expected, numbers = paint(SKY, grid, "li16", **plain)
    torch.testing.assert_close(cube, expected, rtol=1e-6, atol=0)
    assert torch.equal(counts, numbers)
    with pytest.raises(ValueError, match="min_mass_Msun is in 'K' and is due in Msun"):
        paint(SKY, grid, "li16", min_mass_Msun=1e10 * units.K)  # type: ignore[arg-type]


@small.EXTRAPOLATES
@pytest.mark.parametrize(
    "options",
    [
        {"grid": Grid((1.3, 0.5), (4, 8, 8))},
        {"grid": Grid((0.5, 1.205), (4, 8, 8))},
        {"roll_deg": 45.0},
        {"roll_deg": -30.0, "mirror": True},
        {"centre_deg": (0.2, 0.0)},
        {"centre_deg": (0.0, -0.103)},
        {"centre_deg": (180.0, 0.0)},
        {"grid": Grid((1.0, 1.0), (4, 8, 8), (35.1, 26.0))},
        {"grid": Grid((1.0, 1.0), (4, 8, 8), (34.0, 25.5))},
    ],
)
def test_a_field_that_the_lightcone_does_not_fill(options: dict[str, Any]) -> None:
    """It is refused, and painted where the user wants it partly empty."""
    options = {"lightcone": SKY, "grid": GRID, "model": "li16"} | options
    band = options["grid"].nu_GHz != (34.0, 26.0)
    wanted = "holds halos at z = 2.300..3.500, but" if band else "the field reaches over ra .* but"
    with pytest.raises(ValueError, match=wanted + " .*allow_empty=True leaves the rest") as caught:
        paint(**options)
    said(caught.value)
    if options.get("centre_deg", (0, 0))[0] == 180.0:
        with pytest.raises(ValueError, match="no halo of small-1 is left"):
            paint(**options, allow_empty=True)
    else:
        assert paint(**options, allow_empty=True)[1].sum() > 0


@small.EXTRAPOLATES
@pytest.mark.parametrize(
    "options",
    [
        {"grid": Grid((1.2, 1.2), (4, 8, 8))},
        {"grid": Grid((1.2, 1.2), (4, 8, 8)), "roll_deg": 270.0},
        {"grid": Grid((0.84, 0.84), (4, 8, 8)), "roll_deg": 45.0},
        {"centre_deg": (0.1, -0.1), "mirror": True},
        {"grid": Grid((1.0, 1.0), (4, 8, 8), (34.9, 25.65))},
    ],
)
def test_a_field_that_just_fits(options: dict[str, Any]) -> None:
    options = {"lightcone": SKY, "grid": GRID, "model": "li16"} | options
    cube, counts = paint(**options)
    there = paint(**options, allow_empty=True)
    assert torch.equal(cube, there[0]) and torch.equal(counts, there[1])


def test_masses_below_the_limit_of_the_lightcone() -> None:
    for allow_empty in (False, True):
        with pytest.raises(
            ValueError, match=r"above 2.5e\+10 Msun only, but min_mass_Msun = 2e\+10"
        ):
            paint(SKY, GRID, "li16", min_mass_Msun=2e10, allow_empty=allow_empty)
    with pytest.warns(
        AssumptionWarning, match=r"taken for complete above min_mass_Msun = 2\.4e\+10"
    ):
        assert paint(SKY, GRID, "li16", min_mass_Msun=2.4e10)[1].sum() > 0


@small.EXTRAPOLATES
def test_a_band_that_the_lightcone_nearly_reaches_over() -> None:
    low, high = (115.27 / (1.0 + z) for z in (3.504, 2.296))  # the lightcone: 2.3 to 3.5
    paint(SKY, replace(GRID, nu_GHz=(high, low)), "li16")
    narrow = replace(GRID, nu_GHz=(28.0, low))
    said = r"z = 2\.3000\.\.3\.5000 of the band's z = 3\.1168\.\.3\.5040: 1\.0 % of the band at its"
    with pytest.warns(AssumptionWarning, match=said):
        paint(SKY, narrow, "li16")


def test_a_painter_makes_the_maps_of_paint(small_sky: Lightcone) -> None:
    """One by one and a list at once, whatever was painted before; alpha is the only difference."""
    grid = Grid((0.35, 0.35), (4, 16, 16))
    painter = Painter(small_sky, grid, "li16", min_mass_Msun=5e10)
    assert painter.parameters["alpha"] == 1.37
    np.testing.assert_array_equal(painter.bin_edges, np.linspace(3.5, 7.0, 50))
    sweep = [{"alpha": 1.0}, None, {"alpha": 1.3, "beta": 0.1}]
    where: dict[str, Any] = {"seed": 7, "roll_deg": 30.0, "mirror": True}
    cubes, counts = painter.paint(sweep, **where)
    assert cubes.shape == (3, 4, 16, 16) and counts.shape == (3, 49)
    for parameters, cube, histogram in zip(sweep, cubes, counts, strict=True):
        alone = paint(small_sky, grid, "li16", parameters, min_mass_Msun=5e10, **where)
        again = painter.paint(parameters, **where)
        for one, other, among in zip(alone, again, (cube, histogram), strict=True):
            assert torch.equal(one, other) and torch.equal(one, among)
    assert not torch.equal(cubes[0], cubes[1])
    assert repr(painter).startswith("Painter(li16, ")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ([], "holds no set"),
        ("alpha", "must be a mapping"),
        (["alpha"], "must be a mapping"),
        ([{"alpha": 1.0}, {"alhpa": 1.0}], "no parameter 'alhpa'"),
        ([{"alpha": "x"}], "the parameter alpha"),
    ],
)
def test_parameters_that_no_painter_takes(
    small_sky: Lightcone, parameters: Any, message: str
) -> None:
    painter = Painter(small_sky, Grid((0.35, 0.35), (4, 16, 16)), "li16", min_mass_Msun=5e10)
    with pytest.raises(ValueError, match=message):
        painter.paint(parameters)


def test_a_painter_looks_at_luminosities(small_sky: Lightcone) -> None:
    def sinking(mass_Msun: Any, z: Any, *, amplitude: float = 1e-6) -> Any:
        return amplitude * mass_Msun

    painter = Painter(small_sky, Grid((0.35, 0.35), (4, 16, 16)), sinking, min_mass_Msun=5e10)
    painter.paint()
    with pytest.raises(ValueError, match="sinking gives L = -"):
        painter.paint([{"amplitude": 1e-6}, {"amplitude": -1e-6}])


def test_bins_of_the_caller(small_sky: Lightcone) -> None:
    """The halos of seven usual bins are those of one between their ends; the map is the same."""

    def line(mass_Msun: Any, z: Any, *, a: float = 1e-7, sigma_dex: float = 0.4) -> Any:
        return a * mass_Msun

    grid = Grid((0.4, 0.4), (4, 8, 8))
    usual = paint(small_sky, grid, line)
    seven = paint(small_sky, grid, line, bin_edges=usual.bin_edges[::7])
    assert torch.equal(seven.counts, usual.counts.reshape(-1, 7).sum(1).to(torch.int32))
    assert torch.equal(seven.cube, usual.cube) and usual.counts.sum() > 100
    edges = np.linspace(8, 11, 7)
    bright = {"a": usual.about["parameters"]["a"] * 1e4}
    roomy = replace(grid, brightest_Lsun=1e13)
    chosen = Painter(small_sky, roomy, line, bin_edges=edges.tolist())
    found = chosen.paint([bright, {}])
    assert found.counts.shape == (2, 6) and found.counts[0].sum() > found.counts[1].sum()
    np.testing.assert_array_equal(found.bin_edges, edges)
    np.testing.assert_array_equal(chosen.bin_edges, edges)
    assert int(paint(small_sky, roomy, line, bright).counts.sum()) < found.counts[0].sum()
    for wrong, message in (
        ([7.0], r"bin_edges must be 2 to 1001 numbers, not of shape \(1,\)"),
        ([[6, 7], [7, 8]], "bin_edges must be 2 to 1001 numbers"),
        ([6, 6, 7], "bin_edges must increase"),
        ([1e6, 1e7], r"they are log10\(L / Lsun\), not 1e\+06 .. 1e\+07"),
        ([6, float("nan")], "bin_edges must increase"),
        ("label", "bin_edges must be numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            paint(small_sky, grid, line, bin_edges=wrong)


@pytest.mark.parametrize("logarithm", [np.log10, np.log])
def test_logarithms_of_luminosities_are_said(small_sky: Lightcone, logarithm: Any) -> None:
    def line(mass_Msun: Any, z: Any) -> Any:
        return logarithm(1e-6 * mass_Msun)

    with pytest.warns(AssumptionWarning, match="line gives halos L = .* L itself is wanted"):
        paint(small_sky, Grid((0.35, 0.35), (4, 16, 16)), line, min_mass_Msun=5e10)


def test_luminosities_that_are_none() -> None:
    """L below zero, infinite or no number, for one halo of the field or all of them."""
    ra, dec, _ = ref.sky(SKY.x_Mpc, SKY.y_Mpc, SKY.z_Mpc)
    inside = (np.abs(ra) < 0.5) & (np.abs(dec) < 0.5) & (GRID.channel(SKY.z_obs) >= 0)
    heaviest = float(SKY.mass_Msun[inside].max())

    def line(
        mass_Msun: Any, z: Any, *, constant: float = 1e5, slope: float = 0.0, pivot: float = 0.0,
        least: float = 0.0, share: float = 1.0,
    ) -> Any:  # fmt: skip
        growth = 1.0 + pivot * (z - 3.0)
        root = np.sqrt(mass_Msun - least) / np.sqrt(mass_Msun - least)
        return (constant - slope * mass_Msun / heaviest) * growth * root / share

    bad: list[tuple[str, dict[str, float]]] = [
        ("L = -1e.05 Lsun for a .*([0-9]+) of \\1 halos", {"constant": -1e5}),
        ("L = -.* Lsun for .*[(]1 of [0-9]+ halos[)]", {"slope": 1.0001e5}),
        ("L = -.* Lsun for a halo of .* at z = 2[.]", {"pivot": 3.0}),
        ("L = nan Lsun", {"least": 1e11}),
        ("L = inf Lsun", {"share": 0.0}),
    ]
    for message, parameters in bad:
        with pytest.raises(ValueError, match=f"line gives {message}.*finite and not ne") as caught:
            paint(SKY, GRID, line, parameters)
        said(caught.value)
    with pytest.raises(ValueError, match="breysse15 gives L = -"):
        paint(SKY, GRID, "breysse15", {"A": -1e-6})
    dark = paint(SKY, GRID, lambda mass_Msun, z: np.where(mass_Msun < 1e11, 0.0, 1e5))[1]
    assert dark.sum() == np.count_nonzero(inside & (SKY.mass_Msun >= 1e11))
    # of the halos outside the field nothing is asked
    near = (np.abs(ra) < 0.2) & (np.abs(dec) < 0.2)
    least = float(SKY.mass_Msun[near].max()) / heaviest
    assert least < 0.9
    assert paint(SKY, Grid((0.2, 0.2), (4, 8, 8)), line, {"slope": 1e5 / least})[1].sum() > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fov_deg": (1.4,)}, r"fov_deg must be \(ra, dec\), not \[1.4\]"),
        ({"fov_deg": (0.0, 1.0)}, r"fov_deg = \(0.0, 1.0\) is outside 0..20 deg"),
        ({"fov_deg": (-1.0, 1.0)}, "is outside 0..20 deg"),
        ({"fov_deg": (1.0, 21.0)}, "is outside 0..20 deg"),
        ({"fov_deg": (float("nan"), 1.0)}, "fov_deg = nan is not a finite number"),
        ({"fov_deg": ("1", "1")}, "fov_deg must be numbers, not '1'"),
        ({"nu_GHz": (26.0, 34.0)}, "must run from high to low"),
        ({"nu_GHz": (34.0, 0.0)}, "must run from high to low"),
        ({"nu_GHz": (120.0, 110.0)}, r"below nu_rest_GHz = 115\.27"),
        ({"nu_GHz": (34.0, float("nan"))}, "nu_GHz = nan is not a finite number"),
        ({"nu_GHz": 34.0}, r"nu_GHz must be \(high, low\), not 34.0"),
        ({"nu_rest_GHz": float("inf")}, "nu_rest_GHz = inf is not a finite number"),
        ({"nu_rest_GHz": "CO"}, "nu_rest_GHz must be numbers, not 'CO'"),
        ({"shape": (4, 8)}, r"shape = \(4, 8\) must be three positive numbers"),
        ({"shape": (0, 8, 8)}, "must be three positive numbers"),
        ({"shape": (True, 8, 8)}, "shape must be numbers, not truth values"),
        ({"units": None}, "units 'None' is none of uK, Jy/sr"),
    ],
)
def test_what_is_no_grid(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Grid(**settings)
    said(caught.value)


# limlam_mocker.


@pytest.fixture(params=[*CARRIED[:2], *SHARED_ONLY])
def case(request: pytest.FixtureRequest) -> Case:
    return load(request.param)


def lightcone_of(case: Case, **columns: NDArray[Any]) -> Lightcone:
    """Its halos, few and in a part of the band."""
    return Lightcone.from_arrays(
        *case.halos(), cosmology=Cosmology().to_dict(), columns=columns,
        min_mass_Msun=case.params["min_mass"],
    )  # fmt: skip


def painted(case: Case, sky: Lightcone) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Our map in limlam's constants and conventions, and our counts."""
    params, intensity = case.params, case.params["units"] == "intensity"
    names = {
        "Breysse": ("breysse15", ["A", "b"]),
        "Padmanabhan": ("padmanabhan18", []),
        "Li": ("li16", ["log10_delta_mf", "alpha", "beta"]),
    }
    model, letters = names[params["model"]]
    always = {"duty": 1.0} if model == "breysse15" else {}
    grid = Grid(**case.grid(), nu_rest_GHz=params["nu_rest"])
    cube, counts = paint(
        sky, grid, model, dict(zip(letters, params["coeffs"] or [], strict=False)) | always,
        scatter=False, min_mass_Msun=params["min_mass"], units="Jy/sr" if intensity else "uK",
        allow_empty=True,
    )  # fmt: skip
    constant = ref.K_JY_LIMLAM / ref.K_JY if intensity else ref.K_T_LIMLAM / ref.K_T
    # limlam keeps L = 4.9e-5 L' for every line
    lines = (115.27 / params["nu_rest"]) ** 3 if model != "breysse15" else 1.0
    return cube.numpy() * (constant * lines), counts.numpy()


@small.ASSUMES
@small.EXTRAPOLATES
def test_maps_of_limlam(case: Case) -> None:
    """With limlam's own star-formation rates: every voxel, and no halo in another one."""
    columns = {}
    if "sfr" in case.arrays:
        columns["sfr"] = np.zeros(len(case.arrays["keep"]))
        columns["sfr"][case.arrays["keep"]] = case.arrays["sfr"]
    cube, counts = painted(case, lightcone_of(case, **columns))
    truth = case.map("map")
    np.testing.assert_array_equal(cube > 0, truth > 0)
    assert np.abs(cube - truth).max() < MAX_OF_LARGEST * truth.max()
    np.testing.assert_allclose(cube, truth, rtol=3e-5)
    if case.params["nu_rest"] == 115.27:  # else L is not limlam's
        np.testing.assert_array_equal(counts, case.arrays["lum_dN"])


@small.ASSUMES
@pytest.mark.parametrize("name", SHARED_ONLY)
def test_our_star_formation_rate_is_close_to_limlams(name: str, shared: Path) -> None:
    """Per halo within 6 % in luminosity, and the whole map within 1 %."""
    case = load(name)
    kept = case.arrays["keep"]
    _, _, _, mass, z_obs = (a[kept] for a in case.halos())
    _, alpha, _ = case.params["coeffs"][:3]
    table_end = np.polyval([-0.4773078, -2.434461, -4.871748, 13.84657], np.log10(1 + z_obs) - 0.5)
    inside = np.log10(mass) < table_end - 0.1  # beyond it the table has no data
    ratio = (ref.sfr_fit(mass, z_obs) / case.arrays["sfr"]) ** (1 / alpha)
    assert np.mean(inside) > 0.999
    assert np.abs(ratio[inside] - 1).max() < 0.06
    cube, _ = painted(case, lightcone_of(case))
    truth = case.map("map")
    np.testing.assert_array_equal(cube > 0, truth > 0)
    assert cube.sum() == pytest.approx(truth.sum(), rel=0.01)


# Halos on edges.


def test_halos_on_edges() -> None:
    """Each of v6's tie halos alone: ours is limlam's float64 arithmetic, except where stated."""
    case = load("v6_edge_ties")
    x, y, z, mass, z_obs = case.halos()
    ties = case.arrays["tie_rows"]
    ra, dec, _ = ref.sky(x, y, z)
    nu = case.params["nu_rest"] / (1 + z_obs)
    voxel = ref.voxel_number(ra, dec, nu, ref.edges(**case.grid()))
    voxel[~case.arrays["keep_f64"]] = -1
    elsewhere, other_bin = [], []
    for n, row in enumerate(ties):
        alone = np.where(np.arange(len(mass)) == row, mass, 1e9)  # the others fail the mass cut
        sky = Lightcone.from_arrays(x, y, z, alone, z_obs, cosmology=Cosmology().to_dict())
        luminosity = mass[row] * case.params["coeffs"][0]
        label = ref.luminosity_counts([luminosity])
        try:
            cube, counts = painted(case, sky)
        except ValueError as error:
            assert "no halo" in str(error)
            assert voxel[row] == -1
            continue
        if np.flatnonzero(cube).tolist() != [voxel[row]]:
            elsewhere.append(n)
        if counts.tolist() != label.tolist():
            other_bin.append(n)
    # On edges of pixels (0..12: ra or dec is zero) and channels (13..21), with M equal to the cut
    # (25..28: not painted) or above it (29..32), at the ends of the band (33..36): all agree.
    assert elsewhere == []
    # 37, 38: L = 1e7, the closed end of the last bin. log2 L rounded to float32 is above it: they
    # are overflow. On the edges 1e5, 1e6 and the last but one (41..43) all agree.
    assert other_bin == [37, 38]


def test_map_of_halos_on_edges() -> None:
    """v6 as a whole: limlam's float64 map; its float32 map has two halos more."""
    case = load("v6_edge_ties")
    cube, counts = painted(case, lightcone_of(case))
    truth = case.map("map_f64")
    np.testing.assert_array_equal(cube > 0, truth > 0)
    assert np.abs(cube - truth).max() < MAX_OF_LARGEST * truth.max()
    # rows 33, 34: z = float32(z_i), which is below z_i, so nu is above the band (in float64)
    more = case.arrays["keep"] & ~case.arrays["keep_f64"]
    ties = case.arrays["tie_rows"]
    assert sorted(ties[33:35]) == np.flatnonzero(more).tolist()
    _, _, _, mass, z_obs = case.halos()
    assert np.all(case.params["nu_rest"] / (1 + z_obs[more]) > case.params["nu_i"])
    lost = ref.luminosity_counts(mass[more] * case.params["coeffs"][0])
    lost[48] += 2  # rows 37, 38, as above
    np.testing.assert_array_equal(case.arrays["lum_dN"] - counts, lost)


@pytest.mark.gpu
@small.EXTRAPOLATES
@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_a_gpu_paints_the_same_bits(small_sky: Lightcone, device: str) -> None:
    grid = Grid(fov_deg=(0.8, 0.8), shape=(9, 21, 21), nu_GHz=(34, 26), units="Jy/sr")
    for model in ("li16", "yang22_co10", "lidz11"):
        cube, counts = paint(small_sky, grid, model, seed=3)
        there, counted = paint(small_sky, grid, model, seed=3, device=device)
        assert there.device.type == "cuda"
        assert torch.equal(there.cpu(), cube) and torch.equal(counted.cpu(), counts)


def test_the_grid_says_the_units(small_sky: Lightcone) -> None:
    kelvin, jansky = (
        Grid(fov_deg=(0.8, 0.8), shape=(9, 21, 21), nu_GHz=(34, 26), units=u)
        for u in ("uK", "Jy/sr")
    )
    cube, _ = paint(small_sky, jansky, "li16")
    assert torch.equal(cube, paint(small_sky, kelvin, "li16", units="Jy/sr")[0])
    assert not torch.equal(cube, paint(small_sky, kelvin, "li16")[0])
