"""Labels and networks for tests of `streamtrain.networks`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from streamtrain.config import from_mapping
from streamtrain.generator.generator import Batch
from streamtrain.labels import Label
from streamtrain.networks.heads import Head
from streamtrain.networks.network import Network, build_head, build_network
from streamtrain.operators.plan import InputMap
from streamtrain.spectra import Box

VOLUME_MPC3 = 2e6
REFUSED = {"cumsum", "scatter_add", "scatter_reduce", "bincount", "histc", "kthvalue", "put_"}
"""Operations that torch 2.6 refuses on a GPU where algorithms have to be deterministic."""


class Operations(TorchDispatchMode):
    """Names of the operations that are made meanwhile, of gradients too."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def label_of(bins: int = 5, **settings: Any) -> Label:
    """Of a configuration's section `label`, in a field of 2e6 Mpc^3."""
    section = from_mapping({"label": {"bins": bins, **settings}}).label
    return Label(section, [VOLUME_MPC3], ["faint", "bright", "odd"])


def network_of(shape: tuple[int, int, int], label: Label | None = None, **settings: Any) -> Network:
    """Of a configuration's section `network`, for maps of voxels of 10 x 2 x 2 Mpc."""
    label = label or label_of()
    section = {"quantity": label.config.quantity, "scale": label.config.scale}
    config = from_mapping({"network": settings, "label": section})
    input_map = InputMap(Box(shape, (10.0, 2.0, 2.0)), (), "uK")
    return build_network(config.network, shape, label, input_map)


def network_for(generator: Any, seed: int = 0) -> Network:
    """Of a generator's configuration, for its maps and labels; seed: of the weights."""
    config = generator.config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_network(
            config.network, generator.input_shape, generator.label, config.observation.input_map
        )


def mean_network(generator: Any, number: int) -> tuple[Network, Batch]:
    """One that predicts the mean label of the first samples, whatever the map, and these."""
    network, batch = network_for(generator), generator.generate(range(number))
    zeros = torch.zeros_like(network.input_mean)
    unit_label = batch.unit_label.expand(number, -1)
    network.set_normalisation(zeros, zeros + 1.0, batch.label, batch.counts, unit_label)
    return network, batch


def head_of_counts(name: str, bins: int, ln_mean: float, **label: Any) -> Head:
    """One that was normalised with 200 maps of correlated counts."""
    made = label_of(bins, **label)
    head = build_head(name, made)
    rates = torch.exp(torch.linspace(ln_mean + 1, ln_mean - 1, bins) + torch.randn(200, 1))
    counts = torch.poisson(rates).int()
    unit_label = made.unit_label(np.zeros(200, np.int64)).expand(200, -1)
    head.set_normalisation(labels_from(made, counts), counts, unit_label)
    return head


def check_draws(head: Head, size: int, number: int) -> Tensor:
    """What a head of three bins draws has the probabilities that it states for counts below `size`,
    and these add up to one; the draws [number, 3]."""
    answer = 0.5 * torch.randn(1, head.num_numbers)
    axis = torch.arange(size, dtype=torch.float64)
    table = torch.cartesian_prod(axis, axis, axis)
    with torch.no_grad():
        chance = head.log_prob(answer, table[:, None]).exp()[:, 0]
    drawn = head.sample(answer, number, torch.Generator().manual_seed(2))[:, 0]
    inside = (drawn < size).all(1)
    assert chance.sum().item() == pytest.approx(inside.double().mean().item(), abs=3e-3)
    place = (drawn[inside] @ torch.tensor([size**2, size, 1.0], dtype=torch.float64)).long()
    found = torch.bincount(place, minlength=size**3).double()
    often = chance * number > 25
    assert often.sum() > 300
    pull = (found - number * chance)[often] / (number * chance)[often].sqrt()
    assert pull.square().mean().item() == pytest.approx(1.0, abs=6 * (2 / len(pull)) ** 0.5)
    return drawn


def labels_from(label: Label, counts: Tensor) -> Tensor:
    """What `Label.make` makes of counts [B, num_bins], stated on its own."""
    values = counts.double()
    if label.config.quantity == "cumulative":
        values = values.flip(1).cumsum(1).flip(1)
    one = torch.from_numpy(label.unit)
    if label.form == "linear":
        return (values * one).float()
    return (values.clamp(min=1.0).log10() + one.log10()).float()
