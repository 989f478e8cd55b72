"""A finite set of samples in files, for people with other tools."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

from streamtrain.config import Config
from streamtrain.files import reserve, writing
from streamtrain.generator.generator import Generator
from streamtrain.maps.export_hdf5 import SampleFile
from streamtrain.maps.export_limlam import LimlamFolder
from streamtrain.maps.steps import raw
from streamtrain.progress import Progress
from streamtrain.rng import Split

Format = Literal["hdf5", "limlam"]

BATCH_SIZE = 16
"""Samples made at a time; it decides nothing but memory."""


def export(
    config: Config,
    out: str | Path,
    *,
    samples: int,
    first_index: int = 0,
    split: Split = "train",
    format: Format = "hdf5",
    before_transforms: bool = False,
    device: str = "cpu",
    threads: int = 1,
    progress: Progress | None = None,
) -> Path:
    """Write samples first_index, first_index + 1, ... of a split to `out`, a file (hdf5) or a
    folder (limlam), which appears whole or not at all.

    before_transforms: maps in their units, before log_modulus and the like (see `steps.raw`), as
    they always are in the format limlam. Raises ValueError, one sentence, for input that cannot be
    used or if `out` is there already.
    """
    target = Path(out)
    if samples < 1:
        raise ValueError(f"--samples {samples}: an export needs one sample or more")
    if not 0 <= first_index <= 2**64 - samples:
        raise ValueError(f"--first-index {first_index} is outside 0..2^64 - samples")
    if target.exists():
        raise ValueError(f"{target} is there already: give another --out, or remove it")
    if format == "hdf5" and target.suffix.lower() not in (".h5", ".hdf5", ".hd5"):
        raise ValueError(f"--out {target}: the name of an HDF5 file ends in .h5 or .hdf5")
    made_of = raw(config) if before_transforms or format == "limlam" else config
    generator = Generator(made_of, split, device, threads)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        writer = SampleFile if format == "hdf5" else LimlamFolder
        size = 4 * samples * (math.prod(generator.input_shape) + generator.num_outputs)
        with writing(target) as part:
            reserve(part, size)
            with writer(part, generator).open() as write:
                for start in range(0, samples, BATCH_SIZE):
                    stop = min(start + BATCH_SIZE, samples)
                    batch = generator.generate(range(first_index + start, first_index + stop))
                    batch.check()
                    write(batch)
                    if progress is not None:
                        progress.update(f"{stop}/{samples} samples written")
    finally:
        generator.close()
    return target
