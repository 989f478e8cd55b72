"""What a sample must cost at least on this machine: `streamtrain bench --floor`.

Three bounds, each from numbers measured in the same run. With R the rows (halos) of the tiles that
a sample reads, P the halos that it paints, V the voxels of the painted cube, W those of the
network's input, K the map operators, bins and outputs those of the label:

    bytes         R (22 + 4 columns) + V (8 + 8) + 4 W + 8 W K + 8 (bins + 3) + 4 outputs
                  positions, mass, redshift and channel of every row with the columns that the
                  luminosity model reads; the fixed-point cube, zeroed and read once; the map,
                  written once, and read and written once by each operator; the counts, written and
                  read; the label. Other lines in the map add their R (...) and no cube.
    bytes / s     torch's copy of an array as large as the lightcones in use (16 MB to 1 GB), read
                  and written: what stays in a cache there stays in it here
    deposits      P additions to 64-bit integers; for each halo, the one to its luminosity bin goes
                  to a handful of addresses and is left out
    deposits / s  the same additions at random addresses of cubes of V voxels (atomic on a GPU,
                  where neighbouring halos share the bytes that memory adds to: no strict bound)
    instructions  those of one halo as compiled (`count`), on 32-bit and on 64-bit
                  numbers: R times on a CPU, whose vectors compute all rows, P times on a GPU.
                  On a CPU of a narrow field, without what few halos need (their place in float64)
                  and with what two neighbours share (their random numbers) for each
    numbers / s   chains of multiplications and additions, not fused, of float32 and of float64: on
                  a CPU both kinds add up; on a GPU the larger of all and of the 64-bit ones counts

On a CPU everything is of one thread. The bounds do not add up: hardware may do all three at a time.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from streamtrain.bench.speed import lightcone_bytes
from streamtrain.bench.timing import ONE_THREAD, batch_maker, median_seconds, one_torch_thread
from streamtrain.bins import Counts
from streamtrain.config import Config
from streamtrain.generator.compiled_model import CompiledModel
from streamtrain.generator.generator import Generator
from streamtrain.generator.line import EmissionLine
from streamtrain.generator.painter import PaintArguments
from streamtrain.numerics.backend import Kernels, assembly, kernels_for

BYTES_PER_ROW = 22
"""float32 x, y, z, log2_mass, log2_1pz; int16 channel."""
SMALLEST_COPY, LARGEST_COPY = 16_000_000, 1_000_000_000
CHAIN_OPERATIONS = 24
"""Per lane and turn in kernels/rates.cu."""
CPU_BATCH = 16


@dataclass(frozen=True)
class Work:
    """What a sample needs, on average over a batch."""

    rows: float
    """Halos in the tiles that it reads."""
    painted: float
    """Halos that it paints."""
    bytes: float


@dataclass(frozen=True)
class Rates:
    """What the device does at most, per second."""

    bytes: float
    deposits: float
    float32: float
    float64: float


def columns_read(compiled: CompiledModel) -> int:
    """How many float32 columns of a halo the paint kernel reads: those that the model's functions
    name, and two of the line's width."""
    functions = re.findall(r"float model_\w+\(.*?\n\}", compiled.traced.source, re.DOTALL)
    read = len(set(re.findall(r"columns\[(.+?) \* stride\]", "\n".join(functions))))
    return read + (2 if "#define LINE_WIDTH" in compiled.source else 0)


def bytes_of(
    *,
    rows: float,
    columns: float,
    painted_voxels: int,
    voxels: int,
    operators: int,
    bins: int,
    outputs: int,
) -> float:
    """Bytes that must move for a sample, by the formula above."""
    halos = rows * (BYTES_PER_ROW + 4 * columns)
    cube = painted_voxels * (8 + 8) + 4 * voxels + 8 * voxels * operators
    return halos + cube + 2 * 4 * (bins + Counts.EXTRA) + 4 * outputs


def work_of(generator: Generator, indices: range) -> Work:
    """What the samples need, from what is drawn for them and what they paint."""
    arguments = generator.draw(indices).arguments
    size = len(arguments)
    lines = [(generator.line, arguments)]
    lines += zip(generator.interlopers.values(), arguments.others, strict=True)
    halo_bytes = sum(_halo_bytes(line, part) for line, part in lines) / size
    painted = 0
    for line, part in lines:
        for k in range(size):
            counts = line.painter.paint(part, k, k + 1)[1]
            painted += int(Counts(counts).halos)
    rest = bytes_of(
        rows=0,
        columns=0,
        painted_voxels=int(np.prod(generator.painter.shape)),
        voxels=int(np.prod(generator.input_shape)),
        operators=len(generator.operators),
        bins=generator.num_bins,
        outputs=generator.num_outputs,
    )
    rows = sum(int(part.items[:, 2].sum()) for _, part in lines) / size
    return Work(rows, painted / size, halo_bytes + rest)


def _halo_bytes(line: EmissionLine, arguments: PaintArguments) -> float:
    """Bytes of the rows that samples read, each sample with the columns of its model."""
    columns = np.array([columns_read(e) for e in line.painter.compiled_models])
    of_row = BYTES_PER_ROW + 4 * columns[arguments.model[arguments.items[:, 0]]]
    return float((arguments.items[:, 2] * of_row).sum())


def copy_rate(device: torch.device, num_bytes: int, seconds: float) -> float:
    """Bytes read and written per second by a copy of an array of so many bytes."""
    source = torch.ones(num_bytes // 4, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    spent = median_seconds(lambda: target.copy_(source), seconds, device, clock=ONE_THREAD)
    return 2 * 4 * len(source) / spent


def deposit_rate(
    kernels: Kernels, device: torch.device, voxels: int, batch: int, seconds: float
) -> float:
    """Additions per second at random addresses of `batch` cubes."""
    each = 1_000_000
    cubes = torch.zeros((batch, voxels), dtype=torch.int64, device=device)

    def add() -> None:
        kernels.elementwise("rate_deposits", batch, each, np.uint32(voxels), cubes)

    return batch * each / median_seconds(add, seconds, device, clock=ONE_THREAD)


def arithmetic_rate(
    kernels: Kernels, device: torch.device, dtype: torch.dtype, seconds: float
) -> float:
    """Multiplications and additions per second, not fused."""
    double = dtype == torch.float64
    threads = 1 << 18 if device.type == "cuda" else 16
    turns = 4096 if device.type == "cuda" else 65536
    out = torch.empty(threads, dtype=dtype, device=device)
    lanes = torch.empty(2, dtype=torch.int32, device=device)
    kernels.elementwise("rate_lanes", 1, 2, lanes)
    number = np.float64 if double else np.float32
    name = "rate_float64" if double else "rate_float32"

    def compute() -> None:
        kernels.elementwise(name, 1, threads, np.int32(turns), number(0.999), number(0.5), out)

    spent = median_seconds(compute, seconds, device, clock=ONE_THREAD)
    return threads * turns * CHAIN_OPERATIONS * int(lanes[int(double)]) / spent


def measure_rates(generator: Generator, batch: int, seconds: float) -> Rates:
    """Measure what bounds the work of a generator on its device."""
    device = generator.device
    kernels = kernels_for(device, "rates.cu")
    size = min(max(lightcone_bytes(generator), SMALLEST_COPY), LARGEST_COPY)
    voxels = int(np.prod(generator.painter.shape))
    return Rates(
        copy_rate(device, size, seconds),
        deposit_rate(kernels, device, voxels, batch if device.type == "cuda" else 1, seconds),
        arithmetic_rate(kernels, device, torch.float32, seconds),
        arithmetic_rate(kernels, device, torch.float64, seconds),
    )


def bounds(
    work: Work, rates: Rates, instructions: Instructions | None, *, on_gpu: bool
) -> dict[str, float]:
    """Seconds that a sample must take by each of the three bounds."""
    found = {"bytes": work.bytes / rates.bytes, "deposits": work.painted / rates.deposits}
    if instructions is not None:
        halos = work.painted if on_gpu else work.rows
        few, many = halos * instructions.bits32, halos * instructions.bits64
        if on_gpu:
            found["instructions"] = max((few + many) / rates.float32, many / rates.float64)
        else:
            found["instructions"] = few / rates.float32 + many / rates.float64
    return found


def floor(config: Config, device: str, seconds: float) -> dict[str, Any]:
    """A sample's time in a batch, the three bounds in milliseconds, and how far apart they are.

    On a CPU: one thread, its CPU time.
    """
    target = torch.device(device)
    generator = Generator(config, "train", target, 1)
    size = config.train.batch_size if target.type == "cuda" else CPU_BATCH
    generate = batch_maker(generator, size)
    with one_torch_thread():
        before = _seconds(generate, seconds, target) / size
        rates = measure_rates(generator, size, seconds / 4)
        after = _seconds(generate, seconds, target) / size
    work = work_of(generator, range(min(size, CPU_BATCH)))
    [compiled, *_] = generator.painter.compiled_models
    text = assembly(target, "paint.cu", compiled.source)
    instructions = count(text) if text else None
    ours = min(before, after)
    found = bounds(work, rates, instructions, on_gpu=target.type == "cuda")
    generator.close()
    return {
        "sample_ms": 1e3 * ours,
        "work": asdict(work),
        "rates": asdict(rates),
        "instructions": asdict(instructions) if instructions else None,
        "bounds_ms": {name: 1e3 * s for name, s in found.items()},
        "over_bounds": {name: ours / s for name, s in found.items()},
    }


def _seconds(call: Callable[[], object], seconds: float, device: torch.device) -> float:
    return median_seconds(call, seconds, device, clock=ONE_THREAD)


def report_floor(found: dict[str, Any]) -> list[str]:
    """Lines of a table."""
    work, rates = found["work"], found["rates"]
    lines = [
        f"\nwhat a sample must cost: {work['rows']:.0f} halos read, {work['painted']:.0f} painted, "
        f"{work['bytes'] / 1e6:.1f} MB",
        f"copy {rates['bytes'] / 1e9:.1f} GB/s, {rates['deposits'] / 1e9:.3g} G deposits/s, "
        f"{rates['float32'] / 1e9:.4g} G float32/s, {rates['float64'] / 1e9:.4g} G float64/s",
    ]
    if counted := found["instructions"]:
        lines.append(
            f"arithmetic per halo: {counted['bits32']} of 32 bits, {counted['bits64']} of 64 bits"
        )
    lines.append(f"{'a sample takes':30s} {found['sample_ms']:9.4f} ms")
    for name, ms in found["bounds_ms"].items():
        lines.append(f"{name:30s} {ms:9.4f} ms  {found['over_bounds'][name]:6.2f} x")
    return lines


DIVISION = 8
"""What a division or a root counts for: a GPU makes at least so many multiplications and additions
of one, and a CPU's unit is busy for at least so many."""

PAIR = 2
"""Halos that a turn of the GPU's loop paints."""


@dataclass(frozen=True)
class Instructions:
    """Arithmetic of one halo: on 32-bit and on 64-bit numbers."""

    bits32: int
    bits64: int


def count(text: str, function: str = "paint") -> Instructions | None:
    """Count those of PTX or of x86-64 assembly without vectors; None for another processor's."""
    if ".visible .entry" in text:
        return _count_ptx(text, function)
    if re.search(r"\bv?mulsd\b", text):
        return _count_x86(text, function)
    return None


def _count_ptx(text: str, function: str) -> Instructions | None:
    """Half of the longest loop of the kernel, which is the one over pairs of halos: everything but
    moves, which the assembler removes, and but the loop in it that finds places in float64, which
    one halo in thousands needs."""
    body = re.search(rf"\.entry {function}\(.*?\n\{{(.*?)\n\}}", text, re.DOTALL)
    if body is None:
        return None
    lines = [line.strip() for line in body[1].splitlines()]
    places = {line[:-1]: k for k, line in enumerate(lines) if re.fullmatch(r"\$?\w+:", line)}
    loops = []
    for k, line in enumerate(lines):
        branch = re.search(r"\bbra(?:\.uni)?\s+(\$?\w+);", line)
        if branch and places.get(branch[1], k) < k:
            loops.append(range(places[branch[1]], k))
    if not loops:
        return None
    halos = max(loops, key=len)
    with_root = (loop for loop in loops if loop != halos and _finds_places(lines, loop))
    exact = min(with_root, key=len, default=range(0))
    bits32 = bits64 = 0
    for line in (lines[k] for k in halos if k not in exact):
        found = re.match(r"(?:@!?%p\d+\s+)?([a-z][a-z0-9_.]+)[\s;]", line)
        if found is None or found[1].split(".")[0] in ("mov", "bra"):
            continue
        stem, *kinds = found[1].split(".")
        cost = DIVISION if stem in ("div", "sqrt", "rcp") else 1
        if "f64" in kinds:
            bits64 += cost
        else:
            bits32 += cost
    return Instructions(-(-bits32 // PAIR), -(-bits64 // PAIR))


def _finds_places(lines: list[str], loop: range) -> bool:
    return any(lines[k].startswith("sqrt.rn.f64") for k in loop)


_FLOAT = re.compile(r"v?(add|sub|mul|div|sqrt|min|max|and|andn|or|xor|cmp|blend|blendv|cvt)\w*")
_INTEGER = re.compile(r"(add|sub|xor|and|or|imul|mul|shr|sar|sal|shl|neg|not)l")
_WIDE_INTEGER = ("imulq", "mulq", "mulx", "shrq")
"""64-bit integer instructions of Philox; other arithmetic on 64-bit integers is that of
addresses."""


def _count_x86(text: str, function: str) -> Instructions | None:
    """All arithmetic of the function, each instruction once per halo: what is done once per block
    of halos is small beside it. Moves, comparisons of integers and branches do not count."""
    body = re.search(rf"^_?{function}:\n(.*?)(?:\.cfi_endproc|^\s*\.size)", text, re.M | re.S)
    if body is None:
        return None
    bits32 = bits64 = 0
    for opcode in re.findall(r"^\t([a-z][a-z0-9]+)\b", body[1], re.MULTILINE):
        cost = DIVISION if re.match(r"v?(div|sqrt)", opcode) else 1
        if opcode in _WIDE_INTEGER or (_FLOAT.fullmatch(opcode) and opcode[-1] == "d"):
            bits64 += cost
        elif _INTEGER.fullmatch(opcode) or (_FLOAT.fullmatch(opcode) and opcode[-1] == "s"):
            bits32 += cost
    return Instructions(bits32, bits64)
