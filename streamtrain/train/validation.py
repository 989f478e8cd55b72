"""Validation: the same samples every time, shared between the ranks, never stored.

`Summary` is what a call of the trainer leaves to say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamtrain.bins import LuminosityBins, ranges_with_bins
from streamtrain.generator.batch import Batch
from streamtrain.generator.draws import SampleGenerator
from streamtrain.labels import Label
from streamtrain.ranks import RankedTruth, scalars
from streamtrain.train.distributed import World
from streamtrain.train.probe import Dependence, class_skill, pair_sums, skill
from streamtrain.train.settings import ExtensionConfig

F64 = NDArray[np.float64]

RESIDUAL_EDGES = np.linspace(-1.0, 1.0, 81)
"""Edges of the histograms of log10(predicted / true) [dex]."""
NUM_EXAMPLES = 3
"""Samples in the figure of predicted against true functions."""


class Evaluation(Protocol):
    """What a validation asks of the network: (label prediction [B, num_outputs], mean loss)."""

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]: ...


NUM_DRAWS = 64
"""Functions drawn for each sample from a head that predicts all bins together."""


@dataclass(frozen=True)
class Drawn:
    """What a joint posterior says of B samples."""

    samples: F64
    """Halos per bin [NUM_DRAWS, B, num_bins]."""
    log_q: tuple[F64, F64]
    """Log probability of the true counts [B] and of the drawn ones [NUM_DRAWS, B], in nat."""


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
    """Accuracy of always predicting the most frequent class of the validation samples."""
    baseline_loss: float
    """Cross-entropy of always answering the class frequencies of the validation samples [nat]."""
    confusion: NDArray[np.int64]
    """Samples of each true class (row) and predicted class (column)."""


@dataclass(frozen=True)
class ParameterError:
    """Error of one parameter of a luminosity model, over the samples that it made."""

    name: str
    rms: float
    """The rms error of the middle of the posterior, in the parameter's normal scores: in standard
    deviations of a normal prior. It is about the posterior's width, if that is honest."""
    baseline: float
    """The rms of always predicting the mean of the validation samples: about 1, or less where
    conditions on a draw narrow the prior."""


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
    blank: F64
    """Mean log10 of the count that the network predicts for maps without a halo [num_bins]."""


@dataclass(frozen=True)
class Example:
    """A few samples for the figures; in rank 0."""

    cube: NDArray[np.float32]
    """The network's input of one sample [n_freq, n_dec, n_ra]."""
    nothing: NDArray[np.float32]
    """What that input would be without a halo [n_freq, n_dec, n_ra]."""
    draw: dict[str, Any]
    functions: ExampleFunctions | None
    """None where the label is no function of luminosity."""


@dataclass(frozen=True)
class Residuals:
    """Histogram of log10(predicted / true) over the occupied bins of one luminosity range."""

    name: str
    counts: F64
    """Between `RESIDUAL_EDGES`; the first and the last contain what lies beyond."""
    total: float
    """Sum of the residuals [dex], and `squares`, of their squares."""
    squares: float


@dataclass(frozen=True)
class ValidationResult:
    """The outcome of one validation, the same in all ranks but for `example` and
    `dependence.blank_dex`, which only rank 0 has."""

    loss: float
    ranges: list[RangeError]
    """Empty where the label is no function of luminosity."""
    residuals: list[Residuals]
    """Histograms of log10(predicted / true), one per luminosity range."""
    classes: ClassErrors | None
    dependence: Dependence
    example: Example | None = field(repr=False)
    parameters: list[ParameterError] = field(default_factory=list)
    """Empty where the label is not of parameters."""
    posterior: dict[str, float] = field(default_factory=dict)
    """Whether the joint posterior means what it says, see `calibration.scalars`; empty where bins
    are not predicted together."""
    mean_label_loss: float | None = None
    """The loss of what knows no map: of always predicting the mean label or, of parameters, their
    prior with all its conditions. None where the label is a class."""


def validate(
    generator: SampleGenerator,
    evaluate: Evaluation,
    world: World,
    *,
    num_samples: int,
    chunk: int,
    stopped: Callable[[int], bool],
    draw: Callable[[Batch], Drawn] | None = None,
    mean_label: Callable[[Batch], Tensor] | None = None,
) -> ValidationResult | None:
    """Mean loss and errors over samples 0..num_samples-1 of the generator's split.

    chunk: samples generated at once in a rank
    stopped: called before each chunk with the number of samples done; True abandons the validation
    in all ranks, and None is returned.
    draw: the joint posterior of a batch, where the head has one
    mean_label: the mean loss of what knows no map, see `ValidationResult.mean_label_loss`
    Raises ValueError if a sample is too bright for the cube.
    """
    mine = range(world.rank, num_samples, world.size)
    longest = -(-num_samples // world.size)
    label = generator.label
    sums = _Sums(label, generator.bin_edges, world.device)
    if num_samples < world.size:
        draw = None  # a rank without a sample has no mean
    posterior = _Posterior(label.bins) if draw is not None else None
    losses = torch.zeros(2, dtype=torch.float64, device=world.device)
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
        sums.add(batch, prediction)
        if draw is not None and posterior is not None:
            posterior.add(batch, draw(batch))
        losses[0] += loss.double() * len(indices) / num_samples
        if mean_label is not None:
            losses[1] += mean_label(batch).double() * len(indices) / num_samples
        if start == 0 and world.is_main:
            nothing = replace(batch, cube=generator.blank(indices))
            example = _example(label, batch, prediction, nothing, evaluate(nothing)[0])
    of_network, of_mean = world.sum(losses).tolist()
    result = sums.result(world, of_network, of_mean, example)
    if mean_label is not None:
        result = replace(result, mean_label_loss=of_mean)
    return replace(result, posterior=posterior.result(world)) if posterior else result


class _Posterior:
    """Ranks of the true counts among those that a rank's samples' posteriors draw."""

    def __init__(self, bins: LuminosityBins) -> None:
        sums = {f"logL_{name}": inside.astype(np.float64) for name, inside in _ranges(bins.edges)}
        sums["light"] = bins.mean_Lsun
        self._ranked = RankedTruth(sums, np.ones(bins.num))
        self._last: F64 | None = None

    def add(self, batch: Batch, drawn: Drawn) -> None:
        """A batch; distances are taken from the sample before each, the first's from no halo."""
        truth = batch.counts.double().cpu().numpy()
        first = np.zeros_like(truth[:1]) if self._last is None else self._last
        self._ranked.add(
            drawn.samples, truth, np.concatenate([first, truth[:-1]]), log_q=drawn.log_q
        )
        self._last = truth[-1:]

    def result(self, world: World) -> dict[str, float]:
        """Means over the samples of all ranks."""
        ranks = self._ranked.ranks()
        found = scalars(ranks)
        del found["log10_p"]  # of all samples together it is not the mean of the ranks'
        total = torch.tensor([1.0, *found.values()], dtype=torch.float64) * len(ranks)
        number, *means = world.sum(total).tolist()
        return {name: value / number for name, value in zip(found, means, strict=True)}


class _Sums:
    """What is added up over the samples of a rank."""

    def __init__(self, label: Label, bin_edges: F64, device: torch.device) -> None:
        self._label, self._ranges = label, _ranges(bin_edges)
        outputs = label.num_outputs

        def zeros(rows: int, columns: int) -> Tensor:
            return torch.zeros(rows, columns, dtype=torch.float64, device=device)

        classes = outputs if label.is_class else label.num_class_columns
        self._confusion = zeros(classes, classes) if classes else None
        self._errors, self._pairs = zeros(4, outputs), zeros(6, outputs)
        self._histograms = zeros(len(self._ranges), len(RESIDUAL_EDGES) + 1)
        self._members = torch.from_numpy(np.array([m for _, m in self._ranges])).to(device)

    def add(self, batch: Batch, prediction: Tensor) -> None:
        """A batch: errors, their histograms, and how predictions and labels go together."""
        label, device = self._label, prediction.device
        true = batch.label.to(device)
        if self._confusion is not None:
            classes = len(self._confusion)
            self._confusion += _confusion(true[:, :classes], prediction[:, :classes])
        if label.is_parameters:
            self._add_parameters(true, prediction)
        if not label.is_function:
            return
        occupied = label.occupied(batch.label, batch.counts).to(device).double()
        true = label.log10_counts(batch.label.to(device), batch.unit_label)
        predicted = label.log10_counts(prediction, batch.unit_label)
        residual = predicted - true
        rows = (residual**2, torch.ones_like(true), true, true**2)
        self._errors += torch.stack([(occupied * row).sum(0) for row in rows])
        self._pairs += pair_sums(predicted, true)
        bins = len(RESIDUAL_EDGES) - 1
        low, high = RESIDUAL_EDGES[0], RESIDUAL_EDGES[-1]
        finite = torch.nan_to_num(residual, nan=high)  # what is no number counts as the largest
        place = ((finite - low) / (high - low) * bins).floor().clamp(0, bins - 1).long()
        for k, member in enumerate(self._members):
            weight = (occupied * member).flatten()
            self._histograms[k, :bins].index_add_(0, place.flatten(), weight)
            for column, values in ((bins, residual), (bins + 1, residual**2)):
                self._histograms[k, column] += (weight * values.flatten()).sum()

    def _add_parameters(self, true: Tensor, prediction: Tensor) -> None:
        """Scores of each parameter for itself; 0 for those of models that did not make a sample."""
        label = self._label
        made = torch.ones_like(true)
        for number, columns in enumerate(label.parameter_columns):
            if label.num_class_columns:
                made[:, columns] = true[:, number : number + 1]
        true, predicted = (label.marginal(v).double() * made for v in (true, prediction))
        rows = ((predicted - true) ** 2, made.double(), true, true**2)
        self._errors += torch.stack([row.sum(0) for row in rows])

    def result(
        self, world: World, loss: float, of_mean: float, example: Example | None
    ) -> ValidationResult:
        """The outcome over all ranks; of_mean: the loss of what knows no map, 0 for a class."""
        classes = None
        if self._confusion is not None:
            confusion = world.sum(self._confusion).numpy()
            classes = _class_errors(confusion)
            if self._label.is_class:
                dependence = Dependence(class_skill(confusion))
                return ValidationResult(loss, [], [], classes, dependence, example)
        if self._label.is_parameters:
            sums = world.sum(self._errors).numpy()[:, self._label.num_class_columns :]
            errors = _parameter_errors(self._label, sums)
            dependence = Dependence.of_information(of_mean - loss)
            return ValidationResult(loss, [], [], classes, dependence, example, errors)
        pairs = world.sum(self._pairs).numpy()
        blank = None
        if example is not None and example.functions is not None:
            mean = pairs[0] / pairs[5]
            blank = float(np.sqrt(np.mean((example.functions.blank - mean) ** 2)))
        histograms = world.sum(self._histograms).numpy()
        residuals = [
            Residuals(name, row[:-2], float(row[-2]), float(row[-1]))
            for (name, _), row in zip(self._ranges, histograms, strict=True)
            if row[:-2].any()
        ]
        mean = pairs[2] / np.maximum(pairs[5], 1.0)
        ranges = _range_errors(world.sum(self._errors).numpy(), mean, self._ranges)
        dependence = Dependence(skill(pairs), blank)
        return ValidationResult(loss, ranges, residuals, None, dependence, example)


def range_names(bin_edges: F64) -> list[str]:
    """Names of the luminosity ranges that have errors of their own; the last is all of them."""
    return [name for name, _ in _ranges(bin_edges)]


def _ranges(bin_edges: F64) -> list[tuple[str, NDArray[np.bool_]]]:
    """Luminosity ranges by name, with the bins that lie in them."""
    named = [(f"{low:g}-{high:g}", inside) for (low, high), inside in ranges_with_bins(bin_edges)]
    return [*named, ("all", np.ones(len(bin_edges) - 1, bool))]


def _confusion(one_hot: Tensor, prediction: Tensor) -> Tensor:
    """Number of samples by true and predicted class, [num_classes, num_classes]."""
    true = one_hot.double()
    predicted = torch.zeros_like(true).scatter_(1, prediction.argmax(1, keepdim=True), 1.0)
    return true.T @ predicted


def _example(
    label: Label, batch: Batch, prediction: Tensor, without: Batch, blank: Tensor
) -> Example:
    """without: the batch had there been no halo, of which `blank` is the prediction."""
    functions = None
    if label.is_function:
        some = slice(NUM_EXAMPLES)
        unit_label = batch.unit_label[some]
        true, predicted = (
            label.log10_counts(v[some].cpu(), unit_label).numpy() for v in (batch.label, prediction)
        )
        occupied = label.occupied(batch.label[some], batch.counts[some]).cpu().numpy()
        nothing = label.log10_counts(blank, batch.unit_label).mean(0).cpu().numpy()
        unit = label.unit_of(unit_label)
        functions = ExampleFunctions(true, predicted, occupied, unit, nothing)
    cube, nothing = (of.cube[0].cpu().numpy() for of in (batch, without))
    return Example(cube, nothing, batch.draws[0], functions)


def _range_errors(
    totals: F64, mean: F64, ranges: list[tuple[str, NDArray[np.bool_]]]
) -> list[RangeError]:
    """totals: squares of the error, number, sum and squares of the truth, over the samples in which
    a bin is occupied [4, num_bins]; mean: of the truth over all samples, as which an empty bin is 0
    [num_bins]."""
    squares, number, label, label_squares = totals
    spread = label_squares - 2.0 * mean * label + mean**2 * number
    errors = []
    for name, inside in ranges:
        values = number[inside].sum()
        if values:
            rms = float(np.sqrt(squares[inside].sum() / values))
            baseline = float(np.sqrt(max(spread[inside].sum(), 0.0) / values))
            errors.append(RangeError(name, rms, baseline))
    return errors


def _parameter_errors(label: Label, totals: F64) -> list[ParameterError]:
    """totals: squares, number, sum and squares of the truth, of every parameter of every model."""
    errors = []
    for name, s, n, true, squares in zip(label.parameter_names, *totals, strict=True):
        if n:
            spread = max(squares / n - (true / n) ** 2, 0.0)
            errors.append(ParameterError(name, float(np.sqrt(s / n)), float(np.sqrt(spread))))
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


@dataclass(frozen=True)
class Summary:
    """How a call of `Trainer.run` ended."""

    step: int
    """Steps done, over all calls, those that were skipped included."""
    next_index: int
    """The first sample that no step has seen."""
    stopped: bool
    """Somebody asked to stop."""
    loss: float | None
    """Mean training loss since the log before the last."""
    validation: ValidationResult | None
    """The last validation of this call."""
    extensions: tuple[ExtensionConfig, ...] = ()
    """Where the number of steps of the run has changed."""
