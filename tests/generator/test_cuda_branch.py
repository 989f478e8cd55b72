"""The GPU branch of the kernels, run thread by thread on the CPU, makes the bits of the CPU branch.

What CUDA itself does with the same source is for the tests marked gpu; this one covers what is
written twice: indexing, work items, shared histogram, launch arguments.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import torch

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.cosmology import Cosmology
from streamtrain.generator.backend import Argument, HostKernels, kernel_source
from streamtrain.generator.generator import Generator
from streamtrain.generator.labels import EXTRA_COUNTS
from streamtrain.generator.painter import Job
from streamtrain.generator.workspace import Workspace, layout, pack, unpack

pytestmark = small.EXTRAPOLATES

SHIM = (Path(__file__).parent.parent / "cuda_shim.h").read_text(encoding="ascii")
BLOCKS, THREADS, PER_ITEM = 2, 3, 2


class EmulatedCuda(HostKernels):
    """Launches like CudaKernels, in spirit: items x some blocks, blocks x samples."""

    def __init__(self, name: str, prologue: str = "") -> None:
        super().__init__(SHIM + kernel_source(name, prologue))

    def elementwise(self, name: str, samples: int, elements: int, *arguments: Argument) -> None:
        scalars = (np.int64(samples), np.int64(elements))
        for sample in range(samples):
            for number in range(BLOCKS * THREADS):
                self._thread(number % BLOCKS, sample, number // BLOCKS, BLOCKS, samples, THREADS)
                self._call(name, (*scalars, *arguments))

    def per_item(self, name: str, items: int, shared_bytes: int, *arguments: Argument) -> None:
        for block in range(items * PER_ITEM):
            self._thread(block // PER_ITEM, block % PER_ITEM, 0, items, PER_ITEM, 1)
            self._call(name, (np.int64(items), *arguments))

    def _thread(self, *numbers: int) -> None:
        self._call("set_thread", tuple(np.uint32(n) for n in numbers))


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
}
LABELS: dict[str, dict[str, Any]] = {
    "cumulative": {"quantity": "cumulative"},
    "phi in unequal bins": {"quantity": "phi", "edges": [3.0, 4.0, 4.2, 5.5, 5.51, 7.0]},
}


def made(generator: Generator, indices: list[int]) -> tuple[torch.Tensor, torch.Tensor, Job]:
    """Cubes and counts as a GPU makes them: the whole batch at once, its arguments in one piece of
    memory, in tensors that hold something else before."""
    drawing = generator.draw(indices)
    job = drawing.job
    cube = torch.full((len(job), *generator.input_shape), torch.nan)
    raw = torch.full((len(job), generator.num_bins + EXTRA_COUNTS), -1, dtype=torch.int32)
    scene = generator.scenes.latest
    arrays = generator.maker.told(scene, job, drawing.operators, 0, len(job))
    starts, size = layout(arrays)
    packed = torch.empty(size, dtype=torch.uint8)
    pack(arrays, starts, packed)
    told = unpack(arrays, starts, packed)
    generator.maker.make(scene, told, cube, raw, Workspace(torch.device("cpu")))
    return cube, raw, job


def test_bits_of_the_filters(small_sky: Lightcone) -> None:
    """Map operators that work on slices, rows or groups of pixels (441 are no multiple of 8)."""
    observe = {
        "beam": {"fwhm_arcmin": 6.0, "reference_GHz": 30.0},
        "noise": {"sigma_uK": [0, 5]},
        "mask": {"edge_pixels": 1},
        "high_pass": {"modes": 3},
        "subtract_mean": {"skip_zeros": True},
        "asinh": {"scale": 0.5},
        "log10": {"epsilon": 2.0},
        "standardise": {},
    }
    generator = Generator(small.config(observe=observe), lightcones=[small_sky])
    expected = generator.generate([0, 5])
    generator.maker.observe = EmulatedCuda("observe.cu")
    cube, _, _ = made(generator, [0, 5])
    assert torch.equal(cube, expected.cube)


@pytest.mark.parametrize(
    ("emit", "label"),
    [
        ("li16", "cumulative"),
        ("padmanabhan18", "phi in unequal bins"),
        ("yang22_co10", "cumulative"),
        ("mixture", "phi in unequal bins"),
        ("emitters", "cumulative"),
    ],
)
def test_bits_of_the_cpu(small_sky: Lightcone, emit: str, label: str) -> None:
    """Two lightcones of two cosmologies: phi has a volume per sample. Some items begin in the
    middle of a pair."""
    config = small.config(
        emit=EMIT[emit],
        observe={
            "noise": {"sigma_uK": [0, 5], "absent": 0.3},
            "pool": {"factor": [3, 3, 3], "reduce": "sum"},
            "radio_sources": {"density": {"uniform": [20, 2000]}},
            "edge_noise": {"width": 0.4},
            "log_modulus": {},
        },
        label=LABELS[label],
    )
    other = small.lightcone(2, cosmology={**Cosmology().to_dict(), "Omega_m": 0.29})
    generator = Generator(config, lightcones=[small_sky, other])
    indices = [0, 1, 2, 2**40 + 5]
    expected = generator.generate(indices)

    lines = [generator.line, *generator.interlopers.values()]
    for emission in (e for line in lines for e in line.painter.emissions):
        emission.kernels = EmulatedCuda("paint.cu", emission.source)
        inputs = [column.numpy() for column in emission.columns[: len(emission.traced.columns)]]
        emission.columns = emission._upload(inputs)
    generator.maker.observe = EmulatedCuda("observe.cu")
    label_kernels = EmulatedCuda("label.cu")
    cube, raw, job = made(generator, indices)
    assert 0 < np.count_nonzero(job.items[:, 1] % 2) < len(job.items)

    assert torch.equal(cube, expected.cube)
    assert torch.equal(raw[:, : generator.num_bins], expected.counts)
    told = generator.label.told(job.lightcone, job.model)
    (known,) = Workspace(torch.device("cpu")).send([told])
    assert torch.equal(generator.label.make(label_kernels, raw, known), expected.label)
