"""Correlated noise and principal components, the arithmetic of kernels/noise.cuh and pca.cuh in
NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from support.bit_operators import sequential_sum, white_noise
from support.bit_portable import F, Float32, philox, unit_interval

Array = NDArray[np.float64]

WIDE_GROUP, CHUNK, LANES = 32, 256, 32


def correlated_noise(
    cube: Float32, seed: int, index: int, split: int, stage: int, sigma: Float32, operator: Any
) -> Float32:
    num_freq, pixels = len(cube), cube[0].size
    groups = -(-pixels // WIDE_GROUP)
    nothing = np.zeros((groups, num_freq, WIDE_GROUP), F)
    white = white_noise(nothing, seed, index, split, stage, F(1)).transpose(1, 0, 2)
    white = white.reshape(num_freq, -1)[:, :pixels]
    level, out = operator.voxels.values, cube.reshape(num_freq, pixels).copy()
    for channel in range(num_freq):
        total = np.zeros(pixels, F)
        for k in range(channel + 1):
            total = total + operator.root.values[channel, k] * white[k]
        noisy = out[channel] + sigma * level[channel] * total
        out[channel] = np.where(level[channel] > 0, noisy, out[channel])
    return out.reshape(cube.shape)


def pca(cube: Float32, operator: Any) -> Float32:
    sigma = operator.sigma.values
    double, level = cube.reshape(sigma.shape).astype(np.float64), sigma.astype(np.float64)
    seen = sigma > 0
    weighted = np.where(seen, double / np.where(seen, level, 1.0), 0.0)
    modes = leading_modes(channel_products(weighted), operator.modes)
    amplitudes = [sequential_sum((mode[:, None] * weighted).T) for mode in modes]
    for channel in range(len(cube)):
        total = np.zeros(double.shape[1])
        for mode, amplitude in zip(modes, amplitudes, strict=True):
            total = total + mode[channel] * amplitude
        double[channel] = double[channel] - level[channel] * total
    left = double.astype(F)
    left[np.abs(left) < F(2.0**-126)] = 0
    return np.where(seen, left, cube.reshape(sigma.shape)).reshape(cube.shape)


def channel_products(weighted: Array) -> Array:
    num_freq = len(weighted)
    matrix = np.zeros((num_freq, num_freq))
    for start in range(0, weighted.shape[1], CHUNK):
        chunk = weighted[:, start : start + CHUNK]
        product = chunk[:, None] * chunk[None, :]
        lanes = np.zeros((num_freq, num_freq, LANES))
        for k in range(0, chunk.shape[1], LANES):
            part = product[..., k : k + LANES]
            lanes[..., : part.shape[2]] = lanes[..., : part.shape[2]] + part
        while lanes.shape[2] > 1:
            half = lanes.shape[2] // 2
            lanes = lanes[..., :half] + lanes[..., half:]
        matrix = matrix + lanes[..., 0]
    trace = float(sequential_sum(np.diag(matrix)))
    return matrix / trace if trace > 0 else matrix


def dot(a: Array, b: Array) -> float:
    return float(sequential_sum(np.append(0.0, a * b)))


def leading_modes(matrix: Array, number: int) -> Array:
    """Householder's reduction, bisection, inverse iteration."""
    matrix, n = matrix.copy(), len(matrix)
    reflectors: list[tuple[Array, float]] = []
    beside = np.zeros(n - 1)
    for k in range(n - 1):
        row, below = matrix[k, k + 1 :], matrix[k + 1 :, k + 1 :]
        rest = dot(row[1:], row[1:])
        norm = math.sqrt(row[0] * row[0] + rest)
        head = row[0] + norm if row[0] > 0 else row[0] - norm
        scale = 2.0 / (head * head + rest) if rest > 1e-60 else 0.0
        vector = np.append(head, row[1:])
        reflectors.append((vector, scale))
        beside[k] = row[0] if scale == 0 else -norm if row[0] > 0 else norm
        if scale == 0:
            continue
        image = np.zeros(len(vector))
        for weight, line in zip(vector, below, strict=True):
            image = image + weight * line
        half = 0.5 * scale * (scale * dot(vector, image))
        image = scale * image - half * vector
        below -= vector[:, None] * image[None, :] + image[:, None] * vector[None, :]
    diagonal = np.diag(matrix)
    values = [eigenvalue(diagonal, beside, rank) for rank in range(number)]
    modes = np.stack([start_of(rank, n) for rank in range(number)])
    for _ in range(4):
        for mode, value in zip(modes, values, strict=True):
            mode[:] = solved(diagonal, beside, value, mode)
        for r, mode in enumerate(modes):
            for earlier in [*modes[:r], *modes[:r]]:
                mode -= dot(earlier, mode) * earlier
            mode /= math.sqrt(dot(mode, mode))
    for mode in modes:
        for k in reversed(range(n - 1)):
            vector, scale = reflectors[k]
            mode[k + 1 :] -= scale * dot(vector, mode[k + 1 :]) * vector
    return modes


def start_of(rank: int, n: int) -> Array:
    words = philox(np.arange(n), rank, 0, 0, (0, 0))
    return unit_interval(words[0]).astype(np.float64) - 0.5


def eigenvalue(diagonal: Array, beside: Array, rank: int) -> float:
    low, high = -0.125, 1.125
    for _ in range(58):
        middle = 0.5 * (low + high)
        pivot, coupling, number = 1.0, 0.0, 0
        for entry, next_to in zip(diagonal, np.append(beside, 0.0), strict=True):
            pivot = entry - middle - coupling / pivot
            pivot = -1e-300 if abs(pivot) < 1e-300 else pivot
            number += pivot > 0
            coupling = next_to * next_to
        low, high = (middle, high) if number > rank else (low, middle)
    return 0.5 * (low + high)


def solved(diagonal: Array, beside: Array, value: float, right: Array) -> Array:
    """By elimination of one row after the other, the larger pivot first."""
    n, far = len(diagonal), np.append(beside, 0.0)
    rows: list[tuple[float, float, float, float]] = []
    row = (diagonal[0] - value, beside[0], 0.0, right[0])
    for i in range(n - 1):
        below = (beside[i], diagonal[i + 1] - value, far[i + 1], right[i + 1])
        if abs(below[0]) > abs(row[0]):
            row, below = below, row
        else:
            row = (row[0] if abs(row[0]) >= 1e-17 else 1e-17, *row[1:])
        ratio = below[0] / row[0]
        rows.append(row)
        row = (below[1] - ratio * row[1], below[2] - ratio * row[2], 0.0, below[3] - ratio * row[3])
    rows.append((row[0] if abs(row[0]) >= 1e-17 else 1e-17, 0.0, 0.0, row[3]))
    found = [0.0, 0.0]
    for pivot, first, second, known in reversed(rows):
        found.insert(0, (known - (first * found[0] + second * found[1])) / pivot)
    return np.array(found[:n]) * (1.0 / max(abs(x) for x in found))
