"""A lightcone out of snapshots of a periodic box, tiled with random shifts, turns and mirrors.

Space is filled with copies of the box; each copy has a random periodic shift, a random permutation
of the axes and a random mirror image of each, so that the same structure is not seen twice in
the same place (structures end at the faces of the copies). Every halo is taken from the snapshot
nearest in comoving distance; velocities turn along and give the observed redshift.

References:
    MoMaF: the Mock Map Facility (Blaizot et al., 2005), arXiv:astro-ph/0309305
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray

from streamtrain.catalogs.headers import CatalogError
from streamtrain.catalogs.readers.halos import Halos, merged_cosmology
from streamtrain.catalogs.rows import sky_angles_deg
from streamtrain.catalogs.synthesis.box import uniform
from streamtrain.cosmology import C_KMS, Cosmology

Array = NDArray[np.float64]

MAX_SPEED_KMS = 3000.0
"""How far beyond z_range halos are looked for: their velocity may carry them into it."""
MAX_FOOTPRINT_DEG = 40.0
"""Largest angle from the line of sight."""
MAX_TILES = 100_000
_PERMUTATIONS = list(permutations(range(3)))
_FACE = 0.02
"""By what part of the side positions may exceed the box."""


def tile_boxes(
    snapshots: Sequence[Halos],
    *,
    footprint_deg: Sequence[float],
    z_range: Sequence[float],
    seed: int = 0,
    side_Mpc: float | None = None,
    cosmology: Mapping[str, float] | None = None,
) -> Halos:
    """Halos around an observer at the origin that fill the footprint and, with margin, z_range.

    `footprint_deg` is (ra_min, ra_max, dec_min, dec_max); `side_Mpc` is needed where the files do
    not state the side of the box. A function of the arguments alone. Raises CatalogError.
    """
    side = _side(snapshots, side_Mpc)
    parameters: dict[str, float] = {}
    for snapshot in snapshots:
        parameters |= merged_cosmology(snapshot.cosmology, parameters, complete=False)
    model = Cosmology.from_dict(merged_cosmology(parameters, cosmology))
    _check_region(footprint_deg, z_range)
    if not 0 <= seed < 2**64:
        raise CatalogError(f"the seed, {seed}, must be in 0..2^64 - 1")
    moving = {snapshot.velocity_kms is not None for snapshot in snapshots}
    if len(moving) > 1:
        raise CatalogError("either all snapshots have velocities or none")
    order = sorted(snapshots, key=_redshift)
    redshifts = [_redshift(snapshot) for snapshot in order]
    if len(set(redshifts)) < len(redshifts):
        raise CatalogError(f"two snapshots have the same redshift: {redshifts}")

    margin = MAX_SPEED_KMS / C_KMS if moving == {True} else 0.0
    ends = [max(0.0, (1 + z) * (1 + s * margin) - 1) for z, s in zip(z_range, (-1, 1), strict=True)]
    near, far = (float(a) for a in model.comoving_distance(ends))
    middle = model.comoving_distance(redshifts)
    edges = np.concatenate([[0.0], 0.5 * (middle[1:] + middle[:-1]), [np.inf]])
    tiles = _tiles(side, near, far, footprint_deg)
    parts: list[Halos] = []
    used = 0
    for tile in tiles:
        corner = side * (np.array(tile) - np.array([0.5, 0.5, 0.0]))
        closest, farthest = _distances(corner, side)
        found = len(parts)
        for snapshot, low, high in zip(order, edges[:-1], edges[1:], strict=True):
            low, high = max(low, near), min(high, far)
            if closest < high and farthest > low:
                part = _place(snapshot, side, tile, corner, seed, (low, high), footprint_deg)
                parts += [part] if len(part) else []
        used += len(parts) > found
    if not parts:
        raise CatalogError("no halo of the box lies in the footprint and the redshift range")
    return _joined(parts, order, side, seed, used, model, z_range, redshifts)


def _redshift(snapshot: Halos) -> float:
    if snapshot.redshift is None:
        raise CatalogError("a snapshot does not state its redshift: add --redshifts")
    return snapshot.redshift


def _side(snapshots: Sequence[Halos], given: float | None) -> float:
    """The side of the box [Mpc], checked against what the files state and what they fill."""
    if not snapshots:
        raise CatalogError("tiling needs a snapshot")
    sides = {snapshot.side_Mpc for snapshot in snapshots if snapshot.side_Mpc is not None}
    if given is not None:
        sides.add(given)
    if not sides:
        raise CatalogError("the side of the box is not in the file: add --box SIDE_MPC")
    if max(sides) - min(sides) > 1e-4 * max(sides):
        raise CatalogError(f"the box has several sides: {sorted(sides)} Mpc")
    side = min(sides)
    if not 0.0 < side < np.inf:
        raise CatalogError(f"the side of the box, {side} Mpc, must be positive")
    for snapshot in snapshots:
        snapshot.check()
        low, high = snapshot.position_Mpc.min(axis=0), snapshot.position_Mpc.max(axis=0)
        width = float((high - low).max())
        if width > (1.0 + _FACE) * side:
            raise CatalogError(
                f"positions spread over {width:.5g} Mpc, more than the box of {side:.5g} Mpc: "
                "are they in kpc or Mpc/h, or is the side?"
            )
        if len(snapshot) >= 100 and float((high - low).min()) < 0.8 * side:
            raise CatalogError(
                f"positions fill only {float((high - low).min()):.5g} Mpc of the box of "
                f"{side:.5g} Mpc: are they, or is the side, in another unit (Mpc/h)?"
            )
    return side


def _check_region(footprint_deg: Sequence[float], z_range: Sequence[float]) -> None:
    ra_min, ra_max, dec_min, dec_max = footprint_deg
    largest = max(abs(a) for a in footprint_deg)
    if not (ra_min < ra_max and dec_min < dec_max and largest <= MAX_FOOTPRINT_DEG):
        raise CatalogError(
            "the footprint must be ra_min, ra_max, dec_min, dec_max, increasing and within "
            f"{MAX_FOOTPRINT_DEG:g} deg of 0, got {tuple(footprint_deg)}"
        )
    if not 0.0 <= z_range[0] < z_range[1] <= 50.0:
        raise CatalogError(f"the redshift range must increase within 0..50, got {tuple(z_range)}")


def _tiles(
    side: float, near: float, far: float, footprint_deg: Sequence[float]
) -> list[tuple[int, int, int]]:
    """The copies that may hold halos of the region: (i, j, k) is centred on x = i side, y = j side
    and begins at z = k side."""
    ra, dec = (np.radians(footprint_deg[a : a + 2]) for a in (0, 2))
    corners = np.array([[-np.sin(a), np.tan(b), np.cos(a)] for a, b in product(ra, dec)])
    x, y = corners[:, 0], np.sin(dec)
    steepest = np.cos(np.abs(ra).max()) * np.cos(np.abs(dec).max())
    first = [np.floor(far * min(a.min(), 0.0) / side + 0.5) for a in (x, y)]
    last = [np.floor(far * max(a.max(), 0.0) / side + 0.5) for a in (x, y)]
    first, last = first + [np.floor(near * steepest / side)], last + [np.floor(far / side)]
    ranges = [range(int(a), int(b) + 1) for a, b in zip(first, last, strict=True)]
    number = int(np.prod([float(len(a)) for a in ranges]))
    if number > MAX_TILES:
        raise CatalogError(
            f"{number} copies of a box of {side:.4g} Mpc are needed, more than {MAX_TILES}: the "
            "box is too small for this field"
        )
    return [(i, j, k) for i in ranges[0] for j in ranges[1] for k in ranges[2]]


def _distances(corner: Array, side: float) -> tuple[float, float]:
    """Smallest and largest distance of a cube from the origin [Mpc]."""
    low, high = corner, corner + side
    nearest = np.maximum(np.maximum(low, -high), 0.0)
    farthest = np.maximum(np.abs(low), np.abs(high))
    return float(np.sqrt(np.sum(nearest**2))), float(np.sqrt(np.sum(farthest**2)))


def transform(seed: int, tile: tuple[int, int, int]) -> tuple[Array, tuple[int, ...], Array]:
    """Shift [3] in units of the side, order of the axes, and signs [3] of a copy."""
    counter = [0, *(index + 2**31 for index in tile)]
    words = np.random.Philox(key=seed, counter=counter).random_raw(5)
    axes = _PERMUTATIONS[int(words[3] % np.uint64(6))]
    signs = np.array([1.0 - 2.0 * ((int(words[4]) >> bit) & 1) for bit in range(3)])
    return uniform(words[:3]), axes, signs


def _place(
    snapshot: Halos,
    side: float,
    tile: tuple[int, int, int],
    corner: Array,
    seed: int,
    shell: tuple[float, float],
    footprint_deg: Sequence[float],
) -> Halos:
    """The halos of a copy that lie in a shell of distances [Mpc] and in the footprint."""
    shift, axes, signs = transform(seed, tile)
    inside = np.mod(snapshot.position_Mpc[:, axes] * signs + shift * side, side)
    position = corner + inside
    chi2 = np.sum(position**2, axis=1)
    rows = np.flatnonzero((chi2 >= shell[0] ** 2) & (chi2 < shell[1] ** 2) & (position[:, 2] > 0))
    ra, dec = sky_angles_deg(*position[rows].T)
    ra_min, ra_max, dec_min, dec_max = footprint_deg
    rows = rows[(ra >= ra_min) & (ra <= ra_max) & (dec >= dec_min) & (dec <= dec_max)]
    part = snapshot.rows(rows)
    part.position_Mpc = position[rows]
    if part.velocity_kms is not None:
        part.velocity_kms = part.velocity_kms[:, axes] * signs
    return part


def _joined(
    parts: Sequence[Halos],
    order: Sequence[Halos],
    side: float,
    seed: int,
    num_tiles: int,
    model: Cosmology,
    z_range: Sequence[float],
    redshifts: Sequence[float],
) -> Halos:
    names = set.intersection(*(set(part.columns) for part in parts))
    velocities = [part.velocity_kms for part in parts if part.velocity_kms is not None]
    away = max(min(abs(z - a) for a in redshifts) for z in np.linspace(z_range[0], z_range[1], 101))
    notes = [note for snapshot in order for note in snapshot.notes]
    notes.append(
        f"tiled from {len(order)} snapshot(s) at z = {', '.join(f'{z:g}' for z in redshifts)}, the "
        f"nearest for every distance (at most {away:.2g} away in redshift), of a periodic box of "
        f"side {side:g} Mpc: {num_tiles} copies, each with a random shift, axis permutation and "
        f"mirror, seed {seed}"
    )
    return Halos(
        np.concatenate([part.position_Mpc for part in parts]),
        np.concatenate([part.mass_Msun for part in parts]),
        np.concatenate(velocities) if velocities else None,
        columns={name: np.concatenate([p.columns[name] for p in parts]) for name in sorted(names)},
        cosmology=model.to_dict(),
        notes=notes,
        side_Mpc=side,
        sure_of_mass=all(snapshot.sure_of_mass for snapshot in order),
    )
