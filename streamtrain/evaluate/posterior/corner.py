"""The corner plot of a posterior of parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from streamtrain.figures import CHAIN, GREY, LABEL_SIZE, SERIES, TICK_SIZE, TRUTH

Float = NDArray[np.float64]

LINE_INCH = 0.25
"""Height of a line of the title [inch]."""


def corner(
    samples: Float,
    names: Sequence[str],
    true: Float | None,
    prior: Float,
    *,
    colour: str = CHAIN,
    beside: Mapping[str, Float] | None = None,
    title: str,
    name: str = "posterior",
) -> Figure:
    """Every parameter against every other, and each alone beside its prior; the upper triangle
    has the legend.

    samples: of the posterior [num, num_names]; true: [num_names], None: unknown; prior: draws [num,
    num_names]. name: of the posterior; beside: samples of others by name, drawn as lines.
    """
    beside = beside or {}
    free = [own for own in SERIES if own != colour]
    others = dict(zip(beside, free, strict=False))
    num = len(names)
    figure = Figure(figsize=(1.5 + 1.7 * num, 1.5 + 1.7 * num), dpi=150, layout="constrained")
    panels = figure.subplots(num, num, squeeze=False)
    ends = [np.percentile(values, (0.5, 99.5), axis=0) for values in (prior, samples)]
    limits = np.stack([np.minimum(*ends)[0], np.maximum(*ends)[1]], axis=1)
    flat = limits[:, 0] == limits[:, 1]
    limits[flat] += [-0.5, 0.5]
    for row in range(num):
        for column in range(num):
            axes = panels[row, column]
            if column > row:
                axes.set_axis_off()
                continue
            low, high = limits[column]
            bins = np.linspace(low, high, 40)
            if row == column:
                axes.hist(prior[:, row], bins, density=True, histtype="step", color=GREY)
                axes.hist(samples[:, row], bins, density=True, color=colour, alpha=0.6)
                for other, line in others.items():
                    values = beside[other][:, row]
                    axes.hist(values, bins, density=True, histtype="step", color=line)
                if true is not None:
                    axes.axvline(true[row], color=TRUTH, lw=1.2)
                axes.set_yticks([])
            else:
                _contours(axes, samples[:, column], samples[:, row], colour)
                for other, line in others.items():
                    values = beside[other]
                    _contours(axes, values[:, column], values[:, row], line, filled=False)
                if true is not None:
                    axes.plot(true[column], true[row], "+", color=TRUTH, ms=9, mew=1.5)
                axes.set_ylim(*limits[row])
            axes.set_xlim(*limits[column])
            axes.tick_params(labelsize=TICK_SIZE - 3, labelbottom=row == num - 1)
            axes.tick_params(labelleft=column == 0 and row > 0)
            axes.locator_params(nbins=4)
        panels[num - 1, row].set_xlabel(names[row], fontsize=TICK_SIZE)
        if row:
            panels[row, 0].set_ylabel(names[row], fontsize=TICK_SIZE)
    handles: list[Artist] = [Patch(color=colour, alpha=0.6, label=f"{name}, 68 and 95 %")]
    handles += [Line2D([], [], color=line, label=other) for other, line in others.items()]
    handles.append(Line2D([], [], color=GREY, label="prior"))
    if true is not None:
        handles.append(Line2D([], [], color=TRUTH, marker="+", ms=9, mew=1.5, label="true"))
    look: dict[str, Any] = {"loc": "outside lower center"}
    if num > 2:
        below = 0.02 + LINE_INCH * (title.count("\n") + 1) / figure.get_figheight()
        look = {"loc": "upper right", "bbox_to_anchor": (1.0, 1.0 - below)}
    figure.legend(handles=handles, fontsize=TICK_SIZE, frameon=False, **look)
    figure.suptitle(title, fontsize=LABEL_SIZE)
    return figure


def _contours(axes: Axes, x: Float, y: Float, colour: str, *, filled: bool = True) -> None:
    """Regions that hold 68 % and 95 % of the samples."""
    counts, x_edges, y_edges = np.histogram2d(x, y, bins=24)
    falling = np.sort(counts.ravel())[::-1]
    share = np.cumsum(falling) / falling.sum()
    heights = [falling[np.searchsorted(share, part)] for part in (0.95, 0.68)]
    middles = [0.5 * (edges[1:] + edges[:-1]) for edges in (x_edges, y_edges)]
    if not filled:
        axes.contour(*middles, counts.T, levels=np.unique(heights), colors=colour, linewidths=1.0)
        return
    levels = np.unique([*heights, falling[0] + 1.0])
    colours = [to_rgba(colour, alpha) for alpha in (0.3, 0.65)][-(len(levels) - 1) :]
    axes.contourf(*middles, counts.T, levels=levels, colors=colours)
