"""A batch's launches look up torch's stream once, and go where it says."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from support import small

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.generator.generator import Generator
from streamtrain.numerics import backend
from streamtrain.numerics.backend import CudaKernels, launching
from streamtrain.numerics.workspace import Workspace

GPU, OTHER = torch.device("cuda", 0), torch.device("cuda", 1)


class Entered:
    """CuPy's devices and streams: how they are entered and left, and what is launched inside."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.stream = 7
        made = SimpleNamespace(
            from_external=lambda s: self.context(f"stream {s.__cuda_stream__()[1]}")
        )
        cuda = SimpleNamespace(Device=lambda n: self.context(f"device {n}"), Stream=made)
        self.cupy = SimpleNamespace(cuda=cuda)

    def context(self, name: str) -> Any:
        log = self.log

        class Context:
            def __enter__(self) -> None:
                log.append(f"in {name}")

            def __exit__(self, *error: object) -> None:
                log.append(f"out of {name}")

        return Context()

    def kernels(self, device: torch.device) -> CudaKernels:
        """Kernels that only say that they are launched."""
        made = CudaKernels.__new__(CudaKernels)
        made.device, made._functions = device, {}
        made._module = SimpleNamespace(
            get_function=lambda name: lambda *_, **__: self.log.append(name)
        )
        return made


@pytest.fixture
def entered(monkeypatch: pytest.MonkeyPatch) -> Entered:
    made = Entered()
    monkeypatch.setattr(backend, "import_cupy", lambda: made.cupy)
    monkeypatch.setattr(backend, "_streams", {})
    monkeypatch.setattr(
        torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=made.stream)
    )
    return made


def launch(kernels: CudaKernels, name: str) -> None:
    kernels.elementwise(name, 2, 300, np.int32(1))


def test_alone_each_launch_looks(entered: Entered) -> None:
    kernels = entered.kernels(GPU)
    launch(kernels, "first")
    entered.stream = 8
    launch(kernels, "second")
    assert entered.log == [
        *("in device 0", "in stream 7", "first", "out of stream 7", "out of device 0"),
        *("in device 0", "in stream 8", "second", "out of stream 8", "out of device 0"),
    ]


def test_together_they_look_once(entered: Entered) -> None:
    kernels = entered.kernels(GPU)
    with launching(GPU):
        launch(kernels, "first")
        with launching(GPU):
            launch(kernels, "second")
    expected = ["in device 0", "in stream 7", "first", "second", "out of stream 7"]
    assert entered.log == [*expected, "out of device 0"]


def test_after_an_error_they_look_again(entered: Entered) -> None:
    with pytest.raises(KeyError), launching(GPU):
        raise KeyError
    entered.log.clear()
    launch(entered.kernels(GPU), "after")
    assert entered.log[:3] == ["in device 0", "in stream 7", "after"]


def test_another_thread_looks_for_itself(entered: Entered) -> None:
    kernels = entered.kernels(GPU)
    with launching(GPU):
        entered.log.clear()
        thread = threading.Thread(target=launch, args=(kernels, "there"))
        thread.start()
        thread.join()
    assert entered.log[:3] == ["in device 0", "in stream 7", "there"]


def test_another_gpu_is_refused(entered: Entered) -> None:
    with launching(GPU), pytest.raises(AssertionError, match="another GPU"):
        launch(entered.kernels(OTHER), "there")


@pytest.mark.parametrize(
    ("elements", "blocks", "threads"),
    [(0, 0, 32), (1, 1, 32), (33, 1, 64), (256, 1, 256), (257, 2, 256), (1 << 30, 65535, 256)],
)
def test_threads_fit_the_elements(
    entered: Entered, monkeypatch: pytest.MonkeyPatch, elements: int, blocks: int, threads: int
) -> None:
    kernels, launched = entered.kernels(GPU), list[Any]()
    monkeypatch.setattr(
        kernels, "_launch", lambda _, grid, block, *rest: launched.append((grid, block))
    )
    kernels.elementwise("each", 3, elements)
    assert launched == [((blocks, 3), threads)]


def test_a_cpu_has_none(entered: Entered) -> None:
    with launching(torch.device("cpu")):
        assert entered.log == []


@small.EXTRAPOLATES
def test_a_lightcone_is_read_in_each_stream_that_says_so(
    entered: Entered, monkeypatch: pytest.MonkeyPatch, small_sky: Lightcone
) -> None:
    """Once: torch then does not use its memory again before that stream is done with it."""
    emit = {
        "line": {"model": "li16", "prior": "narrow"},
        "interloper": {"model": "chung22", "nu_rest_GHz": 117.0},
    }
    generator = Generator(small.config(emit=emit), lightcones=[small_sky])
    scene, said = generator.scenes.latest, list[tuple[int, int]]()
    monkeypatch.setattr(
        torch.Tensor, "record_stream", lambda t, s: said.append((t.data_ptr(), s.cuda_stream))
    )
    scene.read_from_here(torch.device("cpu"))
    assert said == []
    for entered.stream in (7, 7, 8):
        scene.read_from_here(GPU)
    for line in (scene.line, scene.interlopers["interloper"]):
        for tensor in (*line.painter.halos.arrays, line.painter.compiled_models[0].columns):
            assert [(tensor.data_ptr(), stream) in said for stream in (7, 8)] == [True, True]
    assert len(said) == len(set(said))
    generator.close()


def test_memory_for_arguments_waits_for_its_own_gpu(
    entered: Entered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever is the present one."""
    recorded: list[Any] = []
    event = SimpleNamespace(record=recorded.append, synchronize=lambda: None)
    monkeypatch.setattr(torch.cuda, "Event", lambda: event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: ("stream of", device))
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda n, dtype, **_: empty(n, dtype=dtype))
    Workspace(OTHER).send([{"a": np.arange(3.0)}])
    assert recorded == [("stream of", OTHER)]
