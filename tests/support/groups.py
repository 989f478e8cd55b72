"""A fake machine: the files of proc and sys that say what a process may use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def machine(
    root: Path, cgroup: str = "", mountinfo: str = "", available_kB: int = 64_000_000
) -> Path:
    """A fake proc: what the machine has, the groups of this process, and what is mounted."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(
        f"MemTotal:   98304000 kB\nMemFree:   1000000 kB\nMemAvailable:   {available_kB} kB\n"
    )
    (root / "proc/self/cgroup").write_text(cgroup)
    (root / "proc/self/mountinfo").write_text(
        "22 27 0:21 / /proc rw,relatime - proc proc rw\n" + mountinfo
    )
    return root


def group(root: Path, path: str, files: Mapping[str, str | int]) -> None:
    """A fake group with files, by name."""
    folder = root / "sys/fs/cgroup" / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(f"{content}\n")
