"""What a survey's pipeline has done to a map, beside what the training's maps have been through.

Whatever the data have had, the training's maps must have had: a map is given only what is left.
"""

from __future__ import annotations

from collections.abc import Sequence

from streamtrain.maps.skymap import UNKNOWN_MODES, MapError, SkyMap
from streamtrain.operators.plan import ObservationPlan, Step


def steps_done(
    sky: SkyMap, plan: ObservationPlan, notes: list[str], *, anyway: bool = False
) -> frozenset[str]:
    """The names of the steps that a map has been through already, as its file says: those that
    every real map has in it, and what its pipeline has done besides.

    What was assumed is added to `notes`. Raises MapError, one sentence with the lines of YAML that
    are missing, for a map that has been through more or something else than the training's maps;
    with `anyway` that is a note.
    """
    pca, filters = (_of(plan, name) for name in ("pca", "filter"))
    modes = sum(step.section.modes for step in pca)
    had, lines = [], []
    if sky.filtered and not filters:
        had.append("has been filtered by its survey's pipeline")
        lines.append("transfer_function: {file: FILE}")
    if sky.sigma is not None and not any(s.operator.random and s.operator.adds for s in plan.steps):
        had.append("has noise in every voxel")
        lines.append(f"noise: {{rms: {sky.source}}}")
    if sky.pca_modes and sky.pca_modes != modes:
        known = sky.pca_modes != UNKNOWN_MODES
        had.append(
            f"has lost {sky.pca_modes if known else 'some'} principal components along frequency"
            + ("" if known else ", it does not say how many")
        )
        lines.append(f"pca: {{modes: {sky.pca_modes if known else 'NUMBER'}}}")
    if had:
        theirs = f"{modes} components" if modes and sky.pca_modes else "not"
        problem = f"{_listed(had)}, the training's maps {theirs}"
        if not anyway:
            raise MapError(
                f"{sky.source} {problem}: train a network with {_listed(lines)} in the section "
                "observe of its configuration; --anyway reads the map as it is"
            )
        notes.append(f"it {problem}: it is unlike all of them (--anyway)")
    if filters and not sky.filtered and sky.done is None:
        names = ", ".join(step.name for step in filters)
        notes.append(f"it does not say that it was filtered, and is taken to be ({names})")
    if pca and sky.pca_modes is None and sky.done is None:
        notes.append(
            f"it does not say whether principal components were subtracted: {modes} are, as in "
            "training"
        )
    done = [step.name for step in plan.steps if step.of_the_map]
    if sky.pca_modes:
        done += [step.name for step in pca]
    return frozenset(done)


def _of(plan: ObservationPlan, name: str) -> list[Step]:
    return [step for step in plan.steps if step.operator.pipeline == name]


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
