"""The figure of an inferred luminosity function."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from streamtrain.figures import LABEL_SIZE, NETWORK, TICK_SIZE, TRUTH, positions, style
from streamtrain.generator.labels import QUANTITIES

if TYPE_CHECKING:
    from streamtrain.evaluate.infer import Function

Float = NDArray[np.float64]


def answer_figure(answer: Function, title: str = "", true: Float | None = None) -> Figure:
    """An inferred function with its 68 % and 95 %; true: the truth where it is known, in the same
    quantity [num_bins], not drawn where it is 0."""
    figure = Figure(figsize=(6.4, 4.6), dpi=150, layout="constrained")
    axes = figure.subplots()
    at = positions(answer.bin_edges, answer.quantity)
    if answer.interval is not None:
        low95, low68, high68, high95 = answer.interval
        axes.fill_between(at, low95, high95, color=NETWORK, alpha=0.2, lw=0, label="95 %")
        axes.fill_between(at, low68, high68, color=NETWORK, alpha=0.4, lw=0, label="68 %")
    axes.plot(at, answer.value, color=NETWORK, lw=1.8, label="network")
    axes.plot(at, answer.one_halo, ":", color="grey", lw=1.2, zorder=1, label="one halo")
    if true is not None:
        some = true > 0
        axes.plot(at[some], true[some], "o", color=TRUTH, ms=2.8, zorder=4, label="true")
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.7 * float(answer.one_halo.min()))
    style(axes, answer.bin_edges)
    axes.set_xlabel(r"$L$ [$L_\odot$]", fontsize=LABEL_SIZE)
    axes.set_ylabel(QUANTITIES[answer.quantity].axis, fontsize=LABEL_SIZE)
    axes.set_title(title, fontsize=TICK_SIZE)
    axes.legend(fontsize=TICK_SIZE - 1, frameon=False, loc="lower left")
    return figure
