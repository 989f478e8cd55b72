"""How much memory this process uses."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import torch

GB = 1e9


def memory_use(device: torch.device) -> dict[str, float]:
    """Memory in use [GB] by name: of the process (macOS: its peak), and on a GPU torch's tensors'
    peak since the last call and what everybody on that GPU uses together."""
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
