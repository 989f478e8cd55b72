"""Paint maps of one sky with a luminosity model, and sweep one of its parameters.

A `Painter` prepares the halos once; each further map takes milliseconds. All maps here show the
same halos with the same scatter, so that they differ by the parameter alone.
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from streamtrain import Grid, Lightcone, Painter


def main(folder: Path = Path("runs/examples"), number: int = 9) -> Figure:
    # Halos above 5e10 Msun over 0.5 deg, z = 2.4..3.4, in a file that ships with streamtrain.
    # They have 84 % of the light of this model, as a warning says.
    sky = Lightcone.open("configs/reference_0000.h5")
    # A field of 0.35 deg in COMAP's band, 20 channels of 64 x 64 pixels, CO(1-0).
    grid = Grid(fov_deg=(0.35, 0.35), shape=(20, 64, 64), nu_GHz=(34.0, 26.0), nu_rest_GHz=115.27)
    painter = Painter(sky, grid, "li16", min_mass_Msun=5e10)
    print("parameters of li16:", painter.parameters)

    # alpha is the slope of the relation between infrared and CO luminosity.
    alphas = np.linspace(1.25, 1.5, number)
    cubes, counts = painter.paint([{"alpha": float(alpha)} for alpha in alphas], seed=7)
    print("cubes", tuple(cubes.shape), "[map, frequency, dec, ra]; halos", tuple(counts.shape))

    edges = painter.bin_edges  # log10 L/Lsun, one more than there are bins
    bright = counts[:, edges[:-1] >= 5.5].sum(1)  # of the bins from 5.5 to 7
    for alpha, cube, halos in zip(alphas, cubes, bright, strict=True):
        mean = float(cube.mean())
        print(f"alpha = {alpha:.3f}   <T> = {mean:.3f} uK   {int(halos)} halos of 10^5.5-7 Lsun")

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    extent = (-0.175, 0.175, -0.175, 0.175)
    left.imshow(cubes[number // 2, 10].numpy(), origin="lower", extent=extent)
    left.set(title=f"channel 10, alpha = {alphas[number // 2]:.3f}")
    left.set(xlabel="ra [deg]", ylabel="dec [deg]")
    for alpha, halos in zip(alphas, counts, strict=True):
        right.stairs(halos.numpy(), edges, label=f"{alpha:.3f}")
    right.set(yscale="log", xlabel="log10 L/Lsun", ylabel="halos per bin")
    figure.legend(title="alpha", fontsize="x-small", loc="outside right center")
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "sweep.png")
    return figure


if __name__ == "__main__":
    main()
