"""The posterior of a FITS map from a network that ships with streamtrain, without a training.

The map is painted from a sky that no training saw, so that the truth is known. With a map of your
own the last part is all; `streamtrain runs list` says which networks there are.
"""

from dataclasses import replace
from pathlib import Path

import torch

from streamtrain import Lightcone, Posterior, Run, load_config, paint, write_fits
from streamtrain.cli.main import main as command

NETWORK = "quickstart"
SEED = 31415  # of the sky


def write_map(file: Path) -> torch.Tensor:
    """A FITS cube as an observer would write it; returns the true halos per bin."""
    command(["catalog", "make", "1", "--footprint-deg", "1.0", "--first-seed", str(SEED)])
    sky = Lightcone.open(f"lightcones/sky_{SEED}.h5")
    config = load_config(NETWORK)
    grid = replace(config.grid, shape=(10, 32, 32))  # the voxels that the network takes
    cube, counts = paint(sky, grid, "chung22", seed=1, min_mass_Msun=config.data.min_mass_Msun)
    noise = 0.3 * torch.randn(cube.shape, generator=torch.Generator().manual_seed(1))  # uK
    about = {"model": "chung22", "noise": "0.3 uK per voxel"}
    write_fits(file, cube + noise, grid, centre_deg=(150.1, 2.2), about=about, overwrite=True)
    return counts


def main(folder: str = ".") -> Posterior:
    file = Path(folder) / "map.fits"
    true = write_map(file)

    posterior = Run.open(NETWORK).infer(file)
    print(posterior)  # N(>L), rho_L and <T> with their errors, the alarm, and warnings
    posterior.plot(Path(folder) / "posterior.png", true=true)
    return posterior


if __name__ == "__main__":
    main()
