"""Voxels of a map that are exactly 0: sky without light, or sky that nobody observed.

A network without a mask reads both as the first. Where training's maps would not have such voxels,
or so many of them in one place, that is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.operators.base import MapState
from streamtrain.operators.noise import Noise
from streamtrain.operators.plan import ObservationPlan
from streamtrain.operators.voxel_files import unseen_before

Bool = NDArray[np.bool_]

FEWEST = 3
"""Voxels that are exactly 0 here and there, from which on they are no chance in a map with
noise."""
LIKELY = 0.1
"""Pixels and channels without light are no surprise where the zeros among the others make this
share of their number."""
COMMON = 10
"""Zeros in numbers with few digits are as common as their neighbours; so many times more is a
mark."""


def say_zeros(
    cube: NDArray[Any],
    plan: ObservationPlan,
    first: int,
    state: MapState,
    shares: Sequence[NDArray[np.float64]] | None,
    notes: list[str],
    warnings: list[str],
) -> None:
    """Add to `warnings` how many pixels, channels or voxels of a map are exactly 0, though
    training's maps have none such; to `notes` where a map without noise may have them.

    cube: [n_freq, n_dec, n_ra], as it was read; first, state: the step that it enters at, and the
    map that this takes; shares: of the cube's voxels in those, None where it has the same.
    """
    unseen = _unseen_in_training(plan, first, state)
    if shares is not None:
        covered = [share.any(axis=0) for share in shares]
        places = [share.argmax(axis=0)[used] for share, used in zip(shares, covered, strict=True)]
        cube, unseen = cube[np.ix_(*covered)], unseen[np.ix_(*places)]
    zero = (cube == 0) & ~unseen
    if not zero.any():
        return
    known = ~(unseen | np.isnan(cube))
    empty = zero | ~known
    pixels = empty.all(axis=0) & zero.any(axis=0)
    channels = empty.all(axis=(1, 2)) & zero.any(axis=(1, 2))
    rest = known & ~pixels & ~channels[:, None, None]
    share = float(zero[rest].mean()) if rest.any() else 0.0
    found, likely = [], 0.0
    for lost, others, what in (
        (pixels, len(channels), "pixels are exactly 0 in every channel"),
        (channels, pixels.size, "channels are exactly 0 in every pixel"),
    ):
        if lost.any():
            number = int(lost.sum())
            found.append(f"{number} of {lost.size} {what}")
            likely = max(likely, lost.size * share**others / number)
    noisy = _always_noisy(plan)
    if not found and noisy and _marks(cube[rest], int(zero.sum())):
        found.append(f"{int(zero.sum())} of {cube.size} voxels are exactly 0")
    if not found:
        return
    text = " and ".join(found)
    if noisy or likely < LIKELY:
        warnings.append(
            f"{text}, which is read as sky that was observed: if it was not, NaN or --no-value 0 "
            "says so"
        )
    else:
        notes.append(
            f"{text}, as sky without light is in a map without noise: where it was not observed, "
            "NaN or --no-value 0 says so"
        )


def _unseen_in_training(plan: ObservationPlan, first: int, state: MapState) -> Bool:
    """Voxels of the map in `state` that any operator sets to 0."""
    unseen = unseen_before(state)
    for step in plan.steps[first:]:
        lost = step.build().unseen()
        if lost is not None:
            lost = np.broadcast_to(lost, step.after.shape)
            for axis, size in enumerate(state.shape):
                lost = np.repeat(lost, size // lost.shape[axis], axis)
            unseen = unseen | lost
    return unseen


def _always_noisy(plan: ObservationPlan) -> bool:
    """Whether every map of the training has white noise."""
    return any(
        step.build().sigma[0] > 0.0 and not step.build().absent  # type: ignore[attr-defined]
        for step in plan.steps
        if step.operator is Noise and step.in_units
    )


def _marks(values: NDArray[Any], number: int) -> bool:
    """Whether so many zeros among values are more than the digits of these make."""
    if number < FEWEST:
        return False
    others = np.unique(values[values != 0], return_counts=True)[1]
    return number > COMMON * int(others.max(initial=0))
