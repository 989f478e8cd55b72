"""A finite set of samples in files, for people with other tools: `streamtrain export`.

The file is one HDF5 file, or a folder with a file per sample in the layout of another program.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import yaml
from numpy.typing import NDArray

from streamtrain._version import __version__
from streamtrain.config import Config
from streamtrain.generator.batch import Batch
from streamtrain.generator.folders import ComapFolder, Geometry, LimlamFolder, flattened
from streamtrain.generator.generator import GENERATOR_VERSION, Generator
from streamtrain.machine.files import reserve, writing
from streamtrain.machine.workers import ALONE, Resources
from streamtrain.numerics.rng import Split
from streamtrain.schema import to_dict

Format = Literal["hdf5", "limlam", "comap"]

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
    resources: Resources = ALONE,
) -> Path:
    """Write samples first_index, first_index + 1, ... of a split to `out`, a file (hdf5) or a
    folder (limlam, comap), which appears whole or not at all.

    before_transforms: maps in their units, before log_modulus and the like (see `raw`), as they
    always are in the formats limlam and comap. Raises ValueError, one sentence, for input that
    cannot be used or if `out` is there already.
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
    if format == "comap" and config.grid.units != "uK":
        raise ValueError(
            f"--format comap is of brightness temperatures, but grid.units = {config.grid.units}: "
            "hdf5 and limlam hold intensities"
        )
    made_of = raw(config) if before_transforms or format != "hdf5" else config
    generator = Generator(made_of, split, **resources.of_generator(config.train.threads))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        writer = WRITERS[format]
        size = (
            (8 if format == "comap" else 4)
            * samples
            * (math.prod(generator.input_shape) + generator.num_outputs)
        )
        with writing(target) as part:
            reserve(part, size)
            with writer(part, generator).open() as write:
                for start in range(0, samples, BATCH_SIZE):
                    stop = min(start + BATCH_SIZE, samples)
                    batch = generator.generate(range(first_index + start, first_index + stop))
                    batch.check()
                    write(batch)
                    resources.progress.count("export", stop, samples, "samples")
    finally:
        generator.close()
    return target


KIND = "streamtrain samples 1"
ROWS = 256
"""Samples in a chunk of everything but maps."""


class SampleFile:
    """One HDF5 file. Datasets, the first axis the samples, which can grow: `cube` [n, freq, dec,
    ra] float32, `label` [n, outputs] float32, `counts` [n, bins] int32, `one_halo` [n, bins] (the
    label of one halo, `Batch.unit_label`), `index` uint64, and under `draws` a column for
    everything that was drawn (NaN where a sample has none). Without samples: `nu_edges_GHz`,
    `dec_edges_deg`, `ra_edges_deg`, `log10_L_edges`.
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


WRITERS: dict[Format, type[SampleFile | LimlamFolder | ComapFolder]] = {
    "hdf5": SampleFile,
    "limlam": LimlamFolder,
    "comap": ComapFolder,
}
"""What writes each format."""
