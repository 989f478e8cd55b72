"""The optimiser, its learning rate, the average of the weights, and torch.compile of a network.

The exponential average of the weights is evaluated in place of the last ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from streamtrain.machine.files import one_line
from streamtrain.networks.layers import Output
from streamtrain.train.settings import ExtensionConfig, TrainConfig, default_warmup

DEFAULT_MOMENTUM = 0.9
_OF_ADAM = {"step", "exp_avg", "exp_avg_sq"}
_OF_MUON = {"momentum_buffer"}


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon for some matrices, AdamW for all other weights, as one optimiser.

    Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) moves a matrix in all
    directions of its gradient alike, here by as much as AdamW would move its elements (Liu et al.
    2025, arXiv:2502.16982), so that one learning rate is that of both.

    matrices: of hidden layers; groups: of all other weights, as of an optimiser. A step that
    `found_inf` flags changes nothing, as of a fused optimiser.
    """

    _step_supports_amp_scaling = True

    def __init__(
        self, matrices: list[Tensor], groups: list[dict[str, Any]], lr: float, weight_decay: float
    ) -> None:
        self._muon = torch.optim.Muon(
            matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
        )
        self._adamw = torch.optim.AdamW(groups, lr=lr, fused=True)
        super().__init__([*self._muon.param_groups, *self._adamw.param_groups], {})
        self._share()

    def _share(self) -> None:
        self._muon.state = self._adamw.state = self.state
        self._muon.param_groups, self._adamw.param_groups = (
            self.param_groups[:1],
            self.param_groups[1:],
        )

    @property
    def matrices(self) -> list[Tensor]:
        """What Muon moves."""
        matrices: list[Tensor] = self.param_groups[0]["params"]
        return matrices

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        super().load_state_dict(state_dict)
        self._share()

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update all weights from their gradients."""
        found = self._adamw.found_inf = getattr(self, "found_inf", None)  # type: ignore[attr-defined]
        self._adamw.step()
        if found is None:
            self._muon.step()
            return
        moved = [*self.matrices, *(self.state[p]["momentum_buffer"] for p in self.matrices)]
        before = [values.clone() for values in moved]
        self._muon.step()
        for values, old in zip(moved, before, strict=True):
            values.copy_(torch.where(found > 0, old, values))


def refuse_missing_muon(train: TrainConfig) -> None:
    """Raise ValueError where Muon is asked of a torch that has none."""
    if train.optimiser == "muon" and not hasattr(torch.optim, "Muon"):
        raise ValueError(
            f"train.optimiser = muon needs torch 2.9 or newer, this is {torch.__version__}: "
            "adamw needs no more"
        )


def build_optimiser(network: nn.Module, train: TrainConfig) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2017, arXiv:1711.05101), Adam (Kingma & Ba 2014, arXiv:1412.6980),
    stochastic gradient descent with momentum, or Muon for hidden dense layers beside AdamW; tensors
    of two or more dimensions decay, which are the weights and what heads have of every bin or
    model, and vectors, such as biases, do not.

    Raises ValueError where Muon has nothing to do, and for a torch that has none.
    """
    refuse_missing_muon(train)
    hidden = _hidden(network) if train.optimiser == "muon" else []
    weights = [p for p in network.parameters() if p.ndim > 1 and not _among(p, hidden)]
    biases = [p for p in network.parameters() if p.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": train.weight_decay},
        {"params": biases, "weight_decay": 0.0},
    ]
    if train.optimiser == "sgd":
        momentum = DEFAULT_MOMENTUM if train.momentum is None else train.momentum
        return torch.optim.SGD(
            groups, lr=train.learning_rate, momentum=momentum, nesterov=train.nesterov, fused=True
        )
    if train.optimiser == "muon":
        return MuonWithAdamW(hidden, groups, train.learning_rate, train.weight_decay)
    adam = torch.optim.AdamW if train.optimiser == "adamw" else torch.optim.Adam
    return adam(groups, lr=train.learning_rate, fused=True)


def _hidden(network: nn.Module) -> list[Tensor]:
    """Weights of the dense layers before the last one."""
    body = getattr(network, "body", network)
    found: list[Tensor] = [
        layer.weight
        for layer in body.modules()
        if isinstance(layer, nn.Linear) and not isinstance(layer, Output)
    ]
    if not found:
        raise ValueError(
            "train.optimiser = muon is for dense layers before the last one, of which this network "
            "has none: adamw is for all"
        )
    return found


def _among(tensor: Tensor, others: Sequence[Tensor]) -> bool:
    return any(tensor is other for other in others)


def load_state(optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Continue from a stored state, whatever the memory layout of the weights was: a fused
    optimiser needs that of the weights in everything it keeps of them.

    Raises ValueError for a state of another optimiser or network.
    """
    settings = [{k: v for k, v in g.items() if k != "params"} for g in optimiser.param_groups]
    try:
        optimiser.load_state_dict(state)
    except Exception as error:  # of many kinds, for what is no state of an optimiser
        raise ValueError(
            f"the optimiser in the checkpoint does not fit: {type(error).__name__}: "
            f"{one_line(error)}"
        ) from None
    for group, own in zip(optimiser.param_groups, settings, strict=True):
        params = group["params"]
        group.clear()
        group.update(own, params=params)  # those of the configuration
    for weight, values in optimiser.state.items():
        wanted = _kept(optimiser, weight)
        if wanted and set(values) != wanted:
            raise ValueError(
                f"the optimiser in the checkpoint does not fit: it keeps {', '.join(values)}, not "
                f"{', '.join(sorted(wanted))}"
            )
        for name, value in values.items():
            if not isinstance(value, torch.Tensor):
                continue
            shape = torch.Size([]) if name == "step" else weight.shape
            if value.shape != shape or not value.is_floating_point():
                raise ValueError(
                    f"the optimiser in the checkpoint does not fit: {name} is {value.dtype} "
                    f"{tuple(value.shape)} for weights {tuple(weight.shape)}"
                )
            if name != "step":
                values[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)


def _kept(optimiser: torch.optim.Optimizer, weight: Tensor) -> set[str]:
    """What it keeps of a weight, by name; empty where that is its own matter."""
    if isinstance(optimiser, MuonWithAdamW) and _among(weight, optimiser.matrices):
        return _OF_MUON
    adam = torch.optim.Adam | torch.optim.AdamW | MuonWithAdamW
    return _OF_ADAM if isinstance(optimiser, adam) else set()


def learning_rate(step: int, train: TrainConfig) -> float:
    """Rate of the update after `step` updates: linear warm-up, then a cosine to zero or a constant;
    from `train.extensions` on as they say, beginning at the rate of the update before.

    A function of the step alone, so it needs no state.
    """
    return _rate(step, train, train.extensions)


def _rate(step: int, train: TrainConfig, extensions: Sequence[ExtensionConfig]) -> float:
    highest, warmup = train.learning_rate, train.warmup
    if not extensions:
        if step < warmup:
            return highest * (step + 1) / warmup
        if train.schedule == "constant":
            return highest
        return highest * _cosine(step - warmup, train.first_steps - warmup)
    *earlier, last = extensions
    begin = max(last.at, warmup)  # a warm-up is ended first
    if step < begin:
        return _rate(step, train, earlier)
    start, total = _rate(begin - 1, train, earlier), last.to_steps - begin
    if last.schedule == "constant":
        return start
    if last.schedule == "cosine":
        return start * _cosine(step - begin, total)
    climb = min(warmup or default_warmup(total), total // 2)
    if step - begin < climb:
        return start + (highest - start) * (step - begin + 1) / climb
    return highest * _cosine(step - begin - climb, total - climb)


def _cosine(step: int, steps: int) -> float:
    """From 1 to 0."""
    return 0.5 * (1.0 + math.cos(math.pi * (step / steps)))


class ExponentialMovingAverage:
    """Average of a network's parameters over its steps (Polyak & Juditsky 1992), and of the running
    moments of its batch normalisation.

    decay: of a step in the long run. The step n uses at most (1 + n) / (10 + n), so the initial
    weights are soon forgotten; a function of the step, so it needs no state.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        values = network.state_dict(keep_vars=True)
        self._names = [name for name, value in values.items() if value.is_floating_point()]
        self._weights = [values[name].detach() for name in self._names]
        self._averages = [w.clone() for w in self._weights]
        self._decay = decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Count the weights after the update number `step` (from 0)."""
        decay = min(self._decay, (1 + step) / (10 + step))
        get_ema_multi_avg_fn(decay)(self._averages, self._weights, None)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Meanwhile the network has the average as its weights."""
        own = [weight.clone() for weight in self._weights]
        self._copy(self._averages)
        try:
            yield
        finally:
            self._copy(own)

    @torch.no_grad()
    def _copy(self, values: list[Tensor]) -> None:
        torch._foreach_copy_(self._weights, values)

    def state_dict(self) -> dict[str, Tensor]:
        """The average by the names in the network's state."""
        return dict(zip(self._names, self._averages, strict=True))

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a stored average. Raises ValueError if it is of another network."""
        for name, average in zip(self._names, self._averages, strict=True):
            if name not in state or state[name].shape != average.shape:
                raise ValueError(f"the average of {name} in the checkpoint is of another network")
            average.copy_(state[name])


def compiled(network: nn.Module, wanted: bool = True) -> nn.Module:
    """The network compiled for one shape of batch, with the same parameters, if it is wanted.

    The network itself stays as it is: its state has the usual names, and it evaluates uncompiled.
    """
    if not wanted:
        return network
    model = torch.compile(network, dynamic=False)
    assert isinstance(model, nn.Module)
    return model
