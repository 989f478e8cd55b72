"""The mean of the summaries as a function of the parameters, learnt from simulations.

A network that minimises the squared error over simulated pairs learns the conditional mean; what
scatters from field to field, and the noise, average out. So simulations at parameters drawn from
the prior, one field each, serve as well as averages over many fields at a few parameters.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Float = NDArray[np.float64]

HELD_OUT = 0.1
"""Share of the simulations that decide which state of the training is the best."""
CHECK_EVERY = 50
FEWEST_SIMULATIONS = 100


class Emulator:
    """Means [num, n] of vectors as a smooth function of inputs [num, num_inputs].

    It is a straight line plus two layers of tanh; inputs and outputs are scaled by the moments of
    the simulations. inputs, vectors: of the simulations, at least
    `FEWEST_SIMULATIONS`. The simulations are given
    equal weight, so what is learnt is best where the prior is. report: called with (steps, all).
    """

    def __init__(
        self,
        inputs: Float,
        vectors: Float,
        *,
        width: int = 64,
        steps: int = 1500,
        seed: int = 0,
        report: Callable[[int, int], None] = lambda step, steps: None,
    ) -> None:
        if len(inputs) < FEWEST_SIMULATIONS:
            raise ValueError(
                f"{len(inputs)} simulations are too few for an emulator: take {FEWEST_SIMULATIONS}"
            )
        self._centre, self._scale = _moments(inputs)
        self._mean, self._std = _moments(vectors)
        x, y = (inputs - self._centre) / self._scale, (vectors - self._mean) / self._std
        held = max(1, round(HELD_OUT * len(x)))
        straight = np.concatenate([np.ones((len(x), 1)), x], axis=1)
        self._line = np.linalg.lstsq(straight[held:], y[held:], rcond=None)[0]
        rest = y - straight @ self._line
        self._layers = _fit(x, rest, held, width, steps, seed, report)
        left = rest[:held] - self._curve(x[:held])
        self.unexplained = np.mean(left**2, axis=0)
        """Share of the variance of each number over the prior that the parameters do not explain,
        over simulations that were held out [n]."""

    def __call__(self, inputs: Float) -> Float:
        """Mean vectors [num, n] at inputs [num, num_inputs]."""
        x = (inputs - self._centre) / self._scale
        y = self._line[0] + x @ self._line[1:] + self._curve(x)
        return np.asarray(self._mean + self._std * y)

    def _curve(self, x: Float) -> Float:
        *hidden, (weight, bias) = self._layers
        for inner, offset in hidden:
            x = np.tanh(x @ inner + offset)
        return np.asarray(x @ weight + bias)


def _moments(values: Float) -> tuple[Float, Float]:
    std = values.std(axis=0)
    return values.mean(axis=0), np.where(std > 0.0, std, 1.0)


def _fit(
    x: Float,
    y: Float,
    held: int,
    width: int,
    steps: int,
    seed: int,
    report: Callable[[int, int], None],
) -> list[tuple[Float, Float]]:
    """Weights [in, out] and biases of the layers that did best on the first `held` simulations;
    all zero at first, where the straight line is all there is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Linear(x.shape[1], width), nn.Linear(width, width)]
        layers.append(nn.Linear(width, y.shape[1]))
    nn.init.zeros_(layers[-1].weight)
    nn.init.zeros_(layers[-1].bias)
    network = nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])
    tensors = [torch.from_numpy(a).float() for a in (x, y)]
    (x_held, x_fit), (y_held, y_fit) = ((t[:held], t[held:]) for t in tensors)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    best, kept = float("inf"), {k: v.clone() for k, v in network.state_dict().items()}
    with torch.enable_grad():
        for step in range(steps + 1):
            if step % CHECK_EVERY == 0:
                with torch.no_grad():
                    error = float((network(x_held) - y_held).square().mean())
                if error < best:
                    best, kept = error, {k: v.clone() for k, v in network.state_dict().items()}
                report(step, steps)
            loss = (network(x_fit) - y_fit).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    network.load_state_dict(kept)
    return [
        (layer.weight.detach().double().numpy().T, layer.bias.detach().double().numpy())
        for layer in layers
    ]
