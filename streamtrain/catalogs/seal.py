"""What a lightcone file says beside its rows, sealed; and which halos tell its sky.

The digest of a lightcone is over rows, tiles, cosmology and footprint, and names it in test sets
and checkpoints. The seal is over the digest and everything else that is used. Files from before
there was one are checked for what can be known from their rows.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from streamtrain.catalogs.info import expected_halos

if TYPE_CHECKING:
    from streamtrain.catalogs.lightcone import Lightcone

Marks = NDArray[np.uint64]

NUM_MARKS = 4096
"""The heaviest halos of a lightcone that are compared with those of others."""
SAME_SKY = 3
"""So many heaviest halos in common are no chance: two random skies share far less than one."""
EDGE_DEG = 1e-9
"""Rounding of a halo's place against the edges of its tile."""
OUTSIDE = 0.1
"""Share of the halos that peculiar velocities may move out of z_range."""
MANY = 100.0
"""Halos that a part of a lightcone should hold by Tinker08 if it is not to be empty."""
LEAST_MSUN = 1e8
"""No catalogue is complete below."""


def marks_of(mass_Msun: ArrayLike, z_obs: ArrayLike) -> Marks:
    """The bits of mass and redshift of the heaviest halos (at most `NUM_MARKS`), sorted.

    They stay what they are when a sky is cut, turned, renamed or copied, so that two cuts share
    the heaviest halos of what they have in common.
    """
    mass = np.ascontiguousarray(mass_Msun, np.float32)
    redshift = np.ascontiguousarray(z_obs, np.float32)
    if mass.size > NUM_MARKS:
        least = np.partition(mass, mass.size - NUM_MARKS)[mass.size - NUM_MARKS]
        heavy = mass >= least
        mass, redshift = mass[heavy], redshift[heavy]
    bits = mass.view(np.uint32).astype(np.uint64) << np.uint64(32)
    bits |= redshift.view(np.uint32).astype(np.uint64)
    marks: Marks = np.unique(bits)
    return marks[-NUM_MARKS:]


def num_shared(one: Marks, other: Marks) -> int:
    """Heaviest halos that two lightcones have in common."""
    return len(np.intersect1d(one, other, assume_unique=True))


def seal_of(
    digest: str,
    num_halos: int,
    cosmology: dict[str, float],
    attributes: dict[str, Any],
    provenance: str,
    marks: Marks,
) -> str:
    """sha256 [hex] over what a lightcone file holds beside its rows, which `digest` stands for.

    attributes: footprint_deg, z_range, min_mass_Msun, tile_deg, tile_shape, realisation.
    """
    content = {
        "digest": digest,
        "num_halos": num_halos,
        "cosmology": {name: float(value).hex() for name, value in cosmology.items()},
        "realisation": attributes["realisation"],
        "provenance": provenance,
        "marks": hashlib.sha256(np.ascontiguousarray(marks, "<u8").tobytes()).hexdigest(),
    }
    for name in ("footprint_deg", "z_range", "min_mass_Msun", "tile_deg", "tile_shape"):
        content[name] = [float(value).hex() for value in np.ravel(attributes[name])]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def inconsistency(lightcone: Lightcone, ra: NDArray[Any], dec: NDArray[Any]) -> str | None:
    """Half a sentence if what a lightcone says contradicts its rows, whose places are `ra` and
    `dec` [deg]; else None."""
    c = lightcone
    n_ra = c.tile_shape[1]
    tile = np.repeat(np.arange(len(c.tile_offsets) - 1), np.diff(c.tile_offsets))
    for name, angle, low, place, number in (
        ("dec", dec, c.footprint_deg[2], tile // n_ra, c.tile_shape[0]),
        ("ra", ra, c.footprint_deg[0], tile % n_ra, n_ra),
    ):
        start = low + place * c.tile_deg
        bad = (angle < start - EDGE_DEG) & (place > 0)
        bad |= (angle > start + c.tile_deg + EDGE_DEG) & (place < number - 1)
        if bad.any():
            row = int(np.argmax(bad))
            return (
                f"tile_deg = {c.tile_deg:.9g} does not fit its rows: row {row} is at {name} = "
                f"{angle[row]:.6g} deg, not in its tile ({np.count_nonzero(bad)} such rows)"
            )
    z, (z_low, z_high) = c.z_obs, c.z_range
    outside = np.count_nonzero((z < z_low) | (z > z_high))
    if outside > OUTSIDE * len(c):
        return (
            f"z_range = {z_low:.6g}..{z_high:.6g} does not fit its rows: {outside} of {len(c)} "
            f"halos are outside, they have z = {z.min():.6g}..{z.max():.6g}"
        )
    least, lightest = max(c.min_mass_Msun, LEAST_MSUN), float(c.mass_Msun.min())
    ends = ((z_low, float(z.min())), (float(z.max()), z_high))
    if any(_expected(replace(c, z_range=end), least, 10.0 * least) > MANY for end in ends):
        return (
            f"z_range = {z_low:.6g}..{z_high:.6g} does not fit its rows, which fill "
            f"{z.min():.6g}..{z.max():.6g}"
        )
    if lightest > least and _expected(c, least, lightest) > MANY:
        return (
            f"min_mass_Msun = {c.min_mass_Msun:.6g} does not fit its rows: the lightest of "
            f"{len(c)} halos has {lightest:.6g} Msun"
        )
    return None


def _expected(lightcone: Lightcone, least_Msun: float, most_Msun: float) -> float:
    """Halos between two masses that Tinker08 puts into a lightcone."""
    low, high = lightcone.z_range
    if not low < high:
        return 0.0
    return expected_halos(lightcone, float(np.log10(least_Msun)), float(np.log10(most_Msun)))
