"""A process that may use one core of many does not count the others."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from streamtrain.config import TrainConfig
from streamtrain.machine.workers import num_cores
from streamtrain.train.torch_state import use_bfloat16


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs CPU affinity (Linux)")
def test_cores_are_those_of_the_process() -> None:
    one = min(os.sched_getaffinity(0))
    code = (
        f"import os; os.sched_setaffinity(0, {{{one}}})\n"
        "from streamtrain.machine.workers import num_cores; print(num_cores())"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "1"
    assert num_cores() == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("precision", "device", "expected"),
    [
        ("auto", "cpu", False),
        ("auto", "cuda", True),
        ("bfloat16", "cpu", True),
        ("float32", "cuda", False),
    ],
)
def test_precision(precision: str, device: str, expected: bool) -> None:
    train = TrainConfig(precision=precision)  # type: ignore[arg-type]
    assert use_bfloat16(train, torch.device(device)) is expected
