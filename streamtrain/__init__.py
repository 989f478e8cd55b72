"""Training data for line-intensity mapping, generated on the fly.

The public names; see the README for what they do.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from streamtrain._version import __version__

if TYPE_CHECKING:
    from streamtrain.catalogs.lightcone import Lightcone as Lightcone
    from streamtrain.config import Config as Config
    from streamtrain.config import load_config as load_config
    from streamtrain.evaluate.posterior.posterior import Posterior as Posterior
    from streamtrain.evaluate.run import Run as Run
    from streamtrain.generator.generator import Batch as Batch
    from streamtrain.generator.generator import Generator as Generator
    from streamtrain.generator.observe import observe as observe
    from streamtrain.generator.paint import Painter as Painter
    from streamtrain.generator.paint import paint as paint
    from streamtrain.grid import Grid as Grid
    from streamtrain.stream import SampleStream as SampleStream

_HOMES = {
    "Batch": "streamtrain.generator.generator",
    "Config": "streamtrain.config",
    "Generator": "streamtrain.generator.generator",
    "Grid": "streamtrain.grid",
    "Lightcone": "streamtrain.catalogs.lightcone",
    "Painter": "streamtrain.generator.paint",
    "Posterior": "streamtrain.evaluate.posterior.posterior",
    "Run": "streamtrain.evaluate.run",
    "SampleStream": "streamtrain.stream",
    "load_config": "streamtrain.config",
    "observe": "streamtrain.generator.observe",
    "paint": "streamtrain.generator.paint",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import streamtrain` is instant."""
    if name not in _HOMES:
        raise AttributeError(f"module 'streamtrain' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names alone."""
    return sorted(__all__)
