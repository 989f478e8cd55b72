"""Whether a compiled library computes what its source says: operations with known answers.

The bytes of a sample rest on IEEE arithmetic, each operation rounded once. The flags ask for that,
but a wrapper of the compiler, or its configuration, may add others. `kernels/probe.cuh` is linked
to every library; a process of its own runs it once, before the library is kept, so that one that
crashes, or changes the processor's modes when it is loaded, harms nobody.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

NUM_ELEMENTS = 67
"""Whole vectors, and a rest."""
PATIENCE_S = 120.0
OPERATIONS = (
    "a product and a sum become one operation (fused multiply-add)",
    "a product and a difference become one operation (fused multiply-add)",
    "sums are reordered",
    "divisions are not rounded correctly",
    "divisions become products with a reciprocal",
    "square roots are not rounded correctly",
    "reciprocal square roots are estimates",
    "numbers below the smallest normal one become zero",
    "constants in double precision become single",
    "the sign of zero is dropped or numbers below the smallest normal one become zero",
    "comparisons with NaN are dropped",
    "polynomials are contracted to fused multiply-adds or reordered",
    "sums over elements are reordered or contracted",
    "roundings to whole numbers are dropped",
)
"""What is wrong if a result of kernels/probe.cuh is, in its order."""

_RUN = """
import ctypes, sys
def run(library, size, operations, given):
    arguments, outputs, place = [ctypes.c_longlong(size)], [], 0
    for kind in (ctypes.c_float, ctypes.c_double):
        for count in (size, size, size, 4, 1):
            values = (kind * count).from_buffer_copy(given, place)
            place += ctypes.sizeof(values)
            arguments.append(values if count > 1 else kind(values[0]))
        outputs.append((kind * (size * operations))())
        arguments.append(outputs[-1])
    function = ctypes.CDLL(library).streamtrain_probe
    function.restype = None
    function(*arguments)
    return b"".join(map(bytes, outputs))
if __name__ == "__main__":
    library, size, operations = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    sys.stdout.buffer.write(run(library, size, operations, sys.stdin.buffer.read()))
"""


def wrong_arithmetic(library: Path) -> str | None:
    """What is wrong with the arithmetic of a library, as the end of a sentence; None: nothing."""
    with _subnormals():
        given = _inputs()
        expected = [_answers(*numbers) for numbers in given]
    bytes_in = b"".join(array.tobytes() for numbers in given for array in numbers)
    arguments = [str(library), str(NUM_ELEMENTS), str(len(OPERATIONS))]
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _RUN, *arguments],
            input=bytes_in,
            capture_output=True,
            check=False,
            timeout=PATIENCE_S,
            start_new_session=True,
        )
    except (OSError, TypeError):  # no Python can be started, as where it is a part of a program
        done = _in_this_process(str(library), bytes_in)
    except subprocess.TimeoutExpired:
        return f"what it makes does not end within {PATIENCE_S:g} s"
    if done.returncode < 0:
        return f"what it makes ends with signal {-done.returncode} on this processor"
    if done.returncode or len(done.stdout) != sum(array.nbytes for array in expected):
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        return f"what it makes cannot be loaded: {last}"
    size = expected[0].nbytes
    for answers, found in zip(expected, (done.stdout[:size], done.stdout[size:]), strict=True):
        results = np.frombuffer(found, answers.dtype).reshape(answers.shape)
        for text, right, result in zip(OPERATIONS, answers, results, strict=True):
            if right.tobytes() != result.tobytes():
                return f"{text} in {answers.dtype.name}, so samples would differ"
    return None


def _in_this_process(library: str, given: bytes) -> subprocess.CompletedProcess[bytes]:
    names: dict[str, Any] = {"__name__": "probe"}
    exec(_RUN, names)
    try:
        found = names["run"](library, NUM_ELEMENTS, len(OPERATIONS), given)
    except (OSError, AttributeError) as error:
        return subprocess.CompletedProcess([], 1, b"", str(error).encode())
    return subprocess.CompletedProcess([], 0, found, b"")


@contextmanager
def _subnormals() -> Iterator[None]:
    """Meanwhile this process does not take subnormal numbers for zero, whatever else it does."""
    flushes = not np.float32(2.0**-100) * np.float32(2.0**-40)
    if flushes:
        torch.set_flush_denormal(False)
    try:
        yield
    finally:
        if flushes:
            torch.set_flush_denormal(True)


def _inputs() -> list[tuple[NDArray[Any], ...]]:
    """a, b, c [NUM_ELEMENTS], odd [4] and tiny [1] in float32 and in float64."""
    random = np.random.Generator(np.random.Philox(18))
    inputs = []
    for dtype, tiny, subnormal in ((np.float32, 1e-38, 1e-40), (np.float64, 1e-308, 1e-310)):
        numbers = (random.uniform(0.1, 2.0, NUM_ELEMENTS).astype(dtype) for _ in range(3))
        odd = np.array([-0.0, np.nan, np.inf, subnormal], dtype)
        inputs.append((*numbers, odd, np.array([tiny], dtype)))
    return inputs


def _answers(
    a: NDArray[Any], b: NDArray[Any], c: NDArray[Any], odd: NDArray[Any], tiny: NDArray[Any]
) -> NDArray[Any]:
    """The right results [len(OPERATIONS), NUM_ELEMENTS]: NumPy rounds every operation once."""
    dtype = a.dtype.type
    one, hundred = dtype(1), dtype(100)
    shifter = dtype(12582912.0 if dtype is np.float32 else 6755399441055744.0)
    odd = np.resize(odd, len(a))
    low = dtype(-126)
    with np.errstate(invalid="ignore", under="ignore"):
        rows: list[NDArray[Any]] = [
            a * b + c,
            c - a * b,
            (a + c) - a,
            a / c,
            a / c + b / c + dtype(3) / c,
            np.sqrt(a),
            one / np.sqrt(a),
            a * tiny,
            (a.astype(np.float64) * 0.1).astype(dtype),
            odd + dtype(0),
            np.where(odd > low, odd, low),
            ((a * b + c) * b + a) * b + one,
            np.full_like(a, np.add.accumulate(a * b)[-1]),
            (c * hundred + shifter) - shifter,
        ]
    return np.stack(rows)
