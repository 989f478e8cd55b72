"""The figure of a Markov chain: luminosity functions with their bands."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from streamtrain.figures import (
    CHAIN,
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
