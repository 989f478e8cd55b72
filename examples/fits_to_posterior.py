"""From a configuration to the posterior of a FITS map, in Python.

A small network is trained first, and the map is painted from a sky that it has not seen, so that
the truth is known. With a run and a map of your own, the last part is all.
"""

from pathlib import Path
from typing import Any

import torch

import streamtrain
from streamtrain import Config, Lightcone, Posterior, load_config, paint, write_fits
from streamtrain.cli.main import main as command

CONFIG = "small.yaml"  # ships with streamtrain


def write_map(config: Config, file: Path) -> torch.Tensor:
    """A FITS cube as an observer would write it; returns the true halos per bin."""
    sky = Lightcone.open(next(Path().glob(config.data.test[0])))
    cube, counts = paint(sky, config.grid, "li16", seed=1, min_mass_Msun=config.data.min_mass_Msun)
    noise = 2.0 * torch.randn(cube.shape, generator=torch.Generator().manual_seed(1))  # uK
    about = {"model": "li16", "noise": "2 uK per voxel"}
    write_fits(
        file, cube + noise, config.grid, centre_deg=(150.1, 2.2), about=about, overwrite=True
    )
    return counts


def main(skies: tuple[int, int, int] = (6, 2, 1), maps: int = 1000, **changes: Any) -> Posterior:
    # Lightcones for training, validation and test. Files that are there are kept.
    command(["catalog", "make", "--for", CONFIG, "--number", *map(str, skies)])
    config = load_config(CONFIG, **changes)
    run = streamtrain.train(config)  # a training that was stopped goes on
    print(streamtrain.evaluate(run))

    file = Path(config.run) / "map.fits"
    true = write_map(config, file)
    with run:  # compare_with: maps of the prior, for the alarm
        posterior = run.infer(file, compare_with=maps)
    print(posterior)  # N(>L), rho_L and <T> with their errors, and warnings if there are any
    low, high = posterior.above.band(0.95)  # of N(>L) as a whole
    above = true.flip(0).cumsum(0).flip(0)
    for k in range(0, len(true), 7):
        edge = posterior.bin_edges[k]
        print(f"N(>10^{edge:.1f} Lsun): {low[k]:.0f} to {high[k]:.0f}, in truth {above[k]}")
    posterior.plot(Path(config.run) / "posterior.png", true=true)
    return posterior


if __name__ == "__main__":
    main()
