"""Folders with a file per sample, in the layouts of limlam_mocker and of COMAP's pipeline.

Their maps are in their units, and always the mean over a voxel.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from streamtrain._version import __version__
from streamtrain.bins import cumulative
from streamtrain.generator.batch import Batch
from streamtrain.generator.generator import GENERATOR_VERSION, Generator
from streamtrain.operators.hits import read_hits
from streamtrain.operators.noise import EdgeNoise, Noise
from streamtrain.operators.sources import RadioSources

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


DIGITS = 6
"""Fewest digits of a sample's index in the name of its file."""
KELVIN = 1e-6
"""A microkelvin in kelvin."""
NOISE = (Noise, EdgeNoise)
"""Operators that add white noise."""


class _SampleFolder(ABC):
    """A new folder with a file for each sample."""

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

    @abstractmethod
    def _write_one(self, cube: NDArray[np.float32], batch: Batch, k: int, index: int) -> None:
        """Write sample k of a batch, which has a global index."""


class LimlamFolder(_SampleFolder):
    """A folder with sample_INDEX.npz: plain numbers and text, no pickle."""

    def _write_one(self, cube: NDArray[np.float32], batch: Batch, k: int, index: int) -> None:
        geometry, generator = self.geometry, self.generator
        grid = geometry.grid
        num_dec, num_ra = cube.shape[1:]
        counts = batch.counts[k].cpu().numpy()
        name = batch.draws[k]["lightcone"]
        cosmology = generator.skies.cosmology_of(name)
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
            "lightcone": np.array(generator.skies.digest_of(name)),
            "config": np.array(generator.config.to_yaml()),
        }
        arrays |= {f"cosmo_{name}": float(value) for name, value in cosmology.items()}
        drawn = flattened(batch.draws[k])
        arrays |= {f"draw_{name}": np.array(value) for name, value in drawn.items()}
        np.savez(self.path / f"sample_{index:0{DIGITS}d}.npz", **arrays)


class ComapFolder(_SampleFolder):
    """A folder with sample_INDEX.h5 in the layout that COMAP's pipeline writes today, in K.

    Channels rise through 4 sidebands (1 where their number is no multiple of 4), dec rises, ra
    falls; the field lies about (0, 0). Numbers are float64, so that uK come back to the last bit.
    sigma_wn_coadd is there where the noise says it, nhit_coadd where it has a hit map.
    """

    def __init__(self, path: Path, generator: Generator) -> None:
        super().__init__(path, generator)
        channels = generator.observation.state.shape[0]
        self.num_sidebands = 4 if channels % 4 == 0 else 1
        self.noise = NoiseLevels(generator)

    def _write_one(self, cube: NDArray[np.float32], batch: Batch, k: int, index: int) -> None:
        with h5py.File(self.path / f"sample_{index:0{DIGITS}d}.h5", "w") as file:
            self._write_map(file, cube, batch.draws[k])
            self._write_voxels(file)
            self._write_sample(file, batch, k, index)

    def _write_map(self, file: Any, cube: NDArray[np.float32], draw: Mapping[str, Any]) -> None:
        noise, kelvin = self.noise, KELVIN / self.geometry.weight
        sigma = noise.sigma(draw, cube.shape)
        for name, values in (("map_coadd", cube), ("sigma_wn_coadd", sigma)):
            if values is not None:
                seen = np.where(noise.unseen, np.nan, values.astype(np.float64) * kelvin)
                file[name] = self._stored(seen)
        if noise.hits is not None:
            file["nhit_coadd"] = self._stored(np.broadcast_to(noise.hits, cube.shape))
        steps = self.generator.observation.steps
        modes = sum(step.section.modes for step in steps if step.operator.pipeline == "pca")
        filtered = any(step.operator.pipeline == "filter" for step in steps)
        done = {"is_pca_subtr": modes > 0, "n_pca": modes, "is_highpassed": False, "is_sim": True,
                "is_simcube": not filtered}  # fmt: skip
        for key, value in done.items():
            file[key] = value

    def _write_voxels(self, file: Any) -> None:
        geometry, sidebands = self.geometry, self.num_sidebands
        nu, ra, dec = geometry.nu_edges[::-1], geometry.ra_edges[::-1], geometry.dec_edges
        channels = (len(nu) - 1) // sidebands
        of_sidebands = [nu[k * channels : (k + 1) * channels + 1] for k in range(sidebands)]
        for name, edges in (("freq", np.stack(of_sidebands)), ("ra", ra), ("dec", dec)):
            file[f"{name}_edges"] = edges
            file[f"{name}_centers"] = 0.5 * (edges[..., 1:] + edges[..., :-1])
        file["n_sidebands"], file["n_channels"] = sidebands, channels
        file["patch_center"] = np.zeros(2)
        for number, name, edges in ((1, "ra", ra), (2, "dec", dec)):
            size = file[f"n_{name}"] = len(edges) - 1
            cards = {
                "CTYPE": f"{name.upper():-<5}CAR",
                "CRVAL": 0.0,
                "CRPIX": (size + 1) / 2,
                "CDELT": (edges[-1] - edges[0]) / size,
                "CUNIT": "deg",
                "NAXIS": size,
            }
            for key, card in cards.items():
                file[f"wcs/{key}{number}"] = card

    def _stored(self, values: NDArray[Any]) -> NDArray[Any]:
        """A cube in the order of the file, [sideband, channel, dec, ra]."""
        turned = values[::-1, :, ::-1]
        return turned.reshape(self.num_sidebands, -1, *turned.shape[1:])

    def _write_sample(self, file: Any, batch: Batch, k: int, index: int) -> None:
        """What the survey's maps do not have: the group `sample`, and attributes."""
        generator = self.generator
        sample = file.create_group("sample")
        sample["label"] = batch.label[k].cpu().numpy()
        sample["counts"] = batch.counts[k].cpu().numpy()
        sample["log10_L_edges"] = generator.bin_edges
        for name, value in flattened(batch.draws[k]).items():
            sample[f"draws/{name}"] = value
        file.attrs.update(
            {
                "units": "K",
                "nu_rest_GHz": self.geometry.grid.nu_rest_GHz,
                "seed": str(generator.seed),
                "split": generator.split,
                "index": str(index),
                "generator_version": GENERATOR_VERSION,
                "streamtrain": __version__,
                "config": generator.config.to_yaml(),
            }
        )


class NoiseLevels:
    """The noise of samples in every voxel, where a configuration says what it is: nothing after it
    joins voxels, smooths or filters."""

    def __init__(self, generator: Generator) -> None:
        steps = generator.observation.steps
        made = [s.operator in NOISE or s.operator.selects for s in steps]
        last = steps[made.index(True) if any(made) else len(steps) :]
        known = all(s.operator in (*NOISE, RadioSources) or s.operator.selects for s in last)
        noise = [step for step in last if known and step.operator in NOISE]
        self.operators = [step.build() for step in noise]
        self.unseen: NDArray[np.bool_] = np.zeros(generator.observation.state.shape, bool)
        """Voxels that were masked, or that nobody observed [n_freq, n_dec, n_ra]."""
        for step in last if known else ():
            unseen = step.build().unseen()
            self.unseen |= False if unseen is None else unseen
        mapped = [step for step in noise if getattr(step.section, "hits", None) is not None]
        self.hits: Float | None = None
        """Time on every pixel [n_dec, n_ra] or voxel [n_freq, n_dec, n_ra], of one hit map."""
        if len(mapped) == 1:
            [step] = mapped
            self.hits = read_hits(step.section.hits, step.before, f"observe.{step.name}.hits")

    def sigma(self, draw: Mapping[str, Any], shape: tuple[int, ...]) -> Float | None:
        """Sigma of a sample in every voxel [map units], by what was drawn for it; None where it is
        not known, or where a voxel has no noise."""
        square = np.zeros(shape)
        for operator in self.operators:
            pattern = operator.sigma_pattern()
            if isinstance(operator, EdgeNoise):
                pattern = operator.pixels.values
            factor = 1.0 if pattern is None else pattern.astype(np.float64)
            level = draw[operator.name]
            square = square + (level.get("voxel_sigma", level["sigma_uK"]) * factor) ** 2
        return np.sqrt(square) if square.all() else None
