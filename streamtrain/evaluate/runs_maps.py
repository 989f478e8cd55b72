"""The same test maps as several runs read them: functions, and over the true ones (maps.png)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from streamtrain.evaluate.answers import Answers
from streamtrain.evaluate.runs import Run
from streamtrain.evaluate.runs_figure import key, styles
from streamtrain.figures import LABEL_SIZE, TICK_SIZE, TRUTH, positions, ratio_axis, style

QUANTILES = (0.16, 0.5, 0.84)
"""Of the maps by the first run's rms error, whose functions are drawn."""
RATIOS = ((0.2, 5.0), (0.8, 1.25))
"""Limits of predicted / true in the two lower rows."""


def asked_the_same(runs: Sequence[Run], answers: Mapping[str, Answers]) -> list[Run]:
    """The runs with answers that have the test halos and the function of the first that has."""
    having = [run for run in runs if run.name in answers]
    if not having:
        return []
    first = having[0]
    true = answers[first.name].true
    return [
        run
        for run in having
        if (run.halos, run.function) == (first.halos, first.function)
        and np.allclose(answers[run.name].true, true, rtol=0, atol=1e-5)
    ]


def same_maps(runs: Sequence[Run], answers: Mapping[str, Answers]) -> Figure:
    """Three test maps: functions of every run and the truth, their ratio, and that close to one.

    runs: of `asked_the_same`, all of which have answers.
    """
    drawn, first = styles(runs), answers[runs[0].name]
    true, occupied = first.true, first.occupied
    squares = np.where(occupied, (first.predicted - true) ** 2, 0.0).sum(axis=1)
    rms = np.sqrt(squares / np.maximum(occupied.sum(axis=1), 1))
    order = np.argsort(rms, kind="stable")
    chosen = order[[round(q * (len(order) - 1)) for q in QUANTILES]]
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
            predicted = answers[run.name].predicted[k]
            upper.plot(at, 10**predicted, line, color=colour, lw=1.5)
            ratio = np.where(shown, 10 ** (predicted - true[k]), np.nan)
            for axes in panels[1:, column]:
                axes.plot(at, ratio, line, color=colour, lw=1.4)
        upper.set_yscale("log")
        upper.set_title(
            f"test map {k}; {100 * QUANTILES[column]:.0f} % are better\nfor {runs[0].name}",
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
    for axes, text in zip(panels[1:, 0], ("predicted / true", "the same, close to 1"), strict=True):
        axes.set_ylabel(text, fontsize=LABEL_SIZE)
    truth = Line2D([], [], color=TRUTH, marker="o", ms=3, ls="", label="true")
    key(figure, [run.name for run in runs], drawn, truth)
    return figure


def _zoom_ticks(axes: Axes) -> None:
    """Plain numbers, close to one."""
    axes.set_yticks([0.8, 0.9, 1.0, 1.1, 1.2], ["0.8", "0.9", "1", "1.1", "1.2"])
