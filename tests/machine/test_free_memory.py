"""Free memory of bare machines, of containers and of batch jobs, as the system's files say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.groups import group as folder_of_group
from support.groups import machine

from streamtrain.catalogs.synthesis import arrays
from streamtrain.generator import scenes
from streamtrain.machine import workers
from streamtrain.machine.memory import free_memory

GB = 10**9
V2_MOUNT = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNTS = (
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
    "33 31 0:31 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 {top} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
)


def group(root: Path, path: str, **files: str | int) -> None:
    """A fake group; the names of its files have _ for the first dot."""
    folder_of_group(root, path, {name.replace("_", ".", 1): text for name, text in files.items()})


def test_bare_machine_has_what_meminfo_says(tmp_path: Path) -> None:
    assert free_memory(machine(tmp_path)) == 64_000_000 * 1024


def test_system_that_does_not_say_has_all_its_memory(tmp_path: Path) -> None:
    assert free_memory(tmp_path) >= free_memory() > 0


def test_group_of_version_2_inside_a_limited_one(tmp_path: Path) -> None:
    """A SLURM step without a limit, in a job of 8 GB of which 3 GB are used, 1 GB of that files
    that are not in use, on a machine with a limit of 100 GB."""
    machine(tmp_path, "0::/system.slice/job_7/step_0/user\n", V2_MOUNT)
    group(tmp_path, "system.slice", memory_max=100 * GB, memory_current=90 * GB)
    group(
        tmp_path,
        "system.slice/job_7",
        memory_max=8 * GB,
        memory_current=3 * GB,
        memory_stat=f"anon {2 * GB}\nactive_file 7\ninactive_file {GB}\ntotal_inactive_file 5",
    )
    group(tmp_path, "system.slice/job_7/step_0", memory_max="max", memory_current=2 * GB)
    assert free_memory(tmp_path) == 6 * GB
    group(tmp_path, "system.slice", memory_current=99 * GB)
    assert free_memory(tmp_path) == GB
    group(tmp_path, "system.slice/job_7/step_0", memory_max=2 * GB)
    assert free_memory(tmp_path) == 0


def test_container_of_version_2_sees_its_own_group_as_the_root(tmp_path: Path) -> None:
    machine(tmp_path, "0::/\n", V2_MOUNT)
    group(tmp_path, ".", memory_max=4 * GB, memory_current=GB)
    assert free_memory(tmp_path) == 3 * GB


def test_group_of_version_1(tmp_path: Path) -> None:
    """9223372036854771712 is what an unlimited group says."""
    listed = "9:name=systemd:/\n5:cpu,cpuacct:/slurm/job_7\n4:memory:/slurm/job_7\n0::/\n"
    machine(tmp_path, listed, V1_MOUNTS.format(top="/"))
    for path in ("memory", "memory/slurm"):
        group(
            tmp_path,
            path,
            memory_limit_in_bytes=9223372036854771712,
            memory_usage_in_bytes=50 * GB,
        )
    assert free_memory(tmp_path) == 64_000_000 * 1024
    group(
        tmp_path,
        "memory/slurm/job_7",
        memory_limit_in_bytes=16 * GB,
        memory_usage_in_bytes=9 * GB,
        memory_stat=f"inactive_file 3\ntotal_inactive_file {2 * GB}",
    )
    assert free_memory(tmp_path) == 9 * GB


def test_container_of_version_1_that_mounts_its_group(tmp_path: Path) -> None:
    """Docker without a namespace of groups: the path is the host's, the mount begins there."""
    machine(tmp_path, "4:memory:/docker/abc\n", V1_MOUNTS.format(top="/docker/abc"))
    group(tmp_path, "memory", memory_limit_in_bytes=2 * GB, memory_usage_in_bytes=GB // 2)
    assert free_memory(tmp_path) == 3 * GB // 2


@pytest.mark.parametrize("path", ["/../other", "/elsewhere/other"])
def test_path_outside_what_is_mounted_takes_the_mounted_group(path: str, tmp_path: Path) -> None:
    """A group called `other` in it is another one."""
    machine(tmp_path, f"0::{path}\n", V2_MOUNT.replace("0:26 / ", "0:26 /docker "))
    group(tmp_path, ".", memory_max=4 * GB, memory_current=GB)
    group(tmp_path, "other", memory_max=GB, memory_current=GB)
    assert free_memory(tmp_path) == 3 * GB


def test_mount_point_with_a_space(tmp_path: Path) -> None:
    machine(tmp_path, "0::/\n", V2_MOUNT.replace("fs/cgroup", "fs/my\\040groups"))
    group(tmp_path, "../my groups", memory_max=4 * GB, memory_current=GB)
    assert free_memory(tmp_path) == 3 * GB


@pytest.mark.parametrize("text", ["", "0::", "nonsense", "0::/a\n1:memory\n"])
def test_strange_files_are_no_limit(text: str, tmp_path: Path) -> None:
    machine(tmp_path, text, "one two - cgroup\nthree\n")
    assert free_memory(tmp_path) == 64_000_000 * 1024


def test_everything_that_asks_is_told_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """One function, in the synthesis, its processes and the generator."""
    assert arrays.free_memory is workers.free_memory is scenes.free_memory is free_memory
    monkeypatch.setattr(scenes, "free_memory", lambda: 123)
    assert scenes.free_bytes(torch.device("cpu")) == 123
