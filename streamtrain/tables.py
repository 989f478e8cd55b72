"""The result of an evaluation as text of fixed width."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap
from typing import Any

from streamtrain.labels import QUANTITIES

PREDICTORS = (("network", "network"), ("mean_label", "mean label"))


def table(result: dict[str, Any]) -> str:
    """The result of `evaluate`: the network above the plainest predictor."""
    test = result["test_set"]
    head = (
        f"{test['samples']} test maps (seed {test['seed']}), checkpoint of step "
        f"{result['checkpoint_step']}"
    )
    notes = [line for note in test.get("notes", []) for line in wrap(note, 100)]
    lines = _class_lines(result) if result["label"] == "class" else _function_lines(result)
    return "\n".join([head, *notes, *lines])


def without_lines(bootstrap: dict[str, Any]) -> list[str]:
    """What errors do not know of; bootstrap: of the result of `evaluate`."""
    return wrap(bootstrap.get("without") or "", 100)


def _function_lines(result: dict[str, Any]) -> list[str]:
    """A row per luminosity range and predictor, its standard errors below it."""
    name = QUANTITIES[result["label"]].symbol
    zero = f"{name} is not 0" if result["label"] == "cumulative" else "the bin holds a halo"
    lines = [
        f"delta = predicted / true {name} - 1 where {zero}; rms of log10 {name} in dex;",
        f"+-: standard errors, bootstrap over {result['bootstrap']['resampled']}",
        *without_lines(result["bootstrap"]),
        "",
        f"{'log10 L':10}{'predictor':12}{'median':>8}{'68 % of delta':>20}{'95 % of delta':>20}"
        f"{'rms':>9}{'empty':>10}",
    ]
    for ours, mean in _pairs(result, ("network", "mean_label")):
        low, high = ours["log10_L"]
        for values, first, title in (
            (ours, f"{low:g}-{high:g}", "network"),
            (mean, "", "mean label"),
        ):
            empty = f"{100 * ours['excluded']:7.1f} %" if first else ""
            lines.append(f"{first:10}{title:12}{_row(values)}{empty}")
            if values["num_values"] and values["rms_dex_error"] is not None:
                error = ours["excluded_error"]
                share = f"{100 * error:7.1f} %" if first else ""
                lines.append(f"{'':10}{'+-':>12}{_error_row(values)}{share}")
    lines.append("")
    for key, title in PREDICTORS:
        errors = result[key]
        spread = plus_minus(errors["mse"], errors["mse_error"])
        lines.append(f"mean squared error of log10 {name}, all bins   {title:12}{spread}")
    more = (_deviance_lines(result, name), _bright_lines(result), _interval_lines(result))
    return [*lines, "", *(line for part in more for line in part)]


def _pairs(result: dict[str, Any], keys: tuple[str, ...]) -> Iterator[tuple[dict[str, Any], ...]]:
    """The entries of every luminosity range, and of all bins, of some predictors."""
    return zip(*([*result[key]["ranges"], result[key]["whole"]] for key in keys), strict=True)


def _deviance_lines(result: dict[str, Any], name: str) -> list[str]:
    """Poisson deviances per luminosity range."""
    counts = {"network": result["network"]["counts"], "mean_label": result["mean_label"]["counts"]}
    lines = [
        f"Poisson deviance of {name} per bin, empty bins included [nat]",
        f"{'log10 L':10}{'network':>24}{'mean':>24}",
    ]
    for ours, mean in _pairs(counts, ("network", "mean_label")):
        low, high = ours["log10_L"]
        cells = (_three(v["deviance"], v["deviance_error"]) for v in (ours, mean))
        lines.append(f"{f'{low:g}-{high:g}':10}" + "".join(f"{cell:>24}" for cell in cells))
    return lines


def _bright_lines(result: dict[str, Any]) -> list[str]:
    """Errors by the number of bright halos."""
    groups = result["network"]["by_bright"]
    if not groups:
        return []
    lines = [
        "",
        f"by the number of halos above 10^{result['bright_log10_L']:g} Lsun in the map, network",
        f"{'halos':>14}{'maps':>8}{'mean squared error':>22}{'rms of occupied bins':>22}"
        f"{'deviance':>24}",
    ]
    for group in groups:
        fewest, most = group["bright"]
        rms, error = group["rms_dex"], group["rms_dex_error"]
        shown = "-" if rms is None else plus_minus(rms, error)
        lines.append(
            f"{f'{fewest}-{most}':>14}{group['maps']:>8}"
            f"{plus_minus(group['mse'], group['mse_error']):>22}{shown:>22}"
            f"{_three(group['deviance'], group['deviance_error']):>24}"
        )
    return lines


def _interval_lines(result: dict[str, Any]) -> list[str]:
    """Coverage and sharpness of a head that predicts an uncertainty."""
    if not result["network"]["intervals"]:
        return []
    lines = [
        "",
        "intervals that the network predicts: share of bins inside, mean width [dex]",
        f"{'log10 L':10}{'68 %':>19}{'width':>19}{'95 %':>19}{'width':>19}",
    ]
    for (values,) in _pairs(result["network"], ("intervals",)):
        low, high = values["log10_L"]
        cells = (
            plus_minus(values[key], values[f"{key}_error"])
            for key in ("coverage_68", "width_68", "coverage_95", "width_95")
        )
        lines.append(f"{f'{low:g}-{high:g}':10}" + "".join(f"{cell:>19}" for cell in cells))
    return lines


def _class_lines(result: dict[str, Any]) -> list[str]:
    """Accuracy of network and most frequent class, and the confusion matrix."""
    names = result["classes"]
    lines = without_lines(result["bootstrap"])
    lines += ["", f"{'predictor':28}{'accuracy':>20}{'cross-entropy [nat]':>24}"]
    for key, title in (("network", "network"), ("most_frequent", "always the most frequent")):
        values = result[key]
        accuracy = plus_minus(values["accuracy"], values["accuracy_error"])
        entropy = plus_minus(values["cross_entropy"], values["cross_entropy_error"])
        lines.append(f"{title:28}{accuracy:>20}{entropy:>24}")
    wide = max(12, *(len(name) + 2 for name in names))
    heads = "".join(f"{'as ' + name:>{wide + 3}}" for name in names)
    lines += ["", f"{'true model':{wide}}{heads}"]
    for name, row in zip(names, result["network"]["confusion"], strict=True):
        lines.append(f"{name:{wide}}" + "".join(f"{number:>{wide + 3}}" for number in row))
    errors = result["network"]["confusion_error"]
    if errors:
        lines.append("standard errors")
        for name, row in zip(names, errors, strict=True):
            lines.append(f"{name:{wide}}" + "".join(f"{error:>{wide + 3}.1f}" for error in row))
    return lines


def _row(values: dict[str, Any]) -> str:
    if not values["num_values"]:
        return f"{'-':>8}{'-':>20}{'-':>20}{'-':>9}"
    spans = "".join(
        f"{f'{low:+.3f} .. {high:+.3f}':>20}"
        for low, high in (values["interval_68"], values["interval_95"])
    )
    return f"{values['median']:>+8.3f}{spans}{values['rms_dex']:>9.4f}"


def _error_row(values: dict[str, Any]) -> str:
    """Standard errors, below the numbers of `_row`."""
    spans = "".join(
        f"{f'{low:.3f} .. {high:.3f}':>20}"
        for low, high in (values["interval_68_error"], values["interval_95_error"])
    )
    return f"{values['median_error']:>8.3f}{spans}{values['rms_dex_error']:>9.4f}"


def plus_minus(value: float, error: float | None, digits: int = 4) -> str:
    """A number and its standard error."""
    return f"{value:.{digits}f}" + (f" +- {error:.{digits}f}" if error is not None else "")


def _three(value: float, error: float | None) -> str:
    """Likewise, in three digits, for numbers of any size."""
    return f"{value:.3g}" + (f" +- {error:.2g}" if error is not None else "")
