"""torch's C++ side: a device of type CUDA, registered before torch is imported."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path


def register() -> None:
    """Compile guard.cpp against the headers of the installed torch, and load both."""
    assert "torch" not in sys.modules, "torch asks for its devices once, when it is imported"
    spec = importlib.util.find_spec("torch")
    assert spec is not None and spec.origin is not None
    torch_dir = Path(spec.origin).parent
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "guard.so"
        subprocess.run(
            [
                *os.environ.get("CXX", "c++").split(),
                *("-shared", "-fPIC", "-std=c++20", f"-I{torch_dir / 'include'}"),
                *(str(Path(__file__).with_name("guard.cpp")), "-o", str(library)),
                *(f"-L{torch_dir / 'lib'}", "-lc10", "-ltorch_cpu"),
            ],
            check=True,
        )
        for name in (torch_dir / "lib" / "libtorch_cpu.so", library):
            ctypes.CDLL(str(name))
