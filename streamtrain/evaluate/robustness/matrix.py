"""The result of an evaluation in many scenarios, as text and as a figure."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from streamtrain.evaluate.alarm.alarm import LEVELS, share
from streamtrain.figures import (
    GREY,
    LABEL_SIZE,
    NETWORK,
    REFERENCE,
    SERIES,
    TICK_SIZE,
    TRUTH,
    graded,
)
from streamtrain.labels import QUANTITIES
from streamtrain.luminosity.source import model_name
from streamtrain.tables import columns, plus_minus, prose, range_title, rms_cell, without_lines

COLUMNS = (
    ("network", "network", NETWORK, "o"),
    ("mean_label", "mean of training", REFERENCE, "s"),
    ("scenario_mean", "mean of scenario", SERIES[3], "D"),
    ("floor", "floor", SERIES[4], "^"),
)
"""Key in a row, name, colour and mark of each predictor."""


def matrix_table(result: dict[str, Any]) -> str:
    """Mean squared errors of all scenarios, then their errors per luminosity range."""
    rows = result["scenarios"]
    symbol = QUANTITIES[result["label"]].symbol
    squared = []
    for k, row in enumerate(rows):
        theirs = row["published"]
        shown = "-" if theirs is None else f"{theirs['mse']:.4f}{_mark(theirs)}"
        cells = (plus_minus(row[key]["mse"], row[key]["mse_error"]) for key, *_ in COLUMNS)
        squared.append([_titled(row, k), *cells, shown])
    lines = [
        f"{len(rows)} scenarios of {result['samples']} test maps, checkpoint of step "
        f"{result['checkpoint_step']}; errors: bootstrap over {result['bootstrap']['resampled']}",
        *prose(result.get("notes", [])),
        *without_lines(result["bootstrap"]),
        "",
        f"mean squared error of log10 {symbol}, all bins [dex^2]",
        *columns(["scenario", *(name for _, name, _, _ in COLUMNS), "published"], squared),
        "",
        *_alarm_lines(rows),
        *_range_lines(rows, symbol),
    ]
    return "\n".join([*lines, "", *_notes(result)])


def _alarm_lines(rows: list[dict[str, Any]]) -> list[str]:
    """How many maps of each scenario raise the alarm; nothing where the run has none."""
    cells = [
        [_titled(row, k), *(share(row["alarm"], level) for level in LEVELS)]
        + [plus_minus(row["alarm"]["auroc"], row["alarm"]["auroc_error"], ".3f")]
        for k, row in enumerate(rows)
        if row.get("alarm") is not None
    ]
    if not cells:
        return []
    alarm = next(row["alarm"] for row in rows if row.get("alarm") is not None)
    return [
        f"alarm, among {alarm['among']} maps of {alarm['skies']}: share of maps with a small p,",
        "and area under the curve of true over false alarms (0.5: like maps of the prior)",
        *columns(["scenario", *(f"p < {level:g}" for level in LEVELS), "area"], cells),
        "",
    ]


def _range_lines(rows: list[dict[str, Any]], symbol: str) -> list[str]:
    """Rms per luminosity range: network, floor and published one."""
    below: list[list[str] | str] = []
    for k, row in enumerate(rows):
        below.append(_titled(row, k))
        for key in ("network", "floor", "published"):
            if row[key] is not None:
                mark = _mark(row[key]) if key == "published" else ""
                cells = (rms_cell(entry, ".3f") for entry in row[key]["ranges"])
                below.append([f"   {key}{mark}", *cells])
    bounds = (range_title(entry["log10_L"]) for entry in rows[0]["network"]["ranges"])
    return [
        f"rms of log10 {symbol} in ranges of log10 L, where the bin holds a halo [dex]",
        *columns(["", *bounds], below),
    ]


def _notes(result: dict[str, Any]) -> list[str]:
    rows = result["scenarios"]
    skies = result["floor_skies"]
    notes = [
        "floor: an oracle that knows every parameter of a map but not its field (Poisson noise and "
        f"field-to-field scatter), from {skies['oracle']} training and {skies['test']} test skies; "
        "its errors are over skies",
        *([f"warning: {skies['few']}"] if skies["few"] else []),
        "mean of scenario: always the mean of the scenario's own test maps",
    ]
    if any(not row["models_trained"] for row in rows):
        known = ", ".join(map(model_name, result["trained_models"]))
        notes.append(
            f"+ a luminosity model that the network was not trained on (it was on {known})"
        )
    outside = [text for row in rows for text in row.get("extrapolated", [])]
    notes += dict.fromkeys(outside)
    wrong: dict[str, list[str]] = {}
    for row in rows:
        if row["published"] is not None and row["published"]["note"]:
            wrong.setdefault(row["published"]["note"], []).append(row["name"])
    notes += [f"* {', '.join(names)}: {note}" for note, names in wrong.items()]
    common = set.intersection(*(set(row["differs_from_training"]) for row in rows))
    if common:
        notes.append(f"All scenarios differ from the training in {', '.join(sorted(common))}.")
    return prose(notes, "  ")


def _titled(row: dict[str, Any], number: int) -> str:
    return f"{number + 1:2} {row['name']}{'' if row['models_trained'] else ' +'}"


def _mark(published: dict[str, Any]) -> str:
    return "*" if published["note"] else ""


def matrix_figure(result: dict[str, Any]) -> Figure:
    """Mean squared error of every scenario with that of the references, the floor and the published
    network; beside it the rms of the network in each luminosity range over the published one, or
    over the floor where nothing is published."""
    rows = result["scenarios"]
    symbol = QUANTITIES[result["label"]].symbol
    figure = Figure(figsize=(12.0, 2.0 + 0.36 * len(rows)), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.25, 1))
    at = np.arange(len(rows))
    for key, name, colour, mark in COLUMNS:
        values = [row[key]["mse"] for row in rows]
        errors = [row[key]["mse_error"] or 0.0 for row in rows]
        left.errorbar(values, at, xerr=errors, fmt=mark, ms=6, lw=1.4, color=colour, label=name)
    beside = [(row["published"], k) for k, row in enumerate(rows) if row["published"]]
    for wrong, mark, name in ((False, "x", "published"), (True, "+", "published (other maps)")):
        points = [(entry["mse"], k) for entry, k in beside if bool(entry["note"]) == wrong]
        if points:
            left.plot(*zip(*points, strict=True), mark, ms=7, mew=1.8, color=GREY, label=name)
    left.set_xscale("log")
    left.set_xlabel(rf"mean squared error of $\log_{{10}}$ {symbol} [dex$^2$]", fontsize=LABEL_SIZE)
    left.set_yticks(at, [row["name"] for row in rows], fontsize=TICK_SIZE)
    left.set_ylim(len(rows) - 0.5, -0.5)
    _range_marks(right, rows)
    if without := without_lines(result["bootstrap"]):
        figure.supxlabel("\n".join(["Errors: " + without[0], *without[1:]]), fontsize=TICK_SIZE - 1)
    figure.suptitle("errors of the network on the maps of every scenario", fontsize=LABEL_SIZE)
    right.set_xlabel("rms [dex] by luminosity range", fontsize=LABEL_SIZE)
    for axes in (left, right):
        axes.tick_params(labelsize=TICK_SIZE)
        axes.grid(alpha=0.25, lw=0.6)
        axes.legend(
            fontsize=TICK_SIZE - 1, frameon=False, ncols=3, loc="lower center",
            bbox_to_anchor=(0.5, 1.0),
        )  # fmt: skip
    return figure


def _range_marks(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """The network's rms in each range as a dot, the published one as a cross of its colour."""
    bounds = [entry["log10_L"] for entry in rows[0]["network"]["ranges"]]
    colours = graded(len(bounds))
    for k in range(len(bounds)):
        for number, row in enumerate(rows):
            height = number + 0.14 * (k - (len(bounds) - 1) / 2)
            entry = row["network"]["ranges"][k]
            label = range_title(bounds[k]) if number == 0 else None
            if entry["rms_dex"] is not None:
                axes.errorbar(
                    entry["rms_dex"], height, xerr=entry["rms_dex_error"] or 0.0, fmt="o", ms=4,
                    lw=1.2, color=colours[k], label=label,
                )  # fmt: skip
            if row["published"]:
                there = row["published"]["ranges"][k]["rms_dex"]
                mark = "+" if row["published"]["note"] else "x"
                axes.plot(there, height, mark, ms=5, color=colours[k])
    axes.plot([], [], "x", ms=5, color=TRUTH, label="published")
    axes.set_xscale("log")
