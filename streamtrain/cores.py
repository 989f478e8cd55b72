"""How many processor cores this process may use."""

from __future__ import annotations

import os


def num_cores() -> int:
    """Cores that this process may use: a batch job's share, not the whole machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def own_cores() -> int:
    """Cores of this rank: its share of those of the machine's ranks."""
    return max(1, num_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
