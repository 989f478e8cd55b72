"""The paint kernel compiled in other ways: threads per block, registers, blocks per work item.

None of them may change a byte; which one is fastest depends on the GPU, and only measuring says.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from streamtrain.bench.timing import in_turn
from streamtrain.config import Config
from streamtrain.generator.compiled_model import CompiledModel
from streamtrain.generator.generator import Generator
from streamtrain.generator.painter import LinePainter
from streamtrain.numerics.backend import CudaKernels, kernel_source
from streamtrain.numerics.workspace import Workspace


@dataclass(frozen=True)
class Variant:
    """A way to compile and launch kernels/paint_device.cuh."""

    threads: int = CudaKernels.THREADS
    """Threads per block of the paint kernel."""
    resident: int | None = 3
    """Blocks of a multiprocessor that the registers must leave room for; None: no bounds."""
    registers: int | None = None
    """At most so many per thread, which counts where there are no bounds."""
    per_item: int = CudaKernels.BLOCKS_PER_ITEM
    """Blocks that share a work item."""

    @property
    def prologue(self) -> str:
        """What comes before the kernel."""
        bounds = f"__launch_bounds__({self.threads}, {self.resident})" if self.resident else ""
        return f"#define PAINT_BOUNDS {bounds}\n"

    @property
    def flags(self) -> tuple[str, ...]:
        """Options that NVRTC compiles this variant with."""
        return () if self.registers is None else (f"--maxrregcount={self.registers}",)


VARIANTS = {
    "256 threads, 4 blocks": Variant(resident=4),
    "256 threads, 2 blocks": Variant(resident=2),
    "128 threads, 6 blocks": Variant(threads=128, resident=6),
    "128 threads, 8 blocks": Variant(threads=128, resident=8),
    "512 threads, 2 blocks": Variant(threads=512, resident=2),
    "at most 96 registers": Variant(resident=None, registers=96),
    "8 blocks an item": Variant(per_item=8),
    "32 blocks an item": Variant(per_item=32),
}
"""Beside what is shipped: 256 threads, 3 blocks of a multiprocessor, 16 blocks an item."""


def compiled_with(compiled: CompiledModel, variant: Variant) -> CudaKernels:
    """The kernels of a luminosity model, compiled and launched in another way."""
    source = kernel_source("paint.cu", variant.prologue + compiled.source)
    kernels = CudaKernels(source, compiled.kernels.device, variant.flags)
    kernels.THREADS, kernels.BLOCKS_PER_ITEM = variant.threads, variant.per_item
    return kernels


def paint_variants(
    config: Config,
    device: torch.device,
    seconds: float,
    tell: Callable[[dict[str, Any]], None] = lambda found: None,
    variants: dict[str, Variant] = VARIANTS,
) -> dict[str, Any]:
    """Paint one batch by what is shipped and by each variant in turn, on a GPU.

    seconds: about, for each. tell: is given what is found so far, after each variant. Returns
    {name: {us_per_sample, over_shipped, same_bytes, registers, local_bytes}, or {error} where a
    variant cannot be compiled or launched}, the first for what is shipped.
    """
    size = config.train.batch_size
    with_rest = Generator(config, "train", device, 1)
    shipped, arguments = with_rest.painter, with_rest.draw(range(size)).arguments
    arrays = Workspace(device).send([shipped.kernel_arguments(arguments, 0, size)])[0]
    total = torch.zeros((size, *shipped.shape), dtype=torch.int64, device=device)
    counts = torch.zeros((size, shipped.bins.num_counts), dtype=torch.int32, device=device)

    def paint(painter: LinePainter) -> None:
        painter.deposit(arrays, total, counts)

    def painted(painter: LinePainter) -> tuple[torch.Tensor, torch.Tensor]:
        total.zero_(), counts.zero_()
        paint(painter)
        return total.clone(), counts.clone()

    expected = painted(shipped)
    if not int(expected[1].sum()):
        raise ValueError("nothing is painted, so that no way to paint it can be compared")
    found: dict[str, Any] = {}
    for name, variant in variants.items():
        try:
            other = _with(shipped, variant)
            made = painted(other)
            ways = {"shipped": lambda: paint(shipped), name: lambda p=other: paint(p)}  # type: ignore[misc]
            times = in_turn(ways, seconds, device)
        except Exception as error:  # a GPU that refuses one variant has an answer to the others
            found[name] = {"error": f"{type(error).__name__}: {error}"}
        else:
            own = {"us_per_sample": 1e6 * times["shipped"] / size, **_resources(shipped)}
            found.setdefault("shipped", own)
            found[name] = {
                "us_per_sample": 1e6 * times[name] / size,
                "over_shipped": times[name] / times["shipped"],
                "same_bytes": all(map(torch.equal, made, expected)),
                **_resources(other),
            }
        tell(found)
    with_rest.close()
    return found


def _with(painter: LinePainter, variant: Variant) -> LinePainter:
    """The same painter with kernels that are compiled otherwise."""
    other = copy.copy(painter)
    other.compiled_models = [copy.copy(compiled) for compiled in painter.compiled_models]
    for compiled in other.compiled_models:
        compiled.kernels = compiled_with(compiled, variant)
    return other


def _resources(painter: LinePainter) -> dict[str, int]:
    """What a thread of the kernel takes, of the first luminosity model."""
    [compiled, *_] = painter.compiled_models
    assert isinstance(compiled.kernels, CudaKernels)
    registers, local_bytes = compiled.kernels.resources("paint")
    return {"registers": registers, "local_bytes": local_bytes}


def report_variants(found: dict[str, Any]) -> list[str]:
    """Lines of a table."""
    lines = ["\npaint kernel               us/sample  over shipped  registers  local bytes  bytes"]
    for name, row in found.items():
        if "error" in row:
            lines.append(f"{name:25s}  {row['error']}")
            continue
        same = {True: "the same", False: "DIFFERENT"}[row.get("same_bytes", True)]
        lines.append(
            f"{name:25s}  {row['us_per_sample']:9.2f}  {row.get('over_shipped', 1.0):12.3f}"
            f"  {row['registers']:9d}  {row['local_bytes']:11d}  {same}"
        )
    return lines
