"""Luminosity models against the papers' formulas, and models from a file."""

from __future__ import annotations

import inspect
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import reference as ref
from support import small

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.synthesis.massfunction import mass_function
from streamtrain.config import load_config
from streamtrain.cosmology import Cosmology
from streamtrain.generator.generator import Generator
from streamtrain.generator.paint import paint
from streamtrain.grid import Grid
from streamtrain.luminosity.registry import MODELS, find_model, user_model
from streamtrain.priors import Normal, Uniform
from streamtrain.schema import AssumptionWarning, ConfigError, ModelRangeWarning
from streamtrain.yamltext import apply_override

MASS = np.array([3e10, 1e12, 2e13])
Z = np.array([[2.5], [2.9]])
OTHER_Z = {
    "lagache18": np.array([[4.5], [7.0]]),
    "lidz11": np.array([[6.5], [9.0]]),
    **{f"silva15_m{k}": np.array([[5.5], [8.0]]) for k in (1, 2, 3, 4)},
    **{f"kamenetzky16_co{j}": np.array([[0.12], [0.28]]) for j in range(1, 14)},
}
"""Where a model was not published for the redshifts of Z."""
LATER = {"breysse17", "breysse17_lim"}  # a column of the lightcone: test_abundance.py
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
    model, z = MODELS[name], OTHER_Z.get(name, Z)
    assert model.z_range is not None and model.mass_range_Msun is not None
    assert model.z_range[0] <= z.min() < z.max() <= model.z_range[1]
    assert model.mass_range_Msun[0] <= MASS.min() < MASS.max() <= model.mass_range_Msun[1]
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
    on = evaluate(name, model.on_fraction, z=z)
    np.testing.assert_allclose(on, ref.yang22_on(MASS, z), rtol=1e-12)
    assert np.all((on > 0) & (on <= 1))


@pytest.mark.parametrize(
    ("z", "mean", "shot"), [(1.0, 1.60, 1.82), (2.0, 1.11, 1.20), (3.0, 1.02, 1.05), (4.0, 1, 1)]
)
def test_on_fraction_of_yang22_cii_dims_the_sky(z: float, mean: float, shot: float) -> None:
    """Mean and shot noise of [CII] without the on-fraction over those with it, of the halos of
    Tinker et al. 2008 above 1e10 Msun: an independent recalculation gave these ratios."""
    mass = np.logspace(10, 15, 1001)
    number = mass_function("tinker08").dn_dlog10M(mass, z, Cosmology())
    with np.errstate(over="ignore"):  # the last piece at z = 1, where it is not used
        luminosity = evaluate("yang22_cii", mass=mass, z=z)
    on = evaluate("yang22_cii", MODELS["yang22_cii"].on_fraction, mass=mass, z=z)
    for power, ratio in ((1, mean), (2, shot)):
        light = number * luminosity**power
        assert light.sum() / (on * light).sum() == pytest.approx(ratio, rel=0.004)


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
        ("freeform", {"log10_L": 6.1, "slope": 1.7, "bend_1": 0.4, "bend_2": 0.9, "bend_3": -0.3,
                      "g": 1.5, "tilt": -0.8, "z_pivot": 6.0, "log10_Medge": 10.6,
                      "log10_Mcut": 10.9}),
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
    breysse, duty = MODELS["breysse15"], MODELS["breysse15"].on_fraction
    assert breysse.function(1e12, 3.0) == pytest.approx(2e6)
    assert duty is not None and duty(1e12, 2.84) == pytest.approx(0.0435, rel=0.005)
    assert duty(1e12, 2.84, duty=1.0) == 1.0
    with pytest.raises(ConfigError, match=r"duty = -0\.1 of the model breysse15: a share of halos"):
        breysse.parameters({"duty": -0.1})


@pytest.mark.parametrize("name", ["li16", "chung22", "padmanabhan18", "keating20"])
def test_luminosity_grows_with_the_cube_of_the_rest_frequency(name: str) -> None:
    ratio = evaluate(name, nu_rest_GHz=230.54) / evaluate(name)
    np.testing.assert_allclose(ratio, 8.0, rtol=1e-12)


@pytest.mark.parametrize("name", ["li16", "chung22", "padmanabhan18", "keating20"])
def test_higher_co_lines_have_a_share_of_the_lprime(name: str, small_sky: Lightcone) -> None:
    """L = 4.9e-5 J^3 r_J1 L' of CO(1-0). Boogaard et al. 2020 (2009.04348): r_21 = 0.75 +- 0.11,
    r_31 = 0.77 +- 0.14; kamenetzky16: r_41 = 0.35 at L_FIR = 1e11 Lsun, 0.47 at 1e12."""
    for fir, expected in ((1e11, 0.348), (1e12, 0.470)):
        first, fourth = (
            evaluate(f"kamenetzky16_co{j}", sfr=fir, fir_per_sfr=1.0) / j**3 for j in (1, 4)
        )
        np.testing.assert_allclose(fourth / first, expected, atol=1e-3)
    for upper, ratio in ((2, 0.75), (3, 0.77), (4, 0.35)):
        higher = evaluate(name, nu_rest_GHz=115.27 * upper, r_J1=ratio)
        np.testing.assert_allclose(higher / evaluate(name), upper**3 * ratio, rtol=1e-12)
    model = MODELS[name]
    assert model.defaults["r_J1"] == 1.0
    for nu_rest, given in ((115.271, ()), (117.0, ()), (230.538, ("r_J1",)), (1900.537, ())):
        model.check_ratio(nu_rest, given)
    with pytest.warns(AssumptionWarning, match=rf"{name} is of CO\(1-0\), and CO\(4-3\) is taken"):
        model.check_ratio(461.0408, ("alpha",))


@small.EXTRAPOLATES
def test_an_unsaid_ratio_of_co_lines_is_said(small_sky: Lightcone) -> None:
    """By `paint` and by a generator, unless r_J1 is given; the preset for CO(2-1) gives it."""
    grid = Grid((0.8, 0.8), (4, 8, 8), (68.0, 52.0), 230.538)
    with pytest.warns(AssumptionWarning, match="the parameter r_J1 sets their ratio"):
        whole, _ = paint(small_sky, grid, "li16")
    part, _ = paint(small_sky, grid, "li16", {"r_J1": 0.75})
    np.testing.assert_allclose(part, 0.75 * whole, rtol=1e-5)
    settings = {"nu_GHz": [68.0, 52.0], "nu_rest_GHz": 230.538}
    config = small.config(grid=small.GRID | settings, emit={"line": {"model": "chung22"}})
    with pytest.warns(AssumptionWarning, match="chung22 is of CO"):
        Generator(config, lightcones=[small_sky])
    preset = load_config("configs/comap_co21.yaml").line
    assert preset.components["li16"].parameters == {"r_J1": 0.75}


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


# Where a model holds.


def test_every_model_says_where_it_holds() -> None:
    for name, model in MODELS.items():
        assert model.z_range is not None and model.mass_range_Msun is not None, name
        assert 0.0 <= model.z_range[0] < model.z_range[1] <= 10.0, name
        assert 0.0 <= model.mass_range_Msun[0] <= 1e10 < 1e15 <= model.mass_range_Msun[1], name


def warned(model: Any, sky: Lightcone, grid: Grid, **options: Any) -> list[str]:
    """The warnings of painting."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        paint(sky, grid, model, **options)
    assert all(w.category is ModelRangeWarning for w in caught)
    return [str(w.message) for w in caught]


def test_outside_its_range_a_model_warns_once(small_sky: Lightcone) -> None:
    """26..34 GHz is z = 2.39..3.43."""
    grid = Grid((0.8, 0.8), (4, 8, 8))
    assert warned("li16", small_sky, grid) == []
    assert warned("padmanabhan18", small_sky, grid) == [
        "the model padmanabhan18 is published for z = 0..3, but the band holds z = 2.39..3.43: "
        "its luminosities are extrapolated"
    ]
    below = replace(grid, nu_GHz=(34.0, 29.0))  # z = 2.39..2.97
    assert warned("padmanabhan18", small_sky, below) == []
    above = replace(grid, nu_GHz=(27.5, 26.0))
    deep = replace(small_sky, min_mass_Msun=5e9)
    (message,) = warned("keating16", deep, above, min_mass_Msun=5e9)
    heaviest = small_sky.mass_Msun[above.channel(small_sky.z_obs) >= 0].max()
    assert message == (
        "the model keating16 is published for z = 2.3..3.3 and halos above 1e+10 Msun, but the "
        f"band holds z = 3.19..3.43 and halos of 5e+09..{heaviest:.3g} Msun: its luminosities "
        "are extrapolated"
    )
    generator = small.config(emit={"line": {"model": "lidz11"}})
    with pytest.warns(ModelRangeWarning, match=r"lidz11 is published for z = 6\.\.10, but"):
        Generator(generator, lightcones=[small_sky])


def test_the_heaviest_halo_in_the_band_counts(small_sky: Lightcone) -> None:
    """Of a user's model, which has a range if its function says so."""

    def mine(mass_Msun: Any, z: Any) -> Any:
        return 1e-6 * mass_Msun

    grid = Grid((0.8, 0.8), (4, 8, 8))
    inside = grid.channel(small_sky.z_obs) >= 0
    heaviest = float(small_sky.mass_Msun[inside].max())
    assert user_model(mine).z_range is None
    assert warned(mine, small_sky, Grid((0.8, 0.8), (4, 8, 8), (34.9, 25.7))) == []
    mine.mass_range_Msun = (2e10, 1.001 * heaviest)  # type: ignore[attr-defined]
    assert warned(mine, small_sky, grid) == []
    mine.mass_range_Msun = (2e10, 0.999 * heaviest)  # type: ignore[attr-defined]
    mine.z_range = [2.0, 4.0]  # type: ignore[attr-defined]
    (message,) = warned(mine, small_sky, grid)
    assert message.startswith("the model mine is published for halos of 2e+10..") and (
        "z = " not in message
    )
    for wrong in (3.0, (4.0, 2.0), ("low", "high"), (1.0, 2.0, 3.0)):
        mine.z_range = wrong  # type: ignore[attr-defined]
        with pytest.raises(ConfigError, match=r"mine\.z_range must be \(low, high\), not"):
            user_model(mine)


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


def test_users_model_with_a_duty_cycle(small_sky: Lightcone) -> None:
    """Half of the halos shine at z = 3, and the share is a parameter like others."""

    def mine(mass_Msun: Any, z: Any, *, A: float = 2e-6) -> Any:
        return A * mass_Msun

    def shining(mass_Msun: Any, z: Any, *, duty: float = 0.5) -> Any:
        return duty * (1 + z) / 4

    mine.on_fraction = shining  # type: ignore[attr-defined]
    mine.prior = {"A": (2e-6, 1e-7), "duty": Uniform(0.2, 0.6)}  # type: ignore[attr-defined]
    model = user_model(mine)
    assert model.defaults == {"A": 2e-6, "duty": 0.5}
    assert model.prior("own").names == {"A", "duty"}
    grid = Grid(fov_deg=(1.0, 1.0), shape=(1, 8, 8), nu_GHz=(115.27 / 3.9, 115.27 / 4.1))
    every = paint(small_sky, grid, lambda mass_Msun, z: 2e-6 * mass_Msun)[1].sum().item()
    some = paint(small_sky, grid, mine)[1].sum().item()
    assert some / every == pytest.approx(0.5, abs=4 * np.sqrt(0.25 / every))
