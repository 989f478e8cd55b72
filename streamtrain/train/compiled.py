"""torch.compile of a network for its training steps."""

from __future__ import annotations

import torch
from torch import nn


def compiled(network: nn.Module, wanted: bool = True) -> nn.Module:
    """The network compiled for one shape of batch, with the same parameters, if it is wanted.

    The network itself stays as it is: its state has the usual names, and it evaluates uncompiled.
    """
    if not wanted:
        return network
    model = torch.compile(network, dynamic=False)
    assert isinstance(model, nn.Module)
    return model
