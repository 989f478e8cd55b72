"""configs/time.yaml paints: a strip of one pixel across, five lines in one band."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support import small
from support.network_tools import network_for

from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.config import load_config
from streamtrain.cosmology import Cosmology
from streamtrain.generator.generator import Generator

HALOS = 400_000
SIDE_DEG = 1.55


def lightcone(z_range: tuple[float, float], seed: int) -> Lightcone:
    """Halos of 1e11 Msun, evenly in angles and distance: enough of them for a narrow strip."""
    rng = np.random.default_rng(seed)
    near, far = Cosmology().comoving_distance(z_range)
    chi = rng.uniform(near, far, HALOS)
    x, y = np.radians(rng.uniform(-SIDE_DEG / 2, SIDE_DEG / 2, (2, HALOS)))
    position = np.stack([-np.tan(x), np.tan(y) / np.cos(x), np.ones(HALOS)])
    position *= chi / np.sqrt((position**2).sum(axis=0))
    half = SIDE_DEG / 2
    return Lightcone.from_arrays(
        *position,
        np.full(HALOS, 1e11),
        Cosmology().redshift(chi),
        cosmology=Cosmology().to_dict(),
        footprint_deg=(-half, half, -half, half),
        z_range=z_range,
        min_mass_Msun=1e10,
        realisation=f"even-{seed}",
    )


@small.EXTRAPOLATES
def test_it_paints_and_a_network_takes_its_maps(tmp_path: Path) -> None:
    """All lines shine into it; noise is all that is left without them, at the level that was drawn,
    and grows with frequency; the network of the preset takes a map of one pixel across."""
    skies = {"line": (5.2, 8.1), "co": (0.14, 2.35)}
    for number, (name, z_range) in enumerate(skies.items()):
        lightcone(z_range, number).save(tmp_path / f"{name}.h5")
    config = load_config("configs/time.yaml")
    others = [name for name in config.emit if name.startswith("interloper")]
    assert len(others) == 4
    files = {"data.train": "line"} | {f"emit.{name}.train": "co" for name in others}
    settings = [f"{name}=['{tmp_path / file}.h5']" for name, file in files.items()]
    more = {"data.validation": "[]", "data.test": "[]", "train.threads": "1"}
    more |= {f"emit.{name}.{split}": "[]" for name in others for split in ("validation", "test")}
    settings += [f"{name}={value}" for name, value in more.items()]
    config = load_config("configs/time.yaml", settings)
    generator = Generator(config, "train")
    batch = generator.generate(range(8))
    assert batch.cube.shape == (8, 40, 1, 180) and torch.isfinite(batch.cube).all()
    assert (batch.counts.sum(dim=1) > 0).all()
    scale = config.observe["asinh"].scale
    maps = scale * np.sinh(batch.cube.double().numpy())
    noise = scale * np.sinh(generator.blank(range(8)).double().numpy())
    light = (maps - noise).mean(axis=(0, 2, 3))
    assert (light > 0.0).all()
    middle = np.linspace(302.0, 210.0, 81)[1::2]
    for k, draw in enumerate(batch.draws):
        sigma = draw["noise"]["sigma_uK"] * (middle / 250.0) ** 3.2
        assert (noise[k, :, 0] / sigma[:, None]).std() == pytest.approx(1.0, abs=0.03)
    assert torch.isfinite(network_for(generator)(batch.cube)).all()
    generator.close()
