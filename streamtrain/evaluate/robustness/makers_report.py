"""A run before halos of several makers, as text and as a figure: a row for each maker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator

from streamtrain.evaluate.calibration.report import TITLES
from streamtrain.figures import (
    LABEL_SIZE,
    NETWORK,
    SERIES,
    TICK_SIZE,
    TRUTH,
    graded,
    legend_above,
    plain_ticks,
)
from streamtrain.ranks import BANDS, BINS
from streamtrain.tables import WIDTH, columns, plus_minus, prose, without_lines

REGIONS = (BINS, "curve")
"""Statistics that are no sums, whose coverage is shown."""
BIASES = (-20.0, -10.0, -5.0, -2.0, -1.0, 0.0, 1.0, 2.0, 5.0, 10.0, 20.0)
"""Ticks of the axis of biases, which is linear up to 2."""


def makers_table(result: Mapping[str, Any]) -> str:
    """The result of `evaluate --catalogs` as text."""
    rows = result["makers"]
    lines = [
        f"{len(rows)} makers of halos, checkpoint of step {result['checkpoint_step']}, "
        f"{result['draws']} functions drawn for each map",
        *prose(result["notes"], "  "),
        "",
        *maker_lines(rows),
        "",
    ]
    for row in rows:
        lines += prose((f"{row['name']}: {note}" for note in row["notes"]), "  ")
        without = " ".join(without_lines(row["bootstrap"]))
        lines += prose([f"{row['name']}: {without}"] if without else [], "  ")
    if result["bins_are_independent"]:
        lines.append("the head takes bins as independent: sums and whole curves show its cost")
    return "\n".join(lines)


def maker_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Tables of rows that have what `calibration_report.numbers` found: coverage, widths and log
    probability, then biases and coverage of every sum. mse: where the rows have it."""
    with_errors = "mse_ratio" in rows[0]
    whole, biases, covered = [], [], []
    sums = [one["name"] for one in rows[0]["statistics"] if one["kind"] == "sum"]
    for row in rows:
        information = row["information"]
        cells = [row["name"], str(row["skies"]), str(row["maps"])]
        if with_errors:
            cells.append(plus_minus(row["mse_ratio"], row["mse_ratio_error"], ".3f"))
        for name in REGIONS:
            cells += _of(row, name, *(f"coverage_{100 * level:g}" for level in BANDS))
        width = statistic(row, _density(sums))
        cells.append(plus_minus(width["width_68_dex"], width["width_68_dex_error"]))
        log_p, error = (information[f"log_probability_nat{end}"] for end in ("", "_error"))
        whole.append([*cells, plus_minus(log_p, error, ".1f")])
        biases.append([row["name"], *(_of(row, name, "bias_sigma")[0] for name in sums)])
        covered.append([row["name"], *(_of(row, name, "coverage_68")[0] for name in sums)])
    head = ["maker", "skies", "maps", *(["mse / mean label's"] if with_errors else [])]
    head += [f"{TITLES[name]} {100 * level:g} %" for name in REGIONS for level in BANDS]
    resampled = {row["bootstrap"]["resampled"] for row in rows}
    return [
        "share of truths within the posterior's 68 % and 95 %, width of the 68 % of rho_L [dex], "
        "ln of the",
        f"probability of the true counts [nat]; +-: standard errors, bootstrap over "
        f"{' or '.join(sorted(resampled))}",
        *columns([*head, "width", "ln p"], whole, widest=WIDTH),
        "",
        "bias, (truth - posterior mean) / posterior deviation of log10 of",
        *columns(["maker", *sums], biases, widest=WIDTH),
        "",
        "share of truths within 68 % of",
        *columns(["maker", *sums], covered, widest=WIDTH),
    ]


def statistic(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What `numbers` found of a bin, sum or level."""
    found: dict[str, Any] = next(one for one in row["statistics"] if one["name"] == name)
    return found


def _of(row: Mapping[str, Any], name: str, *keys: str) -> list[str]:
    one = statistic(row, name)
    return [plus_minus(one[key], one[f"{key}_error"], ".3f") for key in keys]


def _density(sums: Sequence[str]) -> str:
    """The name that rho_L has among sums."""
    return next(name for name in sums if "rho_L" in name)


def _skies(row: Mapping[str, Any]) -> str:
    return "1 sky" if row["skies"] == 1 else f"{row['skies']} skies"


def makers_figure(result: Mapping[str, Any]) -> Figure:
    """Error, bias and coverage of every maker, side by side."""
    rows = result["makers"]
    figure = Figure(figsize=(13.5, 2.8 + 0.55 * len(rows)), dpi=150, layout="constrained")
    panels = figure.subplots(1, 3, sharey=True, width_ratios=(1, 1.5, 1.3))
    at = np.arange(len(rows))
    panels[0].errorbar(
        [row["mse_ratio"] for row in rows],
        at,
        xerr=[row["mse_ratio_error"] or 0.0 for row in rows],
        fmt="o",
        ms=6,
        color=NETWORK,
    )
    panels[0].set_xscale("log")
    plain_ticks(panels[0].xaxis, LogLocator(subs=(1.0, 2.0, 5.0)))
    sums = [one["name"] for one in rows[0]["statistics"] if one["kind"] == "sum"]
    panels[1].axvline(0.0, color=TRUTH, lw=0.8)
    colours = graded(len(sums))
    for k, (name, colour) in enumerate(zip(sums, colours, strict=True)):
        _marks(panels[1], rows, name, "bias_sigma", 0.09 * (k - (len(sums) - 1) / 2), colour, name)
    panels[1].set_xscale("symlog", linthresh=2.0, linscale=1.0)
    plain_ticks(panels[1].xaxis, FixedLocator(BIASES))
    shown = list(zip((BINS, "curve", _density(sums)), SERIES, strict=False))
    for level, mark in zip(BANDS, ("o", "s"), strict=True):
        panels[2].axvline(level, color=TRUTH, lw=0.8)
        for k, (name, own) in enumerate(shown):
            label = f"{TITLES.get(name, name)}, {100 * level:g} %"
            key = f"coverage_{100 * level:g}"
            _marks(panels[2], rows, name, key, 0.18 * (k - 1), own, label, mark)
    names = [f"{row['name']}\n{_skies(row)}, {row['maps']} maps" for row in rows]
    panels[0].set_yticks(at, names, fontsize=TICK_SIZE)
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    titles = (
        "mean squared error / mean label's",
        "bias [standard deviations]",
        "share of truths inside",
    )
    for axes, title in zip(panels, titles, strict=True):
        axes.set_xlabel(title, fontsize=LABEL_SIZE)
        axes.tick_params(labelsize=TICK_SIZE)
        axes.grid(alpha=0.25, lw=0.6)
        if axes is not panels[0]:
            legend_above(axes, 3 if axes is panels[1] else 2)
    figure.suptitle(
        "\n".join(["the network on halos of every maker", *prose(result["notes"], "  ")]),
        fontsize=TICK_SIZE,
    )
    return figure


def _marks(
    axes: Axes,
    rows: Sequence[Mapping[str, Any]],
    name: str,
    key: str,
    off: float,
    colour: Any,
    label: str,
    mark: str = "o",
) -> None:
    """One statistic of all makers; off: below their line."""
    found = [statistic(row, name) for row in rows]
    axes.errorbar(
        [one[key] for one in found],
        np.arange(len(rows)) + off,
        xerr=[one[f"{key}_error"] or 0.0 for one in found],
        fmt=mark,
        ms=4,
        lw=1.2,
        color=colour,
        label=label,
    )
