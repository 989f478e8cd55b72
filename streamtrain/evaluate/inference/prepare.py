"""From a user's map to the input of a trained network: checks, regridding, operators.

A real map has its sky, beam and noise already. Of a configuration's operators only the others are
left to do: what is removed from it, what is joined, how its values are transformed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from streamtrain.arguments import given_cube, ra_dec, truth_value
from streamtrain.config import Config
from streamtrain.evaluate.inference.processing import (
    plain_section,
    say_noise_is_unknown,
    say_other_noise,
    steps_done,
)
from streamtrain.evaluate.inference.zeros import say_zeros
from streamtrain.grid import Grid
from streamtrain.maps.read import REST_TOLERANCE
from streamtrain.maps.regrid import ANOTHER_CENTRE, mean_over, overlap, sigma_of_mean
from streamtrain.maps.skymap import MapError, SkyMap, parse_units, rayleigh_jeans_uK
from streamtrain.numerics.backend import full_device, kernels_for
from streamtrain.operators.base import MapState
from streamtrain.operators.plan import ObservationPlan
from streamtrain.operators.table import of_the_map
from streamtrain.operators.voxel_files import unseen_before
from streamtrain.schema import to_dict

Float = NDArray[np.float64]

PREPARING = ("regrid", "centre_deg", "rayleigh_jeans", "anyway")
"""What a user says of how a map is prepared, see `prepare`."""
END_TOLERANCE = 0.1
"""How far the ends of a field or band may lie from the network's, in voxels."""


@dataclass(frozen=True)
class Prepared:
    """A map as the network takes it, and how it became so."""

    cube: torch.Tensor
    """float32 [n_freq, n_dec, n_ra]."""
    applied: list[str]
    """Operators that were applied."""
    left_out: list[str]
    """Operators that a map has in it already."""
    notes: list[str]
    """What was found, assumed and done besides."""
    warnings: list[str] = field(default_factory=list)
    """What was assumed that makes the prediction wrong if it is not so."""


def prepare(
    sky: SkyMap,
    config: Config,
    *,
    regrid: bool = False,
    centre_deg: tuple[float, float] | None = None,
    rayleigh_jeans: bool = False,
    anyway: bool = False,
    device: torch.device | str = "cpu",
) -> Prepared:
    """Check a map against the grid of `config`, and apply the operators that are left to do.

    regrid: bring it to the network's voxels, about `centre_deg` (ra, dec; default: its middle).
    rayleigh_jeans: convert between Jy/sr and brightness temperature, at each channel's centre.
    anyway: also a map that its survey's pipeline has done more to than was done in training.
    Raises MapError, one sentence with both sides, for a map of another line, unit, band, field or
    number of voxels, for one that has been through other processing, and for voxels without a value
    that no mask removes.
    """
    try:
        regrid = truth_value(regrid, "regrid")
        rayleigh_jeans = truth_value(rayleigh_jeans, "rayleigh_jeans")
        anyway = truth_value(anyway, "anyway")
        if centre_deg is not None:
            centre_deg = ra_dec(centre_deg, "centre_deg")
    except ValueError as error:
        raise MapError(str(error)) from None
    if centre_deg is not None and not regrid:
        raise MapError("--centre chooses a part of a map: it needs --regrid")
    plan = config.observation
    grid = plan.grid
    notes, warnings = [*sky.notes], list[str]()
    _check_line(sky, grid, notes)
    done = steps_done(sky, plan, notes, anyway=anyway)
    starts = _starts(sky, plan, done, notes)
    cube, sigma = _in_units(sky, grid, rayleigh_jeans, notes), None
    if sky.sigma is not None:
        sigma = np.asarray(_in_units(replace(sky, cube=sky.sigma), grid, rayleigh_jeans, []))
    first, state = _fitting(sky, starts)
    shares: tuple[Float, Float, Float] | None = None
    problem = _difference(sky, grid, state, starts)
    if problem and not regrid:
        raise MapError(f"{sky.source} {problem}; {_remedy(sky, grid, starts[-1][1])}")
    if problem or centre_deg is not None:
        if not sky.units or (sky.done is not None and state.weight != 1.0):
            what = "sums of voxels" if sky.units else "numbers without a unit"
            raise MapError(f"{sky.source} holds {what}, which cannot be regridded")
        first, state = starts[-1]
        shares = _shares(sky, grid, state, centre_deg)
        cube = mean_over(cube, shares)
        sigma = None if sigma is None else sigma_of_mean(sigma, shares)
        notes.append(
            f"it was brought from {_times(sky.shape)} to {_times(state.shape)} voxels (freq, dec, "
            "ra), means over the voxels it covers"
        )
    say_zeros(sky.cube, plan, first, state, shares, notes, warnings)
    if state.weight != 1.0 and sky.done is None:
        cube = cube * state.weight
        sigma = None if sigma is None else sigma * state.weight
        notes.append(
            f"voxels are sums of {state.weight:g} in training, so it was multiplied by that"
        )
    if sigma is not None:
        say_other_noise(sigma, plan, first, grid.units, notes, stated=sky.units)
    else:
        say_noise_is_unknown(sky, plan, state, notes)
    if sky.done is None and (unseen := unseen_before(state)).any():
        cube = np.where(unseen, 0.0, cube)
        notes.append(f"{int(unseen.sum())} voxels that training does not observe were set to 0")
    found = _observed(cube, plan, first, done, notes, sky, device)
    return replace(found, warnings=warnings)


def as_input(
    cube: torch.Tensor | ArrayLike,
    config: Config,
    device: torch.device | str = "cpu",
    *,
    said: bool = True,
) -> Prepared:
    """An array that is a network's input already, checked.

    cube: [n_freq, n_dec, n_ra], from high to low frequency and from low to high dec and ra, after
    all operators of `config`, as a `Generator` or `observe` makes it. Nothing is applied to it. One
    with a unit of astropy is converted to that of the network's input. said: whether its user says
    that it is one; if not, a warning says that this was assumed. Raises MapError, one sentence, for
    another shape, and for what is not a finite number.
    """
    where, plan = "the array", config.observation
    try:
        given = given_cube(cube, where)
        if given.unit is not None and str(given.unit) and not plan.units:
            raise ValueError(
                f"{where} is in '{given.unit}' and the network's input has no unit: "
                f"units='{plan.grid.units}', or the one that it has, says that it is a map to "
                "which the operators are to be applied"
            )
        values = given.to(plan.units)
    except ValueError as error:
        raise MapError(str(error)) from None
    if values.shape != plan.state.shape:
        raise MapError(
            f"{where} has the shape {values.shape}, the network takes {plan.state.shape} (freq, "
            "dec, ra): one map after all operators of its configuration, as observe(cube, config) "
            f"makes it; units='{plan.grid.units}' says that it is a map to which they are to be "
            "applied"
        )
    if given.num_masked:
        raise MapError(f"{where} has {given.num_masked} masked voxels, which have no value")
    with np.errstate(over="ignore"):
        found = torch.from_numpy(np.array(values, np.float32)).to(full_device(device))
    _check_finite(found, where)
    done = ", ".join(step.name for step in plan.steps)
    unit = f", in {plan.units}" if plan.units else ""
    if not done:
        return Prepared(found, [], [], [f"an array, taken as painted{unit}"])
    note = f"an array, taken to have gone through {done}{unit}"
    if said:
        return Prepared(found, [], [], [note])
    warning = (
        f"the array was taken for the network's input, after {done}{unit}, which nothing says: "
        f"prepared=True says that it is, units='{plan.grid.units}' that it is a map in that unit, "
        "to which is applied what is left of these"
    )
    return Prepared(found, [], [], [note], [warning])


def _check_line(sky: SkyMap, grid: Grid, notes: list[str]) -> None:
    if sky.nu_rest_GHz is None:
        notes.append(
            f"it does not say its line, which is taken to be that at {grid.nu_rest_GHz:g} GHz"
        )
    elif abs(sky.nu_rest_GHz / grid.nu_rest_GHz - 1.0) > REST_TOLERANCE:
        raise MapError(
            f"{sky.source} is of a line at {sky.nu_rest_GHz:g} GHz, the network was trained on "
            f"that at {grid.nu_rest_GHz:g} GHz; --nu-rest-GHz says it if the file is wrong"
        )


def _in_units(sky: SkyMap, grid: Grid, rayleigh_jeans: bool, notes: list[str]) -> NDArray[Any]:
    """The map in the units of the grid; its own numbers if they are that already."""
    if not sky.units:
        return sky.cube
    units = parse_units(sky.units, sky.source)
    if units.kind == grid.units:
        if units.factor == 1.0:
            return sky.cube
        notes.append(f"it was converted from {sky.units} to {grid.units}")
        return np.asarray(sky.cube, np.float64) * units.factor
    if not rayleigh_jeans:
        raise MapError(
            f"{sky.source} is in {sky.units}, the network was trained on maps in {grid.units}; "
            "--rayleigh-jeans converts between intensity and brightness temperature"
        )
    notes.append(f"it was converted from {sky.units} to {grid.units} at each channel's centre")
    edges = sky.freq.edges
    per_channel = rayleigh_jeans_uK(0.5 * (edges[1:] + edges[:-1]))
    factor = per_channel if grid.units == "uK" else 1.0 / per_channel
    return np.asarray(sky.cube, np.float64) * (units.factor * factor)[:, None, None]


Start = tuple[int, MapState]
"""Number of the first operator that is left to do, and the map that it takes."""


def map_taken(plan: ObservationPlan) -> MapState:
    """The coarsest map that may enter the row of operators, which is that of the network where
    nothing but pools comes before its voxels are joined."""
    done = frozenset(step.name for step in plan.steps if step.of_the_map)
    return _entries(plan, done)[-1][1]


def _starts(
    sky: SkyMap, plan: ObservationPlan, done: frozenset[str], notes: list[str]
) -> list[Start]:
    """Where a map may enter the row of operators: as painted, or after pools with nothing before
    them but what a map has in it already; an exported map where it left."""
    if sky.done is not None:
        return [_after_done(sky.done, plan, sky.source, notes)]
    return _entries(plan, done)


def _entries(plan: ObservationPlan, done: frozenset[str]) -> list[Start]:
    """Where a map may enter that has been through the steps `done`."""
    starts = [(0, MapState(plan.grid))]
    for number, step in enumerate(plan.steps, 1):
        if step.operator.reshapes:
            starts.append((number, step.after))
        elif step.name not in done:
            break
    return starts


def _after_done(
    done: Mapping[str, Any], plan: ObservationPlan, source: str, notes: list[str]
) -> Start:
    """Where a map goes on that streamtrain exported after the operators `done`; of these, what the
    map has in it (noise, foregrounds) may be other than in training."""
    theirs = [name for name, already in of_the_map(done).items() if not already]
    number, state, matched = 0, MapState(plan.grid), 0
    for position, step in enumerate(plan.steps, 1):
        if matched == len(theirs):
            break
        if step.of_the_map:
            continue
        name = theirs[matched]
        if plain_section(name, done[name]) != plain_section(step.name, to_dict(step.section)):
            break
        matched, number, state = matched + 1, position, step.after
    if matched < len(theirs):
        ours = ", ".join(step.name for step in plan.steps)
        raise MapError(
            f"{source} has gone through {', '.join(done)}, the network's maps go through "
            f"{ours or 'no operator'}: {theirs[matched]} differs"
        )
    if done:
        notes.append(f"it has gone through {', '.join(done)} already")
    return number, state


def _fitting(sky: SkyMap, starts: list[Start]) -> Start:
    """The first of the starts whose shape the map has; else the last."""
    return next((start for start in starts if start[1].shape == sky.shape), starts[-1])


def _difference(sky: SkyMap, grid: Grid, state: MapState, starts: list[Start]) -> str:
    """What distinguishes a map from the network's, both sides; nothing if it fits."""
    if not sky.freq.even:
        widths = 1e3 * np.abs(np.diff(sky.freq.edges))
        return (
            f"has channels of {widths.min():.5g} to {widths.max():.5g} MHz, the network was "
            "trained on equal ones"
        )
    off = max(abs(a - b) for a, b in zip(sky.nu_GHz, grid.nu_GHz, strict=True))
    if off > END_TOLERANCE * min(sky.freq.step, grid.dnu_GHz * state.joined[0]):
        return (
            f"covers {sky.nu_GHz[0]:.6g}..{sky.nu_GHz[1]:.6g} GHz, the network was trained on "
            f"{grid.nu_GHz[0]:.6g}..{grid.nu_GHz[1]:.6g} GHz{_other_frequencies(sky, grid)}"
        )
    field = (sky.ra.width, sky.dec.width)
    shape = state.shape
    sizes = (shape[2], shape[1])
    for have, need, size in zip(field, grid.fov_deg, sizes, strict=True):
        if abs(have - need) > 2.0 * END_TOLERANCE * need / size:
            return (
                f"is a field of {field[0]:.5g} x {field[1]:.5g} deg (ra, dec), the network was "
                f"trained on {grid.fov_deg[0]:.5g} x {grid.fov_deg[1]:.5g} deg"
            )
    if sky.shape != shape:
        allowed = " or ".join(dict.fromkeys(_times(s.shape) for _, s in starts))
        return f"has {_times(sky.shape)} voxels (freq, dec, ra), the network takes {allowed}"
    return ""


def _remedy(sky: SkyMap, grid: Grid, state: MapState) -> str:
    """What to do with a map that does not fit the network."""
    if _other_frequencies(sky, grid):
        return "write its frequencies in the unit that it says"
    try:
        _shares(sky, grid, state, None)
    except MapError as error:
        _, _, why = str(error).partition(" cannot be regridded: ")
        return (
            f"--regrid does not help, as {why}; train a network for such maps, on the grid that "
            "`streamtrain map info` prints"
        )
    where = ", at its middle or at --centre RA DEC" if _is_larger(sky, grid) else ""
    return f"--regrid brings a map to the network's voxels{where}"


def _is_larger(sky: SkyMap, grid: Grid) -> bool:
    """Whether the network's field can be cut from the map in several places."""
    return any(
        axis.width > fov + axis.step
        for axis, fov in zip((sky.ra, sky.dec), grid.fov_deg, strict=True)
    )


OTHER_FREQUENCIES = {
    -9: "GHz in a keyword of Hz?",
    -6: "MHz in a keyword of Hz?",
    -3: "GHz in a keyword of MHz?",
    3: "MHz where GHz are due?",
    6: "kHz where GHz are due?",
    9: "Hz where GHz are due?",
}
"""What a file may have written, by the power of ten that its frequencies are off."""


def _other_frequencies(sky: SkyMap, grid: Grid) -> str:
    """A question where the frequencies of a map are off by the ratio of two units."""
    power = 3.0 * np.round(np.log10(sum(sky.nu_GHz) / sum(grid.nu_GHz)) / 3.0)
    scaled = [10.0**-power * nu for nu in sky.nu_GHz]
    meets = scaled[1] < grid.nu_GHz[0] and scaled[0] > grid.nu_GHz[1]
    asked = OTHER_FREQUENCIES.get(int(power)) if meets else None
    return "" if asked is None else f" ({asked})"


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape)


def _shares(
    sky: SkyMap, grid: Grid, state: MapState, centre_deg: tuple[float, float] | None
) -> tuple[Float, Float, Float]:
    """Of each axis, the shares of the map's voxels in those of `state`, see `overlap`."""
    ra, dec = 0.0, 0.0
    if centre_deg is not None:
        if sky.locate is None:
            raise MapError(f"{sky.source} has no coordinates that --centre could be one of")
        ra, dec = sky.locate(*centre_deg)
    num_freq, num_dec, num_ra = state.shape
    edges = (
        np.linspace(*grid.nu_GHz, num_freq + 1),
        dec + np.linspace(-0.5, 0.5, num_dec + 1) * grid.fov_deg[1],
        ra + np.linspace(-0.5, 0.5, num_ra + 1) * grid.fov_deg[0],
    )
    names = ("GHz", "deg in dec", "deg in ra")
    shares, problems = [], []
    for axis, wanted, what in zip((sky.freq, sky.dec, sky.ra), edges, names, strict=True):
        try:
            shares.append(overlap(axis.edges, wanted, what))
        except MapError as error:
            hint = _other_frequencies(sky, grid) if what == "GHz" else ""
            problems.append(f"{error}{hint}")
    if problems:
        *others, last = problems
        if last.endswith(ANOTHER_CENTRE):
            others = [text.removesuffix(ANOTHER_CENTRE) for text in others]
        raise MapError(f"{sky.source} cannot be regridded: {'; '.join([*others, last])}")
    return shares[0], shares[1], shares[2]


def _observed(
    cube: NDArray[Any],
    plan: ObservationPlan,
    first: int,
    done: frozenset[str],
    notes: list[str],
    sky: SkyMap,
    device: torch.device | str,
) -> Prepared:
    """The operators from `first` on, without those that were `done` to the map."""
    target = full_device(device)
    kernels = kernels_for(target, "observe.cu")
    applied, left_out = [], []
    larger = _is_larger(sky, plan.grid)
    keys = torch.zeros((1, 6), dtype=torch.int32, device=target)  # nothing random is left
    with torch.inference_mode(False), torch.no_grad():
        values = torch.from_numpy(np.array(cube, np.float32))[None].to(target)
        finite = False
        for step in plan.steps[first:]:
            operator = step.build()
            if step.name in done:
                left_out.append(step.name)
                unseen = operator.unseen()
                if unseen is not None and unseen.any():
                    values.masked_fill_(torch.from_numpy(unseen).to(target), 0.0)
                    what = "pixels" if unseen.ndim == 2 else "voxels"
                    notes.append(f"{what} without hits in {step.name} were set to 0")
                continue
            if not step.operator.selects and not finite:
                _check_finite(values, sky.source, larger)
                finite = True
            values = operator.apply(kernels, values, keys, {})
            applied.append(step.name)
        _check_finite(values, sky.source, larger)
    return Prepared(values[0], applied, left_out, notes)


def _check_finite(cube: torch.Tensor, source: str, larger: bool = False) -> None:
    """Raise MapError for voxels without a value; larger: whether the map has other parts."""
    bad = cube.numel() - int(torch.isfinite(cube).sum())
    if bad:
        part = "; --regrid --centre RA DEC may choose a part without gaps" if larger else ""
        raise MapError(
            f"{source}: {bad} of {cube.numel()} voxels are NaN or infinite; a network that is to "
            "read maps with gaps must be trained with a mask of them at the head of its operators; "
            f"0 in their place is no way out, as this one reads it as sky that was observed{part}"
        )
