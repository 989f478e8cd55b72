"""A user's luminosity function that does everything that can be compiled into the kernel."""

from __future__ import annotations

from typing import Any

import numpy as np


def everything(mass_Msun: Any, z: Any, *, age: Any, slope: float = 0.5, knee: float = 3e11) -> Any:
    """One of each that the error message promises, with the result positive."""
    x = mass_Msun / knee
    y = np.where(x > 1, x**slope, np.sqrt(x)) + np.exp(-z) * np.exp2(z) + np.cbrt(x)
    y = y + np.maximum(np.log10(mass_Msun) - 11, 0.1) + np.minimum(np.log(x), 2) ** 2
    y = y + np.logaddexp(0.0, 3 * (np.log2(x) + 1)) + np.power(1 + z, 1.7) + np.float_power(x, 0.1)
    y = y + np.clip(z, 2.5, 3.5) - 0.5 * np.absolute(z - 3) + np.fabs(z - 3) + abs(x - 1)
    y = y + np.square(z) + np.reciprocal(1 + x) + np.log1p(x) + np.add(x, 1) - np.negative(z)
    y = y + np.subtract(5, z) + np.multiply(2, x) + np.divide(1, z) + 10**0.5 + 2 ** (z - 3)
    y = y + age * np.where(z >= 3, 1.0, 2.0) + np.where(age < 1, 1, 0) + np.positive(z)
    return y + np.where(np.less_equal(x, 2), 1, 0) + np.where(np.greater(z, 2.2), 1, 3) * 1e-3
