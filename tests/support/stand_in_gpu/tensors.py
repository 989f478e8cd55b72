"""Tensors that say they are on the GPU, and what torch may do with them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

ops = torch.ops.aten
DEVICE = torch.device("cuda", 0)
NUMBERS = (ops._local_scalar_dense.default, ops.equal.default)
"""Operations whose results are no tensors."""
SHAPES_BY_VALUE = (ops.nonzero.default, ops.masked_select.default, ops._unique2.default)
"""The host must wait for these, to know how large the result is."""
INDEXING = (ops.index.Tensor, ops.index_put.default, ops.index_put_.default)
"""Indices may be on the CPU."""


class OnGpu(Tensor):
    """Says it is on cuda:0; its values are in `values`, on the CPU."""

    values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor, requires_grad: bool = False) -> OnGpu:
        made = Tensor._make_wrapper_subclass(
            cls,
            values.size(),
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            layout=values.layout,
            device=DEVICE,
            requires_grad=requires_grad,
        )
        made.values = values
        return made

    def __repr__(self) -> str:
        return f"OnGpu({self.values})"

    def data_ptr(self) -> int:
        return self.values.data_ptr()

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def record_stream(self, stream: Any) -> None:
        pass

    def numpy(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("a GPU's tensor cannot be a NumPy array: copy it to the CPU first")

    __array__ = numpy

    def __deepcopy__(self, memo: dict[int, Any]) -> OnGpu:
        copied = OnGpu(self.values.detach().clone(), self.requires_grad)
        if isinstance(self, torch.nn.Parameter):
            copied._is_param = True
        memo[id(self)] = copied
        return copied

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("a GPU's tensor is about to be written: copy it to the CPU first")

    @classmethod
    def __torch_dispatch__(
        cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return perform(operation, args, dict(kwargs or {}))


class LateCopies:
    """Copies to the CPU for which the host has not waited yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[tuple[int, Callable[[], object]]] = []
        self.begun = 0
        self.forbid_waiting = False
        """Whether to raise an error where the host would wait for the GPU."""

    def begin(self, target: Tensor, source: Tensor) -> None:
        """Copy the present values of `source`, later; until then `target` holds nonsense."""
        taken = source.detach().clone()
        if target.is_floating_point():
            target.fill_(float("nan"))
        with self._lock:
            self.begun += 1
            self._waiting.append((self.begun, partial(target.copy_, taken)))

    def finish(self, number: int | None = None) -> None:
        """Do the first so many of all that were ever begun; default: all."""
        with self._lock:
            last = self.begun if number is None else number
            due = [copy for k, copy in self._waiting if k <= last]
            self._waiting = [(k, copy) for k, copy in self._waiting if k > last]
            for copy in due:
                copy()


LATE = LateCopies()


class PinnedMemory:
    """Storages to which a copy need not wait."""

    def __init__(self) -> None:
        self._made: dict[int, StorageWeakRef] = {}

    def add(self, values: Tensor) -> None:
        storage = values.untyped_storage()
        self._made[storage.data_ptr()] = StorageWeakRef(storage)

    def __contains__(self, values: Tensor) -> bool:
        if isinstance(values, OnGpu):
            return False
        made = self._made.get(values.untyped_storage().data_ptr())
        return made is not None and not made.expired()


PINNED = PinnedMemory()


class GpuMode(TorchDispatchMode):
    """Sees the operations that have no tensor among their arguments too, such as torch.empty."""

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return perform(operation, args, dict(kwargs or {}))


def perform(operation: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """An operation on the values, its results on the device that torch would put them on."""
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    any_here = any(isinstance(x, OnGpu) for x in tensors)
    device = kwargs.pop("device", None)
    here = any_here if device is None else torch.device(device).type == "cuda"
    if device is not None:
        kwargs["device"] = torch.device("cpu")
    pinned = kwargs.pop("pin_memory", None)
    if operation is ops.is_pinned.default:
        return args[0] in PINNED
    if operation is ops.copy_.default:
        return _copy(*args, **kwargs)
    crosses = operation is ops._to_copy.default and here != any_here
    if not crosses and any_here:
        _refuse_to_mix(operation, tensors)
    _may_wait(operation, args, crosses and not kwargs.get("non_blocking"))
    values = operation(*tree_map(_values, args), **tree_map(_values, kwargs))
    if operation in NUMBERS:
        return values
    if pinned:
        PINNED.add(values)
    if crosses and not here and kwargs.get("non_blocking"):
        LATE.begin(values, values)
    if not here:
        return values
    result = tree_map(lambda x: OnGpu(x) if isinstance(x, Tensor) else x, values)
    if device is not None or not any_here:
        return result
    return return_and_correct_aliasing(operation, args, kwargs, result)


def _copy(target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    crosses = isinstance(target, OnGpu) != isinstance(source, OnGpu)
    _may_wait(ops.copy_.default, (target, source), crosses and not non_blocking)
    if crosses and non_blocking and target in PINNED:
        LATE.begin(target, _values(source))
    else:
        _values(target).copy_(_values(source))
    return target


def _values(x: Any) -> Any:
    return x.values if isinstance(x, OnGpu) else x


def _refuse_to_mix(operation: Any, tensors: list[Tensor]) -> None:
    if operation in INDEXING:
        return
    for x in tensors:
        if not isinstance(x, OnGpu) and x.dim() > 0:
            raise RuntimeError(f"Expected all tensors to be on the same device: {operation}")


def _may_wait(operation: Any, args: Sequence[Any], waits: bool) -> None:
    """Where the host waits for the GPU: what was under way is done, or that is an error."""
    if operation in (*NUMBERS, *SHAPES_BY_VALUE):
        waits |= isinstance(args[0], OnGpu)
    if operation in INDEXING and isinstance(args[0], OnGpu):
        waits |= any(isinstance(i, Tensor) and i.dtype == torch.bool for i in args[1])
    if not waits:
        return
    if LATE.forbid_waiting:
        raise RuntimeError(f"called a synchronizing CUDA operation: {operation}")
    LATE.finish()


def install() -> None:
    """In all threads, for good. torch.inference_mode becomes no_grad: its tensors cannot be
    wrapped."""
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    make, seed = torch.tensor, torch.Generator

    def tensor(
        data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
    ) -> Tensor:
        made = make(data, dtype=dtype)
        return (made if device is None else made.to(device)).requires_grad_(requires_grad)

    def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
        made = data if isinstance(data, Tensor) else make(data, dtype=dtype)
        return made.to(device=device or made.device, dtype=dtype or made.dtype)

    def new_tensor(self: Tensor, data: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
        return tensor(data, dtype=dtype or self.dtype, device=device or self.device)

    def inference_mode(mode: bool = True) -> AbstractContextManager[Any]:
        return torch.no_grad() if mode else nullcontext()

    class AnyGenerator(seed):  # type: ignore[misc, valid-type]
        def __new__(cls, device: Any = None) -> Any:
            return seed.__new__(seed)

    torch.tensor, torch.as_tensor, torch.Generator = tensor, as_tensor, AnyGenerator
    torch.Tensor.new_tensor = new_tensor
    torch.inference_mode = inference_mode
    run = threading.Thread.run

    def run_in_mode(self: threading.Thread) -> None:
        with GpuMode():
            run(self)

    threading.Thread.run = run_in_mode
    GpuMode().__enter__()
