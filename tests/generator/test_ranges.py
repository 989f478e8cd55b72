"""Numbers that no map survives, and models of absurd size: a sentence, in no time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.config import load_config
from streamtrain.generator.compiled_model import CompiledModel, _by_mass
from streamtrain.generator.generator import Generator
from streamtrain.generator.line import EmissionLine
from streamtrain.generator.observe import observe
from streamtrain.generator.paint import paint
from streamtrain.grid import Grid
from streamtrain.luminosity.registry import MODELS
from streamtrain.luminosity.trace import Traced, TraceError, trace
from streamtrain.priors import Correlated, Fixed, Normal, Prior, Uniform
from streamtrain.shipped import resource_dir

CONFIG = "configs/reference.yaml"
Step = Callable[[Any, Any, Any], Any]

STEPS: dict[str, Step] = {
    "sum": lambda x, a, z: x + x,
    "product": lambda x, a, z: x * x,
    "quotient": lambda x, a, z: x / (x + a),
    "power": lambda x, a, z: (x + a) ** x,
    "square": lambda x, a, z: (x - a) ** 2 + x,
    "root": lambda x, a, z: np.sqrt(x * x),
    "where": lambda x, a, z: np.where(x < a, x + 1.0, x),
    "decided": lambda x, a, z: np.where(z < 99.0, x + x, x - x),
    "extremes": lambda x, a, z: np.maximum(x, np.minimum(x, a)),
    "clip": lambda x, a, z: np.clip(x, x, x),
    "logarithm": lambda x, a, z: np.log10(x + a) + x,
    "exponential": lambda x, a, z: np.exp(x) + np.exp(-x),
    "difference": lambda x, a, z: np.abs(x - a) + x,
    "logaddexp": lambda x, a, z: np.logaddexp(x, x),
}
STARTS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "mass": lambda m, z, a: m,
    "sign": lambda m, z, a: m - a,
    "parameter": lambda m, z, a: a,
    "redshift": lambda m, z, a: z,
}


def of_steps(step: Step, start: Callable[[Any, Any, Any], Any], number: int) -> Traced:
    def model(mass_Msun: Any, z: Any, *, A: float = 1.0) -> Any:
        x = start(mass_Msun, z, A)
        for _ in range(number):
            x = step(x, A, z)
        return np.abs(x) * mass_Msun

    return trace(model, ["A"], z_range=(2.4, 3.4))


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS.keys())
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
def test_a_graph_that_shares_its_parts_is_walked_once(step: Step, start: Any) -> None:
    """60 doublings are 60 operations, not 2^60; too many are refused at once."""
    begin = time.process_time()
    for number in (12, 60, 150, 10**6):
        try:
            traced = of_steps(step, start, number)
        except TraceError as error:
            said = str(error)
            assert "line " in said
            assert (number > 12 and "are too many to be" in said) or "may be negative" in said
        else:
            assert len(traced.identity()) < 1_000_000
            traced.evaluate_uniforms({"A": np.ones(3)})
            halos = {"mass": np.full(4, 1e12), "one_plus_z": np.full(4, 4.0)}
            assert traced.evaluate("luminosity", {"A": np.ones(3)}, halos).shape == (3, 4)
    assert number == 10**6 and time.process_time() - begin < 5.0


def test_a_model_of_too_many_operations() -> None:
    def wide(mass_Msun: Any, z: Any) -> Any:
        parts = [mass_Msun * float(k) for k in range(4000)]
        while len(parts) > 1:
            parts = [a + b for a, b in zip(parts[::2], parts[1::2], strict=False)]
        return parts[0]

    with pytest.raises(TraceError, match=r"wide consists of \d{4} operations; at most 5000"):
        trace(wide, [])


def test_a_model_that_never_returns_is_a_sentence() -> None:
    def endless(mass_Msun: Any, z: Any) -> Any:
        return endless(mass_Msun, z)

    with pytest.raises(TraceError, match=r"endless cannot be compiled .* RecursionError"):
        trace(endless, [])


def test_identities_of_models_that_share_nothing_are_those_of_before() -> None:
    """They are in every checkpoint."""
    model = MODELS["li16"]
    text = trace(model.function, model.traced_parameters, {"nu_rest_GHz": 115.27}).identity()
    assert "#" not in text.replace("#define", "")


@pytest.fixture(scope="module")
def lightcone() -> Lightcone:
    return Lightcone.open(resource_dir("configs") / "reference_0000.h5")


GRID = Grid(fov_deg=(0.35, 0.35), shape=(20, 64, 64), nu_GHz=(34.0, 26.0), nu_rest_GHz=115.27)


@pytest.mark.parametrize(
    "parameters",
    [
        {"alpha": 1e-300},
        {"alpha": 0.0},
        {"alpha": np.nan},
        {"alpha": np.inf},
        {"beta": -1e300},
        {"sigma_lco": -1.0},
        {"sigma_lco": 1e308},
        {"sigma_sfr": -1.0},
        {"sigma_sfr": np.nan},
        {"log10_delta_mf": -1e4},
    ],
    ids=str,
)
def test_parameters_that_give_no_map(lightcone: Lightcone, parameters: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        paint(lightcone, GRID, "li16", parameters, min_mass_Msun=5e10)


@pytest.mark.parametrize(
    "parameters",
    [{"alpha": 1e308}, {"alpha": -1e308}, {"beta": 1e308}, {"sigma_lco": 50.0}, {"sigma_lco": 1e3}],
    ids=str,
)
def test_parameters_that_give_a_dark_one(
    lightcone: Lightcone, parameters: dict[str, float]
) -> None:
    cube, _ = paint(lightcone, GRID, "li16", parameters, min_mass_Msun=5e10)
    assert torch.isfinite(cube).all() and cube.max() < 1e-3


@pytest.mark.parametrize("share", [2.0, -0.5])
def test_a_share_of_time_is_one(lightcone: Lightcone, share: float) -> None:
    line = Generator(load_config(CONFIG), "test", "cpu", 1).line
    emission = line.painter.compiled_models[0]
    emission.check_luminosities({k: np.array([v]) for k, v in emission.model.defaults.items()})
    wrong = replace(emission.model, on_fraction=lambda mass_Msun, z: share)
    with pytest.raises(ValueError, match=r"gives an on_fraction = .* must be between 0 and 1"):
        _emission(line, wrong).check_luminosities(
            {k: np.array([v]) for k, v in wrong.defaults.items()}
        )


def _emission(line: EmissionLine, model: Any) -> Any:
    from streamtrain.bins import LuminosityBins

    return CompiledModel(model, line.painter.halos, LuminosityBins())


DISTRIBUTIONS: list[Callable[[], object]] = [
    lambda: Normal(1.0, -0.1),
    lambda: Normal(1.0, np.nan),
    lambda: Normal(np.inf, 0.1),
    lambda: Normal(1.0, 0.1, 2.0, 1.0),
    lambda: Normal(1.0, 0.1, 1.0, 1.0),
    lambda: Normal(1.0, 0.1, np.nan),
    lambda: Normal("1", 0.1),  # type: ignore[arg-type]
    lambda: Uniform(2.0, 1.0),
    lambda: Uniform(np.nan, 1.0),
    lambda: Uniform(-np.inf, 1.0),
    lambda: Uniform(0.0, 1.0, log=True),
    lambda: Uniform(-1.0, 1.0, log=True),
    lambda: Fixed(np.nan),
    lambda: Fixed(np.inf),
    lambda: Prior({}, scale=-1.0),
    lambda: Prior({}, scale=np.nan),
    lambda: Prior({}, scale=np.inf),
    lambda: Correlated(("a", "b"), (0.0,), ((1.0, 0.0), (0.0, 1.0))),
    lambda: Correlated(("a", "b"), (0.0, 0.0), ((1.0, 0.0),)),
    lambda: Correlated(("a",), (0.0,), ((np.nan,),)),
    lambda: Correlated(("a",), (0.0,), ((-1.0,),)).cholesky(),
]


@pytest.mark.parametrize("make", DISTRIBUTIONS, ids=range(len(DISTRIBUTIONS)))
def test_distributions_that_are_none(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError):
        make()


@pytest.mark.parametrize(
    "settings",
    [
        "observe.noise.sigma_uK=1e39",
        "observe.noise.sigma_uK=1e38",
        "observe.noise.sigma_uK=[1, 1e300]",
        "observe.noise.sigma_uK=-1",
        "observe.noise.sigma_uK=.inf",
        "observe.noise.sigma_uK=.nan",
        "emit.line.parameters.sigma_sfr=-1",
        "emit.line.parameters.sigma_lco=-1",
        "emit.line.parameters.beta=.inf",
        "emit.line.parameters.alpha={normal: [1.17, -0.3]}",
        "emit.line.parameters.alpha={uniform: [3, 1]}",
        "emit.line.parameters.alpha={log_uniform: [-3, 1]}",
        "emit.line.prior_scale=-1",
        "emit.dim={above_log10_L: 6.5, factor: 1e300, probability: 1}",
        "emit.dim={above_log10_L: 6.5, factor: 0.5, probability: 2}",
        "grid.fov_deg=[1e-300,1e-300]",
        "grid.fov_deg=[1e-30,1]",
        "grid.nu_rest_GHz=1e300",
    ],
)
def test_settings_that_no_map_survives(settings: str) -> None:
    with pytest.raises(ValueError) as caught:
        generator = Generator(load_config(CONFIG, [settings]), "test", "cpu", 1)
        generator.generate([0, 1, 2]).check()
    assert "\n" not in str(caught.value)


def test_a_map_that_is_not_finite_is_found() -> None:
    batch = Generator(load_config(CONFIG), "test", "cpu", 1).generate([5, 6])
    batch.check()
    batch.cube[1, 0, 0, :3] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    with pytest.raises(ValueError, match=r"sample 6: 3 of the \d+ numbers of its map are NaN or"):
        batch.check()
    batch.cube[1] = 3e38  # whose sum is infinite
    batch.check()
    batch.cube[1], batch.label[0, 3] = 0.0, torch.inf
    with pytest.raises(ValueError, match=r"sample 5: 1 of the 49 numbers of its label are NaN"):
        batch.check()


def test_observed_maps_are_finite() -> None:
    config = load_config(CONFIG, ["observe={pool: {factor: [1, 4, 4]}, standardise: {}}"])
    with pytest.raises(ValueError, match=r"voxels are NaN or infinite after pool, standardise"):
        observe(np.full(config.grid.shape, 3e38, np.float32), config)


def test_halos_in_the_order_of_their_masses() -> None:
    """Equal masses stay in the order of their rows."""
    rng = np.random.default_rng(3)
    log2_mass = np.float32(13 + rng.integers(0, 80, 1000) / 8)
    channel = np.int16(rng.integers(-1, 3, 1000))
    halos = SimpleNamespace(channel=channel, bank=SimpleNamespace(log2_mass=log2_mass))
    painted = np.flatnonzero(channel >= 0)
    expected = painted[np.argsort(-log2_mass[painted], kind="stable")]
    assert len(np.unique(log2_mass[painted])) < len(painted)
    np.testing.assert_array_equal(_by_mass(cast(Any, halos)), expected)
