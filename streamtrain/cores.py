"""How many processor cores this process may use."""

from __future__ import annotations

import os


def num_cores() -> int:
    """Cores that this process may use: a batch job's share, not the whole machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
