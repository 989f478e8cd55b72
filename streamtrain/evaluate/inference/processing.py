"""What a survey has done to a map, beside what the training's maps have been through.

Whatever the data have had, the training's maps must have had: a map is given only what is left.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.maps.skymap import UNKNOWN_MODES, MapError, SkyMap
from streamtrain.operators.base import MapState, Turn
from streamtrain.operators.noise import LevelNoise, Noise
from streamtrain.operators.plan import ObservationPlan, Step
from streamtrain.operators.pool import Pool
from streamtrain.operators.table import without_paths
from streamtrain.schema import AssumptionWarning, operator_kind, to_dict
from streamtrain.tables import span

Float = NDArray[np.float64]

FAR = 1.2
"""Noise that is so many times larger or smaller than in training is said: the alarm finds it in
nearly every map."""


OF_UNITS = 1e3
"""Noise that is so many times larger or smaller asks whether the units are right."""


@dataclass(frozen=True)
class Difference:
    """Something that a map and the training's maps do not have in common."""

    of_map: str
    of_training: str
    remedy: str
    """How a network is trained for such a map: with or without a line of YAML."""


def steps_done(
    sky: SkyMap, plan: ObservationPlan, notes: list[str], *, anyway: bool = False
) -> frozenset[str]:
    """The names of the steps that a map has been through already, as its file says: those that
    every real map has in it, and what its pipeline has done besides.

    What was assumed is added to `notes`. Raises MapError, one sentence with the lines of YAML that
    are missing, for a map that has been through more or something else than the training's maps;
    with `anyway` that is a note.
    """
    filters = [s for s in plan.steps if s.operator.pipeline == "filter" and s.of_the_map]
    pca = [s for s in plan.steps if s.operator.pipeline == "pca" and s.in_units]
    found = _differences(sky, plan, filters, pca)
    if found:
        problem = "; it ".join(f"{d.of_map}, the training's maps {d.of_training}" for d in found)
        if not anyway:
            raise MapError(
                f"{sky.source} {problem}: train a network {_listed([d.remedy for d in found])} in "
                "the section observe of its configuration; --anyway reads the map as it is"
            )
        notes.append(f"it {problem}: it is unlike all of them (--anyway)")
    if filters and sky.filtered is None and sky.done is None:
        names = ", ".join(step.name for step in filters)
        notes.append(f"it does not say that it was filtered, and is taken to be ({names})")
    if pca and sky.pca_modes is None and sky.done is None:
        notes.append(
            f"it does not say whether principal components were subtracted: {_modes(pca)} are, as "
            "in training"
        )
    done = [step.name for step in plan.steps if step.of_the_map]
    if sky.pca_modes:
        done += [step.name for step in pca]
    return frozenset(done)


def _differences(
    sky: SkyMap, plan: ObservationPlan, filters: Sequence[Step], pca: Sequence[Step]
) -> list[Difference]:
    found = []
    if sky.filtered and not filters:
        line = "with transfer_function: {file: FILE}"
        found.append(Difference("was filtered by its survey's pipeline", "were not", line))
    if sky.filtered is False and filters:
        names = ", ".join(step.name for step in filters)
        line = f"without {names}"
        found.append(Difference("says that it was not filtered", f"were ({names})", line))
    if sky.sigma is not None and not any(s.operator.turn is Turn.NOISE for s in plan.steps):
        found.append(Difference("has noise", "have none", f"with noise: {{rms: {sky.source}}}"))
    if sky.pca_modes:
        found += _of_modes(sky, pca)
    return found


def _of_modes(sky: SkyMap, pca: Sequence[Step]) -> list[Difference]:
    """How its principal components differ from those of training, in number or in channels."""
    lost, ours, channels = sky.pca_modes, _modes(pca), sky.shape[0]
    fewest = min((step.before.shape[0] for step in pca), default=channels)
    if lost == ours and channels <= fewest:  # fewer: they were joined afterwards
        return []
    known = lost != UNKNOWN_MODES
    of_map = f"has lost {lost if known else 'an unknown number'} of {channels} modes by PCA"
    line = f"with pca: {{modes: {lost if known else 'NUMBER'}}}"
    if lost == ours:
        line += f" of {channels} channels, before these are joined,"
    return [Difference(of_map, f"{ours} of {fewest}" if pca else "none", line)]


def _modes(pca: Sequence[Step]) -> int:
    return sum(step.section.modes for step in pca)


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def say_other_noise(
    sigma: Float,
    plan: ObservationPlan,
    first: int,
    units: str,
    notes: list[str],
    *,
    stated: str | None = None,
) -> None:
    """Add to `notes` how the white noise of a map differs from that of the training's maps, in its
    typical level or from voxel to voxel, where both are known.

    sigma: of the map [n_freq, n_dec, n_ra], in `units`, those of the grid, and on the voxels that
    the step `first` takes; NaN where nothing was observed; stated: the units of the file.
    """
    ours = [np.broadcast_to(0.0, plan.grid.shape)] * 2
    for step in plan.steps[:first]:
        ours = _variances_after(step, ours)
    every = [sigma * sigma, *ours]
    for step in plan.steps[first:]:
        every = _variances_after(step, every)
    theirs, low, high = (np.sqrt(square) for square in every)
    known = np.isfinite(theirs) & np.isfinite(high)
    if not (known.any() and high[known].any()):
        if names := _noises(plan):
            notes.append(
                "sigma of its noise was not compared with that of the training's maps, which is "
                f"no white noise of single voxels ({', '.join(names)})"
            )
        return
    level, least, most = (float(np.median(values[known])) for values in (theirs, low, high))
    if not least / FAR <= level <= most * FAR:
        far = level >= OF_UNITS * most or level <= least / OF_UNITS
        ask = f"; are its units really {stated}? --units says otherwise" if far and stated else ""
        notes.append(
            f"sigma of its noise is {level:.3g} {units} in a voxel (median), that of the "
            f"training's maps {span(least, most)}: the prediction is an extrapolation{ask}"
        )
    known &= high > 0.0
    ratio = theirs[known] / high[known]
    few, many = np.quantile(ratio / np.median(ratio), (0.16, 0.84))
    if many > FAR * FAR * few:
        notes.append(
            "its noise differs from voxel to voxel otherwise than in training: over that of the "
            f"training's maps, sigma is {few:.2g} to {many:.2g} of the median in 68 % of the voxels"
        )


def say_noise_is_unknown(
    sky: SkyMap, plan: ObservationPlan, state: MapState, notes: list[str]
) -> None:
    """Add to `notes` that a map which does not state its noise was not compared in it with the
    training's maps; state: as it enters. A map that streamtrain made with the same noise was."""
    names = _noises(plan)
    if sky.done is not None:
        same = {step.name: plain_section(step.name, to_dict(step.section)) for step in plan.steps}
        names = [
            name
            for name in names
            if name not in sky.done or plain_section(name, sky.done[name]) != same[name]
        ]
    if not names:
        return
    levels, told = noise_levels(plan, state), ", ".join(names)
    if levels is not None:
        told += f": {span(*levels)} {plan.grid.units} in a voxel"
    notes.append(
        "it does not state its noise, which was not compared with that of the training's maps "
        f"({told})"
    )


def plain_section(name: str, section: Mapping[str, Any]) -> Any:
    """An operator as it is after a round trip through YAML: lists, no tuples, no paths."""
    return operator_kind(name), json.loads(json.dumps(without_paths(name, dict(section))))


def _noises(plan: ObservationPlan) -> list[str]:
    """The steps that add noise to the training's maps."""
    return [s.name for s in plan.steps if s.operator.turn is Turn.NOISE and s.of_the_map]


def noise_levels(plan: ObservationPlan, at: MapState) -> tuple[float, float] | None:
    """The lowest and the highest sigma of `noise` in training, in a voxel of the size of those of
    the map `at`, the median over voxels [units of the grid]; 0 where it may be absent; None where
    there is none, or it was smoothed.

    Raises ValueError or OSError where a file that it depends on cannot be read.
    """
    found: list[list[float]] = []
    for step in plan.steps:
        if step.operator is Noise and step.in_units:
            low, high = (float(np.nanmedian(square)) for square in _variances_of_noise(step))
            if step.section.absent > 0.0:
                low = 0.0
            # independent noise of voxels that are joined
            joined = step.before.number / at.number
            factor = (at.weight / step.before.weight) ** 2 * joined
            found.append([low * factor, high * factor])
        elif step.operator.telescope and step.in_units and found:
            return None
    if not found:
        return None
    low, high = np.sqrt(np.sum(found, axis=0)).tolist()
    return low, high


def _variances_after(step: Step, before: Sequence[Float]) -> list[Float]:
    """Variances of white noise after a step, the last two the lowest and the highest of training,
    to which noise adds; NaN where nothing was observed, and where noise was smoothed."""
    if not step.in_units:
        return [*before]
    if issubclass(step.operator, LevelNoise):
        *others, low, high = before
        added = _variances_of_noise(step)
        return [*others, low + added[0], high + added[1]]
    if step.operator.reshapes:
        return [_pooled(square, step) for square in before]
    if step.operator.telescope:
        return [*before[:-2], *(np.where(square > 0.0, np.nan, square) for square in before[-2:])]
    return [*before]


def _variances_of_noise(step: Step) -> list[Float]:
    """The lowest and the highest that it has in each voxel."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AssumptionWarning)  # said where it is used
        operator = step.build()
    assert isinstance(operator, LevelNoise)
    return [sigma**2 for sigma in operator.levels_of_voxels()]


def _pooled(square: Float, step: Step) -> Float:
    """The variance of voxels that were joined; NaN where one of them was not observed."""
    operator = step.build()
    assert isinstance(operator, Pool)
    freq, dec, ra = step.after.shape
    by_freq, by_dec, by_ra = operator.factor
    total: Float = square.reshape(freq, by_freq, dec, by_dec, ra, by_ra).sum(axis=(1, 3, 5))
    return total / (by_freq * by_dec * by_ra) ** 2 if operator.mean else total
