"""One process or many: ranks, devices, what the ranks agree on, and where and how they wait.

torchrun sets RANK, WORLD_SIZE and LOCAL_RANK. Gradients travel over nccl between GPUs and over
gloo between CPUs (DistributedDataParallel); everything else (votes, sums, messages) goes over a
gloo group of its own, so that it never waits for a GPU. The ranks of one start of torchrun meet in
`fresh_store`; `wait_for` waits for lightcones, which can take longer than a scheduler waits before
it kills.
"""

from __future__ import annotations

import inspect
import os
import pickle
import socket
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from streamtrain.machine.interrupt import StopRequest
from streamtrain.numerics.backend import BackendError, full_device

T = TypeVar("T")
_FROM_MAIN = "_streamtrain_from_main"
_RANKS = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
_LAUNCH = "start processes with torchrun, or unset RANK, WORLD_SIZE and their like"


@dataclass
class World:
    """The processes of this run, seen from one of them."""

    rank: int
    size: int
    local_size: int
    device: torch.device
    control: dist.ProcessGroup | None = None
    _vote: tuple[Tensor, dist.Work] | None = field(default=None, repr=False)

    @classmethod
    def start(cls, device: str | torch.device | None = None) -> World:
        """Join the processes that torchrun started, or be alone.

        device: 'cpu', 'cuda', 'cuda:1' ...; None: this rank's GPU if there is one, else the CPU.
        Raises ValueError for a device that is not here, or that the processes cannot share.
        """
        rank, size, local_rank, local_size = ranks_of(os.environ)
        chosen = choose_device(device, local_rank, local_size)
        if chosen.type == "cuda":
            torch.cuda.set_device(chosen)
        if size == 1:
            return cls(0, 1, 1, chosen)
        try:
            store = fresh_store(rank, size)
            where: dict[str, Any] = {}
            if store:
                where = {"store": store, "rank": rank, "world_size": size}
            if chosen.type == "cuda":
                dist.init_process_group("nccl", device_id=chosen, **where)
            else:
                dist.init_process_group("gloo", **where)
        except RuntimeError as error:
            address = ":".join(os.environ[name] for name in ("MASTER_ADDR", "MASTER_PORT"))
            raise ValueError(f"{size} processes cannot meet at {address}: {error}") from None
        return cls(rank, size, local_size, chosen, dist.new_group(backend="gloo"))

    @property
    def is_main(self) -> bool:
        """True in the one process that writes files."""
        return self.rank == 0

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network with gradients averaged over the ranks, and the parameters of rank 0.

        Buffers are constants that every rank has (see `set_normalisation`), or running moments that
        batch normalisation keeps equal (see `networks.layers.BatchNorm`), so no step sends them.
        """
        if self.size == 1:
            return network
        devices = [self.device] if self.device.type == "cuda" else None
        known = inspect.signature(DistributedDataParallel).parameters
        buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        settings: dict[str, Any] = {"device_ids": devices, buffers: False}
        return DistributedDataParallel(network, **settings)

    def sum(self, values: Tensor) -> Tensor:
        """The sum of a tensor over the ranks, on the CPU in float64 (synchronises)."""
        total = values.detach().to("cpu", torch.float64, copy=True)
        if self.size > 1:
            dist.all_reduce(total, group=self.control)
        return total

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.size > 1:
            dist.barrier(group=self.control)

    def on_main(self, function: Callable[[], T]) -> T:
        """Call `function` in rank 0; every rank gets its value, or raises its exception."""
        if self.size == 1:
            return function()
        outcome: list[Any] = [None, None]
        if self.is_main:
            try:
                outcome[0] = function()
            except Exception as error:
                outcome[1] = _sendable(error)
        dist.broadcast_object_list(outcome, src=0, group=self.control)
        if outcome[1] is not None:
            vars(outcome[1])[_FROM_MAIN] = True
            raise outcome[1]
        value: T = outcome[0]
        return value

    def any(self, *flags: bool) -> list[bool]:
        """Which of the flags any rank has set (waits for the other ranks)."""
        if self.size == 1:
            return list(flags)
        votes = torch.tensor([int(flag) for flag in flags])
        dist.all_reduce(votes, dist.ReduceOp.MAX, group=self.control)
        return [bool(vote) for vote in votes.tolist()]

    def agree(self, stop: bool) -> bool:
        """True in all ranks at the same call, once any rank has asked to stop.

        With several ranks the votes of one call are counted in the next, so nobody waits for them.
        """
        if self.size == 1:
            return stop
        previous, self._vote = self._vote, None
        decided = False
        if previous is not None:
            votes, work = previous
            work.wait()
            decided = bool(votes.item())
        if not decided:
            votes = torch.tensor(int(stop))
            work = dist.all_reduce(votes, dist.ReduceOp.MAX, group=self.control, async_op=True)
            assert work is not None
            self._vote = (votes, work)
        return decided

    def close(self) -> None:
        """Leave in good order: count the last vote, wait for the others, end the groups."""
        if self.size == 1:
            return
        if self._vote is not None:
            self._vote[1].wait()
            self._vote = None
        self.barrier()
        dist.destroy_process_group()


def ranks_of(environment: Mapping[str, str]) -> tuple[int, int, int, int]:
    """RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE, as torchrun sets them; without any, this
    process is alone. Raises ValueError for what cannot be."""
    numbers = []
    for name, default in _RANKS.items():
        text = environment.get(name, default)
        if not (text.isascii() and text.isdecimal() and len(text) < 10):
            raise ValueError(f"{name} = '{text}' in the environment is no whole number: {_LAUNCH}")
        numbers.append(int(text))
    rank, size, local_rank, local_size = numbers
    for name, number, of, many in (
        ("RANK", rank, "WORLD_SIZE", size),
        ("LOCAL_RANK", local_rank, "LOCAL_WORLD_SIZE", local_size),
    ):
        if number >= many:
            raise ValueError(f"{name} = {number} in the environment of {of} = {many}: {_LAUNCH}")
    if size > 1:
        port = environment.get("MASTER_PORT", "")
        missing = [n for n in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not environment.get(n)]
        if missing:
            raise ValueError(
                f"WORLD_SIZE = {size} in the environment without {', '.join(missing)}: {_LAUNCH}"
            )
        if not (port.isascii() and port.isdecimal() and len(port) < 6 and int(port) < 65536):
            raise ValueError(f"MASTER_PORT = '{port}' in the environment is no port: {_LAUNCH}")
    return rank, size, local_rank, local_size


def from_main(error: BaseException) -> bool:
    """True for an exception that `World.on_main` raised in every rank."""
    return _FROM_MAIN in vars(error)


def _sendable(error: Exception) -> Exception:
    """The exception, or its text in a RuntimeError where pickle cannot carry it."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def choose_device(
    device: str | torch.device | None, local_rank: int = 0, local_size: int = 1
) -> torch.device:
    """This rank's device, of `local_size` on this machine; see `World.start`."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if str(device) == "cuda" and torch.cuda.is_available():
        num_gpus = torch.cuda.device_count()
        if local_size > num_gpus:
            raise ValueError(
                f"{local_size} processes on a machine with {num_gpus} GPU(s): start at most "
                f"{num_gpus}, or use device 'cpu'"
            )
        return torch.device("cuda", local_rank)
    try:
        chosen = full_device(device)
    except BackendError as error:
        raise ValueError(str(error)) from None
    if chosen.type == "cuda" and local_size > 1:
        raise ValueError(
            f"device '{device}' is one GPU for {local_size} processes: use device 'cuda', which "
            "gives each its own"
        )
    return chosen


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
