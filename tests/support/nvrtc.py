"""NVRTC, which compiles CUDA C++ for a GPU and needs none, as CuPy's module of that name."""

from __future__ import annotations

import ctypes
import os
import site
from collections.abc import Sequence
from ctypes.util import find_library
from functools import cache
from pathlib import Path
from typing import Any

import pytest


class NVRTCError(RuntimeError):
    """See cupy.cuda.nvrtc.NVRTCError."""


class Nvrtc:
    """See cupy.cuda.nvrtc."""

    NVRTCError = NVRTCError

    def __init__(self, path: Path) -> None:
        for builtins in sorted(path.parent.glob("libnvrtc-builtins.so*")):
            ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
        self._library = ctypes.CDLL(str(path))
        self._library.nvrtcGetErrorString.restype = ctypes.c_char_p

    def _call(self, name: str, *arguments: Any) -> None:
        if status := getattr(self._library, f"nvrtc{name}")(*arguments):
            raise NVRTCError(self._library.nvrtcGetErrorString(status).decode())

    def _bytes(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"Get{what}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self._call(f"Get{what}", program, buffer)
        return buffer.raw[:-1]

    def getVersion(self) -> tuple[int, int]:
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("Version", ctypes.byref(major), ctypes.byref(minor))
        return major.value, minor.value

    def getSupportedArchs(self) -> tuple[int, ...]:
        number = ctypes.c_int()
        self._call("GetNumSupportedArchs", ctypes.byref(number))
        found = (ctypes.c_int * number.value)()
        self._call("GetSupportedArchs", found)
        return tuple(found)

    def createProgram(self, source: str, name: str, headers: Any, names: Any) -> ctypes.c_void_p:
        program, given = ctypes.c_void_p(), (source.encode(), name.encode())
        self._call("CreateProgram", ctypes.byref(program), *given, 0, None, None)
        return program

    def compileProgram(self, program: ctypes.c_void_p, options: Sequence[str]) -> None:
        array = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
        self._call("CompileProgram", program, len(options), array)

    def getPTX(self, program: ctypes.c_void_p) -> bytes:
        return self._bytes(program, "PTX")

    def getCUBIN(self, program: ctypes.c_void_p) -> bytes:
        return self._bytes(program, "CUBIN")

    def getProgramLog(self, program: ctypes.c_void_p) -> str:
        return self._bytes(program, "ProgramLog").decode()

    def destroyProgram(self, program: ctypes.c_void_p) -> None:
        self._call("DestroyProgram", ctypes.byref(program))


def nvrtc() -> Nvrtc:
    """That of the pip wheels, of a CUDA toolkit, or of the system; the test skips without any."""
    found = _found()
    if found is None:
        pytest.skip("no libnvrtc here: pip install nvidia-cuda-nvrtc-cu12")
    return found


@cache
def _found() -> Nvrtc | None:
    packages = [Path(p) for p in site.getsitepackages()]
    folders = [f for p in packages for f in sorted(p.glob("nvidia/*/lib"))]
    folders += [Path(p) for p in os.environ.get("LD_LIBRARY_PATH", "").split(":") if p]
    folders += [Path(os.environ.get("CUDA_PATH", "/usr/local/cuda")) / "lib64"]
    for folder in folders:
        if found := sorted(folder.glob("libnvrtc.so*")):
            return Nvrtc(found[-1])
    name = find_library("nvrtc")
    return Nvrtc(Path(name)) if name else None


def compile_ptx(source: str, options: Sequence[str]) -> str:
    """PTX of a source, once for a process; one that cannot be compiled is an AssertionError with
    the compiler's log."""
    return _ptx(nvrtc(), source, tuple(options))


@cache
def _ptx(nvrtc: Nvrtc, source: str, options: tuple[str, ...]) -> str:
    program = nvrtc.createProgram(source, "kernels.cu", (), ())
    try:
        nvrtc.compileProgram(program, options)
        return nvrtc.getPTX(program).decode()
    except NVRTCError:
        raise AssertionError(nvrtc.getProgramLog(program)) from None
    finally:
        nvrtc.destroyProgram(program)
