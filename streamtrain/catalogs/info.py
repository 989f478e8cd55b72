"""What a lightcone holds, and whether its units can be right.

Two mistakes are common in halo catalogs: lengths in Mpc/h and masses in Msun/h. The first breaks
the relation of distance and redshift; the second changes the number density of halos.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.catalogs.massfunction import mass_function
from streamtrain.cosmology import C_KMS, MAX_REDSHIFT, Cosmology

if TYPE_CHECKING:
    from streamtrain.catalogs.lightcone import Lightcone

HALO_MASSES = (1e4, 1e17)
"""No catalog has halos outside [Msun]."""
HEAVIEST = 1e6
"""The least that the heaviest halo of a catalog can have [Msun]."""
MAX_SHIFT_KMS = 3000.0
"""Largest credible median of c |z_obs - z(chi)| / (1 + z): peculiar motion is a tenth of it."""
BIN_DEX = 0.25
"""Width of the mass bins of the density check."""
MIN_EXPECTED = 30.0
"""A mass bin with fewer expected halos says nothing."""
MODEL_ERROR = 0.2
"""Relative uncertainty of a mass function: halo finders and definitions differ."""
POOR_FIT, MARGIN = 2.5, 1.5
"""Mean (ln ratio / error)^2 that asks for an explanation, and what an explanation must gain."""
_SYNTHESISED = '"program": "streamtrain.catalogs.synthesize"'
_MISTAKES = {
    "masses in Msun/h taken for Msun": ("h", ""),
    "masses in Msun divided by h once too often": ("1/h", ""),
    "positions in Mpc/h taken for Mpc": ("", "h"),
    "masses in Msun/h and positions in Mpc/h taken for Msun and Mpc": ("h", "h"),
}


def distance_problem(
    halos: Mapping[str, NDArray[np.float32]], cosmology: Mapping[str, float]
) -> str | None:
    """A sentence if z_obs is not the redshift of the halos' distance, else None.

    `halos` has x_Mpc, y_Mpc, z_Mpc and z_obs, each of shape [n]. At most 1e5 rows are looked at.
    """
    step = max(1, len(halos["z_obs"]) // 100_000)
    x, y, z = (halos[name][::step].astype(np.float64) for name in ("x_Mpc", "y_Mpc", "z_Mpc"))
    z_obs = halos["z_obs"][::step].astype(np.float64)
    model = Cosmology.from_dict(cosmology)
    farthest = float(model.comoving_distance(MAX_REDSHIFT))
    chi = np.sqrt(x * x + y * y + z * z)
    z_chi = model.redshift(np.minimum(chi, 0.999 * farthest))
    shift = np.median(C_KMS * np.abs(z_obs - z_chi) / (1.0 + z_chi))
    if shift <= MAX_SHIFT_KMS:
        return None
    near = np.maximum(model.comoving_distance(np.clip(z_obs, 0.0, MAX_REDSHIFT)), 1e-9)
    ratio, h = float(np.median(chi / near)), model.h
    guesses = {
        h: "the positions are probably in Mpc/h instead of Mpc",
        1.0 / h: "the positions were probably divided by h once too often",
        1e3: "the positions are probably in kpc instead of Mpc",
        1e3 * h: "the positions are probably in kpc/h instead of Mpc",
    }
    closest = min(guesses, key=lambda guess: abs(np.log(ratio / guess)))
    cause = (
        "they belong to another cosmology, z_obs is not the redshift of these halos, or the "
        "observer is not at the origin (catalog import --observer)"
    )
    if abs(np.log(ratio / closest)) < 0.03:
        cause = guesses[closest]
    return (
        f"z_obs disagrees with the positions: at the median distance {np.median(chi):.6g} Mpc the "
        f"cosmology gives z = {np.median(z_chi):.4g}, but z_obs is {np.median(z_obs):.4g} "
        f"(distances are {ratio:.4g} times chi(z_obs)); {cause}"
    )


def mass_problem(mass_Msun: NDArray[np.floating[Any]]) -> str | None:
    """A sentence if masses [n] above 0 cannot be halos' masses in Msun, else None."""
    row = int(np.argmin(mass_Msun))
    low, high = float(mass_Msun[row]), float(mass_Msun.max())
    runs = f"masses run from {low:.6g} to {high:.6g} Msun: this looks like"
    if not low > 0.0:
        return None
    if low >= 5.0 and high <= 17.0:
        return f"{runs} log10 of masses (unit log10 Msun), or like masses in 1e10 Msun"
    if low >= 11.5 and high <= 40.0:
        return f"{runs} the natural logarithm of masses, or like masses in 1e10 Msun"
    if high < HEAVIEST:
        return f"{runs} masses in 1e10 Msun"
    if low < HALO_MASSES[1] < high:
        row = int(np.argmax(mass_Msun))
        return f"mass = {high:.6g} Msun at row {row}, no halo's mass: a missing value?"
    if high > HALO_MASSES[1]:
        return f"{runs} masses in {'Msun taken for 1e10 Msun' if high < 1e27 else 'g or kg'}"
    if low < HALO_MASSES[0]:
        return f"mass = {low:.6g} Msun at row {row}, no halo's mass: a missing value?"
    return None


def info(lightcone: Lightcone) -> dict[str, Any]:
    """Contents of a lightcone and the check of its halo density, as plain numbers and strings."""
    bins, warnings = density_check(lightcone)
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
        "digest": lightcone.digest,
        "num_tiles": len(lightcone.tile_offsets) - 1,
        "density": bins,
        "warnings": warnings,
    }


def describe(lightcone: Lightcone) -> str:
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


def box_repeats(lightcone: Lightcone) -> float | None:
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


def density_check(lightcone: Lightcone) -> tuple[list[dict[str, Any]], list[str]]:
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
            seen = expected_halos(lightcone, low - shift, high - shift) / factor[length] ** 3
            alternatives.append(seen)
        count = halos + 0.5
        error2 = MODEL_ERROR**2 + 1.0 / count
        squares.append([float(np.log(count / n)) ** 2 / error2 for n in alternatives])
    if not bins:
        return bins, []
    as_given, *mistaken = np.mean(squares, axis=0)
    best = int(np.argmin(mistaken))
    if as_given < POOR_FIT:
        return bins, []
    ratios = [row["ratio"] for row in bins]
    pattern = f"the halo density is {min(ratios):.2f} to {max(ratios):.2f} times Tinker08"
    if mistaken[best] < min(POOR_FIT, as_given - MARGIN):
        name = list(_MISTAKES)[best]
        warning = f"{pattern}, as expected of {name} (h = {h:g})"
        if not _MISTAKES[name][1]:
            warning += f": masses {_mass_factor(lightcone, bins):.2f} times as large would fit best"
        return bins, [warning]
    return bins, [
        f"{pattern}, which no confusion of units with h explains: is the footprint or the redshift "
        "range larger than what the halos fill, or is the catalog thinned or incomplete?"
    ]


def _mass_factor(lightcone: Lightcone, bins: list[dict[str, Any]]) -> float:
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


def expected_halos(lightcone: Lightcone, low: float, high: float) -> float:
    """Number of halos of log10 mass low..high that Tinker08 puts into the lightcone's volume."""
    cosmology = Cosmology.from_dict(lightcone.cosmology)
    near, far = cosmology.comoving_distance(np.maximum(lightcone.z_range, 0.0))
    node, weight = np.polynomial.legendre.leggauss(8)
    half = 0.5 * (far - near)
    chi = near + half * (node + 1.0)
    redshift = cosmology.redshift(chi)
    density = mass_function("tinker08").number_density((10.0**low, 10.0**high), redshift, cosmology)
    return area_sr(lightcone.footprint_deg) * half * float(np.sum(weight * chi**2 * density))
