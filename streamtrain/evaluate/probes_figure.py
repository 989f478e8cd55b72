"""The figure of a network's answers to changed maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from streamtrain.figures import LABEL_SIZE, NETWORK, REFERENCE, TICK_SIZE, TRUTH, style

if TYPE_CHECKING:
    from streamtrain.evaluate.probes import Probe

Float = NDArray[np.float64]

COLOURS = (NETWORK, REFERENCE, "#009E73", "#CC79A7")
"""Of Okabe & Ito."""


def probes_figure(probes: Sequence[Probe], bin_edges: Float) -> Figure:
    """Mean answers to maps without a halo and with shuffled frequencies; to fainter and brighter
    halos, with the truth; and how far answers to copies of one field scatter, beside the error."""
    figure = Figure(figsize=(13.2, 4.4), dpi=150, layout="constrained")
    panels = figure.subplots(1, 3, sharex=True)
    at = 10.0 ** (0.5 * (bin_edges[1:] + bin_edges[:-1]))
    unchanged = probes[0]
    changed = [p for p in probes if p.name in ("no halo", "frequencies shuffled")]
    bright = [p for p in probes if p.name.startswith("brightness")]
    copies = [p for p in probes if p.name in ("turned and mirrored", "other noise")]
    for axes, shown in ((panels[0], changed), (panels[1], bright)):
        for colour, probe in zip(COLOURS, [unchanged, *shown], strict=False):
            dashes = "--" if probe.name == "frequencies shuffled" else "-"
            axes.plot(at, 10.0**probe.answers, dashes, color=colour, lw=1.8, label=probe.name)
            if probe.true is not None and probe.name != "no halo":
                axes.plot(at, 10.0**probe.true, "o", color=colour, ms=2.6, mfc="none")
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.7)
    panels[0].set_ylabel("halos per bin, geometric mean of the maps", fontsize=LABEL_SIZE)
    panels[0].set_title("answers (lines), truth (circles)", fontsize=TICK_SIZE)
    panels[1].set_title("answers and truth when halos are fainter or brighter", fontsize=TICK_SIZE)
    panels[2].plot(at, _rms(unchanged), color=TRUTH, lw=1.8, label="error")
    for colour, probe in zip(COLOURS, copies, strict=False):
        axes = panels[2]
        axes.plot(at, _rms(probe), color=colour, lw=1.8, label=f"spread, {probe.name}")
    panels[2].set_ylim(bottom=0.0)
    panels[2].set_ylabel("rms of log10 of the count [dex]", fontsize=LABEL_SIZE)
    panels[2].set_title("copies of one field", fontsize=TICK_SIZE)
    for axes in panels:
        style(axes, bin_edges)
        axes.set_xlabel(r"$L$ [$L_\odot$]", fontsize=LABEL_SIZE)
        axes.legend(fontsize=TICK_SIZE - 1, frameon=False)
    return figure


def _rms(probe: Probe) -> Float:
    """Per bin, over the maps in which it counts; NaN where there is none [num_bins]."""
    number = probe.used.sum(axis=0)
    squares = np.where(probe.used, probe.error**2, 0.0).sum(axis=0)
    return np.where(number > 0, np.sqrt(squares / np.maximum(number, 1)), np.nan)
