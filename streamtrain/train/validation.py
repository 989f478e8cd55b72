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
from streamtrain.train.distributed import World

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

RANGES = ((3.5, 4.5), (4.5, 5.5), (5.5, 6.0), (6.0, 6.5), (6.5, 7.0))
"""Luminosity ranges that errors are given for, log10(L/Lsun)."""
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

    cube: F32
    draw: dict[str, Any]
    truth: F32
    prediction: F32


@dataclass(frozen=True)
class ValidationResult:
    """The outcome of one validation, the same in all ranks but for `example`."""

    loss: float
    ranges: list[RangeError]
    example: Example | None = field(repr=False)


def ranges_with_bins(bin_edges: F64) -> list[tuple[str, NDArray[np.bool_]]]:
    """(name, mask of its bins [n_bins]) of each range that holds the centre of a bin; all last."""
    centres = 0.5 * (bin_edges[1:] + bin_edges[:-1])
    found = []
    for low, high in RANGES:
        inside = (centres >= low - 1e-9) & (centres < high - 1e-9)
        if inside.any():
            found.append((f"{low:g}-{high:g}", inside))
    return [*found, ("all", np.ones(len(centres), bool))]


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
        label = batch.label.to(world.device)
        prediction, loss = evaluate(batch)
        if start == 0 and world.is_main:
            example = Example(
                cube=batch.cube[0].cpu().numpy(),
                draw=batch.draws[0],
                truth=label[:NUM_EXAMPLES].cpu().numpy(),
                prediction=prediction[:NUM_EXAMPLES].cpu().numpy(),
            )
        occupied = (batch.counts.to(world.device) > 0).double()
        true, predicted = (_dex(values, scale) for values in (label, prediction))
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
    for name, inside in ranges_with_bins(bin_edges):
        values = number[inside].sum()
        if values:
            rms = float(np.sqrt(squares[inside].sum() / values))
            baseline = float(np.sqrt(max(spread[inside].sum(), 0.0) / values))
            errors.append(RangeError(name, rms, baseline))
    return errors
