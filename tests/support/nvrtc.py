"""NVRTC, which compiles CUDA C++ to PTX and needs no GPU."""

from __future__ import annotations

import ctypes
import os
import site
from collections.abc import Callable, Sequence
from ctypes.util import find_library
from functools import cache
from pathlib import Path
from typing import Any

import pytest

Compile = Callable[[str, Sequence[str]], str]


def library() -> Path | None:
    """libnvrtc of the pip wheels, of a CUDA toolkit, or of the system."""
    packages = [Path(p) for p in site.getsitepackages()]
    folders = [f for p in packages for f in sorted(p.glob("nvidia/*/lib"))]
    folders += [Path(p) for p in os.environ.get("LD_LIBRARY_PATH", "").split(":") if p]
    folders += [Path(os.environ.get("CUDA_PATH", "/usr/local/cuda")) / "lib64"]
    for folder in folders:
        if found := sorted(folder.glob("libnvrtc.so*")):
            return found[-1]
    name = find_library("nvrtc")
    return Path(name) if name else None


@cache
def _nvrtc() -> Any:
    path = library()
    if path is None:
        return None
    for builtins in sorted(path.parent.glob("libnvrtc-builtins.so*")):
        ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
    nvrtc = ctypes.CDLL(str(path))
    nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
    return nvrtc


def _check(status: int) -> None:
    assert status == 0, _nvrtc().nvrtcGetErrorString(status).decode()


def _text(program: ctypes.c_void_p, what: str) -> str:
    size = ctypes.c_size_t()
    _check(getattr(_nvrtc(), f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(getattr(_nvrtc(), f"nvrtcGet{what}")(program, buffer))
    return buffer.value.decode()


def compile_ptx(source: str, options: Sequence[str]) -> str:
    """PTX of a source, the same text once for a process. Skips the test where there is no NVRTC;
    a source that cannot be compiled is an AssertionError with the compiler's log."""
    if _nvrtc() is None:
        pytest.skip("no libnvrtc here: pip install nvidia-cuda-nvrtc-cu12")
    return _compiled(source, tuple(options))


@cache
def _compiled(source: str, options: tuple[str, ...]) -> str:
    program, nvrtc = ctypes.c_void_p(), _nvrtc()
    _check(
        nvrtc.nvrtcCreateProgram(
            ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None
        )
    )
    array = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
    status = nvrtc.nvrtcCompileProgram(program, len(options), array)
    assert status == 0, _text(program, "ProgramLog")
    ptx = _text(program, "PTX")
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return ptx
