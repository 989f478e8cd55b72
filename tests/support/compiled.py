"""The device functions of kernels/*.cuh, compiled by the host compiler and called on arrays."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from streamtrain.luminosity.registry import MODELS
from streamtrain.luminosity.trace import trace
from streamtrain.numerics.backend import HostKernels, kernel_source

Float32 = NDArray[np.float32]
Words = NDArray[np.uint32]


@cache
def _kernels(file: str = "functions.cu", prologue: str = "") -> HostKernels:
    functions = Path(__file__).with_name(file).read_text(encoding="ascii")
    return HostKernels(kernel_source("label.cu", prologue) + functions)


def _call(name: str, inputs: list[NDArray], outputs: int, dtype: type) -> list[NDArray]:
    shapes = [np.empty(inputs[0].shape, dtype) for _ in range(outputs)]
    tensors = [torch.from_numpy(np.array(a).view(np.int32)) for a in [*inputs, *shapes]]
    _kernels().elementwise(name, 1, len(inputs[0]), *tensors)
    return [t.numpy().view(dtype) for t in tensors[len(inputs) :]]


def log2(x: Float32) -> Float32:
    return _call("apply_log2", [x], 1, np.float32)[0]


def exp2(x: Float32) -> Float32:
    return _call("apply_exp2", [x], 1, np.float32)[0]


def quarter_turns(x: Float32) -> tuple[Float32, Float32]:
    sine, cosine = _call("apply_quarter_turns", [x], 2, np.float32)
    return sine, cosine


def unit_interval(words: Words) -> Float32:
    return _call("apply_unit_interval", [words], 1, np.float32)[0]


def normal_pair(first: Words, second: Words) -> tuple[Float32, Float32]:
    a, b = _call("apply_normal_pair", [first, second], 2, np.float32)
    return a, b


def philox(counter: Words, key: Words) -> Words:
    """counter [n, 4], key [n, 2] -> [n, 4]."""
    return _call("apply_philox", [counter, key], 1, np.uint32)[0]


def model(
    source: str, log2_mass: Float32, log2_1pz: Float32, columns: list[Float32], u: Float32
) -> Float32:
    """A traced model of halos [n]: log2 L, by way of the static columns where it has them."""
    stacked = np.stack([*columns, *np.full((20, len(log2_mass)), np.nan, np.float32)])
    arrays = [log2_mass, log2_1pz, stacked, np.append(u, np.float32(0)), np.empty_like(log2_mass)]
    tensors = [torch.from_numpy(np.array(a)) for a in arrays]
    if "NUM_STATIC" in source:
        _kernels("model.cu", source).elementwise("apply_static", 1, len(log2_mass), *tensors[:3])
    _kernels("model.cu", source).elementwise("apply_model", 1, len(log2_mass), *tensors)
    return tensors[-1].numpy()


def place(
    position: list[Float32],
    rotation: NDArray[np.float64],
    field: NDArray[np.float64],
    shape: NDArray[np.int32],
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """Voxels of halos [n] by quick_voxel, narrow_voxel, place_halo; field, shape: see paint.cu."""
    model = MODELS["breysse15"]
    source = trace(model.function, model.traced_parameters, {"nu_rest_GHz": 115.27}).source
    functions = Path(__file__).with_name("place.cu").read_text(encoding="ascii")
    kernels = HostKernels(kernel_source("paint.cu", source) + functions)
    found = [torch.empty(len(position[0]), dtype=torch.int32) for _ in range(3)]
    arrays = [
        torch.from_numpy(np.ascontiguousarray(a)) for a in (*position, rotation, field, shape)
    ]
    kernels.elementwise("apply_place", 1, len(position[0]), *arrays, *found)
    quick, narrow, exact = (voxels.numpy() for voxels in found)
    return quick, narrow, exact
