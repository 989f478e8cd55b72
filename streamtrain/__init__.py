"""Training data for line-intensity mapping, generated on the fly.

Maps of a lightcone
    Lightcone       halos seen by one observer, from a file or from arrays
    Grid            voxels of a cube in frequency and on the sky
    paint           one map of a lightcone by a luminosity model, with its halos per luminosity bin
    Painter         the same for many maps
    Painted         what both return
    write_fits      a cube as a FITS file with coordinates

Samples of a configuration
    load_config     a configuration from a file, a run or a mapping, with changes
    Config          a configuration
    Generator       samples as a function of their index
    Batch           samples
    SampleStream    batches without end, for a loop of your own
    observe         beam, noise, masks and filters on a cube that exists

Trained networks
    train           train the network of a configuration
    evaluate        scores of a network on maps that it has not seen
    Evaluation      what `evaluate` returns
    Run             a trained network, from its folder
    Posterior       what a network says of a map

From a configuration to a posterior:

    run = streamtrain.train("configs/comap.yaml", run="runs/mine")
    print(streamtrain.evaluate(run))
    posterior = run.infer("map.fits")

Every name has an example in its help. The pages of docs/ say what can be chosen.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from streamtrain._version import __version__

if TYPE_CHECKING:
    from streamtrain.api import train as train
    from streamtrain.catalogs.lightcone import Lightcone as Lightcone
    from streamtrain.config import Config as Config
    from streamtrain.config import load_config as load_config
    from streamtrain.evaluate.evaluation import evaluate as evaluate
    from streamtrain.evaluate.posterior.posterior import Posterior as Posterior
    from streamtrain.evaluate.result import Evaluation as Evaluation
    from streamtrain.evaluate.run import Run as Run
    from streamtrain.generator.batch import Batch as Batch
    from streamtrain.generator.generator import Generator as Generator
    from streamtrain.generator.observe import observe as observe
    from streamtrain.generator.paint import Painted as Painted
    from streamtrain.generator.paint import Painter as Painter
    from streamtrain.generator.paint import paint as paint
    from streamtrain.grid import Grid as Grid
    from streamtrain.maps.write import write_fits as write_fits
    from streamtrain.stream import SampleStream as SampleStream

_HOMES = {
    "Batch": "streamtrain.generator.batch",
    "Config": "streamtrain.config",
    "Evaluation": "streamtrain.evaluate.result",
    "Generator": "streamtrain.generator.generator",
    "Grid": "streamtrain.grid",
    "Lightcone": "streamtrain.catalogs.lightcone",
    "Painted": "streamtrain.generator.paint",
    "Painter": "streamtrain.generator.paint",
    "Posterior": "streamtrain.evaluate.posterior.posterior",
    "Run": "streamtrain.evaluate.run",
    "SampleStream": "streamtrain.stream",
    "evaluate": "streamtrain.evaluate.evaluation",
    "load_config": "streamtrain.config",
    "observe": "streamtrain.generator.observe",
    "paint": "streamtrain.generator.paint",
    "train": "streamtrain.api",
    "write_fits": "streamtrain.maps.write",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import streamtrain` is instant."""
    if name not in _HOMES:
        raise AttributeError(f"module 'streamtrain' has no attribute '{name}'")
    found = getattr(import_module(_HOMES[name]), name)
    return globals().get(name, found)  # a room's, if that was imported with it


def __dir__() -> list[str]:
    """The public names alone."""
    return sorted(__all__)


class _Function:
    """A public function whose name is also that of a room: the function where it is called and
    documented, else the room, whose modules are found in it."""

    def __init__(self, room: ModuleType) -> None:
        self.__dict__["_room"] = room

    def __call__(self, *values: Any, **options: Any) -> Any:
        return self.__wrapped__(*values, **options)

    @property
    def __wrapped__(self) -> Any:
        """Where signatures are looked up."""
        name = self._room.__name__.rpartition(".")[2]
        return getattr(import_module(_HOMES[name]), name)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """A function, for `help` and `inspect`."""
        return FunctionType

    @property
    def __name__(self) -> str:
        return str(self.__wrapped__.__name__)

    @property
    def __module__(self) -> str:  # type: ignore[override]
        return str(self.__wrapped__.__module__)

    @property
    def __doc__(self) -> str:  # type: ignore[override]
        return str(self.__wrapped__.__doc__)

    def __repr__(self) -> str:
        return f"<function streamtrain.{self.__name__}>"

    def __getattr__(self, name: str) -> Any:
        of_room = not name.startswith("__") or hasattr(self._room, name)
        return getattr(self._room if of_room else self.__wrapped__, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._room, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._room, name)


class _Package(ModuleType):
    """This package: its rooms `train` and `evaluate` are its functions of that name, too."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _HOMES and isinstance(value, ModuleType):
            value = _Function(value)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
