"""What a GPU runs: kernels compiled by NVRTC, and kept on disk.

CuPy would do both, but adds -ftz=true to whatever options it is given: subnormal numbers would be
zero on a GPU and not on a CPU, and every halo would cost instructions.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streamtrain.numerics.libraries import cache_dir, find_library, keep_library, one_at_a_time

CUDA_FLAGS = ("-std=c++17", "--fmad=false", "--prec-div=true", "--prec-sqrt=true")
"""NVRTC's options; all but the first decide bits: every operation is rounded to nearest."""
SUFFIX = ".gpu"
"""The suffix of files that hold code of a GPU."""


class GpuCodeError(RuntimeError):
    """NVRTC cannot compile the kernels for a GPU; one sentence."""


def gpu_code(
    nvrtc: Any, source: str, capability: tuple[int, int], flags: Sequence[str] = ()
) -> bytes:
    """A source compiled for GPUs of a compute capability (major, minor), as the driver loads it.

    nvrtc: CuPy's module; flags: beside `CUDA_FLAGS`. What was compiled once is read from disk;
    processes that start together wait for the first of them. Raises GpuCodeError.
    """
    options = (*CUDA_FLAGS, *flags, _architecture(nvrtc, capability))
    identity = "\0".join([source, *options, str(nvrtc.getVersion())])
    key, folder = hashlib.sha256(identity.encode()).hexdigest()[:24], cache_dir()
    found = find_library(folder, key, SUFFIX)
    if found is not None:
        return found.read_bytes()
    with one_at_a_time(folder, key):
        found = find_library(folder, key, SUFFIX)
        if found is not None:
            return found.read_bytes()
        code = compiled(nvrtc, source, options)
        with contextlib.suppress(OSError):  # a full disk: the next process compiles too
            _keep(code, folder, key)
        return code


def compiled(nvrtc: Any, source: str, options: Sequence[str]) -> bytes:
    """What NVRTC makes of a source: a cubin with -arch=sm_N, PTX with -arch=compute_N, which has to
    be the last of the options. Raises GpuCodeError."""
    program = nvrtc.createProgram(source, "kernels.cu", (), ())
    try:
        nvrtc.compileProgram(program, tuple(options))
        real = options[-1].startswith("-arch=sm_")
        code = nvrtc.getCUBIN(program) if real else nvrtc.getPTX(program)
    except nvrtc.NVRTCError as error:
        log = [line for line in nvrtc.getProgramLog(program).splitlines() if "error" in line]
        raise GpuCodeError(f"NVRTC cannot compile the kernels: {[*log, error][0]}") from None
    finally:
        nvrtc.destroyProgram(program)
    return bytes(code)


def _architecture(nvrtc: Any, capability: tuple[int, int]) -> str:
    """The option for a GPU; of one that is newer than NVRTC, PTX that the driver will compile."""
    number, known = 10 * capability[0] + capability[1], sorted(nvrtc.getSupportedArchs())
    if number in known:
        return f"-arch=sm_{number}"
    if not known or number < known[0]:
        version = ".".join(map(str, nvrtc.getVersion()))
        raise GpuCodeError(
            f"this GPU has compute capability {capability[0]}.{capability[1]}, which NVRTC "
            f"{version} does not compile for any more: install the CuPy for an older CUDA"
        )
    return f"-arch=compute_{max(a for a in known if a < number)}"


def _keep(code: bytes, folder: Path, key: str) -> None:
    with tempfile.TemporaryDirectory(prefix="compiling-", dir=folder) as temporary:
        built = Path(temporary) / f"kernels{SUFFIX}"
        built.write_bytes(code)
        keep_library(built, folder, key, SUFFIX)
