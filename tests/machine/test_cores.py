"""A process that may use one core of many does not count the others, and its threads do not spin
while those wait."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.groups import group, machine

from streamtrain.cli.common import device_of
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
    assert 1 <= num_cores() <= len(os.sched_getaffinity(0))


V2_MOUNT = "30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
V1_MOUNTS = (
    "33 31 0:31 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
)


@pytest.fixture
def many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)), raising=False)


@pytest.mark.parametrize(
    ("own", "above", "cores"),
    [
        ("200000 100000", "max 100000", 2),
        ("max 100000", "350000 100000", 4),
        ("max 100000", "50000 100000", 1),
        ("600000 100000", "400000 200000", 2),
        ("max 100000", "max 100000", 64),
        ("9900000 100000", "max 100000", 64),
        ("nonsense", "", 64),
    ],
)
@pytest.mark.usefixtures("many_cores")
def test_a_quota_of_version_2_is_so_many_cores(
    own: str, above: str, cores: int, tmp_path: Path
) -> None:
    """The tightest of the process's group and of those above it, rounded up."""
    machine(tmp_path, "0::/kubepods/pod7\n", V2_MOUNT)
    group(tmp_path, "kubepods", {"cpu.max": above})
    group(tmp_path, "kubepods/pod7", {"cpu.max": own})
    assert num_cores(tmp_path) == cores


@pytest.mark.parametrize(("quota", "cores"), [("150000", 2), ("-1", 64)])
@pytest.mark.usefixtures("many_cores")
def test_a_quota_of_version_1_is_so_many_cores(quota: str, cores: int, tmp_path: Path) -> None:
    """-1 is what a group without one says; a quota in memory's hierarchy is none."""
    machine(tmp_path, "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/\n", V1_MOUNTS)
    files = {"cpu.cfs_quota_us": quota, "cpu.cfs_period_us": "100000"}
    group(tmp_path, "cpu,cpuacct/docker/abc", files)
    group(tmp_path, "memory/docker/abc", {**files, "cpu.cfs_quota_us": "100000"})
    assert num_cores(tmp_path) == cores


@pytest.mark.usefixtures("many_cores")
def test_a_machine_without_groups_has_its_cores(tmp_path: Path) -> None:
    assert num_cores(tmp_path) == 64


@pytest.mark.parametrize(("given", "threads"), [(None, 1), ("2", 2)])
def test_torch_gets_no_more_threads_than_cores(
    given: str | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a command, of one core's quota on two; the user's own choice stands."""
    before = torch.get_num_threads()
    monkeypatch.setattr("streamtrain.cli.common.num_cores", lambda: 1)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    try:
        torch.set_num_threads(2)
        assert device_of(argparse.Namespace(device="cpu")) == "cpu"
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("given", "spins"),
    [
        ({}, "1000"),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "PASSIVE"}, "0"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "30000000000"),
    ],
)
def test_threads_that_wait_sleep_soon(given: dict[str, str], spins: str) -> None:
    """What torch's OpenMP has read when it is loaded after the command's first lines, which it
    prints."""
    maps = Path("/proc/self/maps")
    loaded = maps.read_text().split() if maps.exists() else []
    openmp = next((word for word in loaded if "libgomp" in word), None)
    if openmp is None:
        pytest.skip("this torch has another OpenMP than GNU's")
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GOMP_", "OMP_WAIT", "OMP_DISPLAY"))
    }
    code = (
        "import ctypes, sys; from streamtrain import __main__; sys.argv[1:] = ['--help']\n"
        f"__main__.main(); ctypes.CDLL({openmp!r})"
    )
    said = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, **given, "OMP_DISPLAY_ENV": "verbose", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    assert f"GOMP_SPINCOUNT = '{spins}'" in said


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
