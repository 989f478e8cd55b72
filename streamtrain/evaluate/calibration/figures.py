"""The figure of a calibration: ranks, coverage, and groups of maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from streamtrain.bins import ranges_with_bins
from streamtrain.evaluate.bootstrap import Bootstrap
from streamtrain.evaluate.calibration.report import TITLES
from streamtrain.figures import GREY, LABEL_SIZE, SERIES, TICK_SIZE, TRUTH, graded, legend_above
from streamtrain.ranks import BANDS, BINS, LEVELS, POINTS, Ranks
from streamtrain.tables import range_title

Float = NDArray[np.float64]

HISTOGRAM = 10
"""Number of cells in the histograms of ranks."""


def calibration_figure(
    ranks: Ranks, result: Mapping[str, Any], bin_edges: Float, bootstrap: Bootstrap
) -> Figure:
    """Distributions of the ranks with simultaneous bands, coverage against level, histograms of the
    ranks of single bins, coverage in groups of maps.

    ranks: of the test maps; result: of `numbers` for them; bin_edges: log10(L/Lsun)
    [num_bins + 1]; bootstrap: makes the histograms' errors.
    """
    figure = Figure(figsize=(13.5, 9.6), dpi=150, layout="constrained")
    skies = result["bootstrap"]["skies"]
    whence = "one sky" if skies == 1 else f"{skies} skies"
    figure.suptitle(
        f"does the posterior mean what it says? {result['maps']} test maps of {whence}, "
        f"{result['draws']} functions drawn for each",
        fontsize=LABEL_SIZE,
    )
    above, below = figure.subfigures(2, 1, squeeze=False)[:, 0]
    panels = np.array([above.subplots(1, 3, sharey=True), below.subplots(1, 3)])
    num_ranges = sum(1 for _ in ranges_with_bins(bin_edges))
    names = list(ranks.sums)
    ranges, others = names[:num_ranges], names[num_ranges:]
    shades = graded(len(ranges))
    _ranks(panels[0, 0], result, ranges, shades, r"halos of a range of $\log_{10} L/L_\odot$")
    _ranks(panels[0, 1], result, others, SERIES, "integrals")
    _ranks(panels[0, 2], result, list(ranks.levels), SERIES, "the function as a whole")
    _coverage(panels[1, 0], result, [BINS, *others[-1:], *LEVELS])
    _histograms(panels[1, 1], ranks, bin_edges, bootstrap)
    _groups(panels[1, 2], result)
    highest = max(np.abs(axes.get_ylim()).max() for axes in panels[0])
    panels[0, 0].set_ylim(-highest, highest)
    panels[0, 0].set_ylabel("distribution of ranks - uniform", fontsize=LABEL_SIZE)
    panels[0, 2].set_xlabel("level of the region that reaches the truth", fontsize=LABEL_SIZE)
    return figure


def _ranks(
    axes: Axes, result: Mapping[str, Any], names: Sequence[str], colours: Sequence[Any], title: str
) -> None:
    """Empirical distributions of ranks minus the uniform one."""
    curves = result["rank_curves"]
    low, high = curves["band_95"]
    axes.fill_between(
        POINTS, low, high, color=GREY, alpha=0.25, lw=0, label="exact posterior, 95 %"
    )
    axes.axhline(0.0, color=TRUTH, lw=0.8)
    p = {row["name"]: row["p"] for row in result["statistics"]}
    for k, name in enumerate(names):
        colour = colours[k % len(colours)]
        label = f"{TITLES.get(name, name)}: p = {p[name]:.2g}"
        axes.plot(POINTS, curves[name], color=colour, lw=1.6, label=label)
    axes.set_xlim(0.0, 1.0)
    _finish(axes, title, "rank of the truth", "")


def _coverage(axes: Axes, result: Mapping[str, Any], names: Sequence[str]) -> None:
    """Share of truths inside minus the level, in per cent."""
    curves = result["coverage_curves"]
    levels = 100 * np.array(curves["levels"])
    axes.axhline(0.0, color=TRUTH, lw=0.8)
    shown = [name for name in names if name in curves]
    for k, (colour, name) in enumerate(zip(SERIES, shown, strict=False)):
        share = 100 * np.array(curves[name]["share"])
        error = [100 * (value or 0.0) for value in curves[name]["error"]]
        axes.errorbar(
            levels + 0.5 * (k - 0.5 * len(shown)),
            share - levels,
            error,
            fmt="o-",
            ms=2.5,
            lw=1.2,
            elinewidth=0.8,
            color=colour,
            label=TITLES.get(name, name),
        )
    axes.set_xlim(0.0, 100.0)
    _finish(axes, "coverage", "level [%]", "share of truths inside - level [%]")


def _histograms(axes: Axes, ranks: Ranks, bin_edges: Float, bootstrap: Bootstrap) -> None:
    """Of the ranks of single bins, by luminosity range."""
    ends = np.linspace(0.0, 1.0, HISTOGRAM + 1)
    axes.axhline(1.0, color=TRUTH, lw=0.8)
    ranges = list(ranges_with_bins(bin_edges))
    for k, (colour, (span, inside)) in enumerate(zip(graded(len(ranges)), ranges, strict=True)):
        rank = ranks.bins[:, inside]
        per_map = np.stack(
            [
                HISTOGRAM * ((low <= rank) & (rank < high)).mean(axis=1)
                for low, high in pairwise(ends)
            ]
        )
        axes.errorbar(
            0.5 * (ends[1:] + ends[:-1]) + 0.008 * (k - 0.5 * len(ranges)),
            per_map.mean(axis=1),
            [bootstrap.mean(row) or 0.0 for row in per_map],
            fmt="o-",
            ms=3,
            lw=1.0,
            color=colour,
            label=range_title(span),
        )
    axes.set_xlim(0.0, 1.0)
    _finish(axes, "ranks of single bins", "rank (randomised PIT)", "density")


def _groups(axes: Axes, result: Mapping[str, Any]) -> None:
    """Coverage of bins and of whole curves, in groups of maps."""
    groups = result["groups"]
    at = np.arange(len(groups))[::-1]
    for level, marker in zip(BANDS, ("o", "s"), strict=True):
        axes.vlines(100 * level, -0.6, len(groups) - 0.4, color=TRUTH, lw=0.8)
        for name, colour, off in ((BINS, SERIES[0], 0.12), ("curve", SERIES[1], -0.12)):
            key = f"{name}_coverage_{100 * level:g}"
            axes.errorbar(
                [100 * row[key] for row in groups],
                at + off,
                xerr=[100 * (row[f"{key}_error"] or 0.0) for row in groups],
                fmt=marker,
                ms=4,
                lw=1.2,
                color=colour,
                label=f"{TITLES[name]}, {100 * level:g} %",
            )
    axes.set_yticks(at, [_group_title(row) for row in groups], fontsize=TICK_SIZE - 2)
    axes.set_ylim(-0.6, len(groups) - 0.4)
    bright = f"halos: expected above $10^{{{result['bright_log10_L']:g}}}$ $L_\\odot$"
    _finish(axes, f"groups of maps; {bright}", "share of truths inside [%]", "")


def _group_title(row: Mapping[str, Any]) -> str:
    units = {"bright halos": " halos", "noise [uK]": " uK", "noise [Jy/sr]": " Jy/sr"}
    return f"{row['group']}{units.get(row['by'], '')}"


def _finish(axes: Axes, title: str, across: str, up: str) -> None:
    axes.set_xlabel(across, fontsize=LABEL_SIZE)
    axes.set_ylabel(up, fontsize=LABEL_SIZE)
    axes.tick_params(labelsize=TICK_SIZE)
    axes.grid(alpha=0.25, lw=0.6)
    legend_above(axes, 2, title)
