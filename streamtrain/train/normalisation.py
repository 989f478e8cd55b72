"""Moments of inputs and labels, from the first training samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby

import torch
from torch import Tensor

from streamtrain.generator.batch import Batch, join
from streamtrain.generator.draws import SampleGenerator
from streamtrain.networks.network import Network

NUM_SAMPLES = 128
"""Training samples 0..127: a mean label to 9 % of its scatter."""
KEPT_BYTES = 1 << 28
"""Maps of the samples are kept while their moments are taken, if they need no more than this; else
they are made again, for networks that look at them more than once."""
NUM_LABELS = 32
"""How many of these samples tell whether labels differ at all."""


def set_normalisation(
    network: Network,
    generator: SampleGenerator,
    *,
    chunk: int,
    report: Callable[[int, int], None],
) -> None:
    """Set the network's moments of input and label; the same ones in every rank.

    chunk: samples generated at once; report: called with (samples done, samples in all) before
    each, and before samples of other lightcones.
    Raises ValueError if a sample is too bright for the cube, and if all labels are alike.
    """
    inputs = _Moments()
    targets, cubes = [], []
    for batch in _batches(generator, NUM_SAMPLES, chunk, report):
        if batch.cube[0].nbytes * NUM_SAMPLES <= KEPT_BYTES:
            cubes.append(batch.cube)
        inputs.add(batch.cube.transpose(0, 1).flatten(1))
        unit_label = batch.unit_label.expand(len(batch), -1)
        targets.append((batch.label, batch.counts, unit_label))
    label, counts, unit_label = map(torch.cat, zip(*targets, strict=True))
    _check_labels(generator, label)
    network.set_normalisation(*inputs.mean_and_std(), label, counts, unit_label)

    def again() -> Iterator[Tensor]:
        if cubes:
            return iter(cubes)
        return (batch.cube for batch in _batches(generator, NUM_SAMPLES, chunk, report))

    network.body.set_normalisation(again)


def refuse_equal_labels(
    generator: SampleGenerator, chunk: int, report: Callable[[int, int], None]
) -> None:
    """Raise ValueError if the first training samples have one and the same label;
    `set_normalisation` does that too."""
    some = _batches(generator, NUM_LABELS, chunk, report)
    _check_labels(generator, torch.cat([batch.label for batch in some]))


def _check_labels(generator: SampleGenerator, label: Tensor) -> None:
    if (label != label[0]).any():
        return
    what = f"the first {len(label)} training samples all have the same label"
    if generator.label.is_class:
        raise ValueError(
            f"{what}, the class {generator.classes[int(label[0].argmax())]}: there is nothing to "
            "learn; give emit.line.mixture several models"
        )
    raise ValueError(
        f"{what}: there is nothing to learn; draw the parameters of the luminosity model "
        "(emit.line.prior, prior_scale, parameters), and see with `streamtrain preview --prior` "
        "that its luminosities lie in the label"
    )


def _batches(
    generator: SampleGenerator, number: int, chunk: int, report: Callable[[int, int], None]
) -> Iterator[Batch]:
    """The first training samples."""
    for start in range(0, number, chunk):
        parts = []
        for _, part in groupby(range(start, min(start + chunk, number)), generator.window):
            indices = list(part)
            report(indices[0], number)
            parts.append(generator.generate(indices))
        batch = parts[0] if len(parts) == 1 else join(parts)
        batch.check()
        yield batch


class _Moments:
    """Mean and standard deviation per row, accumulated in float64."""

    def __init__(self) -> None:
        self._number = 0
        self._sum: Tensor | float = 0.0
        self._squares: Tensor | float = 0.0

    def add(self, values: Tensor) -> None:
        """values: [rows, samples of each row]."""
        wide = values.double()
        self._number += wide.shape[1]
        self._sum = self._sum + wide.sum(1)
        self._squares = self._squares + (wide * wide).sum(1)

    def mean_and_std(self) -> tuple[Tensor, Tensor]:
        """float32 [rows] each."""
        mean = torch.as_tensor(self._sum) / self._number
        variance = torch.as_tensor(self._squares) / self._number - mean * mean
        return mean.float(), variance.clamp(min=0.0).sqrt().float()
