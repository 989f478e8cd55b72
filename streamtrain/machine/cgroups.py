"""The control groups of this process, by which containers and batch jobs limit what it may use.

A process belongs to one group of each controller's hierarchy and to all groups above it, and each
may have a limit; the tightest one counts.

References:
    Control Group v2, Documentation/admin-guide/cgroup-v2.rst, and
    Documentation/admin-guide/cgroup-v1 in the source of Linux
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

FILESYSTEMS = {1: "cgroup", 2: "cgroup2"}
"""Kind of the file system in which a version of control groups shows its groups."""


def groups_of(controller: str, root: Path = Path("/")) -> Iterator[tuple[Path, int]]:
    """The folders of the groups that limit this process, each with its version of control groups.

    controller: "memory", "cpu" ...; root: where proc and sys lie. A group comes before the ones
    that it is in.
    """
    groups = [line.split(":", 2) for line in lines(root / "proc/self/cgroup")]
    mounts = [line.split(" - ", 1) for line in lines(root / "proc/self/mountinfo")]
    for group in groups:
        if len(group) != 3:
            continue
        _, controllers, path = group
        if controllers and controller not in controllers.split(","):
            continue
        version = 1 if controllers else 2
        for where, what in (mount for mount in mounts if len(mount) == 2):
            kind, _, options = (what.split(" ") + ["", ""])[:3]
            if kind != FILESYSTEMS[version]:
                continue
            if version == 1 and controller not in options.split(","):
                continue
            _, _, _, top, point = where.split(" ")[:5]
            folder = root / _unescaped(point).lstrip("/")
            names = _below(path, _unescaped(top))
            for depth in range(len(names), -1, -1):
                yield folder.joinpath(*names[:depth]), version


def number_in(file: Path) -> int | None:
    """The whole number in a file; None where there is no file, or no limit ("max", -1)."""
    first = next(iter(lines(file)), "")
    return int(first) if first.isdigit() else None


def lines(file: Path) -> list[str]:
    """The lines of a file of the system; none where it cannot be read."""
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _below(path: str, top: str) -> list[str]:
    """Folders from the mounted group `top` down to the group `path`; in a container that does not
    show the groups outside, none: its own group is the mounted one."""
    names, above = ([name for name in text.split("/") if name] for text in (path, top))
    if ".." in names or names[: len(above)] != above:
        return []
    return names[len(above) :]


def _unescaped(text: str) -> str:
    """A path of mountinfo, where a space is written as its octal number."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
