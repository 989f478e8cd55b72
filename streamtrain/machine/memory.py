"""How much memory this process uses, and how much more the machine and its batch job leave it.

Containers and SLURM limit memory by control groups. A process belongs to one group of the memory
hierarchy and to all groups above it, and each may have a limit; what is free in the tightest one
counts. A group's use contains the page cache, and the part that the kernel gives back first
(inactive files) is taken as free, as it is in MemAvailable.

References:
    Control Group v2, Documentation/admin-guide/cgroup-v2.rst, and the memory controller of v1,
    Documentation/admin-guide/cgroup-v1/memory.rst, in the source of Linux
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

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class _Version:
    """Names of one version of control groups."""

    filesystem: str
    limit: str
    used: str
    inactive: str
    """Line of memory.stat with the inactive files of the group and those below it."""


_V1 = _Version("cgroup", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = _Version("cgroup2", "memory.max", "memory.current", "inactive_file")


def free_memory(root: Path = Path("/")) -> int:
    """Memory that can be used [bytes].

    `root` is where proc and sys lie. Where the system does not say, all memory of the machine.
    """
    return min([_of_machine(root), *_of_groups(root)])


def _of_machine(root: Path) -> int:
    for line in _lines(root / "proc/meminfo"):
        if match := re.fullmatch(r"MemAvailable:\s+(\d+) kB", line):
            return int(match[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _of_groups(root: Path) -> Iterator[int]:
    """What is free in every group with a limit that this process is in."""
    groups = [line.split(":", 2) for line in _lines(root / "proc/self/cgroup")]
    mounts = [line.split(" - ", 1) for line in _lines(root / "proc/self/mountinfo")]
    for group in groups:
        if len(group) != 3:
            continue
        _, controllers, path = group
        if controllers and "memory" not in controllers.split(","):
            continue
        version = _V1 if controllers else _V2
        for where, what in (mount for mount in mounts if len(mount) == 2):
            kind, _, options = (what.split(" ") + ["", ""])[:3]
            if kind != version.filesystem:
                continue
            if version is _V1 and "memory" not in options.split(","):
                continue
            _, _, _, top, point = where.split(" ")[:5]
            folder = root / _unescaped(point).lstrip("/")
            yield from _up(folder, _below(path, _unescaped(top)), version)


def _below(path: str, top: str) -> list[str]:
    """Folders from the mounted group `top` down to the group `path`; in a container that does not
    show the groups outside, none: its own group is the mounted one."""
    names, above = ([name for name in text.split("/") if name] for text in (path, top))
    if ".." in names or names[: len(above)] != above:
        return []
    return names[len(above) :]


def _up(folder: Path, names: list[str], version: _Version) -> Iterator[int]:
    for depth in range(len(names), -1, -1):
        group = folder.joinpath(*names[:depth])
        limit, used = (_number(group / name) for name in (version.limit, version.used))
        if limit is not None and used is not None:
            inactive = 0
            for line in _lines(group / "memory.stat"):
                name, _, value = line.partition(" ")
                if name == version.inactive and value.isdigit():
                    inactive = int(value)
            yield max(0, limit - max(0, used - inactive))


def _number(file: Path) -> int | None:
    """The number in a file; None where there is no file, or no limit ("max")."""
    first = next(iter(_lines(file)), "")
    return int(first) if first.isdigit() else None


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _unescaped(text: str) -> str:
    """A path of mountinfo, where a space is written as its octal number."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


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
