"""float64 arithmetic on the host that gives the same bits on every machine.

NumPy's own `exp`, `log` and `cos` differ in the last bit between processors, so whatever decides
a sample (drawn parameters, derived columns) uses these functions. They consist of IEEE-754
+ - * / and exact scalings by powers of two; kernels/portable64.cuh has the same ones.

What only records what is done to it (a `Symbol`, see `luminosity.symbol`) says so with a method
`__portable__`, and records log2 and exp2 as well.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]
Function = TypeVar("Function", bound=Callable[..., Any])

LN2 = 0.6931471805599453
LN10 = 2.302585092994046
LOG2_10 = 3.321928094887362
LOG10_2 = 0.30102999566398120
_EXP2_TERMS = [1.0]
for _n in range(1, 19):
    _EXP2_TERMS.append(_EXP2_TERMS[-1] * LN2 / _n)
_LOG2_TERMS = [1.0 / (2 * _k + 1) for _k in range(13)]
_ARCTAN_TERMS = [(-1.0) ** _k / (2 * _k + 1) for _k in range(13)]
_SIN_TERMS = [1.0]
_COS_TERMS = [1.0]
for _n in range(1, 12):
    _SIN_TERMS.append(-_SIN_TERMS[-1] / ((2 * _n) * (2 * _n + 1)))
    _COS_TERMS.append(-_COS_TERMS[-1] / ((2 * _n - 1) * (2 * _n)))


def source() -> str:
    """The constants of these functions for kernels/portable64.cuh."""
    series = {
        "EXP2_TERMS": _EXP2_TERMS,
        "LOG2_TERMS": _LOG2_TERMS,
        "SIN_TERMS": _SIN_TERMS,
        "COS_TERMS": _COS_TERMS,
        "ARCTAN_TERMS": _ARCTAN_TERMS,
        "LN2": [LN2],
        "HALF_PI": [np.pi / 2],
    }
    return "".join(f"#define {k} {', '.join(map(repr, v))}\n" for k, v in series.items())


def _number(x: Any) -> Any:
    return x if hasattr(x, "__portable__") else np.asarray(x, np.float64)


def _recorded(function: Function) -> Function:
    """A function that a recording argument records."""

    @wraps(function)
    def either(x: Any) -> Any:
        if hasattr(x, "__portable__"):
            return x.__portable__(function.__name__)
        return function(x)

    return either  # type: ignore[return-value]


def _horner(terms: list[float], x: Float) -> Float:
    total = np.full_like(x, terms[-1])
    for term in reversed(terms[:-1]):
        total *= x
        total += term
    return total


@_recorded
def log2(x: ArrayLike) -> Float:
    """log2(x) to 4 ulp. Zero and negative numbers give -1022 (the smallest normal exponent),
    infinity gives 1024."""
    value = np.minimum(np.asarray(x, np.float64), 1.7976931348623157e308)
    value = np.maximum(value, 2.2250738585072014e-308)
    mantissa, exponent = np.frexp(value)
    low = mantissa < 0.7071067811865476
    mantissa = np.where(low, 2.0 * mantissa, mantissa)
    exponent = np.where(low, exponent - 1, exponent).astype(np.float64)
    s = (mantissa - 1.0) / (mantissa + 1.0)
    s2 = s * s
    series = _horner(_LOG2_TERMS, s2)
    return exponent + s * series * (2.0 / LN2)


@_recorded
def exp2(x: ArrayLike) -> Float:
    """2^x to 2 ulp, x clamped to [-1022, 1023]."""
    clamped = np.minimum(np.maximum(np.asarray(x, np.float64), -1022.0), 1023.0)
    whole = np.rint(clamped)
    return np.ldexp(_horner(_EXP2_TERMS, clamped - whole), whole.astype(np.int64))


def log10(x: ArrayLike) -> Float:
    """log10(x) to 5 ulp."""
    return log2(x) * LOG10_2


def exp10(x: ArrayLike) -> Float:
    """10^x; relative error below 1e-15 * max(1, |x|)."""
    return exp2(_number(x) * LOG2_10)


def log(x: ArrayLike) -> Float:
    """Natural logarithm to 4 ulp."""
    return log2(x) * LN2


def exp(x: ArrayLike) -> Float:
    """e^x; relative error below 1e-15 * max(1, |x|)."""
    return exp2(_number(x) * (1.0 / LN2))


def sincos_turns(turns: ArrayLike) -> tuple[Float, Float]:
    """sin and cos of 2 pi `turns`, absolute error below 1e-15; exact for quarter turns."""
    quarters = 4.0 * np.asarray(turns, np.float64)
    whole = np.rint(quarters)
    angle = (quarters - whole) * (np.pi / 2)
    square = angle * angle
    sine, cosine = angle * _horner(_SIN_TERMS, square), _horner(_COS_TERMS, square)
    quadrant = whole.astype(np.int64) & 3
    out_sine = np.choose(quadrant, [sine, cosine, -sine, -cosine])
    out_cosine = np.choose(quadrant, [cosine, -sine, -cosine, sine])
    return out_sine, out_cosine


def sincos_deg(angle_deg: ArrayLike) -> tuple[Float, Float]:
    """sin and cos of an angle [deg]."""
    return sincos_turns(np.asarray(angle_deg, np.float64) / 360.0)


def arctan(x: ArrayLike) -> Float:
    """The angle [rad] whose tangent is x, to 1e-15; infinity gives a quarter turn."""
    value = np.asarray(x, np.float64)
    size = np.abs(value)
    large = size > 1.0
    t = np.where(large, 1.0 / np.where(large, size, 1.0), size)
    for _ in range(2):  # half the angle each
        t = t / (1.0 + np.sqrt(1.0 + t * t))
    angle = 4.0 * t * _horner(_ARCTAN_TERMS, t * t)
    return np.copysign(np.where(large, np.pi / 2 - angle, angle), value)


def normal_cdf(x: ArrayLike) -> Float:
    """Probability that a standard normal is below x, to 1.5e-7 (Abramowitz and Stegun 7.1.26)."""
    value = _number(x)
    size = np.abs(value) * 0.7071067811865476
    t = 1.0 / (1.0 + 0.3275911 * size)
    p = 1.061405429
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        p = p * t + coefficient
    tail = 0.5 * p * t * exp(-np.minimum(size * size, 700.0))
    return np.where(value < 0.0, tail, 1.0 - tail)
