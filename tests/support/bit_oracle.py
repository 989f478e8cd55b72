"""The kernels' arithmetic once more, in NumPy: the bits that every device must reproduce.

Each function does, one IEEE operation after the other, what its namesake in kernels/ does, on
whole arrays and without its text. float32 and float64 are never mixed by accident: every constant
has a type. A sample is made from all halos of its lightcone, so choosing tiles is tested with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.catalogs import sfr
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.generator.generator import Batch, Generator
from streamtrain.generator.halos import line_columns
from streamtrain.generator.line import EmissionLine
from streamtrain.generator.pose import single_pose
from streamtrain.numerics import portable
from streamtrain.numerics.rng import Draws
from streamtrain.operators.beam import BeamConfig
from streamtrain.operators.correlated import CorrelatedNoiseConfig
from streamtrain.operators.filters import (
    HighPassConfig,
    PCAConfig,
    StandardiseConfig,
    SubtractMeanConfig,
)
from streamtrain.operators.mask import MaskConfig
from streamtrain.operators.noise import EdgeNoiseConfig, NoiseConfig
from streamtrain.operators.pool import PoolConfig
from streamtrain.operators.response import ChannelResponseConfig
from streamtrain.operators.sources import RadioSourcesConfig
from streamtrain.operators.transfer import TransferFunctionConfig
from streamtrain.operators.transforms import AsinhConfig, Log10Config, LogModulusConfig
from support import reference as ref
from support.bit_operators import (
    asinh,
    beam,
    channel_response,
    high_pass,
    label,
    log10,
    log_modulus,
    mask,
    pixel_noise,
    pool,
    radio_sources,
    standardise,
    subtract_mean,
    transfer_function,
    unit_label,
    white_noise,
)
from support.bit_portable import (
    ASIN_SERIES,
    ATAN_SERIES,
    F,
    Float32,
    exp2,
    log2,
    normal_pair,
    philox,
    polynomial,
    split_seed,
    unit_interval,
)
from support.bit_survey import correlated_noise, pca

# paint.cu


def place_halo(
    x: Float32,
    y: Float32,
    z: Float32,
    rotation: NDArray[np.float64],
    fov_deg: tuple[float, float],
    fine: tuple[int, int],
    pooling: tuple[int, int],
) -> tuple[NDArray[np.int64], Float32]:
    """Voxel in the frame n_dec x n_ra (or -1) and chi^2; fine and pooling are (dec, ra)."""
    x, y, z = (a.astype(np.float64) for a in (x, y, z))
    u, v, w = (row[0] * x + row[1] * y + row[2] * z for row in rotation)
    chi2 = x * x + y * y + z * z
    chi = np.sqrt(chi2)
    inverse = 1.0 / (w * chi)
    tangent, sine = -(u * chi) * inverse, (v * w) * inverse
    t, s = tangent * tangent, sine * sine
    ra, dec = tangent * polynomial(ATAN_SERIES, t), sine * polynomial(ASIN_SERIES, s)
    half_ra, half_dec = (np.pi / 360.0 * side for side in fov_deg)
    inside = (w > 0) & (t < 0.04) & (s < 0.04) & (np.abs(ra) <= half_ra) & (np.abs(dec) <= half_dec)
    ra, dec = np.where(inside, ra, 0.0), np.where(inside, dec, 0.0)
    row = ((dec + half_dec) * (fine[0] / (2.0 * half_dec))).astype(np.int64)
    column = ((ra + half_ra) * (fine[1] / (2.0 * half_ra))).astype(np.int64)
    row = np.minimum(row, fine[0] - 1) // pooling[0]
    column = np.minimum(column, fine[1] - 1) // pooling[1]
    return np.where(inside, row * (fine[1] // pooling[1]) + column, -1), chi2.astype(F)


def deposit(
    log2_l: Float32,
    log2_1pz: Float32,
    chi_squared: Float32,
    factor: float,
    power: float,
    scale: float,
    largest: float,
) -> NDArray[np.int64]:
    luminosity = exp2(log2_l + F(power) * log2_1pz)
    q = (luminosity * F(factor) / chi_squared).astype(np.float64) * scale
    return np.rint(np.where(q < largest, q, largest)).astype(np.int64)


def in_turn(even: Float32, odd: Float32) -> Float32:
    """What neighbours share, given to each."""
    return np.stack([even, odd], axis=-1).reshape(-1)


def normal_cdf(x: Float32) -> Float32:
    size = F(0.70710678118654752) * np.abs(x)
    t = F(1) / (F(1) + F(0.3275911) * size)
    p = np.full_like(t, F(1.061405429))
    for c in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        p = p * t + F(c)
    tail = F(0.5) * (p * t * exp2(F(-1.4426950408889634) * (size * size)))
    return np.where(x < 0, tail, F(1) - tail)


def spread(
    total: NDArray[np.int64],
    quanta: NDArray[np.int64],
    frame: NDArray[np.int64],
    columns: list[Float32],
    inclination: Float32 | None,
    painted: NDArray[np.bool_],
) -> None:
    """Add halos [n] with lines of some width to a cube [channels, frame]."""
    centre, sigma = columns[0], exp2(columns[1])
    if inclination is not None:
        sigma = sigma * (F(1.1547005383792515) * np.sqrt(F(1) - inclination * inclination))
    sigma = np.maximum(sigma, F(1e-6))
    first = np.floor(np.clip(centre - F(4) * sigma, F(-1e4), F(1e4))).astype(np.int64)
    last = np.floor(np.clip(centre + F(4) * sigma, F(-1e4), F(1e4))).astype(np.int64)
    inverse = F(1) / sigma

    def share(channel: int) -> Float32:
        inside = normal_cdf((F(channel) - centre) * inverse)
        return np.where(channel <= first, F(0), np.where(channel > last, F(1), inside))

    for channel in range(len(total)):
        reached = painted & (first <= channel) & (channel <= last)
        part = (share(channel + 1) - share(channel))[reached].astype(np.float64)
        np.add.at(
            total[channel],
            frame[reached],
            np.rint(quanta[reached].astype(np.float64) * part).astype(np.int64),
        )


def luminosity_bin(log2_l: Float32, low: float, high: float, num: int) -> NDArray[np.int64]:
    """0..num-1, num above the last edge, num + 1 below the first."""
    position = (log2_l - F(low)) * F(num / (high - low))
    inside = (log2_l >= F(low)) & (log2_l <= F(high))
    number = np.minimum(np.where(inside, position, F(0)).astype(np.int64), num - 1)
    return np.where(log2_l >= F(low), np.where(log2_l > F(high), num, number), num + 1)


def unequal_bin(log2_l: Float32, edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """The same between any edges, log10(L/Lsun) [num + 1], compared as log2 in float32."""
    low_to_high = (edges * portable.LOG2_10).astype(F)
    num = len(edges) - 1
    number = np.searchsorted(low_to_high, log2_l, side="right").astype(np.int64) - 1
    number = np.where(number < 0, num + 1, number)
    return np.where(log2_l == low_to_high[-1], num - 1, number)


def model(
    source: str,
    log2_mass: Float32,
    log2_1pz: Float32,
    columns: list[Float32],
    u: Float32,
    name: str = "model_log2_luminosity",
) -> Float32:
    """Run a function of the printed straight-line code of a traced model, one float32 operation at
    a time; first the functions whose values become columns."""
    columns = list(columns)
    arguments = log2_mass, log2_1pz, columns, u
    source = source.replace("(NUM_INPUTS", f"({len(columns)}")
    bodies = dict(re.findall(r"INLINE float (\w+)\((.*?)\n}\n", source, re.DOTALL))
    for number in range(sum(name.startswith("static_") for name in bodies)):
        columns.append(_function(bodies[f"static_{number}"], *arguments))
    return _function(bodies[name], *arguments)


def _function(
    body: str, log2_mass: Float32, log2_1pz: Float32, columns: list[Float32], u: Float32
) -> Float32:
    names: dict[str, Any] = {
        "log2_mass": log2_mass,
        "log2_1pz": log2_1pz,
        "columns": columns,
        "u": u,
        "F": F,
        "where": np.where,
        "portable_exp2": exp2,
        "portable_log2": log2,
        "square_root": np.sqrt,
    }
    with np.errstate(all="ignore"):
        for name, expression in re.findall(r"const float (t\d+) = (.*);", body):
            names[name] = eval(_to_python(expression), names)
        result = eval(_to_python(re.findall(r"return (.*);", body)[0]), names)
    return np.broadcast_to(result, log2_mass.shape).astype(F)


def _to_python(expression: str) -> str:
    expression = re.sub(r"\b(\d+\.?\d*(?:e[+-]?\d+)?)f\b", r"F(\1)", expression)
    expression = re.sub(r"columns\[(\S+|\(.*?\)) \* stride\]", r"columns[\1]", expression)
    choice = re.fullmatch(r"(.*) \? (.*) : (.*)", expression)
    return "where({}, {}, {})".format(*choice.groups()) if choice else expression


# A whole sample.


def fixed_point(
    generator: Generator, line: EmissionLine, index: int, draws: Mapping[str, Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Fine cube in fixed point and counts [bins + 2] of a sample in one line; `draws` is its
    record."""
    config, grid, bins = generator.config, line.grid, generator.bins
    (lightcone,) = (c for c in line.lightcones if c.name == draws["lightcone"])
    split = ("train", "validation", "test").index(generator.split)
    upward = ref.bin_number(
        grid.nu_rest_GHz / (1.0 + lightcone.z_obs.astype(np.float64)),
        ref.edges(grid.fov_deg, grid.shape, grid.nu_GHz)[0][::-1],
    )
    channel = grid.shape[0] - 1 - upward
    painted = (upward >= 0) & (lightcone.mass_Msun > config.data.min_mass_Msun)
    log2_mass = portable.log2(lightcone.mass_Msun).astype(F)
    log2_1pz = portable.log2(1.0 + lightcone.z_obs.astype(np.float64)).astype(F)

    number = line.mixture.names.index(draws["model"])
    traced = line.painter.compiled_models[number].traced
    parameters = {name: np.array([value]) for name, value in draws["parameters"].items()}
    uniforms = traced.evaluate_uniforms(parameters)[0]
    columns = [_column(lightcone, *c) for c in traced.columns]
    halos = log2_mass, log2_1pz, columns, uniforms
    log2_l = model(traced.source, *halos)
    sigma, mu = 0.0, 0.0
    scatter = line.mixture.models[number].scatter
    if scatter is not None:
        sigma, mu = (a[0] for a in scatter(parameters))
    pairs = np.arange((len(lightcone) + 1) // 2)  # neighbours in the lightcone share a call
    counter = (split << 16) + line.stages.paint, index % 2**32, index >> 32
    words = philox(pairs, *counter, split_seed(generator.seed))
    normal = in_turn(*normal_pair(words[0], words[1]))[: len(lightcone)]
    log2_l = log2_l + (F(sigma / portable.LN2) * normal + F(mu / portable.LN2))
    draw = Draws(generator.seed, generator.split, np.array([index], np.uint64), 0)
    for threshold, shift in line.modifiers.draw(draw).pairs.reshape(-1, 2):
        log2_l = np.where(log2_l > threshold, log2_l + shift, log2_l)
    if "model_on_fraction" in traced.source:
        uniform = unit_interval(in_turn(words[2], words[3]))[: len(lightcone)]
        on = uniform < model(traced.source, *halos, name="model_on_fraction")
        log2_l = np.where(on, log2_l, F(-126))

    rotation = single_pose(tuple(draws["centre_deg"]), draws["roll_deg"], draws["mirror"]).matrix[0]
    frame, chi_squared = place_halo(
        lightcone.x_Mpc, lightcone.y_Mpc, lightcone.z_Mpc, rotation,
        grid.fov_deg, grid.shape[1:], (1, 1),
    )  # fmt: skip
    quanta = deposit(
        log2_l, log2_1pz, chi_squared, grid.intensity_factor, 0.0 if grid.units == "uK" else -2.0,
        2.0**generator.grid.fixed_point_exponent, min(2.0**50, np.floor(2.0**62 / len(lightcone))),
    )  # fmt: skip
    if config.label.edges is not None:
        number = unequal_bin(log2_l, np.array(config.label.edges))
    else:
        low, high = (edge * portable.LOG2_10 for edge in bins.log10_L)
        number = luminosity_bin(log2_l, low, high, bins.num)
    painted &= frame >= 0
    total = np.zeros(grid.shape, np.int64)
    width = line.modifiers.width
    if width is None:
        place = channel * (grid.shape[1] * grid.shape[2]) + frame
        np.add.at(total.reshape(-1), place[painted], quanta[painted])
    else:
        columns = line_columns(line.painter.halos, width)
        words = philox(pairs + 2**31, *counter, split_seed(generator.seed))
        angle = unit_interval(in_turn(words[0], words[1]))[: len(lightcone)]
        angle = angle if width.inclination else None
        near = (frame >= 0) & (lightcone.mass_Msun > config.data.min_mass_Msun)
        spread(total.reshape(grid.shape[0], -1), quanta, frame, columns, angle, near)
    return total, np.bincount(number[painted], minlength=bins.num + 2)


def _column(lightcone: Lightcone, name: str, form: str) -> Float32:
    if name in lightcone.columns:
        values = lightcone.columns[name].astype(np.float64)
        return (portable.log2(values) if form == "log2" else values).astype(F)
    assert name == "sfr"
    log10_sfr = sfr.log10_sfr(lightcone.mass_Msun, lightcone.z_obs)
    return (log10_sfr * portable.LOG2_10 if form == "log2" else portable.exp10(log10_sfr)).astype(F)


def sample(
    generator: Generator, batch: Batch, k: int
) -> tuple[Float32, NDArray[np.int64], Float32]:
    """cube, counts and label of sample k of a batch, from what the batch says was drawn for it.

    A pool at the head of the list adds up integers: that is how the painter does it.
    """
    index, draws = batch.indices[k], batch.draws[k]
    (lightcone,) = (c for c in generator.lightcones if c.name == draws["lightcone"])
    total, counts = fixed_point(generator, generator.line, index, draws)
    for name, line in generator.interlopers.items():
        total = total + fixed_point(generator, line, index, draws[name])[0]
    unit = 1.0 / 2.0**generator.grid.fixed_point_exponent
    operators = list(generator.config.observe.items())
    stage = 16
    if operators and isinstance(operators[0][1], PoolConfig):
        first = operators.pop(0)[1]
        (freq, dec, ra), shape = first.factor, total.shape
        blocks = total.reshape(shape[0] // freq, freq, shape[1] // dec, dec, shape[2] // ra, ra)
        total = blocks.sum(axis=(1, 3, 5))
        unit = unit / (freq * dec * ra if first.reduce == "mean" else 1)
        stage += 2
    cube = (total.astype(np.float64) * unit).astype(F)
    split = ("train", "validation", "test").index(generator.split)
    built: dict[str, Any] = {operator.name: operator for operator in generator.operators}
    for name, operator in operators:
        if isinstance(operator, PoolConfig):
            cube = pool(cube, operator.factor, operator.reduce == "mean")
        elif isinstance(operator, NoiseConfig):
            sigma = F(draws[name]["voxel_sigma"])
            table = built[name].sigma_pattern()
            if table is None:
                cube = white_noise(cube, generator.seed, index, split, stage, sigma)
            else:
                cube = pixel_noise(cube, generator.seed, index, split, stage, sigma, table)
        elif isinstance(operator, EdgeNoiseConfig):
            sigma, table = F(draws[name]["sigma_uK"]), built[name].pixels.values
            cube = pixel_noise(cube, generator.seed, index, split, stage, sigma, table)
        elif isinstance(operator, CorrelatedNoiseConfig):
            sigma = F(draws[name]["sigma_uK"])
            counter = generator.seed, index, split, stage
            cube = correlated_noise(cube, *counter, sigma, built[name])
        elif isinstance(operator, PCAConfig):
            cube = pca(cube, built[name])
        elif isinstance(operator, RadioSourcesConfig):
            given = draws[name], built[name]
            cube = radio_sources(cube, generator.seed, index, split, stage, *given)
        elif isinstance(operator, BeamConfig):
            cube = beam(cube, built[name])
        elif isinstance(operator, ChannelResponseConfig):
            cube = channel_response(cube, built[name])
        elif isinstance(operator, TransferFunctionConfig):
            cube = transfer_function(cube, built[name])
        elif isinstance(operator, MaskConfig):
            cube = mask(cube, built[name])
        elif isinstance(operator, SubtractMeanConfig):
            cube = subtract_mean(cube, operator.skip_zeros)
        elif isinstance(operator, HighPassConfig):
            cube = high_pass(cube, built[name])
        elif isinstance(operator, StandardiseConfig):
            cube = standardise(cube)
        elif isinstance(operator, Log10Config):
            cube = log10(cube, operator.epsilon)
        elif isinstance(operator, AsinhConfig):
            cube = asinh(cube, operator.scale)
        else:
            assert isinstance(operator, LogModulusConfig)
            cube = log_modulus(cube)
        stage += 2
    bins, config = counts[: generator.num_bins], generator.config.label
    cosmology = lightcone.cosmology
    volume = generator.grid.volume_Mpc3(cosmology["Omega_m"], cosmology["h"])
    unit = unit_label(config, generator.bin_edges, volume)
    return cube, bins, label(bins, int(counts[generator.num_bins]), config, unit)
