"""From a map in a FITS file to the posterior of its luminosity function.

A small network is trained first, and the map is painted from a sky that it has not seen, so that
the truth is known. With a run and a map of your own, the last part is all.
"""

from pathlib import Path

import numpy as np
from astropy.io import fits

from streamtrain import Lightcone, Posterior, Run, load_config, paint
from streamtrain.cli.main import main as streamtrain
from streamtrain.config import Config

CONFIG = str(Path(__file__).parent / "small.yaml")


def write_map(config: Config, file: Path) -> np.ndarray:
    """A FITS cube in K, as an observer would write it; returns the true halos per bin."""
    sky = Lightcone.open(next(Path().glob(config.data.test[0])))
    cube, counts = paint(sky, config.grid, "li16", seed=1, min_mass_Msun=config.data.min_mass_Msun)
    noise = np.random.default_rng(1).normal(0.0, 2.0, cube.shape)  # uK, the level of the training
    image = fits.PrimaryHDU(1e-6 * (cube.numpy() + noise))  # K; the axes are [frequency, dec, ra]
    (_, num_dec, num_ra), fov = cube.shape, config.grid.fov_deg
    axes = [  # coordinates of the middle of the first voxel, and steps
        ("RA---TAN", "deg", num_ra / 2 + 0.5, 0.0, fov[0] / num_ra),
        ("DEC--TAN", "deg", num_dec / 2 + 0.5, 0.0, fov[1] / num_dec),
        ("FREQ", "Hz", 0.5, 1e9 * config.grid.nu_GHz[0], -1e9 * config.grid.dnu_GHz),
    ]
    for number, values in enumerate(axes, 1):
        for key, value in zip(("CTYPE", "CUNIT", "CRPIX", "CRVAL", "CDELT"), values, strict=True):
            image.header[f"{key}{number}"] = value
    image.header["BUNIT"], image.header["RESTFRQ"] = "K", 1e9 * config.grid.nu_rest_GHz
    image.writeto(file, overwrite=True)
    return counts.numpy()


def main(*settings: str, skies: tuple[int, int, int] = (6, 2, 1), maps: int = 1000) -> Posterior:
    # The same as on the command line. Files that are there are kept, and a training goes on.
    streamtrain(["catalog", "make", "--for", CONFIG, "--number", *map(str, skies), *settings])
    streamtrain(["train", CONFIG, *settings])
    config = load_config(CONFIG, settings)
    true = write_map(config, Path(config.run) / "map.fits")

    with Run.open(config.run) as run:  # compare_with: maps of the prior, for the alarm
        posterior = run.infer(Path(config.run) / "map.fits", compare_with=maps)
    print(posterior)  # N(>L), rho_L and <T> with their errors, and warnings if there are any
    low, high = posterior.above.band(0.95)  # of N(>L) as a whole
    above = true[::-1].cumsum()[::-1]
    for k in range(0, len(true), 7):
        edge = posterior.bin_edges[k]
        print(f"N(>10^{edge:.1f} Lsun): {low[k]:.0f} to {high[k]:.0f}, in truth {above[k]}")
    posterior.plot(Path(config.run) / "posterior.png")
    return posterior


if __name__ == "__main__":
    main()
