"""The posterior of a FITS map from a network that ships with streamtrain, without a training.

The map is painted from a sky that no training saw, so that the truth is known. With a map of your
own the last part is all; `streamtrain runs list` says which networks there are.
"""

from dataclasses import replace
from itertools import count
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
    write_fits(file, cube + noise, grid, centre_deg=(150.1, 2.2), about=about)
    return counts


def main(folder: Path | None = None) -> Posterior:
    """folder: for the map and the figure; default: a new one, so that no file of yours is lost."""
    names = (Path(f"ready_network_{number}") for number in count(1))
    folder = folder or next(name for name in names if not name.exists())
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "map.fits"
    true = write_map(file)

    posterior = Run.open(NETWORK).infer(file)
    print(posterior)  # N(>L), rho_L and <T> with their errors, the alarm, and warnings
    for integral, found in zip(posterior.functionals, posterior.estimates(), strict=True):
        low, high = found.interval_68
        print(
            f"{found.name}: {found.median:.4g} ({low:.4g} to {high:.4g}), "
            f"in truth {integral.of(true.numpy()):.4g} {found.unit}"
        )
    posterior.plot(folder / "posterior.png", true=true)
    print(f"wrote {file} and {folder / 'posterior.png'}")
    return posterior


if __name__ == "__main__":
    main()
