"""Compile and launch the kernels: CuPy on a GPU, the host C++ compiler on a CPU.

The only file that knows that CuPy or a compiler exists. One source, built from kernels/*.cu, goes
to both; flags that decide bits (no contraction to fused multiply-add) are the same everywhere, the
instruction set and the optimisation level are free.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from streamtrain.machine.progress import said_if_slow
from streamtrain.numerics.gpu_code import CUDA_FLAGS, GpuCodeError, compiled, gpu_code
from streamtrain.numerics.libraries import cache_dir, find_library, keep_library, one_at_a_time
from streamtrain.numerics.probe import wrong_arithmetic
from streamtrain.schema import warn
from streamtrain.shipped import resource_dir

HOST_FLAGS = (
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-std=c++14",
    "-fPIC",
    "-shared",
)
"""The first is load-bearing: contraction changes a quarter of all voxels. The next two let gcc
vectorise and change no bit."""
OPTIMISE = ("-O3", "-march=native", "-mprefer-vector-width=512")
"""Changes no bit. Compilers prefer vectors of 256 bits where a processor has 512, as the first that
had them slowed down; painting takes 1.4 times as long then."""
_C_TYPES = {
    np.int64: ctypes.c_longlong,
    np.int32: ctypes.c_int,
    np.uint32: ctypes.c_uint,
    np.float32: ctypes.c_float,
    np.float64: ctypes.c_double,
}
Argument = torch.Tensor | np.generic
NO_COMPILER = (
    "no C++ compiler found: install g++ or clang++, set CXX to one, or `pip install ziglang`"
)


class BackendError(RuntimeError):
    """The kernels cannot be compiled or launched on this machine."""


class Kernels(Protocol):
    """Compiled kernels of one source on one device."""

    device: torch.device
    blockwise: bool
    """Whether there are kernels that do the work of several, one block after the other, so that it
    stays in a CPU's cache."""

    def elementwise(self, name: str, samples: int, elements: int, *arguments: Argument) -> None:
        """Launch a FOR_EACH kernel over samples x elements."""

    def per_item(self, name: str, items: int, shared_bytes: int, *arguments: Argument) -> None:
        """Launch a kernel with a few blocks (GPU) or one loop turn (CPU) per work item."""

    def per_sample(self, name: str, samples: int, shared_bytes: int, *arguments: Argument) -> None:
        """Launch a kernel with a small block (GPU) or one loop turn (CPU) per sample."""


def full_device(device: torch.device | str) -> torch.device:
    """A device of this machine, with its number. Raises BackendError, one sentence."""
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        raise BackendError(f"device '{device}' is none of cpu, cuda, cuda:N") from None
    if found.type == "cpu":
        return found
    if found.type != "cuda":
        raise BackendError(f"device '{device}' is neither cpu nor cuda")
    if not torch.cuda.is_available():
        raise BackendError(f"device '{device}': torch finds no NVIDIA GPU on this machine")
    number = torch.cuda.current_device() if found.index is None else found.index
    if number >= torch.cuda.device_count():
        raise BackendError(f"device '{device}': there are {torch.cuda.device_count()} GPUs")
    return torch.device("cuda", number)


def kernel_source(name: str, prologue: str = "") -> str:
    """One self-contained source: the common headers, `prologue` (a traced model), kernels/`name`
    with what it includes.

    Everything is one text, so that a compiler's cache sees every edit.
    """
    headers = [_text(part) for part in ("portable.cuh", "philox.cuh", "elementwise.cuh")]
    return "\n".join([*headers, prologue, _text(name)])


def _text(name: str) -> str:
    text = (resource_dir("kernels") / name).read_text(encoding="ascii")
    included = re.sub(r'(?m)^#include "(.+)"$', lambda found: _text(found[1]), text)
    return included.replace("#pragma once", "")


def _without_comments(source: str) -> str:
    return re.sub(r"//[^\n]*", "", source)


def kernels_for(
    device: torch.device | str, name: str, prologue: str = "", flags: Sequence[str] = ()
) -> Kernels:
    """Compile kernels/`name` for a device; `flags` are added for the host compiler."""
    device = full_device(device)
    source = kernel_source(name, prologue)
    if device.type == "cuda":
        return CudaKernels(source, device)
    return HostKernels(source, flags)


class HostKernels:
    """Kernels compiled by the host C++ compiler, called through ctypes (the GIL is released)."""

    blockwise = True

    def __init__(self, source: str, flags: Sequence[str] = ()) -> None:
        self.device = torch.device("cpu")
        self._library = ctypes.CDLL(str(compile_host(source, tuple(flags))))

    def elementwise(self, name: str, samples: int, elements: int, *arguments: Argument) -> None:
        """Call a FOR_EACH kernel over samples x elements."""
        self._call(name, (np.int64(samples), np.int64(elements), *arguments))

    def per_item(self, name: str, items: int, shared_bytes: int, *arguments: Argument) -> None:
        """Call a kernel with one loop turn per work item; the host needs no shared memory."""
        self._call(name, (np.int64(items), *arguments))

    per_sample = per_item

    def _call(self, name: str, arguments: tuple[Argument, ...]) -> None:
        values: list[Any] = []
        for argument in arguments:
            if isinstance(argument, torch.Tensor):
                assert argument.is_contiguous() and argument.device.type == "cpu", name
                values.append(ctypes.c_void_p(argument.data_ptr()))
            else:
                values.append(_C_TYPES[type(argument)](argument.item()))
        getattr(self._library, name)(*values)


class _Launching(threading.local):
    """What `launching` says in each thread."""

    device: torch.device | None = None


_launching = _Launching()


@contextmanager
def launching(device: torch.device) -> Iterator[None]:
    """Kernels that are launched in here go to torch's current stream of a GPU, which is looked up
    once, not for each of them: the stream must not change in here. Any other device: nothing."""
    if device.type != "cuda" or _launching.device is not None:
        yield
        return
    with import_cupy().cuda.Device(device.index), _cupy_stream(device):
        _launching.device = device
        try:
            yield
        finally:
            _launching.device = None


def _cupy_stream(device: torch.device) -> Any:
    """Torch's current stream of the present device as CuPy's."""
    stream = torch.cuda.current_stream(device)
    place = device.index, int(stream.cuda_stream)
    if place not in _streams:
        _streams[place] = import_cupy().cuda.Stream.from_external(_TorchStream(stream))
    return _streams[place]


_streams: dict[tuple[int, int], Any] = {}


class CudaKernels:
    """Kernels compiled by NVRTC, launched on torch's current stream.

    All memory is torch's; CuPy only loads and launches.
    """

    blockwise = False
    THREADS = 256
    WARP = 32
    MAX_BLOCKS = 65535
    BLOCKS_PER_ITEM = 16
    THREADS_PER_SAMPLE = 64

    def __init__(self, source: str, device: torch.device, flags: Sequence[str] = ()) -> None:
        cupy = import_cupy()
        self.device = device
        self._functions: dict[str, Any] = {}
        capability = torch.cuda.get_device_capability(device)
        try:
            code = gpu_code(cupy.cuda.nvrtc, source, capability, flags)
        except GpuCodeError as error:
            raise BackendError(str(error)) from None
        with cupy.cuda.Device(device.index):
            self._module = cupy.cuda.function.Module()
            self._module.load(code)

    def elementwise(self, name: str, samples: int, elements: int, *arguments: Argument) -> None:
        """Launch a FOR_EACH kernel over samples x elements; of few elements a block has no more
        warps than they fill."""
        threads = max(1, min(self.THREADS // self.WARP, -(-elements // self.WARP))) * self.WARP
        blocks = min(-(-elements // threads), self.MAX_BLOCKS)
        grid, scalars = (blocks, min(samples, self.MAX_BLOCKS)), (samples, elements)
        self._launch(name, grid, threads, 0, (*map(np.int64, scalars), *arguments))

    def per_item(self, name: str, items: int, shared_bytes: int, *arguments: Argument) -> None:
        """Launch a kernel with `BLOCKS_PER_ITEM` blocks per work item."""
        grid = items, self.BLOCKS_PER_ITEM
        self._launch(name, grid, self.THREADS, shared_bytes, (np.int64(items), *arguments))

    def per_sample(self, name: str, samples: int, shared_bytes: int, *arguments: Argument) -> None:
        """Launch a kernel with a block of `THREADS_PER_SAMPLE` per sample."""
        arguments = (np.int64(samples), *arguments)
        self._launch(name, (samples, 1), self.THREADS_PER_SAMPLE, shared_bytes, arguments)

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
        if _launching.device is None:
            with launching(self.device):
                return self._launch(name, grid, threads, shared, arguments)
        assert _launching.device == self.device, "launched on another GPU than all around it"
        number, values = self.device.index, list[Any]()
        for argument in arguments:
            if isinstance(argument, torch.Tensor):
                assert argument.is_contiguous() and argument.get_device() == number, name
                values.append(np.uint64(argument.data_ptr()))
            else:
                values.append(argument)
        self._function(name)(grid, (threads,), tuple(values), shared_mem=shared)

    def _function(self, name: str) -> Any:
        if name not in self._functions:
            self._functions[name] = self._module.get_function(name)
        return self._functions[name]

    def resources(self, name: str) -> tuple[int, int]:
        """Registers of a thread of a kernel, and its bytes of local memory."""
        cuda = import_cupy().cuda
        with cuda.Device(self.device.index):
            driver, function = cuda.driver, self._function(name).ptr
            return (
                driver.funcGetAttribute(driver.CU_FUNC_ATTRIBUTE_NUM_REGS, function),
                driver.funcGetAttribute(driver.CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES, function),
            )


class _TorchStream:
    """A stream of torch in the form of the CUDA stream protocol."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream = stream

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, int(self._stream.cuda_stream)


def import_cupy() -> Any:
    """CuPy, or one sentence on what to install. Torch is imported first, as both load CUDA."""
    wheel = "cupy-cuda13x" if (torch.version.cuda or "").startswith("13") else "cupy-cuda12x"
    try:
        import cupy
    except ImportError as error:
        raise BackendError(f"a GPU needs CuPy: `pip install {wheel}` ({error})") from None
    if int(cupy.__version__.split(".")[0]) < 14:
        raise BackendError(f"CuPy {cupy.__version__} is too old: 14 or newer is needed")
    return cupy


def compiler_command() -> list[str] | None:
    """The C++ compiler: $CXX, c++, g++, clang++ or the ziglang wheel; None without any."""
    chosen = os.environ.get("CXX", "")
    if command := chosen.split():
        if shutil.which(command[0]) is None:
            raise BackendError(f"CXX = '{chosen}' is not a program on this machine")
        return command
    for name in ("c++", "g++", "clang++"):
        if found := shutil.which(name):
            return [found]
    if importlib.util.find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", "cc", "-nostdlib", "-nostdinc++"]
    return None


@lru_cache
def _compiler_version(command: tuple[str, ...]) -> str:
    return _run([*command, "--version"]).stdout


def _run(command: list[str], given: str = "") -> subprocess.CompletedProcess[str]:
    """A compiler's run with `given` as its input; its output may be in any encoding."""
    try:
        return subprocess.run(
            command,
            input=given,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            start_new_session=True,  # a terminal's Ctrl-C is for this process to answer
        )
    except OSError as error:
        raise BackendError(
            f"the compiler {' '.join(command[:1])} cannot be started: {error.strerror}"
        ) from None


@lru_cache
def _processor() -> str:
    """What -march=native depends on: a library built on another processor must not be loaded."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(errors="replace").splitlines()
        kept = {line for line in lines if line.startswith(("model name", "flags", "Features"))}
        return "\n".join(sorted(kept))
    return platform.processor() + platform.machine()


def compile_host(source: str, flags: tuple[str, ...] = ()) -> Path:
    """Compile to a shared library, cached by the hash of source, flags, compiler and processor.

    `flags` replace the default optimisation (`OPTIMISE`). Raises BackendError, also for a compiler
    whose arithmetic is not what the flags ask for.
    """
    command = compiler_command()
    if command is None:
        raise BackendError(NO_COMPILER)
    optimise = flags or OPTIMISE
    key = _key(_without_comments(source + _text("probe.cuh")), optimise, command)
    folder = cache_dir()
    found = find_library(folder, key)
    if found is None:
        doing = "compiling kernels for this machine, which is done once"
        with said_if_slow(doing), one_at_a_time(folder, key):
            found = find_library(folder, key) or _build(
                _without_comments(source), command, optimise, flags, folder, key
            )
    return found


def _key(code: str, optimise: tuple[str, ...], command: list[str]) -> str:
    """What a library or an object in the cache was made of, by whom and for which processor."""
    version = _compiler_version(tuple(command))
    identity = "\0".join([code, *HOST_FLAGS, *optimise, *command, version, _processor()])
    return hashlib.sha256(identity.encode()).hexdigest()[:24]


def _build(
    code: str,
    command: list[str],
    optimise: tuple[str, ...],
    flags: tuple[str, ...],
    folder: Path,
    key: str,
) -> Path:
    """Compile, probe and keep a library; nothing is kept of one that is refused."""
    try:
        with tempfile.TemporaryDirectory(prefix="compiling-", dir=folder) as temporary:
            built, probe, probe_key = _compile(
                code, command, optimise, flags, folder, Path(temporary)
            )
            wrong = wrong_arithmetic(built)
            if wrong is not None:
                raise BackendError(
                    f"the compiler {' '.join(command)} cannot be used with the flags "
                    f"{' '.join([*HOST_FLAGS, *optimise])}: {wrong}; look for "
                    "flags that it adds itself, or set CXX to another"
                )
            if probe.parent != folder:
                keep_library(probe, folder, probe_key, ".o")
            return keep_library(built, folder, key)
    except OSError as error:
        raise BackendError(
            f"compiled kernels cannot be kept in {folder}: {error.strerror or error}; make room, "
            "or set STREAMTRAIN_CACHE to another folder"
        ) from None


def _compile(
    code: str,
    command: list[str],
    optimise: tuple[str, ...],
    flags: tuple[str, ...],
    folder: Path,
    temporary: Path,
) -> tuple[Path, Path, str]:
    """A library in `temporary`; the object of the probe that is linked to it, from the cache or as
    new, and the object's key."""
    text, probe_text = temporary / "kernels.cpp", temporary / "probe.cpp"
    text.write_text(code, encoding="ascii")
    probe_text.write_text(_without_comments(_text("probe.cuh")), encoding="ascii")
    built, made = temporary / "kernels.so", temporary / "probe.o"
    refused = ""
    # not every compiler and processor has the last options
    for tried in dict.fromkeys([optimise, flags or OPTIMISE[:2], flags or OPTIMISE[:1]]):
        key = _key(probe_text.read_text(encoding="ascii"), tried, command)
        probe = find_library(folder, key, ".o")
        options = [*command, *HOST_FLAGS, *tried, "-x", "c++"]
        if probe is None:
            probe = made
            result = _run([*options, "-c", str(probe_text), "-o", str(probe)])
            if result.returncode or not probe.is_file():
                continue
        result = _run([*options, str(text), "-x", "none", str(probe), "-o", str(built)])
        if result.returncode == 0 and built.is_file():
            if refused:
                warn(f"{refused}; they are compiled with {' '.join(tried)}, and are slower")
            return built, probe, key
        # the probe was compiled with these options
        refused = refused or (
            f"the compiler {' '.join(command)} cannot compile the kernels with {' '.join(tried)} "
            f"({_first_error(result)})"
        )
    raise BackendError(
        f"the compiler {' '.join(command)} cannot compile the kernels: {_first_error(result)}"
    )


def _first_error(result: subprocess.CompletedProcess[str]) -> str:
    """The line of a compiler's output that says what is wrong."""
    lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
    lines = [re.sub(r"^\S*kernels\.cpp:\d+:\d+: ", "", line) for line in lines]
    telling = [line for line in lines if "error" in line or "No space" in line]
    return next(iter([*telling, *lines[-1:]]), f"it ends with status {result.returncode}")[:500]


def assembly(device: torch.device, name: str, prologue: str = "") -> str | None:
    """The instructions that kernels/`name` becomes: PTX for a GPU; for a CPU one halo or voxel at a
    time, without vectors, so that instructions can be counted. None without such a compiler."""
    source = kernel_source(name, prologue)
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        options = (*CUDA_FLAGS, f"-arch=compute_{major}{minor}")
        return compiled(import_cupy().cuda.nvrtc, source, options).decode()
    command = compiler_command()
    if command is None:
        return None
    flags = [f for f in HOST_FLAGS if f != "-shared"]
    scalar = ["-O3", "-march=native", "-fno-tree-vectorize", "-fno-tree-slp-vectorize"]
    scalar += ["-DANY_SIZE"]  # of loops that are there for two sizes of blocks, one
    result = _run(
        [*command, *flags, *scalar, "-S", "-x", "c++", "-", "-o", "-"], _without_comments(source)
    )
    return result.stdout if result.returncode == 0 else None
