"""The luminosity function without a model: what its priors hold, and how often."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import lsq_linear
from support import reference as ref
from support import small

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.synthesis.massfunction import mass_function
from streamtrain.config import load_config
from streamtrain.cosmology import Cosmology
from streamtrain.generator.generator import Generator
from streamtrain.luminosity import abundance
from streamtrain.luminosity.freeform import AT_Z6, AT_Z29, FREEFORM, Halos, Plausible
from streamtrain.luminosity.registry import MODELS
from streamtrain.networks.network import build_network
from streamtrain.numerics.rng import STAGE_MODEL, Draws
from streamtrain.priors import Fixed, Normal, Prior, Sometimes, Uniform
from streamtrain.train.normalisation import set_normalisation

Float = NDArray[np.float64]
TINKER08 = mass_function("tinker08")
LOG10_MASS = np.arange(10.5, 13.01, 0.05)
LIGHTER = np.round(np.arange(9.9, 10.5, 0.05), 2)
COMAP = (2.39, 2.9, 3.43)


def draw(name: str, num: int = 4000) -> dict[str, Float]:
    draws = Draws(1, "train", np.arange(num, dtype=np.uint64), STAGE_MODEL)
    return FREEFORM.prior(name).draw(draws, FREEFORM.defaults)


def condition(name: str) -> Plausible:
    found = FREEFORM.prior(name).constraint
    assert isinstance(found, Plausible)
    return found


# Every published model lies in the support.


@dataclass(frozen=True)
class Law:
    """What halos of a mass [Msun] at z do by a published model; [num_z, num_masses] each."""

    mean_L: Float
    """Mean luminosity of those that shine [Lsun]."""
    share: Float
    """Share that shines."""
    sigma_dex: float
    """Log-normal scatter of those that shine, the mean over masses and redshifts [dex]."""


def law_of(name: str, log10_mass: Float, redshifts: tuple[float, ...], **parameters: float) -> Law:
    """A published model, from its own functions, with rates of star formation of the reference."""
    mass, z = 10.0**log10_mass, np.array(redshifts)[:, None]
    nothing = np.zeros((len(z), len(mass)))
    if name in ("breysse17", "breysse17_lim"):
        rows = [_matched(name, mass, one) for one in redshifts]
        return Law(np.array(rows), nothing + 1.0, 0.0)
    model = MODELS[name]
    given: dict[str, Any] = {**model.defaults, **parameters, "sfr": ref.sfr_fit(mass, z)}
    given["nu_rest_GHz"] = model.nu_rest_GHz or 115.27

    def value(function: Any) -> Float:
        arguments = function.__code__.co_varnames[: function.__code__.co_argcount]
        arguments += function.__code__.co_varnames[
            function.__code__.co_argcount : function.__code__.co_argcount
            + function.__code__.co_kwonlyargcount
        ]
        taken = {k: v for k, v in given.items() if k in arguments}
        with np.errstate(over="ignore"):  # pieces of yang22_cii where they are not used
            return np.asarray(function(mass, z, **taken) + nothing)

    light, sigma = value(model.function), 0.0
    if model.scatter is not None:
        of_ln, _ = model.scatter({**model.defaults, **parameters})
        sigma = float(of_ln) / np.log(10)
        if model.preserves == "median":
            light = light * np.exp(0.5 * of_ln**2)
    elif model.sigma_dex is not None:
        sigma = float(value(model.sigma_dex).mean())
    share = value(model.on_fraction) if model.on_fraction is not None else nothing + 1.0
    return Law(light, share, sigma)


def _matched(name: str, mass: Float, z: float) -> Float:
    """By abundance matching with the halos of Tinker et al. 2008: 0 beyond the faintest source."""
    faint_end = abundance.PUBLISHED if name == "breysse17" else abundance.LATER
    log10_l, above = abundance.number_above(faint_end)
    number = [float(TINKER08.number_density((m, 1e16), z, Cosmology())) for m in mass]
    matched = np.interp(-np.array(number), -above, log10_l)
    return np.where(np.array(number) < above[0], 10.0**matched, 0.0)


def bounds_of(given: Any) -> tuple[float, float]:
    """Ends of a distribution; of a normal one three widths, where it is no tail."""
    given = given.otherwise if isinstance(given, Sometimes) else given
    if isinstance(given, Normal):
        low, high = given.mean - 3 * given.width, given.mean + 3 * given.width
        return max(low, given.low), min(high, given.high)
    assert isinstance(given, Uniform)
    return given.low, given.high


def assert_in_support(prior: Prior, theta: dict[str, float]) -> None:
    for name, given in prior.parameters.items():
        if isinstance(given, Fixed):
            assert theta[name] == given.value
        elif not (isinstance(given, Sometimes) and theta[name] == given.value):
            low, high = bounds_of(given)
            assert low - 1e-9 <= theta[name] <= high + 1e-9, (name, theta[name])
    assert prior.constraint is not None
    assert prior.constraint({n: np.array([v]) for n, v in theta.items()})[0], theta


def fitted(
    prior: Prior, law: Law, redshifts: tuple[float, ...], darkest: float
) -> tuple[float, dict[str, float]]:
    """Parameters within a prior's support that fit a law best, and the rms [dex] over masses and
    redshifts of what is left.

    Where the share that shines is the same for all masses, it is the duty cycle, and the luminosity
    is that of halos that shine. Where it depends on mass, which freeform's does not, the duty cycle
    is 1 and what is fitted is the product, the mean light of a halo. Scatter is taken as it is.
    darkest: log10 of the largest mass without light, 0 where all shine.
    """
    theta = FREEFORM.defaults | {"sigma": law.sigma_dex, "log10_Medge": darkest}
    theta |= {n: d.value for n, d in prior.parameters.items() if isinstance(d, Fixed)}
    light = law.mean_L * law.share
    if np.ptp(law.share, axis=1).max() < 1e-9:
        theta["duty"] = float(law.share.mean())
        light = light / theta["duty"]
    target = np.log10(light)
    names = ["log10_L", "slope", "bend_1", "bend_2", "bend_3"]
    names += [n for n in ("g", "tilt") if n in prior.parameters and len(redshifts) > 1]
    ends = np.array([bounds_of(prior.parameters[n]) for n in names]).T
    cuts = [0.0]
    if "log10_Mcut" in prior.parameters:
        low, high = bounds_of(prior.parameters["log10_Mcut"])
        cuts += list(np.arange(low, high, 0.05))
    mass, z = 10.0**LOG10_MASS, np.array(redshifts)[:, None]

    def shape(**given: float) -> Float:
        held = {n: v for n, v in theta.items() if n not in ("sigma", "duty", "log10_Medge")}
        return np.log10(ref.freeform(mass, z, **{**held, **given})).ravel()

    best: tuple[float, dict[str, float]] = (np.inf, {})
    for cut in cuts:
        start = dict.fromkeys(names, 0.0) | {"log10_Mcut": cut}
        base = shape(**start)
        columns = [shape(**(start | {n: 1.0})) - base for n in names]  # log10 L is linear in them
        found = lsq_linear(np.stack(columns, axis=1), target.ravel() - base, bounds=ends)
        rms = float(np.sqrt(np.mean(found.fun**2)))
        if rms < best[0]:
            values = dict(zip(names, map(float, found.x), strict=True))
            best = rms, {**theta, **values, "log10_Mcut": cut}
    return best


CO10_MODELS: list[tuple[str, dict[str, float]]] = [
    (name, {}) for name, model in MODELS.items() if model.published_for(115.27)
] + [("breysse15", {"duty": 1.0})]
CII_MODELS = [name for name, model in MODELS.items() if model.published_for(1900.537)]


def test_the_models_of_a_line_are_all_that_were_published() -> None:
    """Those of docs/models.md; a new one is fitted here by itself."""
    names = {name for name, _ in CO10_MODELS}
    assert names >= {"li16", "keating20", "chung22", "padmanabhan18", "breysse15", "keating16",
                     "lidz11", "pullen13", "yang22_co10", "kamenetzky16_co1", "breysse17",
                     "breysse17_lim"}  # fmt: skip
    assert set(CII_MODELS) >= {"silva15_m1", "silva15_m2", "silva15_m3", "silva15_m4", "lagache18",
                               "padmanabhan19_cii", "yang22_cii"}  # fmt: skip


def darkest_of(name: str, redshifts: tuple[float, ...], **parameters: float) -> float:
    """log10 of the largest mass below 10^10.5 Msun without light; 0 where all have some."""
    dark = law_of(name, LIGHTER, redshifts, **parameters).mean_L.max(axis=0) == 0.0
    return float(LIGHTER[dark].max()) if dark.any() else 0.0


@pytest.mark.parametrize(("name", "parameters"), CO10_MODELS)
def test_every_co10_model_is_in_the_support(name: str, parameters: dict[str, float]) -> None:
    """Over the whole band of COMAP at once, by one set of parameters. lidz11 and kamenetzky16 were
    published for other redshifts, and are taken as they are here."""
    law = law_of(name, LOG10_MASS, COMAP, **parameters)
    darkest = darkest_of(name, COMAP, **parameters)
    assert (darkest > 0.0) == (name in ("keating16", "breysse17_lim"))
    rms, theta = fitted(FREEFORM.prior("co10"), law, COMAP, darkest)
    assert rms <= 0.1
    assert_in_support(FREEFORM.prior("co10"), theta)


def redshifts_of(name: str) -> list[float]:
    low, high = MODELS[name].z_range or (0.0, 0.0)
    return [z for z in (3.5, 4.0, 5.3, 6.0, 7.0, 7.6, 8.0) if low <= z <= high]


@pytest.mark.parametrize(("name", "z"), [(n, z) for n in CII_MODELS for z in redshifts_of(n)])
def test_every_cii_model_is_in_the_support(name: str, z: float) -> None:
    """At each of its own redshifts."""
    law = law_of(name, LOG10_MASS, (z,))
    rms, theta = fitted(FREEFORM.prior("cii"), law, (z,), darkest_of(name, (z,)))
    assert rms <= 0.1
    assert_in_support(FREEFORM.prior("cii"), theta)


@pytest.mark.parametrize("name", CII_MODELS)
def test_evolution_of_cii_models(name: str) -> None:
    """By one set of parameters over z = 5.34..8.05, the band of configs/cii.yaml: a bend that moves
    with redshift is left, as large as docs/models.md says."""
    band = (5.34, 6.5, 8.05)
    rms, _ = fitted(FREEFORM.prior("cii"), law_of(name, LOG10_MASS, band), band, 0.0)
    assert rms < 0.11


@pytest.mark.parametrize(
    ("name", "prior"),
    [("li16", "narrow"), ("li16", "stronger"), ("keating16", "published")],
)
def test_published_priors_are_in_the_support(name: str, prior: str) -> None:
    draws = Draws(2, "train", np.arange(40, dtype=np.uint64), STAGE_MODEL)
    drawn = MODELS[name].prior(prior).draw(draws, MODELS[name].defaults)
    for k in range(40):
        parameters = {n: float(v[k]) for n, v in drawn.items()}
        law = law_of(name, LOG10_MASS, COMAP, **parameters)
        rms, theta = fitted(FREEFORM.prior("co10"), law, COMAP, 0.0)
        assert rms <= 0.1
        assert_in_support(FREEFORM.prior("co10"), theta)


@pytest.mark.parametrize("prior", ["wide", "comap"])
def test_the_middle_of_wide_priors_is_in_the_support(prior: str) -> None:
    """alpha a width off either way, beta so that a halo of L_IR = 10^12 Lsun stays as bright."""
    given = MODELS["li16"].prior(prior).parameters
    alpha, beta = given["alpha"], given["beta"]
    assert isinstance(alpha, Normal) and isinstance(beta, Normal)
    for away in (-1.0, 0.0, 1.0):
        slope = alpha.mean + away * alpha.width
        parameters = {"alpha": slope, "beta": 12 - (12 - beta.mean) / alpha.mean * slope}
        law = law_of("li16", LOG10_MASS, COMAP, **parameters)
        rms, theta = fitted(FREEFORM.prior("co10"), law, COMAP, 0.0)
        assert rms <= 0.1
        assert_in_support(FREEFORM.prior("co10"), theta)


# What the priors draw.


@pytest.mark.parametrize("name", ["co10", "cii"])
def test_corners_have_a_probability(name: str) -> None:
    drawn = draw(name)
    straight = np.all([drawn[f"bend_{k}"] == 0.0 for k in (1, 2, 3)], axis=0)
    smooth, all_shine = drawn["sigma"] == 0.0, drawn["duty"] == 1.0
    edge, static = drawn["log10_Medge"] > 0.0, drawn["g"] == 0.0
    assert 0.1 < straight.mean() < 0.2
    assert 0.07 < smooth.mean() < 0.13
    assert 0.8 < all_shine.mean() < 0.92
    assert 0.07 < edge.mean() < 0.15
    assert 0.25 < static.mean() < 0.35
    assert (straight & smooth & all_shine).mean() > 0.004
    assert (straight & smooth & edge).any()


def uK_per_density(z: float) -> float:
    """Brightness temperature [uK] of 1 Lsun/Mpc^3 in CO(1-0), c^3 (1+z)^2 / (8 pi k nu^3 H)."""
    c, k_B, lsun, mpc = 2.99792458e8, 1.380649e-23, 3.828e26, 3.0856776e22
    cosmology = Cosmology()
    matter = cosmology.Omega_m * (1 + z) ** 3
    hubble = 1e5 * cosmology.h / mpc * np.sqrt(matter + 1 - cosmology.Omega_m)
    factor = c**3 * (1 + z) ** 2 / (8 * np.pi * k_B * (115.271e9) ** 3 * hubble)
    return float(1e6 * factor * lsun / mpc**3)


def test_mean_temperature_is_log_uniform() -> None:
    """0.05..20 uK, the median near 1, each third of the logarithm about as often."""
    kelvin = uK_per_density(2.9) * condition("co10").density(draw("co10"))
    assert kelvin.min() > 0.05 and kelvin.max() < 21.5
    assert 0.7 < np.median(kelvin) < 1.4
    thirds, _ = np.histogram(np.log10(kelvin), np.linspace(np.log10(0.05), np.log10(21.1), 4))
    assert thirds.min() > 0.25 * len(kelvin)


@pytest.mark.parametrize(("halos", "z"), [(AT_Z29, 2.9), (AT_Z6, 6.0)])
def test_halos_of_the_condition_are_those_of_tinker08(halos: Halos, z: float) -> None:
    mass = 10.0 ** (halos.lightest + 0.2 * np.arange(len(halos.number)))
    expected = TINKER08.dn_dlog10M(mass, z, Cosmology())
    np.testing.assert_allclose(halos.number, expected, rtol=2e-3)


def test_density_of_the_condition_is_the_integral() -> None:
    """Of draws without an edge, which may lie between the masses of the sum. The trapezoidal rule
    of steps h has u coth u of the integral of 10^(-k x), u = h k ln(10) / 2: 1.16 for the steepest
    law, M^-2, of halos that fall as M^-1; most of the light is where it does not fall that fast."""
    drawn, log10_mass = draw("co10", 600), np.arange(10.4, 14.6, 0.005)
    number = TINKER08.dn_dlog10M(10.0**log10_mass, 2.9, Cosmology())
    found, errors = condition("co10").density(drawn), []
    for k in np.flatnonzero(drawn["log10_Medge"] == 0.0):
        given = {n: float(v[k]) for n, v in drawn.items() if n not in ("sigma", "duty")}
        light = drawn["duty"][k] * ref.freeform(10.0**log10_mass, 2.9, **given) * number
        errors.append(abs(found[k] / np.trapezoid(light, log10_mass) - 1.0))
    u = 0.1 * np.log(10.0) * 3.0
    assert max(errors) < u / np.tanh(u) - 1.0
    assert np.median(errors) < 0.02


# What samples are made of it.


def test_a_prior_makes_maps_and_labels(small_sky: Lightcone) -> None:
    """Half of the halos shine where half do, and none below the edge does."""
    line: dict[str, Any] = {"model": "freeform", "parameters": {"log10_L": 6.0, "duty": 0.5}}
    half = Generator(small.config(emit={"line": line}), lightcones=[small_sky]).generate([0])
    line["parameters"] = {"log10_L": 6.0}
    whole = Generator(small.config(emit={"line": line}), lightcones=[small_sky]).generate([0])
    line["parameters"] = {"log10_L": 6.0, "log10_Medge": 11.0}
    edge = Generator(small.config(emit={"line": line}), lightcones=[small_sky]).generate([0])
    number = whole.counts.sum().item()
    assert half.counts.sum().item() == pytest.approx(number / 2, abs=4 * np.sqrt(number / 4))
    edges = np.linspace(3.5, 7.0, 50)
    bright = edges[:-1] > 5.25  # 10^6 (M / 10^11.8) at 10^11 Msun is 10^5.2 Lsun
    dark = edges[1:] < 5.2
    assert edge.counts[0].numpy()[dark].sum() == 0 < whole.counts[0].numpy()[dark].sum()
    np.testing.assert_array_equal(edge.counts[0].numpy()[bright], whole.counts[0].numpy()[bright])


NETWORKS: dict[str, dict[str, Any]] = {
    "means": {"layers": 1, "filters": 2, "dense": 4},
    "cnn": {"layers": 1, "filters": 2, "dense": 4, "kernel": 3},
    "compact": {"layers": 1, "filters": 2, "dense": 4},
    "resnet": {"filters": 2, "dense": 4},
    "resnext": {"filters": 4, "dense": 4, "cardinality": 2},
    "summaries": {},
}
MIXTURE = {"freeform": {"prior": "co10"}, "li16": {"prior": "narrow"}, "chung22": {}}


@pytest.mark.parametrize("kind", list(NETWORKS))
@pytest.mark.parametrize(
    ("quantity", "head"),
    [("counts", "auto"), ("counts", "negative_binomial"), ("class", "auto")],
)
def test_every_network_learns_from_it(
    kind: str, quantity: str, head: str, small_sky: Lightcone
) -> None:
    """Steps of each lower the loss of a batch, for luminosity functions and for the class of the
    model that made a map."""
    line = {"mixture": MIXTURE} if quantity == "class" else {"model": "freeform", "prior": "co10"}
    config = small.config(
        emit={"line": line},
        observe={"log_modulus": {}},
        label={"quantity": quantity},
        network={"kind": kind, "head": head, **NETWORKS[kind]},
    )
    generator = Generator(config, lightcones=[small_sky])
    batch = generator.generate(range(16))
    assert len({draw["model"] for draw in batch.draws}) == (3 if quantity == "class" else 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = build_network(
            config.network, generator.input_shape, generator.label, config.observation.input_map
        )
        set_normalisation(network, generator, chunk=128, report=lambda *_: None)
        optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
        losses = []
        for _ in range(10):
            answer = network(batch.cube)
            loss = network.head.loss(answer, batch.label, batch.counts, batch.unit_label)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    assert np.isfinite(losses).all() and losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("name", "base", "prior"),
    [
        ("freeform", "comap", "co10"),
        ("freeform_cii", "cii", "cii"),
        ("quickstart_freeform", "quickstart", "co10"),
    ],
)
def test_presets_change_nothing_but_the_line(name: str, base: str, prior: str) -> None:
    """And make room in the cube, and have a run of their own; the quickstart's has Muon, too."""
    mine, theirs = (load_config(f"configs/{n}.yaml") for n in (name, base))
    assert (mine.line.model, mine.line.prior) == ("freeform", prior)
    back = replace(mine.grid, brightest_Lsun=None)
    emit = mine.emit | {"line": theirs.line}
    train = replace(mine.train, optimiser="adamw") if name == "quickstart_freeform" else mine.train
    assert replace(mine, emit=emit, grid=back, run=theirs.run, train=train) == theirs
    assert mine.run != theirs.run
