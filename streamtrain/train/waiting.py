"""Waiting for lightcones, which can take longer than a scheduler waits before it kills."""

from __future__ import annotations

from collections.abc import Callable

from streamtrain.train.distributed import World
from streamtrain.train.interrupt import StopRequest

POLL_S = 0.2
"""Time between looks at the signals [s]."""


def wait_for(ready: Callable[[float], bool], world: World, request: StopRequest) -> bool:
    """Wait until `ready`, called with seconds to wait, is true in every rank; False if somebody
    asked to stop before.

    All ranks call it at the same point, and all get the same answer.
    """
    while True:
        done = ready(POLL_S)
        stop, waits = world.any(request.requested, not done)
        if stop or not waits:
            return not stop
