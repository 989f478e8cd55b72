"""Where the observer of a lightcone stands and looks: positions are turned to origin and +z."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.catalogs.headers import CatalogError
from streamtrain.catalogs.rows import sky_angles_deg

Floats = NDArray[np.floating[Any]]

LINES_OF_SIGHT: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "x": ((1, 2, 0), (1, 1, 1)),
    "y": ((2, 0, 1), (1, 1, 1)),
    "z": ((0, 1, 2), (1, 1, 1)),
    "-x": ((1, 2, 0), (-1, 1, -1)),
    "-y": ((2, 0, 1), (-1, 1, -1)),
    "-z": ((0, 1, 2), (-1, 1, -1)),
}
"""Which axes of the file become x, y, z, and their signs: proper rotations, no mirror images.

Along x the axis y goes to x and z goes up, along y z goes to x and x goes up; a minus turns half
around the axis that goes up.
"""
LARGEST_ANGLE_DEG = 60.0
"""How far from +z the halos of a lightcone may lie in the mean."""
SIDES_DIFFER = 0.02
"""Share by which the sides of a cube may differ, where halos mark them."""
BEYOND_SPHERE = 0.3
"""Share of the halos farther than the sides of a cube, by which it is one: 0.48 where the observer
stands in the middle or a corner, none within a sphere."""
FEWEST_IN_CUBE = 200
"""Fewer halos mark no cube."""


@dataclass(frozen=True)
class View:
    """An observer in the coordinates of a file, at their origin and looking along +z if not told.

    Raises CatalogError for what is no position or axis.
    """

    observer_Mpc: Sequence[float] | None = None
    """Comoving position [3] in Mpc (no h)."""
    line_of_sight: str | None = None
    """Direction of the line of sight, one of `LINES_OF_SIGHT`."""

    def __post_init__(self) -> None:
        place = self.observer_Mpc
        if place is not None and not (len(place) == 3 and np.isfinite(place).all()):
            raise CatalogError(f"the observer must be three numbers in Mpc, not {list(place)}")
        if self.line_of_sight is not None and self.line_of_sight not in LINES_OF_SIGHT:
            raise CatalogError(
                f"the line of sight must be one of {', '.join(LINES_OF_SIGHT)}, "
                f"not '{self.line_of_sight}'"
            )

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return self.observer_Mpc is not None or self.line_of_sight is not None

    def turned(
        self, position: Floats, velocity: Floats | None
    ) -> tuple[Floats, Floats | None, list[str]]:
        """Positions [n, 3] as seen from the origin along +z, velocities [n, 3], and notes."""
        notes = []
        position = position if position.dtype.kind == "f" else position.astype(np.float64)
        if velocity is not None and velocity.dtype.kind != "f":
            velocity = velocity.astype(np.float64)
        if self.observer_Mpc is not None:
            position = position.astype(np.float64) - np.asarray(self.observer_Mpc, np.float64)
            place = ", ".join(f"{a:g}" for a in self.observer_Mpc)
            notes.append(f"seen from the observer at ({place}) Mpc of the file")
        if self.line_of_sight is not None:
            order, signs = (list(a) for a in LINES_OF_SIGHT[self.line_of_sight])
            position = position[:, order] * np.array(signs, position.dtype)
            if velocity is not None:
                velocity = velocity[:, order] * np.array(signs, velocity.dtype)
            axes = ", ".join(
                f"{'-' * (sign < 0)}{'xyz'[axis]}" for axis, sign in zip(order, signs, strict=True)
            )
            notes.append(f"line of sight {self.line_of_sight} of the file: x, y, z are its {axes}")
        return position, velocity, notes


FORWARD = View()
"""From the origin along +z."""


def centre_advice(position: Floats) -> str:
    """What to add to a map with ra and dec whose field [n, 3] lies elsewhere than at 0, 0."""
    mean = _mean_direction(position)
    if mean is None or np.sqrt(np.sum(mean**2)) <= 0.2:
        return "say centre_deg: [ra, dec] of the field in the map (--columns ... centre_deg=RA,DEC)"
    ra, dec = (round(float(a), 2) for a in sky_angles_deg(*mean))
    place = f"{ra % 360.0 + 0.0:.7g}, {dec + 0.0:.7g}"
    return (
        f"say centre_deg: [{place}], the middle of the halos, in the map (--columns ... "
        f"centre_deg={place.replace(' ', '')})"
    )


def _mean_direction(position: Floats) -> Floats | None:
    """The mean of the unit vectors of some of the halos; None if there is none."""
    some = position[:: max(1, len(position) // 100_000)].astype(np.float64)
    chi = np.sqrt(np.sum(some**2, axis=1))
    seen = some[chi > 0] / chi[chi > 0, None]
    return seen.mean(axis=0) if len(seen) and np.isfinite(seen).all() else None


def check_no_cube(position: Floats) -> None:
    """CatalogError if halos [n, 3], of which the observer at the origin tells the redshifts, fill
    a cube as a snapshot of a periodic box does."""
    place = position.astype(np.float64)
    if len(place) < FEWEST_IN_CUBE or not np.isfinite(place).all():
        return
    sides, reach = np.ptp(place, axis=0), np.abs(place).max(axis=0)
    even = [np.ptp(a) <= SIDES_DIFFER * a.max() and a.min() > 0.0 for a in (sides, reach)]
    far = np.sqrt(np.sum(place**2, axis=1)) > reach.max()
    if all(even) and float(far.mean()) > BEYOND_SPHERE:
        side = sides.max()
        raise CatalogError(
            f"its halos fill a cube of {side:.5g} Mpc, as those of a snapshot do: --box "
            f"{side:.4g} --redshifts Z --footprint-deg ... --z-range ... makes a lightcone of a "
            "periodic box, with its side in Mpc and its redshift; if the observer stands there, "
            "say --observer 0 0 0"
        )


def check_direction(
    position: Floats, footprint_deg: Sequence[float] | None = None, *, by_angles: bool = False
) -> None:
    """CatalogError if halos [n, 3] do not lie around +z and none is in the footprint, if given.

    by_angles: they came as ra and dec, which `centre_deg` turns.
    """
    mean = _mean_direction(position)
    if mean is None:
        return
    length = float(np.sqrt(np.sum(mean**2)))
    if mean[2] >= np.cos(np.radians(LARGEST_ANGLE_DEG)) * length and length > 0.2:
        return  # half a sky has a mean direction of length 0.5, a whole one has none
    if footprint_deg is not None:
        with np.errstate(invalid="ignore"):  # at the observer
            ra, dec = sky_angles_deg(*position.T)
        ra_min, ra_max, dec_min, dec_max = footprint_deg
        if ((ra >= ra_min) & (ra <= ra_max) & (dec >= dec_min) & (dec <= dec_max)).any():
            return
    if by_angles:
        raise CatalogError(
            "the halos do not lie around ra = dec = 0: "
            f"{centre_advice(position)}, or keep a part with --footprint-deg"
        )
    axis = int(np.argmax(np.abs(mean)))
    nearest = f"--line-of-sight {'-' if mean[axis] < 0 else ''}{'xyz'[axis]}"
    raise CatalogError(
        f"the halos lie around the direction ({', '.join(f'{a:.2f}' for a in mean)}), not around "
        f"the line of sight +z: add "
        + (nearest if length > 0.7 else "--line-of-sight (x, -x, y, ...)")
        + ", --observer X Y Z if the observer is not at the origin, or keep a part with "
        "--footprint-deg"
    )
