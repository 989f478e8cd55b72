"""Validation: the same samples every time, shared between the ranks, never stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamtrain.generator.bins import ranges_with_bins
from streamtrain.generator.generator import Batch, Generator
from streamtrain.generator.labels import Label
from streamtrain.train.distributed import World

F64 = NDArray[np.float64]

NUM_EXAMPLES = 3
"""Samples in the figure of predicted against true functions."""


class Evaluation(Protocol):
    """What a validation asks of the network: (label prediction [B, num_outputs], mean loss)."""

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class RangeError:
    """Errors over the occupied bins of one luminosity range [dex]."""

    name: str
    rms_dex: float
    baseline_dex: float
    """The rms of always predicting the mean label of the validation samples."""


@dataclass(frozen=True)
class ClassErrors:
    """How well luminosity models are told apart."""

    accuracy: float
    baseline_accuracy: float
    """Of always answering the most frequent class of the validation samples."""
    baseline_loss: float
    """Cross-entropy of always answering the class frequencies of the validation samples [nat]."""
    confusion: NDArray[np.int64]
    """Samples of each true class (row) and predicted class (column)."""


@dataclass(frozen=True)
class ExampleFunctions:
    """A few luminosity functions, [num_examples, num_bins] each."""

    true: F64
    """log10 of the count."""
    predicted: F64
    occupied: NDArray[np.bool_]
    """Bins that hold a halo."""
    unit: F64 | None
    """What one halo is worth in the label's quantity, also [1, num_bins]; None: one."""


@dataclass(frozen=True)
class Example:
    """A few samples for the figures; in rank 0."""

    cube: NDArray[np.float32]
    draw: dict[str, Any]
    functions: ExampleFunctions | None
    """None where the label is a class."""


@dataclass(frozen=True)
class ValidationResult:
    """The outcome of one validation, the same in all ranks but for `example`."""

    loss: float
    ranges: list[RangeError]
    """Empty where the label is a class."""
    classes: ClassErrors | None
    example: Example | None = field(repr=False)


def validate(
    generator: Generator,
    evaluate: Evaluation,
    world: World,
    *,
    num_samples: int,
    chunk: int,
    stopped: Callable[[int], bool],
) -> ValidationResult | None:
    """Mean loss and errors over samples 0..num_samples-1 of the generator's split.

    chunk: samples generated at once in a rank
    stopped: called before each chunk with the number of samples done; True abandons the validation
    in all ranks, and None is returned.
    Raises ValueError if a sample is too bright for the cube.
    """
    mine = range(world.rank, num_samples, world.size)
    longest = -(-num_samples // world.size)
    label = generator.label
    rows = label.num_outputs if label.is_class else 4
    sums = torch.zeros(rows, label.num_outputs, dtype=torch.float64, device=world.device)
    total_loss = torch.zeros((), dtype=torch.float64, device=world.device)
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
        sums += _confusion(batch, prediction) if label.is_class else _sums(label, batch, prediction)
        total_loss += loss.double() * len(indices) / num_samples
        if start == 0 and world.is_main:
            example = _example(label, batch, prediction)
    totals = world.sum(sums).numpy()
    return ValidationResult(
        loss=float(world.sum(total_loss)),
        ranges=[] if label.is_class else _range_errors(totals, generator.bin_edges),
        classes=_class_errors(totals) if label.is_class else None,
        example=example,
    )


def _sums(label: Label, batch: Batch, prediction: Tensor) -> Tensor:
    """Over the occupied bins of a batch, [4, num_bins]: squared errors, number, labels, their
    squares; in dex."""
    device = prediction.device
    occupied = label.occupied(batch.label, batch.counts).to(device).double()
    true = label.log10_counts(batch.label.to(device), batch.one_halo)
    predicted = label.log10_counts(prediction, batch.one_halo)
    squares = (predicted - true) ** 2
    return torch.stack([(occupied * v).sum(0) for v in (squares, occupied, true, true**2)])


def _confusion(batch: Batch, prediction: Tensor) -> Tensor:
    """Number of samples by true and predicted class, [num_classes, num_classes]."""
    true = batch.label.to(prediction.device).double()
    predicted = torch.zeros_like(true).scatter_(1, prediction.argmax(1, keepdim=True), 1.0)
    return true.T @ predicted


def _example(label: Label, batch: Batch, prediction: Tensor) -> Example:
    functions = None
    if not label.is_class:
        some = slice(NUM_EXAMPLES)
        one_halo = batch.one_halo[some]
        true, predicted = (
            label.log10_counts(v[some].cpu(), one_halo).numpy() for v in (batch.label, prediction)
        )
        occupied = label.occupied(batch.label[some], batch.counts[some]).cpu().numpy()
        functions = ExampleFunctions(true, predicted, occupied, label.unit_of(one_halo))
    return Example(batch.cube[0].cpu().numpy(), batch.draws[0], functions)


def _range_errors(totals: F64, bin_edges: F64) -> list[RangeError]:
    squares, number, label, label_squares = totals
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


def _class_errors(confusion: F64) -> ClassErrors:
    number = confusion.sum()
    shares = confusion.sum(axis=1) / number
    present = shares[shares > 0]
    return ClassErrors(
        accuracy=float(np.trace(confusion) / number),
        baseline_accuracy=float(shares.max()),
        baseline_loss=float(-np.sum(present * np.log(present))),
        confusion=np.rint(confusion).astype(np.int64),
    )
