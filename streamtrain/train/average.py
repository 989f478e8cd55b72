"""An exponential average of the weights, which is judged in place of the last ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Average:
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
