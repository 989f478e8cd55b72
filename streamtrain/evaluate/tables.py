"""The result of an evaluation as text of fixed width."""

from __future__ import annotations

from typing import Any

from streamtrain.generator.labels import QUANTITIES


def table(result: dict[str, Any]) -> str:
    """The result of `evaluate`: the network above the plainest predictor."""
    test = result["test_set"]
    head = (
        f"{test['samples']} test maps (seed {test['seed']}), checkpoint of step "
        f"{result['checkpoint_step']}"
    )
    lines = _class_lines(result) if result["label"] == "class" else _function_lines(result)
    return "\n".join([head, *lines])


def _function_lines(result: dict[str, Any]) -> list[str]:
    """A row per luminosity range and predictor."""
    name = QUANTITIES[result["label"]].symbol
    zero = f"{name} is not 0" if result["label"] == "cumulative" else "the bin holds a halo"
    lines = [
        f"delta = predicted / true {name} - 1 where {zero}; rms of log10 {name} in dex",
        "",
        f"{'log10 L':10}{'predictor':12}{'median':>8}{'68 % of delta':>20}{'95 % of delta':>20}"
        f"{'rms':>19}{'empty':>9}",
    ]
    pairs = zip(
        [*result["network"]["ranges"], result["network"]["whole"]],
        [*result["mean_label"]["ranges"], result["mean_label"]["whole"]],
        strict=True,
    )
    for ours, mean in pairs:
        low, high = ours["log10_L"]
        empty = f"{100 * ours['excluded']:7.1f} %"
        lines.append(f"{f'{low:g}-{high:g}':10}{'network':12}{_row(ours)}{empty}")
        lines.append(f"{'':10}{'mean label':12}{_row(mean)}")
    lines.append("")
    for key, title in (("network", "network"), ("mean_label", "mean label")):
        errors = result[key]
        spread = _plus_minus(errors["mse"], errors["mse_error"])
        lines.append(f"mean squared error of log10 {name}, all bins   {title:12}{spread}")
    return lines


def _class_lines(result: dict[str, Any]) -> list[str]:
    """Accuracy of network and most frequent class, and the confusion matrix."""
    names = result["classes"]
    lines = ["", f"{'predictor':28}{'accuracy':>20}{'cross-entropy [nat]':>24}"]
    for key, title in (("network", "network"), ("most_frequent", "always the most frequent")):
        values = result[key]
        accuracy = _plus_minus(values["accuracy"], values["accuracy_error"])
        entropy = _plus_minus(values["cross_entropy"], values["cross_entropy_error"])
        lines.append(f"{title:28}{accuracy:>20}{entropy:>24}")
    wide = max(12, *(len(name) + 2 for name in names))
    heads = "".join(f"{'as ' + name:>{wide + 3}}" for name in names)
    lines += ["", f"{'true model':{wide}}{heads}"]
    for name, row in zip(names, result["network"]["confusion"], strict=True):
        lines.append(f"{name:{wide}}" + "".join(f"{number:>{wide + 3}}" for number in row))
    return lines


def _row(values: dict[str, Any]) -> str:
    if not values["num_values"]:
        return f"{'-':>8}{'-':>20}{'-':>20}{'-':>19}"
    spans = "".join(
        f"{f'{low:+.3f} .. {high:+.3f}':>20}"
        for low, high in (values["interval_68"], values["interval_95"])
    )
    rms = _plus_minus(values["rms_dex"], values["rms_dex_error"])
    return f"{values['median']:>+8.3f}{spans}{rms:>19}"


def _plus_minus(value: float, error: float | None) -> str:
    return f"{value:.4f}" + (f" +- {error:.4f}" if error is not None else "")
