"""Map operators and labels, the arithmetic of kernels/observe.cu and label.cu in NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.labels import LabelConfig
from streamtrain.numerics import portable
from streamtrain.operators.sources import RadioSources
from support.bit_portable import (
    F,
    Float32,
    Words,
    exp2,
    log2,
    normal_pair,
    philox,
    polynomial,
    split_seed,
    unit_interval,
)


def white_noise(
    cube: Float32, seed: int, index: int, split: int, stage: int, sigma: Float32
) -> Float32:
    """`stage` is the operator's first stage; voxel noise has the one after it."""
    groups = np.arange(-(-cube.size // 4))
    words = philox(groups, (split << 16) + stage + 1, index % 2**32, index >> 32, split_seed(seed))
    normal = np.stack([*normal_pair(*words[:2]), *normal_pair(*words[2:])], axis=1)
    return cube + sigma * normal.ravel()[: cube.size].reshape(cube.shape)


def pixel_noise(
    cube: Float32,
    seed: int,
    index: int,
    split: int,
    stage: int,
    sigma: Float32,
    relative: Float32,
) -> Float32:
    noisy = white_noise(cube, seed, index, split, stage, sigma * relative)
    return np.where(relative < 0, F(0), noisy)


def exp_minus(x: float) -> NDArray[np.float64]:
    series = (1.0, 1.0, 1 / 2, 1 / 6, 1 / 24, 1 / 120, 1 / 720, 1 / 5040)
    result = polynomial(series, np.array(x / -256))
    for _ in range(8):
        result = result * result
    return result


def poisson(first: Words, second: Words, mean: float) -> NDArray[np.int64]:
    bits = (first.astype(np.uint64) << np.uint64(20)) | (second.astype(np.uint64) >> np.uint64(12))
    u = (bits.astype(np.float64) + 0.5) * 2.0**-52
    probability = exp_minus(mean)
    below, number, more = probability, np.zeros(len(u), np.int64), np.ones(len(u), bool)
    count = 0
    while probability > 1e-18:
        more = more & (u > below)
        number += more
        count += 1
        probability = probability * (mean / count)
        below = below + probability
    return number


def radio_sources(
    cube: Float32,
    seed: int,
    index: int,
    split: int,
    stage: int,
    drawn: Mapping[str, float],
    operator: RadioSources,
) -> Float32:
    """Added part by part of a pixel and source by source, all pixels at a time."""
    counter = (split << 16) + stage + 1, index % 2**32, index >> 32, split_seed(seed)
    cube, pixels = cube.copy(), cube[0].size
    spectra = cube.reshape(len(cube), pixels)
    expected = drawn["density"] * operator.pixel_deg2
    parts = 1 + int(expected / 8)
    lowest, highest = (F(portable.log2(flux)) for flux in operator.flux_mJy)
    log2_range = F(np.diff(portable.log2(operator.flux_mJy))[0])
    assert highest > lowest
    a = F(1) - F(drawn["slope"])
    a = F(1e-3) if a * a < F(1e-6) else a
    w0 = exp2(np.array([a * log2_range]))
    for part in range(parts):
        place = np.arange(pixels) * parts + part
        number = poisson(*philox(place, *counter)[:2], expected / parts)
        for n in range(number.max()):
            here = np.flatnonzero(number > n)
            words = philox((n + 1) * pixels * parts + place[here], *counter)
            w = w0 + unit_interval(words[0]) * (F(1) - w0)
            log2_flux = lowest + log2(w) / a
            alpha = F(operator.alpha[0]) + F(operator.alpha[1]) * normal_pair(*words[1:3])[0]
            for freq in range(len(cube)):
                total = np.zeros(len(here), F)
                for k in range(freq * operator.by_freq, (freq + 1) * operator.by_freq):
                    bent = log2_flux - alpha * operator.log2_nu.values[k]
                    total = total + operator.response.values[k] * exp2(bent)
                spectra[freq, here] = spectra[freq, here] + total
    return cube


def pool(cube: Float32, factor: tuple[int, int, int], mean: bool) -> Float32:
    freq, dec, ra = factor
    total = np.zeros([n // f for n, f in zip(cube.shape, factor, strict=True)])
    for i in range(freq):
        for j in range(dec):
            for k in range(ra):
                total = total + cube[i::freq, j::dec, k::ra]
    return total.astype(F) * F(1.0 / (freq * dec * ra) if mean else 1.0)


def log_modulus(cube: Float32) -> Float32:
    result = F(0.30102999566398120) * log2(np.abs(cube) + F(1))
    return np.copysign(result, cube)


def beam(cube: Float32, operator: Any) -> Float32:
    """Its weights and edges are compared with SciPy's in test_filters, a profile's factors with
    closed forms in test_profile."""
    if hasattr(operator.convolution, "slices"):
        return filter_slices(cube, None, operator.convolution.slices)[0]
    for axis in (operator.convolution.ra, operator.convolution.dec):
        source, weights = axis.source.values, axis.weights.values
        seen = np.where(source < 0, F(0), cube[:, :, source]).transpose(0, 2, 1)
        num = cube.shape[2]
        total = np.zeros((len(cube), num, cube.shape[1]), F)
        for k in range(weights.shape[1]):
            total = total + weights[:, k, None, None] * seen[:, k : k + num]
        cube = total
    return cube


Parts = tuple[Float32, Float32 | None]
"""Real and imaginary parts of rows [slices, rows, across]; None of real ones."""


def sum_rows(rows: Parts, sums: Any) -> Parts:
    source, weights = sums.source.values, sums.weights.values
    x, y = rows
    real = np.zeros((len(x), len(source), x.shape[2]), F)
    imaginary = np.zeros_like(real)
    for k in range(source.shape[1]):
        a, b = weights[:, k, 0, None], weights[:, k, 1, None]
        here = x[:, source[:, k]]
        if y is None:
            real, imaginary = real + a * here, imaginary + b * here
        else:
            there = y[:, source[:, k]]
            real = real + (a * here - b * there)
            imaginary = imaginary + (a * there + b * here)
    return real, imaginary


def transform(rows: Parts, steps: Any, real: bool = False) -> Parts:
    """real: of the last step's sums the imaginary parts are left."""
    for step in steps:
        rows = sum_rows(rows, step)
    return (rows[0], None) if real else rows


def turn(rows: Parts) -> Parts:
    x, y = (None if part is None else part.transpose(0, 2, 1) for part in rows)
    assert x is not None
    return x, y


def filter_slices(x: Float32, y: Float32 | None, given: Any) -> Parts:
    columns = turn(transform((x, y), given.dec.forward, given.dec.real))
    waves = transform(columns, given.ra.forward, given.ra.real)
    factors = given.factors.values[np.arange(len(x)) % len(given.factors.values)]
    scaled = waves[0] * factors, None if waves[1] is None else waves[1] * factors
    columns = transform(scaled, given.ra.backward, columns[1] is None)
    return transform(turn(columns), given.dec.backward, y is None)


def transfer_function(cube: Float32, operator: Any) -> Float32:
    """Its factors are compared with the table in test_transfer."""
    shape = cube.shape
    x, y = transform((cube.reshape(1, shape[0], -1), None), operator.freq.forward)
    assert y is not None
    waves = filter_slices(*(part.reshape(-1, *shape[1:]) for part in (x, y)), operator.slices)
    assert waves[1] is not None
    back = waves[0].reshape(1, -1, cube[0].size), waves[1].reshape(1, -1, cube[0].size)
    return transform(back, operator.freq.backward)[0].reshape(shape)


def channel_response(cube: Float32, operator: Any) -> Float32:
    rows = cube.reshape(1, len(cube), -1)
    return sum_rows((rows, None), operator.sums)[0].reshape(cube.shape)


def mask(cube: Float32, operator: Any) -> Float32:
    return np.where(operator.keep.values == 1, cube, F(0))


def sequential_sum(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over the last axis, one after the other."""
    return np.cumsum(values, axis=-1)[..., -1]


def subtract_mean(cube: Float32, skip_zeros: bool) -> Float32:
    sums = sequential_sum(sequential_sum(cube.astype(np.float64)))
    counted = (cube != 0) | (not skip_zeros)
    mean = sums / np.maximum(counted.sum(axis=(1, 2)), 1)
    result = (cube.astype(np.float64) - mean[:, None, None]).astype(F)
    return np.where(counted, result, cube)


def standardise(cube: Float32) -> Float32:
    double = cube.astype(np.float64)
    mean = sequential_sum(sequential_sum(sequential_sum(double))) / cube.size
    distance = double - mean
    squares = sequential_sum(sequential_sum(sequential_sum(distance * distance)))
    variance = squares / cube.size
    return (distance * (1.0 / np.sqrt(variance) if variance > 0 else 0.0)).astype(F)


def high_pass(cube: Float32, operator: Any) -> Float32:
    modes = operator.modes.values
    double = cube.astype(np.float64)
    smooth = np.zeros(cube.shape)
    for mode in modes:
        amplitude = np.zeros(cube.shape[1:])
        for k in range(len(cube)):
            amplitude = amplitude + mode[k] * double[k]
        smooth = smooth + mode[:, None, None] * amplitude
    return (double - smooth).astype(F)


def log10(cube: Float32, epsilon: float) -> Float32:
    value, lowest = cube + F(epsilon), F(1e-3 * epsilon)
    return F(0.30102999566398120) * log2(np.where(value > lowest, value, lowest))


def asinh(cube: Float32, scale: float) -> Float32:
    ratio = np.abs(cube) / F(scale)
    large = ratio > F(1e4)
    a = np.where(large | ~(ratio > F(1.17549435e-38)), F(0), ratio)
    square = a * a
    u = a + square / (F(1) + np.sqrt(F(1) + square))
    w = F(1) + u
    rest = w - F(1)
    logarithm = F(0.69314718055994531) * log2(np.where(large, ratio, w))
    small = np.where(rest > 0, logarithm * (u / np.where(rest > 0, rest, F(1))), u)
    return np.copysign(np.where(large, logarithm + F(0.69314718055994531), small), cube)


def unit_label(
    config: LabelConfig, edges: NDArray[np.float64], volume_Mpc3: float
) -> NDArray[np.float64]:
    """What a halo is worth in the label, before its logarithm."""
    width = np.ones(len(edges) - 1)
    if config.quantity == "phi":
        width = np.diff(portable.exp10(edges))
    elif config.quantity == "phi_L":
        width = np.diff(edges) * (portable.LOG2_10 * portable.LN2)
    return 1.0 / (volume_Mpc3 * width) if config.quantity.startswith("phi") else width


def label(
    counts: NDArray[np.int64], above: int, config: LabelConfig, unit: NDArray[np.float64]
) -> Float32:
    if config.quantity == "cumulative":
        counts = counts[::-1].cumsum()[::-1] + (above if config.overflow else 0)
    value = counts.astype(F)
    if config.scale == "linear":
        return value * unit.astype(F)
    value = np.where(counts > 0, F(0.30102999566398120) * log2(value), F(0))
    return value + portable.log10(unit).astype(F)
