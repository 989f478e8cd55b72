"""Where the ranks of one start of torchrun meet."""

from __future__ import annotations

import os
import socket
import time
import uuid
from datetime import timedelta

import torch.distributed as dist

PATIENCE_S = 600.0
"""The other ranks may still import their libraries."""
_KEY = "streamtrain/store"


def fresh_store(rank: int, size: int) -> dist.Store | None:
    """A store that no earlier start of these ranks has written to; None: torch finds its own.

    torchrun keeps one store for all its restarts, in which ranks that are started again find the
    addresses of ranks that are gone, and cannot connect (github.com/pytorch/pytorch/issues/135712).
    So rank 0 opens a new store and leaves its address in the old one; who finds an address there
    at which nobody answers with the name left beside it waits for the next.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    old = dist.TCPStore(host, port, None, False)
    if rank == 0:
        name = uuid.uuid4().hex
        store = dist.TCPStore(host, 0, size, True, wait_for_workers=False)
        store.set(_KEY, name)
        old.set(_KEY, f"{store.port} {name}")
        return store
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        found, name = old.get(_KEY).decode().split()
        if _answers(host, int(found)):
            store = dist.TCPStore(host, int(found), size, False, timedelta(seconds=5), False)
            if store.check([_KEY]) and store.get(_KEY).decode() == name:
                store.set_timeout(timedelta(seconds=PATIENCE_S))
                return store
        time.sleep(0.1)
    raise ValueError(f"rank 0 did not appear at {host} within {PATIENCE_S:g} s")


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5.0).close()
    except OSError:
        return False
    return True
