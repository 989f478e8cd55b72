"""The GPU branch of kernels, run thread by thread on the CPU: that of draw.cu, whose PTX nothing
executes (see test_ptx.py), makes the bits of the CPU branch; that of paint.cu reads nothing beyond
its arrays.
"""

from __future__ import annotations

import ctypes
import mmap
import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from support import SUPPORT, small
from support import reference as ref
from support.gpu_batches import (
    EMIT,
    MIXTURE,
)

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.cosmology import Cosmology
from streamtrain.generator import kernel_draws
from streamtrain.generator.compiled_model import CompiledModel
from streamtrain.generator.generator import Generator
from streamtrain.numerics.backend import Argument, HostKernels, kernel_source
from streamtrain.numerics.workspace import FreshMemory

pytestmark = [small.EXTRAPOLATES, small.ASSUMES]

CPU = torch.device("cpu")
SHIM = (SUPPORT / "cuda_shim.h").read_text(encoding="ascii")
BLOCKS, THREADS, PER_ITEM = 2, 3, 2
TEAM = 2
"""Threads of a block that run at once."""


class EmulatedCuda(HostKernels):
    """Launches like CudaKernels, in spirit: items x some blocks, blocks x samples."""

    blockwise = False

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

    def per_sample(self, name: str, samples: int, shared_bytes: int, *arguments: Argument) -> None:
        for block in range(samples):
            self._thread(block, 0, 0, samples, 1, 1)
            self._call(name, (np.int64(samples), *arguments))


WAITS = """
extern "C" int sched_yield(void);
static unsigned int arrived, turns;
static inline void all_arrive(unsigned int threads) {
    const unsigned int turn = __atomic_load_n(&turns, __ATOMIC_SEQ_CST);
    if (__atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST) == threads) {
        __atomic_store_n(&arrived, 0, __ATOMIC_SEQ_CST);
        __atomic_add_fetch(&turns, 1, __ATOMIC_SEQ_CST);
    } else {
        while (__atomic_load_n(&turns, __ATOMIC_SEQ_CST) == turn) sched_yield();
    }
}
"""


class ThreadedBlocks(EmulatedCuda):
    """The threads of a block run at once and wait for one another where the kernel says so."""

    def __init__(self, name: str, prologue: str = "") -> None:
        shim = SHIM.replace("static Index", "static thread_local Index")
        shim = shim.replace("__syncthreads()", "__syncthreads() all_arrive(blockDim.x)")
        HostKernels.__init__(self, WAITS + shim + kernel_source(name, prologue))

    def per_item(self, name: str, items: int, shared_bytes: int, *arguments: Argument) -> None:
        def run(item: int, thread: int) -> None:
            self._thread(item, 0, thread, items, 1, TEAM)
            self._call(name, (np.int64(items), *arguments))

        for item in range(items):
            with ThreadPoolExecutor(TEAM) as pool:
                list(pool.map(run, [item] * TEAM, range(TEAM)))

    per_sample = per_item


@pytest.mark.parametrize("kernels", [EmulatedCuda, ThreadedBlocks])
def test_bits_of_draws(small_sky: Lightcone, kernels: type[EmulatedCuda]) -> None:
    """One thread draws a sample, or two that share the halos of a condition and the field's border.
    Items have the number of their sample, which on a CPU is the first one's of each launch."""
    line = {"mixture": MIXTURE | {"freeform": {"prior": "co10"}}, "require": {"halos": [1, 1e6]}}
    observe = {"noise": {"sigma_uK": [0, 5]}, "radio_sources": {"density": {"uniform": [20, 200]}}}
    generator = Generator(small.config(emit={"line": line}, observe=observe),
                          lightcones=[small_sky, small.lightcone(2)])  # fmt: skip
    scene, indices = generator.scenes.latest, [0, 1, 2, 2**40 + 5, 2**64 - 1]
    raw, expected, numbers = generator.draw_on_device(scene, indices, FreshMemory(CPU))
    emulated = kernels("draw.cu", kernel_draws.source())
    generator.line._kernel._kernels = generator._operator_draws._kernels = emulated  # type: ignore[union-attr]
    found_raw, found, found_numbers = generator.draw_on_device(scene, indices, FreshMemory(CPU))
    assert torch.equal(found_raw, raw) and not raw.any()
    for one, other in zip([*found, *found_numbers], [*expected, *numbers], strict=True):
        assert list(one) == list(other)
        assert all(torch.equal(one[name], other[name]) for name in one)


def refill(compiled: CompiledModel) -> None:
    """Have the static values computed anew, by the kernels that it now has."""
    first = len(compiled.traced.columns)
    compiled.columns[first : first + compiled.traced.num_static] = torch.nan
    compiled.fill_static()


def at_the_end_of_a_page(tensor: torch.Tensor) -> torch.Tensor:
    """A copy after whose last byte nothing may be read."""
    page, size = mmap.PAGESIZE, tensor.numel() * tensor.element_size()
    pages = -(-size // page)
    memory = mmap.mmap(-1, (pages + 1) * page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(address + pages * page), page, 0) == 0
    copy = torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(),
                            offset=pages * page - size)  # fmt: skip
    return copy.view(tensor.shape).copy_(tensor)


@pytest.mark.parametrize("halos", [2000, 2001])
def test_nothing_is_read_beyond_the_last_halo(halos: int) -> None:
    """Of an odd number the last one has no neighbour. In its own process, which would crash."""
    rng, z = np.random.default_rng(0), np.full(halos, 2.9)
    ra, dec = rng.uniform(-0.02, 0.02, (2, halos))
    x, y, depth = ref.position(ra, dec, Cosmology().comoving_distance(z))
    few = small.lightcone(5, halos, x_Mpc=x, y_Mpc=y, z_Mpc=depth, z_obs=z)
    generator = Generator(small.config(emit=EMIT["li16"]), lightcones=[few])
    (compiled,) = generator.painter.compiled_models
    compiled.kernels = EmulatedCuda("paint.cu", compiled.source)
    refill(compiled)
    compiled.columns = at_the_end_of_a_page(compiled.columns)
    arrays = generator.painter.halos.arrays
    arrays[:] = [at_the_end_of_a_page(array) for array in arrays]
    arguments = generator.draw([0]).arguments
    assert arguments.items[-1, 1:].sum() == halos
    process = multiprocessing.get_context("fork").Process(
        target=generator.painter.paint, args=(arguments, 0, 1)
    )
    process.start()
    process.join()
    assert process.exitcode == 0
