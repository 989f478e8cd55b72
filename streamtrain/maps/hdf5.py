"""Maps in HDF5 files: of users, of `streamtrain export`, of the COMAP pipeline.

Layouts:
- `map` [n_freq, n_dec, n_ra] with `nu_edges_GHz`, `dec_edges_deg` and `ra_edges_deg`, edges of the
  voxels in the order of the cube; attributes `units` and `nu_rest_GHz` of the file or of `map`.
- `cube` [samples, n_freq, n_dec, n_ra] with the same edges: what `streamtrain export` writes.
- `map_coadd` [sideband, channel, dec, ra] with `freq` [sideband, channel] [GHz], `x` (ra) and `y`
  (dec) [deg], the voxels' centres: the layout of COMAP's map files, which do not say their units.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from streamtrain.machine.files import MAX_YAML_BYTES, check_memory, one_line
from streamtrain.machine.hdf5file import check_here, content_of, holds, object_of
from streamtrain.maps.skymap import (
    MapError,
    SkyMap,
    check_numbers,
    check_shape,
    checked_edges,
    edges_of_centres,
    frequency_axis,
    in_order,
    number_of,
    order_notes,
    oriented,
    ra_in_order,
    rest_of,
    sky_axes,
    text_of,
)
from streamtrain.schema import ConfigError, parse_yaml

EDGES = ("nu_edges_GHz", "dec_edges_deg", "ra_edges_deg")
COMAP = ("freq", "x", "y")
PACKING = {"scale_factor": 1.0, "add_offset": 0.0}
"""Attributes of netCDF, and what they are where they are missing."""


def read_hdf5(path: Path, index: int | None = None, nu_rest_GHz: float | None = None) -> SkyMap:
    """The map of an HDF5 file; index: which sample of several, by its global index; nu_rest_GHz: of
    the line instead of what the file says. Raises MapError, one sentence."""
    source = str(path)
    with h5py.File(path, "r") as file:
        for name, read in (("cube", _samples), ("map", _own), ("map_coadd", _comap)):
            if holds(file, name) and isinstance(object_of(file, name), h5py.Dataset):
                return read(file, source, index, nu_rest_GHz)
        raise MapError(
            f"{source} holds none of map, cube and map_coadd, but "
            f"{one_line(', '.join(sorted(file))) or 'nothing'}"
        )


def _own(file: Any, source: str, index: int | None, nu_rest_GHz: float | None) -> SkyMap:
    if index is not None:
        raise MapError(f"{source} holds one map: --index is of a file with several samples")
    cube = _array(file, "map", source)
    about = {**file.attrs, **file["map"].attrs}
    return _with_edges(file, cube, "map", about, source, "HDF5", nu_rest_GHz)


def _samples(file: Any, source: str, index: int | None, nu_rest_GHz: float | None) -> SkyMap:
    cubes = file["cube"]
    if cubes.ndim == 3 and index is None:
        cube = _array(file, "cube", source)
    elif cubes.ndim == 4:
        numbers = _array(file, "index", source) if holds(file, "index") else np.arange(len(cubes))
        if index is None and len(cubes) != 1:
            raise MapError(
                f"{source} holds {len(cubes)} samples: choose one with --index, such as "
                f"{int(numbers[0]) if len(numbers) else 0}"
            )
        place = np.flatnonzero(numbers == (numbers[0] if index is None else index))
        if not len(place):
            raise MapError(f"{source} has no sample {index}, but {numbers.min()}..{numbers.max()}")
        check_here(cubes)
        check_memory(cubes.size // len(cubes) * cubes.dtype.itemsize, "a sample has")
        cube = np.asarray(cubes[int(place[0])])
        check_numbers(cube, "cube", source)
    else:
        raise MapError(f"{source}: cube must have four axes, not {cubes.ndim}")
    about = {**file.attrs, **cubes.attrs}
    return _with_edges(file, cube, "cube", about, source, "streamtrain samples", nu_rest_GHz)


def _with_edges(
    file: Any,
    cube: NDArray[Any],
    name: str,
    about: dict[str, Any],
    source: str,
    layout: str,
    nu_rest_GHz: float | None,
) -> SkyMap:
    nu, y, x = (_array(file, key, source) for key in EDGES)
    nu = checked_edges(nu, EDGES[0], source, even=False)
    y, x = checked_edges(y, EDGES[1], source), checked_edges(ra_in_order(x), EDGES[2], source)
    axes = {"freq": len(nu) - 1, "dec": len(y) - 1, "ra": len(x) - 1}
    cube, turned = in_order(cube, axes, name, source, reverse="MATLAB_class" in about)
    freq = frequency_axis(nu)
    ra, dec, locate = sky_axes(x, y)
    cube, marks, scaled = _unpacked(cube, file[name], source)
    done, units, rest = (_said(about, key) for key in ("observe_done", "units", "nu_rest_GHz"))
    return SkyMap(
        oriented(cube, freq, dec, ra),
        freq,
        dec,
        ra,
        units=None if units is None else text_of(units),
        nu_rest_GHz=rest_of(rest, "nu_rest_GHz", source, nu_rest_GHz),
        source=source,
        layout=layout,
        notes=(*turned, *scaled, *order_notes(freq)),
        marks=marks,
        done=None if done is None else _done(done, source),
        locate=locate,
    )


def _comap(file: Any, source: str, index: int | None, nu_rest_GHz: float | None) -> SkyMap:
    if index is not None:
        raise MapError(f"{source} holds one map: --index is of a file with several samples")
    cube = _array(file, "map_coadd", source)
    nu, x, y = (_array(file, key, source).astype(np.float64) for key in COMAP)
    x = ra_in_order(x)
    if cube.ndim == 3:
        cube, nu = cube[None], nu.reshape(1, -1)
    if nu.ndim != 2:
        raise MapError(f"{source}: freq must be [sideband, channel], not {nu.ndim} axes")
    axes = {"sideband": nu.shape[0], "channel": nu.shape[1], "y": y.size, "x": x.size}
    check_shape(cube.shape, axes, "map_coadd", source)
    order = np.argsort(-nu.ravel(), kind="stable")
    cube = cube.reshape(nu.size, y.size, x.size)[order]
    cube, marks, scaled = _unpacked(cube, file["map_coadd"], source)
    freq = frequency_axis(edges_of_centres(nu.ravel()[order], "freq", source))
    ra, dec, locate = sky_axes(edges_of_centres(x, "x", source), edges_of_centres(y, "y", source))
    return SkyMap(
        oriented(cube, freq, dec, ra),
        freq,
        dec,
        ra,
        units=None,
        nu_rest_GHz=None,
        source=source,
        layout="COMAP map file",
        notes=(f"{nu.shape[0]} sidebands were put in the order of frequency", *scaled),
        marks=marks,
        locate=locate,
    )


def _done(value: Any, source: str) -> dict[str, Any]:
    """The operators that streamtrain says it has applied."""
    text = text_of(value)
    try:
        found = parse_yaml(text, "observe_done") or {} if len(text) <= MAX_YAML_BYTES else text
        if isinstance(found, dict) and all(isinstance(section, dict) for section in found.values()):
            return found
    except ConfigError:
        pass
    raise MapError(f"{source}: observe_done is not a section observe of a configuration")


def _said(about: dict[str, Any], name: str) -> Any:
    """An attribute; None for one that is empty."""
    value = about.get(name)
    return None if isinstance(value, h5py.Empty) else value


def _marks(dataset: Any, source: str) -> tuple[float, ...]:
    """Numbers that stand for no value: as attributes say, or the fill value that was chosen."""
    named = (dataset.attrs.get(name) for name in ("_FillValue", "missing_value"))
    marks = [value for given in named if given is not None for value in np.ravel(given)]
    created = dataset.id.get_create_plist()
    if created.fill_value_defined() == h5py.h5d.FILL_VALUE_USER_DEFINED and dataset.fillvalue:
        marks.append(dataset.fillvalue)
    numbers = []
    for mark in marks:
        kind = np.asarray(mark).dtype.kind
        if kind in "iuf" and not np.isfinite(mark):
            continue
        numbers.append(number_of(mark, "the mark of missing values (_FillValue)", source))
    return tuple(dict.fromkeys(numbers))


def _unpacked(
    cube: NDArray[Any], dataset: Any, source: str
) -> tuple[NDArray[Any], tuple[float, ...], tuple[str, ...]]:
    """A cube and the marks of missing values, both after netCDF's scale_factor and add_offset, and
    what to say of these."""
    marks = _marks(dataset, source)
    given = {name: dataset.attrs[name] for name in PACKING if name in dataset.attrs}
    if not given:
        return cube, marks, ()
    scale, offset = (
        number_of(given[name], name, source) if name in given else default
        for name, default in PACKING.items()
    )
    if cube.dtype.kind == "f":
        marks = tuple(float(cube.dtype.type(mark)) for mark in marks)
    said = f"its numbers were multiplied by {scale:g}" + (f", plus {offset:g}" if offset else "")
    return (
        np.asarray(cube, np.float64) * scale + offset,
        tuple(mark * scale + offset for mark in marks),
        (f"{said}, as {' and '.join(given)} say",),
    )


def _array(file: Any, name: str, source: str) -> NDArray[Any]:
    dataset = object_of(file, name) if holds(file, name) else None
    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
        raise MapError(
            f"{source} has no dataset {name}" + (" that holds anything" if dataset else "")
        )
    values = content_of(dataset)
    check_numbers(values, name, source)
    return values
