"""The cube's voxels, and how a field is laid on the sky of a lightcone.

Observer at the origin, line of sight +z; ra = atan2(-x, z), dec = asin(y / chi). A field has a
centre, a roll about its own centre and perhaps a mirror: r' = Mirror Rz(roll) C(centre) r, where C
turns the centre to +z. Frequency index 0 is the highest frequency (lowest redshift).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from streamtrain.catalogs.settings import Roll
from streamtrain.grid import DEG
from streamtrain.numerics import portable
from streamtrain.numerics.rng import Draws

Float = NDArray[np.float64]

PIECE_DEG = 0.5
"""Length of the pieces that a field's border is drawn with; half as long beyond STEEP_DEG."""
STEEP_DEG = 60.0
"""Declination beyond which straight lines in ra and dec leave great circles soon."""
MARGIN_DEG = 2e-3
"""Tiles are chosen this much wider than the field's outline, which is drawn with short chords; a
footprint may be this much narrower than a field."""


@dataclass(frozen=True)
class Pose:
    """Where fields lie on their lightcones: B of them."""

    centre_deg: Float
    """ra, dec of the centre [B, 2]."""
    roll_deg: Float
    """Roll about the centre [B]."""
    mirror: NDArray[np.bool_]
    """Whether x' -> -x' after the roll [B]."""

    def repeated(self, number: int) -> Pose:
        """The pose of one field, for as many."""
        return Pose(
            np.repeat(self.centre_deg, number, axis=0),
            np.repeat(self.roll_deg, number),
            np.repeat(self.mirror, number),
        )

    @cached_property
    def matrix(self) -> Float:
        """Rotation (and mirror) to the field's frame [B, 3, 3]."""
        sin_a, cos_a = portable.sincos_deg(self.centre_deg[:, 0])
        sin_d, cos_d = portable.sincos_deg(self.centre_deg[:, 1])
        sin_r, cos_r = portable.sincos_deg(self.roll_deg)
        # rows of C: the directions that become +x, +y, +z
        centre = np.stack(
            [
                np.stack([cos_a, 0.0 * cos_a, sin_a], -1),
                np.stack([sin_a * sin_d, cos_d, -cos_a * sin_d], -1),
                np.stack([-sin_a * cos_d, sin_d, cos_a * cos_d], -1),
            ],
            axis=1,
        )
        sign = np.where(self.mirror, -1.0, 1.0)[:, None]
        first = sign * (cos_r[:, None] * centre[:, 0] - sin_r[:, None] * centre[:, 1])
        second = sin_r[:, None] * centre[:, 0] + cos_r[:, None] * centre[:, 1]
        return np.stack([first, second, centre[:, 2]], axis=1)


def single_pose(
    centre_deg: Sequence[float] = (0.0, 0.0), roll_deg: float = 0.0, mirror: bool = False
) -> Pose:
    """The pose of one field: its centre (ra, dec) [deg], and its roll about that [deg]."""
    return Pose(np.array([centre_deg], float), np.array([roll_deg], float), np.array([mirror]))


Footprint = tuple[float, float, float, float]


def check_fits(footprint: Footprint, fov_deg: tuple[float, float], roll: Roll, name: str) -> None:
    """ValueError with both sizes when no field of this size and roll fits in the footprint."""
    widest = np.hypot(*fov_deg)
    need = {"any": (widest, widest), "none": fov_deg}.get(roll, (max(fov_deg), max(fov_deg)))
    have = footprint[1] - footprint[0], footprint[3] - footprint[2]
    if (
        need[0] * float(stretch(np.array(footprint))) > have[0] + MARGIN_DEG
        or need[1] > have[1] + MARGIN_DEG
    ):
        hint = "a smaller field, a wider lightcone" + (
            " or data.roll=quarter" if roll == "any" else ""
        )
        raise ValueError(
            f"a field of {fov_deg[0]:g} x {fov_deg[1]:g} deg with roll '{roll}' needs "
            f"{need[0]:.3g} x {need[1]:.3g} deg, but the footprint of {name} is "
            f"{have[0]:.3g} x {have[1]:.3g} deg: use {hint}"
        )


def check_covers(footprint: Footprint, pose: Pose, fov_deg: tuple[float, float], name: str) -> None:
    """ValueError when a part of a field lies outside the footprint."""
    ra, dec = outline_deg(pose, fov_deg)
    beyond = {
        "ra": (footprint[0] - ra.min(), ra.max() - footprint[1]),
        "dec": (footprint[2] - dec.min(), dec.max() - footprint[3]),
    }
    if max(max(ends) for ends in beyond.values()) > MARGIN_DEG:
        raise ValueError(
            f"the field reaches over ra {ra.min():.4g}..{ra.max():.4g}, dec {dec.min():.4g}.."
            f"{dec.max():.4g} deg, but the footprint of {name} is ra {footprint[0]:.4g}.."
            f"{footprint[1]:.4g}, dec {footprint[2]:.4g}..{footprint[3]:.4g} deg"
        )


def stretch(footprints: Float) -> Float:
    """1 / cos(dec) at the far edge of footprints [..., 4]: an angle on the sky seen as a difference
    in ra."""
    return 1.0 / portable.sincos_deg(np.abs(footprints[..., 2:]).max(axis=-1))[1]


def draw_poses(
    draws: Draws, footprints: Float, fov_deg: tuple[float, float], roll: Roll, mirror: bool
) -> Pose:
    """Poses of B samples: roll, mirror, then the centre uniformly where the field is complete.

    footprints: (ra_min, ra_max, dec_min, dec_max) per sample [B, 4]. Element 0 of `draws` is the
    choice of the lightcone.
    """
    u = draws.uniform([1, 2, 3, 4])
    if roll == "any":
        roll_deg = 360.0 * u[:, 2]
    elif roll == "quarter":
        roll_deg = 90.0 * np.floor(4.0 * u[:, 2])
    else:
        roll_deg = np.zeros(len(u))
    mirrored = (u[:, 3] < 0.5) & mirror
    sine, cosine = (np.abs(a) for a in portable.sincos_deg(roll_deg))
    half_ra = 0.5 * (cosine * fov_deg[0] + sine * fov_deg[1])
    half_dec = 0.5 * (sine * fov_deg[0] + cosine * fov_deg[1])
    half_ra = half_ra * stretch(footprints)
    span_ra = np.maximum(footprints[:, 1] - footprints[:, 0] - 2.0 * half_ra, 0.0)
    span_dec = np.maximum(footprints[:, 3] - footprints[:, 2] - 2.0 * half_dec, 0.0)
    middle_ra = 0.5 * (footprints[:, 0] + footprints[:, 1])
    middle_dec = 0.5 * (footprints[:, 2] + footprints[:, 3])
    ra = middle_ra + span_ra * (u[:, 0] - 0.5)
    dec = middle_dec + span_dec * (u[:, 1] - 0.5)
    return Pose(np.stack([ra, dec], axis=1), roll_deg, mirrored)


def outline_deg(pose: Pose, fov_deg: tuple[float, float]) -> tuple[Float, Float]:
    """The field's border on the lightcone's sky: ra, dec [B, num_points] [deg], closed."""
    highest = np.abs(pose.centre_deg[:, 1]).max(initial=0.0) + max(fov_deg)
    sky = np.einsum("pi,bij->bpj", outline_of(fov_deg, highest), pose.matrix)  # inverse rotation
    return np.arctan2(-sky[..., 0], sky[..., 2]) / DEG, np.arcsin(sky[..., 1]) / DEG


def outline_of(fov_deg: tuple[float, float], highest_deg: float) -> Float:
    """Directions [num_points, 3] on the border of a field whose centre is +z, in turn.

    Between points it is drawn as a straight line in ra and dec, which leaves the great circle by
    L^2 / 8 tan(dec) for pieces of length L [rad]: 9.5e-4 deg at dec = 60 deg. highest_deg: size of
    the declinations that it reaches on its lightcone [deg].
    """
    piece = PIECE_DEG if highest_deg < STEEP_DEG else PIECE_DEG / 2
    per_side = math.ceil(max(fov_deg) / piece)
    step = np.linspace(-0.5, 0.5, per_side, endpoint=False)
    side = np.full(per_side, 0.5)
    u = np.concatenate([step, side, -step, -side]) * fov_deg[0] * DEG
    v = np.concatenate([-side, step, side, -step]) * fov_deg[1] * DEG
    return np.stack([-np.sin(u) * np.cos(v), np.sin(v), np.cos(u) * np.cos(v)], -1)


def tile_columns(
    pose: Pose,
    fov_deg: tuple[float, float],
    footprint: ArrayLike,
    tile_shape: ArrayLike,
    tile_deg: ArrayLike,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Tiles that fields touch: dec rows [B, num_rows], consecutive ones, and of each the first and
    one past the last ra column [B, num_rows, 2], (0, 0) where there is none.

    footprint [4] or [B, 4], tile_shape [2] or [B, 2] and tile_deg, one or [B], are the lightcones'.
    """
    ra, dec = outline_deg(pose, fov_deg)
    size = len(ra)
    ra_min, _, dec_min, _ = np.broadcast_to(np.asarray(footprint, np.float64), (size, 4)).T
    n_dec, n_ra = np.broadcast_to(np.asarray(tile_shape, np.int64), (size, 2)).T
    tile = np.broadcast_to(np.asarray(tile_deg, np.float64), size)

    def row_of(dec_deg: Float) -> NDArray[np.int64]:
        row = np.floor((dec_deg - dec_min[:, None]) / tile[:, None])
        return np.clip(row, 0, n_dec[:, None] - 1).astype(np.int64)

    ra_next, dec_next = np.roll(ra, -1, axis=1), np.roll(dec, -1, axis=1)
    bottom = row_of(np.minimum(dec, dec_next) - MARGIN_DEG)
    top = row_of(np.maximum(dec, dec_next) + MARGIN_DEG)
    begin, end = bottom.min(axis=1, initial=2**62), top.max(axis=1, initial=0)
    num_rows = int(np.max(end - begin + 1, initial=1))
    # a piece of the border crosses few rows of tiles: sample, piece and row of every crossing
    sample, piece, step = np.nonzero(
        np.arange(np.max(top - bottom + 1, initial=1)) <= (top - bottom)[:, :, None]
    )
    row = bottom[sample, piece] + step
    low = dec_min[sample] + tile[sample] * row - MARGIN_DEG
    high = low + tile[sample] + 2.0 * MARGIN_DEG
    low[row == 0] = -np.inf  # rounding put halos in edge tiles
    high[row == n_dec[sample] - 1] = np.inf
    slope = np.where(dec_next == dec, 1e-12, dec_next - dec)[sample, piece]
    here, across = dec[sample, piece], (ra_next - ra)[sample, piece]
    at = [
        ra[sample, piece] + np.clip((edge - here) / slope, 0.0, 1.0) * across
        for edge in (low, high)
    ]
    first, last = np.full((size, num_rows), np.inf), np.full((size, num_rows), -np.inf)
    place = sample * num_rows + (row - begin[sample])
    np.minimum.at(first.reshape(-1), place, np.minimum(at[0], at[1]) - MARGIN_DEG)
    np.maximum.at(last.reshape(-1), place, np.maximum(at[0], at[1]) + MARGIN_DEG)
    touched = first <= last
    edges = np.stack([np.where(touched, first, 0.0), np.where(touched, last, 0.0)], axis=-1)
    columns = np.floor((edges - ra_min[:, None, None]) / tile[:, None, None])
    limit = n_ra[:, None]
    start, stop = np.clip(columns[..., 0], 0, limit - 1), np.clip(columns[..., 1] + 1.0, 1, limit)
    columns = np.stack([start, stop], axis=-1).astype(np.int64)
    columns[~touched] = 0
    rows = begin[:, None] + np.arange(num_rows)
    return np.minimum(rows, n_dec[:, None] - 1), columns
