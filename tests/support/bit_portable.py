"""The arithmetic of portable.cuh and philox.cuh in NumPy, one IEEE operation after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

F = np.float32
U = np.uint32
Float32 = NDArray[np.float32]
Words = NDArray[np.uint32]

LOG2_SERIES = (
    1.4426950216293335, -0.7213473320007324, 0.48091062903404236, -0.3607036769390106,
    0.28791624307632446, -0.23894481360912323, 0.21571564674377441, -0.2072697877883911,
    0.12583696842193604,
)  # fmt: skip
EXP2_SERIES = (
    1.0, 0.6931471824645996, 0.24022650718688965, 0.055504102259874344, 0.009618038311600685,
    0.0013333935057744384, 0.00015466756303794682, 1.5196156709862407e-05,
)  # fmt: skip
SINE_SERIES = (
    1.5707963705062866, -0.6459640860557556, 0.07969257980585098, -0.004681266378611326,
    0.00015820664702914655,
)  # fmt: skip
COSINE_SERIES = (
    1.0, -1.2337005138397217, 0.25366923213005066, -0.02086028829216957, 0.0009040210279636085,
)  # fmt: skip
ATAN_SERIES = tuple((-1) ** k / (2 * k + 1) for k in range(7))
ASIN_SERIES = (1.0, 1 / 6, 3 / 40, 5 / 112, 35 / 1152, 63 / 2816, 231 / 13312)


def polynomial(series: tuple[float, ...], x: NDArray[Any]) -> NDArray[Any]:
    total = np.full_like(x, series[-1])
    for coefficient in reversed(series[:-1]):
        total = total * x + x.dtype.type(coefficient)
    return total


# portable.cuh


def log2(x: Float32) -> Float32:
    smallest = F(1.17549435e-38)
    bits = np.where(x > smallest, x, smallest).view(U)
    exponent = (bits - U(0x3F3504F3)).view(np.int32) >> 23
    f = (bits - (exponent.view(U) << U(23))).view(F) - F(1)
    return exponent.astype(F) + f * polynomial(LOG2_SERIES, f)


def exp2(x: Float32) -> Float32:
    x = np.where(x > F(-126), x, F(-126))
    x = np.where(x < F(127), x, F(127))
    whole = (x + F(12582912)) - F(12582912)
    mantissa = polynomial(EXP2_SERIES, x - whole)
    return (mantissa.view(U) + (whole.astype(np.int32).view(U) << U(23))).view(F)


def unit_interval(word: Words) -> Float32:
    return ((word >> U(9)).astype(F) + F(0.5)) * F(2.0**-23)


def quarter_turns(turns4: Float32) -> tuple[Float32, Float32]:
    whole = (turns4 + F(12582912)) - F(12582912)
    r = turns4 - whole
    quadrant = whole.astype(np.int32)
    square = r * r
    sine, cosine = polynomial(SINE_SERIES, square) * r, polynomial(COSINE_SERIES, square)
    odd = quadrant % 2 == 1
    sine, cosine = np.where(odd, cosine, sine), np.where(odd, sine, cosine)
    return (
        np.where(quadrant % 4 >= 2, -sine, sine),
        np.where((quadrant + 1) % 4 >= 2, -cosine, cosine),
    )


def normal_pair(first: Words, second: Words) -> tuple[Float32, Float32]:
    radius = np.sqrt(F(-1.3862943649291992) * log2(unit_interval(first)))
    sine, cosine = quarter_turns(F(4) * unit_interval(second))
    return radius * cosine, radius * sine


# philox.cuh


def philox(
    element: NDArray[Any], word1: int, word2: int, word3: int, key: tuple[int, int]
) -> tuple[Words, Words, Words, Words]:
    c = [
        np.asarray(element, np.uint64),
        *(np.full(len(element), w, np.uint64) for w in (word1, word2, word3)),
    ]
    k0, k1 = key
    low = np.uint64(0xFFFFFFFF)
    for _ in range(10):
        a, b = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [
            (b >> np.uint64(32)) ^ c[1] ^ np.uint64(k0),
            b & low,
            (a >> np.uint64(32)) ^ c[3] ^ np.uint64(k1),
            a & low,
        ]
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    first, second, third, fourth = (word.astype(U) for word in c)
    return first, second, third, fourth


def split_seed(seed: int) -> tuple[int, int]:
    return seed % 2**32, seed >> 32
