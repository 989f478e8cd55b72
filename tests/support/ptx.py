"""PTX, executed: what NVRTC makes of kernels/*.cu runs on a CPU as full grids of threads.

ptx_machine.cpp executes, ptx_instructions.h has the arithmetic; this file reads the text. Of PTX
there is what NVRTC makes of our kernels and what it may make of the next one: anything else is
refused by its name, never guessed. Each instruction is tested in tests/numerics/test_ptx_machine.py
against what the PTX ISA says of it. Memory has one order for all threads here, which a GPU does not
promise.
"""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from streamtrain.numerics.backend import Argument, CudaKernels, compile_host
from streamtrain.numerics.gpu_code import CUDA_FLAGS
from support import SUPPORT
from support.nvrtc import compile_ptx

ARCHITECTURE = "sm_90"
HIGH_HALF = r"\{ \.reg \.b32 tmp; mov\.b64 \{tmp, (%r\d+)\}, (%rd\d+); \}"
"""A statement of three instructions; for the machine it is one."""
SPECIAL = ("%tid.x", "%ntid.x", "%ctaid.x", "%ctaid.y", "%nctaid.x", "%nctaid.y")
SHARED, LOCAL = 1 << 40, 1 << 41
"""Where the addresses of shared and local memory begin, far from those of arrays."""
MOST = 4_000_000_000
"""Instructions of a launch, after which it is taken to have no end."""
SHADOW = 28
"""Bytes that the machine remembers of four bytes."""
FAULTS = {
    1: "address {address:#x} is outside of the arrays that the kernel was given",
    2: "address {address:#x} is not aligned",
    3: "thread {other} uses address {address:#x} too, with nothing between",
    4: "address {address:#x} is read as a constant and written, by thread {other} too",
    5: "not all threads of the block reach the same barrier",
    6: "an integer is divided by zero",
    7: "it does not end",
    8: "no barrier but 0 is covered",
}


class PtxError(AssertionError):
    """PTX that is not covered, or that does what no kernel may do; one sentence."""


class _Launch(ctypes.Structure):
    """struct Launch of ptx_machine.cpp."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("code", "first", "registers", "shared", "local")),
        *((name, ctypes.c_void_p) for name in ("shadow", "shared_shadow")),
        *((name, ctypes.c_void_p) for name in ("region_begin", "region_size", "region_shadow")),
        *((name, ctypes.c_void_p) for name in ("order", "ready")),
        *((name, ctypes.c_uint64) for name in ("shared_base", "local_base", "shared_size")),
        *((name, ctypes.c_uint64) for name in ("local_size", "seed", "most", "executed")),
        ("fault_address", ctypes.c_uint64),
        *((name, ctypes.c_int32) for name in ("slots", "threads", "grid_x", "grid_y")),
        *((name, ctypes.c_int32) for name in ("resident", "regions", "fault", "fault_at")),
        *((name, ctypes.c_int32) for name in ("fault_block", "fault_thread", "fault_other")),
    ]


@cache
def _machine() -> Any:
    parts = ("ptx_instructions.h", "ptx_machine.cpp")
    source = "\n".join((SUPPORT / part).read_text(encoding="ascii") for part in parts)
    library = ctypes.CDLL(str(compile_host(source, ("-O2",))))
    library.ptx_operations.restype = ctypes.c_char_p
    return library


@cache
def _operations() -> dict[str, tuple[int, int]]:
    """Number and operands of each instruction that is covered."""
    words = _machine().ptx_operations().decode().split()
    names = (name.replace("_", ".") for name in words[::2])
    return {name: (k, int(n)) for k, (name, n) in enumerate(zip(names, words[1::2], strict=True))}


@dataclass
class Entry:
    """A kernel of a program."""

    code: NDArray[np.int32]
    lines: list[str]
    first: NDArray[np.uint64]
    """A thread's registers when it begins, constants among them."""
    parameters: list[tuple[int, int]]
    """Register and bytes of each."""
    local: int
    """Bytes of a thread's local memory."""
    most_threads: int


@dataclass
class Program:
    """A module of PTX."""

    text: str
    _entries: dict[str, Entry] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tables = {
            name: np.array(values.split(","), np.uint8)
            for name, values in re.findall(
                r"(?m)^\.global \.align \d+ \.b8 (\w+)\[\d+\] = \{(.*)\};", self.text
            )
        }
        """Arrays of the source."""
        self.dynamic = re.findall(r"(?m)^\.extern \.shared \.align \d+ \.b8 (\w+)\[\];", self.text)
        """Names of the shared memory that a launch asks for."""
        for line in re.findall(r"(?m)^\.(?:global|const|shared|extern|func).*", self.text):
            named = re.search(r" (\w+)\[\d*\]", line)
            if named is None or named[1] not in (*self.tables, *self.dynamic):
                raise PtxError(f"'{line[:100]}' is not covered")

    @property
    def names(self) -> list[str]:
        """Its kernels."""
        return re.findall(r"\.entry (\w+)\(", self.text)

    def entry(self, name: str) -> Entry:
        """A kernel, read when it is first asked for."""
        if name not in self._entries:
            found = re.search(
                rf"(?ms)^\.visible \.entry {name}\((.*?)\)(.*?)^\{{$(.*?)^\}}$", self.text
            )
            if found is None:
                raise PtxError(f"no kernel {name}")
            most = re.search(r"\.maxntid (\d+)", found[2])
            self._entries[name] = _Reader(self, found[1]).read(
                found[3], int(most[1]) if most else 1024
            )
        return self._entries[name]


class _Reader:
    """Reads one kernel."""

    def __init__(self, program: Program, parameters: str) -> None:
        self._slots = {name: k for k, name in enumerate(SPECIAL)}
        self._constants: dict[int, int] = {}
        self._symbols = dict.fromkeys(program.dynamic, SHARED)
        self._symbols |= {name: a.ctypes.data for name, a in program.tables.items()}
        self._parameters: list[tuple[int, int]] = []
        self._local = 0
        for bits, name in re.findall(
            r"\.param \.[bfsu](\d+)(?: \.ptr \.align \d+)? (\w+)", parameters
        ):
            self._parameters.append((self._slot(f"[{name}]"), int(bits) // 8))
        if len(self._parameters) != parameters.count(".param"):
            raise PtxError(f"parameters are not covered: {parameters}")

    def _slot(self, name: str) -> int:
        return self._slots.setdefault(name, len(self._slots))

    def _constant(self, value: int) -> int:
        value &= (1 << 64) - 1
        slot = self._slot(f"constant {value}")
        self._constants[slot] = value
        return slot

    def _operand(self, text: str) -> int:
        if text in SPECIAL or re.fullmatch(r"%(p|rs|r|rd|f|fd)\d+|%SPL?", text):
            return self._slot(text)
        if text in self._symbols:
            return self._constant(self._symbols[text])
        if found := re.fullmatch(r"0[fd]([0-9A-F]{8}|[0-9A-F]{16})", text):
            return self._constant(int(found[1], 16))
        if re.fullmatch(r"-?\d+", text):
            return self._constant(int(text))
        raise PtxError(f"operand '{text}' is not covered")

    def _address(self, text: str) -> tuple[int, int]:
        found = re.fullmatch(r"\[([%\w]+)(?:\+(-?\d+))?\]", text)
        if found is None:
            raise PtxError(f"address '{text}' is not covered")
        return self._operand(found[1]), int(found[2] or 0)

    def read(self, body: str, most_threads: int) -> Entry:
        lines: list[str] = []
        labels: dict[str, int] = {}
        code: list[list[int]] = []
        waiting: list[tuple[int, str]] = []
        for line in (part.strip() for part in body.splitlines()):
            line = re.sub(HIGH_HALF, r"high.half \1, \2;", line)
            if not line or line.startswith(("//", ".reg", ".pragma")):
                continue
            if found := re.fullmatch(r"(\$\w+):", line):
                labels[found[1]] = len(code)
            elif found := re.fullmatch(r"\.local \.align \d+ \.b8\s+(\w+)\[(\d+)\];", line):
                self._symbols[found[1]] = LOCAL + self._local
                self._local += -(-int(found[2]) // 16) * 16
            elif found := re.fullmatch(r"(?:@(!?)(%p\d+) )?([a-z][\w.]*)\s*(.*);", line):
                guard = self._slot(found[2]) if found[2] else -1
                for name, operands in _scalars(found[3], _split(found[4])):
                    row = self._instruction(name, operands, waiting, len(code))
                    code.append([row[0], guard, int(found[1] == "!"), *row[1:]])
                    lines.append(line)
            else:
                raise PtxError(f"'{line}' is not covered")
        for place, label in waiting:
            code[place][3] = labels[label]
        poison = np.random.default_rng(len(lines))
        first = poison.integers(0, 1 << 64, len(self._slots), np.uint64)
        for slot, value in self._constants.items():
            first[slot] = value
        return Entry(
            np.array(code, np.int32), lines, first, self._parameters, self._local, most_threads
        )

    def _instruction(
        self, name: str, operands: list[str], waiting: list[tuple[int, str]], place: int
    ) -> list[int]:
        """A row [op, d, a, b, c, offset]."""
        if name.startswith("ld.param."):
            name, operands = "mov.b64", [operands[0], operands[1]]
        if name.startswith("red."):  # of older NVRTC: an atom whose result nobody takes
            self._slot("result of red")
            name, operands = f"atom.{name[4:]}", ["result of red", *operands]
        number, count = _operations().get(_signless(name), (-1, 0))
        if number < 0:
            raise PtxError(f"instruction {name} is not covered")
        if len(operands) != count:
            raise PtxError(f"{name} with {len(operands)} operands is not covered")
        if name.startswith("bra"):
            waiting.append((place, operands[0]))
            return [number, 0, 0, 0, 0, 0]
        slots, offset = [], 0
        for operand in operands:
            if operand in self._slots:
                slots.append(self._slots[operand])
            elif operand.startswith("["):
                slot, offset = self._address(operand)
                slots.append(slot)
            else:
                slots.append(self._operand(operand))
        if name.startswith(("st.", "bar.")):
            slots.insert(0, 0)
        if len(slots) == 5:
            offset = slots.pop()
        return [number, *slots, *[0] * (4 - len(slots)), offset]


def _scalars(name: str, operands: list[str]) -> list[tuple[str, list[str]]]:
    """A load or store of a vector as one of each of its numbers; anything else as it is."""
    found = re.fullmatch(r"((ld|st)\.\w+)\.v[24]\.([bufs](\d+))", name)
    if found is None:
        return [(name, operands)]
    vector, address = operands if found[2] == "ld" else operands[::-1]
    base, _, offset = address.strip("[]").partition("+")
    size, parts = int(found[4]) // 8, _split(vector[1:-1])
    if int(offset or 0) % (size * len(parts)) or base in parts:
        raise PtxError(f"{name} {', '.join(operands)} is not covered")
    each = [(part, f"[{base}+{int(offset or 0) + k * size}]") for k, part in enumerate(parts)]
    scalar = f"{found[1]}.{found[3]}"
    return [(scalar, list(pair if found[2] == "ld" else pair[::-1])) for pair in each]


def _split(operands: str) -> list[str]:
    """Operands, a vector in braces being one."""
    return [o.strip() for o in re.findall(r"\{[^}]*\}|[^,{}]+", operands) if o.strip()]


def _signless(name: str) -> str:
    """Loads, stores, moves and choices of signed, unsigned and floating numbers are all alike."""
    if name in ("bra.uni", "mov.pred"):
        return name.removesuffix(".uni")
    if re.fullmatch(r"(ld|st|mov|selp)\.(.*\.)?[ufsb]\d+", name) and not name.endswith(
        (".s8", ".s16")
    ):
        return re.sub(r"[ufs](\d+)$", r"b\1", name)
    return name


def launch(
    program: Program,
    name: str,
    grid: tuple[int, int],
    threads: int,
    shared: int,
    arguments: tuple[Argument, ...],
    seed: int = 0,
) -> int:
    """Run a kernel on tensors of the CPU; returns the number of instructions. What it may not do
    is a PtxError that names the instruction."""
    entry = program.entry(name)
    if len(arguments) != len(entry.parameters):
        raise PtxError(f"{name} takes {len(entry.parameters)} arguments, not {len(arguments)}")
    if threads > entry.most_threads:
        raise PtxError(f"{name} is for {entry.most_threads} threads a block, not {threads}")
    first = entry.first.copy()
    regions = {a.ctypes.data: a.nbytes for a in program.tables.values()}
    for argument, (slot, size) in zip(arguments, entry.parameters, strict=True):
        if isinstance(argument, torch.Tensor):
            bits, wide = argument.data_ptr(), 8
            bytes_ = argument.numel() * argument.element_size()
            regions[bits] = max(bytes_, regions.get(bits, 0))
        else:
            wide = argument.dtype.itemsize
            bits = int.from_bytes(argument.tobytes(), "little")
        if wide != size:
            raise PtxError(f"{name} takes {size} bytes for {argument!r}")
        first[slot] = bits
    rng = np.random.default_rng(seed)
    blocks, resident = grid[0] * grid[1], int(rng.integers(1, 4))
    begin = np.array(sorted(a for a, size in regions.items() if size), np.uint64)
    sizes = np.array([regions[int(a)] for a in begin], np.uint64)
    granules = (sizes + 3 + begin % 4) // 4 + 1
    slots_shared = -(-shared // 4)
    arrays = {
        "code": entry.code,
        "first": first,
        "registers": np.empty((resident * threads, len(first)), np.uint64),
        "shared": np.empty(resident * shared + 8, np.uint8),
        "local": np.empty(resident * threads * entry.local + 8, np.uint8),
        "shadow": np.zeros(int(granules.sum()) * SHADOW + 8, np.uint8),
        "shared_shadow": np.zeros(resident * slots_shared * SHADOW + 8, np.uint8),
        "region_begin": begin,
        "region_size": sizes,
        "region_shadow": np.concatenate([[0], granules.cumsum()])[:-1].astype(np.uint64),
        "order": rng.permutation(blocks).astype(np.uint32),
        "ready": np.empty(2 * resident * threads, np.int32),
    }
    given = _Launch(
        **{key: array.ctypes.data for key, array in arrays.items()},
        shared_base=SHARED,
        local_base=LOCAL,
        shared_size=shared,
        local_size=entry.local,
        seed=int(rng.integers(1, 1 << 63)),
        most=MOST,
        slots=len(first),
        threads=threads,
        grid_x=grid[0],
        grid_y=grid[1],
        resident=resident,
        regions=len(begin),
    )
    if _machine().ptx_run(ctypes.byref(given)):
        fault = FAULTS[given.fault].format(address=given.fault_address, other=given.fault_other)
        raise PtxError(
            f"{name}, thread {given.fault_thread} of block {given.fault_block}: "
            f"'{entry.lines[given.fault_at]}': {fault}"
        )
    return int(given.executed)


class PtxKernels(CudaKernels):
    """The kernels of one source as a GPU gets them, on tensors of the CPU: compiled by NVRTC,
    launched with the grids of CudaKernels. flags: of NVRTC, in place of those of the same name."""

    def __init__(
        self, source: str, flags: tuple[str, ...] = (), architecture: str = ARCHITECTURE
    ) -> None:
        self.device = torch.device("cpu")
        names = {flag.partition("=")[0] for flag in flags}
        kept = [flag for flag in CUDA_FLAGS if flag.partition("=")[0] not in names]
        self.program = Program(compile_ptx(source, [*kept, *flags, f"-arch={architecture}"]))
        self.executed = self._launches = 0

    def _launch(
        self,
        name: str,
        grid: tuple[int, int],
        threads: int,
        shared: int,
        arguments: tuple[Argument, ...],
    ) -> None:
        if grid[0] == 0 or grid[1] == 0:
            return
        self._launches += 1
        self.executed += launch(
            self.program, name, grid, threads, shared, arguments, self._launches
        )
