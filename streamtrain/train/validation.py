"""Validation: the same samples every time, shared between the ranks, never stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamtrain.generator.generator import Batch, Generator
from streamtrain.generator.labels import ranges_with_bins
from streamtrain.train.distributed import World

F64 = NDArray[np.float64]

NUM_EXAMPLES = 3
"""Samples in the figure of predicted against true functions."""


class Evaluation(Protocol):
    """What a validation asks of the network: (label prediction [B, n_bins], mean loss)."""

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class RangeError:
    """Errors over the occupied bins of one luminosity range [dex]."""

    name: str
    rms_dex: float
    baseline_dex: float
    """The rms of always predicting the mean label of the validation samples."""


@dataclass(frozen=True)
class Example:
    """A few samples for the figures; in rank 0."""

    cube: NDArray[np.float32]
    draw: dict[str, Any]
    true: F64
    """log10 dN [NUM_EXAMPLES, n_bins]."""
    predicted: F64
    occupied: NDArray[np.bool_]
    """Bins that hold a halo."""


@dataclass(frozen=True)
class ValidationResult:
    """The outcome of one validation, the same in all ranks but for `example`."""

    loss: float
    ranges: list[RangeError]
    example: Example | None = field(repr=False)


def validate(
    generator: Generator,
    evaluate: Evaluation,
    world: World,
    *,
    num_samples: int,
    chunk: int,
    scale: str,
    stopped: Callable[[int], bool],
) -> ValidationResult | None:
    """Mean loss and errors over samples 0..num_samples-1 of the generator's split.

    chunk: samples generated at once in a rank; scale: 'log10' or 'linear', of the label
    stopped: called before each chunk with the number of samples done; True abandons the validation
    in all ranks, and None is returned.
    Raises ValueError if a sample is too bright for the cube.
    """
    mine = range(world.rank, num_samples, world.size)
    longest = -(-num_samples // world.size)
    sums = torch.zeros(5, generator.num_bins, dtype=torch.float64, device=world.device)
    example = None
    for start in range(0, longest, chunk):
        if stopped(start * world.size):
            return None
        indices = mine[start : start + chunk]
        if not indices:  # this rank has one sample less than the others
            continue
        batch = generator.generate(indices)
        batch.check()
        prediction, loss = evaluate(batch)
        occupied = (batch.counts.to(world.device) > 0).double()
        true, predicted = (_dex(v.to(world.device), scale) for v in (batch.label, prediction))
        if start == 0 and world.is_main:
            example = Example(
                cube=batch.cube[0].cpu().numpy(),
                draw=batch.draws[0],
                true=true[:NUM_EXAMPLES].cpu().numpy(),
                predicted=predicted[:NUM_EXAMPLES].cpu().numpy(),
                occupied=batch.counts[:NUM_EXAMPLES].cpu().numpy() > 0,
            )
        sums[0] += (occupied * (predicted - true) ** 2).sum(0)
        sums[1] += occupied.sum(0)
        sums[2] += (occupied * true).sum(0)
        sums[3] += (occupied * true**2).sum(0)
        sums[4] += loss.double() * len(indices) / num_samples
    totals = world.sum(sums).numpy()
    return ValidationResult(
        loss=float(totals[4, 0]), ranges=_range_errors(totals, generator.bin_edges), example=example
    )


def _dex(values: Tensor, scale: str) -> Tensor:
    """log10 of the counts, at least 0, in float64."""
    values = values.double()
    return values.clamp(min=1.0).log10() if scale == "linear" else values.clamp(min=0.0)


def _range_errors(totals: F64, bin_edges: F64) -> list[RangeError]:
    squares, number, label, label_squares = totals[:4]
    spread = label_squares - label**2 / np.maximum(number, 1.0)
    errors = []
    named = [(f"{low:g}-{high:g}", inside) for (low, high), inside in ranges_with_bins(bin_edges)]
    for name, inside in [*named, ("all", np.ones(len(bin_edges) - 1, bool))]:
        values = number[inside].sum()
        if values:
            rms = float(np.sqrt(squares[inside].sum() / values))
            baseline = float(np.sqrt(max(spread[inside].sum(), 0.0) / values))
            errors.append(RangeError(name, rms, baseline))
    return errors
