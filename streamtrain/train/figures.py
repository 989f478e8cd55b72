"""The two figures of a validation: slices of a map, and predicted against true functions."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from streamtrain.config import LabelConfig

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


def map_slices(cube: F32, draw: Mapping[str, Any], columns: int = 4) -> Figure:
    """A few frequency slices of one cube as the network sees it.

    cube: float32 [n_freq, n_dec, n_ra]; draw: how the sample came about, for the title
    """
    channels = np.unique(np.linspace(0, len(cube) - 1, columns).round().astype(int))
    figure = Figure(figsize=(3.0 * len(channels), 3.7), layout="constrained")
    low, high = np.percentile(cube, [1, 99])
    image = None
    for column, channel in enumerate(channels):
        axes = figure.add_subplot(1, len(channels), column + 1)
        image = axes.imshow(cube[channel], vmin=low, vmax=high, origin="lower", cmap="inferno")
        axes.set(title=f"channel {channel}", xticks=[], yticks=[])
    if image is not None:
        figure.colorbar(image, ax=figure.axes, shrink=0.8, label="network input")
    figure.suptitle(textwrap.fill(_describe(draw), 110), fontsize=8)
    return figure


def luminosity_functions(
    log10_edges: F64, truth: F32, prediction: F32, label: LabelConfig
) -> Figure:
    """Labels of a few validation samples (black) and what the network says (colour).

    log10_edges: log10(L/Lsun) [n_bins + 1]; truth, prediction: [samples, n_bins]
    """
    figure = Figure(figsize=(4.0 * len(truth), 4.6), layout="constrained")
    centres = 0.5 * (log10_edges[1:] + log10_edges[:-1])
    name = "halos per bin" if label.quantity == "counts" else "N(> L)"
    top = None
    for column, (true, predicted) in enumerate(zip(truth, prediction, strict=True)):
        cells = [(len(truth), column + 1), (len(truth), len(truth) + column + 1)]
        upper = figure.add_subplot(2, *cells[0], sharey=top)
        top = top or upper
        upper.step(centres, true, where="mid", color="k", label="true")
        upper.plot(centres, predicted, color="tab:orange", label="predicted")
        lower = figure.add_subplot(2, *cells[1], sharex=upper)
        lower.axhline(0.0, color="k", lw=0.8)
        lower.plot(centres, predicted - true, color="tab:orange")
        lower.set(xlabel=r"$\log_{10} L / L_\odot$")
        if column == 0:
            upper.set(ylabel=f"{'log10 ' if label.scale == 'log10' else ''}{name}")
            upper.legend()
            lower.set(ylabel="predicted - true")
    return figure


def _describe(value: Any) -> str:
    """A draw in a line or two: 'model li16, parameters (alpha 1.37, ...), ...'."""
    if isinstance(value, Mapping):
        parts = (
            f"{k} ({_describe(v)})" if isinstance(v, Mapping) else f"{k} {_describe(v)}"
            for k, v in value.items()
        )
        return ", ".join(parts)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_describe, value)) + "]"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
