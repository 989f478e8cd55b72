"""Luminosity functions compiled into the kernel: the plain NumPy function is the truth."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support import bit_oracle, compiled
from support.user_models import everything

from streamtrain.luminosity.registry import MODELS
from streamtrain.luminosity.trace import Traced, TraceError, trace
from streamtrain.numerics import portable
from streamtrain.numerics.rng import Draws

F = np.float32
MAX_RELATIVE = 2e-5
"""What a traced model may differ by (design, C6)."""
NU_REST = 115.27

_RNG = np.random.default_rng(8)
MASS = (10 ** _RNG.uniform(10, 14, 3000)).astype(F).astype(np.float64)
Z = _RNG.uniform(2, 4, 3000).astype(F).astype(np.float64)
SFR = 10 ** _RNG.uniform(-3, 3, 3000)


@cache
def traced_once(function: Callable[..., Any], names: tuple[str, ...]) -> Traced:
    return trace(function, list(names), {"nu_rest_GHz": NU_REST})


def in_the_kernel(
    function: Callable[..., Any], parameters: dict[str, float], columns: dict[str, NDArray[Any]]
) -> NDArray[np.float64]:
    """L of the halos MASS, Z by the printed code; compiled, it has the bits of the oracle."""
    traced = traced_once(function, tuple(parameters))
    uniforms = traced.evaluate_uniforms({k: np.array([v]) for k, v in parameters.items()})
    inputs = [
        (portable.log2(columns[name]) if form == "log2" else columns[name]).astype(F)
        for name, form in traced.columns
    ]
    log2_mass, log2_1pz = portable.log2(MASS).astype(F), portable.log2(1 + Z).astype(F)
    result = compiled.model(traced.source, log2_mass, log2_1pz, inputs, uniforms[0])
    oracle = bit_oracle.model(traced.source, log2_mass, log2_1pz, inputs, uniforms[0])
    np.testing.assert_array_equal(result.view("u4"), oracle.view("u4"))
    return np.exp2(result.astype(np.float64))


def truth(
    function: Callable[..., Any], parameters: dict[str, float], columns: dict[str, NDArray[Any]]
) -> NDArray[np.float64]:
    wanted = inspect.signature(function).parameters
    given = {k: v for k, v in ({"nu_rest_GHz": NU_REST} | columns).items() if k in wanted}
    with np.errstate(all="ignore"):
        return function(MASS, Z, **given, **parameters)


def assert_compiles_to_itself(
    function: Callable[..., Any], parameters: dict[str, float] | None = None, **columns: Any
) -> None:
    expected = truth(function, parameters or {}, columns)
    usual = (expected > 1e-30) & (expected < 1e30)
    assert usual.mean() > 0.5
    found = in_the_kernel(function, parameters or {}, columns)
    np.testing.assert_allclose(found[usual], expected[usual], rtol=MAX_RELATIVE)


MODELS_AND_PRIORS = [(m, p) for m, entry in MODELS.items() for p in ["fiducial", *entry.priors]]


@pytest.mark.parametrize(("model", "prior"), MODELS_AND_PRIORS)
def test_models(model: str, prior: str) -> None:
    """Every model over its prior; where the luminosity is one that any label or map can see."""
    entry = MODELS[model]
    draws = Draws(3, "train", np.arange(20, dtype=np.uint64), 2)
    drawn = entry.prior(prior).draw(draws, entry.defaults)
    columns = {"sfr": SFR, "abundance_matched_L": 1e4 * SFR}
    columns["abundance_matched_L_lim"] = columns["abundance_matched_L"]
    tested = 0
    for k in range(20):
        taken = inspect.signature(entry.function).parameters
        own = {name: float(drawn[name][k]) for name in entry.traced_parameters if name in taken}
        expected = truth(entry.function, own, columns)
        visible = (expected > 1e-6) & (expected < 1e12)
        tested += np.count_nonzero(visible)
        found = in_the_kernel(entry.function, own, columns)
        bound = np.full(len(MASS), MAX_RELATIVE)
        if model in ("padmanabhan19_cii", "freeform"):
            # exp(-x) costs x times the float32 error of x
            bound += 3e-6 * (own["N1"] if "N1" in own else 10 ** own["log10_Mcut"]) / MASS
        error = np.abs(found / np.where(visible, expected, 1.0) - 1.0)
        assert (error <= bound)[visible].all(), error[visible].max()
    assert tested > 0.5 * 20 * len(MASS)


def test_everything_that_is_promised() -> None:
    columns = {"age": _RNG.uniform(0, 2, len(MASS)).astype(F).astype(np.float64)}
    for parameters in ({"slope": 0.5, "knee": 3e11}, {"slope": -0.7, "knee": 1e13}):
        assert_compiles_to_itself(everything, parameters, **columns)


def powers_of_negative_numbers(mass_Msun: Any, z: Any, *, tilt: float = -0.3) -> Any:
    x = z - 4.5
    return 1e4 * (9 + x**2 + 0.1 * x**3 + 0.01 * x**4 - x**5 / 99 - 1 / x**3 + x**0 + tilt**3)


def beyond_float32(mass_Msun: Any, z: Any) -> Any:
    return (1e30 * mass_Msun**2) * np.sqrt(1e20 * mass_Msun) / mass_Msun**1.5 / 1e45


def difference(mass_Msun: Any, z: Any) -> Any:
    return 1e6 * (3 - 0.5 * z)


def constant(mass_Msun: Any, z: Any, *, L: float = 1e6) -> Any:
    return L + 0 * z


def duty(mass_Msun: Any, z: Any, *, sfr: Any) -> Any:
    return np.where(mass_Msun > 1e11, np.where(z < 3.5, sfr, 1.0), 1e-8 * sfr)


def from_zero(mass_Msun: Any, z: Any, *, sfr: Any) -> Any:
    return 2e5 * sfr + 1e-20


@pytest.mark.parametrize(
    ("function", "parameters", "columns"),
    [
        (powers_of_negative_numbers, {"tilt": -0.3}, {}),
        (beyond_float32, {}, {}),
        (difference, {}, {}),
        (constant, {"L": 3e6}, {}),
        (duty, {}, {"sfr": SFR}),
        (from_zero, {}, {"sfr": np.where(SFR > 1, SFR, 0.0)}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_awkward_functions(
    function: Callable[..., Any], parameters: dict[str, float], columns: dict[str, Any]
) -> None:
    assert_compiles_to_itself(function, parameters, **columns)


def test_a_halo_without_light_has_the_smallest_luminosity() -> None:
    """log2 of zero is -126 in the kernel, far below any label or map."""
    dark = in_the_kernel(lambda mass_Msun, z: np.where(z > 3, 1e6, 0.0), {}, {})
    assert np.all(dark[Z <= 3] == 2.0**-126)
    np.testing.assert_allclose(dark[Z > 3], 1e6, rtol=MAX_RELATIVE)
    negative = in_the_kernel(lambda mass_Msun, z: 2.0 - z, {}, {})
    assert np.all(negative[Z > 2] == 2.0**-126)


def test_what_depends_on_parameters_alone_is_left_to_the_host() -> None:
    """li16 in the kernel: one column, four numbers per sample, no logarithm, no exponential."""
    entry = MODELS["li16"]
    traced = trace(entry.function, entry.traced_parameters, {"nu_rest_GHz": NU_REST})
    assert traced.columns == [("sfr", "log2")]
    assert len(traced.uniforms) == 4
    assert "portable" not in traced.source
    values = {"log10_delta_mf": [0.1, 0.2], "alpha": [1.25, 1.5], "beta": [-2.0, -1.0]}
    values["r_J1"] = [0.75, 1.0]
    uniforms = traced.evaluate_uniforms({k: np.array(v) for k, v in values.items()})
    log2_10 = np.log2(10)
    expected = {0.1 * log2_10, 2.0 * log2_10, 1 / 1.25, np.log2(0.75)}
    np.testing.assert_allclose(sorted(uniforms[0]), sorted(expected), rtol=1e-7)


def test_what_depends_on_the_halo_alone_is_computed_once() -> None:
    """In functions of their own, which fill columns; the loop over halos looks them up."""
    entry = MODELS["yang22_co10"]
    traced = trace(
        entry.function, [], sigma_dex=entry.sigma_dex, on_fraction=entry.on_fraction, z_range=(2, 3)
    )
    assert traced.num_static == 3
    functions = traced.source.split("INLINE ")
    assert sum("portable_" in text for text in functions if "static_" in text[:20]) == 3
    assert not any("portable_" in text for text in functions if "model_" in text[:20])

    def mixed(mass_Msun: Any, z: Any, *, slope: Any = 1.0) -> Any:
        return np.exp(-z) * (1e6 + (mass_Msun / 1e12) ** slope)

    traced = trace(mixed, ["slope"])
    assert traced.num_static == 1
    (static,) = (t for t in traced.source.split("INLINE ") if t.startswith("float static_"))
    assert "u[" not in static.replace("const float* u", "")


def test_a_value_that_is_used_twice_is_computed_once() -> None:
    traced = trace(lambda mass_Msun, z: np.exp(z) / (1 + np.exp(z)) + np.exp(z), [])
    assert traced.source.count("portable_exp2(t") == 1


def uses_math(mass_Msun: Any, z: Any) -> Any:
    import math

    return math.log(mass_Msun)


def branches(mass_Msun: Any, z: Any) -> Any:
    if z > 3:
        return mass_Msun
    return 2 * mass_Msun


def loops(mass_Msun: Any, z: Any) -> Any:
    return sum(m for m in mass_Msun)


def indexes(mass_Msun: Any, z: Any) -> Any:
    return mass_Msun[0]


def sine(mass_Msun: Any, z: Any) -> Any:
    return np.sin(z)


def interpolates(mass_Msun: Any, z: Any) -> Any:
    return np.interp(z, [0, 1], [2, 3])


def summed(mass_Msun: Any, z: Any) -> Any:
    return mass_Msun * np.sum(z)


def accumulates(mass_Msun: Any, z: Any) -> Any:
    return np.add.reduce(mass_Msun)


def integer_part(mass_Msun: Any, z: Any) -> Any:
    return mass_Msun // 2


def remainder(mass_Msun: Any, z: Any) -> Any:
    return mass_Msun % 2


def with_option(mass_Msun: Any, z: Any) -> Any:
    return np.log10(mass_Msun, where=True)


def summed_by_method(mass_Msun: Any, z: Any) -> Any:
    return mass_Msun / mass_Msun.sum()


def counted(mass_Msun: Any, z: Any) -> Any:
    return mass_Msun / len(z)


def rounded(mass_Msun: Any, z: Any) -> Any:
    return round(z)


def table(mass_Msun: Any, z: Any) -> Any:
    return mass_Msun * np.array([1.0, 2.0])


def text(mass_Msun: Any, z: Any) -> Any:
    return mass_Msun + "1"


def equality(mass_Msun: Any, z: Any) -> Any:
    return np.where(z == 3, 1.0, 2.0)


def both(mass_Msun: Any, z: Any) -> Any:
    return np.where((z > 3) & (mass_Msun > 1e11), 1.0, 2.0)


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (uses_math, "conversion to a Python number"),
        (branches, r"branch on a halo's value \(use np.where\)"),
        (loops, "loop over halos"),
        (indexes, "indexing"),
        (sine, r"np\.sin "),
        (interpolates, r"np\.interp"),
        (summed, r"np\.sum"),
        (accumulates, r"np\.add\.reduce"),
        (integer_part, "// or %"),
        (remainder, "// or %"),
        (with_option, r"np\.log10 with where="),
        (summed_by_method, r"the attribute \.sum"),
        (counted, "loop over halos"),
        (rounded, "conversion to a Python number"),
        (table, "type ndarray"),
        (text, "constant of type str"),
        (equality, "test for equality"),
        (both, r"& \| ~ \(nest np.where\)"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_cannot_be_compiled_is_refused_with_its_line(
    function: Callable[..., Any], what: str
) -> None:
    with pytest.raises(TraceError, match=what) as refusal:
        trace(function, [])
    message = str(refusal.value)
    assert function.__name__ in message
    lines, first = inspect.getsourcelines(function)
    named = [n for n in range(first, first + len(lines)) if f"line {n})" in message]
    assert named, message
    assert __file__ in message


def test_a_random_number_is_refused() -> None:
    """It would be drawn once, for all halos."""

    def scattered(mass_Msun: Any, z: Any) -> Any:
        return 1e-6 * mass_Msun * np.random.default_rng().lognormal()

    with pytest.raises(TraceError, match="scattered is another formula each time"):
        trace(scattered, [])


def test_a_function_must_return_the_luminosity() -> None:
    def nothing(mass_Msun: Any, z: Any) -> None:
        pass

    def pair(mass_Msun: Any, z: Any) -> Any:
        return mass_Msun, z

    for function, kind in ((nothing, "NoneType"), (pair, "tuple")):
        wanted = f"{function.__name__} must return the luminosity.*type {kind}"
        with pytest.raises(TraceError, match=wanted):
            trace(function, [])
