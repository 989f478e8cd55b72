"""Figures of an evaluation: three test maps, ratio and residual bands, histories of a training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator
from numpy.typing import NDArray

from streamtrain.evaluate.baselines import Published
from streamtrain.evaluate.baselines import bin_edges as published_edges
from streamtrain.evaluate.bootstrap import Float
from streamtrain.evaluate.scores import Bool, delta_percentiles
from streamtrain.figures import (
    GREY,
    LABEL_SIZE,
    NETWORK,
    RATIO_TICKS,
    REFERENCE,
    SERIES,
    TICK_SIZE,
    TRUTH,
    Slices,
    graded,
    legend_below,
    luminosity_function,
    plain_ticks,
    positions,
    ratio_axis,
    style,
)
from streamtrain.labels import QUANTITIES

LINEAR = 5.0
"""Largest delta on a linear axis."""
DELTAS = (-1.0, -0.5, 0.0, 0.5, *(m * 10.0**k for k in range(7) for m in (1, 2, 5)))
"""Ticks of delta beyond it."""
OTHER_MAPS = {
    "published network": "\n(other maps: 1.4 deg, Li+16)",
    "Ihle et al. 2019": "\n(other maps and method)",
}
"""What published errors were measured on, where it is not what stands beside them."""
QUANTILES = (0.16, 0.5, 0.84)
"""Quantiles of the rms error at which the maps are chosen whose functions are drawn."""
RANGE_ERROR = "error_dex_"
"""Start of the history's names of errors in a luminosity range."""


def comparison(
    predicted: Float,
    true: Float,
    occupied: Bool,
    bin_edges: Float,
    *,
    reference: Float | None = None,
    quantity: str = "counts",
    unit: Float | None = None,
    slices: Callable[[Sequence[int]], Slices] | None = None,
    band: Callable[[Sequence[int]], Float] | None = None,
) -> Figure:
    """`luminosity_function` of three test maps: those whose rms error is the 16th, 50th and 84th
    percentile of the test set. Arrays [num_samples, num_bins], as in `luminosity_function`; unit:
    [num_samples, num_bins] too; slices, band: make those of maps, given by their numbers."""
    chosen, titles = three_maps(predicted, true, occupied)
    return luminosity_function(
        predicted[chosen],
        true[chosen],
        bin_edges,
        occupied=occupied[chosen],
        reference=reference,
        titles=titles,
        quantity=quantity,
        unit=None if unit is None else unit[chosen],
        slices=slices(chosen.tolist()) if slices is not None else None,
        band=band(chosen.tolist()) if band is not None else None,
        title="luminosity functions of three test maps, predicted by the network and true",
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
    figure = Figure(figsize=(9.6, 4.8), dpi=150, layout="constrained")
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
        ends = np.abs(np.log10(np.concatenate([low95, high95])))
        extreme = max(extreme, float(np.nanmax(ends, initial=0.0)))
    limit = 10 ** min(extreme, np.log10(RATIO_TICKS[-1]))
    ratio_axis(panels[0], (1 / limit, limit))
    ratio_axis(panels[1], (1 / limit, limit))
    panels[0].set_ylabel(r"predicted / true $= 1 + \delta$", fontsize=LABEL_SIZE)
    legend_below(figure, panels[0], 3)
    figure.suptitle(
        "predicted over true function of all test maps, bin by bin", fontsize=LABEL_SIZE
    )
    return figure


def functions(
    predicted: Float,
    true: Float,
    occupied: Bool,
    bin_edges: Float,
    *,
    reference: Float | None = None,
    quantity: str = "counts",
    unit: Float | None = None,
) -> Figure:
    """Output and truth of the maps of `comparison` on a logarithmic and a linear axis, their
    ratio, and the same from 0.7 to 1.3. Arguments as there."""
    chosen, titles = three_maps(predicted, true, occupied)
    figure = Figure(figsize=(1.2 + 3.4 * len(chosen), 10.2), dpi=150, layout="constrained")
    panels = figure.subplots(
        4, len(chosen), sharex=True, sharey="row", squeeze=False, height_ratios=(1.6, 1.6, 1, 1)
    )
    at = positions(bin_edges, quantity)
    for column, k, title in zip(panels.T, chosen, titles, strict=True):
        unit_label = 1.0 if unit is None else unit[k]
        shown = occupied[k]
        curves = [("network", predicted[k], NETWORK, "-")]
        if reference is not None:
            curves.append(("mean label", reference, REFERENCE, "--"))
        for axes in column[:2]:
            truth = (unit_label * 10 ** true[k])[shown]
            axes.plot(at[shown], truth, "o", color=TRUTH, ms=2.8, zorder=4, label="true")
        for name, values, colour, line in curves:
            for axes in column[:2]:
                height = unit_label * 10**values
                axes.plot(at, height, line, color=colour, lw=1.8, label=name)
            ratio = np.where(shown, 10 ** (values - true[k]), np.nan)
            for axes in column[2:]:
                axes.plot(at, ratio, line, color=colour, lw=1.6)
        column[0].set_yscale("log")
        column[0].set_title(title, fontsize=TICK_SIZE)
        for axes in column:
            style(axes, bin_edges)
        ratio_axis(column[2], (0.2, 5.0))
        column[3].set_ylim(0.7, 1.3)
        column[3].axhline(1.0, color=TRUTH, lw=0.8, zorder=1)
        column[3].set_xlabel(r"$L$ [$L_\odot$]", fontsize=LABEL_SIZE)
    for axes in panels[:2, 0]:
        axes.set_ylabel(QUANTITIES[quantity].axis, fontsize=LABEL_SIZE)
    panels[2, 0].set_ylabel("predicted / true", fontsize=LABEL_SIZE)
    panels[3, 0].set_ylabel("predicted / true,\n0.7 to 1.3", fontsize=LABEL_SIZE)
    legend_below(figure, panels[0, 0], 3)
    figure.suptitle(
        "luminosity functions of three test maps, on a logarithmic and a linear axis",
        fontsize=LABEL_SIZE,
    )
    return figure


def residual_bands(
    predicted: Float,
    true: Float,
    occupied: Bool,
    bin_edges: Float,
    *,
    quantity: str = "counts",
    published: Published | None = None,
    limits: tuple[Float, Float] | None = None,
    other_maps: bool = True,
    title: str = "relative error of the network on all test maps, bin by bin",
) -> Figure:
    """Median, 68 % and 95 % of delta = predicted/true - 1 in each luminosity bin, on the published
    network's and the 95 % limits of Ihle et al. 2019.

    predicted, true: log10 dN, [num_samples, num_bins]; only occupied bins count. published,
    limits: in the published bins (see `published`); None: left out; other_maps: whether the
    published network's are of maps of another field, model or noise, which the legend says, as it
    does of the limits. The axis is logarithmic above 1
    where delta is large, so that all of it is shown.
    """
    figure = Figure(figsize=(7.2, 5.4), dpi=150, layout="constrained")
    axes = figure.subplots()
    low95, low68, median, high68, high95 = delta_percentiles(predicted - true, occupied)
    heights = [high95]
    theirs = 10.0 ** (0.5 * (published_edges()[1:] + published_edges()[:-1]))
    if published is not None:
        other = other_maps or published.note
        named = "published network"
        named += OTHER_MAPS[named] if other else ""
        axes.fill_between(
            theirs, published.percentiles[0], published.percentiles[4], color=GREY, alpha=0.3,
            lw=0, label=f"95 %, {named}",
        )  # fmt: skip
        for k, row in enumerate(published.percentiles[[1, 3]]):
            label = f"68 %, {named}" if k == 0 else None
            axes.plot(theirs, row, ":", color=TRUTH, lw=1.4, label=label)
        heights.append(published.percentiles[4])
    if limits is not None:
        named = "Ihle et al. 2019"
        for k, row in enumerate(limits):
            label = f"95 %, {named}{OTHER_MAPS[named]}" if k == 0 else None
            axes.plot(theirs, row, "--", color=SERIES[1], lw=1.6, label=label)
    at = positions(bin_edges, quantity)
    axes.fill_between(at, low95, high95, color=NETWORK, alpha=0.22, lw=0, label="95 % of maps")
    axes.fill_between(at, low68, high68, color=NETWORK, alpha=0.45, lw=0, label="68 % of maps")
    axes.plot(at, median, color=NETWORK, lw=2, label="median")
    axes.axhline(0.0, color=TRUTH, lw=0.8, zorder=1)
    style(axes, bin_edges)
    top = max(float(np.nanmax(h, initial=1.0)) for h in heights)
    if top > LINEAR:
        axes.set_yscale("symlog", linthresh=1.0, linscale=1.0)
        plain_ticks(axes.yaxis, FixedLocator(DELTAS))
    axes.set_ylim(-1.05, 1.05 * top)
    axes.set_xlabel(r"$L$ [$L_\odot$]", fontsize=LABEL_SIZE)
    axes.set_ylabel(r"$\delta$ = predicted / true $-$ 1", fontsize=LABEL_SIZE)
    axes.set_title(title, fontsize=LABEL_SIZE)
    legend_below(figure, axes, 2)
    return figure


def loss_history(
    entries: Sequence[Mapping[str, Any]], name: str = "mean squared error of the label"
) -> Figure:
    """Training and validation loss against the step, and below it the validation's errors per
    luminosity range; entries: of a run's history (step, loss, and where they were measured
    validation_loss, mean_label_loss or prior_loss, and error_dex_RANGE, or accuracy). name: what
    the loss is."""
    ranges = [e for e in entries if any(key.startswith(RANGE_ERROR) for key in e)]
    accuracies = [e for e in entries if e.get("accuracy") is not None]
    rows = 2 if ranges or accuracies else 1
    figure = Figure(figsize=(6.4, 1.2 + 2.8 * rows), dpi=150, layout="constrained")
    panels = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    curves = (
        ("loss", "training", GREY, "-"),
        ("validation_loss", "validation", NETWORK, "o-"),
        ("mean_label_loss", "mean label,\nvalidation", REFERENCE, "s--"),
        ("prior_loss", "prior,\nvalidation", REFERENCE, "s--"),
    )
    drawn: list[float] = []
    for key, title, colour, line in curves:
        points = [(e["step"], e[key]) for e in entries if e.get(key) is not None]
        if points:
            steps, losses = zip(*points, strict=True)
            panels[0].plot(steps, losses, line, color=colour, lw=1.6, ms=4, label=title)
            drawn += losses
    if drawn and min(drawn) > 0:
        panels[0].set_yscale("log")
    panels[0].set_ylabel("loss", fontsize=LABEL_SIZE)
    panels[0].set_title(
        "\n".join(["training of the network", fill(f"loss: {name}", 75)]), fontsize=TICK_SIZE
    )
    if drawn:
        panels[0].legend(
            fontsize=TICK_SIZE - 1, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5)
        )
    if ranges:
        _range_histories(panels[1], ranges)
    elif accuracies:
        at = [e["step"] for e in accuracies]
        panels[1].plot(at, [e["accuracy"] for e in accuracies], "o-", color=NETWORK, ms=4)
        panels[1].set_ylabel("accuracy, validation", fontsize=LABEL_SIZE)
    for axes in panels:
        axes.tick_params(labelsize=TICK_SIZE, which="both")
        axes.grid(alpha=0.25, lw=0.6)
        if axes.get_yscale() == "log":
            plain_ticks(axes.yaxis)
    panels[-1].set_xlabel("training step", fontsize=LABEL_SIZE)
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    return figure


def _range_histories(axes: Axes, entries: Sequence[Mapping[str, Any]]) -> None:
    """The validation's rms in each luminosity range against the step."""
    keys = list(dict.fromkeys(k for e in entries for k in e if k.startswith(RANGE_ERROR)))
    colours = graded(len(keys) - 1)
    for k, key in enumerate(keys):
        points = [(e["step"], e[key]) for e in entries if key in e]
        name = key.removeprefix(RANGE_ERROR)
        whole = name == "all"
        axes.plot(
            *zip(*points, strict=True), "o-", ms=3, lw=2.2 if whole else 1.4,
            color=TRUTH if whole else colours[min(k, len(colours) - 1)], label=name,
        )  # fmt: skip
    axes.set_yscale("log")
    axes.set_ylabel("rms, validation [dex]", fontsize=LABEL_SIZE)
    axes.legend(
        fontsize=TICK_SIZE - 1, frameon=False, title=r"$\log_{10} L/L_\odot$",
        title_fontsize=TICK_SIZE - 1, loc="center left", bbox_to_anchor=(1.0, 0.5),
    )  # fmt: skip


def three_maps(
    predicted: Float, true: Float, occupied: Bool
) -> tuple[NDArray[np.int64], list[str]]:
    """Numbers of the maps whose rms error is the 16th, 50th and 84th percentile, their titles."""
    squares = np.where(occupied, (predicted - true) ** 2, 0.0).sum(axis=1)
    rms = np.sqrt(squares / np.maximum(occupied.sum(axis=1), 1))
    order = np.argsort(rms, kind="stable")
    chosen = order[[round(q * (len(order) - 1)) for q in QUANTILES]]
    titles = [
        f"map {k}, rms {rms[k]:.3f} dex\n({100 * q:.0f} % of the maps are better)"
        for k, q in zip(chosen, QUANTILES, strict=True)
    ]
    return chosen, titles
