"""The lightcones in use, on the device; those of the next window are made in the background."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray

from streamtrain.generator.line import Line

KEPT = 2
"""Scenes that are held: the present one and the next."""


@dataclass(frozen=True)
class Scene:
    """What the samples of one window are painted from."""

    numbers: NDArray[np.int64]
    """Numbers of the lightcones among all of the split."""
    line: Line
    interlopers: dict[str, Line]
    _streams: set[int] = field(default_factory=set, compare=False)
    """Of a GPU, in which it has been read."""

    def read_from_here(self, device: torch.device) -> None:
        """What is enqueued from now on in torch's current stream of a GPU reads the lightcones.

        They were made in another stream; so that, whoever lets go of them, their memory is not used
        again before that is done."""
        if device.type != "cuda":
            return
        stream = torch.cuda.current_stream(device)
        if stream.cuda_stream in self._streams:
            return
        for line in (self.line, *self.interlopers.values()):
            for tensor in line.painter.tensors:
                tensor.record_stream(stream)
        self._streams.add(stream.cuda_stream)


class Scenes:
    """Scenes by window. build: makes one; follows: whether a window has a successor worth making
    in advance. Errors of the background come up when its scene is asked for."""

    def __init__(
        self, build: Callable[[int], Scene], device: torch.device, *, follows: bool
    ) -> None:
        self._build, self._device, self._follows = build, device, follows
        self._made: dict[int, Future[Scene]] = {}
        self._lock = Lock()
        self._executor: ThreadPoolExecutor | None = None
        self.latest = self.of(0, ahead=False)
        """The scene that was asked for last."""

    def of(self, window: int, ahead: bool = True) -> Scene:
        """The scene of a window; the next one is then put in the making."""
        with self._lock:
            future = self._request(window)
        scene = future.result()
        if ahead and self._follows:
            with self._lock:
                self._request(window + 1)
        self.latest = scene
        return scene

    def ready(self, window: int, seconds: float) -> bool:
        """Whether the scene of a window is there, or failed, after at most so long [s]; it is put
        in the making."""
        with self._lock:
            future = self._request(window)
        return future in wait([future], seconds).done

    def _request(self, window: int) -> Future[Scene]:
        """The scene of a window, made or in the making; the oldest request is forgotten."""
        if window not in self._made:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(1, "streamtrain-skies")
            self._made[window] = self._executor.submit(self._make, window)
        self._made[window] = self._made.pop(window)  # the youngest is last
        while len(self._made) > KEPT:
            self._made.pop(next(iter(self._made))).cancel()
        return self._made[window]

    def _make(self, window: int) -> Scene:
        if self._device.type != "cuda":
            return self._build(window)
        with torch.cuda.device(self._device):  # a new thread starts on device 0
            scene = self._build(window)
            torch.cuda.current_stream().synchronize()
            return scene

    def close(self) -> None:
        """Stop making scenes."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
            self._executor = None
