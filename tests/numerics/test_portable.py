"""Portable arithmetic: accuracy over the whole range, defined edges, the same bits for ever."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm
from support import bit_portable, compiled

from streamtrain.numerics import portable

INF, NAN = np.inf, np.nan
long = np.longdouble
needs_long_double = pytest.mark.skipif(
    np.finfo(long).nmant < 63, reason="long double is no wider than float64 here"
)


def floats(first: float, last: float, step: int = 1) -> NDArray[np.float32]:
    """Every `step`-th float32 from `first` to `last` (positive)."""
    ends = np.array([first, last], np.float32).view(np.uint32)
    return np.arange(ends[0], ends[1], step, dtype=np.uint32).view(np.float32)


def ulps(value: NDArray[Any], exact: NDArray[Any]) -> float:
    """Largest error in units of the last place of the exact result, in value's precision."""
    spacing = np.spacing(np.abs(exact).astype(value.dtype)).astype(exact.dtype)
    return float(np.max(np.abs(value.astype(exact.dtype) - exact) / spacing))


# Kernels, float32.


def test_log2() -> None:
    """Every float32 in 0.5..2 (where the exponent does not dilute the error), then all others."""
    for x in (floats(0.5, 1.0), floats(np.nextafter(np.float32(1), np.float32(2)), 2.0)):
        assert ulps(compiled.log2(x), np.log2(x.astype(np.float64))) < 2.3
    for x in (floats(2.0**-126, 0.5, 101), floats(2.0, np.finfo(np.float32).max, 101)):
        assert ulps(compiled.log2(x), np.log2(x.astype(np.float64))) < 2.3
    powers = np.arange(-126, 128)
    np.testing.assert_array_equal(compiled.log2(np.ldexp(np.float32(1), powers)), powers)


def test_exp2() -> None:
    dense = (np.arange(-(2**23), 2**23 + 1) * 2.0**-24).astype(np.float32)
    everywhere = np.linspace(-126, 127, 4_000_001).astype(np.float32)
    tiny = floats(1e-38, 0.5, 1009)
    for x in (dense, everywhere, tiny, -tiny):
        assert ulps(compiled.exp2(x), np.exp2(x.astype(np.float64))) < 1.1
    powers = np.arange(-126, 128)
    result = compiled.exp2(powers.astype(np.float32))
    np.testing.assert_array_equal(result, np.ldexp(np.float32(1), powers))


def test_sine_and_cosine() -> None:
    """At every angle that a random word can give, to one unit of the last place of 1."""
    words = np.arange(2**23, dtype=np.uint32) << np.uint32(9)
    turns4 = np.float32(4) * compiled.unit_interval(words)
    sine, cosine = compiled.quarter_turns(turns4)
    angle = turns4.astype(np.float64) * (np.pi / 2)
    assert np.abs(sine - np.sin(angle)).max() < 2.0**-23
    assert np.abs(cosine - np.cos(angle)).max() < 2.0**-23
    sine, cosine = compiled.quarter_turns(np.arange(-8, 9, dtype=np.float32))
    np.testing.assert_array_equal(sine, np.tile([0, 1, 0, -1], 5)[:17])
    np.testing.assert_array_equal(cosine, np.tile([1, 0, -1, 0], 5)[:17])


def test_unit_interval_is_inside() -> None:
    """Never 0 or 1, so that no logarithm is infinite, and symmetric about 1/2."""
    words = np.array([0, 511, 512, 2**31 - 1, 2**31, 2**32 - 1], np.uint32)
    expected = [2.0**-24, 2.0**-24, 3 * 2.0**-24, 0.5 - 2.0**-24, 0.5 + 2.0**-24, 1 - 2.0**-24]
    np.testing.assert_array_equal(compiled.unit_interval(words), expected)


def test_edges_of_log2_and_exp2() -> None:
    def both(values: list[float], name: str) -> list[float]:
        x = np.array(values, np.float32)
        with np.errstate(invalid="ignore"):
            found, oracle = getattr(compiled, name)(x), getattr(bit_portable, name)(x)
        np.testing.assert_array_equal(found.view("u4"), oracle.view("u4"))
        return found.tolist()

    assert both([0.0, -0.0, -1.0, -INF, NAN, 1e-45, 2.0**-126], "log2") == [-126.0] * 7
    assert both([INF], "log2") == [128.0]
    assert both([-126.0, -127.0, -1e30, -INF, NAN], "exp2") == [2.0**-126] * 5
    assert both([127.0, 128.0, 1e30, INF], "exp2") == [2.0**127] * 4
    assert both([0.0, -0.0, 1e-45, -1e-45], "exp2") == [1.0] * 4


def test_kernel_functions_have_the_bits_of_the_oracle() -> None:
    rng = np.random.default_rng(5)
    anything = rng.integers(0, 2**32, 1_000_001, dtype=np.uint32)
    x = anything.view(np.float32)
    turns4 = np.float32(4) * bit_portable.unit_interval(anything)
    other = rng.permutation(anything)
    with np.errstate(invalid="ignore"):
        pairs = [
            (compiled.log2(x), bit_portable.log2(x)),
            (compiled.exp2(x), bit_portable.exp2(x)),
            (compiled.unit_interval(anything), bit_portable.unit_interval(anything)),
            *zip(compiled.quarter_turns(turns4), bit_portable.quarter_turns(turns4), strict=True),
            *zip(
                compiled.normal_pair(anything, other),
                bit_portable.normal_pair(anything, other),
                strict=True,
            ),
        ]
    for found, expected in pairs:
        np.testing.assert_array_equal(found.view("u4"), expected.view("u4"))


def digest(*arrays: NDArray[Any]) -> str:
    total = hashlib.sha256()
    for array in arrays:
        total.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
    return total.hexdigest()[:16]


GOLDEN = {
    "log2": "e2bf926c9649433c",
    "exp2": "2ac0d21d11bc0db5",
    "normal": "bfe46d1052263048",
    "host log2": "cba10658fe87c0d6",
    "host exp2": "1be69c435583f2b6",
    "host sincos": "b13617a2a45f8e6e",
}


def test_bits_do_not_change() -> None:
    """A changed digest means other samples: GENERATOR_VERSION goes up in the same commit."""
    bits = np.arange(0, 2**32, 4999, dtype=np.uint64).astype(np.uint32)
    x = bits.view(np.float32)
    x = np.where(np.isfinite(x), x, np.float32(1))
    exact = np.ldexp(np.arange(1, 100_001) / 65536.0, np.arange(100_000) % 200 - 100)
    found = {
        "log2": digest(compiled.log2(x)),
        "exp2": digest(compiled.exp2(np.linspace(-130, 130, 99_991).astype(np.float32))),
        "normal": digest(*compiled.normal_pair(bits, bits[::-1].copy())),
        "host log2": digest(portable.log2(exact)),
        "host exp2": digest(portable.exp2(np.arange(-5_000, 5_000) / 7.0)),
        "host sincos": digest(*portable.sincos_turns(np.arange(-5_000, 5_000) / 977.0)),
    }
    assert found == GOLDEN


# Host, float64.

WIDE = np.random.default_rng(1).uniform(-300, 300, 200_000)
UNIT = np.random.default_rng(2).uniform(-2, 2, 200_000)


@needs_long_double
@pytest.mark.parametrize(
    ("function", "exact", "limit"),
    [(portable.log2, np.log2, 4), (portable.log10, np.log10, 5), (portable.log, np.log, 4)],
    ids=["log2", "log10", "log"],
)
@pytest.mark.parametrize(
    "x", [10.0**WIDE, 2.0**UNIT, 1 + 1e-3 * UNIT, 1 + 1e-13 * UNIT], ids=["wide", "2", "3", "13"]
)
def test_host_logarithms(
    function: Callable[..., Any], exact: Callable[..., Any], limit: float, x: NDArray[np.float64]
) -> None:
    x = x[x != 1.0]
    assert ulps(function(x), exact(x.astype(long))) < limit


@needs_long_double
def test_host_exponentials() -> None:
    for x in (WIDE * 3.4, UNIT, 1e-9 * UNIT):
        assert ulps(portable.exp2(x), np.exp2(x.astype(long))) < 2
    for function, base in ((portable.exp, np.exp(long(1))), (portable.exp10, long(10))):
        for x in (WIDE, UNIT):
            error = np.abs(function(x) / base ** x.astype(long) - 1)
            assert np.max(error / np.maximum(1, np.abs(x))) < 1e-15


@needs_long_double
def test_host_sine_and_cosine() -> None:
    turns = np.concatenate([UNIT, WIDE])
    sine, cosine = portable.sincos_turns(turns)
    angle = 2 * long("3.14159265358979323846264338327950288") * turns.astype(long)
    assert np.max(np.abs(sine - np.sin(angle))) < 1e-15
    assert np.max(np.abs(cosine - np.cos(angle))) < 1e-15
    quarter = np.arange(-4, 5) * 90.0
    sine, cosine = portable.sincos_deg(quarter)
    np.testing.assert_array_equal(sine, [0, 1, 0, -1, 0, 1, 0, -1, 0])
    np.testing.assert_array_equal(cosine, [1, 0, -1, 0, 1, 0, -1, 0, 1])


def test_host_edges() -> None:
    np.testing.assert_array_equal(portable.log2([0.0, -3.0, -INF, 5e-324]), [-1022.0] * 4)
    np.testing.assert_array_equal(portable.exp2([-2000.0, -INF]), [2.0**-1022] * 2)
    np.testing.assert_array_equal(portable.exp2([1023.0, 5000.0, INF]), [2.0**1023] * 3)
    np.testing.assert_array_equal(portable.exp10([0.0, 1e9]), [1.0, 2.0**1023])
    powers = np.arange(-1022, 1024)
    np.testing.assert_array_equal(portable.log2(np.ldexp(1.0, powers)), powers)
    np.testing.assert_array_equal(portable.exp2(powers), np.ldexp(1.0, powers))


def test_host_edges_that_are_not_finite() -> None:
    with np.errstate(all="raise"):
        assert np.isnan(portable.log2(NAN))
        assert portable.log2(INF) == 1024


def test_normal_cdf() -> None:
    x = np.concatenate([np.linspace(-9, 9, 2001), [-1e9, 1e9]])
    assert np.abs(portable.normal_cdf(x) - norm.cdf(x)).max() < 1.5e-7


def test_arctan() -> None:
    x = np.concatenate([np.linspace(-3, 3, 2001), np.geomspace(1e-9, 1e9, 500), [-1.0, 0.0, 1.0]])
    assert np.abs(portable.arctan(x) - np.arctan(x)).max() < 1e-15
    assert portable.arctan(INF) == np.pi / 2 == -portable.arctan(-INF)
