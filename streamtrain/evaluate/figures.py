"""Figures of an evaluation: three test maps, ratio bands, loss history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from streamtrain.evaluate.metrics import Bool, Float, delta_percentiles
from streamtrain.figures import (
    LABEL_SIZE,
    NETWORK,
    RATIO_TICKS,
    REFERENCE,
    TICK_SIZE,
    luminosity_function,
    positions,
    ratio_axis,
    style,
)


def comparison(
    predicted: Float,
    true: Float,
    occupied: Bool,
    bin_edges: Float,
    *,
    reference: Float | None = None,
    quantity: str = "counts",
    unit: Float | None = None,
) -> Figure:
    """`luminosity_function` of three test maps: those whose rms error is the 16th, 50th and 84th
    percentile of the test set. Arrays [num_samples, num_bins], as in `luminosity_function`; unit:
    [num_samples, num_bins] too."""
    squares = np.where(occupied, (predicted - true) ** 2, 0.0).sum(axis=1)
    rms = np.sqrt(squares / np.maximum(occupied.sum(axis=1), 1))
    order = np.argsort(rms, kind="stable")
    quantiles = (0.16, 0.5, 0.84)
    chosen = order[[round(q * (len(order) - 1)) for q in quantiles]]
    titles = [
        f"map {k}, rms {rms[k]:.3f} dex\n({100 * q:.0f} % of the maps are better)"
        for k, q in zip(chosen, quantiles, strict=True)
    ]
    return luminosity_function(
        predicted[chosen],
        true[chosen],
        bin_edges,
        occupied=occupied[chosen],
        reference=reference,
        titles=titles,
        quantity=quantity,
        unit=None if unit is None else unit[chosen],
    )


def ratio_bands(
    predicted: Float,
    reference: Float,
    true: Float,
    occupied: Bool,
    bin_edges: Float,
    *,
    quantity: str = "counts",
) -> Figure:
    """Median, 68 % and 95 % of predicted/true = 1 + delta in each luminosity bin, beside the
    same for the mean label.

    predicted, true: log10 dN, [num_samples, num_bins]; reference: [num_bins]; only occupied bins
    count.
    """
    figure = Figure(figsize=(9.6, 4.2), dpi=150, layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    cases = (("network", predicted, NETWORK), ("always the mean label", reference, REFERENCE))
    at = positions(bin_edges, quantity)
    extreme = 0.5
    for axes, (name, values, colour) in zip(panels, cases, strict=True):
        low95, low68, median, high68, high95 = 1 + delta_percentiles(values - true, occupied)
        axes.fill_between(at, low95, high95, color=colour, alpha=0.22, lw=0, label="95 % of maps")
        axes.fill_between(at, low68, high68, color=colour, alpha=0.45, lw=0, label="68 % of maps")
        axes.plot(at, median, color=colour, lw=2, label="median")
        axes.set_title(name, fontsize=LABEL_SIZE)
        axes.set_xlabel(r"$L$ [$L_\odot$]", fontsize=LABEL_SIZE)
        style(axes, bin_edges)
        axes.legend(fontsize=TICK_SIZE, frameon=False, loc="lower left")
        ends = np.abs(np.log10(np.concatenate([low95, high95])))
        extreme = max(extreme, float(np.nanmax(ends, initial=0.0)))
    limit = 10 ** min(extreme, np.log10(RATIO_TICKS[-1]))
    ratio_axis(panels[0], (1 / limit, limit))
    ratio_axis(panels[1], (1 / limit, limit))
    panels[0].set_ylabel(r"predicted / true $= 1 + \delta$", fontsize=LABEL_SIZE)
    return figure


def loss_history(
    entries: Sequence[Mapping[str, Any]], name: str = "mean squared error of the label"
) -> Figure:
    """Training and validation loss against the step; entries: of a run's history
    (step, loss, and validation_loss where it was measured). name: what the loss is."""
    figure = Figure(figsize=(6.4, 4.0), dpi=150, layout="constrained")
    axes = figure.subplots()
    curves = (
        ("loss", "training", NETWORK, "-"),
        ("validation_loss", "validation", REFERENCE, "o-"),
    )
    drawn: list[float] = []
    for key, name, colour, line in curves:
        points = [(e["step"], e[key]) for e in entries if e.get(key) is not None]
        if points:
            steps, losses = zip(*points, strict=True)
            axes.plot(steps, losses, line, color=colour, lw=1.6, ms=4, label=name)
            drawn += losses
    if drawn and min(drawn) > 0:
        axes.set_yscale("log")
    axes.set_xlabel("optimiser step", fontsize=LABEL_SIZE)
    axes.set_ylabel(f"loss ({name})", fontsize=LABEL_SIZE)
    axes.tick_params(labelsize=TICK_SIZE)
    axes.grid(alpha=0.25, lw=0.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    if drawn:
        axes.legend(fontsize=TICK_SIZE, frameon=False)
    return figure
