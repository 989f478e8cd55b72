"""What the luminosity models, what is done to a map, and wide lightcones cost beside painting."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.bench.timing import ONE_THREAD, in_turn
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.rows import sky_angles_deg
from streamtrain.config import Config
from streamtrain.generator.generator import Generator
from streamtrain.generator.halos import Bank
from streamtrain.generator.painter import LinePainter
from streamtrain.generator.pose import Pose, check_fits, draw_poses, single_pose
from streamtrain.luminosity.lost_light import LostLightWarning
from streamtrain.luminosity.registry import MODELS
from streamtrain.luminosity.settings import LineConfig
from streamtrain.numerics.rng import STAGE_PAINT, STAGE_POSE, Draws
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


FIELDS = 6
"""Fields of any centre and roll, besides one that is not rolled and one rolled by 30 deg."""


def cut_costs(config: Config, wide: Lightcone, seconds: float) -> list[dict[str, Any]]:
    """One field of the configuration's grid after the other, on one CPU thread: milliseconds out
    of the wide lightcone and out of one that holds the field's halos alone, and what the tiles
    read beside what the field holds.

    Raises ValueError if the field does not fit into the lightcone.
    """
    grid = config.grid
    check_fits(wide.footprint_deg, grid.fov_deg, "any", wide.name)
    draws = Draws(config.seed, "train", np.arange(FIELDS, dtype=np.uint64), STAGE_POSE)
    footprints = np.array([wide.footprint_deg] * FIELDS)
    drawn = draw_poses(draws, footprints, grid.fov_deg, "any", False)
    poses = [single_pose(), single_pose(roll_deg=30.0)]
    for centre, roll in zip(drawn.centre_deg, drawn.roll_deg, strict=True):
        poses.append(single_pose(tuple(centre), float(roll)))
    painter = _line_painter(config, wide)
    return [_compare(config, painter, pose, seconds) for pose in poses]


def _line_painter(config: Config, lightcone: Lightcone) -> LinePainter:
    factors = [pool.factor for pool in leading_pool(config).values()]
    return LinePainter(
        Bank([lightcone]),
        config.grid,
        [MODELS[REFERENCE]],
        config.label.luminosity_bins,
        min_mass_Msun=config.data.min_mass_Msun,
        pooling=factors[0] if factors else (1, 1, 1),
    )


def _compare(config: Config, painter: LinePainter, pose: Pose, seconds: float) -> dict[str, Any]:
    zero = np.zeros(1, np.int64)
    rows = painter.bank.items(zero, pose, painter.grid.fov_deg)[0][:, 1:]
    read = np.concatenate([np.arange(first, first + num) for first, num in rows])
    [wide] = painter.bank.lightcones
    alone = _line_painter(config, _field_alone(wide, read, pose, painter.grid.fov_deg))
    parameters = {k: np.array([v]) for k, v in MODELS[REFERENCE].parameters({}).items()}
    draws = Draws(config.seed, "train", np.zeros(1, np.uint64), STAGE_PAINT)

    def paint(who: LinePainter, at: Pose) -> int:
        arguments = who.arguments(zero, at, zero, [parameters], draws=draws)
        return int(who.paint(arguments, 0, 1)[1].sum())

    ways = {"wide": lambda: paint(painter, pose), "alone": lambda: paint(alone, single_pose())}
    painted = {name: way() for name, way in ways.items()}
    assert abs(painted["wide"] - painted["alone"]) <= 1e-5 * painted["wide"], painted
    seconds_of = in_turn(ways, seconds, clock=ONE_THREAD)
    return {
        "roll_deg": float(pose.roll_deg[0]),
        "wide_ms": 1e3 * seconds_of["wide"],
        "alone_ms": 1e3 * seconds_of["alone"],
        "ratio": seconds_of["wide"] / seconds_of["alone"],
        "rows_read": len(read) / len(alone.bank.lightcones[0]),
    }


def _field_alone(
    wide: Lightcone, rows: NDArray[np.int64], pose: Pose, fov_deg: tuple[float, float]
) -> Lightcone:
    """The halos of a field, turned so that its centre lies at (0, 0)."""
    position = np.stack([wide.x_Mpc[rows], wide.y_Mpc[rows], wide.z_Mpc[rows]]).astype(np.float64)
    turned = pose.matrix[0] @ position
    angles = sky_angles_deg(*turned)
    half = [side / 2.0 for side in fov_deg]
    inside = (np.abs(angles[0]) <= half[0]) & (np.abs(angles[1]) <= half[1])
    x, y, z = turned[:, inside]
    return Lightcone.from_arrays(
        x,
        y,
        z,
        wide.mass_Msun[rows][inside],
        wide.z_obs[rows][inside],
        cosmology=wide.cosmology,
        footprint_deg=(-half[0], half[0], -half[1], half[1]),
    )
