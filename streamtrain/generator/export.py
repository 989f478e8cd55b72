"""A finite set of samples in files, for people with other tools: `streamtrain export`.

The file is one HDF5 file, or a folder of npz files in the layout of limlam_mocker's save_maps.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import yaml
from numpy.typing import NDArray

from streamtrain._version import __version__
from streamtrain.catalogs.synthesis.fresh import FreshSkies
from streamtrain.config import Config
from streamtrain.generator.batch import Batch
from streamtrain.generator.generator import GENERATOR_VERSION, Generator
from streamtrain.labels import cumulative
from streamtrain.machine.files import reserve, writing
from streamtrain.machine.progress import Progress
from streamtrain.numerics.rng import Split
from streamtrain.schema import to_dict

Format = Literal["hdf5", "limlam"]

BATCH_SIZE = 16
"""Samples made at a time; it decides nothing but memory."""


def raw(config: Config) -> Config:
    """The configuration whose samples are maps in their units, see `ObservationPlan.raw`."""
    return replace(config, observe=config.observation.raw)


def export(
    config: Config,
    out: str | Path,
    *,
    samples: int,
    first_index: int = 0,
    split: Split = "train",
    format: Format = "hdf5",
    before_transforms: bool = False,
    device: str = "cpu",
    threads: int = 1,
    progress: Progress | None = None,
) -> Path:
    """Write samples first_index, first_index + 1, ... of a split to `out`, a file (hdf5) or a
    folder (limlam), which appears whole or not at all.

    before_transforms: maps in their units, before log_modulus and the like (see `raw`), as
    they always are in the format limlam. Raises ValueError, one sentence, for input that cannot be
    used or if `out` is there already.
    """
    target = Path(out)
    if samples < 1:
        raise ValueError(f"--samples {samples}: an export needs one sample or more")
    if not 0 <= first_index <= 2**64 - samples:
        raise ValueError(f"--first-index {first_index} is outside 0..2^64 - samples")
    if target.exists():
        raise ValueError(f"{target} is there already: give another --out, or remove it")
    if format == "hdf5" and target.suffix.lower() not in (".h5", ".hdf5", ".hd5"):
        raise ValueError(f"--out {target}: the name of an HDF5 file ends in .h5 or .hdf5")
    made_of = raw(config) if before_transforms or format == "limlam" else config
    generator = Generator(made_of, split, device, threads)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        writer = SampleFile if format == "hdf5" else LimlamFolder
        size = 4 * samples * (math.prod(generator.input_shape) + generator.num_outputs)
        with writing(target) as part:
            reserve(part, size)
            with writer(part, generator).open() as write:
                for start in range(0, samples, BATCH_SIZE):
                    stop = min(start + BATCH_SIZE, samples)
                    batch = generator.generate(range(first_index + start, first_index + stop))
                    batch.check()
                    write(batch)
                    if progress is not None:
                        progress.update(f"{stop}/{samples} samples written")
    finally:
        generator.close()
    return target


Float = NDArray[np.float64]


class Geometry:
    """The voxels of exported maps, after pools."""

    def __init__(self, generator: Generator) -> None:
        self.grid = grid = generator.grid
        self.weight = generator.observation.state.weight
        freq, dec, ra = generator.observation.state.shape
        self.nu_edges: Float = np.linspace(*grid.nu_GHz, freq + 1)
        self.dec_edges: Float = np.linspace(-0.5, 0.5, dec + 1) * grid.fov_deg[1]
        self.ra_edges: Float = np.linspace(-0.5, 0.5, ra + 1) * grid.fov_deg[0]
        self.units = generator.observation.units


def flattened(record: Mapping[str, Any], prefix: str = "") -> dict[str, float | str]:
    """What was drawn for a sample as columns: 'parameters.alpha', 'centre_deg.0', 'mirror' (0 or
    1)."""
    columns: dict[str, float | str] = {}
    for key, value in record.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            columns |= flattened(value, f"{name}.")
        elif isinstance(value, str):
            columns[name] = value
        elif isinstance(value, list | tuple | np.ndarray):
            columns |= flattened({str(k): v for k, v in enumerate(value)}, f"{name}.")
        elif value is not None:
            columns[name] = float(value)
    return columns


KIND = "streamtrain samples 1"
ROWS = 256
"""Samples in a chunk of everything but maps."""


class SampleFile:
    """One HDF5 file. Datasets, the first axis the samples, which can grow: `cube` [n, freq, dec,
    ra] float32, `label` [n, outputs] float32, `counts` [n, bins] int32, `unit_label` [n, bins],
    `index` uint64, and under `draws` a column for everything that was drawn (NaN where a sample
    has none). Without samples: `nu_edges_GHz`, `dec_edges_deg`, `ra_edges_deg`, `log10_L_edges`.
    """

    def __init__(self, path: Path, generator: Generator) -> None:
        self.path, self.generator = path, generator
        self.geometry = Geometry(generator)

    @contextmanager
    def open(self) -> Iterator[Callable[[Batch], None]]:
        """A function that appends a batch."""
        with h5py.File(self.path, "w") as file:
            self._head(file)
            yield lambda batch: self._append(file, batch)

    def _head(self, file: Any) -> None:
        generator, geometry = self.generator, self.geometry
        config = generator.config
        file["nu_edges_GHz"] = geometry.nu_edges
        file["dec_edges_deg"] = geometry.dec_edges
        file["ra_edges_deg"] = geometry.ra_edges
        file["log10_L_edges"] = generator.bin_edges
        cones = [
            {"name": c.name, "digest": c.digest, "realisation": c.realisation}
            for c in generator.headers
        ]
        file.attrs.update(
            {
                "format": KIND,
                "units": geometry.units,
                "fov_deg": geometry.grid.fov_deg,
                "nu_GHz": geometry.grid.nu_GHz,
                "nu_rest_GHz": geometry.grid.nu_rest_GHz,
                "fine_voxels_summed": geometry.weight,
                "label_quantity": config.label.quantity,
                "label_scale": config.label.scale,
                "classes": json.dumps(generator.classes),
                "seed": str(generator.seed),
                "split": generator.split,
                "generator_version": GENERATOR_VERSION,
                "streamtrain": __version__,
                "lightcones": json.dumps(cones),
                "config": config.to_yaml(),
                "observe_done": yaml.safe_dump(to_dict(config.observe), sort_keys=False),
            }
        )
        columns = {
            "cube": (generator.input_shape, "<f4"),
            "label": ((generator.num_outputs,), "<f4"),
            "counts": ((generator.num_bins,), "<i4"),
            "one_halo": ((generator.num_bins,), "<f4"),
            "index": ((), "<u8"),
        }
        for name, (shape, kind) in columns.items():
            _column(file, name, shape, kind)

    def _append(self, file: Any, batch: Batch) -> None:
        values = {
            "cube": batch.cube.cpu().numpy(),
            "label": batch.label.cpu().numpy(),
            "counts": batch.counts.cpu().numpy(),
            "one_halo": batch.unit_label.expand(len(batch), -1).cpu().numpy(),
            "index": np.array(batch.indices, np.uint64),
        }
        before = len(file["index"])
        for name, rows in values.items():
            _extend(file[name], rows)
        records = [flattened(record) for record in batch.draws]
        for name in dict.fromkeys(key for record in records for key in record):
            text = isinstance(next(r[name] for r in records if name in r), str)
            column = f"draws/{name}"
            if column not in file:
                kind = h5py.string_dtype() if text else "<f8"
                _column(file, column, (), kind, fill=None if text else np.nan)
            missing: Any = "" if text else np.nan
            column_rows = [record.get(name, missing) for record in records]
            _extend(file[column], np.array(column_rows, object if text else np.float64), before)
        for column in file.get("draws", {}).values():
            if len(column) < before + len(batch):
                column.resize(before + len(batch), axis=0)


def _column(
    file: Any, name: str, shape: tuple[int, ...], kind: Any, fill: float | None = None
) -> Any:
    """An empty dataset [0, *shape] that can grow; maps are chunks of one sample."""
    chunk = (1 if len(shape) == 3 else ROWS, *shape)
    return file.create_dataset(
        name, (0, *shape), maxshape=(None, *shape), dtype=kind, chunks=chunk, fillvalue=fill
    )


def _extend(dataset: Any, rows: NDArray[Any], start: int | None = None) -> None:
    first = len(dataset) if start is None else start
    dataset.resize(first + len(rows), axis=0)
    dataset[first:] = rows


DIGITS = 6
"""Fewest digits of a sample's index in the name of its file."""


class LimlamFolder:
    """A folder with sample_INDEX.npz: plain numbers and text, no pickle."""

    def __init__(self, path: Path, generator: Generator) -> None:
        self.path, self.generator = path, generator
        self.geometry = Geometry(generator)

    @contextmanager
    def open(self) -> Iterator[Callable[[Batch], None]]:
        """A function that writes a batch."""
        self.path.mkdir()
        yield self._write

    def _write(self, batch: Batch) -> None:
        cubes = batch.cube.cpu().numpy()
        for k, index in enumerate(batch.indices):
            self._write_one(cubes[k], batch, k, index)

    def _write_one(self, cube: NDArray[np.float32], batch: Batch, k: int, index: int) -> None:
        geometry, generator = self.geometry, self.generator
        grid = geometry.grid
        num_dec, num_ra = cube.shape[1:]
        counts = batch.counts[k].cpu().numpy()
        name = batch.draws[k]["lightcone"]
        header = next((h for h in generator.headers if h.name == name), None)
        skies = generator.skies
        cosmology = header.cosmology if header else skies.cosmologies[0]
        if isinstance(skies, FreshSkies):  # they have no files
            cosmology = skies.cosmology_of(name)
        above = cumulative(counts)
        edges = (geometry.nu_edges, geometry.dec_edges, geometry.ra_edges)
        nu, dec, ra = (0.5 * (e[1:] + e[:-1]) for e in edges)
        arrays: dict[str, Any] = {
            "fov_x": grid.fov_deg[0],
            "fov_y": grid.fov_deg[1],
            "pix_size_x": grid.fov_deg[0] / num_ra,
            "pix_size_y": grid.fov_deg[1] / num_dec,
            "npix_x": num_ra,
            "npix_y": num_dec,
            "map_pixel_ra": ra,
            "map_pixel_dec": dec,
            "map_frequencies": nu,
            "map_cube": (cube / np.float32(geometry.weight)).transpose(2, 1, 0),
            "nu_binedges": geometry.nu_edges,
            "pix_binedges_x": geometry.ra_edges,
            "pix_binedges_y": geometry.dec_edges,
            "units": np.array(geometry.units),
            "nu_rest": grid.nu_rest_GHz,
            "lum_edges": 10.0**generator.bin_edges,
            "lumFunc": counts,
            "numberCt": above,
            "label": batch.label[k].cpu().numpy(),
            "seed": np.uint64(generator.seed),
            "index": np.uint64(index),
            "split": np.array(generator.split),
            "generator_version": GENERATOR_VERSION,
            "lightcone": np.array("" if header is None else header.digest),
            "config": np.array(generator.config.to_yaml()),
        }
        arrays |= {f"cosmo_{name}": float(value) for name, value in cosmology.items()}
        drawn = flattened(batch.draws[k])
        arrays |= {f"draw_{name}": np.array(value) for name, value in drawn.items()}
        np.savez(self.path / f"sample_{index:0{DIGITS}d}.npz", **arrays)
