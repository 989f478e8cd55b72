"""Maps in npz files: those of limlam_mocker, and arrays with edges.

Layouts, both with the cube as [ra, dec, freq]:
- `map_cube` with `map_frequencies` [GHz] and either `pix_size_x`, `pix_size_y` or `fov_x`, `fov_y`
  [deg]: what limlam_mocker's save_maps writes. Its `map_pixel_ra` and `map_pixel_dec`, the pixels'
  lower edges in some of its versions and their centres in others, are not needed.
- `map` (or `map_cube`) with `nu_binedges` [GHz], `pix_binedges_x` (ra) and `pix_binedges_y` (dec)
  [deg].
Optional in both: `units`, `nu_rest` [GHz]; of the cube's shape or [ra, dec], `sigma` (or `rms`),
the standard deviation of the noise in these units, and `hits`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np
from numpy.typing import NDArray

from streamtrain.machine.files import check_npz
from streamtrain.maps.skymap import (
    HITS,
    SIGMA,
    MapError,
    SkyMap,
    check_numbers,
    checked_edges,
    edges_of_centres,
    frequency_axis,
    in_order,
    number_of,
    order_notes,
    oriented,
    per_voxel,
    ra_in_order,
    rest_of,
    sky_axes,
    text_of,
)

EDGES = ("nu_binedges", "pix_binedges_x", "pix_binedges_y")
LIMLAM = ("map_frequencies", "npix_x", "npix_y")


def read_npz(path: Path, nu_rest_GHz: float | None = None) -> SkyMap:
    """The map of an npz file; nu_rest_GHz: of the line instead of what the file says. Raises
    MapError, one sentence."""
    source = str(path)
    if not is_zipfile(path):
        raise MapError(f"{source} is no npz file, or is cut short")
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
        check_npz(file.zip)
        held = file.files
        wanted = {*EDGES, *LIMLAM, *SIGMA, *HITS, "map", "map_cube", "units", "nu_rest"}
        wanted |= {f"{kind}_{axis}" for kind in ("pix_size", "fov") for axis in "xy"}
        arrays = {name: file[name] for name in held if name in wanted}
    name = "map_cube" if "map_cube" in arrays else "map"
    if name not in arrays:
        raise MapError(
            f"{source} holds neither map_cube nor map, but {', '.join(sorted(held)) or 'nothing'}"
        )
    cube = arrays[name]
    check_numbers(cube, name, source)
    if all(key in arrays for key in EDGES):
        layout = "npz with edges"
        nu = checked_edges(arrays[EDGES[0]], EDGES[0], source, even=False)
        x, y = (checked_edges(ra_in_order(arrays[key]), key, source) for key in EDGES[1:])
    else:
        layout = "limlam_mocker npz"
        nu, x, y = _limlam_edges(arrays, source)
    axes = {"ra": len(x) - 1, "dec": len(y) - 1, "freq": len(nu) - 1}
    cube, turned = in_order(cube, axes, name, source)
    freq = frequency_axis(nu)
    ra, dec, place, narrowed = sky_axes(x, y, source)
    beside = []
    for names in (SIGMA, HITS):
        key = next((n for n in names if n in arrays), None)
        if key is not None:
            check_numbers(arrays[key], key, source)
            values = per_voxel(arrays[key], axes, key, source).transpose(2, 1, 0)
        beside.append(None if key is None else oriented(values, freq, dec, ra))
    return SkyMap(
        oriented(cube.transpose(2, 1, 0), freq, dec, ra),
        freq,
        dec,
        ra,
        units=text_of(arrays["units"]) if "units" in arrays else None,
        nu_rest_GHz=rest_of(arrays.get("nu_rest"), "nu_rest", source, nu_rest_GHz),
        source=source,
        layout=layout,
        notes=(*turned, *order_notes(freq), *narrowed),
        sigma=beside[0],
        hits=beside[1],
        axes=tuple(axes)[::-1] if turned else tuple(axes),
        **place,
    )


def _limlam_edges(arrays: dict[str, NDArray[Any]], source: str) -> tuple[Any, Any, Any]:
    """Edges of frequency [GHz], and of ra and dec from the middle [deg]."""
    missing = [key for key in LIMLAM if key not in arrays]
    if missing:
        raise MapError(
            f"{source} says nothing of its geometry: it has neither {', '.join(EDGES)} nor "
            f"{missing[0]}"
        )
    nu = edges_of_centres(arrays["map_frequencies"], "map_frequencies", source)
    sides = []
    for axis in "xy":
        number = int(_number(arrays[f"npix_{axis}"], f"npix_{axis}", source) or 0)
        if number < 1:
            raise MapError(f"{source}: npix_{axis} = {number} must be positive")
        pixel = _number(arrays.get(f"pix_size_{axis}"), f"pix_size_{axis}", source)
        side = _number(arrays.get(f"fov_{axis}"), f"fov_{axis}", source)
        if side is None and pixel is None:
            raise MapError(f"{source} has neither pix_size_{axis} nor fov_{axis} [deg]")
        if side is None:
            side = number * float(pixel or 0.0)
        if pixel is not None and abs(pixel * number / side - 1.0) > 1e-3:
            raise MapError(
                f"{source}: npix_{axis} * pix_size_{axis} = {pixel * number:g} deg, but "
                f"fov_{axis} = {side:g} deg"
            )
        sides.append(np.linspace(-0.5 * side, 0.5 * side, number + 1))
    return nu, sides[0], sides[1]


def _number(value: NDArray[Any] | None, name: str, source: str) -> float | None:
    return None if value is None else number_of(value, name, source)
