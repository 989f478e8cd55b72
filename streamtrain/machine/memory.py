"""How much memory this process uses, and how much more the machine and its batch job leave it.

What is free in the tightest of its control groups counts (`cgroups`). A group's use contains the
page cache, and the part that the kernel gives back first (inactive files) is taken as free, as it
is in MemAvailable.
"""

from __future__ import annotations

import os
import re
import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from streamtrain.machine.cgroups import groups_of, lines, number_in

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class _Version:
    """Names of files of one version of control groups."""

    limit: str
    used: str
    inactive: str
    """Line of memory.stat with the inactive files of the group and those below it."""


_VERSIONS = {
    1: _Version("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: _Version("memory.max", "memory.current", "inactive_file"),
}


def free_memory(root: Path = Path("/")) -> int:
    """Memory that can be used [bytes].

    `root` is where proc and sys lie. Where the system does not say, all memory of the machine.
    """
    return min([_of_machine(root), *_of_groups(root)])


def _of_machine(root: Path) -> int:
    for line in lines(root / "proc/meminfo"):
        if match := re.fullmatch(r"MemAvailable:\s+(\d+) kB", line):
            return int(match[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _of_groups(root: Path) -> Iterator[int]:
    """What is free in every group with a limit that this process is in."""
    for group, number in groups_of("memory", root):
        version = _VERSIONS[number]
        limit, used = (number_in(group / name) for name in (version.limit, version.used))
        if limit is not None and used is not None:
            inactive = 0
            for line in lines(group / "memory.stat"):
                name, _, value = line.partition(" ")
                if name == version.inactive and value.isdigit():
                    inactive = int(value)
            yield max(0, limit - max(0, used - inactive))


GB = 1e9


def memory_use(device: torch.device) -> dict[str, float]:
    """Memory in use [GB] by name: of the process (macOS: its peak), and on a GPU torch's tensors'
    peak since the last call and what everybody on that GPU uses together."""
    import torch

    use = {"process_GB": _resident_bytes() / GB}
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        use["gpu_tensors_peak_GB"] = torch.cuda.max_memory_allocated(device) / GB
        use["gpu_in_use_GB"] = (total - free) / GB
        torch.cuda.reset_peak_memory_stats(device)
    return use


def _resident_bytes() -> int:
    statm = Path("/proc/self/statm")
    if statm.is_file():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
