"""The scores of a network and of the plainest predictor: as plain data, with how they were made,
and as text.

For classes they say how well a network tells luminosity models apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamtrain.bins import bright_above
from streamtrain.evaluate.alarm.alarm import alarm_lines
from streamtrain.evaluate.baselines import MEAN_LABEL_SAMPLES, MeanLabelBaseline
from streamtrain.evaluate.bootstrap import Bootstrap, Float, score_intervals
from streamtrain.evaluate.parameter_scores import (
    ParameterPredictions,
    parameter_lines,
    scores_of_parameters,
)
from streamtrain.evaluate.predictions import AnyPredictions, ClassPredictions, Predictions
from streamtrain.evaluate.scores import (
    SMALLEST_RATE,
    bands,
    num_bright,
    residual_percentiles,
    score,
    score_counts,
    score_groups,
)
from streamtrain.labels import QUANTITIES
from streamtrain.tables import (
    AGREED,
    columns,
    error_lines,
    plus_minus,
    prose,
    range_title,
    rms_cell,
    without_lines,
)

CONVENTIONS = {
    "delta": "10^(p - t) - 1, p and t: log10 of the predicted and true dN, at least 0",
    "empty_bins": "bins without a halo count in mse and deviance; statistics of delta and rms "
    "leave them out, 'excluded' is their fraction",
    "deviance": "Poisson deviance 2 [n ln(n/r) - n + r] per bin, empty ones included; a predicted "
    f"number of halos r counts as it is down to {SMALLEST_RATE:g}, and as that below",
    "by_bright": "maps by their number of halos above 10^bright_log10_L Lsun, in quarters",
    "residuals": "percentiles of p - t over all bins and maps, empty ones included, per bin",
    "intervals": "share of bins whose truth lies between the 16th and 84th (2.5th and 97.5th) "
    "percentile that the network predicts, ends included, and their mean distance [dex]",
    "mean_label": f"mean log10 dN of samples 0..{MEAN_LABEL_SAMPLES - 1} of split 'train'; their "
    "mean dN for the deviance",
}


def bootstrap_of(predictions: AnyPredictions, unit: str = "auto") -> Bootstrap:
    """The bootstrap over the maps or skies of some predictions; see `Bootstrap.choose`."""
    if predictions.skies is None:
        return Bootstrap.of_maps(len(predictions.true))
    return Bootstrap.choose(predictions.skies, unit)


def errors_of(
    predicted: Float, rates: Float, predictions: Predictions, bootstrap: Bootstrap
) -> dict[str, Any]:
    """All scores of one predictor that has no uncertainty.

    predicted: log10 of the count, rates: the count, [num_samples, num_bins] or [num_bins].
    """
    edges, true, occupied = predictions.bin_edges, predictions.true, predictions.occupied
    found: dict[str, Any] = asdict(score(predicted, true, occupied, edges, bootstrap))
    found["counts"] = asdict(score_counts(rates, predictions.count, edges, bootstrap))
    bright = num_bright(predictions.halos_per_bin, edges)
    found["by_bright"] = None
    if bright is not None:
        groups = score_groups(
            predicted, rates, true, predictions.count, occupied, bright, bootstrap
        )
        found["by_bright"] = [asdict(group) for group in groups]
    return found


def scores_of(
    predictions: AnyPredictions,
    reference: MeanLabelBaseline | None,
    quantity: str,
    bootstrap: Bootstrap,
) -> dict[str, Any]:
    """The scores of a network and of the baseline, which a label of parameters has none of.

    quantity: of the label.
    """
    record = bootstrap.describe()
    errors = f"standard errors, bootstrap over {record['resampled']}"
    if record["without"]:
        errors += f"; {record['without']}"
    if isinstance(predictions, ParameterPredictions):
        found = scores_of_parameters(predictions, bootstrap, errors) | {"bootstrap": record}
        if predictions.label.num_class_columns:
            classes = score_classes(predictions.chances, predictions.model, bootstrap)
            found["network"] |= asdict(classes)
        return found
    assert reference is not None
    if isinstance(predictions, ClassPredictions):
        return _class_scores(predictions, reference, bootstrap, errors) | {"bootstrap": record}
    network = errors_of(predictions.predicted, predictions.rate, predictions, bootstrap)
    residual = predictions.predicted - predictions.true
    network["bands"] = bands(residual, predictions.occupied, predictions.bin_edges, bootstrap)
    network["intervals"] = None
    if predictions.quantiles is not None:
        network["intervals"] = asdict(
            score_intervals(
                predictions.quantiles, predictions.true, predictions.bin_edges, bootstrap
            )
        )
    return {
        "label": quantity,
        "conventions": CONVENTIONS | {"errors": errors},
        "bootstrap": record,
        "bright_log10_L": bright_above(predictions.bin_edges),
        "network": network,
        "residuals": residual_percentiles(residual),
        "mean_label": errors_of(reference.mean, reference.rate, predictions, bootstrap),
        "mean_label_log10_dN": reference.mean.tolist(),
        "mean_label_log10_dN_error": reference.mean_error.tolist(),
        "mean_label_dN": reference.rate.tolist(),
        "mean_label_dN_error": reference.rate_error.tolist(),
    }


def _class_scores(
    predictions: ClassPredictions, reference: MeanLabelBaseline, bootstrap: Bootstrap, errors: str
) -> dict[str, Any]:
    frequencies = reference.mean
    network, frequent = (
        asdict(score_classes(chances, predictions.true, bootstrap))
        for chances in (predictions.chances, frequencies)
    )
    return {
        "label": "class",
        "classes": predictions.classes,
        "conventions": {
            "accuracy": "share of the maps whose most probable class is the true one",
            "confusion": "maps of each true class (row) taken for each class (column)",
            "errors": errors,
            "most_frequent": "always the class frequencies of samples "
            f"0..{MEAN_LABEL_SAMPLES - 1} of split 'train'",
        },
        "network": network,
        "most_frequent": frequent,
        "class_frequencies": frequencies.tolist(),
        "class_frequencies_error": reference.mean_error.tolist(),
    }


CHANCE_FLOOR = 1e-30
"""Floor of the probability that a predictor gives to the truth."""


@dataclass(frozen=True)
class ClassScore:
    """Errors of one classifier; standard errors come from a bootstrap over maps."""

    accuracy: float
    """Share of the maps whose most probable class is the true one."""
    accuracy_error: float | None
    cross_entropy: float
    """Mean of -ln(probability of the true class) [nat]."""
    cross_entropy_error: float | None
    confusion: list[list[int]]
    """Maps of each true class (row) and predicted class (column)."""
    confusion_error: list[list[float]] | None


def score_classes(
    chances: Float, true: NDArray[np.int64], bootstrap: Bootstrap | None = None
) -> ClassScore:
    """Statistics of a classifier on a test set.

    chances: probability of each class, [num_samples, num_classes], or one row [num_classes], the
    same for every map; true: number of each map's class [num_samples]. bootstrap: makes the
    errors; default: over maps.
    """
    num_classes = chances.shape[-1]
    rows = np.broadcast_to(chances, (len(true), num_classes))
    predicted = rows.argmax(axis=1)
    right = (predicted == true).astype(np.float64)
    surprise = -np.log(np.maximum(rows[np.arange(len(true)), true], CHANCE_FLOOR))
    bootstrap = bootstrap or Bootstrap.of_maps(len(true))
    confusion = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(confusion, (true, predicted), 1)
    errors = [
        [
            len(true) * (bootstrap.mean(((true == row) & (predicted == column)) * 1.0) or 0.0)
            for column in range(num_classes)
        ]
        for row in range(num_classes)
    ]
    return ClassScore(
        accuracy=float(right.mean()),
        accuracy_error=bootstrap.mean(right),
        cross_entropy=float(surprise.mean()),
        cross_entropy_error=bootstrap.mean(surprise),
        confusion=confusion.tolist(),
        confusion_error=errors if bootstrap.num_blocks > 1 else None,
    )


PREDICTORS = (("network", "network"), ("mean_label", "mean label"))


def table(result: Mapping[str, Any]) -> str:
    """The result of `evaluate` as text: the network above the plainest predictor."""
    test = result["test_set"]
    head = (
        f"{test['samples']} test maps (seed {test['seed']}), checkpoint of step "
        f"{result['checkpoint_step']}"
    )
    notes = prose(test.get("notes", []))
    if result["label"] == "parameters":
        lines = parameter_lines(result)
        if "confusion" in result["network"]:
            lines += ["", *_class_rows(result, (("network", result["network"]),))]
    else:
        lines = _class_lines(result) if result["label"] == "class" else _function_lines(result)
    return "\n".join([head, *notes, *lines, *alarm_lines(result.get("alarm"))])


def _function_lines(result: Mapping[str, Any]) -> list[str]:
    """A row per luminosity range and predictor, its standard errors below it."""
    name = QUANTITIES[result["label"]].symbol
    zero = f"{name} is not 0" if result["label"] == "cumulative" else "the bin holds a halo"
    rows = []
    for ours, mean in _pairs(result, ("network", "mean_label")):
        for values, first, title in (
            (ours, range_title(ours["log10_L"]), "network"),
            (mean, "", "mean label"),
        ):
            empty = f"{100 * ours['excluded']:.1f} %" if first else ""
            rows.append([first, title, *_cells(values), empty])
            if values["num_values"] and values["rms_dex_error"] is not None:
                share = f"{100 * ours['excluded_error']:.1f} %" if first else ""
                rows.append(["", "+-", *_error_cells(values), share])
    head = ["log10 L", "predictor", "median", "68 % of delta", "95 % of delta", "rms", "empty"]
    squared = [
        [f"mean squared error of log10 {name}, all bins", title]
        + [plus_minus(result[key]["mse"], result[key]["mse_error"])]
        for key, title in PREDICTORS
    ]
    return [
        f"delta = predicted / true {name} - 1 where {zero}; rms of log10 {name} in dex;",
        *error_lines(result["bootstrap"]),
        "",
        *columns(head, rows, left=(0, 1)),
        "",
        *columns(squared[0], squared[1:], left=(0, 1)),
        "",
        *_deviance_lines(result, name),
        *_bright_lines(result),
        *_interval_lines(result),
    ]


def _pairs(result: Mapping[str, Any], keys: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
    """The entries of every luminosity range, and of all bins, of some predictors."""
    return zip(*([*result[key]["ranges"], result[key]["whole"]] for key in keys), strict=True)


def _deviance_lines(result: Mapping[str, Any], name: str) -> list[str]:
    """Poisson deviances per luminosity range."""
    counts = {key: result[key]["counts"] for key, _ in PREDICTORS}
    rows = [
        [range_title(pair[0]["log10_L"])]
        + [_three(values["deviance"], values["deviance_error"]) for values in pair]
        for pair in _pairs(counts, ("network", "mean_label"))
    ]
    what = name if result["label"] == "cumulative" else "dN"  # whatever the label's unit
    head = f"Poisson deviance of {what} per bin, empty bins included [nat]"
    return [head, *columns(["log10 L", "network", "mean label"], rows)]


def _bright_lines(result: Mapping[str, Any]) -> list[str]:
    """Errors by the number of bright halos."""
    groups = result["network"]["by_bright"]
    if not groups:
        return []
    rows = [
        [
            "{}-{}".format(*group["bright"]),
            str(group["maps"]),
            plus_minus(group["mse"], group["mse_error"]),
            rms_cell(group),
            _three(group["deviance"], group["deviance_error"]),
        ]
        for group in groups
    ]
    head = ["halos", "maps", "mean squared error", "rms of occupied bins", "deviance"]
    return [
        "",
        f"by the number of halos above 10^{result['bright_log10_L']:g} Lsun in the map, network",
        *columns(head, rows, left=()),
    ]


def _interval_lines(result: Mapping[str, Any]) -> list[str]:
    """Coverage and sharpness of a head that predicts an uncertainty."""
    if not result["network"]["intervals"]:
        return []
    keys = ("coverage_68", "width_68", "coverage_95", "width_95")
    rows = [
        [range_title(values["log10_L"])]
        + [plus_minus(values[key], values[f"{key}_error"]) for key in keys]
        for (values,) in _pairs(result["network"], ("intervals",))
    ]
    return [
        "",
        "intervals that the network predicts: share of bins inside, mean width [dex]",
        *columns(["log10 L", "68 %", "width", "95 %", "width"], rows),
    ]


def _class_lines(result: Mapping[str, Any]) -> list[str]:
    """Accuracy of network and most frequent class, and the confusion matrix."""
    predictors = (
        ("network", result["network"]),
        ("always the most frequent", result["most_frequent"]),
    )
    return [*without_lines(result["bootstrap"]), "", *_class_rows(result, predictors)]


def _class_rows(
    result: Mapping[str, Any], predictors: Sequence[tuple[str, Mapping[str, Any]]]
) -> list[str]:
    names, network = result["classes"], result["network"]
    rows = [
        [title, *(plus_minus(of[key], of[f"{key}_error"]) for key in ("accuracy", "cross_entropy"))]
        for title, of in predictors
    ]
    taken: list[list[str] | str] = [
        [name, *map(str, row)] for name, row in zip(names, network["confusion"], strict=True)
    ]
    if network["confusion_error"]:
        taken.append("standard errors")
        for name, row in zip(names, network["confusion_error"], strict=True):
            taken.append([name, *(f"{error:.1f}" for error in row)])
    return [
        *columns(["predictor", "accuracy", "cross-entropy [nat]"], rows),
        "",
        *columns(["true model", *(f"as {name}" for name in names)], taken),
    ]


def _cells(values: Mapping[str, Any]) -> list[str]:
    """Median, both intervals and rms of a luminosity range."""
    if not values["num_values"]:
        return ["-"] * 4
    spans = (values["interval_68"], values["interval_95"])
    return [
        f"{values['median']:+.3f}",
        *(f"{low:+.3f} .. {high:+.3f}" for low, high in spans),
        f"{values['rms_dex']:.4f}",
    ]


def _error_cells(values: Mapping[str, Any]) -> list[str]:
    """Standard errors, below the numbers of `_cells`."""
    spans = (values["interval_68_error"], values["interval_95_error"])
    return [
        f"{values['median_error']:.3f}",
        *(f"{low:.3f} .. {high:.3f}" for low, high in spans),
        f"{values['rms_dex_error']:.4f}",
    ]


def _three(value: float, error: float | None) -> str:
    """A number of any size in three digits, and its standard error."""
    known = error is not None and error > AGREED
    return f"{value:.3g}" + (f" +- {error:.2g}" if known else "")
