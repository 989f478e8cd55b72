"""What a lightcone holds, and whether its units can be right.

Two mistakes are common in halo catalogs: lengths in Mpc/h and masses in Msun/h. The first breaks
the relation of distance and redshift; the second changes the number density of halos.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.catalogs.headers import MAKER
from streamtrain.catalogs.rows import Rows
from streamtrain.catalogs.synthesis.massfunction import mass_function
from streamtrain.cosmology import Cosmology

EDGE_DEG = 1e-9
"""Rounding of a halo's place against the edges of its tile."""
OUTSIDE = 0.1
"""Share of the halos that peculiar velocities may move out of z_range."""
MANY = 100.0
"""Halos that a part of a lightcone should hold by Tinker08 if it is not to be empty."""
LEAST_MSUN = 1e8
"""No catalogue is complete below."""


BIN_DEX = 0.25
"""Width of the mass bins of the density check."""
MIN_EXPECTED = 30.0
"""A mass bin with fewer expected halos says nothing."""
MODEL_ERROR = 0.2
"""Relative uncertainty of a mass function: halo finders and definitions differ."""
POOR_FIT, MARGIN = 2.5, 1.5
"""Mean (ln ratio / error)^2 that asks for an explanation, and what an explanation must gain."""
FARTHEST_Z = 20.0
"""No catalogue has halos beyond."""
FULL_TILE = 50.0
"""Halos in a tile, where there are some, by which one without any is no accident."""
EMPTY = 0.01
"""Share of tiles without halos that is worth a word."""
COARSE = 1e-3
"""Steps of z_obs / (1 + z) that a spectral channel would show."""
_SYNTHESISED = f'"program": "{MAKER}"'
_MISTAKES = {
    "masses in Msun/h taken for Msun": ("h", ""),
    "masses in Msun divided by h once too often": ("1/h", ""),
    "positions in Mpc/h taken for Mpc": ("", "h"),
    "masses in Msun/h and positions in Mpc/h taken for Msun and Mpc": ("h", "h"),
}


def info(lightcone: Rows) -> dict[str, Any]:
    """Contents of a lightcone and the check of its halo density, as plain numbers and strings.

    The units of a synthesised one are known, so that a density of its own is no reason to warn.
    """
    bins, warnings = density_check(lightcone)
    if _SYNTHESISED in lightcone.provenance:
        warnings = []
    else:
        warnings = [*(_odd_rows(lightcone) or warnings), *_shells(lightcone)]
    repeats = box_repeats(lightcone)
    return {
        "path": None if lightcone.path is None else str(lightcone.path),
        "num_halos": len(lightcone),
        "footprint_deg": list(lightcone.footprint_deg),
        "area_deg2": area_sr(lightcone.footprint_deg) * np.degrees(1.0) ** 2,
        "box_repeats": repeats,
        "independent_area_deg2": None
        if repeats is None
        else area_sr(lightcone.footprint_deg) * np.degrees(1.0) ** 2 / max(1.0, repeats),
        "z_range": list(lightcone.z_range),
        "min_mass_Msun": lightcone.min_mass_Msun,
        "mass_range_Msun": [float(lightcone.mass_Msun.min()), float(lightcone.mass_Msun.max())],
        "columns": sorted(lightcone.columns),
        "has_velocities": lightcone.velocities_kms is not None,
        "cosmology": dict(lightcone.cosmology),
        "realisation": lightcone.realisation,
        "provenance": lightcone.provenance,
        "prior": _prior(lightcone),
        "digest": lightcone.digest,
        "num_tiles": len(lightcone.tile_offsets) - 1,
        "density": bins,
        "warnings": warnings,
    }


def describe(lightcone: Rows) -> str:
    """`info` as text for a person."""
    facts = info(lightcone)
    ra_min, ra_max, dec_min, dec_max = facts["footprint_deg"]
    low, high = facts["mass_range_Msun"]
    further = facts["columns"] + (["velocities"] if facts["has_velocities"] else [])
    lines = [
        f"lightcone    {facts['path'] or 'in memory'}",
        f"halos        {facts['num_halos']} in {facts['num_tiles']} tiles",
        f"footprint    ra {ra_min:.4g}..{ra_max:.4g}, dec {dec_min:.4g}..{dec_max:.4g} deg "
        f"({facts['area_deg2']:.4g} deg^2)",
        f"repeats      {_repeats(facts)}",
        f"redshift     {facts['z_range'][0]:.4g}..{facts['z_range'][1]:.4g}",
        f"mass         {low:.4g}..{high:.4g} Msun (limit {facts['min_mass_Msun']:.4g} Msun)",
        f"columns      {', '.join(further) or 'none beyond position, mass and redshift'}",
        "cosmology    " + ", ".join(f"{k} {v:g}" for k, v in facts["cosmology"].items()),
        f"realisation  {facts['realisation']}",
        f"provenance   {facts['provenance'] or 'not stated'}",
        f"digest       {facts['digest']}",
    ]
    if facts["prior"]:
        drawn, digest = (facts["prior"].get(name) for name in ("drawn", "digest"))
        lines.insert(-1, f"drawn        {json.dumps(drawn)} from the prior {str(digest)[:12]}")
    if facts["density"]:
        lines.append("log10 M [Msun]     halos   Tinker08 (200m)   ratio")
    for row in facts["density"]:
        low, high = row["log10M"]
        lines.append(
            f"{low:5.2f}..{high:5.2f}  {row['halos']:12d}  {row['expected']:16.1f}"
            f"  {row['ratio']:6.2f}"
        )
    lines += [f"WARNING: {warning}" for warning in facts["warnings"]]
    return "\n".join(lines)


def _prior(lightcone: Rows) -> dict[str, Any] | None:
    """What was drawn of the options of a synthesised lightcone, and the digest of the prior."""
    if _SYNTHESISED not in lightcone.provenance:
        return None
    try:
        prior = json.loads(lightcone.provenance).get("prior")
    except (ValueError, AttributeError):  # somebody's own text
        return None
    return prior if isinstance(prior, dict) else None


def _repeats(facts: Mapping[str, Any]) -> str:
    if facts["box_repeats"] is None:
        return "not known: its provenance names no periodic box"
    if _SYNTHESISED in facts["provenance"]:
        return "none: synthesised for this footprint"
    if facts["box_repeats"] <= 1.0:
        return f"none: {facts['box_repeats']:.2g} of the volume of its periodic box"
    return (
        f"{facts['box_repeats']:.3g} times the volume of its periodic box: as much structure as "
        f"{facts['independent_area_deg2']:.3g} deg^2 of independent sky"
    )


def box_repeats(lightcone: Rows) -> float | None:
    """Comoving volume of the lightcone over that of the periodic box it was cut from.

    0 for a synthesised one; None if its provenance does not name a box ("box of side 126 Mpc").
    """
    side = re.search(
        r"periodic box of side (\d+(?:\.\d+)?(?:e[-+]?\d+)?) Mpc", lightcone.provenance
    )
    if _SYNTHESISED in lightcone.provenance:
        return 0.0
    if side is None or not float(side.group(1)) > 0.0:
        return None
    cosmology = Cosmology.from_dict(lightcone.cosmology)
    near, far = cosmology.comoving_distance(np.maximum(lightcone.z_range, 0.0))
    volume = area_sr(lightcone.footprint_deg) * (far**3 - near**3) / 3.0
    return float(volume) / float(side.group(1)) ** 3


def _odd_rows(lightcone: Rows) -> list[str]:
    """What makes a number of halos odd that no unit explains: some are there twice, or parts of the
    footprint, the redshifts or the masses hold none."""
    c, said = lightcone, []
    mixed = np.zeros(len(c), np.uint64)  # of 5e6 halos, two are the same by chance once in 1e6
    for odd, name in enumerate(("x_Mpc", "y_Mpc", "z_Mpc", "mass_Msun")):
        bits = getattr(c, name).view(np.uint32).astype(np.uint64)
        mixed = (mixed ^ bits) * np.uint64(0x9E3779B97F4A7C15 + 2 * odd)
        mixed ^= mixed >> np.uint64(32)
    if twice := len(c) - len(np.unique(mixed)):
        said.append(
            f"{twice} of {len(c)} halos are there more than once, of the same place and mass: do "
            "files that were joined overlap?"
        )
    ra_min, ra_max, dec_min, dec_max = c.footprint_deg
    whole = [int((high - low) / c.tile_deg + 1e-6) for low, high in
             ((dec_min, dec_max), (ra_min, ra_max))]  # fmt: skip
    halos = np.diff(c.tile_offsets).reshape(c.tile_shape)[: whole[0], : whole[1]]
    empty = float((halos == 0).mean()) if halos.size else 0.0
    if empty >= EMPTY and halos.sum() > FULL_TILE * np.count_nonzero(halos):
        said.append(
            f"{100 * empty:.2g} % of the footprint hold no halo: fields that reach there are "
            "partly empty (catalog import --footprint-deg keeps a part)"
        )
    return [*said, *filter(None, [_unfilled(c)])]


def _shells(lightcone: Rows) -> list[str]:
    """That observed redshifts are those of a few shells, if so."""
    values = np.unique(lightcone.z_obs).astype(np.float64)
    steps = np.diff(values) / (1.0 + values[1:])
    few = 1 < len(values) < 0.1 * len(lightcone)
    if not few or (step := float(np.median(steps))) <= COARSE:
        return []
    return [
        f"z_obs has {len(values)} different values only, {step:.2g} (1 + z) apart: is it rounded, "
        "or that of snapshots? A map would have their shells"
    ]


def density_check(lightcone: Rows) -> tuple[list[dict[str, Any]], list[str]]:
    """Halos per mass bin against Tinker08, and warnings when a mistaken unit explains them better.

    Bins of 0.25 dex begin at the completeness limit and end where fewer than 30 halos are
    expected; each dict has log10M (low, high), halos, expected and ratio. A catalog is compared
    with Tinker08 as it would look after each of the mistakes with h; it is suspected when as given
    it fits poorly and with a mistake it fits well, so mass functions that differ by tens of per
    cent (PINOCCHIO has 1.0 to 1.6 times Tinker08) pass.
    """
    h = lightcone.cosmology["h"]
    factor = {"": 1.0, "h": h, "1/h": 1.0 / h}
    in_range = (lightcone.z_obs >= lightcone.z_range[0]) & (lightcone.z_obs <= lightcone.z_range[1])
    log_mass = np.log10(lightcone.mass_Msun[in_range].astype(np.float64))
    stretched = _without_length_error(lightcone)
    start = np.log10(lightcone.min_mass_Msun)
    edges = [start + BIN_DEX * n for n in range(40) if 7.0 < start + BIN_DEX * n < 16.5]
    bins: list[dict[str, Any]] = []
    squares: list[list[float]] = []
    for low, high in pairwise(edges):
        expected = expected_halos(lightcone, low, high)
        if expected < MIN_EXPECTED:
            break
        halos = int(np.count_nonzero((log_mass >= low) & (log_mass < high)))
        bins.append(
            {"log10M": (low, high), "halos": halos, "expected": expected, "ratio": halos / expected}
        )
        alternatives = [expected]
        for mass, length in _MISTAKES.values():
            shift = np.log10(factor[mass])
            cone = stretched if length else lightcone
            alternatives.append(expected_halos(cone, low - shift, high - shift))
        count = halos + 0.5
        error2 = MODEL_ERROR**2 + 1.0 / count
        # half a halo on both sides: where none is expected, none is no surprise
        squares.append([float(np.log(count / (n + 0.5))) ** 2 / error2 for n in alternatives])
    if not bins:
        return bins, []
    as_given, *mistaken = np.mean(squares, axis=0)
    best = int(np.argmin(mistaken))
    if as_given < POOR_FIT:
        return bins, []
    ratios = [row["ratio"] for row in bins]
    pattern = f"the halo density is {min(ratios):.3g} to {max(ratios):.3g} times Tinker08"
    if mistaken[best] < min(POOR_FIT, as_given - MARGIN):
        name = list(_MISTAKES)[best]
        warning = f"{pattern}, as expected of {name} (h = {h:g})"
        if _MISTAKES[name][1]:
            z_low, z_high = stretched.z_range
            warning += f": halos of true positions lie at z = {z_low:.3g}..{z_high:.3g}"
        else:
            warning += f": masses {_mass_factor(lightcone, bins):.2f} times as large would fit best"
        return bins, [warning]
    return bins, [
        f"{pattern}, which no confusion of units with h explains: is the footprint or the redshift "
        "range larger than what the halos fill, are angles in another unit, or is the catalog "
        "thinned or incomplete?"
    ]


def _without_length_error(lightcone: Rows) -> Rows:
    """A lightcone as it would be if its positions were in Mpc/h and its redshifts those of its
    distances (others would not fit them): with the redshifts of its true distances."""
    cosmology = Cosmology.from_dict(lightcone.cosmology)
    near, far = cosmology.comoving_distance(np.maximum(lightcone.z_range, 0.0)) / cosmology.h
    most = float(cosmology.comoving_distance(FARTHEST_Z))
    z_low, z_high = cosmology.redshift(np.minimum([near, far], most)).tolist()
    return replace(lightcone, z_range=(z_low, z_high))


def _mass_factor(lightcone: Rows, bins: list[dict[str, Any]]) -> float:
    """The factor on all masses for which the counts come closest to Tinker08, to 2 %."""

    def misfit(shift: float) -> float:
        total = 0.0
        for row in bins:
            low, high = row["log10M"]
            count, seen = row["halos"] + 0.5, expected_halos(lightcone, low + shift, high + shift)
            total += float(np.log(count / seen)) ** 2 / (MODEL_ERROR**2 + 1.0 / count)
        return total

    coarse = min(np.arange(-0.5, 0.51, 0.1), key=misfit)
    return float(10.0 ** min(coarse + np.arange(-0.09, 0.1, 0.01), key=misfit))


def area_sr(footprint_deg: tuple[float, float, float, float]) -> float:
    """Solid angle [sr] of a footprint (ra_min, ra_max, dec_min, dec_max)."""
    ra_min, ra_max, dec_min, dec_max = np.radians(footprint_deg)
    return float((ra_max - ra_min) * (np.sin(dec_max) - np.sin(dec_min)))


def expected_halos(lightcone: Rows, low: float, high: float) -> float:
    """Number of halos of log10 mass low..high that Tinker08 puts into the lightcone's volume."""
    cosmology = Cosmology.from_dict(lightcone.cosmology)
    near, far = cosmology.comoving_distance(np.maximum(lightcone.z_range, 0.0))
    node, weight = np.polynomial.legendre.leggauss(8)
    half = 0.5 * (far - near)
    chi = near + half * (node + 1.0)
    redshift = cosmology.redshift(chi)
    density = mass_function("tinker08").number_density((10.0**low, 10.0**high), redshift, cosmology)
    return area_sr(lightcone.footprint_deg) * half * float(np.sum(weight * chi**2 * density))


def inconsistency(lightcone: Rows, ra: NDArray[Any], dec: NDArray[Any]) -> str | None:
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
    return _unfilled(c)


def _unfilled(lightcone: Rows) -> str | None:
    """Half a sentence if its rows do not fill the redshifts and masses that a lightcone says."""
    c = lightcone
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


def _expected(lightcone: Rows, least_Msun: float, most_Msun: float) -> float:
    """Halos between two masses that Tinker08 puts into a lightcone."""
    low, high = lightcone.z_range
    if not low < high:
        return 0.0
    return expected_halos(lightcone, float(np.log10(least_Msun)), float(np.log10(most_Msun)))
