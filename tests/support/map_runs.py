"""A run with a network that answers to its maps, and maps of it in files of every layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from streamtrain.catalogs.skies import recipes_of
from streamtrain.config import Config, from_mapping
from streamtrain.cosmology import Cosmology
from streamtrain.evaluate.trained import Trained
from streamtrain.generator.export import raw
from streamtrain.generator.generator import Generator
from streamtrain.networks.network import build_network
from streamtrain.schema import to_dict
from support import small
from support.made_runs import save_run

OBSERVE: dict[str, Any] = {
    "pool": {"factor": [3, 1, 1]},
    "beam": {"fwhm_arcmin": 4.5},
    "noise": {"sigma_uK": [1.0, 3.0]},
    "high_pass": {"modes": 1},
    "log_modulus": {},
}
SHAPE = (3, 20, 24)
"""Of the maps: no two axes are alike."""
FOV_DEG = (0.8, 0.7)


def make_run(
    folder: Path,
    cosmology: dict[str, float] | None = None,
    provenance: Callable[[int], str] = lambda number: "",
    **sections: Any,
) -> Config:
    """A run in `folder` whose network has random weights, with its own lightcones; cosmology: what
    these say of theirs, besides the usual; provenance: of lightcone 1, 2."""
    changes = {"cosmology": Cosmology().to_dict() | (cosmology or {})}
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for number, split in enumerate(("train", "test"), 1):
        path = folder / f"{split}.h5"
        small.lightcone(number, provenance=provenance(number), **changes).save(path)
        paths[split] = [str(path)]
    grid = {"fov_deg": FOV_DEG, "shape": [9, 20, 24]}
    given = {
        "seed": 11,
        "run": str(folder / "run"),
        "grid": grid,
        "data": {**paths, "roll": "quarter"},
        "emit": {"line": {"model": "breysse15", "parameters": {"duty": 1.0}}},
        "observe": OBSERVE,
        "label": {"bins": 14},
        "network": {"layers": 2, "filters": 4, "dense": 8},
        "test": {"samples": 24},
    }
    config = from_mapping(given | sections)
    generator = Generator(config, "train")
    batch = generator.generate(range(16))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        network = build_network(
            config.network, generator.input_shape, generator.label, config.observation.input_map
        )
        cubes = batch.cube.transpose(0, 1).flatten(1)
        network.set_normalisation(
            cubes.mean(1), cubes.std(1), batch.label, batch.counts, batch.unit_label
        )
        for parameter in network.parameters():  # the last layer starts at zero
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.2)
    generator.close()
    made_of = {"samples": generator.identity(), "recipes": recipes_of(generator.headers)}
    save_run(config, network, generator, **made_of)
    return config


def map_of(config: Config, index: int) -> NDArray[np.float32]:
    """A test sample as a telescope would deliver it: with beam and noise, before transforms."""
    generator = Generator(raw(config), "test")
    cube = generator.generate([index]).cube[0].numpy()
    generator.close()
    return cube


def answer_of(config: Config, index: int) -> NDArray[np.float64]:
    """The network's log10 counts for a test sample [num_bins]."""
    generator = Generator(config, "test")
    batch = generator.generate([index])
    network = Trained.load(config).network(generator.label)
    with torch.inference_mode():
        point = network.head.point(network(batch.cube), batch.unit_label)
    generator.close()
    return generator.label.log10_counts(point, batch.unit_label).numpy()[0]


def edges(
    shape: tuple[int, ...] = SHAPE, fov_deg: tuple[float, float] = FOV_DEG
) -> tuple[NDArray[np.float64], ...]:
    """Of frequency (falling), dec and ra."""
    return (
        np.linspace(34.0, 26.0, shape[0] + 1),
        np.linspace(-fov_deg[1] / 2, fov_deg[1] / 2, shape[1] + 1),
        np.linspace(-fov_deg[0] / 2, fov_deg[0] / 2, shape[2] + 1),
    )


def write_fits(path: Path, cube: NDArray[Any], **header: Any) -> Path:
    """A cube as telescopes write it: ra falls, the frequency rises; what is None is left out."""
    num_freq, num_dec, num_ra = cube.shape
    step = 8e9 / num_freq
    cards = {
        "CTYPE1": "RA---TAN", "CRVAL1": 150.0, "CRPIX1": (num_ra + 1) / 2, "CUNIT1": "deg",
        "CDELT1": -FOV_DEG[0] / num_ra,
        "CTYPE2": "DEC--TAN", "CRVAL2": 52.0, "CRPIX2": (num_dec + 1) / 2, "CUNIT2": "deg",
        "CDELT2": FOV_DEG[1] / num_dec,
        "CTYPE3": "FREQ", "CRVAL3": 26e9 + step / 2, "CRPIX3": 1.0, "CUNIT3": "Hz",
        "CDELT3": step, "BUNIT": "uK", "RESTFRQ": 115.27e9,
    }  # fmt: skip
    fits = pytest.importorskip("astropy.io.fits")
    image = fits.PrimaryHDU(np.ascontiguousarray(cube[::-1, :, ::-1]))
    for name, value in (cards | header).items():
        if value is not None:
            image.header[name] = value
    image.writeto(path)
    return path


def write_limlam(path: Path, cube: NDArray[Any], **changes: Any) -> Path:
    """The arrays of limlam_mocker's save_maps, whose pixels are lower edges; None is left out."""
    nu, dec, ra = edges(cube.shape)
    given = {
        "fov_x": FOV_DEG[0],
        "fov_y": FOV_DEG[1],
        "pix_size_x": FOV_DEG[0] / cube.shape[2],
        "pix_size_y": FOV_DEG[1] / cube.shape[1],
        "npix_x": cube.shape[2],
        "npix_y": cube.shape[1],
        "map_pixel_ra": ra[:-1],
        "map_pixel_dec": dec[:-1],
        "map_frequencies": 0.5 * (nu[1:] + nu[:-1]),
        "map_cube": cube.transpose(2, 1, 0),
    }
    np.savez(path, **{k: v for k, v in (given | changes).items() if v is not None})
    return path


def write_edges(path: Path, cube: NDArray[Any], **changes: Any) -> Path:
    """The arrays of the reference cases."""
    nu, dec, ra = edges(cube.shape)
    given = {
        "map": cube.transpose(2, 1, 0),
        "nu_binedges": nu,
        "pix_binedges_x": ra,
        "pix_binedges_y": dec,
    }
    np.savez(path, **{k: v for k, v in (given | changes).items() if v is not None})
    return path


def write_hdf5(path: Path, values: NDArray[Any], **changes: Any) -> Path:
    """Our own layout; names that are no array are attributes, None is left out."""
    nu, dec, ra = edges(values.shape)
    given = {
        "map": values,
        "nu_edges_GHz": nu,
        "dec_edges_deg": dec,
        "ra_edges_deg": ra,
        "units": "uK",
        "nu_rest_GHz": 115.27,
    }
    with h5py.File(path, "w") as file:
        for name, value in (given | changes).items():
            if isinstance(value, np.ndarray):
                file[name] = value
            elif value is not None:
                file.attrs[name] = value
    return path


def write_comap(path: Path, cube: NDArray[Any], **changes: Any) -> Path:
    """COMAP's older layout, not filtered: sidebands of one channel, in no order, the sky far from
    the equator; changes: further datasets [freq, dec, ra], in the same order, or others; None is
    left out."""
    nu, dec, ra = edges(cube.shape)
    order = np.roll(np.arange(len(cube)), 1)
    centres = [0.5 * (e[1:] + e[:-1]) for e in (nu, dec, ra)]
    given = {
        "map_coadd": cube,
        "is_simcube": True,
        "freq": centres[0][order][:, None],
        "x": 170.0 + centres[2] / np.cos(np.radians(52.5)),
        "y": 52.5 + centres[1],
    }
    with h5py.File(path, "w") as file:
        for name, value in (given | changes).items():
            if value is not None:
                stored = value[order][:, None] if np.shape(value) == cube.shape else value
                file[name] = stored
    return path


@dataclass
class Survey:
    """A map in the layout that COMAP's pipeline writes today: 4 sidebands of 3 channels, 5 x 6
    pixels of 2 arcmin, ra falling, far from the equator, some voxels not observed."""

    sidebands: tuple[tuple[float, float], ...] = ((26, 28), (28, 30), (30, 32), (32, 34))
    """From the first channel to the last [GHz]."""
    ra_falls: bool = True
    dec_falls: bool = False
    dtype: str = "<f4"
    num_channels: int = 3
    seed: int = 6

    def __post_init__(self) -> None:
        random = np.random.default_rng(self.seed)
        shape = (len(self.sidebands) * self.num_channels, 5, 6)
        self.hits = random.integers(0, 5, shape).astype("<i4")
        self.sigma = random.uniform(1e-5, 3e-5, shape).astype(np.float32).astype(self.dtype)
        self.cube = random.normal(0.0, 3e-5, shape).astype(np.float32).astype(self.dtype)
        """K, [freq, dec, ra] from high to low frequency and from low to high dec and ra."""
        unseen = self.hits == 0
        self.cube[unseen], self.sigma[unseen] = np.nan, np.nan

    @property
    def nu(self) -> NDArray[np.float64]:
        """Centres of the channels [sideband, channel], GHz."""
        share = (np.arange(self.num_channels) + 0.5) / self.num_channels
        first, last = np.array(self.sidebands, np.float64).T
        return first[:, None] + (last - first)[:, None] * share

    def sides(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Edges of dec and ra in the order of the file [deg]."""
        dec = 52.3 + np.linspace(-1, 1, 6) * 5 / 60
        ra = 170.0 + np.linspace(-1, 1, 7) * 6 / 60 / np.cos(np.radians(52.3))
        return dec[::-1] if self.dec_falls else dec, ra[::-1] if self.ra_falls else ra

    def stored(self, values: NDArray[Any]) -> NDArray[Any]:
        """Numbers of a map in the order of the file, [sideband, channel, dec, ra]."""
        place = np.argsort(np.argsort(-self.nu.ravel()))
        sky = values[place][:, :: -1 if self.dec_falls else 1, :: -1 if self.ra_falls else 1]
        return sky.reshape(*self.nu.shape, *sky.shape[1:])

    def write(self, path: Path, **changes: Any) -> Path:
        """Write the file; changes: other datasets, None leaves one out."""
        dec, ra = self.sides()
        num_sidebands, num_channels = self.nu.shape
        given = {
            "map_coadd": self.stored(self.cube),
            "sigma_wn_coadd": self.stored(self.sigma),
            "nhit_coadd": self.stored(self.hits),
            "freq_centers": self.nu,
            "freq_edges": np.array(
                [np.linspace(*ends, num_channels + 1) for ends in self.sidebands]
            ),
            "ra_centers": 0.5 * (ra[1:] + ra[:-1]),
            "dec_centers": 0.5 * (dec[1:] + dec[:-1]),
            "ra_edges": ra,
            "dec_edges": dec,
            "n_ra": 6,
            "n_dec": 5,
            "n_sidebands": num_sidebands,
            "n_channels": num_channels,
            "patch_center": np.array([170.0, 52.3]),
            "is_pca_subtr": False,
            "is_highpassed": False,
            "is_sim": False,
            "is_simcube": False,
            "wcs/CTYPE1": "RA---CAR",
            "params/verbose": "None",
        }
        with h5py.File(path, "w") as file:
            for name, value in (given | changes).items():
                if value is not None:
                    file[name] = value
        return path


WRITERS = {
    "map.fits": (write_fits, {}),
    "limlam.npz": (write_limlam, {"units": "uK"}),
    "edges.npz": (write_edges, {"units": "uK"}),
    "map.h5": (write_hdf5, {}),
    "comap.h5": (write_comap, {"units": "uK"}),
}
"""Of each layout: the writer, and what a reader must be told."""


def with_settings(config: Config, **sections: Any) -> Config:
    """A configuration with other sections."""
    return from_mapping(to_dict(config) | sections)
