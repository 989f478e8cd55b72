"""Figures of a network's first filters, its activations, and the gradient of an output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from streamtrain.figures import (
    LABEL_SIZE,
    NETWORK,
    SIGNED,
    SKY,
    TICK_SIZE,
    TRUTH,
    Float,
    colour_limits,
    draw_slice,
    frequency_GHz,
    legend_above,
)


@dataclass(frozen=True)
class Activation:
    """What a layer puts out for one map."""

    name: str
    values: NDArray[np.float32]
    """[channels, n_dec, n_ra], or [channels, n_freq, n_dec, n_ra] in 3 dimensions."""


@dataclass(frozen=True)
class Target:
    """The output that a gradient explains."""

    text: str
    """'mean log10 dN, log10 L = 5.5 to 6'."""
    unit: str
    """Unit of the output: dex, halos or nat."""
    of: Callable[[Tensor, Tensor], Tensor]
    """From point estimates [B, num_outputs] and the label of one halo to the output [B]."""


@dataclass(frozen=True)
class Gradient:
    """A map and the derivative of one output by its voxels, [n_freq, n_dec, n_ra] each."""

    values: Float
    """The map that the network saw, in `unit`."""
    gradient: Float
    """Derivative of the output by each voxel [unit of the output per `unit`]."""
    unit: str
    """uK or Jy/sr; 'network input' where the transform cannot be undone."""
    output: float
    """The output that the network predicts for the map [`Target.unit`]."""


NUM_FILTERS = 8
NUM_CHANNELS = 7
"""Filters, and channels of a layer, that are shown: those that vary most."""
NUM_SLICES = 5
"""Frequencies of a map that are shown."""
Cube = NDArray[np.floating[Any]]


def filters(
    weights: NDArray[np.float32],
    *,
    shape: tuple[int, int, int],
    fov_deg: tuple[float, float],
    nu_GHz: tuple[float, float],
    dimensions: int,
    title: str,
) -> Figure:
    """The filters of the first layer with the largest weights, a row each, by frequency.

    weights: [filters, frequencies, dec, ra]; shape, fov_deg, nu_GHz: of the map that they act on.
    In 2 dimensions a column is a frequency of the map, in 3 an offset in frequency.
    """
    size = np.sqrt((weights**2).sum(axis=(1, 2, 3)))
    chosen = np.argsort(-size, kind="stable")[:NUM_FILTERS]
    num_freq = weights.shape[1]
    columns = np.unique(np.linspace(0, num_freq - 1, min(10, num_freq)).round().astype(int))
    width = max(4.5, 2.0 + len(columns))  # of the words below
    figure = Figure(figsize=(width, 1.3 + 0.95 * len(chosen)), dpi=130, layout="constrained")
    panels = figure.subplots(len(chosen), len(columns), sharex=True, sharey=True, squeeze=False)
    limit = float(np.abs(weights[chosen]).max()) or 1.0
    pixel = [60.0 * side / n for side, n in zip(fov_deg, (shape[2], shape[1]), strict=True)]
    half = [0.5 * p * n for p, n in zip(pixel, (weights.shape[3], weights.shape[2]), strict=True)]
    for row, number in enumerate(chosen):
        for column, frequency in enumerate(columns):
            axes = panels[row, column]
            image = axes.imshow(
                weights[number, frequency],
                origin="lower",
                extent=(-half[0], half[0], -half[1], half[1]),
                cmap=SIGNED,
                vmin=-limit,
                vmax=limit,
                aspect="auto",
                interpolation="nearest",
            )
            axes.tick_params(labelsize=TICK_SIZE - 2)
            if row == 0:
                axes.set_title(
                    _filter_frequency(dimensions, nu_GHz, shape[0], int(frequency), num_freq),
                    fontsize=TICK_SIZE - 1,
                )
        panels[row, 0].set_ylabel(f"filter {number}", fontsize=TICK_SIZE - 1)
    panels[0, 0].invert_xaxis()
    figure.supxlabel("offset in ra [arcmin]; left: offset in dec [arcmin]", fontsize=TICK_SIZE)
    figure.suptitle(title, fontsize=LABEL_SIZE)
    bar = figure.colorbar(image, ax=panels, shrink=0.7, pad=0.01)
    bar.set_label("weight (input in standard deviations)", fontsize=TICK_SIZE)
    bar.ax.tick_params(labelsize=TICK_SIZE - 1)
    return figure


def _filter_frequency(
    dimensions: int, nu_GHz: tuple[float, float], num_map: int, channel: int, num: int
) -> str:
    if dimensions == 2:
        return f"{frequency_GHz(nu_GHz, channel, num_map):.2f} GHz"
    width = (nu_GHz[1] - nu_GHz[0]) / num_map
    return f"{(channel - num // 2) * width + 0.0:+.2f} GHz"  # no -0.00


def activations(
    cube: Cube,
    layers: Sequence[Activation],
    *,
    fov_deg: tuple[float, float],
    nu_GHz: tuple[float, float],
    title: str,
) -> Figure:
    """The map, a frequency per panel, and below it a row for every layer: the channels that vary
    most over the sky, in 3 dimensions at the frequency where they do. cube: the network's input."""
    rows = 1 + len(layers)
    figure = Figure(
        figsize=(1.6 + 1.65 * NUM_CHANNELS, 0.8 + 1.75 * rows), dpi=130, layout="constrained"
    )
    panels = figure.subplots(rows, NUM_CHANNELS, sharex=True, sharey=True, squeeze=False)
    num = len(cube)
    chosen = np.unique(np.linspace(0, num - 1, min(NUM_CHANNELS, num)).round().astype(int))
    headings = [f"{frequency_GHz(nu_GHz, k, num):.2f} GHz" for k in chosen]
    _row(figure, panels[0], list(cube[chosen]), headings, "network input", fov_deg)
    for axes_row, layer in zip(panels[1:], layers, strict=True):
        slices, headings = _most_varied(layer.values)
        size = " x ".join(map(str, layer.values.shape[1:]))
        name = f"{layer.name}\n{len(layer.values)} of {size}"
        _row(figure, axes_row, slices, headings, name, fov_deg)
    for axes in panels[:, 0]:
        axes.tick_params(axis="y", labelsize=TICK_SIZE - 2)
    for axes in panels[-1]:
        axes.tick_params(axis="x", labelsize=TICK_SIZE - 2)
    figure.supxlabel("ra [deg]; left: dec [deg]", fontsize=TICK_SIZE)
    figure.suptitle(title, fontsize=LABEL_SIZE)
    return figure


def _most_varied(values: NDArray[np.float32]) -> tuple[list[Cube], list[str]]:
    """Slices of the channels with the largest standard deviation over the sky, and their names."""
    deviation = values.std(axis=(-2, -1))
    strength = deviation if values.ndim == 3 else deviation.max(axis=1)
    if values.shape[-1] * values.shape[-2] == 1:  # one pixel: the largest
        strength = np.abs(values).reshape(len(values), -1).max(axis=1)
    order = np.argsort(-strength, kind="stable")[:NUM_CHANNELS]
    if values.ndim == 3:
        return [values[k] for k in order], [f"channel {k}" for k in order]
    at = [int(deviation[k].argmax()) for k in order]
    num = values.shape[1]
    headings = [f"ch. {k}, freq. {f + 1}/{num}" for k, f in zip(order, at, strict=True)]
    return [values[k, f] for k, f in zip(order, at, strict=True)], headings


def _row(
    figure: Figure,
    row: NDArray[Any],
    slices: Sequence[Cube],
    headings: Sequence[str],
    name: str,
    fov_deg: tuple[float, float],
) -> None:
    """Panels of one colour scale."""
    limits = colour_limits(np.stack(slices))
    for axes in row[len(slices) :]:
        axes.set_visible(False)
    shown: list[Axes] = list(row[: len(slices)])
    for axes, values, heading in zip(shown, slices, headings, strict=True):
        image = draw_slice(axes, values, fov_deg, limits)
        axes.set_xlim(fov_deg[0] / 2, -fov_deg[0] / 2)  # shared axes: not inverted twice
        axes.set_title(heading, fontsize=TICK_SIZE - 2)
        axes.tick_params(labelsize=TICK_SIZE - 2)
    shown[0].set_ylabel(name, fontsize=TICK_SIZE - 1)
    bar = figure.colorbar(image, ax=list(row), pad=0.01, aspect=12)
    bar.ax.tick_params(labelsize=TICK_SIZE - 2)


def gradient(
    found: Gradient,
    target: Target,
    *,
    fov_deg: tuple[float, float],
    nu_GHz: tuple[float, float],
    title: str,
) -> Figure:
    """A few frequencies of the map, the gradient in the same voxels, and by frequency the sum of
    the gradient and of its absolute value over the sky."""
    num = len(found.values)
    chosen = np.unique(np.linspace(0, num - 1, min(NUM_SLICES, num)).round().astype(int))
    columns = len(chosen)
    figure = Figure(figsize=(1.6 + 2.35 * columns, 8.4), dpi=130, layout="constrained")
    places = figure.add_gridspec(3, columns, height_ratios=(1.25, 1.25, 1.0))
    unit = r"$\mu$K" if found.unit == "uK" else found.unit
    per = f"{target.unit} / {unit}" if found.unit != "network input" else target.unit
    largest = float(np.percentile(np.abs(found.gradient[chosen]), 99.8)) or 1.0
    rows = (
        (found.values, colour_limits(found.values[chosen]), SKY, f"map [{unit}]"),
        (found.gradient, (-largest, largest), SIGNED, f"gradient\n[{per} per voxel]"),
    )
    for row, (cube, limits, colours, name) in enumerate(rows):
        panels = [figure.add_subplot(places[row, k]) for k in range(columns)]
        for axes, k in zip(panels, chosen, strict=True):
            image = draw_slice(axes, cube[k], fov_deg, limits)
            image.set_cmap(colours)
            axes.tick_params(labelsize=TICK_SIZE - 1)
            if row == 0:
                axes.set_title(f"{frequency_GHz(nu_GHz, k, num):.2f} GHz", fontsize=TICK_SIZE)
            else:
                axes.set_xlabel("ra [deg]", fontsize=TICK_SIZE)
            if axes is not panels[0]:
                axes.tick_params(labelleft=False)
        panels[0].set_ylabel("dec [deg]", fontsize=TICK_SIZE)
        bar = figure.colorbar(image, ax=panels, pad=0.01, extend="both")
        bar.set_label(name, fontsize=TICK_SIZE)
        bar.ax.tick_params(labelsize=TICK_SIZE - 1)
    _spectrum(figure.add_subplot(places[2, :]), found, nu_GHz, per)
    figure.suptitle(
        f"{title}\n{target.text}: the network predicts {found.output:.4g} {target.unit}",
        fontsize=LABEL_SIZE,
    )
    return figure


def _spectrum(axes: Axes, found: Gradient, nu_GHz: tuple[float, float], per: str) -> None:
    """Gradient summed over the sky: what a change of a whole frequency slice would do."""
    num = len(found.gradient)
    at = [frequency_GHz(nu_GHz, k, num) for k in range(num)]
    sums = found.gradient.sum(axis=(1, 2)), np.abs(found.gradient).sum(axis=(1, 2))
    axes.plot(at, sums[0], "o-", color=NETWORK, ms=4, lw=1.8, label="sum over the sky")
    axes.plot(at, sums[1], "s--", color=TRUTH, ms=3, lw=1.2, label="sum of absolute values")
    axes.axhline(0.0, color=TRUTH, lw=0.8)
    axes.set_xlabel("frequency [GHz]", fontsize=TICK_SIZE)
    axes.set_ylabel(f"gradient, summed\n[{per}]", fontsize=TICK_SIZE)
    legend_above(axes, 2)
    axes.tick_params(labelsize=TICK_SIZE - 1)
    axes.grid(alpha=0.25, lw=0.6)
