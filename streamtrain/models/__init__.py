"""The networks, and the loss of what they predict."""

from __future__ import annotations

from streamtrain.config import NetworkConfig
from streamtrain.models.cnn import CNN2d
from streamtrain.models.loss import label_loss

__all__ = ["CNN2d", "build_network", "label_loss"]


def build_network(
    config: NetworkConfig, input_shape: tuple[int, int, int], num_outputs: int
) -> CNN2d:
    """The network of a configuration for cubes of (n_freq, n_dec, n_ra) and labels of so many
    numbers."""
    return CNN2d(config, input_shape, num_outputs)
