"""Memory that batches are made in, and the way of small arrays to the device."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ALIGNMENT = 64
"""Bytes at whose multiples arrays begin that travel together."""

Arrays = Mapping[str, NDArray[np.generic]]
"""Arrays of a batch on the host, by name."""
DeviceArrays = Mapping[str, Tensor]
"""Arrays of a batch on the device, by name."""


class Workspace:
    """Tensors for one batch after the other, on one device.

    A tensor is handed out by name, and again for the next batch: what is made in a workspace is
    valid until the next is. Nothing is allocated once batches have had their largest size.

    scratch: where what nobody reads once a batch is made may lie; workspaces whose batches are made
    one after the other can share it. Default: here as well.
    """

    def __init__(self, device: torch.device, scratch: Workspace | None = None) -> None:
        self.device = device
        self.scratch = scratch or self
        self._tensors: dict[tuple[str, torch.dtype], Tensor] = {}
        self._views: dict[tuple[str, torch.dtype, tuple[int, ...]], Tensor] = {}
        self._staging = torch.empty(0, dtype=torch.uint8)
        self._room = 0
        self._sent: torch.cuda.Event | None = None
        self._kept: list[Any] = []

    def begin(self) -> None:
        """The next batch is made; what was kept for the last one is let go."""
        self._kept.clear()

    def keep(self, used: object) -> None:
        """Hold on to what the batch is made from until the next one is."""
        self._kept.append(used)

    def empty(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A tensor of any content."""
        key = name, dtype, tuple(shape)
        if key not in self._views:
            size = math.prod(shape)
            held = self._tensors.get((name, dtype))
            if held is None or held.numel() < size:
                held = torch.empty(size, dtype=dtype, device=self.device)
                self._tensors[name, dtype] = held
                self._views = {k: v for k, v in self._views.items() if k[:2] != (name, dtype)}
            self._views[key] = held[:size].view(*shape)
        return self._views[key]

    def zeros(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A tensor of zeros."""
        return self.empty(name, shape, dtype).zero_()

    def send(self, parts: Sequence[Arrays]) -> list[DeviceArrays]:
        """Arrays as tensors on the device: by one copy that the host does not wait for, on torch's
        current stream. On a CPU the tensors share the arrays' memory."""
        if self.device.type != "cuda":
            return [{name: torch.from_numpy(a) for name, a in part.items()} for part in parts]
        starts, size = layout(parts)
        if self._sent is not None:
            self._sent.synchronize()  # the copy before has read the staging memory
        if self._room < size:
            self._room = size + size // 4  # batches differ a little
            self._staging = torch.empty(self._room, dtype=torch.uint8, pin_memory=True)
        packed = self.empty("sent", (self._room,), torch.uint8)[:size]
        pack(parts, starts, self._staging)
        packed.copy_(self._staging[:size], non_blocking=True)
        self._sent = torch.cuda.Event()
        self._sent.record(torch.cuda.current_stream(self.device))
        return unpack(parts, starts, packed)


class FreshMemory(Workspace):
    """A workspace whose tensors are new each time, so that they outlive the next batch."""

    def empty(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return torch.empty(tuple(shape), dtype=dtype, device=self.device)

    def keep(self, used: object) -> None:
        """What new tensors are made from may go: nothing but the stream they are made on reads
        it."""


def layout(parts: Sequence[Arrays]) -> tuple[list[list[int]], int]:
    """Where each array begins in one piece of memory, and the size of that [bytes]."""
    starts: list[list[int]] = []
    size = 0
    for part in parts:
        starts.append([])
        for array in part.values():
            starts[-1].append(size)
            size += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
    return starts, size


def pack(parts: Sequence[Arrays], starts: list[list[int]], memory: Tensor) -> None:
    """Copy arrays into `memory`, uint8, at their places."""
    target = memory.numpy()
    for part, row in zip(parts, starts, strict=True):
        for array, start in zip(part.values(), row, strict=True):
            room = target[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
            np.copyto(room, array)


def unpack(parts: Sequence[Arrays], starts: list[list[int]], memory: Tensor) -> list[DeviceArrays]:
    """The arrays as views of `memory`."""
    return [
        {
            name: memory[start : start + a.nbytes].view(_torch_dtype(a.dtype)).view(a.shape)
            for (name, a), start in zip(part.items(), row, strict=True)
        }
        for part, row in zip(parts, starts, strict=True)
    ]


@cache
def _torch_dtype(dtype: np.dtype[Any]) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype
