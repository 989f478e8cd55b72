"""Make samples with a luminosity model of your own, its parameters drawn from a prior.

The function is called once, with symbols, and becomes a part of the kernel that paints. The same
two settings serve `streamtrain train`, `preview` and every other command.
"""

import numpy as np

from streamtrain import Generator, load_config
from streamtrain.generator.batch import Batch
from streamtrain.priors import Uniform


def double_power_law(mass_Msun, z, *, peak=3e5, log10_knee=12.0, low=1.7, high=0.3, sigma_dex=0.3):
    """CO luminosity [Lsun]: mass^low below the knee, mass^high above, with redshift as (1 + z).

    The argument `sigma_dex` is the log-normal scatter at fixed mass.
    """
    m = mass_Msun / 10.0**log10_knee
    return peak * 2 / (m**-low + m**-high) * (1 + z) / 4


# Parameters without a prior stay at their defaults. A pair is the mean and width of a Gaussian.
double_power_law.prior = {"peak": (3e5, 5e4), "log10_knee": Uniform(11.7, 12.3), "low": (1.7, 0.1)}


def main(number: int = 6) -> Batch:
    settings = [f"emit.line.model={__file__}:double_power_law", "emit.line.prior=own"]
    config = load_config("configs/reference.yaml", settings)
    generator = Generator(config, "test")
    batch = generator.generate(range(number))
    edges = generator.bin_edges
    for draw, counts in zip(batch.draws, batch.counts, strict=True):
        drawn = {name: float(f"{value:.3g}") for name, value in draw["parameters"].items()}
        halos = counts.numpy()
        brightest = edges[1:][np.flatnonzero(halos)[-1]]
        print(f"{drawn}: {halos.sum()} halos, the brightest below 10^{brightest:.2f} Lsun")
    generator.close()
    return batch


if __name__ == "__main__":
    main()
