"""Samples as npz files in the layout of limlam_mocker's save_maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.generator.batch import Batch
from streamtrain.generator.generator import GENERATOR_VERSION, Generator
from streamtrain.maps.exported import Geometry, flattened

DIGITS = 6
"""Of a sample's index in the name of its file, at least."""


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
        # lightcones that are made while they are used have one cosmology and no file
        cosmology = generator.skies.cosmologies[0] if header is None else header.cosmology
        above = np.cumsum(counts[::-1])[::-1]
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
