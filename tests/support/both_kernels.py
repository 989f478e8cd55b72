"""Kernels made in two ways: every launch is made by both, and what it leaves has the same bytes."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from streamtrain.numerics.backend import Argument, HostKernels, Kernels

PATTERNS = {
    torch.float32: np.array(
        [0x7FC00000, 0xFFC00001, 0x7F800001, 0x7F800000, 0xFF800000, 0x80000000, 0, 1, 0x80000001]
        + [0x007FFFFF, 0x807FFFFF, 0x00800000, 0x7F7FFFFF, 0xFF7FFFFF, 0x3F800000, 0x3F800001],
        np.uint32,
    ).view(np.float32),
    torch.float64: np.array(
        [0x7FF8 << 48, (0xFFF8 << 48) + 1, (0x7FF0 << 48) + 1, 0x7FF0 << 48, 0xFFF0 << 48, 1 << 63]
        + [0, 1, (1 << 63) + 1, (1 << 52) - 1, 1 << 52, (0x7FF0 << 48) - 1, 0x3FF0 << 48],
        np.uint64,
    ).view(np.float64),
}
"""NaN, infinities, zeros, subnormal and largest numbers, 1 and what follows it."""
ALWAYS_NUMBERS = {
    "paint": {"pose_all", "values_all", "field"},
    "radio_sources": {"density"},
}
"""What the host draws or computes and the kernel turns into integers: not fuzzed. A kernel is added
here where it has such arguments."""


class DifferentBytes(AssertionError):
    """A launch leaves other bytes than the host's; one sentence."""


@dataclass
class Both:
    """Launches by the host's kernels and by others of the same source.

    make: the others; fuzz: whether a launch is made once more before, with one in eight of its
    floating-point numbers replaced by bit patterns of which arithmetic is afraid.
    """

    make: Callable[[str], Kernels]
    fuzz: bool = True
    others: dict[str, Kernels] = field(default_factory=dict)
    """By source."""
    launches: dict[str, int] = field(default_factory=dict)
    """By kernel."""

    def launch(
        self, host: HostKernels, source: str, way: str, name: str, first: tuple[int, ...],
        arguments: Sequence[Argument],
    ) -> None:  # fmt: skip
        """way, name, first: the method of Kernels and its arguments in front of `arguments`."""
        if source not in self.others:
            self.others[source] = self.make(source)
        other = self.others[source]
        self.launches[name] = self.launches.get(name, 0) + 1
        names = argument_names(source, name)[{"elementwise": 2, "per_item": 1}[way] :]
        assert len(names) == len(arguments), name
        ours = partial(_METHODS[way], host, name, *first)
        theirs = partial(getattr(other, way), name, *first)
        if self.fuzz:
            rng = np.random.default_rng(self.launches[name])
            fuzzed = _fuzzed(arguments, names, ALWAYS_NUMBERS.get(name, set()), rng)
            copies = _copies(fuzzed, other.device)
            theirs(*copies)
            ours(*fuzzed)
            _demand_equal(f"{name}, fuzzed", names, fuzzed, copies)
        copies = _copies(arguments, other.device)
        theirs(*copies)
        ours(*arguments)
        _demand_equal(name, names, arguments, copies)


_METHODS = {"elementwise": HostKernels.elementwise, "per_item": HostKernels.per_item}


@contextmanager
def launched_by_both(make: Callable[[str], Kernels], fuzz: bool = True) -> Iterator[Both]:
    """Whatever is launched on a CPU with kernels that are compiled in here is launched by both."""
    both, lock, compiled = Both(make, fuzz), threading.RLock(), HostKernels.__init__
    sources: dict[int, tuple[HostKernels, str]] = {}

    def compile_and_remember(self: HostKernels, source: str, flags: Sequence[str] = ()) -> None:
        compiled(self, source, flags)
        sources[id(self)] = self, source

    def by_both(way: str) -> Callable[..., None]:
        def method(self: HostKernels, name: str, one: int, two: int, *arguments: Argument) -> None:
            with lock:
                both.launch(self, sources[id(self)][1], way, name, (one, two), arguments)

        return method

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HostKernels, "__init__", compile_and_remember)
        patch.setattr(HostKernels, "blockwise", False)  # which no GPU is
        for way in _METHODS:
            patch.setattr(HostKernels, way, by_both(way))
        yield both


def argument_names(source: str, name: str) -> list[str]:
    """The names of a kernel's arguments, in their order."""
    found = re.search(rf"\b{name}(?:,\s*)?\(((?:i64|const)[^()]*)\)", source)
    if found is None:  # a macro gives it its name
        found = re.search(r"FOR_EACH\(name,[\s\\]*\((i64[^()]*)\)", source)
    assert found is not None, name
    return [re.findall(r"\w+", argument)[-1] for argument in found[1].split(",")]


def _copies(arguments: Sequence[Argument], device: torch.device) -> list[Argument]:
    """Arguments whose tensors are copied; one that is given twice is copied once."""
    made: dict[tuple[int, int], torch.Tensor] = {}
    return [
        made.setdefault((a.data_ptr(), a.numel()), a.to(device, copy=True))
        if isinstance(a, torch.Tensor)
        else a
        for a in arguments
    ]


def _fuzzed(
    arguments: Sequence[Argument], names: list[str], spared: set[str], rng: np.random.Generator
) -> list[Argument]:
    copies = _copies(arguments, torch.device("cpu"))
    for name, copy in zip(names, copies, strict=True):
        if isinstance(copy, torch.Tensor) and copy.dtype in PATTERNS and name not in spared:
            flat: NDArray[np.floating] = copy.numpy().reshape(-1)
            chosen = rng.uniform(size=flat.size) < 1 / 8
            flat[chosen] = rng.choice(PATTERNS[copy.dtype], int(chosen.sum()))
    return copies


def _demand_equal(
    launch: str, names: list[str], ours: Sequence[Argument], theirs: Sequence[Argument]
) -> None:
    """A NaN is one whatever its bits, which nobody promises."""
    for name, one, other in zip(names, ours, theirs, strict=True):
        if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
            continue
        a, b = one.numpy().reshape(-1), other.cpu().numpy().reshape(-1)
        differ = a.view(f"u{a.itemsize}") != b.view(f"u{b.itemsize}")
        if a.dtype.kind == "f":
            differ &= ~(np.isnan(a) & np.isnan(b))
        if differ.any():
            at = int(differ.argmax())
            raise DifferentBytes(
                f"{launch}: {name}[{at}] is {b[at]!r}, and {a[at]!r} on the host, as are "
                f"{int(differ.sum())} of {a.size}"
            )
