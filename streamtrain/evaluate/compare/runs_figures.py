"""Runs next to each other: their histories and errors (runs.png), their predictions (maps.png).

runs.png has bands of predicted over true and the rms, maps.png the functions that several runs read
off the same test maps, and their ratio to the true ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from streamtrain.evaluate.bootstrap import Float
from streamtrain.evaluate.compare.runs import RunRecord
from streamtrain.evaluate.figures import QUANTILES, three_maps
from streamtrain.evaluate.predictions import Predictions
from streamtrain.evaluate.scores import delta_percentiles
from streamtrain.figures import (
    LABEL_SIZE,
    REFERENCE,
    SERIES,
    TICK_SIZE,
    TRUTH,
    as_name,
    plain_ticks,
    positions,
    ratio_axis,
    style,
)
from streamtrain.labels import NO_FUNCTION

LINES = ("-", "--", ":", "-.")
"""Runs beyond the last colour begin again with the first and the next line."""
COLUMNS = 4
"""Panels in a row."""
PANEL = (3.1, 2.5)
"""Width and height of one [inch]."""
WIDEST_RATIO = 5.0
Styles = dict[str, tuple[str, str]]
Keys = dict[str, tuple[str, str]]
"""Two entries of the history, by run."""


def styles(runs: Sequence[RunRecord]) -> Styles:
    """Colour and line of each run, by its name."""
    num = len(SERIES)
    return {r.name: (SERIES[k % num], LINES[k // num % len(LINES)]) for k, r in enumerate(runs)}


def key(figure: Figure, names: Sequence[str], drawn: Styles, *more: Line2D) -> None:
    """One legend for all panels, below them."""
    handles = [
        Line2D([], [], color=drawn[n][0], ls=drawn[n][1], lw=2, label=as_name(n)) for n in names
    ]
    figure.legend(
        handles=[*handles, *more],
        loc="outside lower center",
        ncols=min(COLUMNS, len(handles) + len(more)),
        fontsize=TICK_SIZE,
        frameon=False,
    )


def comparison(
    runs: Sequence[RunRecord], predictions: Mapping[str, Predictions] | None = None
) -> Figure | None:
    """The figure of several runs; None if none has a history or an evaluation.

    predictions: by the name of the run, for bands per bin; without them bands are per luminosity
    range.
    """
    drawn = styles(runs)
    evaluated = [run for run in runs if run.evaluation and run.function not in NO_FUNCTION]
    histories = _history_panels(runs)
    if not histories and not evaluated:
        return None
    rows = [-(-len(histories) // COLUMNS), -(-len(evaluated) // COLUMNS), 1 if evaluated else 0]
    heights = [n for n in rows if n]
    size = (COLUMNS * PANEL[0], PANEL[1] * sum(heights) + 1.1)
    figure = Figure(figsize=size, dpi=130, layout="constrained")
    grid = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)
    parts = iter(np.asarray(grid).ravel())
    if histories:
        part = next(parts)
        panels = _panels(part, len(histories))
        for axes, (title, unit, keys) in zip(panels, histories, strict=True):
            _history(axes, runs, drawn, title, keys)
            axes.set_ylabel(unit, fontsize=TICK_SIZE)
    if evaluated:
        part = next(parts)
        panels = _panels(part, len(evaluated), share=_same_ranges(evaluated))
        for axes, run in zip(panels, evaluated, strict=True):
            _band(axes, run, drawn[run.name][0], (predictions or {}).get(run.name))
        for axes in panels[::COLUMNS]:
            axes.set_ylabel("predicted / true", fontsize=TICK_SIZE)
        _bars(next(parts).subplots(), evaluated, drawn)
    always = Line2D([], [], color=REFERENCE, ls=":", lw=1.6, label="always the mean label")
    key(figure, [run.name for run in runs], drawn, always)
    shown = ["training"] if histories else []
    shown += ["predicted over true functions", "errors on the test maps"] if evaluated else []
    figure.suptitle(f"runs side by side: {', '.join(shown)}", fontsize=LABEL_SIZE)
    return figure


def _same_ranges(runs: Sequence[RunRecord]) -> bool:
    """Whether the labels of these evaluated runs have one range of luminosity, and so one axis."""
    wholes = [run.evaluation["network"]["whole"]["log10_L"] for run in runs if run.evaluation]
    return all(whole == wholes[0] for whole in wholes)


def _panels(part: Any, number: int, share: bool = False) -> list[Axes]:
    """So many panels in rows; the places left over stay empty. share: their axes."""
    rows = -(-number // COLUMNS)
    grid = part.subplots(rows, COLUMNS, squeeze=False, sharex=share, sharey=share).ravel()
    for axes in grid[number:]:
        axes.set_visible(False)
    for axes in grid[:number]:
        axes.xaxis.set_tick_params(labelbottom=True)
    return list(grid[:number])


def _history_panels(runs: Sequence[RunRecord]) -> list[tuple[str, str, Keys]]:
    """Title, unit, and by run the entries drawn: training and validation loss for each kind of
    loss, then the error of each luminosity range for each function."""
    panels: list[tuple[str, str, Keys]] = []
    with_history = [run for run in runs if run.history]
    for kind in dict.fromkeys(run.loss for run in with_history):
        keys = {r.name: ("loss", "validation_loss") for r in with_history if r.loss == kind}
        title = fill(kind, 36)
        panels.append((title, "loss (thin: training,\ndots: validation)", keys))
    functions = list(dict.fromkeys(run.function for run in with_history))
    for function in functions:
        members = [run for run in with_history if run.function == function]
        found = dict.fromkeys(
            k.removeprefix("error_dex_")
            for run in members
            for entry in run.history
            for k in entry
            if k.startswith("error_dex_")
        )
        for name in found:
            keys = {r.name: (f"error_dex_{name}", f"baseline_dex_{name}") for r in members}
            what = "all bins" if name == "all" else rf"$\log_{{10}}L$ = {name}"
            panels.append((f"{function}, {what}", "validation rms [dex]", keys))
    return panels


def _history(
    axes: Axes,
    runs: Sequence[RunRecord],
    drawn: Styles,
    title: str,
    keys: Keys,
) -> None:
    """Curves against the number of samples seen."""
    values: list[float] = []
    mean = 0.0
    for run in runs:
        for number, name in enumerate(keys.get(run.name, ())):
            colour, line = drawn[run.name]
            points = _points(run, name)
            if not len(points):
                continue
            is_mean = name.startswith("baseline")
            if is_mean and run.name != next(iter(keys)):
                continue
            look: dict[str, Any] = {"color": colour, "ls": line, "lw": 1.6}
            if name == "loss":
                look |= {"lw": 0.8, "alpha": 0.45}
            elif is_mean:
                look = {"color": REFERENCE, "ls": ":", "lw": 1.6}
                mean = float(points[:, 1].max())
            else:
                look |= {"marker": "o", "ms": 2.5}
            axes.plot(points[:, 0], points[:, 1], **look)
            if number == 0 or name == "validation_loss":
                values += points[:, 1].tolist()
    if values and min(values) > 0:
        axes.set_yscale("log")
        plain_ticks(axes.yaxis)
    if len(values) > 8:  # the first steps of a training may be far off
        top = 1.3 * float(np.percentile(values, 97))
        axes.set_ylim(top=max(top, 1.1 * mean, 2.0 * axes.get_ylim()[0]))
    axes.set_title(title, fontsize=TICK_SIZE)
    axes.set_xlabel("training samples", fontsize=TICK_SIZE)
    axes.tick_params(labelsize=TICK_SIZE - 1, which="both")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.grid(alpha=0.25, lw=0.6)


def _points(run: RunRecord, name: str) -> Float:
    """(samples, value) of the finite entries, [n, 2]."""
    size = run.config.train.batch_size
    found = [(e["step"] * size, e[name]) for e in run.history if name in e]
    points = np.array(found, np.float64).reshape(-1, 2)
    return np.asarray(points[np.isfinite(points).all(axis=1)])


def _band(axes: Axes, run: RunRecord, colour: str, predictions: Predictions | None) -> None:
    """Median, 68 % and 95 % of predicted / true, per bin or per luminosity range."""
    if predictions is not None:
        rows = 1 + delta_percentiles(predictions.predicted - predictions.true, predictions.occupied)
        at, step = positions(predictions.bin_edges, run.config.label.quantity), None
        edges = predictions.bin_edges
    else:
        at, rows, edges = _range_bands(run)
        step = "post"
    low95, low68, median, high68, high95 = rows
    for low, high, alpha in ((low95, high95, 0.22), (low68, high68, 0.45)):
        axes.fill_between(at, low, high, color=colour, alpha=alpha, lw=0, step=step)  # type: ignore[arg-type]
    axes.plot(at, median, color=colour, lw=1.8, drawstyle="steps-post" if step else "default")
    style(axes, edges)
    axes.tick_params(labelsize=TICK_SIZE - 1)
    ratio_axis(axes, (1 / WIDEST_RATIO, WIDEST_RATIO))
    axes.set_title(f"{as_name(run.name)}: {run.function}, 68 and 95 %", fontsize=TICK_SIZE)
    axes.set_xlabel(r"$L$ [$L_\odot$]", fontsize=TICK_SIZE)


def _range_bands(run: RunRecord) -> tuple[Float, Float, Float]:
    """Edges of luminosity [Lsun], percentiles of predicted / true at each, and log10 of the ends;
    each range's from its lower edge to the upper."""
    assert run.evaluation is not None
    parts = [part for part in run.evaluation["network"]["ranges"] if part["num_values"]]
    at, rows = [], []
    for part in parts:
        (low95, high95), (low68, high68) = part["interval_95"], part["interval_68"]
        row = [1 + v for v in (low95, low68, part["median"], high68, high95)]
        at += [10.0**edge for edge in part["log10_L"]]
        rows += [row, row]
    whole = np.array(run.evaluation["network"]["whole"]["log10_L"])
    return np.array(at), np.array(rows).reshape(-1, 5).T, whole


def _bars(axes: Axes, runs: Sequence[RunRecord], drawn: Styles) -> None:
    """rms of every luminosity range, a bar per run, and a line for its mean label."""
    found = {
        (run.name, tuple(part["log10_L"])): (part, mean)
        for run in runs
        if run.evaluation
        for part, mean in zip(
            [*run.evaluation["network"]["ranges"], run.evaluation["network"]["whole"]],
            [*run.evaluation["mean_label"]["ranges"], run.evaluation["mean_label"]["whole"]],
            strict=True,
        )
    }
    wholes = {
        tuple(run.evaluation["network"]["whole"]["log10_L"]) for run in runs if run.evaluation
    }
    ranges = sorted({bounds for _, bounds in found}, key=lambda b: (b in wholes, b))
    width = 0.8 / len(runs)
    for k, run in enumerate(runs):
        for place, bounds in enumerate(ranges):
            part, mean = found.get((run.name, bounds), (None, None))
            if part is None or part["rms_dex"] is None:
                continue
            x = place - 0.4 + (k + 0.5) * width
            colour, line = drawn[run.name]
            hatch = {"-": "", "--": "///", ":": "...", "-.": "xx"}[line]
            axes.bar(
                x,
                part["rms_dex"],
                0.9 * width,
                color=colour,
                hatch=hatch,
                edgecolor="white",
                lw=0,
                yerr=part["rms_dex_error"] or 0.0,
                error_kw={"lw": 1.0},
            )
            if mean["rms_dex"] is not None:
                ends = [x - width / 2, x + width / 2]
                axes.plot(ends, [mean["rms_dex"]] * 2, ":", color=REFERENCE, lw=1.6)
    names = [f"{low:g}-{high:g}" for low, high in ranges]
    axes.set_xticks(range(len(ranges)), names)
    axes.set_xlabel(r"$\log_{10}(L/L_\odot)$", fontsize=LABEL_SIZE)
    if any(run.errors_without for run in runs):
        axes.set_title("error bars without the scatter from sky to sky", fontsize=TICK_SIZE)
    axes.set_ylabel("rms on test maps [dex]", fontsize=LABEL_SIZE)
    axes.tick_params(labelsize=TICK_SIZE)
    axes.grid(axis="y", alpha=0.25, lw=0.6)
    axes.set_axisbelow(True)


RATIOS = ((0.2, 5.0), (0.8, 1.25))
"""Limits of predicted / true in the two lower rows."""


def comparable_runs(
    runs: Sequence[RunRecord], predictions: Mapping[str, Predictions]
) -> list[RunRecord]:
    """The runs with predictions that have the test halos and the function of the first that has."""
    having = [run for run in runs if run.name in predictions]
    if not having:
        return []
    first = having[0]
    true = predictions[first.name].true
    return [
        run
        for run in having
        if (run.halos, run.function) == (first.halos, first.function)
        and np.allclose(predictions[run.name].true, true, rtol=0, atol=1e-5)
    ]


def same_maps(runs: Sequence[RunRecord], predictions: Mapping[str, Predictions]) -> Figure:
    """The `three_maps` of the first run: functions of every run, the truth, their ratio, and that
    close to one.

    runs: of `comparable_runs`, all of which have predictions.
    """
    drawn, first = styles(runs), predictions[runs[0].name]
    true, occupied = first.true, first.occupied
    chosen, _ = three_maps(first.predicted, true, occupied)
    at = positions(first.bin_edges, runs[0].config.label.quantity)
    figure = Figure(figsize=(12.0, 7.6), dpi=130, layout="constrained")
    panels = figure.subplots(
        3, len(chosen), sharex=True, sharey="row", squeeze=False, height_ratios=(2.2, 1.1, 1.1)
    )
    for column, k in enumerate(chosen):
        shown = occupied[k]
        upper: Axes = panels[0, column]
        upper.plot(at[shown], 10 ** true[k][shown], "o", color=TRUTH, ms=3, zorder=4)
        for run in runs:
            colour, line = drawn[run.name]
            predicted = predictions[run.name].predicted[k]
            upper.plot(at, 10**predicted, line, color=colour, lw=1.5)
            ratio = np.where(shown, 10 ** (predicted - true[k]), np.nan)
            for axes in panels[1:, column]:
                axes.plot(at, ratio, line, color=colour, lw=1.4)
        upper.set_yscale("log")
        upper.set_title(
            f"test map {k}; {100 * QUANTILES[column]:.0f} % are better\n"
            f"for {as_name(runs[0].name)}",
            fontsize=TICK_SIZE,
        )
        for axes in panels[:, column]:
            style(axes, first.bin_edges)
        for axes, limits in zip(panels[1:, column], RATIOS, strict=True):
            ratio_axis(axes, limits)
        panels[2, column].set_xlabel(r"$L$ [$L_\odot$]", fontsize=LABEL_SIZE)
    _zoom_ticks(panels[2, 0])
    function = runs[0].function
    panels[0, 0].set_ylabel(f"{function}", fontsize=LABEL_SIZE)
    for axes, text in zip(
        panels[1:, 0], ("predicted / true", "predicted / true,\n0.8 to 1.25"), strict=True
    ):
        axes.set_ylabel(text, fontsize=LABEL_SIZE)
    truth = Line2D([], [], color=TRUTH, marker="o", ms=3, ls="", label="true")
    key(figure, [run.name for run in runs], drawn, truth)
    figure.suptitle("what the runs predict for the same three test maps", fontsize=LABEL_SIZE)
    return figure


def _zoom_ticks(axes: Axes) -> None:
    """Plain numbers, close to one."""
    axes.set_yticks([0.8, 0.9, 1.0, 1.1, 1.2], ["0.8", "0.9", "1", "1.1", "1.2"])
