"""torch's C++ side: a device of type CUDA, registered before torch is imported."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path


def register() -> None:
    """Load guard.cpp, compiled against the headers of the installed torch."""
    assert "torch" not in sys.modules, "torch asks for its devices once, when it is imported"
    spec = importlib.util.find_spec("torch")
    assert spec is not None and spec.origin is not None
    torch_dir = Path(spec.origin).parent
    for name in (torch_dir / "lib" / "libtorch_cpu.so", _compiled(torch_dir)):
        ctypes.CDLL(str(name))


def _compiled(torch_dir: Path) -> Path:
    """The library, which is kept: compiling it takes longer than most of what it is used for."""
    source = Path(__file__).with_name("guard.cpp")
    compiler = os.environ.get("CXX", "c++")
    parts = (source.read_text(encoding="utf-8"), compiler, version("torch"), str(torch_dir))
    identity = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
    kept = Path(tempfile.gettempdir()) / f"stand-in-gpu-{os.getuid()}"
    kept.mkdir(mode=0o700, exist_ok=True)
    assert kept.stat().st_uid == os.getuid(), f"{kept} belongs to another user"
    library = kept / f"guard-{identity}.so"
    if library.is_file():
        return library
    with tempfile.TemporaryDirectory(dir=kept) as folder:
        built = Path(folder) / "guard.so"
        subprocess.run(
            [
                *compiler.split(),
                *("-shared", "-fPIC", "-std=c++20", f"-I{torch_dir / 'include'}"),
                *(str(source), "-o", str(built)),
                *(f"-L{torch_dir / 'lib'}", "-lc10", "-ltorch_cpu"),
            ],
            check=True,
        )
        built.replace(library)
    return library
