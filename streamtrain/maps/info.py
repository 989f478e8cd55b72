"""What a map holds, as numbers and in words, and the section `grid` of a configuration for it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.grid import Grid
from streamtrain.maps.skymap import KNOWN, UNKNOWN_MODES, Axis, MapError, SkyMap, parse_units

DIGITS = 7
"""Digits of the field and the band in a configuration: a thousandth of a voxel and better."""


def info(sky: SkyMap) -> dict[str, Any]:
    """Contents of a map as plain numbers and strings; None where the file does not say.

    sky: what `read_map` read, also with need_units=False.
    """
    finite, zero = np.isfinite(sky.cube), sky.cube == 0
    known, dark = sky.cube[finite].astype(np.float64), zero | ~finite
    widths = 1e3 * np.abs(np.diff(sky.freq.edges))
    line = sky.nu_rest_GHz
    return {
        "path": sky.source,
        "layout": sky.layout,
        "axes": list(sky.axes),
        "rising": {name: not _falls(sky, name) for name in ("freq", "dec", "ra")},
        "shape": list(sky.shape),
        "units": sky.units,
        "nu_rest_GHz": line,
        "nu_GHz": list(sky.nu_GHz),
        "z": None if line is None else [line / nu - 1.0 for nu in sky.nu_GHz],
        "channel_MHz": [float(widths.min()), float(widths.max())],
        "fov_deg": [sky.ra.width, sky.dec.width],
        "centre_deg": None if sky.centre_deg is None else list(sky.centre_deg),
        "pixel_arcmin": [60.0 * sky.ra.step, 60.0 * sky.dec.step],
        "num_voxels": int(sky.cube.size),
        "num_without_value": int(sky.cube.size - known.size),
        "num_zero": {
            "voxels": int(zero.sum()),
            "pixels": int((dark.all(axis=0) & zero.any(axis=0)).sum()),
            "channels": int((dark.all(axis=(1, 2)) & zero.any(axis=(1, 2))).sum()),
        },
        "range": [float(known.min()), float(known.max())] if known.size else None,
        "standard_deviation": float(known.std()) if known.size else None,
        "sigma": _summary(sky.sigma),
        "hits": _summary(sky.hits),
        "pca_modes": sky.pca_modes,
        "filtered": sky.filtered,
        "done": None if sky.done is None else list(sky.done),
        "notes": list(sky.notes),
    }


def describe(sky: SkyMap) -> str:
    """`info` as text for a person, with the lines of a configuration to begin with."""
    facts = info(sky)
    high, low = facts["nu_GHz"]
    rest, z, share = facts["nu_rest_GHz"], facts["z"], facts["num_without_value"]
    centre, done = facts["centre_deg"], facts["done"]
    ways = [f"{name} {'rises' if up else 'falls'}" for name, up in facts["rising"].items()]
    lines = [
        ("map", facts["path"]),
        ("layout", facts["layout"]),
        ("axes", f"[{', '.join(facts['axes'])}]: {', '.join(ways)}"),
        ("voxels", f"{_times(facts['shape'])} (freq, dec, ra)"),
        ("units", _units(sky)),
        ("line", "not stated" if rest is None else f"{rest:.6g} GHz"),
        ("band", f"{high:.7g}..{low:.7g} GHz" + (f", z = {z[0]:.4g}..{z[1]:.4g}" if z else "")),
        ("channels", _channels(sky.freq, *facts["channel_MHz"])),
        ("field", "{:.5g} x {:.5g} deg (ra, dec)".format(*facts["fov_deg"])),
        ("middle", "not stated" if not centre else "ra {:.6g}, dec {:.6g} deg".format(*centre)),
        ("pixels", "{:.4g} x {:.4g} arcmin (ra, dec)".format(*facts["pixel_arcmin"])),
        (
            "no value",
            f"{share} of {facts['num_voxels']} voxels ({share / facts['num_voxels']:.1%})",
        ),
        *((("exactly 0", _zeros(facts)),) if facts["num_zero"]["voxels"] else ()),
        ("values", _values(facts)),
        ("noise", _noise(facts)),
        ("hits", _hits(facts)),
        ("filtered", _filtered(facts)),
        *((("operators", ", ".join(done) or "none"),) if done is not None else ()),
        *(("note", note) for note in facts["notes"]),
    ]
    return "\n".join([*(f"{name:<12} {text}" for name, text in lines), "", grid_lines(sky)])


def grid_lines(sky: SkyMap) -> str:
    """The section `grid` of a configuration whose maps have the voxels of this one, in YAML.

    What the file does not say is a comment; where no grid can be like the map, the reason is.
    """
    num_freq, num_dec, num_ra = sky.shape
    fov = [_rounded(axis.width) for axis in (sky.ra, sky.dec)]
    band = [_rounded(nu) for nu in sky.nu_GHz]
    settings: dict[str, Any] = {
        "fov_deg": fov,
        "shape": [num_freq, num_dec, num_ra],
        "nu_GHz": band,
    }
    comments = []
    if sky.nu_rest_GHz is None:
        comments.append(f"nu_rest_GHz is not stated: {Grid().nu_rest_GHz:g} unless it is set")
    else:
        settings["nu_rest_GHz"] = round(sky.nu_rest_GHz, DIGITS)
    kind = _kind(sky)
    if kind is None:
        comments.append("units are not known: uK unless they are set")
    else:
        settings["units"] = kind
    if not sky.freq.even:
        comments.append("its channels are of unequal width, these are equal: it needs --regrid")
    try:
        Grid(**settings)
    except ValueError as error:
        return f"# no configuration can have such a grid: {error}"
    lines = [f"  {name}: {value}" for name, value in settings.items()]
    return "\n".join(["grid:", *lines, *(f"  # {comment}" for comment in comments)])


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _falls(sky: SkyMap, name: str) -> bool:
    axis: Axis = getattr(sky, name)
    return axis.flipped != (name == "freq")


def _times(numbers: list[int]) -> str:
    return " x ".join(map(str, numbers))


def _kind(sky: SkyMap) -> str | None:
    """The units that a grid can have; None where those of the map are not known."""
    try:
        return parse_units(sky.units, sky.source).kind if sky.units else None
    except MapError:
        return None


def _units(sky: SkyMap) -> str:
    if sky.units is None:
        return "not stated: --units says what they are"
    if sky.units == "":
        return "none: numbers without a unit"
    known = _kind(sky) is not None
    return sky.units if known else f"{sky.units}, none of {KNOWN}: --units says what they are"


def _channels(freq: Axis, least: float, most: float) -> str:
    width = f"{freq.step * 1e3:.6g} MHz" if freq.even else f"{least:.5g} to {most:.5g} MHz"
    return f"{len(freq.edges) - 1} of {width}"


def _summary(values: NDArray[Any] | None) -> dict[str, float] | None:
    """Least, median and most of the positive numbers; 0 of them where there are none."""
    if values is None:
        return None
    found = values[np.isfinite(values) & (values > 0)].astype(np.float64)
    if not found.size:
        return {"number": 0}
    least, median, most = found.min(), np.median(found), found.max()
    return {
        "number": int(found.size),
        "least": float(least),
        "median": float(median),
        "most": float(most),
    }


def _zeros(facts: dict[str, Any]) -> str:
    """How many voxels are 0, and whether whole pixels or channels are."""
    found, (num_freq, num_dec, num_ra) = facts["num_zero"], facts["shape"]
    parts = [f"{found['voxels']} of {facts['num_voxels']} voxels"]
    if found["pixels"]:
        parts.append(f"{found['pixels']} of {num_dec * num_ra} pixels in every channel")
    if found["channels"]:
        parts.append(f"{found['channels']} of {num_freq} channels in every pixel")
    return "; ".join(parts) + " (--no-value 0 if they were not observed)"


def _values(facts: dict[str, Any]) -> str:
    if facts["range"] is None:
        return "none"
    low, high = facts["range"]
    unit = f" {facts['units']}" if facts["units"] else ""
    return f"{low:.4g} to {high:.4g}{unit}, standard deviation {facts['standard_deviation']:.4g}"


def _noise(facts: dict[str, Any]) -> str:
    sigma = facts["sigma"]
    if sigma is None or not sigma["number"]:
        return "not stated" if sigma is None else "stated for no voxel"
    unit = f" {facts['units']}" if facts["units"] else ""
    return (
        f"sigma per voxel {sigma['median']:.4g}{unit} (median), {sigma['least']:.4g} (best) to "
        f"{sigma['most']:.4g} (worst)"
    )


def _hits(facts: dict[str, Any]) -> str:
    hits = facts["hits"]
    if hits is None or not hits["number"]:
        return "not stated" if hits is None else "none"
    return (
        f"{hits['median']:.4g} per voxel (median), {hits['least']:.4g} to {hits['most']:.4g}, in "
        f"{hits['number']} voxels"
    )


def _filtered(facts: dict[str, Any]) -> str:
    modes = facts["pca_modes"]
    if facts["filtered"] is None:
        return "not stated"
    number = "an unknown number of" if modes == UNKNOWN_MODES else modes
    told = "PCA modes: not stated" if modes is None else f"{number} PCA modes subtracted"
    return f"{'by its pipeline' if facts['filtered'] else 'no'}; {told}"
