"""Maps in HDF5 files: of users, of `streamtrain export`, of the COMAP pipeline.

Layouts:
- `map` [n_freq, n_dec, n_ra] with `nu_edges_GHz`, `dec_edges_deg` and `ra_edges_deg`, edges of the
  voxels in the order of the cube; attributes `units` and `nu_rest_GHz` of the file or of `map`.
- `cube` [samples, n_freq, n_dec, n_ra] with the same edges: what `streamtrain export` writes.
- those of COMAP's pipeline, see `maps.comap`.

Beside `map` or `cube`, of their shape or [n_dec, n_ra], may stand `sigma` (or `rms`), the standard
deviation of the noise in their units, and `hits`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from streamtrain.machine.files import MAX_YAML_BYTES, check_memory, one_line
from streamtrain.machine.hdf5file import check_here, holds
from streamtrain.maps.comap import is_comap, read_comap
from streamtrain.maps.datasets import array_of, is_dataset, meant, said, unpacked
from streamtrain.maps.skymap import (
    HITS,
    SIGMA,
    MapError,
    SkyMap,
    check_numbers,
    checked_edges,
    frequency_axis,
    in_order,
    no_feeds,
    one_map,
    order_notes,
    oriented,
    per_voxel,
    ra_in_order,
    rest_of,
    sky_axes,
    text_of,
)
from streamtrain.schema import ConfigError
from streamtrain.yamltext import parse_yaml

EDGES = ("nu_edges_GHz", "dec_edges_deg", "ra_edges_deg")


def read_hdf5(
    path: Path,
    index: int | None = None,
    nu_rest_GHz: float | None = None,
    units: str | None = None,
    sum_feeds: bool = False,
) -> SkyMap:
    """The map of an HDF5 file.

    index: which sample of several, by its global index; nu_rest_GHz, units: instead of what the
    file says, or what a map of COMAP's pipeline is taken to be in; sum_feeds: of a file with a map
    per feed, these. Raises MapError, one sentence.
    """
    source = str(path)
    with h5py.File(path, "r") as file:
        if is_comap(file):
            if index is not None:
                raise one_map(source)
            return read_comap(file, source, nu_rest_GHz, units, sum_feeds)
        if sum_feeds:
            raise no_feeds(source)
        if is_dataset(file, "cube"):
            return _samples(file, source, index, nu_rest_GHz)
        if not is_dataset(file, "map") and {"halos", "cosmology"} <= set(file):
            raise MapError(
                f"{source} is a lightcone of halos, not a map: `streamtrain export CONFIG --split "
                f"test --samples 1 --out map.h5 'data.test=[{source}]'` paints one, as CONFIG "
                "says"
            )
        if not is_dataset(file, "map"):
            raise MapError(
                f"{source} holds none of map, cube and map_coadd, but "
                f"{one_line(', '.join(sorted(file))) or 'nothing'}"
            )
        if index is not None:
            raise one_map(source)
        cube = array_of(file, "map", source)
        return _with_edges(file, cube, "map", source, "HDF5", nu_rest_GHz)


def _samples(file: Any, source: str, index: int | None, nu_rest_GHz: float | None) -> SkyMap:
    cubes, number = file["cube"], None
    if cubes.ndim == 3 and index is None:
        cube = array_of(file, "cube", source)
    elif cubes.ndim == 4:
        numbers = array_of(file, "index", source) if holds(file, "index") else np.arange(len(cubes))
        if index is None and len(cubes) != 1:
            raise MapError(
                f"{source} holds {len(cubes)} samples: choose one with --index, such as "
                f"{int(numbers[0]) if len(numbers) else 0}"
            )
        place = np.flatnonzero(numbers == (numbers[0] if index is None else index))
        if not len(place):
            raise MapError(f"{source} has no sample {index}, but {numbers.min()}..{numbers.max()}")
        number = int(place[0])
        cube = _sample(cubes, number, "cube", source)
    else:
        raise MapError(f"{source}: cube must have four axes, not {cubes.ndim}")
    return _with_edges(file, cube, "cube", source, "streamtrain samples", nu_rest_GHz, number)


def _sample(dataset: Any, number: int, name: str, source: str) -> NDArray[Any]:
    """The numbers of one sample of several."""
    if len(dataset) <= number:
        raise MapError(f"{source}: {name} has {len(dataset)} samples, but cube has more")
    check_here(dataset)
    check_memory(dataset.size // len(dataset) * dataset.dtype.itemsize, "a sample has")
    values = np.asarray(dataset[number])
    check_numbers(values, name, source)
    return values


def _with_edges(
    file: Any,
    cube: NDArray[Any],
    name: str,
    source: str,
    layout: str,
    nu_rest_GHz: float | None,
    number: int | None = None,
) -> SkyMap:
    """The map of a cube with its edges; number: of a sample among several."""
    about = {**file.attrs, **file[name].attrs}
    nu, y, x = (array_of(file, key, source) for key in EDGES)
    nu = checked_edges(nu, EDGES[0], source, even=False)
    y, x = checked_edges(y, EDGES[1], source), checked_edges(ra_in_order(x), EDGES[2], source)
    axes = {"freq": len(nu) - 1, "dec": len(y) - 1, "ra": len(x) - 1}
    reverse = "MATLAB_class" in about
    cube, turned = in_order(cube, axes, name, source, reverse)
    freq = frequency_axis(nu)
    ra, dec, place, narrowed = sky_axes(x, y, source)
    cube, marks, scaled = unpacked(cube, file[name], source)
    done, units, rest = (said(about, key) for key in ("observe_done", "units", "nu_rest_GHz"))
    noise, hits = (
        None if found is None else oriented(found, freq, dec, ra)
        for found in (_beside(file, keys, axes, source, reverse, number) for keys in (SIGMA, HITS))
    )
    return SkyMap(
        oriented(cube, freq, dec, ra),
        freq,
        dec,
        ra,
        units=None if units is None else text_of(units),
        nu_rest_GHz=rest_of(rest, "nu_rest_GHz", source, nu_rest_GHz),
        source=source,
        layout=layout,
        notes=(*turned, *scaled, *order_notes(freq), *narrowed),
        marks=marks,
        done=None if done is None else _done(done, source),
        sigma=noise,
        hits=hits,
        axes=tuple(axes)[::-1] if turned else tuple(axes),
        **place,
    )


def _beside(
    file: Any,
    names: tuple[str, ...],
    axes: dict[str, int],
    source: str,
    reverse: bool,
    number: int | None,
) -> NDArray[Any] | None:
    """What stands beside the cube under the first of the names that is there; None where there is
    nothing. Of several samples it is that of the same number."""
    name = next((key for key in names if is_dataset(file, key)), None)
    if name is None:
        return None
    dataset = file[name]
    if number is None or dataset.ndim != 4:
        values = array_of(file, name, source)
    else:
        values = _sample(dataset, number, name, source)
    return per_voxel(meant(values, dataset, source), axes, name, source, reverse)


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
