"""Every kernel as NVRTC emits it, executed in full grids, leaves the bytes that the host's leaves.

A launch runs all its threads, blocks in random order, threads in random turns, with races, bounds
and barriers checked (tests/support/ptx.py); besides what a generator gives it, it runs on NaN,
infinities and subnormal numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from support import small
from support.both_kernels import Both, DifferentBytes, launched_by_both
from support.gpu_batches import (
    EMIT,
    EMITTED,
    FILTERS,
    LABELS,
    NOISY,
    UNSURE,
    edited,
    made,
    survey,
)
from support.ptx import PtxError, PtxKernels
from support.user_models import everything

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.config import Config
from streamtrain.cosmology import Cosmology
from streamtrain.generator.generator import Generator
from streamtrain.generator.paint import paint
from streamtrain.generator.painter import PaintArguments
from streamtrain.grid import Grid
from streamtrain.luminosity.model import ModelFunction
from streamtrain.luminosity.registry import MODELS
from streamtrain.numerics.backend import CudaKernels, kernel_source, kernels_for
from streamtrain.shipped import resource_dir

pytestmark = [small.EXTRAPOLATES, small.ASSUMES]


KERNELS = resource_dir("kernels")
HOST_HAS_ANOTHER = {"rate_lanes"}
"""Kernels that say something else on a GPU."""
ELSEWHERE = {"draw.cu"}
"""Sources that call functions, which the machine of these tests does not know: their GPU branch is
run by test_cuda_branch.py."""


@pytest.fixture
def both() -> Iterator[Both]:
    with launched_by_both(PtxKernels) as made:
        yield made


def batch(config: Config, skies: list[Lightcone], indices: list[int]) -> None:
    """Make one as a GPU does, with its label. Some items begin in the middle of a pair."""
    generator = Generator(config, lightcones=skies)
    _, raw, arguments = made(generator, indices)
    assert 0 < np.count_nonzero(arguments.items[:, 1] % 2) < len(arguments.items)
    assert len({*arguments.lightcone.tolist()}) == len(skies)
    unit_label = generator.label.unit_label(arguments.lightcone)
    generator.label.make(generator._label, raw, unit_label, {})
    generator.close()


def paint_once(model: str | ModelFunction, sky: Lightcone, nu_rest_GHz: float = 115.27) -> None:
    """Paint by a model of any line, at the redshifts of the sky."""
    band = 34.0 * nu_rest_GHz / 115.27, 26.0 * nu_rest_GHz / 115.27
    cube, _ = paint(sky, Grid((0.8, 0.8), (9, 21, 21), band, nu_rest_GHz), model)
    assert cube.sum() > 0


def run_rates() -> None:
    """The kernels of the roofline."""
    kernels = kernels_for("cpu", "rates.cu")
    for name, number, dtype in (
        ("rate_float32", np.float32, torch.float32),
        ("rate_float64", np.float64, torch.float64),
    ):
        out = torch.zeros(300, dtype=dtype)
        kernels.elementwise(name, 1, 300, np.int32(7), number(0.999), number(0.5), out)
    cubes = torch.zeros((3, 50), dtype=torch.int64)
    kernels.elementwise("rate_deposits", 3, 700, np.uint32(50), cubes)


def launches(sky: Lightcone, folder: Path) -> dict[str, Callable[[], None]]:
    """What launches every kernel, on two lightcones of two cosmologies: phi has a volume of each.
    A new kernel needs a line here, if none of these launches it."""
    skies = [sky, small.lightcone(2, cosmology={**Cosmology().to_dict(), "Omega_m": 0.29})]
    age = np.random.default_rng(0).uniform(0.0, 2.0, 3000)
    aged = small.lightcone(4, 3000, columns={"age": age})
    emitted = {
        emit: lambda emit=emit, label=label: batch(  # type: ignore[misc]
            small.config(emit=EMIT[emit], label=LABELS[label]), skies, [2, 2**40 + 5]
        )
        for emit, label in EMITTED
        if emit not in ("li16", "mixture")  # whose models the emitters have
    }
    scaled = {**EMIT["li16"], "brightness": {"factor": 1.3, "log_map": True}}
    return {
        **emitted,
        "noisy": lambda: batch(
            small.config(emit=EMIT["li16"], observe=NOISY), skies, [2, 2**40 + 5]
        ),
        "filters": lambda: batch(small.config(emit=scaled, observe=FILTERS), skies, [0, 2]),
        "survey": lambda: batch(small.config(observe=survey(folder)), skies, [0, 2]),
        "user's model": lambda: paint_once(everything, aged),
        "rates": run_rates,
    }


def test_every_kernel_leaves_the_bytes_of_the_host(
    both: Both, small_sky: Lightcone, tmp_path: Path
) -> None:
    for launch in launches(small_sky, tmp_path).values():
        launch()
    first_lines = {f.name: f.read_text("ascii").split("\n")[0] for f in KERNELS.glob("*.cu")}
    made = {f for f, line in first_lines.items() if any(line in s for s in both.others)}
    assert set(first_lines) - made == ELSEWHERE, "nothing here launches the kernels of these files"
    known = {name for other in both.others.values() for name in other.program.names}
    assert known - set(both.launches) == HOST_HAS_ANOTHER, "nothing here launches these kernels"


def test_a_gpu_computes_one_number_at_a_time() -> None:
    lanes = torch.zeros(2, dtype=torch.int32)
    PtxKernels(kernel_source("rates.cu")).elementwise("rate_lanes", 1, 2, lanes)
    assert lanes.tolist() == [1, 1]


def changed(
    kernel: str, edits: dict[str, str], flags: tuple[str, ...] = ()
) -> Callable[[str], PtxKernels]:
    """PTX of sources with this kernel, edited and compiled with other flags, and of others."""

    def make(source: str) -> PtxKernels:
        if re.search(rf"(void |FOR_EACH\(){kernel}\b|^{kernel}\(", source, re.MULTILINE):
            return PtxKernels(edited(source, edits), flags)
        return PtxKernels(source)

    return make


def move_onto_edges(generator: Generator, arguments: PaintArguments) -> None:
    """Most halos of the samples, onto edges and corners of their voxels as near as float32 comes;
    some to the observer's place, next to it and very far."""
    rng = np.random.default_rng(3)
    painter = generator.painter
    half = painter._field.numpy()[:2, None]
    voxels = np.array(generator.config.grid.shape)[[2, 1], None]
    halos = painter.halos.arrays
    halos[:3] = [array.clone() for array in halos[:3]]
    x, y, z = (array.numpy() for array in halos[:3])
    for sample, first, number in arguments.items:
        rows = np.arange(first, first + number)[rng.uniform(size=number) < 0.8]
        between = rng.uniform(size=(2, len(rows))) * (rng.uniform(size=(2, len(rows))) < 0.3)
        edges = rng.integers(0, voxels + 1, (2, len(rows))) + between
        ra, dec = -half + 2.0 * half / voxels * edges
        chi = np.linalg.norm([a[rows].astype(float) for a in (x, y, z)], axis=0).clip(1.0, 1e4)
        uvw = chi * np.stack([-np.cos(dec) * np.sin(ra), np.sin(dec), np.cos(dec) * np.cos(ra)])
        place = arguments.pose[sample, :9].reshape(3, 3).T @ uvw
        place[:, ::97], place[:, 1::97], place[:, 2::97] = 0.0, 1e-42, 3e38
        x[rows], y[rows], z[rows] = place.astype(np.float32)


@pytest.mark.parametrize("emit", ["li16", "emitters"])
def test_halos_on_the_edges_of_voxels(small_sky: Lightcone, emit: str) -> None:
    """Where float32 cannot tell, and would be wrong if it did not know."""

    def paint(edits: dict[str, str]) -> torch.Tensor:
        with launched_by_both(changed("paint", edits)):
            generator = Generator(small.config(emit=EMIT[emit]), lightcones=[small_sky])
            arguments = generator.draw([0, 7]).arguments
            move_onto_edges(generator, arguments)
            cube, raw, _ = made(generator, [0, 7], arguments)
            generator.close()
        assert cube.isfinite().all()
        return raw

    assert paint({})[:, :-3].sum() > 100
    assert paint(UNSURE)[:, :-3].sum() > 100
    with pytest.raises(DifferentBytes, match="paint"):
        paint({"return sure ? voxel : UNSURE": "return voxel"})


def test_nothing_to_paint(both: Both, small_sky: Lightcone) -> None:
    """No item, items without a halo, one halo alone, a field that has its back to all halos."""
    generator = Generator(small.config(emit=EMIT["li16"]), lightcones=[small_sky])
    arguments = generator.draw([0]).arguments
    items = arguments.items
    halos = generator.painter.halos
    row = int(items[0, 1] + np.argmax(halos.channel[items[0, 1] :] >= 0))
    halos.arrays[:3] = [array.clone() for array in halos.arrays[:3]]
    for axis, array in enumerate(halos.arrays[:3]):
        array[row] = 6000.0 * arguments.pose[0, 6 + axis]
    for few, expected in ((items[:0], 0), (items * [1, 1, 0], 0), (np.array([[0, row, 1]]), 1)):
        arguments.items, arguments.item_start = few, np.array([0, len(few)])
        cube, raw, _ = made(generator, [0], arguments)
        assert raw[:, :-1].sum() == expected == np.count_nonzero(cube)
    arguments.items, arguments.item_start = items, np.array([0, len(items)])
    arguments.pose[:, :9] *= -1.0
    cube, raw, _ = made(generator, [0], arguments)
    assert cube.eq(0).all() and raw.eq(0).all()
    for samples, elements in ((0, 5), (5, 0)):
        shape = (samples, elements)
        generator.pipeline.observe.elementwise("log_modulus", *shape, torch.zeros(shape))
    generator.close()


BROKEN: dict[str, tuple[str, dict[str, str], tuple[str, ...], str]] = {
    "another last digit": (
        "paint",
        {"0.24022650718688965f": "0.24022652208805084f"},
        (),
        "paint.*: cube.* on the host",
    ),
    "one block for all": (
        "paint",
        {"const u32 turn = blockIdx.y * blockDim.x": "const u32 turn = 0"},
        (),
        "paint.*: cube.* on the host",
    ),
    "light added without atomics": (
        "paint",
        {"atomicAdd(out + ((u32)slice[k] * frame + (u32)voxel[k]), (u64)q[k])": "out[voxel[k]]++"},
        (),
        "paint, thread .*global.* uses address",
    ),
    "no barrier": (
        "paint",
        {"    __syncthreads();\n    for (int k": "    for (int k"},
        (),
        "paint, thread .*shared.* uses address",
    ),
    "contraction": ("paint", {}, ("--fmad=true",), "instruction (fma|mul|add).* is not covered"),
    "subnormal numbers as zero": (
        "make_label",
        {},
        ("-ftz=true",),
        "make_label, fuzzed: label.* on the host",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_kernel_is_seen(small_sky: Lightcone, name: str) -> None:
    kernel, edits, flags, sentence = BROKEN[name]
    with (
        launched_by_both(changed(kernel, edits, flags)),
        pytest.raises((DifferentBytes, PtxError), match=sentence),
    ):
        batch(small.config(emit=EMIT["li16"]), [small_sky], [0])


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_luminosity_model(both: Both, small_sky: Lightcone, name: str) -> None:
    paint_once(name, small_sky, MODELS[name].published_GHz or MODELS[name].nu_rest_GHz or 115.27)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["sm_80", "sm_100"])
def test_every_kernel_on_other_architectures(
    small_sky: Lightcone, tmp_path: Path, architecture: str
) -> None:
    """Blackwell's instructions come from a newer compiler within NVRTC."""
    with launched_by_both(lambda source: PtxKernels(source, (), architecture)) as both:
        for launch in launches(small_sky, tmp_path).values():
            launch()
    assert all(f".target {architecture}\n" in k.program.text for k in both.others.values())


@pytest.mark.slow
@pytest.mark.parametrize(("emit", "label"), EMITTED)
def test_larger_batches(small_sky: Lightcone, emit: str, label: str) -> None:
    """Two lightcones of two cosmologies, as the kernel is and with most halos unsure."""
    other = small.lightcone(2, cosmology={**Cosmology().to_dict(), "Omega_m": 0.29})
    config = small.config(emit=EMIT[emit], observe=NOISY, label=LABELS[label])
    for edits in ({}, UNSURE):
        with launched_by_both(changed("paint", edits)):
            generator = Generator(config, lightcones=[small_sky, other])
            made(generator, [*range(12), 2**40 + 5])
            generator.close()


@pytest.mark.gpu
def test_a_gpu_leaves_the_bytes_of_the_host(small_sky: Lightcone, tmp_path: Path) -> None:
    """What it makes of the instructions, fuzzed numbers included."""
    gpu = torch.device("cuda", 0)
    with launched_by_both(lambda source: CudaKernels(source, gpu)) as both:
        for name in ("noisy", "filters", "survey", "rates"):
            launches(small_sky, tmp_path)[name]()
    assert {"paint", "leading_modes", "make_label"} < set(both.launches)
