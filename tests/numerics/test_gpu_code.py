"""What a GPU is given: compiled with our options alone, once, and intact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.nvrtc import Nvrtc, nvrtc

from streamtrain.numerics import gpu_code as code_of
from streamtrain.numerics.backend import kernel_source
from streamtrain.numerics.gpu_code import CUDA_FLAGS, GpuCodeError, gpu_code

LABEL = kernel_source("label.cu")


class Counted:
    """NVRTC that remembers what it was asked to compile."""

    def __init__(self, found: Nvrtc) -> None:
        self._found = found
        self.options: list[tuple[str, ...]] = []

    def compileProgram(self, program: Any, options: tuple[str, ...]) -> None:
        self.options.append(tuple(options))
        self._found.compileProgram(program, options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._found, name)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STREAMTRAIN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def kept(cache: Path) -> list[Path]:
    return sorted(cache.glob("kernels-*.gpu"))


def test_it_is_compiled_once_with_our_options_alone(cache: Path) -> None:
    counted = Counted(nvrtc())
    code = gpu_code(counted, LABEL, (9, 0))
    assert code.startswith(b"\x7fELF") and b"make_label" in code
    assert counted.options == [(*CUDA_FLAGS, "-arch=sm_90")]
    assert gpu_code(counted, LABEL, (9, 0)) == code
    assert len(counted.options) == len(kept(cache)) == 1


def test_another_gpu_source_or_option_is_another_code(cache: Path) -> None:
    counted = Counted(nvrtc())
    made = {
        gpu_code(counted, LABEL, (9, 0)),
        gpu_code(counted, LABEL, (8, 0)),
        gpu_code(counted, LABEL, (9, 0), ("--maxrregcount=16",)),
        gpu_code(counted, LABEL.replace("0.30102999566398120f", "0.5f"), (9, 0)),
    }
    assert len(made) == len(counted.options) == len(kept(cache)) == 4


def test_damaged_code_is_compiled_again(cache: Path) -> None:
    counted = Counted(nvrtc())
    code = gpu_code(counted, LABEL, (9, 0))
    (file,) = kept(cache)
    file.write_bytes(code[:-100])
    assert gpu_code(counted, LABEL, (9, 0)) == code
    assert len(counted.options) == 2 and kept(cache) == [file]


def test_a_full_disk_is_no_fault(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(code_of, "keep_library", full)
    assert gpu_code(nvrtc(), LABEL, (9, 0)).startswith(b"\x7fELF")
    assert kept(cache) == [] == list(cache.glob("compiling-*"))


def test_a_gpu_that_nvrtc_does_not_know(cache: Path) -> None:
    """A newer one's driver compiles PTX for it; an older one is refused."""
    counted = Counted(nvrtc())
    newest = max(counted.getSupportedArchs())
    assert b".target sm_" in gpu_code(counted, LABEL, (newest // 10 + 1, 0))
    assert counted.options[-1][-1] == f"-arch=compute_{newest}"
    with pytest.raises(GpuCodeError, match=r"capability 3\.5, which NVRTC .* for any more"):
        gpu_code(counted, LABEL, (3, 5))


def test_what_cannot_be_compiled_is_a_sentence(cache: Path) -> None:
    with pytest.raises(GpuCodeError, match=r'^NVRTC cannot .*: error: identifier "y" is undef'):
        gpu_code(nvrtc(), LABEL + "\n__device__ int x = y;\n", (9, 0))
    assert kept(cache) == []
