"""Configurations that between them launch every kernel, and batches made as a GPU makes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from streamtrain.generator.generator import Generator
from streamtrain.generator.painter import PaintArguments
from streamtrain.numerics.workspace import Workspace, layout, pack, unpack
from support import TESTS

MIXTURE = {"li16": {}, "yang22_co10": {}, "breysse15": {"prior": "published"}}
EMIT: dict[str, dict[str, Any]] = {
    "li16": {"line": {"model": "li16"}},
    "padmanabhan18": {"line": {"model": "padmanabhan18"}},
    "yang22_co10": {"line": {"model": "yang22_co10"}},
    "mixture": {"line": {"mixture": MIXTURE}},
    "emitters": {
        "line": {"mixture": MIXTURE},
        "line_width": {"inclination": True, "factor": 20.0},
        "dim": {"above_log10_L": 5.0},
        "brightness": {"factor": {"log_uniform": [0.3, 3]}},
        "interloper": {"model": "chung22", "nu_rest_GHz": 117.0},
    },
    "duty cycle": {"line": {"model": "pullen13"}, "line_width": {"factor": 20.0}},
}
LABELS: dict[str, dict[str, Any]] = {
    "cumulative": {"quantity": "cumulative"},
    "phi in unequal bins": {"quantity": "phi", "edges": [3.0, 4.0, 4.2, 5.5, 5.51, 7.0]},
}
EMITTED = [
    ("li16", "cumulative"),
    ("padmanabhan18", "phi in unequal bins"),
    ("yang22_co10", "cumulative"),
    ("mixture", "phi in unequal bins"),
    ("emitters", "cumulative"),
    ("duty cycle", "cumulative"),
]
NOISY: dict[str, Any] = {
    "noise": {"sigma_uK": [0, 5], "absent": 0.3},
    "pool": {"factor": [3, 3, 3], "reduce": "sum"},
    "radio_sources": {"density": {"uniform": [20, 2000]}},
    "edge_noise": {"width": 0.4},
    "log_modulus": {},
}
FILTERS: dict[str, Any] = {
    "beam": {"fwhm_arcmin": 6.0, "reference_GHz": 30.0},
    "beam_2": {"profile": str(TESTS / "data" / "beam.csv")},
    "channel_response": {"fwhm_MHz": 1500.0},
    "transfer_function": {"file": str(TESTS / "data" / "transfer.npz")},
    "noise": {"sigma_uK": [0, 5]},
    "mask": {"edge_pixels": 1},
    "high_pass": {"modes": 3},
    "subtract_mean": {"skip_zeros": True},
    "asinh": {"scale": 0.5},
    "log10": {"epsilon": 2.0},
    "standardise": {},
}
"""Map operators that work on slices, rows or groups of pixels (441 are no multiple of 8)."""


def survey(folder: Path) -> dict[str, Any]:
    """Noise and masks per voxel, in files that are written here, noise that is correlated along
    frequency, and principal components."""
    shape = (9, 21, 21)
    rng = np.random.default_rng(4)
    grid = {"nu_binedges": np.linspace(34, 26, 10)}
    grid |= {f"pix_binedges_{axis}": np.linspace(-0.4, 0.4, 22) for axis in "xy"}
    for name, values in (
        ("sigma", rng.uniform(-0.3, 2.0, shape).clip(0.0)),
        ("mask", rng.uniform(size=shape) > 0.1),
    ):
        np.savez(folder / f"{name}.npz", map=values.astype(float).T, units="uK", **grid)
    return {
        "noise": {"rms": str(folder / "sigma.npz")},
        "correlated_noise": {"sigma_uK": [0, 3], "knee_per_GHz": 0.5},
        "mask": {"file": str(folder / "mask.npz")},
        "pca": {"modes": 4},
    }


def made(
    generator: Generator, indices: list[int], arguments: PaintArguments | None = None
) -> tuple[torch.Tensor, torch.Tensor, PaintArguments]:
    """Cubes and counts as a GPU makes them: the whole batch at once, its arguments in one piece of
    memory, in tensors that hold something else before. arguments: instead of those drawn."""
    drawing = generator.draw(indices)
    arguments = arguments or drawing.arguments
    cube = torch.full((len(arguments), *generator.input_shape), torch.nan)
    raw = torch.zeros((len(arguments), generator.bins.num_counts), dtype=torch.int32)
    scene = generator.scenes.latest
    arrays = generator.pipeline.kernel_arguments(
        scene, arguments, drawing.operators, 0, len(arguments)
    )
    starts, size = layout(arrays)
    packed = torch.empty(size, dtype=torch.uint8)
    pack(arrays, starts, packed)
    arrays = unpack(arrays, starts, packed)
    generator.pipeline.make(scene, arrays, cube, raw, Workspace(torch.device("cpu")))
    return cube, raw, arguments


def edited(source: str, edits: Mapping[str, str]) -> str:
    """A source with pieces of it replaced, each of which is there."""
    for old, new in edits.items():
        assert old in source, old
        source = source.replace(old, new)
    return source


UNSURE = {"0.5f - 1.9073486328125e-06f * number": "0.2f"}
"""Five in six halos are too close to a voxel's edge for float32 to tell."""
