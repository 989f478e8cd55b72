"""CuPy's part: what NVRTC makes is the source, which a module compiles for the host when it is
loaded; a launch runs its threads in turn."""

from __future__ import annotations

import ctypes
import re
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np

from streamtrain.numerics import backend
from support import SUPPORT
from support.stand_in_gpu.cuda import current_stream

SHIM = (SUPPORT / "cuda_shim.h").read_text(encoding="ascii")
MAX_GRID = (2**31 - 1, 65535)
MAX_SHARED = 48 << 10
"""Bytes of shared memory that a kernel gets without asking for more."""
FEW = 2, 4
"""Blocks and threads of a kernel whose threads share nothing: it is correct for any numbers."""
TEAMS = re.compile(r"FOR_EACH_CUBE\((\w+)")
"""Kernels whose threads wait for one another without shared memory: here one thread alone."""
_alone = threading.Lock()
"""blockIdx, threadIdx and the sums of atomicAdd are the process's."""


class Function:
    """A kernel: (grid, block, arguments)."""

    ptr = 1

    def __init__(self, library: ctypes.CDLL, name: str, team: bool) -> None:
        self._library, self._name, self._team = library, name, team

    def __call__(
        self,
        grid: tuple[int, int],
        block: tuple[int],
        arguments: tuple[np.generic, ...],
        *,
        shared_mem: int = 0,
    ) -> None:
        assert all(0 < n <= most for n, most in zip(grid, MAX_GRID, strict=True)), grid
        assert 0 < block[0] <= 1024 and shared_mem <= MAX_SHARED
        given = [self._c(a) for a in arguments]
        alone = shared_mem or self._team
        blocks, threads = (grid[0], 1) if alone else (min(grid[0], FEW[0]), FEW[1])
        kernel, place = getattr(self._library, self._name), self._library.set_thread
        kernel.restype, place.argtypes, place.restype = None, [ctypes.c_uint] * 6, None
        with _alone:
            for row in range(grid[1]):
                for column in range(blocks):
                    for thread in range(threads):
                        place(column, row, thread, blocks, grid[1], threads)
                        kernel(*given)

    @staticmethod
    def _c(argument: np.generic) -> Any:
        if type(argument) is np.uint64:
            return ctypes.c_void_p(int(argument))
        return backend._C_TYPES[type(argument)](argument.item())


class Nvrtc:
    """See cupy.cuda.nvrtc: its code of a GPU, and its PTX, are the source."""

    NVRTCError = RuntimeError

    @staticmethod
    def getSupportedArchs() -> list[int]:
        return [80, 90]

    @staticmethod
    def getVersion() -> tuple[int, int]:
        return 12, 9

    @staticmethod
    def createProgram(source: str, name: str, headers: Any, names: Any) -> bytes:
        return source.encode("ascii")

    @staticmethod
    def compileProgram(program: bytes, options: tuple[str, ...]) -> None:
        assert not any("ftz" in option or "fast" in option for option in options)

    @staticmethod
    def getCUBIN(program: bytes) -> bytes:
        return program

    getPTX = getCUBIN

    @staticmethod
    def destroyProgram(program: bytes) -> None:
        pass


class Module:
    """See cupy.cuda.function.Module."""

    def load(self, code: bytes) -> None:
        self._code = SHIM + code.decode("ascii")
        self._library = ctypes.CDLL(str(backend.compile_host(self._code, ("-O2",))))

    def get_function(self, name: str) -> Function:
        return Function(self._library, name, name in TEAMS.findall(self._code))


class Device:
    """See cupy.cuda.Device."""

    def __init__(self, number: int) -> None:
        assert number == 0

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: Any) -> None:
        pass


class Stream(Device):
    """See cupy.cuda.Stream: here always torch's own."""

    @staticmethod
    def from_external(stream: Any) -> Stream:
        made = Stream(0)
        made._address = stream.__cuda_stream__()[1]
        return made

    def __enter__(self) -> None:
        assert self._address == current_stream().cuda_stream


def install() -> None:
    """For streamtrain alone; there is no module named cupy."""
    runtime = SimpleNamespace(runtimeGetVersion=lambda: 12090)
    driver = SimpleNamespace(
        CU_FUNC_ATTRIBUTE_NUM_REGS=0,
        CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES=1,
        funcGetAttribute=lambda attribute, function: 0,
    )
    cuda = SimpleNamespace(
        Device=Device,
        Stream=Stream,
        runtime=runtime,
        driver=driver,
        nvrtc=Nvrtc,
        function=SimpleNamespace(Module=Module),
    )
    cupy = SimpleNamespace(__version__="14.2.0", cuda=cuda)
    backend.import_cupy = lambda: cupy
