"""What a prior makes, seen before any training: luminosity functions, mean map, lost halos."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.bins import Counts, cumulative
from streamtrain.catalogs.lightcone import Lightcone
from streamtrain.catalogs.skies import LightconeFiles
from streamtrain.catalogs.synthesis.fresh import FreshSkies
from streamtrain.config import Config
from streamtrain.evaluate.folder import output_folder
from streamtrain.figures import Float, write_png
from streamtrain.generator.generator import Generator
from streamtrain.generator.painter import PaintArguments
from streamtrain.machine.progress import Progress
from streamtrain.machine.workers import ALONE, Resources
from streamtrain.numerics.rng import Split
from streamtrain.operators.pool import PoolConfig
from streamtrain.preview import prior_figures
from streamtrain.preview.prior_figures import Int, LuminosityFunctions, PaintedSamples

FEW_HALOS = 1000
"""A draw with fewer halos inside the label's luminosities is counted in the summary."""
LARGEST_LOSS = 0.05
"""Share of halos above the label's luminosities that is warned of."""
BATCH_SIZE = 64


def luminosity_functions(
    counts: Int, above: int, bin_edges: Float, volume_Mpc3: float
) -> LuminosityFunctions:
    """N(>L), phi and phi*L of a map: counts [num_bins], halos above the last edge, edges
    log10(L/Lsun) [num_bins + 1], comoving volume [Mpc^3]."""
    edges = 10.0**bin_edges
    return LuminosityFunctions(
        above=(cumulative(counts) + above).astype(np.float64),
        phi=counts / (volume_Mpc3 * np.diff(edges)),
        phi_L=counts / (volume_Mpc3 * np.diff(np.log(edges))),
        bin_edges=bin_edges,
    )


def signal_generator(
    config: Config,
    split: Split = "train",
    resources: Resources = ALONE,
    lightcones: Sequence[Lightcone] | LightconeFiles | FreshSkies | None = None,
) -> Generator:
    """Paints a configuration's samples with a single pixel per channel: their halos, luminosities
    and sums are the same, and nothing is done to the map. lightcones: as for `Generator`."""
    _, dec, ra = config.grid.shape
    observe = {"pool": PoolConfig(factor=(1, dec, ra))}
    alone = replace(config, observe=observe)
    how = resources.of_generator(config.train.threads)
    return Generator(alone, split, lightcones=lightcones, **how)


def paint_samples(
    generator: Generator, indices: Sequence[int], progress: Progress | None = None
) -> PaintedSamples:
    """Paint the samples of these indices, without noise or any other operator, and keep their
    numbers. On a CPU the generator's number of threads paint a sample each."""
    signal, counts = [], []
    records: list[dict[str, Any]] = []
    with ThreadPoolExecutor(generator.threads, "streamtrain-preview") as pool:
        for start in range(0, len(indices), BATCH_SIZE):
            some = indices[start : start + BATCH_SIZE]
            for _, begin, end in generator.schedule.runs(some):
                drawing = generator.draw(some[begin:end])
                arguments = drawing.arguments
                step = 1 if generator.device.type == "cpu" else len(arguments)
                parts = [(k, k + step) for k in range(0, len(arguments), step)]
                for means, numbers in pool.map(
                    lambda p, j=arguments: _paint(generator, j, *p), parts
                ):
                    signal.append(means)
                    counts.append(numbers)
                records += drawing.records
            if progress is not None:
                progress.count("painting", len(records), len(indices), "samples")
    found = Counts(np.concatenate(counts).astype(np.int64))
    return PaintedSamples(
        counts=found.bins,
        above=found.above,
        below=found.below,
        saturated=found.saturated,
        mean=np.concatenate(signal),
        models=[str(record["model"]) for record in records],
        lightcones=[str(record["lightcone"]) for record in records],
        bin_edges=generator.bin_edges,
    )


def _paint(
    generator: Generator, arguments: PaintArguments, first: int, last: int
) -> tuple[Float, NDArray[np.int32]]:
    """Mean signal [n] and counts [n, num_bins + 3] of samples first..last-1.

    Pooling joins voxels but leaves the sum of the deposits, so this sum over the number of voxels
    before pooling is the mean of the map, whether pooling is a mean or a sum.
    """
    total, counts = generator.painter.paint(arguments, first, last)
    sums = total.flatten(1).sum(dim=1).cpu().numpy().astype(np.float64)
    num_voxels = int(np.prod(generator.grid.shape))
    return sums / generator.painter.scale / num_voxels, counts.cpu().numpy()


def functions_of_sample(
    generator: Generator, index: int
) -> tuple[PaintedSamples, LuminosityFunctions]:
    """A single sample painted, and its N(>L), phi and phi*L in the cosmology of its lightcone."""
    painted = paint_samples(generator, [index])
    cone = next(c for c in generator.lightcones if c.name == painted.lightcones[0])
    volume = generator.grid.volume_Mpc3(cone.cosmology["Omega_m"], cone.cosmology["h"])
    above = int(painted.above[0])
    return painted, luminosity_functions(painted.counts[0], above, painted.bin_edges, volume)


def summary(painted: PaintedSamples, unit: str) -> str:
    """What the prior makes, in a few lines; those of a problem start with `warning:`."""
    low, middle, high = painted.mean_percentiles()
    first, last = (f"10^{painted.bin_edges[k]:.3g}" for k in (0, -1))
    halos = painted.halos.sum(axis=0)
    below, inside, above = halos / max(halos.sum(), 1)
    few = float(np.mean(painted.halos[:, 1] < FEW_HALOS))
    models = ", ".join(f"{name} {number}" for name, number in painted.num_of_model.items())
    mean = "<T>" if unit == "uK" else "<I>"
    lines = [
        f"{len(painted)} training samples: {models}",
        f"mean signal {mean}: median {middle:.3g} {unit}, 95 % of the samples in "
        f"{low:.3g} .. {high:.3g} {unit}",
        f"halos: {_percent(below)} below {first} Lsun, {_percent(inside)} inside {first} .. {last} "
        f"Lsun, {_percent(above)} above",
        f"samples with fewer than {FEW_HALOS} halos inside: {_percent(few)}",
    ]
    if above > LARGEST_LOSS:
        lines.append(
            f"warning: {_percent(above)} of all halos lie above the label's luminosities; see "
            "label.log10_L and emit.line.prior"
        )
    wrong = int(np.count_nonzero(painted.saturated))
    if wrong:
        lines.append(
            f"warning: {wrong} samples hold halos too bright for the cube's fixed-point range: "
            "training would stop at them; grid.brightest_Lsun makes room for them"
        )
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{100.0 * share:.1f} %"


def preview_prior(
    config: Config,
    *,
    samples: int = 1000,
    index: int = 0,
    out: Path | None = None,
    resources: Resources = ALONE,
) -> list[Path]:
    """Paint training samples 0..samples-1, print what the prior made of them, and draw prior.png,
    and luminosity.png of the sample `index`, into `out` (default: the run folder).

    Returns the two paths. Raises ValueError, one sentence, for input that cannot be used.
    """
    start = time.perf_counter()
    if samples < 1:
        raise ValueError(f"--samples {samples}: a preview needs one sample or more")
    folder = output_folder(config, out, test=False)
    generator = signal_generator(config, resources=resources)
    print(generator.describe())
    unit = config.grid.units
    one, functions = functions_of_sample(generator, index)
    painted = paint_samples(generator, range(samples), resources.progress)
    resources.progress.close()
    title = f"training sample {index}: {one.models[0]}, " + prior_figures.mean_text(
        float(one.mean[0]), unit
    )
    figures = {
        "prior.png": prior_figures.prior(painted, unit),
        "luminosity.png": prior_figures.luminosity(functions, title),
    }
    generator.close()
    for name, figure in figures.items():
        write_png(figure, folder / name)
    print(summary(painted, unit))
    print(f"wrote {' and '.join(str(folder / name) for name in figures)}")
    print(f"took {time.perf_counter() - start:.1f} s")
    return [folder / name for name in figures]
