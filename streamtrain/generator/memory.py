"""How much memory lightcones take, and how much there is."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from streamtrain.catalogs.fresh import FreshSkies
from streamtrain.catalogs.skies import Skies
from streamtrain.config import ConfigError
from streamtrain.free_memory import free_memory
from streamtrain.generator.scenes import KEPT
from streamtrain.generator.schedule import Schedule

BYTES_PER_HALO = {"cuda": 34, "cpu": 90}
"""On the device: positions, mass, redshift, channel and up to three columns; on a CPU the file's
arrays as well."""
SHARE = 0.5
"""Of the memory that is free, for lightcones."""
GB = 1e9


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return free_memory()


def check_memory(
    lines: Sequence[tuple[Skies | FreshSkies, Schedule]],
    limit_GB: float | None,
    device: torch.device,
) -> None:
    """Raise ConfigError if the lightcones in use, and those that follow them, do not fit.

    lines: lightcones of every line and when they are used; limit_GB: instead of half of what is
    free on the device.
    """
    most = 0.0
    for skies, schedule in lines:
        number = schedule.active if schedule.turns else schedule.num or 0
        most += (KEPT if schedule.turns else 1) * skies.most_halos(number)
    _, first = lines[0]
    needed = BYTES_PER_HALO[device.type] * most
    limit = SHARE * free_bytes(device) if limit_GB is None else GB * limit_GB
    if needed > limit:
        advice = "data.active, as in data.active=2,"
        if first.turns:
            advice = f"data.active below {first.active}"
        raise ConfigError(
            f"the lightcones in use need {needed / GB:.2g} GB, more than the {limit / GB:.2g} GB "
            f"there are for them: set {advice} to use fewer at a time"
        )
