"""Figures of a Markov chain: luminosity functions with their bands, parameters against another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from streamtrain.figures import (
    LABEL_SIZE,
    NETWORK,
    REFERENCE,
    TICK_SIZE,
    TRUTH,
    positions,
    ratio_axis,
    style,
)
from streamtrain.labels import QUANTITIES

Float = NDArray[np.float64]

CHAIN = "#009E73"
SHOWN = 3
"""Maps in a figure, at most."""


def luminosity_bands(
    bands: Float,
    true: Float,
    occupied: NDArray[np.bool_],
    bin_edges: Float,
    networks: Mapping[str, Float],
    *,
    quantity: str = "counts",
    unit: Float | None = None,
) -> Figure:
    """68 % and 95 % of the posterior of each map's own counts, truth, networks; ratios below.

    bands: percentiles 2.5, 16, 50, 84, 97.5 of log10 of the count [num_maps, 5, num_bins]; true,
    occupied, networks: [num_maps, num_bins]; the first `SHOWN` maps are drawn. bin_edges:
    log10(L/Lsun) [num_bins + 1]. quantity, unit: as in `figures.luminosity_function`.
    """
    num = min(len(true), SHOWN)
    figure = Figure(figsize=(1.2 + 3.6 * num, 5.0), dpi=150, layout="constrained")
    panels = figure.subplots(
        2, num, sharex=True, sharey="row", squeeze=False, height_ratios=(2, 1.2)
    )
    at = positions(bin_edges, quantity)
    worth = np.broadcast_to(1.0 if unit is None else unit, true.shape)
    colours = [NETWORK, REFERENCE, "#CC79A7", "#56B4E9"]
    for k in range(num):
        upper, lower = panels[:, k]
        shown = occupied[k]
        for axes, below in ((upper, 0.0), (lower, true[k])):
            scale = worth[k] if axes is upper else 1.0
            low95, low68, middle, high68, high95 = scale * 10.0 ** (bands[k] - below)
            hide = np.where(shown | (axes is upper), 1.0, np.nan)
            axes.fill_between(at, low95 * hide, high95, color=CHAIN, alpha=0.2, lw=0, label="95 %")
            axes.fill_between(at, low68 * hide, high68, color=CHAIN, alpha=0.45, lw=0, label="68 %")
            axes.plot(at, middle * hide, color=CHAIN, lw=1.6, label="Markov chain, median")
            for (name, values), colour in zip(networks.items(), colours, strict=False):
                curve = scale * 10.0 ** (values[k] - below) * hide
                axes.plot(at, curve, "--", color=colour, lw=1.5, label=f"network {name}")
        count = (worth[k] * 10.0 ** true[k])[shown]
        upper.plot(at[shown], count, "o", color=TRUTH, ms=2.6, label="true", zorder=4)
        upper.set_yscale("log")
        upper.set_title(f"test map {k}", fontsize=TICK_SIZE)
        style(upper, bin_edges)
        style(lower, bin_edges)
        ratio_axis(lower, (0.4, 2.5))
        lower.set_xlabel(r"$L$ [$L_\odot$]", fontsize=LABEL_SIZE)
    panels[0, 0].set_ylabel(QUANTITIES[quantity].axis, fontsize=LABEL_SIZE)
    panels[1, 0].set_ylabel("posterior / true", fontsize=LABEL_SIZE)
    panels[0, 0].legend(fontsize=TICK_SIZE - 2, frameon=False, loc="lower left")
    return figure


def corner(samples: Float, names: Sequence[str], true: Float, prior: Float) -> Figure:
    """Every parameter against every other, and each alone beside its prior.

    samples: of the posterior [num, num_names]; true: [num_names]; prior: draws [num, num_names].
    """
    num = len(names)
    figure = Figure(figsize=(1.5 + 1.7 * num, 1.5 + 1.7 * num), dpi=150, layout="constrained")
    panels = figure.subplots(num, num, squeeze=False)
    ends = [np.percentile(values, (0.5, 99.5), axis=0) for values in (prior, samples)]
    limits = np.stack([np.minimum(*ends)[0], np.maximum(*ends)[1]], axis=1)
    for row in range(num):
        for column in range(num):
            axes = panels[row, column]
            if column > row:
                axes.set_axis_off()
                continue
            low, high = limits[column]
            bins = np.linspace(low, high, 40)
            if row == column:
                axes.hist(prior[:, row], bins, density=True, histtype="step", color="grey")
                axes.hist(samples[:, row], bins, density=True, color=CHAIN, alpha=0.6)
                axes.axvline(true[row], color=TRUTH, lw=1.2)
                axes.set_yticks([])
            else:
                _contours(axes, samples[:, column], samples[:, row])
                axes.plot(true[column], true[row], "+", color=TRUTH, ms=9, mew=1.5)
                axes.set_ylim(*limits[row])
            axes.set_xlim(*limits[column])
            axes.tick_params(labelsize=TICK_SIZE - 3, labelbottom=row == num - 1)
            axes.tick_params(labelleft=column == 0 and row > 0)
            axes.locator_params(nbins=4)
        panels[num - 1, row].set_xlabel(names[row], fontsize=TICK_SIZE)
        if row:
            panels[row, 0].set_ylabel(names[row], fontsize=TICK_SIZE)
    return figure


def _contours(axes: object, x: Float, y: Float) -> None:
    """Regions that hold 68 % and 95 % of the samples."""
    counts, x_edges, y_edges = np.histogram2d(x, y, bins=24)
    falling = np.sort(counts.ravel())[::-1]
    share = np.cumsum(falling) / falling.sum()
    heights = [falling[np.searchsorted(share, part)] for part in (0.95, 0.68)]
    levels = np.unique([*heights, falling[0] + 1.0])
    middles = [0.5 * (edges[1:] + edges[:-1]) for edges in (x_edges, y_edges)]
    colours = [(0.0, 0.62, 0.45, alpha) for alpha in (0.3, 0.65)][-(len(levels) - 1) :]
    axes.contourf(*middles, counts.T, levels=levels, colors=colours)  # type: ignore[attr-defined]
