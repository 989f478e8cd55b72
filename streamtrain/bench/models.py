"""What the luminosity models, and what is done to a map, cost beside painting alone."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from streamtrain.bench.timing import ONE_THREAD, in_turn
from streamtrain.config import Config
from streamtrain.generator.generator import Generator
from streamtrain.luminosity.lost_light import LostLightWarning
from streamtrain.luminosity.registry import MODELS
from streamtrain.luminosity.settings import LineConfig
from streamtrain.schema import ModelRangeWarning

REFERENCE = "breysse15"
"""The relation that the others are compared with: L = A M^b of a share of the halos."""
ONE_OF_MANY = ("kamenetzky16_co", "silva15_m")
"""Models that differ in numbers alone: the first stands for all."""


def model_costs(config: Config, seconds: float) -> dict[str, float]:
    """Milliseconds to paint a sample with each model, all in turn, on one CPU thread.

    A model of one line gets the band in which that line has the redshifts of the configuration's.
    """
    names = [
        name
        for name in MODELS
        if not any(name.startswith(stem) and name != f"{stem}1" for stem in ONE_OF_MANY)
    ]
    ways = {name: _painter(config, name) for name in [REFERENCE, *names]}
    return {name: 1e3 * s for name, s in in_turn(ways, seconds, clock=ONE_THREAD).items()}


def operator_cost(config: Config, seconds: float) -> dict[str, float]:
    """Milliseconds per sample on one CPU thread: painting alone, and with the configuration's
    modifiers and operators."""
    plain = replace(config, observe=leading_pool(config), emit={"line": config.line})
    ways = {
        name: _generate(Generator(some, "train", "cpu", 1))
        for name, some in (("paint_ms", plain), ("all_ms", config))
    }
    found = {name: 1e3 * s / 4 for name, s in in_turn(ways, seconds, clock=ONE_THREAD).items()}
    return {**found, "ratio": found["all_ms"] / found["paint_ms"]}


def leading_pool(config: Config) -> dict[str, Any]:
    """The section of the pool at the head of the operators, if there is one: it is a part of
    painting."""
    pooled = config.observation.leading_pool is not None
    return dict(list(config.observe.items())[:pooled])


def _painter(config: Config, name: str) -> Callable[[], Any]:
    grid, own = config.grid, MODELS[name].nu_rest_GHz
    if own is not None:
        stretch = own / grid.nu_rest_GHz
        high, low = (nu * stretch for nu in grid.nu_GHz)
        grid = replace(grid, nu_rest_GHz=own, nu_GHz=(high, low))
    some = replace(config, grid=grid, observe={}, emit={"line": LineConfig(model=name)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ModelRangeWarning)
        warnings.simplefilter("ignore", LostLightWarning)
        generator = Generator(some, "train", "cpu", 1)
    arguments = generator.draw(range(4)).arguments
    return lambda: generator.painter.paint(arguments, 0, 1)


def _generate(generator: Generator) -> Callable[[], Any]:
    numbers = iter(range(0, 10**9, 4))
    return lambda: generator.generate(range(start := next(numbers), start + 4))
