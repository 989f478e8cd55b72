"""The networks, and what they answer."""

from __future__ import annotations

from streamtrain.models.heads import Head
from streamtrain.models.network import Network, build_network, describe

__all__ = ["Head", "Network", "build_network", "describe"]
